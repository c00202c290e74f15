/* transport_grpc_server.c: the server's half of the gRPC transport.
 *
 * Happy path of a unary call: one of the armed generic requests comes back -> accept() (which
 * starts a fiber) -> RECV_MESSAGE -> one batch {initial metadata, message, status, RECV_CLOSE}.
 * RECV_CLOSE, which tells that the client is gone, is asked for alone only when the handler has
 * not replied by the time every ready fiber has run (a handler that never waits saves that
 * batch), and for streams.
 * Invariants:
 *  1. CH__ARMED_REQUESTS are armed until shutdown; each is re-armed before its call is handed
 *     up.
 *  2. A listener is destroyed only after its shutdown tag, after every armed request came back
 *     and every call was freed.
 * Shutdown (another order aborts): shutdown_and_notify -> [calls finish, clients leave; after
 * GOAWAY_MS cancel_all_calls] -> tag -> destroy. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <grpc/grpc_posix.h>

#include "transport_grpc_int.h"

enum {
    PING_INTERVAL_LEAST_MS = 200, /* clients may ping this often without data */
    KEEPALIVE_MS = 30000,
    KEEPALIVE_TIMEOUT_MS = 20000,
    HANDSHAKE_MS = 10000,
    GOAWAY_MS = 1500, /* for clients, busy ones too, to take note of a server's end */
    FRAME_BYTES_MAX = 1 << 20,
};

struct ch__armed {
    struct ch_tag tag; /* first */
    struct ch_tlistener *listener;
    struct ch_tcall *call;
};

struct ch_tlistener {
    struct ch_tag down; /* first: the shutdown tag */
    struct ch__grpc *grpc;
    grpc_server *server;
    void (*accept)(void *self, struct ch_tcall *call);
    void *self;
    size_t bytes_max, armed_count;
    bool draining, is_down;
    struct ch_wait_node *closer;
    struct ch__armed armed[CH__ARMED_REQUESTS];
};

static void wake_closer(struct ch_tlistener *listener)
{
    if (listener->closer && !listener->closer->ended && listener->is_down &&
        listener->armed_count == 0)
        ch_wait_end(listener->closer, CH_OK);
}

static void arm(struct ch__armed *armed)
{
    struct ch_tlistener *listener = armed->listener;
    struct ch_tcall *call = ch__tcall_new(listener->grpc, true);
    call->listener = listener;
    call->bytes_max = listener->bytes_max;
    grpc_call_details_init(&call->request);
    armed->call = call;
    listener->armed_count++;
    grpc_call_error error =
        grpc_server_request_call(listener->server, &call->call, &call->request, &call->initial,
                                 listener->grpc->cq, listener->grpc->cq, &armed->tag);
    BASE_ASSERT(error == GRPC_CALL_OK);
}

static void call_begin(struct ch_tlistener *listener, struct ch_tcall *call)
{
    gpr_timespec deadline = call->request.deadline;
    call->deadline = CH_NEVER;
    if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) != 0) {
        gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
        call->deadline = ch_now(listener->grpc->env) + left.tv_sec * CH_S + left.tv_nsec;
    }
    size_t len = GRPC_SLICE_LENGTH(call->request.method);
    if (len < sizeof(call->path)) {
        memcpy(call->path, GRPC_SLICE_START_PTR(call->request.method), len);
        call->path[len] = '\0';
    } else {
        call->path_long = base_bytes_cstr(
            &call->arena, base_bytes(GRPC_SLICE_START_PTR(call->request.method), len));
    }
    listener->accept(listener->self, call);
}

static void armed_run(struct ch_tag *tag, bool ok)
{
    struct ch__armed *armed = (struct ch__armed *)tag;
    struct ch_tlistener *listener = armed->listener;
    struct ch_tcall *call = armed->call;
    armed->call = NULL;
    listener->armed_count--;
    if (!ok) {
        ch__tcall_unref(call);
        wake_closer(listener);
        return;
    }
    if (!listener->draining)
        arm(armed);
    call_begin(listener, call);
}

static void down_run(struct ch_tag *tag, bool ok)
{
    struct ch_tlistener *listener = (struct ch_tlistener *)tag;
    listener->is_down = true;
    wake_closer(listener);
}

static grpc_arg arg_int(const char *key, int value)
{
    return (grpc_arg){ .type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value };
}

static grpc_server *server_new(size_t message_bytes_max)
{
    grpc_arg args[] = {
        arg_int(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
                message_bytes_max < INT32_MAX ? (int)message_bytes_max : -1),
        arg_int(GRPC_ARG_ALLOW_REUSEPORT, 0),
        arg_int(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, PING_INTERVAL_LEAST_MS),
        arg_int(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        arg_int(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS),
        arg_int(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_TIMEOUT_MS),
        arg_int(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, HANDSHAKE_MS),
        arg_int(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, FRAME_BYTES_MAX),
        arg_int(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
        arg_int(GRPC_ARG_MAX_METADATA_SIZE, CH__HEADER_BYTES_MAX),
        arg_int(GRPC_ARG_ENABLE_CHANNELZ, 0),
    };
    grpc_channel_args all = { sizeof(args) / sizeof(args[0]), args };
    return grpc_server_create(&all, NULL);
}

/* "127.0.0.1:0" with port 4711 is "127.0.0.1:4711"; a unix address is bound as it is. */
static void bound_text(const char *address, int port, char bound[128])
{
    const char *colon = strrchr(address, ':');
    if (strncmp(address, "unix", 4) == 0 || !colon)
        snprintf(bound, 128, "%s", address);
    else
        snprintf(bound, 128, "%.*s:%d", (int)(colon - address), address, port);
}

static struct ch_tlistener *listener_new(struct ch_env *env, size_t message_bytes_max,
                                         void (*accept)(void *self, struct ch_tcall *call),
                                         void *self)
{
    struct ch_tlistener *listener = calloc(1, sizeof(*listener));
    BASE_ASSERT(listener != NULL);
    listener->grpc = ch__grpc_of(env);
    listener->accept = accept;
    listener->self = self;
    listener->bytes_max = message_bytes_max;
    listener->down.run = down_run;
    listener->server = server_new(message_bytes_max);
    grpc_server_register_completion_queue(listener->server, listener->grpc->cq, NULL);
    ch_env_hold(env);
    return listener;
}

static void listener_begin(struct ch_tlistener *listener)
{
    for (size_t i = 0; i < CH__ARMED_REQUESTS; i++) {
        listener->armed[i] = (struct ch__armed){ .tag.run = armed_run, .listener = listener };
        arm(&listener->armed[i]);
    }
}

struct base_status ch__grpc_listen(struct ch_env *env, const char *address,
                                   size_t message_bytes_max,
                                   void (*accept)(void *self, struct ch_tcall *call), void *self,
                                   char bound[128], struct ch_tlistener **out)
{
    struct ch_tlistener *listener = listener_new(env, message_bytes_max, accept, self);
    grpc_server_credentials *plain = grpc_insecure_server_credentials_create();
    int port = grpc_server_add_http2_port(listener->server, address, plain);
    grpc_server_credentials_release(plain);
    grpc_server_start(listener->server);
    *out = listener;
    if (port == 0) {
        ch__grpc_listener_close(listener);
        *out = NULL;
        return base_status_make(BASE_UNAVAILABLE,
                                "listen %s: the address is taken or not of this machine", address);
    }
    bound_text(address, port, bound);
    listener_begin(listener);
    return BASE_STATUS_OK;
}

struct ch_tlistener *ch__grpc_listen_nowhere(struct ch_env *env, size_t message_bytes_max,
                                             void (*accept)(void *self, struct ch_tcall *call),
                                             void *self)
{
    struct ch_tlistener *listener = listener_new(env, message_bytes_max, accept, self);
    grpc_server_start(listener->server);
    listener_begin(listener);
    return listener;
}

void ch__grpc_listener_adopt(struct ch_tlistener *listener, int fd)
{
    if (listener->draining) {
        close(fd);
        return;
    }
    grpc_server_credentials *plain = grpc_insecure_server_credentials_create();
    grpc_server_add_channel_from_fd(listener->server, fd, plain);
    grpc_server_credentials_release(plain);
}

void ch__grpc_listener_drain(struct ch_tlistener *listener)
{
    if (listener->draining)
        return;
    listener->draining = true;
    grpc_server_shutdown_and_notify(listener->server, listener->grpc->cq, &listener->down);
}

/* Until gRPC says it is down and every armed request is back, or the deadline. */
static bool wait_down(struct ch_tlistener *listener, ch_time deadline) CH_WAITS;
static bool wait_down(struct ch_tlistener *listener, ch_time deadline)
{
    while (!listener->is_down || listener->armed_count > 0) {
        struct ch_wait_node node = { 0 };
        listener->closer = &node;
        enum ch_outcome outcome = ch_wait_on(NULL, &node, deadline, true, "rpc server shutdown");
        listener->closer = NULL;
        if (outcome == CH_TIMEOUT)
            return false;
    }
    return true;
}

void ch__grpc_listener_close(struct ch_tlistener *listener)
{
    ch__grpc_listener_drain(listener);
    /* Connections end by themselves once the peer has the GOAWAY; cutting them sooner would turn
     * calls that were just being sent from "refused, send again" into "broken, outcome unknown". */
    if (!wait_down(listener, ch_in(listener->grpc->env, GOAWAY_MS * CH_MS))) {
        grpc_server_cancel_all_calls(listener->server);
        wait_down(listener, CH_NEVER);
    }
    grpc_server_destroy(listener->server);
    ch_env_release(listener->grpc->env);
    free(listener);
}

/* ---- a call ---- */

const char *ch__grpc_path(const struct ch_tcall *call)
{
    return call->path_long ? call->path_long : call->path;
}

const char *ch__grpc_peer(const struct ch_tcall *call)
{
    struct ch_tcall *own = (struct ch_tcall *)call; /* found on first use */
    if (!own->peer) {
        char text[128], *uri = grpc_call_get_peer(own->call);
        ch__peer_text(uri, text, sizeof(text));
        gpr_free(uri);
        own->peer = base_arena_strdup(&own->arena, text);
    }
    return own->peer;
}

ch_time ch__grpc_deadline(const struct ch_tcall *call)
{
    return call->deadline;
}

size_t ch__grpc_metadata(const struct ch_tcall *call, const struct ch_metadata **pairs)
{
    struct ch_tcall *own = (struct ch_tcall *)call; /* converted on first use */
    size_t count = own->initial.count;
    if (!own->pairs) {
        own->pairs = BASE_NEW_ARRAY(&own->arena, struct ch_metadata, count);
        for (size_t i = 0; i < count; i++) {
            grpc_metadata *pair = &own->initial.metadata[i];
            own->pairs[i].key =
                base_bytes_cstr(&own->arena, base_bytes(GRPC_SLICE_START_PTR(pair->key),
                                                        GRPC_SLICE_LENGTH(pair->key)));
            own->pairs[i].value =
                base_bytes(GRPC_SLICE_START_PTR(pair->value), GRPC_SLICE_LENGTH(pair->value));
        }
    }
    *pairs = own->pairs;
    return count;
}

/* ---- the client's going away ---- */

static void close_run(struct ch_tag *tag, bool ok)
{
    struct ch_tcall *call = ((struct ch__op *)tag)->call;
    call->status.done = true;
    void (*cancelled)(void *self) = call->on_cancel;
    call->on_cancel = NULL;
    if (call->cancel_flag && cancelled)
        cancelled(call->on_cancel_self);
    ch__tcall_unref(call);
}

static void arm_close(struct ch_tcall *call)
{
    ch__grpc_unlist_arm(call);
    if (call->close_armed || call->replied)
        return;
    grpc_op op;
    memset(&op, 0, sizeof(op));
    op = (grpc_op){ .op = GRPC_OP_RECV_CLOSE_ON_SERVER,
                    .data.recv_close_on_server.cancelled = &call->cancel_flag };
    call->status.tag.run = close_run;
    call->close_armed = ch__op_start(call, &call->status, &op, 1);
}

static void armer_main(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch__grpc *grpc = arg;
    grpc->armer_running = false;
    while (grpc->arm.arm_next != &grpc->arm)
        arm_close(grpc->arm.arm_next);
}

void ch__grpc_unlist_arm(struct ch_tcall *call)
{
    if (!call->arm_listed)
        return;
    call->arm_listed = false;
    call->arm_next->arm_prev = call->arm_prev;
    call->arm_prev->arm_next = call->arm_next;
}

void ch__grpc_arm_close_soon(struct ch_tcall *call)
{
    struct ch__grpc *grpc = call->grpc;
    if (call->arm_listed || call->close_armed || call->replied)
        return;
    call->arm_listed = true;
    call->arm_next = &grpc->arm;
    call->arm_prev = grpc->arm.arm_prev;
    call->arm_prev->arm_next = call->arm_next->arm_prev = call;
    if (grpc->armer_running)
        return;
    grpc->armer_running = true;
    if (base_status_drop(ch_gate_spawn(&grpc->gate, "rpc watch close", armer_main, grpc)) !=
        BASE_OK) {
        grpc->armer_running = false;
        arm_close(call);
    }
}

void ch__grpc_on_cancel(struct ch_tcall *call, void (*cancelled)(void *self), void *self)
{
    call->on_cancel = cancelled;
    call->on_cancel_self = self;
}

/* ---- the end ---- */

static grpc_slice details_of(const struct base_status *status)
{
    if (!base_failed(*status))
        return grpc_empty_slice();
    struct base_bytes text = base_bytes_str(base_status_text(status));
    return grpc_slice_from_copied_buffer(
        (const char *)text.data, text.len < CH__STATUS_TEXT_MAX ? text.len : CH__STATUS_TEXT_MAX);
}

/* One batch with everything that is still owed to the client. False: gRPC refused it. */
static bool reply_start(struct ch_tcall *call, grpc_byte_buffer *message,
                        const struct base_status *status, size_t trailer_count)
{
    grpc_op ops[4];
    memset(ops, 0, sizeof(ops));
    size_t count = 0;
    grpc_slice details = details_of(status);
    if (!call->initial_sent)
        ops[count++] = (grpc_op){ .op = GRPC_OP_SEND_INITIAL_METADATA };
    if (message)
        ops[count++] =
            (grpc_op){ .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = message };
    ops[count] = (grpc_op){ .op = GRPC_OP_SEND_STATUS_FROM_SERVER };
    ops[count].data.send_status_from_server.trailing_metadata_count = trailer_count;
    ops[count].data.send_status_from_server.trailing_metadata = call->out;
    ops[count].data.send_status_from_server.status = (grpc_status_code)status->code;
    ops[count++].data.send_status_from_server.status_details =
        base_failed(*status) ? &details : NULL;
    if (!call->close_armed)
        ops[count++] = (grpc_op){ .op = GRPC_OP_RECV_CLOSE_ON_SERVER,
                                  .data.recv_close_on_server.cancelled = &call->cancel_flag };
    bool started = ch__op_start(call, &call->send, ops, count);
    grpc_slice_unref(details);
    return started;
}

void ch__grpc_reply(struct ch_tcall *call, const struct base_bytes *message,
                    const struct base_status *status, const struct ch_metadata *trailers,
                    size_t trailer_count)
{
    BASE_ASSERT(!call->replied);
    ch__grpc_unlist_arm(call);
    call->replied = true;
    call->on_cancel = NULL;
    grpc_byte_buffer *buffer = message ? ch__message_of(*message) : NULL;
    call->out_count = ch__metadata_fill(call->out, trailers, trailer_count);
    bool started = reply_start(call, buffer, status, call->out_count);
    if (!started && call->out_count > 0) /* a trailer HTTP/2 does not allow: do without */
        started = reply_start(call, buffer, status, 0);
    if (started) {
        call->initial_sent = call->close_armed = true;
        ch__op_wait(&call->send, true, "rpc reply sent");
    } else {
        ch__tcall_cut(call);
    }
    if (buffer)
        grpc_byte_buffer_destroy(buffer);
}
