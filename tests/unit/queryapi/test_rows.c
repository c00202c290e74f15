/* Row keys: the order of their bytes is the public order of values and keys, and they can be taken
 * apart again. */
#include "rows.h"

#include <stdlib.h>

#include "sample.h"

/* In the documented order, all types through; equal ones share a line's number. */
static const struct {
    int rank;
    const char *json;
} ordered[] = {
    { 0, "{'nullValue':null}" },
    { 1, "{'integerValue':'-9223372036854775808'}" },
    { 2, "{'integerValue':'-1'}" },
    { 3, "{'integerValue':'0'}" },
    { 3, "{'timestampValue':'1970-01-01T00:00:00Z'}" },
    { 4, "{'integerValue':'1'}" },
    { 4, "{'timestampValue':'1970-01-01T00:00:00.000001Z'}" },
    { 5, "{'integerValue':'9223372036854775807'}" },
    { 6, "{'booleanValue':false}" },
    { 7, "{'booleanValue':true}" },
    { 8, "{'stringValue':''}" },
    { 8, "{'blobValue':''}" },
    { 9, "{'blobValue':'AA=='}" },
    { 10, "{'blobValue':'AAA='}" },
    { 11, "{'stringValue':'a'}" },
    { 11, "{'blobValue':'YQ=='}" },
    { 12, "{'blobValue':'YQA='}" },
    { 13, "{'stringValue':'ab'}" },
    { 14, "{'stringValue':'b'}" },
    { 15, "{'blobValue':'/w=='}" },
    { 16, "{'blobValue':'//8='}" },
    { 17, "{'doubleValue':'-Infinity'}" },
    { 18, "{'doubleValue':-1.5}" },
    { 19, "{'doubleValue':0}" },
    { 19, "{'doubleValue':-0.0}" },
    { 20, "{'doubleValue':3}" },
    { 21, "{'doubleValue':'Infinity'}" },
    { 22, "{'doubleValue':'NaN'}" },
    { 23, "{'geoPointValue':{'latitude':-1,'longitude':5}}" },
    { 24, "{'geoPointValue':{'latitude':1,'longitude':-5}}" },
    { 25, "{'geoPointValue':{'latitude':1,'longitude':5}}" },
    { 26, "{'keyValue':{'path':[{'kind':'A','id':'-3'}]}}" },
    { 27, "{'keyValue':{'path':[{'kind':'A','id':'1'}]}}" },
    { 28, "{'keyValue':{'path':[{'kind':'A','id':'1'},{'kind':'A','id':'1'}]}}" },
    { 29, "{'keyValue':{'path':[{'kind':'A','id':'2'}]}}" },
    { 30, "{'keyValue':{'path':[{'kind':'A','name':'1'}]}}" },
    { 31, "{'keyValue':{'path':[{'kind':'AA','id':'1'}]}}" },
};
enum { ORDERED = sizeof(ordered) / sizeof(ordered[0]) };

/* What is compared as bytes must be ordered as the protocol orders values, both ways, whatever
 * follows in a row. */
Test(rows, values_are_ordered)
{
    struct base_buf up[ORDERED] = { 0 }, down[ORDERED] = { 0 };
    for (int i = 0; i < ORDERED; i++) {
        qry_put_value(&up[i], VALUE_OF(ordered[i].json));
        qry_put_value_descending(&down[i], VALUE_OF(ordered[i].json));
    }
    for (int i = 0; i < ORDERED; i++)
        for (int k = 0; k < ORDERED; k++) {
            int order = base_bytes_cmp(base_buf_bytes(&up[i]), base_buf_bytes(&up[k]));
            int reverse = base_bytes_cmp(base_buf_bytes(&down[i]), base_buf_bytes(&down[k]));
            int wanted = (ordered[i].rank > ordered[k].rank) - (ordered[i].rank < ordered[k].rank);
            cr_assert_eq((order > 0) - (order < 0), wanted, "%s %s", ordered[i].json,
                         ordered[k].json);
            cr_assert_eq((reverse > 0) - (reverse < 0), -wanted, "%s %s", ordered[i].json,
                         ordered[k].json);
            /* None is a prefix of another: what follows in a row never decides between two values.
             * */
            cr_assert(wanted == 0 ||
                      !base_bytes_starts_with(base_buf_bytes(&up[i]), base_buf_bytes(&up[k])));
        }
    for (int i = 0; i < ORDERED; i++) {
        base_buf_free(&up[i]);
        base_buf_free(&down[i]);
    }
}

/* A value ends where its encoding says, in both directions, and comes back as projection returns
 * it. */
Test(rows, values_are_taken_apart)
{
    for (int i = 0; i < ORDERED; i++)
        for (int descending = 0; descending < 2; descending++) {
            struct base_buf row = { 0 }, plain = { 0 }, wanted = { 0 }, again = { 0 };
            qry_value *back;
            qry_put_value(&wanted, VALUE_OF(ordered[i].json));
            if (descending)
                qry_put_value_descending(&row, VALUE_OF(ordered[i].json));
            else
                qry_put_value(&row, VALUE_OF(ordered[i].json));
            size_t len = row.len;
            base_buf_put_str(&row, "tail");
            struct base_bytes in = base_buf_bytes(&row);
            cr_assert(qry_take_value(&in, descending, &plain), "%s", ordered[i].json);
            cr_assert_eq(in.len, 4u);
            cr_assert(base_bytes_eq(base_buf_bytes(&plain), base_buf_bytes(&wanted)));
            cr_assert(qry_value_decode(base_buf_bytes(&plain), &arena, &back), "%s",
                      ordered[i].json);
            qry_put_value(&again, back);
            cr_assert(base_bytes_eq(base_buf_bytes(&again), base_buf_bytes(&wanted)), "%s",
                      ordered[i].json);
            for (size_t cut = 0; cut < len; cut++) { /* a damaged row is refused, not misread */
                in = base_bytes(row.data, cut);
                cr_assert(!qry_take_value(&in, descending, &plain) && in.len == cut);
            }
            base_buf_free(&row);
            base_buf_free(&plain);
            base_buf_free(&wanted);
            base_buf_free(&again);
        }
}

/* Keys are ordered by path, ids before names, an ancestor before its descendants, and only these
 * begin with its encoding. */
Test(rows, paths)
{
    static const char *const keys[] = {
        "{'path':[{'kind':'A','id':'1'}]}",
        "{'path':[{'kind':'A','id':'1'},{'kind':'\\u0000','id':'1'}]}",
        "{'path':[{'kind':'A','id':'1'},{'kind':'B','id':'1'}]}",
        "{'path':[{'kind':'A','id':'2'}]}",
        "{'path':[{'kind':'A','name':'x'}]}",
        "{'path':[{'kind':'A','name':'x\\u0000'}]}",
        "{'path':[{'kind':'A','name':'xx'}]}",
        "{'path':[{'kind':'AB','id':'1'}]}",
    };
    enum { KEYS = sizeof(keys) / sizeof(keys[0]) };
    struct base_buf paths[KEYS] = { 0 };
    for (int i = 0; i < KEYS; i++) {
        qry_key *key = KEY_OF(keys[i]), *back;
        qry_put_path(&paths[i], key);
        cr_assert(qry_take_path(base_buf_bytes(&paths[i]), NULL, &arena, &back));
        cr_assert(ch_proto_equal(&key->base, &back->base), "%s", keys[i]);
        cr_assert_gt(qry_path_root_len(base_buf_bytes(&paths[i])), 0u);
        cr_assert(i == 0 ||
                      base_bytes_cmp(base_buf_bytes(&paths[i - 1]), base_buf_bytes(&paths[i])) < 0,
                  "%s", keys[i]);
        cr_assert_eq(base_bytes_starts_with(base_buf_bytes(&paths[i]), base_buf_bytes(&paths[0])),
                     i < 3, "%s", keys[i]);
    }
    for (int i = 0; i < KEYS; i++)
        base_buf_free(&paths[i]);
    cr_assert_eq(qry_path_root_len(BASE_BYTES_LIT("A")), 0u);
}
