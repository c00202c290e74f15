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
