/* store_fence.c: what ends a replica's growing: fence, seal, removal; and what is not known of it.
 *
 * Invariants:
 * 1. Each is durable before it is answered, and stands before every append that is accepted later.
 * 2. A fence outlives its replica: one that is removed before it was sealed stays as a tomb while
 *    its old writer could still begin it anew, which no block below the master's `open_from` can
 *    be. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/codec.h"
#include "store_int.h"

static void report_gone(struct blk__store *store, uint64_t block)
{
    if (store->gone_count == store->gone_cap) {
        store->gone_cap = store->gone_cap ? 2 * store->gone_cap : 64;
        store->gone = realloc(store->gone, store->gone_cap * sizeof *store->gone);
        BASE_ASSERT(store->gone);
    }
    store->gone[store->gone_count++] = block;
}

/* ---- fence, seal, remove ---- */

struct waited {
    struct blk__entry entry;
    struct ch_done done;
    uint64_t *seq; /* where to note the segment it is in, before anybody else runs */
    bool ok;
};

static void waited_done(struct blk__entry *entry, bool ok)
{
    struct waited *w = (struct waited *)entry;
    w->ok = ok;
    if (w->seq)
        *w->seq = entry->seq;
    ch_done_set(&w->done);
}

struct base_status blk__store_record(struct blk__store *store, const struct blk__record *record,
                                     bool first, uint64_t *seq)
{
    struct waited w = { .entry = { .record = *record, .done = waited_done }, .seq = seq };
    ch_done_init(&w.done);
    w.entry.record.payload_crc = base_crc32c(0, record->payload.data, record->payload.len);
    blk__journal_put(store->journal, &w.entry, first);
    ch_done_wait_always(&w.done);
    if (!w.ok)
        store->failed = true;
    return blk__store_check(store);
}

struct base_status blk__store_fence(struct blk__store *store, uint64_t block, uint64_t epoch,
                                    ch_time deadline, struct blk__replica_info *info)
{
    struct base_status status = blk__store_check(store);
    if (base_failed(status))
        return status;
    struct blk__replica *r = blk__replica_find(store, block);
    if (r && r->tomb)
        return base_status_make(BASE_NOT_FOUND, "block %" PRIu64 " is gone", block);
    if (r && r->epoch > epoch)
        return base_status_make(BASE_FAILED_PRECONDITION,
                                "block %" PRIu64 " is fenced by epoch %" PRIu64, block, r->epoch);
    if (!r) {
        r = blk__replica_add(store, block);
        r->doubtful = blk__store_doubts(store, block);
        blk__replica_report(store, r);
    }
    r->epoch = epoch;
    r->fenced = true;
    r->refs++;
    blk__replica_settle(r);
    if (!r->sealed) {
        uint64_t seq = 0;
        status = blk__store_record(
            store,
            &(struct blk__record){ .type = BLK_RECORD_FENCE, .block = block, .epoch = epoch },
            false, &seq);
        if (r->oldest_seq == 0)
            r->oldest_seq = seq;
    }
    bool gone = r->gone || r->tomb;
    blk__replica_unref(r);
    if (!base_failed(status) && (gone || !blk__store_info(store, block, info)))
        status = base_status_make(BASE_NOT_FOUND, "block %" PRIu64 " was removed", block);
    return status;
}

struct base_status blk__store_seal(struct blk__store *store, uint64_t block, uint64_t length)
{
    struct base_status status = blk__store_check(store);
    struct blk__replica *r = blk__replica_find(store, block);
    if (base_failed(status))
        return status;
    if (!r || r->tomb)
        return base_status_make(BASE_NOT_FOUND, "block %" PRIu64 " is not here", block);
    if (r->sealed || r->sealing)
        return (r->sealed ? r->length : r->seal_length) == length
                   ? BASE_STATUS_OK
                   : base_status_make(BASE_FAILED_PRECONDITION,
                                      "block %" PRIu64 " is sealed at %" PRIu64, block, r->length);
    if (r->length < length) {
        r->short_of = length;
        blk__replica_report(store, r);
        return base_status_make(BASE_OUT_OF_RANGE, "block %" PRIu64 " has %" PRIu64 " bytes only",
                                block, r->length);
    }
    r->sealing = true;
    r->seal_length = length;
    r->refs++;
    blk__replica_settle(r);
    status = blk__store_record(
        store, &(struct blk__record){ .type = BLK_RECORD_SEAL, .block = block, .offset = length },
        false, 0);
    if (!base_failed(status) && !r->gone && !r->tomb) {
        r->sealed = true;
        r->length = r->accepted = length;
        r->doubtful = false;
        blk__replica_report(store, r);
        blk__replica_unwritten(store, r);
    }
    r->sealing = false;
    blk__replica_unref(r);
    return status;
}

/* After its record is durable: out of the table, or buried, and its file away. */
static struct base_status take_away(struct blk__store *store,
                                    struct blk__replica *r) CH_WAITS BASE_MUST_CHECK;
static struct base_status take_away(struct blk__store *store, struct blk__replica *r)
{
    char *path = blk__replica_path(store, r->block, r->finished);
    report_gone(store, r->block);
    if (r->sealed) {
        blk__replica_drop(store, r);
    } else {
        blk__replica_bury(store, r);
        blk__replica_unwritten(store, r); /* the keeper throws its bytes away, closes the file */
    }
    struct base_status status = ch_file_remove(store->env, path);
    store->names_unsynced = true;
    if (status.code == BASE_NOT_FOUND)
        base_status_free(&status);
    free(path);
    return status;
}

struct base_status blk__store_remove(struct blk__store *store, uint64_t block, uint64_t generation)
{
    struct base_status status = blk__store_check(store);
    struct blk__replica *r = blk__replica_find(store, block);
    if (base_failed(status) || !r || r->generation != generation || r->tomb)
        return status;
    r->refs++;
    r->fenced = true; /* no append comes behind the removal */
    blk__replica_settle(r);
    blk__replica_unref(r);
    /* While its record waits to be written it keeps no segment: it may wait for one to be free. */
    struct blk__removal removal = { UINT64_MAX, { 0 } };
    LIST_INSERT_HEAD(&store->removals, &removal, link);
    struct blk__record record = { .type = BLK_RECORD_REMOVE, .block = block, .extra = generation };
    status = blk__store_record(store, &record, false, &removal.seq);
    if (!base_failed(status)) {
        ch_mutex_lock_always(&store->names);
        r = blk__replica_find(store, block);
        if (r && r->generation == generation && !r->tomb)
            status = take_away(store, r);
        ch_mutex_unlock(&store->names);
    }
    LIST_REMOVE(&removal, link);
    return status;
}

/* ---- doubt ---- */

bool blk__store_doubts(const struct blk__store *store, uint64_t block)
{
    return block < store->doubt_below;
}

void blk__store_doubt_limit(struct blk__store *store, uint64_t next_block)
{
    if (store->doubt_below != UINT64_MAX || next_block == 0)
        return;
    store->doubt_below = next_block;
    char path[512], text[32];
    snprintf(path, sizeof path, "%s/doubt", store->dir);
    snprintf(text, sizeof text, "%" PRIu64 "\n", next_block);
    struct base_status status = ch_file_write_all(store->env, path, base_bytes_str(text));
    if (base_failed(status)) { /* doubts more than it need, after the next restart */
        ch_warn(store->env, "%s", base_status_text(&status));
        base_status_free(&status);
    }
}

void blk__store_open_from(struct blk__store *store, uint64_t open_from)
{
    if (open_from > store->open_from)
        store->open_from = open_from;
}
