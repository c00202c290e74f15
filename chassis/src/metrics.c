/* metrics.c: the registry of an env and its Prometheus text (see metrics.h; the text format 0.0.4).
 *
 * 1. A metric lives as long as its env: pointers handed out never move.
 * 2. One name has one kind: registering it again as another aborts (a programming error).
 * 3. At most METRICS_MAX metrics (labels come from peers and tables): beyond it every
 *    registration gets one shared metric of its kind that is not shown, and
 *    chassis_metrics_refused_total counts them.
 * Histograms are shown as summaries over the life of the process. Labels given by callers are
 * taken as they are, except that line breaks and a trailing comma, which would break the whole
 * page, are escaped. */
#include <stdlib.h>

#include <uthash.h>

#include "env_int.h"
#include "metrics_int.h"

enum { METRICS_MAX = 20000 };

enum kind { COUNTER, GAUGE, HISTOGRAM, KINDS };

struct metric {
    char *key; /* name, a byte 01, labels */
    const char *name, *help;
    const char *labels; /* in key */
    enum kind kind;
    union {
        struct ch_counter counter;
        struct ch_gauge gauge;
        struct ch_histogram *histogram;
    };
    UT_hash_handle hh;
};

struct registry {
    struct metric *metrics;
    struct metric refused[KINDS]; /* what is handed out when full */
    struct ch_counter *refused_count;
};

static void metric_free(struct metric *metric)
{
    if (metric->kind == HISTOGRAM)
        ch_histogram_free(metric->histogram);
    free(metric->key);
    free(metric);
}

static void registry_free(void *ext)
{
    struct registry *registry = ext;
    struct metric *metric, *next;
    HASH_ITER(hh, registry->metrics, metric, next)
    {
        HASH_DEL(registry->metrics, metric);
        metric_free(metric);
    }
    ch_histogram_free(registry->refused[HISTOGRAM].histogram);
    free(registry);
}

static struct metric *metric_get(struct ch_env *env, enum kind kind, const char *name,
                                 const char *labels, const char *help);

static struct registry *registry_of(struct ch_env *env)
{
    struct registry *registry = env->ext[CH_EXT_METRICS];
    if (registry)
        return registry;
    registry = calloc(1, sizeof(*registry));
    BASE_ASSERT(registry);
    registry->refused[HISTOGRAM].histogram = ch_histogram_new();
    env->ext[CH_EXT_METRICS] = registry;
    env->ext_free[CH_EXT_METRICS] = registry_free;
    registry->refused_count = &metric_get(env, COUNTER, "chassis_metrics_refused_total", "",
                                          "Metrics not kept because the registry is full.")
                                   ->counter;
    return registry;
}

/* name 01 labels, line breaks of the labels as \n. */
static char *key_make(const char *name, const char *labels, size_t *len)
{
    size_t name_len = strlen(name), labels_len = strlen(labels);
    while (labels_len > 0 && labels[labels_len - 1] == ',')
        labels_len--;
    char *key = malloc(name_len + 1 + 2 * labels_len + 1);
    BASE_ASSERT(key);
    memcpy(key, name, name_len);
    size_t at = name_len;
    key[at++] = '\1';
    for (size_t i = 0; i < labels_len; i++) {
        if (labels[i] == '\n') {
            key[at++] = '\\';
            key[at++] = 'n';
        } else {
            key[at++] = labels[i];
        }
    }
    key[at] = '\0';
    *len = at;
    return key;
}

static struct metric *metric_get(struct ch_env *env, enum kind kind, const char *name,
                                 const char *labels, const char *help)
{
    struct registry *registry = registry_of(env);
    size_t len;
    char *key = key_make(name, labels ? labels : "", &len);
    struct metric *metric;
    HASH_FIND(hh, registry->metrics, key, len, metric);
    if (metric) {
        free(key);
        BASE_ASSERT(metric->kind == kind);
        return metric;
    }
    if (HASH_COUNT(registry->metrics) >= METRICS_MAX) {
        free(key);
        registry->refused_count->value++;
        return &registry->refused[kind];
    }
    metric = calloc(1, sizeof(*metric));
    BASE_ASSERT(metric);
    metric->key = key;
    metric->name = name;
    metric->help = help;
    metric->kind = kind;
    metric->labels = strchr(key, '\1') + 1;
    if (kind == HISTOGRAM)
        metric->histogram = ch_histogram_new();
    HASH_ADD_KEYPTR(hh, registry->metrics, metric->key, len, metric);
    return metric;
}

struct ch_counter *ch_counter(struct ch_env *env, const char *name, const char *labels,
                              const char *help)
{
    return &metric_get(env, COUNTER, name, labels, help)->counter;
}

struct ch_gauge *ch_gauge(struct ch_env *env, const char *name, const char *labels,
                          const char *help)
{
    return &metric_get(env, GAUGE, name, labels, help)->gauge;
}

struct ch_histogram *ch_histogram(struct ch_env *env, const char *name, const char *labels,
                                  const char *help)
{
    return metric_get(env, HISTOGRAM, name, labels, help)->histogram;
}

char *ch_label(char *out, size_t size, const char *name, const char *value)
{
    size_t at = strlen(out), name_len = strlen(name);
    if (at + name_len + 5 > size) /* comma, =, quotes, NUL */
        return out;
    if (at > 0)
        out[at++] = ',';
    memcpy(out + at, name, name_len);
    at += name_len;
    out[at++] = '=';
    out[at++] = '"';
    for (const char *c = value; *c; c++) {
        bool escape = *c == '"' || *c == '\\' || *c == '\n';
        if (at + (escape ? 2 : 1) + 2 > size)
            break;
        if (escape)
            out[at++] = '\\';
        out[at++] = *c == '\n' ? 'n' : *c;
    }
    out[at++] = '"';
    out[at] = '\0';
    return out;
}

static int by_name(const void *a, const void *b)
{
    const struct ch__metric *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : strcmp(x->labels, y->labels);
}

struct ch__metric *ch__metrics_all(struct ch_env *env, size_t *count)
{
    struct registry *registry = registry_of(env);
    struct ch__metric *all = calloc(HASH_COUNT(registry->metrics) + 1, sizeof(*all));
    BASE_ASSERT(all);
    size_t n = 0;
    for (const struct metric *metric = registry->metrics; metric; metric = metric->hh.next)
        all[n++] = (struct ch__metric){
            .name = metric->name,
            .labels = metric->labels,
            .help = metric->help,
            .counter = metric->kind == COUNTER ? &metric->counter : NULL,
            .gauge = metric->kind == GAUGE ? &metric->gauge : NULL,
            .histogram = metric->kind == HISTOGRAM ? metric->histogram : NULL,
        };
    qsort(all, n, sizeof(*all), by_name);
    *count = n;
    return all;
}

bool ch__label_value(const char *labels, const char *label, char *out, size_t out_size)
{
    size_t label_len = strlen(label);
    for (const char *at = labels; *at;) {
        const char *equals = strchr(at, '=');
        if (!equals || equals[1] != '"')
            return false;
        bool wanted = (size_t)(equals - at) == label_len && strncmp(at, label, label_len) == 0;
        size_t len = 0;
        for (at = equals + 2; *at && *at != '"'; at++) {
            char c = *at;
            if (c == '\\' && at[1])
                c = *++at == 'n' ? '\n' : *at;
            if (wanted && len + 1 < out_size)
                out[len++] = c;
        }
        if (wanted) {
            out[len] = '\0';
            return true;
        }
        if (*at == '"')
            at++;
        while (*at == ',' || *at == ' ')
            at++;
    }
    return false;
}

static void put_help(struct base_buf *out, const char *help)
{
    for (const char *c = help ? help : ""; *c; c++) {
        if (*c == '\n')
            base_buf_put_str(out, "\\n");
        else if (*c == '\\')
            base_buf_put_str(out, "\\\\");
        else
            base_buf_put_u8(out, (uint8_t)*c);
    }
}

static void put_histogram(const struct ch__metric *metric, struct base_buf *out)
{
    static const struct {
        double q;
        const char *name;
    } shown[] = { { 0.5, "0.5" }, { 0.99, "0.99" }, { 0.999, "0.999" } };
    const char *comma = metric->labels[0] ? "," : "";
    const char *open = metric->labels[0] ? "{" : "", *close = metric->labels[0] ? "}" : "";
    for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++)
        base_buf_printf(out, "%s{%s%squantile=\"%s\"} %llu\n", metric->name, metric->labels, comma,
                        shown[i].name,
                        (unsigned long long)ch_histogram_quantile(metric->histogram, shown[i].q));
    base_buf_printf(out, "%s_sum%s%s%s %.17g\n", metric->name, open, metric->labels, close,
                    ch__histogram_sum(metric->histogram));
    base_buf_printf(out, "%s_count%s%s%s %llu\n", metric->name, open, metric->labels, close,
                    (unsigned long long)ch_histogram_count(metric->histogram));
}

static void put_metric(const struct ch__metric *metric, struct base_buf *out)
{
    if (metric->histogram) {
        put_histogram(metric, out);
        return;
    }
    base_buf_put_str(out, metric->name);
    if (metric->labels[0])
        base_buf_printf(out, "{%s}", metric->labels);
    BASE_ASSERT(metric->counter || metric->gauge);
    if (metric->counter)
        base_buf_printf(out, " %llu\n", (unsigned long long)metric->counter->value);
    else
        base_buf_printf(out, " %lld\n", (long long)metric->gauge->value);
}

void ch_metrics_text(struct ch_env *env, struct base_buf *out)
{
    size_t count;
    struct ch__metric *all = ch__metrics_all(env, &count);
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || strcmp(all[i].name, all[i - 1].name) != 0) {
            base_buf_printf(out, "# HELP %s ", all[i].name);
            put_help(out, all[i].help);
            base_buf_printf(out, "\n# TYPE %s %s\n", all[i].name,
                            all[i].counter ? "counter"
                            : all[i].gauge ? "gauge"
                                           : "summary");
        }
        put_metric(&all[i], out);
    }
    free(all);
}
