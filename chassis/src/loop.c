/* loop.c: see loop.h. Ready ring, timer heap and wait nodes; fibers themselves are fiber.c's. */
#include "loop.h"

#include <stdlib.h>
#include <string.h>

#include "fiber_int.h"

static __thread struct ch_loop *loop_of_thread;

struct ch_loop *ch_loop_current(void)
{
    return loop_of_thread;
}

void ch_loop_init(struct ch_loop *loop, ch_time (*clock)(void *clock_self), void *clock_self)
{
    *loop = (struct ch_loop){ .clock = clock, .clock_self = clock_self };
    const char *seed = getenv("STRATA_SHUFFLE");
    if (seed)
        loop->shuffle = strtoull(seed, NULL, 0);
    ch_loop_enter(loop);
}

void ch_loop_enter(struct ch_loop *loop)
{
    BASE_ASSERT(!loop_of_thread || !loop_of_thread->current);
    loop_of_thread = loop;
}

void ch_loop_destroy(struct ch_loop *loop)
{
    BASE_ASSERT(loop->live == 0 && loop->current == NULL);
    ch_fiber_pool_free(loop);
    free(loop->ready);
    free(loop->heap);
    if (loop_of_thread == loop)
        loop_of_thread = NULL;
}

ch_time ch_loop_now(struct ch_loop *loop)
{
    return loop->clock(loop->clock_self);
}

/* ---- ready ring ---- */

void ch_loop_make_ready(struct ch_loop *loop, struct ch_fiber *fiber)
{
    if (loop->ready_len == loop->ready_cap) {
        size_t cap = loop->ready_cap ? loop->ready_cap * 2 : 64;
        struct ch_fiber **ring = malloc(cap * sizeof(struct ch_fiber *));
        BASE_ASSERT(ring != NULL);
        for (size_t i = 0; i < loop->ready_len; i++)
            ring[i] = loop->ready[(loop->ready_head + i) & (loop->ready_cap - 1)];
        free(loop->ready);
        loop->ready = ring;
        loop->ready_cap = cap;
        loop->ready_head = 0;
    }
    loop->ready[(loop->ready_head + loop->ready_len++) & (loop->ready_cap - 1)] = fiber;
}

static uint64_t next_shuffle(struct ch_loop *loop)
{
    uint64_t x = loop->shuffle;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return loop->shuffle = x;
}

static struct ch_fiber *take_ready(struct ch_loop *loop, size_t among)
{
    size_t mask = loop->ready_cap - 1;
    if (loop->shuffle && among > 1) {
        size_t a = loop->ready_head & mask,
               b = (loop->ready_head + next_shuffle(loop) % among) & mask;
        struct ch_fiber *other = loop->ready[a];
        loop->ready[a] = loop->ready[b];
        loop->ready[b] = other;
    }
    struct ch_fiber *fiber = loop->ready[loop->ready_head & mask];
    loop->ready_head = (loop->ready_head + 1) & mask;
    loop->ready_len--;
    return fiber;
}

size_t ch_loop_run_ready(struct ch_loop *loop)
{
    size_t batch = loop->ready_len;
    for (size_t left = batch; left > 0; left--) {
        struct ch_fiber *fiber = take_ready(loop, left);
        loop->slice_start = ch_loop_now(loop);
        ch_fiber_enter(loop, fiber);
    }
    return batch;
}

/* ---- timers: a binary heap; pos makes removal O(log n) ---- */

static void heap_place(struct ch_loop *loop, size_t pos, struct ch_timer *timer)
{
    loop->heap[pos - 1] = timer;
    timer->pos = pos;
}

static void heap_up(struct ch_loop *loop, struct ch_timer *timer, size_t pos)
{
    while (pos > 1 && loop->heap[pos / 2 - 1]->deadline > timer->deadline) {
        heap_place(loop, pos, loop->heap[pos / 2 - 1]);
        pos /= 2;
    }
    heap_place(loop, pos, timer);
}

static void heap_down(struct ch_loop *loop, struct ch_timer *timer, size_t pos)
{
    for (;;) {
        size_t child = pos * 2;
        if (child > loop->heap_len)
            break;
        if (child < loop->heap_len && loop->heap[child]->deadline < loop->heap[child - 1]->deadline)
            child++;
        if (loop->heap[child - 1]->deadline >= timer->deadline)
            break;
        heap_place(loop, pos, loop->heap[child - 1]);
        pos = child;
    }
    heap_place(loop, pos, timer);
}

void ch_timer_set(struct ch_timer *timer, ch_time deadline, void (*fire)(struct ch_timer *timer))
{
    struct ch_loop *loop = loop_of_thread;
    ch_timer_clear(timer);
    timer->fire = fire;
    timer->deadline = deadline;
    if (deadline == CH_NEVER)
        return;
    if (loop->heap_len == loop->heap_cap) {
        loop->heap_cap = loop->heap_cap ? loop->heap_cap * 2 : 64;
        loop->heap = realloc(loop->heap, loop->heap_cap * sizeof(struct ch_timer *));
        BASE_ASSERT(loop->heap != NULL);
    }
    loop->heap_len++;
    heap_up(loop, timer, loop->heap_len);
}

void ch_timer_clear(struct ch_timer *timer)
{
    struct ch_loop *loop = loop_of_thread;
    size_t pos = timer->pos;
    if (!pos)
        return;
    BASE_ASSERT(pos <= loop->heap_len && loop->heap[pos - 1] == timer);
    timer->pos = 0;
    struct ch_timer *last = loop->heap[--loop->heap_len];
    if (last == timer)
        return;
    if (pos > 1 && loop->heap[pos / 2 - 1]->deadline > last->deadline)
        heap_up(loop, last, pos);
    else
        heap_down(loop, last, pos);
}

ch_time ch_loop_next_timer(const struct ch_loop *loop)
{
    return loop->heap_len ? loop->heap[0]->deadline : CH_NEVER;
}

void ch_loop_fire(struct ch_loop *loop, ch_time now)
{
    while (loop->heap_len && loop->heap[0]->deadline <= now) {
        struct ch_timer *timer = loop->heap[0];
        ch_timer_clear(timer);
        timer->fire(timer);
    }
}

/* ---- wait nodes ---- */

static void list_append(struct ch_wait_list *list, struct ch_wait_node *node)
{
    node->list = list;
    node->next = NULL;
    node->prev = list->last;
    if (list->last)
        list->last->next = node;
    else
        list->first = node;
    list->last = node;
}

static void list_remove(struct ch_wait_node *node)
{
    struct ch_wait_list *list = node->list;
    if (!list)
        return;
    if (node->prev)
        node->prev->next = node->next;
    else
        list->first = node->next;
    if (node->next)
        node->next->prev = node->prev;
    else
        list->last = node->prev;
    node->list = NULL;
}

void ch_wait_end(struct ch_wait_node *node, enum ch_outcome outcome)
{
    BASE_ASSERT(!node->ended);
    node->ended = true;
    node->outcome = outcome;
    list_remove(node);
    ch_timer_clear(&node->timer);
    BASE_ASSERT(node->fiber->waiting == node);
    node->fiber->waiting = NULL;
    ch_loop_make_ready(loop_of_thread, node->fiber);
}

static void wait_timed_out(struct ch_timer *timer)
{
    struct ch_wait_node *node = (void *)((char *)timer - offsetof(struct ch_wait_node, timer));
    ch_wait_end(node, CH_TIMEOUT);
}

enum ch_outcome ch_wait_on(struct ch_wait_list *list, struct ch_wait_node *node, ch_time deadline,
                           bool always, const char *what)
{
    struct ch_loop *loop = loop_of_thread;
    struct ch_fiber *fiber = loop ? loop->current : NULL;
    BASE_ASSERT(fiber != NULL && fiber->no_wait == 0);
    if (!always && fiber->cancelled)
        return CH_CANCELLED;
    ch_time now = ch_loop_now(loop);
    if (deadline <= now)
        return CH_TIMEOUT;
    node->fiber = fiber;
    node->always = always;
    node->what = what;
    node->since = now;
    node->ended = false;
    if (list)
        list_append(list, node);
    ch_timer_set(&node->timer, deadline, wait_timed_out);
    fiber->waiting = node;
    ch_fiber_leave(loop, fiber);
    BASE_ASSERT(node->ended);
    return node->outcome;
}
