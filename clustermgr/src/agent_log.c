/* agent_log.c: tasks' logs. A task's stdout and stderr are appended to logs/JOB.INDEX.log by the
 * process itself; at log-bytes the file is copied to .log.1 and cut to nothing (the process keeps
 * its open, appending file, so it cannot be renamed away: what is written between the copy and
 * the cut is lost). Offsets count from the task's first byte: log_begin is what was cut away so
 * far. */
#include <inttypes.h>
#include <stdlib.h>

#include "agent.h"
#include "chassis/log.h"

enum { ROTATE_MS = 2000, READ_DEFAULT = 64 << 10 };

static CH_WAITS struct base_status rotate(struct clu_agent *agent, const char *path, uint64_t most,
                                          uint64_t *cut)
{
    struct ch_file *file = NULL;
    struct base_buf bytes = { 0 }, older = { 0 };
    uint64_t size = 0;
    struct base_status status = ch_file_open(agent->env, path, CH_FILE_READ | CH_FILE_WRITE, &file);

    if (base_failed(status))
        return status;
    status = ch_file_size(file, &size);
    if (!base_failed(status) && size > most) {
        base_buf_printf(&older, "%s.1", path);
        base_buf_put_u8(&older, 0);
        status = ch_file_read_all(agent->env, path, SIZE_MAX, &bytes);
        if (!base_failed(status))
            status =
                ch_file_write_all(agent->env, (const char *)older.data, base_buf_bytes(&bytes));
        if (!base_failed(status))
            status = ch_file_truncate(file, 0);
        if (!base_failed(status))
            *cut = bytes.len;
    }
    ch_file_close(file);
    base_buf_free(&bytes);
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
    base_status_drop(rotate(agent, path, agent->config->log_bytes,
                            &cut)); /* not there yet; or the disk is full: later */
    task = cut > 0 ? clu__agent_task_find(agent, job, index) : NULL;
    if (task) {
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

struct base_status clu__agent_read_log(void *self, struct ch_call *call, const void *message,
                                       void **out)
{
    struct clu_agent *agent = self;
    const CLU_PB(ReadLogRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    CLU_PB(ReadLogReply) *reply = CLU_NEW(arena, ReadLogReply, read_log_reply);
    struct clu_agent_task *task =
        clu__agent_task_find(agent, ch_bytes_of(request->job), request->index);
    uint64_t size = 0, begin, offset = request->offset;
    uint32_t most = request->bytes_max ? request->bytes_max : READ_DEFAULT;
    struct ch_file *file = NULL;
    uint8_t *data;
    size_t got = 0;
    struct base_status status;

    if (!task)
        return base_status_make(BASE_NOT_FOUND, "there is no task %s/%" PRIu32 " on this machine",
                                base_bytes_show(arena, ch_bytes_of(request->job), 64),
                                request->index);
    begin = task->log_begin;
    most = most < CLU_LOG_READ_MAX ? most : CLU_LOG_READ_MAX;
    status = ch_file_open(agent->env, clu__agent_log_path(task, arena), CH_FILE_READ, &file);
    if (base_failed(status))
        return status;
    status = ch_file_size(file, &size);
    if (request->from_end)
        offset = request->offset < size ? begin + size - request->offset : begin;
    if (offset < begin)
        offset = begin;
    if (offset > begin + size)
        offset = begin + size;
    data = base_arena_alloc(arena, most);
    if (!base_failed(status))
        status = ch_file_read(file, offset - begin, data, most, &got);
    ch_file_close(file);
    reply->offset = offset;
    reply->data = ch_data_of(base_bytes(data, got));
    reply->next_offset = offset + got;
    *out = reply;
    return status;
}
