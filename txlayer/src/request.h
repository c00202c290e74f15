/* request.h: the few shapes of google.bigtable.v2 messages this layer uses, built in an arena.
 * Bytes are borrowed. */
#ifndef TXLAYER_REQUEST_H
#define TXLAYER_REQUEST_H

#include "chassis/proto.h"
#include "google/bigtable/v2/bigtable.pb-c.h"

Google__Bigtable__V2__Mutation *txn__set_cell(struct base_arena *arena, const char *family,
                                              struct base_bytes qualifier, int64_t timestamp,
                                              struct base_bytes value);
Google__Bigtable__V2__Mutation *txn__delete_row(struct base_arena *arena);
/* Versions with timestamps in [0, end). */
Google__Bigtable__V2__Mutation *txn__delete_versions(struct base_arena *arena, const char *family,
                                                     struct base_bytes qualifier, int64_t end);
/* Filters. */
Google__Bigtable__V2__RowFilter *txn__filter_family(struct base_arena *arena, const char *family);
Google__Bigtable__V2__RowFilter *txn__filter_columns_from(struct base_arena *arena,
                                                          const char *family,
                                                          struct base_bytes start);
Google__Bigtable__V2__RowFilter *txn__filter_before(struct base_arena *arena,
                                                    int64_t end); /* timestamps < end */
Google__Bigtable__V2__RowFilter *txn__filter_newest(struct base_arena *arena, int32_t versions);
Google__Bigtable__V2__RowFilter *txn__filter_strip(struct base_arena *arena);
Google__Bigtable__V2__RowFilter *txn__filter_chain(struct base_arena *arena,
                                                   Google__Bigtable__V2__RowFilter **filters,
                                                   size_t count);

Google__Bigtable__V2__ReadRowsRequest *txn__read_request(struct base_arena *arena,
                                                         struct base_bytes table);
/* Rows [start, end), or [start, end] when closed; empty end: none. */
void txn__read_range(struct base_arena *arena, Google__Bigtable__V2__ReadRowsRequest *request,
                     struct base_bytes start, struct base_bytes end, bool closed);

/* MutateRows, one row at a time. */
struct txn__mutate {
    struct base_arena *arena;
    Google__Bigtable__V2__MutateRowsRequest *request;
    size_t cap;
};
void txn__mutate_init(struct txn__mutate *mutate, struct base_arena *arena, struct base_bytes table,
                      size_t cap);
void txn__mutate_add(struct txn__mutate *mutate, struct base_bytes row,
                     Google__Bigtable__V2__Mutation *mutation);

#endif
