/* failover.c: how long writes stop when the leader of a group of masters goes, and whether anything
 * is lost, read stale or held twice meanwhile. Real processes: started, killed, paused and cut off
 * by `run` beside this, which this asks for it.
 *
 *   failover names|etcd|blocks --members A,B,C --ways kill,stop,cut --rounds N --act COMMAND
 *
 * names: the clustermaster's; etcd: the same, its state in an etcd cluster; blocks: the
 * blockmaster's.
 *
 * A round: wait until all three members are well; `COMMAND lose WAY I` (I: the leader's number);
 * until every one of the writers has had a write acknowledged that it began after that; `COMMAND
 * restore WAY I`. Checked throughout: an acknowledged write is there at every later look
 * (linearizable reads by others included); of two that want one lock never both are sure of it, and
 * its epochs grow. */
#include "failover.h"

#include "chassis/log.h"

/* ---- one write of each kind ---- */

uint64_t number_of(struct base_bytes value)
{
    uint64_t number = 0;

    for (size_t i = 0; i < value.len && value.data[i] >= '0' && value.data[i] <= '9'; i++)
        number = number * 10 + (uint64_t)(value.data[i] - '0');
    return number;
}

static bool name_write(struct writer *w) CH_WAITS;
static bool name_write(struct writer *w)
{
    struct ch_env *env = w->bench->env;
    char path[64], value[24];
    uint64_t version = 0;
    struct base_status status;

    snprintf(path, sizeof(path), "/bench/%" PRIu64 "/%zu", w->bench->run, w->index);
    snprintf(value, sizeof(value), "%" PRIu64, w->tried);
    status = ch_name_set(w->naming, path, base_bytes_str(value), (int64_t)w->version, false,
                         ch_in(env, 10 * CH_S), &version);
    while (base_failed(status) && !ch_cancelled()) {
        struct base_arena arena = { 0 };
        struct ch_name_entry entry;

        w->bench->unknown++;
        base_status_free(&status);
        status = ch_name_get(w->naming, path, ch_in(env, 10 * CH_S), &arena, &entry);
        if (status.code == BASE_NOT_FOUND) {
            MUST(w->acked == 0, "%s is gone, %" PRIu64 " was acknowledged", path, w->acked);
            base_status_free(&status);
            status = ch_name_set(w->naming, path, base_bytes_str(value), 0, false,
                                 ch_in(env, 10 * CH_S), &version);
        } else if (!base_failed(status)) {
            uint64_t there = number_of(entry.value);

            MUST(there == w->tried || there == w->acked,
                 "%s is %" PRIu64 ", acknowledged %" PRIu64 ", tried %" PRIu64, path, there,
                 w->acked, w->tried);
            version = entry.version;
            if (there != w->tried)
                status = ch_name_set(w->naming, path, base_bytes_str(value), (int64_t)entry.version,
                                     false, ch_in(env, 10 * CH_S), &version);
        }
        base_arena_free(&arena);
    }
    w->version = version;
    return base_status_drop(status) == BASE_OK;
}

static void file_path(const struct bench *bench, size_t writer, uint64_t serial, char path[80])
{
    snprintf(path, 80, "/bench/%" PRIu64 "/%zu/%08" PRIu64, bench->run, writer, serial);
}

/* Makes a file, appends to it, seals it: three changes of the metadata at least. */
static bool file_write(struct writer *w) CH_WAITS;
static bool file_write(struct writer *w)
{
    struct ch_env *env = w->bench->env;
    struct blk_append_options options = { .create = true };
    uint8_t data[DATA_BYTES];
    struct base_bytes part = base_bytes(data, sizeof(data));
    bool done = false;

    memset(data, (int)w->tried, sizeof(data));
    while (!done && !ch_cancelled()) {
        struct blk_writer *writer = NULL;
        uint64_t length = 0, offset;
        char path[80];
        struct base_status status;

        file_path(w->bench, w->index, w->tried, path);
        status =
            blk_open_append(w->client, path, &options, ch_in(env, 10 * CH_S), &writer, &length);
        if (!base_failed(status)) {
            if (length == 0)
                status = blk_append(writer, &part, 1, ch_in(env, 10 * CH_S), &offset);
            if (!base_failed(status))
                status = blk_writer_seal(writer, ch_in(env, 10 * CH_S));
            blk_writer_close(writer);
        } else if (status.code ==
                   BASE_FAILED_PRECONDITION) { /* sealed: an earlier try got so far */
            struct base_arena arena = { 0 };
            struct blk_stat stat;

            base_status_free(&status);
            status = blk_stat(w->client, path, ch_in(env, 10 * CH_S), &arena, &stat);
            if (!base_failed(status) && !stat.sealed)
                status = base_status_make(BASE_ABORTED, "%s is not sealed after all", path);
            base_arena_free(&arena);
        }
        done = !base_failed(status);
        w->bench->unknown += !done;
        if (!done && getenv("VERBOSE"))
            fprintf(stderr, "%s: %s\n", path, base_status_text(&status));
        base_status_free(&status);
        if (!done && ch_sleep_until(env, ch_in(env, 20 * CH_MS)) != CH_TIMEOUT)
            return false;
    }
    return done;
}

static void writer_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct writer *w = arg;
    struct ch_env *env = w->bench->env;

    while (!w->bench->stop && !ch_cancelled()) {
        ch_time began = ch_now(env);

        w->tried++;
        if (!(w->bench->blocks ? file_write(w) : name_write(w)))
            return;
        w->acked = w->tried;
        w->began_acked = began;
        if (ch_sleep_until(env, ch_in(env, 5 * CH_MS)) != CH_TIMEOUT)
            return;
    }
}

/* ---- those who look on ---- */

static void reader_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct bench *bench = arg;
    struct ch_naming *naming = bench->blocks ? NULL : ch_naming_new(bench->env, bench->members);
    struct blk_client *client =
        bench->blocks
            ? blk_client_new(bench->env, &(struct blk_client_options){ .masters = bench->members })
            : NULL;

    for (uint64_t i = 0; !ch_cancelled(); i++) {
        const struct writer *w = &bench->writers[i % WRITERS];
        uint64_t acked = w->acked;
        struct base_arena arena = { 0 };
        struct base_status status = BASE_STATUS_OK;
        char path[80];

        if (acked > 0 && bench->blocks) {
            struct blk_stat stat;

            file_path(bench, w->index, acked, path);
            status = blk_stat(client, path, ch_in(bench->env, 5 * CH_S), &arena, &stat);
            MUST(status.code != BASE_NOT_FOUND, "%s was acknowledged and is not found", path);
            MUST(base_failed(status) || (stat.sealed && stat.length == DATA_BYTES),
                 "%s was sealed with %d bytes", path, DATA_BYTES);
        } else if (acked > 0) {
            struct ch_name_entry entry;

            snprintf(path, sizeof(path), "/bench/%" PRIu64 "/%zu", bench->run, w->index);
            status = ch_name_get(naming, path, ch_in(bench->env, 5 * CH_S), &arena, &entry);
            MUST(status.code != BASE_NOT_FOUND, "%s is not found", path);
            MUST(base_failed(status) || number_of(entry.value) >= acked,
                 "%s: read %" PRIu64 " after %" PRIu64 " was acknowledged", path,
                 number_of(entry.value), acked);
        }
        bench->reads += acked > 0 && !base_failed(status);
        base_status_free(&status);
        base_arena_free(&arena);
        if (ch_sleep_until(bench->env, ch_in(bench->env, 3 * CH_MS)) != CH_TIMEOUT)
            break;
    }
    if (naming)
        ch_naming_free(naming);
    if (client)
        blk_client_free(client);
}

struct locker {
    struct bench *bench;
    size_t index;
};

static void locker_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct locker *self = arg;
    struct bench *bench = self->bench;
    struct ch_env *env = bench->env;
    struct ch_naming *naming = ch_naming_new(env, bench->members);

    while (!ch_cancelled()) {
        struct ch_lock *lock = NULL;
        struct base_status status = ch_lock_acquire(naming, "/bench/lock", BASE_BYTES_LIT("x"),
                                                    ch_in(env, 5 * CH_S), &lock);

        if (base_failed(status)) {
            base_status_free(&status);
            continue;
        }
        for (size_t i = 0; i < LOCKERS; i++)
            MUST(!bench->locks[i] || !ch_lock_held(bench->locks[i]), "two are sure of the lock");
        MUST(ch_lock_epoch(lock) >= bench->epoch_max, "epoch %" PRIu64 " after %" PRIu64,
             ch_lock_epoch(lock), bench->epoch_max);
        bench->epoch_max = ch_lock_epoch(lock);
        bench->acquisitions++;
        bench->locks[self->index] = lock;
        (void)!ch_lock_wait_lost(lock, ch_in(env, 200 * CH_MS));
        bench->locks[self->index] = NULL;
        ch_lock_free(lock);
    }
    ch_naming_free(naming);
}

static void act(const struct bench *bench, const char *what, const char *way, size_t i)
{
    char command[1024];

    snprintf(command, sizeof(command), "%s %s %s %zu", bench->act, what, way, i);
    MUST(system(command) == 0, "%s failed", command);
}

/* ---- rounds ---- */

static int64_t round_run(struct bench *bench, const char *way) CH_WAITS;
static int64_t round_run(struct bench *bench, const char *way)
{
    size_t leader = leader_wait(bench);
    ch_time lost, deadline, resumed;
    bool all = false;

    /* not always at the same moment between heartbeats */
    (void)ch_sleep_until(
        bench->env, ch_in(bench->env, (ch_time)(300 + ch_random_below(bench->env, 300)) * CH_MS));
    lost = ch_now(bench->env);
    act(bench, "lose", way, leader);
    deadline = ch_in(bench->env, 60 * CH_S);
    while (!all) {
        (void)ch_sleep_until(bench->env, ch_in(bench->env, CH_MS));
        all = true;
        for (size_t i = 0; i < WRITERS; i++)
            all = all && bench->writers[i].began_acked >= lost;
        MUST(ch_now(bench->env) < deadline, "no writes for a minute");
    }
    resumed = ch_now(bench->env);
    (void)ch_sleep_until(bench->env, ch_in(bench->env, 300 * CH_MS)); /* it wakes up deposed */
    act(bench, "restore", way, leader);
    return (resumed - lost) / CH_MS;
}

static int by_size(const void *a, const void *b)
{
    return (*(const int64_t *)a > *(const int64_t *)b) -
           (*(const int64_t *)a < *(const int64_t *)b);
}

static int64_t print(const char *group, const char *way, int64_t *gaps, size_t count)
{
    size_t p99 = (count * 99 + 99) / 100 - 1;

    qsort(gaps, count, sizeof(*gaps), by_size);
    printf("%-14s %-5s  %3zu rounds: writes resume in p50 %5" PRId64 " ms, p99 %5" PRId64
           " ms, max %5" PRId64 " ms\n",
           group, way, count, gaps[count / 2], gaps[p99], gaps[count - 1]);
    fflush(stdout);
    return gaps[p99];
}

/* Everything acknowledged, once more. */
static void last_look(struct bench *bench) CH_WAITS;
static void last_look(struct bench *bench)
{
    uint64_t all = 0;

    for (size_t i = 0; i < WRITERS; i++) {
        const struct writer *w = &bench->writers[i];
        uint64_t first = bench->blocks ? 1 : w->acked;

        for (uint64_t serial = first; serial <= w->acked; serial++) {
            struct base_arena arena = { 0 };
            char path[80];
            struct base_status status;

            if (bench->blocks) {
                struct blk_stat stat = { 0 };

                file_path(bench, i, serial, path);
                status = blk_stat(w->client, path, ch_in(bench->env, 10 * CH_S), &arena, &stat);
                MUST(!base_failed(status) && stat.sealed && stat.length == DATA_BYTES,
                     "%s is lost: %s", path, base_status_text(&status));
            } else {
                struct ch_name_entry entry;

                snprintf(path, sizeof(path), "/bench/%" PRIu64 "/%zu", bench->run, i);
                status = ch_name_get(w->naming, path, ch_in(bench->env, 10 * CH_S), &arena, &entry);
                MUST(!base_failed(status) && number_of(entry.value) == w->acked, "%s is lost: %s",
                     path, base_status_text(&status));
            }
            base_arena_free(&arena);
        }
        all += w->acked;
    }
    printf("%-14s %" PRIu64 " writes acknowledged, none lost; %" PRIu64
           " linearizable reads, none stale; %" PRIu64 " unknown outcomes looked into",
           bench->group, all, bench->reads, bench->unknown);
    if (!bench->blocks)
        printf("; the lock changed hands %" PRIu64 " times, never held twice", bench->acquisitions);
    printf("\n");
}

static int bench_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct bench *bench = arg;
    struct locker lockers[LOCKERS];
    struct asker askers[MEMBERS];
    int64_t *gaps = calloc((size_t)(bench->rounds * WAYS_MAX), sizeof(*gaps)), worst = 0,
            limit = getenv("FAILOVER_MS_MAX") ? atoi(getenv("FAILOVER_MS_MAX")) : GAP_MS_MAX;
    size_t done = 0;

    BASE_ASSERT(gaps);
    bench->env = env;
    ch_log_set(env, "failover", getenv("VERBOSE") ? CH_LOG_INFO : CH_LOG_ERROR);
    bench->run = (uint64_t)ch_wall_us(env);
    ch_gate_init(&bench->gate, env, "load");
    leader_wait(bench);
    for (size_t i = 0; i < WRITERS; i++) {
        struct writer *w = &bench->writers[i];

        *w = (struct writer){ .bench = bench, .index = i };
        if (bench->blocks)
            w->client =
                blk_client_new(env, &(struct blk_client_options){ .masters = bench->members });
        else
            w->naming = ch_naming_new(env, bench->members);
        base_status_drop(ch_gate_spawn(&bench->gate, "writer", writer_fiber, w));
    }
    base_status_drop(ch_gate_spawn(&bench->gate, "reader", reader_fiber, bench));
    for (size_t i = 0; i < MEMBERS && !bench->blocks; i++) {
        askers[i] = (struct asker){ bench, i };
        base_status_drop(ch_gate_spawn(&bench->gate, "asker", asker_fiber, &askers[i]));
    }
    for (size_t i = 0; i < LOCKERS && !bench->blocks; i++) {
        lockers[i] = (struct locker){ bench, i };
        base_status_drop(ch_gate_spawn(&bench->gate, "locker", locker_fiber, &lockers[i]));
    }
    (void)ch_sleep_until(env, ch_in(env, CH_S));
    for (size_t k = 0; k < bench->way_count; k++) {
        for (int i = 0; i < bench->rounds; i++)
            gaps[done + (size_t)i] = round_run(bench, bench->ways[k]);
        print(bench->group, bench->ways[k], gaps + done, (size_t)bench->rounds);
        done += (size_t)bench->rounds;
    }
    worst = print(bench->group, "all", gaps, done);
    leader_wait(bench);
    bench->stop = true;
    (void)ch_sleep_until(env, ch_in(env, 500 * CH_MS));
    ch_gate_stop(&bench->gate);
    last_look(bench);
    for (size_t i = 0; i < WRITERS; i++) {
        if (bench->writers[i].naming)
            ch_naming_free(bench->writers[i].naming);
        if (bench->writers[i].client)
            blk_client_free(bench->writers[i].client);
    }
    free(gaps);
    if (worst >= limit)
        printf("p99 is not under %" PRId64 " ms\n", limit);
    return worst >= limit;
}

/* Parts of *copy, which is to be freed. */
static size_t split(const char *text, char **copy, char **out, size_t max)
{
    char *item, *state = NULL;
    size_t count = 0;

    *copy = strdup(text);

    for (item = strtok_r(*copy, ",", &state); item && count < max;
         item = strtok_r(NULL, ",", &state))
        out[count++] = item;
    return count;
}

int main(int argc, char **argv)
{
    struct bench bench = { .rounds = 20 };
    char *members = NULL, *ways = NULL;
    int value = 2;

    bench.blocks = argc > 1 && strcmp(argv[1], "blocks") == 0;
    bench.etcd = argc > 1 && strcmp(argv[1], "etcd") == 0;
    bench.group = bench.blocks ? "blockmaster" : bench.etcd ? "master in etcd" : "clustermaster";
    for (int i = 2; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--members") == 0)
            bench.members = argv[i + 1];
        else if (strcmp(argv[i], "--ways") == 0)
            bench.way_count = split(argv[i + 1], &ways, bench.ways, WAYS_MAX);
        else if (strcmp(argv[i], "--rounds") == 0)
            bench.rounds = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--act") == 0)
            bench.act = argv[i + 1];
    }
    if (!bench.members || !bench.act || bench.way_count == 0 || bench.rounds < 1 ||
        split(bench.members, &members, bench.addresses, MEMBERS) != MEMBERS)
        fprintf(stderr,
                "failover names|etcd|blocks --members A,B,C --ways kill,stop,cut --rounds N "
                "--act COMMAND\n");
    else
        value = ch_env_run(bench_main, &bench);
    free(members);
    free(ways);
    return value;
}
