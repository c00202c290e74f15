/* rpc_client_int.h (private to chassis): a client, its endpoints and statistics. See
 * rpc_client.c. */
#ifndef CHASSIS_RPC_CLIENT_INT_H
#define CHASSIS_RPC_CLIENT_INT_H

#include "balancer.h"
#include "chassis/metrics.h"
#include "chassis/naming.h"
#include "chassis/rpc_client.h"
#include "chassis/trace.h"
#include "env_int.h"
#include "retry.h"

enum {
    CH__CLIENT_METHODS_MAX = 128,
    CH__CLIENT_CODES = 17,
    CH__CLIENT_METADATA_MAX = 20,
    CH__POOLED_BUFS_MAX = 64
};

struct ch__client_method {
    const struct ch_method *method;
    struct ch_histogram *latency;
    struct ch_counter *codes[CH__CLIENT_CODES], *retries;
    struct ch_counter *sent, *received;     /* messages, of streaming methods */
    struct ch_counter *hedges, *hedge_wins; /* made when first needed */
};

struct ch_client {
    struct ch_env *env;
    const struct ch_transport *transport;
    char *target;
    size_t message_bytes_max;
    bool no_retry, closed, resolved;
    struct ch_naming *naming;
    struct ch_balancer balancer;
    struct ch_retry_budget budget;
    struct ch_gate gate;    /* the fiber that follows naming */
    struct ch_cond changed; /* resolved, endpoints changed, closed, or the last call left */
    size_t inside;          /* fibers in our functions, and endpoints' calls */
    struct ch_client_stream *streams;
    struct ch__client_method methods
        [CH__CLIENT_METHODS_MAX]; /* open addressing by pointer; the last slot takes the rest */
    struct base_buf pool[CH__POOLED_BUFS_MAX];
    size_t pooled;
};

struct ch__client_out { /* metadata of one attempt */
    struct ch_metadata pairs[CH__CLIENT_METADATA_MAX];
    size_t count;
    char traceparent[56], criticality[2];
};

/* A unary call on its way. */
struct ch__unary {
    struct ch_client *client;
    const struct ch_method *method;
    struct ch_call_options *options;
    struct ch__client_method *stats;
    ch_time deadline;
    struct base_buf request, reply;
    bool may_retry, repeated, outcome_unknown;
    struct ch_endpoint *last; /* counted; the endpoint of the last attempt */
};

/* ---- rpc_client.c ---- */
/* One attempt, at another endpoint than `avoid` if there is one; *used, set as soon as it is known,
 * is counted for the caller. The status text gets "Method to PEER: " in front. */
struct ch_tfinish ch__client_attempt(struct ch__unary *unary, const struct ch_endpoint *avoid,
                                     bool repeated, struct base_buf *reply,
                                     struct ch_endpoint **used) CH_WAITS;
void ch__unary_last(struct ch__unary *unary, struct ch_endpoint *used);
/* ---- rpc_hedge.c ---- */
/* The same, and when it takes long a second at once. The reply is in unary->reply. */
struct ch_tfinish ch__client_attempt_hedged(struct ch__unary *unary) CH_WAITS;
/* ---- rpc_client.c ---- */
ch_time ch__client_deadline(struct ch_client *client, const struct ch_call_options *options);
void ch__client_metadata(struct ch__client_out *out, const struct ch_call_options *options,
                         bool retried);
/* Waits for the target to be resolved; picks and takes a reference. UNAVAILABLE when there is
 * nothing to call. */
struct base_status ch__client_pick(struct ch_client *client, const struct ch_endpoint *avoid,
                                   ch_time deadline,
                                   struct ch_endpoint **endpoint) CH_WAITS BASE_MUST_CHECK;
void ch__client_done(struct ch_client *client, struct ch_endpoint *endpoint, enum base_code code);
/* ---- rpc_stats.c ---- */
struct ch__client_method *ch__client_method(struct ch_client *client,
                                            const struct ch_method *method);
void ch__client_count(struct ch_client *client, struct ch__client_method *stats,
                      enum base_code code, ch_time took);
void ch__client_count_hedge(struct ch_client *client, struct ch__client_method *stats, bool won);
/* ---- rpc_client.c ---- */
void ch__client_enter(struct ch_client *client);
void ch__client_leave(struct ch_client *client);
struct base_buf ch__client_buf(struct ch_client *client);
void ch__client_buf_back(struct ch_client *client, struct base_buf buf);

#endif
