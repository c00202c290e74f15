/* http_int.h (private to chassis): an HTTP server and one exchange of it. See http.c. */
#ifndef CHASSIS_HTTP_INT_H
#define CHASSIS_HTTP_INT_H

#include <microhttpd.h>
#include <pthread.h>

#include "chassis/http.h"
#include "chassis/metrics.h"
#include "env_int.h"

enum {
    CH__HTTP_BODY_DEFAULT = (10 << 20) + (64 << 10),
    CH__HTTP_CONNECTIONS_MAX = 1000,
    CH__HTTP_HELD_BYTES_MAX = 512 << 20, /* of bodies, all requests of a server; beyond: 503 */
    CH__HTTP_IDLE_S = 60,
    CH__HTTP_GZIP_FROM = 1400, /* bytes of a body worth compressing */
    CH__HTTP_DRAIN_MS = 5000,
};

struct ch_http_server {
    struct ch_env *env;
    struct ch_http_handler handler;
    struct MHD_Daemon *daemon;
    char address[128];
    struct ch_gate gate;
    size_t held_bytes; /* MHD's thread only */
    struct ch_counter *requests, *refused;
    /* Shared by MHD's thread and the loop. */
    pthread_mutex_t mutex;
    pthread_cond_t idle;
    bool stopping;
    size_t suspended; /* connections parked for the loop */
    size_t exchanges; /* requests begun and not completed */
};

/* Takes over a connected socket, whose first bytes may have been peeked at. The descriptor is
 * given in every case. */
struct base_status ch__http_adopt(struct ch_http_server *server, int fd) BASE_MUST_CHECK;

/* ---- http_exchange.c: MHD's callbacks ---- */
void *ch__http_begin(void *server, const char *uri, struct MHD_Connection *connection);
enum MHD_Result ch__http_access(void *server, struct MHD_Connection *connection, const char *url,
                                const char *method, const char *version, const char *data,
                                size_t *data_len, void **exchange);
void ch__http_end(void *server, struct MHD_Connection *connection, void **exchange,
                  enum MHD_RequestTerminationCode how);

/* Decodes %XX (and + when asked) of `text` in `arena`; NULL for a bad escape or %00. */
char *ch__http_unescape(struct base_arena *arena, const char *text, size_t len, bool plus);
/* gzip of a body; false when it does not shrink. */
bool ch__http_gzip(const struct base_buf *body, struct base_buf *out);
/* Whether an Accept-Encoding value takes gzip. */
bool ch__http_takes_gzip(const char *accept_encoding);

#endif
