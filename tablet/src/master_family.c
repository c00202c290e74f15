/* master_family.c: checking and changing a table's families; what GetTable shows. Pure. */
#include "master_admin.h"

#include "chassis/proto.h"

enum { GC_DEPTH_MAX = 20 };

struct base_status tab_check_id(const char *field, struct base_bytes id, size_t max)
{
    bool good = id.len > 0 && id.len <= max;
    for (size_t i = 0; good && i < id.len; i++) {
        uint8_t c = id.data[i];
        bool word =
            c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        good = word || ((c == '-' || c == '.') && i > 0);
    }
    if (good)
        return BASE_STATUS_OK;
    struct base_arena arena = { 0 };
    struct base_status status =
        base_status_make(BASE_INVALID_ARGUMENT,
                         "Invalid %s \"%s\": must match [_a-zA-Z0-9][-_.a-zA-Z0-9]* "
                         "and be at most %zu characters",
                         field, base_bytes_show(&arena, id, 100), max);
    base_arena_free(&arena);
    return status;
}

struct base_status tab_check_parent(struct base_bytes parent)
{
    static const char *const words[] = { "projects/", "/instances/" };
    struct base_bytes rest = parent;
    bool good = base_bytes_starts_with(rest, base_bytes_str(words[0]));
    if (good) {
        rest = base_bytes(rest.data + 9, rest.len - 9);
        const uint8_t *slash = memchr(rest.data, '/', rest.len);
        good = slash && slash > rest.data;
        if (good) {
            rest = base_bytes(slash, rest.len - (size_t)(slash - rest.data));
            good = base_bytes_starts_with(rest, base_bytes_str(words[1])) && rest.len > 11 &&
                   !memchr(rest.data + 11, '/', rest.len - 11);
        }
    }
    if (good)
        return BASE_STATUS_OK;
    return base_status_make(
        BASE_INVALID_ARGUMENT,
        "Invalid parent \"%.*s\": expected projects/<project>/instances/<instance>",
        parent.len < 200 ? (int)parent.len : 200, parent.len ? (const char *)parent.data : "");
}

static struct base_status check_gc(const Google__Bigtable__Admin__V2__GcRule *rule, int depth)
{
    if (!rule)
        return BASE_STATUS_OK;
    if (depth > GC_DEPTH_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "gc_rule is nested deeper than %d",
                                GC_DEPTH_MAX);
    Google__Bigtable__Admin__V2__GcRule **rules = NULL;
    size_t count = 0;
    switch (rule->rule_case) {
    case GOOGLE__BIGTABLE__ADMIN__V2__GC_RULE__RULE_MAX_NUM_VERSIONS:
        if (rule->max_num_versions <= 0)
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "gc_rule: max_num_versions must be positive, got %d",
                                    rule->max_num_versions);
        break;
    case GOOGLE__BIGTABLE__ADMIN__V2__GC_RULE__RULE_MAX_AGE:
        if (!rule->max_age || rule->max_age->seconds < 0 || rule->max_age->nanos < 0 ||
            rule->max_age->seconds > 315576000000LL ||
            (rule->max_age->seconds == 0 && rule->max_age->nanos < 1000000))
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "gc_rule: max_age must be at least 1 millisecond");
        break;
    case GOOGLE__BIGTABLE__ADMIN__V2__GC_RULE__RULE_INTERSECTION:
        rules = rule->intersection->rules;
        count = rule->intersection->n_rules;
        break;
    case GOOGLE__BIGTABLE__ADMIN__V2__GC_RULE__RULE_UNION:
        rules = rule->union_->rules;
        count = rule->union_->n_rules;
        break;
    default:
        break;
    }
    for (size_t i = 0; i < count; i++) {
        struct base_status status = check_gc(rules[i], depth + 1);
        if (base_failed(status))
            return status;
    }
    return BASE_STATUS_OK;
}

static struct base_status check_family(struct base_bytes name,
                                       const Google__Bigtable__Admin__V2__ColumnFamily *family)
{
    bool good = name.len > 0 && name.len <= TAB_FAMILY_ID_MAX;
    for (size_t i = 0; good && i < name.len; i++) {
        uint8_t c = name.data[i];
        good = c == '-' || c == '_' || c == '.' || (c >= 'a' && c <= 'z') ||
               (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    }
    if (!good)
        return base_status_make(
            BASE_INVALID_ARGUMENT,
            "Invalid family id \"%.*s\": must match [-_.a-zA-Z0-9]+ and be at most %d "
            "characters",
            name.len < 100 ? (int)name.len : 100, name.len ? (const char *)name.data : "",
            TAB_FAMILY_ID_MAX);
    if (!family || !family->gc_rule)
        return BASE_STATUS_OK;
    if (ch_proto_size(&family->gc_rule->base) > TAB_GC_RULE_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "gc_rule of family %.*s is larger than %d bytes", BASE_FMT(name),
                                TAB_GC_RULE_MAX);
    return check_gc(family->gc_rule, 1);
}

static Strata__Tablet__V1__FamilyMeta *find_family(Strata__Tablet__V1__TableMeta *table,
                                                   struct base_bytes name, size_t *at)
{
    for (size_t i = 0; i < table->n_families; i++)
        if (base_bytes_eq(ch_bytes_of(table->families[i]->name), name)) {
            *at = i;
            return table->families[i];
        }
    return NULL;
}

struct base_status tab_add_family(Strata__Tablet__V1__TableMeta *table, struct base_bytes name,
                                  Google__Bigtable__Admin__V2__ColumnFamily *family,
                                  struct base_arena *arena)
{
    size_t at;
    struct base_status status = check_family(name, family);
    if (base_failed(status))
        return status;
    if (find_family(table, name, &at))
        return base_status_make(BASE_ALREADY_EXISTS, "Column family already exists: %.*s",
                                BASE_FMT(name));
    if (table->n_families == TAB_FAMILIES_MAX)
        return base_status_make(BASE_RESOURCE_EXHAUSTED, "a table has at most %d column families",
                                TAB_FAMILIES_MAX);
    Strata__Tablet__V1__FamilyMeta **list =
        BASE_NEW_ARRAY(arena, Strata__Tablet__V1__FamilyMeta *, table->n_families + 1);
    if (table->n_families)
        memcpy(list, table->families, table->n_families * sizeof(*list));
    Strata__Tablet__V1__FamilyMeta *added =
        CH_MESSAGE(arena, Strata__Tablet__V1__FamilyMeta, strata__tablet__v1__family_meta);
    added->name = ch_data_of(base_bytes_dup(arena, name));
    added->id = table->next_family++;
    added->family = family ? family
                           : CH_MESSAGE(arena, Google__Bigtable__Admin__V2__ColumnFamily,
                                        google__bigtable__admin__v2__column_family);
    list[table->n_families++] = added;
    table->families = list;
    return BASE_STATUS_OK;
}

static struct base_status update_family(
    Strata__Tablet__V1__FamilyMeta *present,
    const Google__Bigtable__Admin__V2__ModifyColumnFamiliesRequest__Modification *change)
{
    struct base_status status = check_family(ch_bytes_of(change->id), change->update);
    if (base_failed(status))
        return status;
    bool gc = !change->update_mask || change->update_mask->n_paths == 0, type = false;
    for (size_t i = 0; change->update_mask && i < change->update_mask->n_paths; i++) {
        struct base_bytes path = ch_bytes_of(change->update_mask->paths[i]);
        gc |= base_bytes_eq_str(path, "gc_rule") || base_bytes_eq_str(path, "gcRule");
        type |= base_bytes_eq_str(path, "value_type") || base_bytes_eq_str(path, "valueType");
    }
    if (gc)
        present->family->gc_rule = change->update->gc_rule;
    if (type)
        present->family->value_type = change->update->value_type;
    return BASE_STATUS_OK;
}

struct base_status tab_modify_family(
    Strata__Tablet__V1__TableMeta *table,
    const Google__Bigtable__Admin__V2__ModifyColumnFamiliesRequest__Modification *change,
    struct base_arena *arena)
{
    struct base_bytes name = ch_bytes_of(change->id);
    size_t at = 0;
    Strata__Tablet__V1__FamilyMeta *present = find_family(table, name, &at);
    switch (change->mod_case) {
    case GOOGLE__BIGTABLE__ADMIN__V2__MODIFY_COLUMN_FAMILIES_REQUEST__MODIFICATION__MOD_CREATE:
        return tab_add_family(table, name, change->create, arena);
    case GOOGLE__BIGTABLE__ADMIN__V2__MODIFY_COLUMN_FAMILIES_REQUEST__MODIFICATION__MOD_UPDATE:
        if (present)
            return update_family(present, change);
        break;
    case GOOGLE__BIGTABLE__ADMIN__V2__MODIFY_COLUMN_FAMILIES_REQUEST__MODIFICATION__MOD_DROP:
        if (!change->drop)
            return base_status_make(BASE_INVALID_ARGUMENT, "drop must be true if set");
        if (present) {
            memmove(&table->families[at], &table->families[at + 1],
                    (table->n_families - at - 1) * sizeof(*table->families));
            table->n_families--;
            return BASE_STATUS_OK;
        }
        break;
    default:
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "Modification of family \"%.*s\": nothing is set", BASE_FMT(name));
    }
    return base_status_make(BASE_NOT_FOUND, "Column family not found: %.*s", BASE_FMT(name));
}

static void put_cluster_state(Google__Bigtable__Admin__V2__Table *reply, struct base_arena *arena)
{
    Google__Bigtable__Admin__V2__Table__ClusterStatesEntry *entry =
        CH_MESSAGE(arena, Google__Bigtable__Admin__V2__Table__ClusterStatesEntry,
                   google__bigtable__admin__v2__table__cluster_states_entry);
    entry->key = ch_data_str("local");
    entry->value = CH_MESSAGE(arena, Google__Bigtable__Admin__V2__Table__ClusterState,
                              google__bigtable__admin__v2__table__cluster_state);
    entry->value->replication_state =
        GOOGLE__BIGTABLE__ADMIN__V2__TABLE__CLUSTER_STATE__REPLICATION_STATE__READY;
    reply->cluster_states = base_arena_memdup(arena, &entry, sizeof(entry));
    reply->n_cluster_states = 1;
}

Google__Bigtable__Admin__V2__Table *tab_table_reply(const Strata__Tablet__V1__TableMeta *table,
                                                    int view, struct base_arena *arena)
{
    Google__Bigtable__Admin__V2__Table *reply =
        CH_MESSAGE(arena, Google__Bigtable__Admin__V2__Table, google__bigtable__admin__v2__table);
    reply->name = table->name;
    if (view == GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__NAME_ONLY)
        return reply;
    if (view == GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__REPLICATION_VIEW ||
        view == GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__FULL)
        put_cluster_state(reply, arena);
    if (view == GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__REPLICATION_VIEW ||
        view == GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__ENCRYPTION_VIEW)
        return reply;
    reply->granularity = GOOGLE__BIGTABLE__ADMIN__V2__TABLE__TIMESTAMP_GRANULARITY__MILLIS;
    reply->deletion_protection = table->deletion_protection;
    reply->n_column_families = table->n_families;
    reply->column_families = BASE_NEW_ARRAY(
        arena, Google__Bigtable__Admin__V2__Table__ColumnFamiliesEntry *, table->n_families);
    for (size_t i = 0; i < table->n_families; i++) {
        Google__Bigtable__Admin__V2__Table__ColumnFamiliesEntry *entry =
            CH_MESSAGE(arena, Google__Bigtable__Admin__V2__Table__ColumnFamiliesEntry,
                       google__bigtable__admin__v2__table__column_families_entry);
        entry->key = table->families[i]->name;
        entry->value = table->families[i]->family;
        reply->column_families[i] = entry;
    }
    return reply;
}
