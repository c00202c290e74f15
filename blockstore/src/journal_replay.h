/* journal_replay.h: walking through segments in order, and what is found where a batch is bad.
 * Pure. */
#ifndef BLK_JOURNAL_REPLAY_H
#define BLK_JOURNAL_REPLAY_H

#include "journal_format.h"

struct blk__replay_visitor {
    void (*record)(void *self, const struct blk__record *record, uint64_t seq);
    /* Bytes that were durable are lost: of this block, or (0) of any block that was being written.
     */
    void (*damage)(void *self, uint64_t block, const char *what);
    void *self;
};
struct blk__replay {
    uint64_t next_batch;               /* after all that was found */
    uint64_t torn_batch, torn_records; /* the last batch, when it is torn; 0: it is whole */
    uint64_t damages;
};
/* One segment, from its first page on; `next`: the head of the segment after it, NULL when it is
 * the last. Call in order of seq with one zeroed `replay`. */
void blk__replay_segment(struct blk__replay *replay, const struct blk__segment_head *head,
                         struct base_bytes segment, const struct blk__segment_head *next,
                         const struct blk__replay_visitor *visitor);

#endif
