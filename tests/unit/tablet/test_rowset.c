/* Row sets become sorted, disjoint spans; a resumed read asks for exactly what is left. */
#include <stdio.h>

#include "chassis/proto.h"
#include "client_chunks.h"
#include "rowset.h"
#include "test.h"

static struct base_arena arena;

static Google__Bigtable__V2__RowRange *range(const char *start, bool open, const char *end,
                                             bool closed)
{
    Google__Bigtable__V2__RowRange *r =
        CH_MESSAGE(&arena, Google__Bigtable__V2__RowRange, google__bigtable__v2__row_range);
    if (start) {
        r->start_key_case = open ? GOOGLE__BIGTABLE__V2__ROW_RANGE__START_KEY_START_KEY_OPEN
                                 : GOOGLE__BIGTABLE__V2__ROW_RANGE__START_KEY_START_KEY_CLOSED;
        r->start_key_closed = ch_data_str(start);
    }
    if (end) {
        r->end_key_case = closed ? GOOGLE__BIGTABLE__V2__ROW_RANGE__END_KEY_END_KEY_CLOSED
                                 : GOOGLE__BIGTABLE__V2__ROW_RANGE__END_KEY_END_KEY_OPEN;
        r->end_key_open = ch_data_str(end);
    }
    return r;
}

static const char *show(const struct tab_span *spans, size_t count)
{
    struct base_buf out = { 0 };
    for (size_t i = 0; i < count; i++)
        base_buf_printf(&out, "%s[%s,%s)%s", i ? " " : "",
                        base_bytes_show(&arena, spans[i].start, 50),
                        spans[i].end.len ? base_bytes_show(&arena, spans[i].end, 50) : "*",
                        spans[i].point ? "." : "");
    char *text = base_bytes_cstr(&arena, base_buf_bytes(&out));
    base_buf_free(&out);
    return text;
}

/* Keys and ranges in any order, overlapping, twice: each row once, in order. */
Test(rowset, spans)
{
    ProtobufCBinaryData keys[] = { ch_data_str("m"), ch_data_str("b"), ch_data_str("m"),
                                   ch_data_str("z") };
    Google__Bigtable__V2__RowRange *ranges[] = { range("c", false, "e", false),
                                                 range("a", true, "b", true),
                                                 range("d", false, "f", true) };
    Google__Bigtable__V2__RowSet set = GOOGLE__BIGTABLE__V2__ROW_SET__INIT;
    struct tab_span *spans;
    size_t count;
    set.n_row_keys = 4;
    set.row_keys = keys;
    set.n_row_ranges = 3;
    set.row_ranges = ranges;
    struct base_status status = tab_rowset_spans(&set, &arena, &spans, &count);
    cr_assert(!base_failed(status));
    cr_assert_str_eq(show(spans, count), "[a\\x00,b\\x00) [c,f\\x00) [m,m\\x00). [z,z\\x00).", "%s",
                     show(spans, count));
    status = tab_rowset_spans(NULL, &arena, &spans, &count);
    cr_assert(!base_failed(status));
    cr_assert_str_eq(show(spans, count), "[,*)");
    base_arena_free(&arena);
}

/* Ranges that can hold nothing are the client's error, as on the service; [k,k] is one row. */
Test(rowset, empty_ranges)
{
    static const struct {
        const char *start, *end;
        bool open, closed, good;
    } cases[] = { { "b", "a", false, false, false }, { "a", "a", false, false, false },
                  { "a", "a", true, true, false },   { "a", "a", false, true, true },
                  { "a", NULL, true, false, true },  { NULL, "a", false, false, true } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        Google__Bigtable__V2__RowRange *r =
            range(cases[i].start, cases[i].open, cases[i].end, cases[i].closed);
        Google__Bigtable__V2__RowSet set = GOOGLE__BIGTABLE__V2__ROW_SET__INIT;
        struct tab_span *spans;
        size_t count;
        set.n_row_ranges = 1;
        set.row_ranges = &r;
        struct base_status status = tab_rowset_spans(&set, &arena, &spans, &count);
        cr_assert_eq(status.code, cases[i].good ? BASE_OK : BASE_INVALID_ARGUMENT, "case %zu", i);
        base_status_free(&status);
    }
    base_arena_free(&arena);
}

/* After row "d" of [b,f) and key "z": what is left, forwards and backwards; a limit counts what
 * was read; at the end nothing is asked. */
Test(rowset, resuming)
{
    ProtobufCBinaryData key = ch_data_str("z");
    Google__Bigtable__V2__RowRange *r = range("b", false, "f", false);
    Google__Bigtable__V2__RowSet set = GOOGLE__BIGTABLE__V2__ROW_SET__INIT;
    Google__Bigtable__V2__ReadRowsRequest request = GOOGLE__BIGTABLE__V2__READ_ROWS_REQUEST__INIT,
                                          rest;
    struct tab_span *spans;
    size_t count;
    set.n_row_ranges = 1;
    set.row_ranges = &r;
    set.n_row_keys = 1;
    set.row_keys = &key;
    request.rows = &set;
    request.rows_limit = 5;
    cr_assert(tab_rest_of_request(&request, BASE_BYTES_LIT("d"), 3, &arena, &rest));
    cr_assert_eq(rest.rows_limit, 2);
    struct base_status status = tab_rowset_spans(rest.rows, &arena, &spans, &count);
    cr_assert(!base_failed(status));
    cr_assert_str_eq(show(spans, count), "[d\\x00,f) [z,z\\x00).", "%s", show(spans, count));
    request.reversed = true;
    cr_assert(tab_rest_of_request(&request, BASE_BYTES_LIT("d"), 3, &arena, &rest));
    status = tab_rowset_spans(rest.rows, &arena, &spans, &count);
    cr_assert(!base_failed(status));
    cr_assert_str_eq(show(spans, count), "[b,d)", "%s", show(spans, count));
    request.reversed = false;
    cr_assert(!tab_rest_of_request(&request, BASE_BYTES_LIT("d"), 5, &arena, &rest));
    cr_assert(!tab_rest_of_request(&request, BASE_BYTES_LIT("z"), 1, &arena, &rest));
    base_arena_free(&arena);
}
