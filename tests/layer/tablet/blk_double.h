/* blk_double.h: blockstore.h in memory, for tests of this layer: one store for all clients of
 * the process, with delays and faults, honouring fences, seals and the order of appends. Its
 * state outlives every client. A client whose node dies in an append leaves all, nothing or a
 * part of it. */
#ifndef TESTS_BLK_DOUBLE_H
#define TESTS_BLK_DOUBLE_H

#include "blockstore/blockstore.h"

struct blk_double_faults {
    ch_time delay_min, delay_max;
    uint32_t
        /* chances in 1000: an append fails, with any part of it written; the writer is broken */
        break_append;
    uint32_t fail_other; /* any other call fails with UNAVAILABLE before its effect */
    uint32_t fail_link;  /* the link that fails, counted from now; 0: none */
};
/* One at a time is current. */
void blk_double_new(void);
void blk_double_free(void);
void blk_double_faults(const struct blk_double_faults *faults);
struct blk_double_counts {
    uint64_t appends, append_bytes, reads, read_bytes, files, broken;
};
struct blk_double_counts blk_double_counts(void);
/* How many names start with a prefix. */
size_t blk_double_names(const char *prefix);

#endif
