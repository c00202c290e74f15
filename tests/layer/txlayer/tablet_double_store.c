/* tablet_double_store.c: see tablet_double_store.h. Filters: those the transaction layer uses. */
#include "tablet_double_store.h"

#include <stdlib.h>

#include "chassis/proto.h"

typedef Google__Bigtable__V2__RowFilter filter_t;
typedef Google__Bigtable__V2__Mutation mutation_t;

static int row_cmp(struct store_row *a, struct store_row *b)
{
    return base_bytes_cmp(base_bytes(a->key, a->len), base_bytes(b->key, b->len));
}
RB_GENERATE_INTERNAL(store_row_tree, store_row, tree, row_cmp, __attribute__((unused)) static)

static void cells_free(struct store_cell *cell)
{
    for (struct store_cell *next; cell; cell = next) {
        next = cell->next;
        free(cell);
    }
}

void store_free(struct store_tables *tables)
{
    struct store_table *table;
    struct store_row *row;
    while ((table = TAILQ_FIRST(tables))) {
        while ((row = RB_ROOT(&table->rows))) {
            RB_REMOVE(store_row_tree, &table->rows, row);
            cells_free(row->cells);
            free(row);
        }
        TAILQ_REMOVE(tables, table, link);
        free(table->name);
        free(table);
    }
}

struct store_table *store_table(struct store_tables *tables, struct base_bytes name, bool make)
{
    struct store_table *table;
    while (memchr(name.data, '/', name.len)) {
        name.data++;
        name.len--;
    }
    TAILQ_FOREACH(table, tables, link)
    if (base_bytes_eq_str(name, table->name))
        return table;
    if (!make)
        return NULL;
    table = calloc(1, sizeof(*table));
    table->name = strndup((const char *)name.data, name.len);
    RB_INIT(&table->rows);
    TAILQ_INSERT_TAIL(tables, table, link);
    return table;
}

struct store_row *store_seek(const struct store_table *table, struct base_bytes key, bool before)
{
    struct store_row *at = RB_ROOT(&table->rows), *best = NULL;
    while (at) {
        bool ge = base_bytes_cmp(base_bytes(at->key, at->len), key) >= 0;
        if (ge != before)
            best = at;
        at = ge ? RB_LEFT(at, tree) : RB_RIGHT(at, tree);
    }
    return best;
}

struct store_row *store_row(struct store_table *table, struct base_bytes key, bool make)
{
    struct store_row *row = store_seek(table, key, false);
    if (row && base_bytes_eq(base_bytes(row->key, row->len), key))
        return row;
    if (!make)
        return NULL;
    row = calloc(1, sizeof(*row) + key.len);
    row->len = key.len;
    memcpy(row->key, key.data, key.len);
    RB_INSERT(store_row_tree, &table->rows, row);
    table->count++;
    return row;
}

static struct base_bytes family_of(const struct store_cell *cell)
{
    return base_bytes(cell->bytes, cell->family_len);
}
static struct base_bytes qualifier_of(const struct store_cell *cell)
{
    return base_bytes(cell->bytes + cell->family_len, cell->qualifier_len);
}

static int column_cmp(const struct store_cell *cell, struct base_bytes family,
                      struct base_bytes qualifier)
{
    int order = base_bytes_cmp(family_of(cell), family);
    return order ? order : base_bytes_cmp(qualifier_of(cell), qualifier);
}

static void set_cell(struct store_row *row, const Google__Bigtable__V2__Mutation__SetCell *set)
{
    struct base_bytes family = ch_bytes_of(set->family_name),
                      qualifier = ch_bytes_of(set->column_qualifier);
    struct store_cell **at = &row->cells;
    BASE_ASSERT(set->timestamp_micros % 1000 == 0);
    while (*at) {
        int order = column_cmp(*at, family, qualifier);
        if (order > 0 || (order == 0 && (*at)->timestamp <= set->timestamp_micros))
            break;
        at = &(*at)->next;
    }
    struct store_cell *next = *at;
    if (next && column_cmp(next, family, qualifier) == 0 &&
        next->timestamp == set->timestamp_micros) {
        *at = next->next;
        free(next);
        next = *at;
    }
    struct store_cell *cell =
        calloc(1, sizeof(*cell) + family.len + qualifier.len + set->value.len);
    *cell = (struct store_cell){ .next = next,
                                 .timestamp = set->timestamp_micros,
                                 .family_len = family.len,
                                 .qualifier_len = qualifier.len,
                                 .value_len = set->value.len };
    memcpy(cell->bytes, family.data, family.len);
    if (qualifier.len)
        memcpy(cell->bytes + family.len, qualifier.data, qualifier.len);
    if (set->value.len)
        memcpy(cell->bytes + family.len + qualifier.len, set->value.data, set->value.len);
    *at = cell;
}

static void delete_versions(struct store_row *row,
                            const Google__Bigtable__V2__Mutation__DeleteFromColumn *gone)
{
    for (struct store_cell **at = &row->cells; *at;) {
        struct store_cell *cell = *at;
        bool hit = column_cmp(cell, ch_bytes_of(gone->family_name),
                              ch_bytes_of(gone->column_qualifier)) == 0 &&
                   cell->timestamp >= gone->time_range->start_timestamp_micros &&
                   (!gone->time_range->end_timestamp_micros ||
                    cell->timestamp < gone->time_range->end_timestamp_micros);
        if (!hit) {
            at = &cell->next;
            continue;
        }
        *at = cell->next;
        free(cell);
    }
}

void store_mutate(struct store_table *table, struct base_bytes key, mutation_t **mutations,
                  size_t count)
{
    struct store_row *row = store_row(table, key, true);
    BASE_ASSERT(key.len && key.len <= 4096 && count);
    for (size_t i = 0; i < count; i++)
        switch (mutations[i]->mutation_case) {
        case GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_SET_CELL:
            set_cell(row, mutations[i]->set_cell);
            break;
        case GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_DELETE_FROM_ROW:
            cells_free(row->cells);
            row->cells = NULL;
            break;
        case GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_DELETE_FROM_COLUMN:
            delete_versions(row, mutations[i]->delete_from_column);
            break;
        default:
            BASE_ASSERT(!"a mutation the double does not know");
        }
    if (!row->cells) {
        RB_REMOVE(store_row_tree, &table->rows, row);
        table->count--;
        free(row);
    }
}

/* ---- filters: each keeps some of the cells ---- */

static size_t filter_cells(const filter_t *filter, struct tab_cell *cells, size_t count)
{
    size_t kept = 0, versions = 0;
    if (!filter || filter->filter_case == GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER__NOT_SET)
        return count;
    if (filter->filter_case == GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER_CHAIN) {
        BASE_ASSERT(filter->chain->n_filters >= 2);
        for (size_t i = 0; i < filter->chain->n_filters; i++)
            count = filter_cells(filter->chain->filters[i], cells, count);
        return count;
    }
    for (size_t i = 0; i < count; i++) {
        struct tab_cell cell = cells[i];
        bool keep = true;
        versions = i && base_bytes_eq(cell.qualifier, cells[i - 1].qualifier) &&
                           base_bytes_eq(cell.family, cells[i - 1].family)
                       ? versions + 1
                       : 1;
        switch (filter->filter_case) {
        case GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER_FAMILY_NAME_REGEX_FILTER:
            keep = base_bytes_eq(cell.family, ch_bytes_of(filter->family_name_regex_filter));
            break;
        case GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER_COLUMN_RANGE_FILTER:
            keep =
                base_bytes_eq(cell.family, ch_bytes_of(filter->column_range_filter->family_name)) &&
                base_bytes_cmp(cell.qualifier,
                               ch_bytes_of(filter->column_range_filter->start_qualifier_closed)) >=
                    0;
            break;
        case GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER_TIMESTAMP_RANGE_FILTER:
            BASE_ASSERT(filter->timestamp_range_filter->end_timestamp_micros % 1000 == 0);
            keep = cell.timestamp_us >= filter->timestamp_range_filter->start_timestamp_micros &&
                   cell.timestamp_us < filter->timestamp_range_filter->end_timestamp_micros;
            break;
        case GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER_CELLS_PER_COLUMN_LIMIT_FILTER:
            keep = versions <= (size_t)filter->cells_per_column_limit_filter;
            break;
        case GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER_STRIP_VALUE_TRANSFORMER:
            cell.value = BASE_BYTES_EMPTY;
            break;
        default:
            BASE_ASSERT(!"a filter the double does not know");
        }
        if (keep && kept == i)
            kept++, cells[i] = cell;
        else if (keep)
            cells[kept++] = cell;
    }
    return kept;
}

bool store_show(const struct store_row *row, const filter_t *filter, struct base_arena *arena,
                struct tab_row *out)
{
    size_t count = 0;
    for (const struct store_cell *cell = row->cells; cell; cell = cell->next)
        count++;
    out->cells = BASE_NEW_ARRAY(arena, struct tab_cell, count);
    count = 0;
    for (const struct store_cell *cell = row->cells; cell; cell = cell->next)
        out->cells[count++] =
            (struct tab_cell){ family_of(cell), qualifier_of(cell),
                               base_bytes(cell->bytes + cell->family_len + cell->qualifier_len,
                                          cell->value_len),
                               cell->timestamp };
    out->cell_count = filter_cells(filter, out->cells, count);
    for (size_t i = 0; i < out->cell_count; i++) {
        struct tab_cell *cell = &out->cells[i];
        cell->family = base_bytes_dup(arena, cell->family);
        cell->qualifier = base_bytes_dup(arena, cell->qualifier);
        cell->value = base_bytes_dup(arena, cell->value);
    }
    out->key = base_bytes_dup(arena, base_bytes(row->key, row->len));
    return out->cell_count > 0;
}
