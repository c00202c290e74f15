/* world.h: a simulated cell for tests of the transaction layer: names, txservers, the tablet
 * double. Node i of the txservers is 10.0.0.<10+i>:7100; the tester's fibers are the clients. */
#ifndef TESTS_TXLAYER_WORLD_H
#define TESTS_TXLAYER_WORLD_H

#include "chassis/sim.h"
#include "names_double.h"
#include "tablet_double.h"
#include "txlayer/txlayer.h"

enum { WORLD_SERVERS_MAX = 4 };

struct world_server {
    struct world *world;
    struct ch_sim_node *node;
    char name[24], host[24], address[32], task[24];
    char *argv[16];
    int argc;
};

struct world {
    struct ch_sim *sim;
    struct ch_sim_node *names_node;
    struct names_double *names;
    struct tablet_double *tablet;
    struct world_server servers[WORLD_SERVERS_MAX];
    size_t server_count;
    const char *extra[8]; /* flags of the servers */
};

/* `extra`: more flags, NULL-terminated, may be NULL. The servers run when it returns; leaders
 * come later. */
struct world *world_new(uint64_t seed, size_t servers, const char *const *extra);
void world_free(struct world *world);
void world_start(struct world *world, size_t server);
/* A client on the tester's node. Not from a fiber: the struct needs none; to be freed by
 * txn_client_free in one. */
struct ch_naming *world_naming(struct world *world);
struct txn_client *world_client(struct world *world, struct ch_naming *naming);
/* The server that holds a shard's lock, or SIZE_MAX. */
size_t world_leader(struct world *world, unsigned shard);
void world_partition(struct world *world, size_t server, bool from_names, bool from_tablet,
                     bool from_clients, bool cut);

#endif
