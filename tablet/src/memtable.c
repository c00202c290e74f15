/* memtable.c: see memtable.h. Heights come from a hash of the count, so a memtable is the same
 * function of its input in every run. */
#include "memtable.h"

#include <stdlib.h>

#include "base/codec.h"

enum { HEIGHT_MAX = 14, BRANCHING_BITS = 2 };

struct node {
    uint32_t key_len, value_len;
    uint8_t *data; /* key, then value */
    struct node *next[];
};

struct tab_memtable {
    struct base_arena arena;
    struct node *head;
    int height;
    uint32_t refs;
    uint64_t entries, seq_max, segment;
};

static struct base_bytes node_key(const struct node *node)
{
    return base_bytes(node->data, node->key_len);
}

static struct node *node_new(struct base_arena *arena, int height)
{
    return base_arena_calloc(arena, 1,
                             sizeof(struct node) + (size_t)height * sizeof(struct node *));
}

struct tab_memtable *tab_memtable_new(void)
{
    struct tab_memtable *memtable = calloc(1, sizeof(*memtable));
    BASE_ASSERT(memtable != NULL);
    base_arena_init(&memtable->arena);
    memtable->head = node_new(&memtable->arena, HEIGHT_MAX);
    memtable->height = 1;
    memtable->refs = 1;
    memtable->segment = UINT64_MAX;
    return memtable;
}

struct tab_memtable *tab_memtable_ref(struct tab_memtable *memtable)
{
    memtable->refs++;
    return memtable;
}

void tab_memtable_unref(struct tab_memtable *memtable)
{
    if (!memtable || --memtable->refs > 0)
        return;
    base_arena_free(&memtable->arena);
    free(memtable);
}

/* The last node < key; with `path`, the last node < key on every level. */
static struct node *find_before(const struct tab_memtable *memtable, struct base_bytes key,
                                struct node **path)
{
    struct node *at = memtable->head;
    struct node *not_less = NULL; /* already compared on a level above */
    for (int level = memtable->height - 1; level >= 0; level--) {
        struct node *next;
        while ((next = at->next[level]) && next != not_less &&
               base_bytes_cmp(node_key(next), key) < 0)
            at = next;
        not_less = next;
        if (path)
            path[level] = at;
    }
    return at;
}

static int pick_height(uint64_t count)
{
    uint64_t hash = base_hash(&count, sizeof(count), 17);
    int height = 1;
    while (height < HEIGHT_MAX && (hash & ((1 << BRANCHING_BITS) - 1)) == 0) {
        hash >>= BRANCHING_BITS;
        height++;
    }
    return height;
}

void tab_memtable_put(struct tab_memtable *memtable, struct base_bytes key, struct base_bytes value)
{
    struct node *path[HEIGHT_MAX];
    struct node *before = find_before(memtable, key, path);
    if (before->next[0] && base_bytes_eq(node_key(before->next[0]), key))
        return;
    int height = pick_height(memtable->entries);
    for (; memtable->height < height; memtable->height++)
        path[memtable->height] = memtable->head;
    struct node *node = node_new(&memtable->arena, height);
    node->key_len = (uint32_t)key.len;
    node->value_len = (uint32_t)value.len;
    node->data = base_arena_alloc(&memtable->arena, key.len + value.len);
    memcpy(node->data, key.data, key.len);
    if (value.len)
        memcpy(node->data + key.len, value.data, value.len);
    for (int level = 0; level < height; level++) {
        node->next[level] = path[level]->next[level];
        path[level]->next[level] = node;
    }
    memtable->entries++;
}

void tab_memtable_note(struct tab_memtable *memtable, uint64_t seq, uint64_t segment)
{
    if (seq > memtable->seq_max)
        memtable->seq_max = seq;
    if (segment < memtable->segment)
        memtable->segment = segment;
}

size_t tab_memtable_bytes(const struct tab_memtable *memtable)
{
    return memtable->arena.bytes;
}

uint64_t tab_memtable_entries(const struct tab_memtable *memtable)
{
    return memtable->entries;
}

bool tab_memtable_empty(const struct tab_memtable *memtable)
{
    return memtable->seq_max == 0 && memtable->entries == 0;
}

uint64_t tab_memtable_seq_max(const struct tab_memtable *memtable)
{
    return memtable->seq_max;
}

uint64_t tab_memtable_segment(const struct tab_memtable *memtable)
{
    return memtable->segment;
}

/* ---- cursor ---- */

struct memtable_iter {
    struct tab_iter base;
    struct tab_memtable *memtable;
    struct node *at;
};

static void show(struct memtable_iter *iter, struct node *node)
{
    iter->at = node;
    iter->base.valid = node != NULL && node != iter->memtable->head;
    if (iter->base.valid) {
        iter->base.key = node_key(node);
        iter->base.value = base_bytes(node->data + node->key_len, node->value_len);
    }
}

static void iter_seek(struct tab_iter *base, struct base_bytes key)
{
    struct memtable_iter *iter = (struct memtable_iter *)base;
    show(iter, find_before(iter->memtable, key, NULL)->next[0]);
}

static void iter_seek_before(struct tab_iter *base, struct base_bytes key)
{
    struct memtable_iter *iter = (struct memtable_iter *)base;
    show(iter, find_before(iter->memtable, key, NULL));
}

static void iter_seek_last(struct tab_iter *base)
{
    struct memtable_iter *iter = (struct memtable_iter *)base;
    struct node *at = iter->memtable->head;
    for (int level = iter->memtable->height - 1; level >= 0; level--)
        while (at->next[level])
            at = at->next[level];
    show(iter, at);
}

static void iter_next(struct tab_iter *base)
{
    struct memtable_iter *iter = (struct memtable_iter *)base;
    show(iter, iter->at->next[0]);
}

static void iter_free(struct tab_iter *base)
{
    struct memtable_iter *iter = (struct memtable_iter *)base;
    tab_memtable_unref(iter->memtable);
    free(iter);
}

struct tab_iter *tab_memtable_iter(struct tab_memtable *memtable)
{
    static const struct tab_iter_ops ops = { iter_seek, iter_seek_before, iter_seek_last, iter_next,
                                             iter_free };
    struct memtable_iter *iter = calloc(1, sizeof(*iter));
    BASE_ASSERT(iter != NULL);
    iter->base.ops = &ops;
    iter->base.seq_max = UINT64_MAX;
    iter->memtable = tab_memtable_ref(memtable);
    return &iter->base;
}
