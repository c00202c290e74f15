/* cursor.c: see cursor.h. */
#include "cursor.h"

#include "rows.h"

enum { HEAD = 11 };

struct base_bytes qry_cursor_encode(const struct qry_query *query, const struct qry_cursor *cursor,
                                    struct base_arena *arena)
{
    uint8_t *out = base_arena_alloc(arena, HEAD + cursor->components.len + cursor->path.len);
    out[0] = 'C';
    out[1] = 1;
    base_put_le64(out + 2, query->shape);
    out[10] = cursor->after;
    if (!cursor->after)
        return base_bytes(out, HEAD);
    memcpy(out + HEAD, cursor->components.data, cursor->components.len);
    memcpy(out + HEAD + cursor->components.len, cursor->path.data, cursor->path.len);
    return base_bytes(out, HEAD + cursor->components.len + cursor->path.len);
}

static bool is_path(struct base_bytes path)
{
    while (path.len > 0) {
        size_t len = qry_path_root_len(path);
        if (len == 0)
            return false;
        path = base_bytes(path.data + len, path.len - len);
    }
    return true;
}

struct base_status qry_cursor_decode(const struct qry_query *query, struct base_bytes bytes,
                                     struct qry_cursor *cursor)
{
    *cursor = (struct qry_cursor){ 0 };
    if (bytes.len < HEAD || bytes.data[0] != 'C' || bytes.data[1] != 1 || bytes.data[10] > 1)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "Error parsing cursor: it is none of this service's");
    if (base_get_le64(bytes.data + 2) != query->shape)
        return base_status_make(BASE_INVALID_ARGUMENT, "cursor does not match query");
    cursor->after = bytes.data[10] == 1;
    struct base_bytes all = base_bytes(bytes.data + HEAD, bytes.len - HEAD), rest = all;
    struct base_buf plain = { 0 };
    bool good = cursor->after == (all.len > 0);
    for (size_t i = 0; good && cursor->after && i < query->order_count; i++)
        good = qry_take_value(&rest, false, &plain);
    base_buf_free(&plain);
    if (!good || (cursor->after && (rest.len == 0 || !is_path(rest))))
        return base_status_make(BASE_INVALID_ARGUMENT, "Error parsing cursor: it is damaged");
    cursor->components = base_bytes(all.data, all.len - rest.len);
    cursor->path = rest;
    return BASE_STATUS_OK;
}
