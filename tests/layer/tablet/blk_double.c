/* blk_double.c: see blk_double.h. The store is a process-wide variable: test code only. */
#include "blk_double.h"

#include <stdlib.h>

#include "chassis/sim.h"

struct inode {
    uint32_t names, handles;
    struct base_buf bytes;
    uint64_t epoch, fence;
    bool sealed;
    ch_time busy_until; /* appends end one after the other */
};

struct name {
    char *path;
    struct inode *inode;
};

static struct {
    struct name *names; /* sorted */
    size_t count, cap;
    struct blk_double_faults faults;
    struct blk_double_counts counts;
} store;

struct blk_client {
    struct ch_env *env;
};
struct blk_writer {
    struct blk_client *client;
    struct inode *inode;
    uint64_t epoch;
    bool broken;
    char *path;
};
struct blk_reader {
    struct blk_client *client;
    struct inode *inode;
};

static void inode_unref(struct inode *inode)
{
    if (inode->names + inode->handles > 0)
        return;
    base_buf_free(&inode->bytes);
    free(inode);
}

void blk_double_new(void)
{
    memset(&store, 0, sizeof(store));
    store.faults = (struct blk_double_faults){ .delay_min = 100 * CH_US, .delay_max = 400 * CH_US };
}

void blk_double_free(void)
{
    for (size_t i = 0; i < store.count; i++) {
        free(store.names[i].path);
        store.names[i].inode->names--;
        inode_unref(store.names[i].inode);
    }
    free(store.names);
    memset(&store, 0, sizeof(store));
}

void blk_double_faults(const struct blk_double_faults *faults)
{
    store.faults = *faults;
}

struct blk_double_counts blk_double_counts(void)
{
    return store.counts;
}

static size_t lower_bound(const char *path)
{
    size_t low = 0, high = store.count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(store.names[middle].path, path) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct inode *find(const char *path)
{
    size_t at = lower_bound(path);
    return at < store.count && strcmp(store.names[at].path, path) == 0 ? store.names[at].inode
                                                                       : NULL;
}

static void add_name(const char *path, struct inode *inode)
{
    size_t at = lower_bound(path);
    if (store.count == store.cap) {
        store.cap = store.cap ? store.cap * 2 : 64;
        store.names = realloc(store.names, store.cap * sizeof(*store.names));
    }
    memmove(&store.names[at + 1], &store.names[at], (store.count - at) * sizeof(*store.names));
    store.names[at] = (struct name){ strdup(path), inode };
    store.count++;
    inode->names++;
}

static void remove_name(const char *path)
{
    size_t at = lower_bound(path);
    struct inode *inode = store.names[at].inode;
    free(store.names[at].path);
    memmove(&store.names[at], &store.names[at + 1], (store.count - at - 1) * sizeof(*store.names));
    store.count--;
    inode->names--;
    inode_unref(inode);
}

size_t blk_double_names(const char *prefix)
{
    size_t count = 0;
    for (size_t i = lower_bound(prefix);
         i < store.count && strncmp(store.names[i].path, prefix, strlen(prefix)) == 0; i++)
        count++;
    return count;
}

static bool chance(struct blk_client *client, uint32_t in_1000)
{
    return in_1000 && ch_random_below(client->env, 1000) < in_1000;
}

static ch_time delay(struct blk_client *client)
{
    ch_time range = store.faults.delay_max - store.faults.delay_min;
    return store.faults.delay_min +
           (range > 0 ? (ch_time)ch_random_below(client->env, (uint64_t)range) : 0);
}

/* The trip of a call that is no append. */
static struct base_status trip(struct blk_client *client, const char *what,
                               const char *path) CH_WAITS;
static struct base_status trip(struct blk_client *client, const char *what, const char *path)
{
    enum ch_outcome outcome = ch_sleep_until(client->env, ch_in(client->env, delay(client)));
    if (outcome != CH_TIMEOUT)
        return base_status_make(BASE_CANCELLED, "%s %s: cancelled", what, path);
    if (chance(client, store.faults.fail_other))
        return base_status_make(BASE_UNAVAILABLE, "%s %s: injected", what, path);
    return BASE_STATUS_OK;
}

struct blk_client *blk_client_new(struct ch_env *env, const struct blk_client_options *options)
{
    struct blk_client *client = calloc(1, sizeof(*client));
    client->env = env;
    return client;
}

void blk_client_free(struct blk_client *client)
{
    free(client);
}

/* ---- writing ---- */

struct base_status blk_open_append(struct blk_client *client, const char *path,
                                   const struct blk_append_options *options, ch_time deadline,
                                   struct blk_writer **writer, uint64_t *length)
{
    struct base_status status = trip(client, "open", path);
    if (base_failed(status))
        return status;
    struct inode *inode = find(path);
    if (!inode && !options->create)
        return base_status_make(BASE_NOT_FOUND, "%s: no such file", path);
    if (inode && options->create && options->exclusive)
        return base_status_make(BASE_ALREADY_EXISTS, "%s exists", path);
    if (inode && (inode->sealed || options->fence < inode->fence))
        return base_status_make(BASE_FAILED_PRECONDITION, "%s: %s", path,
                                inode->sealed ? "sealed" : "fenced");
    if (!inode) {
        inode = calloc(1, sizeof(*inode));
        add_name(path, inode);
        store.counts.files++;
    }
    inode->fence = options->fence;
    inode->epoch++;
    inode->handles++;
    struct blk_writer *made = calloc(1, sizeof(*made));
    *made = (struct blk_writer){ client, inode, inode->epoch, false, strdup(path) };
    *writer = made;
    *length = inode->bytes.len;
    return BASE_STATUS_OK;
}

/* Writes all (or `part` bytes) of the parts. */
static void write_parts(struct inode *inode, const struct base_bytes *parts, size_t count,
                        size_t most)
{
    for (size_t i = 0; i < count && most; i++) {
        size_t len = parts[i].len < most ? parts[i].len : most;
        base_buf_put(&inode->bytes, parts[i].data, len);
        most -= len;
    }
}

struct base_status blk_append(struct blk_writer *writer, const struct base_bytes *parts,
                              size_t part_count, ch_time deadline, uint64_t *offset)
{
    struct blk_client *client = writer->client;
    struct inode *inode = writer->inode;
    size_t total = 0;
    for (size_t i = 0; i < part_count; i++)
        total += parts[i].len;
    BASE_ASSERT(total <= BLK_APPEND_MAX);
    ch_time at = ch_in(client->env, delay(client));
    if (at <= inode->busy_until)
        at = inode->busy_until + 1;
    inode->busy_until = at;
    enum ch_outcome outcome =
        ch_sleep_until(client->env, at); /* cancelled: a node dies, or a fiber that is stopped */
    bool dies = outcome != CH_TIMEOUT;
    if (writer->broken || inode->epoch != writer->epoch || inode->sealed) {
        writer->broken = true;
        return base_status_make(inode->sealed || inode->epoch != writer->epoch
                                    ? BASE_FAILED_PRECONDITION
                                    : BASE_UNAVAILABLE,
                                "%s: a later writer has it, or this one is broken", writer->path);
    }
    if (dies || chance(client, store.faults.break_append)) {
        writer->broken = true;
        write_parts(inode, parts, part_count, (size_t)ch_random_below(client->env, total + 1));
        store.counts.broken++;
        return base_status_make(BASE_UNAVAILABLE, "%s: append failed", writer->path);
    }
    *offset = inode->bytes.len;
    write_parts(inode, parts, part_count, total);
    store.counts.appends++;
    store.counts.append_bytes += total;
    return BASE_STATUS_OK;
}

uint64_t blk_writer_length(const struct blk_writer *writer)
{
    return writer->inode->bytes.len;
}

uint64_t blk_writer_epoch(const struct blk_writer *writer)
{
    return writer->epoch;
}

struct base_status blk_writer_seal(struct blk_writer *writer, ch_time deadline)
{
    struct base_status status = trip(writer->client, "seal", writer->path);
    if (base_failed(status))
        return status;
    if (writer->broken || writer->inode->epoch != writer->epoch)
        return base_status_make(BASE_FAILED_PRECONDITION, "%s: a later writer has it",
                                writer->path);
    writer->inode->sealed = true;
    return BASE_STATUS_OK;
}

void blk_writer_close(struct blk_writer *writer)
{
    writer->inode->handles--;
    inode_unref(writer->inode);
    free(writer->path);
    free(writer);
}

/* ---- reading ---- */

struct base_status blk_open_read(struct blk_client *client, const char *path, ch_time deadline,
                                 struct blk_reader **reader)
{
    struct base_status status = trip(client, "open", path);
    if (base_failed(status))
        return status;
    struct inode *inode = find(path);
    if (!inode)
        return base_status_make(BASE_NOT_FOUND, "%s: no such file", path);
    inode->handles++;
    struct blk_reader *made = calloc(1, sizeof(*made));
    *made = (struct blk_reader){ client, inode };
    *reader = made;
    return BASE_STATUS_OK;
}

struct base_status blk_read(struct blk_reader *reader, uint64_t offset, void *data, size_t len,
                            ch_time deadline, size_t *got)
{
    struct base_status status = trip(reader->client, "read", "");
    *got = 0;
    if (base_failed(status))
        return status;
    struct inode *inode = reader->inode;
    if (offset < inode->bytes.len)
        *got = inode->bytes.len - offset < len ? (size_t)(inode->bytes.len - offset) : len;
    if (*got)
        memcpy(data, inode->bytes.data + offset, *got);
    store.counts.reads++;
    store.counts.read_bytes += *got;
    return BASE_STATUS_OK;
}

struct base_status blk_reader_length(struct blk_reader *reader, ch_time deadline, uint64_t *length)
{
    struct base_status status = trip(reader->client, "length", "");
    *length = reader->inode->bytes.len;
    return status;
}

void blk_reader_close(struct blk_reader *reader)
{
    reader->inode->handles--;
    inode_unref(reader->inode);
    free(reader);
}

/* ---- names ---- */

static void describe(const struct name *name, struct base_arena *arena, struct blk_stat *stat)
{
    *stat = (struct blk_stat){ .path = base_arena_strdup(arena, name->path),
                               .length = name->inode->bytes.len,
                               .epoch = name->inode->epoch,
                               .sealed = name->inode->sealed };
}

struct base_status blk_stat(struct blk_client *client, const char *path, ch_time deadline,
                            struct base_arena *arena, struct blk_stat *stat)
{
    struct base_status status = trip(client, "stat", path);
    if (base_failed(status))
        return status;
    if (!find(path))
        return base_status_make(BASE_NOT_FOUND, "%s: no such file", path);
    describe(&store.names[lower_bound(path)], arena, stat);
    return BASE_STATUS_OK;
}

struct base_status blk_list(struct blk_client *client, const char *prefix, const char *after,
                            size_t limit, ch_time deadline, struct base_arena *arena,
                            struct blk_stat **stats, size_t *count)
{
    struct base_status status = trip(client, "list", prefix);
    *count = 0;
    if (base_failed(status))
        return status;
    *stats = BASE_NEW_ARRAY(arena, struct blk_stat, limit);
    for (size_t i = lower_bound(prefix); i < store.count && *count < limit; i++) {
        if (strncmp(store.names[i].path, prefix, strlen(prefix)) != 0)
            break;
        if (strcmp(store.names[i].path, after) > 0)
            describe(&store.names[i], arena, &(*stats)[(*count)++]);
    }
    return BASE_STATUS_OK;
}

struct base_status blk_seal(struct blk_client *client, const char *path, uint64_t fence,
                            ch_time deadline, uint64_t *length)
{
    struct base_status status = trip(client, "seal", path);
    if (base_failed(status))
        return status;
    struct inode *inode = find(path);
    if (!inode)
        return base_status_make(BASE_NOT_FOUND, "%s: no such file", path);
    if (fence < inode->fence)
        return base_status_make(BASE_FAILED_PRECONDITION, "%s: fenced by %llu", path,
                                (unsigned long long)inode->fence);
    inode->fence = fence;
    inode->sealed = true;
    *length = inode->bytes.len;
    return BASE_STATUS_OK;
}

struct base_status blk_rename(struct blk_client *client, const char *from, const char *to,
                              bool replace, ch_time deadline)
{
    return base_status_make(BASE_UNIMPLEMENTED, "rename");
}

struct base_status blk_link(struct blk_client *client, const char *existing, const char *name,
                            ch_time deadline)
{
    struct base_status status = trip(client, "link", name);
    if (base_failed(status))
        return status;
    if (store.faults.fail_link && --store.faults.fail_link == 0)
        return base_status_make(BASE_UNAVAILABLE, "link %s: injected", name);
    struct inode *inode = find(existing);
    if (!inode || find(name) || !inode->sealed)
        return base_status_make(inode ? BASE_FAILED_PRECONDITION : BASE_NOT_FOUND,
                                "%s: no such sealed file, or %s exists", existing, name);
    add_name(name, inode);
    return BASE_STATUS_OK;
}

struct base_status blk_delete(struct blk_client *client, const char *path, ch_time deadline)
{
    struct base_status status = trip(client, "delete", path);
    if (base_failed(status))
        return status;
    if (!find(path))
        return base_status_make(BASE_NOT_FOUND, "%s: no such file", path);
    remove_name(path);
    return BASE_STATUS_OK;
}
