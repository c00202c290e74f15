/* blk_cluster.h: a simulated blockstore: one blockmaster or three, some blockservers, each a node
 * with its own disk. */
#ifndef BLK_CLUSTER_H
#define BLK_CLUSTER_H

#include "blockstore/blockstore.h"
#include "chassis/sim.h"

enum { BLK_CLUSTER_SERVERS_MAX = 8, BLK_CLUSTER_MASTERS_MAX = 3, BLK_CLUSTER_ARGS = 16 };

struct blk_cluster_node {
    struct ch_sim_node *node;
    char name[32], host[32], listen[40];
    char *argv[BLK_CLUSTER_ARGS];
    struct ch_service_args *args;
};
struct blk_cluster {
    struct ch_sim *sim;
    struct blk_cluster_node masters[BLK_CLUSTER_MASTERS_MAX], servers[BLK_CLUSTER_SERVERS_MAX];
    size_t master_count, server_count;
    char targets[128]; /* of all masters */
};

/* `masters`: 1 (no group) or 3. `block_bytes`: as --block-bytes takes it. Starts everything. */
void blk_cluster_start(struct blk_cluster *cluster, struct ch_sim *sim, size_t masters,
                       size_t servers, const char *block_bytes);
/* One master and one server, in a cell that was begun with one machine; the other servers can be
 * started later. */
void blk_cluster_start_alone(struct blk_cluster *cluster, struct ch_sim *sim, size_t servers,
                             const char *block_bytes);
void blk_cluster_node_start(struct blk_cluster_node *node);
/* Crashed nodes are freed with the sim; call before ch_sim_free. */
void blk_cluster_free(struct blk_cluster *cluster);

/* A client for the running fiber's env. */
struct blk_client *blk_cluster_client(const struct blk_cluster *cluster) CH_WAITS;

#endif
