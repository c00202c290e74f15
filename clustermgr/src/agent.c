/* agent.c: the clusteragent of a machine: runs what the clustermaster assigns to it, tells how it
 * goes.
 *
 * Invariants
 * 1. Tasks do not need the agent to live: they are sessions of their own, and a new agent adopts
 * them from the state file.
 * 2. Tasks do not need the master either: without it the agent keeps alive what it was last told
 * to run.
 * 3. It obeys one cell (cell_id): a master that lost its data, or another cell's, cannot make it
 * stop everything.
 * 4. A task's process is only ever touched by that task's fiber (agent_task.c).
 *
 * Fibers: one a task; `assignments` keeps the stream of what to run open; `reports` tells the
 * state at each change, and as a heartbeat; `logs` rotates. Shutdown: fibers are cancelled and
 * joined; processes stay. */
#include "agent.h"

#include <signal.h>
#include <stdlib.h>

#include "chassis/log.h"

enum {
    REPORT_TIMEOUT_MS = 2000,
    RETRY_MS = 200,
    STREAM_MS = 60000,
    USAGE_MS = 2000,
    HEARTBEAT_MS = 500,
    DRAIN_POLL_MS = 20
};

#define KEY(field, name, type, fallback, doc) \
    CH_CONFIG(clu_agent_config, field, name, type, fallback, doc)
static const struct ch_config_key keys[] = {
    KEY(machine, "machine", CH_CONFIG_STRING, NULL, "the machine's name in the cell"),
    KEY(rack, "rack", CH_CONFIG_STRING, "", "the rack it stands in"),
    KEY(bin_dir, "bin-dir", CH_CONFIG_STRING, "",
        "where programs named in jobs are; empty: beside the agent's own"),
    KEY(cpu_millis, "cpu-millis", CH_CONFIG_INT, "4000",
        "thousandths of a core that tasks may ask for"),
    KEY(memory, "memory", CH_CONFIG_SIZE, "4GiB", "memory that tasks may ask for"),
    KEY(disk, "disk", CH_CONFIG_SIZE, "16GiB", "disk space that tasks may ask for"),
    KEY(log_bytes, "log-bytes", CH_CONFIG_SIZE, "16MiB",
        "size at which a task's log is rotated; one older piece is kept"),
};

/* ---- tasks ---- */

struct clu_agent_task *clu__agent_task_find(struct clu_agent *agent, struct base_bytes job,
                                            uint32_t index)
{
    struct clu_agent_task *task;

    TAILQ_FOREACH(task, &agent->tasks, entry)
    if (task->assignment->index == index &&
        base_bytes_eq(ch_bytes_of(task->assignment->spec->name), job))
        return task;
    return NULL;
}

void clu__agent_task_assign(struct clu_agent_task *task, const CLU_PB(Assignment) * assignment)
{
    struct base_arena arena;

    base_arena_init(&arena);
    task->assignment = (void *)ch_proto_copy(&assignment->base, &arena);
    base_arena_free(&task->arena);
    task->arena = arena;
}

struct clu_agent_task *clu__agent_task_new(struct clu_agent *agent,
                                           const CLU_PB(Assignment) * assignment)
{
    struct clu_agent_task *task = calloc(1, sizeof(*task));

    if (!task)
        abort();
    task->agent = agent;
    task->wanted = true;
    task->state = CLU_TASK(STARTING);
    ch_cond_init(&task->changed);
    clu__str_set(&task->endpoint, BASE_BYTES_EMPTY);
    clu__str_set(&task->admin, BASE_BYTES_EMPTY);
    clu__str_set(&task->last_exit, BASE_BYTES_EMPTY);
    clu__str_set(&task->run_name, BASE_BYTES_EMPTY);
    clu__agent_task_assign(task, assignment);
    TAILQ_INSERT_TAIL(&agent->tasks, task, entry);
    return task;
}

void clu__agent_task_free(struct clu_agent_task *task)
{
    TAILQ_REMOVE(&task->agent->tasks, task, entry);
    base_arena_free(&task->arena);
    free(task->endpoint);
    free(task->admin);
    free(task->last_exit);
    free(task->run_name);
    free(task);
}

void clu__agent_dirty(struct clu_agent *agent)
{
    agent->dirty = true;
    ch_cond_signal(&agent->report);
}

void clu__agent_run_ended(struct clu_agent_task *task)
{
    struct clu_agent *agent = task->agent;

    if (!*task->run_name)
        return;
    if (agent->ended_count == CLU_ENDED_RUNS_MAX) {
        free(agent->ended_runs[0]);
        memmove(agent->ended_runs, agent->ended_runs + 1,
                --agent->ended_count * sizeof(agent->ended_runs[0]));
        agent->ended_dropped++;
    }
    agent->ended_runs[agent->ended_count++] = strdup(task->run_name);
    clu__str_set(&task->run_name, BASE_BYTES_EMPTY);
    clu__agent_dirty(agent);
}

/* The first `count` are known to the master; some may have been dropped meanwhile. */
static void ended_runs_known(struct clu_agent *agent, size_t count)
{
    count = count > agent->ended_dropped ? count - agent->ended_dropped : 0;
    for (size_t i = 0; i < count; i++)
        free(agent->ended_runs[i]);
    agent->ended_count -= count;
    memmove(agent->ended_runs, agent->ended_runs + count,
            agent->ended_count * sizeof(agent->ended_runs[0]));
}

static void task_begin(struct clu_agent *agent, struct clu_agent_task *task)
{
    struct base_status status = ch_gate_spawn(&agent->gate, "task", clu__agent_task_fiber, task);

    if (!base_failed(status))
        return;
    /* The next full set of assignments tries again. */
    ch_warn(agent->env, "task %.*s: %s", BASE_FMT(ch_bytes_of(task->assignment->spec->name)),
            base_status_text(&status));
    base_status_free(&status);
    clu__agent_task_free(task);
}

bool clu__agent_task_held(const struct clu_agent_task *task)
{
    return task->agent->draining && task->assignment->start_order >= task->agent->drain_order;
}

/* ---- assignments ---- */

static bool assignment_same(const CLU_PB(Assignment) * a, const CLU_PB(Assignment) * b)
{
    return a->incarnation == b->incarnation && a->generation == b->generation &&
           base_bytes_eq(ch_bytes_of(a->front), ch_bytes_of(b->front));
}

static void assignments_apply(struct clu_agent *agent, const CLU_PB(Assignments) * assignments)
{
    struct clu_agent_task *task;

    TAILQ_FOREACH(task, &agent->tasks, entry)
    task->wanted = false;
    for (size_t i = 0; i < assignments->n_tasks; i++) {
        const CLU_PB(Assignment) *assignment = assignments->tasks[i];

        if (!assignment->spec)
            continue;
        task = clu__agent_task_find(agent, ch_bytes_of(assignment->spec->name), assignment->index);
        if (!task) {
            task_begin(agent, clu__agent_task_new(agent, assignment));
            continue;
        }
        task->wanted = true;
        if (!assignment_same(task->assignment, assignment))
            task->replaced = true;
        clu__agent_task_assign(task, assignment);
    }
    TAILQ_FOREACH(task, &agent->tasks, entry)
    ch_cond_broadcast(&task->changed);
    clu__agent_dirty(agent);
}

/* One stream, till it ends. */
static CH_WAITS struct base_status assignments_stream(struct clu_agent *agent)
{
    CLU_PB(WatchAssignmentsRequest) request;
    struct ch_leader_stream *stream = NULL;
    struct base_arena arena;
    struct base_status status;

    strata__clustermgr__v1__watch_assignments_request__init(&request);
    request.machine = ch_data_str(agent->config->machine);
    status = ch_leader_open(agent->master,
                            &strata__clustermgr__v1__cell__service
                                 .methods[STRATA__CLUSTERMGR__V1__CELL__WATCH_ASSIGNMENTS],
                            &request, ch_in(agent->env, STREAM_MS * CH_MS), &stream);
    if (base_failed(status))
        return status;
    base_arena_init(&arena);
    while (!base_failed(status)) {
        CLU_PB(Assignments) *event = NULL;

        base_arena_reset(&arena);
        status = ch_leader_recv(stream, &arena, (void **)&event);
        if (base_failed(status) || !event)
            break;
        if (!event->full)
            continue;
        if (*agent->cell_id && !base_bytes_eq_str(ch_bytes_of(event->cell_id), agent->cell_id)) {
            status = base_status_make(
                BASE_FAILED_PRECONDITION,
                "the clustermaster is of cell %.*s, this agent of %s: it does not obey",
                BASE_FMT(ch_bytes_of(event->cell_id)), agent->cell_id);
            break;
        }
        clu__str_set(&agent->cell_id, ch_bytes_of(event->cell_id));
        assignments_apply(agent, event);
    }
    base_arena_free(&arena);
    ch_leader_close(stream);
    return status;
}

static void assignments_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct clu_agent *agent = arg;

    while (!ch_cancelled()) {
        struct base_status status = assignments_stream(agent);

        if (base_failed(status) && status.code != BASE_CANCELLED &&
            status.code != BASE_DEADLINE_EXCEEDED && status.code != BASE_NOT_FOUND)
            ch_info(agent->env, "assignments: %s", base_status_text(&status));
        base_status_free(&status);
        if (ch_sleep_until(agent->env, ch_in(agent->env, RETRY_MS * CH_MS)) != CH_TIMEOUT)
            return;
    }
}

/* ---- reports ---- */

static CLU_PB(Task) * task_message(const struct clu_agent_task *task, struct base_arena *arena)
{
    CLU_PB(Task) *out = CLU_NEW(arena, Task, task);

    out->job = ch_data_of(base_bytes_dup(arena, ch_bytes_of(task->assignment->spec->name)));
    out->index = task->assignment->index;
    out->incarnation = task->assignment->incarnation;
    out->generation = task->assignment->generation;
    out->state = task->state;
    out->endpoint = ch_data_str(base_arena_strdup(arena, task->endpoint));
    out->admin = ch_data_str(base_arena_strdup(arena, task->admin));
    out->healthy = task->healthy;
    out->restarts = task->restarts;
    out->last_exit = ch_data_str(base_arena_strdup(arena, task->last_exit));
    out->pid = task->run ? task->pid : 0;
    out->cpu_millis_used = task->cpu_millis_used;
    out->memory_bytes_used = task->memory_bytes_used;
    return out;
}

static CLU_PB(ReportRequest) * report_message(struct clu_agent *agent, struct base_arena *arena)
{
    CLU_PB(ReportRequest) *out = CLU_NEW(arena, ReportRequest, report_request);
    struct clu_agent_task *task;
    size_t count = 0;

    out->machine = CLU_NEW(arena, Machine, machine);
    out->machine->name = ch_data_str(agent->config->machine);
    out->machine->address = ch_data_str(agent->address);
    out->machine->zone = ch_data_str(agent->common->zone);
    out->machine->rack = ch_data_str(agent->config->rack);
    out->machine->agent = ch_data_str(ch_server_address(agent->server));
    out->machine->capacity = CLU_NEW(arena, Resources, resources);
    out->machine->capacity->cpu_millis = (uint64_t)agent->config->cpu_millis;
    out->machine->capacity->memory_bytes = agent->config->memory;
    out->machine->capacity->disk_bytes = agent->config->disk;
    TAILQ_FOREACH(task, &agent->tasks, entry)
    count++;
    out->tasks = BASE_NEW_ARRAY(arena, CLU_PB(Task) *, count + 1);
    TAILQ_FOREACH(task, &agent->tasks, entry)
    if (task->wanted && !task->replaced &&
        !task->unchecked) /* what runs is what the assignment says */
        out->tasks[out->n_tasks++] = task_message(task, arena);
    agent->metrics.tasks->value = (int64_t)count;
    out->ended_runs = BASE_NEW_ARRAY(arena, ProtobufCBinaryData, agent->ended_count + 1);
    for (size_t i = 0; i < agent->ended_count; i++)
        out->ended_runs[out->n_ended_runs++] =
            ch_data_str(base_arena_strdup(arena, agent->ended_runs[i]));
    agent->ended_dropped = 0;
    return out;
}

static void reports_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct clu_agent *agent = arg;
    struct base_arena arena;
    ch_time heartbeat = 0, usage = 0;
    bool failing = false;

    base_arena_init(&arena);
    while (!ch_cancelled()) {
        struct ch_leader_options options = { 0 };
        CLU_PB(ReportReply) *reply = NULL;
        CLU_PB(ReportRequest) * request;
        struct base_status status;

        if (!agent->dirty && ch_now(agent->env) < heartbeat) {
            if (ch_cond_wait(&agent->report, heartbeat) == CH_CANCELLED)
                break;
            continue;
        }
        if (ch_now(agent->env) >= usage) {
            clu__agent_usage_read(agent);
            usage = ch_in(agent->env, USAGE_MS * CH_MS);
        }
        base_arena_reset(&arena);
        agent->dirty = false;
        heartbeat = ch_in(agent->env, HEARTBEAT_MS * CH_MS);
        options.deadline = ch_in(agent->env, REPORT_TIMEOUT_MS * CH_MS);
        request = report_message(agent, &arena);
        status = ch_leader_call(
            agent->master,
            &strata__clustermgr__v1__cell__service.methods[STRATA__CLUSTERMGR__V1__CELL__REPORT],
            request, &options, &arena, (void **)&reply);
        if (!base_failed(status))
            ended_runs_known(agent, request->n_ended_runs);
        if (base_failed(status) && !failing && !ch_cancelled())
            ch_warn(agent->env, "report: %s", base_status_text(&status));
        failing = base_failed(status);
        base_status_free(&status);
        if (!failing)
            continue;
        agent->dirty = true;
        if (ch_sleep_until(agent->env, ch_in(agent->env, RETRY_MS * CH_MS)) != CH_TIMEOUT)
            break;
    }
    base_arena_free(&arena);
}

/* ---- what it answers ---- */

static CH_WAITS struct base_status signal_task(void *self, struct ch_call *call,
                                               const void *message, void **out)
{
    struct clu_agent *agent = self;
    const CLU_PB(SignalTaskRequest) *request = message;
    CLU_PB(SignalTaskReply) *reply =
        CLU_NEW(ch_call_arena(call), SignalTaskReply, signal_task_reply);
    struct clu_agent_task *task =
        clu__agent_task_find(agent, ch_bytes_of(request->job), request->index);

    if (!task || !task->run || task->run->exited)
        return base_status_make(BASE_NOT_FOUND, "task %s/%u has no process on this machine",
                                base_bytes_show(ch_call_arena(call), ch_bytes_of(request->job), 64),
                                request->index);
    if (request->signal <= 0 || request->signal >= NSIG)
        return base_status_make(BASE_INVALID_ARGUMENT, "signal: %d is none", request->signal);
    reply->pid = task->pid;
    *out = reply;
    return ch_process_signal(task->run->process, request->signal);
}

static CH_WAITS struct base_status drain(void *self, struct ch_call *call, const void *message,
                                         void **out)
{
    struct clu_agent *agent = self;
    const CLU_PB(DrainRequest) *request = message;
    CLU_PB(DrainReply) *reply = CLU_NEW(ch_call_arena(call), DrainReply, drain_reply);
    struct clu_agent_task *task;
    bool running = true;

    if (!agent->draining || request->start_order < agent->drain_order)
        agent->drain_order = request->start_order;
    agent->draining = true;
    TAILQ_FOREACH(task, &agent->tasks, entry)
    ch_cond_broadcast(&task->changed);
    while (running) {
        running = false;
        reply->stopped = reply->start_order_max = 0;
        TAILQ_FOREACH(task, &agent->tasks, entry)
        {
            bool held = clu__agent_task_held(task);

            running |= held && task->run;
            reply->stopped += held;
            if (task->assignment->start_order > reply->start_order_max)
                reply->start_order_max = task->assignment->start_order;
        }
        if (running &&
            ch_sleep_until(agent->env, ch_in(agent->env, DRAIN_POLL_MS * CH_MS)) == CH_CANCELLED)
            return base_status_make(BASE_CANCELLED, "drain: tasks are still stopping");
    }
    *out = reply;
    return BASE_STATUS_OK;
}

/* ---- start and stop ---- */

static char *host_of(const char *address)
{
    const char *colon = strrchr(address, ':');

    return strndup(address, colon ? (size_t)(colon - address) : strlen(address));
}

static void metrics_init(struct clu_agent *agent)
{
    struct ch_env *env = agent->env;

    agent->metrics.starts =
        ch_counter(env, "strata_clusteragent_task_starts_total", "", "Processes started.");
    agent->metrics.exits =
        ch_counter(env, "strata_clusteragent_task_exits_total", "", "Processes that ended.");
    agent->metrics.adoptions = ch_counter(env, "strata_clusteragent_task_adoptions_total", "",
                                          "Running processes taken over.");
    agent->metrics.health_failures =
        ch_counter(env, "strata_clusteragent_health_failures_total", "", "Health checks failed.");
    agent->metrics.tasks = ch_gauge(env, "strata_clusteragent_tasks", "", "Tasks on this machine.");
}

static CH_WAITS void agent_stop(void *self)
{
    struct clu_agent *agent = self;

    ch_gate_stop(&agent->gate);
    while (!TAILQ_EMPTY(&agent->tasks))
        clu__agent_task_free(TAILQ_FIRST(&agent->tasks));
    if (agent->master)
        ch_leader_free(agent->master);
    free(agent->dir);
    free(agent->address);
    free(agent->bin_dir);
    free(agent->cell_id);
    for (size_t i = 0; i < agent->ended_count; i++)
        free(agent->ended_runs[i]);
    free(agent);
}

static CH_WAITS struct base_status agent_start(const struct ch_service_start *start, void **self)
{
    struct clu_agent *agent = calloc(1, sizeof(*agent));

    if (!agent)
        abort();
    agent->env = start->env;
    agent->config = start->config;
    agent->common = start->common;
    agent->server = start->server;
    agent->dir = strdup(start->common->data_dir);
    agent->address = host_of(start->common->listen);
    agent->bin_dir = strdup(agent->config->bin_dir);
    clu__str_set(&agent->cell_id, BASE_BYTES_EMPTY);
    TAILQ_INIT(&agent->tasks);
    ch_gate_init(&agent->gate, agent->env, "clusteragent");
    ch_cond_init(&agent->report);
    ch_mutex_init(&agent->saving);
    metrics_init(agent);
    *self = agent;
    if (!*start->common->names || !*start->common->data_dir || agent->dir[0] != '/' ||
        agent->bin_dir[0] != '/') {
        agent_stop(agent);
        return base_status_make(
            BASE_INVALID_ARGUMENT,
            "--names, --data-dir and --bin-dir must be given, folders as whole paths");
    }
    agent->master = ch_leader_new(agent->env, start->common->names, NULL);
    ch_server_add_service(start->server, &strata__clustermgr__v1__agent__service);
    ch_server_handle(
        start->server,
        &strata__clustermgr__v1__agent__service.methods[STRATA__CLUSTERMGR__V1__AGENT__SIGNAL_TASK],
        signal_task, agent);
    ch_server_handle(
        start->server,
        &strata__clustermgr__v1__agent__service.methods[STRATA__CLUSTERMGR__V1__AGENT__READ_LOG],
        clu__agent_read_log, agent);
    ch_server_handle(
        start->server,
        &strata__clustermgr__v1__agent__service.methods[STRATA__CLUSTERMGR__V1__AGENT__DRAIN],
        drain, agent);
    return BASE_STATUS_OK;
}

/* After it listens: takes over what an earlier agent left running, then asks what to do. */
static CH_WAITS struct base_status agent_serve(void *self)
{
    static const struct {
        const char *name;
        ch_fiber_fn *fn;
    } fibers[] = { { "assignments", assignments_fiber },
                   { "reports", reports_fiber },
                   { "logs", clu__agent_logs_fiber } };
    struct clu_agent *agent = self;
    struct clu_agent_task *task, *next;
    struct base_status status = clu__agent_load(agent);

    if (base_failed(status))
        return status;
    clu__agent_orphans_kill(agent);
    TAILQ_FOREACH_SAFE(task, &agent->tasks, entry, next)
    task_begin(agent, task);
    for (size_t i = 0; !base_failed(status) && i < sizeof(fibers) / sizeof(fibers[0]); i++)
        status = ch_gate_spawn(&agent->gate, fibers[i].name, fibers[i].fn, agent);
    clu__agent_dirty(agent);
    ch_server_set_serving(agent->server, true);
    return status;
}

const struct ch_service_def clu_agent_def = {
    .name = "clusteragent",
    .about = "runs the tasks of one machine: starts, watches, restarts and stops them",
    .config = { keys, sizeof(keys) / sizeof(keys[0]) },
    .config_size = sizeof(struct clu_agent_config),
    .start = agent_start,
    .serve = agent_serve,
    .stop = agent_stop,
};
