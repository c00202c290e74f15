/* sync.c: see sync.h. Each primitive is a wait list plus its state; whoever changes the state ends
 * the right nodes, so a waiter that comes back with CH_OK already has what it asked for (ownership,
 * units, the item): no barging, no lost signal. */
#include "chassis/sync.h"

#include <stdlib.h>

#include "fiber_int.h"

struct base_status ch_outcome_status(enum ch_outcome outcome, const char *what)
{
    switch (outcome) {
    case CH_OK:
        return BASE_STATUS_OK;
    case CH_TIMEOUT:
        return base_status_make(BASE_DEADLINE_EXCEEDED, "%s: deadline exceeded", what);
    case CH_CANCELLED:
        return base_status_make(BASE_CANCELLED, "%s: cancelled", what);
    case CH_CLOSED:
        return base_status_make(BASE_UNAVAILABLE, "%s: closed", what);
    }
    BASE_ASSERT(!"an outcome");
    __builtin_unreachable();
}

/* ---- mutex ---- */

void ch_mutex_init(struct ch_mutex *mutex)
{
    *mutex = (struct ch_mutex){ 0 };
}

bool ch_mutex_try_lock(struct ch_mutex *mutex)
{
    struct ch_fiber *self = ch_fiber_current();
    BASE_ASSERT(self != NULL && mutex->owner != self);
    if (mutex->owner)
        return false;
    mutex->owner = self;
    self->mutexes++;
    return true;
}

static enum ch_outcome mutex_lock(struct ch_mutex *mutex, ch_time deadline, bool always) CH_WAITS
{
    if (!always && ch_cancelled())
        return CH_CANCELLED;
    if (ch_mutex_try_lock(mutex))
        return CH_OK;
    struct ch_wait_node node = { 0 };
    return ch_wait_on(&mutex->waiters, &node, deadline, always, "mutex");
}

enum ch_outcome ch_mutex_lock(struct ch_mutex *mutex, ch_time deadline)
{
    return mutex_lock(mutex, deadline, false);
}

void ch_mutex_lock_always(struct ch_mutex *mutex)
{
    enum ch_outcome outcome = mutex_lock(mutex, CH_NEVER, true);
    BASE_ASSERT(outcome == CH_OK);
}

void ch_mutex_unlock(struct ch_mutex *mutex)
{
    BASE_ASSERT(ch_mutex_held(mutex));
    mutex->owner->mutexes--;
    struct ch_wait_node *next = mutex->waiters.first;
    mutex->owner = next ? next->fiber : NULL;
    if (!next)
        return;
    next->fiber->mutexes++;
    ch_wait_end(next, CH_OK);
}

bool ch_mutex_held(const struct ch_mutex *mutex)
{
    return mutex->owner && mutex->owner == ch_fiber_current();
}

/* ---- condition ---- */

void ch_cond_init(struct ch_cond *cond)
{
    *cond = (struct ch_cond){ 0 };
}

enum ch_outcome ch_cond_wait(struct ch_cond *cond, ch_time deadline)
{
    struct ch_wait_node node = { 0 };
    return ch_wait_on(&cond->waiters, &node, deadline, false, "condition");
}

void ch_cond_wait_always(struct ch_cond *cond)
{
    struct ch_wait_node node = { 0 };
    (void)ch_wait_on(&cond->waiters, &node, CH_NEVER, true, "condition");
}

void ch_cond_signal(struct ch_cond *cond)
{
    if (cond->waiters.first)
        ch_wait_end(cond->waiters.first, CH_OK);
}

static void end_all(struct ch_wait_list *list, enum ch_outcome outcome)
{
    while (list->first)
        ch_wait_end(list->first, outcome);
}

void ch_cond_broadcast(struct ch_cond *cond)
{
    end_all(&cond->waiters, CH_OK);
}

/* ---- done ---- */

void ch_done_init(struct ch_done *done)
{
    *done = (struct ch_done){ 0 };
}

void ch_done_set(struct ch_done *done)
{
    done->set = true;
    end_all(&done->waiters, CH_OK);
}

enum ch_outcome ch_done_wait(struct ch_done *done, ch_time deadline)
{
    struct ch_wait_node node = { 0 };
    if (ch_cancelled())
        return CH_CANCELLED;
    return done->set ? CH_OK : ch_wait_on(&done->waiters, &node, deadline, false, "done");
}

void ch_done_wait_always(struct ch_done *done)
{
    struct ch_wait_node node = { 0 };
    if (!done->set)
        (void)ch_wait_on(&done->waiters, &node, CH_NEVER, true, "done");
}

/* ---- semaphore ---- */

void ch_sem_init(struct ch_sem *sem, size_t units)
{
    *sem = (struct ch_sem){ .units = units };
}

bool ch_sem_try_acquire(struct ch_sem *sem, size_t units)
{
    if (sem->broken || sem->waiters.first || sem->units < units)
        return false;
    sem->units -= units;
    return true;
}

enum ch_outcome ch_sem_acquire(struct ch_sem *sem, size_t units, ch_time deadline)
{
    struct ch_wait_node node = { .units = units };
    if (ch_cancelled())
        return CH_CANCELLED;
    if (sem->broken)
        return CH_CLOSED;
    if (ch_sem_try_acquire(sem, units))
        return CH_OK;
    enum ch_outcome outcome = ch_wait_on(&sem->waiters, &node, deadline, false, "semaphore");
    if (outcome != CH_OK && outcome != CH_CLOSED)
        ch_sem_release(sem, 0); /* one that asked for less may stand behind */
    return outcome;
}

void ch_sem_release(struct ch_sem *sem, size_t units)
{
    sem->units += units;
    while (sem->waiters.first && sem->waiters.first->units <= sem->units) {
        sem->units -= sem->waiters.first->units;
        ch_wait_end(sem->waiters.first, CH_OK);
    }
}

void ch_sem_break(struct ch_sem *sem)
{
    sem->broken = true;
    end_all(&sem->waiters, CH_CLOSED);
}

/* ---- channel ---- */

void ch_chan_init(struct ch_chan *chan, size_t cap)
{
    BASE_ASSERT(cap > 0);
    *chan = (struct ch_chan){ .cap = cap };
    chan->items = calloc(cap, sizeof(void *));
    BASE_ASSERT(chan->items != NULL);
}

void ch_chan_destroy(struct ch_chan *chan)
{
    BASE_ASSERT(chan->len == 0 && !chan->putters.first && !chan->takers.first);
    free(chan->items);
    *chan = (struct ch_chan){ 0 };
}

bool ch_chan_try_put(struct ch_chan *chan, void *item)
{
    BASE_ASSERT(item != NULL);
    if (chan->closed)
        return false;
    if (chan->takers.first) {
        chan->takers.first->item = item;
        ch_wait_end(chan->takers.first, CH_OK);
        return true;
    }
    if (chan->len == chan->cap)
        return false;
    chan->items[(chan->head + chan->len++) % chan->cap] = item;
    return true;
}

enum ch_outcome ch_chan_put(struct ch_chan *chan, void *item, ch_time deadline)
{
    struct ch_wait_node node = { .item = item };
    if (ch_cancelled())
        return CH_CANCELLED;
    if (chan->closed)
        return CH_CLOSED;
    if (ch_chan_try_put(chan, item))
        return CH_OK;
    return ch_wait_on(&chan->putters, &node, deadline, false, "channel put");
}

bool ch_chan_try_take(struct ch_chan *chan, void **item)
{
    if (chan->len == 0)
        return false;
    *item = chan->items[chan->head];
    chan->head = (chan->head + 1) % chan->cap;
    chan->len--;
    if (chan->putters.first && !chan->closed) {
        chan->items[(chan->head + chan->len++) % chan->cap] = chan->putters.first->item;
        ch_wait_end(chan->putters.first, CH_OK);
    }
    return true;
}

enum ch_outcome ch_chan_take(struct ch_chan *chan, void **item, ch_time deadline)
{
    struct ch_wait_node node = { 0 };
    if (ch_cancelled())
        return CH_CANCELLED;
    if (ch_chan_try_take(chan, item))
        return CH_OK;
    if (chan->closed)
        return CH_CLOSED;
    enum ch_outcome outcome = ch_wait_on(&chan->takers, &node, deadline, false, "channel take");
    if (outcome == CH_OK)
        *item = node.item;
    return outcome;
}

void ch_chan_close(struct ch_chan *chan)
{
    chan->closed = true;
    end_all(&chan->putters, CH_CLOSED);
    end_all(&chan->takers, CH_CLOSED);
}

/* ---- gather ---- */

void ch_gather_init(struct ch_gather *gather, const char *name)
{
    ch_gate_init(&gather->gate, ch_fiber_env(), name);
}

void ch_gather_add(struct ch_gather *gather, ch_fiber_fn *fn, void *arg)
{
    struct base_status status = ch_gate_spawn_inherit(&gather->gate, gather->gate.name, fn, arg);
    if (base_status_drop(status) != BASE_OK)
        fn(arg);
}

void ch_gather_wait(struct ch_gather *gather)
{
    if (ch__gate_join(&gather->gate, false) == CH_OK)
        return;
    ch_gate_cancel(&gather->gate);
    ch_gate_join_always(&gather->gate);
}
