/* Groups of three and five real members under everything at once, from seeds: crashes with loss of
 * what was not synced, cuts (one way too), pauses, slow links and disks, resets, clock jumps, full
 * disks, failed syncs, lost disks, flipped bits, removals, transfers; snapshots go on all the time.
 * What must hold is checked at every step (group_world.c) and at the end: all that was
 * acknowledged is there, once, in its place, on every member.
 *
 * A disk is only lost (or damaged, or a member removed) while the group is whole: a second loss
 * before the first is made good may take the quorum with it, for good. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "group_world.h"
#include "seeds.h"
#include "test.h"

static uint64_t below(struct world *world, uint64_t bound)
{
    return ch_sim_random(world->sim) % bound;
}

static struct member *any(struct world *world)
{
    return &world->members[below(world, (uint64_t)world->count)];
}

static void cut(struct world *world, bool one_way)
{
    struct member *a = any(world), *b = any(world);

    ch_sim_net_cut(world->sim, a->host, b->host, true);
    if (!one_way)
        ch_sim_net_cut(world->sim, b->host, a->host, true);
}

/* All links of one, into it or out of it. */
static void isolate(struct world *world, struct member *member, uint64_t ways)
{
    for (int i = 0; i < world->count; i++) {
        if (ways != 1)
            ch_sim_net_cut(world->sim, member->host, world->members[i].host, true);
        if (ways != 0)
            ch_sim_net_cut(world->sim, world->members[i].host, member->host, true);
    }
}

/* Something that costs the group a member, until another takes its place. */
static void lose_one(struct world *world)
{
    struct member *member = any(world), *leader = world_leader(world);
    struct con_log_view view;

    if (!world_whole(world))
        return;
    switch (below(world, 3)) {
    case 0:
        member_crash(member);
        member_lose(member);
        break;
    case 1:
        member_stop(member);
        (void)member_flip(member);
        break;
    default:
        con_log_look(leader->log, &view);
        for (size_t i = 0; i < view.count; i++)
            if (strcmp(view.members[i].member.address, member->target) == 0)
                leader->wish_member = view.members[i].member.id;
        leader->wish_done = false;
        leader->wish = WISH_REMOVE;
        for (int i = 0; i < 100 && !leader->wish_done; i++)
            world_run(world, 10 * CH_MS);
        /* It may still come to be: so it does not keep its disk. */
        if (ch_sim_running(member->node))
            member_crash(member);
        member_lose(member);
    }
}

static void fault(struct world *world)
{
    struct member *member = any(world), *leader = world_leader(world);

    if (below(world, 3) == 0 && leader)
        member = leader;
    switch (below(world, 18)) {
    case 0:
    case 1:
    case 2:
        if (ch_sim_running(member->node))
            member_crash(member);
        break;
    case 3:
        if (ch_sim_running(member->node))
            member_stop(member);
        break;
    case 4:
    case 5:
        cut(world, below(world, 2));
        break;
    case 6:
        isolate(world, member, below(world, 3));
        break;
    case 7:
        ch_sim_pause(member->node, true);
        break;
    case 8:
        ch_sim_net_slow(world->sim, member->host, any(world)->host,
                        (ch_time)below(world, 300) * CH_MS);
        break;
    case 9:
        ch_sim_net_flaky(world->sim, (uint32_t)below(world, 20000));
        break;
    case 10:
        ch_sim_clock_jump(member->node, (int64_t)below(world, 20000000) - 10000000);
        break;
    case 11:
        ch_sim_disk_delay(member->node, 100 * CH_US, (ch_time)(1 + below(world, 100)) * CH_MS);
        break;
    case 12:
        if (member->memory)
            con_memory_limit(member->memory, 1);
        else
            ch_sim_disk_limit(member->node, 1);
        break;
    case 13:
        if (member->memory)
            con_memory_fail_write(member->memory, BASE_UNAVAILABLE, below(world, 4));
        else
            ch_sim_disk_fail_sync(member->node, true);
        break;
    case 14:
        if (leader)
            leader->wish = WISH_TRANSFER;
        if (leader)
            leader->wish_member = 0;
        break;
    case 15: /* the power of the whole room, while disks are slow */
        for (int i = 0; i < world->count; i++)
            ch_sim_disk_delay(world->members[i].node, 5 * CH_MS, 50 * CH_MS);
        world_run(world, 300 * CH_MS);
        for (int i = 0; i < world->count; i++)
            if (ch_sim_running(world->members[i].node))
                member_crash(&world->members[i]);
        for (int i = 0; i < world->count; i++)
            if (below(world, 4))
                member_start(&world->members[i]);
        break;
    default:
        lose_one(world);
    }
}

static void heal(struct world *world)
{
    if (below(world, 2))
        ch_sim_net_heal(world->sim);
    for (int i = 0; i < world->count; i++) {
        struct member *member = &world->members[i];

        if (below(world, 2))
            ch_sim_pause(member->node, false);
        if (below(world, 2))
            ch_sim_disk_limit(member->node, 0);
        if (below(world, 2))
            ch_sim_disk_fail_sync(member->node, false);
        ch_sim_disk_delay(member->node, 100 * CH_US, 300 * CH_US);
        if (member->memory)
            con_memory_limit(member->memory, 0);
        if (below(world, 3) && !ch_sim_running(member->node))
            member_start(member);
    }
}

static void run_seed(uint64_t seed, int count, bool memory, uint64_t totals[4])
{
    struct world *world = world_new(seed, count, memory);

    world_start(world);
    world_until(world, world_led, 5 * CH_S);
    for (int i = 0; i < 60; i++) {
        if (below(world, 5) < 2)
            fault(world);
        else if (below(world, 3) == 0)
            heal(world);
        world_run(world, (ch_time)(10 + below(world, 200)) * CH_MS);
    }
    world_end(world);
    totals[0] += world->acked;
    totals[1] += world->reads;
    totals[2] += world->unknown;
    totals[3] += world->refused;
    world_free(world);
}

static void run_seeds(uint64_t first, int seeds, int count, bool memory)
{
    const char *one = getenv("STRATA_SEED"), *more = getenv("STRATA_SEEDS");
    uint64_t totals[4] = { 0 };

    seeds = more ? atoi(more) : (int)seeds_count((uint64_t)seeds);
    if (one) {
        first = strtoull(one, NULL, 10);
        seeds = 1;
    }
    for (int i = 0; i < seeds; i++)
        run_seed(first + (uint64_t)i, count, memory, totals);
    printf("%d seeds from %" PRIu64 ": %" PRIu64 " acknowledged, %" PRIu64 " reads, %" PRIu64
           " unknown, %" PRIu64 " refused\n",
           seeds, first, totals[0], totals[1], totals[2], totals[3]);
    cr_assert(totals[0] > 100 * (uint64_t)seeds && totals[1] > 50 * (uint64_t)seeds);
}

Test(sim_group_faults, three_on_disks, .timeout = 100000)
{
    run_seeds(1000, 40, 3, false);
}

Test(sim_group_faults, five_on_disks, .timeout = 100000)
{
    run_seeds(2000, 20, 5, false);
}

Test(sim_group_faults, three_in_memory, .timeout = 100000)
{
    /* The same over a store that the caller brings: the group needs nothing of the local one. */
    run_seeds(3000, 40, 3, true);
}
