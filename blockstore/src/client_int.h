/* client_int.h: what the parts of the client library share. */
#ifndef BLK_CLIENT_INT_H
#define BLK_CLIENT_INT_H

#include "blk_int.h"
#include "blockstore/blockstore.h"
#include "chassis/leader.h"
#include "chassis/log.h"
#include "chassis/metrics.h"
#include "peers.h"

struct blk_client {
    struct ch_env *env;
    struct ch_leader *master;
    struct blk__peers *peers;
    struct ch_counter *switches, *read_failovers;
    struct ch_histogram *append_ns;
};

/* One call to the master. `reply` in `arena`. */
struct base_status blk__call_master(struct blk_client *client, const struct ch_method *method,
                                    const void *request, ch_time deadline, struct base_arena *arena,
                                    void **reply) CH_WAITS BASE_MUST_CHECK;

#endif
