/* sums.h: the checksums of a run of bytes: CRC-32C of each 64 KiB chunk, the last one over what
 * there is of it. */
#ifndef BLK_SUMS_H
#define BLK_SUMS_H

#include "base/bytes.h"

struct blk__sums {
    uint32_t *crc; /* owned */
    size_t cap;
    uint64_t length; /* bytes covered */
};

void blk__sums_free(struct blk__sums *sums);
size_t blk__sums_count(uint64_t length); /* chunks of a run of that length */
/* The next `len` bytes after what is covered. */
void blk__sums_extend(struct blk__sums *sums, const void *data, size_t len);
/* Whether `data` is the whole of the chunk as covered. */
bool blk__sums_match(const struct blk__sums *sums, size_t chunk, const void *data, size_t len);
/* Bytes of a chunk that are covered. */
size_t blk__sums_chunk_len(const struct blk__sums *sums, size_t chunk);
/* Covers `length` from now on, less than before; `last` is the CRC of what is left of the then last
 * chunk (0 when the cut is between chunks). */
void blk__sums_cut(struct blk__sums *sums, uint64_t length, uint32_t last);
/* As 4 bytes a chunk, little-endian. */
void blk__sums_put(const struct blk__sums *sums, struct base_buf *out);
bool blk__sums_take(struct blk__sums *sums, uint64_t length, struct base_bytes *in) BASE_MUST_CHECK;

#endif
