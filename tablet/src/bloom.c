/* bloom.c: see bloom.h. Layout: the bits, then one byte: how many probes. */
#include "bloom.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { BITS_PER_ROW = 10, PROBES = 7, BITS_MIN = 64 };

uint64_t tab_bloom_hash(struct base_bytes row)
{
    BASE_ASSERT(row.data || row.len == 0);
    return XXH64(row.data, row.len, 0);
}

void tab_bloom_build(const uint64_t *hashes, size_t count, struct base_buf *out)
{
    size_t bytes = (count * BITS_PER_ROW < BITS_MIN ? BITS_MIN : count * BITS_PER_ROW) / 8 + 1;
    uint8_t *bits = base_buf_extend(out, bytes + 1);
    memset(bits, 0, bytes);
    bits[bytes] = PROBES;
    for (size_t i = 0; i < count; i++) {
        uint64_t hash = hashes[i], step = hash >> 33 | hash << 31;
        for (int probe = 0; probe < PROBES; probe++, hash += step)
            bits[hash % (bytes * 8) / 8] |= (uint8_t)(1u << (hash % (bytes * 8) % 8));
    }
}

bool tab_bloom_may_hold(struct base_bytes filter, uint64_t hash)
{
    if (filter.len < 2)
        return true;
    size_t bits = (filter.len - 1) * 8;
    uint64_t step = hash >> 33 | hash << 31;
    for (int probe = 0; probe < filter.data[filter.len - 1]; probe++, hash += step)
        if (!(filter.data[hash % bits / 8] & 1u << (hash % bits % 8)))
            return false;
    return true;
}
