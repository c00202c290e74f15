/* down.c: stopping a cell, or one machine of it.
 *
 * Gracefully: tasks are drained through their agents, the last in the start order first (so a
 * server that puts its affairs in order on the way out still finds what it stands on, and the
 * names), then the inits take their agents and the master down. At once: everything is killed,
 * inits first so that nothing comes back. In either case what is left after its time is killed,
 * whoever started it: the mark in its environment tells. */
#include <signal.h>
#include <string.h>

#include "cli.h"

enum { DRAIN_MS = 20000, INIT_MS = 20000, LEFT_MS = 5000, KILL_MS = 5000, REACH_MS = 2000 };

struct drain {
    struct cli *cli;
    const char *agent;
    uint32_t order, order_max;
    bool failed;
};

/* A fiber of its own: agents are drained side by side. The arena is the caller's, so nothing of
 * the reply is kept. */
static void drain_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct drain *drain = arg;
    struct ch_call_options options = { .deadline = ch_in(drain->cli->env, DRAIN_MS * CH_MS) };
    struct ch_client *client = ch_client_new(drain->cli->env, drain->agent, NULL);
    struct base_arena arena;
    CLI_PB(DrainRequest) request;
    CLI_PB(DrainReply) *reply = NULL;
    struct base_status status;

    base_arena_init(&arena);
    strata__clustermgr__v1__drain_request__init(&request);
    request.start_order = drain->order;
    status = ch_client_call(
        client,
        &strata__clustermgr__v1__agent__service.methods[STRATA__CLUSTERMGR__V1__AGENT__DRAIN],
        &request, &options, &arena, (void **)&reply);
    drain->failed = base_failed(status);
    if (!drain->failed)
        drain->order_max = reply->start_order_max;
    base_status_free(&status);
    ch_client_free(client);
    base_arena_free(&arena);
}

/* All agents, from one start order on. Returns the highest order anybody has. */
static CH_WAITS uint32_t drain_all(struct cli *cli, struct drain *drains, size_t count,
                                   uint32_t order)
{
    struct ch_gather gather;
    uint32_t order_max = 0;

    ch_gather_init(&gather, "drain");
    for (size_t i = 0; i < count; i++) {
        drains[i].order = order;
        if (!drains[i].failed)
            ch_gather_add(&gather, drain_fiber, &drains[i]);
    }
    ch_gather_wait(&gather);
    for (size_t i = 0; i < count; i++)
        if (drains[i].order_max > order_max)
            order_max = drains[i].order_max;
    return order_max;
}

static CH_WAITS void drain(struct cli *cli, const char *machine)
{
    CLI_PB(ListMachinesRequest) request;
    CLI_PB(ListMachinesReply) *reply = NULL;
    struct drain drains[CLI_MACHINES_MAX] = { 0 };
    size_t count = 0;
    struct base_status status;

    strata__clustermgr__v1__list_machines_request__init(&request);
    status =
        cli_cell_call(cli, STRATA__CLUSTERMGR__V1__CELL__LIST_MACHINES, &request, REACH_MS, &reply);
    if (base_failed(status)) {
        base_status_free(&status); /* no master: tasks are told by signal below */
        return;
    }
    for (size_t i = 0; i < reply->n_machines && count < CLI_MACHINES_MAX; i++)
        if (reply->machines[i]->up &&
            (!machine || base_bytes_eq_str(ch_bytes_of(reply->machines[i]->name), machine)))
            drains[count++] =
                (struct drain){ .cli = cli, .agent = cli_str(cli, reply->machines[i]->agent) };
    /* An order nobody has asks for the highest there is. */
    for (uint32_t order = drain_all(cli, drains, count, UINT32_MAX) + 1;
         order > 0 && !ch_cancelled(); order--)
        drain_all(cli, drains, count, order - 1);
}

bool cli_stop(struct cli *cli, const char *machine, bool at_once)
{
    ch_time deadline;
    size_t left = 0;

    cli_processes(cli, machine, &left);
    if (left == 0)
        return true;
    if (!at_once) {
        drain(cli, machine);
        cli_signal(cli, machine, "init", SIGTERM);
        cli_wait_gone(cli, machine, "init", INIT_MS);
        if (cli_signal(cli, machine, "", SIGTERM) > 0)
            cli_wait_gone(cli, machine, "", LEFT_MS);
    }
    deadline = ch_in(cli->env, KILL_MS * CH_MS);
    do { /* one that was just being started may show up after a look */
        cli_signal(cli, machine, "init", SIGKILL);
        cli_signal(cli, machine, "", SIGKILL);
    } while (!cli_wait_gone(cli, machine, "", 200) && ch_now(cli->env) < deadline &&
             !ch_cancelled());
    cli_processes(cli, machine, &left);
    return left == 0;
}

struct base_status cli_lock(struct cli *cli, struct ch_file **lock)
{
    struct base_status status =
        ch_file_open(cli->env, base_arena_printf(&cli->arena, "%s/lock", cli->dir),
                     CH_FILE_READ | CH_FILE_WRITE | CH_FILE_CREATE, lock);

    if (base_failed(status))
        return status;
    status = ch_file_lock(*lock);
    if (base_failed(status)) {
        ch_file_close(*lock);
        *lock = NULL;
        status = base_status_wrap(status, "another strata up or down works on this cell");
    }
    return status;
}

int cli_down(struct cli *cli, int argc, char **argv)
{
    bool at_once = cli_take_switch(&argc, argv, "--kill"), stopped;
    struct ch_file *lock = NULL;
    size_t before = 0;
    struct base_status status;

    if (!cli_args_end(argc, argv, 0, 0, "down [--kill]") || !cli_cell_need(cli))
        return CLI_USAGE;
    status = cli_lock(cli, &lock);
    if (base_failed(status))
        return cli_fail(cli, status);
    cli_processes(cli, NULL, &before);
    stopped = cli_stop(cli, NULL, at_once);
    ch_file_close(lock);
    if (!stopped) {
        fprintf(stderr, "strata: something of the cell in %s is left running\n", cli->dir);
        return CLI_FAILED;
    }
    printf(before > 0 ? "the cell is down; its data stays in %s\n"
                      : "the cell was not running; its data is in %s\n",
           cli->dir);
    return CLI_OK;
}
