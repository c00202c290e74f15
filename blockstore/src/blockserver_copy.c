/* blockserver_copy.c: pulling bytes from other servers: to bring a fenced replica up to what a
 * recovery decided (Fill), and to make a new replica of a sealed block (Copy). Copies are paced:
 * they yield to what clients wait for. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/codec.h"
#include "blockserver_int.h"

enum { PIECE_MS_MAX = 10000 };

static struct base_bytes *sources_of(struct base_arena *arena, ProtobufCBinaryData *in,
                                     size_t count)
{
    struct base_bytes *sources = BASE_NEW_ARRAY(arena, struct base_bytes, count);
    for (size_t i = 0; i < count; i++)
        sources[i] = ch_bytes_of(in[i]);
    return sources;
}

static ch_time piece_deadline(struct blk__blockserver *self, struct ch_call *call)
{
    ch_time most = ch_in(self->env, PIECE_MS_MAX * CH_MS), call_deadline = ch_call_deadline(call);
    return call_deadline < most ? call_deadline : most;
}

struct filled {
    struct ch_done done;
    bool ok;
};

static void on_filled(void *arg, uint64_t end)
{
    struct filled *f = arg;
    f->ok = end > 0;
    ch_done_set(&f->done);
}

static struct base_status fill_piece(struct blk__blockserver *self, struct ch_call *call,
                                     const BLK_PB(FillRequest) * fill,
                                     const struct blk__replica_info *info,
                                     const struct base_bytes *sources,
                                     struct base_arena *arena) CH_WAITS BASE_MUST_CHECK;
static struct base_status fill_piece(struct blk__blockserver *self, struct ch_call *call,
                                     const BLK_PB(FillRequest) * fill,
                                     const struct blk__replica_info *info,
                                     const struct base_bytes *sources, struct base_arena *arena)
{
    struct base_bytes data;
    size_t len = fill->length - info->length < BLK_MESSAGE_BYTES ? fill->length - info->length
                                                                 : BLK_MESSAGE_BYTES;
    ch_time deadline = piece_deadline(self, call);
    struct base_status status = blk__peers_read(self->peers, sources, fill->n_sources, fill->block,
                                                info->length, len, deadline, arena, &data);
    if (!base_failed(status))
        status = blk__store_room(self->store, len, deadline);
    if (base_failed(status))
        return status;
    struct filled filled = { .ok = false };
    ch_done_init(&filled.done);
    struct blk__append_args args = { .block = fill->block,
                                     .epoch = fill->epoch,
                                     .start = fill->start,
                                     .offset = info->length,
                                     .data = data,
                                     .crc = base_crc32c(0, data.data, data.len),
                                     .fill = true };
    status = blk__store_append(self->store, &args, on_filled, &filled);
    if (base_failed(status))
        return status;
    ch_done_wait_always(&filled.done);
    return filled.ok ? BASE_STATUS_OK : base_status_make(BASE_UNAVAILABLE, "the disk has failed");
}

struct base_status blk__serve_fill(void *ptr, struct ch_call *call, const void *request,
                                   void **reply)
{
    struct blk__blockserver *self = ptr;
    const BLK_PB(FillRequest) *fill = request;
    struct base_arena *arena = ch_call_arena(call), piece;
    struct base_bytes *sources = sources_of(arena, fill->sources, fill->n_sources);
    struct base_status status = BASE_STATUS_OK;
    struct blk__replica_info info;
    base_arena_init(&piece);
    while (!base_failed(status)) {
        base_arena_reset(&piece);
        if (!blk__store_info(self->store, fill->block, &info))
            status = base_status_make(BASE_NOT_FOUND, "block %" PRIu64 " is not here", fill->block);
        else if (info.length >= fill->length)
            break;
        else
            status = fill_piece(self, call, fill, &info, sources, &piece);
        if (status.code == BASE_OUT_OF_RANGE &&
            !ch_cancelled()) { /* another recovery fills it too: look again */
            base_status_free(&status);
            ch_yield();
        }
    }
    base_arena_free(&piece);
    *reply = BLK_NEW(arena, FillReply, fill_reply);
    return status;
}

/* Waits until this server may pull so many bytes more. */
static void pace(struct blk__blockserver *self, size_t bytes) CH_WAITS;
static void pace(struct blk__blockserver *self, size_t bytes)
{
    ch_time now = ch_now(self->env), at = self->copy_free_at > now ? self->copy_free_at : now;
    self->copy_free_at =
        at + (ch_time)((double)bytes / (double)self->options.copy_bytes_per_s * 1e9);
    if (at > now)
        (void)ch_sleep_until(self->env, at); /* cancelled: the next wait says so */
}

static struct base_status copy_pieces(struct blk__blockserver *self, struct ch_call *call,
                                      const BLK_PB(CopyRequest) * request,
                                      struct blk__copy *copy) CH_WAITS BASE_MUST_CHECK;
static struct base_status copy_pieces(struct blk__blockserver *self, struct ch_call *call,
                                      const BLK_PB(CopyRequest) * request, struct blk__copy *copy)
{
    struct base_arena piece;
    struct base_status status = BASE_STATUS_OK;
    struct base_bytes *sources =
        sources_of(ch_call_arena(call), request->sources, request->n_sources);
    base_arena_init(&piece);
    for (uint64_t at = 0; at < request->length && !base_failed(status);) {
        struct base_bytes data;
        size_t len =
            request->length - at < BLK_MESSAGE_BYTES ? request->length - at : BLK_MESSAGE_BYTES;
        base_arena_reset(&piece);
        pace(self, len);
        status = blk__peers_read(self->peers, sources, request->n_sources, request->block, at, len,
                                 piece_deadline(self, call), &piece, &data);
        if (!base_failed(status))
            status = blk__copy_put(copy, data);
        at += len;
    }
    base_arena_free(&piece);
    return status;
}

struct base_status blk__serve_copy(void *ptr, struct ch_call *call, const void *message,
                                   void **reply)
{
    struct blk__blockserver *self = ptr;
    const BLK_PB(CopyRequest) *request = message;
    struct blk__replica_info info;
    *reply = BLK_NEW(ch_call_arena(call), CopyReply, copy_reply);
    if (request->length == 0 || request->generation == 0)
        return base_status_make(BASE_INVALID_ARGUMENT, "a copy of %s",
                                request->length ? "generation 0" : "length 0");
    if (blk__store_info(self->store, request->block, &info) &&
        info.generation == request->generation)
        return BASE_STATUS_OK; /* asked twice */
    struct blk__copy *copy;
    struct base_status status =
        blk__copy_begin(self->store, request->block, request->epoch, request->start,
                        request->length, request->generation, &copy);
    if (base_failed(status))
        return status;
    status = copy_pieces(self, call, request, copy);
    if (base_failed(status))
        blk__copy_abandon(copy);
    else
        status = blk__copy_end(copy);
    blk__heartbeat_soon(self);
    return status;
}
