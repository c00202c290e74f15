/* store_local_load.c: reading a folder again.
 *
 * Invariants
 * 1. Nothing is changed before all was found sound (but files named *.new, which nobody relied on).
 * What is unsound is reported by file and byte, and left as it is.
 * 2. A torn tail is erased, and the last batch is written once more, before anything is written
 * after it, and the names are synced: a page whose sync failed, or never came, may read well and
 * never reach the disk ("Can applications recover from fsync failures?", ATC'20).
 * 3. Removed segments may be there again after a crash, with gaps among them. So only the last run
 * of numbers without a gap counts; whether that is all that is needed is told by the entries
 * (con__index_anchor), and the rest is removed.
 *
 * Happy path: names -> newest snapshot -> each segment: head, batches into the index -> settle ->
 * the visitor gets snapshot, vote and entries. */
#include "store_local.h"

#include <inttypes.h>
#include <stdlib.h>

#include "chassis/log.h"

enum { ENTRIES_BYTES = 1 << 20 /* handed out in one go */ };

/* What the folder holds, and what reading it has shown so far. */
struct loading {
    struct con__store_local *store;
    struct base_arena arena;
    char **names;
    size_t name_count;
    uint64_t *segments;        /* sorted */
    size_t segment_count, run; /* run: where the last one without gaps begins */
    struct base_buf bytes, payload, state;
    /* of the last batch, for the settling */
    uint64_t tail_segment, tail_begin, tail_end;
    struct base_buf tail;
    uint64_t torn_segment, torn_at, torn_len;
};

static const char *in_folder(struct loading *loading, const char *name)
{
    return base_arena_printf(&loading->arena, "%s/%s", loading->store->dir, name);
}

static bool is_unfinished(const char *name)
{
    size_t len = strlen(name);

    return len > 4 && strcmp(name + len - 4, ".new") == 0;
}

static CH_WAITS struct base_status folder_scan(struct loading *loading)
{
    struct con__store_local *store = loading->store;
    struct base_status status =
        ch_dir_list(store->env, store->dir, &loading->arena, &loading->names, &loading->name_count);

    if (base_failed(status))
        return status;
    loading->segments = BASE_NEW_ARRAY(&loading->arena, uint64_t, loading->name_count);
    for (size_t i = 0; i < loading->name_count && !base_failed(status); i++) {
        const char *name = loading->names[i];
        uint64_t number;

        if (con__store_name_parse(name, CON_SNAPSHOT_PREFIX, &number)) {
            store->snapshot.index = number; /* sorted: the last is the newest */
        } else if (con__store_name_parse(name, CON_SEGMENT_PREFIX, &number)) {
            if (loading->segment_count > 0 &&
                loading->segments[loading->segment_count - 1] + 1 != number)
                loading->run = loading->segment_count;
            loading->segments[loading->segment_count++] = number;
        } else if (is_unfinished(name)) {
            status = ch_file_remove(store->env, in_folder(loading, name));
        }
    }
    if (!base_failed(status) && loading->segment_count == 0)
        status = base_status_make(BASE_DATA_LOSS, "there is an id, but no log");
    return status;
}

/* ---- segments ---- */

static struct base_status damaged(const char *why, size_t at, uint64_t sequence)
{
    return base_status_make(BASE_DATA_LOSS, "%s, at byte %zu (batch %" PRIu64 " expected)", why, at,
                            sequence);
}

/* The first sector. END: a spare. */
static struct base_status head_take(struct loading *loading, uint64_t number, bool first,
                                    enum con_scan *scan)
{
    struct con__store_local *store = loading->store;
    struct base_bytes bytes = base_buf_bytes(&loading->bytes);
    struct con_segment_head head;
    const char *why = NULL;
    size_t len = 0;

    *scan = con__segment_scan(bytes, first ? 0 : store->sequence, &head, &len, &why);
    if (*scan == CON_SCAN_WHOLE && (head.number != number || head.size != bytes.len)) {
        *scan = CON_SCAN_CORRUPT;
        why = "its head is that of another file, or it was cut short";
    }
    if (*scan == CON_SCAN_WHOLE && head.member != store->member) {
        *scan = CON_SCAN_CORRUPT;
        why = "it belongs to another member";
    }
    if (*scan == CON_SCAN_CORRUPT)
        return damaged(why, len, store->sequence);
    if (*scan == CON_SCAN_TORN && loading->torn_len > 0)
        return damaged("two batches are incomplete", len, store->sequence);
    if (*scan == CON_SCAN_TORN) {
        loading->torn_segment = number;
        loading->torn_at = 0;
        loading->torn_len = len;
    } else if (*scan == CON_SCAN_WHOLE && first) {
        store->sequence = head.sequence;
        con__index_begin(&store->index, &head);
    }
    return BASE_STATUS_OK;
}

/* The batches after the head. */
static struct base_status batches_take(struct loading *loading, uint64_t number)
{
    struct con__store_local *store = loading->store;
    struct base_bytes bytes = base_buf_bytes(&loading->bytes);
    size_t at = CON_SECTOR, len = 0;

    loading->tail_begin = 0;
    for (;;) {
        struct con_batch batch;
        const char *why = NULL;
        enum con_scan scan =
            con__batch_take(base_bytes(bytes.data + at, bytes.len - at), store->sequence,
                            &loading->payload, &batch, &len, &why);

        if (scan == CON_SCAN_CORRUPT)
            return damaged(why, at + len, store->sequence);
        if (scan == CON_SCAN_TORN) {
            loading->torn_segment = number;
            loading->torn_at = at;
            loading->torn_len = len;
        }
        if (scan != CON_SCAN_WHOLE)
            break;
        if (!con__index_batch(&store->index, &batch, number, at, len, &why))
            return damaged(why, at, store->sequence);
        loading->tail_begin = at == CON_SECTOR ? 0 : at; /* the head was written with the first */
        at += len;
        store->sequence++;
    }
    loading->tail_segment = number;
    loading->tail_end = at;
    base_buf_clear(&loading->tail);
    base_buf_put(&loading->tail, bytes.data + loading->tail_begin, at - loading->tail_begin);
    store->newest = number;
    store->size = bytes.len;
    store->used = at;
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status segment_take(struct loading *loading, size_t which)
{
    struct con__store_local *store = loading->store;
    uint64_t number = loading->segments[which];
    bool first = which == loading->run;
    enum con_scan scan;
    char *path = con__store_path(store, CON_SEGMENT_PREFIX, number, "");
    struct base_status status;

    base_buf_clear(&loading->bytes);
    status = ch_file_read_all(store->env, path, CON_SEGMENT_BYTES_MAX, &loading->bytes);
    if (!base_failed(status))
        status = head_take(loading, number, first, &scan);
    if (!base_failed(status) && scan == CON_SCAN_WHOLE &&
        (loading->torn_len > 0 || store->spare_count > 0))
        status = damaged("it is in use though the one before ends incomplete", 0, store->sequence);
    if (!base_failed(status) && scan == CON_SCAN_WHOLE) {
        status = batches_take(loading, number);
    } else if (!base_failed(status)) {
        if (loading->bytes.len < CON_SEGMENT_BYTES_MIN || loading->bytes.len % CON_SECTOR != 0)
            status = damaged("it was cut short", loading->bytes.len, store->sequence);
        else if (store->spare_count == CON_SPARES_MAX)
            status =
                damaged("there are more unused segments than are ever made", 0, store->sequence);
        else
            store->spare_sizes[store->spare_count++] = loading->bytes.len;
    }
    status = base_status_wrap(status, "%s", path);
    free(path);
    return status;
}

/* ---- settling ---- */

static CH_WAITS struct base_status anchor(struct loading *loading)
{
    struct con__store_local *store = loading->store;
    const char *why = NULL;

    switch (con__index_anchor(&store->index, store->snapshot.index, store->snapshot.term, &why)) {
    case CON_ANCHOR_LOST:
        return base_status_make(
            BASE_DATA_LOSS,
            "%s (the snapshot is of index %" PRIu64 ", the log has %" PRIu64 " to %" PRIu64 ")",
            why, store->snapshot.index,
            con__index_first(&store->index) ? con__index_first(&store->index)->first
                                            : store->index.last + 1,
            store->index.last);
    case CON_ANCHOR_REPLACE:
        con__index_clear(&store->index, store->snapshot.index);
        store->clear_index = store->snapshot.index;
        store->clear_term = store->snapshot.term;
        store->anchored = false;
        break;
    case CON_ANCHOR_HELD:
        store->anchored = true;
        break;
    }
    store->bytes = con__index_bytes(&store->index, store->snapshot.index);
    return BASE_STATUS_OK;
}

/* Zeros over the pieces of a batch that a crash cut short. A crash meanwhile leaves pieces. */
static CH_WAITS struct base_status torn_erase(struct loading *loading)
{
    struct con__store_local *store = loading->store;
    uint8_t *zeros = calloc(1, (size_t)loading->torn_len);
    struct base_bytes part = { zeros, (size_t)loading->torn_len };
    struct ch_file *file = NULL;
    char *path = con__store_path(store, CON_SEGMENT_PREFIX, loading->torn_segment, "");
    struct base_status status;

    BASE_ASSERT(zeros != NULL);
    ch_info(store->env,
            "%s: dropping %" PRIu64 " bytes at %" PRIu64
            " that a crash cut short before they were acknowledged",
            path, loading->torn_len, loading->torn_at);
    status = ch_file_open(store->env, path, CH_FILE_READ | CH_FILE_WRITE, &file);
    if (!base_failed(status)) {
        status = ch_file_write(file, loading->torn_at, &part, 1, true);
        ch_file_close(file);
    }
    free(zeros);
    free(path);
    return status;
}

/* Invariant 2. */
static CH_WAITS struct base_status tail_settle(struct loading *loading)
{
    struct con__store_local *store = loading->store;
    struct base_bytes part = base_buf_bytes(&loading->tail);
    char *path = con__store_path(store, CON_SEGMENT_PREFIX, store->newest, "");
    struct base_status status =
        ch_file_open(store->env, path, CH_FILE_READ | CH_FILE_WRITE, &store->active);

    if (!base_failed(status))
        status = ch_file_write(store->active, loading->tail_begin, &part, 1, true);
    if (!base_failed(status) && loading->torn_len > 0)
        status = torn_erase(loading);
    if (!base_failed(status))
        status = ch_dir_sync(store->env, store->dir);
    free(path);
    return status;
}

/* What a crash brought back, or left undone. */
static CH_WAITS struct base_status stale_remove(struct loading *loading)
{
    struct con__store_local *store = loading->store;
    struct base_status status = BASE_STATUS_OK;

    for (size_t i = 0; i < loading->name_count && !base_failed(status); i++) {
        const char *name = loading->names[i];
        uint64_t number;

        if ((con__store_name_parse(name, CON_SNAPSHOT_PREFIX, &number) &&
             number < store->snapshot.index) ||
            (con__store_name_parse(name, CON_SEGMENT_PREFIX, &number) &&
             number < loading->segments[loading->run]))
            status = ch_file_remove(store->env, in_folder(loading, name));
    }
    return status;
}

/* ---- handing out ---- */

static CH_WAITS struct base_status entries_visit(struct loading *loading,
                                                 const struct con_store_visitor *visitor)
{
    struct con__store_local *store = loading->store;
    uint64_t next = store->snapshot.index + 1;
    struct base_status status = BASE_STATUS_OK;

    while (next <= store->index.last && !base_failed(status)) {
        struct base_arena arena;
        struct con_entry *entries;
        size_t count;

        base_arena_init(&arena);
        status = con__store_read(store, next, ENTRIES_BYTES, &arena, &entries, &count);
        for (size_t i = 0; i < count && !base_failed(status); i++)
            status = visitor->entry(visitor->self, &entries[i]);
        next += count;
        base_arena_free(&arena);
    }
    return status;
}

static CH_WAITS struct base_status visit(struct loading *loading,
                                         const struct con_store_visitor *visitor)
{
    struct con__store_local *store = loading->store;
    struct base_status status = BASE_STATUS_OK;

    if (store->snapshot.index > 0)
        status = visitor->snapshot(visitor->self, store->snapshot.index, store->snapshot.term,
                                   &store->snapshot.config, base_buf_bytes(&loading->state));
    base_buf_free(&loading->state);
    if (!base_failed(status) && store->index.term > 0)
        status = visitor->vote(visitor->self, store->index.term, store->index.vote);
    if (!base_failed(status))
        status = entries_visit(loading, visitor);
    return status;
}

struct base_status con__store_load(void *self, const struct con_store_visitor *visitor)
{
    struct con__store_local *store = self;
    struct loading loading = { .store = store };
    struct base_status status;

    BASE_ASSERT(!store->loaded && !store->active);
    base_arena_init(&loading.arena);
    status = folder_scan(&loading);
    if (!base_failed(status) && store->snapshot.index > 0)
        status = con__snapshot_load(store, store->snapshot.index, &store->snapshot, &loading.state);
    if (!base_failed(status))
        store->oldest = loading.segments[loading.run];
    for (size_t i = loading.run; i < loading.segment_count && !base_failed(status); i++)
        status = segment_take(&loading, i);
    if (!base_failed(status))
        status = anchor(&loading);
    if (!base_failed(status))
        status = tail_settle(&loading);
    if (!base_failed(status))
        status = stale_remove(&loading);
    if (!base_failed(status))
        status = visit(&loading, visitor);
    if (!base_failed(status)) {
        store->loaded = true;
        con__keeper_kick(store);
    }
    base_buf_free(&loading.bytes);
    base_buf_free(&loading.payload);
    base_buf_free(&loading.state);
    base_buf_free(&loading.tail);
    base_arena_free(&loading.arena);
    return base_status_wrap(status, "log store %s", store->dir);
}
