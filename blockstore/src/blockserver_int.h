/* blockserver_int.h: what the parts of the BlockServer service share. */
#ifndef BLK_BLOCKSERVER_INT_H
#define BLK_BLOCKSERVER_INT_H

#include "blk_int.h"
#include "blockserver.h"
#include "chassis/leader.h"
#include "chassis/log.h"
#include "peers.h"

struct blk__blockserver {
    struct ch_env *env;
    struct blk__blockserver_options options;
    struct base_arena arena; /* of the options' strings */
    struct blk__store *store;
    struct ch_server *server; /* borrowed */
    struct blk__peers *peers;
    struct ch_leader *master;
    struct ch_gate gate;
    uint64_t id;
    uint32_t streams; /* appends open */
    bool report_all;  /* the next heartbeat says everything */
    struct ch_cond heartbeat_soon;
    bool soon;
    ch_time copy_free_at; /* pacing: when the next piece of a copy may be pulled */
};

/* blockserver_append.c */
struct base_status blk__serve_append(void *self, struct ch_call *call) CH_WAITS BASE_MUST_CHECK;
/* blockserver_copy.c */
struct base_status blk__serve_fill(void *self, struct ch_call *call, const void *request,
                                   void **reply) CH_WAITS BASE_MUST_CHECK;
struct base_status blk__serve_copy(void *self, struct ch_call *call, const void *request,
                                   void **reply) CH_WAITS BASE_MUST_CHECK;
/* blockserver_heartbeat.c: the fiber */
void blk__heartbeat_main(void *self);
/* blockserver_scrub.c: the fiber */
void blk__scrub_main(void *self);
/* Something changed that the master should hear soon. */
void blk__heartbeat_soon(struct blk__blockserver *self);

#endif
