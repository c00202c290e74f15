/* chassis/transport.h: what rpc_server and rpc_client stand on: calls as two streams of encoded
 * messages. Two implementations: gRPC C core (transport_grpc.c) and the simulated network
 * (transport_sim.c). Only chassis includes this.
 *
 * Client:  open -> send* -> close_send -> recv* -> finish.   Server: accept -> recv* -> send* ->
 * finish. All functions run on the env's loop thread. Buffers are given as base_bytes and copied or
 * sent before return unless said. */
#ifndef CHASSIS_TRANSPORT_H
#define CHASSIS_TRANSPORT_H

#include "chassis/env.h"
#include "chassis/rpc_client.h"

struct ch_tcall;    /* one call, either side */
struct ch_tchannel; /* a connection to one address */
struct ch_tlistener;

/* Status and trailers of a finished call. */
struct ch_tfinish {
    struct base_status status;
    bool never_seen;  /* the peer provably did not act on the call */
    ch_time pushback; /* the server asks for this wait before a retry; -1: for none at all; 0: it
                         did not say */
};
/* Takes one trailer into account: grpc-retry-pushback-ms, and x-strata-not-run (admission shed the
 * call). */
void ch__tfinish_trailer(struct ch_tfinish *finish, struct base_bytes key, struct base_bytes value);

struct ch_transport {
    /* ---- client ---- */
    struct ch_tchannel *(*channel_new)(struct ch_env *env, const char *address,
                                       size_t message_bytes_max);
    void (*channel_free)(struct ch_tchannel *channel);
    /* A whole unary call in as few trips as the transport can: `reply` is appended to. */
    struct ch_tfinish (*unary)(struct ch_tchannel *channel, const char *path,
                               const struct ch_metadata *metadata, size_t metadata_count,
                               ch_time deadline, bool wait_for_ready, struct base_bytes request,
                               struct base_buf *reply) CH_WAITS_SLOT;
    struct ch_tcall *(*open)(struct ch_tchannel *channel, const char *path,
                             const struct ch_metadata *metadata, size_t metadata_count,
                             ch_time deadline, bool wait_for_ready);
    /* ---- both sides ---- */
    struct base_status (*send)(struct ch_tcall *call, struct base_bytes message) CH_WAITS_SLOT;
    struct base_status (*close_send)(struct ch_tcall *call) CH_WAITS_SLOT; /* client only */
    /* *end: no more messages (client: then call finish for the status). */
    struct base_status (*recv)(struct ch_tcall *call, struct base_buf *message,
                               bool *end) CH_WAITS_SLOT;
    struct ch_tfinish (*finish)(struct ch_tcall *call)
        CH_WAITS_SLOT; /* client: waits for the status */
    void (*cancel)(struct ch_tcall *call);
    void (*free)(struct ch_tcall *call);
    /* ---- server ---- */
    /* Binds; `accept(self, call)` is called on the loop (not on a fiber) for each new call. `bound`
     * gets "host:port". */
    struct base_status (*listen)(struct ch_env *env, const char *address, size_t message_bytes_max,
                                 void (*accept)(void *self, struct ch_tcall *call), void *self,
                                 char bound[128], struct ch_tlistener **listener) CH_WAITS_SLOT;
    void (*listener_drain)(struct ch_tlistener *listener); /* no new calls */
    void (*listener_close)(struct ch_tlistener *listener)
        CH_WAITS_SLOT; /* every call must be finished */
    const char *(*path)(const struct ch_tcall *call);
    const char *(*peer)(const struct ch_tcall *call);
    ch_time (*deadline)(const struct ch_tcall *call);
    size_t (*metadata)(const struct ch_tcall *call, const struct ch_metadata **pairs);
    /* `cancelled(self)` is called once on the loop when the client has gone or the deadline passed
     * before the reply. */
    void (*on_cancel)(struct ch_tcall *call, void (*cancelled)(void *self), void *self);
    /* Sends an optional last message, trailers and the status, in one trip; waits until it is
     * handed over. Does not free. */
    void (*reply)(struct ch_tcall *call, const struct base_bytes *message,
                  const struct base_status *status, const struct ch_metadata *trailers,
                  size_t trailer_count) CH_WAITS_SLOT;
};

/* The env's. */
const struct ch_transport *ch_env_transport(struct ch_env *env);

#endif
