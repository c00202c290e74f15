/* One port for gRPC and HTTP/1.1, real sockets only. */
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "chassis/http.h"
#include "rpc_echo.h"
#include "test.h"

static void hello(void *self, const struct ch_http_request *request,
                  struct ch_http_reply *reply) CH_WAITS;
static void hello(void *self, const struct ch_http_request *request, struct ch_http_reply *reply)
{
    reply->code = 200;
    reply->content_type = "text/plain";
    base_buf_printf(&reply->body, "%s %s %zu", request->method, request->path, request->body.len);
}

static const struct ch_http_handler hello_handler = { .handle = hello };

static int connect_to(const char *address)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1)),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
        abort();
    return fd;
}

struct http_job {
    const char *address;
    char answer[4096];
    bool in_pieces;
};

/* Blocking, on a helper thread. */
static void http_get(void *arg)
{
    struct http_job *job = arg;
    static const char request[] =
        "POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    int fd = connect_to(job->address);
    size_t len = sizeof(request) - 1, step = job->in_pieces ? 1 : len, got = 0;
    for (size_t at = 0; at < len; at += step)
        if (write(fd, request + at, step) != (ssize_t)step)
            abort();
    ssize_t n;
    while ((n = read(fd, job->answer + got, sizeof(job->answer) - 1 - got)) > 0)
        got += (size_t)n;
    job->answer[got] = '\0';
    close(fd);
}

static void check_http(struct echo *t, bool in_pieces) CH_WAITS;
static void check_http(struct echo *t, bool in_pieces)
{
    struct http_job job = { .address = ch_server_address(t->server), .in_pieces = in_pieces };
    ch_offload(t->env, http_get, &job);
    cr_assert(strstr(job.answer, "200 OK") && strstr(job.answer, "POST /v1/x 5"), "%s", job.answer);
}

/* Both protocols are served on one port, and gRPC's message limit there is ours (10 MiB), not
 * gRPC's default of 4 MiB. */
RPC_TEST_REAL(both_on_one_port)
{
    struct base_status status;
    t->server_options.http = &hello_handler;
    echo_connect(t);
    check_http(t, false);
    check_http(t, true);
    EchoReply *reply = echo_call(t, ECHO_METHOD(SAY), echo_request(t, "hi"), NULL, &status);
    cr_assert(reply, "%s", base_status_text(&status));
    cr_assert(strncmp((char *)reply->peer.data, "127.0.0.1:", 10) == 0, "peer %.*s",
              BASE_FMT(ch_bytes_of(reply->peer)));
    EchoRequest *large = echo_request(t, "large");
    large->payload = ch_data_of(base_bytes(base_arena_calloc(&t->arena, 1, 10 << 20), 10 << 20));
    reply = echo_call(t, ECHO_METHOD(SAY), large, NULL, &status);
    cr_assert(reply, "%s", base_status_text(&status));
    cr_assert_eq(reply->payload.len, (size_t)10 << 20);
    large->payload.len = 0;
    large->payload = ch_data_of(base_bytes(base_arena_calloc(&t->arena, 1, 11 << 20), 11 << 20));
    reply = echo_call(t, ECHO_METHOD(SAY), large, NULL, &status);
    cr_assert(!reply && status.code == BASE_RESOURCE_EXHAUSTED, "%s", base_status_text(&status));
    base_status_free(&status);
}

/* Connections that say nothing, or stop in the middle of the first word, hold up nobody. */
RPC_TEST_REAL(silent_connections_hold_nobody)
{
    struct base_status status;
    int fds[200];
    t->server_options.http = &hello_handler;
    echo_connect(t);
    for (int i = 0; i < 200; i++) {
        fds[i] = connect_to(ch_server_address(t->server));
        if (i % 2)
            cr_assert_eq(write(fds[i], "PR", 2), 2);
        if (i % 3 == 0)
            shutdown(fds[i], SHUT_WR);
    }
    check_http(t, false);
    EchoReply *reply = echo_call(t, ECHO_METHOD(SAY), echo_request(t, "hi"), NULL, &status);
    cr_assert(reply, "%s", base_status_text(&status));
    for (int i = 0; i < 200; i++)
        close(fds[i]);
    check_http(t, true);
}

/* Two addresses of one server: each serves both; the text names both. */
RPC_TEST_REAL(two_addresses)
{
    struct base_status status;
    t->server_options.http = &hello_handler;
    echo_serve(t, "127.0.0.1:0,127.0.0.1:0");
    const char *second = strchr(ch_server_address(t->server), ',');
    cr_assert(second != NULL);
    t->client = ch_client_new(t->env, second + 1, NULL);
    cr_assert(echo_call(t, ECHO_METHOD(SAY), echo_request(t, "hi"), NULL, &status), "%s",
              base_status_text(&status));
    check_http(t, false);
}
