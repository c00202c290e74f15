/* store_replay.c: a restart: what the folder and the journal say, put together.
 *
 * Invariants:
 * 1. A finished file (.blk) says all of its replica; records of the journal about it are history,
 * but a removal of the same generation.
 * 2. An unfinished replica is its last STATE record (what of its file was synced) and the appends
 * after it; the bytes of those are in memory again until the keeper has written them.
 * 3. Where the journal is damaged a replica is doubtful (its length proves nothing), never silently
 * shorter. When the damage could be of a block this server has forgotten, every block it does not
 * know is doubtful, up to the id the master gives.
 * 4. Nothing is deleted but what a durable removal, a finished copy or a .tmp name says; what is
 * not understood is moved to lost/. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/codec.h"
#include "store_int.h"

enum { STATE_FENCED = 1, STATE_SEALED = 2, STATE_BAD = 4, STATE_DOUBTFUL = 8, STATE_TOMB = 16 };

void blk__state_put(const struct blk__replica *r, struct base_buf *out)
{
    base_buf_put_u8(out, (uint8_t)((r->fenced ? STATE_FENCED : 0) | (r->sealed ? STATE_SEALED : 0) |
                                   (r->bad ? STATE_BAD : 0) | (r->doubtful ? STATE_DOUBTFUL : 0) |
                                   (r->tomb ? STATE_TOMB : 0)));
    base_buf_put_le64(out, r->epoch);
    base_buf_put_le64(out, r->start);
    base_buf_put_le64(out, r->generation);
    base_buf_put_le64(out, r->written);
    base_buf_put_le64(out, r->sealed ? r->length : 0);
    blk__sums_put(&r->sums, out);
}

bool blk__state_take(struct base_bytes in, struct blk__replica *r)
{
    uint64_t written, sealed_length;
    if (in.len == 0)
        return false;
    uint8_t flags = in.data[0];
    in = base_bytes(in.data + 1, in.len - 1);
    if (!base_take_le64(&in, &r->epoch) || !base_take_le64(&in, &r->start) ||
        !base_take_le64(&in, &r->generation) || !base_take_le64(&in, &written) ||
        !base_take_le64(&in, &sealed_length) || !blk__sums_take(&r->sums, written, &in))
        return false;
    r->fenced = flags & STATE_FENCED;
    r->sealed = flags & STATE_SEALED;
    r->bad = flags & STATE_BAD;
    r->doubtful = flags & STATE_DOUBTFUL;
    r->tomb = flags & STATE_TOMB;
    r->written = written;
    r->length = r->accepted = r->sealed ? sealed_length : written;
    return true;
}

struct replay {
    struct blk__store *store;
    struct blk__replica *removed; /* a table of those removed */
    bool damaged;                 /* any block may have lost records */
};

/* Records of it may be lost. Not of a sealed one: its length says whether all are there. */
static void doubt(struct blk__store *store, struct blk__replica *r)
{
    if (!r->finished && !r->sealed && !r->tomb)
        r->doubtful = true;
}

/* ---- the first pass: the last STATE of each block ---- */

static void state_record(void *self, const struct blk__record *record, uint64_t seq)
{
    struct replay *replay = self;
    if (record->type != BLK_RECORD_STATE)
        return;
    struct blk__replica *r = blk__replica_find(replay->store, record->block);
    if (r && r->finished)
        return;
    if (!r)
        r = blk__replica_add(replay->store, record->block);
    if (!blk__state_take(record->payload, r)) {
        ch_error(replay->store->env, "block %" PRIu64 ": a state record that is not understood",
                 record->block);
        r->bad = r->doubtful = true;
    }
    r->oldest_seq = seq;
}

static void state_damage(void *self, uint64_t block, const char *what)
{
}

/* ---- the second pass: everything else, in order ---- */

static void replay_append(struct blk__store *store, struct blk__replica *r,
                          const struct blk__record *record)
{
    bool direct = record->type == BLK_RECORD_DIRECT;
    const struct base_bytes *payload = &record->payload;
    size_t bytes = direct && payload->len == 8 ? base_get_le32(payload->data) : payload->len;
    uint64_t end = record->offset + bytes;
    if (end <= r->length || r->sealed)
        return;
    if (record->offset > r->length || (direct && record->offset < r->length)) {
        ch_error(store->env, "block %" PRIu64 ": the journal says %" PRIu64 " after %" PRIu64,
                 r->block, record->offset, r->length);
        doubt(store, r);
        return;
    }
    size_t skip = r->length - record->offset, len = bytes - skip;
    struct blk__extent *extent = malloc(sizeof *extent + len);
    BASE_ASSERT(extent);
    *extent = (struct blk__extent){ .store = store,
                                    .replica = r,
                                    .offset = r->length,
                                    .in_file = direct,
                                    .unloaded = direct,
                                    .len = len };
    if (direct)
        extent->crc = base_get_le32(payload->data + 4);
    else
        memcpy(extent->data, payload->data + skip, len);
    r->refs++;
    r->length = r->accepted = end;
    store->unwritten_bytes += len;
    STAILQ_INSERT_TAIL(&r->extents, extent, link);
}

static void replay_remove(struct replay *replay, struct blk__replica *r)
{
    while (!STAILQ_EMPTY(&r->extents)) {
        struct blk__extent *extent = STAILQ_FIRST(&r->extents);
        STAILQ_REMOVE_HEAD(&r->extents, link);
        blk__extent_free(extent);
    }
    if (!r->sealed) {
        blk__replica_bury(replay->store, r);
        return;
    }
    if (r->changed)
        TAILQ_REMOVE(&replay->store->reports, r, report_link);
    r->changed = false;
    HASH_DEL(replay->store->table, r);
    struct blk__replica *already;
    HASH_FIND(hh, replay->removed, &r->block, sizeof r->block, already);
    if (already) {
        r->gone = true;
        blk__replica_unref(r);
    } else {
        HASH_ADD(hh, replay->removed, block, sizeof r->block, r);
    }
}

static void replay_record(void *self, const struct blk__record *record, uint64_t seq)
{
    struct replay *replay = self;
    struct blk__store *store = replay->store;
    if (record->type == BLK_RECORD_STATE)
        return;
    struct blk__replica *r = blk__replica_find(store, record->block);
    if (record->type == BLK_RECORD_REMOVE) {
        if (r && r->generation == record->extra)
            replay_remove(replay, r);
        return;
    }
    if (r && (r->finished || r->tomb))
        return;
    if (!r) {
        r = blk__replica_add(store, record->block);
        r->epoch = record->epoch;
        r->start = record->extra;
    }
    if (r->oldest_seq == 0)
        r->oldest_seq = seq;
    if (record->type == BLK_RECORD_APPEND || record->type == BLK_RECORD_DIRECT) {
        if (r->length == 0)
            r->start = record->extra;
        replay_append(store, r, record);
    } else if (record->type == BLK_RECORD_FENCE) {
        r->fenced = true;
        r->epoch = record->epoch > r->epoch ? record->epoch : r->epoch;
    } else if (record->type == BLK_RECORD_SEAL && !r->sealed) {
        if (r->length < record->offset) {
            r->bad = true;
        } else {
            r->sealed = true;
            r->doubtful = false;
            r->length = r->accepted = record->offset;
        }
    } else if (record->type != BLK_RECORD_SEAL) {
        ch_error(store->env, "journal record of unknown type %u", record->type);
    }
}

static void replay_damage(void *self, uint64_t block, const char *what)
{
    struct replay *replay = self;
    struct blk__store *store = replay->store;
    ch_error(store->env, "%s: the journal is damaged: %s (block %" PRIu64 ", 0: any)", store->dir,
             what, block);
    if (block == 0) {
        replay->damaged = true;
        return;
    }
    struct blk__replica *r = blk__replica_find(store, block);
    if (!r)
        r = blk__replica_add(store, block);
    doubt(store, r);
}

/* ---- the folder ---- */

static struct base_status read_finished(struct blk__store *store,
                                        uint64_t block) CH_WAITS BASE_MUST_CHECK;
static struct base_status read_finished(struct blk__store *store, uint64_t block)
{
    struct blk__replica *r = blk__replica_add(store, block);
    struct ch_file *file = 0;
    uint8_t bytes[BLK_TRAILER];
    struct blk__trailer trailer;
    uint64_t size = 0;
    size_t got = 0;
    r->fenced = r->sealed = r->finished = true;
    struct base_status status = blk__replica_file(store, r, false, &file);
    if (base_failed(status))
        return status;
    status = ch_file_size(file, &size);
    if (!base_failed(status) && size >= BLK_TRAILER)
        status = ch_file_read(file, size - BLK_TRAILER, bytes, sizeof bytes, &got);
    blk__replica_file_release(store, r);
    if (base_failed(status))
        return status;
    if (got == sizeof bytes && blk__trailer_take(bytes, &trailer) && trailer.block == block) {
        r->epoch = trailer.epoch;
        r->start = trailer.start;
        r->generation = trailer.generation;
        r->length = r->accepted = trailer.length;
    } else {
        blk__replica_bad(store, r, size, "its trailer");
    }
    return status;
}

static bool parse_name(const char *name, uint64_t *block, const char **suffix)
{
    char *end;
    *block = strtoull(name, &end, 16);
    *suffix = end;
    return end == name + 16 && *end == '.';
}

static struct base_status read_folder(struct blk__store *store, struct base_arena *arena,
                                      char ***names, size_t *count) CH_WAITS BASE_MUST_CHECK;
static struct base_status read_folder(struct blk__store *store, struct base_arena *arena,
                                      char ***names, size_t *count)
{
    struct base_status status = ch_dir_list(store->env, store->blocks_dir, arena, names, count);
    for (size_t i = 0; i < *count && !base_failed(status); i++) {
        uint64_t block;
        const char *suffix, *name = (*names)[i];
        size_t len = strlen(name);
        if (len > 4 && strcmp(name + len - 4, ".tmp") == 0)
            status = ch_file_remove(store->env,
                                    base_arena_printf(arena, "%s/%s", store->blocks_dir, name));
        else if (parse_name(name, &block, &suffix) && strcmp(suffix, ".blk") == 0)
            status = read_finished(store, block);
    }
    return status;
}

/* Files of removed replicas, and unfinished ones nothing is known of. */
static struct base_status clear_folder(struct replay *replay, struct base_arena *arena,
                                       char **names, size_t count) CH_WAITS BASE_MUST_CHECK;
static struct base_status clear_folder(struct replay *replay, struct base_arena *arena,
                                       char **names, size_t count)
{
    struct blk__store *store = replay->store;
    struct base_status status = BASE_STATUS_OK;
    for (size_t i = 0; i < count && !base_failed(status); i++) {
        uint64_t block;
        const char *suffix;
        if (!parse_name(names[i], &block, &suffix))
            continue;
        bool open = strcmp(suffix, ".open") == 0, blk = strcmp(suffix, ".blk") == 0;
        struct blk__replica *r = blk__replica_find(store, block), *removed;
        HASH_FIND(hh, replay->removed, &block, sizeof block, removed);
        const char *path = base_arena_printf(arena, "%s/%s", store->blocks_dir, names[i]);
        if (removed && ((blk && !r) || (open && (!r || r->finished)))) {
            status = ch_file_remove(store->env, path);
        } else if (open && r && (r->finished || r->tomb)) {
            status = ch_file_remove(store->env, path);
        } else if (open &&
                   !r) { /* then the journal has lost what it said of it, and maybe of others */
            replay->damaged = true;
            const char *lost = base_arena_printf(arena, "%s/lost", store->dir);
            ch_warn(store->env, "%s belongs to no block that is known: moved to %s", path, lost);
            status = ch_dir_make(store->env, lost);
            if (!base_failed(status))
                status = ch_file_rename(store->env, path,
                                        base_arena_printf(arena, "%s/%s", lost, names[i]));
        }
    }
    store->names_unsynced = true;
    return status;
}

static struct base_status mark_doubt(struct blk__store *store) CH_WAITS BASE_MUST_CHECK;
static struct base_status mark_doubt(struct blk__store *store)
{
    struct blk__replica *r, *next;
    HASH_ITER(hh, store->table, r, next)
    doubt(store, r);
    char path[512], text[32];
    snprintf(path, sizeof path, "%s/doubt", store->dir);
    snprintf(text, sizeof text, "%" PRIu64 "\n", UINT64_MAX);
    store->doubt_below = UINT64_MAX;
    return ch_file_write_all(store->env, path, base_bytes_str(text));
}

static void queue_replayed(struct blk__store *store)
{
    struct blk__replica *r, *next;
    HASH_ITER(hh, store->table, r, next)
    {
        if (r->finished || r->tomb)
            continue;
        r->unsynced = true;
        if (!STAILQ_EMPTY(&r->extents) || r->sealed)
            blk__replica_unwritten(store, r);
    }
    blk__store_report_all(store);
}

struct base_status blk__store_replay(struct blk__store *store)
{
    struct base_arena arena;
    base_arena_init(&arena);
    char **names = 0;
    size_t count = 0;
    struct replay replay = { .store = store };
    struct blk__replay_visitor states = { state_record, state_damage, &replay };
    struct blk__replay_visitor visitor = { replay_record, replay_damage, &replay };
    struct blk__journal_options options = { .dir =
                                                base_arena_printf(&arena, "%s/journal", store->dir),
                                            .segment_bytes = store->options.segment_bytes,
                                            .segments = store->options.segments };
    struct base_status status = read_folder(store, &arena, &names, &count);
    if (!base_failed(status))
        status = blk__journal_open(store->env, &options, &states, &visitor, &store->journal);
    if (!base_failed(status)) {
        status = clear_folder(&replay, &arena, names, count);
        if (!base_failed(status) && replay.damaged)
            status = mark_doubt(store);
        for (struct blk__replica *next, *r = store->table; r && !base_failed(status); r = next) {
            next = r->hh.next;
            status = blk__replica_load(store, r);
        }
        if (base_failed(status))
            blk__journal_close(store->journal);
    }
    struct blk__replica *r, *next;
    HASH_ITER(hh, replay.removed, r, next)
    {
        HASH_DEL(replay.removed, r);
        r->gone = true;
        if (r->file)
            blk__replica_file_close(store, r);
        blk__replica_unref(r);
    }
    if (!base_failed(status))
        queue_replayed(store);
    else
        HASH_ITER(hh, store->table, r, next)
    if (!STAILQ_EMPTY(&r->extents))
        blk__replica_unwritten(store, r);
    base_arena_free(&arena);
    return status;
}
