/* tables.h: the two tables of the layer below and every request made to them: the shard logs and
 * the data. Only google.bigtable.v2 is used. Row keys, families and encodings are tables in
 * README.md. Calls wait; statuses say which table and row. Full key: database NUL key. */
#ifndef TXLAYER_TABLES_H
#define TXLAYER_TABLES_H

#include "chassis/env.h"
#include "entry.h"
#include "merge.h"
#include "tablet/tablet.h"

enum {
    TXN__ROW_KEY_MAX = 4000, /* of a full key in the row key; the rest is the column's qualifier */
    TXN__MUTATIONS_MAX = 2000, /* of one MutateRows */
    TXN__MUTATE_BYTES_MAX = 4 << 20,
    TXN__TABLE_CALL_MS = 5000,   /* deadline of one call that is tried again */
    TXN__TIMESTAMP_SCALE = 1000, /* cell timestamp = commit timestamp x this: whole ms */
};
/* The greatest commit timestamp a cell can carry. */
#define TXN__TIMESTAMP_MAX ((uint64_t)(INT64_MAX / TXN__TIMESTAMP_SCALE - 1))

struct txn__tables {
    struct ch_env *env;
    struct tab_client *client;
    struct base_bytes log_name, data_name; /* full table names */
};

/* ---- full keys ---- */
void txn__full_key(struct base_bytes database, struct base_bytes key, struct base_buf *out);
struct base_bytes txn__full_key_in(struct base_arena *arena, struct base_bytes database,
                                   struct base_bytes key);
/* The end of all keys of a database: database 0x01. */
struct base_bytes txn__full_end_in(struct base_arena *arena, struct base_bytes database,
                                   struct base_bytes end);
void txn__key_split(struct base_bytes full, struct base_bytes *row, struct base_bytes *qualifier);

/* Makes the tables where missing. */
struct base_status txn__tables_ensure(struct txn__tables *tables, const char *instance,
                                      ch_time deadline) CH_WAITS BASE_MUST_CHECK;

/* ---- the log (log_table.c) ---- */
struct txn__log_cell {
    uint64_t position, epoch;
    bool barrier;
    struct base_bytes bytes; /* of the entry */
};
/* Writes an entry where no cell of an epoch >= `floor` is. *taken: there is one, nothing was
 * written. A failed status leaves the outcome unknown: read the position. */
struct base_status txn__log_put(struct txn__tables *tables, uint32_t shard, uint64_t floor,
                                const struct txn__entry *entry, ch_time deadline,
                                bool *taken) CH_WAITS BASE_MUST_CHECK;
/* The cell of the greatest epoch >= floor at a position, if any. */
struct base_status txn__log_get(struct txn__tables *tables, uint32_t shard, uint64_t position,
                                uint64_t floor, ch_time deadline, struct base_arena *arena,
                                bool *there, struct txn__log_cell *cell) CH_WAITS BASE_MUST_CHECK;
/* Positions >= from, ascending, each with its cell of the greatest epoch, until fn returns
 * false. The cell is lent. */
typedef bool txn__log_fn(void *self, const struct txn__log_cell *cell);
struct base_status txn__log_scan(struct txn__tables *tables, uint32_t shard, uint64_t from,
                                 ch_time deadline, txn__log_fn *fn,
                                 void *self) CH_WAITS BASE_MUST_CHECK;
/* Those of the positions from..to that are no barriers, ascending, at most `max`, without their
 * bytes. */
struct base_status txn__log_droppable(struct txn__tables *tables, uint32_t shard, uint64_t from,
                                      uint64_t to, size_t max, ch_time deadline,
                                      uint64_t *positions, size_t *count) CH_WAITS BASE_MUST_CHECK;
struct base_status txn__log_drop(struct txn__tables *tables, uint32_t shard,
                                 const uint64_t *positions, size_t count,
                                 ch_time deadline) CH_WAITS BASE_MUST_CHECK;

/* A shard's checkpoint: the one of the greatest position ever written. Zeros when there is none. */
struct base_status txn__checkpoint_get(struct txn__tables *tables, uint32_t shard, ch_time deadline,
                                       struct txn__checkpoint *checkpoint) CH_WAITS BASE_MUST_CHECK;
struct base_status txn__checkpoint_put(struct txn__tables *tables, uint32_t shard,
                                       const struct txn__checkpoint *checkpoint,
                                       ch_time deadline) CH_WAITS BASE_MUST_CHECK;

/* Pages of idempotency ids, by the last position they cover: le64 timestamp and 16 bytes of id
 * each. */
enum { TXN__ID_RECORD = 8 + TXN__ID_BYTES };
struct base_status txn__ids_put(struct txn__tables *tables, uint32_t shard, uint64_t position,
                                struct base_bytes records,
                                ch_time deadline) CH_WAITS BASE_MUST_CHECK;
typedef bool txn__ids_fn(void *self, uint64_t position, struct base_bytes records);
struct base_status txn__ids_scan(struct txn__tables *tables, uint32_t shard, ch_time deadline,
                                 txn__ids_fn *fn, void *self) CH_WAITS BASE_MUST_CHECK;
struct base_status txn__ids_drop(struct txn__tables *tables, uint32_t shard, uint64_t position,
                                 ch_time deadline) CH_WAITS BASE_MUST_CHECK;

/* ---- the data (data_table.c) ---- */
/* Writes committed rows, each at its transaction's timestamp; repeating it changes nothing. */
struct txn__cell_write {
    struct base_bytes database;
    uint64_t timestamp;
    const struct txn__logged_write *write;
};
struct base_status txn__data_put(struct txn__tables *tables, const struct txn__cell_write *writes,
                                 size_t count, ch_time deadline) CH_WAITS BASE_MUST_CHECK;
/* seen[i] for the sorted, distinct full keys[i] at a timestamp, i < *got; values in `arena`. Ends
 * early when the values would have more than bytes_max bytes, not before the first. */
struct base_status txn__data_get(struct txn__tables *tables, uint64_t timestamp,
                                 const struct base_bytes *keys, size_t count, size_t bytes_max,
                                 ch_time deadline, struct base_arena *arena, struct txn__seen *seen,
                                 size_t *got) CH_WAITS BASE_MUST_CHECK;
/* The first rows of the table, deletes too, of [from, to) of full keys at a timestamp in the
 * order of the scan: at least one table row, about `rows_max` of them or `bytes_max` bytes.
 * *complete: the range has no more. Else everything from the range's beginning through the last
 * row is in it. */
struct txn__data_range {
    struct base_bytes from, to;
    bool descending;
    uint64_t timestamp;
    size_t rows_max, bytes_max;
};
struct base_status txn__data_scan(struct txn__tables *tables, const struct txn__data_range *range,
                                  ch_time deadline, struct base_arena *arena,
                                  struct txn__table_row **rows, size_t *count,
                                  bool *complete) CH_WAITS BASE_MUST_CHECK;
/* Pruning: of the rows from `from` on (at most rows_max table rows), those whose versions at or
 * below `horizon` are more than the newest one, or a delete. Reads no more than two versions a
 * key. *next: where to go on; *complete: nothing was left. */
struct txn__garbage {
    struct base_bytes key; /* full */
    uint64_t below;        /* versions < below may go */
};
struct base_status txn__data_garbage(struct txn__tables *tables, struct base_bytes from,
                                     uint64_t horizon, size_t rows_max, ch_time deadline,
                                     struct base_arena *arena, struct txn__garbage **garbage,
                                     size_t *count, struct base_bytes *next,
                                     bool *complete) CH_WAITS BASE_MUST_CHECK;
struct base_status txn__data_prune(struct txn__tables *tables, const struct txn__garbage *garbage,
                                   size_t count, ch_time deadline) CH_WAITS BASE_MUST_CHECK;

#endif
