/* merge.c: see iter.h. A linear tournament: sources are few (a memtable or two, a handful of
 * SSTables). `best` is the source with the least key, `second` the least among the others: as
 * long as best's next key stays below second's, moving costs one comparison. Two sources never
 * hold the same key with different values: a key ends in its number. */
#include "iter.h"

#include <stdlib.h>

struct tab_merge {
    size_t count;
    struct tab_iter *best, *second;
    bool failed;
    struct tab_iter *sources[];
};

void tab_iter_free(struct tab_iter *iter)
{
    if (!iter)
        return;
    base_status_free(&iter->status);
    iter->ops->free(iter);
}

struct tab_merge *tab_merge_new(struct tab_iter **sources, size_t count)
{
    struct tab_merge *merge = calloc(1, sizeof(*merge) + count * sizeof(*sources));
    BASE_ASSERT(merge != NULL);
    merge->count = count;
    if (count)
        memcpy(merge->sources, sources, count * sizeof(*sources));
    return merge;
}

void tab_merge_free(struct tab_merge *merge)
{
    if (!merge)
        return;
    for (size_t i = 0; i < merge->count; i++)
        tab_iter_free(merge->sources[i]);
    free(merge);
}

static void choose(struct tab_merge *merge)
{
    merge->best = merge->second = NULL;
    for (size_t i = 0; i < merge->count; i++) {
        struct tab_iter *source = merge->sources[i];
        if (base_failed(source->status))
            merge->failed = true;
        if (!source->valid)
            continue;
        if (!merge->best || base_bytes_cmp(source->key, merge->best->key) < 0) {
            merge->second = merge->best;
            merge->best = source;
        } else if (!merge->second || base_bytes_cmp(source->key, merge->second->key) < 0) {
            merge->second = source;
        }
    }
}

void tab_merge_seek(struct tab_merge *merge, struct base_bytes key)
{
    for (size_t i = 0; i < merge->count; i++)
        tab_iter_seek(merge->sources[i], key);
    choose(merge);
}

void tab_merge_next(struct tab_merge *merge)
{
    struct tab_iter *best = merge->best;
    BASE_ASSERT(best != NULL);
    tab_iter_next(best);
    if (best->valid && (!merge->second || base_bytes_cmp(best->key, merge->second->key) < 0))
        return;
    choose(merge);
}

void tab_merge_skip(struct tab_merge *merge, struct base_bytes key, uint64_t seq)
{
    bool moved = false;
    for (size_t i = 0; i < merge->count; i++) {
        struct tab_iter *source = merge->sources[i];
        if (!source->valid || source->seq_max >= seq || base_bytes_cmp(source->key, key) >= 0)
            continue;
        tab_iter_seek(source, key);
        moved = true;
    }
    if (moved)
        choose(merge);
}

const struct tab_iter *tab_merge_at(const struct tab_merge *merge)
{
    return merge->failed ? NULL : merge->best;
}

bool tab_merge_before(struct tab_merge *merge, struct base_bytes key, bool from_end,
                      struct base_buf *found)
{
    bool any = false;
    base_buf_clear(found);
    for (size_t i = 0; i < merge->count; i++) {
        struct tab_iter *source = merge->sources[i];
        if (from_end)
            tab_iter_seek_last(source);
        else
            tab_iter_seek_before(source, key);
        if (base_failed(source->status))
            merge->failed = true;
        if (!source->valid || (any && base_bytes_cmp(source->key, base_buf_bytes(found)) <= 0))
            continue;
        base_buf_clear(found);
        base_buf_put_bytes(found, source->key);
        any = true;
    }
    merge->best = merge->second = NULL;
    return any && !merge->failed;
}

struct base_status tab_merge_status(const struct tab_merge *merge)
{
    for (size_t i = 0; i < merge->count; i++)
        if (base_failed(merge->sources[i]->status))
            return base_status_copy(&merge->sources[i]->status);
    return BASE_STATUS_OK;
}
