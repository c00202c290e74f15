/* Nodes: many groups in one process share their streams, and what strangers send harms none. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "chassis/metrics.h"
#include "chassis/rpc_client.h"
#include "group_world.h"
#include "message.h"
#include "test.h"

enum { NODES = 3, GROUPS = 100 };

/* ---- many groups ---- */

struct host {
    int number;
    struct ch_sim_node *node;
    struct ch_env *env;
    char target[32];
    struct con_memory *memories[GROUPS];
    struct con_log *logs[GROUPS];
    uint64_t applied[GROUPS];
    bool open;
};
struct group_self {
    struct host *host;
    int number;
};
static struct host hosts[NODES];
static struct group_self selves[NODES][GROUPS];

static void apply(void *self, uint64_t index, struct base_bytes command, struct base_buf *reply)
{
    struct group_self *group = self;

    group->host->applied[group->number]++;
}

static void snapshot(void *self, struct base_buf *out)
{
}

static struct base_status restore(void *self, struct base_bytes from)
{
    return BASE_STATUS_OK;
}

static CH_WAITS void host_open(struct host *host, struct con_node *node)
{
    const char *peers[NODES];

    for (int i = 0; i < NODES; i++)
        peers[i] = hosts[i].target;
    for (int i = 0; i < GROUPS; i++) {
        struct con_machine machine = { apply, snapshot, restore, NULL, &selves[host->number][i] };
        struct con_store store;
        char name[16];
        struct con_log_options options = { .node = node,
                                           .group = name,
                                           .self = host->target,
                                           .peers = peers,
                                           .peer_count = NODES,
                                           .found = host->number == 0,
                                           .store = &store };

        snprintf(name, sizeof(name), "group-%d", i);
        selves[host->number][i] = (struct group_self){ host, i };
        con_memory_open(host->memories[i], host->env, &store);
        cr_assert(!base_failed(con_log_open(host->env, &options, &machine, &host->logs[i])));
    }
}

static void host_close(void *arg)
{
    CH_FIBER_ENTRY();
    struct host *host = arg;

    for (int i = 0; i < GROUPS; i++)
        con_log_close(host->logs[i]);
}

static int host_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct host *host = arg;
    struct ch_server_options options = { .address = host->target };
    struct ch_server *server = NULL;
    struct con_node *node = NULL;
    struct ch_gate gate;

    host->env = env;
    cr_assert(!base_failed(ch_server_new(env, &options, &server)));
    cr_assert(!base_failed(con_node_new(env, server, NULL, &node)));
    host_open(host, node);
    cr_assert(!base_failed(ch_server_start(server)));
    host->open = true;
    while (ch_sleep_until(env, CH_NEVER) != CH_CANCELLED)
        ;
    ch_server_stop(server, ch_in(env, CH_S));
    ch_gate_init(&gate, env, "close");
    cr_assert(!base_failed(ch_gate_spawn(&gate, "close", host_close, host)));
    ch_gate_join_always(&gate);
    con_node_free(node);
    return 0;
}

static bool all_formed(void *arg)
{
    struct con_log_view view;

    for (int i = 0; i < GROUPS; i++) {
        if (!hosts[0].open || !con_log_term(hosts[0].logs[i]))
            return false;
        con_log_look(hosts[0].logs[i], &view);
        if (view.joint || view.count != NODES || !view.members[0].member.voter ||
            !view.members[1].member.voter || !view.members[2].member.voter)
            return false;
    }
    return true;
}

static uint64_t sent(const char *what)
{
    return ch_counter(hosts[0].env, what, "peer=\"10.0.0.2:7000\"", "")->value;
}

static void propose_all(void *arg)
{
    CH_FIBER_ENTRY();
    struct host *host = arg;

    for (int i = 0; i < GROUPS; i++)
        cr_assert(!base_failed(
            con_log_propose(host->logs[i], BASE_BYTES_LIT("x"), ch_in(host->env, 5 * CH_S), NULL)));
    host->open = false;
}

static bool closed(void *arg)
{
    return !hosts[0].open;
}

Test(sim_node, many_groups_share_a_stream)
{
    /* A hundred groups of three members in three processes: their heartbeats to one process leave
     * together, many in a Delivery, over one stream; each of them works. */
    struct ch_sim *sim = ch_sim_new(ch_sim_seed(1));
    uint64_t messages, deliveries;
    struct ch_gate gate;

    for (int i = 0; i < NODES; i++) {
        char host[16];

        snprintf(host, sizeof(host), "10.0.0.%d", i + 1);
        hosts[i].number = i;
        snprintf(hosts[i].target, sizeof(hosts[i].target), "%s:7000", host);
        hosts[i].node = ch_sim_node(sim, "host", host);
        for (int j = 0; j < GROUPS; j++)
            hosts[i].memories[j] = con_memory_new(ch_sim_random(sim) | 1);
        ch_sim_start(hosts[i].node, host_main, &hosts[i]);
    }
    cr_assert(ch_sim_run(sim, all_formed, NULL, ch_sim_now(sim) + 60 * CH_S));
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + 2 * CH_S);
    messages = sent("strata_consensus_messages_sent_total");
    deliveries = sent("strata_consensus_deliveries_sent_total");
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + 6 * CH_S);
    messages = sent("strata_consensus_messages_sent_total") - messages;
    deliveries = sent("strata_consensus_deliveries_sent_total") - deliveries;
    cr_assert(messages >= 10 * GROUPS, "%" PRIu64, messages);
    cr_assert(deliveries * 10 <= messages, "%" PRIu64 " messages in %" PRIu64 " deliveries",
              messages, deliveries);
    cr_assert_eq(sent("strata_consensus_streams_total"), (uint64_t)1);
    ch_gate_init(&gate, hosts[0].env, "propose");
    cr_assert(!base_failed(ch_gate_spawn(&gate, "propose", propose_all, &hosts[0])));
    cr_assert(ch_sim_run(sim, closed, NULL, ch_sim_now(sim) + 10 * CH_S));
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + CH_S);
    for (int i = 0; i < NODES * GROUPS; i++)
        cr_assert_eq(hosts[i / GROUPS].applied[i % GROUPS], (uint64_t)1);
    ch_sim_free(sim);
    for (int i = 0; i < NODES * GROUPS; i++)
        con_memory_free(hosts[i / GROUPS].memories[i % GROUPS]);
}

/* ---- strangers ---- */

struct stranger {
    struct world *world;
    uint64_t ids[2]; /* of the member it talks to, and of another */
    uint64_t term;   /* the group's */
    struct ch_client *client;
    struct base_arena arena;
};

static CON_PB(Message) * some_message(struct stranger *s)
{
    struct ch_sim *sim = s->world->sim;
    CON_PB(Message) *m = CON_NEW(&s->arena, Message, message);
    uint64_t small[] = { 0, 1, 2, 3, 50, UINT64_C(1) << 61, UINT64_MAX };
#define SOME small[ch_sim_random(sim) % 7]

    m->group = ch_data_str(ch_sim_random(sim) % 8 ? "group" : "another");
    m->kind = (uint32_t)(ch_sim_random(sim) % 14);
    m->to = s->ids[ch_sim_random(sim) % 2];
    /* In a member's name only what is over: members believe each other. */
    m->from = ch_sim_random(sim) % 2 ? s->ids[1] : ch_sim_random(sim);
    m->term = m->from == s->ids[1] ? ch_sim_random(sim) % 2 : s->term;
    m->index = SOME;
    m->log_term = SOME;
    m->commit = SOME;
    m->reject = ch_sim_random(sim) % 2;
    m->hint_index = SOME;
    m->hint_term = SOME;
    m->round = SOME;
    m->offset = SOME;
    m->total = SOME;
    m->n_entries = ch_sim_random(sim) % 3;
    m->entries = BASE_NEW_ARRAY(&s->arena, CON_PB(Entry) *, m->n_entries);
    for (size_t i = 0; i < m->n_entries; i++) {
        m->entries[i] = CON_NEW(&s->arena, Entry, entry);
        m->entries[i]->index = ch_sim_random(sim) % 2 ? m->index + 1 + i : SOME;
        m->entries[i]->term = SOME;
        m->entries[i]->kind = (uint32_t)(ch_sim_random(sim) % 4);
        m->entries[i]->data = ch_data_str("\x01\xff\xff");
    }
    if (ch_sim_random(sim) % 2) {
        m->config = CON_NEW(&s->arena, Config, config);
        m->config->n_members = ch_sim_random(sim) % 12;
        m->config->members = BASE_NEW_ARRAY(&s->arena, CON_PB(Member) *, m->config->n_members);
        for (size_t i = 0; i < m->config->n_members; i++) {
            m->config->members[i] = CON_NEW(&s->arena, Member, member);
            m->config->members[i]->id = SOME;
        }
    }
    return m;
#undef SOME
}

static CON_PB(Beats) * some_beats(struct stranger *s)
{
    struct ch_sim *sim = s->world->sim;
    CON_PB(Beats) *beats = CON_NEW(&s->arena, Beats, beats);
    uint64_t *column = BASE_NEW_ARRAY(&s->arena, uint64_t, 8);

    for (int i = 0; i < 8; i++)
        column[i] = ch_sim_random(sim) % 2 ? s->ids[0] : UINT64_MAX;
    beats->to = beats->from = beats->commit = beats->round = beats->index = column;
    beats->term = BASE_NEW_ARRAY(&s->arena, uint64_t, 8);
    beats->n_to = beats->n_from = beats->n_term = beats->n_commit = beats->n_round = 8;
    beats->n_index = ch_sim_random(sim) % 2 ? 8 : 7;
    return beats;
}

static CH_WAITS void join_badly(struct stranger *s)
{
    static const char *const targets[] = { "", "10.0.0.1:7000", "10.0.0.2:7000" };
    CON_PB(JoinRequest) request = STRATA__CONSENSUS__V1__JOIN_REQUEST__INIT;
    char long_target[400];
    struct base_status status;
    void *reply;

    memset(long_target, 'x', sizeof(long_target));
    request.group = ch_data_str("group");
    for (int i = 0; i < 4; i++) {
        request.id = i == 0 ? 0 : 4711;
        request.target = i == 3 ? ch_data_of(base_bytes(long_target, sizeof(long_target)))
                                : ch_data_str(targets[i]);
        status = ch_client_call(s->client,
                                &strata__consensus__v1__consensus__service
                                     .methods[STRATA__CONSENSUS__V1__CONSENSUS__JOIN],
                                &request, NULL, &s->arena, &reply);
        /* No target; the leader's own, or one that is alive; too long a target. Or it does not
         * lead. */
        cr_assert(status.code == BASE_INVALID_ARGUMENT || status.code == BASE_UNAVAILABLE ||
                      status.code == BASE_FAILED_PRECONDITION,
                  "%s", base_status_text(&status));
        base_status_free(&status);
    }
    request.group = ch_data_str("nobody's");
    status = ch_client_call(
        s->client,
        &strata__consensus__v1__consensus__service.methods[STRATA__CONSENSUS__V1__CONSENSUS__JOIN],
        &request, NULL, &s->arena, &reply);
    cr_assert_eq(status.code, BASE_NOT_FOUND);
    cr_assert(strstr(base_status_text(&status), "nobody's") != NULL);
    base_status_free(&status);
}

static void talk(void *arg)
{
    CH_FIBER_ENTRY();
    struct stranger *s = arg;
    struct ch_env *env = ch_sim_tester_env(s->world->sim);
    struct ch_client_stream *stream = NULL;

    base_arena_init(&s->arena);
    s->client = ch_client_new(env, "10.0.0.1:7000", NULL);
    join_badly(s);
    cr_assert(!base_failed(ch_client_open(s->client,
                                          &strata__consensus__v1__consensus__service
                                               .methods[STRATA__CONSENSUS__V1__CONSENSUS__DELIVER],
                                          NULL, &stream)));
    for (int i = 0; i < 3000; i++) {
        CON_PB(Delivery) *delivery = CON_NEW(&s->arena, Delivery, delivery);
        CON_PB(Message) *message = some_message(s);

        delivery->messages = &message;
        delivery->n_messages = 1;
        delivery->from_target = ch_data_str(i % 3 ? "10.0.0.9:7000" : "");
        if (i % 2)
            delivery->heartbeats = some_beats(s);
        else
            delivery->heartbeat_replies = some_beats(s);
        cr_assert(!base_failed(ch_stream_send(stream, delivery)));
        base_arena_reset(&s->arena);
    }
    ch_stream_free(stream);
    ch_client_free(s->client);
    base_arena_free(&s->arena);
}

Test(sim_node, strangers_do_no_harm)
{
    /* Messages that cannot be, of every kind, for this member and for others: none crashes a
     * member, none is taken for a leader's or a follower's word. */
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct world *world = world_new(ch_sim_seed(seed), 3, false);
        struct stranger stranger = { .world = world };
        struct con_log_view view;

        world_start(world);
        cr_assert(world_until(world, world_whole, 10 * CH_S));
        con_log_look(world_leader(world)->log, &view);
        for (size_t i = 0; i < view.count; i++)
            stranger.ids[strcmp(view.members[i].member.address, "10.0.0.1:7000") != 0] =
                view.members[i].member.id;
        stranger.term = view.term;
        ch_sim_do(world->sim, talk, &stranger, ch_sim_now(world->sim) + 60 * CH_S);
        world_run(world, CH_S);
        world_end(world);
        world_free(world);
    }
}
