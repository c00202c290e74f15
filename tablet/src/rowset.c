/* rowset.c: see rowset.h. */
#include "rowset.h"

#include <stdlib.h>

struct base_bytes tab_key_after(struct base_arena *arena, struct base_bytes key)
{
    uint8_t *after = base_arena_alloc(arena, key.len + 1);
    if (key.len)
        memcpy(after, key.data, key.len);
    after[key.len] = 0;
    return base_bytes(after, key.len + 1);
}

static struct base_status span_of(const Google__Bigtable__V2__RowRange *range,
                                  struct base_arena *arena, struct tab_span *span)
{
    bool open_start =
        range->start_key_case == GOOGLE__BIGTABLE__V2__ROW_RANGE__START_KEY_START_KEY_OPEN;
    bool closed_end =
        range->end_key_case == GOOGLE__BIGTABLE__V2__ROW_RANGE__END_KEY_END_KEY_CLOSED;
    struct base_bytes start = BASE_BYTES_EMPTY, end = BASE_BYTES_EMPTY;
    if (open_start)
        start = ch_bytes_of(range->start_key_open);
    else if (range->start_key_case == GOOGLE__BIGTABLE__V2__ROW_RANGE__START_KEY_START_KEY_CLOSED)
        start = ch_bytes_of(range->start_key_closed);
    if (closed_end)
        end = ch_bytes_of(range->end_key_closed);
    else if (range->end_key_case == GOOGLE__BIGTABLE__V2__ROW_RANGE__END_KEY_END_KEY_OPEN)
        end = ch_bytes_of(range->end_key_open);
    if (end.len) {
        int order = base_bytes_cmp(start, end);
        if (order > 0 || (order == 0 && (open_start || !closed_end)))
            return base_status_make(
                BASE_INVALID_ARGUMENT,
                "Error in field 'row_ranges' : start_key must be less than end_key");
    }
    *span = (struct tab_span){ open_start && start.len ? tab_key_after(arena, start) : start,
                               closed_end && end.len ? tab_key_after(arena, end) : end, false };
    return BASE_STATUS_OK;
}

static int by_start(const void *a, const void *b)
{
    const struct tab_span *x = a, *y = b;
    return base_bytes_cmp(x->start, y->start);
}

static size_t merge_spans(struct tab_span *spans, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        struct tab_span *last = kept ? &spans[kept - 1] : NULL;
        bool joins = last && (last->end.len == 0 || base_bytes_cmp(spans[i].start, last->end) < 0);
        if (!joins) {
            spans[kept++] = spans[i];
            continue;
        }
        if (last->end.len &&
            (spans[i].end.len == 0 || base_bytes_cmp(spans[i].end, last->end) > 0)) {
            last->end = spans[i].end;
            last->point = false;
        }
    }
    return kept;
}

struct base_status tab_rowset_spans(const Google__Bigtable__V2__RowSet *rows,
                                    struct base_arena *arena, struct tab_span **spans,
                                    size_t *count)
{
    size_t n = rows ? rows->n_row_keys + rows->n_row_ranges : 0, at = 0;
    *spans = BASE_NEW_ARRAY(arena, struct tab_span, n + 1);
    if (n == 0) {
        *count = 1;
        return BASE_STATUS_OK;
    }
    for (size_t i = 0; i < rows->n_row_keys; i++) {
        struct base_bytes key = ch_bytes_of(rows->row_keys[i]);
        if (key.len == 0)
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "Error in field 'row_keys' : Row keys must be non-empty");
        (*spans)[at++] = (struct tab_span){ key, tab_key_after(arena, key), true };
    }
    for (size_t i = 0; i < rows->n_row_ranges; i++) {
        struct base_status status = span_of(rows->row_ranges[i], arena, &(*spans)[at++]);
        if (base_failed(status))
            return status;
    }
    qsort(*spans, n, sizeof(**spans), by_start);
    *count = merge_spans(*spans, n);
    return BASE_STATUS_OK;
}

bool tab_span_clip(struct tab_span *span, struct base_bytes start, struct base_bytes end)
{
    if (base_bytes_cmp(start, span->start) > 0)
        span->start = start;
    if (end.len && (span->end.len == 0 || base_bytes_cmp(end, span->end) < 0))
        span->end = end;
    return span->end.len == 0 || base_bytes_cmp(span->start, span->end) < 0;
}

Google__Bigtable__V2__RowSet *tab_rowset_make(const struct tab_span *spans, size_t count,
                                              struct base_arena *arena)
{
    Google__Bigtable__V2__RowSet *set =
        CH_MESSAGE(arena, Google__Bigtable__V2__RowSet, google__bigtable__v2__row_set);
    set->row_keys = BASE_NEW_ARRAY(arena, ProtobufCBinaryData, count);
    set->row_ranges = BASE_NEW_ARRAY(arena, Google__Bigtable__V2__RowRange *, count);
    for (size_t i = 0; i < count; i++) {
        if (spans[i].point) {
            set->row_keys[set->n_row_keys++] = ch_data_of(spans[i].start);
            continue;
        }
        Google__Bigtable__V2__RowRange *range =
            CH_MESSAGE(arena, Google__Bigtable__V2__RowRange, google__bigtable__v2__row_range);
        if (spans[i].start.len) {
            range->start_key_case = GOOGLE__BIGTABLE__V2__ROW_RANGE__START_KEY_START_KEY_CLOSED;
            range->start_key_closed = ch_data_of(spans[i].start);
        }
        if (spans[i].end.len) {
            range->end_key_case = GOOGLE__BIGTABLE__V2__ROW_RANGE__END_KEY_END_KEY_OPEN;
            range->end_key_open = ch_data_of(spans[i].end);
        }
        set->row_ranges[set->n_row_ranges++] = range;
    }
    return set;
}
