/* block_file.h: a sealed block as a file: data, checksums, trailer. Pure. The format is a table in
 * README.md. */
#ifndef BLK_BLOCK_FILE_H
#define BLK_BLOCK_FILE_H

#include "sums.h"

enum { BLK_TRAILER = 64 };

struct blk__trailer {
    uint64_t block, epoch, start, length, generation;
    uint32_t sums_crc;
};
/* Appends the footer: checksums and trailer. */
void blk__footer_put(const struct blk__trailer *trailer, const struct blk__sums *sums,
                     struct base_buf *out);
bool blk__trailer_take(const uint8_t bytes[BLK_TRAILER], struct blk__trailer *trailer);
/* The chunk checksums of a footer; false when they are damaged. */
bool blk__footer_sums(const struct blk__trailer *trailer, struct base_bytes bytes,
                      struct blk__sums *sums);

#endif
