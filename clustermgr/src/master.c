/* master.c: the clustermaster: the cell's state (state.h) behind a log with one or more members
 * (consensus/log.h), and those who live on it: the names and locks (names.c), the cell's jobs and
 * machines (cell.c), and the leader's own fibers that end leases (leases.c) and place tasks
 * (scheduler.c). Which member leads, and what that means: lead.c.
 *
 * Happy path: start opens the log -> some member comes to lead -> its handlers propose commands ->
 * each applied command wakes every watcher. Failure: a group's member that leads no more refuses,
 * and clients go on elsewhere; the log of a member that is alone, once failed, ends the process,
 * and its successor reads what is on the disk. Shutdown: leadership handed over, gates closed,
 * fibers cancelled and joined, then the log. */
#include "master.h"

#include <inttypes.h>
#include <stdlib.h>

#define KEY(field, name, type, fallback, doc) \
    CH_CONFIG(clu_master_config, field, name, type, fallback, doc)
static const struct ch_config_key keys[] = {
    KEY(fronts, "fronts", CH_CONFIG_STRING, "",
        "the cell's front doors: name=host:port,…; a job's `front` names one"),
    KEY(machine_dead_after, "machine-dead-after", CH_CONFIG_DURATION, "3s",
        "a machine not heard of for so long is down: tasks that are not pinned move"),
    { "moves-per-second", CH_CONFIG_INT, offsetof(struct clu_master_config, moves_per_second), "10",
      "how many tasks leave dead machines a second, at most: a network cut looks like many deaths",
      1, 100000 },
    KEY(snapshot_bytes, "snapshot-bytes", CH_CONFIG_SIZE, "8MiB",
        "the log's size that brings a snapshot"),
    KEY(members, "members", CH_CONFIG_STRING, "",
        "the members of the clustermaster, host:port,..., this one's --listen among them; empty: "
        "this one alone, for good"),
    KEY(found, "found", CH_CONFIG_BOOL, "false",
        "with --members: an empty --data-dir begins a new cell, unless a member knows of one; for "
        "one member, once in the cell's life. The others ask to join"),
    KEY(state, "state", CH_CONFIG_STRING, "",
        "etcd://host:port,...: the cell's state is kept in that etcd cluster; empty: in "
        "--data-dir"),
};

static void state_changed(void *self)
{
    struct clu_master *master = self;

    master->metrics.nodes->value = (int64_t)master->state->node_count;
    master->metrics.sessions->value = (int64_t)master->state->session_count;
    master->metrics.version->value = (int64_t)master->state->version;
    ch_cond_broadcast(&master->changed);
}

static void metrics_init(struct clu_master *master)
{
    struct ch_env *env = master->env;

    master->metrics.commands =
        ch_counter(env, "strata_clustermaster_commands_total", "", "Commands proposed to the log.");
    master->metrics.sessions_ended = ch_counter(env, "strata_clustermaster_sessions_ended_total",
                                                "", "Sessions whose lease ended.");
    master->metrics.machines_lost =
        ch_counter(env, "strata_clustermaster_machines_lost_total", "", "Machines taken for dead.");
    master->metrics.placements =
        ch_counter(env, "strata_clustermaster_placements_total", "", "Tasks placed on a machine.");
    master->metrics.moves =
        ch_counter(env, "strata_clustermaster_moves_total", "", "Tasks that left a dead machine.");
    master->metrics.sessions = ch_gauge(env, "strata_clustermaster_sessions", "", "Open sessions.");
    master->metrics.nodes =
        ch_gauge(env, "strata_clustermaster_names", "", "Nodes of the name space.");
    master->metrics.machines_up =
        ch_gauge(env, "strata_clustermaster_machines_up", "", "Machines that are heard of.");
    master->metrics.tasks_pending =
        ch_gauge(env, "strata_clustermaster_tasks_pending", "", "Tasks on no machine.");
    master->metrics.version =
        ch_gauge(env, "strata_clustermaster_version", "", "Version of the state.");
    master->metrics.leads =
        ch_gauge(env, "strata_clustermaster_leads", "", "1: this member leads the cell.");
    master->metrics.schedule_ns =
        ch_histogram(env, "strata_clustermaster_schedule_ns", "", "Time of a scheduling pass.");
    master->metrics.propose_ns = ch_histogram(env, "strata_clustermaster_propose_ns", "",
                                              "Time of a command, until applied.");
}

/* "a=host:port,b=host:port" */
static struct base_status fronts_parse(struct clu_master *master)
{
    char *text = strdup(master->config->fronts), *at = text, *item;
    struct base_status status = BASE_STATUS_OK;

    while (!base_failed(status) && (item = strsep(&at, ","))) {
        char *equals = strchr(item, '=');

        if (!*item)
            continue;
        if (!equals || equals == item || !strchr(equals, ':'))
            status = base_status_make(BASE_INVALID_ARGUMENT,
                                      "--fronts: \"%s\" is not name=host:port", item);
        else if (master->front_count == CLU_FRONTS_MAX)
            status =
                base_status_make(BASE_INVALID_ARGUMENT, "--fronts: more than %d", CLU_FRONTS_MAX);
        if (base_failed(status))
            break;
        *equals = '\0';
        master->fronts[master->front_count++] =
            (struct clu_front){ strdup(item), strdup(equals + 1) };
    }
    free(text);
    return status;
}

/* "a:1,b:2" into the arena; the count. */
static size_t members_parse(const char *text, struct base_arena *arena, const char ***members)
{
    char *at = base_arena_strdup(arena, text), *item;
    size_t count = 0;

    *members = BASE_NEW_ARRAY(arena, const char *, strlen(text) / 2 + 1);
    while ((item = strsep(&at, ",")))
        if (*item)
            (*members)[count++] = item;
    return count;
}

static struct base_status members_check(const struct ch_service_start *start,
                                        const char *const *members, size_t count) BASE_MUST_CHECK;
static struct base_status members_check(const struct ch_service_start *start,
                                        const char *const *members, size_t count)
{
    const char *listen = start->common->listen, *port = strrchr(listen, ':');

    for (size_t i = 0; i < count; i++)
        if (!strchr(members[i], ':'))
            return base_status_make(BASE_INVALID_ARGUMENT, "--members: \"%s\" is not host:port",
                                    members[i]);
    if (count > CON_MEMBERS_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "--members: %zu, at most %d", count,
                                CON_MEMBERS_MAX);
    if (count > 0 && (!port || strcmp(port, ":0") == 0))
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "--listen %s: with --members it is how the others reach this one",
                                listen);
    return BASE_STATUS_OK;
}

static struct base_status log_open(struct clu_master *master,
                                   const struct ch_service_start *start) CH_WAITS BASE_MUST_CHECK;
static struct base_status log_open(struct clu_master *master, const struct ch_service_start *start)
{
    struct con_machine machine = clu__state_machine(master->state);
    struct con_log_options options = { .dir = start->common->data_dir,
                                       .snapshot_bytes_min = master->config->snapshot_bytes,
                                       .group = "clustermaster",
                                       .self = start->common->listen,
                                       .found = master->config->found,
                                       .election = CLU_ELECTION_MS * CH_MS,
                                       .heartbeat = CLU_HEARTBEAT_MS * CH_MS };
    struct base_arena arena;
    const char **members = NULL;
    struct base_status status;

    base_arena_init(&arena);
    options.peer_count = members_parse(master->config->members, &arena, &members);
    options.peers = members;
    status = members_check(start, members, options.peer_count);
    if (*master->config->state) { /* one etcd may serve several cells */
        options.state = master->config->state;
        options.group = base_arena_printf(&arena, "%s/clustermaster", start->common->cell);
    } else if (!base_failed(status) && options.peer_count > 0) {
        status = con_node_new(master->env, start->server, NULL, &master->node);
    }
    options.node = master->node;
    if (!base_failed(status))
        status = con_log_open(master->env, &options, &machine, &master->log);
    base_arena_free(&arena);
    return status;
}

static void master_free(struct clu_master *master)
{
    for (size_t i = 0; i < master->front_count; i++) {
        free(master->fronts[i].name);
        free(master->fronts[i].address);
    }
    clu__state_free(master->state);
    free(master->cell);
    free(master);
}

static CH_WAITS void master_stop(void *self)
{
    struct clu_master *master = self;

    ch_gate_stop(&master->gate);
    if (master->log)
        con_log_close(master->log);
    if (master->node)
        con_node_free(master->node);
    master_free(master);
}

static CH_WAITS struct base_status master_start(const struct ch_service_start *start, void **self)
{
    struct clu_master *master = calloc(1, sizeof(*master));
    struct base_status status;

    if (!master)
        abort();
    master->env = start->env;
    master->config = start->config;
    master->cell = strdup(start->common->cell);
    master->server = start->server;
    ch_gate_init(&master->gate, master->env, "clustermaster");
    ch_cond_init(&master->changed);
    metrics_init(master);
    master->state = clu__state_new();
    master->state->changed = state_changed;
    master->state->led = clu__led;
    master->state->owner = master;
    status = fronts_parse(master);
    if (!base_failed(status))
        status = log_open(master, start);
    if (!base_failed(status))
        status = ch_gate_spawn(&master->gate, "lead", clu__lead_fiber, master);
    if (!base_failed(status))
        status = ch_gate_spawn(&master->gate, "log", clu__log_fiber, master);
    if (!base_failed(status))
        status = ch_gate_spawn(&master->gate, "leases", clu__leases_fiber, master);
    if (!base_failed(status))
        status = ch_gate_spawn(&master->gate, "scheduler", clu__scheduler_fiber, master);
    if (base_failed(status)) {
        master_stop(master);
        return status;
    }
    clu__names_serve(master, start->server);
    clu__cell_serve(master, start->server);
    *self = master;
    return BASE_STATUS_OK;
}

const struct ch_service_def clu_master_def = {
    .name = "clustermaster",
    .about = "the cell's names and locks, its jobs, and where their tasks run",
    .config = { keys, sizeof(keys) / sizeof(keys[0]) },
    .config_size = sizeof(struct clu_master_config),
    .start = master_start,
    .retire = clu__retire,
    .stop = master_stop,
};

/* ---- for the services ---- */

struct base_status clu__propose(struct clu_master *master, CLU_PB(Command) * command,
                                ch_time deadline, struct base_arena *arena,
                                CLU_PB(CommandReply) * *reply)
{
    struct base_buf bytes = { 0 }, answer = { 0 };
    ch_time begin = ch_now(master->env);
    ProtobufCMessage *message = NULL;
    struct base_status status;

    command->wall_us = ch_wall_us(master->env);
    ch_proto_encode(&command->base, &bytes);
    status = con_log_propose(master->log, base_buf_bytes(&bytes), deadline, &answer);
    ch_count(master->metrics.commands, 1);
    ch_observe(master->metrics.propose_ns, (uint64_t)(ch_now(master->env) - begin));
    if (!base_failed(status))
        status = ch_proto_decode(CLU_DESCRIPTOR(command_reply), base_buf_bytes(&answer), arena,
                                 &message);
    base_buf_free(&bytes);
    base_buf_free(&answer);
    if (base_failed(status))
        return status;
    *reply = (void *)message;
    if ((*reply)->code != BASE_OK)
        return base_status_make((enum base_code)(*reply)->code, "%.*s",
                                BASE_FMT(ch_bytes_of((*reply)->text)));
    return BASE_STATUS_OK;
}

ch_time clu__propose_deadline(struct clu_master *master, struct ch_call *call)
{
    ch_time bound = ch_in(master->env, CLU_PROPOSE_MS * CH_MS);
    ch_time deadline = call ? ch_call_deadline(call) : CH_NEVER;

    return deadline < bound ? deadline : bound;
}

enum ch_outcome clu__changed_wait(struct clu_master *master, ch_time deadline)
{
    ch_time look = ch_in(master->env, CH_S);

    return ch_cond_wait(&master->changed, deadline < look ? deadline : look);
}

bool clu__stopping(const struct clu_master *master)
{
    return ch_server_stopping(master->server);
}

const char *clu__front_of(const struct clu_master *master, const struct clu_task *task)
{
    if (task->index != 0 || task->job->spec->front.len == 0)
        return "";
    for (size_t i = 0; i < master->front_count; i++)
        if (base_bytes_eq_str(ch_bytes_of(task->job->spec->front), master->fronts[i].name))
            return master->fronts[i].address;
    return "";
}
