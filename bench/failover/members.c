/* members.c: the members of a group, each asked by itself. */
#include "failover.h"

#include "strata/clustermgr/v1/names.strata.h"
#include "strata/consensus/v1/consensus.strata.h"

#define CLU_PB(Type) Strata__Clustermgr__V1__##Type
#define CON_PB(Type) Strata__Consensus__V1__##Type

/* What a member says; *leads: it leads, with three voters that it hears. */
static bool member_well(struct bench *bench, size_t i, bool *leads) CH_WAITS;
static bool member_well(struct bench *bench, size_t i, bool *leads)
{
    struct ch_call_options options = { .deadline = ch_in(bench->env, 500 * CH_MS),
                                       .no_retry = true };
    CON_PB(GetGroupRequest) request = STRATA__CONSENSUS__V1__GET_GROUP_REQUEST__INIT;
    CON_PB(GetGroupReply) *reply = NULL;
    struct ch_client *client = ch_client_new(bench->env, bench->addresses[i], NULL);
    struct base_arena arena = { 0 };
    struct base_status status;
    size_t voters = 0, heard = 0;

    request.group = ch_data_str(bench->blocks ? "blockmaster" : "clustermaster");
    status = ch_client_call(client,
                            &strata__consensus__v1__consensus__service
                                 .methods[STRATA__CONSENSUS__V1__CONSENSUS__GET_GROUP],
                            &request, &options, &arena, (void **)&reply);
    *leads = false;
    for (size_t k = 0; !base_failed(status) && k < reply->n_members; k++) {
        const CON_PB(GetGroupReply__MemberState) *member = reply->members[k];
        bool self = base_bytes_eq_str(ch_bytes_of(member->member->target), bench->addresses[i]);

        voters += member->member->voter;
        heard += self || (member->heard_ms >= 0 && member->heard_ms < 500 &&
                          member->match + 1000 >= reply->last);
        *leads = *leads || (self && member->leads);
    }
    *leads = *leads && voters == MEMBERS && heard == MEMBERS;
    ch_client_free(client);
    base_arena_free(&arena);
    return base_status_drop(status) == BASE_OK && voters == MEMBERS;
}

/* What a member itself has below a path. */
static struct base_status list_ask(struct ch_client *client, const char *path, ch_time deadline,
                                   struct base_arena *arena,
                                   CLU_PB(ListReply) * *reply) CH_WAITS BASE_MUST_CHECK;
static struct base_status list_ask(struct ch_client *client, const char *path, ch_time deadline,
                                   struct base_arena *arena, CLU_PB(ListReply) * *reply)
{
    struct ch_call_options options = { .deadline = deadline, .no_retry = true };
    CLU_PB(ListRequest) request = STRATA__CLUSTERMGR__V1__LIST_REQUEST__INIT;

    request.prefix = ch_data_str(path);
    return ch_client_call(
        client,
        &strata__clustermgr__v1__names__service.methods[STRATA__CLUSTERMGR__V1__NAMES__LIST],
        &request, &options, arena, (void **)reply);
}

/* Of members whose state is in etcd: who leads answers, and the others know it. */
static bool etcd_member_well(struct bench *bench, size_t i, bool *leads) CH_WAITS;
static bool etcd_member_well(struct bench *bench, size_t i, bool *leads)
{
    struct ch_client *client = ch_client_new(bench->env, bench->addresses[i], NULL);
    struct base_arena arena = { 0 };
    CLU_PB(ListReply) *reply = NULL;
    struct base_status status =
        list_ask(client, "/nothing", ch_in(bench->env, 500 * CH_MS), &arena, &reply);
    bool well;

    *leads = !base_failed(status);
    well = *leads || (ch_leader_refused(&status) && strstr(base_status_text(&status), "it is at"));
    base_status_free(&status);
    ch_client_free(client);
    base_arena_free(&arena);
    return well;
}

size_t leader_wait(struct bench *bench)
{
    ch_time deadline = ch_in(bench->env, 60 * CH_S);

    for (;;) {
        size_t well = 0, leader = MEMBERS;

        for (size_t i = 0; i < MEMBERS; i++) {
            bool leads;

            well +=
                bench->etcd ? etcd_member_well(bench, i, &leads) : member_well(bench, i, &leads);
            leader = leads ? i : leader;
        }
        if (well == MEMBERS && leader < MEMBERS)
            return leader;
        MUST(ch_now(bench->env) < deadline, "the three members are not well after a minute");
        (void)ch_sleep_until(bench->env, ch_in(bench->env, 50 * CH_MS));
    }
}

void asker_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct asker *self = arg;
    struct bench *bench = self->bench;
    struct ch_client *client = ch_client_new(bench->env, bench->addresses[self->index], NULL);

    for (uint64_t i = 0; !ch_cancelled(); i++) {
        uint64_t acked = bench->writers[i % WRITERS].acked;
        struct base_arena arena = { 0 };
        CLU_PB(ListReply) *reply = NULL;
        struct base_status status;
        char path[80];

        snprintf(path, sizeof(path), "/bench/%" PRIu64 "/%" PRIu64, bench->run, i % WRITERS);
        status = list_ask(client, path, ch_in(bench->env, 10 * CH_S), &arena, &reply);
        if (!base_failed(status) && acked > 0) {
            uint64_t there = reply->n_nodes ? number_of(ch_bytes_of(reply->nodes[0]->value)) : 0;

            MUST(there >= acked,
                 "%s said itself that %s is %" PRIu64 " after %" PRIu64 " was acknowledged",
                 bench->addresses[self->index], path, there, acked);
            bench->reads++;
        }
        base_status_free(&status);
        base_arena_free(&arena);
        if (ch_sleep_until(bench->env, ch_in(bench->env, 10 * CH_MS)) != CH_TIMEOUT)
            break;
    }
    ch_client_free(client);
}
