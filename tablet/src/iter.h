/* iter.h: what every sorted source of entries looks like: a cursor. Seeking and moving may wait
 * (an SSTable reads blocks). `key` and `value` are views that live until the cursor moves. A
 * source that failed is not valid and has a failed status. */
#ifndef TAB_ITER_H
#define TAB_ITER_H

#include "base/bytes.h"
#include "chassis/wait.h"

struct tab_iter;
struct tab_iter_ops {
    void (*seek)(struct tab_iter *iter,
                 struct base_bytes key) CH_WAITS_SLOT; /* the first entry >= key */
    void (*seek_before)(struct tab_iter *iter,
                        struct base_bytes key) CH_WAITS_SLOT; /* the last entry < key */
    void (*seek_last)(struct tab_iter *iter) CH_WAITS_SLOT;
    void (*next)(struct tab_iter *iter) CH_WAITS_SLOT;
    void (*free)(struct tab_iter *iter);
};
struct tab_iter {
    const struct tab_iter_ops *ops;
    bool valid;
    struct base_bytes key, value;
    struct base_status status;
    uint64_t seq_max; /* of the source's entries; UINT64_MAX: it still grows */
};

static inline void tab_iter_seek(struct tab_iter *iter, struct base_bytes key) CH_WAITS
{
    iter->ops->seek(iter, key);
}
static inline void tab_iter_seek_before(struct tab_iter *iter, struct base_bytes key) CH_WAITS
{
    iter->ops->seek_before(iter, key);
}
static inline void tab_iter_seek_last(struct tab_iter *iter) CH_WAITS
{
    iter->ops->seek_last(iter);
}
static inline void tab_iter_next(struct tab_iter *iter) CH_WAITS
{
    iter->ops->next(iter);
}
void tab_iter_free(struct tab_iter *iter); /* NULL is nothing */

/* ---- merging ---- */

/* Shows the entries of all sources in key order. Takes the sources (freed with it). */
struct tab_merge;
struct tab_merge *tab_merge_new(struct tab_iter **sources, size_t count);
void tab_merge_free(struct tab_merge *merge);
void tab_merge_seek(struct tab_merge *merge, struct base_bytes key) CH_WAITS;
void tab_merge_next(struct tab_merge *merge) CH_WAITS;
/* Sources whose every number is below `seq` and that stand before `key` jump to it. */
void tab_merge_skip(struct tab_merge *merge, struct base_bytes key, uint64_t seq) CH_WAITS;
/* The entry it stands on; NULL at the end or after a failure. */
const struct tab_iter *tab_merge_at(const struct tab_merge *merge);
/* The greatest key smaller than `key` in any source (the merge must be sought again afterwards).
 * False: none, or failed. */
bool tab_merge_before(struct tab_merge *merge, struct base_bytes key, bool from_end,
                      struct base_buf *found) CH_WAITS;
/* OK, or the first source's failure: a copy. */
struct base_status tab_merge_status(const struct tab_merge *merge) BASE_MUST_CHECK;

#endif
