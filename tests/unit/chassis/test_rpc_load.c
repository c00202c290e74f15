/* Retries, overload, slow and vanishing clients, bad bytes. */
#include <stdio.h>

#include "rpc_echo.h"
#include "rpc_client_int.h"
#include "rpc_server_int.h"
#include "test.h"

/* ---- retries ---- */

/* A method that may be repeated is, until it succeeds; one that may not is sent once and its
 * caller told that it does not know. */
RPC_TEST(retry_only_what_is_safe)
{
    struct base_status status;
    echo_connect(t);
    t->fail_first = 2;
    cr_assert(echo_call(t, ECHO_METHOD(SAY), echo_request(t, "x"), NULL, &status), "%s",
              base_status_text(&status));
    cr_assert_eq(t->calls, 3u);
    t->calls = 0;
    t->fail_first = 1;
    struct ch_call_options options = { 0 };
    cr_assert(!echo_call(t, ECHO_METHOD(ACT), echo_request(t, "x"), &options, &status));
    cr_assert_eq(t->calls, 1u);
    cr_assert(options.outcome_unknown);
    base_status_free(&status);
    t->fail_first = 1;
    t->calls = 0;
    options = (struct ch_call_options){ .no_retry = true };
    cr_assert(!echo_call(t, ECHO_METHOD(SAY), echo_request(t, "x"), &options, &status));
    cr_assert_eq(t->calls, 1u);
    base_status_free(&status);
}

/* A server that keeps failing is not asked forever: attempts and the budget end it. */
RPC_TEST(retries_are_bounded)
{
    struct base_status status;
    echo_connect(t);
    t->fail_first = 1000;
    for (int i = 0; i < 20; i++) {
        cr_assert(!echo_call(t, ECHO_METHOD(SAY), echo_request(t, "x"), NULL, &status));
        cr_assert_eq(status.code, BASE_UNAVAILABLE);
        base_status_free(&status);
    }
    cr_assert(t->calls >= 20 && t->calls < 20 + 6, "%zu", t->calls);
}

/* ---- several servers ---- */

/* Calls go to all servers of a target; when one of them stops, the others take over and no call
 * fails, because what it never saw is sent again elsewhere. */
RPC_TEST(one_of_several_servers_stops)
{
    struct base_status status;
    struct echo other = { .env = t->env, .simulated = t->simulated };
    char target[300];
    echo_serve(t, NULL);
    echo_serve(&other, NULL);
    snprintf(target, sizeof(target), "%s,%s", ch_server_address(t->server),
             ch_server_address(other.server));
    t->client = ch_client_new(t->env, target, NULL);
    for (int i = 0; i < 100; i++)
        cr_assert(echo_call(t, ECHO_METHOD(ACT), echo_request(t, "x"), NULL, &status));
    cr_assert(t->calls > 20 && other.calls > 20, "%zu %zu", t->calls, other.calls);
    echo_stop_server(&other, CH_S);
    for (int i = 0; i < 100; i++)
        cr_assert(echo_call(t, ECHO_METHOD(SAY), echo_request(t, "x"), NULL, &status), "%s",
                  base_status_text(&status));
}

struct once {
    struct echo *t;
    struct ch_client *client;
    size_t good;
    char text[200];
};

static void act_once(void *arg)
{
    CH_FIBER_ENTRY();
    struct once *once = arg;
    struct base_arena arena = { 0 };
    EchoRequest request;
    void *reply = NULL;
    strata__test__v1__echo_request__init(&request);
    struct base_status status =
        ch_client_call(once->client, ECHO_METHOD(ACT), &request, NULL, &arena, &reply);
    if (base_failed(status))
        snprintf(once->text, sizeof(once->text), "%s: %s", base_code_name(status.code),
                 base_status_text(&status));
    once->good += !base_failed(status);
    base_status_free(&status);
    base_arena_free(&arena);
}

/* What reaches a server's socket after it began to drain never ran, and the client knows: the call
 * is made elsewhere, even one that may not be repeated. A process that was not let run for a while
 * finds such calls when it stops, however long it waited for clients to leave. */
RPC_TEST_REAL(calls_that_meet_a_draining_server_run_elsewhere)
{
    enum { ROUNDS = 10, CALLS = 8 };
    struct base_status status;
    struct ch_gate gate;
    char target[300];
    echo_serve(t, NULL);
    ch_gate_init(&gate, t->env, "callers");
    size_t met = 0;
    for (int round = 0; round < ROUNDS; round++) {
        struct echo other = { .env = t->env };
        echo_serve(&other, NULL);
        snprintf(target, sizeof(target), "%s,%s", ch_server_address(t->server),
                 ch_server_address(other.server));
        struct once once = { .t = t, .client = t->client = ch_client_new(t->env, target, NULL) };
        while (other.calls == 0) /* connected to both */
            cr_assert(echo_call(t, ECHO_METHOD(SAY), echo_request(t, "x"), NULL, &status));
        size_t before = other.calls;
        for (int i = 0; i < CALLS; i++)
            cr_assert(!base_failed(ch_gate_spawn(&gate, "once", act_once, &once)));
        ch_yield(); /* all are sent, none is read */
        met += t->client->balancer.endpoints[1]->outstanding;
        ch_env_transport(t->env)->listener_drain(other.server->listeners[0]);
        ch_gate_join_always(&gate);
        cr_assert_eq(once.good, CALLS, "%zu of %d: %s", once.good, CALLS, once.text);
        cr_assert_eq(other.calls, before);
        echo_stop_server(&other, CH_S);
        ch_client_free(t->client);
        t->client = NULL;
        ch_gate_init(&gate, t->env, "callers");
    }
    cr_assert(met > ROUNDS, "only %zu calls met a draining server", met);
}

struct steady {
    struct echo *t;
    size_t good, bad;
    bool stop;
    char text[200];
};

static void call_steadily(void *arg)
{
    CH_FIBER_ENTRY();
    struct steady *steady = arg;
    struct base_arena arena = { 0 };
    EchoRequest request;
    strata__test__v1__echo_request__init(&request);
    while (!steady->stop) {
        void *reply = NULL;
        request.wait_ms = (int64_t)(steady->good % 3);
        struct base_status status =
            ch_client_call(steady->t->client, ECHO_METHOD(ACT), &request, NULL, &arena, &reply);
        if (base_failed(status)) {
            steady->bad++;
            snprintf(steady->text, sizeof(steady->text), "%s: %s", base_code_name(status.code),
                     base_status_text(&status));
        }
        steady->good += !base_failed(status);
        base_status_free(&status);
        base_arena_reset(&arena);
        ch_yield();
    }
    base_arena_free(&arena);
}

static void wait_until_good(struct steady *steady, size_t good) CH_WAITS;
static void wait_until_good(struct steady *steady, size_t good)
{
    while (steady->good < good && steady->bad == 0)
        (void)ch_sleep_until(steady->t->env, ch_in(steady->t->env, CH_MS));
}

/* A graceful stop fails no call, not even one that may not be repeated: what the server took in it
 * finishes, what it did not take in is sent elsewhere. Rolling restarts stand on this. */
RPC_TEST(graceful_stop_fails_no_call)
{
    struct echo other = { .env = t->env, .simulated = t->simulated };
    struct steady steady = { .t = t };
    struct ch_gate gate;
    char target[300];
    echo_serve(t, NULL);
    ch_gate_init(&gate, t->env, "callers");
    for (int round = 0; round < 5; round++) {
        echo_serve(&other, NULL);
        snprintf(target, sizeof(target), "%s,%s", ch_server_address(t->server),
                 ch_server_address(other.server));
        t->client = ch_client_new(t->env, target, NULL);
        steady.stop = false;
        size_t before = steady.good;
        for (int i = 0; i < 16; i++)
            cr_assert(!base_failed(ch_gate_spawn(&gate, "steady", call_steadily, &steady)));
        wait_until_good(&steady, before + 200);
        echo_stop_server(&other, 5 * CH_S);
        wait_until_good(&steady, steady.good + 50);
        steady.stop = true;
        ch_gate_join_always(&gate);
        ch_client_free(t->client);
        t->client = NULL;
    }
    cr_assert_eq(steady.bad, 0u, "%zu bad of %zu: %s", steady.bad, steady.good, steady.text);
}

/* ---- overload ---- */

struct caller {
    struct echo *t;
    enum base_code code;
    char text[200];
    bool ended;
};

static void call_waiting(void *arg)
{
    CH_FIBER_ENTRY();
    struct caller *caller = arg;
    struct echo *t = caller->t;
    struct base_arena arena = { 0 };
    EchoRequest request;
    void *reply = NULL;
    strata__test__v1__echo_request__init(&request);
    struct ch_call_options options = { .no_retry = true };
    struct base_status status =
        ch_client_call(t->client, ECHO_METHOD(ACT), &request, &options, &arena, &reply);
    caller->code = status.code;
    snprintf(caller->text, sizeof(caller->text), "%s", base_status_text(&status));
    caller->ended = true;
    base_status_free(&status);
    base_arena_free(&arena);
}

static int count_ended(const struct caller *callers, int count)
{
    int ended = 0;
    for (int i = 0; i < count; i++)
        ended += callers[i].ended;
    return ended;
}

/* A full server says so at once, to whom it cannot serve, and goes on serving the others; health
 * still answers. */
RPC_TEST(overload_is_shed)
{
    enum { CALLERS = 12 };
    struct caller callers[CALLERS];
    struct ch_gate gate;
    t->server_options.calls_max = 4;
    echo_connect(t);
    ch_gate_init(&gate, t->env, "callers");
    t->held = true; /* what runs goes on until all others have their answer */
    for (int i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){ .t = t };
        cr_assert(!base_failed(ch_gate_spawn(&gate, "caller", call_waiting, &callers[i])));
    }
    while (count_ended(callers, CALLERS) < CALLERS - 4)
        (void)ch_sleep_until(t->env, ch_in(t->env, CH_MS));
    t->held = false;
    ch_gate_join_always(&gate);
    int served = 0, shed = 0;
    for (int i = 0; i < CALLERS; i++) {
        served += callers[i].code == BASE_OK;
        shed += callers[i].code == BASE_RESOURCE_EXHAUSTED && strstr(callers[i].text, "overloaded");
    }
    cr_assert_eq(served, 4, "%d served", served);
    cr_assert_eq(shed, CALLERS - 4, "%d shed; %s", shed, callers[CALLERS - 1].text);
    cr_assert_eq(t->calls, 4u);
}

/* ---- flow ---- */

static struct ch_client_stream *open_watch(struct echo *t, int count, int reply_bytes) CH_WAITS;
static struct ch_client_stream *open_watch(struct echo *t, int count, int reply_bytes)
{
    struct ch_client_stream *stream;
    EchoRequest *request = echo_request(t, "x");
    request->count = count;
    request->reply_bytes = reply_bytes;
    cr_assert(!base_failed(ch_client_open(t->client, ECHO_METHOD(WATCH), NULL, &stream)));
    cr_assert(!base_failed(ch_stream_send(stream, request)));
    cr_assert(!base_failed(ch_stream_close_send(stream)));
    return stream;
}

static void wait_until_still(struct echo *t) CH_WAITS;
static void wait_until_still(struct echo *t)
{
    for (size_t last = 0; last == 0 || last != t->sent;) {
        last = t->sent;
        (void)ch_sleep_until(t->env, ch_in(t->env, 300 * CH_MS));
    }
}

/* A client that does not read stops its handler at the window: ch_call_send waits, so a server's
 * memory does not grow. */
RPC_TEST(slow_reader_is_waited_for)
{
    echo_connect(t);
    struct ch_client_stream *stream = open_watch(t, 3000, 64 * 1024);
    wait_until_still(t);
    cr_assert(t->sent > 0 && t->sent < 1000, "%zu messages of 64 KiB", t->sent);
    void *message = NULL;
    struct base_arena arena = { 0 };
    int got = 0;
    struct base_status status;
    while (!base_failed(status = ch_stream_recv(stream, &arena, &message)) && message) {
        got++;
        base_arena_reset(&arena);
    }
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    cr_assert_eq(got, 3000);
    base_arena_free(&arena);
    ch_stream_free(stream);
}

/* A client that goes away in the middle of a stream, reading or not, frees its handler. */
RPC_TEST(vanished_clients_free_their_handlers)
{
    echo_connect(t);
    for (int i = 0; i < 20; i++) {
        struct ch_client_stream *stream = open_watch(t, 100000, 10000);
        void *message = NULL;
        for (int j = 0; j < i; j++)
            cr_assert(!base_failed(ch_stream_recv(stream, &t->arena, &message)));
        ch_stream_free(stream);
    }
    for (int i = 0; i < 1000 && t->ended < t->calls; i++)
        (void)ch_sleep_until(t->env, ch_in(t->env, 10 * CH_MS));
    cr_assert(t->calls > 0);
    cr_assert_eq(t->ended, t->calls);
}

/* ---- bad bytes ---- */

static struct ch_tfinish raw(struct echo *t, struct ch_tchannel *channel, struct base_bytes bytes,
                             struct base_buf *reply) CH_WAITS;
static struct ch_tfinish raw(struct echo *t, struct ch_tchannel *channel, struct base_bytes bytes,
                             struct base_buf *reply)
{
    return ch_env_transport(t->env)->unary(channel, ECHO_METHOD(SAY)->path, NULL, 0,
                                           ch_in(t->env, 10 * CH_S), false, bytes, reply);
}

/* Bytes that are no message, and messages nested too deep, are INVALID_ARGUMENT with the
 * culprit's name; the handler never runs and the server goes on. */
RPC_TEST(bytes_that_do_not_decode)
{
    struct base_status status;
    struct base_buf bytes = { 0 }, reply = { 0 };
    echo_connect(t);
    struct ch_tchannel *channel =
        ch_env_transport(t->env)->channel_new(t->env, ch_server_address(t->server), 1 << 20);
    uint64_t x = 42;
    for (int round = 0; round < 300; round++) {
        base_buf_clear(&bytes);
        for (int i = 0; i < round; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            base_buf_put_u8(&bytes, (uint8_t)(x >> 56));
        }
        struct ch_tfinish finish = raw(t, channel, base_buf_bytes(&bytes), &reply);
        cr_assert(finish.status.code == BASE_OK || finish.status.code == BASE_INVALID_ARGUMENT,
                  "%s", base_status_text(&finish.status));
        base_status_free(&finish.status);
    }
    struct base_buf inner = { 0 };
    for (int depth = 0; depth < 3000; depth++) { /* field 8 of itself, over and over */
        base_buf_clear(&bytes);
        base_buf_put_u8(&bytes, 8 << 3 | 2);
        size_t len = inner.len;
        do
            base_buf_put_u8(&bytes, (uint8_t)((len & 127) | (len > 127 ? 128 : 0)));
        while (len >>= 7);
        base_buf_put_bytes(&bytes, base_buf_bytes(&inner));
        struct base_buf swap = inner;
        inner = bytes;
        bytes = swap;
    }
    struct ch_tfinish finish = raw(t, channel, base_buf_bytes(&inner), &reply);
    cr_assert_eq(finish.status.code, BASE_INVALID_ARGUMENT);
    cr_assert(strstr(base_status_text(&finish.status), "nested") != NULL, "%s",
              base_status_text(&finish.status));
    base_status_free(&finish.status);
    cr_assert(echo_call(t, ECHO_METHOD(SAY), echo_request(t, "still here"), NULL, &status) != NULL);
    ch_env_transport(t->env)->channel_free(channel);
    base_buf_free(&bytes);
    base_buf_free(&inner);
    base_buf_free(&reply);
}

/* A request over the server's limit and a reply over the client's are RESOURCE_EXHAUSTED, not a
 * hang or a lost connection. */
RPC_TEST(messages_over_the_limit)
{
    struct base_status status;
    t->server_options.message_bytes_max = 100000;
    t->client_options.message_bytes_max = 200000;
    echo_connect(t);
    EchoRequest *request = echo_request(t, "large");
    request->payload = ch_data_of(base_bytes(base_arena_calloc(&t->arena, 1, 100001), 100001));
    cr_assert(!echo_call(t, ECHO_METHOD(SAY), request, NULL, &status));
    cr_assert_eq(status.code, BASE_RESOURCE_EXHAUSTED, "%s", base_status_text(&status));
    base_status_free(&status);
    cr_assert_eq(t->calls, 0u);
    request = echo_request(t, "large reply");
    request->reply_bytes = 200001;
    struct ch_call_options options = { 0 };
    cr_assert(!echo_call(t, ECHO_METHOD(ACT), request, &options, &status));
    cr_assert_eq(status.code, BASE_RESOURCE_EXHAUSTED, "%s", base_status_text(&status));
    cr_assert(options.outcome_unknown);
    base_status_free(&status);
    request->reply_bytes = 190000;
    cr_assert(echo_call(t, ECHO_METHOD(SAY), request, NULL, &status), "%s",
              base_status_text(&status));
}
