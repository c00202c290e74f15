/* up.c: strata up: a cell on this computer, from nothing, from its data, or what is missing of
 * it. Each step is skipped when it is done already, so a second `up` is quick and changes
 * nothing. */
#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "clustermgr/job.h"

enum {
    MACHINES_DEFAULT = 3,
    MASTERS_DEFAULT = 3, /* with as many machines; else 1 */
    WAIT_MS = 90000,
    QUIET_MS = 2000,
    POLL_MS = 50,
    MASTER_PORT = 7340,
    JOBS_MAX = 64,
    ASK_MS = 1000,
    PORT_ANY = -1, /* what --…-port 0 asks for */
    PORT_MAX = 65535,
    PORT_TRIES = 50
};

struct up {
    struct cli *cli;
    ch_time deadline, began, told;
    CLI_PB(JobSpec) * specs[JOBS_MAX];
    size_t spec_count;
    int wanted_machines, wanted_masters; /* 0: not said */
    const char *wanted_state;
    int wanted_ports[CLI_FRONTS]; /* 0: not said; PORT_ANY */
    const char *jobs_dir;
};

/* ---- progress: silent at first, then a line now and then ---- */

static void waiting(struct up *up, const char *for_what)
{
    static const ch_time again = 5 * CH_S;
    ch_time now = ch_now(up->cli->env);

    if (now - up->began < QUIET_MS * CH_MS || now - up->told < (up->told ? again : 0))
        return;
    up->told = now;
    fprintf(stderr, "  %3.0f s: waiting for %s\n", (double)(now - up->began) / (double)CH_S,
            for_what);
}

static CH_WAITS bool tick(struct up *up)
{
    return ch_now(up->cli->env) < up->deadline &&
           ch_sleep_until(up->cli->env, ch_in(up->cli->env, POLL_MS * CH_MS)) == CH_TIMEOUT;
}

/* ---- what the cell is to be ---- */

static struct base_status machines_plan(struct up *up)
{
    struct cli *cli = up->cli;
    int count = up->wanted_machines ? up->wanted_machines
                : cli->cell_there   ? (int)cli->cell.machine_count
                                    : MACHINES_DEFAULT;

    if (count < 1 || count > CLI_MACHINES_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "--machines: 1 to %d", CLI_MACHINES_MAX);
    if ((size_t)count < cli->cell.machine_count)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "--machines %d: the cell has %zu, and its data is on them", count,
                                cli->cell.machine_count);
    for (int i = (int)cli->cell.machine_count; i < count; i++)
        cli->cell.machines[cli->cell.machine_count++] =
            (struct cli_machine){ base_arena_printf(&cli->arena, "m%d", i + 1),
                                  base_arena_printf(&cli->arena, "127.0.0.%d", i + 1),
                                  base_arena_printf(&cli->arena, "zone-%c", 'a' + i % 3) };
    return BASE_STATUS_OK;
}

/* Which machines get a clustermaster: decided once; `strata masters` changes it later. */
static struct base_status masters_plan(struct up *up)
{
    struct cli_cell *cell = &up->cli->cell;
    size_t count = up->wanted_masters                       ? (size_t)up->wanted_masters
                   : cell->machine_count >= MASTERS_DEFAULT ? MASTERS_DEFAULT
                                                            : 1;

    if (up->cli->cell_there) {
        if (up->wanted_masters && count != cell->master_count)
            return base_status_make(BASE_FAILED_PRECONDITION,
                                    "--masters %zu: the cell has %zu; strata masters add or remove "
                                    "changes that",
                                    count, cell->master_count);
        if (up->wanted_state && strcmp(up->wanted_state, cell->state) != 0)
            return base_status_make(BASE_FAILED_PRECONDITION,
                                    "--state: the cell's state is kept %s%s, and stays there",
                                    *cell->state ? "in " : "with its masters", cell->state);
        return BASE_STATUS_OK;
    }
    if (count > CLI_MASTERS_MAX || count > cell->machine_count)
        return base_status_make(BASE_INVALID_ARGUMENT, "--masters %zu: there are %zu machines",
                                count, cell->machine_count);
    while (cell->master_count < count) {
        cell->masters[cell->master_count] = cell->machines[cell->master_count].name;
        cell->master_count++;
    }
    if (up->wanted_state)
        cell->state = base_arena_strdup(&up->cli->arena, up->wanted_state);
    return BASE_STATUS_OK;
}

static bool port_free_everywhere(const char *const *hosts, size_t count, int port)
{
    for (size_t i = 0; i < count; i++)
        if (!cli_port_free(hosts[i], port))
            return false;
    return true;
}

/* The port wanted, or when it is taken (and was not asked for by name) another. "Any" is the one
 * the cell had, while it is free: clients of an earlier `up` still find it. */
static struct base_status port_plan(struct cli *cli, const char *what, int asked,
                                    const char *const *hosts, size_t host_count, int *port)
{
    bool any = asked == PORT_ANY;
    int wanted = any ? (cli->cell_there ? *port : 0) : asked ? asked : *port;

    if (wanted && port_free_everywhere(hosts, host_count, wanted)) {
        *port = wanted;
        return BASE_STATUS_OK;
    }
    if (asked && !any)
        return base_status_make(BASE_UNAVAILABLE, "port %d for %s is taken by another program",
                                asked, what);
    for (int tries = 0; tries < PORT_TRIES; tries++) {
        *port = cli_port_any(hosts[0]);
        if (*port && port_free_everywhere(hosts + 1, host_count - 1, *port))
            break;
        *port = 0;
    }
    if (*port == 0)
        return base_status_make(BASE_UNAVAILABLE, "no port is free on %s", hosts[0]);
    if (!any)
        fprintf(stderr, "port %d is taken: %s is at %d\n", wanted, what, *port);
    return BASE_STATUS_OK;
}

static struct base_status master_port_plan(struct cli *cli)
{
    const char *hosts[CLI_MASTERS_MAX];
    size_t count = 0;

    for (size_t i = 0; i < cli->cell.master_count; i++) {
        const struct cli_machine *machine = cli_machine_find(cli, cli->cell.masters[i]);

        if (machine)
            hosts[count++] = machine->address;
    }
    if (count == 0)
        return base_status_make(BASE_DATA_LOSS, "%s/cell.json: its masters are on no machine of it",
                                cli->dir);
    return port_plan(cli, "the clustermaster", 0, hosts, count, &cli->cell.master_port);
}

/* Decides machines and ports, and keeps them. Ports of a cell that runs stay. */
static CH_WAITS struct base_status cell_plan(struct up *up)
{
    struct cli *cli = up->cli;
    bool running = cli_init_alive(cli, NULL);
    struct base_status status = BASE_STATUS_OK;

    if (!cli->cell_there) {
        cli->cell.cell = "local";
        cli->cell.host = "127.0.0.1";
        cli->cell.master_port = MASTER_PORT;
    }
    status = machines_plan(up);
    if (!base_failed(status))
        status = masters_plan(up);
    if (!base_failed(status) && !running)
        status = master_port_plan(cli);
    for (size_t i = 0; i < CLI_FRONTS && !base_failed(status); i++) {
        struct cli_front *front = &cli->cell.fronts[i];

        if (!running)
            status = port_plan(cli, front->name, up->wanted_ports[i],
                               (const char *const *)&cli->cell.host, 1, &front->port);
        else if (up->wanted_ports[i] > 0 && up->wanted_ports[i] != front->port)
            status = base_status_make(BASE_FAILED_PRECONDITION,
                                      "the cell runs, with %s at port %d: strata down first",
                                      front->name, front->port);
    }
    return base_failed(status) ? status : cli_cell_save(cli);
}

/* ---- machines ---- */

static CH_WAITS struct base_status machines_start(struct up *up)
{
    struct cli *cli = up->cli;
    struct base_status status = BASE_STATUS_OK;

    for (size_t i = 0; i < cli->cell.machine_count && !base_failed(status); i++)
        if (!cli_init_alive(cli, cli->cell.machines[i].name))
            status = cli_machine_start(cli, &cli->cell.machines[i]);
    return status;
}

static CH_WAITS struct base_status machines_wait(struct up *up)
{
    struct cli *cli = up->cli;
    CLI_PB(ListMachinesRequest) request;
    struct base_status status = BASE_STATUS_OK;

    strata__clustermgr__v1__list_machines_request__init(&request);
    do {
        CLI_PB(ListMachinesReply) *reply = NULL;
        size_t ready = 0;

        base_status_free(&status);
        status = cli_cell_call(cli, STRATA__CLUSTERMGR__V1__CELL__LIST_MACHINES, &request, ASK_MS,
                               &reply);
        if (base_failed(status)) {
            waiting(up, "the clustermaster");
            continue;
        }
        if (!cli->cell.founded) { /* it is: nobody founds it again, whatever disk is lost */
            cli->cell.founded = true;
            status = cli_cell_save(cli);
            if (base_failed(status))
                return status;
        }
        for (size_t i = 0; i < reply->n_machines; i++)
            ready += reply->machines[i]->up && reply->machines[i]->heard_ms_ago >= 0;
        if (ready >= cli->cell.machine_count)
            return BASE_STATUS_OK;
        waiting(up, base_arena_printf(&cli->arena, "machines: %zu of %zu are there", ready,
                                      cli->cell.machine_count));
    } while (tick(up));
    if (!base_failed(status))
        status =
            base_status_make(BASE_DEADLINE_EXCEEDED,
                             "not all machines came up; see the logs in %s/machines", cli->dir);
    return status;
}

/* ---- jobs ---- */

/* $STRATA_JOBS_DIR, or where they are installed, or where the build puts them. */
static const char *jobs_dir(struct cli *cli)
{
    const char *tries[] = { getenv("STRATA_JOBS_DIR"),
                            base_arena_printf(&cli->arena, "%s/../share/strata/jobs", cli->bin_dir),
                            base_arena_printf(&cli->arena, "%s/jobs", cli->bin_dir) };

    for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++)
        if (tries[i] && *tries[i] && access(tries[i], R_OK) == 0)
            return tries[i];
    return NULL;
}

static CH_WAITS struct base_status job_load(struct up *up, const char *path)
{
    struct cli *cli = up->cli;
    struct base_buf text = { 0 };
    CLI_PB(JobSpec) *spec = NULL;
    const char *command;
    struct base_status status = ch_file_read_all(cli->env, path, 1 << 20, &text);

    if (!base_failed(status))
        status = clu_job_parse(base_buf_bytes(&text), path, &cli->arena, &spec);
    base_buf_free(&text);
    if (base_failed(status))
        return status;
    command = cli_str(cli, spec->command);
    if (*command != '/' &&
        access(base_arena_printf(&cli->arena, "%s/%s", cli->bin_dir, command), X_OK) != 0) {
        fprintf(stderr, "job %s: there is no program %s beside strata: left out\n",
                cli_str(cli, spec->name), command);
        return BASE_STATUS_OK;
    }
    if (up->spec_count == JOBS_MAX)
        return base_status_make(BASE_RESOURCE_EXHAUSTED, "more than %d job files", JOBS_MAX);
    up->specs[up->spec_count++] = spec;
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status jobs_load(struct up *up)
{
    struct cli *cli = up->cli;
    const char *dir = up->jobs_dir ? up->jobs_dir : jobs_dir(cli);
    char **names = NULL;
    size_t count = 0;
    struct base_status status;

    if (!dir)
        return base_status_make(
            BASE_NOT_FOUND,
            "the job files are not found; --jobs or $STRATA_JOBS_DIR name their folder");
    status = ch_dir_list(cli->env, dir, &cli->arena, &names, &count);
    for (size_t i = 0; i < count && !base_failed(status); i++) {
        size_t len = strlen(names[i]);

        if (len > 5 && strcmp(names[i] + len - 5, ".yaml") == 0)
            status = job_load(up, base_arena_printf(&cli->arena, "%s/%s", dir, names[i]));
    }
    return status;
}

/* A group of masters has as many members as there are clustermasters, while nobody says else. On
 * one machine it is told so: blockmaster then keeps one copy of each block, until another comes. */
static void group_plan(struct up *up, CLI_PB(JobSpec) * spec)
{
    struct cli *cli = up->cli;
    static const char alone[] = "--one-machine";

    spec->tasks = (uint32_t)cli->cell.master_count;
    if (cli->cell.machine_count > 1)
        return;
    ProtobufCBinaryData *args = BASE_NEW_ARRAY(&cli->arena, ProtobufCBinaryData, spec->n_args + 1);
    for (size_t i = 0; i < spec->n_args; i++)
        args[i] = spec->args[i];
    args[spec->n_args++] = ch_data_str(alone);
    spec->args = args;
}

/* Submits what the cell lacks. A job that is there stays as it is, scaled or updated by hand as
 * it may be. */
static CH_WAITS struct base_status jobs_submit(struct up *up)
{
    struct cli *cli = up->cli;
    struct base_status status = BASE_STATUS_OK;

    for (size_t i = 0; i < up->spec_count && !base_failed(status); i++) {
        CLI_PB(SubmitJobRequest) request;
        CLI_PB(SubmitJobReply) *reply = NULL;

        strata__clustermgr__v1__submit_job_request__init(&request);
        request.spec = up->specs[i];
        if (request.spec->group)
            group_plan(up, request.spec);
        status = cli_cell_call(cli, STRATA__CLUSTERMGR__V1__CELL__SUBMIT_JOB, &request, CLI_CALL_MS,
                               &reply);
        if (status.code != BASE_ALREADY_EXISTS)
            continue;
        if (!request.spec->group)
            fprintf(
                stderr,
                "note: job %s differs from its job file and stays as it is (strata job update)\n",
                cli_str(cli, up->specs[i]->name));
        base_status_free(&status);
    }
    return status;
}

static const char *task_text(struct cli *cli, const CLI_PB(Task) * task)
{
    static const char *const states[] = { "waits for a machine",
                                          "goes to its machine",
                                          "is starting",
                                          "is not ready yet",
                                          "keeps ending",
                                          "has ended",
                                          "is on a machine that is not heard of" };
    const char *text =
        base_arena_printf(&cli->arena, "%s/%" PRIu32 ", which %s", cli_str(cli, task->job),
                          task->index, states[task->state < 7 ? task->state : 0]);

    if (task->state == CLI_TASK(PENDING))
        return base_arena_printf(&cli->arena, "%s (%s)", text, cli_str(cli, task->reason));
    if (task->restarts > 0)
        return base_arena_printf(
            &cli->arena, "%s (%" PRIu32 " restarts, last: %s; strata logs %s/%" PRIu32 ")", text,
            task->restarts, cli_str(cli, task->last_exit), cli_str(cli, task->job), task->index);
    return text;
}

/* NULL: everything is up. Else what is waited for. */
static CH_WAITS const char *missing(struct up *up, struct base_status *status)
{
    struct cli *cli = up->cli;
    CLI_PB(ListTasksRequest) request;
    CLI_PB(ListTasksReply) *reply = NULL;
    CLI_PB(ListJobsReply) *jobs = NULL;
    const char *text = NULL;

    strata__clustermgr__v1__list_tasks_request__init(&request);
    *status =
        cli_cell_call(cli, STRATA__CLUSTERMGR__V1__CELL__LIST_TASKS, &request, ASK_MS, &reply);
    if (!base_failed(*status))
        *status = cli_jobs_get(cli, ASK_MS, &jobs);
    if (base_failed(*status))
        return "the clustermaster";
    for (size_t i = 0; i < reply->n_tasks; i++) {
        const CLI_PB(Task) *task = reply->tasks[i];

        if (cli_task_for_later(cli, jobs, reply, task))
            continue;
        if (task->state != CLI_TASK(RUNNING) || !task->healthy)
            text = text ? base_arena_printf(&cli->arena, "%s; %s", text, task_text(cli, task))
                        : task_text(cli, task);
        else if (task->front.len > 0 && !cli_serving(cli, cli_str(cli, task->front)))
            text =
                base_arena_printf(&cli->arena, "the front door at %s", cli_str(cli, task->front));
    }
    return text ? text : cli_masters_missing(cli);
}

static CH_WAITS struct base_status tasks_wait(struct up *up)
{
    struct base_status status = BASE_STATUS_OK;
    const char *text;

    do {
        base_status_free(&status);
        text = missing(up, &status);
        if (!text)
            return BASE_STATUS_OK;
        waiting(up, text);
    } while (tick(up));
    if (!base_failed(status))
        status = base_status_make(BASE_DEADLINE_EXCEEDED, "not everything came up: %s", text);
    return status;
}

/* ---- the command ---- */

static CH_WAITS struct base_status up_steps(struct up *up)
{
    struct base_status status = jobs_load(up);
    struct ch_file *ports = NULL;

    if (!base_failed(status) && !cli_init_alive(up->cli, NULL))
        ports = cli_ports_lock(up->cli);
    if (!base_failed(status))
        status = cell_plan(up);
    if (!base_failed(status))
        status = machines_start(up);
    if (!base_failed(status))
        status = machines_wait(up);
    if (ports)
        ch_file_close(ports);
    if (!base_failed(status))
        status = jobs_submit(up);
    if (!base_failed(status))
        status = tasks_wait(up);
    return status;
}

static bool up_flags(struct up *up, int *argc, char **argv)
{
    static const char *const port_flags[CLI_FRONTS] = { "--datastore-port", "--bigtable-port" };
    int wait_s = 0;
    bool good =
        cli_take_number(argc, argv, "--machines", 1, CLI_MACHINES_MAX, &up->wanted_machines) &&
        cli_take_number(argc, argv, "--masters", 1, CLI_MASTERS_MAX, &up->wanted_masters) &&
        cli_take_number(argc, argv, "--wait", 1, INT_MAX / 1000, &wait_s);

    if (good && up->wanted_masters && up->wanted_masters % 2 == 0) {
        fprintf(stderr, "strata: --masters %d: an odd number, so that one more than half decides\n",
                up->wanted_masters);
        good = false;
    }
    for (size_t i = 0; i < CLI_FRONTS && good; i++) {
        int port = -1;

        good = cli_take_number(argc, argv, port_flags[i], 0, PORT_MAX, &port);
        up->wanted_ports[i] = port == 0 ? PORT_ANY : port < 0 ? 0 : port;
    }
    up->jobs_dir = cli_take_flag(argc, argv, "--jobs");
    up->wanted_state = cli_take_flag(argc, argv, "--state");
    up->deadline = ch_in(up->cli->env, wait_s ? wait_s * CH_S : WAIT_MS * CH_MS);
    return good && cli_args_end(*argc, argv, 0, 0,
                                "up [--machines N] [--masters N] [--datastore-port P] "
                                "[--bigtable-port P] [--jobs DIR] [--state etcd://HOST:PORT,…] "
                                "[--wait SECONDS]");
}

static void endpoints_print(struct up *up)
{
    struct cli *cli = up->cli;
    double seconds = (double)(ch_now(cli->env) - up->began) / (double)CH_S;

    printf("the cell is up (%zu machines, %.1f s)\n", cli->cell.machine_count, seconds);
    for (size_t i = 0; i < CLI_FRONTS; i++) {
        bool served = false;

        for (size_t j = 0; j < up->spec_count; j++)
            served |= base_bytes_eq_str(ch_bytes_of(up->specs[j]->front), cli->cell.fronts[i].name);
        if (served)
            printf("  %-9s  %s\n", cli->cell.fronts[i].name,
                   cli_front_address(cli, &cli->cell.fronts[i]));
    }
    printf("  for clients: eval $(strata env)\n");
}

int cli_up(struct cli *cli, int argc, char **argv)
{
    struct up up = { .cli = cli, .began = ch_now(cli->env) };
    struct ch_file *lock = NULL;
    struct base_status status;

    if (!up_flags(&up, &argc, argv))
        return CLI_USAGE;
    status = ch_dir_make(cli->env, cli->dir);
    if (!base_failed(status))
        status = cli_lock(cli, &lock);
    if (!base_failed(status)) {
        status = cli_cell_load(cli);
        if (status.code == BASE_NOT_FOUND)
            base_status_free(&status);
    }
    if (!base_failed(status))
        status = up_steps(&up);
    if (lock)
        ch_file_close(lock);
    if (base_failed(status))
        return cli_fail(cli, status);
    endpoints_print(&up);
    return CLI_OK;
}
