/* state.h: blockmaster's state as a deterministic machine: names -> files -> blocks -> replicas.
 * Pure: apply is the only way it changes; it reads no clock and no chance. Pointers into it are
 * good until the next apply. */
#ifndef BLK_STATE_H
#define BLK_STATE_H

#include <bsd/sys/queue.h>
#include <bsd/sys/tree.h>
#include <uthash.h>

#include "blk_int.h"
#include "strata/blockstore/v1/state.pb-c.h"

struct blk__server {
    uint64_t id;
    char *address, *machine, *zone;
    UT_hash_handle hh;
};
struct blk__block_replica {
    uint64_t server, generation;
};
struct blk__block {
    uint64_t id, epoch, length;
    bool sealed;
    uint32_t replica_count;
    struct blk__block_replica replicas[BLK_REPLICAS_MAX];
    struct blk__file *file;
    UT_hash_handle hh;
};
struct blk__name {
    struct blk__file *file;
    RB_ENTRY(blk__name) by_path;
    TAILQ_ENTRY(blk__name) of_file;
    size_t len;
    char path[];
};
struct blk__file {
    uint64_t id, epoch, fence;
    bool sealed;
    uint32_t replicas, quorum;
    bool own_copies;    /* they were asked for: SetCopies leaves them */
    uint32_t allocated; /* blocks given out under the present epoch */
    int64_t created_us, deleted_us;
    uint64_t length;            /* of its sealed blocks */
    struct blk__block **blocks; /* sealed ones first */
    size_t block_count, block_cap, sealed_count;
    TAILQ_HEAD(, blk__name) names;
    size_t name_count;
    UT_hash_handle hh;
};
RB_HEAD(blk__names, blk__name);

struct blk__state {
    uint64_t next_file, next_block;
    uint32_t replicas, quorum; /* of files that do not say otherwise */
    struct blk__names names;
    struct blk__file *files;
    struct blk__block *blocks;
    struct blk__server *servers;
    size_t unnamed_files;
};

void blk__state_init(struct blk__state *state);
void blk__state_free(struct blk__state *state);
/* An encoded Command; appends an encoded Result. */
void blk__state_apply(struct blk__state *state, struct base_bytes command, struct base_buf *reply);
void blk__state_save(const struct blk__state *state, struct base_buf *out);
/* Replaces the state. DATA_LOSS when the bytes make no sense. */
struct base_status blk__state_load(struct blk__state *state,
                                   struct base_bytes bytes) BASE_MUST_CHECK;

/* ---- looking ---- */
struct blk__file *blk__state_path(const struct blk__state *state, struct base_bytes path);
struct blk__file *blk__state_file(const struct blk__state *state, uint64_t file);
struct blk__block *blk__state_block(const struct blk__state *state, uint64_t block);
struct blk__server *blk__state_server(const struct blk__state *state, uint64_t server);
/* The first name greater than `after` (inclusive: greater or equal); NULL at the end. */
struct blk__name *blk__state_name_from(const struct blk__state *state, struct base_bytes after,
                                       bool inclusive);
struct blk__name *blk__state_name_next(struct blk__name *name);
int blk__replica_of(const struct blk__block *block, uint64_t server); /* its index; -1: none */

/* INVALID_ARGUMENT names what is wrong with a path. */
struct base_status blk__path_check(struct base_bytes path) BASE_MUST_CHECK;

/* ---- for state_*.c ---- */
void blk__state_drop_name(struct blk__state *state, struct blk__name *name);
void blk__state_drop_file(struct blk__state *state, struct blk__file *file);
void blk__state_drop_block(struct blk__state *state,
                           struct blk__block *block); /* an unsealed one */
struct blk__name *blk__state_find_name(const struct blk__state *state, struct base_bytes path);
struct blk__file *blk__state_add_file(struct blk__state *state, uint64_t id);
struct blk__block *blk__state_add_block(struct blk__state *state, struct blk__file *file,
                                        uint64_t id);
void blk__state_add_name(struct blk__state *state, struct blk__file *file, struct base_bytes path);
void blk__state_set_server(struct blk__state *state, uint64_t id, struct base_bytes address,
                           struct base_bytes machine, struct base_bytes zone);
#endif
