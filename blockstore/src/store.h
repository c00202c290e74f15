/* store.h: the replicas on one blockserver's disk: accepting, keeping, reading and giving up bytes.
 * No RPC in here.
 *
 * Data lives in <dir>/blocks/<id>.open while it may grow, in <dir>/blocks/<id>.blk when sealed
 * (format: block_file.h), and in the journal before that. Functions that may wait say so; statuses
 * are those the RPCs of BlockServer promise. */
#ifndef BLK_STORE_H
#define BLK_STORE_H

#include "chassis/env.h"

struct blk__store;

/* Makes a folder, and its name durable. */
struct base_status blk__dir_make_durable(struct ch_env *env,
                                         const char *path) CH_WAITS BASE_MUST_CHECK;

struct blk__store_options {
    const char *dir;
    uint64_t segment_bytes; /* of the journal */
    uint32_t segments;
    uint64_t unwritten_bytes_max; /* accepted and not yet in a block file: in memory */
    uint64_t direct_bytes; /* an append of so many goes straight to the block file; 0: none */
    uint64_t space_reserve_bytes; /* left free on the disk */
};
struct base_status blk__store_open(struct ch_env *env, const struct blk__store_options *options,
                                   struct blk__store **store) CH_WAITS BASE_MUST_CHECK;
/* No call may be inside. Everything accepted is in the journal. */
void blk__store_close(struct blk__store *store) CH_WAITS;

/* A copy of what is known of a replica. */
struct blk__replica_info {
    uint64_t block, epoch, start, length, committed, generation;
    uint64_t short_of; /* a seal it could not do */
    bool fenced, sealed, bad, doubtful;
};
bool blk__store_info(const struct blk__store *store, uint64_t block,
                     struct blk__replica_info *info);

/* ---- writing ---- */
struct blk__append_args {
    uint64_t block, epoch, start, offset;
    struct base_bytes data; /* copied */
    uint32_t crc;           /* CRC-32C of data, checked */
    bool fill;              /* by a recovery under the replica's fence: allowed although fenced */
};
/* `durable(arg, end)`: it is on stable storage, the replica's length is `end` or more; end 0: the
 * disk failed. In order; may not wait. Not called when the append is refused (a failed status):
 * then nothing has changed. */
typedef void blk__durable_fn(void *arg, uint64_t end);
struct base_status blk__store_append(struct blk__store *store, const struct blk__append_args *args,
                                     blk__durable_fn *durable, void *arg) BASE_MUST_CHECK;
/* Waits until there is memory for more. */
struct base_status blk__store_room(struct blk__store *store, size_t bytes,
                                   ch_time deadline) CH_WAITS BASE_MUST_CHECK;
void blk__store_committed(struct blk__store *store, uint64_t block, uint64_t epoch,
                          uint64_t committed);

/* Durable when it returns: no append of an epoch below `epoch`. FAILED_PRECONDITION when fenced by
 * a later one. */
struct base_status blk__store_fence(struct blk__store *store, uint64_t block, uint64_t epoch,
                                    ch_time deadline,
                                    struct blk__replica_info *info) CH_WAITS BASE_MUST_CHECK;
/* The block ends at `length` for good: what is beyond goes. NOT_FOUND; OUT_OF_RANGE when the
 * replica is shorter. */
struct base_status blk__store_seal(struct blk__store *store, uint64_t block,
                                   uint64_t length) CH_WAITS BASE_MUST_CHECK;
/* Gives the replica up when it is of this generation. */
struct base_status blk__store_remove(struct blk__store *store, uint64_t block,
                                     uint64_t generation) CH_WAITS BASE_MUST_CHECK;

/* A whole replica of a sealed block, made beside what is there and put in its place at the end. */
struct blk__copy;
struct base_status blk__copy_begin(struct blk__store *store, uint64_t block, uint64_t epoch,
                                   uint64_t start, uint64_t length, uint64_t generation,
                                   struct blk__copy **copy) CH_WAITS BASE_MUST_CHECK;
struct base_status blk__copy_put(struct blk__copy *copy,
                                 struct base_bytes data) CH_WAITS BASE_MUST_CHECK;
struct base_status blk__copy_end(struct blk__copy *copy) CH_WAITS
    BASE_MUST_CHECK; /* frees it, whatever the outcome */
void blk__copy_abandon(struct blk__copy *copy) CH_WAITS;

/* ---- reading ---- */
/* The bytes of [offset, offset+len) into `out`, all verified. DATA_LOSS marks the replica bad. */
struct base_status blk__store_read(struct blk__store *store, uint64_t block, uint64_t offset,
                                   size_t len, uint8_t *out) CH_WAITS BASE_MUST_CHECK;

/* ---- for the heartbeat ---- */
struct blk__store_space {
    uint64_t total, available;
    bool failed;
};
/* Asks the disk. */
void blk__store_space(struct blk__store *store, struct blk__store_space *space) CH_WAITS;
bool blk__store_failed(const struct blk__store *store);
/* Replicas whose report changed, and ids removed, since the last call, each at most `max`; all of
 * them again after blk__store_report_all. Infos and ids in `arena`. *more: call again. */
void blk__store_report(struct blk__store *store, size_t max, struct base_arena *arena,
                       struct blk__replica_info **infos, size_t *count, uint64_t **gone,
                       size_t *gone_count, bool *more);
void blk__store_report_all(struct blk__store *store);
/* Damage to the journal may have taken all that was known of a block; the master says which ids
 * were not given out yet. */
bool blk__store_doubts(const struct blk__store *store, uint64_t block);
void blk__store_doubt_limit(struct blk__store *store, uint64_t next_block) CH_WAITS;
/* Blocks below `open_from` are sealed or gone, cell-wide. Before the first call nothing new is
 * accepted, so that a writer that slept cannot begin a block this server has forgotten that it was
 * fenced for. */
void blk__store_open_from(struct blk__store *store, uint64_t open_from);
/* Ids of all replicas, in `arena`. */
void blk__store_ids(const struct blk__store *store, struct base_arena *arena, uint64_t **ids,
                    size_t *count);

#endif
