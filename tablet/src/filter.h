/* filter.h: google.bigtable.v2.RowFilter: a pure streaming evaluator over one row's cells. A
 * filter is a tree; a cell is pushed in at the top, each node passes it on (or not, or changed)
 * to what follows it. No function here may wait.
 *
 * Only `condition` must hold cells back (its predicate may be decided by the last one): at most
 * TAB_CONDITION_BYTES a row. */
#ifndef TAB_FILTER_H
#define TAB_FILTER_H

#include "google/bigtable/v2/data.pb-c.h"
#include "rowread.h"

enum {
    TAB_FILTER_BYTES_MAX = 20480,
    TAB_FILTER_DEPTH_MAX = 20,
    TAB_CONDITION_BYTES = 64 << 20,
    TAB_LABEL_MAX = 15
};

struct tab_out_cell {
    struct base_bytes family, qualifier, value, label; /* label empty: none */
    int64_t timestamp_us;
    uint32_t value_size; /* before stripping */
};
typedef void tab_out_fn(void *self, const struct tab_out_cell *cell);

struct tab_filter;
/* Checks and compiles; `filter` NULL passes everything. Lives in `arena` but holds regexes:
 * destroy it. INVALID_ARGUMENT and UNIMPLEMENTED name the culprit; `schema` (may be NULL):
 * NOT_FOUND for a column_range of a family that is not there. */
struct base_status tab_filter_compile(const Google__Bigtable__V2__RowFilter *filter,
                                      const struct tab_schema *schema, struct base_arena *arena,
                                      struct tab_filter **compiled) BASE_MUST_CHECK;
void tab_filter_destroy(struct tab_filter *filter);
/* What reading may skip for this filter. */
struct tab_read_hint tab_filter_hint(const struct tab_filter *filter);
/* The row's cells are pushed in order between begin and end; `out` is called for each that comes
 * through. `random`: for row_sample. begin returns false when no cell of the row can pass (the
 * row key decides). */
bool tab_filter_begin(struct tab_filter *filter, struct base_bytes row, uint64_t random,
                      tab_out_fn *out, void *self);
/* RESOURCE_EXHAUSTED when a condition would hold too much back. *done: no further cell can pass. */
struct base_status tab_filter_push(struct tab_filter *filter, const struct tab_cell_view *cell,
                                   bool *done) BASE_MUST_CHECK;
struct base_status tab_filter_end(struct tab_filter *filter) BASE_MUST_CHECK;

#endif
