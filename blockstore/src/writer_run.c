/* writer_run.c: the writer's manager: leaves a block whose replicas fail, stall or are full, and
 * gets the next one.
 *
 * A fiber that looks when something changed or a time has come; what it decides (step) it does
 * without waiting. The master is asked on a fiber of its own (fetch): once a file has grown a
 * little it has a spare block whose streams are open, so that the switch waits for nobody. A
 * switch: hard, when the quorum does not answer any more: the block ends at what is acknowledged,
 * the rest is sent again in the next one. Soft, when it is full or one replica of it is lost: no
 * more is sent, and it ends when all that was sent is acknowledged. */
#include <stdlib.h>

#include "writer_int.h"

enum { FETCH_MS = 3000, BACKOFF_MS_MIN = 10, BACKOFF_MS_MAX = 500, LOOK_MS = 50 };

/* ---- the master ---- */

/* What may be reported of the ended blocks: each whose bytes are all acknowledged, in order; unused
 * ones at any time. */
static size_t reportable(struct blk_writer *w, BLK_PB(BlockEnd) * *ends, struct base_arena *arena)
{
    struct blk__wblock *block;
    size_t n = 0;
    bool blocked = false;
    TAILQ_FOREACH(block, &w->blocks, link)
    {
        if (block->used && (!block->ended || block->sent_max > w->acked))
            blocked = true;
        if (!block->ended || block->reported || (blocked && block->used) || n == BLK_TAIL_MAX)
            continue;
        if (ends) {
            ends[n] = BLK_NEW(arena, BlockEnd, block_end);
            ends[n]->block = block->id;
            ends[n]->length = block->used ? block->end - block->start : 0;
            ends[n]->holders = BASE_NEW_ARRAY(arena, uint64_t, block->count);
            for (size_t i = 0; i < block->count; i++)
                if (block->used && block->replicas[i].acked >= block->end)
                    ends[n]->holders[ends[n]->n_holders++] = block->replicas[i].server;
        }
        n++;
    }
    return n;
}

static void mark_reported(struct blk_writer *w, const BLK_PB(ExtendRequest) * request)
{
    struct blk__wblock *block;
    TAILQ_FOREACH(block, &w->blocks, link)
    for (size_t i = 0; i < request->n_ends; i++)
        block->reported = block->reported || request->ends[i]->block == block->id;
}

/* Those that failed before those that were slow, the latest first. */
static size_t suspects_of(const struct blk_writer *w, uint64_t *servers)
{
    bool put[BLK_SUSPECTS_MAX] = { false };
    size_t n = 0;
    ch_time now = ch_now(w->env);
    while (true) {
        size_t worst = BLK_SUSPECTS_MAX;
        for (size_t i = 0; i < BLK_SUSPECTS_MAX; i++) {
            if (put[i] || !w->suspects[i].server || w->suspects[i].until <= now)
                continue;
            if (worst == BLK_SUSPECTS_MAX || w->suspects[i].failed > w->suspects[worst].failed ||
                (w->suspects[i].failed == w->suspects[worst].failed &&
                 w->suspects[i].until > w->suspects[worst].until))
                worst = i;
        }
        if (worst == BLK_SUSPECTS_MAX)
            return n;
        put[worst] = true;
        servers[n++] = w->suspects[worst].server;
    }
}

struct base_status blk__writer_extend(struct blk_writer *w, bool want, bool seal_file,
                                      ch_time deadline, struct blk__wblock **block)
{
    struct base_arena arena;
    base_arena_init(&arena);
    BLK_PB(ExtendRequest) *request = BLK_NEW(&arena, ExtendRequest, extend_request);
    request->file = w->file;
    request->epoch = w->epoch;
    request->want_block = want;
    request->allocated = w->allocated;
    request->seal_file = seal_file;
    request->ends = BASE_NEW_ARRAY(&arena, BLK_PB(BlockEnd) *, BLK_TAIL_MAX);
    request->n_ends = reportable(w, request->ends, &arena);
    request->avoid = BASE_NEW_ARRAY(&arena, uint64_t, BLK_SUSPECTS_MAX);
    request->n_avoid = suspects_of(w, request->avoid);
    struct base_status status = BASE_STATUS_OK;
    void *reply;
    if (want || seal_file || request->n_ends)
        status = blk__call_master(w->client, BLK_MASTER(EXTEND), request, deadline, &arena, &reply);
    if (!base_failed(status) && (want || seal_file || request->n_ends)) {
        mark_reported(w, request);
        const BLK_PB(ExtendReply) *extended = reply;
        if (want) {
            w->allocated++;
            *block = blk__wblock_new(w, extended->block);
        }
    }
    base_arena_free(&arena);
    return status;
}

/* The master is asked less and less often while it does not answer, or what it gives does not last.
 */
static void back_off(struct blk_writer *w, ch_time now)
{
    w->fetch_backoff = w->fetch_backoff ? 2 * w->fetch_backoff : BACKOFF_MS_MIN * CH_MS;
    if (w->fetch_backoff > BACKOFF_MS_MAX * CH_MS)
        w->fetch_backoff = BACKOFF_MS_MAX * CH_MS;
    w->fetch_after = now + w->fetch_backoff;
}

static void fetch_main(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk_writer *w = arg;
    struct blk__wblock *block = 0;
    bool want = !w->spare;
    struct base_status status =
        blk__writer_extend(w, want, false, ch_in(w->env, FETCH_MS * CH_MS), &block);
    w->fetching = false;
    if (want)
        w->fetch_unknown = base_failed(status);
    if (base_failed(status)) {
        back_off(w, ch_now(w->env));
        if (status.code == BASE_FAILED_PRECONDITION || status.code == BASE_NOT_FOUND) {
            status.code = BASE_FAILED_PRECONDITION;
            blk__writer_break(w,
                              base_status_wrap(status, "%s: this writer has it no more", w->path));
            status = BASE_STATUS_OK;
        } else if (!ch_cancelled()) {
            ch_info(w->env, "%s: next block: %s", w->path, base_status_text(&status));
        }
    } else if (block) {
        w->spare = block;
        w->spare_stale = false;
    }
    base_status_free(&status);
    ch_cond_broadcast(&w->changed);
}

/* ---- judging ---- */

static ch_time patience(const struct blk_writer *w)
{
    ch_time p = 10 * w->ack_ns;
    if (p < BLK_STALL_MS_MIN * CH_MS)
        p = BLK_STALL_MS_MIN * CH_MS;
    if (p < w->stall)
        p = w->stall;
    return p < BLK_STALL_MS_MAX * CH_MS ? p : BLK_STALL_MS_MAX * CH_MS;
}

static void break_late(struct blk_writer *w, ch_time now)
{
    struct blk__waiter *waiter;
    STAILQ_FOREACH(waiter, &w->waiters, link)
    {
        if (waiter->deadline <= now) {
            blk__writer_break(
                w, base_status_make(
                       BASE_UNAVAILABLE,
                       "append to %s was not durable in time: outcome unknown; open it again",
                       w->path));
            return;
        }
    }
}

/* Gives up a replica that stays behind while others do without it. */
static void judge_replica(struct blk_writer *w, struct blk__wblock *block, struct blk__wreplica *r,
                          ch_time now)
{
    if (r->failed)
        return;
    if (r->acked >= block->acked) {
        r->behind_since = 0;
        return;
    }
    if (r->behind_since == 0 || r->acked >= r->behind_mark) {
        r->behind_since = now;
        r->behind_mark = block->acked;
        return;
    }
    if (now - r->behind_since > BLK_SLOW_MS * CH_MS ||
        block->acked - r->acked > BLK_LAG_BYTES_MAX) {
        ch_info(w->env, "%s: block %llu at %.*s stays behind by %llu bytes", w->path,
                (unsigned long long)block->id, BASE_FMT(r->address),
                (unsigned long long)(block->acked - r->acked));
        blk__wreplica_fail(r);
    }
}

static bool stalled(const struct blk_writer *w, const struct blk__wblock *block, ch_time now)
{
    return block->sent_max > block->acked && now - block->progress_at > patience(w);
}

/* A spare that has lost a server, or that is no better than what failed, is given back. */
static void judge_spare(struct blk_writer *w, ch_time now)
{
    struct blk__wblock *spare = w->spare;
    if (!spare)
        return;
    for (size_t i = 0; i < spare->count && now - spare->made_at > BLK_READY_MS * CH_MS; i++)
        if (!spare->replicas[i].ready)
            blk__wreplica_fail(&spare->replicas[i]);
    bool small = spare->count < w->replicas && now - spare->made_at > BLK_SUSPECT_MS * CH_MS;
    if (w->spare_stale || blk__wblock_live(spare) < spare->count || small) {
        blk__wblock_end(spare, 0);
        w->spare = 0;
        w->spare_backoff = w->spare_backoff ? 2 * w->spare_backoff : BACKOFF_MS_MIN * CH_MS;
        if (w->spare_backoff > BACKOFF_MS_MAX * CH_MS)
            w->spare_backoff = BACKOFF_MS_MAX * CH_MS;
        if (w->fetch_after < now + w->spare_backoff)
            w->fetch_after = now + w->spare_backoff;
    }
}

void blk__wblock_end(struct blk__wblock *block, uint64_t end)
{
    block->ended = true;
    block->current = false;
    block->end = block->stop = end;
    block->linger_until = ch_in(block->writer->env, block->used ? BLK_LINGER_MS * CH_MS : 0);
}

static void switch_block(struct blk_writer *w, struct blk__wblock *block, bool hard, ch_time now)
{
    if (hard) {
        ch_info(w->env, "%s: block %llu ends at %llu, %llu bytes are sent again", w->path,
                (unsigned long long)block->id, (unsigned long long)block->acked,
                (unsigned long long)(block->sent_max - block->acked));
        ch_count(w->client->switches, 1);
    }
    blk__wblock_end(block, block->acked);
    w->current = w->spare;
    w->spare = 0;
    w->spare_backoff = 0;
    blk__wblock_begin(w->current, w->acked);
}

/* Used blocks that cannot be reported yet: the file has room for BLK_TAIL_MAX. */
static size_t unreported(const struct blk_writer *w)
{
    const struct blk__wblock *block;
    size_t n = 0;
    TAILQ_FOREACH(block, &w->blocks, link)
    n += block->used && !block->reported;
    return n;
}

static void judge_current(struct blk_writer *w, ch_time now)
{
    struct blk__wblock *block = w->current;
    for (size_t i = 0; i < block->count; i++)
        if (blk__wblock_live(block) > block->quorum)
            judge_replica(w, block, &block->replicas[i], now);
    size_t live = blk__wblock_live(block);
    bool stall = stalled(w, block, now), full = block->sent_max >= block->stop;
    bool hard = live < block->quorum || stall ||
                (block->draining && now - block->drain_since > patience(w));
    if (stall && !block->draining) {
        /* Whoever does not answer is avoided for the next block. Not failed: it may yet answer. */
        for (size_t i = 0; i < block->count; i++)
            if (block->replicas[i].acked < block->sent_max)
                blk__writer_suspect(w, block->replicas[i].server, false);
        w->stall = 2 * patience(w);
    }
    judge_spare(w, now);
    if (!w->spare || blk__wblock_ready(w->spare) < w->spare->quorum)
        return;
    bool better = blk__wblock_ready(w->spare) > live;
    if (live >= block->quorum && unreported(w) >= BLK_UNREPORTED_MAX)
        hard = false;
    if (hard && (live < block->quorum || stall || block->sent_max > block->acked)) {
        switch_block(w, block, true, now);
    } else if (full || better || block->draining) {
        if (!block->draining) {
            block->draining = true;
            block->drain_since = now;
            block->stop = block->sent_max;
        }
        if (block->acked == block->sent_max)
            switch_block(w, block, false, now);
    }
}

/* ---- what follows ---- */

static bool wants_spare(const struct blk_writer *w, ch_time now)
{
    const struct blk__wblock *c = w->current;
    return !w->spare && (blk__wblock_live(c) < w->replicas || stalled(w, c, now) ||
                         c->sent_max - c->start >= BLK_SPARE_BYTES || c->sent_max >= c->stop);
}

static void fetch(struct blk_writer *w, ch_time now)
{
    if (w->fetching || now < w->fetch_after || (!wants_spare(w, now) && reportable(w, 0, 0) == 0))
        return;
    w->fetching = true;
    struct base_status status = ch_gate_spawn(&w->gate, "next block", fetch_main, w);
    if (base_failed(status)) {
        w->fetching = false;
        w->fetch_after = now + BACKOFF_MS_MAX * CH_MS;
        base_status_free(&status);
    }
}

/* Ended blocks that are reported, and whose replicas have caught up or had their time. */
static struct blk__wblock *retired(struct blk_writer *w, ch_time now)
{
    struct blk__wblock *block;
    TAILQ_FOREACH(block, &w->blocks, link)
    {
        bool behind = false;
        for (size_t i = 0; block->used && i < block->count; i++)
            behind =
                behind || (!block->replicas[i].failed && block->replicas[i].acked < block->end);
        if (block->ended && block->reported && (!behind || now >= block->linger_until))
            return block;
    }
    return 0;
}

static ch_time next_look(const struct blk_writer *w, ch_time now)
{
    ch_time at = CH_NEVER;
    const struct blk__waiter *waiter;
    const struct blk__wblock *c = w->current, *block;
    STAILQ_FOREACH(waiter, &w->waiters, link)
    at = waiter->deadline < at ? waiter->deadline : at;
    bool busy = c->sent_max > c->acked || c->draining || !STAILQ_EMPTY(&w->waiters) ||
                blk__wblock_live(c) < w->replicas;
    for (size_t i = 0; i < c->count; i++)
        busy = busy || (!c->replicas[i].failed && c->replicas[i].acked < c->acked);
    TAILQ_FOREACH(block, &w->blocks, link)
    busy = busy || block->ended;
    ch_time soon = now + LOOK_MS * CH_MS;
    if (w->spare && blk__wblock_ready(w->spare) < w->spare->count)
        busy = true;
    if (w->fetch_after > now && w->fetch_after < soon)
        soon = w->fetch_after;
    if (c->sent_max > c->acked && c->progress_at + patience(w) + 1 < soon)
        soon = c->progress_at + patience(w) + 1;
    if (busy && soon < at)
        at = soon;
    return at > now ? at : now + CH_MS;
}

void blk__writer_main(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk_writer *w = arg;
    while (!ch_cancelled() && !w->closing && !base_failed(w->broken)) {
        ch_time now = ch_now(w->env);
        break_late(w, now);
        judge_current(w, now);
        fetch(w, now);
        struct blk__wblock *block = retired(w, now);
        if (block) {
            blk__wblock_free(block);
            continue;
        }
        w->wake_at = next_look(w, now);
        if (ch_cond_wait(&w->changed, w->wake_at) == CH_CANCELLED)
            break;
        w->wake_at = 0;
    }
    if (!STAILQ_EMPTY(&w->waiters)) /* this process ends: who waits must not wait for ever */
        blk__writer_break(w,
                          base_status_make(BASE_UNAVAILABLE,
                                           "%s: the writer was stopped: outcome unknown", w->path));
}
