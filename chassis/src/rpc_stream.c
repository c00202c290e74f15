/* rpc_stream.c: streaming calls of a client. One fiber may send while another receives; neither
 * is retried.
 * Invariants: 1. The client's closing cancels its streams. 2. Every stream is counted once and has
 * one span, from its opening to its being freed, whose code is the call's own, or CANCELLED when
 * it was freed before its end. */
#include <stdlib.h>

#include "rpc_client_int.h"
#include "rpc_target.h"
#include "trace_int.h"

struct ch_client_stream {
    struct ch_client *client;
    const struct ch_method *method;
    struct ch_endpoint *endpoint;
    struct ch_tcall *tcall;
    struct base_buf in, out;
    struct ch__client_method *stats;
    struct ch_span span;
    ch_time begun;
    bool over;
    struct base_status end; /* when over */
};

struct base_status ch_client_open(struct ch_client *client, const struct ch_method *method,
                                  struct ch_call_options *options, struct ch_client_stream **out)
{
    struct ch_endpoint *endpoint = NULL;
    ch_time deadline = options && options->deadline ? ch_context_deadline(options->deadline)
                                                    : ch_context_deadline(CH_NEVER);
    struct ch__client_method *stats = ch__client_method(client, method);
    ch_time begun = ch_now(client->env);
    *out = NULL;
    ch__client_enter(client);
    struct base_status status = ch__client_pick(client, NULL, deadline, &endpoint);
    if (base_failed(status)) {
        ch__client_count(client, stats, status.code, ch_now(client->env) - begun);
        ch__client_leave(client);
        return base_status_wrap(status, "%s", method->name);
    }
    struct ch_client_stream *stream = calloc(1, sizeof(*stream));
    BASE_ASSERT(stream != NULL);
    stream->stats = stats;
    stream->begun = begun;
    ch_span_begin(&stream->span, client->env, method->path + 1);
    struct ch__client_out metadata;
    ch__client_metadata(&metadata, options, false); /* the peer's span hangs under the stream's */
    ch__span_leave(&stream->span);
    stream->client = client;
    stream->method = method;
    stream->endpoint = endpoint;
    stream->tcall =
        client->transport->open(endpoint->channel, method->path, metadata.pairs, metadata.count,
                                deadline, options && options->wait_for_ready);
    stream->in = ch__client_buf(client);
    stream->out = ch__client_buf(client);
    *out = stream;
    return status;
}

/* The call's own status instead of "the call is over". */
static struct base_status end_of(struct ch_client_stream *stream) CH_WAITS;
static struct base_status end_of(struct ch_client_stream *stream)
{
    if (!stream->over) {
        struct ch_tfinish finish = stream->client->transport->finish(stream->tcall);
        finish.status = base_status_wrap(finish.status, "%s to %s", stream->method->name,
                                         stream->endpoint->address);
        if (stream->over) /* another fiber was first */
            base_status_free(&finish.status);
        else
            stream->end = finish.status;
        stream->over = true;
    }
    return base_status_copy(&stream->end);
}

static struct base_status broken(struct ch_client_stream *stream,
                                 struct base_status status) CH_WAITS;
static struct base_status broken(struct ch_client_stream *stream, struct base_status status)
{
    if (!base_failed(status) || status.code == BASE_CANCELLED)
        return status;
    struct base_status end = end_of(stream);
    if (!base_failed(end))
        end = base_status_make(BASE_UNAVAILABLE, "%s to %s: the server has ended the call",
                               stream->method->name, stream->endpoint->address);
    base_status_free(&status);
    return end;
}

struct base_status ch_stream_send(struct ch_client_stream *stream, const void *message)
{
    base_buf_clear(&stream->out);
    ch_proto_encode(message, &stream->out);
    struct base_status status =
        stream->client->transport->send(stream->tcall, base_buf_bytes(&stream->out));
    if (!base_failed(status))
        ch_count(stream->stats->sent, 1);
    return broken(stream, status);
}

struct base_status ch_stream_close_send(struct ch_client_stream *stream)
{
    return broken(stream, stream->client->transport->close_send(stream->tcall));
}

struct base_status ch_stream_recv(struct ch_client_stream *stream, struct base_arena *arena,
                                  void **message)
{
    bool end = false;
    *message = NULL;
    if (stream->over)
        return base_status_copy(&stream->end);
    base_buf_clear(&stream->in);
    struct base_status status = stream->client->transport->recv(stream->tcall, &stream->in, &end);
    if (base_failed(status))
        return broken(stream, status);
    if (end)
        return end_of(stream);
    ch_count(stream->stats->received, 1);
    ProtobufCMessage *decoded = NULL;
    status = ch_proto_decode(stream->method->reply, base_buf_bytes(&stream->in), arena, &decoded);
    if (base_failed(status)) {
        status.code = BASE_INTERNAL;
        stream->client->transport->cancel(stream->tcall);
        return base_status_wrap(status, "%s to %s: reply", stream->method->name,
                                stream->endpoint->address);
    }
    *message = decoded;
    return status;
}

void ch_stream_free(struct ch_client_stream *stream)
{
    struct ch_client *client = stream->client;
    enum base_code code = stream->over ? stream->end.code : BASE_CANCELLED;
    client->transport->free(stream->tcall); /* cancels it when it is not over */
    ch__client_count(client, stream->stats, code, ch_now(client->env) - stream->begun);
    ch__span_record(&stream->span, code);
    ch__client_done(client, stream->endpoint, stream->over ? stream->end.code : BASE_OK);
    base_status_free(&stream->end);
    ch__client_buf_back(client, stream->in);
    ch__client_buf_back(client, stream->out);
    free(stream);
    ch__client_leave(client);
}
