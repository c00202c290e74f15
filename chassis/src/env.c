/* env.c: the env's calls, handed to its implementation, and what is built on them alone. */
#include "env_int.h"

#include <stdlib.h>
#include <string.h>

ch_time ch_now(struct ch_env *env)
{
    return env->ops->now(env);
}

int64_t ch_wall_us(struct ch_env *env)
{
    return env->ops->wall_us(env);
}

uint64_t ch_random(struct ch_env *env)
{
    return env->ops->random(env);
}

uint64_t ch_random_below(struct ch_env *env, uint64_t bound)
{
    BASE_ASSERT(bound > 0);
    return (uint64_t)(((unsigned __int128)ch_random(env) * bound) >> 64);
}

enum ch_outcome ch_sleep_until(struct ch_env *env, ch_time deadline)
{
    struct ch_wait_node node = { 0 };
    return ch_wait_on(NULL, &node, deadline, false, "sleep");
}

const struct ch_transport *ch_env_transport(struct ch_env *env)
{
    return env->ops->transport;
}

void ch_env_post(struct ch_env *env, struct ch_post *post)
{
    env->ops->post(env, post);
}

void ch_offload(struct ch_env *env, void (*fn)(void *arg), void *arg)
{
    env->ops->offload(env, fn, arg);
}

void ch__env_free_ext(struct ch_env *env)
{
    for (size_t i = CH_EXT_COUNT; i-- > 0;)
        if (env->ext[i]) {
            env->ext_free[i](env->ext[i]);
            env->ext[i] = NULL;
        }
}

void ch_env_stop_main(struct ch_env *env)
{
    ch_gate_cancel(&env->main_gate);
}

/* ---- files ---- */

struct base_status ch_file_open(struct ch_env *env, const char *path, int flags,
                                struct ch_file **file)
{
    return env->ops->file_open(env, path, flags, file);
}

struct base_status ch_file_read(struct ch_file *file, uint64_t offset, void *data, size_t len,
                                size_t *got)
{
    return file->env->ops->file_read(file, offset, data, len, got);
}

struct base_status ch_file_write(struct ch_file *file, uint64_t offset,
                                 const struct base_bytes *parts, size_t part_count, bool durable)
{
    return file->env->ops->file_write(file, offset, parts, part_count, durable);
}

struct base_status ch_file_sync(struct ch_file *file)
{
    return file->env->ops->file_sync(file);
}

struct base_status ch_file_allocate(struct ch_file *file, uint64_t offset, uint64_t len)
{
    return file->env->ops->file_allocate(file, offset, len);
}

struct base_status ch_file_truncate(struct ch_file *file, uint64_t size)
{
    return file->env->ops->file_truncate(file, size);
}

struct base_status ch_file_cut_front(struct ch_file *file, uint64_t bytes)
{
    BASE_ASSERT(bytes % CH_FILE_CUT_UNIT == 0);
    if (!file->env->ops->file_cut_front)
        return base_status_make(BASE_UNIMPLEMENTED, "a simulated file's front cannot be cut off");
    return file->env->ops->file_cut_front(file, bytes);
}

struct base_status ch_file_size(struct ch_file *file, uint64_t *size)
{
    return file->env->ops->file_size(file, size);
}

struct base_status ch_file_lock(struct ch_file *file)
{
    return file->env->ops->file_lock(file);
}

void ch_file_close(struct ch_file *file)
{
    if (file)
        file->env->ops->file_close(file);
}

struct base_status ch_dir_list(struct ch_env *env, const char *path, struct base_arena *arena,
                               char ***names, size_t *count)
{
    return env->ops->dir_list(env, path, arena, names, count);
}

struct base_status ch_dir_sync(struct ch_env *env, const char *path)
{
    return env->ops->dir_sync(env, path);
}

struct base_status ch_file_rename(struct ch_env *env, const char *from, const char *to)
{
    return env->ops->file_rename(env, from, to);
}

struct base_status ch_file_remove(struct ch_env *env, const char *path)
{
    return env->ops->file_remove(env, path);
}

struct base_status ch_disk_space(struct ch_env *env, const char *path, uint64_t *total,
                                 uint64_t *available)
{
    return env->ops->disk_space(env, path, total, available);
}

static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *parent = slash == path ? strdup("/")
                   : slash       ? strndup(path, (size_t)(slash - path))
                                 : strdup(".");
    BASE_ASSERT(parent != NULL);
    return parent;
}

struct base_status ch_dir_make(struct ch_env *env, const char *path)
{
    char *part = strdup(path);
    BASE_ASSERT(part != NULL);
    struct base_status status = BASE_STATUS_OK;
    for (char *at = part + 1; !base_failed(status); at++) {
        bool last = *at == 0;
        if (!last && *at != '/')
            continue;
        *at = 0;
        status = env->ops->dir_make(env, part);
        if (last)
            break;
        *at = '/';
    }
    free(part);
    return status;
}

struct base_status ch_file_read_all(struct ch_env *env, const char *path, size_t max,
                                    struct base_buf *out)
{
    struct ch_file *file;
    uint64_t size = 0;
    struct base_status status = ch_file_open(env, path, CH_FILE_READ, &file);
    if (base_failed(status))
        return status;
    status = ch_file_size(file, &size);
    if (!base_failed(status) && size > max)
        status = base_status_make(BASE_RESOURCE_EXHAUSTED, "%s: %llu bytes, the limit is %zu", path,
                                  (unsigned long long)size, max);
    if (!base_failed(status)) {
        size_t before = out->len, got = 0;
        uint8_t *at = base_buf_extend(out, (size_t)size);
        status = ch_file_read(file, 0, at, (size_t)size, &got);
        out->len = base_failed(status) ? before : before + got;
    }
    ch_file_close(file);
    return status;
}

struct base_status ch_file_write_all(struct ch_env *env, const char *path, struct base_bytes data)
{
    struct ch_file *file;
    struct base_buf temporary = { 0 };
    base_buf_printf(&temporary, "%s.new", path);
    base_buf_put_u8(&temporary, 0);
    const char *name = (const char *)temporary.data;
    struct base_status status =
        ch_file_open(env, name, CH_FILE_WRITE | CH_FILE_CREATE | CH_FILE_TRUNCATE, &file);
    if (!base_failed(status)) {
        status = ch_file_write(file, 0, &data, 1, true);
        ch_file_close(file);
    }
    if (!base_failed(status))
        status = ch_file_rename(env, name, path);
    if (!base_failed(status)) {
        char *parent = parent_of(path);
        status = ch_dir_sync(env, parent);
        free(parent);
    }
    base_buf_free(&temporary);
    return status;
}
