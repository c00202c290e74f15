/* client_chunks.c: see client_chunks.h. */
#include "client_chunks.h"

#include "chassis/proto.h"
#include "rowset.h"

typedef Google__Bigtable__V2__ReadRowsResponse__CellChunk cell_chunk;

#define RESET GOOGLE__BIGTABLE__V2__READ_ROWS_RESPONSE__CELL_CHUNK__ROW_STATUS_RESET_ROW
#define COMMIT GOOGLE__BIGTABLE__V2__READ_ROWS_RESPONSE__CELL_CHUNK__ROW_STATUS_COMMIT_ROW

void tab_chunk_reader_init(struct tab_chunk_reader *reader, bool reversed)
{
    *reader = (struct tab_chunk_reader){ .reversed = reversed };
}

void tab_chunk_reader_destroy(struct tab_chunk_reader *reader)
{
    base_buf_free(&reader->last_row);
    base_buf_free(&reader->value);
    base_arena_free(&reader->arena);
}

void tab_chunk_reader_restart(struct tab_chunk_reader *reader)
{
    reader->in_row = reader->in_cell = false;
    reader->cell_count = reader->cell_cap = 0;
    reader->cells = NULL;
    base_arena_reset(&reader->arena);
}

static struct base_status broken(const char *what)
{
    return base_status_make(BASE_INTERNAL, "ReadRows: the stream breaks the CellChunk protocol: %s",
                            what);
}

static struct base_status begin_row(struct tab_chunk_reader *reader, const cell_chunk *chunk)
{
    struct base_bytes key = ch_bytes_of(chunk->row_key);
    if (key.len == 0)
        return broken("a row without a key");
    if (!chunk->family_name || !chunk->qualifier)
        return broken("a row that begins without a column");
    if (reader->any_row) {
        int order = base_bytes_cmp(key, base_buf_bytes(&reader->last_row));
        if (reader->reversed ? order >= 0 : order <= 0)
            return broken("row keys out of order");
    }
    reader->in_row = true;
    reader->key = base_bytes_dup(&reader->arena, key);
    return BASE_STATUS_OK;
}

static struct tab_cell *add_cell(struct tab_chunk_reader *reader)
{
    if (reader->cell_count == reader->cell_cap) {
        size_t cap = reader->cell_cap ? reader->cell_cap * 2 : 16;
        struct tab_cell *more = BASE_NEW_ARRAY(&reader->arena, struct tab_cell, cap);
        if (reader->cell_count)
            memcpy(more, reader->cells, reader->cell_count * sizeof(*more));
        reader->cells = more;
        reader->cell_cap = cap;
    }
    return &reader->cells[reader->cell_count++];
}

static struct base_status begin_cell(struct tab_chunk_reader *reader, const cell_chunk *chunk)
{
    if (!reader->in_row) {
        struct base_status status = begin_row(reader, chunk);
        if (base_failed(status))
            return status;
    } else if (chunk->row_key.len && !base_bytes_eq(ch_bytes_of(chunk->row_key), reader->key)) {
        return broken("a new row before the last one was committed");
    }
    if (chunk->family_name) {
        if (!chunk->qualifier)
            return broken("a new family without a qualifier");
        reader->family = base_bytes_dup(&reader->arena, ch_bytes_of(chunk->family_name->value));
    }
    if (chunk->qualifier)
        reader->qualifier = base_bytes_dup(&reader->arena, ch_bytes_of(chunk->qualifier->value));
    struct tab_cell *cell = add_cell(reader);
    *cell = (struct tab_cell){ .family = reader->family,
                               .qualifier = reader->qualifier,
                               .timestamp_us = chunk->timestamp_micros };
    return BASE_STATUS_OK;
}

static struct base_status take_value(struct tab_chunk_reader *reader, const cell_chunk *chunk)
{
    struct tab_cell *cell = &reader->cells[reader->cell_count - 1];
    struct base_bytes piece = ch_bytes_of(chunk->value);
    bool more = chunk->value_size > 0;
    if (more && chunk->row_status_case == COMMIT)
        return broken("a commit in the middle of a value");
    if (!reader->in_cell && !more) {
        cell->value = base_bytes_dup(&reader->arena, piece);
        return BASE_STATUS_OK;
    }
    if (!reader->in_cell) {
        base_buf_clear(&reader->value);
        reader->value_size = (size_t)chunk->value_size;
    }
    base_buf_put_bytes(&reader->value, piece);
    reader->in_cell = more;
    if (more)
        return BASE_STATUS_OK;
    if (reader->value.len != reader->value_size)
        return broken("a value of another size than was told");
    cell->value = base_bytes_dup(&reader->arena, base_buf_bytes(&reader->value));
    return BASE_STATUS_OK;
}

static struct base_status take_chunk(struct tab_chunk_reader *reader, const cell_chunk *chunk,
                                     tab_row_fn *fn, void *self, bool *wanted) CH_WAITS;
static struct base_status take_chunk(struct tab_chunk_reader *reader, const cell_chunk *chunk,
                                     tab_row_fn *fn, void *self, bool *wanted)
{
    if (chunk->row_status_case == RESET && chunk->reset_row) {
        if (!reader->in_row)
            return broken("a reset outside a row");
        if (chunk->row_key.len || chunk->family_name || chunk->qualifier || chunk->value.len ||
            chunk->timestamp_micros)
            return broken("a reset that carries data");
        tab_chunk_reader_restart(reader);
        return BASE_STATUS_OK;
    }
    struct base_status status = reader->in_cell ? BASE_STATUS_OK : begin_cell(reader, chunk);
    if (!base_failed(status))
        status = take_value(reader, chunk);
    if (base_failed(status) || chunk->row_status_case != COMMIT || !chunk->commit_row)
        return status;
    struct tab_row row = { reader->key, reader->cells, reader->cell_count };
    base_buf_clear(&reader->last_row);
    base_buf_put_bytes(&reader->last_row, reader->key);
    reader->any_row = true;
    *wanted = fn(self, &row);
    tab_chunk_reader_restart(reader);
    return BASE_STATUS_OK;
}

struct base_status tab_chunk_reader_take(struct tab_chunk_reader *reader,
                                         const Google__Bigtable__V2__ReadRowsResponse *message,
                                         tab_row_fn *fn, void *self)
{
    struct base_status status = BASE_STATUS_OK;
    bool wanted = true;
    for (size_t i = 0; i < message->n_chunks && wanted && !base_failed(status); i++)
        status = take_chunk(reader, message->chunks[i], fn, self, &wanted);
    return status;
}

bool tab_rest_of_request(const Google__Bigtable__V2__ReadRowsRequest *request,
                         struct base_bytes last, uint64_t rows, struct base_arena *arena,
                         Google__Bigtable__V2__ReadRowsRequest *rest)
{
    struct tab_span *spans;
    size_t count, kept = 0;
    *rest = *request;
    if (request->rows_limit > 0) {
        if (rows >= (uint64_t)request->rows_limit)
            return false;
        rest->rows_limit = request->rows_limit - (int64_t)rows;
    }
    struct base_status status = tab_rowset_spans(request->rows, arena, &spans, &count);
    if (base_failed(status)) { /* the server will say so itself */
        base_status_free(&status);
        return true;
    }
    for (size_t i = 0; i < count; i++) {
        struct tab_span span = spans[i];
        bool any = request->reversed
                       ? tab_span_clip(&span, BASE_BYTES_EMPTY, last)
                       : tab_span_clip(&span, tab_key_after(arena, last), BASE_BYTES_EMPTY);
        if (any)
            spans[kept++] = span;
    }
    if (kept == 0)
        return false;
    rest->rows = tab_rowset_make(spans, kept, arena);
    return true;
}
