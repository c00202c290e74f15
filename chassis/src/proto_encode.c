/* proto_encode.c: messages into bytes, and what follows from it: copies and comparison. */
#include "proto_wire.h"

size_t ch_proto_size(const ProtobufCMessage *message)
{
    return message ? protobuf_c_message_get_packed_size(message) : 0;
}

void ch_proto_encode(const ProtobufCMessage *message, struct base_buf *out)
{
    size_t size = ch_proto_size(message);
    if (size == 0)
        return;
    size_t packed = protobuf_c_message_pack(message, base_buf_extend(out, size));
    BASE_ASSERT(packed == size);
}

ProtobufCMessage *ch_proto_copy(const ProtobufCMessage *message, struct base_arena *arena)
{
    if (!message)
        return NULL;
    size_t size = ch_proto_size(message);
    uint8_t *bytes = base_arena_alloc(arena, size);
    BASE_ASSERT(protobuf_c_message_pack(message, bytes) == size);
    return ch__proto_build(message->descriptor, base_bytes(bytes, size), arena);
}

bool ch_proto_equal(const ProtobufCMessage *a, const ProtobufCMessage *b)
{
    if (a == b)
        return true;
    if (ch_proto_size(a) != ch_proto_size(b))
        return false;
    struct base_buf left = { 0 }, right = { 0 };
    ch_proto_encode(a, &left);
    ch_proto_encode(b, &right);
    bool equal = base_bytes_eq(base_buf_bytes(&left), base_buf_bytes(&right));
    base_buf_free(&left);
    base_buf_free(&right);
    return equal;
}
