/* durable.c: how much of a block that is being written a reader may show.
 *
 * 1. A byte that `quorum` replicas have survives: recovery asks so many that one of them answers,
 * and keeps the longest. So low is the quorum-th greatest length among those that answered (the
 * missing ones count as empty).
 * 2. A byte acknowledged before the question was on `quorum` replicas before it. So high is the
 * quorum-th greatest length when the missing ones are taken to have everything.
 * 3. What the writer says it has acknowledged was on a quorum. */
#include "durable.h"

#include <stdlib.h>

static int descending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

struct blk__durable blk__durable_length(uint64_t *lengths, size_t answered, size_t replicas,
                                        size_t quorum, uint64_t committed)
{
    size_t missing = replicas - answered;
    qsort(lengths, answered, sizeof *lengths, descending);
    struct blk__durable d = { 0, UINT64_MAX };
    if (answered >= quorum)
        d.low = lengths[quorum - 1];
    if (quorum > missing && answered >= quorum - missing)
        d.high = lengths[quorum - missing - 1];
    if (committed > d.low)
        d.low = committed;
    return d;
}
