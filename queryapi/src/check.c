/* check.c: see check.h. Limits are ds.h's; texts are the ones clients of the public service know,
 * where they rely on them. */
#include "check.h"

#include <math.h>
#include <stdio.h>

#include "rows.h"

#define BAD(...) base_status_make(BASE_INVALID_ARGUMENT, __VA_ARGS__)

static bool is_reserved(struct base_bytes name)
{
    return name.len >= 4 && memcmp(name.data, "__", 2) == 0 &&
           memcmp(name.data + name.len - 2, "__", 2) == 0;
}

/* ---- scope and partitions ---- */

static bool is_dimension(struct base_bytes text, const char *also)
{
    if (text.len > 100)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '.' || c == '-' || c == '_';
        if (!good && (c == 0 || !strchr(also, c)))
            return false;
    }
    return true;
}

static struct base_status check_dimension(struct base_bytes text, const char *what,
                                          const char *also)
{
    char shown[128];
    if (!is_dimension(text, also)) {
        snprintf(shown, sizeof(shown), "%.*s", BASE_FMT(text));
        return BAD("Illegal string \"%s\" in %s.", shown, what);
    }
    if (is_reserved(text))
        return BAD("The %s \"%.*s\" is reserved.", what, BASE_FMT(text));
    return BASE_STATUS_OK;
}

struct base_status qry_check_scope(const struct qry_scope *scope)
{
    if (scope->project.len == 0)
        return BAD("project_id is empty");
    if (base_bytes_eq_str(scope->database, "(default)"))
        return BAD("\"(default)\" is an invalid database id.");
    struct base_status status = check_dimension(scope->project, "project id", ":");
    return base_failed(status) ? status : check_dimension(scope->database, "database id", "");
}

struct base_status qry_check_partition(const struct qry_scope *scope, const qry_partition *in,
                                       struct base_arena *arena, qry_partition **out)
{
    qry_partition *full = CH_MESSAGE(arena, qry_partition, google__datastore__v1__partition_id);
    full->project_id = ch_data_of(scope->project);
    full->database_id = ch_data_of(scope->database);
    *out = full;
    if (!in)
        return BASE_STATUS_OK;
    struct base_bytes project = ch_bytes_of(in->project_id),
                      database = ch_bytes_of(in->database_id);
    if (project.len > 0 && !base_bytes_eq(project, scope->project))
        return BAD("mismatched projects within request: \"%.*s\" and \"%.*s\"",
                   BASE_FMT(scope->project), BASE_FMT(project));
    if (database.len > 0 && !base_bytes_eq(database, scope->database))
        return BAD("mismatched databases within request: \"%.*s\" and \"%.*s\"",
                   BASE_FMT(scope->database), BASE_FMT(database));
    full->namespace_id = in->namespace_id;
    return check_dimension(ch_bytes_of(in->namespace_id), "namespace id", "");
}

/* ---- keys ---- */

const char *qry_key_show(struct base_arena *arena, const qry_key *key)
{
    struct base_buf text = { 0 };
    base_buf_put_str(&text, "[");
    for (size_t i = 0; i < key->n_path && i < QRY_PATH_ELEMENTS_MAX; i++) {
        const qry_path_element *element = key->path[i];
        base_buf_printf(&text, "%s%s: ", i ? ", " : "",
                        base_bytes_show(arena, ch_bytes_of(element->kind), 100));
        if (element->id_type_case == ELEMENT(ID))
            base_buf_printf(&text, "%lld", (long long)element->id);
        else if (element->id_type_case == ELEMENT(NAME))
            base_buf_printf(&text, "\"%s\"",
                            base_bytes_show(arena, ch_bytes_of(element->name), 100));
    }
    base_buf_put_str(&text, "]");
    const char *shown = base_bytes_cstr(arena, base_buf_bytes(&text));
    base_buf_free(&text);
    return shown;
}

bool qry_key_is_incomplete(const qry_key *key)
{
    return key->n_path > 0 && key->path[key->n_path - 1]->id_type_case == ELEMENT(_NOT_SET);
}

static struct base_status check_name(struct base_bytes name, const char *what)
{
    if (name.len == 0)
        return BAD("The %s is the empty string.", what);
    if (name.len > QRY_NAME_MAX)
        return BAD("The %s is longer than %d bytes.", what, QRY_NAME_MAX);
    if (is_reserved(name))
        return BAD("The %s \"%.*s\" is reserved.", what, BASE_FMT(name));
    return BASE_STATUS_OK;
}

static struct base_status check_element(const qry_path_element *element)
{
    struct base_status status = check_name(ch_bytes_of(element->kind), "kind");
    if (base_failed(status))
        return status;
    if (element->id_type_case == ELEMENT(NAME))
        return check_name(ch_bytes_of(element->name), "key path element name");
    if (element->id_type_case == ELEMENT(ID) && element->id == 0)
        return BAD("Key path id is invalid. Must not be zero.");
    return BASE_STATUS_OK;
}

static struct base_status check_path(const qry_key *key, enum qry_completeness completeness,
                                     struct base_arena *arena)
{
    if (key->n_path == 0)
        return BAD("The key path is empty.");
    if (key->n_path > QRY_PATH_ELEMENTS_MAX)
        return BAD("The key path has more than %d elements.", QRY_PATH_ELEMENTS_MAX);
    for (size_t i = 0; i < key->n_path; i++) {
        struct base_status status = check_element(key->path[i]);
        if (base_failed(status))
            return status;
        bool last = i + 1 == key->n_path,
             incomplete = key->path[i]->id_type_case == ELEMENT(_NOT_SET);
        if (incomplete && (!last || completeness == QRY_COMPLETE))
            return BAD("Key path element must not be incomplete: %s", qry_key_show(arena, key));
        if (last && !incomplete && completeness == QRY_INCOMPLETE_ONLY)
            return BAD("Key must be incomplete: %s", qry_key_show(arena, key));
    }
    size_t bytes = 0;
    for (size_t i = 0; i < key->n_path; i++)
        bytes += key->path[i]->kind.len +
                 (key->path[i]->id_type_case == ELEMENT(NAME) ? key->path[i]->name.len : 8);
    if (bytes > QRY_KEY_MAX)
        return BAD("The key is longer than %d bytes.", QRY_KEY_MAX);
    return BASE_STATUS_OK;
}

struct base_status qry_check_key(const struct qry_scope *scope, qry_key *key,
                                 enum qry_completeness completeness, struct base_arena *arena)
{
    qry_partition *partition;
    struct base_status status = qry_check_partition(scope, key->partition_id, arena, &partition);
    if (base_failed(status))
        return status;
    key->partition_id = partition;
    return check_path(key, completeness, arena);
}

/* ---- values ---- */

struct checking {
    const struct qry_scope *scope;
    struct base_arena *arena;
    int nesting;
    bool in_array, excluded;
};

static struct base_status check_properties(struct checking *at, qry_entity *entity);

static struct base_status check_string(const struct checking *at, struct base_bytes name,
                                       size_t len)
{
    if (!at->excluded && len > QRY_INDEXED_MAX)
        return BAD("The value of property \"%.*s\" is longer than %d bytes.", BASE_FMT(name),
                   QRY_INDEXED_MAX);
    if (len > QRY_UNINDEXED_MAX)
        return BAD("The value of property \"%.*s\" is longer than %d bytes.", BASE_FMT(name),
                   QRY_UNINDEXED_MAX);
    return BASE_STATUS_OK;
}

enum { SECONDS_MIN = -62135596800LL };
#define SECONDS_MAX 253402300799LL

static struct base_status check_timestamp(struct base_bytes name, qry_time *time)
{
    if (time->seconds < SECONDS_MIN || time->seconds > SECONDS_MAX || time->nanos < 0 ||
        time->nanos > 999999999)
        return BAD("The timestamp of property \"%.*s\" is out of range.", BASE_FMT(name));
    time->nanos -= time->nanos % 1000;
    return BASE_STATUS_OK;
}

static struct base_status check_point(struct base_bytes name, const Google__Type__LatLng *point)
{
    if (!(fabs(point->latitude) <= 90) || !(fabs(point->longitude) <= 180))
        return BAD("The geo point of property \"%.*s\" is out of range.", BASE_FMT(name));
    return BASE_STATUS_OK;
}

/* A key as a value may lie in another project, unlike the keys a request works on. */
static struct base_status check_key_value(const struct checking *at, qry_key *key)
{
    if (!key->partition_id || key->partition_id->project_id.len == 0)
        return qry_check_key(at->scope, key, QRY_COMPLETE, at->arena);
    struct qry_scope own = { ch_bytes_of(key->partition_id->project_id),
                             ch_bytes_of(key->partition_id->database_id) };
    return qry_check_key(&own, key, QRY_COMPLETE, at->arena);
}

static struct base_status check_value(struct checking *at, struct base_bytes name,
                                      qry_value *value);

static struct base_status check_array(struct checking *at, struct base_bytes name, qry_value *value)
{
    Google__Datastore__V1__ArrayValue *array = value->array_value;
    if (at->in_array)
        return BAD("list_value cannot contain a Value containing another list_value.");
    if (value->exclude_from_indexes)
        return BAD("The list value of property \"%.*s\" cannot have exclude_from_indexes: set it "
                   "on its elements.",
                   BASE_FMT(name));
    struct checking inside = *at;
    inside.in_array = true;
    for (size_t i = 0; i < array->n_values; i++) {
        struct base_status status = check_value(&inside, name, array->values[i]);
        if (base_failed(status))
            return status;
    }
    return BASE_STATUS_OK;
}

static struct base_status check_nested(struct checking *at, struct base_bytes name,
                                       qry_value *value)
{
    struct checking inside = *at;
    inside.in_array = false;
    inside.excluded = at->excluded || value->exclude_from_indexes;
    if (++inside.nesting > QRY_NESTING_MAX)
        return BAD("The entity value of property \"%.*s\" is nested deeper than %d.",
                   BASE_FMT(name), QRY_NESTING_MAX);
    return check_properties(&inside, value->entity_value);
}

static struct base_status check_value(struct checking *at, struct base_bytes name, qry_value *value)
{
    struct checking here = *at;
    here.excluded = at->excluded || value->exclude_from_indexes;
    switch (value->value_type_case) {
    case VALUE(STRING_VALUE):
        return check_string(&here, name, value->string_value.len);
    case VALUE(BLOB_VALUE):
        return check_string(&here, name, value->blob_value.len);
    case VALUE(TIMESTAMP_VALUE):
        return check_timestamp(name, value->timestamp_value);
    case VALUE(GEO_POINT_VALUE):
        return check_point(name, value->geo_point_value);
    case VALUE(KEY_VALUE):
        return check_key_value(at, value->key_value);
    case VALUE(ARRAY_VALUE):
        return check_array(at, name, value);
    case VALUE(ENTITY_VALUE):
        return check_nested(at, name, value);
    case VALUE(_NOT_SET):
        return BAD("The value \"%.*s\" does not contain a value.", BASE_FMT(name));
    default:
        return BASE_STATUS_OK;
    }
}

static struct base_status check_properties(struct checking *at, qry_entity *entity)
{
    for (size_t i = 0; i < entity->n_properties; i++) {
        qry_property *property = entity->properties[i];
        struct base_bytes name = ch_bytes_of(property->key);
        struct base_status status = check_name(name, "property.name");
        if (!base_failed(status))
            status = check_value(at, name, property->value);
        if (base_failed(status))
            return status;
    }
    return BASE_STATUS_OK;
}

struct base_status qry_check_value(const struct qry_scope *scope, struct base_bytes name,
                                   qry_value *value, struct base_arena *arena)
{
    struct checking at = { .scope = scope, .arena = arena };
    return check_value(&at, name, value);
}

struct base_status qry_check_entity_size(const qry_entity *entity)
{
    size_t size = ch_proto_size(&entity->base);
    if (size > QRY_ENTITY_MAX)
        return BAD("entity is too big (%zu bytes): maximum entity size is 1048576 bytes", size);
    return BASE_STATUS_OK;
}

struct base_status qry_check_entity(const struct qry_scope *scope, qry_entity *entity,
                                    struct base_arena *arena)
{
    struct checking at = { .scope = scope, .arena = arena };
    if (!entity->key)
        return BAD("The entity has no key.");
    struct base_status status = qry_check_key(scope, entity->key, QRY_INCOMPLETE_OK, arena);
    if (!base_failed(status))
        status = check_properties(&at, entity);
    return base_failed(status) ? status : qry_check_entity_size(entity);
}

int64_t qry_time_us(const qry_time *time)
{
    return time->seconds * 1000000 + time->nanos / 1000;
}

qry_time *qry_time_of(struct base_arena *arena, uint64_t us)
{
    qry_time *time = CH_MESSAGE(arena, qry_time, google__protobuf__timestamp);
    time->seconds = (int64_t)(us / 1000000);
    time->nanos = (int32_t)(us % 1000000) * 1000;
    return time;
}
