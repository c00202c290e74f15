/* block_file.c: see block_file.h. */
#include "block_file.h"

#include "base/codec.h"

static const char magic[8] = "SBLKEND1";

void blk__footer_put(const struct blk__trailer *trailer, const struct blk__sums *sums,
                     struct base_buf *out)
{
    size_t begin = out->len;
    BASE_ASSERT(sums->length == trailer->length);
    blk__sums_put(sums, out);
    uint32_t sums_crc = base_crc32c(0, out->data + begin, out->len - begin);
    begin = out->len;
    base_buf_put(out, magic, sizeof magic);
    base_buf_put_le64(out, trailer->block);
    base_buf_put_le64(out, trailer->epoch);
    base_buf_put_le64(out, trailer->start);
    base_buf_put_le64(out, trailer->length);
    base_buf_put_le64(out, trailer->generation);
    base_buf_put_le64(out, 0);
    base_buf_put_le32(out, sums_crc);
    base_buf_put_le32(out, base_crc32c(0, out->data + begin, out->len - begin));
}

bool blk__trailer_take(const uint8_t bytes[BLK_TRAILER], struct blk__trailer *trailer)
{
    if (memcmp(bytes, magic, sizeof magic) != 0 ||
        base_get_le32(bytes + 60) != base_crc32c(0, bytes, 60))
        return false;
    trailer->block = base_get_le64(bytes + 8);
    trailer->epoch = base_get_le64(bytes + 16);
    trailer->start = base_get_le64(bytes + 24);
    trailer->length = base_get_le64(bytes + 32);
    trailer->generation = base_get_le64(bytes + 40);
    trailer->sums_crc = base_get_le32(bytes + 56);
    return true;
}

bool blk__footer_sums(const struct blk__trailer *trailer, struct base_bytes bytes,
                      struct blk__sums *sums)
{
    return bytes.len == 4 * blk__sums_count(trailer->length) &&
           base_crc32c(0, bytes.data, bytes.len) == trailer->sums_crc &&
           blk__sums_take(sums, trailer->length, &bytes);
}
