/* logs.c: strata logs: of tasks by their agents, wherever they run; of the machine's own (master,
 * agents) from the cell's folder. */
#include <inttypes.h>
#include <string.h>

#include "cli.h"

enum { TAIL_BYTES = 16 << 10, FOLLOW_MS = 200 };

/* What was read, from the first whole line on when it begins in the middle. */
static void print(struct base_bytes data, bool middle)
{
    const uint8_t *newline = middle && data.len ? memchr(data.data, '\n', data.len) : NULL;
    size_t skip = newline ? (size_t)(newline - data.data) + 1 : 0;

    if (data.len == 0)
        return;
    fwrite(data.data + skip, 1, data.len - skip, stdout);
    fflush(stdout);
}

static CH_WAITS struct base_status task_logs(struct cli *cli, const char *job, uint32_t index,
                                             bool follow)
{
    CLI_PB(Task) *task = NULL;
    CLI_PB(ReadLogRequest) request;
    const char *agent = NULL;
    bool first = true;
    struct base_status status = cli_task_find(cli, job, index, &task);

    if (!base_failed(status) && task->machine.len == 0)
        status =
            base_status_make(BASE_FAILED_PRECONDITION, "%s/%" PRIu32 " is on no machine yet: %s",
                             job, index, cli_str(cli, task->reason));
    if (!base_failed(status))
        status = cli_agent_address(cli, ch_bytes_of(task->machine), &agent);
    if (base_failed(status))
        return status;
    strata__clustermgr__v1__read_log_request__init(&request);
    request.job = ch_data_str(job);
    request.index = index;
    request.offset = TAIL_BYTES;
    request.from_end = true;
    for (;;) {
        CLI_PB(ReadLogReply) *reply = NULL;

        status = cli_agent_call(cli, agent, STRATA__CLUSTERMGR__V1__AGENT__READ_LOG, &request,
                                CLI_CALL_MS, &reply);
        if (base_failed(status))
            return status;
        print(ch_bytes_of(reply->data), first && reply->offset > 0);
        first = false;
        request.from_end = false;
        request.offset = reply->next_offset;
        if (reply->data.len > 0)
            continue;
        if (!follow || ch_sleep_until(cli->env, ch_in(cli->env, FOLLOW_MS * CH_MS)) != CH_TIMEOUT)
            return BASE_STATUS_OK;
    }
}

static CH_WAITS struct base_status file_logs(struct cli *cli, const char *path, bool follow)
{
    struct ch_file *file = NULL;
    uint64_t size = 0, offset;
    bool first = true;
    struct base_status status = ch_file_open(cli->env, path, CH_FILE_READ, &file);

    if (base_failed(status))
        return status;
    status = ch_file_size(file, &size);
    offset = size > TAIL_BYTES ? size - TAIL_BYTES : 0;
    while (!base_failed(status)) {
        uint8_t data[8192];
        size_t got = 0;

        status = ch_file_read(file, offset, data, sizeof(data), &got);
        print(base_bytes(data, got), first && offset > 0);
        first = false;
        offset += got;
        if (got == 0 &&
            (!follow || ch_sleep_until(cli->env, ch_in(cli->env, FOLLOW_MS * CH_MS)) != CH_TIMEOUT))
            break;
    }
    ch_file_close(file);
    return status;
}

int cli_logs(struct cli *cli, int argc, char **argv)
{
    static const char usage[] = "logs JOB/INDEX|master[:MACHINE]|agent:MACHINE [-f]";
    bool follow = cli_take_switch(&argc, argv, "-f");
    const char *job = NULL, *path = NULL;
    uint32_t index = 0;
    struct base_status status;

    if (!cli_args_end(argc, argv, 1, 1, usage) || !cli_cell_need(cli))
        return CLI_USAGE;
    if (strcmp(argv[1], "master") == 0)
        path = base_arena_printf(&cli->arena, "%s/machines/%s/master.log", cli->dir,
                                 cli->cell.masters[0]);
    else if (strncmp(argv[1], "master:", 7) == 0)
        path = base_arena_printf(&cli->arena, "%s/machines/%s/master.log", cli->dir, argv[1] + 7);
    else if (strncmp(argv[1], "agent:", 6) == 0)
        path = base_arena_printf(&cli->arena, "%s/machines/%s/agent.log", cli->dir, argv[1] + 6);
    else if (!cli_task_parse(cli, argv[1], &job, &index))
        return CLI_USAGE;
    status = job ? task_logs(cli, job, index, follow) : file_logs(cli, path, follow);
    return base_failed(status) ? cli_fail(cli, status) : CLI_OK;
}
