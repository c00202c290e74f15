/* naming_watch.c: watches (see naming.h).
 *
 * A watch has one fiber that keeps a stream open, and, while one is, a second that reads it; the
 * first sees to it that a stream that shows nothing for CH__WATCH_SILENCE_MS (heartbeats
 * included) is given up.
 * 1. Entries are sorted by path, each path once. They stay as they are while no member can be
 *    reached.
 * 2. Each stream begins with the full state: whatever was missed between two streams is made up
 *    for by the comparison.
 * 3. The generation grows exactly when entries change, and with the first full state. */
#include "naming_int.h"

#include <stdlib.h>

struct ch_name_watch {
    struct ch_naming *naming; /* NULL: it was freed */
    struct ch_name_watch *next, *prev;
    char *prefix;
    struct ch_gate gate;
    struct ch_name_entry *entries;
    size_t count, cap;
    uint64_t generation;
    bool first_seen;
    struct ch_cond changed;
    /* the stream of now */
    struct ch_cond activity;
    ch_time last_event;
    bool reading, stream_was_good;
};

/* ---- entries ---- */

static void entry_free(struct ch_name_entry *entry)
{
    free(entry->path);
    free((void *)entry->value.data);
}

static struct ch_name_entry entry_make(const CH__PB(Node) * node)
{
    struct base_bytes path = ch_bytes_of(node->path), value = ch_bytes_of(node->value);
    struct ch_name_entry entry = {
        .path = strndup(path.len ? (const char *)path.data : "", path.len),
        .value = { malloc(value.len + 1), value.len },
        .version = node->version,
        .epoch = node->lock_epoch,
        .locked = node->lock_session != 0,
        .healthy = !node->unhealthy,
    };
    BASE_ASSERT(entry.path && entry.value.data);
    if (value.len)
        memcpy((void *)entry.value.data, value.data, value.len);
    ((char *)entry.value.data)[value.len] = '\0';
    return entry;
}

static bool entry_same(const struct ch_name_entry *a, const struct ch_name_entry *b)
{
    return strcmp(a->path, b->path) == 0 && base_bytes_eq(a->value, b->value) &&
           a->version == b->version && a->epoch == b->epoch && a->locked == b->locked &&
           a->healthy == b->healthy;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct ch_name_entry *)a)->path, ((const struct ch_name_entry *)b)->path);
}

/* Where `path` is, or would be put. */
static size_t position(const struct ch_name_watch *watch, const char *path, bool *found)
{
    size_t low = 0, high = watch->count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (strcmp(watch->entries[mid].path, path) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    *found = low < watch->count && strcmp(watch->entries[low].path, path) == 0;
    return low;
}

static bool entry_put(struct ch_name_watch *watch, struct ch_name_entry entry)
{
    bool found;
    size_t at = position(watch, entry.path, &found);
    if (found) {
        bool same = entry_same(&watch->entries[at], &entry);
        entry_free(&watch->entries[at]);
        watch->entries[at] = entry;
        return !same;
    }
    if (watch->count == watch->cap) {
        watch->cap = watch->cap ? watch->cap * 2 : 16;
        watch->entries = reallocarray(watch->entries, watch->cap, sizeof(*watch->entries));
        BASE_ASSERT(watch->entries);
    }
    memmove(&watch->entries[at + 1], &watch->entries[at],
            (watch->count - at) * sizeof(*watch->entries));
    watch->entries[at] = entry;
    watch->count++;
    return true;
}

static bool entry_drop(struct ch_name_watch *watch, struct base_bytes path_bytes)
{
    bool found;
    char *path = strndup(path_bytes.len ? (const char *)path_bytes.data : "", path_bytes.len);
    BASE_ASSERT(path);
    size_t at = position(watch, path, &found);
    free(path);
    if (!found)
        return false;
    entry_free(&watch->entries[at]);
    watch->count--;
    memmove(&watch->entries[at], &watch->entries[at + 1],
            (watch->count - at) * sizeof(*watch->entries));
    return true;
}

static bool entries_replace(struct ch_name_watch *watch, const CH__PB(WatchEvent) * event)
{
    size_t count = event->n_nodes;
    struct ch_name_entry *fresh = calloc(count + 1, sizeof(*fresh));
    BASE_ASSERT(fresh);
    for (size_t i = 0; i < count; i++)
        fresh[i] = entry_make(event->nodes[i]);
    qsort(fresh, count, sizeof(*fresh), by_path);
    bool changed = count != watch->count;
    for (size_t i = 0; i < count && !changed; i++)
        changed = !entry_same(&fresh[i], &watch->entries[i]);
    for (size_t i = 0; i < watch->count; i++)
        entry_free(&watch->entries[i]);
    free(watch->entries);
    watch->entries = fresh;
    watch->count = count;
    watch->cap = count + 1;
    return changed;
}

static void event_apply(struct ch_name_watch *watch, const CH__PB(WatchEvent) * event)
{
    bool changed = false;
    if (event->full) {
        changed = entries_replace(watch, event) || !watch->first_seen;
        watch->first_seen = true;
    } else {
        for (size_t i = 0; i < event->n_nodes; i++)
            changed |= entry_put(watch, entry_make(event->nodes[i]));
        for (size_t i = 0; i < event->n_deleted; i++)
            changed |= entry_drop(watch, ch_bytes_of(event->deleted[i]));
    }
    if (!changed)
        return;
    watch->generation++;
    ch_cond_broadcast(&watch->changed);
}

/* ---- one stream ---- */

static struct base_status stream_read(struct ch_name_watch *watch,
                                      struct ch_leader_stream *stream) CH_WAITS;
static struct base_status stream_read(struct ch_name_watch *watch, struct ch_leader_stream *stream)
{
    struct base_arena arena = { 0 };
    bool full_seen = false;
    struct base_status status = BASE_STATUS_OK;
    while (!base_failed(status)) {
        void *message = NULL;
        base_arena_reset(&arena);
        status = ch_leader_recv(stream, &arena, &message);
        if (base_failed(status) || !message)
            break;
        const CH__PB(WatchEvent) *event = message;
        full_seen |= event->full;
        if (full_seen) /* what comes before the full state says nothing about what was missed */
            event_apply(watch, event);
        watch->stream_was_good = full_seen;
        watch->last_event = ch_now(watch->naming->env);
        ch_cond_signal(&watch->activity);
    }
    base_arena_free(&arena);
    return status;
}

static void reader_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_name_watch *watch = arg;
    CH__PB(WatchRequest) request = STRATA__CLUSTERMGR__V1__WATCH_REQUEST__INIT;
    struct ch_leader_stream *stream = NULL;
    request.prefix = ch_data_str(watch->prefix);
    struct base_status status =
        ch_leader_open(watch->naming->masters, CH__NAMES(WATCH), &request, CH_NEVER, &stream);
    if (!base_failed(status)) {
        status = stream_read(watch, stream);
        ch_leader_close(stream);
    }
    base_status_free(&status);
    watch->reading = false;
    ch_cond_signal(&watch->activity);
}

/* Returns when the stream is over, or was silent for too long. */
static void stream_run(struct ch_name_watch *watch) CH_WAITS;
static void stream_run(struct ch_name_watch *watch)
{
    struct ch_naming *naming = watch->naming;
    struct ch_gate gate;
    ch_gate_init(&gate, naming->env, "naming stream");
    watch->last_event = ch_now(naming->env);
    watch->stream_was_good = false;
    struct base_status status = ch_gate_spawn(&gate, "naming stream", reader_fiber, watch);
    watch->reading = !base_failed(status);
    base_status_free(&status);
    while (watch->reading) {
        enum ch_outcome outcome =
            ch_cond_wait(&watch->activity, watch->last_event + CH__WATCH_SILENCE_MS * CH_MS);
        if (outcome == CH_CANCELLED)
            break;
        if (watch->reading &&
            ch_now(naming->env) >= watch->last_event + CH__WATCH_SILENCE_MS * CH_MS)
            break;
    }
    ch_gate_stop(&gate);
}

static void watch_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_name_watch *watch = arg;
    struct ch_naming *naming = watch->naming;
    for (unsigned failures = 0; !ch_cancelled();) {
        size_t members;
        stream_run(watch);
        failures = watch->stream_was_good ? 0 : failures + 1;
        members = ch_leader_members(naming->masters);
        if (members == 0)
            break;                   /* none are configured */
        if (failures % members == 0) /* also after a good one: its member may be stopping */
            (void)ch_sleep_until(
                naming->env,
                ch_in(naming->env, ch_leader_backoff(naming->env, failures / (unsigned)members)));
    }
}

/* ---- what callers see ---- */

struct ch_name_watch *ch_name_watch(struct ch_naming *naming, const char *prefix)
{
    struct ch_name_watch *watch = calloc(1, sizeof(*watch));
    BASE_ASSERT(watch);
    watch->naming = naming;
    watch->prefix = strdup(prefix);
    BASE_ASSERT(watch->prefix);
    ch_gate_init(&watch->gate, naming->env, "naming watch");
    ch_cond_init(&watch->changed);
    ch_cond_init(&watch->activity);
    watch->next = naming->watches;
    if (naming->watches)
        naming->watches->prev = watch;
    naming->watches = watch;
    struct base_status status = ch_gate_spawn(&watch->gate, "naming watch", watch_fiber, watch);
    if (base_failed(status)) {
        ch_error(naming->env, "watch %s: %s", prefix, base_status_text(&status));
        base_status_free(&status);
    }
    return watch;
}

void ch_name_watch_free(struct ch_name_watch *watch)
{
    if (!watch)
        return;
    ch_gate_stop(&watch->gate);
    if (watch->naming) {
        if (watch->prev)
            watch->prev->next = watch->next;
        else
            watch->naming->watches = watch->next;
        if (watch->next)
            watch->next->prev = watch->prev;
    }
    for (size_t i = 0; i < watch->count; i++)
        entry_free(&watch->entries[i]);
    free(watch->entries);
    free(watch->prefix);
    free(watch);
}

void ch__watches_orphan(struct ch_naming *naming)
{
    while (naming->watches) {
        struct ch_name_watch *watch = naming->watches;
        ch_gate_stop(&watch->gate);
        naming->watches = watch->next;
        watch->next = watch->prev = NULL;
        watch->naming = NULL;
    }
}

enum ch_outcome ch_name_watch_wait(struct ch_name_watch *watch, uint64_t *generation,
                                   ch_time deadline)
{
    while (watch->generation <= *generation) {
        enum ch_outcome outcome = ch_cond_wait(&watch->changed, deadline);
        if (outcome != CH_OK)
            return outcome;
    }
    *generation = watch->generation;
    return CH_OK;
}

const struct ch_name_entry *ch_name_watch_entries(struct ch_name_watch *watch, size_t *count)
{
    *count = watch->count;
    return watch->entries;
}
