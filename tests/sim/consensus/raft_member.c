/* raft_member.c: what becomes of a member of the simulated world: it is founded, joins, starts,
 * crashes, loses its disk, asks to be let in again. See raft_world.h. */
#include "raft_world.h"

#include <inttypes.h>
#include <stdlib.h>

struct con_member rw_member_value(const struct rw_member *member)
{
    struct con_member value = { .id = member->disk.id, .witness = member->witness };

    snprintf(value.address, sizeof(value.address), "n%d", member->node);
    return value;
}

bool rw_leads(const struct rw_member *member)
{
    return member->raft && con_raft_status(member->raft).role == CON_LEADER;
}

struct rw_member *rw_leader(struct rw_group *group)
{
    struct rw_member *leader = NULL;

    for (int i = 0; i < group->world->node_count; i++) {
        struct rw_member *member = &group->members[i];

        if (rw_leads(member) &&
            (!leader || con_raft_status(member->raft).term > con_raft_status(leader->raft).term))
            leader = member;
    }
    return leader;
}

void rw_member_found(struct rw_member *member, const struct con_config *first, uint64_t id)
{
    raft_disk_init(&member->disk, id, first);
    member->present = true;
    rw_member_start(member);
}

void rw_member_join(struct rw_member *member, bool witness, bool stays_learner)
{
    struct rw_world *world = member->world;

    raft_disk_init(&member->disk, rw_random(world) << 8 | (uint64_t)(member->node + 1), NULL);
    member->present = true;
    member->joining = true;
    member->witness = witness;
    member->stays_learner = stays_learner;
    if (world->nodes[member->node].up)
        rw_member_start(member);
}

static void join_try_later(struct rw_member *member)
{
    struct rw_world *world = member->world;

    rw_push(world, world->now + rw_between(world, 50 * RW_MS, 600 * RW_MS), RW_EV_JOIN_TRY,
            member->node, member->group->number, member->life, 0, NULL);
}

/* The sabotage of a disk that forgets. */
static void forget(struct rw_member *member)
{
    struct raft_disk *disk = &member->disk;

    if (!member->world->faulting)
        return;
    if (member->world->options.sabotage == RW_FORGETS_VOTE)
        disk->vote = 0;
    if (member->world->options.sabotage == RW_FORGETS_TAIL && disk->count > 1 &&
        rw_chance(member->world, 500))
        free((void *)(uintptr_t)disk->entries[--disk->count].data.data);
}

void rw_member_start(struct rw_member *member)
{
    struct rw_world *world = member->world;
    struct con_raft_options options = world->swarm.raft;

    BASE_ASSERT(member->present && !member->raft);
    forget(member);
    member->life++;
    options.seed = rw_random(world);
    memset(&member->machine, 0, sizeof(member->machine));
    if (member->disk.snapshot_index > 0 && !member->witness &&
        !rw_machine_load(&member->machine, base_buf_bytes(&member->disk.state)))
        rw_fail(world, "n%d g%d: its snapshot cannot be read", member->node, member->group->number);
    member->machine.applied = member->disk.snapshot_index;
    member->log_bytes = member->disk.count;
    member->raft = raft_disk_start(&member->disk, &options, rw_node_now(world, member->node));
    member->timer = 0;
    rw_trace(world, "n%d g%d starts, id %" PRIx64 " term %" PRIu64 " last %" PRIu64, member->node,
             member->group->number, member->disk.id, member->disk.term,
             raft_disk_last(&member->disk));
    rw_check_start(member);
    if (member->disk.first.count == 1 && member->disk.term == 0)
        con_raft_campaign(member->raft); /* the founder */
    if (member->joining)
        join_try_later(member);
    rw_member_input(member);
}

void rw_member_crash(struct rw_member *member)
{
    struct rw_world *world = member->world;

    if (!member->raft)
        return;
    rw_check_crash(member);
    rw_clients_crash(member);
    rw_trace(world, "n%d g%d crashes", member->node, member->group->number);
    if (member->io) {
        bool kept = !member->io->durable && rw_chance(world, world->swarm.kept_write);

        if (!member->io->durable)
            rw_probe(world, kept ? RW_PROBE_write_kept : RW_PROBE_write_lost);
        if (member->io->kind == RW_IO_CHUNK)
            rw_probe(world, RW_PROBE_crash_receiving);
        if (kept)
            (void)rw_io_do(member, member->io);
    }
    rw_io_free(member->io);
    rw_io_free(member->chunk_waits);
    member->io = member->chunk_waits = NULL;
    con_raft_free(member->raft);
    rw_lent_free(member);
    member->raft = NULL;
    member->read_count = 0;
    member->pump_due = false;
    member->life++;
    base_buf_clear(&member->disk.incoming.data);
    member->disk.incoming.index = 0;
}

void rw_member_end(struct rw_member *member)
{
    rw_io_free(member->io);
    rw_io_free(member->chunk_waits);
    con_raft_free(member->raft);
    rw_lent_free(member);
    raft_disk_free(&member->disk);
    member->raft = NULL;
    member->io = member->chunk_waits = NULL;
}

/* Its disk is gone; what it held is remembered by the checks alone. */
void rw_member_bury(struct rw_member *member)
{
    struct rw_group *group = member->group;

    rw_member_crash(member);
    BASE_ASSERT(group->grave_count < RW_GRAVES_MAX);
    group->graves[group->grave_count++] = member->disk;
    memset(&member->disk, 0, sizeof(member->disk));
    member->present = member->joining = false;
}

/* ---- joining ---- */

void rw_join_arrives(struct rw_member *at, int from)
{
    struct rw_member *joiner = &at->group->members[from];
    const struct con_raft_status status = con_raft_status(at->raft);
    struct con_config next = *status.config;
    struct con_member value = rw_member_value(joiner);
    const struct con_member *known = con_config_member(&next, value.id);

    if (status.role != CON_LEADER || status.config->joint || !joiner->present || !joiner->joining ||
        (known && (known->voter || joiner->stays_learner)))
        return;
    value.voter = known != NULL;
    for (uint32_t i = next.count; i-- > 0;) /* who was there before, at the same address */
        if (next.members[i].id != value.id && strcmp(next.members[i].address, value.address) == 0 &&
            (known || !next.members[i].voter))
            con_config_remove(&next, next.members[i].id);
    if (con_config_put(&next, &value))
        rw_change(at, &next);
}

void rw_join_try(struct rw_member *member)
{
    struct rw_world *world = member->world;
    const struct con_member *known =
        con_config_member(con_raft_status(member->raft).config, member->disk.id);
    int to = (int)rw_between(world, 0, world->node_count - 1);

    if (!member->joining)
        return;
    if (known && (known->voter || member->stays_learner) &&
        con_raft_status(member->raft).config->index <= con_raft_status(member->raft).commit) {
        member->joining = false;
        if (member->why == RW_LOST && known->voter)
            rw_probe(world, RW_PROBE_lost_disk_rejoined);
        if (member->why == RW_DAMAGED && known->voter)
            rw_probe(world, RW_PROBE_damaged_rejoined);
        return;
    }
    if (to != member->node && !world->cut[member->node][to])
        rw_push(world,
                world->now + rw_between(world, world->swarm.delay_min, world->swarm.delay_max),
                RW_EV_JOIN, to, member->group->number, 0, (uint64_t)member->node, NULL);
    join_try_later(member);
}

/* As consensus/src/group_join.c asks: of one other, with what is sure to have been its membership.
 */
void rw_member_doubt(struct rw_member *member)
{
    struct rw_world *world = member->world;
    const struct con_config *mine = con_raft_config_committed(member->raft), *theirs;
    const struct rw_member *other;
    int to;

    if (con_raft_status(member->raft).leader || !con_config_member(mine, member->disk.id))
        return;
    to = (int)rw_between(world, 0, world->node_count - 1);
    other = &member->group->members[to];
    if (to == member->node || !other->raft || !rw_awake(world, to) ||
        world->cut[member->node][to] || world->cut[to][member->node])
        return;
    theirs = con_raft_config_committed(other->raft);
    if (theirs->index <= mine->index || con_config_member(theirs, member->disk.id))
        return;
    rw_probe(world, RW_PROBE_removed_told);
    rw_check_removed(member, theirs->index);
    con_raft_removed(member->raft, theirs->index);
}
