/* The simulated network in calm weather: order, deadlines, limits, ports, streams, and what a
 * caller may know afterwards. */
#include "sim_net_bed.h"

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
    ch_sim_start(bed->server, bed_server_main, bed); /* the same port, after a crash */
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
    MUST(t->listen(env, "127.0.0.1:0", BYTES_MAX, bed_accepted, bed, bound[0], &listeners[0]));
    MUST(t->listen(env, "10.255.255.1:0", BYTES_MAX, bed_accepted, bed, bound[1], &listeners[1]));
    cr_assert_str_neq(bound[0], bound[1]);
    cr_assert_eq(base_status_drop(t->listen(env, bound[0], BYTES_MAX, bed_accepted, bed, bound[1],
                                            &listeners[2])),
                 BASE_UNAVAILABLE);
    cr_assert_eq(base_status_drop(t->listen(env, "10.0.0.1:9", BYTES_MAX, bed_accepted, bed,
                                            bound[1], &listeners[2])),
                 BASE_UNAVAILABLE);
    t->listener_close(listeners[0]);
    MUST(t->listen(env, bound[0], BYTES_MAX, bed_accepted, bed, bound[1], &listeners[0]));
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
