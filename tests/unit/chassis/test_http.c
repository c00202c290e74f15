/* HTTP: requests reach a fiber whole and within their limits, replies come back, and nothing a
 * client sends costs more than itself. The client here is plain sockets on a helper thread, so
 * that every byte is the test's own. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

#include "http_int.h"
#include "test.h"

enum { BODY_MAX = 100000 };

/* ---- the client ---- */

struct client {
    const char *address;
    struct base_buf request, reply;
};

static int dial(const char *address)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1)) };
    struct timeval limit = { .tv_sec = 20 };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    return connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 ? fd : -1;
}

/* Sends all, reads until the server closes. */
static void exchange(void *arg)
{
    struct client *client = arg;
    int fd = dial(client->address);
    ssize_t n;
    for (size_t sent = 0; sent < client->request.len; sent += (size_t)n) {
        n = send(fd, client->request.data + sent, client->request.len - sent, MSG_NOSIGNAL);
        if (n <= 0)
            break;
    }
    while ((n = read(fd, base_buf_extend(&client->reply, 65536), 65536)) > 0)
        client->reply.len -= 65536 - (size_t)n;
    client->reply.len -= 65536;
    base_buf_put_u8(&client->reply, 0);
    close(fd);
}

/* ---- the server ---- */

static void echo(void *self, const struct ch_http_request *request, struct ch_http_reply *reply)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = self;
    if (strcmp(request->path, "/slow") == 0)
        (void)ch_sleep_until(env, ch_in(env, 300 * CH_MS));
    if (strcmp(request->path, "/nothing") == 0)
        return;
    if (strcmp(request->path, "/large") == 0) {
        for (int i = 0; i < 5000; i++)
            base_buf_printf(&reply->body, "line %d\n", i % 10);
    } else {
        const char *q = ch_http_query(request, "q");
        base_buf_printf(&reply->body, "%s %s q=%s type=%s len=%zu:%.*s", request->method,
                        request->path, q ? q : "(none)", request->content_type, request->body.len,
                        request->body.len < 100 ? (int)request->body.len : 0,
                        (const char *)request->body.data);
    }
    reply->code = 200;
    reply->content_type = "text/plain";
}

struct session {
    struct ch_env *env;
    struct ch_http_server *server;
};

static char *ask(struct session *session, struct base_bytes request) CH_WAITS;
static char *ask(struct session *session, struct base_bytes request)
{
    static struct client client;
    base_buf_clear(&client.request);
    base_buf_clear(&client.reply);
    client.address = ch_http_address(session->server);
    base_buf_put_bytes(&client.request, request);
    ch_offload(session->env, exchange, &client);
    return (char *)client.reply.data;
}

static void answers(struct session *session, const char *request, const char *in_reply) CH_WAITS;
static void answers(struct session *session, const char *request, const char *in_reply)
{
    char *reply = ask(session, base_bytes_str(request));
    cr_assert_not_null(strstr(reply, in_reply), "%s\n-- gave --\n%s", request, reply);
}

struct run {
    void (*body)(struct session *session) CH_WAITS_SLOT;
};

static int run_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct run *run = arg;
    const struct ch_http_handler handler = { .handle = echo,
                                             .self = env,
                                             .body_bytes_max = BODY_MAX };
    struct session session = { .env = env };
    struct base_status status = ch_http_start(env, "127.0.0.1:0", &handler, &session.server);
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    run->body(&session);
    ch_http_stop(session.server);
    return 0;
}

static void run(void (*body)(struct session *session))
{
    CH_FIBER_ENTRY(); /* for the analysis alone */
    struct run run;
    run.body = body;
    ch_env_run(run_main, &run);
}

/* ---- tests ---- */

static void requests(struct session *session) CH_WAITS;
static void requests(struct session *session)
{
    answers(session,
            "GET /a%20b/c:d?x=1&q=v%3Dw+z HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            "GET /a b/c:d q=v=w z type=");
    answers(session, "GET /plain HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "q=(none)");
    answers(session,
            "POST /p HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 5\r\n"
            "Connection: close\r\n\r\nhello",
            "type=application/json len=5:hello");
    answers(session,
            "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            "3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
            "len=7:abcdefg");
    /* Two on one connection, the second sent before the first was answered. */
    char *reply =
        ask(session, BASE_BYTES_LIT("GET /one HTTP/1.1\r\nHost: h\r\n\r\n"
                                    "GET /two HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
    const char *one = strstr(reply, "GET /one"), *two = strstr(reply, "GET /two");
    cr_assert(one && two && one < two, "%s", reply);
    answers(session, "GET /nothing HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 500");
}

Test(http, requests_reach_the_handler_whole, .timeout = 60)
{
    run(requests);
}

static void refusals(struct session *session) CH_WAITS;
static void refusals(struct session *session)
{
    answers(session, "GET /a%00b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "HTTP/1.1 400");
    answers(session, "GET /a%2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "HTTP/1.1 400");
    answers(session,
            "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 100001\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 413");
    answers(session,
            "POST /p HTTP/1.1\r\nHost: h\r\nContent-Encoding: br\r\nContent-Length: "
            "1\r\nConnection: close\r\n\r\nx",
            "HTTP/1.1 415");
    /* Without a length: refused at its end. */
    struct base_buf chunked = { 0 };
    base_buf_put_str(
        &chunked,
        "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < 11; i++) {
        base_buf_put_str(&chunked, "2710\r\n");
        memset(base_buf_extend(&chunked, 10000), 'x', 10000);
        base_buf_put_str(&chunked, "\r\n");
    }
    base_buf_put_str(&chunked, "0\r\n\r\n");
    char *reply = ask(session, base_buf_bytes(&chunked));
    cr_assert_not_null(strstr(reply, "HTTP/1.1 413"), "%s", reply);
    base_buf_free(&chunked);
}

Test(http, bad_and_large_requests_are_refused, .timeout = 60)
{
    run(refusals);
}

static void gzip_into(struct base_buf *out, size_t zeros, const char *text)
{
    struct base_buf plain = { 0 };
    memset(base_buf_extend(&plain, zeros), 0, zeros);
    base_buf_put_str(&plain, text);
    uLongf cap = compressBound(plain.len) + 64;
    base_buf_reserve(out, cap);
    z_stream stream = { .next_in = plain.data,
                        .avail_in = (uInt)plain.len,
                        .next_out = out->data + out->len,
                        .avail_out = (uInt)cap };
    deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    deflate(&stream, Z_FINISH);
    out->len += stream.total_out;
    deflateEnd(&stream);
    base_buf_free(&plain);
}

static char *post_gzip(struct session *session, const struct base_buf *body) CH_WAITS;
static char *post_gzip(struct session *session, const struct base_buf *body)
{
    struct base_buf request = { 0 };
    base_buf_printf(
        &request,
        "POST /z HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip\r\nContent-Length: %zu\r\n"
        "Connection: close\r\n\r\n",
        body->len);
    base_buf_put_bytes(&request, base_buf_bytes(body));
    char *reply = ask(session, base_buf_bytes(&request));
    base_buf_free(&request);
    return reply;
}

static void gzip_in(struct session *session) CH_WAITS;
static void gzip_in(struct session *session)
{
    struct base_buf good = { 0 }, bomb = { 0 }, cut = { 0 };
    gzip_into(&good, 0, "unpacked text");
    char *reply = post_gzip(session, &good);
    cr_assert_not_null(strstr(reply, "len=13:unpacked text"), "%s", reply);
    gzip_into(&bomb, 50 << 20, "");
    cr_assert_lt(bomb.len, BODY_MAX);
    reply = post_gzip(session, &bomb);
    cr_assert_not_null(strstr(reply, "HTTP/1.1 413"), "%s", reply);
    base_buf_put(&cut, good.data, good.len - 6);
    reply = post_gzip(session, &cut);
    cr_assert_not_null(strstr(reply, "HTTP/1.1 400"), "%s", reply);
    base_buf_clear(&cut);
    base_buf_put_str(&cut, "this is no gzip");
    reply = post_gzip(session, &cut);
    cr_assert_not_null(strstr(reply, "HTTP/1.1 400"), "%s", reply);
    base_buf_free(&good);
    base_buf_free(&bomb);
    base_buf_free(&cut);
}

Test(http, gzip_bodies_are_decoded_and_bombs_are_not, .timeout = 60)
{
    run(gzip_in);
}

static void gzip_out(struct session *session) CH_WAITS;
static void gzip_out(struct session *session)
{
    char *reply =
        ask(session,
            BASE_BYTES_LIT("GET /large HTTP/1.1\r\nHost: h\r\nAccept-Encoding: br, gzip;q=0.5\r\n"
                           "Connection: close\r\n\r\n"));
    char *body = strstr(reply, "\r\n\r\n") + 4, *length = strcasestr(reply, "Content-Length: ");
    cr_assert_not_null(strcasestr(reply, "Content-Encoding: gzip"));
    static uint8_t plain[100000];
    z_stream stream = { .next_in = (uint8_t *)body,
                        .avail_in = (uInt)atoi(length + 16),
                        .next_out = plain,
                        .avail_out = sizeof(plain) };
    inflateInit2(&stream, 15 + 16);
    cr_assert_eq(inflate(&stream, Z_FINISH), Z_STREAM_END);
    inflateEnd(&stream);
    cr_assert_eq(stream.total_out, 5000 * 7);
    cr_assert_eq(strncmp((char *)plain + 7 * 4999, "line 9\n", 7), 0);
    answers(session, "GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            "line 3\nline 4\n");
    answers(
        session,
        "GET /large HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip;q=0\r\nConnection: close\r\n\r\n",
        "line 3\nline 4\n");
}

Test(http, large_replies_are_gzipped_for_those_who_take_it, .timeout = 60)
{
    run(gzip_out);
}

Test(http, accept_encoding_is_understood)
{
    cr_assert(ch__http_takes_gzip("gzip") && ch__http_takes_gzip("br, GZIP") &&
              ch__http_takes_gzip("deflate;q=1,gzip;q=0.1"));
    cr_assert(ch__http_takes_gzip("*") && !ch__http_takes_gzip("") &&
              !ch__http_takes_gzip("gzip;q=0"));
    cr_assert(!ch__http_takes_gzip("gzipx, br") && !ch__http_takes_gzip("identity"));
}

struct asker {
    struct session *session;
    struct client client;
};

static void ask_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct asker *asker = arg;
    ch_offload(asker->session->env, exchange, &asker->client);
}

static int stop_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    const struct ch_http_handler handler = { .handle = echo, .self = env };
    struct session session = { .env = env };
    struct asker askers[3] = { 0 };
    struct ch_gather gather;
    cr_assert(!base_failed(ch_http_start(env, "127.0.0.1:0", &handler, &session.server)));
    ch_gather_init(&gather, "askers");
    for (int i = 0; i < 3; i++) {
        askers[i].session = &session;
        askers[i].client.address = ch_http_address(session.server);
        base_buf_put_str(&askers[i].client.request, "GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
        ch_gather_add(&gather, ask_fiber, &askers[i]);
    }
    while (session.server->gate.inside < 3)
        (void)ch_sleep_until(env, ch_in(env, CH_MS));
    ch_http_stop(session.server); /* in the middle of all three */
    ch_gather_wait(&gather);
    for (int i = 0; i < 3; i++) {
        char *reply = (char *)askers[i].client.reply.data;
        cr_assert_not_null(strstr(reply, "GET /slow"), "%s", reply);
        base_buf_free(&askers[i].client.request);
        base_buf_free(&askers[i].client.reply);
    }
    return 0;
}

Test(http, a_stop_answers_what_is_being_handled, .timeout = 60)
{
    ch_env_run(stop_main, NULL);
}

static int adopt_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    const struct ch_http_handler handler = { .handle = echo, .self = env };
    struct session session = { .env = env };
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(address);
    char text[64], peeked[4];
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(!base_failed(ch_http_start(env, NULL, &handler, &session.server)));
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    cr_assert_eq(listen(listener, 4), 0);
    getsockname(listener, (struct sockaddr *)&address, &len);
    snprintf(text, sizeof(text), "127.0.0.1:%d", ntohs(address.sin_port));
    struct asker asker = { .session = &session, .client.address = text };
    base_buf_put_str(&asker.client.request,
                     "GET /adopted HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    struct ch_gather gather;
    ch_gather_init(&gather, "asker");
    ch_gather_add(&gather, ask_fiber, &asker);
    ch_yield();
    int fd = accept(listener, NULL, NULL);
    cr_assert_eq(recv(fd, peeked, 4, MSG_PEEK | MSG_WAITALL), 4);
    cr_assert(!base_failed(ch__http_adopt(session.server, fd)));
    ch_gather_wait(&gather);
    cr_assert_not_null(strstr((char *)asker.client.reply.data, "GET /adopted"), "%s",
                       (char *)asker.client.reply.data);
    base_buf_free(&asker.client.request);
    base_buf_free(&asker.client.reply);
    close(listener);
    ch_http_stop(session.server);
    return 0;
}

Test(http, a_connection_can_be_handed_over, .timeout = 60)
{
    ch_env_run(adopt_main, NULL);
}

static int taken_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    const struct ch_http_handler handler = { .handle = echo, .self = env };
    struct ch_http_server *first, *second;
    cr_assert(!base_failed(ch_http_start(env, "127.0.0.1:0", &handler, &first)));
    struct base_status status = ch_http_start(env, ch_http_address(first), &handler, &second);
    cr_assert_eq(status.code, BASE_UNAVAILABLE);
    cr_assert_not_null(strstr(base_status_text(&status), ch_http_address(first)));
    base_status_free(&status);
    static const char *const bad[] = { "", "127.0.0.1", "127.0.0.1:", ":80", "127.0.0.1:http" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        status = ch_http_start(env, bad[i], &handler, &second);
        cr_assert_eq(status.code, BASE_INVALID_ARGUMENT, "\"%s\" was taken", bad[i]);
        base_status_free(&status);
    }
    ch_http_stop(first);
    return 0;
}

Test(http, an_address_that_is_taken_or_none_is_refused, .timeout = 60)
{
    ch_env_run(taken_main, NULL);
}
