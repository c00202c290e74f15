/* raft_model.c: see raft_model.h. */
#include "raft_model.h"

#include <stdlib.h>

static void entry_copy(struct con_entry *to, const struct con_entry *from)
{
    uint8_t *data = malloc(from->data.len + 1);

    *to = *from;
    if (from->data.len)
        memcpy(data, from->data.data, from->data.len);
    to->data = base_bytes(data, from->data.len);
}

struct con_entry *raft_entries_copy(const struct con_entry *entries, size_t count)
{
    struct con_entry *copy = malloc((count + 1) * sizeof(*copy));

    for (size_t i = 0; i < count; i++)
        entry_copy(&copy[i], &entries[i]);
    return copy;
}

void raft_entries_free(struct con_entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free((void *)(uintptr_t)entries[i].data.data);
    free(entries);
}

/* ---- the disk ---- */

void raft_disk_init(struct raft_disk *disk, uint64_t id, const struct con_config *first)
{
    memset(disk, 0, sizeof(*disk));
    disk->id = id;
    disk->begin = 1;
    if (first)
        disk->first = *first;
}

static void cut_from(struct raft_disk *disk, uint64_t index)
{
    while (disk->count > 0 && disk->begin + disk->count > index) {
        disk->count--;
        free((void *)(uintptr_t)disk->entries[disk->count].data.data);
    }
}

static void drop_to(struct raft_disk *disk, uint64_t index)
{
    size_t gone = 0;

    while (gone < disk->count && disk->begin + gone <= index)
        free((void *)(uintptr_t)disk->entries[gone++].data.data);
    disk->count -= gone;
    if (disk->count)
        memmove(disk->entries, disk->entries + gone, disk->count * sizeof(disk->entries[0]));
    disk->begin += gone;
    if (disk->count == 0 && disk->begin <= index)
        disk->begin = index + 1;
}

void raft_disk_free(struct raft_disk *disk)
{
    cut_from(disk, 0);
    free(disk->entries);
    base_buf_free(&disk->state);
    base_buf_free(&disk->incoming.data);
    memset(disk, 0, sizeof(*disk));
}

uint64_t raft_disk_last(const struct raft_disk *disk)
{
    uint64_t last = disk->begin + disk->count - 1;

    return last > disk->snapshot_index ? last : disk->snapshot_index;
}

const struct con_entry *raft_disk_entry(const struct raft_disk *disk, uint64_t index)
{
    if (index < disk->begin || index >= disk->begin + disk->count)
        return NULL;
    return &disk->entries[index - disk->begin];
}

uint64_t raft_disk_term_at(const struct raft_disk *disk, uint64_t index)
{
    const struct con_entry *entry = raft_disk_entry(disk, index);

    if (entry)
        return entry->term;
    return index == disk->snapshot_index ? disk->snapshot_term : 0;
}

void raft_disk_config(const struct raft_disk *disk, struct con_config *config)
{
    for (size_t i = disk->count; i-- > 0 && disk->entries[i].index > disk->snapshot_index;)
        if (disk->entries[i].kind == CON_ENTRY_CONFIG) {
            struct base_status status = con_config_decode(disk->entries[i].data, config);
            BASE_ASSERT(!base_failed(status));
            config->index = disk->entries[i].index;
            return;
        }
    *config = disk->snapshot_index ? disk->snapshot_config : disk->first;
}

void raft_disk_write(struct raft_disk *disk, bool save_vote, uint64_t term, uint64_t vote,
                     const struct con_entry *entries, size_t count)
{
    if (save_vote) {
        disk->term = term;
        disk->vote = vote;
    }
    for (size_t i = 0; i < count; i++) {
        BASE_ASSERT(entries[i].index >= disk->begin && entries[i].index > disk->snapshot_index);
        BASE_ASSERT(entries[i].index <= raft_disk_last(disk) + 1);
        cut_from(disk, entries[i].index);
        if (disk->count == 0)
            disk->begin = entries[i].index;
        if (disk->count == disk->cap) {
            disk->cap = disk->cap ? 2 * disk->cap : 16;
            disk->entries = realloc(disk->entries, disk->cap * sizeof(disk->entries[0]));
        }
        entry_copy(&disk->entries[disk->count++], &entries[i]);
    }
}

void raft_disk_snapshot(struct raft_disk *disk, uint64_t index, uint64_t term,
                        const struct con_config *config, struct base_bytes state, uint64_t drop)
{
    BASE_ASSERT(index > disk->snapshot_index && drop <= index);
    disk->snapshot_index = index;
    disk->snapshot_term = term;
    disk->snapshot_config = *config;
    base_buf_clear(&disk->state);
    base_buf_put_bytes(&disk->state, state);
    drop_to(disk, drop);
}

bool raft_disk_receive(struct raft_disk *disk, const struct con_raft_chunk *chunk, bool *installed)
{
    bool known;

    *installed = false;
    if (chunk->offset == 0) {
        base_buf_clear(&disk->incoming.data);
        disk->incoming.index = chunk->index;
        disk->incoming.term = chunk->term;
        disk->incoming.total = chunk->total;
    }
    if (disk->incoming.index != chunk->index || disk->incoming.term != chunk->term ||
        disk->incoming.total != chunk->total || disk->incoming.data.len != chunk->offset ||
        chunk->data.len > chunk->total - chunk->offset)
        return false;
    base_buf_put_bytes(&disk->incoming.data, chunk->data);
    if (disk->incoming.data.len < chunk->total)
        return true;
    *installed = true;
    known = raft_disk_term_at(disk, chunk->index) == chunk->term;
    if (!known)
        cut_from(disk, 0);
    raft_disk_snapshot(disk, chunk->index, chunk->term, chunk->config,
                       base_buf_bytes(&disk->incoming.data), chunk->index);
    if (disk->count == 0)
        disk->begin = chunk->index + 1;
    disk->incoming.index = 0;
    return true;
}

struct con_raft *raft_disk_start(const struct raft_disk *disk,
                                 const struct con_raft_options *options, int64_t now)
{
    struct con_raft_start start = { disk->term, disk->vote, disk->snapshot_index,
                                    disk->snapshot_term,
                                    disk->snapshot_index ? disk->snapshot_config : disk->first };
    struct con_raft_options mine = *options;
    struct con_raft *raft;

    mine.id = disk->id;
    raft = con_raft_new(&mine, &start, now);
    for (size_t i = 0; i < disk->count; i++)
        if (disk->entries[i].index > disk->snapshot_index) {
            struct base_status status = con_raft_load(raft, &disk->entries[i]);
            BASE_ASSERT(!base_failed(status));
        }
    return raft;
}

/* ---- messages ---- */

static size_t round8(size_t len)
{
    return (len + 7) & ~(size_t)7;
}

struct con_message *raft_message_copy(const struct con_message *message)
{
    size_t size = sizeof(*message) + message->entry_count * sizeof(struct con_entry) +
                  (message->config ? sizeof(*message->config) : 0) + round8(message->data.len);
    struct con_message *copy;
    struct con_entry *entries;
    uint8_t *at;

    for (size_t i = 0; i < message->entry_count; i++)
        size += round8(message->entries[i].data.len);
    copy = malloc(size);
    *copy = *message;
    at = (uint8_t *)(copy + 1);
    entries = (struct con_entry *)(void *)at;
    at += message->entry_count * sizeof(struct con_entry);
    if (message->config) {
        copy->config = memcpy(at, message->config, sizeof(*message->config));
        at += sizeof(*message->config);
    }
    if (message->data.len)
        memcpy(at, message->data.data, message->data.len);
    copy->data.data = at;
    at += round8(message->data.len);
    for (size_t i = 0; i < message->entry_count; i++) {
        entries[i] = message->entries[i];
        if (entries[i].data.len)
            memcpy(at, entries[i].data.data, entries[i].data.len);
        entries[i].data.data = at;
        at += round8(entries[i].data.len);
    }
    copy->entries = entries;
    return copy;
}

/* ---- quorums, by their definition: more than half of each set that decides ---- */

bool raft_is_quorum(const struct con_config *config, uint32_t members)
{
    int have[2] = { 0, 0 }, of[2] = { 0, 0 };

    for (uint32_t i = 0; i < config->count; i++) {
        bool in = members >> i & 1;

        have[0] += config->members[i].voter && in;
        of[0] += config->members[i].voter;
        have[1] += config->joint && config->members[i].voter_old && in;
        of[1] += config->joint && config->members[i].voter_old;
    }
    return of[0] > 0 && 2 * have[0] > of[0] && (!config->joint || 2 * have[1] > of[1]);
}

bool raft_quorums_meet(const struct con_config *a, const struct con_config *b)
{
    for (uint32_t set = 0; set < 1u << a->count; set++) {
        uint32_t others = 0;

        if (!raft_is_quorum(a, set))
            continue;
        for (uint32_t i = 0; i < b->count; i++) {
            bool in_set = false;

            for (uint32_t j = 0; j < a->count && !in_set; j++)
                in_set = (set >> j & 1) && a->members[j].id == b->members[i].id;
            others |= (uint32_t)!in_set << i;
        }
        if (raft_is_quorum(b, others))
            return false;
    }
    return true;
}
