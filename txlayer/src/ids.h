/* ids.h: the idempotency ids of commits that happened, and when: a repeated commit is answered
 * from here. Bounded by count and by age, oldest forgotten first. Pure. */
#ifndef TXLAYER_IDS_H
#define TXLAYER_IDS_H

#include "base/bytes.h"

struct txn__ids;

struct txn__ids *txn__ids_new(size_t count_max);
void txn__ids_free(struct txn__ids *ids);
/* An id that is here keeps its first timestamp. `id` has TXN__ID_BYTES. */
void txn__ids_add(struct txn__ids *ids, struct base_bytes id, uint64_t timestamp);
bool txn__ids_find(const struct txn__ids *ids, struct base_bytes id, uint64_t *timestamp);
/* Forgets commits at or before a timestamp (in order of adding, so one that was added out of
 * order may stay longer). */
void txn__ids_trim(struct txn__ids *ids, uint64_t timestamp);
size_t txn__ids_count(const struct txn__ids *ids);

#endif
