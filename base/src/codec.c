/* codec.c: see codec.h. */
#include "base/codec.h"

#include <isa-l/crc.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

void base_buf_put_le32(struct base_buf *buf, uint32_t v)
{
    base_put_le32(base_buf_extend(buf, 4), v);
}

void base_buf_put_le64(struct base_buf *buf, uint64_t v)
{
    base_put_le64(base_buf_extend(buf, 8), v);
}

void base_buf_put_be64(struct base_buf *buf, uint64_t v)
{
    base_put_be64(base_buf_extend(buf, 8), v);
}

void base_buf_put_varint(struct base_buf *buf, uint64_t v)
{
    while (v >= 0x80) {
        base_buf_put_u8(buf, (uint8_t)(v | 0x80));
        v >>= 7;
    }
    base_buf_put_u8(buf, (uint8_t)v);
}

void base_buf_put_lenbytes(struct base_buf *buf, struct base_bytes bytes)
{
    base_buf_put_varint(buf, bytes.len);
    base_buf_put_bytes(buf, bytes);
}

bool base_take_bytes(struct base_bytes *in, size_t len, struct base_bytes *out)
{
    if (in->len < len)
        return false;
    *out = base_bytes(in->data, len);
    in->data += len;
    in->len -= len;
    return true;
}

bool base_take_le32(struct base_bytes *in, uint32_t *v)
{
    struct base_bytes raw;
    if (!base_take_bytes(in, 4, &raw))
        return false;
    *v = base_get_le32(raw.data);
    return true;
}

bool base_take_le64(struct base_bytes *in, uint64_t *v)
{
    struct base_bytes raw;
    if (!base_take_bytes(in, 8, &raw))
        return false;
    *v = base_get_le64(raw.data);
    return true;
}

bool base_take_be64(struct base_bytes *in, uint64_t *v)
{
    struct base_bytes raw;
    if (!base_take_bytes(in, 8, &raw))
        return false;
    *v = base_get_be64(raw.data);
    return true;
}

bool base_take_varint(struct base_bytes *in, uint64_t *v)
{
    uint64_t value = 0;
    for (size_t i = 0; i < in->len && i < 10; i++) {
        uint8_t byte = in->data[i];
        if (i == 9 && byte > 1)
            return false;
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte & 0x80)
            continue;
        in->data += i + 1;
        in->len -= i + 1;
        *v = value;
        return true;
    }
    return false;
}

bool base_take_lenbytes(struct base_bytes *in, struct base_bytes *out)
{
    struct base_bytes rest = *in;
    uint64_t len;
    if (!base_take_varint(&rest, &len) || len > rest.len ||
        !base_take_bytes(&rest, (size_t)len, out))
        return false;
    *in = rest;
    return true;
}

void base_buf_put_ordered(struct base_buf *buf, struct base_bytes bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        base_buf_put_u8(buf, bytes.data[i]);
        if (bytes.data[i] == 0)
            base_buf_put_u8(buf, 0xff);
    }
    base_buf_put_u8(buf, 0x00);
    base_buf_put_u8(buf, 0x01);
}

bool base_take_ordered(struct base_bytes *in, struct base_buf *out)
{
    size_t keep = out->len;
    for (size_t i = 0; i < in->len; i++) {
        uint8_t byte = in->data[i];
        if (byte != 0) {
            base_buf_put_u8(out, byte);
            continue;
        }
        if (i + 1 >= in->len)
            break;
        if (in->data[i + 1] == 0xff) {
            base_buf_put_u8(out, 0);
            i++;
            continue;
        }
        if (in->data[i + 1] != 0x01)
            break;
        in->data += i + 2;
        in->len -= i + 2;
        return true;
    }
    out->len = keep;
    return false;
}

void base_buf_put_ordered_i64(struct base_buf *buf, int64_t v)
{
    base_buf_put_be64(buf, (uint64_t)v ^ (1ULL << 63));
}

bool base_take_ordered_i64(struct base_bytes *in, int64_t *v)
{
    uint64_t raw;
    if (!base_take_be64(in, &raw))
        return false;
    *v = (int64_t)(raw ^ (1ULL << 63));
    return true;
}

void base_buf_put_ordered_double(struct base_buf *buf, double v)
{
    uint64_t bits;
    if (v != v) {
        base_buf_put_be64(buf, UINT64_MAX);
        return;
    }
    if (v == 0)
        v = 0.0; /* -0.0 ties 0.0 */
    memcpy(&bits, &v, 8);
    bits = bits >> 63 ? ~bits : bits | (1ULL << 63);
    base_buf_put_be64(buf, bits);
}

bool base_take_ordered_double(struct base_bytes *in, double *v)
{
    uint64_t bits;
    if (!base_take_be64(in, &bits))
        return false;
    if (bits == UINT64_MAX) {
        *v = __builtin_nan("");
        return true;
    }
    bits = bits >> 63 ? bits & ~(1ULL << 63) : ~bits;
    memcpy(v, &bits, 8);
    return true;
}

bool base_prefix_end(struct base_bytes prefix, struct base_buf *out)
{
    size_t len = prefix.len;
    while (len && prefix.data[len - 1] == 0xff)
        len--;
    if (!len)
        return false;
    base_buf_put(out, prefix.data, len);
    out->data[out->len - 1]++;
    return true;
}

uint32_t base_crc32c(uint32_t crc, const void *data, size_t len)
{
    /* ISA-L's crc32_iscsi leaves pre- and post-inversion to the caller. */
    const uint8_t *at = data;
    crc = ~crc;
    while (len > 0) {
        size_t part = len < (1u << 30) ? len : (1u << 30);
        crc = crc32_iscsi((unsigned char *)at, (int)part, crc);
        at += part;
        len -= part;
    }
    return ~crc;
}

uint64_t base_hash(const void *data, size_t len, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, len, seed);
}
