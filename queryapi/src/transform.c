/* transform.c: see transform.h. Numbers: an integer and an integer stay integers and stop at the
 * ends; with a double the result is a double; what is no number counts as absent. Of equal numbers
 * the stored one stays. */
#include "transform.h"

#include "mask.h"

#define TRANSFORM(type) GOOGLE__DATASTORE__V1__PROPERTY_TRANSFORM__TRANSFORM_TYPE_##type

static bool is_number(const qry_value *value)
{
    return value && (value->value_type_case == VALUE(INTEGER_VALUE) ||
                     value->value_type_case == VALUE(DOUBLE_VALUE));
}

static struct base_status check_operand(const struct qry_scope *scope, struct base_bytes name,
                                        qry_value *value, struct base_arena *arena)
{
    if (!is_number(value))
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "The transform of property \"%.*s\" needs a number.",
                                BASE_FMT(name));
    return qry_check_value(scope, name, value, arena);
}

static struct base_status check_elements(const struct qry_scope *scope, struct base_bytes name,
                                         Google__Datastore__V1__ArrayValue *array,
                                         struct base_arena *arena)
{
    for (size_t i = 0; i < array->n_values; i++) {
        if (array->values[i]->value_type_case == VALUE(ARRAY_VALUE))
            return base_status_make(
                BASE_INVALID_ARGUMENT,
                "list_value cannot contain a Value containing another list_value.");
        struct base_status status = qry_check_value(scope, name, array->values[i], arena);
        if (base_failed(status))
            return status;
    }
    return BASE_STATUS_OK;
}

static struct base_status check_one(const struct qry_scope *scope, qry_transform *transform,
                                    struct base_arena *arena)
{
    struct base_bytes name = ch_bytes_of(transform->property);
    struct qry_path path;
    struct base_status status = qry_path_parse(name, arena, &path);
    if (base_failed(status))
        return status;
    switch (transform->transform_type_case) {
    case TRANSFORM(SET_TO_SERVER_VALUE):
        if (transform->set_to_server_value ==
            GOOGLE__DATASTORE__V1__PROPERTY_TRANSFORM__SERVER_VALUE__REQUEST_TIME)
            return status;
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "The transform of property \"%.*s\" names no server value.",
                                BASE_FMT(name));
    case TRANSFORM(INCREMENT):
        return check_operand(scope, name, transform->increment, arena);
    case TRANSFORM(MAXIMUM):
        return check_operand(scope, name, transform->maximum, arena);
    case TRANSFORM(MINIMUM):
        return check_operand(scope, name, transform->minimum, arena);
    case TRANSFORM(APPEND_MISSING_ELEMENTS):
        return check_elements(scope, name, transform->append_missing_elements, arena);
    case TRANSFORM(REMOVE_ALL_FROM_ARRAY):
        return check_elements(scope, name, transform->remove_all_from_array, arena);
    default:
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "The transform of property \"%.*s\" has no type.", BASE_FMT(name));
    }
}

struct base_status qry_transforms_check(const struct qry_scope *scope, qry_transform **transforms,
                                        size_t count, struct base_arena *arena)
{
    if (count > QRY_TRANSFORMS_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "A mutation has more than %d property transforms.",
                                QRY_TRANSFORMS_MAX);
    for (size_t i = 0; i < count; i++) {
        struct base_status status = check_one(scope, transforms[i], arena);
        if (base_failed(status))
            return status;
    }
    return BASE_STATUS_OK;
}

static double as_double(const qry_value *value)
{
    return value->value_type_case == VALUE(INTEGER_VALUE) ? (double)value->integer_value
                                                          : value->double_value;
}

static bool both_integers(const qry_value *a, const qry_value *b)
{
    return a->value_type_case == VALUE(INTEGER_VALUE) && b->value_type_case == VALUE(INTEGER_VALUE);
}

static qry_value *new_value(struct base_arena *arena, int type)
{
    qry_value *value = CH_MESSAGE(arena, qry_value, google__datastore__v1__value);
    value->value_type_case = type;
    return value;
}

static qry_value *increment(const qry_value *old, qry_value *by, struct base_arena *arena)
{
    qry_value *sum = new_value(arena, VALUE(DOUBLE_VALUE));
    if (!is_number(old))
        return by;
    if (!both_integers(old, by)) {
        sum->double_value = as_double(old) + as_double(by);
        return sum;
    }
    sum->value_type_case = VALUE(INTEGER_VALUE);
    if (__builtin_add_overflow(old->integer_value, by->integer_value, &sum->integer_value))
        sum->integer_value = by->integer_value > 0 ? INT64_MAX : INT64_MIN;
    return sum;
}

static qry_value *extreme(qry_value *old, qry_value *other, bool maximum)
{
    if (!is_number(old))
        return other;
    if (both_integers(old, other))
        return (maximum ? other->integer_value > old->integer_value
                        : other->integer_value < old->integer_value)
                   ? other
                   : old;
    double a = as_double(old), b = as_double(other);
    if (a != a || b != b) /* NaN wins */
        return a != a ? old : other;
    return (maximum ? b > a : b < a) ? other : old;
}

static bool holds(qry_value **values, size_t count, const qry_value *value)
{
    for (size_t i = 0; i < count; i++)
        if (ch_proto_equal(&values[i]->base, &value->base))
            return true;
    return false;
}

/* Appends what is missing, or keeps what is not named. A value that is no array counts as an empty
 * one. */
static qry_value *change_array(const qry_value *old, Google__Datastore__V1__ArrayValue *by,
                               bool append, struct base_arena *arena)
{
    qry_value *value = new_value(arena, VALUE(ARRAY_VALUE));
    Google__Datastore__V1__ArrayValue *array =
        CH_MESSAGE(arena, Google__Datastore__V1__ArrayValue, google__datastore__v1__array_value);
    size_t had = old && old->value_type_case == VALUE(ARRAY_VALUE) ? old->array_value->n_values : 0;
    array->values = BASE_NEW_ARRAY(arena, qry_value *, had + by->n_values + 1);
    for (size_t i = 0; i < had; i++)
        if (append || !holds(by->values, by->n_values, old->array_value->values[i]))
            array->values[array->n_values++] = old->array_value->values[i];
    for (size_t i = 0; append && i < by->n_values; i++)
        if (!holds(array->values, array->n_values, by->values[i]))
            array->values[array->n_values++] = by->values[i];
    value->array_value = array;
    return value;
}

static qry_value *request_time(uint64_t now_us, struct base_arena *arena)
{
    qry_value *value = new_value(arena, VALUE(TIMESTAMP_VALUE));
    value->timestamp_value = qry_time_of(arena, now_us - now_us % 1000);
    return value;
}

static struct base_status apply(const qry_transform *transform, uint64_t now_us, qry_entity *entity,
                                struct base_arena *arena, qry_value **result)
{
    struct qry_path path;
    struct base_status status = qry_path_parse(ch_bytes_of(transform->property), arena, &path);
    if (base_failed(status))
        return status;
    qry_value *old = qry_path_get(&path, entity), *new = NULL;
    bool array = false;
    switch (transform->transform_type_case) {
    case TRANSFORM(SET_TO_SERVER_VALUE):
        new = request_time(now_us, arena);
        break;
    case TRANSFORM(INCREMENT):
        new = increment(old, transform->increment, arena);
        break;
    case TRANSFORM(MAXIMUM):
        new = extreme(old, transform->maximum, true);
        break;
    case TRANSFORM(MINIMUM):
        new = extreme(old, transform->minimum, false);
        break;
    case TRANSFORM(APPEND_MISSING_ELEMENTS):
        new = change_array(old, transform->append_missing_elements, true, arena);
        array = true;
        break;
    default:
        new = change_array(old, transform->remove_all_from_array, false, arena);
        array = true;
    }
    qry_path_set(&path, entity, new, arena);
    *result = array ? new_value(arena, VALUE(NULL_VALUE)) : new;
    return status;
}

struct base_status qry_transforms_apply(qry_transform **transforms, size_t count, uint64_t now_us,
                                        qry_entity *entity, struct base_arena *arena,
                                        qry_value **results)
{
    for (size_t i = 0; i < count; i++) {
        struct base_status status = apply(transforms[i], now_us, entity, arena, &results[i]);
        if (base_failed(status))
            return status;
    }
    return BASE_STATUS_OK;
}
