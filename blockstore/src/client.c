/* client.c: the client library: names. Writing: writer*.c; reading: reader.c. */
#include "client_int.h"

#include <stdlib.h>

struct blk_client *blk_client_new(struct ch_env *env, const struct blk_client_options *options)
{
    struct blk_client *client = calloc(1, sizeof *client);
    struct base_arena arena;
    BASE_ASSERT(client);
    base_arena_init(&arena);
    const char *target = options->masters
                             ? options->masters
                             : base_arena_printf(&arena, "/%s/blockmaster", options->cell);
    client->env = env;
    client->master = ch_leader_new(env, target, options->naming);
    client->peers = blk__peers_new(env);
    client->switches = ch_counter(env, "blockstore_block_switches", "",
                                  "times a writer left a block because of a replica");
    client->read_failovers =
        ch_counter(env, "blockstore_read_failovers", "", "reads that went to another replica");
    client->append_ns =
        ch_histogram(env, "blockstore_append_ns", "", "time of an append, as its caller sees it");
    base_arena_free(&arena);
    return client;
}

void blk_client_free(struct blk_client *client)
{
    ch_leader_free(client->master);
    blk__peers_free(client->peers);
    free(client);
}

struct base_status blk__call_master(struct blk_client *client, const struct ch_method *method,
                                    const void *request, ch_time deadline, struct base_arena *arena,
                                    void **reply)
{
    struct ch_leader_options options = { .deadline = deadline };
    return ch_leader_call(client->master, method, request, &options, arena, reply);
}

static void stat_of(struct blk_stat *out, const BLK_PB(FileStat) * in, struct base_arena *arena)
{
    *out = (struct blk_stat){ .path = base_bytes_cstr(arena, ch_bytes_of(in->path)),
                              .length = in->length,
                              .epoch = in->epoch,
                              .sealed = in->sealed,
                              .blocks = in->blocks,
                              .replicas_wanted = in->replicas_wanted,
                              .replicas_least = in->replicas_least,
                              .created_us = in->created_us };
}

struct base_status blk_stat(struct blk_client *client, const char *path, ch_time deadline,
                            struct base_arena *arena, struct blk_stat *stat)
{
    BLK_PB(StatRequest) request;
    void *reply;
    strata__blockstore__v1__stat_request__init(&request);
    request.path = ch_data_str(path);
    struct base_status status =
        blk__call_master(client, BLK_MASTER(STAT), &request, deadline, arena, &reply);
    if (!base_failed(status))
        stat_of(stat, ((BLK_PB(StatReply) *)reply)->stat, arena);
    return status;
}

struct base_status blk_list(struct blk_client *client, const char *prefix, const char *after,
                            size_t limit, ch_time deadline, struct base_arena *arena,
                            struct blk_stat **stats, size_t *count)
{
    struct base_status status = BASE_STATUS_OK;
    size_t cap = 0;
    *stats = 0;
    *count = 0;
    while (*count < limit && !base_failed(status)) {
        BLK_PB(ListRequest) request;
        void *reply;
        size_t want = limit - *count < BLK_LIST_MAX ? limit - *count : BLK_LIST_MAX;
        strata__blockstore__v1__list_request__init(&request);
        request.prefix = ch_data_str(prefix);
        request.after = ch_data_str(*count ? (*stats)[*count - 1].path : after);
        request.limit = (uint32_t)want;
        status = blk__call_master(client, BLK_MASTER(LIST), &request, deadline, arena, &reply);
        if (base_failed(status))
            break;
        const BLK_PB(ListReply) *list = reply;
        if (*count + list->n_stats > cap) {
            cap = 2 * (*count + list->n_stats);
            struct blk_stat *more = BASE_NEW_ARRAY(arena, struct blk_stat, cap);
            if (*count)
                memcpy(more, *stats, *count * sizeof *more);
            *stats = more;
        }
        for (size_t i = 0; i < list->n_stats; i++)
            stat_of(&(*stats)[(*count)++], list->stats[i], arena);
        if (list->n_stats < want)
            break;
    }
    return status;
}

struct base_status blk_seal(struct blk_client *client, const char *path, uint64_t fence,
                            ch_time deadline, uint64_t *length)
{
    struct base_arena arena;
    BLK_PB(SealRequest) request;
    void *reply;
    base_arena_init(&arena);
    strata__blockstore__v1__seal_request__init(&request);
    request.path = ch_data_str(path);
    request.fence = fence;
    struct base_status status =
        blk__call_master(client, BLK_MASTER(SEAL), &request, deadline, &arena, &reply);
    if (!base_failed(status) && length)
        *length = ((BLK_PB(SealReply) *)reply)->length;
    base_arena_free(&arena);
    return status;
}

struct base_status blk_rename(struct blk_client *client, const char *from, const char *to,
                              bool replace, ch_time deadline)
{
    struct base_arena arena;
    BLK_PB(RenameRequest) request;
    void *reply;
    base_arena_init(&arena);
    strata__blockstore__v1__rename_request__init(&request);
    request.from = ch_data_str(from);
    request.to = ch_data_str(to);
    request.replace = replace;
    struct base_status status =
        blk__call_master(client, BLK_MASTER(RENAME), &request, deadline, &arena, &reply);
    base_arena_free(&arena);
    return status;
}

struct base_status blk_link(struct blk_client *client, const char *existing, const char *name,
                            ch_time deadline)
{
    struct base_arena arena;
    BLK_PB(LinkRequest) request;
    void *reply;
    base_arena_init(&arena);
    strata__blockstore__v1__link_request__init(&request);
    request.existing = ch_data_str(existing);
    request.name = ch_data_str(name);
    struct base_status status =
        blk__call_master(client, BLK_MASTER(LINK), &request, deadline, &arena, &reply);
    base_arena_free(&arena);
    return status;
}

struct base_status blk_delete(struct blk_client *client, const char *path, ch_time deadline)
{
    struct base_arena arena;
    BLK_PB(DeleteRequest) request;
    void *reply;
    base_arena_init(&arena);
    strata__blockstore__v1__delete_request__init(&request);
    request.path = ch_data_str(path);
    struct base_status status =
        blk__call_master(client, BLK_MASTER(DELETE), &request, deadline, &arena, &reply);
    base_arena_free(&arena);
    return status;
}
