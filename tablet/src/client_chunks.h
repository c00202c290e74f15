/* client_chunks.h: rows from a CellChunk stream, checked as the protocol says; and what is left
 * of a request after the last row. Pure but for the row callback. */
#ifndef TAB_CLIENT_CHUNKS_H
#define TAB_CLIENT_CHUNKS_H

#include "tablet/tablet.h"

struct tab_chunk_reader {
    bool reversed;
    struct base_buf last_row; /* committed */
    bool any_row;
    /* the row being built; its memory is `arena` */
    struct base_arena arena;
    bool in_row, in_cell; /* in_cell: more pieces of a value must follow */
    struct base_bytes key, family, qualifier;
    struct tab_cell *cells;
    size_t cell_count, cell_cap;
    struct base_buf value;
    size_t value_size;
};
void tab_chunk_reader_init(struct tab_chunk_reader *reader, bool reversed);
void tab_chunk_reader_destroy(struct tab_chunk_reader *reader);
/* A new stream: what was begun of a row is forgotten. */
void tab_chunk_reader_restart(struct tab_chunk_reader *reader);
/* INTERNAL for a stream that breaks the protocol. Stops, OK, when fn returns false. */
struct base_status tab_chunk_reader_take(struct tab_chunk_reader *reader,
                                         const Google__Bigtable__V2__ReadRowsResponse *message,
                                         tab_row_fn *fn, void *self) CH_WAITS BASE_MUST_CHECK;
/* The request for what follows `last` when `rows` have been read. False: nothing is left. */
bool tab_rest_of_request(const Google__Bigtable__V2__ReadRowsRequest *request,
                         struct base_bytes last, uint64_t rows, struct base_arena *arena,
                         Google__Bigtable__V2__ReadRowsRequest *rest);

#endif
