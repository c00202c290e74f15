/* segment_index.c: see segment_index.h.
 *
 * Invariants
 * 1. Spans are consecutive in entries, and grow in sequence: an entry that is written again
 * replaces all from it on, so a later entry is never in an earlier batch. So the first span names
 * the oldest segment that is still needed.
 * 2. What cannot be told from the segments read is LOST, not guessed: an entry that does not follow
 * the last one; a first entry that does not follow the snapshot; a snapshot the log speaks of that
 * is not there. */
#include "segment_index.h"

#include <stdlib.h>

void con__index_free(struct con_index *index)
{
    free(index->spans);
    *index = (struct con_index){ 0 };
}

void con__index_begin(struct con_index *index, const struct con_segment_head *head)
{
    index->begin = index->end = 0;
    index->last = head->last;
    index->term = head->term;
    index->vote = head->vote;
    index->cleared_index = head->cleared_index;
    index->cleared_term = head->cleared_term;
}

void con__index_clear(struct con_index *index, uint64_t snapshot_index)
{
    index->begin = index->end = 0;
    index->last = snapshot_index;
}

/* Forgets entries from `from` on. */
static void cut(struct con_index *index, uint64_t from)
{
    while (index->end > index->begin && index->spans[index->end - 1].first >= from)
        index->end--;
    if (index->end > index->begin) {
        struct con_span *span = &index->spans[index->end - 1];

        if (span->first + span->count > from)
            span->count = (uint32_t)(from - span->first);
    }
}

static void append(struct con_index *index, struct con_span span)
{
    if (index->end == index->cap && index->begin > index->cap / 2) {
        memmove(index->spans, index->spans + index->begin,
                (index->end - index->begin) * sizeof(*index->spans));
        index->end -= index->begin;
        index->begin = 0;
    }
    if (index->end == index->cap) {
        index->cap = index->cap ? 2 * index->cap : 16;
        index->spans = realloc(index->spans, index->cap * sizeof(*index->spans));
        BASE_ASSERT(index->spans != NULL);
    }
    index->spans[index->end++] = span;
}

static void entry_take(struct con_index *index, const struct con_entry *entry, struct con_span span)
{
    struct con_span *last;

    cut(index, entry->index);
    last = index->end > index->begin ? &index->spans[index->end - 1] : NULL;
    index->last = entry->index;
    if (last && last->sequence == span.sequence && last->term == entry->term) {
        last->count++;
        return;
    }
    span.first = entry->index;
    span.term = entry->term;
    span.count = 1;
    append(index, span);
}

bool con__index_batch(struct con_index *index, const struct con_batch *batch, uint64_t segment,
                      size_t offset, size_t size, const char **why)
{
    struct con_span span = { .sequence = batch->sequence,
                             .segment = segment,
                             .offset = (uint32_t)offset,
                             .size = (uint32_t)size };
    struct base_bytes rest = batch->records;
    struct con_record record;

    for (uint32_t i = 0; i < batch->record_count; i++) {
        if (!con__record_take(&rest, &record)) {
            *why = "a batch has fewer records than it says";
            return false;
        }
        if (record.kind == CON_RECORD_VOTE) {
            index->term = record.term;
            index->vote = record.vote;
        } else if (record.kind == CON_RECORD_SNAPSHOT) {
            con__index_clear(index, record.index);
            index->cleared_index = record.index;
            index->cleared_term = record.term;
        } else if (record.entry.index > index->last + 1) {
            *why = "entries are missing before one that is there";
            return false;
        } else {
            entry_take(index, &record.entry, span);
        }
    }
    if (rest.len > 0) {
        *why = "a batch has more records than it says";
        return false;
    }
    return true;
}

void con__index_drop(struct con_index *index, uint64_t drop)
{
    while (index->begin < index->end &&
           index->spans[index->begin].first + index->spans[index->begin].count - 1 <= drop)
        index->begin++;
}

const struct con_span *con__index_first(const struct con_index *index)
{
    return index->begin < index->end ? &index->spans[index->begin] : NULL;
}

const struct con_span *con__index_find(const struct con_index *index, uint64_t entry)
{
    size_t low = index->begin, high = index->end;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const struct con_span *span = &index->spans[mid];

        if (entry < span->first)
            high = mid;
        else if (entry >= span->first + span->count)
            low = mid + 1;
        else
            return span;
    }
    return NULL;
}

uint64_t con__index_term(const struct con_index *index, uint64_t entry)
{
    const struct con_span *span = con__index_find(index, entry);

    return span ? span->term : 0;
}

uint64_t con__index_bytes(const struct con_index *index, uint64_t entry)
{
    uint64_t bytes = 0, counted = 0; /* sequences begin with 1 */

    for (size_t i = index->end; i > index->begin; i--) {
        const struct con_span *span = &index->spans[i - 1];

        if (span->first + span->count - 1 <= entry)
            break;
        if (span->sequence != counted)
            bytes += span->size;
        counted = span->sequence;
    }
    return bytes;
}

enum con_anchor con__index_anchor(const struct con_index *index, uint64_t snapshot_index,
                                  uint64_t snapshot_term, const char **why)
{
    const struct con_span *first = con__index_first(index);
    uint64_t term = con__index_term(index, snapshot_index);

    if (index->cleared_index > snapshot_index) {
        *why = "the snapshot that replaced the log is missing";
        return CON_ANCHOR_LOST;
    }
    if (index->last < snapshot_index)
        return CON_ANCHOR_REPLACE;
    if (term != 0 && term != snapshot_term)
        return CON_ANCHOR_REPLACE;
    if (term == 0 && index->last > snapshot_index &&
        (!first || first->first > snapshot_index + 1)) {
        *why = "entries that follow the snapshot are missing";
        return CON_ANCHOR_LOST;
    }
    return CON_ANCHOR_HELD;
}
