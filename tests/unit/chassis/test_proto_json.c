/* JSON is the REST face of every message: what the proto3 JSON mapping says is read and written
 * exactly so, and what it does not say is refused with the name of the culprit. */
#include "test.h"
#include <stdio.h>
#include <time.h>

#include "proto_json.h"
#include "strata/test/v1/everything.strata.h"

#define EVERYTHING (&strata__test__v1__everything__descriptor)

typedef Strata__Test__V1__Everything everything;

static void check_round(const char *in, const char *want)
{
    struct base_arena arena = { 0 };
    ProtobufCMessage *message;
    struct base_buf out = { 0 };
    struct base_status status =
        ch_proto_from_json(EVERYTHING, base_bytes_str(in), &arena, &message);
    cr_assert(!base_failed(status), "%s: %s", in, base_status_text(&status));
    ProtobufCMessage *copy = ch_proto_copy(message, &arena);
    status = ch_proto_to_json(copy, false, &out);
    cr_assert(!base_failed(status), "%s: %s", in, base_status_text(&status));
    cr_assert(base_bytes_eq_str(base_buf_bytes(&out), want ? want : in), "%s gave %.*s", in,
              BASE_FMT(base_buf_bytes(&out)));
    base_buf_free(&out);
    base_arena_free(&arena);
}

struct round {
    const char *in, *out; /* out NULL: the same */
};

static void check_rounds(const struct round *rounds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        check_round(rounds[i].in, rounds[i].out);
}
#define CHECK_ROUNDS(rounds) check_rounds((rounds), sizeof(rounds) / sizeof(*(rounds)))

Test(proto_json, numbers)
{
    static const struct round rounds[] = {
        { "{}" },
        { " { } ", "{}" },
        { "{\"anInt32\":-2147483648}" },
        { "{\"an_int32\":7}", "{\"anInt32\":7}" },
        { "{\"anInt32\":\"7\"}", "{\"anInt32\":7}" },
        { "{\"anInt32\":1e2}", "{\"anInt32\":100}" },
        { "{\"anInt32\":7.0}", "{\"anInt32\":7}" },
        { "{\"anInt32\":0}", "{}" },
        { "{\"anInt32\":null}", "{}" },
        { "{\"anInt64\":\"-9223372036854775808\"}" },
        { "{\"anInt64\":9223372036854775807}", "{\"anInt64\":\"9223372036854775807\"}" },
        { "{\"anInt64\":-9223372036854775808}", "{\"anInt64\":\"-9223372036854775808\"}" },
        { "{\"aUint64\":\"18446744073709551615\"}" },
        { "{\"aUint32\":4294967295}" },
        { "{\"aFixed32\":1,\"aFixed64\":\"2\",\"aSfixed32\":-3,\"aSfixed64\":\"-4\"}" },
        { "{\"aSint32\":-1,\"aSint64\":\"-1\"}" },
        { "{\"aDouble\":1}" },
        { "{\"aDouble\":0.1}" },
        { "{\"aDouble\":1e-07}" },
        { "{\"aDouble\":0.30000000000000004}" },
        { "{\"aDouble\":1e+20}" },
        { "{\"aDouble\":100000000000000000000}", "{\"aDouble\":1e+20}" },
        { "{\"aDouble\":-100000000000000000000 }", "{\"aDouble\":-1e+20}" },
        { "{\"aDouble\":9223372036854775808}", "{\"aDouble\":9.223372036854776e+18}" },
        { "{\"aDouble\":1.00000000000000000000000000000001}", "{\"aDouble\":1}" },
        { "{\"aDouble\":1e00000000000000000000002}", "{\"aDouble\":100}" },
        { "{\"aDouble\":\"NaN\"}" },
        { "{\"aDouble\":\"-Infinity\"}" },
        { "{\"aDouble\":\"Infinity\"}" },
        { "{\"aDouble\":\"1.5\"}", "{\"aDouble\":1.5}" },
        { "{\"maybeDouble\":-0.0}" },
        { "{\"aFloat\":0.1}" },
        { "{\"aFloat\":16777216}", "{\"aFloat\":16777216}" },
        { "{\"aFloat\":3.40282347e+38}", "{\"aFloat\":3.4028235e+38}" },
        { "{\"aBool\":true}" },
        { "{\"maybeInt32\":0}" },
        { "{\"maybeInt32\":null}", "{}" },
    };
    CHECK_ROUNDS(rounds);
}

Test(proto_json, text_bytes_and_enums)
{
    static const struct round rounds[] = {
        { "{\"aString\":\"h\xc3\xa9llo\"}" },
        { "{\"aString\":\"\\u00e9\\ud83d\\ude00\\/\"}",
          "{\"aString\":\"\xc3\xa9\xf0\x9f\x98\x80/\"}" },
        { "{\"aString\":\"\\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001f\"}" },
        { "{\"maybeString\":\"\"}" },
        { "{\"strings\":[\"\",\"x\"]}" },
        { "{\"aBytes\":\"+/+/\"}" },
        { "{\"aBytes\":\"-_-_\"}", "{\"aBytes\":\"+/+/\"}" },
        { "{\"aBytes\":\"AA\"}", "{\"aBytes\":\"AA==\"}" },
        { "{\"aBytes\":\"AAA\"}", "{\"aBytes\":\"AAA=\"}" },
        { "{\"aBytes\":\"AAA=\"}" },
        { "{\"aBytes\":\"AA==\"}" },
        { "{\"aBytes\":\"\"}", "{}" },
        { "{\"aColour\":\"GREEN\"}" },
        { "{\"aColour\":2}", "{\"aColour\":\"GREEN\"}" },
        { "{\"aColour\":\"INFRARED\"}" },
        { "{\"aColour\":77}" },
        { "{\"maybeColour\":\"COLOUR_UNSPECIFIED\"}" },
        { "{\"colours\":[\"RED\",1]}", "{\"colours\":[\"RED\",\"RED\"]}" },
        { "{\"somethingElse\":1,\"num3dOdd\":2}" },
        { "{\"renamed\":1}", "{\"somethingElse\":1}" },
    };
    CHECK_ROUNDS(rounds);
}

Test(proto_json, structure)
{
    static const struct round rounds[] = {
        { "{\"child\":{}}" },
        { "{\"child\":null}", "{}" },
        { "{\"children\":[{},{\"anInt32\":1}]}" },
        { "{\"int32s\":[]}", "{}" },
        { "{\"int32s\":null}", "{}" },
        { "{\"int32s\":[1,2,\"3\"]}", "{\"int32s\":[1,2,3]}" },
        { "{\"byName\":{\"\":{},\"x\":{\"anInt32\":1}}}" },
        { "{\"byInt32\":{\"-5\":\"x\"}}" },
        { "{\"byBool\":{\"true\":\"1\"}}" },
        { "{\"byBool\":{\"false\":\"1\"}}" },
        { "{\"byUint64\":{\"18446744073709551615\":\"AA==\"}}" },
        { "{\"bySint64\":{\"-7\":\"RED\"}}" },
        { "{\"byName\":null}", "{}" },
        { "{\"chosenInt64\":\"0\"}" },
        { "{\"chosenString\":\"\"}" },
        { "{\"chosenChild\":{\"chosenBool\":false}}" },
        { "{\"chosenNull\":null}" },
        { "{\"chosenNull\":\"NULL_VALUE\"}", "{\"chosenNull\":null}" },
        { "{\"chosenInt64\":null,\"chosenString\":\"x\"}", "{\"chosenString\":\"x\"}" },
    };
    CHECK_ROUNDS(rounds);
}

Test(proto_json, well_known_types)
{
    static const struct round rounds[] = {
        { "{\"time\":\"1970-01-01T00:00:00Z\"}" },
        { "{\"time\":\"0001-01-01T00:00:00Z\"}" },
        { "{\"time\":\"9999-12-31T23:59:59.999999999Z\"}" },
        { "{\"time\":\"2000-02-29T12:34:56.500Z\"}" },
        { "{\"time\":\"1969-12-31T23:59:59.000000001Z\"}" },
        { "{\"time\":\"2024-12-31T23:59:59Z\"}" },
        { "{\"time\":\"2023-03-01T00:00:00.000100Z\"}" },
        { "{\"time\":\"2024-02-29T00:30:00.5+01:00\"}", "{\"time\":\"2024-02-28T23:30:00.500Z\"}" },
        { "{\"time\":\"2023-12-31T23:30:00-00:30\"}", "{\"time\":\"2024-01-01T00:00:00Z\"}" },
        { "{\"time\":null}", "{}" },
        { "{\"times\":[\"1900-03-01T00:00:00Z\",\"1900-02-28T23:59:59Z\"]}" },
        { "{\"duration\":\"0s\"}" },
        { "{\"duration\":\"-0.500s\"}" },
        { "{\"duration\":\"1.5s\"}", "{\"duration\":\"1.500s\"}" },
        { "{\"duration\":\"-315576000000s\"}" },
        { "{\"duration\":\"1.000000001s\"}" },
        { "{\"mask\":\"\"}" },
        { "{\"mask\":\"fooBar,baz.quxX\"}" },
        { "{\"struct\":{\"a\":[1,\"x\",null,true,{}],\"b\":{\"c\":-1.5}}}" },
        { "{\"value\":null}" },
        { "{\"value\":[]}" },
        { "{\"value\":\"x\"}" },
        { "{\"value\":false}" },
        { "{\"list\":[null,[1]]}" },
        { "{\"byValue\":{\"x\":null}}" },
        { "{\"any\":{\"@type\":\"type.googleapis.com/x.Y\",\"value\":\"AA==\"}}" },
        { "{\"any\":{}}" },
        { "{\"wrappedInt32\":0}" },
        { "{\"wrappedInt32\":null}", "{}" },
        { "{\"wrappedInt64\":\"5\",\"wrappedString\":\"\",\"wrappedBytes\":\"AA==\","
          "\"wrappedDouble\":1.5,"
          "\"wrappedBool\":false}" },
    };
    CHECK_ROUNDS(rounds);
}

Test(proto_json, refuses)
{
    static const struct {
        const char *in, *text;
    } cases[] = {
        { "", "JSON: line 1" },
        { "{", "JSON: line 1" },
        { "{}x", "JSON: line 1" },
        { "[]", "Everything: expected an object" },
        { "null", "Everything: expected an object" },
        { "{\"nothing\":1}", "Everything.nothing: no such field" },
        { "{\"child\":{\"child\":{\"nothing\":null}}}",
          "Everything.child.child.nothing: no such field" },
        { "{\"choice\":null}", "Everything.choice: no such field" },
        { "{\"anInt32\":1,\"anInt32\":2}", "JSON: line 1" },
        { "{\"anInt32\":1,\"an_int32\":2}", "given twice" },
        { "{\"anInt32\":2147483648}", "Everything.anInt32: beyond 32 bits" },
        { "{\"anInt32\":-2147483649}", "Everything.anInt32: beyond 32 bits" },
        { "{\"anInt32\":1.5}", "Everything.anInt32: expected a whole number" },
        { "{\"anInt32\":\"\"}", "expected a whole number" },
        { "{\"anInt32\":\" 1\"}", "expected a whole number" },
        { "{\"anInt32\":\"-\"}", "expected a whole number" },
        { "{\"anInt32\":\"0x1\"}", "expected a whole number" },
        { "{\"anInt32\":true}", "expected a whole number" },
        { "{\"anInt64\":9223372036854775808}", "expected a whole number" },
        { "{\"anInt64\":\"9223372036854775808\"}", "beyond 64 bits" },
        { "{\"anInt64\":\"99999999999999999999\"}", "expected a whole number" },
        { "{\"aUint32\":-1}", "not an unsigned number of 32 bits" },
        { "{\"aUint32\":4294967296}", "not an unsigned number of 32 bits" },
        { "{\"aUint64\":\"18446744073709551616\"}", "expected a whole number" },
        { "{\"aDouble\":\"nan\"}", "expected a number" },
        { "{\"aDouble\":\"0x1p3\"}", "expected a number" },
        { "{\"aDouble\":\"1e999\"}", "expected a number" },
        { "{\"aDouble\":\"1 \"}", "expected a number" },
        { "{\"aDouble\":1e999}", "JSON: line 1" },
        { "{\"aFloat\":3.5e38}", "Everything.aFloat: beyond a float" },
        { "{\"aBool\":\"true\"}", "expected true or false" },
        { "{\"aBool\":1}", "expected true or false" },
        { "{\"aString\":1}", "Everything.aString: expected a string" },
        { "{\"aString\":\"\xff\"}", "JSON: line 1" },
        { "{\"aString\":\"\\ud800\"}", "JSON: line 1" },
        { "{\"aBytes\":\"A\"}", "expected base64" },
        { "{\"aBytes\":\"AA=\"}", "expected base64" },
        { "{\"aBytes\":\"AAAA=\"}", "expected base64" },
        { "{\"aBytes\":\"A A=\"}", "expected base64" },
        { "{\"aColour\":\"BLUE\"}", "\"BLUE\" is not one of its names" },
        { "{\"aColour\":1.5}", "expected a whole number" },
        { "{\"child\":[]}", "Everything.child: expected an object" },
        { "{\"int32s\":1}", "Everything.int32s: expected an array" },
        { "{\"int32s\":[1,null]}", "Everything.int32s[1]: null in an array" },
        { "{\"children\":[{},{\"x\":1}]}", "Everything.children[1].x: no such field" },
        { "{\"byName\":[]}", "expected an object" },
        { "{\"byName\":{\"k\":null}}", "Everything.byName.k: null in a map" },
        { "{\"byName\":{\"k\":{\"x\":1}}}", "Everything.byName.k.x: no such field" },
        { "{\"byInt32\":{\"x\":\"\"}}", "Everything.byInt32.x: expected a whole number" },
        { "{\"byBool\":{\"1\":\"1\"}}", "expected a key true or false" },
        { "{\"chosenInt64\":\"1\",\"chosenString\":\"x\"}", "another member of its oneof" },
        { "{\"chosenNull\":null,\"chosenBool\":true}", "another member of its oneof" },
        { "{\"time\":\"2023-02-29T00:00:00Z\"}", "Everything.time: expected a time" },
        { "{\"time\":\"2023-01-01T24:00:00Z\"}", "expected a time" },
        { "{\"time\":\"2023-01-01T00:00:00\"}", "expected a time" },
        { "{\"time\":\"2023-01-01t00:00:00Z\"}", "expected a time" },
        { "{\"time\":\"0000-01-01T00:00:00Z\"}", "expected a time" },
        { "{\"time\":\"0001-01-01T00:00:00+00:01\"}", "expected a time" },
        { "{\"time\":\"2023-01-01T00:00:00.Z\"}", "expected a time" },
        { "{\"time\":\"2023-01-01T00:00:00.0000000001Z\"}", "expected a time" },
        { "{\"time\":1}", "expected a time" },
        { "{\"duration\":\"1\"}", "Everything.duration: expected a duration" },
        { "{\"duration\":\"s\"}", "expected a duration" },
        { "{\"duration\":\"315576000001s\"}", "expected a duration" },
        { "{\"mask\":\"foo_bar\"}", "Everything.mask: a path with an underscore" },
        { "{\"any\":{\"@type\":\"x\",\"y\":1}}", "Everything.any.y" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct base_arena arena = { 0 };
        ProtobufCMessage *message;
        struct base_status status =
            ch_proto_from_json(EVERYTHING, base_bytes_str(cases[i].in), &arena, &message);
        cr_assert_eq(status.code, BASE_INVALID_ARGUMENT, "%s was accepted", cases[i].in);
        cr_assert_null(message);
        cr_assert(strstr(base_status_text(&status), cases[i].text), "%s: %s", cases[i].in,
                  base_status_text(&status));
        base_status_free(&status);
        base_arena_free(&arena);
    }
}

static struct base_status parse_nested(const char *open, const char *inner, const char *close,
                                       int depth)
{
    struct base_arena arena = { 0 };
    struct base_buf in = { 0 };
    ProtobufCMessage *message;
    for (int i = 0; i < depth; i++)
        base_buf_put_str(&in, open);
    base_buf_put_str(&in, inner);
    for (int i = 0; i < depth; i++)
        base_buf_put_str(&in, close);
    struct base_status status =
        ch_proto_from_json(EVERYTHING, base_buf_bytes(&in), &arena, &message);
    base_buf_free(&in);
    base_arena_free(&arena);
    return status;
}

Test(proto_json, depth_is_limited)
{
    struct base_status status = parse_nested("{\"child\":", "{}", "}", CH_PROTO_DEPTH_MAX);
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    status = parse_nested("{\"children\":[", "{}", "]}", CH_PROTO_DEPTH_MAX);
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    status = parse_nested("{\"child\":", "{}", "}", CH_PROTO_DEPTH_MAX + 1);
    cr_assert(strstr(base_status_text(&status), "nested too deep"));
    base_status_free(&status);
    status = parse_nested("[", "", "]", 1000000);
    cr_assert(strstr(base_status_text(&status), "nested too deep"));
    base_status_free(&status);
    status = parse_nested("{\"list\":[", "", "]}", 1000000);
    cr_assert(strstr(base_status_text(&status), "nested too deep"));
    base_status_free(&status);
}

static struct base_status write_one(everything *m, bool enum_numbers, const char *want)
{
    struct base_buf out = { 0 };
    base_buf_put_str(&out, ">");
    struct base_status status = ch_proto_to_json(&m->base, enum_numbers, &out);
    cr_assert(base_bytes_eq_str(base_buf_bytes(&out), want), "%.*s: %s",
              BASE_FMT(base_buf_bytes(&out)), base_status_text(&status));
    base_buf_free(&out);
    return status;
}

Test(proto_json, writes_enums_as_numbers_when_asked)
{
    everything m = STRATA__TEST__V1__EVERYTHING__INIT;
    m.a_colour = STRATA__TEST__V1__COLOUR__GREEN;
    cr_assert(!base_failed(write_one(&m, true, ">{\"aColour\":2}")));
}

/* What has no JSON is an error, and nothing of it is left in the output. */
Test(proto_json, refuses_to_write)
{
    everything m = STRATA__TEST__V1__EVERYTHING__INIT;
    m.a_string = ch_data_str("\xff");
    struct base_status status = write_one(&m, false, ">");
    cr_assert(strstr(base_status_text(&status), "Everything.a_string"), "%s",
              base_status_text(&status));
    base_status_free(&status);

    everything late = STRATA__TEST__V1__EVERYTHING__INIT;
    Google__Protobuf__Timestamp time = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    time.seconds = 253402300800;
    late.time = &time;
    status = write_one(&late, false, ">");
    cr_assert_eq(base_status_drop(status), BASE_INVALID_ARGUMENT);

    everything loop = STRATA__TEST__V1__EVERYTHING__INIT;
    loop.child = &loop;
    status = write_one(&loop, false, ">");
    cr_assert_eq(base_status_drop(status), BASE_INVALID_ARGUMENT, "a message within itself ends");
}

/* Times are checked against the C library's calendar over the whole range. */
Test(proto_json, calendar)
{
    for (int64_t seconds = -62135596800; seconds < 253402300800; seconds += 8640000 * 3 + 86399) {
        char text[CH__TIME_TEXT_MAX], want[64];
        time_t t = (time_t)seconds;
        struct tm tm;
        cr_assert(ch__timestamp_to_text(seconds, 0, text));
        gmtime_r(&t, &tm);
        snprintf(want, sizeof(want), "%04d-%02d-%02dT%02d:%02d:%02dZ", tm.tm_year + 1900,
                 tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
        cr_assert_str_eq(text, want);
        int64_t back;
        int32_t nanos;
        cr_assert(ch__timestamp_from_text(base_bytes_str(text), &back, &nanos));
        cr_assert_eq(back, seconds);
    }
}
