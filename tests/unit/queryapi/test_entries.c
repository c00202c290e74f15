/* Index rows of entities and their differences. */
#include "entries.h"

#include "sample.h"

#define E(properties)                                                                             \
    ENTITY(                                                                                       \
        "{'key':{'path':[{'kind':'P','id':'1'},{'kind':'K','id':'2'}]},'properties':{" properties \
        "}}")

static struct qry_entries entries_of(const qry_entity *entity, const struct qry_index *indexes,
                                     size_t count)
{
    struct qry_entries out;
    struct base_status status = qry_entries_of(entity, indexes, count, &arena, &out);
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    for (size_t i = 1; i < out.count; i++)
        cr_assert(base_bytes_cmp(out.items[i - 1].key, out.items[i].key) < 0, "sorted, each once");
    return out;
}

static size_t rows(const qry_entity *entity)
{
    return entries_of(entity, NULL, 0).count;
}

/* One row a distinct indexed value, besides the kind's: what is excluded has none, arrays one an
 * element, embedded entities one a property; an empty array is found as null. */
Test(entries, one_row_a_value)
{
    cr_assert_eq(rows(E("")), 1u);
    cr_assert_eq(rows(E("'a':{'integerValue':'1'},'b':{'stringValue':'x'}")), 3u);
    cr_assert_eq(rows(E("'a':{'integerValue':'1','excludeFromIndexes':true}")), 1u);
    cr_assert_eq(rows(E("'a':{'arrayValue':{'values':[{'integerValue':'1'},{'integerValue':'2'},{'"
                        "integerValue':'1'}]}}")),
                 3u);
    cr_assert_eq(rows(E("'a':{'arrayValue':{'values':[{'integerValue':'1','excludeFromIndexes':"
                        "true},{'integerValue':'2'}]}}")),
                 2u);
    cr_assert_eq(rows(E("'a':{'arrayValue':{}}")), 2u);
    cr_assert_eq(rows(E("'a':{'entityValue':{'properties':{'x':{'integerValue':'1'},'y':{'"
                        "entityValue':{'properties':{'z':{'nullValue':null}}}}}}}")),
                 3u);
    cr_assert_eq(rows(E("'a':{'excludeFromIndexes':true,'entityValue':{'properties':{'x':{'"
                        "integerValue':'1'}}}}")),
                 1u);
    struct qry_entries nested =
        entries_of(E("'a':{'entityValue':{'properties':{'x':{'integerValue':'1'}}}}"), NULL, 0);
    struct qry_entries plain = entries_of(E("'a.x':{'integerValue':'1'}"), NULL, 0);
    cr_assert(base_bytes_eq(nested.items[1].key, plain.items[1].key), "a.x is the property's name");
}

/* A composite index has a row for each combination of values, and of an ancestor index for each
 * ancestor; none when a property is missing. */
Test(entries, composite)
{
    struct qry_index_property properties[] = { { BASE_BYTES_LIT("a"), false },
                                               { BASE_BYTES_LIT("b"), true } };
    struct qry_index index = {
        .id = 1, .kind = BASE_BYTES_LIT("K"), .properties = properties, .property_count = 2
    };
    const char *two = "'a':{'arrayValue':{'values':[{'integerValue':'1'},{'integerValue':'2'}]}},'"
                      "b':{'integerValue':'1'}";
    qry_entity *entity = ENTITY(base_arena_printf(
        &arena, "{'key':{'path':[{'kind':'P','id':'1'},{'kind':'K','id':'2'}]},'properties':{%s}}",
        two));
    cr_assert_eq(entries_of(entity, &index, 1).count, 1u + 3 + 2);
    cr_assert_eq(entries_of(E("'a':{'integerValue':'1'}"), &index, 1).count, 2u);
    index.ancestor = true;
    cr_assert_eq(entries_of(entity, &index, 1).count, 1u + 3 + 4);
    index.kind = BASE_BYTES_LIT("L");
    cr_assert_eq(entries_of(entity, &index, 1).count, 1u + 3);
}

/* The difference is what must be written, and nothing besides: unchanged rows are not touched. */
Test(entries, difference)
{
    struct qry_entries old = entries_of(
        E("'a':{'integerValue':'1'},'b':{'integerValue':'1'},'c':{'integerValue':'1'}"), NULL, 0);
    struct qry_entries new = entries_of(
        E("'a':{'integerValue':'1'},'b':{'integerValue':'2'},'d':{'integerValue':'1'}"), NULL, 0);
    struct txn_write writes[16];
    size_t count = 0, deletes = 0;
    qry_entries_diff(&old, &new, BASE_BYTES_LIT("g"), writes, &count);
    for (size_t i = 0; i < count; i++)
        deletes += writes[i].is_delete;
    cr_assert_eq(count, 4u);
    cr_assert_eq(deletes, 2u);
    count = 0;
    qry_entries_diff(&old, &old, BASE_BYTES_LIT("g"), writes, &count);
    cr_assert_eq(count, 0u);
    struct qry_entries one =
        entries_of(E("'a':{'arrayValue':{'values':[{'integerValue':'1'}]}}"), NULL, 0);
    struct qry_entries both = entries_of(
        E("'a':{'arrayValue':{'values':[{'integerValue':'1'},{'integerValue':'2'}]}}"), NULL, 0);
    qry_entries_diff(&one, &both, BASE_BYTES_LIT("g"), writes, &count);
    cr_assert_eq(count, 2u, "a new neighbour rewrites the row it stands beside");
}

/* Rows tell their entity's neighbouring values: what a scan needs to return each entity once. */
Test(entries, neighbours)
{
    struct qry_entries rows =
        entries_of(E("'a':{'arrayValue':{'values':[{'integerValue':'1'},{'integerValue':'2'},{'"
                     "integerValue':'3'}]}},'b':{'integerValue':'1'}"),
                   NULL, 0);
    struct qry_neighbours at;
    cr_assert(!qry_row_neighbours(rows.items[0].value, 0, &at), "the kind's row");
    cr_assert(qry_row_neighbours(rows.items[1].value, 0, &at) && !at.has_previous && at.has_next);
    cr_assert(qry_row_neighbours(rows.items[2].value, 0, &at) && at.has_previous && at.has_next);
    cr_assert(base_bytes_cmp(at.previous, at.next) < 0);
    cr_assert(qry_row_neighbours(rows.items[3].value, 0, &at) && at.has_previous && !at.has_next);
    cr_assert_eq(rows.items[4].value.len, 0u, "a single value needs none");
}
