/* rows.h: how entities and index entries are named as rows of the txlayer: order-preserving
 * encodings.
 *
 * A database's row keys (txlayer's order is memcmp's), `ns` and strings in the ordered form of
 * base/codec.h (ended by 00 01):
 *
 *   'E' ns path                            the entity itself (value: stored.h)
 *   'K' ns kind path                       built-in: entities of a kind in key order
 *   'P' ns kind property value path        built-in: one row a distinct indexed value
 *   'C' index-id ns component… path        an entry of a composite index; index-id is 8 bytes,
 *                                          big-endian
 *   'C' index-id ns ancestor component… path
 *                                          the same of an ancestor index; the ancestor is ended
 *   'M' 'V', 'M' 'X' index-id              the version of the index definitions, and these
 *
 * In a composite index that is descending in keys (by default: as its last component) the path is
 * ended and complemented.
 *
 * The value of a 'P' or 'C' row is empty unless the entity has several values of a component's
 * property: then it tells the neighbours (entries.h), so that a scan can return the entity once
 * without remembering what it has seen.
 *
 * path: for each element the kind (ordered), then 01 and an 8-byte ordered integer id, or 02 and
 * the ordered name. An element is self-delimiting and begins with a byte > 00 or with 00 FF (a
 * kind is never empty). So an ancestor's encoding, which has no end, is a prefix of exactly its
 * descendants' and its own; and where something follows, or where the path is complemented for
 * descending order, it is ended by 00 00, which sorts before every further element.
 *
 * value: one tag byte (the public type order: null < integer, timestamp < boolean < string, blob <
 * double < geo point < key) and its ordered form; self-delimiting, so a descending component is
 * simply its bitwise complement. */
#ifndef QUERYAPI_ROWS_H
#define QUERYAPI_ROWS_H

#include "base/codec.h"
#include "ds.h"

enum qry_row_space {
    QRY_ROWS_ENTITY = 'E',
    QRY_ROWS_KIND = 'K',
    QRY_ROWS_PROPERTY = 'P',
    QRY_ROWS_COMPOSITE = 'C',
    QRY_ROWS_META = 'M'
};

/* ---- paths ---- */
/* Appends a complete path's encoding, all its elements, without an end. */
void qry_put_path(struct base_buf *out, const qry_key *key);
/* The inverse: takes elements until `in` is empty, and makes a key with `partition` (borrowed) in
 * `arena`. False: not a path. */
bool qry_take_path(struct base_bytes in, const Google__Datastore__V1__PartitionId *partition,
                   struct base_arena *arena, qry_key **key) BASE_MUST_CHECK;
/* Ends a path: 00 00. */
void qry_put_path_end(struct base_buf *out);
/* Bytes of the first element of an encoded path; 0: not a path. */
size_t qry_path_root_len(struct base_bytes path);
/* The namespace of a key; empty: the default one. */
struct base_bytes qry_name_space_of(const qry_key *key);
/* The group a key belongs to: namespace and root element, as bytes. */
void qry_put_group(struct base_buf *out, const qry_key *key);
/* The same from an encoded path, which must be one. */
void qry_put_group_of_path(struct base_buf *out, struct base_bytes name_space,
                           struct base_bytes path);

/* ---- values ---- */
/* Appends the ordered form of an indexable value. Entity and array values have none: asserts.
 * Timestamps are microseconds; strings and blobs interleave by bytes; a key value carries its
 * partition's namespace and path, ended. */
void qry_put_value(struct base_buf *out, const qry_value *value);
/* The same, complemented: sorts the other way round. */
void qry_put_value_descending(struct base_buf *out, const qry_value *value);
/* Appends `plain` complemented. */
void qry_put_flipped(struct base_buf *out, struct base_bytes plain);
/* Takes one encoded value off the front of `in` (which direction is known from the index),
 * appending the ascending form to `plain`; for finding where a row's components end. */
bool qry_take_value(struct base_bytes *in, bool descending, struct base_buf *plain) BASE_MUST_CHECK;
/* A value from its ascending form, as projection returns it: timestamps as integers, strings and
 * blobs told apart by UTF-8. */
bool qry_value_decode(struct base_bytes plain, struct base_arena *arena,
                      qry_value **value) BASE_MUST_CHECK;

/* ---- row keys ---- */
void qry_put_entity_row(struct base_buf *out, const qry_key *key);
/* Prefix of all rows of a space and namespace: 'E' ns, 'K' ns kind, 'P' ns kind property. */
void qry_put_space(struct base_buf *out, enum qry_row_space space, struct base_bytes name_space);
void qry_put_kind_prefix(struct base_buf *out, struct base_bytes name_space,
                         struct base_bytes kind);
void qry_put_property_prefix(struct base_buf *out, struct base_bytes name_space,
                             struct base_bytes kind, struct base_bytes property);
void qry_put_composite_prefix(struct base_buf *out, uint64_t index_id,
                              struct base_bytes name_space);

#endif
