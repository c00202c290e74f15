/* check.h: what a client sends is checked completely, and completed (partition ids filled in,
 * timestamps cut to microseconds), before anything is read or written. Pure; messages are changed
 * in place. Every refusal is INVALID_ARGUMENT and names the culprit. */
#ifndef QUERYAPI_CHECK_H
#define QUERYAPI_CHECK_H

#include "ds.h"

/* Whose data a request is about; borrowed. */
struct qry_scope {
    struct base_bytes project, database;
};
struct base_status qry_check_scope(const struct qry_scope *scope) BASE_MUST_CHECK;
/* A partition id (NULL: all empty) against the scope; *out is a filled in copy. */
struct base_status qry_check_partition(const struct qry_scope *scope, const qry_partition *in,
                                       struct base_arena *arena,
                                       qry_partition **out) BASE_MUST_CHECK;

enum qry_completeness { QRY_COMPLETE, QRY_INCOMPLETE_OK, QRY_INCOMPLETE_ONLY };
struct base_status qry_check_key(const struct qry_scope *scope, qry_key *key,
                                 enum qry_completeness completeness,
                                 struct base_arena *arena) BASE_MUST_CHECK;
bool qry_key_is_incomplete(const qry_key *key);
/* An entity to be written: its key may be incomplete. */
struct base_status qry_check_entity(const struct qry_scope *scope, qry_entity *entity,
                                    struct base_arena *arena) BASE_MUST_CHECK;
/* The size limit, apart, for what came about by masks and transforms. */
struct base_status qry_check_entity_size(const qry_entity *entity) BASE_MUST_CHECK;
/* One value of property `name`, alone (a transform's operand, a filter's value). */
struct base_status qry_check_value(const struct qry_scope *scope, struct base_bytes name,
                                   qry_value *value, struct base_arena *arena) BASE_MUST_CHECK;
/* "[Country: \"AU\", City: 5]" */
const char *qry_key_show(struct base_arena *arena, const qry_key *key);

int64_t qry_time_us(const qry_time *time);
qry_time *qry_time_of(struct base_arena *arena, uint64_t us);

#endif
