/* An arena hands out aligned, disjoint memory that lives until reset or free, whatever the sizes.
 */
#include <stdint.h>
#include <string.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "test.h"

Test(arena, allocations_of_any_size_are_aligned_and_disjoint)
{
    struct base_arena arena;
    base_arena_init(&arena);
    enum { N = 2000 };
    static uint8_t *at[N];
    static size_t size[N];
    for (size_t i = 0; i < N; i++) {
        size[i] = (i * 7919) % (i % 100 == 0 ? 300000 : 500);
        at[i] = base_arena_alloc(&arena, size[i]);
        cr_assert_eq((uintptr_t)at[i] % 16, 0u);
        memset(at[i], (int)(i & 0xff), size[i]);
    }
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < size[i]; j++)
            cr_assert_eq(at[i][j], (uint8_t)i, "allocation %zu byte %zu", i, j);
    base_arena_free(&arena);
}

Test(arena, reset_keeps_no_more_than_one_chunk)
{
    struct base_arena arena = { 0 };
    for (int i = 0; i < 1000; i++)
        base_arena_alloc(&arena, 10000);
    cr_assert_gt(arena.bytes, 9000000u);
    base_arena_reset(&arena);
    cr_assert_leq(arena.bytes, 1u << 20);
    cr_assert_str_eq(base_arena_printf(&arena, "%s-%d", "x", 7), "x-7");
    base_arena_free(&arena);
}

Test(bytes, show_escapes_what_is_not_printable_and_cuts)
{
    struct base_arena arena = { 0 };
    cr_assert_str_eq(base_bytes_show(&arena, BASE_BYTES_LIT("a\0\xff"), 10), "a\\x00\\xff");
    cr_assert_str_eq(base_bytes_show(&arena, BASE_BYTES_LIT("abcdef"), 3), "abc\xe2\x80\xa6");
    base_arena_free(&arena);
}

Test(bytes, buffer_grows_and_formats)
{
    struct base_buf buf = { 0 };
    for (int i = 0; i < 1000; i++)
        base_buf_printf(&buf, "%d,", i);
    cr_assert_eq(buf.len, 3890u);
    cr_assert(base_bytes_starts_with(base_buf_bytes(&buf), BASE_BYTES_LIT("0,1,2,")));
    base_buf_free(&buf);
}
