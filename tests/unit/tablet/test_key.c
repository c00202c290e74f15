/* Keys order a row's story as rowread.h needs it, and say again what was put in. */
#include "key.h"
#include "meta.h"
#include "test.h"

static int compare(const struct base_buf *a, const struct base_buf *b)
{
    return base_bytes_cmp(base_buf_bytes(a), base_buf_bytes(b));
}

/* What may delete comes before what it deletes; newer before older; columns and families in
 * order: readers go once through. */
Test(key, order_of_a_rows_story)
{
    struct base_buf k[16] = { { 0 } };
    struct base_bytes row = BASE_BYTES_LIT("r"), f = BASE_BYTES_LIT("f"), q = BASE_BYTES_LIT("q");
    int n = 0;
    tab_key_put_cell(&k[n++], BASE_BYTES_LIT("q"), f, 1, q, 5, 9);
    tab_key_put_row_delete(&k[n++], row, 9);
    tab_key_put_row_delete(&k[n++], row, 3);
    tab_key_put_cell(&k[n++], row, BASE_BYTES_LIT("e"), 7, q, 5, 1);
    tab_key_put_family_delete(&k[n++], row, f, 1, 8);
    tab_key_put_column_delete(&k[n++], row, f, 1, BASE_BYTES_LIT(""), 8);
    tab_key_put_cell(&k[n++], row, f, 1, BASE_BYTES_LIT(""), 5, 1);
    tab_key_put_column_delete(&k[n++], row, f, 1, q, 8);
    tab_key_put_cell(&k[n++], row, f, 1, q, 6, 1);
    tab_key_put_cell(&k[n++], row, f, 1, q, 5, 4);
    tab_key_put_cell(&k[n++], row, f, 1, q, 5, 3);
    tab_key_put_cell(&k[n++], row, f, 1, BASE_BYTES_LIT("q\0"), 9, 1);
    tab_key_put_cell(&k[n++], row, f, 2, q, 5, 1);
    tab_key_put_cell(&k[n++], row, BASE_BYTES_LIT("ff"), 1, q, 5, 1);
    tab_key_put_cell(&k[n++], BASE_BYTES_LIT("r\0"), f, 1, q, 5, 1);
    for (int i = 1; i < n; i++)
        cr_assert(compare(&k[i - 1], &k[i]) < 0, "key %d is not before key %d", i - 1, i);
    for (int i = 0; i < n; i++)
        base_buf_free(&k[i]);
}

/* Rows and qualifiers may hold any byte, 00 and FF among them. */
Test(key, says_again_what_was_put_in)
{
    struct base_bytes row = BASE_BYTES_LIT("a\0b\xff\0"), qualifier = BASE_BYTES_LIT("\0\x01\0");
    struct base_buf buf = { 0 }, scratch = { 0 };
    struct tab_key key;
    tab_key_put_cell(&buf, row, BASE_BYTES_LIT("fam"), 77, qualifier, 123456000, 42);
    cr_assert(tab_key_parse(base_buf_bytes(&buf), &key));
    cr_assert_eq(key.kind, TAB_CELL);
    cr_assert_eq(key.timestamp_us, 123456000);
    cr_assert_eq(key.seq, 42);
    cr_assert_eq(key.family_id, 77);
    cr_assert(base_bytes_eq_str(key.family, "fam"));
    cr_assert(base_bytes_eq(tab_key_plain(key.row, true, &scratch), row));
    cr_assert(base_bytes_eq(tab_key_plain(key.qualifier, false, &scratch), qualifier));
    tab_key_set_seq(buf.data, buf.len, 99);
    cr_assert(tab_key_parse(base_buf_bytes(&buf), &key));
    cr_assert_eq(key.seq, 99);
    for (size_t len = 0; len < buf.len; len++)
        cr_assert(!tab_key_parse(base_bytes(buf.data, len), &key), "a key cut at %zu was taken",
                  len);
    base_buf_free(&buf);
    base_buf_free(&scratch);
}

/* The first METADATA row at or after the seek key of a row is that of the tablet which holds the
 * row. */
Test(key, metadata_rows_find_their_tablet)
{
    static const char *const ends[] = { "b", "b\xff", "m", "" };
    static const struct {
        const char *row;
        int tablet;
    } cases[] = { { "", 0 },      { "a", 0 }, { "azzz", 0 }, { "b", 1 }, { "ba", 1 },
                  { "b\xff", 2 }, { "l", 2 }, { "m", 3 },    { "zz", 3 } };
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct base_buf seek = { 0 };
        int found = -1;
        tab_meta_seek_key(&seek, 20, base_bytes_str(cases[c].row));
        for (int i = 0; i < 4 && found < 0; i++) {
            struct base_buf key = { 0 };
            tab_meta_key(&key, 20, base_bytes_str(ends[i]));
            if (compare(&key, &seek) >= 0)
                found = i;
            base_buf_free(&key);
        }
        cr_assert_eq(found, cases[c].tablet, "row \"%s\": tablet %d, not %d", cases[c].row, found,
                     cases[c].tablet);
        base_buf_free(&seek);
    }
}
