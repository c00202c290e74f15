/* log.c: see log.h.
 *
 * Happy path: tab_log_queue -> an appender fiber takes the whole queue as one batch, frames it
 * at the tail, blk_append -> finish() applies batches in order. `pipeline` appenders run side by
 * side; blockstore keeps the order of calls. Rolling: when the segment is full, appenders wait
 * until nothing is in flight; the next segment (made ahead of time) is named by a "moved" frame
 * and takes over. Failure: a failed append stops all appenders; the one that comes last reopens
 * the segment (blockstore settles its length) and writes every unfinished batch again behind it,
 * until that works or the lock is lost; then every operation fails. */
#include "log.h"

#include <stdio.h>
#include <stdlib.h>

#include "chassis/log.h"
#include "log_format.h"

enum {
    PIPELINE_DEFAULT = 3,
    BATCH_BYTES = 4 << 20,
    QUEUE_BYTES_MAX = 64 << 20,
    APPEND_TIMEOUT_S = 5,
    OPEN_TIMEOUT_S = 5,
    RETRY_MS = 50,
    PATH_MAX_BYTES = 512
};

struct batch {
    struct batch *next;
    uint64_t number, segment;
    struct base_buf payload;
    struct tab_op *ops;
    bool durable;
};

struct tab_log {
    struct ch_env *env;
    struct blk_client *blk;
    struct tab_log_options options;
    char directory[PATH_MAX_BYTES / 2];
    struct ch_gate gate;
    struct blk_writer *writer, *ahead; /* ahead: of the next segment, made early */
    uint64_t segment, first_segment, tail, next_batch;
    struct tab_op *queue, **queue_end;
    size_t queued_bytes;
    struct batch *flying, **flying_end; /* in order of numbers; durable ones leave from the head */
    size_t in_append;
    bool broken, rolling, closing, ended, making_ahead;
    struct ch_cond changed; /* something ended or failed */
    struct ch_cond work;    /* what idle appenders wait on */
    struct ch_histogram *append_ns, *batch_ops;
};

void tab_log_path(char *out, size_t size, const char *directory, uint64_t segment)
{
    snprintf(out, size, "%s/%08llu", directory, (unsigned long long)segment);
}

static struct base_status open_segment(struct tab_log *log, uint64_t segment, bool create,
                                       ch_time deadline, struct blk_writer **writer,
                                       uint64_t *length) CH_WAITS;
static struct base_status open_segment(struct tab_log *log, uint64_t segment, bool create,
                                       ch_time deadline, struct blk_writer **writer,
                                       uint64_t *length)
{
    char path[PATH_MAX_BYTES];
    tab_log_path(path, sizeof(path), log->directory, segment);
    struct blk_append_options options = { .create = create, .fence = log->options.fence };
    return blk_open_append(log->blk, path, &options, deadline, writer, length);
}

static void wake_all(struct tab_log *log)
{
    ch_cond_broadcast(&log->changed);
    ch_cond_broadcast(&log->work);
}

/* ---- finishing ---- */

static void apply_batch(struct tab_log *log, struct batch *batch, const struct base_status *status)
{
    uint64_t count = 0;
    while (batch->ops) {
        struct tab_op *op = batch->ops;
        batch->ops = op->next;
        op->apply(op, batch->segment, status);
        count++;
    }
    ch_observe(log->batch_ops, count);
    base_buf_free(&batch->payload);
    free(batch);
}

static void finish(struct tab_log *log)
{
    static const struct base_status ok = { BASE_OK, NULL };
    while (log->flying && log->flying->durable) {
        struct batch *batch = log->flying;
        log->flying = batch->next;
        if (!log->flying)
            log->flying_end = &log->flying;
        apply_batch(log, batch, &ok);
    }
    ch_cond_broadcast(&log->changed);
}

static void end_log(struct tab_log *log, struct base_status why)
{
    log->ended = true;
    while (log->flying) {
        struct batch *batch = log->flying;
        log->flying = batch->next;
        apply_batch(log, batch, &why);
    }
    log->flying_end = &log->flying;
    while (log->queue) {
        struct tab_op *op = log->queue;
        log->queue = op->next;
        op->apply(op, log->segment, &why);
    }
    log->queue_end = &log->queue;
    log->queued_bytes = 0;
    wake_all(log);
    if (log->options.ended)
        log->options.ended(log->options.self, why);
    else
        base_status_free(&why);
}

/* ---- appending ---- */

static struct batch *take_batch(struct tab_log *log)
{
    struct batch *batch = calloc(1, sizeof(*batch));
    BASE_ASSERT(batch != NULL);
    batch->number = log->next_batch++;
    batch->segment = log->segment;
    struct tab_op **end = &batch->ops;
    while (log->queue &&
           (!batch->ops || batch->payload.len + log->queue->record.len <= BATCH_BYTES)) {
        struct tab_op *op = log->queue;
        log->queue = op->next;
        op->next = NULL;
        *end = op;
        end = &op->next;
        base_buf_put_bytes(&batch->payload, base_buf_bytes(&op->record));
        log->queued_bytes -= op->record.len;
    }
    if (!log->queue)
        log->queue_end = &log->queue;
    *log->flying_end = batch;
    log->flying_end = &batch->next;
    return batch;
}

static struct base_status append_frames(struct tab_log *log, struct base_bytes payload,
                                        uint64_t number, uint8_t kind) CH_WAITS;
static struct base_status append_frames(struct tab_log *log, struct base_bytes payload,
                                        uint64_t number, uint8_t kind)
{
    struct base_buf frames = { 0 };
    uint64_t at = log->tail, offset = 0;
    tab_frames_put(&frames, at, number, kind, payload);
    log->tail += frames.len;
    ch_time deadline = ch_in(log->env, APPEND_TIMEOUT_S * CH_S);
    struct base_status status = BASE_STATUS_OK;
    for (size_t done = 0; done < frames.len && !base_failed(status);) {
        size_t len = frames.len - done < BLK_APPEND_MAX ? frames.len - done : BLK_APPEND_MAX;
        struct base_bytes part = base_bytes(frames.data + done, len);
        status = blk_append(log->writer, &part, 1, deadline, &offset);
        if (!base_failed(status) && offset != at + done)
            status = base_status_make(BASE_DATA_LOSS, "log append went to %llu, not %llu",
                                      (unsigned long long)offset, (unsigned long long)(at + done));
        done += len;
    }
    base_buf_free(&frames);
    return status;
}

/* A large batch would be appended in parts, and other appends could come between: it goes alone. */
static bool goes_alone(const struct batch *batch)
{
    return tab_frames_size(batch->payload.len) > BLK_APPEND_MAX;
}

/* ---- segments ---- */

static void make_ahead_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct tab_log *log = arg;
    uint64_t length = 0;
    struct blk_writer *writer = NULL;
    struct base_status status = open_segment(
        log, log->segment + 1, true, ch_in(log->env, OPEN_TIMEOUT_S * CH_S), &writer, &length);
    if (base_failed(status)) {
        ch_warn(log->env, "next log segment: %s", base_status_text(&status));
        base_status_free(&status);
    } else {
        log->ahead = writer;
    }
    log->making_ahead = false;
    wake_all(log);
}

static void make_ahead(struct tab_log *log)
{
    if (log->ahead || log->making_ahead || log->tail < log->options.segment_bytes / 2)
        return;
    log->making_ahead = true;
    if (base_status_drop(ch_gate_spawn(&log->gate, "log segment", make_ahead_fiber, log)) !=
        BASE_OK)
        log->making_ahead = false;
}

/* With nothing in flight. A failure leaves the log in the old segment, broken. */
static struct base_status roll(struct tab_log *log) CH_WAITS;
static struct base_status roll(struct tab_log *log)
{
    while (log->making_ahead)
        ch_cond_wait_always(&log->changed);
    uint64_t length = 0;
    struct base_status status = BASE_STATUS_OK;
    if (!log->ahead)
        status = open_segment(log, log->segment + 1, true, ch_in(log->env, OPEN_TIMEOUT_S * CH_S),
                              &log->ahead, &length);
    if (!base_failed(status))
        status = append_frames(log, BASE_BYTES_EMPTY, log->next_batch++, TAB_FRAME_MOVED);
    if (base_failed(status))
        return base_status_wrap(status, "roll to log segment %llu",
                                (unsigned long long)log->segment + 1);
    struct base_status sealed =
        blk_writer_seal(log->writer, ch_in(log->env, OPEN_TIMEOUT_S * CH_S));
    base_status_drop(sealed); /* whoever recovers it seals it */
    blk_writer_close(log->writer);
    log->writer = log->ahead;
    log->ahead = NULL;
    log->segment++;
    log->tail = 0;
    return BASE_STATUS_OK;
}

/* ---- repair ---- */

static struct base_status append_again(struct tab_log *log) CH_WAITS;
static struct base_status append_again(struct tab_log *log)
{
    struct base_status status = open_segment(
        log, log->segment, false, ch_in(log->env, OPEN_TIMEOUT_S * CH_S), &log->writer, &log->tail);
    if (base_failed(status)) {
        log->writer = NULL;
        return status;
    }
    for (struct batch *batch = log->flying; batch && !base_failed(status); batch = batch->next) {
        if (batch->durable)
            continue;
        status =
            append_frames(log, base_buf_bytes(&batch->payload), batch->number, TAB_FRAME_RECORDS);
        batch->durable = !base_failed(status);
    }
    return status;
}

/* By one appender, when no other is inside blockstore. */
static void repair(struct tab_log *log, struct base_status why) CH_WAITS;
static void repair(struct tab_log *log, struct base_status why)
{
    ch_warn(log->env, "commit log: %s: writing the unfinished batches again",
            base_status_text(&why));
    while (base_failed(why)) {
        if (log->writer)
            blk_writer_close(log->writer);
        log->writer = NULL;
        if (why.code == BASE_FAILED_PRECONDITION || !log->options.alive(log->options.self) ||
            log->closing || ch_cancelled()) {
            end_log(log, base_status_wrap(why, "commit log ended"));
            return;
        }
        base_status_free(&why);
        ch_sleep_until(log->env, ch_in(log->env, RETRY_MS * CH_MS));
        why = append_again(log);
    }
    log->broken = false;
    finish(log);
}

static bool has_work(const struct tab_log *log)
{
    if (log->broken || log->rolling)
        return false;
    return log->queue != NULL;
}

static void fail_append(struct tab_log *log, struct base_status status) CH_WAITS;
static void fail_append(struct tab_log *log, struct base_status status)
{
    if (log->broken) { /* another one repairs */
        base_status_free(&status);
        return;
    }
    log->broken = true;
    while (log->in_append > 0)
        ch_cond_wait_always(&log->changed);
    repair(log, status);
    wake_all(log);
}

static void append_one(struct tab_log *log) CH_WAITS;
static void append_one(struct tab_log *log)
{
    struct batch *batch = take_batch(log);
    bool alone = goes_alone(batch);
    if (alone)
        log->rolling = true;
    ch_time start = ch_now(log->env);
    log->in_append++;
    struct base_status status =
        append_frames(log, base_buf_bytes(&batch->payload), batch->number, TAB_FRAME_RECORDS);
    log->in_append--;
    if (alone)
        log->rolling = false;
    wake_all(log);
    if (base_failed(status)) {
        fail_append(log, status);
        return;
    }
    batch->durable = true;
    ch_observe(log->append_ns, (uint64_t)(ch_now(log->env) - start));
    if (!log->broken)
        finish(log);
}

static void roll_when_full(struct tab_log *log) CH_WAITS;
static void roll_when_full(struct tab_log *log)
{
    if (log->tail < log->options.segment_bytes || log->rolling || log->broken)
        return;
    log->rolling = true;
    while (log->flying && !log->broken)
        ch_cond_wait_always(&log->changed);
    struct base_status status = log->broken ? BASE_STATUS_OK : roll(log);
    log->rolling = false;
    wake_all(log);
    if (base_failed(status))
        fail_append(log, status);
}

static void appender(void *arg)
{
    CH_FIBER_ENTRY();
    struct tab_log *log = arg;
    while (!log->ended) {
        if (has_work(log)) {
            append_one(log);
            make_ahead(log);
            roll_when_full(log);
            continue;
        }
        if (log->closing && !log->queue && !log->broken && !log->rolling)
            break;
        ch_cond_wait_always(&log->work);
    }
}

/* ---- interface ---- */

struct base_status tab_log_open(struct ch_env *env, struct blk_client *blk,
                                const struct tab_log_options *options, ch_time deadline,
                                struct tab_log **result)
{
    struct tab_log *log = calloc(1, sizeof(*log));
    BASE_ASSERT(log != NULL);
    log->env = env;
    log->blk = blk;
    log->options = *options;
    snprintf(log->directory, sizeof(log->directory), "%s", options->directory);
    if (log->options.pipeline == 0)
        log->options.pipeline = PIPELINE_DEFAULT;
    if (log->options.queue_bytes_max == 0)
        log->options.queue_bytes_max = QUEUE_BYTES_MAX;
    log->segment = log->first_segment = 1;
    log->queue_end = &log->queue;
    log->flying_end = &log->flying;
    ch_cond_init(&log->changed);
    ch_cond_init(&log->work);
    ch_gate_init(&log->gate, env, "commit log");
    log->append_ns = ch_histogram(env, "tablet_log_append_ns", "", "Time of one commit log append");
    log->batch_ops =
        ch_histogram(env, "tablet_log_batch_ops", "", "Operations in one commit log append");
    struct base_status status = open_segment(log, 1, true, deadline, &log->writer, &log->tail);
    for (size_t i = 0; i < log->options.pipeline && !base_failed(status); i++)
        status = ch_gate_spawn(&log->gate, "log appender", appender, log);
    if (base_failed(status)) {
        log->options.ended = NULL;
        log->ended = true;
        tab_log_close(log, false);
        return base_status_wrap(status, "open commit log %s", options->directory);
    }
    *result = log;
    return BASE_STATUS_OK;
}

struct base_status tab_log_queue(struct tab_log *log, struct tab_op *op)
{
    if (log->ended || log->closing)
        return base_status_make(BASE_UNAVAILABLE, "the commit log has ended");
    if (log->queued_bytes + op->record.len > log->options.queue_bytes_max && log->queue)
        return base_status_make(BASE_RESOURCE_EXHAUSTED, "commit log queue holds %zu bytes",
                                log->queued_bytes);
    op->next = NULL;
    *log->queue_end = op;
    log->queue_end = &op->next;
    log->queued_bytes += op->record.len;
    ch_cond_signal(&log->work);
    return BASE_STATUS_OK;
}

uint64_t tab_log_segment(const struct tab_log *log)
{
    return log->segment;
}

size_t tab_log_queued_bytes(const struct tab_log *log)
{
    return log->queued_bytes;
}

void tab_log_trim(struct tab_log *log, uint64_t segment)
{
    while (log->first_segment < segment && log->first_segment < log->segment) {
        char path[PATH_MAX_BYTES];
        tab_log_path(path, sizeof(path), log->directory, log->first_segment);
        enum base_code code =
            base_status_drop(blk_delete(log->blk, path, ch_in(log->env, OPEN_TIMEOUT_S * CH_S)));
        if (code != BASE_OK && code != BASE_NOT_FOUND)
            return; /* next time */
        log->first_segment++;
    }
}

void tab_log_close(struct tab_log *log, bool remove)
{
    log->closing = true;
    wake_all(log);
    ch_gate_close(&log->gate);
    ch_gate_join_always(&log->gate);
    if (log->writer)
        blk_writer_close(log->writer);
    if (log->ahead)
        blk_writer_close(log->ahead);
    if (remove)
        for (uint64_t segment = log->first_segment; segment <= log->segment + 1; segment++) {
            char path[PATH_MAX_BYTES];
            tab_log_path(path, sizeof(path), log->directory, segment);
            base_status_drop(blk_delete(log->blk, path, ch_in(log->env, OPEN_TIMEOUT_S * CH_S)));
        }
    free(log);
}
