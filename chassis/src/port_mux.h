/* port_mux.h (private to chassis): one port for gRPC and HTTP/1.1. Real env only. See
 * port_mux.c. */
#ifndef CHASSIS_PORT_MUX_H
#define CHASSIS_PORT_MUX_H

#include "chassis/transport.h"

struct ch_mux;
struct ch_http_server;

/* Binds every address of the comma-separated list and hands each connection, by its first bytes,
 * to `listener` or `http`, which outlive the mux. `bound` gets "host:port,…". */
struct base_status ch__mux_start(struct ch_env *env, const char *addresses,
                                 struct ch_tlistener *listener, struct ch_http_server *http,
                                 char *bound, size_t bound_size,
                                 struct ch_mux **mux) CH_WAITS BASE_MUST_CHECK;
/* Stops accepting, closes the ports and connections that have not said what they are. Frees it. */
void ch__mux_stop(struct ch_mux *mux);

#endif
