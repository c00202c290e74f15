/* agent_log.c: tasks' logs. A task's stdout and stderr are appended to logs/JOB.INDEX.log by the
 * process itself, which keeps its open, appending file, so it cannot be renamed away, and outlives
 * the agent, so it cannot write into a pipe of ours. At log-bytes all but the end is copied to
 * .log.1 and cut off the file's front, while the process writes on: no byte is lost. (A piece ends
 * at a multiple of 64 KiB, maybe within a line.) On a file system that cannot do that, the file is
 * copied and cut to nothing, and what is written between the two is lost. Offsets count from the
 * task's first byte: log_begin is what was cut away so far. */
#include <inttypes.h>
#include <stdlib.h>

#include "agent.h"
#include "chassis/log.h"

enum { ROTATE_MS = 2000, READ_DEFAULT = 64 << 10, READ_TRIES = 50, READ_AGAIN_MS = 20 };

/* What is to be cut off: all but the last unit, at least one byte of which must stay. */
static uint64_t cut_of(uint64_t size)
{
    return size > 0 ? (size - 1) / CH_FILE_CUT_UNIT * CH_FILE_CUT_UNIT : 0;
}

/* Copies the front, then cuts it off; *cut: how much. */
static CH_WAITS struct base_status cut_front(struct clu_agent *agent, struct ch_file *file,
                                             const char *older, uint64_t size, uint64_t *cut)
{
    uint64_t bytes = cut_of(size);
    struct base_buf front = { 0 };
    size_t got = 0;
    struct base_status status = ch_file_read(file, 0, base_buf_extend(&front, bytes), bytes, &got);

    if (!base_failed(status))
        status = ch_file_write_all(agent->env, older, base_buf_bytes(&front));
    base_buf_free(&front);
    if (!base_failed(status))
        status = ch_file_cut_front(file, bytes);
    if (status.code == BASE_UNIMPLEMENTED) {
        base_status_free(&status);
        status = ch_file_truncate(file, 0);
        bytes = size;
    }
    *cut = base_failed(status) ? 0 : bytes;
    return status;
}

static CH_WAITS struct base_status rotate(struct clu_agent *agent, const char *path, uint64_t most,
                                          uint64_t *cut)
{
    struct ch_file *file = NULL;
    struct base_buf older = { 0 };
    uint64_t size = 0;
    struct base_status status = ch_file_open(agent->env, path, CH_FILE_READ | CH_FILE_WRITE, &file);

    if (base_failed(status))
        return status;
    status = ch_file_size(file, &size);
    if (!base_failed(status) && size > most && cut_of(size) > 0) {
        base_buf_printf(&older, "%s.1", path);
        base_buf_put_u8(&older, 0);
        status = cut_front(agent, file, (const char *)older.data, size, cut);
    }
    ch_file_close(file);
    base_buf_free(&older);
    return status;
}

/* Rotates the log of the task at place `which` in the list; false when there is none. */
static CH_WAITS bool rotate_one(struct clu_agent *agent, size_t which)
{
    struct clu_agent_task *task = TAILQ_FIRST(&agent->tasks);
    struct base_arena arena;
    uint32_t index;
    uint64_t cut = 0;
    struct base_bytes job;
    char *path;

    while (task && which-- > 0)
        task = TAILQ_NEXT(task, entry);
    if (!task)
        return false;
    base_arena_init(&arena);
    path = clu__agent_log_path(task, &arena);
    job = base_bytes_dup(&arena, ch_bytes_of(task->assignment->spec->name));
    index = task->assignment->index;
    task->log_cutting = true;
    base_status_drop(rotate(agent, path, agent->config->log_bytes,
                            &cut)); /* not there yet; or the disk is full: later */
    task = clu__agent_task_find(agent, job, index);
    if (task)
        task->log_cutting = false;
    if (task && cut > 0) {
        task->log_begin += cut;
        clu__agent_save(agent);
    }
    base_arena_free(&arena);
    return true;
}

void clu__agent_logs_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct clu_agent *agent = arg;

    while (!ch_cancelled()) {
        for (size_t which = 0; rotate_one(agent, which); which++)
            if (ch_cancelled())
                return;
        if (ch_sleep_until(agent->env, ch_in(agent->env, ROTATE_MS * CH_MS)) != CH_TIMEOUT)
            return;
    }
}

/* One look at the log; false: it was cut meanwhile, and what was read cannot be placed. */
static CH_WAITS bool read_once(struct clu_agent_task *task, const CLU_PB(ReadLogRequest) * request,
                               struct base_arena *arena, CLU_PB(ReadLogReply) * reply,
                               struct base_status *status)
{
    struct clu_agent *agent = task->agent;
    uint64_t size = 0, begin = task->log_begin, offset = request->offset;
    uint32_t most = request->bytes_max ? request->bytes_max : READ_DEFAULT;
    struct ch_file *file = NULL;
    uint8_t *data;
    size_t got = 0;

    most = most < CLU_LOG_READ_MAX ? most : CLU_LOG_READ_MAX;
    *status = ch_file_open(agent->env, clu__agent_log_path(task, arena), CH_FILE_READ, &file);
    if (base_failed(*status))
        return true;
    *status = ch_file_size(file, &size);
    if (request->from_end)
        offset = request->offset < size ? begin + size - request->offset : begin;
    if (offset < begin)
        offset = begin;
    if (offset > begin + size)
        offset = begin + size;
    data = base_arena_alloc(arena, most);
    if (!base_failed(*status))
        *status = ch_file_read(file, offset - begin, data, most, &got);
    ch_file_close(file);
    reply->offset = offset;
    reply->data = ch_data_of(base_bytes(data, got));
    reply->next_offset = offset + got;
    task = clu__agent_task_find(agent, ch_bytes_of(request->job), request->index);
    return !task || base_failed(*status) || (!task->log_cutting && task->log_begin == begin);
}

struct base_status clu__agent_read_log(void *self, struct ch_call *call, const void *message,
                                       void **out)
{
    struct clu_agent *agent = self;
    const CLU_PB(ReadLogRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    CLU_PB(ReadLogReply) *reply = CLU_NEW(arena, ReadLogReply, read_log_reply);

    for (int tries = 1;; tries++) {
        struct clu_agent_task *task =
            clu__agent_task_find(agent, ch_bytes_of(request->job), request->index);
        struct base_status status = BASE_STATUS_OK;

        if (!task)
            return base_status_make(
                BASE_NOT_FOUND, "there is no task %s/%" PRIu32 " on this machine",
                base_bytes_show(arena, ch_bytes_of(request->job), 64), request->index);
        *out = reply;
        if (read_once(task, request, arena, reply, &status))
            return status;
        base_status_free(&status);
        if (tries == READ_TRIES ||
            ch_sleep_until(agent->env, ch_in(agent->env, READ_AGAIN_MS * CH_MS)) != CH_TIMEOUT)
            return base_status_make(BASE_UNAVAILABLE, "the log is being rotated");
    }
}
