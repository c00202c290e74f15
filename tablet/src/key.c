/* key.c: see key.h. */
#include "key.h"

enum { TAG_DELETE = 1, TAG_INSIDE = 2, SEQ_BYTES = 8, TS_BYTES = 8, ID_BYTES = 4 };

static void put_seq(struct base_buf *out, uint64_t seq)
{
    base_buf_put_be64(out, ~seq);
}

void tab_key_put_row(struct base_buf *out, struct base_bytes row)
{
    base_buf_put_ordered(out, row);
}

void tab_key_put_row_delete(struct base_buf *out, struct base_bytes row, uint64_t seq)
{
    base_buf_put_ordered(out, row);
    base_buf_put_u8(out, TAG_DELETE);
    put_seq(out, seq);
}

static void put_family(struct base_buf *out, struct base_bytes row, struct base_bytes family,
                       uint32_t id)
{
    base_buf_put_ordered(out, row);
    base_buf_put_u8(out, TAG_INSIDE);
    base_buf_put_bytes(out, family);
    uint8_t tail[1 + ID_BYTES] = { 0, (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8),
                                   (uint8_t)id };
    base_buf_put(out, tail, sizeof(tail));
}

void tab_key_put_family_delete(struct base_buf *out, struct base_bytes row,
                               struct base_bytes family, uint32_t id, uint64_t seq)
{
    put_family(out, row, family, id);
    base_buf_put_u8(out, TAG_DELETE);
    put_seq(out, seq);
}

static void put_column(struct base_buf *out, struct base_bytes row, struct base_bytes family,
                       uint32_t id, struct base_bytes qualifier)
{
    put_family(out, row, family, id);
    base_buf_put_u8(out, TAG_INSIDE);
    base_buf_put_ordered(out, qualifier);
}

void tab_key_put_column_delete(struct base_buf *out, struct base_bytes row,
                               struct base_bytes family, uint32_t id, struct base_bytes qualifier,
                               uint64_t seq)
{
    put_column(out, row, family, id, qualifier);
    base_buf_put_u8(out, TAG_DELETE);
    put_seq(out, seq);
}

void tab_key_put_cell(struct base_buf *out, struct base_bytes row, struct base_bytes family,
                      uint32_t id, struct base_bytes qualifier, int64_t timestamp_us, uint64_t seq)
{
    put_column(out, row, family, id, qualifier);
    base_buf_put_u8(out, TAG_INSIDE);
    base_buf_put_be64(out, ~((uint64_t)timestamp_us ^ (1ULL << 63)));
    put_seq(out, seq);
}

void tab_key_set_seq(uint8_t *key, size_t len, uint64_t seq)
{
    BASE_ASSERT(len > SEQ_BYTES);
    base_put_be64(key + len - SEQ_BYTES, ~seq);
}

uint64_t tab_key_seq(struct base_bytes key)
{
    return key.len > SEQ_BYTES ? ~base_get_be64(key.data + key.len - SEQ_BYTES) : 0;
}

/* The length of an ordered string at the start of `in`, its end mark included; 0: there is none. */
static size_t ordered_len(struct base_bytes in)
{
    for (size_t at = 0; at + 1 < in.len;) {
        const uint8_t *zero = memchr(in.data + at, 0, in.len - 1 - at);
        if (!zero)
            return 0;
        at = (size_t)(zero - in.data) + 2;
        if (zero[1] == 1)
            return at;
        if (zero[1] != 0xff)
            return 0;
    }
    return 0;
}

struct base_bytes tab_key_row(struct base_bytes key)
{
    return base_bytes(key.data, ordered_len(key));
}

static bool parse_column(struct base_bytes rest, struct base_bytes key, struct tab_key *parsed)
{
    size_t len = ordered_len(rest);
    if (len == 0)
        return false;
    parsed->qualifier = base_bytes(rest.data, len - 2);
    parsed->column = base_bytes(key.data, (size_t)(rest.data - key.data) + len);
    rest = base_bytes(rest.data + len, rest.len - len);
    if (rest.len == 1 + SEQ_BYTES && rest.data[0] == TAG_DELETE) {
        parsed->kind = TAB_COLUMN_DELETE;
    } else if (rest.len == 1 + TS_BYTES + SEQ_BYTES && rest.data[0] == TAG_INSIDE) {
        parsed->kind = TAB_CELL;
        parsed->timestamp_us = (int64_t)(~base_get_be64(rest.data + 1) ^ (1ULL << 63));
    } else {
        return false;
    }
    return true;
}

bool tab_key_parse(struct base_bytes key, struct tab_key *parsed)
{
    size_t row_len = ordered_len(key);
    if (row_len == 0 || key.len < row_len + 1 + SEQ_BYTES)
        return false;
    parsed->row = base_bytes(key.data, row_len);
    parsed->seq = tab_key_seq(key);
    struct base_bytes rest = base_bytes(key.data + row_len + 1, key.len - row_len - 1);
    if (key.data[row_len] == TAG_DELETE) {
        parsed->kind = TAB_ROW_DELETE;
        return rest.len == SEQ_BYTES;
    }
    const uint8_t *zero = memchr(rest.data, 0, rest.len);
    if (key.data[row_len] != TAG_INSIDE || !zero)
        return false;
    parsed->family = base_bytes(rest.data, (size_t)(zero - rest.data));
    size_t used = parsed->family.len + 1 + ID_BYTES + 1;
    if (rest.len < used + SEQ_BYTES)
        return false;
    parsed->family_id =
        (uint32_t)zero[1] << 24 | (uint32_t)zero[2] << 16 | (uint32_t)zero[3] << 8 | zero[4];
    rest = base_bytes(rest.data + used, rest.len - used);
    if (zero[5] == TAG_DELETE) {
        parsed->kind = TAB_FAMILY_DELETE;
        return rest.len == SEQ_BYTES;
    }
    return zero[5] == TAG_INSIDE && parse_column(rest, key, parsed);
}

struct base_bytes tab_key_plain(struct base_bytes encoded, bool end_mark, struct base_buf *scratch)
{
    if (end_mark) {
        BASE_ASSERT(encoded.len >= 2);
        encoded.len -= 2;
    }
    if (encoded.len == 0 || !memchr(encoded.data, 0, encoded.len))
        return encoded;
    base_buf_clear(scratch);
    for (size_t i = 0; i < encoded.len; i++) {
        base_buf_put_u8(scratch, encoded.data[i]);
        i += encoded.data[i] == 0; /* 00 FF */
    }
    return base_buf_bytes(scratch);
}
