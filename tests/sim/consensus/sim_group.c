/* Groups of real members: what each fault, alone and on purpose, must lead to. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "group_world.h"
#include "test.h"

static struct world *started(uint64_t seed, int count)
{
    struct world *world = world_new(ch_sim_seed(seed), count, false);

    world_start(world);
    cr_assert(world_until(world, world_whole, 10 * CH_S), "the group does not form");
    world_run(world, 200 * CH_MS);
    return world;
}

/* More is acknowledged within `time`. */
static void goes_on(struct world *world, ch_time time)
{
    ch_time end = ch_sim_now(world->sim) + time;
    uint64_t before = world->acked;

    while (world->acked < before + 10 && ch_sim_now(world->sim) < end)
        world_run(world, 10 * CH_MS);
    cr_assert(world->acked >= before + 10, "only %" PRIu64 " more commands in %" PRId64 " ms",
              world->acked - before, (int64_t)(time / CH_MS));
}

static struct member *a_follower(struct world *world)
{
    struct member *leader = world_leader(world);

    return &world->members[leader->number == 1 ? 2 : 1];
}

static uint64_t id_of(struct world *world, const struct member *member)
{
    struct con_log_view view;

    con_log_look(world_leader(world)->log, &view);
    for (size_t i = 0; i < view.count; i++)
        if (strcmp(view.members[i].member.address, member->target) == 0)
            return view.members[i].member.id;
    return 0;
}

/* The member comes to be one under another id than `before`. */
static void comes_back(struct world *world, const struct member *member, uint64_t before)
{
    for (int i = 0; i < 1000 && (!world_leader(world) || !id_of(world, member) ||
                                 id_of(world, member) == before);
         i++)
        world_run(world, 10 * CH_MS);
    cr_assert(world_until(world, world_whole, 10 * CH_S), "it is not taken back");
    cr_assert(id_of(world, member) != before);
}

static struct base_status wish(struct world *world, enum wish what, uint64_t member)
{
    struct member *leader = world_leader(world);

    leader->wish_member = member;
    leader->wish_done = false;
    leader->wish = what;
    for (int i = 0; i < 500 && !leader->wish_done; i++)
        world_run(world, 10 * CH_MS);
    cr_assert(leader->wish_done);
    return base_status_copy(&leader->wished);
}

static void ok(struct base_status status)
{
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
}

Test(sim_group, three_form_a_group)
{
    /* One founds, the others ask to be let in and become voters; all apply the same. */
    struct world *world = started(1, 3);

    goes_on(world, CH_S);
    world_end(world);
    world_free(world);
}

Test(sim_group, five_outlive_two)
{
    /* Five members go on while any two are dead, and take them back. */
    struct world *world = started(2, 5);

    member_crash(world_leader(world));
    world_run(world, 2 * CH_S);
    member_crash(world_leader(world));
    goes_on(world, 2 * CH_S);
    world_start(world);
    world_end(world);
    world_free(world);
}

Test(sim_group, a_leader_that_dies_is_replaced)
{
    /* Whoever leads, when it dies another leads within a few election timeouts, and nothing that
     * was acknowledged is gone. */
    struct world *world = started(3, 3);

    for (int i = 0; i < 6; i++) {
        struct member *leader = world_leader(world);

        member_crash(leader);
        goes_on(world, 5 * world->election);
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
    struct world *world = started(4, 3);
    struct member *leader = world_leader(world);

    world->gap_max = 0;
    member_stop(leader);
    goes_on(world, CH_S);
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
        struct world *world = started(50 + (uint64_t)way, 3);
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
        goes_on(world, 3 * CH_S);
        cr_assert(world_leader(world) != leader);
        world_end(world);
        world_free(world);
    }
}

Test(sim_group, a_paused_leader_comes_back_as_a_follower)
{
    /* SIGSTOP for longer than an election: what it believed when it goes on is over. */
    struct world *world = started(6, 3);
    struct member *leader = world_leader(world);

    ch_sim_pause(leader->node, true);
    world_run(world, 2 * world->election);
    goes_on(world, 2 * CH_S);
    ch_sim_pause(leader->node, false);
    goes_on(world, CH_S);
    world_end(world);
    world_free(world);
}

Test(sim_group, a_lost_disk_is_another_member)
{
    /* A member that lost its disk comes back under another id, in the place of the old one, and
     * never votes under the old. With the log in the snapshot alone, it gets that. */
    struct world *world = started(7, 3);
    struct member *follower = a_follower(world);
    uint64_t before = id_of(world, follower);

    goes_on(world, CH_S);
    world_run(world, 2 * CH_S);
    member_crash(follower);
    member_lose(follower);
    goes_on(world, CH_S);
    member_start(follower);
    comes_back(world, follower, before);
    world_end(world);
    world_free(world);
}

Test(sim_group, a_damaged_log_is_set_aside)
{
    /* A bit flipped in the log of a member with others: its log is set aside, not served from and
     * not cut; it begins anew under another id. */
    struct world *world = started(8, 3);
    struct member *follower = a_follower(world);
    uint64_t before = id_of(world, follower);

    world_run(world, 4 * CH_S);
    member_stop(follower);
    cr_assert(member_flip(follower));
    member_start(follower);
    comes_back(world, follower, before);
    world_end(world);
    world_free(world);
}

Test(sim_group, who_was_removed_stays_away)
{
    /* Removing is on purpose: the member does not ask to come back, until its disk is emptied. */
    struct world *world = started(9, 3);
    struct member *follower = a_follower(world);
    struct con_log_view view;

    ok(wish(world, WISH_REMOVE, id_of(world, follower)));
    world_run(world, 3 * CH_S);
    con_log_look(world_leader(world)->log, &view);
    cr_assert_eq(view.count, (size_t)2);
    member_stop(follower);
    member_start(follower);
    goes_on(world, 3 * CH_S);
    con_log_look(world_leader(world)->log, &view);
    cr_assert_eq(view.count, (size_t)2, "it came back by itself");
    member_stop(follower);
    member_lose(follower);
    member_start(follower);
    cr_assert(world_until(world, world_whole, 10 * CH_S), "emptied, it is not taken back");
    world_end(world);
    world_free(world);
}

Test(sim_group, a_removal_that_would_stop_the_group_is_refused)
{
    /* With one member dead, taking out the other that lives would leave a leader that commits
     * nothing more, not even the way back: refused, and the text names who is silent. Taking out
     * the dead one is what should be done. */
    struct world *world = started(20, 3);
    struct member *dead = a_follower(world), *lives;
    uint64_t dead_id = id_of(world, dead), lives_id;
    struct base_status status;
    char name[64];

    member_crash(dead);
    world_run(world, 3 * world->election);
    lives = &world->members[3 - dead->number - world_leader(world)->number];
    lives_id = id_of(world, lives);
    status = wish(world, WISH_REMOVE, lives_id);
    snprintf(name, sizeof(name), "member %016" PRIx64 " at %s", dead_id, dead->target);
    cr_assert_eq(status.code, BASE_FAILED_PRECONDITION, "%s", base_status_text(&status));
    cr_assert(strstr(base_status_text(&status), name), "%s", base_status_text(&status));
    snprintf(name, sizeof(name), "%016" PRIx64, lives_id);
    cr_assert(!strstr(base_status_text(&status), name), "%s", base_status_text(&status));
    base_status_free(&status);
    goes_on(world, CH_S);
    ok(wish(world, WISH_REMOVE, dead_id));
    goes_on(world, CH_S);
    member_lose(dead);
    member_start(dead);
    world_end(world);
    world_free(world);
}

Test(sim_group, witnesses_alone_are_never_left)
{
    /* A voter with a state is not removed when only a witness would be left. */
    struct world *world = world_new(ch_sim_seed(21), 2, false);
    struct base_status status;

    world->members[1].witness = true;
    world_start(world);
    cr_assert(world_until(world, world_whole, 10 * CH_S));
    world_run(world, 200 * CH_MS);
    status = wish(world, WISH_REMOVE, id_of(world, &world->members[0]));
    cr_assert_eq(status.code, BASE_FAILED_PRECONDITION, "%s", base_status_text(&status));
    base_status_free(&status);
    goes_on(world, CH_S);
    world_end(world);
    world_free(world);
}

Test(sim_group, a_voter_that_is_not_caught_up_stays_a_learner)
{
    /* Made a voter before it has the log, it would be counted and could not answer: the call waits,
     * and when its time is over the member is a learner still, and the group has not stopped. */
    struct world *world = world_new(ch_sim_seed(22), 3, false);
    struct member *slow = &world->members[2];
    struct con_log_view view;
    struct base_status status;

    slow->learner = true;
    world_start(world);
    cr_assert(world_until(world, world_whole, 10 * CH_S));
    world_run(world, 200 * CH_MS);
    member_crash(slow);
    world_run(world, 2 * world->election);
    status = wish(world, WISH_VOTER, id_of(world, slow));
    cr_assert_eq(status.code, BASE_DEADLINE_EXCEEDED, "%s", base_status_text(&status));
    base_status_free(&status);
    con_log_look(world_leader(world)->log, &view);
    for (size_t i = 0; i < view.count; i++)
        cr_assert(view.members[i].member.voter ==
                  (strcmp(view.members[i].member.address, slow->target) != 0));
    goes_on(world, CH_S);
    member_start(slow);
    world_run(world, CH_S);
    ok(wish(world, WISH_VOTER, id_of(world, slow)));
    world_end(world);
    world_free(world);
}

Test(sim_group, a_leader_removes_itself_and_hands_over)
{
    /* Transfer leads at once to another leader; a leader that is removed commits that and goes. */
    struct world *world = started(10, 3);
    struct member *leader = world_leader(world);
    uint64_t id = id_of(world, leader);

    world->gap_max = 0;
    ok(wish(world, WISH_TRANSFER, id_of(world, a_follower(world))));
    cr_assert(world_leader(world) != leader || !leader->led);
    goes_on(world, CH_S);
    cr_assert(world->gap_max < world->election, "%" PRId64 " ms",
              (int64_t)(world->gap_max / CH_MS));
    leader = world_leader(world);
    id = id_of(world, leader);
    base_status_drop(wish(world, WISH_REMOVE, id));
    world_run(world, 2 * world->election);
    goes_on(world, 2 * CH_S);
    cr_assert(world_leader(world) != leader);
    cr_assert_eq(id_of(world, leader), (uint64_t)0);
    member_stop(leader);
    member_lose(leader);
    member_start(leader);
    world_end(world);
    world_free(world);
}

Test(sim_group, a_witness_votes_and_has_no_state)
{
    /* Two members and a witness: when the leader dies the other leads by the witness's vote; the
     * witness's machine is never called. */
    struct world *world = world_new(ch_sim_seed(11), 3, false);

    world->members[2].witness = true;
    world_start(world);
    cr_assert(world_until(world, world_whole, 10 * CH_S));
    world_run(world, 2 * CH_S);
    for (int i = 0; i < 4; i++) {
        struct member *leader = world_leader(world);

        cr_assert(leader->number != 2);
        member_crash(leader);
        goes_on(world, 3 * CH_S);
        member_start(leader);
        cr_assert(world_until(world, world_whole, 10 * CH_S));
    }
    world_end(world);
    cr_assert_eq(world->members[2].list.count, (size_t)0);
    world_free(world);
}

/* Two members and a witness; the follower with a state is dead while about `bytes` of commands are
 * written. Returns it. */
static struct member *behind(struct world *world, uint64_t bytes)
{
    uint64_t until;
    struct member *follower;

    world->members[2].witness = true;
    world_start(world);
    cr_assert(world_until(world, world_whole, 10 * CH_S));
    world_run(world, 200 * CH_MS);
    follower = &world->members[1 - world_leader(world)->number];
    member_crash(follower);
    until = world->acked + bytes / world->command_len;
    for (int i = 0; i < 3000 && world->acked < until; i++)
        world_run(world, 10 * CH_MS);
    cr_assert(world->acked >= until);
    return follower;
}

Test(sim_group, a_witness_keeps_what_a_voter_lacks)
{
    /* What a witness drops it cannot hand on, as it has no state. So when the leader dies, a voter
     * that was away gets from the witness all that it missed, and leads: though the witness itself
     * was started anew meanwhile. */
    for (int memory = 0; memory < 2; memory++) {
        struct world *world = world_new(ch_sim_seed(24), 3, memory);
        struct member *follower, *leader;

        world->command_len = 400;
        follower = behind(world, 4 * world->snapshot_bytes);
        leader = world_leader(world);
        cr_assert(leader != &world->members[2] && leader != follower);
        member_crash(&world->members[2]);
        member_start(&world->members[2]);
        goes_on(world, 3 * CH_S);
        member_crash(leader);
        member_start(follower);
        goes_on(world, 20 * world->election);
        cr_assert(world_leader(world) == follower);
        member_start(leader);
        world_end(world);
        world_free(world);
    }
}

Test(sim_group, a_witness_keeps_no_more_than_it_has_room_for)
{
    /* A voter that is away for very long does not fill the witness's disk: then it drops, and that
     * voter needs one with a state. When all have all, it drops as the others do. */
    struct world *world = world_new(ch_sim_seed(25), 3, true);
    struct member *follower;
    struct con_memory_view view;

    world->command_len = 1000;
    follower = behind(world, 12 * world->snapshot_bytes);
    con_memory_look(world->members[2].memory, &view);
    cr_assert(view.snapshot_index > 0 && view.first > 1, "nothing was dropped");
    cr_assert((view.last - view.first) * world->command_len < 9 * world->snapshot_bytes);
    member_start(follower);
    cr_assert(world_until(world, world_whole, 10 * CH_S));
    world_run(world, 5 * CH_S);
    con_memory_look(world->members[2].memory, &view);
    cr_assert((view.last - view.first) * world->command_len < 3 * world->snapshot_bytes,
              "%" PRIu64 " entries are kept that all have", view.last - view.first);
    world_end(world);
    world_free(world);
}

Test(sim_group, a_learner_stays_one)
{
    /* Who joins as a learner gets everything and has no say: the group of two voters stops without
     * one of them, and goes on without the learner. */
    struct world *world = world_new(ch_sim_seed(12), 3, false);
    struct con_log_view view;
    uint64_t before;

    world->members[2].learner = true;
    world_start(world);
    cr_assert(world_until(world, world_whole, 10 * CH_S));
    con_log_look(world_leader(world)->log, &view);
    for (size_t i = 0; i < view.count; i++)
        cr_assert_eq(view.members[i].member.voter,
                     strcmp(view.members[i].member.address, world->members[2].target) != 0);
    member_crash(&world->members[2]);
    goes_on(world, CH_S);
    member_start(&world->members[2]);
    cr_assert(world_until(world, world_whole, 10 * CH_S));
    member_crash(a_follower(world) == &world->members[2] ? &world->members[0] : a_follower(world));
    world_run(world, CH_S);
    before = world->acked;
    world_run(world, 2 * CH_S);
    cr_assert_eq(world->acked, before);
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
    struct world *world = started(13, 3);
    struct member *leader = world_leader(world);

    ch_sim_disk_limit(leader->node, 1);
    world_run(world, 4 * world->election);
    goes_on(world, 3 * CH_S);
    cr_assert(world_leader(world) != leader);
    ch_sim_disk_limit(leader->node, 0);
    world_end(world);
    world_free(world);
}

Test(sim_group, a_disk_that_hangs_hands_over)
{
    /* A leader whose disk answers no more acknowledges nothing, though the others could: it hands
     * over. */
    struct world *world = started(17, 3);
    struct member *leader = world_leader(world);

    ch_sim_disk_delay(leader->node, 20 * CH_S, 20 * CH_S);
    world_run(world, 4 * world->election);
    goes_on(world, 3 * CH_S);
    cr_assert(world_leader(world) != leader);
    ch_sim_disk_delay(leader->node, 100 * CH_US, 300 * CH_US);
    member_crash(leader);
    world_end(world);
    world_free(world);
}

Test(sim_group, a_failed_sync_ends_a_member)
{
    /* After a failed sync nobody knows what the disk holds: the member ends (its owner's doing),
     * the others go on, and its next life begins from what is there. */
    struct world *world = started(14, 3);
    struct member *leader = world_leader(world);

    ch_sim_disk_fail_sync(leader->node, true);
    goes_on(world, 3 * CH_S);
    cr_assert(!ch_sim_running(leader->node));
    ch_sim_disk_fail_sync(leader->node, false);
    member_start(leader);
    world_end(world);
    world_free(world);
}

Test(sim_group, one_becomes_three)
{
    /* A log that was written alone is opened as a group's: its member gets its address, and others
     * join it. */
    struct world *world = world_new(ch_sim_seed(15), 3, false);

    world->members[0].as_alone = true;
    member_start(&world->members[0]);
    goes_on(world, 2 * CH_S);
    member_stop(&world->members[0]);
    world->members[0].as_alone = false;
    world_start(world);
    cr_assert(world_until(world, world_whole, 10 * CH_S));
    member_stop(&world->members[0]);
    world->members[0].as_alone = true; /* and alone no more */
    member_start(&world->members[0]);
    world_run(world, 100 * CH_MS);
    cr_assert_eq(world->members[0].opened.code, BASE_FAILED_PRECONDITION);
    world->members[0].as_alone = false;
    world_end(world);
    world_free(world);
}

Test(sim_group, a_founder_that_lost_its_disk_founds_no_second_group)
{
    /* `found` said twice, after the disk was lost: the others know the group, so it joins. */
    struct world *world = started(16, 3);
    struct member *first = &world->members[0];

    member_crash(first);
    member_lose(first);
    first->found = true;
    member_start(first);
    cr_assert(world_until(world, world_whole, 10 * CH_S));
    world_end(world);
    world_free(world);
}
