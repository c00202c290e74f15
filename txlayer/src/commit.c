/* commit.c: from a commit request to a batch: limits, repeated ids, conflicts, timestamps.
 *
 * Commits queue; whenever fewer than TXN__FLIGHT_MAX batches are on their way, all that queued
 * (within a batch's limits) become one. In the queue's order each is given its outcome against
 * everything before it, decided or on its way:
 *   C1. A commit conflicts when a key or range it read was last written above its read
 *       timestamp. What is on its way counts as written: it may still come to nothing with this
 *       leader's term, and then so does everything after it.
 *   C2. Its timestamp is above all given before; its writes enter the conflict index at once.
 *   C3. An id that is known, decided or on its way, is answered with its first outcome, and not
 *       checked again. */
#include <stdlib.h>

#include "lead.h"

typedef Strata__Txlayer__V1__CommitOp request_t;

static int order_keys(const void *a, const void *b)
{
    return base_bytes_cmp(*(const struct base_bytes *)a, *(const struct base_bytes *)b);
}

static struct base_status check_key(const char *what, size_t i, const Strata__Txlayer__V1__Key *key,
                                    size_t *bytes)
{
    size_t len = key ? key->key.len : 0;
    if (len == 0)
        return base_status_make(BASE_INVALID_ARGUMENT, "%s %zu has an empty key", what, i);
    if (len > TXN_KEY_MAX || key->group.len > TXN_KEY_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "%s %zu has a key of %zu bytes and a group of %zu: the limit is %d",
                                what, i, len, key->group.len, TXN_KEY_MAX);
    *bytes += len + key->group.len;
    return BASE_STATUS_OK;
}

static struct base_status check_writes(const request_t *request, struct base_arena *arena,
                                       size_t *bytes)
{
    struct base_bytes *keys = BASE_NEW_ARRAY(arena, struct base_bytes, request->n_writes);
    for (size_t i = 0; i < request->n_writes; i++) {
        const Strata__Txlayer__V1__Write *write = request->writes[i];
        struct base_status status = check_key("write", i, write->key, bytes);
        if (base_failed(status))
            return status;
        if (write->value.len > TXN_VALUE_MAX)
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "write %zu has a value of %zu bytes: the limit is %d", i,
                                    write->value.len, TXN_VALUE_MAX);
        *bytes += write->value.len;
        keys[i] = ch_bytes_of(write->key->key);
    }
    qsort(keys, request->n_writes, sizeof(*keys), order_keys);
    for (size_t i = 1; i < request->n_writes; i++)
        if (base_bytes_eq(keys[i - 1], keys[i]))
            return base_status_make(BASE_INVALID_ARGUMENT, "key %s is written twice",
                                    base_bytes_show(arena, keys[i], 64));
    return BASE_STATUS_OK;
}

static struct base_status check_ranges(const request_t *request, struct base_arena *arena,
                                       size_t *bytes)
{
    for (size_t i = 0; i < request->n_read_ranges; i++) {
        struct base_bytes start = ch_bytes_of(request->read_ranges[i]->start),
                          end = ch_bytes_of(request->read_ranges[i]->end);
        if (start.len > TXN_KEY_MAX + 1 || end.len > TXN_KEY_MAX + 1)
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "read range %zu has an end of more than %d bytes", i,
                                    TXN_KEY_MAX);
        if (end.len && base_bytes_cmp(start, end) > 0)
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "read range %zu ends at %s, before its start", i,
                                    base_bytes_show(arena, end, 64));
        *bytes += start.len + end.len;
    }
    return BASE_STATUS_OK;
}

struct base_status txn__commit_check(const request_t *request, struct base_arena *arena,
                                     size_t *bytes)
{
    *bytes = 0;
    if (request->idempotency_id.len != TXN__ID_BYTES)
        return base_status_make(BASE_INVALID_ARGUMENT, "the idempotency id has %zu bytes, not %d",
                                request->idempotency_id.len, TXN__ID_BYTES);
    struct base_status status = check_writes(request, arena, bytes);
    for (size_t i = 0; i < request->n_read_keys && !base_failed(status); i++)
        status = check_key("read key", i, request->read_keys[i], bytes);
    if (!base_failed(status))
        status = check_ranges(request, arena, bytes);
    if (!base_failed(status) && !request->read_timestamp &&
        (request->n_read_keys || request->n_read_ranges))
        status = base_status_make(BASE_INVALID_ARGUMENT,
                                  "a read timestamp is missing: something was read");
    if (!base_failed(status) && *bytes > TXN_COMMIT_MAX)
        status =
            base_status_make(BASE_INVALID_ARGUMENT, "the commit has %zu bytes: the limit is %d",
                             *bytes, TXN_COMMIT_MAX);
    return status;
}

/* ---- conflicts ---- */

static struct base_status too_old(struct txn__lead *lead, const request_t *request, uint64_t now)
{
    uint64_t read = request->read_timestamp;
    if (read > lead->oracle.last)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "read timestamp %llu is none this database has given out",
                                (unsigned long long)read);
    if (read >= txn__conflict_floor(lead->conflict))
        return BASE_STATUS_OK;
    if (read < lead->recovery_floor && read + (uint64_t)TXN_DURATION_S * 1000000 > now)
        return base_status_make(
            BASE_ABORTED, "the shard changed its leader since read timestamp %llu; begin again",
            (unsigned long long)read);
    return base_status_make(
        BASE_INVALID_ARGUMENT, "read timestamp %llu is too old: writes are remembered back to %llu",
        (unsigned long long)read, (unsigned long long)txn__conflict_floor(lead->conflict));
}

static struct base_status conflict_at(const char *what, struct base_bytes key, uint64_t written,
                                      uint64_t read)
{
    struct base_arena arena;
    base_arena_init(&arena);
    struct base_status status = base_status_make(
        BASE_ABORTED, "%s %s was written at %llu, after it was read at %llu", what,
        base_bytes_show(&arena, key, 64), (unsigned long long)written, (unsigned long long)read);
    base_arena_free(&arena);
    return status;
}

static struct base_status check_conflicts(struct txn__lead *lead, const request_t *request,
                                          struct base_arena *arena)
{
    struct base_bytes database = ch_bytes_of(request->database);
    for (size_t i = 0; i < request->n_read_keys; i++) {
        struct base_bytes key = ch_bytes_of(request->read_keys[i]->key);
        uint64_t written =
            txn__conflict_key(lead->conflict, txn__full_key_in(arena, database, key));
        if (written > request->read_timestamp)
            return conflict_at("key", key, written, request->read_timestamp);
    }
    for (size_t i = 0; i < request->n_read_ranges; i++) {
        struct base_bytes start = ch_bytes_of(request->read_ranges[i]->start),
                          end = ch_bytes_of(request->read_ranges[i]->end);
        uint64_t written =
            txn__conflict_range(lead->conflict, txn__full_key_in(arena, database, start),
                                txn__full_end_in(arena, database, end));
        if (written > request->read_timestamp)
            return conflict_at("a key in the range from", start, written, request->read_timestamp);
    }
    return BASE_STATUS_OK;
}

/* ---- batches ---- */

static void fly(struct txn__batch *batch, struct txn__op *op, uint64_t timestamp)
{
    op->state = TXN__OP_FLYING;
    op->batch = batch;
    op->timestamp = timestamp;
    TAILQ_INSERT_TAIL(&batch->ops, op, link);
}

static bool holds(const struct txn__batch *batch, uint64_t timestamp)
{
    return batch->txn_count && timestamp >= batch->ts_min && timestamp <= batch->ts_max;
}

/* An id is remembered from the moment its commit has a timestamp; whether that is decided, the
 * flights tell. */
static bool repeated(struct txn__lead *lead, struct txn__batch *making, struct txn__op *op)
{
    uint64_t timestamp;
    struct txn__batch *batch;
    if (!txn__ids_find(lead->ids, ch_bytes_of(op->request->idempotency_id), &timestamp))
        return false;
    ch_count(lead->metrics->repeats, 1);
    if (holds(making, timestamp)) {
        fly(making, op, timestamp);
        return true;
    }
    TAILQ_FOREACH(batch, &lead->flights, link)
    if (holds(batch, timestamp)) {
        fly(batch, op, timestamp);
        return true;
    }
    txn__op_finish(op, timestamp, BASE_STATUS_OK);
    return true;
}

static void encode(struct txn__lead *lead, struct txn__batch *batch, const struct txn__op *op,
                   struct base_arena *arena)
{
    const request_t *request = op->request;
    struct txn__logged txn = {
        .id = ch_bytes_of(request->idempotency_id),
        .database = ch_bytes_of(request->database),
        .timestamp = op->timestamp,
        .writes = BASE_NEW_ARRAY(arena, struct txn__logged_write, request->n_writes),
        .write_count = request->n_writes,
    };
    for (size_t i = 0; i < request->n_writes; i++) {
        const Strata__Txlayer__V1__Write *write = request->writes[i];
        txn.writes[i] = (struct txn__logged_write){ .is_delete = write->is_delete,
                                                    .group = ch_bytes_of(write->key->group),
                                                    .key = ch_bytes_of(write->key->key),
                                                    .value = ch_bytes_of(write->value) };
        txn__conflict_add(lead->conflict, txn__full_key_in(arena, txn.database, txn.writes[i].key),
                          op->timestamp);
    }
    txn__logged_encode(&txn, &batch->body);
    txn__ids_add(lead->ids, txn.id, op->timestamp);
}

static void give_outcome(struct txn__lead *lead, struct txn__batch *batch, struct txn__op *op,
                         uint64_t now, struct base_arena *arena)
{
    const request_t *request = op->request;
    if (repeated(lead, batch, op))
        return;
    struct base_status status = BASE_STATUS_OK;
    if (request->n_read_keys || request->n_read_ranges) {
        status = too_old(lead, request, now);
        if (!base_failed(status))
            status = check_conflicts(lead, request, arena);
    }
    if (base_failed(status)) {
        ch_count(lead->metrics->aborts, status.code == BASE_ABORTED);
        txn__op_finish(op, 0, status);
        return;
    }
    fly(batch, op, txn__oracle_commit(&lead->oracle, now));
    batch->ts_min = batch->ts_min ? batch->ts_min : op->timestamp;
    batch->ts_max = op->timestamp;
    batch->txn_count++;
    encode(lead, batch, op, arena);
}

static struct txn__batch *make_batch(struct txn__lead *lead)
{
    struct txn__batch *batch = txn__batch_new(lead);
    struct base_arena arena;
    uint64_t now = txn__lead_now(lead);
    struct txn__op *op;
    base_arena_init(&arena);
    while ((op = TAILQ_FIRST(&lead->queue)) && batch->txn_count < TXN__BATCH_TXNS_MAX &&
           batch->body.len < TXN__BATCH_BYTES_MAX) {
        TAILQ_REMOVE(&lead->queue, op, link);
        lead->queue_bytes -= op->bytes;
        give_outcome(lead, batch, op, now, &arena);
        base_arena_reset(&arena);
    }
    base_arena_free(&arena);
    return batch;
}

void txn__commit_start(struct txn__lead *lead)
{
    while (!lead->closed && lead->flight_count < TXN__FLIGHT_MAX && !TAILQ_EMPTY(&lead->queue)) {
        struct txn__batch *batch = make_batch(lead);
        if (!batch->txn_count) {
            txn__batch_free(batch);
            continue;
        }
        ch_observe(lead->metrics->batch_txns, batch->txn_count);
        txn__log_launch(lead, batch);
    }
}

void txn__commit_submit(struct txn__lead *lead, struct txn__op *op)
{
    ch_done_init(&op->done);
    if (lead->closed) {
        txn__op_finish(op, 0, txn__lead_gone(lead));
    } else if (lead->queue_bytes + op->bytes > TXN__QUEUE_BYTES_MAX && lead->queue_bytes) {
        txn__op_finish(op, 0,
                       base_status_make(BASE_RESOURCE_EXHAUSTED,
                                        "shard %u: %zu bytes of commits wait for the log",
                                        lead->shard, lead->queue_bytes));
    } else if (txn__rows_unapplied(lead->rows) > TXN__UNAPPLIED_BYTES_MAX) {
        txn__op_finish(op, 0,
                       base_status_make(BASE_RESOURCE_EXHAUSTED,
                                        "shard %u: %zu bytes of commits wait to be applied",
                                        lead->shard, txn__rows_unapplied(lead->rows)));
    } else {
        op->state = TXN__OP_QUEUED;
        lead->queue_bytes += op->bytes;
        TAILQ_INSERT_TAIL(&lead->queue, op, link);
    }
}

void txn__commit_wait(struct txn__lead *lead, struct txn__op *op, ch_time deadline)
{
    enum ch_outcome outcome = ch_done_wait(&op->done, deadline);
    if (op->state == TXN__OP_DONE)
        return;
    bool queued = op->state == TXN__OP_QUEUED;
    if (queued) {
        TAILQ_REMOVE(&lead->queue, op, link);
        lead->queue_bytes -= op->bytes;
    } else {
        TAILQ_REMOVE(&op->batch->ops, op, link);
    }
    txn__op_finish(
        op, 0,
        ch_outcome_status(outcome, queued ? "wait for the log: nothing was done"
                                          : "wait for the log: the commit's outcome is unknown"));
}
