/* journal.h: a blockserver's one journal: everything that must be durable goes through it, and all
 * that queues while a sync runs shares the next write and sync. Format: journal_format.h. */
#ifndef BLK_JOURNAL_H
#define BLK_JOURNAL_H

#include "chassis/env.h"
#include "journal_replay.h"

struct blk__journal;

struct blk__journal_options {
    const char *dir; /* made when missing */
    uint64_t segment_bytes;
    uint32_t segments; /* at least 3; more are made only when a restart finds none free */
};

/* One record on its way. Caller's memory, lent until `done`. */
struct blk__entry {
    struct blk__record record; /* payload_crc is the caller's; payload lent */
    /* Called once, in the order of the puts, on the journal's fiber; may not wait. `ok`: it is on
     * stable storage (in segment `seq`); else it may or may not be, and the journal has failed for
     * good. */
    void (*done)(struct blk__entry *entry, bool ok);
    uint64_t seq;
    struct blk__entry *next;
};

/* Replays what is there: `state` sees it all first, then `visitor` sees it again (either may be
 * NULL); then begins a new segment. Segments are allocated as zeros before first use. */
struct base_status blk__journal_open(struct ch_env *env, const struct blk__journal_options *options,
                                     const struct blk__replay_visitor *state,
                                     const struct blk__replay_visitor *visitor,
                                     struct blk__journal **journal) CH_WAITS BASE_MUST_CHECK;
/* Every entry must be done. */
void blk__journal_close(struct blk__journal *journal) CH_WAITS;

/* Does not wait. On a failed journal `done` is called at once. `first`: before others that wait,
 * and into the reserve that is kept for the checkpoint. */
void blk__journal_put(struct blk__journal *journal, struct blk__entry *entry, bool first);
bool blk__journal_failed(const struct blk__journal *journal);
/* The segment that is being written. */
uint64_t blk__journal_seq(const struct blk__journal *journal);
/* Segments in use, of how many. */
uint32_t blk__journal_live(const struct blk__journal *journal, uint32_t *segments);
/* Nothing in segments below `seq` is needed any more. */
void blk__journal_release(struct blk__journal *journal, uint64_t seq);

#endif
