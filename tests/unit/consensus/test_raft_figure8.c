/* Figure 8 of the Raft paper (Ongaro, 2014: section 3.6.2; the extended paper: section 5.4.2): a
 * leader must not take an entry of an earlier term for committed because a majority holds it. The
 * one rule most easily got wrong, and the one that loses acknowledged data. */
#include "raft_hand.h"

#include <stdlib.h>

/* What is in flight between two members arrives, both ways, until there is no more; but no entry
 * of `term` or later: appends are cut to the entries before it, as a leader with smaller messages
 * would send them. The rest between the two is lost. */
static void flow_before_term(struct hand *hand, uint64_t a, uint64_t b, uint64_t term)
{
    struct con_message *message;

    for (int rounds = 0; rounds < 100; rounds++) {
        size_t kept = 0;

        message = hand_take(hand, 0, a, b);
        if (!message)
            message = hand_take(hand, 0, b, a);
        if (!message)
            return;
        while (kept < message->entry_count && message->entries[kept].term < term)
            kept++;
        message->entry_count = kept;
        hand_deliver(hand, message);
        free(message);
    }
    cr_assert(false, "members %d and %d talk without end", (int)a, (int)b);
}

static void expect_terms(struct hand *hand, uint64_t id, const char *terms)
{
    cr_assert_str_eq(hand_terms(hand, id), terms, "member %d has %s", (int)id,
                     hand_terms(hand, id));
}

/* Up to (c) of the figure. S1 led terms 2 and 4, S5 term 3. The entry of term 2, "x", is on S1, S2
 * and S3: a majority; S1, leader of term 4, knows it; nothing of term 4 has left S1. */
static struct hand *figure_8_c(void)
{
    struct hand *hand = hand_new(5, NULL);
    uint64_t match = 0;
    int64_t heard;

    hand_elect(hand, 1); /* term 1: an entry that all have */
    for (uint64_t id = 1; id <= 5; id++)
        expect_terms(hand, id, "1");
    /* (a) S1 leads term 2 and brings its entries to S2 only. */
    hand_crash(hand, 1);
    hand_restart(hand, 1);
    hand_age(hand, 2000);
    con_raft_campaign(hand->members[1].raft);
    hand_run(hand, 1);
    for (uint64_t id = 2; id <= 5; id++) { /* the votes; the appends that follow are held back */
        struct con_message *vote = hand_take(hand, CON_VOTE, 1, id);

        if (vote)
            hand_deliver(hand, vote);
        free(vote);
    }
    for (uint64_t id = 2; id <= 3; id++) {
        struct con_message *reply = hand_take(hand, CON_VOTE_REPLY, id, 1);

        cr_assert(reply && !reply->reject);
        hand_deliver(hand, reply);
        free(reply);
    }
    cr_assert(hand_leads(hand, 1) && hand_status(hand, 1).term == 2);
    hand_propose(hand, 1, "x");
    flow_before_term(hand, 1, 2, 3);
    hand_drop_all(hand);
    expect_terms(hand, 1, "1 2 2");
    expect_terms(hand, 2, "1 2 2");
    expect_terms(hand, 3, "1");
    cr_assert(hand_status(hand, 1).commit <= 1, "two of five are no majority");
    hand_crash(hand, 1);
    hand_age(hand, 2000);
    /* (b) S5 is elected by S3 and S4, takes an entry and crashes before it left. */
    con_raft_campaign(hand->members[5].raft);
    hand_run(hand, 5);
    for (int tries = 0; tries < 3 && !hand_leads(hand, 5); tries++) {
        if (tries) { /* its term may have been too low for them */
            con_raft_campaign(hand->members[5].raft);
            hand_run(hand, 5);
        }
        for (uint64_t id = 3; id <= 4; id++) {
            struct con_message *message = hand_take(hand, CON_VOTE, 5, id);

            if (message)
                hand_deliver(hand, message);
            free(message);
            message = hand_take(hand, CON_VOTE_REPLY, id, 5);
            if (message)
                hand_deliver(hand, message);
            free(message);
        }
    }
    cr_assert(hand_leads(hand, 5) && hand_status(hand, 5).term == 3);
    hand_propose(hand, 5, "y");
    hand_crash(hand, 5);
    hand_drop_all(hand);
    expect_terms(hand, 5, "1 3 3");
    /* (c) S1 is back, elected by S2 and S3, and goes on bringing "x" to S3. */
    hand_restart(hand, 1);
    hand_age(hand, 2000);
    for (int tries = 0; tries < 3 && !hand_leads(hand, 1); tries++) {
        con_raft_campaign(hand->members[1].raft);
        hand_run(hand, 1);
        for (uint64_t id = 2; id <= 3; id++) {
            struct con_message *message = hand_take(hand, CON_VOTE, 1, id);

            if (message)
                hand_deliver(hand, message);
            free(message);
            message = hand_take(hand, CON_VOTE_REPLY, id, 1);
            if (message)
                hand_deliver(hand, message);
            free(message);
        }
    }
    cr_assert(hand_leads(hand, 1) && hand_status(hand, 1).term == 4);
    expect_terms(hand, 1, "1 2 2 4");
    for (int rounds = 0; rounds < 20; rounds++) { /* rejected, repaired, sent */
        flow_before_term(hand, 1, 2, 4);
        flow_before_term(hand, 1, 3, 4);
        hand_tick(hand, 1, 20);
    }
    expect_terms(hand, 2, "1 2 2");
    expect_terms(hand, 3, "1 2 2");
    cr_assert(con_raft_progress(hand->members[1].raft, 2, &match, &heard) && match == 3);
    cr_assert(con_raft_progress(hand->members[1].raft, 3, &match, &heard) && match == 3);
    return hand;
}

/* S5 stands for election until S2, S3 and S4 have answered once in a term higher than theirs. */
static void s5_stands(struct hand *hand)
{
    hand_crash(hand, 1);
    hand_drop_all(hand);
    hand_restart(hand, 5);
    hand_age(hand, 2000);
    for (int tries = 0; tries < 3 && !hand_leads(hand, 5); tries++) {
        con_raft_campaign(hand->members[5].raft);
        hand_run(hand, 5);
        hand_settle(hand);
    }
}

Test(raft_figure8, a_majority_of_an_earlier_term_is_not_committed)
{
    /* (c), (d): "x" of term 2 is on three of five and the leader of term 4 knows it; it must not
     * count as committed, because S5 can still be elected and overwrite it everywhere. */
    struct hand *hand = figure_8_c();

    cr_assert(hand_status(hand, 1).commit <= 1,
              "an entry of an earlier term was committed by counting its copies");
    cr_assert_str_eq(hand_state(hand, 1), "");
    s5_stands(hand);
    cr_assert(hand_leads(hand, 5), "S5's last entry is newer than that of S2, S3 and S4");
    hand_propose(hand, 5, "z");
    hand_settle(hand);
    hand_restart(hand, 1);
    hand_pass(hand, 1000);
    for (uint64_t id = 1; id <= 5; id++)
        cr_assert_str_eq(hand_state(hand, id), "yz", "member %d applied \"%s\"", (int)id,
                         hand_state(hand, id));
    hand_free(hand);
}

Test(raft_figure8, an_entry_of_the_leaders_own_term_commits_all_before)
{
    /* (e): once an entry of term 4 is on a majority as well, it and "x" are committed, and S5
     * cannot be elected any more. */
    struct hand *hand = figure_8_c();

    for (int rounds = 0; rounds < 20; rounds++) {
        flow_before_term(hand, 1, 2, 5);
        flow_before_term(hand, 1, 3, 5);
        hand_tick(hand, 1, 20);
    }
    cr_assert_eq(hand_status(hand, 1).commit, 4);
    cr_assert_str_eq(hand_state(hand, 1), "x");
    s5_stands(hand);
    cr_assert(!hand_leads(hand, 5), "S5 lacks what is committed");
    hand_pass(hand, 8000);
    cr_assert(hand_leader(hand) != 0 && hand_leader(hand) != 5);
    hand_restart(hand, 1);
    hand_propose(hand, hand_leader(hand), "z");
    hand_pass(hand, 1000);
    for (uint64_t id = 1; id <= 5; id++)
        cr_assert_str_eq(hand_state(hand, id), "xz", "member %d applied \"%s\"", (int)id,
                         hand_state(hand, id));
    hand_free(hand);
}
