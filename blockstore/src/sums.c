/* sums.c: the checksums of a run of bytes. See sums.h. */
#include "sums.h"

#include <stdlib.h>

#include "base/codec.h"
#include "blk_int.h"

void blk__sums_free(struct blk__sums *sums)
{
    free(sums->crc);
    *sums = (struct blk__sums){ 0 };
}

size_t blk__sums_count(uint64_t length)
{
    return (length + BLK_CHUNK_BYTES - 1) / BLK_CHUNK_BYTES;
}

static void reserve(struct blk__sums *sums, size_t count)
{
    if (count <= sums->cap)
        return;
    sums->cap = count > 2 * sums->cap ? count : 2 * sums->cap;
    sums->crc = realloc(sums->crc, sums->cap * sizeof *sums->crc);
    BASE_ASSERT(sums->crc);
}

void blk__sums_extend(struct blk__sums *sums, const void *data, size_t len)
{
    const uint8_t *at = data;
    reserve(sums, blk__sums_count(sums->length + len));
    while (len > 0) {
        size_t chunk = sums->length / BLK_CHUNK_BYTES, in_chunk = sums->length % BLK_CHUNK_BYTES;
        size_t n = BLK_CHUNK_BYTES - in_chunk < len ? BLK_CHUNK_BYTES - in_chunk : len;
        sums->crc[chunk] = base_crc32c(in_chunk ? sums->crc[chunk] : 0, at, n);
        sums->length += n;
        at += n;
        len -= n;
    }
}

size_t blk__sums_chunk_len(const struct blk__sums *sums, size_t chunk)
{
    uint64_t begin = (uint64_t)chunk * BLK_CHUNK_BYTES;
    if (begin >= sums->length)
        return 0;
    return sums->length - begin < BLK_CHUNK_BYTES ? sums->length - begin : BLK_CHUNK_BYTES;
}

bool blk__sums_match(const struct blk__sums *sums, size_t chunk, const void *data, size_t len)
{
    return len > 0 && len == blk__sums_chunk_len(sums, chunk) &&
           base_crc32c(0, data, len) == sums->crc[chunk];
}

void blk__sums_cut(struct blk__sums *sums, uint64_t length, uint32_t last)
{
    BASE_ASSERT(length <= sums->length);
    sums->length = length;
    if (length % BLK_CHUNK_BYTES)
        sums->crc[length / BLK_CHUNK_BYTES] = last;
}

void blk__sums_put(const struct blk__sums *sums, struct base_buf *out)
{
    for (size_t i = 0; i < blk__sums_count(sums->length); i++)
        base_buf_put_le32(out, sums->crc[i]);
}

bool blk__sums_take(struct blk__sums *sums, uint64_t length, struct base_bytes *in)
{
    size_t count = blk__sums_count(length);
    if (in->len / 4 < count)
        return false;
    reserve(sums, count);
    for (size_t i = 0; i < count; i++)
        sums->crc[i] = base_get_le32(in->data + 4 * i);
    in->data += 4 * count;
    in->len -= 4 * count;
    sums->length = length;
    return true;
}
