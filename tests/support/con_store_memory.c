/* con_store_memory.c: see con_store_memory.h.
 *
 * Invariants
 * 1. `kept` only changes at the end of a call that returns OK, or by a fault that says so.
 * 2. A store whose generation is not the memory's has no effect.
 * 3. Entries are consecutive, from first to first + count - 1; the first follows the snapshot or
 * lies before its end. */
#include "con_store_memory.h"

#include <inttypes.h>
#include <stdlib.h>

struct kept {
    uint64_t member, term, vote;
    uint64_t first; /* index of entries[0]; of the next entry when there are none */
    struct con_entry *entries;
    bool *damaged;
    size_t count, cap;
    uint64_t snapshot_index, snapshot_term;
    struct con_config config;
    struct base_buf state;
};

struct con_memory {
    struct kept kept;
    uint64_t generation;
    ch_time delay_min, delay_max;
    enum base_code fail; /* BASE_OK: none */
    size_t fail_keep;
    uint64_t limit, writes, saves, receives;
    struct con_store_write *writing; /* of the present generation */
};

struct memory_store {
    struct con_memory *memory;
    struct ch_env *env;
    uint64_t generation;
    bool broken;
    struct con_store_chunk staged; /* its data is not used */
    struct base_buf staged_state;
    bool staging;
};

/* ---- what is kept ---- */

static void *must(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

static void *copy_of(const void *data, size_t len)
{
    void *copy = must(malloc(len ? len : 1));

    if (len)
        memcpy(copy, data, len);
    return copy;
}

static void entries_cut(struct kept *kept, uint64_t from)
{
    while (kept->count > 0 && kept->first + kept->count > from)
        free((void *)kept->entries[--kept->count].data.data);
    if (kept->count == 0)
        kept->first = from;
}

static void entries_drop(struct kept *kept, uint64_t up_to)
{
    size_t gone = 0;

    while (gone < kept->count && kept->first + gone <= up_to)
        free((void *)kept->entries[gone++].data.data);
    if (gone == 0)
        return;
    kept->count -= gone;
    kept->first += gone;
    memmove(kept->entries, kept->entries + gone, kept->count * sizeof(*kept->entries));
    memmove(kept->damaged, kept->damaged + gone, kept->count * sizeof(*kept->damaged));
}

static void entry_put(struct kept *kept, const struct con_entry *entry)
{
    BASE_ASSERT(entry->index > 0 && entry->index <= kept->first + kept->count);
    entries_cut(kept, entry->index);
    if (kept->count == kept->cap) {
        kept->cap = kept->cap ? 2 * kept->cap : 64;
        kept->entries = must(realloc(kept->entries, kept->cap * sizeof(*kept->entries)));
        kept->damaged = must(realloc(kept->damaged, kept->cap * sizeof(*kept->damaged)));
    }
    kept->damaged[kept->count] = false;
    kept->entries[kept->count] = *entry;
    kept->entries[kept->count++].data.data = copy_of(entry->data.data, entry->data.len);
}

static void kept_reset(struct kept *kept, uint64_t member)
{
    entries_cut(kept, 0);
    free(kept->entries);
    free(kept->damaged);
    base_buf_free(&kept->state);
    *kept = (struct kept){ .member = member, .first = 1 };
}

/* Drops the entries that do not lead on from the snapshot: the log ends before it, or has another
 * entry at its index. */
static void entries_anchor(struct kept *kept)
{
    uint64_t at = kept->snapshot_index - kept->first;

    if (kept->snapshot_index == 0 || kept->first == kept->snapshot_index + 1 ||
        (kept->first <= kept->snapshot_index && at < kept->count &&
         kept->entries[at].term == kept->snapshot_term))
        return;
    entries_cut(kept, 0);
    kept->first = kept->snapshot_index + 1;
}

/* The first `keep` parts of a write. */
static void write_take(struct kept *kept, const struct con_store_write *write, size_t keep)
{
    if (write->save_vote && keep > 0) {
        kept->term = write->term;
        kept->vote = write->vote;
        keep--;
    }
    for (size_t i = 0; i < write->entry_count && i < keep; i++)
        entry_put(kept, &write->entries[i]);
}

static uint64_t entries_bytes(const struct kept *kept, uint64_t after)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < kept->count; i++)
        if (kept->entries[i].index > after)
            bytes += kept->entries[i].data.len;
    return bytes;
}

static void snapshot_put(struct kept *kept, uint64_t index, uint64_t term,
                         const struct con_config *config, struct base_bytes state)
{
    kept->snapshot_index = index;
    kept->snapshot_term = term;
    kept->config = *config;
    base_buf_clear(&kept->state);
    base_buf_put_bytes(&kept->state, state);
}

/* ---- the memory ---- */

struct con_memory *con_memory_new(uint64_t member)
{
    struct con_memory *memory = must(calloc(1, sizeof(*memory)));

    kept_reset(&memory->kept, member);
    return memory;
}

void con_memory_free(struct con_memory *memory)
{
    kept_reset(&memory->kept, 0);
    free(memory);
}

void con_memory_crash(struct con_memory *memory, size_t keep)
{
    memory->generation++;
    if (memory->writing)
        write_take(&memory->kept, memory->writing, keep);
    memory->writing = NULL;
}

void con_memory_lose(struct con_memory *memory, uint64_t member)
{
    con_memory_crash(memory, 0);
    kept_reset(&memory->kept, member);
}

void con_memory_set_aside(struct con_memory *memory, uint64_t member)
{
    con_memory_lose(memory, member);
}

bool con_memory_corrupt(struct con_memory *memory, uint64_t index)
{
    const struct con_entry *entry = con_memory_entry(memory, index);

    if (!entry)
        return false;
    memory->kept.damaged[entry - memory->kept.entries] = true;
    return true;
}

void con_memory_delay(struct con_memory *memory, ch_time min, ch_time max)
{
    memory->delay_min = min;
    memory->delay_max = max;
}

void con_memory_fail_write(struct con_memory *memory, enum base_code code, size_t keep)
{
    memory->fail = code;
    memory->fail_keep = keep;
}

void con_memory_limit(struct con_memory *memory, uint64_t bytes)
{
    memory->limit = bytes;
}

void con_memory_look(const struct con_memory *memory, struct con_memory_view *view)
{
    const struct kept *kept = &memory->kept;

    *view = (struct con_memory_view){
        .member = kept->member,
        .term = kept->term,
        .vote = kept->vote,
        .first = kept->first,
        .last = kept->first + kept->count - 1,
        .snapshot_index = kept->snapshot_index,
        .snapshot_term = kept->snapshot_term,
        .writes = memory->writes,
        .saves = memory->saves,
        .receives = memory->receives,
    };
}

const struct con_entry *con_memory_entry(const struct con_memory *memory, uint64_t index)
{
    const struct kept *kept = &memory->kept;

    if (index < kept->first || index >= kept->first + kept->count)
        return NULL;
    return &kept->entries[index - kept->first];
}

/* ---- the store ---- */

static struct base_status usable(const struct memory_store *store)
{
    if (store->generation != store->memory->generation)
        return base_status_make(BASE_UNAVAILABLE, "memory store: crashed");
    if (store->broken)
        return base_status_make(BASE_FAILED_PRECONDITION, "memory store: a write has failed");
    return BASE_STATUS_OK;
}

/* Waits as a disk does, whether cancelled or not. */
static CH_WAITS struct base_status durable_wait(struct memory_store *store)
{
    struct con_memory *memory = store->memory;

    if (store->env && memory->delay_max > 0) {
        ch_time delay = memory->delay_min;

        if (memory->delay_max > memory->delay_min)
            delay += (ch_time)ch_random_below(store->env,
                                              (uint64_t)(memory->delay_max - memory->delay_min));
        (void)ch_sleep_until(store->env, ch_in(store->env, delay));
    }
    return usable(store);
}

static CH_WAITS struct base_status memory_load(void *self, const struct con_store_visitor *visitor)
{
    struct memory_store *store = self;
    const struct kept *kept = &store->memory->kept;
    struct base_status status = usable(store);

    for (size_t i = 0; !base_failed(status) && i < kept->count; i++)
        if (kept->damaged[i])
            status = base_status_make(BASE_DATA_LOSS, "memory store: entry %" PRIu64 " is damaged",
                                      kept->first + i);
    if (!base_failed(status) && kept->snapshot_index > 0)
        status = visitor->snapshot(visitor->self, kept->snapshot_index, kept->snapshot_term,
                                   &kept->config, base_buf_bytes(&kept->state));
    if (!base_failed(status) && kept->term > 0)
        status = visitor->vote(visitor->self, kept->term, kept->vote);
    for (size_t i = 0; !base_failed(status) && i < kept->count; i++)
        if (kept->entries[i].index > kept->snapshot_index)
            status = visitor->entry(visitor->self, &kept->entries[i]);
    return status;
}

/* `write` may be gone after the first wait: what it points to is copied. */
static struct con_store_write *write_copy(const struct con_store_write *write)
{
    struct con_store_write *copy = copy_of(write, sizeof(*write));
    struct con_entry *entries =
        copy_of(write->entries, write->entry_count * sizeof(*write->entries));

    for (size_t i = 0; i < write->entry_count; i++)
        entries[i].data.data = copy_of(entries[i].data.data, entries[i].data.len);
    copy->entries = entries;
    return copy;
}

static void write_free(struct con_store_write *write)
{
    for (size_t i = 0; i < write->entry_count; i++)
        free((void *)write->entries[i].data.data);
    free((void *)write->entries);
    free(write);
}

static struct base_status write_finish(struct memory_store *store,
                                       const struct con_store_write *write)
{
    struct con_memory *memory = store->memory;
    enum base_code fail = memory->fail;
    uint64_t more = 0;

    for (size_t i = 0; i < write->entry_count; i++)
        more += write->entries[i].data.len;
    if (memory->limit > 0 && entries_bytes(&memory->kept, 0) + more > memory->limit)
        fail = BASE_RESOURCE_EXHAUSTED;
    else
        memory->fail = BASE_OK;
    if (fail != BASE_OK && fail != BASE_RESOURCE_EXHAUSTED) {
        write_take(&memory->kept, write, memory->fail_keep);
        store->broken = true;
    }
    if (fail != BASE_OK)
        return base_status_make(fail, "memory store: the write failed, as the test wants");
    write_take(&memory->kept, write, SIZE_MAX);
    memory->writes++;
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status memory_write(void *self, const struct con_store_write *write)
{
    struct memory_store *store = self;
    struct con_store_write *copy;
    struct base_status status = usable(store);

    if (base_failed(status))
        return status;
    BASE_ASSERT(!store->memory->writing && (write->save_vote || write->entry_count > 0));
    copy = write_copy(write);
    store->memory->writing = copy;
    status = durable_wait(store);
    if (!base_failed(status)) {
        store->memory->writing = NULL;
        status = write_finish(store, copy);
    }
    write_free(copy);
    return status;
}

static CH_WAITS struct base_status memory_read(void *self, uint64_t first, size_t bytes_max,
                                               struct base_arena *arena, struct con_entry **entries,
                                               size_t *count)
{
    struct memory_store *store = self;
    const struct kept *kept = &store->memory->kept;
    struct base_status status = usable(store);
    size_t bytes = 0, at;

    *entries = NULL;
    *count = 0;
    if (base_failed(status))
        return status;
    if (first < kept->first || first >= kept->first + kept->count)
        return base_status_make(BASE_NOT_FOUND, "entry %" PRIu64 " is not there", first);
    at = (size_t)(first - kept->first);
    if (kept->damaged[at])
        return base_status_make(BASE_DATA_LOSS, "memory store: entry %" PRIu64 " is damaged",
                                first);
    *entries = BASE_NEW_ARRAY(arena, struct con_entry, kept->count - at);
    for (; at < kept->count && !kept->damaged[at]; at++) {
        bytes += kept->entries[at].data.len;
        if (*count > 0 && bytes > bytes_max)
            break;
        (*entries)[*count] = kept->entries[at];
        (*entries)[(*count)++].data = base_bytes_dup(arena, kept->entries[at].data);
    }
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status memory_snapshot_save(void *self, uint64_t index, uint64_t term,
                                                        const struct con_config *config,
                                                        struct base_bytes state, uint64_t drop)
{
    struct memory_store *store = self;
    struct kept *kept = &store->memory->kept;
    struct con_config copy = *config;
    struct base_status status = durable_wait(store);

    BASE_ASSERT(drop <= index);
    if (base_failed(status))
        return status;
    if (index > kept->snapshot_index) {
        snapshot_put(kept, index, term, &copy, state);
        entries_drop(kept, drop);
    }
    store->memory->saves++;
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status memory_snapshot_read(void *self, uint64_t index, uint64_t offset,
                                                        size_t len, struct base_arena *arena,
                                                        struct con_store_chunk *chunk)
{
    struct memory_store *store = self;
    const struct kept *kept = &store->memory->kept;
    struct base_status status = usable(store);

    if (base_failed(status))
        return status;
    if (kept->snapshot_index == 0 || (index != 0 && index != kept->snapshot_index))
        return base_status_make(BASE_NOT_FOUND, "no snapshot of index %" PRIu64, index);
    if (offset > kept->state.len)
        return base_status_make(BASE_INVALID_ARGUMENT, "beyond the snapshot's end");
    if (len > kept->state.len - offset)
        len = (size_t)(kept->state.len - offset);
    *chunk = (struct con_store_chunk){
        .index = kept->snapshot_index,
        .term = kept->snapshot_term,
        .config = kept->config,
        .offset = offset,
        .total = kept->state.len,
        .data = base_bytes_dup(arena, base_bytes(kept->state.data + offset, len)),
    };
    return BASE_STATUS_OK;
}

/* The whole has come: promise 4's other half, entries that the snapshot contradicts go. */
static void snapshot_install(struct memory_store *store)
{
    struct kept *kept = &store->memory->kept;

    snapshot_put(kept, store->staged.index, store->staged.term, &store->staged.config,
                 base_buf_bytes(&store->staged_state));
    entries_anchor(kept);
    entries_drop(kept, kept->snapshot_index);
    store->memory->receives++;
}

static CH_WAITS struct base_status memory_snapshot_receive(void *self,
                                                           const struct con_store_chunk *chunk,
                                                           struct base_buf *state)
{
    struct memory_store *store = self;
    struct base_status status = usable(store);

    if (base_failed(status))
        return status;
    if (chunk->offset == 0) {
        base_buf_clear(&store->staged_state);
        store->staged = *chunk;
        store->staging = true;
    }
    if (!store->staging || chunk->index != store->staged.index ||
        chunk->term != store->staged.term || chunk->total != store->staged.total ||
        chunk->offset != store->staged_state.len || chunk->data.len > chunk->total - chunk->offset)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "not the piece of the snapshot that comes next");
    if (chunk->index <= store->memory->kept.snapshot_index)
        return base_status_make(BASE_FAILED_PRECONDITION, "a newer snapshot is here");
    base_buf_put_bytes(&store->staged_state, chunk->data);
    if (store->staged_state.len < store->staged.total)
        return BASE_STATUS_OK;
    status = durable_wait(store);
    if (base_failed(status))
        return status;
    snapshot_install(store);
    store->staging = false;
    if (state)
        base_buf_put_bytes(state, base_buf_bytes(&store->staged_state));
    base_buf_free(&store->staged_state);
    return BASE_STATUS_OK;
}

static uint64_t memory_log_bytes(void *self)
{
    struct memory_store *store = self;

    return entries_bytes(&store->memory->kept, store->memory->kept.snapshot_index);
}

static CH_WAITS void memory_close(void *self)
{
    struct memory_store *store = self;

    BASE_ASSERT(store->generation != store->memory->generation || !store->memory->writing);
    base_buf_free(&store->staged_state);
    free(store);
}

void con_memory_open(struct con_memory *memory, struct ch_env *env, struct con_store *opened)
{
    struct memory_store *store = must(calloc(1, sizeof(*store)));

    con_memory_crash(memory, 0);
    entries_anchor(&memory->kept);
    *store = (struct memory_store){ memory, env, .generation = memory->generation };
    *opened = (struct con_store){
        .self = store,
        .member = memory->kept.member,
        .load = memory_load,
        .write = memory_write,
        .read = memory_read,
        .snapshot_save = memory_snapshot_save,
        .snapshot_read = memory_snapshot_read,
        .snapshot_receive = memory_snapshot_receive,
        .log_bytes = memory_log_bytes,
        .close = memory_close,
    };
}
