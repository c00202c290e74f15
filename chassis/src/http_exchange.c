/* http_exchange.c: one HTTP request, from its first line to its reply. Threads and ownership: see
 * http.c.
 *
 * MHD calls begin (with the raw URI), access (headers; then each piece of the body; then once
 * with none), end. After the connection was resumed, access is called once more, and the reply is
 * queued. */
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <zlib.h>

#include "chassis/trace.h"
#include "http_int.h"
#include "transport_grpc_int.h" /* ch__inflate */

enum phase { HEADERS, BODY, WITH_LOOP, ANSWERED, REFUSED };

struct exchange {
    struct ch_post post; /* first */
    struct ch_http_server *server;
    struct MHD_Connection *connection;
    enum phase phase;
    char *uri; /* raw, in arena */
    struct base_arena arena;
    struct base_buf body;
    size_t held; /* of server->held_bytes */
    size_t discarded;
    int refusal; /* HTTP code to answer with instead of handling */
    const char *refusal_text;
    char traceparent[56];
    struct ch_http_request request;
    struct ch_http_reply reply;
};

void *ch__http_begin(void *arg, const char *uri, struct MHD_Connection *connection)
{
    struct ch_http_server *server = arg;
    struct exchange *exchange = calloc(1, sizeof(*exchange));
    BASE_ASSERT(exchange);
    exchange->server = server;
    exchange->connection = connection;
    exchange->uri = base_arena_strdup(&exchange->arena, uri);
    pthread_mutex_lock(&server->mutex);
    server->exchanges++;
    pthread_mutex_unlock(&server->mutex);
    return exchange;
}

void ch__http_end(void *arg, struct MHD_Connection *connection, void **state,
                  enum MHD_RequestTerminationCode how)
{
    struct ch_http_server *server = arg;
    struct exchange *exchange = *state;
    if (!exchange)
        return;
    server->held_bytes -= exchange->held;
    base_buf_free(&exchange->body);
    base_buf_free(&exchange->reply.body);
    base_arena_free(&exchange->arena);
    free(exchange);
    *state = NULL;
    pthread_mutex_lock(&server->mutex);
    if (--server->exchanges == 0)
        pthread_cond_signal(&server->idle);
    pthread_mutex_unlock(&server->mutex);
}

/* ---- in ---- */

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

char *ch__http_unescape(struct base_arena *arena, const char *text, size_t len, bool plus)
{
    char *out = base_arena_alloc(arena, len + 1);
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '%') {
            if (i + 2 >= len)
                return NULL;
            int high = hex(text[i + 1]), low = hex(text[i + 2]);
            if (high < 0 || low < 0 || (high | low) == 0)
                return NULL;
            out[n++] = (char)(high << 4 | low);
            i += 2;
        } else {
            out[n++] = plus && text[i] == '+' ? ' ' : text[i];
        }
    }
    out[n] = '\0';
    return out;
}

static void refuse(struct exchange *exchange, int code, const char *text)
{
    if (exchange->refusal)
        return;
    exchange->refusal = code;
    exchange->refusal_text = text;
}

static const char *header(struct exchange *exchange, const char *name)
{
    const char *value = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, name);
    return value ? value : "";
}

static enum MHD_Result send_refusal(struct exchange *exchange)
{
    exchange->phase = REFUSED;
    struct MHD_Response *response = MHD_create_response_from_buffer(
        strlen(exchange->refusal_text), (void *)exchange->refusal_text, MHD_RESPMEM_PERSISTENT);
    MHD_add_response_header(response, "Content-Type", "text/plain; charset=utf-8");
    enum MHD_Result result =
        MHD_queue_response(exchange->connection, (unsigned)exchange->refusal, response);
    MHD_destroy_response(response);
    return result;
}

/* All headers are there. What is refused now is answered before its body is read. */
static enum MHD_Result headers_done(struct exchange *exchange, const char *method)
{
    struct base_arena *arena = &exchange->arena;
    size_t path_len = strcspn(exchange->uri, "?");
    exchange->phase = BODY;
    exchange->request = (struct ch_http_request){
        .method = base_arena_strdup(arena, method),
        .path = ch__http_unescape(arena, exchange->uri, path_len, false),
        .query = exchange->uri[path_len] ? exchange->uri + path_len + 1 : "",
        .content_type = base_arena_strdup(arena, header(exchange, "Content-Type")),
        .accept = base_arena_strdup(arena, header(exchange, "Accept")),
        .authorization = base_arena_strdup(arena, header(exchange, "Authorization")),
        .arena = arena,
    };
    snprintf(exchange->traceparent, sizeof(exchange->traceparent), "%s",
             header(exchange, "traceparent"));
    const char *encoding = header(exchange, "Content-Encoding");
    if (!exchange->request.path)
        refuse(exchange, 400, "the path has a bad %-escape\n");
    if (*encoding && strcasecmp(encoding, "gzip") != 0 && strcasecmp(encoding, "identity") != 0)
        refuse(exchange, 415, "Content-Encoding must be gzip or identity\n");
    if (strtoull(header(exchange, "Content-Length"), NULL, 10) >
        exchange->server->handler.body_bytes_max)
        refuse(exchange, 413, "the request is too large\n");
    return exchange->refusal ? send_refusal(exchange) : MHD_YES;
}

/* A body over the limit is read on and thrown away for a while, so that the client gets to see
 * its 413; MHD_NO hangs up. */
static enum MHD_Result body_piece(struct exchange *exchange, const char *data, size_t *len)
{
    struct ch_http_server *server = exchange->server;
    size_t max = server->handler.body_bytes_max;
    if (exchange->body.len + *len > max)
        refuse(exchange, 413, "the request is too large\n");
    else if (server->held_bytes + *len > CH__HTTP_HELD_BYTES_MAX)
        refuse(exchange, 503, "too many request bytes are being held\n");
    if (exchange->refusal) {
        exchange->discarded += *len;
        if (exchange->discarded > max)
            return MHD_NO;
    } else {
        base_buf_put(&exchange->body, data, *len);
        exchange->held += *len;
        server->held_bytes += *len;
    }
    *len = 0;
    return MHD_YES;
}

static void body_decode(struct exchange *exchange)
{
    if (exchange->refusal || strcasecmp(header(exchange, "Content-Encoding"), "gzip") != 0)
        return;
    struct base_buf plain = { 0 };
    struct base_status status = ch__inflate(base_buf_bytes(&exchange->body),
                                            exchange->server->handler.body_bytes_max, &plain);
    if (status.code == BASE_RESOURCE_EXHAUSTED)
        refuse(exchange, 413, "the decoded request is too large\n");
    else if (base_failed(status))
        refuse(exchange, 400, "the body is not gzip\n");
    base_status_free(&status);
    base_buf_free(&exchange->body);
    exchange->body = plain;
    exchange->server->held_bytes = exchange->server->held_bytes - exchange->held + plain.len;
    exchange->held = plain.len;
}

/* ---- on the loop ---- */

static void resume(struct exchange *exchange)
{
    struct ch_http_server *server = exchange->server;
    struct MHD_Connection *connection = exchange->connection;
    exchange->phase = ANSWERED;
    /* From the resume on the exchange is MHD's. The count goes down only after it: see http.c, 2.
     * */
    MHD_resume_connection(connection);
    pthread_mutex_lock(&server->mutex);
    server->suspended--;
    pthread_mutex_unlock(&server->mutex);
}

static void handler_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct exchange *exchange = arg;
    struct ch_http_server *server = exchange->server;
    struct ch_context *context = ch_context_new();
    struct ch_span span;
    char name[48];
    ch_trace_adopt(context, base_bytes_str(exchange->traceparent), server->env);
    ch_context_set(context);
    snprintf(name, sizeof(name), "HTTP %s %s", exchange->request.method, exchange->request.path);
    ch_span_begin(&span, server->env, name);
    server->handler.handle(server->handler.self, &exchange->request, &exchange->reply);
    ch_span_end(&span,
                exchange->reply.code >= 500 || exchange->reply.code == 0 ? BASE_INTERNAL : BASE_OK);
    if (exchange->reply.code == 0)
        exchange->reply.code = 500;
    ch_count(server->requests, 1);
    resume(exchange);
}

static void posted(struct ch_post *post)
{
    struct exchange *exchange = (struct exchange *)post;
    struct base_status status =
        ch_gate_spawn(&exchange->server->gate, "http request", handler_fiber, exchange);
    if (!base_failed(status))
        return;
    ch_count(exchange->server->refused, 1);
    exchange->reply.code = 503;
    exchange->reply.content_type = "text/plain; charset=utf-8";
    base_buf_printf(&exchange->reply.body, "%s\n", base_status_text(&status));
    base_status_free(&status);
    resume(exchange);
}

static enum MHD_Result hand_over(struct exchange *exchange)
{
    struct ch_http_server *server = exchange->server;
    exchange->request.body = base_buf_bytes(&exchange->body);
    pthread_mutex_lock(&server->mutex);
    bool stopping = server->stopping;
    if (!stopping) {
        server->suspended++;
        exchange->phase = WITH_LOOP;
        MHD_suspend_connection(exchange->connection);
    }
    pthread_mutex_unlock(&server->mutex);
    if (stopping) {
        refuse(exchange, 503, "the server is stopping\n");
        return send_refusal(exchange);
    }
    exchange->post.fn = posted;
    ch_env_post(server->env, &exchange->post);
    return MHD_YES;
}

/* ---- out ---- */

bool ch__http_takes_gzip(const char *accept_encoding)
{
    for (const char *at = accept_encoding; *at;) {
        at += strspn(at, " \t,");
        size_t len = strcspn(at, ","), name = strcspn(at, " \t;,");
        if ((name == 4 && strncasecmp(at, "gzip", 4) == 0) || (name == 1 && *at == '*')) {
            const char *q = memmem(at, len, "q=", 2);
            return !q || strtod(q + 2, NULL) > 0;
        }
        at += len;
    }
    return false;
}

bool ch__http_gzip(const struct base_buf *body, struct base_buf *out)
{
    z_stream stream = { 0 };
    if (body->len > UINT32_MAX ||
        deflateInit2(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return false;
    base_buf_reserve(out, body->len);
    stream.next_in = body->data;
    stream.avail_in = (uInt)body->len;
    stream.next_out = out->data;
    stream.avail_out = (uInt)body->len;
    int rc = deflate(&stream, Z_FINISH);
    out->len = stream.total_out;
    deflateEnd(&stream);
    return rc == Z_STREAM_END;
}

static enum MHD_Result send_reply(struct exchange *exchange)
{
    struct ch_http_reply *reply = &exchange->reply;
    struct base_buf packed = { 0 };
    bool gzip = reply->body.len >= CH__HTTP_GZIP_FROM &&
                ch__http_takes_gzip(header(exchange, "Accept-Encoding")) &&
                ch__http_gzip(&reply->body, &packed);
    struct base_buf *body = gzip ? &packed : &reply->body;
    struct MHD_Response *response =
        MHD_create_response_from_buffer_with_free_callback(body->len, body->data, free);
    if (!response) {
        base_buf_free(&packed);
        return MHD_NO;
    }
    *body = (struct base_buf){ 0 }; /* MHD's now */
    if (gzip)
        MHD_add_response_header(response, "Content-Encoding", "gzip");
    MHD_add_response_header(response, "Vary", "Accept-Encoding");
    if (reply->content_type)
        MHD_add_response_header(response, "Content-Type", reply->content_type);
    if (reply->location)
        MHD_add_response_header(response, "Location", reply->location);
    enum MHD_Result result =
        MHD_queue_response(exchange->connection, (unsigned)reply->code, response);
    MHD_destroy_response(response);
    return result;
}

enum MHD_Result ch__http_access(void *server, struct MHD_Connection *connection, const char *url,
                                const char *method, const char *version, const char *data,
                                size_t *data_len, void **state)
{
    struct exchange *exchange = *state;
    switch (exchange->phase) {
    case HEADERS:
        return headers_done(exchange, method);
    case BODY:
        if (*data_len > 0)
            return body_piece(exchange, data, data_len);
        body_decode(exchange);
        return exchange->refusal ? send_refusal(exchange) : hand_over(exchange);
    case ANSWERED:
        return send_reply(exchange);
    case WITH_LOOP: /* woken without a resume of ours */
    case REFUSED:
        *data_len = 0;
        return MHD_YES;
    }
    return MHD_NO;
}
