/* Log frames are found again wherever a torn append left a gap, and never where there is none. */
#include <stdlib.h>

#include "log_format.h"
#include "mutation.h"
#include "bloom.h"
#include "key.h"
#include "schema.h"
#include "test.h"

/* A frame says its own offset: the same bytes elsewhere (a copy inside a value) are no frame; a
 * cut or flipped one is none. */
Test(log_format, frames)
{
    struct base_buf out = { 0 };
    struct tab_frame frame;
    tab_frames_put(&out, 1000, 7, TAB_FRAME_RECORDS, BASE_BYTES_LIT("payload"));
    cr_assert_eq(out.len, tab_frames_size(7));
    cr_assert_eq(tab_frame_parse(base_buf_bytes(&out), 1000, &frame), TAB_FRAME_GOOD);
    cr_assert_eq(frame.batch, 7);
    cr_assert(base_bytes_eq_str(frame.payload, "payload"));
    cr_assert_eq(tab_frame_parse(base_buf_bytes(&out), 1001, &frame), TAB_FRAME_NONE);
    for (size_t len = 0; len < out.len; len++)
        cr_assert_eq(tab_frame_parse(base_bytes(out.data, len), 1000, &frame), TAB_FRAME_SHORT,
                     "cut at %zu", len);
    for (size_t i = 0; i < out.len; i++) {
        out.data[i] ^= 0x40;
        cr_assert_neq(tab_frame_parse(base_buf_bytes(&out), 1000, &frame), TAB_FRAME_GOOD,
                      "flipped at %zu", i);
        out.data[i] ^= 0x40;
    }
    base_buf_free(&out);
}

/* A payload above the limit of a frame is cut into pieces that say which they are. */
Test(log_format, large_payloads_are_cut)
{
    size_t len = TAB_FRAME_PAYLOAD_MAX * 2 + 5;
    struct base_buf out = { 0 };
    uint8_t *payload = calloc(1, len);
    tab_frames_put(&out, 0, 3, TAB_FRAME_RECORDS, base_bytes(payload, len));
    cr_assert_eq(out.len, tab_frames_size(len));
    size_t at = 0, total = 0;
    for (int piece = 0; piece < 3; piece++) {
        struct tab_frame frame;
        cr_assert_eq(tab_frame_parse(base_bytes(out.data + at, out.len - at), at, &frame),
                     TAB_FRAME_GOOD);
        cr_assert_eq(frame.piece, piece);
        cr_assert_eq(frame.pieces, 3);
        total += frame.payload.len;
        at += frame.size;
    }
    cr_assert_eq(total, len);
    free(payload);
    base_buf_free(&out);
}

/* The entries of an edit are numbered one after the other, whatever lengths came between. */
Test(log_format, edits_are_numbered)
{
    struct tab_family family = { .name = BASE_BYTES_LIT("f"), .id = 1 };
    struct tab_edit edit = { 0 };
    uint8_t large[300] = { 0 };
    for (int i = 0; i < 20; i++)
        tab_edit_set_cell(&edit, BASE_BYTES_LIT("row"), &family, base_bytes(large, (size_t)i), 1000,
                          base_bytes(large, (size_t)i * 15));
    tab_edit_number(&edit, 500);
    struct base_bytes rest = base_buf_bytes(&edit.bytes), key, value;
    uint64_t seq = 500;
    while (tab_edit_next(&rest, &key, &value)) {
        struct tab_key parsed;
        cr_assert(tab_key_parse(key, &parsed));
        cr_assert_eq(parsed.seq, seq);
        cr_assert_eq(value.len, (seq - 500) * 15);
        seq++;
    }
    cr_assert_eq(seq, 520);
    cr_assert_eq(edit.count, 20);
    tab_edit_free(&edit);
}

/* No row that is in a file is ever called absent; of those that are not, few are called present. */
Test(log_format, bloom_filter)
{
    enum { N = 5000 };
    uint64_t hashes[N];
    struct base_buf filter = { 0 };
    for (uint64_t i = 0; i < N; i++)
        hashes[i] = tab_bloom_hash(base_bytes(&i, sizeof(i)));
    tab_bloom_build(hashes, N, &filter);
    int wrong = 0;
    for (uint64_t i = 0; i < 2 * N; i++) {
        bool may =
            tab_bloom_may_hold(base_buf_bytes(&filter), tab_bloom_hash(base_bytes(&i, sizeof(i))));
        cr_assert(may || i >= N, "row %llu is denied", (unsigned long long)i);
        wrong += may && i >= N;
    }
    cr_assert(wrong < N / 25, "%d of %d absent rows may be there", wrong, N);
    cr_assert(tab_bloom_may_hold(BASE_BYTES_EMPTY, 1));
    base_buf_free(&filter);
}
