/* chassis/http.h: HTTP/1.1 by libmicrohttpd on a thread of its own; requests are handed to fibers
 * of the loop. For the admin port, and for front ends that speak JSON on their gRPC port
 * (ch_server_options.http). Real env only. */
#ifndef CHASSIS_HTTP_H
#define CHASSIS_HTTP_H

#include "base/bytes.h"
#include "chassis/env.h"

struct ch_http_request {
    const char *method;                                /* "POST" */
    const char *path;                                  /* decoded, without the query */
    const char *query;                                 /* raw, without '?', or "" */
    const char *content_type, *accept, *authorization; /* or "" */
    /* Whole; at most body_bytes_max, else the client got 413. What came gzip-encoded is decoded. */
    struct base_bytes body;
    struct base_arena *arena; /* of the request */
};
struct ch_http_reply {
    int code; /* 200 */
    const char *content_type;
    struct base_buf body; /* given; sent gzip-encoded when large and the client takes that */
    const char *location; /* NULL, or a Location header; in the request's arena or a literal */
};
struct ch_http_handler {
    void (*handle)(void *self, const struct ch_http_request *request,
                   struct ch_http_reply *reply) CH_WAITS_SLOT;
    void *self;
    size_t body_bytes_max; /* 0: 10 MiB + 64 KiB */
};

/* `handle` runs on a fiber of its own, with a context and a span; several requests of one server
 * at once. The reply comes zeroed; code 0 is answered as 500. `address` NULL: no port of its own,
 * connections are handed in (chassis only). */
struct ch_http_server;
struct base_status ch_http_start(struct ch_env *env, const char *address,
                                 const struct ch_http_handler *handler,
                                 struct ch_http_server **server) CH_WAITS BASE_MUST_CHECK;
const char *ch_http_address(const struct ch_http_server *server);
/* Requests being handled are answered (after five seconds their fibers are cancelled), then
 * connections are closed. */
void ch_http_stop(struct ch_http_server *server) CH_WAITS;
/* The value of `name` in a raw query ("a=1&b=2"), decoded, in `arena`; NULL when there is none. */
const char *ch_http_query(const struct ch_http_request *request, const char *name);

#endif
