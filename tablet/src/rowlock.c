/* rowlock.c: see rowlock.h. */
#include "rowlock.h"

#include <stdlib.h>

#include "base/codec.h"

enum { BUCKETS = 4096 };

struct waiter {
    struct waiter *next;
    bool alone, granted;
    struct ch_done done;
};

struct tab_rowlock {
    struct tab_rowlock *next; /* in its bucket */
    uint64_t hash, tablet;
    uint32_t shared;
    bool alone;
    struct waiter *first, **end;
    size_t row_len;
    uint8_t row[];
};

void tab_rowlocks_init(struct tab_rowlocks *locks)
{
    *locks = (struct tab_rowlocks){ .bucket_count = BUCKETS };
    locks->buckets = calloc(BUCKETS, sizeof(*locks->buckets));
    BASE_ASSERT(locks->buckets != NULL);
}

void tab_rowlocks_destroy(struct tab_rowlocks *locks)
{
    BASE_ASSERT(locks->count == 0);
    free(locks->buckets);
    locks->buckets = NULL;
}

static struct tab_rowlock *find(struct tab_rowlocks *locks, uint64_t tablet, struct base_bytes row)
{
    uint64_t hash = base_hash(row.data, row.len, tablet);
    struct tab_rowlock **bucket = &locks->buckets[hash % locks->bucket_count];
    for (struct tab_rowlock *lock = *bucket; lock; lock = lock->next)
        if (lock->hash == hash && lock->tablet == tablet &&
            base_bytes_eq(base_bytes(lock->row, lock->row_len), row))
            return lock;
    struct tab_rowlock *lock = calloc(1, sizeof(*lock) + row.len);
    BASE_ASSERT(lock != NULL);
    lock->hash = hash;
    lock->tablet = tablet;
    lock->row_len = row.len;
    lock->end = &lock->first;
    if (row.len)
        memcpy(lock->row, row.data, row.len);
    lock->next = *bucket;
    *bucket = lock;
    locks->count++;
    return lock;
}

static void forget_if_unused(struct tab_rowlocks *locks, struct tab_rowlock *lock)
{
    if (lock->shared || lock->alone || lock->first)
        return;
    struct tab_rowlock **link = &locks->buckets[lock->hash % locks->bucket_count];
    while (*link != lock)
        link = &(*link)->next;
    *link = lock->next;
    locks->count--;
    free(lock);
}

static bool may_enter(const struct tab_rowlock *lock, bool alone)
{
    return !lock->alone && (!alone || lock->shared == 0);
}

static void enter(struct tab_rowlock *lock, bool alone)
{
    if (alone)
        lock->alone = true;
    else
        lock->shared++;
}

static void grant(struct tab_rowlock *lock)
{
    while (lock->first && may_enter(lock, lock->first->alone)) {
        struct waiter *waiter = lock->first;
        lock->first = waiter->next;
        if (!lock->first)
            lock->end = &lock->first;
        enter(lock, waiter->alone);
        waiter->granted = true;
        ch_done_set(&waiter->done);
    }
}

enum ch_outcome tab_rowlock_take(struct tab_rowlocks *locks, uint64_t tablet, struct base_bytes row,
                                 bool alone, ch_time deadline, struct tab_rowlock **result)
{
    struct tab_rowlock *lock = find(locks, tablet, row);
    *result = lock;
    if (!lock->first && may_enter(lock, alone)) {
        enter(lock, alone);
        return CH_OK;
    }
    struct waiter waiter = { .alone = alone };
    ch_done_init(&waiter.done);
    *lock->end = &waiter;
    lock->end = &waiter.next;
    enum ch_outcome outcome = ch_done_wait(&waiter.done, deadline);
    if (waiter.granted)
        /* also when the deadline passed in the same turn: it is ours, and is released by the
         * caller */
        return CH_OK;
    struct waiter **link = &lock->first;
    while (*link != &waiter) {
        BASE_ASSERT(*link);
        link = &(*link)->next;
    }
    *link = waiter.next;
    if (!waiter.next)
        lock->end = link;
    grant(lock);
    forget_if_unused(locks, lock);
    *result = NULL;
    return outcome;
}

void tab_rowlock_release(struct tab_rowlocks *locks, struct tab_rowlock *lock, bool alone)
{
    if (alone) {
        BASE_ASSERT(lock->alone);
        lock->alone = false;
    } else {
        BASE_ASSERT(lock->shared > 0);
        lock->shared--;
    }
    grant(lock);
    forget_if_unused(locks, lock);
}
