/* batch.h: how a batch of commands lies in the journal: the format, and how its end is told from
 * its corruption. Pure functions over bytes; journal.c does the I/O. See batch.c for the
 * invariants and README.md for the format's tables. */
#ifndef CON_BATCH_H
#define CON_BATCH_H

#include "base/bytes.h"

enum {
    CON_SECTOR = 512,                                   /* what a disk writes in one piece */
    CON_SECTOR_HEAD = 16,                               /* crc, number in the batch, first index */
    CON_SECTOR_DATA = CON_SECTOR - CON_SECTOR_HEAD - 1, /* the last byte is the end mark */
    CON_BATCH_HEAD = 24, /* term, count, kind, bytes of the records */
};

enum con_batch_kind {
    CON_BATCH_COMMANDS = 0,
    CON_BATCH_NO_OP = 1 /* a leader's first: it only brings its term */
};

struct con_batch {
    uint64_t first_index, term;
    uint32_t count;
    enum con_batch_kind kind;
    struct base_bytes records; /* each: varint length, bytes */
};

/* Bytes on disk (whole sectors) of a batch with so many bytes of records. */
size_t con__batch_size(size_t records_len);
/* Appends the batch's sectors. */
void con__batch_encode(const struct con_batch *batch, struct base_buf *out);

enum con_scan {
    CON_SCAN_BATCH,   /* a whole batch */
    CON_SCAN_END,     /* nothing was ever written from here on */
    CON_SCAN_TORN,    /* a last batch that never came to be acknowledged: pieces of it are there */
    CON_SCAN_CORRUPT, /* something that was acknowledged, or may have been, is damaged */
};
/* Looks at `rest` of a segment, where a batch that begins with `next_index` would be. BATCH:
 * *batch is filled, its records lie in `payload` (cleared first), *len is its size on disk. TORN:
 * *len bytes from here must be zeroed. CORRUPT: *len is the offset of what is wrong, *why a text
 * about it. */
enum con_scan con__batch_scan(struct base_bytes rest, uint64_t next_index, struct base_buf *payload,
                              struct con_batch *batch, size_t *len, const char **why);

/* The first sector of a segment. */
void con__segment_head_encode(uint64_t first_index, uint64_t size, uint8_t sector[CON_SECTOR]);
bool con__segment_head_decode(const uint8_t sector[CON_SECTOR], uint64_t *first_index,
                              uint64_t *size) BASE_MUST_CHECK;

#endif
