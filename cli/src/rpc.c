/* rpc.c: calls to the cell's leading clustermaster and agents, and saying what went wrong in a way
 * that helps. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "grpc/health/v1/health.strata.h"

static CH_WAITS struct base_status master_call(struct cli *cli, const struct ch_method *method,
                                               const void *request, int64_t timeout_ms, void *reply)
{
    struct ch_leader_options options = { .deadline = ch_in(cli->env, timeout_ms * CH_MS) };

    if (!cli->master && !cli_init_alive(cli, NULL)) /* nobody to look for until the deadline */
        return base_status_make(BASE_UNAVAILABLE, "no clustermaster runs");
    if (!cli->master)
        cli->master = ch_leader_new(cli->env, cli_master_addresses(cli), NULL);
    return ch_leader_call(cli->master, method, request, &options, &cli->arena, reply);
}

struct base_status cli_cell_call(struct cli *cli, int method, const void *request,
                                 int64_t timeout_ms, void *reply)
{
    return master_call(cli, &strata__clustermgr__v1__cell__service.methods[method], request,
                       timeout_ms, reply);
}

struct base_status cli_names_call(struct cli *cli, int method, const void *request,
                                  int64_t timeout_ms, void *reply)
{
    return master_call(cli, &strata__clustermgr__v1__names__service.methods[method], request,
                       timeout_ms, reply);
}

struct base_status cli_agent_call(struct cli *cli, const char *address, int method,
                                  const void *request, int64_t timeout_ms, void *reply)
{
    struct ch_call_options options = { .deadline = ch_in(cli->env, timeout_ms * CH_MS) };
    struct ch_client *client = ch_client_new(cli->env, address, NULL);
    struct base_status status =
        ch_client_call(client, &strata__clustermgr__v1__agent__service.methods[method], request,
                       &options, &cli->arena, reply);

    ch_client_free(client);
    return status;
}

bool cli_serving(struct cli *cli, const char *address)
{
    struct ch_call_options options = { .deadline = ch_in(cli->env, CH_S), .no_retry = true };
    struct ch_client *client = ch_client_new(cli->env, address, NULL);
    Grpc__Health__V1__HealthCheckRequest request;
    Grpc__Health__V1__HealthCheckResponse *response = NULL;
    struct base_status status;

    grpc__health__v1__health_check_request__init(&request);
    status = ch_client_call(
        client, &grpc__health__v1__health__service.methods[GRPC__HEALTH__V1__HEALTH__CHECK],
        &request, &options, &cli->arena, (void **)&response);
    ch_client_free(client);
    return base_status_drop(status) == BASE_OK &&
           response->status == GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
}

struct base_status cli_agent_address(struct cli *cli, struct base_bytes machine,
                                     const char **address)
{
    CLI_PB(ListMachinesRequest) request;
    CLI_PB(ListMachinesReply) *reply = NULL;
    struct base_status status;

    strata__clustermgr__v1__list_machines_request__init(&request);
    status = cli_cell_call(cli, STRATA__CLUSTERMGR__V1__CELL__LIST_MACHINES, &request, CLI_CALL_MS,
                           &reply);
    if (base_failed(status))
        return status;
    for (size_t i = 0; i < reply->n_machines; i++) {
        if (!base_bytes_eq(ch_bytes_of(reply->machines[i]->name), machine))
            continue;
        *address = cli_str(cli, reply->machines[i]->agent);
        return BASE_STATUS_OK;
    }
    return base_status_make(BASE_NOT_FOUND, "the cell has no machine %.*s", BASE_FMT(machine));
}

bool cli_task_parse(struct cli *cli, const char *text, const char **job, uint32_t *index)
{
    const char *slash = strchr(text, '/');
    char *end = NULL;

    *index = 0;
    *job = base_bytes_cstr(&cli->arena,
                           base_bytes(text, slash ? (size_t)(slash - text) : strlen(text)));
    if (!slash)
        return true;
    *index = (uint32_t)strtoul(slash + 1, &end, 10);
    if (end != slash + 1 && *end == '\0')
        return true;
    fprintf(stderr, "strata: \"%s\" is no task; a task is JOB/INDEX, as tabletserver/0\n", text);
    return false;
}

struct base_status cli_task_find(struct cli *cli, const char *job, uint32_t index,
                                 CLI_PB(Task) * *task)
{
    CLI_PB(ListTasksRequest) request;
    CLI_PB(ListTasksReply) *reply = NULL;
    struct base_status status;

    strata__clustermgr__v1__list_tasks_request__init(&request);
    request.job = ch_data_str(job);
    status =
        cli_cell_call(cli, STRATA__CLUSTERMGR__V1__CELL__LIST_TASKS, &request, CLI_CALL_MS, &reply);
    if (base_failed(status))
        return status;
    for (size_t i = 0; i < reply->n_tasks; i++) {
        if (reply->tasks[i]->index != index)
            continue;
        *task = reply->tasks[i];
        return BASE_STATUS_OK;
    }
    return base_status_make(BASE_NOT_FOUND, "there is no task %s/%" PRIu32 "; strata ps lists them",
                            job, index);
}

int cli_fail(struct cli *cli, struct base_status status)
{
    fprintf(stderr, "strata: %s\n", base_status_text(&status));
    if (status.code == BASE_UNAVAILABLE && cli->cell_there && !cli_init_alive(cli, NULL))
        fprintf(stderr, "        the cell in %s is not running: strata up starts it\n", cli->dir);
    else if (cli->cell_there && (status.code == BASE_UNAVAILABLE ||
                                 strstr(base_status_text(&status), "no leader answered")))
        fprintf(stderr, "        the clustermasters (%s): strata masters, strata logs master\n",
                cli_master_addresses(cli));
    base_status_free(&status);
    return CLI_FAILED;
}

int cli_usage(const char *text)
{
    fprintf(stderr, "usage: strata %s\n", text);
    return CLI_USAGE;
}

const char *cli_str(struct cli *cli, ProtobufCBinaryData data)
{
    return base_bytes_cstr(&cli->arena, ch_bytes_of(data));
}
