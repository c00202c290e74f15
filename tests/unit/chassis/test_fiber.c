/* Fibers: what fibers.md demands of spawn, wake, cancel, gates and the end of a fiber, and its
 * traps as cases. All on a loop with a clock the test owns. */
#include <signal.h>

#include "loop_fixture.h"
#include "test.h"

static void append(void *arg)
{
    CH_FIBER_ENTRY();
    struct fixture *f = arg;
    f->trace[f->traced++] = 'a' + (char)f->count++;
}

Test(fiber, spawn_and_wake_never_run_the_target_at_once_and_keep_order)
{
    struct fixture *f = fixture_new();
    for (int i = 0; i < 5; i++)
        fixture_spawn(f, append, f);
    cr_assert_eq(f->traced, 0u, "nothing runs before the loop does");
    fixture_run(f);
    cr_assert_str_eq(f->trace, "abcde");
    fixture_free(f);
}

static void sleeper(void *arg)
{
    CH_FIBER_ENTRY();
    struct fixture *f = arg;
    enum ch_outcome outcome = ch_sleep_until(&f->env, 1000);
    f->outcomes[f->count++] = outcome;
    outcome = ch_sleep_until(&f->env, 2000);
    f->outcomes[f->count++] = outcome;
}

Test(fiber, a_deadline_ends_a_wait_and_a_passed_one_does_not_park)
{
    struct fixture *f = fixture_new();
    fixture_spawn(f, sleeper, f);
    fixture_run(f);
    cr_assert_eq(f->count, 2u);
    cr_assert(f->outcomes[0] == CH_TIMEOUT && f->outcomes[1] == CH_TIMEOUT);
    cr_assert_eq(f->now, 2000);
    fixture_free(f);
}

Test(fiber, cancel_ends_waits_now_and_on_entry_later)
{
    struct fixture *f = fixture_new();
    fixture_spawn(f, sleeper, f);
    ch_loop_run_ready(&f->loop);
    ch_gate_cancel(&f->gate);
    fixture_run(f);
    cr_assert(f->outcomes[0] == CH_CANCELLED && f->outcomes[1] == CH_CANCELLED);
    cr_assert_eq(f->now, 0, "no time passed");
    fixture_free(f);
}

static void stubborn(void *arg)
{
    CH_FIBER_ENTRY();
    struct fixture *f = arg;
    ch_done_wait_always(&f->done);
    f->count++;
}

static void joiner(void *arg)
{
    CH_FIBER_ENTRY();
    struct fixture *f = arg;
    ch_gate_stop(&f->inner);
    f->trace[f->traced++] = 'j';
}

Test(fiber, stop_of_a_gate_waits_for_fibers_that_must_finish)
{
    struct fixture *f = fixture_new();
    cr_assert_eq(base_status_drop(ch_gate_spawn(&f->inner, "stubborn", stubborn, f)), BASE_OK);
    ch_loop_run_ready(&f->loop);
    fixture_spawn(f, joiner, f);
    ch_loop_run_ready(&f->loop);
    ch_loop_run_ready(&f->loop);
    cr_assert_eq(f->traced, 0u, "the gate is not empty");
    cr_assert_eq(base_status_drop(ch_gate_spawn(&f->inner, "late", stubborn, f)), BASE_UNAVAILABLE);
    ch_done_set(&f->done);
    fixture_run(f);
    cr_assert_eq(f->count, 1u);
    cr_assert_str_eq(f->trace, "j");
    fixture_free(f);
}

static void join_own_gate(void *arg)
{
    CH_FIBER_ENTRY();
    struct fixture *f = arg;
    ch_gate_join_always(&f->gate);
}

Test(fiber, joining_the_own_gate_aborts_instead_of_hanging, .signal = SIGABRT)
{
    struct fixture *f = fixture_new();
    fixture_spawn(f, join_own_gate, f);
    fixture_run(f);
}

static void wait_in_no_wait_section(void *arg)
{
    CH_FIBER_ENTRY();
    struct fixture *f = arg;
    ch_no_wait_enter();
    (void)ch_sleep_until(&f->env, 10);
}

Test(fiber, a_wait_inside_a_no_wait_section_aborts_in_every_build, .signal = SIGABRT)
{
    struct fixture *f = fixture_new();
    fixture_spawn(f, wait_in_no_wait_section, f);
    fixture_run(f);
}

static void end_with_mutex(void *arg)
{
    CH_FIBER_ENTRY();
    struct fixture *f = arg;
    if (ch_mutex_lock(&f->mutex, CH_NEVER) != CH_OK)
        f->count++;
}

Test(fiber, ending_with_a_mutex_held_aborts, .signal = SIGABRT)
{
    struct fixture *f = fixture_new();
    fixture_spawn(f, end_with_mutex, f);
    fixture_run(f);
}

static void burn(void *arg)
{
    CH_FIBER_ENTRY();
    struct fixture *f = arg;
    for (int i = 0; i < 10; i++) {
        f->now += CH_MS / 2;
        f->trace[f->traced++] = 'b';
        ch_yield_if_long();
    }
}

Test(fiber, long_work_yields_each_millisecond)
{
    struct fixture *f = fixture_new();
    fixture_spawn(f, burn, f);
    f->count = (size_t)('x' - 'a');
    fixture_spawn(f, append, f);
    fixture_run(f);
    cr_assert_eq(f->trace[2], 'x', "the other fiber ran after a millisecond: %s", f->trace);
    fixture_free(f);
}

static void nest(void *arg)
{
    CH_FIBER_ENTRY();
    struct fixture *f = arg;
    if (f->count++ < 20000)
        fixture_spawn(f, nest, f);
}

Test(fiber, tens_of_thousands_in_turn_reuse_a_few_stacks)
{
    struct fixture *f = fixture_new();
    fixture_spawn(f, nest, f);
    fixture_run(f);
    cr_assert_eq(f->count, 20001u);
    cr_assert_leq(f->loop.pooled, 2u);
    fixture_free(f);
}

#ifndef __SANITIZE_THREAD__ /* which cannot hold that many fibers */
Test(fiber, beyond_the_cap_spawn_says_resource_exhausted)
{
    struct fixture *f = fixture_new();
    for (int i = 0; i < CH_FIBERS_MAX; i++)
        cr_assert_eq(base_status_drop(ch_gate_spawn(&f->inner, "stubborn", stubborn, f)), BASE_OK);
    cr_assert_eq(base_status_drop(ch_gate_spawn(&f->inner, "stubborn", stubborn, f)),
                 BASE_RESOURCE_EXHAUSTED);
    ch_done_set(&f->done);
    fixture_run(f);
    fixture_free(f);
}

#endif

Test(fiber, shuffle_gives_other_orders_from_other_seeds_and_the_same_from_the_same)
{
    char orders[3][64];
    for (int run = 0; run < 3; run++) {
        struct fixture *f = fixture_new();
        f->loop.shuffle = run < 2 ? 42 : 43;
        static struct numbered n[10];
        for (int i = 0; i < 10; i++) {
            n[i] = (struct numbered){ f, i };
            fixture_spawn(f, fixture_trace_number, &n[i]);
        }
        fixture_run(f);
        strcpy(orders[run], f->trace);
        fixture_free(f);
    }
    cr_assert_str_eq(orders[0], orders[1]);
    cr_assert_str_neq(orders[0], orders[2]);
}
