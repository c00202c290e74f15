/* chassis/metrics.h: counters, gauges and histograms, shown as Prometheus text at /metrics. One
 * registry an env. Names and help are borrowed literals; labels are copied. Registering the same
 * name and labels again gives the same metric. Updating costs an addition. Histograms are
 * log-linear (<= 1% error at any quantile), for nanoseconds or bytes. None may wait. */
#ifndef CHASSIS_METRICS_H
#define CHASSIS_METRICS_H

#include "base/bytes.h"
#include "chassis/wait.h"

struct ch_env;
struct ch_histogram;
struct ch_counter {
    uint64_t value;
};
struct ch_gauge {
    int64_t value;
};

/* `labels`: "method=\"Commit\",code=\"OK\"" or "". */
struct ch_counter *ch_counter(struct ch_env *env, const char *name, const char *labels,
                              const char *help);
struct ch_gauge *ch_gauge(struct ch_env *env, const char *name, const char *labels,
                          const char *help);
struct ch_histogram *ch_histogram(struct ch_env *env, const char *name, const char *labels,
                                  const char *help);
/* Writes name="value", escaped as the text format wants it, after a comma when out is not empty:
 * for values from outside (peers, table names). Returns out; a value too long for `size` is cut. */
char *ch_label(char *out, size_t size, const char *name, const char *value);

static inline void ch_count(struct ch_counter *counter, uint64_t n)
{
    counter->value += n;
}
void ch_observe(struct ch_histogram *histogram, uint64_t value);
/* q in [0,1]; 0 when empty. */
uint64_t ch_histogram_quantile(const struct ch_histogram *histogram, double q);
uint64_t ch_histogram_count(const struct ch_histogram *histogram);
double ch_histogram_mean(const struct ch_histogram *histogram);
/* A free-standing one, for benches. */
struct ch_histogram *ch_histogram_new(void);
void ch_histogram_free(struct ch_histogram *histogram);
void ch_histogram_merge(struct ch_histogram *into, const struct ch_histogram *from);

void ch_metrics_text(struct ch_env *env, struct base_buf *out);

#endif
