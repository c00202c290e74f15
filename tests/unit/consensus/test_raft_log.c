/* Replication: logs that differ, messages that get lost, followers that are slow, limits, and what
 * a restart begins with (consensus/src/raft_lead.c, raft_follow.c, raft_log.c). */
#include "raft_hand.h"

#include <stdlib.h>

static struct con_raft_options options_of(size_t message_bytes, size_t inflight)
{
    return (struct con_raft_options){
        .election_ns = 1000 * (int64_t)HAND_MS,
        .heartbeat_ns = 150 * (int64_t)HAND_MS,
        .message_bytes_max = message_bytes,
        .inflight_messages_max = inflight,
    };
}

/* A follower's log as another leader left it: entries of these terms, then a new life. */
static void log_set(struct hand *hand, uint64_t id, const char *terms)
{
    struct raft_disk *disk = &hand->members[id].disk;

    hand_crash(hand, id);
    for (uint64_t index = 1; *terms; terms++, index++) {
        struct con_entry entry = { index, (uint64_t)(*terms - '0'), CON_ENTRY_COMMAND,
                                   base_bytes(terms, 1) };

        raft_disk_write(disk, true, entry.term, 0, &entry, 1);
    }
    hand_restart(hand, id);
}

Test(raft_log, logs_that_differ_are_repaired)
{
    /* Figure 3.6 of the paper (7 in the short one): whatever a follower's log looks like, too
     * short, too long, of other terms, it becomes the leader's. */
    static const char *const followers[] = {
        "111445566",    /* (a) lacks one */
        "1114",         /* (b) lacks many */
        "11144556666",  /* (c) one too many */
        "111445566677", /* (d) two of a later term */
        "1114444",      /* (e) */
        "11122233333",  /* (f) */
        "",
    };

    for (size_t i = 0; i < sizeof(followers) / sizeof(followers[0]); i++) {
        struct hand *hand = hand_new(3, NULL);

        log_set(hand, 1, "1114455666");
        log_set(hand, 2, "1114455666");
        log_set(hand, 3, followers[i]);
        hand_isolate(hand, 3, true);
        hand->members[1].disk.term = hand->members[2].disk.term = 7;
        hand_crash(hand, 1);
        hand_crash(hand, 2);
        hand_restart(hand, 1);
        hand_restart(hand, 2);
        hand_elect(hand, 1);
        cr_assert_eq(hand_status(hand, 1).term, 8);
        hand_isolate(hand, 3, false);
        hand_pass(hand, 1500);
        cr_assert_str_eq(hand_terms(hand, 3), "1 1 1 4 4 5 5 6 6 6 8", "case %zu: %s", i,
                         hand_terms(hand, 3));
        cr_assert_str_eq(hand_state(hand, 3), "1114455666", "case %zu", i);
        hand_free(hand);
    }
}

Test(raft_log, a_hint_skips_whole_terms)
{
    /* A follower with hundreds of entries of a lost term is repaired in a few messages, not one an
     * entry (section 5.3, end). */
    struct hand *hand = hand_new(3, NULL);
    char wrong[400], right[300];
    size_t rejected = 0;
    struct con_message *message;

    memset(wrong, '2', sizeof(wrong) - 1);
    memset(right, '3', sizeof(right) - 1);
    wrong[sizeof(wrong) - 1] = right[sizeof(right) - 1] = 0;
    wrong[0] = right[0] = '1';
    log_set(hand, 1, right);
    log_set(hand, 2, right);
    log_set(hand, 3, wrong);
    hand_isolate(hand, 3, true);
    hand_elect(hand, 1);
    hand_isolate(hand, 3, false);
    for (int steps = 0; steps < 200; steps++) {
        hand_tick(hand, 1, 20);
        while ((message = hand_take(hand, 0, 0, 0)) != NULL) {
            rejected += message->kind == CON_APPEND_REPLY && message->reject;
            hand_deliver(hand, message);
            free(message);
        }
    }
    cr_assert_eq(hand_status(hand, 3).last, 300);
    cr_assert_str_eq(hand_state(hand, 3), hand_state(hand, 1));
    cr_assert(rejected > 0 && rejected < 6, "%zu messages were refused", rejected);
    hand_free(hand);
}

Test(raft_log, a_lost_message_is_noticed)
{
    /* Messages may get lost one by one, whichever they are; time alone brings everything to
     * everybody. */
    for (size_t lost = 0; lost < 24; lost++) {
        struct con_raft_options options = options_of(40, 2);
        struct hand *hand = hand_new(3, &options);
        struct con_message *message;
        size_t count = 0;

        hand_elect(hand, 1);
        hand_isolate(hand, 3, true); /* both are needed for the majority */
        for (int i = 0; i < 5; i++)
            hand_propose(hand, 1, "x");
        for (int steps = 0; steps < 150; steps++) {
            while ((message = hand_take(hand, 0, 0, 0)) != NULL) {
                if (count++ != lost)
                    hand_deliver(hand, message);
                free(message);
            }
            for (uint64_t id = 1; id <= 3; id++)
                hand_tick(hand, id, 20);
        }
        cr_assert_eq(hand_leader(hand), 1);
        cr_assert_str_eq(hand_state(hand, 1), "xxxxx", "message %zu lost: \"%s\"", lost,
                         hand_state(hand, 1));
        cr_assert_str_eq(hand_state(hand, 2), "xxxxx", "message %zu lost", lost);
        hand_free(hand);
    }
}

Test(raft_log, duplicates_and_old_messages_change_nothing)
{
    /* Every message of a run comes a second time at its end, in reverse order. */
    struct hand *hand = hand_new(3, NULL);
    struct con_message *message, *seen[400];
    size_t count = 0;

    con_raft_campaign(hand->members[1].raft);
    hand_run(hand, 1);
    for (int i = 0; i < 30; i++) {
        while ((message = hand_take(hand, 0, 0, 0)) != NULL) {
            cr_assert(count < 400);
            seen[count++] = message;
            hand_deliver(hand, message);
        }
        if (i < 9)
            hand_propose(hand, 1, "y");
        hand_tick(hand, 1, 40);
    }
    cr_assert_str_eq(hand_state(hand, 3), "yyyyyyyyy");
    while (count > 0) {
        hand_deliver(hand, seen[--count]);
        free(seen[count]);
    }
    hand_drop_all(hand);
    hand_propose(hand, 1, "z");
    hand_pass(hand, 600);
    for (uint64_t id = 1; id <= 3; id++)
        cr_assert_str_eq(hand_state(hand, id), "yyyyyyyyyz");
    cr_assert(hand_leads(hand, 1));
    hand_free(hand);
}

Test(raft_log, appends_are_sent_ahead_up_to_a_number)
{
    /* Pipelining and flow control: with nothing answered, a follower gets as many messages as
     * allowed and no more; one answer lets one more go; memory and network stay bounded. */
    struct con_raft_options options = options_of(40, 3);
    struct hand *hand = hand_new(3, &options);
    struct con_message *message, *acked;
    size_t sent = 0;

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    for (int i = 0; i < 10; i++)
        hand_propose(hand, 1, "0123456789");
    while ((message = hand_take(hand, CON_APPEND, 1, 2)) != NULL) {
        sent++;
        cr_assert_eq(message->entry_count, 1);
        if (sent == 1)
            hand_deliver(hand, message);
        free(message);
    }
    cr_assert_eq(sent, 3);
    acked = hand_take(hand, CON_APPEND_REPLY, 2, 1);
    hand_deliver(hand, acked);
    for (sent = 0; (message = hand_take(hand, CON_APPEND, 1, 2)) != NULL; sent++)
        free(message);
    cr_assert_eq(sent, 1);
    free(acked);
    hand_free(hand);
}

Test(raft_log, what_was_proposed_meanwhile_goes_in_one_message)
{
    /* Batching: messages are made when outputs are taken. */
    struct hand *hand = hand_new(3, NULL);
    struct con_message *message;
    uint64_t index, term;

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    for (int i = 0; i < 20; i++)
        cr_assert_eq(con_raft_propose(hand->members[1].raft, BASE_BYTES_LIT("a"), &index, &term),
                     CON_TAKEN);
    hand_run(hand, 1);
    message = hand_take(hand, CON_APPEND, 1, 2);
    cr_assert(message && message->entry_count == 20);
    free(message);
    hand_free(hand);
}

Test(raft_log, an_acknowledgement_leaves_only_when_it_is_durable)
{
    /* For a follower's word and for the leader's own: what is on no majority of disks is not
     * committed. */
    struct hand *hand = hand_new(3, NULL);
    struct con_message *message;

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    hand->members[1].hold_writes = hand->members[2].hold_writes = true;
    hand_propose(hand, 1, "a");
    message = hand_take(hand, CON_APPEND, 1, 2);
    cr_assert_not_null(message, "sent while it is being written");
    hand_deliver(hand, message);
    free(message);
    cr_assert_null(hand_take(hand, CON_APPEND_REPLY, 2, 1));
    hand_written(hand, 2);
    hand_isolate(hand, 3, true);
    hand_settle(hand);
    cr_assert_eq(hand_status(hand, 1).commit, 1, "two have it, but the leader's own is in the air");
    hand_written(hand, 1);
    cr_assert_eq(hand_status(hand, 1).commit, 2);
    cr_assert_str_eq(hand_state(hand, 1), "a");
    hand_free(hand);
}

Test(raft_log, the_others_may_commit_before_the_leaders_disk)
{
    /* Section 10.2.1: its own copy is one of three; but it applies only what is durable here. */
    struct hand *hand = hand_new(3, NULL);

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    hand->members[1].hold_writes = true;
    hand_propose(hand, 1, "a");
    hand_settle(hand);
    cr_assert_eq(hand_status(hand, 1).commit, 2);
    cr_assert_str_eq(hand_state(hand, 1), "");
    hand_written(hand, 1);
    cr_assert_str_eq(hand_state(hand, 1), "a");
    hand_free(hand);
}

Test(raft_log, a_restart_begins_with_what_was_durable)
{
    /* Vote, snapshot, entries: whoever comes back with them goes on as if it had been silent for a
     * while; nothing is applied twice and nothing forgotten. */
    for (uint64_t down = 1; down <= 3; down++) {
        struct hand *hand = hand_new(3, NULL);

        hand_elect(hand, 1);
        hand_propose(hand, 1, "a");
        hand_propose(hand, 1, "b");
        hand_pass(hand, 300);
        for (uint64_t id = 1; id <= 3; id++)
            hand_compact(hand, id, 2);
        hand_propose(hand, 1, "c");
        hand_pass(hand, 300);
        hand_crash(hand, down);
        hand_restart(hand, down);
        cr_assert_str_eq(hand_state(hand, down), "ab", "that of the snapshot");
        cr_assert_eq(hand_status(hand, down).last, 4);
        cr_assert_eq(hand_status(hand, down).term, 1);
        hand_pass(hand, 8000);
        hand_propose(hand, hand_leader(hand), "d");
        hand_pass(hand, 500);
        for (uint64_t id = 1; id <= 3; id++)
            cr_assert_str_eq(hand_state(hand, id), "abcd");
        hand_free(hand);
    }
}

Test(raft_log, a_log_with_a_gap_is_refused)
{
    /* What a store hands over must be one log: a gap, a term that falls, a configuration that
     * cannot be read are DATA_LOSS; later entries replace earlier ones. */
    struct con_config first = hand_voters(1);
    struct con_raft_options options = options_of(0, 0);
    struct con_raft_start start = { .config = first };
    struct con_entry entries[] = {
        { 1, 2, CON_ENTRY_NO_OP, BASE_BYTES_EMPTY },
        { 2, 2, CON_ENTRY_COMMAND, BASE_BYTES_LIT("a") },
        { 4, 2, CON_ENTRY_COMMAND, BASE_BYTES_EMPTY },
        { 3, 1, CON_ENTRY_COMMAND, BASE_BYTES_EMPTY },
        { 3, 2, CON_ENTRY_CONFIG, BASE_BYTES_LIT("?") },
        { 2, 3, CON_ENTRY_COMMAND, BASE_BYTES_EMPTY },
    };
    enum base_code codes[] = { BASE_OK,        BASE_OK,        BASE_DATA_LOSS,
                               BASE_DATA_LOSS, BASE_DATA_LOSS, BASE_OK };
    struct con_raft *raft;

    options.id = 1;
    raft = con_raft_new(&options, &start, 0);
    for (size_t i = 0; i < 6; i++)
        cr_assert_eq(base_status_drop(con_raft_load(raft, &entries[i])), codes[i], "entry %zu", i);
    cr_assert(con_raft_status(raft).last == 2 && con_raft_term_at(raft, 2) == 3);
    cr_assert_eq(con_raft_status(raft).term, 3, "a term that an entry proves was begun");
    con_raft_free(raft);
}

Test(raft_log, too_much_uncommitted_is_refused)
{
    /* A leader that cannot commit does not take in without end; once things are committed it goes
     * on. A single command larger than the limit still goes, alone. */
    struct con_raft_options options = options_of(0, 0);
    struct hand *hand;
    uint64_t index, term;
    struct con_raft *raft;

    options.uncommitted_bytes_max = 100;
    hand = hand_new(3, &options);
    hand_elect(hand, 1);
    hand_pass(hand, 300);
    raft = hand->members[1].raft;
    hand_isolate(hand, 1, true);
    for (int i = 0; i < 10; i++)
        hand_propose(hand, 1, "0123456789");
    cr_assert_eq(con_raft_propose(raft, BASE_BYTES_LIT("x"), &index, &term), CON_FULL);
    hand_isolate(hand, 1, false);
    hand_pass(hand, 900);
    cr_assert_eq(hand_status(hand, 1).commit, 11);
    {
        uint8_t large[500] = { 0 };

        cr_assert_eq(con_raft_propose(raft, base_bytes(large, sizeof(large)), &index, &term),
                     CON_TAKEN);
        cr_assert_eq(con_raft_propose(raft, BASE_BYTES_LIT("x"), &index, &term), CON_FULL);
    }
    hand_run(hand, 1);
    hand_pass(hand, 500);
    cr_assert_eq(hand_status(hand, 2).commit, 12);
    hand_free(hand);
}

Test(raft_log, a_slow_follower_is_served_from_the_store)
{
    /* Applied entries beyond the memory's limit are read from the store, over and over when that
     * fails. */
    struct con_raft_options options = options_of(100, 4);
    struct hand *hand;

    options.memory_bytes_max = 20;
    hand = hand_new(3, &options);
    hand_elect(hand, 1);
    hand_pass(hand, 300);
    hand_isolate(hand, 3, true);
    for (int i = 0; i < 50; i++) {
        hand_propose(hand, 1, "abc");
        hand_settle(hand);
    }
    hand->fail_fetches = true;
    hand_isolate(hand, 3, false);
    hand_pass(hand, 1000);
    cr_assert_str_eq(hand_state(hand, 3), "");
    cr_assert(hand->members[1].fetches > 1 && hand->members[1].fetches < 30,
              "%zu fetches in a second", hand->members[1].fetches);
    hand->fail_fetches = false;
    hand_pass(hand, 2000);
    cr_assert_str_eq(hand_state(hand, 3), hand_state(hand, 1));
    hand_free(hand);
}

Test(raft_log, only_the_leader_takes_proposals)
{
    struct hand *hand = hand_new(3, NULL);
    uint64_t index = 7, term = 7;

    hand_elect(hand, 1);
    cr_assert_eq(con_raft_propose(hand->members[2].raft, BASE_BYTES_LIT("a"), &index, &term),
                 CON_NOT_LEADER);
    cr_assert(hand_status(hand, 2).leader == 1, "it says who does");
    hand_free(hand);
}

Test(raft_log, a_deposed_leaders_entries_give_way)
{
    /* What a leader took while it was cut off, and nobody else has, is replaced; its proposers can
     * tell by the term at that index. */
    struct hand *hand = hand_new(3, NULL);
    uint64_t index;

    hand_elect(hand, 1);
    hand_pass(hand, 200);
    hand_isolate(hand, 1, true);
    index = hand_propose(hand, 1, "lost");
    hand_elect(hand, 2);
    hand_propose(hand, 2, "kept");
    hand_settle(hand);
    hand_isolate(hand, 1, false);
    hand_pass(hand, 1500);
    for (uint64_t id = 1; id <= 3; id++)
        cr_assert_str_eq(hand_state(hand, id), "kept");
    cr_assert_neq(con_raft_term_at(hand->members[1].raft, index), 1);
    hand_free(hand);
}
