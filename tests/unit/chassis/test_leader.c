/* Calling whichever member of a group leads, against three simulated members of which one does: it
 * is found by hints and by trying, a member that hangs is left for another, one that is only slow
 * is not, and nothing that may not be done twice is. */
#include <stdio.h>
#include <stdlib.h>

#include "chassis/leader.h"
#include "chassis/sim.h"
#include "fake_names.h"
#include "strata/clustermgr/v1/names.strata.h"
#include "test.h"

enum { MEMBERS = 3 };
static const char all[] = "10.0.0.1:7000,10.0.0.2:7000,10.0.0.3:7000";
static const char *const hosts[MEMBERS] = { "10.0.0.1", "10.0.0.2", "10.0.0.3" };
#define PB(name) Strata__Clustermgr__V1__##name
#define METHOD(NAME) \
    (&strata__clustermgr__v1__names__service.methods[STRATA__CLUSTERMGR__V1__NAMES__##NAME])

static struct fake_names names;
static struct fake_member members[MEMBERS];
static struct ch_sim *sim;
static struct ch_sim_node *nodes[MEMBERS];

static int member_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct fake_member *member = arg;
    char address[32];

    snprintf(address, sizeof(address), "%s:7000", hosts[member->index]);
    member->env = env;
    member->names = &names;
    if (base_failed(
            ch_server_new(env, &(struct ch_server_options){ .address = address }, &member->server)))
        abort();
    fake_names_serve(member);
    if (base_failed(ch_server_start(member->server)))
        abort();
    ch_server_set_serving(member->server, true);
    (void)ch_sleep_until(env, CH_NEVER);
    ch_server_stop(member->server, ch_in(env, CH_S));
    return 0;
}

static void run(ch_fiber_fn *body)
{
    sim = ch_sim_new(ch_sim_seed(5));
    for (int i = 0; i < MEMBERS; i++) {
        members[i].index = i;
        nodes[i] = ch_sim_node(sim, hosts[i], hosts[i]);
        ch_sim_start(nodes[i], member_main, &members[i]);
    }
    ch_sim_run(sim, NULL, NULL, ch_sim_now(sim) + 10 * CH_MS);
    ch_sim_do(sim, body, ch_sim_tester_env(sim), ch_sim_now(sim) + 600 * CH_S);
    ch_sim_free(sim);
}

static CH_WAITS struct base_status set(struct ch_leader *leader, struct ch_env *env, ch_time within,
                                       bool repeatable)
{
    struct ch_leader_options options = { .deadline = ch_in(env, within), .repeatable = repeatable };
    PB(SetRequest) request = STRATA__CLUSTERMGR__V1__SET_REQUEST__INIT;
    struct base_arena arena = { 0 };
    struct base_status status;
    void *reply;

    request.path = ch_data_str("/x");
    request.expected_version = -1;
    status = ch_leader_call(leader, METHOD(SET), &request, &options, &arena, &reply);
    base_arena_free(&arena);
    return status;
}

static void ok(struct base_status status)
{
    cr_assert(!base_failed(status), "%s: %s", base_code_name(status.code),
              base_status_text(&status));
}

static void fails(struct base_status status, enum base_code code)
{
    cr_assert_eq(status.code, code, "%s: %s", base_code_name(status.code),
                 base_status_text(&status));
    base_status_free(&status);
}

static void learning(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = arg;
    struct ch_leader *leader = ch_leader_new(env, "10.0.0.1:7000", NULL);

    names.leader = 2;
    names.hint = true;
    names.leader_address = "10.0.0.3:7000";
    ok(set(leader, env, CH_S, false));
    cr_assert_eq(ch_leader_members(leader), 2);
    cr_assert_str_eq(ch_leader_address(leader), "10.0.0.3:7000");
    names.hint = false;
    ch_leader_free(leader);
}

Test(leader, a_hint_may_name_a_member_that_was_not_listed)
{
    /* The members' list of a process is as old as the process; members are added later. */
    run(learning);
}

static void hanging(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = arg;
    struct ch_leader *leader = ch_leader_new(env, all, NULL);
    ch_time began;

    ok(set(leader, env, CH_S, false));
    ch_sim_pause(nodes[0], true);
    names.leader = 1;
    began = ch_now(env);
    ok(set(leader, env, 10 * CH_S, true));
    cr_assert(ch_now(env) - began < 1500 * CH_MS, "found after %d ms",
              (int)((ch_now(env) - began) / CH_MS));
    ch_sim_pause(nodes[0], false);
    (void)ch_sleep_until(env, ch_in(env, CH_S));

    /* What may not be done twice is not: the caller is told in time, and that nothing is known. */
    ch_sim_pause(nodes[1], true);
    names.leader = 2;
    began = ch_now(env);
    fails(set(leader, env, 10 * CH_S, false), BASE_UNAVAILABLE);
    cr_assert(ch_now(env) - began < 1500 * CH_MS);
    ok(set(leader, env, 10 * CH_S, false));
    ch_sim_pause(nodes[1], false);
    ch_leader_free(leader);
}

Test(leader, a_member_that_hangs_is_left_in_a_second)
{
    /* A paused process keeps its connections and answers nothing: waiting for it would stop all
     * that depends on the leader, until the deadline of each. */
    run(hanging);
}

static CH_WAITS uint64_t session(struct ch_leader *leader, struct ch_env *env,
                                 struct base_arena *arena)
{
    struct ch_leader_options options = { .deadline = ch_in(env, CH_S) };
    PB(OpenSessionRequest) request = STRATA__CLUSTERMGR__V1__OPEN_SESSION_REQUEST__INIT;
    PB(OpenSessionReply) *reply = NULL;

    request.lease_ms = 60000;
    ok(ch_leader_call(leader, METHOD(OPEN_SESSION), &request, &options, arena, (void **)&reply));
    return reply->session;
}

static CH_WAITS struct base_status acquire(struct ch_leader *leader, struct ch_env *env,
                                           uint64_t holder, struct base_arena *arena)
{
    struct ch_leader_options options = { .deadline = ch_in(env, 8 * CH_S) };
    PB(AcquireRequest) request = STRATA__CLUSTERMGR__V1__ACQUIRE_REQUEST__INIT;
    void *reply;

    request.session = holder;
    request.path = ch_data_str("/l");
    return ch_leader_call(leader, METHOD(ACQUIRE), &request, &options, arena, &reply);
}

static void slow(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = arg;
    struct ch_leader *leader = ch_leader_new(env, all, NULL);
    struct base_arena arena = { 0 };
    uint64_t first = session(leader, env, &arena), second = session(leader, env, &arena);
    int before;

    ok(acquire(leader, env, first, &arena));
    before = names.acquires;
    fails(acquire(leader, env, second, &arena), BASE_DEADLINE_EXCEEDED); /* for all of 8 s */
    cr_assert_eq(names.acquires, before + 1, "asked once: the member said that it lives");
    base_arena_free(&arena);
    ch_leader_free(leader);
}

Test(leader, a_member_that_is_only_slow_is_waited_for)
{
    /* A lock that is held, a recovery that takes long: the answer comes when it comes. */
    run(slow);
}
