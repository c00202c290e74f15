/* schema.c: see schema.h. */
#include "schema.h"

#include <stdlib.h>

#include "meta.h"

bool tab_gc_drops(const struct tab_gc *gc, uint64_t index, int64_t timestamp_us, int64_t now_us)
{
    switch (gc->kind) {
    case TAB_GC_KEEP:
        return false;
    case TAB_GC_VERSIONS:
        return index >= (uint64_t)gc->versions;
    case TAB_GC_AGE:
        return timestamp_us < now_us - gc->age_us;
    case TAB_GC_ANY:
        for (size_t i = 0; i < gc->rule_count; i++)
            if (tab_gc_drops(&gc->rules[i], index, timestamp_us, now_us))
                return true;
        return false;
    case TAB_GC_ALL:
        for (size_t i = 0; i < gc->rule_count; i++)
            if (!tab_gc_drops(&gc->rules[i], index, timestamp_us, now_us))
                return false;
        return gc->rule_count > 0;
    }
    return false;
}

static void compile_gc(struct base_arena *arena, const Google__Bigtable__Admin__V2__GcRule *rule,
                       struct tab_gc *gc);

static void compile_list(struct base_arena *arena, Google__Bigtable__Admin__V2__GcRule **rules,
                         size_t count, struct tab_gc *gc)
{
    gc->rules = BASE_NEW_ARRAY(arena, struct tab_gc, count);
    gc->rule_count = count;
    for (size_t i = 0; i < count; i++)
        compile_gc(arena, rules[i], &gc->rules[i]);
}

static void compile_gc(struct base_arena *arena, const Google__Bigtable__Admin__V2__GcRule *rule,
                       struct tab_gc *gc)
{
    *gc = (struct tab_gc){ .kind = TAB_GC_KEEP };
    if (!rule)
        return;
    switch (rule->rule_case) {
    case GOOGLE__BIGTABLE__ADMIN__V2__GC_RULE__RULE_MAX_NUM_VERSIONS:
        gc->kind = TAB_GC_VERSIONS;
        gc->versions = rule->max_num_versions > 0 ? rule->max_num_versions : 1;
        break;
    case GOOGLE__BIGTABLE__ADMIN__V2__GC_RULE__RULE_MAX_AGE:
        gc->kind = TAB_GC_AGE;
        gc->age_us = rule->max_age->seconds * 1000000 + rule->max_age->nanos / 1000;
        break;
    case GOOGLE__BIGTABLE__ADMIN__V2__GC_RULE__RULE_UNION:
        gc->kind = TAB_GC_ANY;
        compile_list(arena, rule->union_->rules, rule->union_->n_rules, gc);
        break;
    case GOOGLE__BIGTABLE__ADMIN__V2__GC_RULE__RULE_INTERSECTION:
        gc->kind = TAB_GC_ALL;
        compile_list(arena, rule->intersection->rules, rule->intersection->n_rules, gc);
        break;
    default:
        break;
    }
}

static enum tab_aggregate aggregate_of(const Google__Bigtable__Admin__V2__Type *type)
{
    if (!type || type->kind_case != GOOGLE__BIGTABLE__ADMIN__V2__TYPE__KIND_AGGREGATE_TYPE)
        return TAB_AGGREGATE_NONE;
    switch (type->aggregate_type->aggregator_case) {
    case GOOGLE__BIGTABLE__ADMIN__V2__TYPE__AGGREGATE__AGGREGATOR_SUM:
        return TAB_AGGREGATE_SUM;
    case GOOGLE__BIGTABLE__ADMIN__V2__TYPE__AGGREGATE__AGGREGATOR_MIN:
        return TAB_AGGREGATE_MIN;
    case GOOGLE__BIGTABLE__ADMIN__V2__TYPE__AGGREGATE__AGGREGATOR_MAX:
        return TAB_AGGREGATE_MAX;
    default:
        return TAB_AGGREGATE_OTHER;
    }
}

static int by_name(const void *a, const void *b)
{
    return base_bytes_cmp(((const struct tab_family *)a)->name,
                          ((const struct tab_family *)b)->name);
}

static struct tab_schema *schema_alloc(size_t family_count)
{
    struct tab_schema *schema = calloc(1, sizeof(*schema));
    BASE_ASSERT(schema != NULL);
    schema->refs = 1;
    base_arena_init(&schema->arena);
    schema->family_count = family_count;
    schema->families = BASE_NEW_ARRAY(&schema->arena, struct tab_family, family_count);
    return schema;
}

struct tab_schema *tab_schema_new(const Strata__Tablet__V1__TableMeta *meta)
{
    struct tab_schema *schema = schema_alloc(meta->n_families);
    schema->table = meta->id;
    schema->version = meta->version;
    schema->name = base_bytes_cstr(&schema->arena, ch_bytes_of(meta->name));
    for (size_t i = 0; i < meta->n_families; i++) {
        struct tab_family *family = &schema->families[i];
        family->name = base_bytes_dup(&schema->arena, ch_bytes_of(meta->families[i]->name));
        family->id = meta->families[i]->id;
        const Google__Bigtable__Admin__V2__ColumnFamily *def = meta->families[i]->family;
        compile_gc(&schema->arena, def ? def->gc_rule : NULL, &family->gc);
        family->aggregate = aggregate_of(def ? def->value_type : NULL);
    }
    if (schema->family_count)
        qsort(schema->families, schema->family_count, sizeof(*schema->families), by_name);
    return schema;
}

struct tab_schema *tab_schema_ref(struct tab_schema *schema)
{
    schema->refs++;
    return schema;
}

void tab_schema_unref(struct tab_schema *schema)
{
    if (!schema || --schema->refs > 0)
        return;
    base_arena_free(&schema->arena);
    free(schema);
}

const struct tab_family *tab_schema_family(const struct tab_schema *schema, struct base_bytes name)
{
    size_t low = 0, high = schema->family_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = base_bytes_cmp(schema->families[middle].name, name);
        if (order == 0)
            return &schema->families[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

struct tab_schema *tab_schema_of_metadata(void)
{
    struct tab_schema *schema = schema_alloc(1);
    schema->table = TAB_TABLE_METADATA;
    schema->name = base_arena_strdup(&schema->arena, "METADATA");
    schema->families[0] = (struct tab_family){ .name = BASE_BYTES_LIT(TAB_META_FAMILY),
                                               .id = 1,
                                               .gc = { .kind = TAB_GC_VERSIONS, .versions = 1 } };
    return schema;
}
