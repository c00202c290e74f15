/* proto_json.h: the parts of the proto3 JSON mapping that its reader (proto_json_read.c) and writer
 * (proto_json_write.c) share. */
#ifndef CHASSIS_PROTO_JSON_H
#define CHASSIS_PROTO_JSON_H

#include "proto_slot.h"

/* Well-known types with a JSON form of their own, told by their full name. The rest is
 * CH__WKT_NONE, an object of its fields. The generated code of these types is never named here,
 * only their descriptors are walked. */
enum ch__wkt {
    CH__WKT_NONE,
    CH__WKT_TIMESTAMP,  /* "2024-02-29T12:00:00.5Z" */
    CH__WKT_DURATION,   /* "1.5s" */
    CH__WKT_FIELD_MASK, /* "fooBar,baz" */
    CH__WKT_STRUCT,     /* an object of anything */
    CH__WKT_VALUE,      /* anything */
    CH__WKT_LIST,       /* an array of anything */
    CH__WKT_WRAPPER,    /* Int32Value and its like: the value itself */
    CH__WKT_ANY, /* {"@type": url, "value": base64}: there is no registry of types to expand it by
                  */
};
enum ch__wkt ch__wkt_of(const ProtobufCMessageDescriptor *descriptor);
/* google.protobuf.NullValue, whose JSON is null. */
bool ch__is_null_value(const ProtobufCFieldDescriptor *field);

/* proto_json_wkt.c. One path of a FieldMask from snake_case to lowerCamelCase and back; false when
 * that loses something. */
bool ch__mask_to_json(struct base_bytes path, struct base_buf *out) BASE_MUST_CHECK;
bool ch__mask_from_json(struct base_bytes path, struct base_buf *out) BASE_MUST_CHECK;

/* proto_json_time.c. Texts of Timestamp and Duration, NUL-terminated; false when out of the range
 * the types allow. */
enum { CH__TIME_TEXT_MAX = 40 };
bool ch__timestamp_to_text(int64_t seconds, int32_t nanos,
                           char text[CH__TIME_TEXT_MAX]) BASE_MUST_CHECK;
bool ch__timestamp_from_text(struct base_bytes text, int64_t *seconds,
                             int32_t *nanos) BASE_MUST_CHECK;
bool ch__duration_to_text(int64_t seconds, int32_t nanos,
                          char text[CH__TIME_TEXT_MAX]) BASE_MUST_CHECK;
bool ch__duration_from_text(struct base_bytes text, int64_t *seconds,
                            int32_t *nanos) BASE_MUST_CHECK;

/* proto_base64.c. Writes the standard alphabet with padding; reads that and the URL-safe one,
 * padded or not. */
void ch__base64_put(struct base_buf *out, struct base_bytes bytes);
bool ch__base64_take(struct base_bytes text, struct base_arena *arena,
                     struct base_bytes *bytes) BASE_MUST_CHECK;

#endif
