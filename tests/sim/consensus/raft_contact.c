/* raft_contact.c: what a driver knows of other processes (consensus/src/node.c), on which groups
 * that went quiet rest: nodes with a quiet member say now and then that they are there; who is not
 * heard any more, or to or from whom a message was lost, is no more relied upon. Knowing that takes
 * its time. See raft_world.h. */
#include "raft_world.h"

static bool any_quiet(const struct rw_world *world, int node)
{
    for (int g = 0; g < world->swarm.group_count; g++) {
        const struct rw_member *member = &world->groups[g].members[node];

        if (member->raft && con_raft_status(member->raft).quiet)
            return true;
    }
    return false;
}

/* Whether a member's quiet rests on what is known of `other`. */
static bool rests_on(const struct rw_member *member, int other)
{
    const struct con_raft_status status = con_raft_status(member->raft);

    if (status.role != CON_LEADER)
        return status.leader && rw_id_node(status.leader) == other;
    for (uint32_t i = 0; i < status.config->count; i++)
        if (rw_id_node(status.config->members[i].id) == other)
            return true;
    return false;
}

static void contact_lost(struct rw_world *world, int node, int other)
{
    int64_t silent = world->now - world->contact[node][other].heard;
    int64_t now = rw_node_now(world, node);

    for (int g = 0; g < world->swarm.group_count; g++) {
        struct rw_member *member = &world->groups[g].members[node];

        if (!member->raft || !rests_on(member, other))
            continue;
        if (con_raft_status(member->raft).quiet) {
            rw_trace(world, "n%d g%d is woken: n%d is in doubt", node, g, other);
            rw_probe(world, RW_PROBE_quiet_woken);
        }
        con_raft_wake(member->raft, now - silent * world->nodes[node].clock_rate / 1024, now);
        rw_member_input(member);
    }
}

void rw_contact_doubt(struct rw_world *world, int a, int b)
{
    int64_t limit = world->swarm.raft.heartbeat_ns * 2;

    for (int side = 0; side < 2; side++) {
        struct rw_contact *contact = side ? &world->contact[b][a] : &world->contact[a][b];

        if (contact->doubt == 0)
            contact->doubt = world->now + rw_between(world, 0, limit);
    }
}

void rw_contact_heard(struct rw_world *world, int node, int other)
{
    world->contact[node][other].heard = world->now;
}

/* What the ticker of a node does. */
static void look(struct rw_world *world, int node)
{
    for (int other = 0; other < world->node_count; other++) {
        struct rw_contact *contact = &world->contact[node][other];
        bool silent = world->now - contact->heard >
                      2 * world->swarm.raft.heartbeat_ns + 2 * world->swarm.delay_max;
        bool doubt = contact->doubt != 0 && contact->doubt <= world->now;

        if (other == node)
            continue;
        if (doubt)
            contact->doubt = 0;
        if (doubt || silent)
            contact_lost(world, node, other);
        if (any_quiet(world, node) && !world->cut[node][other])
            rw_push(world,
                    world->now + rw_between(world, world->swarm.delay_min, world->swarm.delay_max),
                    RW_EV_ALIVE, other, 0, 0, (uint64_t)node, NULL);
    }
}

void rw_contact_event(struct rw_world *world, const struct rw_event *event)
{
    if (event->kind == RW_EV_ALIVE) {
        if (world->nodes[event->node].up)
            rw_contact_heard(world, event->node, (int)event->arg);
        return;
    }
    if (world->nodes[event->node].up)
        look(world, event->node);
    rw_push(world, world->now + world->swarm.raft.heartbeat_ns, RW_EV_LOOK, event->node, 0, 0, 0,
            NULL);
}

void rw_contact_crash(struct rw_world *world, int node)
{
    for (int other = 0; other < world->node_count; other++)
        if (other != node) {
            rw_contact_doubt(world, node, other);
            world->contact[node][other].doubt = 0;
        }
}
