/* sim_rpc.c: calls on the simulated network: two halves that send each other frames. See sim_net.h
 * for the invariants.
 *
 * Happy path, client: OPEN, MESSAGEs, HALF_CLOSE -> MESSAGEs, STATUS -> over. Server: the other way
 * round. Flow control: a half may send while its credit is above zero; what its peer takes out of
 * the inbox comes back as credit, so at most CH__WINDOW_BYTES and one message wait at a receiver.
 * Failure modes: connection lost: UNAVAILABLE (at the server: cancelled); deadline and cancel end
 * the client's half at once and tell the server's. Invariant: a call's status is decided once
 * (ch__half_over), and nobody waits on a half that is over. */
#include "sim_net.h"

/* ---- metadata ---- */

struct ch__pairs *ch__pairs_copy(const struct ch_metadata *pairs, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += strlen(pairs[i].key) + 1 + pairs[i].value.len;
    struct ch__pairs *copy = malloc(sizeof(*copy) + count * sizeof(copy->pairs[0]) + bytes);
    BASE_ASSERT(copy != NULL);
    copy->count = count;
    char *at = (char *)&copy->pairs[count];
    for (size_t i = 0; i < count; i++) {
        size_t key_len = strlen(pairs[i].key) + 1;
        memcpy(at, pairs[i].key, key_len);
        copy->pairs[i].key = at;
        at += key_len;
        copy->pairs[i].value = base_bytes(at, pairs[i].value.len);
        if (pairs[i].value.len)
            memcpy(at, pairs[i].value.data, pairs[i].value.len);
        at += pairs[i].value.len;
    }
    return copy;
}

void ch__pairs_free(struct ch__pairs *pairs)
{
    free(pairs);
}

/* ---- a call's memory ---- */

static void free_frames(struct ch__frame *frame)
{
    while (frame) {
        struct ch__frame *next = frame->next;
        ch__frame_free(frame);
        frame = next;
    }
}

static void drop_inbox(struct ch_tcall *half)
{
    struct ch__frame *frames = half->inbox;
    half->inbox = NULL;
    half->inbox_end = &half->inbox;
    free_frames(frames);
}

static void drop_queued(struct ch__rpc *rpc)
{
    struct ch__frame *frames = rpc->queued;
    rpc->queued = NULL;
    rpc->queued_end = &rpc->queued;
    free_frames(frames);
}

struct ch__rpc *ch__rpc_new(struct ch_sim *sim, const char *path)
{
    struct ch__rpc *rpc = calloc(1, sizeof(*rpc));
    BASE_ASSERT(rpc != NULL);
    rpc->sim = sim;
    rpc->path = strdup(path);
    BASE_ASSERT(rpc->path != NULL);
    rpc->queued_end = &rpc->queued;
    for (int side = 0; side < 2; side++) {
        struct ch_tcall *half = &rpc->half[side];
        *half = (struct ch_tcall){
            .rpc = rpc, .side = side, .credit = CH__WINDOW_BYTES, .deadline = CH_NEVER
        };
        half->inbox_end = &half->inbox;
    }
    return rpc;
}

void ch__rpc_ref(struct ch__rpc *rpc)
{
    rpc->refs++;
}

void ch__rpc_unref(struct ch__rpc *rpc)
{
    if (--rpc->refs > 0)
        return;
    struct ch__conn *conn = rpc->conn;
    if (conn) {
        *(rpc->prev ? &rpc->prev->next : &conn->rpcs) = rpc->next;
        if (rpc->next)
            rpc->next->prev = rpc->prev;
        ch__conn_unref(conn);
    }
    for (int side = 0; side < 2; side++) {
        base_status_free(&rpc->half[side].status);
        ch__pairs_free(rpc->half[side].trailers);
    }
    ch__pairs_free(rpc->metadata);
    free(rpc->path);
    free(rpc);
}

/* ---- halves ---- */

static void wake(struct ch_tcall *half)
{
    while (half->waiters.first)
        ch_wait_end(half->waiters.first, CH_OK);
}

void ch__half_over(struct ch_tcall *half, struct base_status status)
{
    struct ch__rpc *rpc = half->rpc;
    if (half->over) {
        base_status_free(&status);
        return;
    }
    ch__rpc_ref(rpc);
    half->over = true;
    half->status = status;
    half->never_seen = half->never_seen || (half->side == CH__CLIENT && !rpc->conn);
    ch_timer_clear(&half->timer);
    ch__rpc_unqueue(rpc);
    drop_queued(rpc);
    wake(half);
    ch__listener_done_with(half);
    void (*cancelled)(void *self) = half->on_cancel;
    half->on_cancel = NULL;
    if (cancelled && !half->replied)
        cancelled(half->self);
    ch__rpc_unref(rpc);
}

void ch__half_transmit(struct ch_tcall *half, struct ch__frame *frame)
{
    struct ch__rpc *rpc = half->rpc;
    if (rpc->conn) {
        ch__conn_send(rpc->conn, !half->side, frame);
        return;
    }
    *rpc->queued_end = frame;
    rpc->queued_end = &frame->next;
}

void ch__half_send_status(struct ch_tcall *half, struct base_status status,
                          struct ch__pairs *trailers, bool not_seen)
{
    struct ch__frame *frame = ch__frame_new(CH__FRAME_STATUS, half->rpc);
    frame->status = status;
    frame->trailers = trailers;
    frame->not_seen = not_seen;
    ch__half_transmit(half, frame);
}

void ch__half_abort(struct ch_tcall *half, struct base_status status)
{
    if (half->over) {
        base_status_free(&status);
        return;
    }
    if (half->side == CH__SERVER)
        ch__half_send_status(half, base_status_copy(&status), NULL, false);
    else if (half->rpc->conn)
        ch__half_transmit(half, ch__frame_new(CH__FRAME_CANCEL, half->rpc));
    drop_inbox(half);
    ch__half_over(half, status);
}

static void deadline_passed(struct ch_timer *timer)
{
    struct ch_tcall *half = (struct ch_tcall *)((char *)timer - offsetof(struct ch_tcall, timer));
    ch__half_abort(half,
                   base_status_make(BASE_DEADLINE_EXCEEDED, "%s: deadline exceeded", half->peer));
}

void ch__half_deadline(struct ch_tcall *half, ch_time deadline)
{
    half->deadline = deadline;
    ch_timer_set(&half->timer, deadline, deadline_passed);
}

/* ---- sending and receiving ---- */

static struct base_status why_over(const struct ch_tcall *half)
{
    if (base_failed(half->status))
        return base_status_copy(&half->status);
    return base_status_make(BASE_CANCELLED, "%s: the call has ended", half->peer);
}

struct base_status ch__sim_send(struct ch_tcall *half, struct base_bytes message)
{
    while (!half->over && !ch_cancelled() && half->credit <= 0) {
        struct ch_wait_node node = { 0 };
        (void)ch_wait_on(&half->waiters, &node, CH_NEVER, false, "rpc send");
    }
    if (half->over)
        return why_over(half);
    if (ch_cancelled())
        return base_status_make(BASE_CANCELLED, "%s: send: cancelled", half->peer);
    half->credit -= (int64_t)message.len + CH__MESSAGE_OVERHEAD_BYTES;
    struct ch__frame *frame = ch__frame_new(CH__FRAME_MESSAGE, half->rpc);
    frame->data = malloc(message.len ? message.len : 1);
    BASE_ASSERT(frame->data != NULL);
    frame->len = message.len;
    if (message.len)
        memcpy(frame->data, message.data, message.len);
    ch__half_transmit(half, frame);
    return BASE_STATUS_OK;
}

struct base_status ch__sim_close_send(struct ch_tcall *half)
{
    BASE_ASSERT(half->side == CH__CLIENT);
    if (half->over)
        return why_over(half);
    ch__half_transmit(half, ch__frame_new(CH__FRAME_HALF_CLOSE, half->rpc));
    return BASE_STATUS_OK;
}

static struct base_status take_message(struct ch_tcall *half, struct base_buf *message)
{
    struct ch__frame *frame = half->inbox;
    half->inbox = frame->next;
    if (!half->inbox)
        half->inbox_end = &half->inbox;
    frame->next = NULL;
    size_t len = frame->len;
    if (len <= half->bytes_max)
        base_buf_put(message, frame->data, len);
    if (!half->over) {
        struct ch__frame *credit = ch__frame_new(CH__FRAME_CREDIT, half->rpc);
        credit->credit = (int64_t)len + CH__MESSAGE_OVERHEAD_BYTES;
        ch__half_transmit(half, credit);
    }
    ch__frame_free(frame);
    if (len <= half->bytes_max)
        return BASE_STATUS_OK;
    struct base_status status =
        base_status_make(BASE_RESOURCE_EXHAUSTED,
                         "receive: a message of %zu bytes, the limit is %zu", len, half->bytes_max);
    if (half->side == CH__CLIENT)
        ch__half_abort(half, base_status_copy(&status));
    return status;
}

struct base_status ch__sim_recv(struct ch_tcall *half, struct base_buf *message, bool *end)
{
    *end = false;
    while (!half->inbox && !half->in_ended && !half->over && !ch_cancelled()) {
        struct ch_wait_node node = { 0 };
        (void)ch_wait_on(&half->waiters, &node, CH_NEVER, false, "rpc receive");
    }
    if (ch_cancelled())
        return base_status_make(BASE_CANCELLED, "%s: receive: cancelled", half->peer);
    if (half->side == CH__SERVER && half->over)
        return why_over(half);
    if (half->inbox)
        return take_message(half, message);
    *end = true;
    return BASE_STATUS_OK;
}

void ch__sim_cancel(struct ch_tcall *half)
{
    ch__half_abort(half, base_status_make(BASE_CANCELLED, "%s: cancelled", half->peer));
}

struct ch_tfinish ch__sim_finish(struct ch_tcall *half)
{
    struct ch_tfinish finish = { .status = BASE_STATUS_OK };
    while (half->side == CH__CLIENT && !half->over && !ch_cancelled()) {
        struct ch_wait_node node = { 0 };
        (void)ch_wait_on(&half->waiters, &node, CH_NEVER, false, "rpc status");
    }
    if (half->side == CH__CLIENT && !half->over)
        ch__sim_cancel(half);
    if (base_failed(half->status))
        finish.status = base_status_copy(&half->status);
    finish.never_seen = half->never_seen;
    for (size_t i = 0; half->trailers && i < half->trailers->count; i++)
        ch__tfinish_trailer(&finish, base_bytes_str(half->trailers->pairs[i].key),
                            half->trailers->pairs[i].value);
    return finish;
}

void ch__sim_free(struct ch_tcall *half)
{
    BASE_ASSERT(half->held && !half->waiters.first);
    half->on_cancel = NULL;
    ch__sim_cancel(half);
    drop_inbox(half);
    half->held = false;
    ch__rpc_unref(half->rpc);
}

const char *ch__sim_path(const struct ch_tcall *half)
{
    return half->rpc->path;
}

const char *ch__sim_peer(const struct ch_tcall *half)
{
    return half->peer;
}

ch_time ch__sim_deadline(const struct ch_tcall *half)
{
    return half->deadline;
}

size_t ch__sim_metadata(const struct ch_tcall *half, const struct ch_metadata **pairs)
{
    const struct ch__pairs *all = half->side == CH__SERVER ? half->rpc->metadata : half->trailers;
    *pairs = all ? all->pairs : NULL;
    return all ? all->count : 0;
}

void ch__sim_on_cancel(struct ch_tcall *half, void (*cancelled)(void *self), void *self)
{
    if (half->over && !half->replied) {
        cancelled(self);
        return;
    }
    half->on_cancel = cancelled;
    half->self = self;
}

void ch__sim_reply(struct ch_tcall *half, const struct base_bytes *message,
                   const struct base_status *status, const struct ch_metadata *trailers,
                   size_t trailer_count)
{
    BASE_ASSERT(half->side == CH__SERVER && !half->replied);
    half->replied = true;
    if (half->over)
        return;
    if (message) { /* the last one: whatever the credit */
        struct ch__frame *frame = ch__frame_new(CH__FRAME_MESSAGE, half->rpc);
        frame->data = malloc(message->len ? message->len : 1);
        BASE_ASSERT(frame->data != NULL);
        frame->len = message->len;
        if (message->len)
            memcpy(frame->data, message->data, message->len);
        ch__half_transmit(half, frame);
    }
    ch__half_send_status(half, base_failed(*status) ? base_status_copy(status) : BASE_STATUS_OK,
                         ch__pairs_copy(trailers, trailer_count), false);
    ch__half_over(half, BASE_STATUS_OK);
}

/* ---- what arrives ---- */

static void take_status(struct ch_tcall *half, struct ch__frame *frame)
{
    if (half->over)
        return;
    half->never_seen = frame->not_seen;
    half->trailers = frame->trailers;
    frame->trailers = NULL;
    struct base_status status = frame->status;
    frame->status = BASE_STATUS_OK;
    ch__half_over(half, status);
}

void ch__rpc_deliver(struct ch__conn *conn, int side, struct ch__frame *frame)
{
    struct ch_tcall *half = &frame->rpc->half[side];
    if (frame->kind == CH__FRAME_OPEN) {
        ch__rpc_open(conn, frame->rpc);
    } else if (frame->kind == CH__FRAME_CANCEL) {
        ch__half_over(half,
                      base_status_make(BASE_CANCELLED, "%s: cancelled by the client", half->peer));
    } else if (frame->kind == CH__FRAME_STATUS) {
        take_status(half, frame);
    } else if (half->held && !half->over) {
        if (frame->kind == CH__FRAME_CREDIT)
            half->credit += frame->credit;
        else if (frame->kind == CH__FRAME_HALF_CLOSE)
            half->in_ended = true;
        wake(half);
        if (frame->kind == CH__FRAME_MESSAGE) {
            *half->inbox_end = frame;
            half->inbox_end = &frame->next;
            return;
        }
    }
    ch__frame_free(frame);
}

void ch__rpc_side_lost(struct ch__conn *conn, int side, const char *why)
{
    for (struct ch__rpc *rpc = conn->rpcs; rpc;) {
        struct ch_tcall *half = &rpc->half[side];
        if (!half->held || half->over) {
            rpc = rpc->next;
            continue;
        }
        ch__half_over(half, base_status_make(side == CH__CLIENT ? BASE_UNAVAILABLE : BASE_CANCELLED,
                                             "%s: %s", half->peer, why));
        rpc = conn->rpcs; /* callbacks may have ended others */
    }
}
