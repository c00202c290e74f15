/* rpc_echo.c: see rpc_echo.h. */
#include "rpc_echo.h"

#include <stdio.h>

static EchoReply *reply_to(struct ch_call *call, struct base_arena *arena,
                           const EchoRequest *request)
{
    EchoReply *reply = CH_MESSAGE(arena, EchoReply, strata__test__v1__echo_reply);
    struct ch_context *context = ch_context_current();
    reply->text = request->text;
    reply->payload = request->payload;
    if (request->reply_bytes)
        reply->payload =
            ch_data_of(base_bytes(base_arena_calloc(arena, 1, (size_t)request->reply_bytes),
                                  (size_t)request->reply_bytes));
    reply->tenant = ch_data_str(base_arena_strdup(arena, context->tenant));
    reply->peer = ch_data_str(ch_call_peer(call));
    reply->metadata = ch_data_of(ch_call_metadata(call, "x-test"));
    if (ch_call_deadline(call) != CH_NEVER)
        reply->deadline_ms = (ch_call_deadline(call) - ch_now(ch_fiber_env())) / CH_MS;
    return reply;
}

static struct base_status do_as_told(struct echo *t, struct ch_call *call,
                                     const EchoRequest *request) CH_WAITS;
static struct base_status do_as_told(struct echo *t, struct ch_call *call,
                                     const EchoRequest *request)
{
    if (request->wait_ms) {
        t->inside++;
        enum ch_outcome outcome = ch_sleep_until(t->env, ch_in(t->env, request->wait_ms * CH_MS));
        t->inside--;
        if (outcome == CH_CANCELLED) {
            t->cancelled++;
            return ch_outcome_status(outcome, "wait");
        }
    }
    while (t->held && ch_sleep_until(t->env, ch_in(t->env, CH_MS)) != CH_CANCELLED)
        continue;
    if (t->fail_first > 0) {
        t->fail_first--;
        return base_status_make(BASE_UNAVAILABLE, "told to fail first");
    }
    if (request->code)
        return base_status_make((enum base_code)request->code, "%.*s",
                                BASE_FMT(ch_bytes_of(request->error)));
    return BASE_STATUS_OK;
}

static struct base_status say(void *self, struct ch_call *call, const void *message,
                              void **reply) CH_WAITS;
static struct base_status say(void *self, struct ch_call *call, const void *message, void **reply)
{
    struct echo *t = self;
    t->calls++;
    struct base_status status = do_as_told(t, call, message);
    *reply = reply_to(call, ch_call_arena(call), message);
    return status;
}

static struct base_status watch(void *self, struct ch_call *call) CH_WAITS;
static struct base_status watch(void *self, struct ch_call *call)
{
    struct echo *t = self;
    void *message = NULL;
    t->calls++;
    struct base_status status = ch_call_recv(call, NULL, &message);
    if (base_failed(status)) {
        t->ended++;
        return status;
    }
    EchoRequest *request = message;
    for (int i = 0; i < request->count && !base_failed(status); i++) {
        status = do_as_told(t, call, request);
        EchoReply *reply = reply_to(call, ch_call_arena(call), request);
        reply->count = i + 1;
        if (!base_failed(status))
            status = ch_call_send(call, reply);
        t->sent += !base_failed(status);
    }
    t->ended++;
    t->cancelled += status.code == BASE_CANCELLED;
    return status;
}

static struct base_status collect(void *self, struct ch_call *call) CH_WAITS;
static struct base_status collect(void *self, struct ch_call *call)
{
    struct echo *t = self;
    struct base_arena arena = { 0 };
    EchoReply reply;
    void *message = NULL;
    size_t bytes = 0;
    t->calls++;
    strata__test__v1__echo_reply__init(&reply);
    struct base_status status;
    while (!base_failed(status = ch_call_recv(call, &arena, &message)) && message) {
        reply.count++;
        bytes += ((EchoRequest *)message)->payload.len;
        base_arena_reset(&arena);
    }
    base_arena_free(&arena);
    t->cancelled += status.code == BASE_CANCELLED;
    if (base_failed(status))
        return status;
    reply.deadline_ms = (int64_t)bytes;
    return ch_call_send(call, &reply);
}

static struct base_status chat(void *self, struct ch_call *call) CH_WAITS;
static struct base_status chat(void *self, struct ch_call *call)
{
    struct echo *t = self;
    struct base_arena arena = { 0 };
    void *message = NULL;
    struct base_status status;
    t->calls++;
    while (!base_failed(status = ch_call_recv(call, &arena, &message)) && message) {
        status = do_as_told(t, call, message);
        if (!base_failed(status))
            status = ch_call_send(call, reply_to(call, &arena, message));
        base_arena_reset(&arena);
        if (base_failed(status))
            break;
    }
    base_arena_free(&arena);
    t->cancelled += status.code == BASE_CANCELLED;
    return status;
}

void echo_register(struct echo *t)
{
    ch_server_add_service(t->server, &strata__test__v1__echo__service);
    ch_server_handle(t->server, ECHO_METHOD(SAY), say, t);
    ch_server_handle(t->server, ECHO_METHOD(ACT), say, t);
    ch_server_handle_stream(t->server, ECHO_METHOD(WATCH), watch, t);
    ch_server_handle_stream(t->server, ECHO_METHOD(COLLECT), collect, t);
    ch_server_handle_stream(t->server, ECHO_METHOD(CHAT), chat, t);
}

static void must_succeed(struct base_status status)
{
    if (!base_failed(status))
        return;
    fprintf(stderr, "%s\n", base_status_text(&status));
    abort();
}

void echo_serve(struct echo *t, const char *address)
{
    t->server_options.address = address ? address : t->simulated ? "10.0.0.1:0" : "127.0.0.1:0";
    struct base_status status = ch_server_new(t->env, &t->server_options, &t->server);
    must_succeed(status);
    echo_register(t);
    status = ch_server_start(t->server);
    must_succeed(status);
    ch_server_set_serving(t->server, true);
}

void echo_connect(struct echo *t)
{
    if (!t->server)
        echo_serve(t, NULL);
    t->client = ch_client_new(t->env, ch_server_address(t->server), &t->client_options);
}

void echo_stop_server(struct echo *t, ch_time grace)
{
    ch_server_stop(t->server, ch_in(t->env, grace));
    t->server = NULL;
}

EchoRequest *echo_request(struct echo *t, const char *text)
{
    EchoRequest *request = CH_MESSAGE(&t->arena, EchoRequest, strata__test__v1__echo_request);
    request->text = ch_data_str(text);
    return request;
}

EchoReply *echo_call(struct echo *t, const struct ch_method *method, EchoRequest *request,
                     struct ch_call_options *options, struct base_status *status)
{
    void *reply = NULL;
    *status = ch_client_call(t->client, method, request, options, &t->arena, &reply);
    return base_failed(*status) ? NULL : reply;
}

/* ---- running ---- */

struct run {
    struct echo t;
    void (*body)(struct echo *t) CH_WAITS_SLOT;
    bool ended;
};

static int run_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct run *run = arg;
    run->t.env = env;
    base_arena_init(&run->t.arena);
    run->body(&run->t);
    if (run->t.client)
        ch_client_free(run->t.client);
    if (run->t.server)
        ch_server_stop(run->t.server, ch_in(env, 5 * CH_S));
    base_arena_free(&run->t.arena);
    run->ended = true;
    return 7;
}

void echo_run_real_with(void (*body)(struct echo *t), void *extra)
{
    struct run run = { .t.extra = extra };
    CH_FIBER_ENTRY(); /* for the analysis alone: the body is called on a fiber */
    run.body = body;
    BASE_ASSERT(ch_env_run(run_main, &run) == 7);
}

void echo_run_real(void (*body)(struct echo *t))
{
    echo_run_real_with(body, NULL);
}

void echo_run_sim(void (*body)(struct echo *t))
{
    struct run run = { .t.simulated = true };
    CH_FIBER_ENTRY();
    run.body = body;
    struct ch_sim *sim = ch_sim_new(ch_sim_seed(1));
    struct ch_sim_node *node = ch_sim_node(sim, "echo", "10.0.0.1");
    ch_sim_start(node, run_main, &run);
    ch_sim_run(sim, NULL, NULL, 600 * CH_S);
    BASE_ASSERT(run.ended);
    ch_sim_free(sim);
}
