/* The journal's bytes (consensus/src/batch.c): what was written comes back; what a crash cut
 * short is told from what was damaged after it had been acknowledged. */
#include "batch.h"

#include <stdlib.h>

#include "base/codec.h"
#include "test.h"

enum { SEGMENT = 16 * CON_SECTOR };

/* A segment's bytes after its head: zeros, then batches of the given record sizes from index 1
 * on, one command each. */
struct image {
    uint8_t bytes[SEGMENT];
    size_t at, begins[8];
    uint64_t next_index;
    size_t batches;
};

static void image_init(struct image *image)
{
    memset(image, 0, sizeof(*image));
    image->next_index = 1;
}

static void image_add(struct image *image, size_t command_len, uint8_t fill)
{
    struct base_buf records = { 0 }, out = { 0 };
    uint8_t *command = malloc(command_len + 1);
    struct con_batch batch = { .first_index = image->next_index, .term = 7, .count = 1 };

    memset(command, fill, command_len + 1);
    base_buf_put_lenbytes(&records, base_bytes(command, command_len));
    batch.records = base_buf_bytes(&records);
    con__batch_encode(&batch, &out);
    cr_assert_eq(out.len, con__batch_size(records.len));
    cr_assert(image->at + out.len <= SEGMENT);
    memcpy(image->bytes + image->at, out.data, out.len);
    image->begins[image->batches++] = image->at;
    image->at += out.len;
    image->next_index++;
    free(command);
    base_buf_free(&records);
    base_buf_free(&out);
}

/* Scans from the start; returns how it ended and how many whole batches came before. */
static enum con_scan image_scan(const struct image *image, size_t *batches, size_t *at, size_t *len)
{
    struct base_buf payload = { 0 };
    struct con_batch batch;
    const char *why = NULL;
    enum con_scan scan;

    *at = 0;
    for (*batches = 0;; ++*batches) {
        scan = con__batch_scan(base_bytes(image->bytes + *at, SEGMENT - *at), *batches + 1,
                               &payload, &batch, len, &why);
        if (scan != CON_SCAN_BATCH)
            break;
        *at += *len;
    }
    cr_assert((scan == CON_SCAN_CORRUPT) == (why != NULL));
    base_buf_free(&payload);
    return scan;
}

Test(batch, comes_back)
{
    /* A batch of any length comes back as it was written: lengths round a sector's edges are
     * where a copy goes wrong. */
    for (size_t len = 0; len < 3 * CON_SECTOR; len++) {
        struct image image;
        struct base_buf payload = { 0 };
        struct con_batch batch;
        struct base_bytes records, command;
        const char *why = NULL;
        size_t used = 0;

        image_init(&image);
        image_add(&image, len, 0xee);
        cr_assert_eq(
            con__batch_scan(base_bytes(image.bytes, SEGMENT), 1, &payload, &batch, &used, &why),
            CON_SCAN_BATCH);
        cr_assert_eq(used, image.at);
        cr_assert(batch.first_index == 1 && batch.term == 7 && batch.count == 1 &&
                  batch.kind == CON_BATCH_COMMANDS);
        records = batch.records;
        cr_assert(base_take_lenbytes(&records, &command));
        cr_assert(command.len == len && records.len == 0);
        for (size_t i = 0; i < len; i++)
            cr_assert_eq(command.data[i], 0xee);
        base_buf_free(&payload);
    }
}

Test(batch, torn_at_every_byte)
{
    /* A crash may cut the last batch anywhere; the batches before it must come back, and what is
     * left of it must be called torn, not damaged: else a machine that lost power could not start
     * again. */
    struct image whole, cut;

    image_init(&whole);
    image_add(&whole, 100, 1);
    image_add(&whole, 700, 2);
    image_add(&whole, 1300, 3);
    for (size_t at = whole.begins[2]; at < whole.at; at++) {
        size_t batches, end, len;
        enum con_scan scan;

        cut = whole;
        memset(cut.bytes + at, 0, SEGMENT - at);
        scan = image_scan(&cut, &batches, &end, &len);
        cr_assert_eq(batches, 2, "cut at %zu", at);
        cr_assert(scan == (at == whole.begins[2] ? CON_SCAN_END : CON_SCAN_TORN),
                  "cut at %zu: scan %d", at, scan);
        if (scan == CON_SCAN_TORN)
            cr_assert(end + len >= at && end + len <= whole.at,
                      "what must be zeroed covers the pieces");
    }
}

Test(batch, torn_in_any_subset_of_sectors)
{
    /* A disk writes the sectors of one request in any order: any subset of the last batch's may
     * be there after a crash. */
    struct image whole, cut;

    image_init(&whole);
    image_add(&whole, 100, 1);
    image_add(&whole, 1900, 2);
    for (unsigned subset = 0; subset < 15; subset++) { /* of its 4 sectors; 15 would be all */
        size_t batches, end, len;

        cr_assert_eq(whole.at - whole.begins[1], 4 * CON_SECTOR);
        cut = whole;
        for (unsigned sector = 0; sector < 4; sector++)
            if (!(subset & 1u << sector))
                memset(cut.bytes + whole.begins[1] + sector * CON_SECTOR, 0, CON_SECTOR);
        cr_assert_eq(image_scan(&cut, &batches, &end, &len), subset ? CON_SCAN_TORN : CON_SCAN_END);
        cr_assert_eq(batches, 1);
    }
}

Test(batch, every_flipped_bit_is_noticed)
{
    /* No flipped bit of an acknowledged batch, the last one included, may be taken for the trace
     * of a crash: cutting it off would silently lose what was promised to be kept. */
    struct image whole, flipped;

    image_init(&whole);
    image_add(&whole, 100, 1);
    image_add(&whole, 700, 2);
    for (size_t bit = 0; bit < whole.at * 8; bit++) {
        size_t batches, end, len;

        flipped = whole;
        flipped.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(image_scan(&flipped, &batches, &end, &len), CON_SCAN_CORRUPT, "bit %zu", bit);
    }
}

Test(batch, a_lost_batch_in_the_middle_is_noticed)
{
    /* Zeros where a batch was, with a later one behind them: an acknowledged batch is missing,
     * which is not a torn tail. */
    struct image image;
    size_t batches, end, len;

    image_init(&image);
    image_add(&image, 100, 1);
    image_add(&image, 700, 2);
    image_add(&image, 100, 3);
    memset(image.bytes + image.begins[1], 0, image.begins[2] - image.begins[1]);
    cr_assert_eq(image_scan(&image, &batches, &end, &len), CON_SCAN_CORRUPT);
    cr_assert_eq(batches, 1);
}

Test(batch, segment_head)
{
    /* A segment says which index it begins with and how long it is, so that a misplaced or cut
     * file is noticed. */
    uint8_t sector[CON_SECTOR];
    uint64_t first_index = 0, size = 0;

    con__segment_head_encode(42, 4096, sector);
    cr_assert(con__segment_head_decode(sector, &first_index, &size));
    cr_assert(first_index == 42 && size == 4096);
    for (size_t bit = 0; bit < CON_SECTOR * 8; bit++) {
        sector[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert(!con__segment_head_decode(sector, &first_index, &size), "bit %zu", bit);
        sector[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}
