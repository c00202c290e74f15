/* Nodes: what strangers send harms none. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "chassis/metrics.h"
#include "chassis/rpc_client.h"
#include "group_world.h"
#include "message.h"
#include "test.h"

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
