/* plan.c: see plan.h. */
#include "plan.h"

#include "entries.h"
#include "rows.h"

struct planning {
    const struct qry_query *q;
    const struct qry_index *indexes;
    size_t index_count;
    uint64_t timestamp;
    struct base_arena *arena;
    struct qry_plan *plan;
    bool covered[QRY_SCANS_MAX + 1]; /* equalities; the ancestor is [equal_count] */
};

/* ---- prefixes of built-in indexes ---- */

static void add_scan(struct planning *p, struct base_buf *prefix)
{
    BASE_ASSERT(p->plan->scan_count < QRY_SCANS_MAX);
    p->plan->scans[p->plan->scan_count++].prefix = base_bytes_dup(p->arena, base_buf_bytes(prefix));
    base_buf_free(prefix);
}

static void scan_entities(struct planning *p)
{
    struct base_buf prefix = { 0 };
    if (p->q->kind.len > 0)
        qry_put_kind_prefix(&prefix, p->q->name_space, p->q->kind);
    else
        qry_put_space(&prefix, QRY_ROWS_ENTITY, p->q->name_space);
    add_scan(p, &prefix);
}

static void scan_property(struct planning *p, struct base_bytes property, struct base_bytes value)
{
    struct base_buf prefix = { 0 };
    qry_put_property_prefix(&prefix, p->q->name_space, p->q->kind, property);
    base_buf_put_bytes(&prefix, value);
    add_scan(p, &prefix);
}

/* ---- composite indexes ---- */

/* The index ends in the query's orders (or all reversed), and the key in its. */
static bool index_ends_in_orders(const struct qry_index *index, const struct qry_query *q,
                                 bool reverse)
{
    if (index->property_count < q->order_count ||
        (index->key_descending != reverse) != q->key_descending)
        return false;
    size_t lead = index->property_count - q->order_count;
    for (size_t i = 0; i < q->order_count; i++)
        if (!base_bytes_eq(index->properties[lead + i].name, q->orders[i].property) ||
            (index->properties[lead + i].descending != reverse) != q->orders[i].descending)
            return false;
    return true;
}

/* Gives each leading property of the index an equality, such as are not covered first. Counts what
 * becomes newly covered; 0 when the index does not fit or brings nothing. */
static size_t assign(const struct planning *p, const struct qry_index *index, size_t *equal_of)
{
    const struct qry_query *q = p->q;
    size_t lead = index->property_count - q->order_count, fresh = 0;
    bool used[QRY_SCANS_MAX + 1] = { 0 };
    if (index->ancestor && q->ancestor.len == 0)
        return 0;
    for (size_t i = 0; i < lead; i++) {
        size_t best = SIZE_MAX;
        for (size_t e = 0; e < q->equal_count; e++)
            if (base_bytes_eq(q->equals[e].property, index->properties[i].name) && !used[e] &&
                (best == SIZE_MAX || (p->covered[best] && !p->covered[e])))
                best = e;
        for (size_t e = 0; best == SIZE_MAX && e < q->equal_count; e++)
            if (base_bytes_eq(q->equals[e].property, index->properties[i].name))
                best = e;
        if (best == SIZE_MAX)
            return 0;
        fresh += !p->covered[best] && !used[best];
        used[best] = true;
        equal_of[i] = best;
    }
    return fresh + (index->ancestor && !p->covered[q->equal_count]);
}

static void scan_composite(struct planning *p, const struct qry_index *index,
                           const size_t *equal_of)
{
    const struct qry_query *q = p->q;
    struct base_buf prefix = { 0 };
    qry_put_composite_prefix(&prefix, index->id, q->name_space);
    if (index->ancestor) {
        base_buf_put_bytes(&prefix, q->ancestor);
        qry_put_path_end(&prefix);
        p->covered[q->equal_count] = true;
    }
    for (size_t i = 0; i < index->property_count - q->order_count; i++) {
        struct base_bytes value = q->equals[equal_of[i]].value;
        if (index->properties[i].descending)
            qry_put_flipped(&prefix, value);
        else
            base_buf_put_bytes(&prefix, value);
        p->covered[equal_of[i]] = true;
    }
    add_scan(p, &prefix);
}

static bool all_covered(const struct planning *p)
{
    bool all =
        p->plan->scan_count > 0 && (p->covered[p->q->equal_count] || p->q->ancestor.len == 0);
    for (size_t e = 0; e < p->q->equal_count; e++)
        all = all && p->covered[e];
    return all;
}

static bool usable(const struct planning *p, const struct qry_index *index)
{
    return index->ready && base_bytes_eq(index->kind, p->q->kind) &&
           (p->timestamp == 0 || index->ready_at <= p->timestamp);
}

/* Adds, until all is covered, the index that covers most. */
static bool cover(struct planning *p, bool reverse)
{
    const struct qry_query *q = p->q;
    memset(p->covered, 0, sizeof(p->covered));
    p->plan->scan_count = 0;
    while (!all_covered(p)) {
        const struct qry_index *best = NULL;
        size_t most = 0, equal_of[QRY_INDEX_PROPERTIES_MAX],
               best_equal_of[QRY_INDEX_PROPERTIES_MAX];
        bool nothing_to_cover = q->equal_count == 0 && q->ancestor.len == 0;
        for (size_t i = 0; i < p->index_count; i++) {
            const struct qry_index *index = &p->indexes[i];
            if (!usable(p, index) || !index_ends_in_orders(index, q, reverse))
                continue;
            size_t fresh = assign(p, index, equal_of);
            if (nothing_to_cover && !index->ancestor && index->property_count == q->order_count)
                fresh = 1;
            if (fresh <= most)
                continue;
            most = fresh;
            best = index;
            memcpy(best_equal_of, equal_of, sizeof(equal_of));
        }
        if (!best)
            return false;
        scan_composite(p, best, best_equal_of);
    }
    return true;
}

static struct base_status missing(struct planning *p)
{
    const struct qry_query *q = p->q;
    struct qry_index index = { .kind = q->kind,
                               .ancestor = q->ancestor.len > 0,
                               .key_descending = q->key_descending };
    index.properties =
        BASE_NEW_ARRAY(p->arena, struct qry_index_property, q->equal_count + q->order_count + 1);
    for (size_t i = 0; i < q->equal_count;
         i++) /* a property once, however often it is compared: a zig-zag joins these */
        if (i == 0 || !base_bytes_eq(q->equals[i].property, q->equals[i - 1].property))
            index.properties[index.property_count++].name = q->equals[i].property;
    for (size_t i = 0; i < q->order_count; i++)
        index.properties[index.property_count++] =
            (struct qry_index_property){ q->orders[i].property, q->orders[i].descending };
    struct base_buf stanza = { 0 };
    qry_index_put_stanza(&stanza, &index);
    struct base_status status = base_status_make(
        BASE_FAILED_PRECONDITION, "no matching index found. recommended index is:\n%.*s",
        BASE_FMT(base_buf_bytes(&stanza)));
    base_buf_free(&stanza);
    return status;
}

static void use_directions(struct planning *p, bool reverse)
{
    const struct qry_query *q = p->q;
    p->plan->reverse = reverse;
    p->plan->key_stored_descending = q->key_descending != reverse;
    for (size_t i = 0; i < q->order_count; i++)
        p->plan->stored_descending[i] = q->orders[i].descending != reverse;
}

static struct base_status choose_scans(struct planning *p)
{
    const struct qry_query *q = p->q;
    bool plain = q->equal_count == 0 && q->ancestor.len == 0;
    /* By key: the kind's rows, or a join of equalities; the ancestor is a range of paths. */
    if (q->order_count == 0) {
        use_directions(p, q->key_descending);
        for (size_t e = 0; e < q->equal_count; e++)
            scan_property(p, q->equals[e].property, q->equals[e].value);
        if (q->equal_count == 0)
            scan_entities(p);
        return BASE_STATUS_OK;
    }
    if (plain && q->order_count == 1 && q->orders[0].descending == q->key_descending) {
        use_directions(p, q->key_descending);
        scan_property(p, q->orders[0].property, BASE_BYTES_EMPTY);
        return BASE_STATUS_OK;
    }
    for (int reverse = 0; reverse < 2; reverse++)
        if (cover(p, reverse)) {
            use_directions(p, reverse);
            return BASE_STATUS_OK;
        }
    return missing(p);
}

/* ---- the range of suffixes ---- */

static struct base_bytes followed_by(struct base_arena *arena, struct base_bytes bytes,
                                     uint8_t last)
{
    uint8_t *out = base_arena_alloc(arena, bytes.len + 1);
    memcpy(out, bytes.data, bytes.len);
    out[bytes.len] = last;
    return base_bytes(out, bytes.len + 1);
}

static void raise_lower(struct qry_plan *plan, struct base_bytes lower)
{
    if (base_bytes_cmp(lower, plan->lower) > 0)
        plan->lower = lower;
}

static void reduce_upper(struct qry_plan *plan, struct base_bytes upper)
{
    if (plan->unbounded || base_bytes_cmp(upper, plan->upper) < 0)
        plan->upper = upper;
    plan->unbounded = false;
}

static struct base_bytes end_of(struct base_arena *arena, struct base_bytes prefix)
{
    struct base_buf out = { 0 };
    BASE_ASSERT(base_prefix_end(prefix, &out)); /* no encoded value or path is all FF */
    struct base_bytes end = base_bytes_dup(arena, base_buf_bytes(&out));
    base_buf_free(&out);
    return end;
}

/* Paths are stored ascending wherever bounds on them are used: built-in rows. */
static void bound_paths(struct planning *p)
{
    const struct qry_query *q = p->q;
    if (q->ancestor.len > 0) {
        raise_lower(p->plan, q->ancestor);
        reduce_upper(p->plan, end_of(p->arena, q->ancestor));
    }
    if (q->lower.set)
        raise_lower(p->plan,
                    q->lower.inclusive ? q->lower.value : followed_by(p->arena, q->lower.value, 0));
    if (q->upper.set)
        reduce_upper(p->plan, q->upper.inclusive ? followed_by(p->arena, q->upper.value, 0)
                                                 : q->upper.value);
}

static void bound_values(struct planning *p)
{
    const struct qry_query *q = p->q;
    const struct qry_bound *lower = &q->lower, *upper = &q->upper;
    struct base_buf flipped = { 0 };
    if (p->plan->stored_descending[0]) {
        lower = &q->upper;
        upper = &q->lower;
    }
    for (int end = 0; end < 2; end++) {
        const struct qry_bound *bound = end ? upper : lower;
        struct base_bytes value = bound->value;
        if (!bound->set)
            continue;
        if (p->plan->stored_descending[0]) {
            base_buf_clear(&flipped);
            qry_put_flipped(&flipped, value);
            value = base_bytes_dup(p->arena, base_buf_bytes(&flipped));
        }
        if (!end)
            raise_lower(p->plan, bound->inclusive ? value : end_of(p->arena, value));
        else
            reduce_upper(p->plan, bound->inclusive ? end_of(p->arena, value) : value);
    }
    base_buf_free(&flipped);
}

struct base_status qry_plan_make(const struct qry_query *query, const struct qry_index *indexes,
                                 size_t index_count, uint64_t timestamp, struct base_arena *arena,
                                 struct qry_plan *plan)
{
    struct planning p = { query, indexes, index_count, timestamp, arena, plan, { 0 } };
    *plan = (struct qry_plan){ .component_count = query->order_count, .unbounded = true };
    plan->stored_descending = BASE_NEW_ARRAY(arena, bool, query->order_count + 1);
    struct base_status status = choose_scans(&p);
    if (base_failed(status))
        return status;
    plan->keys_decide = query->order_count == 0;
    if (query->order_count == 0)
        bound_paths(&p);
    else if (query->bounded.len > 0)
        bound_values(&p);
    return status;
}

/* ---- positions ---- */

void qry_position_to_suffix(const struct qry_plan *plan, struct base_bytes components,
                            struct base_bytes path, struct base_buf *suffix)
{
    struct base_buf plain = { 0 };
    for (size_t i = 0; i < plan->component_count; i++) {
        base_buf_clear(&plain);
        BASE_ASSERT(qry_take_value(&components, false, &plain));
        if (plan->stored_descending[i])
            qry_put_flipped(suffix, base_buf_bytes(&plain));
        else
            base_buf_put_bytes(suffix, base_buf_bytes(&plain));
    }
    base_buf_free(&plain);
    if (!(plan->key_stored_descending && plan->component_count > 0)) {
        base_buf_put_bytes(suffix, path);
        return;
    }
    static const uint8_t flipped_end[2] = { 0xff, 0xff };
    qry_put_flipped(suffix, path);
    base_buf_put(suffix, flipped_end, 2);
}

bool qry_suffix_to_position(const struct qry_plan *plan, struct base_bytes suffix,
                            struct base_buf *components, struct base_buf *path)
{
    for (size_t i = 0; i < plan->component_count; i++)
        if (!qry_take_value(&suffix, plan->stored_descending[i], components))
            return false;
    if (!(plan->key_stored_descending && plan->component_count > 0)) {
        base_buf_put_bytes(path, suffix);
        return suffix.len > 0;
    }
    if (suffix.len <= 2 || suffix.data[suffix.len - 1] != 0xff ||
        suffix.data[suffix.len - 2] != 0xff)
        return false;
    qry_put_flipped(path, base_bytes(suffix.data, suffix.len - 2));
    return true;
}

static bool in_range(const struct qry_query *q, size_t component, struct base_bytes value)
{
    if (component > 0 || q->bounded.len == 0)
        return true;
    int lower = q->lower.set ? base_bytes_cmp(value, q->lower.value) : 1;
    int upper = q->upper.set ? base_bytes_cmp(value, q->upper.value) : -1;
    return (lower > 0 || (lower == 0 && q->lower.inclusive)) &&
           (upper < 0 || (upper == 0 && q->upper.inclusive));
}

bool qry_row_is_first(const struct qry_query *query, const struct qry_plan *plan,
                      struct base_bytes row_value)
{
    if (row_value.len == 0 || plan->component_count == 0)
        return true;
    /* The row's components are the plan's last: those before them are equalities. */
    struct qry_neighbours neighbours;
    size_t all = 0;
    while (qry_row_neighbours(row_value, all, &neighbours))
        all++;
    if (all < plan->component_count)
        return true;
    for (size_t i = 0; i < plan->component_count; i++) {
        if (!qry_row_neighbours(row_value, all - plan->component_count + i, &neighbours))
            return true;
        bool descending = query->orders[i].descending;
        if (descending ? neighbours.has_next && in_range(query, i, neighbours.next)
                       : neighbours.has_previous && in_range(query, i, neighbours.previous))
            return false;
    }
    return true;
}
