/* copies.c: whether the cell has all that it wants: tasks that wait for more machines, copies of
 * blocks that blockstore has not made yet. */
#include <inttypes.h>
#include <string.h>

#include "cli.h"
#include "strata/blockstore/v1/blockstore.strata.h"

#define BLK_PB(Type) Strata__Blockstore__V1__##Type
#define BLK_STATUS                                  \
    (&strata__blockstore__v1__block_master__service \
          .methods[STRATA__BLOCKSTORE__V1__BLOCK_MASTER__GET_STATUS])

enum { ASK_MS = 1000 };

struct base_status cli_jobs_get(struct cli *cli, int64_t timeout_ms, CLI_PB(ListJobsReply) * *jobs)
{
    CLI_PB(ListJobsRequest) request;

    strata__clustermgr__v1__list_jobs_request__init(&request);
    return cli_cell_call(cli, STRATA__CLUSTERMGR__V1__CELL__LIST_JOBS, &request, timeout_ms, jobs);
}

static bool same(ProtobufCBinaryData a, ProtobufCBinaryData b)
{
    return base_bytes_eq(ch_bytes_of(a), ch_bytes_of(b));
}

bool cli_task_for_later(const struct cli *cli, const CLI_PB(ListJobsReply) * jobs,
                        const CLI_PB(ListTasksReply) * tasks, const CLI_PB(Task) * task)
{
    size_t placed = 0;
    bool apart = false;

    if (task->state != CLI_TASK(PENDING))
        return false;
    for (size_t i = 0; i < jobs->n_jobs; i++)
        if (same(jobs->jobs[i]->spec->name, task->job))
            apart = jobs->jobs[i]->spec->distinct_machines;
    for (size_t i = 0; i < tasks->n_tasks; i++)
        placed +=
            tasks->tasks[i]->state != CLI_TASK(PENDING) && same(tasks->tasks[i]->job, task->job);
    return apart && placed >= cli->cell.machine_count;
}

/* The leading master answers; the others refuse. */
static CH_WAITS const BLK_PB(GetStatusReply) *
    status_get(struct cli *cli, const CLI_PB(ListTasksReply) * tasks)
{
    BLK_PB(GetStatusRequest) request = STRATA__BLOCKSTORE__V1__GET_STATUS_REQUEST__INIT;

    for (size_t i = 0; i < tasks->n_tasks; i++) {
        const CLI_PB(Task) *task = tasks->tasks[i];
        struct ch_call_options options = { .deadline = ch_in(cli->env, ASK_MS * CH_MS),
                                           .no_retry = true };
        void *reply = NULL;

        if (!base_bytes_eq_str(ch_bytes_of(task->job), "blockmaster") || task->endpoint.len == 0)
            continue;
        struct ch_client *client = ch_client_new(cli->env, cli_str(cli, task->endpoint), NULL);
        struct base_status status =
            ch_client_call(client, BLK_STATUS, &request, &options, &cli->arena, &reply);
        ch_client_free(client);
        if (base_status_drop(status) == BASE_OK)
            return reply;
    }
    return NULL;
}

const char *cli_copies_text(struct cli *cli, const CLI_PB(ListTasksReply) * tasks)
{
    const BLK_PB(GetStatusReply) *got = status_get(cli, tasks);

    if (!got)
        return NULL;
    const char *text = base_arena_printf(
        &cli->arena, "blocks: %" PRIu64 " of %" PRIu64 " copies that full ones want are there",
        got->replicas_held, got->replicas_wanted);
    if (got->bytes_at_risk > 0)
        text = base_arena_printf(&cli->arena, "%s; %" PRIu64 " KiB have too few, for %.1f s", text,
                                 got->bytes_at_risk >> 10, (double)got->at_risk_ms / 1000);
    else if (got->replicas_wanted > 0)
        text = base_arena_printf(&cli->arena, "%s; %" PRIu32 " lost disks would cost nothing", text,
                                 got->failures_survived);
    if (got->blocks_growing_short > 0)
        text = base_arena_printf(&cli->arena,
                                 "%s; %" PRIu64 " still grow on fewer servers than wanted", text,
                                 got->blocks_growing_short);
    return text;
}
