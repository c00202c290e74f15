/* proto_json_wkt.c: see proto_json.h. */
#include <ctype.h>

#include "proto_json.h"

#define WKT_PACKAGE "google.protobuf."

enum ch__wkt ch__wkt_of(const ProtobufCMessageDescriptor *descriptor)
{
    static const struct {
        const char *name;
        enum ch__wkt wkt;
    } types[] = {
        { "Timestamp", CH__WKT_TIMESTAMP },
        { "Duration", CH__WKT_DURATION },
        { "FieldMask", CH__WKT_FIELD_MASK },
        { "Struct", CH__WKT_STRUCT },
        { "Value", CH__WKT_VALUE },
        { "ListValue", CH__WKT_LIST },
        { "Any", CH__WKT_ANY },
        { "DoubleValue", CH__WKT_WRAPPER },
        { "FloatValue", CH__WKT_WRAPPER },
        { "Int64Value", CH__WKT_WRAPPER },
        { "UInt64Value", CH__WKT_WRAPPER },
        { "Int32Value", CH__WKT_WRAPPER },
        { "UInt32Value", CH__WKT_WRAPPER },
        { "BoolValue", CH__WKT_WRAPPER },
        { "StringValue", CH__WKT_WRAPPER },
        { "BytesValue", CH__WKT_WRAPPER },
    };
    if (strncmp(descriptor->name, WKT_PACKAGE, sizeof(WKT_PACKAGE) - 1) != 0)
        return CH__WKT_NONE;
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++)
        if (strcmp(descriptor->name + sizeof(WKT_PACKAGE) - 1, types[i].name) == 0)
            return types[i].wkt;
    return CH__WKT_NONE;
}

bool ch__is_null_value(const ProtobufCFieldDescriptor *field)
{
    if (field->type != PROTOBUF_C_TYPE_ENUM)
        return false;
    const ProtobufCEnumDescriptor *type = field->descriptor;
    return strcmp(type->name, WKT_PACKAGE "NullValue") == 0;
}

bool ch__mask_to_json(struct base_bytes path, struct base_buf *out)
{
    bool capital = false;
    for (size_t i = 0; i < path.len; i++) {
        uint8_t c = path.data[i];
        if (isupper(c) || (capital && !islower(c)))
            return false; /* the way back would give another path */
        if (c != '_')
            base_buf_put_u8(out, capital ? (uint8_t)toupper(c) : c);
        capital = c == '_';
    }
    return !capital;
}

bool ch__mask_from_json(struct base_bytes path, struct base_buf *out)
{
    for (size_t i = 0; i < path.len; i++) {
        uint8_t c = path.data[i];
        if (c == '_')
            return false;
        if (isupper(c))
            base_buf_put_u8(out, '_');
        base_buf_put_u8(out, (uint8_t)tolower(c));
    }
    return true;
}
