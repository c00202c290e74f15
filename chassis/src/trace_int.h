/* trace_int.h (private to chassis): what a recorded span is, and the exporter's door. */
#ifndef CHASSIS_TRACE_INT_H
#define CHASSIS_TRACE_INT_H

#include "chassis/trace.h"

struct ch__span_record {
    char name[48];
    uint64_t trace_hi, trace_lo, id, parent;
    int64_t start_unix_ns, end_unix_ns;
    enum base_code code;
};

enum { CH_TRACE_RING_MAX = 4096 }; /* spans kept an env; older ones are overwritten */

/* For what outlives the function that begins it: after ch_span_begin the span is let go of as the
 * fiber's current one (what is before it is current again); ch__span_record ends it, on any
 * fiber. */
void ch__span_leave(struct ch_span *span);
void ch__span_record(struct ch_span *span, enum base_code code);

/* New traces are recorded or not; on by default. */
void ch__trace_sample(struct ch_env *env, bool on);
/* Recorded spans, oldest first; fn is called for each. */
void ch__trace_each(struct ch_env *env, void (*fn)(void *arg, const struct ch__span_record *record),
                    void *arg);
/* Appends records as one OTLP ExportTraceServiceRequest. */
void ch__otlp_json(const char *service, const struct ch__span_record *records, size_t count,
                   struct base_buf *out);
/* From now on every recorded span is also sent to `url`, "http://host:port/path" or "host:port"
 * (path /v1/traces). INVALID_ARGUMENT for others. Simulated envs send nothing. */
struct base_status ch__trace_export(struct ch_env *env, const char *service,
                                    const char *url) BASE_MUST_CHECK;

/* ---- trace_export.c: batches on a thread of its own ---- */
struct ch__exporter;
struct base_status ch__exporter_start(const char *service, const char *url,
                                      struct ch__exporter **exporter) BASE_MUST_CHECK;
/* Never blocks. Returns how many spans were dropped (queue full, collector away) since the last
 * call. */
uint64_t ch__exporter_put(struct ch__exporter *exporter, const struct ch__span_record *record);
/* Sends what is queued, gives up after about two seconds. */
void ch__exporter_stop(struct ch__exporter *exporter);

#endif
