/* meta.c: see meta.h. */
#include "meta.h"

void tab_meta_key(struct base_buf *out, uint64_t table, struct base_bytes end)
{
    base_buf_put_be64(out, table);
    base_buf_put_u8(out, end.len == 0);
    base_buf_put_bytes(out, end);
}

void tab_meta_seek_key(struct base_buf *out, uint64_t table, struct base_bytes row)
{
    /* The end must be greater than the row, and the least greater string is the row and a byte
     * 00. */
    base_buf_put_be64(out, table);
    base_buf_put_u8(out, 0);
    base_buf_put_bytes(out, row);
    base_buf_put_u8(out, 0);
}

void tab_meta_table_range(uint64_t table, struct base_buf *start, struct base_buf *end)
{
    base_buf_put_be64(start, table);
    base_buf_put_be64(end, table + 1);
}

uint64_t tab_meta_key_table(struct base_bytes key)
{
    return key.len >= 8 ? base_get_be64(key.data) : 0;
}

void tab_meta_schema_key(struct base_buf *out, char kind, struct base_bytes name)
{
    base_buf_put_be64(out, TAB_TABLE_SCHEMA);
    base_buf_put_u8(out, (uint8_t)kind);
    base_buf_put_bytes(out, name);
}

void tab_meta_root_end(struct base_buf *out)
{
    base_buf_put_be64(out, TAB_TABLE_METADATA + 1);
}
