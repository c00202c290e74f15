/* chunk.h: rows as the CellChunk stream of ReadRows. Messages are cut at TAB_CHUNK_MESSAGE
 * bytes, values at TAB_CHUNK_VALUE, so none comes near gRPC's 4 MB; one message may hold many
 * rows, one row may span many. The last chunk of an open row is kept back, because only a row's
 * last chunk commits. */
#ifndef TAB_CHUNK_H
#define TAB_CHUNK_H

#include "filter.h"
#include "google/bigtable/v2/bigtable.pb-c.h"

enum { TAB_CHUNK_VALUE = 1 << 20, TAB_CHUNK_MESSAGE = 1 << 20 };

struct tab_chunker {
    struct base_arena
        arenas[2]; /* of the message being built; the other one keeps what was held back */
    int arena;
    Google__Bigtable__V2__ReadRowsResponse__CellChunk **chunks;
    size_t count, cap, bytes;
    struct base_buf row, family, qualifier; /* of the last chunk */
    bool in_row, row_has_cells;
};
void tab_chunker_init(struct tab_chunker *chunker);
void tab_chunker_destroy(struct tab_chunker *chunker);
void tab_chunker_begin_row(struct tab_chunker *chunker, struct base_bytes row);
void tab_chunker_cell(struct tab_chunker *chunker, const struct tab_out_cell *cell);
/* True: the row had cells and is committed. */
bool tab_chunker_end_row(struct tab_chunker *chunker);
/* Forgets what was not taken of a row that was begun (what was, the reader must take back by
 * reset_row). */
void tab_chunker_drop_row(struct tab_chunker *chunker);
/* A message when there is one worth sending (`all`: whatever there is); NULL: not yet. It lives
 * until the next call. */
const Google__Bigtable__V2__ReadRowsResponse *tab_chunker_take(struct tab_chunker *chunker,
                                                               bool all);

#endif
