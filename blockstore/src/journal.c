/* journal.c: a blockserver's one journal, with group commit.
 *
 * Invariants:
 * 1. `done(ok)` is called after the sync that covers the record, in the order of the puts.
 * 2. One write+sync runs at a time; it takes everything that queued while the one before it ran.
 * 3. Batch k+1 is written only when batch k is durable; a segment's head only when everything in
 * the segment before it is.
 * 4. After a failed write or sync nothing is written any more: what the disk holds is known only
 * after a restart.
 * 5. Ordinary records leave the last segment to the checkpoint, which is what frees segments: they
 * neither begin it nor go on in it.
 * Happy path: put -> the writer fiber gathers a batch -> one write with sync -> done, done, done.
 * Failure: a write fails -> every entry, now and later, is done(false). */
#include "journal.h"

#include <bsd/sys/queue.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/codec.h"
#include "chassis/log.h"
#include "chassis/metrics.h"
#include "store.h"

enum {
    BATCH_RECORDS_MAX = 400,
    BATCH_BYTES_MAX = 4 << 20,
    MARK_DELAY_MS = 20, /* after so long without a record the last batch is marked as durable */
};

struct segment {
    char *path;
    struct ch_file *file;
    uint64_t seq; /* 0: free */
    uint64_t size;
    struct blk__segment_head head;
};

struct queue {
    struct blk__entry *first, **last;
    size_t count;
};

struct blk__journal {
    struct ch_env *env;
    char *dir;
    uint64_t segment_bytes;
    uint32_t segments_wanted;
    struct segment *segments;
    size_t segment_count;
    struct segment *active;
    uint64_t at; /* where the next batch goes in it */
    uint64_t next_batch, last_seq, oldest;
    struct blk__replay replay;
    struct queue ordinary, urgent;
    struct ch_cond changed;
    struct ch_gate gate;
    bool failed, closing, marked;
    struct ch_histogram *sync_ns, *batch_records;
    struct ch_counter *bytes;
};

static void queue_init(struct queue *q)
{
    q->first = 0;
    q->last = &q->first;
    q->count = 0;
}

static void queue_put(struct queue *q, struct blk__entry *entry)
{
    entry->next = 0;
    *q->last = entry;
    q->last = &entry->next;
    q->count++;
}

static struct blk__entry *queue_take(struct queue *q)
{
    struct blk__entry *entry = q->first;
    q->first = entry->next;
    if (!q->first)
        q->last = &q->first;
    q->count--;
    return entry;
}

static size_t entry_bytes(const struct blk__entry *entry)
{
    return BLK_RECORD_HEAD + entry->record.payload.len;
}

static size_t page_up(size_t bytes)
{
    return (bytes + BLK_PAGE - 1) / BLK_PAGE * BLK_PAGE;
}

static size_t free_segments(const struct blk__journal *j)
{
    size_t n = 0;
    for (size_t i = 0; i < j->segment_count; i++)
        n += j->segments[i].seq == 0;
    return n;
}

static void fail(struct blk__journal *j, struct base_status why)
{
    if (!j->failed)
        ch_error(j->env, "journal %s: %s: the disk is not used any more", j->dir,
                 base_status_text(&why));
    base_status_free(&why);
    j->failed = true;
}

/* ---- the writer ---- */

/* Begins the next segment. False: there is none to be had (now). */
static bool rotate(struct blk__journal *j) CH_WAITS;
static bool rotate(struct blk__journal *j)
{
    struct segment *next = 0;
    for (size_t i = 0; i < j->segment_count && !next; i++)
        if (j->segments[i].seq == 0)
            next = &j->segments[i];
    if (!next)
        return false;
    uint8_t page[BLK_PAGE];
    next->head = (struct blk__segment_head){ .seq = j->last_seq + 1,
                                             .first_batch = j->next_batch,
                                             .torn_batch = j->replay.torn_batch,
                                             .torn_records = j->replay.torn_records,
                                             .oldest = j->oldest };
    j->replay.torn_batch = j->replay.torn_records = 0;
    blk__segment_head_put(&next->head, page);
    next->seq = ++j->last_seq;
    struct base_bytes part = base_bytes(page, sizeof page);
    struct base_status status = ch_file_write(next->file, 0, &part, 1, true);
    if (base_failed(status)) {
        fail(j, base_status_wrap(status, "new segment"));
        return false;
    }
    j->active = next;
    j->at = BLK_PAGE;
    return true;
}

struct batch {
    struct queue entries;
    size_t bytes; /* with the head, without padding */
};

static void gather(struct queue *from, struct batch *batch, size_t room)
{
    while (from->first && batch->entries.count < BATCH_RECORDS_MAX &&
           batch->bytes < BATCH_BYTES_MAX &&
           page_up(batch->bytes + entry_bytes(from->first)) <= room) {
        batch->bytes += entry_bytes(from->first);
        queue_put(&batch->entries, queue_take(from));
    }
}

static const uint8_t zeros[BLK_PAGE];

static struct base_status write_batch(struct blk__journal *j, struct batch *batch) CH_WAITS;
static struct base_status write_batch(struct blk__journal *j, struct batch *batch)
{
    size_t n = batch->entries.count, k = 0;
    uint8_t head[BLK_BATCH_HEAD];
    uint8_t(*record_heads)[BLK_RECORD_HEAD] = malloc((n ? n : 1) * sizeof *record_heads);
    struct base_bytes *parts = malloc((2 * n + 2) * sizeof *parts);
    BASE_ASSERT(record_heads && parts);
    blk__batch_head_put(j->active->seq, j->next_batch, (uint32_t)(batch->bytes - BLK_BATCH_HEAD),
                        (uint32_t)n, head);
    parts[k++] = base_bytes(head, sizeof head);
    size_t i = 0;
    for (struct blk__entry *e = batch->entries.first; e; e = e->next, i++) {
        e->seq = j->active->seq;
        blk__record_head_put(&e->record, j->next_batch, record_heads[i]);
        parts[k++] = base_bytes(record_heads[i], BLK_RECORD_HEAD);
        if (e->record.payload.len)
            parts[k++] = e->record.payload;
    }
    size_t padded = page_up(batch->bytes);
    if (padded > batch->bytes)
        parts[k++] = base_bytes(zeros, padded - batch->bytes);
    ch_time began = ch_now(j->env);
    struct base_status status = ch_file_write(j->active->file, j->at, parts, k, true);
    ch_observe(j->sync_ns, (uint64_t)(ch_now(j->env) - began));
    ch_observe(j->batch_records, n);
    ch_count(j->bytes, padded);
    j->at += padded;
    j->next_batch++;
    free(parts);
    free(record_heads);
    return status;
}

static void finish(struct queue *entries, bool ok)
{
    while (entries->first) {
        struct blk__entry *entry = queue_take(entries);
        entry->done(entry, ok);
    }
}

static bool has_room(const struct blk__journal *j, const struct blk__entry *entry)
{
    return j->at + page_up(BLK_BATCH_HEAD + entry_bytes(entry)) <= j->segment_bytes;
}

/* Invariant 5. Urgent ones are the checkpoint's. */
static bool may_write(const struct blk__journal *j, const struct blk__entry *entry, bool urgent)
{
    size_t free = free_segments(j), left = urgent ? 0 : 1;
    return entry && free >= (has_room(j, entry) ? left : left + 1);
}

/* Room for at least one entry in the active segment, or a new one. */
static bool make_room(struct blk__journal *j, const struct blk__entry *entry, bool urgent) CH_WAITS;
static bool make_room(struct blk__journal *j, const struct blk__entry *entry, bool urgent)
{
    return may_write(j, entry, urgent) && (has_room(j, entry) || rotate(j));
}

static void write_some(struct blk__journal *j) CH_WAITS;
static void write_some(struct blk__journal *j)
{
    struct batch batch = { .bytes = BLK_BATCH_HEAD };
    queue_init(&batch.entries);
    if (make_room(j, j->urgent.first, true))
        gather(&j->urgent, &batch, j->segment_bytes - j->at);
    if (batch.entries.count > 0 ? free_segments(j) > 0 : make_room(j, j->ordinary.first, false))
        gather(&j->ordinary, &batch, j->segment_bytes - j->at);
    if (j->failed || batch.entries.count == 0) {
        finish(&batch.entries, false);
        return;
    }
    struct base_status status = write_batch(j, &batch);
    if (base_failed(status))
        fail(j, status);
    j->marked = false;
    finish(&batch.entries, !j->failed);
}

static void write_mark(struct blk__journal *j) CH_WAITS;
static void write_mark(struct blk__journal *j)
{
    struct batch batch = { .bytes = BLK_BATCH_HEAD };
    queue_init(&batch.entries);
    j->marked = true;
    if (j->at + BLK_PAGE > j->segment_bytes)
        return; /* the next segment's head will do as well */
    struct base_status status = write_batch(j, &batch);
    if (base_failed(status))
        fail(j, status);
}

static bool can_write(const struct blk__journal *j)
{
    return may_write(j, j->urgent.first, true) || may_write(j, j->ordinary.first, false);
}

static void writer_main(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk__journal *j = arg;
    while (!j->closing || j->ordinary.first || j->urgent.first) {
        if (j->failed) {
            finish(&j->urgent, false);
            finish(&j->ordinary, false);
        }
        if (!j->failed && can_write(j)) {
            write_some(j);
            continue;
        }
        if (j->closing && !j->failed) { /* the checkpoint is gone: nothing will free a segment */
            finish(&j->urgent, false);
            finish(&j->ordinary, false);
            continue;
        }
        ch_time until = j->marked || j->failed ? CH_NEVER : ch_in(j->env, MARK_DELAY_MS * CH_MS);
        enum ch_outcome outcome = ch_cond_wait(&j->changed, until);
        if (outcome == CH_TIMEOUT && !can_write(j) && !j->failed)
            write_mark(j);
        else if (outcome == CH_CANCELLED)
            j->closing = true;
    }
}

void blk__journal_put(struct blk__journal *j, struct blk__entry *entry, bool first)
{
    BASE_ASSERT(page_up(BLK_BATCH_HEAD + entry_bytes(entry)) + BLK_PAGE <= j->segment_bytes);
    if (j->failed || j->closing) {
        entry->done(entry, false);
        return;
    }
    queue_put(first ? &j->urgent : &j->ordinary, entry);
    ch_cond_signal(&j->changed);
}

bool blk__journal_failed(const struct blk__journal *j)
{
    return j->failed;
}

uint64_t blk__journal_seq(const struct blk__journal *j)
{
    return j->active->seq;
}

uint32_t blk__journal_live(const struct blk__journal *j, uint32_t *segments)
{
    *segments = (uint32_t)j->segment_count;
    return (uint32_t)(j->segment_count - free_segments(j));
}

void blk__journal_release(struct blk__journal *j, uint64_t seq)
{
    if (seq > j->oldest)
        j->oldest = seq;
    for (size_t i = 0; i < j->segment_count; i++)
        if (j->segments[i].seq < seq && &j->segments[i] != j->active)
            j->segments[i].seq = 0;
    ch_cond_signal(&j->changed);
}

/* ---- opening ---- */

static struct base_status segment_open(struct blk__journal *j, const char *name,
                                       bool create) CH_WAITS BASE_MUST_CHECK;
static struct base_status segment_open(struct blk__journal *j, const char *name, bool create)
{
    j->segments = realloc(j->segments, (j->segment_count + 1) * sizeof *j->segments);
    BASE_ASSERT(j->segments);
    struct segment *s = &j->segments[j->segment_count];
    *s = (struct segment){ 0 };
    if (asprintf(&s->path, "%s/%s", j->dir, name) < 0)
        abort();
    struct base_status status = ch_file_open(
        j->env, s->path, CH_FILE_READ | CH_FILE_WRITE | (create ? CH_FILE_CREATE : 0), &s->file);
    if (base_failed(status)) {
        free(s->path);
        return status;
    }
    j->segment_count++;
    status = ch_file_size(s->file, &s->size);
    if (!base_failed(status) && s->size < j->segment_bytes && create) {
        status = ch_file_allocate(s->file, 0, j->segment_bytes);
        s->size = j->segment_bytes;
    }
    return status;
}

/* Reads a segment's head. *damaged: it once was one. */
static struct base_status segment_head(struct segment *s, bool *damaged) CH_WAITS BASE_MUST_CHECK;
static struct base_status segment_head(struct segment *s, bool *damaged)
{
    uint8_t page[BLK_PAGE] = { 0 };
    size_t got;
    struct base_status status = ch_file_read(s->file, 0, page, sizeof page, &got);
    if (base_failed(status))
        return status;
    if (blk__segment_head_take(page, &s->head))
        s->seq = s->head.seq;
    else
        for (size_t i = 0; i < sizeof page; i++)
            *damaged = *damaged || page[i];
    return status;
}

static int by_seq(const void *a, const void *b)
{
    const struct segment *x = a, *y = b;
    return (x->seq > y->seq) - (x->seq < y->seq);
}

static struct base_status replay_all(struct blk__journal *j,
                                     const struct blk__replay_visitor *visitor,
                                     bool damaged) CH_WAITS BASE_MUST_CHECK;
static struct base_status replay_all(struct blk__journal *j,
                                     const struct blk__replay_visitor *visitor, bool damaged)
{
    j->replay = (struct blk__replay){ 0 };
    uint8_t *bytes = malloc(j->segment_bytes);
    BASE_ASSERT(bytes);
    struct base_status status = BASE_STATUS_OK;
    for (size_t i = 0; i < j->segment_count && !base_failed(status); i++) {
        struct segment *s = &j->segments[i];
        if (s->seq == 0)
            continue;
        size_t got = 0, size = s->size < j->segment_bytes ? s->size : j->segment_bytes;
        status = ch_file_read(s->file, 0, bytes, size, &got);
        if (!base_failed(status))
            blk__replay_segment(&j->replay, &s->head, base_bytes(bytes, got),
                                i + 1 < j->segment_count ? &j->segments[i + 1].head : 0, visitor);
    }
    if (damaged)
        visitor->damage(visitor->self, 0, "the head of a journal segment");
    free(bytes);
    return status;
}

static void ignore_record(void *self, const struct blk__record *record, uint64_t seq)
{
}

static void ignore_damage(void *self, uint64_t block, const char *what)
{
}

static struct base_status find_segments(struct blk__journal *j,
                                        bool *damaged) CH_WAITS BASE_MUST_CHECK;
static struct base_status find_segments(struct blk__journal *j, bool *damaged)
{
    struct base_arena arena;
    base_arena_init(&arena);
    char **names;
    size_t count;
    uint64_t oldest = 0;
    struct base_status status = ch_dir_list(j->env, j->dir, &arena, &names, &count);
    for (size_t i = 0; i < count && !base_failed(status); i++) {
        status = segment_open(j, names[i], false);
        if (!base_failed(status))
            status = segment_head(&j->segments[j->segment_count - 1], damaged);
    }
    base_arena_free(&arena);
    for (size_t i = 0; i < j->segment_count; i++) {
        j->last_seq = j->segments[i].seq > j->last_seq ? j->segments[i].seq : j->last_seq;
        oldest = j->segments[i].seq && j->segments[i].head.oldest > oldest
                     ? j->segments[i].head.oldest
                     : oldest;
    }
    for (size_t i = 0; i < j->segment_count; i++)
        if (j->segments[i].seq < oldest)
            j->segments[i].seq = 0;
    j->oldest = oldest;
    if (j->segment_count)
        qsort(j->segments, j->segment_count, sizeof *j->segments, by_seq);
    return status;
}

/* Enough segments: the wanted number, and at least two free ones to begin with. */
static struct base_status make_segments(struct blk__journal *j) CH_WAITS BASE_MUST_CHECK;
static struct base_status make_segments(struct blk__journal *j)
{
    struct base_status status = BASE_STATUS_OK;
    for (unsigned name = 0;
         !base_failed(status) && (j->segment_count < j->segments_wanted || free_segments(j) < 2);
         name++) {
        char file[32];
        snprintf(file, sizeof file, "%04u.journal", name);
        bool used = false;
        for (size_t i = 0; i < j->segment_count; i++)
            used = used || strcmp(j->segments[i].path + strlen(j->dir) + 1, file) == 0;
        if (!used)
            status = segment_open(j, file, true);
    }
    for (size_t i = 0; i < j->segment_count && !base_failed(status);
         i++) /* a crash while it was being made */
        if (j->segments[i].size < j->segment_bytes) {
            status = ch_file_allocate(j->segments[i].file, 0, j->segment_bytes);
            j->segments[i].size = j->segment_bytes;
        }
    if (!base_failed(status)) /* also when none was made: an earlier start may have ended between
                                 making and this */
        status = ch_dir_sync(j->env, j->dir);
    return status;
}

/* A process that was killed leaves what it had written and not yet synced: it was replayed as all
 * else, and what comes now builds on it, so it is made durable first. It can only be in the last
 * segment: a batch, or a segment's head, is written after the one before is durable. */
static struct base_status sync_last(struct blk__journal *j) CH_WAITS BASE_MUST_CHECK;
static struct base_status sync_last(struct blk__journal *j)
{
    struct segment *last = NULL;
    for (size_t i = 0; i < j->segment_count; i++)
        if (j->segments[i].seq && (!last || j->segments[i].seq > last->seq))
            last = &j->segments[i];
    return last ? ch_file_sync(last->file) : BASE_STATUS_OK;
}

static void free_all(struct blk__journal *j) CH_WAITS;
static void free_all(struct blk__journal *j)
{
    for (size_t i = 0; i < j->segment_count; i++) {
        ch_file_close(j->segments[i].file);
        free(j->segments[i].path);
    }
    free(j->segments);
    free(j->dir);
    free(j);
}

struct base_status blk__journal_open(struct ch_env *env, const struct blk__journal_options *options,
                                     const struct blk__replay_visitor *state,
                                     const struct blk__replay_visitor *visitor,
                                     struct blk__journal **journal)
{
    static const struct blk__replay_visitor none = { ignore_record, ignore_damage, 0 };
    BASE_ASSERT(options->segments >= 3);
    struct blk__journal *j = calloc(1, sizeof *j);
    BASE_ASSERT(j);
    j->env = env;
    j->dir = strdup(options->dir);
    j->segment_bytes = options->segment_bytes / BLK_PAGE * BLK_PAGE;
    j->segments_wanted = options->segments;
    queue_init(&j->ordinary);
    queue_init(&j->urgent);
    ch_cond_init(&j->changed);
    j->sync_ns = ch_histogram(env, "blockserver_journal_sync_ns", "",
                              "time of one journal write with its sync");
    j->batch_records =
        ch_histogram(env, "blockserver_journal_batch_records", "", "records that shared one sync");
    j->bytes = ch_counter(env, "blockserver_journal_bytes", "", "bytes written to the journal");
    bool damaged = false;
    struct base_status status = blk__dir_make_durable(env, j->dir);
    if (!base_failed(status))
        status = find_segments(j, &damaged);
    if (!base_failed(status))
        status = sync_last(j);
    if (!base_failed(status) && state)
        status = replay_all(j, state, damaged);
    if (!base_failed(status))
        status = replay_all(j, visitor ? visitor : &none, damaged);
    if (!base_failed(status))
        status = make_segments(j);
    if (base_failed(status)) {
        free_all(j);
        return base_status_wrap(status, "journal %s", options->dir);
    }
    if (j->replay.next_batch == 0)
        j->replay.next_batch = 1;
    j->next_batch = j->replay.next_batch;
    j->marked = true;
    if (!rotate(j)) {
        free_all(j);
        return base_status_make(BASE_UNAVAILABLE, "journal %s: cannot begin a segment",
                                options->dir);
    }
    ch_gate_init(&j->gate, env, "journal");
    status = ch_gate_spawn(&j->gate, "journal", writer_main, j);
    if (base_failed(status)) {
        free_all(j);
        return status;
    }
    *journal = j;
    return BASE_STATUS_OK;
}

void blk__journal_close(struct blk__journal *j)
{
    j->closing = true;
    ch_cond_broadcast(&j->changed);
    ch_gate_close(&j->gate);
    ch_gate_join_always(&j->gate);
    free_all(j);
}
