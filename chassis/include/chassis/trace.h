/* chassis/trace.h: spans with W3C trace context. rpc_server and rpc_client make one a call; code
 * adds its own for steps worth seeing. Kept in a ring an env (/tracez), exported as OTLP/HTTP
 * JSON when trace-collector is configured. No waits. */
#ifndef CHASSIS_TRACE_H
#define CHASSIS_TRACE_H

#include "base/bytes.h"
#include "chassis/context.h"

struct ch_env;
struct ch_span {
    struct ch_env *env;
    char name[48];
    uint64_t trace_hi, trace_lo, id, parent;
    ch_time start;
    bool recording;
    struct ch_context *outer; /* what was current before; the span's own context is a copy */
};
/* Begins a child of the current context's span (a new trace when there is none) and, on a fiber,
 * makes it current: calls made and fibers spawned with _inherit until its end belong to it. Spans
 * of a fiber end in the reverse order of their beginning, on that fiber. A trace whose caller
 * says it is not sampled is carried on, and not recorded. Caller's memory. */
void ch_span_begin(struct ch_span *span, struct ch_env *env, const char *name);
void ch_span_end(struct ch_span *span, enum base_code code);
/* "00-<trace>-<span>-01" of the current context into out[56]; false when there is none. */
bool ch_trace_parent(char out[56]);
/* Sets a context from a traceparent value; a bad one is ignored (a new trace begins). */
void ch_trace_adopt(struct ch_context *context, struct base_bytes traceparent, struct ch_env *env);
/* The ring as OTLP JSON (resourceSpans), newest last. */
void ch_trace_json(struct ch_env *env, struct base_buf *out);

#endif
