/* proto_slot.h: the fields of a generated message struct, reached through its descriptor. A slot is
 * where one value lies: int32_t, int64_t, protobuf_c_boolean, float, double, ProtobufCBinaryData or
 * ProtobufCMessage *, by the field's type. */
#ifndef CHASSIS_PROTO_SLOT_H
#define CHASSIS_PROTO_SLOT_H

#include "chassis/proto.h"

/* An initialised message. */
ProtobufCMessage *ch__proto_new(const ProtobufCMessageDescriptor *descriptor,
                                struct base_arena *arena);

/* Bytes of one value. */
size_t ch__slot_size(const ProtobufCFieldDescriptor *field);

static inline void *ch__slot_at(const ProtobufCMessage *message, size_t offset)
{
    return (uint8_t *)message + offset;
}

/* Room for one more element of an array of `count` in the arena, whose capacity is always the least
 * power of two (and 4) that holds the count; returns the array, moved when it was full. Elements
 * added are zeroed. */
void *ch__array_grow(void *array, size_t count, size_t more, size_t elem_size,
                     struct base_arena *arena);

/* The slot to set: of a singular field itself (marked present; a oneof switched to it, and zeroed
 * when it was another's), of a repeated one a new zeroed element at the end. */
void *ch__slot_add(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                   struct base_arena *arena);

/* The message of a slot of type MESSAGE, made when there is none. */
ProtobufCMessage *ch__slot_message(void *slot, const ProtobufCFieldDescriptor *field,
                                   struct base_arena *arena);

/* How many values a field has: 0 or 1 for a singular one, whose default (without presence) counts
 * as 0. */
size_t ch__slot_count(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field);
/* The slot of value `index` < ch__slot_count. */
const void *ch__slot_get(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                         size_t index);

/* proto_map.c. Ends a map field's array of entries: of entries with one key the last stays, in the
 * place of the first. */
void ch__map_dedup(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field);

#endif
