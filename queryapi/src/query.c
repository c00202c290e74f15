/* query.c: see query.h. */
#include "query.h"

#include <stdlib.h>

#include "rows.h"

#define BAD(...) base_status_make(BASE_INVALID_ARGUMENT, __VA_ARGS__)
#define LATER(what) base_status_make(BASE_UNIMPLEMENTED, "queries with %s are not served yet", what)
enum { FILTERS_MAX = 100 };

typedef Google__Datastore__V1__PropertyFilter property_filter;

struct making {
    const struct qry_scope *scope;
    struct base_arena *arena;
    struct qry_query *q;
    struct base_buf scratch;
};

static bool is_key(struct base_bytes property)
{
    return base_bytes_eq_str(property, "__key__");
}

static struct base_bytes take_scratch(struct making *m)
{
    struct base_bytes bytes = base_bytes_dup(m->arena, base_buf_bytes(&m->scratch));
    base_buf_clear(&m->scratch);
    return bytes;
}

/* ---- filters ---- */

static bool tighter(const struct qry_bound *old, struct base_bytes value, bool inclusive, int sign)
{
    int order = old->set ? base_bytes_cmp(value, old->value) * sign : 1;
    return order > 0 || (order == 0 && old->inclusive && !inclusive);
}

static struct base_status add_bound(struct making *m, struct base_bytes property, int op,
                                    struct base_bytes value)
{
    struct qry_query *q = m->q;
    bool lower = op == FILTER_OP(GREATER_THAN) || op == FILTER_OP(GREATER_THAN_OR_EQUAL) ||
                 op == FILTER_OP(EQUAL);
    bool upper =
        op == FILTER_OP(LESS_THAN) || op == FILTER_OP(LESS_THAN_OR_EQUAL) || op == FILTER_OP(EQUAL);
    bool inclusive = op != FILTER_OP(GREATER_THAN) && op != FILTER_OP(LESS_THAN);
    if (q->bounded.len > 0 && !base_bytes_eq(q->bounded, property))
        return base_status_make(
            BASE_UNIMPLEMENTED,
            "queries with inequality filters on several properties (%.*s, %.*s) are not served yet",
            BASE_FMT(q->bounded), BASE_FMT(property));
    q->bounded = property;
    if (lower && tighter(&q->lower, value, inclusive, 1))
        q->lower = (struct qry_bound){ true, inclusive, value };
    if (upper && tighter(&q->upper, value, inclusive, -1))
        q->upper = (struct qry_bound){ true, inclusive, value };
    return BASE_STATUS_OK;
}

static struct base_status add_key_filter(struct making *m, int op, qry_value *value)
{
    if (value->value_type_case != VALUE(KEY_VALUE))
        return BAD("__key__ filter value must be a key");
    qry_key *key = value->key_value;
    struct base_status status = qry_check_key(m->scope, key, QRY_COMPLETE, m->arena);
    if (base_failed(status))
        return status;
    if (!base_bytes_eq(qry_name_space_of(key), m->q->name_space))
        return BAD("__key__ filter namespace is \"%.*s\" but query namespace is \"%.*s\"",
                   BASE_FMT(qry_name_space_of(key)), BASE_FMT(m->q->name_space));
    qry_put_path(&m->scratch, key);
    struct base_bytes path = take_scratch(m);
    if (op != FILTER_OP(HAS_ANCESTOR))
        return add_bound(m, BASE_BYTES_LIT("__key__"), op, path);
    /* Of two ancestors one must lie below the other: the deeper one says it all. */
    struct base_bytes *old = &m->q->ancestor;
    if (old->len == 0 || base_bytes_starts_with(path, *old))
        *old = path;
    else if (!base_bytes_starts_with(*old, path))
        return BAD("A query can have only one ancestor.");
    return status;
}

static struct base_status check_filter_value(struct making *m, struct base_bytes name,
                                             qry_value *value)
{
    switch (value->value_type_case) {
    case VALUE(ENTITY_VALUE):
        return BAD("An entity value is not allowed in a filter on %.*s.", BASE_FMT(name));
    case VALUE(ARRAY_VALUE):
        return BAD("A list value is not allowed in a filter on %.*s.", BASE_FMT(name));
    default:
        return qry_check_value(m->scope, name, value, m->arena);
    }
}

static struct base_status check_op(int op)
{
    switch (op) {
    case FILTER_OP(IN):
        return LATER("IN");
    case FILTER_OP(NOT_IN):
        return LATER("NOT_IN");
    case FILTER_OP(NOT_EQUAL):
        return LATER("!= (NOT_EQUAL)");
    case FILTER_OP(LESS_THAN):
    case FILTER_OP(LESS_THAN_OR_EQUAL):
    case FILTER_OP(GREATER_THAN):
    case FILTER_OP(GREATER_THAN_OR_EQUAL):
    case FILTER_OP(EQUAL):
    case FILTER_OP(HAS_ANCESTOR):
        return BASE_STATUS_OK;
    default:
        return BAD("A property filter has no operator.");
    }
}

static struct base_status add_property_filter(struct making *m, const property_filter *filter)
{
    struct base_bytes name =
        filter->property ? ch_bytes_of(filter->property->name) : BASE_BYTES_EMPTY;
    struct base_status status = check_op(filter->op);
    if (base_failed(status))
        return status;
    if (name.len == 0 || !filter->value)
        return BAD("A property filter needs a property and a value.");
    if (is_key(name))
        return add_key_filter(m, filter->op, filter->value);
    if (filter->op == FILTER_OP(HAS_ANCESTOR))
        return BAD("HAS_ANCESTOR is for __key__, not for %.*s.", BASE_FMT(name));
    if (m->q->kind.len == 0)
        return BAD("kind is required for filter: %.*s", BASE_FMT(name));
    status = check_filter_value(m, name, filter->value);
    if (base_failed(status))
        return status;
    qry_put_value(&m->scratch, filter->value);
    if (filter->op != FILTER_OP(EQUAL))
        return add_bound(m, name, filter->op, take_scratch(m));
    m->q->equals[m->q->equal_count++] = (struct qry_equal){ name, take_scratch(m) };
    return status;
}

static struct base_status add_filter(struct making *m, const qry_filter *filter, size_t *count)
{
    if (++*count > FILTERS_MAX)
        return BAD("A query has more than %d filters.", FILTERS_MAX);
    if (filter->filter_type_case == GOOGLE__DATASTORE__V1__FILTER__FILTER_TYPE_PROPERTY_FILTER)
        return add_property_filter(m, filter->property_filter);
    if (filter->filter_type_case != GOOGLE__DATASTORE__V1__FILTER__FILTER_TYPE_COMPOSITE_FILTER)
        return BAD("A filter has no type.");
    const Google__Datastore__V1__CompositeFilter *composite = filter->composite_filter;
    if (composite->n_filters == 0)
        return BAD("A composite filter must have at least one sub-filter.");
    if (composite->op == GOOGLE__DATASTORE__V1__COMPOSITE_FILTER__OPERATOR__OR &&
        composite->n_filters > 1)
        return LATER("OR");
    if (composite->op == GOOGLE__DATASTORE__V1__COMPOSITE_FILTER__OPERATOR__OPERATOR_UNSPECIFIED)
        return BAD("A composite filter has no operator.");
    for (size_t i = 0; i < composite->n_filters; i++) {
        struct base_status status = add_filter(m, composite->filters[i], count);
        if (base_failed(status))
            return status;
    }
    return BASE_STATUS_OK;
}

static int compare_equals(const void *a, const void *b)
{
    const struct qry_equal *left = a, *right = b;
    int order = base_bytes_cmp(left->property, right->property);
    return order ? order : base_bytes_cmp(left->value, right->value);
}

static void sort_equals(struct qry_query *q)
{
    size_t kept = 0;
    if (q->equal_count > 1)
        qsort(q->equals, q->equal_count, sizeof(*q->equals), compare_equals);
    for (size_t i = 0; i < q->equal_count; i++)
        if (kept == 0 || compare_equals(&q->equals[kept - 1], &q->equals[i]) != 0)
            q->equals[kept++] = q->equals[i];
    q->equal_count = kept;
}

/* ---- orders ---- */

static bool is_fixed(const struct qry_query *q, struct base_bytes property)
{
    if (base_bytes_eq(property, q->bounded))
        return false;
    for (size_t i = 0; i < q->equal_count; i++)
        if (base_bytes_eq(q->equals[i].property, property))
            return true;
    for (size_t i = 0; i < q->order_count; i++)
        if (base_bytes_eq(q->orders[i].property, property))
            return true;
    return false;
}

static struct base_status check_first_order(const struct qry_query *q, struct base_bytes first)
{
    if (q->bounded.len > 0 && !base_bytes_eq(q->bounded, first))
        return BAD("The first sort property must be the same as the property to which the "
                   "inequality filter is applied: "
                   "%.*s, not %.*s.",
                   BASE_FMT(q->bounded), BASE_FMT(first));
    return BASE_STATUS_OK;
}

static struct base_status add_orders(struct making *m, const qry_query_proto *in)
{
    struct qry_query *q = m->q;
    bool ordered_by_key = false, first = true;
    q->orders = BASE_NEW_ARRAY(m->arena, struct qry_order, in->n_order + 1);
    for (size_t i = 0; i < in->n_order && !ordered_by_key; i++) {
        const Google__Datastore__V1__PropertyOrder *order = in->order[i];
        struct base_bytes name =
            order->property ? ch_bytes_of(order->property->name) : BASE_BYTES_EMPTY;
        bool descending =
            order->direction == GOOGLE__DATASTORE__V1__PROPERTY_ORDER__DIRECTION__DESCENDING;
        if (name.len == 0 || name.len > QRY_NAME_MAX)
            return BAD("A sort order needs a property.");
        if (q->kind.len == 0 && (!is_key(name) || descending))
            return BAD("kind is required for all orders except __key__ ascending");
        if (is_fixed(q, name))
            continue;
        struct base_status status = first ? check_first_order(q, name) : BASE_STATUS_OK;
        if (base_failed(status))
            return status;
        first = false;
        ordered_by_key = is_key(name);
        q->key_descending = descending;
        if (!ordered_by_key)
            q->orders[q->order_count++] = (struct qry_order){ name, descending };
    }
    if (first && q->bounded.len > 0 && !is_key(q->bounded))
        q->orders[q->order_count++] = (struct qry_order){ q->bounded, false };
    if (q->order_count > QRY_INDEX_PROPERTIES_MAX)
        return BAD("A query has more than %d sort orders.", QRY_INDEX_PROPERTIES_MAX);
    return BASE_STATUS_OK;
}

/* ---- the whole ---- */

static struct base_status check_rest(const qry_query_proto *in, struct qry_query *q)
{
    if (in->n_kind > 1)
        return BAD("multiple kinds not supported");
    if (in->offset < 0)
        return BAD("Offset must be non-negative.");
    if (in->limit && in->limit->value < 0)
        return BAD("Limit must be non-negative.");
    if (in->find_nearest)
        return LATER("find_nearest");
    if (in->n_distinct_on > 0)
        return LATER("distinct_on");
    for (size_t i = 0; i < in->n_projection; i++)
        if (!in->projection[i]->property || !is_key(ch_bytes_of(in->projection[i]->property->name)))
            return LATER("a projection of properties");
    q->keys_only = in->n_projection > 0;
    q->offset = in->offset;
    q->limit = in->limit ? in->limit->value : -1;
    q->start_cursor = ch_bytes_of(in->start_cursor);
    q->end_cursor = ch_bytes_of(in->end_cursor);
    return BASE_STATUS_OK;
}

static struct base_status check_kind(const qry_query_proto *in, struct qry_query *q)
{
    if (in->n_kind == 0)
        return BASE_STATUS_OK;
    q->kind = ch_bytes_of(in->kind[0]->name);
    if (q->kind.len == 0 || q->kind.len > QRY_NAME_MAX)
        return BAD("The kind of a query must have 1 to %d bytes.", QRY_NAME_MAX);
    if (q->kind.len >= 4 && memcmp(q->kind.data, "__", 2) == 0 &&
        memcmp(q->kind.data + q->kind.len - 2, "__", 2) == 0)
        return base_status_make(BASE_UNIMPLEMENTED,
                                "queries of the metadata kind %.*s are not served yet",
                                BASE_FMT(q->kind));
    return BASE_STATUS_OK;
}

static void put_bound(struct base_buf *out, const struct qry_bound *bound)
{
    base_buf_put_u8(out, (uint8_t)((bound->set ? 1 : 0) | (bound->inclusive ? 2 : 0)));
    base_buf_put_lenbytes(out, bound->value);
}

static uint64_t shape_of(struct making *m)
{
    const struct qry_query *q = m->q;
    struct base_buf *out = &m->scratch;
    base_buf_put_lenbytes(out, q->name_space);
    base_buf_put_lenbytes(out, q->kind);
    base_buf_put_lenbytes(out, q->ancestor);
    for (size_t i = 0; i < q->equal_count; i++) {
        base_buf_put_lenbytes(out, q->equals[i].property);
        base_buf_put_lenbytes(out, q->equals[i].value);
    }
    base_buf_put_lenbytes(out, q->bounded);
    put_bound(out, &q->lower);
    put_bound(out, &q->upper);
    for (size_t i = 0; i < q->order_count; i++) {
        base_buf_put_lenbytes(out, q->orders[i].property);
        base_buf_put_u8(out, q->orders[i].descending);
    }
    base_buf_put_u8(out, q->key_descending);
    uint64_t hash = base_hash(out->data, out->len, 1);
    base_buf_clear(out);
    return hash;
}

static struct base_status make(struct making *m, const qry_partition *partition,
                               const qry_query_proto *in)
{
    size_t filters = 0;
    qry_partition *full;
    struct base_status status = qry_check_partition(m->scope, partition, m->arena, &full);
    if (base_failed(status))
        return status;
    m->q->partition = full;
    m->q->name_space = ch_bytes_of(full->namespace_id);
    m->q->equals = BASE_NEW_ARRAY(m->arena, struct qry_equal, FILTERS_MAX + 1);
    status = check_rest(in, m->q);
    if (!base_failed(status))
        status = check_kind(in, m->q);
    if (!base_failed(status) && in->filter)
        status = add_filter(m, in->filter, &filters);
    if (base_failed(status))
        return status;
    sort_equals(m->q);
    status = add_orders(m, in);
    m->q->shape = shape_of(m);
    return status;
}

struct base_status qry_query_make(const struct qry_scope *scope, const qry_partition *partition,
                                  const qry_query_proto *in, struct base_arena *arena,
                                  struct qry_query *out)
{
    struct making m = { .scope = scope, .arena = arena, .q = out };
    *out = (struct qry_query){ 0 };
    struct base_status status = make(&m, partition, in);
    base_buf_free(&m.scratch);
    return status;
}
