/* store_local_segments.c: making segments ahead of need, removing those that hold nothing any more.
 *
 * Invariants
 * 1. A segment under its final name is whole and of its size: it is allocated as zeros under
 * another name, synced, renamed, and the folder synced. Its head is written with its first batch;
 * the log's very first segment is made with its head.
 * 2. Segments are numbered without gaps; those after the newest are spares, all zeros.
 * 3. Only the oldest go, one after the other, when no live entry is in them and the log leads on
 * from a durable snapshot (`anchored`). The vote and all else one must know is in the head of the
 * next one. A removal is not synced: after a crash any of them may be there again
 * (store_local_load.c knows).
 * 4. No writer waits for zeros in the ordinary case: the keeper makes the next segment when the
 * newest is half full, in slices, for a long sync of zeros would hold up the short ones of the
 * log. An idle log has no spare and no keeper. */
#include "store_local.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "chassis/log.h"

enum { ALLOCATE_SLICE = 256 << 10 };

uint64_t con__segment_size_next(uint64_t size)
{
    if (size < CON_SEGMENT_BYTES_MIN)
        return CON_SEGMENT_BYTES_MIN;
    return 2 * size < CON_SEGMENT_BYTES_MAX ? 2 * size : CON_SEGMENT_BYTES_MAX;
}

struct con_segment_head con__segment_head(const struct con__store_local *store, uint64_t number,
                                          uint64_t size)
{
    return (struct con_segment_head){
        .number = number,
        .size = size,
        .member = store->member,
        .sequence = store->sequence,
        .term = store->index.term,
        .vote = store->index.vote,
        .last = store->index.last,
        .cleared_index = store->index.cleared_index,
        .cleared_term = store->index.cleared_term,
    };
}

struct base_status con__segment_make(struct con__store_local *store, uint64_t number, uint64_t size,
                                     const struct con_segment_head *head)
{
    uint8_t sector[CON_SECTOR];
    struct base_bytes part = { sector, sizeof(sector) };
    struct ch_file *file = NULL;
    char *path = con__store_path(store, CON_SEGMENT_PREFIX, number, "");
    char *aside = con__store_path(store, CON_SEGMENT_PREFIX, number, ".new");
    struct base_status status = ch_file_open(
        store->env, aside, CH_FILE_READ | CH_FILE_WRITE | CH_FILE_CREATE | CH_FILE_TRUNCATE, &file);

    for (uint64_t at = 0; at < size && !base_failed(status); at += ALLOCATE_SLICE) {
        uint64_t len = size - at < ALLOCATE_SLICE ? size - at : ALLOCATE_SLICE;

        status = ch_file_allocate(file, at, len);
    }
    if (!base_failed(status) && head) {
        con__segment_head_put(head, sector);
        status = ch_file_write(file, 0, &part, 1, true);
    }
    if (file)
        ch_file_close(file);
    if (!base_failed(status))
        status = ch_file_rename(store->env, aside, path);
    if (!base_failed(status))
        status = ch_dir_sync(store->env, store->dir);
    if (base_failed(status) && file)
        base_status_drop(
            ch_file_remove(store->env, aside)); /* the next load does, if this cannot */
    free(aside);
    free(path);
    return base_status_wrap(status, "new segment");
}

struct base_status con__segment_spare(struct con__store_local *store, size_t slot, uint64_t size)
{
    struct base_status status;

    BASE_ASSERT(!store->making && slot <= store->spare_count);
    if (slot >= CON_SPARES_MAX)
        return base_status_make(BASE_RESOURCE_EXHAUSTED,
                                "a write that needs more than %d segments at once", CON_SPARES_MAX);
    store->making = true;
    status = con__segment_make(store, store->newest + 1 + slot, size, NULL);
    store->making = false;
    if (!base_failed(status)) {
        store->spare_sizes[slot] = size;
        if (slot == store->spare_count)
            store->spare_count++;
    }
    ch_cond_broadcast(&store->made);
    return status;
}

void con__segment_advance(struct con__store_local *store, struct ch_file *file)
{
    struct ch_file *before = store->active;

    BASE_ASSERT(store->spare_count > 0 && !store->making);
    store->active = file;
    store->newest++;
    store->size = store->spare_sizes[0];
    store->used = CON_SECTOR;
    store->retry_used = 0;
    store->spare_count--;
    memmove(store->spare_sizes, store->spare_sizes + 1,
            store->spare_count * sizeof(store->spare_sizes[0]));
    ch_file_close(before);
}

/* ---- the keeper ---- */

static bool spare_wanted(const struct con__store_local *store)
{
    return store->spare_count == 0 && store->used > store->size / 2 &&
           store->used >= store->retry_used;
}

static bool oldest_unneeded(const struct con__store_local *store)
{
    const struct con_span *first = con__index_first(&store->index);

    return store->anchored && store->clear_index == 0 &&
           store->oldest < (first ? first->segment : store->newest);
}

static CH_WAITS struct base_status oldest_remove(struct con__store_local *store)
{
    char *path = con__store_path(store, CON_SEGMENT_PREFIX, store->oldest, "");
    struct base_status status;

    store->oldest++; /* first: who reads there knows that it goes */
    status = ch_file_remove(store->env, path);
    free(path);
    return status;
}

static void keeper_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct con__store_local *store = arg;
    struct base_status status = BASE_STATUS_OK;

    while (!store->closing && !store->broken && !base_failed(status)) {
        if (spare_wanted(store) && !store->making) {
            status = con__segment_spare(store, 0, con__segment_size_next(store->size));
            if (base_failed(status))
                store->retry_used = store->used + store->size / 16;
        } else if (oldest_unneeded(store)) {
            status = oldest_remove(store);
        } else {
            break;
        }
    }
    if (base_failed(status))
        ch_warn(store->env, "log store %s: %s", store->dir, base_status_text(&status));
    base_status_free(&status);
    store->keeping = false;
}

void con__keeper_kick(struct con__store_local *store)
{
    struct base_status status;

    if (store->keeping || store->closing ||
        (!(spare_wanted(store) && !store->making) && !oldest_unneeded(store)))
        return;
    store->keeping = true;
    status = ch_gate_spawn(&store->gate, "log keeper", keeper_fiber, store);
    if (base_failed(status)) { /* no fiber to be had: a later write asks again */
        base_status_free(&status);
        store->keeping = false;
    }
}
