/* chassis/fiber.h: fibers and the gates that own them.
 *
 * A fiber is a function with a small stack of its own (CH_FIBER_STACK bytes and a guard page) that
 * runs on its env's one loop thread; it runs until it waits. Spawning or waking never runs the
 * target at once: it joins the end of the ready queue (FIFO; shuffled from a seed in tests). Every
 * fiber is owned by a gate: to stop a layer, close its gate, cancel what is inside, join it, and
 * only then stop the layer below (fibers.md rule 11). Fibers are never named by pointers that
 * others keep: a finished one's memory is used again. Source: fibers.md; QEMU coroutines, Tarantool
 * fibers, Seastar gate. */
#ifndef CHASSIS_FIBER_H
#define CHASSIS_FIBER_H

#include <stddef.h>

#include "chassis/wait.h"

struct ch_env;
struct ch_context;

enum { CH_FIBER_STACK = 256 * 1024, CH_FIBERS_MAX = 12000 };

typedef void ch_fiber_fn(void *arg);

struct ch_gate {
    struct ch_env *env;
    const char *name;
    struct ch_fiber *fibers; /* intrusive list of those inside */
    size_t inside;
    bool closed, cancelled;
    struct ch_wait_node *joiners;
};

/* `name` is borrowed for the gate's life. Caller's memory. */
void ch_gate_init(struct ch_gate *gate, struct ch_env *env, const char *name);
/* Starts fn(arg) on a new fiber inside the gate, at the end of the ready queue. `name` is borrowed
 * for the fiber's life. UNAVAILABLE when the gate is closed, RESOURCE_EXHAUSTED at CH_FIBERS_MAX.
 * The fiber has no context (deadline, trace) of its spawner; pass CH_INHERIT flags to
 * ch_gate_spawn_in for that. */
struct base_status ch_gate_spawn(struct ch_gate *gate, const char *name, ch_fiber_fn *fn,
                                 void *arg) BASE_MUST_CHECK;
/* The same, and the new fiber works on behalf of the spawner's call: it shares its context (see
 * context.h). */
struct base_status ch_gate_spawn_inherit(struct ch_gate *gate, const char *name, ch_fiber_fn *fn,
                                         void *arg) BASE_MUST_CHECK;
/* No fiber enters any more. */
void ch_gate_close(struct ch_gate *gate);
/* Cancels every fiber inside (and any that enters later): their cancellable waits end with
 * CH_CANCELLED, at once and on. */
void ch_gate_cancel(struct ch_gate *gate);
/* Waits until no fiber is inside; ignores cancellation. Aborts when called from inside the gate. */
void ch_gate_join_always(struct ch_gate *gate) CH_WAITS;
/* close + cancel + join. */
void ch_gate_stop(struct ch_gate *gate) CH_WAITS;

/* ---- of the running fiber ---- */
bool ch_in_fiber(void);
struct ch_env *ch_fiber_env(void);
const char *ch_fiber_name(void);
bool ch_cancelled(void);
/* Lets every ready fiber run once. */
void ch_yield(void) CH_WAITS;
/* For long loops: yields when this fiber has had the loop for a millisecond. */
void ch_yield_if_long(void) CH_WAITS;
/* Free stack bytes below the caller. */
size_t ch_fiber_stack_left(void);

/* Prints every live fiber of the calling thread's loop to stderr: name, gate, what it waits on,
 * since when. */
void ch_fiber_dump(void);

#endif
