/* blockserver.c: the RPC service BlockServer. Its parts: blockserver_append.c, _copy.c,
 * _heartbeat.c, _scrub.c; what it keeps: store.h. */
#include "blockserver.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/codec.h"
#include "blockserver_int.h"

static BLK_PB(ReplicaInfo) *
    info_message(struct blk__blockserver *self, struct base_arena *arena, uint64_t block)
{
    BLK_PB(ReplicaInfo) *out = BLK_NEW(arena, ReplicaInfo, replica_info);
    struct blk__replica_info info;
    out->block = block;
    out->exists = blk__store_info(self->store, block, &info);
    out->doubtful = !out->exists && blk__store_doubts(self->store, block);
    if (!out->exists)
        return out;
    out->epoch = info.epoch;
    out->start = info.start;
    out->length = info.length;
    out->committed = info.committed;
    out->fenced = info.fenced;
    out->sealed = info.sealed;
    out->doubtful = info.doubtful;
    out->generation = info.generation;
    return out;
}

static struct base_status serve_get(void *ptr, struct ch_call *call, const void *message,
                                    void **reply) BASE_MUST_CHECK;
static struct base_status serve_get(void *ptr, struct ch_call *call, const void *message,
                                    void **reply)
{
    struct blk__blockserver *self = ptr;
    const BLK_PB(GetReplicasRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    if (blk__store_failed(self->store))
        return base_status_make(BASE_UNAVAILABLE, "the disk has failed");
    BLK_PB(GetReplicasReply) *out = BLK_NEW(arena, GetReplicasReply, get_replicas_reply);
    out->replicas = BASE_NEW_ARRAY(arena, BLK_PB(ReplicaInfo) *, request->n_blocks);
    for (size_t i = 0; i < request->n_blocks; i++)
        out->replicas[out->n_replicas++] = info_message(self, arena, request->blocks[i]);
    *reply = out;
    return BASE_STATUS_OK;
}

static struct base_status serve_fence(void *ptr, struct ch_call *call, const void *message,
                                      void **reply) CH_WAITS BASE_MUST_CHECK;
static struct base_status serve_fence(void *ptr, struct ch_call *call, const void *message,
                                      void **reply)
{
    struct blk__blockserver *self = ptr;
    const BLK_PB(FenceRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    BLK_PB(FenceReply) *out = BLK_NEW(arena, FenceReply, fence_reply);
    struct base_status status = BASE_STATUS_OK;
    if (request->epoch == 0 || request->n_blocks > BLK_TAIL_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "fence of %zu blocks with epoch %" PRIu64,
                                request->n_blocks, request->epoch);
    out->replicas = BASE_NEW_ARRAY(arena, BLK_PB(ReplicaInfo) *, request->n_blocks);
    for (size_t i = 0; i < request->n_blocks && !base_failed(status); i++) {
        struct blk__replica_info info;
        status = blk__store_fence(self->store, request->blocks[i], request->epoch,
                                  ch_call_deadline(call), &info);
        if (!base_failed(status))
            out->replicas[out->n_replicas++] = info_message(self, arena, request->blocks[i]);
    }
    *reply = out;
    return status;
}

static struct base_status serve_read(void *ptr, struct ch_call *call, const void *message,
                                     void **reply) CH_WAITS BASE_MUST_CHECK;
static struct base_status serve_read(void *ptr, struct ch_call *call, const void *message,
                                     void **reply)
{
    struct blk__blockserver *self = ptr;
    const BLK_PB(ReadRequest) *request = message;
    if (request->length == 0 || request->length > BLK_MESSAGE_BYTES)
        return base_status_make(BASE_INVALID_ARGUMENT, "a read of %u bytes", request->length);
    BLK_PB(ReadReply) *out = BLK_NEW(ch_call_arena(call), ReadReply, read_reply);
    uint8_t *data = base_arena_alloc(ch_call_arena(call), request->length);
    struct base_status status =
        blk__store_read(self->store, request->block, request->offset, request->length, data);
    if (base_failed(status)) {
        if (status.code == BASE_DATA_LOSS)
            blk__heartbeat_soon(self);
        return status;
    }
    out->data = ch_data_of(base_bytes(data, request->length));
    out->crc = base_crc32c(0, data, request->length);
    *reply = out;
    return BASE_STATUS_OK;
}

/* ---- opening ---- */

/* The id chosen at the first start of this data directory. */
static struct base_status server_id(struct ch_env *env, const char *dir,
                                    uint64_t *id) CH_WAITS BASE_MUST_CHECK;
static struct base_status server_id(struct ch_env *env, const char *dir, uint64_t *id)
{
    char path[512], text[40];
    struct base_buf known = { 0 };
    snprintf(path, sizeof path, "%s/server-id", dir);
    struct base_status status = ch_file_read_all(env, path, 64, &known);
    if (status.code == BASE_NOT_FOUND) {
        base_status_free(&status);
        do
            *id = ch_random(env) >> 1;
        while (*id == 0);
        snprintf(text, sizeof text, "%" PRIu64 "\n", *id);
        status = ch_file_write_all(env, path, base_bytes_str(text));
    } else if (!base_failed(status)) {
        base_buf_put_u8(&known, 0);
        *id = strtoull((char *)known.data, 0, 10);
        if (*id == 0)
            status = base_status_make(BASE_DATA_LOSS, "%s holds no id", path);
    }
    base_buf_free(&known);
    return status;
}

static void copy_options(struct blk__blockserver *self,
                         const struct blk__blockserver_options *options)
{
    self->options = *options;
    self->options.masters = base_arena_strdup(&self->arena, options->masters);
    self->options.machine =
        base_arena_strdup(&self->arena, options->machine ? options->machine : "");
    self->options.zone = base_arena_strdup(&self->arena, options->zone ? options->zone : "");
    if (self->options.copy_bytes_per_s == 0)
        self->options.copy_bytes_per_s = 64 << 20;
}

struct base_status blk__blockserver_open(struct ch_env *env,
                                         const struct blk__blockserver_options *options,
                                         struct ch_server *server, struct blk__blockserver **out)
{
    struct blk__blockserver *self = calloc(1, sizeof *self);
    BASE_ASSERT(self);
    self->env = env;
    self->server = server;
    self->report_all = true;
    copy_options(self, options);
    ch_cond_init(&self->heartbeat_soon);
    struct base_status status = ch_dir_make(env, options->store.dir);
    if (!base_failed(status))
        status = server_id(env, options->store.dir, &self->id);
    if (!base_failed(status))
        status = blk__store_open(env, &self->options.store, &self->store);
    if (base_failed(status)) {
        base_arena_free(&self->arena);
        free(self);
        return status;
    }
    self->peers = blk__peers_new(env);
    self->master = ch_leader_new(env, self->options.masters, options->naming);
    ch_gate_init(&self->gate, env, "blockserver");
    ch_server_add_service(server, &strata__blockstore__v1__block_server__service);
    ch_server_handle_stream(server, BLK_SERVER(APPEND), blk__serve_append, self);
    ch_server_handle(server, BLK_SERVER(READ), serve_read, self);
    ch_server_handle(server, BLK_SERVER(GET_REPLICAS), serve_get, self);
    ch_server_handle(server, BLK_SERVER(FENCE), serve_fence, self);
    ch_server_handle(server, BLK_SERVER(FILL), blk__serve_fill, self);
    ch_server_handle(server, BLK_SERVER(COPY), blk__serve_copy, self);
    *out = self;
    return BASE_STATUS_OK;
}

struct base_status blk__blockserver_serve(struct blk__blockserver *self)
{
    struct base_status status = ch_gate_spawn(&self->gate, "heartbeat", blk__heartbeat_main, self);
    if (!base_failed(status) && self->options.scrub_bytes_per_s)
        status = ch_gate_spawn(&self->gate, "scrub", blk__scrub_main, self);
    return status;
}

void blk__blockserver_close(struct blk__blockserver *self)
{
    ch_gate_stop(&self->gate);
    ch_leader_free(self->master);
    blk__peers_free(self->peers);
    blk__store_close(self->store);
    base_arena_free(&self->arena);
    free(self);
}
