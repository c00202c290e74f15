/* journal_format.c: see journal_format.h. */
#include "journal_format.h"

#include "base/codec.h"

#define SEGMENT_MAGIC 0x314a4253u /* "SBJ1" */
#define BATCH_MAGIC 0x31424253u   /* "SBB1" */

void blk__segment_head_put(const struct blk__segment_head *head, uint8_t page[BLK_PAGE])
{
    memset(page, 0, BLK_PAGE);
    base_put_le32(page, SEGMENT_MAGIC);
    base_put_le64(page + 8, head->seq);
    base_put_le64(page + 16, head->first_batch);
    base_put_le64(page + 24, head->torn_batch);
    base_put_le64(page + 32, head->torn_records);
    base_put_le64(page + 40, head->oldest);
    base_put_le32(page + 4, base_crc32c(0, page + 8, 40));
}

bool blk__segment_head_take(const uint8_t page[BLK_PAGE], struct blk__segment_head *head)
{
    if (base_get_le32(page) != SEGMENT_MAGIC ||
        base_get_le32(page + 4) != base_crc32c(0, page + 8, 40))
        return false;
    head->seq = base_get_le64(page + 8);
    head->first_batch = base_get_le64(page + 16);
    head->torn_batch = base_get_le64(page + 24);
    head->torn_records = base_get_le64(page + 32);
    head->oldest = base_get_le64(page + 40);
    return true;
}

void blk__batch_head_put(uint64_t seq, uint64_t number, uint32_t body_bytes, uint32_t records,
                         uint8_t out[BLK_BATCH_HEAD])
{
    base_put_le32(out, BATCH_MAGIC);
    base_put_le64(out + 8, seq);
    base_put_le64(out + 16, number);
    base_put_le32(out + 24, body_bytes);
    base_put_le32(out + 28, records);
    base_put_le64(out + 32, 0);
    base_put_le32(out + 4, base_crc32c(0, out + 8, 32));
}

static uint32_t record_head_crc(const uint8_t *head, uint64_t batch)
{
    uint8_t number[8];
    base_put_le64(number, batch);
    return base_crc32c(base_crc32c(0, number, 8), head + 4, BLK_RECORD_HEAD - 4);
}

void blk__record_head_put(const struct blk__record *record, uint64_t batch,
                          uint8_t out[BLK_RECORD_HEAD])
{
    uint16_t kind[2] = { record->type, record->flags };
    base_put_le32(out + 4, record->payload_crc);
    base_put_le32(out + 8, (uint32_t)record->payload.len);
    memcpy(out + 12, kind, 4);
    base_put_le64(out + 16, record->block);
    base_put_le64(out + 24, record->epoch);
    base_put_le64(out + 32, record->offset);
    base_put_le64(out + 40, record->extra);
    base_put_le32(out, record_head_crc(out, batch));
}

bool blk__batch_at(struct base_bytes segment, uint64_t seq, size_t at, struct blk__batch *batch,
                   size_t *next)
{
    if (at + BLK_BATCH_HEAD > segment.len)
        return false;
    const uint8_t *p = segment.data + at;
    if (base_get_le32(p) != BATCH_MAGIC || base_get_le64(p + 8) != seq ||
        base_get_le32(p + 4) != base_crc32c(0, p + 8, 32))
        return false;
    batch->number = base_get_le64(p + 16);
    batch->records = base_get_le32(p + 28);
    size_t body = base_get_le32(p + 24), left = segment.len - at - BLK_BATCH_HEAD;
    batch->body = base_bytes(p + BLK_BATCH_HEAD, body < left ? body : left);
    *next = (at + BLK_BATCH_HEAD + body + BLK_PAGE - 1) / BLK_PAGE * BLK_PAGE;
    return true;
}

bool blk__batch_find(struct base_bytes segment, uint64_t seq, uint64_t number, size_t at,
                     size_t *found)
{
    struct blk__batch batch;
    size_t next;
    for (; at + BLK_BATCH_HEAD <= segment.len; at += BLK_PAGE) {
        if (blk__batch_at(segment, seq, at, &batch, &next) && batch.number >= number) {
            *found = at;
            return true;
        }
    }
    return false;
}

enum blk__record_check blk__record_take(struct base_bytes *in, uint64_t batch,
                                        struct blk__record *record)
{
    if (in->len < BLK_RECORD_HEAD)
        return BLK_RECORD_BAD_HEAD;
    const uint8_t *p = in->data;
    size_t len = base_get_le32(p + 8);
    if (base_get_le32(p) != record_head_crc(p, batch) || len > in->len - BLK_RECORD_HEAD)
        return BLK_RECORD_BAD_HEAD;
    uint16_t kind[2];
    memcpy(kind, p + 12, 4);
    *record = (struct blk__record){ .type = kind[0],
                                    .flags = kind[1],
                                    .block = base_get_le64(p + 16),
                                    .epoch = base_get_le64(p + 24),
                                    .offset = base_get_le64(p + 32),
                                    .extra = base_get_le64(p + 40),
                                    .payload = base_bytes(p + BLK_RECORD_HEAD, len),
                                    .payload_crc = base_get_le32(p + 4) };
    *in = base_bytes(p + BLK_RECORD_HEAD + len, in->len - BLK_RECORD_HEAD - len);
    return base_crc32c(0, record->payload.data, len) == record->payload_crc
               ? BLK_RECORD_GOOD
               : BLK_RECORD_BAD_PAYLOAD;
}
