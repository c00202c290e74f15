/* rows.h: the rows a leader holds in memory: all that is committed and not yet applied to the
 * data table, and, within a byte limit, what was used lately.
 *
 * An ordered map of full key (database NUL key, tables.h) -> versions, newest first. Invariants:
 *   1. Of a key that is here, the versions here are the newest ones, without a gap: so the
 *      newest version here at or below T, if there is one, is the row at T. Deletes are versions
 *      too; so is "never written" (timestamp 0).
 *   2. What is not applied stays here.
 *   3. What was applied after a pin was taken stays until the pin is gone: a scan reads the
 *      table first and merges then.
 *   4. Every version newer than `evicted` is here; so what is read from the table at T >=
 *      evicted for a key that is not here is that key's newest version and may be filled in.
 * Pure: no waits. Values handed out are borrowed until the next call that changes the map. */
#ifndef TXLAYER_ROWS_H
#define TXLAYER_ROWS_H

#include "base/bytes.h"

struct txn__rows;
struct txn__version; /* of one row */

struct txn__seen {
    bool found; /* false: deleted, or never written */
    uint64_t timestamp;
    struct base_bytes value;
};

/* `evicted`: everything at or below this timestamp may be in the table alone. */
struct txn__rows *txn__rows_new(size_t bytes_max, uint64_t evicted);
void txn__rows_free(struct txn__rows *rows);

/* A decided write, newer than every version of its key. Copies. The version is valid until it is
 * applied. */
struct txn__version *txn__rows_put(struct txn__rows *rows, struct base_bytes key,
                                   uint64_t timestamp, bool is_delete, struct base_bytes value);
/* It is in the table now. Call txn__rows_applied_all after a group of these. */
void txn__rows_applied(struct txn__rows *rows, struct txn__version *version);
/* Ends a group of applied versions, and evicts down to the byte limit. */
void txn__rows_applied_all(struct txn__rows *rows);
/* False: memory does not know; ask the table at this timestamp. */
bool txn__rows_get(struct txn__rows *rows, struct base_bytes key, uint64_t timestamp,
                   struct txn__seen *seen);
/* What the table said about a key at `timestamp` may be kept, if it is certain to be the newest
 * version. */
void txn__rows_fill(struct txn__rows *rows, struct base_bytes key, uint64_t timestamp,
                    const struct txn__seen *seen);

struct txn__pin {
    struct txn__pin *before, *after; /* private */
    uint64_t group;
};
void txn__rows_pin(struct txn__rows *rows, struct txn__pin *pin);
void txn__rows_unpin(struct txn__rows *rows, struct txn__pin *pin);

/* The first key at or above `from` (descending: the last below `from`) whose row at `timestamp`
 * memory knows, deletes too. Ascending ends at `to` (exclusive), descending at `to` (inclusive).
 * *key is borrowed as values are. */
bool txn__rows_next(struct txn__rows *rows, bool descending, struct base_bytes from,
                    struct base_bytes to, uint64_t timestamp, struct base_bytes *key,
                    struct txn__seen *seen);

size_t txn__rows_bytes(const struct txn__rows *rows);
size_t txn__rows_unapplied(const struct txn__rows *rows); /* bytes */
size_t txn__rows_count(const struct txn__rows *rows);
void txn__rows_check(const struct txn__rows *rows); /* asserts the structure; for tests */

#endif
