/* index.c: strata index load FILE.yaml, strata index list: composite indexes of a database; and
 * what sample.c shares with it. */
#include <string.h>

#include "datastore.h"

enum { FILE_MAX = 1 << 20, LOAD_MS = 600000 };

struct ch_client *cli_datastore(struct cli *cli)
{
    if (!cli_cell_need(cli))
        return NULL;
    for (size_t i = 0; i < CLI_FRONTS; i++)
        if (strcmp(cli->cell.fronts[i].name, "datastore") == 0)
            return ch_client_new(cli->env, cli_front_address(cli, &cli->cell.fronts[i]), NULL);
    fprintf(stderr, "strata: the cell has no datastore front door\n");
    return NULL;
}

static struct base_status call(struct cli *cli, struct ch_client *client,
                               const struct ch_method *method, const void *request,
                               struct base_arena *arena, void *reply) CH_WAITS;
static struct base_status call(struct cli *cli, struct ch_client *client,
                               const struct ch_method *method, const void *request,
                               struct base_arena *arena, void *reply)
{
    struct ch_call_options options = { .deadline = ch_in(cli->env, LOAD_MS * CH_MS) };
    return ch_client_call(client, method, request, &options, arena, reply);
}

struct base_status cli_datastore_call(struct cli *cli, struct ch_client *client,
                                      const struct ch_method *method, const char *json,
                                      struct base_arena *arena, void *reply)
{
    ProtobufCMessage *request;
    struct base_status status =
        ch_proto_from_json(method->request, base_bytes_str(json), arena, &request);
    return base_failed(status) ? status : call(cli, client, method, request, arena, reply);
}

struct base_status cli_index_load(struct cli *cli, struct ch_client *client, const char *project,
                                  const char *database, struct base_bytes yaml,
                                  Strata__Queryapi__V1__LoadReply **reply)
{
    Strata__Queryapi__V1__LoadRequest request = STRATA__QUERYAPI__V1__LOAD_REQUEST__INIT;
    Strata__Queryapi__V1__LoadReply *ignored;
    request.project_id = ch_data_str(project);
    request.database_id = ch_data_str(database);
    request.yaml = ch_data_of(yaml);
    return call(cli, client, CLI_INDEXES(LOAD), &request, &cli->arena, reply ? reply : &ignored);
}

static void add_rows(struct cli *cli, struct cli_table *table,
                     Strata__Queryapi__V1__Index **indexes, size_t count, const char *what)
{
    for (size_t i = 0; i < count; i++) {
        struct base_buf properties = { 0 };
        for (size_t k = 0; k < indexes[i]->n_properties; k++)
            base_buf_printf(&properties, "%s%s%s", k ? ", " : "",
                            cli_str(cli, indexes[i]->properties[k]->name),
                            indexes[i]->properties[k]->descending ? " desc" : "");
        base_buf_put_u8(&properties, 0);
        const char *cells[] = { cli_str(cli, indexes[i]->kind), (const char *)properties.data,
                                indexes[i]->ancestor ? "yes" : "no",
                                indexes[i]->ready ? "ready" : "building", what };
        cli_table_row(table, cells);
        base_buf_free(&properties);
    }
}

static const char *const heads[] = { "KIND", "PROPERTIES", "ANCESTOR", "STATE", "" };

static struct base_status load(struct cli *cli, struct ch_client *client, const char *project,
                               const char *database, const char *path) CH_WAITS;
static struct base_status load(struct cli *cli, struct ch_client *client, const char *project,
                               const char *database, const char *path)
{
    Strata__Queryapi__V1__LoadReply *reply;
    struct base_buf yaml = { 0 };
    struct cli_table table;
    struct base_status status = ch_file_read_all(cli->env, path, FILE_MAX, &yaml);
    if (!base_failed(status))
        status = cli_index_load(cli, client, project, database, base_buf_bytes(&yaml), &reply);
    base_buf_free(&yaml);
    if (base_failed(status))
        return status;
    cli_table_init(&table, &cli->arena, 5, heads);
    add_rows(cli, &table, reply->added, reply->n_added, "added");
    add_rows(cli, &table, reply->present, reply->n_present, "was there");
    cli_table_print(&table, stdout);
    return status;
}

static struct base_status list(struct cli *cli, struct ch_client *client, const char *project,
                               const char *database) CH_WAITS;
static struct base_status list(struct cli *cli, struct ch_client *client, const char *project,
                               const char *database)
{
    Strata__Queryapi__V1__ListRequest request = STRATA__QUERYAPI__V1__LIST_REQUEST__INIT;
    Strata__Queryapi__V1__ListReply *reply;
    struct cli_table table;
    request.project_id = ch_data_str(project);
    request.database_id = ch_data_str(database);
    struct base_status status = call(cli, client, CLI_INDEXES(LIST), &request, &cli->arena, &reply);
    if (base_failed(status))
        return status;
    cli_table_init(&table, &cli->arena, 5, heads);
    add_rows(cli, &table, reply->indexes, reply->n_indexes, "");
    cli_table_print(&table, stdout);
    return status;
}

int cli_index(struct cli *cli, int argc, char **argv)
{
    static const char usage[] = "index load FILE.yaml | index list [--project P] [--database D]";
    const char *project = cli_take_flag(&argc, argv, "--project"),
               *database = cli_take_flag(&argc, argv, "--database");
    if (!cli_args_end(argc, argv, 1, 2, usage))
        return CLI_USAGE;
    bool loads = strcmp(argv[1], "load") == 0 && argc == 3;
    if (!loads && !(strcmp(argv[1], "list") == 0 && argc == 2))
        return cli_usage(usage);
    struct ch_client *client = cli_datastore(cli);
    if (!client)
        return CLI_FAILED;
    project = project ? project : "strata";
    database = database ? database : "";
    struct base_status status = loads ? load(cli, client, project, database, argv[2])
                                      : list(cli, client, project, database);
    ch_client_free(client);
    return base_failed(status) ? cli_fail(cli, status) : CLI_OK;
}
