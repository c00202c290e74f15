/* Elections: who is voted for, who is not, and who stops to lead (consensus/src/raft_elect.c). */
#include "raft_hand.h"

#include <stdlib.h>

Test(raft_elect, one_of_three_leads_by_itself)
{
    /* Nobody is told to: time passes, one stands, the others follow; all know who it is. */
    struct hand *hand = hand_new(3, NULL);
    uint64_t leader;

    hand_pass(hand, 5000);
    leader = hand_leader(hand);
    cr_assert_neq(leader, 0);
    for (uint64_t id = 1; id <= 3; id++) {
        cr_assert_eq(hand_leads(hand, id), id == leader);
        cr_assert_eq(hand_status(hand, id).leader, leader);
        cr_assert_eq(hand_status(hand, id).commit, 1, "the leader's first entry");
    }
    cr_assert(hand_status(hand, leader).ready);
    hand_free(hand);
}

Test(raft_elect, a_group_of_one_leads_at_once)
{
    /* Its own vote is a majority, when it is durable and not before. */
    struct hand *hand = hand_new(1, NULL);

    hand->members[1].hold_writes = true;
    con_raft_campaign(hand->members[1].raft);
    hand_run(hand, 1);
    cr_assert(!hand_leads(hand, 1), "a crash now, and it would vote for another in this term");
    hand_written(hand, 1);
    cr_assert(hand_leads(hand, 1) && !hand_status(hand, 1).ready);
    hand->members[1].hold_writes = false;
    if (hand->members[1].writing)
        hand_written(hand, 1);
    cr_assert(hand_status(hand, 1).ready);
    hand_propose(hand, 1, "a");
    cr_assert_str_eq(hand_state(hand, 1), "a");
    hand_free(hand);
}

Test(raft_elect, a_vote_leaves_only_when_it_is_durable)
{
    /* A member that crashes right after it voted must know that it did. */
    struct hand *hand = hand_new(3, NULL);
    struct con_message *vote;

    con_raft_campaign(hand->members[1].raft);
    hand_run(hand, 1);
    hand->members[2].hold_writes = true;
    vote = hand_take(hand, CON_VOTE, 1, 2);
    cr_assert(vote && hand->members[1].disk.vote == 1, "asked before its own vote was durable");
    hand_deliver(hand, vote);
    cr_assert_null(hand_take(hand, CON_VOTE_REPLY, 2, 1));
    hand_written(hand, 2);
    cr_assert(hand->members[2].disk.term == 1 && hand->members[2].disk.vote == 1);
    free(vote);
    vote = hand_take(hand, CON_VOTE_REPLY, 2, 1);
    cr_assert(vote && !vote->reject);
    free(vote);
    hand_free(hand);
}

Test(raft_elect, one_vote_a_term_over_restarts)
{
    /* Section 3.4: two candidates of one term never both have a member's vote, not even when it
     * crashed in between. The same candidate may ask again. */
    struct hand *hand = hand_new(3, NULL);
    struct con_message *one, *two, *reply;

    con_raft_campaign(hand->members[1].raft);
    con_raft_campaign(hand->members[2].raft);
    hand_run(hand, 1);
    hand_run(hand, 2);
    one = hand_take(hand, CON_VOTE, 1, 3);
    two = hand_take(hand, CON_VOTE, 2, 3);
    cr_assert(one && two && one->term == two->term);
    for (int again = 0; again < 3; again++) {
        hand_deliver(hand, one);
        reply = hand_take(hand, CON_VOTE_REPLY, 3, 1);
        cr_assert(reply && !reply->reject);
        free(reply);
        if (again == 1) {
            hand_crash(hand, 3);
            hand_restart(hand, 3);
        }
        hand_deliver(hand, two);
        reply = hand_take(hand, CON_VOTE_REPLY, 3, 2);
        cr_assert(reply == NULL || reply->reject, "voted twice");
        free(reply);
    }
    free(one);
    free(two);
    hand_free(hand);
}

Test(raft_elect, a_log_that_lacks_something_does_not_win)
{
    /* Section 3.6.1: a later last term wins over length; in one term length decides. */
    struct {
        uint64_t index, term;
        bool granted;
    } cases[] = {
        { 2, 2, false }, { 3, 2, true }, { 4, 2, true }, { 1, 3, true }, { 9, 1, false }
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct hand *hand = hand_new(3, NULL);
        struct con_message vote = { .kind = CON_VOTE, .from = 2, .to = 1, .term = 9 }, *reply;

        hand_elect(hand, 1);
        hand_crash(hand, 1);
        hand_restart(hand, 1);
        hand_elect(hand, 1); /* term 2 */
        hand_propose(hand, 1, "a");
        hand_settle(hand);
        cr_assert_str_eq(hand_terms(hand, 1), "1 2 2");
        hand_crash(hand, 1);
        hand_restart(hand, 1);
        hand_age(hand, 2000);
        vote.index = cases[i].index;
        vote.log_term = cases[i].term;
        hand_deliver(hand, &vote);
        reply = hand_take(hand, CON_VOTE_REPLY, 1, 2);
        cr_assert(reply && reply->reject == !cases[i].granted, "case %zu", i);
        free(reply);
        hand_free(hand);
    }
}

Test(raft_elect, who_was_cut_off_comes_back_quietly)
{
    /* Pre-vote (section 9.6): a member that heard nobody for an hour has no higher term, and the
     * leader leads on. */
    struct hand *hand = hand_new(3, NULL);
    uint64_t term;

    hand_elect(hand, 1);
    term = hand_status(hand, 1).term;
    hand_isolate(hand, 3, true);
    hand_pass(hand, 20000);
    cr_assert(hand_leads(hand, 1));
    cr_assert_eq(hand_status(hand, 3).term, term, "its term grew while it was cut off");
    cr_assert(hand->sent[CON_PRE_VOTE] > 0);
    hand_isolate(hand, 3, false);
    hand_pass(hand, 3000);
    cr_assert(hand_leads(hand, 1) && hand_status(hand, 1).term == term);
    cr_assert_eq(hand_status(hand, 3).leader, 1);
    hand_free(hand);
}

Test(raft_elect, a_leader_that_is_heard_stays)
{
    /* Stickiness (section 4.2.3): a vote request of a higher term, from somebody who does not hear
     * the leader, changes nothing for those who do, neither term nor vote; unless the leader asked
     * for the election itself. */
    struct hand *hand = hand_new(3, NULL);
    struct con_message vote = {
        .kind = CON_VOTE, .from = 3, .to = 2, .term = 50, .index = 100, .log_term = 49
    };

    hand_elect(hand, 1);
    hand_pass(hand, 500);
    hand_deliver(hand, &vote);
    vote.to = 1;
    hand_deliver(hand, &vote);
    cr_assert(hand_leads(hand, 1) && hand_status(hand, 2).term == 1);
    cr_assert_null(hand_take(hand, CON_VOTE_REPLY, 0, 3));
    vote.to = 2;
    vote.transfer = true;
    hand_deliver(hand, &vote);
    cr_assert_eq(hand_status(hand, 2).term, 50);
    hand_free(hand);
}

Test(raft_elect, a_leader_without_a_quorum_steps_down)
{
    /* Check-quorum (section 6.2): within two election times of the last it heard, so that its
     * clients look elsewhere; a leader of five that still hears two stays. */
    struct hand *hand = hand_new(5, NULL);

    hand_elect(hand, 1);
    hand_isolate(hand, 4, true);
    hand_isolate(hand, 5, true);
    hand_pass(hand, 5000);
    cr_assert(hand_leads(hand, 1));
    hand_isolate(hand, 3, true);
    hand_pass(hand, 2000);
    cr_assert(!hand_leads(hand, 1));
    cr_assert_eq(hand_status(hand, 1).leader, 0);
    hand_free(hand);
}

Test(raft_elect, after_a_pause_it_listens_first)
{
    /* A process that was stopped for a while (SIGSTOP) finds its timers run out and its messages
     * waiting: it reads them before it takes anybody for silent. */
    struct hand *hand = hand_new(3, NULL);
    struct con_message heartbeat = { .kind = CON_HEARTBEAT, .from = 1, .to = 2, .term = 1 };
    size_t asked;

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    asked = hand->sent[CON_PRE_VOTE];
    hand_tick(hand, 2, 60000);
    cr_assert_eq(hand->sent[CON_PRE_VOTE], asked, "stood before it listened");
    hand_deliver(hand, &heartbeat);
    hand_tick(hand, 2, 400);
    cr_assert_eq(hand->sent[CON_PRE_VOTE], asked);
    hand_tick(hand, 1, 60000); /* the leader as well */
    cr_assert(hand_leads(hand, 1), "stepped down before it listened");
    hand_settle(hand);
    hand_pass(hand, 2000);
    cr_assert(hand_leads(hand, 1));
    hand_free(hand);
}

Test(raft_elect, leadership_is_handed_over)
{
    /* Section 3.10: the target gets what it lacks, stands at once, and wins against members that
     * hear the old leader; meanwhile nothing is proposed. */
    struct hand *hand = hand_new(3, NULL);
    uint64_t index, term;

    hand_elect(hand, 1);
    hand_isolate(hand, 3, true);
    hand_propose(hand, 1, "a");
    hand_settle(hand);
    cr_assert_eq(con_raft_transfer(hand->members[1].raft, 1), CON_BAD_CONFIG, "itself");
    cr_assert_eq(con_raft_transfer(hand->members[1].raft, 7), CON_BAD_CONFIG, "nobody");
    cr_assert_eq(con_raft_transfer(hand->members[2].raft, 3), CON_NOT_LEADER);
    cr_assert_eq(con_raft_transfer(hand->members[1].raft, 3), CON_TAKEN);
    cr_assert_eq(con_raft_transfer(hand->members[1].raft, 2), CON_TRANSFERRING);
    cr_assert_eq(con_raft_propose(hand->members[1].raft, BASE_BYTES_LIT("b"), &index, &term),
                 CON_TRANSFERRING);
    hand_run(hand, 1);
    hand_isolate(hand, 3, false);
    hand_pass(hand, 900);
    cr_assert(hand_leads(hand, 3) && !hand_leads(hand, 1));
    cr_assert_str_eq(hand_state(hand, 3), "a");
    hand_free(hand);
}

Test(raft_elect, a_hand_over_that_fails_is_given_up)
{
    /* The target is not there: after an election time the leader takes proposals again. */
    struct hand *hand = hand_new(3, NULL);

    hand_elect(hand, 1);
    hand_isolate(hand, 3, true);
    cr_assert_eq(con_raft_transfer(hand->members[1].raft, 3), CON_TAKEN);
    cr_assert_eq(hand_status(hand, 1).transfer, 3);
    hand_pass(hand, 1300);
    cr_assert(hand_leads(hand, 1) && hand_status(hand, 1).transfer == 0);
    hand_propose(hand, 1, "a");
    hand_pass(hand, 300);
    cr_assert_str_eq(hand_state(hand, 2), "a");
    hand_free(hand);
}

Test(raft_elect, duplicate_votes_count_once)
{
    /* A network may deliver a vote twice: two votes of one member of five are no majority. */
    struct hand *hand = hand_new(5, NULL);
    struct con_message *vote, *reply;

    con_raft_campaign(hand->members[1].raft);
    hand_run(hand, 1);
    vote = hand_take(hand, CON_VOTE, 1, 2);
    hand_deliver(hand, vote);
    reply = hand_take(hand, CON_VOTE_REPLY, 2, 1);
    for (int i = 0; i < 4; i++)
        hand_deliver(hand, reply);
    cr_assert(!hand_leads(hand, 1));
    free(vote);
    free(reply);
    hand_free(hand);
}

Test(raft_elect, two_that_stand_at_once_do_not_block_each_other)
{
    /* A split vote ends by itself: timers are random (section 3.4). */
    struct hand *hand = hand_new(4, NULL);

    for (uint64_t id = 1; id <= 2; id++) {
        con_raft_campaign(hand->members[id].raft);
        hand_run(hand, id);
    }
    hand->cut[1][4] = hand->cut[2][3] = true;
    hand_settle(hand);
    hand->cut[1][4] = hand->cut[2][3] = false;
    hand_pass(hand, 10000);
    cr_assert_neq(hand_leader(hand), 0);
    hand_free(hand);
}

/* Three members, the third a witness. */
static struct hand *with_witness(void)
{
    struct con_config first = hand_voters(3);

    first.members[2].witness = true;
    return hand_new_config(&first, NULL);
}

Test(raft_elect, a_witness_votes_and_keeps_the_log)
{
    /* With one of two members with a state gone, the witness makes the majority. */
    struct hand *hand = with_witness();

    hand_elect(hand, 1);
    hand_isolate(hand, 2, true);
    hand_propose(hand, 1, "a");
    hand_settle(hand);
    cr_assert_str_eq(hand_state(hand, 1), "a");
    cr_assert_str_eq(hand_terms(hand, 3), "1 1");
    cr_assert_eq(con_raft_transfer(hand->members[1].raft, 3), CON_BAD_CONFIG,
                 "leadership was handed to a witness");
    hand_free(hand);
}

Test(raft_elect, a_witness_stands_last_and_takes_no_proposals)
{
    /* What only the witness kept, it hands on: it leads without appending or committing anything,
     * until the other member has all of it and is told to stand. */
    struct hand *hand = with_witness();
    uint64_t index, term, last;

    hand_elect(hand, 1);
    hand_isolate(hand, 2, true);
    hand_propose(hand, 1, "a");
    hand_settle(hand); /* committed by 1 and 3 */
    hand_crash(hand, 1);
    hand_isolate(hand, 2, false);
    hand_pass(hand, 12000);
    cr_assert(hand_leads(hand, 2), "nobody leads who has a state");
    cr_assert_str_eq(hand_state(hand, 2), "a");
    /* Elected by 1, which lacks what came since; before it has heard of any log. */
    hand_crash(hand, 2);
    hand_restart(hand, 2);
    hand_restart(hand, 1);
    hand_age(hand, 2000);
    con_raft_campaign(hand->members[3].raft);
    hand_run(hand, 3);
    for (int i = 0; i < 2; i++) {
        struct con_message *message =
            hand_take(hand, i ? CON_VOTE_REPLY : CON_VOTE, i ? 1 : 3, i ? 3 : 1);

        cr_assert_not_null(message);
        hand_deliver(hand, message);
        free(message);
    }
    cr_assert(hand_leads(hand, 3));
    last = hand_status(hand, 3).last;
    cr_assert_eq(con_raft_propose(hand->members[3].raft, BASE_BYTES_LIT("b"), &index, &term),
                 CON_TRANSFERRING);
    con_raft_read(hand->members[3].raft, 1);
    hand_run(hand, 3);
    cr_assert(hand_read(hand, 3, 1) && hand_read(hand, 3, 1)->index == 0);
    cr_assert(!hand_status(hand, 3).ready && hand_status(hand, 3).last == last);
    hand_pass(hand, 12000);
    cr_assert(hand_leader(hand) == 1 || hand_leader(hand) == 2);
    hand_free(hand);
}

Test(raft_elect, witnesses_alone_commit_nothing)
{
    /* The leader sees itself out; of those that stay, the one with a state is away. Two witnesses
     * are a majority, but what they alone hold could be applied by nobody once the leader is gone:
     * it waits for the third. */
    struct con_config first = hand_voters(4), next;
    struct hand *hand;

    first.members[2].witness = first.members[3].witness = true;
    hand = hand_new_config(&first, NULL);
    hand_elect(hand, 1);
    hand_propose(hand, 1, "a");
    hand_pass(hand, 300);
    hand_isolate(hand, 2, true);
    next = first;
    cr_assert(con_config_remove(&next, 1));
    cr_assert_eq(con_raft_change(hand->members[1].raft, &next, &next.index), CON_TAKEN);
    hand_run(hand, 1);
    hand_pass(hand, 1500);
    cr_assert(hand_leads(hand, 1) && hand_status(hand, 1).commit == 2, "committed by witnesses");
    hand_isolate(hand, 2, false);
    hand_pass(hand, 1500);
    cr_assert_eq(hand_leader(hand), 2, "handed over to who has a state");
    hand_crash(hand, 1);
    hand_propose(hand, 2, "b");
    hand_pass(hand, 300);
    cr_assert_str_eq(hand_state(hand, 2), "ab");
    hand_free(hand);
}

Test(raft_elect, a_witness_that_nobody_takes_on_gives_up)
{
    /* It has no state to give: a member that needs a snapshot cannot be helped, and a leader
     * without use would keep the others from what they can do without it. */
    struct hand *hand = with_witness();

    hand_elect(hand, 1);
    hand_isolate(hand, 2, true);
    hand_propose(hand, 1, "a");
    hand_pass(hand, 300);
    hand_compact(hand, 3, 2);
    hand_crash(hand, 1);
    hand_isolate(hand, 2, false);
    hand_pass(hand, 20000);
    cr_assert_str_eq(hand_state(hand, 2), "", "a state out of nothing");
    cr_assert(!hand_leads(hand, 2));
    cr_assert_eq(hand->sent[CON_SNAPSHOT], 0);
    hand_restart(hand, 1);
    hand_pass(hand, 8000);
    cr_assert_eq(hand_leader(hand), 1);
    cr_assert_str_eq(hand_state(hand, 2), "a");
    hand_free(hand);
}

/* Members 2 and 3 of three, the leader dead and forgotten. */
static struct hand *leaderless(void)
{
    struct hand *hand = hand_new(3, NULL);

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    hand_crash(hand, 1);
    hand_age(hand, 5000);
    return hand;
}

/* Its time has come; what it says stays in flight. */
static void stand(struct hand *hand, uint64_t id)
{
    for (int ms = 0; ms < 400 && hand_status(hand, id).role != CON_PRE_CANDIDATE; ms += 10)
        hand_tick(hand, id, 10);
    cr_assert_eq(hand_status(hand, id).role, CON_PRE_CANDIDATE);
}

Test(raft_elect, what_was_lost_is_asked_again)
{
    /* A question or an answer that gets lost (the other was just started anew, and the connection
     * to it is not up yet) costs a heartbeat and not an election timeout (3.3: who is not answered
     * asks again). */
    static const enum con_message_kind kinds[] = { CON_PRE_VOTE, CON_PRE_VOTE_REPLY, CON_VOTE,
                                                   CON_VOTE_REPLY };

    for (int i = 0; i < 4; i++) {
        struct hand *hand = leaderless();
        bool asks = kinds[i] == CON_PRE_VOTE || kinds[i] == CON_VOTE;
        struct con_message *message = NULL;

        stand(hand, 2);
        while (!message) {
            message = hand_take(hand, 0, 2, 3);
            message = message ? message : hand_take(hand, 0, 3, 2);
            cr_assert_not_null(message);
            if (message->kind != kinds[i] || message->from != (asks ? 2 : 3)) {
                hand_deliver(hand, message);
                free(message);
                message = NULL;
            }
        }
        free(message); /* lost */
        for (int ms = 0; ms < 400; ms += 10) {
            hand_tick(hand, 2, 10);
            hand_settle(hand);
        }
        cr_assert(hand_leads(hand, 2), "the loss of a message of kind %d", (int)kinds[i]);
        hand_free(hand);
    }
}

Test(raft_elect, of_two_that_stand_at_once_one_wins)
{
    /* Both ask whether they would be voted for, and each would vote for the other: then both stood
     * in the same term, each with its own vote, and an election timeout was lost. Of two with equal
     * logs the one with the greater id goes on; with another log, the one that has more. */
    for (int more = 0; more < 2; more++) {
        struct hand *hand = leaderless();

        if (more) { /* member 2 has an entry that 3 has not */
            hand_restart(hand, 1);
            hand_isolate(hand, 3, true);
            hand_elect(hand, 1);
            hand_propose(hand, 1, "a");
            hand_settle(hand);
            hand_crash(hand, 1);
            hand_isolate(hand, 3, false);
            hand_age(hand, 5000);
        }
        stand(hand, 2);
        stand(hand, 3);
        hand_settle(hand);
        cr_assert_eq(hand_leader(hand), more ? 2 : 3);
        hand_free(hand);
    }
}

Test(raft_elect, one_that_goes_first_and_cannot_win_lets_the_other)
{
    /* Of five, two are down, and the greatest reaches only one of the others, which reaches all. It
     * stands again and again and cannot win: it must not keep its vote from who can. */
    struct hand *hand = hand_new(5, NULL);

    hand_crash(hand, 4);
    hand_crash(hand, 3);
    hand->cut[5][1] = hand->cut[1][5] = true;
    hand_age(hand, 5000);
    stand(hand, 5);
    hand_settle(hand);
    hand_pass(hand, 30000);
    cr_assert_eq(hand_leader(hand), (uint64_t)2);
    hand_free(hand);
}

Test(raft_elect, one_that_hears_nobody_keeps_nobody_from_standing)
{
    /* Its questions come through, answers do not come back to it: whoever else stands is elected
     * all the same, whatever the ids. */
    struct hand *hand = leaderless();

    hand->cut[2][3] = true;
    hand_restart(hand, 1);
    hand_age(hand, 5000);
    hand->cut[1][3] = true;
    stand(hand, 3);
    stand(hand, 2);
    hand_settle(hand);
    cr_assert_eq(hand_leader(hand), 2);
    hand_free(hand);
}

Test(raft_elect, a_slow_disk_does_not_keep_a_candidate_from_asking)
{
    /* Its own vote must be durable before it asks. While that lasts it begins no other election, in
     * a term whose vote would have to be durable as well; and the time to wait for answers begins
     * when they are asked for. So however slow disks are, somebody comes to lead. */
    struct hand *hand = leaderless();
    uint64_t term;

    hand->members[2].hold_writes = true;
    stand(hand, 2);
    for (int i = 0; i < 2; i++) {
        struct con_message *message =
            hand_take(hand, i ? CON_PRE_VOTE_REPLY : CON_PRE_VOTE, i ? 3 : 2, i ? 2 : 3);

        cr_assert_not_null(message);
        hand_deliver(hand, message);
        free(message);
    }
    cr_assert_eq(hand_status(hand, 2).role, CON_CANDIDATE);
    term = hand_status(hand, 2).term;
    for (int ms = 0; ms < 10000; ms += 10)
        hand_tick(hand, 2, 10);
    cr_assert(hand_status(hand, 2).role == CON_CANDIDATE && hand_status(hand, 2).term == term);
    hand->members[2].hold_writes = false;
    hand_written(hand, 2);
    for (int ms = 0; ms < 900; ms += 10)
        hand_tick(hand, 2, 10); /* the other's vote takes its time, too */
    hand_settle(hand);
    cr_assert(hand_leads(hand, 2) && hand_status(hand, 2).term == term);
    hand_free(hand);
}
