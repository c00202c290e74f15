/* What batches amount to (consensus/src/segment_index.c): entries written again replace what was
 * there; a log that does not lead on from its snapshot is told from one that lost something. */
#include "segment_index.h"

#include <stdio.h>
#include <stdlib.h>

#include "test.h"

static struct con_index index_;
static uint64_t sequence;

static void begin(uint64_t last)
{
    struct con_segment_head head = { .last = last };

    con__index_free(&index_);
    con__index_begin(&index_, &head);
    sequence = 1;
}

/* One batch of the records in `text`: "e5.2" entry 5 of term 2, "v3.9" term 3 vote 9, "s7.2"
 * snapshot of 7, term 2. Of segment `segment`, 512 bytes. */
static bool add(uint64_t segment, const char *text)
{
    struct base_buf records = { 0 };
    struct con_batch batch = { .sequence = sequence };
    const char *why = NULL;
    unsigned long a, b;
    int used;
    char kind;
    bool good;

    while (sscanf(text, " %c%lu.%lu%n", &kind, &a, &b, &used) == 3) {
        struct con_record record = { 0 };

        if (kind == 'e')
            record =
                (struct con_record){ .kind = CON_RECORD_ENTRY, .entry = { .index = a, .term = b } };
        else if (kind == 'v')
            record = (struct con_record){ .kind = CON_RECORD_VOTE, .term = a, .vote = b };
        else
            record = (struct con_record){ .kind = CON_RECORD_SNAPSHOT, .index = a, .term = b };
        con__record_put(&records, &record);
        batch.record_count++;
        text += used;
    }
    batch.records = base_buf_bytes(&records);
    good = con__index_batch(&index_, &batch, segment, (size_t)sequence * 512, 512, &why);
    cr_assert(good == (why == NULL));
    sequence++;
    base_buf_free(&records);
    return good;
}

static enum con_anchor anchor(uint64_t index, uint64_t term)
{
    const char *why = NULL;
    enum con_anchor found = con__index_anchor(&index_, index, term, &why);

    cr_assert((found == CON_ANCHOR_LOST) == (why != NULL));
    return found;
}

Test(segment_index, later_entries_replace)
{
    /* An entry written again replaces it and all that followed: what a follower held of a leader
     * that fell must not come back beside what the next one wrote. */
    begin(0);
    cr_assert(add(1, "v1.4 e1.1 e2.1 e3.1"));
    cr_assert(add(1, "e4.1 e5.1 e6.1"));
    cr_assert(add(2, "e5.2 e6.3 v3.7"));
    cr_assert(index_.last == 6 && index_.term == 3 && index_.vote == 7);
    for (uint64_t i = 1; i <= 7; i++)
        cr_assert_eq(con__index_term(&index_, i), i <= 4 ? 1 : i == 5 ? 2 : i == 6 ? 3 : 0);
    cr_assert_eq(con__index_find(&index_, 4)->sequence, 2);
    cr_assert_eq(con__index_bytes(&index_, 0), 3 * 512);
    cr_assert_eq(con__index_bytes(&index_, 4), 512, "two terms of one batch count once");
    cr_assert(add(2, "e2.4"));
    cr_assert(index_.last == 2 && con__index_term(&index_, 3) == 0 &&
              con__index_term(&index_, 2) == 4 && con__index_term(&index_, 1) == 1);
    cr_assert(add(3, "e1.5"));
    cr_assert(con__index_first(&index_)->segment == 3, "nothing older is needed any more");
    cr_assert_eq(anchor(0, 0), CON_ANCHOR_HELD);
    con__index_free(&index_);
}

Test(segment_index, a_gap_is_refused)
{
    /* An entry that does not follow the last one means that a batch between them is lost. */
    begin(0);
    cr_assert(add(1, "e1.1 e2.1"));
    cr_assert(!add(1, "e4.1"));
    con__index_free(&index_);
}

Test(segment_index, wrong_counts_are_refused)
{
    /* A batch says how many records it has: the two must agree. */
    struct base_buf records = { 0 };
    struct con_record vote = { .kind = CON_RECORD_VOTE, .term = 1, .vote = 1 };
    const char *why = NULL;

    con__record_put(&records, &vote);
    con__record_put(&records, &vote);
    for (uint32_t count = 0; count < 4; count++) {
        struct con_batch batch = { 1, count, base_buf_bytes(&records) };

        begin(0);
        cr_assert_eq(con__index_batch(&index_, &batch, 1, 0, 512, &why), count == 2);
    }
    con__index_free(&index_);
    base_buf_free(&records);
}

Test(segment_index, dropping_keeps_what_is_needed)
{
    /* A span goes when nothing of it is wanted, not before; its bytes count till then. */
    begin(0);
    cr_assert(add(1, "e1.1 e2.1 e3.1") && add(2, "e4.1 e5.1") && add(3, "e6.1"));
    con__index_drop(&index_, 4);
    cr_assert(con__index_first(&index_)->first == 4 && con__index_first(&index_)->segment == 2);
    cr_assert(!con__index_find(&index_, 3) && con__index_find(&index_, 6));
    con__index_drop(&index_, 6);
    cr_assert(!con__index_first(&index_) && index_.last == 6);
    cr_assert(add(3, "e7.1") && con__index_first(&index_)->first == 7);
    con__index_free(&index_);
}

Test(segment_index, a_log_leads_on_from_its_snapshot_or_not)
{
    /* Told apart at every open: a log that follows its snapshot; one that the snapshot replaces
     * (what a member received when it had fallen behind, or was on another branch); one of which
     * something acknowledged is missing, which must never be started from. */
    begin(0);
    cr_assert(add(1, "e1.1 e2.1 e3.1 e4.2"));
    cr_assert_eq(anchor(0, 0), CON_ANCHOR_HELD);
    cr_assert_eq(anchor(3, 1), CON_ANCHOR_HELD);
    cr_assert_eq(anchor(4, 2), CON_ANCHOR_HELD);
    cr_assert_eq(anchor(3, 2), CON_ANCHOR_REPLACE, "another entry is there");
    cr_assert_eq(anchor(5, 2), CON_ANCHOR_REPLACE, "it ends before it");
    /* The older segments are gone, the log goes on after 10. */
    begin(10);
    cr_assert_eq(anchor(10, 1), CON_ANCHOR_HELD);
    cr_assert_eq(anchor(12, 1), CON_ANCHOR_REPLACE);
    cr_assert_eq(anchor(9, 1), CON_ANCHOR_LOST, "entry 10 is in a segment that is missing");
    cr_assert_eq(anchor(0, 0), CON_ANCHOR_LOST, "so is everything");
    cr_assert(add(5, "e11.1"));
    cr_assert_eq(anchor(10, 1), CON_ANCHOR_HELD);
    cr_assert_eq(anchor(9, 1), CON_ANCHOR_LOST);
    /* What was in the missing segment is written again: nothing is missing. */
    cr_assert(add(5, "e9.2"));
    cr_assert_eq(anchor(8, 1), CON_ANCHOR_HELD);
    cr_assert_eq(anchor(7, 1), CON_ANCHOR_LOST);
    con__index_free(&index_);
}

Test(segment_index, a_snapshot_in_the_log_replaces_what_was_before)
{
    /* After the record that a snapshot replaced the log, entries of before do not come back, and
     * that snapshot must be there. */
    begin(0);
    cr_assert(add(1, "e1.1 e2.1 e3.1 e4.1 e5.1"));
    cr_assert_eq(anchor(3, 2), CON_ANCHOR_REPLACE);
    cr_assert(add(1, "s3.2 e4.2"));
    cr_assert(index_.last == 4 && con__index_term(&index_, 4) == 2 &&
              con__index_term(&index_, 5) == 0 && con__index_term(&index_, 1) == 0);
    cr_assert_eq(anchor(3, 2), CON_ANCHOR_HELD);
    cr_assert_eq(anchor(2, 1), CON_ANCHOR_LOST, "the snapshot of 3 is gone");
    cr_assert_eq(anchor(4, 2), CON_ANCHOR_HELD);
    con__index_free(&index_);
}

Test(segment_index, many_entries)
{
    /* The index agrees with an array over any run of appends and rewrites; memory freed at the
     * front is used again. */
    uint64_t terms[600] = { 0 }, last = 0, dropped = 0, random = 12345;

    begin(0);
    for (int step = 0; step < 20000; step++) {
        char text[64];

        random = random * 6364136223846793005u + 1442695040888963407u;
        if ((random >> 33) % 10 == 0 && last > dropped + 5)
            last -= (random >> 40) % 5;
        if (last + 1 >= 600)
            break;
        if (last > dropped + 100) {
            dropped += (random >> 50) % 50;
            con__index_drop(&index_, dropped);
        }
        last++;
        terms[last] = 1 + (uint64_t)step / 50;
        snprintf(text, sizeof(text), "e%lu.%lu", (unsigned long)last, (unsigned long)terms[last]);
        cr_assert(add(1, text));
        for (uint64_t i = dropped + 1; i < 600; i++)
            cr_assert_eq(con__index_term(&index_, i), i <= last ? terms[i] : 0, "entry %lu",
                         (unsigned long)i);
    }
    cr_assert(last > 500);
    con__index_free(&index_);
}
