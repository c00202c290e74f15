/* state_cell.c: the commands of jobs, tasks and machines.
 *
 * Invariants
 * 1. A task is on at most one machine; each placement has an incarnation of its own, and a report
 * or decision about another incarnation (or, for reports, another generation) changes nothing.
 * 2. A pinned task that was placed has a pin, which outlives its job.
 * 3. A task's endpoint node is unhealthy unless its agent, on a machine that is up, last said
 * that it runs and is healthy. */
#include "state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- endpoints as names ---- */

static void task_path(const struct clu_state *state, const struct clu_task *task,
                      char path[CLU_PATH_MAX])
{
    snprintf(path, CLU_PATH_MAX, "/%s/%s/%" PRIu32, state->cell, task->job->name, task->index);
}

static void endpoint_withdraw(struct clu_state *state, const struct clu_task *task)
{
    char path[CLU_PATH_MAX];
    struct clu_node *node;

    task_path(state, task, path);
    node = clu__node_find(state, path);
    if (!node || !node->task)
        return;
    clu__path_changed(state, path);
    clu__node_remove(state, node);
}

/* Brings the task's node in line with the task; a new version only when something is new. */
static void endpoint_publish(struct clu_state *state, const struct clu_task *task)
{
    char path[CLU_PATH_MAX];
    struct base_bytes value = base_bytes_str(task->endpoint);
    bool unhealthy = !task->healthy || task->state != CLU_TASK(RUNNING);
    struct clu_node *node;

    if (value.len == 0) {
        endpoint_withdraw(state, task);
        return;
    }
    task_path(state, task, path);
    node = clu__node_find(state, path);
    if (node && node->task && node->unhealthy == unhealthy &&
        base_bytes_eq(base_buf_bytes(&node->value), value))
        return;
    if (!node)
        node = clu__node_make(state, path);
    node->task = true;
    node->unhealthy = unhealthy;
    base_buf_clear(&node->value);
    base_buf_put_bytes(&node->value, value);
    node->version = state->version;
    clu__path_changed(state, path);
}

static void assignments_changed(struct clu_state *state, struct clu_machine *machine)
{
    if (machine)
        machine->changed = state->version;
}

/* ---- jobs ---- */

/* Makes job->tasks as many as the specification says. */
static void tasks_resize(struct clu_state *state, struct clu_job *job, uint32_t before,
                         int64_t wall_us)
{
    uint32_t count = job->spec->tasks;

    for (uint32_t i = count; i < before; i++) {
        endpoint_withdraw(state, job->tasks[i]);
        assignments_changed(state, job->tasks[i]->machine);
        clu__task_free(job->tasks[i]);
    }
    job->tasks = realloc(job->tasks, (count + 1) * sizeof(*job->tasks));
    if (!job->tasks)
        abort();
    for (uint32_t i = before; i < count; i++) {
        struct clu_task *task = job->tasks[i] = clu__task_new(job, i);

        task->incarnation = state->version;
        task->since_us = wall_us;
    }
}

static void submit_job(struct clu_state *state, const CLU_PB(SubmitJobRequest) * request,
                       int64_t wall_us, struct clu__result *result)
{
    const char *name = clu_str(result->arena, request->spec->name);
    struct clu_job *job = clu__job_find(state, name);

    if (job) {
        result->number = job->generation;
        if (!ch_proto_equal(&job->spec->base, &request->spec->base))
            clu__fail(result, BASE_ALREADY_EXISTS,
                      "job %s is there with another specification: update it, or kill it first",
                      name);
        return;
    }
    if (state->job_count >= CLU_JOBS_MAX) {
        clu__fail(result, BASE_RESOURCE_EXHAUSTED, "the cell has %d jobs already", CLU_JOBS_MAX);
        return;
    }
    result->number = state->cell_changed = clu__change(state);
    job = clu__job_make(state, request->spec, result->number);
    tasks_resize(state, job, 0, wall_us);
}

static void update_job(struct clu_state *state, CLU_PB(UpdateJobRequest) * request, int64_t wall_us,
                       struct clu__result *result)
{
    const char *name = clu_str(result->arena, request->spec->name);
    struct clu_job *job = clu__job_find(state, name);
    uint32_t before, wanted = request->spec->tasks;

    if (!job) {
        clu__fail(result, BASE_NOT_FOUND, "there is no job %s", name);
        return;
    }
    before = job->spec->tasks;
    request->spec->tasks = before;
    if (!ch_proto_equal(&job->spec->base, &request->spec->base)) {
        job->generation = state->cell_changed = clu__change(state);
    } else if (wanted == before) {
        result->number = job->generation;
        return;
    } else {
        state->cell_changed = clu__change(state);
    }
    request->spec->tasks = wanted;
    clu__job_spec_set(job, request->spec);
    tasks_resize(state, job, before, wall_us);
    result->number = job->generation;
}

static void kill_job(struct clu_state *state, const CLU_PB(KillJobRequest) * request,
                     struct clu__result *result)
{
    const char *name = clu_str(result->arena, request->name);
    struct clu_job *job = clu__job_find(state, name);

    if (!job) {
        clu__fail(result, BASE_NOT_FOUND, "there is no job %s", name);
        return;
    }
    state->cell_changed = clu__change(state);
    for (uint32_t i = 0; i < job->spec->tasks; i++) {
        endpoint_withdraw(state, job->tasks[i]);
        assignments_changed(state, job->tasks[i]->machine);
    }
    clu__job_remove(state, job);
}

/* ---- machines ---- */

static void task_report(struct clu_state *state, const struct clu_machine *machine,
                        const CLU_PB(Task) * report, int64_t wall_us, struct base_arena *arena)
{
    struct clu_task *task = clu__task_find(state, clu_str(arena, report->job), report->index);

    if (!task || task->machine != machine || task->incarnation != report->incarnation ||
        task->generation != report->generation)
        return;
    if (task->state != report->state)
        task->since_us = wall_us;
    task->state = report->state;
    task->healthy = report->healthy;
    task->restarts = report->restarts;
    task->pid = report->pid;
    clu__str_set(&task->endpoint, ch_bytes_of(report->endpoint));
    clu__str_set(&task->admin, ch_bytes_of(report->admin));
    clu__str_set(&task->last_exit, ch_bytes_of(report->last_exit));
    endpoint_publish(state, task);
}

static void report(struct clu_state *state, const CLU_PB(ReportRequest) * request, int64_t wall_us,
                   struct clu__result *result)
{
    const char *name = clu_str(result->arena, request->machine->name);
    struct clu_machine *machine = clu__machine_find(state, name);

    if (!machine && state->machine_count >= CLU_MACHINES_MAX) {
        clu__fail(result, BASE_RESOURCE_EXHAUSTED, "the cell has %d machines already",
                  CLU_MACHINES_MAX);
        return;
    }
    state->cell_changed = clu__change(state);
    if (!machine)
        machine = clu__machine_make(state, base_bytes_str(name));
    clu__machine_set(machine, request->machine);
    machine->up = true;
    for (size_t i = 0; i < request->n_tasks; i++)
        task_report(state, machine, request->tasks[i], wall_us, result->arena);
    for (size_t i = 0; i < request->n_ended_runs; i++) {
        struct clu_session *session, *next;

        RB_FOREACH_SAFE(session, clu_sessions, &state->sessions, next)
        if (clu__session_of_run(session, ch_bytes_of(request->ended_runs[i])))
            clu__session_end(state, session);
    }
}

static void machine_down(struct clu_state *state, const CLU_PB(MachineDown) * request,
                         int64_t wall_us, struct clu__result *result)
{
    const char *name = clu_str(result->arena, request->name);
    struct clu_machine *machine = clu__machine_find(state, name);
    struct clu_job *job;

    if (!machine || !machine->up)
        return;
    state->cell_changed = clu__change(state);
    machine->up = false;
    RB_FOREACH(job, clu_jobs, &state->jobs)
    {
        for (uint32_t i = 0; i < job->spec->tasks; i++) {
            struct clu_task *task = job->tasks[i];

            if (task->machine != machine)
                continue;
            task->state = CLU_TASK(LOST);
            task->healthy = false;
            task->since_us = wall_us;
            endpoint_publish(state, task);
        }
    }
}

/* ---- plans ---- */

static void place(struct clu_state *state, struct clu_task *task, struct clu_machine *machine,
                  int64_t wall_us)
{
    endpoint_withdraw(state, task);
    assignments_changed(state, task->machine);
    task->machine = machine;
    task->incarnation = state->version;
    task->generation = task->job->generation;
    task->state = CLU_TASK(ASSIGNED);
    task->healthy = false;
    task->restarts = 0;
    task->pid = 0;
    task->since_us = wall_us;
    clu__str_set(&task->endpoint, BASE_BYTES_EMPTY);
    clu__str_set(&task->admin, BASE_BYTES_EMPTY);
    assignments_changed(state, machine);
    if (task->job->spec->pinned)
        clu__pin_set(state, task->job->name, task->index, machine->name);
}

static void decision_apply(struct clu_state *state, const CLU_PB(Decision) * decision,
                           int64_t wall_us, struct base_arena *arena)
{
    struct clu_task *task = clu__task_find(state, clu_str(arena, decision->job), decision->index);
    struct clu_machine *machine = clu__machine_find(state, clu_str(arena, decision->machine));
    const char *pin;

    if (!task || task->incarnation != decision->incarnation)
        return;
    switch (decision->kind) {
    case STRATA__CLUSTERMGR__V1__DECISION__KIND__PLACE:
        pin = task->job->spec->pinned ? clu__pin_find(state, task->job->name, task->index) : NULL;
        if (!machine || !machine->up || (pin && strcmp(pin, machine->name) != 0))
            return;
        place(state, task, machine, wall_us);
        break;
    case STRATA__CLUSTERMGR__V1__DECISION__KIND__ADVANCE:
        if (task->generation == task->job->generation || !task->machine)
            return;
        task->generation = task->job->generation;
        task->state = CLU_TASK(ASSIGNED);
        task->healthy = false;
        task->since_us = wall_us;
        assignments_changed(state, task->machine);
        endpoint_publish(state, task);
        break;
    default:
        break;
    }
    clu__str_set(&task->reason, ch_bytes_of(decision->reason));
}

static void plan(struct clu_state *state, const CLU_PB(Plan) * request, int64_t wall_us,
                 struct clu__result *result)
{
    for (size_t i = 0; i < request->n_decisions; i++) {
        state->cell_changed = clu__change(state); /* each placement its own incarnation */
        decision_apply(state, request->decisions[i], wall_us, result->arena);
    }
}

bool clu__apply_cell(struct clu_state *state, const CLU_PB(Command) * command,
                     struct clu__result *result)
{
    switch (command->what_case) {
    case STRATA__CLUSTERMGR__V1__COMMAND__WHAT_CELL_CREATE:
        if (*state->cell_id)
            return true;
        clu__change(state);
        clu__str_set(&state->cell, ch_bytes_of(command->cell_create->cell));
        clu__str_set(&state->cell_id, ch_bytes_of(command->cell_create->cell_id));
        return true;
    case STRATA__CLUSTERMGR__V1__COMMAND__WHAT_SUBMIT_JOB:
        submit_job(state, command->submit_job, command->wall_us, result);
        return true;
    case STRATA__CLUSTERMGR__V1__COMMAND__WHAT_UPDATE_JOB:
        update_job(state, command->update_job, command->wall_us, result);
        return true;
    case STRATA__CLUSTERMGR__V1__COMMAND__WHAT_KILL_JOB:
        kill_job(state, command->kill_job, result);
        return true;
    case STRATA__CLUSTERMGR__V1__COMMAND__WHAT_REPORT:
        report(state, command->report, command->wall_us, result);
        return true;
    case STRATA__CLUSTERMGR__V1__COMMAND__WHAT_MACHINE_DOWN:
        machine_down(state, command->machine_down, command->wall_us, result);
        return true;
    case STRATA__CLUSTERMGR__V1__COMMAND__WHAT_PLAN:
        plan(state, command->plan, command->wall_us, result);
        return true;
    default:
        return false;
    }
}
