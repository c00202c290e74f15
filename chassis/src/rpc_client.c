/* rpc_client.c: a client and its unary calls. Streams are in rpc_stream.c, the following of
 * names in rpc_target.c, what is counted in rpc_stats.c, a second copy
 * of a slow call in rpc_hedge.c.
 *
 * Happy path: pick an endpoint -> encode -> one transport call -> decode into the caller's
 * arena.
 * Invariants:
 *  1. A call is sent again only when ch_retry_safe says so, retries are not forbidden, the
 *     budget allows it, and the wait ends before the deadline. A repeated call tells its callee
 *     not to retry below (x-strata-no-retry), so attempts along a call tree add and do not
 *     multiply.
 *  2. An endpoint is kept by its calls' references while naming replaces the list.
 *  3. ch_client_free returns only when no fiber is inside. */
#include "rpc_client_int.h"

#include <stdlib.h>
#include <string.h>

#include "rpc_target.h"

enum { MESSAGE_BYTES_DEFAULT = 64 << 20, KEPT_BUF_BYTES = 64 << 10 };
static const ch_time DEADLINE_DEFAULT = 60 * CH_S;

struct ch_client *ch_client_new(struct ch_env *env, const char *target,
                                const struct ch_client_options *options)
{
    struct ch_client *client = calloc(1, sizeof(*client));
    BASE_ASSERT(client != NULL);
    client->env = env;
    client->transport = ch_env_transport(env);
    client->target = strdup(target);
    BASE_ASSERT(client->target != NULL);
    client->message_bytes_max =
        options && options->message_bytes_max ? options->message_bytes_max : MESSAGE_BYTES_DEFAULT;
    client->no_retry = options && options->no_retry;
    client->naming = options ? options->naming : NULL;
    ch_retry_budget_init(&client->budget);
    ch_gate_init(&client->gate, env, "rpc client");
    ch_cond_init(&client->changed);
    ch__target_start(client);
    return client;
}

void ch_client_free(struct ch_client *client)
{
    client->closed = true;
    ch_gate_stop(&client->gate);
    ch_cond_broadcast(&client->changed);
    ch__target_close(client); /* ends open calls */
    while (client->inside > 0)
        ch_cond_wait_always(&client->changed);
    for (size_t i = 0; i < client->pooled; i++)
        base_buf_free(&client->pool[i]);
    free(client->target);
    free(client);
}

void ch__client_enter(struct ch_client *client)
{
    client->inside++;
}

void ch__client_leave(struct ch_client *client)
{
    if (--client->inside == 0 && client->closed)
        ch_cond_broadcast(&client->changed);
}

/* ---- small parts ---- */

struct base_buf ch__client_buf(struct ch_client *client)
{
    if (client->pooled)
        return client->pool[--client->pooled];
    return (struct base_buf){ 0 };
}

void ch__client_buf_back(struct ch_client *client, struct base_buf buf)
{
    if (client->pooled == CH__POOLED_BUFS_MAX || buf.cap > KEPT_BUF_BYTES) {
        base_buf_free(&buf);
        return;
    }
    base_buf_clear(&buf);
    client->pool[client->pooled++] = buf;
}

ch_time ch__client_deadline(struct ch_client *client, const struct ch_call_options *options)
{
    if (options && options->deadline)
        return ch_context_deadline(options->deadline);
    ch_time deadline = ch_context_deadline(CH_NEVER);
    return deadline == CH_NEVER ? ch_in(client->env, DEADLINE_DEFAULT) : deadline;
}

static void put_pair(struct ch__client_out *out, const char *key, struct base_bytes value)
{
    if (out->count < CH__CLIENT_METADATA_MAX)
        out->pairs[out->count++] = (struct ch_metadata){ key, value };
}

void ch__client_metadata(struct ch__client_out *out, const struct ch_call_options *options,
                         bool retried)
{
    struct ch_context *context = ch_context_current();
    out->count = 0;
    if (ch_trace_parent(out->traceparent))
        put_pair(out, "traceparent", base_bytes(out->traceparent, 55));
    if (context && *context->tenant)
        put_pair(out, "x-strata-tenant", base_bytes_str(context->tenant));
    if (context && context->criticality != CH_DEFAULT) {
        out->criticality[0] = (char)('0' + context->criticality);
        put_pair(out, "x-strata-criticality", base_bytes(out->criticality, 1));
    }
    if (retried || (context && context->retries_forbidden))
        put_pair(out, "x-strata-no-retry", BASE_BYTES_LIT("1"));
    for (size_t i = 0; options && i < options->metadata_count; i++)
        put_pair(out, options->metadata[i].key, options->metadata[i].value);
}

/* ---- a unary call ---- */

struct ch_tfinish ch__client_attempt(struct ch__unary *unary, const struct ch_endpoint *avoid,
                                     bool repeated, struct base_buf *reply,
                                     struct ch_endpoint **used)
{
    struct ch_client *client = unary->client;
    struct ch_endpoint *endpoint = NULL;
    struct ch_tfinish finish = { .status =
                                     ch__client_pick(client, avoid, unary->deadline, &endpoint) };
    if (base_failed(finish.status)) {
        finish.never_seen = true;
        return finish;
    }
    endpoint->refs++;
    *used = endpoint;
    struct ch__client_out out;
    ch__client_metadata(&out, unary->options, repeated);
    base_buf_clear(reply);
    finish = client->transport->unary(
        endpoint->channel, unary->method->path, out.pairs, out.count, unary->deadline,
        unary->options && unary->options->wait_for_ready, base_buf_bytes(&unary->request), reply);
    finish.status =
        base_status_wrap(finish.status, "%s to %s", unary->method->name, endpoint->address);
    ch__client_done(client, endpoint, finish.status.code);
    return finish;
}

void ch__unary_last(struct ch__unary *unary, struct ch_endpoint *used)
{
    if (!used)
        return;
    ch__endpoint_unref(unary->client, unary->last);
    unary->last = used;
}

static struct ch_tfinish attempt(struct ch__unary *unary) CH_WAITS;
static struct ch_tfinish attempt(struct ch__unary *unary)
{
    if (unary->options && unary->options->hedge_after > 0 && unary->may_retry &&
        unary->method->no_side_effects)
        return ch__client_attempt_hedged(unary);
    struct ch_endpoint *used = NULL;
    struct ch_tfinish finish =
        ch__client_attempt(unary, unary->last, unary->repeated, &unary->reply, &used);
    ch__unary_last(unary, used);
    return finish;
}

/* Waits for the next attempt; false when there shall be none. */
static bool retry_after(struct ch__unary *unary, const struct ch_tfinish *finish,
                        int tries) CH_WAITS;
static bool retry_after(struct ch__unary *unary, const struct ch_tfinish *finish, int tries)
{
    struct ch_client *client = unary->client;
    struct ch_context *context = ch_context_current();
    if (!unary->may_retry || !ch_retry_safe(finish, unary->method->idempotent) || client->closed)
        return false;
    bool last = tries >= CH__RETRY_ATTEMPTS_MAX;
    if (!last && finish->never_seen && finish->pushback == 0 && client->balancer.count > 1) {
        ch_count(unary->stats->retries, 1);
        return true; /* nobody there: on to another endpoint, at no cost to anyone */
    }
    ch_retry_budget_failure(&client->budget);
    ch_time wait = ch_retry_wait(tries, finish->pushback, ch_random(client->env));
    if (last || !ch_retry_budget_allows(&client->budget)) {
        if (context) /* whoever called us should not go on where we gave up */
            context->retries_forbidden = true;
        return false;
    }
    if (ch_in(client->env, wait) >= unary->deadline)
        return false;
    unary->repeated = true;
    ch_count(unary->stats->retries, 1);
    return ch_sleep_until(client->env, ch_in(client->env, wait)) == CH_TIMEOUT;
}

static struct base_status run_unary(struct ch__unary *unary) CH_WAITS;
static struct base_status run_unary(struct ch__unary *unary)
{
    for (int tries = 1;; tries++) {
        struct ch_tfinish finish = attempt(unary);
        unary->outcome_unknown = unary->outcome_unknown || ch_retry_outcome_unknown(&finish);
        if (!base_failed(finish.status)) {
            ch_retry_budget_success(&unary->client->budget);
            return finish.status;
        }
        if (!retry_after(unary, &finish, tries))
            return finish.status;
        base_status_free(&finish.status);
    }
}

struct base_status ch_client_call(struct ch_client *client, const struct ch_method *method,
                                  const void *request, struct ch_call_options *options,
                                  struct base_arena *arena, void **reply)
{
    struct ch_context *context = ch_context_current();
    struct ch__unary unary = {
        .client = client,
        .method = method,
        .options = options,
        .stats = ch__client_method(client, method),
        .deadline = ch__client_deadline(client, options),
        .may_retry = !client->no_retry && !(options && options->no_retry) &&
                     !(context && context->retries_forbidden),
    };
    ch_time begin = ch_now(client->env);
    ch__client_enter(client);
    unary.request = ch__client_buf(client);
    unary.reply = ch__client_buf(client);
    ch_proto_encode(request, &unary.request);
    struct ch_span span;
    ch_span_begin(&span, client->env, method->path + 1);
    struct base_status status = run_unary(&unary);
    ch_span_end(&span, status.code);
    if (!base_failed(status)) {
        ProtobufCMessage *message = NULL;
        status = ch_proto_decode(method->reply, base_buf_bytes(&unary.reply), arena, &message);
        if (base_failed(status)) {
            status.code = BASE_INTERNAL; /* it is the peer's fault, not our caller's */
            status = base_status_wrap(status, "%s to %s: reply", method->name, unary.last->address);
            unary.outcome_unknown = true;
        }
        *reply = message;
    }
    if (options)
        options->outcome_unknown = base_failed(status) && unary.outcome_unknown;
    ch__client_count(client, unary.stats, status.code, ch_now(client->env) - begin);
    ch__endpoint_unref(client, unary.last);
    ch__client_buf_back(client, unary.request);
    ch__client_buf_back(client, unary.reply);
    ch__client_leave(client);
    return status;
}
