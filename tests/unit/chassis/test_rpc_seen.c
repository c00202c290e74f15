/* What is to be seen of calls and streams: metrics by method and peer, spans, tenants' accounts;
 * and hedging, which is judged by them. */
#include <stdio.h>

#include "metrics_int.h"
#include "rpc_echo.h"
#include "test.h"
#include "trace_int.h"

/* The value of the counter or the count of the histogram of that name whose labels hold both
 * texts; -1 when there is none. */
static int64_t metric(struct echo *t, const char *name, const char *label, const char *other)
{
    size_t count;
    struct ch__metric *all = ch__metrics_all(t->env, &count);
    int64_t value = -1;
    for (size_t i = 0; i < count; i++)
        if (strcmp(all[i].name, name) == 0 && strstr(all[i].labels, label) &&
            strstr(all[i].labels, other))
            value = all[i].counter     ? (int64_t)all[i].counter->value
                    : all[i].histogram ? (int64_t)ch_histogram_count(all[i].histogram)
                                       : all[i].gauge->value;
    free(all);
    return value;
}

static void watch_through(struct echo *t, int count, enum base_code code) CH_WAITS;
static void watch_through(struct echo *t, int count, enum base_code code)
{
    struct ch_client_stream *stream;
    void *message = NULL;
    int received = 0;
    EchoRequest *request = echo_request(t, "x");
    request->count = count ? count : 1;
    request->code = (int)code;
    struct base_status status = ch_client_open(t->client, ECHO_METHOD(WATCH), NULL, &stream);
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    cr_assert(!base_failed(ch_stream_send(stream, request)));
    cr_assert(!base_failed(ch_stream_close_send(stream)));
    while (!base_failed(status = ch_stream_recv(stream, &t->arena, &message)) && message)
        received++;
    cr_assert_eq(status.code, code);
    cr_assert_eq(received, count);
    base_status_free(&status);
    ch_stream_free(stream);
}

/* Streams are seen as calls are, on both sides: how many, how they ended, how long they took, how
 * many messages went each way; one that its client drops counts as CANCELLED. */
RPC_TEST(streams_are_counted)
{
    struct ch_client_stream *stream;
    echo_connect(t);
    watch_through(t, 5, BASE_OK);
    watch_through(t, 3, BASE_OK);
    watch_through(t, 0, BASE_NOT_FOUND);
    cr_assert(!base_failed(ch_client_open(t->client, ECHO_METHOD(CHAT), NULL, &stream)));
    ch_stream_free(stream);
    const char *watch = "strata.test.v1.Echo/Watch", *chat = "strata.test.v1.Echo/Chat";
    cr_assert_eq(metric(t, "rpc_client_calls", watch, "code=\"OK\""), 2);
    cr_assert_eq(metric(t, "rpc_client_calls", watch, "code=\"NOT_FOUND\""), 1);
    cr_assert_eq(metric(t, "rpc_client_calls", chat, "code=\"CANCELLED\""), 1);
    cr_assert_eq(metric(t, "rpc_client_latency_ns", watch, ""), 3);
    cr_assert_eq(metric(t, "rpc_client_messages", watch, "sent"), 3);
    cr_assert_eq(metric(t, "rpc_client_messages", watch, "received"), 8);
    echo_stop_server(t, 5 * CH_S); /* all its calls have ended */
    cr_assert_eq(metric(t, "rpc_server_calls", watch, "code=\"OK\""), 2);
    cr_assert_eq(metric(t, "rpc_server_calls", watch, "code=\"NOT_FOUND\""), 1);
    cr_assert_eq(metric(t, "rpc_server_latency_ns", watch, ""), 3);
    cr_assert_eq(metric(t, "rpc_server_messages", watch, "received"), 3);
    cr_assert_eq(metric(t, "rpc_server_messages", watch, "sent"), 8);
}

/* /peersz shows what has a peer label: every metric of a client has one, its target as it was
 * given, whatever characters are in it. */
RPC_TEST(client_metrics_have_a_peer)
{
    struct base_status status;
    char peer[128];
    size_t count, seen = 0;
    echo_connect(t);
    cr_assert(echo_call(t, ECHO_METHOD(SAY), echo_request(t, "x"), NULL, &status) != NULL);
    watch_through(t, 1, BASE_OK);
    struct ch__metric *all = ch__metrics_all(t->env, &count);
    for (size_t i = 0; i < count; i++) {
        if (strncmp(all[i].name, "rpc_client_", 11) != 0)
            continue;
        cr_assert(ch__label_value(all[i].labels, "peer", peer, sizeof(peer)), "%s{%s}", all[i].name,
                  all[i].labels);
        cr_assert_str_eq(peer, ch_server_address(t->server));
        seen++;
    }
    free(all);
    cr_assert_geq(seen, 6u);
}

struct spans {
    struct ch__span_record watch[4];
    size_t count;
};

static void take_span(void *arg, const struct ch__span_record *record)
{
    struct spans *spans = arg;
    if (strcmp(record->name, "strata.test.v1.Echo/Watch") == 0 && spans->count < 4)
        spans->watch[spans->count++] = *record;
}

/* A stream has a span at its client, and the server's hangs under it: else a trace ends at the
 * first stream. The fiber's own span is its parent, and current again behind the opening. */
RPC_TEST(streams_have_spans)
{
    struct spans spans = { 0 };
    struct ch_span outer;
    char before[56], after[56];
    echo_connect(t);
    ch_span_begin(&outer, t->env, "outer");
    cr_assert(ch_trace_parent(before));
    watch_through(t, 2, BASE_OK);
    cr_assert(ch_trace_parent(after));
    cr_assert_str_eq(before, after);
    ch_span_end(&outer, BASE_OK);
    echo_stop_server(t, 5 * CH_S);
    ch__trace_each(t->env, take_span, &spans);
    cr_assert_eq(spans.count, 2u);
    bool first_is_client = spans.watch[0].parent == outer.id;
    const struct ch__span_record *client = &spans.watch[first_is_client ? 0 : 1],
                                 *server = &spans.watch[first_is_client ? 1 : 0];
    cr_assert_eq(client->parent, outer.id);
    cr_assert_eq(server->parent, client->id);
    cr_assert(client->trace_lo == outer.trace_lo && server->trace_lo == outer.trace_lo);
}

static void say_as(struct echo *t, const char *tenant, size_t payload) CH_WAITS;
static void say_as(struct echo *t, const char *tenant, size_t payload)
{
    struct base_status status;
    EchoRequest *request = echo_request(t, "x");
    uint8_t *bytes = base_arena_calloc(&t->arena, payload + 1, 1);
    request->payload = ch_data_of(base_bytes(bytes, payload));
    struct ch_metadata pair = { "x-strata-tenant", base_bytes_str(tenant) };
    struct ch_call_options options = { .metadata = &pair, .metadata_count = *tenant ? 1 : 0 };
    cr_assert(echo_call(t, ECHO_METHOD(SAY), request, &options, &status) != NULL, "%s",
              base_status_text(&status));
}

/* Each tenant's calls, bytes and time are on its own account, for bills and for finding who fills
 * a server; a flood of names ends in one account for the rest, so the page stays readable. */
RPC_TEST(usage_is_counted_by_tenant)
{
    echo_connect(t);
    for (int i = 0; i < 3; i++)
        say_as(t, "blue", 1000);
    say_as(t, "", 10);
    for (int i = 0; i < 150; i++) {
        char name[16];
        snprintf(name, sizeof(name), "flood%d", i);
        say_as(t, name, 0);
    }
    say_as(t, "blue", 1000);
    echo_stop_server(t, 5 * CH_S);
    cr_assert_eq(metric(t, "usage_calls", "tenant=\"blue\"", ""), 4);
    cr_assert_eq(metric(t, "usage_calls", "tenant=\"system\"", ""), 1);
    cr_assert_eq(metric(t, "usage_calls", "tenant=\"flood97\"", ""), 1);
    cr_assert_eq(metric(t, "usage_calls", "tenant=\"flood98\"", ""), -1, "two were there before");
    cr_assert_eq(metric(t, "usage_calls", "tenant=\"other\"", ""), 52);
    int64_t in = metric(t, "usage_bytes_received", "tenant=\"blue\"", ""),
            out = metric(t, "usage_bytes_sent", "tenant=\"blue\"", ""),
            busy = metric(t, "usage_busy_ns", "tenant=\"blue\"", "");
    cr_assert(in > 4000 && in < 4200, "%ld", (long)in);
    cr_assert(out > 4000 && out < 4400, "%ld", (long)out);
    cr_assert(t->simulated || (busy > 1000 && busy < 1000000000), "%ld", (long)busy);
}
