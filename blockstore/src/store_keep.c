/* store_keep.c: the keeper, one fiber that writes block files behind the journal.
 *
 * Invariants:
 * 1. Only the keeper moves `written`, extends or cuts a replica's sums, and takes extents away.
 * 2. A journal segment is released only when everything its records say is in synced files, or in
 * later records (a STATE record for a block that goes on growing).
 * 3. A sealed block's file gets its final name only when data and footer are synced; then it never
 * changes. Happy path: linger a little so that writes grow large -> write extents, unsynced -> when
 * half the journal is used: sync files, put STATE records, finish sealed blocks, sync the folder,
 * release segments. Failure: a full disk stops acceptance until it gets on; any other error means
 * the disk is not used any more. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/codec.h"
#include "store_int.h"

enum {
    LINGER_MS = 50,
    WRITE_BYTES_MAX = 4 << 20,
    WRITE_PARTS_MAX = 500,
    FULL_RETRY_MS = 500,
    PINNED_RETRY_MS = 2
};

/* ENOSPC is a state that may pass; the rest is the end of this disk. */
static struct base_status judge(struct blk__store *store,
                                struct base_status status) BASE_MUST_CHECK;
static struct base_status judge(struct blk__store *store, struct base_status status)
{
    if (!base_failed(status))
        return status;
    if (status.code == BASE_RESOURCE_EXHAUSTED)
        store->full = true;
    else
        blk__store_fail(store, base_status_copy(&status));
    return status;
}

static void throw_extents(struct blk__replica *r, uint64_t from)
{
    STAILQ_HEAD(, blk__extent) keep = STAILQ_HEAD_INITIALIZER(keep);
    while (!STAILQ_EMPTY(&r->extents)) {
        struct blk__extent *extent = STAILQ_FIRST(&r->extents);
        STAILQ_REMOVE_HEAD(&r->extents, link);
        if (extent->offset < from)
            STAILQ_INSERT_TAIL(&keep, extent, link);
        else
            blk__extent_free(extent);
    }
    STAILQ_CONCAT(&r->extents, &keep);
}

/* Takes the first n extents away: they are in the file. */
static void extents_written(struct blk__replica *r, size_t n)
{
    for (; n > 0; n--) {
        struct blk__extent *extent = STAILQ_FIRST(&r->extents);
        STAILQ_REMOVE_HEAD(&r->extents, link);
        if (!r->tomb) {
            blk__sums_extend(&r->sums, extent->data, extent->len);
            r->written += extent->len;
        }
        blk__extent_free(extent);
    }
}

/* Writes one run of extents; a large one that is there already only counts. */
static struct base_status write_run(struct blk__store *store, struct blk__replica *r,
                                    struct ch_file *file) CH_WAITS BASE_MUST_CHECK;
static struct base_status write_run(struct blk__store *store, struct blk__replica *r,
                                    struct ch_file *file)
{
    struct base_bytes parts[WRITE_PARTS_MAX] = { { 0 } };
    size_t n = 0, bytes = 0;
    struct blk__extent *extent;
    if (STAILQ_FIRST(&r->extents)->in_file) {
        BASE_ASSERT(STAILQ_FIRST(&r->extents)->offset == r->written);
        extents_written(r, 1);
        return BASE_STATUS_OK;
    }
    STAILQ_FOREACH(extent, &r->extents, link)
    {
        if (n == WRITE_PARTS_MAX || bytes >= WRITE_BYTES_MAX || extent->in_file)
            break;
        BASE_ASSERT(extent->offset == r->written + bytes);
        parts[n++] = base_bytes(extent->data, extent->len);
        bytes += extent->len;
    }
    r->unsynced = true;
    struct base_status status = judge(store, ch_file_write(file, r->written, parts, n, false));
    if (!base_failed(status))
        extents_written(r, n);
    return status;
}

/* Cuts what lies beyond a seal: the sums first, so that readers see a consistent replica all the
 * time. */
static struct base_status cut(struct blk__store *store, struct blk__replica *r,
                              struct ch_file *file) CH_WAITS BASE_MUST_CHECK;
static struct base_status cut(struct blk__store *store, struct blk__replica *r,
                              struct ch_file *file)
{
    size_t chunk = r->length / BLK_CHUNK_BYTES, keep = r->length % BLK_CHUNK_BYTES, got = 0;
    uint32_t crc = 0;
    struct base_status status = BASE_STATUS_OK;
    if (keep) {
        size_t len = blk__sums_chunk_len(&r->sums, chunk);
        uint8_t *bytes = malloc(len);
        BASE_ASSERT(bytes);
        status =
            judge(store, ch_file_read(file, (uint64_t)chunk * BLK_CHUNK_BYTES, bytes, len, &got));
        if (!base_failed(status) && (got < len || !blk__sums_match(&r->sums, chunk, bytes, len)))
            blk__replica_bad(store, r, (uint64_t)chunk * BLK_CHUNK_BYTES, "before a cut");
        crc = base_crc32c(0, bytes, keep);
        free(bytes);
    }
    if (base_failed(status) || r->bad)
        return status;
    blk__sums_cut(&r->sums, r->length, crc);
    r->written = r->length;
    r->cuts++;
    return status;
}

/* A sealed block: footer, sync, final name. */
static struct base_status finish(struct blk__store *store, struct blk__replica *r,
                                 struct ch_file *file) CH_WAITS BASE_MUST_CHECK;
static struct base_status finish(struct blk__store *store, struct blk__replica *r,
                                 struct ch_file *file)
{
    struct base_status status = BASE_STATUS_OK;
    if (r->written > r->length)
        status = cut(store, r, file);
    if (base_failed(status) || r->bad || r->written != r->length)
        return status;
    struct base_buf footer = { 0 };
    struct blk__trailer trailer = { r->block, r->epoch, r->start, r->length, r->generation, 0 };
    blk__footer_put(&trailer, &r->sums, &footer);
    status = judge(store, ch_file_truncate(file, r->length));
    struct base_bytes part = base_buf_bytes(&footer);
    if (!base_failed(status))
        status = judge(store, ch_file_write(file, r->length, &part, 1, true));
    base_buf_free(&footer);
    if (base_failed(status))
        return status;
    ch_mutex_lock_always(&store->names);
    if (!r->gone) {
        char *from = blk__replica_path(store, r->block, false),
             *to = blk__replica_path(store, r->block, true);
        status = judge(store, ch_file_rename(store->env, from, to));
        store->names_unsynced = true;
        if (!base_failed(status)) {
            r->finished = r->sums_loaded = true;
            r->unsynced = false;
        }
        free(from);
        free(to);
    }
    ch_mutex_unlock(&store->names);
    return status;
}

/* Brings one replica's file up to what the journal has. The caller holds a reference. */
static struct base_status write_out(struct blk__store *store,
                                    struct blk__replica *r) CH_WAITS BASE_MUST_CHECK;
static struct base_status write_out(struct blk__store *store, struct blk__replica *r)
{
    struct ch_file *file;
    if (r->gone || r->tomb)
        throw_extents(r, 0);
    if (r->tomb && r->file && r->file_users == 0)
        blk__replica_file_close(store, r);
    if (r->gone || r->tomb || r->finished || (r->sealed && r->length == 0))
        return BASE_STATUS_OK;
    if (STAILQ_EMPTY(&r->extents) && !r->sealed)
        return BASE_STATUS_OK;
    struct base_status status = blk__replica_file(store, r, true, &file);
    if (status.code == BASE_NOT_FOUND && (r->gone || r->tomb)) {
        throw_extents(r, 0);
        base_status_free(&status);
        return BASE_STATUS_OK;
    }
    status = judge(store, status);
    if (base_failed(status))
        return status;
    while (!base_failed(status) && !r->gone && !r->tomb) {
        if (r->sealed)
            throw_extents(r, r->length);
        if (STAILQ_EMPTY(&r->extents))
            break;
        status = write_run(store, r, file);
    }
    if (!base_failed(status) && r->sealed && !r->gone && !r->tomb && !r->bad)
        status = finish(store, r, file);
    blk__replica_file_release(store, r);
    if (r->gone || r->tomb)
        throw_extents(r, 0);
    return status;
}

/* ---- checkpoint ---- */

/* Syncs one replica that goes on growing, and puts its STATE. */
static struct base_status settle(struct blk__store *store,
                                 struct blk__replica *r) CH_WAITS BASE_MUST_CHECK;
static struct base_status settle(struct blk__store *store, struct blk__replica *r)
{
    struct base_status status = BASE_STATUS_OK;
    if (r->unsynced) {
        struct ch_file *file;
        status = blk__replica_file(store, r, true, &file);
        if (status.code == BASE_NOT_FOUND && (r->gone || r->tomb)) {
            base_status_free(&status); /* a tomb still needs its record, below */
        } else if (!base_failed(status)) {
            status = ch_file_sync(file);
            r->unsynced = base_failed(status);
            blk__replica_file_release(store, r);
        }
        status = judge(store, status);
    }
    if (!base_failed(status) && store->names_unsynced) {
        store->names_unsynced = false;
        status = judge(store, ch_dir_sync(store->env, store->blocks_dir));
    }
    if (base_failed(status) || r->gone)
        return status;
    struct base_buf state = { 0 };
    blk__state_put(r, &state);
    struct blk__record record = { .type = BLK_RECORD_STATE,
                                  .block = r->block,
                                  .epoch = r->epoch,
                                  .extra = r->generation,
                                  .payload = base_buf_bytes(&state) };
    status = blk__store_record(store, &record, true, 0);
    base_buf_free(&state);
    return status;
}

struct base_status blk__store_checkpoint(struct blk__store *store)
{
    uint64_t seq = blk__journal_seq(store->journal);
    struct base_arena arena;
    base_arena_init(&arena);
    uint64_t *ids;
    size_t count;
    blk__store_ids(store, &arena, &ids, &count);
    struct base_status status = BASE_STATUS_OK;
    for (size_t i = 0; i < count && !base_failed(status); i++) {
        ch_yield_if_long();
        struct blk__replica *r = blk__replica_find(store, ids[i]);
        if (!r || r->oldest_seq == 0 || r->oldest_seq >= seq)
            continue;
        if (r->tomb && r->block < store->open_from && !r->queued && STAILQ_EMPTY(&r->extents)) {
            blk__replica_drop(store, r);
            continue;
        }
        r->refs++;
        status = write_out(store, r);
        if (!base_failed(status) && !r->finished && !r->gone)
            status = settle(store, r);
        if (!base_failed(status))
            r->oldest_seq = r->finished ? 0 : seq;
        blk__replica_unref(r);
    }
    base_arena_free(&arena);
    if (!base_failed(status) && store->names_unsynced) {
        store->names_unsynced = false;
        status = judge(store, ch_dir_sync(store->env, store->blocks_dir));
    }
    if (!base_failed(status)) {
        const struct blk__removal *removal;
        LIST_FOREACH(removal, &store->removals, link)
        seq = removal->seq < seq ? removal->seq : seq;
        blk__journal_release(store->journal, seq);
        ch_count(store->checkpoints, 1);
    }
    return status;
}

/* ---- the fiber ---- */

static bool wants_checkpoint(const struct blk__store *store)
{
    uint32_t segments, live = blk__journal_live(store->journal, &segments);
    /* Ordinary records leave one segment free: with fewer than two of them they wait for this. */
    return (live > 2 && live * 2 >= segments) || (live > 1 && segments - live < 2);
}

static bool in_a_hurry(const struct blk__store *store)
{
    return store->closing || store->failed ||
           store->unwritten_bytes * 4 >= store->options.unwritten_bytes_max ||
           wants_checkpoint(store);
}

static void wait_for_work(struct blk__store *store) CH_WAITS;
static void wait_for_work(struct blk__store *store)
{
    ch_time until = CH_NEVER;
    while (!in_a_hurry(store)) {
        if (until == CH_NEVER && !TAILQ_EMPTY(&store->unwritten))
            until = ch_in(store->env, LINGER_MS * CH_MS);
        ch_time wake = ch_in(store->env, 100 * CH_MS); /* the journal grows without telling */
        enum ch_outcome outcome = ch_cond_wait(&store->work, until < wake ? until : wake);
        if (outcome == CH_CANCELLED)
            store->closing = true;
        if (until != CH_NEVER && ch_now(store->env) >= until)
            return;
    }
}

static struct base_status write_queued(struct blk__store *store) CH_WAITS BASE_MUST_CHECK;
static struct base_status write_queued(struct blk__store *store)
{
    struct base_status status = BASE_STATUS_OK;
    struct blk__replica *end = TAILQ_LAST(&store->unwritten, blk__replica_list);
    for (bool last = !end; !last && !base_failed(status);) {
        struct blk__replica *r = TAILQ_FIRST(&store->unwritten);
        last = r == end;
        TAILQ_REMOVE(&store->unwritten, r, unwritten_link);
        r->queued = false;
        status = write_out(store, r);
        if (base_failed(status) || (!STAILQ_EMPTY(&r->extents) && !r->queued))
            blk__replica_unwritten(store, r);
        blk__replica_unref(r);
    }
    return status;
}

void blk__keeper_main(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk__store *store = arg;
    while (!store->closing) {
        wait_for_work(store);
        if (store->failed || store->closing)
            break;
        struct base_status status = write_queued(store);
        if (!base_failed(status) && wants_checkpoint(store))
            status = blk__store_checkpoint(store);
        if (base_failed(status)) {
            if (store->full &&
                ch_sleep_until(store->env, ch_in(store->env, FULL_RETRY_MS * CH_MS)) ==
                    CH_CANCELLED)
                store->closing = true;
            base_status_free(&status);
        } else if (store->full) {
            ch_info(store->env, "%s has room again", store->dir);
            store->full = false;
        }
        /* What pins the oldest segment, a removal under way, is about to end: no spinning. */
        if (!store->closing && wants_checkpoint(store) &&
            ch_sleep_until(store->env, ch_in(store->env, PINNED_RETRY_MS * CH_MS)) == CH_CANCELLED)
            store->closing = true;
    }
    if (!blk__store_failed(store)) {
        struct base_status status = write_queued(store);
        if (base_failed(status))
            ch_warn(store->env, "%s: %s: the journal keeps it", store->dir,
                    base_status_text(&status));
        base_status_free(&status);
    }
}
