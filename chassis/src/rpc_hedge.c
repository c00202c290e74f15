/* rpc_hedge.c: a second copy of a slow read ("The Tail at Scale", Dean and Barroso, CACM 2013:
 * "hedged requests").
 *
 * The call runs on a fiber of its own. When it has no answer after `hedge_after`, and the client
 * has another endpoint and retry budget, a second one is sent there. The first answer wins, be it
 * an error that the server means; a failure to answer (UNAVAILABLE and the like) waits for the
 * other. The loser is cancelled and joined: nothing of a call outlives it.
 * Invariants: 1. Only methods without side effects get here. 2. A hedge takes a token of the retry
 * budget, which a success refills by a tenth: in the long run at most a tenth of the calls are
 * hedged, and none when a peer is failing. 3. The second copy tells its callee not to retry. */
#include "rpc_client_int.h"
#include "rpc_target.h"

struct hedge;
struct leg {
    struct hedge *hedge;
    const struct ch_endpoint *avoid;
    struct ch_endpoint *used; /* counted */
    struct base_buf reply;
    struct ch_tfinish finish;
    bool repeated, sent, done;
};

struct hedge {
    struct ch__unary *unary;
    struct ch_gate gate;
    struct ch_cond changed;
    struct leg legs[2];
};

static void leg_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct leg *leg = arg;
    leg->finish =
        ch__client_attempt(leg->hedge->unary, leg->avoid, leg->repeated, &leg->reply, &leg->used);
    leg->done = true;
    ch_cond_signal(&leg->hedge->changed);
}

static struct base_status leg_send(struct hedge *hedge, int which)
{
    struct leg *leg = &hedge->legs[which];
    leg->hedge = hedge;
    leg->reply = ch__client_buf(hedge->unary->client);
    struct base_status status = ch_gate_spawn_inherit(&hedge->gate, "rpc leg", leg_fiber, leg);
    leg->sent = !base_failed(status);
    if (base_failed(status))
        ch__client_buf_back(hedge->unary->client, leg->reply);
    return status;
}

/* The server has spoken. */
static bool is_answer(const struct leg *leg)
{
    enum base_code code = leg->finish.status.code;
    return leg->done && !leg->finish.never_seen && code != BASE_UNAVAILABLE &&
           code != BASE_DEADLINE_EXCEEDED && code != BASE_CANCELLED;
}

static bool decided(const struct hedge *hedge)
{
    const struct leg *a = &hedge->legs[0], *b = &hedge->legs[1];
    return is_answer(a) || (b->sent && is_answer(b)) || (a->done && (!b->sent || b->done));
}

static bool may_hedge(const struct hedge *hedge)
{
    struct ch_client *client = hedge->unary->client;
    return !client->closed && client->balancer.count > 1 && hedge->legs[0].used &&
           ch_retry_budget_allows(&client->budget) && ch_now(client->env) < hedge->unary->deadline;
}

static void wait_and_hedge(struct hedge *hedge) CH_WAITS;
static void wait_and_hedge(struct hedge *hedge)
{
    struct ch__unary *unary = hedge->unary;
    struct ch_client *client = unary->client;
    ch_time at = ch_in(client->env, unary->options->hedge_after);
    enum ch_outcome outcome = CH_OK;
    while (!decided(hedge) && outcome == CH_OK)
        outcome = ch_cond_wait(&hedge->changed, at);
    if (outcome == CH_TIMEOUT && !decided(hedge) && may_hedge(hedge)) {
        hedge->legs[1].avoid = hedge->legs[0].used;
        hedge->legs[1].repeated = true;
        ch_retry_budget_failure(&client->budget);
        if (base_status_drop(leg_send(hedge, 1)) == BASE_OK)
            ch__client_count_hedge(client, unary->stats, false);
    }
    while (!decided(hedge) && outcome != CH_CANCELLED) /* its legs end at the deadline */
        outcome = ch_cond_wait(&hedge->changed, CH_NEVER);
}

struct ch_tfinish ch__client_attempt_hedged(struct ch__unary *unary)
{
    struct ch_client *client = unary->client;
    struct hedge hedge = { .unary = unary };
    struct leg *a = &hedge.legs[0], *b = &hedge.legs[1];
    ch_gate_init(&hedge.gate, client->env, "rpc legs");
    ch_cond_init(&hedge.changed);
    a->avoid = unary->last;
    a->repeated = unary->repeated;
    struct base_status status = leg_send(&hedge, 0);
    if (base_failed(status))
        return (struct ch_tfinish){ .status = status, .never_seen = true };
    wait_and_hedge(&hedge);
    bool second = b->sent && !is_answer(a) && is_answer(b);
    ch_gate_stop(&hedge.gate);
    if (second)
        ch__client_count_hedge(client, unary->stats, true);
    struct leg *winner = second ? b : a, *loser = second ? a : b;
    struct base_buf reply = unary->reply;
    unary->reply = winner->reply;
    ch__client_buf_back(client, reply);
    if (loser->sent) {
        base_status_free(&loser->finish.status);
        ch__client_buf_back(client, loser->reply);
        ch__endpoint_unref(client, loser->used);
    }
    ch__unary_last(unary, winner->used);
    return winner->finish;
}
