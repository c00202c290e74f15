/* test_rows.c: memory and table together, gets and merged scans, against a store that keeps
 * every version. */
#include "merge.h"
#include "model.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>

enum { KEYS = 40, STEPS = 3000, VERSIONS = STEPS };

/* Everything ever committed; `applied` of them are in the table. */
struct model {
    struct write {
        struct base_bytes key;
        uint64_t ts;
        bool gone;
        struct txn__version *version;
    } writes[VERSIONS];
    size_t count, applied;
};

static struct base_bytes value_of(uint64_t ts)
{
    static char text[VERSIONS + 1][8];
    size_t len = (size_t)snprintf(text[ts], 8, "v%llu", (unsigned long long)ts);
    return base_bytes(text[ts], len);
}

static struct base_bytes key_at(size_t i)
{
    return model_key(1 + i);
}

/* What a key is at a timestamp, by the first n writes. */
static struct txn__seen look(const struct model *model, size_t n, struct base_bytes key,
                             uint64_t ts)
{
    struct txn__seen seen = { 0 };
    for (size_t i = 0; i < n; i++)
        if (model->writes[i].ts <= ts && base_bytes_eq(model->writes[i].key, key))
            seen = (struct txn__seen){ !model->writes[i].gone, model->writes[i].ts,
                                       model->writes[i].gone ? BASE_BYTES_EMPTY
                                                             : value_of(model->writes[i].ts) };
    return seen;
}

static int order_rows(const void *a, const void *b)
{
    return base_bytes_cmp(((const struct txn__table_row *)a)->key,
                          ((const struct txn__table_row *)b)->key);
}

/* The distinct keys of a range that exist (or are deleted) by the first n writes, in the scan's
 * order. */
static size_t table_page(const struct model *model, size_t n, bool down, struct base_bytes from,
                         struct base_bytes to, uint64_t ts, struct txn__table_row *rows)
{
    size_t count = 0;
    for (size_t k = 0; k < KEYS; k++) {
        struct base_bytes key = key_at(k);
        struct txn__seen seen = look(model, n, key, ts);
        bool in = down ? base_bytes_cmp(key, from) < 0 && base_bytes_cmp(key, to) >= 0
                       : base_bytes_cmp(key, from) >= 0 && base_bytes_cmp(key, to) < 0;
        bool twice = false;
        for (size_t i = 0; i < count; i++)
            twice |= base_bytes_eq(rows[i].key, key);
        if (in && seen.timestamp && !twice)
            rows[count++] = (struct txn__table_row){ key, seen };
    }
    qsort(rows, count, sizeof(*rows), order_rows);
    for (size_t i = 0; down && i < count / 2; i++) {
        struct txn__table_row row = rows[i];
        rows[i] = rows[count - 1 - i];
        rows[count - 1 - i] = row;
    }
    return count;
}

static void check_scan(struct txn__rows *rows, const struct model *model, size_t table_at,
                       struct dice *dice, uint64_t ts)
{
    struct txn__table_row table[KEYS], want[KEYS];
    struct base_arena arena;
    bool down = roll(dice, 2);
    struct base_bytes from = key_at(roll(dice, KEYS)), to = key_at(roll(dice, KEYS));
    base_arena_init(&arena);
    struct txn__page page = { .arena = &arena,
                              .row_max = 1 + roll(dice, KEYS),
                              .byte_max = SIZE_MAX };
    size_t count = table_page(model, table_at, down, from, to, ts, table);
    txn__merge(rows, down, from, to, ts, table, count, &page);
    size_t wanted = table_page(model, model->count, down, from, to, ts, want), n = 0;
    for (size_t i = 0; i < wanted && n < page.row_max; i++)
        if (want[i].seen.found) {
            cr_assert(n < page.count && base_bytes_eq(page.rows[n].key, want[i].key));
            cr_assert(page.rows[n].timestamp == want[i].seen.timestamp &&
                      base_bytes_eq(page.rows[n].value, want[i].seen.value));
            n++;
        }
    cr_assert_eq(n, page.count);
    base_arena_free(&arena);
}

static void check_get(struct txn__rows *rows, const struct model *model, struct dice *dice,
                      uint64_t ts, size_t *hits)
{
    struct base_bytes key = key_at(roll(dice, KEYS));
    struct txn__seen want = look(model, model->count, key, ts), seen;
    bool hit = txn__rows_get(rows, key, ts, &seen);
    if (!hit)
        seen = look(model, model->applied, key, ts); /* the table's answer */
    cr_assert(seen.found == want.found && seen.timestamp == want.timestamp,
              "ts %llu: %llu, model %llu, hit %d", (unsigned long long)ts,
              (unsigned long long)seen.timestamp, (unsigned long long)want.timestamp, hit);
    cr_assert(!seen.found || base_bytes_eq(seen.value, want.value));
    *hits += hit;
    if (!hit)
        txn__rows_fill(rows, key, ts, &seen);
}

static void run(uint64_t seed, size_t bytes_max)
{
    struct dice dice = { seed };
    struct model *model = calloc(1, sizeof(*model));
    struct txn__rows *rows = txn__rows_new(bytes_max, 0);
    struct txn__pin pin;
    size_t pinned_at = 0, hits = 0;
    bool pinned = false;
    uint64_t pin_ts = 0;
    for (int step = 0; step < STEPS; step++) {
        if (roll(&dice, 3) == 0) {
            struct write *write = &model->writes[model->count];
            *write = (struct write){ key_at(roll(&dice, KEYS)), model->count + 1,
                                     roll(&dice, 4) == 0, NULL };
            write->version = txn__rows_put(rows, write->key, write->ts, write->gone,
                                           write->gone ? BASE_BYTES_EMPTY : value_of(write->ts));
            model->count++;
        }
        if (roll(&dice, 4) == 0) {
            size_t upto = model->applied + roll(&dice, model->count - model->applied + 1);
            for (; model->applied < upto; model->applied++)
                txn__rows_applied(rows, model->writes[model->applied].version);
            txn__rows_applied_all(rows);
        }
        /* A scan: it reads the table at the pin, and merges later. */
        if (!pinned && roll(&dice, 8) == 0) {
            txn__rows_pin(rows, &pin);
            pinned = true;
            pinned_at = model->applied;
            pin_ts = roll(&dice, 4) ? model->count : roll(&dice, model->count + 1);
        } else if (pinned && roll(&dice, 8) == 0) {
            check_scan(rows, model, pinned_at, &dice, pin_ts);
            txn__rows_unpin(rows, &pin);
            pinned = false;
        }
        check_get(rows, model, &dice, roll(&dice, 4) ? model->count : roll(&dice, model->count + 1),
                  &hits);
        txn__rows_check(rows);
    }
    cr_assert(hits > STEPS / 50);
    if (pinned)
        txn__rows_unpin(rows, &pin);
    txn__rows_free(rows);
    free(model);
}

Test(rows, memory_and_table_are_one_store)
{
    /* Whatever is applied, evicted, filled in or pinned: a get at any timestamp, and a scan
     * whose table page was read earlier, give what a store of all versions gives. */
    for (uint64_t seed = 1; seed <= 30; seed++) {
        run(seed, SIZE_MAX);
        run(seed, 3000);
        run(seed, 0);
    }
}

Test(rows, memory_is_bounded)
{
    /* Applied rows leave when the limit is passed; what is not applied stays. */
    struct txn__rows *rows = txn__rows_new(10000, 0);
    uint8_t value[100] = { 0 };
    for (uint64_t ts = 1; ts <= 2000; ts++) {
        uint8_t key[2] = { (uint8_t)ts, (uint8_t)(ts >> 8) };
        struct txn__version *version =
            txn__rows_put(rows, base_bytes(key, 2), ts, false, base_bytes(value, 100));
        if (ts > 10) {
            txn__rows_applied(rows, version);
            txn__rows_applied_all(rows);
            cr_assert(txn__rows_bytes(rows) <= 10000 + 400);
        }
    }
    struct txn__seen seen;
    cr_assert(txn__rows_get(rows, base_bytes("\1\0", 2), 2000, &seen));
    cr_assert(!txn__rows_get(rows, base_bytes("\x20\0", 2), 2000, &seen));
    cr_assert(txn__rows_unapplied(rows) > 0);
    txn__rows_free(rows);
}
