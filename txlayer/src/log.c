/* log.c: a leader's way of writing its shard's log: README.md, invariants L1 to L9.
 *
 * Happy path: launch gives a batch the next positions and a fiber a position (piece); each fiber
 * writes its row by CheckAndMutateRow; when all rows of the batch at the head are written, it is
 * decided: adopted into memory, its waiters answered, the next batch made from what queued
 * meanwhile. Failure: an unknown outcome is resolved by reading the position: own epoch there:
 * written; a greater one: deposed, the term ends; nothing there: written again, the same bytes.
 * It ends only when it is known, or with the term. */
#include <stdlib.h>

#include "chassis/log.h"
#include "lead.h"

struct piece {
    struct txn__batch *batch;
    struct txn__entry entry;
};

void txn__op_finish(struct txn__op *op, uint64_t timestamp, struct base_status status)
{
    op->state = TXN__OP_DONE;
    op->batch = NULL;
    op->timestamp = timestamp;
    op->status = status;
    ch_done_set(&op->done);
}

static void count_writes(struct txn__batch *batch)
{
    for (size_t i = 0; i < batch->txn_count; i++)
        batch->write_count += batch->txns[i].write_count;
}

struct base_status txn__log_adopt(struct txn__lead *lead, struct txn__batch *batch)
{
    struct base_buf key = { 0 };
    size_t n = 0;
    struct base_status status = txn__body_decode(base_buf_bytes(&batch->body), &batch->arena,
                                                 &batch->txns, &batch->txn_count);
    if (base_failed(status))
        return base_status_wrap(status, "positions %llu to %llu", (unsigned long long)batch->first,
                                (unsigned long long)batch->last);
    count_writes(batch);
    batch->versions = BASE_NEW_ARRAY(&batch->arena, struct txn__version *, batch->write_count);
    for (size_t i = 0; i < batch->txn_count; i++) {
        const struct txn__logged *txn = &batch->txns[i];
        for (size_t w = 0; w < txn->write_count; w++) {
            const struct txn__logged_write *write = &txn->writes[w];
            base_buf_clear(&key);
            txn__full_key(txn->database, write->key, &key);
            batch->versions[n++] = txn__rows_put(lead->rows, base_buf_bytes(&key), txn->timestamp,
                                                 write->is_delete, write->value);
        }
        if (txn->id.len == TXN__ID_BYTES)
            txn__ids_add(lead->ids, txn->id, txn->timestamp);
        batch->ts_max = txn->timestamp;
    }
    base_buf_free(&key);
    txn__oracle_decided(&lead->oracle, batch->limit);
    TAILQ_INSERT_TAIL(&lead->decided, batch, link);
    ch_cond_signal(&lead->apply_cond);
    return BASE_STATUS_OK;
}

/* Batches are decided in order of position, each when all of it is written. */
static void advance(struct txn__lead *lead)
{
    struct txn__batch *batch;
    struct txn__op *op;
    bool any = false;
    while (!lead->closed && (batch = TAILQ_FIRST(&lead->flights)) &&
           batch->pieces_won == batch->pieces) {
        TAILQ_REMOVE(&lead->flights, batch, link);
        lead->flight_count--;
        struct base_status status = txn__log_adopt(lead, batch);
        BASE_ASSERT(!base_failed(status)); /* it was encoded here */
        ch_observe(lead->metrics->log_ns, (uint64_t)(ch_now(lead->env) - batch->launched));
        ch_count(lead->metrics->commits, batch->txn_count);
        while ((op = TAILQ_FIRST(&batch->ops))) {
            TAILQ_REMOVE(&batch->ops, op, link);
            txn__op_finish(op, op->timestamp, BASE_STATUS_OK);
        }
        any = true;
    }
    if (any) {
        ch_cond_broadcast(&lead->changed);
        txn__commit_start(lead);
    }
}

enum verdict { WRITTEN, DEPOSED, ABSENT, UNKNOWN };

/* What is at the position now. */
static enum verdict look(struct txn__lead *lead, const struct piece *piece, uint64_t *by) CH_WAITS;
static enum verdict look(struct txn__lead *lead, const struct piece *piece, uint64_t *by)
{
    struct base_arena arena;
    struct txn__log_cell cell = { 0 };
    bool there;
    base_arena_init(&arena);
    struct base_status status =
        txn__log_get(lead->tables, lead->shard, piece->entry.position, lead->epoch,
                     ch_in(lead->env, TXN__TABLE_CALL_MS * CH_MS), &arena, &there, &cell);
    base_arena_free(&arena);
    *by = cell.epoch;
    if (base_failed(status)) {
        ch_warn(lead->env, "%s", base_status_text(&status));
        base_status_free(&status);
        return UNKNOWN;
    }
    return !there ? ABSENT : cell.epoch == lead->epoch ? WRITTEN : DEPOSED;
}

static enum verdict try_write(struct txn__lead *lead, const struct piece *piece) CH_WAITS;
static enum verdict try_write(struct txn__lead *lead, const struct piece *piece)
{
    bool taken;
    struct base_status status = txn__log_put(lead->tables, lead->shard, lead->epoch, &piece->entry,
                                             ch_in(lead->env, TXN__TABLE_CALL_MS * CH_MS), &taken);
    if (!base_failed(status))
        return taken ? UNKNOWN : WRITTEN;
    if (!lead->closed)
        ch_warn(lead->env, "%s", base_status_text(&status));
    base_status_free(&status);
    return UNKNOWN;
}

static void write_piece(void *arg)
{
    CH_FIBER_ENTRY();
    struct piece *piece = arg;
    struct txn__lead *lead = piece->batch->lead;
    int64_t pause_ms = TXN__RETRY_MS_MIN;
    uint64_t by = 0;
    enum verdict verdict = try_write(lead, piece);
    while (verdict != WRITTEN && verdict != DEPOSED && !lead->closed && !ch_cancelled()) {
        verdict = look(lead, piece, &by);
        if (verdict == ABSENT)
            verdict = try_write(lead, piece);
        if (verdict == UNKNOWN)
            txn__backoff(lead->env, &pause_ms);
    }
    if (lead->closed)
        return;
    if (verdict == DEPOSED) {
        txn__lead_close(lead,
                        base_status_make(BASE_UNAVAILABLE,
                                         "position %llu was taken under epoch %llu, this is %llu",
                                         (unsigned long long)piece->entry.position,
                                         (unsigned long long)by, (unsigned long long)lead->epoch));
    } else if (verdict == WRITTEN) {
        ch_count(lead->metrics->entries, 1);
        ch_count(lead->metrics->log_bytes, piece->entry.body.len);
        piece->batch->pieces_won++;
        advance(lead);
    }
}

void txn__log_launch(struct txn__lead *lead, struct txn__batch *batch)
{
    struct base_bytes body = base_buf_bytes(&batch->body);
    batch->pieces = body.len ? (body.len + TXN__PIECE_MAX - 1) / TXN__PIECE_MAX : 1;
    batch->first = lead->next_position;
    batch->last = batch->first + batch->pieces - 1;
    batch->limit = txn__oracle_entry_limit(&lead->oracle, txn__lead_now(lead));
    if (batch->limit < lead->limit_wanted)
        batch->limit = lead->limit_wanted;
    batch->launched = ch_now(lead->env);
    lead->next_position += batch->pieces;
    TAILQ_INSERT_TAIL(&lead->flights, batch, link);
    lead->flight_count++;
    for (size_t i = 0; i < batch->pieces; i++) {
        struct piece *piece = BASE_NEW(&batch->arena, struct piece);
        size_t from = i * TXN__PIECE_MAX,
               len = body.len - from < TXN__PIECE_MAX ? body.len - from : TXN__PIECE_MAX;
        piece->batch = batch;
        piece->entry = (struct txn__entry){ .kind = TXN__BATCH,
                                            .more = i + 1 < batch->pieces,
                                            .epoch = lead->epoch,
                                            .position = batch->first + i,
                                            .limit = batch->limit,
                                            .body = base_bytes(body.data + from, len) };
        struct base_status status = ch_gate_spawn(&lead->gate, "txn log write", write_piece, piece);
        if (base_failed(status)) {
            txn__lead_close(lead, base_status_wrap(status, "write position %llu",
                                                   (unsigned long long)piece->entry.position));
            return;
        }
    }
}

void txn__log_touch(struct txn__lead *lead)
{
    if (lead->closed || lead->flight_count)
        return;
    struct txn__batch *batch = txn__batch_new(lead);
    batch->ts_min = lead->oracle.last + 1;
    txn__log_launch(lead, batch);
}
