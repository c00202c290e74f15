/* state_save.c: blockmaster's state as a snapshot (message State), and back. Saving what was loaded
 * gives the same state. */
#include "state.h"

static BLK_PB(BlockState) * save_block(const struct blk__block *block, struct base_arena *arena)
{
    BLK_PB(BlockState) *out = BLK_NEW(arena, BlockState, block_state);
    out->block = block->id;
    out->epoch = block->epoch;
    out->length = block->length;
    out->sealed = block->sealed;
    out->n_replicas = block->replica_count;
    out->replicas = BASE_NEW_ARRAY(arena, BLK_PB(ReplicaState) *, block->replica_count);
    for (uint32_t i = 0; i < block->replica_count; i++) {
        out->replicas[i] = BLK_NEW(arena, ReplicaState, replica_state);
        out->replicas[i]->server = block->replicas[i].server;
        out->replicas[i]->generation = block->replicas[i].generation;
    }
    return out;
}

static BLK_PB(FileState) * save_file(const struct blk__file *file, struct base_arena *arena)
{
    BLK_PB(FileState) *out = BLK_NEW(arena, FileState, file_state);
    out->file = file->id;
    out->epoch = file->epoch;
    out->fence = file->fence;
    out->sealed = file->sealed;
    out->replicas = file->replicas;
    out->quorum = file->quorum;
    out->own_copies = file->own_copies;
    out->allocated = file->allocated;
    out->created_us = file->created_us;
    out->deleted_us = file->deleted_us;
    out->names = BASE_NEW_ARRAY(arena, ProtobufCBinaryData, file->name_count);
    const struct blk__name *name;
    TAILQ_FOREACH(name, &file->names, of_file)
    out->names[out->n_names++] = ch_data_of(base_bytes(name->path, name->len));
    out->blocks = BASE_NEW_ARRAY(arena, BLK_PB(BlockState) *, file->block_count);
    for (size_t i = 0; i < file->block_count; i++)
        out->blocks[out->n_blocks++] = save_block(file->blocks[i], arena);
    return out;
}

void blk__state_save(const struct blk__state *state, struct base_buf *buf)
{
    struct base_arena arena;
    base_arena_init(&arena);
    BLK_PB(State) *out = BLK_NEW(&arena, State, state);
    out->next_file = state->next_file;
    out->next_block = state->next_block;
    out->replicas = state->replicas;
    out->quorum = state->quorum;
    const struct blk__server *server;
    const struct blk__file *file;
    out->servers = BASE_NEW_ARRAY(&arena, BLK_PB(ServerState) *, HASH_COUNT(state->servers));
    for (server = state->servers; server; server = server->hh.next) {
        BLK_PB(ServerState) *s = BLK_NEW(&arena, ServerState, server_state);
        s->server = server->id;
        s->address = ch_data_str(server->address);
        s->machine = ch_data_str(server->machine);
        s->zone = ch_data_str(server->zone);
        out->servers[out->n_servers++] = s;
    }
    out->files = BASE_NEW_ARRAY(&arena, BLK_PB(FileState) *, HASH_COUNT(state->files));
    for (file = state->files; file; file = file->hh.next)
        out->files[out->n_files++] = save_file(file, &arena);
    ch_proto_encode(&out->base, buf);
    base_arena_free(&arena);
}

static bool load_block(struct blk__state *state, struct blk__file *file,
                       const BLK_PB(BlockState) * in)
{
    if (in->n_replicas > BLK_REPLICAS_MAX || blk__state_block(state, in->block) ||
        (in->sealed && file->sealed_count != file->block_count))
        return false;
    struct blk__block *block = blk__state_add_block(state, file, in->block);
    block->epoch = in->epoch;
    block->length = in->length;
    block->sealed = in->sealed;
    for (size_t i = 0; i < in->n_replicas; i++)
        block->replicas[block->replica_count++] =
            (struct blk__block_replica){ in->replicas[i]->server, in->replicas[i]->generation };
    if (block->sealed) {
        file->sealed_count++;
        file->length += block->length;
    }
    return true;
}

static bool load_file(struct blk__state *state, const BLK_PB(FileState) * in)
{
    if (blk__state_file(state, in->file))
        return false;
    struct blk__file *file = blk__state_add_file(state, in->file);
    file->epoch = in->epoch;
    file->fence = in->fence;
    file->sealed = in->sealed;
    file->replicas = in->replicas;
    file->quorum = in->quorum;
    file->own_copies = in->own_copies;
    file->allocated = in->allocated;
    file->created_us = in->created_us;
    file->deleted_us = in->deleted_us;
    for (size_t i = 0; i < in->n_names; i++) {
        if (blk__state_find_name(state, ch_bytes_of(in->names[i])))
            return false;
        blk__state_add_name(state, file, ch_bytes_of(in->names[i]));
    }
    for (size_t i = 0; i < in->n_blocks; i++)
        if (!load_block(state, file, in->blocks[i]))
            return false;
    return true;
}

struct base_status blk__state_load(struct blk__state *state, struct base_bytes bytes)
{
    struct base_arena arena;
    base_arena_init(&arena);
    ProtobufCMessage *message;
    blk__state_free(state);
    blk__state_init(state);
    struct base_status status =
        ch_proto_decode(&strata__blockstore__v1__state__descriptor, bytes, &arena, &message);
    if (!base_failed(status)) {
        const BLK_PB(State) *in = (const BLK_PB(State) *)message;
        state->next_file = in->next_file;
        state->next_block = in->next_block;
        state->replicas = in->replicas ? in->replicas : BLK_REPLICAS_WANTED;
        state->quorum = in->quorum ? in->quorum : BLK_QUORUM;
        for (size_t i = 0; i < in->n_servers; i++)
            blk__state_set_server(
                state, in->servers[i]->server, ch_bytes_of(in->servers[i]->address),
                ch_bytes_of(in->servers[i]->machine), ch_bytes_of(in->servers[i]->zone));
        bool good = true;
        for (size_t i = 0; i < in->n_files && good; i++)
            good = load_file(state, in->files[i]);
        if (!good)
            status = base_status_make(BASE_DATA_LOSS, "the snapshot contradicts itself");
    }
    base_arena_free(&arena);
    return status;
}
