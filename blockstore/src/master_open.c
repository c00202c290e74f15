/* master_open.c: opening a file for append, and what its writer asks: another block, ended blocks,
 * the end of the file. */
#include <inttypes.h>

#include "master_int.h"

static struct base_status take(struct blk__master *master, struct base_bytes path,
                               const BLK_PB(TakeFile) * in, ch_time deadline,
                               struct base_arena *arena,
                               BLK_PB(Result) * *result) CH_WAITS BASE_MUST_CHECK;
static struct base_status take(struct blk__master *master, struct base_bytes path,
                               const BLK_PB(TakeFile) * in, ch_time deadline,
                               struct base_arena *arena, BLK_PB(Result) * *result)
{
    struct base_status status = blk__path_check(path);
    if (base_failed(status))
        return status;
    BLK_PB(Command) *command = BLK_NEW(arena, Command, command);
    command->change_case = STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_TAKE;
    command->take = BLK_NEW(arena, TakeFile, take_file);
    *command->take = *in;
    command->take->path = ch_data_of(path);
    return blk__master_propose(master, command, deadline, arena, result);
}

static struct base_status check_counts(const BLK_PB(OpenAppendRequest) * request) BASE_MUST_CHECK;
static struct base_status check_counts(const BLK_PB(OpenAppendRequest) * request)
{
    if (!request->replicas && !request->quorum)
        return BASE_STATUS_OK; /* the cell's */
    uint32_t replicas = request->replicas ? request->replicas : BLK_REPLICAS_WANTED;
    uint32_t quorum = request->quorum ? request->quorum : BLK_QUORUM;
    if (replicas > BLK_REPLICAS_MAX || quorum > replicas)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "%u replicas with a quorum of %u (at most %d)", replicas, quorum,
                                BLK_REPLICAS_MAX);
    return BASE_STATUS_OK;
}

struct base_status blk__serve_open_append(void *self, struct ch_call *call, const void *message,
                                          void **reply)
{
    struct blk__master *master = self;
    const BLK_PB(OpenAppendRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    ch_time deadline = blk__master_deadline(master, call);
    BLK_PB(TakeFile) in;
    BLK_PB(Result) * result;
    strata__blockstore__v1__take_file__init(&in);
    in.create = request->create;
    in.exclusive = request->create && request->exclusive;
    in.fence = request->fence;
    in.replicas = request->replicas;
    in.quorum = request->quorum;
    struct base_status status = check_counts(request);
    if (!base_failed(status))
        status = take(master, ch_bytes_of(request->path), &in, deadline, arena, &result);
    if (base_failed(status))
        return status;
    BLK_PB(OpenAppendReply) *out = BLK_NEW(arena, OpenAppendReply, open_append_reply);
    out->file = result->file;
    out->epoch = result->epoch;
    out->block_bytes = master->options.block_bytes;
    status =
        blk__master_recover(master, result->file, result->epoch, false, deadline, &out->length);
    const struct blk__file *file = blk__state_file(&master->state, result->file);
    if (file)
        out->replicas = file->replicas;
    *reply = out;
    return base_status_wrap(status, "open \"%.*s\"", BASE_FMT(ch_bytes_of(request->path)));
}

struct base_status blk__serve_seal(void *self, struct ch_call *call, const void *message,
                                   void **reply)
{
    struct blk__master *master = self;
    const BLK_PB(SealRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    ch_time deadline = blk__master_deadline(master, call);
    BLK_PB(TakeFile) in;
    BLK_PB(Result) * result;
    strata__blockstore__v1__take_file__init(&in);
    in.to_seal = true;
    in.fence = request->fence;
    struct base_status status =
        take(master, ch_bytes_of(request->path), &in, deadline, arena, &result);
    if (base_failed(status))
        return status;
    BLK_PB(SealReply) *out = BLK_NEW(arena, SealReply, seal_reply);
    out->length = result->length;
    if (!result->sealed)
        status =
            blk__master_recover(master, result->file, result->epoch, true, deadline, &out->length);
    *reply = out;
    return base_status_wrap(status, "seal \"%.*s\"", BASE_FMT(ch_bytes_of(request->path)));
}

/* ---- the writer's calls ---- */

/* 0: not in the list; else the greater the nearer to its front. */
static uint32_t rank_in(const uint64_t *ids, size_t count, uint64_t id)
{
    for (size_t i = 0; i < count; i++)
        if (ids[i] == id)
            return (uint32_t)(count - i);
    return 0;
}

struct blk__candidate *blk__master_candidates(struct blk__master *master,
                                              const struct blk__block *block, const uint64_t *avoid,
                                              size_t avoid_count, struct base_arena *arena,
                                              size_t *count)
{
    struct blk__candidate *out =
        BASE_NEW_ARRAY(arena, struct blk__candidate, HASH_COUNT(master->state.servers));
    ch_time now = ch_now(master->env);
    *count = 0;
    for (struct blk__server *s = master->state.servers; s; s = s->hh.next) {
        const struct blk__heard *heard = blk__soft_find(&master->soft, s->id);
        struct blk__candidate *c = &out[(*count)++];
        *c = (struct blk__candidate){ .server = s->id, .machine = s->machine, .zone = s->zone };
        c->usable = blk__soft_health(&master->soft, s->id, now) == BLK_LIVE &&
                    heard->bytes_free > 2 * (block ? block->length : BLK_MESSAGE_BYTES);
        /* A leader that has just begun has not heard of everybody: writers do not wait for that,
         * and find out by themselves who does not answer. */
        if (!block && blk__soft_health(&master->soft, s->id, now) == BLK_UNHEARD)
            c->usable = true;
        c->bytes_free = heard ? heard->bytes_free : 0;
        c->bytes_total = heard ? heard->bytes_total : 0;
        c->load = heard ? heard->streams : 0;
        c->avoid = rank_in(avoid, avoid_count, s->id);
    }
    return out;
}

static void copy_ends(BLK_PB(ExtendFile) * out, const BLK_PB(ExtendRequest) * request,
                      struct base_arena *arena)
{
    out->ends = BASE_NEW_ARRAY(arena, BLK_PB(EndedBlock) *, request->n_ends);
    for (size_t i = 0; i < request->n_ends; i++) {
        out->ends[i] = BLK_NEW(arena, EndedBlock, ended_block);
        out->ends[i]->block = request->ends[i]->block;
        out->ends[i]->length = request->ends[i]->length;
    }
    out->n_ends = request->n_ends;
}

struct base_status blk__serve_extend(void *self, struct ch_call *call, const void *message,
                                     void **reply)
{
    struct blk__master *master = self;
    const BLK_PB(ExtendRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    struct base_status status = BASE_STATUS_OK;
    if (!blk__state_file(&master->state, request->file)) /* or it does not know of it yet */
        status = blk__master_barrier(master, blk__master_deadline(master, call));
    const struct blk__file *file = blk__state_file(&master->state, request->file);
    if (!base_failed(status) && !file)
        status = base_status_make(BASE_NOT_FOUND, "no file %" PRIu64, request->file);
    if (!base_failed(status) && master->term == 0)
        status = blk__master_not_leader(master);
    if (base_failed(status))
        return status;
    BLK_PB(Command) *command = BLK_NEW(arena, Command, command);
    BLK_PB(ExtendFile) *extend = BLK_NEW(arena, ExtendFile, extend_file);
    BLK_PB(Result) * result;
    command->change_case = STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_EXTEND;
    command->extend = extend;
    extend->file = request->file;
    extend->epoch = request->epoch;
    extend->want_block = request->want_block;
    extend->allocated = request->allocated;
    extend->seal_file = request->seal_file;
    copy_ends(extend, request, arena);
    if (request->want_block) {
        size_t count;
        struct blk__candidate *candidates =
            blk__master_candidates(master, 0, request->avoid, request->n_avoid, arena, &count);
        extend->servers = BASE_NEW_ARRAY(arena, uint64_t, file->replicas);
        extend->n_servers = blk__placement_choose(candidates, count, file->replicas, file->quorum,
                                                  ch_random(master->env), extend->servers);
    }
    status =
        blk__master_propose(master, command, blk__master_deadline(master, call), arena, &result);
    if (base_failed(status))
        return status;
    BLK_PB(ExtendReply) *out = BLK_NEW(arena, ExtendReply, extend_reply);
    file = blk__state_file(&master->state, request->file);
    for (size_t i = 0; file && request->want_block && i < file->block_count; i++)
        if (file->blocks[i]->id == result->block)
            out->block = blk__master_block(master, arena, file, i);
    if (request->want_block && !out->block)
        return base_status_make(BASE_FAILED_PRECONDITION, "file %" PRIu64 " changed meanwhile",
                                request->file);
    *reply = out;
    return BASE_STATUS_OK;
}
