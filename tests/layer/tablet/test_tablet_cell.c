/* A whole tablet cell on the simulated world: what one layer must do, step by step. */
#include <stdio.h>
#include <stdlib.h>

#include "cell.h"
#include "google/bigtable/admin/v2/bigtable_table_admin.strata.h"
#include "strata/tablet/v1/tablet.strata.h"
#include "test.h"

struct task {
    struct cell *cell;
    struct tab_client *client;
    struct ch_naming *naming;
};

#define OK(expr)                                                                             \
    do {                                                                                     \
        struct base_status ok_status_ = (expr);                                              \
        cr_assert(!base_failed(ok_status_), "%s: %s", #expr, base_status_text(&ok_status_)); \
        base_status_free(&ok_status_);                                                       \
    } while (0)

static void open_client(struct task *task)
{
    task->naming = cell_naming(task->cell);
    task->client = cell_client(task->cell, task->naming);
}

static void close_client(struct task *task) CH_WAITS;
static void close_client(struct task *task)
{
    tab_client_free(task->client);
    ch_naming_free(task->naming);
}

static void run(struct cell *cell, ch_fiber_fn *fn)
{
    struct task task = { .cell = cell };
    ch_sim_do(cell->sim, fn, &task, cell_in(cell, 300 * CH_S));
}

static void first_steps(void *arg)
{
    CH_FIBER_ENTRY();
    struct task *task = arg;
    struct cell *cell = task->cell;
    struct base_arena arena = { 0 };
    struct tab_row *row, *rows;
    size_t count;
    open_client(task);
    OK(cell_make_table(task->client, ch_sim_tester_env(cell->sim), 0));
    for (int i = 0; i < 50; i++) {
        char key[16];
        snprintf(key, sizeof(key), "row%03d", i);
        OK(cell_set(task->client, key, "q", 1000, BASE_BYTES_LIT("value"),
                    cell_in(cell, 10 * CH_S)));
    }
    OK(cell_read_row(task->client, "row007", cell_in(cell, 10 * CH_S), &arena, &row));
    cr_assert(row != NULL && row->cell_count == 1);
    cr_assert(base_bytes_eq_str(row->cells[0].value, "value"));
    OK(cell_read_all(task->client, false, cell_in(cell, 10 * CH_S), &arena, &rows, &count));
    cr_assert_eq(count, 50);
    OK(cell_read_all(task->client, true, cell_in(cell, 10 * CH_S), &arena, &rows, &count));
    cr_assert_eq(count, 50);
    cr_assert(base_bytes_eq_str(rows[0].key, "row049"));
    for (int64_t i = 1; i <= 20; i++) {
        int64_t result = 0;
        OK(cell_increment(task->client, "counter", "n", 1, cell_in(cell, 10 * CH_S), &result));
        cr_assert_eq(result, i, "increment %lld gave %lld", (long long)i, (long long)result);
    }
    bool empty = false;
    OK(cell_set_if_empty(task->client, "log1", BASE_BYTES_LIT("a"), cell_in(cell, 10 * CH_S),
                         &empty));
    cr_assert(empty);
    OK(cell_set_if_empty(task->client, "log1", BASE_BYTES_LIT("b"), cell_in(cell, 10 * CH_S),
                         &empty));
    cr_assert(!empty);
    base_arena_free(&arena);
    close_client(task);
}

/* A new cell makes its own METADATA, a table, and keeps what it is given: the plain path through
 * every part of the layer. */
Test(tablet_cell, first_steps)
{
    struct cell *cell = cell_new(1, 3, 1, NULL);
    run(cell, first_steps);
    cell_free(cell);
}

#define ADMIN(NAME)                                              \
    (&google__bigtable__admin__v2__bigtable_table_admin__service \
          .methods[GOOGLE__BIGTABLE__ADMIN__V2__BIGTABLE_TABLE_ADMIN__##NAME])
#define MASTER(NAME) \
    (&strata__tablet__v1__tabletmaster__service.methods[STRATA__TABLET__V1__TABLETMASTER__##NAME])

static void fill(struct task *task, int from, int to) CH_WAITS;
static void fill(struct task *task, int from, int to)
{
    for (int i = from; i < to; i++) {
        char key[16], value[200];
        snprintf(key, sizeof(key), "row%03d", i);
        memset(value, 'a' + i % 26, sizeof(value));
        OK(cell_set(task->client, key, "q", 1000, base_bytes(value, sizeof(value)),
                    cell_in(task->cell, 20 * CH_S)));
    }
}

static size_t count_rows(struct task *task) CH_WAITS;
static size_t count_rows(struct task *task)
{
    struct base_arena arena = { 0 };
    struct tab_row *rows;
    size_t count;
    OK(cell_read_all(task->client, false, cell_in(task->cell, 30 * CH_S), &arena, &rows, &count));
    base_arena_free(&arena);
    return count;
}

static void drop_prefix(struct task *task, const char *prefix) CH_WAITS;
static void drop_prefix(struct task *task, const char *prefix)
{
    struct base_arena arena = { 0 };
    void *reply;
    Google__Bigtable__Admin__V2__DropRowRangeRequest request =
        GOOGLE__BIGTABLE__ADMIN__V2__DROP_ROW_RANGE_REQUEST__INIT;
    request.name = ch_data_str(CELL_TABLE);
    request.target_case =
        GOOGLE__BIGTABLE__ADMIN__V2__DROP_ROW_RANGE_REQUEST__TARGET_ROW_KEY_PREFIX;
    request.row_key_prefix = ch_data_str(prefix);
    OK(cell_call(task->cell, 1, ADMIN(DROP_ROW_RANGE), &request, cell_in(task->cell, 20 * CH_S),
                 &arena, &reply));
    base_arena_free(&arena);
}

static void split_at(struct task *task, const char *row) CH_WAITS;
static void split_at(struct task *task, const char *row)
{
    struct base_arena arena = { 0 };
    void *reply;
    Strata__Tablet__V1__SplitTabletRequest request = STRATA__TABLET__V1__SPLIT_TABLET_REQUEST__INIT;
    request.table = ch_data_str(CELL_TABLE);
    request.row = ch_data_str(row);
    OK(cell_call(task->cell, 0, MASTER(SPLIT_TABLET), &request, cell_in(task->cell, 20 * CH_S),
                 &arena, &reply));
    base_arena_free(&arena);
}

static void splits_and_drops(void *arg)
{
    CH_FIBER_ENTRY();
    struct task *task = arg;
    open_client(task);
    OK(cell_make_table(task->client, ch_sim_tester_env(task->cell->sim), 1));
    fill(task, 0, 300);
    split_at(task, "row100");
    split_at(task, "row250");
    cr_assert_eq(count_rows(task), 300);
    drop_prefix(task, "row2"); /* in two tablets */
    cr_assert_eq(count_rows(task), 200);
    fill(task, 220, 230);
    cr_assert_eq(count_rows(task), 210, "rows written after the drop are there");
    close_client(task);
}

static void still_there(void *arg)
{
    CH_FIBER_ENTRY();
    struct task *task = arg;
    open_client(task);
    cr_assert_eq(count_rows(task), 210, "%zu rows", count_rows(task));
    drop_prefix(task, "row");
    cr_assert_eq(count_rows(task), 0);
    close_client(task);
}

/* Splits lose and double no row; a dropped range is gone in every tablet, what is written after it
 * stays; and all of it outlives every server's death at once. */
Test(tablet_cell, splits_drops_and_deaths)
{
    static const char *const small[] = { "--memtable-bytes=16KiB", "--log-segment-bytes=64KiB",
                                         NULL };
    struct cell *cell = cell_new(2, 3, 1, small);
    run(cell, splits_and_drops);
    for (int i = 0; i < 3; i++)
        ch_sim_crash(cell->servers[i].node);
    ch_sim_crash(cell->masters[0].node);
    for (int i = 0; i < 3; i++)
        cell_start(&cell->servers[i]);
    cell_start(&cell->masters[0]);
    run(cell, still_there);
    cell_free(cell);
}

static void modify_family(struct task *task, const char *family, bool drop) CH_WAITS;
static void modify_family(struct task *task, const char *family, bool drop)
{
    struct base_arena arena = { 0 };
    void *reply;
    Google__Bigtable__Admin__V2__ModifyColumnFamiliesRequest request =
        GOOGLE__BIGTABLE__ADMIN__V2__MODIFY_COLUMN_FAMILIES_REQUEST__INIT;
    Google__Bigtable__Admin__V2__ModifyColumnFamiliesRequest__Modification
        change = GOOGLE__BIGTABLE__ADMIN__V2__MODIFY_COLUMN_FAMILIES_REQUEST__MODIFICATION__INIT,
        *changes = &change;
    Google__Bigtable__Admin__V2__ColumnFamily made =
        GOOGLE__BIGTABLE__ADMIN__V2__COLUMN_FAMILY__INIT;
    request.name = ch_data_str(CELL_TABLE);
    request.n_modifications = 1;
    request.modifications = &changes;
    change.id = ch_data_str(family);
    if (drop) {
        change.mod_case =
            GOOGLE__BIGTABLE__ADMIN__V2__MODIFY_COLUMN_FAMILIES_REQUEST__MODIFICATION__MOD_DROP;
        change.drop = true;
    } else {
        change.mod_case =
            GOOGLE__BIGTABLE__ADMIN__V2__MODIFY_COLUMN_FAMILIES_REQUEST__MODIFICATION__MOD_CREATE;
        change.create = &made;
    }
    OK(cell_call(task->cell, 2, ADMIN(MODIFY_COLUMN_FAMILIES), &request,
                 cell_in(task->cell, 20 * CH_S), &arena, &reply));
    base_arena_free(&arena);
}

static void families(void *arg)
{
    CH_FIBER_ENTRY();
    struct task *task = arg;
    open_client(task);
    OK(cell_make_table(task->client, ch_sim_tester_env(task->cell->sim), 1));
    fill(task, 0, 20);
    modify_family(task, "f", true);
    cr_assert_eq(count_rows(task), 0, "cells of a dropped family are not read");
    struct base_status status = cell_set(task->client, "row", "q", 1000, BASE_BYTES_LIT("v"),
                                         cell_in(task->cell, 5 * CH_S));
    cr_assert_eq(status.code, BASE_NOT_FOUND, "%s", base_status_text(&status));
    cr_assert(strstr(base_status_text(&status), "Requested column family not found"));
    base_status_free(&status);
    modify_family(task, "f", false);
    cr_assert_eq(count_rows(task), 0, "a family made anew begins empty");
    fill(task, 5, 10);
    cr_assert_eq(count_rows(task), 5);
    struct {
        const char *row;
        int64_t timestamp_us;
        const char *says;
    } bad[] = { { "", 1000, "Row keys must be non-empty" },
                { "r", 1500, "Timestamp granularity mismatch" },
                { "r", -7, "Invalid timestamp" } };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        status = cell_set(task->client, bad[i].row, "q", bad[i].timestamp_us, BASE_BYTES_LIT("v"),
                          cell_in(task->cell, 5 * CH_S));
        cr_assert_eq(status.code, BASE_INVALID_ARGUMENT);
        cr_assert(strstr(base_status_text(&status), bad[i].says), "%s", base_status_text(&status));
        base_status_free(&status);
    }
    close_client(task);
}

/* A schema change is seen by every server when it returns; a dropped family's cells never come
 * back; bad writes get the public service's codes and texts. */
Test(tablet_cell, families_and_bad_writes)
{
    struct cell *cell = cell_new(3, 3, 1, NULL);
    run(cell, families);
    cell_free(cell);
}
