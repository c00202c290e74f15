/* plan.h: how a query is answered: a pure function of the query and the composite indexes that are
 * ready.
 *
 * A plan is one or more scans of index ranges that all end in the same suffix: the components that
 * order the results, then the path. With one scan its rows are the results; with several, the
 * results are the suffixes that all scans hold (a zig-zag: each skips to what another has).
 * Invariants:
 * 1. Every row of a scan's range satisfies all the filters that the scan covers; together they
 * cover all. Nothing is filtered or
 *    sorted afterwards.
 * 2. All scans order by the query's orders, or all by their reverse.
 * 3. When no indexes do, the plan is none, and says which one index would. */
#ifndef QUERYAPI_PLAN_H
#define QUERYAPI_PLAN_H

#include "index.h"
#include "query.h"

enum { QRY_SCANS_MAX = 100 };

struct qry_scan {
    struct base_bytes prefix; /* of all rows of the scan */
};
struct qry_plan {
    struct qry_scan scans[QRY_SCANS_MAX];
    size_t scan_count;
    size_t component_count;  /* that lead the suffix: the query's orders */
    bool *stored_descending; /* of each */
    bool key_stored_descending;
    bool reverse;                   /* rows are read from the last to the first */
    struct base_bytes lower, upper; /* of the suffix: lower <= suffix < upper */
    bool unbounded;                 /* no upper */
    bool keys_decide;               /* rows' values tell nothing: no components */
};

/* Composite indexes count as ready in a snapshot at `timestamp` (0: now). FAILED_PRECONDITION with
 * the missing index. */
struct base_status qry_plan_make(const struct qry_query *query, const struct qry_index *indexes,
                                 size_t index_count, uint64_t timestamp, struct base_arena *arena,
                                 struct qry_plan *plan) BASE_MUST_CHECK;

/* A position: the order components in ascending form and the path, as cursors keep it, and the
 * suffix that plans have. */
void qry_position_to_suffix(const struct qry_plan *plan, struct base_bytes components,
                            struct base_bytes path, struct base_buf *suffix);
/* The inverse: `components` is appended to, `path` written to a buffer too. False: no such suffix.
 */
bool qry_suffix_to_position(const struct qry_plan *plan, struct base_bytes suffix,
                            struct base_buf *components, struct base_buf *path) BASE_MUST_CHECK;
/* Whether a row is its entity's first in the plan's order and range: rows of entities with several
 * values of a component are many, and each entity is one result. */
bool qry_row_is_first(const struct qry_query *query, const struct qry_plan *plan,
                      struct base_bytes row_value) BASE_MUST_CHECK;

#endif
