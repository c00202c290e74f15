/* log_etcd_lead.c: leading a log in etcd: becoming the leader, writing, being sure of it.
 *
 * Happy path: no leader key -> a transaction puts ours, bound to our lease; its revision is the
 * term -> read to the end -> lead(term) -> all commands that wait go into one batch, one
 * transaction, are applied, answered.
 * Failure modes: the comparison with the leader key fails: another leads, or nobody; nothing of
 * the batch was written or ever will be. No answer for WRITE_MS, or until the lease cannot be kept
 * any more: the outcome is unknown; this member steps down and finds out by reading. A full
 * database: RESOURCE_EXHAUSTED when it did not take the batch, and it goes on leading. The lease
 * cannot be kept: it steps down at its end, by its own clock, unless etcd is there and between two
 * leaders of its own (con__etcd_holds).
 * Stepping down: the queue is refused, lead(0), and the leader key, when it may still be ours, is
 * deleted before the next candidacy. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/codec.h"
#include "chassis/log.h"
#include "log_etcd_int.h"

enum { WRITE_MS = 10000, JUDGE_MS = 4000, CAMPAIGN_MS = 3000, BARRIER_MS = 4000 };

/* Whether a leader's call that failed is to be made again: etcd did not answer, and may yet. When
 * the lead is lost, etcd is there to say what became of it. */
static CH_WAITS bool again(struct con_etcd_log *log, const struct base_status *status,
                           ch_time give_up)
{
    if (status->code != BASE_UNAVAILABLE && status->code != BASE_DEADLINE_EXCEEDED)
        return false;
    return !log->closing && !ch_cancelled() && ch_now(log->env) < give_up &&
           (log->lost || con__etcd_holds(log));
}

static ch_time sooner(ch_time a, ch_time b)
{
    return a < b ? a : b;
}

/* ---- candidacy ---- */

struct base_status con__etcd_campaign(struct con_etcd_log *log, uint64_t *term)
{
    struct base_arena arena = { 0 };
    Etcdserverpb__TxnResponse *response = NULL;
    const Etcdserverpb__RangeResponse *leaders;
    struct con_etcd_txn txn;
    struct base_status status;
    char *value = base_arena_printf(&arena, "%016" PRIx64 " %s", log->id, log->self);

    *term = 0;
    con__etcd_txn_init(&txn, &arena);
    con__etcd_if_created(&txn, log->keys.leader, 0);
    con__etcd_then_put(&txn, log->keys.leader, base_bytes_str(value), log->lease);
    con__etcd_then_delete(&txn, log->keys.next, NULL);
    con__etcd_else_range(&txn, log->keys.leader, NULL);
    status =
        con__etcd_commit(log->etcd, &txn, ch_in(log->env, CAMPAIGN_MS * CH_MS), &response, NULL);
    if (!base_failed(status) && response->succeeded) {
        *term = (uint64_t)response->header->revision;
    } else if (!base_failed(status)) {
        status = con__etcd_found(response, 0, &leaders);
        if (!base_failed(status))
            con__etcd_leader_seen(log, leaders->n_kvs ? leaders->kvs[0] : NULL);
        /* Sent twice, done once: it is ours. */
        if (!base_failed(status) && leaders->n_kvs && leaders->kvs[0]->lease == log->lease)
            *term = log->leader_revision;
    } else if (status.code == BASE_NOT_FOUND) {
        ch_cond_broadcast(&log->lease_work); /* it has ended */
    }
    base_arena_free(&arena);
    return status;
}

struct base_status con__etcd_resign(struct con_etcd_log *log, uint64_t revision, uint64_t next,
                                    ch_time deadline)
{
    struct base_arena arena = { 0 };
    Etcdserverpb__TxnResponse *response = NULL;
    struct con_etcd_txn txn;
    struct base_status status;

    con__etcd_txn_init(&txn, &arena);
    con__etcd_if_created(&txn, log->keys.leader, revision);
    con__etcd_then_delete(&txn, log->keys.leader, NULL);
    if (next)
        con__etcd_then_put(&txn, log->keys.next,
                           base_bytes_str(base_arena_printf(&arena, "%016" PRIx64, next)), 0);
    status = con__etcd_commit(log->etcd, &txn, deadline, &response, NULL);
    base_arena_free(&arena);
    return status;
}

/* ---- the queue ---- */

static void waiter_end(struct con_etcd_log *log, struct con_etcd_waiter *waiter,
                       struct base_status status)
{
    TAILQ_REMOVE(waiter->taken ? &log->flying : &log->queue, waiter, link);
    waiter->status = status;
    ch_done_set(&waiter->done);
}

/* Moves what fits one batch from queue to flying; their commands go to `commands`. */
static uint32_t queue_take(struct con_etcd_log *log, struct base_buf *commands)
{
    struct con_etcd_waiter *waiter;
    uint32_t count = 0;

    base_buf_clear(commands);
    while ((waiter = TAILQ_FIRST(&log->queue)) &&
           (count == 0 || commands->len + waiter->command.len + 10 <= CON_ETCD_BATCH_BYTES_MAX)) {
        base_buf_put_lenbytes(commands, waiter->command);
        TAILQ_REMOVE(&log->queue, waiter, link);
        TAILQ_INSERT_TAIL(&log->flying, waiter, link);
        waiter->taken = true;
        waiter->at = count;
        log->queued--;
        log->queued_bytes -= waiter->command.len;
        count++;
    }
    return count;
}

static void flying_fail(struct con_etcd_log *log, enum base_code code, const char *what,
                        const struct base_status *why)
{
    struct con_etcd_waiter *waiter;

    while ((waiter = TAILQ_FIRST(&log->flying)))
        waiter_end(log, waiter, base_status_make(code, "%s: %s", what, base_status_text(why)));
}

/* ---- writing ---- */

enum written {
    WRITTEN,
    REFUSED, /* nothing was written, and never will be */
    UNKNOWN,
};

/* What the failed comparisons of a write tell. */
static struct base_status written_judge(struct con_etcd_log *log, struct base_bytes value,
                                        const Etcdserverpb__TxnResponse *response,
                                        enum written *outcome)
{
    const Etcdserverpb__RangeResponse *leaders, *logs;
    struct base_status status = con__etcd_found(response, 0, &leaders);

    *outcome = UNKNOWN;
    if (!base_failed(status))
        status = con__etcd_found(response, 1, &logs);
    if (base_failed(status))
        return status;
    con__etcd_leader_seen(log, leaders->n_kvs ? leaders->kvs[0] : NULL);
    /* A batch has its term in it: only ours is the same. */
    if (logs->n_kvs && base_bytes_eq(ch_bytes_of(logs->kvs[0]->value), value)) {
        /* Sent twice, done once (invariant 2). */
        *outcome = WRITTEN;
        return status;
    }
    *outcome = REFUSED;
    log->lost = true;
    return con__not_leader(log->leader_id == log->id ? "" : log->leader);
}

/* The write that takes a database over its quota is answered as if it had been refused, and is
 * done. What came of it is looked up; *status becomes OK when it is there. */
static CH_WAITS enum written full_judge(struct con_etcd_log *log, const char *key,
                                        struct base_bytes value, struct base_status *status)
{
    struct base_arena arena = { 0 };
    const Mvccpb__KeyValue *kv = NULL;
    struct base_status got =
        con__etcd_get(log->etcd, key, ch_in(log->env, JUDGE_MS * CH_MS), &arena, &kv);
    enum written outcome = UNKNOWN;

    if (base_status_drop(got) == BASE_OK && !kv)
        outcome = REFUSED;
    else if (kv && base_bytes_eq(ch_bytes_of(kv->value), value))
        outcome = WRITTEN;
    if (outcome == WRITTEN)
        base_status_free(status);
    base_arena_free(&arena);
    return outcome;
}

static CH_WAITS struct base_status batch_put(struct con_etcd_log *log, uint64_t term,
                                             struct base_bytes value, enum written *outcome)
{
    struct base_arena arena = { 0 };
    Etcdserverpb__TxnResponse *response = NULL;
    struct con_etcd_txn txn;
    const char *key = con__etcd_log_key(&arena, &log->keys, log->applied + 1);
    ch_time give_up = ch_in(log->env, WRITE_MS * CH_MS);
    struct base_status status = BASE_STATUS_OK;
    bool unsure = false, last_unsure;

    con__etcd_txn_init(&txn, &arena);
    con__etcd_if_created(&txn, log->keys.leader, term);
    con__etcd_if_created(&txn, key, 0);
    con__etcd_then_put(&txn, key, value, 0);
    con__etcd_else_range(&txn, log->keys.leader, NULL);
    con__etcd_else_range(&txn, key, NULL);
    do { /* invariant 2 */
        base_status_free(&status);
        status = con__etcd_commit(log->etcd, &txn, sooner(give_up, con__etcd_doubt_at(log)),
                                  &response, &last_unsure);
        unsure = unsure || last_unsure;
    } while (again(log, &status, give_up));
    if (base_failed(status) && unsure)
        *outcome = UNKNOWN;
    else if (status.code == BASE_RESOURCE_EXHAUSTED)
        *outcome = full_judge(log, key, value, &status);
    else if (base_failed(status))
        *outcome = REFUSED;
    else if (response->succeeded)
        *outcome = WRITTEN;
    else
        status = written_judge(log, value, response, outcome);
    base_arena_free(&arena);
    return status;
}

/* A command whose proposer has given up waiting is applied as any other. */
static CH_WAITS void flying_apply(struct con_etcd_log *log, const struct con_etcd_batch *batch)
{
    struct base_bytes commands = batch->commands, command;
    struct base_buf unwanted = { 0 };

    CH_NO_WAIT_BEGIN();
    for (uint32_t i = 0; i < batch->count; i++) {
        bool there = base_take_lenbytes(&commands, &command);
        struct con_etcd_waiter *owner = TAILQ_FIRST(&log->flying);

        BASE_ASSERT(there);
        if (owner && owner->at != i)
            owner = NULL;
        base_buf_clear(&unwanted);
        log->applied++;
        log->machine.apply(log->machine.self, log->applied, command,
                           owner && owner->reply ? owner->reply : &unwanted);
        if (owner)
            waiter_end(log, owner, BASE_STATUS_OK);
    }
    CH_NO_WAIT_END();
    base_buf_free(&unwanted);
}

static CH_WAITS void batch_write(struct con_etcd_log *log, uint64_t term, struct base_buf *commands,
                                 struct base_buf *value)
{
    struct con_etcd_batch batch = { .term = term, .first = log->applied + 1 };
    enum written outcome;
    struct base_status status;

    batch.count = queue_take(log, commands);
    batch.commands = base_buf_bytes(commands);
    base_buf_clear(value);
    con__etcd_batch_encode(&batch, value);
    status = batch_put(log, term, base_buf_bytes(value), &outcome);
    if (outcome == WRITTEN) {
        flying_apply(log, &batch);
        log->bytes += value->len;
        con__etcd_snapshot_maybe(log);
    } else if (outcome == UNKNOWN) {
        ch_warn(log->env, "%s: outcome unknown: %s", log->keys.log, base_status_text(&status));
        flying_fail(log, BASE_UNAVAILABLE, "outcome unknown", &status);
        log->lost = true;
    } else if (status.code == BASE_FAILED_PRECONDITION) {
        flying_fail(log, BASE_FAILED_PRECONDITION, "nothing was proposed", &status);
    } else {
        flying_fail(log,
                    status.code == BASE_RESOURCE_EXHAUSTED ? BASE_RESOURCE_EXHAUSTED
                                                           : BASE_UNAVAILABLE,
                    "nothing was written", &status);
    }
    base_status_free(&status);
}

/* ---- leading ---- */

static void step_down(struct con_etcd_log *log)
{
    struct con_etcd_waiter *waiter;

    log->term = 0;
    if (log->machine.lead)
        log->machine.lead(log->machine.self, 0);
    while ((waiter = TAILQ_FIRST(&log->queue)))
        waiter_end(log, waiter, con__not_leader(log->leader_id == log->id ? "" : log->leader));
    log->queued = log->queued_bytes = 0;
    ch_cond_broadcast(&log->changed);
    ch_cond_broadcast(&log->barrier_work);
}

/* Something happened to the leader key, or the watch began anew. */
static CH_WAITS void news_read(struct con_etcd_log *log)
{
    struct base_arena arena = { 0 };
    const Mvccpb__KeyValue *kv = NULL;
    struct base_status status;

    log->news = false;
    status = con__etcd_get(log->etcd, log->keys.leader, con__etcd_doubt_at(log), &arena, &kv);
    if (!base_failed(status))
        con__etcd_leader_seen(log, kv);
    else /* an error that is an answer would be one again: the members' look follows */
        log->news = !ch_cancelled() &&
                    (status.code == BASE_UNAVAILABLE || status.code == BASE_DEADLINE_EXCEEDED);
    base_status_free(&status);
    base_arena_free(&arena);
}

static CH_WAITS bool leads_still(struct con_etcd_log *log)
{
    return !log->closing && !log->lost && con__etcd_holds(log) && !log->closing && !log->lost;
}

void con__etcd_lead(struct con_etcd_log *log, uint64_t term)
{
    struct base_buf commands = { 0 }, value = { 0 };

    log->lost = false;
    log->term = term;
    log->leader_revision = term;
    log->leader_id = log->id;
    memcpy(log->leader, log->self, sizeof(log->leader));
    ch_info(log->env, "%s: leads from index %" PRIu64 " on, term %" PRIu64, log->keys.leader,
            log->applied, term);
    if (log->machine.lead)
        log->machine.lead(log->machine.self, term);
    ch_cond_broadcast(&log->changed);
    while (leads_still(log)) {
        con__etcd_watch_tend(log);
        if (!TAILQ_EMPTY(&log->queue))
            batch_write(log, term, &commands, &value);
        else if (log->news)
            news_read(log);
        else if (ch_cond_wait(&log->work, con__etcd_doubt_at(log)) == CH_CANCELLED)
            break;
    }
    ch_info(log->env, "%s: leads no more: %s", log->keys.leader,
            log->closing ? "closing"
            : log->lost  ? "the leader key is not its own any more"
                         : "its lease could not be kept");
    step_down(log);
    base_buf_free(&commands);
    base_buf_free(&value);
}

/* ---- read barriers ---- */

/* All that wait share one linearizable look at the leader key, taken after they came. */
static CH_WAITS struct base_status barrier_look(struct con_etcd_log *log)
{
    struct base_arena arena = { 0 };
    const Mvccpb__KeyValue *kv = NULL;
    uint64_t term = log->term;
    ch_time give_up = ch_in(log->env, BARRIER_MS * CH_MS);
    struct base_status status = BASE_STATUS_OK;

    do {
        base_status_free(&status);
        status = con__etcd_get(log->etcd, log->keys.leader,
                               sooner(give_up, con__etcd_doubt_at(log)), &arena, &kv);
    } while (term && log->term == term && again(log, &status, give_up));
    if (status.code == BASE_DEADLINE_EXCEEDED)
        status.code = BASE_UNAVAILABLE; /* etcd's answer is late, not the caller's time over */
    if (!base_failed(status) &&
        (term == 0 || log->term != term || !kv || (uint64_t)kv->create_revision != term)) {
        con__etcd_leader_seen(log, kv);
        ch_cond_broadcast(&log->work);
        status = con__not_leader(log->leader_id == log->id ? "" : log->leader);
    }
    base_arena_free(&arena);
    return status;
}

void con__etcd_barrier_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct con_etcd_log *log = arg;

    while (!log->closing) {
        struct con_etcd_barriers round;
        struct con_etcd_barrier *barrier;
        struct base_status status;

        if (LIST_EMPTY(&log->barriers)) {
            if (ch_cond_wait(&log->barrier_work, CH_NEVER) == CH_CANCELLED)
                break;
            continue;
        }
        LIST_INIT(&round);
        while ((barrier = LIST_FIRST(&log->barriers))) {
            LIST_REMOVE(barrier, link);
            LIST_INSERT_HEAD(&round, barrier, link);
        }
        status = barrier_look(log);
        while ((barrier = LIST_FIRST(&round))) {
            LIST_REMOVE(barrier, link);
            barrier->status = base_status_copy(&status);
            ch_done_set(&barrier->done);
        }
        base_status_free(&status);
    }
}
