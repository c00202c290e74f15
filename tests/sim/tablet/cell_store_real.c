/* cell_store_real.c: a blockmaster and four blockservers, each on a simulated node with its own
 * disk, below a tablet cell. Trouble: one blockserver, or the blockmaster, crashes with power loss
 * and comes back. */
#include "cell_store.h"

#include <stdio.h>
#include <stdlib.h>

#include "chassis/service.h"
#include "services.h"

enum { SERVERS = 4, ARGS = 20 };

struct store_node {
    struct ch_sim_node *node;
    struct ch_service_args args;
    char *argv[ARGS];
    char name[32], host[32], listen[40], task[40];
};

static struct {
    struct store_node master, servers[SERVERS];
    unsigned crashes;
} store;

static void start(struct store_node *node)
{
    if (!ch_sim_running(node->node))
        ch_sim_start(node->node, ch_service_main, &node->args);
}

static void add(struct store_node *node, const char *text)
{
    BASE_ASSERT(node->args.argc < ARGS);
    node->argv[node->args.argc++] = strdup(text);
}

static void node_init(struct cell *cell, struct store_node *node, const struct ch_service_def *def,
                      int subnet, int i, const char *const *flags)
{
    memset(node, 0, sizeof(*node));
    snprintf(node->name, sizeof(node->name), "%s-%d", def->name, i);
    snprintf(node->host, sizeof(node->host), "10.0.%d.%d", subnet, 10 + i);
    snprintf(node->listen, sizeof(node->listen), "%s:7000", node->host);
    snprintf(node->task, sizeof(node->task), "%s/%d", def->name, i);
    node->node = ch_sim_node(cell->sim, node->name, node->host);
    node->args.def = def;
    node->args.argv = node->argv;
    const char *common[] = { def->name,
                             "--listen",
                             node->listen,
                             "--names",
                             "10.0.0.2:7000",
                             "--task",
                             node->task,
                             "--cell",
                             "local",
                             "--data-dir",
                             "/data",
                             "--log-level",
                             getenv("STRATA_TEST_LOG") ? getenv("STRATA_TEST_LOG") : "error" };
    for (size_t f = 0; f < sizeof(common) / sizeof(common[0]); f++)
        add(node, common[f]);
    for (; *flags; flags++)
        add(node, *flags);
    char path[64];
    snprintf(path, sizeof(path), "/local/%s", node->task);
    names_double_publish(cell->names, path, node->listen, true);
    start(node);
}

void cell_store_new(struct cell *cell)
{
    static const char *const master[] = { "--block-bytes=256KiB", "--dead-after=2s",
                                          "--trash-keep=1s", "--repair-every=300ms", NULL };
    static const char *const server[] = {
        "--heartbeat=200ms",           "--journal-segment-bytes=2MiB",    "--journal-segments=4",
        "--space-reserve-bytes=64KiB", "--scrub-bytes-per-second=512KiB", NULL
    };
    node_init(cell, &store.master, &blk__blockmaster_service, 3, 0, master);
    for (int i = 0; i < SERVERS; i++)
        node_init(cell, &store.servers[i], &blk__blockserver_service, 4, i, server);
    store.crashes = 0;
}

static void node_free(struct store_node *node)
{
    for (int i = 0; i < node->args.argc; i++)
        free(node->argv[i]);
}

void cell_store_free(struct cell *cell)
{
    node_free(&store.master);
    for (int i = 0; i < SERVERS; i++)
        node_free(&store.servers[i]);
}

void cell_store_trouble(struct cell *cell)
{
    struct ch_env *env = ch_sim_tester_env(cell->sim);
    struct store_node *node = ch_random_below(env, 5) == 0
                                  ? &store.master
                                  : &store.servers[ch_random_below(env, SERVERS)];
    ch_sim_crash(node->node);
    store.crashes++;
    ch_sleep_until(env, ch_in(env, (ch_time)ch_random_below(env, 3 * CH_S)));
    start(node);
    /* One at a time: with two of three replicas gone nobody can write. */
    ch_sleep_until(env, ch_in(env, 2 * CH_S));
}

void cell_store_calm(struct cell *cell)
{
    start(&store.master);
    for (int i = 0; i < SERVERS; i++)
        start(&store.servers[i]);
}

void cell_store_tell(struct cell *cell)
{
    fprintf(stderr, "  %u crashes of blockstore's nodes\n", store.crashes);
}
