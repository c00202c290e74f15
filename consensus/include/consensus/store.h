/* consensus/store.h: where a member keeps its log, its vote and its snapshot.
 *
 * Two stores stand behind this: the local disk (con_store_local_open) and whatever a caller
 * brings (the same struct of functions, over rows of a table, say). One fiber at a time calls
 * write or snapshot_receive, one at a time snapshot_save; these two may run beside each other, and
 * reads beside both. Every function may wait; what is passed in is lent till it returns, unless
 * said otherwise.
 *
 * What a store promises:
 * 1. What a write returned OK for survives any crash; a write that failed leaves it unknown what is
 *    there: the store is closed and opened again.
 * 2. Entries written at an index replace all entries from that index on.
 * 3. A torn last write, never acknowledged, is dropped at open. Any other damage is DATA_LOSS, and
 *    nothing is cut, mended or overwritten.
 * 4. An entry goes only when a durable snapshot covers it. */
#ifndef CONSENSUS_STORE_H
#define CONSENSUS_STORE_H

#include "chassis/env.h"
#include "consensus/entry.h"

/* What is found at open, in the order of writing. Entries may replace earlier ones (promise 2). */
struct con_store_visitor {
    /* First, when there is one. `state` may be empty (a witness). */
    struct base_status (*snapshot)(void *self, uint64_t index, uint64_t term,
                                   const struct con_config *config, struct base_bytes state);
    struct base_status (*vote)(void *self, uint64_t term, uint64_t vote);
    struct base_status (*entry)(void *self, const struct con_entry *entry);
    void *self;
};

struct con_store_write {
    bool save_vote; /* term and vote changed */
    uint64_t term, vote;
    const struct con_entry *entries; /* consecutive */
    size_t entry_count;
};

struct con_store_chunk {
    uint64_t index, term; /* of the snapshot */
    struct con_config config;
    uint64_t offset, total; /* bytes of state */
    struct base_bytes data;
};

struct con_store {
    void *self;
    /* This member's id, made at random when the store was made. */
    uint64_t member;
    /* Once, before all else. On failure the store must only be closed. */
    struct base_status (*load)(void *self, const struct con_store_visitor *visitor) CH_WAITS_SLOT;
    /* Durable on return. Everything in `write` is only borrowed till the first wait.
     * RESOURCE_EXHAUSTED: the disk is full, nothing was written and the store goes on.
     * INVALID_ARGUMENT: an entry over 1.5 MiB, likewise. Any other failure: promise 1. */
    struct base_status (*write)(void *self, const struct con_store_write *write) CH_WAITS_SLOT;
    /* Entries from `first` on, at least one, up to `bytes_max` of data, in `arena`. NOT_FOUND: no
     * longer (or not yet) there. */
    struct base_status (*read)(void *self, uint64_t first, size_t bytes_max,
                               struct base_arena *arena, struct con_entry **entries,
                               size_t *count) CH_WAITS_SLOT;
    /* Makes `state` the newest snapshot, then forgets entries up to `drop` (<= index). `index` may
     * be ahead of what write has made durable here (others hold it). OK and without effect when a
     * newer one is there. A failure leaves the store as it was: it goes on. */
    struct base_status (*snapshot_save)(void *self, uint64_t index, uint64_t term,
                                        const struct con_config *config, struct base_bytes state,
                                        uint64_t drop) CH_WAITS_SLOT;
    /* A piece of the newest snapshot (*index 0: whichever that is, filled in), or of the one of
     * *index while it is still there: NOT_FOUND when not. chunk->data is in `arena`. */
    struct base_status (*snapshot_read)(void *self, uint64_t index, uint64_t offset, size_t len,
                                        struct base_arena *arena,
                                        struct con_store_chunk *chunk) CH_WAITS_SLOT;
    /* A piece of another member's snapshot, in order of offset; offset 0 begins anew. With the last
     * one the whole becomes the newest snapshot, durably; entries up to its index go, and when the
     * entry at its index is not of its term, all do. `state` (when not NULL) then gets the whole.
     * Without effect: INVALID_ARGUMENT, not the piece that comes next; FAILED_PRECONDITION, one as
     * new is here. RESOURCE_EXHAUSTED: what had come is dropped, the store goes on. Any other
     * failure: promise 1. */
    struct base_status (*snapshot_receive)(void *self, const struct con_store_chunk *chunk,
                                           struct base_buf *state) CH_WAITS_SLOT;
    /* Bytes of entries kept since the newest snapshot: tells when the next is due. No wait. */
    uint64_t (*log_bytes)(void *self);
    /* Frees the store's own state as well. */
    void (*close)(void *self) CH_WAITS_SLOT;
};

/* A folder of its own, made when missing, locked against a second process. Preallocated,
 * checksummed segments; see consensus/README.md for the format. DATA_LOSS here (its id) or at load:
 * damaged. FAILED_PRECONDITION: another process has it, or it is in the format of before groups. */
struct base_status con_store_local_open(struct ch_env *env, const char *dir,
                                        struct con_store *store) CH_WAITS BASE_MUST_CHECK;
/* Moves all of a damaged store aside, into DIR/damaged-N, for a person to look at; the folder can
 * then be opened as a new, empty one with a new id. The store must be closed. */
struct base_status con_store_local_set_aside(struct ch_env *env,
                                             const char *dir) CH_WAITS BASE_MUST_CHECK;

#endif
