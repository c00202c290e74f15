/* transport_grpc.c: calls over gRPC C core on the env's completion queue: what both sides share.
 * The client's half is in transport_grpc_client.c, the server's in transport_grpc_server.c; the
 * invariants are in transport_grpc_int.h.
 *
 * Happy path of an operation: fill grpc_ops, ch__op_start (takes a reference for the tag),
 * ch__op_wait parks the fiber, the loop takes the tag off the queue and runs op_run, which ends
 * the wait and gives the reference up. Failure: gRPC reports a dead call by ok = 0 on every
 * outstanding tag; nothing is retried here. */
#include "env_real.h"
#include "transport_grpc_int.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void grpc_state_free(void *ext)
{
    struct ch__grpc *grpc = ext;
    while (grpc->pool) {
        struct ch_tcall *call = grpc->pool;
        grpc->pool = call->next;
        base_arena_free(&call->arena);
        grpc_metadata_array_destroy(&call->initial);
        grpc_metadata_array_destroy(&call->trailing);
        free(call);
    }
    free(grpc);
}

struct ch__grpc *ch__grpc_of(struct ch_env *env)
{
    if (env->ext[CH_EXT_RPC])
        return env->ext[CH_EXT_RPC];
    struct ch__grpc *grpc = calloc(1, sizeof(*grpc));
    BASE_ASSERT(grpc != NULL);
    grpc->env = env;
    grpc->cq = ch_env_cq(env);
    grpc->arm.arm_next = grpc->arm.arm_prev = &grpc->arm;
    ch_gate_init(&grpc->gate, env, "rpc watch");
    env->ext[CH_EXT_RPC] = grpc;
    env->ext_free[CH_EXT_RPC] = grpc_state_free;
    return grpc;
}

/* ---- calls and their pool ---- */

static void op_run(struct ch_tag *tag, bool ok)
{
    struct ch__op *op = (struct ch__op *)tag;
    op->done = true;
    op->ok = ok;
    if (op->waiter && !op->waiter->ended) /* a cancel may have ended it already */
        ch_wait_end(op->waiter, CH_OK);
    ch__tcall_unref(op->call);
}

struct ch_tcall *ch__tcall_new(struct ch__grpc *grpc, bool server)
{
    struct ch_tcall *call = grpc->pool;
    if (call) {
        grpc->pool = call->next;
        grpc->pooled--;
    } else {
        call = calloc(1, sizeof(*call));
        BASE_ASSERT(call != NULL);
        grpc_metadata_array_init(&call->initial);
        grpc_metadata_array_init(&call->trailing);
    }
    ch_env_hold(grpc->env);
    call->grpc = grpc;
    call->server = server;
    call->refs = 1;
    call->send = call->recv = call->status = (struct ch__op){ .tag.run = op_run, .call = call };
    return call;
}

/* Back to what ch__tcall_new expects: everything that is not cleared here keeps its memory. */
static void tcall_recycle(struct ch_tcall *call)
{
    struct ch__grpc *grpc = call->grpc;
    grpc_metadata_array initial = call->initial, trailing = call->trailing;
    struct base_arena arena = call->arena;
    ch_env_release(grpc->env);
    base_arena_reset(&arena);
    initial.count = trailing.count = 0;
    if (grpc->pooled >= CH__POOLED_CALLS_MAX) {
        base_arena_free(&arena);
        grpc_metadata_array_destroy(&initial);
        grpc_metadata_array_destroy(&trailing);
        free(call);
        return;
    }
    size_t kept_out = sizeof(call->out), out_at = offsetof(struct ch_tcall, out);
    memset(call, 0, out_at);
    memset((char *)call + out_at + kept_out, 0, sizeof(*call) - out_at - kept_out);
    call->initial = initial;
    call->trailing = trailing;
    call->arena = arena;
    call->next = grpc->pool;
    grpc->pool = call;
    grpc->pooled++;
}

void ch__tcall_ref(struct ch_tcall *call)
{
    call->refs++;
}

void ch__tcall_unref(struct ch_tcall *call)
{
    BASE_ASSERT(call->refs > 0);
    if (--call->refs)
        return;
    ch__grpc_unlist_arm(call);
    if (call->message)
        grpc_byte_buffer_destroy(call->message);
    ch__metadata_free(call->out, call->out_count);
    if (call->server)
        grpc_call_details_destroy(&call->request);
    else
        grpc_slice_unref(call->details);
    if (call->call)
        grpc_call_unref(call->call);
    if (call->channel)
        ch__grpc_channel_leave(call);
    tcall_recycle(call);
}

void ch__tcall_cut(struct ch_tcall *call)
{
    call->cancelled = true;
    if (call->server)
        grpc_call_cancel_with_status(call->call, GRPC_STATUS_UNAVAILABLE,
                                     "the server ended the call", NULL);
    else
        grpc_call_cancel(call->call, NULL);
}

bool ch__op_start(struct ch_tcall *call, struct ch__op *op, const grpc_op *ops, size_t count)
{
    op->done = false;
    op->ok = false;
    grpc_call_error error = grpc_call_start_batch(call->call, ops, count, &op->tag, NULL);
    if (error != GRPC_CALL_OK)
        return false;
    ch__tcall_ref(call);
    return true;
}

bool ch__op_wait(struct ch__op *op, bool always, const char *what)
{
    while (!op->done) {
        struct ch_wait_node node = { 0 };
        op->waiter = &node;
        enum ch_outcome outcome = ch_wait_on(NULL, &node, CH_NEVER, always, what);
        op->waiter = NULL;
        if (outcome == CH_CANCELLED) {
            ch__tcall_cut(op->call);
            always = true;
        }
    }
    return op->ok;
}

/* ---- messages ---- */

grpc_byte_buffer *ch__message_of(struct base_bytes bytes)
{
    grpc_slice slice = grpc_slice_from_copied_buffer((const char *)bytes.data, bytes.len);
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    return buffer;
}

static void append_slices(const grpc_slice_buffer *slices, struct base_buf *out)
{
    base_buf_reserve(out, slices->length);
    for (size_t i = 0; i < slices->count; i++)
        base_buf_put(out, GRPC_SLICE_START_PTR(slices->slices[i]),
                     GRPC_SLICE_LENGTH(slices->slices[i]));
}

struct base_status ch__message_take(grpc_byte_buffer *buffer, size_t bytes_max,
                                    struct base_buf *out)
{
    struct base_status status = BASE_STATUS_OK;
    const grpc_slice_buffer *slices = &buffer->data.raw.slice_buffer;
    switch (buffer->data.raw.compression) {
    case GRPC_COMPRESS_NONE:
        append_slices(slices, out);
        break;
    case GRPC_COMPRESS_DEFLATE:
    case GRPC_COMPRESS_GZIP: {
        struct base_buf packed = { 0 };
        append_slices(slices, &packed);
        status = ch__inflate(base_buf_bytes(&packed), bytes_max, out);
        base_buf_free(&packed);
        break;
    }
    default:
        status = base_status_make(BASE_UNIMPLEMENTED, "message compression %d",
                                  (int)buffer->data.raw.compression);
    }
    grpc_byte_buffer_destroy(buffer);
    return status;
}

/* ---- metadata, peers, deadlines ---- */

size_t ch__metadata_fill(grpc_metadata *out, const struct ch_metadata *pairs, size_t count)
{
    if (count > CH__METADATA_OUT_MAX)
        count = CH__METADATA_OUT_MAX;
    for (size_t i = 0; i < count; i++) {
        out[i].key = grpc_slice_from_copied_string(pairs[i].key);
        out[i].value =
            grpc_slice_from_copied_buffer((const char *)pairs[i].value.data, pairs[i].value.len);
    }
    return count;
}

void ch__metadata_free(grpc_metadata *out, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        grpc_slice_unref(out[i].key);
        grpc_slice_unref(out[i].value);
    }
}

static bool socket_peer(int fd, char *out, size_t size)
{
    struct sockaddr_storage name = { 0 };
    socklen_t len = sizeof(name);
    char host[64], port[16];
    if (getpeername(fd, (struct sockaddr *)&name, &len) != 0 ||
        getnameinfo((struct sockaddr *)&name, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return false;
    snprintf(out, size, name.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    return true;
}

void ch__peer_text(const char *uri, char *out, size_t size)
{
    if (strncmp(uri, "fd:", 3) == 0 && socket_peer(atoi(uri + 3), out, size))
        return;
    if (strncmp(uri, "ipv4:", 5) == 0 || strncmp(uri, "ipv6:", 5) == 0)
        uri += 5;
    size_t at = 0;
    for (; *uri && at + 1 < size; uri++) {
        if (strncmp(uri, "%5B", 3) == 0 || strncmp(uri, "%5D", 3) == 0) {
            out[at++] = uri[2] == 'B' ? '[' : ']';
            uri += 2;
        } else {
            out[at++] = *uri;
        }
    }
    out[at] = '\0';
}

gpr_timespec ch__gpr_deadline(struct ch_env *env, ch_time deadline)
{
    if (deadline == CH_NEVER)
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    ch_time left = deadline - ch_now(env);
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                        gpr_time_from_nanos(left > 0 ? left : 0, GPR_TIMESPAN));
}

/* ---- streams, both sides ---- */

static struct base_status call_over(const struct ch_tcall *call, const char *what)
{
    if (ch_cancelled())
        return base_status_make(BASE_CANCELLED, "%s: cancelled", what);
    return base_status_make(call->server ? BASE_CANCELLED : BASE_UNAVAILABLE,
                            "%s: the call is over", what);
}

/* Puts the initial metadata in front of the first batch of a call. */
static size_t add_initial(struct ch_tcall *call, grpc_op *ops)
{
    if (call->initial_sent)
        return 0;
    call->initial_sent = true;
    ops[0] = (grpc_op){ .op = GRPC_OP_SEND_INITIAL_METADATA,
                        .data.send_initial_metadata = { .count = call->out_count,
                                                        .metadata = call->out } };
    return 1;
}

struct base_status ch__grpc_send(struct ch_tcall *call, struct base_bytes message)
{
    if (ch_cancelled())
        return call_over(call, "send");
    grpc_op ops[2];
    memset(ops, 0, sizeof(ops));
    size_t count = add_initial(call, ops);
    grpc_byte_buffer *buffer = ch__message_of(message);
    ops[count++] =
        (grpc_op){ .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = buffer };
    bool ok =
        ch__op_start(call, &call->send, ops, count) && ch__op_wait(&call->send, false, "rpc send");
    grpc_byte_buffer_destroy(buffer);
    return ok ? BASE_STATUS_OK : call_over(call, "send");
}

struct base_status ch__grpc_recv(struct ch_tcall *call, struct base_buf *message, bool *end)
{
    *end = false;
    if (ch_cancelled())
        return call_over(call, "recv");
    grpc_op ops[3];
    memset(ops, 0, sizeof(ops));
    size_t count = call->server ? 0 : add_initial(call, ops);
    if (!call->server && !call->initial_asked) {
        call->initial_asked = true;
        ops[count++] =
            (grpc_op){ .op = GRPC_OP_RECV_INITIAL_METADATA,
                       .data.recv_initial_metadata.recv_initial_metadata = &call->initial };
    }
    ops[count++] =
        (grpc_op){ .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->message };
    bool ok = ch__op_start(call, &call->recv, ops, count) &&
              ch__op_wait(&call->recv, false, "rpc receive");
    grpc_byte_buffer *buffer = call->message;
    call->message = NULL;
    if (call->server)
        ch__grpc_arm_close_soon(call);
    if (buffer && ok)
        return base_status_wrap(ch__message_take(buffer, call->bytes_max, message), "receive");
    if (buffer)
        grpc_byte_buffer_destroy(buffer);
    if (!ok && (call->server || ch_cancelled()))
        return call_over(call, "receive");
    *end = true;
    return BASE_STATUS_OK;
}

static void grpc_free(struct ch_tcall *call)
{
    bool over = call->server ? call->replied : call->status.done;
    if (!over)
        ch__tcall_cut(call);
    call->on_cancel = NULL;
    ch__tcall_unref(call);
}

const struct ch_transport ch_transport_grpc = {
    .channel_new = ch__grpc_channel_new,
    .channel_free = ch__grpc_channel_free,
    .unary = ch__grpc_unary,
    .open = ch__grpc_open,
    .send = ch__grpc_send,
    .close_send = ch__grpc_close_send,
    .recv = ch__grpc_recv,
    .finish = ch__grpc_finish,
    .cancel = ch__tcall_cut,
    .free = grpc_free,
    .listen = ch__grpc_listen,
    .listener_drain = ch__grpc_listener_drain,
    .listener_close = ch__grpc_listener_close,
    .path = ch__grpc_path,
    .peer = ch__grpc_peer,
    .deadline = ch__grpc_deadline,
    .metadata = ch__grpc_metadata,
    .on_cancel = ch__grpc_on_cancel,
    .reply = ch__grpc_reply,
};
