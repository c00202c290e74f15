/* Chunk checksums must be the same however the bytes arrived, and must notice any changed byte:
 * reads trust nothing else. */
#include <stdlib.h>

#include "base/codec.h"
#include "blk_int.h"
#include "sums.h"
#include "test.h"

static uint8_t *bytes_new(size_t len)
{
    uint8_t *data = malloc(len);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 31 + (i >> 9));
    return data;
}

Test(sums, any_split_gives_the_same)
{
    enum { LEN = 3 * BLK_CHUNK_BYTES + 77 };
    uint8_t *data = bytes_new(LEN);
    struct blk__sums whole = { 0 };
    blk__sums_extend(&whole, data, LEN);
    cr_assert_eq(blk__sums_count(LEN), 4);
    for (size_t step = 1; step < LEN; step = step * 7 + 3) {
        struct blk__sums split = { 0 };
        for (size_t at = 0; at < LEN; at += step)
            blk__sums_extend(&split, data + at, step < LEN - at ? step : LEN - at);
        cr_assert_eq(split.length, LEN);
        cr_assert(memcmp(split.crc, whole.crc, 4 * sizeof whole.crc[0]) == 0, "steps of %zu", step);
        blk__sums_free(&split);
    }
    blk__sums_free(&whole);
    free(data);
}

Test(sums, every_changed_byte_is_noticed)
{
    enum { LEN = BLK_CHUNK_BYTES + 300 };
    uint8_t *data = bytes_new(LEN);
    struct blk__sums sums = { 0 };
    blk__sums_extend(&sums, data, LEN);
    cr_assert(blk__sums_match(&sums, 0, data, BLK_CHUNK_BYTES));
    cr_assert(blk__sums_match(&sums, 1, data + BLK_CHUNK_BYTES, 300));
    cr_assert(!blk__sums_match(&sums, 1, data + BLK_CHUNK_BYTES, 299),
              "a shorter chunk is another chunk");
    cr_assert(!blk__sums_match(&sums, 2, data, 0));
    for (size_t i = BLK_CHUNK_BYTES; i < LEN; i++) {
        data[i] ^= 1u << (i % 8);
        cr_assert(!blk__sums_match(&sums, 1, data + BLK_CHUNK_BYTES, 300), "byte %zu", i);
        data[i] ^= 1u << (i % 8);
    }
    blk__sums_free(&sums);
    free(data);
}

Test(sums, cut_and_go_through_bytes)
{
    enum { LEN = 2 * BLK_CHUNK_BYTES + 900 };
    uint8_t *data = bytes_new(LEN);
    struct blk__sums sums = { 0 }, straight = { 0 }, back = { 0 };
    struct base_buf buf = { 0 };
    size_t cut = BLK_CHUNK_BYTES + 10;
    blk__sums_extend(&sums, data, LEN);
    blk__sums_cut(&sums, cut, base_crc32c(0, data + BLK_CHUNK_BYTES, 10));
    blk__sums_extend(&straight, data, cut);
    cr_assert(sums.length == cut && memcmp(sums.crc, straight.crc, 2 * sizeof sums.crc[0]) == 0);
    blk__sums_extend(&sums, data + cut, 5);
    cr_assert(blk__sums_match(&sums, 1, data + BLK_CHUNK_BYTES, 15));
    blk__sums_put(&sums, &buf);
    struct base_bytes in = base_buf_bytes(&buf);
    cr_assert(blk__sums_take(&back, sums.length, &in));
    cr_assert(in.len == 0 && memcmp(sums.crc, back.crc, 2 * sizeof sums.crc[0]) == 0);
    in = base_bytes(buf.data, buf.len - 1);
    cr_assert(!blk__sums_take(&back, sums.length, &in), "too short");
    base_buf_free(&buf);
    blk__sums_free(&sums);
    blk__sums_free(&straight);
    blk__sums_free(&back);
    free(data);
}
