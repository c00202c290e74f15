/* store.c: the replicas on one blockserver's disk: what is accepted, and when it counts.
 *
 * Invariants:
 * 1. `durable` is called only after the journal's sync, in the order of the appends.
 * 2. An append is accepted only at the replica's end, under the replica's epoch, and never once it
 *    is fenced or sealed (a recovery's fill excepted).
 * 3. Space on disk and in memory is promised before anything is queued: an append is refused whole
 *    or done whole.
 * 4. After a failed sync nothing is accepted, answered or read any more (blockstore invariant 6).
 * Happy path: append -> journal -> durable -> the keeper writes the block file behind it
 * (store_keep.c). */
#include "store_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/codec.h"

enum { OPEN_FILES_MAX = 256 };

/* ---- replicas ---- */

struct blk__replica *blk__replica_find(const struct blk__store *store, uint64_t block)
{
    struct blk__replica *r;
    HASH_FIND(hh, store->table, &block, sizeof block, r);
    return r;
}

struct blk__replica *blk__replica_add(struct blk__store *store, uint64_t block)
{
    struct blk__replica *r = calloc(1, sizeof *r);
    BASE_ASSERT(r);
    r->block = block;
    r->refs = 1;
    STAILQ_INIT(&r->extents);
    STAILQ_INIT(&r->held);
    ch_cond_init(&r->direct_over);
    HASH_ADD(hh, store->table, block, sizeof r->block, r);
    return r;
}

void blk__replica_unref(struct blk__replica *r)
{
    if (--r->refs > 0)
        return;
    BASE_ASSERT(r->gone && !r->file && STAILQ_EMPTY(&r->extents) && !r->queued && !r->changed);
    blk__sums_free(&r->sums);
    free(r);
}

void blk__replica_report(struct blk__store *store, struct blk__replica *r)
{
    if (r->changed || r->gone || r->tomb)
        return;
    r->changed = true;
    TAILQ_INSERT_TAIL(&store->reports, r, report_link);
}

void blk__replica_unwritten(struct blk__store *store, struct blk__replica *r)
{
    if (r->queued)
        return;
    r->queued = true;
    r->refs++;
    TAILQ_INSERT_TAIL(&store->unwritten, r, unwritten_link);
    ch_cond_signal(&store->work);
}

void blk__extent_free(struct blk__extent *extent)
{
    extent->store->unwritten_bytes -= extent->len;
    extent->store->unwritten_gauge->value = (int64_t)extent->store->unwritten_bytes;
    ch_cond_broadcast(&extent->store->room);
    blk__replica_unref(extent->replica);
    free(extent);
}

void blk__replica_drop(struct blk__store *store, struct blk__replica *r)
{
    BASE_ASSERT(!r->gone);
    HASH_DEL(store->table, r);
    r->gone = true;
    if (r->changed) {
        TAILQ_REMOVE(&store->reports, r, report_link);
        r->changed = false;
    }
    if (!STAILQ_EMPTY(&r->extents))
        blk__replica_unwritten(store, r); /* the keeper throws them away */
    if (r->file && r->file_users == 0)
        blk__replica_file_close(store, r);
    blk__replica_unref(r);
}

void blk__replica_bury(struct blk__store *store, struct blk__replica *r)
{
    if (r->changed)
        TAILQ_REMOVE(&store->reports, r, report_link);
    r->changed = false;
    r->tomb = r->fenced = true;
    r->bad = r->doubtful = r->unsynced = false;
    r->length = r->accepted = r->written = 0;
    blk__sums_free(&r->sums);
}

char *blk__replica_path(const struct blk__store *store, uint64_t block, bool finished)
{
    char *path;
    if (asprintf(&path, "%s/%016" PRIx64 ".%s", store->blocks_dir, block,
                 finished ? "blk" : "open") < 0)
        abort();
    return path;
}

/* ---- their files ---- */

void blk__replica_file_close(struct blk__store *store, struct blk__replica *r)
{
    struct ch_file *file = r->file;
    BASE_ASSERT(r->file_users == 0);
    r->file = 0;
    TAILQ_REMOVE(&store->files, r, file_link);
    store->open_files--;
    ch_file_close(file);
}

/* Closes the file that was used longest ago, when there are too many. */
static void close_one(struct blk__store *store) CH_WAITS;
static void close_one(struct blk__store *store)
{
    struct blk__replica *r;
    TAILQ_FOREACH(r, &store->files, file_link)
    {
        if (r->file_users == 0 && !r->unsynced) {
            blk__replica_file_close(store, r);
            return;
        }
    }
}

/* Opens the replica's file; it may have got its final name, or gone, when that is done. */
static struct base_status open_file(struct blk__store *store, struct blk__replica *r, bool create,
                                    struct ch_file **opened) CH_WAITS BASE_MUST_CHECK;
static struct base_status open_file(struct blk__store *store, struct blk__replica *r, bool create,
                                    struct ch_file **opened)
{
    struct base_status status = BASE_STATUS_OK;
    bool finished;
    do {
        base_status_free(&status);
        finished = r->finished;
        char *path = blk__replica_path(store, r->block, finished);
        int flags = CH_FILE_READ | CH_FILE_WRITE | (create && !finished ? CH_FILE_CREATE : 0);
        status = ch_file_open(store->env, path, flags, opened);
        free(path);
    } while (status.code == BASE_NOT_FOUND && r->finished != finished);
    if (create && !finished)
        store->names_unsynced = true;
    return status;
}

struct base_status blk__replica_file(struct blk__store *store, struct blk__replica *r, bool create,
                                     struct ch_file **file)
{
    if (!r->file) {
        if (store->open_files >= OPEN_FILES_MAX)
            close_one(store);
        struct ch_file *opened = 0;
        struct base_status status;
        if (r->gone || r->tomb)
            status = base_status_make(BASE_NOT_FOUND, "block %" PRIu64 " is gone", r->block);
        else
            status = open_file(store, r, create, &opened);
        if (base_failed(status))
            return status;
        if (r->file) { /* another fiber was quicker */
            r->file_users++;
            ch_file_close(opened);
            r->file_users--;
        } else {
            r->file = opened;
            store->open_files++;
            TAILQ_INSERT_TAIL(&store->files, r, file_link);
        }
    }
    TAILQ_REMOVE(&store->files, r, file_link);
    TAILQ_INSERT_TAIL(&store->files, r, file_link);
    r->file_users++;
    *file = r->file;
    if (!r->gone && !r->tomb)
        return BASE_STATUS_OK;
    /* It went while this waited: what was opened must not bring its name back. */
    blk__replica_file_release(store, r);
    if (create && !r->finished) {
        char *path = blk__replica_path(store, r->block, false);
        base_status_drop(ch_file_remove(store->env, path));
        free(path);
    }
    return base_status_make(BASE_NOT_FOUND, "block %" PRIu64 " is gone", r->block);
}

void blk__replica_file_release(struct blk__store *store, struct blk__replica *r)
{
    if (--r->file_users == 0 && r->gone && r->file)
        blk__replica_file_close(store, r);
}

/* ---- failing ---- */

void blk__store_fail(struct blk__store *store, struct base_status why)
{
    if (!store->failed)
        ch_error(store->env, "%s: %s: this disk is not used any more", store->dir,
                 base_status_text(&why));
    base_status_free(&why);
    store->failed = true;
    ch_cond_broadcast(&store->room);
    ch_cond_signal(&store->work);
}

bool blk__store_failed(const struct blk__store *store)
{
    return store->failed || blk__journal_failed(store->journal);
}

struct base_status blk__store_check(const struct blk__store *store)
{
    if (store->failed || blk__journal_failed(store->journal))
        return base_status_make(BASE_UNAVAILABLE, "the disk of %s has failed", store->dir);
    return BASE_STATUS_OK;
}

/* ---- appending ---- */

struct base_status blk__store_room(struct blk__store *store, size_t bytes, ch_time deadline)
{
    while (!store->failed && store->unwritten_bytes &&
           store->unwritten_bytes + bytes > store->options.unwritten_bytes_max) {
        ch_cond_signal(&store->work);
        enum ch_outcome outcome = ch_cond_wait(&store->room, deadline);
        if (outcome == CH_TIMEOUT)
            return base_status_make(BASE_RESOURCE_EXHAUSTED, "%s: too much waits to be written",
                                    store->dir);
        if (outcome != CH_OK)
            return ch_outcome_status(outcome, "wait for room");
    }
    return blk__store_check(store);
}

static void append_done(struct blk__entry *entry, bool ok)
{
    struct blk__extent *extent = (struct blk__extent *)entry;
    struct blk__store *store = extent->store;
    struct blk__replica *r = extent->replica;
    blk__durable_fn *durable = extent->durable;
    void *arg = extent->arg;
    uint64_t end = extent->offset + extent->len;
    if (!ok) {
        store->failed = true;
        blk__extent_free(extent);
        durable(arg, 0);
        return;
    }
    if (r->oldest_seq == 0)
        r->oldest_seq = entry->seq;
    if (r->length == 0)
        blk__replica_report(store, r);
    if (!r->tomb)
        r->length = end;
    STAILQ_INSERT_TAIL(&r->extents, extent, link);
    blk__replica_unwritten(store, r);
    durable(arg, end);
}

static struct base_status check_append(const struct blk__store *store,
                                       const struct blk__append_args *a) BASE_MUST_CHECK;
static struct base_status check_append(const struct blk__store *store,
                                       const struct blk__append_args *a)
{
    const struct blk__replica *r = blk__replica_find(store, a->block);
    unsigned long long block = a->block;
    uint64_t end = r ? r->accepted : 0;
    if (r && (r->sealed || r->sealing || r->tomb))
        return base_status_make(BASE_FAILED_PRECONDITION, "block %llu is %s", block,
                                r->tomb ? "gone" : "sealed");
    if (!r && store->open_from == 0)
        return base_status_make(BASE_UNAVAILABLE, "block %llu: no word from the master yet", block);
    if (!r && a->block < store->open_from)
        return base_status_make(BASE_FAILED_PRECONDITION, "block %llu is sealed or gone", block);
    if (r && a->epoch < r->epoch)
        return base_status_make(BASE_FAILED_PRECONDITION,
                                "block %llu: epoch %llu is older than %llu", block,
                                (unsigned long long)a->epoch, (unsigned long long)r->epoch);
    if (r && a->fill != r->fenced)
        return base_status_make(BASE_FAILED_PRECONDITION, "block %llu is %sfenced", block,
                                r->fenced ? "" : "not ");
    if (r && !a->fill && (a->epoch > r->epoch || (end > 0 && a->start != r->start)))
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "block %llu is of epoch %llu and begins at %llu", block,
                                (unsigned long long)r->epoch, (unsigned long long)r->start);
    if (r && (r->doubtful || r->bad || r->broken))
        return base_status_make(BASE_UNAVAILABLE, "block %llu: this replica is damaged", block);
    if (!r && a->fill)
        return base_status_make(BASE_NOT_FOUND, "block %llu is not here", block);
    if (a->offset != end)
        return base_status_make(BASE_OUT_OF_RANGE, "block %llu ends at %llu, not at %llu", block,
                                (unsigned long long)end, (unsigned long long)a->offset);
    if (a->data.len == 0 || a->data.len > BLK_MESSAGE_BYTES)
        return base_status_make(BASE_INVALID_ARGUMENT, "an append of %zu bytes", a->data.len);
    if (base_crc32c(0, a->data.data, a->data.len) != a->crc)
        return base_status_make(BASE_DATA_LOSS, "block %llu: the append was damaged on its way",
                                block);
    if (store->full || store->space_available <
                           store->space_promised + a->data.len + store->options.space_reserve_bytes)
        return base_status_make(BASE_RESOURCE_EXHAUSTED, "the disk of %s is full", store->dir);
    return BASE_STATUS_OK;
}

struct base_status blk__store_append(struct blk__store *store, const struct blk__append_args *a,
                                     blk__durable_fn *durable, void *arg)
{
    struct base_status status = blk__store_check(store);
    if (!base_failed(status))
        status = check_append(store, a);
    if (base_failed(status))
        return status;
    struct blk__replica *r = blk__replica_find(store, a->block);
    if (!r)
        r = blk__replica_add(store, a->block);
    if (r->accepted == 0) {
        r->start = a->start;
        r->epoch = a->epoch;
    }
    struct blk__extent *extent = malloc(sizeof *extent + a->data.len);
    BASE_ASSERT(extent);
    *extent = (struct blk__extent){ .store = store,
                                    .replica = r,
                                    .offset = a->offset,
                                    .durable = durable,
                                    .arg = arg,
                                    .len = a->data.len };
    memcpy(extent->data, a->data.data, a->data.len);
    extent->entry.done = append_done;
    /* The first bytes of a block are journaled, so that no file is without a record. */
    extent->large = store->options.direct_bytes && a->data.len >= store->options.direct_bytes &&
                    r->oldest_seq != 0;
    extent->crc = a->crc;
    extent->entry.record =
        (struct blk__record){ .type = extent->large ? BLK_RECORD_DIRECT : BLK_RECORD_APPEND,
                              .block = a->block,
                              .epoch = r->epoch,
                              .offset = a->offset,
                              .extra = a->start,
                              .payload = base_bytes(extent->data, a->data.len),
                              .payload_crc = a->crc };
    r->refs++;
    r->accepted += a->data.len;
    store->unwritten_bytes += a->data.len;
    store->space_promised += a->data.len;
    store->unwritten_gauge->value = (int64_t)store->unwritten_bytes;
    ch_count(store->appended_bytes, a->data.len);
    blk__extent_send(extent);
    return BASE_STATUS_OK;
}

void blk__store_committed(struct blk__store *store, uint64_t block, uint64_t epoch,
                          uint64_t committed)
{
    struct blk__replica *r = blk__replica_find(store, block);
    if (r && r->epoch == epoch && committed > r->committed)
        r->committed = committed;
}

/* ---- telling ---- */

static void info_of(const struct blk__replica *r, struct blk__replica_info *info)
{
    *info = (struct blk__replica_info){ .block = r->block,
                                        .epoch = r->epoch,
                                        .start = r->start,
                                        .length = r->length,
                                        .committed = r->committed,
                                        .generation = r->generation,
                                        .short_of = r->sealed ? 0 : r->short_of,
                                        .fenced = r->fenced,
                                        .sealed = r->sealed,
                                        .bad = r->bad,
                                        .doubtful = r->doubtful };
}

bool blk__store_info(const struct blk__store *store, uint64_t block, struct blk__replica_info *info)
{
    const struct blk__replica *r = blk__replica_find(store, block);
    if (r && !r->tomb)
        info_of(r, info);
    return r && !r->tomb;
}

void blk__store_report(struct blk__store *store, size_t max, struct base_arena *arena,
                       struct blk__replica_info **infos, size_t *count, uint64_t **gone,
                       size_t *gone_count, bool *more)
{
    *infos = BASE_NEW_ARRAY(arena, struct blk__replica_info, max);
    *count = 0;
    while (*count < max && !TAILQ_EMPTY(&store->reports)) {
        struct blk__replica *r = TAILQ_FIRST(&store->reports);
        TAILQ_REMOVE(&store->reports, r, report_link);
        r->changed = false;
        info_of(r, &(*infos)[(*count)++]);
    }
    *gone_count = store->gone_count < max ? store->gone_count : max;
    *gone = BASE_NEW_ARRAY(arena, uint64_t, *gone_count);
    for (size_t i = 0; i < store->gone_count; i++)
        *(i < *gone_count ? &(*gone)[i] : &store->gone[i - *gone_count]) = store->gone[i];
    store->gone_count -= *gone_count;
    *more = !TAILQ_EMPTY(&store->reports);
}

void blk__store_report_all(struct blk__store *store)
{
    struct blk__replica *r, *next;
    store->gone_count = 0;
    HASH_ITER(hh, store->table, r, next)
    blk__replica_report(store, r);
}

void blk__store_ids(const struct blk__store *store, struct base_arena *arena, uint64_t **ids,
                    size_t *count)
{
    struct blk__replica *r, *next;
    *count = 0;
    *ids = BASE_NEW_ARRAY(arena, uint64_t, HASH_COUNT(store->table));
    HASH_ITER(hh, store->table, r, next)
    (*ids)[(*count)++] = r->block;
}

void blk__store_space(struct blk__store *store, struct blk__store_space *space)
{
    *space = (struct blk__store_space){ .failed = blk__store_failed(store) };
    uint64_t promised = store->space_promised;
    struct base_status status =
        ch_disk_space(store->env, store->dir, &space->total, &space->available);
    if (base_failed(status)) {
        ch_warn(store->env, "%s", base_status_text(&status));
        base_status_free(&status);
        return;
    }
    /* What was promised before the question is on the disk, or still unwritten. */
    store->space_available = space->available;
    store->space_promised = store->space_promised - promised + store->unwritten_bytes;
    uint64_t taken = store->space_promised + store->options.space_reserve_bytes;
    space->available = space->available > taken ? space->available - taken : 0;
}

/* ---- opening and closing ---- */

static void store_free(struct blk__store *store) CH_WAITS;
static void store_free(struct blk__store *store)
{
    struct blk__replica *r, *next;
    while (!TAILQ_EMPTY(&store->unwritten)) {
        r = TAILQ_FIRST(&store->unwritten);
        TAILQ_REMOVE(&store->unwritten, r, unwritten_link);
        r->queued = false;
        while (!STAILQ_EMPTY(&r->extents)) {
            struct blk__extent *extent = STAILQ_FIRST(&r->extents);
            STAILQ_REMOVE_HEAD(&r->extents, link);
            blk__extent_free(extent);
        }
        blk__replica_unref(r);
    }
    HASH_ITER(hh, store->table, r, next)
    blk__replica_drop(store, r);
    if (store->lock)
        ch_file_close(store->lock);
    free(store->gone);
    free(store->blocks_dir);
    free(store->dir);
    free(store);
}

struct base_status blk__dir_make_durable(struct ch_env *env, const char *path)
{
    struct base_arena arena;
    base_arena_init(&arena);
    char *parent = base_arena_strdup(&arena, path), *slash = strrchr(parent, '/');
    struct base_status status = ch_dir_make(env, path);
    if (slash)
        slash[slash == parent] = 0;
    if (!base_failed(
            status)) /* whoever made it: an earlier start may have ended before it was durable */
        status = ch_dir_sync(env, slash ? parent : ".");
    base_arena_free(&arena);
    return status;
}

static struct base_status open_dirs(struct blk__store *store) CH_WAITS BASE_MUST_CHECK;
static struct base_status open_dirs(struct blk__store *store)
{
    char path[512];
    struct base_status status = blk__dir_make_durable(store->env, store->dir);
    if (!base_failed(status))
        status = blk__dir_make_durable(store->env, store->blocks_dir);
    snprintf(path, sizeof path, "%s/lock", store->dir);
    if (!base_failed(status))
        status = ch_file_open(store->env, path, CH_FILE_READ | CH_FILE_WRITE | CH_FILE_CREATE,
                              &store->lock);
    if (!base_failed(status))
        status = ch_file_lock(store->lock);
    uint64_t total;
    if (!base_failed(status))
        status = ch_disk_space(store->env, store->dir, &total, &store->space_available);
    struct base_buf doubt = { 0 };
    snprintf(path, sizeof path, "%s/doubt", store->dir);
    if (!base_failed(status)) {
        struct base_status known = ch_file_read_all(store->env, path, 64, &doubt);
        if (!base_failed(known)) {
            base_buf_put_u8(&doubt, 0);
            store->doubt_below = strtoull((char *)doubt.data, 0, 10);
        } else if (known.code != BASE_NOT_FOUND) {
            status = base_status_copy(&known);
        }
        base_status_free(&known);
    }
    base_buf_free(&doubt);
    return status;
}

struct base_status blk__store_open(struct ch_env *env, const struct blk__store_options *options,
                                   struct blk__store **out)
{
    struct blk__store *store = calloc(1, sizeof *store);
    BASE_ASSERT(store);
    store->env = env;
    store->options = *options;
    store->dir = strdup(options->dir);
    store->options.dir = store->dir;
    if (asprintf(&store->blocks_dir, "%s/blocks", store->dir) < 0)
        abort();
    TAILQ_INIT(&store->unwritten);
    TAILQ_INIT(&store->reports);
    TAILQ_INIT(&store->files);
    LIST_INIT(&store->removals);
    ch_cond_init(&store->room);
    ch_cond_init(&store->work);
    ch_mutex_init(&store->names);
    store->appended_bytes =
        ch_counter(env, "blockserver_appended_bytes", "", "bytes accepted for append");
    store->read_bytes = ch_counter(env, "blockserver_read_bytes", "", "bytes read and verified");
    store->bad_chunks = ch_counter(env, "blockserver_bad_chunks", "",
                                   "chunks whose bytes did not match their checksum");
    store->checkpoints =
        ch_counter(env, "blockserver_checkpoints", "", "times the journal was cut");
    store->unwritten_gauge = ch_gauge(env, "blockserver_unwritten_bytes", "",
                                      "in the journal and not yet in a block file");
    struct base_status status = open_dirs(store);
    if (!base_failed(status))
        status = blk__store_replay(store);
    if (base_failed(status)) {
        store_free(store);
        return status;
    }
    ch_gate_init(&store->gate, env, "store");
    status = ch_gate_spawn(&store->gate, "keeper", blk__keeper_main, store);
    if (base_failed(status)) {
        blk__journal_close(store->journal);
        store_free(store);
        return status;
    }
    *out = store;
    return BASE_STATUS_OK;
}

void blk__store_close(struct blk__store *store)
{
    store->closing = true;
    ch_cond_broadcast(&store->work);
    ch_gate_close(&store->gate);
    ch_gate_join_always(&store->gate);
    blk__journal_close(store->journal);
    store_free(store);
}
