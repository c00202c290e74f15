/* node.c: the groups of one process, and time for all of them.
 *
 * Invariants
 * 1. A group is in both tables (by name, by its member's id) and in `groups`, or in none.
 * 2. `deadline` of a group is what its algorithm asked for last: an idle group costs a tick one
 * comparison.
 * 3. A peer, once made, lives as long as the node: groups keep pointers to it.
 *
 * Happy path: the ticker comes round every third of the shortest heartbeat; the groups that are due
 * say their heartbeats, which gather in the outboxes of the peers and leave together.
 * Shutdown: the server has stopped and all groups are closed; then the fibers of the peers, then
 * their clients. */
#include "node_int.h"

#include <stdlib.h>

#include "group_int.h"

static ch_fiber_fn ticker_fiber;

struct base_status con_node_new(struct ch_env *env, struct ch_server *server,
                                struct ch_naming *naming, struct con_node **out)
{
    struct con_node *node = calloc(1, sizeof(*node));
    struct base_status status;

    if (!node)
        abort();
    *out = NULL;
    node->env = env;
    node->server = server;
    node->naming = naming;
    node->tick = CON_TICK_MS_MAX * CH_MS;
    ch_gate_init(&node->gate, env, "consensus node");
    ch_cond_init(&node->retired);
    node->metrics.received = ch_counter(env, "strata_consensus_messages_received_total", "",
                                        "Messages from other members.");
    node->metrics.refused = ch_counter(env, "strata_consensus_messages_refused_total", "",
                                       "Messages that cannot be, or for nobody here.");
    status = ch_gate_spawn(&node->gate, "consensus ticker", ticker_fiber, node);
    if (base_failed(status)) {
        free(node);
        return base_status_wrap(status, "consensus node");
    }
    con__node_serve(node, server);
    *out = node;
    return BASE_STATUS_OK;
}

void con_node_free(struct con_node *node)
{
    struct con__peer_way *peer, *next;

    BASE_ASSERT(node->group_count == 0 && node->incoming == 0);
    ch_gate_stop(&node->gate);
    HASH_ITER(hh, node->peers, peer, next)
    {
        HASH_DEL(node->peers, peer);
        con__peer_free(peer);
        free(peer);
    }
    free(node->groups);
    free(node);
}

/* ---- groups ---- */

struct base_status con__node_add(struct con_node *node, struct con__group *group)
{
    ch_time tick = group->heartbeat / 3;

    if (con__node_find(node, group->name))
        return base_status_make(BASE_ALREADY_EXISTS, "group %s is open in this process already",
                                group->name);
    if (node->group_count > 0 && strcmp(node->groups[0].group->self, group->self) != 0)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "group %s: this process is reached at %s by its other groups",
                                group->name, node->groups[0].group->self);
    if (tick < CON_TICK_MS_MIN * CH_MS)
        tick = CON_TICK_MS_MIN * CH_MS;
    if (tick < node->tick)
        node->tick = tick;
    if (node->group_count == node->group_cap) {
        node->group_cap = node->group_cap ? 2 * node->group_cap : 8;
        node->groups = realloc(node->groups, node->group_cap * sizeof(node->groups[0]));
        if (!node->groups)
            abort();
    }
    group->slot = node->group_count++;
    node->groups[group->slot] = (struct con__node_group){ 0, group->store.member, group };
    HASH_ADD_KEYPTR(hh_name, node->by_name, group->name, strlen(group->name), group);
    HASH_ADD(hh_member, node->by_member, store.member, sizeof(uint64_t), group);
    return BASE_STATUS_OK;
}

void con__node_remove(struct con_node *node, struct con__group *group)
{
    BASE_ASSERT(node->groups[group->slot].group == group);
    HASH_DELETE(hh_name, node->by_name, group);
    HASH_DELETE(hh_member, node->by_member, group);
    node->groups[group->slot] = node->groups[--node->group_count];
    node->groups[group->slot].group->slot = group->slot;
    ch_cond_broadcast(&node->retired);
}

void con__node_deadline(struct con_node *node, struct con__group *group, ch_time deadline)
{
    node->groups[group->slot].deadline = deadline;
}

struct con__group *con__node_find(struct con_node *node, const char *name)
{
    struct con__group *group = NULL;

    HASH_FIND(hh_name, node->by_name, name, strlen(name), group);
    return group;
}

struct con__group *con__node_find_member(struct con_node *node, uint64_t member)
{
    struct con__group *group = NULL;

    HASH_FIND(hh_member, node->by_member, &member, sizeof(member), group);
    return group;
}

struct con__group *con__node_find_next(struct con_node *node, uint64_t member, size_t *at)
{
    struct con__group *group;

    if (*at < node->group_count && node->groups[*at].member == member)
        return node->groups[(*at)++].group;
    group = con__node_find_member(node, member);
    if (group)
        *at = group->slot + 1;
    return group;
}

struct con__peer_way *con__node_way(struct con_node *node, const char *target)
{
    struct con__peer_way *peer = NULL;

    HASH_FIND(hh, node->peers, target, strlen(target), peer);
    return peer;
}

struct con__peer_way *con__node_peer(struct con_node *node, const char *target)
{
    struct con__peer_way *peer = con__node_way(node, target);
    size_t len = strlen(target);
    struct base_status status;

    if (peer || len == 0 || len >= CON_ADDRESS_MAX || HASH_COUNT(node->peers) >= CON_PEERS_MAX)
        return peer;
    peer = calloc(1, sizeof(*peer));
    if (!peer)
        abort();
    status = ch_gate_spawn(&node->gate, "consensus peer", con__peer_fiber, peer);
    if (base_failed(status)) { /* no fiber to be had, now: the next message tries again */
        base_status_free(&status);
        free(peer);
        return NULL;
    }
    con__peer_init(peer, node, target); /* the fiber has not run yet */
    HASH_ADD_KEYPTR(hh, node->peers, peer->target, len, peer);
    return peer;
}

/* ---- time ---- */

/* Those that are due. Returns when the first follower among the others is: by ticks alone,
 * followers of one leader would often stand in the same moment, and split the votes. */
static ch_time groups_tick(struct con_node *node) CH_WAITS;
static ch_time groups_tick(struct con_node *node)
{
    ch_time now = ch_now(node->env), first = CH_NEVER;

    /* A group that goes while we yield is replaced by the last one: that waits a tick. */
    for (size_t i = 0; i < node->group_count; i++) {
        struct con__node_group *slot = &node->groups[i];

        if (now < slot->deadline) {
            if (slot->deadline < first && slot->group->role != CON_LEADER)
                first = slot->deadline;
            continue;
        }
        con__group_tick(slot->group, now);
        if ((i & 63) == 63)
            ch_yield_if_long();
    }
    return first;
}

static void ticker_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct con_node *node = arg;
    ch_time next = ch_in(node->env, node->tick), first = CH_NEVER;

    while (ch_sleep_until(node->env, first < next ? first : next) == CH_TIMEOUT) {
        ch_time now = ch_now(node->env);

        first = groups_tick(node);
        if (now < next)
            continue;
        con__contacts_look(node);
        next += node->tick;
        if (next <= ch_now(node->env)) /* was stopped for long */
            next = ch_in(node->env, node->tick);
    }
}
