/* job.c: strata job submit, update, kill, list, scale. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "clustermgr/job.h"

static const char usage[] = "job submit FILE|update FILE|kill NAME|list|scale NAME N";

static CH_WAITS struct base_status file_parse(struct cli *cli, const char *path,
                                              CLI_PB(JobSpec) * *spec)
{
    struct base_buf text = { 0 };
    struct base_status status = ch_file_read_all(cli->env, path, 1 << 20, &text);

    if (!base_failed(status))
        status = clu_job_parse(base_buf_bytes(&text), path, &cli->arena, spec);
    base_buf_free(&text);
    return status;
}

static CH_WAITS struct base_status submit(struct cli *cli, CLI_PB(JobSpec) * spec)
{
    CLI_PB(SubmitJobRequest) request;
    CLI_PB(SubmitJobReply) *reply = NULL;

    strata__clustermgr__v1__submit_job_request__init(&request);
    request.spec = spec;
    return cli_cell_call(cli, STRATA__CLUSTERMGR__V1__CELL__SUBMIT_JOB, &request, CLI_CALL_MS,
                         &reply);
}

static CH_WAITS struct base_status update(struct cli *cli, CLI_PB(JobSpec) * spec)
{
    CLI_PB(UpdateJobRequest) request;
    CLI_PB(UpdateJobReply) *reply = NULL;

    strata__clustermgr__v1__update_job_request__init(&request);
    request.spec = spec;
    return cli_cell_call(cli, STRATA__CLUSTERMGR__V1__CELL__UPDATE_JOB, &request, CLI_CALL_MS,
                         &reply);
}

static CH_WAITS struct base_status kill_job(struct cli *cli, const char *name)
{
    CLI_PB(KillJobRequest) request;
    CLI_PB(KillJobReply) *reply = NULL;

    strata__clustermgr__v1__kill_job_request__init(&request);
    request.name = ch_data_str(name);
    return cli_cell_call(cli, STRATA__CLUSTERMGR__V1__CELL__KILL_JOB, &request, CLI_CALL_MS,
                         &reply);
}

static CH_WAITS struct base_status jobs_get(struct cli *cli, CLI_PB(ListJobsReply) * *reply)
{
    CLI_PB(ListJobsRequest) request;

    strata__clustermgr__v1__list_jobs_request__init(&request);
    return cli_cell_call(cli, STRATA__CLUSTERMGR__V1__CELL__LIST_JOBS, &request, CLI_CALL_MS,
                         reply);
}

static CH_WAITS struct base_status scale(struct cli *cli, const char *name, const char *count)
{
    CLI_PB(ListJobsReply) *reply = NULL;
    char *end = NULL;
    unsigned long tasks = strtoul(count, &end, 10);
    struct base_status status;

    if (end == count || *end)
        return base_status_make(BASE_INVALID_ARGUMENT, "\"%s\" is no number of tasks", count);
    status = jobs_get(cli, &reply);
    if (base_failed(status))
        return status;
    for (size_t i = 0; i < reply->n_jobs; i++) {
        if (!base_bytes_eq_str(ch_bytes_of(reply->jobs[i]->spec->name), name))
            continue;
        reply->jobs[i]->spec->tasks = (uint32_t)tasks;
        return update(cli, reply->jobs[i]->spec);
    }
    return base_status_make(BASE_NOT_FOUND, "there is no job %s; strata job list names them", name);
}

static CH_WAITS struct base_status list(struct cli *cli)
{
    static const char *const heads[] = { "JOB",     "TASKS", "RUNNING", "HEALTHY",
                                         "COMMAND", "FRONT", "" };
    CLI_PB(ListJobsReply) *reply = NULL;
    struct cli_table table;
    struct base_status status = jobs_get(cli, &reply);

    if (base_failed(status))
        return status;
    cli_table_init(&table, &cli->arena, 7, heads);
    for (size_t i = 0; i < reply->n_jobs; i++) {
        const CLI_PB(Job) *job = reply->jobs[i];
        const char *cells[] = { cli_str(cli, job->spec->name),
                                base_arena_printf(&cli->arena, "%" PRIu32, job->spec->tasks),
                                base_arena_printf(&cli->arena, "%" PRIu32, job->tasks_running),
                                base_arena_printf(&cli->arena, "%" PRIu32, job->tasks_healthy),
                                cli_str(cli, job->spec->command),
                                cli_str(cli, job->spec->front),
                                job->spec->pinned ? "pinned" : "" };

        cli_table_row(&table, cells);
    }
    cli_table_print(&table, stdout);
    return status;
}

int cli_job(struct cli *cli, int argc, char **argv)
{
    CLI_PB(JobSpec) *spec = NULL;
    struct base_status status;
    const char *what = argc > 1 ? argv[1] : "";
    bool with_file = strcmp(what, "submit") == 0 || strcmp(what, "update") == 0;

    if (!cli_args_end(argc, argv, 1, 3, usage) || !cli_cell_need(cli))
        return CLI_USAGE;
    if (argc == 3 && with_file) {
        status = file_parse(cli, argv[2], &spec);
        if (!base_failed(status))
            status = strcmp(what, "submit") == 0 ? submit(cli, spec) : update(cli, spec);
    } else if (argc == 3 && strcmp(what, "kill") == 0) {
        status = kill_job(cli, argv[2]);
    } else if (argc == 4 && strcmp(what, "scale") == 0) {
        status = scale(cli, argv[2], argv[3]);
    } else if (argc == 2 && strcmp(what, "list") == 0) {
        status = list(cli);
    } else {
        return cli_usage(usage);
    }
    return base_failed(status) ? cli_fail(cli, status) : CLI_OK;
}
