/* naming_lock.c: locks (see naming.h).
 *
 * 1. A lock is held while it was granted under the session of now and that session is sure to
 *    live; once not, never again.
 * 2. In one naming client a path has at most one lock that is being acquired, held, released or
 *    undone: the server takes the session as the owner and would answer a second acquirer of it
 *    with the same epoch.
 * 3. A path is free for the next acquire only when the master is known to have the lock back: the
 *    session would get the same epoch again, and an epoch must fence what was written before. An
 *    acquire that ended without knowing (deadline, cancel) may still have been granted: it is
 *    undone in the background before the path is free for another acquire, else a live session
 *    would sit on a lock that nobody holds.
 * 4. Releasing and undoing run on fibers that a cancellation of their caller does not touch. */
#include "naming_int.h"

#include <stdlib.h>

enum state { ACQUIRING, HELD, ENDING, LOST };

struct ch_lock {
    struct ch_naming *naming; /* NULL: it was freed */
    struct ch_lock *next, *prev;
    char *path;
    struct base_buf value;
    uint64_t session, epoch;
    enum state state;
    struct ch_cond changed;
    struct ch_done released; /* or tried once */
    bool forgotten;          /* the farewell's fiber frees it */
};

static struct ch_lock *lock_new(struct ch_naming *naming, const char *path, struct base_bytes value)
{
    struct ch_lock *lock = calloc(1, sizeof(*lock));
    BASE_ASSERT(lock);
    lock->naming = naming;
    lock->path = strdup(path);
    BASE_ASSERT(lock->path);
    base_buf_put_bytes(&lock->value, value);
    ch_cond_init(&lock->changed);
    ch_done_init(&lock->released);
    lock->next = naming->locks;
    if (naming->locks)
        naming->locks->prev = lock;
    naming->locks = lock;
    return lock;
}

static void lock_destroy(struct ch_lock *lock)
{
    struct ch_naming *naming = lock->naming;
    if (naming) {
        if (lock->prev)
            lock->prev->next = lock->next;
        else
            naming->locks = lock->next;
        if (lock->next)
            lock->next->prev = lock->prev;
        ch_cond_broadcast(&naming->changed);
    }
    base_buf_free(&lock->value);
    free(lock->path);
    free(lock);
}

void ch__locks_lost(struct ch_naming *naming, uint64_t session)
{
    for (struct ch_lock *lock = naming->locks; lock; lock = lock->next)
        if (lock->state == HELD && lock->session == session) {
            lock->state = LOST;
            ch_cond_broadcast(&lock->changed);
        }
}

void ch__locks_orphan(struct ch_naming *naming)
{
    while (naming->locks) {
        struct ch_lock *lock = naming->locks;
        naming->locks = lock->next;
        lock->next = lock->prev = NULL;
        lock->naming = NULL;
        lock->state = LOST;
        ch_cond_broadcast(&lock->changed);
    }
}

/* ---- acquire ---- */

static bool path_busy(const struct ch_naming *naming, const char *path)
{
    for (const struct ch_lock *lock = naming->locks; lock; lock = lock->next)
        if (lock->state != LOST && strcmp(lock->path, path) == 0)
            return true;
    return false;
}

static struct base_status acquire_call(struct ch_lock *lock, uint64_t session, uint32_t attempt_ms,
                                       ch_time deadline, uint64_t *epoch) CH_WAITS;
static struct base_status acquire_call(struct ch_lock *lock, uint64_t session, uint32_t attempt_ms,
                                       ch_time deadline, uint64_t *epoch)
{
    CH__PB(AcquireRequest) request = STRATA__CLUSTERMGR__V1__ACQUIRE_REQUEST__INIT;
    struct base_arena arena = { 0 };
    void *reply;
    request.session = session;
    request.path = ch_data_str(lock->path);
    request.value = ch_data_of(base_buf_bytes(&lock->value));
    struct base_status status = ch__naming_call(lock->naming, CH__NAMES(ACQUIRE), &request, true,
                                                attempt_ms, deadline, &arena, &reply, NULL);
    if (!base_failed(status))
        *epoch = ((const CH__PB(AcquireReply) *)reply)->epoch;
    base_arena_free(&arena);
    return status;
}

/* ---- farewells: a lock given back, or the undoing of an acquire that nobody waits for ---- */

static struct base_status release_call(struct ch_lock *lock) CH_WAITS;
static struct base_status release_call(struct ch_lock *lock)
{
    CH__PB(ReleaseRequest) request = STRATA__CLUSTERMGR__V1__RELEASE_REQUEST__INIT;
    struct base_arena arena = { 0 };
    void *reply;
    request.session = lock->session;
    request.path = ch_data_str(lock->path);
    request.epoch = lock->epoch;
    struct base_status status =
        ch__naming_call(lock->naming, CH__NAMES(RELEASE), &request, true, CH__FAREWELL_MS / 2,
                        ch_in(lock->naming->env, CH__FAREWELL_MS * CH_MS), &arena, &reply, NULL);
    base_arena_free(&arena);
    return status;
}

/* Whether our session holds it after all, and under which epoch. The question travels after the
 * acquire and its cancellation: what it shows is final. */
static struct base_status granted_look(struct ch_lock *lock, bool *granted) CH_WAITS;
static struct base_status granted_look(struct ch_lock *lock, bool *granted)
{
    CH__PB(ListRequest) request = STRATA__CLUSTERMGR__V1__LIST_REQUEST__INIT;
    struct base_arena arena = { 0 };
    void *reply;
    request.prefix = ch_data_str(lock->path);
    struct base_status status =
        ch__naming_call(lock->naming, CH__NAMES(LIST), &request, true, CH__FAREWELL_MS / 2,
                        ch_in(lock->naming->env, CH__FAREWELL_MS * CH_MS), &arena, &reply, NULL);
    const CH__PB(ListReply) *list = base_failed(status) ? NULL : reply;
    *granted = false;
    for (size_t i = 0; list && i < list->n_nodes; i++) {
        const CH__PB(Node) *node = list->nodes[i];
        if (!base_bytes_eq_str(ch_bytes_of(node->path), lock->path))
            continue;
        *granted = node->lock_session == lock->session;
        lock->epoch = node->lock_epoch;
    }
    base_arena_free(&arena);
    return status;
}

/* Until the master is known to have it back, or the session is over, which has the same end. Who
 * waits for it waits for the first try only. */
static void farewell_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_lock *lock = arg;
    struct ch_naming *naming = lock->naming;
    bool known = false;
    while (!known && !naming->closed && naming->session == lock->session) {
        struct base_status status = BASE_STATUS_OK;
        bool granted = true;
        if (lock->epoch == 0)
            status = granted_look(lock, &granted);
        if (!base_failed(status) && granted)
            status = release_call(lock);
        enum base_code code = base_status_drop(status);
        known = code != BASE_UNAVAILABLE && code != BASE_DEADLINE_EXCEEDED;
        if (!lock->released.set)
            ch_done_set(&lock->released);
    }
    if (!lock->released.set)
        ch_done_set(&lock->released);
    lock->state = LOST;
    if (lock->forgotten)
        lock_destroy(lock);
    else
        ch_cond_broadcast(&naming->changed); /* the path is free */
}

/* The acquire has failed; takes the lock. */
static void acquire_undo(struct ch_lock *lock, enum base_code code)
{
    struct ch_naming *naming = lock->naming;
    bool unknown =
        code == BASE_DEADLINE_EXCEEDED || code == BASE_UNAVAILABLE || code == BASE_CANCELLED;
    if (unknown && lock->session && lock->session == naming->session) {
        lock->state = ENDING;
        lock->forgotten = true;
        lock->epoch = 0;
        struct base_status status =
            ch_gate_spawn(&naming->farewells, "naming undo", farewell_fiber, lock);
        if (!base_failed(status))
            return;
        base_status_free(&status);
    }
    lock_destroy(lock);
}

/* Asks under the session of now; a session that ends meanwhile is followed by another. */
static struct base_status acquire(struct ch_lock *lock, ch_time deadline) CH_WAITS;
static struct base_status acquire(struct ch_lock *lock, ch_time deadline)
{
    struct ch_naming *naming = lock->naming;
    for (;;) {
        struct base_status status = ch__session_get(naming, deadline, &lock->session);
        if (!base_failed(status))
            status =
                acquire_call(lock, lock->session, CH__ACQUIRE_ATTEMPT_MS, deadline, &lock->epoch);
        bool ended = status.code == BASE_NOT_FOUND;
        if (ended)
            ch__session_gone(naming, lock->session);
        else if (base_failed(status) ||
                 (naming->session == lock->session && ch_now(naming->env) < naming->session_until))
            return status;
        base_status_free(&status);
        if (ch_now(naming->env) >= ch_context_deadline(deadline))
            return base_status_make(BASE_DEADLINE_EXCEEDED, "the session ended while waiting");
        if (ch_cancelled())
            return base_status_make(BASE_CANCELLED, "cancelled");
    }
}

struct base_status ch_lock_acquire(struct ch_naming *naming, const char *path,
                                   struct base_bytes value, ch_time deadline, struct ch_lock **out)
{
    *out = NULL;
    while (path_busy(naming, path)) {
        enum ch_outcome outcome = ch_cond_wait(&naming->changed, ch_context_deadline(deadline));
        if (outcome != CH_OK)
            return base_status_wrap(
                ch_outcome_status(outcome, "another fiber of this process has it"), "lock %s",
                path);
    }
    struct ch_lock *lock = lock_new(naming, path, value);
    struct base_status status = acquire(lock, deadline);
    if (base_failed(status)) {
        status = base_status_wrap(status, "lock %s", path);
        acquire_undo(lock, status.code);
        return status;
    }
    lock->state = HELD;
    *out = lock;
    return BASE_STATUS_OK;
}

/* ---- a lock that was acquired ---- */

uint64_t ch_lock_epoch(const struct ch_lock *lock)
{
    return lock->epoch;
}

ch_time ch_lock_valid_until(const struct ch_lock *lock)
{
    return lock->state == HELD && lock->session == lock->naming->session
               ? lock->naming->session_until
               : 0;
}

bool ch_lock_held(const struct ch_lock *lock)
{
    return lock->state == HELD && ch_now(lock->naming->env) < ch_lock_valid_until(lock);
}

enum ch_outcome ch_lock_wait_lost(struct ch_lock *lock, ch_time deadline)
{
    for (;;) {
        if (!ch_lock_held(lock))
            return CH_CLOSED;
        ch_time until = ch_lock_valid_until(lock), now = ch_now(lock->naming->env);
        if (now >= deadline)
            return CH_TIMEOUT;
        enum ch_outcome outcome = ch_cond_wait(&lock->changed, until < deadline ? until : deadline);
        if (outcome == CH_CANCELLED)
            return outcome;
    }
}

void ch_lock_free(struct ch_lock *lock)
{
    if (!lock)
        return;
    if (lock->naming && ch_lock_held(lock)) {
        lock->state = ENDING;
        ch_cond_broadcast(&lock->changed);
        struct base_status status =
            ch_gate_spawn(&lock->naming->farewells, "naming release", farewell_fiber, lock);
        if (base_failed(status))
            base_status_free(&status); /* the session's end releases it */
        else
            ch_done_wait_always(&lock->released);
        if (lock->state == ENDING && lock->released.set) {
            lock->forgotten = true; /* the fiber goes on trying */
            return;
        }
    }
    lock_destroy(lock);
}

struct base_status ch_lock_break(struct ch_naming *naming, const char *path, bool erase,
                                 ch_time deadline, uint64_t *epoch)
{
    CH__PB(BreakRequest) request = STRATA__CLUSTERMGR__V1__BREAK_REQUEST__INIT;
    struct base_arena arena = { 0 };
    void *reply;
    request.path = ch_data_str(path);
    request.erase = erase;
    struct base_status status = ch__naming_call(naming, CH__NAMES(BREAK), &request, false, 0,
                                                deadline, &arena, &reply, NULL);
    if (!base_failed(status) && epoch)
        *epoch = ((const CH__PB(BreakReply) *)reply)->epoch;
    base_arena_free(&arena);
    return base_status_wrap(status, "break lock %s", path);
}
