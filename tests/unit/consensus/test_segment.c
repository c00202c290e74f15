/* The bytes of a log's segments (consensus/src/segment.c): what was written comes back; what a
 * crash cut short is told from what was damaged after it had been acknowledged. */
#include "segment.h"

#include <stdlib.h>

#include "base/codec.h"
#include "test.h"

enum { SEGMENT = 20 * CON_SECTOR };

/* A whole segment: its head, then batches of one entry each of the given lengths, then zeros. */
struct image {
    uint8_t bytes[SEGMENT];
    size_t at, begins[8];
    uint64_t next_sequence;
    size_t batches;
};

static void image_init(struct image *image)
{
    struct con_segment_head head = { .number = 3, .size = SEGMENT, .member = 77, .sequence = 10 };

    memset(image, 0, sizeof(*image));
    con__segment_head_put(&head, image->bytes);
    image->at = CON_SECTOR;
    image->next_sequence = head.sequence;
}

static void image_add(struct image *image, size_t data_len, uint8_t fill)
{
    struct base_buf records = { 0 }, out = { 0 };
    uint8_t *data = malloc(data_len + 1);
    struct con_record record = {
        .kind = CON_RECORD_ENTRY,
        .entry = { 100 + image->next_sequence, 7, CON_ENTRY_COMMAND, { data, data_len } },
    };
    struct con_batch batch = { .sequence = image->next_sequence, .record_count = 1 };

    memset(data, fill, data_len + 1);
    con__record_put(&records, &record);
    batch.records = base_buf_bytes(&records);
    con__batch_put(&batch, &out);
    cr_assert_eq(out.len, con__batch_bytes(records.len));
    cr_assert(image->at + out.len <= SEGMENT);
    memcpy(image->bytes + image->at, out.data, out.len);
    image->begins[image->batches++] = image->at;
    image->at += out.len;
    image->next_sequence++;
    free(data);
    base_buf_free(&records);
    base_buf_free(&out);
}

/* Scans from the start; returns how it ended and how many whole batches came before. */
static enum con_scan image_scan(const struct image *image, size_t *batches, size_t *at, size_t *len)
{
    struct base_buf payload = { 0 };
    struct con_segment_head head;
    struct con_batch batch;
    const char *why = NULL;
    enum con_scan scan = con__segment_scan(base_bytes(image->bytes, SEGMENT), 10, &head, len, &why);

    *at = 0;
    *batches = 0;
    if (scan != CON_SCAN_WHOLE)
        return scan;
    for (*at = CON_SECTOR;; ++*batches) {
        why = NULL;
        scan = con__batch_take(base_bytes(image->bytes + *at, SEGMENT - *at), 10 + *batches,
                               &payload, &batch, len, &why);
        if (scan != CON_SCAN_WHOLE)
            break;
        *at += *len;
    }
    cr_assert((scan == CON_SCAN_CORRUPT) == (why != NULL));
    base_buf_free(&payload);
    return scan;
}

Test(segment, records_come_back)
{
    /* Every kind of record comes back as it was, and no beginning of one is taken for a whole. */
    const struct con_record records[] = {
        { CON_RECORD_ENTRY, { 1, 1, CON_ENTRY_NO_OP, BASE_BYTES_EMPTY }, 0, 0, 0 },
        { CON_RECORD_ENTRY, { 1ull << 60, 9, CON_ENTRY_CONFIG, BASE_BYTES_LIT("abc") }, 0, 0, 0 },
        { .kind = CON_RECORD_VOTE, .term = 300, .vote = UINT64_MAX },
        { .kind = CON_RECORD_SNAPSHOT, .term = 5, .index = 12345 },
    };

    for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
        struct base_buf out = { 0 };
        struct con_record back;
        struct base_bytes in;

        con__record_put(&out, &records[i]);
        in = base_buf_bytes(&out);
        cr_assert(con__record_take(&in, &back) && in.len == 0);
        cr_assert(back.kind == records[i].kind && back.term == records[i].term &&
                  back.vote == records[i].vote && back.index == records[i].index &&
                  back.entry.index == records[i].entry.index &&
                  back.entry.term == records[i].entry.term &&
                  back.entry.kind == records[i].entry.kind &&
                  base_bytes_eq(back.entry.data, records[i].entry.data));
        for (size_t len = 0; len < out.len; len++) {
            in = base_bytes(out.data, len);
            cr_assert(!con__record_take(&in, &back) && in.len == len, "record %zu cut to %zu", i,
                      len);
        }
        base_buf_free(&out);
    }
}

Test(segment, batches_come_back)
{
    /* A batch of any length comes back as it was written: lengths round a sector's edges are
     * where a copy goes wrong. */
    for (size_t len = 0; len < 3 * CON_SECTOR; len++) {
        struct image image;
        struct base_buf payload = { 0 };
        struct con_batch batch;
        struct con_record record;
        const char *why = NULL;
        size_t used = 0;

        image_init(&image);
        image_add(&image, len, 0xee);
        cr_assert_eq(con__batch_take(base_bytes(image.bytes + CON_SECTOR, SEGMENT - CON_SECTOR), 10,
                                     &payload, &batch, &used, &why),
                     CON_SCAN_WHOLE);
        cr_assert_eq(used, image.at - CON_SECTOR);
        cr_assert(batch.sequence == 10 && batch.record_count == 1);
        cr_assert(con__record_take(&batch.records, &record) && batch.records.len == 0);
        cr_assert(record.entry.index == 110 && record.entry.data.len == len);
        for (size_t i = 0; i < len; i++)
            cr_assert_eq(record.entry.data.data[i], 0xee);
        base_buf_free(&payload);
    }
}

Test(segment, torn_at_every_byte)
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

Test(segment, torn_in_any_subset_of_sectors)
{
    /* A disk writes the sectors of one request in any order: any subset of the last batch's may
     * be there after a crash; of a segment's head too, which is written with its first batch. */
    for (size_t first = 0; first < 2; first++) {
        struct image whole, cut;
        size_t begin, sectors;

        image_init(&whole);
        if (first == 1)
            image_add(&whole, 100, 1);
        image_add(&whole, 1900, 2);
        begin = first == 1 ? whole.begins[1] : 0;
        sectors = (whole.at - begin) / CON_SECTOR;
        for (unsigned subset = 0; subset < (1u << sectors) - 1; subset++) {
            size_t batches, end, len;
            enum con_scan scan;

            cut = whole;
            for (unsigned sector = 0; sector < sectors; sector++)
                if (!(subset & 1u << sector))
                    memset(cut.bytes + begin + sector * CON_SECTOR, 0, CON_SECTOR);
            scan = image_scan(&cut, &batches, &end, &len);
            /* The head alone is a segment in which nothing was written. */
            cr_assert_eq(scan,
                         subset == 0 || (first == 0 && subset == 1) ? CON_SCAN_END : CON_SCAN_TORN,
                         "subset %x of batch %zu: scan %d", subset, first, scan);
            cr_assert_eq(batches, first);
        }
    }
}

Test(segment, every_flipped_bit_is_noticed)
{
    /* No flipped bit of an acknowledged batch, the last one included, nor of the head, may be
     * taken for the trace of a crash: cutting it off would silently lose what was promised to be
     * kept. */
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

Test(segment, a_lost_batch_in_the_middle_is_noticed)
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

Test(segment, heads_come_back)
{
    /* A segment says all that one must know to begin reading there, so that older ones can go; a
     * head of another place in the log is refused. */
    struct con_segment_head head = { 42, SEGMENT, 7, 1000, 5, 8, 900, 3, 2 }, back;
    uint8_t segment[SEGMENT] = { 0 };
    size_t len;
    const char *why;

    con__segment_head_put(&head, segment);
    cr_assert(con__segment_head_take(segment, &back));
    cr_assert(memcmp(&head, &back, sizeof(head)) == 0);
    cr_assert_eq(con__segment_scan(base_bytes(segment, SEGMENT), 0, &back, &len, &why),
                 CON_SCAN_WHOLE);
    cr_assert_eq(con__segment_scan(base_bytes(segment, SEGMENT), 1000, &back, &len, &why),
                 CON_SCAN_WHOLE);
    cr_assert_eq(con__segment_scan(base_bytes(segment, SEGMENT), 999, &back, &len, &why),
                 CON_SCAN_CORRUPT);
    memset(segment, 0, sizeof(segment));
    cr_assert_eq(con__segment_scan(base_bytes(segment, SEGMENT), 999, &back, &len, &why),
                 CON_SCAN_END);
    cr_assert_eq(con__segment_scan(base_bytes(segment, SEGMENT), 0, &back, &len, &why),
                 CON_SCAN_CORRUPT, "a log's first segment is never without a head");
}
