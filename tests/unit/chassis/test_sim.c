/* Simulated worlds: time is virtual and exact, death has no effect on others and leaves nothing
 * behind, a seed says all. */
#include <stdio.h>
#include <stdlib.h>

#include "env_int.h"
#include "chassis/sim.h"
#include "test.h"

#define HOUR (3600 * CH_S)

/* ---- time ---- */

static int sleeper(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    ch_time start = ch_now(env);
    (void)ch_sleep_until(env, start + HOUR);
    *(ch_time *)arg = ch_now(env) - start;
    return 7;
}

Test(sim, an_hour_of_sleep_takes_exactly_a_virtual_hour)
{
    struct ch_sim *sim = ch_sim_new(1);
    struct ch_sim_node *node = ch_sim_node(sim, "a", "10.0.0.1");
    ch_time slept = 0;
    ch_sim_start(node, sleeper, &slept);
    cr_assert(ch_sim_running(node));
    ch_sim_run(sim, NULL, NULL, CH_NEVER);
    cr_assert_eq(slept, HOUR);
    cr_assert_not(ch_sim_running(node));
    cr_assert_eq(ch_sim_exit_value(node), 7);
    ch_sim_free(sim);
}

Test(sim, run_stops_at_its_deadline_and_time_has_come_that_far)
{
    struct ch_sim *sim = ch_sim_new(1);
    struct ch_sim_node *node = ch_sim_node(sim, "a", "10.0.0.1");
    ch_time slept = 0, start = ch_sim_now(sim);
    ch_sim_start(node, sleeper, &slept);
    cr_assert_not(ch_sim_run(sim, NULL, NULL, start + CH_S));
    cr_assert_eq(ch_sim_now(sim), start + CH_S);
    cr_assert(ch_sim_running(node));
    ch_sim_free(sim); /* stops it: the sleep is cancelled */
    cr_assert_lt(slept, 2 * CH_S);
}

static int spinner(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    ch_time end = ch_in(env, 10 * CH_MS);
    while (ch_now(env) < end)
        ch_yield();
    return 0;
}

Test(sim, a_fiber_that_polls_the_clock_gets_to_its_deadline)
{
    struct ch_sim *sim = ch_sim_new(1);
    struct ch_sim_node *node = ch_sim_node(sim, "a", "10.0.0.1");
    ch_sim_start(node, spinner, NULL);
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + CH_S);
    cr_assert_not(ch_sim_running(node));
    ch_sim_free(sim);
}

static int until_cancelled(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    while (ch_sleep_until(env, ch_in(env, 10 * CH_MS)) == CH_TIMEOUT)
        ++*(int *)arg;
    return 3;
}

Test(sim, a_paused_node_does_nothing_and_its_timers_fire_when_it_goes_on)
{
    struct ch_sim *sim = ch_sim_new(5);
    struct ch_sim_node *node = ch_sim_node(sim, "a", "10.0.0.1");
    int ticks = 0;
    ch_sim_start(node, until_cancelled, &ticks);
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + 105 * CH_MS);
    int before = ticks;
    cr_assert_eq(before, 10);
    ch_sim_pause(node, true);
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + CH_S);
    cr_assert_eq(ticks, before);
    ch_sim_pause(node, false);
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + 11 * CH_MS);
    cr_assert_eq(ticks, before + 2, "%d", ticks); /* the late one, and one more */
    ch_sim_stop(node);
    cr_assert_eq(ch_sim_exit_value(node), 3);
    ch_sim_free(sim);
}

Test(sim, wall_clocks_differ_and_jump_while_the_monotonic_one_does_not)
{
    struct ch_sim *sim = ch_sim_new(9);
    struct ch_sim_node *node = ch_sim_node(sim, "a", "10.0.0.1");
    int ticks = 0;
    struct ch_env *env = ch_sim_start(node, until_cancelled, &ticks),
                  *tester = ch_sim_tester_env(sim);
    cr_assert_neq(ch_wall_us(env), ch_wall_us(tester));
    int64_t wall = ch_wall_us(env);
    ch_time now = ch_now(env);
    ch_sim_clock_jump(node, -5000000);
    cr_assert_eq(ch_wall_us(env), wall - 5000000);
    cr_assert_eq(ch_now(env), now);
    ch_sim_free(sim);
}

/* ---- death ---- */

struct crowd {
    struct ch_env *env;
    struct ch_gate gate;
    struct ch_mutex mutex;
    struct ch_done done;
    struct ch_sem sem;
    struct ch_cond cond;
    struct ch_chan chan;
    int ended, cancelled;
};

static void note(struct crowd *crowd, enum ch_outcome outcome)
{
    crowd->ended++;
    crowd->cancelled += outcome == CH_CANCELLED;
}

static void waits_mutex(void *arg)
{
    CH_FIBER_ENTRY();
    struct crowd *crowd = arg;
    ch_mutex_lock_always(&crowd->mutex);
    note(crowd, ch_sleep_until(crowd->env, CH_NEVER));
    ch_mutex_unlock(&crowd->mutex);
}

static void waits_sem(void *arg)
{
    CH_FIBER_ENTRY();
    struct crowd *crowd = arg;
    note(crowd, ch_sem_acquire(&crowd->sem, 1, CH_NEVER));
}

static void waits_cond(void *arg)
{
    CH_FIBER_ENTRY();
    struct crowd *crowd = arg;
    note(crowd, ch_cond_wait(&crowd->cond, CH_NEVER));
}

static void waits_chan(void *arg)
{
    CH_FIBER_ENTRY();
    struct crowd *crowd = arg;
    void *item;
    note(crowd, ch_chan_take(&crowd->chan, &item, CH_NEVER));
    ch_done_set(&crowd->done);
}

static void waits_done(void *arg)
{
    CH_FIBER_ENTRY();
    struct crowd *crowd = arg;
    ch_done_wait_always(&crowd->done); /* set by waits_chan as it unwinds */
    note(crowd, CH_CANCELLED);
}

static void waits_file(void *arg)
{
    CH_FIBER_ENTRY();
    struct crowd *crowd = arg;
    enum base_code code = BASE_OK;
    while (code == BASE_OK && !ch_cancelled()) {
        struct base_bytes data = BASE_BYTES_LIT("x");
        code = base_status_drop(ch_file_write_all(crowd->env, "/x", data));
    }
    cr_assert(code == BASE_OK || code == BASE_UNAVAILABLE);
    note(crowd, CH_CANCELLED);
}

static int crowd_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct crowd *crowd = arg;
    crowd->env = env;
    ch_fiber_fn *const all[] = { waits_mutex, waits_mutex, waits_sem,  waits_cond,
                                 waits_chan,  waits_done,  waits_done, waits_file };
    ch_gate_init(&crowd->gate, env, "crowd");
    ch_mutex_init(&crowd->mutex);
    ch_done_init(&crowd->done);
    ch_sem_init(&crowd->sem, 0);
    ch_cond_init(&crowd->cond);
    ch_chan_init(&crowd->chan, 1);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        cr_assert_eq(base_status_drop(ch_gate_spawn(&crowd->gate, "one of a crowd", all[i], crowd)),
                     BASE_OK);
    (void)ch_sleep_until(env, CH_NEVER);
    ch_gate_stop(&crowd->gate);
    ch_chan_destroy(&crowd->chan);
    return 0;
}

/* However a node's fibers wait, a crash ends them all at once, at one instant, and their memory is
 * given back (ASan). */
Test(sim, a_crash_unwinds_every_kind_of_wait_with_time_standing_still)
{
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct ch_sim *sim = ch_sim_new(seed);
        struct ch_sim_node *node = ch_sim_node(sim, "a", "10.0.0.1");
        struct crowd crowd = { 0 };
        ch_sim_start(node, crowd_main, &crowd);
        ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + CH_MS * (ch_time)seed);
        ch_time now = ch_sim_now(sim);
        ch_sim_crash(node);
        cr_assert_not(ch_sim_running(node));
        cr_assert_eq(ch_sim_now(sim), now);
        if (crowd.env) { /* seed 0: it never ran */
            cr_assert_eq(crowd.ended, 8);
            cr_assert_eq(crowd.cancelled, 8);
        }
        ch_sim_start(node, crowd_main, &crowd); /* and again, on the same disk */
        ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + CH_MS);
        ch_sim_free(sim);
    }
}

static int crashes_itself(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    ch_sim_crash(ch_sim_node_of(env));
    cr_assert(ch_cancelled());
    cr_assert_eq(ch_sleep_until(env, CH_NEVER), CH_CANCELLED);
    struct ch_file *file;
    cr_assert_eq(
        base_status_drop(ch_file_open(env, "/after", CH_FILE_WRITE | CH_FILE_CREATE, &file)),
        BASE_UNAVAILABLE);
    *(bool *)arg = true;
    return 0;
}

Test(sim, a_node_may_crash_itself_and_has_no_effect_afterwards)
{
    struct ch_sim *sim = ch_sim_new(3);
    struct ch_sim_node *node = ch_sim_node(sim, "a", "10.0.0.1");
    bool unwound = false;
    struct base_buf left = { 0 };
    ch_sim_start(node, crashes_itself, &unwound);
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + CH_S);
    cr_assert(unwound);
    cr_assert_not(ch_sim_running(node));
    cr_assert_not(ch_sim_disk_peek(node, "/after", &left));
    ch_sim_free(sim);
}

static int deaf_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_done never;
    ch_done_init(&never);
    ch_done_wait_always(&never);
    return 0;
}

/* A fiber that swallows death would let a dead node act, or hang the test: it must end the test
 * with a name instead. */
Test(sim, a_dead_node_whose_fibers_do_not_end_aborts, .signal = 6)
{
    struct ch_sim *sim = ch_sim_new(3);
    struct ch_sim_node *node = ch_sim_node(sim, "deaf", "10.0.0.1");
    ch_sim_start(node, deaf_main, NULL);
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + CH_S);
    ch_sim_crash(node);
}

/* ---- posts, offload, probes ---- */

struct counted {
    struct ch_post post;
    int *count;
};

static void count_post(struct ch_post *post)
{
    ++*((struct counted *)post)->count;
}

static void count_call(void *arg)
{
    ++*(int *)arg;
}

static void posts_task(void *arg)
{
    CH_FIBER_ENTRY();
    int *count = arg;
    struct ch_env *env = ch_fiber_env();
    struct counted posts[2] = { { { 0, count_post }, count }, { { 0, count_post }, count } };
    ch_env_post(env, &posts[0].post);
    ch_env_post(env, &posts[1].post);
    cr_assert_eq(*count, 0); /* never inline: a post comes from elsewhere */
    cr_assert_eq(ch_sleep_until(env, ch_in(env, 1)), CH_TIMEOUT);
    cr_assert_eq(*count, 2);
    ch_offload(env, count_call, count);
    cr_assert_eq(*count, 3);
    ch_sim_probe(env, "offloaded");
    ch_sim_probe(env, "offloaded");
}

Test(sim, posts_run_on_the_loop_and_offloads_inline_and_probes_count)
{
    struct ch_sim *sim = ch_sim_new(3);
    int count = 0;
    ch_sim_do(sim, posts_task, &count, ch_sim_now(sim) + CH_S);
    cr_assert_eq(ch_sim_probe_count(sim, "offloaded"), 2);
    cr_assert_eq(ch_sim_probe_count(sim, "never"), 0);
    ch_sim_free(sim);
}

/* ---- determinism ---- */

static void racer(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = ch_fiber_env();
    for (int i = 0; i < 20; i++) {
        char path[32];
        snprintf(path, sizeof(path), "/f%d", (int)ch_random_below(env, 3));
        (void)base_status_drop(ch_file_write_all(env, path, BASE_BYTES_LIT("data")));
        if (ch_sleep_until(env, ch_in(env, (ch_time)ch_random_below(env, 1000000))) == CH_CANCELLED)
            return;
    }
}

static int racers_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_gather gather;
    ch_gather_init(&gather, "racers");
    for (int i = 0; i < 8; i++)
        ch_gather_add(&gather, racer, NULL);
    ch_gather_wait(&gather);
    return 0;
}

static uint64_t race(uint64_t seed)
{
    struct ch_sim *sim = ch_sim_new(seed);
    struct ch_sim_node *a = ch_sim_node(sim, "a", "10.0.0.1"),
                       *b = ch_sim_node(sim, "b", "10.0.0.2");
    ch_sim_start(a, racers_main, NULL);
    ch_sim_start(b, racers_main, NULL);
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + 3 * CH_MS);
    ch_sim_crash(a);
    ch_sim_start(a, racers_main, NULL);
    ch_sim_run(sim, NULL, NULL, CH_NEVER);
    uint64_t trace = ch_sim_trace(sim);
    ch_sim_free(sim);
    return trace;
}

Test(sim, the_same_seed_gives_the_same_events_and_another_seed_others)
{
    for (uint64_t seed = 1; seed < 10; seed++) {
        uint64_t trace = race(seed);
        void *other_addresses = malloc(12345); /* addresses of memory must not matter */
        cr_assert_eq(race(seed), trace);
        free(other_addresses);
        cr_assert_neq(race(seed + 100), trace);
    }
}
