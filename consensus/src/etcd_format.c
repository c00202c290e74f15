/* etcd_format.c: see etcd_format.h. */
#include "etcd_format.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/codec.h"

enum { FORMAT = 1, ID_DIGITS = 16 };

/* ---- keys ---- */

void con__etcd_keys(struct con_etcd_keys *keys, const char *prefix, const char *group)
{
    snprintf(keys->candidate, CON_ETCD_KEY_MAX, "%s/%s/candidate/", prefix, group);
    snprintf(keys->leader, CON_ETCD_KEY_MAX, "%s/%s/leader", prefix, group);
    snprintf(keys->next, CON_ETCD_KEY_MAX, "%s/%s/leader.next", prefix, group);
    snprintf(keys->log, CON_ETCD_KEY_MAX, "%s/%s/log/", prefix, group);
    snprintf(keys->manifest, CON_ETCD_KEY_MAX, "%s/%s/manifest", prefix, group);
    snprintf(keys->snapshot, CON_ETCD_KEY_MAX, "%s/%s/snapshot/", prefix, group);
}

const char *con__etcd_below(struct base_arena *arena, const char *key)
{
    char *end = base_arena_strdup(arena, key);

    end[strlen(end) - 1]++; /* a slash: there is always a next byte */
    return end;
}

const char *con__etcd_log_key(struct base_arena *arena, const struct con_etcd_keys *keys,
                              uint64_t first)
{
    return base_arena_printf(arena, "%s%020" PRIu64, keys->log, first);
}

const char *con__etcd_piece_key(struct base_arena *arena, const struct con_etcd_keys *keys,
                                uint64_t index, uint64_t number)
{
    return base_arena_printf(arena, "%s%020" PRIu64 "/%06" PRIu64, keys->snapshot, index, number);
}

/* ---- values ---- */

/* Four bytes for the checksum, and the format. */
static size_t frame_begin(struct base_buf *out)
{
    size_t at = out->len;

    base_buf_put_le32(out, 0);
    base_buf_put_u8(out, FORMAT);
    return at;
}

static void frame_end(struct base_buf *out, size_t at)
{
    base_put_le32(out->data + at, base_crc32c(0, out->data + at + 4, out->len - at - 4));
}

static struct base_status frame_open(struct base_bytes *value, const char *what)
{
    struct base_bytes format;
    uint32_t crc = 0;

    if (!base_take_le32(value, &crc) || base_crc32c(0, value->data, value->len) != crc)
        return base_status_make(BASE_DATA_LOSS, "%s: the checksum is wrong", what);
    if (!base_take_bytes(value, 1, &format) || format.data[0] != FORMAT)
        return base_status_make(BASE_DATA_LOSS, "%s: of a format this program does not know", what);
    return BASE_STATUS_OK;
}

void con__etcd_batch_encode(const struct con_etcd_batch *batch, struct base_buf *out)
{
    size_t at = frame_begin(out);

    base_buf_put_varint(out, batch->term);
    base_buf_put_varint(out, batch->first);
    base_buf_put_varint(out, batch->count);
    base_buf_put_bytes(out, batch->commands);
    frame_end(out, at);
}

struct base_status con__etcd_batch_decode(struct base_bytes value, struct con_etcd_batch *batch)
{
    struct base_status status = frame_open(&value, "batch");
    struct base_bytes commands, command;
    uint64_t count = 0, taken = 0;

    if (base_failed(status))
        return status;
    if (!base_take_varint(&value, &batch->term) || !base_take_varint(&value, &batch->first) ||
        !base_take_varint(&value, &count) || count == 0 || count > UINT32_MAX)
        return base_status_make(BASE_DATA_LOSS, "batch: its head does not decode");
    batch->count = (uint32_t)count;
    batch->commands = commands = value;
    while (taken < count && base_take_lenbytes(&commands, &command))
        taken++;
    if (taken != count || commands.len)
        return base_status_make(BASE_DATA_LOSS,
                                "batch of index %" PRIu64 ": %" PRIu64 " commands, %" PRIu64
                                " and %zu bytes were found",
                                batch->first, count, taken, commands.len);
    return BASE_STATUS_OK;
}

void con__etcd_manifest_encode(const struct con_etcd_manifest *manifest, struct base_buf *out)
{
    size_t at = frame_begin(out);

    base_buf_put_varint(out, manifest->index);
    base_buf_put_varint(out, manifest->bytes);
    base_buf_put_varint(out, manifest->pieces);
    base_buf_put_le32(out, manifest->crc);
    frame_end(out, at);
}

struct base_status con__etcd_manifest_decode(struct base_bytes value,
                                             struct con_etcd_manifest *manifest)
{
    struct base_status status = frame_open(&value, "snapshot's manifest");

    if (base_failed(status))
        return status;
    if (!base_take_varint(&value, &manifest->index) ||
        !base_take_varint(&value, &manifest->bytes) ||
        !base_take_varint(&value, &manifest->pieces) || !base_take_le32(&value, &manifest->crc) ||
        value.len)
        return base_status_make(BASE_DATA_LOSS, "snapshot's manifest: it does not decode");
    return BASE_STATUS_OK;
}

bool con__etcd_leader_decode(struct base_bytes value, uint64_t *id, char target[CON_ADDRESS_MAX])
{
    *id = 0;
    if (value.len <= ID_DIGITS || value.data[ID_DIGITS] != ' ' ||
        value.len - ID_DIGITS - 1 >= CON_ADDRESS_MAX)
        return false;
    for (size_t i = 0; i < ID_DIGITS; i++) {
        uint8_t c = value.data[i];

        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
        *id = *id << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    snprintf(target, CON_ADDRESS_MAX, "%.*s", (int)(value.len - ID_DIGITS - 1),
             (const char *)value.data + ID_DIGITS + 1);
    return true;
}
