/* The planner by table: which scans answer a query, and which index is asked for when none do. */
#include "plan.h"

#include "sample.h"

#define P(name) "'property':{'name':'" name "'}"
#define EQUAL(name) "{'propertyFilter':{" P(name) ",'op':'EQUAL','value':{'integerValue':'1'}}}"
#define ABOVE(name) \
    "{'propertyFilter':{" P(name) ",'op':'GREATER_THAN','value':{'integerValue':'1'}}}"
#define ANCESTOR             \
    "{'propertyFilter':{" P( \
        "__key__") ",'op':'HAS_ANCESTOR','value':{'keyValue':{'path':[{'kind':'P','id':'1'}]}}}}"
#define AND(filters) "'filter':{'compositeFilter':{'op':'AND','filters':[" filters "]}}"
#define ORDER(orders) "'order':[" orders "]"
#define ASC(name) "{" P(name) "}"
#define DESC(name) "{" P(name) ",'direction':'DESCENDING'}"
#define KIND "'kind':[{'name':'K'}],"

static struct base_status plan(const char *json, const char *yaml, struct qry_query *query,
                               struct qry_plan *out)
{
    static const struct qry_scope scope = { { (const uint8_t *)"p", 1 }, { 0, 0 } };
    struct qry_index *indexes;
    size_t count;
    struct base_status status =
        qry_index_parse_yaml(base_bytes_str(yaml), &arena, &indexes, &count);
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    for (size_t i = 0; i < count; i++) {
        indexes[i].id = i + 1;
        indexes[i].ready = true;
    }
    status = qry_query_make(&scope, NULL, QUERY_OF(json), &arena, query);
    return base_failed(status) ? status : qry_plan_make(query, indexes, count, 0, &arena, out);
}

static const struct {
    const char *query;
    const char *indexes;
    size_t scans;
    bool reverse;
    char space;
} plans[] = {
    { "{}", "", 1, false, 'E' },
    { "{'kind':[{'name':'K'}]}", "", 1, false, 'K' },
    { "{" KIND ORDER(DESC("__key__")) "}", "", 1, true, 'K' },
    { "{" KIND AND(ANCESTOR) "}", "", 1, false, 'K' },
    { "{" AND(ANCESTOR) "}", "", 1, false, 'E' },
    { "{" KIND AND(EQUAL("a")) "}", "", 1, false, 'P' },
    { "{" KIND AND(EQUAL("a") "," EQUAL("b") "," ANCESTOR) "}", "", 2, false, 'P' },
    { "{" KIND AND(EQUAL("a")) "," ORDER(ASC("a")) "}", "", 1, false, 'P' },
    { "{" KIND AND(ABOVE("a")) "}", "", 1, false, 'P' },
    { "{" KIND ORDER(ASC("a")) "}", "", 1, false, 'P' },
    { "{" KIND AND(ABOVE("a")) "," ORDER(DESC("a")) "}", "", 1, true, 'P' },
    { "{" KIND AND(EQUAL("a")) "," ORDER(DESC("b")) "}",
      "indexes: [{kind: K, properties: [{name: a}, {name: b, direction: desc}]}]", 1, false, 'C' },
    { "{" KIND AND(EQUAL("a")) "," ORDER(ASC("b")) "}",
      "indexes: [{kind: K, properties: [{name: a}, {name: b, direction: desc}]}]", 1, true, 'C' },
    { "{" KIND AND(EQUAL("a") "," EQUAL("c")) "," ORDER(ASC("b")) "}",
      "indexes: [{kind: K, properties: [{name: a}, {name: b}]}, {kind: K, properties: [{name: c}, "
      "{name: b}]}]",
      2, false, 'C' },
    { "{" KIND AND(EQUAL("a") "," EQUAL("c")) "," ORDER(ASC("b")) "}",
      "indexes: [{kind: K, properties: [{name: a}, {name: b}]}, {kind: K, properties: [{name: c}, "
      "{name: a}, {name: b}]}]",
      1, false, 'C' },
    { "{" KIND AND(EQUAL("a") "," ANCESTOR) "," ORDER(ASC("b")) "}",
      "indexes: [{kind: K, properties: [{name: a}, {name: b}]}, {kind: K, ancestor: yes, "
      "properties: [{name: b}]}]",
      2, false, 'C' },
    { "{" KIND ORDER(ASC("a") "," DESC("b")) "}",
      "indexes: [{kind: K, properties: [{name: a}, {name: b, direction: desc}]}]", 1, false, 'C' },
};

Test(plan, scans)
{
    for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
        struct qry_query query;
        struct qry_plan out;
        struct base_status status = plan(plans[i].query, plans[i].indexes, &query, &out);
        cr_assert(!base_failed(status), "%s: %s", plans[i].query, base_status_text(&status));
        cr_assert_eq(out.scan_count, plans[i].scans, "%s", plans[i].query);
        cr_assert_eq(out.reverse, plans[i].reverse, "%s", plans[i].query);
        cr_assert_eq((char)out.scans[0].prefix.data[0], plans[i].space, "%s", plans[i].query);
    }
}

static const struct {
    const char *query, *indexes, *stanza;
} gaps[] = {
    { "{" KIND AND(EQUAL("a")) "," ORDER(DESC("b")) "}", "",
      "- kind: K\n  properties:\n  - name: a\n  - name: b\n    direction: desc" },
    { "{" KIND AND(EQUAL("b") "," EQUAL("a") "," ABOVE("c")) "}", "",
      "- kind: K\n  properties:\n  - name: a\n  - name: b\n  - name: c" },
    { "{" KIND AND(ANCESTOR "," ABOVE("a")) "}", "",
      "- kind: K\n  ancestor: yes\n  properties:\n  - name: a" },
    { "{" KIND ORDER(ASC("a") "," ASC("b")) "}",
      "indexes: [{kind: K, properties: [{name: a}, {name: b, direction: desc}]}]",
      "- kind: K\n  properties:\n  - name: a\n  - name: b" },
    { "{" KIND ORDER(ASC("a") "," DESC("__key__")) "}", "",
      "- kind: K\n  properties:\n  - name: a\n  - name: __key__\n    direction: desc" },
};

/* What is missing is told as one stanza of index.yaml, and that stanza is enough. */
Test(plan, recommended)
{
    for (size_t i = 0; i < sizeof(gaps) / sizeof(gaps[0]); i++) {
        struct qry_query query;
        struct qry_plan out;
        const char *wanted = base_arena_printf(
            &arena, "no matching index found. recommended index is:\n%s", gaps[i].stanza);
        struct base_status status = plan(gaps[i].query, gaps[i].indexes, &query, &out);
        cr_assert_eq(status.code, BASE_FAILED_PRECONDITION);
        cr_assert_str_eq(base_status_text(&status), wanted);
        base_status_free(&status);
        status = plan(gaps[i].query, base_arena_printf(&arena, "indexes:\n%s\n", gaps[i].stanza),
                      &query, &out);
        cr_assert(!base_failed(status), "%s: %s", gaps[i].query, base_status_text(&status));
    }
}

/* An index that became ready after the snapshot is not complete in it. */
Test(plan, snapshots_before_an_index)
{
    struct qry_index_property properties[] = { { BASE_BYTES_LIT("a"), false },
                                               { BASE_BYTES_LIT("b"), false } };
    struct qry_index index = { .id = 1,
                               .kind = BASE_BYTES_LIT("K"),
                               .properties = properties,
                               .property_count = 2,
                               .ready = true,
                               .ready_at = 100 };
    static const struct qry_scope scope = { { (const uint8_t *)"p", 1 }, { 0, 0 } };
    struct qry_query query;
    struct qry_plan out;
    struct base_status status = qry_query_make(
        &scope, NULL, QUERY_OF("{" KIND AND(EQUAL("a")) "," ORDER(ASC("b")) "}"), &arena, &query);
    cr_assert(!base_failed(status));
    status = qry_plan_make(&query, &index, 1, 99, &arena, &out);
    cr_assert_eq(base_status_drop(status), BASE_FAILED_PRECONDITION);
    cr_assert_eq(base_status_drop(qry_plan_make(&query, &index, 1, 100, &arena, &out)), BASE_OK);
    cr_assert_eq(base_status_drop(qry_plan_make(&query, &index, 1, 0, &arena, &out)), BASE_OK);
}

static const struct {
    const char *query, *text;
} refused[] = {
    { "{" KIND AND(ABOVE("a") "," ABOVE("b")) "}", "several properties (a, b)" },
    { "{" KIND AND(ABOVE("a")) "," ORDER(ASC("b")) "}", "first sort property must be the same" },
    { "{" KIND "'projection':[{" P("a") "}]}", "projection" },
    { "{" KIND "'distinctOn':[{'name':'a'}]}", "distinct_on" },
    { "{'kind':[{'name':'__kind__'}]}", "__kind__" },
    { "{" KIND AND(
          "{'propertyFilter':{" P("a") ",'op':'HAS_ANCESTOR','value':{'nullValue':null}}}") "}",
      "HAS_ANCESTOR" },
    { "{" KIND AND(
          "{'propertyFilter':{" P("__key__") ",'op':'EQUAL','value':{'nullValue':null}}}") "}",
      "__key__ filter value must be a key" },
};

Test(plan, refusals_name_the_culprit)
{
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct qry_query query;
        struct qry_plan out;
        struct base_status status = plan(refused[i].query, "", &query, &out);
        cr_assert(base_failed(status) && strstr(base_status_text(&status), refused[i].text),
                  "%s: %s", refused[i].query, base_status_text(&status));
        base_status_free(&status);
    }
}
