/* Reads by read index (Raft 2014, section 6.4; consensus/src/raft_send.c, raft_output.c): a leader
 * answers only when a quorum has said, after the read began, that it knows no other; no clock is
 * part of it. */
#include "raft_hand.h"

#include <stdlib.h>

Test(raft_read, needs_a_round)
{
    /* Nothing is answered before a majority was heard; then with all that was committed before. */
    struct hand *hand = hand_new(3, NULL);
    const struct con_raft_read *read;

    hand_elect(hand, 1);
    hand_propose(hand, 1, "a");
    hand_pass(hand, 300);
    con_raft_read(hand->members[1].raft, 11);
    hand_run(hand, 1);
    cr_assert_null(hand_read(hand, 1, 11), "answered without asking anybody");
    hand_settle(hand);
    read = hand_read(hand, 1, 11);
    cr_assert(read && read->index == 2);
    hand_free(hand);
}

Test(raft_read, a_group_of_one_asks_nobody)
{
    struct hand *hand = hand_new(1, NULL);

    hand_elect(hand, 1);
    hand_propose(hand, 1, "a");
    con_raft_read(hand->members[1].raft, 1);
    hand_run(hand, 1);
    cr_assert(hand_read(hand, 1, 1) && hand_read(hand, 1, 1)->index == 2);
    hand_free(hand);
}

Test(raft_read, a_deposed_leader_answers_nothing_stale)
{
    /* Cut off, it does not know that another leads and has committed more: the read stays open and
     * is refused when it steps down, however its clock goes. */
    struct hand *hand = hand_new(3, NULL);
    const struct con_raft_read *read;

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    con_raft_read(hand->members[1].raft, 4); /* one that is answered, before */
    hand_run(hand, 1);
    hand_settle(hand);
    cr_assert(hand_read(hand, 1, 4) && hand_read(hand, 1, 4)->index > 0);
    hand_isolate(hand, 1, true);
    con_raft_read(hand->members[1].raft, 5);
    hand_run(hand, 1);
    hand_elect(hand, 2);
    hand_propose(hand, 2, "new");
    hand_settle(hand);
    cr_assert(hand_leads(hand, 1), "both think they lead");
    cr_assert_null(hand_read(hand, 1, 5));
    hand_isolate(hand, 1, false);
    hand_pass(hand, 500);
    read = hand_read(hand, 1, 5);
    cr_assert(read && read->index == 0, "a stale read was served");
    con_raft_read(hand->members[1].raft, 6);
    hand_run(hand, 1);
    cr_assert(hand_read(hand, 1, 6) && hand_read(hand, 1, 6)->index == 0, "not the leader");
    hand_free(hand);
}

Test(raft_read, an_answer_from_before_does_not_count)
{
    /* The heartbeat's answer that was on its way when the read came proves nothing about it. */
    struct hand *hand = hand_new(3, NULL);
    struct con_message *early[2];

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    hand_tick(hand, 1, 150);
    for (uint64_t id = 2; id <= 3; id++) {
        struct con_message *beat = hand_take(hand, CON_HEARTBEAT, 1, id);

        cr_assert_not_null(beat);
        hand_deliver(hand, beat);
        free(beat);
        early[id - 2] = hand_take(hand, CON_HEARTBEAT_REPLY, id, 1);
        cr_assert_not_null(early[id - 2]);
    }
    con_raft_read(hand->members[1].raft, 9);
    hand_run(hand, 1);
    hand_drop_all(hand);
    for (int i = 0; i < 2; i++) {
        hand_deliver(hand, early[i]);
        free(early[i]);
    }
    cr_assert_null(hand_read(hand, 1, 9), "answered by heartbeats from before it");
    hand_pass(hand, 300); /* the next ones do, though the first round was lost */
    cr_assert(hand_read(hand, 1, 9) && hand_read(hand, 1, 9)->index > 0);
    hand_free(hand);
}

Test(raft_read, a_new_leader_first_learns_what_is_committed)
{
    /* Before its own first entry is committed it may not know the last that was: a read waits. */
    struct hand *hand = hand_new(3, NULL);

    hand_elect(hand, 1);
    hand_propose(hand, 1, "a");
    hand_settle(hand); /* 2 and 3 have it, and do not know that it is committed */
    cr_assert_eq(hand_status(hand, 2).commit, 1);
    hand_crash(hand, 1);
    hand_age(hand, 2000);
    con_raft_campaign(hand->members[2].raft);
    hand_run(hand, 2);
    for (int i = 0; i < 2; i++) {
        struct con_message *message =
            hand_take(hand, i ? CON_VOTE_REPLY : CON_VOTE, i ? 3 : 2, i ? 2 : 3);

        hand_deliver(hand, message);
        free(message);
    }
    cr_assert(hand_leads(hand, 2) && hand_status(hand, 2).commit == 1);
    con_raft_read(hand->members[2].raft, 3);
    hand_run(hand, 2);
    cr_assert_null(hand_read(hand, 2, 3));
    hand_settle(hand);
    cr_assert(hand_read(hand, 2, 3) && hand_read(hand, 2, 3)->index == 3, "its own first entry");
    cr_assert_str_eq(hand_state(hand, 2), "a");
    hand_free(hand);
}

Test(raft_read, many_share_a_round)
{
    /* A thousand reads cost one round, those that come meanwhile the next one. */
    struct hand *hand = hand_new(3, NULL);
    size_t before;

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    before = hand->sent[CON_HEARTBEAT];
    for (uint64_t id = 1; id <= 30; id++)
        con_raft_read(hand->members[1].raft, id);
    hand_run(hand, 1);
    for (uint64_t id = 31; id <= 60; id++)
        con_raft_read(hand->members[1].raft, id);
    hand_settle(hand);
    for (uint64_t id = 1; id <= 60; id++)
        cr_assert(hand_read(hand, 1, id) && hand_read(hand, 1, id)->index > 0, "read %d", (int)id);
    cr_assert(hand->sent[CON_HEARTBEAT] - before <= 4, "%zu messages",
              hand->sent[CON_HEARTBEAT] - before);
    hand_free(hand);
}

Test(raft_read, learners_do_not_count)
{
    /* A round that only learners answered is none. */
    struct con_config first = hand_voters(3);
    struct hand *hand;

    first.members[2].voter = false;
    hand = hand_new_config(&first, NULL); /* voters 1 and 2, learner 3 */
    hand_elect(hand, 1);
    hand_pass(hand, 300);
    hand_isolate(hand, 2, true);
    con_raft_read(hand->members[1].raft, 4);
    hand_run(hand, 1);
    hand_settle(hand);
    hand_pass(hand, 500);
    cr_assert_null(hand_read(hand, 1, 4));
    hand_isolate(hand, 2, false);
    hand_pass(hand, 300);
    cr_assert(hand_read(hand, 1, 4) && hand_read(hand, 1, 4)->index > 0);
    hand_free(hand);
}
