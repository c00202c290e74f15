/* Three clustermasters in one simulated world, with clients on the chassis' naming library: while
 * masters crash, pause, lose their disks and are cut from each other, locks, sessions, watches and
 * names go on. Whatever happens: no lock is held twice under the same or an older epoch, no
 * acknowledged write is lost, watches show each name's values in order, and a dead leader is missed
 * for less than three seconds. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "chassis/naming.h"
#include "chassis/service.h"
#include "chassis/sim.h"
#include "master.h"
#include "seeds.h"
#include "test.h"

enum { MASTERS = 3, LOCKERS = 3, WRITERS = 3, SWITCH_MS_MAX = 3000 };
#define MEMBERS "10.0.0.101:7000,10.0.0.102:7000,10.0.0.103:7000"

struct writer {
    struct ch_sim_node *node;
    char name[16], host[16], path[32];
    uint64_t tried, acked;         /* values: 1, 2, … */
    uint64_t version, answered_at; /* of the last acknowledged */
};
static struct world {
    struct ch_sim *sim;
    uint64_t seed;
    struct ch_sim_node *masters[MASTERS], *lockers[LOCKERS], *watcher;
    struct ch_service_args args[MASTERS];
    struct clu_master *running[MASTERS]; /* NULL: it does not */
    char *argv[MASTERS][8];
    char listen[MASTERS][32], data[MASTERS][32];
    struct writer writers[WRITERS];
    struct ch_lock *locks[LOCKERS]; /* what each has in its hands */
    uint64_t epoch_max, acquisitions;
    size_t epoch_owner;
    uint64_t seen[WRITERS], seen_version[WRITERS]; /* by the watch */
    bool stop;                                     /* writers */
} w;

static const char *const master_hosts[MASTERS] = { "10.0.0.101", "10.0.0.102", "10.0.0.103" };

/* The clustermaster, with an eye on who is there. */
static struct base_status spy_start(const struct ch_service_start *start,
                                    void **self) CH_WAITS BASE_MUST_CHECK;
static struct base_status spy_start(const struct ch_service_start *start, void **self)
{
    struct base_status status = clu_master_def.start(start, self);

    for (size_t i = 0; i < MASTERS && !base_failed(status); i++)
        if (strncmp(start->common->listen, master_hosts[i], strlen(master_hosts[i])) == 0)
            w.running[i] = *self;
    return status;
}

static CH_WAITS void spy_stop(void *self)
{
    for (size_t i = 0; i < MASTERS; i++)
        if (w.running[i] == self)
            w.running[i] = NULL;
    clu_master_def.stop(self);
}

static struct ch_service_def spy_def;

static void master_start(size_t i)
{
    ch_sim_start(w.masters[i], ch_service_main, &w.args[i]);
}

/* ---- clients ---- */

static int locker_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    size_t self = (size_t)(uintptr_t)arg;
    struct ch_naming *naming = ch_naming_new(env, MEMBERS);

    while (!ch_cancelled()) {
        struct ch_lock *lock = NULL;
        struct base_status status =
            ch_lock_acquire(naming, "/sim/lock", BASE_BYTES_LIT("x"), ch_in(env, 3 * CH_S), &lock);

        if (base_failed(status)) {
            base_status_free(&status);
            if (ch_sleep_until(env, ch_in(env, 50 * CH_MS)) != CH_TIMEOUT)
                break;
            continue;
        }
        cr_assert(ch_lock_epoch(lock) > w.epoch_max ||
                      (ch_lock_epoch(lock) == w.epoch_max && w.epoch_owner == self),
                  "seed %" PRIu64 ": epoch %" PRIu64 " after %" PRIu64, w.seed, ch_lock_epoch(lock),
                  w.epoch_max);
        w.epoch_max = ch_lock_epoch(lock);
        w.epoch_owner = self;
        w.acquisitions++;
        w.locks[self] = lock;
        (void)!ch_lock_wait_lost(lock, ch_in(env, (ch_time)ch_random_below(env, 2000) * CH_MS));
        w.locks[self] = NULL;
        ch_lock_free(lock);
    }
    ch_naming_free(naming);
    return 0;
}

static uint64_t number_of(struct base_bytes value)
{
    uint64_t number = 0;

    for (size_t i = 0; i < value.len; i++)
        number = number * 10 + (uint64_t)(value.data[i] - '0');
    return number;
}

/* Writes 1, 2, 3, … each on condition of the version before it. An unknown outcome is looked
 * into. */
static CH_WAITS void write_one(struct writer *self, struct ch_naming *naming, struct ch_env *env)
{
    char value[24];
    uint64_t version = 0;
    struct base_status status;

    snprintf(value, sizeof(value), "%" PRIu64, ++self->tried);
    status = ch_name_set(naming, self->path, base_bytes_str(value), (int64_t)self->version, false,
                         ch_in(env, 5 * CH_S), &version);
    while (base_failed(status) && !ch_cancelled()) {
        struct ch_name_entry entry;
        struct base_arena arena = { 0 };

        cr_assert(status.code != BASE_NOT_FOUND || self->acked == 0,
                  "seed %" PRIu64 ": %s with %" PRIu64 " acknowledged: %s", w.seed, self->path,
                  self->acked, base_status_text(&status));
        base_status_free(&status);
        (void)ch_sleep_until(env, ch_in(env, 20 * CH_MS));
        status = ch_name_get(naming, self->path, ch_in(env, 5 * CH_S), &arena, &entry);
        if (!base_failed(status)) {
            uint64_t there = number_of(entry.value);

            cr_assert(there == self->tried || there == self->acked,
                      "seed %" PRIu64 ": %s is %" PRIu64 ", acknowledged %" PRIu64
                      ", tried %" PRIu64,
                      w.seed, self->path, there, self->acked, self->tried);
            version = entry.version;
            if (there != self->tried) { /* it did not come to be; and will not: the version grew */
                status = ch_name_set(naming, self->path, base_bytes_str(value),
                                     (int64_t)entry.version, false, ch_in(env, 5 * CH_S), &version);
            }
        } else if (status.code == BASE_NOT_FOUND && self->acked == 0) {
            base_status_free(&status);
            status = ch_name_set(naming, self->path, base_bytes_str(value), 0, false,
                                 ch_in(env, 5 * CH_S), &version);
        }
        base_arena_free(&arena);
    }
    if (base_failed(status)) {
        base_status_free(&status);
        return;
    }
    cr_assert(version > self->version, "seed %" PRIu64 ": versions grow", w.seed);
    self->acked = self->tried;
    self->version = version;
    self->answered_at = (uint64_t)ch_now(env);
}

static int writer_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct writer *self = arg;
    struct ch_naming *naming = ch_naming_new(env, MEMBERS);

    while (!ch_cancelled() && !w.stop) {
        write_one(self, naming, env);
        (void)ch_sleep_until(env, ch_in(env, (ch_time)ch_random_below(env, 40) * CH_MS));
    }
    ch_naming_free(naming);
    return 0;
}

static int watcher_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_naming *naming = ch_naming_new(env, MEMBERS);
    struct ch_name_watch *watch = ch_name_watch(naming, "/sim/w");
    uint64_t generation = 0;

    while (ch_name_watch_wait(watch, &generation, CH_NEVER) == CH_OK) {
        size_t count = 0;
        const struct ch_name_entry *entries = ch_name_watch_entries(watch, &count);

        for (size_t i = 0; i < count; i++) {
            size_t k = strtoull(entries[i].path + strlen("/sim/w/"), NULL, 10);
            uint64_t value = number_of(entries[i].value);

            cr_assert(value >= w.seen[k] && entries[i].version >= w.seen_version[k],
                      "seed %" PRIu64 ": the watch shows %" PRIu64 " of %s after %" PRIu64, w.seed,
                      value, entries[i].path, w.seen[k]);
            w.seen[k] = value;
            w.seen_version[k] = entries[i].version;
        }
    }
    ch_name_watch_free(watch);
    ch_naming_free(naming);
    return 0;
}

/* ---- the world ---- */

/* Looked at after every event. */
static bool at_most_one(void *arg)
{
    size_t sure = 0;

    for (size_t i = 0; i < LOCKERS; i++)
        sure += w.locks[i] && ch_lock_valid_until(w.locks[i]) > ch_sim_now(w.sim);
    cr_assert(sure <= 1, "seed %" PRIu64 " at %" PRId64 " ms: %zu clients are sure of the lock",
              w.seed, (int64_t)(ch_sim_now(w.sim) / CH_MS), sure);
    return false;
}

static void run_ms(int64_t ms)
{
    ch_sim_run(w.sim, at_most_one, NULL, ch_sim_now(w.sim) + ms * CH_MS);
}

static uint64_t below(uint64_t bound)
{
    return ch_sim_random(w.sim) % bound;
}

static void masters_begin(void)
{
    static const char *const names[MASTERS] = { "m1", "m2", "m3" };

    for (size_t i = 0; i < MASTERS; i++) {
        char **argv = w.argv[i];
        int n = 0;

        snprintf(w.listen[i], sizeof(w.listen[i]), "--listen=%s:7000", master_hosts[i]);
        argv[n++] = "clustermaster";
        argv[n++] = w.listen[i];
        argv[n++] = "--data-dir=data";
        argv[n++] = "--cell=sim";
        argv[n++] = "--admin=";
        argv[n++] = "--members=" MEMBERS;
        argv[n++] = "--snapshot-bytes=4KiB";
        if (i == 0)
            argv[n++] = "--found=true";
        w.args[i] = (struct ch_service_args){ &spy_def, n, argv };
        w.masters[i] = ch_sim_node(w.sim, names[i], master_hosts[i]);
        master_start(i);
    }
}

static void world_begin(uint64_t seed)
{
    memset(&w, 0, sizeof(w));
    spy_def = clu_master_def;
    spy_def.start = spy_start;
    spy_def.stop = spy_stop;
    w.seed = seed;
    w.sim = ch_sim_new(seed);
    masters_begin();
    run_ms(3000);
    w.args[0].argc = 7; /* founded: never again (what the cell's file remembers) */
    for (size_t i = 0; i < WRITERS; i++) {
        struct writer *writer = &w.writers[i];

        snprintf(writer->name, sizeof(writer->name), "writer%zu", i);
        snprintf(writer->host, sizeof(writer->host), "10.0.2.%zu", i + 1);
        snprintf(writer->path, sizeof(writer->path), "/sim/w/%zu", i);
        writer->node = ch_sim_node(w.sim, writer->name, writer->host);
        ch_sim_start(writer->node, writer_main, writer);
    }
    for (size_t i = 0; i < LOCKERS; i++) {
        static const char *const names[LOCKERS] = { "l1", "l2", "l3" };
        static const char *const hosts[LOCKERS] = { "10.0.1.1", "10.0.1.2", "10.0.1.3" };

        w.lockers[i] = ch_sim_node(w.sim, names[i], hosts[i]);
        ch_sim_start(w.lockers[i], locker_main, (void *)(uintptr_t)i);
    }
    w.watcher = ch_sim_node(w.sim, "watcher", "10.0.3.1");
    ch_sim_start(w.watcher, watcher_main, NULL);
    run_ms(500);
}

/* The one that knows it; MASTERS when none does. */
static size_t leader(void)
{
    size_t found = MASTERS;

    for (size_t i = 0; i < MASTERS; i++)
        if (w.running[i] && w.running[i]->term > 0)
            found = i;
    return found;
}

static void cut_off(size_t i, bool clients_too)
{
    for (size_t k = 0; k < MASTERS; k++) {
        ch_sim_net_cut(w.sim, master_hosts[i], master_hosts[k], k != i);
        ch_sim_net_cut(w.sim, master_hosts[k], master_hosts[i], k != i);
    }
    for (size_t k = 0; k < WRITERS && clients_too; k++) {
        ch_sim_net_cut(w.sim, master_hosts[i], w.writers[k].host, true);
        ch_sim_net_cut(w.sim, w.writers[k].host, master_hosts[i], true);
    }
}

static void heal(void)
{
    ch_sim_net_heal(w.sim);
    for (size_t i = 0; i < MASTERS; i++) {
        ch_sim_pause(w.masters[i], false);
        if (!ch_sim_running(w.masters[i]))
            master_start(i);
    }
}

static void trouble(void)
{
    size_t i = below(3) ? leader() : below(MASTERS), other = below(MASTERS);

    i = i < MASTERS ? i : below(MASTERS);
    switch (below(9)) {
    case 0:
    case 1:
        if (ch_sim_running(w.masters[i]))
            ch_sim_crash(w.masters[i]);
        break;
    case 2:
        if (ch_sim_running(w.masters[i]))
            ch_sim_kill(w.masters[i]);
        break;
    case 3:
        ch_sim_pause(w.masters[i], true);
        break;
    case 4:
        cut_off(i, false);
        break;
    case 5:
        cut_off(i, true);
        break;
    case 6: /* one way */
        ch_sim_net_cut(w.sim, master_hosts[i], master_hosts[other], i != other);
        break;
    case 7:
        if (ch_sim_running(w.masters[i]))
            ch_sim_stop(w.masters[i]);
        break;
    default:
        ch_sim_net_reset(w.sim, master_hosts[i], master_hosts[other]);
        break;
    }
    run_ms((int64_t)below(5000));
    if (below(4))
        heal();
}

static uint64_t acked_all(void)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < WRITERS; i++)
        sum += w.writers[i].acked;
    return sum;
}

/* ---- tests ---- */

static void final_look(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = arg;
    struct ch_naming *naming = ch_naming_new(env, MEMBERS);

    for (size_t i = 0; i < WRITERS; i++) {
        struct base_arena arena = { 0 };
        struct ch_name_entry entry;
        struct base_status status =
            ch_name_get(naming, w.writers[i].path, ch_in(env, 30 * CH_S), &arena, &entry);

        cr_assert(!base_failed(status), "seed %" PRIu64 ": %s", w.seed, base_status_text(&status));
        cr_assert_eq(number_of(entry.value), w.writers[i].acked, "seed %" PRIu64 ": %s", w.seed,
                     w.writers[i].path);
        base_arena_free(&arena);
    }
    ch_naming_free(naming);
}

Test(sim_group, nothing_is_lost_and_no_lock_is_held_twice)
{
    /* Troubles of all kinds at masters, the leader's most often; then peace: everything written and
     * acknowledged is there, the watch shows it, the lock goes round. */
    uint64_t first = ch_sim_seed(1), total = 0;

    for (uint64_t seed = first; seed < first + seeds_count(10); seed++) {
        uint64_t acquisitions, acked;

        world_begin(seed);
        for (int i = 0; i < 20; i++) {
            run_ms(200 + (int64_t)below(3000));
            trouble();
        }
        heal();
        run_ms(8000);
        acquisitions = w.acquisitions;
        acked = acked_all();
        run_ms(15000);
        cr_assert(w.acquisitions > acquisitions + 2, "seed %" PRIu64 ": the lock is stuck", seed);
        cr_assert(acked_all() > acked + 100, "seed %" PRIu64 ": writes are stuck", seed);
        w.stop = true;
        run_ms(6000);
        for (size_t i = 0; i < WRITERS; i++)
            cr_assert_eq(w.seen[i], w.writers[i].acked, "seed %" PRIu64 ": the watch of %s", seed,
                         w.writers[i].path);
        ch_sim_do(w.sim, final_look, ch_sim_tester_env(w.sim), ch_sim_now(w.sim) + 100 * CH_S);
        total += acked_all();
        ch_sim_free(w.sim);
    }
    fprintf(stderr, "%" PRIu64 " writes acknowledged\n", total);
}

static int by_size(const void *a, const void *b)
{
    return (*(const int64_t *)a > *(const int64_t *)b) -
           (*(const int64_t *)a < *(const int64_t *)b);
}

Test(sim_group, a_dead_leader_is_missed_for_less_than_three_seconds)
{
    /* However the leader goes (killed, paused, cut off, asked to stop), writes resume at another in
     * less than three seconds: that is what clients above are built on. */
    enum { ROUNDS = 40 };
    int64_t gaps[ROUNDS];

    for (int round = 0; round < ROUNDS; round++) {
        size_t lost;
        ch_time began;
        uint64_t acked[WRITERS];
        bool all = false;

        world_begin(1000 + (uint64_t)round);
        run_ms((int64_t)below(2000));
        lost = leader();
        cr_assert(lost < MASTERS, "seed %" PRIu64 ": nobody leads in peace", w.seed);
        began = ch_sim_now(w.sim);
        switch (round % 4) {
        case 0:
            ch_sim_crash(w.masters[lost]);
            break;
        case 1:
            ch_sim_pause(w.masters[lost], true);
            break;
        case 2:
            cut_off(lost, true);
            break;
        default:
            ch_sim_stop(w.masters[lost]);
            break;
        }
        for (size_t i = 0; i < WRITERS; i++)
            acked[i] = w.writers[i].acked;
        while (!all) {
            run_ms(5);
            all = true;
            for (size_t i = 0; i < WRITERS; i++)
                all = all && w.writers[i].acked > acked[i] + 1; /* begun after it, for sure */
            cr_assert(ch_sim_now(w.sim) - began < 20 * CH_S, "seed %" PRIu64 ": no writes", w.seed);
        }
        gaps[round] = (ch_sim_now(w.sim) - began) / CH_MS;
        cr_assert(gaps[round] < SWITCH_MS_MAX,
                  "seed %" PRIu64 ", way %d: writes resumed after %" PRId64 " ms", w.seed,
                  round % 4, gaps[round]);
        ch_sim_free(w.sim);
    }
    qsort(gaps, ROUNDS, sizeof(gaps[0]), by_size);
    fprintf(stderr, "writes resume: p50 %" PRId64 " ms, p90 %" PRId64 " ms, max %" PRId64 " ms\n",
            gaps[ROUNDS / 2], gaps[ROUNDS * 9 / 10], gaps[ROUNDS - 1]);
}

Test(sim_group, a_master_that_lost_its_disk_comes_back_as_a_new_member)
{
    /* Who cannot remember must not vote; but the cell gets its third master back, and then bears
     * the loss of another. */
    for (uint64_t seed = 1; seed <= seeds_count(5); seed++) {
        size_t lost;
        uint64_t acked;

        world_begin(seed);
        lost = seed % 2 ? leader() : (leader() + 1) % MASTERS;
        ch_sim_crash(w.masters[lost]);
        ch_sim_disk_lose(w.masters[lost]);
        run_ms(4000);
        master_start(lost);
        run_ms(6000);
        ch_sim_crash(w.masters[(lost + 1) % MASTERS]);
        run_ms(4000);
        acked = acked_all();
        run_ms(3000);
        cr_assert(acked_all() > acked + 20,
                  "seed %" PRIu64 ": with one of three dead the other two go on", seed);
        ch_sim_free(w.sim);
    }
}
