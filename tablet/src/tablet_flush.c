/* tablet_flush.c: minor compaction (memtables to a file), merging and major compaction: see
 * tablet.h invariants 2 to 4.
 *
 * Happy path of both: merge the sources through the rules of rowread.h into a new file ->
 * METADATA names it (compare-and-set) -> the view changes, without a wait in between. A failure
 * before METADATA leaves the tablet as it was, and a file nobody names. The commit mutex keeps
 * two changes of METADATA apart; it is not held while files are written. */
#include "tablet.h"

#include <stdlib.h>

#include "chassis/fault.h"
#include "chassis/log.h"
#include "compaction.h"

enum { WRITE_TIMEOUT_S = 60 };

/* Copies what the rules keep. *kept: entries written; the file exists only when it is not 0. */
static struct base_status write_merged(struct tab_tablet *tablet, struct tab_merge *merge,
                                       bool major, uint64_t clean_seq, struct base_arena *arena,
                                       Strata__Tablet__V1__SstableMeta *meta,
                                       uint64_t *kept) CH_WAITS;
static struct base_status copy_entries(struct tab_tablet *tablet, struct tab_merge *merge,
                                       struct tab_keep *keep,
                                       struct tab_sstable_writer **writer) CH_WAITS;

static struct base_status copy_entries(struct tab_tablet *tablet, struct tab_merge *merge,
                                       struct tab_keep *keep, struct tab_sstable_writer **writer)
{
    struct tab_store *store = tablet->store;
    struct base_buf start = { 0 }, end = { 0 };
    if (tablet->start.len)
        tab_key_put_row(&start, base_buf_bytes(&tablet->start));
    if (tablet->end.len)
        tab_key_put_row(&end, base_buf_bytes(&tablet->end));
    struct base_status status = BASE_STATUS_OK;
    const struct tab_iter *at;
    for (tab_merge_seek(merge, base_buf_bytes(&start));
         (at = tab_merge_at(merge)) && !base_failed(status); tab_merge_next(merge)) {
        struct tab_key key;
        if (end.len && base_bytes_cmp(at->key, base_buf_bytes(&end)) >= 0)
            break;
        ch_yield_if_long();
        if (!tab_key_parse(at->key, &key)) {
            status = base_status_make(BASE_DATA_LOSS, "tablet %llx holds an entry that is none",
                                      (unsigned long long)tablet->id);
            break;
        }
        if (!tab_keep_entry(keep, &key, at->value))
            continue;
        if (!*writer) {
            char path[256];
            tab__file_path(store, path, sizeof(path));
            status = tab_sstable_create(store->env, store->blk, path, store->fence,
                                        ch_in(store->env, WRITE_TIMEOUT_S * CH_S), writer);
            if (base_failed(status))
                break;
        }
        status = tab_sstable_add(*writer, at->key, at->value, key.kind != TAB_CELL,
                                 ch_in(store->env, WRITE_TIMEOUT_S * CH_S));
    }
    base_buf_free(&start);
    base_buf_free(&end);
    return base_failed(status) ? status : tab_merge_status(merge);
}

static struct base_status write_merged(struct tab_tablet *tablet, struct tab_merge *merge,
                                       bool major, uint64_t clean_seq, struct base_arena *arena,
                                       Strata__Tablet__V1__SstableMeta *meta, uint64_t *kept)
{
    struct tab_store *store = tablet->store;
    struct tab_view *view = tab__view_ref(tablet->view); /* for its ranges */
    struct tab_schema *schema = tab_schema_ref(tablet->schema);
    struct tab_keep keep = { .major = major };
    struct tab_sstable_writer *writer = NULL;
    tab_row_reader_init(&keep.reader, NULL, schema, view->ranges->list, view->ranges->count,
                        clean_seq, ch_wall_us(store->env));
    struct base_status status = copy_entries(tablet, merge, &keep, &writer);
    *kept = writer ? tab_sstable_written(writer) : 0;
    if (!base_failed(status) && *kept) {
        status = tab_sstable_finish(writer, ch_in(store->env, WRITE_TIMEOUT_S * CH_S), arena, meta);
        meta->clean_seq = clean_seq;
    }
    tab_sstable_writer_free(writer);
    tab_row_reader_destroy(&keep.reader);
    tab_schema_unref(schema);
    tab__view_unref(view);
    return status;
}

/* Deleted ranges that no file or memtable can still need: applied to every file, or older than
 * all in it. */
static void drop_old_ranges(struct tab_view *view, uint64_t flushed_seq)
{
    struct tab_range_delete list[TAB_RANGES_MAX];
    size_t count = 0;
    for (size_t i = 0; i < view->ranges->count; i++) {
        const struct tab_range_delete *range = &view->ranges->list[i];
        bool needed = range->seq > flushed_seq;
        for (size_t f = 0; f < view->file_count && !needed; f++)
            needed = view->files[f]->clean_seq < range->seq && view->files[f]->seq_min < range->seq;
        if (needed)
            list[count++] = *range;
    }
    if (count == view->ranges->count)
        return;
    struct tab_ranges *ranges = tab__ranges_new(list, count);
    tab__ranges_unref(view->ranges);
    view->ranges = ranges;
}

/* With the commit mutex: `view` becomes METADATA's truth, then the tablet's. `change` builds it
 * from the present one. */
struct change {
    struct tab_sstable *added; /* NULL: nothing was left to write; given */
    struct tab_sstable *const *removed;
    size_t removed_count;
    size_t flushed_memtables; /* oldest ones */
    uint64_t flushed_seq;
};

static struct tab_view *changed_view(const struct tab_tablet *tablet, const struct change *change)
{
    struct tab_view *view = tab__view_copy(tablet->view);
    for (size_t i = 0; i < change->flushed_memtables; i++)
        tab_memtable_unref(view->memtables[--view->memtable_count]);
    size_t count = 0;
    for (size_t i = 0; i < view->file_count; i++) {
        bool removed = false;
        for (size_t r = 0; r < change->removed_count; r++)
            removed |= view->files[i] == change->removed[r];
        if (removed)
            tab_sstable_unref(view->files[i]);
        else
            view->files[count++] = view->files[i];
    }
    view->file_count = count;
    if (change->added)
        view->files[view->file_count++] = tab_sstable_ref(change->added);
    drop_old_ranges(view, change->flushed_seq);
    return view;
}

static struct base_status commit(struct tab_tablet *tablet, const struct change *change,
                                 ch_time deadline) CH_WAITS;
static struct base_status commit(struct tab_tablet *tablet, const struct change *change,
                                 ch_time deadline)
{
    struct base_arena arena = { 0 };
    Strata__Tablet__V1__TabletMeta meta;
    if (tablet->state == TAB_GONE)
        return base_status_make(BASE_FAILED_PRECONDITION, "the tablet is gone");
    struct tab_view *planned = changed_view(tablet, change);
    tab__describe(tablet, planned, change->flushed_seq, &arena, &meta);
    tab__view_unref(planned);
    struct base_status status = ch_fault(tablet->store->env, "tablet_commit_files");
    if (!base_failed(status))
        status = tab__save(tablet, &meta, deadline);
    if (!base_failed(status)) {
        /* Memtables may have been frozen, ranges deleted meanwhile: the change is made again, to
         * what there is now. */
        CH_NO_WAIT_BEGIN();
        tablet->flushed_seq = change->flushed_seq;
        tab__view_install(tablet, changed_view(tablet, change));
        CH_NO_WAIT_END();
    }
    base_arena_free(&arena);
    return status;
}

static struct base_status open_added(struct tab_tablet *tablet,
                                     const Strata__Tablet__V1__SstableMeta *meta,
                                     struct tab_sstable **file) CH_WAITS;
static struct base_status open_added(struct tab_tablet *tablet,
                                     const Strata__Tablet__V1__SstableMeta *meta,
                                     struct tab_sstable **file)
{
    struct tab_store *store = tablet->store;
    return tab_sstable_open(store->env, store->blk, &store->files, store->cache, meta,
                            ch_in(store->env, WRITE_TIMEOUT_S * CH_S), file);
}

/* ---- flush ---- */

static void remove_redo(struct tab_tablet *tablet, char **redo, size_t count) CH_WAITS;
static void remove_redo(struct tab_tablet *tablet, char **redo, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        base_status_drop(blk_delete(tablet->store->blk, redo[i],
                                    ch_in(tablet->store->env, WRITE_TIMEOUT_S * CH_S)));
        free(redo[i]);
    }
    free(redo);
}

/* `memtables` oldest ones to one file. */
static struct base_status flush_oldest(struct tab_tablet *tablet, size_t memtables,
                                       ch_time deadline) CH_WAITS;
static struct base_status flush_oldest(struct tab_tablet *tablet, size_t memtables,
                                       ch_time deadline)
{
    struct tab_view *view = tablet->view;
    struct tab_iter *sources[TAB_MEMTABLES_MAX];
    struct change change = { .flushed_memtables = memtables, .flushed_seq = tablet->flushed_seq };
    for (size_t i = 0; i < memtables; i++) {
        struct tab_memtable *memtable = view->memtables[view->memtable_count - 1 - i];
        sources[i] = tab_memtable_iter(memtable);
        if (tab_memtable_seq_max(memtable) > change.flushed_seq)
            change.flushed_seq = tab_memtable_seq_max(memtable);
    }
    struct base_arena arena = { 0 };
    Strata__Tablet__V1__SstableMeta meta;
    struct tab_merge *merge = tab_merge_new(sources, memtables);
    uint64_t kept = 0;
    struct base_status status =
        write_merged(tablet, merge, false, tablet->applied_seq, &arena, &meta, &kept);
    tab_merge_free(merge);
    if (!base_failed(status) && kept)
        status = open_added(tablet, &meta, &change.added);
    char **redo = NULL;
    size_t redo_count = 0;
    if (!base_failed(status)) {
        ch_mutex_lock_always(&tablet->commit);
        redo = tablet->redo;
        redo_count = tablet->redo_count;
        tablet->redo_count = 0; /* what was replayed is in the file */
        status = commit(tablet, &change, deadline);
        if (base_failed(status))
            tablet->redo_count = redo_count;
        else
            tablet->redo = NULL;
        ch_mutex_unlock(&tablet->commit);
    }
    /* A file that METADATA may or may not name stays: the master's sweep decides. */
    tab_sstable_unref(change.added);
    if (!base_failed(status))
        remove_redo(tablet, redo, redo_count);
    base_arena_free(&arena);
    return status;
}

struct base_status tab_tablet_flush(struct tab_tablet *tablet, bool all, ch_time deadline)
{
    while (tablet->flushing) {
        enum ch_outcome outcome = ch_cond_wait(&tablet->changed, deadline);
        if (outcome != CH_OK && tablet->flushing)
            return ch_outcome_status(outcome, "waiting for a flush");
    }
    tablet->flushing = true;
    tablet->want_flush = false;
    if (all)
        tab_tablet_freeze(tablet);
    struct base_status status = BASE_STATUS_OK;
    size_t memtables = tablet->view->memtable_count - 1;
    if (memtables > 0 && tablet->view->file_count < TAB_FILES_MAX) {
        status = flush_oldest(tablet, memtables, deadline);
        ch_count(tablet->store->flushes, !base_failed(status));
    } else if (memtables > 0) {
        status = base_status_make(BASE_RESOURCE_EXHAUSTED,
                                  "tablet %llx has %d files that are not merged yet",
                                  (unsigned long long)tablet->id, TAB_FILES_MAX);
    }
    tablet->flushing = false;
    ch_cond_broadcast(&tablet->changed);
    ch_cond_broadcast(&tablet->store->work);
    return base_failed(status)
               ? base_status_wrap(status, "flush tablet %llx", (unsigned long long)tablet->id)
               : status;
}

/* ---- merging ---- */

static struct base_status merge_files(struct tab_tablet *tablet, struct tab_sstable **files,
                                      size_t count, bool major) CH_WAITS;
static struct base_status merge_files(struct tab_tablet *tablet, struct tab_sstable **files,
                                      size_t count, bool major)
{
    struct tab_iter *sources[TAB_FILES_MAX];
    struct change change = { .removed = files, .removed_count = count };
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        sources[i] = tab_sstable_iter(files[i], false);
        bytes += files[i]->length;
    }
    struct base_arena arena = { 0 };
    Strata__Tablet__V1__SstableMeta meta;
    struct tab_merge *merge = tab_merge_new(sources, count);
    uint64_t kept = 0;
    struct base_status status =
        write_merged(tablet, merge, major, tablet->applied_seq, &arena, &meta, &kept);
    tab_merge_free(merge);
    if (!base_failed(status) && kept)
        status = open_added(tablet, &meta, &change.added);
    if (!base_failed(status)) {
        ch_mutex_lock_always(&tablet->commit);
        change.flushed_seq = tablet->flushed_seq;
        status = commit(tablet, &change, ch_in(tablet->store->env, WRITE_TIMEOUT_S * CH_S));
        ch_mutex_unlock(&tablet->commit);
    }
    for (size_t i = 0; i < count && !base_failed(status); i++)
        files[i]->garbage = true;
    tab_sstable_unref(change.added);
    base_arena_free(&arena);
    if (!base_failed(status)) {
        ch_count(tablet->store->compactions, 1);
        ch_count(tablet->store->bytes_compacted, bytes);
    }
    return status;
}

struct base_status tab_tablet_compact(struct tab_tablet *tablet, bool major, bool *did)
{
    *did = false;
    struct tab_view *view = tablet->view;
    if (tablet->state != TAB_SERVING || tablet->compacting || tablet->splitting ||
        view->file_count == 0)
        return BASE_STATUS_OK;
    struct tab_pick_file sizes[TAB_FILES_MAX];
    size_t picked[TAB_FILES_MAX];
    for (size_t i = 0; i < view->file_count; i++)
        sizes[i] = (struct tab_pick_file){ view->files[i]->length, view->files[i]->entries,
                                           view->files[i]->deletions };
    struct tab_pick pick =
        tab_compaction_pick(sizes, view->file_count, major || tablet->want_major, picked);
    if (pick.count == 0)
        return BASE_STATUS_OK;
    *did = true;
    tablet->compacting = true;
    tab__view_ref(view);
    struct tab_sstable *files[TAB_FILES_MAX];
    for (size_t i = 0; i < pick.count; i++)
        files[i] = view->files[picked[i]];
    if (pick.major)
        tablet->want_major = false;
    struct base_status status = merge_files(tablet, files, pick.count, pick.major);
    tab__view_unref(view);
    tablet->compacting = false;
    ch_cond_broadcast(&tablet->changed);
    return base_failed(status)
               ? base_status_wrap(status, "compact tablet %llx", (unsigned long long)tablet->id)
               : status;
}
