/* fiber.c: fibers, their stacks and gates. Switching is Boost.Context's fcontext (11 ns;
 * swapcontext is 35 times slower, it makes a system call for the signal mask). A stack is
 * CH_FIBER_STACK bytes of address space with a guard page below; finished fibers go to a pool and
 * only touched pages cost memory.
 *
 * Happy path: ch_fiber_start takes a fiber from the pool, puts it in its gate and the ready ring;
 * ch_fiber_enter jumps to it; it waits by ch_fiber_leave; at its end it jumps out a last time, and
 * the loop puts it back into the pool. Failure: a failed guard page or mmap is RESOURCE_EXHAUSTED;
 * a stack overflow hits the guard page and ends the process. */
#include "fiber_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "env_int.h"

#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define FIBER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FIBER_TSAN 1
#endif
#endif

#ifdef FIBER_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef FIBER_TSAN
void *__tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void *fiber);
void *__tsan_get_current_fiber(void);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
#endif

/* The C interface of Boost.Context, whose own header is C++ only. */
struct transfer {
    void *from, *data;
};
struct transfer jump_fcontext(void *to, void *data);
void *make_fcontext(void *stack_top, size_t size, void (*fn)(struct transfer transfer));

enum { GUARD_BYTES = 4096, POOL_MAX = 256 };

#if defined(__clang__)
struct ch_may_wait_capability ch_may_wait;
#endif

/* ---- switching ---- */

static void fiber_body(struct transfer transfer);

static void switch_begin(void **save, const void *bottom, size_t size, void *tsan)
{
#ifdef FIBER_ASAN
    __sanitizer_start_switch_fiber(save, bottom, size);
#endif
#ifdef FIBER_TSAN
    __tsan_switch_to_fiber(tsan, 0);
#endif
    (void)save, (void)bottom, (void)size, (void)tsan;
}

static void switch_end(void *saved, const void **bottom, size_t *size)
{
#ifdef FIBER_ASAN
    __sanitizer_finish_switch_fiber(saved, bottom, size);
#endif
    (void)saved, (void)bottom, (void)size;
}

static void give_back(struct ch_loop *loop, struct ch_fiber *fiber);

void ch_fiber_enter(struct ch_loop *loop, struct ch_fiber *fiber)
{
    BASE_ASSERT(loop->current == NULL && fiber->waiting == NULL);
    loop->current = fiber;
    loop->switches++;
#ifdef FIBER_TSAN
    loop->main_tsan = __tsan_get_current_fiber();
#endif
    switch_begin(&loop->main_fake_stack, fiber->stack, CH_FIBER_STACK, fiber->tsan);
    struct transfer back = jump_fcontext(fiber->fcontext, fiber);
    switch_end(loop->main_fake_stack, NULL, NULL);
    fiber->fcontext = back.from;
    loop->current = NULL;
    if (fiber->finished)
        give_back(loop, fiber);
}

void ch_fiber_leave(struct ch_loop *loop, struct ch_fiber *fiber)
{
    if (fiber->busy_ns)
        *fiber->busy_ns += (uint64_t)(ch_loop_now(loop) - loop->slice_start);
    switch_begin(fiber->finished ? NULL : &fiber->fake_stack, loop->main_stack,
                 loop->main_stack_size, loop->main_tsan);
    struct transfer back = jump_fcontext(loop->main_context, NULL);
    loop = ch_loop_current();
    switch_end(fiber->fake_stack, &loop->main_stack, &loop->main_stack_size);
    loop->main_context = back.from;
}

/* ---- gates ---- */

static void gate_enter(struct ch_gate *gate, struct ch_fiber *fiber)
{
    fiber->gate = gate;
    fiber->gate_prev = NULL;
    fiber->gate_next = gate->fibers;
    if (gate->fibers)
        gate->fibers->gate_prev = fiber;
    gate->fibers = fiber;
    gate->inside++;
    fiber->cancelled = gate->cancelled;
}

static void gate_leave(struct ch_gate *gate, struct ch_fiber *fiber)
{
    if (fiber->gate_prev)
        fiber->gate_prev->gate_next = fiber->gate_next;
    else
        gate->fibers = fiber->gate_next;
    if (fiber->gate_next)
        fiber->gate_next->gate_prev = fiber->gate_prev;
    if (--gate->inside > 0)
        return;
    while (gate->joiners) {
        struct ch_wait_node *joiner = gate->joiners;
        gate->joiners = joiner->item;
        if (!joiner->ended)
            ch_wait_end(joiner, CH_OK);
    }
}

void ch_gate_init(struct ch_gate *gate, struct ch_env *env, const char *name)
{
    *gate = (struct ch_gate){ .env = env, .name = name };
}

void ch_gate_close(struct ch_gate *gate)
{
    gate->closed = true;
}

void ch_fiber_cancel(struct ch_fiber *fiber)
{
    fiber->cancelled = true;
    if (fiber->waiting && !fiber->waiting->always)
        ch_wait_end(fiber->waiting, CH_CANCELLED);
}

void ch_gate_cancel(struct ch_gate *gate)
{
    gate->cancelled = true;
    for (struct ch_fiber *fiber = gate->fibers; fiber; fiber = fiber->gate_next)
        ch_fiber_cancel(fiber);
}

static void unlink_joiner(struct ch_gate *gate, struct ch_wait_node *node)
{
    for (struct ch_wait_node **at = &gate->joiners; *at; at = (struct ch_wait_node **)&(*at)->item)
        if (*at == node) {
            *at = node->item;
            return;
        }
}

enum ch_outcome ch__gate_join(struct ch_gate *gate, bool always)
{
    struct ch_fiber *self = ch_fiber_current();
    BASE_ASSERT(self != NULL &&
                self->gate != gate); /* a join from inside would never end (fibers.md trap 7) */
    while (gate->inside > 0) {
        struct ch_wait_node node = { .item = gate->joiners };
        gate->joiners = &node;
        enum ch_outcome outcome = ch_wait_on(NULL, &node, CH_NEVER, always, gate->name);
        if (outcome != CH_OK) {
            unlink_joiner(gate, &node);
            return outcome;
        }
    }
    return CH_OK;
}

void ch_gate_join_always(struct ch_gate *gate)
{
    (void)ch__gate_join(gate, true);
}

void ch_gate_stop(struct ch_gate *gate)
{
    ch_gate_close(gate);
    ch_gate_cancel(gate);
    ch_gate_join_always(gate);
}

/* ---- birth and end ---- */

static struct ch_fiber *take_fiber(struct ch_loop *loop)
{
    struct ch_fiber *fiber = loop->pool;
    if (fiber) {
        loop->pool = fiber->all_next;
        loop->pooled--;
        return fiber;
    }
    char *map = mmap(NULL, CH_FIBER_STACK + GUARD_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return NULL;
    if (mprotect(map, GUARD_BYTES, PROT_NONE) != 0) { /* vm.max_map_count */
        munmap(map, CH_FIBER_STACK + GUARD_BYTES);
        return NULL;
    }
    fiber = calloc(1, sizeof(*fiber));
    BASE_ASSERT(fiber != NULL);
    fiber->stack = map + GUARD_BYTES;
    return fiber;
}

static void free_fiber(struct ch_fiber *fiber)
{
    munmap((char *)fiber->stack - GUARD_BYTES, CH_FIBER_STACK + GUARD_BYTES);
    free(fiber);
}

static void give_back(struct ch_loop *loop, struct ch_fiber *fiber)
{
    if (fiber->all_prev)
        fiber->all_prev->all_next = fiber->all_next;
    else
        loop->all = fiber->all_next;
    if (fiber->all_next)
        fiber->all_next->all_prev = fiber->all_prev;
    loop->live--;
#ifdef FIBER_TSAN
    __tsan_destroy_fiber(fiber->tsan);
#endif
#ifdef FIBER_ASAN
    __asan_unpoison_memory_region(fiber->stack, CH_FIBER_STACK);
#endif
    if (loop->pooled >= POOL_MAX) {
        free_fiber(fiber);
        return;
    }
    fiber->all_next = loop->pool;
    loop->pool = fiber;
    loop->pooled++;
}

void ch_fiber_pool_free(struct ch_loop *loop)
{
    while (loop->pool) {
        struct ch_fiber *fiber = loop->pool;
        loop->pool = fiber->all_next;
        free_fiber(fiber);
    }
    loop->pooled = 0;
}

static void fiber_body(struct transfer transfer)
{
    struct ch_fiber *fiber = transfer.data;
    struct ch_loop *loop = ch_loop_current();
    switch_end(NULL, &loop->main_stack, &loop->main_stack_size);
    loop->main_context = transfer.from;
    fiber->fn(fiber->arg);
    BASE_ASSERT(fiber->mutexes == 0 && fiber->no_wait == 0);
    ch_context_unref(fiber->context);
    fiber->context = NULL;
    gate_leave(fiber->gate, fiber);
    fiber->finished = true;
    ch_fiber_leave(loop, fiber);
    __builtin_unreachable();
}

struct base_status ch_fiber_start(struct ch_gate *gate, const char *name, ch_fiber_fn *fn,
                                  void *arg, struct ch_context *context)
{
    struct ch_loop *loop = gate->env->loop;
    if (gate->closed)
        return base_status_make(BASE_UNAVAILABLE, "gate %s is closed", gate->name);
    if (loop->live >= CH_FIBERS_MAX)
        return base_status_make(BASE_RESOURCE_EXHAUSTED, "%d fibers are live", CH_FIBERS_MAX);
    struct ch_fiber *fiber = take_fiber(loop);
    if (!fiber)
        return base_status_make(BASE_RESOURCE_EXHAUSTED, "no memory for a fiber's stack");
    void *stack = fiber->stack;
    *fiber =
        (struct ch_fiber){ .stack = stack, .fn = fn, .arg = arg, .name = name, .env = gate->env };
    fiber->fcontext = make_fcontext((char *)stack + CH_FIBER_STACK, CH_FIBER_STACK, fiber_body);
    fiber->context = context ? ch_context_ref(context) : NULL;
#ifdef FIBER_TSAN
    fiber->tsan = __tsan_create_fiber(0);
#endif
    fiber->all_next = loop->all;
    if (loop->all)
        loop->all->all_prev = fiber;
    loop->all = fiber;
    loop->live++;
    gate_enter(gate, fiber);
    ch_loop_make_ready(loop, fiber);
    return BASE_STATUS_OK;
}

struct base_status ch_gate_spawn(struct ch_gate *gate, const char *name, ch_fiber_fn *fn, void *arg)
{
    return ch_fiber_start(gate, name, fn, arg, NULL);
}

struct base_status ch_gate_spawn_inherit(struct ch_gate *gate, const char *name, ch_fiber_fn *fn,
                                         void *arg)
{
    return ch_fiber_start(gate, name, fn, arg, ch_context_current());
}

/* ---- of the running fiber ---- */

struct ch_fiber *ch_fiber_current(void)
{
    struct ch_loop *loop = ch_loop_current();
    return loop ? loop->current : NULL;
}

static struct ch_fiber *running(void)
{
    struct ch_fiber *fiber = ch_fiber_current();
    BASE_ASSERT(fiber != NULL);
    return fiber;
}

bool ch_in_fiber(void)
{
    return ch_fiber_current() != NULL;
}

struct ch_env *ch_fiber_env(void)
{
    return running()->env;
}

const char *ch_fiber_name(void)
{
    struct ch_fiber *fiber = ch_fiber_current();
    return fiber ? fiber->name : "-";
}

bool ch_cancelled(void)
{
    struct ch_fiber *fiber = ch_fiber_current();
    return fiber && fiber->cancelled;
}

void ch_yield(void)
{
    struct ch_fiber *fiber = running();
    struct ch_loop *loop = ch_loop_current();
    BASE_ASSERT(fiber->no_wait == 0);
    ch_loop_make_ready(loop, fiber);
    ch_fiber_leave(loop, fiber);
}

void ch_yield_if_long(void)
{
    struct ch_loop *loop = ch_loop_current();
    if (ch_loop_now(loop) - loop->slice_start >= CH_MS)
        ch_yield();
}

size_t ch_fiber_stack_left(void)
{
    char here;
    return (size_t)(&here - (char *)running()->stack);
}

void ch_no_wait_enter(void)
{
    running()->no_wait++;
}

void ch_no_wait_leave(void)
{
    BASE_ASSERT(running()->no_wait > 0);
    running()->no_wait--;
}

void ch_fiber_dump(void)
{
    struct ch_loop *loop = ch_loop_current();
    ch_time now = ch_loop_now(loop);
    for (struct ch_fiber *fiber = loop->all; fiber; fiber = fiber->all_next) {
        struct ch_wait_node *node = fiber->waiting;
        fprintf(stderr, "fiber %s (gate %s)%s: %s", fiber->name, fiber->gate->name,
                fiber->cancelled ? " cancelled" : "",
                node                     ? node->what
                : fiber == loop->current ? "running"
                                         : "ready");
        if (node)
            fprintf(stderr, " for %.3f ms%s", (double)(now - node->since) / 1e6,
                    node->always ? ", ignoring cancellation" : "");
        fputc('\n', stderr);
    }
}
