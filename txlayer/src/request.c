/* request.c: see request.h. */
#include "request.h"

#define MESSAGE(arena, Type, prefix) \
    CH_MESSAGE(arena, Google__Bigtable__V2__##Type, google__bigtable__v2__##prefix)

Google__Bigtable__V2__Mutation *txn__set_cell(struct base_arena *arena, const char *family,
                                              struct base_bytes qualifier, int64_t timestamp,
                                              struct base_bytes value)
{
    Google__Bigtable__V2__Mutation__SetCell *set =
        MESSAGE(arena, Mutation__SetCell, mutation__set_cell);
    set->family_name = ch_data_str(family);
    set->column_qualifier = ch_data_of(qualifier);
    set->timestamp_micros = timestamp;
    set->value = ch_data_of(value);
    Google__Bigtable__V2__Mutation *mutation = MESSAGE(arena, Mutation, mutation);
    mutation->mutation_case = GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_SET_CELL;
    mutation->set_cell = set;
    return mutation;
}

Google__Bigtable__V2__Mutation *txn__delete_row(struct base_arena *arena)
{
    Google__Bigtable__V2__Mutation *mutation = MESSAGE(arena, Mutation, mutation);
    mutation->mutation_case = GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_DELETE_FROM_ROW;
    mutation->delete_from_row = MESSAGE(arena, Mutation__DeleteFromRow, mutation__delete_from_row);
    return mutation;
}

Google__Bigtable__V2__Mutation *txn__delete_versions(struct base_arena *arena, const char *family,
                                                     struct base_bytes qualifier, int64_t end)
{
    Google__Bigtable__V2__TimestampRange *range = MESSAGE(arena, TimestampRange, timestamp_range);
    range->end_timestamp_micros = end;
    Google__Bigtable__V2__Mutation__DeleteFromColumn *gone =
        MESSAGE(arena, Mutation__DeleteFromColumn, mutation__delete_from_column);
    gone->family_name = ch_data_str(family);
    gone->column_qualifier = ch_data_of(qualifier);
    gone->time_range = range;
    Google__Bigtable__V2__Mutation *mutation = MESSAGE(arena, Mutation, mutation);
    mutation->mutation_case = GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_DELETE_FROM_COLUMN;
    mutation->delete_from_column = gone;
    return mutation;
}

Google__Bigtable__V2__RowFilter *txn__filter_family(struct base_arena *arena, const char *family)
{
    Google__Bigtable__V2__RowFilter *filter = MESSAGE(arena, RowFilter, row_filter);
    filter->filter_case = GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER_FAMILY_NAME_REGEX_FILTER;
    filter->family_name_regex_filter = ch_data_str(family);
    return filter;
}

Google__Bigtable__V2__RowFilter *txn__filter_columns_from(struct base_arena *arena,
                                                          const char *family,
                                                          struct base_bytes start)
{
    Google__Bigtable__V2__ColumnRange *range = MESSAGE(arena, ColumnRange, column_range);
    range->family_name = ch_data_str(family);
    range->start_qualifier_case =
        GOOGLE__BIGTABLE__V2__COLUMN_RANGE__START_QUALIFIER_START_QUALIFIER_CLOSED;
    range->start_qualifier_closed = ch_data_of(start);
    Google__Bigtable__V2__RowFilter *filter = MESSAGE(arena, RowFilter, row_filter);
    filter->filter_case = GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER_COLUMN_RANGE_FILTER;
    filter->column_range_filter = range;
    return filter;
}

Google__Bigtable__V2__RowFilter *txn__filter_before(struct base_arena *arena, int64_t end)
{
    Google__Bigtable__V2__TimestampRange *range = MESSAGE(arena, TimestampRange, timestamp_range);
    range->end_timestamp_micros = end;
    Google__Bigtable__V2__RowFilter *filter = MESSAGE(arena, RowFilter, row_filter);
    filter->filter_case = GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER_TIMESTAMP_RANGE_FILTER;
    filter->timestamp_range_filter = range;
    return filter;
}

Google__Bigtable__V2__RowFilter *txn__filter_newest(struct base_arena *arena, int32_t versions)
{
    Google__Bigtable__V2__RowFilter *filter = MESSAGE(arena, RowFilter, row_filter);
    filter->filter_case = GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER_CELLS_PER_COLUMN_LIMIT_FILTER;
    filter->cells_per_column_limit_filter = versions;
    return filter;
}

Google__Bigtable__V2__RowFilter *txn__filter_strip(struct base_arena *arena)
{
    Google__Bigtable__V2__RowFilter *filter = MESSAGE(arena, RowFilter, row_filter);
    filter->filter_case = GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER_STRIP_VALUE_TRANSFORMER;
    filter->strip_value_transformer = true;
    return filter;
}

Google__Bigtable__V2__RowFilter *txn__filter_chain(struct base_arena *arena,
                                                   Google__Bigtable__V2__RowFilter **filters,
                                                   size_t count)
{
    Google__Bigtable__V2__RowFilter__Chain *chain =
        MESSAGE(arena, RowFilter__Chain, row_filter__chain);
    chain->n_filters = count;
    chain->filters = base_arena_memdup(arena, filters, count * sizeof(*filters));
    Google__Bigtable__V2__RowFilter *filter = MESSAGE(arena, RowFilter, row_filter);
    filter->filter_case = GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER_CHAIN;
    filter->chain = chain;
    return filter;
}

Google__Bigtable__V2__ReadRowsRequest *txn__read_request(struct base_arena *arena,
                                                         struct base_bytes table)
{
    Google__Bigtable__V2__ReadRowsRequest *request =
        MESSAGE(arena, ReadRowsRequest, read_rows_request);
    request->table_name = ch_data_of(table);
    request->rows = MESSAGE(arena, RowSet, row_set);
    return request;
}

void txn__read_range(struct base_arena *arena, Google__Bigtable__V2__ReadRowsRequest *request,
                     struct base_bytes start, struct base_bytes end, bool closed)
{
    Google__Bigtable__V2__RowRange *range = MESSAGE(arena, RowRange, row_range);
    range->start_key_case = GOOGLE__BIGTABLE__V2__ROW_RANGE__START_KEY_START_KEY_CLOSED;
    range->start_key_closed = ch_data_of(start);
    if (end.len && closed) {
        range->end_key_case = GOOGLE__BIGTABLE__V2__ROW_RANGE__END_KEY_END_KEY_CLOSED;
        range->end_key_closed = ch_data_of(end);
    } else if (end.len) {
        range->end_key_case = GOOGLE__BIGTABLE__V2__ROW_RANGE__END_KEY_END_KEY_OPEN;
        range->end_key_open = ch_data_of(end);
    }
    request->rows->row_ranges = base_arena_memdup(arena, &range, sizeof(range));
    request->rows->n_row_ranges = 1;
}

void txn__mutate_init(struct txn__mutate *mutate, struct base_arena *arena, struct base_bytes table,
                      size_t cap)
{
    *mutate = (struct txn__mutate){ .arena = arena, .cap = cap };
    mutate->request = MESSAGE(arena, MutateRowsRequest, mutate_rows_request);
    mutate->request->table_name = ch_data_of(table);
    mutate->request->entries =
        BASE_NEW_ARRAY(arena, Google__Bigtable__V2__MutateRowsRequest__Entry *, cap);
}

void txn__mutate_add(struct txn__mutate *mutate, struct base_bytes row,
                     Google__Bigtable__V2__Mutation *mutation)
{
    Google__Bigtable__V2__MutateRowsRequest__Entry *entry =
        MESSAGE(mutate->arena, MutateRowsRequest__Entry, mutate_rows_request__entry);
    BASE_ASSERT(mutate->request->n_entries < mutate->cap);
    entry->row_key = ch_data_of(row);
    entry->mutations = base_arena_memdup(mutate->arena, &mutation, sizeof(mutation));
    entry->n_mutations = 1;
    mutate->request->entries[mutate->request->n_entries++] = entry;
}
