/* sweep.c: removes old versions from the data table, slowly and for ever.
 *
 * Why not the tablet layer's own collection: "older than an hour" drops the newest version of a
 * row that was not written for an hour, and "older than an hour and not the newest" drops the
 * version that a read 30 minutes ago needs when the row was written 10 minutes ago. What may go
 * is every version below the newest one at or below the horizon, and that one too when it is a
 * delete (README.md, invariants G1 to G3). The horizon is the retention and SLACK behind the
 * newest applied commit, so it never passes what a later leader, whose timestamps only grow,
 * still serves. */
#include "chassis/log.h"
#include "lead.h"
#include "shard.h"

enum { SLACK_S = 60, PACE_MS = 100 };

/* Databases of other shards are others' work: on to the end of this one. */
static bool is_mine(const struct txn__lead *lead, struct base_bytes full)
{
    const uint8_t *nul = memchr(full.data, 0, full.len);
    return nul && txn__shard_of(base_bytes(full.data, (size_t)(nul - full.data)),
                                (uint32_t)lead->config->shards) == lead->shard;
}

static size_t keep_mine(const struct txn__lead *lead, struct txn__garbage *garbage, size_t count)
{
    size_t mine = 0;
    for (size_t i = 0; i < count; i++)
        if (is_mine(lead, garbage[i].key))
            garbage[mine++] = garbage[i];
    return mine;
}

/* One step of a sweep from `cursor` on. */
static struct base_status sweep_step(struct txn__lead *lead, struct base_buf *cursor,
                                     uint64_t horizon, bool *complete) CH_WAITS;
static struct base_status sweep_step(struct txn__lead *lead, struct base_buf *cursor,
                                     uint64_t horizon, bool *complete)
{
    struct base_arena arena;
    struct txn__garbage *garbage;
    struct base_bytes next;
    size_t count;
    base_arena_init(&arena);
    struct base_status status = txn__data_garbage(
        lead->tables, base_buf_bytes(cursor), horizon, TXN__SWEEP_ROWS,
        ch_in(lead->env, TXN__TABLE_CALL_MS * CH_MS), &arena, &garbage, &count, &next, complete);
    if (!base_failed(status) && txn__lead_sure(lead)) {
        count = keep_mine(lead, garbage, count);
        status = txn__data_prune(lead->tables, garbage, count,
                                 ch_in(lead->env, TXN__TABLE_CALL_MS * CH_MS));
    }
    if (!base_failed(status)) {
        ch_count(lead->metrics->pruned, count);
        const uint8_t *nul = next.len ? memchr(next.data, 0, next.len) : NULL;
        base_buf_clear(cursor);
        if (nul && !is_mine(lead, next)) {
            base_buf_put(cursor, next.data, (size_t)(nul - next.data));
            base_buf_put_u8(cursor, 1);
        } else {
            base_buf_put_bytes(cursor, next);
        }
    }
    base_arena_free(&arena);
    return status;
}

static void run_sweep(void *arg)
{
    CH_FIBER_ENTRY();
    struct txn__lead *lead = arg;
    struct base_buf cursor = { 0 };
    bool complete = true;
    uint64_t behind = (uint64_t)lead->config->retention / 1000 + (uint64_t)SLACK_S * 1000000;
    for (;;) {
        ch_time pause = complete ? lead->config->sweep_every : PACE_MS * CH_MS;
        if (lead->closed || ch_sleep_until(lead->env, ch_in(lead->env, pause)) == CH_CANCELLED)
            break;
        if (!txn__lead_sure(lead) || lead->applied.timestamp <= behind)
            continue;
        if (complete)
            base_buf_clear(&cursor);
        struct base_status status =
            sweep_step(lead, &cursor, lead->applied.timestamp - behind, &complete);
        if (base_failed(status) && !lead->closed)
            ch_warn(lead->env, "shard %u: %s", lead->shard, base_status_text(&status));
        base_status_free(&status);
    }
    base_buf_free(&cursor);
}

struct base_status txn__sweep_start(struct txn__lead *lead)
{
    return lead->config->sweep_off ? BASE_STATUS_OK
                                   : ch_gate_spawn(&lead->gate, "txn sweep", run_sweep, lead);
}
