/* transform.h: property transforms of a mutation: changes that depend on the value at the server.
 * Pure. */
#ifndef QUERYAPI_TRANSFORM_H
#define QUERYAPI_TRANSFORM_H

#include "check.h"

/* Checks operands (in place), without an entity. */
struct base_status qry_transforms_check(const struct qry_scope *scope, qry_transform **transforms,
                                        size_t count, struct base_arena *arena) BASE_MUST_CHECK;
/* Applies all, in order, to `entity` (the caller's own copy); results[i] is what the i-th left
 * behind (null for those of arrays). `now_us`: the request's time. */
struct base_status qry_transforms_apply(qry_transform **transforms, size_t count, uint64_t now_us,
                                        qry_entity *entity, struct base_arena *arena,
                                        qry_value **results) BASE_MUST_CHECK;

#endif
