/* segment_index.h: what a log's batches, read in order, amount to: where each entry lies, the vote,
 * and whether the log leads on from a snapshot. The same steps are taken when a batch is written
 * and when it is read again. Pure: no I/O. Coarse on purpose: one span a batch, not a place for
 * each entry. */
#ifndef CON_SEGMENT_INDEX_H
#define CON_SEGMENT_INDEX_H

#include "segment.h"

/* Entries first … first + count - 1, all of one term, in one batch. */
struct con_span {
    uint64_t first, term;
    uint64_t sequence, segment; /* of the batch, and the segment that holds it */
    uint32_t count;
    uint32_t offset, size; /* of the batch in the segment */
};

struct con_index {
    struct con_span *spans; /* [begin, end): entries without gaps, in the order of writing */
    size_t begin, end, cap;
    uint64_t
        last; /* of the last entry; of the snapshot that replaced them; 0: nothing was written */
    uint64_t term, vote;
    uint64_t cleared_index, cleared_term; /* of the newest SNAPSHOT record; 0: none */
};

void con__index_free(struct con_index *index);
/* Begins with a segment whose predecessors are not read. */
void con__index_begin(struct con_index *index, const struct con_segment_head *head);
/* Takes in one batch. False: it does not follow from what was before, *why says how; the index is
 * of no further use. */
bool con__index_batch(struct con_index *index, const struct con_batch *batch, uint64_t segment,
                      size_t offset, size_t size, const char **why) BASE_MUST_CHECK;
/* Forgets everything: the snapshot of this index replaces the log. */
void con__index_clear(struct con_index *index, uint64_t snapshot_index);
/* Forgets spans that hold nothing after `drop`. */
void con__index_drop(struct con_index *index, uint64_t drop);

/* The span that holds the entry; NULL: none does. */
const struct con_span *con__index_find(const struct con_index *index, uint64_t entry);
/* The first span, NULL: there is none. */
const struct con_span *con__index_first(const struct con_index *index);
uint64_t con__index_term(const struct con_index *index, uint64_t entry); /* 0: not there */
/* Bytes on disk of the batches with an entry after `entry`. */
uint64_t con__index_bytes(const struct con_index *index, uint64_t entry);

/* Does the log lead on from its newest snapshot (index 0: there is none)? */
enum con_anchor {
    CON_ANCHOR_HELD,    /* yes */
    CON_ANCHOR_REPLACE, /* it ends before it, or contradicts it: the snapshot replaces it all */
    CON_ANCHOR_LOST,    /* something between them is missing: *why says what */
};
enum con_anchor con__index_anchor(const struct con_index *index, uint64_t snapshot_index,
                                  uint64_t snapshot_term, const char **why);

#endif
