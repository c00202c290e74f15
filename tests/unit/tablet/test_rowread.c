/* Reading through several sources shows exactly what a naive model says is there: at every
 * snapshot, forwards and backwards, with and without hints; and merging sources first changes
 * nothing that is read. */
#include <stdlib.h>

#include "base/codec.h"
#include "chassis/sim.h"
#include "model.h"
#include "test.h"

enum { SOURCES = 3, ROUNDS = 150, ACTIONS = 120 };

struct world {
    struct model model;
    struct tab_memtable *sources[SOURCES];
    struct tab_range_delete ranges[8];
    size_t range_count;
    struct tab_schema *schema;
    uint64_t state;
};

static uint64_t next_random(struct world *world)
{
    world->state = world->state * 6364136223846793005ULL + 1442695040888963407ULL;
    return world->state ^ world->state >> 29;
}

static void make(struct world *world, uint64_t seed, const struct tab_gc *gc)
{
    world->state = seed * 7919 + 1;
    world->schema = model_schema(gc);
    for (int i = 0; i < SOURCES; i++)
        world->sources[i] = tab_memtable_new();
    for (int i = 0; i < ACTIONS;
         i++) /* in the order of flushes: each source is newer than the one before */
        model_act(&world->model, next_random(world), world->sources[i * SOURCES / ACTIONS],
                  world->ranges, &world->range_count);
}

static void destroy(struct world *world)
{
    for (int i = 0; i < SOURCES; i++)
        tab_memtable_unref(world->sources[i]);
    tab_schema_unref(world->schema);
}

static struct tab_merge *merge_of(struct world *world)
{
    struct tab_iter *iters[SOURCES];
    for (int i = 0; i < SOURCES; i++)
        iters[i] = tab_memtable_iter(world->sources[i]);
    return tab_merge_new(iters, SOURCES);
}

struct wanted { /* what the hint leaves */
    int time_end, column_cells;
};

/* Compares one row's cells, in order, with the model. */
static void check_row(struct world *world, struct tab_row_reader *reader, int row,
                      uint64_t snapshot, struct wanted wanted) CH_WAITS;
static void check_row(struct world *world, struct tab_row_reader *reader, int row,
                      uint64_t snapshot, struct wanted wanted)
{
    struct tab_cell_view cell;
    for (int f = 0; f < MODEL_FAMILIES; f++)
        for (int c = 0; c < MODEL_COLUMNS; c++) {
            uint64_t index = 0;
            int shown = 0;
            for (int t = MODEL_TIMES - 1; t >= 0; t--) {
                uint64_t seq = model_visible(&world->model, snapshot, row, f, c, t);
                if (seq == 0 ||
                    tab_gc_drops(&world->schema->families[f].gc, index++, t * 1000, reader->now_us))
                    continue;
                if ((wanted.time_end && t >= wanted.time_end) ||
                    (wanted.column_cells && shown >= wanted.column_cells))
                    continue;
                shown++;
                do /* a hint is only a hint: the filter drops the rest */
                    cr_assert(tab_row_reader_next_cell(reader, &cell),
                              "row %d: cell %d %d %d of %llu is not read", row, f, c, t,
                              (unsigned long long)seq);
                while (wanted.time_end && cell.timestamp_us >= wanted.time_end * 1000);
                cr_assert_eq(cell.timestamp_us, t * 1000, "row %d: time %lld, not %d", row,
                             (long long)cell.timestamp_us, t * 1000);
                cr_assert_eq(base_get_le64(cell.value.data), seq,
                             "row %d column %d %d time %d: value of %llu, not of %llu", row, f, c,
                             t, (unsigned long long)base_get_le64(cell.value.data),
                             (unsigned long long)seq);
            }
        }
    while (tab_row_reader_next_cell(reader, &cell))
        cr_assert(wanted.time_end && cell.timestamp_us >= wanted.time_end * 1000,
                  "row %d: a cell too many, at %lld", row, (long long)cell.timestamp_us);
}

static int row_number(struct base_bytes row)
{
    for (int i = 0; i < MODEL_ROWS; i++)
        if (base_bytes_eq(row, model_row(i)))
            return i;
    cr_assert(false, "a row nobody wrote");
    return -1;
}

static bool row_has_cells(struct world *world, int row, uint64_t snapshot)
{
    for (int f = 0; f < MODEL_FAMILIES; f++)
        for (int c = 0; c < MODEL_COLUMNS; c++)
            for (int t = 0; t < MODEL_TIMES; t++)
                if (model_visible(&world->model, snapshot, row, f, c, t))
                    return true;
    return false;
}

static void check_scan(struct world *world, uint64_t snapshot, bool reversed,
                       struct tab_read_hint hint, struct wanted wanted) CH_WAITS;
static void check_scan(struct world *world, uint64_t snapshot, bool reversed,
                       struct tab_read_hint hint, struct wanted wanted)
{
    struct tab_row_reader reader;
    struct base_bytes row;
    struct base_buf last = { 0 };
    bool seen[MODEL_ROWS] = { false };
    int before = reversed ? MODEL_ROWS : -1;
    tab_row_reader_init(&reader, merge_of(world), world->schema, world->ranges, world->range_count,
                        snapshot, 1000000);
    reader.hint = hint;
    tab_row_reader_seek(&reader, BASE_BYTES_EMPTY);
    bool first = true;
    while (reversed ? tab_row_reader_prev_row(&reader, base_buf_bytes(&last), first, &row)
                    : tab_row_reader_next_row(&reader, &row)) {
        int number = row_number(row);
        cr_assert(reversed ? number < before : number > before, "row %d after row %d", number,
                  before);
        before = number;
        seen[number] = true;
        first = false;
        base_buf_clear(&last);
        base_buf_put_bytes(&last, row);
        check_row(world, &reader, number, snapshot, wanted);
    }
    for (int i = 0; i < MODEL_ROWS; i++)
        cr_assert(seen[i] || !row_has_cells(world, i, snapshot), "row %d was passed over", i);
    tab_row_reader_destroy(&reader);
    base_buf_free(&last);
}

static const struct tab_gc keep_all[MODEL_FAMILIES];

static void scans(void *arg)
{
    CH_FIBER_ENTRY();
    for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
        struct world *world = calloc(1, sizeof(*world));
        make(world, seed, keep_all);
        uint64_t snapshot = seed % 3 ? UINT64_MAX : 1 + next_random(world) % ACTIONS;
        check_scan(world, snapshot, false, (struct tab_read_hint){ 0 }, (struct wanted){ 0 });
        check_scan(world, snapshot, true, (struct tab_read_hint){ 0 }, (struct wanted){ 0 });
        check_scan(world, snapshot, false,
                   (struct tab_read_hint){ .timestamp_end = 3000, .column_cells = 1 },
                   (struct wanted){ .time_end = 3, .column_cells = 1 });
        check_scan(world, snapshot, false, (struct tab_read_hint){ .column_cells = 2 },
                   (struct wanted){ .column_cells = 2 });
        destroy(world);
        free(world);
    }
}

static void in_fiber(ch_fiber_fn *fn)
{
    struct ch_sim *sim = ch_sim_new(1);
    ch_sim_do(sim, fn, NULL, CH_NEVER);
    ch_sim_free(sim);
}

/* Deletions of rows, families, times of a column and ranges of rows, overwritten cells and
 * snapshots, in every mixture. */
Test(rowread, shows_what_the_model_shows)
{
    in_fiber(scans);
}

static void scans_with_rules(void *arg)
{
    CH_FIBER_ENTRY();
    struct tab_gc both[2] = { { .kind = TAB_GC_VERSIONS, .versions = 2 },
                              { .kind = TAB_GC_AGE, .age_us = 1000000 - 2500 } };
    struct tab_gc gc[MODEL_FAMILIES] = { { .kind = TAB_GC_VERSIONS, .versions = 2 },
                                         { .kind = TAB_GC_ANY, .rules = both, .rule_count = 2 },
                                         { .kind = TAB_GC_ALL, .rules = both, .rule_count = 2 } };
    for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
        struct world *world = calloc(1, sizeof(*world));
        make(world, seed, gc);
        check_scan(world, UINT64_MAX, false, (struct tab_read_hint){ 0 }, (struct wanted){ 0 });
        check_scan(world, UINT64_MAX, false, (struct tab_read_hint){ .timestamp_end = 4000 },
                   (struct wanted){ .time_end = 4 });
        destroy(world);
        free(world);
    }
}

/* What the families' rules call garbage is not read: newest versions, age, both, either. */
Test(rowread, applies_the_garbage_rules)
{
    in_fiber(scans_with_rules);
}

/* Replaces sources [first, last] by one with what compaction keeps of them. */
static void compact(struct world *world, int first, int last, bool major) CH_WAITS;
static void compact(struct world *world, int first, int last, bool major)
{
    struct tab_iter *iters[SOURCES];
    struct tab_keep keep = { .major = major };
    struct tab_memtable *merged = tab_memtable_new();
    size_t count = 0;
    for (int i = first; i <= last; i++)
        iters[count++] = tab_memtable_iter(world->sources[i]);
    struct tab_merge *merge = tab_merge_new(iters, count);
    tab_row_reader_init(&keep.reader, NULL, world->schema, world->ranges, world->range_count,
                        UINT64_MAX, 1000000);
    const struct tab_iter *at;
    for (tab_merge_seek(merge, BASE_BYTES_EMPTY); (at = tab_merge_at(merge));
         tab_merge_next(merge)) {
        struct tab_key key;
        cr_assert(tab_key_parse(at->key, &key));
        if (tab_keep_entry(&keep, &key, at->value)) {
            cr_assert(!major || key.kind == TAB_CELL, "a major compaction kept a deletion");
            tab_memtable_put(merged, at->key, at->value);
        }
    }
    tab_row_reader_destroy(&keep.reader);
    tab_merge_free(merge);
    for (int i = first; i <= last; i++) {
        tab_memtable_unref(world->sources[i]);
        world->sources[i] = i == first ? merged : tab_memtable_new();
    }
}

static void compactions(void *arg)
{
    CH_FIBER_ENTRY();
    for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
        struct world *world = calloc(1, sizeof(*world));
        make(world, seed, keep_all);
        int first = (int)(next_random(world) % SOURCES),
            last = first + (int)(next_random(world) % (unsigned)(SOURCES - first));
        compact(world, first, last, first == 0 && last == SOURCES - 1);
        check_scan(world, UINT64_MAX, false, (struct tab_read_hint){ 0 }, (struct wanted){ 0 });
        compact(world, 0, SOURCES - 1, true);
        check_scan(world, UINT64_MAX, true, (struct tab_read_hint){ 0 }, (struct wanted){ 0 });
        destroy(world);
        free(world);
    }
}

/* Compaction of any run of sources, and then of all, is not seen by readers; a major one keeps
 * no deletion. */
Test(rowread, compaction_changes_nothing_that_is_read)
{
    in_fiber(compactions);
}
