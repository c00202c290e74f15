/* base/codec.h: integers and byte strings as bytes. Three families: fixed little-endian and varint
 * for our own formats; "ordered" ones whose memcmp order is the order of the values, for keys.
 * Readers take a cursor that a failed read leaves where it was. No function here may wait. */
#ifndef BASE_CODEC_H
#define BASE_CODEC_H

#include "base/bytes.h"

static inline void base_put_le32(uint8_t *at, uint32_t v)
{
    memcpy(at, &v, 4);
}
static inline void base_put_le64(uint8_t *at, uint64_t v)
{
    memcpy(at, &v, 8);
}
static inline uint32_t base_get_le32(const uint8_t *at)
{
    uint32_t v;
    memcpy(&v, at, 4);
    return v;
}
static inline uint64_t base_get_le64(const uint8_t *at)
{
    uint64_t v;
    memcpy(&v, at, 8);
    return v;
}
static inline void base_put_be64(uint8_t *at, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(at, &v, 8);
}
static inline uint64_t base_get_be64(const uint8_t *at)
{
    uint64_t v;
    memcpy(&v, at, 8);
    return __builtin_bswap64(v);
}

void base_buf_put_le32(struct base_buf *buf, uint32_t v);
void base_buf_put_le64(struct base_buf *buf, uint64_t v);
void base_buf_put_be64(struct base_buf *buf, uint64_t v);
void base_buf_put_varint(struct base_buf *buf, uint64_t v);
void base_buf_put_lenbytes(struct base_buf *buf,
                           struct base_bytes bytes); /* varint length, then the bytes */

/* Reading: `in` is advanced on success and untouched on failure (too short, or a varint over 64
 * bits). */
bool base_take_le32(struct base_bytes *in, uint32_t *v) BASE_MUST_CHECK;
bool base_take_le64(struct base_bytes *in, uint64_t *v) BASE_MUST_CHECK;
bool base_take_be64(struct base_bytes *in, uint64_t *v) BASE_MUST_CHECK;
bool base_take_varint(struct base_bytes *in, uint64_t *v) BASE_MUST_CHECK;
bool base_take_bytes(struct base_bytes *in, size_t len, struct base_bytes *out) BASE_MUST_CHECK;
bool base_take_lenbytes(struct base_bytes *in, struct base_bytes *out) BASE_MUST_CHECK;

/* Ordered byte strings: 00 becomes 00 FF, the end is 00 01, so "a" < "a\0" < "ab" whatever follows.
 * The reader appends the decoded string to `out`. */
void base_buf_put_ordered(struct base_buf *buf, struct base_bytes bytes);
bool base_take_ordered(struct base_bytes *in, struct base_buf *out) BASE_MUST_CHECK;
/* Ordered signed integer (sign bit flipped, big-endian) and double (-inf … -0.0 = 0.0 … +inf <
 * NaN). 8 bytes each. */
void base_buf_put_ordered_i64(struct base_buf *buf, int64_t v);
bool base_take_ordered_i64(struct base_bytes *in, int64_t *v) BASE_MUST_CHECK;
void base_buf_put_ordered_double(struct base_buf *buf, double v);
bool base_take_ordered_double(struct base_bytes *in, double *v) BASE_MUST_CHECK;

/* The least byte string greater than every string that starts with `prefix`, appended to `out`;
 * false (nothing appended) when there is none (prefix empty or all FF). */
bool base_prefix_end(struct base_bytes prefix, struct base_buf *out) BASE_MUST_CHECK;

/* CRC-32C (Castagnoli), by ISA-L. `crc` is 0 to begin, or what an earlier call returned. */
uint32_t base_crc32c(uint32_t crc, const void *data, size_t len);
/* 64-bit hash (XXH3); not for anything that is kept on disk. */
uint64_t base_hash(const void *data, size_t len, uint64_t seed);

#endif
