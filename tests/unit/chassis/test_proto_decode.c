/* A decoder reads what strangers send: whatever the bytes, it answers with a message that says the
 * same as any other protobuf implementation would read, or with an error that names the place; and
 * a message written again is the same message. */
#include "test.h"

#include "proto_wire.h"
#include "strata/test/v1/everything.strata.h"

#define EVERYTHING (&strata__test__v1__everything__descriptor)
#define B(lit) BASE_BYTES_LIT(lit)

typedef Strata__Test__V1__Everything everything;

static void check_same(const char *what, struct base_bytes got, struct base_bytes want)
{
    struct base_arena arena = { 0 };
    cr_assert(base_bytes_eq(got, want), "%s: got %s, want %s", what,
              base_bytes_show(&arena, got, 200), base_bytes_show(&arena, want, 200));
    base_arena_free(&arena);
}

/* Decodes, and encodes what came out. */
static struct base_status decode_encode(const ProtobufCMessageDescriptor *type,
                                        struct base_bytes in, struct base_buf *out)
{
    struct base_arena arena = { 0 };
    ProtobufCMessage *message;
    struct base_status status = ch_proto_decode(type, in, &arena, &message);
    cr_assert_eq(base_failed(status), message == NULL);
    if (!base_failed(status)) {
        ProtobufCMessage *copy = ch_proto_copy(message, &arena);
        cr_assert(copy != message && ch_proto_equal(copy, message));
        ch_proto_encode(message, out);
        cr_assert_eq(out->len, ch_proto_size(message));
    }
    base_arena_free(&arena);
    return status;
}

Test(proto_decode, accepts)
{
    static const struct {
        const char *what;
        struct base_bytes in, out; /* out empty and in not: out is in */
        bool vanishes;
    } cases[] = {
        { "nothing", B("") },
        { "a number", B("\x18\x05") },
        { "the last of a singular field counts", B("\x18\x05\x18\x06"), B("\x18\x06") },
        { "a varint longer than need be", B("\x18\x85\x80\x00"), B("\x18\x05") },
        { "a tag longer than need be", B("\x98\x00\x05"), B("\x18\x05") },
        { "a negative int32", B("\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01") },
        { "an int32 keeps its low half", B("\x18\x81\x80\x80\x80\x10"), B("\x18\x01") },
        { "any bool but 0 is true", B("\x68\x80\x80\x80\x80\x80\x20"), B("\x68\x01") },
        { "a default is not written", B("\x18\x00"), B(""), true },
        { "an enum number without a name", B("\x80\x01\x63") },
        { "an unknown field of each wire type", B("\xa0\x06\x01\xa1\x06zzzzzzzz\xa2\x06\x02hi\xa5"
                                                  "\x06zzzz\xa3\x06\x08\x01\x0b\x0c\xa4\x06") },
        { "a known number with another wire type", B("\x1a\x01x\x1dzzzz\x1b\x1c") },
        { "packed", B("\x92\x01\x02\x01\x02") },
        { "packed, empty", B("\x92\x01\x00"), B(""), true },
        { "not packed though declared so", B("\x90\x01\x01\x90\x01\x02"),
          B("\x92\x01\x02\x01\x02") },
        { "both", B("\x92\x01\x02\x01\x02\x90\x01\x03\x92\x01\x01\x04"),
          B("\x92\x01\x04\x01\x02\x03\x04") },
        { "packed though declared not", B("\x9a\x01\x02\x01\x02"), B("\x98\x01\x01\x98\x01\x02") },
        { "packed fixed32", B("\xa2\x01\x08zzzzyyyy") },
        { "a message in pieces is merged", B("\x8a\x01\x02\x18\x05\x18\x07\x8a\x01\x02\x68\x01"),
          B("\x18\x07\x8a\x01\x04\x18\x05\x68\x01") },
        { "a oneof's message in pieces is merged", B("\x92\x02\x02\x18\x05\x92\x02\x02\x68\x01"),
          B("\x92\x02\x04\x18\x05\x68\x01") },
        { "of a oneof the last counts", B("\x80\x02\x07\x8a\x02\x01x"), B("\x8a\x02\x01x") },
        { "a oneof's message that another member replaced is gone",
          B("\x92\x02\x02\x18\x05\x80\x02\x07\x92\x02\x02\x68\x01"), B("\x92\x02\x02\x68\x01") },
        { "a member of a oneof is written though default", B("\x80\x02\x00") },
        { "an optional that is set is written though default", B("\xd8\x01\x00\xe2\x01\x00") },
        { "of a map's equal keys the last counts",
          B("\xca\x02\x05\x08\x01\x12\x01x\xca\x02\x05\x08\x02\x12\x01y\xca\x02\x05\x08\x01\x12\x01"
            "z"),
          B("\xca\x02\x05\x08\x01\x12\x01z\xca\x02\x05\x08\x02\x12\x01y") },
        { "a map's value before its key", B("\xca\x02\x05\x12\x01x\x08\x01"),
          B("\xca\x02\x05\x08\x01\x12\x01x") },
        { "a map's entry without key and value", B("\xc2\x02\x00"), B("\xc2\x02\x02\x12\x00") },
        { "a map in pieces of its message",
          B("\x8a\x01\x08\xca\x02\x05\x08\x01\x12\x01x\x8a\x01\x08\xca\x02\x05\x08\x01\x12\x01y"),
          B("\x8a\x01\x08\xca\x02\x05\x08\x01\x12\x01y") },
        { "a string with a NUL", B("\x72\x03x\0y") },
        { "bytes that are no text", B("\x7a\x02\xff\x80") },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct base_buf out = { 0 };
        struct base_status status = decode_encode(EVERYTHING, cases[i].in, &out);
        cr_assert(!base_failed(status), "%s: %s", cases[i].what, base_status_text(&status));
        bool changes = cases[i].out.len || cases[i].vanishes;
        check_same(cases[i].what, base_buf_bytes(&out), changes ? cases[i].out : cases[i].in);
        base_buf_free(&out);
    }
}

Test(proto_decode, refuses)
{
    static const struct {
        struct base_bytes in;
        const char *text;
    } cases[] = {
        { B("\x98"), "Everything: bad field tag" },
        { B("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), "Everything: bad field tag" },
        { B("\x00\x01"), "Everything: bad field number" },
        { B("\x80\x80\x80\x80\x10\x01"), "Everything: bad field number" },
        { B("\x1e"), "Everything.an_int32: bad wire type" },
        { B("\x1f"), "Everything.an_int32: bad wire type" },
        { B("\x18"), "Everything.an_int32: bad number" },
        { B("\x18\x80"), "Everything.an_int32: bad number" },
        { B("\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), "Everything.an_int32: bad number" },
        { B("\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
          "Everything.an_int32: bad number" },
        { B("\x4d\x01\x02\x03"), "Everything.a_fixed32: cut short" },
        { B("\x09\x01\x02\x03\x04\x05\x06\x07"), "Everything.a_double: cut short" },
        { B("\x72\x02x"), "Everything.a_string: length beyond the end" },
        { B("\x72"), "Everything.a_string: length beyond the end" },
        { B("\x72\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
          "Everything.a_string: length beyond the end" },
        { B("\x72\xff\xff\xff\xff\x0f"), "Everything.a_string: length beyond the end" },
        { B("\x8a\x01\x03\x18\x05\x18\x05"), "Everything.child.an_int32: bad number" },
        { B("\x92\x01\x02\x01\x80"), "Everything.int32s: bad packed number" },
        { B("\xa2\x01\x03zzz"), "Everything.fixed32s: packed numbers cut short" },
        { B("\xa3\x06"), "group without an end" },
        { B("\xa3\x06\xa3\x06\xa4\x06"), "group without an end" },
        { B("\xa4\x06"), "end of a group that did not begin" },
        { B("\xa3\x06\xac\x06"), "end of a group that did not begin" },
        { B("\x8a\x01\x02\xa3\x06\xa4\x06"), "Everything.child.?: group without an end" },
        { B("\x72\x01\xff"), "Everything.a_string: not valid UTF-8" },
        { B("\xba\x01\x01x\xba\x01\x01\x80"), "Everything.strings: not valid UTF-8" },
        { B("\x8a\x02\x01\xc0"), "Everything.chosen_string: not valid UTF-8" },
        { B("\xc2\x02\x05\x12\x03\x72\x01\xff"),
          "Everything.by_name.value.a_string: not valid UTF-8" },
        { B("\xc2\x02\x03\x0a\x01\xff"), "Everything.by_name.key: not valid UTF-8" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct base_buf out = { 0 };
        struct base_status status = decode_encode(EVERYTHING, cases[i].in, &out);
        cr_assert_eq(status.code, BASE_INVALID_ARGUMENT, "case %zu was accepted", i);
        cr_assert(strstr(base_status_text(&status), cases[i].text), "case %zu: %s", i,
                  base_status_text(&status));
        base_status_free(&status);
    }
}

/* Every prefix of a valid message is either a valid message itself or refused, never read beyond.
 */
Test(proto_decode, prefixes)
{
    struct base_bytes whole =
        B("\x18\x05\x72\x02hi\x8a\x01\x04\x18\x05\x68\x01\x92\x01\x02\x01\x02"
          "\xca\x02\x05\x08\x01\x12\x01x\x09zzzzzzzz\xa3\x06\x08\x01\xa4\x06");
    for (size_t len = 0; len <= whole.len; len++) {
        uint8_t *exact = malloc(len ? len : 1); /* so that a sanitizer sees a read past the end */
        struct base_buf out = { 0 };
        memcpy(exact, whole.data, len);
        struct base_status status = decode_encode(EVERYTHING, base_bytes(exact, len), &out);
        cr_assert(len < whole.len || !base_failed(status));
        base_status_free(&status);
        base_buf_free(&out);
        free(exact);
    }
}

/* `depth` messages within one another: the field's tag and a length each, from the inside out. */
static void nest(struct base_buf *out, int depth, uint8_t tag1, uint8_t tag2)
{
    base_buf_clear(out);
    for (int i = 0; i < depth; i++) {
        struct base_buf outer = { 0 };
        base_buf_put_u8(&outer, tag1);
        base_buf_put_u8(&outer, tag2);
        uint8_t len[2] = { (uint8_t)(out->len | 0x80), (uint8_t)(out->len >> 7) };
        base_buf_put(&outer, len, 2);
        base_buf_put(&outer, out->data, out->len);
        base_buf_free(out);
        *out = outer;
    }
}

Test(proto_decode, depth_is_limited)
{
    struct base_buf in = { 0 }, out = { 0 };
    nest(&in, CH_PROTO_DEPTH_MAX, 0x8a, 0x01);
    struct base_status status = decode_encode(EVERYTHING, base_buf_bytes(&in), &out);
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    nest(&in, CH_PROTO_DEPTH_MAX + 1, 0x8a, 0x01);
    status = decode_encode(EVERYTHING, base_buf_bytes(&in), &out);
    cr_assert(strstr(base_status_text(&status), "nested too deep"));
    base_status_free(&status);

    base_buf_clear(&in);
    for (int i = 0; i < 1000000; i++)
        base_buf_put_u8(&in, 0x0b); /* groups, opened only */
    status = decode_encode(EVERYTHING, base_buf_bytes(&in), &out);
    cr_assert(strstr(base_status_text(&status), "nested too deep"));
    base_status_free(&status);
    base_buf_free(&in);
    base_buf_free(&out);
}

Test(proto_decode, fields_arrive)
{
    struct base_arena arena = { 0 };
    ProtobufCMessage *message;
    struct base_status status = ch_proto_decode(EVERYTHING,
                                                B("\x38\x03\x40\x03\x4d\xff\xff\xff\xff\x15\x00\x00"
                                                  "\xc0\x3f\x7a\x00\xc2\x02\x00\xe2\x01\x02hi"),
                                                &arena, &message);
    cr_assert(!base_failed(status));
    everything *m = (everything *)message;
    cr_assert_eq(m->a_sint32, -2);
    cr_assert_eq(m->a_sint64, -2);
    cr_assert_eq(m->a_fixed32, UINT32_MAX);
    cr_assert_eq(m->a_float, 1.5f);
    cr_assert_eq(m->a_bytes.len, 0);
    cr_assert_eq(m->_maybe_string_case, STRATA__TEST__V1__EVERYTHING___MAYBE_STRING_MAYBE_STRING);
    cr_assert(base_bytes_eq_str(ch_bytes_of(m->maybe_string), "hi"));
    cr_assert_eq(m->_maybe_int32_case, 0);
    cr_assert_eq(m->n_by_name, 1);
    cr_assert_not_null(m->by_name[0]->value,
                       "a map's value is there even if the sender left it out");
    base_arena_free(&arena);
}

/* The message may outlive the bytes it came from. */
Test(proto_decode, does_not_point_into_its_input)
{
    struct base_arena arena = { 0 };
    ProtobufCMessage *message;
    uint8_t *bytes = malloc(5);
    memcpy(bytes,
           "\x72\x03"
           "abc",
           5);
    struct base_status status = ch_proto_decode(EVERYTHING, base_bytes(bytes, 5), &arena, &message);
    cr_assert(!base_failed(status));
    free(bytes);
    cr_assert(base_bytes_eq_str(ch_bytes_of(((everything *)message)->a_string), "abc"));
    base_arena_free(&arena);
}

/* Neither many keys nor many pieces of one message may cost more than a little a byte. */
Test(proto_decode, large_maps_in_pieces, .timeout = 20)
{
    enum { COUNT = 200000 };
    struct base_buf in = { 0 };
    for (uint32_t i = 0; i < COUNT; i++) {
        uint8_t key[3] = { (uint8_t)(i | 0x80), (uint8_t)(i >> 7 | 0x80),
                           (uint8_t)(i >> 14 & 0x7f) };
        base_buf_put(&in, "\x8a\x01\x07\xca\x02\x04\x08", 7);
        base_buf_put(&in, key, 3);
    }
    struct base_arena arena = { 0 };
    ProtobufCMessage *message;
    struct base_status status = ch_proto_decode(EVERYTHING, base_buf_bytes(&in), &arena, &message);
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    cr_assert_eq(((everything *)message)->child->n_by_int32, COUNT);
    base_arena_free(&arena);
    base_buf_free(&in);
}

Test(proto_decode, copy_and_equal)
{
    struct base_arena arena = { 0 };
    everything *a = CH_MESSAGE(&arena, everything, strata__test__v1__everything);
    everything *b = CH_MESSAGE(&arena, everything, strata__test__v1__everything);
    const ProtobufCMessage *base_a = &a->base, *base_b = &b->base;
    cr_assert(ch_proto_equal(base_a, base_b));
    cr_assert(ch_proto_equal(base_a, NULL), "nothing encodes as an empty message does");
    a->a_string = ch_data_str("x");
    cr_assert(!ch_proto_equal(base_a, base_b));
    b->a_string = ch_data_str("y");
    cr_assert(!ch_proto_equal(base_a, base_b));
    everything *copy = (everything *)ch_proto_copy(base_a, &arena);
    cr_assert(ch_proto_equal(&copy->base, base_a));
    cr_assert_neq(copy->a_string.data, a->a_string.data);
    cr_assert_null(ch_proto_copy(NULL, &arena));
    cr_assert_eq(ch_proto_size(NULL), 0);
    struct base_buf out = { 0 };
    ch_proto_encode(NULL, &out);
    cr_assert_eq(out.len, 0);
    base_arena_free(&arena);
}

Test(proto_decode, utf8)
{
    static const struct {
        struct base_bytes text;
        bool valid;
    } cases[] = {
        { B(""), true },
        { B("plain ASCII, longer than one word of eight"), true },
        { B("\0"), true },
        { B("\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"), true },
        { B("\xed\x9f\xbf\xee\x80\x80"), true },
        { B("12345678\xc3\xa9"), true },
        { B("1234567\xc3\xa9"
            "1234567"),
          true },
        { B("\x80"), false },
        { B("\xbf"), false },
        { B("\xc0\x80"), false }, /* an overlong NUL */
        { B("\xc1\xbf"), false },
        { B("\xe0\x9f\xbf"), false },
        { B("\xf0\x8f\xbf\xbf"), false },
        { B("\xed\xa0\x80"), false }, /* surrogates */
        { B("\xed\xbf\xbf"), false },
        { B("\xf4\x90\x80\x80"), false }, /* above U+10FFFF */
        { B("\xf5\x80\x80\x80"), false },
        { B("\xff"), false },
        { B("\xc3"), false }, /* cut short */
        { B("\xe2\x82"), false },
        { B("\xf0\x9f\x98"), false },
        { B("\xc3("), false },
        { B("\xe2\x82("), false },
        { B("12345678\xff"), false },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        cr_assert_eq(ch__utf8_valid(cases[i].text), cases[i].valid, "case %zu", i);
}
