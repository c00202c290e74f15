/* data_table.c: the data table. Row key: the first TXN__ROW_KEY_MAX bytes of the full key;
 * column: family "d", qualifier: the rest of it (Bigtable's row keys end at 4 KiB, its
 * qualifiers at 16 KiB; the order of full keys stays the order of cells). Cell timestamp: the
 * commit timestamp x TXN__TIMESTAMP_SCALE. Cell value: 00 for a delete; 01 and the value. */
#include "request.h"
#include "tables.h"

enum { MARK_DELETE = 0, MARK_VALUE = 1, SCAN_ROWS_SPARE = 2 };

static int64_t cell_time(uint64_t timestamp)
{
    return (int64_t)timestamp * TXN__TIMESTAMP_SCALE;
}

/* The end of a range of cell timestamps that includes `timestamp`. */
static int64_t cell_time_after(uint64_t timestamp)
{
    return cell_time((timestamp < TXN__TIMESTAMP_MAX ? timestamp : TXN__TIMESTAMP_MAX) + 1);
}

struct base_status txn__data_put(struct txn__tables *tables, const struct txn__cell_write *writes,
                                 size_t count, ch_time deadline)
{
    struct base_arena arena;
    base_arena_init(&arena);
    struct txn__mutate mutate;
    txn__mutate_init(&mutate, &arena, tables->data_name, count);
    for (size_t i = 0; i < count; i++) {
        const struct txn__logged_write *write = writes[i].write;
        struct base_bytes row, qualifier;
        size_t len = write->is_delete ? 0 : write->value.len;
        uint8_t *value = base_arena_alloc(&arena, 1 + len);
        value[0] = write->is_delete ? MARK_DELETE : MARK_VALUE;
        if (len)
            memcpy(value + 1, write->value.data, len);
        txn__key_split(txn__full_key_in(&arena, writes[i].database, write->key), &row, &qualifier);
        txn__mutate_add(&mutate, row,
                        txn__set_cell(&arena, "d", qualifier, cell_time(writes[i].timestamp),
                                      base_bytes(value, 1 + len)));
    }
    struct base_status status = tab_mutate_rows(tables->client, mutate.request, deadline);
    base_arena_free(&arena);
    return base_status_wrap(status, "apply %zu rows", count);
}

/* The snapshot at a timestamp: of each column the newest version at or below it. */
static Google__Bigtable__V2__RowFilter *snapshot(struct base_arena *arena, uint64_t timestamp,
                                                 int32_t versions)
{
    Google__Bigtable__V2__RowFilter *filters[] = {
        txn__filter_before(arena, cell_time_after(timestamp)), txn__filter_newest(arena, versions)
    };
    return txn__filter_chain(arena, filters, 2);
}

static struct txn__seen seen_of(const struct tab_cell *cell)
{
    bool found = cell->value.len > 0 && cell->value.data[0] == MARK_VALUE;
    return (struct txn__seen){
        .found = found,
        .timestamp = (uint64_t)cell->timestamp_us / TXN__TIMESTAMP_SCALE,
        .value = found ? base_bytes(cell->value.data + 1, cell->value.len - 1) : BASE_BYTES_EMPTY,
    };
}

static struct base_bytes full_of(struct base_arena *arena, struct base_bytes row,
                                 struct base_bytes qualifier)
{
    uint8_t *full = base_arena_alloc(arena, row.len + qualifier.len);
    memcpy(full, row.data, row.len);
    if (qualifier.len)
        memcpy(full + row.len, qualifier.data, qualifier.len);
    return base_bytes(full, row.len + qualifier.len);
}

struct getter {
    struct base_arena *arena;
    const struct base_bytes *keys;
    struct txn__seen *seen;
    size_t count, at, bytes, bytes_max;
    bool full;
};

/* Both sides ascend. */
static bool on_get_row(void *arg, const struct tab_row *row)
{
    struct getter *getter = arg;
    for (size_t c = 0; c < row->cell_count; c++) {
        const struct tab_cell *cell = &row->cells[c];
        struct base_bytes full =
            cell->qualifier.len ? full_of(getter->arena, row->key, cell->qualifier) : row->key;
        while (getter->at < getter->count && base_bytes_cmp(getter->keys[getter->at], full) < 0)
            getter->at++;
        if (getter->at == getter->count)
            return false;
        if (!base_bytes_eq(getter->keys[getter->at], full))
            continue;
        getter->full = getter->bytes && getter->bytes + cell->value.len > getter->bytes_max;
        if (getter->full)
            return false;
        getter->bytes += cell->value.len;
        struct txn__seen *seen = &getter->seen[getter->at];
        *seen = seen_of(cell);
        seen->value = base_bytes_dup(getter->arena, seen->value);
    }
    return true;
}

struct base_status txn__data_get(struct txn__tables *tables, uint64_t timestamp,
                                 const struct base_bytes *keys, size_t count, size_t bytes_max,
                                 ch_time deadline, struct base_arena *arena, struct txn__seen *seen,
                                 size_t *got)
{
    struct getter getter = {
        .arena = arena, .keys = keys, .seen = seen, .count = count, .bytes_max = bytes_max
    };
    Google__Bigtable__V2__ReadRowsRequest *request = txn__read_request(arena, tables->data_name);
    request->rows->row_keys = BASE_NEW_ARRAY(arena, ProtobufCBinaryData, count);
    struct base_bytes last = BASE_BYTES_EMPTY, row, qualifier;
    for (size_t i = 0; i < count; i++) {
        txn__key_split(keys[i], &row, &qualifier);
        if (!request->rows->n_row_keys || !base_bytes_eq(row, last))
            request->rows->row_keys[request->rows->n_row_keys++] = ch_data_of(row);
        last = row;
        seen[i] = (struct txn__seen){ 0 };
    }
    request->filter = snapshot(arena, timestamp, 1);
    struct base_status status =
        tab_read_rows(tables->client, request, deadline, on_get_row, &getter);
    *got = getter.full ? getter.at : count; /* both sides ascend: what is before `at` is settled */
    return base_status_wrap(status, "read %zu rows", count);
}

struct scanner {
    const struct txn__data_range *range;
    struct base_arena *arena;
    struct txn__table_row *rows;
    size_t count, cap, bytes, table_rows;
    bool stopped;
};

static void scanned(struct scanner *scanner, const struct tab_row *row, const struct tab_cell *cell)
{
    struct base_bytes full = full_of(scanner->arena, row->key, cell->qualifier);
    if (base_bytes_cmp(full, scanner->range->from) < 0 ||
        base_bytes_cmp(full, scanner->range->to) >= 0)
        return;
    if (scanner->count == scanner->cap) {
        size_t cap = scanner->cap ? scanner->cap * 2 : 64;
        struct txn__table_row *rows = BASE_NEW_ARRAY(scanner->arena, struct txn__table_row, cap);
        if (scanner->count)
            memcpy(rows, scanner->rows, scanner->count * sizeof(*rows));
        scanner->rows = rows;
        scanner->cap = cap;
    }
    struct txn__table_row *out = &scanner->rows[scanner->count++];
    out->key = full;
    out->seen = seen_of(cell);
    out->seen.value = base_bytes_dup(scanner->arena, out->seen.value);
    scanner->bytes += full.len + out->seen.value.len;
}

static bool on_scan_row(void *arg, const struct tab_row *row)
{
    struct scanner *scanner = arg;
    scanner->table_rows++;
    for (size_t i = 0; i < row->cell_count; i++)
        scanned(scanner, row,
                &row->cells[scanner->range->descending ? row->cell_count - 1 - i : i]);
    scanner->stopped = scanner->count > 0 && scanner->bytes >= scanner->range->bytes_max;
    return !scanner->stopped;
}

struct base_status txn__data_scan(struct txn__tables *tables, const struct txn__data_range *range,
                                  ch_time deadline, struct base_arena *arena,
                                  struct txn__table_row **rows, size_t *count, bool *complete)
{
    struct base_bytes from, to, qualifier, to_qualifier;
    struct scanner scanner = { .range = range, .arena = arena };
    Google__Bigtable__V2__ReadRowsRequest *request = txn__read_request(arena, tables->data_name);
    txn__key_split(range->from, &from, &qualifier);
    txn__key_split(range->to, &to, &to_qualifier);
    txn__read_range(arena, request, from, to, to_qualifier.len > 0);
    request->filter = snapshot(arena, range->timestamp, 1);
    request->reversed = range->descending;
    /* The first and the last row may hold keys outside the range alone. */
    request->rows_limit = (int64_t)range->rows_max + SCAN_ROWS_SPARE;
    struct base_status status =
        tab_read_rows(tables->client, request, deadline, on_scan_row, &scanner);
    *rows = scanner.rows;
    *count = scanner.count;
    *complete = !scanner.stopped && scanner.table_rows < (size_t)request->rows_limit;
    return base_status_wrap(status, "scan rows");
}

struct garbage_finder {
    struct base_arena *arena;
    struct txn__garbage *garbage;
    size_t count, cap, table_rows;
    struct base_bytes last;
};

static void found_garbage(struct garbage_finder *finder, struct base_bytes key, uint64_t below)
{
    if (finder->count == finder->cap) {
        size_t cap = finder->cap ? finder->cap * 2 : 64;
        struct txn__garbage *garbage = BASE_NEW_ARRAY(finder->arena, struct txn__garbage, cap);
        if (finder->count)
            memcpy(garbage, finder->garbage, finder->count * sizeof(*garbage));
        finder->garbage = garbage;
        finder->cap = cap;
    }
    finder->garbage[finder->count++] = (struct txn__garbage){ key, below };
}

static bool on_garbage_row(void *arg, const struct tab_row *row)
{
    struct garbage_finder *finder = arg;
    finder->table_rows++;
    finder->last = base_bytes_dup(finder->arena, row->key);
    for (size_t i = 0; i < row->cell_count;) {
        const struct tab_cell *newest = &row->cells[i];
        size_t versions = 1;
        while (i + versions < row->cell_count &&
               base_bytes_eq(row->cells[i + versions].qualifier, newest->qualifier))
            versions++;
        i += versions;
        struct txn__seen seen = seen_of(newest);
        if (!seen.found)
            found_garbage(finder, full_of(finder->arena, row->key, newest->qualifier),
                          seen.timestamp + 1);
        else if (versions > 1)
            found_garbage(finder, full_of(finder->arena, row->key, newest->qualifier),
                          seen.timestamp);
    }
    return true;
}

struct base_status txn__data_garbage(struct txn__tables *tables, struct base_bytes from,
                                     uint64_t horizon, size_t rows_max, ch_time deadline,
                                     struct base_arena *arena, struct txn__garbage **garbage,
                                     size_t *count, struct base_bytes *next, bool *complete)
{
    struct garbage_finder finder = { .arena = arena };
    struct base_bytes row, qualifier;
    Google__Bigtable__V2__ReadRowsRequest *request = txn__read_request(arena, tables->data_name);
    txn__key_split(from, &row, &qualifier);
    txn__read_range(arena, request, row, BASE_BYTES_EMPTY, false);
    request->filter = snapshot(arena, horizon, 2);
    request->rows_limit = (int64_t)rows_max;
    struct base_status status =
        tab_read_rows(tables->client, request, deadline, on_garbage_row, &finder);
    *garbage = finder.garbage;
    *count = finder.count;
    *complete = finder.table_rows < rows_max;
    *next = finder.table_rows ? full_of(arena, finder.last, BASE_BYTES_LIT("\0")) : from;
    return base_status_wrap(status, "look for old versions");
}

struct base_status txn__data_prune(struct txn__tables *tables, const struct txn__garbage *garbage,
                                   size_t count, ch_time deadline)
{
    struct base_arena arena;
    base_arena_init(&arena);
    struct txn__mutate mutate;
    txn__mutate_init(&mutate, &arena, tables->data_name, count);
    for (size_t i = 0; i < count; i++) {
        struct base_bytes row, qualifier;
        txn__key_split(garbage[i].key, &row, &qualifier);
        txn__mutate_add(&mutate, row,
                        txn__delete_versions(&arena, "d", qualifier, cell_time(garbage[i].below)));
    }
    struct base_status status =
        count ? tab_mutate_rows(tables->client, mutate.request, deadline) : BASE_STATUS_OK;
    base_arena_free(&arena);
    return base_status_wrap(status, "prune %zu rows", count);
}
