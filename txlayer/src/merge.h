/* merge.h: one page of a scan from two sources: what memory holds (rows.h) and a page of the
 * data table at the same timestamp. Memory's word on a key wins, deletes too. Pure: no waits. */
#ifndef TXLAYER_MERGE_H
#define TXLAYER_MERGE_H

#include "rows.h"

/* A row of the data table at a timestamp; a delete is a row that is not found. */
struct txn__table_row {
    struct base_bytes key; /* full key */
    struct txn__seen seen;
};

/* What is collected; keys without the database, copied into the arena. */
struct txn__page_row {
    struct base_bytes key, value;
    uint64_t timestamp;
};
struct txn__page {
    struct base_arena *arena;
    size_t row_max, byte_max; /* full at row_max rows, or when at or over byte_max */
    size_t prefix;            /* leading bytes of full keys to leave out */
    bool keys_only;
    struct txn__page_row *rows;
    size_t count, cap, bytes;
};
bool txn__page_full(const struct txn__page *page);

/* Adds the live rows of a part of a range, in order, until the page is full. The part is [from,
 * to) ascending; descending it begins below `from` and ends at `to`, inclusive. `table` holds
 * all the table's rows of the part, in the scan's order. */
void txn__merge(struct txn__rows *memory, bool descending, struct base_bytes from,
                struct base_bytes to, uint64_t timestamp, const struct txn__table_row *table,
                size_t count, struct txn__page *page);

#endif
