/* show.c: looking at a cell: status, ps, why, names, locks, env. */
#include <inttypes.h>
#include <string.h>

#include "cli.h"

static const char *const states[] = { "pending", "assigned", "starting", "running",
                                      "backoff", "ended",    "lost" };

static const char *task_state(const CLI_PB(Task) * task)
{
    if (task->state == CLI_TASK(RUNNING) && !task->healthy)
        return "not ready";
    return states[task->state < 7 ? task->state : 0];
}

static const char *mib(struct cli *cli, uint64_t bytes)
{
    return base_arena_printf(&cli->arena, "%" PRIu64 "M", bytes >> 20);
}

static const char *since(struct cli *cli, int64_t us)
{
    int64_t seconds = us > 0 ? (ch_wall_us(cli->env) - us) / 1000000 : 0;

    if (seconds < 120)
        return base_arena_printf(&cli->arena, "%" PRId64 "s", seconds);
    if (seconds < 7200)
        return base_arena_printf(&cli->arena, "%" PRId64 "m", seconds / 60);
    return base_arena_printf(&cli->arena, "%" PRId64 "h", seconds / 3600);
}

static CH_WAITS struct base_status tasks_get(struct cli *cli, const char *job,
                                             CLI_PB(ListTasksReply) * *reply)
{
    CLI_PB(ListTasksRequest) request;

    strata__clustermgr__v1__list_tasks_request__init(&request);
    request.job = ch_data_str(job);
    return cli_cell_call(cli, STRATA__CLUSTERMGR__V1__CELL__LIST_TASKS, &request, CLI_CALL_MS,
                         reply);
}

static void machines_print(struct cli *cli, const CLI_PB(ListMachinesReply) * reply)
{
    static const char *const heads[] = { "MACHINE", "ADDRESS", "ZONE",   "STATE",
                                         "TASKS",   "CPU",     "MEMORY", "DISK" };
    struct cli_table table;

    cli_table_init(&table, &cli->arena, 8, heads);
    for (size_t i = 0; i < reply->n_machines; i++) {
        const CLI_PB(Machine) *machine = reply->machines[i];
        const char *cells[] = {
            cli_str(cli, machine->name),
            cli_str(cli, machine->address),
            cli_str(cli, machine->zone),
            machine->up ? "up" : "down",
            base_arena_printf(&cli->arena, "%" PRIu32, machine->tasks),
            base_arena_printf(&cli->arena, "%" PRIu64 "/%" PRIu64 "m", machine->used->cpu_millis,
                              machine->capacity->cpu_millis),
            base_arena_printf(&cli->arena, "%s/%s", mib(cli, machine->used->memory_bytes),
                              mib(cli, machine->capacity->memory_bytes)),
            base_arena_printf(&cli->arena, "%s/%s", mib(cli, machine->used->disk_bytes),
                              mib(cli, machine->capacity->disk_bytes)),
        };

        cli_table_row(&table, cells);
    }
    cli_table_print(&table, stdout);
}

static void tasks_print(struct cli *cli, const CLI_PB(ListTasksReply) * reply, bool processes)
{
    static const char *const heads[] = { "TASK",     "MACHINE", "STATE", "FOR",      "RESTARTS",
                                         "ENDPOINT", "ADMIN",   "FRONT", "LAST EXIT" };
    static const char *const process_heads[] = { "TASK",   "MACHINE",  "PID",       "STATE", "CPU",
                                                 "MEMORY", "RESTARTS", "LAST EXIT", "WHY" };
    struct cli_table table;

    cli_table_init(&table, &cli->arena, 9, processes ? process_heads : heads);
    for (size_t i = 0; i < reply->n_tasks; i++) {
        const CLI_PB(Task) *task = reply->tasks[i];
        const char *name =
            base_arena_printf(&cli->arena, "%s/%" PRIu32, cli_str(cli, task->job), task->index);
        const char *restarts = base_arena_printf(&cli->arena, "%" PRIu32, task->restarts);
        const char *machine = task->machine.len ? cli_str(cli, task->machine) : "-";
        const char *cells[] = { name,
                                machine,
                                task_state(task),
                                since(cli, task->since_us),
                                restarts,
                                cli_str(cli, task->endpoint),
                                cli_str(cli, task->admin),
                                cli_str(cli, task->front),
                                cli_str(cli, task->last_exit) };
        const char *process_cells[] = { name,
                                        machine,
                                        base_arena_printf(&cli->arena, "%" PRId64, task->pid),
                                        task_state(task),
                                        base_arena_printf(&cli->arena, "%" PRIu64 "m",
                                                          task->cpu_millis_used),
                                        mib(cli, task->memory_bytes_used),
                                        restarts,
                                        cli_str(cli, task->last_exit),
                                        cli_str(cli, task->reason) };

        cli_table_row(&table, processes ? process_cells : cells);
    }
    cli_table_print(&table, stdout);
}

int cli_status(struct cli *cli, int argc, char **argv)
{
    CLI_PB(ListMachinesRequest) request;
    CLI_PB(ListMachinesReply) *machines = NULL;
    CLI_PB(ListTasksReply) *tasks = NULL;
    CLI_PB(ListJobsReply) *jobs = NULL;
    const char *copies;
    size_t healthy = 0, later = 0;
    struct base_status status;

    if (!cli_args_end(argc, argv, 0, 0, "status") || !cli_cell_need(cli))
        return CLI_USAGE;
    strata__clustermgr__v1__list_machines_request__init(&request);
    status = cli_cell_call(cli, STRATA__CLUSTERMGR__V1__CELL__LIST_MACHINES, &request, CLI_CALL_MS,
                           &machines);
    if (!base_failed(status))
        status = tasks_get(cli, "", &tasks);
    if (!base_failed(status))
        status = cli_jobs_get(cli, CLI_CALL_MS, &jobs);
    if (base_failed(status))
        return cli_fail(cli, status);
    for (size_t i = 0; i < tasks->n_tasks; i++) {
        healthy += tasks->tasks[i]->state == CLI_TASK(RUNNING) && tasks->tasks[i]->healthy;
        later += cli_task_for_later(cli, jobs, tasks, tasks->tasks[i]);
    }
    printf("cell %s in %s, %zu clustermaster%s, %s leads: %zu of %zu tasks healthy",
           cli_str(cli, machines->cell), cli->dir, cli->cell.master_count,
           cli->cell.master_count == 1 ? "" : "s", ch_leader_address(cli->master), healthy,
           tasks->n_tasks - later);
    if (later)
        printf(", %zu wait for more machines", later);
    copies = cli_copies_text(cli, tasks);
    printf("\n%s%s\n", copies ? copies : "", copies ? "\n" : "");
    machines_print(cli, machines);
    printf("\n");
    tasks_print(cli, tasks, false);
    return healthy + later == tasks->n_tasks ? CLI_OK : CLI_FAILED;
}

int cli_ps(struct cli *cli, int argc, char **argv)
{
    CLI_PB(ListTasksReply) *reply = NULL;
    struct base_status status;

    if (!cli_args_end(argc, argv, 0, 1, "ps [JOB]") || !cli_cell_need(cli))
        return CLI_USAGE;
    status = tasks_get(cli, argc > 1 ? argv[1] : "", &reply);
    if (base_failed(status))
        return cli_fail(cli, status);
    tasks_print(cli, reply, true);
    return CLI_OK;
}

int cli_why(struct cli *cli, int argc, char **argv)
{
    CLI_PB(WhyRequest) request;
    CLI_PB(WhyReply) *reply = NULL;
    const char *job;
    struct base_status status;

    strata__clustermgr__v1__why_request__init(&request);
    if (!cli_args_end(argc, argv, 1, 1, "why JOB/INDEX") ||
        !cli_task_parse(cli, argv[1], &job, &request.index) || !cli_cell_need(cli))
        return CLI_USAGE;
    request.job = ch_data_str(job);
    status = cli_cell_call(cli, STRATA__CLUSTERMGR__V1__CELL__WHY, &request, CLI_CALL_MS, &reply);
    if (base_failed(status))
        return cli_fail(cli, status);
    printf("%s/%" PRIu32 ": %s%s%s for %s%s\n", job, request.index, task_state(reply->task),
           reply->task->machine.len ? " on " : "", cli_str(cli, reply->task->machine),
           since(cli, reply->task->since_us), reply->task->pinned ? ", pinned" : "");
    printf("  because: %s\n",
           reply->task->reason.len ? cli_str(cli, reply->task->reason) : "not considered yet");
    if (reply->task->last_exit.len)
        printf("  its last process: %s (%" PRIu32 " restarts)\n",
               cli_str(cli, reply->task->last_exit), reply->task->restarts);
    for (size_t i = 0; i < reply->n_machines; i++)
        printf("  %s\n", cli_str(cli, reply->machines[i]));
    return CLI_OK;
}

int cli_env(struct cli *cli, int argc, char **argv)
{
    if (!cli_args_end(argc, argv, 0, 0, "env") || !cli_cell_need(cli))
        return CLI_USAGE;
    for (size_t i = 0; i < CLI_FRONTS; i++)
        printf("export %s=%s\n", cli->cell.fronts[i].variable,
               cli_front_address(cli, &cli->cell.fronts[i]));
    printf("export STRATA_DIR=%s\n", cli->dir);
    return CLI_OK;
}

static CH_WAITS struct base_status names_get(struct cli *cli, const char *prefix,
                                             CLI_PB(ListReply) * *reply)
{
    CLI_PB(ListRequest) request;

    strata__clustermgr__v1__list_request__init(&request);
    request.prefix = ch_data_str(prefix);
    return cli_names_call(cli, STRATA__CLUSTERMGR__V1__NAMES__LIST, &request, CLI_CALL_MS, reply);
}

int cli_names(struct cli *cli, int argc, char **argv)
{
    static const char *const heads[] = { "NAME", "VALUE", "VERSION", "" };
    CLI_PB(ListReply) *reply = NULL;
    struct cli_table table;
    struct base_status status;

    if (!cli_args_end(argc, argv, 0, 1, "names [PREFIX]") || !cli_cell_need(cli))
        return CLI_USAGE;
    status = names_get(cli, argc > 1 ? argv[1] : "/", &reply);
    if (base_failed(status))
        return cli_fail(cli, status);
    cli_table_init(&table, &cli->arena, 4, heads);
    for (size_t i = 0; i < reply->n_nodes; i++) {
        const CLI_PB(Node) *node = reply->nodes[i];
        const char *note = node->unhealthy ? "not ready" : node->session ? "ephemeral" : "";
        const char *cells[] = { cli_str(cli, node->path),
                                base_bytes_show(&cli->arena, ch_bytes_of(node->value), 60),
                                base_arena_printf(&cli->arena, "%" PRIu64, node->version),
                                node->lock_session ? base_arena_printf(&cli->arena, "%s%slocked",
                                                                       note, *note ? ", " : "")
                                                   : note };

        cli_table_row(&table, cells);
    }
    cli_table_print(&table, stdout);
    return CLI_OK;
}

int cli_locks(struct cli *cli, int argc, char **argv)
{
    static const char *const heads[] = { "LOCK", "EPOCH", "HELD BY SESSION", "VALUE" };
    CLI_PB(ListReply) *reply = NULL;
    struct cli_table table;
    struct base_status status;

    if (!cli_args_end(argc, argv, 0, 0, "locks") || !cli_cell_need(cli))
        return CLI_USAGE;
    status = names_get(cli, "/", &reply);
    if (base_failed(status))
        return cli_fail(cli, status);
    cli_table_init(&table, &cli->arena, 4, heads);
    for (size_t i = 0; i < reply->n_nodes; i++) {
        const CLI_PB(Node) *node = reply->nodes[i];
        const char *cells[] = { cli_str(cli, node->path),
                                base_arena_printf(&cli->arena, "%" PRIu64, node->lock_epoch),
                                node->lock_session
                                    ? base_arena_printf(&cli->arena, "%" PRIu64, node->lock_session)
                                    : "free",
                                base_bytes_show(&cli->arena, ch_bytes_of(node->value), 60) };

        if (node->lock_epoch > 0)
            cli_table_row(&table, cells);
    }
    cli_table_print(&table, stdout);
    return CLI_OK;
}
