/* proto_slot.c: see proto_slot.h. */
#include "proto_slot.h"

ProtobufCMessage *ch__proto_new(const ProtobufCMessageDescriptor *descriptor,
                                struct base_arena *arena)
{
    ProtobufCMessage *message = base_arena_alloc(arena, descriptor->sizeof_message);
    protobuf_c_message_init(descriptor, message);
    return message;
}

size_t ch__slot_size(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(ProtobufCMessage *);
    case PROTOBUF_C_TYPE_STRING:
        BASE_ASSERT(!"a char * string: not code of protoc-gen-strata");
        return 0;
    default:
        return 4;
    }
}

static size_t capacity_for(size_t count)
{
    size_t capacity = 4;
    while (capacity < count)
        capacity *= 2;
    return count ? capacity : 0;
}

void *ch__array_grow(void *array, size_t count, size_t more, size_t elem_size,
                     struct base_arena *arena)
{
    size_t have = capacity_for(count), need = capacity_for(count + more);
    if (need == have)
        return array;
    uint8_t *grown = base_arena_calloc(arena, need, elem_size);
    if (count)
        memcpy(grown, array, count * elem_size);
    return grown;
}

static void *add_element(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                         struct base_arena *arena)
{
    size_t *count = ch__slot_at(message, field->quantifier_offset), size = ch__slot_size(field);
    uint8_t **array = ch__slot_at(message, field->offset);
    *array = ch__array_grow(*array, *count, 1, size, arena);
    return *array + size * (*count)++;
}

void *ch__slot_add(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                   struct base_arena *arena)
{
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return add_element(message, field, arena);
    void *slot = ch__slot_at(message, field->offset);
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        uint32_t *which = ch__slot_at(message, field->quantifier_offset);
        if (*which != field->id)
            memset(slot, 0, ch__slot_size(field));
        *which = field->id;
    } else if (field->label == PROTOBUF_C_LABEL_OPTIONAL &&
               field->type != PROTOBUF_C_TYPE_MESSAGE) {
        *(protobuf_c_boolean *)ch__slot_at(message, field->quantifier_offset) = 1;
    }
    return slot;
}

ProtobufCMessage *ch__slot_message(void *slot, const ProtobufCFieldDescriptor *field,
                                   struct base_arena *arena)
{
    ProtobufCMessage **message = slot;
    if (!*message)
        *message = ch__proto_new(field->descriptor, arena);
    return *message;
}

static bool is_zero(const void *slot, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (((const uint8_t *)slot)[i])
            return false;
    return true;
}

size_t ch__slot_count(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return *(const size_t *)ch__slot_at(message, field->quantifier_offset);
    const void *slot = ch__slot_at(message, field->offset);
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
        *(const uint32_t *)ch__slot_at(message, field->quantifier_offset) != field->id)
        return 0;
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return *(ProtobufCMessage *const *)slot != NULL;
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
        return 1;
    if (field->label == PROTOBUF_C_LABEL_OPTIONAL)
        return *(const protobuf_c_boolean *)ch__slot_at(message, field->quantifier_offset) != 0;
    if (field->type == PROTOBUF_C_TYPE_BYTES)
        return ((const ProtobufCBinaryData *)slot)->len != 0;
    return !is_zero(slot, ch__slot_size(field));
}

const void *ch__slot_get(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                         size_t index)
{
    const void *slot = ch__slot_at(message, field->offset);
    if (field->label != PROTOBUF_C_LABEL_REPEATED)
        return slot;
    return *(const uint8_t *const *)slot + index * ch__slot_size(field);
}
