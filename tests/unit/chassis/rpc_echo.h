/* rpc_echo.h: the Echo service and its client in one env, for tests over both transports:
 * RPC_TEST(name) { … } gives a body that runs on a fiber with `t` once over gRPC on loopback,
 * once in the simulator. */
#ifndef RPC_ECHO_H
#define RPC_ECHO_H

#include <stdlib.h>
#include <string.h>

#include "chassis/rpc_client.h"
#include "chassis/rpc_server.h"
#include "chassis/sim.h"
#include "env_int.h"
#include "strata/test/v1/echo.pb-c.h"
#include "strata/test/v1/echo.strata.h"

typedef Strata__Test__V1__EchoRequest EchoRequest;
typedef Strata__Test__V1__EchoReply EchoReply;

struct echo {
    struct ch_env *env;
    struct ch_server *server;
    struct ch_client *client;
    struct base_arena arena;
    size_t calls, ended, cancelled, sent, inside,
        fail_first; /* fail_first: Say fails UNAVAILABLE so many times */
    struct ch_server_options server_options;
    struct ch_client_options client_options;
    bool simulated, held; /* held: every call waits until it is not */
    void *extra;          /* of echo_run_real_with */
};

#define ECHO_METHOD(NAME) (&strata__test__v1__echo__service.methods[STRATA__TEST__V1__ECHO__##NAME])

void echo_register(struct echo *t);
/* Starts the server on `address` (NULL: loopback, any port). */
void echo_serve(struct echo *t, const char *address) CH_WAITS;
void echo_connect(struct echo *t) CH_WAITS;
void echo_stop_server(struct echo *t, ch_time grace) CH_WAITS;
/* One unary call with a text; the reply, or NULL with *status failed. */
EchoReply *echo_call(struct echo *t, const struct ch_method *method, EchoRequest *request,
                     struct ch_call_options *options, struct base_status *status) CH_WAITS;
EchoRequest *echo_request(struct echo *t, const char *text);
void echo_run_real(void (*body)(struct echo *t));
void echo_run_real_with(void (*body)(struct echo *t), void *extra);
void echo_run_sim(void (*body)(struct echo *t));

#define RPC_TEST(name)                                \
    static void body_##name(struct echo *t) CH_WAITS; \
    Test(rpc_grpc, name)                              \
    {                                                 \
        echo_run_real(body_##name);                   \
    }                                                 \
    Test(rpc_sim, name)                               \
    {                                                 \
        echo_run_sim(body_##name);                    \
    }                                                 \
    static void body_##name(struct echo *t)
#define RPC_TEST_REAL(name)                           \
    static void body_##name(struct echo *t) CH_WAITS; \
    Test(rpc_grpc, name)                              \
    {                                                 \
        echo_run_real(body_##name);                   \
    }                                                 \
    static void body_##name(struct echo *t)

#endif
