/* loop.h (private to chassis): the one loop of a thread: ready fibers, timers, and how a fiber is
 * parked and made ready.
 *
 * A driver turns it: env_real.c around gRPC's completion queue, sim.c around virtual time.
 * Everything here runs on the loop's thread. Invariants:
 *  1. A fiber is running, ready (exactly once in the ready ring) or parked on exactly one wait
 * node.
 *  2. A wait node's outcome is written once, by ch_wait_end; from then on it is in no list and has
 * no timer.
 *  3. Making ready never switches; only ch_loop_run_ready enters fibers, and only from the loop's
 * own stack. */
#ifndef CHASSIS_LOOP_H
#define CHASSIS_LOOP_H

#include "chassis/context.h"
#include "chassis/fiber.h"
#include "chassis/sync.h"

struct ch_timer {
    ch_time deadline;
    size_t pos; /* 1-based in the heap; 0: not set */
    void (*fire)(struct ch_timer *timer);
};

struct ch_wait_node {
    struct ch_wait_node *next, *prev;
    struct ch_wait_list *list;
    struct ch_fiber *fiber;
    struct ch_timer timer;
    enum ch_outcome outcome;
    bool ended, always;
    size_t units;     /* semaphore: asked for */
    void *item;       /* channel: given or taken */
    const char *what; /* for dumps; borrowed literal */
    ch_time since;
};

struct ch_fiber {
    void *fcontext; /* where it goes on */
    void *stack;    /* lowest usable byte */
    ch_fiber_fn *fn;
    void *arg;
    const char *name;
    struct ch_env *env;
    struct ch_gate *gate;
    struct ch_fiber *gate_next, *gate_prev;
    struct ch_fiber *all_next, *all_prev; /* live list; all_next links the pool */
    struct ch_context *context;
    struct ch_wait_node *waiting; /* NULL: running or ready */
    bool cancelled, finished;
    uint32_t no_wait;  /* depth of no-wait sections */
    uint32_t mutexes;  /* held; asserted 0 at the end */
    uint64_t *busy_ns; /* when set: the time it has the loop is added there */
    void *fake_stack;  /* ASan */
    void *tsan;
};

struct ch_loop {
    struct ch_fiber **ready; /* ring */
    size_t ready_cap, ready_len, ready_head;
    struct ch_fiber *current;
    void *main_context;
    struct ch_timer **heap;
    size_t heap_len, heap_cap;
    struct ch_fiber *pool, *all;
    size_t pooled, live;
    uint64_t shuffle; /* xorshift state; 0: FIFO */
    uint64_t switches;
    ch_time slice_start;
    ch_time (*clock)(void *clock_self);
    void *clock_self;
    void *main_fake_stack; /* ASan */
    const void *main_stack;
    size_t main_stack_size;
    void *main_tsan;
};

/* The calling thread's; NULL outside. */
struct ch_loop *ch_loop_current(void);
/* Makes it the thread's. `clock` is its now. STRATA_SHUFFLE=seed in the environment shuffles its
 * ready ring. */
void ch_loop_init(struct ch_loop *loop, ch_time (*clock)(void *clock_self), void *clock_self);
/* No fiber may be live. */
void ch_loop_destroy(struct ch_loop *loop);
void ch_loop_enter(
    struct ch_loop *loop); /* makes it current again (several simulated worlds in turn) */
ch_time ch_loop_now(struct ch_loop *loop);

/* Runs the fibers that are ready now, each until it waits; those made ready meanwhile are left for
 * the next call. Returns how many ran. */
size_t ch_loop_run_ready(struct ch_loop *loop);
/* The next timer's deadline, CH_NEVER without one. */
ch_time ch_loop_next_timer(const struct ch_loop *loop);
/* Fires all timers due at `now`. */
void ch_loop_fire(struct ch_loop *loop, ch_time now);

void ch_timer_set(struct ch_timer *timer, ch_time deadline, void (*fire)(struct ch_timer *timer));
void ch_timer_clear(struct ch_timer *timer);

/* Parks the running fiber on a zeroed node (in `list`, at its end, unless NULL) until someone ends
 * the node, the deadline passes or (unless `always`) it is cancelled. Returns the outcome. */
enum ch_outcome ch_wait_on(struct ch_wait_list *list, struct ch_wait_node *node, ch_time deadline,
                           bool always, const char *what) CH_WAITS;
/* Ends a wait: takes the node off its list and timer, writes the outcome, makes its fiber ready. */
void ch_wait_end(struct ch_wait_node *node, enum ch_outcome outcome);

/* For env drivers: spawns into a gate with an explicit env, from outside fibers too. */
struct base_status ch_fiber_start(struct ch_gate *gate, const char *name, ch_fiber_fn *fn,
                                  void *arg, struct ch_context *context) BASE_MUST_CHECK;
struct ch_fiber *ch_fiber_current(void);
void ch_fiber_cancel(struct ch_fiber *fiber);

/* Contexts are counted: fibers share them. */
struct ch_context *ch_context_new(void);
struct ch_context *ch_context_ref(struct ch_context *context);
void ch_context_unref(struct ch_context *context);
/* Replaces the running fiber's context (takes the reference given). */
void ch_context_set(struct ch_context *context);

#endif
