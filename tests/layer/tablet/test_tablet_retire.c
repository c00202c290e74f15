/* Tabletservers that are asked to stop give up what they serve (retire.c), on the simulated
 * world. */
#include <stdio.h>

#include "blk_double.h"
#include "cell.h"
#include "strata/tablet/v1/tablet.strata.h"
#include "seeds.h"
#include "test.h"

enum { ROWS = 60 };

struct task {
    struct cell *cell;
    size_t expected;
};

#define OK(expr)                                                                             \
    do {                                                                                     \
        struct base_status ok_status_ = (expr);                                              \
        cr_assert(!base_failed(ok_status_), "%s: %s", #expr, base_status_text(&ok_status_)); \
        base_status_free(&ok_status_);                                                       \
    } while (0)

static void write_rows(void *arg)
{
    CH_FIBER_ENTRY();
    struct task *task = arg;
    struct cell *cell = task->cell;
    struct base_arena arena = { 0 };
    struct ch_naming *naming = cell_naming(cell);
    struct tab_client *client = cell_client(cell, naming);
    OK(cell_make_table(client, ch_sim_tester_env(cell->sim), 1));
    for (int i = 0; i < ROWS; i++) {
        char key[16];
        snprintf(key, sizeof(key), "row%03d", i);
        OK(cell_set(client, key, "q", 1000, BASE_BYTES_LIT("value"), cell_in(cell, 20 * CH_S)));
    }
    for (int i = 10; i < ROWS; i += 20) { /* tablets on every server */
        char key[16];
        void *reply;
        Strata__Tablet__V1__SplitTabletRequest split =
            STRATA__TABLET__V1__SPLIT_TABLET_REQUEST__INIT;
        snprintf(key, sizeof(key), "row%03d", i);
        split.table = ch_data_str(CELL_TABLE);
        split.row = ch_data_str(key);
        OK(cell_call(cell, 0,
                     &strata__tablet__v1__tabletmaster__service
                          .methods[STRATA__TABLET__V1__TABLETMASTER__SPLIT_TABLET],
                     &split, cell_in(cell, 20 * CH_S), &arena, &reply));
    }
    (void)ch_sleep_until(ch_sim_tester_env(cell->sim), cell_in(cell, 8 * CH_S)); /* balanced */
    for (int i = 0; i < ROWS; i += 7) {
        char key[16];
        snprintf(key, sizeof(key), "row%03d", i);
        OK(cell_set(client, key, "r", 1000, BASE_BYTES_LIT("more"), cell_in(cell, 20 * CH_S)));
    }
    base_arena_free(&arena);
    tab_client_free(client);
    ch_naming_free(naming);
}

static void read_rows(void *arg)
{
    CH_FIBER_ENTRY();
    struct task *task = arg;
    struct base_arena arena = { 0 };
    struct ch_naming *naming = cell_naming(task->cell);
    struct tab_client *client = cell_client(task->cell, naming);
    struct tab_row *rows;
    size_t count, cells = 0;
    OK(cell_read_all(client, false, cell_in(task->cell, 10 * CH_S), &arena, &rows, &count));
    cr_assert_eq(count, task->expected, "%zu rows", count);
    for (size_t i = 0; i < count; i++)
        cells += rows[i].cell_count;
    cr_assert_eq(cells, ROWS + (ROWS + 6) / 7, "%zu cells", cells);
    base_arena_free(&arena);
    tab_client_free(client);
    ch_naming_free(naming);
}

static bool all_gone(void *arg)
{
    struct cell *cell = arg;
    for (size_t i = 0; i < cell->server_count; i++)
        if (ch_sim_running(cell->servers[i].node))
            return false;
    return true;
}

/* When all tabletservers stop together, as in a cell that is shut down, each tablet is given up
 * under the eyes of whoever serves its record, the root last: nobody waits in vain for METADATA,
 * no log is left to be recovered, and the next start finds every acknowledged row. The signals
 * come at times that differ by up to 100 ms. */
Test(tablet_retire, whole_tier)
{
    for (uint64_t seed = 1; seed <= seeds_count(12); seed++) {
        struct cell *cell = cell_new(seed, 3, 1, NULL);
        struct task task = { cell, ROWS };
        ch_sim_do(cell->sim, write_rows, &task, cell_in(cell, 300 * CH_S));
        ch_time begun = ch_sim_now(cell->sim);
        for (size_t i = 0; i < 3; i++) {
            size_t server = (i + seed) % 3;
            ch_sim_stop_begin(cell->servers[server].node);
            ch_sim_run(cell->sim, NULL, NULL,
                       cell_in(cell, (ch_time)(ch_sim_random(cell->sim) % 50) * CH_MS));
        }
        cr_assert(ch_sim_run(cell->sim, all_gone, cell, begun + 3 * CH_S),
                  "seed %llu: a tabletserver still stops after 3 s", (unsigned long long)seed);
        cr_assert_eq(blk_double_names("/tablet/log/"), 0, "seed %llu: a log was left",
                     (unsigned long long)seed);
        for (size_t i = 0; i < 3; i++)
            cell_start(&cell->servers[i]);
        ch_sim_do(cell->sim, read_rows, &task, cell_in(cell, 60 * CH_S));
        cell_free(cell);
    }
}

/* When one stops and others stay, its tablets, METADATA's and the root's among them, are given up
 * too and served elsewhere soon: it leaves no log to be sorted, and no client waits for a lease. */
Test(tablet_retire, one_of_three)
{
    for (size_t server = 0; server < 3; server++) {
        struct cell *cell = cell_new(30 + server, 3, 1, NULL);
        struct task task = { cell, ROWS };
        char log[64];
        const char *value;
        char lock[64];
        ch_sim_do(cell->sim, write_rows, &task, cell_in(cell, 300 * CH_S));
        snprintf(lock, sizeof(lock), "/local/locks/tabletserver/%zu", server);
        uint64_t epoch = names_double_lock(cell->names, lock, &value);
        cr_assert_neq(epoch, 0);
        snprintf(log, sizeof(log), "/tablet/log/%zu@%llu/", server, (unsigned long long)epoch);
        cr_assert_neq(blk_double_names(log), 0, "%s", log);
        ch_time begun = ch_sim_now(cell->sim);
        ch_sim_stop(cell->servers[server].node);
        cr_assert(ch_sim_now(cell->sim) - begun < 3 * CH_S, "it took %lld ms",
                  (long long)((ch_sim_now(cell->sim) - begun) / CH_MS));
        cr_assert_eq(blk_double_names(log), 0, "%s is left", log);
        ch_sim_do(cell->sim, read_rows, &task, cell_in(cell, 2 * CH_S));
        cell_free(cell);
    }
}
