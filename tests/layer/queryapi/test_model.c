/* Random queries over random entities, against a model that knows nothing of indexes or encodings:
 * the results, their order, their pages by cursors, offsets and counts must agree; and when an
 * index is said to be missing, then loading the very stanza that was recommended must be enough. */
#include <stdio.h>
#include <stdlib.h>

#include "bed.h"

enum { ENTITIES = 70, VALUES_MAX = 3, PROPERTIES = 3, QUERIES = 250, SEEDS = 4 };
static const char *const property_names[PROPERTIES] = { "p", "q", "s" };

/* ---- the model ---- */

enum type { NONE, NUL, INTEGER, BOOLEAN, STRING, DOUBLE }; /* in the public order */
struct value {
    enum type type;
    int number; /* a double is number + 0.5; a string "v<number>" */
};
struct element {
    const char *kind;
    int id;
};
struct entity {
    const char *name_space;
    struct element path[3];
    int depth;
    struct value values[PROPERTIES][VALUES_MAX];
    int counts[PROPERTIES]; /* -1: not an array */
    bool excluded[PROPERTIES];
};
struct filter {
    int property, op; /* op: '=' '<' '>' 'l' (<=) 'g' (>=) */
    struct value value;
};
struct query {
    const char *name_space, *kind;
    const struct element *ancestor;
    int ancestor_depth;
    struct filter filters[4];
    int filter_count;
    int orders[PROPERTIES];
    bool descending[PROPERTIES];
    int order_count;
    bool by_key_descending;
};
struct world {
    struct bed *t;
    struct entity entities[ENTITIES];
    int count;
    uint64_t random;
    int missing, answered, results;
};

static int pick(struct world *w, int n)
{
    w->random = w->random * 6364136223846793005ULL + 1442695040888963407ULL;
    return (int)((w->random >> 33) % (uint64_t)n);
}

static int compare_values(struct value a, struct value b)
{
    return a.type != b.type ? (int)a.type - (int)b.type : a.number - b.number;
}

static int compare_paths(const struct entity *a, const struct entity *b)
{
    for (int i = 0; i < a->depth && i < b->depth; i++) {
        int order = strcmp(a->path[i].kind, b->path[i].kind);
        order = order ? order : a->path[i].id - b->path[i].id;
        if (order)
            return order;
    }
    return a->depth - b->depth;
}

static bool holds(const struct filter *filter, struct value value)
{
    int order = compare_values(value, filter->value);
    switch (filter->op) {
    case '=':
        return order == 0;
    case '<':
        return order < 0;
    case 'l':
        return order <= 0;
    case '>':
        return order > 0;
    default:
        return order >= 0;
    }
}

/* The value an entity is ordered by: the first in the direction among those that meet all
 * inequalities. NONE: no such. */
static struct value candidate(const struct entity *entity, const struct query *query, int property,
                              bool descending)
{
    struct value best = { NONE, 0 };
    int count = entity->counts[property] < 0 ? 1 : entity->counts[property];
    for (int i = 0; i < count && !entity->excluded[property]; i++) {
        struct value value = entity->values[property][i];
        bool good = value.type != NONE;
        for (int f = 0; f < query->filter_count; f++)
            good = good && (query->filters[f].property != property || query->filters[f].op == '=' ||
                            holds(&query->filters[f], value));
        if (good && (best.type == NONE || (descending ? compare_values(value, best) > 0
                                                      : compare_values(value, best) < 0)))
            best = value;
    }
    if (count == 0 && !entity->excluded[property]) { /* an empty array is found as null */
        struct value null = { NUL, 0 };
        bool good = true;
        for (int f = 0; f < query->filter_count; f++)
            good = good && (query->filters[f].property != property || query->filters[f].op == '=' ||
                            holds(&query->filters[f], null));
        return good ? null : best;
    }
    return best;
}

static bool has_value(const struct entity *entity, const struct filter *filter)
{
    int property = filter->property,
        count = entity->counts[property] < 0 ? 1 : entity->counts[property];
    if (entity->excluded[property])
        return false;
    if (count == 0)
        return filter->value.type == NUL;
    for (int i = 0; i < count; i++)
        if (entity->values[property][i].type != NONE &&
            compare_values(entity->values[property][i], filter->value) == 0)
            return true;
    return false;
}

static bool matches(const struct entity *entity, const struct query *query)
{
    if (strcmp(entity->name_space, query->name_space) ||
        (query->kind && strcmp(entity->path[entity->depth - 1].kind, query->kind)))
        return false;
    for (int i = 0; i < query->ancestor_depth; i++)
        if (i >= entity->depth || strcmp(entity->path[i].kind, query->ancestor[i].kind) ||
            entity->path[i].id != query->ancestor[i].id)
            return false;
    for (int f = 0; f < query->filter_count; f++)
        if (query->filters[f].op == '='
                ? !has_value(entity, &query->filters[f])
                : candidate(entity, query, query->filters[f].property, false).type == NONE)
            return false;
    for (int o = 0; o < query->order_count; o++)
        if (candidate(entity, query, query->orders[o], false).type == NONE)
            return false;
    return true;
}

static const struct query *sorting; /* qsort has no argument */

static int compare_entities(const void *a, const void *b)
{
    const struct entity *left = *(const struct entity *const *)a,
                        *right = *(const struct entity *const *)b;
    bool descending = sorting->by_key_descending;
    for (int o = 0; o < sorting->order_count; o++) {
        descending = sorting->descending[o];
        int order = compare_values(candidate(left, sorting, sorting->orders[o], descending),
                                   candidate(right, sorting, sorting->orders[o], descending));
        if (order)
            return descending ? -order : order;
    }
    int order = compare_paths(left, right);
    return descending ? -order : order;
}

static int expected(struct world *w, const struct query *query, const struct entity **out)
{
    int count = 0;
    for (int i = 0; i < w->count; i++)
        if (matches(&w->entities[i], query))
            out[count++] = &w->entities[i];
    sorting = query;
    qsort(out, (size_t)count, sizeof(*out), compare_entities);
    return count;
}

/* ---- as JSON ---- */

static void put_value(struct base_buf *out, struct value value)
{
    static const char *const formats[] = { [NUL] = "{'nullValue':null}",
                                           [INTEGER] = "{'integerValue':'%d'}",
                                           [STRING] = "{'stringValue':'v%d'}",
                                           [DOUBLE] = "{'doubleValue':%d.5}" };
    if (value.type == BOOLEAN)
        base_buf_printf(out, "{'booleanValue':%s}", value.number ? "true" : "false");
    else if (value.type == NUL)
        base_buf_put_str(out, formats[NUL]);
    else
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        base_buf_printf(out, formats[value.type], value.number);
#pragma GCC diagnostic pop
}

static void put_path(struct base_buf *out, const char *name_space, const struct element *path,
                     int depth)
{
    base_buf_printf(out, "{'partitionId':{'namespaceId':'%s'},'path':[", name_space);
    for (int i = 0; i < depth; i++)
        base_buf_printf(out, "%s{'kind':'%s','id':'%d'}", i ? "," : "", path[i].kind, path[i].id);
    base_buf_put_str(out, "]}");
}

static void put_property(struct base_buf *out, const struct entity *entity, int property,
                         bool *first)
{
    int count = entity->counts[property];
    if (count < 0 && entity->values[property][0].type == NONE)
        return;
    base_buf_printf(out, "%s'%s':", *first ? "" : ",", property_names[property]);
    *first = false;
    if (count < 0) {
        put_value(out, entity->values[property][0]);
        if (entity->excluded[property]) {
            out->len--;
            base_buf_put_str(out, ",'excludeFromIndexes':true}");
        }
        return;
    }
    base_buf_put_str(out, "{'arrayValue':{'values':[");
    for (int i = 0; i < count; i++) {
        base_buf_put_str(out, i ? "," : "");
        put_value(out, entity->values[property][i]);
    }
    base_buf_put_str(out, "]}}");
}

static void put_filter(struct base_buf *out, const struct filter *filter)
{
    const char *op = filter->op == '='   ? "EQUAL"
                     : filter->op == '<' ? "LESS_THAN"
                     : filter->op == 'l' ? "LESS_THAN_OR_EQUAL"
                     : filter->op == '>' ? "GREATER_THAN"
                                         : "GREATER_THAN_OR_EQUAL";
    base_buf_printf(out, "{'propertyFilter':{'property':{'name':'%s'},'op':'%s','value':",
                    property_names[filter->property], op);
    put_value(out, filter->value);
    base_buf_put_str(out, "}}");
}

static void put_query(struct base_buf *out, const struct query *query)
{
    bool some = false;
    base_buf_put_str(out, "{");
    if (query->kind)
        base_buf_printf(out, "'kind':[{'name':'%s'}],", query->kind);
    if (query->filter_count || query->ancestor_depth) {
        base_buf_put_str(out, "'filter':{'compositeFilter':{'op':'AND','filters':[");
        for (int f = 0; f < query->filter_count; f++, some = true) {
            base_buf_put_str(out, some ? "," : "");
            put_filter(out, &query->filters[f]);
        }
        if (query->ancestor_depth) {
            base_buf_printf(out,
                            "%s{'propertyFilter':{'property':{'name':'__key__'},'op':'HAS_ANCESTOR'"
                            ",'value':{'keyValue':",
                            some ? "," : "");
            put_path(out, query->name_space, query->ancestor, query->ancestor_depth);
            base_buf_put_str(out, "}}}");
        }
        base_buf_put_str(out, "]}},");
    }
    base_buf_put_str(out, "'order':[");
    for (int o = 0; o < query->order_count; o++)
        base_buf_printf(out, "%s{'property':{'name':'%s'},'direction':'%s'}", o ? "," : "",
                        property_names[query->orders[o]],
                        query->descending[o] ? "DESCENDING" : "ASCENDING");
    if (query->by_key_descending)
        base_buf_put_str(out, "{'property':{'name':'__key__'},'direction':'DESCENDING'}");
    base_buf_put_str(out, "]");
}

/* ---- making entities and queries ---- */

static struct value make_value(struct world *w)
{
    static const enum type types[] = { NUL,     INTEGER, INTEGER, INTEGER,
                                       BOOLEAN, STRING,  STRING,  DOUBLE };
    struct value value = { types[pick(w, 8)], 0 };
    value.number = value.type == NUL ? 0 : value.type == BOOLEAN ? pick(w, 2) : pick(w, 3);
    return value;
}

static void make_entity(struct world *w, struct entity *entity, int id)
{
    static const char *const kinds[] = { "K", "K", "K", "L" };
    *entity = (struct entity){ .name_space = pick(w, 5) ? "" : "n" };
    for (int up = pick(w, 3); up > 0; up--)
        entity->path[entity->depth++] = (struct element){ "P", 1 + pick(w, 2) };
    entity->path[entity->depth++] = (struct element){ kinds[pick(w, 4)], id };
    for (int p = 0; p < PROPERTIES; p++) {
        entity->counts[p] = pick(w, 3) ? -1 : pick(w, VALUES_MAX + 1);
        entity->excluded[p] = entity->counts[p] < 0 && pick(w, 12) == 0;
        for (int i = 0; i < VALUES_MAX; i++)
            if (pick(w, 10))
                entity->values[p][i] = make_value(w);
            else if (entity->counts[p] >= 0)
                entity->values[p][i] = (struct value){ INTEGER, 1 };
    }
}

static void store(struct world *w, int i) CH_WAITS;
static void store(struct world *w, int i)
{
    struct base_buf out = { 0 };
    bool first = true;
    base_buf_put_str(&out, "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':{'key':");
    put_path(&out, w->entities[i].name_space, w->entities[i].path, w->entities[i].depth);
    base_buf_put_str(&out, ",'properties':{");
    for (int p = 0; p < PROPERTIES; p++)
        put_property(&out, &w->entities[i], p, &first);
    base_buf_put_str(&out, "}}}]}");
    base_buf_put_u8(&out, 0);
    bed_call(w->t, COMMIT, "%s", (char *)out.data);
    base_buf_free(&out);
}

static void make_query(struct world *w, struct query *query)
{
    *query = (struct query){ .name_space = pick(w, 6) ? "" : "n", .kind = pick(w, 8) ? "K" : NULL };
    const struct entity *some = &w->entities[pick(w, w->count)];
    if (pick(w, 3) == 0 && some->depth > 1) {
        query->ancestor = some->path;
        query->ancestor_depth = 1 + pick(w, some->depth - 1);
    }
    query->by_key_descending = query->kind && pick(w, 6) == 0;
    if (!query->kind || query->by_key_descending)
        return;
    for (int n = pick(w, 3); n > 0; n--)
        query->filters[query->filter_count++] =
            (struct filter){ pick(w, PROPERTIES), '=', make_value(w) };
    int bounded = pick(w, 3) ? -1 : pick(w, PROPERTIES);
    bool used[PROPERTIES] = { 0 };
    for (int f = 0; f < query->filter_count; f++)
        used[query->filters[f].property] = true;
    if (bounded >= 0) {
        query->filters[query->filter_count++] =
            (struct filter){ bounded, pick(w, 2) ? '>' : 'g', make_value(w) };
        if (pick(w, 2))
            query->filters[query->filter_count++] =
                (struct filter){ bounded, pick(w, 2) ? '<' : 'l', make_value(w) };
        query->orders[query->order_count] = bounded; /* said, or implied: the same */
        query->descending[query->order_count++] = pick(w, 2);
        used[bounded] = true;
    }
    for (int n = pick(w, 3); n > 0; n--) {
        int property = pick(w, PROPERTIES);
        if (used[property])
            continue;
        used[property] = true;
        query->orders[query->order_count] = property;
        query->descending[query->order_count++] = pick(w, 2);
    }
}

/* ---- checking ---- */

static void load_recommended(struct world *w, const char *text) CH_WAITS;
static void load_recommended(struct world *w, const char *text)
{
    const char *stanza = strstr(text, "recommended index is:\n");
    cr_assert(stanza != NULL, "%s", text);
    const char *yaml = base_arena_printf(&w->t->arena, "indexes:\n%s\n",
                                         stanza + strlen("recommended index is:\n"));
    Strata__Queryapi__V1__LoadReply *reply =
        bed_call(w->t, LOAD_INDEXES, "{'yaml':'%s'}", bed_base64(w->t, ch_data_str(yaml)));
    cr_assert(reply->n_added == 1 && reply->added[0]->ready, "%s", yaml);
}

static bool same_key(const qry_key *key, const struct entity *entity)
{
    bool same = (int)key->n_path == entity->depth;
    for (int i = 0; same && i < entity->depth; i++)
        same = key->path[i]->id == entity->path[i].id &&
               base_bytes_eq_str(ch_bytes_of(key->path[i]->kind), entity->path[i].kind);
    return same;
}

static qry_batch *run(struct world *w, const struct query *query, const char *rest, bool keys_only,
                      const char **json) CH_WAITS;
static qry_batch *run(struct world *w, const struct query *query, const char *rest, bool keys_only,
                      const char **json)
{
    struct base_buf out = { 0 };
    base_buf_printf(&out, "{'partitionId':{'namespaceId':'%s'},'query':", query->name_space);
    put_query(&out, query);
    base_buf_printf(&out, "%s%s}}",
                    keys_only ? ",'projection':[{'property':{'name':'__key__'}}]" : "", rest);
    *json = base_bytes_cstr(&w->t->arena, base_buf_bytes(&out));
    base_buf_free(&out);
    for (int tries = 0;; tries++) {
        struct base_status status;
        qry_run_query_reply *reply =
            bed_send(w->t, RUN_QUERY, bed_request(w->t, RUN_QUERY, "%s", *json), &status);
        if (reply)
            return reply->batch;
        cr_assert(status.code == BASE_FAILED_PRECONDITION && tries == 0, "%s: %s", *json,
                  base_status_text(&status));
        load_recommended(w, base_status_text(&status));
        base_status_free(&status);
        w->missing++;
    }
}

static void check_batch(const qry_batch *batch, const struct entity **all, int count,
                        const char *json)
{
    for (int i = 0; i < (int)batch->n_entity_results && i < count; i++)
        cr_assert(same_key(batch->entity_results[i]->entity->key, all[i]), "result %d of %s", i,
                  json);
    cr_assert_eq((int)batch->n_entity_results, count, "%d results, not %d: %s",
                 (int)batch->n_entity_results, count, json);
}

/* Through all results by pages of `limit`, the cursor of any result among them being as good as
 * the page's end. */
static void check_pages(struct world *w, const struct query *query, const struct entity **all,
                        int count, int limit) CH_WAITS;
static void check_pages(struct world *w, const struct query *query, const struct entity **all,
                        int count, int limit)
{
    const char *cursor = "", *json;
    for (int at = 0; at <= count;) {
        const char *rest =
            base_arena_printf(&w->t->arena, ",'limit':%d%s%s%s", limit,
                              *cursor ? ",'startCursor':'" : "", cursor, *cursor ? "'" : "");
        qry_batch *batch = run(w, query, rest, pick(w, 2), &json);
        int left = count - at;
        check_batch(batch, all + at, left < limit ? left : limit, json);
        if (left <= limit) {
            /* At the limit exactly, "maybe more" is allowed; a short page is surely the last. */
            cr_assert(
                left == limit ||
                    batch->more_results ==
                        GOOGLE__DATASTORE__V1__QUERY_RESULT_BATCH__MORE_RESULTS_TYPE__NO_MORE_RESULTS,
                "%s", json);
            return;
        }
        cr_assert_eq(
            batch->more_results,
            GOOGLE__DATASTORE__V1__QUERY_RESULT_BATCH__MORE_RESULTS_TYPE__MORE_RESULTS_AFTER_LIMIT,
            "%s", json);
        int used = 1 + pick(w, limit);
        cursor = bed_base64(w->t, used == limit ? batch->end_cursor
                                                : batch->entity_results[used - 1]->cursor);
        at += used;
    }
}

static void check_parts(struct world *w, const struct query *query, const struct entity **all,
                        int count, const qry_batch *whole) CH_WAITS;
static void check_parts(struct world *w, const struct query *query, const struct entity **all,
                        int count, const qry_batch *whole)
{
    const char *json;
    int offset = pick(w, count + 2);
    qry_batch *batch = run(
        w, query, base_arena_printf(&w->t->arena, ",'offset':%d,'limit':3", offset), false, &json);
    int left = count > offset ? count - offset : 0;
    check_batch(batch, all + (count - left), left < 3 ? left : 3, json);
    cr_assert_eq(batch->skipped_results, offset < count ? offset : count, "%s", json);
    if (count > 0) { /* up to and with one */
        int last = pick(w, count);
        const char *end = bed_base64(w->t, whole->entity_results[last]->cursor);
        batch =
            run(w, query, base_arena_printf(&w->t->arena, ",'endCursor':'%s'", end), false, &json);
        check_batch(batch, all, last + 1, json);
        cr_assert_eq(
            batch->more_results,
            GOOGLE__DATASTORE__V1__QUERY_RESULT_BATCH__MORE_RESULTS_TYPE__MORE_RESULTS_AFTER_CURSOR,
            "%s", json);
    }
    struct base_buf out = { 0 };
    base_buf_printf(&out,
                    "{'partitionId':{'namespaceId':'%s'},'aggregationQuery':{'aggregations':[{'"
                    "count':{}},{'alias':'some','count':{'upTo':'2'}}],'nestedQuery':",
                    query->name_space);
    put_query(&out, query);
    base_buf_put_str(&out, "}}}");
    base_buf_put_u8(&out, 0);
    qry_aggregate_reply *reply = bed_call(w->t, AGGREGATE, "%s", (char *)out.data);
    cr_assert_eq(
        reply->batch->aggregation_results[0]->aggregate_properties[0]->value->integer_value, count,
        "%s", (char *)out.data);
    cr_assert_eq(
        reply->batch->aggregation_results[0]->aggregate_properties[1]->value->integer_value,
        count < 2 ? count : 2);
    base_buf_free(&out);
}

static void check_query(struct world *w) CH_WAITS;
static void check_query(struct world *w)
{
    const struct entity *all[ENTITIES];
    struct query query;
    const char *json;
    make_query(w, &query);
    int count = expected(w, &query, all);
    qry_batch *batch = run(w, &query, "", false, &json);
    check_batch(batch, all, count, json);
    cr_assert_eq(batch->more_results,
                 GOOGLE__DATASTORE__V1__QUERY_RESULT_BATCH__MORE_RESULTS_TYPE__NO_MORE_RESULTS);
    check_pages(w, &query, all, count, 1 + pick(w, 5));
    check_parts(w, &query, all, count, batch);
    w->answered++;
    w->results += count;
}

BED_TEST(random_queries_agree_with_the_model)
{
    struct world *w = calloc(1, sizeof(*w));
    uint64_t seed = ch_sim_seed(1);
    for (uint64_t s = seed; s < seed + SEEDS; s++) {
        *w = (struct world){ .t = t, .random = s * 77 };
        for (int i = 0; i < ENTITIES; i++) {
            make_entity(w, &w->entities[i], i + 1);
            w->count++;
            store(w, i);
        }
        for (int i = 0; i < QUERIES; i++) {
            if (pick(w, 3) == 0) { /* entities change under the indexes */
                int which = pick(w, ENTITIES);
                struct entity changed;
                make_entity(w, &changed, which + 1);
                changed.name_space = w->entities[which].name_space;
                changed.depth = w->entities[which].depth;
                memcpy(changed.path, w->entities[which].path, sizeof(changed.path));
                w->entities[which] = changed;
                store(w, which);
            }
            check_query(w);
            base_arena_reset(&t->arena);
        }
        cr_assert(w->missing > 0 && w->results > QUERIES,
                  "%d missing, %d results: the queries say too little", w->missing, w->results);
        for (int i = 0; i < ENTITIES; i++) { /* whatever a write left behind would show here */
            struct base_buf out = { 0 };
            base_buf_put_str(&out, "{'mode':'NON_TRANSACTIONAL','mutations':[{'delete':");
            put_path(&out, w->entities[i].name_space, w->entities[i].path, w->entities[i].depth);
            base_buf_put_str(&out, "}]}");
            base_buf_put_u8(&out, 0);
            bed_call(t, COMMIT, "%s", (char *)out.data);
            base_buf_free(&out);
        }
        size_t left = double_count(&t->store, "p/", BASE_BYTES_EMPTY) -
                      double_count(&t->store, "p/", BASE_BYTES_LIT("M"));
        cr_assert_eq(left, 0u, "%zu rows are left when no entity is", left);
    }
    free(w);
}
