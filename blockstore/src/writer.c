/* writer.c: appending to a file.
 *
 * Invariants (with recovery.c they make the file's length right; README.md has the argument):
 * 1. An append gets its offset when it is taken, and these bytes at this offset never change in
 * this epoch: what is sent again, in another block, is the same.
 * 2. A block begins at the file's acknowledged length of that moment.
 * 3. A byte is acknowledged when a quorum of one block's replicas has it on stable storage, and all
 * before it are acknowledged.
 * 4. The master hears that a block has ended only when every byte ever sent to it is acknowledged
 * (maybe in later blocks).
 * 5. Appends are acknowledged in the order of the calls; the first that fails breaks the writer for
 * good. Happy path: copy into the window -> senders (writer_block.c) -> a quorum answers -> wake
 * the appenders in order. Failure: writer_run.c goes on in another block; a later epoch anywhere
 * breaks the writer. */
#include <stdlib.h>

#include "writer_int.h"

/* ---- the window ---- */

void blk__writer_trim(struct blk_writer *w)
{
    uint64_t keep = w->acked;
    struct blk__wblock *block;
    TAILQ_FOREACH(block, &w->blocks, link)
    {
        if (!block->used)
            continue;
        for (size_t i = 0; i < block->count; i++) {
            const struct blk__wreplica *r = &block->replicas[i];
            uint64_t wants = block->ended && r->sent >= block->end ? UINT64_MAX : r->sent;
            if (!r->failed && wants < keep)
                keep = wants;
        }
    }
    if (keep <= w->window_start)
        return;
    w->window_skip += keep - w->window_start;
    w->window_start = keep;
    if (w->window_skip == w->window.len) {
        base_buf_clear(&w->window);
        w->window_skip = 0;
    } else if (w->window_skip > (1 << 20) && w->window_skip > w->window.len / 2) {
        memmove(w->window.data, w->window.data + w->window_skip, w->window.len - w->window_skip);
        w->window.len -= w->window_skip;
        w->window_skip = 0;
    }
    ch_cond_broadcast(&w->room);
}

void blk__writer_acked(struct blk_writer *w)
{
    if (w->current && w->current->acked > w->acked) {
        w->acked = w->current->acked;
        w->stall = 0;
    }
    while (!STAILQ_EMPTY(&w->waiters) && STAILQ_FIRST(&w->waiters)->end <= w->acked) {
        struct blk__waiter *waiter = STAILQ_FIRST(&w->waiters);
        STAILQ_REMOVE_HEAD(&w->waiters, link);
        ch_done_set(&waiter->done);
    }
    blk__writer_trim(w);
    ch_cond_broadcast(&w->data);
    const struct blk__wblock *c = w->current;
    if (w->closing || (c && (c->draining || c->sent_max >= c->stop ||
                             (!w->spare && c->acked - c->start >= BLK_SPARE_BYTES))))
        ch_cond_broadcast(&w->changed);
}

void blk__writer_break(struct blk_writer *w, struct base_status why)
{
    if (base_failed(w->broken)) {
        base_status_free(&why);
        return;
    }
    w->broken = why;
    while (!STAILQ_EMPTY(&w->waiters)) {
        struct blk__waiter *waiter = STAILQ_FIRST(&w->waiters);
        STAILQ_REMOVE_HEAD(&w->waiters, link);
        ch_done_set(&waiter->done);
    }
    ch_cond_broadcast(&w->room);
    ch_cond_broadcast(&w->changed);
}

void blk__writer_suspect(struct blk_writer *w, uint64_t server, bool failed)
{
    size_t oldest = 0;
    for (size_t i = 0; i < BLK_SUSPECTS_MAX; i++) {
        if (w->suspects[i].server == server) {
            oldest = i;
            break;
        }
        if (w->suspects[i].until < w->suspects[oldest].until)
            oldest = i;
    }
    for (size_t i = 0; w->spare && i < w->spare->count; i++)
        w->spare_stale = w->spare_stale || w->spare->replicas[i].server == server;
    w->suspects[oldest].failed =
        failed || (w->suspects[oldest].server == server && w->suspects[oldest].failed &&
                   w->suspects[oldest].until > ch_now(w->env));
    w->suspects[oldest].server = server;
    w->suspects[oldest].until = ch_in(w->env, BLK_SUSPECT_MS * CH_MS);
}

/* ---- appending ---- */

/* Waits for room in the window; the caller holds `entry`. */
static struct base_status wait_for_room(struct blk_writer *w, size_t len,
                                        ch_time deadline) CH_WAITS BASE_MUST_CHECK;
static struct base_status wait_for_room(struct blk_writer *w, size_t len, ch_time deadline)
{
    while (!base_failed(w->broken) && w->appended > w->window_start &&
           w->appended - w->window_start + len > BLK_WINDOW_BYTES_MAX) {
        enum ch_outcome outcome = ch_cond_wait(&w->room, deadline);
        if (outcome == CH_TIMEOUT)
            return base_status_make(BASE_UNAVAILABLE,
                                    "append to %s: too much waits to be written; nothing was",
                                    w->path);
        if (outcome != CH_OK)
            return ch_outcome_status(outcome, "append");
    }
    return base_status_copy(&w->broken);
}

static void take_parts(struct blk_writer *w, const struct base_bytes *parts, size_t part_count,
                       size_t len)
{
    if (w->window_skip && w->window.len + len > w->window.cap) { /* before it grows */
        memmove(w->window.data, w->window.data + w->window_skip, w->window.len - w->window_skip);
        w->window.len -= w->window_skip;
        w->window_skip = 0;
    }
    for (size_t i = 0; i < part_count; i++)
        base_buf_put_bytes(&w->window, parts[i]);
    w->appended += len;
    ch_cond_broadcast(&w->data);
}

struct base_status blk_append(struct blk_writer *w, const struct base_bytes *parts,
                              size_t part_count, ch_time deadline, uint64_t *offset)
{
    size_t len = 0;
    ch_time began = ch_now(w->env);
    for (size_t i = 0; i < part_count && len <= BLK_APPEND_MAX; i++)
        len += parts[i].len;
    if (len > BLK_APPEND_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "append to %s of more than %d bytes",
                                w->path, BLK_APPEND_MAX);
    enum ch_outcome outcome = ch_mutex_lock(&w->entry, deadline);
    if (outcome != CH_OK)
        return ch_outcome_status(outcome, "append");
    struct base_status status = wait_for_room(w, len, deadline);
    struct blk__waiter waiter = { .deadline = deadline };
    if (!base_failed(status)) {
        if (offset)
            *offset = w->appended;
        take_parts(w, parts, part_count, len);
        waiter.end = w->appended;
        ch_done_init(&waiter.done);
        if (waiter.end <= w->acked)
            ch_done_set(&waiter.done);
        else
            STAILQ_INSERT_TAIL(&w->waiters, &waiter, link);
        if (w->wake_at > ch_in(w->env, BLK_STALL_MS_MIN * CH_MS) || w->wake_at > deadline)
            ch_cond_broadcast(&w->changed);
    }
    ch_mutex_unlock(&w->entry);
    if (base_failed(status))
        return status;
    ch_done_wait_always(&waiter.done); /* the manager keeps the deadline */
    ch_time took = ch_now(w->env) - began;
    w->ack_ns += (took - w->ack_ns) / 8;
    ch_observe(w->client->append_ns, (uint64_t)took);
    return waiter.end <= w->acked ? BASE_STATUS_OK : base_status_copy(&w->broken);
}

uint64_t blk_writer_length(const struct blk_writer *w)
{
    return w->acked;
}

uint64_t blk_writer_epoch(const struct blk_writer *w)
{
    return w->epoch;
}

/* ---- opening ---- */

static struct blk_writer *writer_new(struct blk_client *client, const char *path,
                                     const BLK_PB(OpenAppendReply) * opened)
{
    struct blk_writer *w = calloc(1, sizeof *w);
    BASE_ASSERT(w);
    w->client = client;
    w->env = client->env;
    w->path = strdup(path);
    w->file = opened->file;
    w->epoch = opened->epoch;
    w->block_bytes = opened->block_bytes;
    w->replicas = opened->replicas;
    w->appended = w->acked = w->window_start = opened->length;
    STAILQ_INIT(&w->waiters);
    TAILQ_INIT(&w->blocks);
    ch_mutex_init(&w->entry);
    ch_cond_init(&w->room);
    ch_cond_init(&w->data);
    ch_cond_init(&w->changed);
    ch_gate_init(&w->gate, w->env, "writer");
    return w;
}

static void writer_free(struct blk_writer *w) CH_WAITS;
static void writer_free(struct blk_writer *w)
{
    w->closing = true;
    ch_gate_stop(&w->gate);
    while (!TAILQ_EMPTY(&w->blocks))
        blk__wblock_free(TAILQ_FIRST(&w->blocks));
    base_buf_free(&w->window);
    base_status_free(&w->broken);
    free(w->path);
    free(w);
}

struct base_status blk_open_append(struct blk_client *client, const char *path,
                                   const struct blk_append_options *options, ch_time deadline,
                                   struct blk_writer **writer, uint64_t *length)
{
    struct base_arena arena;
    base_arena_init(&arena);
    BLK_PB(OpenAppendRequest) request;
    void *reply;
    strata__blockstore__v1__open_append_request__init(&request);
    request.path = ch_data_str(path);
    request.create = options->create;
    request.exclusive = options->exclusive;
    request.fence = options->fence;
    request.replicas = options->replicas;
    request.quorum = options->quorum;
    struct base_status status =
        blk__call_master(client, BLK_MASTER(OPEN_APPEND), &request, deadline, &arena, &reply);
    if (!base_failed(status)) {
        struct blk_writer *w = writer_new(client, path, reply);
        struct blk__wblock *block;
        status = blk__writer_extend(w, true, false, deadline, &block);
        if (!base_failed(status)) {
            w->current = block;
            blk__wblock_begin(block, w->acked);
            status = ch_gate_spawn(&w->gate, "writer", blk__writer_main, w);
        }
        if (base_failed(status)) {
            writer_free(w);
        } else {
            *writer = w;
            if (length)
                *length = w->acked;
        }
    }
    base_arena_free(&arena);
    return status;
}

/* ---- closing ---- */

/* Lets the slower replicas catch up for a moment, so that there is less to repair, and ends the
 * current block. */
static void settle(struct blk_writer *w, ch_time deadline) CH_WAITS;
static void settle(struct blk_writer *w, ch_time deadline)
{
    ch_time until = ch_in(w->env, BLK_SLOW_MS * CH_MS);
    w->closing = true;
    ch_cond_broadcast(&w->data);
    for (bool behind = true; behind && !base_failed(w->broken);) {
        behind = false;
        struct blk__wblock *block;
        TAILQ_FOREACH(block, &w->blocks, link)
        for (size_t i = 0; block->used && i < block->count; i++)
            behind = behind || (!block->replicas[i].failed &&
                                block->replicas[i].acked < (block->ended ? block->end : w->acked));
        if (behind && ch_cond_wait(&w->changed, until < deadline ? until : deadline) != CH_OK)
            break;
    }
    /* A block that is being asked for is the file's as soon as the master gives it: it is waited
     * for, so that it can be ended too. */
    while (w->fetching && ch_cond_wait(&w->changed, deadline) == CH_OK)
        ;
    struct blk__wblock *block;
    TAILQ_FOREACH(block, &w->blocks, link)
    if (!block->ended)
        blk__wblock_end(block, block->used ? w->acked : 0);
    w->current = w->spare = 0;
}

/* All that is wanted before the end of the writer: no append outstanding, no fiber of its own but
 * this one. */
static void stop_manager(struct blk_writer *w) CH_WAITS;
static void stop_manager(struct blk_writer *w)
{
    ch_gate_stop(&w->gate);
}

struct base_status blk_writer_seal(struct blk_writer *w, ch_time deadline)
{
    if (base_failed(w->broken))
        return base_status_copy(&w->broken);
    while (w->acked < w->appended &&
           !base_failed(w->broken)) { /* appends whose callers still wait */
        enum ch_outcome outcome = ch_cond_wait(&w->room, deadline);
        if (outcome != CH_OK)
            return ch_outcome_status(outcome, "seal");
    }
    settle(w, deadline);
    stop_manager(w);
    struct base_status status = base_status_copy(&w->broken);
    if (!base_failed(status) && w->fetch_unknown) { /* the same block again, if there is one */
        struct blk__wblock *block;
        status = blk__writer_extend(w, true, false, deadline, &block);
        if (!base_failed(status))
            blk__wblock_end(block, 0);
    }
    if (!base_failed(status))
        status = blk__writer_extend(w, false, true, deadline, 0);
    if (!base_failed(status))
        w->broken = base_status_make(BASE_FAILED_PRECONDITION, "file %s is sealed", w->path);
    else if (!base_failed(w->broken))
        w->broken = base_status_make(BASE_UNAVAILABLE, "sealing %s failed: open it again", w->path);
    return status;
}

void blk_writer_close(struct blk_writer *w)
{
    BASE_ASSERT(STAILQ_EMPTY(&w->waiters));
    if (!base_failed(w->broken) && w->acked == w->appended && !ch_cancelled()) {
        ch_time deadline = ch_in(w->env, 2000 * CH_MS);
        settle(w, deadline);
        stop_manager(w);
        if (!base_failed(w->broken)) { /* the next open has nothing to recover then */
            struct base_status status = blk__writer_extend(w, false, false, deadline, 0);
            if (base_failed(status))
                ch_info(w->env, "close %s: %s", w->path, base_status_text(&status));
            base_status_free(&status);
        }
    }
    writer_free(w);
}
