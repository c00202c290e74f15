/* faults_nemesis.c: what goes wrong, chosen by the seed, and its end. */
#include "faults_world.h"

uint64_t below(uint64_t n)
{
    return ch_sim_random(w.sim) % n;
}

void run_for(ch_time ns)
{
    ch_sim_run(w.sim, 0, 0, ch_sim_now(w.sim) + ns);
}

static const char *any_host(void)
{
    size_t masters = w.cluster.master_count, i = below(SERVERS + masters + WRITERS);
    if (i < SERVERS)
        return w.cluster.servers[i].host;
    i -= SERVERS;
    return i < masters ? w.cluster.masters[i].host : w.writers[i - masters].host;
}

void restart_dead(void)
{
    for (size_t i = 0; i < SERVERS; i++)
        if (!ch_sim_running(w.cluster.servers[i].node))
            blk_cluster_node_start(&w.cluster.servers[i]);
    for (size_t i = 0; i < w.cluster.master_count; i++)
        if (!ch_sim_running(w.cluster.masters[i].node))
            blk_cluster_node_start(&w.cluster.masters[i]);
    for (size_t i = 0; i < WRITERS && !w.stop; i++)
        if (!ch_sim_running(w.writers[i].node))
            ch_sim_start(w.writers[i].node, writer_main, &w.writers[i]);
}

/* Where a file has something: a flipped bit where nothing is tests nothing. */
static bool somewhere(const struct base_buf *bytes, uint64_t *at)
{
    for (int tries = 0; tries < 60 && bytes->len > 0; tries++) {
        *at = below(bytes->len);
        if (bytes->data[*at])
            return true;
    }
    return false;
}

/* One flipped bit in a block file of the victim, or in its journal. */
static void flip(void)
{
    struct ch_sim_node *node = w.cluster.servers[w.victim].node;
    for (int tries = 0; tries < 20; tries++) {
        char path[64];
        struct base_buf bytes = { 0 };
        uint64_t at;
        if (below(4) == 0)
            snprintf(path, sizeof path, "/data/journal/%04u.journal", (unsigned)below(5));
        else
            snprintf(path, sizeof path, "/data/blocks/%016llx.%s",
                     (unsigned long long)(1 + below(80)), below(3) ? "blk" : "open");
        bool there = ch_sim_disk_peek(node, path, &bytes) && somewhere(&bytes, &at);
        if (there)
            ch_sim_disk_flip(node, path, at, (uint8_t)(1u << below(8)));
        base_buf_free(&bytes);
        if (there)
            return;
    }
}

void fault(void)
{
    struct blk_cluster_node *s = &w.cluster.servers[below(SERVERS)];
    struct blk_cluster_node *m = &w.cluster.masters[below(w.cluster.master_count)];
    struct client *c = &w.writers[below(WRITERS)];
    switch (below(w.cluster.master_count > 1 ? 18 : 16)) {
    case 0:
    case 1:
        if (ch_sim_running(s->node))
            ch_sim_crash(s->node);
        break;
    case 2:
        if (ch_sim_running(s->node))
            ch_sim_kill(s->node);
        break;
    case 3:
        if (ch_sim_running(m->node))
            ch_sim_crash(m->node);
        break;
    case 4:
    case 5:
        ch_sim_net_cut(w.sim, any_host(), any_host(), true);
        break;
    case 6:
        ch_sim_net_reset(w.sim, any_host(), any_host());
        break;
    case 7:
        ch_sim_net_heal(w.sim);
        break;
    case 8:
        if (ch_sim_running(s->node))
            ch_sim_pause(s->node, true);
        break;
    case 9:
        if (ch_sim_running(c->node))
            ch_sim_pause(c->node, c->paused = !c->paused);
        break;
    case 10:
        if (ch_sim_running(c->node))
            ch_sim_crash(c->node);
        break;
    case 11:
        ch_sim_disk_delay(s->node, 10 * CH_MS, (ch_time)(20 + below(400)) * CH_MS);
        break;
    case 12:
        ch_sim_disk_delay(s->node, 100 * CH_US, 300 * CH_US);
        break;
    case 13:
        ch_sim_disk_limit(s->node, below(2) ? 0 : ch_sim_disk_used(s->node) + below(300000));
        break;
    case 14:
        ch_sim_disk_fail_sync(w.cluster.servers[w.victim].node, below(2));
        break;
    case 15:
        flip();
        break;
    case 16: /* longer than an election: it wakes up deposed */
        if (ch_sim_running(m->node))
            ch_sim_pause(m->node, true);
        break;
    case 17: /* cut off from the other masters, but not from those who ask it */
        for (size_t i = 0; i < w.cluster.master_count; i++) {
            ch_sim_net_cut(w.sim, m->host, w.cluster.masters[i].host, true);
            ch_sim_net_cut(w.sim, w.cluster.masters[i].host, m->host, true);
        }
        break;
    }
}

void heal_servers(void)
{
    for (size_t i = 0; i < SERVERS; i++)
        ch_sim_pause(w.cluster.servers[i].node, false);
    for (size_t i = 0; i < w.cluster.master_count; i++)
        ch_sim_pause(w.cluster.masters[i].node, false);
}

void heal_all(void)
{
    ch_sim_net_heal(w.sim);
    heal_servers();
    for (size_t i = 0; i < SERVERS; i++) {
        ch_sim_disk_delay(w.cluster.servers[i].node, 100 * CH_US, 300 * CH_US);
        ch_sim_disk_limit(w.cluster.servers[i].node, 0);
        ch_sim_disk_fail_sync(w.cluster.servers[i].node, false);
    }
    for (size_t i = 0; i < WRITERS; i++) {
        ch_sim_pause(w.writers[i].node, false);
        w.writers[i].paused = false;
    }
    /* A server whose sync failed stays out until it is started again. */
    struct blk_cluster_node *victim = &w.cluster.servers[w.victim];
    if (ch_sim_running(victim->node))
        ch_sim_crash(victim->node);
    restart_dead();
}
