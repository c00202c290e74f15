/* proto_json_read.c: proto3 JSON into messages. The tree is jansson's (proto_json_parse.c), single
 * values are proto_json_scalar.c's; here is what has structure: messages, arrays, maps, the
 * well-known types. */
#include "proto_json_read.h"

struct reader {
    struct base_arena *arena;
    int depth;
};

static struct base_status read_message(struct reader *r, ProtobufCMessage *message,
                                       const json_t *json, const struct ch__json_path *path);

struct base_status ch_proto_from_json(const ProtobufCMessageDescriptor *descriptor,
                                      struct base_bytes json, struct base_arena *arena,
                                      ProtobufCMessage **message)
{
    *message = NULL;
    json_t *tree;
    struct base_status status = ch__json_parse(json, &tree);
    if (base_failed(status))
        return status;
    struct reader r = { arena, 0 };
    struct ch__json_path top = { .name = descriptor->short_name };
    ProtobufCMessage *result = ch__proto_new(descriptor, arena);
    status = read_message(&r, result, tree, &top);
    json_decref(tree);
    if (!base_failed(status))
        *message = result;
    return status;
}

static struct base_status read_value(struct reader *r, const ProtobufCFieldDescriptor *field,
                                     void *slot, const json_t *json,
                                     const struct ch__json_path *path)
{
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return read_message(r, ch__slot_message(slot, field, r->arena), json, path);
    return ch__json_scalar(r->arena, field, slot, json, path);
}

/* ---- fields ---- */

/* Whether JSON null is a value of this type, and not the absence of one. */
static bool null_is_value(const ProtobufCFieldDescriptor *field)
{
    return ch__is_null_value(field) || (field->type == PROTOBUF_C_TYPE_MESSAGE &&
                                        ch__wkt_of(field->descriptor) == CH__WKT_VALUE);
}

static struct base_status read_array(struct reader *r, ProtobufCMessage *message,
                                     const ProtobufCFieldDescriptor *field, const json_t *json,
                                     const struct ch__json_path *path)
{
    if (!json_is_array(json))
        return ch__json_fail(path, "expected an array");
    for (size_t i = 0; i < json_array_size(json); i++) {
        const json_t *element = json_array_get(json, i);
        struct ch__json_path here = { path, NULL, i };
        if (json_is_null(element) && !null_is_value(field))
            return ch__json_fail(&here, "null in an array");
        struct base_status status =
            read_value(r, field, ch__slot_add(message, field, r->arena), element, &here);
        if (base_failed(status))
            return status;
    }
    return BASE_STATUS_OK;
}

/* A map's key arrives as a string always. */
static struct base_status read_key(struct reader *r, const ProtobufCFieldDescriptor *field,
                                   void *slot, const char *text, const struct ch__json_path *path)
{
    if (field->type == PROTOBUF_C_TYPE_BOOL) {
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
            return ch__json_fail(path, "expected a key true or false");
        *(protobuf_c_boolean *)slot = text[0] == 't';
        return BASE_STATUS_OK;
    }
    json_t *json = json_string_nocheck(text);
    BASE_ASSERT(json);
    struct base_status status = read_value(r, field, slot, json, path);
    json_decref(json);
    return status;
}

static struct base_status read_map(struct reader *r, ProtobufCMessage *message,
                                   const ProtobufCFieldDescriptor *field, json_t *json,
                                   const struct ch__json_path *path)
{
    const char *name;
    json_t *json_value;
    if (!json_is_object(json))
        return ch__json_fail(path, "expected an object");
    json_object_foreach(json, name, json_value)
    {
        struct ch__json_path here = { path, name, 0 };
        ProtobufCMessage *entry =
            ch__slot_message(ch__slot_add(message, field, r->arena), field, r->arena);
        const ProtobufCFieldDescriptor *key = &entry->descriptor->fields[0],
                                       *value = &entry->descriptor->fields[1];
        if (json_is_null(json_value) && !null_is_value(value))
            return ch__json_fail(&here, "null in a map");
        struct base_status status =
            read_key(r, key, ch__slot_add(entry, key, r->arena), name, &here);
        if (!base_failed(status))
            status = read_value(r, value, ch__slot_add(entry, value, r->arena), json_value, &here);
        if (base_failed(status))
            return status;
    }
    ch__map_dedup(message, field); /* "1" and "01" are one key */
    return BASE_STATUS_OK;
}

/* Whether a oneof that `field` belongs to has a member already. */
static bool oneof_is_set(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    return (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
           *(const uint32_t *)ch__slot_at(message, field->quantifier_offset) != 0;
}

static struct base_status read_field(struct reader *r, ProtobufCMessage *message,
                                     const ProtobufCFieldDescriptor *field, json_t *json,
                                     const struct ch__json_path *path)
{
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        if (json_is_null(json))
            return BASE_STATUS_OK;
        if (field->reserved_flags & CH_FIELD_MAP)
            return read_map(r, message, field, json, path);
        return read_array(r, message, field, json, path);
    }
    if (json_is_null(json) && !null_is_value(field))
        return BASE_STATUS_OK;
    if (oneof_is_set(message, field))
        return ch__json_fail(path, "another member of its oneof is set already");
    return read_value(r, field, ch__slot_add(message, field, r->arena), json, path);
}

static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *descriptor,
                                                  const char *name)
{
    for (unsigned i = 0; i < descriptor->n_fields; i++)
        if (strcmp((const char *)descriptor->fields[i].reserved2, name) == 0)
            return &descriptor->fields[i];
    return protobuf_c_message_descriptor_get_field_by_name(descriptor, name);
}

static struct base_status read_fields(struct reader *r, ProtobufCMessage *message, json_t *json,
                                      const struct ch__json_path *path)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    const char *name;
    json_t *value;
    if (!json_is_object(json))
        return ch__json_fail(path, "expected an object");
    bool *seen = base_arena_calloc(r->arena, descriptor->n_fields, sizeof(*seen));
    json_object_foreach(json, name, value)
    {
        struct ch__json_path here = { path, name, 0 };
        const ProtobufCFieldDescriptor *field = find_field(descriptor, name);
        if (!field)
            return ch__json_fail(&here, "no such field");
        if (seen[field - descriptor->fields])
            return ch__json_fail(&here, "given twice, under both its names");
        seen[field - descriptor->fields] = true;
        struct base_status status = read_field(r, message, field, value, &here);
        if (base_failed(status))
            return status;
    }
    return BASE_STATUS_OK;
}

/* ---- the well-known types ---- */

static struct base_status read_time(ProtobufCMessage *message, const json_t *json, bool duration,
                                    const struct ch__json_path *path)
{
    const ProtobufCFieldDescriptor *fields = message->descriptor->fields;
    int64_t *seconds = ch__slot_at(message, fields[0].offset);
    int32_t *nanos = ch__slot_at(message, fields[1].offset);
    if (!json_is_string(json) || !(duration ? ch__duration_from_text : ch__timestamp_from_text)(
                                     ch__json_text(json), seconds, nanos))
        return ch__json_fail(path, "expected %s",
                             duration ? "a duration such as \"1.5s\""
                                      : "a time such as \"2024-02-29T12:00:00Z\"");
    return BASE_STATUS_OK;
}

static struct base_status read_mask(struct reader *r, ProtobufCMessage *message, const json_t *json,
                                    const struct ch__json_path *path)
{
    if (!json_is_string(json))
        return ch__json_fail(path, "expected a string of paths");
    struct base_bytes text = ch__json_text(json);
    size_t from = 0;
    for (size_t i = 0; text.len && i <= text.len; i++) {
        if (i < text.len && text.data[i] != ',')
            continue;
        struct base_buf snake = { 0 };
        bool fits = ch__mask_from_json(base_bytes(text.data + from, i - from), &snake);
        ProtobufCBinaryData *slot =
            ch__slot_add(message, &message->descriptor->fields[0], r->arena);
        *slot = ch_data_of(base_bytes_dup(r->arena, base_buf_bytes(&snake)));
        base_buf_free(&snake);
        if (!fits)
            return ch__json_fail(path, "a path with an underscore");
        from = i + 1;
    }
    return BASE_STATUS_OK;
}

/* google.protobuf.Value: the member that the kind of JSON calls for. */
static struct base_status read_any_value(struct reader *r, ProtobufCMessage *message,
                                         const json_t *json, const struct ch__json_path *path)
{
    static const char *const members[] = {
        [JSON_OBJECT] = "struct_value", [JSON_ARRAY] = "list_value",
        [JSON_STRING] = "string_value", [JSON_INTEGER] = "number_value",
        [JSON_REAL] = "number_value",   [JSON_TRUE] = "bool_value",
        [JSON_FALSE] = "bool_value",    [JSON_NULL] = "null_value",
    };
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(
        message->descriptor, members[json_typeof(json)]);
    BASE_ASSERT(field);
    return read_value(r, field, ch__slot_add(message, field, r->arena), json, path);
}

static struct base_status read_any(struct reader *r, ProtobufCMessage *message, json_t *json,
                                   const struct ch__json_path *path)
{
    const ProtobufCFieldDescriptor *fields = message->descriptor->fields;
    const char *name;
    json_t *value;
    if (!json_is_object(json))
        return ch__json_fail(path, "expected an object");
    json_object_foreach(json, name, value)
    {
        struct ch__json_path here = { path, name, 0 };
        const ProtobufCFieldDescriptor *field = strcmp(name, "@type") == 0   ? &fields[0]
                                                : strcmp(name, "value") == 0 ? &fields[1]
                                                                             : NULL;
        if (!field)
            return ch__json_fail(&here, "an Any is read as \"@type\" and \"value\" in base64 only");
        struct base_status status =
            read_value(r, field, ch__slot_add(message, field, r->arena), value, &here);
        if (base_failed(status))
            return status;
    }
    return BASE_STATUS_OK;
}

static struct base_status read_by_type(struct reader *r, ProtobufCMessage *message, json_t *json,
                                       const struct ch__json_path *path)
{
    const ProtobufCFieldDescriptor *first = message->descriptor->fields;
    switch (ch__wkt_of(message->descriptor)) {
    case CH__WKT_TIMESTAMP:
        return read_time(message, json, false, path);
    case CH__WKT_DURATION:
        return read_time(message, json, true, path);
    case CH__WKT_FIELD_MASK:
        return read_mask(r, message, json, path);
    case CH__WKT_STRUCT:
        return read_map(r, message, first, json, path);
    case CH__WKT_LIST:
        return read_array(r, message, first, json, path);
    case CH__WKT_WRAPPER:
        return read_value(r, first, ch__slot_add(message, first, r->arena), json, path);
    case CH__WKT_VALUE:
        return read_any_value(r, message, json, path);
    case CH__WKT_ANY:
        return read_any(r, message, json, path);
    default:
        return read_fields(r, message, json, path);
    }
}

static struct base_status read_message(struct reader *r, ProtobufCMessage *message,
                                       const json_t *json, const struct ch__json_path *path)
{
    if (r->depth > CH_PROTO_DEPTH_MAX)
        return ch__json_fail(path, "nested too deep");
    r->depth++;
    struct base_status status = read_by_type(r, message, (json_t *)json, path);
    r->depth--;
    return status;
}
