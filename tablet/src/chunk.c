/* chunk.c: see chunk.h. */
#include "chunk.h"

#include <stdlib.h>

typedef Google__Bigtable__V2__ReadRowsResponse__CellChunk cell_chunk;

enum { CHUNK_OVERHEAD = 24 };

void tab_chunker_init(struct tab_chunker *chunker)
{
    *chunker = (struct tab_chunker){ 0 };
}

void tab_chunker_destroy(struct tab_chunker *chunker)
{
    base_arena_free(&chunker->arenas[0]);
    base_arena_free(&chunker->arenas[1]);
    base_buf_free(&chunker->row);
    base_buf_free(&chunker->family);
    base_buf_free(&chunker->qualifier);
    free(chunker->chunks);
    *chunker = (struct tab_chunker){ 0 };
}

void tab_chunker_begin_row(struct tab_chunker *chunker, struct base_bytes row)
{
    base_buf_clear(&chunker->row);
    base_buf_put_bytes(&chunker->row, row);
    chunker->in_row = true;
    chunker->row_has_cells = false;
}

static cell_chunk *add_chunk(struct tab_chunker *chunker, size_t bytes)
{
    struct base_arena *arena = &chunker->arenas[chunker->arena];
    if (chunker->count == chunker->cap) {
        chunker->cap = chunker->cap ? chunker->cap * 2 : 64;
        chunker->chunks = realloc(chunker->chunks, chunker->cap * sizeof(*chunker->chunks));
        BASE_ASSERT(chunker->chunks != NULL);
    }
    cell_chunk *chunk =
        CH_MESSAGE(arena, cell_chunk, google__bigtable__v2__read_rows_response__cell_chunk);
    chunker->chunks[chunker->count++] = chunk;
    chunker->bytes += bytes + CHUNK_OVERHEAD;
    return chunk;
}

static void put_names(struct tab_chunker *chunker, cell_chunk *chunk,
                      const struct tab_out_cell *cell)
{
    struct base_arena *arena = &chunker->arenas[chunker->arena];
    bool new_family =
        !chunker->row_has_cells || !base_bytes_eq(cell->family, base_buf_bytes(&chunker->family));
    bool new_qualifier =
        new_family || !base_bytes_eq(cell->qualifier, base_buf_bytes(&chunker->qualifier));
    if (!chunker->row_has_cells) {
        chunk->row_key = ch_data_of(base_bytes_dup(arena, base_buf_bytes(&chunker->row)));
        chunker->bytes += chunker->row.len;
    }
    if (new_family) {
        chunk->family_name =
            CH_MESSAGE(arena, Google__Protobuf__StringValue, google__protobuf__string_value);
        chunk->family_name->value = ch_data_of(base_bytes_dup(arena, cell->family));
        base_buf_clear(&chunker->family);
        base_buf_put_bytes(&chunker->family, cell->family);
        chunker->bytes += cell->family.len;
    }
    if (new_qualifier) {
        chunk->qualifier =
            CH_MESSAGE(arena, Google__Protobuf__BytesValue, google__protobuf__bytes_value);
        chunk->qualifier->value = ch_data_of(base_bytes_dup(arena, cell->qualifier));
        base_buf_clear(&chunker->qualifier);
        base_buf_put_bytes(&chunker->qualifier, cell->qualifier);
        chunker->bytes += cell->qualifier.len;
    }
    chunk->timestamp_micros = cell->timestamp_us;
    if (cell->label.len) {
        chunk->n_labels = 1;
        chunk->labels = BASE_NEW(arena, ProtobufCBinaryData);
        chunk->labels[0] = ch_data_of(base_bytes_dup(arena, cell->label));
    }
}

void tab_chunker_cell(struct tab_chunker *chunker, const struct tab_out_cell *cell)
{
    struct base_arena *arena = &chunker->arenas[chunker->arena];
    struct base_bytes rest = cell->value;
    bool first = true, split = rest.len > TAB_CHUNK_VALUE;
    do {
        size_t len = rest.len < TAB_CHUNK_VALUE ? rest.len : TAB_CHUNK_VALUE;
        cell_chunk *chunk = add_chunk(chunker, len);
        if (first)
            put_names(chunker, chunk, cell);
        first = false;
        chunker->row_has_cells = true;
        chunk->value = ch_data_of(base_bytes_dup(arena, base_bytes(rest.data, len)));
        rest = base_bytes(rest.data + len, rest.len - len);
        if (split && rest.len)
            chunk->value_size = (int32_t)cell->value.len;
    } while (rest.len);
}

bool tab_chunker_end_row(struct tab_chunker *chunker)
{
    chunker->in_row = false;
    if (!chunker->row_has_cells)
        return false;
    cell_chunk *last = chunker->chunks[chunker->count - 1];
    last->row_status_case =
        GOOGLE__BIGTABLE__V2__READ_ROWS_RESPONSE__CELL_CHUNK__ROW_STATUS_COMMIT_ROW;
    last->commit_row = true;
    return true;
}

void tab_chunker_drop_row(struct tab_chunker *chunker)
{
    while (chunker->in_row && chunker->count > 0 &&
           !chunker->chunks[chunker->count - 1]->commit_row)
        chunker->count--;
    chunker->in_row = chunker->row_has_cells = false;
}

/* How many chunks, from the first, go into the next message. */
static size_t cut(const struct tab_chunker *chunker, size_t most)
{
    size_t bytes = 0, count = 0;
    while (count < most &&
           (count == 0 || bytes + chunker->chunks[count]->value.len <= TAB_CHUNK_MESSAGE * 2))
        bytes += chunker->chunks[count++]->value.len + CHUNK_OVERHEAD;
    return count;
}

const Google__Bigtable__V2__ReadRowsResponse *tab_chunker_take(struct tab_chunker *chunker,
                                                               bool all)
{
    size_t ready =
        chunker->count - (chunker->in_row && chunker->row_has_cells && chunker->count > 0);
    if (ready == 0 || (!all && chunker->bytes < TAB_CHUNK_MESSAGE))
        return NULL;
    ready = cut(chunker, ready);
    struct base_arena *arena = &chunker->arenas[chunker->arena];
    Google__Bigtable__V2__ReadRowsResponse *message = CH_MESSAGE(
        arena, Google__Bigtable__V2__ReadRowsResponse, google__bigtable__v2__read_rows_response);
    message->n_chunks = ready;
    message->chunks = base_arena_memdup(arena, chunker->chunks, ready * sizeof(*chunker->chunks));
    /* What stays is moved to the other arena, so this one is free for reset when the message has
     * been sent. */
    chunker->arena ^= 1;
    base_arena_reset(&chunker->arenas[chunker->arena]);
    size_t left = chunker->count - ready;
    chunker->bytes = 0;
    for (size_t i = 0; i < left; i++) {
        ProtobufCMessage *kept =
            ch_proto_copy(&chunker->chunks[ready + i]->base, &chunker->arenas[chunker->arena]);
        chunker->chunks[i] = (cell_chunk *)kept;
        chunker->bytes += chunker->chunks[i]->value.len + CHUNK_OVERHEAD;
    }
    chunker->count = left;
    return message;
}
