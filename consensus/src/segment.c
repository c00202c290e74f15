/* segment.c: the bytes of a log's segments.
 *
 * A segment is allocated full of zeros and synced before its first use. A batch is what one sync
 * makes durable: a run of 512-byte sectors, each with its own checksum, its number in the batch,
 * the batch's sequence number, and a mark as its very last byte. The head of a segment is such a
 * sector too, written together with the first batch. No sector is ever written twice with
 * different contents but to be zeroed again.
 *
 * Invariants
 * 1. Batches are written one after the other; the next one is begun only after the sync of the
 * one before. So only the last batch of a log can be torn by a crash.
 * 2. A crash leaves of each sector of the torn batch: the zeros, all of it, or (a disk that tears
 * sectors) a beginning of it followed by zeros: in each case the end mark is missing or the
 * sector is whole.
 * 3. So a sector that is neither zero nor whole but has something where its end mark belongs was
 * damaged later, and what it held may have been acknowledged: corrupt, never to be cut off. The
 * same when anything of a later batch follows. Source: protocol-aware recovery (FAST'18): tell a
 * crash from corruption by what is stored apart from the entry.
 * 4. Sequence numbers have no gaps, over all segments: a batch that is missing as a whole is
 * noticed by the next one. Indexes of entries cannot serve for that: a follower's are written
 * again when leaders change. */
#include "segment.h"

#include "base/codec.h"

enum { END_MARK = 0x5a };
#define HEAD_NUMBER UINT32_MAX /* the "number in the batch" of a segment's head */
static const char magic[8] = "STRATSG1";

/* ---- records ---- */

void con__record_put(struct base_buf *out, const struct con_record *record)
{
    base_buf_put_u8(out, (uint8_t)record->kind);
    switch (record->kind) {
    case CON_RECORD_ENTRY:
        base_buf_put_u8(out, (uint8_t)record->entry.kind);
        base_buf_put_varint(out, record->entry.index);
        base_buf_put_varint(out, record->entry.term);
        base_buf_put_lenbytes(out, record->entry.data);
        break;
    case CON_RECORD_VOTE:
        base_buf_put_varint(out, record->term);
        base_buf_put_le64(out, record->vote);
        break;
    case CON_RECORD_SNAPSHOT:
        base_buf_put_varint(out, record->index);
        base_buf_put_varint(out, record->term);
        break;
    }
}

static bool take_u8(struct base_bytes *in, uint8_t *value)
{
    struct base_bytes one;

    if (!base_take_bytes(in, 1, &one))
        return false;
    *value = one.data[0];
    return true;
}

bool con__record_take(struct base_bytes *in, struct con_record *record)
{
    struct base_bytes rest = *in;
    uint8_t kind, entry_kind;

    if (!take_u8(&rest, &kind))
        return false;
    *record = (struct con_record){ .kind = (enum con_record_kind)kind };
    switch (kind) {
    case CON_RECORD_ENTRY:
        if (!take_u8(&rest, &entry_kind) || entry_kind > CON_ENTRY_CONFIG ||
            !base_take_varint(&rest, &record->entry.index) ||
            !base_take_varint(&rest, &record->entry.term) ||
            !base_take_lenbytes(&rest, &record->entry.data) || record->entry.index == 0)
            return false;
        record->entry.kind = (enum con_entry_kind)entry_kind;
        break;
    case CON_RECORD_VOTE:
        if (!base_take_varint(&rest, &record->term) || !base_take_le64(&rest, &record->vote))
            return false;
        break;
    case CON_RECORD_SNAPSHOT:
        if (!base_take_varint(&rest, &record->index) || !base_take_varint(&rest, &record->term))
            return false;
        break;
    default:
        return false;
    }
    *in = rest;
    return true;
}

/* ---- sectors ---- */

/* Fills in all but the data of a sector. */
static void sector_finish(uint8_t *sector, uint32_t number, uint64_t sequence)
{
    base_put_le32(sector + 4, number);
    base_put_le64(sector + 8, sequence);
    sector[CON_SECTOR - 1] = END_MARK;
    base_put_le32(sector, base_crc32c(0, sector + 4, CON_SECTOR - 4));
}

static bool sector_whole(const uint8_t *sector)
{
    return sector[CON_SECTOR - 1] == END_MARK &&
           base_get_le32(sector) == base_crc32c(0, sector + 4, CON_SECTOR - 4);
}

static bool sector_is(const uint8_t *sector, uint32_t number, uint64_t sequence)
{
    return sector_whole(sector) && base_get_le32(sector + 4) == number &&
           base_get_le64(sector + 8) == sequence;
}

static bool sector_zero(const uint8_t *sector)
{
    static const uint8_t zeros[CON_SECTOR];
    return memcmp(sector, zeros, CON_SECTOR) == 0;
}

/* Nothing whole begins here: is that the end, the pieces of a batch a crash cut short, or
 * damage? */
static enum con_scan tail_scan(struct base_bytes rest, uint64_t sequence, size_t *len,
                               const char **why)
{
    size_t torn_end = 0;

    for (size_t at = 0; at + CON_SECTOR <= rest.len; at += CON_SECTOR) {
        const uint8_t *sector = rest.data + at;

        *len = at;
        if (sector_zero(sector))
            continue;
        if (sector_whole(sector)) {
            if (base_get_le64(sector + 8) != sequence) {
                *why = "a later batch follows one that is damaged or missing";
                return CON_SCAN_CORRUPT;
            }
        } else if (sector[CON_SECTOR - 1] != 0) {
            *why = "a sector that was written whole fails its checksum";
            return CON_SCAN_CORRUPT;
        }
        torn_end = at + CON_SECTOR;
    }
    *len = torn_end;
    return torn_end > 0 ? CON_SCAN_TORN : CON_SCAN_END;
}

/* ---- batches ---- */

size_t con__batch_bytes(size_t records_len)
{
    size_t sectors = (CON_BATCH_HEAD + records_len + CON_SECTOR_DATA - 1) / CON_SECTOR_DATA;
    return sectors * CON_SECTOR;
}

void con__batch_put(const struct con_batch *batch, struct base_buf *out)
{
    uint8_t head[CON_BATCH_HEAD];
    size_t size = con__batch_bytes(batch->records.len);
    uint8_t *at = base_buf_extend(out, size);
    struct base_bytes parts[2] = { base_bytes(head, sizeof(head)), batch->records };
    size_t part = 0;

    BASE_ASSERT(batch->records.len <= CON_RECORDS_BYTES_MAX);
    base_put_le32(head, (uint32_t)batch->records.len);
    base_put_le32(head + 4, batch->record_count);
    for (uint32_t number = 0; number * (size_t)CON_SECTOR < size; number++) {
        uint8_t *sector = at + number * (size_t)CON_SECTOR;
        size_t room = CON_SECTOR_DATA;

        while (room > 0 && part < 2) {
            size_t len = parts[part].len < room ? parts[part].len : room;

            if (len > 0)
                memcpy(sector + CON_SECTOR_HEAD + (CON_SECTOR_DATA - room), parts[part].data, len);
            room -= len;
            parts[part].data += len;
            parts[part].len -= len;
            if (parts[part].len == 0)
                part++;
        }
        memset(sector + CON_SECTOR_HEAD + (CON_SECTOR_DATA - room), 0, room);
        sector_finish(sector, number, batch->sequence);
    }
}

enum con_scan con__batch_take(struct base_bytes rest, uint64_t sequence, struct base_buf *payload,
                              struct con_batch *batch, size_t *len, const char **why)
{
    size_t size = CON_SECTOR;
    uint32_t records_len = 0;

    base_buf_clear(payload);
    for (size_t at = 0; at < size; at += CON_SECTOR) {
        const uint8_t *sector = rest.data + at;

        if (at + CON_SECTOR > rest.len || !sector_is(sector, (uint32_t)(at / CON_SECTOR), sequence))
            return tail_scan(rest, sequence, len, why);
        base_buf_put(payload, sector + CON_SECTOR_HEAD, CON_SECTOR_DATA);
        if (at > 0)
            continue;
        records_len = base_get_le32(payload->data);
        size = con__batch_bytes(records_len);
        if (records_len > CON_RECORDS_BYTES_MAX || size > rest.len) {
            *len = 0;
            *why = "a batch is longer than its segment";
            return CON_SCAN_CORRUPT;
        }
    }
    *batch = (struct con_batch){
        .sequence = sequence,
        .record_count = base_get_le32(payload->data + 4),
        .records = base_bytes(payload->data + CON_BATCH_HEAD, records_len),
    };
    *len = size;
    return CON_SCAN_WHOLE;
}

/* ---- segments ---- */

void con__segment_head_put(const struct con_segment_head *head, uint8_t sector[CON_SECTOR])
{
    const uint64_t values[] = { head->number, head->size, head->member,        head->term,
                                head->vote,   head->last, head->cleared_index, head->cleared_term };
    uint8_t *at = sector + CON_SECTOR_HEAD;

    memset(sector, 0, CON_SECTOR);
    memcpy(at, magic, sizeof(magic));
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        base_put_le64(at + sizeof(magic) + 8 * i, values[i]);
    sector_finish(sector, HEAD_NUMBER, head->sequence);
}

bool con__segment_head_take(const uint8_t sector[CON_SECTOR], struct con_segment_head *head)
{
    const uint8_t *at = sector + CON_SECTOR_HEAD;

    if (!sector_whole(sector) || base_get_le32(sector + 4) != HEAD_NUMBER ||
        memcmp(at, magic, sizeof(magic)) != 0)
        return false;
    at += sizeof(magic);
    *head = (struct con_segment_head){
        .number = base_get_le64(at),
        .size = base_get_le64(at + 8),
        .member = base_get_le64(at + 16),
        .sequence = base_get_le64(sector + 8),
        .term = base_get_le64(at + 24),
        .vote = base_get_le64(at + 32),
        .last = base_get_le64(at + 40),
        .cleared_index = base_get_le64(at + 48),
        .cleared_term = base_get_le64(at + 56),
    };
    return true;
}

enum con_scan con__segment_scan(struct base_bytes segment, uint64_t sequence,
                                struct con_segment_head *head, size_t *len, const char **why)
{
    *len = 0;
    if (segment.len >= CON_SECTOR && con__segment_head_take(segment.data, head)) {
        *why = "its head does not belong to the log before it";
        *len = 0;
        return sequence == 0 || head->sequence == sequence ? CON_SCAN_WHOLE : CON_SCAN_CORRUPT;
    }
    if (sequence == 0) {
        *why = "its head is damaged";
        return CON_SCAN_CORRUPT;
    }
    return tail_scan(segment, sequence, len, why);
}
