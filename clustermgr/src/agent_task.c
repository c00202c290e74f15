/* agent_task.c: a task's fiber: its process is started (or adopted), watched, restarted with
 * backoff, stopped.
 *
 * Invariants
 * 1. At most one process of a task runs: the next is started after the last one's end was seen.
 * 2. What happens to the process is decided here alone; others only set `wanted`, `replaced`, and
 * wake us.
 * 3. A cancelled fiber (the agent stops) leaves the process running and on record.
 *
 * One round: start or adopt -> wait for the port file -> health checks until the process ends, is
 * replaced, unwanted, or hangs -> backoff -> next round. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "agent.h"
#include "chassis/log.h"
#include "grpc/health/v1/health.strata.h"

enum { PORTS_POLL_MS = 20, HEALTH_FIRST_MS = 50 };

struct life {
    struct clu_agent_task *task;
    struct ch_env *env;
    uint32_t backoff_ms;
    ch_time began; /* of the process */
};

#define NAME_FMT "%.*s/%" PRIu32
#define NAME_ARGS(task) \
    BASE_FMT(ch_bytes_of((task)->assignment->spec->name)), (task)->assignment->index

static bool over(const struct clu_agent_task *task)
{
    return ch_cancelled() || !task->wanted || task->replaced || clu__agent_task_held(task) ||
           !task->run || task->run->exited;
}

static void state_set(struct clu_agent_task *task, CLU_PB(TaskState) state, bool healthy)
{
    if (task->state == state && task->healthy == healthy && !task->unchecked)
        return;
    task->unchecked = false;
    task->state = state;
    task->healthy = healthy;
    clu__agent_dirty(task->agent);
}

/* ---- the process ---- */

static void waiter_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct clu_agent_run *run = arg;

    run->exited = ch_process_wait(run->process, CH_NEVER, &run->exit_status) != CH_CANCELLED;
    run->waiter_gone = true;
    ch_cond_broadcast(&run->task->changed);
}

static void run_name_new(struct clu_agent_task *task)
{
    char text[96];

    snprintf(text, sizeof(text), "%.40s-%016" PRIx64, task->agent->config->machine,
             ch_random(task->agent->env));
    clu__str_set(&task->run_name, base_bytes_str(text));
}

/* A run of the task, with a fiber that waits for its end. */
static CH_WAITS struct base_status run_begin(struct life *life, bool adopt)
{
    struct clu_agent_task *task = life->task;
    struct clu_agent *agent = task->agent;
    struct clu_agent_run *run = calloc(1, sizeof(*run));
    struct base_status status;

    if (!run)
        abort();
    run->task = task;
    if (adopt) {
        status = ch_process_adopt(agent->env, task->pid, task->start_time, &run->process);
        if (!base_failed(status) && !clu__agent_run_is(task)) {
            ch_process_free(run->process);
            run->process = NULL;
            status = base_status_make(BASE_NOT_FOUND, "pid %" PRId64 " is another process now",
                                      task->pid);
        }
        if (status.code == BASE_NOT_FOUND)
            clu__agent_run_ended(task);
    } else {
        run_name_new(task);
        clu__str_set(&task->endpoint, BASE_BYTES_EMPTY);
        clu__str_set(&task->admin, BASE_BYTES_EMPTY);
        state_set(task, CLU_TASK(STARTING), false);
        status = clu__agent_spawn(task, run);
    }
    if (!base_failed(status))
        status = ch_gate_spawn(&agent->gate, "task waiter", waiter_fiber, run);
    if (base_failed(status)) {
        if (run->process) {
            if (!adopt)
                base_status_drop(ch_process_signal(run->process, SIGKILL));
            ch_process_free(run->process);
        }
        free(run);
        return status;
    }
    task->run = run;
    task->pid = ch_process_pid(run->process);
    task->start_time = ch_process_start_time(run->process);
    life->began = ch_now(life->env);
    ch_count(adopt ? agent->metrics.adoptions : agent->metrics.starts, 1);
    ch_info(life->env, "task " NAME_FMT ": %s, pid %" PRId64, NAME_ARGS(task),
            adopt ? "adopted" : "started", task->pid);
    clu__agent_save(agent);
    clu__agent_dirty(agent);
    return BASE_STATUS_OK;
}

/* Lets go of a run whose waiter has left, or is about to. */
static CH_WAITS void run_end(struct clu_agent_task *task)
{
    struct clu_agent_run *run = task->run;

    while (!run->waiter_gone)
        ch_cond_wait_always(&task->changed);
    task->run = NULL;
    ch_process_free(run->process);
    free(run);
}

static void exit_describe(struct clu_agent_task *task)
{
    int status = task->run->exit_status;
    char text[128];

    if (status == -1)
        snprintf(text, sizeof(text), "ended");
    else if (WIFSIGNALED(status))
        snprintf(text, sizeof(text), "killed by signal %d", WTERMSIG(status));
    else
        snprintf(text, sizeof(text), "exit %d", WEXITSTATUS(status));
    clu__str_set(&task->last_exit, base_bytes_str(text));
}

/* SIGTERM, grace, SIGKILL; until it has ended. A cancel (the agent stops) ends the waiting only. */
static CH_WAITS void process_stop(struct life *life)
{
    struct clu_agent_task *task = life->task;
    ch_time deadline = ch_in(life->env, CLU_STOP_GRACE_MS * CH_MS);
    bool killed = false;

    base_status_drop(ch_process_signal(task->run->process, SIGTERM));
    while (!task->run->exited) {
        enum ch_outcome outcome = ch_cond_wait(&task->changed, killed ? CH_NEVER : deadline);

        if (outcome == CH_CANCELLED)
            return;
        if (outcome != CH_TIMEOUT || task->run->exited)
            continue;
        ch_warn(life->env, "task " NAME_FMT ": did not stop in time, killed", NAME_ARGS(task));
        base_status_drop(ch_process_signal(task->run->process, SIGKILL));
        killed = true;
    }
}

/* ---- watching ---- */

static CH_WAITS void wait_a_while(struct life *life, uint32_t ms)
{
    ch_time deadline = ch_in(life->env, ms * CH_MS);

    while (!over(life->task) && ch_now(life->env) < deadline)
        if (ch_cond_wait(&life->task->changed, deadline) == CH_CANCELLED)
            return;
}

static CH_WAITS void ports_wait(struct life *life)
{
    struct clu_agent_task *task = life->task;

    while (!over(task) && !*task->endpoint) {
        struct base_status status = clu__agent_ports_read(task);

        if (base_failed(status))
            ch_warn(life->env, "task " NAME_FMT ": %s", NAME_ARGS(task), base_status_text(&status));
        base_status_free(&status);
        if (*task->endpoint) {
            const char *colon = strrchr(task->endpoint, ':');

            task->port = colon ? (uint32_t)strtoul(colon + 1, NULL, 10) : 0;
            clu__agent_save(task->agent);
            clu__agent_dirty(task->agent);
            return;
        }
        wait_a_while(life, PORTS_POLL_MS);
    }
}

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
    return value ? value : fallback;
}

/* One check: *reachable: it answered at all. */
static CH_WAITS bool health_check(struct life *life, struct ch_client *client, uint32_t timeout_ms,
                                  bool *reachable)
{
    struct ch_call_options options = { .deadline = ch_in(life->env, timeout_ms * CH_MS),
                                       .no_retry = true };
    Grpc__Health__V1__HealthCheckRequest request;
    Grpc__Health__V1__HealthCheckResponse *response = NULL;
    struct base_arena arena;
    struct base_status status;
    bool healthy;

    base_arena_init(&arena);
    grpc__health__v1__health_check_request__init(&request);
    status = ch_client_call(
        client, &grpc__health__v1__health__service.methods[GRPC__HEALTH__V1__HEALTH__CHECK],
        &request, &options, &arena, (void **)&response);
    *reachable = status.code != BASE_UNAVAILABLE && status.code != BASE_DEADLINE_EXCEEDED &&
                 status.code != BASE_CANCELLED;
    healthy = !base_failed(status) &&
              response->status == GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    base_status_free(&status);
    base_arena_free(&arena);
    return healthy;
}

/* Until the process ends, is replaced or unwanted; one that answers nothing for too long is
 * killed. */
static CH_WAITS void health_watch(struct life *life)
{
    struct clu_agent_task *task = life->task;
    const CLU_PB(HealthCheck) *spec = task->assignment->spec->health;
    uint32_t interval = or_default(spec ? spec->interval_ms : 0, CLU_HEALTH_INTERVAL_MS);
    uint32_t timeout = or_default(spec ? spec->timeout_ms : 0, CLU_HEALTH_TIMEOUT_MS);
    uint32_t failures_max = or_default(spec ? spec->unhealthy_after : 0, CLU_HEALTH_FAILURES);
    ch_time unreachable_max =
        or_default(spec ? spec->restart_after_ms : 0, CLU_UNREACHABLE_MS) * CH_MS;
    ch_time reached = ch_now(life->env);
    struct ch_client *client = ch_client_new(life->env, task->endpoint, NULL);
    uint32_t failures = 0, wait_ms = HEALTH_FIRST_MS;

    if (!task->unchecked)
        state_set(task, CLU_TASK(RUNNING), task->healthy);
    while (!over(task)) {
        bool reachable = false, healthy = health_check(life, client, timeout, &reachable);

        if (over(task))
            break;
        failures = healthy ? 0 : failures + 1;
        ch_count(task->agent->metrics.health_failures, !healthy);
        if (healthy || failures >= failures_max || !task->healthy)
            state_set(task, CLU_TASK(RUNNING), healthy);
        if (reachable)
            reached = ch_now(life->env);
        if (ch_now(life->env) - reached > unreachable_max) {
            ch_warn(life->env, "task " NAME_FMT ": has not answered for too long, killed",
                    NAME_ARGS(task));
            base_status_drop(ch_process_signal(task->run->process, SIGKILL));
            reached = ch_now(life->env);
        }
        wait_ms = healthy || wait_ms >= interval ? interval : wait_ms * 2;
        wait_a_while(life, wait_ms < interval ? wait_ms : interval);
    }
    ch_client_free(client);
}

/* ---- a round ---- */

static CH_WAITS void backoff_wait(struct life *life)
{
    struct clu_agent_task *task = life->task;
    const CLU_PB(RestartPolicy) *policy = task->assignment->spec->restart;
    uint32_t least = or_default(policy ? policy->backoff_min_ms : 0, CLU_BACKOFF_MIN_MS);
    uint32_t most = or_default(policy ? policy->backoff_max_ms : 0, CLU_BACKOFF_MAX_MS);
    ch_time deadline;

    if (life->backoff_ms == 0 || ch_now(life->env) - life->began > CLU_SETTLED_MS * CH_MS)
        life->backoff_ms = least;
    deadline = ch_in(life->env, life->backoff_ms * CH_MS);
    life->backoff_ms = life->backoff_ms > most / 2 ? most : life->backoff_ms * 2;
    state_set(task, CLU_TASK(BACKOFF), false);
    while (task->wanted && !task->replaced && !clu__agent_task_held(task) &&
           ch_now(life->env) < deadline)
        if (ch_cond_wait(&task->changed, deadline) == CH_CANCELLED)
            return;
}

/* Ended and not to start again: until something else is wanted. */
static CH_WAITS void ended_wait(struct clu_agent_task *task)
{
    state_set(task, CLU_TASK(ENDED), false);
    while (task->wanted && !task->replaced)
        if (ch_cond_wait(&task->changed, CH_NEVER) == CH_CANCELLED)
            return;
}

/* The machine is being drained: for as long as this agent lives. */
static CH_WAITS void held_wait(struct clu_agent_task *task)
{
    state_set(task, CLU_TASK(ENDED), false);
    while (task->wanted && clu__agent_task_held(task))
        if (ch_cond_wait(&task->changed, CH_NEVER) == CH_CANCELLED)
            return;
}

static CH_WAITS void round_end(struct life *life)
{
    struct clu_agent_task *task = life->task;
    bool asked = !task->wanted || task->replaced || clu__agent_task_held(task);

    exit_describe(task);
    ch_count(task->agent->metrics.exits, 1);
    ch_info(life->env, "task " NAME_FMT ": pid %" PRId64 " %s%s", NAME_ARGS(task), task->pid,
            task->last_exit, asked ? " (asked to)" : "");
    run_end(task);
    clu__agent_run_ended(task);
    task->pid = 0;
    if (asked)
        return;
    if (!*task->endpoint) /* it never came up; maybe its port is taken */
        task->port = 0;
    task->restarts++;
    state_set(task, CLU_TASK(BACKOFF), false);
    clu__agent_dirty(task->agent);
    clu__agent_save(task->agent);
    if (task->assignment->spec->restart && task->assignment->spec->restart->never)
        ended_wait(task);
    else
        backoff_wait(life);
}

static CH_WAITS void task_round(struct life *life, bool adopt)
{
    struct clu_agent_task *task = life->task;
    struct base_status status;

    if (task->replaced) { /* nothing of the former runs any more */
        task->replaced = false;
        task->restarts = 0;
        life->backoff_ms = 0;
    }
    status = run_begin(life, adopt);
    if (base_failed(status)) {
        if (!adopt) {
            ch_warn(life->env, "task " NAME_FMT ": %s", NAME_ARGS(task), base_status_text(&status));
            clu__str_set(&task->last_exit, base_bytes_str(base_status_text(&status)));
            task->restarts++;
            clu__agent_dirty(task->agent);
        }
        base_status_free(&status);
        if (!adopt)
            backoff_wait(life);
        return;
    }
    ports_wait(life);
    if (!over(task))
        health_watch(life);
    if (!ch_cancelled() && !task->run->exited)
        process_stop(life);
    if (task->run->exited)
        round_end(life);
    else
        run_end(task); /* the agent stops; the process stays, and on record */
}

void clu__agent_task_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct clu_agent_task *task = arg;
    struct clu_agent *agent = task->agent;
    struct life life = { .task = task, .env = agent->env };
    bool adopt = task->pid != 0;

    while (!ch_cancelled() && task->wanted) {
        if (!clu__agent_task_held(task) || adopt)
            task_round(&life, adopt);
        else
            held_wait(task);
        adopt = false;
    }
    if (ch_cancelled())
        return;
    clu__agent_task_free(task);
    clu__agent_save(agent);
    clu__agent_dirty(agent);
}
