/* durable.h: how much of a block that is being written a reader may show. Pure. */
#ifndef BLK_DURABLE_H
#define BLK_DURABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct blk__durable {
    uint64_t low;  /* these bytes are on a quorum: they never go away */
    uint64_t high; /* no byte from here on was acknowledged before the question; UINT64_MAX: cannot
                      be told */
};

/* `lengths`: of the replicas that answered, all with durable lengths they are sure of (sorted
 * here); `replicas`: how many the block has; `committed`: the most any of them was told by the
 * writer. low >= high: the length is exactly known. */
struct blk__durable blk__durable_length(uint64_t *lengths, size_t answered, size_t replicas,
                                        size_t quorum, uint64_t committed);

#endif
