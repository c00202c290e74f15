/* writer_block.c: one block as its writer sees it: a stream to each replica.
 *
 * Each replica has a sender fiber, which sends what the window has and the replica has not, in
 * messages of up to 1 MiB, with at most BLK_PIPELINE unanswered; and a receiver fiber, which takes
 * the lengths that are durable there. A stream that breaks is never made again: the replica has
 * failed for this block. So a replica's bytes are always a prefix of the block's. */
#include <stdlib.h>

#include "base/codec.h"
#include "writer_int.h"

static void sender_main(void *arg);
static void receiver_main(void *arg);

struct blk__wblock *blk__wblock_new(struct blk_writer *writer, const BLK_PB(Block) * in)
{
    struct blk__wblock *block = calloc(1, sizeof *block);
    BASE_ASSERT(block);
    block->writer = writer;
    block->id = in->id;
    block->epoch = in->epoch;
    block->quorum = in->quorum;
    block->stop = UINT64_MAX;
    block->made_at = ch_now(writer->env);
    block->count = in->n_replicas < BLK_REPLICAS_MAX ? in->n_replicas : BLK_REPLICAS_MAX;
    ch_gate_init(&block->gate, writer->env, "block streams");
    TAILQ_INSERT_TAIL(&writer->blocks, block, link);
    for (size_t i = 0; i < block->count; i++) {
        struct blk__wreplica *r = &block->replicas[i];
        r->block = block;
        r->server = in->replicas[i]->server;
        r->address = base_bytes_dup(&block->arena, ch_bytes_of(in->replicas[i]->address));
        struct base_status status = ch_gate_spawn(&block->gate, "append sender", sender_main, r);
        if (base_failed(status)) {
            base_status_free(&status);
            r->failed = true;
        }
    }
    return block;
}

void blk__wblock_free(struct blk__wblock *block)
{
    ch_gate_stop(&block->gate);
    for (size_t i = 0; i < block->count; i++)
        if (block->replicas[i].stream)
            ch_stream_free(block->replicas[i].stream);
    TAILQ_REMOVE(&block->writer->blocks, block, link);
    base_arena_free(&block->arena);
    free(block);
}

void blk__wblock_begin(struct blk__wblock *block, uint64_t start)
{
    block->current = block->used = true;
    block->start = block->acked = block->sent_max = start;
    block->stop = start + block->writer->block_bytes;
    block->progress_at = ch_now(block->writer->env);
    for (size_t i = 0; i < block->count; i++)
        block->replicas[i].sent = block->replicas[i].acked = block->replicas[i].told = start;
    ch_cond_broadcast(&block->writer->data);
}

size_t blk__wblock_live(const struct blk__wblock *block)
{
    size_t live = 0;
    for (size_t i = 0; i < block->count; i++)
        live += !block->replicas[i].failed;
    return live;
}

void blk__wreplica_fail(struct blk__wreplica *r)
{
    if (r->failed)
        return;
    r->failed = true;
    if (!r->block->ended) /* the stream of a block that was given up ends because it was */
        blk__writer_suspect(r->block->writer, r->server, true);
    blk__writer_trim(r->block->writer);
    ch_cond_broadcast(&r->block->writer->changed);
}

size_t blk__wblock_ready(const struct blk__wblock *block)
{
    size_t ready = 0;
    for (size_t i = 0; i < block->count; i++)
        ready += !block->replicas[i].failed && block->replicas[i].ready;
    return ready;
}

static void stream_failed(struct blk__wreplica *r, struct base_status status)
{
    struct blk_writer *w = r->block->writer;
    if (!r->failed && !r->block->ended && !w->closing && !ch_cancelled()) {
        ch_info(w->env, "%s: block %llu at %.*s: %s", w->path, (unsigned long long)r->block->id,
                BASE_FMT(r->address), base_status_text(&status));
        if (status.code == BASE_FAILED_PRECONDITION) {
            blk__writer_break(w,
                              base_status_wrap(status, "%s: a later writer has the file", w->path));
            status = BASE_STATUS_OK;
        }
    }
    base_status_free(&status);
    blk__wreplica_fail(r);
}

/* ---- sending ---- */

static struct base_status open_stream(struct blk__wreplica *r) CH_WAITS BASE_MUST_CHECK;
static struct base_status open_stream(struct blk__wreplica *r)
{
    struct blk_writer *w = r->block->writer;
    struct ch_call_options options = { .deadline = CH_NEVER };
    if (r->address.len == 0)
        return base_status_make(BASE_UNAVAILABLE, "the server's address is not known");
    struct base_status status = ch_client_open(blk__peer(w->client->peers, r->address),
                                               BLK_SERVER(APPEND), &options, &r->stream);
    if (base_failed(status))
        return status;
    BLK_PB(AppendRequest) first;
    strata__blockstore__v1__append_request__init(&first);
    first.block = r->block->id;
    first.epoch = r->block->epoch;
    status = ch_stream_send(r->stream, &first);
    if (!base_failed(status))
        status = ch_gate_spawn(&r->block->gate, "append receiver", receiver_main, r);
    return status;
}

static uint64_t send_limit(const struct blk__wblock *block)
{
    uint64_t appended = block->writer->appended;
    return block->stop < appended ? block->stop : appended;
}

static bool has_data(const struct blk__wreplica *r)
{
    return r->block->used && r->unanswered < BLK_PIPELINE && r->sent < send_limit(r->block);
}

static bool has_news(const struct blk__wreplica *r)
{
    return r->block->used && !r->block->writer->closing && r->told < r->block->acked &&
           r->sent >= send_limit(r->block) && r->acked == r->sent;
}

static struct base_status send_some(struct blk__wreplica *r) CH_WAITS BASE_MUST_CHECK;
static struct base_status send_some(struct blk__wreplica *r)
{
    struct blk__wblock *block = r->block;
    struct blk_writer *w = block->writer;
    BLK_PB(AppendRequest) message;
    strata__blockstore__v1__append_request__init(&message);
    message.start = block->start;
    message.committed = block->acked - block->start;
    r->told = block->acked;
    uint64_t limit = send_limit(block);
    if (r->sent < limit) {
        BASE_ASSERT(r->sent >= w->window_start);
        size_t len = limit - r->sent < BLK_MESSAGE_BYTES ? limit - r->sent : BLK_MESSAGE_BYTES;
        struct base_bytes data =
            base_bytes(w->window.data + w->window_skip + (r->sent - w->window_start), len);
        message.offset = r->sent - block->start;
        message.data = ch_data_of(data);
        message.crc = base_crc32c(0, data.data, data.len);
        r->sent += len;
        r->message_ends[(r->ring_head + r->unanswered++) % BLK_PIPELINE] = r->sent;
        if (r->sent > block->sent_max) {
            if (block->sent_max == block->acked)
                block->progress_at = ch_now(w->env);
            block->sent_max = r->sent;
        }
    }
    return ch_stream_send(r->stream, &message);
}

static void sender_main(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk__wreplica *r = arg;
    struct blk_writer *w = r->block->writer;
    struct base_status status = open_stream(r);
    while (!base_failed(status) && !r->failed) {
        if (has_data(r) || (has_news(r) && ch_now(w->env) - r->block->progress_at > 20 * CH_MS)) {
            status = send_some(r);
            continue;
        }
        ch_time until = has_news(r) ? r->block->progress_at + 21 * CH_MS : CH_NEVER;
        if (ch_cond_wait(&w->data, until) == CH_CANCELLED)
            break;
    }
    if (base_failed(status))
        stream_failed(r, status);
}

/* ---- receiving ---- */

static int descending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

/* What a quorum has. */
static uint64_t quorum_acked(const struct blk__wblock *block)
{
    uint64_t acked[BLK_REPLICAS_MAX];
    for (size_t i = 0; i < block->count; i++)
        acked[i] = block->replicas[i].acked;
    qsort(acked, block->count, sizeof acked[0], descending);
    return acked[block->quorum - 1];
}

static struct base_status take_answer(struct blk__wreplica *r, uint64_t length) BASE_MUST_CHECK;
static struct base_status take_answer(struct blk__wreplica *r, uint64_t length)
{
    struct blk__wblock *block = r->block;
    uint64_t acked = block->start + length;
    if (!r->ready) {
        r->ready = true;
        ch_cond_broadcast(&block->writer->changed);
        if (length == 0)
            return BASE_STATUS_OK;
    }
    if (!block->used || acked < r->acked || acked > r->sent)
        return base_status_make(BASE_INTERNAL, "an answer for bytes that were not sent");
    r->acked = acked;
    while (r->unanswered > 0 && r->message_ends[r->ring_head] <= acked) {
        r->ring_head = (r->ring_head + 1) % BLK_PIPELINE;
        r->unanswered--;
    }
    if (!block->ended) {
        uint64_t quorum = quorum_acked(block);
        if (quorum > block->acked) {
            ch_debug(block->writer->env,
                     "%s epoch %llu: block %llu from %llu acknowledged to %llu by %.*s",
                     block->writer->path, (unsigned long long)block->epoch,
                     (unsigned long long)block->id, (unsigned long long)block->start,
                     (unsigned long long)quorum, BASE_FMT(r->address));
            block->acked = quorum;
            block->progress_at = ch_now(block->writer->env);
        }
    }
    blk__writer_acked(block->writer);
    return BASE_STATUS_OK;
}

static void receiver_main(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk__wreplica *r = arg;
    struct base_arena arena;
    base_arena_init(&arena);
    struct base_status status = BASE_STATUS_OK;
    while (!base_failed(status)) {
        void *message;
        base_arena_reset(&arena);
        status = ch_stream_recv(r->stream, &arena, &message);
        if (!base_failed(status) && !message)
            status = base_status_make(BASE_UNAVAILABLE, "the server has ended the stream");
        if (!base_failed(status))
            status = take_answer(r, ((BLK_PB(AppendReply) *)message)->length);
    }
    base_arena_free(&arena);
    stream_failed(r, status);
    ch_cond_broadcast(&r->block->writer->data); /* its sender ends too */
}
