/* query.h: a query, checked and in normal form: what the planner works on. Pure.
 *
 * Normal form: filters are equalities (sorted, each once), at most one property with bounds, at
 * most one ancestor; orders hold no property that an equality fixes, begin with the bounded
 * property, and end before __key__, whose direction is apart: as said, else that of the last
 * order. Values and paths are encoded (rows.h). */
#ifndef QUERYAPI_QUERY_H
#define QUERYAPI_QUERY_H

#include "check.h"

struct qry_equal {
    struct base_bytes property, value;
};
struct qry_bound {
    bool set, inclusive;
    struct base_bytes value; /* encoded value, or path when the bounded property is __key__ */
};
struct qry_order {
    struct base_bytes property;
    bool descending;
};
struct qry_query {
    const qry_partition *partition; /* filled in */
    struct base_bytes name_space;
    struct base_bytes kind;     /* empty: any */
    struct base_bytes ancestor; /* path, or empty */
    struct qry_equal *equals;
    size_t equal_count;
    struct base_bytes bounded; /* property with an inequality, "__key__", or empty */
    struct qry_bound lower, upper;
    struct qry_order *orders;
    size_t order_count;
    bool key_descending;
    bool keys_only;
    int32_t offset, limit;                      /* limit -1: none */
    struct base_bytes start_cursor, end_cursor; /* as sent, or empty */
    uint64_t shape; /* hash of all that decides which results in which order */
};

static inline bool qry_bounded_by_key(const struct qry_query *query)
{
    return query->bounded.len > 0 && query->order_count == 0;
}

/* INVALID_ARGUMENT names what is wrong, UNIMPLEMENTED what is not served. */
struct base_status qry_query_make(const struct qry_scope *scope, const qry_partition *partition,
                                  const qry_query_proto *in, struct base_arena *arena,
                                  struct qry_query *out) BASE_MUST_CHECK;

#endif
