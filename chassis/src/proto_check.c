/* proto_check.c: see proto_wire.h. One pass over the bytes with a stack of its own, so that neither
 * depth nor length of what a peer sends can hurt; driven by the descriptor, because only it tells a
 * string from bytes and a message from either.
 *
 * What it accepts, as the protobuf spec does: fields in any order and number; numbers it does not
 * know; known numbers with a wire type that does not fit (unknown fields, both); repeated numbers
 * packed or not; groups (always unknown: no field of ours is one) when their ends match. What it
 * refuses: a varint over 64 bits, a length beyond the end, field number 0 or over 2^29-1, wire
 * types 6 and 7, nesting beyond CH_PROTO_DEPTH_MAX, a string that is not UTF-8. */
#include <stdio.h>

#include "proto_wire.h"

struct frame {
    const ProtobufCMessageDescriptor *descriptor; /* NULL inside a group */
    const ProtobufCFieldDescriptor *field;        /* of the frame below, whose value this is */
    const uint8_t *end;
    uint32_t group; /* its number, in a group */
};

struct check {
    const uint8_t *at;
    int depth; /* index of the top frame */
    struct frame stack[CH_PROTO_DEPTH_MAX + 1];
};

static struct base_status check_field(struct check *c);

struct base_status ch__proto_check(const ProtobufCMessageDescriptor *descriptor,
                                   struct base_bytes bytes)
{
    struct check c;
    BASE_ASSERT(descriptor);
    c.at = bytes.data;
    c.depth = 0;
    c.stack[0] = (struct frame){ .descriptor = descriptor,
                                 .end = bytes.len ? bytes.data + bytes.len : bytes.data };
    for (;;) {
        struct base_status status = check_field(&c);
        if (base_failed(status))
            return status;
        while (c.at == c.stack[c.depth].end && c.stack[c.depth].descriptor)
            if (c.depth-- == 0)
                return BASE_STATUS_OK;
    }
}

/* "Entity.properties.value: <what>". `field` may be NULL: the message itself. */
static struct base_status fail(const struct check *c, const ProtobufCFieldDescriptor *field,
                               const char *what)
{
    char path[512];
    size_t len = 0;
    for (int i = 0; i <= c->depth; i++) {
        const ProtobufCFieldDescriptor *of = c->stack[i].field;
        const char *name = i == 0 ? c->stack[0].descriptor->short_name : of ? of->name : "?";
        int n = snprintf(path + len, sizeof(path) - len, "%s%s", i ? "." : "", name);
        len = len + (size_t)n < sizeof(path) ? len + (size_t)n : sizeof(path) - 1;
    }
    return base_status_make(BASE_INVALID_ARGUMENT, "%s%s%s: %s", path, field ? "." : "",
                            field ? field->name : "", what);
}

static struct base_status push(struct check *c, struct frame frame)
{
    if (c->depth == CH_PROTO_DEPTH_MAX)
        return fail(c, frame.field, "nested too deep");
    c->stack[++c->depth] = frame;
    return BASE_STATUS_OK;
}

/* A packed field's numbers must fill it exactly. */
static struct base_status check_packed(struct check *c, const ProtobufCFieldDescriptor *field,
                                       struct base_bytes body)
{
    enum ch__wire wire = ch__wire_of(field->type);
    if (wire != CH__VARINT) {
        if (body.len % (wire == CH__I32 ? 4 : 8))
            return fail(c, field, "packed numbers cut short");
        return BASE_STATUS_OK;
    }
    const uint8_t *at = body.data, *end = body.data + body.len;
    uint64_t ignored;
    while (at < end)
        if (!ch__take_varint(&at, end, &ignored))
            return fail(c, field, "bad packed number");
    return BASE_STATUS_OK;
}

static struct base_status check_len(struct check *c, const ProtobufCFieldDescriptor *field)
{
    uint64_t len;
    const uint8_t *end = c->stack[c->depth].end;
    if (!ch__take_varint(&c->at, end, &len) || len > (uint64_t)(end - c->at))
        return fail(c, field, "length beyond the end");
    struct base_bytes body = base_bytes(c->at, (size_t)len);
    enum ch__fit fit = ch__fit(field, CH__LEN);
    if (fit == CH__FIT_ONE && field->type == PROTOBUF_C_TYPE_MESSAGE)
        return push(c, (struct frame){
                           .descriptor = field->descriptor, .field = field, .end = c->at + len });
    c->at += len;
    if (fit == CH__FIT_PACKED)
        return check_packed(c, field, body);
    if (fit == CH__FIT_ONE && (field->reserved_flags & CH_FIELD_STRING) && !ch__utf8_valid(body))
        return fail(c, field, "not valid UTF-8");
    return BASE_STATUS_OK;
}

static struct base_status check_fixed(struct check *c, const ProtobufCFieldDescriptor *field,
                                      size_t size)
{
    if ((size_t)(c->stack[c->depth].end - c->at) < size)
        return fail(c, field, "cut short");
    c->at += size;
    return BASE_STATUS_OK;
}

static struct base_status check_group_end(struct check *c, uint32_t number)
{
    const struct frame *top = &c->stack[c->depth];
    if (top->descriptor || top->group != number)
        return fail(c, NULL, "end of a group that did not begin");
    c->depth--;
    return BASE_STATUS_OK;
}

static struct base_status check_field(struct check *c)
{
    const struct frame *top = &c->stack[c->depth];
    if (c->at == top->end && top->descriptor)
        return BASE_STATUS_OK; /* an empty message */
    uint64_t tag, ignored;
    if (!ch__take_varint(&c->at, top->end, &tag))
        return fail(c, NULL, top->descriptor ? "bad field tag" : "group without an end");
    uint64_t number = tag >> 3;
    if (number == 0 || number > CH__FIELD_NUMBER_MAX)
        return fail(c, NULL, "bad field number");
    const ProtobufCFieldDescriptor *field =
        top->descriptor ? protobuf_c_message_descriptor_get_field(top->descriptor, (unsigned)number)
                        : NULL;
    switch (tag & 7) {
    case CH__VARINT:
        if (!ch__take_varint(&c->at, top->end, &ignored))
            return fail(c, field, "bad number");
        return BASE_STATUS_OK;
    case CH__I64:
        return check_fixed(c, field, 8);
    case CH__I32:
        return check_fixed(c, field, 4);
    case CH__LEN:
        return check_len(c, field);
    case CH__GROUP:
        return push(c,
                    (struct frame){ .field = field, .end = top->end, .group = (uint32_t)number });
    case CH__GROUP_END:
        return check_group_end(c, (uint32_t)number);
    default:
        return fail(c, field, "bad wire type");
    }
}
