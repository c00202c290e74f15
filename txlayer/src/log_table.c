/* log_table.c: the shard logs, checkpoints and pages of ids as rows. Row keys begin with the
 * shard in hexadecimal: "0003/l/<position>", "0003/c", "0003/i/<position>"; positions and epochs
 * are 16 hexadecimal digits, so that text order is number order. An entry's column is its epoch
 * and a letter, b for a barrier and e for any other: what a row is can be told without its
 * value. */
#include <stdio.h>
#include <stdlib.h>

#include "base/codec.h"
#include "request.h"
#include "tables.h"

enum { QUALIFIER_LEN = 17 };

static struct base_bytes log_row(struct base_arena *arena, uint32_t shard, uint64_t position)
{
    return base_bytes_str(
        base_arena_printf(arena, "%04x/l/%016llx", shard, (unsigned long long)position));
}

static struct base_bytes ids_row(struct base_arena *arena, uint32_t shard, uint64_t position)
{
    return base_bytes_str(
        base_arena_printf(arena, "%04x/i/%016llx", shard, (unsigned long long)position));
}

static struct base_bytes checkpoint_row(struct base_arena *arena, uint32_t shard)
{
    return base_bytes_str(base_arena_printf(arena, "%04x/c", shard));
}

static bool parse_hex(struct base_bytes text, uint64_t *value)
{
    uint64_t v = 0;
    if (text.len < 16)
        return false;
    for (size_t i = 0; i < 16; i++) {
        uint8_t c = text.data[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
        v = v << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    *value = v;
    return true;
}

static bool position_of(struct base_bytes row, uint64_t *position)
{
    return row.len == 7 + 16 && parse_hex(base_bytes(row.data + 7, 16), position);
}

struct base_status txn__log_put(struct txn__tables *tables, uint32_t shard, uint64_t floor,
                                const struct txn__entry *entry, ch_time deadline, bool *taken)
{
    struct base_arena arena;
    struct base_buf bytes = { 0 };
    base_arena_init(&arena);
    txn__entry_encode(entry, &bytes);
    const char *column = base_arena_printf(&arena, "%016llx%c", (unsigned long long)entry->epoch,
                                           entry->kind == TXN__BARRIER ? 'b' : 'e');
    const char *from = base_arena_printf(&arena, "%016llx", (unsigned long long)floor);
    Google__Bigtable__V2__CheckAndMutateRowRequest *request =
        CH_MESSAGE(&arena, Google__Bigtable__V2__CheckAndMutateRowRequest,
                   google__bigtable__v2__check_and_mutate_row_request);
    Google__Bigtable__V2__Mutation *set =
        txn__set_cell(&arena, "e", base_bytes_str(column), 0, base_buf_bytes(&bytes));
    request->table_name = ch_data_of(tables->log_name);
    request->row_key = ch_data_of(log_row(&arena, shard, entry->position));
    request->predicate_filter = txn__filter_columns_from(&arena, "e", base_bytes_str(from));
    request->false_mutations = &set;
    request->n_false_mutations = 1;
    struct base_status status = tab_check_and_mutate(tables->client, request, deadline, taken);
    base_buf_free(&bytes);
    base_arena_free(&arena);
    return base_status_wrap(status, "write position %llu of shard %u",
                            (unsigned long long)entry->position, shard);
}

/* The cell of the greatest epoch: the last one, columns ascend. */
static bool cell_of(const struct tab_row *row, struct txn__log_cell *cell)
{
    if (!row->cell_count || !position_of(row->key, &cell->position))
        return false;
    const struct tab_cell *last = &row->cells[row->cell_count - 1];
    if (last->qualifier.len != QUALIFIER_LEN || !parse_hex(last->qualifier, &cell->epoch))
        return false;
    cell->barrier = last->qualifier.data[16] == 'b';
    cell->bytes = last->value;
    return true;
}

static struct base_status bad_row(uint32_t shard, const struct tab_row *row)
{
    struct base_arena arena;
    base_arena_init(&arena);
    struct base_status status = base_status_make(BASE_DATA_LOSS, "shard %u: row %s is no log row",
                                                 shard, base_bytes_show(&arena, row->key, 64));
    base_arena_free(&arena);
    return status;
}

struct base_status txn__log_get(struct txn__tables *tables, uint32_t shard, uint64_t position,
                                uint64_t floor, ch_time deadline, struct base_arena *arena,
                                bool *there, struct txn__log_cell *cell)
{
    Google__Bigtable__V2__ReadRowsRequest *request = txn__read_request(arena, tables->log_name);
    ProtobufCBinaryData key = ch_data_of(log_row(arena, shard, position));
    const char *from = base_arena_printf(arena, "%016llx", (unsigned long long)floor);
    request->rows->row_keys = &key;
    request->rows->n_row_keys = 1;
    request->filter = txn__filter_columns_from(arena, "e", base_bytes_str(from));
    struct tab_row *rows;
    size_t count;
    struct base_status status =
        tab_read_all(tables->client, request, deadline, arena, &rows, &count);
    if (!base_failed(status) && count && !cell_of(&rows[0], cell))
        status = bad_row(shard, &rows[0]);
    *there = !base_failed(status) && count > 0;
    return base_status_wrap(status, "read position %llu of shard %u", (unsigned long long)position,
                            shard);
}

struct log_reader {
    uint32_t shard;
    txn__log_fn *fn;
    void *self;
    struct base_status status;
};

static bool on_log_row(void *arg, const struct tab_row *row)
{
    struct log_reader *reader = arg;
    struct txn__log_cell cell;
    if (cell_of(row, &cell))
        return reader->fn(reader->self, &cell);
    reader->status = bad_row(reader->shard, row);
    return false;
}

struct base_status txn__log_scan(struct txn__tables *tables, uint32_t shard, uint64_t from,
                                 ch_time deadline, txn__log_fn *fn, void *self)
{
    struct base_arena arena;
    base_arena_init(&arena);
    struct log_reader reader = { .shard = shard, .fn = fn, .self = self };
    Google__Bigtable__V2__ReadRowsRequest *request = txn__read_request(&arena, tables->log_name);
    txn__read_range(&arena, request, log_row(&arena, shard, from),
                    log_row(&arena, shard, UINT64_MAX), true);
    request->filter = txn__filter_family(&arena, "e");
    struct base_status status =
        tab_read_rows(tables->client, request, deadline, on_log_row, &reader);
    base_arena_free(&arena);
    if (base_failed(reader.status)) {
        base_status_free(&status);
        status = reader.status;
    }
    return base_status_wrap(status, "read the log of shard %u from %llu", shard,
                            (unsigned long long)from);
}

struct drop_finder {
    uint64_t *positions;
    size_t count, max;
};

static bool on_droppable(void *arg, const struct tab_row *row)
{
    struct drop_finder *finder = arg;
    struct txn__log_cell cell;
    if (cell_of(row, &cell) && !cell.barrier)
        finder->positions[finder->count++] = cell.position;
    return finder->count < finder->max;
}

struct base_status txn__log_droppable(struct txn__tables *tables, uint32_t shard, uint64_t from,
                                      uint64_t to, size_t max, ch_time deadline,
                                      uint64_t *positions, size_t *count)
{
    struct base_arena arena;
    base_arena_init(&arena);
    struct drop_finder finder = { .positions = positions, .max = max };
    Google__Bigtable__V2__RowFilter *filters[] = { txn__filter_family(&arena, "e"),
                                                   txn__filter_strip(&arena) };
    Google__Bigtable__V2__ReadRowsRequest *request = txn__read_request(&arena, tables->log_name);
    txn__read_range(&arena, request, log_row(&arena, shard, from), log_row(&arena, shard, to),
                    true);
    request->filter = txn__filter_chain(&arena, filters, 2);
    struct base_status status =
        tab_read_rows(tables->client, request, deadline, on_droppable, &finder);
    base_arena_free(&arena);
    *count = finder.count;
    return base_status_wrap(status, "list the old log of shard %u", shard);
}

struct base_status txn__log_drop(struct txn__tables *tables, uint32_t shard,
                                 const uint64_t *positions, size_t count, ch_time deadline)
{
    struct base_arena arena;
    base_arena_init(&arena);
    struct txn__mutate mutate;
    txn__mutate_init(&mutate, &arena, tables->log_name, count);
    for (size_t i = 0; i < count; i++)
        txn__mutate_add(&mutate, log_row(&arena, shard, positions[i]), txn__delete_row(&arena));
    struct base_status status =
        count ? tab_mutate_rows(tables->client, mutate.request, deadline) : BASE_STATUS_OK;
    base_arena_free(&arena);
    return base_status_wrap(status, "drop %zu old positions of shard %u", count, shard);
}

static struct base_status mutate_one(struct txn__tables *tables, struct base_arena *arena,
                                     struct base_bytes row,
                                     Google__Bigtable__V2__Mutation *mutation,
                                     ch_time deadline) CH_WAITS;
static struct base_status mutate_one(struct txn__tables *tables, struct base_arena *arena,
                                     struct base_bytes row,
                                     Google__Bigtable__V2__Mutation *mutation, ch_time deadline)
{
    struct txn__mutate mutate;
    txn__mutate_init(&mutate, arena, tables->log_name, 1);
    txn__mutate_add(&mutate, row, mutation);
    return tab_mutate_rows(tables->client, mutate.request, deadline);
}

struct base_status txn__checkpoint_get(struct txn__tables *tables, uint32_t shard, ch_time deadline,
                                       struct txn__checkpoint *checkpoint)
{
    struct base_arena arena;
    base_arena_init(&arena);
    Google__Bigtable__V2__ReadRowsRequest *request = txn__read_request(&arena, tables->log_name);
    ProtobufCBinaryData key = ch_data_of(checkpoint_row(&arena, shard));
    Google__Bigtable__V2__RowFilter *filters[] = { txn__filter_family(&arena, "c"),
                                                   txn__filter_newest(&arena, 1) };
    struct tab_row *rows;
    size_t count;
    request->rows->row_keys = &key;
    request->rows->n_row_keys = 1;
    request->filter = txn__filter_chain(&arena, filters, 2);
    struct base_status status =
        tab_read_all(tables->client, request, deadline, &arena, &rows, &count);
    *checkpoint = (struct txn__checkpoint){ 0 };
    if (!base_failed(status) && count)
        status = txn__checkpoint_decode(rows[0].cells[0].value, checkpoint);
    base_arena_free(&arena);
    return base_status_wrap(status, "read the checkpoint of shard %u", shard);
}

/* The cell's timestamp is the position, so of two leaders' checkpoints the further one is read,
 * whoever wrote last. */
struct base_status txn__checkpoint_put(struct txn__tables *tables, uint32_t shard,
                                       const struct txn__checkpoint *checkpoint, ch_time deadline)
{
    struct base_arena arena;
    struct base_buf bytes = { 0 };
    base_arena_init(&arena);
    txn__checkpoint_encode(checkpoint, &bytes);
    int64_t timestamp = (int64_t)checkpoint->position * TXN__TIMESTAMP_SCALE;
    struct base_status status = mutate_one(
        tables, &arena, checkpoint_row(&arena, shard),
        txn__set_cell(&arena, "c", BASE_BYTES_LIT("checkpoint"), timestamp, base_buf_bytes(&bytes)),
        deadline);
    base_buf_free(&bytes);
    base_arena_free(&arena);
    return base_status_wrap(status, "write the checkpoint of shard %u", shard);
}

struct base_status txn__ids_put(struct txn__tables *tables, uint32_t shard, uint64_t position,
                                struct base_bytes records, ch_time deadline)
{
    struct base_arena arena;
    base_arena_init(&arena);
    struct base_status status =
        mutate_one(tables, &arena, ids_row(&arena, shard, position),
                   txn__set_cell(&arena, "i", BASE_BYTES_LIT("ids"), 0, records), deadline);
    base_arena_free(&arena);
    return base_status_wrap(status, "write ids of shard %u", shard);
}

struct ids_reader {
    txn__ids_fn *fn;
    void *self;
};

static bool on_ids_row(void *arg, const struct tab_row *row)
{
    struct ids_reader *reader = arg;
    uint64_t position;
    return !row->cell_count || !position_of(row->key, &position) ||
           reader->fn(reader->self, position, row->cells[0].value);
}

struct base_status txn__ids_scan(struct txn__tables *tables, uint32_t shard, ch_time deadline,
                                 txn__ids_fn *fn, void *self)
{
    struct base_arena arena;
    base_arena_init(&arena);
    struct ids_reader reader = { fn, self };
    Google__Bigtable__V2__ReadRowsRequest *request = txn__read_request(&arena, tables->log_name);
    txn__read_range(&arena, request, ids_row(&arena, shard, 0), ids_row(&arena, shard, UINT64_MAX),
                    true);
    request->filter = txn__filter_family(&arena, "i");
    struct base_status status =
        tab_read_rows(tables->client, request, deadline, on_ids_row, &reader);
    base_arena_free(&arena);
    return base_status_wrap(status, "read the ids of shard %u", shard);
}

struct base_status txn__ids_drop(struct txn__tables *tables, uint32_t shard, uint64_t position,
                                 ch_time deadline)
{
    struct base_arena arena;
    base_arena_init(&arena);
    struct base_status status = mutate_one(tables, &arena, ids_row(&arena, shard, position),
                                           txn__delete_row(&arena), deadline);
    base_arena_free(&arena);
    return base_status_wrap(status, "drop ids of shard %u", shard);
}
