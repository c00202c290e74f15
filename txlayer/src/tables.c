/* tables.c: see tables.h: full keys, and the tables' making. */
#include "tables.h"

void txn__full_key(struct base_bytes database, struct base_bytes key, struct base_buf *out)
{
    base_buf_put_bytes(out, database);
    base_buf_put_u8(out, 0);
    base_buf_put_bytes(out, key);
}

static struct base_bytes joined(struct base_arena *arena, struct base_bytes database,
                                uint8_t between, struct base_bytes key)
{
    uint8_t *full = base_arena_alloc(arena, database.len + 1 + key.len);
    memcpy(full, database.data, database.len);
    full[database.len] = between;
    if (key.len)
        memcpy(full + database.len + 1, key.data, key.len);
    return base_bytes(full, database.len + 1 + key.len);
}

struct base_bytes txn__full_key_in(struct base_arena *arena, struct base_bytes database,
                                   struct base_bytes key)
{
    return joined(arena, database, 0, key);
}

struct base_bytes txn__full_end_in(struct base_arena *arena, struct base_bytes database,
                                   struct base_bytes end)
{
    return end.len ? joined(arena, database, 0, end) : joined(arena, database, 1, end);
}

void txn__key_split(struct base_bytes full, struct base_bytes *row, struct base_bytes *qualifier)
{
    size_t cut = full.len < TXN__ROW_KEY_MAX ? full.len : TXN__ROW_KEY_MAX;
    *row = base_bytes(full.data, cut);
    *qualifier = base_bytes(full.data + cut, full.len - cut);
}

/* The part of a full table name after the last '/'. */
static const char *table_id(struct base_arena *arena, struct base_bytes name)
{
    const char *text = base_bytes_cstr(arena, name), *slash = strrchr(text, '/');
    return slash ? slash + 1 : text;
}

struct base_status txn__tables_ensure(struct txn__tables *tables, const char *instance,
                                      ch_time deadline)
{
    static const struct tab_family_def log_families[] = { { "e", 0 }, { "c", 1 }, { "i", 1 } };
    static const struct tab_family_def data_families[] = { { "d", 0 } };
    struct base_arena arena;
    base_arena_init(&arena);
    struct base_status status = tab_ensure_table(
        tables->client, instance, table_id(&arena, tables->log_name), log_families, 3, deadline);
    if (!base_failed(status))
        status = tab_ensure_table(tables->client, instance, table_id(&arena, tables->data_name),
                                  data_families, 1, deadline);
    base_arena_free(&arena);
    return status;
}
