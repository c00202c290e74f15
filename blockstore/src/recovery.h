/* recovery.h: where a file ends whose writer is gone. Pure; the proof is in README.md, "Why the
 * length is right". */
#ifndef BLK_RECOVERY_H
#define BLK_RECOVERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One unsealed block, in the file's order, after enough of its replicas were fenced. */
struct blk__tail_block {
    bool has_start;  /* some replica has bytes: it knows where the block begins. Always set for the
                        first */
    uint64_t start;  /* in the file */
    uint64_t most;   /* the longest replica that answered; 0 without has_start */
    uint64_t length; /* out: what of it is part of the file; 0: nothing */
};

/* Fills in the lengths. False when the blocks do not join (an invariant is broken, or replicas
 * lied): then nothing may be sealed. */
bool blk__recovery_plan(struct blk__tail_block *blocks, size_t count);

#endif
