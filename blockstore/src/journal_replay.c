/* journal_replay.c: walking through segments in order, and what is found where a batch is bad.
 *
 * Invariants:
 * 1. Every record of a whole batch is visited, in order, once.
 * 2. A batch that is bad while a later one is there was durable once: what cannot be read of it is
 * damage, told by block where a record's head is good, else for all. Reading goes on at the later
 * batch.
 * 3. A bad batch with nothing after it is a torn tail: the records before the tear are visited (a
 * prefix of what was never acknowledged), the rest is not there. The next segment's head remembers
 * that, so it is no damage later. Nothing is ever written here. */
#include "journal_replay.h"

/* Visits the good records of a batch. Returns how many lead up to the first bad one; all of them
 * when none is bad. */
static uint64_t visit_batch(struct blk__replay *replay, const struct blk__batch *batch,
                            uint64_t limit, bool durable, uint64_t seq,
                            const struct blk__replay_visitor *visitor)
{
    struct base_bytes in = batch->body;
    for (uint64_t i = 0; i < batch->records && i < limit; i++) {
        struct blk__record record;
        enum blk__record_check check = blk__record_take(&in, batch->number, &record);
        if (check == BLK_RECORD_GOOD) {
            visitor->record(visitor->self, &record, seq);
            continue;
        }
        if (!durable)
            return i;
        replay->damages++;
        if (check == BLK_RECORD_BAD_HEAD) {
            visitor->damage(visitor->self, 0, "the head of a journal record");
            return i;
        }
        visitor->damage(visitor->self, record.block, "a journal record");
    }
    return batch->records;
}

/* Whether all records of a batch are good, without visiting. */
static bool batch_whole(const struct blk__batch *batch)
{
    struct base_bytes in = batch->body;
    struct blk__record record;
    for (uint64_t i = 0; i < batch->records; i++)
        if (blk__record_take(&in, batch->number, &record) != BLK_RECORD_GOOD)
            return false;
    return true;
}

void blk__replay_segment(struct blk__replay *replay, const struct blk__segment_head *head,
                         struct base_bytes segment, const struct blk__segment_head *next,
                         const struct blk__replay_visitor *visitor)
{
    size_t at = BLK_PAGE;
    if (replay->next_batch == 0)
        replay->next_batch = head->first_batch;
    else if (head->first_batch != replay->next_batch) {
        replay->damages++;
        visitor->damage(visitor->self, 0,
                        "a journal segment that does not follow the one before it");
        replay->next_batch = head->first_batch;
    }
    for (;;) {
        uint64_t expected = replay->next_batch;
        struct blk__batch batch = { 0 };
        size_t after = at, found;
        bool here =
            blk__batch_at(segment, head->seq, at, &batch, &after) && batch.number == expected;
        if (here && batch_whole(&batch)) {
            visit_batch(replay, &batch, UINT64_MAX, true, head->seq, visitor);
            replay->next_batch = expected + 1;
            at = after;
            continue;
        }
        bool later_here = blk__batch_find(segment, head->seq, expected + 1, at, &found);
        if (!later_here && next &&
            next->torn_batch == expected) { /* torn in an earlier life, known to be */
            if (here)
                visit_batch(replay, &batch, next->torn_records, false, head->seq, visitor);
            replay->next_batch = expected + 1;
            return;
        }
        if (!later_here && !(next && next->first_batch > expected)) { /* the end, or a torn tail */
            if (here && !next) {
                replay->torn_batch = expected;
                replay->torn_records =
                    visit_batch(replay, &batch, UINT64_MAX, false, head->seq, visitor);
                replay->next_batch = expected + 1;
            }
            return;
        }
        if (here) {
            visit_batch(replay, &batch, UINT64_MAX, true, head->seq, visitor);
        } else {
            replay->damages++;
            visitor->damage(visitor->self, 0, "the head of a journal batch");
        }
        if (!later_here) {
            replay->next_batch = next->first_batch;
            return;
        }
        size_t ignored;
        BASE_ASSERT(blk__batch_at(segment, head->seq, found, &batch, &ignored));
        if (batch.number > expected + 1 && here) {
            replay->damages++;
            visitor->damage(visitor->self, 0, "journal batches that are missing");
        }
        replay->next_batch = batch.number;
        at = found;
    }
}
