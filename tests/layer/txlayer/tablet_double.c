/* tablet_double.c: see tablet_double.h: the client's calls, and the weather on their way. What is
 * kept is in tablet_double_store.c. */
#include "tablet_double.h"

#include <stdlib.h>

#include "chassis/proto.h"
#include "chassis/sim.h"
#include "tablet_double_store.h"

enum { PAGE_ROWS = 200, CUTS_MAX = 16 };

struct tablet_double {
    struct ch_env *world;
    struct ch_gate gate;
    struct tablet_double_faults faults;
    struct tablet_double_counts counts;
    struct store_tables tables;
    const void *cuts[CUTS_MAX];
};

struct tab_client {
    struct ch_env *env;
    struct tablet_double *tablet;
};

static struct tablet_double *current;

struct tablet_double *tablet_double_new(struct ch_env *world)
{
    struct tablet_double *tablet = calloc(1, sizeof(*tablet));
    tablet->world = world;
    ch_gate_init(&tablet->gate, world, "tablet double");
    TAILQ_INIT(&tablet->tables);
    current = tablet;
    return tablet;
}

void tablet_double_free(struct tablet_double *tablet)
{
    ch_gate_stop(&tablet->gate);
    store_free(&tablet->tables);
    free(tablet);
    current = NULL;
}

void tablet_double_faults(struct tablet_double *tablet, const struct tablet_double_faults *faults)
{
    tablet->faults = *faults;
}

void tablet_double_cut(struct tablet_double *tablet, const void *node, bool cut)
{
    for (size_t i = 0; i < CUTS_MAX; i++)
        if (tablet->cuts[i] == node)
            tablet->cuts[i] = NULL;
    for (size_t i = 0; cut && i < CUTS_MAX; i++)
        if (!tablet->cuts[i]) {
            tablet->cuts[i] = node;
            return;
        }
}

struct tablet_double_counts tablet_double_counts(const struct tablet_double *tablet)
{
    return tablet->counts;
}

/* ---- weather ---- */

static uint64_t dice(struct tab_client *client, uint64_t sides)
{
    return ch_random_below(client->env, sides);
}

static bool chance(struct tab_client *client, uint32_t in_1000)
{
    return in_1000 && dice(client, 1000) < in_1000;
}

static bool is_cut(struct tab_client *client)
{
    const void *node = ch_sim_node_of(client->env);
    for (size_t i = 0; node && i < CUTS_MAX; i++)
        if (client->tablet->cuts[i] == node)
            return true;
    return false;
}

/* One way of a call. */
static struct base_status travel(struct tab_client *client, ch_time deadline) CH_WAITS;
static struct base_status travel(struct tab_client *client, ch_time deadline)
{
    const struct tablet_double_faults *faults = &client->tablet->faults;
    ch_time spread = faults->delay_max - faults->delay_min,
            arrive = ch_now(client->env) + faults->delay_min;
    if (ch_cancelled())
        return base_status_make(BASE_CANCELLED, "tablet double: cancelled");
    if (spread > 0)
        arrive += (ch_time)dice(client, (uint64_t)spread);
    if (is_cut(client))
        arrive = CH_NEVER;
    if (arrive <= ch_now(client->env))
        return BASE_STATUS_OK;
    enum ch_outcome outcome = ch_sleep_until(client->env, arrive < deadline ? arrive : deadline);
    if (outcome == CH_CANCELLED)
        return base_status_make(BASE_CANCELLED, "tablet double: cancelled");
    if (arrive >= deadline)
        return base_status_make(BASE_DEADLINE_EXCEEDED, "tablet double: deadline");
    return BASE_STATUS_OK;
}

struct late {
    struct tablet_double *tablet;
    struct base_arena arena;
    ProtobufCMessage *request;
    void (*run)(struct tablet_double *tablet, const void *request, uint64_t seed, bool *matched);
    ch_time when;
};

static void come_late(void *arg)
{
    CH_FIBER_ENTRY();
    struct late *late = arg;
    bool matched;
    if (ch_sleep_until(late->tablet->world, late->when) == CH_TIMEOUT)
        late->run(late->tablet, late->request, 0, &matched);
    base_arena_free(&late->arena);
    free(late);
}

/* A call with an effect. What its caller learns and what happened may differ. */
static struct base_status effect(struct tab_client *client, const void *request, ch_time deadline,
                                 void (*run)(struct tablet_double *tablet, const void *request,
                                             uint64_t seed, bool *matched),
                                 bool *matched) CH_WAITS;
static struct base_status effect(struct tab_client *client, const void *request, ch_time deadline,
                                 void (*run)(struct tablet_double *tablet, const void *request,
                                             uint64_t seed, bool *matched),
                                 bool *matched)
{
    struct tablet_double *tablet = client->tablet;
    struct base_status status = travel(client, deadline);
    bool lost = base_failed(status) || chance(client, tablet->faults.lose_before);
    if (lost && chance(client, tablet->faults.late ? 500 : 0)) {
        struct late *late = calloc(1, sizeof(*late));
        late->tablet = tablet;
        base_arena_init(&late->arena);
        late->request = ch_proto_copy(request, &late->arena);
        late->run = run;
        late->when =
            ch_now(tablet->world) + (ch_time)dice(client, (uint64_t)tablet->faults.late_max + 1);
        tablet->counts.lates++;
        BASE_ASSERT(!base_failed(ch_gate_spawn(&tablet->gate, "late", come_late, late)));
    }
    if (base_failed(status))
        return status;
    if (lost)
        return base_status_make(BASE_UNAVAILABLE, "tablet double: lost on its way");
    bool cut_short = chance(client, tablet->faults.lose_after);
    run(tablet, request, cut_short ? dice(client, UINT32_MAX) | 1 : 0, matched);
    status = travel(client, deadline);
    if (!base_failed(status) && cut_short)
        return base_status_make(BASE_UNAVAILABLE, "tablet double: the reply is lost");
    return status;
}

/* ---- tablet.h ---- */

struct tab_client *tab_client_new(struct ch_env *env, const struct tab_client_options *options)
{
    struct tab_client *client = calloc(1, sizeof(*client));
    *client = (struct tab_client){ env, current };
    BASE_ASSERT(current);
    return client;
}

void tab_client_free(struct tab_client *client)
{
    free(client);
}

static void run_check(struct tablet_double *tablet, const void *message, uint64_t seed,
                      bool *matched)
{
    const Google__Bigtable__V2__CheckAndMutateRowRequest *request = message;
    struct store_table *table =
        store_table(&tablet->tables, ch_bytes_of(request->table_name), false);
    struct store_row *row = store_row(table, ch_bytes_of(request->row_key), false);
    struct base_arena arena;
    struct tab_row shown;
    base_arena_init(&arena);
    *matched = row && store_show(row, request->predicate_filter, &arena, &shown);
    base_arena_free(&arena);
    tablet->counts.refused += *matched;
    if (!*matched && request->n_false_mutations)
        store_mutate(table, ch_bytes_of(request->row_key), request->false_mutations,
                     request->n_false_mutations);
}

struct base_status tab_check_and_mutate(
    struct tab_client *client, const Google__Bigtable__V2__CheckAndMutateRowRequest *request,
    ch_time deadline, bool *matched)
{
    client->tablet->counts.check_and_mutate++;
    return effect(client, request, deadline, run_check, matched);
}

/* With a seed, some of the entries only. */
static void run_mutate_rows(struct tablet_double *tablet, const void *message, uint64_t seed,
                            bool *matched)
{
    const Google__Bigtable__V2__MutateRowsRequest *request = message;
    struct store_table *table =
        store_table(&tablet->tables, ch_bytes_of(request->table_name), false);
    for (size_t i = 0; i < request->n_entries; i++) {
        seed = seed * 6364136223846793005ULL + (seed ? 1442695040888963407ULL : 0);
        if (!(seed >> 63))
            store_mutate(table, ch_bytes_of(request->entries[i]->row_key),
                         request->entries[i]->mutations, request->entries[i]->n_mutations);
    }
}

struct base_status tab_mutate_rows(struct tab_client *client,
                                   const Google__Bigtable__V2__MutateRowsRequest *request,
                                   ch_time deadline)
{
    bool matched;
    BASE_ASSERT(request->n_entries && request->n_entries <= 100000);
    client->tablet->counts.mutate_rows++;
    client->tablet->counts.mutations += request->n_entries;
    return effect(client, request, deadline, run_mutate_rows, &matched);
}

static bool range_holds(const Google__Bigtable__V2__RowRange *range, struct base_bytes key)
{
    if (range->start_key_case == GOOGLE__BIGTABLE__V2__ROW_RANGE__START_KEY_START_KEY_CLOSED &&
        base_bytes_cmp(key, ch_bytes_of(range->start_key_closed)) < 0)
        return false;
    if (range->end_key_case == GOOGLE__BIGTABLE__V2__ROW_RANGE__END_KEY_END_KEY_OPEN)
        return base_bytes_cmp(key, ch_bytes_of(range->end_key_open)) < 0;
    if (range->end_key_case == GOOGLE__BIGTABLE__V2__ROW_RANGE__END_KEY_END_KEY_CLOSED)
        return base_bytes_cmp(key, ch_bytes_of(range->end_key_closed)) <= 0;
    return true;
}

struct reader {
    struct tab_client *client;
    const Google__Bigtable__V2__ReadRowsRequest *request;
    ch_time deadline;
    tab_row_fn *fn;
    void *self;
    uint64_t shown;
};

static bool give(struct reader *reader, const struct store_row *row, bool *go_on) CH_WAITS;
static bool give(struct reader *reader, const struct store_row *row, bool *go_on)
{
    struct base_arena arena;
    struct tab_row shown;
    base_arena_init(&arena);
    if (store_show(row, reader->request->filter, &arena, &shown)) {
        reader->shown++;
        reader->client->tablet->counts.rows_read++;
        *go_on = reader->fn(reader->self, &shown) &&
                 !(reader->request->rows_limit &&
                   reader->shown >= (uint64_t)reader->request->rows_limit);
    }
    base_arena_free(&arena);
    return *go_on;
}

static struct base_status read_range(struct reader *reader, struct store_table *table) CH_WAITS;
static struct base_status read_range(struct reader *reader, struct store_table *table)
{
    const Google__Bigtable__V2__RowRange *range = reader->request->rows->row_ranges[0];
    bool down = reader->request->reversed, go_on = true;
    struct base_buf at = { 0 };
    struct base_status status = BASE_STATUS_OK;
    struct store_row *row;
    if (!down)
        base_buf_put_bytes(&at, ch_bytes_of(range->start_key_closed));
    else if (range->end_key_case == GOOGLE__BIGTABLE__V2__ROW_RANGE__END_KEY__NOT_SET)
        base_buf_put(&at, "\xff\xff\xff\xff", 4);
    else
        base_buf_put_bytes(
            &at, ch_bytes_of(range->end_key_open)); /* the same place in the union for closed */
    if (down && range->end_key_case == GOOGLE__BIGTABLE__V2__ROW_RANGE__END_KEY_END_KEY_CLOSED)
        base_buf_put_u8(&at, 0);
    for (uint64_t n = 1; go_on && (row = store_seek(table, base_buf_bytes(&at), down)); n++) {
        struct base_bytes key = base_bytes(row->key, row->len);
        if (!range_holds(range, key))
            break;
        base_buf_clear(&at);
        base_buf_put_bytes(&at, key);
        if (!down)
            base_buf_put_u8(&at, 0);
        if (!give(reader, row, &go_on))
            break;
        if (n % PAGE_ROWS == 0 && base_failed(status = travel(reader->client, reader->deadline)))
            break;
        if (chance(reader->client, reader->client->tablet->faults.cut_reads / 20)) {
            status = base_status_make(BASE_UNAVAILABLE, "tablet double: the stream is cut");
            break;
        }
    }
    base_buf_free(&at);
    return status;
}

struct base_status tab_read_rows(struct tab_client *client,
                                 const Google__Bigtable__V2__ReadRowsRequest *request,
                                 ch_time deadline, tab_row_fn *fn, void *self)
{
    struct reader reader = { client, request, deadline, fn, self, 0 };
    struct store_table *table =
        store_table(&client->tablet->tables, ch_bytes_of(request->table_name), false);
    bool go_on = true;
    client->tablet->counts.reads++;
    struct base_status status = travel(client, deadline);
    if (!base_failed(status) && chance(client, client->tablet->faults.cut_reads))
        status = base_status_make(BASE_UNAVAILABLE, "tablet double: read failed");
    if (!base_failed(status) && !table)
        status = base_status_make(BASE_NOT_FOUND, "tablet double: no such table");
    if (base_failed(status))
        return status;
    BASE_ASSERT(request->rows->n_row_keys || request->rows->n_row_ranges == 1);
    for (size_t i = 0; i < request->rows->n_row_keys && go_on; i++) {
        struct store_row *row = store_row(table, ch_bytes_of(request->rows->row_keys[i]), false);
        if (row)
            give(&reader, row, &go_on);
    }
    if (request->rows->n_row_ranges)
        status = read_range(&reader, table);
    if (!base_failed(status))
        status = travel(client, deadline);
    return status;
}

struct collector {
    struct base_arena *arena;
    struct tab_row *rows;
    size_t count, cap;
};

static bool collect(void *arg, const struct tab_row *row)
{
    struct collector *all = arg;
    if (all->count == all->cap) {
        struct tab_row *rows =
            BASE_NEW_ARRAY(all->arena, struct tab_row, all->cap = all->cap * 2 + 8);
        if (all->count)
            memcpy(rows, all->rows, all->count * sizeof(*rows));
        all->rows = rows;
    }
    struct tab_row *out = &all->rows[all->count++];
    out->key = base_bytes_dup(all->arena, row->key);
    out->cell_count = row->cell_count;
    out->cells = BASE_NEW_ARRAY(all->arena, struct tab_cell, row->cell_count);
    for (size_t i = 0; i < row->cell_count; i++)
        out->cells[i] = (struct tab_cell){ base_bytes_dup(all->arena, row->cells[i].family),
                                           base_bytes_dup(all->arena, row->cells[i].qualifier),
                                           base_bytes_dup(all->arena, row->cells[i].value),
                                           row->cells[i].timestamp_us };
    return true;
}

struct base_status tab_read_all(struct tab_client *client,
                                const Google__Bigtable__V2__ReadRowsRequest *request,
                                ch_time deadline, struct base_arena *arena, struct tab_row **rows,
                                size_t *count)
{
    struct collector all = { .arena = arena };
    struct base_status status = tab_read_rows(client, request, deadline, collect, &all);
    *rows = all.rows;
    *count = all.count;
    return status;
}

struct base_status tab_ensure_table(struct tab_client *client, const char *instance,
                                    const char *table, const struct tab_family_def *families,
                                    size_t family_count, ch_time deadline)
{
    struct base_status status = travel(client, deadline);
    if (!base_failed(status))
        store_table(&client->tablet->tables, base_bytes_str(table), true);
    return status;
}

size_t tablet_double_rows(const struct tablet_double *tablet, const char *table)
{
    const struct store_table *t =
        store_table((struct store_tables *)&tablet->tables, base_bytes_str(table), false);
    return t ? t->count : 0;
}

size_t tablet_double_cells(const struct tablet_double *tablet, const char *table,
                           struct base_bytes row)
{
    struct store_table *t =
        store_table((struct store_tables *)&tablet->tables, base_bytes_str(table), false);
    struct store_row *r = t ? store_row(t, row, false) : NULL;
    size_t count = 0;
    for (const struct store_cell *cell = r ? r->cells : NULL; cell; cell = cell->next)
        count++;
    return count;
}
