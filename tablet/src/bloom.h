/* bloom.h: which rows a file may hold: a Bloom filter over encoded row keys, one for the whole
 * file (LevelDB's own is one for each block and cannot be asked for a row). 10 bits a row: about
 * 1% false yes, never a false no. The hash is XXH64, so the bytes mean the same everywhere and
 * always. No function here may wait. */
#ifndef TAB_BLOOM_H
#define TAB_BLOOM_H

#include "base/bytes.h"

uint64_t tab_bloom_hash(struct base_bytes row);
/* Appends the filter of these rows. */
void tab_bloom_build(const uint64_t *hashes, size_t count, struct base_buf *out);
bool tab_bloom_may_hold(struct base_bytes filter,
                        uint64_t hash); /* an empty filter may hold anything */

#endif
