/* cell.c: see cell.h. */
#include "cell.h"

#include <stdio.h>
#include <stdlib.h>

#include "cell_store.h"
#include "chassis/service.h"
#include "master.h"
#include "server.h"

#define NAMES_HOST "10.0.0.2"
#define NAMES_ADDRESS NAMES_HOST ":7000"

static int names_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct cell *cell = arg;
    struct base_status status = names_double_start(cell->names, env, NAMES_ADDRESS);
    BASE_ASSERT(!base_failed(status));
    while (ch_sleep_until(env, CH_NEVER) != CH_CANCELLED)
        ;
    names_double_stop(cell->names);
    return 0;
}

static int node_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct cell_node *node = arg;
    struct ch_service_args args = { .def = node->def, .argc = node->argc, .argv = node->argv };
    return ch_service_main(env, &args);
}

void cell_start(struct cell_node *node)
{
    if (!ch_sim_running(node->node))
        ch_sim_start(node->node, node_main, node);
}

static void node_init(struct cell *cell, struct cell_node *node, const struct ch_service_def *def,
                      const char *kind, int subnet, size_t i, const char *const *extra)
{
    node->cell = cell;
    node->def = def;
    snprintf(node->name, sizeof(node->name), "%s%zu", kind, i);
    snprintf(node->host, sizeof(node->host), "10.0.%d.%zu", subnet, 10 + i);
    snprintf(node->address, sizeof(node->address), "%s:7000", node->host);
    snprintf(node->task, sizeof(node->task), "%s/%zu", kind, i);
    node->node = ch_sim_node(cell->sim, node->name, node->host);
    const char *flags[] = { kind,
                            "--listen",
                            node->address,
                            "--names",
                            NAMES_ADDRESS,
                            "--task",
                            node->task,
                            "--cell",
                            "local",
                            "--log-level",
                            getenv("STRATA_TEST_LOG") ? getenv("STRATA_TEST_LOG") : "error" };
    for (size_t f = 0; f < sizeof(flags) / sizeof(flags[0]); f++)
        node->argv[node->argc++] = (char *)flags[f];
    for (size_t e = 0; extra && extra[e]; e++)
        node->argv[node->argc++] = (char *)extra[e];
    char path[64];
    snprintf(path, sizeof(path), "/local/%s/%zu", kind, i);
    names_double_publish(cell->names, path, node->address, true);
    cell_start(node);
}

struct cell *cell_new(uint64_t seed, size_t servers, size_t masters, const char *const *extra)
{
    struct cell *cell = calloc(1, sizeof(*cell));
    cell->sim = ch_sim_new(seed);
    for (size_t i = 0; extra && extra[i] && i < 7; i++)
        cell->extra[i] = extra[i];
    cell->names = names_double_new();
    cell->names_node = ch_sim_node(cell->sim, "names", NAMES_HOST);
    ch_sim_start(cell->names_node, names_main, cell);
    cell_store_new(cell);
    cell->server_count = servers;
    cell->master_count = masters;
    for (size_t i = 0; i < masters; i++)
        node_init(cell, &cell->masters[i], &tab_tabletmaster_def, "tabletmaster", 2, i, NULL);
    for (size_t i = 0; i < servers; i++)
        node_init(cell, &cell->servers[i], &tab_tabletserver_def, "tabletserver", 1, i,
                  cell->extra);
    return cell;
}

static void stop_node(struct cell_node *node)
{
    ch_sim_pause(node->node, false);
    if (ch_sim_running(node->node))
        ch_sim_stop(node->node);
}

void cell_free(struct cell *cell)
{
    for (size_t i = 0; i < cell->master_count; i++)
        stop_node(&cell->masters[i]);
    for (size_t i = 0; i < cell->server_count; i++)
        stop_node(&cell->servers[i]);
    ch_sim_stop(cell->names_node);
    ch_sim_free(cell->sim);
    names_double_free(cell->names);
    cell_store_free(cell);
    free(cell);
}

struct ch_naming *cell_naming(struct cell *cell)
{
    return ch_naming_new(ch_sim_tester_env(cell->sim), NAMES_ADDRESS);
}

struct tab_client *cell_client(struct cell *cell, struct ch_naming *naming)
{
    struct tab_client_options options = { .naming = naming, .target = "/local/tabletserver" };
    return tab_client_new(ch_sim_tester_env(cell->sim), &options);
}

struct tab_client *cell_client_of(struct cell *cell, size_t server)
{
    struct tab_client_options options = { .target = cell->servers[server].address };
    return tab_client_new(ch_sim_tester_env(cell->sim), &options);
}

ch_time cell_in(struct cell *cell, ch_time ns)
{
    return ch_sim_now(cell->sim) + ns;
}

/* ---- requests ---- */

struct base_status cell_make_table(struct tab_client *client, struct ch_env *env, int max_versions)
{
    struct tab_family_def families[] = { { "f", max_versions }, { "g", max_versions } };
    return tab_ensure_table(client, CELL_INSTANCE, "t", families, 2, ch_in(env, 30 * CH_S));
}

struct base_status cell_set(struct tab_client *client, const char *row, const char *qualifier,
                            int64_t timestamp_us, struct base_bytes value, ch_time deadline)
{
    Google__Bigtable__V2__MutateRowRequest request = GOOGLE__BIGTABLE__V2__MUTATE_ROW_REQUEST__INIT;
    Google__Bigtable__V2__Mutation mutation = GOOGLE__BIGTABLE__V2__MUTATION__INIT,
                                   *mutations = &mutation;
    Google__Bigtable__V2__Mutation__SetCell set = GOOGLE__BIGTABLE__V2__MUTATION__SET_CELL__INIT;
    request.table_name = ch_data_str(CELL_TABLE);
    request.row_key = ch_data_str(row);
    request.n_mutations = 1;
    request.mutations = &mutations;
    mutation.mutation_case = GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_SET_CELL;
    mutation.set_cell = &set;
    set.family_name = ch_data_str("f");
    set.column_qualifier = ch_data_str(qualifier);
    set.timestamp_micros = timestamp_us;
    set.value = ch_data_of(value);
    return tab_mutate_row(client, &request, deadline);
}

struct base_status cell_increment(struct tab_client *client, const char *row, const char *qualifier,
                                  int64_t amount, ch_time deadline, int64_t *result)
{
    struct base_arena arena = { 0 };
    Google__Bigtable__V2__ReadModifyWriteRowRequest request =
        GOOGLE__BIGTABLE__V2__READ_MODIFY_WRITE_ROW_REQUEST__INIT;
    Google__Bigtable__V2__ReadModifyWriteRule
        rule = GOOGLE__BIGTABLE__V2__READ_MODIFY_WRITE_RULE__INIT,
        *rules = &rule;
    struct tab_row found;
    request.table_name = ch_data_str(CELL_TABLE);
    request.row_key = ch_data_str(row);
    request.n_rules = 1;
    request.rules = &rules;
    rule.family_name = ch_data_str("f");
    rule.column_qualifier = ch_data_str(qualifier);
    rule.rule_case = GOOGLE__BIGTABLE__V2__READ_MODIFY_WRITE_RULE__RULE_INCREMENT_AMOUNT;
    rule.increment_amount = amount;
    struct base_status status = tab_read_modify_write(client, &request, deadline, &arena, &found);
    if (!base_failed(status) && result && found.cell_count == 1 && found.cells[0].value.len == 8)
        *result = (int64_t)base_get_be64(found.cells[0].value.data);
    base_arena_free(&arena);
    return status;
}

struct base_status cell_set_if_empty(struct tab_client *client, const char *row,
                                     struct base_bytes value, ch_time deadline, bool *was_empty)
{
    Google__Bigtable__V2__CheckAndMutateRowRequest request =
        GOOGLE__BIGTABLE__V2__CHECK_AND_MUTATE_ROW_REQUEST__INIT;
    Google__Bigtable__V2__Mutation mutation = GOOGLE__BIGTABLE__V2__MUTATION__INIT,
                                   *mutations = &mutation;
    Google__Bigtable__V2__Mutation__SetCell set = GOOGLE__BIGTABLE__V2__MUTATION__SET_CELL__INIT;
    bool matched = false;
    request.table_name = ch_data_str(CELL_TABLE);
    request.row_key = ch_data_str(row);
    request.n_false_mutations = 1;
    request.false_mutations = &mutations;
    mutation.mutation_case = GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_SET_CELL;
    mutation.set_cell = &set;
    set.family_name = ch_data_str("f");
    set.column_qualifier = ch_data_str("log");
    set.value = ch_data_of(value);
    struct base_status status = tab_check_and_mutate(client, &request, deadline, &matched);
    *was_empty = !matched;
    return status;
}

struct base_status cell_read_row(struct tab_client *client, const char *row, ch_time deadline,
                                 struct base_arena *arena, struct tab_row **found)
{
    Google__Bigtable__V2__ReadRowsRequest request = GOOGLE__BIGTABLE__V2__READ_ROWS_REQUEST__INIT;
    Google__Bigtable__V2__RowSet set = GOOGLE__BIGTABLE__V2__ROW_SET__INIT;
    ProtobufCBinaryData key = ch_data_str(row);
    size_t count;
    request.table_name = ch_data_str(CELL_TABLE);
    request.rows = &set;
    set.n_row_keys = 1;
    set.row_keys = &key;
    struct base_status status = tab_read_all(client, &request, deadline, arena, found, &count);
    if (!base_failed(status) && count == 0)
        *found = NULL;
    return status;
}

struct base_status cell_read_all(struct tab_client *client, bool reversed, ch_time deadline,
                                 struct base_arena *arena, struct tab_row **rows, size_t *count)
{
    Google__Bigtable__V2__ReadRowsRequest request = GOOGLE__BIGTABLE__V2__READ_ROWS_REQUEST__INIT;
    request.table_name = ch_data_str(CELL_TABLE);
    request.reversed = reversed;
    return tab_read_all(client, &request, deadline, arena, rows, count);
}

struct base_status cell_call(struct cell *cell, size_t server, const struct ch_method *method,
                             const void *request, ch_time deadline, struct base_arena *arena,
                             void **reply)
{
    struct ch_client_options client_options = { .no_retry = true };
    struct ch_client *client =
        ch_client_new(ch_sim_tester_env(cell->sim), cell->servers[server].address, &client_options);
    struct ch_call_options options = { .deadline = deadline, .no_retry = true };
    struct base_status status = ch_client_call(client, method, request, &options, arena, reply);
    ch_client_free(client);
    return status;
}
