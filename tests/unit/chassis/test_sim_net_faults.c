/* The simulated network under faults: what a cut, a reset, a pause, a slow or flaky link and a
 * crash do to calls, and what a caller may know afterwards. */
#include "sim_net_bed.h"

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
        env = ch_sim_start(bed->client, bed_client_main, bed);
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
            ch_sim_start(bed->server, bed_server_main, bed);
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
