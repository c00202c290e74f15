/* store_local_log.c: writing entries and votes, reading entries.
 *
 * Invariants
 * 1. What `index` knows is durable. It changes only after a sync that returned OK.
 * 2. A batch is begun only after the sync of the one before (segment.c, 1). Everything that a write
 * needs (segments) is there before its first byte is written: so a full disk finds nothing
 * written.
 * 3. After any failure but that one the store is broken: what the disk holds is only known after
 * the next open.
 *
 * Happy path of a write: its records are cut into batches (nearly always one), room is made sure
 * of, each batch is one write and one fdatasync at the end of the newest segment. */
#include "store_local.h"

#include <inttypes.h>
#include <stdlib.h>

enum { BUFFER_KEEP = 256 << 10 }; /* of memory, by an idle store */

/* ---- writing ---- */

/* The records of a write, cut into batches of at most CON_RECORDS_BYTES_MAX. */
struct cutter {
    struct con__store_local *store;
    struct con_batch *batches;
    size_t count, cap;
    size_t begin;          /* of the last batch in store->records */
    uint32_t record_count; /* in it */
};

static void batch_end(struct cutter *cutter)
{
    if (cutter->record_count == 0)
        return;
    if (cutter->count == cutter->cap) {
        cutter->cap = cutter->cap ? 2 * cutter->cap : 4;
        cutter->batches = realloc(cutter->batches, cutter->cap * sizeof(*cutter->batches));
        BASE_ASSERT(cutter->batches != NULL);
    }
    /* The records' address is filled in when they grow no more. */
    cutter->batches[cutter->count] = (struct con_batch){
        .sequence = cutter->store->sequence + cutter->count,
        .record_count = cutter->record_count,
        .records = { NULL, cutter->store->records.len - cutter->begin },
    };
    cutter->count++;
    cutter->begin = cutter->store->records.len;
    cutter->record_count = 0;
}

static void record_add(struct cutter *cutter, const struct con_record *record)
{
    size_t len = CON_RECORD_HEAD_MAX;

    if (record->kind == CON_RECORD_ENTRY)
        len += record->entry.data.len;
    if (cutter->store->records.len - cutter->begin + len > CON_RECORDS_BYTES_MAX)
        batch_end(cutter);
    con__record_put(&cutter->store->records, record);
    cutter->record_count++;
}

static void write_cut(struct cutter *cutter, const struct con_store_write *write)
{
    struct con__store_local *store = cutter->store;
    const uint8_t *at;

    base_buf_clear(&store->records);
    if (store->clear_index > 0)
        record_add(cutter, &(struct con_record){ .kind = CON_RECORD_SNAPSHOT,
                                                 .index = store->clear_index,
                                                 .term = store->clear_term });
    if (write->save_vote)
        record_add(cutter, &(struct con_record){
                               .kind = CON_RECORD_VOTE, .term = write->term, .vote = write->vote });
    for (size_t i = 0; i < write->entry_count; i++)
        record_add(cutter,
                   &(struct con_record){ .kind = CON_RECORD_ENTRY, .entry = write->entries[i] });
    batch_end(cutter);
    at = store->records.data;
    for (size_t i = 0; i < cutter->count; i++) {
        cutter->batches[i].records.data = at;
        at += cutter->batches[i].records.len;
    }
}

/* Invariant 2. Asks again from the start after each wait: the keeper makes spares too. */
static CH_WAITS struct base_status write_reserve(struct con__store_local *store,
                                                 const struct con_batch *batches, size_t count)
{
    struct base_status status = BASE_STATUS_OK;
    bool enough = false;

    while (!enough && !base_failed(status)) {
        uint64_t size = store->size, used = store->used;
        size_t spares = 0;

        enough = true;
        for (size_t i = 0; i < count && enough; i++) {
            size_t need = con__batch_bytes(batches[i].records.len);

            if (used + need > size) {
                if (store->making) {
                    ch_cond_wait_always(&store->made);
                    enough = false;
                    break;
                }
                if (spares >= store->spare_count ||
                    store->spare_sizes[spares] < need + CON_SECTOR) {
                    uint64_t want = con__segment_size_next(size);

                    while (want < need + CON_SECTOR)
                        want = con__segment_size_next(want);
                    status = con__segment_spare(store, spares, want);
                    enough = false;
                    break;
                }
                size = store->spare_sizes[spares++];
                used = CON_SECTOR;
            }
            used += need;
        }
    }
    return status;
}

static CH_WAITS struct base_status batch_write(struct con__store_local *store,
                                               const struct con_batch *batch)
{
    uint8_t head_sector[CON_SECTOR];
    size_t size = con__batch_bytes(batch->records.len);
    struct base_bytes parts[2] = { { head_sector, 0 }, BASE_BYTES_EMPTY };
    struct ch_file *next = NULL;
    struct base_status status = BASE_STATUS_OK;
    const char *why = NULL;

    base_buf_clear(&store->image);
    con__batch_put(batch, &store->image);
    parts[1] = base_buf_bytes(&store->image);
    if (store->used + size <= store->size) {
        status = ch_file_write(store->active, store->used, parts + 1, 1, true);
    } else {
        struct con_segment_head head =
            con__segment_head(store, store->newest + 1, store->spare_sizes[0]);
        char *path = con__store_path(store, CON_SEGMENT_PREFIX, head.number, "");

        con__segment_head_put(&head, head_sector);
        parts[0].len = CON_SECTOR;
        status = ch_file_open(store->env, path, CH_FILE_READ | CH_FILE_WRITE, &next);
        if (!base_failed(status))
            status = ch_file_write(next, 0, parts, 2, true);
        free(path);
        if (!base_failed(status))
            con__segment_advance(store, next);
        else if (next)
            ch_file_close(next);
    }
    if (base_failed(status))
        return status;
    if (!con__index_batch(&store->index, batch, store->newest, store->used, size, &why))
        BASE_ASSERT(!"a batch of our own follows from what was before");
    store->used += size;
    store->sequence++;
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status batches_write(struct con__store_local *store,
                                                 const struct con_batch *batches, size_t count)
{
    struct base_status status = write_reserve(store, batches, count);

    if (base_failed(status))
        return status;
    for (size_t i = 0; i < count && !base_failed(status); i++)
        status = batch_write(store, &batches[i]);
    if (status.code == BASE_RESOURCE_EXHAUSTED) {
        /* From a file system that has no room for what it had given us: whatever it is, it is not
         * "nothing was written". */
        struct base_status other =
            base_status_make(BASE_UNAVAILABLE, "%s", base_status_text(&status));

        base_status_free(&status);
        status = other;
    }
    return status;
}

static void buffer_shrink(struct base_buf *buf)
{
    if (buf->cap > BUFFER_KEEP)
        base_buf_free(buf);
}

/* All of the write is durable. */
static void write_account(struct con__store_local *store, const struct con_store_write *write,
                          const struct cutter *cutter, bool overwrites)
{
    store->clear_index = 0;
    if (overwrites || !store->anchored)
        store->bytes = con__index_bytes(&store->index, store->snapshot.index);
    else if (write->entry_count > 0)
        for (size_t i = 0; i < cutter->count; i++)
            store->bytes += con__batch_bytes(cutter->batches[i].records.len);
    con__snapshot_anchor(store);
    con__keeper_kick(store);
}

struct base_status con__store_write(void *self, const struct con_store_write *borrowed)
{
    struct con__store_local *store = self;
    struct con_store_write write = *borrowed; /* its entries are not looked at after the cut */
    struct cutter cutter = { .store = store };
    struct base_status status;
    bool overwrites = write.entry_count > 0 && write.entries[0].index <= store->index.last;

    BASE_ASSERT(store->loaded && !store->writing && (write.entry_count > 0 || write.save_vote) &&
                (write.entry_count == 0 || write.entries[0].index <= store->index.last + 1));
    if (store->broken)
        return base_status_make(BASE_FAILED_PRECONDITION,
                                "log store %s: a write has failed; it must be opened again",
                                store->dir);
    for (size_t i = 0; i < write.entry_count; i++)
        if (write.entries[i].data.len + CON_RECORD_HEAD_MAX > CON_RECORDS_BYTES_MAX)
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "entry %" PRIu64 " of %zu bytes is too large for a log",
                                    write.entries[i].index, write.entries[i].data.len);
    store->writing = true;
    write_cut(&cutter, &write);
    status = batches_write(store, cutter.batches, cutter.count);
    if (!base_failed(status))
        write_account(store, &write, &cutter, overwrites);
    else if (status.code != BASE_RESOURCE_EXHAUSTED)
        store->broken = true;
    store->writing = false;
    free(cutter.batches);
    buffer_shrink(&store->records);
    buffer_shrink(&store->image);
    return base_status_wrap(status, "log store %s", store->dir);
}

/* ---- reading ---- */

/* Copies the entries of a span that are wanted to the arena. */
static struct base_status span_read(const struct con_span *span, struct base_bytes batch_bytes,
                                    struct base_buf *payload, uint64_t first, size_t bytes_max,
                                    struct base_arena *arena, struct con_entry *entries,
                                    size_t *count, size_t *bytes)
{
    struct con_batch batch;
    struct con_record record;
    const char *why = NULL;
    size_t len;

    if (con__batch_take(batch_bytes, span->sequence, payload, &batch, &len, &why) != CON_SCAN_WHOLE)
        return base_status_make(BASE_DATA_LOSS, "the batch at byte %" PRIu32 " is damaged",
                                span->offset);
    while (con__record_take(&batch.records, &record)) {
        if (record.kind != CON_RECORD_ENTRY || record.entry.index < span->first ||
            record.entry.index < first || record.entry.index >= span->first + span->count)
            continue;
        *bytes += record.entry.data.len;
        if (*count > 0 && *bytes > bytes_max)
            break;
        entries[*count] = record.entry;
        entries[(*count)++].data = base_bytes_dup(arena, record.entry.data);
    }
    return BASE_STATUS_OK;
}

/* Spans from that of `first` on that lie in one segment, up to so many bytes on disk; copied, for
 * the index changes while we read. */
static struct con_span *spans_pick(const struct con__store_local *store, uint64_t first,
                                   size_t bytes_max, struct base_arena *arena, size_t *span_count,
                                   size_t *entry_count)
{
    const struct con_span *from = con__index_find(&store->index, first);
    const struct con_span *end = store->index.spans + store->index.end, *at = from;

    *span_count = *entry_count = 0;
    if (!from)
        return NULL;
    while (at < end && at->segment == from->segment &&
           (at == from || at->offset + at->size - from->offset <= bytes_max)) {
        *entry_count += at->count;
        at++;
    }
    *span_count = (size_t)(at - from);
    return base_arena_memdup(arena, from, *span_count * sizeof(*from));
}

static CH_WAITS struct base_status segment_read(struct con__store_local *store, uint64_t number,
                                                const char *path, uint64_t offset, size_t len,
                                                struct base_buf *bytes)
{
    struct ch_file *file = NULL;
    size_t got = 0;
    struct base_status status = ch_file_open(store->env, path, CH_FILE_READ, &file);

    if (status.code == BASE_NOT_FOUND && number >= store->oldest) {
        base_status_free(&status);
        return base_status_make(BASE_DATA_LOSS, "the file is missing");
    }
    if (base_failed(status))
        return status;
    status = ch_file_read(file, offset, base_buf_extend(bytes, len), len, &got);
    ch_file_close(file);
    if (!base_failed(status) && got < len)
        status = base_status_make(BASE_DATA_LOSS, "it is cut short");
    return status;
}

struct base_status con__store_read(void *self, uint64_t first, size_t bytes_max,
                                   struct base_arena *arena, struct con_entry **entries,
                                   size_t *count)
{
    struct con__store_local *store = self;
    struct base_buf bytes = { 0 }, payload = { 0 };
    size_t span_count, entry_count, data_bytes = 0;
    struct con_span *spans;
    struct base_status status;
    char *path;

    *entries = NULL;
    *count = 0;
    spans = spans_pick(store, first, bytes_max, arena, &span_count, &entry_count);
    if (!spans)
        return base_status_make(BASE_NOT_FOUND, "log store %s: entry %" PRIu64 " is not there",
                                store->dir, first);
    path = con__store_path(store, CON_SEGMENT_PREFIX, spans[0].segment, "");
    status = segment_read(
        store, spans[0].segment, path, spans[0].offset,
        spans[span_count - 1].offset + spans[span_count - 1].size - spans[0].offset, &bytes);
    *entries = BASE_NEW_ARRAY(arena, struct con_entry, entry_count);
    for (size_t i = 0; i < span_count && !base_failed(status); i++) {
        if (*count > 0 && data_bytes > bytes_max)
            break;
        status = span_read(
            &spans[i], base_bytes(bytes.data + (spans[i].offset - spans[0].offset), spans[i].size),
            &payload, first, bytes_max, arena, *entries, count, &data_bytes);
        if (!base_failed(status) && *count == 0)
            status =
                base_status_make(BASE_DATA_LOSS, "entry %" PRIu64 " is not where it was", first);
    }
    status = base_status_wrap(status, "%s", path);
    free(path);
    base_buf_free(&bytes);
    base_buf_free(&payload);
    return status;
}
