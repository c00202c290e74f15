/* rowset.h: which rows a ReadRows asks for, as sorted, disjoint ranges. Pure. */
#ifndef TAB_ROWSET_H
#define TAB_ROWSET_H

#include "google/bigtable/v2/bigtable.pb-c.h"
#include "base/bytes.h"
#include "chassis/proto.h"

struct
    /* [start, end); end empty: no end. A single row: end is start and a byte 00, `point` set. */
    tab_span {
    struct base_bytes start, end;
    bool point;
};
/* INVALID_ARGUMENT for an empty key in row_keys and for ranges that are empty by construction.
 * No rows at all: everything. */
struct base_status tab_rowset_spans(const Google__Bigtable__V2__RowSet *rows,
                                    struct base_arena *arena, struct tab_span **spans,
                                    size_t *count) BASE_MUST_CHECK;
/* The part of a span inside [start, end); false: none. */
bool tab_span_clip(struct tab_span *span, struct base_bytes start, struct base_bytes end);
/* As a row set of the public protocol. */
Google__Bigtable__V2__RowSet *tab_rowset_make(const struct tab_span *spans, size_t count,
                                              struct base_arena *arena);
/* The least key greater than `key`: the key and a byte 00. */
struct base_bytes tab_key_after(struct base_arena *arena, struct base_bytes key);

#endif
