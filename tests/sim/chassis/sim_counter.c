/* A counter of three replicas, each a log of the numbers it was told, synced before it answers; a
 * writer counts a number as written when two have answered. Whatever the network, the disks and the
 * nodes do, a written number is in two logs for ever and no log has a number nobody sent. It tests
 * the simulated world more than the counter: with replicas that answer before the sync the checker
 * must find the loss. Replay: STRATA_SEED=n. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/codec.h"
#include "chassis/rpc_client.h"
#include "chassis/rpc_server.h"
#include "chassis/sim.h"
#include "seeds.h"
#include "strata/test/v1/echo.pb-c.h"
#include "strata/test/v1/echo.strata.h"
#include "test.h"

enum { REPLICAS = 3, WRITERS = 4, NUMBERS_MAX = 4000, RECORD = 16, ROUNDS = 60 };
#define SAY (&strata__test__v1__echo__service.methods[STRATA__TEST__V1__ECHO__SAY])
#define LOG "/data/log"

struct world;

struct replica {
    struct world *world;
    struct ch_sim_node *node;
    char host[32], address[32];
    /* of one incarnation: */
    struct ch_env *env;
    struct ch_file *log;
    struct ch_mutex writing;
    uint64_t end;
    bool broken; /* a sync has failed: what is stored is unknown, so it must start anew */
};

struct world {
    struct ch_sim *sim;
    bool lie; /* replicas answer before the sync */
    struct replica replicas[REPLICAS];
    uint32_t sent;
    size_t pings;
    bool written[NUMBERS_MAX];
    struct ch_client *clients[REPLICAS];
    struct ch_gate gate;
    bool stop;
};

/* ---- a replica ---- */

static size_t whole_records(const uint8_t *data, size_t len)
{
    size_t at = 0;
    while (at + RECORD <= len && base_get_le32(data + at + 8) == base_crc32c(1, data + at, 8))
        at += RECORD;
    return at;
}

static struct base_status append(struct replica *r, uint64_t number) CH_WAITS;
static struct base_status append(struct replica *r, uint64_t number)
{
    uint8_t record[RECORD] = { 0 };
    struct base_bytes part = { record, RECORD };
    base_put_le64(record, number);
    base_put_le32(record + 8, base_crc32c(1, record, 8));
    if (ch_mutex_lock(&r->writing, ch_context_deadline(CH_NEVER)) != CH_OK)
        return base_status_make(BASE_UNAVAILABLE, "busy");
    struct base_status status = BASE_STATUS_OK;
    if (r->broken)
        status = base_status_make(BASE_UNAVAILABLE, "the log is broken");
    else
        status = ch_file_write(r->log, r->end, &part, 1, !r->world->lie);
    r->broken = r->broken || base_failed(status);
    if (!base_failed(status))
        r->end += RECORD;
    ch_mutex_unlock(&r->writing);
    return status;
}

static struct base_status say(void *self, struct ch_call *call, const void *message,
                              void **reply) CH_WAITS;
static struct base_status say(void *self, struct ch_call *call, const void *message, void **reply)
{
    const Strata__Test__V1__EchoRequest *request = message;
    *reply =
        CH_MESSAGE(ch_call_arena(call), Strata__Test__V1__EchoReply, strata__test__v1__echo_reply);
    if (request->count == 0) /* a ping */
        return BASE_STATUS_OK;
    return append(self, (uint64_t)request->count);
}

static struct base_status recover(struct replica *r) CH_WAITS;
static struct base_status recover(struct replica *r)
{
    struct base_buf all = { 0 };
    struct base_status status = ch_dir_make(r->env, "/data");
    if (!base_failed(status))
        status = ch_file_open(r->env, LOG, CH_FILE_READ | CH_FILE_WRITE | CH_FILE_CREATE, &r->log);
    if (base_failed(status))
        return status;
    status = ch_file_lock(r->log);
    if (!base_failed(status))
        status = ch_file_read_all(r->env, LOG, 1 << 20, &all);
    r->end = whole_records(all.data, all.len);
    if (!base_failed(status))
        status = ch_file_truncate(r->log, r->end);
    /* After a failed sync the page cache shows what the disk may not have, and a new sync would not
     * store it: only writing it again does. */
    struct base_bytes whole = { all.data, (size_t)r->end };
    if (!base_failed(status))
        status = ch_file_write(r->log, 0, &whole, 1, true);
    if (!base_failed(status))
        status = ch_dir_sync(r->env, "/data");
    base_buf_free(&all);
    return status;
}

static bool say_number(struct ch_client *client, int64_t number, bool wait_for_ready) CH_WAITS;
static bool say_number(struct ch_client *client, int64_t number, bool wait_for_ready)
{
    struct base_arena arena = { 0 };
    void *reply;
    struct ch_call_options options = { .deadline = ch_in(ch_fiber_env(), 300 * CH_MS),
                                       .no_retry = !wait_for_ready,
                                       .wait_for_ready = wait_for_ready };
    Strata__Test__V1__EchoRequest *request =
        CH_MESSAGE(&arena, Strata__Test__V1__EchoRequest, strata__test__v1__echo_request);
    request->count = (__typeof__(request->count))number;
    bool good =
        base_status_drop(ch_client_call(client, SAY, request, &options, &arena, &reply)) == BASE_OK;
    base_arena_free(&arena);
    return good;
}

/* Replicas call each other too, so that clients die and find their servers dead in every state. */
static void ping(void *arg)
{
    CH_FIBER_ENTRY();
    struct replica *r = arg;
    struct replica *peer = &r->world->replicas[(r - r->world->replicas + 1) % REPLICAS];
    struct ch_client *client = ch_client_new(r->env, peer->address, NULL);
    while (ch_sleep_until(r->env, ch_in(r->env, (ch_time)ch_random_below(r->env, 10 * CH_MS))) ==
           CH_TIMEOUT)
        r->world->pings += say_number(client, 0, true);
    ch_client_free(client);
}

static int replica_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct replica *r = arg;
    struct ch_server *server = NULL;
    struct ch_gate gate;
    r->env = env;
    r->log = NULL;
    r->broken = false;
    ch_mutex_init(&r->writing);
    ch_gate_init(&gate, env, "pings");
    struct ch_server_options options = { .address = r->address };
    struct base_status status = recover(r);
    if (!base_failed(status))
        status = ch_server_new(env, &options, &server);
    if (server) {
        ch_server_handle(server, SAY, say, r);
        status = ch_server_start(server);
    }
    if (!base_failed(status))
        status = ch_gate_spawn(&gate, "ping", ping, r);
    while (!base_failed(status) && !r->broken &&
           ch_sleep_until(env, ch_in(env, 20 * CH_MS)) == CH_TIMEOUT)
        ;
    ch_gate_stop(&gate);
    if (server)
        ch_server_stop(server, ch_in(env, CH_S));
    if (r->log)
        ch_file_close(r->log);
    return base_status_drop(status);
}

/* ---- writers, on the tester ---- */

struct attempt {
    struct world *world;
    size_t replica;
    int64_t number;
    bool good;
};

static void attempt_one(void *arg)
{
    CH_FIBER_ENTRY();
    struct attempt *attempt = arg;
    attempt->good = say_number(attempt->world->clients[attempt->replica], attempt->number, false);
}

static void writer(void *arg)
{
    CH_FIBER_ENTRY();
    struct world *world = arg;
    struct ch_env *env = ch_fiber_env();
    while (!world->stop && world->sent + 1 < NUMBERS_MAX) {
        uint32_t number = ++world->sent, good = 0;
        struct attempt attempts[REPLICAS];
        struct ch_gather gather;
        ch_gather_init(&gather, "attempts");
        for (size_t i = 0; i < REPLICAS; i++) {
            attempts[i] = (struct attempt){ world, i, number, false };
            ch_gather_add(&gather, attempt_one, &attempts[i]);
        }
        ch_gather_wait(&gather);
        for (size_t i = 0; i < REPLICAS; i++)
            good += attempts[i].good;
        world->written[number] = good >= 2;
        if (ch_sleep_until(env, ch_in(env, (ch_time)ch_random_below(env, 20 * CH_MS))) ==
            CH_CANCELLED)
            return;
    }
}

static void write_all(void *arg)
{
    CH_FIBER_ENTRY();
    struct world *world = arg;
    struct ch_gather gather;
    for (size_t i = 0; i < REPLICAS; i++)
        world->clients[i] = ch_client_new(ch_fiber_env(), world->replicas[i].address, NULL);
    ch_gather_init(&gather, "writers");
    for (int i = 0; i < WRITERS; i++)
        ch_gather_add(&gather, writer, world);
    ch_gather_wait(&gather);
    for (size_t i = 0; i < REPLICAS; i++)
        ch_client_free(world->clients[i]);
}

/* ---- the nemesis ---- */

static void restart(struct replica *r)
{
    if (!ch_sim_running(r->node))
        ch_sim_start(r->node, replica_main, r);
}

static void run_for(struct world *world, ch_time time)
{
    ch_sim_run(world->sim, NULL, NULL, ch_sim_now(world->sim) + time);
}

static void do_harm(struct world *world)
{
    struct ch_sim *sim = world->sim;
    struct replica *r = &world->replicas[ch_sim_random(sim) % REPLICAS];
    const char *tester = "10.255.255.1";
    switch (ch_sim_random(sim) % 9) {
    case 0:
        ch_sim_crash(r->node);
        break;
    case 1:
        ch_sim_kill(r->node);
        break;
    case 2:
        ch_sim_net_cut(sim, r->host, tester, true);
        break;
    case 3:
        ch_sim_net_cut(sim, tester, r->host, true);
        break;
    case 4:
        ch_sim_net_reset(sim, r->host, tester);
        break;
    case 5:
        ch_sim_pause(r->node, true);
        break;
    case 6:
        ch_sim_disk_fail_sync(r->node, true);
        break;
    case 7:
        ch_sim_net_flaky(sim, 20000);
        break;
    case 8: /* power fails everywhere */
        for (size_t i = 0; i < REPLICAS; i++)
            ch_sim_crash(world->replicas[i].node);
        break;
    }
}

static void heal(struct world *world)
{
    ch_sim_net_heal(world->sim);
    for (size_t i = 0; i < REPLICAS; i++) {
        ch_sim_pause(world->replicas[i].node, false);
        ch_sim_disk_fail_sync(world->replicas[i].node, false);
        restart(&world->replicas[i]);
    }
}

/* ---- the checker ---- */

/* How many numbers are lost: written, but in fewer than two logs; a number nobody sent fails the
 * test. */
static size_t count_lost(struct world *world)
{
    struct base_buf log = { 0 };
    uint8_t *copies = calloc(NUMBERS_MAX, 1);
    for (size_t i = 0; i < REPLICAS; i++) {
        bool *seen = calloc(NUMBERS_MAX, sizeof(bool));
        base_buf_clear(&log);
        (void)ch_sim_disk_peek(world->replicas[i].node, LOG, &log);
        size_t len = whole_records(log.data, log.len);
        for (size_t at = 0; at < len; at += RECORD) {
            uint64_t number = base_get_le64(log.data + at);
            cr_assert(number > 0 && number <= world->sent, "replica %zu has a number nobody sent",
                      i);
            copies[number] += !seen[number];
            seen[number] = true;
        }
        free(seen);
    }
    size_t lost = 0;
    for (uint32_t n = 1; n <= world->sent; n++)
        lost += world->written[n] && copies[n] < 2;
    base_buf_free(&log);
    free(copies);
    return lost;
}

struct result {
    size_t lost, written, sent, pings;
    uint64_t trace;
};

static struct result play(uint64_t seed, bool lie)
{
    struct world *world = calloc(1, sizeof(*world));
    struct ch_sim *sim = world->sim = ch_sim_new(seed);
    world->lie = lie;
    for (size_t i = 0; i < REPLICAS; i++) {
        struct replica *r = &world->replicas[i];
        r->world = world;
        snprintf(r->host, sizeof(r->host), "10.0.0.%zu", i + 1);
        snprintf(r->address, sizeof(r->address), "%s:7000", r->host);
        r->node = ch_sim_node(sim, r->host, r->host);
        restart(r);
    }
    ch_gate_init(&world->gate, ch_sim_tester_env(sim), "writers");
    cr_assert_eq(base_status_drop(ch_gate_spawn(&world->gate, "writers", write_all, world)),
                 BASE_OK);
    for (int round = 0; round < ROUNDS; round++) {
        run_for(world, (ch_time)(ch_sim_random(sim) % (200 * CH_MS)));
        do_harm(world);
        if (ch_sim_random(sim) % 2) {
            run_for(world, (ch_time)(ch_sim_random(sim) % (100 * CH_MS)));
            heal(world);
        }
    }
    heal(world);
    run_for(world, 5 * CH_S);
    world->stop = true;
    run_for(world, 2 * CH_S);
    for (size_t i = 0; i < REPLICAS; i++)
        ch_sim_crash(world->replicas[i].node);
    struct result result = { .lost = count_lost(world),
                             .sent = world->sent,
                             .pings = world->pings,
                             .trace = ch_sim_trace(sim) };
    for (uint32_t n = 1; n <= world->sent; n++)
        result.written += world->written[n];
    ch_sim_free(sim);
    free(world);
    return result;
}

Test(sim_counter, a_written_number_is_never_lost)
{
    uint64_t base = ch_sim_seed(1), count = getenv("STRATA_SEED") ? 1 : seeds_count(8);
    for (uint64_t seed = base; seed < base + count; seed++) {
        struct result result = play(seed, false);
        cr_assert_eq(result.lost, 0u, "seed %llu: %zu lost", (unsigned long long)seed, result.lost);
        cr_assert(result.written > 100 && result.written < result.sent, "seed %llu: %zu of %zu",
                  (unsigned long long)seed, result.written, result.sent);
        cr_assert_gt(result.pings, 100u);
    }
}

Test(sim_counter, the_checker_finds_the_loss_when_replicas_answer_before_the_sync)
{
    uint64_t found = 0, count = seeds_count(6);
    for (uint64_t seed = 1; seed <= count; seed++)
        found += play(seed, true).lost > 0;
    cr_assert_geq(found * 3, count * 2, "%llu", (unsigned long long)found);
}

Test(sim_counter, a_seed_replays_exactly)
{
    for (uint64_t seed = 1; seed <= seeds_count(2); seed++)
        cr_assert_eq(play(seed, false).trace, play(seed, false).trace);
}
