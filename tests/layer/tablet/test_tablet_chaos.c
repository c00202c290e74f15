/* A tablet cell under crashes, pauses, cuts, splits and failing appends, from a seed. Clients
 * write cells that nobody else writes, count with ReadModifyWriteRow, and race for log positions
 * with CheckAndMutateRow. Whatever happens: what was acknowledged is read back; an acknowledged
 * increment counts exactly once, and an unacknowledged one at most once; a position has one
 * winner, for ever. Replay: STRATA_SEED=n. */
#include <stdio.h>
#include <stdlib.h>

#include "base/codec.h"
#include "cell_store.h"
#include "google/bigtable/admin/v2/bigtable_table_admin.strata.h"
#include "strata/tablet/v1/tablet.strata.h"
#include "seeds.h"
#include "test.h"

#ifndef CHAOS_SEEDS
#define CHAOS_SEEDS 6
#endif

enum {
    WRITERS = 6,
    SETS_MAX = 4000,
    COUNTERS = 5,
    POSITIONS = 600,
    VALUE = 300,
    RESULTS_MAX = 6000
};

struct fact {
    int writer, number;
    bool acknowledged;
};

struct chaos {
    struct cell *cell;
    struct ch_env *env;
    struct ch_naming *naming;
    struct tab_client *client;
    struct ch_gate gate;
    bool stop;
    struct fact sets[SETS_MAX];
    size_t set_count;
    int64_t counted[COUNTERS], unknown[COUNTERS];
    int64_t results[COUNTERS][RESULTS_MAX];
    size_t result_count[COUNTERS];
    int winner[POSITIONS]; /* acknowledged: 1 + writer */
    int next_position;
    uint64_t acknowledged, failed;
    int next_writer;
};

static void set_key(char *key, size_t size, const struct fact *fact)
{
    /* Spread over the table, so that splits matter. */
    snprintf(key, size, "%02x-%d-%05d", (fact->number * 37 + fact->writer * 91) & 0xff,
             fact->writer, fact->number);
}

static void fill_value(uint8_t *value, const struct fact *fact)
{
    memset(value, 'a' + fact->number % 26, VALUE);
    base_put_le64(value, (uint64_t)fact->number);
}

static void do_set(struct chaos *chaos, int writer, int number) CH_WAITS;
static void do_set(struct chaos *chaos, int writer, int number)
{
    if (chaos->set_count == SETS_MAX)
        return;
    struct fact *fact = &chaos->sets[chaos->set_count++];
    *fact = (struct fact){ writer, number, false };
    char key[32];
    uint8_t value[VALUE];
    set_key(key, sizeof(key), fact);
    fill_value(value, fact);
    struct base_status status = cell_set(chaos->client, key, "q", 1000, base_bytes(value, VALUE),
                                         cell_in(chaos->cell, 5 * CH_S));
    fact->acknowledged = !base_failed(status);
    chaos->acknowledged += fact->acknowledged;
    chaos->failed += !fact->acknowledged;
    base_status_free(&status);
}

static void do_increment(struct chaos *chaos) CH_WAITS;
static void do_increment(struct chaos *chaos)
{
    int counter = (int)ch_random_below(chaos->env, COUNTERS);
    char key[32];
    int64_t result = 0;
    snprintf(key, sizeof(key), "%x0-counter", counter * 3);
    struct base_status status =
        cell_increment(chaos->client, key, "n", 1, cell_in(chaos->cell, 5 * CH_S), &result);
    if (base_failed(status)) {
        chaos->unknown[counter]++;
        chaos->failed++;
    } else {
        chaos->counted[counter]++;
        chaos->acknowledged++;
        if (chaos->result_count[counter] < RESULTS_MAX)
            chaos->results[counter][chaos->result_count[counter]++] = result;
    }
    base_status_free(&status);
}

static void do_position(struct chaos *chaos, int writer) CH_WAITS;
static void do_position(struct chaos *chaos, int writer)
{
    /* Mostly the same position as others try. */
    int position = chaos->next_position;
    if (position >= POSITIONS)
        return;
    char key[32], value[16];
    bool empty = false;
    snprintf(key, sizeof(key), "log-%05d", position);
    snprintf(value, sizeof(value), "w%d", writer);
    struct base_status status = cell_set_if_empty(chaos->client, key, base_bytes_str(value),
                                                  cell_in(chaos->cell, 5 * CH_S), &empty);
    if (!base_failed(status)) {
        chaos->acknowledged++;
        if (empty) {
            cr_assert_eq(chaos->winner[position], 0, "position %d won by %d and by %d", position,
                         chaos->winner[position] - 1, writer);
            chaos->winner[position] = writer + 1;
        }
        if (position == chaos->next_position)
            chaos->next_position++;
    }
    base_status_free(&status);
}

static void writer_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct chaos *chaos = arg;
    int writer = chaos->next_writer++;
    for (int number = 0; !chaos->stop; number++) {
        switch (ch_random_below(chaos->env, 4)) {
        case 0:
            do_increment(chaos);
            break;
        case 1:
            do_position(chaos, writer);
            break;
        default:
            do_set(chaos, writer, number);
        }
        ch_sleep_until(chaos->env,
                       ch_in(chaos->env, (ch_time)ch_random_below(chaos->env, 20 * CH_MS)));
    }
}

/* ---- trouble ---- */

static void split_somewhere(struct chaos *chaos) CH_WAITS;
static void split_somewhere(struct chaos *chaos)
{
    struct base_arena arena = { 0 };
    Strata__Tablet__V1__SplitTabletRequest request = STRATA__TABLET__V1__SPLIT_TABLET_REQUEST__INIT;
    char row[8];
    void *reply;
    snprintf(row, sizeof(row), "%02x", (unsigned)ch_random_below(chaos->env, 256));
    request.table = ch_data_str(CELL_TABLE);
    request.row = ch_data_str(row);
    struct base_status status =
        cell_call(chaos->cell, ch_random_below(chaos->env, chaos->cell->server_count),
                  &strata__tablet__v1__tabletmaster__service
                       .methods[STRATA__TABLET__V1__TABLETMASTER__SPLIT_TABLET],
                  &request, cell_in(chaos->cell, 3 * CH_S), &arena, &reply);
    base_status_drop(status);
    base_arena_free(&arena);
}

static void move_somewhere(struct chaos *chaos) CH_WAITS;
static void move_somewhere(struct chaos *chaos)
{
    struct base_arena arena = { 0 };
    Strata__Tablet__V1__MoveTabletRequest request = STRATA__TABLET__V1__MOVE_TABLET_REQUEST__INIT;
    char row[8];
    void *reply;
    snprintf(row, sizeof(row), "%02x", (unsigned)ch_random_below(chaos->env, 256));
    if (ch_random_below(chaos->env, 4))
        request.table = ch_data_str(CELL_TABLE);
    request.row = ch_data_str(row);
    struct base_status status =
        cell_call(chaos->cell, ch_random_below(chaos->env, chaos->cell->server_count),
                  &strata__tablet__v1__tabletmaster__service
                       .methods[STRATA__TABLET__V1__TABLETMASTER__MOVE_TABLET],
                  &request, cell_in(chaos->cell, 3 * CH_S), &arena, &reply);
    base_status_drop(status);
    base_arena_free(&arena);
}

static void cut_somewhere(struct chaos *chaos) CH_WAITS;
static void cut_somewhere(struct chaos *chaos)
{
    struct cell *cell = chaos->cell;
    struct cell_node *node = &cell->servers[ch_random_below(chaos->env, cell->server_count)];
    const char *other = ch_random_below(chaos->env, 2) ? "10.0.0.2" : cell->masters[0].host;
    ch_sim_net_cut(cell->sim, node->host, other, true);
    ch_sleep_until(chaos->env, ch_in(chaos->env, (ch_time)ch_random_below(chaos->env, 8 * CH_S)));
    ch_sim_net_heal(cell->sim);
}

static void one_trouble(struct chaos *chaos) CH_WAITS;
static void one_trouble(struct chaos *chaos)
{
    struct cell *cell = chaos->cell;
    struct cell_node *server = &cell->servers[ch_random_below(chaos->env, cell->server_count)];
    struct cell_node *master = &cell->masters[ch_random_below(chaos->env, cell->master_count)];
    switch (ch_random_below(chaos->env, 10)) {
    case 0:
    case 1:
        ch_sim_crash(server->node);
        break;
    case 2:
        ch_sim_crash(master->node);
        break;
    case 3:
        ch_sim_pause(server->node, true);
        ch_sleep_until(chaos->env,
                       ch_in(chaos->env, (ch_time)ch_random_below(chaos->env, 8 * CH_S)));
        ch_sim_pause(server->node, false);
        break;
    case 4:
    case 5:
        split_somewhere(chaos);
        break;
    case 6:
        move_somewhere(chaos);
        break;
    case 7:
    case 8:
        cell_store_trouble(cell);
        break;
    default:
        cut_somewhere(chaos);
    }
}

static void chaos_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct chaos *chaos = arg;
    struct cell *cell = chaos->cell;
    while (!chaos->stop) {
        ch_sleep_until(chaos->env,
                       ch_in(chaos->env, (ch_time)ch_random_below(chaos->env, 2 * CH_S)));
        one_trouble(chaos);
        ch_sleep_until(chaos->env, ch_in(chaos->env, (ch_time)ch_random_below(chaos->env, CH_S)));
        for (size_t i = 0; i < cell->server_count; i++)
            cell_start(&cell->servers[i]);
        for (size_t i = 0; i < cell->master_count; i++)
            cell_start(&cell->masters[i]);
    }
}

/* ---- checking ---- */

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static const struct tab_row *find_row(const struct tab_row *rows, size_t count, const char *key)
{
    for (size_t low = 0, high = count; low < high;) {
        size_t middle = (low + high) / 2;
        int order = base_bytes_cmp(rows[middle].key, base_bytes_str(key));
        if (order == 0)
            return &rows[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static void check_rows(struct chaos *chaos, const struct tab_row *rows, size_t count)
{
    char key[32];
    for (size_t i = 1; i < count; i++)
        cr_assert(base_bytes_cmp(rows[i - 1].key, rows[i].key) < 0, "rows out of order");
    for (size_t i = 0; i < chaos->set_count; i++) {
        uint8_t value[VALUE];
        set_key(key, sizeof(key), &chaos->sets[i]);
        fill_value(value, &chaos->sets[i]);
        const struct tab_row *row = find_row(rows, count, key);
        cr_assert(row || !chaos->sets[i].acknowledged, "acknowledged row %s is lost", key);
        cr_assert(!row || (row->cell_count == 1 &&
                           base_bytes_eq(row->cells[0].value, base_bytes(value, VALUE))),
                  "row %s holds something else", key);
    }
    for (int i = 0; i < COUNTERS; i++) {
        snprintf(key, sizeof(key), "%x0-counter", i * 3);
        const struct tab_row *row = find_row(rows, count, key);
        int64_t value =
            row && row->cell_count ? (int64_t)base_get_be64(row->cells[0].value.data) : 0;
        cr_assert(value >= chaos->counted[i] && value <= chaos->counted[i] + chaos->unknown[i],
                  "counter %d is %lld: %lld were acknowledged, %lld unknown", i, (long long)value,
                  (long long)chaos->counted[i], (long long)chaos->unknown[i]);
        qsort(chaos->results[i], chaos->result_count[i], sizeof(int64_t), by_number);
        for (size_t r = 1; r < chaos->result_count[i]; r++)
            cr_assert(chaos->results[i][r] != chaos->results[i][r - 1],
                      "counter %d: two increments both made it %lld", i,
                      (long long)chaos->results[i][r]);
    }
    for (int i = 0; i < POSITIONS; i++) {
        if (!chaos->winner[i])
            continue;
        char value[16];
        snprintf(key, sizeof(key), "log-%05d", i);
        snprintf(value, sizeof(value), "w%d", chaos->winner[i] - 1);
        const struct tab_row *row = find_row(rows, count, key);
        cr_assert(row && row->cell_count == 1 && base_bytes_eq_str(row->cells[0].value, value),
                  "position %d: %s won but is not there", i, value);
    }
}

static void chaos_task(void *arg)
{
    CH_FIBER_ENTRY();
    struct chaos *chaos = arg;
    struct cell *cell = chaos->cell;
    chaos->env = ch_sim_tester_env(cell->sim);
    chaos->naming = cell_naming(cell);
    chaos->client = cell_client(cell, chaos->naming);
    struct base_status status = cell_make_table(chaos->client, chaos->env, 1);
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    ch_gate_init(&chaos->gate, chaos->env, "clients");
    for (int i = 0; i < WRITERS; i++)
        base_status_drop(ch_gate_spawn(&chaos->gate, "writer", writer_fiber, chaos));
    struct ch_gate trouble;
    ch_gate_init(&trouble, chaos->env, "trouble");
    base_status_drop(ch_gate_spawn(&trouble, "chaos", chaos_fiber, chaos));
    ch_sleep_until(chaos->env, ch_in(chaos->env, 40 * CH_S));
    chaos->stop = true;
    ch_gate_join_always(&trouble);
    ch_gate_join_always(&chaos->gate);
    cell_store_calm(cell);
    ch_sim_net_heal(cell->sim);
    struct base_arena arena = { 0 };
    struct tab_row *rows;
    size_t count;
    /* Within seconds all is well again. */
    status = cell_read_all(chaos->client, false, cell_in(cell, 40 * CH_S), &arena, &rows, &count);
    cr_assert(!base_failed(status), "after the trouble: %s", base_status_text(&status));
    check_rows(chaos, rows, count);
    size_t backwards;
    struct tab_row *again;
    status =
        cell_read_all(chaos->client, true, cell_in(cell, 40 * CH_S), &arena, &again, &backwards);
    cr_assert(!base_failed(status), "backwards: %s", base_status_text(&status));
    cr_assert_eq(count, backwards, "%zu rows forwards, %zu backwards", count, backwards);
    cr_assert(chaos->acknowledged > 200, "only %llu operations were acknowledged",
              (unsigned long long)chaos->acknowledged);
    base_arena_free(&arena);
    tab_client_free(chaos->client);
    ch_naming_free(chaos->naming);
}

static void one_seed(uint64_t seed)
{
    static const char *const small[] = { "--memtable-bytes=24KiB", "--log-segment-bytes=64KiB",
                                         "--tablet-split-bytes=300KiB",
                                         "--block-cache-bytes=256KiB", NULL };
    struct chaos *chaos = calloc(1, sizeof(*chaos));
    chaos->cell = cell_new(seed, 4, 2, small);
    ch_sim_do(chaos->cell->sim, chaos_task, chaos, cell_in(chaos->cell, 400 * CH_S));
    fprintf(stderr, "seed %llu: %llu acknowledged, %llu failed, %zu rows set\n",
            (unsigned long long)seed, (unsigned long long)chaos->acknowledged,
            (unsigned long long)chaos->failed, chaos->set_count);
    cell_store_tell(chaos->cell);
    cell_free(chaos->cell);
    free(chaos);
}

/* Nothing acknowledged is lost, nothing happens twice, one winner a position: over several seeds
 * of everything at once. */
Test(tablet_chaos, seeds)
{
    uint64_t first = ch_sim_seed(1000);
    const char *many = getenv("STRATA_SEEDS");
    uint64_t count = getenv("STRATA_SEED") ? 1
                     : many                ? strtoull(many, NULL, 10)
                                           : seeds_count(CHAOS_SEEDS);
    for (uint64_t seed = first; seed < first + count; seed++)
        one_seed(seed);
}
