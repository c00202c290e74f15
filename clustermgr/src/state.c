/* state.c: the replicated state's containers, and the door commands come in by.
 *
 * Invariants
 * 1. Every change draws a new `version`, kept in the log and in snapshots: versions, lock epochs,
 * session ids and task incarnations are such numbers, so none of them is ever given twice or goes
 * back, whatever is deleted or restarted.
 * 2. The same commands give the same state and the same snapshot bytes. Nothing here reads a
 * clock or a random source.
 * 3. A command that fails changes nothing.
 * 4. A lock's holder and an ephemeral node's owner are sessions that exist.
 * 5. A node `task` is there exactly while its task is on a machine and has told its endpoint.
 *
 * Commands of names, sessions and locks: state_names.c. Of jobs, tasks and machines:
 * state_cell.c. Snapshots: state_snapshot.c. */
#include "state.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int clu__node_cmp(const struct clu_node *a, const struct clu_node *b);
int clu__session_cmp(const struct clu_session *a, const struct clu_session *b);
int clu__machine_cmp(const struct clu_machine *a, const struct clu_machine *b);
int clu__job_cmp(const struct clu_job *a, const struct clu_job *b);

int clu__node_cmp(const struct clu_node *a, const struct clu_node *b)
{
    return strcmp(a->path, b->path);
}
int clu__session_cmp(const struct clu_session *a, const struct clu_session *b)
{
    return a->id < b->id ? -1 : a->id > b->id;
}
int clu__machine_cmp(const struct clu_machine *a, const struct clu_machine *b)
{
    return strcmp(a->name, b->name);
}
int clu__job_cmp(const struct clu_job *a, const struct clu_job *b)
{
    return strcmp(a->name, b->name);
}
RB_GENERATE(clu_nodes, clu_node, entry, clu__node_cmp)
RB_GENERATE(clu_sessions, clu_session, entry, clu__session_cmp)
RB_GENERATE(clu_machines, clu_machine, entry, clu__machine_cmp)
RB_GENERATE(clu_jobs, clu_job, entry, clu__job_cmp)

static void *zeroed(size_t size)
{
    void *memory = calloc(1, size);

    if (!memory)
        abort();
    return memory;
}

/* ---- the machine ---- */

static void state_apply(void *self, uint64_t index, struct base_bytes bytes, struct base_buf *out)
{
    struct clu_state *state = self;
    struct base_arena arena;
    struct clu__result result = { .arena = &arena };
    ProtobufCMessage *message = NULL;
    CLU_PB(CommandReply) reply;
    struct base_status status;

    base_arena_init(&arena);
    status = ch_proto_decode(CLU_DESCRIPTOR(command), bytes, &arena, &message);
    if (base_failed(status)) {
        clu__fail(&result, BASE_INTERNAL, "a command of the log does not decode: %s",
                  base_status_text(&status));
        base_status_free(&status);
    } else if (!clu__apply_names(state, (void *)message, &result) &&
               !clu__apply_cell(state, (void *)message, &result)) {
        clu__fail(&result, BASE_UNIMPLEMENTED,
                  "a command of the log is of a later version of clustermaster");
    }
    strata__clustermgr__v1__command_reply__init(&reply);
    reply.code = (int32_t)result.code;
    reply.number = result.number;
    if (result.text)
        reply.text = ch_data_str(result.text);
    ch_proto_encode(&reply.base, out);
    base_arena_free(&arena);
    if (state->changed)
        state->changed(state->owner);
}

static void state_lead(void *self, uint64_t term)
{
    struct clu_state *state = self;

    if (state->led)
        state->led(state->owner, term);
}

struct con_machine clu__state_machine(struct clu_state *state)
{
    return (struct con_machine){ .apply = state_apply,
                                 .snapshot = clu__state_save,
                                 .restore = clu__state_restore,
                                 .lead = state_lead,
                                 .self = state };
}

struct clu_state *clu__state_new(void)
{
    struct clu_state *state = zeroed(sizeof(*state));

    RB_INIT(&state->nodes);
    RB_INIT(&state->sessions);
    RB_INIT(&state->machines);
    RB_INIT(&state->jobs);
    TAILQ_INIT(&state->pins);
    clu__str_set(&state->cell, BASE_BYTES_EMPTY);
    clu__str_set(&state->cell_id, BASE_BYTES_EMPTY);
    return state;
}

static void machine_free(struct clu_machine *machine)
{
    free(machine->name);
    free(machine->address);
    free(machine->zone);
    free(machine->rack);
    free(machine->agent);
    free(machine);
}

static void session_free(struct clu_session *session)
{
    free(session->owner);
    free(session);
}

/* Back to the empty state, for restore. */
void clu__state_clear(struct clu_state *state)
{
    struct clu_session *session, *session_next;
    struct clu_machine *machine, *machine_next;
    struct clu_pin *pin;

    while (RB_ROOT(&state->jobs))
        clu__job_remove(state, RB_ROOT(&state->jobs));
    while (RB_ROOT(&state->nodes))
        clu__node_remove(state, RB_ROOT(&state->nodes));
    RB_FOREACH_SAFE(session, clu_sessions, &state->sessions, session_next)
    {
        RB_REMOVE(clu_sessions, &state->sessions, session);
        session_free(session);
    }
    RB_FOREACH_SAFE(machine, clu_machines, &state->machines, machine_next)
    {
        RB_REMOVE(clu_machines, &state->machines, machine);
        machine_free(machine);
    }
    while ((pin = TAILQ_FIRST(&state->pins))) {
        TAILQ_REMOVE(&state->pins, pin, entry);
        free(pin->job);
        free(pin->machine);
        free(pin);
    }
    for (size_t i = 0; i < CLU_CHANGES_MAX; i++) {
        free(state->changes[i].path);
        state->changes[i].path = NULL;
    }
    state->change_head = state->change_count = 0;
    state->node_count = state->session_count = state->machine_count = state->job_count = 0;
    state->version = state->changes_since = state->cell_changed = 0;
}

void clu__state_free(struct clu_state *state)
{
    clu__state_clear(state);
    free(state->cell);
    free(state->cell_id);
    free(state);
}

/* ---- results, strings, versions ---- */

void clu__fail(struct clu__result *result, enum base_code code, const char *fmt, ...)
{
    char text[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    result->code = code;
    result->text = base_arena_strdup(result->arena, text);
}

void clu__str_set(char **to, struct base_bytes from)
{
    char *copy = malloc(from.len + 1);

    if (!copy)
        abort();
    if (from.len > 0)
        memcpy(copy, from.data, from.len);
    copy[from.len] = '\0';
    free(*to);
    *to = copy;
}

uint64_t clu__change(struct clu_state *state)
{
    return ++state->version;
}

void clu__path_changed(struct clu_state *state, const char *path)
{
    struct clu_change *change;

    if (state->change_count == CLU_CHANGES_MAX) {
        state->changes_since = state->changes[state->change_head].version;
        state->change_head = (state->change_head + 1) % CLU_CHANGES_MAX;
        state->change_count--;
    }
    change = &state->changes[(state->change_head + state->change_count++) % CLU_CHANGES_MAX];
    change->version = state->version;
    clu__str_set(&change->path, base_bytes_str(path));
}

/* ---- nodes ---- */

struct clu_node *clu__node_find(const struct clu_state *state, const char *path)
{
    struct clu_node key = { .path = (char *)path };

    return RB_FIND(clu_nodes, (struct clu_nodes *)&state->nodes, &key);
}

struct clu_node *clu__node_from(const struct clu_state *state, const char *path)
{
    struct clu_node key = { .path = (char *)path };

    return RB_NFIND(clu_nodes, (struct clu_nodes *)&state->nodes, &key);
}

struct clu_node *clu__node_next(struct clu_node *node)
{
    return RB_NEXT(clu_nodes, NULL, node);
}

bool clu__path_below(const char *path, const char *prefix)
{
    size_t len = strlen(prefix);

    if (len == 0 || strcmp(prefix, "/") == 0)
        return true;
    return strncmp(path, prefix, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

struct clu_node *clu__node_make(struct clu_state *state, const char *path)
{
    struct clu_node *node = zeroed(sizeof(*node));

    clu__str_set(&node->path, base_bytes_str(path));
    BASE_ASSERT(!RB_INSERT(clu_nodes, &state->nodes, node));
    state->node_count++;
    return node;
}

void clu__node_remove(struct clu_state *state, struct clu_node *node)
{
    RB_REMOVE(clu_nodes, &state->nodes, node);
    state->node_count--;
    free(node->path);
    base_buf_free(&node->value);
    free(node);
}

/* ---- sessions, machines, jobs, tasks, pins ---- */

struct clu_session *clu__session_find(const struct clu_state *state, uint64_t id)
{
    struct clu_session key = { .id = id };

    return RB_FIND(clu_sessions, (struct clu_sessions *)&state->sessions, &key);
}

struct clu_session *clu__session_make(struct clu_state *state, uint64_t id, uint32_t lease_ms,
                                      struct base_bytes owner)
{
    struct clu_session *session = zeroed(sizeof(*session));

    session->id = id;
    session->lease_ms = lease_ms;
    clu__str_set(&session->owner, owner);
    BASE_ASSERT(!RB_INSERT(clu_sessions, &state->sessions, session));
    state->session_count++;
    return session;
}

struct clu_machine *clu__machine_find(const struct clu_state *state, const char *name)
{
    struct clu_machine key = { .name = (char *)name };

    return RB_FIND(clu_machines, (struct clu_machines *)&state->machines, &key);
}

struct clu_machine *clu__machine_make(struct clu_state *state, struct base_bytes name)
{
    struct clu_machine *machine = zeroed(sizeof(*machine));

    clu__str_set(&machine->name, name);
    BASE_ASSERT(!RB_INSERT(clu_machines, &state->machines, machine));
    state->machine_count++;
    return machine;
}

void clu__machine_set(struct clu_machine *machine, const CLU_PB(Machine) * from)
{
    clu__str_set(&machine->address, ch_bytes_of(from->address));
    clu__str_set(&machine->zone, ch_bytes_of(from->zone));
    clu__str_set(&machine->rack, ch_bytes_of(from->rack));
    clu__str_set(&machine->agent, ch_bytes_of(from->agent));
    machine->capacity.cpu_millis = from->capacity ? from->capacity->cpu_millis : 0;
    machine->capacity.memory_bytes = from->capacity ? from->capacity->memory_bytes : 0;
    machine->capacity.disk_bytes = from->capacity ? from->capacity->disk_bytes : 0;
}

struct clu_job *clu__job_find(const struct clu_state *state, const char *name)
{
    struct clu_job key = { .name = (char *)name };

    return RB_FIND(clu_jobs, (struct clu_jobs *)&state->jobs, &key);
}

struct clu_task *clu__task_find(const struct clu_state *state, const char *job_name, uint32_t index)
{
    struct clu_job *job = clu__job_find(state, job_name);

    return job && index < job->spec->tasks ? job->tasks[index] : NULL;
}

struct clu_job *clu__job_make(struct clu_state *state, const CLU_PB(JobSpec) * spec,
                              uint64_t generation)
{
    struct clu_job *job = zeroed(sizeof(*job));

    clu__str_set(&job->name, ch_bytes_of(spec->name));
    job->generation = generation;
    clu__job_spec_set(job, spec);
    BASE_ASSERT(!RB_INSERT(clu_jobs, &state->jobs, job));
    state->job_count++;
    return job;
}

void clu__job_spec_set(struct clu_job *job, const CLU_PB(JobSpec) * spec)
{
    struct base_arena arena;

    base_arena_init(&arena);
    job->spec = (void *)ch_proto_copy(&spec->base, &arena);
    base_arena_free(&job->arena);
    job->arena = arena;
}

void clu__job_remove(struct clu_state *state, struct clu_job *job)
{
    for (uint32_t i = 0; job->tasks && i < job->spec->tasks; i++)
        if (job->tasks[i])
            clu__task_free(job->tasks[i]);
    RB_REMOVE(clu_jobs, &state->jobs, job);
    state->job_count--;
    base_arena_free(&job->arena);
    free(job->tasks);
    free(job->name);
    free(job);
}

struct clu_task *clu__task_new(struct clu_job *job, uint32_t index)
{
    struct clu_task *task = zeroed(sizeof(*task));

    task->job = job;
    task->index = index;
    clu__str_set(&task->endpoint, BASE_BYTES_EMPTY);
    clu__str_set(&task->admin, BASE_BYTES_EMPTY);
    clu__str_set(&task->last_exit, BASE_BYTES_EMPTY);
    clu__str_set(&task->reason, BASE_BYTES_EMPTY);
    return task;
}

void clu__task_free(struct clu_task *task)
{
    free(task->endpoint);
    free(task->admin);
    free(task->last_exit);
    free(task->reason);
    free(task);
}

static struct clu_pin *pin_of(const struct clu_state *state, const char *job, uint32_t index)
{
    struct clu_pin *pin;

    TAILQ_FOREACH(pin, &state->pins, entry)
    if (pin->index == index && strcmp(pin->job, job) == 0)
        return pin;
    return NULL;
}

const char *clu__pin_find(const struct clu_state *state, const char *job, uint32_t index)
{
    struct clu_pin *pin = pin_of(state, job, index);

    return pin ? pin->machine : NULL;
}

void clu__pin_set(struct clu_state *state, const char *job, uint32_t index, const char *machine)
{
    struct clu_pin *pin = pin_of(state, job, index);

    if (!pin) {
        pin = zeroed(sizeof(*pin));
        pin->index = index;
        clu__str_set(&pin->job, base_bytes_str(job));
        TAILQ_INSERT_TAIL(&state->pins, pin, entry);
    }
    clu__str_set(&pin->machine, base_bytes_str(machine));
}
