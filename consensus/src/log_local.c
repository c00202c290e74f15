/* log_local.c: the log of a group with one member: its journal, its machine, one writer.
 *
 * Invariants
 * 1. Commands are applied in the order of their indexes, each once, and only after the sync that
 * covers them.
 * 2. Every command waiting when the writer comes round goes into the next batch and shares its
 * sync (up to CON_RECORDS_BYTES_MAX): there is no timer and no delay when the log is idle.
 * 3. The term grows at each open: the no-op that opens a term is durable before anyone leads or
 * proposes.
 * 4. After a failed write nothing is known of what the disk holds: the log is broken for good,
 * everybody waiting gets UNAVAILABLE ("outcome unknown"), and the machine is told that it leads
 * no more. The next open tells what it was.
 * 5. A snapshot is of the state between two batches, taken without a wait and written beside the
 * ongoing commits.
 *
 * Happy path: con_log_propose queues a waiter on its stack and wakes the writer fiber; the writer
 * takes the whole queue, writes, syncs, applies in order, sets the waiters' completions.
 * Shutdown: con_log_close lets the writer empty the queue. */
#include "log_ops.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/codec.h"
#include "chassis/log.h"
#include "journal.h"

enum { SNAPSHOT_BYTES_MIN = 8 << 20, QUEUE_MAX = 4096, QUEUE_BYTES_MAX = 32 << 20 };

struct waiter {
    struct base_bytes command; /* the proposer's, which waits for us */
    struct base_buf *reply;
    struct base_status status;
    struct ch_done done;
    struct waiter *next;
};

struct local {
    struct con_log base;
    struct ch_env *env;
    struct con_machine machine;
    struct con_journal journal;
    uint64_t snapshot_bytes_min,
        snapshot_retry_bytes; /* retry: after a failure, not before the journal has grown to this */
    uint64_t term, applied;
    struct waiter *first, **last; /* not yet taken by the writer */
    size_t queued;
    size_t queued_bytes;
    struct ch_cond work;
    struct ch_gate gate;
    bool closing, snapshotting;
    struct base_status broken; /* invariant 4 */
};

static ch_fiber_fn writer_fiber, snapshot_fiber;
static struct base_status replay_snapshot(void *self, uint64_t index, struct base_bytes state);
static struct base_status replay_batch(void *self, const struct con_batch *batch);
static CH_WAITS struct base_status term_begin(struct local *log);

static const struct con_log_ops ops;

struct base_status con__group_open(struct ch_env *env, const struct con_log_options *options,
                                   const struct con_machine *machine, struct con_log **opened)
{
    struct local *log = calloc(1, sizeof(*log));
    struct con_journal_replay replay = { replay_snapshot, replay_batch, log };
    struct base_status status;

    if (!log)
        abort();
    *opened = NULL;
    log->base.ops = &ops;
    log->env = env;
    log->machine = *machine;
    log->snapshot_bytes_min =
        options->snapshot_bytes_min ? options->snapshot_bytes_min : SNAPSHOT_BYTES_MIN;
    log->last = &log->first;
    ch_cond_init(&log->work);
    ch_gate_init(&log->gate, env, "log");
    status = con__journal_open(&log->journal, env, options->dir, &replay);
    if (!base_failed(status)) {
        status = term_begin(log);
        if (!base_failed(status))
            status = ch_gate_spawn(&log->gate, "log writer", writer_fiber, log);
        if (base_failed(status))
            con__journal_close(&log->journal);
    }
    if (base_failed(status)) {
        free(log);
        return status;
    }
    if (log->machine.lead)
        log->machine.lead(log->machine.self, log->term);
    *opened = &log->base;
    return BASE_STATUS_OK;
}

static CH_WAITS void local_close(struct con_log *self)
{
    struct local *log = (struct local *)self;

    log->closing = true;
    ch_cond_broadcast(&log->work);
    ch_gate_close(&log->gate);
    ch_gate_join_always(&log->gate);
    con__journal_close(&log->journal);
    base_status_free(&log->broken);
    free(log);
}

/* ---- recovery ---- */

static struct base_status replay_snapshot(void *self, uint64_t index, struct base_bytes state)
{
    struct local *log = self;

    log->applied = index;
    return base_status_wrap(log->machine.restore(log->machine.self, state),
                            "restore the snapshot of index %" PRIu64, index);
}

static struct base_status replay_batch(void *self, const struct con_batch *batch)
{
    struct local *log = self;
    struct base_bytes records = batch->records, command;
    struct base_buf reply = { 0 };
    struct base_status status = BASE_STATUS_OK;

    for (uint32_t i = 0; i < batch->count && !base_failed(status); i++) {
        if (!base_take_lenbytes(&records, &command)) {
            status = base_status_make(
                BASE_DATA_LOSS, "the batch of index %" PRIu64 " has fewer commands than it says",
                batch->first_index);
            break;
        }
        base_buf_clear(&reply);
        if (batch->kind == CON_BATCH_COMMANDS)
            log->machine.apply(log->machine.self, batch->first_index + i, command, &reply);
        log->applied = batch->first_index + i;
    }
    base_buf_free(&reply);
    return status;
}

static struct base_status term_begin(struct local *log)
{
    static const uint8_t empty_record[1] = { 0 };
    struct con_batch batch = {
        .first_index = log->journal.next_index,
        .term = log->journal.term + 1,
        .count = 1,
        .kind = CON_BATCH_NO_OP,
        .records = { empty_record, 1 },
    };
    struct base_status status = con__journal_reserve(&log->journal, batch.records.len);

    if (!base_failed(status))
        status = con__journal_append(&log->journal, &batch);
    if (!base_failed(status)) {
        log->term = batch.term;
        log->applied = batch.first_index;
    }
    return base_status_wrap(status, "begin term %" PRIu64, batch.term);
}

/* ---- proposing ---- */

static CH_WAITS struct base_status local_propose(struct con_log *self, struct base_bytes command,
                                                 ch_time deadline, struct base_buf *reply)
{
    struct local *log = (struct local *)self;
    struct waiter waiter = { .command = command, .reply = reply };

    BASE_ASSERT(!log->closing);
    if (base_failed(log->broken))
        return base_status_make(BASE_FAILED_PRECONDITION, "not the leader; the log has failed: %s",
                                base_status_text(&log->broken));
    if (log->queued >= QUEUE_MAX || log->queued_bytes + command.len > QUEUE_BYTES_MAX)
        return base_status_make(BASE_RESOURCE_EXHAUSTED,
                                "%zu commands (%zu bytes) wait for the log already", log->queued,
                                log->queued_bytes);
    ch_done_init(&waiter.done);
    *log->last = &waiter;
    log->last = &waiter.next;
    log->queued++;
    log->queued_bytes += command.len;
    ch_cond_signal(&log->work);
    ch_done_wait_always(&waiter.done);
    return waiter.status;
}

static CH_WAITS struct base_status local_read_barrier(struct con_log *self, ch_time deadline)
{
    struct local *log = (struct local *)self;

    /* One member, which holds the folder's lock: what was acknowledged was applied before it
     * was. */
    if (base_failed(log->broken))
        return base_status_make(BASE_FAILED_PRECONDITION, "not the leader; the log has failed: %s",
                                base_status_text(&log->broken));
    return BASE_STATUS_OK;
}

static uint64_t local_term(const struct con_log *self)
{
    return ((const struct local *)self)->term;
}

static uint64_t local_applied(const struct con_log *self)
{
    return ((const struct local *)self)->applied;
}

static const char *local_leader(const struct con_log *self)
{
    return "";
}

static CH_WAITS enum ch_outcome local_wait_lead(struct con_log *self, ch_time deadline,
                                                uint64_t *term)
{
    struct local *log = (struct local *)self;

    *term = log->term;
    return log->term ? CH_OK : ch_sleep_until(log->env, deadline);
}

static void local_look(struct con_log *self, struct con_log_view *view)
{
    const struct local *log = (const struct local *)self;

    *view = (struct con_log_view){
        .term = log->term, .commit = log->applied, .applied = log->applied, .last = log->applied
    };
}

static const struct con_log_ops ops = {
    .propose = local_propose,
    .read_barrier = local_read_barrier,
    .term = local_term,
    .applied = local_applied,
    .leader = local_leader,
    .wait_lead = local_wait_lead,
    .close = local_close,
    .look = local_look,
};

/* ---- the writer ---- */

/* Takes waiters from the queue's front while their commands fit one batch. */
static struct waiter *queue_take(struct local *log, struct base_buf *records, uint32_t *count)
{
    struct waiter *taken = log->first, **end = &taken;

    *count = 0;
    base_buf_clear(records);
    while (*end &&
           (*count == 0 || records->len + (*end)->command.len + 10 <= CON_RECORDS_BYTES_MAX)) {
        base_buf_put_lenbytes(records, (*end)->command);
        log->queued--;
        log->queued_bytes -= (*end)->command.len;
        end = &(*end)->next;
        (*count)++;
    }
    log->first = *end;
    if (!log->first)
        log->last = &log->first;
    *end = NULL;
    return taken;
}

static void waiters_fail(struct waiter *waiter, enum base_code code, const char *what,
                         const struct base_status *why)
{
    while (waiter) {
        struct waiter *next = waiter->next; /* its memory goes when it is woken */

        waiter->status = base_status_make(code, "%s: %s", what, base_status_text(why));
        ch_done_set(&waiter->done);
        waiter = next;
    }
}

static void batch_apply(struct local *log, struct waiter *waiter)
{
    struct base_buf unwanted = { 0 };

    while (waiter) {
        struct waiter *next = waiter->next;

        log->applied++;
        log->machine.apply(log->machine.self, log->applied, waiter->command,
                           waiter->reply ? waiter->reply : &unwanted);
        ch_done_set(&waiter->done);
        waiter = next;
    }
    base_buf_free(&unwanted);
}

/* Invariant 4. */
static void log_break(struct local *log, struct base_status why)
{
    ch_error(log->env, "log failed: %s", base_status_text(&why));
    log->broken = why;
    log->term = 0;
    if (log->machine.lead)
        log->machine.lead(log->machine.self, 0);
}

static CH_WAITS void batch_write(struct local *log, struct base_buf *records)
{
    struct con_batch batch = { .first_index = log->journal.next_index,
                               .term = log->journal.term,
                               .kind = CON_BATCH_COMMANDS };
    struct waiter *taken = queue_take(log, records, &batch.count);
    struct base_status status;

    batch.records = base_buf_bytes(records);
    status = con__journal_reserve(&log->journal, records->len);
    if (base_failed(status)) {
        /* Nothing was written. A full disk is the proposer's to retry; others tell of a disk that
         * cannot be used. */
        enum base_code code =
            status.code == BASE_RESOURCE_EXHAUSTED ? BASE_RESOURCE_EXHAUSTED : BASE_UNAVAILABLE;

        waiters_fail(taken, code, "nothing was written", &status);
        base_status_free(&status);
        return;
    }
    status = con__journal_append(&log->journal, &batch);
    if (base_failed(status)) {
        waiters_fail(taken, BASE_UNAVAILABLE, "outcome unknown", &status);
        log_break(log, status);
        return;
    }
    CH_NO_WAIT_BEGIN();
    batch_apply(log, taken);
    CH_NO_WAIT_END();
}

/* ---- snapshots ---- */

struct snapshot_task {
    struct local *log;
    uint64_t index, term, bytes;
    struct base_buf state;
};

static void snapshot_maybe(struct local *log)
{
    uint64_t bytes = log->journal.bytes;
    uint64_t least = log->journal.snapshot_bytes > log->snapshot_bytes_min
                         ? log->journal.snapshot_bytes
                         : log->snapshot_bytes_min;
    struct snapshot_task *task;
    struct base_status status;

    if (log->snapshotting || bytes <= least || bytes < log->snapshot_retry_bytes)
        return;
    task = calloc(1, sizeof(*task));
    if (!task)
        abort();
    *task = (struct snapshot_task){
        .log = log, .index = log->applied, .term = log->journal.term, .bytes = bytes
    };
    log->machine.snapshot(log->machine.self, &task->state);
    log->snapshotting = true;
    status = ch_gate_spawn(&log->gate, "log snapshot", snapshot_fiber, task);
    if (base_failed(status)) { /* closing, or no fiber to be had: the next batch asks again */
        base_status_free(&status);
        log->snapshotting = false;
        base_buf_free(&task->state);
        free(task);
    }
}

static void snapshot_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct snapshot_task *task = arg;
    struct local *log = task->log;
    struct base_status status = con__journal_snapshot(&log->journal, task->index, task->term,
                                                      task->bytes, base_buf_bytes(&task->state));

    if (base_failed(status)) {
        /* A full disk, say. The state is safe in the journal; a later batch tries again. */
        ch_warn(log->env, "%s", base_status_text(&status));
        log->snapshot_retry_bytes = log->journal.bytes + log->snapshot_bytes_min / 4;
    }
    base_status_free(&status);
    log->snapshotting = false;
    base_buf_free(&task->state);
    free(task);
}

static void writer_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct local *log = arg;
    struct base_buf records = { 0 };

    while (!log->closing || log->first) {
        if (!log->first) {
            ch_cond_wait_always(&log->work);
            continue;
        }
        if (base_failed(log->broken)) {
            struct waiter *taken;
            uint32_t count;

            taken = queue_take(log, &records, &count);
            waiters_fail(taken, BASE_FAILED_PRECONDITION, "not the leader; the log has failed",
                         &log->broken);
            continue;
        }
        batch_write(log, &records);
        if (!base_failed(log->broken))
            snapshot_maybe(log);
    }
    base_buf_free(&records);
}
