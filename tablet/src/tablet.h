/* tablet.h: one tablet: a row range of a table, its memtables, its SSTables; and what the
 * tablets of a server share.
 *
 * Invariants:
 * 1. Each entry of a tablet has a number; numbers are given out in the order writes enter the
 *    log, and applied in that order. A reader at snapshot n sees exactly the writes with numbers
 *    up to n: a row operation is seen wholly or not at all.
 * 2. What is acknowledged is in the log (durable) and in a memtable, or in an SSTable that
 *    METADATA names.
 * 3. `flushed_seq` in METADATA: every write up to it is in the SSTables METADATA names. Replay
 *    starts behind it. Memtables are flushed oldest first.
 * 4. METADATA's row of a tablet is changed only by compare-and-set on its version: by the server
 *    it is given to, or by the master when that server is dead. A server that lost its tablet
 *    cannot name files in it any more.
 * 5. A view is immutable but for the growing newest memtable; readers hold it, so nothing they
 *    use goes away.
 * 6. From tab_tablet_enter to tab_tablet_leave a tablet stays: pausing (split, unload) waits for
 *    all inside. */
#ifndef TAB_TABLET_H
#define TAB_TABLET_H

#include "blockstore/blockstore.h"
#include "chassis/metrics.h"
#include "log.h"
#include "memtable.h"
#include "metac.h"
#include "mutation.h"
#include "rowlock.h"
#include "rowread.h"
#include "schema.h"
#include "sstable.h"

enum { TAB_FILES_MAX = 64, TAB_MEMTABLES_MAX = 8, TAB_RANGES_MAX = 256 };

/* ---- shared by the tablets of a server ---- */
struct tab_store {
    struct ch_env *env;
    struct blk_client *blk;
    struct tab_metac *metac;
    struct tab_log *log;
    struct tab_rowlocks rowlocks;
    struct tab_bridge_cache *cache;
    struct ch_gate files; /* fibers that close and delete files */
    struct ch_lock *lock; /* the server's; borrowed */
    uint64_t fence;
    char server[TAB_SERVER_BYTES]; /* "name@epoch" */
    char address[TAB_ADDRESS_BYTES];
    uint64_t next_file;
    uint64_t memtable_bytes; /* of one tablet, when it is frozen */
    uint64_t
        /* of all memtables: writes are slowed from half of it on, refused at it */
        memory_bytes_max;
    uint64_t memory_bytes; /* in use */
    uint64_t split_bytes;  /* 0: never by itself */
    struct ch_cond work;   /* something to flush or compact */
    struct ch_counter *rows_read, *cells_read, *rows_written, *flushes, *compactions,
        *bytes_compacted, *slowed;
};
/* False: the server may not serve any more. Checked before every answer. */
bool tab_store_alive(const struct tab_store *store);

/* ---- a tablet ---- */
struct tab_ranges { /* deleted row ranges; immutable, shared by views */
    uint32_t refs;
    size_t count;
    struct tab_range_delete list[]; /* bytes follow the list */
};

struct tab_view {
    uint32_t refs;
    struct tab_memtable *memtables[TAB_MEMTABLES_MAX]; /* newest first */
    size_t memtable_count;
    struct tab_sstable *files[TAB_FILES_MAX];
    size_t file_count;
    struct tab_ranges *ranges;
    uint64_t generation;
};

enum tab_state { TAB_LOADING, TAB_SERVING, TAB_GONE };

struct tab_tablet {
    struct tab_store *store;
    uint32_t refs;
    enum tab_state state;
    uint64_t id, table;
    struct base_buf start, end;
    struct tab_schema *schema;
    struct tab_view *view;
    uint64_t next_seq, applied_seq, flushed_seq;
    uint32_t inside; /* writers and range deletions */
    bool paused;
    struct ch_cond changed;
    struct ch_mutex commit; /* one change of METADATA at a time */
    bool flushing, compacting, want_flush, want_major, splitting, is_root;
    uint8_t version[TAB_META_VERSION_BYTES];
    uint64_t root_version; /* of the root tablet: naming's version */
    char **redo;           /* files to delete once flushed */
    size_t redo_count;
    uint64_t counted_bytes; /* of store->memory_bytes */
    uint64_t reads, writes;
};

struct tab_tablet *tab_tablet_ref(struct tab_tablet *tablet);
void tab_tablet_unref(struct tab_tablet *tablet);
static inline bool tab_tablet_holds(const struct tab_tablet *tablet, struct base_bytes row)
{
    return tab_range_holds(base_buf_bytes(&tablet->start), base_buf_bytes(&tablet->end), row);
}
void tab_tablet_set_schema(struct tab_tablet *tablet,
                           struct tab_schema *schema); /* takes a reference of its own */

/* ---- life ---- */
/* Opens a tablet from its METADATA record: files, redo (replayed and flushed). The result
 * serves. */
struct base_status tab_tablet_load(struct tab_store *store,
                                   const Strata__Tablet__V1__TabletMeta *meta,
                                   const uint8_t *version, uint64_t root_version,
                                   struct tab_schema *schema, ch_time deadline,
                                   struct tab_tablet **tablet) CH_WAITS BASE_MUST_CHECK;
/* A tablet in memory from a record whose files are open already or few; used by load and split. */
struct base_status tab_tablet_open(struct tab_store *store,
                                   const Strata__Tablet__V1__TabletMeta *meta,
                                   const uint8_t *version, struct tab_schema *schema,
                                   ch_time deadline,
                                   struct tab_tablet **tablet) CH_WAITS BASE_MUST_CHECK;
/* No new writers; waits until none is inside. On failure (deadline) it is not paused. */
struct base_status tab_tablet_pause(struct tab_tablet *tablet,
                                    ch_time deadline) CH_WAITS BASE_MUST_CHECK;
void tab_tablet_resume(struct tab_tablet *tablet);
/* It serves no more; with `remove_files` the files are deleted when their last reader is done. */
void tab_tablet_end(struct tab_tablet *tablet, bool remove_files);
/* Two flushes, the second with writers kept out, then METADATA says that nobody serves it. */
struct base_status tab_tablet_unload(struct tab_tablet *tablet,
                                     ch_time deadline) CH_WAITS BASE_MUST_CHECK;
/* Cuts it at `row` (empty: at its middle). Two new tablets that serve; this one is gone. */
struct base_status tab_tablet_split(struct tab_tablet *tablet, struct base_bytes row,
                                    uint64_t left_id, uint64_t right_id, ch_time deadline,
                                    struct tab_tablet **left,
                                    struct tab_tablet **right) CH_WAITS BASE_MUST_CHECK;
/* A row near the middle of its bytes, for a split; false: none found. */
bool tab_tablet_middle(struct tab_tablet *tablet, struct base_buf *row) CH_WAITS;

/* ---- writing ---- */
/* What a fiber waits on: any number of writes of one request. */
struct tab_wait {
    uint32_t refs, pending;
    struct ch_cond changed;
    struct base_status status; /* of the first that failed */
};
struct tab_wait *tab_wait_new(void);
void tab_wait_unref(struct tab_wait *wait);
/* Waits until all queued writes are applied. DEADLINE_EXCEEDED / CANCELLED: they go on, the
 * outcome is unknown. */
struct base_status tab_wait_all(struct tab_wait *wait, ch_time deadline) CH_WAITS BASE_MUST_CHECK;

/* OUT_OF_RANGE: it is gone (look again where the row is). Slows or refuses when memory is short. */
struct base_status tab_tablet_enter(struct tab_tablet *tablet,
                                    ch_time deadline) CH_WAITS BASE_MUST_CHECK;
void tab_tablet_leave(struct tab_tablet *tablet);
/* Queues the entries (taken: `edit` is empty afterwards) for the log under a row lock, both of
 * which the write takes over with the caller's being inside. On failure the lock is released and
 * the tablet left. Does not wait. */
struct base_status tab_tablet_queue(struct tab_tablet *tablet, struct tab_rowlock *lock, bool alone,
                                    struct tab_edit *edit, struct tab_wait *wait) BASE_MUST_CHECK;
/* Deletes all rows in [start, end) that are the tablet's. */
struct base_status tab_tablet_drop_range(struct tab_tablet *tablet, struct base_bytes start,
                                         struct base_bytes end,
                                         ch_time deadline) CH_WAITS BASE_MUST_CHECK;

/* ---- reading ---- */
struct tab_cursor {
    struct tab_tablet *tablet;
    struct tab_view *view;
    struct tab_schema *schema;
    struct tab_row_reader reader;
};
/* At the tablet's present state. With `row`: only that row will be read. */
void tab_cursor_open(struct tab_cursor *cursor, struct tab_tablet *tablet,
                     const struct base_bytes *row, struct tab_read_hint hint);
/* Whether the tablet has a newer view (what follows should be read with a new cursor). */
bool tab_cursor_stale(const struct tab_cursor *cursor);
/* Sees everything applied by now, from the next row on. */
void tab_cursor_refresh(struct tab_cursor *cursor);
void tab_cursor_close(struct tab_cursor *cursor);

/* ---- upkeep, by the server's fibers ---- */
bool tab_tablet_wants_flush(const struct tab_tablet *tablet);
/* Writes all frozen memtables (with `all`, the newest one too) to one SSTable and says so in
 * METADATA. */
struct base_status tab_tablet_flush(struct tab_tablet *tablet, bool all,
                                    ch_time deadline) CH_WAITS BASE_MUST_CHECK;
void tab_tablet_freeze(struct tab_tablet *tablet);
/* Merges what the picking function says. *did: something was done. */
struct base_status tab_tablet_compact(struct tab_tablet *tablet, bool major,
                                      bool *did) CH_WAITS BASE_MUST_CHECK;
uint64_t tab_tablet_file_bytes(const struct tab_tablet *tablet);
uint64_t tab_tablet_memory_bytes(const struct tab_tablet *tablet);
/* The oldest log segment it still needs; UINT64_MAX: none. */
uint64_t tab_tablet_segment(const struct tab_tablet *tablet);

/* ---- inside the layer: views and METADATA ---- */
struct tab_view *tab__view_ref(struct tab_view *view);
void tab__view_unref(struct tab_view *view);
/* A copy to be changed before it is installed. */
struct tab_view *tab__view_copy(const struct tab_view *view);
void tab__view_install(struct tab_tablet *tablet, struct tab_view *view);
struct tab_ranges *tab__ranges_new(const struct tab_range_delete *list, size_t count);
void tab__ranges_unref(struct tab_ranges *ranges);
void tab__replay(struct tab_tablet *tablet, uint64_t seq, uint8_t kind, struct base_bytes body,
                 uint64_t segment);
/* The tablet's record as it is, with the files and ranges of `view`. */
void tab__describe(const struct tab_tablet *tablet, const struct tab_view *view,
                   uint64_t flushed_seq, struct base_arena *arena,
                   Strata__Tablet__V1__TabletMeta *meta);
/* Writes the record (its holder: commit mutex). */
struct base_status tab__save(struct tab_tablet *tablet, const Strata__Tablet__V1__TabletMeta *meta,
                             ch_time deadline) CH_WAITS BASE_MUST_CHECK;
void tab__file_path(struct tab_store *store, char *out, size_t size);

#endif
