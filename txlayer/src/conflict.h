/* conflict.h: what has been written lately, so that a commit can be checked against it
 * (FoundationDB, SIGMOD'21, section 3: the resolver). An ordered map of key -> timestamp of its
 * last commit, in a treap whose nodes carry the greatest timestamp below them, so a range of any
 * size is one O(log n) question.
 *
 * `seed` is random. Pure: no clock, no waits. Timestamps given to add must not decrease. Its
 * memory is bounded: beyond keys_max or bytes_max the keys written longest ago are forgotten and
 * `floor` rises to the newest of them: a read at or above the floor can still be answered, one
 * below cannot. */
#ifndef TXLAYER_CONFLICT_H
#define TXLAYER_CONFLICT_H

#include "base/bytes.h"

struct txn__conflict;

struct txn__conflict *txn__conflict_new(size_t keys_max, size_t bytes_max, uint64_t floor,
                                        uint64_t seed);
void txn__conflict_free(struct txn__conflict *conflict);

/* `key` was written at `timestamp`. The key is copied. */
void txn__conflict_add(struct txn__conflict *conflict, struct base_bytes key, uint64_t timestamp);
/* The last commit of a key, or of any key in [start, end) (empty end: none): 0 when none is
 * remembered. A timestamp greater than a read's means a conflict with it, provided the read is
 * not below the floor. */
uint64_t txn__conflict_key(const struct txn__conflict *conflict, struct base_bytes key);
uint64_t txn__conflict_range(const struct txn__conflict *conflict, struct base_bytes start,
                             struct base_bytes end);
/* Everything newer than the floor is remembered. */
uint64_t txn__conflict_floor(const struct txn__conflict *conflict);
/* Forgets what was last written at or before `timestamp` (the floor rises to what was forgotten,
 * not to `timestamp`). */
void txn__conflict_trim(struct txn__conflict *conflict, uint64_t timestamp);
size_t txn__conflict_count(const struct txn__conflict *conflict);
size_t txn__conflict_bytes(const struct txn__conflict *conflict);

#endif
