/* A server and a client of one service, unary and streaming, over both transports. */
#include <stdio.h>

#include "rpc_echo.h"
#include "test.h"

/* What the client says comes back, with what the server knew of the call, because this is what
 * everything stands on. */
RPC_TEST(unary_call_and_its_context)
{
    struct base_status status;
    echo_connect(t);
    EchoReply *reply = echo_call(t, ECHO_METHOD(SAY), echo_request(t, "hello"), NULL, &status);
    cr_assert(reply != NULL, "%s", base_status_text(&status));
    cr_assert(base_bytes_eq_str(ch_bytes_of(reply->text), "hello"));
    cr_assert(reply->deadline_ms > 50000 && reply->deadline_ms <= 60100, "%ld",
              (long)reply->deadline_ms);
    struct ch_metadata pair = { "x-test", BASE_BYTES_LIT("yes") };
    struct ch_call_options options = { .deadline = ch_in(t->env, 5 * CH_S),
                                       .metadata = &pair,
                                       .metadata_count = 1 };
    reply = echo_call(t, ECHO_METHOD(SAY), echo_request(t, "again"), &options, &status);
    cr_assert(reply != NULL, "%s", base_status_text(&status));
    cr_assert(base_bytes_eq_str(ch_bytes_of(reply->metadata), "yes"));
    cr_assert(reply->deadline_ms > 3000 && reply->deadline_ms <= 5100, "%ld",
              (long)reply->deadline_ms);
    cr_assert(reply->peer.len > 0);
}

/* A handler's failed status arrives as it is, with the method and the peer in front, because
 * callers act on codes. */
RPC_TEST(failed_status_arrives)
{
    struct base_status status;
    echo_connect(t);
    EchoRequest *request = echo_request(t, "x");
    request->code = BASE_ABORTED;
    request->error = ch_data_str("row 7 is locked");
    struct ch_call_options options = { 0 };
    cr_assert(echo_call(t, ECHO_METHOD(ACT), request, &options, &status) == NULL);
    cr_assert_eq(status.code, BASE_ABORTED);
    cr_assert(strstr(base_status_text(&status), "Act to ") != NULL, "%s",
              base_status_text(&status));
    cr_assert(strstr(base_status_text(&status), "row 7 is locked") != NULL, "%s",
              base_status_text(&status));
    cr_assert(!options.outcome_unknown);
    cr_assert_eq(t->calls, 1u);
    base_status_free(&status);
}

/* Methods nobody handles are UNIMPLEMENTED and named, so that a wrong client is found at once. */
RPC_TEST(unknown_method_is_named)
{
    struct base_status status;
    echo_connect(t);
    cr_assert(echo_call(t, ECHO_METHOD(MISSING), echo_request(t, "x"), NULL, &status) == NULL);
    cr_assert_eq(status.code, BASE_UNIMPLEMENTED);
    cr_assert(strstr(base_status_text(&status), "/strata.test.v1.Echo/Missing") != NULL, "%s",
              base_status_text(&status));
    base_status_free(&status);
}

static size_t receive_all(struct echo *t, struct ch_client_stream *stream,
                          struct base_status *status) CH_WAITS;
static size_t receive_all(struct echo *t, struct ch_client_stream *stream,
                          struct base_status *status)
{
    void *message = NULL;
    size_t count = 0;
    while (!base_failed(*status = ch_stream_recv(stream, &t->arena, &message)) && message)
        count++;
    return count;
}

/* Server streaming: all replies in order, then OK; a failing handler's status ends the stream. */
RPC_TEST(server_stream)
{
    struct ch_client_stream *stream;
    void *message = NULL;
    echo_connect(t);
    struct base_status status = ch_client_open(t->client, ECHO_METHOD(WATCH), NULL, &stream);
    cr_assert(!base_failed(status));
    EchoRequest *request = echo_request(t, "x");
    request->count = 100;
    cr_assert(!base_failed(ch_stream_send(stream, request)));
    cr_assert(!base_failed(ch_stream_close_send(stream)));
    for (int i = 0; i < 100; i++) {
        status = ch_stream_recv(stream, &t->arena, &message);
        cr_assert(!base_failed(status) && message, "%d: %s", i, base_status_text(&status));
        cr_assert_eq(((EchoReply *)message)->count, i + 1);
    }
    status = ch_stream_recv(stream, &t->arena, &message);
    cr_assert(!base_failed(status) && !message);
    ch_stream_free(stream);
    status = ch_client_open(t->client, ECHO_METHOD(WATCH), NULL, &stream);
    cr_assert(!base_failed(status));
    request->code = BASE_NOT_FOUND;
    cr_assert(!base_failed(ch_stream_send(stream, request)));
    cr_assert(!base_failed(ch_stream_close_send(stream)));
    cr_assert_eq(receive_all(t, stream, &status), 0u);
    cr_assert_eq(status.code, BASE_NOT_FOUND);
    base_status_free(&status);
    ch_stream_free(stream);
}

/* Client streaming and both ways: each message is seen once and in order. */
RPC_TEST(client_stream_and_chat)
{
    struct ch_client_stream *stream;
    void *message = NULL;
    echo_connect(t);
    struct base_status status = ch_client_open(t->client, ECHO_METHOD(COLLECT), NULL, &stream);
    cr_assert(!base_failed(status));
    EchoRequest *request = echo_request(t, "x");
    request->payload = ch_data_str("12345");
    for (int i = 0; i < 50; i++)
        cr_assert(!base_failed(ch_stream_send(stream, request)));
    cr_assert(!base_failed(ch_stream_close_send(stream)));
    status = ch_stream_recv(stream, &t->arena, &message);
    cr_assert(!base_failed(status) && message, "%s", base_status_text(&status));
    cr_assert_eq(((EchoReply *)message)->count, 50);
    cr_assert_eq(((EchoReply *)message)->deadline_ms, 250);
    cr_assert_eq(receive_all(t, stream, &status), 0u);
    cr_assert(!base_failed(status));
    ch_stream_free(stream);
    status = ch_client_open(t->client, ECHO_METHOD(CHAT), NULL, &stream);
    cr_assert(!base_failed(status));
    for (int i = 0; i < 50; i++) {
        request->count = i;
        request->text = ch_data_str(i % 2 ? "odd" : "even");
        cr_assert(!base_failed(ch_stream_send(stream, request)));
        status = ch_stream_recv(stream, &t->arena, &message);
        cr_assert(!base_failed(status) && message, "%s", base_status_text(&status));
        cr_assert(
            base_bytes_eq_str(ch_bytes_of(((EchoReply *)message)->text), i % 2 ? "odd" : "even"));
    }
    cr_assert(!base_failed(ch_stream_close_send(stream)));
    cr_assert_eq(receive_all(t, stream, &status), 0u);
    cr_assert(!base_failed(status));
    ch_stream_free(stream);
}

/* A call ends at its deadline and its handler is cancelled, because work nobody waits for only
 * adds load. */
RPC_TEST(deadline_ends_call_and_handler)
{
    struct base_status status;
    echo_connect(t);
    EchoRequest *request = echo_request(t, "x");
    request->wait_ms = 10000;
    struct ch_call_options options = { .deadline = ch_in(t->env, 100 * CH_MS) };
    ch_time begin = ch_now(t->env);
    cr_assert(echo_call(t, ECHO_METHOD(ACT), request, &options, &status) == NULL);
    cr_assert_eq(status.code, BASE_DEADLINE_EXCEEDED, "%s", base_status_text(&status));
    cr_assert(options.outcome_unknown);
    cr_assert(ch_now(t->env) - begin < 5 * CH_S);
    base_status_free(&status);
    for (int i = 0; i < 500 && t->cancelled == 0; i++)
        (void)ch_sleep_until(t->env, ch_in(t->env, 10 * CH_MS));
    cr_assert_eq(t->cancelled, 1u);
}

struct caller {
    struct echo *t;
    EchoRequest *request;
    struct base_status status;
    bool ended;
};

static void call_alone(void *arg)
{
    CH_FIBER_ENTRY();
    struct caller *caller = arg;
    void *reply = NULL;
    struct base_arena arena = { 0 };
    caller->status =
        ch_client_call(caller->t->client, ECHO_METHOD(ACT), caller->request, NULL, &arena, &reply);
    caller->ended = true;
    base_arena_free(&arena);
}

/* A cancelled caller is let go at once, and its handler on the server is cancelled too. */
RPC_TEST(cancel_travels)
{
    echo_connect(t);
    struct ch_gate gate;
    ch_gate_init(&gate, t->env, "callers");
    struct caller caller = { .t = t, .request = echo_request(t, "x") };
    caller.request->wait_ms = 60000;
    cr_assert(!base_failed(ch_gate_spawn(&gate, "caller", call_alone, &caller)));
    for (int i = 0; i < 500 && t->inside == 0; i++)
        (void)ch_sleep_until(t->env, ch_in(t->env, 10 * CH_MS));
    cr_assert_eq(t->inside, 1u);
    ch_gate_stop(&gate);
    cr_assert_eq(caller.status.code, BASE_CANCELLED, "%s", base_status_text(&caller.status));
    base_status_free(&caller.status);
    for (int i = 0; i < 500 && t->cancelled == 0; i++)
        (void)ch_sleep_until(t->env, ch_in(t->env, 10 * CH_MS));
    cr_assert_eq(t->cancelled, 1u);
}

/* Freeing a client ends the calls inside it with CANCELLED, so a layer can always be stopped. */
RPC_TEST(client_free_ends_its_calls)
{
    echo_connect(t);
    struct ch_gate gate;
    ch_gate_init(&gate, t->env, "callers");
    struct caller caller = { .t = t, .request = echo_request(t, "x") };
    caller.request->wait_ms = 60000;
    cr_assert(!base_failed(ch_gate_spawn(&gate, "caller", call_alone, &caller)));
    for (int i = 0; i < 500 && t->inside == 0; i++)
        (void)ch_sleep_until(t->env, ch_in(t->env, 10 * CH_MS));
    ch_client_free(t->client);
    t->client = NULL;
    cr_assert(caller.ended);
    cr_assert_eq(caller.status.code, BASE_CANCELLED, "%s", base_status_text(&caller.status));
    base_status_free(&caller.status);
    ch_gate_join_always(&gate);
}

/* A graceful stop lets a running call finish, and one that does not is cancelled at the
 * deadline. */
RPC_TEST(graceful_stop)
{
    echo_connect(t);
    struct ch_gate gate;
    ch_gate_init(&gate, t->env, "callers");
    struct caller quick = { .t = t, .request = echo_request(t, "quick") },
                  slow = { .t = t, .request = echo_request(t, "slow") };
    quick.request->wait_ms = 300;
    slow.request->wait_ms = 60000;
    cr_assert(!base_failed(ch_gate_spawn(&gate, "quick", call_alone, &quick)));
    cr_assert(!base_failed(ch_gate_spawn(&gate, "slow", call_alone, &slow)));
    for (int i = 0; i < 500 && t->inside < 2; i++)
        (void)ch_sleep_until(t->env, ch_in(t->env, 10 * CH_MS));
    echo_stop_server(t, 1 * CH_S);
    ch_gate_join_always(&gate);
    cr_assert(!base_failed(quick.status), "%s", base_status_text(&quick.status));
    cr_assert(slow.status.code == BASE_CANCELLED || slow.status.code == BASE_UNAVAILABLE, "%s",
              base_status_text(&slow.status));
    cr_assert_eq(t->cancelled, 1u);
    base_status_free(&slow.status);
}

/* Nobody listening is UNAVAILABLE at once, with the peer's address; nothing can have happened
 * there. */
RPC_TEST(nobody_listens)
{
    struct base_status status;
    t->client = ch_client_new(t->env, t->simulated ? "10.0.0.1:9" : "127.0.0.1:9", NULL);
    struct ch_call_options options = { .no_retry = true };
    cr_assert(echo_call(t, ECHO_METHOD(ACT), echo_request(t, "x"), &options, &status) == NULL);
    cr_assert_eq(status.code, BASE_UNAVAILABLE, "%s", base_status_text(&status));
    cr_assert(strstr(base_status_text(&status), ":9") != NULL, "%s", base_status_text(&status));
    cr_assert(!options.outcome_unknown);
    base_status_free(&status);
}

/* A server that comes back on the same address is found again soon, without a new client. */
RPC_TEST(server_restart_is_found)
{
    struct base_status status;
    char address[128];
    echo_connect(t);
    cr_assert(echo_call(t, ECHO_METHOD(SAY), echo_request(t, "x"), NULL, &status) != NULL);
    snprintf(address, sizeof(address), "%s", ch_server_address(t->server));
    echo_stop_server(t, 0);
    struct ch_call_options options = { .no_retry = true };
    cr_assert(echo_call(t, ECHO_METHOD(SAY), echo_request(t, "x"), &options, &status) == NULL);
    base_status_free(&status);
    echo_serve(t, address);
    ch_time begin = ch_now(t->env);
    struct ch_call_options waiting = { .wait_for_ready = true,
                                       .deadline = ch_in(t->env, 10 * CH_S) };
    cr_assert(echo_call(t, ECHO_METHOD(SAY), echo_request(t, "x"), &waiting, &status) != NULL, "%s",
              base_status_text(&status));
    cr_assert(ch_now(t->env) - begin < 2 * CH_S, "%ld ms",
              (long)((ch_now(t->env) - begin) / CH_MS));
}

/* An address that is taken fails the start with a text that names it. */
RPC_TEST(taken_address)
{
    struct ch_server *second;
    echo_serve(t, NULL);
    struct ch_server_options options = { .address = ch_server_address(t->server) };
    cr_assert(!base_failed(ch_server_new(t->env, &options, &second)));
    struct base_status status = ch_server_start(second);
    cr_assert_eq(status.code, BASE_UNAVAILABLE);
    cr_assert(strstr(base_status_text(&status), ch_server_address(t->server)) != NULL, "%s",
              base_status_text(&status));
    base_status_free(&status);
    ch_server_stop(second, 0);
}
