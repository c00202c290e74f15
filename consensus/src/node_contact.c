/* node_contact.c: whether the other processes are there, for all groups at once (raft_quiet.c).
 *
 * Invariants
 * 1. Messages of one stream come in order, and all of them as long as it lasts. So nothing sent to
 * or by another process was lost while both streams (ours to it, its to us) go on, and nothing was
 * dropped before it came into ours.
 * 2. Whenever that is in doubt, or nothing came for two heartbeats, every group that has a member
 * there is woken, by the next tick. The other end finds its stream broken too, or hears nothing.
 * 3. On a stream that is up something is sent every heartbeat, with the target by which all groups
 * of this process are reached (con__node_add): by it the other end knows who it is.
 * 4. A leader that leaves without having handed over (its log failed, or is closed) breaks the
 * streams to its followers: it can say nothing any more, and they are to notice. */
#include "group_int.h"
#include "node_int.h"

void con__contact_heard(struct con_node *node, const char *from, const void *incoming)
{
    struct con__peer_way *way = con__node_way(node, from);

    if (!way)
        return;
    way->heard = ch_now(node->env);
    way->silent = false;
    if (way->incoming && way->incoming != incoming)
        way->lost = true;
    way->incoming = incoming;
}

void con__contact_ended(struct con_node *node, const void *incoming)
{
    struct con__peer_way *way, *next;

    HASH_ITER(hh, node->peers, way, next)
    {
        if (way->incoming == incoming) {
            way->incoming = NULL;
            way->lost = true;
        }
    }
}

void con__contact_forsake(struct con__group *group)
{
    if (!group->registered || con_raft_status(group->raft).role != CON_LEADER)
        return;
    for (size_t i = 0; i < group->way_count; i++) {
        group->ways[i].way->broken = true;
        ch_cond_broadcast(&group->ways[i].way->work);
    }
}

/* Yields now and then. A group that goes meanwhile is replaced by the last one: from the end, that
 * was woken already. */
static CH_WAITS void groups_wake(struct con_node *node, const struct con__peer_way *way)
{
    ch_time heard = way->heard;

    for (size_t i = node->group_count; i-- > 0;) {
        struct con__group *group = i < node->group_count ? node->groups[i].group : NULL;

        for (size_t w = 0; group && w < group->way_count; w++)
            if (group->ways[w].way == way) {
                con__group_wake(group, heard, ch_now(node->env));
                break;
            }
        if ((i & 63) == 0)
            ch_yield_if_long();
    }
}

void con__contacts_look(struct con_node *node)
{
    struct con__peer_way *way, *next;

    HASH_ITER(hh, node->peers, way, next)
    {
        ch_time now = ch_now(node->env);
        bool silent = now - way->heard > 2 * way->heartbeat + node->tick;

        if (way->lost || (silent && !way->silent)) {
            way->lost = false;
            way->silent = silent;
            groups_wake(node, way);
        }
        if (way->up && now - way->sent >= way->heartbeat) {
            way->knock = true;
            ch_cond_signal(&way->work);
        }
    }
}
