/* chassis/rpc_server.h: serving gRPC. A handler is a plain function on a fiber of its own; it may
 * wait.
 *
 * The request is decoded (proto.h: checked for depth and UTF-8) into the call's arena; the reply is
 * built there too; all of it is freed when the call ends. When the client goes away or its deadline
 * passes, the handler's fiber is cancelled: its cancellable waits end. The server answers
 * UNIMPLEMENTED for unknown methods, RESOURCE_EXHAUSTED for messages over the limit and when
 * admission sheds the call, INVALID_ARGUMENT for bytes that do not decode; it serves grpc.health.v1
 * and reflection itself. Uses transport.h below: gRPC C core in a real env, the simulated network
 * in a simulated one. */
#ifndef CHASSIS_RPC_SERVER_H
#define CHASSIS_RPC_SERVER_H

#include "chassis/context.h"
#include "chassis/env.h"
#include "chassis/proto.h"

struct ch_server;
struct ch_call;

/* ---- a call, for its handler ---- */
struct base_arena *ch_call_arena(struct ch_call *call);
ch_time ch_call_deadline(const struct ch_call *call); /* CH_NEVER when the client set none */
const char *ch_call_peer(const struct ch_call *call); /* "127.0.0.1:4711" */
/* The first value of a metadata key (lower case), or empty. Lives as long as the call. */
struct base_bytes ch_call_metadata(const struct ch_call *call, const char *key);
void ch_call_add_trailer(struct ch_call *call, const char *key,
                         struct base_bytes value); /* copied */

/* (Handlers may wait: mark the function you register CH_WAITS; a function type cannot carry the
 * mark.) One request, one reply. Returns OK with *reply set (in the call's arena, or memory that
 * outlives the call), or a failed status that the client gets as it is. */
typedef struct base_status ch_unary_fn(void *self, struct ch_call *call, const void *request,
                                       void **reply);
/* Any streaming kind. Receive with ch_call_recv (server streaming: exactly one message comes), send
 * with ch_call_send. The returned status ends the call. */
typedef struct base_status ch_stream_fn(void *self, struct ch_call *call);
/* *message is in `arena` (NULL: the call's; long streams bring their own and reset it); NULL at the
 * end of the client's messages. CANCELLED when the call is gone. */
struct base_status ch_call_recv(struct ch_call *call, struct base_arena *arena,
                                void **message) CH_WAITS BASE_MUST_CHECK;
/* Returns when flow control lets the next message in; the message is encoded before it returns. */
struct base_status ch_call_send(struct ch_call *call, const void *message) CH_WAITS BASE_MUST_CHECK;

/* ---- a server ---- */
struct ch_http_handler; /* http.h */
struct ch_server_options {
    const char
        *address; /* "127.0.0.2:0": 0 picks a port; several, comma-separated, are all served */
    size_t message_bytes_max; /* received; 0: 10 MiB + 64 KiB */
    size_t calls_max; /* handlers running at once before admission queues and sheds; 0: 4096 */
    const struct ch_http_handler *http; /* when set, HTTP/1.1 on the same port goes here */
};
struct base_status ch_server_new(struct ch_env *env, const struct ch_server_options *options,
                                 struct ch_server **server) BASE_MUST_CHECK;
/* Registers handlers, before start. `self` and the method are borrowed for the server's life. */
void ch_server_handle(struct ch_server *server, const struct ch_method *method, ch_unary_fn *fn,
                      void *self);
void ch_server_handle_stream(struct ch_server *server, const struct ch_method *method,
                             ch_stream_fn *fn, void *self);
/* Makes a service known to reflection and to health; methods of it without a handler answer
 * UNIMPLEMENTED. */
void ch_server_add_service(struct ch_server *server, const struct ch_service *service);
/* Binds and serves. UNAVAILABLE when the address is taken. */
struct base_status ch_server_start(struct ch_server *server) CH_WAITS BASE_MUST_CHECK;
const char *ch_server_address(const struct ch_server *server); /* as bound, with the real port */
/* Health of grpc.health.v1 and of naming's checks: NOT_SERVING until first set. */
void ch_server_set_serving(struct ch_server *server, bool serving);
/* True once ch_server_stop was called: handlers of endless streams look at it now and then, and
 * end. */
bool ch_server_stopping(const struct ch_server *server);
/* Graceful: no new calls, running ones may finish until `deadline`, then they are cancelled and
 * joined. Frees the server. */
void ch_server_stop(struct ch_server *server, ch_time deadline) CH_WAITS;

#endif
