/* log_etcd_snapshot.c: snapshots of a log in etcd.
 *
 * Saving: the state is taken between two batches without a wait, put piece by piece, each under the
 * leader's comparison, while commits go on; then one transaction makes the manifest name it and
 * deletes the batches and pieces it replaces. A failure before leaves pieces that the next snapshot
 * deletes. Loading: pieces by their keys; one that is missing has been replaced meanwhile. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/codec.h"
#include "chassis/log.h"
#include "log_etcd_int.h"

enum { SNAPSHOT_MS = 20000, STATE_BYTES_MAX = 1 << 30 };

struct snapshot_task {
    struct con_etcd_log *log;
    uint64_t index, term, bytes; /* bytes: of log at that time */
    struct base_buf state;
};

/* ---- saving ---- */

/* One transaction under the leader's comparison; ABORTED when another leads. */
static CH_WAITS struct base_status fenced(struct con_etcd_log *log, struct con_etcd_txn *txn,
                                          const char *what)
{
    Etcdserverpb__TxnResponse *response = NULL;
    struct base_status status =
        con__etcd_commit(log->etcd, txn, ch_in(log->env, SNAPSHOT_MS * CH_MS), &response, NULL);

    if (!base_failed(status) && !response->succeeded)
        status = base_status_make(BASE_ABORTED, "another leads");
    return base_status_wrap(status, "put %s", what);
}

static CH_WAITS struct base_status pieces_put(struct snapshot_task *task,
                                              struct con_etcd_manifest *manifest)
{
    struct base_arena arena = { 0 };
    struct base_status status = BASE_STATUS_OK;

    for (size_t at = 0; at < task->state.len && !base_failed(status); manifest->pieces++) {
        size_t left = task->state.len - at;
        size_t len = left < CON_ETCD_PIECE_BYTES ? left : CON_ETCD_PIECE_BYTES;
        struct con_etcd_txn txn;
        const char *key;

        base_arena_reset(&arena);
        key = con__etcd_piece_key(&arena, &task->log->keys, task->index, manifest->pieces);
        con__etcd_txn_init(&txn, &arena);
        con__etcd_if_created(&txn, task->log->keys.leader, task->term);
        con__etcd_then_put(&txn, key, base_bytes(task->state.data + at, len), 0);
        status = fenced(task->log, &txn, key);
        at += len;
    }
    base_arena_free(&arena);
    return status;
}

static CH_WAITS struct base_status manifest_put(struct snapshot_task *task,
                                                const struct con_etcd_manifest *manifest)
{
    struct con_etcd_keys *keys = &task->log->keys;
    struct base_arena arena = { 0 };
    struct base_buf value = { 0 };
    struct con_etcd_txn txn;
    struct base_status status;

    con__etcd_manifest_encode(manifest, &value);
    con__etcd_txn_init(&txn, &arena);
    con__etcd_if_created(&txn, keys->leader, task->term);
    con__etcd_then_put(&txn, keys->manifest, base_buf_bytes(&value), 0);
    con__etcd_then_delete(&txn, keys->log, con__etcd_log_key(&arena, keys, manifest->index + 1));
    con__etcd_then_delete(&txn, keys->snapshot,
                          con__etcd_piece_key(&arena, keys, manifest->index, 0));
    status = fenced(task->log, &txn, keys->manifest);
    base_buf_free(&value);
    base_arena_free(&arena);
    return status;
}

static void snapshot_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct snapshot_task *task = arg;
    struct con_etcd_log *log = task->log;
    struct con_etcd_manifest manifest = {
        .index = task->index,
        .bytes = task->state.len,
        .crc = base_crc32c(0, task->state.data, task->state.len),
    };
    struct base_status status = pieces_put(task, &manifest);

    if (!base_failed(status))
        status = manifest_put(task, &manifest);
    if (base_failed(status)) {
        /* The log is whole; a later batch tries again. */
        if (!ch_cancelled())
            ch_warn(log->env, "snapshot of index %" PRIu64 ": %s", task->index,
                    base_status_text(&status));
        log->snapshot_retry_bytes = log->bytes + log->snapshot_bytes_min / 4;
    } else {
        log->bytes -= task->bytes;
        log->snapshot_bytes = task->state.len;
        log->snapshot_retry_bytes = 0;
    }
    base_status_free(&status);
    log->snapshotting = false;
    base_buf_free(&task->state);
    free(task);
}

void con__etcd_snapshot_maybe(struct con_etcd_log *log)
{
    uint64_t least = log->snapshot_bytes > log->snapshot_bytes_min ? log->snapshot_bytes
                                                                   : log->snapshot_bytes_min;
    struct snapshot_task *task;

    if (log->snapshotting || log->bytes <= least || log->bytes < log->snapshot_retry_bytes)
        return;
    task = calloc(1, sizeof(*task));
    BASE_ASSERT(task != NULL);
    *task = (struct snapshot_task){
        .log = log, .index = log->applied, .term = log->term, .bytes = log->bytes
    };
    log->machine.snapshot(log->machine.self, &task->state);
    log->snapshotting = true;
    if (base_status_drop(ch_gate_spawn(&log->gate, "etcd snapshot", snapshot_fiber, task)) !=
        BASE_OK) { /* closing, or no fiber to be had: the next batch asks again */
        log->snapshotting = false;
        base_buf_free(&task->state);
        free(task);
    }
}

/* ---- loading ---- */

static CH_WAITS struct base_status pieces_get(struct con_etcd_log *log,
                                              const struct con_etcd_manifest *manifest,
                                              struct base_buf *state)
{
    struct base_arena arena = { 0 };
    struct base_status status = BASE_STATUS_OK;

    for (uint64_t i = 0; i < manifest->pieces && !base_failed(status); i++) {
        const Mvccpb__KeyValue *kv = NULL;
        const char *key;

        base_arena_reset(&arena);
        key = con__etcd_piece_key(&arena, &log->keys, manifest->index, i);
        status = con__etcd_get(log->etcd, key, ch_in(log->env, SNAPSHOT_MS * CH_MS), &arena, &kv);
        if (!base_failed(status) && !kv)
            status = base_status_make(BASE_ABORTED, "%s is not there", key);
        else if (!base_failed(status) && state->len + kv->value.len > manifest->bytes)
            status = base_status_make(BASE_DATA_LOSS, "%s: more bytes than the manifest says", key);
        else if (!base_failed(status))
            base_buf_put_bytes(state, ch_bytes_of(kv->value));
    }
    base_arena_free(&arena);
    return status;
}

/* Whether the manifest still names it: a piece that is missing then is lost. */
static CH_WAITS bool manifest_stands(struct con_etcd_log *log, uint64_t index)
{
    struct base_arena arena = { 0 };
    const Mvccpb__KeyValue *kv = NULL;
    struct con_etcd_manifest now = { 0 };
    struct base_status status = con__etcd_get(log->etcd, log->keys.manifest,
                                              ch_in(log->env, SNAPSHOT_MS * CH_MS), &arena, &kv);

    if (!base_failed(status) && kv)
        status = con__etcd_manifest_decode(ch_bytes_of(kv->value), &now);
    base_arena_free(&arena);
    return base_status_drop(status) == BASE_OK && now.index == index;
}

struct base_status con__etcd_snapshot_load(struct con_etcd_log *log,
                                           const struct con_etcd_manifest *manifest)
{
    struct base_buf state = { 0 };
    struct base_status status;

    if (manifest->bytes > STATE_BYTES_MAX)
        return base_status_make(BASE_DATA_LOSS, "etcd: %s: a state of %" PRIu64 " bytes",
                                log->keys.manifest, manifest->bytes);
    status = pieces_get(log, manifest, &state);
    if (status.code == BASE_ABORTED && manifest_stands(log, manifest->index))
        status.code = BASE_DATA_LOSS;
    if (!base_failed(status) &&
        (state.len != manifest->bytes || base_crc32c(0, state.data, state.len) != manifest->crc))
        status = base_status_make(BASE_DATA_LOSS, "its bytes are not those the manifest is of");
    if (!base_failed(status) && manifest->index > log->applied) {
        status = log->machine.restore(log->machine.self, base_buf_bytes(&state));
        if (!base_failed(status)) {
            log->applied = manifest->index;
            log->snapshot_bytes = manifest->bytes;
            log->bytes = 0;
        }
    }
    base_buf_free(&state);
    return base_status_wrap(status, "etcd: snapshot of index %" PRIu64, manifest->index);
}
