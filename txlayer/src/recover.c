/* recover.c: a new leader's beginning: README.md, invariants L4 to L7.
 *
 * 1. Read the checkpoint. 2. Read the log behind it, adopting every valid entry, up to the first
 *    position without one. 3. Write a barrier there; when another entry won the place, adopt it
 *    and go on. 4. Read the checkpoint again: when it has reached the barrier, rows that were
 *    read as absent had been dropped: a later leader is at work, give up. 5. Read the ids of the
 *    last minutes. Nothing is served before all of it. Reading again after any failure is
 *    harmless. */
#include "base/codec.h"
#include "chassis/log.h"
#include "lead.h"

struct recovery {
    struct txn__lead *lead;
    uint64_t position;       /* next to be looked at */
    uint64_t epoch;          /* of the last valid entry before it */
    uint64_t limit;          /* greatest of the valid entries */
    struct txn__batch *part; /* pieces of a batch whose last has not been seen */
    bool hole;
    struct base_status status;
};

static struct base_status close_part(struct recovery *recovery, bool void_it)
{
    struct txn__batch *batch = recovery->part;
    recovery->part = NULL;
    if (void_it)
        base_buf_clear(&batch->body);
    batch->last = recovery->position;
    batch->epoch = recovery->epoch;
    batch->limit = recovery->limit;
    struct base_status status = txn__log_adopt(recovery->lead, batch);
    if (base_failed(status)) {
        txn__batch_free(batch);
        return status;
    }
    for (size_t i = 0; i < batch->txn_count; i++) {
        const struct txn__logged *txn = &batch->txns[i];
        for (size_t w = 0; w < txn->write_count; w++)
            txn__conflict_add(recovery->lead->conflict,
                              txn__full_key_in(&batch->arena, txn->database, txn->writes[w].key),
                              txn->timestamp);
    }
    return status;
}

/* A valid entry at recovery->position. A barrier voids the pieces before it: their last one was
 * never written. */
static struct base_status adopt_entry(struct recovery *recovery, const struct txn__log_cell *cell)
{
    struct txn__entry entry;
    struct base_status status = txn__entry_decode(cell->bytes, &entry);
    if (!base_failed(status) && (entry.position != cell->position || entry.epoch != cell->epoch))
        status =
            base_status_make(BASE_DATA_LOSS, "log entry says position %llu, epoch %llu",
                             (unsigned long long)entry.position, (unsigned long long)entry.epoch);
    if (base_failed(status))
        return base_status_wrap(status, "shard %u, position %llu, epoch %llu",
                                recovery->lead->shard, (unsigned long long)cell->position,
                                (unsigned long long)cell->epoch);
    recovery->epoch = entry.epoch;
    if (entry.limit > recovery->limit)
        recovery->limit = entry.limit;
    if (!recovery->part) {
        recovery->part = txn__batch_new(recovery->lead);
        recovery->part->first = entry.position;
    }
    base_buf_put_bytes(&recovery->part->body, entry.body);
    if (entry.kind == TXN__BARRIER || !entry.more)
        status = close_part(recovery, entry.kind == TXN__BARRIER);
    recovery->position++;
    return status;
}

static bool on_cell(void *arg, const struct txn__log_cell *cell)
{
    struct recovery *recovery = arg;
    if (cell->position != recovery->position || cell->epoch < recovery->epoch)
        return false; /* a hole, or what a deposed leader left */
    recovery->status = adopt_entry(recovery, cell);
    return !base_failed(recovery->status);
}

static struct base_status read_log(struct recovery *recovery) CH_WAITS;
static struct base_status read_log(struct recovery *recovery)
{
    struct txn__lead *lead = recovery->lead;
    struct base_status status =
        txn__log_scan(lead->tables, lead->shard, recovery->position,
                      ch_in(lead->env, 4 * TXN__TABLE_CALL_MS * CH_MS), on_cell, recovery);
    if (base_failed(recovery->status)) {
        base_status_free(&status);
        status = recovery->status;
        recovery->status = BASE_STATUS_OK;
    }
    return status;
}

/* One try at the first free position. *won, or the log has grown, or nothing is known: read on
 * and try again. */
static struct base_status try_barrier(struct recovery *recovery, bool *won) CH_WAITS;
static struct base_status try_barrier(struct recovery *recovery, bool *won)
{
    struct txn__lead *lead = recovery->lead;
    struct txn__entry barrier = { .kind = TXN__BARRIER,
                                  .epoch = lead->epoch,
                                  .position = recovery->position,
                                  .limit = recovery->limit };
    struct txn__log_cell cell;
    struct base_arena arena;
    bool taken = false, there = false;
    ch_time deadline = ch_in(lead->env, TXN__TABLE_CALL_MS * CH_MS);
    struct base_status status =
        txn__log_put(lead->tables, lead->shard, recovery->epoch, &barrier, deadline, &taken);
    *won = !base_failed(status) && !taken;
    if (*won)
        return status;
    base_status_free(&status);
    base_arena_init(&arena);
    status = txn__log_get(lead->tables, lead->shard, recovery->position, recovery->epoch,
                          ch_in(lead->env, TXN__TABLE_CALL_MS * CH_MS), &arena, &there, &cell);
    if (there && cell.epoch > lead->epoch)
        status = base_status_make(BASE_UNAVAILABLE, "shard %u: epoch %llu has begun, this is %llu",
                                  lead->shard, (unsigned long long)cell.epoch,
                                  (unsigned long long)lead->epoch);
    *won = there && cell.epoch == lead->epoch;
    base_arena_free(&arena);
    return status;
}

static struct base_status check_still(struct recovery *recovery)
{
    struct txn__lead *lead = recovery->lead;
    if (!lead->closed && ch_lock_held(lead->lock) && !ch_cancelled())
        return BASE_STATUS_OK;
    return base_status_make(BASE_UNAVAILABLE, "shard %u: lost its lock while recovering",
                            lead->shard);
}

static struct base_status take_log(struct recovery *recovery) CH_WAITS;
static struct base_status take_log(struct recovery *recovery)
{
    struct txn__lead *lead = recovery->lead;
    int64_t pause_ms = TXN__RETRY_MS_MIN;
    bool won = false;
    while (!won) {
        struct base_status status = check_still(recovery);
        if (base_failed(status))
            return status;
        status = read_log(recovery);
        if (recovery->epoch >= lead->epoch) {
            base_status_free(&status);
            return base_status_make(
                BASE_UNAVAILABLE, "shard %u: its log is at epoch %llu, this is %llu", lead->shard,
                (unsigned long long)recovery->epoch, (unsigned long long)lead->epoch);
        }
        if (!base_failed(status))
            status = try_barrier(recovery, &won);
        if (status.code == BASE_DATA_LOSS)
            return status;
        if (base_failed(status)) {
            ch_warn(lead->env, "recover shard %u: %s", lead->shard, base_status_text(&status));
            base_status_free(&status);
            txn__backoff(lead->env, &pause_ms);
        }
    }
    /* The barrier is an entry like others, of this epoch. */
    recovery->epoch = lead->epoch;
    if (!recovery->part) {
        recovery->part = txn__batch_new(lead);
        recovery->part->first = recovery->position;
    }
    struct base_status status = close_part(recovery, true);
    recovery->position++;
    return status;
}

static bool on_ids(void *arg, uint64_t position, struct base_bytes records)
{
    struct txn__lead *lead = arg;
    uint64_t timestamp = 0;
    for (; records.len >= TXN__ID_RECORD;
         records.data += TXN__ID_RECORD, records.len -= TXN__ID_RECORD) {
        timestamp = base_get_le64(records.data);
        txn__ids_add(lead->ids, base_bytes(records.data + 8, TXN__ID_BYTES), timestamp);
    }
    txn__id_pages_add(lead->id_pages, position, timestamp);
    return true;
}

/* `what` may be repeated; ends with the lock. */
static struct base_status read_start(struct recovery *recovery,
                                     struct txn__checkpoint *checkpoint) CH_WAITS;
static struct base_status read_start(struct recovery *recovery, struct txn__checkpoint *checkpoint)
{
    struct txn__lead *lead = recovery->lead;
    int64_t pause_ms = TXN__RETRY_MS_MIN;
    for (;;) {
        struct base_status status = txn__checkpoint_get(
            lead->tables, lead->shard, ch_in(lead->env, TXN__TABLE_CALL_MS * CH_MS), checkpoint);
        if (!base_failed(status) || status.code == BASE_DATA_LOSS)
            return status;
        ch_warn(lead->env, "recover shard %u: %s", lead->shard, base_status_text(&status));
        base_status_free(&status);
        status = check_still(recovery);
        if (base_failed(status))
            return status;
        txn__backoff(lead->env, &pause_ms);
    }
}

static struct base_status read_ids(struct recovery *recovery) CH_WAITS;
static struct base_status read_ids(struct recovery *recovery)
{
    struct txn__lead *lead = recovery->lead;
    int64_t pause_ms = TXN__RETRY_MS_MIN;
    for (;;) {
        struct base_status status =
            txn__ids_scan(lead->tables, lead->shard,
                          ch_in(lead->env, 4 * TXN__TABLE_CALL_MS * CH_MS), on_ids, lead);
        if (!base_failed(status) || status.code == BASE_DATA_LOSS)
            return status;
        ch_warn(lead->env, "recover shard %u: %s", lead->shard, base_status_text(&status));
        base_status_free(&status);
        status = check_still(recovery);
        if (base_failed(status))
            return status;
        txn__backoff(lead->env, &pause_ms);
    }
}

struct base_status txn__recover(struct txn__lead *lead)
{
    struct recovery recovery = { .lead = lead };
    struct txn__checkpoint checkpoint, again;
    ch_time began = ch_now(lead->env);
    struct base_status status = read_start(&recovery, &checkpoint);
    if (base_failed(status))
        return status;
    lead->conflict = txn__conflict_new(TXN__CONFLICT_KEYS_MAX, lead->config->conflict_bytes,
                                       checkpoint.timestamp, ch_random(lead->env));
    lead->rows = txn__rows_new(lead->config->cache_bytes, checkpoint.timestamp);
    lead->recovery_floor = checkpoint.timestamp;
    lead->applied = lead->checkpointed = checkpoint;
    recovery.position = checkpoint.position + 1;
    recovery.epoch = checkpoint.epoch;
    recovery.limit = checkpoint.limit;
    if (recovery.epoch >= lead->epoch)
        return base_status_make(
            BASE_UNAVAILABLE, "shard %u: its log is at epoch %llu, this is %llu", lead->shard,
            (unsigned long long)recovery.epoch, (unsigned long long)lead->epoch);
    status = read_ids(&recovery); /* before the log's, which are newer */
    if (!base_failed(status))
        status = take_log(&recovery);
    if (recovery.part)
        txn__batch_free(recovery.part);
    if (!base_failed(status))
        status = read_start(&recovery, &again);
    if (base_failed(status))
        return status;
    if (again.position + 1 >= recovery.position)
        return base_status_make(BASE_UNAVAILABLE,
                                "shard %u: its checkpoint has passed this leader's barrier",
                                lead->shard);
    lead->next_position = recovery.position;
    txn__oracle_init(&lead->oracle, recovery.limit, ch_wall_us(lead->env), ch_now(lead->env));
    ch_info(
        lead->env,
        "leading shard %u under epoch %llu from position %llu: recovered %llu positions in %lld us",
        lead->shard, (unsigned long long)lead->epoch, (unsigned long long)recovery.position - 1,
        (unsigned long long)(recovery.position - 1 - checkpoint.position),
        (long long)(ch_now(lead->env) - began) / 1000);
    return check_still(&recovery);
}
