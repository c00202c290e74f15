/* kill.c: strata kill: a task's process gets a signal, by its agent; a clustermaster's by its mark
 * (processes.c); for a machine, see machine.c. */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* "-9", "-KILL", "-TERM", "-STOP", "-CONT", "-INT"; takes it out. 0: there was none; -1: not
 * known. */
static int take_signal(int *argc, char **argv)
{
    static const struct {
        const char *name;
        int number;
    } names[] = { { "KILL", SIGKILL }, { "TERM", SIGTERM }, { "STOP", SIGSTOP },
                  { "CONT", SIGCONT }, { "INT", SIGINT },   { "ABRT", SIGABRT } };

    for (int i = 1; i < *argc; i++) {
        const char *text = argv[i] + 1;
        int number = atoi(text);

        if (argv[i][0] != '-')
            continue;
        for (size_t j = 0; j < sizeof(names) / sizeof(names[0]); j++)
            if (strcmp(text, names[j].name) == 0)
                number = names[j].number;
        memmove(argv + i, argv + i + 1, (size_t)(*argc - i) * sizeof(*argv));
        --*argc;
        return number > 0 && number < NSIG ? number : -1;
    }
    return 0;
}

static CH_WAITS int kill_master(struct cli *cli, const char *machine, int signal)
{
    if (!cli_cell_need(cli))
        return CLI_USAGE;
    if (cli_signal(cli, machine, "master", signal) == 0) {
        fprintf(stderr, "strata: no clustermaster runs on machine %s\n", machine);
        return CLI_FAILED;
    }
    printf("signal %d to the clustermaster of machine %s\n", signal, machine);
    return CLI_OK;
}

int cli_kill(struct cli *cli, int argc, char **argv)
{
    static const char usage[] =
        "kill JOB/INDEX [-SIGNAL] | master:MACHINE [-SIGNAL] | machine NAME [-9]";
    int signal = take_signal(&argc, argv);
    CLI_PB(SignalTaskRequest) request;
    CLI_PB(SignalTaskReply) *reply = NULL;
    CLI_PB(Task) *task = NULL;
    const char *job, *agent = NULL;
    uint32_t index;
    struct base_status status;

    if (signal < 0 || !cli_args_end(argc, argv, 1, 2, usage))
        return cli_usage(usage);
    if (strcmp(argv[1], "machine") == 0 && argc == 3) {
        char *args[] = { "machine", "stop", argv[2], signal == SIGKILL ? "-9" : NULL, NULL };

        return cli_machine(cli, signal == SIGKILL ? 4 : 3, args);
    }
    if (argc == 2 && strncmp(argv[1], "master:", 7) == 0)
        return kill_master(cli, argv[1] + 7, signal ? signal : SIGTERM);
    if (argc != 2 || !cli_task_parse(cli, argv[1], &job, &index) || !cli_cell_need(cli))
        return cli_usage(usage);
    status = cli_task_find(cli, job, index, &task);
    if (!base_failed(status))
        status = cli_agent_address(cli, ch_bytes_of(task->machine), &agent);
    if (base_failed(status))
        return cli_fail(cli, status);
    strata__clustermgr__v1__signal_task_request__init(&request);
    request.job = ch_data_str(job);
    request.index = index;
    request.signal = signal ? signal : SIGTERM;
    status = cli_agent_call(cli, agent, STRATA__CLUSTERMGR__V1__AGENT__SIGNAL_TASK, &request,
                            CLI_CALL_MS, &reply);
    if (base_failed(status))
        return cli_fail(cli, status);
    printf("signal %d to %s/%" PRIu32 ", pid %" PRId64 "\n", request.signal, job, index,
           reply->pid);
    return CLI_OK;
}
