/* rowread.h: from sorted entries to the live cells of one row after another: what deletes is
 * applied, older duplicates of a cell, what is newer than the snapshot, cells of dropped
 * families and what the garbage rules drop are left out.
 *
 * Invariant: entries come in key order, so all that deletes a cell has been seen before the
 * cell. A row's state is a few numbers and the time ranges deleted in the current column: memory
 * does not grow with the row. */
#ifndef TAB_ROWREAD_H
#define TAB_ROWREAD_H

#include "iter.h"
#include "key.h"
#include "schema.h"

struct tab_cell_view { /* lives until the reader moves */
    const struct tab_family *family;
    struct base_bytes qualifier, value;
    int64_t timestamp_us;
};

/* A deleted range of rows. Sorted by nothing: there are few. */
struct tab_range_delete {
    struct base_bytes start, end; /* plain rows; end empty: no end */
    uint64_t seq;
};

struct tab_time_range {
    int64_t start, end; /* end 0: none */
    uint64_t seq;
};

/* What the caller will not use, so that it need not be walked through: an old version of a row
 * with many is found at once. */
struct tab_read_hint {
    int64_t timestamp_end; /* cells at or after it are not wanted; 0: no bound */
    uint32_t
        /* so many newest cells of a column (below timestamp_end) are enough; 0: all */
        column_cells;
};

struct tab_row_reader {
    struct tab_merge *merge;
    const struct tab_schema *schema;
    const struct tab_range_delete *ranges;
    size_t range_count;
    uint64_t snapshot; /* entries with greater numbers are not seen */
    int64_t now_us;
    struct tab_read_hint hint;
    /* the current row */
    struct base_buf row, column, scratch,
        qualifier;        /* encoded row; its column; scratch for plain bytes */
    bool in_row, at_cell; /* at_cell: the cursor is still on the cell handed out last */
    uint64_t row_deleted,
        family_deleted; /* greatest number of a deletion that covers everything here */
    const struct tab_family *family;
    bool family_dropped;
    struct base_buf family_prefix;
    struct tab_time_range *times;
    size_t time_count, time_cap;
    uint64_t version_index, emitted;
    int64_t last_timestamp;
    bool any_in_column;
    uint64_t walked; /* entries looked at, for work limits */
};

/* Takes the merge. schema, ranges are borrowed. */
void tab_row_reader_init(struct tab_row_reader *reader, struct tab_merge *merge,
                         const struct tab_schema *schema, const struct tab_range_delete *ranges,
                         size_t range_count, uint64_t snapshot, int64_t now_us);
void tab_row_reader_destroy(struct tab_row_reader *reader);
/* Before the first row at or after `row` (plain). */
void tab_row_reader_seek(struct tab_row_reader *reader, struct base_bytes row) CH_WAITS;
/* Goes to the next row that has entries (it may turn out to have no live cell); false at the end
 * or after a failure. *row: its plain key, living until the next row. */
bool tab_row_reader_next_row(struct tab_row_reader *reader, struct base_bytes *row) CH_WAITS;
/* Goes to the last row before `row` (from_end: the last of all). */
bool tab_row_reader_prev_row(struct tab_row_reader *reader, struct base_bytes before, bool from_end,
                             struct base_bytes *row) CH_WAITS;
bool tab_row_reader_next_cell(struct tab_row_reader *reader, struct tab_cell_view *cell) CH_WAITS;
struct base_status tab_row_reader_status(const struct tab_row_reader *reader) BASE_MUST_CHECK;

/* ---- the same rules for compaction: which entries the merged file keeps ---- */
struct tab_keep {
    struct tab_row_reader reader; /* its row state; merge unused */
    bool major;                   /* nothing older exists elsewhere: deletions themselves go too */
};
/* Whether the entry, the next in key order, is to be written. */
bool tab_keep_entry(struct tab_keep *keep, const struct tab_key *key, struct base_bytes value);

/* The greatest number of a range deletion (not above `snapshot`) that covers a plain row; *end:
 * its end. 0: none. */
uint64_t tab_ranges_cover(const struct tab_range_delete *ranges, size_t count, uint64_t snapshot,
                          struct base_bytes row, struct base_bytes *end);
void tab_time_range_encode(uint8_t out[16], int64_t start, int64_t end);

#endif
