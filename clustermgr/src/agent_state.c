/* agent_state.c: the agent's state file, and what /proc says of its tasks' processes.
 *
 * The file is written whole at each start, stop and change of ports (ch_file_write_all: old or
 * new, never between). A process is told from a later one of the same pid by its start time. One
 * that was started right before the agent was killed, and so is not in the file, is found by its
 * environment and killed: it is started again, on record. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent.h"
#include "chassis/log.h"

enum { PROC_FILE_MAX = 64 << 10 };

static const char *state_path(const struct clu_agent *agent, struct base_arena *arena)
{
    return base_arena_printf(arena, "%s/agent-state", agent->dir);
}

/* ---- the file ---- */

static CLU_PB(AgentState) * state_message(struct clu_agent *agent, struct base_arena *arena)
{
    CLU_PB(AgentState) *out = CLU_NEW(arena, AgentState, agent_state);
    struct clu_agent_task *task;
    size_t count = 0;

    TAILQ_FOREACH(task, &agent->tasks, entry)
    count++;
    out->cell_id = ch_data_str(agent->cell_id);
    out->tasks = BASE_NEW_ARRAY(arena, CLU_PB(AgentTask) *, count + 1);
    TAILQ_FOREACH(task, &agent->tasks, entry)
    {
        CLU_PB(AgentTask) *record = out->tasks[out->n_tasks++] =
            CLU_NEW(arena, AgentTask, agent_task);

        record->assignment = task->assignment;
        record->pid = task->pid;
        record->start_time = task->start_time;
        record->port = task->port;
        record->restarts = task->restarts;
        record->endpoint = ch_data_str(task->endpoint);
        record->admin = ch_data_str(task->admin);
        record->log_begin = task->log_begin;
        record->run = ch_data_str(task->run_name);
    }
    return out;
}

/* A failure is logged: the tasks run on, but an agent that came next would not know of the
 * change. */
void clu__agent_save(struct clu_agent *agent)
{
    struct base_arena arena;
    struct base_buf bytes = { 0 };
    struct base_status status;

    ch_mutex_lock_always(&agent->saving);
    base_arena_init(&arena);
    ch_proto_encode(&state_message(agent, &arena)->base, &bytes);
    status = ch_file_write_all(agent->env, state_path(agent, &arena), base_buf_bytes(&bytes));
    if (base_failed(status))
        ch_warn(agent->env, "state file: %s", base_status_text(&status));
    base_status_free(&status);
    base_buf_free(&bytes);
    base_arena_free(&arena);
    ch_mutex_unlock(&agent->saving);
}

struct base_status clu__agent_load(struct clu_agent *agent)
{
    struct base_arena arena;
    struct base_buf bytes = { 0 };
    ProtobufCMessage *message = NULL;
    struct base_status status;

    base_arena_init(&arena);
    status = ch_file_read_all(agent->env, state_path(agent, &arena), CLU_AGENT_STATE_MAX, &bytes);
    if (status.code == BASE_NOT_FOUND) {
        base_status_free(&status);
        base_arena_free(&arena);
        return BASE_STATUS_OK;
    }
    if (!base_failed(status))
        status =
            ch_proto_decode(CLU_DESCRIPTOR(agent_state), base_buf_bytes(&bytes), &arena, &message);
    if (!base_failed(status)) {
        const CLU_PB(AgentState) *state = (void *)message;

        clu__str_set(&agent->cell_id, ch_bytes_of(state->cell_id));
        for (size_t i = 0; i < state->n_tasks; i++) {
            const CLU_PB(AgentTask) *record = state->tasks[i];
            struct clu_agent_task *task;

            if (!record->assignment || !record->assignment->spec)
                continue;
            task = clu__agent_task_new(agent, record->assignment);
            task->pid = record->pid;
            task->start_time = record->start_time;
            task->port = record->port;
            task->restarts = record->restarts;
            task->log_begin = record->log_begin;
            clu__str_set(&task->run_name, ch_bytes_of(record->run));
            if (record->pid != 0) {
                clu__str_set(&task->endpoint, ch_bytes_of(record->endpoint));
                clu__str_set(&task->admin, ch_bytes_of(record->admin));
                task->unchecked = true;
            }
        }
    }
    base_buf_free(&bytes);
    base_arena_free(&arena);
    return base_status_wrap(status, "state file");
}

/* ---- /proc ---- */

/* Files there have no size: read until there is no more. False when it cannot be read (the
 * process has gone). */
static CH_WAITS bool proc_read(struct clu_agent *agent, const char *path, struct base_buf *out)
{
    struct ch_file *file = NULL;
    size_t got = 1;
    struct base_status status = ch_file_open(agent->env, path, CH_FILE_READ, &file);

    base_buf_clear(out);
    while (!base_failed(status) && got > 0 && out->len < PROC_FILE_MAX) {
        size_t before = out->len;
        uint8_t *at = base_buf_extend(out, 4096);

        got = 0;
        status = ch_file_read(file, before, at, 4096, &got);
        out->len = before + got;
    }
    if (file)
        ch_file_close(file);
    base_buf_put_u8(out, 0);
    return base_status_drop(status) == BASE_OK;
}

/* Field `number` (from 3 on) of a stat file: what follows the name's closing bracket. 0 when it
 * is not there. */
static uint64_t stat_field(const struct base_buf *stat, int number)
{
    const char *at = strrchr((const char *)stat->data, ')');

    for (int field = 2; at && field < number; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at + 1, NULL, 10) : 0;
}

static bool environ_has(const struct base_buf *environ_text, const char *item, bool whole)
{
    const char *at = (const char *)environ_text->data, *end = at + environ_text->len;
    size_t len = strlen(item);

    for (; at < end; at += strlen(at) + 1)
        if (strncmp(at, item, len) == 0 && (!whole || at[len] == '\0'))
            return true;
    return false;
}

bool clu__agent_run_is(struct clu_agent_task *task)
{
    struct base_buf text = { 0 };
    struct base_arena arena;
    bool is;

    base_arena_init(&arena);
    is = proc_read(task->agent, base_arena_printf(&arena, "/proc/%" PRId64 "/environ", task->pid),
                   &text) &&
         environ_has(&text, base_arena_printf(&arena, "STRATA_RUN=%s", task->run_name), true);
    base_buf_free(&text);
    base_arena_free(&arena);
    return is;
}

static bool known(const struct clu_agent *agent, int64_t pid, uint64_t start_time)
{
    const struct clu_agent_task *task;

    TAILQ_FOREACH(task, &agent->tasks, entry)
    if (task->pid == pid && task->start_time == start_time)
        return true;
    return false;
}

void clu__agent_orphans_kill(struct clu_agent *agent)
{
    struct base_arena arena;
    struct base_buf text = { 0 };
    char **names = NULL;
    size_t count = 0;
    const char *mark;
    struct base_status status;

    base_arena_init(&arena);
    mark = base_arena_printf(&arena, "STRATA_AGENT_DIR=%s", agent->dir);
    status = ch_dir_list(agent->env, "/proc", &arena, &names, &count);
    for (size_t i = 0; !base_failed(status) && i < count; i++) {
        int64_t pid = strtoll(names[i], NULL, 10);
        struct ch_process *process = NULL;
        uint64_t start_time;

        if (pid <= 0 || pid == getpid() ||
            !proc_read(agent, base_arena_printf(&arena, "/proc/%s/environ", names[i]), &text) ||
            !environ_has(&text, mark, true) || !environ_has(&text, "STRATA_TASK=", false))
            continue;
        if (!proc_read(agent, base_arena_printf(&arena, "/proc/%s/stat", names[i]), &text))
            continue;
        start_time = stat_field(&text, 22);
        if (known(agent, pid, start_time) ||
            base_status_drop(ch_process_adopt(agent->env, pid, start_time, &process)) != BASE_OK)
            continue;
        ch_warn(agent->env,
                "pid %" PRId64 " is a task of this machine that is not on record: killed", pid);
        base_status_drop(ch_process_signal(process, SIGKILL));
        ch_process_free(process);
    }
    base_status_free(&status);
    base_buf_free(&text);
    base_arena_free(&arena);
}

/* ---- usage ---- */

static CH_WAITS void usage_read(struct clu_agent *agent, int64_t pid, struct base_buf *text,
                                uint64_t *ticks, uint64_t *pages)
{
    char path[64];

    *ticks = *pages = 0;
    snprintf(path, sizeof(path), "/proc/%" PRId64 "/stat", pid);
    if (!proc_read(agent, path, text))
        return;
    *ticks = stat_field(text, 14) + stat_field(text, 15);
    *pages = stat_field(text, 24);
}

void clu__agent_usage_read(struct clu_agent *agent)
{
    struct base_buf text = { 0 };
    struct base_arena arena;
    int64_t *pids;
    size_t count = 0;
    struct clu_agent_task *task;
    uint64_t ticks_per_s = (uint64_t)sysconf(_SC_CLK_TCK), page = (uint64_t)sysconf(_SC_PAGESIZE);

    /* The list may change at each wait: pids first, then look each task up again. */
    base_arena_init(&arena);
    TAILQ_FOREACH(task, &agent->tasks, entry)
    count++;
    pids = BASE_NEW_ARRAY(&arena, int64_t, count + 1);
    count = 0;
    TAILQ_FOREACH(task, &agent->tasks, entry)
    if (task->run)
        pids[count++] = task->pid;
    for (size_t i = 0; i < count; i++) {
        uint64_t ticks, pages;
        ch_time now;

        usage_read(agent, pids[i], &text, &ticks, &pages);
        now = ch_now(agent->env);
        TAILQ_FOREACH(task, &agent->tasks, entry)
        {
            if (!task->run || task->pid != pids[i])
                continue;
            if (task->cpu_at && ticks >= task->cpu_ticks && now > task->cpu_at)
                task->cpu_millis_used = (ticks - task->cpu_ticks) * 1000 * (uint64_t)CH_S /
                                        ticks_per_s / (uint64_t)(now - task->cpu_at);
            task->cpu_ticks = ticks;
            task->cpu_at = now;
            task->memory_bytes_used = pages * page;
        }
    }
    base_buf_free(&text);
    base_arena_free(&arena);
}
