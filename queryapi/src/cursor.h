/* cursor.h: a place in a query's results, as clients keep it. Independent of the plan and of what
 * lies at the place.
 *
 *   43 01              'C', format
 *   shape (8)          of the query (query.h): a cursor of another one is refused
 *   00 | 01            before all results | after the result that follows:
 *   component…, path   its order components in ascending form, its path */
#ifndef QUERYAPI_CURSOR_H
#define QUERYAPI_CURSOR_H

#include "plan.h"

struct qry_cursor {
    bool after; /* a result; else the very beginning */
    struct base_bytes components, path;
};
struct base_bytes qry_cursor_encode(const struct qry_query *query, const struct qry_cursor *cursor,
                                    struct base_arena *arena);
/* Borrows from `bytes`. INVALID_ARGUMENT when it is no cursor, or one of another query. */
struct base_status qry_cursor_decode(const struct qry_query *query, struct base_bytes bytes,
                                     struct qry_cursor *cursor) BASE_MUST_CHECK;

#endif
