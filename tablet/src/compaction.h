/* compaction.h: which files to merge: a pure function of their sizes (size-tiered; Bigtable
 * 5.4). */
#ifndef TAB_COMPACTION_H
#define TAB_COMPACTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tab_pick_file {
    uint64_t bytes, entries, deletions;
};
struct tab_pick {
    size_t count; /* 0: nothing to do */
    bool major;   /* all files: deletions go too */
};
enum {
    TAB_PICK_RUN = 4,
    TAB_PICK_RUN_MAX = 16,
    TAB_PICK_FILES_MAX = 12,
    TAB_PICK_SMALL_BYTES = 1 << 20
};
/* Fills `picked` (indexes, ascending) with what to merge.
 * 1. `want_major`, or deletions above a quarter of all entries: all files.
 * 2. At least TAB_PICK_RUN files of like size (each at most twice the average of the smaller
 *    ones; below TAB_PICK_SMALL_BYTES all are alike): the smallest such run, at most
 *    TAB_PICK_RUN_MAX.
 * 3. More than TAB_PICK_FILES_MAX files: the smallest ones, so that the count falls to it.
 * A file is rewritten about log2(total / memtable) times. */
struct tab_pick tab_compaction_pick(const struct tab_pick_file *files, size_t count,
                                    bool want_major, size_t *picked);

#endif
