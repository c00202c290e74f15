/* entry.c: see entry.h. */
#include "entry.h"

#include "base/codec.h"

enum { WRITE_DELETE = 1, CHECKPOINT_BYTES = 37 };

void txn__entry_encode(const struct txn__entry *entry, struct base_buf *out)
{
    size_t from = out->len;
    base_buf_reserve(out, TXN__ENTRY_HEAD + entry->body.len + TXN__ENTRY_TAIL);
    base_buf_put_u8(out, TXN__ENTRY_VERSION);
    base_buf_put_u8(out, (uint8_t)entry->kind);
    base_buf_put_u8(out, entry->more ? TXN__ENTRY_MORE : 0);
    base_buf_put_u8(out, 0);
    base_buf_put_le64(out, entry->epoch);
    base_buf_put_le64(out, entry->position);
    base_buf_put_le64(out, entry->limit);
    base_buf_put_bytes(out, entry->body);
    base_buf_put_le32(out, base_crc32c(0, out->data + from, out->len - from));
}

struct base_status txn__entry_decode(struct base_bytes bytes, struct txn__entry *entry)
{
    if (bytes.len < TXN__ENTRY_HEAD + TXN__ENTRY_TAIL)
        return base_status_make(BASE_DATA_LOSS, "log entry of %zu bytes is too short", bytes.len);
    size_t checked = bytes.len - TXN__ENTRY_TAIL;
    uint32_t crc = base_crc32c(0, bytes.data, checked), kept = base_get_le32(bytes.data + checked);
    if (crc != kept)
        return base_status_make(BASE_DATA_LOSS, "log entry's checksum is %08x, not %08x", crc,
                                kept);
    if (bytes.data[0] != TXN__ENTRY_VERSION)
        return base_status_make(BASE_DATA_LOSS, "log entry of version %u: this program knows %u",
                                bytes.data[0], TXN__ENTRY_VERSION);
    if (bytes.data[1] != TXN__BARRIER && bytes.data[1] != TXN__BATCH)
        return base_status_make(BASE_DATA_LOSS, "log entry of unknown kind %u", bytes.data[1]);
    *entry = (struct txn__entry){
        .kind = bytes.data[1],
        .more = bytes.data[2] & TXN__ENTRY_MORE,
        .epoch = base_get_le64(bytes.data + 4),
        .position = base_get_le64(bytes.data + 12),
        .limit = base_get_le64(bytes.data + 20),
        .body = base_bytes(bytes.data + TXN__ENTRY_HEAD, checked - TXN__ENTRY_HEAD),
    };
    return BASE_STATUS_OK;
}

void txn__logged_encode(const struct txn__logged *txn, struct base_buf *body)
{
    base_buf_put_le64(body, txn->timestamp);
    base_buf_put_lenbytes(body, txn->id);
    base_buf_put_lenbytes(body, txn->database);
    base_buf_put_varint(body, txn->write_count);
    for (size_t i = 0; i < txn->write_count; i++) {
        const struct txn__logged_write *write = &txn->writes[i];
        base_buf_put_u8(body, write->is_delete ? WRITE_DELETE : 0);
        base_buf_put_lenbytes(body, write->group);
        base_buf_put_lenbytes(body, write->key);
        if (!write->is_delete)
            base_buf_put_lenbytes(body, write->value);
    }
}

static bool take_write(struct base_bytes *in, struct txn__logged_write *write)
{
    struct base_bytes flags;
    if (!base_take_bytes(in, 1, &flags) || flags.data[0] > WRITE_DELETE)
        return false;
    write->is_delete = flags.data[0] & WRITE_DELETE;
    return base_take_lenbytes(in, &write->group) && base_take_lenbytes(in, &write->key) &&
           (write->is_delete || base_take_lenbytes(in, &write->value));
}

static bool take_logged(struct base_bytes *in, struct base_arena *arena, struct txn__logged *txn)
{
    uint64_t writes;
    if (!base_take_le64(in, &txn->timestamp) || !base_take_lenbytes(in, &txn->id) ||
        !base_take_lenbytes(in, &txn->database) || !base_take_varint(in, &writes) ||
        writes > in->len / 3 + 1) /* a write is 3 bytes or more */
        return false;
    txn->write_count = (size_t)writes;
    txn->writes = BASE_NEW_ARRAY(arena, struct txn__logged_write, txn->write_count);
    for (size_t i = 0; i < txn->write_count; i++)
        if (!take_write(in, &txn->writes[i]))
            return false;
    return true;
}

struct base_status txn__body_decode(struct base_bytes body, struct base_arena *arena,
                                    struct txn__logged **txns, size_t *count)
{
    size_t cap = 16, n = 0, whole = body.len;
    struct txn__logged *all = BASE_NEW_ARRAY(arena, struct txn__logged, cap);
    while (body.len) {
        if (n == cap) {
            struct txn__logged *more = BASE_NEW_ARRAY(arena, struct txn__logged, cap * 2);
            memcpy(more, all, cap * sizeof(*all));
            all = more;
            cap *= 2;
        }
        if (!take_logged(&body, arena, &all[n]))
            return base_status_make(
                BASE_DATA_LOSS, "batch of %zu bytes: transaction %zu, at byte %zu, does not decode",
                whole, n, whole - body.len);
        n++;
    }
    *txns = all;
    *count = n;
    return BASE_STATUS_OK;
}

void txn__checkpoint_encode(const struct txn__checkpoint *checkpoint, struct base_buf *out)
{
    size_t from = out->len;
    base_buf_put_u8(out, TXN__ENTRY_VERSION);
    base_buf_put_le64(out, checkpoint->position);
    base_buf_put_le64(out, checkpoint->epoch);
    base_buf_put_le64(out, checkpoint->timestamp);
    base_buf_put_le64(out, checkpoint->limit);
    base_buf_put_le32(out, base_crc32c(0, out->data + from, out->len - from));
}

struct base_status txn__checkpoint_decode(struct base_bytes bytes,
                                          struct txn__checkpoint *checkpoint)
{
    if (bytes.len != CHECKPOINT_BYTES)
        return base_status_make(BASE_DATA_LOSS, "checkpoint of %zu bytes, not %d", bytes.len,
                                CHECKPOINT_BYTES);
    if (base_crc32c(0, bytes.data, CHECKPOINT_BYTES - 4) !=
        base_get_le32(bytes.data + CHECKPOINT_BYTES - 4))
        return base_status_make(BASE_DATA_LOSS, "checkpoint's checksum is wrong");
    if (bytes.data[0] != TXN__ENTRY_VERSION)
        return base_status_make(BASE_DATA_LOSS, "checkpoint of version %u: this program knows %u",
                                bytes.data[0], TXN__ENTRY_VERSION);
    *checkpoint = (struct txn__checkpoint){
        .position = base_get_le64(bytes.data + 1),
        .epoch = base_get_le64(bytes.data + 9),
        .timestamp = base_get_le64(bytes.data + 17),
        .limit = base_get_le64(bytes.data + 25),
    };
    return BASE_STATUS_OK;
}
