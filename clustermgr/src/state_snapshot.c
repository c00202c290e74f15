/* state_snapshot.c: the state as one message (state.proto, CellState) and back. In order of keys,
 * so that equal states give equal bytes: tests compare a replayed state with a restored one by
 * them. */
#include "state.h"

#include <stdlib.h>

/* ---- saving ---- */

static void nodes_save(struct clu_state *state, struct base_arena *arena, CLU_PB(CellState) * out)
{
    struct clu_node *node;

    out->nodes = BASE_NEW_ARRAY(arena, CLU_PB(NodeRecord) *, state->node_count + 1);
    RB_FOREACH(node, clu_nodes, &state->nodes)
    {
        CLU_PB(NodeRecord) *record = out->nodes[out->n_nodes++] =
            CLU_NEW(arena, NodeRecord, node_record);

        record->node = CLU_NEW(arena, Node, node);
        record->node->path = ch_data_str(node->path);
        record->node->value = ch_data_of(base_buf_bytes(&node->value));
        record->node->version = node->version;
        record->node->session = node->session;
        record->node->lock_epoch = node->lock_epoch;
        record->node->lock_session = node->lock_session;
        record->node->unhealthy = node->unhealthy;
        record->task = node->task;
    }
}

static void sessions_save(struct clu_state *state, struct base_arena *arena,
                          CLU_PB(CellState) * out)
{
    struct clu_session *session;

    out->sessions = BASE_NEW_ARRAY(arena, CLU_PB(SessionRecord) *, state->session_count + 1);
    RB_FOREACH(session, clu_sessions, &state->sessions)
    {
        CLU_PB(SessionRecord) *record = out->sessions[out->n_sessions++] =
            CLU_NEW(arena, SessionRecord, session_record);

        record->id = session->id;
        record->lease_ms = session->lease_ms;
        record->owner = ch_data_str(session->owner);
    }
}

static CLU_PB(Task) * task_save(const struct clu_task *task, struct base_arena *arena)
{
    CLU_PB(Task) *out = CLU_NEW(arena, Task, task);

    out->job = ch_data_str(task->job->name);
    out->index = task->index;
    out->machine = ch_data_str(task->machine ? task->machine->name : "");
    out->incarnation = task->incarnation;
    out->generation = task->generation;
    out->state = task->state;
    out->endpoint = ch_data_str(task->endpoint);
    out->admin = ch_data_str(task->admin);
    out->healthy = task->healthy;
    out->restarts = task->restarts;
    out->last_exit = ch_data_str(task->last_exit);
    out->pid = task->pid;
    out->reason = ch_data_str(task->reason);
    out->since_us = task->since_us;
    return out;
}

static void jobs_save(struct clu_state *state, struct base_arena *arena, CLU_PB(CellState) * out)
{
    struct clu_job *job;
    size_t tasks = 0;

    RB_FOREACH(job, clu_jobs, &state->jobs)
    tasks += job->spec->tasks;
    out->jobs = BASE_NEW_ARRAY(arena, CLU_PB(Job) *, state->job_count + 1);
    out->tasks = BASE_NEW_ARRAY(arena, CLU_PB(Task) *, tasks + 1);
    RB_FOREACH(job, clu_jobs, &state->jobs)
    {
        CLU_PB(Job) *record = out->jobs[out->n_jobs++] = CLU_NEW(arena, Job, job);

        record->spec = job->spec;
        record->generation = job->generation;
        for (uint32_t i = 0; i < job->spec->tasks; i++)
            out->tasks[out->n_tasks++] = task_save(job->tasks[i], arena);
    }
}

static void machines_save(struct clu_state *state, struct base_arena *arena,
                          CLU_PB(CellState) * out)
{
    struct clu_machine *machine;
    struct clu_pin *pin;
    size_t pins = 0;

    out->machines = BASE_NEW_ARRAY(arena, CLU_PB(Machine) *, state->machine_count + 1);
    RB_FOREACH(machine, clu_machines, &state->machines)
    {
        CLU_PB(Machine) *record = out->machines[out->n_machines++] =
            CLU_NEW(arena, Machine, machine);

        record->name = ch_data_str(machine->name);
        record->address = ch_data_str(machine->address);
        record->zone = ch_data_str(machine->zone);
        record->rack = ch_data_str(machine->rack);
        record->agent = ch_data_str(machine->agent);
        record->capacity = CLU_NEW(arena, Resources, resources);
        record->capacity->cpu_millis = machine->capacity.cpu_millis;
        record->capacity->memory_bytes = machine->capacity.memory_bytes;
        record->capacity->disk_bytes = machine->capacity.disk_bytes;
        record->up = machine->up;
    }
    TAILQ_FOREACH(pin, &state->pins, entry)
    pins++;
    out->pins = BASE_NEW_ARRAY(arena, CLU_PB(PinRecord) *, pins + 1);
    TAILQ_FOREACH(pin, &state->pins, entry)
    {
        CLU_PB(PinRecord) *record = out->pins[out->n_pins++] =
            CLU_NEW(arena, PinRecord, pin_record);

        record->job = ch_data_str(pin->job);
        record->index = pin->index;
        record->machine = ch_data_str(pin->machine);
    }
}

void clu__state_save(void *self, struct base_buf *out)
{
    struct clu_state *state = self;
    struct base_arena arena;
    CLU_PB(CellState) * message;

    base_arena_init(&arena);
    message = CLU_NEW(&arena, CellState, cell_state);
    message->version = state->version;
    message->cell = ch_data_str(state->cell);
    message->cell_id = ch_data_str(state->cell_id);
    nodes_save(state, &arena, message);
    sessions_save(state, &arena, message);
    jobs_save(state, &arena, message);
    machines_save(state, &arena, message);
    ch_proto_encode(&message->base, out);
    base_arena_free(&arena);
}

/* ---- restoring ---- */

static void nodes_restore(struct clu_state *state, const CLU_PB(CellState) * from,
                          struct base_arena *arena)
{
    for (size_t i = 0; i < from->n_nodes; i++) {
        const CLU_PB(Node) *record = from->nodes[i]->node;
        struct clu_node *node = clu__node_make(state, clu_str(arena, record->path));

        base_buf_put_bytes(&node->value, ch_bytes_of(record->value));
        node->version = record->version;
        node->session = record->session;
        node->lock_epoch = record->lock_epoch;
        node->lock_session = record->lock_session;
        node->unhealthy = record->unhealthy;
        node->task = from->nodes[i]->task;
    }
}

static bool task_restore(struct clu_state *state, const CLU_PB(Task) * from,
                         struct base_arena *arena)
{
    struct clu_job *job = clu__job_find(state, clu_str(arena, from->job));
    struct clu_task *task;

    if (!job || from->index >= job->spec->tasks || job->tasks[from->index])
        return false;
    task = job->tasks[from->index] = clu__task_new(job, from->index);
    task->machine = clu__machine_find(state, clu_str(arena, from->machine));
    task->incarnation = from->incarnation;
    task->generation = from->generation;
    task->state = from->state;
    task->healthy = from->healthy;
    task->restarts = from->restarts;
    task->pid = from->pid;
    task->since_us = from->since_us;
    clu__str_set(&task->endpoint, ch_bytes_of(from->endpoint));
    clu__str_set(&task->admin, ch_bytes_of(from->admin));
    clu__str_set(&task->last_exit, ch_bytes_of(from->last_exit));
    clu__str_set(&task->reason, ch_bytes_of(from->reason));
    return task->machine || from->machine.len == 0;
}

static bool jobs_restore(struct clu_state *state, const CLU_PB(CellState) * from,
                         struct base_arena *arena)
{
    uint64_t expected = 0;

    for (size_t i = 0; i < from->n_machines; i++) {
        struct clu_machine *machine =
            clu__machine_make(state, ch_bytes_of(from->machines[i]->name));

        clu__machine_set(machine, from->machines[i]);
        machine->up = from->machines[i]->up;
        machine->changed = state->version;
    }
    for (size_t i = 0; i < from->n_jobs; i++) {
        const CLU_PB(Job) *record = from->jobs[i];
        struct clu_job *job = clu__job_make(state, record->spec, record->generation);

        job->tasks = calloc(record->spec->tasks + 1, sizeof(*job->tasks));
        if (!job->tasks)
            abort();
        expected += record->spec->tasks;
    }
    for (size_t i = 0; i < from->n_tasks; i++)
        if (!task_restore(state, from->tasks[i], arena))
            return false;
    for (size_t i = 0; i < from->n_pins; i++)
        clu__pin_set(state, clu_str(arena, from->pins[i]->job), from->pins[i]->index,
                     clu_str(arena, from->pins[i]->machine));
    return from->n_tasks == expected;
}

struct base_status clu__state_restore(void *self, struct base_bytes snapshot)
{
    struct clu_state *state = self;
    struct base_arena arena;
    ProtobufCMessage *message = NULL;
    struct base_status status;
    bool whole = true;

    base_arena_init(&arena);
    status = ch_proto_decode(CLU_DESCRIPTOR(cell_state), snapshot, &arena, &message);
    if (!base_failed(status)) {
        const CLU_PB(CellState) *from = (void *)message;

        clu__state_clear(state);
        state->version = state->changes_since = state->cell_changed = from->version;
        clu__str_set(&state->cell, ch_bytes_of(from->cell));
        clu__str_set(&state->cell_id, ch_bytes_of(from->cell_id));
        nodes_restore(state, from, &arena);
        for (size_t i = 0; i < from->n_sessions; i++)
            clu__session_make(state, from->sessions[i]->id, from->sessions[i]->lease_ms,
                              ch_bytes_of(from->sessions[i]->owner));
        whole = jobs_restore(state, from, &arena);
    }
    base_arena_free(&arena);
    if (!whole)
        status = base_status_make(BASE_DATA_LOSS,
                                  "the snapshot's tasks do not fit its jobs and machines");
    if (state->changed)
        state->changed(state->owner);
    return base_status_wrap(status, "restore the cell's state");
}
