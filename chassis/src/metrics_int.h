/* metrics_int.h (private to chassis): walking the registry, for the admin pages. */
#ifndef CHASSIS_METRICS_INT_H
#define CHASSIS_METRICS_INT_H

#include "chassis/metrics.h"

double ch__histogram_sum(const struct ch_histogram *histogram);

struct ch__metric {
    const char *name, *labels, *help;
    /* Exactly one is set. */
    const struct ch_counter *counter;
    const struct ch_gauge *gauge;
    const struct ch_histogram *histogram;
};
/* All metrics, sorted by name, then labels. The array is the caller's to free(); what it points
 * at is the registry's. */
struct ch__metric *ch__metrics_all(struct ch_env *env, size_t *count);
/* The value of one label, unescaped, in out (cut to fit); false when there is none of that name. */
bool ch__label_value(const char *labels, const char *label, char *out, size_t out_size);

/* Appends `text` as JSON string contents (no quotes): control characters, quotes, backslashes and
 * bytes that are no UTF-8 are escaped or replaced. */
void ch__json_escape(struct base_buf *out, const char *text, size_t len);

#endif
