/* Groups in which nothing happens go quiet (consensus/src/raft_quiet.c), and wake. */
#include "raft_hand.h"

#include <stdlib.h>

static const struct con_raft_options may_be_quiet = { .quiet = true };

static bool quiet(const struct hand *hand, uint64_t id)
{
    return hand_status(hand, id).quiet;
}

static struct hand *quiet_group(void)
{
    struct hand *hand = hand_new(3, &may_be_quiet);

    hand_elect(hand, 1);
    hand_propose(hand, 1, "a");
    hand_pass(hand, 1500);
    return hand;
}

static size_t said(struct hand *hand, int64_t ms)
{
    size_t before = 0, after = 0;

    for (int kind = 0; kind <= CON_TIMEOUT_NOW; kind++)
        before += hand->sent[kind];
    hand_pass(hand, ms);
    for (int kind = 0; kind <= CON_TIMEOUT_NOW; kind++)
        after += hand->sent[kind];
    return after - before;
}

Test(raft_quiet, all_stop_when_all_have_everything)
{
    /* And nobody stands for however long: that the leader is there is the driver's to know. */
    struct hand *hand = quiet_group();

    for (uint64_t id = 1; id <= 3; id++) {
        cr_assert(quiet(hand, id));
        cr_assert_eq(con_raft_deadline(hand->members[id].raft), INT64_MAX);
    }
    cr_assert_eq(said(hand, 60000), (size_t)0);
    cr_assert(hand_leads(hand, 1));
    hand_free(hand);
}

Test(raft_quiet, not_unless_asked_for)
{
    struct hand *hand = hand_new(3, NULL);

    hand_elect(hand, 1);
    hand_pass(hand, 5000);
    cr_assert(!quiet(hand, 1) && !quiet(hand, 2) && !quiet(hand, 3));
    hand_free(hand);
}

Test(raft_quiet, not_while_a_member_lacks_something)
{
    /* One that is away, or has not written: its leader goes on telling it. */
    struct hand *hand = hand_new(3, &may_be_quiet);

    hand_elect(hand, 1);
    hand_isolate(hand, 3, true);
    hand_pass(hand, 5000);
    cr_assert(!quiet(hand, 1) && hand_leads(hand, 1));
    hand_isolate(hand, 3, false);
    hand->members[3].hold_writes = true;
    hand_propose(hand, 1, "a");
    hand_pass(hand, 5000);
    cr_assert(!quiet(hand, 1) && !quiet(hand, 3));
    hand->members[3].hold_writes = false;
    hand_written(hand, 3);
    hand_pass(hand, 2000);
    cr_assert(quiet(hand, 1) && quiet(hand, 2) && quiet(hand, 3));
    hand_free(hand);
}

Test(raft_quiet, a_proposal_and_a_read_wake)
{
    struct hand *hand = quiet_group();

    hand_propose(hand, 1, "b");
    hand_settle(hand);
    cr_assert(!quiet(hand, 1) && !quiet(hand, 2) && !quiet(hand, 3));
    hand_pass(hand, 2000);
    cr_assert_str_eq(hand_state(hand, 3), "ab");
    cr_assert(quiet(hand, 1) && quiet(hand, 2) && quiet(hand, 3));
    con_raft_read(hand->members[1].raft, 7);
    hand_run(hand, 1);
    cr_assert_null(hand_read(hand, 1, 7), "a quiet leader still asks a quorum");
    hand_settle(hand);
    cr_assert(hand_read(hand, 1, 7) && hand_read(hand, 1, 7)->index > 0);
    cr_assert(!quiet(hand, 1) && !quiet(hand, 2));
    hand_free(hand);
}

Test(raft_quiet, a_leader_that_is_gone_is_missed_once_the_driver_says_so)
{
    /* Timers run from when its process was last heard. */
    struct hand *hand = quiet_group();

    hand_crash(hand, 1);
    cr_assert_eq(said(hand, 10000), (size_t)0);
    for (uint64_t id = 2; id <= 3; id++)
        con_raft_wake(hand->members[id].raft, hand->members[id].now - 900 * HAND_MS,
                      hand->members[id].now);
    cr_assert(!quiet(hand, 2) && !quiet(hand, 3));
    hand_pass(hand, 90);
    cr_assert_eq(hand_leader(hand), (uint64_t)0, "it was heard less than an election time ago");
    hand_pass(hand, 890);
    cr_assert(hand_leader(hand) > 1);
    hand_free(hand);
}

Test(raft_quiet, whom_the_driver_wakes_wakes_the_other)
{
    /* Only one end may notice that the way is broken. */
    struct hand *hand = quiet_group();

    con_raft_wake(hand->members[2].raft, hand->members[2].now, hand->members[2].now);
    hand_run(hand, 2);
    hand_settle(hand);
    cr_assert(!quiet(hand, 1) && !quiet(hand, 2) && !quiet(hand, 3));
    hand_pass(hand, 5000);
    cr_assert(hand_leads(hand, 1) && quiet(hand, 1) && quiet(hand, 2) && quiet(hand, 3));
    con_raft_wake(hand->members[1].raft, hand->members[1].now, hand->members[1].now);
    hand_run(hand, 1);
    hand_settle(hand);
    cr_assert(!quiet(hand, 2) && !quiet(hand, 3));
    hand_free(hand);
}

Test(raft_quiet, a_restarted_follower_unseats_nobody)
{
    /* It knows no leader, and nobody tells it: it asks, which wakes the leader. */
    struct hand *hand = quiet_group();
    uint64_t term = hand_status(hand, 1).term;

    hand_crash(hand, 3);
    hand_restart(hand, 3);
    hand_pass(hand, 6000);
    cr_assert(hand_leads(hand, 1));
    cr_assert_eq(hand_status(hand, 1).term, term);
    cr_assert(quiet(hand, 1) && quiet(hand, 2) && quiet(hand, 3));
    hand_free(hand);
}

Test(raft_quiet, a_restarted_leader_is_not_waited_for)
{
    /* Its followers believe that it leads. When it asks to be voted for itself, it does not. */
    struct hand *hand = quiet_group();

    hand_crash(hand, 1);
    hand_restart(hand, 1);
    hand_pass(hand, 2100);
    cr_assert(hand_leads(hand, 1));
    cr_assert_eq(hand->sent[CON_PRE_VOTE], (size_t)2, "one attempt was enough");
    hand_free(hand);
}

Test(raft_quiet, a_late_agreement_is_none)
{
    /* A follower agrees, its answer is slow; meanwhile the leader wakes it. The old answer must not
     * make the leader go quiet beside a follower that times it. */
    struct hand *hand = hand_new(3, &may_be_quiet);
    struct con_message *late = NULL;

    hand_elect(hand, 1);
    for (int i = 0; i < 200 && !late; i++) {
        hand_tick(hand, 1, 10);
        while (hand->flight_count > 0) {
            struct con_message *next = hand_take(hand, 0, 0, 0);

            if (next->kind == CON_HEARTBEAT_REPLY && next->from == 2 && next->quiet) {
                late = next;
                break;
            }
            hand_deliver(hand, next);
            free(next);
        }
    }
    cr_assert(late && quiet(hand, 2) && !quiet(hand, 1));
    hand_propose(hand, 1, "a");
    hand_settle(hand);
    cr_assert(!quiet(hand, 2));
    hand_isolate(hand, 2, true);
    for (int i = 0; i < 80; i++) { /* the leader offers again; only 3 hears and agrees */
        hand_tick(hand, 1, 10);
        hand_settle(hand);
    }
    cr_assert(quiet(hand, 3));
    hand_deliver(hand, late);
    cr_assert(!quiet(hand, 1) && !quiet(hand, 2));
    free(late);
    hand_free(hand);
}

Test(raft_quiet, a_group_of_one_needs_nobody)
{
    struct hand *hand = hand_new(1, &may_be_quiet);

    hand_elect(hand, 1);
    hand_pass(hand, 2000);
    cr_assert(quiet(hand, 1));
    hand_propose(hand, 1, "a");
    hand_settle(hand);
    cr_assert_str_eq(hand_state(hand, 1), "a");
    hand_free(hand);
}
