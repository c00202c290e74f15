/* rpc_server.c: a server: its methods, addresses, start and graceful stop. What one call goes
 * through is rpc_call.c.
 *
 * Invariants: 1. Methods are registered before start and never change after. 2. The gate holds
 * one fiber for each live call. 3. The server is freed only when no call is live and every
 * listener is closed. Stop: not serving (health watchers learn it) -> listeners drain (GOAWAY:
 * clients go elsewhere) -> running calls may finish until the deadline -> their fibers are
 * cancelled -> calls that still cannot get rid of their reply (a client that does not read) are
 * cut -> listeners close -> free. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/codec.h"
#include "chassis/http.h"
#include "port_mux.h"
#include "rpc_server_int.h"
#include "transport_grpc_int.h"

enum { CALLS_MAX_DEFAULT = 4096 };
static const ch_time LINGER_QUIET = 50 * CH_MS, LINGER_MOST = CH_S;
static const ch_time CUT_AFTER =
    500 * CH_MS; /* from cancelling the fibers to cutting their connections' calls */

struct base_status ch_server_new(struct ch_env *env, const struct ch_server_options *options,
                                 struct ch_server **out)
{
    *out = NULL;
    if (!options->address || !*options->address)
        return base_status_make(BASE_INVALID_ARGUMENT, "server: no address");
    struct ch_server *server = calloc(1, sizeof(*server));
    BASE_ASSERT(server != NULL);
    server->env = env;
    server->transport = ch_env_transport(env);
    server->addresses = strdup(options->address);
    BASE_ASSERT(server->addresses != NULL);
    server->message_bytes_max =
        options->message_bytes_max ? options->message_bytes_max : CH__REQUEST_BYTES_DEFAULT;
    server->http_handler = options->http;
    ch_gate_init(&server->gate, env, "rpc calls");
    ch_cond_init(&server->health_changed);
    ch_admission_init(&server->admission,
                      options->calls_max ? options->calls_max : CALLS_MAX_DEFAULT);
    ch__health_register(server);
    ch__reflection_register(server);
    *out = server;
    return BASE_STATUS_OK;
}

/* ---- methods ---- */

static size_t slot_of(const struct ch_server *server, const char *path)
{
    size_t at = base_hash(path, strlen(path), 0) & (server->endpoint_cap - 1);
    while (server->endpoints[at].method && strcmp(server->endpoints[at].method->path, path) != 0)
        at = (at + 1) & (server->endpoint_cap - 1);
    return at;
}

struct ch__endpoint *ch__server_find(struct ch_server *server, const char *path)
{
    struct ch__endpoint *endpoint = &server->endpoints[slot_of(server, path)];
    return endpoint->method ? endpoint : NULL;
}

static void endpoints_grow(struct ch_server *server)
{
    struct ch__endpoint *old = server->endpoints;
    size_t old_cap = server->endpoint_cap;
    server->endpoint_cap = old_cap ? old_cap * 2 : 64;
    server->endpoints = calloc(server->endpoint_cap, sizeof(*server->endpoints));
    BASE_ASSERT(server->endpoints != NULL);
    for (size_t i = 0; i < old_cap; i++)
        if (old[i].method)
            server->endpoints[slot_of(server, old[i].method->path)] = old[i];
    free(old);
}

static struct ch__endpoint *endpoint_add(struct ch_server *server, const struct ch_method *method)
{
    BASE_ASSERT(server->listener_count == 0); /* before start */
    if (server->endpoint_count * 2 >= server->endpoint_cap)
        endpoints_grow(server);
    struct ch__endpoint *endpoint = &server->endpoints[slot_of(server, method->path)];
    if (endpoint->method)
        return endpoint;
    server->endpoint_count++;
    char labels[256];
    snprintf(labels, sizeof(labels), "method=\"%s\"", method->path + 1);
    endpoint->method = method;
    endpoint->full_name = method->path + 1;
    endpoint->in_flight =
        ch_gauge(server->env, "rpc_server_in_flight", labels, "Calls being served now.");
    endpoint->latency = ch_histogram(server->env, "rpc_server_latency_ns", labels,
                                     "From the call's arrival to its reply or its stream's end.");
    if (!method->client_streaming && !method->server_streaming)
        return endpoint;
    ch_label(labels, sizeof(labels), "direction", "received");
    endpoint->received =
        ch_counter(server->env, "rpc_server_messages", labels, "Messages of streams.");
    snprintf(labels, sizeof(labels), "method=\"%s\",direction=\"sent\"", method->path + 1);
    endpoint->sent = ch_counter(server->env, "rpc_server_messages", labels, "Messages of streams.");
    return endpoint;
}

void ch_server_handle(struct ch_server *server, const struct ch_method *method, ch_unary_fn *fn,
                      void *self)
{
    BASE_ASSERT(!method->client_streaming && !method->server_streaming);
    struct ch__endpoint *endpoint = endpoint_add(server, method);
    endpoint->unary = fn;
    endpoint->self = self;
}

void ch_server_handle_stream(struct ch_server *server, const struct ch_method *method,
                             ch_stream_fn *fn, void *self)
{
    BASE_ASSERT(method->client_streaming || method->server_streaming);
    struct ch__endpoint *endpoint = endpoint_add(server, method);
    endpoint->stream = fn;
    endpoint->self = self;
}

void ch__server_handle_internal(struct ch_server *server, const struct ch_method *method,
                                ch_unary_fn *unary, ch_stream_fn *stream, void *self)
{
    struct ch__endpoint *endpoint = endpoint_add(server, method);
    endpoint->unary = unary;
    endpoint->stream = stream;
    endpoint->self = self;
    endpoint->internal = true;
}

void ch_server_add_service(struct ch_server *server, const struct ch_service *service)
{
    for (size_t i = 0; i < server->service_count; i++)
        if (server->services[i] == service)
            return;
    server->services =
        realloc(server->services, (server->service_count + 1) * sizeof(server->services[0]));
    BASE_ASSERT(server->services != NULL);
    server->services[server->service_count++] = service;
}

void ch__endpoint_count(struct ch_server *server, struct ch__endpoint *endpoint,
                        enum base_code code, ch_time took)
{
    if ((unsigned)code >= CH__CODES)
        code = BASE_UNKNOWN;
    if (!endpoint->codes[code]) {
        char labels[256];
        snprintf(labels, sizeof(labels), "method=\"%s\",code=\"%s\"", endpoint->full_name,
                 base_code_name(code));
        endpoint->codes[code] =
            ch_counter(server->env, "rpc_server_calls", labels, "Calls served, by status code.");
    }
    ch_count(endpoint->codes[code], 1);
    ch_observe(endpoint->latency, (uint64_t)took);
}

/* ---- start and stop ---- */

static struct base_status listen_one(struct ch_server *server, const char *address) CH_WAITS;
static struct base_status listen_one(struct ch_server *server, const char *address)
{
    char bound[128] = "";
    if (server->listener_count == CH__ADDRESSES_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "listen: more than %d addresses",
                                CH__ADDRESSES_MAX);
    struct base_status status =
        server->transport->listen(server->env, address, server->message_bytes_max, ch__call_accept,
                                  server, bound, &server->listeners[server->listener_count]);
    if (base_failed(status))
        return status;
    server->listener_count++;
    size_t at = strlen(server->bound);
    snprintf(server->bound + at, sizeof(server->bound) - at, "%s%s", at ? "," : "", bound);
    return status;
}

/* gRPC and HTTP on the same ports: a mux accepts for both. */
static struct base_status listen_mixed(struct ch_server *server) CH_WAITS;
static struct base_status listen_mixed(struct ch_server *server)
{
    struct base_status status =
        ch_http_start(server->env, NULL, server->http_handler, &server->http);
    if (base_failed(status))
        return status;
    server->listeners[0] =
        ch__grpc_listen_nowhere(server->env, server->message_bytes_max, ch__call_accept, server);
    server->listener_count = 1;
    return ch__mux_start(server->env, server->addresses, server->listeners[0], server->http,
                         server->bound, sizeof(server->bound), &server->mux);
}

static void stop_accepting(struct ch_server *server)
{
    if (server->mux)
        ch__mux_stop(server->mux);
    server->mux = NULL;
    for (size_t i = 0; i < server->listener_count; i++)
        server->transport->listener_drain(server->listeners[i]);
}

static void close_listeners(struct ch_server *server) CH_WAITS;
static void close_listeners(struct ch_server *server)
{
    stop_accepting(server);
    for (size_t i = 0; i < server->listener_count; i++)
        server->transport->listener_close(server->listeners[i]);
    server->listener_count = 0;
    if (server->http)
        ch_http_stop(server->http);
    server->http = NULL;
}

struct base_status ch_server_start(struct ch_server *server)
{
    char *copy = strdup(server->addresses), *rest = copy, *address;
    struct base_status status = BASE_STATUS_OK;
    BASE_ASSERT(copy != NULL);
    if (server->http_handler && !server->env->simulated)
        status = listen_mixed(server);
    else
        while (!base_failed(status) && (address = strsep(&rest, ",")))
            if (*address)
                status = listen_one(server, address);
    free(copy);
    if (base_failed(status))
        close_listeners(server);
    return status;
}

const char *ch_server_address(const struct ch_server *server)
{
    return server->bound;
}

void ch_server_set_serving(struct ch_server *server, bool serving)
{
    if (server->serving == serving)
        return;
    server->serving = serving;
    server->health_generation++;
    ch_cond_broadcast(&server->health_changed);
}

/* Waits, even when this fiber is cancelled (SIGTERM does that), until no call is live or the
 * deadline. */
static void wait_for_calls(struct ch_server *server, ch_time deadline) CH_WAITS;
static void wait_for_calls(struct ch_server *server, ch_time deadline)
{
    while (server->call_count > 0 && ch_now(server->env) < deadline) {
        struct ch_wait_node node = { 0 };
        server->stopper = &node;
        enum ch_outcome outcome = ch_wait_on(NULL, &node, deadline, true, "rpc calls to finish");
        server->stopper = NULL;
        if (outcome == CH_TIMEOUT)
            return;
    }
}

/* gRPC kills calls that reach it between its shutdown and the client's learning of it. Ours know
 * such an end for "never ran" (transport_grpc_client.c), others do not. So before that, for as long
 * as calls keep coming but not long, they are answered "not run, go elsewhere" (rpc_call.c), and
 * clients' breakers turn them away. */
static void linger(struct ch_server *server, ch_time deadline) CH_WAITS;
static void linger(struct ch_server *server, ch_time deadline)
{
    ch_time latest = ch_in(server->env, LINGER_MOST);
    uint64_t seen = UINT64_MAX;
    if (deadline < latest)
        latest = deadline;
    while (seen != server->turned_away && ch_now(server->env) < latest) {
        struct ch_wait_node node = { 0 };
        seen = server->turned_away;
        (void)ch_wait_on(NULL, &node, ch_in(server->env, LINGER_QUIET), true,
                         "rpc clients to leave");
    }
}

bool ch_server_stopping(const struct ch_server *server)
{
    return server->stopping;
}

void ch_server_stop(struct ch_server *server, ch_time deadline)
{
    server->stopping = true;
    ch_server_set_serving(server, false);
    ch_cond_broadcast(&server->health_changed);
    linger(server, deadline);
    stop_accepting(server);
    wait_for_calls(server, deadline);
    ch_gate_close(&server->gate);
    ch_gate_cancel(&server->gate);
    wait_for_calls(server, ch_in(server->env, CUT_AFTER));
    for (struct ch_call *call = server->calls; call; call = call->next)
        server->transport->cancel(call->tcall);
    ch_gate_join_always(&server->gate);
    close_listeners(server);
    ch__call_pool_free(server);
    ch__usage_free(server);
    free(server->endpoints);
    free(server->services);
    free(server->addresses);
    free(server);
}
