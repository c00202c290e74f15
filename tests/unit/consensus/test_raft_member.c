/* Changing who belongs to the group (Raft 2014, chapter 4; consensus/src/raft_member.c): learners
 * first, joint configurations whenever voters change, one change at a time. */
#include "raft_hand.h"

#include <stdlib.h>

static struct con_config config_of(struct hand *hand, uint64_t id)
{
    return *hand_status(hand, id).config;
}

/* The leader's configuration is done: committed and not joint. */
static bool settled(struct hand *hand, uint64_t leader)
{
    struct con_raft_status status = hand_status(hand, leader);

    return !status.config->joint && status.config->index <= status.commit;
}

static void put(struct con_config *config, uint64_t id, bool voter, bool witness)
{
    struct con_member member = hand_voter(id);

    member.voter = voter;
    member.witness = witness;
    cr_assert(con_config_put(config, &member));
}

static void learner_add(struct hand *hand, uint64_t leader, uint64_t id, bool witness)
{
    struct con_config next = config_of(hand, leader);

    hand_join(hand, id);
    put(&next, id, false, witness);
    cr_assert_eq(hand_change(hand, leader, &next), CON_TAKEN);
    hand_settle(hand);
    hand_pass(hand, 600);
    cr_assert(settled(hand, leader));
}

static void voter_make(struct hand *hand, uint64_t leader, uint64_t id)
{
    struct con_config next = config_of(hand, leader);
    struct con_member member = *con_config_member(&next, id);

    member.voter = true;
    cr_assert(con_config_put(&next, &member));
    cr_assert_eq(hand_change(hand, leader, &next), CON_TAKEN);
}

Test(raft_member, a_group_grows_from_its_founder)
{
    /* One member founds; each other listens, learns, and votes when it has all. */
    struct hand *hand = hand_new(1, NULL);

    hand_elect(hand, 1);
    hand_propose(hand, 1, "a");
    for (uint64_t id = 2; id <= 3; id++) {
        learner_add(hand, 1, id, false);
        cr_assert_str_eq(hand_state(hand, id), "a");
        voter_make(hand, 1, id);
        hand_pass(hand, 600);
        cr_assert(settled(hand, 1) && con_config_member(hand_status(hand, id).config, id)->voter);
    }
    hand_crash(hand, 1); /* the two others are a majority now */
    hand_pass(hand, 8000);
    cr_assert_neq(hand_leader(hand), 0);
    hand_propose(hand, hand_leader(hand), "b");
    hand_pass(hand, 500);
    cr_assert_str_eq(hand_state(hand, 2), "ab");
    cr_assert_str_eq(hand_state(hand, 3), "ab");
    hand_free(hand);
}

Test(raft_member, a_newcomer_is_a_learner_first)
{
    /* Who has nothing yet must not be able to hold up, or worse to decide, a commit (4.2.1). */
    struct hand *hand = hand_new(3, NULL);
    struct con_config next = hand_voters(4);

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    cr_assert_eq(hand_change(hand, 1, &next), CON_NOT_CAUGHT_UP);
    next.members[3].voter = false;
    cr_assert_eq(hand_change(hand, 2, &next), CON_NOT_LEADER);
    cr_assert_eq(hand_change(hand, 1, &next), CON_TAKEN);
    hand_pass(hand, 600);
    cr_assert_eq(hand_status(hand, 1).config->count, 4);
    hand_propose(hand, 1, "a");
    hand_pass(hand, 400);
    cr_assert(settled(hand, 1) && hand_status(hand, 1).commit == 3,
              "a silent learner delays nobody");
    hand_free(hand);
}

/* Member 4 as a voter now. */
static enum con_refusal voter_try(struct hand *hand)
{
    struct con_config next = config_of(hand, 1);

    next.members[3].voter = true;
    return hand_change(hand, 1, &next);
}

/* A command while member 4 is still writing the one before; time passes. */
static void propose_ahead(struct hand *hand, int64_t ms)
{
    hand_propose(hand, 1, "x");
    for (uint64_t id = 1; id <= 4; id++)
        hand_tick(hand, id, ms);
    hand_settle(hand);
    if (hand->members[4].writing)
        hand_written(hand, 4);
    hand_settle(hand);
    cr_assert(hand_status(hand, 4).persisted < hand_status(hand, 1).last);
}

Test(raft_member, a_learner_that_keeps_up_need_not_have_all)
{
    /* Under load nobody ever has all. What counts is how long it took lately to come as far as the
     * leader was (rounds, 4.2.1): so long may nothing be committed when it is made a voter. */
    for (int slow = 0; slow < 2; slow++) {
        struct hand *hand = hand_new(3, NULL);

        hand_elect(hand, 1);
        hand_pass(hand, 300);
        learner_add(hand, 1, 4, false);
        hand->members[4].hold_writes = true;
        hand_propose(hand, 1, "x");
        hand_settle(hand);
        for (int i = 0; i < 10; i++)
            propose_ahead(hand, slow ? 400 : 20);
        cr_assert_eq(voter_try(hand), slow ? CON_NOT_CAUGHT_UP : CON_TAKEN, "slow: %d", slow);
        hand_free(hand);
    }
}

Test(raft_member, a_learner_that_lags_is_no_voter_yet)
{
    /* However few entries it lacks, and though it was heard a moment ago. */
    struct hand *hand = hand_new(3, NULL);

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    learner_add(hand, 1, 4, false);
    hand->members[4].hold_writes = true; /* it hears and answers, but its disk hangs */
    hand_propose(hand, 1, "x");
    hand_pass(hand, 600);
    cr_assert(con_raft_heard(hand->members[1].raft, 4));
    cr_assert_eq(voter_try(hand), CON_NOT_CAUGHT_UP);
    hand->members[4].hold_writes = false;
    hand_written(hand, 4);
    hand_pass(hand, 300);
    cr_assert_eq(voter_try(hand), CON_TAKEN);
    hand_free(hand);
}

Test(raft_member, learners_have_no_say)
{
    /* They neither vote nor count: with two of three voters gone nothing is committed. */
    struct hand *hand = hand_new(3, NULL);

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    learner_add(hand, 1, 4, false);
    hand_isolate(hand, 2, true);
    hand_isolate(hand, 3, true);
    hand_propose(hand, 1, "a");
    hand_pass(hand, 900);
    cr_assert_str_eq(hand_state(hand, 1), "");
    cr_assert(hand_status(hand, 4).last == hand_status(hand, 1).last, "it has it all the same");
    hand_pass(hand, 5000);
    cr_assert_eq(hand_leader(hand), 0, "a learner kept a leader, or made one");
    hand_free(hand);
}

Test(raft_member, voters_change_through_a_joint_configuration)
{
    /* Section 4.3: between the old and the new voters there is a time in which both decide: a
     * majority of one alone commits nothing. */
    for (uint64_t away = 2; away <= 4; away += 2) { /* 2 and 3: the old ones; 4 and 5: the new */
        struct hand *hand = hand_new(3, NULL);
        struct con_config next;
        uint64_t before;

        hand_elect(hand, 1);
        hand_pass(hand, 300);
        learner_add(hand, 1, 4, false);
        learner_add(hand, 1, 5, false);
        next = config_of(hand, 1); /* 1, 2, 3 become 1, 4, 5 */
        cr_assert(con_config_remove(&next, 2) && con_config_remove(&next, 3));
        next.members[1].voter = next.members[2].voter = true;
        before = hand_status(hand, 1).commit;
        hand_isolate(hand, away, true);
        hand_isolate(hand, away + 1, true);
        cr_assert_eq(hand_change(hand, 1, &next), CON_TAKEN);
        hand_pass(hand, 600);
        cr_assert(hand_status(hand, 1).config->joint && hand_status(hand, 1).config->count == 5);
        cr_assert_eq(hand_status(hand, 1).commit, before, "committed without %d and %d", (int)away,
                     (int)away + 1);
        hand_isolate(hand, away, false); /* one of them makes both majorities */
        hand_pass(hand, 900);
        cr_assert(settled(hand, 1) && hand_status(hand, 1).config->count == 3);
        cr_assert(con_config_member(hand_status(hand, 1).config, 5) &&
                  !con_config_member(hand_status(hand, 1).config, 2));
        hand_free(hand);
    }
}

Test(raft_member, a_leader_that_dies_in_it_is_followed_up)
{
    /* Whoever leads next finishes the change, or it never was. */
    for (int reached = 0; reached <= 3; reached++) {
        struct hand *hand = hand_new(3, NULL);

        hand_elect(hand, 1);
        hand_pass(hand, 300);
        learner_add(hand, 1, 4, false);
        voter_make(hand, 1, 4);
        for (int i = 0; i < reached; i++) {
            struct con_message *message = hand_take(hand, CON_APPEND, 1, (uint64_t)(2 + i));

            cr_assert_not_null(message);
            hand_deliver(hand, message);
            free(message);
        }
        hand_crash(hand, 1);
        hand_drop_all(hand);
        hand_pass(hand, 12000);
        cr_assert_neq(hand_leader(hand), 0, "%d reached", reached);
        cr_assert(settled(hand, hand_leader(hand)), "%d reached", reached);
        hand_restart(hand, 1);
        hand_propose(hand, hand_leader(hand), "a");
        hand_pass(hand, 1500);
        cr_assert_str_eq(hand_state(hand, 1), "a");
        cr_assert(!hand_status(hand, 1).config->joint);
        hand_free(hand);
    }
}

Test(raft_member, one_change_at_a_time)
{
    /* Section 4.1; and none before the leader has committed an entry of its own term (the bug of
     * single-server changes that was found in 2015). */
    struct hand *hand = hand_new(3, NULL);
    struct con_config next = hand_voters(4);

    next.members[3].voter = false;
    hand_isolate(hand, 3, true);
    con_raft_campaign(hand->members[1].raft);
    hand_run(hand, 1);
    for (int i = 0; i < 2; i++) {
        struct con_message *message =
            hand_take(hand, i ? CON_VOTE_REPLY : CON_VOTE, i ? 2 : 1, i ? 1 : 2);

        hand_deliver(hand, message);
        free(message);
    }
    cr_assert(hand_leads(hand, 1) && hand_status(hand, 1).commit == 0);
    cr_assert_eq(hand_change(hand, 1, &next), CON_CONFIG_PENDING, "before its own first entry");
    hand_settle(hand);
    cr_assert_eq(hand_change(hand, 1, &next), CON_TAKEN);
    cr_assert(con_config_remove(&next, 4));
    cr_assert_eq(hand_change(hand, 1, &next), CON_CONFIG_PENDING, "while one is under way");
    hand_settle(hand);
    cr_assert_eq(hand_change(hand, 1, &next), CON_TAKEN);
    hand_free(hand);
}

Test(raft_member, an_uncommitted_configuration_goes_with_its_leader)
{
    /* A configuration is in force from where it stands in the log, and out of force when that is
     * overwritten. */
    struct hand *hand = hand_new(3, NULL);
    struct con_config next = hand_voters(4);

    next.members[3].voter = false;
    hand_elect(hand, 1);
    hand_pass(hand, 300);
    hand_isolate(hand, 1, true);
    cr_assert_eq(hand_change(hand, 1, &next), CON_TAKEN);
    cr_assert_eq(hand_status(hand, 1).config->count, 4);
    hand_elect(hand, 2);
    hand_isolate(hand, 1, false);
    hand_pass(hand, 1500);
    cr_assert_eq(hand_status(hand, 1).config->count, 3);
    cr_assert_eq(hand_leader(hand), 2);
    hand_free(hand);
}

Test(raft_member, a_lost_disk_is_replaced_in_one_step)
{
    /* Who lost its disk comes under another id, learns, and takes the place of the old id in one
     * joint step; the old id never votes again. */
    struct hand *hand = hand_new(3, NULL);
    struct con_config next;

    hand_elect(hand, 1);
    hand_propose(hand, 1, "a");
    hand_pass(hand, 300);
    hand_crash(hand, 3);
    learner_add(hand, 1, 4, false);
    next = config_of(hand, 1);
    next.members[3].voter = true; /* 4 */
    cr_assert(con_config_remove(&next, 3));
    cr_assert_eq(hand_change(hand, 1, &next), CON_TAKEN);
    hand_pass(hand, 600);
    cr_assert(settled(hand, 1) && !con_config_member(hand_status(hand, 1).config, 3));
    hand_crash(hand, 2);
    hand_propose(hand, 1, "b"); /* 1 and 4 are a majority */
    hand_pass(hand, 400);
    cr_assert_str_eq(hand_state(hand, 4), "ab");
    hand_free(hand);
}

Test(raft_member, a_leader_sees_itself_out)
{
    /* Section 4.2.2: it leads until the configuration without it is committed, without counting
     * itself; then it hands over at once and stays quiet. */
    struct hand *hand = hand_new(3, NULL);
    struct con_config next = hand_voters(3);
    uint64_t index, term;
    int64_t waited = 0;

    hand_elect(hand, 1);
    hand_propose(hand, 1, "a");
    hand_pass(hand, 300);
    cr_assert(con_config_remove(&next, 1));
    hand_isolate(hand, 3, true); /* of 2 and 3 both are needed: its own copy must not count */
    cr_assert_eq(hand_change(hand, 1, &next), CON_TAKEN);
    hand_pass(hand, 600);
    cr_assert(hand_leads(hand, 1) && !settled(hand, 1));
    hand_isolate(hand, 3, false);
    for (; hand_leader(hand) == 1 && waited < 3000; waited += 10)
        hand_pass(hand, 10);
    hand_pass(hand, 50);
    cr_assert(hand_leader(hand) == 2 || hand_leader(hand) == 3, "handed over after %d ms",
              (int)waited);
    cr_assert_eq(con_raft_propose(hand->members[1].raft, BASE_BYTES_LIT("b"), &index, &term),
                 CON_NOT_LEADER);
    hand_pass(hand, 10000);
    cr_assert_neq(hand_leader(hand), 1);
    hand_propose(hand, hand_leader(hand), "c");
    hand_pass(hand, 400);
    cr_assert_str_eq(hand_state(hand, 2), "ac");
    hand_free(hand);
}

Test(raft_member, a_removed_member_disturbs_nobody)
{
    /* It may never hear that it is out, and stands again and again: nobody listens (4.2.3). */
    struct hand *hand = hand_new(3, NULL);
    struct con_config next = hand_voters(2);
    uint64_t term;

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    hand_isolate(hand, 3, true);
    cr_assert_eq(hand_change(hand, 1, &next), CON_TAKEN);
    hand_pass(hand, 900);
    cr_assert(settled(hand, 1));
    hand_isolate(hand, 3, false);
    term = hand_status(hand, 1).term;
    hand_pass(hand, 20000);
    cr_assert(hand_leads(hand, 1) && hand_status(hand, 1).term == term);
    hand_free(hand);
}

Test(raft_member, groups_that_cannot_work_are_refused)
{
    /* No voter; only witnesses; a voter turned learner under its id; a witness that becomes a full
     * member; an address missing; ids out of order; the leader says so and nothing happens. */
    struct hand *hand = hand_new(3, NULL);
    struct con_config bad[7];

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    learner_add(hand, 1, 4, true);
    for (int i = 0; i < 7; i++)
        bad[i] = config_of(hand, 1);
    for (int i = 0; i < 4; i++)
        bad[0].members[i].voter = false;
    for (int i = 0; i < 4; i++)
        bad[1].members[i].witness = true;
    bad[2].members[1].voter = false;
    bad[3].members[3].witness = false;
    bad[4].members[2].address[0] = 0;
    bad[5].members[0].id = 9;
    bad[6].count = CON_MEMBERS_MAX + 1;
    for (int i = 0; i < 7; i++)
        cr_assert_eq(hand_change(hand, 1, &bad[i]), CON_BAD_CONFIG, "case %d", i);
    cr_assert_eq(hand_status(hand, 1).config->count, 4);
    hand_free(hand);
}

Test(raft_member, a_change_that_would_stop_the_group_is_refused)
{
    /* A majority of the new voters must have been heard: else nothing is committed any more, not
     * even a change back. */
    struct hand *hand = hand_new(3, NULL);
    struct con_config without_2 = hand_voters(3), without_1 = hand_voters(3);

    cr_assert(con_config_remove(&without_2, 2) && con_config_remove(&without_1, 1));
    hand_elect(hand, 1);
    hand_pass(hand, 300);
    hand_isolate(hand, 3, true);
    hand_pass(hand, 1500);
    cr_assert(con_raft_heard(hand->members[1].raft, 2));
    cr_assert(!con_raft_heard(hand->members[1].raft, 3));
    cr_assert_eq(hand_change(hand, 1, &without_2), CON_SILENT);
    cr_assert_eq(hand_change(hand, 1, &without_1), CON_SILENT, "the leader itself goes");
    cr_assert_eq(hand_status(hand, 1).config->count, 3, "nothing happened");
    hand_isolate(hand, 3, false);
    hand_pass(hand, 400);
    cr_assert_eq(hand_change(hand, 1, &without_2), CON_TAKEN, "it is heard again");
    hand_pass(hand, 600);
    cr_assert(settled(hand, 1) && hand_status(hand, 1).config->count == 2);
    hand_free(hand);
}

Test(raft_member, the_silent_one_can_be_removed)
{
    /* What the rule is not to hinder: taking out who does not answer. */
    struct hand *hand = hand_new(3, NULL);
    struct con_config next = hand_voters(2);

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    hand_crash(hand, 3);
    hand_pass(hand, 5000);
    cr_assert_eq(hand_change(hand, 1, &next), CON_TAKEN);
    hand_pass(hand, 600);
    cr_assert(settled(hand, 1) && hand_status(hand, 1).config->count == 2);
    hand_free(hand);
}

Test(raft_member, a_new_leader_waits_before_it_takes_anyone_for_silent)
{
    /* It has not asked them yet: neither yes nor no. */
    struct hand *hand = hand_new(3, NULL);
    struct con_config next = hand_voters(3);

    cr_assert(con_config_remove(&next, 2));
    hand_crash(hand, 3);
    hand_elect(hand, 1);
    cr_assert(hand_status(hand, 1).commit > 0);
    cr_assert_eq(hand_change(hand, 1, &next), CON_CONFIG_PENDING);
    hand_pass(hand, 1300);
    cr_assert_eq(hand_change(hand, 1, &next), CON_SILENT);
    hand_free(hand);
}

Test(raft_member, nobody_is_silent_in_a_quiet_group)
{
    /* Nothing is said in it, and the driver knows that all are there. */
    struct con_raft_options options = { .quiet = true };
    struct hand *hand = hand_new(3, &options);
    struct con_config next = hand_voters(2);

    hand_elect(hand, 1);
    hand_pass(hand, 5000);
    cr_assert(hand_status(hand, 1).quiet);
    cr_assert_eq(hand_change(hand, 1, &next), CON_TAKEN);
    hand_pass(hand, 600);
    cr_assert(settled(hand, 1) && hand_status(hand, 1).config->count == 2);
    hand_free(hand);
}

Test(raft_member, witnesses_alone_are_no_group)
{
    /* Two witnesses are a majority of three, but with them alone nothing is committed (invariant of
     * witnesses): a voter with a state must be among those heard. */
    struct con_config first = hand_voters(4), next;
    struct hand *hand;

    first.members[2].witness = first.members[3].witness = true;
    hand = hand_new_config(&first, NULL);
    hand_elect(hand, 1);
    hand_pass(hand, 300);
    hand_crash(hand, 2);
    hand_pass(hand, 1500);
    next = config_of(hand, 1);
    cr_assert(con_config_remove(&next, 1));
    cr_assert_eq(hand_change(hand, 1, &next), CON_SILENT);
    hand_restart(hand, 2);
    hand_pass(hand, 400);
    cr_assert_eq(hand_change(hand, 1, &next), CON_TAKEN);
    hand_pass(hand, 3000);
    cr_assert_eq(hand_leader(hand), 2);
    next = config_of(hand, 2);
    cr_assert(con_config_remove(&next, 2));
    cr_assert_eq(hand_change(hand, 2, &next), CON_BAD_CONFIG, "witnesses only");
    hand_free(hand);
}

Test(raft_member, at_most_nine)
{
    /* Both sets of a joint configuration together are limited too. */
    struct hand *hand = hand_new(3, NULL);
    struct con_config next;

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    for (uint64_t id = 4; id <= 9; id++)
        learner_add(hand, 1, id, false);
    next = config_of(hand, 1);
    cr_assert_eq(next.count, CON_MEMBERS_MAX);
    for (int i = 3; i < 9; i++)
        next.members[i].voter = true;
    cr_assert_eq(hand_change(hand, 1, &next), CON_TAKEN);
    hand_pass(hand, 900);
    cr_assert(settled(hand, 1));
    for (uint64_t id = 2; id <= 5; id++)
        hand_crash(hand, id);
    hand_propose(hand, 1, "a"); /* five of nine */
    hand_pass(hand, 500);
    cr_assert_str_eq(hand_state(hand, 9), "a");
    hand_crash(hand, 9);
    hand_propose(hand, 1, "b");
    hand_pass(hand, 500);
    cr_assert_str_eq(hand_state(hand, 1), "a", "four of nine");
    hand_free(hand);
}

Test(raft_member, an_empty_member_only_listens)
{
    /* A member that belongs to no group stands for nothing, whatever time it is. */
    struct hand *hand = hand_new(3, NULL);

    hand_join(hand, 5);
    hand_pass(hand, 30000);
    cr_assert_eq(hand_status(hand, 5).term, 0);
    con_raft_campaign(hand->members[5].raft);
    hand_run(hand, 5);
    cr_assert_eq(hand_status(hand, 5).role, CON_FOLLOWER);
    hand_free(hand);
}

Test(raft_member, who_is_told_that_it_was_removed_stands_no_more)
{
    /* It may never get the entry that says so; another member's word is enough. When it is made a
     * member again, by a later configuration, that counts. */
    struct hand *hand = hand_new(3, NULL);
    struct con_config next = hand_voters(2);
    uint64_t term;
    size_t asked;

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    learner_add(hand, 1, 4, false);
    hand_isolate(hand, 3, true);
    next = config_of(hand, 1);
    cr_assert(con_config_remove(&next, 3));
    cr_assert_eq(hand_change(hand, 1, &next), CON_TAKEN);
    hand_pass(hand, 900);
    cr_assert(settled(hand, 1));
    hand_isolate(hand, 3, false);
    hand_pass(hand, 5000);
    asked = hand->sent[CON_PRE_VOTE];
    cr_assert(asked > 0, "it stands: else this proves nothing");
    con_raft_removed(hand->members[3].raft, config_of(hand, 1).index);
    term = hand_status(hand, 3).term;
    hand_pass(hand, 20000);
    cr_assert_eq(hand->sent[CON_PRE_VOTE], asked);
    cr_assert(hand_status(hand, 3).role == CON_FOLLOWER && hand_status(hand, 3).term == term);
    con_raft_removed(hand->members[1].raft, 1); /* an old word about a member that is one */
    cr_assert(hand_leads(hand, 1));
    next = config_of(hand, 1);
    put(&next, 3, false, false);
    cr_assert_eq(hand_change(hand, 1, &next), CON_TAKEN);
    hand_pass(hand, 900);
    voter_make(hand, 1, 3);
    hand_pass(hand, 900);
    hand_crash(hand, 1);
    hand_crash(hand, 2);
    hand_pass(hand, 6000);
    cr_assert(hand->sent[CON_PRE_VOTE] > asked, "a member again, it stands");
    hand_free(hand);
}

Test(raft_member, which_configuration_is_sure)
{
    /* Of two changes the first is committed before the second begins: so it is known to be after a
     * restart as well, when nothing is yet known to be committed. */
    struct hand *hand = hand_new(3, NULL);
    uint64_t first, second;

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    learner_add(hand, 1, 4, false);
    first = config_of(hand, 1).index;
    learner_add(hand, 1, 5, false);
    second = config_of(hand, 1).index;
    cr_assert_eq(con_raft_config_committed(hand->members[2].raft)->index, second);
    hand_isolate(hand, 2, true);
    hand_crash(hand, 2);
    hand_restart(hand, 2);
    cr_assert_eq(hand_status(hand, 2).commit, 0);
    cr_assert_eq(con_raft_config_committed(hand->members[2].raft)->index, first);
    hand_free(hand);
}
