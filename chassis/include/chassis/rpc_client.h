/* chassis/rpc_client.h: calling gRPC services.
 *
 * A client has a target: an address ("127.0.0.2:7001"), several ("a:1,b:2"), or a name of the cell
 * ("/local/blockserver",
 * "/local/blockserver/2") that is resolved and watched through naming (naming.h) and balanced by
 * power of two choices on outstanding calls. Deadlines, cancellation, trace and tenant of the
 * running fiber's context travel with every call. A call is retried (full-jitter backoff, retry
 * budget, never beyond the deadline) only when its method is idempotent or the peer provably never
 * saw it, and only at one layer. Endpoints that keep failing are ejected for a while (breaker). */
#ifndef CHASSIS_RPC_CLIENT_H
#define CHASSIS_RPC_CLIENT_H

#include "chassis/context.h"
#include "chassis/env.h"
#include "chassis/proto.h"

struct ch_client;
struct ch_client_stream;
struct ch_naming;

struct ch_client_options {
    struct ch_naming *naming; /* needed for names; borrowed, outlives the client */
    size_t message_bytes_max; /* received; 0: 64 MiB */
    bool no_retry;            /* this layer's caller retries */
};
/* Never fails for an unreachable target: the calls do. */
struct ch_client *ch_client_new(struct ch_env *env, const char *target,
                                const struct ch_client_options *options);
/* Cancels what is open. No call may be inside when it returns; they end with CANCELLED. */
void ch_client_free(struct ch_client *client) CH_WAITS;

struct ch_call_options {
    ch_time deadline; /* absolute; 0: the context's, or 60 s */
    bool no_retry;
    bool wait_for_ready; /* wait for a connection until the deadline instead of failing with
                            UNAVAILABLE at once */
    /* Metadata to send: pairs key, value; borrowed for the call. */
    const struct ch_metadata {
        const char *key;
        struct base_bytes value;
    } * metadata;
    size_t metadata_count;
    /* A unary call of a NO_SIDE_EFFECTS method that has no answer after so long is sent to a second
     * endpoint too, within the retry budget; the first answer wins, the other call is cancelled.
     * 0: never. Best a high percentile of the method's latency ("The Tail at Scale", CACM 2013). */
    ch_time hedge_after;
    bool outcome_unknown; /* set by a failed call when the peer may have acted on it */
};
/* One unary call. `reply` is in `arena`. `options` may be NULL. The status is the server's own, or
 * UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED, with the method and the peer in the text. */
struct base_status ch_client_call(struct ch_client *client, const struct ch_method *method,
                                  const void *request, struct ch_call_options *options,
                                  struct base_arena *arena, void **reply) CH_WAITS BASE_MUST_CHECK;

/* Streams are never retried. */
struct base_status ch_client_open(struct ch_client *client, const struct ch_method *method,
                                  struct ch_call_options *options,
                                  struct ch_client_stream **stream) CH_WAITS BASE_MUST_CHECK;
struct base_status ch_stream_send(struct ch_client_stream *stream,
                                  const void *message) CH_WAITS BASE_MUST_CHECK;
struct base_status ch_stream_close_send(struct ch_client_stream *stream) CH_WAITS BASE_MUST_CHECK;
/* *message NULL and OK: the server ended the call well. A failed status is the call's. One receiver
 * and one sender fiber may use a stream at once. */
struct base_status ch_stream_recv(struct ch_client_stream *stream, struct base_arena *arena,
                                  void **message) CH_WAITS BASE_MUST_CHECK;
/* Cancels the call when it is not over; frees the stream. */
void ch_stream_free(struct ch_client_stream *stream) CH_WAITS;

#endif
