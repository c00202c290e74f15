/* bench_bare.c: gRPC C core as bare as it can be used: one completion queue and one thread a
 * side, a state machine for each call, one batch for the reply, no deadline; the Echo message
 * packed and unpacked by chassis' codec into a reused arena. */
#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_rpc.h"
#include "chassis/proto.h"
#include "strata/test/v1/echo.pb-c.h"

typedef Strata__Test__V1__EchoRequest EchoRequest;
typedef Strata__Test__V1__EchoReply EchoReply;

enum { ARMED = 32 };

static struct base_arena arena;
static struct base_buf packed;
static grpc_completion_queue *queue;

static grpc_byte_buffer *buffer_of(const void *message)
{
    base_buf_clear(&packed);
    ch_proto_encode(message, &packed);
    grpc_slice slice = grpc_slice_from_copied_buffer((const char *)packed.data, packed.len);
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    return buffer;
}

static void *message_of(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *descriptor)
{
    const grpc_slice_buffer *slices = &buffer->data.raw.slice_buffer;
    ProtobufCMessage *message = NULL;
    base_buf_clear(&packed);
    for (size_t i = 0; i < slices->count; i++)
        base_buf_put(&packed, GRPC_SLICE_START_PTR(slices->slices[i]),
                     GRPC_SLICE_LENGTH(slices->slices[i]));
    base_arena_reset(&arena);
    if (base_failed(ch_proto_decode(descriptor, base_buf_bytes(&packed), &arena, &message)))
        abort();
    grpc_byte_buffer_destroy(buffer);
    return message;
}

struct server_call {
    enum { ARMING, RECEIVING, REPLYING } state;
    grpc_server *server;
    grpc_call *call;
    grpc_call_details details;
    grpc_metadata_array metadata;
    grpc_byte_buffer *request, *reply;
    int cancelled;
};

static void start(grpc_call *call, const grpc_op *ops, size_t count, void *tag)
{
    if (grpc_call_start_batch(call, ops, count, tag, NULL) != GRPC_CALL_OK)
        abort();
}

static void arm(struct server_call *call)
{
    call->state = ARMING;
    grpc_call_details_init(&call->details);
    grpc_server_request_call(call->server, &call->call, &call->details, &call->metadata, queue,
                             queue, call);
}

static void server_step(struct server_call *call)
{
    grpc_op ops[4];
    memset(ops, 0, sizeof(ops));
    if (call->state == ARMING) {
        struct server_call *next = calloc(1, sizeof(*next));
        next->server = call->server;
        grpc_metadata_array_init(&next->metadata);
        arm(next);
        call->state = RECEIVING;
        ops[0] = (grpc_op){ .op = GRPC_OP_RECV_MESSAGE,
                            .data.recv_message.recv_message = &call->request };
        start(call->call, ops, 1, call);
    } else if (call->state == RECEIVING) {
        EchoRequest *request =
            message_of(call->request, &strata__test__v1__echo_request__descriptor);
        EchoReply reply;
        strata__test__v1__echo_reply__init(&reply);
        reply.payload = request->payload;
        call->reply = buffer_of(&reply);
        call->state = REPLYING;
        ops[0] = (grpc_op){ .op = GRPC_OP_SEND_INITIAL_METADATA };
        ops[1] =
            (grpc_op){ .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = call->reply };
        ops[2] = (grpc_op){ .op = GRPC_OP_SEND_STATUS_FROM_SERVER };
        ops[3] = (grpc_op){ .op = GRPC_OP_RECV_CLOSE_ON_SERVER,
                            .data.recv_close_on_server.cancelled = &call->cancelled };
        start(call->call, ops, 4, call);
    } else {
        grpc_byte_buffer_destroy(call->reply);
        grpc_call_details_destroy(&call->details);
        grpc_metadata_array_destroy(&call->metadata);
        grpc_call_unref(call->call);
        free(call);
    }
}

void bare_server(void)
{
    grpc_init();
    grpc_server *server = grpc_server_create(NULL, NULL);
    queue = grpc_completion_queue_create_for_next(NULL);
    grpc_server_register_completion_queue(server, queue, NULL);
    grpc_server_credentials *plain = grpc_insecure_server_credentials_create();
    int port = grpc_server_add_http2_port(server, "127.0.0.1:0", plain);
    grpc_server_start(server);
    for (int i = 0; i < ARMED; i++) {
        struct server_call *call = calloc(1, sizeof(*call));
        call->server = server;
        arm(call);
    }
    bench_say_port(port);
    for (;;)
        server_step(
            grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).tag);
}

struct client_call {
    grpc_call *call;
    grpc_metadata_array initial, trailing;
    grpc_byte_buffer *request, *reply;
    grpc_status_code status;
    grpc_slice details;
    int64_t sent;
};

static grpc_channel *channel;

static void call_start(struct client_call *call, const EchoRequest *request)
{
    grpc_op ops[6];
    memset(ops, 0, sizeof(ops));
    memset(call, 0, sizeof(*call));
    call->sent = bench_now_ns();
    call->request = buffer_of(request);
    call->call = grpc_channel_create_call(channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue,
                                          grpc_slice_from_static_string("/strata.test.v1.Echo/Say"),
                                          NULL, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    ops[0] = (grpc_op){ .op = GRPC_OP_SEND_INITIAL_METADATA };
    ops[1] =
        (grpc_op){ .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = call->request };
    ops[2] = (grpc_op){ .op = GRPC_OP_SEND_CLOSE_FROM_CLIENT };
    ops[3] = (grpc_op){ .op = GRPC_OP_RECV_INITIAL_METADATA,
                        .data.recv_initial_metadata.recv_initial_metadata = &call->initial };
    ops[4] =
        (grpc_op){ .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->reply };
    ops[5] = (grpc_op){ .op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                        .data.recv_status_on_client = { .trailing_metadata = &call->trailing,
                                                        .status = &call->status,
                                                        .status_details = &call->details } };
    start(call->call, ops, 6, call);
}

static void call_end(struct client_call *call, size_t payload)
{
    if (call->status != GRPC_STATUS_OK)
        abort();
    EchoReply *reply = message_of(call->reply, &strata__test__v1__echo_reply__descriptor);
    if (reply->payload.len != payload)
        abort();
    grpc_byte_buffer_destroy(call->request);
    grpc_metadata_array_destroy(&call->initial);
    grpc_metadata_array_destroy(&call->trailing);
    grpc_slice_unref(call->details);
    grpc_call_unref(call->call);
}

void bare_client(struct bench_run *run)
{
    grpc_init();
    char target[64];
    snprintf(target, sizeof(target), "127.0.0.1:%d", run->port);
    queue = grpc_completion_queue_create_for_next(NULL);
    grpc_channel_credentials *plain = grpc_insecure_credentials_create();
    channel = grpc_channel_create(target, plain, NULL);
    EchoRequest request;
    strata__test__v1__echo_request__init(&request);
    request.payload = ch_data_of(base_bytes(calloc(1, run->payload), run->payload));
    struct client_call *calls = calloc((size_t)run->outstanding, sizeof(*calls));
    for (int i = 0; i < run->outstanding; i++)
        call_start(&calls[i], &request);
    int64_t begin = bench_now_ns();
    bool warm = false;
    for (;;) {
        struct client_call *call =
            grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).tag;
        call_end(call, run->payload);
        int64_t now = bench_now_ns();
        run->ops++;
        if (warm)
            ch_observe(run->latency, (uint64_t)(now - call->sent));
        call_start(call, &request);
        if (!warm && now - begin > (int64_t)(run->seconds * 0.2e9)) {
            warm = true;
            bench_mark_begin(run);
        }
        if (warm && now - begin > (int64_t)(run->seconds * 1.2e9))
            bench_mark_end(run);
    }
}
