/* Every kind of RowFilter does what google.bigtable.v2 says, over one row written out below; and
 * what is wrong is refused by name. Rows of the table: a filter as a small tree, and the cells
 * it lets through, in order. */
#include <stdio.h>
#include <stdlib.h>

#include "chassis/proto.h"
#include "filter.h"
#include "test.h"

typedef Google__Bigtable__V2__RowFilter F;
static struct base_arena arena;

static F *make(int kind)
{
    F *filter = CH_MESSAGE(&arena, F, google__bigtable__v2__row_filter);
    filter->filter_case = (Google__Bigtable__V2__RowFilter__FilterCase)kind;
    return filter;
}

#define CASE(name) GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER_##name
#define BYTES(text) ch_data_of(base_bytes_str(text))

static F *regex(int kind, const char *pattern)
{
    F *filter = make(kind);
    filter->column_qualifier_regex_filter =
        BYTES(pattern); /* all four regexes share the union's place */
    return filter;
}

static F *number(int kind, int32_t n)
{
    F *filter = make(kind);
    filter->cells_per_row_limit_filter = n;
    return filter;
}

static F *flag(int kind)
{
    F *filter = make(kind);
    filter->sink = true;
    return filter;
}

static F *list(int kind, size_t count, F **members)
{
    F *filter = make(kind);
    F **copy = base_arena_memdup(&arena, members, count * sizeof(*members));
    if (kind == CASE(CHAIN)) {
        filter->chain = CH_MESSAGE(&arena, Google__Bigtable__V2__RowFilter__Chain,
                                   google__bigtable__v2__row_filter__chain);
        filter->chain->n_filters = count;
        filter->chain->filters = copy;
    } else {
        filter->interleave = CH_MESSAGE(&arena, Google__Bigtable__V2__RowFilter__Interleave,
                                        google__bigtable__v2__row_filter__interleave);
        filter->interleave->n_filters = count;
        filter->interleave->filters = copy;
    }
    return filter;
}
#define CHAIN(...) \
    list(CASE(CHAIN), sizeof((F *[]){ __VA_ARGS__ }) / sizeof(F *), (F *[]){ __VA_ARGS__ })
#define INTERLEAVE(...) \
    list(CASE(INTERLEAVE), sizeof((F *[]){ __VA_ARGS__ }) / sizeof(F *), (F *[]){ __VA_ARGS__ })

static F *condition(F *predicate, F *yes, F *no)
{
    F *filter = make(CASE(CONDITION));
    filter->condition = CH_MESSAGE(&arena, Google__Bigtable__V2__RowFilter__Condition,
                                   google__bigtable__v2__row_filter__condition);
    filter->condition->predicate_filter = predicate;
    filter->condition->true_filter = yes;
    filter->condition->false_filter = no;
    return filter;
}

static F *column_range(const char *family, const char *start, const char *end)
{
    F *filter = make(CASE(COLUMN_RANGE_FILTER));
    Google__Bigtable__V2__ColumnRange *range =
        CH_MESSAGE(&arena, Google__Bigtable__V2__ColumnRange, google__bigtable__v2__column_range);
    range->family_name = BYTES(family);
    range->start_qualifier_case =
        GOOGLE__BIGTABLE__V2__COLUMN_RANGE__START_QUALIFIER_START_QUALIFIER_CLOSED;
    range->start_qualifier_closed = BYTES(start);
    range->end_qualifier_case =
        GOOGLE__BIGTABLE__V2__COLUMN_RANGE__END_QUALIFIER_END_QUALIFIER_OPEN;
    range->end_qualifier_open = BYTES(end);
    filter->column_range_filter = range;
    return filter;
}

static F *value_range(const char *start, const char *end)
{
    F *filter = make(CASE(VALUE_RANGE_FILTER));
    Google__Bigtable__V2__ValueRange *range =
        CH_MESSAGE(&arena, Google__Bigtable__V2__ValueRange, google__bigtable__v2__value_range);
    range->start_value_case = GOOGLE__BIGTABLE__V2__VALUE_RANGE__START_VALUE_START_VALUE_CLOSED;
    range->start_value_closed = BYTES(start);
    range->end_value_case = GOOGLE__BIGTABLE__V2__VALUE_RANGE__END_VALUE_END_VALUE_CLOSED;
    range->end_value_closed = BYTES(end);
    filter->value_range_filter = range;
    return filter;
}

static F *times(int64_t start, int64_t end)
{
    F *filter = make(CASE(TIMESTAMP_RANGE_FILTER));
    filter->timestamp_range_filter = CH_MESSAGE(&arena, Google__Bigtable__V2__TimestampRange,
                                                google__bigtable__v2__timestamp_range);
    filter->timestamp_range_filter->start_timestamp_micros = start;
    filter->timestamp_range_filter->end_timestamp_micros = end;
    return filter;
}

static F *label(const char *text)
{
    F *filter = make(CASE(APPLY_LABEL_TRANSFORMER));
    filter->apply_label_transformer = BYTES(text);
    return filter;
}

/* ---- the row: family:qualifier@milliseconds=value ---- */

static const struct tab_family families[] = { { .name = { (const uint8_t *)"f", 1 }, .id = 1 },
                                              { .name = { (const uint8_t *)"g", 1 }, .id = 2 } };
static const struct {
    int family;
    const char *qualifier;
    int64_t ms;
    const char *value;
} row[] = { { 0, "a", 3, "x" },  { 0, "a", 2, "y" }, { 0, "b", 2, "xy" },
            { 0, "ba", 1, "z" }, { 1, "a", 2, "x" }, { 1, "c\n", 1, "" } };

static char shown[1024];

static void show(void *self, const struct tab_out_cell *cell)
{
    size_t len = strlen(shown);
    snprintf(shown + len, sizeof(shown) - len, "%s%.*s:%.*s@%lld=%.*s%s%.*s", len ? " " : "",
             BASE_FMT(cell->family), BASE_FMT(cell->qualifier),
             (long long)cell->timestamp_us / 1000, BASE_FMT(cell->value),
             cell->label.len ? "#" : "", BASE_FMT(cell->label));
}

static const char *through(F *proto)
{
    struct tab_filter *filter;
    struct base_status status = tab_filter_compile(proto, NULL, &arena, &filter);
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    shown[0] = 0;
    bool done = false;
    for (int round = 0; round < 2; round++) { /* twice: no state is left from the row before */
        shown[0] = 0;
        done = false;
        if (!tab_filter_begin(filter, BASE_BYTES_LIT("row1"), 0, show, NULL))
            continue;
        for (size_t i = 0; i < sizeof(row) / sizeof(row[0]) && !done; i++) {
            struct tab_cell_view cell = { &families[row[i].family],
                                          base_bytes_str(row[i].qualifier),
                                          base_bytes_str(row[i].value), row[i].ms * 1000 };
            status = tab_filter_push(filter, &cell, &done);
            cr_assert(!base_failed(status));
        }
        status = tab_filter_end(filter);
        cr_assert(!base_failed(status));
    }
    tab_filter_destroy(filter);
    return shown;
}

#define ALL "f:a@3=x f:a@2=y f:b@2=xy f:ba@1=z g:a@2=x g:c\n@1="

static void check(const char *name, F *filter, const char *expected)
{
    const char *got = through(filter);
    cr_assert_str_eq(got, expected, "%s: got \"%s\", not \"%s\"", name, got, expected);
}

/* One filter of each kind. */
Test(filter, simple_kinds)
{
    check("none", NULL, ALL);
    check("pass", flag(CASE(PASS_ALL_FILTER)), ALL);
    check("block", flag(CASE(BLOCK_ALL_FILTER)), "");
    check("sink", flag(CASE(SINK)), ALL);
    check("row regex", regex(CASE(ROW_KEY_REGEX_FILTER), "row[0-9]"), ALL);
    check("row regex is a full match", regex(CASE(ROW_KEY_REGEX_FILTER), "row"), "");
    check("family", regex(CASE(FAMILY_NAME_REGEX_FILTER), "g"), "g:a@2=x g:c\n@1=");
    check("qualifier", regex(CASE(COLUMN_QUALIFIER_REGEX_FILTER), "b.?"), "f:b@2=xy f:ba@1=z");
    check("a dot is no newline", regex(CASE(COLUMN_QUALIFIER_REGEX_FILTER), "c."), "");
    check("any byte", regex(CASE(COLUMN_QUALIFIER_REGEX_FILTER), "c\\C"), "g:c\n@1=");
    check("value", regex(CASE(VALUE_REGEX_FILTER), "x|z"), "f:a@3=x f:ba@1=z g:a@2=x");
    check("empty value", regex(CASE(VALUE_REGEX_FILTER), ""), "g:c\n@1=");
    check("columns", column_range("f", "a", "ba"), "f:a@3=x f:a@2=y f:b@2=xy");
    check("values", value_range("x", "xy"), "f:a@3=x f:b@2=xy g:a@2=x");
    check("times", times(2000, 3000), "f:a@2=y f:b@2=xy g:a@2=x");
    check("times without end", times(2000, 0), "f:a@3=x f:a@2=y f:b@2=xy g:a@2=x");
    check("row offset", number(CASE(CELLS_PER_ROW_OFFSET_FILTER), 4), "g:a@2=x g:c\n@1=");
    check("row limit", number(CASE(CELLS_PER_ROW_LIMIT_FILTER), 2), "f:a@3=x f:a@2=y");
    check("column limit", number(CASE(CELLS_PER_COLUMN_LIMIT_FILTER), 1),
          "f:a@3=x f:b@2=xy f:ba@1=z g:a@2=x g:c\n@1=");
    check("strip", flag(CASE(STRIP_VALUE_TRANSFORMER)),
          "f:a@3= f:a@2= f:b@2= f:ba@1= g:a@2= g:c\n@1=");
    check("label", CHAIN(number(CASE(CELLS_PER_ROW_LIMIT_FILTER), 1), label("l-1")), "f:a@3=x#l-1");
    base_arena_free(&arena);
}

/* Composition: chains narrow, interleaves keep duplicates and count each, conditions choose,
 * sinks bypass what follows. */
Test(filter, composition)
{
    check("chain",
          CHAIN(regex(CASE(FAMILY_NAME_REGEX_FILTER), "f"),
                number(CASE(CELLS_PER_COLUMN_LIMIT_FILTER), 1)),
          "f:a@3=x f:b@2=xy f:ba@1=z");
    check("offset in a chain",
          CHAIN(regex(CASE(FAMILY_NAME_REGEX_FILTER), "g"),
                number(CASE(CELLS_PER_ROW_OFFSET_FILTER), 1)),
          "g:c\n@1=");
    check("interleave",
          INTERLEAVE(regex(CASE(COLUMN_QUALIFIER_REGEX_FILTER), "b"),
                     regex(CASE(VALUE_REGEX_FILTER), "xy|z")),
          "f:b@2=xy f:b@2=xy f:ba@1=z");
    check("limit after an interleave",
          CHAIN(INTERLEAVE(flag(CASE(PASS_ALL_FILTER)), flag(CASE(PASS_ALL_FILTER))),
                number(CASE(CELLS_PER_ROW_LIMIT_FILTER), 3)),
          "f:a@3=x f:a@3=x f:a@2=y");
    check("condition true",
          condition(regex(CASE(VALUE_REGEX_FILTER), "z"),
                    regex(CASE(FAMILY_NAME_REGEX_FILTER), "g"), flag(CASE(PASS_ALL_FILTER))),
          "g:a@2=x g:c\n@1=");
    check("condition false",
          condition(regex(CASE(VALUE_REGEX_FILTER), "none"), flag(CASE(PASS_ALL_FILTER)),
                    times(3000, 0)),
          "f:a@3=x");
    check("condition without a false branch",
          condition(regex(CASE(VALUE_REGEX_FILTER), "none"), flag(CASE(PASS_ALL_FILTER)), NULL),
          "");
    check("what follows a condition",
          CHAIN(condition(regex(CASE(VALUE_REGEX_FILTER), "z"), flag(CASE(PASS_ALL_FILTER)), NULL),
                number(CASE(CELLS_PER_ROW_LIMIT_FILTER), 2)),
          "f:a@3=x f:a@2=y");
    check("a condition within a branch",
          condition(regex(CASE(VALUE_REGEX_FILTER), "none"), NULL,
                    condition(regex(CASE(VALUE_REGEX_FILTER), "also none"), NULL,
                              regex(CASE(COLUMN_QUALIFIER_REGEX_FILTER), "ba"))),
          "f:ba@1=z");
    check("sink",
          CHAIN(regex(CASE(FAMILY_NAME_REGEX_FILTER), "f"),
                INTERLEAVE(flag(CASE(PASS_ALL_FILTER)), CHAIN(label("s"), flag(CASE(SINK)))),
                regex(CASE(COLUMN_QUALIFIER_REGEX_FILTER), "b")),
          "f:a@3=x#s f:a@2=y#s f:b@2=xy f:b@2=xy#s f:ba@1=z#s");
    base_arena_free(&arena);
}

static void refused(const char *name, F *filter, enum base_code code, const char *says)
{
    struct tab_filter *compiled;
    struct base_status status = tab_filter_compile(filter, NULL, &arena, &compiled);
    cr_assert_eq(status.code, code, "%s: %s", name, base_status_text(&status));
    cr_assert(strstr(base_status_text(&status), says), "%s: \"%s\" does not say \"%s\"", name,
              base_status_text(&status), says);
    base_status_free(&status);
}

/* What the service refuses is refused, with the culprit's name; nothing a client sends makes the
 * tree deep or large. */
Test(filter, refusals)
{
    refused("chain of one", list(CASE(CHAIN), 1, (F *[]){ flag(CASE(PASS_ALL_FILTER)) }),
            BASE_INVALID_ARGUMENT, "chain");
    refused("pass false", make(CASE(PASS_ALL_FILTER)), BASE_INVALID_ARGUMENT, "pass_all_filter");
    refused("regex", regex(CASE(VALUE_REGEX_FILTER), "a("), BASE_INVALID_ARGUMENT,
            "value_regex_filter");
    refused("micros", times(1500, 0), BASE_INVALID_ARGUMENT, "granularity");
    refused("times inverted", times(2000, 1000), BASE_INVALID_ARGUMENT, "timestamp_range_filter");
    refused("columns inverted", column_range("f", "b", "a"), BASE_INVALID_ARGUMENT,
            "column_range_filter");
    refused("limit 0", number(CASE(CELLS_PER_ROW_LIMIT_FILTER), 0), BASE_INVALID_ARGUMENT,
            "cells_per_row_limit_filter");
    refused("label", label("Upper"), BASE_INVALID_ARGUMENT, "apply_label_transformer");
    refused("two labels", CHAIN(label("a"), label("b")), BASE_INVALID_ARGUMENT, "label");
    refused("sink in a condition", condition(flag(CASE(SINK)), flag(CASE(PASS_ALL_FILTER)), NULL),
            BASE_INVALID_ARGUMENT, "sink");
    refused("nothing set", make(0), BASE_UNIMPLEMENTED, "RowFilter");
    F *deep = flag(CASE(PASS_ALL_FILTER));
    for (int i = 0; i < 40; i++)
        deep = CHAIN(deep, flag(CASE(PASS_ALL_FILTER)));
    refused("too deep", deep, BASE_INVALID_ARGUMENT, "nested");
    base_arena_free(&arena);
}
