/* state.h: the clustermaster's state: a deterministic machine under the log (consensus/log.h).
 * Names, sessions and locks; jobs, tasks, machines and pins. It reads no clock and no random
 * source; leases are the leader's business (sessions.c), who proposes their end as a command. No
 * function here may wait. See state.c for the invariants. */
#ifndef CLU_STATE_H
#define CLU_STATE_H

#include <bsd/sys/queue.h>
#include <bsd/sys/tree.h>

#include "clustermgr/job.h"
#include "consensus/log.h"
#include "pb.h"

enum {
    CLU_PATH_MAX = 256,
    CLU_VALUE_MAX = 64 << 10,
    CLU_NODES_MAX = 200000,
    CLU_SESSIONS_MAX = 50000,
    CLU_JOBS_MAX = 2000,
    CLU_MACHINES_MAX = 20000,
    CLU_CHANGES_MAX =
        8192, /* remembered for watches; who is further behind gets everything again */
};

struct clu_node {
    RB_ENTRY(clu_node) entry;
    char *path;
    struct base_buf value;
    uint64_t version, session, lock_epoch, lock_session;
    bool unhealthy, task;
};
struct clu_session {
    RB_ENTRY(clu_session) entry;
    uint64_t id;
    uint32_t lease_ms;
    char *owner;
    /* the leader's own (leases.c), not part of the state: on its clock; 0: not granted yet */
    int64_t lease_until;
    bool ending; /* the same: its end is being proposed, no keep-alive revives it */
};
struct clu_machine {
    RB_ENTRY(clu_machine) entry;
    char *name, *address, *zone, *rack, *agent;
    struct {
        uint64_t cpu_millis, memory_bytes, disk_bytes;
    } capacity;
    bool up;
    uint64_t changed; /* state version at which what it is to run last changed; not kept on disk */
    int32_t view_index; /* scratch of who makes a schedule view */
    int64_t heard_at;   /* the leader's own (leases.c): 0: not since it began to lead */
};
struct clu_task {
    struct clu_job *job;
    uint32_t index;
    struct clu_machine *machine; /* NULL: none */
    uint64_t incarnation, generation;
    CLU_PB(TaskState) state;
    char *endpoint, *admin, *last_exit, *reason;
    bool healthy;
    uint32_t restarts;
    int64_t pid, since_us;
    uint64_t cpu_millis_used, memory_bytes_used; /* last reported; not part of the state */
};
struct clu_job {
    RB_ENTRY(clu_job) entry;
    char *name;
    struct base_arena arena; /* of spec */
    CLU_PB(JobSpec) * spec;
    uint64_t generation;
    struct clu_task **tasks; /* spec->tasks of them */
};
struct clu_pin { /* where a pinned task's data is, also after its job was killed */
    TAILQ_ENTRY(clu_pin) entry;
    char *job, *machine;
    uint32_t index;
};
struct clu_change {
    uint64_t version;
    char *path;
};

RB_HEAD(clu_nodes, clu_node);
RB_HEAD(clu_sessions, clu_session);
RB_HEAD(clu_machines, clu_machine);
RB_HEAD(clu_jobs, clu_job);
RB_PROTOTYPE(clu_nodes, clu_node, entry, clu__node_cmp)
RB_PROTOTYPE(clu_sessions, clu_session, entry, clu__session_cmp)
RB_PROTOTYPE(clu_machines, clu_machine, entry, clu__machine_cmp)
RB_PROTOTYPE(clu_jobs, clu_job, entry, clu__job_cmp)

struct clu_state {
    char *cell, *cell_id; /* "" before CellCreate */
    /* grows with every change: versions, epochs, session ids, incarnations are drawn from it */
    uint64_t version;
    struct clu_nodes nodes;
    struct clu_sessions sessions;
    struct clu_machines machines;
    struct clu_jobs jobs;
    TAILQ_HEAD(, clu_pin) pins;
    size_t node_count, session_count, machine_count, job_count;
    struct clu_change changes[CLU_CHANGES_MAX]; /* ring of name changes, not kept on disk */
    size_t change_head, change_count;
    uint64_t changes_since; /* the ring holds every change of a version greater than this */
    uint64_t cell_changed;  /* version of the last change to jobs, tasks or machines */
    /* Of the owner; must not wait; may be NULL: after each command, and when another state came
     * whole; when this member begins to lead (term > 0) or ceases to (0). */
    void (*changed)(void *self);
    void (*led)(void *self, uint64_t term);
    void *owner;
};

struct clu_state *clu__state_new(void);
void clu__state_free(struct clu_state *state);
/* The log's machine over this state. */
struct con_machine clu__state_machine(struct clu_state *state);

/* ---- looking ---- */
struct clu_node *clu__node_find(const struct clu_state *state, const char *path);
/* The first node at or after `path` / the one after `node`, in order of paths. */
struct clu_node *clu__node_from(const struct clu_state *state, const char *path);
struct clu_node *clu__node_next(struct clu_node *node);
bool clu__path_below(const char *path,
                     const char *prefix); /* at or below; "" and "/" have everything below */
struct clu_session *clu__session_find(const struct clu_state *state, uint64_t id);
struct clu_job *clu__job_find(const struct clu_state *state, const char *name);
struct clu_task *clu__task_find(const struct clu_state *state, const char *job, uint32_t index);
struct clu_machine *clu__machine_find(const struct clu_state *state, const char *name);
const char *clu__pin_find(const struct clu_state *state, const char *job, uint32_t index);

/* ---- for state_*.c ---- */
struct clu__result { /* of a command; text in the command's arena */
    enum base_code code;
    const char *text;
    uint64_t number;
    struct base_arena *arena;
};
void clu__fail(struct clu__result *result, enum base_code code, const char *fmt, ...)
    BASE_PRINTF(3, 4);
void clu__str_set(char **to, struct base_bytes from);              /* NULL becomes "" */
uint64_t clu__change(struct clu_state *state);                     /* the next version */
void clu__path_changed(struct clu_state *state, const char *path); /* at the present version */
struct clu_node *clu__node_make(struct clu_state *state, const char *path);
void clu__node_remove(struct clu_state *state, struct clu_node *node);
struct clu_session *clu__session_make(struct clu_state *state, uint64_t id, uint32_t lease_ms,
                                      struct base_bytes owner);
void clu__session_end(
    struct clu_state *state,
    struct clu_session *session); /* frees its locks, deletes its ephemeral nodes */
bool clu__session_of_run(const struct clu_session *session,
                         struct base_bytes run); /* its owner is "…#run" */
struct clu_machine *clu__machine_make(struct clu_state *state, struct base_bytes name);
void clu__machine_set(struct clu_machine *machine, const CLU_PB(Machine) * from);
struct clu_job *clu__job_make(struct clu_state *state, const CLU_PB(JobSpec) * spec,
                              uint64_t generation);
void clu__job_spec_set(struct clu_job *job, const CLU_PB(JobSpec) * spec);
void clu__job_remove(struct clu_state *state, struct clu_job *job);
void clu__pin_set(struct clu_state *state, const char *job, uint32_t index, const char *machine);
struct clu_task *clu__task_new(struct clu_job *job, uint32_t index);
void clu__task_free(struct clu_task *task);

/* state_names.c, state_cell.c: true when the command is theirs. */
bool clu__apply_names(struct clu_state *state, const CLU_PB(Command) * command,
                      struct clu__result *result);
bool clu__apply_cell(struct clu_state *state, const CLU_PB(Command) * command,
                     struct clu__result *result);
/* state_snapshot.c */
void clu__state_save(void *self, struct base_buf *out);
struct base_status clu__state_restore(void *self, struct base_bytes snapshot) BASE_MUST_CHECK;
void clu__state_clear(struct clu_state *state);

#endif
