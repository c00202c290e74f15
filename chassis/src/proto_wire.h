/* proto_wire.h: reading protobuf's wire format, for proto_check.c (which trusts nothing) and
 * proto_decode.c (which reads what the check has accepted). */
#ifndef CHASSIS_PROTO_WIRE_H
#define CHASSIS_PROTO_WIRE_H

#include "chassis/proto.h"

enum ch__wire {
    CH__VARINT = 0,
    CH__I64 = 1,
    CH__LEN = 2,
    CH__GROUP = 3,
    CH__GROUP_END = 4,
    CH__I32 = 5
};

enum { CH__FIELD_NUMBER_MAX = (1 << 29) - 1 };

/* How a field's declared type and the wire type that arrived go together. */
enum ch__fit {
    CH__FIT_NONE,   /* not at all: the field is treated as unknown, as the protobuf spec wants */
    CH__FIT_ONE,    /* one value */
    CH__FIT_PACKED, /* a repeated number's values in a row; allowed whether or not the .proto says
                       packed */
};

/* Reads a varint of at most 64 bits; false, with *at anywhere, when it is longer or cut short. */
static inline bool ch__take_varint(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64 && *at < end; shift += 7) {
        uint8_t byte = *(*at)++;
        if (shift == 63 && byte > 1)
            return false;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *value = v;
            return true;
        }
    }
    return false;
}

static inline enum ch__wire ch__wire_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return CH__I32;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return CH__I64;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return CH__LEN;
    default:
        return CH__VARINT;
    }
}

/* `field` may be NULL: a number the message does not know. */
static inline enum ch__fit ch__fit(const ProtobufCFieldDescriptor *field, enum ch__wire wire)
{
    if (!field)
        return CH__FIT_NONE;
    enum ch__wire declared = ch__wire_of(field->type);
    if (wire == declared)
        return CH__FIT_ONE;
    if (wire == CH__LEN && field->label == PROTOBUF_C_LABEL_REPEATED)
        return CH__FIT_PACKED;
    return CH__FIT_NONE;
}

/* proto_check.c. Whether the bytes are a well-formed message of the type: see ch_proto_decode.
 * Needs no memory. */
struct base_status ch__proto_check(const ProtobufCMessageDescriptor *descriptor,
                                   struct base_bytes bytes) BASE_MUST_CHECK;

/* proto_decode.c. Builds the message out of bytes that were checked and that live in `arena`: it
 * points into them. */
ProtobufCMessage *ch__proto_build(const ProtobufCMessageDescriptor *descriptor,
                                  struct base_bytes bytes, struct base_arena *arena);

/* proto_utf8.c. Well-formed UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF. */
bool ch__utf8_valid(struct base_bytes text);

#endif
