/* meta.h: METADATA's keys (Bigtable 5.1). METADATA is an ordinary table, number 0, of two
 * levels: the root tablet, which is never split, holds the rows about METADATA itself; the
 * others hold everything else. Where the root tablet is, naming says.
 *
 * | key | value |
 * |---|---|
 * | be64 table, 00, end row | TabletMeta of the tablet of `table` that ends (open) at `end row` |
 * | be64 table, 01 | the same, of the table's last tablet |
 * | be64 1 (schema), "t", table name | TableMeta |
 * | be64 1, "i", instance name | google.bigtable.admin.v2.Instance |
 * | be64 1, "c", cluster name | google.bigtable.admin.v2.Cluster |
 * | be64 1, "p", app profile name | google.bigtable.admin.v2.AppProfile |
 * | be64 1, "o", operation name | google.longrunning.Operation |
 * | be64 1, "n" | the next table number (be64) |
 * Each row has two cells: "m:v" its version (16 random bytes), "m:d" its value. Nothing here
 * waits. */
#ifndef TAB_META_H
#define TAB_META_H

#include "base/codec.h"

enum {
    TAB_TABLE_METADATA = 0,
    TAB_TABLE_SCHEMA = 1,
    TAB_TABLE_FIRST = 16,
    TAB_META_VERSION_BYTES = 16
};
#define TAB_META_FAMILY "m"

/* The key of the row of the tablet that ends at `end` (empty: the last one). */
void tab_meta_key(struct base_buf *out, uint64_t table, struct base_bytes end);
/* The least key that a tablet holding `row` may have: the row to look for is the first at or
 * after it. */
void tab_meta_seek_key(struct base_buf *out, uint64_t table, struct base_bytes row);
/* Every key of the table's rows is in [start, end). */
void tab_meta_table_range(uint64_t table, struct base_buf *start, struct base_buf *end);
/* Which table a key is about. */
uint64_t tab_meta_key_table(struct base_bytes key);
void tab_meta_schema_key(struct base_buf *out, char kind, struct base_bytes name);
/* The end of the root tablet: where the rows that are not about METADATA begin. */
void tab_meta_root_end(struct base_buf *out);

/* Whether [start, end) holds the row; an empty end is open. */
static inline bool tab_range_holds(struct base_bytes start, struct base_bytes end,
                                   struct base_bytes row)
{
    return base_bytes_cmp(row, start) >= 0 && (end.len == 0 || base_bytes_cmp(row, end) < 0);
}

#endif
