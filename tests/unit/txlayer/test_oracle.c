/* test_oracle.c: timestamps, and what is old, against clocks that lie. */
#include "ages.h"
#include "model.h"
#include "oracle.h"
#include "test.h"

Test(oracle, timestamps_grow_whatever_the_clocks_say)
{
    /* Over many leaders with wall clocks that jump by hours: no commit at or below anything
     * given or promised before, by this leader or one before it, as long as the log's greatest
     * limit is handed on. */
    struct dice dice = { 3 };
    uint64_t top = 0, logged = 0;
    int64_t wall = 1000000000, mono = 0;
    for (int term = 0; term < 200; term++) {
        struct txn__oracle oracle;
        wall += (int64_t)roll(&dice, 7200000000ULL) - 3600000000LL;
        txn__oracle_init(&oracle, logged, wall, mono);
        for (int step = 0; step < 100; step++) {
            int64_t passed = (int64_t)roll(&dice, 100000000);
            mono += passed;
            wall += passed / 1000 +
                    (roll(&dice, 20) ? 0 : (int64_t)roll(&dice, 7200000000ULL) - 3600000000LL);
            uint64_t now = txn__oracle_now(&oracle, wall, mono);
            if (roll(&dice, 2)) {
                uint64_t ts = txn__oracle_commit(&oracle, now),
                         limit = txn__oracle_entry_limit(&oracle, now);
                cr_assert(ts > top && limit >= ts);
                top = ts;
                if (roll(&dice, 4)) { /* else the leader dies before it is decided, or is slow */
                    logged = limit > logged ? limit : logged;
                    txn__oracle_decided(&oracle, limit);
                } else {
                    break;
                }
            } else {
                uint64_t ask = oracle.last + roll(&dice, 5000000);
                if (txn__oracle_promise(&oracle, ask)) {
                    cr_assert(ask <= logged);
                    top = ask > top ? ask : top;
                } else {
                    cr_assert(ask > oracle.limit);
                }
            }
        }
        /* What was given to a commit that never got into the log binds nobody. */
        top = top < logged ? top : logged;
    }
}

Test(oracle, it_stays_near_the_wall_and_does_not_jump)
{
    /* A jump of the wall clock by an hour moves it by one percent of the time that passes, not
     * at once. */
    struct txn__oracle oracle;
    txn__oracle_init(&oracle, 0, 5000000, 0);
    cr_assert_eq(txn__oracle_now(&oracle, 6000000, 1000000000), 6000000);
    uint64_t now = txn__oracle_now(&oracle, 7000000 + 3600000000LL, 2000000000);
    cr_assert(now >= 7000000 && now <= 7010000);
    now = txn__oracle_now(&oracle, 7000000, 3000000000);
    cr_assert(now >= 7980000 && now <= 8010000);
    for (int i = 4; i < 1000; i++)
        now = txn__oracle_now(&oracle, 1000000LL * i + 3000000, 1000000000LL * i);
    cr_assert(now == 1000000LL * 999 + 3000000);
}

Test(oracle, ages_count_by_the_monotonic_clock)
{
    /* Only what is surely old is called old: nothing from before the term's first minutes,
     * nothing because timestamps jumped. */
    struct txn__ages ages = { 0 };
    uint64_t ts = 1000;
    for (int64_t s = 0; s < 2000; s++) {
        ts += s == 500 ? 3600000000ULL : 1;
        txn__ages_note(&ages, s * 1000000000, ts);
        uint64_t old = txn__ages_older(&ages, s * 1000000000, 300);
        if (s < 300)
            cr_assert_eq(old, 0);
        else if (s < 800)
            cr_assert(old >= 1000 + (uint64_t)s - 310 && old <= 1001 + (uint64_t)s - 300);
        else
            cr_assert(old > 3600000000ULL && old <= ts - 299);
    }
}
