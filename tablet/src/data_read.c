/* data_read.c: ReadRows: a stream of rows, piece by piece of the row set, each piece from the
 * tablet that holds it (here, or from another tabletserver, whose stream is passed through).
 *
 * Invariants: 1. What was sent and committed is never sent again: after a move reading goes on
 * behind the last committed row.
 * 2. A row that was begun but not committed is taken back with reset_row before anything else is
 * sent. 3. Memory: one message (chunk.h) and what LevelDB pins. 4. A row is read from one view
 * at one snapshot; the next row may see more. */
#include "data.h"

#include <stdlib.h>

#include "google/bigtable/v2/bigtable.strata.h"

enum { SPANS_A_CALL = 2000 };

struct read {
    struct tab_server *server;
    struct ch_call *call;
    const Google__Bigtable__V2__ReadRowsRequest *request;
    struct tab_schema *schema;
    struct tab_filter *filter;
    struct tab_span *spans;
    size_t span_count, at; /* spans[at] is being read (reversed: from the last one down) */
    struct base_buf done;  /* the last row that was read, or skipped for good */
    bool any_done;
    int64_t left;                 /* rows still wanted; -1: all */
    bool reversed, hop, half_row; /* half_row: chunks of an uncommitted row have been sent */
    struct tab_chunker chunker;
    ch_time deadline;
    struct base_arena piece; /* of the piece being read */
    int64_t rows_seen, rows_returned, cells_seen, cells_returned;
};

static void note_done(struct read *read, struct base_bytes row)
{
    base_buf_clear(&read->done);
    base_buf_put_bytes(&read->done, row);
    read->any_done = true;
}

static struct base_status send(struct read *read, bool all) CH_WAITS;
static struct base_status send(struct read *read, bool all)
{
    const Google__Bigtable__V2__ReadRowsResponse *message;
    while ((message = tab_chunker_take(&read->chunker, all))) {
        if (!tab_store_alive(&read->server->store))
            return base_status_make(BASE_UNAVAILABLE, "this server has lost its lock");
        read->half_row = read->chunker.in_row;
        struct base_status status = ch_call_send(read->call, message);
        if (base_failed(status))
            return status;
    }
    return BASE_STATUS_OK;
}

/* What is left of the present span: behind (reversed: before) the last row done. */
static bool rest_of_span(struct read *read, struct tab_span *span)
{
    *span = read->spans[read->at];
    if (!read->any_done)
        return true;
    struct base_bytes done = base_buf_bytes(&read->done);
    if (read->reversed)
        return tab_span_clip(span, BASE_BYTES_EMPTY, done);
    return tab_span_clip(span, tab_key_after(&read->piece, done), BASE_BYTES_EMPTY);
}

/* ---- here ---- */

static void on_cell(void *self, const struct tab_out_cell *cell)
{
    struct read *read = self;
    read->cells_returned++;
    tab_chunker_cell(&read->chunker, cell);
}

static struct base_status read_row(struct read *read, struct tab_cursor *cursor,
                                   struct base_bytes row) CH_WAITS;
static struct base_status read_row(struct read *read, struct tab_cursor *cursor,
                                   struct base_bytes row)
{
    struct base_status status = BASE_STATUS_OK;
    tab_cursor_refresh(cursor);
    read->rows_seen++;
    tab_chunker_begin_row(&read->chunker, row);
    if (tab_filter_begin(read->filter, row, ch_random(read->server->env), on_cell, read)) {
        struct tab_cell_view cell;
        bool done = false;
        while (!done && !base_failed(status) && tab_row_reader_next_cell(&cursor->reader, &cell)) {
            read->cells_seen++;
            status = tab_filter_push(read->filter, &cell, &done);
            if (!base_failed(status) && read->chunker.bytes >= TAB_CHUNK_MESSAGE)
                status = send(read, false);
        }
        if (!base_failed(status))
            status = tab_filter_end(read->filter);
    }
    if (!base_failed(status))
        status = tab_row_reader_status(&cursor->reader);
    if (base_failed(status))
        return status;
    if (tab_chunker_end_row(&read->chunker)) {
        read->rows_returned++;
        if (read->left > 0)
            read->left--;
    }
    ch_count(read->server->store.rows_read, 1);
    note_done(read, row);
    return send(read, false);
}

/* One span within one tablet. *moved: the tablet is no longer here (or its view is old): look
 * again. */
static struct base_status read_span_here(struct read *read, struct tab_tablet *tablet,
                                         const struct tab_span *span, bool *again) CH_WAITS;
static struct base_status read_span_here(struct read *read, struct tab_tablet *tablet,
                                         const struct tab_span *span, bool *again)
{
    struct tab_cursor cursor;
    struct base_status status = BASE_STATUS_OK;
    struct base_bytes row;
    *again = false;
    tab_cursor_open(&cursor, tablet, span->point ? &span->start : NULL,
                    tab_filter_hint(read->filter));
    if (!read->reversed)
        tab_row_reader_seek(&cursor.reader, span->start);
    for (bool first = true; read->left != 0 && !base_failed(status); first = false) {
        struct base_bytes before = first ? span->end : base_buf_bytes(&read->done);
        bool found = read->reversed
                         ? tab_row_reader_prev_row(&cursor.reader, before, before.len == 0, &row)
                         : tab_row_reader_next_row(&cursor.reader, &row);
        if (!found || (span->end.len && base_bytes_cmp(row, span->end) >= 0) ||
            base_bytes_cmp(row, span->start) < 0)
            break;
        if (tablet->state != TAB_SERVING || (!first && tab_cursor_stale(&cursor))) {
            *again = true;
            break;
        }
        status = read_row(read, &cursor, row);
        ch_yield_if_long();
    }
    if (!base_failed(status))
        status = tab_row_reader_status(&cursor.reader);
    tab_cursor_close(&cursor);
    tablet->reads++;
    return status;
}

/* ---- elsewhere ---- */

/* Takes back what was sent of a row that will be read again. */
static struct base_status reset_half_row(struct read *read) CH_WAITS;
static struct base_status reset_half_row(struct read *read)
{
    bool half = read->half_row;
    tab_chunker_drop_row(&read->chunker);
    struct base_status status = send(read, true);
    if (base_failed(status) || !half)
        return status;
    Google__Bigtable__V2__ReadRowsResponse__CellChunk chunk =
        GOOGLE__BIGTABLE__V2__READ_ROWS_RESPONSE__CELL_CHUNK__INIT;
    Google__Bigtable__V2__ReadRowsResponse__CellChunk *chunks = &chunk;
    Google__Bigtable__V2__ReadRowsResponse message = GOOGLE__BIGTABLE__V2__READ_ROWS_RESPONSE__INIT;
    chunk.row_status_case =
        GOOGLE__BIGTABLE__V2__READ_ROWS_RESPONSE__CELL_CHUNK__ROW_STATUS_RESET_ROW;
    chunk.reset_row = true;
    message.n_chunks = 1;
    message.chunks = &chunks;
    read->half_row = false;
    return ch_call_send(read->call, &message);
}

struct passing { /* the key of the row being passed through */
    struct base_buf row;
};

static void note_chunks(struct read *read, struct passing *passing,
                        const Google__Bigtable__V2__ReadRowsResponse *message)
{
    for (size_t i = 0; i < message->n_chunks; i++) {
        const Google__Bigtable__V2__ReadRowsResponse__CellChunk *chunk = message->chunks[i];
        if (chunk->row_key.len) {
            base_buf_clear(&passing->row);
            base_buf_put_bytes(&passing->row, ch_bytes_of(chunk->row_key));
        }
        read->half_row = true;
        if (chunk->row_status_case ==
            GOOGLE__BIGTABLE__V2__READ_ROWS_RESPONSE__CELL_CHUNK__ROW_STATUS_COMMIT_ROW) {
            note_done(read, base_buf_bytes(&passing->row));
            read->half_row = false;
            read->rows_returned++;
            if (read->left > 0)
                read->left--;
        } else if (chunk->row_status_case ==
                   GOOGLE__BIGTABLE__V2__READ_ROWS_RESPONSE__CELL_CHUNK__ROW_STATUS_RESET_ROW) {
            read->half_row = false;
        }
    }
}

static struct base_status pass_stream(
    struct read *read, const struct tab_location *location,
    const Google__Bigtable__V2__ReadRowsRequest *request) CH_WAITS;
static struct base_status pass_stream(struct read *read, const struct tab_location *location,
                                      const Google__Bigtable__V2__ReadRowsRequest *request)
{
    struct ch_call_options options = tab_hop_options(read->deadline);
    struct ch_client_stream *stream;
    struct base_status status = ch_client_open(
        tab_metac_peer(read->server->store.metac, location->address),
        &google__bigtable__v2__bigtable__service.methods[GOOGLE__BIGTABLE__V2__BIGTABLE__READ_ROWS],
        &options, &stream);
    if (base_failed(status))
        return status;
    struct base_arena arena = { 0 };
    struct passing passing = { 0 };
    status = ch_stream_send(stream, request);
    if (!base_failed(status))
        status = ch_stream_close_send(stream);
    while (!base_failed(status)) {
        Google__Bigtable__V2__ReadRowsResponse *message;
        base_arena_reset(&arena);
        status = ch_stream_recv(stream, &arena, (void **)&message);
        if (base_failed(status) || !message)
            break;
        struct base_status sent = ch_call_send(read->call, message);
        if (base_failed(sent)) {
            status = sent;
            status.code = BASE_CANCELLED; /* our client is gone: nothing to repeat */
            break;
        }
        note_chunks(read, &passing, message);
    }
    ch_stream_free(stream);
    base_arena_free(&arena);
    base_buf_free(&passing.row);
    return status;
}

/* The spans, from the present one on, that lie in the tablet, as one request. */
static struct base_status read_elsewhere(struct read *read,
                                         const struct tab_location *location) CH_WAITS;
static struct base_status read_elsewhere(struct read *read, const struct tab_location *location)
{
    struct tab_span *spans = BASE_NEW_ARRAY(&read->piece, struct tab_span, SPANS_A_CALL);
    size_t count = 0, at = read->at, last = at;
    for (;; at += read->reversed ? -1 : 1) {
        struct tab_span span;
        size_t present = read->at;
        read->at = at;
        bool any = rest_of_span(read, &span);
        read->at = present;
        if (any && !tab_span_clip(&span, location->start, location->end))
            break;
        if (any)
            spans[count++] = span;
        last = at;
        if (count == SPANS_A_CALL || at == (read->reversed ? 0 : read->span_count - 1))
            break;
    }
    Google__Bigtable__V2__ReadRowsRequest request = *read->request;
    request.rows = tab_rowset_make(spans, count, &read->piece);
    request.rows_limit = read->left > 0 ? read->left : 0;
    request.request_stats_view = 0;
    struct base_status status = send(read, true);
    if (!base_failed(status))
        status = pass_stream(read, location, &request);
    if (base_failed(status))
        return status;
    /* All of them are done up to the tablet's end, which the last one may go beyond. */
    read->at = last;
    struct base_bytes edge = read->reversed ? location->start : location->end;
    struct tab_span *span = &read->spans[last];
    bool beyond = read->reversed
                      ? base_bytes_cmp(span->start, edge) < 0
                      : edge.len && (span->end.len == 0 || base_bytes_cmp(span->end, edge) > 0);
    if (!beyond) {
        read->at += read->reversed ? -1 : 1;
    } else if (read->reversed) {
        span->end = base_bytes_dup(ch_call_arena(read->call), edge);
    } else {
        span->start = base_bytes_dup(ch_call_arena(read->call), edge);
    }
    return BASE_STATUS_OK;
}

/* ---- piece by piece ---- */

/* The row whose tablet is to be read next. Reversed: the greatest row of the rest, which for an
 * open end is "as great as can be". */
static struct base_bytes next_row(struct read *read, const struct tab_span *rest)
{
    static const uint8_t greatest[TAB_ROW_KEY_MAX + 1] = { [0 ... TAB_ROW_KEY_MAX] = 0xff };
    if (!read->reversed)
        return rest->start;
    if (rest->end.len == 0)
        return base_bytes(greatest, sizeof(greatest));
    /* The greatest row below `end`: without its last byte 00, or with that byte lowered and FFs
     * behind it. */
    size_t len = rest->end.len;
    if (rest->end.data[len - 1] == 0)
        return base_bytes(rest->end.data, len - 1);
    uint8_t *below = base_arena_alloc(&read->piece, len + 64);
    memcpy(below, rest->end.data, len);
    below[len - 1]--;
    memset(below + len, 0xff, 64);
    return base_bytes(below, len + 64);
}

static struct base_status read_here(struct read *read, struct tab_tablet *tablet,
                                    struct tab_span rest) CH_WAITS;
static struct base_status read_here(struct read *read, struct tab_tablet *tablet,
                                    struct tab_span rest)
{
    struct base_arena *arena = &read->piece;
    struct base_bytes start = base_bytes_dup(arena, base_buf_bytes(&tablet->start));
    struct base_bytes end = base_bytes_dup(arena, base_buf_bytes(&tablet->end));
    struct tab_span part = rest;
    bool again = false;
    struct base_status status = BASE_STATUS_OK;
    if (tab_span_clip(&part, start, end))
        status = read_span_here(read, tablet, &part, &again);
    if (base_failed(status) || again)
        return status;
    struct tab_span *span = &read->spans[read->at];
    bool beyond = read->reversed ? base_bytes_cmp(rest.start, part.start) < 0
                                 : part.end.len && (rest.end.len == 0 ||
                                                    base_bytes_cmp(rest.end, part.end) > 0);
    if (!beyond)
        read->at += read->reversed ? -1 : 1;
    else if (read->reversed)
        span->end = base_bytes_dup(ch_call_arena(read->call), part.start);
    else
        span->start = base_bytes_dup(ch_call_arena(read->call), part.end);
    return BASE_STATUS_OK;
}

static struct base_status read_piece(struct read *read) CH_WAITS;
static struct base_status read_piece(struct read *read)
{
    struct tab_span rest;
    base_arena_reset(&read->piece);
    if (!rest_of_span(read, &rest)) {
        read->at += read->reversed ? -1 : 1;
        return BASE_STATUS_OK;
    }
    struct tab_tablet *tablet;
    struct tab_location location;
    struct base_status status =
        tab_route_find(read->server, read->schema, next_row(read, &rest), read->hop, read->deadline,
                       &read->piece, &tablet, &location);
    if (status.code == BASE_NOT_FOUND)
        status.code = BASE_OUT_OF_RANGE;
    if (base_failed(status))
        return status;
    if (!tablet)
        return read_elsewhere(read, &location);
    status = read_here(read, tablet, rest);
    tab_tablet_unref(tablet);
    return status;
}

static struct base_status look_again(struct read *read) CH_WAITS;
static struct base_status look_again(struct read *read)
{
    struct tab_schema *schema;
    struct base_status status = tab_server_schema(
        read->server, ch_bytes_of(read->request->table_name), true, read->deadline, &schema);
    if (base_failed(status))
        return status;
    if (schema->table != read->schema->table) {
        tab_schema_unref(schema);
        return base_status_make(BASE_NOT_FOUND, "Table not found: %s (made anew while it was read)",
                                read->schema->name);
    }
    tab_schema_unref(schema);
    struct tab_span rest;
    if (rest_of_span(read, &rest))
        tab_metac_forget(read->server->store.metac, read->schema->table, next_row(read, &rest));
    return BASE_STATUS_OK;
}

static struct base_status run(struct read *read) CH_WAITS;
static struct base_status run(struct read *read)
{
    int attempt = 0;
    read->at = read->reversed ? read->span_count - 1 : 0;
    while (read->at < read->span_count &&
           read->left != 0) { /* reversed: below zero is beyond the count */
        size_t at = read->at;
        int64_t returned = read->rows_returned;
        struct base_status status = read_piece(read);
        if (!base_failed(status)) {
            attempt = 0;
            continue;
        }
        if (at != read->at || returned != read->rows_returned)
            attempt = 0;
        if (read->hop ||
            !tab_route_again(read->server, &status, false, attempt++, read->deadline)) {
            if (!read->hop && status.code == BASE_OUT_OF_RANGE)
                status.code = BASE_UNAVAILABLE;
            return status;
        }
        base_status_free(&status);
        status = reset_half_row(read);
        if (!base_failed(status))
            status = look_again(read);
        if (base_failed(status))
            return status;
    }
    return send(read, true);
}

static struct base_status send_stats(struct read *read) CH_WAITS;
static struct base_status send_stats(struct read *read)
{
    if (read->request->request_stats_view !=
        GOOGLE__BIGTABLE__V2__READ_ROWS_REQUEST__REQUEST_STATS_VIEW__REQUEST_STATS_FULL)
        return BASE_STATUS_OK;
    Google__Bigtable__V2__ReadRowsResponse message = GOOGLE__BIGTABLE__V2__READ_ROWS_RESPONSE__INIT;
    Google__Bigtable__V2__RequestStats stats = GOOGLE__BIGTABLE__V2__REQUEST_STATS__INIT;
    Google__Bigtable__V2__FullReadStatsView view = GOOGLE__BIGTABLE__V2__FULL_READ_STATS_VIEW__INIT;
    Google__Bigtable__V2__ReadIterationStats iteration =
        GOOGLE__BIGTABLE__V2__READ_ITERATION_STATS__INIT;
    iteration.rows_seen_count = read->rows_seen;
    iteration.rows_returned_count = read->rows_returned;
    iteration.cells_seen_count = read->cells_seen;
    iteration.cells_returned_count = read->cells_returned;
    view.read_iteration_stats = &iteration;
    stats.stats_view_case = GOOGLE__BIGTABLE__V2__REQUEST_STATS__STATS_VIEW_FULL_READ_STATS_VIEW;
    stats.full_read_stats_view = &view;
    message.request_stats = &stats;
    return ch_call_send(read->call, &message);
}

static struct base_status prepare(struct read *read)
{
    const Google__Bigtable__V2__ReadRowsRequest *request = read->request;
    if (request->authorized_view_name.len || request->materialized_view_name.len)
        return tab_no_views(BASE_BYTES_LIT("view"));
    if (request->rows_limit < 0)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "Error in field 'rows_limit' : must be non-negative");
    read->left = request->rows_limit ? request->rows_limit : -1;
    read->reversed = request->reversed;
    struct base_status status = tab_table_name_check(ch_bytes_of(request->table_name));
    if (!base_failed(status))
        status = tab_rowset_spans(request->rows, ch_call_arena(read->call), &read->spans,
                                  &read->span_count);
    return status;
}

struct base_status tab_on_read_rows(void *self, struct ch_call *call) CH_WAITS;
struct base_status tab_on_read_rows(void *self, struct ch_call *call)
{
    struct tab_server *server = self;
    struct read read = { .server = server,
                         .call = call,
                         .deadline = tab_call_deadline(server, call),
                         .hop = tab_call_is_hop(call) };
    struct base_status status = ch_call_recv(call, NULL, (void **)&read.request);
    if (base_failed(status))
        return status;
    if (!read.request)
        return base_status_make(BASE_INVALID_ARGUMENT, "ReadRows: no request");
    status = prepare(&read);
    if (!base_failed(status))
        status = tab_server_schema(server, ch_bytes_of(read.request->table_name), false,
                                   read.deadline, &read.schema);
    if (base_failed(status))
        return status;
    status =
        tab_filter_compile(read.request->filter, read.schema, ch_call_arena(call), &read.filter);
    if (!base_failed(status)) {
        tab_chunker_init(&read.chunker);
        status = run(&read);
        if (!base_failed(status))
            status = send_stats(&read);
        tab_chunker_destroy(&read.chunker);
        tab_filter_destroy(read.filter);
    }
    base_buf_free(&read.done);
    base_arena_free(&read.piece);
    tab_schema_unref(read.schema);
    return status;
}
