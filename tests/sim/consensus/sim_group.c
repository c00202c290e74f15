/* Groups of real members: what each fault, alone and on purpose, must lead to. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "group_world.h"
#include "test.h"

/* The member comes to be one under another id than `before`. */
static void comes_back(struct world *world, const struct member *member, uint64_t before)
{
    for (int i = 0; i < 1000 && (!world_leader(world) || !member_id(world, member) ||
                                 member_id(world, member) == before);
         i++)
        world_run(world, 10 * CH_MS);
    cr_assert(world_until(world, world_whole, 10 * CH_S), "it is not taken back");
    cr_assert(member_id(world, member) != before);
}

Test(sim_group, three_form_a_group)
{
    /* One founds, the others ask to be let in and become voters; all apply the same. */
    struct world *world = world_formed(1, 3);

    world_goes_on(world, CH_S);
    world_end(world);
    world_free(world);
}

Test(sim_group, five_outlive_two)
{
    /* Five members go on while any two are dead, and take them back. */
    struct world *world = world_formed(2, 5);

    member_crash(world_leader(world));
    world_run(world, 2 * CH_S);
    member_crash(world_leader(world));
    world_goes_on(world, 2 * CH_S);
    world_start(world);
    world_end(world);
    world_free(world);
}

Test(sim_group, a_leader_that_dies_is_replaced)
{
    /* Whoever leads, when it dies another leads within a few election timeouts, and nothing that
     * was acknowledged is gone. */
    struct world *world = world_formed(3, 3);

    for (int i = 0; i < 6; i++) {
        struct member *leader = world_leader(world);

        member_crash(leader);
        world_goes_on(world, 5 * world->election);
        member_start(leader);
        world_run(world, 300 * CH_MS);
    }
    world_end(world);
    world_free(world);
}

Test(sim_group, a_leader_that_stops_hands_over)
{
    /* An orderly stop does not cost the others an election timeout: leadership was handed over
     * before. */
    struct world *world = world_formed(4, 3);
    struct member *leader = world_leader(world);

    world->gap_max = 0;
    member_stop(leader);
    world_goes_on(world, CH_S);
    cr_assert(world->gap_max < world->election, "nothing was acknowledged for %" PRId64 " ms",
              (int64_t)(world->gap_max / CH_MS));
    world_end(world);
    world_free(world);
}

Test(sim_group, a_leader_cut_off_answers_no_reads)
{
    /* A leader that reaches nobody must not answer a read: another may have been elected. The
     * checks of every answer tell; here it is cut off one way, then the other. */
    for (int way = 0; way < 3; way++) {
        struct world *world = world_formed(50 + (uint64_t)way, 3);
        struct member *leader = world_leader(world);

        for (int i = 0; i < world->count; i++) {
            if (i == leader->number)
                continue;
            if (way != 1)
                ch_sim_net_cut(world->sim, leader->host, world->members[i].host, true);
            if (way != 0)
                ch_sim_net_cut(world->sim, world->members[i].host, leader->host, true);
        }
        world_run(world, CH_S);
        world_goes_on(world, 3 * CH_S);
        cr_assert(world_leader(world) != leader);
        world_end(world);
        world_free(world);
    }
}

Test(sim_group, a_paused_leader_comes_back_as_a_follower)
{
    /* SIGSTOP for longer than an election: what it believed when it goes on is over. */
    struct world *world = world_formed(6, 3);
    struct member *leader = world_leader(world);

    ch_sim_pause(leader->node, true);
    world_run(world, 2 * world->election);
    world_goes_on(world, 2 * CH_S);
    ch_sim_pause(leader->node, false);
    world_goes_on(world, CH_S);
    world_end(world);
    world_free(world);
}

Test(sim_group, a_lost_disk_is_another_member)
{
    /* A member that lost its disk comes back under another id, in the place of the old one, and
     * never votes under the old. With the log in the snapshot alone, it gets that. */
    struct world *world = world_formed(7, 3);
    struct member *follower = world_follower(world);
    uint64_t before = member_id(world, follower);

    world_goes_on(world, CH_S);
    world_run(world, 2 * CH_S);
    member_crash(follower);
    member_lose(follower);
    world_goes_on(world, CH_S);
    member_start(follower);
    comes_back(world, follower, before);
    world_end(world);
    world_free(world);
}

Test(sim_group, a_damaged_log_is_set_aside)
{
    /* A bit flipped in the log of a member with others: its log is set aside, not served from and
     * not cut; it begins anew under another id. */
    struct world *world = world_formed(8, 3);
    struct member *follower = world_follower(world);
    uint64_t before = member_id(world, follower);

    world_run(world, 4 * CH_S);
    member_stop(follower);
    cr_assert(member_flip(follower));
    member_start(follower);
    comes_back(world, follower, before);
    world_end(world);
    world_free(world);
}

Test(sim_group, members_of_one_disk_do_not_snapshot_together)
{
    /* All see the same log, and several may share a disk (a cell on one machine): would all write
     * their state when it has come to the same size, all were slow at once. So each has a size of
     * its own, near the one asked for. */
    enum { ENTRIES = 200 }; /* about as many as fit between two snapshots */
    struct world *world = world_new(ch_sim_seed(23), 3, true);
    uint64_t at[3] = { 0 };

    world->command_len = 1000;
    world->snapshot_bytes = ENTRIES * 1000;
    world_start(world);
    cr_assert(world_until(world, world_whole, 10 * CH_S));
    for (int step = 0; step < 3000 && (!at[0] || !at[1] || !at[2]); step++) {
        world_run(world, 10 * CH_MS);
        for (int i = 0; i < 3; i++) {
            struct con_memory_view view;

            con_memory_look(world->members[i].memory, &view);
            if (!at[i])
                at[i] = view.snapshot_index;
        }
    }
    for (int i = 0; i < 3; i++) {
        uint64_t a = at[i], b = at[(i + 1) % 3];

        cr_assert(a > ENTRIES * 6 / 10 && a < ENTRIES * 14 / 10, "%" PRIu64, a);
        cr_assert((a > b ? a - b : b - a) > ENTRIES / 20, "%" PRIu64 " and %" PRIu64, a, b);
    }
    world_end(world);
    world_free(world);
}

Test(sim_group, a_full_disk_hands_over)
{
    /* A leader whose disk is full for an election timeout is of no use: another leads. With space
     * again it follows. */
    struct world *world = world_formed(13, 3);
    struct member *leader = world_leader(world);

    ch_sim_disk_limit(leader->node, 1);
    world_run(world, 4 * world->election);
    world_goes_on(world, 3 * CH_S);
    cr_assert(world_leader(world) != leader);
    ch_sim_disk_limit(leader->node, 0);
    world_end(world);
    world_free(world);
}

Test(sim_group, a_disk_that_hangs_hands_over)
{
    /* A leader whose disk answers no more acknowledges nothing, though the others could: it hands
     * over. */
    struct world *world = world_formed(17, 3);
    struct member *leader = world_leader(world);

    ch_sim_disk_delay(leader->node, 20 * CH_S, 20 * CH_S);
    world_run(world, 4 * world->election);
    world_goes_on(world, 3 * CH_S);
    cr_assert(world_leader(world) != leader);
    ch_sim_disk_delay(leader->node, 100 * CH_US, 300 * CH_US);
    member_crash(leader);
    world_end(world);
    world_free(world);
}

Test(sim_group, disks_that_are_all_slow_move_no_leadership)
{
    /* A write that takes longer than an election timeout is no reason to hand over when the others'
     * take as long (members share a disk, or a machine is busy): leadership would go round, and
     * while it does nothing is taken. */
    struct world *world = world_formed(18, 3);
    uint64_t term, before;

    for (int i = 0; i < world->count; i++)
        ch_sim_disk_delay(world->members[i].node, 2 * world->election, 3 * world->election);
    world_run(world, world->election / 2);
    term = con_log_term(world_leader(world)->log);
    before = world->acked;
    world_run(world, 60 * world->election);
    cr_assert(world_led(world) && con_log_term(world_leader(world)->log) == term,
              "it was led in other terms");
    cr_assert(world->acked + world->unknown >= before + 10);
    for (int i = 0; i < world->count; i++)
        ch_sim_disk_delay(world->members[i].node, 100 * CH_US, 300 * CH_US);
    world_end(world);
    world_free(world);
}

Test(sim_group, a_failed_sync_ends_a_member)
{
    /* After a failed sync nobody knows what the disk holds: the member ends (its owner's doing),
     * the others go on, and its next life begins from what is there. */
    struct world *world = world_formed(14, 3);
    struct member *leader = world_leader(world);

    ch_sim_disk_fail_sync(leader->node, true);
    world_goes_on(world, 3 * CH_S);
    cr_assert(!ch_sim_running(leader->node));
    ch_sim_disk_fail_sync(leader->node, false);
    member_start(leader);
    world_end(world);
    world_free(world);
}

Test(sim_group, a_founder_that_lost_its_disk_founds_no_second_group)
{
    /* `found` said twice, after the disk was lost: the others know the group, so it joins. */
    struct world *world = world_formed(16, 3);
    struct member *first = &world->members[0];

    member_crash(first);
    member_lose(first);
    first->found = true;
    member_start(first);
    cr_assert(world_until(world, world_whole, 10 * CH_S));
    world_end(world);
    world_free(world);
}
