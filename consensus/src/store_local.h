/* store_local.h: the inside of the store on a local disk (consensus/store.h). The parts:
 * store_local.c opens and closes; store_local_load.c reads a folder again; store_local_log.c writes
 * and reads entries;
 * store_local_segments.c makes and removes segments; store_local_snapshot.c is the snapshots. */
#ifndef CON_STORE_LOCAL_H
#define CON_STORE_LOCAL_H

#include "consensus/store.h"
#include "segment.h"
#include "segment_index.h"

enum { CON_SPARES_MAX = 64 };

#define CON_ID_NAME "ID"
#define CON_SEGMENT_PREFIX "segment-"
#define CON_SNAPSHOT_PREFIX "snapshot-"

struct con__snapshot_meta {
    uint64_t member, index, term, total; /* index 0: there is none. total: bytes of state */
    struct con_config config;
};

/* A snapshot file being made: see store_local_snapshot.c. */
struct con__snapshot_maker {
    struct ch_file *file; /* NULL: none */
    char *path;
    struct con__snapshot_meta meta;
    uint32_t seed;        /* of the blocks' checksums: the head's */
    uint64_t taken;       /* bytes of state */
    struct base_buf tail; /* of what was taken, not yet a block */
};

struct con__store_local {
    struct ch_env *env;
    char *dir;
    uint64_t member;
    struct ch_file *lock;
    bool loaded, broken, writing;

    /* ---- the log ---- */
    struct con_index index;               /* of what is durable */
    uint64_t sequence;                    /* of the next batch */
    struct ch_file *active;               /* segment `newest` */
    uint64_t oldest, newest;              /* segments in use */
    uint64_t size, used;                  /* of the newest */
    uint64_t spare_sizes[CON_SPARES_MAX]; /* of the segments after it, prepared: all zeros */
    size_t spare_count;
    uint64_t drop;                  /* entries up to here may go, once the snapshot is anchored */
    uint64_t bytes;                 /* log_bytes */
    struct base_buf records, image; /* of the write under way */

    /* ---- the newest snapshot ---- */
    struct con__snapshot_meta snapshot;
    bool anchored;                    /* the log leads on from it, durably (segment_index.h) */
    uint64_t clear_index, clear_term; /* no: the next batch is to say that this one replaced the
                                         log; index 0: none is due */
    struct ch_mutex install;
    struct con__snapshot_maker receiving;

    /* ---- the keeper: a fiber that prepares and removes segments when there is something to do
     * ---- */
    struct ch_gate gate;
    struct ch_cond made; /* `making` has become false */
    bool keeping, making, closing;
    uint64_t retry_used; /* after a failure to make a spare: not before so much is used */
};

/* "DIR/PREFIX<20 digits><suffix>"; the caller frees. */
char *con__store_path(const struct con__store_local *store, const char *prefix, uint64_t number,
                      const char *suffix);
bool con__store_name_parse(const char *name, const char *prefix, uint64_t *number) BASE_MUST_CHECK;

/* ---- store_local_log.c ---- */
struct base_status con__store_write(void *self,
                                    const struct con_store_write *write) CH_WAITS BASE_MUST_CHECK;
struct base_status con__store_read(void *self, uint64_t first, size_t bytes_max,
                                   struct base_arena *arena, struct con_entry **entries,
                                   size_t *count) CH_WAITS BASE_MUST_CHECK;

/* ---- store_local_load.c ---- */
struct base_status con__store_load(void *self, const struct con_store_visitor *visitor) CH_WAITS
    BASE_MUST_CHECK;

/* ---- store_local_segments.c ---- */
/* Makes the segment after the newest and `slot` spares, in place of one that is there already.
 * RESOURCE_EXHAUSTED: no space; nothing changed. */
struct base_status con__segment_spare(struct con__store_local *store, size_t slot,
                                      uint64_t size) CH_WAITS BASE_MUST_CHECK;
/* Makes a whole segment file of this name, with `head` (NULL: none yet) as its first sector. */
struct base_status con__segment_make(struct con__store_local *store, uint64_t number, uint64_t size,
                                     const struct con_segment_head *head) CH_WAITS BASE_MUST_CHECK;
uint64_t con__segment_size_next(uint64_t size);
/* What a segment that begins now would say at its head. */
struct con_segment_head con__segment_head(const struct con__store_local *store, uint64_t number,
                                          uint64_t size);
/* The first spare becomes the newest; `file` is open on it. */
void con__segment_advance(struct con__store_local *store, struct ch_file *file) CH_WAITS;
/* Starts the keeper when there is work for it. Does not wait. */
void con__keeper_kick(struct con__store_local *store);

/* ---- store_local_snapshot.c ---- */
struct base_status con__store_snapshot_save(void *self, uint64_t index, uint64_t term,
                                            const struct con_config *config,
                                            struct base_bytes state,
                                            uint64_t drop) CH_WAITS BASE_MUST_CHECK;
struct base_status con__store_snapshot_read(void *self, uint64_t index, uint64_t offset, size_t len,
                                            struct base_arena *arena,
                                            struct con_store_chunk *chunk) CH_WAITS BASE_MUST_CHECK;
struct base_status con__store_snapshot_receive(void *self, const struct con_store_chunk *chunk,
                                               struct base_buf *state) CH_WAITS BASE_MUST_CHECK;
/* Reads and checks the whole of the snapshot of `index`. */
struct base_status con__snapshot_load(struct con__store_local *store, uint64_t index,
                                      struct con__snapshot_meta *meta,
                                      struct base_buf *state) CH_WAITS BASE_MUST_CHECK;
/* The log has more that is durable, or the snapshot is another: is it anchored now? Then forgets
 * what may go. */
void con__snapshot_anchor(struct con__store_local *store);
/* Drops what was received of a snapshot so far. */
void con__snapshot_abandon(struct con__store_local *store,
                           struct con__snapshot_maker *maker) CH_WAITS;

#endif
