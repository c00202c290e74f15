/* scan.h: carrying out a plan: one suffix (plan.h) after the other, each a result, page by page at
 * one snapshot. */
#ifndef QUERYAPI_SCAN_H
#define QUERYAPI_SCAN_H

#include "cursor.h"
#include "reads.h"

struct qry_stream;
struct qry_walk {
    struct qry_request *request;
    struct qry_read *read;
    const struct qry_query *query;
    struct qry_plan *plan;
    struct qry_stream *streams;
    struct base_buf target; /* where to go on: at this suffix, or after it */
    bool has_target, after_target;
    bool ended;
    size_t steps;
    size_t page; /* rows to ask for at first; 0: as many as fit */
};

/* Applies the query's cursors to the plan's range. Close it in any case when this succeeded. */
struct base_status qry_walk_open(struct qry_walk *walk, struct qry_request *request,
                                 struct qry_read *read, const struct qry_query *query,
                                 struct qry_plan *plan, size_t page) BASE_MUST_CHECK;
void qry_walk_close(struct qry_walk *walk);
/* The next result's suffix, valid until the next call; *found false: there is none. */
struct base_status qry_walk_next(struct qry_walk *walk, struct base_bytes *suffix,
                                 bool *found) CH_WAITS BASE_MUST_CHECK;
/* True when it is known that there is no further row. */
bool qry_walk_at_end(const struct qry_walk *walk);

/* Opens what a query needs: reads definitions, plans (again with fresh definitions before an index
 * is said to be missing). */
struct base_status qry_plan_for(struct qry_request *request, const struct qry_read *read,
                                const struct qry_query *query,
                                struct qry_plan *plan) CH_WAITS BASE_MUST_CHECK;

#endif
