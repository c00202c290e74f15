/* journal.h: the segments of a log on disk, and its snapshots: open and replay, append durably,
 * trim. One fiber at a time appends; trimming and snapshots may run beside it. */
#ifndef CON_JOURNAL_H
#define CON_JOURNAL_H

#include "batch.h"
#include "chassis/env.h"

enum {
    CON_SEGMENT_BYTES = 4 << 20,
    CON_RECORDS_BYTES_MAX = 2 << 20, /* of one batch */
};

struct con_segment {
    uint64_t first_index;
    uint64_t bytes; /* used, with its head; of the active one only */
};
struct con_journal {
    struct ch_env *env;
    char *dir;
    struct ch_file *folder_lock, *active; /* active: the last segment's */
    struct con_segment *segments;         /* oldest first */
    size_t segment_count, segment_cap;
    uint64_t next_index, term;               /* of the last batch, or of the snapshot */
    uint64_t snapshot_index, snapshot_bytes; /* of the newest snapshot on disk; 0: none */
    uint64_t bytes; /* of batches since that snapshot; of all there are, when there is none */
    struct base_buf write;
};

struct con_journal_replay {
    struct base_status (*snapshot)(void *self, uint64_t index, struct base_bytes state);
    struct base_status (*batch)(void *self, const struct con_batch *batch);
    void *self;
};
/* Takes the folder, hands out the newest snapshot and every batch after it, zeroes a torn tail.
 * On failure everything is closed again. */
struct base_status con__journal_open(
    struct con_journal *journal, struct ch_env *env, const char *dir,
    const struct con_journal_replay *replay) CH_WAITS BASE_MUST_CHECK;
void con__journal_close(struct con_journal *journal) CH_WAITS;
/* Makes room in the active segment for a batch of `records_len`, in a new one when need be. A
 * failure leaves all as it was: nothing is written. */
struct base_status con__journal_reserve(struct con_journal *journal,
                                        size_t records_len) CH_WAITS BASE_MUST_CHECK;
/* Writes and syncs a batch that room was reserved for. After a failure nothing is known of it:
 * the journal must be closed. */
struct base_status con__journal_append(struct con_journal *journal,
                                       const struct con_batch *batch) CH_WAITS BASE_MUST_CHECK;
/* Writes a snapshot of the state after `index`, when the journal had `bytes`; then drops what it
 * makes needless: older snapshots, segments. */
struct base_status con__journal_snapshot(struct con_journal *journal, uint64_t index, uint64_t term,
                                         uint64_t bytes,
                                         struct base_bytes state) CH_WAITS BASE_MUST_CHECK;

#endif
