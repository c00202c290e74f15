/* Sync primitives: FIFO, hand-off without barging, and no outcome lost when a signal, a timeout and
 * a cancel fall together. */
#include "loop_fixture.h"
#include "test.h"

static void lock_and_trace(void *arg)
{
    CH_FIBER_ENTRY();
    struct numbered *n = arg;
    if (ch_mutex_lock(&n->f->mutex, CH_NEVER) != CH_OK)
        abort();
    n->f->trace[n->f->traced++] = '0' + (char)n->n;
    ch_yield();
    n->f->trace[n->f->traced++] = '0' + (char)n->n;
    ch_mutex_unlock(&n->f->mutex);
    if (n->n == 0 && ch_mutex_try_lock(&n->f->mutex))
        n->f->trace[n->f->traced++] = '!';
}

Test(mutex, is_handed_to_waiters_in_order_and_never_barged)
{
    struct fixture *f = fixture_new();
    struct numbered n[4];
    for (int i = 0; i < 4; i++) {
        n[i] = (struct numbered){ f, i };
        fixture_spawn(f, lock_and_trace, &n[i]);
    }
    fixture_run(f);
    cr_assert_str_eq(f->trace, "00112233");
    fixture_free(f);
}

static void hold(void *arg)
{
    CH_FIBER_ENTRY();
    struct fixture *f = arg;
    if (ch_mutex_lock(&f->mutex, CH_NEVER) != CH_OK)
        abort();
    (void)ch_sleep_until(&f->env, 1000);
    ch_mutex_unlock(&f->mutex);
}

static void lock_until_1000(void *arg)
{
    CH_FIBER_ENTRY();
    struct fixture *f = arg;
    enum ch_outcome outcome = ch_mutex_lock(&f->mutex, 1000);
    f->outcomes[f->count++] = outcome;
    if (outcome == CH_OK)
        ch_mutex_unlock(&f->mutex);
}

Test(mutex, unlock_and_timeout_at_the_same_time_have_one_outcome)
{
    struct fixture *f = fixture_new();
    fixture_spawn(f, hold, f);
    fixture_spawn(f, lock_until_1000, f);
    fixture_spawn(f, lock_until_1000, f);
    fixture_run(f);
    cr_assert_eq(f->count, 2u);
    for (int i = 0; i < 2; i++)
        cr_assert(f->outcomes[i] == CH_OK || f->outcomes[i] == CH_TIMEOUT);
    cr_assert_null(f->mutex.owner, "whatever happened, nobody holds it at the end");
    fixture_free(f);
}

static void wait_cond(void *arg)
{
    CH_FIBER_ENTRY();
    struct fixture *f = arg;
    enum ch_outcome outcome = ch_cond_wait(&f->cond, 500);
    f->outcomes[f->count++] = outcome;
}

Test(cond, a_signal_is_not_lost_to_a_timeout_or_cancel_in_the_same_turn)
{
    struct fixture *f = fixture_new();
    fixture_spawn(f, wait_cond, f);
    ch_loop_run_ready(&f->loop);
    ch_cond_signal(&f->cond); /* first: this is the outcome */
    ch_gate_cancel(&f->gate); /* too late */
    f->now = 500;
    ch_loop_fire(&f->loop, f->now);
    fixture_run(f);
    cr_assert_eq(f->outcomes[0], CH_OK);
    fixture_free(f);
}

Test(cond, signal_wakes_one_broadcast_all)
{
    struct fixture *f = fixture_new();
    for (int i = 0; i < 3; i++)
        fixture_spawn(f, wait_cond, f);
    ch_loop_run_ready(&f->loop);
    ch_cond_signal(&f->cond);
    ch_loop_run_ready(&f->loop);
    cr_assert_eq(f->count, 1u);
    ch_cond_broadcast(&f->cond);
    ch_loop_run_ready(&f->loop);
    cr_assert_eq(f->count, 3u);
    fixture_free(f);
}

static void acquire(void *arg)
{
    CH_FIBER_ENTRY();
    struct numbered *n = arg;
    if (ch_sem_acquire(&n->f->sem, (size_t)n->n, n->n == 5 ? 100 : CH_NEVER) == CH_OK)
        n->f->trace[n->f->traced++] = '0' + (char)n->n;
    else
        n->f->trace[n->f->traced++] = 'x';
}

Test(semaphore, a_large_request_is_not_overtaken_and_frees_the_line_when_it_gives_up)
{
    struct fixture *f = fixture_new();
    ch_sem_init(&f->sem, 2);
    struct numbered five = { f, 5 }, one = { f, 1 }, two = { f, 2 };
    fixture_spawn(f, acquire, &five);
    fixture_spawn(f, acquire, &one);
    ch_loop_run_ready(&f->loop);
    cr_assert_eq(f->traced, 0u, "1 waits behind 5 though 2 units are free");
    fixture_run(f);
    cr_assert_str_eq(f->trace, "x1");
    fixture_spawn(f, acquire, &two);
    ch_loop_run_ready(&f->loop);
    ch_sem_break(&f->sem);
    fixture_run(f);
    cr_assert_str_eq(f->trace, "x1x");
    fixture_free(f);
}

static void producer(void *arg)
{
    CH_FIBER_ENTRY();
    struct fixture *f = arg;
    for (uintptr_t i = 1; i <= 100; i++)
        if (ch_chan_put(&f->chan, (void *)i, CH_NEVER) != CH_OK)
            abort();
    ch_chan_close(&f->chan);
}

static void consumer(void *arg)
{
    CH_FIBER_ENTRY();
    struct fixture *f = arg;
    void *item;
    uintptr_t expected = 1;
    while (ch_chan_take(&f->chan, &item, CH_NEVER) == CH_OK)
        f->count += (uintptr_t)item == expected++;
}

Test(channel, delivers_all_in_order_and_drains_after_close)
{
    struct fixture *f = fixture_new();
    ch_chan_init(&f->chan, 3);
    fixture_spawn(f, producer, f);
    fixture_spawn(f, consumer, f);
    fixture_run(f);
    cr_assert_eq(f->count, 100u);
    ch_chan_destroy(&f->chan);
    fixture_free(f);
}

static void add_ten(void *arg)
{
    CH_FIBER_ENTRY();
    struct fixture *f = arg;
    (void)ch_sleep_until(&f->env, f->now + 10);
    f->count += 10;
}

static void gather(void *arg)
{
    CH_FIBER_ENTRY();
    struct fixture *f = arg;
    struct ch_gather g;
    ch_gather_init(&g, "gather");
    for (int i = 0; i < 5; i++)
        ch_gather_add(&g, add_ten, f);
    ch_gather_wait(&g);
    f->trace[f->traced++] = f->count == 50 ? 'y' : 'n';
}

Test(gather, waits_for_all_side_by_side)
{
    struct fixture *f = fixture_new();
    fixture_spawn(f, gather, f);
    fixture_run(f);
    cr_assert_str_eq(f->trace, "y");
    cr_assert_eq(f->now, 10, "side by side");
    fixture_free(f);
}

Test(gather, cancels_its_fibers_with_the_caller_and_still_waits_for_them)
{
    struct fixture *f = fixture_new();
    fixture_spawn(f, gather, f);
    ch_loop_run_ready(&f->loop);
    ch_loop_run_ready(&f->loop);
    ch_gate_cancel(&f->gate);
    fixture_run(f);
    cr_assert_str_eq(f->trace, "y");
    cr_assert_eq(f->now, 0, "no time passed: every sleep was cancelled");
    fixture_free(f);
}
