/* sim_net_bed.c: see sim_net_bed.h. */
#include "sim_net_bed.h"

struct served {
    struct bed *bed;
    struct ch_tcall *call;
    bool gone;
};

static void served_gone(void *self)
{
    struct served *served = self;
    served->gone = true;
    served->bed->cancelled++;
}

static struct base_status echo_all(const struct ch_transport *t, struct ch_tcall *call, bool answer,
                                   size_t *count) CH_WAITS;
static struct base_status echo_all(const struct ch_transport *t, struct ch_tcall *call, bool answer,
                                   size_t *count)
{
    struct base_buf message = { 0 };
    bool end = false;
    struct base_status status = BASE_STATUS_OK;
    while (!base_failed(status)) {
        base_buf_clear(&message);
        status = t->recv(call, &message, &end);
        if (base_failed(status) || end)
            break;
        ++*count;
        if (answer)
            status = t->send(call, base_buf_bytes(&message));
    }
    base_buf_free(&message);
    return status;
}

static void serve(void *arg)
{
    CH_FIBER_ENTRY();
    struct served *served = arg;
    struct ch_env *env = served->bed->server_env;
    const struct ch_transport *t = ch_env_transport(env);
    struct ch_tcall *call = served->call;
    struct base_buf message = { 0 };
    bool end = false, stream = strcmp(t->path(call), "/stream") == 0;
    size_t count = 0;
    t->on_cancel(call, served_gone, served);
    struct base_status status = BASE_STATUS_OK;
    if (strcmp(t->path(call), "/slow") == 0)
        (void)ch_sleep_until(env, ch_in(env, 10 * CH_S));
    if (strcmp(t->path(call), "/sink") == 0)
        while (!served->gone && !ch_cancelled())
            (void)ch_sleep_until(env, ch_in(env, CH_MS));
    if (stream || strcmp(t->path(call), "/count") == 0)
        status = echo_all(t, call, stream, &count);
    else
        status = t->recv(call, &message, &end);
    if (strcmp(t->path(call), "/count") == 0)
        base_buf_printf(&message, "%zu", count);
    const struct ch_metadata *pairs, trailer = { "x-strata-not-run", BASE_BYTES_LIT("1") };
    bool turned_away = t->metadata(call, &pairs) > 0 && strcmp(pairs[0].key, "turn-away") == 0;
    if (turned_away && !base_failed(status))
        status = base_status_make(BASE_UNAVAILABLE, "turned away");
    struct base_bytes reply = base_buf_bytes(&message);
    t->reply(call, stream || base_failed(status) ? NULL : &reply, &status, &trailer, turned_away);
    base_status_free(&status);
    t->free(call);
    base_buf_free(&message);
    free(served);
}

void bed_accepted(void *self, struct ch_tcall *call)
{
    struct bed *bed = self;
    struct served *served = calloc(1, sizeof(*served));
    *served = (struct served){ bed, call };
    bed->accepted++;
    if (base_status_drop(ch_gate_spawn(&bed->gate, "served", serve, served)) == BASE_OK)
        return;
    ch_env_transport(bed->server_env)->free(call);
    free(served);
}

int bed_server_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct bed *bed = arg;
    const struct ch_transport *t = ch_env_transport(env);
    char bound[128];
    bed->server_env = env;
    ch_gate_init(&bed->gate, env, "served");
    MUST(t->listen(env, SERVER_ADDRESS, BYTES_MAX, bed_accepted, bed, bound, &bed->listener));
    cr_assert_str_eq(bound, SERVER_ADDRESS);
    while (!bed->drain && ch_sleep_until(env, ch_in(env, 10 * CH_MS)) == CH_TIMEOUT)
        ;
    t->listener_drain(bed->listener);
    if (bed->drain)
        (void)ch_sleep_until(env, CH_NEVER);
    ch_gate_stop(&bed->gate);
    t->listener_close(bed->listener);
    return 0;
}

int bed_client_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    (void)ch_sleep_until(env, CH_NEVER);
    return 0;
}

struct bed *bed_new(uint64_t seed)
{
    struct bed *bed = calloc(1, sizeof(*bed));
    bed->sim = ch_sim_new(seed);
    bed->server = ch_sim_node(bed->sim, "server", "10.0.0.1");
    bed->client = ch_sim_node(bed->sim, "client", "10.0.0.2");
    ch_sim_start(bed->server, bed_server_main, bed);
    ch_sim_start(bed->client, bed_client_main, bed);
    ch_sim_run(bed->sim, NULL, NULL, ch_sim_now(bed->sim) + CH_MS);
    return bed;
}

void bed_free(struct bed *bed)
{
    ch_sim_free(bed->sim);
    free(bed);
}

void run_for(struct bed *bed, ch_time time)
{
    ch_sim_run(bed->sim, NULL, NULL, ch_sim_now(bed->sim) + time);
}

void call_on(struct call *call, struct ch_tchannel *channel)
{
    struct ch_env *env = ch_fiber_env();
    struct ch_metadata pair = { "turn-away", BASE_BYTES_LIT("yes") };
    ch_time start = ch_now(env);
    call->finish = ch_env_transport(env)->unary(channel, call->path ? call->path : "/echo", &pair,
                                                call->turn_away,
                                                start + (call->timeout ? call->timeout : 60 * CH_S),
                                                call->wait_for_ready, call->request, &call->reply);
    call->took = ch_now(env) - start;
    call->done = true;
}

void call_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct call *call = arg;
    struct ch_env *env = ch_fiber_env();
    const struct ch_transport *t = ch_env_transport(env);
    struct ch_tchannel *channel =
        t->channel_new(env, call->address ? call->address : SERVER_ADDRESS, BYTES_MAX);
    call_on(call, channel);
    t->channel_free(channel);
}

bool call_done(void *arg)
{
    return ((struct call *)arg)->done;
}

void call_start(struct call *call, struct bed *bed)
{
    struct ch_env *env = ch_sim_tester_env(bed->sim);
    call->bed = bed;
    MUST(ch_gate_spawn(&env->main_gate, "call", call_fiber, call));
}

void call_end(struct call *call)
{
    base_status_free(&call->finish.status);
    base_buf_free(&call->reply);
}

void call_check(struct call *call, enum base_code code, bool never_seen)
{
    if (!call->done)
        cr_assert(
            ch_sim_run(call->bed->sim, call_done, call, ch_sim_now(call->bed->sim) + 100 * CH_S));
    cr_assert_eq(call->finish.status.code, code, "%s", base_status_text(&call->finish.status));
    cr_assert_eq(call->finish.never_seen, never_seen);
    call_end(call);
}
