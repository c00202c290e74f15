/* sstable.c: reading SSTables: see sstable.h.
 *
 * Invariants: 1. A block that several fibers want at once is fetched once (single flight); who
 * waits copies from the fetcher's buffer. 2. The block cache and the table are touched only by
 * this loop's fibers; a fiber parked inside a read holds nothing of LevelDB that another could
 * change. 3. The file is deleted only after its last reference is gone and only when `garbage`
 * was set, which its tablet does after METADATA no longer names it. */
#include "sstable.h"

#include <stdlib.h>

#include "bloom.h"
#include "chassis/context.h"
#include "chassis/log.h"
#include "key.h"
#include "sstable_int.h"

enum { READ_TIMEOUT_S = 20 };

/* A read under way; the fetcher's stack holds it, the list knows it, waiters count themselves
 * in. */
struct tab_fetch {
    struct tab_fetch *next;
    uint64_t offset;
    size_t len;
    const uint8_t *data; /* once done well */
    bool failed;
    uint32_t waiters;
    struct ch_done done;
    struct ch_done released; /* the last waiter has copied */
};

static bool read_range(struct tab_sstable *sstable, uint64_t offset, void *data,
                       size_t len) CH_WAITS;
static bool read_range(struct tab_sstable *sstable, uint64_t offset, void *data, size_t len)
{
    size_t got = 0;
    ch_time deadline = ch_context_deadline(ch_in(sstable->env, READ_TIMEOUT_S * CH_S));
    struct base_status status = blk_read(sstable->reader, offset, data, len, deadline, &got);
    if (!base_failed(status) && got < len)
        status = base_status_make(BASE_DATA_LOSS, "%s: %zu of %zu bytes at %llu", sstable->path,
                                  got, len, (unsigned long long)offset);
    if (!base_failed(status))
        return true;
    base_status_free(&sstable->fail);
    sstable->fail = status;
    return false;
}

/* Waits for somebody's read that covers ours. False when there is none (nothing was done). */
static bool join_fetch(struct tab_sstable *sstable, uint64_t offset, size_t len, void *data,
                       bool *ok) CH_WAITS;
static bool join_fetch(struct tab_sstable *sstable, uint64_t offset, size_t len, void *data,
                       bool *ok)
{
    struct tab_fetch *fetch = sstable->fetches;
    while (fetch && (offset < fetch->offset || offset + len > fetch->offset + fetch->len))
        fetch = fetch->next;
    if (!fetch)
        return false;
    fetch->waiters++;
    ch_done_wait_always(&fetch->done);
    *ok = !fetch->failed;
    if (*ok)
        memcpy(data, fetch->data + (offset - fetch->offset), len);
    if (--fetch->waiters == 0)
        ch_done_set(&fetch->released);
    return true;
}

static bool fetch(struct tab_sstable *sstable, uint64_t offset, void *data, size_t len) CH_WAITS;
static bool fetch(struct tab_sstable *sstable, uint64_t offset, void *data, size_t len)
{
    struct tab_fetch mine = { .next = sstable->fetches, .offset = offset, .len = len };
    ch_done_init(&mine.done);
    ch_done_init(&mine.released);
    sstable->fetches = &mine;
    bool ok = read_range(sstable, offset, data, len);
    struct tab_fetch **link = &sstable->fetches;
    while (*link != &mine)
        link = &(*link)->next;
    *link = mine.next;
    mine.data = data;
    mine.failed = !ok;
    if (mine.waiters == 0)
        return ok;
    ch_done_set(&mine.done);
    ch_done_wait_always(&mine.released);
    return ok;
}

static bool from_ahead(const struct tab_sstable *sstable, uint64_t offset, size_t len, void *data)
{
    if (offset < sstable->ahead_offset || offset + len > sstable->ahead_offset + sstable->ahead.len)
        return false;
    memcpy(data, sstable->ahead.data + (offset - sstable->ahead_offset), len);
    return true;
}

/* Reads [offset, +len) and what follows it into a buffer of its own, then keeps that for the
 * reads to come. */
static bool fetch_ahead(struct tab_sstable *sstable, uint64_t offset, size_t len,
                        void *data) CH_WAITS;
static bool fetch_ahead(struct tab_sstable *sstable, uint64_t offset, size_t len, void *data)
{
    uint64_t left = sstable->length - offset;
    size_t want = left < TAB_SSTABLE_AHEAD ? (size_t)left : TAB_SSTABLE_AHEAD;
    struct base_buf buf = { 0 };
    base_buf_extend(&buf, want);
    bool ok = fetch(sstable, offset, buf.data, want);
    if (ok) {
        memcpy(data, buf.data, len);
        base_buf_free(&sstable->ahead);
        sstable->ahead = buf;
        sstable->ahead_offset = offset;
    } else {
        base_buf_free(&buf);
    }
    return ok;
}

static bool on_read(void *self, uint64_t offset, size_t len, void *data) CH_WAITS;
static bool on_read(void *self, uint64_t offset, size_t len, void *data)
{
    struct tab_sstable *sstable = self;
    bool follows = offset == sstable->last_end && offset > 0, ok;
    sstable->last_end = offset + len;
    if (from_ahead(sstable, offset, len, data) ||
        (join_fetch(sstable, offset, len, data, &ok) && ok))
        return true;
    if (follows && len < TAB_SSTABLE_AHEAD && offset + len < sstable->table_length)
        return fetch_ahead(sstable, offset, len, data);
    return fetch(sstable, offset, data, len);
}

static struct base_status read_trailer(struct tab_sstable *sstable) CH_WAITS;
static struct base_status read_trailer(struct tab_sstable *sstable)
{
    uint8_t trailer[TAB_SSTABLE_TRAILER];
    if (sstable->length < sizeof(trailer))
        return base_status_make(BASE_DATA_LOSS, "%s: too short", sstable->path);
    if (!read_range(sstable, sstable->length - sizeof(trailer), trailer, sizeof(trailer)))
        return base_status_copy(&sstable->fail);
    sstable->table_length = base_get_le64(trailer);
    uint64_t filter_length = base_get_le64(trailer + 8);
    if (base_get_le32(trailer + 20) != TAB_SSTABLE_MAGIC || filter_length > sstable->length ||
        sstable->table_length + filter_length + sizeof(trailer) != sstable->length)
        return base_status_make(BASE_DATA_LOSS, "%s: bad trailer", sstable->path);
    base_buf_extend(&sstable->filter, filter_length);
    if (!read_range(sstable, sstable->table_length, sstable->filter.data, filter_length))
        return base_status_copy(&sstable->fail);
    uint32_t crc = base_crc32c(base_crc32c(0, sstable->filter.data, filter_length), trailer, 16);
    if (crc != base_get_le32(trailer + 16))
        return base_status_make(BASE_DATA_LOSS, "%s: bad checksum of the filter", sstable->path);
    return BASE_STATUS_OK;
}

static void close_now(struct tab_sstable *sstable) CH_WAITS;
static void close_now(struct tab_sstable *sstable)
{
    if (sstable->table)
        tab_bridge_close(sstable->table);
    if (sstable->reader)
        blk_reader_close(sstable->reader);
    if (sstable->garbage)
        base_status_drop(blk_delete(sstable->blk, sstable->path, ch_in(sstable->env, 10 * CH_S)));
    base_status_free(&sstable->fail);
    base_buf_free(&sstable->first_row);
    base_buf_free(&sstable->last_row);
    base_buf_free(&sstable->filter);
    base_buf_free(&sstable->ahead);
    free(sstable->path);
    free(sstable);
}

struct base_status tab_sstable_open(struct ch_env *env, struct blk_client *blk,
                                    struct ch_gate *gate, struct tab_bridge_cache *cache,
                                    const Strata__Tablet__V1__SstableMeta *meta, ch_time deadline,
                                    struct tab_sstable **result)
{
    struct tab_sstable *sstable = calloc(1, sizeof(*sstable));
    BASE_ASSERT(sstable != NULL);
    *sstable = (struct tab_sstable){ .length = meta->length,
                                     .seq_min = meta->seq_min,
                                     .seq_max = meta->seq_max,
                                     .clean_seq = meta->clean_seq,
                                     .entries = meta->entries,
                                     .deletions = meta->deletions,
                                     .refs = 1,
                                     .env = env,
                                     .blk = blk,
                                     .gate = gate };
    sstable->path = strndup((const char *)meta->path.data, meta->path.len);
    base_buf_put_bytes(&sstable->first_row, ch_bytes_of(meta->first_row));
    base_buf_put_bytes(&sstable->last_row, ch_bytes_of(meta->last_row));
    char error[256] = "";
    struct base_status status = blk_open_read(blk, sstable->path, deadline, &sstable->reader);
    if (!base_failed(status))
        status = read_trailer(sstable);
    if (!base_failed(status)) {
        sstable->table =
            tab_bridge_open(on_read, sstable, sstable->table_length, cache, error, sizeof(error));
        if (!sstable->table)
            status = base_failed(sstable->fail)
                         ? base_status_copy(&sstable->fail)
                         : base_status_make(BASE_DATA_LOSS, "%s: %s", sstable->path, error);
    }
    if (base_failed(status)) {
        status = base_status_wrap(status, "open SSTable %s", sstable->path);
        close_now(sstable);
        return status;
    }
    *result = sstable;
    return BASE_STATUS_OK;
}

struct tab_sstable *tab_sstable_ref(struct tab_sstable *sstable)
{
    sstable->refs++;
    return sstable;
}

static void close_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    close_now(arg);
}

void tab_sstable_unref(struct tab_sstable *sstable)
{
    if (!sstable || --sstable->refs > 0)
        return;
    struct base_status status = ch_gate_spawn(sstable->gate, "close SSTable", close_fiber, sstable);
    if (base_failed(
            /* the gate is closed only after all tablets are gone; out of fibers: leak rather
             * than crash */
            status)) {
        ch_warn(sstable->env, "close %s: %s", sstable->path, base_status_text(&status));
        base_status_free(&status);
    }
}

void tab_sstable_describe(const struct tab_sstable *sstable, struct base_arena *arena,
                          Strata__Tablet__V1__SstableMeta *meta)
{
    strata__tablet__v1__sstable_meta__init(meta);
    meta->path = ch_data_str(base_arena_strdup(arena, sstable->path));
    meta->length = sstable->length;
    meta->first_row = ch_data_of(base_bytes_dup(arena, base_buf_bytes(&sstable->first_row)));
    meta->last_row = ch_data_of(base_bytes_dup(arena, base_buf_bytes(&sstable->last_row)));
    meta->seq_min = sstable->seq_min;
    meta->seq_max = sstable->seq_max;
    meta->clean_seq = sstable->clean_seq;
    meta->entries = sstable->entries;
    meta->deletions = sstable->deletions;
}

bool tab_sstable_may_hold(const struct tab_sstable *sstable, struct base_bytes row,
                          uint64_t row_hash)
{
    return base_bytes_cmp(row, base_buf_bytes(&sstable->first_row)) >= 0 &&
           base_bytes_cmp(row, base_buf_bytes(&sstable->last_row)) <= 0 &&
           tab_bloom_may_hold(base_buf_bytes(&sstable->filter), row_hash);
}

/* ---- cursor ---- */

struct sstable_iter {
    struct tab_iter base;
    struct tab_sstable *sstable;
    struct tab_bridge_iter *bridge;
};

static void show(struct sstable_iter *iter)
{
    const void *key, *value;
    size_t key_len, value_len;
    char error[256];
    /* Asked each time: after a block that could not be read LevelDB goes on with the next one,
     * valid but failed. */
    if (!base_failed(iter->base.status) &&
        !tab_bridge_iter_failed(iter->bridge, error, sizeof(error))) {
        iter->base.valid = tab_bridge_iter_at(iter->bridge, &key, &key_len, &value, &value_len);
        if (iter->base.valid) {
            iter->base.key = base_bytes(key, key_len);
            iter->base.value = base_bytes(value, value_len);
        }
        return;
    }
    iter->base.valid = false;
    if (base_failed(iter->base.status))
        return;
    struct tab_sstable *sstable = iter->sstable;
    iter->base.status = base_failed(sstable->fail)
                            ? base_status_copy(&sstable->fail)
                            : base_status_make(BASE_DATA_LOSS, "%s: %s", sstable->path, error);
}

static void iter_seek(struct tab_iter *base, struct base_bytes key)
{
    struct sstable_iter *iter = (struct sstable_iter *)base;
    tab_bridge_iter_seek(iter->bridge, key.data, key.len);
    show(iter);
}

static void iter_seek_before(struct tab_iter *base, struct base_bytes key)
{
    struct sstable_iter *iter = (struct sstable_iter *)base;
    iter_seek(base, key);
    if (base_failed(base->status))
        return;
    if (base->valid)
        tab_bridge_iter_prev(iter->bridge);
    else
        tab_bridge_iter_seek_last(iter->bridge);
    show(iter);
}

static void iter_seek_last(struct tab_iter *base)
{
    struct sstable_iter *iter = (struct sstable_iter *)base;
    tab_bridge_iter_seek_last(iter->bridge);
    show(iter);
}

static void iter_next(struct tab_iter *base)
{
    struct sstable_iter *iter = (struct sstable_iter *)base;
    tab_bridge_iter_next(iter->bridge);
    show(iter);
}

static void iter_free(struct tab_iter *base)
{
    struct sstable_iter *iter = (struct sstable_iter *)base;
    tab_bridge_iter_free(iter->bridge);
    tab_sstable_unref(iter->sstable);
    free(iter);
}

struct tab_iter *tab_sstable_iter(struct tab_sstable *sstable, bool fill_cache)
{
    static const struct tab_iter_ops ops = { iter_seek, iter_seek_before, iter_seek_last, iter_next,
                                             iter_free };
    struct sstable_iter *iter = calloc(1, sizeof(*iter));
    BASE_ASSERT(iter != NULL);
    iter->base.ops = &ops;
    iter->base.seq_max = sstable->seq_max;
    iter->sstable = tab_sstable_ref(sstable);
    iter->bridge = tab_bridge_iter_new(sstable->table, fill_cache);
    return &iter->base;
}
