/* What a log keeps in etcd, as bytes: what was put is taken again; every byte that is wrong is
 * found out, for etcd is somebody else's and others can write there; keys sort as their indexes
 * do. */
#include <string.h>

#include "base/codec.h"
#include "etcd_format.h"
#include "test.h"

static void commands_put(struct base_buf *out, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *at;

        base_buf_put_varint(out, i);
        at = base_buf_extend(out, i);
        memset(at, 'a' + (int)(i % 26), i);
    }
}

Test(etcd_format, a_batch_comes_back_whole)
{
    for (uint32_t count = 1; count < 200; count += 33) {
        struct base_buf commands = { 0 }, value = { 0 };
        struct con_etcd_batch in = { .term = 7 + count, .first = 1ull << 40, .count = count }, out;

        commands_put(&commands, count);
        in.commands = base_buf_bytes(&commands);
        con__etcd_batch_encode(&in, &value);
        cr_assert_eq(base_status_drop(con__etcd_batch_decode(base_buf_bytes(&value), &out)),
                     BASE_OK);
        cr_assert(out.term == in.term && out.first == in.first && out.count == count);
        cr_assert(base_bytes_eq(out.commands, in.commands));
        base_buf_free(&commands);
        base_buf_free(&value);
    }
}

Test(etcd_format, a_damaged_batch_is_found_out)
{
    struct base_buf commands = { 0 }, value = { 0 };
    struct con_etcd_batch batch = { .term = 3, .first = 9, .count = 12 };

    commands_put(&commands, batch.count);
    batch.commands = base_buf_bytes(&commands);
    con__etcd_batch_encode(&batch, &value);
    for (size_t i = 0; i < value.len; i++) { /* cut short; a bit flipped */
        cr_assert_eq(base_status_drop(con__etcd_batch_decode(base_bytes(value.data, i), &batch)),
                     BASE_DATA_LOSS);
        for (int bit = 0; bit < 8; bit++) {
            value.data[i] ^= (uint8_t)(1 << bit);
            cr_assert_eq(base_status_drop(con__etcd_batch_decode(base_buf_bytes(&value), &batch)),
                         BASE_DATA_LOSS, "byte %zu, bit %d", i, bit);
            value.data[i] ^= (uint8_t)(1 << bit);
        }
    }
    base_buf_free(&commands);
    base_buf_free(&value);
}

/* A checksum that is right over contents that are not: as a program of another version, or a hand,
 * would write. */
Test(etcd_format, a_batch_that_says_other_than_it_holds_is_refused)
{
    struct base_buf commands = { 0 };

    commands_put(&commands, 5);
    for (uint32_t count = 0; count < 12; count++) {
        struct con_etcd_batch batch = { .term = 1, .first = 1, .count = count };
        struct base_buf value = { 0 };
        enum base_code code;

        batch.commands = base_buf_bytes(&commands);
        con__etcd_batch_encode(&batch, &value);
        code = base_status_drop(con__etcd_batch_decode(base_buf_bytes(&value), &batch));
        cr_assert_eq(code, count == 5 ? BASE_OK : BASE_DATA_LOSS, "%u: %s", count,
                     base_code_name(code));
        value.data[4]++; /* the format */
        base_put_le32(value.data, base_crc32c(0, value.data + 4, value.len - 4));
        cr_assert_eq(base_status_drop(con__etcd_batch_decode(base_buf_bytes(&value), &batch)),
                     BASE_DATA_LOSS);
        base_buf_free(&value);
    }
    base_buf_free(&commands);
}

Test(etcd_format, a_manifest_comes_back_or_is_found_out)
{
    struct con_etcd_manifest in = { 1ull << 50, 12345678, 24, 0xdeadbeef }, out;
    struct base_buf value = { 0 };

    con__etcd_manifest_encode(&in, &value);
    cr_assert_eq(base_status_drop(con__etcd_manifest_decode(base_buf_bytes(&value), &out)),
                 BASE_OK);
    cr_assert(out.index == in.index && out.bytes == in.bytes && out.pieces == in.pieces &&
              out.crc == in.crc);
    for (size_t i = 0; i < value.len; i++) {
        cr_assert_eq(base_status_drop(con__etcd_manifest_decode(base_bytes(value.data, i), &out)),
                     BASE_DATA_LOSS);
        value.data[i] ^= 0x40;
        cr_assert_eq(base_status_drop(con__etcd_manifest_decode(base_buf_bytes(&value), &out)),
                     BASE_DATA_LOSS);
        value.data[i] ^= 0x40;
    }
    base_buf_free(&value);
}

Test(etcd_format, keys_sort_as_their_indexes)
{
    static const uint64_t indexes[] = { 1, 2, 9, 10, 99, 100, 1ull << 32, UINT64_MAX };
    struct base_arena arena = { 0 };
    struct con_etcd_keys keys;
    const char *end;

    con__etcd_keys(&keys, "/strata/x", "cell/clustermaster");
    cr_assert_str_eq(keys.leader, "/strata/x/cell/clustermaster/leader");
    end = con__etcd_below(&arena, keys.log);
    for (size_t i = 0; i < sizeof indexes / sizeof indexes[0]; i++) {
        const char *key = con__etcd_log_key(&arena, &keys, indexes[i]);

        cr_assert(strcmp(keys.log, key) < 0 && strcmp(key, end) < 0);
        cr_assert(i == 0 || strcmp(con__etcd_log_key(&arena, &keys, indexes[i - 1]), key) < 0);
    }
    /* One watch sees the leader keys and the log, and nothing of snapshots and candidates. */
    cr_assert(strcmp(keys.leader, keys.next) < 0 && strcmp(keys.next, end) < 0);
    cr_assert(strcmp(keys.candidate, keys.leader) < 0 && strcmp(keys.manifest, end) > 0 &&
              strcmp(keys.snapshot, end) > 0);
    base_arena_free(&arena);
}

Test(etcd_format, who_leads_is_read_or_refused)
{
    static const char *const bad[] = { "", "0123456789abcdef", "0123456789abcdef:7340",
                                       "0123456789abcdeg 127.0.0.1:7340",
                                       "0123456789ABCDEF 127.0.0.1:7340" };
    char target[CON_ADDRESS_MAX];
    uint8_t large[300];
    uint64_t id;

    cr_assert(
        con__etcd_leader_decode(base_bytes_str("0123456789abcdef 127.0.0.2:7340"), &id, target));
    cr_assert(id == 0x0123456789abcdef);
    cr_assert_str_eq(target, "127.0.0.2:7340");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert(!con__etcd_leader_decode(base_bytes_str(bad[i]), &id, target), "%s", bad[i]);
    memset(large, '0', sizeof large);
    large[16] = ' ';
    cr_assert(!con__etcd_leader_decode(base_bytes(large, sizeof large), &id, target));
}
