/* entries.h: the index rows of an entity, and the difference of two entities' rows: pure functions.
 *
 * Invariants
 * 1. The rows are a function of the entity and the index definitions alone; no key comes twice;
 *    sorted by key.
 * 2. The difference holds every row of the old entity that the new one lacks as a delete, every row
 *    of the new one that the old one lacks or has with another value as a write, and nothing else.
 * 3. A row's value is empty unless the entity has several values of one of its components. Then it
 *    holds, for each component in order: a byte (1: there is a next smaller value, 2: a next larger
 *    one), and these as length-prefixed encoded values. From this a scan in either direction, from
 *    any bound, knows whether the row is the entity's first in its range. */
#ifndef QUERYAPI_ENTRIES_H
#define QUERYAPI_ENTRIES_H

#include "base/codec.h"
#include "ds.h"
#include "index.h"
#include "txlayer/txlayer.h"

struct qry_entry {
    struct base_bytes key, value;
};
struct qry_entries {
    struct qry_entry *items;
    size_t count;
};

/* `entity` has been checked. INVALID_ARGUMENT when there are more than QRY_ENTRIES_MAX or a key is
 * too long. */
struct base_status qry_entries_of(const qry_entity *entity, const struct qry_index *indexes,
                                  size_t index_count, struct base_arena *arena,
                                  struct qry_entries *out) BASE_MUST_CHECK;
/* Of one composite index only: for building it. */
struct base_status qry_entries_of_index(const qry_entity *entity, const struct qry_index *index,
                                        struct base_arena *arena,
                                        struct qry_entries *out) BASE_MUST_CHECK;
/* Appends writes to an array with room for old.count + new.count more. */
void qry_entries_diff(const struct qry_entries *old, const struct qry_entries *new,
                      struct base_bytes group, struct txn_write *writes, size_t *count);

/* The neighbours of component `component` in a row's value. False: it has none. */
struct qry_neighbours {
    bool has_previous, has_next;
    struct base_bytes previous, next;
};
bool qry_row_neighbours(struct base_bytes row_value, size_t component,
                        struct qry_neighbours *out) BASE_MUST_CHECK;

#endif
