/* entries.c: see entries.h. First the indexed values are collected as (property, encoded value),
 * sorted, each once; from these come the rows: one of the kind, one a value, and for each
 * composite index one a combination of its properties' values (and, of an ancestor index, one for
 * each ancestor too). */
#include "entries.h"

#include <stdlib.h>

#include "check.h"
#include "rows.h"

struct item {
    struct base_bytes property, value;
};
struct group { /* the values of one property */
    const struct item *items;
    size_t count;
};
struct maker {
    struct base_arena *arena;
    const qry_entity *entity;
    struct base_bytes name_space, kind, path;
    struct item *items;
    size_t item_count, item_cap;
    struct qry_entry *entries;
    size_t entry_count, entry_cap;
    struct base_buf scratch;
    size_t counted; /* items and entries, before they are made */
};

static struct base_status too_many(const struct maker *maker)
{
    return base_status_make(BASE_INVALID_ARGUMENT, "entity %s has more than %d index entries",
                            qry_key_show(maker->arena, maker->entity->key), QRY_ENTRIES_MAX);
}

/* ---- collecting values ---- */

static struct base_status add_item(struct maker *maker, struct base_bytes property,
                                   const qry_value *value)
{
    if (maker->item_count == maker->item_cap) {
        size_t cap = maker->item_cap ? maker->item_cap * 2 : 16;
        struct item *items = BASE_NEW_ARRAY(maker->arena, struct item, cap);
        if (maker->item_count)
            memcpy(items, maker->items, maker->item_count * sizeof(*items));
        maker->items = items;
        maker->item_cap = cap;
    }
    if (maker->item_count >= QRY_ENTRIES_MAX)
        return too_many(maker);
    base_buf_clear(&maker->scratch);
    qry_put_value(&maker->scratch, value);
    maker->items[maker->item_count++] =
        (struct item){ property, base_bytes_dup(maker->arena, base_buf_bytes(&maker->scratch)) };
    return BASE_STATUS_OK;
}

static struct base_status collect(struct maker *maker, struct base_bytes prefix,
                                  const qry_entity *entity);

static struct base_bytes join(struct base_arena *arena, struct base_bytes prefix,
                              struct base_bytes name)
{
    if (prefix.len == 0)
        return name;
    uint8_t *text = base_arena_alloc(arena, prefix.len + 1 + name.len);
    memcpy(text, prefix.data, prefix.len);
    text[prefix.len] = '.';
    memcpy(text + prefix.len + 1, name.data, name.len);
    return base_bytes(text, prefix.len + 1 + name.len);
}

static struct base_status collect_value(struct maker *maker, struct base_bytes name,
                                        const qry_value *value)
{
    static const qry_value null = GOOGLE__DATASTORE__V1__VALUE__INIT;
    if (value->exclude_from_indexes)
        return BASE_STATUS_OK;
    if (value->value_type_case == VALUE(ENTITY_VALUE))
        return collect(maker, name, value->entity_value);
    if (value->value_type_case != VALUE(ARRAY_VALUE))
        return add_item(maker, name, value);
    if (value->array_value->n_values == 0) { /* an empty array is found as null */
        qry_value as = null;
        as.value_type_case = VALUE(NULL_VALUE);
        return add_item(maker, name, &as);
    }
    for (size_t i = 0; i < value->array_value->n_values; i++) {
        struct base_status status = collect_value(maker, name, value->array_value->values[i]);
        if (base_failed(status))
            return status;
    }
    return BASE_STATUS_OK;
}

static struct base_status collect(struct maker *maker, struct base_bytes prefix,
                                  const qry_entity *entity)
{
    for (size_t i = 0; i < entity->n_properties; i++) {
        const qry_property *property = entity->properties[i];
        struct base_status status = collect_value(
            maker, join(maker->arena, prefix, ch_bytes_of(property->key)), property->value);
        if (base_failed(status))
            return status;
    }
    return BASE_STATUS_OK;
}

static int compare_items(const void *a, const void *b)
{
    const struct item *left = a, *right = b;
    int order = base_bytes_cmp(left->property, right->property);
    return order ? order : base_bytes_cmp(left->value, right->value);
}

static void sort_items(struct maker *maker)
{
    size_t kept = 0;
    if (maker->item_count > 1)
        qsort(maker->items, maker->item_count, sizeof(*maker->items), compare_items);
    for (size_t i = 0; i < maker->item_count; i++)
        if (kept == 0 || compare_items(&maker->items[kept - 1], &maker->items[i]) != 0)
            maker->items[kept++] = maker->items[i];
    maker->item_count = kept;
    maker->counted = kept;
}

static struct group find_group(const struct maker *maker, struct base_bytes property)
{
    size_t low = 0, high = maker->item_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (base_bytes_cmp(maker->items[middle].property, property) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    struct group group = { maker->items + low, 0 };
    while (low + group.count < maker->item_count &&
           base_bytes_eq(group.items[group.count].property, property))
        group.count++;
    return group;
}

/* ---- rows ---- */

static struct base_status add_entry(struct maker *maker, struct base_bytes value)
{
    if (maker->scratch.len > TXN_KEY_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "entity %s: an index entry's key is longer than %d bytes",
                                qry_key_show(maker->arena, maker->entity->key), TXN_KEY_MAX);
    if (maker->entry_count == maker->entry_cap) {
        size_t cap = maker->entry_cap ? maker->entry_cap * 2 : 16;
        struct qry_entry *entries = BASE_NEW_ARRAY(maker->arena, struct qry_entry, cap);
        if (maker->entry_count)
            memcpy(entries, maker->entries, maker->entry_count * sizeof(*entries));
        maker->entries = entries;
        maker->entry_cap = cap;
    }
    maker->entries[maker->entry_count++] =
        (struct qry_entry){ base_bytes_dup(maker->arena, base_buf_bytes(&maker->scratch)), value };
    return BASE_STATUS_OK;
}

static void put_neighbours(struct base_buf *out, struct group group, size_t at)
{
    bool previous = at > 0, next = at + 1 < group.count;
    base_buf_put_u8(out, (uint8_t)((previous ? 1 : 0) | (next ? 2 : 0)));
    if (previous)
        base_buf_put_lenbytes(out, group.items[at - 1].value);
    if (next)
        base_buf_put_lenbytes(out, group.items[at + 1].value);
}

static struct base_bytes neighbours_of(struct maker *maker, const struct group *groups,
                                       const size_t *at, size_t count)
{
    struct base_buf out = { 0 };
    bool several = false;
    for (size_t i = 0; i < count; i++)
        several = several || groups[i].count > 1;
    for (size_t i = 0; several && i < count; i++)
        put_neighbours(&out, groups[i], at[i]);
    struct base_bytes value =
        several ? base_bytes_dup(maker->arena, base_buf_bytes(&out)) : BASE_BYTES_EMPTY;
    base_buf_free(&out);
    return value;
}

static struct base_status make_property_rows(struct maker *maker)
{
    for (size_t i = 0; i < maker->item_count;) {
        struct group group = find_group(maker, maker->items[i].property);
        for (size_t at = 0; at < group.count; at++, i++) {
            base_buf_clear(&maker->scratch);
            qry_put_property_prefix(&maker->scratch, maker->name_space, maker->kind,
                                    group.items[at].property);
            base_buf_put_bytes(&maker->scratch, group.items[at].value);
            base_buf_put_bytes(&maker->scratch, maker->path);
            struct base_status status = add_entry(maker, neighbours_of(maker, &group, &at, 1));
            if (base_failed(status))
                return status;
        }
    }
    return BASE_STATUS_OK;
}

/* One row: `ancestor` bytes of the path lead it in an ancestor index. */
static struct base_status make_composite_row(struct maker *maker, const struct qry_index *index,
                                             const struct group *groups, const size_t *at,
                                             size_t ancestor)
{
    struct base_buf *out = &maker->scratch;
    base_buf_clear(out);
    qry_put_composite_prefix(out, index->id, maker->name_space);
    if (index->ancestor) {
        base_buf_put(out, maker->path.data, ancestor);
        qry_put_path_end(out);
    }
    for (size_t i = 0; i < index->property_count; i++)
        if (index->properties[i].descending)
            qry_put_flipped(out, groups[i].items[at[i]].value);
        else
            base_buf_put_bytes(out, groups[i].items[at[i]].value);
    if (index->key_descending) {
        static const uint8_t flipped_end[2] = { 0xff, 0xff };
        qry_put_flipped(out, maker->path);
        base_buf_put(out, flipped_end, 2);
    } else {
        base_buf_put_bytes(out, maker->path);
    }
    return add_entry(maker, neighbours_of(maker, groups, at, index->property_count));
}

/* The rows of one combination of values: for each ancestor, the entity itself last. */
static struct base_status make_combination(struct maker *maker, const struct qry_index *index,
                                           const struct group *groups, const size_t *at)
{
    if (!index->ancestor)
        return make_composite_row(maker, index, groups, at, 0);
    for (size_t end = 0; end < maker->path.len;) {
        end += qry_path_root_len(base_bytes(maker->path.data + end, maker->path.len - end));
        struct base_status status = make_composite_row(maker, index, groups, at, end);
        if (base_failed(status))
            return status;
    }
    return BASE_STATUS_OK;
}

static struct base_status make_composite_rows(struct maker *maker, const struct qry_index *index)
{
    struct group *groups = BASE_NEW_ARRAY(maker->arena, struct group, index->property_count);
    size_t *at = BASE_NEW_ARRAY(maker->arena, size_t, index->property_count);
    size_t rows = index->ancestor ? maker->entity->key->n_path : 1;
    for (size_t i = 0; i < index->property_count; i++) {
        groups[i] = find_group(maker, index->properties[i].name);
        if (groups[i].count == 0)
            return BASE_STATUS_OK;
        rows *= groups[i].count; /* no overflow: refused beyond the limit at each step */
        if (rows + maker->counted > QRY_ENTRIES_MAX)
            return too_many(maker);
    }
    maker->counted += rows;
    for (;;) {
        struct base_status status = make_combination(maker, index, groups, at);
        size_t digit = 0;
        if (base_failed(status))
            return status;
        while (digit < index->property_count && ++at[digit] == groups[digit].count)
            at[digit++] = 0;
        if (digit == index->property_count)
            return BASE_STATUS_OK;
    }
}

static int compare_entries(const void *a, const void *b)
{
    return base_bytes_cmp(((const struct qry_entry *)a)->key, ((const struct qry_entry *)b)->key);
}

static struct base_status make_rows(struct maker *maker, bool built_in,
                                    const struct qry_index *indexes, size_t count)
{
    struct base_status status = collect(maker, BASE_BYTES_EMPTY, maker->entity);
    if (base_failed(status))
        return status;
    sort_items(maker);
    if (built_in) {
        base_buf_clear(&maker->scratch);
        qry_put_kind_prefix(&maker->scratch, maker->name_space, maker->kind);
        base_buf_put_bytes(&maker->scratch, maker->path);
        status = add_entry(maker, BASE_BYTES_EMPTY);
        if (!base_failed(status))
            status = make_property_rows(maker);
    }
    for (size_t i = 0; i < count && !base_failed(status); i++)
        if (base_bytes_eq(indexes[i].kind, maker->kind))
            status = make_composite_rows(maker, &indexes[i]);
    if (maker->entry_count > 1)
        qsort(maker->entries, maker->entry_count, sizeof(*maker->entries), compare_entries);
    return status;
}

static struct base_status make(const qry_entity *entity, bool built_in,
                               const struct qry_index *indexes, size_t count,
                               struct base_arena *arena, struct qry_entries *out)
{
    struct maker maker = { .arena = arena,
                           .entity = entity,
                           .name_space = qry_name_space_of(entity->key) };
    maker.kind = ch_bytes_of(entity->key->path[entity->key->n_path - 1]->kind);
    qry_put_path(&maker.scratch, entity->key);
    maker.path = base_bytes_dup(arena, base_buf_bytes(&maker.scratch));
    struct base_status status = make_rows(&maker, built_in, indexes, count);
    base_buf_free(&maker.scratch);
    *out = (struct qry_entries){ maker.entries, maker.entry_count };
    return status;
}

struct base_status qry_entries_of(const qry_entity *entity, const struct qry_index *indexes,
                                  size_t index_count, struct base_arena *arena,
                                  struct qry_entries *out)
{
    return make(entity, true, indexes, index_count, arena, out);
}

struct base_status qry_entries_of_index(const qry_entity *entity, const struct qry_index *index,
                                        struct base_arena *arena, struct qry_entries *out)
{
    return make(entity, false, index, 1, arena, out);
}

/* ---- difference ---- */

void qry_entries_diff(const struct qry_entries *old, const struct qry_entries *new,
                      struct base_bytes group, struct txn_write *writes, size_t *count)
{
    size_t i = 0, j = 0;
    while (i < old->count || j < new->count) {
        int order = i == old->count   ? 1
                    : j == new->count ? -1
                                      : base_bytes_cmp(old->items[i].key, new->items[j].key);
        if (order < 0)
            writes[(*count)++] =
                (struct txn_write){ .key = { group, old->items[i].key }, .is_delete = true };
        else if (order > 0 || !base_bytes_eq(old->items[i].value, new->items[j].value))
            writes[(*count)++] = (struct txn_write){ .key = { group, new->items[j].key },
                                                     .value = new->items[j].value };
        i += order <= 0;
        j += order >= 0;
    }
}

static bool take_neighbours(struct base_bytes *in, struct qry_neighbours *out)
{
    struct base_bytes flags;
    if (!base_take_bytes(in, 1, &flags))
        return false;
    *out =
        (struct qry_neighbours){ .has_previous = flags.data[0] & 1, .has_next = flags.data[0] & 2 };
    return (!out->has_previous || base_take_lenbytes(in, &out->previous)) &&
           (!out->has_next || base_take_lenbytes(in, &out->next));
}

bool qry_row_neighbours(struct base_bytes row_value, size_t component, struct qry_neighbours *out)
{
    for (size_t i = 0; row_value.len > 0 && take_neighbours(&row_value, out); i++)
        if (i == component)
            return true;
    return false;
}
