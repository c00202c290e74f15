/* The journal after a crash: a torn last batch is no damage, and a damaged batch that was durable
 * is no tear. If either were taken for the other, acknowledged bytes would be dropped silently, or
 * a server would not start after a power cut. So every length of a torn tail and every flipped byte
 * is tried. */
#include <stdlib.h>

#include "base/codec.h"
#include "journal_replay.h"
#include "test.h"

enum { SEQ = 7, BATCHES = 4 };

struct seen {
    uint64_t records, sum; /* of the offsets */
    uint64_t damages, any_damages;
};

static void on_record(void *self, const struct blk__record *record, uint64_t seq)
{
    struct seen *seen = self;
    seen->records++;
    seen->sum += record->offset;
    cr_assert_eq(seq, SEQ);
}

static void on_damage(void *self, uint64_t block, const char *what)
{
    struct seen *seen = self;
    seen->damages++;
    seen->any_damages += block == 0;
}

static size_t put_batch(struct base_buf *out, uint64_t number, int records, size_t payload_len)
{
    uint8_t head[BLK_BATCH_HEAD] = { 0 }, record_head[BLK_RECORD_HEAD], payload[9000];
    size_t begin = out->len;
    memset(payload, (int)number, sizeof payload);
    base_buf_put(out, head, sizeof head);
    for (int i = 0; i < records; i++) {
        struct blk__record record = { .type = BLK_RECORD_APPEND,
                                      .block = number,
                                      .offset = number * 10 + (uint64_t)i,
                                      .payload = base_bytes(payload, payload_len),
                                      .payload_crc = base_crc32c(0, payload, payload_len) };
        blk__record_head_put(&record, number, record_head);
        base_buf_put(out, record_head, sizeof record_head);
        base_buf_put(out, payload, payload_len);
    }
    blk__batch_head_put(SEQ, number, (uint32_t)(out->len - begin - BLK_BATCH_HEAD),
                        (uint32_t)records, head);
    memcpy(out->data + begin, head, sizeof head);
    size_t end = out->len;
    while (out->len % BLK_PAGE)
        base_buf_put_u8(out, 0);
    return end;
}

/* A segment of four batches of two records; ends[i]: the last byte of batch i that means something.
 */
static struct base_buf segment(struct blk__segment_head *head, size_t ends[BATCHES],
                               size_t begins[BATCHES])
{
    struct base_buf out = { 0 };
    *head = (struct blk__segment_head){ .seq = SEQ, .first_batch = 11 };
    blk__segment_head_put(head, base_buf_extend(&out, BLK_PAGE));
    for (int i = 0; i < BATCHES; i++) {
        begins[i] = out.len;
        ends[i] = put_batch(&out, 11 + (uint64_t)i, 2, 100 + 1500 * (size_t)i);
    }
    return out;
}

static struct blk__replay replay(const struct blk__segment_head *head, const struct base_buf *bytes,
                                 struct seen *seen, const struct blk__segment_head *next)
{
    struct blk__replay r = { 0 };
    struct blk__replay_visitor visitor = { on_record, on_damage, seen };
    *seen = (struct seen){ 0 };
    blk__replay_segment(&r, head, base_buf_bytes(bytes), next, &visitor);
    return r;
}

Test(journal, whole)
{
    struct blk__segment_head head, back;
    size_t ends[BATCHES], begins[BATCHES];
    struct base_buf bytes = segment(&head, ends, begins);
    struct seen seen;
    cr_assert(blk__segment_head_take(bytes.data, &back));
    cr_assert(back.seq == SEQ && back.first_batch == 11);
    struct blk__replay r = replay(&head, &bytes, &seen, 0);
    cr_assert(seen.records == 8 && seen.damages == 0 && r.torn_batch == 0 && r.next_batch == 15);
    base_buf_free(&bytes);
}

/* The last batch was never acknowledged: whatever part of it is on the disk, nothing is damage, and
 * what is before is all there. */
Test(journal, torn_at_every_byte)
{
    struct blk__segment_head head;
    size_t ends[BATCHES], begins[BATCHES];
    struct base_buf bytes = segment(&head, ends, begins);
    struct seen seen;
    uint64_t torn = 0;
    for (size_t cut = ends[3]; cut-- > begins[3];) {
        bytes.data[cut] = 0;
        if (cut + 1 == ends[3]) /* 0 may be what was there */
            bytes.data[cut] = 0xee;
        struct blk__replay r = replay(&head, &bytes, &seen, 0);
        cr_assert(seen.damages == 0 && seen.records >= 6 && seen.records < 8,
                  "cut at %zu: %d records", cut, (int)seen.records);
        cr_assert(r.next_batch == 14 ||
                  (r.torn_batch == 14 && r.next_batch == 15 && r.torn_records == seen.records - 6));
        torn += r.torn_batch != 0;
        /* The next life of the server says so in its first segment, and it is no damage then
         * either. */
        struct blk__segment_head next = { .seq = SEQ + 1,
                                          .first_batch = r.next_batch,
                                          .torn_batch = r.torn_batch,
                                          .torn_records = r.torn_records };
        uint64_t records = seen.records;
        replay(&head, &bytes, &seen, &next);
        cr_assert(seen.damages == 0 && seen.records == records, "cut at %zu, seen again", cut);
    }
    cr_assert(torn > 100);
    base_buf_free(&bytes);
}

/* A sector of the last batch missing in the middle is a torn tail too. */
Test(journal, torn_at_every_sector)
{
    struct blk__segment_head head;
    size_t ends[BATCHES], begins[BATCHES];
    struct base_buf bytes = segment(&head, ends, begins);
    struct seen seen;
    for (size_t at = begins[3]; at + 512 <= bytes.len; at += 512) {
        uint8_t saved[512];
        memcpy(saved, bytes.data + at, 512);
        memset(bytes.data + at, 0, 512);
        replay(&head, &bytes, &seen, 0);
        cr_assert(seen.damages == 0 && seen.records >= 6, "sector at %zu", at);
        memcpy(bytes.data + at, saved, 512);
    }
    base_buf_free(&bytes);
}

/* Every byte of the batches that have a batch after them was durable: flipped, it is damage, and
 * only what it is of is lost. */
Test(journal, every_flipped_byte)
{
    struct blk__segment_head head;
    size_t ends[BATCHES], begins[BATCHES];
    struct base_buf bytes = segment(&head, ends, begins);
    struct seen seen;
    for (int batch = 0; batch < 3; batch++) {
        for (size_t at = begins[batch]; at < ends[batch]; at++) {
            size_t in = at - begins[batch], body = in - BLK_BATCH_HEAD,
                   one = BLK_RECORD_HEAD + 100 + 1500 * (size_t)batch;
            bytes.data[at] ^= (uint8_t)(1u << (at % 8));
            struct blk__replay r = replay(&head, &bytes, &seen, 0);
            cr_assert(seen.damages >= 1, "batch %d byte %zu was not noticed", batch, in);
            cr_assert(seen.records >= 6, "batch %d byte %zu: only %d records left", batch, in,
                      (int)seen.records);
            cr_assert(r.next_batch == 15 && r.torn_batch == 0);
            bool in_head = in < BLK_BATCH_HEAD || body % one < BLK_RECORD_HEAD;
            cr_assert_eq(seen.any_damages > 0, in_head, "batch %d byte %zu", batch, in);
            if (!in_head)
                cr_assert(seen.records == 7 && seen.damages == 1,
                          "one record is lost, and told by its block");
            bytes.data[at] ^= (uint8_t)(1u << (at % 8));
        }
    }
    base_buf_free(&bytes);
}

/* With a next segment, written when all before it was durable, the last batch is as good as any
 * other. */
Test(journal, a_segment_after_proves_the_last_batch)
{
    struct blk__segment_head head, next = { .seq = SEQ + 1, .first_batch = 15 };
    size_t ends[BATCHES], begins[BATCHES];
    struct base_buf bytes = segment(&head, ends, begins);
    struct seen seen;
    replay(&head, &bytes, &seen, &next);
    cr_assert(seen.records == 8 && seen.damages == 0);
    for (size_t at = begins[3]; at < ends[3]; at += 3) {
        bytes.data[at] ^= 0x10;
        struct blk__replay r = replay(&head, &bytes, &seen, &next);
        cr_assert(seen.damages >= 1 && r.next_batch == 15, "byte %zu", at - begins[3]);
        bytes.data[at] ^= 0x10;
    }
    base_buf_free(&bytes);
}

/* What is left of a segment's former life is not taken for its present one. */
Test(journal, former_life)
{
    struct blk__segment_head head;
    size_t ends[BATCHES], begins[BATCHES];
    struct base_buf bytes = segment(&head, ends, begins);
    struct seen seen;
    struct blk__segment_head again = { .seq = SEQ + 5, .first_batch = 40 };
    struct blk__replay r = replay(&again, &bytes, &seen, 0);
    cr_assert(seen.records == 0 && seen.damages == 0 && r.next_batch == 40);
    base_buf_free(&bytes);
}
