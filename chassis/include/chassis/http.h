/* chassis/http.h: HTTP/1.1 by libmicrohttpd on a thread of its own; requests are handed to fibers of the loop. For the admin
 * port, and for front ends that speak JSON on their gRPC port (ch_server_options.http). Real env only. */
#ifndef CHASSIS_HTTP_H
#define CHASSIS_HTTP_H

#include "base/bytes.h"
#include "chassis/env.h"

struct ch_http_request {
    const char *method; /* "POST" */
    const char *path;   /* decoded, without the query */
    const char *query;  /* raw, without '?', or "" */
    const char *content_type, *accept; /* or "" */
    struct base_bytes body; /* whole; at most body_bytes_max, else the client got 413; gzip-encoded bodies are decoded */
    struct base_arena *arena; /* of the request */
};
struct ch_http_reply {
    int code; /* 200 */
    const char *content_type;
    struct base_buf body; /* given */
};
struct ch_http_handler {
    void (*handle)(void *self, const struct ch_http_request *request, struct ch_http_reply *reply) CH_WAITS_SLOT;
    void *self;
    size_t body_bytes_max; /* 0: 10 MiB + 64 KiB */
};

struct ch_http_server;
struct base_status ch_http_start(struct ch_env *env, const char *address, const struct ch_http_handler *handler,
                                 struct ch_http_server **server) CH_WAITS BASE_MUST_CHECK;
const char *ch_http_address(const struct ch_http_server *server);
void ch_http_stop(struct ch_http_server *server) CH_WAITS;

#endif
