/* proto_json_write.c: messages as proto3 JSON. The text is written as it is found, without a tree;
 * what has no JSON (a Timestamp out of range, bytes in a string field that are no text) fails, with
 * `out` as it was. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto_json.h"
#include "proto_wire.h"

struct writer {
    struct base_buf *out;
    bool enum_numbers;
    int depth;
};

static struct base_status write_message(struct writer *w, const ProtobufCMessage *message);

struct base_status ch_proto_to_json(const ProtobufCMessage *message, bool enum_numbers,
                                    struct base_buf *out)
{
    struct writer w = { out, enum_numbers, 0 };
    size_t start = out->len;
    struct base_status status = write_message(&w, message);
    if (base_failed(status))
        out->len = start;
    return status;
}

/* Of text that is UTF-8. */
static void put_escaped(struct base_buf *out, struct base_bytes text)
{
    static const char *const shorts[32] = {
        ['\b'] = "\\b", ['\f'] = "\\f", ['\n'] = "\\n", ['\r'] = "\\r", ['\t'] = "\\t",
    };
    size_t from = 0;
    base_buf_put_u8(out, '"');
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        base_buf_put(out, text.data + from, i - from);
        from = i + 1;
        if (c >= 0x20)
            base_buf_printf(out, "\\%c", c);
        else if (shorts[c])
            base_buf_put_str(out, shorts[c]);
        else
            base_buf_printf(out, "\\u%04x", c);
    }
    if (text.len > from)
        base_buf_put(out, text.data + from, text.len - from);
    base_buf_put_u8(out, '"');
}

/* The fewest digits that read back as the same number; NaN and the infinities as strings. */
static void put_double(struct base_buf *out, double value, bool is_float)
{
    if (isnan(value)) {
        base_buf_put_str(out, "\"NaN\"");
        return;
    }
    if (isinf(value)) {
        base_buf_put_str(out, value < 0 ? "\"-Infinity\"" : "\"Infinity\"");
        return;
    }
    if (value == 0 && signbit(value)) {
        base_buf_put_str(out, "-0.0"); /* "-0" loses its sign with many readers */
        return;
    }
    char text[40];
    int digits = is_float ? 6 : 15, most = is_float ? 9 : 17;
    do
        snprintf(text, sizeof(text), "%.*g", digits, value);
    while (digits++ < most &&
           (is_float ? strtof(text, NULL) != (float)value : strtod(text, NULL) != value));
    base_buf_put_str(out, text);
}

static void put_enum(struct writer *w, const ProtobufCFieldDescriptor *field, int number)
{
    const ProtobufCEnumValue *value =
        protobuf_c_enum_descriptor_get_value(field->descriptor, number);
    if (ch__is_null_value(field))
        base_buf_put_str(w->out, "null");
    else if (value && !w->enum_numbers)
        base_buf_printf(w->out, "\"%s\"", value->name);
    else
        base_buf_printf(w->out, "%d", number);
}

static struct base_status put_text(struct writer *w, const ProtobufCFieldDescriptor *field,
                                   struct base_bytes bytes)
{
    if (!(field->reserved_flags & CH_FIELD_STRING)) {
        base_buf_put_u8(w->out, '"');
        ch__base64_put(w->out, bytes);
        base_buf_put_u8(w->out, '"');
        return BASE_STATUS_OK;
    }
    if (!ch__utf8_valid(bytes))
        return base_status_make(BASE_INVALID_ARGUMENT, "%s: not valid UTF-8", field->name);
    put_escaped(w->out, bytes);
    return BASE_STATUS_OK;
}

/* A NULL message, which a builder may leave in a map or array, is an empty one. */
static struct base_status write_submessage(struct writer *w, const ProtobufCFieldDescriptor *field,
                                           const ProtobufCMessage *message)
{
    if (message)
        return write_message(w, message);
    struct base_arena scratch = { 0 };
    struct base_status status = write_message(w, ch__proto_new(field->descriptor, &scratch));
    base_arena_free(&scratch);
    return status;
}

static struct base_status write_value(struct writer *w, const ProtobufCFieldDescriptor *field,
                                      const void *slot)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        base_buf_printf(w->out, "%" PRId32, *(const int32_t *)slot);
        return BASE_STATUS_OK;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        base_buf_printf(w->out, "%" PRIu32, *(const uint32_t *)slot);
        return BASE_STATUS_OK;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        base_buf_printf(w->out, "\"%" PRId64 "\"", *(const int64_t *)slot);
        return BASE_STATUS_OK;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        base_buf_printf(w->out, "\"%" PRIu64 "\"", *(const uint64_t *)slot);
        return BASE_STATUS_OK;
    case PROTOBUF_C_TYPE_FLOAT:
        put_double(w->out, *(const float *)slot, true);
        return BASE_STATUS_OK;
    case PROTOBUF_C_TYPE_DOUBLE:
        put_double(w->out, *(const double *)slot, false);
        return BASE_STATUS_OK;
    case PROTOBUF_C_TYPE_BOOL:
        base_buf_put_str(w->out, *(const protobuf_c_boolean *)slot ? "true" : "false");
        return BASE_STATUS_OK;
    case PROTOBUF_C_TYPE_ENUM:
        put_enum(w, field, *(const int32_t *)slot);
        return BASE_STATUS_OK;
    case PROTOBUF_C_TYPE_MESSAGE:
        return write_submessage(w, field, *(ProtobufCMessage *const *)slot);
    default:
        return put_text(w, field, ch_bytes_of(*(const ProtobufCBinaryData *)slot));
    }
}

/* "key":value. Keys that are numbers or bools become strings. */
static struct base_status write_entry(struct writer *w, const ProtobufCMessage *entry)
{
    const ProtobufCFieldDescriptor *key = &entry->descriptor->fields[0],
                                   *value = &entry->descriptor->fields[1];
    size_t start = w->out->len;
    struct base_status status = write_value(w, key, ch__slot_get(entry, key, 0));
    if (base_failed(status))
        return status;
    if (w->out->data[start] != '"') {
        struct base_buf quoted = { 0 };
        base_buf_printf(&quoted, "\"%.*s\"", (int)(w->out->len - start),
                        (const char *)w->out->data + start);
        w->out->len = start;
        base_buf_put_bytes(w->out, base_buf_bytes(&quoted));
        base_buf_free(&quoted);
    }
    base_buf_put_u8(w->out, ':');
    return write_value(w, value, ch__slot_get(entry, value, 0));
}

static struct base_status write_many(struct writer *w, const ProtobufCMessage *message,
                                     const ProtobufCFieldDescriptor *field)
{
    bool map = field->reserved_flags & CH_FIELD_MAP;
    size_t count = ch__slot_count(message, field);
    base_buf_put_u8(w->out, map ? '{' : '[');
    for (size_t i = 0; i < count; i++) {
        const void *slot = ch__slot_get(message, field, i);
        if (i)
            base_buf_put_u8(w->out, ',');
        struct base_status status =
            map ? write_entry(w, *(ProtobufCMessage *const *)slot) : write_value(w, field, slot);
        if (base_failed(status))
            return base_status_wrap(status, "%s[%zu]", field->name, i);
    }
    base_buf_put_u8(w->out, map ? '}' : ']');
    return BASE_STATUS_OK;
}

static struct base_status write_field(struct writer *w, const ProtobufCMessage *message,
                                      const ProtobufCFieldDescriptor *field)
{
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return write_many(w, message, field);
    return write_value(w, field, ch__slot_get(message, field, 0));
}

static struct base_status write_fields(struct writer *w, const ProtobufCMessage *message)
{
    char separator = '{';
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        if (ch__slot_count(message, field) == 0)
            continue;
        base_buf_printf(w->out, "%c\"%s\":", separator, (const char *)field->reserved2);
        struct base_status status = write_field(w, message, field);
        if (base_failed(status))
            return base_status_wrap(status, "%s.%s", message->descriptor->short_name, field->name);
        separator = ',';
    }
    base_buf_put_str(w->out, separator == '{' ? "{}" : "}");
    return BASE_STATUS_OK;
}

/* Timestamp and Duration: seconds, then nanos. */
static struct base_status write_time(struct writer *w, const ProtobufCMessage *message,
                                     bool duration)
{
    const ProtobufCFieldDescriptor *fields = message->descriptor->fields;
    int64_t seconds = *(const int64_t *)ch__slot_get(message, &fields[0], 0);
    int32_t nanos = *(const int32_t *)ch__slot_get(message, &fields[1], 0);
    char text[CH__TIME_TEXT_MAX];
    if (!(duration ? ch__duration_to_text : ch__timestamp_to_text)(seconds, nanos, text))
        return base_status_make(BASE_INVALID_ARGUMENT, "%s out of range",
                                message->descriptor->short_name);
    base_buf_printf(w->out, "\"%s\"", text);
    return BASE_STATUS_OK;
}

static struct base_status write_mask(struct writer *w, const ProtobufCMessage *message)
{
    const ProtobufCFieldDescriptor *paths = &message->descriptor->fields[0];
    struct base_buf text = { 0 };
    bool fits = true;
    for (size_t i = 0; fits && i < ch__slot_count(message, paths); i++) {
        if (i)
            base_buf_put_u8(&text, ',');
        fits = ch__mask_to_json(
                   ch_bytes_of(*(const ProtobufCBinaryData *)ch__slot_get(message, paths, i)),
                   &text) &&
               ch__utf8_valid(base_buf_bytes(&text));
    }
    if (fits)
        put_escaped(w->out, base_buf_bytes(&text));
    base_buf_free(&text);
    return fits ? BASE_STATUS_OK
                : base_status_make(BASE_INVALID_ARGUMENT, "a path that JSON cannot hold");
}

/* google.protobuf.Value: whichever member is set, itself. */
static struct base_status write_any_value(struct writer *w, const ProtobufCMessage *message)
{
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        if (ch__slot_count(message, field) == 0)
            continue;
        const void *slot = ch__slot_get(message, field, 0);
        if (field->type == PROTOBUF_C_TYPE_DOUBLE && !isfinite(*(const double *)slot))
            return base_status_make(BASE_INVALID_ARGUMENT, "Value: a number that is not finite");
        return write_value(w, field, slot);
    }
    return base_status_make(BASE_INVALID_ARGUMENT, "Value: nothing set");
}

static struct base_status write_any(struct writer *w, const ProtobufCMessage *message)
{
    const ProtobufCFieldDescriptor *fields = message->descriptor->fields;
    if (ch__slot_count(message, &fields[0]) == 0 && ch__slot_count(message, &fields[1]) == 0) {
        base_buf_put_str(w->out, "{}");
        return BASE_STATUS_OK;
    }
    base_buf_put_str(w->out, "{\"@type\":");
    struct base_status status = write_value(w, &fields[0], ch__slot_get(message, &fields[0], 0));
    if (base_failed(status))
        return status;
    base_buf_put_str(w->out, ",\"value\":");
    status = write_value(w, &fields[1], ch__slot_get(message, &fields[1], 0));
    base_buf_put_u8(w->out, '}');
    return status;
}

static struct base_status write_by_type(struct writer *w, const ProtobufCMessage *message)
{
    const ProtobufCFieldDescriptor *first = message->descriptor->fields;
    switch (ch__wkt_of(message->descriptor)) {
    case CH__WKT_TIMESTAMP:
        return write_time(w, message, false);
    case CH__WKT_DURATION:
        return write_time(w, message, true);
    case CH__WKT_FIELD_MASK:
        return write_mask(w, message);
    case CH__WKT_STRUCT:
    case CH__WKT_LIST:
        return write_many(w, message, first);
    case CH__WKT_WRAPPER:
        return write_value(w, first, ch__slot_get(message, first, 0));
    case CH__WKT_VALUE:
        return write_any_value(w, message);
    case CH__WKT_ANY:
        return write_any(w, message);
    default:
        return write_fields(w, message);
    }
}

static struct base_status write_message(struct writer *w, const ProtobufCMessage *message)
{
    if (w->depth > CH_PROTO_DEPTH_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "nested too deep");
    w->depth++;
    struct base_status status = write_by_type(w, message);
    w->depth--;
    return status;
}
