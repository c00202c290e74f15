/* test_txlayer.c: one txlayer alone, in calm weather, on the doubles: what each call of
 * txlayer.h promises. */
#include "test.h"
#include "world.h"

#include <stdio.h>

static struct world *world;
static struct ch_naming *naming;
static struct txn_client *client;
static uint64_t next_id;

static ch_time soon(void)
{
    return ch_in(ch_sim_tester_env(world->sim), 60 * CH_S);
}

static void run(ch_fiber_fn *fn, size_t servers, const char *const *extra)
{
    world = world_new(ch_sim_seed(1), servers, extra);
    naming = world_naming(world);
    client = world_client(world, naming);
    ch_sim_do(world->sim, fn, NULL, 10000 * CH_S);
    world_free(world);
}

/* A test's fiber ends with this. */
static void end(void) CH_WAITS;
static void end(void)
{
    txn_client_free(client);
    ch_naming_free(naming);
}

#define OK(expr)                                                               \
    do {                                                                       \
        struct base_status ok_ = (expr);                                       \
        cr_assert(!base_failed(ok_), "%s: %s", #expr, base_status_text(&ok_)); \
    } while (0)
#define FAILS(expected, expr)                                                   \
    do {                                                                        \
        struct base_status not_ok_ = (expr);                                    \
        cr_assert(not_ok_.code == (expected), "%s: %d %s", #expr, not_ok_.code, \
                  base_status_text(&not_ok_));                                  \
        base_status_free(&not_ok_);                                             \
    } while (0)

static struct txn_key key_of(const char *text)
{
    return (struct txn_key){ base_bytes_str("g"), base_bytes_str(text) };
}

/* One write, after having read `read` (may be NULL) at read_ts. NULL value: a delete. */
static struct base_status put_id(uint64_t id, const char *read, uint64_t read_ts, const char *key,
                                 const char *value, uint64_t *ts) CH_WAITS;
static struct base_status put_id(uint64_t id, const char *read, uint64_t read_ts, const char *key,
                                 const char *value, uint64_t *ts)
{
    uint64_t id_bytes[2] = { 7, id };
    struct txn_key read_key = key_of(read ? read : "");
    struct txn_write write = { .key = key_of(key),
                               .is_delete = !value,
                               .value = base_bytes_str(value ? value : "") };
    struct txn_commit commit = { .read_timestamp = read_ts,
                                 .read_keys = &read_key,
                                 .read_key_count = read ? 1 : 0,
                                 .writes = &write,
                                 .write_count = 1,
                                 .idempotency_id = base_bytes(id_bytes, 16) };
    return txn_commit(client, "db", &commit, soon(), ts);
}

static struct base_status put(const char *key, const char *value, uint64_t *ts) CH_WAITS;
static struct base_status put(const char *key, const char *value, uint64_t *ts)
{
    return put_id(++next_id, NULL, 0, key, value, ts);
}

/* The value at a timestamp as text; "-" when not found. */
static char *get_at(const char *key, uint64_t timestamp) CH_WAITS;
static char *get_at(const char *key, uint64_t timestamp)
{
    static char text[256];
    struct base_arena arena;
    struct txn_key k = key_of(key);
    struct txn_value value;
    base_arena_init(&arena);
    OK(txn_get(client, "db", timestamp, &k, 1, soon(), &arena, &value, NULL));
    snprintf(text, sizeof(text), "%.*s", value.found ? (int)value.value.len : 1,
             value.found ? (const char *)value.value.data : "-");
    base_arena_free(&arena);
    return text;
}

/* A range as "k=v k=v", at most `limit` rows a page. */
static char *scan_at(const char *start, const char *end_key, bool descending, size_t limit,
                     uint64_t timestamp) CH_WAITS;
static char *scan_at(const char *start, const char *end_key, bool descending, size_t limit,
                     uint64_t timestamp)
{
    static char text[4096];
    struct base_arena arena;
    struct txn_row *rows;
    size_t count, at = 0;
    bool more;
    base_arena_init(&arena);
    struct txn_scan scan = { .start = base_bytes_str(start),
                             .end = base_bytes_str(end_key),
                             .descending = descending,
                             .limit = limit };
    text[0] = 0;
    do {
        OK(txn_scan(client, "db", timestamp, &scan, soon(), &arena, &rows, &count, &more,
                    &timestamp));
        cr_assert(!limit || count <= limit);
        for (size_t i = 0; i < count; i++)
            at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%.*s=%.*s", at ? " " : "",
                                   BASE_FMT(rows[i].key), BASE_FMT(rows[i].value));
        if (!more || !count)
            break;
        struct base_bytes last = rows[count - 1].key;
        if (descending) {
            scan.end = last;
        } else {
            uint8_t *after = base_arena_calloc(&arena, last.len + 1, 1);
            memcpy(after, last.data, last.len);
            scan.start = base_bytes(after, last.len + 1);
        }
    } while (true);
    base_arena_free(&arena);
    return text;
}

static void basics(void *arg)
{
    CH_FIBER_ENTRY();
    uint64_t t1, t2, t3, now;
    OK(put("a", "1", &t1));
    cr_assert_str_eq(get_at("a", 0), "1");
    cr_assert_str_eq(get_at("b", 0), "-");
    OK(put("a", "2", &t2));
    OK(put("a", NULL, &t3));
    cr_assert(t1 < t2 && t2 < t3);
    cr_assert_str_eq(get_at("a", t1), "1");
    cr_assert_str_eq(get_at("a", t2), "2");
    cr_assert_str_eq(get_at("a", t3 - 1), "2");
    cr_assert_str_eq(get_at("a", t3), "-");
    cr_assert_str_eq(get_at("a", t1 - 1), "-");
    OK(txn_read_timestamp(client, "db", soon(), &now));
    cr_assert(now >= t3);
    end();
}

Test(txlayer, reads_see_the_past_as_it_was)
{
    /* A value is readable at every timestamp from its commit on until the next, and a strong
     * read sees the last: the multi-version promise on which snapshots stand. */
    run(basics, 1, NULL);
}

static void conflicts(void *arg)
{
    CH_FIBER_ENTRY();
    uint64_t read, t;
    OK(put("k", "0", &t));
    OK(txn_read_timestamp(client, "db", soon(), &read));
    OK(put_id(++next_id, "k", read, "k", "1", &t));
    FAILS(BASE_ABORTED, put_id(++next_id, "k", read, "k", "2", &t));
    OK(put_id(++next_id, "other", read, "k2", "1", &t));
    cr_assert_str_eq(get_at("k", 0), "1");
    /* A key that was read as absent and has come since. */
    FAILS(BASE_ABORTED, put_id(++next_id, "k2", read, "z", "1", &t));
    /* Phantoms: a range that was empty. */
    struct txn_range range = { base_bytes_str("p"), base_bytes_str("q") };
    uint64_t id[2] = { 9, 9 };
    struct txn_write write = { .key = key_of("w"), .value = base_bytes_str("w") };
    struct txn_commit commit = { .read_timestamp = read,
                                 .read_ranges = &range,
                                 .read_range_count = 1,
                                 .writes = &write,
                                 .write_count = 1,
                                 .idempotency_id = base_bytes(id, 16) };
    OK(put("px", "1", &t));
    FAILS(BASE_ABORTED, txn_commit(client, "db", &commit, soon(), &t));
    commit.read_timestamp = t = 0;
    FAILS(BASE_INVALID_ARGUMENT, txn_commit(client, "db", &commit, soon(), &t));
    OK(txn_read_timestamp(client, "db", soon(), &commit.read_timestamp));
    OK(txn_commit(client, "db", &commit, soon(), &t));
    commit.read_timestamp += 3600ULL * 1000000;
    id[0]++;
    FAILS(BASE_INVALID_ARGUMENT, txn_commit(client, "db", &commit, soon(), &t));
    end();
}

Test(txlayer, a_commit_fails_when_what_it_read_has_changed)
{
    /* Keys found, keys not found and ranges are validated: serializability without locks. */
    run(conflicts, 1, NULL);
}

static void repeats(void *arg)
{
    CH_FIBER_ENTRY();
    uint64_t t1, t2, t3, read;
    OK(txn_read_timestamp(client, "db", soon(), &read));
    OK(put_id(77, "k", read, "k", "1", &t1));
    OK(put_id(77, "k", read, "k", "1", &t2));
    cr_assert_eq(t1, t2);
    OK(put("k", "2", &t3));
    OK(put_id(77, "k", read, "k", "1", &t2));
    cr_assert_eq(t1, t2);
    cr_assert_str_eq(get_at("k", 0), "2");
    /* After a change of leader too, both when the log and when only the pages of ids tell. */
    for (int wait_s = 0; wait_s <= 3; wait_s += 3) {
        size_t leader = world_leader(world, 0);
        for (unsigned shard = 0; shard < 4; shard++)
            leader = world_leader(world, shard) < SIZE_MAX ? world_leader(world, shard) : leader;
        ch_sleep_until(ch_sim_tester_env(world->sim),
                       ch_in(ch_sim_tester_env(world->sim), wait_s * CH_S));
        for (size_t i = 0; i < 2; i++)
            ch_sim_crash(world->servers[i].node);
        for (size_t i = 0; i < 2; i++)
            world_start(world, i);
        OK(put_id(77, "k", read, "k", "1", &t2));
        cr_assert_eq(t1, t2);
        cr_assert_str_eq(get_at("k", 0), "2");
    }
    end();
}

Test(txlayer, a_repeated_commit_has_its_first_outcome)
{
    /* A client that lost the answer asks again with the same id: it must not happen twice,
     * whoever leads by then. */
    run(repeats, 2, NULL);
}

static void scans(void *arg)
{
    CH_FIBER_ENTRY();
    uint64_t t, before;
    char key[8];
    for (int i = 0; i < 9; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        OK(put(key, key + 1, &t));
    }
    OK(txn_read_timestamp(client, "db", soon(), &before));
    OK(put("k3", NULL, &t));
    OK(put("k5", "five", &t));
    for (int round = 0; round < 2;
         round++) { /* from memory and table mixed, then after a restart from the table */
        cr_assert_str_eq(scan_at("", "", false, 0, 0),
                         "k0=0 k1=1 k2=2 k4=4 k5=five k6=6 k7=7 k8=8");
        cr_assert_str_eq(scan_at("k2", "k7", false, 2, 0), "k2=2 k4=4 k5=five k6=6");
        cr_assert_str_eq(scan_at("k2", "k7", true, 1, 0), "k6=6 k5=five k4=4 k2=2");
        cr_assert_str_eq(scan_at("", "", true, 3, before),
                         "k8=8 k7=7 k6=6 k5=5 k4=4 k3=3 k2=2 k1=1 k0=0");
        cr_assert_str_eq(scan_at("k30", "k4", false, 0, 0), "");
        ch_sleep_until(ch_sim_tester_env(world->sim),
                       ch_in(ch_sim_tester_env(world->sim), 3 * CH_S));
        ch_sim_crash(world->servers[0].node);
        world_start(world, 0);
    }
    end();
}

Test(txlayer, scans_merge_memory_and_table)
{
    /* A range shows the newest state whether rows are applied or not, in both directions, a page
     * at a time, and the past. */
    run(scans, 1, NULL);
}

static void long_keys(void *arg)
{
    CH_FIBER_ENTRY();
    struct base_arena arena;
    uint64_t t;
    base_arena_init(&arena);
    char *keys[6];
    size_t lens[6] = { 3990, 3996, 3997, 3998, 5000, TXN_KEY_MAX };
    for (int i = 0; i < 6; i++) {
        keys[i] = base_arena_calloc(&arena, lens[i] + 1, 1);
        memset(keys[i], 'x', lens[i]);
        OK(put(keys[i], "v", &t));
    }
    for (int round = 0; round < 2; round++) {
        struct txn_row *rows;
        size_t count;
        bool more;
        for (int i = 0; i < 6; i++)
            cr_assert_str_eq(get_at(keys[i], 0), "v");
        for (int down = 0; down < 2; down++) {
            struct txn_scan scan = { .start = base_bytes(keys[1], lens[1]),
                                     .end = base_bytes(keys[5], lens[5]),
                                     .descending = down,
                                     .limit = 100 };
            OK(txn_scan(client, "db", 0, &scan, soon(), &arena, &rows, &count, &more, NULL));
            cr_assert_eq(count, 4, "%zu rows", count);
            for (size_t i = 0; i < count; i++)
                cr_assert_eq(rows[i].key.len, lens[down ? 4 - i : 1 + i]);
        }
        ch_sleep_until(ch_sim_tester_env(world->sim),
                       ch_in(ch_sim_tester_env(world->sim), 3 * CH_S));
        ch_sim_crash(world->servers[0].node);
        world_start(world, 0);
    }
    base_arena_free(&arena);
    end();
}

Test(txlayer, keys_longer_than_a_bigtable_row_key)
{
    /* Row keys below end at 4 KiB, ours at 8: what is beyond lives in the column, in order all
     * the same. */
    run(long_keys, 1, NULL);
}

static void big_commit(void *arg)
{
    CH_FIBER_ENTRY();
    struct base_arena arena;
    base_arena_init(&arena);
    enum { ROWS = 6, BYTES = 1500000 };
    struct txn_write writes[ROWS];
    uint8_t *value = base_arena_calloc(&arena, BYTES, 1);
    uint64_t id[2] = { 3, 3 }, t;
    for (int i = 0; i < ROWS; i++)
        writes[i] = (struct txn_write){ .key = key_of(base_arena_printf(&arena, "big%d", i)),
                                        .value = base_bytes(value, BYTES) };
    struct txn_commit commit = { .writes = writes,
                                 .write_count = ROWS,
                                 .idempotency_id = base_bytes(id, 16) };
    OK(txn_commit(client, "db", &commit, soon(), &t));
    ch_sim_crash(world->servers[0].node); /* before it is applied */
    world_start(world, 0);
    struct txn_row *rows;
    size_t count, total = 0;
    bool more = true;
    struct txn_scan scan = { .start = base_bytes_str("big") };
    uint64_t at = 0;
    while (more) {
        OK(txn_scan(client, "db", at, &scan, soon(), &arena, &rows, &count, &more, &at));
        for (size_t i = 0; i < count; i++)
            cr_assert(rows[i].value.len == BYTES && rows[i].timestamp == t);
        total += count;
        if (count)
            scan.start =
                base_bytes_str(base_arena_printf(&arena, "%.*s0", BASE_FMT(rows[count - 1].key)));
    }
    cr_assert_eq(total, ROWS);
    base_arena_free(&arena);
    end();
}

Test(txlayer, a_commit_over_several_log_rows_is_one)
{
    /* Larger than a log row: its pieces count only together, also when they are all that a new
     * leader finds. */
    run(big_commit, 1, NULL);
}

static void invalid(void *arg)
{
    CH_FIBER_ENTRY();
    struct base_arena arena;
    base_arena_init(&arena);
    uint64_t id[2] = { 1, 1 }, t;
    char *huge = base_arena_calloc(&arena, TXN_VALUE_MAX + 2, 1);
    struct txn_write writes[2] = { { .key = key_of("a"), .value = base_bytes_str("1") },
                                   { .key = key_of("a"), .is_delete = true } };
    struct txn_commit commit = { .writes = writes,
                                 .write_count = 2,
                                 .idempotency_id = base_bytes(id, 16) };
    FAILS(BASE_INVALID_ARGUMENT, txn_commit(client, "db", &commit, soon(), &t));
    commit.write_count = 1;
    FAILS(BASE_INVALID_ARGUMENT, txn_commit(client, "d b", &commit, soon(), &t));
    FAILS(BASE_INVALID_ARGUMENT, txn_commit(client, "", &commit, soon(), &t));
    commit.idempotency_id.len = 15;
    FAILS(BASE_INVALID_ARGUMENT, txn_commit(client, "db", &commit, soon(), &t));
    commit.idempotency_id.len = 16;
    writes[0].value = base_bytes(huge, TXN_VALUE_MAX + 1);
    FAILS(BASE_INVALID_ARGUMENT, txn_commit(client, "db", &commit, soon(), &t));
    writes[0] = (struct txn_write){ .key = { .key = base_bytes(huge, TXN_KEY_MAX + 1) } };
    FAILS(BASE_INVALID_ARGUMENT, txn_commit(client, "db", &commit, soon(), &t));
    writes[0].key.key.len = 0;
    FAILS(BASE_INVALID_ARGUMENT, txn_commit(client, "db", &commit, soon(), &t));
    struct txn_key key = key_of("a");
    struct txn_value value;
    OK(txn_read_timestamp(client, "db", soon(), &t));
    FAILS(BASE_INVALID_ARGUMENT,
          txn_get(client, "db", t + 3600ULL * 1000000, &key, 1, soon(), &arena, &value, NULL));
    FAILS(BASE_INVALID_ARGUMENT, txn_get(client, "db", 5, &key, 1, soon(), &arena, &value, NULL));
    /* A little in the future is waited for, and holds. */
    OK(txn_get(client, "db", t + 5000000, &key, 1, soon(), &arena, &value, NULL));
    cr_assert(!value.found);
    uint64_t t2;
    OK(put("a", "1", &t2));
    cr_assert(t2 > t + 5000000);
    base_arena_free(&arena);
    end();
}

Test(txlayer, bad_requests_are_refused_with_the_culprits_name)
{
    /* Limits are checked before anything is held or done. */
    run(invalid, 1, NULL);
}

static void prune(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = ch_sim_tester_env(world->sim);
    uint64_t t[4], now;
    for (int i = 0; i < 4; i++)
        OK(put("hot", "v", &t[i]));
    OK(put("dead", "v", &now));
    OK(put("dead", NULL, &now));
    OK(put("cold", "v", &now));
    ch_sleep_until(env, ch_in(env, 2 * CH_S));
    cr_assert_eq(tablet_double_cells(world->tablet, "txdata", base_bytes("db\0hot", 6)), 4);
    /* Past the retention (100 s) and its slack; the clock of old versions is that of commits. */
    for (int i = 0; i < 30; i++) {
        ch_sleep_until(env, ch_in(env, 10 * CH_S));
        OK(put("clock", "v", &now));
    }
    cr_assert_eq(tablet_double_cells(world->tablet, "txdata", base_bytes("db\0hot", 6)), 1);
    cr_assert_eq(tablet_double_cells(world->tablet, "txdata", base_bytes("db\0cold", 7)), 1);
    cr_assert_eq(tablet_double_cells(world->tablet, "txdata", base_bytes("db\0dead", 7)), 0);
    ch_sim_crash(world->servers[0].node);
    world_start(world, 0);
    cr_assert_str_eq(get_at("hot", 0), "v");
    cr_assert_str_eq(get_at("cold", now - 90000000), "v");
    cr_assert_str_eq(get_at("dead", 0), "-");
    end();
}

Test(txlayer, old_versions_go_and_the_newest_stays)
{
    /* What no read within the retention can need is removed; a row not written for long keeps
     * its only version. */
    static const char *const extra[] = { "--retention", "100s", "--sweep-every", "5s", NULL };
    run(prune, 1, extra);
}

static void drop_log(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = ch_sim_tester_env(world->sim);
    uint64_t t;
    for (int i = 0; i < 1500; i++)
        OK(put("k", "v", &t));
    ch_sleep_until(env, ch_in(env, 3 * CH_S));
    cr_assert(tablet_double_rows(world->tablet, "txlog") < 700, "%zu",
              tablet_double_rows(world->tablet, "txlog"));
    ch_sleep_until(env, ch_in(env, 400 * CH_S)); /* ids too */
    cr_assert(tablet_double_rows(world->tablet, "txlog") < 600, "%zu",
              tablet_double_rows(world->tablet, "txlog"));
    ch_sim_crash(world->servers[0].node);
    world_start(world, 0);
    cr_assert_str_eq(get_at("k", 0), "v");
    end();
}

Test(txlayer, the_log_does_not_grow_for_ever)
{
    /* Applied positions are dropped, ids forgotten after their time; a new leader finds its way
     * all the same. */
    run(drop_log, 1, NULL);
}

/* One commit of `count` values of `len` bytes each, under keys big00, big01, ... from `first`
 * on. */
static struct base_status put_big(size_t first, size_t count, size_t len) CH_WAITS;
static struct base_status put_big(size_t first, size_t count, size_t len)
{
    struct base_arena arena;
    uint64_t id[2] = { 9, ++next_id }, t;
    base_arena_init(&arena);
    struct txn_write *writes = BASE_NEW_ARRAY(&arena, struct txn_write, count);
    uint8_t *value = base_arena_calloc(&arena, len, 1);
    for (size_t i = 0; i < count; i++) {
        char *key = base_arena_printf(&arena, "big%02zu", first + i);
        writes[i] = (struct txn_write){ .key = key_of(key), .value = base_bytes(value, len) };
    }
    struct txn_commit commit = { .writes = writes,
                                 .write_count = count,
                                 .idempotency_id = base_bytes(id, 16) };
    struct base_status status = txn_commit(client, "db", &commit, soon(), &t);
    base_arena_free(&arena);
    return status;
}

static void large_commits(void *arg)
{
    CH_FIBER_ENTRY();
    OK(put_big(0, 6, TXN_VALUE_MAX - 100)); /* 600 bytes below TXN_COMMIT_MAX, frames and all */
    OK(put_big(10, 40, 256 << 10));
    struct base_status status = put_big(0, 6, TXN_VALUE_MAX);
    cr_assert_eq(status.code, BASE_INVALID_ARGUMENT, "%s", base_status_text(&status));
    cr_assert(strstr(base_status_text(&status), "the limit is"), "%s", base_status_text(&status));
    base_status_free(&status);
    end();
}

Test(txlayer, commits_up_to_the_limit_pass)
{
    /* TXN_COMMIT_MAX is what users are promised: no message limit on the way is lower, and what is
     * above is refused in words that name the limit. */
    run(large_commits, 1, NULL);
}

/* Reads `count` of the big keys; returns how many txn_get_some read in one trip. */
static size_t some_of(size_t count, size_t bytes_max, size_t len) CH_WAITS;
static size_t some_of(size_t count, size_t bytes_max, size_t len)
{
    struct base_arena arena;
    size_t read = 0;
    uint64_t at;
    base_arena_init(&arena);
    struct txn_key *keys = BASE_NEW_ARRAY(&arena, struct txn_key, count);
    struct txn_value *values = BASE_NEW_ARRAY(&arena, struct txn_value, count);
    for (size_t i = 0; i < count; i++)
        keys[i] = key_of(base_arena_printf(&arena, "big%02zu", i));
    OK(txn_get_some(client, "db", 0, keys, count, bytes_max, soon(), &arena, values, &at));
    for (size_t i = 0; i < count; i++) {
        cr_assert(values[i].unread || (values[i].found && values[i].value.len == len));
        read += !values[i].unread;
    }
    base_arena_free(&arena);
    return read;
}

static struct base_status all_of(size_t count, size_t len) CH_WAITS;
static struct base_status all_of(size_t count, size_t len)
{
    struct base_arena arena;
    uint64_t at;
    base_arena_init(&arena);
    struct txn_key *keys = BASE_NEW_ARRAY(&arena, struct txn_key, count);
    struct txn_value *values = BASE_NEW_ARRAY(&arena, struct txn_value, count);
    for (size_t i = 0; i < count; i++)
        keys[i] = key_of(base_arena_printf(&arena, "big%02zu", count - 1 - i));
    struct base_status status = txn_get(client, "db", 0, keys, count, soon(), &arena, values, &at);
    for (size_t i = 0; i < count && !base_failed(status); i++)
        cr_assert(!values[i].unread && values[i].found && values[i].value.len == len, "%zu", i);
    base_arena_free(&arena);
    return status;
}

static void large_gets(void *arg)
{
    CH_FIBER_ENTRY();
    enum { LEN = 1 << 20, COUNT = 70 };
    struct ch_env *env = ch_sim_tester_env(world->sim);
    for (size_t i = 0; i < COUNT; i += 10)
        OK(put_big(i, 10, LEN));
    for (int cold = 0; cold < 2; cold++) {
        size_t some = some_of(COUNT, 3 * LEN, LEN);
        cr_assert(some >= 2 && some <= 4, "%zu", some);
        cr_assert_eq(some_of(COUNT, 1, LEN), 1, "at least one");
        OK(all_of(60, LEN));
        ch_time begun = ch_now(env);
        struct base_status status = all_of(COUNT, LEN);
        cr_assert_eq(status.code, BASE_RESOURCE_EXHAUSTED, "%d %s", cold,
                     base_status_text(&status));
        cr_assert(ch_now(env) - begun < 10 * CH_S, "%d: said after %lld ms", cold,
                  (long long)((ch_now(env) - begun) / CH_MS));
        base_status_free(&status);
        ch_sleep_until(env, ch_in(env, 5 * CH_S)); /* applied; a new leader knows nothing of it */
        ch_sim_crash(world->servers[0].node);
        world_start(world, 0);
    }
    end();
}

Test(txlayer, gets_of_much_come_in_parts)
{
    /* However large the values, a get ends: in parts up to TXN_GET_MAX, from memory and from the
     * table alike, and beyond it with an error at once. One trip never brings much more than was
     * asked for: that is what keeps a Lookup of a thousand large entities from filling a server. */
    run(large_gets, 1, NULL);
}
