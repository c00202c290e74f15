/* cell.c: strata.clustermgr.v1.Cell: jobs, tasks, machines and why for people and tools; reports
 * and assignments for agents. A report only becomes a command when something in it is new: a
 * heartbeat costs no write. */
#include <inttypes.h>

#include "clustermgr/job.h"
#include "master.h"
#include "schedule.h"

enum {
    HEARTBEAT_MS = 500,
    ASSIGNMENTS_HEARTBEAT_MS = 2000,
    REPORT_TASKS_MAX = 4096,
    REPORT_RUNS_MAX = 1024,
    START_ORDER_MAX = 16
};

static CLU_PB(Command) *
    command_new(struct base_arena *arena, CLU_PB(Command__WhatCase) what, void *request)
{
    CLU_PB(Command) *command = CLU_NEW(arena, Command, command);

    command->what_case = what;
    command->submit_job = request; /* one union of pointers */
    return command;
}

/* ---- jobs ---- */

static struct base_status front_check(const struct clu_master *master, const CLU_PB(JobSpec) * spec)
{
    if (spec->front.len == 0)
        return BASE_STATUS_OK;
    for (size_t i = 0; i < master->front_count; i++)
        if (base_bytes_eq_str(ch_bytes_of(spec->front), master->fronts[i].name))
            return BASE_STATUS_OK;
    return base_status_make(BASE_INVALID_ARGUMENT,
                            "job %.*s: front: the cell has no front door \"%.*s\" (see --fronts)",
                            BASE_FMT(ch_bytes_of(spec->name)), BASE_FMT(ch_bytes_of(spec->front)));
}

static CH_WAITS struct base_status submit_job(void *self, struct ch_call *call, const void *message,
                                              void **out)
{
    struct clu_master *master = self;
    const CLU_PB(SubmitJobRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    CLU_PB(SubmitJobReply) *reply = CLU_NEW(arena, SubmitJobReply, submit_job_reply);
    CLU_PB(CommandReply) *done = NULL;
    struct base_status status = clu_job_check(request->spec);

    if (!base_failed(status))
        status = front_check(master, request->spec);
    if (!base_failed(status))
        status = clu__propose(
            master,
            command_new(arena, STRATA__CLUSTERMGR__V1__COMMAND__WHAT_SUBMIT_JOB, (void *)request),
            clu__propose_deadline(master, call), arena, &done);
    if (base_failed(status))
        return status;
    reply->generation = done->number;
    *out = reply;
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status update_job(void *self, struct ch_call *call, const void *message,
                                              void **out)
{
    struct clu_master *master = self;
    const CLU_PB(UpdateJobRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    CLU_PB(UpdateJobReply) *reply = CLU_NEW(arena, UpdateJobReply, update_job_reply);
    CLU_PB(CommandReply) *done = NULL;
    struct base_status status = clu_job_check(request->spec);

    if (!base_failed(status))
        status = front_check(master, request->spec);
    if (!base_failed(status))
        status = clu__propose(
            master,
            command_new(arena, STRATA__CLUSTERMGR__V1__COMMAND__WHAT_UPDATE_JOB, (void *)request),
            clu__propose_deadline(master, call), arena, &done);
    if (base_failed(status))
        return status;
    reply->generation = done->number;
    *out = reply;
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status kill_job(void *self, struct ch_call *call, const void *message,
                                            void **out)
{
    struct clu_master *master = self;
    struct base_arena *arena = ch_call_arena(call);
    CLU_PB(CommandReply) *done = NULL;

    *out = CLU_NEW(arena, KillJobReply, kill_job_reply);
    return clu__propose(
        master, command_new(arena, STRATA__CLUSTERMGR__V1__COMMAND__WHAT_KILL_JOB, (void *)message),
        clu__propose_deadline(master, call), arena, &done);
}

static CH_WAITS struct base_status list_jobs(void *self, struct ch_call *call, const void *message,
                                             void **out)
{
    struct clu_master *master = self;
    struct base_arena *arena = ch_call_arena(call);
    CLU_PB(ListJobsReply) *reply = CLU_NEW(arena, ListJobsReply, list_jobs_reply);
    struct clu_job *job;
    struct base_status status = clu__barrier(master, call);

    if (base_failed(status))
        return status;
    reply->jobs = BASE_NEW_ARRAY(arena, CLU_PB(Job) *, master->state->job_count + 1);
    RB_FOREACH(job, clu_jobs, &master->state->jobs)
    {
        CLU_PB(Job) *record = reply->jobs[reply->n_jobs++] = CLU_NEW(arena, Job, job);

        record->spec = (void *)ch_proto_copy(&job->spec->base, arena);
        record->generation = job->generation;
        for (uint32_t i = 0; i < job->spec->tasks; i++) {
            record->tasks_running += job->tasks[i]->state == CLU_TASK(RUNNING);
            record->tasks_healthy +=
                job->tasks[i]->state == CLU_TASK(RUNNING) && job->tasks[i]->healthy;
        }
    }
    *out = reply;
    return BASE_STATUS_OK;
}

/* ---- tasks ---- */

static ProtobufCBinaryData copy_str(struct base_arena *arena, const char *text)
{
    return ch_data_str(base_arena_strdup(arena, text));
}

static CLU_PB(Task) * task_message(const struct clu_master *master, const struct clu_task *task,
                                   struct base_arena *arena)
{
    CLU_PB(Task) *out = CLU_NEW(arena, Task, task);

    out->job = copy_str(arena, task->job->name);
    out->index = task->index;
    out->machine = copy_str(arena, task->machine ? task->machine->name : "");
    out->incarnation = task->incarnation;
    out->generation = task->generation;
    out->state = task->state;
    out->endpoint = copy_str(arena, task->endpoint);
    out->admin = copy_str(arena, task->admin);
    out->healthy = task->healthy;
    out->restarts = task->restarts;
    out->last_exit = copy_str(arena, task->last_exit);
    out->pid = task->pid;
    out->reason = copy_str(arena, task->reason);
    out->since_us = task->since_us;
    out->pinned = task->job->spec->pinned;
    out->front = ch_data_str(clu__front_of(master, task));
    out->cpu_millis_used = task->cpu_millis_used;
    out->memory_bytes_used = task->memory_bytes_used;
    return out;
}

static CH_WAITS struct base_status list_tasks(void *self, struct ch_call *call, const void *message,
                                              void **out)
{
    struct clu_master *master = self;
    const CLU_PB(ListTasksRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    CLU_PB(ListTasksReply) *reply = CLU_NEW(arena, ListTasksReply, list_tasks_reply);
    struct clu_job *job;
    size_t count = 0;
    struct base_status status = clu__barrier(master, call);

    if (base_failed(status))
        return status;
    RB_FOREACH(job, clu_jobs, &master->state->jobs)
    count += job->spec->tasks;
    reply->tasks = BASE_NEW_ARRAY(arena, CLU_PB(Task) *, count + 1);
    RB_FOREACH(job, clu_jobs, &master->state->jobs)
    {
        if (request->job.len > 0 && !base_bytes_eq_str(ch_bytes_of(request->job), job->name))
            continue;
        for (uint32_t i = 0; i < job->spec->tasks; i++)
            reply->tasks[reply->n_tasks++] = task_message(master, job->tasks[i], arena);
    }
    *out = reply;
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status why(void *self, struct ch_call *call, const void *message,
                                       void **out)
{
    struct clu_master *master = self;
    const CLU_PB(WhyRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    CLU_PB(WhyReply) *reply = CLU_NEW(arena, WhyReply, why_reply);
    const char *name = clu_str(arena, request->job), **lines = NULL;
    struct clu_task *task;
    struct clu_view view;
    size_t subject = 0, count = 0;
    struct base_status status = clu__barrier(master, call);

    if (base_failed(status))
        return status;
    task = clu__task_find(master->state, name, request->index);
    if (!task)
        return base_status_make(BASE_NOT_FOUND, "there is no task %s/%" PRIu32,
                                base_bytes_show(arena, ch_bytes_of(request->job), 64),
                                request->index);
    clu__view_make(master, arena, &view, task, &subject);
    clu_schedule_explain(&view, subject, arena, &lines, &count);
    reply->task = task_message(master, task, arena);
    reply->machines = BASE_NEW_ARRAY(arena, ProtobufCBinaryData, count + 1);
    for (size_t i = 0; i < count; i++)
        reply->machines[reply->n_machines++] =
            copy_str(arena, lines[i]); /* names in it are the state's */
    *out = reply;
    return BASE_STATUS_OK;
}

/* ---- machines ---- */

static CLU_PB(Machine) * machine_message(struct clu_master *master, struct clu_machine *machine,
                                         struct base_arena *arena)
{
    CLU_PB(Machine) *out = CLU_NEW(arena, Machine, machine);
    struct clu_job *job;

    out->name = copy_str(arena, machine->name);
    out->address = copy_str(arena, machine->address);
    out->zone = copy_str(arena, machine->zone);
    out->rack = copy_str(arena, machine->rack);
    out->agent = copy_str(arena, machine->agent);
    out->up = machine->up;
    out->heard_ms_ago = machine->heard_at ? (ch_now(master->env) - machine->heard_at) / CH_MS : -1;
    out->capacity = CLU_NEW(arena, Resources, resources);
    out->used = CLU_NEW(arena, Resources, resources);
    out->capacity->cpu_millis = machine->capacity.cpu_millis;
    out->capacity->memory_bytes = machine->capacity.memory_bytes;
    out->capacity->disk_bytes = machine->capacity.disk_bytes;
    RB_FOREACH(job, clu_jobs, &master->state->jobs)
    {
        for (uint32_t i = 0; i < job->spec->tasks; i++) {
            const CLU_PB(Resources) *resources = job->spec->resources;

            if (job->tasks[i]->machine != machine)
                continue;
            out->tasks++;
            if (!resources)
                continue;
            out->used->cpu_millis += resources->cpu_millis;
            out->used->memory_bytes += resources->memory_bytes;
            out->used->disk_bytes += resources->disk_bytes;
        }
    }
    return out;
}

static CH_WAITS struct base_status list_machines(void *self, struct ch_call *call,
                                                 const void *message, void **out)
{
    struct clu_master *master = self;
    struct base_arena *arena = ch_call_arena(call);
    CLU_PB(ListMachinesReply) *reply = CLU_NEW(arena, ListMachinesReply, list_machines_reply);
    struct clu_machine *machine;
    struct base_status status = clu__barrier(master, call);

    if (base_failed(status))
        return status;
    reply->cell = copy_str(arena, master->state->cell);
    reply->cell_id = copy_str(arena, master->state->cell_id);
    reply->machines = BASE_NEW_ARRAY(arena, CLU_PB(Machine) *, master->state->machine_count + 1);
    RB_FOREACH(machine, clu_machines, &master->state->machines)
    reply->machines[reply->n_machines++] = machine_message(master, machine, arena);
    *out = reply;
    return BASE_STATUS_OK;
}

/* ---- agents: reports ---- */

static bool str_same(const char *have, ProtobufCBinaryData now)
{
    return base_bytes_eq_str(ch_bytes_of(now), have);
}

static bool machine_new(const struct clu_machine *machine, const CLU_PB(Machine) * now)
{
    return !machine || !machine->up || !str_same(machine->address, now->address) ||
           !str_same(machine->zone, now->zone) || !str_same(machine->rack, now->rack) ||
           !str_same(machine->agent, now->agent) ||
           machine->capacity.cpu_millis != now->capacity->cpu_millis ||
           machine->capacity.memory_bytes != now->capacity->memory_bytes ||
           machine->capacity.disk_bytes != now->capacity->disk_bytes;
}

/* Whether the state is to take something from this report; what is not part of the state is taken
 * here. */
static bool task_new(struct clu_master *master, const struct clu_machine *machine,
                     const CLU_PB(Task) * now, struct base_arena *arena)
{
    struct clu_task *task = clu__task_find(master->state, clu_str(arena, now->job), now->index);

    if (!task || !machine || task->machine != machine || task->incarnation != now->incarnation ||
        task->generation != now->generation)
        return false;
    task->cpu_millis_used = now->cpu_millis_used;
    task->memory_bytes_used = now->memory_bytes_used;
    return task->state != now->state || task->healthy != (bool)now->healthy ||
           task->restarts != now->restarts || task->pid != now->pid ||
           !str_same(task->endpoint, now->endpoint) || !str_same(task->admin, now->admin) ||
           !str_same(task->last_exit, now->last_exit);
}

/* Those of the ended processes that have a session still. */
static void ended_runs_new(struct clu_master *master, const CLU_PB(ReportRequest) * request,
                           struct base_arena *arena, CLU_PB(ReportRequest) * news)
{
    struct clu_session *session;

    news->ended_runs = BASE_NEW_ARRAY(arena, ProtobufCBinaryData, request->n_ended_runs + 1);
    for (size_t i = 0; i < request->n_ended_runs; i++) {
        bool any = false;

        RB_FOREACH(session, clu_sessions, &master->state->sessions)
        any |= clu__session_of_run(session, ch_bytes_of(request->ended_runs[i]));
        if (any)
            news->ended_runs[news->n_ended_runs++] = request->ended_runs[i];
    }
}

static struct base_status report_check(const CLU_PB(ReportRequest) * request)
{
    const CLU_PB(Machine) *machine = request->machine;

    if (!machine || machine->name.len == 0 || machine->name.len > 64 || machine->address.len == 0 ||
        !machine->capacity)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "machine: its name, address and capacity must be given");
    if (machine->address.len > 256 || machine->zone.len > 64 || machine->rack.len > 64 ||
        machine->agent.len > 256)
        return base_status_make(BASE_INVALID_ARGUMENT, "machine: a text is too long");
    if (request->n_ended_runs > REPORT_RUNS_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "ended_runs: %zu, at most %d",
                                request->n_ended_runs, REPORT_RUNS_MAX);
    if (request->n_tasks > REPORT_TASKS_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "tasks: %zu, at most %d", request->n_tasks,
                                REPORT_TASKS_MAX);
    for (size_t i = 0; i < request->n_tasks; i++)
        if (request->tasks[i]->endpoint.len > 256 || request->tasks[i]->admin.len > 256 ||
            request->tasks[i]->last_exit.len > 1024)
            return base_status_make(BASE_INVALID_ARGUMENT, "tasks[%zu]: a text is too long", i);
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status report(void *self, struct ch_call *call, const void *message,
                                          void **out)
{
    struct clu_master *master = self;
    const CLU_PB(ReportRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    CLU_PB(ReportReply) *reply = CLU_NEW(arena, ReportReply, report_reply);
    CLU_PB(ReportRequest) *news = CLU_NEW(arena, ReportRequest, report_request);
    CLU_PB(CommandReply) *done = NULL;
    struct clu_machine *machine;
    const char *name;
    struct base_status status = report_check(request);

    if (!base_failed(status)) /* one that is deposed must not let machines think they are heard */
        status = clu__barrier(master, call);
    if (base_failed(status))
        return status;
    name = clu_str(arena, request->machine->name);
    machine = clu__machine_find(master->state, name);
    if (machine)
        clu__machine_heard(master, machine);
    news->machine = request->machine;
    news->tasks = BASE_NEW_ARRAY(arena, CLU_PB(Task) *, request->n_tasks + 1);
    for (size_t i = 0; i < request->n_tasks; i++)
        if (task_new(master, machine, request->tasks[i], arena))
            news->tasks[news->n_tasks++] = request->tasks[i];
    ended_runs_new(master, request, arena, news);
    if (news->n_tasks > 0 || news->n_ended_runs > 0 || machine_new(machine, request->machine))
        status = clu__propose(
            master, command_new(arena, STRATA__CLUSTERMGR__V1__COMMAND__WHAT_REPORT, news),
            clu__propose_deadline(master, call), arena, &done);
    machine = clu__machine_find(master->state, name);
    if (machine)
        clu__machine_heard(master, machine);
    reply->heartbeat_ms = HEARTBEAT_MS;
    *out = reply;
    return status;
}

/* ---- agents: assignments ---- */

/* Depth in `after`: 0 for a job that comes after none. A circle ends at START_ORDER_MAX. */
static uint32_t start_order(const struct clu_master *master, const CLU_PB(JobSpec) * spec,
                            uint32_t depth, struct base_arena *arena)
{
    uint32_t order = 0;

    for (size_t i = 0; i < spec->n_after && depth < START_ORDER_MAX; i++) {
        const struct clu_job *job = clu__job_find(master->state, clu_str(arena, spec->after[i]));
        uint32_t below = job ? start_order(master, job->spec, depth + 1, arena) + 1 : 0;

        order = below > order ? below : order;
    }
    return order < START_ORDER_MAX ? order : START_ORDER_MAX;
}

static void assignments_fill(struct clu_master *master, const struct clu_machine *machine,
                             struct base_arena *arena, CLU_PB(Assignments) * out)
{
    struct clu_job *job;
    size_t count = 0;

    RB_FOREACH(job, clu_jobs, &master->state->jobs)
    for (uint32_t i = 0; i < job->spec->tasks; i++)
        count += job->tasks[i]->machine == machine;
    out->full = true;
    out->cell = copy_str(arena, master->state->cell);
    out->cell_id = copy_str(arena, master->state->cell_id);
    out->tasks = BASE_NEW_ARRAY(arena, CLU_PB(Assignment) *, count + 1);
    RB_FOREACH(job, clu_jobs, &master->state->jobs)
    {
        CLU_PB(JobSpec) *spec = NULL;

        for (uint32_t i = 0; i < job->spec->tasks; i++) {
            const struct clu_task *task = job->tasks[i];
            CLU_PB(Assignment) * record;

            if (task->machine != machine)
                continue;
            if (!spec)
                spec = (void *)ch_proto_copy(&job->spec->base, arena);
            record = out->tasks[out->n_tasks++] = CLU_NEW(arena, Assignment, assignment);
            record->spec = spec;
            record->index = i;
            record->incarnation = task->incarnation;
            record->generation = task->generation;
            record->front = copy_str(arena, clu__front_of(master, task));
            record->start_order = start_order(master, spec, 0, arena);
        }
    }
}

static CH_WAITS struct base_status watch_assignments(void *self, struct ch_call *call)
{
    struct clu_master *master = self;
    CLU_PB(WatchAssignmentsRequest) *request = NULL;
    struct base_arena arena;
    const char *name;
    uint64_t sent = 0, term;
    bool any = false;
    struct base_status status = ch_call_recv(call, NULL, (void **)&request);

    if (base_failed(status))
        return status;
    if (!request)
        return base_status_make(BASE_INVALID_ARGUMENT, "WatchAssignments takes one request");
    name = clu_str(ch_call_arena(call), request->machine);
    base_arena_init(&arena);
    status = clu__barrier(master, call);
    term = master->term;
    while (!base_failed(status) && !clu__stopping(master) && master->term == term) {
        const struct clu_machine *machine = clu__machine_find(master->state, name);
        ch_time heartbeat = ch_in(master->env, ASSIGNMENTS_HEARTBEAT_MS * CH_MS);
        CLU_PB(Assignments) event;

        if (!machine) {
            status = base_status_make(BASE_NOT_FOUND, "no machine %s has reported", name);
            break;
        }
        base_arena_reset(&arena);
        strata__clustermgr__v1__assignments__init(&event);
        if (!any || machine->changed > sent)
            assignments_fill(master, machine, &arena, &event);
        sent = master->state->version;
        any = true;
        status = ch_call_send(call, &event);
        while (!base_failed(status) && master->term == term && !clu__stopping(master) &&
               ch_now(master->env) < heartbeat) {
            machine = clu__machine_find(master->state, name); /* after each wait */
            if (!machine || machine->changed > sent)
                break;
            if (clu__changed_wait(master, heartbeat) == CH_CANCELLED)
                status = ch_outcome_status(CH_CANCELLED, "watch assignments");
        }
    }
    base_arena_free(&arena);
    if (!base_failed(status))
        status = master->term == term
                     ? base_status_make(BASE_UNAVAILABLE, "the clustermaster stops")
                     : clu__not_leader(master);
    return status;
}

void clu__cell_serve(struct clu_master *master, struct ch_server *server)
{
    static const struct {
        int method;
        ch_unary_fn *fn;
    } methods[] = {
        { STRATA__CLUSTERMGR__V1__CELL__SUBMIT_JOB, submit_job },
        { STRATA__CLUSTERMGR__V1__CELL__UPDATE_JOB, update_job },
        { STRATA__CLUSTERMGR__V1__CELL__KILL_JOB, kill_job },
        { STRATA__CLUSTERMGR__V1__CELL__LIST_JOBS, list_jobs },
        { STRATA__CLUSTERMGR__V1__CELL__LIST_TASKS, list_tasks },
        { STRATA__CLUSTERMGR__V1__CELL__LIST_MACHINES, list_machines },
        { STRATA__CLUSTERMGR__V1__CELL__WHY, why },
        { STRATA__CLUSTERMGR__V1__CELL__REPORT, report },
    };

    ch_server_add_service(server, &strata__clustermgr__v1__cell__service);
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        ch_server_handle(server, &strata__clustermgr__v1__cell__service.methods[methods[i].method],
                         methods[i].fn, master);
    ch_server_handle_stream(server,
                            &strata__clustermgr__v1__cell__service
                                 .methods[STRATA__CLUSTERMGR__V1__CELL__WATCH_ASSIGNMENTS],
                            watch_assignments, master);
}
