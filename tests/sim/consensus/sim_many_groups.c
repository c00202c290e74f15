/* Many groups in three processes: they share streams, go quiet together when nothing happens, and
 * notice at once when that is no longer to be trusted. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "chassis/metrics.h"
#include "chassis/sim.h"
#include "consensus/log.h"
#include "consensus/node.h"
#include "con_store_memory.h"
#include "seeds.h"
#include "test.h"

enum { NODES = 3, GROUPS = 100 };

struct host {
    int number;
    struct ch_sim_node *node;
    struct ch_env *env;
    char target[32];
    struct con_memory *memories[GROUPS];
    struct con_log *logs[GROUPS];
    uint64_t applied[GROUPS];
    bool open;
};
struct group_self {
    struct host *host;
    int number;
};
static struct host hosts[NODES];
static struct group_self selves[NODES][GROUPS];

static void apply(void *self, uint64_t index, struct base_bytes command, struct base_buf *reply)
{
    struct group_self *group = self;

    group->host->applied[group->number]++;
}

static void snapshot(void *self, struct base_buf *out)
{
}

static struct base_status restore(void *self, struct base_bytes from)
{
    return BASE_STATUS_OK;
}

static CH_WAITS void host_open(struct host *host, struct con_node *node)
{
    const char *peers[NODES];

    for (int i = 0; i < NODES; i++)
        peers[i] = hosts[i].target;
    for (int i = 0; i < GROUPS; i++) {
        struct con_machine machine = { apply, snapshot, restore, NULL, &selves[host->number][i] };
        struct con_store store;
        char name[16];
        struct con_log_options options = { .node = node,
                                           .group = name,
                                           .self = host->target,
                                           .peers = peers,
                                           .peer_count = NODES,
                                           .found = host->number == 0,
                                           .store = &store };

        snprintf(name, sizeof(name), "group-%d", i);
        selves[host->number][i] = (struct group_self){ host, i };
        con_memory_open(host->memories[i], host->env, &store);
        cr_assert(!base_failed(con_log_open(host->env, &options, &machine, &host->logs[i])));
    }
}

/* A process is known by one target: a log with another would never be heard of as a whole. */
static CH_WAITS void another_target(struct host *host, struct con_node *node)
{
    struct con_memory *memory = con_memory_new(1000 + (uint64_t)host->number);
    struct con_machine machine = { apply, snapshot, restore, NULL, &selves[host->number][0] };
    struct con_store store;
    struct con_log_options options = {
        .node = node, .group = "elsewhere", .self = "10.0.0.9:7000", .store = &store
    };
    struct con_log *log = NULL;

    con_memory_open(memory, host->env, &store);
    cr_assert_eq(base_status_drop(con_log_open(host->env, &options, &machine, &log)),
                 BASE_INVALID_ARGUMENT);
    con_memory_free(memory);
}

static void host_close(void *arg)
{
    CH_FIBER_ENTRY();
    struct host *host = arg;

    for (int i = 0; i < GROUPS; i++)
        con_log_close(host->logs[i]);
}

static int host_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct host *host = arg;
    struct ch_server_options options = { .address = host->target };
    struct ch_server *server = NULL;
    struct con_node *node = NULL;
    struct ch_gate gate;

    host->env = env;
    cr_assert(!base_failed(ch_server_new(env, &options, &server)));
    cr_assert(!base_failed(con_node_new(env, server, NULL, &node)));
    host_open(host, node);
    cr_assert(!base_failed(ch_server_start(server)));
    host->open = true;
    another_target(host, node);
    while (ch_sleep_until(env, CH_NEVER) != CH_CANCELLED)
        ;
    ch_server_stop(server, ch_in(env, CH_S));
    ch_gate_init(&gate, env, "close");
    cr_assert(!base_failed(ch_gate_spawn(&gate, "close", host_close, host)));
    ch_gate_join_always(&gate);
    con_node_free(node);
    return 0;
}

static bool all_formed(void *arg)
{
    struct con_log_view view;

    for (int i = 0; i < GROUPS; i++) {
        if (!hosts[0].open || !con_log_term(hosts[0].logs[i]))
            return false;
        con_log_look(hosts[0].logs[i], &view);
        if (view.joint || view.count != NODES || !view.members[0].member.voter ||
            !view.members[1].member.voter || !view.members[2].member.voter)
            return false;
    }
    return true;
}

static uint64_t sent(const char *what)
{
    return ch_counter(hosts[0].env, what, "peer=\"10.0.0.2:7000\"", "")->value;
}

static struct ch_sim *world_begin(uint64_t seed)
{
    struct ch_sim *sim = ch_sim_new(seed);

    memset(hosts, 0, sizeof(hosts));
    for (int i = 0; i < NODES; i++) {
        char host[16];

        snprintf(host, sizeof(host), "10.0.0.%d", i + 1);
        hosts[i].number = i;
        snprintf(hosts[i].target, sizeof(hosts[i].target), "%s:7000", host);
        hosts[i].node = ch_sim_node(sim, "host", host);
        for (int j = 0; j < GROUPS; j++)
            hosts[i].memories[j] = con_memory_new(ch_sim_random(sim) | 1);
        ch_sim_start(hosts[i].node, host_main, &hosts[i]);
    }
    cr_assert(ch_sim_run(sim, all_formed, NULL, ch_sim_now(sim) + 60 * CH_S));
    /* Until nothing is said any more. */
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + 5 * CH_S);
    return sim;
}

static void world_end(struct ch_sim *sim)
{
    ch_sim_free(sim);
    for (int i = 0; i < NODES * GROUPS; i++)
        con_memory_free(hosts[i / GROUPS].memories[i % GROUPS]);
}

static uint64_t said(struct ch_sim *sim, ch_time during)
{
    uint64_t before = sent("strata_consensus_messages_sent_total");

    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + during);
    return sent("strata_consensus_messages_sent_total") - before;
}

static void propose_all(void *arg)
{
    CH_FIBER_ENTRY();
    struct host *host = arg;

    for (int i = 0; i < GROUPS; i++)
        cr_assert(!base_failed(
            con_log_propose(host->logs[i], BASE_BYTES_LIT("x"), ch_in(host->env, 5 * CH_S), NULL)));
}

/* A proposal in each group, at the host that leads it, is applied everywhere. */
static void works(struct ch_sim *sim, struct host *host)
{
    uint64_t before = hosts[1].applied[GROUPS - 1];
    struct ch_gate gate;

    ch_gate_init(&gate, host->env, "propose");
    cr_assert(!base_failed(ch_gate_spawn(&gate, "propose", propose_all, host)));
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + 10 * CH_S);
    for (int i = 0; i < NODES * GROUPS; i++)
        cr_assert_eq(hosts[i / GROUPS].applied[i % GROUPS], before + 1);
}

/* Every group is led by a host that is not the first. */
static bool others_lead(void *arg)
{
    for (int i = 0; i < GROUPS; i++)
        if (!con_log_term(hosts[1].logs[i]) && !con_log_term(hosts[2].logs[i]))
            return false;
    return true;
}

static bool first_leads_none(void *arg)
{
    for (int i = 0; i < GROUPS; i++)
        if (con_log_term(hosts[0].logs[i]))
            return false;
    return true;
}

Test(sim_many_groups, share_streams_and_go_quiet)
{
    /* When nothing happens no group says anything, and the process only that it is there. Each
     * group still works. One stream to a process carries all. */
    struct ch_sim *sim = world_begin(ch_sim_seed(1));
    uint64_t deliveries = sent("strata_consensus_deliveries_sent_total");

    cr_assert_eq(said(sim, 30 * CH_S), (uint64_t)0);
    deliveries = sent("strata_consensus_deliveries_sent_total") - deliveries;
    cr_assert(deliveries >= 80 && deliveries <= 130, "%" PRIu64 " in half a minute", deliveries);
    cr_assert_eq(sent("strata_consensus_streams_total"), (uint64_t)1);
    works(sim, &hosts[0]);
    cr_assert_eq(said(sim, 10 * CH_S), (uint64_t)0);
    world_end(sim);
}

Test(sim_many_groups, a_dead_leader_is_noticed_by_quiet_followers)
{
    /* Nobody proposes anything, yet within two election times and the time it takes to hear
     * nothing, all groups have another leader: an owner relies on lead() alone. */
    for (uint64_t seed = ch_sim_seed(1), end = seed + seeds_count(5); seed < end; seed++) {
        struct ch_sim *sim = world_begin(seed);
        ch_time begin = ch_sim_now(sim);

        for (int i = 0; i < GROUPS; i++)
            con_memory_crash(hosts[0].memories[i], 0);
        ch_sim_crash(hosts[0].node);
        cr_assert(ch_sim_run(sim, others_lead, NULL, begin + 5 * CH_S));
        world_end(sim);
    }
}

static void cut(struct ch_sim *sim, bool to, bool from, bool is)
{
    for (int i = 2; i <= NODES; i++) {
        char other[16];

        snprintf(other, sizeof(other), "10.0.0.%d", i);
        if (to)
            ch_sim_net_cut(sim, "10.0.0.1", other, is);
        if (from)
            ch_sim_net_cut(sim, other, "10.0.0.1", is);
    }
}

Test(sim_many_groups, a_leader_cut_off_is_noticed_at_both_ends)
{
    /* In both directions, or in one: the others elect among themselves, and the old leader ceases
     * to lead though nobody asks it anything. When the cut ends there is one leader, all is quiet
     * again, and works. */
    for (int way = 1; way < 4; way++) {
        struct ch_sim *sim = world_begin(ch_sim_seed(10) + (uint64_t)way);

        cut(sim, way & 1, way & 2, true);
        cr_assert(ch_sim_run(sim, first_leads_none, NULL, ch_sim_now(sim) + 3 * CH_S), "%d", way);
        cr_assert(ch_sim_run(sim, others_lead, NULL, ch_sim_now(sim) + 5 * CH_S), "%d", way);
        cut(sim, true, true, false);
        ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + 10 * CH_S);
        cr_assert(first_leads_none(NULL) && others_lead(NULL));
        cr_assert_eq(said(sim, 10 * CH_S), (uint64_t)0);
        world_end(sim);
    }
}

Test(sim_many_groups, a_paused_leader_is_replaced)
{
    /* Its connections live on, but nothing comes. */
    struct ch_sim *sim = world_begin(ch_sim_seed(20));

    ch_sim_pause(hosts[0].node, true);
    cr_assert(ch_sim_run(sim, others_lead, NULL, ch_sim_now(sim) + 5 * CH_S));
    ch_sim_pause(hosts[0].node, false);
    cr_assert(ch_sim_run(sim, first_leads_none, NULL, ch_sim_now(sim) + 2 * CH_S));
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + 10 * CH_S);
    cr_assert_eq(said(sim, 10 * CH_S), (uint64_t)0);
    world_end(sim);
}

Test(sim_many_groups, a_broken_connection_wakes_and_changes_nothing)
{
    /* What was in the air may be lost: so all are woken, find that nothing was, and go quiet
     * again, with the same leader in the same term. Meanwhile the heartbeats of all groups leave
     * together, many in a Delivery. */
    struct ch_sim *sim = world_begin(ch_sim_seed(30));
    uint64_t terms[GROUPS], messages, deliveries = sent("strata_consensus_deliveries_sent_total");

    for (int i = 0; i < GROUPS; i++)
        terms[i] = con_log_term(hosts[0].logs[i]);
    ch_sim_net_reset(sim, "10.0.0.1", "10.0.0.2");
    messages = said(sim, 10 * CH_S);
    deliveries = sent("strata_consensus_deliveries_sent_total") - deliveries;
    cr_assert(messages >= GROUPS && messages >= 8 * deliveries,
              "%" PRIu64 " messages in %" PRIu64 " deliveries", messages, deliveries);
    cr_assert_eq(said(sim, 10 * CH_S), (uint64_t)0);
    for (int i = 0; i < GROUPS; i++)
        cr_assert_eq(con_log_term(hosts[0].logs[i]), terms[i]);
    works(sim, &hosts[0]);
    world_end(sim);
}
