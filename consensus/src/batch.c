/* batch.c: the journal's bytes.
 *
 * A segment is allocated full of zeros and synced before its first use. A batch is what one sync
 * makes durable: a run of 512-byte sectors, each with its own checksum, its number in the batch,
 * the batch's first index, and a mark as its very last byte. No sector is ever written twice with
 * different contents but to be zeroed again.
 *
 * Invariants
 * 1. Batches are written one after the other; the next one is begun only after the sync of the
 * one before. So only the last batch of a journal can be torn by a crash.
 * 2. A crash leaves of each sector of the torn batch: the zeros, all of it, or (a disk that tears
 * sectors) a beginning of it followed by zeros: in each case the end mark is missing or the
 * sector is whole.
 * 3. So a sector that is neither zero nor whole but has something where its end mark belongs was
 * damaged later, and what it held may have been acknowledged: corrupt, never to be cut off. The
 * same when anything of a later batch follows. Source: protocol-aware recovery (FAST'18): tell a
 * crash from corruption by what is stored apart from the entry. */
#include "batch.h"

#include "base/codec.h"

enum { END_MARK = 0x5a };
#define SEGMENT_NUMBER UINT32_MAX /* the "number in the batch" of a segment's head */
static const char magic[8] = "STRATLG1";

size_t con__batch_size(size_t records_len)
{
    size_t sectors = (CON_BATCH_HEAD + records_len + CON_SECTOR_DATA - 1) / CON_SECTOR_DATA;
    return sectors * CON_SECTOR;
}

/* Fills in all but the data of a sector. */
static void sector_finish(uint8_t *sector, uint32_t number, uint64_t first_index)
{
    base_put_le32(sector + 4, number);
    base_put_le64(sector + 8, first_index);
    sector[CON_SECTOR - 1] = END_MARK;
    base_put_le32(sector, base_crc32c(0, sector + 4, CON_SECTOR - 4));
}

static bool sector_whole(const uint8_t *sector)
{
    return sector[CON_SECTOR - 1] == END_MARK &&
           base_get_le32(sector) == base_crc32c(0, sector + 4, CON_SECTOR - 4);
}

static bool sector_zero(const uint8_t *sector)
{
    static const uint8_t zeros[CON_SECTOR];
    return memcmp(sector, zeros, CON_SECTOR) == 0;
}

void con__batch_encode(const struct con_batch *batch, struct base_buf *out)
{
    uint8_t head[CON_BATCH_HEAD];
    size_t size = con__batch_size(batch->records.len);
    uint8_t *at = base_buf_extend(out, size);
    struct base_bytes parts[2] = { base_bytes(head, sizeof(head)), batch->records };
    size_t part = 0;

    base_put_le64(head, batch->term);
    base_put_le32(head + 8, batch->count);
    base_put_le32(head + 12, batch->kind);
    base_put_le64(head + 16, batch->records.len);
    memset(at, 0, size);
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
        sector_finish(sector, number, batch->first_index);
    }
}

/* Nothing whole begins here: is that the end, the pieces of a batch a crash cut short, or
 * damage? */
static enum con_scan tail_scan(struct base_bytes rest, uint64_t next_index, size_t *len,
                               const char **why)
{
    size_t torn_end = 0;

    for (size_t at = 0; at + CON_SECTOR <= rest.len; at += CON_SECTOR) {
        const uint8_t *sector = rest.data + at;

        *len = at;
        if (sector_zero(sector))
            continue;
        if (sector_whole(sector)) {
            if (base_get_le64(sector + 8) != next_index) {
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

enum con_scan con__batch_scan(struct base_bytes rest, uint64_t next_index, struct base_buf *payload,
                              struct con_batch *batch, size_t *len, const char **why)
{
    size_t size = CON_SECTOR;
    uint64_t records_len = 0;

    base_buf_clear(payload);
    for (size_t at = 0; at < size; at += CON_SECTOR) {
        const uint8_t *sector = rest.data + at;

        if (at + CON_SECTOR > rest.len || !sector_whole(sector) ||
            base_get_le64(sector + 8) != next_index || base_get_le32(sector + 4) != at / CON_SECTOR)
            return tail_scan(rest, next_index, len, why);
        base_buf_put(payload, sector + CON_SECTOR_HEAD, CON_SECTOR_DATA);
        if (at > 0)
            continue;
        records_len = base_get_le64(payload->data + 16);
        if (records_len > rest.len) {
            *len = 0;
            *why = "a batch is longer than its segment";
            return CON_SCAN_CORRUPT;
        }
        size = con__batch_size((size_t)records_len);
    }
    *batch = (struct con_batch){
        .first_index = next_index,
        .term = base_get_le64(payload->data),
        .count = base_get_le32(payload->data + 8),
        .kind = (enum con_batch_kind)base_get_le32(payload->data + 12),
        .records = base_bytes(payload->data + CON_BATCH_HEAD, (size_t)records_len),
    };
    *len = size;
    return CON_SCAN_BATCH;
}

void con__segment_head_encode(uint64_t first_index, uint64_t size, uint8_t sector[CON_SECTOR])
{
    memset(sector, 0, CON_SECTOR);
    memcpy(sector + CON_SECTOR_HEAD, magic, sizeof(magic));
    base_put_le64(sector + CON_SECTOR_HEAD + sizeof(magic), size);
    sector_finish(sector, SEGMENT_NUMBER, first_index);
}

bool con__segment_head_decode(const uint8_t sector[CON_SECTOR], uint64_t *first_index,
                              uint64_t *size)
{
    if (!sector_whole(sector) || base_get_le32(sector + 4) != SEGMENT_NUMBER ||
        memcmp(sector + CON_SECTOR_HEAD, magic, sizeof(magic)) != 0)
        return false;
    *first_index = base_get_le64(sector + 8);
    *size = base_get_le64(sector + CON_SECTOR_HEAD + sizeof(magic));
    return true;
}
