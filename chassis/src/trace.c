/* trace.c: spans (see trace.h; W3C Trace Context; OpenTelemetry's OTLP/JSON).
 *
 * 1. A span's context is a copy of the one before it, made current for as long as the span lasts:
 *    what other fibers share is never changed under them, so a child always hangs under the span
 *    it was begun in.
 * 2. The ring holds the last CH_TRACE_RING_MAX ended spans; it grows to that by doubling, so an
 *    idle node costs little.
 * 3. Ids come from a generator of the env's own, seeded once from the env's random source:
 *    deterministic in the simulator. */
#include <stdlib.h>

#include "env_int.h"
#include "log_int.h"
#include "metrics_int.h"
#include "trace_int.h"

enum { RING_FIRST = 64 };

struct tracer {
    struct ch__span_record *ring;
    size_t cap, len, next; /* next: where the next one goes */
    uint64_t state;
    bool off;
    struct ch__exporter *exporter;
    struct ch_counter *dropped;
};

static void tracer_free(void *ext)
{
    struct tracer *tracer = ext;
    if (tracer->exporter)
        ch__exporter_stop(tracer->exporter);
    free(tracer->ring);
    free(tracer);
}

static struct tracer *tracer_of(struct ch_env *env)
{
    struct tracer *tracer = env->ext[CH_EXT_TRACE];
    if (__builtin_expect(tracer != NULL, 1))
        return tracer;
    tracer = calloc(1, sizeof(*tracer));
    BASE_ASSERT(tracer);
    tracer->state = ch_random(env);
    env->ext[CH_EXT_TRACE] = tracer;
    env->ext_free[CH_EXT_TRACE] = tracer_free;
    return tracer;
}

/* splitmix64; never 0, which W3C forbids. */
static uint64_t id_next(struct tracer *tracer)
{
    uint64_t z;
    do {
        z = tracer->state += 0x9E3779B97F4A7C15ULL;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
        z ^= z >> 31;
    } while (z == 0);
    return z;
}

static void make_current(struct ch_span *span, struct ch_context *outer)
{
    struct ch_context *context = ch_context_new();
    if (outer) {
        uint32_t refs = context->refs;
        *context = *outer;
        context->refs = refs;
        span->outer = ch_context_ref(outer);
    } else {
        context->deadline = CH_NEVER;
    }
    context->trace_hi = span->trace_hi;
    context->trace_lo = span->trace_lo;
    context->span = span->id;
    context->sampled = span->recording;
    ch_context_set(context);
}

void ch_span_begin(struct ch_span *span, struct ch_env *env, const char *name)
{
    struct tracer *tracer = tracer_of(env);
    struct ch_context *outer = ch_in_fiber() ? ch_context_current() : NULL;
    span->env = env;
    strncpy(span->name, name, sizeof(span->name) - 1);
    span->name[sizeof(span->name) - 1] = '\0';
    span->start = ch_now(env);
    span->outer = NULL;
    if (outer && (outer->trace_hi | outer->trace_lo)) {
        span->trace_hi = outer->trace_hi;
        span->trace_lo = outer->trace_lo;
        span->parent = outer->span;
        span->recording = outer->sampled;
    } else {
        span->trace_hi = id_next(tracer);
        span->trace_lo = id_next(tracer);
        span->parent = 0;
        span->recording = !tracer->off;
    }
    span->id = id_next(tracer);
    if (ch_in_fiber())
        make_current(span, outer);
}

static struct ch__span_record *ring_slot(struct tracer *tracer)
{
    if (tracer->len == tracer->cap && tracer->cap < CH_TRACE_RING_MAX) {
        size_t cap = tracer->cap ? tracer->cap * 2 : RING_FIRST;
        tracer->ring = reallocarray(tracer->ring, cap, sizeof(*tracer->ring));
        BASE_ASSERT(tracer->ring);
        tracer->cap = cap;
        tracer->next = tracer->len;
    }
    struct ch__span_record *record = &tracer->ring[tracer->next];
    tracer->next = (tracer->next + 1) % tracer->cap;
    if (tracer->len < tracer->cap)
        tracer->len++;
    return record;
}

static void record(struct tracer *tracer, const struct ch_span *span, enum base_code code)
{
    struct ch__span_record *slot = ring_slot(tracer);
    ch_time now = ch_now(span->env);
    memcpy(slot->name, span->name, sizeof(slot->name));
    slot->trace_hi = span->trace_hi;
    slot->trace_lo = span->trace_lo;
    slot->id = span->id;
    slot->parent = span->parent;
    slot->end_unix_ns = ch_wall_us(span->env) * 1000;
    slot->start_unix_ns = slot->end_unix_ns - (now - span->start);
    slot->code = code;
    if (tracer->exporter)
        ch_count(tracer->dropped, ch__exporter_put(tracer->exporter, slot));
}

void ch_span_end(struct ch_span *span, enum base_code code)
{
    struct tracer *tracer = tracer_of(span->env);
    if (span->recording)
        record(tracer, span, code);
    if (!ch_in_fiber())
        return;
    struct ch_context *current = ch_context_current();
    BASE_ASSERT(current && current->span == span->id);
    if (span->outer && current->retries_forbidden)
        span->outer->retries_forbidden =
            true;                /* the budget was spent inside: that is news for the outside */
    ch_context_set(span->outer); /* the reference is given; NULL: none */
    span->outer = NULL;
}

void ch__span_leave(struct ch_span *span)
{
    if (!ch_in_fiber())
        return;
    ch_context_set(span->outer);
    span->outer = NULL;
}

void ch__span_record(struct ch_span *span, enum base_code code)
{
    if (span->recording)
        record(tracer_of(span->env), span, code);
}

void ch__trace_sample(struct ch_env *env, bool on)
{
    tracer_of(env)->off = !on;
}

/* ---- traceparent: "00-<32 hex>-<16 hex>-<2 hex>" ---- */

bool ch_trace_parent(char out[56])
{
    const struct ch_context *context = ch_in_fiber() ? ch_context_current() : NULL;
    static const char digits[] = "0123456789abcdef";
    if (!context || !(context->trace_hi | context->trace_lo) || !context->span)
        return false;
    uint64_t parts[3] = { context->trace_hi, context->trace_lo, context->span };
    char *at = out;
    *at++ = '0';
    *at++ = '0';
    for (int part = 0; part < 3; part++) {
        if (part != 1)
            *at++ = '-';
        for (int shift = 60; shift >= 0; shift -= 4)
            *at++ = digits[(parts[part] >> shift) & 15];
    }
    memcpy(at, context->sampled ? "-01" : "-00", 4);
    return true;
}

static bool take_hex(const uint8_t *at, size_t digits, uint64_t *value)
{
    uint64_t v = 0;
    for (size_t i = 0; i < digits; i++) {
        uint8_t c = at[i];
        if (c >= '0' && c <= '9')
            v = v << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            v = v << 4 | (uint64_t)(c - 'a' + 10);
        else
            return false;
    }
    *value = v;
    return true;
}

/* A version we do not know may have more after the fields we do (§2.2.2 of the recommendation). */
static bool traceparent_parse(struct base_bytes text, uint64_t *hi, uint64_t *lo, uint64_t *span,
                              uint64_t *flags)
{
    uint64_t version;
    if (text.len < 55 || text.data[2] != '-' || text.data[35] != '-' || text.data[52] != '-' ||
        !take_hex(text.data, 2, &version) || version == 0xff)
        return false;
    if (text.len > 55 && (version == 0 || text.data[55] != '-'))
        return false;
    if (!take_hex(text.data + 3, 16, hi) || !take_hex(text.data + 19, 16, lo) ||
        !take_hex(text.data + 36, 16, span) || !take_hex(text.data + 53, 2, flags))
        return false;
    return (*hi | *lo) != 0 && *span != 0;
}

void ch_trace_adopt(struct ch_context *context, struct base_bytes traceparent, struct ch_env *env)
{
    uint64_t flags;
    if (traceparent_parse(traceparent, &context->trace_hi, &context->trace_lo, &context->span,
                          &flags)) {
        context->sampled = flags & 1;
        return;
    }
    context->trace_hi = context->trace_lo = context->span = 0; /* the first span begins a trace */
    context->sampled = false;
}

/* ---- out ---- */

void ch__trace_each(struct ch_env *env, void (*fn)(void *arg, const struct ch__span_record *record),
                    void *arg)
{
    struct tracer *tracer = tracer_of(env);
    for (size_t i = 0; i < tracer->len; i++)
        fn(arg, &tracer->ring[(tracer->next + tracer->cap - tracer->len + i) % tracer->cap]);
}

static void put_span(const struct ch__span_record *record, struct base_buf *out)
{
    base_buf_printf(out, "{\"traceId\":\"%016llx%016llx\",\"spanId\":\"%016llx\"",
                    (unsigned long long)record->trace_hi, (unsigned long long)record->trace_lo,
                    (unsigned long long)record->id);
    if (record->parent)
        base_buf_printf(out, ",\"parentSpanId\":\"%016llx\"", (unsigned long long)record->parent);
    base_buf_put_str(out, ",\"name\":\"");
    ch__json_escape(out, record->name, strlen(record->name));
    base_buf_printf(out,
                    "\",\"kind\":1,\"startTimeUnixNano\":\"%lld\",\"endTimeUnixNano\":\"%lld\"",
                    (long long)record->start_unix_ns, (long long)record->end_unix_ns);
    if (record->code == BASE_OK)
        base_buf_put_str(out, ",\"status\":{}}");
    else
        base_buf_printf(out, ",\"status\":{\"code\":2,\"message\":\"%s\"}}",
                        base_code_name(record->code));
}

static void otlp_begin(const char *service, struct base_buf *out)
{
    base_buf_put_str(
        out,
        "{\"resourceSpans\":[{\"resource\":{\"attributes\":[{\"key\":\"service.name\",\"value\":"
        "{\"stringValue\":\"");
    ch__json_escape(out, service, strlen(service));
    base_buf_put_str(out, "\"}}]},\"scopeSpans\":[{\"scope\":{\"name\":\"strata\"},\"spans\":[");
}

static void otlp_end(struct base_buf *out)
{
    base_buf_put_str(out, "]}]}]}");
}

void ch__otlp_json(const char *service, const struct ch__span_record *records, size_t count,
                   struct base_buf *out)
{
    otlp_begin(service, out);
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            base_buf_put_u8(out, ',');
        put_span(&records[i], out);
    }
    otlp_end(out);
}

struct put_each {
    struct base_buf *out;
    bool any;
};

static void put_one(void *arg, const struct ch__span_record *record)
{
    struct put_each *put = arg;
    if (put->any)
        base_buf_put_u8(put->out, ',');
    put->any = true;
    put_span(record, put->out);
}

void ch_trace_json(struct ch_env *env, struct base_buf *out)
{
    struct put_each put = { .out = out };
    otlp_begin(ch__log_service(env), out);
    ch__trace_each(env, put_one, &put);
    otlp_end(out);
}

struct base_status ch__trace_export(struct ch_env *env, const char *service, const char *url)
{
    struct tracer *tracer = tracer_of(env);
    if (env->simulated || tracer->exporter)
        return BASE_STATUS_OK;
    tracer->dropped = ch_counter(env, "chassis_trace_spans_dropped_total", "",
                                 "Spans the collector did not get: it was away or too slow.");
    return ch__exporter_start(service, url, &tracer->exporter);
}
