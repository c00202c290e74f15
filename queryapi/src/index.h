/* index.h: composite index definitions as values: from and to messages, from index.yaml, and as
 * the stanza a query that lacks one is told. Pure. */
#ifndef QUERYAPI_INDEX_H
#define QUERYAPI_INDEX_H

#include "base/arena.h"
#include "base/bytes.h"
#include "strata/queryapi/v1/indexes.pb-c.h"

typedef Strata__Queryapi__V1__Index qry_index_proto;

struct qry_index_property {
    struct base_bytes name;
    bool descending;
};
struct qry_index {
    uint64_t id; /* 0: not stored yet */
    struct base_bytes kind;
    bool ancestor;
    struct qry_index_property *properties; /* without __key__ */
    size_t property_count;
    bool key_descending; /* as the last property, unless __key__ is given */
    bool ready;
    uint64_t ready_at; /* entries are complete in snapshots at and after */
};

/* The same entries: everything but id and state is equal. */
bool qry_index_same(const struct qry_index *a, const struct qry_index *b);
/* Borrows from the message. INVALID_ARGUMENT names what is wrong. */
struct base_status qry_index_of_proto(const qry_index_proto *in, struct base_arena *arena,
                                      struct qry_index *out) BASE_MUST_CHECK;
qry_index_proto *qry_index_to_proto(const struct qry_index *in, struct base_arena *arena);
/* "- kind: City\n  properties:\n  - name: country\n …", without an end of line after the last. */
void qry_index_put_stanza(struct base_buf *out, const struct qry_index *index);
/* All indexes of an index.yaml, in its order, each once. INVALID_ARGUMENT names the line. */
struct base_status qry_index_parse_yaml(struct base_bytes yaml, struct base_arena *arena,
                                        struct qry_index **indexes, size_t *count) BASE_MUST_CHECK;

#endif
