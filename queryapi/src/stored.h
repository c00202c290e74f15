/* stored.h: the value of an entity's row.
 *
 *   01                    format
 *   varint created        microseconds; 0: by the commit that wrote this row
 *   varint length, bytes  the serialized google.datastore.v1.Entity, whole, with its key
 *
 * The row's own timestamp is that of the entity's last change: its version and update time. The
 * length lies right before the bytes, so that they can be sent as a field of a reply as they are,
 * neither decoded nor copied more than once. */
#ifndef QUERYAPI_STORED_H
#define QUERYAPI_STORED_H

#include "base/codec.h"
#include "ds.h"
#include "txlayer/txlayer.h"

struct qry_stored {
    bool found;
    uint64_t version,
        created; /* version of a missing one: of its deletion when that is known, else 0 */
    struct base_bytes entity; /* serialized */
    struct base_bytes field;  /* the same with its length in front */
};
/* DATA_LOSS when the row is none of the above. Borrows from `value`. */
struct base_status qry_stored_decode(const struct txn_value *value,
                                     struct qry_stored *out) BASE_MUST_CHECK;
/* In `arena`. created 0: by this commit. */
struct base_bytes qry_stored_encode(uint64_t created, const qry_entity *entity,
                                    struct base_arena *arena);
struct base_status qry_stored_entity(const struct qry_stored *stored, struct base_arena *arena,
                                     qry_entity **entity) BASE_MUST_CHECK;

/* A result for a reply: the entity as stored (raw, without decoding) or cut by `mask`, or, when
 * missing, its key. */
struct base_status qry_result_full(const struct qry_stored *stored, const qry_mask *mask,
                                   struct base_arena *arena, qry_result **result) BASE_MUST_CHECK;

#endif
