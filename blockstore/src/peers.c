/* peers.c: one rpc client a server address. Addresses are few (the cell's servers, and what they
 * were called before a restart), so none is dropped before the end. */
#include "peers.h"

#include <stdlib.h>
#include <uthash.h>

#include "base/codec.h"
#include "blk_int.h"

struct peer {
    char *address;
    size_t len;
    struct ch_client *client;
    UT_hash_handle hh;
};
struct blk__peers {
    struct ch_env *env;
    struct peer *table;
};

struct blk__peers *blk__peers_new(struct ch_env *env)
{
    struct blk__peers *peers = calloc(1, sizeof *peers);
    BASE_ASSERT(peers);
    peers->env = env;
    return peers;
}

void blk__peers_free(struct blk__peers *peers)
{
    struct peer *peer, *next;
    HASH_ITER(hh, peers->table, peer, next)
    {
        HASH_DEL(peers->table, peer);
        ch_client_free(peer->client);
        free(peer->address);
        free(peer);
    }
    free(peers);
}

struct ch_client *blk__peer(struct blk__peers *peers, struct base_bytes address)
{
    struct peer *peer;
    HASH_FIND(hh, peers->table, address.data, address.len, peer);
    if (peer)
        return peer->client;
    peer = calloc(1, sizeof *peer);
    BASE_ASSERT(peer);
    peer->address = malloc(address.len + 1);
    BASE_ASSERT(peer->address);
    memcpy(peer->address, address.data, address.len);
    peer->address[address.len] = 0;
    peer->len = address.len;
    peer->client =
        ch_client_new(peers->env, peer->address, &(struct ch_client_options){ .no_retry = true });
    HASH_ADD_KEYPTR(hh, peers->table, peer->address, peer->len, peer);
    return peer->client;
}

struct base_status blk__peer_read(struct ch_client *peer, uint64_t block, uint64_t offset,
                                  size_t len, ch_time deadline, struct base_arena *arena,
                                  struct base_bytes *data)
{
    BLK_PB(ReadRequest) request;
    strata__blockstore__v1__read_request__init(&request);
    request.block = block;
    request.offset = offset;
    request.length = (uint32_t)len;
    struct ch_call_options options = { .deadline = deadline };
    void *reply;
    struct base_status status =
        ch_client_call(peer, BLK_SERVER(READ), &request, &options, arena, &reply);
    if (base_failed(status))
        return status;
    const BLK_PB(ReadReply) *read = reply;
    *data = ch_bytes_of(read->data);
    if (data->len != len || base_crc32c(0, data->data, data->len) != read->crc)
        return base_status_make(BASE_DATA_LOSS,
                                "block %llu at %llu: the reply was damaged on its way",
                                (unsigned long long)block, (unsigned long long)offset);
    return BASE_STATUS_OK;
}

struct base_status blk__peers_read(struct blk__peers *peers, const struct base_bytes *sources,
                                   size_t source_count, uint64_t block, uint64_t offset, size_t len,
                                   ch_time deadline, struct base_arena *arena,
                                   struct base_bytes *data)
{
    struct base_status status =
        base_status_make(BASE_UNAVAILABLE, "no source for block %llu", (unsigned long long)block);
    for (size_t i = 0; i < source_count && base_failed(status); i++) {
        base_status_free(&status);
        ch_time share =
            ch_now(peers->env) + (deadline - ch_now(peers->env)) / (ch_time)(source_count - i);
        status =
            blk__peer_read(blk__peer(peers, sources[i]), block, offset, len, share, arena, data);
    }
    return status;
}
