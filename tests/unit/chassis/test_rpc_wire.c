/* What only a real wire can do: compressed messages, killed processes, thousands of connections. */
#include <arpa/inet.h>
#include <grpc/compression.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc_echo.h"
#include "transport_grpc_int.h"
#include "test.h"

/* ---- compression ---- */

struct packed_call {
    const char *address;
    size_t payload;
    enum base_code code;
    char text[200];
};

/* A client of its own that compresses, blocking, on a helper thread. */
static void call_packed(void *arg)
{
    struct packed_call *packed = arg;
    EchoRequest request;
    struct base_buf bytes = { 0 };
    char target[128];
    strata__test__v1__echo_request__init(&request);
    uint8_t *payload = calloc(1, packed->payload);
    request.payload = ch_data_of(base_bytes(payload, packed->payload));
    ch_proto_encode(&request.base, &bytes);
    snprintf(target, sizeof(target), "ipv4:%s", packed->address);
    grpc_arg args[] = { { .type = GRPC_ARG_INTEGER,
                          .key = (char *)GRPC_COMPRESSION_CHANNEL_DEFAULT_ALGORITHM,
                          .value.integer = GRPC_COMPRESS_GZIP },
                        { .type = GRPC_ARG_INTEGER,
                          .key = (char *)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
                          .value.integer = -1 } };
    grpc_channel_args all = { 2, args };
    grpc_channel_credentials *plain = grpc_insecure_credentials_create();
    grpc_channel *channel = grpc_channel_create(target, plain, &all);
    grpc_completion_queue *cq = grpc_completion_queue_create_for_pluck(NULL);
    gpr_timespec deadline =
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_seconds(30, GPR_TIMESPAN));
    grpc_call *call = grpc_channel_create_call(
        channel, NULL, GRPC_PROPAGATE_DEFAULTS, cq,
        grpc_slice_from_static_string(ECHO_METHOD(SAY)->path), NULL, deadline, NULL);
    grpc_byte_buffer *message = ch__message_of(base_buf_bytes(&bytes)), *reply = NULL;
    grpc_metadata_array initial = { 0 }, trailing = { 0 };
    grpc_status_code code;
    grpc_slice details;
    grpc_op ops[6];
    memset(ops, 0, sizeof(ops));
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = message;
    ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &initial;
    ops[4].op = GRPC_OP_RECV_MESSAGE;
    ops[4].data.recv_message.recv_message = &reply;
    ops[5].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    ops[5].data.recv_status_on_client.trailing_metadata = &trailing;
    ops[5].data.recv_status_on_client.status = &code;
    ops[5].data.recv_status_on_client.status_details = &details;
    if (grpc_call_start_batch(call, ops, 6, packed, NULL) != GRPC_CALL_OK)
        abort();
    grpc_completion_queue_pluck(cq, packed, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    packed->code = (enum base_code)code;
    snprintf(packed->text, sizeof(packed->text), "%.*s", (int)GRPC_SLICE_LENGTH(details),
             (const char *)GRPC_SLICE_START_PTR(details));
    grpc_slice_unref(details);
    grpc_byte_buffer_destroy(message);
    if (reply)
        grpc_byte_buffer_destroy(reply);
    grpc_metadata_array_destroy(&initial);
    grpc_metadata_array_destroy(&trailing);
    grpc_call_unref(call);
    grpc_completion_queue_shutdown(cq);
    grpc_completion_queue_destroy(cq);
    grpc_channel_destroy(channel);
    grpc_channel_credentials_release(plain);
    base_buf_free(&bytes);
    free(payload);
}

/* A compressed request is served; one that inflates beyond the message limit is refused at the
 * limit. */
RPC_TEST_REAL(compressed_messages)
{
    echo_serve(t, NULL);
    struct packed_call small = { .address = ch_server_address(t->server), .payload = 1 << 20 };
    ch_offload(t->env, call_packed, &small);
    cr_assert_eq(small.code, BASE_OK, "%s", small.text);
    cr_assert_eq(t->calls, 1u);
    struct packed_call bomb = { .address = ch_server_address(t->server), .payload = 64 << 20 };
    ch_offload(t->env, call_packed, &bomb);
    cr_assert_eq(bomb.code, BASE_RESOURCE_EXHAUSTED, "%s", bomb.text);
    cr_assert(strstr(bomb.text, "inflates") != NULL, "%s", bomb.text);
    cr_assert_eq(t->calls, 1u);
}

/* ---- unix sockets ---- */

/* Processes of one host may talk over a unix socket: half the price of TCP. */
RPC_TEST_REAL(unix_socket)
{
    struct base_status status;
    char directory[] = "/tmp/rpc-test-XXXXXX", address[128], path[128];
    cr_assert(mkdtemp(directory) != NULL);
    snprintf(address, sizeof(address), "unix:%s/socket", directory);
    snprintf(path, sizeof(path), "%s/socket", directory);
    echo_serve(t, address);
    t->client = ch_client_new(t->env, ch_server_address(t->server), NULL);
    EchoReply *reply = echo_call(t, ECHO_METHOD(SAY), echo_request(t, "x"), NULL, &status);
    cr_assert(reply, "%s", base_status_text(&status));
    cr_assert(strncmp((char *)reply->peer.data, "unix:", 5) == 0);
    unlink(path);
    rmdir(directory);
}

/* ---- killed clients ---- */

enum { STREAMS = 40 };

static int doomed_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_client *client = ch_client_new(env, arg, NULL);
    EchoRequest request;
    strata__test__v1__echo_request__init(&request);
    request.count = 1000000;
    request.reply_bytes = 5000;
    for (int i = 0; i < STREAMS; i++) {
        struct ch_client_stream *stream;
        request.wait_ms =
            i % 2 ? 60000 : 0; /* half of them are in a wait, half of them in a send */
        if (base_failed(ch_client_open(client, ECHO_METHOD(WATCH), NULL, &stream)) ||
            base_failed(ch_stream_send(stream, &request)))
            abort();
    }
    (void)ch_sleep_until(env, CH_NEVER);
    return 0;
}

static int child_pid;

static void killed_clients(struct echo *t) CH_WAITS;
static void killed_clients(struct echo *t)
{
    int *to_child = t->extra;
    echo_serve(t, NULL);
    const char *address = ch_server_address(t->server);
    cr_assert_eq(write(*to_child, address, strlen(address) + 1), (ssize_t)strlen(address) + 1);
    for (int i = 0; i < 3000 && t->calls < STREAMS; i++)
        (void)ch_sleep_until(t->env, ch_in(t->env, 10 * CH_MS));
    cr_assert_eq(t->calls, (size_t)STREAMS);
    cr_assert_eq(t->ended, 0u);
    kill(child_pid, SIGKILL);
    for (int i = 0; i < 3000 && t->ended < STREAMS; i++)
        (void)ch_sleep_until(t->env, ch_in(t->env, 10 * CH_MS));
    cr_assert_eq(t->ended, (size_t)STREAMS);
}

/* A client process that is killed in the middle of its streams leaves no handler behind. */
Test(rpc_grpc, killed_client)
{
    int fds[2];
    cr_assert_eq(pipe(fds), 0);
    child_pid = fork(); /* before gRPC has any thread */
    if (child_pid == 0) {
        static char address[128];
        if (read(fds[0], address, sizeof(address)) <= 0)
            _exit(1);
        ch_env_run(doomed_main, address);
        _exit(0);
    }
    echo_run_real_with(killed_clients, &fds[1]);
    kill(child_pid, SIGKILL);
    waitpid(child_pid, NULL, 0);
}

/* ---- many connections ---- */

enum { SILENT = 1500, CLIENTS = 200 };

/* Thousands of connections, most of them silent or half begun, do not keep the server from serving
 * the rest. */
RPC_TEST_REAL(many_connections)
{
    static int fds[SILENT];
    struct rlimit limit;
    struct base_status status;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < 8192 ? limit.rlim_max : 8192;
    setrlimit(RLIMIT_NOFILE, &limit);
    echo_connect(t);
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons(
                                  (uint16_t)atoi(strrchr(ch_server_address(t->server), ':') + 1)),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    for (int i = 0; i < SILENT; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)!connect(fds[i], (struct sockaddr *)&to, sizeof(to));
        if (i % 100 == 0)
            (void)ch_sleep_until(t->env, ch_in(t->env, CH_MS));
        if (i % 3 == 0)
            (void)!write(fds[i], i % 2 ? "PRI * HTTP/2.0\r\n" : "GET / HTTP/1.1\r\n\r\n", 16);
    }
    for (int i = 0; i < CLIENTS; i++) {
        struct ch_client *first = t->client, *own;
        own = t->client = ch_client_new(t->env, ch_server_address(t->server), NULL);
        EchoReply *reply = echo_call(t, ECHO_METHOD(SAY), echo_request(t, "x"), NULL, &status);
        t->client = first;
        cr_assert(reply, "client %d: %s", i, base_status_text(&status));
        ch_client_free(own);
    }
    for (int i = 0; i < SILENT; i++)
        close(fds[i]);
    cr_assert(echo_call(t, ECHO_METHOD(SAY), echo_request(t, "x"), NULL, &status));
}
