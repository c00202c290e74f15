/* log_etcd_follow.c: reading a log in etcd: to its end, and on as it grows.
 *
 * Happy path: the watch brings each batch as it is written and applies it. Whatever does not fit
 * (a gap, a watch that was away, a new leader key) only rings main, which reads: one transaction
 * gives manifest, leader and the next batches at one revision, so that no snapshot can take away
 * between two reads what the second was to find.
 *
 * Failure modes: an endpoint that is gone or cut off fails the polls; the client moves on to
 * another, and the watch is then begun anew there. A batch that does not decode, or a gap that no
 * snapshot covers, is logged with its key and stops this member, not etcd. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/codec.h"
#include "chassis/log.h"
#include "log_etcd_int.h"

/* A page is to hold PAGE_BYTES: less than comes in the time of one attempt on a slow network. */
enum {
    PAGE_BATCHES_MIN = 4,
    PAGE_BATCHES_MAX = 512,
    PAGE_BYTES = 1 << 20,
    READ_MS = 5000,
    WATCH_RETRY_MS = 200,
    ID_DIGITS = 16
};

/* ---- applying ---- */

enum applied { APPLIED, OLD, GAP };

static void batch_apply(struct con_etcd_log *log, const struct con_etcd_batch *batch, size_t bytes)
{
    struct base_bytes commands = batch->commands, command;
    struct base_buf unwanted = { 0 };

    for (uint32_t i = 0; i < batch->count; i++) {
        bool there = base_take_lenbytes(&commands, &command);

        BASE_ASSERT(there); /* the decoder has counted */
        base_buf_clear(&unwanted);
        log->applied++;
        log->machine.apply(log->machine.self, log->applied, command, &unwanted);
    }
    base_buf_free(&unwanted);
    log->bytes += bytes;
}

static struct base_status kv_apply(struct con_etcd_log *log, const Mvccpb__KeyValue *kv,
                                   enum applied *what)
{
    struct con_etcd_batch batch;
    struct base_status status = con__etcd_batch_decode(ch_bytes_of(kv->value), &batch);

    *what = GAP;
    if (base_failed(status))
        return base_status_wrap(status, "etcd: %.*s", BASE_FMT(ch_bytes_of(kv->key)));
    if (batch.first + batch.count - 1 <= log->applied) {
        *what = OLD;
    } else if (batch.first == log->applied + 1) {
        batch_apply(log, &batch, kv->value.len);
        *what = APPLIED;
    }
    return BASE_STATUS_OK;
}

/* ---- who leads ---- */

void con__etcd_leader_seen(struct con_etcd_log *log, const Mvccpb__KeyValue *kv)
{
    uint64_t before = log->leader_revision;

    log->leader_revision = kv ? (uint64_t)kv->create_revision : 0;
    if (!kv || !con__etcd_leader_decode(ch_bytes_of(kv->value), &log->leader_id, log->leader)) {
        log->leader_id = 0;
        log->leader[0] = 0;
    }
    if (log->term && log->leader_revision != log->term)
        log->lost = true;
    if (log->leader_revision != before) {
        ch_cond_broadcast(&log->changed);
        ch_cond_broadcast(&log->work);
    }
}

uint64_t con__etcd_id_of(struct base_bytes text)
{
    char digits[ID_DIGITS + 1];

    if (text.len < ID_DIGITS)
        return 0;
    memcpy(digits, text.data + text.len - ID_DIGITS, ID_DIGITS);
    digits[ID_DIGITS] = 0;
    return strtoull(digits, NULL, 16);
}

/* ---- reading to the end ---- */

/* One transaction: manifest, leader, the next batches. */
static CH_WAITS struct base_status page_read(struct con_etcd_log *log, struct base_arena *arena,
                                             Etcdserverpb__TxnResponse **response)
{
    struct con_etcd_txn txn;

    con__etcd_txn_init(&txn, arena);
    con__etcd_then_range(&txn, log->keys.manifest, NULL, 0);
    con__etcd_then_range(&txn, log->keys.leader, NULL, 0);
    con__etcd_then_range(&txn, con__etcd_log_key(arena, &log->keys, log->applied + 1),
                         con__etcd_below(arena, log->keys.log), (int64_t)log->page_batches);
    con__etcd_then_range(&txn, log->keys.next, NULL, 0);
    return con__etcd_commit(log->etcd, &txn, ch_in(log->env, READ_MS * CH_MS), response, NULL);
}

/* The batches of a page; *gap: the first does not follow on what is applied. */
static struct base_status page_apply(struct con_etcd_log *log,
                                     const Etcdserverpb__RangeResponse *page, bool *gap)
{
    struct base_status status = BASE_STATUS_OK;
    enum applied what = APPLIED;
    size_t bytes = 1;

    for (size_t i = 0; i < page->n_kvs; i++)
        bytes += page->kvs[i]->value.len;
    log->page_batches = PAGE_BYTES * page->n_kvs / bytes;
    if (log->page_batches < PAGE_BATCHES_MIN)
        log->page_batches = PAGE_BATCHES_MIN;
    if (log->page_batches > PAGE_BATCHES_MAX)
        log->page_batches = PAGE_BATCHES_MAX;
    for (size_t i = 0; i < page->n_kvs && what != GAP && !base_failed(status); i++)
        status = kv_apply(log, page->kvs[i], &what);
    *gap = what == GAP;
    return status;
}

static CH_WAITS struct base_status page_take(struct con_etcd_log *log,
                                             const Etcdserverpb__TxnResponse *response, bool *more)
{
    const Etcdserverpb__RangeResponse *manifests, *leaders, *page, *next;
    struct con_etcd_manifest manifest = { 0 };
    struct base_status status = con__etcd_found(response, 0, &manifests);
    bool gap = false;

    if (!base_failed(status))
        status = con__etcd_found(response, 1, &leaders);
    if (!base_failed(status))
        status = con__etcd_found(response, 2, &page);
    if (!base_failed(status))
        status = con__etcd_found(response, 3, &next);
    if (!base_failed(status) && manifests->n_kvs)
        status = con__etcd_manifest_decode(ch_bytes_of(manifests->kvs[0]->value), &manifest);
    if (base_failed(status))
        return status;
    con__etcd_leader_seen(log, leaders->n_kvs ? leaders->kvs[0] : NULL);
    log->next_id = next->n_kvs ? con__etcd_id_of(ch_bytes_of(next->kvs[0]->value)) : 0;
    *more = page->more;
    status = page_apply(log, page, &gap);
    if (base_failed(status))
        return status;
    if (manifest.index > log->applied) { /* what lies between went when that snapshot was taken */
        *more = true;
        return con__etcd_snapshot_load(log, &manifest);
    }
    if (gap)
        return base_status_make(BASE_DATA_LOSS,
                                "etcd: %.*s does not follow on index %" PRIu64
                                ", the last that is known, and no snapshot covers what is missing",
                                BASE_FMT(ch_bytes_of(page->kvs[0]->key)), log->applied);
    if (log->snapshot_bytes < manifest.bytes)
        log->snapshot_bytes = manifest.bytes;
    return status;
}

struct base_status con__etcd_catch_up(struct con_etcd_log *log)
{
    struct base_status status = BASE_STATUS_OK;
    struct base_arena arena = { 0 };
    bool more = true;

    log->page_batches = PAGE_BATCHES_MIN;
    while (more && !base_failed(status) && !log->closing) {
        Etcdserverpb__TxnResponse *response = NULL;

        base_arena_reset(&arena);
        status = page_read(log, &arena, &response);
        if (!base_failed(status))
            status = page_take(log, response, &more);
        if (status.code == BASE_ABORTED) { /* a newer snapshot: read on */
            base_status_free(&status);
            more = true;
        }
    }
    base_arena_free(&arena);
    return status;
}

/* ---- the watch ---- */

static void news(struct con_etcd_log *log)
{
    log->news = true;
    ch_cond_broadcast(&log->work);
}

static void event_take(struct con_etcd_log *log, const Mvccpb__Event *event)
{
    struct base_bytes key = event->kv ? ch_bytes_of(event->kv->key) : BASE_BYTES_EMPTY;
    enum applied what = GAP;

    if (!base_bytes_starts_with(key, base_bytes_str(log->keys.log))) {
        news(log); /* of the leader */
        return;
    }
    if (log->writing_off || event->type != MVCCPB__EVENT__EVENT_TYPE__PUT)
        return;
    if (base_status_drop(kv_apply(log, event->kv, &what)) != BASE_OK || what == GAP)
        news(log); /* main finds it, and says so if it is damaged */
}

static CH_WAITS struct base_status watch_receive(struct con_etcd_log *log,
                                                 struct ch_client_stream *stream)
{
    struct base_arena arena = { 0 };
    struct base_status status;
    void *message = NULL;

    do {
        base_arena_reset(&arena);
        status = ch_stream_recv(stream, &arena, &message);
        if (!base_failed(status) && message) {
            const Etcdserverpb__WatchResponse *response = message;

            if (response->canceled)
                status = base_status_make(BASE_UNAVAILABLE, "watch cancelled: %.*s",
                                          BASE_FMT(ch_bytes_of(response->cancel_reason)));
            if (response->created)
                news(log); /* what happened before it began */
            for (size_t i = 0; i < response->n_events && !base_failed(status); i++)
                event_take(log, response->events[i]);
        }
    } while (!base_failed(status) && message);
    base_arena_free(&arena);
    return status;
}

static void watch_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct con_etcd_log *log = arg;
    struct base_arena arena = { 0 };
    const char *end = con__etcd_below(&arena, log->keys.log);
    ch_time deadline;

    do {
        struct ch_client_stream *stream = NULL;
        struct base_status status = con__etcd_watch(log->etcd, log->keys.leader, end, &stream);

        if (!base_failed(status)) {
            status = watch_receive(log, stream);
            ch_stream_free(stream);
        }
        if (base_failed(status) && !ch_cancelled())
            ch_info(log->env, "%s: watch: %s", log->keys.log, base_status_text(&status));
        base_status_free(&status);
        deadline = ch_in(log->env, WATCH_RETRY_MS * CH_MS);
    } while (ch_sleep_until(log->env, deadline) == CH_TIMEOUT);
    base_arena_free(&arena);
}

void con__etcd_watch_stop(struct con_etcd_log *log)
{
    if (!log->watching)
        return;
    ch_gate_stop(&log->watch_gate);
    log->watching = false;
}

void con__etcd_watch_tend(struct con_etcd_log *log)
{
    if (log->watching && log->watch_moves == con__etcd_moves(log->etcd))
        return;
    con__etcd_watch_stop(log);
    ch_gate_init(&log->watch_gate, log->env, "etcd watch");
    log->watch_moves = con__etcd_moves(log->etcd);
    log->watching = base_status_drop(
                        ch_gate_spawn(&log->watch_gate, "etcd watch", watch_fiber, log)) == BASE_OK;
}
