/* group_join.c: how this member comes to belong to its group: it founds it, or it asks to be let
 * in, again and again until its configuration says that it is.
 *
 * Invariants
 * 1. A group is founded only by a member that was told to, whose log is empty, and only when none
 * of its peers that answer knows the group. Peers that do not answer for CON_FOUND_MS have no say:
 * when a cell begins they may not be there yet. (So it is the owner's part to say `found` once.)
 * 2. Who was a member by a committed configuration and is in none after it was removed on purpose,
 * and asks no more, even before it hears that the later one is committed. (Who lost its disk has
 * another id.) It asks with the index of the one, so whoever knows of the other says so, and the
 * leader does not let it in again.
 * 3. Who may have been removed comes to know: a member that hears no leader for an election timeout
 * asks all whom it knows, by turns, until it hears one or one of them says that it was removed.
 * Then it logs that, once, and stands no more.
 *
 * A member whose target changed asks in the same way; the leader changes its own by itself. */
#include <inttypes.h>
#include <stdio.h>

#include "chassis/log.h"
#include "chassis/rpc_client.h"
#include "group_int.h"
#include "node_int.h"

#define METHOD(NAME) \
    &strata__consensus__v1__consensus__service.methods[STRATA__CONSENSUS__V1__CONSENSUS__##NAME]

enum { ASK_MS = 2000, SETTLED_LOOK_MS = 60000 };

/* ---- founding ---- */

enum answer { GROUP_IS_THERE, GROUP_IS_NOT, NO_ANSWER };

static CH_WAITS enum answer peer_ask(struct con__group *group, const char *target)
{
    struct con__peer_way *way = con__node_peer(group->node, target);
    struct ch_call_options options = { .deadline = ch_in(group->env, CON_FOUND_MS * CH_MS),
                                       .no_retry = true };
    CON_PB(GetGroupRequest) request;
    CON_PB(GetGroupReply) *reply = NULL;
    enum answer answer = NO_ANSWER;
    struct base_arena arena;
    enum base_code code;

    if (!way)
        return NO_ANSWER;
    base_arena_init(&arena);
    strata__consensus__v1__get_group_request__init(&request);
    request.group = ch_data_str(group->name);
    code = base_status_drop(ch_client_call(way->client, METHOD(GET_GROUP), &request, &options,
                                           &arena, (void **)&reply));
    if (code == BASE_OK)
        answer = reply->n_members > 0 ? GROUP_IS_THERE : GROUP_IS_NOT;
    else if (code == BASE_NOT_FOUND)
        answer = GROUP_IS_NOT;
    base_arena_free(&arena);
    return answer;
}

/* Invariant 1. False: the group is there (or we are cancelled). */
static CH_WAITS bool may_found(struct con__group *group)
{
    ch_time until = ch_in(group->env, CON_FOUND_MS * CH_MS);
    size_t silent;

    do {
        silent = 0;
        for (size_t i = 0; i < group->peer_count; i++) {
            enum answer answer = strcmp(group->peers[i], group->self) == 0
                                     ? GROUP_IS_NOT
                                     : peer_ask(group, group->peers[i]);

            if (answer == GROUP_IS_THERE || ch_cancelled())
                return false;
            silent += answer == NO_ANSWER;
        }
        if (silent > 0 &&
            ch_sleep_until(group->env, ch_in(group->env, CON_JOIN_MS * CH_MS)) == CH_CANCELLED)
            return false;
    } while (silent > 0 && ch_now(group->env) < until);
    return true;
}

static CH_WAITS void found(struct con__group *group)
{
    struct con_raft_status status = con_raft_status(group->raft);
    struct base_status begun;

    if (!group->found || status.last > 0 || status.config->count > 0 || !may_found(group))
        return;
    status = con_raft_status(group->raft);
    if (status.last > 0 || status.config->count > 0) /* let in while it asked */
        return;
    begun = con__group_begin(group);
    if (base_failed(begun)) {
        if (group->closing)
            base_status_free(&begun);
        else
            con__group_fail(group, begun);
        return;
    }
    con_raft_campaign(group->raft);
    con__group_poke(group);
}

/* ---- being let in ---- */

static bool settled(const struct con__group *group)
{
    const struct con_config *config = con__group_config(group);
    const struct con_member *self = con_config_member(config, group->store.member);

    if (!self)
        return group->removed || (group->member_since && config->index > group->member_since);
    if (!self->voter && self->voter_old)
        return true; /* on its way out */
    return (self->voter || group->learner) && strcmp(self->address, group->self) == 0;
}

/* "not the leader; it is at X": remembers X. */
static void hint_note(struct con__group *group, const struct base_status *status)
{
    static const char words[] = "it is at ";
    const char *at = strstr(base_status_text(status), words);

    *group->leader_hint = '\0';
    if (status->code == BASE_FAILED_PRECONDITION && at)
        snprintf(group->leader_hint, sizeof(group->leader_hint), "%.*s",
                 (int)strcspn(at + strlen(words), " ,;"), at + strlen(words));
}

void con__group_removed(struct con__group *group, uint64_t index)
{
    con_raft_removed(group->raft, index);
    if (group->removed)
        return;
    group->removed = true;
    group->metrics.removed->value = 1;
    ch_warn(group->env,
            "group %s: member %016" PRIx64 " was removed, by the configuration of index %" PRIu64
            "; only with an empty folder, under another id, can it come back",
            group->name, group->store.member, index);
    ch_cond_broadcast(&group->changed);
}

/* What is sure, also after a restart, when nothing is known to be committed but what came before
 * the last change. */
static uint64_t member_since(const struct con__group *group)
{
    const struct con_config *config = con_raft_config_committed(group->raft);

    return con_config_member(config, group->store.member) ? config->index : group->member_since;
}

static CH_WAITS bool join_ask(struct con__group *group, const char *target)
{
    struct con__peer_way *way = con__node_peer(group->node, target);
    struct ch_call_options options = { .deadline = ch_in(group->env, ASK_MS * CH_MS),
                                       .no_retry = true };
    CON_PB(JoinRequest) request;
    CON_PB(JoinReply) *reply = NULL;
    struct base_arena arena;
    struct base_status status;
    bool taken;

    if (!way)
        return false;
    base_arena_init(&arena);
    strata__consensus__v1__join_request__init(&request);
    request.group = ch_data_str(group->name);
    request.id = group->store.member;
    request.target = ch_data_str(group->self);
    request.witness = group->witness;
    request.stay_learner = group->learner;
    request.member_since = member_since(group);
    status = ch_client_call(way->client, METHOD(JOIN), &request, &options, &arena, (void **)&reply);
    hint_note(group, &status);
    taken = !base_failed(status);
    if (taken && reply->removed_at > request.member_since && request.member_since > 0) {
        con__group_removed(group, reply->removed_at);
        con__group_poke(group);
    }
    if (!taken)
        ch_debug(group->env, "group %s: join by %s: %s", group->name, target,
                 base_status_text(&status));
    base_status_free(&status);
    base_arena_free(&arena);
    return taken;
}

struct asking {
    size_t peer;
    bool leader_next;
    ch_time alone_since; /* without a leader; 0: it has one */
};

/* Who is to be asked: the leader, when it is known, and the peers and members, by turns. */
static const char *next_target(const struct con__group *group, struct asking *asking)
{
    const char *leader = con__group_leader(&group->base);
    const struct con_config *config = con__group_config(group);
    size_t count = group->peer_count + config->count;

    asking->leader_next = !asking->leader_next;
    if (!asking->leader_next && *leader && strcmp(leader, group->self) != 0)
        return leader;
    for (size_t i = 0; i < count; i++) {
        size_t at = asking->peer++ % count;
        const char *peer = at < group->peer_count ? group->peers[at]
                                                  : config->members[at - group->peer_count].address;

        if (strcmp(peer, group->self) != 0)
            return peer;
    }
    return NULL;
}

/* The leader's own target changed. */
static CH_WAITS void own_target_change(struct con__group *group)
{
    struct con_member self = { .id = group->store.member, .voter = true };

    snprintf(self.address, sizeof(self.address), "%s", group->self);
    base_status_drop(con__group_add(&group->base, &self, ch_in(group->env, ASK_MS * CH_MS)));
}

/* When to ask though it is settled: a leader has not been heard for an election timeout. */
static ch_time doubts_at(const struct con__group *group, struct asking *asking)
{
    if (group->removed || con_raft_status(group->raft).leader || member_since(group) == 0)
        asking->alone_since = 0;
    else if (asking->alone_since == 0)
        asking->alone_since = ch_now(group->env);
    return asking->alone_since ? asking->alone_since + group->election : CH_NEVER;
}

/* Until something changed, or for `most`; the caller looks again in any case. */
static CH_WAITS void changed_wait(struct con__group *group, ch_time most)
{
    enum ch_outcome outcome = ch_cond_wait(&group->changed, ch_in(group->env, most));

    (void)outcome;
}

void con__join_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct con__group *group = arg;
    ch_time pause = CON_JOIN_MS * CH_MS;
    struct asking asking = { .peer = 0 };

    found(group);
    while (!ch_cancelled() && !group->closing && !base_failed(group->failure)) {
        char target[CON_ADDRESS_MAX] = "";
        const char *next;
        ch_time doubts = doubts_at(group, &asking), now = ch_now(group->env);

        if (group->removed || (settled(group) && now < doubts)) {
            pause = CON_JOIN_MS * CH_MS;
            changed_wait(group, doubts < now + SETTLED_LOOK_MS * CH_MS ? doubts - now
                                                                       : SETTLED_LOOK_MS * CH_MS);
            continue;
        }
        next = next_target(group, &asking);
        if (next)
            snprintf(target, sizeof(target), "%s", next);
        if (group->lead_term)
            own_target_change(group);
        else if (*target && join_ask(group, target))
            pause = CON_JOIN_MS_MAX * CH_MS; /* it takes its time to be made a voter */
        changed_wait(group,
                     *group->leader_hint && asking.leader_next
                         ? CON_JOIN_MS * CH_MS / 5
                         : pause / 2 + (ch_time)ch_random_below(group->env, (uint64_t)pause));
        pause = 2 * pause < CON_JOIN_MS_MAX * CH_MS ? 2 * pause : CON_JOIN_MS_MAX * CH_MS;
    }
}
