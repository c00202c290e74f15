/* chassis/proto.h: protobuf messages: what our code generator writes, and safe decoding, encoding
 * and JSON over it.
 *
 * Every `string` and `bytes` field is a ProtobufCBinaryData in C (pointer and length: a NUL inside
 * is data, not an end); the generator sets CH_FIELD_STRING in `reserved_flags` of the descriptor of
 * those the .proto calls `string`, so UTF-8 is checked and JSON knows text from base64, and
 * CH_FIELD_MAP for those it calls `map<>` (in C an array of entries, of key and value); `reserved2`
 * is the field's JSON name. A proto3 `optional x` is a oneof `_x` of one member. Messages are
 * decoded into an arena: they are never freed alone. No function here may wait. */
#ifndef CHASSIS_PROTO_H
#define CHASSIS_PROTO_H

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/status.h"

/* In ProtobufCFieldDescriptor.reserved_flags. */
#define CH_FIELD_STRING 1u
#define CH_FIELD_MAP 2u

/* A .proto file as server reflection hands it out. Written by protoc-gen-strata as `const struct
 * ch_proto_file <package_path_file>__file`, e.g. google__datastore__v1__datastore__file. */
struct ch_proto_file {
    const char *name; /* "google/datastore/v1/datastore.proto" */
    struct base_bytes
        descriptor; /* serialized google.protobuf.FileDescriptorProto, as written in the .proto */
    const struct ch_proto_file *const *imports;
    size_t import_count;
};

/* One RPC method. Written by protoc-gen-strata. */
struct ch_method {
    const char *path; /* "/google.datastore.v1.Datastore/Lookup": the gRPC path */
    const char *name; /* "Lookup" */
    const ProtobufCMessageDescriptor *request, *reply;
    bool client_streaming, server_streaming;
    bool idempotent; /* option idempotency_level is NO_SIDE_EFFECTS or IDEMPOTENT: may be sent again
                        after an unknown outcome */
    bool no_side_effects; /* it is NO_SIDE_EFFECTS: may be sent twice at once (hedging) */
};

/* One service: `const struct ch_service google__datastore__v1__datastore__service`, and an enum of
 * method indexes: GOOGLE__DATASTORE__V1__DATASTORE__LOOKUP … */
struct ch_service {
    const char *name; /* "google.datastore.v1.Datastore" */
    const struct ch_method *methods;
    size_t method_count;
    const struct ch_proto_file *file;
};

/* ---- bytes <-> message ---- */

enum { CH_PROTO_DEPTH_MAX = 100 }; /* nesting a decoder accepts; protobuf's own default */

/* Decodes into `arena`. Checked before anything is built, by an iterative scan driven by the
 * descriptor: wire format, nesting depth, UTF-8 of strings; INVALID_ARGUMENT with a text that names
 * the message and field ("Entity.properties.value: …"). The message and all it points to live as
 * long as the arena. Unknown fields are kept and written back. A singular submessage that arrives
 * in pieces is merged, a duplicate map key's last value wins, as the protobuf spec says; a map
 * entry always has its value message, if only an empty one. */
struct base_status ch_proto_decode(const ProtobufCMessageDescriptor *descriptor,
                                   struct base_bytes bytes, struct base_arena *arena,
                                   ProtobufCMessage **message) BASE_MUST_CHECK;

/* Appends the encoded message. A NULL message encodes as nothing; NULL among repeated messages is a
 * bug. A plain (neither optional nor oneof) double of -0.0 is left out as 0 is (protobuf-c's way).
 */
void ch_proto_encode(const ProtobufCMessage *message, struct base_buf *out);
size_t ch_proto_size(const ProtobufCMessage *message);
/* A deep copy in `arena`. */
ProtobufCMessage *ch_proto_copy(const ProtobufCMessage *message, struct base_arena *arena);
/* Whether two messages of one descriptor encode to the same bytes. */
bool ch_proto_equal(const ProtobufCMessage *a, const ProtobufCMessage *b);

static inline struct base_bytes ch_bytes_of(ProtobufCBinaryData data)
{
    return base_bytes(data.data, data.len);
}
/* Borrowed both ways: the message points at the same memory. */
static inline ProtobufCBinaryData ch_data_of(struct base_bytes bytes)
{
    return (ProtobufCBinaryData){ bytes.len, (uint8_t *)bytes.data };
}
static inline ProtobufCBinaryData ch_data_str(const char *text)
{
    return ch_data_of(base_bytes_str(text));
}
/* A message of `type` in an arena, initialised: CH_MESSAGE(arena, Google__Datastore__V1__Key,
 * google__datastore__v1__key). */
#define CH_MESSAGE(arena, Type, prefix)                              \
    ({                                                               \
        Type *ch_message_ = base_arena_alloc((arena), sizeof(Type)); \
        prefix##__init(ch_message_);                                 \
        ch_message_;                                                 \
    })

/* ---- message <-> JSON (proto3 JSON mapping, over jansson) ---- */

/* Parses proto3 JSON: lowerCamelCase and original names, int64 as string or number, enums by name
 * or number, bytes in either base64, RFC 3339 timestamps, durations, wrappers, NullValue, Struct;
 * maps as objects. INVALID_ARGUMENT names the path of the culprit; an unknown field or a oneof set
 * twice is INVALID_ARGUMENT too. An Any is read and written as {"@type", "value"} with the value in
 * base64; a uint64 over 2^63 must come as a string. */
struct base_status ch_proto_from_json(const ProtobufCMessageDescriptor *descriptor,
                                      struct base_bytes json, struct base_arena *arena,
                                      ProtobufCMessage **message) BASE_MUST_CHECK;
/* Appends proto3 JSON: defaults left out, 64-bit integers as strings, enums by name, or by number
 * when asked. Fails, and appends nothing, when there is no JSON for it: a Timestamp out of range, a
 * string that is not UTF-8. */
struct base_status ch_proto_to_json(const ProtobufCMessage *message, bool enum_numbers,
                                    struct base_buf *out) BASE_MUST_CHECK;

#endif
