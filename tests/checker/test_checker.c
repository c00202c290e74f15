/* test_checker.c: the checker must accept what a serial store does and refuse every way of
 * breaking it. A checker that is never seen to fail checks nothing. */
#include "checker.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>

/* Loads a history given as lines with ' for ". */
static struct check_result verdict(const char *lines, bool final_reads, bool timestamps)
{
    struct check_history *history = check_new();
    struct check_options options = { final_reads, timestamps };
    struct check_result result;
    char *text = strdup(lines);
    for (char *c = text; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    struct base_status status = check_load(history, base_bytes_str(text));
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    check_run(history, &options, &result);
    check_free(history);
    free(text);
    return result;
}

#define P "{'process':"
#define INV(p, t) P #p ",'type':'invoke','t_ns':" #t ",'txn':[]}\n"
#define OK_(p, t, ops) P #p ",'type':'ok','t_ns':" #t ",'txn':[" ops "]}\n"
#define END(p, t, type, ops) P #p ",'type':'" type "','t_ns':" #t ",'txn':[" ops "]}\n"
#define OKTS(p, t, ts, ops) P #p ",'type':'ok','commit_ts':" #ts ",'t_ns':" #t ",'txn':[" ops "]}\n"

static void must_find(const char *lines, enum check_anomaly anomaly)
{
    struct check_result result = verdict(lines, true, true);
    cr_assert(result.counts[anomaly] > 0, "%s is not found in\n%s", check_anomaly_name(anomaly),
              lines);
    cr_assert(!result.valid);
}

Test(checker, each_anomaly_in_its_smallest_form)
{
    /* The textbook form of each must be found under its name. */
    must_find(INV(0, 1) OK_(0, 2, "['r','x',[9]]"), CHECK_GARBAGE);
    must_find(INV(0, 1) OK_(0, 2, "['append','x',1]") INV(0, 3) OK_(0, 4, "['r','x',[1,1]]"),
              CHECK_DUPLICATE);
    must_find(INV(0, 1) END(0, 2, "fail", "['append','x',1]") INV(0, 3) OK_(0, 4, "['r','x',[1]]"),
              CHECK_G1A);
    must_find(INV(0, 1) OK_(0, 2, "['append','x',1],['append','x',2]") INV(0, 3)
                  OK_(0, 4, "['r','x',[1]]"),
              CHECK_G1B);
    must_find(INV(0, 1) OK_(0, 2, "['append','x',1],['r','x',[]]"), CHECK_INTERNAL);
    must_find(INV(0, 1) OK_(0, 2, "['append','x',1]") INV(0, 3)
                  OK_(0, 4, "['r','x',[]],['r','x',[1]]"),
              CHECK_INTERNAL);
    must_find(INV(0, 1) OK_(0, 2, "['r','x',[1]]") INV(0, 3) OK_(0, 4, "['append','x',1]"),
              CHECK_FUTURE);
    must_find(INV(0, 1) INV(1, 1) OK_(0, 9, "['append','x',1]") OK_(1, 9, "['append','x',2]")
                  INV(0, 10) INV(1, 10) OK_(0, 11, "['r','x',[1,2]]") OK_(1, 11, "['r','x',[2,1]]"),
              CHECK_INCOMPATIBLE);
    must_find(INV(0, 1) END(0, 2, "fail", "['append','x',1]") INV(0, 3)
                  OK_(0, 4, "['append','x',2]") INV(0, 5) OK_(0, 6, "['r','x',[1,2]]"),
              CHECK_DIRTY);
    must_find(INV(0, 1) OK_(0, 2, "['append','x',1]") INV(0, 3) OK_(0, 4, "['r','x',[]]"),
              CHECK_LOST);
    must_find(INV(0, 1) INV(1, 1) OK_(0, 2, "['append','x',1],['append','y',1]")
                  OK_(1, 2, "['append','x',2],['append','y',2]") INV(0, 3)
                      OK_(0, 4, "['r','x',[1,2]],['r','y',[2,1]]"),
              CHECK_G0);
    must_find(INV(0, 1) INV(1, 1) OK_(0, 2, "['append','x',1],['r','y',[1]]")
                  OK_(1, 2, "['append','y',1],['r','x',[1]]"),
              CHECK_G1C);
    /* Read skew: x before T1, y after. */
    must_find(INV(0, 1) INV(1, 1) OK_(0, 2, "['append','x',1],['append','y',1]")
                  OK_(1, 2, "['r','x',[]],['r','y',[1]]") INV(0, 3)
                      OK_(0, 4, "['r','x',[1]],['r','y',[1]]"),
              CHECK_GSINGLE);
    /* Write skew. */
    must_find(INV(0, 1) INV(1, 1) OK_(0, 2, "['r','x',[]],['append','y',1]")
                  OK_(1, 2, "['r','y',[]],['append','x',1]") INV(0, 3)
                      OK_(0, 4, "['r','x',[1]],['r','y',[1]]"),
              CHECK_G2);
    /* A stale read: serializable, not strictly. */
    must_find(INV(0, 1) OK_(0, 2, "['append','x',1]") INV(1, 3) OK_(1, 4, "['r','x',[]]") INV(1, 5)
                  OK_(1, 6, "['r','x',[1]]"),
              CHECK_GSINGLE_RT);
    must_find(INV(0, 1) OK_(0, 2, "['append','x',1]") INV(1, 3) OK_(1, 4, "['append','x',2]")
                  INV(1, 5) OK_(1, 6, "['r','x',[2,1]]"),
              CHECK_G0_RT);
    must_find(INV(0, 1) OKTS(0, 2, 10, "['append','x',1]") INV(1, 3)
                  OKTS(1, 4, 10, "['append','y',2]") INV(1, 5)
                      OKTS(1, 6, 11, "['r','x',[1]],['r','y',[2]]"),
              CHECK_TS_ORDER);
    must_find(INV(0, 1) INV(1, 1) OKTS(0, 9, 10, "['append','x',1]") OKTS(1, 9, 8, "['r','x',[1]]"),
              CHECK_TS_REPLAY);
}

Test(checker, what_is_allowed)
{
    /* Unknown outcomes may have happened or not, also late; concurrent transactions may be in
     * either order. */
    static const char *const good[] = {
        INV(0, 1) END(0, 2, "info", "['append','x',1]") INV(1, 3) OK_(1, 4, "['r','x',[]]")
            INV(1, 5) OK_(1, 6, "['r','x',[1]]"),
        INV(0, 1) END(0, 2, "info", "['append','x',1]") INV(1, 3) OK_(1, 4, "['r','x',[]]"),
        INV(0, 1) END(0, 2, "fail", "['append','x',1]") INV(1, 3) OK_(1, 4, "['r','x',[]]"),
        INV(0, 1) INV(1, 1) OK_(0, 9, "['append','x',1]")
            OK_(1, 9, "['r','x',[]],['append','x',2],['r','x',[2]]") INV(0, 10)
                OK_(0, 11, "['r','x',[2,1]]"),
        INV(0, 1) OKTS(0, 2, 10, "['append','x',1],['append','x',2]") INV(1, 3)
            OKTS(1, 4, 10, "['r','x',[1,2]]"),
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct check_result result = verdict(good[i], true, true);
        struct base_buf text = { 0 };
        check_report(&result, &text);
        cr_assert(result.valid, "%zu: %.*s", i, (int)text.len, (char *)text.data);
        base_buf_free(&text);
    }
}

/* ---- a valid random history, then broken on purpose ---- */

enum { KEYS = 4, TXNS = 300, LIST_MAX = 400 };

struct model {
    int64_t lists[KEYS][LIST_MAX];
    size_t lens[KEYS];
};

/* What is done to the store's answers. */
enum mutation {
    NOTHING,
    DROP_APPEND,
    SWAP,
    DUPLICATE,
    STALE_READ,
    SKEWED_READ,
    PHANTOM,
    LATE_TS,
    MUTATIONS
};

static uint64_t state;
static uint64_t roll(uint64_t bound)
{
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (state >> 33) % bound;
}

static const char *const key_names[KEYS] = { "a", "b", "c", "d" };

/* A serial store whose transactions overlap in time; at transaction `victim` it does wrong. */
static struct check_result run_model(uint64_t seed, enum mutation mutation)
{
    static struct model model, before;
    struct check_history *history = check_new();
    int64_t element = 0;
    size_t victim = 100 + seed % 100;
    bool done = mutation == NOTHING;
    memset(&model, 0, sizeof(model));
    state = seed;
    for (size_t t = 0; t < TXNS; t++) {
        /* Its point in time is t * 10 + 5; it lasts from a little before to a little after. */
        size_t txn =
            check_begin(history, (int)(t % 7), (int64_t)(t * 10 + 5 - roll(t < 20 ? 3 : 30)));
        bool last = t == TXNS - 1;
        struct model *seen = &model;
        if (t >= victim && !done && mutation == STALE_READ)
            seen = &before;
        size_t k = last ? 0 : roll(KEYS), keys = last ? KEYS : 1 + roll(2);
        for (size_t i = 0; i < keys; i++, k = (k + 1) % KEYS) {
            int64_t list[LIST_MAX];
            size_t len = seen->lens[k];
            memcpy(list, seen->lists[k], sizeof(list));
            done |= seen == &before && len < model.lens[k];
            if (t >= victim && !done && len > 2) {
                if (mutation == SWAP) {
                    int64_t x = list[0];
                    list[0] = list[1];
                    list[1] = x;
                    done = true;
                } else if (mutation == DUPLICATE) {
                    list[len] = list[0];
                    len++;
                    done = true;
                } else if (mutation == PHANTOM) {
                    list[len++] = 999999;
                    done = true;
                } else if (mutation == SKEWED_READ && i == 1 && before.lens[k] < model.lens[k]) {
                    len = before.lens[k];
                    done = true;
                }
            }
            check_read(history, txn, key_names[k], list, len);
            if (!last && roll(2)) {
                check_append(history, txn, key_names[k], ++element);
                if (mutation == DROP_APPEND && t >= victim && !done)
                    done = true; /* acknowledged, never there */
                else
                    model.lists[k][model.lens[k]++] = element;
            }
        }
        uint64_t ts = t * 10 + 5;
        if (mutation == LATE_TS && t >= victim && !done) {
            ts -= 700;
            done = true;
        }
        check_end(history, txn, CHECK_OK, (int64_t)(t * 10 + 6 + roll(30)), ts);
        if (t + 12 < victim || (mutation == SKEWED_READ && t + 2 < victim))
            before = model;
    }
    struct check_options options = { true, true };
    struct check_result result;
    check_run(history, &options, &result);
    check_free(history);
    cr_assert(done, "seed %llu: mutation %d had no chance", (unsigned long long)seed, mutation);
    return result;
}

Test(checker, valid_histories_pass_and_broken_ones_do_not)
{
    /* The same random histories, once as they are and once with one answer changed: nothing else
     * may tip the verdict. */
    for (uint64_t seed = 1; seed <= 60; seed++)
        for (int mutation = NOTHING; mutation < MUTATIONS; mutation++) {
            struct check_result result = run_model(seed, mutation);
            struct base_buf text = { 0 };
            check_report(&result, &text);
            cr_assert_eq(result.valid, mutation == NOTHING, "seed %llu, mutation %d: %.*s",
                         (unsigned long long)seed, mutation, (int)text.len, (char *)text.data);
            base_buf_free(&text);
        }
}

Test(checker, json_round_trip)
{
    /* A history dumped and loaded again gets the same verdict: failing ones are kept as files. */
    struct check_history *history = check_new(), *again = check_new();
    int64_t one = 1;
    size_t t = check_begin(history, 0, 5);
    check_append(history, t, "x", 1);
    check_end(history, t, CHECK_OK, 6, 77);
    t = check_begin(history, 1, 7);
    check_read(history, t, "x", &one, 1);
    check_end(history, t, CHECK_OK, 8, 76);
    struct base_buf text = { 0 };
    check_dump(history, &text);
    struct base_status status = check_load(again, base_buf_bytes(&text));
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    struct check_options options = { true, true };
    struct check_result a, b;
    check_run(history, &options, &a);
    check_run(again, &options, &b);
    cr_assert(!a.valid && memcmp(a.counts, b.counts, sizeof(a.counts)) == 0);
    struct check_history *bad = check_new();
    status =
        check_load(bad, base_bytes_str("{\"process\":0,\"type\":\"ok\",\"t_ns\":1,\"txn\":[]}\n"));
    cr_assert_eq(status.code, BASE_INVALID_ARGUMENT);
    base_status_free(&status);
    base_buf_free(&text);
    check_free(history);
    check_free(again);
    check_free(bad);
}

Test(checker, registers)
{
    /* Zones: a value is held from its first proof to its last; two at once cannot be. */
    struct check_register_op good[] = { { true, 1, 0, 10 },
                                        { false, 1, 5, 20 },
                                        { true, 2, 15, 30 },
                                        { false, 2, 25, 40 },
                                        { false, 0, 0, 3 } };
    cr_assert(!check_register(good, 5), "%s", check_register(good, 5));
    struct check_register_op stale[] = { { true, 1, 0, 10 },
                                         { true, 2, 20, 30 },
                                         { false, 1, 40, 50 } };
    cr_assert(check_register(stale, 3));
    struct check_register_op early[] = { { false, 1, 0, 5 }, { true, 1, 10, 20 } };
    cr_assert(check_register(early, 2));
    struct check_register_op both[] = { { true, 1, 0, 10 },
                                        { true, 2, 0, 10 },
                                        { false, 1, 20, 21 },
                                        { false, 2, 30, 31 },
                                        { false, 1, 40, 41 } };
    cr_assert(check_register(both, 5));
    struct check_register_op initial[] = { { true, 1, 0, 10 }, { false, 0, 20, 30 } };
    cr_assert(check_register(initial, 2));
    struct check_cas_op cas[] = { { CHECK_CAS_CAS, 0, 1, false, 0, 10 },
                                  { CHECK_CAS_CAS, 1, 2, false, 0, 10 },
                                  { CHECK_CAS_READ, 0, 2, false, 20, 30 },
                                  { CHECK_CAS_CAS, 0, 5, true, 12, 15 } };
    cr_assert(check_cas(cas, 4, 0));
    cas[3].failed = false; /* nothing is 0 any more */
    cr_assert(!check_cas(cas, 4, 0));
    struct check_cas_op twice[] = { { CHECK_CAS_CAS, 0, 1, false, 0, 10 },
                                    { CHECK_CAS_CAS, 0, 2, false, 0, 10 } };
    cr_assert(!check_cas(twice, 2, 0));
    twice[1].end_ns = INT64_MAX; /* of unknown outcome: may not have happened */
    cr_assert(check_cas(twice, 2, 0));
}
