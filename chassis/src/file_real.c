/* file_real.c: file system calls of the real env. Each is one trip to a helper thread (env_real.c):
 * a struct request says what to do, runs there, and leaves an errno. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "env_real.h"

enum { PARTS_A_CALL = 64, ZEROES = 1 << 20 };

struct real_file {
    struct ch_file file;
    int fd;
    char *path;
};

struct request {
    int fd, flags, err;
    const char *path, *to;
    uint64_t offset, len;
    void *data;
    size_t got;
    const struct base_bytes *parts;
    size_t part_count;
    bool durable;
    uint64_t total, available;
    struct base_arena *arena;
    char **names;
    size_t name_count;
};

static struct base_status outcome(const struct request *request, const char *what, const char *path)
{
    if (request->err == 0)
        return BASE_STATUS_OK;
    return base_status_wrap(base_status_errno(request->err, what), "%s", path);
}

static struct real_file *real_of(struct ch_file *file)
{
    return (struct real_file *)file;
}

/* ---- on the helper thread ---- */

static void do_open(void *arg)
{
    struct request *r = arg;
    int flags = O_CLOEXEC;
    flags |=
        (r->flags & CH_FILE_WRITE) ? ((r->flags & CH_FILE_READ) ? O_RDWR : O_WRONLY) : O_RDONLY;
    flags |= (r->flags & CH_FILE_CREATE) ? O_CREAT : 0;
    flags |= (r->flags & CH_FILE_EXCLUSIVE) ? O_EXCL : 0;
    flags |= (r->flags & CH_FILE_TRUNCATE) ? O_TRUNC : 0;
    r->fd = open(r->path, flags, 0644);
    r->err = r->fd < 0 ? errno : 0;
}

static void do_read(void *arg)
{
    struct request *r = arg;
    while (r->got < r->len) {
        ssize_t n =
            pread(r->fd, (char *)r->data + r->got, r->len - r->got, (off_t)(r->offset + r->got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            r->err = errno;
        if (n <= 0)
            return;
        r->got += (size_t)n;
    }
}

/* Writes some of the parts from part i on, `skip` bytes into it; returns bytes written or -1. */
static ssize_t write_some(struct request *r, size_t i, size_t skip, uint64_t offset)
{
    struct iovec iov[PARTS_A_CALL];
    int count = 0;
    for (; i < r->part_count && count < PARTS_A_CALL; i++, skip = 0)
        if (r->parts[i].len > skip)
            iov[count++] =
                (struct iovec){ (void *)(r->parts[i].data + skip), r->parts[i].len - skip };
    return count ? pwritev(r->fd, iov, count, (off_t)offset) : 0;
}

static void do_write(void *arg)
{
    struct request *r = arg;
    size_t part = 0, skip = 0;
    uint64_t offset = r->offset;
    while (part < r->part_count) {
        if (skip >= r->parts[part].len) {
            skip -= r->parts[part++].len;
            continue;
        }
        ssize_t n = write_some(r, part, skip, offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            r->err = n < 0 ? errno : EIO;
            return;
        }
        offset += (uint64_t)n;
        skip += (size_t)n;
    }
    if (r->durable && fdatasync(r->fd) != 0)
        r->err = errno;
}

static void do_sync(void *arg)
{
    struct request *r = arg;
    r->err = fdatasync(r->fd) ? errno : 0;
}

static void do_allocate(void *arg)
{
    struct request *r = arg;
    static const uint8_t zeroes[ZEROES];
    for (uint64_t done = 0; done < r->len && !r->err;) {
        size_t part = r->len - done < ZEROES ? (size_t)(r->len - done) : ZEROES;
        ssize_t n = pwrite(r->fd, zeroes, part, (off_t)(r->offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            r->err = n < 0 ? errno : EIO;
        else
            done += (uint64_t)n;
    }
    if (!r->err && fsync(r->fd) != 0)
        r->err = errno;
}

static void do_truncate(void *arg)
{
    struct request *r = arg;
    r->err = ftruncate(r->fd, (off_t)r->len) ? errno : 0;
}

static void do_cut_front(void *arg)
{
    struct request *r = arg;
    r->err = fallocate(r->fd, FALLOC_FL_COLLAPSE_RANGE, 0, (off_t)r->len) ? errno : 0;
}

static void do_size(void *arg)
{
    struct request *r = arg;
    struct stat info;
    r->err = fstat(r->fd, &info) ? errno : 0;
    if (!r->err)
        r->len = (uint64_t)info.st_size;
}

static void do_lock(void *arg)
{
    struct request *r = arg;
    r->err = flock(r->fd, LOCK_EX | LOCK_NB) ? errno : 0;
}

static void do_close(void *arg)
{
    struct request *r = arg;
    close(r->fd);
}

static void do_mkdir(void *arg)
{
    struct request *r = arg;
    r->err = mkdir(r->path, 0755) != 0 && errno != EEXIST ? errno : 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names are malloc'ed here: the arena belongs to the loop thread. */
static void do_list(void *arg)
{
    struct request *r = arg;
    DIR *dir = opendir(r->path);
    if (!dir) {
        r->err = errno;
        return;
    }
    size_t cap = 0;
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (r->name_count == cap) {
            cap = cap ? cap * 2 : 32;
            r->names = realloc(r->names, cap * sizeof(char *));
            BASE_ASSERT(r->names != NULL);
        }
        r->names[r->name_count++] = strdup(entry->d_name);
    }
    closedir(dir);
    if (r->name_count)
        qsort(r->names, r->name_count, sizeof(char *), by_name);
}

static void do_dir_sync(void *arg)
{
    struct request *r = arg;
    int fd = open(r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    r->err = fd < 0 || fsync(fd) != 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
}

static void do_rename(void *arg)
{
    struct request *r = arg;
    r->err = rename(r->path, r->to) ? errno : 0;
}

static void do_remove(void *arg)
{
    struct request *r = arg;
    r->err = unlink(r->path) != 0 && (errno != EISDIR || rmdir(r->path) != 0) ? errno : 0;
}

static void do_space(void *arg)
{
    struct request *r = arg;
    struct statvfs info;
    r->err = statvfs(r->path, &info) ? errno : 0;
    if (r->err)
        return;
    r->total = (uint64_t)info.f_blocks * info.f_frsize;
    r->available = (uint64_t)info.f_bavail * info.f_frsize;
}

/* ---- on the fiber ---- */

struct base_status ch_real_file_open(struct ch_env *env, const char *path, int flags,
                                     struct ch_file **file)
{
    struct request r = { .path = path, .flags = flags };
    ch_offload(env, do_open, &r);
    if (r.err)
        return outcome(&r, "open", path);
    struct real_file *opened = calloc(1, sizeof(*opened));
    BASE_ASSERT(opened != NULL);
    opened->file.env = env;
    opened->fd = r.fd;
    opened->path = strdup(path);
    *file = &opened->file;
    return BASE_STATUS_OK;
}

static struct base_status on_file(struct ch_file *file, struct request *r, void (*fn)(void *arg),
                                  const char *what) CH_WAITS
{
    struct real_file *self = real_of(file);
    r->fd = self->fd;
    ch_offload(file->env, fn, r);
    return outcome(r, what, self->path);
}

struct base_status ch_real_file_read(struct ch_file *file, uint64_t offset, void *data, size_t len,
                                     size_t *got)
{
    struct request r = { .offset = offset, .data = data, .len = len };
    struct base_status status = on_file(file, &r, do_read, "read");
    *got = r.got;
    return status;
}

struct base_status ch_real_file_write(struct ch_file *file, uint64_t offset,
                                      const struct base_bytes *parts, size_t part_count,
                                      bool durable)
{
    struct request r = {
        .offset = offset, .parts = parts, .part_count = part_count, .durable = durable
    };
    return on_file(file, &r, do_write, "write");
}

struct base_status ch_real_file_sync(struct ch_file *file)
{
    struct request r = { 0 };
    return on_file(file, &r, do_sync, "fdatasync");
}

struct base_status ch_real_file_allocate(struct ch_file *file, uint64_t offset, uint64_t len)
{
    struct request r = { .offset = offset, .len = len };
    return on_file(file, &r, do_allocate, "allocate");
}

struct base_status ch_real_file_truncate(struct ch_file *file, uint64_t size)
{
    struct request r = { .len = size };
    return on_file(file, &r, do_truncate, "truncate");
}

struct base_status ch_real_file_cut_front(struct ch_file *file, uint64_t bytes)
{
    struct request r = { .len = bytes };
    struct base_status status = on_file(file, &r, do_cut_front, "cut front");
    if (base_failed(status) && (r.err == EOPNOTSUPP || r.err == EINVAL || r.err == ENOSYS))
        status.code = BASE_UNIMPLEMENTED;
    return status;
}

struct base_status ch_real_file_size(struct ch_file *file, uint64_t *size)
{
    struct request r = { 0 };
    struct base_status status = on_file(file, &r, do_size, "stat");
    *size = r.len;
    return status;
}

struct base_status ch_real_file_lock(struct ch_file *file)
{
    struct request r = { 0 };
    struct base_status status = on_file(file, &r, do_lock, "lock");
    if (r.err != EWOULDBLOCK)
        return status;
    base_status_free(&status);
    return base_status_make(BASE_FAILED_PRECONDITION, "%s: locked by another process",
                            real_of(file)->path);
}

void ch_real_file_close(struct ch_file *file)
{
    struct request r = { 0 };
    base_status_drop(on_file(file, &r, do_close, "close"));
    free(real_of(file)->path);
    free(file);
}

static struct base_status on_path(struct ch_env *env, struct request *r, void (*fn)(void *arg),
                                  const char *what) CH_WAITS
{
    ch_offload(env, fn, r);
    return outcome(r, what, r->path);
}

struct base_status ch_real_dir_make(struct ch_env *env, const char *path)
{
    struct request r = { .path = path };
    return on_path(env, &r, do_mkdir, "mkdir");
}

struct base_status ch_real_dir_list(struct ch_env *env, const char *path, struct base_arena *arena,
                                    char ***names, size_t *count)
{
    struct request r = { .path = path };
    struct base_status status = on_path(env, &r, do_list, "list");
    *count = r.name_count;
    *names = BASE_NEW_ARRAY(arena, char *, r.name_count);
    for (size_t i = 0; i < r.name_count; i++) {
        (*names)[i] = base_arena_strdup(arena, r.names[i]);
        free(r.names[i]);
    }
    free(r.names);
    return status;
}

struct base_status ch_real_dir_sync(struct ch_env *env, const char *path)
{
    struct request r = { .path = path };
    return on_path(env, &r, do_dir_sync, "sync");
}

struct base_status ch_real_file_rename(struct ch_env *env, const char *from, const char *to)
{
    struct request r = { .path = from, .to = to };
    return on_path(env, &r, do_rename, "rename");
}

struct base_status ch_real_file_remove(struct ch_env *env, const char *path)
{
    struct request r = { .path = path };
    return on_path(env, &r, do_remove, "remove");
}

struct base_status ch_real_disk_space(struct ch_env *env, const char *path, uint64_t *total,
                                      uint64_t *available)
{
    struct request r = { .path = path };
    struct base_status status = on_path(env, &r, do_space, "statvfs");
    *total = r.total;
    *available = r.available;
    return status;
}
