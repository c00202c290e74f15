/* blockserver_append.c: one writer's appends to one block: a stream of them in, durable lengths
 * out.
 *
 * Invariants:
 * 1. Appends are handed to the store in the order they come; each answer tells a length all of
 * which is durable here.
 * 2. The call ends only when every append it handed over is done: their callbacks point into it.
 * Happy path: a receiver fiber takes messages and hands them over; this fiber sends the newest
 * durable length, so answers of appends that shared a sync are one message. Failure: the first
 * refused append ends the call with its status. */
#include "base/codec.h"
#include "blockserver_int.h"

enum { LOOK_MS = 500 }; /* how often an idle stream looks whether the server stops */

struct stream {
    struct blk__blockserver *self;
    struct ch_call *call;
    struct ch_cond changed;
    uint64_t block, epoch;
    uint64_t durable, told;
    size_t outstanding;
    bool begun, greeted; /* the first message has come; has been answered */
    bool ended, disk_failed;
    struct base_status status;
};

static void on_durable(void *arg, uint64_t end)
{
    struct stream *s = arg;
    s->outstanding--;
    if (end == 0)
        s->disk_failed = true;
    else
        s->durable = end;
    ch_cond_broadcast(&s->changed);
}

static struct base_status take(struct stream *s,
                               const BLK_PB(AppendRequest) * m) CH_WAITS BASE_MUST_CHECK;
static struct base_status take(struct stream *s, const BLK_PB(AppendRequest) * m)
{
    if (s->block == 0 && m->block == 0)
        return base_status_make(BASE_INVALID_ARGUMENT, "the first message names no block");
    if (m->block) {
        s->block = m->block;
        s->epoch = m->epoch;
        s->begun = true;
        ch_cond_broadcast(&s->changed);
    }
    if (m->committed)
        blk__store_committed(s->self->store, s->block, s->epoch, m->committed);
    if (m->data.len == 0)
        return BASE_STATUS_OK;
    struct base_status status = blk__store_room(s->self->store, m->data.len, CH_NEVER);
    if (base_failed(status))
        return status;
    struct blk__append_args args = { .block = s->block,
                                     .epoch = s->epoch,
                                     .start = m->start,
                                     .offset = m->offset,
                                     .data = ch_bytes_of(m->data),
                                     .crc = m->crc };
    s->outstanding++;
    status = blk__store_append(s->self->store, &args, on_durable, s);
    if (base_failed(status))
        s->outstanding--;
    return status;
}

static void receive(void *arg)
{
    CH_FIBER_ENTRY();
    struct stream *s = arg;
    struct base_arena arena;
    base_arena_init(&arena);
    struct base_status status = BASE_STATUS_OK;
    while (!base_failed(status)) {
        void *message;
        base_arena_reset(&arena);
        status = ch_call_recv(s->call, &arena, &message);
        if (base_failed(status) || !message)
            break;
        status = take(s, message);
    }
    base_arena_free(&arena);
    s->status = status;
    s->ended = true;
    ch_cond_broadcast(&s->changed);
}

static struct base_status tell(struct stream *s) CH_WAITS BASE_MUST_CHECK;
static struct base_status tell(struct stream *s)
{
    BLK_PB(AppendReply) reply;
    strata__blockstore__v1__append_reply__init(&reply);
    reply.length = s->told = s->durable;
    s->greeted = true;
    return ch_call_send(s->call, &reply);
}

struct base_status blk__serve_append(void *self, struct ch_call *call)
{
    struct stream s = { .self = self, .call = call };
    struct ch_gate gate;
    ch_cond_init(&s.changed);
    ch_gate_init(&gate, s.self->env, "append receiver");
    struct base_status status = ch_gate_spawn_inherit(&gate, "append receiver", receive, &s);
    if (base_failed(status))
        return status;
    s.self->streams++;
    while (!base_failed(status) && !(s.ended && s.outstanding == 0 && s.told == s.durable)) {
        if (s.told != s.durable || (s.begun && !s.greeted)) {
            status = tell(&s);
            continue;
        }
        if (s.disk_failed)
            status = base_status_make(BASE_UNAVAILABLE, "the disk has failed");
        else if (ch_server_stopping(s.self->server))
            status = base_status_make(BASE_UNAVAILABLE, "the server stops");
        else if (ch_cond_wait(&s.changed, ch_in(s.self->env, LOOK_MS * CH_MS)) == CH_CANCELLED)
            status = base_status_make(BASE_CANCELLED, "the writer is gone");
    }
    ch_gate_stop(&gate);
    while (s.outstanding > 0)
        ch_cond_wait_always(&s.changed);
    s.self->streams--;
    if (!base_failed(status))
        return s.status;
    base_status_free(&s.status);
    return status;
}
