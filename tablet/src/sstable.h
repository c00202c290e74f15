/* sstable.h: a tablet's immutable files in blockstore.
 *
 * | part | bytes |
 * |---|---|
 * | table | LevelDB's table format (entries of key.h), snappy blocks |
 * | filter | bloom.h over the rows |
 * | trailer | table length u64, filter length u64, crc32c of filter and lengths u32, magic u32 |
 *
 * A reader verifies LevelDB's block checksums on each read, beside blockstore's own. Reads of
 * one block by many fibers at once are one read. Reads that follow each other fetch ahead. */
#ifndef TAB_SSTABLE_H
#define TAB_SSTABLE_H

#include "blockstore/blockstore.h"
#include "chassis/proto.h"
#include "iter.h"
#include "sstable_bridge.h"
#include "strata/tablet/v1/tablet.pb-c.h"

enum { TAB_SSTABLE_BLOCK = 16 << 10, TAB_SSTABLE_AHEAD = 256 << 10 };

/* ---- writing ---- */
struct tab_sstable_writer;
/* A new file, fenced by `fence`. */
struct base_status tab_sstable_create(struct ch_env *env, struct blk_client *blk, const char *path,
                                      uint64_t fence, ch_time deadline,
                                      struct tab_sstable_writer **writer) CH_WAITS BASE_MUST_CHECK;
/* Keys in growing order; waits when a piece is full. `is_deletion`: for the statistics. */
struct base_status tab_sstable_add(struct tab_sstable_writer *writer, struct base_bytes key,
                                   struct base_bytes value, bool is_deletion,
                                   ch_time deadline) CH_WAITS BASE_MUST_CHECK;
uint64_t tab_sstable_written(const struct tab_sstable_writer *writer); /* entries so far */
/* Writes the rest and seals the file. `meta` (in `arena`) says all but clean_seq. */
struct base_status tab_sstable_finish(
    struct tab_sstable_writer *writer, ch_time deadline, struct base_arena *arena,
    Strata__Tablet__V1__SstableMeta *meta) CH_WAITS BASE_MUST_CHECK;
/* Frees; a file that was not finished is deleted. */
void tab_sstable_writer_free(struct tab_sstable_writer *writer) CH_WAITS;

/* ---- reading ---- */
struct tab_sstable {
    char *path;
    uint64_t length, seq_min, seq_max, clean_seq, entries, deletions;
    struct base_buf first_row, last_row; /* plain row keys */
    bool garbage;                        /* delete the file when the last reference goes */
    /* private */
    uint32_t refs;
    struct ch_env *env;
    struct blk_client *blk;
    struct ch_gate *gate;
    struct blk_reader *reader;
    struct tab_bridge_table *table;
    uint64_t table_length;
    struct base_buf filter;
    struct tab_fetch *fetches; /* reads under way */
    struct base_buf ahead;
    uint64_t ahead_offset, last_end;
    struct base_status fail; /* of the last failed read */
};
/* Opens and checks. `gate` runs the deletion of files that became garbage. */
struct base_status tab_sstable_open(struct ch_env *env, struct blk_client *blk,
                                    struct ch_gate *gate, struct tab_bridge_cache *cache,
                                    const Strata__Tablet__V1__SstableMeta *meta, ch_time deadline,
                                    struct tab_sstable **sstable) CH_WAITS BASE_MUST_CHECK;
struct tab_sstable *tab_sstable_ref(struct tab_sstable *sstable);
void tab_sstable_unref(
    struct tab_sstable *sstable); /* the last one closes it on a fiber of the gate */
void tab_sstable_describe(const struct tab_sstable *sstable, struct base_arena *arena,
                          Strata__Tablet__V1__SstableMeta *meta);
bool tab_sstable_may_hold(const struct tab_sstable *sstable, struct base_bytes row,
                          uint64_t row_hash);
/* Holds a reference. `fill_cache` false: for compaction, which must not wash the cache out. */
struct tab_iter *tab_sstable_iter(struct tab_sstable *sstable, bool fill_cache);

#endif
