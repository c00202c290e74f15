/* conflict.c: see conflict.h. A treap (Seidel and Aragon, 1996): a binary search tree by key
 * that is a heap by a priority drawn from the key's hash under a seed no client knows, so no
 * choice of keys makes it deep.
 *
 * Invariants: 1. in-order walk gives ascending keys; 2. a node's priority is not below its
 * children's; 3. `max` of a node is the greatest timestamp in its subtree; 4. the age list holds
 * every node, by ascending timestamp; 5. every add above `floor` is in the tree. */
#include "conflict.h"

#include <stdlib.h>

#include <bsd/sys/queue.h>

#include "base/codec.h"

struct node {
    struct node *left, *right;
    TAILQ_ENTRY(node) age;
    uint64_t timestamp, max, priority;
    size_t len;
    uint8_t key[];
};
TAILQ_HEAD(age_list, node);

struct txn__conflict {
    struct node *root;
    struct age_list ages;
    size_t keys_max, bytes_max, count, bytes;
    uint64_t floor, seed;
};

struct txn__conflict *txn__conflict_new(size_t keys_max, size_t bytes_max, uint64_t floor,
                                        uint64_t seed)
{
    struct txn__conflict *conflict = calloc(1, sizeof(*conflict));
    BASE_ASSERT(conflict);
    TAILQ_INIT(&conflict->ages);
    conflict->keys_max = keys_max;
    conflict->bytes_max = bytes_max;
    conflict->floor = floor;
    conflict->seed = seed;
    return conflict;
}

void txn__conflict_free(struct txn__conflict *conflict)
{
    if (!conflict)
        return;
    struct node *node;
    while ((node = TAILQ_FIRST(&conflict->ages))) {
        TAILQ_REMOVE(&conflict->ages, node, age);
        free(node);
    }
    free(conflict);
}

static struct base_bytes key_of(const struct node *node)
{
    return base_bytes(node->key, node->len);
}

static size_t bytes_of(const struct node *node)
{
    return sizeof(*node) + node->len;
}

static void update_max(struct node *node)
{
    uint64_t max = node->timestamp;
    if (node->left && node->left->max > max)
        max = node->left->max;
    if (node->right && node->right->max > max)
        max = node->right->max;
    node->max = max;
}

static struct node *merge(struct node *a, struct node *b)
{
    if (!a || !b)
        return a ? a : b;
    if (a->priority >= b->priority) {
        a->right = merge(a->right, b);
        update_max(a);
        return a;
    }
    b->left = merge(a, b->left);
    update_max(b);
    return b;
}

/* Cuts into keys < key and keys >= key. */
static void split(struct node *node, struct base_bytes key, struct node **less, struct node **rest)
{
    if (!node) {
        *less = *rest = NULL;
    } else if (base_bytes_cmp(key_of(node), key) < 0) {
        split(node->right, key, &node->right, rest);
        update_max(node);
        *less = node;
    } else {
        split(node->left, key, less, &node->left);
        update_max(node);
        *rest = node;
    }
}

static struct node *find(const struct txn__conflict *conflict, struct base_bytes key)
{
    struct node *node = conflict->root;
    while (node) {
        int order = base_bytes_cmp(key, key_of(node));
        if (order == 0)
            return node;
        node = order < 0 ? node->left : node->right;
    }
    return NULL;
}

/* Puts `fresh` where its priority says: below every node of a greater one. */
static struct node *insert(struct node *at, struct node *fresh)
{
    if (!at || fresh->priority > at->priority) {
        split(at, key_of(fresh), &fresh->left, &fresh->right);
        update_max(fresh);
        return fresh;
    }
    if (base_bytes_cmp(key_of(fresh), key_of(at)) < 0)
        at->left = insert(at->left, fresh);
    else
        at->right = insert(at->right, fresh);
    update_max(at);
    return at;
}

static struct node *erase(struct node *at, struct node *gone)
{
    if (at == gone)
        return merge(gone->left, gone->right);
    if (base_bytes_cmp(key_of(gone), key_of(at)) < 0)
        at->left = erase(at->left, gone);
    else
        at->right = erase(at->right, gone);
    update_max(at);
    return at;
}

/* A timestamp that only grew: the maxima on the way down are raised, nothing else moves. */
static void raise_to(struct txn__conflict *conflict, struct node *node, uint64_t timestamp)
{
    struct node *at = conflict->root;
    node->timestamp = timestamp;
    for (;;) {
        if (at->max < timestamp)
            at->max = timestamp;
        if (at == node)
            return;
        at = base_bytes_cmp(key_of(node), key_of(at)) < 0 ? at->left : at->right;
    }
}

static void forget_oldest(struct txn__conflict *conflict)
{
    struct node *node = TAILQ_FIRST(&conflict->ages);
    TAILQ_REMOVE(&conflict->ages, node, age);
    conflict->root = erase(conflict->root, node);
    conflict->count--;
    conflict->bytes -= bytes_of(node);
    if (node->timestamp > conflict->floor)
        conflict->floor = node->timestamp;
    free(node);
}

void txn__conflict_add(struct txn__conflict *conflict, struct base_bytes key, uint64_t timestamp)
{
    struct node *last = TAILQ_LAST(&conflict->ages, age_list);
    BASE_ASSERT(!last || timestamp >= last->timestamp);
    struct node *node = find(conflict, key);
    if (node) {
        TAILQ_REMOVE(&conflict->ages, node, age);
        raise_to(conflict, node, timestamp);
    } else {
        node = malloc(sizeof(*node) + key.len);
        BASE_ASSERT(node);
        *node = (struct node){ .timestamp = timestamp, .len = key.len };
        if (key.len)
            memcpy(node->key, key.data, key.len);
        node->priority = base_hash(key.data, key.len, conflict->seed);
        conflict->root = insert(conflict->root, node);
        conflict->count++;
        conflict->bytes += bytes_of(node);
    }
    TAILQ_INSERT_TAIL(&conflict->ages, node, age);
    while (conflict->count > conflict->keys_max ||
           (conflict->bytes > conflict->bytes_max && conflict->count > 1))
        forget_oldest(conflict);
}

uint64_t txn__conflict_key(const struct txn__conflict *conflict, struct base_bytes key)
{
    const struct node *node = find(conflict, key);
    return node ? node->timestamp : 0;
}

static uint64_t max_from(const struct node *node, struct base_bytes start)
{
    uint64_t max = 0;
    while (node) {
        if (base_bytes_cmp(key_of(node), start) < 0) {
            node = node->right;
            continue;
        }
        if (node->timestamp > max)
            max = node->timestamp;
        if (node->right && node->right->max > max)
            max = node->right->max;
        node = node->left;
    }
    return max;
}

static uint64_t max_below(const struct node *node, struct base_bytes end)
{
    uint64_t max = 0;
    while (node) {
        if (base_bytes_cmp(key_of(node), end) >= 0) {
            node = node->left;
            continue;
        }
        if (node->timestamp > max)
            max = node->timestamp;
        if (node->left && node->left->max > max)
            max = node->left->max;
        node = node->right;
    }
    return max;
}

uint64_t txn__conflict_range(const struct txn__conflict *conflict, struct base_bytes start,
                             struct base_bytes end)
{
    if (!end.len)
        return max_from(conflict->root, start);
    if (base_bytes_cmp(start, end) >= 0)
        return 0;
    /* Down to where the ways to `start` and to `end` part; from there two one-sided questions. */
    const struct node *node = conflict->root;
    while (node) {
        if (base_bytes_cmp(key_of(node), start) < 0)
            node = node->right;
        else if (base_bytes_cmp(key_of(node), end) >= 0)
            node = node->left;
        else
            break;
    }
    if (!node)
        return 0;
    uint64_t left = max_from(node->left, start), right = max_below(node->right, end),
             max = node->timestamp;
    max = left > max ? left : max;
    return right > max ? right : max;
}

uint64_t txn__conflict_floor(const struct txn__conflict *conflict)
{
    return conflict->floor;
}

void txn__conflict_trim(struct txn__conflict *conflict, uint64_t timestamp)
{
    struct node *oldest;
    while ((oldest = TAILQ_FIRST(&conflict->ages)) && oldest->timestamp <= timestamp)
        forget_oldest(conflict);
}

size_t txn__conflict_count(const struct txn__conflict *conflict)
{
    return conflict->count;
}

size_t txn__conflict_bytes(const struct txn__conflict *conflict)
{
    return conflict->bytes;
}
