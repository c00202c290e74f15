/* raft_faults.c: what goes wrong in a world, and how it is drawn from the seed: each seed has its
 * own few kinds of faults and its own rates (a swarm), so that rare ones meet without being drowned
 * by the others. See raft_world.h. */
#include "raft_world.h"

#include <inttypes.h>
#include <stdlib.h>

enum rw_fault {
    F_HEAL, /* always there */
    F_CRASH,
    F_CRASH_LEADER,
    F_CRASH_ALL,
    F_LOSE,
    F_DAMAGE,
    F_PAUSE,
    F_PAUSE_LEADER,
    F_JUMP,
    F_RATE,
    F_PARTITION,
    F_ONE_WAY,
    F_ISOLATE_LEADER,
    F_SLOW_DISK,
    F_LOSSY,
    F_ADD,
    F_REMOVE,
    F_RESHUFFLE,
    F_TRANSFER,
    F_COUNT,
};
enum { NEVER = 100000 }; /* entries to a snapshot */

/* ---- the draw ---- */

static int64_t pick(struct rw_world *world, const int64_t *of, size_t count)
{
    return of[rw_random(world) % count];
}
#define PICK(world, ...)                            \
    pick((world), (const int64_t[]){ __VA_ARGS__ }, \
         sizeof((const int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t))

static void draw_groups(struct rw_world *world)
{
    struct rw_swarm *swarm = &world->swarm;
    uint64_t seed = world->options.seed;

    swarm->group_count = 1;
    swarm->voters = rw_chance(world, 600) ? 3 : 5;
    swarm->spares = (int)rw_between(world, 0, 2);
    swarm->founded_by_one = rw_chance(world, 250);
    if (rw_chance(world, 250))
        swarm->witnesses = swarm->voters == 3 ? 1 : (int)rw_between(world, 1, 2);
    if (seed % 256 == 255) {
        swarm->group_count = RW_GROUPS_MAX;
        swarm->voters = 3;
        swarm->spares = 2;
    } else if (seed % 16 == 7) {
        swarm->group_count = (int)rw_between(world, 2, 5);
    }
    world->node_count = swarm->voters + swarm->spares;
    swarm->faults_till = rw_between(world, 8, swarm->group_count > 5 ? 10 : 25) * RW_S;
}

/* Leaders that reach few and live for a few messages, one entry in each: logs that differ, and what
 * figure 8 is about. */
static void draw_short_lives(struct rw_world *world)
{
    struct rw_swarm *swarm = &world->swarm;

    swarm->short_lived = 900;
    swarm->short_lived_cut = (uint32_t)PICK(world, 500, 700, 850);
    swarm->raft.message_bytes_max = 60;
    swarm->raft.inflight_messages_max = (size_t)PICK(world, 1, 1, 2);
    swarm->fault_mean = PICK(world, 600, 1500, 5000) * RW_MS;
    swarm->faults &= ~(1u << F_CRASH_ALL | 1u << F_PARTITION);
    if (swarm->group_count == 1)
        swarm->faults_till += 25 * RW_S;
}

void rw_swarm_draw(struct rw_world *world)
{
    struct rw_swarm *swarm = &world->swarm;
    uint32_t density = (uint32_t)rw_between(world, 100, 700);

    draw_groups(world);
    for (int i = F_CRASH; i < F_COUNT; i++)
        if (rw_chance(world, density))
            swarm->faults |= 1u << i;
    swarm->faults |= 1u << F_HEAL;
    swarm->fault_mean = PICK(world, 60, 150, 300, 600, 1500) * RW_MS;
    swarm->delay_min = PICK(world, 50, 200, 1000) * RW_US;
    swarm->delay_max = swarm->delay_min + PICK(world, 1, 5, 20, 80) * RW_MS;
    swarm->fifo = rw_chance(world, 400);
    swarm->loss = (uint32_t)PICK(world, 0, 0, 10, 50);
    swarm->duplicate = (uint32_t)PICK(world, 0, 10, 100);
    swarm->chunk_loss = (uint32_t)PICK(world, 0, 0, 100, 300);
    swarm->think_mean = PICK(world, 15, 40, 100, 200) * RW_MS;
    swarm->idle = (uint32_t)PICK(world, 0, 0, 5, 20);
    swarm->reads = (uint32_t)PICK(world, 10, 40, 70);
    swarm->snapshot_entries = (uint64_t)PICK(world, 6, 20, 60, NEVER);
    swarm->keep_entries = (uint64_t)PICK(world, 0, 3, 20);
    swarm->lazy = (uint32_t)PICK(world, 0, 100, 500);
    swarm->crash_receiving = (uint32_t)PICK(world, 0, 0, 50);
    swarm->kept_write = (uint32_t)PICK(world, 0, 300, 700);
    swarm->fetch_fails = (uint32_t)PICK(world, 0, 0, 100);
    swarm->raft = (struct con_raft_options){
        .election_ns = RW_S,
        .heartbeat_ns = PICK(world, 100, 150, 300) * RW_MS,
        .message_bytes_max = (size_t)PICK(world, 60, 150, 400, 65536),
        .inflight_messages_max = (size_t)PICK(world, 1, 2, 4, 32),
        .uncommitted_bytes_max = (size_t)PICK(world, 100, 1000, 1 << 20, 1 << 20),
        .memory_bytes_max = (size_t)PICK(world, 1, 500, 4096, 1 << 20),
        .quiet = rw_chance(world, 700),
    };
    swarm->witness_full = rw_chance(world, 200);
    if (rw_chance(world, 250))
        draw_short_lives(world);
    rw_trace(world,
             "%d groups, %d voters, %d spares, %d witnesses%s, faults %x every %d ms for %d s",
             swarm->group_count, swarm->voters, swarm->spares, swarm->witnesses,
             swarm->founded_by_one ? ", founded by one" : "", swarm->faults,
             (int)(swarm->fault_mean / RW_MS), (int)(swarm->faults_till / RW_S));
}

/* ---- nodes ---- */

static void node_crash(struct rw_world *world, int node, int64_t down)
{
    if (!world->nodes[node].up)
        return;
    world->nodes[node].up = false;
    world->nodes[node].paused_till = 0;
    for (int g = 0; g < world->swarm.group_count; g++)
        rw_member_crash(&world->groups[g].members[node]);
    rw_contact_crash(world, node);
    rw_push(world, world->now + down, RW_EV_RESTART, node, 0, 0, 0, NULL);
}

static void node_restart(struct rw_world *world, int node)
{
    if (world->nodes[node].up)
        return;
    world->nodes[node].up = true;
    for (int g = 0; g < world->swarm.group_count; g++)
        if (world->groups[g].members[node].present)
            rw_member_start(&world->groups[g].members[node]);
}

static int64_t down_time(struct rw_world *world)
{
    return rw_chance(world, 500) ? rw_between(world, 5 * RW_MS, 200 * RW_MS)
                                 : rw_between(world, 200 * RW_MS, 4 * RW_S);
}

static void node_clock(struct rw_world *world, int node, int64_t jump, int64_t rate)
{
    struct rw_node *n = &world->nodes[node];

    n->clock_base = rw_node_now(world, node) + jump;
    n->clock_world = world->now;
    n->clock_rate = rate;
    for (int g = 0; g < world->swarm.group_count; g++)
        rw_member_input(&world->groups[g].members[node]); /* sets its timer anew */
}

static void node_pause(struct rw_world *world, int node)
{
    if (!rw_awake(world, node))
        return;
    world->nodes[node].paused_till =
        world->now + (rw_chance(world, 500) ? rw_between(world, RW_MS, 500 * RW_MS)
                                            : rw_between(world, 500 * RW_MS, 6 * RW_S));
    for (int g = 0; g < world->swarm.group_count; g++) {
        struct rw_member *member = &world->groups[g].members[node];

        member->paused_as_leader =
            rw_leads(member) ? (int64_t)con_raft_status(member->raft).term : 0;
    }
    rw_trace(world, "n%d paused till %.3f", node, (double)world->nodes[node].paused_till / 1e9);
}

/* ---- lost disks ---- */

static bool alive(const struct rw_group *group, uint64_t id)
{
    const struct rw_member *member = &group->members[rw_id_node(id)];

    return member->present && member->disk.id == id;
}

/* Without `id` (0: nobody) as well, a majority of each set is left, and whoever may hold the tail
 * of the log can lead. */
static bool config_survives(const struct rw_group *group, const struct con_config *config,
                            uint64_t id)
{
    int left[2] = { 0, 0 }, of[2] = { 0, 0 }, with_state[2] = { 0, 0 };
    bool witness = false;

    if (id && !con_config_member(config, id))
        return true;
    for (uint32_t i = 0; i < config->count; i++) {
        const struct con_member *m = &config->members[i];
        bool here = m->id != id && alive(group, m->id);

        witness |= m->witness;
        for (int set = 0; set < 2; set++) {
            bool votes = set == 0 ? m->voter : config->joint && m->voter_old;

            of[set] += votes;
            left[set] += votes && here;
            with_state[set] += votes && here && !m->witness;
        }
    }
    /* What a witness alone holds of the log it can hand on, until it compacts that away. */
    return !(witness && id && group->world->swarm.snapshot_entries < NEVER) &&
           2 * left[0] > of[0] && with_state[0] > 0 &&
           (!config->joint || (2 * left[1] > of[1] && with_state[1] > 0));
}

/* Could the group go on if this member's disk were lost, by any configuration somebody holds? */
static bool may_lose(struct rw_group *group, uint64_t id)
{
    struct con_config config;

    if (group->grave_count == RW_GRAVES_MAX)
        return false;
    for (int i = 0; i < group->world->node_count; i++) {
        const struct rw_member *member = &group->members[i];
        const struct raft_disk *disk = &member->disk;

        if (!member->present)
            continue;
        if (member->raft && !config_survives(group, con_raft_status(member->raft).config, id))
            return false;
        if (!config_survives(group, disk->snapshot_index ? &disk->snapshot_config : &disk->first,
                             id))
            return false;
        for (size_t j = 0; j < disk->count; j++)
            if (disk->entries[j].kind == CON_ENTRY_CONFIG &&
                base_status_drop(con_config_decode(disk->entries[j].data, &config)) == BASE_OK &&
                !config_survives(group, &config, id))
                return false;
    }
    return true;
}

static bool wanted(struct rw_group *group, uint64_t id)
{
    for (int i = 0; i < group->world->node_count; i++) {
        const struct rw_member *member = &group->members[i];
        struct con_config config;

        if (!member->present)
            continue;
        raft_disk_config(&member->disk, &config);
        if (con_config_member(&config, id) ||
            (member->raft && con_config_member(con_raft_status(member->raft).config, id)))
            return true;
    }
    return false;
}

static void member_lose(struct rw_member *member, bool damaged)
{
    struct rw_world *world = member->world;
    struct rw_group *group = member->group;
    uint64_t id = member->disk.id;
    bool again = member->joining || wanted(group, id), witness = member->witness;

    rw_trace(world, "n%d g%d LOSES its disk", member->node, group->number);
    rw_member_bury(member);
    if (world->options.sabotage == RW_REJOINS_AS_SELF) {
        raft_disk_init(&member->disk, id,
                       con_config_member(&group->first, id) ? &group->first : NULL);
        member->present = true;
        if (world->nodes[member->node].up)
            rw_member_start(member);
    } else if (again) {
        member->why = damaged ? RW_DAMAGED : RW_LOST;
        rw_member_join(member, witness, false);
    }
}

static void node_lose(struct rw_world *world, int node, bool damaged)
{
    int chosen = (int)rw_between(world, 0, world->swarm.group_count - 1);

    for (int g = 0; g < world->swarm.group_count; g++)
        if (world->groups[g].members[node].present &&
            world->options.sabotage != RW_REJOINS_AS_SELF &&
            !may_lose(&world->groups[g], world->groups[g].members[node].disk.id))
            return;
    node_crash(world, node, down_time(world));
    for (int g = 0; g < world->swarm.group_count; g++)
        if (world->groups[g].members[node].present && (!damaged || g == chosen) &&
            world->groups[g].grave_count < RW_GRAVES_MAX)
            member_lose(&world->groups[g].members[node], damaged);
}

/* ---- the network ---- */

static void cut_none(struct rw_world *world)
{
    memset(world->cut, 0, sizeof(world->cut));
}

static void cut_in_two(struct rw_world *world)
{
    uint64_t side = rw_random(world);

    for (int i = 0; i < world->node_count; i++)
        for (int j = 0; j < world->node_count; j++)
            world->cut[i][j] = (side >> i & 1) != (side >> j & 1);
}

static void cut_one_way(struct rw_world *world)
{
    for (int i = 0; i < world->node_count; i++) {
        int from = (int)rw_between(world, 0, world->node_count - 1);
        int to = (int)rw_between(world, 0, world->node_count - 1);

        if (from != to)
            world->cut[from][to] = true;
    }
}

static void cut_off(struct rw_world *world, int node)
{
    int64_t way = rw_between(world, 0, 3);

    for (int i = 0; i < world->node_count; i++) {
        if (i == node || rw_chance(world, 200))
            continue;
        world->cut[i][node] = way != 0;
        world->cut[node][i] = way != 1;
    }
}

/* ---- members ---- */

bool rw_change(struct rw_member *leader, const struct con_config *next)
{
    struct rw_world *world = leader->world;
    uint64_t index = 0;
    enum con_refusal refusal = con_raft_change(leader->raft, next, &index);

    rw_trace(world, "n%d g%d asked for a change to %u members: %d", leader->node,
             leader->group->number, next->count, refusal);
    for (uint32_t i = 0; i < next->count; i++)
        rw_trace(world, "         %" PRIx64 "%s%s", next->members[i].id,
                 next->members[i].voter ? " voter" : "",
                 next->members[i].witness ? " witness" : "");
    if (refusal == CON_NOT_CAUGHT_UP)
        rw_probe(world, RW_PROBE_not_caught_up);
    if (refusal == CON_TAKEN && world->faulting && world->swarm.faults & 1u << F_CRASH_LEADER &&
        rw_chance(world, 250))
        rw_push(world, world->now + rw_between(world, 0, 20 * RW_MS), RW_EV_CRASH, leader->node, 0,
                0, 0, NULL);
    rw_member_input(leader);
    return refusal == CON_TAKEN;
}

static void add(struct rw_group *group)
{
    struct rw_world *world = group->world;
    struct rw_member *member = &group->members[rw_between(world, 0, world->node_count - 1)];

    if (member->present) {
        if (member->joining || wanted(group, member->disk.id) || !may_lose(group, member->disk.id))
            return;
        rw_member_bury(member);
        rw_contact_crash(world, member->node);
    }
    member->why = RW_NEW;
    rw_member_join(member, rw_chance(world, 150), rw_chance(world, 200));
}

static void forget_joining(struct rw_group *group, const struct con_config *before,
                           const struct con_config *after)
{
    for (uint32_t i = 0; i < before->count; i++)
        if (!con_config_member(after, before->members[i].id) && alive(group, before->members[i].id))
            group->members[rw_id_node(before->members[i].id)].joining = false;
}

static void remove_some(struct rw_group *group, bool many)
{
    struct rw_world *world = group->world;
    struct rw_member *leader = rw_leader(group);
    struct con_config now, next;

    if (!leader || !rw_awake(world, leader->node))
        return;
    now = *con_raft_status(leader->raft).config;
    next = now;
    if (now.count < 2)
        return;
    if (!many)
        con_config_remove(&next, now.members[rw_between(world, 0, now.count - 1)].id);
    for (uint32_t i = 0; many && i < now.count; i++) {
        struct con_member value = now.members[i];
        bool room;

        if (value.voter && rw_chance(world, 300)) {
            con_config_remove(&next, value.id);
        } else if (!value.voter && rw_chance(world, 500)) {
            value.voter = true;
            room = con_config_put(&next, &value);
            BASE_ASSERT(room);
        }
    }
    /* Nobody in their senses leaves a group to members that are gone for good. */
    if (config_survives(group, &next, 0) && rw_change(leader, &next))
        forget_joining(group, &now, &next);
}

void rw_tidy(struct rw_group *group)
{
    struct rw_member *leader = rw_leader(group);
    struct con_config next;
    bool change = false;

    if (!leader)
        return;
    next = *con_raft_status(leader->raft).config;
    for (uint32_t i = next.count; i-- > 0;)
        if (!alive(group, next.members[i].id) &&
            !group->members[rw_id_node(next.members[i].id)].joining)
            change |= con_config_remove(&next, next.members[i].id);
    if (change)
        rw_change(leader, &next);
}

static void transfer(struct rw_group *group)
{
    struct rw_world *world = group->world;
    struct rw_member *leader = rw_leader(group);
    const struct con_config *config;
    enum con_refusal refusal;

    if (!leader || !rw_awake(world, leader->node))
        return;
    config = con_raft_status(leader->raft).config;
    refusal = con_raft_transfer(leader->raft,
                                config->members[rw_between(world, 0, config->count - 1)].id);
    rw_trace(world, "n%d g%d asked to transfer: %d", leader->node, group->number, refusal);
    rw_member_input(leader);
}

/* ---- one at a time ---- */

static void do_fault(struct rw_world *world, enum rw_fault fault)
{
    int node = (int)rw_between(world, 0, world->node_count - 1);
    struct rw_group *group = &world->groups[rw_between(world, 0, world->swarm.group_count - 1)];
    struct rw_member *leader = rw_leader(group);
    int at = leader ? leader->node : node;

    rw_trace(world, "fault %d, node %d, leader's %d", (int)fault, node, at);
    switch (fault) {
    case F_HEAL:
        cut_none(world);
        break;
    case F_CRASH:
        node_crash(world, node, down_time(world));
        break;
    case F_CRASH_LEADER:
        node_crash(world, at, down_time(world));
        break;
    case F_CRASH_ALL:
        for (int i = 0; i < world->node_count; i++)
            node_crash(world, i, down_time(world));
        break;
    case F_LOSE:
    case F_DAMAGE:
        node_lose(world, node, fault == F_DAMAGE);
        break;
    case F_PAUSE:
        node_pause(world, node);
        break;
    case F_PAUSE_LEADER:
        node_pause(world, at);
        break;
    case F_JUMP:
        node_clock(world, node, rw_between(world, RW_S / 2, 20 * RW_S),
                   world->nodes[node].clock_rate);
        rw_probe(world, RW_PROBE_clock_jumped);
        break;
    case F_RATE:
        node_clock(world, node, 0, PICK(world, 512, 900, 1024, 1200, 2048));
        break;
    case F_PARTITION:
        cut_in_two(world);
        break;
    case F_ONE_WAY:
        cut_one_way(world);
        break;
    case F_ISOLATE_LEADER:
        cut_off(world, at);
        if (world->swarm.faults & 1u << F_RATE && rw_chance(world, 500))
            node_clock(world, at, 0, 200); /* it will believe to lead for long */
        break;
    case F_SLOW_DISK:
        world->nodes[node].disk_max = PICK(world, 1, 20, 200, 1500) * RW_MS;
        break;
    case F_LOSSY:
        world->swarm.loss = (uint32_t)PICK(world, 0, 20, 100, 400);
        break;
    case F_ADD:
        add(group);
        break;
    case F_REMOVE:
    case F_RESHUFFLE:
        remove_some(group, fault == F_RESHUFFLE);
        break;
    case F_TRANSFER:
        transfer(group);
        break;
    case F_COUNT:
        break;
    }
}

void rw_fault_leader(struct rw_member *member)
{
    struct rw_world *world = member->world;
    int64_t trip = 2 * world->swarm.delay_max + world->nodes[member->node].disk_max;

    if (!world->faulting || !rw_chance(world, world->swarm.short_lived))
        return;
    cut_none(world);
    for (int i = 0; i < world->node_count; i++)
        world->cut[member->node][i] =
            i != member->node && rw_chance(world, world->swarm.short_lived_cut);
    rw_push(world, world->now + rw_between(world, 0, rw_chance(world, 700) ? 4 * trip : RW_S),
            RW_EV_CRASH, member->node, 0, 0, 1, NULL);
}

void rw_fault_event(struct rw_world *world, const struct rw_event *event)
{
    enum rw_fault fault;

    if (event->kind == RW_EV_RESTART) {
        node_restart(world, event->node);
        return;
    }
    if (!world->faulting)
        return;
    if (event->kind == RW_EV_CRASH) {
        if (event->arg)
            cut_none(world);
        node_crash(world, event->node, down_time(world));
        return;
    }
    do {
        fault = (enum rw_fault)(rw_random(world) % F_COUNT);
    } while (!(world->swarm.faults >> fault & 1));
    do_fault(world, fault);
    rw_push(world, world->now + rw_between(world, 0, 2 * world->swarm.fault_mean), RW_EV_FAULT, 0,
            0, 0, 0, NULL);
}

void rw_faults_end(struct rw_world *world)
{
    rw_trace(world, "the faults end");
    world->faulting = false;
    cut_none(world);
    for (int i = 0; i < world->node_count; i++) {
        world->nodes[i].paused_till = 0;
        world->nodes[i].disk_max = 5 * RW_MS;
        node_restart(world, i);
        node_clock(world, i, 0, 1024);
    }
}
