/* recovery.c: where a file ends whose writer is gone.
 *
 * Invariants (the writer's side is in writer.c):
 * 1. Within one epoch a file offset has one byte for ever: whatever block a replica shows it in, it
 * is the same byte.
 * 2. A block's start is at most what was acknowledged of the file when the block was begun, and at
 * least the start of the one before it; so it is at most (start + most) of the one before it, as
 * enough replicas of that one were asked.
 * 3. So the file may end at the greatest (start + most), and that covers every acknowledged byte.
 */
#include "recovery.h"

bool blk__recovery_plan(struct blk__tail_block *blocks, size_t count)
{
    if (count == 0)
        return true;
    uint64_t begin = blocks[0].start, end = begin;
    for (size_t i = 0; i < count; i++) {
        blocks[i].length = 0;
        if (blocks[i].has_start && blocks[i].most > 0 && blocks[i].start + blocks[i].most > end)
            end = blocks[i].start + blocks[i].most;
    }
    /* Backwards from the end: the latest block that reaches the cut gives the bytes before it. */
    uint64_t cut = end;
    for (size_t i = count; i-- > 0 && cut > begin;) {
        struct blk__tail_block *b = &blocks[i];
        if (!b->has_start || b->start >= cut || b->start < begin || b->start + b->most < cut)
            continue;
        b->length = cut - b->start;
        cut = b->start;
    }
    return cut == begin;
}
