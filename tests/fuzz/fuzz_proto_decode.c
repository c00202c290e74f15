/* Bytes from anywhere into ch_proto_decode and ch_proto_from_json: nothing may crash, read outside
 * its bounds or run long, and whatever is accepted must come back the same when written and read
 * again, by us and by protobuf-c.
 *
 *   clang -fsanitize=fuzzer -DSTRATA_LIBFUZZER …   a libFuzzer target
 *   fuzz_proto_decode [ROUNDS [SEED]]              a plain program: random valid messages, randomly
 * damaged; a failure prints seed and round, and that command line repeats it */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "google/bigtable/v2/bigtable.strata.h"
#include "google/datastore/v1/datastore.strata.h"
#include "strata/test/v1/everything.strata.h"

static const ProtobufCMessageDescriptor *const types[] = {
    &strata__test__v1__everything__descriptor,
    &strata__test__v1__older__descriptor,
    &google__datastore__v1__commit_request__descriptor,
    &google__datastore__v1__run_query_request__descriptor,
    &google__datastore__v1__lookup_response__descriptor,
    &google__bigtable__v2__mutate_rows_request__descriptor,
    &google__bigtable__v2__read_rows_request__descriptor,
    &google__bigtable__v2__read_rows_response__descriptor,
    &google__protobuf__struct__descriptor,
};
enum { TYPE_COUNT = sizeof(types) / sizeof(*types) };

static struct base_bytes encode_into(struct base_arena *arena, const ProtobufCMessage *message)
{
    struct base_buf out = { 0 };
    ch_proto_encode(message, &out);
    struct base_bytes bytes = base_bytes_dup(arena, base_buf_bytes(&out));
    base_buf_free(&out);
    return bytes;
}

/* What we wrote, protobuf-c reads as the same: but for unknown fields, of which it refuses groups
 * and takes some of a wrong wire type for known ones. */
static bool undamaged;

static void check_with_protobuf_c(const ProtobufCMessageDescriptor *type, struct base_bytes bytes)
{
    ProtobufCMessage *theirs = protobuf_c_message_unpack(type, NULL, bytes.len, bytes.data);
    BASE_ASSERT(theirs);
    struct base_arena arena = { 0 };
    BASE_ASSERT(base_bytes_eq(encode_into(&arena, theirs), bytes));
    base_arena_free(&arena);
    protobuf_c_message_free_unpacked(theirs, NULL);
}

/* JSON does not carry unknown fields, and null in google.protobuf.Value's place says more than
 * nothing: so the second text must equal the first, not the message the message. */
static void check_json(const ProtobufCMessage *message)
{
    struct base_arena arena = { 0 };
    struct base_buf first = { 0 }, second = { 0 };
    struct base_status status = ch_proto_to_json(message, false, &first);
    if (!base_failed(status)) {
        ProtobufCMessage *again;
        status = ch_proto_from_json(message->descriptor, base_buf_bytes(&first), &arena, &again);
        if (!base_failed(status)) {
            status = ch_proto_to_json(again, false, &second);
            BASE_ASSERT(!base_failed(status));
            if (!base_bytes_eq(base_buf_bytes(&first), base_buf_bytes(&second)))
                fprintf(stderr, "%.*s\n%.*s\n", BASE_FMT(base_buf_bytes(&first)),
                        BASE_FMT(base_buf_bytes(&second)));
            BASE_ASSERT(first.len == second.len);
        }
    }
    base_status_free(&status);
    base_buf_free(&first);
    base_buf_free(&second);
    base_arena_free(&arena);
}

static bool try_decode(const ProtobufCMessageDescriptor *type, struct base_bytes bytes)
{
    struct base_arena arena = { 0 };
    ProtobufCMessage *message, *again;
    struct base_status status = ch_proto_decode(type, bytes, &arena, &message);
    bool accepted = !base_failed(status);
    if (accepted) {
        struct base_bytes encoded = encode_into(&arena, message);
        status = ch_proto_decode(type, encoded, &arena, &again);
        BASE_ASSERT(!base_failed(status));
        BASE_ASSERT(ch_proto_equal(message, again));
        BASE_ASSERT(ch_proto_equal(message, ch_proto_copy(message, &arena)));
        if (undamaged)
            check_with_protobuf_c(type, encoded);
        check_json(message);
    }
    base_status_free(&status);
    base_arena_free(&arena);
    return accepted;
}

static bool try_json(const ProtobufCMessageDescriptor *type, struct base_bytes text)
{
    struct base_arena arena = { 0 };
    ProtobufCMessage *message;
    struct base_status status = ch_proto_from_json(type, text, &arena, &message);
    bool accepted = !base_failed(status);
    if (accepted) {
        struct base_bytes encoded = encode_into(&arena, message);
        ProtobufCMessage *again;
        status = ch_proto_decode(type, encoded, &arena, &again);
        BASE_ASSERT(!base_failed(status));
        check_json(again);
    }
    base_status_free(&status);
    base_arena_free(&arena);
    return accepted;
}

#ifdef STRATA_LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const ProtobufCMessageDescriptor *type = types[(data[0] & 0x7f) % TYPE_COUNT];
    if (data[0] & 0x80)
        try_json(type, base_bytes(data + 1, size - 1));
    else
        try_decode(type, base_bytes(data + 1, size - 1));
    return 0;
}

#else

static uint64_t rng;

static uint64_t next(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng * 0x2545f4914f6cdd1du;
}

static size_t below(size_t limit)
{
    return limit ? (size_t)(next() >> 11) % limit : 0;
}

/* ---- random valid messages, written straight in wire format ---- */

static uint64_t random_number(void)
{
    switch (below(4)) {
    case 0:
        return below(4);
    case 1:
        return 0 - (uint64_t)below(4);
    case 2:
        return next() >> below(64);
    default:
        return next();
    }
}

static void put_varint(struct base_buf *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        base_buf_put_u8(out, (uint8_t)value | 0x80);
    base_buf_put_u8(out, (uint8_t)value);
}

static void put_text(struct base_buf *out, bool utf8)
{
    static const char *const pieces[] = {
        "", "a", "name", "\xc3\xa9", "\xf0\x9f\x98\x80", "\"\\", "2024-01-01T00:00:00Z"
    };
    struct base_buf text = { 0 };
    for (size_t n = below(4); n > 0; n--)
        if (utf8)
            base_buf_put_str(&text, pieces[below(sizeof(pieces) / sizeof(*pieces))]);
        else
            base_buf_put_u8(&text, (uint8_t)next());
    put_varint(out, text.len);
    base_buf_put_bytes(out, base_buf_bytes(&text));
    base_buf_free(&text);
}

static int wire_of(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return 5;
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 1;
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return 2;
    default:
        return 0;
    }
}

static void random_message(struct base_buf *out, const ProtobufCMessageDescriptor *type, int depth);

static void random_value(struct base_buf *out, const ProtobufCFieldDescriptor *field, int depth)
{
    uint64_t number = random_number();
    struct base_buf inner = { 0 };
    switch (wire_of(field)) {
    case 0:
        put_varint(out, number);
        break;
    case 1:
        base_buf_put(out, &number, 8);
        break;
    case 5:
        base_buf_put(out, &number, 4);
        break;
    default:
        if (field->type == PROTOBUF_C_TYPE_BYTES) {
            put_text(out, field->reserved_flags & CH_FIELD_STRING);
            break;
        }
        random_message(&inner, field->descriptor, depth + 1);
        put_varint(out, inner.len);
        base_buf_put_bytes(out, base_buf_bytes(&inner));
        base_buf_free(&inner);
    }
}

static void random_packed(struct base_buf *out, const ProtobufCFieldDescriptor *field)
{
    struct base_buf inner = { 0 };
    for (size_t n = below(6); n > 0; n--)
        random_value(&inner, field, 0);
    put_varint(out, inner.len);
    base_buf_put_bytes(out, base_buf_bytes(&inner));
    base_buf_free(&inner);
}

static void random_message(struct base_buf *out, const ProtobufCMessageDescriptor *type, int depth)
{
    size_t fields = depth > 6 ? 0 : below(depth ? 4 : 12);
    for (; fields > 0 && type->n_fields > 0; fields--) {
        const ProtobufCFieldDescriptor *field = &type->fields[below(type->n_fields)];
        int wire = wire_of(field);
        if (wire != 2 && field->label == PROTOBUF_C_LABEL_REPEATED && below(2)) {
            put_varint(out, field->id << 3 | 2);
            random_packed(out, field);
            continue;
        }
        put_varint(out, field->id << 3 | (unsigned)wire);
        random_value(out, field, depth);
    }
}

/* ---- damage ---- */

static void damage_once(struct base_buf *buf)
{
    size_t at = below(buf->len), len = 1 + below(buf->len - at > 8 ? 8 : buf->len - at);
    struct base_buf copy = { 0 };
    switch (below(6)) {
    case 0: /* a bit */
        buf->data[at] ^= (uint8_t)(1u << below(8));
        return;
    case 1: /* a byte, of the kind that lengths and tags are */
        buf->data[at] = (uint8_t)(below(2) ? next() : 0xff);
        return;
    case 2: /* cut off */
        buf->len = at;
        return;
    case 3: /* leave out */
        if (len > buf->len - at)
            return;
        memmove(buf->data + at, buf->data + at + len, buf->len - at - len);
        buf->len -= len;
        return;
    case 4: /* twice */
        base_buf_put(&copy, buf->data, buf->len);
        base_buf_put_bytes(buf, base_buf_bytes(&copy));
        break;
    default: /* put in */
        base_buf_put(&copy, buf->data + at, buf->len - at);
        buf->len = at;
        for (size_t i = 0; i < len; i++)
            base_buf_put_u8(buf, (uint8_t)next());
        base_buf_put_bytes(buf, base_buf_bytes(&copy));
    }
    base_buf_free(&copy);
}

/* An allocation of exactly the size, so that a sanitizer sees one byte too far. */
static bool try_exact(const ProtobufCMessageDescriptor *type, struct base_bytes bytes,
                      bool (*try)(const ProtobufCMessageDescriptor *, struct base_bytes))
{
    uint8_t *exact = malloc(bytes.len ? bytes.len : 1);
    if (bytes.len)
        memcpy(exact, bytes.data, bytes.len);
    bool accepted = try(type, base_bytes(exact, bytes.len));
    free(exact);
    return accepted;
}

static void damage(struct base_buf *buf)
{
    for (size_t n = 1 + below(4); n > 0 && buf->len > 0; n--)
        damage_once(buf);
}

static uint64_t accepted_whole, accepted_damaged, accepted_json;

static void one_round(void)
{
    const ProtobufCMessageDescriptor *type = types[below(TYPE_COUNT)];
    struct base_buf bytes = { 0 }, json = { 0 };
    random_message(&bytes, type, 0);
    undamaged = true;
    bool whole = try_exact(type, base_buf_bytes(&bytes), try_decode);
    undamaged = false;
    BASE_ASSERT(whole);
    accepted_whole++;
    struct base_arena arena = { 0 };
    ProtobufCMessage *message;
    struct base_status status = ch_proto_decode(type, base_buf_bytes(&bytes), &arena, &message);
    BASE_ASSERT(!base_failed(status));
    status = ch_proto_to_json(message, below(2), &json);
    if (!base_failed(status)) {
        damage(&json);
        accepted_json += try_exact(type, base_buf_bytes(&json), try_json);
    }
    base_status_free(&status);
    base_arena_free(&arena);
    damage(&bytes);
    accepted_damaged += try_exact(type, base_buf_bytes(&bytes), try_decode);
    base_buf_free(&bytes);
    base_buf_free(&json);
}

int main(int argc, char **argv)
{
    uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 10) : 20000;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    uint64_t first = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    for (uint64_t i = first; i < first + rounds; i++) {
        rng = (seed + 1) * 0x9e3779b97f4a7c15u ^ (i + 1) * 0xbf58476d1ce4e5b9u;
        if (argc > 3)
            fprintf(stderr, "round %llu\n", (unsigned long long)i);
        one_round();
    }
    printf("seed %llu: %llu rounds; accepted: %llu whole, %llu damaged, %llu damaged JSON\n",
           (unsigned long long)seed, (unsigned long long)rounds, (unsigned long long)accepted_whole,
           (unsigned long long)accepted_damaged, (unsigned long long)accepted_json);
    return 0;
}

#endif
