/* schedule.h: which task runs where: a pure function from a view of the cell to a plan, with a
 * because for each decision.
 *
 * The caller (scheduler.c in the clustermaster) makes the view from the replicated state, and
 * proposes the plan as one command, which applies each decision only when its task is still as it
 * was. Indexes instead of pointers tie the view's parts together. Nothing here waits, allocates
 * outside the arena, or reads a clock. */
#ifndef CLU_SCHEDULE_H
#define CLU_SCHEDULE_H

#include "base/arena.h"

enum { CLU_NONE = -1, CLU_CONSTRAINTS_MAX = 16 };

struct clu_resources {
    uint64_t cpu_millis, memory_bytes, disk_bytes;
};
struct clu_constraint {
    const char *attribute, *value; /* "machine", "zone", "rack" */
    bool negated, soft;
};

struct clu_view_machine {
    const char *name, *zone, *rack;
    struct clu_resources capacity;
    bool up;
};
struct clu_view_job {
    const char *name;
    int band;                       /* smaller: more urgent */
    struct clu_resources resources; /* of each task */
    const struct clu_constraint *constraints;
    size_t constraint_count;
    bool distinct_machines, pinned;
    uint64_t generation;
};
struct clu_view_task {
    int32_t job; /* index of its job */
    uint32_t index;
    int32_t machine;      /* where it is; CLU_NONE: nowhere */
    int32_t pin;          /* pinned: where its data is; CLU_NONE: nowhere yet */
    const char *pin_name; /* of that machine, also when the cell does not know it (any more) */
    uint64_t generation;  /* it runs */
    bool available;       /* runs and is healthy */
    const char *reason;   /* of the last decision: a WAIT is only repeated when it changes */
};
struct clu_view {
    const struct clu_view_machine *machines;
    size_t machine_count;
    const struct clu_view_job *jobs;
    size_t job_count;
    const struct clu_view_task *tasks; /* of a job: together, by index */
    size_t task_count;
    size_t moves_max; /* tasks that may leave dead machines in this pass */
};

enum clu_decision_kind {
    CLU_WAIT,    /* stays as it is; the reason is new */
    CLU_PLACE,   /* on `machine`, maybe from another one */
    CLU_ADVANCE, /* restarts where it is, with its job's new specification */
};
struct clu_decision {
    enum clu_decision_kind kind;
    size_t task;
    int32_t machine;
    const char *reason;
};
struct clu_plan {
    struct clu_decision *decisions;
    size_t count;
    /* moves_max kept tasks on dead machines: there is more to do in a later pass */
    bool moves_held;
};
/* The plan and its texts live in `arena`. */
void clu_schedule(const struct clu_view *view, struct base_arena *arena, struct clu_plan *plan);

/* One line a machine: whether the task could go there, what speaks against or how it ranks. For
 * "why". */
void clu_schedule_explain(const struct clu_view *view, size_t task, struct base_arena *arena,
                          const char ***lines, size_t *count);

#endif
