/* rpc_server_int.h (private to chassis): a server, its methods and its calls. See rpc_server.c. */
#ifndef CHASSIS_RPC_SERVER_INT_H
#define CHASSIS_RPC_SERVER_INT_H

#include "admission.h"
#include "chassis/metrics.h"
#include "chassis/rpc_server.h"
#include "chassis/trace.h"
#include "env_int.h"

enum {
    CH__ADDRESSES_MAX = 8,
    CH__TRAILERS_MAX = 16,
    CH__CODES = 17,
    CH__POOLED_SERVER_CALLS_MAX = 1024,
    CH__KEPT_BUF_BYTES = 64 * 1024, /* a pooled call keeps buffers up to this */
    CH__REQUEST_BYTES_DEFAULT = (10 << 20) + (64 << 10),
    CH__TENANTS_MAX = 100,          /* counted one by one; more are "other" */
    CH__HELD_BYTES_MAX = 512 << 20, /* of requests being worked on; beyond it calls are shed */
};

#define CH__SHED_PUSHBACK_MS "50"

struct ch__endpoint {
    const struct ch_method *method;
    ch_unary_fn *unary;
    ch_stream_fn *stream;
    void *self;
    bool internal;         /* health, reflection: not subject to admission */
    const char *full_name; /* path without the first slash */
    struct ch_gauge *in_flight;
    struct ch_histogram *latency;
    struct ch_counter *codes[CH__CODES];
    struct ch_counter *received, *sent; /* messages, of streaming methods; else NULL */
};

/* What one tenant's calls have taken (usage.c). */
struct ch__usage {
    char tenant[64];
    struct ch_counter *calls, *received, *sent, *busy_ns;
};

struct ch_server {
    struct ch_env *env;
    const struct ch_transport *transport;
    char *addresses; /* as given */
    char bound[CH__ADDRESSES_MAX * 130];
    size_t message_bytes_max;
    const struct ch_http_handler *http_handler;
    struct ch_http_server *http; /* with http_handler, in a real env: HTTP/1.1 on the same ports */
    struct ch_mux *mux;
    struct ch_tlistener *listeners[CH__ADDRESSES_MAX];
    size_t listener_count;
    struct ch__endpoint *endpoints; /* open addressing by path; power of two */
    size_t endpoint_cap, endpoint_count;
    const struct ch_service **services;
    size_t service_count;
    struct ch_gate gate;
    struct ch_call *calls; /* live */
    size_t call_count, held_bytes;
    struct ch_wait_node *stopper; /* waits for call_count to be 0 */
    struct ch_call *pool;
    size_t pooled;
    struct ch_admission admission;
    struct ch__usage *tenants[CH__TENANTS_MAX + 1]; /* in the order they came; the last: others */
    size_t tenant_count;
    bool serving, stopping;
    struct ch_method reflection_alpha;
    uint64_t health_generation, turned_away; /* turned_away: calls that came while it stopped */
    struct ch_cond health_changed;
};

struct ch_call {
    struct ch_server *server;
    struct ch_tcall *tcall;
    const struct ch__endpoint *endpoint;
    struct ch_call *next, *prev; /* live list; next links the pool */
    struct ch_fiber *fiber;      /* its own, while it runs: they end together */
    struct base_arena arena;
    struct base_buf in, out;
    struct ch_metadata trailers[CH__TRAILERS_MAX];
    size_t trailer_count, held_bytes;
    ch_time start;
    uint64_t received_bytes, sent_bytes, busy_ns;
    bool received, gone, no_retry; /* no_retry: the caller said so */
};

/* ---- rpc_server.c ---- */
struct ch__endpoint *ch__server_find(struct ch_server *server, const char *path);
/* ---- rpc_call.c ---- */
void ch__call_accept(void *server, struct ch_tcall *tcall);
void ch__call_pool_free(struct ch_server *server);
void ch__endpoint_count(struct ch_server *server, struct ch__endpoint *endpoint,
                        enum base_code code, ch_time took);
/* ---- usage.c ---- */
/* Adds a call that has ended to its tenant's account. */
void ch__usage_add(struct ch_server *server, const char *tenant, const struct ch_call *call);
void ch__usage_free(struct ch_server *server);
/* ---- health.c, reflection.c ---- */
void ch__health_register(struct ch_server *server);
void ch__reflection_register(struct ch_server *server);
/* A registered endpoint that admission does not touch. */
void ch__server_handle_internal(struct ch_server *server, const struct ch_method *method,
                                ch_unary_fn *unary, ch_stream_fn *stream, void *self);

#endif
