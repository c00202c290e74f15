/* rpc_call.c: one call of a server, from accept to its last byte.
 *
 * Happy path (unary): accept -> a fiber of the server's gate -> context from metadata ->
 * admission -> message in, decoded into the call's arena -> handler -> reply encoded and sent
 * with the status in one trip -> memory back to the pool.
 * Invariants:
 *  1. A call has one fiber; both end together, so call->fiber is valid as long as the call is
 *     live.
 *  2. Every accepted call gets exactly one transport reply, whatever happens, and is counted
 *     once in the method's metrics.
 *  3. No message of a call that is going to be shed is received.
 * Failure: the client's going (or its deadline) cancels the fiber; handlers see it in their
 * waits; the reply then goes nowhere. */
#include <stdlib.h>
#include <string.h>

#include "rpc_server_int.h"

static void call_main(void *arg);

/* ---- pool ---- */

static struct ch_call *call_new(struct ch_server *server)
{
    struct ch_call *call = server->pool;
    if (call) {
        server->pool = call->next;
        server->pooled--;
    } else {
        call = calloc(1, sizeof(*call));
        BASE_ASSERT(call != NULL);
    }
    call->server = server;
    call->prev = NULL;
    call->next = server->calls;
    if (server->calls)
        server->calls->prev = call;
    server->calls = call;
    server->call_count++;
    return call;
}

static void keep_small(struct base_buf *buf)
{
    if (buf->cap > CH__KEPT_BUF_BYTES)
        base_buf_free(buf);
    else
        base_buf_clear(buf);
}

static void call_memory_free(struct ch_call *call)
{
    base_arena_free(&call->arena);
    base_buf_free(&call->in);
    base_buf_free(&call->out);
    free(call);
}

static void call_free(struct ch_call *call)
{
    struct ch_server *server = call->server;
    if (call->prev)
        call->prev->next = call->next;
    else
        server->calls = call->next;
    if (call->next)
        call->next->prev = call->prev;
    if (--server->call_count == 0 && server->stopper && !server->stopper->ended)
        ch_wait_end(server->stopper, CH_OK);
    server->held_bytes -= call->held_bytes;
    if (server->pooled >= CH__POOLED_SERVER_CALLS_MAX) {
        call_memory_free(call);
        return;
    }
    if (call->arena.bytes > CH__KEPT_BUF_BYTES)
        base_arena_free(&call->arena);
    else
        base_arena_reset(&call->arena);
    keep_small(&call->in);
    keep_small(&call->out);
    struct base_arena arena = call->arena;
    struct base_buf in = call->in, out = call->out;
    *call = (struct ch_call){ .arena = arena, .in = in, .out = out, .next = server->pool };
    server->pool = call;
    server->pooled++;
}

void ch__call_pool_free(struct ch_server *server)
{
    while (server->pool) {
        struct ch_call *call = server->pool;
        server->pool = call->next;
        call_memory_free(call);
    }
}

/* ---- begin ---- */

void ch__call_accept(void *self, struct ch_tcall *tcall)
{
    struct ch_server *server = self;
    struct ch_call *call = call_new(server);
    call->tcall = tcall;
    call->start = ch_now(server->env);
    if (base_status_drop(ch_gate_spawn(&server->gate, "rpc call", call_main, call)) != BASE_OK) {
        server->transport->free(tcall); /* no fiber to say more than "cancelled" with */
        call_free(call);
    }
}

static void call_gone(void *self)
{
    struct ch_call *call = self;
    call->gone = true;
    if (call->fiber)
        ch_fiber_cancel(call->fiber);
}

static struct base_bytes metadata_of(const struct ch_metadata *pairs, size_t count, const char *key)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(pairs[i].key, key) == 0)
            return pairs[i].value;
    return BASE_BYTES_EMPTY;
}

static struct ch_context *context_of(struct ch_call *call)
{
    struct ch_server *server = call->server;
    struct ch_context *context = ch_context_new();
    context->deadline = server->transport->deadline(call->tcall);
    const struct ch_metadata *pairs = NULL;
    size_t count = server->transport->metadata(call->tcall, &pairs);
    struct base_bytes tenant = metadata_of(pairs, count, "x-strata-tenant");
    if (tenant.len < sizeof(context->tenant))
        memcpy(context->tenant, tenant.len ? (const char *)tenant.data : "", tenant.len);
    struct base_bytes criticality = metadata_of(pairs, count, "x-strata-criticality");
    if (criticality.len == 1 && criticality.data[0] >= '0' && criticality.data[0] <= '3')
        context->criticality = (enum ch_criticality)(criticality.data[0] - '0');
    call->no_retry = context->retries_forbidden =
        metadata_of(pairs, count, "x-strata-no-retry").len > 0;
    ch_trace_adopt(context, metadata_of(pairs, count, "traceparent"), server->env);
    return context;
}

/* ---- messages ---- */

static void hold_bytes(struct ch_call *call, size_t bytes)
{
    call->server->held_bytes += bytes - call->held_bytes;
    call->held_bytes = bytes;
}

struct base_status ch_call_recv(struct ch_call *call, struct base_arena *arena, void **message)
{
    const struct ch_method *method = call->endpoint->method;
    *message = NULL;
    if (call->received && !method->client_streaming)
        return BASE_STATUS_OK;
    base_buf_clear(&call->in);
    bool end = false;
    struct base_status status = call->server->transport->recv(call->tcall, &call->in, &end);
    if (base_failed(status) || (end && call->received) || (end && method->client_streaming))
        return status;
    if (end)
        return base_status_make(BASE_INVALID_ARGUMENT, "%s: the client sent no request message",
                                method->name);
    call->received = true;
    call->received_bytes += call->in.len;
    if (call->endpoint->received)
        ch_count(call->endpoint->received, 1);
    hold_bytes(call, call->in.len);
    ProtobufCMessage *decoded = NULL;
    status = ch_proto_decode(method->request, base_buf_bytes(&call->in),
                             arena ? arena : &call->arena, &decoded);
    *message = decoded;
    return status;
}

struct base_status ch_call_send(struct ch_call *call, const void *message)
{
    base_buf_clear(&call->out);
    ch_proto_encode(message, &call->out);
    struct base_status status =
        call->server->transport->send(call->tcall, base_buf_bytes(&call->out));
    if (!base_failed(status) && call->endpoint->sent)
        ch_count(call->endpoint->sent, 1);
    call->sent_bytes += base_failed(status) ? 0 : call->out.len;
    return status;
}

/* ---- run ---- */

static struct base_status run_handler(struct ch_call *call, void **reply) CH_WAITS;
static struct base_status run_handler(struct ch_call *call, void **reply)
{
    const struct ch__endpoint *endpoint = call->endpoint;
    if (endpoint->stream)
        return endpoint->stream(endpoint->self, call);
    void *request = NULL;
    struct base_status status = ch_call_recv(call, NULL, &request);
    if (base_failed(status))
        return status;
    return endpoint->unary(endpoint->self, call, request, reply);
}

/* Tells the caller that nothing was done, and not to come back at once. */
static struct base_status turned_away(struct ch_call *call, struct base_status status)
{
    ch_call_add_trailer(call, "x-strata-not-run", BASE_BYTES_LIT("1"));
    ch_call_add_trailer(call, "grpc-retry-pushback-ms", BASE_BYTES_LIT(CH__SHED_PUSHBACK_MS));
    return status;
}

static struct base_status shed(struct ch_call *call)
{
    struct ch_server *server = call->server;
    server->admission.shed++;
    return turned_away(
        call, base_status_make(
                  BASE_RESOURCE_EXHAUSTED,
                  "the server is overloaded: %zu calls run, %zu wait, %zu MiB of requests held",
                  server->admission.running, server->admission.queued, server->held_bytes >> 20));
}

static struct base_status go_elsewhere(struct ch_call *call)
{
    call->server->turned_away++;
    ch_call_add_trailer(call, "x-strata-not-run", BASE_BYTES_LIT("1"));
    return base_status_make(BASE_UNAVAILABLE, "the server is stopping");
}

static struct base_status run_admitted(struct ch_call *call, void **reply) CH_WAITS;
static struct base_status run_admitted(struct ch_call *call, void **reply)
{
    struct ch_server *server = call->server;
    if (call->endpoint->internal)
        return run_handler(call, reply);
    struct ch_context *context = ch_context_current();
    if (server->stopping)
        return go_elsewhere(call);
    if (ch_admission_full(&server->admission, context->criticality) ||
        server->held_bytes > CH__HELD_BYTES_MAX)
        return shed(call);
    struct base_status status = ch_admission_enter(&server->admission, server->env,
                                                   context->criticality, context->deadline);
    if (base_failed(status))
        return turned_away(call, status);
    ch_time begin = call->start;
    status = run_handler(call, reply);
    ch_admission_leave(&server->admission,
                       call->endpoint->stream ? -1 : ch_now(server->env) - begin);
    return status;
}

static struct base_status unknown_method(struct ch_call *call)
{
    return base_status_make(BASE_UNIMPLEMENTED, "unknown method %s",
                            call->server->transport->path(call->tcall));
}

static void send_reply(struct ch_call *call, struct base_status *status, void *reply) CH_WAITS;
static void send_reply(struct ch_call *call, struct base_status *status, void *reply)
{
    struct base_bytes message = BASE_BYTES_EMPTY;
    bool with_message = !base_failed(*status) && call->endpoint && call->endpoint->unary;
    if (with_message) {
        base_buf_clear(&call->out);
        ch_proto_encode(reply, &call->out);
        message = base_buf_bytes(&call->out);
        call->sent_bytes += message.len;
    }
    call->server->transport->reply(call->tcall, with_message ? &message : NULL, status,
                                   call->trailers, call->trailer_count);
}

/* A handler that failed because its own calls gave up retrying: whoever called it shall not begin
 * again where it gave up. */
static void forbid_retry_above(struct ch_call *call, enum base_code code)
{
    if (ch_context_current()->retries_forbidden && !call->no_retry && code == BASE_UNAVAILABLE &&
        call->trailer_count < CH__TRAILERS_MAX)
        ch_call_add_trailer(call, "grpc-retry-pushback-ms", BASE_BYTES_LIT("-1"));
}

/* From here on the fiber's time is nobody's. */
static void usage_end(struct ch_call *call)
{
    struct ch_loop *loop = ch_loop_current();
    const struct ch_context *context = ch_context_current();
    call->busy_ns += (uint64_t)(ch_loop_now(loop) - loop->slice_start);
    call->fiber->busy_ns = NULL;
    if (call->endpoint && !call->endpoint->internal)
        ch__usage_add(call->server, context ? context->tenant : "", call);
}

static void call_main(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_call *call = arg;
    struct ch_server *server = call->server;
    call->fiber = ch_fiber_current();
    call->fiber->busy_ns = &call->busy_ns;
    server->transport->on_cancel(call->tcall, call_gone, call);
    struct ch__endpoint *endpoint = ch__server_find(server, server->transport->path(call->tcall));
    call->endpoint = endpoint;
    struct base_status status;
    void *reply = NULL;
    if (endpoint && (endpoint->unary || endpoint->stream)) {
        ch_context_set(context_of(call));
        struct ch_span span;
        ch_span_begin(&span, server->env, endpoint->full_name);
        endpoint->in_flight->value++;
        status = run_admitted(call, &reply);
        forbid_retry_above(call, status.code);
        endpoint->in_flight->value--;
        ch_span_end(&span, status.code);
        ch__endpoint_count(server, endpoint, status.code, ch_now(server->env) - call->start);
    } else {
        status = unknown_method(call);
    }
    send_reply(call, &status, reply);
    base_status_free(&status);
    usage_end(call);
    call->fiber = NULL;
    server->transport->free(call->tcall);
    call_free(call);
}

/* ---- for handlers ---- */

struct base_arena *ch_call_arena(struct ch_call *call)
{
    return &call->arena;
}

ch_time ch_call_deadline(const struct ch_call *call)
{
    return call->server->transport->deadline(call->tcall);
}

const char *ch_call_peer(const struct ch_call *call)
{
    return call->server->transport->peer(call->tcall);
}

struct base_bytes ch_call_metadata(const struct ch_call *call, const char *key)
{
    const struct ch_metadata *pairs = NULL;
    size_t count = call->server->transport->metadata(call->tcall, &pairs);
    return metadata_of(pairs, count, key);
}

void ch_call_add_trailer(struct ch_call *call, const char *key, struct base_bytes value)
{
    BASE_ASSERT(call->trailer_count < CH__TRAILERS_MAX);
    call->trailers[call->trailer_count++] =
        (struct ch_metadata){ base_arena_strdup(&call->arena, key),
                              base_bytes_dup(&call->arena, value) };
}
