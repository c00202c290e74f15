/* master_recover.c: ending the blocks of a file whose writer is gone, so that every acknowledged
 * byte is in the file and no other writer can add one.
 *
 * Happy path (the epoch is taken already, so the master refuses the old writer):
 * 1. Fence every replica of every unsealed block, side by side. Of a block with n replicas and
 *    quorum q, n-q+1 must have answered: then no append of the old writer can be acknowledged any
 *    more, and one of those that answered has every byte that was.
 * 2. blk__recovery_plan: where the file ends, and how much of each block that makes.
 * 3. Bring more of those that answered up to that length, until q (or all that answered) have it.
 * 4. SealTail through the log, under the epoch: the first to get there decides; one of an older
 *    epoch changes nothing.
 * Failure: too few answer: UNAVAILABLE; the fences stay, and the next open goes on from there. */
#include <inttypes.h>
#include <stdlib.h>

#include "master_int.h"
#include "recovery.h"

enum { GRACE_MS = 20, FILL_MS = 8000 };

struct tail_replica {
    uint64_t server;
    char *address;
    bool answered;
    uint64_t start, length;
};
struct tail {
    uint64_t block;
    size_t count, quorum, answered;
    struct tail_replica replicas[BLK_REPLICAS_MAX];
};
struct fence_call { /* to one server, for all its blocks */
    struct recover *recover;
    uint64_t server;
    char *address;
};
struct recover {
    struct blk__master *master;
    struct base_arena arena;
    uint64_t file, epoch;
    ch_time deadline;
    struct tail tails[BLK_TAIL_MAX];
    size_t tail_count;
    struct fence_call calls[BLK_TAIL_MAX * BLK_REPLICAS_MAX];
    size_t call_count, calls_over;
    bool superseded;
    struct ch_cond changed;
};

/* ---- what there is ---- */

static void add_call(struct recover *r, uint64_t server, char *address)
{
    for (size_t i = 0; i < r->call_count; i++)
        if (r->calls[i].server == server)
            return;
    r->calls[r->call_count++] = (struct fence_call){ r, server, address };
}

static struct base_status read_tail(struct recover *r, uint64_t *start,
                                    uint64_t *length) BASE_MUST_CHECK;
static struct base_status read_tail(struct recover *r, uint64_t *start, uint64_t *length)
{
    const struct blk__file *file = blk__state_file(&r->master->state, r->file);
    if (!file)
        return base_status_make(BASE_NOT_FOUND, "file %" PRIu64 " was deleted", r->file);
    if (file->epoch != r->epoch)
        return base_status_make(BASE_FAILED_PRECONDITION, "file %" PRIu64 " was opened by another",
                                r->file);
    *start = *length = file->length;
    for (size_t i = file->sealed_count; i < file->block_count; i++) {
        struct tail *t = &r->tails[r->tail_count++];
        const struct blk__block *block = file->blocks[i];
        t->block = block->id;
        t->count = block->replica_count;
        t->quorum = file->quorum < t->count ? file->quorum : t->count;
        for (size_t k = 0; k < t->count; k++) {
            const struct blk__server *s =
                blk__state_server(&r->master->state, block->replicas[k].server);
            t->replicas[k].server = block->replicas[k].server;
            t->replicas[k].address = base_arena_strdup(&r->arena, s ? s->address : "");
            if (s)
                add_call(r, s->id, t->replicas[k].address);
        }
    }
    return BASE_STATUS_OK;
}

/* ---- 1: fencing ---- */

static void take_answer(struct recover *r, uint64_t server, const BLK_PB(ReplicaInfo) * info)
{
    for (size_t i = 0; i < r->tail_count; i++) {
        struct tail *t = &r->tails[i];
        for (size_t k = 0; t->block == info->block && k < t->count; k++) {
            if (t->replicas[k].server != server || info->doubtful || !info->fenced)
                continue;
            t->replicas[k].answered = true;
            t->replicas[k].start = info->start;
            t->replicas[k].length = info->length;
            t->answered++;
        }
    }
}

static void fence_one(void *arg)
{
    CH_FIBER_ENTRY();
    struct fence_call *call = arg;
    struct recover *r = call->recover;
    struct base_arena arena;
    base_arena_init(&arena);
    BLK_PB(FenceRequest) *request = BLK_NEW(&arena, FenceRequest, fence_request);
    request->epoch = r->epoch;
    request->blocks = BASE_NEW_ARRAY(&arena, uint64_t, r->tail_count);
    for (size_t i = 0; i < r->tail_count; i++)
        for (size_t k = 0; k < r->tails[i].count; k++)
            if (r->tails[i].replicas[k].server == call->server)
                request->blocks[request->n_blocks++] = r->tails[i].block;
    struct ch_call_options options = { .deadline = r->deadline, .wait_for_ready = true };
    void *reply;
    struct base_status status =
        ch_client_call(blk__peer(r->master->peers, base_bytes_str(call->address)),
                       BLK_SERVER(FENCE), request, &options, &arena, &reply);
    if (!base_failed(status)) {
        const BLK_PB(FenceReply) *fence = reply;
        for (size_t i = 0; i < fence->n_replicas; i++)
            take_answer(r, call->server, fence->replicas[i]);
    } else {
        r->superseded = r->superseded || status.code == BASE_FAILED_PRECONDITION;
        if (!ch_cancelled())
            ch_info(r->master->env, "fence at %s: %s", call->address, base_status_text(&status));
        base_status_free(&status);
    }
    base_arena_free(&arena);
    r->calls_over++;
    ch_cond_broadcast(&r->changed);
}

static const struct tail *too_few(const struct recover *r)
{
    for (size_t i = 0; i < r->tail_count; i++)
        if (r->tails[i].answered < r->tails[i].count - r->tails[i].quorum + 1)
            return &r->tails[i];
    return 0;
}

static struct base_status fence_all(struct recover *r) CH_WAITS BASE_MUST_CHECK;
static struct base_status fence_all(struct recover *r)
{
    struct ch_gate gate;
    struct base_status status = BASE_STATUS_OK;
    ch_gate_init(&gate, r->master->env, "fence");
    for (size_t i = 0; i < r->call_count && !base_failed(status); i++)
        status = ch_gate_spawn_inherit(&gate, "fence", fence_one, &r->calls[i]);
    ch_time until = r->deadline;
    while (!base_failed(status) && r->calls_over < r->call_count) {
        if (!too_few(r) &&
            until == r->deadline) /* the rest gets a moment: more answers, less to fill */
            until = ch_in(r->master->env, GRACE_MS * CH_MS);
        enum ch_outcome outcome =
            ch_cond_wait(&r->changed, until < r->deadline ? until : r->deadline);
        if (outcome == CH_TIMEOUT)
            break;
        if (outcome != CH_OK)
            status = ch_outcome_status(outcome, "fence");
    }
    ch_gate_stop(&gate);
    const struct tail *few = too_few(r);
    if (!base_failed(status) && r->superseded)
        status = base_status_make(BASE_FAILED_PRECONDITION,
                                  "file %" PRIu64 " was opened by another", r->file);
    if (!base_failed(status) && few)
        status = base_status_make(
            BASE_UNAVAILABLE, "block %" PRIu64 ": %zu of its %zu servers answer, %zu are needed",
            few->block, few->answered, few->count, few->count - few->quorum + 1);
    return status;
}

/* ---- 2: the plan ---- */

static struct base_status plan(struct recover *r, uint64_t start,
                               struct blk__tail_block *blocks) BASE_MUST_CHECK;
static struct base_status plan(struct recover *r, uint64_t start, struct blk__tail_block *blocks)
{
    for (size_t i = 0; i < r->tail_count; i++) {
        struct tail *t = &r->tails[i];
        blocks[i] = (struct blk__tail_block){ .has_start = i == 0, .start = start };
        for (size_t k = 0; k < t->count; k++) {
            struct tail_replica *replica = &t->replicas[k];
            ch_debug(r->master->env,
                     "file %" PRIu64 " epoch %" PRIu64 ": block %" PRIu64 " at %s: %s, %" PRIu64
                     " bytes from %" PRIu64,
                     r->file, r->epoch, t->block, replica->address,
                     replica->answered ? "fenced" : "no answer", replica->length, replica->start);
            if (!replica->answered || replica->length == 0)
                continue;
            if (blocks[i].has_start && replica->start != blocks[i].start)
                return base_status_make(BASE_INTERNAL,
                                        "block %" PRIu64 " begins at %" PRIu64 " and at %" PRIu64,
                                        t->block, blocks[i].start, replica->start);
            blocks[i].has_start = true;
            blocks[i].start = replica->start;
            blocks[i].most = replica->length > blocks[i].most ? replica->length : blocks[i].most;
        }
    }
    if (!blk__recovery_plan(blocks, r->tail_count))
        return base_status_make(BASE_INTERNAL, "the last blocks of file %" PRIu64 " do not join",
                                r->file);
    return BASE_STATUS_OK;
}

/* ---- 3: filling ---- */

static struct base_status fill_one(struct recover *r, struct tail *t, size_t to,
                                   const struct blk__tail_block *planned) CH_WAITS BASE_MUST_CHECK;
static struct base_status fill_one(struct recover *r, struct tail *t, size_t to,
                                   const struct blk__tail_block *planned)
{
    struct base_arena arena;
    base_arena_init(&arena);
    BLK_PB(FillRequest) *request = BLK_NEW(&arena, FillRequest, fill_request);
    request->block = t->block;
    request->epoch = r->epoch;
    request->start = planned->start;
    request->length = planned->length;
    request->sources = BASE_NEW_ARRAY(&arena, ProtobufCBinaryData, t->count);
    for (size_t k = 0; k < t->count; k++)
        if (t->replicas[k].answered && t->replicas[k].length >= planned->length)
            request->sources[request->n_sources++] = ch_data_str(t->replicas[k].address);
    struct ch_call_options options = { .deadline = ch_in(r->master->env, FILL_MS * CH_MS) };
    if (options.deadline > r->deadline)
        options.deadline = r->deadline;
    void *reply;
    struct base_status status =
        ch_client_call(blk__peer(r->master->peers, base_bytes_str(t->replicas[to].address)),
                       BLK_SERVER(FILL), request, &options, &arena, &reply);
    if (!base_failed(status))
        t->replicas[to].length = planned->length;
    base_arena_free(&arena);
    return base_status_wrap(status, "fill block %" PRIu64 " at %s", t->block,
                            t->replicas[to].address);
}

static struct base_status fill(struct recover *r, struct tail *t,
                               const struct blk__tail_block *planned) CH_WAITS BASE_MUST_CHECK;
static struct base_status fill(struct recover *r, struct tail *t,
                               const struct blk__tail_block *planned)
{
    size_t have = 0, want = t->quorum < t->answered ? t->quorum : t->answered;
    struct base_status last = BASE_STATUS_OK;
    for (size_t k = 0; k < t->count; k++)
        have += t->replicas[k].answered && t->replicas[k].length >= planned->length;
    for (size_t k = 0; k < t->count && have < want; k++) {
        if (!t->replicas[k].answered || t->replicas[k].length >= planned->length)
            continue;
        base_status_free(&last);
        last = fill_one(r, t, k, planned);
        have += !base_failed(last);
    }
    if (have >= want)
        base_status_free(&last);
    return last;
}

/* ---- 4: the decision ---- */

static struct base_status seal_tail(struct recover *r, const struct blk__tail_block *blocks,
                                    bool seal_file, uint64_t *length) CH_WAITS BASE_MUST_CHECK;
static struct base_status seal_tail(struct recover *r, const struct blk__tail_block *blocks,
                                    bool seal_file, uint64_t *length)
{
    BLK_PB(Command) *command = BLK_NEW(&r->arena, Command, command);
    BLK_PB(SealTail) *seal = BLK_NEW(&r->arena, SealTail, seal_tail);
    BLK_PB(Result) * result;
    command->change_case = STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_SEAL_TAIL;
    command->seal_tail = seal;
    seal->file = r->file;
    seal->epoch = r->epoch;
    seal->seal_file = seal_file;
    seal->ends = BASE_NEW_ARRAY(&r->arena, BLK_PB(EndedBlock) *, r->tail_count);
    for (size_t i = 0; i < r->tail_count; i++) {
        seal->ends[i] = BLK_NEW(&r->arena, EndedBlock, ended_block);
        seal->ends[i]->block = r->tails[i].block;
        seal->ends[i]->length = blocks[i].length;
    }
    seal->n_ends = r->tail_count;
    struct base_status status =
        blk__master_propose(r->master, command, r->deadline, &r->arena, &result);
    if (!base_failed(status))
        *length = result->length;
    return status;
}

struct base_status blk__master_recover(struct blk__master *master, uint64_t file, uint64_t epoch,
                                       bool seal_file, ch_time deadline, uint64_t *length)
{
    struct recover *r = calloc(1, sizeof *r);
    BASE_ASSERT(r);
    r->master = master;
    r->file = file;
    r->epoch = epoch;
    r->deadline = deadline;
    ch_cond_init(&r->changed);
    struct blk__tail_block blocks[BLK_TAIL_MAX];
    uint64_t start = 0;
    struct base_status status = read_tail(r, &start, length);
    if (!base_failed(status) && (r->tail_count > 0 || seal_file)) {
        status = fence_all(r);
        if (!base_failed(status))
            status = plan(r, start, blocks);
        for (size_t i = 0; i < r->tail_count && !base_failed(status); i++)
            if (blocks[i].length > 0)
                status = fill(r, &r->tails[i], &blocks[i]);
        if (!base_failed(status))
            status = seal_tail(r, blocks, seal_file, length);
        if (!base_failed(status))
            blk__master_sweep_soon(master);
    }
    base_arena_free(&r->arena);
    free(r);
    return status;
}
