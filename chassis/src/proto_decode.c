/* proto_decode.c: bytes into messages. The bytes are checked (proto_check.c), copied once into the
 * arena, and built into structs that point into that copy; building cannot fail. It is our own loop
 * and not protobuf-c's unpack because that one recurses, refuses a singular submessage in pieces
 * where the spec merges them, and keeps duplicate keys of maps.
 *
 * Invariants: (1) an array's capacity follows from its count (ch__array_grow), so merging may
 * append at any time; (2) maps are cleared of duplicates once, at the end, so pieces of one message
 * cost no more than its whole; (3) a map entry always has its value message, though the peer left
 * it out. */
#include "base/codec.h"
#include "proto_slot.h"
#include "proto_wire.h"

struct frame {
    ProtobufCMessage *message;
    const uint8_t *end;
    bool map_entry;
};

/* A map of two entries or more. */
struct map_seen {
    struct map_seen *next;
    ProtobufCMessage *message;
    const ProtobufCFieldDescriptor *field;
};

struct build {
    struct base_arena *arena;
    const uint8_t *at;
    struct map_seen *maps;
    int depth;
    struct frame stack[CH_PROTO_DEPTH_MAX + 1];
};

static void build_field(struct build *b);
static void finish(struct build *b, const struct frame *frame);

struct base_status ch_proto_decode(const ProtobufCMessageDescriptor *descriptor,
                                   struct base_bytes bytes, struct base_arena *arena,
                                   ProtobufCMessage **message)
{
    *message = NULL;
    struct base_status status = ch__proto_check(descriptor, bytes);
    if (!base_failed(status))
        *message = ch__proto_build(descriptor, base_bytes_dup(arena, bytes), arena);
    return status;
}

ProtobufCMessage *ch__proto_build(const ProtobufCMessageDescriptor *descriptor,
                                  struct base_bytes bytes, struct base_arena *arena)
{
    struct build b;
    b.arena = arena;
    b.at = bytes.data;
    b.maps = NULL;
    b.depth = 0;
    ProtobufCMessage *message = ch__proto_new(descriptor, arena);
    b.stack[0] = (struct frame){ .message = message,
                                 .end = bytes.len ? bytes.data + bytes.len : bytes.data };
    while (b.depth >= 0) {
        if (b.at == b.stack[b.depth].end)
            finish(&b, &b.stack[b.depth--]);
        else
            build_field(&b);
    }
    for (struct map_seen *seen = b.maps; seen; seen = seen->next)
        ch__map_dedup(seen->message, seen->field);
    return message;
}

static void finish(struct build *b, const struct frame *frame)
{
    if (!frame->map_entry)
        return;
    const ProtobufCFieldDescriptor *value = &frame->message->descriptor->fields[1];
    if (value->type == PROTOBUF_C_TYPE_MESSAGE)
        ch__slot_message(ch__slot_at(frame->message, value->offset), value, b->arena);
}

/* The check has seen that it is there. */
static uint64_t take_varint(const uint8_t **at, const uint8_t *end)
{
    uint64_t value;
    BASE_ASSERT(ch__take_varint(at, end, &value));
    return value;
}

static int64_t unzigzag(uint64_t value)
{
    return (int64_t)((value >> 1) ^ (0 - (value & 1)));
}

static void set_varint(void *slot, ProtobufCType type, uint64_t value)
{
    switch (type) {
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)slot = value != 0;
        break;
    case PROTOBUF_C_TYPE_SINT32:
        *(int32_t *)slot = (int32_t)unzigzag((uint32_t)value);
        break;
    case PROTOBUF_C_TYPE_SINT64:
        *(int64_t *)slot = unzigzag(value);
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
        *(uint64_t *)slot = value;
        break;
    default: /* int32, uint32 and enums: the low half */
        *(uint32_t *)slot = (uint32_t)value;
    }
}

/* One number off the wire into its slot. */
static void take_number(struct build *b, const ProtobufCFieldDescriptor *field, const uint8_t *end,
                        void *slot)
{
    switch (ch__wire_of(field->type)) {
    case CH__I32:
        memcpy(slot, b->at, 4);
        b->at += 4;
        break;
    case CH__I64:
        memcpy(slot, b->at, 8);
        b->at += 8;
        break;
    default:
        set_varint(slot, field->type, take_varint(&b->at, end));
    }
}

static size_t packed_count(const ProtobufCFieldDescriptor *field, struct base_bytes body)
{
    enum ch__wire wire = ch__wire_of(field->type);
    if (wire != CH__VARINT)
        return body.len / (wire == CH__I32 ? 4 : 8);
    size_t count = 0;
    for (size_t i = 0; i < body.len; i++)
        count += body.data[i] < 0x80;
    return count;
}

static void build_packed(struct build *b, const ProtobufCFieldDescriptor *field, size_t len)
{
    ProtobufCMessage *message = b->stack[b->depth].message;
    const uint8_t *end = b->at + len;
    size_t more = packed_count(field, base_bytes(b->at, len)), size = ch__slot_size(field);
    size_t *count = ch__slot_at(message, field->quantifier_offset);
    uint8_t **array = ch__slot_at(message, field->offset);
    *array = ch__array_grow(*array, *count, more, size, b->arena);
    while (b->at < end)
        take_number(b, field, end, *array + size * (*count)++);
}

static void note_map(struct build *b, ProtobufCMessage *message,
                     const ProtobufCFieldDescriptor *field)
{
    if (*(const size_t *)ch__slot_at(message, field->quantifier_offset) != 2)
        return;
    struct map_seen *seen = BASE_NEW(b->arena, struct map_seen);
    *seen = (struct map_seen){ b->maps, message, field };
    b->maps = seen;
}

static void build_len(struct build *b, const ProtobufCFieldDescriptor *field, bool packed)
{
    struct frame *top = &b->stack[b->depth];
    size_t len = (size_t)take_varint(&b->at, top->end);
    if (packed) {
        build_packed(b, field, len);
        return;
    }
    void *slot = ch__slot_add(top->message, field, b->arena);
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        bool map = field->reserved_flags & CH_FIELD_MAP;
        if (map)
            note_map(b, top->message, field);
        BASE_ASSERT(b->depth < CH_PROTO_DEPTH_MAX); /* a copy of what was built deeper than this */
        ProtobufCMessage *inner = ch__slot_message(slot, field, b->arena);
        b->stack[++b->depth] = (struct frame){ inner, b->at + len, map };
        return;
    }
    *(ProtobufCBinaryData *)slot = ch_data_of(base_bytes(b->at, len));
    b->at += len;
}

/* Moves past a value of any wire type; a group up to and with its end. */
static void skip(struct build *b, enum ch__wire wire, const uint8_t *end)
{
    size_t groups = 0;
    for (;;) {
        if (wire == CH__VARINT)
            take_varint(&b->at, end);
        else if (wire == CH__LEN) {
            size_t len = (size_t)take_varint(&b->at, end);
            b->at += len;
        } else if (wire == CH__I32 || wire == CH__I64)
            b->at += wire == CH__I32 ? 4 : 8;
        else if (wire == CH__GROUP)
            groups++;
        else
            groups--;
        if (groups == 0)
            return;
        wire = (enum ch__wire)(take_varint(&b->at, end) & 7);
    }
}

/* Kept as protobuf-c keeps it: all after the tag, so that packing writes it back as it came. */
static void build_unknown(struct build *b, uint32_t number, enum ch__wire wire)
{
    struct frame *top = &b->stack[b->depth];
    ProtobufCMessage *message = top->message;
    const uint8_t *start = b->at;
    skip(b, wire, top->end);
    message->unknown_fields = ch__array_grow(message->unknown_fields, message->n_unknown_fields, 1,
                                             sizeof(*message->unknown_fields), b->arena);
    message->unknown_fields[message->n_unknown_fields++] = (ProtobufCMessageUnknownField){
        .tag = number,
        .wire_type = (ProtobufCWireType)wire,
        .len = (size_t)(b->at - start),
        .data = (uint8_t *)start,
    };
}

static void build_field(struct build *b)
{
    struct frame *top = &b->stack[b->depth];
    uint64_t tag = take_varint(&b->at, top->end);
    uint32_t number = (uint32_t)(tag >> 3);
    enum ch__wire wire = (enum ch__wire)(tag & 7);
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(top->message->descriptor, number);
    enum ch__fit fit = ch__fit(field, wire);
    if (fit == CH__FIT_NONE)
        build_unknown(b, number, wire);
    else if (wire == CH__LEN)
        build_len(b, field, fit == CH__FIT_PACKED);
    else
        take_number(b, field, top->end, ch__slot_add(top->message, field, b->arena));
}
