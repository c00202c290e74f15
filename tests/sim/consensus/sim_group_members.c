/* Who belongs to a group of real members: removed, made voters, witnesses, learners. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "group_world.h"
#include "test.h"

static void ok(struct base_status status)
{
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
}

Test(sim_group_members, who_was_removed_stays_away)
{
    /* Removing is on purpose: the member does not ask to come back, until its disk is emptied. */
    struct world *world = world_formed(9, 3);
    struct member *follower = world_follower(world);
    struct con_log_view view;

    ok(world_wish(world, WISH_REMOVE, member_id(world, follower)));
    world_run(world, 3 * CH_S);
    con_log_look(world_leader(world)->log, &view);
    cr_assert_eq(view.count, (size_t)2);
    member_stop(follower);
    member_start(follower);
    world_goes_on(world, 3 * CH_S);
    con_log_look(world_leader(world)->log, &view);
    cr_assert_eq(view.count, (size_t)2, "it came back by itself");
    member_stop(follower);
    member_lose(follower);
    member_start(follower);
    cr_assert(world_until(world, world_whole, 10 * CH_S), "emptied, it is not taken back");
    world_end(world);
    world_free(world);
}

Test(sim_group_members, a_removal_that_would_stop_the_group_is_refused)
{
    /* With one member dead, taking out the other that lives would leave a leader that commits
     * nothing more, not even the way back: refused, and the text names who is silent. Taking out
     * the dead one is what should be done. */
    struct world *world = world_formed(20, 3);
    struct member *dead = world_follower(world), *lives;
    uint64_t dead_id = member_id(world, dead), lives_id;
    struct base_status status;
    char name[64];

    member_crash(dead);
    world_run(world, 3 * world->election);
    lives = &world->members[3 - dead->number - world_leader(world)->number];
    lives_id = member_id(world, lives);
    status = world_wish(world, WISH_REMOVE, lives_id);
    snprintf(name, sizeof(name), "member %016" PRIx64 " at %s", dead_id, dead->target);
    cr_assert_eq(status.code, BASE_FAILED_PRECONDITION, "%s", base_status_text(&status));
    cr_assert(strstr(base_status_text(&status), name), "%s", base_status_text(&status));
    snprintf(name, sizeof(name), "%016" PRIx64, lives_id);
    cr_assert(!strstr(base_status_text(&status), name), "%s", base_status_text(&status));
    base_status_free(&status);
    world_goes_on(world, CH_S);
    ok(world_wish(world, WISH_REMOVE, dead_id));
    world_goes_on(world, CH_S);
    member_lose(dead);
    member_start(dead);
    world_end(world);
    world_free(world);
}

Test(sim_group_members, witnesses_alone_are_never_left)
{
    /* A voter with a state is not removed when only a witness would be left. */
    struct world *world = world_new(ch_sim_seed(21), 2, false);
    struct base_status status;

    world->members[1].witness = true;
    world_start(world);
    cr_assert(world_until(world, world_whole, 10 * CH_S));
    world_run(world, 200 * CH_MS);
    status = world_wish(world, WISH_REMOVE, member_id(world, &world->members[0]));
    cr_assert_eq(status.code, BASE_FAILED_PRECONDITION, "%s", base_status_text(&status));
    base_status_free(&status);
    world_goes_on(world, CH_S);
    world_end(world);
    world_free(world);
}

Test(sim_group_members, a_voter_that_is_not_caught_up_stays_a_learner)
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
    status = world_wish(world, WISH_VOTER, member_id(world, slow));
    cr_assert_eq(status.code, BASE_DEADLINE_EXCEEDED, "%s", base_status_text(&status));
    base_status_free(&status);
    con_log_look(world_leader(world)->log, &view);
    for (size_t i = 0; i < view.count; i++)
        cr_assert(view.members[i].member.voter ==
                  (strcmp(view.members[i].member.address, slow->target) != 0));
    world_goes_on(world, CH_S);
    member_start(slow);
    world_run(world, CH_S);
    ok(world_wish(world, WISH_VOTER, member_id(world, slow)));
    world_end(world);
    world_free(world);
}

static void cut_off(struct world *world, const struct member *member)
{
    for (int i = 0; i < world->count; i++) {
        ch_sim_net_cut(world->sim, member->host, world->members[i].host, true);
        ch_sim_net_cut(world->sim, world->members[i].host, member->host, true);
    }
}

static bool removed(const struct member *member)
{
    struct con_log_view view;

    con_log_look(member->log, &view);
    return view.removed;
}

/* Removes `gone` from the group; it hears nothing of that. */
static void remove_unheard(struct world *world, struct member *gone, bool crash)
{
    uint64_t id = member_id(world, gone);

    if (crash)
        member_crash(gone);
    else
        cut_off(world, gone);
    ok(world_wish(world, WISH_REMOVE, id));
    world_run(world, CH_S);
}

Test(sim_group_members, who_was_removed_comes_to_know)
{
    /* Cut off, or down, while it was removed; a voter or a learner: it hears of it from whoever of
     * the group it reaches, soon, and the group is not disturbed by it meanwhile. So it does in its
     * next life, though its folder says that it is a member. */
    for (int how = 0; how < 4; how++) {
        struct world *world = world_new(ch_sim_seed(30 + (uint64_t)how), 3, false);
        struct con_log_view view;
        struct member *gone = &world->members[2];
        uint64_t term;

        gone->learner = how >= 2;
        world_start(world);
        cr_assert(world_until(world, world_whole, 10 * CH_S));
        if (world_leader(world) == gone)
            ok(world_wish(world, WISH_TRANSFER, member_id(world, &world->members[0])));
        world_goes_on(world, CH_S);
        remove_unheard(world, gone, how % 2);
        term = con_log_term(world_leader(world)->log);
        ch_sim_net_heal(world->sim);
        if (how % 2)
            member_start(gone);
        else
            cr_assert(!removed(gone));
        world->gap_max = 0;
        world_run(world, 6 * world->election);
        cr_assert(removed(gone), "way %d: it does not know", how);
        member_stop(gone);
        member_start(gone);
        world_run(world, 6 * world->election);
        cr_assert(removed(gone), "way %d: it has forgotten", how);
        con_log_look(world_leader(world)->log, &view);
        cr_assert(view.count == 2 && !view.removed && !removed(world_leader(world)));
        cr_assert_eq(con_log_term(world_leader(world)->log), term);
        cr_assert(world->gap_max < world->election / 2, "%" PRId64 " ms",
                  (int64_t)(world->gap_max / CH_MS));
        member_stop(gone);
        member_lose(gone);
        member_start(gone);
        world_end(world);
        world_free(world);
    }
}

Test(sim_group_members, who_was_removed_is_not_let_in_at_another_address)
{
    /* Whose target changed asks the leader to note that. One that was removed meanwhile is not made
     * a member again by this: it was on purpose. */
    struct world *world = world_formed(36, 3);
    struct member *gone = world_follower(world);
    struct con_log_view view;

    remove_unheard(world, gone, true);
    ch_sim_net_heal(world->sim);
    snprintf(gone->target, sizeof(gone->target), "%s:7001", gone->host);
    member_start(gone);
    world_run(world, 6 * world->election);
    con_log_look(world_leader(world)->log, &view);
    cr_assert_eq(view.count, (size_t)2, "it was let in again");
    cr_assert(removed(gone));
    member_stop(gone);
    member_lose(gone);
    member_start(gone);
    world_end(world);
    world_free(world);
}

Test(sim_group_members, nobody_takes_itself_for_removed)
{
    /* Who is cut off, or a minority, or was away while others came and went, is still a member and
     * must not give up. */
    struct world *world = world_formed(37, 5);
    struct member *leader = world_leader(world), *away[2];
    int count = 0;

    for (int i = 0; i < 5 && count < 2; i++)
        if (&world->members[i] != leader)
            away[count++] = &world->members[i];
    cut_off(world, away[0]);
    member_crash(away[1]);
    ok(world_wish(world, WISH_REMOVE, member_id(world, away[1])));
    member_lose(away[1]);
    member_start(away[1]);
    world_run(world, 20 * world->election);
    cr_assert(!removed(away[0]));
    ch_sim_net_heal(world->sim);
    world_run(world, 20 * world->election);
    for (int i = 0; i < 5; i++)
        cr_assert(!removed(&world->members[i]), "%d", i);
    world_end(world);
    world_free(world);
}

Test(sim_group_members, a_leader_removes_itself_and_hands_over)
{
    /* Transfer leads at once to another leader; a leader that is removed commits that and goes. */
    struct world *world = world_formed(10, 3);
    struct member *leader = world_leader(world);
    uint64_t id = member_id(world, leader);

    world->gap_max = 0;
    ok(world_wish(world, WISH_TRANSFER, member_id(world, world_follower(world))));
    cr_assert(world_leader(world) != leader || !leader->led);
    world_goes_on(world, CH_S);
    cr_assert(world->gap_max < world->election, "%" PRId64 " ms",
              (int64_t)(world->gap_max / CH_MS));
    leader = world_leader(world);
    id = member_id(world, leader);
    base_status_drop(world_wish(world, WISH_REMOVE, id));
    world_run(world, 2 * world->election);
    world_goes_on(world, 2 * CH_S);
    cr_assert(world_leader(world) != leader);
    cr_assert_eq(member_id(world, leader), (uint64_t)0);
    member_stop(leader);
    member_lose(leader);
    member_start(leader);
    world_end(world);
    world_free(world);
}

Test(sim_group_members, a_witness_votes_and_has_no_state)
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
        world_goes_on(world, 3 * CH_S);
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

Test(sim_group_members, a_witness_keeps_what_a_voter_lacks)
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
        world_goes_on(world, 3 * CH_S);
        member_crash(leader);
        member_start(follower);
        world_goes_on(world, 20 * world->election);
        cr_assert(world_leader(world) == follower);
        member_start(leader);
        world_end(world);
        world_free(world);
    }
}

Test(sim_group_members, a_witness_keeps_no_more_than_it_has_room_for)
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

Test(sim_group_members, a_learner_stays_one)
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
    world_goes_on(world, CH_S);
    member_start(&world->members[2]);
    cr_assert(world_until(world, world_whole, 10 * CH_S));
    member_crash(world_follower(world) == &world->members[2] ? &world->members[0]
                                                             : world_follower(world));
    world_run(world, CH_S);
    before = world->acked;
    world_run(world, 2 * CH_S);
    cr_assert_eq(world->acked, before);
    world_end(world);
    world_free(world);
}

Test(sim_group_members, one_becomes_three)
{
    /* A log that was written alone is opened as a group's: its member gets its address, and others
     * join it. */
    struct world *world = world_new(ch_sim_seed(15), 3, false);

    world->members[0].as_alone = true;
    member_start(&world->members[0]);
    world_goes_on(world, 2 * CH_S);
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
