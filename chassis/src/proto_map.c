/* proto_map.c: see proto_slot.h. A hash table of the entries met so far: a peer chooses the keys,
 * and a quadratic search would let it choose our CPU time too (the hash is seeded by the table's
 * address, which a peer does not know). */
#include <stdlib.h>

#include "base/codec.h"
#include "proto_slot.h"

enum { SMALL = 64 }; /* slots of a table on the stack: for maps of up to half of it */

static struct base_bytes key_of(const ProtobufCMessage *entry)
{
    const ProtobufCFieldDescriptor *key = &entry->descriptor->fields[0];
    const void *slot = ch__slot_at(entry, key->offset);
    if (key->type == PROTOBUF_C_TYPE_BYTES)
        return ch_bytes_of(*(const ProtobufCBinaryData *)slot);
    return base_bytes(slot, ch__slot_size(key));
}

/* The slot of the table that holds an entry with this key (its index + 1), or the empty one where
 * it belongs. */
static uint32_t *find(uint32_t *table, size_t mask, ProtobufCMessage *const *entries,
                      struct base_bytes key)
{
    size_t at = base_hash(key.data, key.len, (uint64_t)(uintptr_t)table) & mask;
    while (table[at] && !base_bytes_eq(key_of(entries[table[at] - 1]), key))
        at = (at + 1) & mask;
    return &table[at];
}

void ch__map_dedup(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    size_t *count = ch__slot_at(message, field->quantifier_offset), kept = 0;
    ProtobufCMessage **entries = *(ProtobufCMessage ***)ch__slot_at(message, field->offset);
    size_t slots = SMALL;
    while (slots < *count * 2)
        slots *= 2;
    uint32_t small[SMALL] = { 0 }, *table = slots == SMALL ? small : calloc(slots, sizeof(*table));
    BASE_ASSERT(table && *count < UINT32_MAX);
    for (size_t i = 0; i < *count; i++) {
        uint32_t *slot = find(table, slots - 1, entries, key_of(entries[i]));
        if (*slot) {
            entries[*slot - 1] = entries[i];
        } else {
            entries[kept] = entries[i];
            *slot = (uint32_t)++kept;
        }
    }
    *count = kept;
    if (table != small)
        free(table);
}
