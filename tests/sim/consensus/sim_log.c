/* The log of one member on a simulated disk: what was acknowledged is there after any crash, once
 * and in order; what is damaged is refused; terms only grow; a snapshot and a replay give the
 * same state. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/codec.h"
#include "chassis/sim.h"
#include "consensus/log.h"
#include "segment.h"
#include "seeds.h"
#include "test.h"

enum { PROPOSERS = 4, COMMANDS_MAX = 4000 };

/* The machine: the list of all commands. One life is one opening of the log. */
struct list {
    uint64_t items[COMMANDS_MAX];
    size_t count;
    uint64_t led; /* the last term told */
};
struct life {
    struct ch_env *env;
    struct con_log *log;
    struct list list;
    uint64_t snapshot_bytes;
    size_t command_len; /* padding, to fill segments */
    struct base_status opened;
    bool open, stop_proposing;
};
/* What the outside saw, over all lives. */
struct history {
    uint64_t next, acked[COMMANDS_MAX];
    size_t acked_count;
    uint64_t highest_term;
    int64_t rounds; /* proposals each proposer makes; -1: without end */
};
static struct history history;
static struct life life;

static void apply(void *self, uint64_t index, struct base_bytes command, struct base_buf *reply)
{
    struct list *list = self;

    cr_assert(command.len >= 8 && list->count < COMMANDS_MAX);
    list->items[list->count++] = base_get_le64(command.data);
    base_buf_put_le64(reply, list->count);
}

static void snapshot(void *self, struct base_buf *out)
{
    struct list *list = self;

    for (size_t i = 0; i < list->count; i++)
        base_buf_put_le64(out, list->items[i]);
}

static struct base_status restore(void *self, struct base_bytes from)
{
    struct list *list = self;

    for (list->count = 0; base_take_le64(&from, &list->items[list->count]);)
        list->count++;
    return from.len == 0 ? BASE_STATUS_OK : base_status_make(BASE_DATA_LOSS, "odd length");
}

static void lead(void *self, uint64_t term)
{
    struct list *list = self;

    list->led = term;
}

static void proposer(void *arg)
{
    CH_FIBER_ENTRY();
    uint8_t *command = calloc(1, life.command_len);

    for (int64_t i = 0; i != history.rounds && !ch_cancelled() && !life.stop_proposing; i++) {
        uint64_t id = ++history.next;
        struct base_buf reply = { 0 };
        struct base_status status;

        base_put_le64(command, id);
        status = con_log_propose(life.log, base_bytes(command, life.command_len),
                                 ch_in(life.env, CH_S), &reply);
        if (!base_failed(status)) {
            cr_assert_eq(reply.len, 8);
            cr_assert(history.acked_count < COMMANDS_MAX);
            history.acked[history.acked_count++] = id;
        }
        base_buf_free(&reply);
        if (base_failed(status)) {
            base_status_free(&status);
            break;
        }
    }
    free(command);
}

static int node_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct con_log_options options = { .dir = "data/log",
                                       .snapshot_bytes_min = life.snapshot_bytes };
    struct con_machine machine = { apply, snapshot, restore, lead, &life.list };
    struct ch_gate gate;

    life.env = env;
    life.opened = con_log_open(env, &options, &machine, &life.log);
    if (base_failed(life.opened))
        return 1;
    life.open = true;
    ch_gate_init(&gate, env, "proposers");
    for (int i = 0; i < PROPOSERS; i++)
        cr_assert(!base_failed(ch_gate_spawn(&gate, "proposer", proposer, NULL)));
    while (ch_sleep_until(env, CH_NEVER) != CH_CANCELLED)
        ;
    ch_gate_stop(&gate);
    con_log_close(life.log);
    return 0;
}

static void life_begin(struct ch_sim_node *node)
{
    uint64_t snapshot_bytes = life.snapshot_bytes;
    size_t command_len = life.command_len;

    base_status_free(&life.opened);
    memset(&life, 0, sizeof(life));
    life.snapshot_bytes = snapshot_bytes;
    life.command_len = command_len;
    ch_sim_start(node, node_main, NULL);
}

static bool opened(void *arg)
{
    return life.open || base_failed(life.opened);
}

/* The list holds every acknowledged command once; and nothing that was never proposed. */
static void list_check(uint64_t seed, int64_t step)
{
    static uint8_t seen[COMMANDS_MAX + 1];

    memset(seen, 0, sizeof(seen));
    for (size_t i = 0; i < life.list.count; i++) {
        cr_assert(life.list.items[i] <= history.next,
                  "seed %" PRIu64 " step %" PRId64 ": a command nobody proposed", seed, step);
        cr_assert(!seen[life.list.items[i]],
                  "seed %" PRIu64 " step %" PRId64 ": command %" PRIu64 " twice", seed, step,
                  life.list.items[i]);
        seen[life.list.items[i]] = 1;
    }
    for (size_t i = 0; i < history.acked_count; i++)
        cr_assert(seen[history.acked[i]],
                  "seed %" PRIu64 " step %" PRId64 ": acknowledged command %" PRIu64 " is lost",
                  seed, step, history.acked[i]);
    cr_assert(con_log_term(life.log) > history.highest_term,
              "seed %" PRIu64 " step %" PRId64 ": the term did not grow", seed, step);
    cr_assert_eq(con_log_term(life.log), life.list.led);
    history.highest_term = con_log_term(life.log);
}

static void setup(uint64_t snapshot_bytes, size_t command_len, int64_t rounds)
{
    memset(&history, 0, sizeof(history));
    base_status_free(&life.opened);
    memset(&life, 0, sizeof(life));
    life.snapshot_bytes = snapshot_bytes;
    life.command_len = command_len;
    history.rounds = rounds;
}

static bool counted_down(void *arg)
{
    return --*(int64_t *)arg <= 0;
}

Test(sim_log, a_crash_at_every_step)
{
    /* Whenever the power goes (at any event of opening, appending, rolling over to a new segment,
     * taking a snapshot), the next opening finds every acknowledged command; and so does the one
     * after a crash while that was recovering. */
    bool through = false;
    uint64_t seed = ch_sim_seed(11);

    for (int64_t step = 1; !through; step += step < 400 ? 1 : 7) {
        struct ch_sim *sim = ch_sim_new(seed + (uint64_t)step);
        struct ch_sim_node *node = ch_sim_node(sim, "log", "10.0.0.1");

        setup(4096, 300, 60);
        for (int again = 0; again < 3; again++) { /* the later ones while recovering */
            int64_t left = again ? 1 + (int64_t)(ch_sim_random(sim) % 40) : step;

            life_begin(node);
            if (!ch_sim_run(sim, counted_down, &left, ch_sim_now(sim) + 10 * CH_S) && again == 0)
                through = true;
            ch_sim_crash(node);
        }
        life_begin(node);
        cr_assert(ch_sim_run(sim, opened, NULL, ch_sim_now(sim) + 10 * CH_S), "step %" PRId64,
                  step);
        cr_assert(!base_failed(life.opened), "seed %" PRIu64 " step %" PRId64 ": %s", seed, step,
                  base_status_text(&life.opened));
        list_check(seed, step);
        ch_sim_free(sim);
    }
    base_status_free(&life.opened);
}

Test(sim_log, many_lives_through_segments)
{
    /* The same over many crashes of one disk, with commands large enough to fill segments, so
     * that rolling over, snapshots and dropped segments meet crashes; an orderly stop in between
     * keeps everything too. */
    for (uint64_t seed = 1; seed <= seeds_count(6); seed++) {
        struct ch_sim *sim = ch_sim_new(seed);
        struct ch_sim_node *node = ch_sim_node(sim, "log", "10.0.0.1");

        setup(1 << 20, 100 << 10, -1);
        for (int lives = 0; lives < 12 && history.next < COMMANDS_MAX - 500; lives++) {
            life_begin(node);
            cr_assert(ch_sim_run(sim, opened, NULL, ch_sim_now(sim) + 10 * CH_S));
            cr_assert(!base_failed(life.opened), "seed %" PRIu64 ": %s", seed,
                      base_status_text(&life.opened));
            list_check(seed, lives);
            ch_sim_run(sim, NULL, NULL,
                       ch_sim_now(sim) + (ch_time)(ch_sim_random(sim) % 20) * CH_MS);
            if (lives % 4 == 3)
                ch_sim_stop(node);
            else
                ch_sim_crash(node);
        }
        cr_assert(history.acked_count > 50, "seed %" PRIu64 ": only %zu commands went through",
                  seed, history.acked_count);
        ch_sim_free(sim);
    }
    base_status_free(&life.opened);
}

/* A log with `rounds` x PROPOSERS commands, stopped in order. */
static struct ch_sim_node *filled(struct ch_sim *sim, uint64_t snapshot_bytes, int64_t rounds)
{
    struct ch_sim_node *node = ch_sim_node(sim, "log", "10.0.0.1");

    setup(snapshot_bytes, 300, rounds);
    life_begin(node);
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + 2 * CH_S);
    cr_assert_eq(history.acked_count, (size_t)rounds * PROPOSERS);
    ch_sim_stop(node);
    return node;
}

#define FIRST_SEGMENT "data/log/segment-00000000000000000001"

Test(sim_log, a_flipped_bit_is_data_loss)
{
    /* A bit that flips anywhere in what was acknowledged makes the opening fail with DATA_LOSS
     * and a text that names the file: nothing is cut off and nothing is served from a log that is
     * not whole. The disk keeps the evidence. */
    for (int i = 0; i < 40; i++) {
        struct ch_sim *sim = ch_sim_new(100 + (uint64_t)i);
        struct ch_sim_node *node = filled(sim, 0, 3);
        struct con_batch batch;
        struct base_buf image = { 0 }, payload = { 0 };
        size_t used = CON_SECTOR, len;
        uint64_t sequence = 1;
        const char *why;

        cr_assert(ch_sim_disk_peek(node, FIRST_SEGMENT, &image));
        for (; con__batch_take(base_bytes(image.data + used, image.len - used), sequence, &payload,
                               &batch, &len, &why) == CON_SCAN_WHOLE;
             sequence++)
            used += len;
        cr_assert(used > 10 * CON_SECTOR);
        ch_sim_disk_flip(node, FIRST_SEGMENT, ch_sim_random(sim) % used,
                         (uint8_t)(1u << ch_sim_random(sim) % 8));
        life_begin(node);
        cr_assert(ch_sim_run(sim, opened, NULL, ch_sim_now(sim) + 10 * CH_S));
        cr_assert_eq(life.opened.code, BASE_DATA_LOSS, "flip %d: %s", i,
                     base_status_text(&life.opened));
        cr_assert(strstr(base_status_text(&life.opened), FIRST_SEGMENT) != NULL, "%s",
                  base_status_text(&life.opened));
        base_buf_free(&image);
        base_buf_free(&payload);
        ch_sim_free(sim);
    }
    base_status_free(&life.opened);
}

Test(sim_log, snapshots_and_replay_agree)
{
    /* The state after a restart is the same whether it came from snapshots or from replaying
     * everything. */
    struct list lists[2];

    for (int i = 0; i < 2; i++) {
        struct ch_sim *sim = ch_sim_new(77);
        struct ch_sim_node *node = filled(sim, i ? 4096 : 0, 50);
        struct base_buf found = { 0 };

        cr_assert_eq(ch_sim_disk_peek(node, "data/log/snapshot-00000000000000000001", &found),
                     false);
        history.rounds = 0;
        life_begin(node);
        cr_assert(ch_sim_run(sim, opened, NULL, ch_sim_now(sim) + 10 * CH_S) &&
                  !base_failed(life.opened));
        list_check(77, i);
        lists[i] = life.list;
        base_buf_free(&found);
        ch_sim_free(sim);
    }
    cr_assert_eq(lists[0].count, lists[1].count);
    for (size_t i = 0; i < lists[0].count; i++)
        cr_assert_eq(lists[0].items[i] > 0, lists[1].items[i] > 0);
}

Test(sim_log, a_full_disk_is_no_damage)
{
    /* When a new segment finds no space, proposals fail with RESOURCE_EXHAUSTED and nothing is
     * written; with space again the same log goes on, and a restart finds exactly what was
     * acknowledged. */
    struct ch_sim *sim = ch_sim_new(5);
    struct ch_sim_node *node = ch_sim_node(sim, "log", "10.0.0.1");
    size_t acked;

    setup(64 << 20, 200 << 10, -1);
    ch_sim_disk_limit(node, 6 << 20);
    life_begin(node);
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + 2 * CH_S);
    acked = history.acked_count;
    cr_assert(acked > 5 && acked < 25, "%zu commands of 200 KiB in the first segment of 4 MiB",
              acked);
    cr_assert(con_log_term(life.log) > 0, "still the leader");
    history.highest_term = con_log_term(life.log);
    ch_sim_disk_limit(node, 0);
    ch_sim_stop(node);
    history.rounds = 3;
    life_begin(node);
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + CH_S);
    list_check(5, 0);
    cr_assert_eq(history.acked_count, acked + 3 * PROPOSERS);
    ch_sim_free(sim);
}

Test(sim_log, a_failed_sync_ends_the_log)
{
    /* After a failed sync nobody knows what the disk holds: the log acknowledges nothing any more
     * and says that it does not lead, until it is opened again; then everything acknowledged
     * before is there. */
    struct ch_sim *sim = ch_sim_new(6);
    struct ch_sim_node *node = ch_sim_node(sim, "log", "10.0.0.1");
    size_t acked;

    setup(0, 100, -1);
    life_begin(node);
    cr_assert(ch_sim_run(sim, opened, NULL, ch_sim_now(sim) + CH_S));
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + 20 * CH_MS);
    history.highest_term = con_log_term(life.log);
    ch_sim_disk_fail_sync(node, true);
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + 100 * CH_MS);
    acked = history.acked_count;
    cr_assert(acked > 10);
    cr_assert(con_log_term(life.log) == 0 && life.list.led == 0);
    ch_sim_disk_fail_sync(node, false);
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + 100 * CH_MS);
    cr_assert_eq(history.acked_count, acked, "a broken log stays broken");
    ch_sim_crash(node);
    history.rounds = 0;
    life_begin(node);
    cr_assert(ch_sim_run(sim, opened, NULL, ch_sim_now(sim) + CH_S) && !base_failed(life.opened));
    list_check(6, 0);
    ch_sim_free(sim);
}

static void open_second(void *arg)
{
    CH_FIBER_ENTRY();
    struct con_log_options options = { .dir = "data/log" };
    struct con_machine machine = { apply, snapshot, restore, lead, &life.list };
    struct con_log *log = NULL;

    life.opened = con_log_open(arg, &options, &machine, &log);
}

static int second_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct con_log_options options = { .dir = "data/log" };
    struct list first = { .count = 0 };
    struct con_machine machine = { apply, snapshot, restore, lead, &first };
    struct con_log *log = NULL;

    cr_assert(!base_failed(con_log_open(env, &options, &machine, &log)));
    open_second(env);
    con_log_close(log);
    return 0;
}

Test(sim_log, one_opener_at_a_time)
{
    /* Two writers would tear the journal: the second opener of a folder is refused while the
     * first has it. */
    struct ch_sim *sim = ch_sim_new(8);
    struct ch_sim_node *node = ch_sim_node(sim, "log", "10.0.0.1");

    setup(0, 100, 0);
    ch_sim_start(node, second_main, NULL);
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + CH_S);
    cr_assert_eq(life.opened.code, BASE_FAILED_PRECONDITION, "%s", base_status_text(&life.opened));
    base_status_free(&life.opened);
    ch_sim_free(sim);
}
