/* mask.c: see mask.h. */
#include "mask.h"

struct base_status qry_path_parse(struct base_bytes text, struct base_arena *arena,
                                  struct qry_path *path)
{
    uint8_t *plain = base_arena_alloc(arena, text.len + 1);
    size_t from = 0, to = 0;
    path->names = BASE_NEW_ARRAY(arena, struct base_bytes, text.len + 1);
    path->count = 0;
    for (size_t i = 0; i <= text.len; i++) {
        if (i < text.len && text.data[i] != '.') {
            i += text.data[i] == '\\' && i + 1 < text.len;
            plain[to++] = text.data[i];
            continue;
        }
        if (to == from || path->count == QRY_NESTING_MAX + 1)
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "The property path \"%.*s\" has an empty part or too many.",
                                    BASE_FMT(text));
        path->names[path->count++] = base_bytes(plain + from, to - from);
        from = to;
    }
    return BASE_STATUS_OK;
}

static qry_property *find(const qry_entity *entity, struct base_bytes name)
{
    for (size_t i = 0; i < entity->n_properties; i++)
        if (base_bytes_eq(ch_bytes_of(entity->properties[i]->key), name))
            return entity->properties[i];
    return NULL;
}

qry_value *qry_path_get(const struct qry_path *path, const qry_entity *entity)
{
    for (size_t i = 0;; i++) {
        qry_property *property = find(entity, path->names[i]);
        if (!property || i + 1 == path->count)
            return property ? property->value : NULL;
        if (property->value->value_type_case != VALUE(ENTITY_VALUE))
            return NULL;
        entity = property->value->entity_value;
    }
}

static qry_property *add(qry_entity *entity, struct base_bytes name, struct base_arena *arena)
{
    qry_property **properties = BASE_NEW_ARRAY(arena, qry_property *, entity->n_properties + 1);
    for (size_t i = 0; i < entity->n_properties; i++)
        properties[i] = entity->properties[i];
    qry_property *property =
        CH_MESSAGE(arena, qry_property, google__datastore__v1__entity__properties_entry);
    property->key = ch_data_of(name);
    properties[entity->n_properties++] = property;
    entity->properties = properties;
    return property;
}

static qry_value *entity_value(struct base_arena *arena)
{
    qry_value *value = CH_MESSAGE(arena, qry_value, google__datastore__v1__value);
    value->value_type_case = VALUE(ENTITY_VALUE);
    value->entity_value = CH_MESSAGE(arena, qry_entity, google__datastore__v1__entity);
    return value;
}

void qry_path_set(const struct qry_path *path, qry_entity *entity, qry_value *value,
                  struct base_arena *arena)
{
    for (size_t i = 0;; i++) {
        qry_property *property = find(entity, path->names[i]);
        if (!property)
            property = add(entity, path->names[i], arena);
        if (i + 1 == path->count) {
            property->value = value;
            return;
        }
        if (!property->value || property->value->value_type_case != VALUE(ENTITY_VALUE))
            property->value = entity_value(arena);
        entity = property->value->entity_value;
    }
}

void qry_path_remove(const struct qry_path *path, qry_entity *entity)
{
    for (size_t i = 0; i + 1 < path->count; i++) {
        qry_property *property = find(entity, path->names[i]);
        if (!property || property->value->value_type_case != VALUE(ENTITY_VALUE))
            return;
        entity = property->value->entity_value;
    }
    size_t kept = 0;
    for (size_t i = 0; i < entity->n_properties; i++)
        if (!base_bytes_eq(ch_bytes_of(entity->properties[i]->key), path->names[path->count - 1]))
            entity->properties[kept++] = entity->properties[i];
    entity->n_properties = kept;
}

static bool is_key(const struct qry_path *path)
{
    return path->count == 1 && base_bytes_eq_str(path->names[0], "__key__");
}

struct base_status qry_mask_select(const qry_mask *mask, const qry_entity *in,
                                   struct base_arena *arena, qry_entity **out)
{
    qry_entity *entity = CH_MESSAGE(arena, qry_entity, google__datastore__v1__entity);
    entity->key = in->key;
    for (size_t i = 0; i < mask->n_paths; i++) {
        struct qry_path path;
        struct base_status status = qry_path_parse(ch_bytes_of(mask->paths[i]), arena, &path);
        if (base_failed(status))
            return status;
        qry_value *value = is_key(&path) ? NULL : qry_path_get(&path, in);
        if (value)
            qry_path_set(&path, entity, value, arena);
    }
    *out = entity;
    return BASE_STATUS_OK;
}

struct base_status qry_mask_merge(const qry_mask *mask, const qry_entity *old,
                                  const qry_entity *new, struct base_arena *arena, qry_entity **out)
{
    qry_entity *entity = old ? (qry_entity *)ch_proto_copy(&old->base, arena)
                             : CH_MESSAGE(arena, qry_entity, google__datastore__v1__entity);
    entity->key = new->key;
    for (size_t i = 0; i < mask->n_paths; i++) {
        struct qry_path path;
        struct base_status status = qry_path_parse(ch_bytes_of(mask->paths[i]), arena, &path);
        if (base_failed(status))
            return status;
        if (is_key(&path))
            continue;
        qry_value *value = qry_path_get(&path, new);
        if (value)
            qry_path_set(&path, entity, value, arena);
        else
            qry_path_remove(&path, entity);
    }
    *out = entity;
    return BASE_STATUS_OK;
}
