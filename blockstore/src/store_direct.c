/* store_direct.c: large appends go straight to the block file, synced, and the journal only says
 * so: to disk once, not twice.
 *
 * Invariants:
 * 1. The journal's records of one block are in the order of its bytes: what is accepted behind a
 *    large append is held back until that one's record is put.
 * 2. A DIRECT record is put only when its bytes, and the name of the file they are in, are on
 *    stable storage. A block's first bytes are never direct: no file is without a record.
 * 3. The keeper counts them when it has written all before them (store_keep.c); till then they are
 *    read from memory.
 * Happy path: hold -> one write and sync of all large ones in a row -> their records -> durable.
 * Failure: a full disk ends this replica's growing; anything else the use of the disk. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/codec.h"
#include "store_int.h"

enum { RUN_MAX = 16 };

static void put(struct blk__extent *extent)
{
    struct blk__record *record = &extent->entry.record;
    if (extent->large) {
        base_put_le32(extent->note, (uint32_t)extent->len);
        base_put_le32(extent->note + 4, extent->crc);
        record->payload = base_bytes(extent->note, sizeof extent->note);
        record->payload_crc = base_crc32c(0, extent->note, sizeof extent->note);
        extent->in_file = true;
    }
    blk__journal_put(extent->store->journal, &extent->entry, false);
}

static struct blk__extent *take(struct blk__replica *r)
{
    struct blk__extent *extent = STAILQ_FIRST(&r->held);
    STAILQ_REMOVE_HEAD(&r->held, link);
    return extent;
}

/* What cannot be written is told so, with all that is held behind it. */
static void give_up(struct blk__store *store, struct blk__replica *r, struct base_status why)
{
    r->broken = true;
    if (why.code == BASE_RESOURCE_EXHAUSTED || r->gone) {
        ch_warn(store->env, "block %" PRIu64 ": %s", r->block, base_status_text(&why));
        base_status_free(&why);
    } else {
        blk__store_fail(store, why);
    }
    while (!STAILQ_EMPTY(&r->held)) {
        struct blk__extent *extent = take(r);
        blk__durable_fn *durable = extent->durable;
        void *arg = extent->arg;
        blk__extent_free(extent);
        durable(arg, 0);
    }
}

/* Writes the large extents at the front of `held`. */
static struct base_status write_large(struct blk__store *store, struct blk__replica *r,
                                      size_t *n) CH_WAITS BASE_MUST_CHECK;
static struct base_status write_large(struct blk__store *store, struct blk__replica *r, size_t *n)
{
    struct base_bytes parts[RUN_MAX];
    struct blk__extent *extent;
    struct ch_file *file;
    *n = 0;
    STAILQ_FOREACH(extent, &r->held, link)
    {
        if (*n == RUN_MAX || !extent->large)
            break;
        parts[(*n)++] = base_bytes(extent->data, extent->len);
    }
    uint64_t offset = STAILQ_FIRST(&r->held)->offset;
    struct base_status status = blk__replica_file(store, r, true, &file);
    if (base_failed(status))
        return status;
    status = ch_file_write(file, offset, parts, *n, true);
    blk__replica_file_release(store, r);
    if (!base_failed(status) && !r->name_durable) {
        status = ch_dir_sync(store->env, store->blocks_dir);
        r->name_durable = !base_failed(status);
    }
    return status;
}

static void direct_main(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk__replica *r = arg;
    struct blk__store *store = STAILQ_FIRST(&r->held)->store;
    while (!STAILQ_EMPTY(&r->held)) {
        size_t n = 1;
        struct base_status status = BASE_STATUS_OK;
        if (STAILQ_FIRST(&r->held)->large)
            status = write_large(store, r, &n);
        if (base_failed(status))
            give_up(store, r, status);
        else
            for (; n > 0; n--)
                put(take(r));
    }
    r->direct = false;
    ch_cond_broadcast(&r->direct_over);
    blk__replica_unref(r);
}

void blk__extent_send(struct blk__extent *extent)
{
    struct blk__replica *r = extent->replica;
    if (!extent->large && !r->direct) {
        put(extent);
        return;
    }
    STAILQ_INSERT_TAIL(&r->held, extent, link);
    if (r->direct)
        return;
    r->direct = true;
    r->refs++;
    struct base_status status = ch_gate_spawn(&extent->store->gate, "large append", direct_main, r);
    if (base_failed(status)) {
        give_up(extent->store, r, status);
        r->direct = false;
        r->refs--;
    }
}

void blk__replica_settle(struct blk__replica *r)
{
    while (r->direct)
        ch_cond_wait_always(&r->direct_over);
}

/* ---- restart ---- */

static bool load(struct ch_file *file, struct blk__extent *extent,
                 struct base_status *status) CH_WAITS;
static bool load(struct ch_file *file, struct blk__extent *extent, struct base_status *status)
{
    size_t got = 0;
    *status = ch_file_read(file, extent->offset, extent->data, extent->len, &got);
    extent->unloaded = false;
    return !base_failed(*status) && got == extent->len &&
           base_crc32c(0, extent->data, extent->len) == extent->crc;
}

struct base_status blk__replica_load(struct blk__store *store, struct blk__replica *r)
{
    struct blk__extent *extent;
    struct ch_file *file;
    bool any = false, good = true;
    STAILQ_FOREACH(extent, &r->extents, link)
    any = any || extent->unloaded;
    if (!any)
        return BASE_STATUS_OK;
    struct base_status status = blk__replica_file(store, r, true, &file);
    if (base_failed(status))
        return status;
    STAILQ_FOREACH(extent, &r->extents, link)
    {
        if (!extent->unloaded)
            continue;
        good = load(file, extent, &status);
        if (!good)
            break;
    }
    blk__replica_file_release(store, r);
    if (good || base_failed(status))
        return status;
    /* Its bytes were durable and are not what they were: the replica ends before them, in doubt. */
    uint64_t cut = extent->offset;
    blk__replica_bad(store, r, cut, "a large append");
    r->doubtful = !r->sealed;
    r->length = r->accepted = r->length < cut ? r->length : cut;
    STAILQ_HEAD(, blk__extent) keep = STAILQ_HEAD_INITIALIZER(keep);
    while (!STAILQ_EMPTY(&r->extents)) {
        extent = STAILQ_FIRST(&r->extents);
        STAILQ_REMOVE_HEAD(&r->extents, link);
        if (extent->offset < cut)
            STAILQ_INSERT_TAIL(&keep, extent, link);
        else
            blk__extent_free(extent);
    }
    STAILQ_CONCAT(&r->extents, &keep);
    return status;
}
