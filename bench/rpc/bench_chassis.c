/* bench_chassis.c: the same through ch_server and ch_client: a fiber a call, deadlines, context,
 * metrics, spans. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_rpc.h"
#include "chassis/http.h"
#include "chassis/rpc_client.h"
#include "chassis/rpc_server.h"
#include "strata/test/v1/echo.pb-c.h"
#include "strata/test/v1/echo.strata.h"

typedef Strata__Test__V1__EchoRequest EchoRequest;
typedef Strata__Test__V1__EchoReply EchoReply;

static const struct ch_method *say_method(void)
{
    return &strata__test__v1__echo__service.methods[STRATA__TEST__V1__ECHO__SAY];
}

static struct base_status say(void *self, struct ch_call *call, const void *message,
                              void **reply) CH_WAITS;
static struct base_status say(void *self, struct ch_call *call, const void *message, void **reply)
{
    EchoReply *answer = CH_MESSAGE(ch_call_arena(call), EchoReply, strata__test__v1__echo_reply);
    answer->payload = ((const EchoRequest *)message)->payload;
    *reply = answer;
    return BASE_STATUS_OK;
}

static int server_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_server *server;
    struct ch_server_options options = { .address = "127.0.0.1:0", .http = arg };
    if (base_failed(ch_server_new(env, &options, &server)))
        abort();
    ch_server_handle(server, say_method(), say, NULL);
    if (base_failed(ch_server_start(server)))
        abort();
    bench_say_port(atoi(strrchr(ch_server_address(server), ':') + 1));
    (void)ch_sleep_until(env, CH_NEVER);
    ch_server_stop(server, 0);
    return 0;
}

static void no_http(void *self, const struct ch_http_request *request,
                    struct ch_http_reply *reply) CH_WAITS;
static void no_http(void *self, const struct ch_http_request *request, struct ch_http_reply *reply)
{
    reply->code = 404;
}

void mixed_server(void)
{
    struct ch_http_handler handler = { .handle = no_http };
    ch_env_run(server_main, &handler);
}

void chassis_server(void)
{
    ch_env_run(server_main, NULL);
}

struct load {
    struct bench_run *run;
    struct ch_env *env;
    struct ch_client *client;
    int64_t begin;
    bool warm;
};

static void caller(void *arg)
{
    CH_FIBER_ENTRY();
    struct load *load = arg;
    struct bench_run *run = load->run;
    struct base_arena arena;
    base_arena_init(&arena);
    EchoRequest request;
    strata__test__v1__echo_request__init(&request);
    request.payload = ch_data_of(base_bytes(calloc(1, run->payload), run->payload));
    for (;;) {
        void *reply = NULL;
        int64_t sent = bench_now_ns();
        struct base_status status =
            ch_client_call(load->client, say_method(), &request, NULL, &arena, &reply);
        if (base_failed(status) || ((EchoReply *)reply)->payload.len != run->payload)
            abort();
        base_arena_reset(&arena);
        int64_t now = bench_now_ns();
        run->ops++;
        if (load->warm)
            ch_observe(run->latency, (uint64_t)(now - sent));
        if (!load->warm && now - load->begin > (int64_t)(run->seconds * 0.2e9)) {
            load->warm = true;
            bench_mark_begin(run);
        }
        if (load->warm && now - load->begin > (int64_t)(run->seconds * 1.2e9))
            bench_mark_end(run);
    }
}

static int client_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct load *load = arg;
    struct ch_gate gate;
    char target[64];
    snprintf(target, sizeof(target), "127.0.0.1:%d", load->run->port);
    load->env = env;
    load->client = ch_client_new(env, target, NULL);
    load->begin = bench_now_ns();
    ch_gate_init(&gate, env, "callers");
    for (int i = 0; i < load->run->outstanding; i++)
        if (base_failed(ch_gate_spawn(&gate, "caller", caller, load)))
            abort();
    ch_gate_join_always(&gate);
    return 0;
}

void chassis_client(struct bench_run *run)
{
    struct load load = { .run = run };
    ch_env_run(client_main, &load);
}
