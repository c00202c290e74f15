/* transport_sim.c: struct ch_transport on the simulated network: channels and listeners; calls are
 * sim_rpc.c.
 *
 * Happy path: open -> (connected) attach -> ch__rpc_open at the listener -> accept. A channel
 * connects when a call wants it. Failure modes: no connection: UNAVAILABLE and never_seen, at once
 * while the channel backs off (with wait_for_ready: at the deadline); a listener that drains turns
 * calls away, never_seen; a connection that is lost is made anew for the next call. */
#include "sim_net.h"

#define BACKOFF_MIN (50 * CH_MS)
#define BACKOFF_MAX (500 * CH_MS)

struct ch_tchannel {
    struct ch__sim_inc *inc;
    struct ch_tchannel *next, *prev; /* of the incarnation */
    char host[CH__HOST_MAX];
    uint32_t port;
    size_t bytes_max;
    struct ch__conn *conn;
    bool ready, gone;
    uint32_t failures;
    ch_time retry_at;
    struct ch_timer retry;
    const char *why; /* the last connection failed */
    struct ch__rpc *waiting, **waiting_end;
};

struct ch_tlistener {
    struct ch_tlistener *next;
    struct ch__sim_inc *inc;
    const char *host;
    uint32_t port;
    size_t bytes_max;
    void (*accept)(void *self, struct ch_tcall *call);
    void *self;
    bool draining, listed;
    size_t unfinished;
    struct ch_wait_list idle;
};

static void connect_now(struct ch_tchannel *channel);

/* ---- client ---- */

static void split_address(const char *address, char host[CH__HOST_MAX], uint32_t *port)
{
    const char *colon = strrchr(address, ':');
    size_t len = colon ? (size_t)(colon - address) : strlen(address);
    snprintf(host, CH__HOST_MAX, "%.*s", (int)(len < CH__HOST_MAX ? len : CH__HOST_MAX - 1),
             address);
    *port = colon ? (uint32_t)strtoul(colon + 1, NULL, 10) : 0;
}

/* A loopback or wildcard address that is no node's own means the host itself. */
static void resolve(const struct ch_sim_node *self, char host[CH__HOST_MAX])
{
    for (struct ch_sim_node *node = self->sim->nodes; node; node = node->next)
        if (strcmp(node->host, host) == 0)
            return;
    if (!*host || strcmp(host, "localhost") == 0 || strcmp(host, "0.0.0.0") == 0 ||
        strncmp(host, "127.", 4) == 0)
        snprintf(host, CH__HOST_MAX, "%s", self->host);
}

static struct ch_tchannel *t_channel_new(struct ch_env *env, const char *address,
                                         size_t message_bytes_max)
{
    struct ch__sim_inc *inc = ch__inc_of(env);
    struct ch_tchannel *channel = calloc(1, sizeof(*channel));
    BASE_ASSERT(channel != NULL);
    *channel = (struct ch_tchannel){
        .inc = inc, .next = inc->channels, .bytes_max = message_bytes_max, .gone = inc->dead
    };
    channel->waiting_end = &channel->waiting;
    if (channel->next)
        channel->next->prev = channel;
    inc->channels = channel;
    split_address(address, channel->host, &channel->port);
    resolve(inc->node, channel->host);
    return channel;
}

static void fail_waiting(struct ch_tchannel *channel, enum base_code code, const char *why,
                         bool all)
{
    for (struct ch__rpc **at = &channel->waiting; *at;) {
        struct ch__rpc *rpc = *at;
        if (all || !rpc->wait_for_ready)
            ch__half_over(&rpc->half[CH__CLIENT],
                          base_status_make(code, "%s: %s", rpc->half[CH__CLIENT].peer, why));
        else
            at = &rpc->queue_next;
    }
}

static void channel_end(struct ch_tchannel *channel, enum base_code code, const char *why)
{
    channel->gone = true;
    ch_timer_clear(&channel->retry);
    fail_waiting(channel, code, why, true);
}

static void t_channel_free(struct ch_tchannel *channel)
{
    struct ch__conn *conn = channel->conn;
    channel_end(channel, BASE_CANCELLED, "channel closed");
    if (conn) {
        for (struct ch__rpc *rpc = conn->rpcs; rpc; rpc = rpc->next)
            ch__sim_cancel(&rpc->half[CH__CLIENT]);
        conn->channel = NULL;
        ch__conn_close(conn, CH__CLIENT, "channel closed");
    }
    *(channel->prev ? &channel->prev->next : &channel->inc->channels) = channel->next;
    if (channel->next)
        channel->next->prev = channel->prev;
    free(channel);
}

void ch__rpc_unqueue(struct ch__rpc *rpc)
{
    struct ch_tchannel *channel = rpc->channel;
    if (!channel)
        return;
    struct ch__rpc **at = &channel->waiting;
    while (*at != rpc)
        at = &(*at)->queue_next;
    *at = rpc->queue_next;
    if (!rpc->queue_next)
        channel->waiting_end = at;
    rpc->channel = NULL;
}

static void retry_due(struct ch_timer *timer)
{
    connect_now((struct ch_tchannel *)((char *)timer - offsetof(struct ch_tchannel, retry)));
}

static void connect_now(struct ch_tchannel *channel)
{
    ch_timer_clear(&channel->retry);
    if (!channel->conn && !channel->gone)
        channel->conn = ch__conn_new(channel, channel->inc, channel->host, channel->port);
}

static void attach(struct ch__rpc *rpc, struct ch__conn *conn)
{
    BASE_ASSERT(conn);
    rpc->conn = conn;
    conn->refs++;
    rpc->prev = NULL;
    rpc->next = conn->rpcs;
    if (rpc->next)
        rpc->next->prev = rpc;
    conn->rpcs = rpc;
    rpc->sent = rpc->sim->now;
    ch__half_transmit(&rpc->half[CH__CLIENT], ch__frame_new(CH__FRAME_OPEN, rpc));
    while (rpc->queued) {
        struct ch__frame *frame = rpc->queued;
        rpc->queued = frame->next;
        frame->next = NULL;
        ch__half_transmit(&rpc->half[CH__CLIENT], frame);
    }
    rpc->queued_end = &rpc->queued;
}

void ch__channel_connected(struct ch_tchannel *channel)
{
    channel->ready = true;
    channel->failures = 0;
    while (channel->waiting) {
        struct ch__rpc *rpc = channel->waiting;
        ch__rpc_unqueue(rpc);
        attach(rpc, channel->conn);
    }
}

void ch__channel_lost(struct ch_tchannel *channel, const char *why)
{
    struct ch_sim *sim = channel->inc->node->sim;
    bool was_ready = channel->ready;
    channel->conn = NULL;
    channel->ready = false;
    channel->why = why;
    channel->retry_at = sim->now;
    if (was_ready || channel->gone)
        return;
    ch_time backoff = BACKOFF_MIN << (channel->failures < 4 ? channel->failures : 4);
    channel->failures++;
    backoff = backoff < BACKOFF_MAX ? backoff : BACKOFF_MAX;
    channel->retry_at =
        sim->now + ch__rng_between(&sim->net_rng, backoff * 8 / 10, backoff * 12 / 10);
    fail_waiting(channel, BASE_UNAVAILABLE, why, false);
    if (channel->waiting)
        ch_timer_set(&channel->retry, channel->retry_at, retry_due);
}

static void start_call(struct ch_tchannel *channel, struct ch__rpc *rpc)
{
    struct ch_tcall *half = &rpc->half[CH__CLIENT];
    struct ch_sim *sim = rpc->sim;
    bool backing_off = !channel->conn && sim->now < channel->retry_at;
    if (channel->gone) {
        ch__half_over(half, ch__sim_dead(&channel->inc->env, half->peer));
    } else if (half->deadline <= sim->now) {
        ch__half_over(half, base_status_make(BASE_DEADLINE_EXCEEDED,
                                             "%s: deadline exceeded before the call", half->peer));
    } else if (channel->ready) {
        attach(rpc, channel->conn);
    } else if (backing_off && !rpc->wait_for_ready) {
        ch__half_over(half, base_status_make(BASE_UNAVAILABLE, "%s: %s", half->peer, channel->why));
    } else {
        rpc->channel = channel;
        *channel->waiting_end = rpc;
        channel->waiting_end = &rpc->queue_next;
        if (backing_off)
            ch_timer_set(&channel->retry, channel->retry_at, retry_due);
        else
            connect_now(channel);
    }
}

static struct ch_tcall *t_open(struct ch_tchannel *channel, const char *path,
                               const struct ch_metadata *metadata, size_t metadata_count,
                               ch_time deadline, bool wait_for_ready)
{
    struct ch__rpc *rpc = ch__rpc_new(channel->inc->node->sim, path);
    struct ch_tcall *half = &rpc->half[CH__CLIENT];
    rpc->metadata = ch__pairs_copy(metadata, metadata_count);
    rpc->wait_for_ready = wait_for_ready;
    half->held = true;
    half->bytes_max = channel->bytes_max;
    snprintf(half->peer, sizeof(half->peer), "%s:%u", channel->host, channel->port);
    ch__rpc_ref(rpc);
    ch__half_deadline(half, deadline);
    start_call(channel, rpc);
    return half;
}

static struct ch_tfinish t_unary(struct ch_tchannel *channel, const char *path,
                                 const struct ch_metadata *metadata, size_t metadata_count,
                                 ch_time deadline, bool wait_for_ready, struct base_bytes request,
                                 struct base_buf *reply) CH_WAITS;
static struct ch_tfinish t_unary(struct ch_tchannel *channel, const char *path,
                                 const struct ch_metadata *metadata, size_t metadata_count,
                                 ch_time deadline, bool wait_for_ready, struct base_bytes request,
                                 struct base_buf *reply)
{
    struct ch_tcall *half =
        t_open(channel, path, metadata, metadata_count, deadline, wait_for_ready);
    bool end = false;
    (void)base_status_drop(
        ch__sim_send(half, request)); /* a failure of these two is the call's: finish tells it */
    (void)base_status_drop(ch__sim_close_send(half));
    struct base_status status = ch__sim_recv(half, reply, &end);
    struct ch_tfinish finish = ch__sim_finish(half);
    if (end && !base_failed(finish.status))
        finish.status = base_status_make(BASE_INTERNAL, "%s: the server sent no reply", half->peer);
    if (!base_failed(finish.status)) {
        finish.status = status;
        status = BASE_STATUS_OK;
    }
    base_status_free(&status);
    ch__sim_free(half);
    return finish;
}

/* ---- server ---- */

struct ch_tlistener *ch__listener_find(struct ch_sim *sim, const char *host, uint32_t port)
{
    for (struct ch_tlistener *listener = sim->net.listeners; listener; listener = listener->next)
        if (listener->port == port && strcmp(listener->host, host) == 0 && !listener->draining)
            return listener;
    return NULL;
}

struct ch__sim_inc *ch__listener_inc(const struct ch_tlistener *listener)
{
    return listener->inc;
}

static bool port_taken(struct ch_sim *sim, const char *host, uint32_t port)
{
    for (struct ch_tlistener *listener = sim->net.listeners; listener; listener = listener->next)
        if (listener->port == port && strcmp(listener->host, host) == 0)
            return true;
    return false;
}

static struct base_status t_listen(struct ch_env *env, const char *address,
                                   size_t message_bytes_max,
                                   void (*accept)(void *self, struct ch_tcall *call), void *self,
                                   char bound[128], struct ch_tlistener **listener)
{
    struct ch__sim_inc *inc = ch__inc_of(env);
    struct ch_sim *sim = inc->node->sim;
    char host[CH__HOST_MAX];
    uint32_t port;
    *listener = NULL;
    if (inc->dead)
        return ch__sim_dead(env, address);
    split_address(address, host, &port);
    resolve(inc->node, host);
    if (!strchr(address, ':') || port > 65535 || strcmp(host, inc->node->host) != 0)
        return base_status_make(BASE_UNAVAILABLE, "cannot listen on %s: this machine is %s",
                                address, inc->node->host);
    bool pick = port == 0;
    while (pick && (port == 0 || port_taken(sim, host, port)))
        port = 20000 + (uint32_t)(++sim->net.port_count % 12000);
    if (port_taken(sim, host, port))
        return base_status_make(BASE_UNAVAILABLE, "cannot listen on %s: the address is in use",
                                address);
    struct ch_tlistener *made = calloc(1, sizeof(*made));
    BASE_ASSERT(made != NULL);
    *made = (struct ch_tlistener){ .next = sim->net.listeners,
                                   .inc = inc,
                                   .host = inc->node->host,
                                   .port = port,
                                   .bytes_max = message_bytes_max,
                                   .accept = accept,
                                   .self = self,
                                   .listed = true };
    sim->net.listeners = made;
    snprintf(bound, 128, "%s:%u", host, port);
    *listener = made;
    return BASE_STATUS_OK;
}

static void unlist(struct ch_sim *sim, struct ch_tlistener *listener)
{
    if (!listener->listed)
        return;
    struct ch_tlistener **at = &sim->net.listeners;
    while (*at != listener)
        at = &(*at)->next;
    *at = listener->next;
    listener->listed = false;
}

static void t_listener_drain(struct ch_tlistener *listener)
{
    listener->draining = true;
}

static void t_listener_close(struct ch_tlistener *listener) CH_WAITS;
static void t_listener_close(struct ch_tlistener *listener)
{
    struct ch_sim *sim = listener->inc->node->sim;
    listener->draining = true;
    while (listener->unfinished > 0) {
        struct ch_wait_node node = { 0 };
        (void)ch_wait_on(&listener->idle, &node, CH_NEVER, true, "calls of a listener");
    }
    unlist(sim, listener);
    for (struct ch__conn *conn = sim->net.conns, *next; conn; conn = next) {
        next = conn->next;
        if (conn->listener == listener) {
            ch__conn_close(conn, CH__SERVER, "listener closed");
            next = sim->net.conns;
        }
    }
    free(listener);
}

void ch__endpoints_gone(struct ch__sim_inc *inc)
{
    for (struct ch_tlistener *listener = inc->node->sim->net.listeners, *next; listener;
         listener = next) {
        next = listener->next;
        if (listener->inc == inc)
            unlist(inc->node->sim, listener);
    }
    for (struct ch_tchannel *channel = inc->channels; channel; channel = channel->next)
        channel_end(channel, BASE_UNAVAILABLE, "this node is gone");
}

void ch__listener_done_with(struct ch_tcall *half)
{
    struct ch_tlistener *listener = half->listener;
    half->listener = NULL;
    if (!listener || --listener->unfinished > 0)
        return;
    while (listener->idle.first)
        ch_wait_end(listener->idle.first, CH_OK);
}

void ch__rpc_open(struct ch__conn *conn, struct ch__rpc *rpc)
{
    struct ch_tcall *half = &rpc->half[CH__SERVER];
    struct ch_tlistener *listener = conn->listener;
    snprintf(half->peer, sizeof(half->peer), "%s:%u", conn->side[CH__CLIENT].host,
             conn->client_port);
    if (!listener || listener->draining) {
        ch__half_send_status(half, base_status_make(BASE_UNAVAILABLE, "the server is stopping"),
                             NULL, true);
        half->over = true;
        return;
    }
    half->held = true;
    half->bytes_max = listener->bytes_max;
    half->listener = listener;
    listener->unfinished++;
    ch__rpc_ref(rpc);
    if (rpc->half[CH__CLIENT].deadline !=
        CH_NEVER) /* the wire carries the time left, so it grows by the way's delay */
        ch__half_deadline(half, rpc->sim->now + rpc->half[CH__CLIENT].deadline - rpc->sent);
    listener->accept(listener->self, half);
}

const struct ch_transport ch__sim_transport = {
    .channel_new = t_channel_new,
    .channel_free = t_channel_free,
    .unary = t_unary,
    .open = t_open,
    .send = ch__sim_send,
    .close_send = ch__sim_close_send,
    .recv = ch__sim_recv,
    .finish = ch__sim_finish,
    .cancel = ch__sim_cancel,
    .free = ch__sim_free,
    .listen = t_listen,
    .listener_drain = t_listener_drain,
    .listener_close = t_listener_close,
    .path = ch__sim_path,
    .peer = ch__sim_peer,
    .deadline = ch__sim_deadline,
    .metadata = ch__sim_metadata,
    .on_cancel = ch__sim_on_cancel,
    .reply = ch__sim_reply,
};
