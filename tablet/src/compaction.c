/* compaction.c: see compaction.h. */
#include "compaction.h"

#include <stdlib.h>

struct sized {
    uint64_t bytes;
    size_t index;
};

static int by_size(const void *a, const void *b)
{
    const struct sized *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static int by_index(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return x < y ? -1 : x > y;
}

static bool many_deletions(const struct tab_pick_file *files, size_t count)
{
    uint64_t entries = 0, deletions = 0;
    for (size_t i = 0; i < count; i++) {
        entries += files[i].entries;
        deletions += files[i].deletions;
    }
    return deletions > 0 && deletions * 4 > entries;
}

/* The length of the run of like sizes that starts at `first`. */
static size_t run_length(const struct sized *sorted, size_t count, size_t first)
{
    uint64_t sum = sorted[first].bytes;
    size_t length = 1;
    while (first + length < count && length < TAB_PICK_RUN_MAX) {
        uint64_t next = sorted[first + length].bytes;
        if (next > TAB_PICK_SMALL_BYTES && next > 2 * (sum / length))
            break;
        sum += next;
        length++;
    }
    return length;
}

static struct tab_pick take(const struct sized *sorted, size_t first, size_t length, size_t count,
                            size_t *picked)
{
    for (size_t i = 0; i < length; i++)
        picked[i] = sorted[first + i].index;
    qsort(picked, length, sizeof(*picked), by_index);
    return (struct tab_pick){ length, length == count };
}

struct tab_pick tab_compaction_pick(const struct tab_pick_file *files, size_t count,
                                    bool want_major, size_t *picked)
{
    struct tab_pick pick = { 0 };
    if (count == 0)
        return pick;
    struct sized *sorted = malloc(count * sizeof(*sorted));
    if (!sorted)
        abort();
    for (size_t i = 0; i < count; i++)
        sorted[i] = (struct sized){ files[i].bytes, i };
    qsort(sorted, count, sizeof(*sorted), by_size);
    if (want_major || many_deletions(files, count))
        pick = take(sorted, 0, count, count, picked);
    for (size_t first = 0; pick.count == 0 && first < count; first++) {
        size_t length = run_length(sorted, count, first);
        if (length >= TAB_PICK_RUN)
            pick = take(sorted, first, length, count, picked);
    }
    if (pick.count == 0 && count > TAB_PICK_FILES_MAX)
        pick = take(sorted, 0, count - TAB_PICK_FILES_MAX + 1, count, picked);
    free(sorted);
    return pick;
}
