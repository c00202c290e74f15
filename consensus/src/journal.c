/* journal.c: segments and snapshots in a folder.
 *
 * Invariants
 * 1. A file under its final name is whole: segments and snapshots are written under another name,
 * synced, renamed, and the folder synced before anything relies on them. So a bad head or a short
 * file is corruption, not a crash.
 * 2. Segments hold consecutive indexes from the snapshot on; a gap is DATA_LOSS. Older ones may
 * linger after a crash and are dropped at the next open.
 * 3. A segment is dropped only after a snapshot that covers it is durable.
 * 4. Nothing is cut because of a bad checksum (batch.c, invariant 3).
 *
 * Happy path: open (lock, snapshot, replay) -> reserve, append, reserve, append … -> snapshot now
 * and then -> close. Failure: no space to allocate a segment: RESOURCE_EXHAUSTED from reserve,
 * nothing written, all goes on when there is space again. A failed write or sync: the caller must
 * stop using the journal; the next open finds what is on the disk. */
#include "journal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/codec.h"
#include "chassis/log.h"

enum { SNAPSHOT_HEAD = 40 };
static const char snapshot_magic[8] = "STRATSN1";
#define SEGMENT_PREFIX "journal-"
#define SNAPSHOT_PREFIX "snapshot-"

static char *path_of(const struct con_journal *journal, const char *prefix, uint64_t index)
{
    char *path = NULL;

    if (asprintf(&path, "%s/%s%020" PRIu64, journal->dir, prefix, index) < 0)
        abort();
    return path;
}

static bool name_parse(const char *name, const char *prefix, uint64_t *index)
{
    char *end = NULL;

    if (strncmp(name, prefix, strlen(prefix)) != 0 || strlen(name) != strlen(prefix) + 20)
        return false;
    *index = strtoull(name + strlen(prefix), &end, 10);
    return *end == '\0';
}

static void segment_add(struct con_journal *journal, uint64_t first_index)
{
    if (journal->segment_count == journal->segment_cap) {
        journal->segment_cap = journal->segment_cap ? 2 * journal->segment_cap : 8;
        journal->segments =
            realloc(journal->segments, journal->segment_cap * sizeof(*journal->segments));
        if (!journal->segments)
            abort();
    }
    journal->segments[journal->segment_count++] = (struct con_segment){ first_index, CON_SECTOR };
}

/* ---- opening ---- */

static struct base_status folder_take(struct con_journal *journal) CH_WAITS;
static struct base_status folder_scan(struct con_journal *journal) CH_WAITS;
static struct base_status snapshot_load(struct con_journal *journal,
                                        const struct con_journal_replay *replay) CH_WAITS;
static struct base_status segments_replay(struct con_journal *journal,
                                          const struct con_journal_replay *replay) CH_WAITS;
static struct base_status segment_make(struct con_journal *journal, uint64_t first_index) CH_WAITS;

struct base_status con__journal_open(struct con_journal *journal, struct ch_env *env,
                                     const char *dir, const struct con_journal_replay *replay)
{
    struct base_status status;

    *journal = (struct con_journal){ .env = env, .dir = strdup(dir), .next_index = 1 };
    status = folder_take(journal);
    if (!base_failed(status))
        status = folder_scan(journal);
    if (!base_failed(status))
        status = snapshot_load(journal, replay);
    if (!base_failed(status))
        status = segments_replay(journal, replay);
    if (!base_failed(status) && journal->segment_count == 0)
        status = segment_make(journal, journal->next_index);
    if (base_failed(status))
        con__journal_close(journal);
    return base_status_wrap(status, "journal %s", dir);
}

void con__journal_close(struct con_journal *journal)
{
    if (journal->active)
        ch_file_close(journal->active);
    if (journal->folder_lock)
        ch_file_close(journal->folder_lock);
    free(journal->segments);
    free(journal->dir);
    base_buf_free(&journal->write);
    *journal = (struct con_journal){ 0 };
}

static struct base_status folder_take(struct con_journal *journal)
{
    struct base_status status = ch_dir_make(journal->env, journal->dir);
    char *path = NULL, *slash;

    if (base_failed(status))
        return status;
    if (asprintf(&path, "%s/LOCK", journal->dir) < 0)
        abort();
    status = ch_file_open(journal->env, path, CH_FILE_READ | CH_FILE_WRITE | CH_FILE_CREATE,
                          &journal->folder_lock);
    if (!base_failed(status))
        status = base_status_wrap(ch_file_lock(journal->folder_lock), "another process uses it");
    free(path);
    if (base_failed(status))
        return status;
    /* The folder's own name must outlast a crash, or all that is synced inside it goes with it. */
    path = strdup(journal->dir);
    slash = strrchr(path, '/');
    if (slash && slash != path) {
        *slash = '\0';
        status = ch_dir_sync(journal->env, path);
    }
    free(path);
    return status;
}

/* Finds the newest snapshot and the segments from it on; drops what a crash left behind. */
static struct base_status folder_scan(struct con_journal *journal)
{
    struct base_arena arena;
    char **names = NULL;
    size_t count = 0;
    uint64_t index;
    struct base_status status;

    base_arena_init(&arena);
    status = ch_dir_list(journal->env, journal->dir, &arena, &names, &count);
    for (size_t i = 0; !base_failed(status) && i < count; i++) {
        if (name_parse(names[i], SNAPSHOT_PREFIX, &index))
            journal->snapshot_index = index; /* sorted: the last is the newest */
        else if (name_parse(names[i], SEGMENT_PREFIX, &index))
            segment_add(journal, index);
    }
    for (size_t i = 0; !base_failed(status) && i < count; i++) {
        bool stale =
            name_parse(names[i], SNAPSHOT_PREFIX, &index) && index < journal->snapshot_index;
        size_t len = strlen(names[i]);

        if (!stale && (len < 4 || strcmp(names[i] + len - 4, ".new") != 0))
            continue;
        status = ch_file_remove(journal->env,
                                base_arena_printf(&arena, "%s/%s", journal->dir, names[i]));
    }
    /* A segment is covered when the next one begins no later than what follows the snapshot. */
    while (!base_failed(status) && journal->segment_count > 1 &&
           journal->segments[1].first_index <= journal->snapshot_index + 1) {
        char *path = path_of(journal, SEGMENT_PREFIX, journal->segments[0].first_index);

        status = ch_file_remove(journal->env, path);
        free(path);
        memmove(journal->segments, journal->segments + 1,
                --journal->segment_count * sizeof(*journal->segments));
    }
    base_arena_free(&arena);
    return status;
}

static struct base_status snapshot_load(struct con_journal *journal,
                                        const struct con_journal_replay *replay)
{
    struct base_buf file = { 0 };
    char *path;
    struct base_status status;

    if (journal->snapshot_index == 0)
        return BASE_STATUS_OK;
    path = path_of(journal, SNAPSHOT_PREFIX, journal->snapshot_index);
    status = ch_file_read_all(journal->env, path, SIZE_MAX, &file);
    if (base_failed(status))
        goto done;
    if (file.len < SNAPSHOT_HEAD || memcmp(file.data, snapshot_magic, 8) != 0 ||
        base_get_le64(file.data + 16) != journal->snapshot_index ||
        base_get_le64(file.data + 32) != file.len - SNAPSHOT_HEAD ||
        base_get_le32(file.data + 8) != base_crc32c(0, file.data + 12, file.len - 12)) {
        status = base_status_make(BASE_DATA_LOSS,
                                  "%s is damaged (%zu bytes; its checksum does not match)", path,
                                  file.len);
        goto done;
    }
    journal->term = base_get_le64(file.data + 24);
    journal->snapshot_bytes = file.len;
    journal->next_index = journal->snapshot_index + 1;
    status = replay->snapshot(replay->self, journal->snapshot_index,
                              base_bytes(file.data + SNAPSHOT_HEAD, file.len - SNAPSHOT_HEAD));
done:
    base_buf_free(&file);
    free(path);
    return status;
}

/* Hands out the batches of one segment. `index` is the next one expected in it, which may lie
 * before the snapshot's end. */
static struct base_status segment_replay(struct con_journal *journal, size_t which, uint64_t *index,
                                         struct base_bytes bytes,
                                         const struct con_journal_replay *replay, size_t *torn)
{
    struct base_buf payload = { 0 };
    struct base_status status = BASE_STATUS_OK;
    struct con_segment *segment = &journal->segments[which];
    size_t at = CON_SECTOR, len = 0;

    while (!base_failed(status)) {
        struct con_batch batch;
        const char *why = NULL;
        enum con_scan scan = con__batch_scan(base_bytes(bytes.data + at, bytes.len - at), *index,
                                             &payload, &batch, &len, &why);

        if (scan == CON_SCAN_TORN && which + 1 < journal->segment_count) {
            scan = CON_SCAN_CORRUPT;
            why = "a batch is incomplete though later segments follow";
        }
        if (scan == CON_SCAN_CORRUPT)
            status = base_status_make(BASE_DATA_LOSS, "%s at byte %zu, index %" PRIu64 " expected",
                                      why, at + len, *index);
        if (scan == CON_SCAN_TORN)
            *torn = len;
        if (scan != CON_SCAN_BATCH)
            break;
        if (batch.first_index > journal->snapshot_index) {
            status = replay->batch(replay->self, &batch);
            journal->bytes += len;
        } else if (batch.first_index + batch.count - 1 > journal->snapshot_index) {
            status = base_status_make(
                BASE_DATA_LOSS, "the snapshot ends inside the batch of index %" PRIu64, *index);
        }
        *index += batch.count;
        journal->term = batch.term > journal->term ? batch.term : journal->term;
        at += len;
    }
    segment->bytes = at;
    base_buf_free(&payload);
    return status;
}

static CH_WAITS struct base_status segment_read(struct con_journal *journal, const char *path,
                                                uint64_t first_index, struct base_buf *bytes)
{
    uint64_t head_index = 0, size = 0;
    struct base_status status =
        ch_file_read_all(journal->env, path, 4 * (size_t)CON_SEGMENT_BYTES, bytes);

    if (base_failed(status))
        return status;
    if (bytes->len < CON_SECTOR || !con__segment_head_decode(bytes->data, &head_index, &size) ||
        head_index != first_index)
        return base_status_make(BASE_DATA_LOSS, "its head is damaged");
    if (size != bytes->len)
        return base_status_make(BASE_DATA_LOSS, "it has %zu bytes and should have %" PRIu64,
                                bytes->len, size);
    return BASE_STATUS_OK;
}

/* A torn tail is zeroed, so that what is written there next is not mixed with it. A crash
 * meanwhile leaves a torn tail. */
static CH_WAITS struct base_status tail_erase(struct con_journal *journal, uint64_t at, size_t len)
{
    uint8_t *zeros = calloc(1, len);
    struct base_bytes part = { zeros, len };
    struct base_status status = ch_file_write(journal->active, at, &part, 1, true);

    free(zeros);
    ch_info(journal->env,
            "journal %s: dropped %zu bytes at %" PRIu64
            " that a crash cut short before they were acknowledged",
            journal->dir, len, at);
    return status;
}

static struct base_status segments_replay(struct con_journal *journal,
                                          const struct con_journal_replay *replay)
{
    struct base_status status = BASE_STATUS_OK;
    struct base_buf bytes = { 0 };
    uint64_t index =
        journal->segment_count > 0 ? journal->segments[0].first_index : journal->next_index;
    size_t torn = 0;

    if (journal->segment_count == 0 && journal->snapshot_index > 0)
        return base_status_make(BASE_DATA_LOSS,
                                "there is a snapshot of index %" PRIu64 " but no journal",
                                journal->snapshot_index);
    if (index > journal->next_index)
        return base_status_make(BASE_DATA_LOSS, "indexes %" PRIu64 " to %" PRIu64 " are missing",
                                journal->next_index, index - 1);
    for (size_t i = 0; !base_failed(status) && i < journal->segment_count; i++) {
        uint64_t first_index = journal->segments[i].first_index;
        char *path = path_of(journal, SEGMENT_PREFIX, first_index);

        base_buf_clear(&bytes);
        if (first_index != index)
            status =
                base_status_make(BASE_DATA_LOSS, "indexes %" PRIu64 " to %" PRIu64 " are missing",
                                 index, first_index - 1);
        if (!base_failed(status))
            status = segment_read(journal, path, first_index, &bytes);
        if (!base_failed(status))
            status = segment_replay(journal, i, &index, base_buf_bytes(&bytes), replay, &torn);
        if (!base_failed(status) && i + 1 == journal->segment_count)
            status =
                ch_file_open(journal->env, path, CH_FILE_READ | CH_FILE_WRITE, &journal->active);
        status = base_status_wrap(status, "%s", path);
        free(path);
    }
    base_buf_free(&bytes);
    if (!base_failed(status) && index < journal->next_index)
        status = base_status_make(
            BASE_DATA_LOSS, "the journal ends at %" PRIu64 ", before its snapshot of %" PRIu64,
            index - 1, journal->snapshot_index);
    journal->next_index = index;
    if (!base_failed(status) && torn > 0)
        status = tail_erase(journal, journal->segments[journal->segment_count - 1].bytes, torn);
    return status;
}

/* ---- appending ---- */

/* A new active segment: allocated, headed and synced under another name first (invariant 1). */
static struct base_status segment_make(struct con_journal *journal, uint64_t first_index)
{
    uint8_t head[CON_SECTOR];
    struct base_bytes part = { head, sizeof(head) };
    struct ch_file *file = NULL;
    char *path = path_of(journal, SEGMENT_PREFIX, first_index), *aside = NULL;
    struct base_status status;

    if (asprintf(&aside, "%s.new", path) < 0)
        abort();
    con__segment_head_encode(first_index, CON_SEGMENT_BYTES, head);
    status = ch_file_open(journal->env, aside,
                          CH_FILE_READ | CH_FILE_WRITE | CH_FILE_CREATE | CH_FILE_TRUNCATE, &file);
    if (!base_failed(status))
        status = ch_file_allocate(file, 0, CON_SEGMENT_BYTES);
    if (!base_failed(status))
        status = ch_file_write(file, 0, &part, 1, true);
    if (!base_failed(status))
        status = ch_file_rename(journal->env, aside, path);
    if (!base_failed(status))
        status = ch_dir_sync(journal->env, journal->dir);
    if (!base_failed(status)) {
        if (journal->active)
            ch_file_close(journal->active);
        journal->active = file;
        segment_add(journal, first_index);
    } else if (file) {
        ch_file_close(file);
        base_status_drop(
            ch_file_remove(journal->env, aside)); /* the next open does, if this cannot */
    }
    free(aside);
    free(path);
    return base_status_wrap(status, "new segment");
}

struct base_status con__journal_reserve(struct con_journal *journal, size_t records_len)
{
    const struct con_segment *last = &journal->segments[journal->segment_count - 1];

    BASE_ASSERT(records_len <= CON_RECORDS_BYTES_MAX);
    if (last->bytes + con__batch_size(records_len) <= CON_SEGMENT_BYTES)
        return BASE_STATUS_OK;
    return segment_make(journal, journal->next_index);
}

struct base_status con__journal_append(struct con_journal *journal, const struct con_batch *batch)
{
    struct con_segment *last = &journal->segments[journal->segment_count - 1];
    struct base_bytes part;
    struct base_status status;

    BASE_ASSERT(batch->first_index == journal->next_index && batch->count > 0 &&
                batch->term >= journal->term);
    base_buf_clear(&journal->write);
    con__batch_encode(batch, &journal->write);
    part = base_buf_bytes(&journal->write);
    BASE_ASSERT(last->bytes + part.len <= CON_SEGMENT_BYTES);
    status = ch_file_write(journal->active, last->bytes, &part, 1, true);
    if (base_failed(status))
        return base_status_wrap(status, "journal %s", journal->dir);
    /* A snapshot beside us may have dropped older segments meanwhile: they moved, the last is
     * still the last. */
    journal->segments[journal->segment_count - 1].bytes += part.len;
    journal->bytes += part.len;
    journal->next_index += batch->count;
    journal->term = batch->term;
    return BASE_STATUS_OK;
}

/* ---- snapshots ---- */

static CH_WAITS struct base_status covered_drop(struct con_journal *journal)
{
    struct base_status status = BASE_STATUS_OK;

    while (!base_failed(status) && journal->segment_count > 1 &&
           journal->segments[1].first_index <= journal->snapshot_index + 1) {
        char *path = path_of(journal, SEGMENT_PREFIX, journal->segments[0].first_index);

        memmove(journal->segments, journal->segments + 1,
                --journal->segment_count * sizeof(*journal->segments));
        status = ch_file_remove(journal->env, path);
        free(path);
    }
    return status;
}

struct base_status con__journal_snapshot(struct con_journal *journal, uint64_t index, uint64_t term,
                                         uint64_t bytes, struct base_bytes state)
{
    struct base_buf file = { 0 };
    uint64_t older = journal->snapshot_index;
    char *path = path_of(journal, SNAPSHOT_PREFIX, index);
    uint8_t *head = base_buf_extend(&file, SNAPSHOT_HEAD);
    struct base_status status;

    memset(head, 0, SNAPSHOT_HEAD);
    memcpy(head, snapshot_magic, sizeof(snapshot_magic));
    base_put_le64(head + 16, index);
    base_put_le64(head + 24, term);
    base_put_le64(head + 32, state.len);
    base_buf_put_bytes(&file, state);
    base_put_le32(file.data + 8, base_crc32c(0, file.data + 12, file.len - 12));
    status = ch_file_write_all(journal->env, path, base_buf_bytes(&file));
    if (!base_failed(status)) {
        journal->snapshot_index = index;
        journal->snapshot_bytes = file.len;
        journal->bytes -= bytes;
    }
    base_buf_free(&file);
    free(path);
    if (!base_failed(status) && older > 0) {
        path = path_of(journal, SNAPSHOT_PREFIX, older);
        status = ch_file_remove(journal->env, path);
        free(path);
    }
    if (!base_failed(status))
        status = covered_drop(journal);
    return base_status_wrap(status, "snapshot of index %" PRIu64, index);
}
