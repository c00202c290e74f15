/* log_format.c: see log_format.h. */
#include "log_format.h"

#define FRAME_MAGIC 0x474f4c54u /* "TLOG" */

size_t tab_frames_size(size_t payload_len)
{
    size_t pieces =
        payload_len ? (payload_len + TAB_FRAME_PAYLOAD_MAX - 1) / TAB_FRAME_PAYLOAD_MAX : 1;
    return payload_len + pieces * TAB_FRAME_HEADER;
}

void tab_frames_put(struct base_buf *out, uint64_t offset, uint64_t batch, uint8_t kind,
                    struct base_bytes payload)
{
    size_t pieces =
        payload.len ? (payload.len + TAB_FRAME_PAYLOAD_MAX - 1) / TAB_FRAME_PAYLOAD_MAX : 1;
    base_buf_reserve(out, tab_frames_size(payload.len));
    for (size_t piece = 0; piece < pieces; piece++) {
        size_t at = piece * TAB_FRAME_PAYLOAD_MAX;
        size_t len =
            payload.len - at < TAB_FRAME_PAYLOAD_MAX ? payload.len - at : TAB_FRAME_PAYLOAD_MAX;
        uint8_t *frame = base_buf_extend(out, TAB_FRAME_HEADER + len);
        base_put_le32(frame, FRAME_MAGIC);
        base_put_le64(frame + 8, offset);
        base_put_le64(frame + 16, batch);
        base_put_le32(frame + 24, (uint32_t)len);
        base_put_le32(frame + 28, (uint32_t)(piece | pieces << 16));
        base_put_le32(frame + 32, 0);
        frame[36] = kind;
        if (len)
            memcpy(frame + TAB_FRAME_HEADER, payload.data + at, len);
        base_put_le32(frame + 4, base_crc32c(0, frame + 8, TAB_FRAME_HEADER - 8 + len));
        offset += TAB_FRAME_HEADER + len;
    }
}

enum tab_frame_found tab_frame_parse(struct base_bytes bytes, uint64_t offset,
                                     struct tab_frame *frame)
{
    if (bytes.len < TAB_FRAME_HEADER)
        return TAB_FRAME_SHORT;
    const uint8_t *at = bytes.data;
    uint32_t len = base_get_le32(at + 24);
    if (base_get_le32(at) != FRAME_MAGIC || base_get_le64(at + 8) != offset ||
        len > TAB_FRAME_PAYLOAD_MAX)
        return TAB_FRAME_NONE;
    if (bytes.len < TAB_FRAME_HEADER + (size_t)len)
        return TAB_FRAME_SHORT;
    if (base_get_le32(at + 4) != base_crc32c(0, at + 8, TAB_FRAME_HEADER - 8 + len))
        return TAB_FRAME_NONE;
    uint32_t pieces = base_get_le32(at + 28);
    *frame = (struct tab_frame){ .batch = base_get_le64(at + 16),
                                 .piece = (uint16_t)pieces,
                                 .pieces = (uint16_t)(pieces >> 16),
                                 .kind = at[36],
                                 .payload = base_bytes(at + TAB_FRAME_HEADER, len),
                                 .size = TAB_FRAME_HEADER + (size_t)len };
    return TAB_FRAME_GOOD;
}

void tab_record_put(struct base_buf *payload, uint64_t tablet, uint64_t seq, uint8_t kind,
                    struct base_bytes body)
{
    base_buf_put_varint(payload, 17 + body.len);
    base_buf_put_le64(payload, tablet);
    base_buf_put_le64(payload, seq);
    base_buf_put_u8(payload, kind);
    base_buf_put_bytes(payload, body);
}

bool tab_record_parse(struct base_bytes bytes, struct tab_record *record)
{
    if (bytes.len < 17)
        return false;
    *record = (struct tab_record){ base_get_le64(bytes.data), base_get_le64(bytes.data + 8),
                                   bytes.data[16], base_bytes(bytes.data + 17, bytes.len - 17) };
    return true;
}
