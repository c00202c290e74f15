/* state_apply.c: the commands of blockmaster's log.
 *
 * Invariants:
 * 1. A file's epoch only grows; Extend and SealTail of an older epoch change nothing.
 * 2. A block is sealed once, in the file's order, and its length never changes; a block ended with
 * length 0 is no part of the file any more. What a file's offset holds below its sealed length
 * never changes.
 * 3. A command is checked whole before it changes anything; repeating Extend gives the same answer
 * and no second block.
 * 4. A sealed block always has a replica. Ids are never used again.
 * 5. The quorum of an unsealed block, min(its file's quorum, its replicas), never changes: the
 * cell's copies only grow once there is a block, from 1 of 1 or 2 of 2 to at most 2 of 3
 * (docs/adr/0008). */
#include "base/codec.h"
#include "state.h"

typedef Strata__Blockstore__V1__Result result_t;

static struct base_status not_found(struct base_bytes path)
{
    return base_status_make(BASE_NOT_FOUND, "no file \"%.*s\"", BASE_FMT(path));
}

/* ---- taking a file's next epoch ---- */

static struct base_status take_check(const struct blk__file *file, const BLK_PB(TakeFile) * take,
                                     struct base_bytes path) BASE_MUST_CHECK;
static struct base_status take_check(const struct blk__file *file, const BLK_PB(TakeFile) * take,
                                     struct base_bytes path)
{
    if (!file && !take->create)
        return not_found(path);
    if (file && take->exclusive)
        return base_status_make(BASE_ALREADY_EXISTS, "file \"%.*s\" exists", BASE_FMT(path));
    if (file && take->fence && take->fence < file->fence)
        return base_status_make(
            BASE_FAILED_PRECONDITION, "file \"%.*s\" was opened with fence %llu, after %llu",
            BASE_FMT(path), (unsigned long long)file->fence, (unsigned long long)take->fence);
    if (file && file->sealed && !take->to_seal)
        return base_status_make(BASE_FAILED_PRECONDITION, "file \"%.*s\" is sealed",
                                BASE_FMT(path));
    return BASE_STATUS_OK;
}

static struct base_status apply_take(struct blk__state *state, int64_t now_us,
                                     const BLK_PB(TakeFile) * take,
                                     result_t *result) BASE_MUST_CHECK;
static struct base_status apply_take(struct blk__state *state, int64_t now_us,
                                     const BLK_PB(TakeFile) * take, result_t *result)
{
    struct base_bytes path = ch_bytes_of(take->path);
    struct blk__file *file = blk__state_path(state, path);
    struct base_status status = take_check(file, take, path);
    if (base_failed(status))
        return status;
    if (!file) {
        file = blk__state_add_file(state, state->next_file++);
        file->own_copies = take->replicas || take->quorum;
        file->replicas = take->replicas ? take->replicas : state->replicas;
        file->quorum = take->quorum ? take->quorum : take->replicas ? BLK_QUORUM : state->quorum;
        file->created_us = now_us;
        blk__state_add_name(state, file, path);
    }
    if (take->fence > file->fence)
        file->fence = take->fence;
    if (!file->sealed) {
        file->epoch++;
        file->allocated = 0;
    }
    result->file = file->id;
    result->epoch = file->epoch;
    result->sealed = file->sealed;
    result->length = file->length;
    return BASE_STATUS_OK;
}

/* ---- ending and adding blocks ---- */

static struct base_status find_writer(struct blk__state *state, uint64_t id, uint64_t epoch,
                                      struct blk__file **file) BASE_MUST_CHECK;
static struct base_status find_writer(struct blk__state *state, uint64_t id, uint64_t epoch,
                                      struct blk__file **file)
{
    *file = blk__state_file(state, id);
    if (!*file)
        return base_status_make(BASE_NOT_FOUND, "no file %llu", (unsigned long long)id);
    if ((*file)->epoch != epoch)
        return base_status_make(
            BASE_FAILED_PRECONDITION, "file %llu: epoch %llu is not the present one, %llu",
            (unsigned long long)id, (unsigned long long)epoch, (unsigned long long)(*file)->epoch);
    return BASE_STATUS_OK;
}

static bool ended_too(BLK_PB(EndedBlock) * *ends, size_t count, uint64_t block)
{
    for (size_t i = 0; i < count; i++)
        if (ends[i]->block == block)
            return true;
    return false;
}

static struct base_status check_end(const struct blk__file *file, const struct blk__block *block,
                                    BLK_PB(EndedBlock) * *ends, size_t count,
                                    uint64_t length) BASE_MUST_CHECK;
static struct base_status check_end(const struct blk__file *file, const struct blk__block *block,
                                    BLK_PB(EndedBlock) * *ends, size_t count, uint64_t length)
{
    unsigned long long id = block->id;
    if (block->file != file)
        return base_status_make(BASE_FAILED_PRECONDITION, "block %llu is no part of file %llu", id,
                                (unsigned long long)file->id);
    if (block->sealed && block->length != length)
        return base_status_make(BASE_FAILED_PRECONDITION,
                                "block %llu is sealed at %llu, not at %llu", id,
                                (unsigned long long)block->length, (unsigned long long)length);
    if (block->sealed || length == 0)
        return BASE_STATUS_OK;
    for (size_t i = file->sealed_count; file->blocks[i] != block; i++)
        if (!ended_too(ends, count, file->blocks[i]->id))
            return base_status_make(BASE_FAILED_PRECONDITION,
                                    "block %llu is not the next to end in file %llu", id,
                                    (unsigned long long)file->id);
    return BASE_STATUS_OK;
}

/* How many of the file's unsealed blocks the ends cover. A block that keeps bytes ends after all
 * before it; one that keeps none may go at any time. Ends of blocks that are sealed or gone already
 * are repetitions: they must say the same. */
static struct base_status check_ends(const struct blk__state *state, const struct blk__file *file,
                                     BLK_PB(EndedBlock) * *ends, size_t count,
                                     size_t *covered) BASE_MUST_CHECK;
static struct base_status check_ends(const struct blk__state *state, const struct blk__file *file,
                                     BLK_PB(EndedBlock) * *ends, size_t count, size_t *covered)
{
    *covered = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned long long id = ends[i]->block;
        const struct blk__block *block = blk__state_block(state, id);
        if (!block && (ends[i]->length > 0 || id >= state->next_block))
            return base_status_make(BASE_FAILED_PRECONDITION, "block %llu is no part of file %llu",
                                    id, (unsigned long long)file->id);
        if (ended_too(ends, i, id))
            return base_status_make(BASE_INVALID_ARGUMENT, "block %llu ends twice", id);
        struct base_status status =
            block ? check_end(file, block, ends, i, ends[i]->length) : BASE_STATUS_OK;
        if (base_failed(status))
            return status;
        *covered += block && !block->sealed;
    }
    return BASE_STATUS_OK;
}

static void end_blocks(struct blk__state *state, struct blk__file *file, BLK_PB(EndedBlock) * *ends,
                       size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct blk__block *block = blk__state_block(state, ends[i]->block);
        if (!block || block->sealed)
            continue;
        if (ends[i]->length == 0) {
            blk__state_drop_block(state, block);
            continue;
        }
        BASE_ASSERT(file->blocks[file->sealed_count] == block);
        block->sealed = true;
        block->length = ends[i]->length;
        file->length += block->length;
        file->sealed_count++;
    }
}

static struct base_status check_new_block(const struct blk__file *file, size_t unsealed,
                                          const BLK_PB(ExtendFile) * extend) BASE_MUST_CHECK;
static struct base_status check_new_block(const struct blk__file *file, size_t unsealed,
                                          const BLK_PB(ExtendFile) * extend)
{
    if (extend->allocated == file->allocated) {
        if (unsealed >= BLK_TAIL_MAX)
            return base_status_make(BASE_RESOURCE_EXHAUSTED, "file %llu has %zu unsealed blocks",
                                    (unsigned long long)file->id, unsealed);
        if (extend->n_servers < file->quorum || extend->n_servers > file->replicas ||
            extend->n_servers > BLK_REPLICAS_MAX)
            return base_status_make(BASE_UNAVAILABLE,
                                    "%zu servers for a block that is to have %u to %u",
                                    extend->n_servers, file->quorum, file->replicas);
        return BASE_STATUS_OK;
    }
    if (extend->allocated + 1 != file->allocated || unsealed == 0)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "file %llu: its writer was given %u blocks, not %u",
                                (unsigned long long)file->id, file->allocated, extend->allocated);
    return BASE_STATUS_OK;
}

static uint64_t new_block(struct blk__state *state, struct blk__file *file,
                          const BLK_PB(ExtendFile) * extend)
{
    if (extend->allocated != file->allocated)
        return file->blocks[file->block_count - 1]->id;
    struct blk__block *block = blk__state_add_block(state, file, state->next_block++);
    block->epoch = file->epoch;
    for (size_t i = 0; i < extend->n_servers; i++)
        block->replicas[block->replica_count++] =
            (struct blk__block_replica){ extend->servers[i], 0 };
    file->allocated++;
    return block->id;
}

static struct base_status apply_extend(struct blk__state *state, const BLK_PB(ExtendFile) * extend,
                                       result_t *result) BASE_MUST_CHECK;
static struct base_status apply_extend(struct blk__state *state, const BLK_PB(ExtendFile) * extend,
                                       result_t *result)
{
    struct blk__file *file;
    size_t covered;
    struct base_status status = find_writer(state, extend->file, extend->epoch, &file);
    if (!base_failed(status))
        status = check_ends(state, file, extend->ends, extend->n_ends, &covered);
    if (base_failed(status))
        return status;
    size_t unsealed = file->block_count - file->sealed_count - covered;
    if (file->sealed && (extend->want_block || !extend->seal_file))
        return base_status_make(BASE_FAILED_PRECONDITION, "file %llu is sealed",
                                (unsigned long long)file->id);
    if (extend->seal_file && (unsealed > 0 || extend->want_block))
        return base_status_make(BASE_FAILED_PRECONDITION,
                                "file %llu has %zu blocks that have not ended",
                                (unsigned long long)file->id, unsealed);
    if (extend->want_block) {
        status = check_new_block(file, unsealed, extend);
        if (base_failed(status))
            return status;
    }
    end_blocks(state, file, extend->ends, extend->n_ends);
    if (extend->want_block)
        result->block = new_block(state, file, extend);
    if (extend->seal_file)
        file->sealed = true;
    result->file = file->id;
    result->length = file->length;
    result->sealed = file->sealed;
    return BASE_STATUS_OK;
}

static struct base_status apply_seal_tail(struct blk__state *state, const BLK_PB(SealTail) * seal,
                                          result_t *result) BASE_MUST_CHECK;
static struct base_status apply_seal_tail(struct blk__state *state, const BLK_PB(SealTail) * seal,
                                          result_t *result)
{
    struct blk__file *file;
    size_t covered;
    struct base_status status = find_writer(state, seal->file, seal->epoch, &file);
    if (!base_failed(status))
        status = check_ends(state, file, seal->ends, seal->n_ends, &covered);
    if (base_failed(status))
        return status;
    if (file->sealed_count + covered != file->block_count)
        return base_status_make(BASE_FAILED_PRECONDITION, "file %llu has more unsealed blocks",
                                (unsigned long long)file->id);
    end_blocks(state, file, seal->ends, seal->n_ends);
    if (seal->seal_file)
        file->sealed = true;
    result->file = file->id;
    result->length = file->length;
    result->sealed = file->sealed;
    return BASE_STATUS_OK;
}

/* ---- names ---- */

static void unname(struct blk__state *state, struct blk__name *name, int64_t now_us)
{
    struct blk__file *file = name->file;
    blk__state_drop_name(state, name);
    if (file->name_count == 0)
        file->deleted_us = now_us;
}

static struct base_status apply_rename(struct blk__state *state, int64_t now_us,
                                       const BLK_PB(RenameFile) * rename) BASE_MUST_CHECK;
static struct base_status apply_rename(struct blk__state *state, int64_t now_us,
                                       const BLK_PB(RenameFile) * rename)
{
    struct base_bytes from = ch_bytes_of(rename->from), to = ch_bytes_of(rename->to);
    struct blk__name *old = blk__state_find_name(state, from),
                     *there = blk__state_find_name(state, to);
    if (!old)
        return not_found(from);
    if (old == there)
        return BASE_STATUS_OK;
    if (there && !rename->replace)
        return base_status_make(BASE_ALREADY_EXISTS, "file \"%.*s\" exists", BASE_FMT(to));
    if (there)
        unname(state, there, now_us);
    struct blk__file *file = old->file;
    blk__state_add_name(state, file, to);
    blk__state_drop_name(state, old);
    return BASE_STATUS_OK;
}

static struct base_status apply_link(struct blk__state *state,
                                     const BLK_PB(LinkFile) * link) BASE_MUST_CHECK;
static struct base_status apply_link(struct blk__state *state, const BLK_PB(LinkFile) * link)
{
    struct base_bytes existing = ch_bytes_of(link->existing), name = ch_bytes_of(link->name);
    struct blk__file *file = blk__state_path(state, existing);
    if (!file)
        return not_found(existing);
    if (!file->sealed)
        return base_status_make(BASE_FAILED_PRECONDITION, "file \"%.*s\" is not sealed",
                                BASE_FMT(existing));
    if (blk__state_find_name(state, name))
        return base_status_make(BASE_ALREADY_EXISTS, "file \"%.*s\" exists", BASE_FMT(name));
    blk__state_add_name(state, file, name);
    return BASE_STATUS_OK;
}

static struct base_status apply_delete(struct blk__state *state, int64_t now_us,
                                       const BLK_PB(DeleteFile) * del) BASE_MUST_CHECK;
static struct base_status apply_delete(struct blk__state *state, int64_t now_us,
                                       const BLK_PB(DeleteFile) * del)
{
    struct blk__name *name = blk__state_find_name(state, ch_bytes_of(del->path));
    if (!name)
        return not_found(ch_bytes_of(del->path));
    unname(state, name, now_us);
    return BASE_STATUS_OK;
}

static struct base_status apply_purge(struct blk__state *state, const BLK_PB(PurgeFiles) * purge,
                                      result_t *result) BASE_MUST_CHECK;
static struct base_status apply_purge(struct blk__state *state, const BLK_PB(PurgeFiles) * purge,
                                      result_t *result)
{
    struct blk__file *file, *next;
    HASH_ITER(hh, state->files, file, next)
    {
        if (file->name_count == 0 && file->deleted_us <= purge->before_us) {
            blk__state_drop_file(state, file);
            result->count++;
        }
    }
    return BASE_STATUS_OK;
}

/* ---- replicas ---- */

static struct base_status apply_replicas(struct blk__state *state,
                                         const BLK_PB(ChangeReplicas) * change) BASE_MUST_CHECK;
static struct base_status apply_replicas(struct blk__state *state,
                                         const BLK_PB(ChangeReplicas) * change)
{
    struct blk__block *block = blk__state_block(state, change->block);
    unsigned long long id = change->block;
    if (!block)
        return base_status_make(BASE_NOT_FOUND, "no block %llu", id);
    if (!block->sealed)
        return base_status_make(BASE_FAILED_PRECONDITION, "block %llu is not sealed", id);
    int at = change->add_server ? blk__replica_of(block, change->add_server) : -1;
    if (change->add_server && at < 0 && block->replica_count == BLK_REPLICAS_MAX)
        return base_status_make(BASE_RESOURCE_EXHAUSTED, "block %llu has %d replicas", id,
                                BLK_REPLICAS_MAX);
    if (change->add_server) {
        at = at < 0 ? (int)block->replica_count++ : at;
        block->replicas[at] =
            (struct blk__block_replica){ change->add_server, change->add_generation };
    }
    at = change->remove_server ? blk__replica_of(block, change->remove_server) : -1;
    if (at >= 0 && block->replica_count == 1)
        return base_status_make(BASE_FAILED_PRECONDITION, "block %llu would have no replica", id);
    if (at >= 0) {
        block->replica_count--;
        memmove(&block->replicas[at], &block->replicas[at + 1],
                (block->replica_count - (size_t)at) * sizeof block->replicas[0]);
    }
    return BASE_STATUS_OK;
}

static struct base_status apply_set_copies(struct blk__state *state,
                                           const BLK_PB(SetCopies) * set) BASE_MUST_CHECK;
static struct base_status apply_set_copies(struct blk__state *state, const BLK_PB(SetCopies) * set)
{
    if (set->replicas == 0 || set->replicas > BLK_REPLICAS_WANTED ||
        set->quorum != set->replicas / 2 + 1)
        return base_status_make(BASE_INVALID_ARGUMENT, "%u copies with a quorum of %u",
                                set->replicas, set->quorum);
    if (set->replicas < state->replicas && state->next_block > 1)
        return base_status_make(BASE_FAILED_PRECONDITION,
                                "%u copies a block: there are blocks with %u", set->replicas,
                                state->replicas);
    state->replicas = set->replicas;
    state->quorum = set->quorum;
    for (struct blk__file *file = state->files; file; file = file->hh.next) {
        if (file->own_copies)
            continue;
        file->replicas = set->replicas;
        file->quorum = set->quorum;
    }
    return BASE_STATUS_OK;
}

/* ---- the door ---- */

static struct base_status apply_command(struct blk__state *state, const BLK_PB(Command) * c,
                                        result_t *result) BASE_MUST_CHECK;
static struct base_status apply_command(struct blk__state *state, const BLK_PB(Command) * c,
                                        result_t *result)
{
    switch (c->change_case) {
    case STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_TAKE:
        return apply_take(state, c->now_us, c->take, result);
    case STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_EXTEND:
        return apply_extend(state, c->extend, result);
    case STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_SEAL_TAIL:
        return apply_seal_tail(state, c->seal_tail, result);
    case STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_RENAME:
        return apply_rename(state, c->now_us, c->rename);
    case STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_LINK:
        return apply_link(state, c->link);
    case STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_DELETE:
        return apply_delete(state, c->now_us, c->delete_);
    case STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_PURGE:
        return apply_purge(state, c->purge, result);
    case STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_CHANGE_REPLICAS:
        return apply_replicas(state, c->change_replicas);
    case STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_SET_COPIES:
        return apply_set_copies(state, c->set_copies);
    case STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_SET_SERVER:
        blk__state_set_server(state, c->set_server->server, ch_bytes_of(c->set_server->address),
                              ch_bytes_of(c->set_server->machine),
                              ch_bytes_of(c->set_server->zone));
        return BASE_STATUS_OK;
    default:
        return base_status_make(BASE_UNIMPLEMENTED, "a command of an unknown kind");
    }
}

void blk__state_apply(struct blk__state *state, struct base_bytes command, struct base_buf *reply)
{
    struct base_arena arena;
    base_arena_init(&arena);
    ProtobufCMessage *message;
    result_t result;
    strata__blockstore__v1__result__init(&result);
    struct base_status status =
        ch_proto_decode(&strata__blockstore__v1__command__descriptor, command, &arena, &message);
    if (!base_failed(status))
        status = apply_command(state, (const BLK_PB(Command) *)message, &result);
    result.code = status.code;
    if (base_failed(status))
        result.text = ch_data_str(base_arena_strdup(&arena, base_status_text(&status)));
    base_status_free(&status);
    ch_proto_encode(&result.base, reply);
    base_arena_free(&arena);
}
