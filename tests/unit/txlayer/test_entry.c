/* test_entry.c: the log's bytes. */
#include <stdio.h>

#include "entry.h"
#include "model.h"
#include "shard.h"
#include "test.h"

static void make_body(struct dice *dice, struct base_buf *body, size_t txns)
{
    static uint8_t noise[3000];
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (uint8_t)(i * 7);
    for (size_t t = 0; t < txns; t++) {
        struct txn__logged_write writes[5];
        size_t count = roll(dice, 6);
        for (size_t w = 0; w < count; w++)
            writes[w] =
                (struct txn__logged_write){ roll(dice, 2), base_bytes(noise, roll(dice, 20)),
                                            base_bytes(noise + w, roll(dice, 200)),
                                            base_bytes(noise, roll(dice, 3000)) };
        struct txn__logged txn = { base_bytes(noise, 16), BASE_BYTES_LIT("db"), 1000 + t, writes,
                                   count };
        txn__logged_encode(&txn, body);
    }
}

Test(entry, what_is_encoded_is_decoded)
{
    /* A batch comes back whole: timestamps, ids, writes, deletes. */
    struct dice dice = { 5 };
    struct base_buf body = { 0 }, again = { 0 }, bytes = { 0 };
    struct base_arena arena;
    struct txn__logged *txns;
    size_t count;
    base_arena_init(&arena);
    make_body(&dice, &body, 40);
    struct txn__entry entry = { TXN__BATCH, true, 7, 99, 12345, base_buf_bytes(&body) }, out;
    txn__entry_encode(&entry, &bytes);
    cr_assert_eq(base_status_drop(txn__entry_decode(base_buf_bytes(&bytes), &out)), BASE_OK);
    cr_assert(out.kind == TXN__BATCH && out.more && out.epoch == 7 && out.position == 99 &&
              out.limit == 12345);
    cr_assert_eq(base_status_drop(txn__body_decode(out.body, &arena, &txns, &count)), BASE_OK);
    cr_assert_eq(count, 40);
    for (size_t i = 0; i < count; i++)
        txn__logged_encode(&txns[i], &again);
    cr_assert(base_bytes_eq(base_buf_bytes(&body), base_buf_bytes(&again)));
    base_buf_free(&body);
    base_buf_free(&again);
    base_buf_free(&bytes);
    base_arena_free(&arena);
}

Test(entry, damage_is_seen)
{
    /* Any byte changed or missing is DATA_LOSS, never another entry: a log that lies must stop
     * the shard. */
    struct base_buf bytes = { 0 };
    struct txn__entry entry = { TXN__BATCH, false, 7, 99, 12345, BASE_BYTES_LIT("some body") }, out;
    txn__entry_encode(&entry, &bytes);
    for (size_t i = 0; i < bytes.len; i++) {
        bytes.data[i] ^= 0x10;
        cr_assert_eq(base_status_drop(txn__entry_decode(base_buf_bytes(&bytes), &out)),
                     BASE_DATA_LOSS);
        bytes.data[i] ^= 0x10;
        cr_assert_eq(base_status_drop(txn__entry_decode(base_bytes(bytes.data, i), &out)),
                     BASE_DATA_LOSS);
    }
    cr_assert_eq(base_status_drop(txn__entry_decode(base_buf_bytes(&bytes), &out)), BASE_OK);
    struct txn__checkpoint checkpoint = { 1, 2, 3, 4 }, read;
    base_buf_clear(&bytes);
    txn__checkpoint_encode(&checkpoint, &bytes);
    cr_assert_eq(base_status_drop(txn__checkpoint_decode(base_buf_bytes(&bytes), &read)), BASE_OK);
    cr_assert(memcmp(&checkpoint, &read, sizeof(read)) == 0);
    for (size_t i = 0; i < bytes.len; i++) {
        bytes.data[i] ^= 1;
        cr_assert_eq(base_status_drop(txn__checkpoint_decode(base_buf_bytes(&bytes), &read)),
                     BASE_DATA_LOSS);
        bytes.data[i] ^= 1;
    }
    base_buf_free(&bytes);
}

Test(entry, random_bodies_do_not_crash)
{
    /* The body has passed a checksum, but a decoder trusts nothing: counts and lengths beyond
     * the bytes are refused. */
    struct dice dice = { 11 };
    struct base_arena arena;
    base_arena_init(&arena);
    for (int round = 0; round < 3000; round++) {
        struct base_buf body = { 0 };
        struct txn__logged *txns;
        size_t count;
        make_body(&dice, &body, 2);
        for (size_t i = 0; i < 3; i++)
            body.data[roll(&dice, body.len < 60 ? body.len : 60)] = (uint8_t)roll(&dice, 256);
        body.len = 1 + roll(&dice, body.len);
        base_status_drop(txn__body_decode(base_buf_bytes(&body), &arena, &txns, &count));
        base_arena_reset(&arena);
        base_buf_free(&body);
    }
    base_arena_free(&arena);
}

Test(entry, shards_of_names_never_change)
{
    /* Where a database lives is part of the stored format. */
    cr_assert_eq(txn__shard_of(BASE_BYTES_LIT("p/d"), 4), 2);
    cr_assert_eq(txn__shard_of(BASE_BYTES_LIT("another"), 1000), 38);
    size_t counts[4] = { 0 };
    for (int i = 0; i < 400; i++) {
        char name[16];
        counts[txn__shard_of(base_bytes(name, (size_t)snprintf(name, sizeof(name), "db%d", i)),
                             4)]++;
    }
    for (int s = 0; s < 4; s++)
        cr_assert(counts[s] > 60, "shard %d has %zu of 400", s, counts[s]);
    cr_assert_eq(
        base_status_drop(txn__database_check(BASE_BYTES_LIT("projects/p/databases/(default)"))),
        BASE_OK);
    cr_assert_eq(base_status_drop(txn__database_check(BASE_BYTES_LIT("a\0b"))),
                 BASE_INVALID_ARGUMENT);
    cr_assert_eq(base_status_drop(txn__database_check(BASE_BYTES_EMPTY)), BASE_INVALID_ARGUMENT);
}
