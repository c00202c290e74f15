/* Encodings read back as written, order as the values order, and refuse what is cut short. */
#include <math.h>

#include "base/codec.h"
#include "test.h"

Test(codec, varint_reads_back_and_refuses_every_cut)
{
    static const uint64_t values[] = { 0,         1,        127,        128,
                                       300,       1u << 21, UINT32_MAX, UINT64_MAX - 1,
                                       UINT64_MAX };
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct base_buf buf = { 0 };
        base_buf_put_varint(&buf, values[i]);
        for (size_t cut = 0; cut < buf.len; cut++) {
            struct base_bytes in = base_bytes(buf.data, cut);
            uint64_t v;
            cr_assert_not(base_take_varint(&in, &v));
            cr_assert_eq(in.len, cut, "a failed read leaves the cursor");
        }
        struct base_bytes in = base_buf_bytes(&buf);
        uint64_t v = 0;
        cr_assert(base_take_varint(&in, &v));
        cr_assert_eq(v, values[i]);
        cr_assert_eq(in.len, 0u);
        base_buf_free(&buf);
    }
    struct base_bytes over = BASE_BYTES_LIT("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02");
    uint64_t v;
    cr_assert_not(base_take_varint(&over, &v), "66 bits");
}

static int sign(int x)
{
    return (x > 0) - (x < 0);
}

Test(codec, ordered_strings_order_like_the_strings_whatever_follows)
{
    static const struct base_bytes strings[] = {
        { (const uint8_t *)"", 0 },      { (const uint8_t *)"\0", 1 },
        { (const uint8_t *)"\0\0", 2 },  { (const uint8_t *)"\0\xff", 2 },
        { (const uint8_t *)"\1", 1 },    { (const uint8_t *)"a", 1 },
        { (const uint8_t *)"a\0", 2 },   { (const uint8_t *)"a\0b", 3 },
        { (const uint8_t *)"ab", 2 },    { (const uint8_t *)"\xff", 1 },
        { (const uint8_t *)"\xff\0", 2 }
    };
    size_t n = sizeof(strings) / sizeof(strings[0]);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            struct base_buf a = { 0 }, b = { 0 }, back = { 0 };
            base_buf_put_ordered(&a, strings[i]);
            base_buf_put_str(&a, "\xff tail");
            base_buf_put_ordered(&b, strings[j]);
            base_buf_put_str(&b, "\0");
            int want = base_bytes_cmp(strings[i], strings[j]);
            if (want != 0)
                cr_assert_eq(sign(base_bytes_cmp(base_buf_bytes(&a), base_buf_bytes(&b))),
                             sign(want), "%zu %zu", i, j);
            struct base_bytes in = base_buf_bytes(&a);
            cr_assert(base_take_ordered(&in, &back));
            cr_assert(base_bytes_eq(base_buf_bytes(&back), strings[i]));
            cr_assert(base_bytes_eq_str(in, "\xff tail"));
            base_buf_free(&a);
            base_buf_free(&b);
            base_buf_free(&back);
        }
}

Test(codec, ordered_numbers_order_like_the_numbers)
{
    static const int64_t ints[] = { INT64_MIN, -5, -1, 0, 1, 77, INT64_MAX };
    const double doubles[] = { -INFINITY, -1e300, -1.5,  -1e-300,  0.0,
                               1e-300,    2,      1e300, INFINITY, NAN };
    uint8_t last[8] = { 0 };
    for (size_t i = 0; i < 7; i++) {
        struct base_buf buf = { 0 };
        base_buf_put_ordered_i64(&buf, ints[i]);
        cr_assert(i == 0 || memcmp(last, buf.data, 8) < 0);
        memcpy(last, buf.data, 8);
        struct base_bytes in = base_buf_bytes(&buf);
        int64_t v;
        cr_assert(base_take_ordered_i64(&in, &v) && v == ints[i]);
        base_buf_free(&buf);
    }
    memset(last, 0, 8);
    for (size_t i = 0; i < 10; i++) {
        struct base_buf buf = { 0 };
        base_buf_put_ordered_double(&buf, doubles[i]);
        cr_assert(i == 0 || memcmp(last, buf.data, 8) < 0, "%zu", i);
        memcpy(last, buf.data, 8);
        struct base_bytes in = base_buf_bytes(&buf);
        double v;
        cr_assert(base_take_ordered_double(&in, &v));
        cr_assert(isnan(doubles[i]) ? isnan(v) : v == doubles[i]);
        base_buf_free(&buf);
    }
    struct base_buf plus = { 0 }, minus = { 0 };
    base_buf_put_ordered_double(&plus, 0.0);
    base_buf_put_ordered_double(&minus, -0.0);
    cr_assert_arr_eq(plus.data, minus.data, 8);
    base_buf_free(&plus);
    base_buf_free(&minus);
}

Test(codec, prefix_end_is_the_first_string_after_all_with_the_prefix)
{
    struct base_buf buf = { 0 };
    cr_assert(base_prefix_end(BASE_BYTES_LIT("ab\xff\xff"), &buf));
    cr_assert(base_bytes_eq_str(base_buf_bytes(&buf), "ac"));
    cr_assert_not(base_prefix_end(BASE_BYTES_LIT("\xff\xff"), &buf));
    cr_assert_not(base_prefix_end(BASE_BYTES_EMPTY, &buf));
    base_buf_free(&buf);
}

Test(codec, crc32c_gives_the_known_value_of_the_check_string)
{
    cr_assert_eq(base_crc32c(0, "123456789", 9), 0xe3069283u);
    cr_assert_eq(base_crc32c(base_crc32c(0, "1234", 4), "56789", 5), 0xe3069283u);
}
