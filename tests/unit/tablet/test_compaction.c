/* Which files are merged is decided by their sizes alone, and keeps both the number of files and
 * the rewriting small. */
#include "compaction.h"
#include "test.h"

static struct tab_pick pick(const uint64_t *megabytes, size_t count, bool major, size_t *picked)
{
    struct tab_pick_file files[64];
    for (size_t i = 0; i < count; i++)
        files[i] = (struct tab_pick_file){ megabytes[i] << 20, 1000, 0 };
    return tab_compaction_pick(files, count, major, picked);
}

/* Nothing is rewritten without need; four alike are merged; a large one is left alone by small
 * ones; all only when wanted. */
Test(compaction, picks)
{
    static const struct {
        uint64_t sizes[16];
        size_t count, merged;
        bool want_major, major;
    } cases[] = {
        { { 0 }, 0, 0, false, false },
        { { 10, 10, 10 }, 3, 0, false, false },
        { { 10, 10, 10, 10 }, 4, 4, false, true },
        { { 1000, 10, 11, 12, 9 }, 5, 4, false, false },
        { { 1, 4, 16, 64, 256, 1024 }, 6, 0, false, false },
        { { 100, 1, 1, 1, 1, 1, 100, 100, 100 }, 9, 5, false, false },
        { { 1000, 10 }, 2, 2, true, true },
        { { 1, 3, 9, 27, 81, 243, 729, 2187, 6561, 19683, 59049, 177147, 531441, 1594323 },
          14,
          3,
          false,
          false },
    };
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        size_t picked[64];
        struct tab_pick got = pick(cases[c].sizes, cases[c].count, cases[c].want_major, picked);
        cr_assert_eq(got.count, cases[c].merged, "case %zu: %zu files, not %zu", c, got.count,
                     cases[c].merged);
        cr_assert_eq(got.major, cases[c].major, "case %zu", c);
        for (size_t i = 1; i < got.count; i++)
            cr_assert(picked[i - 1] < picked[i], "case %zu: not ascending", c);
    }
}

/* A tablet full of deletions is cleaned though its sizes ask for nothing. */
Test(compaction, deletions_ask_for_a_major_one)
{
    struct tab_pick_file files[2] = { { 1 << 20, 100, 40 }, { 100 << 20, 10, 0 } };
    size_t picked[2];
    struct tab_pick got = tab_compaction_pick(files, 2, false, picked);
    cr_assert_eq(got.count, 2);
    cr_assert(got.major);
}

/* A thousand flushes of one size leave few files, and write each byte about log(n) times. */
Test(compaction, stays_small_over_many_flushes)
{
    struct tab_pick_file files[64];
    size_t count = 0, most = 0;
    uint64_t rewritten = 0;
    for (int flush = 0; flush < 1000; flush++) {
        files[count++] = (struct tab_pick_file){ 8 << 20, 1000, 0 };
        for (;;) {
            size_t picked[64];
            struct tab_pick got = tab_compaction_pick(files, count, false, picked);
            if (got.count == 0)
                break;
            uint64_t sum = 0;
            for (size_t i = got.count; i-- > 0;) {
                sum += files[picked[i]].bytes;
                files[picked[i]] = files[--count];
            }
            files[count++] = (struct tab_pick_file){ sum, 1000, 0 };
            rewritten += sum;
        }
        most = count > most ? count : most;
    }
    cr_assert(most <= 16, "%zu files at once", most);
    cr_assert(rewritten < 10ULL * 1000 * (8 << 20), "each byte was written %llu times",
              (unsigned long long)(rewritten / 1000 / (8 << 20)));
}
