/* The simulated network: order, what a cut, a reset, a pause and a crash do to calls, and what a
 * caller may know afterwards. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chassis/sim.h"
#include "env_int.h"
#include "test.h"

#define MUST(call)                                                          \
    do {                                                                    \
        struct base_status status_ = (call);                                \
        cr_assert(!base_failed(status_), "%s", base_status_text(&status_)); \
    } while (0)

enum { BYTES_MAX = 1 << 20 };
#define SERVER_ADDRESS "10.0.0.1:7000"

/* ---- a server straight on the transport: a unary call's reply is its request; "/stream" echoes
 * messages, "/slow" waits 10 s, "/sink" never reads, "/count" says how many messages came. ---- */

struct bed {
    struct ch_sim *sim;
    struct ch_sim_node *server, *client;
    struct ch_env *server_env;
    struct ch_tlistener *listener;
    struct ch_gate gate;
    size_t accepted, cancelled, sent;
    bool drain;
};

struct served {
    struct bed *bed;
    struct ch_tcall *call;
    bool gone;
};

static void served_gone(void *self)
{
    struct served *served = self;
    served->gone = true;
    served->bed->cancelled++;
}

static struct base_status echo_all(const struct ch_transport *t, struct ch_tcall *call, bool answer,
                                   size_t *count) CH_WAITS;
static struct base_status echo_all(const struct ch_transport *t, struct ch_tcall *call, bool answer,
                                   size_t *count)
{
    struct base_buf message = { 0 };
    bool end = false;
    struct base_status status = BASE_STATUS_OK;
    while (!base_failed(status)) {
        base_buf_clear(&message);
        status = t->recv(call, &message, &end);
        if (base_failed(status) || end)
            break;
        ++*count;
        if (answer)
            status = t->send(call, base_buf_bytes(&message));
    }
    base_buf_free(&message);
    return status;
}

static void serve(void *arg)
{
    CH_FIBER_ENTRY();
    struct served *served = arg;
    struct ch_env *env = served->bed->server_env;
    const struct ch_transport *t = ch_env_transport(env);
    struct ch_tcall *call = served->call;
    struct base_buf message = { 0 };
    bool end = false, stream = strcmp(t->path(call), "/stream") == 0;
    size_t count = 0;
    t->on_cancel(call, served_gone, served);
    struct base_status status = BASE_STATUS_OK;
    if (strcmp(t->path(call), "/slow") == 0)
        (void)ch_sleep_until(env, ch_in(env, 10 * CH_S));
    if (strcmp(t->path(call), "/sink") == 0)
        while (!served->gone && !ch_cancelled())
            (void)ch_sleep_until(env, ch_in(env, CH_MS));
    if (stream || strcmp(t->path(call), "/count") == 0)
        status = echo_all(t, call, stream, &count);
    else
        status = t->recv(call, &message, &end);
    if (strcmp(t->path(call), "/count") == 0)
        base_buf_printf(&message, "%zu", count);
    const struct ch_metadata *pairs, trailer = { "x-strata-not-run", BASE_BYTES_LIT("1") };
    bool turned_away = t->metadata(call, &pairs) > 0 && strcmp(pairs[0].key, "turn-away") == 0;
    if (turned_away && !base_failed(status))
        status = base_status_make(BASE_UNAVAILABLE, "turned away");
    struct base_bytes reply = base_buf_bytes(&message);
    t->reply(call, stream || base_failed(status) ? NULL : &reply, &status, &trailer, turned_away);
    base_status_free(&status);
    t->free(call);
    base_buf_free(&message);
    free(served);
}

static void accepted(void *self, struct ch_tcall *call)
{
    struct bed *bed = self;
    struct served *served = calloc(1, sizeof(*served));
    *served = (struct served){ bed, call };
    bed->accepted++;
    if (base_status_drop(ch_gate_spawn(&bed->gate, "served", serve, served)) == BASE_OK)
        return;
    ch_env_transport(bed->server_env)->free(call);
    free(served);
}

static int server_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct bed *bed = arg;
    const struct ch_transport *t = ch_env_transport(env);
    char bound[128];
    bed->server_env = env;
    ch_gate_init(&bed->gate, env, "served");
    MUST(t->listen(env, SERVER_ADDRESS, BYTES_MAX, accepted, bed, bound, &bed->listener));
    cr_assert_str_eq(bound, SERVER_ADDRESS);
    while (!bed->drain && ch_sleep_until(env, ch_in(env, 10 * CH_MS)) == CH_TIMEOUT)
        ;
    t->listener_drain(bed->listener);
    if (bed->drain)
        (void)ch_sleep_until(env, CH_NEVER);
    ch_gate_stop(&bed->gate);
    t->listener_close(bed->listener);
    return 0;
}

static int client_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    (void)ch_sleep_until(env, CH_NEVER);
    return 0;
}

static struct bed *bed_new(uint64_t seed)
{
    struct bed *bed = calloc(1, sizeof(*bed));
    bed->sim = ch_sim_new(seed);
    bed->server = ch_sim_node(bed->sim, "server", "10.0.0.1");
    bed->client = ch_sim_node(bed->sim, "client", "10.0.0.2");
    ch_sim_start(bed->server, server_main, bed);
    ch_sim_start(bed->client, client_main, bed);
    ch_sim_run(bed->sim, NULL, NULL, ch_sim_now(bed->sim) + CH_MS);
    return bed;
}

static void bed_free(struct bed *bed)
{
    ch_sim_free(bed->sim);
    free(bed);
}

static void run_for(struct bed *bed, ch_time time)
{
    ch_sim_run(bed->sim, NULL, NULL, ch_sim_now(bed->sim) + time);
}

/* ---- a unary call on a fiber of the tester ---- */

struct call {
    struct bed *bed;
    const char *path, *address;
    struct base_bytes request;
    ch_time timeout;
    bool wait_for_ready, turn_away;
    struct ch_tfinish finish;
    struct base_buf reply;
    ch_time took;
    bool done;
};

static void call_on(struct call *call, struct ch_tchannel *channel) CH_WAITS;
static void call_on(struct call *call, struct ch_tchannel *channel)
{
    struct ch_env *env = ch_fiber_env();
    struct ch_metadata pair = { "turn-away", BASE_BYTES_LIT("yes") };
    ch_time start = ch_now(env);
    call->finish = ch_env_transport(env)->unary(channel, call->path ? call->path : "/echo", &pair,
                                                call->turn_away,
                                                start + (call->timeout ? call->timeout : 60 * CH_S),
                                                call->wait_for_ready, call->request, &call->reply);
    call->took = ch_now(env) - start;
    call->done = true;
}

static void call_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct call *call = arg;
    struct ch_env *env = ch_fiber_env();
    const struct ch_transport *t = ch_env_transport(env);
    struct ch_tchannel *channel =
        t->channel_new(env, call->address ? call->address : SERVER_ADDRESS, BYTES_MAX);
    call_on(call, channel);
    t->channel_free(channel);
}

static bool call_done(void *arg)
{
    return ((struct call *)arg)->done;
}

static void call_start(struct call *call, struct bed *bed)
{
    struct ch_env *env = ch_sim_tester_env(bed->sim);
    call->bed = bed;
    MUST(ch_gate_spawn(&env->main_gate, "call", call_fiber, call));
}

static void call_end(struct call *call)
{
    base_status_free(&call->finish.status);
    base_buf_free(&call->reply);
}

static void call_check(struct call *call, enum base_code code, bool never_seen)
{
    if (!call->done)
        cr_assert(
            ch_sim_run(call->bed->sim, call_done, call, ch_sim_now(call->bed->sim) + 100 * CH_S));
    cr_assert_eq(call->finish.status.code, code, "%s", base_status_text(&call->finish.status));
    cr_assert_eq(call->finish.never_seen, never_seen);
    call_end(call);
}

/* ---- plain calls ---- */

Test(sim_net, a_call_takes_a_few_seeded_delays_and_brings_the_reply)
{
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct bed *bed = bed_new(seed);
        struct call call = { .request = BASE_BYTES_LIT("ping") };
        call_start(&call, bed);
        cr_assert(ch_sim_run(bed->sim, call_done, &call, ch_sim_now(bed->sim) + CH_S));
        cr_assert(base_bytes_eq_str(base_buf_bytes(&call.reply), "ping"));
        cr_assert(call.took >= 4 * 50 * CH_US && call.took <= 4 * 500 * CH_US, "%ld",
                  (long)call.took);
        call_check(&call, BASE_OK, false);
        bed_free(bed);
    }
}

Test(sim_net, where_nobody_listens_a_call_fails_quickly_and_was_never_seen)
{
    struct bed *bed = bed_new(1);
    struct call port = { .address = "10.0.0.1:7001" }, host = { .address = "10.9.9.9:7000" },
                bad = { .address = "nonsense" };
    struct call *all[] = { &port, &host, &bad };
    for (int i = 0; i < 3; i++) {
        call_start(all[i], bed);
        cr_assert(ch_sim_run(bed->sim, call_done, all[i], ch_sim_now(bed->sim) + 2 * CH_MS));
        call_check(all[i], BASE_UNAVAILABLE, true);
    }
    struct call patient = { .address = "10.0.0.1:7001",
                            .wait_for_ready = true,
                            .timeout = 3 * CH_S };
    call_start(&patient, bed);
    call_check(&patient, BASE_DEADLINE_EXCEEDED, true);
    cr_assert_eq(patient.took, 3 * CH_S);
    bed_free(bed);
}

Test(sim_net, a_call_that_waits_for_ready_gets_there_when_the_server_comes)
{
    struct bed *bed = bed_new(2);
    ch_sim_crash(bed->server);
    struct call patient = { .wait_for_ready = true };
    call_start(&patient, bed);
    run_for(bed, CH_S);
    cr_assert_not(patient.done);
    ch_sim_start(bed->server, server_main, bed); /* the same port, after a crash */
    run_for(bed, CH_S);
    cr_assert(patient.done);
    call_check(&patient, BASE_OK, false);
    bed_free(bed);
}

Test(sim_net, the_deadline_ends_a_call_and_tells_the_server)
{
    struct bed *bed = bed_new(3);
    struct call call = { .path = "/slow", .timeout = 300 * CH_MS };
    call_start(&call, bed);
    call_check(&call, BASE_DEADLINE_EXCEEDED, false);
    cr_assert_eq(call.took, 300 * CH_MS);
    run_for(bed, 10 * CH_MS);
    cr_assert_eq(bed->cancelled, 1u);
    bed_free(bed);
}

Test(sim_net, messages_over_the_limit_are_refused_on_either_side)
{
    struct bed *bed = bed_new(4);
    void *big = calloc(1, BYTES_MAX + 1);
    struct call fits = { .request = { big, BYTES_MAX } },
                over = { .request = { big, BYTES_MAX + 1 } };
    call_start(&fits, bed);
    call_check(&fits, BASE_OK, false);
    call_start(&over, bed);
    call_check(&over, BASE_RESOURCE_EXHAUSTED, false);
    free(big);
    bed_free(bed);
}

Test(sim_net, a_server_that_turns_calls_away_makes_them_never_seen)
{
    struct bed *bed = bed_new(4);
    struct call away = { .turn_away = true }, late = { 0 };
    call_start(&away, bed);
    call_check(&away, BASE_UNAVAILABLE, true);
    bed->drain = true;
    run_for(bed, 20 * CH_MS);
    call_start(&late, bed);
    call_check(&late, BASE_UNAVAILABLE, true);
    bed_free(bed);
}

static void ports_task(void *arg)
{
    CH_FIBER_ENTRY();
    struct bed *bed = arg;
    struct ch_env *env = ch_fiber_env();
    const struct ch_transport *t = ch_env_transport(env);
    char bound[2][128];
    struct ch_tlistener *listeners[3];
    MUST(t->listen(env, "127.0.0.1:0", BYTES_MAX, accepted, bed, bound[0], &listeners[0]));
    MUST(t->listen(env, "10.255.255.1:0", BYTES_MAX, accepted, bed, bound[1], &listeners[1]));
    cr_assert_str_neq(bound[0], bound[1]);
    cr_assert_eq(base_status_drop(
                     t->listen(env, bound[0], BYTES_MAX, accepted, bed, bound[1], &listeners[2])),
                 BASE_UNAVAILABLE);
    cr_assert_eq(base_status_drop(t->listen(env, "10.0.0.1:9", BYTES_MAX, accepted, bed, bound[1],
                                            &listeners[2])),
                 BASE_UNAVAILABLE);
    t->listener_close(listeners[0]);
    MUST(t->listen(env, bound[0], BYTES_MAX, accepted, bed, bound[1], &listeners[0]));
    t->listener_close(listeners[0]);
    t->listener_close(listeners[1]);
}

Test(sim_net, ports_are_a_hosts_own_and_are_free_again_after_close)
{
    struct bed *bed = bed_new(4);
    ch_sim_do(bed->sim, ports_task, bed, ch_sim_now(bed->sim) + CH_S);
    bed_free(bed);
}

/* ---- streams ---- */

static void stream_task(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = ch_fiber_env();
    const struct ch_transport *t = ch_env_transport(env);
    struct ch_tchannel *channel = t->channel_new(env, SERVER_ADDRESS, BYTES_MAX);
    struct ch_tcall *call = t->open(channel, "/stream", NULL, 0, ch_in(env, 60 * CH_S), false);
    struct base_buf message = { 0 };
    bool end;
    for (uint32_t sent = 0, back = 0; back < 500;) {
        for (int i = 0; i < 10 && sent < 500; i++, sent++)
            MUST(t->send(call, base_bytes(&sent, 4)));
        if (sent == 500)
            MUST(t->close_send(call));
        for (uint32_t n; back < sent; back++) {
            base_buf_clear(&message);
            MUST(t->recv(call, &message, &end));
            cr_assert(!end && message.len == 4);
            memcpy(&n, message.data, 4);
            cr_assert_eq(n, back);
        }
    }
    MUST(t->recv(call, &message, &end));
    cr_assert(end);
    struct ch_tfinish finish = t->finish(call);
    cr_assert_eq(finish.status.code, BASE_OK);
    t->free(call);
    t->channel_free(channel);
    base_buf_free(&message);
}

Test(sim_net, messages_of_a_connection_stay_in_order_whatever_their_delays)
{
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct bed *bed = bed_new(seed);
        ch_sim_do(bed->sim, stream_task, bed, ch_sim_now(bed->sim) + 100 * CH_S);
        bed_free(bed);
    }
}

static void sink_task(void *arg)
{
    CH_FIBER_ENTRY();
    struct bed *bed = arg;
    struct ch_env *env = ch_fiber_env();
    const struct ch_transport *t = ch_env_transport(env);
    struct ch_tchannel *channel = t->channel_new(env, SERVER_ADDRESS, BYTES_MAX);
    struct ch_tcall *call = t->open(channel, "/sink", NULL, 0, ch_in(env, CH_S), false);
    void *data = calloc(1, 1000);
    struct base_status status;
    while (!base_failed(status = t->send(call, base_bytes(data, 1000))))
        bed->sent++;
    cr_assert_eq(base_status_drop(status), BASE_DEADLINE_EXCEEDED);
    struct ch_tfinish finish = t->finish(call);
    cr_assert_eq(base_status_drop(finish.status), BASE_DEADLINE_EXCEEDED);
    t->free(call);
    t->channel_free(channel);
    free(data);
}

Test(sim_net, a_sender_waits_for_a_receiver_that_does_not_read)
{
    struct bed *bed = bed_new(1);
    ch_sim_do(bed->sim, sink_task, bed, ch_sim_now(bed->sim) + 100 * CH_S);
    cr_assert(bed->sent >= 60 && bed->sent <= 70, "%zu", bed->sent);
    bed_free(bed);
}

/* ---- faults ---- */

Test(sim_net, a_short_cut_delays_and_a_long_one_breaks_with_the_outcome_unknown)
{
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct bed *bed = bed_new(seed);
        struct call waits = { .path = "/slow" }, breaks = { .path = "/slow" };
        call_start(&waits, bed);
        run_for(bed, 9500 * CH_MS);
        ch_sim_net_cut(bed->sim, "10.0.0.1", "*", true); /* one way: only the reply is held back */
        run_for(bed, CH_S);
        cr_assert_not(waits.done);
        ch_sim_net_cut(bed->sim, "10.0.0.1", "*", false);
        run_for(bed, 10 * CH_MS);
        cr_assert(waits.done);
        call_check(&waits, BASE_OK, false);
        call_start(&breaks, bed);
        run_for(bed, CH_S);
        ch_sim_net_cut(bed->sim, "10.255.255.1", "10.0.0.1", true);
        run_for(bed, 3 * CH_S);
        cr_assert(breaks.done);
        call_check(&breaks, BASE_UNAVAILABLE, false);
        cr_assert_eq(bed->cancelled, 1u); /* the server notices too */
        struct call lost = { .timeout = CH_S }, refused = { 0 };
        call_start(&lost, bed);
        call_check(&lost, BASE_DEADLINE_EXCEEDED, true); /* no connection came about */
        call_start(&refused, bed);
        call_check(&refused, BASE_UNAVAILABLE, true);
        ch_sim_net_heal(bed->sim);
        struct call good = { 0 };
        call_start(&good, bed);
        call_check(&good, BASE_OK, false);
        bed_free(bed);
    }
}

Test(sim_net, a_reset_and_a_servers_death_leave_the_outcome_unknown)
{
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct bed *bed = bed_new(seed);
        struct call call = { .path = "/slow" };
        call_start(&call, bed);
        run_for(bed, CH_S);
        if (seed % 2)
            ch_sim_net_reset(bed->sim, "10.0.0.1", "10.255.255.1");
        else
            ch_sim_crash(bed->server);
        cr_assert_eq(bed->cancelled, 1u);
        run_for(bed, 2 * CH_MS);
        cr_assert(call.done);
        call_check(&call, BASE_UNAVAILABLE, false);
        bed_free(bed);
    }
}

static void client_call(void *arg)
{
    CH_FIBER_ENTRY();
    call_fiber(arg);
}

Test(sim_net, a_clients_death_cancels_its_calls_at_the_server_and_unwinds_it)
{
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct bed *bed = bed_new(seed);
        struct call call = { .path = "/slow", .bed = bed };
        struct ch_env *env = NULL;
        ch_sim_crash(bed->client);
        env = ch_sim_start(bed->client, client_main, bed);
        MUST(ch_gate_spawn(&env->main_gate, "call", client_call, &call));
        run_for(bed, CH_S);
        cr_assert_eq(bed->accepted, 1u);
        ch_sim_crash(bed->client);
        cr_assert(call.done); /* its fiber has unwound: with a failure that tells nobody anything */
        call_check(&call, BASE_UNAVAILABLE, false);
        cr_assert_eq(bed->cancelled, 0u);
        run_for(bed, CH_MS);
        cr_assert_eq(bed->cancelled, 1u);
        bed_free(bed);
    }
}

Test(sim_net, a_short_pause_of_the_server_delays_and_a_long_one_breaks_the_connection)
{
    struct bed *bed = bed_new(7);
    struct call short_one = { 0 }, long_one = { 0 };
    ch_sim_pause(bed->server, true);
    call_start(&short_one, bed);
    run_for(bed, CH_S);
    cr_assert_not(short_one.done);
    ch_sim_pause(bed->server, false);
    call_check(&short_one, BASE_OK, false);
    ch_sim_pause(bed->server, true);
    call_start(&long_one, bed);
    call_check(&long_one, BASE_UNAVAILABLE,
               false); /* its machine took the bytes; nobody knows what for */
    ch_sim_pause(bed->server, false);
    bed_free(bed);
}

Test(sim_net, a_slow_link_is_slow_one_way_until_it_heals)
{
    struct bed *bed = bed_new(7);
    struct call slow = { 0 }, quick = { 0 };
    ch_sim_net_slow(bed->sim, "10.0.0.1", "*", CH_S);
    call_start(&slow, bed);
    call_check(&slow, BASE_OK, false);
    cr_assert(slow.took >= 2 * CH_S && slow.took < 2100 * CH_MS, "%ld",
              (long)slow.took); /* of accept and reply */
    ch_sim_net_heal(bed->sim);
    call_start(&quick, bed);
    call_check(&quick, BASE_OK, false);
    cr_assert_lt(quick.took, 10 * CH_MS);
    bed_free(bed);
}

static void flaky_task(void *arg)
{
    CH_FIBER_ENTRY();
    struct bed *bed = arg;
    struct ch_env *env = ch_fiber_env();
    const struct ch_transport *t = ch_env_transport(env);
    struct ch_tchannel *channel = t->channel_new(env, SERVER_ADDRESS, BYTES_MAX);
    for (int i = 0; i < 200; i++) {
        struct call call = { .request = BASE_BYTES_LIT("x") };
        call_on(&call, channel);
        bed->sent += call.finish.status.code == BASE_OK;
        cr_assert(call.finish.status.code == BASE_OK ||
                  call.finish.status.code == BASE_UNAVAILABLE);
        call_end(&call);
    }
    t->channel_free(channel);
}

Test(sim_net, a_flaky_network_breaks_some_calls_and_the_channel_comes_back)
{
    struct bed *bed = bed_new(7);
    ch_sim_net_flaky(bed->sim, 50000);
    ch_sim_do(bed->sim, flaky_task, bed, ch_sim_now(bed->sim) + 100 * CH_S);
    cr_assert(bed->sent > 100 && bed->sent < 190, "%zu", bed->sent);
    cr_assert_gt(bed->accepted,
                 bed->sent); /* some were seen whose outcome the caller did not learn */
    bed_free(bed);
}

/* ---- determinism ---- */

static uint64_t chaos(uint64_t seed)
{
    struct bed *bed = bed_new(seed);
    struct call calls[40];
    memset(calls, 0, sizeof(calls));
    ch_sim_net_flaky(bed->sim, 10000);
    for (int i = 0; i < 40; i++) {
        calls[i].path = i % 3 ? "/echo" : "/slow";
        calls[i].timeout = CH_S * (i % 7 + 1);
        call_start(&calls[i], bed);
        run_for(bed, (ch_time)(ch_sim_random(bed->sim) % (500 * CH_MS)));
        switch (ch_sim_random(bed->sim) % 5) {
        case 0:
            ch_sim_net_cut(bed->sim, "10.0.0.1", "10.255.255.1", i % 2);
            break;
        case 1:
            ch_sim_net_reset(bed->sim, "*", "*");
            break;
        case 2:
            ch_sim_crash(bed->server);
            ch_sim_start(bed->server, server_main, bed);
            break;
        case 3:
            ch_sim_pause(bed->server, i % 2);
            break;
        }
    }
    run_for(bed, 20 * CH_S);
    for (int i = 0; i < 40; i++) {
        cr_assert(calls[i].done); /* every call ends by its deadline, whatever happens */
        cr_assert_leq(calls[i].took, calls[i].timeout);
        call_end(&calls[i]);
    }
    uint64_t trace = ch_sim_trace(bed->sim);
    bed_free(bed);
    return trace;
}

Test(sim_net, whatever_happens_every_call_ends_and_the_same_seed_tells_the_same_story)
{
    for (uint64_t seed = 1; seed < 20; seed++)
        cr_assert_eq(chaos(seed), chaos(seed), "seed %d", (int)seed);
}
