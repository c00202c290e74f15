/* tablet.c: a tablet's views, its cursor, its record: see tablet.h. Writing: tablet_write.c.
 * Flush and compaction: tablet_flush.c. Load, unload, split: tablet_life.c. */
#include "tablet.h"

#include <stdio.h>
#include <stdlib.h>

#include "bloom.h"

bool tab_store_alive(const struct tab_store *store)
{
    return store->lock && ch_lock_held(store->lock);
}

void tab__file_path(struct tab_store *store, char *out, size_t size)
{
    snprintf(out, size, "/tablet/sst/%s/%08llu", store->server,
             (unsigned long long)++store->next_file);
}

/* ---- ranges ---- */

struct tab_ranges *tab__ranges_new(const struct tab_range_delete *list, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += list[i].start.len + list[i].end.len;
    struct tab_ranges *ranges = calloc(1, sizeof(*ranges) + count * sizeof(*list) + bytes);
    BASE_ASSERT(ranges != NULL);
    ranges->refs = 1;
    ranges->count = count;
    uint8_t *at = (uint8_t *)&ranges->list[count];
    for (size_t i = 0; i < count; i++) {
        ranges->list[i] = list[i];
        struct base_bytes *ends[2] = { &ranges->list[i].start, &ranges->list[i].end };
        for (int end = 0; end < 2; end++) {
            if (ends[end]->len)
                memcpy(at, ends[end]->data, ends[end]->len);
            ends[end]->data = at;
            at += ends[end]->len;
        }
    }
    return ranges;
}

void tab__ranges_unref(struct tab_ranges *ranges)
{
    if (ranges && --ranges->refs == 0)
        free(ranges);
}

/* ---- views ---- */

struct tab_view *tab__view_ref(struct tab_view *view)
{
    view->refs++;
    return view;
}

void tab__view_unref(struct tab_view *view)
{
    if (!view || --view->refs > 0)
        return;
    for (size_t i = 0; i < view->memtable_count; i++)
        tab_memtable_unref(view->memtables[i]);
    for (size_t i = 0; i < view->file_count; i++)
        tab_sstable_unref(view->files[i]);
    tab__ranges_unref(view->ranges);
    free(view);
}

struct tab_view *tab__view_copy(const struct tab_view *view)
{
    struct tab_view *copy = malloc(sizeof(*copy));
    BASE_ASSERT(copy != NULL);
    *copy = *view;
    copy->refs = 1;
    copy->generation++;
    for (size_t i = 0; i < copy->memtable_count; i++)
        tab_memtable_ref(copy->memtables[i]);
    for (size_t i = 0; i < copy->file_count; i++)
        tab_sstable_ref(copy->files[i]);
    copy->ranges->refs++;
    return copy;
}

static void count_memory(struct tab_tablet *tablet)
{
    uint64_t bytes = tablet->state == TAB_GONE ? 0 : tab_tablet_memory_bytes(tablet);
    tablet->store->memory_bytes += bytes - tablet->counted_bytes;
    tablet->counted_bytes = bytes;
}

void tab__view_install(struct tab_tablet *tablet, struct tab_view *view)
{
    struct tab_view *old = tablet->view;
    tablet->view = view;
    tab__view_unref(old);
    count_memory(tablet);
}

void tab_tablet_freeze(struct tab_tablet *tablet)
{
    struct tab_view *view = tablet->view;
    if (tab_memtable_empty(view->memtables[0]) || view->memtable_count == TAB_MEMTABLES_MAX)
        return;
    struct tab_view *next = tab__view_copy(view);
    memmove(&next->memtables[1], &next->memtables[0],
            next->memtable_count * sizeof(next->memtables[0]));
    next->memtables[0] = tab_memtable_new();
    next->memtable_count++;
    tab__view_install(tablet, next);
    ch_cond_broadcast(&tablet->store->work);
}

/* ---- the tablet ---- */

struct tab_tablet *tab_tablet_ref(struct tab_tablet *tablet)
{
    tablet->refs++;
    return tablet;
}

void tab_tablet_unref(struct tab_tablet *tablet)
{
    if (!tablet || --tablet->refs > 0)
        return;
    tablet->store->memory_bytes -= tablet->counted_bytes;
    tab__view_unref(tablet->view);
    tab_schema_unref(tablet->schema);
    base_buf_free(&tablet->start);
    base_buf_free(&tablet->end);
    for (size_t i = 0; i < tablet->redo_count; i++)
        free(tablet->redo[i]);
    free(tablet->redo);
    free(tablet);
}

void tab_tablet_set_schema(struct tab_tablet *tablet, struct tab_schema *schema)
{
    struct tab_schema *old = tablet->schema;
    tablet->schema = tab_schema_ref(schema);
    tab_schema_unref(old);
}

void tab_tablet_end(struct tab_tablet *tablet, bool remove_files)
{
    tablet->state = TAB_GONE;
    for (size_t i = 0; remove_files && i < tablet->view->file_count; i++)
        tablet->view->files[i]->garbage = true;
    count_memory(tablet);
    ch_cond_broadcast(&tablet->changed);
}

/* The tablet's share of a file, which after a split holds rows of its other half too. */
static uint64_t share(const struct tab_tablet *tablet, const struct tab_sstable *file)
{
    struct base_bytes start = base_buf_bytes(&tablet->start), end = base_buf_bytes(&tablet->end);
    bool before = base_bytes_cmp(base_buf_bytes(&file->first_row), start) < 0;
    bool behind = end.len && base_bytes_cmp(base_buf_bytes(&file->last_row), end) >= 0;
    if (!before && !behind)
        return file->length;
    struct base_buf key = { 0 };
    uint64_t low = 0, high = file->table_length;
    tab_key_put_row(&key, start);
    if (before)
        low = tab_bridge_offset(file->table, key.data, key.len);
    base_buf_clear(&key);
    tab_key_put_row(&key, end);
    if (behind)
        high = tab_bridge_offset(file->table, key.data, key.len);
    base_buf_free(&key);
    return high > low ? high - low : 0;
}

uint64_t tab_tablet_file_bytes(const struct tab_tablet *tablet)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < tablet->view->file_count; i++)
        bytes += share(tablet, tablet->view->files[i]);
    return bytes;
}

uint64_t tab_tablet_memory_bytes(const struct tab_tablet *tablet)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < tablet->view->memtable_count; i++)
        bytes += tab_memtable_bytes(tablet->view->memtables[i]);
    return bytes;
}

uint64_t tab_tablet_segment(const struct tab_tablet *tablet)
{
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < tablet->view->memtable_count; i++) {
        uint64_t segment = tab_memtable_segment(tablet->view->memtables[i]);
        if (segment < least)
            least = segment;
    }
    return least;
}

bool tab_tablet_wants_flush(const struct tab_tablet *tablet)
{
    return tablet->state == TAB_SERVING && !tablet->flushing &&
           (tablet->view->memtable_count > 1 ||
            (tablet->want_flush && !tab_memtable_empty(tablet->view->memtables[0])));
}

/* ---- the record ---- */

void tab__describe(const struct tab_tablet *tablet, const struct tab_view *view,
                   uint64_t flushed_seq, struct base_arena *arena,
                   Strata__Tablet__V1__TabletMeta *meta)
{
    strata__tablet__v1__tablet_meta__init(meta);
    meta->id = tablet->id;
    meta->table = tablet->table;
    meta->start = ch_data_of(base_bytes_dup(arena, base_buf_bytes(&tablet->start)));
    meta->end = ch_data_of(base_bytes_dup(arena, base_buf_bytes(&tablet->end)));
    meta->server = ch_data_str(base_arena_strdup(arena, tablet->store->server));
    meta->address = ch_data_str(base_arena_strdup(arena, tablet->store->address));
    meta->flushed_seq = flushed_seq;
    meta->files = BASE_NEW_ARRAY(arena, Strata__Tablet__V1__SstableMeta *, view->file_count);
    meta->n_files = view->file_count;
    for (size_t i = 0; i < view->file_count; i++) {
        meta->files[i] = BASE_NEW(arena, Strata__Tablet__V1__SstableMeta);
        tab_sstable_describe(view->files[i], arena, meta->files[i]);
    }
    meta->ranges = BASE_NEW_ARRAY(arena, Strata__Tablet__V1__RangeDeletion *, view->ranges->count);
    for (size_t i = 0; i < view->ranges->count; i++) {
        const struct tab_range_delete *range = &view->ranges->list[i];
        if (range->seq > flushed_seq)
            continue; /* still in the log */
        Strata__Tablet__V1__RangeDeletion *put = CH_MESSAGE(
            arena, Strata__Tablet__V1__RangeDeletion, strata__tablet__v1__range_deletion);
        put->start = ch_data_of(base_bytes_dup(arena, range->start));
        put->end = ch_data_of(base_bytes_dup(arena, range->end));
        put->seq = range->seq;
        meta->ranges[meta->n_ranges++] = put;
    }
    meta->redo = BASE_NEW_ARRAY(arena, ProtobufCBinaryData, tablet->redo_count);
    meta->n_redo = tablet->redo_count;
    for (size_t i = 0; i < tablet->redo_count; i++)
        meta->redo[i] = ch_data_str(base_arena_strdup(arena, tablet->redo[i]));
}

/* The record is not as this server left it: an earlier write of ours whose outcome we never
 * learned, or the tablet was taken away. In the first case the next attempt goes on from what is
 * there. */
static struct base_status look_again(struct tab_tablet *tablet, struct base_bytes key,
                                     ch_time deadline) CH_WAITS;
static struct base_status look_again(struct tab_tablet *tablet, struct base_bytes key,
                                     ch_time deadline)
{
    struct base_arena arena = { 0 };
    Strata__Tablet__V1__TabletMeta *meta = NULL;
    struct tab_meta_row row;
    struct base_status status;
    if (tablet->is_root) {
        status =
            tab_metac_root(tablet->store->metac, deadline, &arena, &meta, &tablet->root_version);
    } else {
        status = tab_metac_get(tablet->store->metac, key, deadline, &arena, &row);
        if (!base_failed(status))
            status = tab_meta_decode(row.value, &arena, &meta);
    }
    bool ours = !base_failed(status) && meta->id == tablet->id &&
                base_bytes_eq_str(ch_bytes_of(meta->server), tablet->store->server);
    if (ours && !tablet->is_root)
        memcpy(tablet->version, row.version, sizeof(row.version));
    if (status.code == BASE_NOT_FOUND || (!base_failed(status) && !ours)) {
        base_status_free(&status);
        tab_tablet_end(tablet, false);
        status =
            base_status_make(BASE_FAILED_PRECONDITION, "tablet %llx was given to another server",
                             (unsigned long long)tablet->id);
    }
    base_arena_free(&arena);
    return status;
}

static struct base_status save_once(struct tab_tablet *tablet,
                                    const Strata__Tablet__V1__TabletMeta *meta,
                                    struct base_bytes key, ch_time deadline) CH_WAITS;
static struct base_status save_once(struct tab_tablet *tablet,
                                    const Strata__Tablet__V1__TabletMeta *meta,
                                    struct base_bytes key, ch_time deadline)
{
    if (!tab_store_alive(tablet->store))
        return base_status_make(BASE_UNAVAILABLE, "this server has lost its lock");
    if (tablet->is_root)
        return tab_metac_root_write(tablet->store->metac, meta, deadline, &tablet->root_version);
    struct base_buf value = { 0 };
    ch_proto_encode(&meta->base, &value);
    struct tab_meta_row row = { .key = key, .value = base_buf_bytes(&value) };
    memcpy(row.version, tablet->version, sizeof(row.version));
    struct base_status status = tab_metac_write(tablet->store->metac, &row, false, deadline);
    if (!base_failed(status))
        memcpy(tablet->version, row.version, sizeof(row.version));
    base_buf_free(&value);
    return status;
}

struct base_status tab__save(struct tab_tablet *tablet, const Strata__Tablet__V1__TabletMeta *meta,
                             ch_time deadline)
{
    struct base_buf key = { 0 };
    tab_meta_key(&key, tablet->table, ch_bytes_of(meta->end));
    struct base_status status = save_once(tablet, meta, base_buf_bytes(&key), deadline);
    while (status.code == BASE_FAILED_PRECONDITION) {
        base_status_free(&status);
        status = look_again(tablet, base_buf_bytes(&key), deadline);
        if (base_failed(status))
            break;
        status = save_once(tablet, meta, base_buf_bytes(&key), deadline);
    }
    base_buf_free(&key);
    return status;
}

/* ---- reading ---- */

void tab_cursor_open(struct tab_cursor *cursor, struct tab_tablet *tablet,
                     const struct base_bytes *row, struct tab_read_hint hint)
{
    struct tab_view *view = tablet->view;
    struct tab_iter *sources[TAB_MEMTABLES_MAX + TAB_FILES_MAX];
    size_t count = 0;
    for (size_t i = 0; i < view->memtable_count; i++)
        if (!tab_memtable_empty(view->memtables[i]) || i == 0)
            sources[count++] = tab_memtable_iter(view->memtables[i]);
    uint64_t hash = 0;
    if (row) {
        struct base_buf encoded = { 0 };
        tab_key_put_row(&encoded, *row);
        hash = tab_bloom_hash(base_buf_bytes(&encoded));
        base_buf_free(&encoded);
    }
    for (size_t i = 0; i < view->file_count; i++)
        if (!row || tab_sstable_may_hold(view->files[i], *row, hash))
            sources[count++] = tab_sstable_iter(view->files[i], true);
    cursor->tablet = tab_tablet_ref(tablet);
    cursor->view = tab__view_ref(view);
    cursor->schema = tab_schema_ref(tablet->schema);
    tab_row_reader_init(&cursor->reader, tab_merge_new(sources, count), cursor->schema,
                        view->ranges->list, view->ranges->count, tablet->applied_seq,
                        ch_wall_us(tablet->store->env));
    cursor->reader.hint = hint;
}

bool tab_cursor_stale(const struct tab_cursor *cursor)
{
    return cursor->tablet->view->generation != cursor->view->generation ||
           cursor->tablet->schema != cursor->schema;
}

void tab_cursor_refresh(struct tab_cursor *cursor)
{
    cursor->reader.snapshot = cursor->tablet->applied_seq;
}

void tab_cursor_close(struct tab_cursor *cursor)
{
    tab_row_reader_destroy(&cursor->reader);
    tab_schema_unref(cursor->schema);
    tab__view_unref(cursor->view);
    tab_tablet_unref(cursor->tablet);
}
