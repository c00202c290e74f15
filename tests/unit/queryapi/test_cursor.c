/* Cursors: what was encoded comes back; anything else is refused, never misread. */
#include "cursor.h"

#include "rows.h"
#include "sample.h"

static struct qry_query make(const char *json)
{
    static const struct qry_scope scope = { { (const uint8_t *)"p", 1 }, { 0, 0 } };
    struct qry_query query;
    struct base_status status = qry_query_make(&scope, NULL, QUERY_OF(json), &arena, &query);
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    return query;
}

Test(cursor, round_trip_and_damage)
{
    struct qry_query query = make("{'kind':[{'name':'K'}],'order':[{'property':{'name':'a'}}]}");
    struct qry_query other = make("{'kind':[{'name':'K'}],'order':[{'property':{'name':'b'}}]}");
    struct qry_query narrow = make("{'kind':[{'name':'K'}],'order':[{'property':{'name':'a'}}],'"
                                   "limit':3,'projection':[{'property':{'name':'__key__'}}]}");
    struct base_buf components = { 0 }, path = { 0 };
    struct qry_cursor back;
    qry_put_value(&components, VALUE_OF("{'stringValue':'x'}"));
    qry_put_path(&path, KEY_OF("{'path':[{'kind':'K','id':'1'}]}"));
    struct qry_cursor cursor = { true, base_buf_bytes(&components), base_buf_bytes(&path) };
    struct base_bytes bytes = qry_cursor_encode(&query, &cursor, &arena);
    cr_assert_eq(base_status_drop(qry_cursor_decode(&query, bytes, &back)), BASE_OK);
    cr_assert(back.after && base_bytes_eq(back.components, cursor.components) &&
              base_bytes_eq(back.path, cursor.path));
    cr_assert_eq(base_status_drop(qry_cursor_decode(&narrow, bytes, &back)), BASE_OK,
                 "limits and projections do not matter");
    struct base_status status = qry_cursor_decode(&other, bytes, &back);
    cr_assert_str_eq(base_status_text(&status), "cursor does not match query");
    base_status_free(&status);
    for (size_t cut = 0; cut < bytes.len; cut++)
        cr_assert_eq(
            base_status_drop(qry_cursor_decode(&query, base_bytes(bytes.data, cut), &back)),
            BASE_INVALID_ARGUMENT, "%zu", cut);
    uint8_t *damaged = base_arena_memdup(&arena, bytes.data, bytes.len);
    for (size_t i = 0; i < bytes.len; i++) /* refused or another place: it must not crash */
        for (int bit = 0; bit < 8; bit++) {
            damaged[i] ^= (uint8_t)(1 << bit);
            struct base_status any =
                qry_cursor_decode(&query, base_bytes(damaged, bytes.len), &back);
            cr_assert(!base_failed(any) || any.code == BASE_INVALID_ARGUMENT);
            base_status_free(&any);
            damaged[i] ^= (uint8_t)(1 << bit);
        }
    base_buf_free(&components);
    base_buf_free(&path);
}
