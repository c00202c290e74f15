/* proto_json_scalar.c: JSON values into fields that are no messages: see proto_json_read.h. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto_json_read.h"

static size_t path_text(const struct ch__json_path *path, char *text, size_t size)
{
    size_t len = path->up ? path_text(path->up, text, size) : 0;
    int n;
    if (!path->name)
        n = snprintf(text + len, size - len, "[%zu]", path->index);
    else
        n = snprintf(text + len, size - len, "%s%s", path->up ? "." : "", path->name);
    return len + (size_t)n < size ? len + (size_t)n : size - 1;
}

struct base_status ch__json_fail(const struct ch__json_path *path, const char *fmt, ...)
{
    char where[512], what[256];
    path_text(path, where, sizeof(where));
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    return base_status_make(BASE_INVALID_ARGUMENT, "%s: %s", where, what);
}

/* ---- numbers ---- */

/* A whole number: its size and sign. */
struct whole {
    bool negative;
    uint64_t size;
};

static bool whole_from_text(struct base_bytes text, struct whole *out)
{
    size_t at = out->negative = text.len > 0 && text.data[0] == '-';
    if (at == text.len)
        return false;
    for (out->size = 0; at < text.len; at++) {
        uint8_t digit = (uint8_t)(text.data[at] - '0');
        if (digit > 9 || __builtin_mul_overflow(out->size, 10, &out->size) ||
            __builtin_add_overflow(out->size, digit, &out->size))
            return false;
    }
    return true;
}

/* From a number, with a zero fraction at most, or a string of one. */
static bool whole_from_json(const json_t *json, struct whole *out)
{
    if (json_is_string(json))
        return whole_from_text(ch__json_text(json), out);
    if (json_is_integer(json)) {
        json_int_t value = json_integer_value(json);
        *out = (struct whole){ value < 0, value < 0 ? 0 - (uint64_t)value : (uint64_t)value };
        return true;
    }
    double value = json_real_value(json);
    if (!json_is_real(json) || value != trunc(value) || fabs(value) >= 9007199254740992.0)
        return false; /* beyond 2^53 a double is not the number that was written */
    *out = (struct whole){ value < 0, (uint64_t)fabs(value) };
    return true;
}

static struct base_status read_signed(void *slot, const json_t *json, unsigned bits,
                                      const struct ch__json_path *path)
{
    struct whole w;
    if (!whole_from_json(json, &w))
        return ch__json_fail(path, "expected a whole number");
    uint64_t limit = (uint64_t)1 << (bits - 1);
    if (w.size > limit - !w.negative)
        return ch__json_fail(path, "beyond %u bits", bits);
    int64_t value = (int64_t)(w.negative ? 0 - w.size : w.size);
    if (bits == 32)
        *(int32_t *)slot = (int32_t)value;
    else
        *(int64_t *)slot = value;
    return BASE_STATUS_OK;
}

static struct base_status read_unsigned(void *slot, const json_t *json, unsigned bits,
                                        const struct ch__json_path *path)
{
    struct whole w;
    if (!whole_from_json(json, &w))
        return ch__json_fail(path, "expected a whole number");
    if ((w.negative && w.size) || (bits == 32 && w.size > UINT32_MAX))
        return ch__json_fail(path, "not an unsigned number of %u bits", bits);
    if (bits == 32)
        *(uint32_t *)slot = (uint32_t)w.size;
    else
        *(uint64_t *)slot = w.size;
    return BASE_STATUS_OK;
}

static bool double_from_text(struct base_bytes text, double *value)
{
    if (base_bytes_eq_str(text, "NaN"))
        *value = NAN;
    else if (base_bytes_eq_str(text, "Infinity"))
        *value = INFINITY;
    else if (base_bytes_eq_str(text, "-Infinity"))
        *value = -INFINITY;
    else {
        const char *start = (const char *)text.data;
        char *end;
        /* jansson ends its strings with a NUL, which is none of these characters */
        if (text.len == 0 || strspn(start, "+-.0123456789eE") != text.len)
            return false;
        *value = strtod(start, &end);
        return end == start + text.len && isfinite(*value);
    }
    return true;
}

static struct base_status read_double(void *slot, const json_t *json, bool is_float,
                                      const struct ch__json_path *path)
{
    double value = json_number_value(json);
    if (!json_is_number(json) &&
        !(json_is_string(json) && double_from_text(ch__json_text(json), &value)))
        return ch__json_fail(path, "expected a number");
    if (!is_float) {
        *(double *)slot = value;
        return BASE_STATUS_OK;
    }
    float rounded = (float)value;
    if (isfinite(value) && !isfinite(rounded))
        return ch__json_fail(path, "beyond a float");
    *(float *)slot = rounded;
    return BASE_STATUS_OK;
}

/* ---- other single values ---- */

static struct base_status read_enum(const ProtobufCFieldDescriptor *field, void *slot,
                                    const json_t *json, const struct ch__json_path *path)
{
    if (ch__is_null_value(field) && json_is_null(json)) {
        *(int32_t *)slot = 0;
        return BASE_STATUS_OK;
    }
    if (!json_is_string(json))
        return read_signed(slot, json, 32, path);
    const ProtobufCEnumValue *value =
        protobuf_c_enum_descriptor_get_value_by_name(field->descriptor, json_string_value(json));
    if (!value)
        return ch__json_fail(path, "\"%.100s\" is not one of its names", json_string_value(json));
    *(int32_t *)slot = value->value;
    return BASE_STATUS_OK;
}

static struct base_status read_text(struct base_arena *arena, const ProtobufCFieldDescriptor *field,
                                    ProtobufCBinaryData *slot, const json_t *json,
                                    const struct ch__json_path *path)
{
    struct base_bytes bytes;
    if (!json_is_string(json))
        return ch__json_fail(path, "expected a string");
    if (field->reserved_flags & CH_FIELD_STRING)
        bytes = base_bytes_dup(arena, ch__json_text(json));
    else if (!ch__base64_take(ch__json_text(json), arena, &bytes))
        return ch__json_fail(path, "expected base64");
    *slot = ch_data_of(bytes);
    return BASE_STATUS_OK;
}

struct base_status ch__json_scalar(struct base_arena *arena, const ProtobufCFieldDescriptor *field,
                                   void *slot, const json_t *json, const struct ch__json_path *path)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return read_signed(slot, json, 32, path);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return read_signed(slot, json, 64, path);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return read_unsigned(slot, json, 32, path);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return read_unsigned(slot, json, 64, path);
    case PROTOBUF_C_TYPE_FLOAT:
        return read_double(slot, json, true, path);
    case PROTOBUF_C_TYPE_DOUBLE:
        return read_double(slot, json, false, path);
    case PROTOBUF_C_TYPE_BOOL:
        if (!json_is_boolean(json))
            return ch__json_fail(path, "expected true or false");
        *(protobuf_c_boolean *)slot = json_is_true(json);
        return BASE_STATUS_OK;
    case PROTOBUF_C_TYPE_ENUM:
        return read_enum(field, slot, json, path);
    default:
        return read_text(arena, field, slot, json, path);
    }
}
