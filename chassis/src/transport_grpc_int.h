/* transport_grpc_int.h (private to transport_grpc*.c): one call of the gRPC transport, its tags,
 * and the env's pool of them.
 *
 * Invariants:
 *  1. A call has one owner (a fiber's code above) and one reference for every tag gRPC owes it;
 *     it goes back to the pool when the last is given up. gRPC never writes into a pooled call.
 *  2. An operation (struct ch__op) is started by one fiber at a time and its tag always comes; a
 *     fiber that is cancelled while it waits cancels the gRPC call and then waits on for the
 *     tag, which follows at once. So what a batch points at may lie in the call.
 *  3. All of it runs on the env's loop thread. */
#ifndef CHASSIS_TRANSPORT_GRPC_INT_H
#define CHASSIS_TRANSPORT_GRPC_INT_H

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>

#include "chassis/transport.h"
#include "env_int.h"

enum {
    CH__POOLED_CALLS_MAX = 4096,
    CH__ARMED_REQUESTS = 32,          /* request_call outstanding on a listener */
    CH__METADATA_OUT_MAX = 24,        /* pairs we send with one call, one way */
    CH__HEADER_BYTES_MAX = 64 * 1024, /* of one call's metadata */
    CH__STATUS_TEXT_MAX = 4096,       /* bytes of status text put on the wire */
};

struct ch__op {
    struct ch_tag tag; /* first */
    struct ch_tcall *call;
    struct ch_wait_node *waiter;
    bool done, ok;
};

struct ch_tcall {
    struct ch__grpc *grpc;
    struct ch_tcall *next; /* pool */
    grpc_call *call;
    uint32_t refs;
    bool server, initial_sent, initial_asked, close_armed, replied, cancelled;
    struct ch__op send, recv,
        status; /* status: client RECV_STATUS (unary: everything), server RECV_CLOSE */
    grpc_byte_buffer *message;
    grpc_metadata_array initial, trailing;
    struct base_arena arena;
    size_t bytes_max; /* a received message, inflated */
    /* client */
    struct ch_tchannel *channel;
    struct ch_tcall *channel_next, *channel_prev; /* its open calls */
    grpc_status_code code;
    grpc_slice details;
    grpc_metadata out[CH__METADATA_OUT_MAX];
    size_t out_count;
    ch_time deadline;
    /* server */
    struct ch_tlistener *listener;
    grpc_call_details request;
    int cancel_flag;
    void (*on_cancel)(void *self);
    void *on_cancel_self;
    char path[160];
    const char *path_long;
    const char *peer; /* in arena */
    struct ch_metadata *pairs;
    struct ch_tcall *arm_next, *arm_prev;
    bool arm_listed;
};

/* One an env, in its CH_EXT_RPC slot. */
struct ch__grpc {
    struct ch_env *env;
    grpc_completion_queue *cq;
    struct ch_tcall *pool;
    size_t pooled;
    struct ch_gate gate;
    /* List head: server calls whose RECV_CLOSE is to be asked for unless they reply at once. */
    struct ch_tcall arm;
    bool armer_running;
};

struct ch__grpc *ch__grpc_of(struct ch_env *env);
struct ch_tcall *ch__tcall_new(struct ch__grpc *grpc, bool server);
void ch__tcall_ref(struct ch_tcall *call);
void ch__tcall_unref(struct ch_tcall *call);
/* Ends the call from this side. A server's client gets UNAVAILABLE: the bare CANCELLED of gRPC is
 * left to calls that no handler saw (transport_grpc_client.c). */
void ch__tcall_cut(struct ch_tcall *call);
/* Starts a batch under an operation's tag; false: the call is over (or the batch was refused),
 * no tag will come. */
bool ch__op_start(struct ch_tcall *call, struct ch__op *op, const grpc_op *ops, size_t count);
/* Waits for the tag. With `always` a cancelled fiber waits on without cancelling the call.
 * Returns the tag's ok. */
bool ch__op_wait(struct ch__op *op, bool always, const char *what) CH_WAITS;
/* Appends the buffer's bytes, inflated when compressed, and destroys it. */
struct base_status ch__message_take(grpc_byte_buffer *buffer, size_t bytes_max,
                                    struct base_buf *out) BASE_MUST_CHECK;
grpc_byte_buffer *ch__message_of(struct base_bytes bytes);
/* Fills slices; the caller unrefs them with ch__metadata_free. Pairs beyond the limit are left
 * out. */
size_t ch__metadata_fill(grpc_metadata *out, const struct ch_metadata *pairs, size_t count);
void ch__metadata_free(grpc_metadata *out, size_t count);
/* "ipv4:127.0.0.1:80" and "ipv6:%5B::1%5D:80" as "127.0.0.1:80" and "[::1]:80", "fd:7" (an
 * adopted connection) as the address of its other end; what is none of these as it is. */
void ch__peer_text(const char *uri, char *out, size_t size);
gpr_timespec ch__gpr_deadline(struct ch_env *env, ch_time deadline);
struct base_status ch__grpc_send(struct ch_tcall *call,
                                 struct base_bytes message) CH_WAITS BASE_MUST_CHECK;
struct base_status ch__grpc_recv(struct ch_tcall *call, struct base_buf *message,
                                 bool *end) CH_WAITS BASE_MUST_CHECK;
/* inflate.c: gzip or zlib wrapped; RESOURCE_EXHAUSTED beyond bytes_max, INVALID_ARGUMENT for
 * what does not inflate. */
struct base_status ch__inflate(struct base_bytes in, size_t bytes_max,
                               struct base_buf *out) BASE_MUST_CHECK;

/* transport_grpc_client.c */
struct ch_tchannel *ch__grpc_channel_new(struct ch_env *env, const char *address,
                                         size_t message_bytes_max);
void ch__grpc_channel_free(struct ch_tchannel *channel);
struct ch_tfinish ch__grpc_unary(struct ch_tchannel *channel, const char *path,
                                 const struct ch_metadata *metadata, size_t metadata_count,
                                 ch_time deadline, bool wait_for_ready, struct base_bytes request,
                                 struct base_buf *reply) CH_WAITS;
struct ch_tcall *ch__grpc_open(struct ch_tchannel *channel, const char *path,
                               const struct ch_metadata *metadata, size_t metadata_count,
                               ch_time deadline, bool wait_for_ready);
struct base_status ch__grpc_close_send(struct ch_tcall *call) CH_WAITS BASE_MUST_CHECK;
struct ch_tfinish ch__grpc_finish(struct ch_tcall *call) CH_WAITS;
void ch__grpc_channel_leave(struct ch_tcall *call);

/* transport_grpc_server.c */
struct base_status ch__grpc_listen(struct ch_env *env, const char *address,
                                   size_t message_bytes_max,
                                   void (*accept)(void *self, struct ch_tcall *call), void *self,
                                   char bound[128],
                                   struct ch_tlistener **listener) CH_WAITS BASE_MUST_CHECK;
/* A listener without a port of its own; ch__grpc_listener_adopt gives it connected, non-blocking
 * sockets (given in any case). */
struct ch_tlistener *ch__grpc_listen_nowhere(struct ch_env *env, size_t message_bytes_max,
                                             void (*accept)(void *self, struct ch_tcall *call),
                                             void *self);
void ch__grpc_listener_adopt(struct ch_tlistener *listener, int fd);
void ch__grpc_listener_drain(struct ch_tlistener *listener);
void ch__grpc_listener_close(struct ch_tlistener *listener) CH_WAITS;
const char *ch__grpc_path(const struct ch_tcall *call);
const char *ch__grpc_peer(const struct ch_tcall *call);
ch_time ch__grpc_deadline(const struct ch_tcall *call);
size_t ch__grpc_metadata(const struct ch_tcall *call, const struct ch_metadata **pairs);
void ch__grpc_on_cancel(struct ch_tcall *call, void (*cancelled)(void *self), void *self);
void ch__grpc_reply(struct ch_tcall *call, const struct base_bytes *message,
                    const struct base_status *status, const struct ch_metadata *trailers,
                    size_t trailer_count) CH_WAITS;
/* A server call's first message is in: asks for RECV_CLOSE once every fiber that is ready now
 * has run, unless it replied. */
void ch__grpc_arm_close_soon(struct ch_tcall *call);
void ch__grpc_unlist_arm(struct ch_tcall *call);

#endif
