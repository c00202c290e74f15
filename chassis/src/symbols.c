/* symbols.c: see symbols.h. Walks the wire form of google/protobuf/descriptor.proto; the
 * descriptors are our own generator's, so what does not parse is simply not found. */
#include "symbols.h"

#include "base/codec.h"

enum { DEPTH_MAX = 32 };

/* Kinds of things that have a name, and the field numbers of the things inside them. */
enum kind { FILE_KIND, MESSAGE_KIND, SERVICE_KIND, LEAF_KIND };
struct inside {
    uint32_t field;
    enum kind kind;
};
static const struct inside INSIDE[][6] = {
    [FILE_KIND] = { { 4, MESSAGE_KIND }, { 5, LEAF_KIND }, { 6, SERVICE_KIND }, { 7, LEAF_KIND } },
    [MESSAGE_KIND] = { { 2, LEAF_KIND },
                       { 3, MESSAGE_KIND },
                       { 4, LEAF_KIND },
                       { 6, LEAF_KIND },
                       { 8, LEAF_KIND } },
    [SERVICE_KIND] = { { 2, LEAF_KIND } },
    [LEAF_KIND] = { { 0, LEAF_KIND } },
};

/* The next field that has a length; others are skipped. */
static bool next_field(struct base_bytes *in, uint32_t *number, struct base_bytes *value)
{
    uint64_t tag = 0, skipped = 0;
    while (base_take_varint(in, &tag)) {
        *number = (uint32_t)(tag >> 3);
        if ((tag & 7) == 2)
            return base_take_lenbytes(in, value);
        if ((tag & 7) != 0 || !base_take_varint(in, &skipped))
            return false;
    }
    return false;
}

static struct base_bytes field_of(struct base_bytes message, uint32_t wanted)
{
    struct base_bytes value, found = BASE_BYTES_EMPTY;
    uint32_t number = 0;
    while (next_field(&message, &number, &value))
        if (number == wanted)
            found = value;
    return found;
}

static enum ch_symbol find_in(struct base_bytes message, enum kind kind, struct base_bytes name,
                              int depth)
{
    struct base_bytes value;
    uint32_t number = 0;
    while (depth < DEPTH_MAX && next_field(&message, &number, &value)) {
        for (const struct inside *inside = INSIDE[kind]; inside < INSIDE[kind] + 6 && inside->field;
             inside++) {
            if (inside->field != number)
                continue;
            struct base_bytes own = field_of(value, 1);
            if (own.len == 0 || !base_bytes_starts_with(name, own))
                continue;
            if (name.len == own.len)
                return inside->kind == MESSAGE_KIND ? CH_SYMBOL_MESSAGE : CH_SYMBOL_OTHER;
            if (name.data[own.len] != '.' || inside->kind == LEAF_KIND)
                continue;
            struct base_bytes rest = base_bytes(name.data + own.len + 1, name.len - own.len - 1);
            enum ch_symbol found = find_in(value, inside->kind, rest, depth + 1);
            if (found != CH_SYMBOL_NONE)
                return found;
        }
    }
    return CH_SYMBOL_NONE;
}

enum ch_symbol ch_symbol_find(struct base_bytes file_descriptor, struct base_bytes name)
{
    struct base_bytes package = field_of(file_descriptor, 2);
    if (package.len > 0) {
        if (!base_bytes_starts_with(name, package) || name.len <= package.len ||
            name.data[package.len] != '.')
            return CH_SYMBOL_NONE;
        name = base_bytes(name.data + package.len + 1, name.len - package.len - 1);
    }
    return find_in(file_descriptor, FILE_KIND, name, 0);
}
