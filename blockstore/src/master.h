/* master.h: the RPC service BlockMaster over a replicated log. */
#ifndef BLK_MASTER_H
#define BLK_MASTER_H

#include "chassis/naming.h"
#include "chassis/rpc_server.h"
#include "consensus/node.h"

struct blk__master;
struct blk__master_options {
    const char *dir; /* of the log */
    uint64_t block_bytes;
    ch_time dead_after;   /* a blockserver not heard of for so long is dead */
    ch_time trash_keep;   /* a deleted file's blocks are kept so long */
    ch_time repair_every; /* between sweeps */
    uint32_t copies_max;  /* running at once */
    bool one_machine;     /* one copy of each block until there is a second machine */
    uint64_t snapshot_bytes_min;
    /* The group; node NULL: this master alone, for good. As in consensus/log.h. */
    struct con_node *node; /* outlives the master */
    const char *self;
    const char *const *peers;
    size_t peer_count;
    bool found;
    const char *founder_dir; /* not NULL: is to know once the group is there (founding.h) */
};
struct base_status blk__master_open(struct ch_env *env, const struct blk__master_options *options,
                                    struct ch_server *server,
                                    struct blk__master **out) CH_WAITS BASE_MUST_CHECK;
/* Hands leadership over while the others can still be heard. */
void blk__master_retire(struct blk__master *master) CH_WAITS;
void blk__master_close(struct blk__master *master) CH_WAITS;

#endif
