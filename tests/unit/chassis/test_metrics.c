/* Metrics: histograms answer within one percent whatever the values, and the text is what
 * Prometheus reads. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "chassis/env.h"
#include "chassis/metrics.h"
#include "test.h"

static uint64_t seed = 88172645463325252ULL;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void check_quantiles(uint64_t *values, size_t count)
{
    static const double quantiles[] = { 0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1 };
    struct ch_histogram *histogram = ch_histogram_new();
    for (size_t i = 0; i < count; i++)
        ch_observe(histogram, values[i]);
    qsort(values, count, sizeof(*values), by_value);
    for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++) {
        size_t rank = (size_t)ceil(quantiles[i] * (double)count);
        double exact = (double)values[rank ? rank - 1 : 0];
        double answer = (double)ch_histogram_quantile(histogram, quantiles[i]);
        cr_assert(fabs(answer - exact) <= exact * 0.01, "q %g: exact %g, answer %g", quantiles[i],
                  exact, answer);
    }
    cr_assert_eq(ch_histogram_count(histogram), count);
    ch_histogram_free(histogram);
}

Test(metrics, quantiles_are_within_one_percent_of_the_sorted_values)
{
    /* Spread over all magnitudes of 64 bits, packed in one, and tiny: each stresses another part
     * of the cells. */
    enum { COUNT = 20000 };
    uint64_t *values = calloc(COUNT, sizeof(*values));
    for (size_t i = 0; i < COUNT; i++)
        values[i] = rnd() >> (rnd() % 64);
    check_quantiles(values, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        values[i] = 1000000 + rnd() % 1000;
    check_quantiles(values, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        values[i] = rnd() % 200;
    check_quantiles(values, COUNT);
    check_quantiles((uint64_t[]){ UINT64_MAX, UINT64_MAX - 1, 1 }, 3);
    free(values);
}

Test(metrics, every_single_value_is_answered_within_one_percent)
{
    /* The bound holds at the edges of cells and octaves, where an off-by-one would put a value
     * into a neighbour. */
    for (unsigned shift = 0; shift < 64; shift++)
        for (int64_t step = -2; step <= 2; step++) {
            uint64_t value = (1ULL << shift) + (uint64_t)step;
            struct ch_histogram *histogram = ch_histogram_new();
            ch_observe(histogram, value);
            ch_observe(histogram, value);
            ch_observe(histogram, UINT64_MAX);
            double answer = (double)ch_histogram_quantile(histogram, 0.5);
            cr_assert(fabs(answer - (double)value) <= (double)value * 0.01, "%llu gave %g",
                      (unsigned long long)value, answer);
            ch_histogram_free(histogram);
        }
}

Test(metrics, merging_is_as_if_all_was_observed_in_one)
{
    struct ch_histogram *a = ch_histogram_new(), *b = ch_histogram_new(), *all = ch_histogram_new();
    for (size_t i = 0; i < 5000; i++) {
        uint64_t value = rnd() >> (rnd() % 50);
        ch_observe(i % 3 ? a : b, value);
        ch_observe(all, value);
    }
    ch_histogram_merge(a, b);
    for (double q = 0; q <= 1; q += 0.05)
        cr_assert_eq(ch_histogram_quantile(a, q), ch_histogram_quantile(all, q));
    cr_assert_eq(ch_histogram_count(a), 5000);
    cr_assert(fabs(ch_histogram_mean(a) / ch_histogram_mean(all) - 1) < 1e-9);
    ch_histogram_free(a);
    ch_histogram_free(b);
    ch_histogram_free(all);
}

Test(metrics, an_empty_histogram_answers_zero)
{
    struct ch_histogram *histogram = ch_histogram_new();
    cr_assert_eq(ch_histogram_quantile(histogram, 0.5), 0);
    cr_assert_eq(ch_histogram_mean(histogram), 0);
    ch_histogram_free(histogram);
}

static char text[256 * 1024];

static int expose(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    char labels[128] = "";
    struct base_buf out = { 0 };
    ch_count(ch_counter(env, "test_total", "kind=\"b\"", "Things."), 7);
    ch_count(ch_counter(env, "test_total", "kind=\"a\"", "Things."), 2);
    ch_count(ch_counter(env, "test_total", "kind=\"a\"", "Things."), 3); /* the same metric again */
    ch_label(labels, sizeof(labels), "table", "a\"b\\c\nd");
    ch_label(labels, sizeof(labels), "peer", "x");
    ch_gauge(env, "test_level", labels, "A level\nof two lines.")->value = -4;
    struct ch_histogram *histogram = ch_histogram(env, "test_ns", "m=\"x\"", "Latency.");
    for (int i = 0; i < 10; i++)
        ch_observe(histogram, 10);
    ch_metrics_text(env, &out);
    memcpy(text, out.data, out.len);
    base_buf_free(&out);
    return 0;
}

Test(metrics, the_text_is_prometheus_with_one_head_a_name_and_labels_escaped)
{
    ch_env_run(expose, NULL);
    cr_assert_not_null(strstr(text, "# HELP test_total Things.\n# TYPE test_total counter\n"
                                    "test_total{kind=\"a\"} 5\ntest_total{kind=\"b\"} 7\n"),
                       "%s", text);
    cr_assert_not_null(strstr(text,
                              "# HELP test_level A level\\nof two lines.\n# TYPE test_level gauge\n"
                              "test_level{table=\"a\\\"b\\\\c\\nd\",peer=\"x\"} -4\n"),
                       "%s", text);
    cr_assert_not_null(
        strstr(text,
               "# TYPE test_ns summary\ntest_ns{m=\"x\",quantile=\"0.5\"} 10\n"
               "test_ns{m=\"x\",quantile=\"0.99\"} 10\ntest_ns{m=\"x\",quantile=\"0.999\"} 10\n"
               "test_ns_sum{m=\"x\"} 100\ntest_ns_count{m=\"x\"} 10\n"),
        "%s", text);
}

Test(metrics, a_label_that_does_not_fit_is_cut_and_still_closed)
{
    char labels[16] = "";
    ch_label(labels, sizeof(labels), "k", "0123456789abcdef");
    cr_assert_str_eq(labels, "k=\"0123456789a\"");
    char same[16];
    strcpy(same, labels);
    cr_assert_str_eq(ch_label(labels, sizeof(labels), "more", "x"), same);
}

static int flood(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    char labels[64];
    for (int i = 0; i < 25000; i++) {
        snprintf(labels, sizeof(labels), "i=\"%d\"", i);
        ch_count(ch_counter(env, "test_flood", labels, "One a label."), 1);
    }
    return (int)ch_counter(env, "chassis_metrics_refused_total", "", "")->value;
}

Test(metrics, the_registry_is_bounded)
{
    /* Labels come from outside (peers, tables): without a bound they would be a leak. */
    int refused = ch_env_run(flood, NULL);
    cr_assert_geq(refused, 5000);
    cr_assert_leq(refused, 5100);
}
