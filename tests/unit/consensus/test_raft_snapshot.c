/* Snapshots in chunks (Raft 2014, chapter 5; consensus/src/raft_follow.c, raft_send.c): a follower
 * that needs what is compacted away gets the whole state, piece by piece, whatever gets lost. */
#include "raft_hand.h"

#include <stdlib.h>

enum { PIECES = 4 };

/* Member 1 leads; 3 was away, and what it lacks is compacted away at 1 and 2. */
static struct hand *one_behind(void)
{
    struct hand *hand = hand_new(3, NULL);

    hand_elect(hand, 1);
    hand_pass(hand, 300);
    hand_isolate(hand, 3, true);
    for (int i = 0; i < 10; i++)
        hand_propose(hand, 1, "0123456789");
    hand_pass(hand, 300);
    for (uint64_t id = 1; id <= 2; id++)
        hand_compact(hand, id, hand_status(hand, id).applied);
    hand_propose(hand, 1, "end");
    hand_pass(hand, 300);
    hand_drop_all(hand);
    return hand;
}

/* Chunks as a driver with a small buffer would give them. */
static void give_small_pieces(struct hand *hand, struct con_message *message)
{
    if (message->kind == CON_SNAPSHOT && message->data.len > 100 / PIECES)
        message->data.len = 100 / PIECES;
    hand_deliver(hand, message);
    free(message);
}

static void let_go_on(struct hand *hand, int64_t ms)
{
    struct con_message *message;

    for (; ms > 0; ms -= 20) {
        while ((message = hand_take(hand, 0, 0, 0)) != NULL)
            give_small_pieces(hand, message);
        for (uint64_t id = 1; id <= 3; id++)
            hand_tick(hand, id, 20);
    }
}

static void all_equal(struct hand *hand, const char *what, int which)
{
    for (uint64_t id = 2; id <= 3; id++)
        cr_assert_str_eq(hand_state(hand, id), hand_state(hand, 1), "%s %d: member %d", what, which,
                         (int)id);
    cr_assert(hand->members[3].disk.snapshot_index > 0, "it came by a snapshot");
}

Test(raft_snapshot, brings_a_follower_up_to_date)
{
    struct hand *hand = one_behind();

    hand_isolate(hand, 3, false);
    let_go_on(hand, 1500);
    all_equal(hand, "plain", 0);
    cr_assert(hand->sent[CON_SNAPSHOT] >= PIECES);
    hand_propose(hand, 1, "more");
    let_go_on(hand, 600);
    all_equal(hand, "after", 0);
    hand_free(hand);
}

Test(raft_snapshot, any_message_of_it_may_be_lost_or_come_twice)
{
    /* A lost chunk, or a lost answer, is asked for again; a second copy changes nothing. */
    for (int which = 0; which < 2 * 2 * PIECES; which++) {
        struct hand *hand = one_behind();
        struct con_message *message;
        int count = 0;

        hand_isolate(hand, 3, false);
        for (int steps = 0; steps < 300; steps++) {
            while ((message = hand_take(hand, 0, 0, 0)) != NULL) {
                bool of_it = message->kind == CON_SNAPSHOT || message->kind == CON_SNAPSHOT_REPLY;

                if (of_it && count++ == which / 2) {
                    if (which % 2) {
                        give_small_pieces(hand, raft_message_copy(message));
                        give_small_pieces(hand, raft_message_copy(message));
                    }
                    free(message);
                    continue;
                }
                give_small_pieces(hand, message);
            }
            for (uint64_t id = 1; id <= 3; id++)
                hand_tick(hand, id, 20);
        }
        all_equal(hand, "message", which);
        hand_free(hand);
    }
}

Test(raft_snapshot, a_crash_of_the_receiver_begins_anew)
{
    /* Half a snapshot is nothing: after the restart the log is the old one, and the whole comes. */
    for (int at = 0; at < PIECES; at++) {
        struct hand *hand = one_behind();
        struct con_message *message;
        int count = 0;

        hand_isolate(hand, 3, false);
        hand_tick(hand, 1, 200);
        for (int steps = 0; steps < 50 && count <= at; steps++) {
            while (count <= at && (message = hand_take(hand, 0, 0, 0)) != NULL) {
                count += message->kind == CON_SNAPSHOT;
                give_small_pieces(hand, message);
            }
            hand_tick(hand, 1, 20);
        }
        hand_crash(hand, 3);
        base_buf_clear(&hand->members[3].disk.incoming.data);
        hand_restart(hand, 3);
        let_go_on(hand, 4000);
        all_equal(hand, "chunk", at);
        hand_free(hand);
    }
}

Test(raft_snapshot, a_new_leader_begins_its_own)
{
    /* The leader changes while it is under way: the next one's snapshot may be another. */
    struct hand *hand = one_behind();
    struct con_message *message;
    int count = 0;

    hand_isolate(hand, 3, false);
    hand_tick(hand, 1, 200);
    for (int steps = 0; steps < 50 && count < 2; steps++) {
        while (count < 2 && (message = hand_take(hand, 0, 0, 0)) != NULL) {
            count += message->kind == CON_SNAPSHOT;
            give_small_pieces(hand, message);
        }
        hand_tick(hand, 1, 20);
    }
    hand_crash(hand, 1);
    let_go_on(hand, 12000);
    cr_assert_eq(hand_leader(hand), 2);
    cr_assert_str_eq(hand_state(hand, 3), hand_state(hand, 2));
    hand_free(hand);
}

Test(raft_snapshot, nothing_is_applied_or_appended_meanwhile)
{
    /* While the machine is being replaced, it is nobody's: appends wait, the member does not
     * stand. */
    struct hand *hand = one_behind();
    struct con_message append = {
        .kind = CON_APPEND, .from = 1, .to = 3, .term = 1, .index = 1, .log_term = 1, .commit = 2
    };
    struct con_entry entry = { 2, 1, CON_ENTRY_COMMAND, BASE_BYTES_LIT("x") };
    uint64_t last;

    hand->members[3].hold_chunks = true;
    hand_isolate(hand, 3, false);
    hand_pass(hand, 500);
    cr_assert(hand->members[3].chunk.here, "a chunk is being stored");
    last = hand_status(hand, 3).last;
    append.entries = &entry;
    append.entry_count = 1;
    hand_deliver(hand, &append);
    cr_assert_eq(hand_status(hand, 3).last, last);
    hand_isolate(hand, 3, true);
    hand_pass(hand, 10000);
    cr_assert_eq(hand_status(hand, 3).role, CON_FOLLOWER);
    hand->members[3].hold_chunks = false;
    hand_chunk_stored(hand, 3);
    hand_isolate(hand, 3, false);
    hand_pass(hand, 8000);
    cr_assert_str_eq(hand_state(hand, 3), hand_state(hand, hand_leader(hand)));
    hand_free(hand);
}

Test(raft_snapshot, carries_the_configuration)
{
    /* Who was added before the snapshot is known to whoever has only the snapshot. */
    struct hand *hand = hand_new(1, NULL);
    struct con_config next = hand_voters(2);

    next.members[1].voter = false;
    hand_elect(hand, 1);
    hand_propose(hand, 1, "abc");
    hand_compact(hand, 1, 2);
    hand_join(hand, 2);
    cr_assert_eq(hand_change(hand, 1, &next), CON_TAKEN);
    hand_pass(hand, 600);
    cr_assert_str_eq(hand_state(hand, 2), "abc");
    hand_compact(hand, 2, hand_status(hand, 2).applied);
    hand_crash(hand, 2);
    hand_restart(hand, 2);
    cr_assert(con_config_member(hand_status(hand, 2).config, 2) != NULL);
    cr_assert_eq(hand_status(hand, 2).config->count, 2);
    hand_free(hand);
}

Test(raft_snapshot, a_witness_gets_none_of_the_state)
{
    /* Only index, term and configuration: it has nowhere to put the rest. */
    struct con_config first = hand_voters(3);
    struct hand *hand;
    struct con_message *message;
    size_t seen = 0;

    first.members[2].witness = true;
    hand = hand_new_config(&first, NULL);
    hand_elect(hand, 1);
    hand_pass(hand, 300);
    hand_isolate(hand, 3, true);
    hand_propose(hand, 1, "0123456789");
    hand_pass(hand, 300);
    hand_compact(hand, 1, 2);
    hand_isolate(hand, 3, false);
    for (int steps = 0; steps < 100; steps++) {
        while ((message = hand_take(hand, 0, 0, 0)) != NULL) {
            if (message->kind == CON_SNAPSHOT) {
                cr_assert(message->data.len == 0 && message->total == 0);
                seen++;
            }
            hand_deliver(hand, message);
            free(message);
        }
        hand_tick(hand, 1, 20);
    }
    cr_assert(seen > 0 && hand_status(hand, 3).commit == 2);
    hand_propose(hand, 1, "x");
    hand_pass(hand, 400);
    cr_assert_eq(hand_status(hand, 3).last, 3);
    hand_free(hand);
}

Test(raft_snapshot, a_store_that_cannot_read_is_asked_again_later)
{
    /* A failing disk at the leader: no busy loop, and no loss once it reads again. */
    struct hand *hand = one_behind();

    hand->fail_fetches = true;
    hand->members[1].fetches = 0;
    hand_isolate(hand, 3, false);
    let_go_on(hand, 2000);
    cr_assert(hand->members[1].fetches > 1 && hand->members[1].fetches < 40, "%zu fetches",
              hand->members[1].fetches);
    hand->fail_fetches = false;
    let_go_on(hand, 1500);
    all_equal(hand, "later", 0);
    hand_free(hand);
}

Test(raft_snapshot, a_witness_is_told_what_all_hold)
{
    /* It has no state, so what it drops of the log it cannot hand on: it may drop what every voter
     * with a state is known to hold, committed. */
    struct con_config first = hand_voters(5);
    struct hand *hand;
    uint64_t all, more;

    first.members[2].witness = first.members[3].witness = true;
    hand = hand_new_config(&first, NULL);
    hand_elect(hand, 1);
    all = hand_propose(hand, 1, "a");
    hand_pass(hand, 300);
    hand_isolate(hand, 2, true);
    hand_isolate(hand, 4, true); /* another witness keeps nothing for itself */
    for (int i = 0; i < 5; i++) {
        more = hand_propose(hand, 1, "b");
        hand_pass(hand, 50);
    }
    cr_assert_eq(hand_status(hand, 1).commit, more);
    cr_assert_eq(hand_status(hand, 3).held, all);
    cr_assert_eq(hand_status(hand, 1).held, 0, "it is for witnesses alone");
    hand_isolate(hand, 2, false);
    hand_pass(hand, 400);
    hand_propose(hand, 1, "c");
    hand_settle(hand);
    cr_assert_eq(hand_status(hand, 3).held, more);
    hand_free(hand);
}

Test(raft_snapshot, what_is_here_already_is_said_when_it_is_durable)
{
    /* A snapshot of entries that have come meanwhile is answered at once as had, but not before
     * those entries are durable: a leader tells a witness that it may drop them. */
    struct hand *hand = hand_new(3, NULL);
    struct con_config config;
    struct con_message chunk, *reply;
    uint64_t index;

    hand_elect(hand, 1);
    hand->members[3].hold_writes = true;
    index = hand_propose(hand, 1, "a");
    hand_settle(hand);
    hand_tick(hand, 1, 200); /* a heartbeat says that it is committed */
    hand_propose(hand, 1, "b");
    hand_settle(hand);
    cr_assert(hand_status(hand, 3).commit >= index && hand_status(hand, 3).persisted < index);
    config = *hand_status(hand, 1).config;
    chunk = (struct con_message){ .kind = CON_SNAPSHOT,
                                  .from = 1,
                                  .to = 3,
                                  .term = hand_status(hand, 1).term,
                                  .index = index,
                                  .log_term = hand_status(hand, 1).term,
                                  .total = 1,
                                  .data = BASE_BYTES_LIT("a"),
                                  .config = &config };
    hand_deliver(hand, &chunk);
    cr_assert_null(hand_take(hand, CON_SNAPSHOT_REPLY, 3, 1));
    hand->members[3].hold_writes = false;
    hand_written(hand, 3);
    hand_run(hand, 3);
    reply = hand_take(hand, CON_SNAPSHOT_REPLY, 3, 1);
    cr_assert(reply && reply->offset == reply->total);
    free(reply);
    hand_free(hand);
}
