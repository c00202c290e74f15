/* sim_disk.c: the file functions of a simulated env, on the disk of its node.
 *
 * Invariants:
 *  1. A change takes effect when its call begins (so a crash in the middle finds it un-synced), a
 * read when its call ends.
 *  2. What a sync covers is fixed when it begins and stored when it ends.
 *  3. A dead incarnation's calls fail before they touch anything; those under way when it died end
 * without effect. Deliberately not simulated: permissions, links, renaming of directories, reads
 * that fail. */
#include <errno.h>

#include "sim_int.h"

struct ch__sim_file {
    struct ch_file file;
    struct ch__inode *inode;
    char *path;
    int flags;
    struct ch__sim_file *next, *prev; /* of the incarnation */
};

static struct ch__disk *disk_of(struct ch_env *env)
{
    return &ch__inc_of(env)->node->disk;
}

static struct ch__sim_file *sim_file(struct ch_file *file)
{
    return (struct ch__sim_file *)file;
}

static struct ch__rng *disk_rng(struct ch_env *env)
{
    return &ch__sim_of(env)->disk_rng;
}

/* ---- waiting ---- */

/* False when the node died meanwhile. */
static bool io_wait(struct ch_env *env, ch_time delay, const char *what) CH_WAITS;
static bool io_wait(struct ch_env *env, ch_time delay, const char *what)
{
    struct ch__sim_inc *inc = ch__inc_of(env);
    struct ch_wait_node node = { 0 };
    if (inc->dead)
        return false;
    (void)ch_wait_on(&inc->io, &node, ch__sim_of(env)->now + delay, true, what);
    return !inc->dead;
}

static struct base_status short_wait(struct ch_env *env, const char *path) CH_WAITS BASE_MUST_CHECK;
static struct base_status short_wait(struct ch_env *env, const char *path)
{
    if (io_wait(env, ch__rng_between(disk_rng(env), CH_US, 15 * CH_US), "file operation"))
        return BASE_STATUS_OK;
    return ch__sim_dead(env, path);
}

static struct base_status sync_wait(struct ch_env *env, const char *path) CH_WAITS BASE_MUST_CHECK;
static struct base_status sync_wait(struct ch_env *env, const char *path)
{
    struct ch__disk *disk = disk_of(env);
    if (io_wait(env, ch__rng_between(disk_rng(env), disk->sync_min, disk->sync_max), "file sync"))
        return BASE_STATUS_OK;
    return ch__sim_dead(env, path);
}

static struct base_status with_errno(int err, const char *path)
{
    return err ? base_status_errno(err, path) : BASE_STATUS_OK;
}

static bool is_dir(struct ch__disk *disk, const char *path)
{
    struct ch__name *name = ch__names_find(&disk->now, path);
    return strcmp(path, "/") == 0 || (name && name->inode->dir);
}

static bool parent_is_dir(struct ch__disk *disk, const char *path)
{
    char *parent = ch__path_parent(path);
    bool is = is_dir(disk, parent);
    free(parent);
    return is;
}

/* ---- files ---- */

static int find_or_make(struct ch_env *env, const char *path, int flags, struct ch__inode **inode)
{
    struct ch__disk *disk = disk_of(env);
    struct ch__name *name = ch__names_find(&disk->now, path);
    if (is_dir(disk, path))
        return EISDIR;
    if (name && (flags & CH_FILE_CREATE) && (flags & CH_FILE_EXCLUSIVE))
        return EEXIST;
    if (name) {
        *inode = ch__inode_ref(name->inode);
        if ((flags & CH_FILE_TRUNCATE) && name->inode->now.size > 0)
            ch__inode_truncate(name->inode, 0);
        return 0;
    }
    if (!(flags & CH_FILE_CREATE) || !parent_is_dir(disk, path))
        return ENOENT;
    *inode = ch__inode_new(disk, false);
    ch__disk_name(disk, NULL, path, *inode);
    return 0;
}

struct base_status ch__sim_file_open(struct ch_env *env, const char *path, int flags,
                                     struct ch_file **file)
{
    *file = NULL;
    if (ch__inc_of(env)->dead)
        return ch__sim_dead(env, path);
    char *clean = ch__path_clean(path);
    struct ch__inode *inode = NULL;
    struct base_status status = with_errno(find_or_make(env, clean, flags, &inode), path);
    if (!base_failed(status))
        status = short_wait(env, path);
    if (base_failed(status)) {
        if (inode)
            ch__inode_unref(inode);
        free(clean);
        return status;
    }
    struct ch__sim_inc *inc = ch__inc_of(env);
    struct ch__sim_file *opened = calloc(1, sizeof(*opened));
    BASE_ASSERT(opened != NULL);
    *opened = (struct ch__sim_file){
        .file = { env }, .inode = inode, .path = clean, .flags = flags, .next = inc->files
    };
    if (inc->files)
        inc->files->prev = opened;
    inc->files = opened;
    ch__inode_live(inode, true);
    *file = &opened->file;
    return BASE_STATUS_OK;
}

struct base_status ch__sim_file_read(struct ch_file *file, uint64_t offset, void *data, size_t len,
                                     size_t *got)
{
    struct ch__sim_file *self = sim_file(file);
    *got = 0;
    if (!(self->flags & CH_FILE_READ))
        return base_status_errno(EBADF, self->path);
    struct base_status status = short_wait(file->env, self->path);
    if (!base_failed(status))
        *got = ch__content_read(&self->inode->now, offset, data, len);
    return status;
}

/* How many of `len` bytes at `offset` the disk's limit leaves room for. */
static uint64_t room(struct ch__inode *inode, uint64_t offset, uint64_t len)
{
    struct ch__disk *disk = inode->disk;
    uint64_t end = offset + len,
             free_bytes = disk->limit > disk->used ? disk->limit - disk->used : 0;
    if (!disk->limit || end <= inode->now.size || end - inode->now.size <= free_bytes)
        return len;
    uint64_t last = inode->now.size + free_bytes;
    return last > offset ? last - offset : 0;
}

/* What of an un-synced change a failed sync leaves is a matter of luck, and later syncs do not try
 * again: they only cover newer changes (as Linux does: the pages count as clean). */
static struct base_status sync_now(struct ch__sim_file *self) CH_WAITS BASE_MUST_CHECK;
static struct base_status sync_now(struct ch__sim_file *self)
{
    struct ch_env *env = self->file.env;
    uint64_t seq = self->inode->change_seq;
    struct base_status status = sync_wait(env, self->path);
    if (base_failed(status))
        return status;
    ch__sim_event(ch__sim_of(env), "sync", ch__inc_of(env)->node, seq);
    if (self->inode->disk->sync_fails) {
        ch_sim_probe(env, "disk sync failed");
        ch__inode_lose(self->inode, seq, disk_rng(env), false);
        return base_status_errno(EIO, self->path);
    }
    ch__inode_sync(self->inode, seq);
    return BASE_STATUS_OK;
}

static struct base_status may_write(struct ch__sim_file *self)
{
    if (ch__inc_of(self->file.env)->dead)
        return ch__sim_dead(self->file.env, self->path);
    return with_errno(self->flags & CH_FILE_WRITE ? 0 : EBADF, self->path);
}

struct base_status ch__sim_file_write(struct ch_file *file, uint64_t offset,
                                      const struct base_bytes *parts, size_t part_count,
                                      bool durable)
{
    struct ch__sim_file *self = sim_file(file);
    struct base_status status = may_write(self);
    if (base_failed(status))
        return status;
    bool full = false;
    for (size_t i = 0; i < part_count && !full; i++) {
        uint64_t fits = room(self->inode, offset, parts[i].len);
        ch__inode_write(self->inode, offset, parts[i].data, fits);
        offset += fits;
        full = fits < parts[i].len;
    }
    status = short_wait(file->env, self->path);
    if (base_failed(status))
        return status;
    if (full) {
        ch_sim_probe(file->env, "disk full");
        return base_status_errno(ENOSPC, self->path);
    }
    return durable ? sync_now(self) : BASE_STATUS_OK;
}

struct base_status ch__sim_file_sync(struct ch_file *file)
{
    return sync_now(sim_file(file));
}

struct base_status ch__sim_file_allocate(struct ch_file *file, uint64_t offset, uint64_t len)
{
    struct ch__sim_file *self = sim_file(file);
    struct base_status status = may_write(self);
    if (base_failed(status))
        return status;
    uint64_t fits = room(self->inode, offset, len);
    ch__inode_write(self->inode, offset, NULL, fits);
    if (fits == len)
        return sync_now(self);
    status = short_wait(file->env, self->path);
    return base_failed(status) ? status : base_status_errno(ENOSPC, self->path);
}

struct base_status ch__sim_file_truncate(struct ch_file *file, uint64_t size)
{
    struct ch__sim_file *self = sim_file(file);
    struct base_status status = may_write(self);
    if (base_failed(status))
        return status;
    if (size != self->inode->now.size)
        ch__inode_truncate(self->inode, size);
    return short_wait(file->env, self->path);
}

struct base_status ch__sim_file_size(struct ch_file *file, uint64_t *size)
{
    struct ch__sim_file *self = sim_file(file);
    struct base_status status = short_wait(file->env, self->path);
    *size = base_failed(status) ? 0 : self->inode->now.size;
    return status;
}

struct base_status ch__sim_file_lock(struct ch_file *file)
{
    struct ch__sim_file *self = sim_file(file);
    struct base_status status = short_wait(file->env, self->path);
    if (base_failed(status))
        return status;
    if (self->inode->lock && self->inode->lock != self)
        return base_status_make(BASE_FAILED_PRECONDITION, "%s: locked by another process",
                                self->path);
    self->inode->lock = self;
    return BASE_STATUS_OK;
}

static void unlock(struct ch__sim_file *file)
{
    if (file->inode->lock == file)
        file->inode->lock = NULL;
}

void ch__sim_file_close(struct ch_file *file)
{
    struct ch__sim_file *self = sim_file(file);
    (void)base_status_drop(short_wait(file->env, self->path));
    unlock(self);
    if (self->prev)
        self->prev->next = self->next;
    else
        ch__inc_of(file->env)->files = self->next;
    if (self->next)
        self->next->prev = self->prev;
    ch__inode_live(self->inode, false);
    ch__inode_unref(self->inode);
    free(self->path);
    free(self);
}

void ch__disk_inc_gone(struct ch__sim_inc *inc)
{
    for (struct ch__sim_file *file = inc->files; file; file = file->next)
        unlock(file);
}

/* ---- names ---- */

/* The path cleaned, or a failed status: the node is dead. */
static struct base_status begin(struct ch_env *env, const char *path, char **clean)
{
    *clean = NULL;
    if (ch__inc_of(env)->dead) {
        struct base_status status = ch__sim_dead(env, path);
        BASE_ASSERT(base_failed(status));
        return status;
    }
    *clean = ch__path_clean(path);
    return BASE_STATUS_OK;
}

/* Ends a change of names: its status, or the node's death in the short wait that every call has. */
static struct base_status end(struct ch_env *env, int err, const char *path,
                              char *clean) CH_WAITS BASE_MUST_CHECK;
static struct base_status end(struct ch_env *env, int err, const char *path, char *clean)
{
    free(clean);
    struct base_status status = short_wait(env, path);
    return base_failed(status) ? status : with_errno(err, path);
}

static int make_dir(struct ch__disk *disk, const char *path)
{
    if (is_dir(disk, path))
        return 0;
    if (ch__names_find(&disk->now, path))
        return EEXIST;
    if (!parent_is_dir(disk, path))
        return ENOENT;
    struct ch__inode *inode = ch__inode_new(disk, true);
    ch__disk_name(disk, NULL, path, inode);
    ch__inode_unref(inode);
    return 0;
}

struct base_status ch__sim_dir_make(struct ch_env *env, const char *path)
{
    char *clean;
    struct base_status status = begin(env, path, &clean);
    return base_failed(status) ? status : end(env, make_dir(disk_of(env), clean), path, clean);
}

static int list_dir(struct ch__disk *disk, const char *path, struct base_arena *arena,
                    char ***names, size_t *count)
{
    *count = 0;
    *names = BASE_NEW_ARRAY(arena, char *, disk->now.count);
    if (!is_dir(disk, path))
        return ch__names_find(&disk->now, path) ? ENOTDIR : ENOENT;
    size_t len = strcmp(path, "/") == 0 ? 0 : strlen(path);
    for (size_t i = 0; i < disk->now.count; i++) {
        const char *name = disk->now.all[i].path;
        if (strncmp(name, path, len) == 0 && name[len] == '/' && !strchr(name + len + 1, '/'))
            (*names)[(*count)++] = base_arena_strdup(arena, name + len + 1);
    }
    return 0;
}

struct base_status ch__sim_dir_list(struct ch_env *env, const char *path, struct base_arena *arena,
                                    char ***names, size_t *count)
{
    char *clean;
    struct base_status status = begin(env, path, &clean);
    return base_failed(status)
               ? status
               : end(env, list_dir(disk_of(env), clean, arena, names, count), path, clean);
}

struct base_status ch__sim_dir_sync(struct ch_env *env, const char *path)
{
    char *clean;
    struct ch__disk *disk = disk_of(env);
    struct base_status status = begin(env, path, &clean);
    if (base_failed(status))
        return status;
    if (!is_dir(disk, clean))
        return end(env, ch__names_find(&disk->now, clean) ? ENOTDIR : ENOENT, path, clean);
    uint64_t seq = disk->change_seq;
    status = sync_wait(env, path);
    if (!base_failed(status) && disk->sync_fails)
        status = base_status_errno(EIO, path);
    if (!base_failed(status)) {
        ch__sim_event(ch__sim_of(env), "sync names", ch__inc_of(env)->node, disk->now.count);
        ch__disk_sync_names(disk, clean, seq);
    }
    free(clean);
    return status;
}

static int rename_file(struct ch__disk *disk, const char *from, const char *to)
{
    struct ch__name *old = ch__names_find(&disk->now, from);
    if (!old || !parent_is_dir(disk, to))
        return ENOENT;
    if (old->inode->dir)
        return EOPNOTSUPP;
    if (is_dir(disk, to))
        return EISDIR;
    if (strcmp(from, to) == 0)
        return 0;
    struct ch__inode *inode = ch__inode_ref(old->inode);
    ch__disk_name(disk, from, to, inode);
    ch__inode_unref(inode);
    return 0;
}

struct base_status ch__sim_file_rename(struct ch_env *env, const char *from, const char *to)
{
    char *clean;
    struct base_status status = begin(env, from, &clean);
    if (base_failed(status))
        return status;
    char *target = ch__path_clean(to);
    int err = rename_file(disk_of(env), clean, target);
    free(target);
    return end(env, err, from, clean);
}

static int remove_file(struct ch__disk *disk, const char *path)
{
    struct ch__name *name = ch__names_find(&disk->now, path);
    if (!name)
        return ENOENT;
    size_t len = strlen(path);
    if (name->inode->dir)
        for (size_t i = 0; i < disk->now.count; i++)
            if (strncmp(disk->now.all[i].path, path, len) == 0 && disk->now.all[i].path[len] == '/')
                return ENOTEMPTY;
    struct ch__inode *inode = ch__inode_ref(name->inode);
    ch__disk_name(disk, path, NULL, inode);
    ch__inode_unref(inode);
    return 0;
}

struct base_status ch__sim_file_remove(struct ch_env *env, const char *path)
{
    char *clean;
    struct base_status status = begin(env, path, &clean);
    return base_failed(status) ? status : end(env, remove_file(disk_of(env), clean), path, clean);
}

struct base_status ch__sim_disk_space(struct ch_env *env, const char *path, uint64_t *total,
                                      uint64_t *available)
{
    struct ch__disk *disk = disk_of(env);
    *total = *available = 0;
    struct base_status status = short_wait(env, path);
    if (base_failed(status))
        return status;
    *total = disk->limit ? disk->limit : 1ULL << 40;
    *available = *total > disk->used ? *total - disk->used : 0;
    return BASE_STATUS_OK;
}

/* ---- faults and inspection ---- */

void ch_sim_disk_delay(struct ch_sim_node *node, ch_time min, ch_time max)
{
    BASE_ASSERT(0 <= min && min <= max);
    node->disk.sync_min = min;
    node->disk.sync_max = max;
}

void ch_sim_disk_limit(struct ch_sim_node *node, uint64_t bytes)
{
    node->disk.limit = bytes;
}

void ch_sim_disk_fail_sync(struct ch_sim_node *node, bool fail)
{
    node->disk.sync_fails = fail;
}

static struct ch__inode *inode_of(struct ch_sim_node *node, const char *path)
{
    char *clean = ch__path_clean(path);
    struct ch__name *name = ch__names_find(&node->disk.now, clean);
    free(clean);
    return name && !name->inode->dir ? name->inode : NULL;
}

static void flip(struct ch__content *content, uint64_t offset, uint8_t mask)
{
    uint8_t byte;
    if (ch__content_read(content, offset, &byte, 1) == 0)
        return;
    byte ^= mask;
    ch__content_write(content, offset, &byte, 1);
}

void ch_sim_disk_flip(struct ch_sim_node *node, const char *path, uint64_t offset, uint8_t mask)
{
    struct ch__inode *inode = inode_of(node, path);
    BASE_ASSERT(inode != NULL &&
                offset < inode->now.size); /* a test that flips nothing tests nothing */
    ch__inode_sync(inode, inode->change_seq);
    flip(&inode->now, offset, mask);
    flip(&inode->stored, offset, mask);
}

void ch_sim_disk_lose(struct ch_sim_node *node)
{
    BASE_ASSERT(!node->inc);
    ch__disk_free(&node->disk);
}

bool ch_sim_disk_peek(struct ch_sim_node *node, const char *path, struct base_buf *out)
{
    struct ch__inode *inode = inode_of(node, path);
    if (!inode)
        return false;
    (void)ch__content_read(&inode->now, 0, base_buf_extend(out, (size_t)inode->now.size),
                           (size_t)inode->now.size);
    return true;
}

uint64_t ch_sim_disk_used(struct ch_sim_node *node)
{
    return node->disk.used;
}
