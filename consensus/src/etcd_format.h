/* etcd_format.h: what a log keeps in etcd, as keys and values. Pure; nothing here waits.
 *
 * Below /strata[/PREFIX]/GROUP/:
 * | key | value | goes |
 * |---|---|---|
 * | candidate/<id, 16 hex digits> | the member's target | with the member's lease |
 * | leader | id (16 hex digits), space, target | with the leader's lease; made anew = a new term |
 * | leader.next | id of who was asked to lead next | when somebody leads |
 * | log/<first index, 20 digits> | a batch | when a snapshot covers it |
 * | manifest | of the newest snapshot | never |
 * | snapshot/<index, 20 digits>/<number, 6 digits> | a piece of the state | with a newer snapshot |
 *
 * Batch: CRC-32C of the rest (4, little-endian), 1 (format), then varints: term (the leader key's
 * create_revision), first index, count; then each command: varint length, bytes.
 * Manifest: CRC-32C of the rest, 1, then varints: index, bytes of state, pieces; CRC-32C of the
 * state (4). */
#ifndef CON_ETCD_FORMAT_H
#define CON_ETCD_FORMAT_H

#include "base/bytes.h"
#include "consensus/entry.h"

enum { CON_ETCD_KEY_MAX = 320, CON_ETCD_PIECE_BYTES = 512 << 10 };

struct con_etcd_keys {
    char candidate[CON_ETCD_KEY_MAX]; /* with the slash, as are log and snapshot */
    char leader[CON_ETCD_KEY_MAX];
    char next[CON_ETCD_KEY_MAX];
    char log[CON_ETCD_KEY_MAX];
    char manifest[CON_ETCD_KEY_MAX];
    char snapshot[CON_ETCD_KEY_MAX];
};
void con__etcd_keys(struct con_etcd_keys *keys, const char *prefix, const char *group);
/* All keys that begin with `key`, which ends in a slash: [key, that). */
const char *con__etcd_below(struct base_arena *arena, const char *key);
const char *con__etcd_log_key(struct base_arena *arena, const struct con_etcd_keys *keys,
                              uint64_t first);
const char *con__etcd_piece_key(struct base_arena *arena, const struct con_etcd_keys *keys,
                                uint64_t index, uint64_t number);

struct con_etcd_batch {
    uint64_t term, first;
    uint32_t count;
    struct base_bytes commands; /* count times: varint length, bytes */
};
void con__etcd_batch_encode(const struct con_etcd_batch *batch, struct base_buf *out);
/* `commands` borrows of `value`. DATA_LOSS says what is wrong. Checks every length. */
struct base_status con__etcd_batch_decode(struct base_bytes value,
                                          struct con_etcd_batch *batch) BASE_MUST_CHECK;

struct con_etcd_manifest {
    uint64_t index, bytes, pieces;
    uint32_t crc; /* of the state */
};
void con__etcd_manifest_encode(const struct con_etcd_manifest *manifest, struct base_buf *out);
struct base_status con__etcd_manifest_decode(struct base_bytes value,
                                             struct con_etcd_manifest *manifest) BASE_MUST_CHECK;

/* "<id> <target>"; false when it is none. */
bool con__etcd_leader_decode(struct base_bytes value, uint64_t *id,
                             char target[CON_ADDRESS_MAX]) BASE_MUST_CHECK;

#endif
