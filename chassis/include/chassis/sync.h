/* chassis/sync.h: what fibers of one loop wait on. All are caller's memory, zero cost to init,
 * FIFO, without barging; none is for use between threads. A wait's outcome is written once, by the
 * side that ends it, so a signal is never lost to a timeout in the same turn (fibers.md rule 3).
 * Destroying one that has waiters aborts. */
#ifndef CHASSIS_SYNC_H
#define CHASSIS_SYNC_H

#include "chassis/fiber.h"

struct ch_wait_node;
struct ch_wait_list {
    struct ch_wait_node *first, *last;
};

/* ---- mutex: ownership is handed to the first waiter on unlock. Hold it across a wait only when
 * short. ---- */
struct ch_mutex {
    struct ch_fiber *owner;
    struct ch_wait_list waiters;
};
void ch_mutex_init(struct ch_mutex *mutex);
enum ch_outcome ch_mutex_lock(struct ch_mutex *mutex, ch_time deadline) CH_WAITS BASE_MUST_CHECK;
void ch_mutex_lock_always(struct ch_mutex *mutex) CH_WAITS; /* no deadline, ignores cancellation */
bool ch_mutex_try_lock(struct ch_mutex *mutex) BASE_MUST_CHECK;
void ch_mutex_unlock(struct ch_mutex *mutex);
bool ch_mutex_held(const struct ch_mutex *mutex); /* by this fiber */

/* ---- condition: a place to wait for "something changed"; loop on your predicate. No mutex: state
 * is only changed by fibers of this loop, between waits. ---- */
struct ch_cond {
    struct ch_wait_list waiters;
};
void ch_cond_init(struct ch_cond *cond);
enum ch_outcome ch_cond_wait(struct ch_cond *cond, ch_time deadline) CH_WAITS BASE_MUST_CHECK;
void ch_cond_wait_always(struct ch_cond *cond) CH_WAITS;
void ch_cond_signal(struct ch_cond *cond);
void ch_cond_broadcast(struct ch_cond *cond);

/* ---- done: one completion, set once, waited for by any number. ---- */
struct ch_done {
    bool set;
    struct ch_wait_list waiters;
};
void ch_done_init(struct ch_done *done);
void ch_done_set(struct ch_done *done);
enum ch_outcome ch_done_wait(struct ch_done *done, ch_time deadline) CH_WAITS BASE_MUST_CHECK;
void ch_done_wait_always(struct ch_done *done) CH_WAITS;

/* ---- semaphore: units; waiters are served in order, a large request is not overtaken. ---- */
struct ch_sem {
    size_t units;
    bool broken;
    struct ch_wait_list waiters;
};
void ch_sem_init(struct ch_sem *sem, size_t units);
enum ch_outcome ch_sem_acquire(struct ch_sem *sem, size_t units,
                               ch_time deadline) CH_WAITS BASE_MUST_CHECK;
bool ch_sem_try_acquire(struct ch_sem *sem, size_t units) BASE_MUST_CHECK;
void ch_sem_release(struct ch_sem *sem, size_t units);
void ch_sem_break(struct ch_sem *sem); /* every waiter, now and later, gets CH_CLOSED */

/* ---- channel: a bounded queue of pointers (never NULL). After close no put succeeds; takes drain
 * what is in it, then get CH_CLOSED. ---- */
struct ch_chan {
    void **items; /* ring, owned */
    size_t cap, len, head;
    bool closed;
    struct ch_wait_list putters, takers;
};
void ch_chan_init(struct ch_chan *chan, size_t cap);
void ch_chan_destroy(struct ch_chan *chan); /* must be empty */
enum ch_outcome ch_chan_put(struct ch_chan *chan, void *item,
                            ch_time deadline) CH_WAITS BASE_MUST_CHECK;
bool ch_chan_try_put(struct ch_chan *chan, void *item) BASE_MUST_CHECK; /* false: full or closed */
enum ch_outcome ch_chan_take(struct ch_chan *chan, void **item,
                             ch_time deadline) CH_WAITS BASE_MUST_CHECK;
bool ch_chan_try_take(struct ch_chan *chan, void **item) BASE_MUST_CHECK;
void ch_chan_close(struct ch_chan *chan);

/* ---- gather: run functions side by side on fibers of their own, wait for all; their context is
 * the caller's. ---- */
struct ch_gather {
    struct ch_gate gate;
};
void ch_gather_init(struct ch_gather *gather, const char *name);
/* Runs fn(arg) inline when no fiber can be had. `arg` must live until ch_gather_wait returns. */
void ch_gather_add(struct ch_gather *gather, ch_fiber_fn *fn, void *arg) CH_WAITS;
/* Waits for all. When the caller is cancelled meanwhile, cancels them, and waits on for them to
 * end. */
void ch_gather_wait(struct ch_gather *gather) CH_WAITS;

#endif
