/* ids.c: see ids.h. A ring of entries by age, chained into hash buckets (newer to older, so the
 * oldest of all is the last of its chain). Never more than three quarters full. */
#include "ids.h"

#include <stdlib.h>

#include "base/codec.h"
#include "entry.h"

enum { NONE = -1, FIRST_CAP = 1024 };

struct item {
    uint8_t id[TXN__ID_BYTES];
    uint64_t timestamp;
    int64_t next; /* in its bucket: newer to older */
};

/* Ring positions grow without wrapping; position p lives in items[p & mask]. */
struct txn__ids {
    struct item *items;
    int64_t *buckets; /* newest ring position of a chain, or NONE */
    uint64_t begin, end, mask;
    size_t count_max;
};

static uint64_t hash_of(const uint8_t *id)
{
    return base_hash(id, TXN__ID_BYTES, 0);
}

static void link_in(struct txn__ids *ids, uint64_t position)
{
    struct item *item = &ids->items[position & ids->mask];
    int64_t *bucket = &ids->buckets[hash_of(item->id) & ids->mask];
    item->next = *bucket;
    *bucket = (int64_t)position;
}

static void resize(struct txn__ids *ids, size_t cap)
{
    struct item *old = ids->items;
    uint64_t old_mask = ids->mask;
    ids->items = malloc(cap * sizeof(*ids->items));
    free(ids->buckets);
    ids->buckets = malloc(cap * sizeof(*ids->buckets));
    BASE_ASSERT(ids->items && ids->buckets);
    ids->mask = cap - 1;
    for (size_t i = 0; i < cap; i++)
        ids->buckets[i] = NONE;
    for (uint64_t p = ids->begin; p < ids->end; p++) {
        ids->items[p & ids->mask] = old[p & old_mask];
        link_in(ids, p);
    }
    free(old);
}

struct txn__ids *txn__ids_new(size_t count_max)
{
    struct txn__ids *ids = calloc(1, sizeof(*ids));
    BASE_ASSERT(ids);
    ids->count_max = count_max;
    resize(ids, FIRST_CAP);
    return ids;
}

void txn__ids_free(struct txn__ids *ids)
{
    if (!ids)
        return;
    free(ids->items);
    free(ids->buckets);
    free(ids);
}

static void drop_oldest(struct txn__ids *ids)
{
    /* Chains run from newer to older: the oldest is the last of its own. */
    int64_t gone = (int64_t)ids->begin;
    int64_t *at = &ids->buckets[hash_of(ids->items[ids->begin & ids->mask].id) & ids->mask];
    while (*at != gone)
        at = &ids->items[(uint64_t)*at & ids->mask].next;
    *at = NONE;
    ids->begin++;
}

void txn__ids_add(struct txn__ids *ids, struct base_bytes id, uint64_t timestamp)
{
    uint64_t known;
    BASE_ASSERT(id.len == TXN__ID_BYTES);
    if (txn__ids_find(ids, id, &known))
        return;
    if (txn__ids_count(ids) >= ids->count_max)
        drop_oldest(ids);
    if (txn__ids_count(ids) > ids->mask / 4 * 3)
        resize(ids, (ids->mask + 1) * 2);
    struct item *item = &ids->items[ids->end & ids->mask];
    memcpy(item->id, id.data, TXN__ID_BYTES);
    item->timestamp = timestamp;
    link_in(ids, ids->end++);
}

bool txn__ids_find(const struct txn__ids *ids, struct base_bytes id, uint64_t *timestamp)
{
    if (id.len != TXN__ID_BYTES)
        return false;
    for (int64_t at = ids->buckets[hash_of(id.data) & ids->mask]; at != NONE;) {
        const struct item *item = &ids->items[(uint64_t)at & ids->mask];
        if (memcmp(item->id, id.data, TXN__ID_BYTES) == 0) {
            *timestamp = item->timestamp;
            return true;
        }
        at = item->next;
    }
    return false;
}

void txn__ids_trim(struct txn__ids *ids, uint64_t timestamp)
{
    while (ids->begin < ids->end && ids->items[ids->begin & ids->mask].timestamp <= timestamp)
        drop_oldest(ids);
}

size_t txn__ids_count(const struct txn__ids *ids)
{
    return (size_t)(ids->end - ids->begin);
}
