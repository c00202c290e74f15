/* journal_format.h: the journal's segments as bytes; telling a torn tail from damage. Pure. The
 * formats are tables in README.md.
 *
 * A segment is a head and batches; every part begins at a multiple of BLK_PAGE bytes, so that no
 * write shares a page with what an earlier sync made durable. A batch is one write and one sync;
 * batch k+1 is only written when k is durable. So a bad batch with a good one after it is damage,
 * and a bad one with nothing after it is a torn tail. A segment is used again under a new seq: what
 * is left of its former life does not match. */
#ifndef BLK_JOURNAL_FORMAT_H
#define BLK_JOURNAL_FORMAT_H

#include "base/bytes.h"

enum { BLK_PAGE = 4096, BLK_BATCH_HEAD = 40, BLK_RECORD_HEAD = 48 };

enum blk__record_type {
    BLK_RECORD_APPEND = 1, /* offset, extra = start in the file; payload: the bytes */
    BLK_RECORD_FENCE = 2,  /* epoch */
    BLK_RECORD_SEAL = 3,   /* offset = final length */
    BLK_RECORD_REMOVE = 4, /* extra = generation */
    BLK_RECORD_STATE = 5,  /* what the file holds now, see store_replay.c */
    BLK_RECORD_DIRECT = 6, /* as an append, but the bytes are in the block's file already; payload:
                              their number u32 and crc u32 */
};

struct blk__record {
    uint16_t type, flags;
    uint64_t block, epoch, offset, extra;
    struct base_bytes payload;
    uint32_t payload_crc;
};

struct blk__segment_head {
    uint64_t seq, first_batch;
    uint64_t torn_batch,
        torn_records; /* batch 0: none. That batch is known to end after so many records */
    uint64_t oldest;  /* segments with a lower seq are no longer needed */
};

void blk__segment_head_put(const struct blk__segment_head *head, uint8_t page[BLK_PAGE]);
bool blk__segment_head_take(const uint8_t page[BLK_PAGE], struct blk__segment_head *head);

void blk__batch_head_put(uint64_t seq, uint64_t number, uint32_t body_bytes, uint32_t records,
                         uint8_t out[BLK_BATCH_HEAD]);
void blk__record_head_put(const struct blk__record *record, uint64_t batch,
                          uint8_t out[BLK_RECORD_HEAD]);

/* ---- reading ---- */
struct blk__batch {
    uint64_t number;
    uint32_t records;       /* that the head promises */
    struct base_bytes body; /* cut at the segment's end */
};
/* The batch that begins at `at`; false when there is none of this segment's life. *next: where one
 * after it would begin. */
bool blk__batch_at(struct base_bytes segment, uint64_t seq, size_t at, struct blk__batch *batch,
                   size_t *next);
/* The first page from `at` on where a batch numbered at least `number` begins; false when there is
 * none. */
bool blk__batch_find(struct base_bytes segment, uint64_t seq, uint64_t number, size_t at,
                     size_t *found);

enum blk__record_check { BLK_RECORD_GOOD, BLK_RECORD_BAD_PAYLOAD, BLK_RECORD_BAD_HEAD };
/* The next record of a body. With a bad payload the head is good and *in is moved past it; with a
 * bad head *in stays. */
enum blk__record_check blk__record_take(struct base_bytes *in, uint64_t batch,
                                        struct blk__record *record);

#endif
