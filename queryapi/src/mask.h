/* mask.h: property paths ("a.b", a backslash before what is meant literally) and masks: reading
 * and writing parts of an entity. Pure; results share values with what they are made of. */
#ifndef QUERYAPI_MASK_H
#define QUERYAPI_MASK_H

#include "ds.h"

struct qry_path {
    struct base_bytes *names;
    size_t count;
};
/* INVALID_ARGUMENT names the path. */
struct base_status qry_path_parse(struct base_bytes text, struct base_arena *arena,
                                  struct qry_path *path) BASE_MUST_CHECK;
/* NULL: there is none. */
qry_value *qry_path_get(const struct qry_path *path, const qry_entity *entity);
/* Both change `entity` (the caller's own copy) down the path; set makes entities on its way,
 * remove leaves them. */
void qry_path_set(const struct qry_path *path, qry_entity *entity, qry_value *value,
                  struct base_arena *arena);
void qry_path_remove(const struct qry_path *path, qry_entity *entity);

/* A new entity with the key, and the properties of the mask, of `in`. */
struct base_status qry_mask_select(const qry_mask *mask, const qry_entity *in,
                                   struct base_arena *arena, qry_entity **out) BASE_MUST_CHECK;
/* `old` (may be NULL) with the masked properties as they are in `new`. */
struct base_status qry_mask_merge(const qry_mask *mask, const qry_entity *old,
                                  const qry_entity *new, struct base_arena *arena,
                                  qry_entity **out) BASE_MUST_CHECK;

#endif
