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
void ch__client_enter(struct ch_client *client);
void ch__client_leave(struct ch_client *client);
struct base_buf ch__client_buf(struct ch_client *client);
void ch__client_buf_back(struct ch_client *client, struct base_buf buf);

#endif
