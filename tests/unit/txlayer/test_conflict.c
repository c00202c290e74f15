/* test_conflict.c: the conflict index against an array of everything that was ever written. */
#include "conflict.h"
#include "model.h"
#include "test.h"

enum { KEYS = 200, STEPS = 4000 };

struct model {
    uint64_t last[KEYS];
};

/* Keys of model_key may be equal for different i: the model goes by the bytes. */
static uint64_t model_range(const struct model *model, struct base_bytes start,
                            struct base_bytes end, bool one)
{
    uint64_t max = 0;
    for (size_t i = 0; i < KEYS; i++) {
        struct base_bytes key = model_key(i);
        bool in =
            one ? base_bytes_eq(key, start)
                : base_bytes_cmp(key, start) >= 0 && (!end.len || base_bytes_cmp(key, end) < 0);
        if (in && model->last[i] > max)
            max = model->last[i];
    }
    return max;
}

static void run(uint64_t seed, size_t keys_max)
{
    struct dice dice = { seed };
    struct model model = { { 0 } };
    struct txn__conflict *conflict = txn__conflict_new(keys_max, SIZE_MAX, 0, seed);
    uint64_t now = 0;
    for (int step = 0; step < STEPS; step++) {
        size_t i = roll(&dice, KEYS), j = roll(&dice, KEYS);
        if (roll(&dice, 3) == 0) {
            now += roll(&dice, 2);
            txn__conflict_add(conflict, model_key(i), now);
            model.last[i] = now;
        }
        if (roll(&dice, 200) == 0)
            txn__conflict_trim(conflict, now - now / 4);
        uint64_t floor = txn__conflict_floor(conflict), got, want;
        got = txn__conflict_key(conflict, model_key(i));
        want = model_range(&model, model_key(i), model_key(i), true);
        cr_assert(got == want || (got <= floor && want <= floor),
                  "seed %llu step %d: key %llu, model %llu, floor %llu", (unsigned long long)seed,
                  step, (unsigned long long)got, (unsigned long long)want,
                  (unsigned long long)floor);
        struct base_bytes end = roll(&dice, 8) ? model_key(j) : BASE_BYTES_EMPTY;
        got = txn__conflict_range(conflict, model_key(i), end);
        want = model_range(&model, model_key(i), end, false);
        cr_assert(got == want || (got <= floor && want <= floor),
                  "seed %llu step %d: range %llu, model %llu, floor %llu", (unsigned long long)seed,
                  step, (unsigned long long)got, (unsigned long long)want,
                  (unsigned long long)floor);
        cr_assert(txn__conflict_count(conflict) <= keys_max);
    }
    txn__conflict_free(conflict);
}

Test(conflict, answers_as_a_list_of_all_writes_would)
{
    /* Above the floor, the newest write of a key and of any range is what a naive model says: no
     * conflict is missed and none is made up. Below the floor both must be below. */
    for (uint64_t seed = 1; seed <= 20; seed++)
        run(seed, SIZE_MAX);
}

Test(conflict, forgets_the_oldest_and_says_so)
{
    /* Bounded memory: what is forgotten raises the floor, so that it is refused and not
     * overlooked. */
    for (uint64_t seed = 1; seed <= 20; seed++)
        run(seed, 20);
}

Test(conflict, its_size_is_bounded_by_bytes)
{
    /* Long keys count for what they are. */
    struct txn__conflict *conflict = txn__conflict_new(SIZE_MAX, 100000, 5, 1);
    uint8_t key[5000] = { 0 };
    for (int i = 0; i < 1000; i++) {
        key[4999] = (uint8_t)i;
        key[4998] = (uint8_t)(i >> 8);
        txn__conflict_add(conflict, base_bytes(key, sizeof(key)), 10 + (uint64_t)i);
        cr_assert(txn__conflict_bytes(conflict) <= 100000);
    }
    cr_assert(txn__conflict_floor(conflict) >= 10 + 950);
    cr_assert_eq(txn__conflict_key(conflict, base_bytes(key, sizeof(key))), 1009);
    txn__conflict_free(conflict);
}
