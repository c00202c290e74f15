/* Hedged reads (rpc_hedge.c), over two servers of which one or both are slow. */
#include <stdio.h>

#include "chassis/metrics.h"
#include "rpc_echo.h"
#include "test.h"

struct backend {
    struct ch_env *env;
    struct ch_server *server;
    ch_time wait;
    enum base_code code;
    size_t calls, cancelled;
};

static struct base_status answer(void *self, struct ch_call *call, const void *message,
                                 void **reply) CH_WAITS;
static struct base_status answer(void *self, struct ch_call *call, const void *message,
                                 void **reply)
{
    struct backend *backend = self;
    backend->calls++;
    if (ch_sleep_until(backend->env, ch_in(backend->env, backend->wait)) == CH_CANCELLED) {
        backend->cancelled++;
        return base_status_make(BASE_CANCELLED, "cancelled");
    }
    if (backend->code)
        return base_status_make(backend->code, "as told");
    *reply = CH_MESSAGE(ch_call_arena(call), EchoReply, strata__test__v1__echo_reply);
    return BASE_STATUS_OK;
}

static void backend_start(struct echo *t, struct backend *backend) CH_WAITS;
static void backend_start(struct echo *t, struct backend *backend)
{
    struct ch_server_options options = { .address = t->simulated ? "10.0.0.1:0" : "127.0.0.1:0" };
    backend->env = t->env;
    cr_assert(!base_failed(ch_server_new(t->env, &options, &backend->server)));
    ch_server_handle(backend->server, ECHO_METHOD(SAY), answer, backend);
    ch_server_handle(backend->server, ECHO_METHOD(ACT), answer, backend);
    cr_assert(!base_failed(ch_server_start(backend->server)));
    ch_server_set_serving(backend->server, true);
}

struct pair {
    struct backend a, b;
    struct ch_client *client;
};

static void pair_start(struct echo *t, struct pair *pair, ch_time wait_a, ch_time wait_b) CH_WAITS;
static void pair_start(struct echo *t, struct pair *pair, ch_time wait_a, ch_time wait_b)
{
    char target[300];
    *pair = (struct pair){ .a = { .wait = wait_a }, .b = { .wait = wait_b } };
    backend_start(t, &pair->a);
    backend_start(t, &pair->b);
    snprintf(target, sizeof(target), "%s,%s", ch_server_address(pair->a.server),
             ch_server_address(pair->b.server));
    pair->client = ch_client_new(t->env, target, NULL);
}

static void pair_stop(struct echo *t, struct pair *pair) CH_WAITS;
static void pair_stop(struct echo *t, struct pair *pair)
{
    ch_client_free(pair->client);
    ch_server_stop(pair->a.server, ch_in(t->env, CH_S));
    ch_server_stop(pair->b.server, ch_in(t->env, CH_S));
}

static enum base_code call(struct echo *t, struct pair *pair, const struct ch_method *method,
                           ch_time hedge_after, ch_time *took) CH_WAITS;
static enum base_code call(struct echo *t, struct pair *pair, const struct ch_method *method,
                           ch_time hedge_after, ch_time *took)
{
    struct ch_call_options options = { .deadline = ch_in(t->env, 20 * CH_S),
                                       .hedge_after = hedge_after };
    ch_time begun = ch_now(t->env);
    void *reply = NULL;
    struct base_status status =
        ch_client_call(pair->client, method, echo_request(t, "x"), &options, &t->arena, &reply);
    if (took)
        *took = ch_now(t->env) - begun;
    return base_status_drop(status);
}

/* A read that meets a slow server is answered by another one soon, and the slow one is told to
 * stop: the tail of one server is not the tail of the service. */
RPC_TEST(a_slow_server_is_outrun)
{
    struct pair pair;
    ch_time took;
    pair_start(t, &pair, 5 * CH_S, 0);
    for (int i = 0; i < 60 && pair.a.calls < 3; i++) {
        cr_assert_eq(call(t, &pair, ECHO_METHOD(SAY), 30 * CH_MS, &took), BASE_OK);
        cr_assert(took < 3 * CH_S, "%lld ms", (long long)(took / CH_MS));
    }
    cr_assert_eq(pair.a.calls, 3u);
    pair_stop(t, &pair);
    cr_assert_eq(pair.a.cancelled, 3u);
}

/* When everything is slow, hedges would double the load on what is drowning already: the retry
 * budget lets a few through, then a tenth. */
RPC_TEST(hedges_keep_to_the_budget)
{
    enum { CALLS = 60 };
    struct pair pair;
    pair_start(t, &pair, 20 * CH_MS, 20 * CH_MS);
    for (int i = 0; i < CALLS; i++)
        cr_assert_eq(call(t, &pair, ECHO_METHOD(SAY), CH_MS, NULL), BASE_OK);
    size_t hedges = pair.a.calls + pair.b.calls - CALLS;
    cr_assert(hedges >= 1 && hedges <= 5 + CALLS / 10 + 1, "%zu hedges", hedges);
    pair_stop(t, &pair);
}

/* What may not be done twice is never sent twice, whatever the caller asks for; and nothing is
 * hedged that did not ask. */
RPC_TEST(only_reads_that_ask_are_hedged)
{
    struct pair pair;
    pair_start(t, &pair, 30 * CH_MS, 30 * CH_MS);
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(call(t, &pair, ECHO_METHOD(ACT), CH_MS, NULL), BASE_OK);
        cr_assert_eq(call(t, &pair, ECHO_METHOD(SAY), 0, NULL), BASE_OK);
    }
    cr_assert_eq(pair.a.calls + pair.b.calls, 20u);
    pair_stop(t, &pair);
}

/* An error that the server means is an answer: it is not outvoted by asking somebody else. */
RPC_TEST(an_error_is_an_answer)
{
    struct pair pair;
    pair_start(t, &pair, 0, 0);
    pair.a.code = pair.b.code = BASE_NOT_FOUND;
    cr_assert_eq(call(t, &pair, ECHO_METHOD(SAY), CH_S, NULL), BASE_NOT_FOUND);
    cr_assert_eq(pair.a.calls + pair.b.calls, 1u);
    pair_stop(t, &pair);
}

struct caller {
    struct echo *t;
    struct pair *pair;
    enum base_code code;
};

static void caller_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct caller *caller = arg;
    caller->code = call(caller->t, caller->pair, ECHO_METHOD(SAY), 5 * CH_MS, NULL);
}

/* A caller that is cancelled is let go at once, with both copies of its call under way. */
RPC_TEST(cancelled_with_both_under_way)
{
    struct pair pair;
    struct caller caller = { t, &pair, BASE_OK };
    struct ch_gate gate;
    pair_start(t, &pair, 10 * CH_S, 10 * CH_S);
    ch_gate_init(&gate, t->env, "caller");
    cr_assert(!base_failed(ch_gate_spawn(&gate, "caller", caller_fiber, &caller)));
    while (pair.a.calls + pair.b.calls < 2)
        (void)ch_sleep_until(t->env, ch_in(t->env, 2 * CH_MS));
    ch_time begun = ch_now(t->env);
    ch_gate_stop(&gate);
    cr_assert(ch_now(t->env) - begun < 5 * CH_S);
    cr_assert_eq(caller.code, BASE_CANCELLED);
    pair_stop(t, &pair);
    cr_assert_eq(pair.a.cancelled + pair.b.cancelled, 2u);
}
