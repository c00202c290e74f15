/* machine.c: a simulated machine: one init process that keeps its clusteragent, and where the cell
 * has one the clustermaster, alive, as systemd does on a real one. What the cell's file says is
 * read again each time one is started. `up` starts it, `down`
 * and `machine stop` end it.
 *
 * Its children die with it (a machine without its init is off); the agent's tasks are sessions of
 * their own, and whoever switches the machine off kills them by their mark (processes.c). */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "chassis/log.h"
#include "chassis/process.h"
#include "cli.h"

enum {
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 5000,
    SETTLED_MS = 10000,
    STOP_MS = 15000,
    RENEW_MS = 20000
};

struct child {
    struct cli *cli;
    const char *role, *machine;
    void (*prepare)(struct child *child); /* sets log and argv, from the cell's file */
    const char *log;
    const char **argv;
    struct ch_process *process;
};

const char *cli_machine_dir(struct cli *cli, const char *machine)
{
    return base_arena_printf(&cli->arena, "%s/machines/%s", cli->dir, machine);
}

/* ---- starting one ---- */

struct base_status cli_machine_start(struct cli *cli, const struct cli_machine *machine)
{
    const char *dir = cli_machine_dir(cli, machine->name);
    const char *argv[] = { base_arena_printf(&cli->arena, "%s/strata", cli->bin_dir),
                           "machine-init",
                           machine->name,
                           "--dir",
                           cli->dir,
                           NULL };
    const char *environment[] = {
        base_arena_printf(&cli->arena, "STRATA_CELL_DIR=%s", cli->dir),
        base_arena_printf(&cli->arena, "STRATA_MACHINE=%s", machine->name), "STRATA_ROLE=init", NULL
    };
    struct ch_process_spec spec = { argv, environment, cli->dir,
                                    base_arena_printf(&cli->arena, "%s/init.log", dir), false };
    struct ch_process *process = NULL;
    struct base_status status = ch_dir_make(cli->env, dir);

    if (!base_failed(status))
        status = ch_process_start(cli->env, &spec, &process);
    if (!base_failed(status))
        ch_process_free(process);
    return base_status_wrap(status, "start machine %s", machine->name);
}

struct base_status cli_machine_renew(struct cli *cli, const struct cli_machine *machine)
{
    cli_signal(cli, machine->name, "init", SIGTERM);
    if (!cli_wait_gone(cli, machine->name, "init", RENEW_MS) ||
        !cli_wait_gone(cli, machine->name, "master", RENEW_MS))
        return base_status_make(BASE_DEADLINE_EXCEEDED,
                                "machine %s does not stop its own processes", machine->name);
    return cli_machine_start(cli, machine);
}

/* ---- the init ---- */

static CH_WAITS struct base_status child_start(struct child *child)
{
    const char *environment[] = {
        base_arena_printf(&child->cli->arena, "STRATA_ROLE=%s", child->role), NULL
    };
    struct ch_process_spec spec = { NULL, environment, child->cli->dir, NULL, true };
    struct base_status status = cli_cell_load(child->cli);

    if (base_failed(status))
        return status;
    child->prepare(child);
    spec.argv = child->argv;
    spec.log_path = child->log;
    return ch_process_start(child->cli->env, &spec, &child->process);
}

/* Cancelled: asks it to stop, and sees to it. */
static CH_WAITS void child_stop(struct child *child)
{
    base_status_drop(ch_process_signal(child->process, SIGTERM));
}

static void child_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct child *child = arg;
    struct ch_env *env = child->cli->env;
    int64_t backoff_ms = BACKOFF_MIN_MS;

    while (!ch_cancelled()) {
        ch_time began = ch_now(env);
        int exit_status = 0;
        struct base_status status = child_start(child);

        if (base_failed(status)) {
            ch_error(env, "start %s: %s", child->role, base_status_text(&status));
            base_status_free(&status);
        } else if (ch_process_wait(child->process, CH_NEVER, &exit_status) == CH_CANCELLED) {
            child_stop(child); /* the main fiber waits for it */
            return;
        } else {
            ch_error(env, "%s ended with wait status %d; it is started again", child->role,
                     exit_status);
            ch_process_free(child->process);
            child->process = NULL;
        }
        if (ch_now(env) - began > SETTLED_MS * CH_MS)
            backoff_ms = BACKOFF_MIN_MS;
        if (ch_sleep_until(env, ch_in(env, backoff_ms * CH_MS)) != CH_TIMEOUT)
            return;
        backoff_ms = backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : backoff_ms * 2;
    }
}

static const char *fronts_flag(struct cli *cli)
{
    const char *flag = "--fronts=";

    for (size_t i = 0; i < CLI_FRONTS; i++)
        flag = base_arena_printf(&cli->arena, "%s%s%s=%s", flag, i ? "," : "",
                                 cli->cell.fronts[i].name,
                                 cli_front_address(cli, &cli->cell.fronts[i]));
    return flag;
}

static void master_prepare(struct child *child)
{
    struct cli *cli = child->cli;
    const char **argv = BASE_NEW_ARRAY(&cli->arena, const char *, 20);
    const char *dir = cli_machine_dir(cli, child->machine),
               *address = cli_master_address(cli, child->machine);
    size_t n = 0;

    argv[n++] = base_arena_printf(&cli->arena, "%s/clustermaster", cli->bin_dir);
    argv[n++] = base_arena_printf(&cli->arena, "--listen=%s", address);
    argv[n++] =
        base_arena_printf(&cli->arena, "--admin=%.*s:0", (int)strcspn(address, ":"), address);
    argv[n++] = base_arena_printf(&cli->arena, "--cell=%s", cli->cell.cell);
    argv[n++] = base_arena_printf(&cli->arena, "--members=%s", cli_master_addresses(cli));
    argv[n++] = base_arena_printf(&cli->arena, "--data-dir=%s/master", dir);
    argv[n++] = base_arena_printf(&cli->arena, "--port-file=%s/master.ports", dir);
    if (*cli->cell.state)
        argv[n++] = base_arena_printf(&cli->arena, "--state=%s", cli->cell.state);
    else if (!cli->cell.founded && strcmp(child->machine, cli->cell.masters[0]) == 0)
        argv[n++] = "--found=true";
    argv[n++] = fronts_flag(cli);
    child->log = base_arena_printf(&cli->arena, "%s/master.log", dir);
    child->argv = argv;
}

static void agent_prepare(struct child *child)
{
    struct cli *cli = child->cli;
    const struct cli_machine *machine = cli_machine_find(cli, child->machine);
    const char **argv = BASE_NEW_ARRAY(&cli->arena, const char *, 16);
    const char *dir = cli_machine_dir(cli, child->machine);
    size_t n = 0;

    BASE_ASSERT(machine);
    argv[n++] = base_arena_printf(&cli->arena, "%s/clusteragent", cli->bin_dir);
    argv[n++] = base_arena_printf(&cli->arena, "--machine=%s", machine->name);
    argv[n++] = base_arena_printf(&cli->arena, "--listen=%s:0", machine->address);
    argv[n++] = base_arena_printf(&cli->arena, "--admin=%s:0", machine->address);
    argv[n++] = base_arena_printf(&cli->arena, "--zone=%s", machine->zone);
    argv[n++] = base_arena_printf(&cli->arena, "--cell=%s", cli->cell.cell);
    argv[n++] = base_arena_printf(&cli->arena, "--names=%s", cli_master_addresses(cli));
    argv[n++] = base_arena_printf(&cli->arena, "--data-dir=%s/agent", dir);
    argv[n++] = base_arena_printf(&cli->arena, "--port-file=%s/agent.ports", dir);
    child->log = base_arena_printf(&cli->arena, "%s/agent.log", dir);
    child->argv = argv;
}

static CH_WAITS void children_wait(struct child *children, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int exit_status;

        if (!children[i].process)
            continue;
        if (ch_process_wait(children[i].process, ch_in(children[i].cli->env, STOP_MS * CH_MS),
                            &exit_status) == CH_TIMEOUT)
            base_status_drop(ch_process_signal(children[i].process, SIGKILL));
        ch_process_free(children[i].process);
    }
}

struct init {
    struct cli *cli;
    struct child children[2];
    size_t count;
    struct ch_gate gate;
};

/* On a fiber of its own: the main one is cancelled by then, and could not wait. */
static void init_stop_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct init *init = arg;

    ch_gate_stop(&init->gate);
    children_wait(init->children, init->count);
}

int cli_machine_init(struct cli *cli, int argc, char **argv)
{
    struct init init = { .cli = cli };
    struct ch_gate stop;
    const char *machine;
    struct base_status status = BASE_STATUS_OK;

    if (!cli_args_end(argc, argv, 1, 1, "machine-init NAME") || !cli_cell_need(cli))
        return CLI_USAGE;
    machine = argv[1];
    if (!cli_machine_find(cli, machine)) {
        fprintf(stderr, "strata: the cell has no machine %s\n", machine);
        return CLI_FAILED;
    }
    ch_gate_init(&init.gate, cli->env, "machine");
    ch_gate_init(&stop, cli->env, "machine stop");
    init.children[init.count++] =
        (struct child){ cli, "agent", machine, agent_prepare, NULL, NULL, NULL };
    if (cli_has_master(cli, machine))
        init.children[init.count++] =
            (struct child){ cli, "master", machine, master_prepare, NULL, NULL, NULL };
    for (size_t i = 0; i < init.count && !base_failed(status); i++)
        status = ch_gate_spawn(&init.gate, init.children[i].role, child_fiber, &init.children[i]);
    while (!base_failed(status) && ch_sleep_until(cli->env, CH_NEVER) != CH_CANCELLED)
        ;
    if (!base_failed(status))
        status = ch_gate_spawn(&stop, "stop", init_stop_fiber, &init);
    ch_gate_join_always(&stop);
    return base_failed(status) ? cli_fail(cli, status) : CLI_OK;
}

/* ---- the power button ---- */

static CH_WAITS int stop(struct cli *cli, const char *name, bool at_once)
{
    if (!cli_stop(cli, name, at_once)) {
        fprintf(stderr, "strata: something of machine %s is left running\n", name);
        return CLI_FAILED;
    }
    printf("machine %s is off\n", name);
    return CLI_OK;
}

static CH_WAITS int start(struct cli *cli, const struct cli_machine *machine)
{
    struct base_status status;

    if (cli_init_alive(cli, machine->name)) {
        printf("machine %s is on already\n", machine->name);
        return CLI_OK;
    }
    status = cli_machine_start(cli, machine);
    if (base_failed(status))
        return cli_fail(cli, status);
    printf("machine %s is on\n", machine->name);
    return CLI_OK;
}

int cli_machine(struct cli *cli, int argc, char **argv)
{
    static const char usage[] = "machine stop NAME [-9]|start NAME|list";
    bool at_once = cli_take_switch(&argc, argv, "-9");
    const struct cli_machine *machine;

    if (!cli_args_end(argc, argv, 1, 2, usage) || !cli_cell_need(cli))
        return CLI_USAGE;
    if (strcmp(argv[1], "list") == 0) {
        for (size_t i = 0; i < cli->cell.machine_count; i++)
            printf("%s  %s  %s  %s\n", cli->cell.machines[i].name, cli->cell.machines[i].address,
                   cli->cell.machines[i].zone,
                   cli_init_alive(cli, cli->cell.machines[i].name) ? "on" : "off");
        return CLI_OK;
    }
    if (argc != 3)
        return cli_usage(usage);
    machine = cli_machine_find(cli, argv[2]);
    if (!machine) {
        fprintf(stderr, "strata: the cell has no machine %s; strata machine list names them\n",
                argv[2]);
        return CLI_FAILED;
    }
    if (strcmp(argv[1], "stop") == 0)
        return stop(cli, machine->name, at_once);
    if (strcmp(argv[1], "start") == 0)
        return start(cli, machine);
    return cli_usage(usage);
}
