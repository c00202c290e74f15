/* group_snapshot.c: what takes long beside a member's loop: its own snapshots, what followers that
 * are behind need from the store, and the snapshots that come from a leader.
 *
 * Invariants
 * 1. A snapshot is of the state between two outputs, taken without a wait, and saved on a fiber of
 * its own beside the ongoing commits.
 * 2. Entries go only when the snapshot that covers them is durable; some before it are kept, for
 * followers that are a little behind.
 * 3. What a fetch brought lives until the algorithm has used it: the output that does is taken
 * before the fetch's memory goes.
 * 4. A received snapshot is first durable, then in the machine, then told to the algorithm; nothing
 * is applied meanwhile. */
#include "group_int.h"

#include <inttypes.h>
#include <stdlib.h>

#include "chassis/log.h"

/* ---- our own ---- */

struct snapshot_task {
    struct con__group *group;
    uint64_t index, term, drop;
    struct con_config config;
    struct base_buf state;
};

static ch_fiber_fn snapshot_fiber;

/* How many entries before a snapshot are kept. */
static uint64_t trail(const struct con__group *group)
{
    uint64_t size = group->trail_count ? group->trail_bytes / group->trail_count + 1 : 1;
    uint64_t bytes = group->snapshot_bytes_min / 4;

    if (!group->node)
        return 0;
    if (bytes > CON_TRAIL_BYTES)
        bytes = CON_TRAIL_BYTES;
    return CON_TRAIL_ENTRIES * size <= bytes ? CON_TRAIL_ENTRIES : bytes / size;
}

/* A witness has no state, so what it drops it cannot hand on: its snapshots say only where its log
 * begins. It drops what all voters with a state are known to hold, and anything when there is no
 * more room. */
static uint64_t witness_index(const struct con__group *group, uint64_t bytes, uint64_t least)
{
    uint64_t index = con_raft_status(group->raft).held, kept = trail(group);

    if (index > group->applied || bytes > CON_WITNESS_FACTOR * least)
        index = group->applied;
    return index > kept ? index - kept : 0;
}

/* All members see the same log, and members on one machine share a disk: would all save their state
 * when it has come to the same size, all were slow at once. So each has a size of its own, within a
 * quarter of the common one: by its place among them, which no two share, and a little by its id,
 * so that they do not fall into step either. */
static uint64_t staggered(const struct con__group *group, uint64_t bytes)
{
    const struct con_config *config = con__group_config(group);
    uint64_t id = group->store.member, part;

    for (uint32_t i = 0; i < config->count && config->count > 1; i++) {
        if (config->members[i].id != id)
            continue;
        part = i * UINT64_C(1024) + 256 + (id * UINT64_C(0x9e3779b97f4a7c15) >> 55);
        return bytes - bytes / 4 + bytes / 2 * part / config->count / 1024;
    }
    return bytes;
}

void con__snapshot_maybe(struct con__group *group)
{
    uint64_t bytes = group->store.log_bytes(group->store.self);
    uint64_t least = staggered(group, group->snapshot_bytes > group->snapshot_bytes_min
                                          ? group->snapshot_bytes
                                          : group->snapshot_bytes_min);
    struct snapshot_task *task;
    struct base_status status;
    uint64_t kept = trail(group), index = group->applied;

    /* One that was removed keeps the entries that say so for its next life. */
    if (group->snapshotting || group->removed || bytes <= least ||
        bytes < group->snapshot_retry_bytes)
        return;
    if (group->witness)
        index = witness_index(group, bytes, least);
    if (index <= group->snapshot_index)
        return;
    task = calloc(1, sizeof(*task));
    if (!task)
        abort();
    task->group = group;
    task->index = index;
    task->term = con_raft_term_at(group->raft, task->index);
    task->config = *con_raft_config_at(group->raft, task->index);
    task->drop = group->witness ? index : index > kept ? index - kept : 0;
    if (!group->witness)
        group->machine.snapshot(group->machine.self, &task->state);
    group->snapshotting = true;
    status = ch_gate_spawn(&group->gate, "log snapshot", snapshot_fiber, task);
    if (base_failed(status)) { /* closing, or no fiber to be had: what is applied next asks again */
        base_status_free(&status);
        group->snapshotting = false;
        base_buf_free(&task->state);
        free(task);
    }
}

static void snapshot_saved(struct con__group *group, const struct snapshot_task *task)
{
    ch_count(group->metrics.snapshots, 1);
    group->snapshot_index = task->index;
    group->snapshot_bytes = task->state.len;
    /* A witness may have had to keep most of its log: not again at once. */
    group->snapshot_retry_bytes =
        group->witness ? group->store.log_bytes(group->store.self) + group->snapshot_bytes_min / 4
                       : 0;
    group->trail_count = group->trail_bytes = 0;
    con_raft_compacted(group->raft, task->drop);
}

static void snapshot_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct snapshot_task *task = arg;
    struct con__group *group = task->group;
    struct base_status status;

    ch_mutex_lock_always(&group->snapshot_lock);
    /* One that came from the leader meanwhile may be newer. */
    if (task->index > group->snapshot_index && !base_failed(group->failure)) {
        status =
            group->store.snapshot_save(group->store.self, task->index, task->term, &task->config,
                                       base_buf_bytes(&task->state), task->drop);
        if (!base_failed(status)) {
            snapshot_saved(group, task);
        } else {
            /* A full disk, say. The state is safe in the log; what is applied later tries again. */
            ch_warn(group->env, "group %s: snapshot of index %" PRIu64 ": %s", group->name,
                    task->index, base_status_text(&status));
            group->snapshot_retry_bytes =
                group->store.log_bytes(group->store.self) + group->snapshot_bytes_min / 4;
        }
        base_status_free(&status);
    }
    ch_mutex_unlock(&group->snapshot_lock);
    group->snapshotting = false;
    base_buf_free(&task->state);
    free(task);
}

/* ---- for followers ---- */

struct fetch_task {
    struct con__group *group;
    struct con_raft_fetch fetch;
};

static CH_WAITS struct base_status entries_fetch(struct con__group *group,
                                                 const struct con_raft_fetch *fetch,
                                                 struct base_arena *arena)
{
    struct con_entry *entries = NULL;
    size_t count = 0;
    size_t bytes_max =
        fetch->bytes_max < CON_FETCH_BYTES_MAX ? fetch->bytes_max : CON_FETCH_BYTES_MAX;
    struct base_status status =
        group->store.read(group->store.self, fetch->first, bytes_max, arena, &entries, &count);

    if (!base_failed(status) && !group->closing) {
        con_raft_fetched(group->raft, fetch->member, entries, count);
        con__group_pump_all(group);
    }
    return status;
}

static CH_WAITS struct base_status chunk_fetch(struct con__group *group,
                                               const struct con_raft_fetch *fetch,
                                               struct base_arena *arena)
{
    struct con_store_chunk chunk = { .index = 0 };
    struct base_status status = group->store.snapshot_read(
        group->store.self, fetch->first, fetch->offset, fetch->bytes_max, arena, &chunk);

    if (!base_failed(status) && !group->closing) {
        ch_count(group->metrics.chunks, 1);
        con_raft_fetched_chunk(group->raft, fetch->member, chunk.index, chunk.term, &chunk.config,
                               chunk.offset, chunk.total, chunk.data);
        con__group_pump_all(group);
    }
    return status;
}

static void fetch_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct fetch_task *task = arg;
    struct con__group *group = task->group;
    struct base_arena arena;
    struct base_status status;

    base_arena_init(&arena);
    status = task->fetch.snapshot ? chunk_fetch(group, &task->fetch, &arena)
                                  : entries_fetch(group, &task->fetch, &arena);
    if (base_failed(status)) {
        if (status.code != BASE_NOT_FOUND && !group->closing)
            ch_warn(group->env, "group %s: %s from %" PRIu64 " for member %016" PRIx64 ": %s",
                    group->name, task->fetch.snapshot ? "snapshot" : "entries", task->fetch.first,
                    task->fetch.member, base_status_text(&status));
        con_raft_fetch_failed(group->raft, task->fetch.member);
    }
    base_status_free(&status);
    base_arena_free(&arena);
    free(task);
}

void con__fetch(struct con__group *group, const struct con_raft_fetch *fetch)
{
    struct fetch_task *task = malloc(sizeof(*task));
    struct base_status status;

    if (!task)
        abort();
    *task = (struct fetch_task){ group, *fetch };
    status = ch_gate_spawn(&group->gate, "log fetch", fetch_fiber, task);
    if (base_failed(status)) {
        base_status_free(&status);
        con_raft_fetch_failed(group->raft, fetch->member);
        free(task);
    }
}

/* ---- from the leader ---- */

/* The writer stores it. */
void con__chunk_take(struct con__group *group, const struct con_raft_chunk *chunk)
{
    BASE_ASSERT(!group->incoming.here);
    base_buf_clear(&group->incoming.data);
    base_buf_put_bytes(&group->incoming.data, chunk->data);
    group->incoming.chunk = (struct con_store_chunk){
        .index = chunk->index,
        .term = chunk->term,
        .config = *chunk->config,
        .offset = chunk->offset,
        .total = chunk->total,
        .data = base_buf_bytes(&group->incoming.data),
    };
    group->incoming.here = true;
    ch_cond_signal(&group->work);
}

static struct base_status installed(struct con__group *group, struct base_bytes state)
{
    const struct con_store_chunk *chunk = &group->incoming.chunk;
    struct con_config config = chunk->config;
    struct base_status status = BASE_STATUS_OK;

    if (!group->witness)
        status = base_status_wrap(group->machine.restore(group->machine.self, state),
                                  "restore the snapshot of index %" PRIu64, chunk->index);
    if (base_failed(status))
        return status;
    group->applied = group->snapshot_index = chunk->index;
    group->snapshot_bytes = state.len;
    con__config_applied(group, &config);
    ch_info(group->env, "group %s: took the leader's snapshot of index %" PRIu64, group->name,
            chunk->index);
    return status;
}

/* The store goes on (store.h); the snapshot is begun again. */
static bool without_effect(enum base_code code)
{
    return code == BASE_RESOURCE_EXHAUSTED || code == BASE_INVALID_ARGUMENT ||
           code == BASE_FAILED_PRECONDITION;
}

void con__chunk_store(struct con__group *group)
{
    const struct con_store_chunk *chunk = &group->incoming.chunk;
    bool whole = chunk->offset + chunk->data.len == chunk->total;
    struct base_buf state = { 0 };
    struct base_status status;

    ch_mutex_lock_always(&group->snapshot_lock);
    status = group->store.snapshot_receive(group->store.self, chunk,
                                           whole && !group->witness ? &state : NULL);
    ch_mutex_unlock(&group->snapshot_lock);
    group->incoming.here = false;
    if (base_failed(status) && !group->closing && !without_effect(status.code)) {
        con__group_fail(group, base_status_wrap(status, "receive a snapshot"));
    } else if (base_failed(status)) {
        ch_warn(group->env, "group %s: receive a snapshot: %s", group->name,
                base_status_text(&status));
        base_status_free(&status);
        con_raft_chunk_stored(group->raft, false);
    } else {
        if (whole)
            status = installed(group, base_buf_bytes(&state));
        if (base_failed(status))
            con__group_fail(group, status);
        else
            con_raft_chunk_stored(group->raft, true);
    }
    base_buf_free(&state);
}
