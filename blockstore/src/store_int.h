/* store_int.h: the store's structs, shared by store.c (accepting), store_fence.c (ending),
 * store_replay.c (restart), store_keep.c (writing behind the journal), store_read.c, store_copy.c.
 *
 * Of one replica: 0 <= written <= length <= accepted. accepted: queued for the journal; length: on
 * stable storage; written: in the block file, covered by `sums`. After a seal below `written` the
 * keeper cuts the file; until then written > length. Bytes in [written, length) are in `extents`,
 * in memory. Only the keeper's fiber moves `written` and takes extents away. */
#ifndef BLK_STORE_INT_H
#define BLK_STORE_INT_H

#include <bsd/sys/queue.h>
#include <uthash.h>

#include "block_file.h"
#include "blk_int.h"
#include "chassis/log.h"
#include "chassis/metrics.h"
#include "journal.h"
#include "store.h"

struct blk__extent { /* an append on its way to the block file */
    struct blk__entry entry;
    struct blk__store *store;
    struct blk__replica *replica; /* a reference */
    uint64_t offset;
    blk__durable_fn *durable;
    void *arg;
    bool large;      /* goes straight to the block file (store_direct.c) */
    bool in_file;    /* is there already, synced */
    bool unloaded;   /* after a restart: data is still to be read from there */
    uint32_t crc;    /* of data */
    uint8_t note[8]; /* payload of its journal record when large */
    STAILQ_ENTRY(blk__extent) link;
    size_t len;
    uint8_t data[];
};

struct blk__replica {
    uint64_t block, epoch, start, generation;
    uint64_t accepted, length, written, committed;
    uint64_t seal_length, short_of;
    bool fenced, sealed, bad, doubtful;
    bool sealing;  /* a seal is queued */
    bool finished; /* the file is the final one */
    bool tomb; /* removed before it was sealed: kept only to refuse what its old writer may still
                  send */
    bool gone; /* not in the table any more */
    bool unsynced;       /* the file has bytes no sync covers */
    bool queued;         /* in store->unwritten */
    bool changed;        /* in store->reports */
    uint64_t oldest_seq; /* journal segment of its first record that is needed; 0: none */
    uint32_t cuts;       /* grows when `written` goes back */
    uint32_t refs;
    struct blk__sums sums; /* over [0, written) */
    bool sums_loaded;      /* of a finished file: read when first needed */
    STAILQ_HEAD(, blk__extent) extents;
    STAILQ_HEAD(, blk__extent) held; /* accepted, behind a large one that is being written */
    bool direct;                     /* the fiber that does it runs */
    bool broken;                     /* an accepted append could not be written: takes no more */
    bool name_durable;               /* of its file */
    struct ch_cond direct_over;
    struct ch_file *file;
    uint32_t file_users;
    TAILQ_ENTRY(blk__replica) unwritten_link, report_link, file_link;
    UT_hash_handle hh;
};
TAILQ_HEAD(blk__replica_list, blk__replica);
struct blk__removal { /* in flight: its record is needed until the file is gone */
    uint64_t seq;     /* of the segment it is in; UINT64_MAX: not written yet */
    LIST_ENTRY(blk__removal) link;
};

struct blk__store {
    struct ch_env *env;
    struct blk__store_options options;
    char *dir, *blocks_dir;
    struct ch_file *lock;
    struct blk__replica *table;
    struct blk__journal *journal;
    bool failed;         /* the disk is not used any more */
    bool full;           /* the keeper met ENOSPC: nothing is accepted until it gets on */
    bool names_unsynced; /* files were made, renamed or removed since the last sync of the folder */
    uint64_t unwritten_bytes;
    uint64_t space_available; /* as last asked */
    uint64_t space_promised;  /* bytes accepted since */
    struct blk__replica_list unwritten, reports, files;
    LIST_HEAD(, blk__removal) removals;
    size_t open_files;
    uint64_t *gone;
    size_t gone_count, gone_cap;
    struct ch_cond room, work;
    struct ch_gate gate;
    bool closing;
    uint64_t open_from;    /* see blk__store_open_from; 0: not told yet */
    uint64_t doubt_below;  /* journal damage could have taken all that was known of a block with a
                              lower id; 0: none */
    struct ch_mutex names; /* held while a file is put in a block's place, or taken away */
    struct ch_counter *appended_bytes, *read_bytes, *bad_chunks, *checkpoints;
    struct ch_gauge *unwritten_gauge;
};

/* store.c */
struct blk__replica *blk__replica_find(const struct blk__store *store, uint64_t block);
struct blk__replica *blk__replica_add(struct blk__store *store, uint64_t block);
void blk__replica_bury(struct blk__store *store,
                       struct blk__replica *replica); /* makes it a tomb */
void blk__replica_unref(struct blk__replica *replica);
void blk__replica_drop(struct blk__store *store,
                       struct blk__replica *replica) CH_WAITS; /* out of the table */
void blk__extent_free(struct blk__extent *extent);
void blk__replica_report(struct blk__store *store, struct blk__replica *replica);
void blk__replica_unwritten(struct blk__store *store, struct blk__replica *replica);
char *blk__replica_path(const struct blk__store *store, uint64_t block, bool finished); /* given */
/* The replica's file, opened (or created) when it is not; release it soon. NOT_FOUND: it is gone.
 */
struct base_status blk__replica_file(struct blk__store *store, struct blk__replica *replica,
                                     bool create, struct ch_file **file) CH_WAITS BASE_MUST_CHECK;
void blk__replica_file_release(struct blk__store *store, struct blk__replica *replica) CH_WAITS;
void blk__replica_file_close(struct blk__store *store, struct blk__replica *replica) CH_WAITS;
void blk__store_fail(struct blk__store *store, struct base_status why);
/* UNAVAILABLE when the disk has failed. */
struct base_status blk__store_check(const struct blk__store *store) BASE_MUST_CHECK;
/* store_fence.c: puts a record and waits until it is durable. */
struct base_status blk__store_record(struct blk__store *store, const struct blk__record *record,
                                     bool first, uint64_t *seq) CH_WAITS BASE_MUST_CHECK;

/* store_replay.c */
struct base_status blk__store_replay(struct blk__store *store) CH_WAITS BASE_MUST_CHECK;
void blk__state_put(const struct blk__replica *replica, struct base_buf *out);
bool blk__state_take(struct base_bytes payload, struct blk__replica *replica);

/* store_direct.c: an accepted append on its way. */
void blk__extent_send(struct blk__extent *extent);
/* Until nothing of the replica is held back: what is put in the journal then comes after it all. */
void blk__replica_settle(struct blk__replica *replica) CH_WAITS;
/* After a restart: the bytes of large appends, from the file. */
struct base_status blk__replica_load(struct blk__store *store,
                                     struct blk__replica *replica) CH_WAITS BASE_MUST_CHECK;
/* store_keep.c */
void blk__keeper_main(void *store);
/* Writes out everything there was at the call, and frees the journal segments before the present
 * one. */
struct base_status blk__store_checkpoint(struct blk__store *store) CH_WAITS BASE_MUST_CHECK;

/* store_read.c */
struct base_status blk__replica_sums(struct blk__store *store,
                                     struct blk__replica *replica) CH_WAITS BASE_MUST_CHECK;
void blk__replica_bad(struct blk__store *store, struct blk__replica *replica, uint64_t offset,
                      const char *what);

#endif
