/* tablet_life.c: loading, unloading and splitting a tablet: see tablet.h.
 *
 * Load: open the files METADATA names -> replay the redo files (records of a dead server's log,
 * sorted by tablet) into a memtable -> flush it, which also takes the redo files out of METADATA
 * -> serve. A crash at any step leaves the redo files named: the next load does it again;
 * numbers make it harmless. Split: flush while serving -> keep writers out -> flush the little
 * rest -> a second name for every file, one for each half -> one write to METADATA's row (the
 * right half, holding the left half's record until that has its own row): the commit point ->
 * the left half's row -> clear it from the right half's. The gap writers see is the second flush
 * and three METADATA writes. */
#include <stdio.h>
#include <stdlib.h>

#include "chassis/fault.h"
#include "chassis/log.h"
#include "log_format.h"
#include "tablet.h"

enum { STEP_TIMEOUT_S = 30 };

static ch_time step(const struct tab_store *store)
{
    return ch_in(store->env, STEP_TIMEOUT_S * CH_S);
}

/* ---- open ---- */

static struct base_status open_files(struct tab_store *store,
                                     const Strata__Tablet__V1__TabletMeta *meta,
                                     struct tab_view *view, ch_time deadline) CH_WAITS;
static struct base_status open_files(struct tab_store *store,
                                     const Strata__Tablet__V1__TabletMeta *meta,
                                     struct tab_view *view, ch_time deadline)
{
    if (meta->n_files > TAB_FILES_MAX || meta->n_ranges > TAB_RANGES_MAX)
        return base_status_make(BASE_DATA_LOSS, "METADATA names %zu files, %zu ranges",
                                meta->n_files, meta->n_ranges);
    for (size_t i = 0; i < meta->n_files; i++) {
        struct base_status status =
            tab_sstable_open(store->env, store->blk, &store->files, store->cache, meta->files[i],
                             deadline, &view->files[i]);
        if (base_failed(status))
            return status;
        view->file_count++;
    }
    return BASE_STATUS_OK;
}

struct base_status tab_tablet_open(struct tab_store *store,
                                   const Strata__Tablet__V1__TabletMeta *meta,
                                   const uint8_t *version, struct tab_schema *schema,
                                   ch_time deadline, struct tab_tablet **result)
{
    struct tab_tablet *tablet = calloc(1, sizeof(*tablet));
    struct tab_view *view = calloc(1, sizeof(*view));
    BASE_ASSERT(tablet != NULL && view != NULL);
    *tablet = (struct tab_tablet){ .store = store,
                                   .refs = 1,
                                   .id = meta->id,
                                   .table = meta->table,
                                   .view = view,
                                   .schema = tab_schema_ref(schema),
                                   .flushed_seq = meta->flushed_seq,
                                   .applied_seq = meta->flushed_seq,
                                   .next_seq = meta->flushed_seq + 1 };
    if (version)
        memcpy(tablet->version, version, sizeof(tablet->version));
    base_buf_put_bytes(&tablet->start, ch_bytes_of(meta->start));
    base_buf_put_bytes(&tablet->end, ch_bytes_of(meta->end));
    ch_cond_init(&tablet->changed);
    ch_mutex_init(&tablet->commit);
    view->refs = 1;
    view->generation = 1;
    view->memtables[0] = tab_memtable_new();
    view->memtable_count = 1;
    struct tab_range_delete ranges[TAB_RANGES_MAX];
    for (size_t i = 0; i < meta->n_ranges && i < TAB_RANGES_MAX; i++)
        ranges[i] =
            (struct tab_range_delete){ ch_bytes_of(meta->ranges[i]->start),
                                       ch_bytes_of(meta->ranges[i]->end), meta->ranges[i]->seq };
    view->ranges =
        tab__ranges_new(ranges, meta->n_ranges < TAB_RANGES_MAX ? meta->n_ranges : TAB_RANGES_MAX);
    tablet->redo = calloc(meta->n_redo + 1, sizeof(*tablet->redo));
    BASE_ASSERT(tablet->redo != NULL);
    for (size_t i = 0; i < meta->n_redo; i++)
        tablet->redo[tablet->redo_count++] =
            strndup((const char *)meta->redo[i].data, meta->redo[i].len);
    struct base_status status = open_files(store, meta, view, deadline);
    if (base_failed(status)) {
        tab_tablet_unref(tablet);
        return base_status_wrap(status, "open tablet %llx", (unsigned long long)meta->id);
    }
    *result = tablet;
    return BASE_STATUS_OK;
}

/* ---- load ---- */

static struct base_status on_redo(void *self, const struct tab_record *record)
{
    struct tab_tablet *tablet = self;
    if (record->tablet == tablet->id && record->seq > tablet->flushed_seq)
        tab__replay(tablet, record->seq, record->kind, record->body, 0);
    return BASE_STATUS_OK;
}

static struct base_status replay(struct tab_tablet *tablet, ch_time deadline) CH_WAITS;
static struct base_status replay(struct tab_tablet *tablet, ch_time deadline)
{
    struct tab_store *store = tablet->store;
    struct base_status status = BASE_STATUS_OK;
    for (size_t i = 0; i < tablet->redo_count && !base_failed(status); i++) {
        bool moved;
        status = tab_log_read(store->env, store->blk, tablet->redo[i], deadline, on_redo, tablet,
                              &moved);
    }
    if (base_failed(status) || tablet->redo_count == 0)
        return status;
    ch_info(store->env, "tablet %llx: replayed %llu entries from %zu redo files",
            (unsigned long long)tablet->id,
            (unsigned long long)tab_memtable_entries(tablet->view->memtables[0]),
            tablet->redo_count);
    if (tab_memtable_empty(tablet->view->memtables[0]))
        tab_memtable_note(tablet->view->memtables[0], tablet->flushed_seq,
                          0); /* so that the redo files are given up */
    return tab_tablet_flush(tablet, true, deadline);
}

struct base_status tab_tablet_load(struct tab_store *store,
                                   const Strata__Tablet__V1__TabletMeta *meta,
                                   const uint8_t *version, uint64_t root_version,
                                   struct tab_schema *schema, ch_time deadline,
                                   struct tab_tablet **result)
{
    struct tab_tablet *tablet;
    struct base_status status = tab_tablet_open(store, meta, version, schema, deadline, &tablet);
    if (base_failed(status))
        return status;
    struct base_buf root_end = { 0 };
    tab_meta_root_end(&root_end);
    tablet->is_root = tablet->table == TAB_TABLE_METADATA && tablet->start.len == 0;
    base_buf_free(&root_end);
    tablet->root_version = root_version;
    status = replay(tablet, deadline);
    if (base_failed(status)) {
        tab_tablet_end(tablet, false);
        tab_tablet_unref(tablet);
        return base_status_wrap(status, "load tablet %llx", (unsigned long long)meta->id);
    }
    tablet->state = TAB_SERVING;
    *result = tablet;
    return BASE_STATUS_OK;
}

/* ---- unload ---- */

/* Flushes, keeps writers out, flushes the rest. On failure it serves on. */
static struct base_status quiesce(struct tab_tablet *tablet, ch_time deadline) CH_WAITS;
static struct base_status quiesce(struct tab_tablet *tablet, ch_time deadline)
{
    if (tablet->splitting || tablet->state != TAB_SERVING)
        return base_status_make(BASE_UNAVAILABLE, "tablet %llx is busy",
                                (unsigned long long)tablet->id);
    tablet->splitting = true;
    struct base_status status = tab_tablet_flush(tablet, true, deadline);
    while (!base_failed(status) && tablet->compacting)
        if (ch_cond_wait(&tablet->changed, deadline) != CH_OK)
            status = base_status_make(BASE_UNAVAILABLE, "tablet %llx is being compacted",
                                      (unsigned long long)tablet->id);
    if (!base_failed(status))
        status = tab_tablet_pause(tablet, deadline);
    if (base_failed(status)) {
        tablet->splitting = false;
        return status;
    }
    status = tab_tablet_flush(tablet, true, deadline);
    if (base_failed(status)) {
        tablet->splitting = false;
        tab_tablet_resume(tablet);
    }
    return status;
}

struct base_status tab_tablet_unload(struct tab_tablet *tablet, ch_time deadline)
{
    struct base_status status = quiesce(tablet, deadline);
    if (base_failed(status))
        return base_status_wrap(status, "unload tablet %llx", (unsigned long long)tablet->id);
    struct base_arena arena = { 0 };
    Strata__Tablet__V1__TabletMeta meta;
    ch_mutex_lock_always(&tablet->commit);
    tab__describe(tablet, tablet->view, tablet->flushed_seq, &arena, &meta);
    meta.server = meta.address = ch_data_of(BASE_BYTES_EMPTY);
    status = tab__save(tablet, &meta, deadline);
    ch_mutex_unlock(&tablet->commit);
    base_arena_free(&arena);
    tablet->splitting = false;
    if (!base_failed(status))
        tab_tablet_end(tablet, false);
    tab_tablet_resume(tablet);
    return base_failed(status)
               ? base_status_wrap(status, "unload tablet %llx", (unsigned long long)tablet->id)
               : status;
}

/* ---- split ---- */

bool tab_tablet_middle(struct tab_tablet *tablet, struct base_buf *row)
{
    /* The median of keys sampled evenly from the largest file; rows of one size make it the
     * middle of the bytes. */
    struct tab_sstable *largest = NULL;
    for (size_t i = 0; i < tablet->view->file_count; i++)
        if (!largest || tablet->view->files[i]->length > largest->length)
            largest = tablet->view->files[i];
    if (!largest)
        return false;
    struct base_buf key = { 0 }, start = { 0 }, end = { 0 }, scratch = { 0 };
    tab_key_put_row(&start, base_buf_bytes(&tablet->start));
    if (tablet->end.len)
        tab_key_put_row(&end, base_buf_bytes(&tablet->end));
    struct tab_sstable *file = tab_sstable_ref(largest);
    struct tab_iter *iter = tab_sstable_iter(file, false);
    uint64_t low = tab_bridge_offset(file->table, start.data, start.len);
    uint64_t high =
        end.len ? tab_bridge_offset(file->table, end.data, end.len) : file->table_length;
    bool found = false;
    for (tab_iter_seek(iter, base_buf_bytes(&start)); iter->valid; tab_iter_next(iter)) {
        ch_yield_if_long();
        if (end.len && base_bytes_cmp(iter->key, base_buf_bytes(&end)) >= 0)
            break;
        struct base_bytes plain = tab_key_plain(tab_key_row(iter->key), true, &scratch);
        bool inside = base_bytes_cmp(plain, base_buf_bytes(&tablet->start)) > 0;
        if (inside && tab_bridge_offset(file->table, iter->key.data, iter->key.len) >=
                          low + (high - low) / 2) {
            base_buf_clear(row);
            base_buf_put_bytes(row, plain);
            found = true;
            break;
        }
        base_buf_clear(&key);
        if (inside) {
            base_buf_clear(row);
            base_buf_put_bytes(row, plain);
            found = true; /* better than nothing: the last row before the end */
        }
    }
    tab_iter_free(iter);
    tab_sstable_unref(file);
    base_buf_free(&key);
    base_buf_free(&start);
    base_buf_free(&end);
    base_buf_free(&scratch);
    return found;
}

struct halves {
    struct base_arena arena;
    Strata__Tablet__V1__TabletMeta left, right;
};

/* The two records, each with names of its own for the files its rows may be in. */
static struct base_status make_halves(struct tab_tablet *tablet, struct base_bytes row,
                                      uint64_t left_id, uint64_t right_id,
                                      struct halves *halves) CH_WAITS;
static struct base_status link_files(struct tab_tablet *tablet, struct base_arena *arena,
                                     Strata__Tablet__V1__TabletMeta *half, size_t count) CH_WAITS;

/* Of the `count` files of the tablet in half->files. At each moment half->n_files are those that
 * have a name of the half's: after a failure just these are to be deleted. */
static struct base_status link_files(struct tab_tablet *tablet, struct base_arena *arena,
                                     Strata__Tablet__V1__TabletMeta *half, size_t count)
{
    struct base_bytes start = ch_bytes_of(half->start), end = ch_bytes_of(half->end);
    half->n_files = 0;
    for (size_t i = 0; i < count; i++) {
        Strata__Tablet__V1__SstableMeta *file = half->files[i];
        if (base_bytes_cmp(ch_bytes_of(file->last_row), start) < 0 ||
            (end.len && base_bytes_cmp(ch_bytes_of(file->first_row), end) >= 0))
            continue;
        char path[256];
        tab__file_path(tablet->store, path, sizeof(path));
        struct base_status status =
            blk_link(tablet->store->blk, base_bytes_cstr(arena, ch_bytes_of(file->path)), path,
                     step(tablet->store));
        if (base_failed(status))
            return status;
        file->path = ch_data_str(base_arena_strdup(arena, path));
        half->files[half->n_files++] = file;
    }
    return BASE_STATUS_OK;
}

static struct base_status make_halves(struct tab_tablet *tablet, struct base_bytes row,
                                      uint64_t left_id, uint64_t right_id, struct halves *halves)
{
    struct base_arena *arena = &halves->arena;
    tab__describe(tablet, tablet->view, tablet->flushed_seq, arena, &halves->left);
    tab__describe(tablet, tablet->view, tablet->flushed_seq, arena, &halves->right);
    halves->left.id = left_id;
    halves->right.id = right_id;
    halves->left.end = halves->right.start = ch_data_of(base_bytes_dup(arena, row));
    size_t count = halves->right.n_files;
    halves->right.n_files = 0; /* none is linked yet */
    struct base_status status = link_files(tablet, arena, &halves->left, halves->left.n_files);
    return base_failed(status) ? status : link_files(tablet, arena, &halves->right, count);
}

static void unlink_files(struct tab_tablet *tablet,
                         const Strata__Tablet__V1__TabletMeta *half) CH_WAITS;
static void unlink_files(struct tab_tablet *tablet, const Strata__Tablet__V1__TabletMeta *half)
{
    struct base_arena arena = { 0 };
    for (size_t i = 0; i < half->n_files; i++)
        base_status_drop(blk_delete(tablet->store->blk,
                                    base_bytes_cstr(&arena, ch_bytes_of(half->files[i]->path)),
                                    step(tablet->store)));
    base_arena_free(&arena);
}

/* METADATA: the commit point, then the left half's own row, then the right half's without it.
 * *decided: the first was made. */
static struct base_status write_halves(struct tab_tablet *tablet, struct halves *halves,
                                       uint8_t *left_version, bool *decided) CH_WAITS;
static struct base_status write_halves(struct tab_tablet *tablet, struct halves *halves,
                                       uint8_t *left_version, bool *decided)
{
    halves->right.left = &halves->left;
    struct base_status status = tab__save(tablet, &halves->right, step(tablet->store));
    *decided = !base_failed(status);
    if (base_failed(status))
        return status;
    struct base_buf key = { 0 }, value = { 0 };
    tab_meta_key(&key, tablet->table, ch_bytes_of(halves->left.end));
    ch_proto_encode(&halves->left.base, &value);
    struct tab_meta_row row = { .key = base_buf_bytes(&key), .value = base_buf_bytes(&value) };
    status = ch_fault(tablet->store->env, "tablet_split_decided");
    if (!base_failed(status))
        status = tab_metac_write(tablet->store->metac, &row, true, step(tablet->store));
    if (!base_failed(status)) {
        memcpy(left_version, row.version, TAB_META_VERSION_BYTES);
        halves->right.left = NULL;
        tablet->id = halves->right.id; /* whose record it now is */
        status = tab__save(tablet, &halves->right, step(tablet->store));
    }
    base_buf_free(&key);
    base_buf_free(&value);
    return status;
}

static struct base_status open_halves(struct tab_tablet *tablet, const struct halves *halves,
                                      const uint8_t *left_version, struct tab_tablet **left,
                                      struct tab_tablet **right) CH_WAITS;
static struct base_status open_halves(struct tab_tablet *tablet, const struct halves *halves,
                                      const uint8_t *left_version, struct tab_tablet **left,
                                      struct tab_tablet **right)
{
    struct tab_store *store = tablet->store;
    struct base_status status =
        tab_tablet_open(store, &halves->left, left_version, tablet->schema, step(store), left);
    if (base_failed(status))
        return status;
    status =
        tab_tablet_open(store, &halves->right, tablet->version, tablet->schema, step(store), right);
    if (base_failed(status)) {
        tab_tablet_end(*left, false);
        tab_tablet_unref(*left);
        return status;
    }
    struct tab_tablet *both[2] = { *left, *right };
    for (int i = 0; i < 2; i++) {
        both[i]->state = TAB_SERVING;
        both[i]->want_major =
            both[i]->view->file_count > 0; /* to let go of the other half's rows */
        both[i]->next_seq = tablet->next_seq;
        both[i]->applied_seq = tablet->applied_seq;
    }
    return BASE_STATUS_OK;
}

struct base_status tab_tablet_split(struct tab_tablet *tablet, struct base_bytes row,
                                    uint64_t left_id, uint64_t right_id, ch_time deadline,
                                    struct tab_tablet **left, struct tab_tablet **right)
{
    if (!tab_tablet_holds(tablet, row) || base_bytes_eq(row, base_buf_bytes(&tablet->start)) ||
        row.len == 0 || tablet->is_root)
        return base_status_make(BASE_FAILED_PRECONDITION, "tablet %llx cannot be split there",
                                (unsigned long long)tablet->id);
    struct base_status status = quiesce(tablet, deadline);
    if (base_failed(status))
        return base_status_wrap(status, "split tablet %llx", (unsigned long long)tablet->id);
    struct halves halves = { 0 };
    uint8_t left_version[TAB_META_VERSION_BYTES] = { 0 };
    bool decided = false, attempted = false;
    ch_mutex_lock_always(&tablet->commit);
    status = make_halves(tablet, row, left_id, right_id, &halves);
    attempted = !base_failed(status); /* from here on METADATA may name the new files: they stay */
    if (!base_failed(status))
        status = write_halves(tablet, &halves, left_version, &decided);
    if (!base_failed(status))
        status = open_halves(tablet, &halves, left_version, left, right);
    ch_mutex_unlock(&tablet->commit);
    tablet->splitting = false;
    if (!base_failed(status)) {
        tab_tablet_end(tablet, true);
    } else if (decided) {
        /* The halves exist, half-way: this server gives the old one up; whoever is asked to load
         * a half finishes its record. */
        tab_tablet_end(tablet, true);
    } else if (!attempted) {
        unlink_files(tablet, &halves.left);
        unlink_files(tablet, &halves.right);
    }
    tab_tablet_resume(tablet);
    base_arena_free(&halves.arena);
    return base_failed(status)
               ? base_status_wrap(status, "split tablet %llx", (unsigned long long)tablet->id)
               : status;
}
