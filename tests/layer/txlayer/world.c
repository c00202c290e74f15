/* world.c: see world.h. */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>

#include "chassis/log.h"
#include "server.h"

#define NAMES_HOST "10.0.0.2"
#define NAMES_ADDRESS NAMES_HOST ":7000"

static int names_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct world *world = arg;
    struct base_status status = names_double_start(world->names, env, NAMES_ADDRESS);
    BASE_ASSERT(!base_failed(status));
    while (ch_sleep_until(env, CH_NEVER) != CH_CANCELLED)
        ;
    names_double_stop(world->names);
    return 0;
}

static int server_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct world_server *server = arg;
    struct ch_service_args args = { .def = &txn__service,
                                    .argc = server->argc,
                                    .argv = server->argv };
    return ch_service_main(env, &args);
}

void world_start(struct world *world, size_t i)
{
    struct world_server *server = &world->servers[i];
    ch_sim_start(server->node, server_main, server);
}

static void server_init(struct world *world, size_t i)
{
    struct world_server *server = &world->servers[i];
    char path[64];
    server->world = world;
    snprintf(server->name, sizeof(server->name), "tx%zu", i);
    snprintf(server->host, sizeof(server->host), "10.0.0.%zu", 10 + i);
    snprintf(server->address, sizeof(server->address), "%s:7100", server->host);
    snprintf(server->task, sizeof(server->task), "txserver/%zu", i);
    server->node = ch_sim_node(world->sim, server->name, server->host);
    server->argv[server->argc++] = "txserver";
    server->argv[server->argc++] = "--listen";
    server->argv[server->argc++] = server->address;
    server->argv[server->argc++] = "--names";
    server->argv[server->argc++] = NAMES_ADDRESS;
    server->argv[server->argc++] = "--task";
    server->argv[server->argc++] = server->task;
    for (size_t e = 0; world->extra[e]; e++)
        server->argv[server->argc++] = (char *)world->extra[e];
    snprintf(path, sizeof(path), "/local/txserver/%zu", i);
    names_double_publish(world->names, path, server->address, true);
}

struct world *world_new(uint64_t seed, size_t servers, const char *const *extra)
{
    struct world *world = calloc(1, sizeof(*world));
    world->sim = ch_sim_new(seed);
    for (size_t i = 0; extra && extra[i] && i < 7; i++)
        world->extra[i] = extra[i];
    world->names = names_double_new();
    world->names_node = ch_sim_node(world->sim, "names", NAMES_HOST);
    ch_sim_start(world->names_node, names_main, world);
    world->tablet = tablet_double_new(ch_sim_tester_env(world->sim));
    struct tablet_double_faults calm = { .delay_min = 50 * CH_US, .delay_max = 300 * CH_US };
    tablet_double_faults(world->tablet, &calm);
    world->server_count = servers;
    for (size_t i = 0; i < servers; i++) {
        server_init(world, i);
        world_start(world, i);
    }
    return world;
}

static void free_tablet(void *arg)
{
    CH_FIBER_ENTRY();
    tablet_double_free(arg);
}

void world_free(struct world *world)
{
    for (size_t i = 0; i < world->server_count; i++) {
        ch_sim_pause(world->servers[i].node, false);
        if (ch_sim_running(world->servers[i].node))
            ch_sim_stop(world->servers[i].node);
    }
    ch_sim_do(world->sim, free_tablet, world->tablet, ch_sim_now(world->sim) + 100 * CH_S);
    ch_sim_stop(world->names_node);
    ch_sim_free(world->sim);
    names_double_free(world->names);
    free(world);
}

struct ch_naming *world_naming(struct world *world)
{
    return ch_naming_new(ch_sim_tester_env(world->sim), NAMES_ADDRESS);
}

struct txn_client *world_client(struct world *world, struct ch_naming *naming)
{
    struct txn_client_options options = { .naming = naming, .target = "/local/txserver" };
    return txn_client_new(ch_sim_tester_env(world->sim), &options);
}

size_t world_leader(struct world *world, unsigned shard)
{
    char path[64];
    const char *value;
    snprintf(path, sizeof(path), "/local/locks/txshard/%u", shard);
    names_double_lock(world->names, path, &value);
    for (size_t i = 0; value && i < world->server_count; i++)
        if (strcmp(value, world->servers[i].address) == 0)
            return i;
    return SIZE_MAX;
}
