/* test_protocol.c: the log's invariants in the very situations they are for, set up by hand. */
#include "chassis/rpc_client.h"
#include "lead.h"
#include "strata/txlayer/v1/txlayer.strata.h"
#include "test.h"
#include "world.h"

static struct world *world;

#define OK(expr)                                                               \
    do {                                                                       \
        struct base_status ok_ = (expr);                                       \
        cr_assert(!base_failed(ok_), "%s: %s", #expr, base_status_text(&ok_)); \
    } while (0)

/* ---- a recovery alone: a log written by hand, a real lock ---- */

struct bench {
    struct ch_env *env;
    struct ch_naming *naming;
    struct txn__tables tables;
    struct txn__config config;
    struct txn__lead_metrics metrics;
    struct ch_lock *lock;
    struct txn__lead *lead;
};

static void bench_start(struct bench *bench, uint64_t epoch) CH_WAITS;
static void bench_start(struct bench *bench, uint64_t epoch)
{
    struct tab_client_options options = { .target = "tablet" };
    *bench = (struct bench){ .env = ch_sim_tester_env(world->sim) };
    bench->naming = world_naming(world);
    bench->tables = (struct txn__tables){ .env = bench->env,
                                          .client = tab_client_new(bench->env, &options),
                                          .log_name = BASE_BYTES_LIT("i/tables/txlog"),
                                          .data_name = BASE_BYTES_LIT("i/tables/txdata") };
    bench->config = (struct txn__config){ .shards = 1,
                                          .retention = 3600 * CH_S,
                                          .cache_bytes = 1 << 20,
                                          .conflict_bytes = 1 << 20,
                                          .log_drop_min = 1 };
    txn__metrics_init(bench->env, &bench->metrics);
    OK(txn__tables_ensure(&bench->tables, "i", ch_in(bench->env, CH_S)));
    for (uint64_t e = 1; e <= epoch; e++) {
        if (bench->lock)
            ch_lock_free(bench->lock);
        OK(ch_lock_acquire(bench->naming, "/local/locks/txshard/0", BASE_BYTES_LIT("me"),
                           ch_in(bench->env, 10 * CH_S), &bench->lock));
    }
    cr_assert_eq(ch_lock_epoch(bench->lock), epoch);
    bench->lead =
        txn__lead_new(bench->env, &bench->config, &bench->tables, 0, bench->lock, &bench->metrics);
}

static void bench_stop(struct bench *bench) CH_WAITS;
static void bench_stop(struct bench *bench)
{
    txn__lead_close(bench->lead, base_status_make(BASE_CANCELLED, "the test is over"));
    ch_gate_stop(&bench->lead->gate);
    txn__lead_unref(bench->lead);
    ch_lock_free(bench->lock);
    tab_client_free(bench->tables.client);
    ch_naming_free(bench->naming);
}

/* Writes a batch of one transaction, key = value, or a barrier (key NULL), as a leader of
 * `epoch`. */
static void entry(struct bench *bench, uint64_t position, uint64_t epoch, const char *key,
                  uint64_t timestamp, bool more) CH_WAITS;
static void entry(struct bench *bench, uint64_t position, uint64_t epoch, const char *key,
                  uint64_t timestamp, bool more)
{
    struct base_buf body = { 0 };
    bool taken;
    if (key) {
        struct txn__logged_write write = { .key = base_bytes_str(key),
                                           .value = base_bytes_str(key) };
        struct txn__logged txn = { .id = BASE_BYTES_LIT("0123456789abcdef"),
                                   .database = BASE_BYTES_LIT("db"),
                                   .timestamp = timestamp,
                                   .writes = &write,
                                   .write_count = 1 };
        txn__logged_encode(&txn, &body);
    }
    struct txn__entry out = { .kind = key ? TXN__BATCH : TXN__BARRIER,
                              .more = more,
                              .epoch = epoch,
                              .position = position,
                              .limit = timestamp + 1000,
                              .body = base_buf_bytes(&body) };
    OK(txn__log_put(&bench->tables, 0, epoch, &out, ch_in(bench->env, CH_S), &taken));
    cr_assert(!taken);
    base_buf_free(&body);
}

static bool holds(struct bench *bench, const char *key)
{
    struct base_buf full = { 0 };
    struct txn__seen seen;
    txn__full_key(BASE_BYTES_LIT("db"), base_bytes_str(key), &full);
    bool there = txn__rows_get(bench->lead->rows, base_buf_bytes(&full), UINT64_MAX, &seen);
    base_buf_free(&full);
    return there;
}

static void run(ch_fiber_fn *fn, uint64_t seed, size_t servers, const char *const *extra)
{
    world = world_new(seed, servers, extra);
    ch_sim_do(world->sim, fn, NULL, 1000 * CH_S);
    world_free(world);
}

static void void_entries(void *arg)
{
    CH_FIBER_ENTRY();
    struct bench bench;
    struct txn__log_cell cell;
    struct base_arena arena;
    bool there;
    base_arena_init(&arena);
    bench_start(&bench, 3);
    entry(&bench, 1, 1, NULL, 0, false);
    entry(&bench, 2, 1, "kept", 10, false);
    entry(&bench, 3, 2, NULL, 10, false);
    entry(&bench, 4, 2, "kept too", 20000, false);
    entry(&bench, 5, 1, "void", 12, false); /* came late, behind the barrier of epoch 2 */
    entry(&bench, 6, 2, "behind a hole", 30000, false);
    OK(txn__recover(bench.lead));
    cr_assert(holds(&bench, "kept") && holds(&bench, "kept too"));
    cr_assert(!holds(&bench, "void") && !holds(&bench, "behind a hole"));
    cr_assert_eq(bench.lead->next_position, 6);
    OK(txn__log_get(&bench.tables, 0, 5, 0, ch_in(bench.env, CH_S), &arena, &there, &cell));
    cr_assert(there && cell.epoch == 3 && cell.barrier);
    /* Above every limit of a valid entry, and of those alone. */
    cr_assert_eq(bench.lead->oracle.limit, 21000);
    /* The place of a void entry is written over; that of a newer epoch's is not. */
    struct txn__entry late = { .kind = TXN__BATCH, .epoch = 2, .position = 5 };
    OK(txn__log_put(&bench.tables, 0, 2, &late, ch_in(bench.env, CH_S), &there));
    cr_assert(there);
    base_arena_free(&arena);
    bench_stop(&bench);
}

Test(protocol, void_entries_do_not_count)
{
    /* L2, L3, L4: what a deposed leader wrote behind its successor's barrier, and what follows a
     * position that nobody holds, never happened. */
    run(void_entries, 1, 0, NULL);
}

static void half_batch(void *arg)
{
    CH_FIBER_ENTRY();
    struct bench bench;
    bench_start(&bench, 3);
    entry(&bench, 1, 1, NULL, 0, false);
    entry(&bench, 2, 1, "half", 10, true);
    entry(&bench, 3, 2, NULL, 10, false);
    entry(&bench, 4, 2, "half again", 2000, true);
    OK(txn__recover(bench.lead));
    cr_assert(!holds(&bench, "half") && !holds(&bench, "half again"));
    cr_assert_eq(bench.lead->next_position, 6);
    bench_stop(&bench);
}

Test(protocol, a_batch_without_its_last_piece_is_nothing)
{
    /* L9: its leader died in between; nobody was told that it happened. */
    run(half_batch, 1, 0, NULL);
}

struct interloper {
    struct bench *bench;
    struct ch_done done;
};

/* Another leader checkpoints position 10 and drops what is before, while this one reads. */
static void interlope(void *arg)
{
    CH_FIBER_ENTRY();
    struct interloper *interloper = arg;
    struct bench *bench = interloper->bench;
    struct txn__checkpoint checkpoint = { .position = 10, .epoch = 2, .limit = 5000 };
    uint64_t positions[] = { 2 };
    (void)!ch_sleep_until(bench->env, ch_in(bench->env, 21 * CH_MS));
    OK(txn__checkpoint_put(&bench->tables, 0, &checkpoint, ch_in(bench->env, CH_S)));
    OK(txn__log_drop(&bench->tables, 0, positions, 1, ch_in(bench->env, CH_S)));
    ch_done_set(&interloper->done);
}

static void overtaken(void *arg)
{
    CH_FIBER_ENTRY();
    struct bench bench;
    struct ch_gate gate;
    struct interloper interloper = { .bench = &bench };
    struct tablet_double_faults slow = { .delay_min = 10 * CH_MS, .delay_max = 10 * CH_MS };
    bench_start(&bench, 3);
    entry(&bench, 1, 1, NULL, 0, false);
    entry(&bench, 2, 1, "kept", 10, false);
    tablet_double_faults(world->tablet, &slow);
    ch_gate_init(&gate, bench.env, "test");
    ch_done_init(&interloper.done);
    OK(ch_gate_spawn(&gate, "interloper", interlope, &interloper));
    struct base_status status = txn__recover(bench.lead);
    cr_assert_eq(status.code, BASE_UNAVAILABLE, "%d %s", status.code, base_status_text(&status));
    base_status_free(&status);
    ch_done_wait_always(&interloper.done);
    ch_gate_stop(&gate);
    bench_stop(&bench);
}

Test(protocol, a_leader_that_was_overtaken_while_reading_gives_up)
{
    /* L7: the rows it took for absent had been applied and dropped by another; its barrier lies
     * where nobody looks any more. */
    run(overtaken, 1, 0, NULL);
}

/* ---- a leader that slept ---- */

static struct base_status put(struct txn_client *client, uint64_t id, const char *value) CH_WAITS;
static struct base_status put(struct txn_client *client, uint64_t id, const char *value)
{
    uint64_t id_bytes[2] = { 5, id }, ts;
    struct txn_write write = { .key = { .key = BASE_BYTES_LIT("k") },
                               .value = base_bytes_str(value) };
    struct txn_commit commit = { .writes = &write,
                                 .write_count = 1,
                                 .idempotency_id = base_bytes(id_bytes, 16) };
    return txn_commit(client, "db", &commit, ch_in(ch_sim_tester_env(world->sim), 30 * CH_S), &ts);
}

struct asker {
    const char *address;
    struct ch_done done;
    bool stale, answered;
};

/* A strong read, sent straight to the sleeper, to be found when it wakes. */
static void ask_sleeper(void *arg)
{
    CH_FIBER_ENTRY();
    struct asker *asker = arg;
    struct ch_env *env = ch_sim_tester_env(world->sim);
    struct ch_client *client = ch_client_new(env, asker->address, NULL);
    struct base_arena arena;
    base_arena_init(&arena);
    Strata__Txlayer__V1__Key key, *keys = &key;
    Strata__Txlayer__V1__GetOp op, *ops = &op;
    Strata__Txlayer__V1__GetRequest request;
    strata__txlayer__v1__key__init(&key);
    strata__txlayer__v1__get_op__init(&op);
    strata__txlayer__v1__get_request__init(&request);
    key.key = ch_data_str("k");
    op.database = ch_data_str("db");
    op.keys = &keys;
    op.n_keys = 1;
    request.ops = &ops;
    request.n_ops = 1;
    struct ch_call_options options = { .deadline = ch_in(env, 20 * CH_S), .no_retry = true };
    void *raw;
    struct base_status status = ch_client_call(
        client, &strata__txlayer__v1__tx_layer__service.methods[STRATA__TXLAYER__V1__TX_LAYER__GET],
        &request, &options, &arena, &raw);
    if (!base_failed(status)) {
        const Strata__Txlayer__V1__GetReply *reply = raw;
        asker->answered = true;
        asker->stale = reply->results[0]->outcome->code == BASE_OK &&
                       !base_bytes_eq_str(ch_bytes_of(reply->results[0]->values[0]->value), "new");
    }
    base_status_free(&status);
    base_arena_free(&arena);
    ch_client_free(client);
    ch_done_set(&asker->done);
}

static size_t answers;

static void sleeper(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = ch_sim_tester_env(world->sim);
    struct ch_naming *naming = world_naming(world);
    struct txn_client *client = world_client(world, naming);
    struct ch_gate gate;
    ch_gate_init(&gate, env, "test");
    OK(put(client, 1, "old"));
    size_t old = world_leader(world, 0);
    struct asker askers[8];
    ch_sim_pause(world->servers[old].node, true);
    OK(put(client, 2, "new"));
    cr_assert(world_leader(world, 0) != old);
    for (size_t i = 0; i < 8; i++) {
        askers[i] = (struct asker){ .address = world->servers[old].address };
        ch_done_init(&askers[i].done);
        OK(ch_gate_spawn(&gate, "asker", ask_sleeper, &askers[i]));
    }
    (void)!ch_sleep_until(env, ch_in(env, 50 * CH_MS));
    ch_sim_pause(world->servers[old].node, false);
    for (size_t i = 0; i < 8; i++) {
        ch_done_wait_always(&askers[i].done);
        cr_assert(!askers[i].stale, "a sleeper's answer is stale");
        answers += askers[i].answered;
    }
    ch_gate_stop(&gate);
    txn_client_free(client);
    ch_naming_free(naming);
}

Test(protocol, a_leader_that_slept_answers_no_strong_read)
{
    /* R2: requests that wait in its sockets when it wakes are answered by what it surely is, not by
     * what it was when it fell asleep: whichever of its fibers runs first. */
    static const char *const extra[] = { "--shards", "1", NULL };
    for (uint64_t seed = 1; seed <= 30; seed++)
        run(sleeper, seed, 2, extra);
    cr_assert(answers > 60, "%zu answers", answers);
}
