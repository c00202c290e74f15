/* server.h: a txserver: the shards it leads, and the RPCs. Private to the layer and its tests. */
#ifndef TXLAYER_SERVER_H
#define TXLAYER_SERVER_H

#include "chassis/service.h"
#include "lead.h"

struct txn__server;

/* One shard of the cell, as this server sees it. */
struct txn__shard {
    struct txn__server *server;
    uint32_t index;
    struct txn__lead *lead; /* NULL: not led here, or not yet */
    char path[160];         /* of its lock */
};

struct txn__server {
    struct ch_env *env;
    const struct txn__config *config;
    struct ch_naming *naming;
    struct ch_server *rpc;
    char *cell, *task;
    struct base_arena arena; /* names */
    struct txn__tables tables;
    struct txn__lead_metrics metrics;
    struct ch_gauge *leading;
    struct ch_gate gate; /* keepers */
    struct ch_name_watch *locks, *tasks;
    struct txn__shard *shards;
    bool stopping;
};

/* The daemon: ch_service_run(&txn__service, …). */
extern const struct ch_service_def txn__service;

/* ---- keeper.c ---- */
struct base_status txn__keepers_start(struct txn__server *server) BASE_MUST_CHECK;
/* Who holds a shard's lock, as far as known; empty when nobody. Borrowed until the next wait. */
struct base_bytes txn__keeper_holder(struct txn__server *server, uint32_t shard);

/* ---- handlers.c ---- */
void txn__handlers_register(struct txn__server *server, struct ch_server *rpc);

#endif
