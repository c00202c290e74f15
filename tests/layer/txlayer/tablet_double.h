/* tablet_double.h: a google.bigtable.v2-behaving store in memory behind the functions of
 * tablet/tablet.h, with injected delays and failures: lost before the effect, lost after it, an
 * effect that comes late, reads that end half way. Its state outlives every client. Linked in
 * tests in place of the tablet client. One at a time is current. */
#ifndef TESTS_TABLET_DOUBLE_H
#define TESTS_TABLET_DOUBLE_H

#include "tablet/tablet.h"

struct tablet_double_faults {
    ch_time delay_min, delay_max;                      /* each way */
    uint32_t lose_before, lose_after, late, cut_reads; /* chances in 1000 */
    ch_time late_max;
};

struct tablet_double;
/* `world`: an env whose fibers carry late effects; it outlives every client. */
struct tablet_double *tablet_double_new(struct ch_env *world);
void tablet_double_free(struct tablet_double *tablet) CH_WAITS;
void tablet_double_faults(struct tablet_double *tablet, const struct tablet_double_faults *faults);
/* Calls of clients whose env's node is `node` hang until their deadline. */
void tablet_double_cut(struct tablet_double *tablet, const void *node, bool cut);

struct tablet_double_counts {
    uint64_t check_and_mutate, mutate_rows, mutations, reads, rows_read, lates, refused;
};
struct tablet_double_counts tablet_double_counts(const struct tablet_double *tablet);
/* Rows of a table, by the last part of its name; cells of one row. */
size_t tablet_double_rows(const struct tablet_double *tablet, const char *table);
size_t tablet_double_cells(const struct tablet_double *tablet, const char *table,
                           struct base_bytes row);

#endif
