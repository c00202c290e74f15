/* agent.h: a clusteragent in the running: its machine's tasks, each with a fiber of its own, what
 * it tells the clustermaster and is told by it. Private to clustermgr. */
#ifndef CLU_AGENT_H
#define CLU_AGENT_H

#include <bsd/sys/queue.h>

#include "chassis/metrics.h"
#include "chassis/process.h"
#include "chassis/leader.h"
#include "chassis/rpc_client.h"
#include "chassis/rpc_server.h"
#include "chassis/service.h"
#include "pb.h"

enum {
    CLU_STOP_GRACE_MS = 10000, /* between SIGTERM and SIGKILL */
    CLU_SETTLED_MS = 10000,    /* a task that ran for so long starts again without a long backoff */
    CLU_BACKOFF_MIN_MS = 100,
    CLU_BACKOFF_MAX_MS = 10000,
    CLU_HEALTH_INTERVAL_MS = 1000,
    CLU_HEALTH_TIMEOUT_MS = 1000,
    CLU_HEALTH_FAILURES = 2,
    CLU_UNREACHABLE_MS = 30000,
    CLU_AGENT_STATE_MAX = 64 << 20,
    CLU_LOG_READ_MAX = 1 << 20,
    CLU_ENDED_RUNS_MAX = 256, /* remembered; the sessions of others end with their leases */
};

struct clu_agent_config {
    char *machine, *rack, *bin_dir;
    int64_t cpu_millis;
    uint64_t memory, disk, log_bytes;
};

/* One process of a task and the fiber that waits for its end. Freed by the task's fiber, after
 * the waiter has left. */
struct clu_agent_run {
    struct ch_process *process;
    struct clu_agent_task *task;
    bool exited, waiter_gone;
    int exit_status;
};

struct clu_agent_task {
    TAILQ_ENTRY(clu_agent_task) entry;
    struct clu_agent *agent;
    struct base_arena arena; /* of what it is to run */
    CLU_PB(Assignment) * assignment;
    bool wanted;               /* false: stop it and forget it */
    bool replaced;             /* the assignment changed: stop what runs, start anew */
    struct ch_cond changed;    /* wanted, replaced, exited */
    struct clu_agent_run *run; /* NULL: no process */
    CLU_PB(TaskState) state;
    bool healthy;
    /* adopted, and not asked yet how it is: not reported, so what the master knows stays */
    bool unchecked;
    uint32_t restarts, port;
    char *endpoint, *admin, *last_exit; /* endpoint: "" until its port file is there */
    char *run_name;      /* names the process among all of the task; "" before the first */
    int64_t pid;         /* of the state file, before adoption; then of the process */
    uint64_t start_time; /* the same */
    uint64_t log_begin;  /* bytes of its log rotated away */
    bool log_cutting;    /* just now: what is read of it cannot be placed */
    uint64_t cpu_ticks, cpu_millis_used, memory_bytes_used;
    ch_time cpu_at;
};

struct clu_agent {
    struct ch_env *env;
    const struct clu_agent_config *config;
    const struct ch_service_config *common;
    char *dir, *address; /* data dir; host tasks listen on */
    char *bin_dir;
    struct ch_server *server;
    struct ch_leader *master;
    struct ch_gate gate; /* every fiber of the agent */
    TAILQ_HEAD(, clu_agent_task) tasks;
    char *cell_id; /* "" before the first assignments */
    struct ch_cond report;
    bool dirty; /* there is something to report */
    struct ch_mutex saving;
    /* processes seen to have ended, oldest first, that the master does not know of yet */
    char *ended_runs[CLU_ENDED_RUNS_MAX];
    size_t ended_count, ended_dropped; /* dropped: since the report under way was made */
    bool draining;
    uint32_t drain_order; /* draining: tasks of this start order and above are not to run */
    struct {
        struct ch_counter *starts, *exits, *adoptions, *health_failures;
        struct ch_gauge *tasks;
    } metrics;
};

extern const struct ch_service_def clu_agent_def;

/* ---- agent.c ---- */
struct clu_agent_task *clu__agent_task_find(struct clu_agent *agent, struct base_bytes job,
                                            uint32_t index);
struct clu_agent_task *clu__agent_task_new(struct clu_agent *agent,
                                           const CLU_PB(Assignment) * assignment);
void clu__agent_task_free(struct clu_agent_task *task); /* leaves the agent's list */
void clu__agent_task_assign(struct clu_agent_task *task, const CLU_PB(Assignment) * assignment);
bool clu__agent_task_held(const struct clu_agent_task *task); /* by a drain */
void clu__agent_dirty(struct clu_agent *agent);               /* report soon */
/* The task's process has surely ended: so have its sessions. */
void clu__agent_run_ended(struct clu_agent_task *task);
void clu__str_set(char **to, struct base_bytes from);

/* ---- agent_task.c ---- */
ch_fiber_fn clu__agent_task_fiber; /* a task's life: start or adopt, watch, restart, stop */

/* ---- agent_spawn.c: the process of a task ---- */
struct base_status clu__agent_spawn(struct clu_agent_task *task,
                                    struct clu_agent_run *run) CH_WAITS BASE_MUST_CHECK;
/* Reads the port file: OK and nothing in task->endpoint when it is not there yet. */
struct base_status clu__agent_ports_read(struct clu_agent_task *task) CH_WAITS BASE_MUST_CHECK;
char *clu__agent_log_path(struct clu_agent_task *task, struct base_arena *arena);

/* ---- agent_state.c: what outlives the agent ---- */
struct base_status clu__agent_load(struct clu_agent *agent) CH_WAITS BASE_MUST_CHECK;
void clu__agent_save(struct clu_agent *agent) CH_WAITS;
/* Kills processes of this agent's tasks that the state file does not know: an agent killed right
 * after starting one. */
void clu__agent_orphans_kill(struct clu_agent *agent) CH_WAITS;
/* Whether the process is the one the task's record means: its environment tells, also after a
 * reboot made pids begin anew. */
bool clu__agent_run_is(struct clu_agent_task *task) CH_WAITS;
/* CPU and memory of the tasks' processes. */
void clu__agent_usage_read(struct clu_agent *agent) CH_WAITS;

/* ---- agent_log.c ---- */
ch_fiber_fn clu__agent_logs_fiber; /* rotates */
struct base_status clu__agent_read_log(void *self, struct ch_call *call, const void *message,
                                       void **reply) CH_WAITS BASE_MUST_CHECK;

#endif
