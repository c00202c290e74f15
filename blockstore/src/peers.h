/* peers.h: one rpc client a server address, made when first needed, kept until the end. */
#ifndef BLK_PEERS_H
#define BLK_PEERS_H

#include "chassis/rpc_client.h"

struct blk__peers;
struct blk__peers *blk__peers_new(struct ch_env *env);
void blk__peers_free(struct blk__peers *peers) CH_WAITS;
struct ch_client *blk__peer(struct blk__peers *peers, struct base_bytes address);

/* Reads verified bytes of a block from the first of `sources` that gives them, at most
 * BLK_MESSAGE_BYTES, into `arena`. */
struct base_status blk__peers_read(struct blk__peers *peers, const struct base_bytes *sources,
                                   size_t source_count, uint64_t block, uint64_t offset, size_t len,
                                   ch_time deadline, struct base_arena *arena,
                                   struct base_bytes *data) CH_WAITS BASE_MUST_CHECK;
/* From one. DATA_LOSS when the bytes were damaged, there or on the way. */
struct base_status blk__peer_read(struct ch_client *peer, uint64_t block, uint64_t offset,
                                  size_t len, ch_time deadline, struct base_arena *arena,
                                  struct base_bytes *data) CH_WAITS BASE_MUST_CHECK;

#endif
