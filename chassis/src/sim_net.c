/* sim_net.c: the simulated network's connections: see sim_net.h for what they are and their
 * invariants.
 *
 * Happy path: SYN -> (listener found) ACCEPTED -> frames of calls -> close: GONE.
 * Failure modes: nobody listens: REFUSED after one round trip. A cut or a paused peer: frames stay
 * in the pipe; after KEEPALIVE the connection is lost on both sides, as gRPC's keepalive would; a
 * cut that ends sooner lets them go on. A reset loses both sides at once with what was on its way.
 * A side that dies takes a random tail of what it had sent with it. */
#include "sim_net.h"

#include "base/codec.h"

#define CONNECT_TIME_MAX (2 * CH_S)
#define KEEPALIVE_MIN (1500 * CH_MS)
#define KEEPALIVE_MAX (2500 * CH_MS)
#define LOCAL_DIVISOR 10 /* a message within a host takes this part of the delay */

static void deliver(struct ch__conn *conn, int side, struct ch__frame *frame);
static void conn_changed(struct ch__conn *conn);

/* ---- frames ---- */

struct ch__frame *ch__frame_new(enum ch__frame_kind kind, struct ch__rpc *rpc)
{
    struct ch__frame *frame = calloc(1, sizeof(*frame));
    BASE_ASSERT(frame != NULL);
    frame->kind = kind;
    frame->rpc = rpc;
    if (rpc)
        ch__rpc_ref(rpc);
    return frame;
}

void ch__frame_free(struct ch__frame *frame)
{
    free(frame->data);
    base_status_free(&frame->status);
    ch__pairs_free(frame->trailers);
    if (frame->rpc)
        ch__rpc_unref(frame->rpc);
    free(frame);
}

/* ---- what the network is like between two hosts ---- */

static bool covers(const char *pattern, const char *host)
{
    return strcmp(pattern, "*") == 0 || strcmp(pattern, host) == 0;
}

static bool is_cut(const struct ch__net *net, const char *from, const char *to)
{
    for (const struct ch__net_rule *rule = net->rules; rule; rule = rule->next)
        if (rule->cut && covers(rule->from, from) && covers(rule->to, to) && strcmp(from, to) != 0)
            return true;
    return false;
}

static ch_time delay(struct ch_sim *sim, const char *from, const char *to)
{
    ch_time time = ch__rng_between(&sim->net_rng, sim->net.delay_min, sim->net.delay_max);
    if (strcmp(from, to) == 0)
        return time / LOCAL_DIVISOR;
    for (const struct ch__net_rule *rule = sim->net.rules; rule; rule = rule->next)
        if (!rule->cut && covers(rule->from, from) && covers(rule->to, to))
            time += rule->extra;
    return time;
}

static bool is_paused(const struct ch__conn *conn, int side)
{
    return conn->side[side].inc && conn->side[side].inc->node->paused;
}

static bool is_stalled(const struct ch__conn *conn, int to)
{
    return is_cut(&conn->sim->net, conn->side[!to].host, conn->side[to].host) ||
           is_paused(conn, to);
}

/* ---- pipes ---- */

static void pipe_clear(struct ch__pipe *pipe)
{
    ch_timer_clear(&pipe->timer);
    while (pipe->first) {
        struct ch__frame *frame = pipe->first;
        pipe->first = frame->next;
        ch__frame_free(frame);
    }
    pipe->end = &pipe->first;
}

/* Keeps a random number of the frames from the first on. */
static void pipe_cut_tail(struct ch__pipe *pipe, struct ch__rng *rng)
{
    size_t count = 0;
    for (struct ch__frame *frame = pipe->first; frame; frame = frame->next)
        count++;
    struct ch__frame **at = &pipe->first;
    for (uint64_t keep = ch__rng_below(rng, count + 1); keep > 0; keep--) {
        BASE_ASSERT(*at);
        at = &(*at)->next;
    }
    struct ch__frame *lost = *at;
    *at = NULL;
    pipe->end = at;
    while (lost) {
        struct ch__frame *next = lost->next;
        ch__frame_free(lost);
        lost = next;
    }
}

static void pipe_pump(struct ch__pipe *pipe);

static void pipe_due(struct ch_timer *timer)
{
    pipe_pump((struct ch__pipe *)((char *)timer - offsetof(struct ch__pipe, timer)));
}

static void pipe_pump(struct ch__pipe *pipe)
{
    struct ch__conn *conn = pipe->conn;
    int to = pipe == &conn->pipe[CH__SERVER] ? CH__SERVER : CH__CLIENT;
    conn->refs++;
    while (pipe->first && !is_stalled(conn, to)) {
        struct ch__frame *frame = pipe->first;
        if (frame->due > conn->sim->now) {
            ch_timer_set(&pipe->timer, frame->due, pipe_due);
            break;
        }
        pipe->first = frame->next;
        if (!pipe->first)
            pipe->end = &pipe->first;
        frame->next = NULL;
        deliver(conn, to, frame);
    }
    if (!pipe->first || is_stalled(conn, to))
        ch_timer_clear(&pipe->timer);
    ch__conn_unref(conn);
}

/* After a stall: what was held back arrives from now on. */
static void pipe_go_on(struct ch__pipe *pipe, int to)
{
    struct ch__conn *conn = pipe->conn;
    if (!pipe->first || is_stalled(conn, to)) {
        ch_timer_clear(&pipe->timer);
        return;
    }
    ch_time least = conn->sim->now;
    if (pipe->first->due < least)
        least += delay(conn->sim, conn->side[!to].host, conn->side[to].host);
    for (struct ch__frame *frame = pipe->first; frame; frame = frame->next)
        if (frame->due < least)
            frame->due = least;
    if (pipe->last_due < least)
        pipe->last_due = least;
    ch_timer_set(&pipe->timer, pipe->first->due, pipe_due);
}

/* ---- connections ---- */

static char *copy(const char *text)
{
    char *same = strdup(text);
    BASE_ASSERT(same != NULL);
    return same;
}

static void conn_timed_out(struct ch_timer *timer)
{
    struct ch__conn *conn = (struct ch__conn *)((char *)timer - offsetof(struct ch__conn, timer));
    const char *why = conn->open ? "keepalive timeout" : "connect timeout";
    ch__sim_event(conn->sim, why, NULL, conn->id);
    conn->refs++;
    ch__conn_lose(conn, CH__CLIENT, why);
    ch__conn_lose(conn, CH__SERVER, why);
    ch__conn_unref(conn);
}

struct ch__conn *ch__conn_new(struct ch_tchannel *channel, struct ch__sim_inc *client,
                              const char *host, uint32_t port)
{
    struct ch_sim *sim = client->node->sim;
    struct ch__conn *conn = calloc(1, sizeof(*conn));
    BASE_ASSERT(conn != NULL);
    *conn = (struct ch__conn){ .next = sim->net.conns,
                               .sim = sim,
                               .id = ++sim->net.conn_count,
                               .refs = 1,
                               .channel = channel };
    if (conn->next)
        conn->next->prev = conn;
    sim->net.conns = conn;
    conn->side[CH__CLIENT].host = copy(client->node->host);
    conn->side[CH__CLIENT].inc = client;
    conn->side[CH__SERVER].host = copy(host);
    conn->port = port;
    conn->client_port = 32768 + (uint32_t)(++sim->net.port_count % 28000);
    for (int i = 0; i < 2; i++) {
        conn->pipe[i].conn = conn;
        conn->pipe[i].end = &conn->pipe[i].first;
    }
    ch_timer_set(&conn->timer, sim->now + CONNECT_TIME_MAX, conn_timed_out);
    ch__conn_send(conn, CH__SERVER, ch__frame_new(CH__FRAME_SYN, NULL));
    return conn;
}

void ch__conn_unref(struct ch__conn *conn)
{
    if (--conn->refs > 0)
        return;
    BASE_ASSERT(conn->side[0].lost && conn->side[1].lost && !conn->rpcs);
    free(conn->side[0].host);
    free(conn->side[1].host);
    free(conn);
}

static void reset(struct ch__conn *conn)
{
    conn->refs++;
    ch__conn_lose(conn, CH__CLIENT, "connection reset");
    ch__conn_lose(conn, CH__SERVER, "connection reset");
    ch__conn_unref(conn);
}

void ch__conn_send(struct ch__conn *conn, int side, struct ch__frame *frame)
{
    struct ch_sim *sim = conn->sim;
    struct ch__pipe *pipe = &conn->pipe[side];
    if (conn->side[!side].lost || conn->side[side].lost) {
        ch__frame_free(frame);
        return;
    }
    frame->due = sim->now + delay(sim, conn->side[!side].host, conn->side[side].host);
    if (frame->due < pipe->last_due)
        frame->due = pipe->last_due;
    pipe->last_due = frame->due;
    *pipe->end = frame;
    pipe->end = &frame->next;
    if (pipe->first == frame && !is_stalled(conn, side))
        ch_timer_set(&pipe->timer, frame->due, pipe_due);
}

void ch__conn_lose(struct ch__conn *conn, int side, const char *why)
{
    if (conn->side[side].lost)
        return;
    conn->refs++;
    conn->side[side].lost = true;
    pipe_clear(&conn->pipe[side]); /* nobody receives it */
    ch__rpc_side_lost(conn, side, why);
    if (side == CH__CLIENT && conn->channel) {
        struct ch_tchannel *channel = conn->channel;
        conn->channel = NULL;
        ch__channel_lost(channel, why);
    }
    conn->side[side].inc = NULL;
    if (side == CH__SERVER)
        conn->listener = NULL;
    if (conn->side[!side].lost) {
        ch_timer_clear(&conn->timer);
        *(conn->prev ? &conn->prev->next : &conn->sim->net.conns) = conn->next;
        if (conn->next)
            conn->next->prev = conn->prev;
        ch__conn_unref(conn);
    }
    ch__conn_unref(conn);
}

void ch__conn_close(struct ch__conn *conn, int side, const char *why)
{
    if (conn->side[side].lost)
        return;
    conn->refs++;
    ch__conn_send(conn, !side, ch__frame_new(CH__FRAME_GONE, NULL));
    ch__conn_lose(conn, side, why);
    ch__conn_unref(conn);
}

static void take_syn(struct ch__conn *conn)
{
    struct ch_tlistener *listener =
        ch__listener_find(conn->sim, conn->side[CH__SERVER].host, conn->port);
    if (!listener) {
        ch__conn_send(conn, CH__CLIENT, ch__frame_new(CH__FRAME_REFUSED, NULL));
        return;
    }
    conn->listener = listener;
    conn->side[CH__SERVER].inc = ch__listener_inc(listener);
    ch__conn_send(conn, CH__CLIENT, ch__frame_new(CH__FRAME_ACCEPTED, NULL));
}

static void deliver(struct ch__conn *conn, int side, struct ch__frame *frame)
{
    struct ch_sim *sim = conn->sim;
    static const char *const names[] = { "syn",     "accepted",   "refused", "gone",   "open",
                                         "message", "half-close", "credit",  "cancel", "status" };
    ch__sim_event(sim, names[frame->kind], conn->side[side].inc ? conn->side[side].inc->node : NULL,
                  conn->id);
    if (frame->rpc && sim->net.flaky_per_million &&
        strcmp(conn->side[0].host, conn->side[1].host) != 0 &&
        ch__rng_below(&sim->net_rng, 1000000) < sim->net.flaky_per_million) {
        ch__frame_free(frame);
        reset(conn);
        return;
    }
    if (frame->rpc) {
        ch__rpc_deliver(conn, side, frame);
        return;
    }
    if (frame->kind == CH__FRAME_SYN) {
        take_syn(conn);
    } else if (frame->kind == CH__FRAME_ACCEPTED) {
        ch_timer_clear(&conn->timer);
        conn->open = true;
        if (conn->channel)
            ch__channel_connected(conn->channel);
        conn_changed(conn); /* it may stall already */
    } else if (frame->kind == CH__FRAME_REFUSED) {
        ch__conn_lose(conn, CH__CLIENT, "connection refused");
        ch__conn_lose(conn, CH__SERVER, "connection refused");
    } else {
        ch__conn_lose(conn, side, "connection closed by the peer");
    }
    ch__frame_free(frame);
}

/* ---- death ---- */

/* Closes the incarnation's side of every connection it still has; with `abrupt`, what it sent last
 * may not arrive. */
static void close_all(struct ch__sim_inc *inc, bool abrupt)
{
    struct ch_sim *sim = inc->node->sim;
    for (struct ch__conn *conn = sim->net.conns; conn;) {
        int side = conn->side[CH__CLIENT].inc == inc ? CH__CLIENT : CH__SERVER;
        if (conn->side[side].inc != inc) {
            conn = conn->next;
            continue;
        }
        if (abrupt)
            pipe_cut_tail(&conn->pipe[!side], &sim->net_rng);
        ch__conn_close(conn, side, "this node is gone");
        conn = sim->net.conns; /* callbacks may have closed others */
    }
}

void ch__net_inc_died(struct ch__sim_inc *inc)
{
    ch__endpoints_gone(inc);
    close_all(inc, true);
}

void ch__net_inc_gone(struct ch__sim_inc *inc)
{
    ch__endpoints_gone(inc);
    close_all(inc, false);
}

/* ---- faults ---- */

static void conn_changed(struct ch__conn *conn)
{
    struct ch_sim *sim = conn->sim;
    bool stalled = is_stalled(conn, 0) || is_stalled(conn, 1);
    if (conn->open && stalled && !conn->timer.pos)
        ch_timer_set(&conn->timer,
                     sim->now + ch__rng_between(&sim->net_rng, KEEPALIVE_MIN, KEEPALIVE_MAX),
                     conn_timed_out);
    else if (conn->open && !stalled)
        ch_timer_clear(&conn->timer);
    for (int side = 0; side < 2; side++)
        pipe_go_on(&conn->pipe[side], side);
}

void ch__net_changed(struct ch_sim *sim)
{
    ch__sim_enter(sim);
    for (struct ch__conn *conn = sim->net.conns; conn; conn = conn->next)
        conn_changed(conn);
}

static struct ch__net_rule *rule_of(struct ch_sim *sim, const char *from, const char *to, bool cut)
{
    for (struct ch__net_rule *rule = sim->net.rules; rule; rule = rule->next)
        if (rule->cut == cut && strcmp(rule->from, from) == 0 && strcmp(rule->to, to) == 0)
            return rule;
    struct ch__net_rule *rule = calloc(1, sizeof(*rule));
    BASE_ASSERT(rule != NULL);
    *rule = (struct ch__net_rule){
        .next = sim->net.rules, .from = copy(from), .to = copy(to), .cut = cut
    };
    return sim->net.rules = rule;
}

static void drop_rule(struct ch_sim *sim, struct ch__net_rule *rule)
{
    struct ch__net_rule **at = &sim->net.rules;
    while (*at != rule)
        at = &(*at)->next;
    *at = rule->next;
    free(rule->from);
    free(rule->to);
    free(rule);
}

void ch_sim_net_delay(struct ch_sim *sim, ch_time min, ch_time max)
{
    BASE_ASSERT(0 <= min && min <= max);
    sim->net.delay_min = min;
    sim->net.delay_max = max;
}

void ch_sim_net_cut(struct ch_sim *sim, const char *from, const char *to, bool cut)
{
    struct ch__net_rule *rule = rule_of(sim, from, to, true);
    if (!cut)
        drop_rule(sim, rule);
    ch__sim_event(sim, cut ? "cut" : "uncut", NULL,
                  base_hash(from, strlen(from), base_hash(to, strlen(to), 0)));
    ch__net_changed(sim);
}

void ch_sim_net_slow(struct ch_sim *sim, const char *from, const char *to, ch_time extra)
{
    struct ch__net_rule *rule = rule_of(sim, from, to, false);
    rule->extra = extra;
    if (extra <= 0)
        drop_rule(sim, rule);
}

void ch_sim_net_flaky(struct ch_sim *sim, uint32_t per_million)
{
    sim->net.flaky_per_million = per_million;
}

void ch_sim_net_reset(struct ch_sim *sim, const char *a, const char *b)
{
    ch__sim_enter(sim);
    ch__sim_event(sim, "reset", NULL, 0);
    for (struct ch__conn *conn = sim->net.conns, *next; conn; conn = next) {
        next = conn->next;
        const char *from = conn->side[0].host, *to = conn->side[1].host;
        if ((covers(a, from) && covers(b, to)) || (covers(b, from) && covers(a, to))) {
            reset(conn);
            next = sim->net.conns;
        }
    }
}

void ch_sim_net_heal(struct ch_sim *sim)
{
    while (sim->net.rules)
        drop_rule(sim, sim->net.rules);
    sim->net.flaky_per_million = 0;
    ch__net_changed(sim);
}

void ch__net_init(struct ch_sim *sim)
{
    sim->net.delay_min = 50 * CH_US;
    sim->net.delay_max = 500 * CH_US;
}

void ch__net_free(struct ch_sim *sim)
{
    while (sim->net.rules)
        drop_rule(sim, sim->net.rules);
    while (sim->net.conns)
        reset(sim->net.conns);
}
