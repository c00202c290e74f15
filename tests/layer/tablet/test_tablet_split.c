/* A split that fails on its way leaves the tablet as it was, on the simulated world. */
#include <stdio.h>

#include "blk_double.h"
#include "cell.h"
#include "strata/tablet/v1/tablet.strata.h"
#include "test.h"

enum { ROWS = 300, LINKS = 6 };

struct task {
    struct cell *cell;
    uint32_t fail_link;
};

#define OK(expr)                                                                             \
    do {                                                                                     \
        struct base_status ok_status_ = (expr);                                              \
        cr_assert(!base_failed(ok_status_), "%s: %s", #expr, base_status_text(&ok_status_)); \
        base_status_free(&ok_status_);                                                       \
    } while (0)

static void write_and_split(void *arg)
{
    CH_FIBER_ENTRY();
    struct task *task = arg;
    struct cell *cell = task->cell;
    struct base_arena arena = { 0 };
    struct ch_naming *naming = cell_naming(cell);
    struct tab_client *client = cell_client(cell, naming);
    OK(cell_make_table(client, ch_sim_tester_env(cell->sim), 1));
    for (int i = 0; i < ROWS; i++) {
        char key[16], value[200];
        snprintf(key, sizeof(key), "row%03d",
                 i * 7 % ROWS); /* each file holds rows of both halves */
        memset(value, 'v', sizeof(value));
        OK(cell_set(client, key, "q", 1000, base_bytes(value, sizeof(value)),
                    cell_in(cell, 20 * CH_S)));
    }
    void *reply;
    Strata__Tablet__V1__SplitTabletRequest split = STRATA__TABLET__V1__SPLIT_TABLET_REQUEST__INIT;
    split.table = ch_data_str(CELL_TABLE);
    split.row = ch_data_str("row150");
    blk_double_faults(&(struct blk_double_faults){
        .delay_min = 100 * CH_US, .delay_max = 400 * CH_US, .fail_link = task->fail_link });
    base_status_drop(cell_call(cell, 0,
                               &strata__tablet__v1__tabletmaster__service
                                    .methods[STRATA__TABLET__V1__TABLETMASTER__SPLIT_TABLET],
                               &split, cell_in(cell, 20 * CH_S), &arena, &reply));
    /* At once: a merge of the files, which are open, would hide that their names are gone. */
    cr_assert_neq(blk_double_names("/tablet/sst/"), 0, "no file is left");
    ch_sim_crash(cell->servers[0].node);
    base_arena_free(&arena);
    tab_client_free(client);
    ch_naming_free(naming);
}

static void read_all(void *arg)
{
    CH_FIBER_ENTRY();
    struct task *task = arg;
    struct base_arena arena = { 0 };
    struct ch_naming *naming = cell_naming(task->cell);
    struct tab_client *client = cell_client(task->cell, naming);
    struct tab_row *rows;
    size_t count;
    OK(cell_read_all(client, false, cell_in(task->cell, 30 * CH_S), &arena, &rows, &count));
    cr_assert_eq(count, ROWS, "with link %u failed: %zu rows", task->fail_link, count);
    base_arena_free(&arena);
    tab_client_free(client);
    ch_naming_free(naming);
}

/* A split gives the tablet's files second names, for each half its own. When one of these links
 * fails, the names that were made go, and no other: every row is there, also for who loads the
 * tablet from its record. */
Test(tablet_split, a_link_that_fails)
{
    static const char *const small[] = { "--memtable-bytes=16KiB", "--log-segment-bytes=64KiB",
                                         NULL };
    for (uint32_t fail = 1; fail <= LINKS; fail++) {
        struct cell *cell = cell_new(fail, 1, 1, small);
        struct task task = { cell, fail };
        ch_sim_do(cell->sim, write_and_split, &task, cell_in(cell, 300 * CH_S));
        cell_start(&cell->servers[0]);
        ch_sim_do(cell->sim, read_all, &task, cell_in(cell, 60 * CH_S));
        cell_free(cell);
    }
}
