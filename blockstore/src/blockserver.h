/* blockserver.h: the RPC service BlockServer over a store, and its heartbeats to the master. */
#ifndef BLK_BLOCKSERVER_H
#define BLK_BLOCKSERVER_H

#include "chassis/naming.h"
#include "chassis/rpc_server.h"
#include "store.h"

struct blk__blockserver;
struct blk__blockserver_options {
    struct blk__store_options store;
    struct ch_naming *naming; /* borrowed; NULL: `masters` are addresses */
    const char *masters;      /* target of the master */
    const char *machine;      /* "": the host of the address */
    const char *zone;
    ch_time heartbeat;
    uint64_t copy_bytes_per_s;  /* of repair, pulled by this server */
    uint64_t scrub_bytes_per_s; /* 0: no scrubbing */
};
/* Opens the store and registers the handlers. */
struct base_status blk__blockserver_open(struct ch_env *env,
                                         const struct blk__blockserver_options *options,
                                         struct ch_server *server,
                                         struct blk__blockserver **out) CH_WAITS BASE_MUST_CHECK;
/* Once the server listens: begins to send heartbeats. */
struct base_status blk__blockserver_serve(struct blk__blockserver *self) CH_WAITS BASE_MUST_CHECK;
void blk__blockserver_close(struct blk__blockserver *self) CH_WAITS;

#endif
