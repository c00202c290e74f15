/* store_copy.c: making a whole replica of a sealed block, from bytes that come from another server.
 *
 * Invariants: 1. A copy never replaces a sealed replica of a later generation: that one was made by
 * a later leader, and may be listed. 2. The copy takes its place (and a journal record of an older
 * replica means nothing any more) only when data and footer are synced; until then it is a .tmp
 * file, which a restart throws away. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "store_int.h"

struct blk__copy {
    struct blk__store *store;
    struct blk__trailer trailer;
    struct blk__sums sums;
    struct ch_file *file;
    char *path;
    uint64_t unsynced;
};

enum {
    COPY_SYNC_BYTES = 8 << 20
}; /* little by little: one large sync would hold up the journal's */

struct base_status blk__copy_begin(struct blk__store *store, uint64_t block, uint64_t epoch,
                                   uint64_t start, uint64_t length, uint64_t generation,
                                   struct blk__copy **out)
{
    if (blk__store_failed(store))
        return base_status_make(BASE_UNAVAILABLE, "the disk of %s has failed", store->dir);
    if (store->full || store->space_available <
                           store->space_promised + length + store->options.space_reserve_bytes)
        return base_status_make(BASE_RESOURCE_EXHAUSTED, "the disk of %s is full", store->dir);
    struct blk__copy *copy = calloc(1, sizeof *copy);
    BASE_ASSERT(copy);
    copy->store = store;
    copy->trailer = (struct blk__trailer){ block, epoch, start, length, generation, 0 };
    if (asprintf(&copy->path, "%s/%016" PRIx64 ".%" PRIx64 ".tmp", store->blocks_dir, block,
                 generation) < 0)
        abort();
    struct base_status status =
        ch_file_open(store->env, copy->path,
                     CH_FILE_WRITE | CH_FILE_READ | CH_FILE_CREATE | CH_FILE_TRUNCATE, &copy->file);
    if (base_failed(status)) {
        free(copy->path);
        free(copy);
        return status;
    }
    store->space_promised += length;
    *out = copy;
    return BASE_STATUS_OK;
}

struct base_status blk__copy_put(struct blk__copy *copy, struct base_bytes data)
{
    BASE_ASSERT(copy->sums.length + data.len <= copy->trailer.length);
    copy->unsynced += data.len;
    bool sync = copy->unsynced >= COPY_SYNC_BYTES;
    struct base_status status = ch_file_write(copy->file, copy->sums.length, &data, 1, sync);
    if (!base_failed(status)) {
        blk__sums_extend(&copy->sums, data.data, data.len);
        if (sync)
            copy->unsynced = 0;
    }
    return status;
}

static void copy_free(struct blk__copy *copy, bool keep_file) CH_WAITS;
static void copy_free(struct blk__copy *copy, bool keep_file)
{
    ch_file_close(copy->file);
    if (!keep_file)
        base_status_drop(ch_file_remove(copy->store->env, copy->path));
    blk__sums_free(&copy->sums);
    free(copy->path);
    free(copy);
}

void blk__copy_abandon(struct blk__copy *copy)
{
    copy_free(copy, false);
}

/* Under the names mutex: the file in its place, then the table. */
static struct base_status put_in_place(struct blk__copy *copy) CH_WAITS BASE_MUST_CHECK;
static struct base_status put_in_place(struct blk__copy *copy)
{
    struct blk__store *store = copy->store;
    uint64_t block = copy->trailer.block;
    char *to = blk__replica_path(store, block, true),
         *open = blk__replica_path(store, block, false);
    const struct blk__replica *there = blk__replica_find(store, block);
    struct base_status status = BASE_STATUS_OK;
    if (there && there->sealed && there->generation > copy->trailer.generation)
        status = base_status_make(BASE_FAILED_PRECONDITION,
                                  "block %" PRIu64 " is here, of a later generation", block);
    if (!base_failed(status))
        status = ch_file_rename(store->env, copy->path, to);
    if (!base_failed(status))
        status = ch_dir_sync(store->env, store->blocks_dir);
    if (!base_failed(status)) {
        struct blk__replica *r;
        while ((r = blk__replica_find(store, block)))
            blk__replica_drop(store, r);
        r = blk__replica_add(store, block);
        r->epoch = copy->trailer.epoch;
        r->start = copy->trailer.start;
        r->generation = copy->trailer.generation;
        r->length = r->accepted = r->written = copy->trailer.length;
        r->fenced = r->sealed = r->finished = r->sums_loaded = true;
        r->sums = copy->sums;
        copy->sums = (struct blk__sums){ 0 };
        blk__replica_report(store, r);
        base_status_drop(ch_file_remove(store->env, open));
    }
    free(to);
    free(open);
    return status;
}

struct base_status blk__copy_end(struct blk__copy *copy)
{
    struct blk__store *store = copy->store;
    struct base_status status;
    if (copy->sums.length != copy->trailer.length) {
        copy_free(copy, false);
        return base_status_make(BASE_INTERNAL, "a copy ended early");
    }
    struct base_buf footer = { 0 };
    blk__footer_put(&copy->trailer, &copy->sums, &footer);
    struct base_bytes part = base_buf_bytes(&footer);
    status = ch_file_write(copy->file, copy->trailer.length, &part, 1, true);
    base_buf_free(&footer);
    if (!base_failed(status)) {
        ch_mutex_lock_always(&store->names);
        status = put_in_place(copy);
        ch_mutex_unlock(&store->names);
    }
    if (base_failed(status) && status.code != BASE_RESOURCE_EXHAUSTED &&
        status.code != BASE_FAILED_PRECONDITION)
        blk__store_fail(store, base_status_copy(&status));
    copy_free(copy, !base_failed(status));
    return status;
}
