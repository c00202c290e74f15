/* blk_cluster.c: a simulated blockstore. */
#include "blk_cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chassis/service.h"
#include "services.h"

static void node_init(struct blk_cluster_node *node, struct ch_sim *sim,
                      const struct ch_service_def *def, const char *name, const char *host,
                      int port)
{
    snprintf(node->name, sizeof node->name, "%s", name);
    snprintf(node->host, sizeof node->host, "%s", host);
    snprintf(node->listen, sizeof node->listen, "%s:%d", host, port);
    node->node = ch_sim_node(sim, node->name, node->host);
    node->args = calloc(1, sizeof *node->args);
    node->args->def = def;
    node->args->argv = node->argv;
    node->argv[node->args->argc++] = strdup(def->name);
}

static void arg(struct blk_cluster_node *node, const char *key, const char *value)
{
    char *text = malloc(strlen(key) + strlen(value) + 4);
    sprintf(text, "--%s=%s", key, value);
    BASE_ASSERT(node->args->argc < BLK_CLUSTER_ARGS);
    node->argv[node->args->argc++] = text;
}

void blk_cluster_node_start(struct blk_cluster_node *node)
{
    ch_sim_start(node->node, ch_service_main, node->args);
}

static void master_start(struct blk_cluster *cluster, size_t i, const char *block_bytes, bool alone)
{
    struct blk_cluster_node *m = &cluster->masters[i];
    char name[32], host[32];
    snprintf(name, sizeof name, "blockmaster-%zu", i);
    snprintf(host, sizeof host, "10.0.0.%zu", 100 + i);
    node_init(m, cluster->sim, &blk__blockmaster_service, name, host, 7000);
    arg(m, "listen", m->listen);
    arg(m, "admin", "");
    arg(m, "data-dir", "/data");
    arg(m, "block-bytes", block_bytes);
    arg(m, "dead-after", "2s");
    arg(m, "trash-keep", "1s");
    arg(m, "repair-every", "300ms");
    arg(m, "snapshot-bytes", "64KiB");
    if (cluster->master_count > 1)
        arg(m, "members", cluster->targets);
    if (cluster->master_count > 1 && i == 0)
        arg(m, "found", "true");
    if (alone)
        arg(m, "one-machine", "true");
    blk_cluster_node_start(m);
}

static void cluster_start(struct blk_cluster *cluster, struct ch_sim *sim, size_t masters,
                          size_t servers, const char *block_bytes, bool alone)
{
    memset(cluster, 0, sizeof *cluster);
    cluster->sim = sim;
    cluster->master_count = masters;
    cluster->server_count = servers;
    for (size_t i = 0; i < masters; i++)
        snprintf(cluster->targets + strlen(cluster->targets),
                 sizeof cluster->targets - strlen(cluster->targets), "%s10.0.0.%zu:7000",
                 i ? "," : "", 100 + i);
    for (size_t i = 0; i < masters; i++)
        master_start(cluster, i, block_bytes, alone);
    for (size_t i = 0; i < servers; i++) {
        struct blk_cluster_node *s = &cluster->servers[i];
        char name[32], host[32];
        snprintf(name, sizeof name, "blockserver-%zu", i);
        snprintf(host, sizeof host, "10.0.0.%zu", i + 1);
        node_init(s, sim, &blk__blockserver_service, name, host, 7001);
        arg(s, "listen", s->listen);
        arg(s, "admin", "");
        arg(s, "data-dir", "/data");
        arg(s, "masters", cluster->targets);
        arg(s, "heartbeat", "200ms");
        arg(s, "journal-segment-bytes", "2MiB");
        arg(s, "journal-segments", "4");
        arg(s, "space-reserve-bytes", "64KiB");
        arg(s, "scrub-bytes-per-second", "512KiB");
        arg(s, "direct-append-bytes", i % 2 ? "4KiB" : "256KiB");
        if (!alone || i == 0)
            blk_cluster_node_start(s);
    }
}

void blk_cluster_start(struct blk_cluster *cluster, struct ch_sim *sim, size_t masters,
                       size_t servers, const char *block_bytes)
{
    cluster_start(cluster, sim, masters, servers, block_bytes, false);
}

void blk_cluster_start_alone(struct blk_cluster *cluster, struct ch_sim *sim, size_t servers,
                             const char *block_bytes)
{
    cluster_start(cluster, sim, 1, servers, block_bytes, true);
}

static void node_free(struct blk_cluster_node *node)
{
    for (int i = 0; i < node->args->argc; i++)
        free(node->argv[i]);
    free(node->args);
}

void blk_cluster_free(struct blk_cluster *cluster)
{
    for (size_t i = 0; i < cluster->server_count; i++)
        node_free(&cluster->servers[i]);
    for (size_t i = 0; i < cluster->master_count; i++)
        node_free(&cluster->masters[i]);
}

struct blk_client *blk_cluster_client(const struct blk_cluster *cluster)
{
    return blk_client_new(ch_fiber_env(),
                          &(struct blk_client_options){ .masters = cluster->targets });
}
