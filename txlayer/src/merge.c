/* merge.c: see merge.h. */
#include "merge.h"

enum { ROW_OVERHEAD = 32, PAGE_ROWS_FIRST = 32 };

bool txn__page_full(const struct txn__page *page)
{
    return page->count >= page->row_max || page->bytes >= page->byte_max;
}

static void add(struct txn__page *page, struct base_bytes key, const struct txn__seen *seen)
{
    if (page->count == page->cap) {
        size_t cap = page->cap ? page->cap * 2 : PAGE_ROWS_FIRST;
        struct txn__page_row *rows = BASE_NEW_ARRAY(page->arena, struct txn__page_row, cap);
        if (page->count)
            memcpy(rows, page->rows, page->count * sizeof(*rows));
        page->rows = rows;
        page->cap = cap;
    }
    struct base_bytes bare = base_bytes(key.data + page->prefix, key.len - page->prefix);
    struct txn__page_row *row = &page->rows[page->count++];
    row->key = base_bytes_dup(page->arena, bare);
    row->value = page->keys_only ? BASE_BYTES_EMPTY : base_bytes_dup(page->arena, seen->value);
    row->timestamp = seen->timestamp;
    page->bytes += row->key.len + row->value.len + ROW_OVERHEAD;
}

void txn__merge(struct txn__rows *memory, bool descending, struct base_bytes from,
                struct base_bytes to, uint64_t timestamp, const struct txn__table_row *table,
                size_t count, struct txn__page *page)
{
    struct base_buf cursor = { 0 };
    struct base_bytes key;
    struct txn__seen seen;
    bool have = txn__rows_next(memory, descending, from, to, timestamp, &key, &seen);
    for (size_t i = 0; (have || i < count) && !txn__page_full(page);) {
        int order = !have        ? 1
                    : i == count ? -1
                                 : base_bytes_cmp(key, table[i].key) * (descending ? -1 : 1);
        if (order > 0) {
            if (table[i].seen.found)
                add(page, table[i].key, &table[i].seen);
            i++;
            continue;
        }
        if (seen.found)
            add(page, key, &seen);
        if (order == 0)
            i++;
        base_buf_clear(&cursor);
        base_buf_put_bytes(&cursor, key);
        if (!descending)
            base_buf_put_u8(&cursor, 0);
        have =
            txn__rows_next(memory, descending, base_buf_bytes(&cursor), to, timestamp, &key, &seen);
    }
    base_buf_free(&cursor);
}
