/* group_member.c: who belongs to a group: looking, adding, removing, handing leadership over.
 *
 * Every change is a wish, brought nearer step by step: what the next configuration is on the way to
 * it is a pure function of the present one (wish_step). So a change that was half done when
 * its leader died is gone on with by whoever is asked next, and asking twice does no harm.
 *
 * Invariants
 * 1. A member becomes a voter only when the algorithm finds it caught up (CON_NOT_CAUGHT_UP): until
 * then it is a learner, and the wish waits.
 * 2. A change after which too few would be there to commit anything, not even its undoing, is
 * refused, naming who is silent.
 * 3. With a new voter all others of the same target go in the same step: they are the same machine
 * before it lost its disk. They do not while one of them is heard. */
#include <inttypes.h>
#include <stdio.h>

#include "chassis/log.h"
#include "group_int.h"
#include "node_int.h"

#define PROMOTE_TIME (600 * CH_S)

/* ---- looking ---- */

/* Milliseconds since a member was last heard; -1: not known. */
static int64_t heard_ms(const struct con__group *group, uint64_t id)
{
    uint64_t match;
    int64_t heard;

    if (id == group->store.member)
        return 0;
    if (!con__group_progress(group, id, &match, &heard))
        return -1;
    return (ch_now(group->env) - heard) / CH_MS;
}

void con__group_look(struct con_log *log, struct con_log_view *view)
{
    struct con__group *group = con__group_of(log);
    struct con_raft_status status = con_raft_status(group->raft);

    *view = (struct con_log_view){ .term = status.term,
                                   .commit = status.commit,
                                   .applied = group->applied,
                                   .last = status.last,
                                   .joint =
                                       status.config->joint || status.config->index > status.commit,
                                   .removed = group->removed,
                                   .count = status.config->count };
    for (size_t i = 0; i < view->count; i++) {
        struct con_log_member *member = &view->members[i];
        int64_t heard;

        member->member = status.config->members[i];
        member->leads = member->member.id == status.leader;
        member->heard_ms = status.role == CON_LEADER ? heard_ms(group, member->member.id) : -1;
        if (member->member.id == status.id)
            member->match = status.persisted;
        else if (!con__group_progress(group, member->member.id, &member->match, &heard))
            member->match = 0;
    }
}

/* ---- wishes ---- */

enum wish_kind { WISH_LEARNER, WISH_VOTER, WISH_GONE };
struct wish {
    enum wish_kind kind;
    struct con_member member; /* GONE: its id */
    uint64_t since;           /* it was a member at this index; 0: it was none */
};
enum step { STEP_DONE, STEP_CHANGE, STEP_FULL, STEP_REMOVED };

static void same_target_remove(struct con_config *config, const struct con_member *stays)
{
    for (uint32_t i = config->count; i > 0; i--) {
        const struct con_member *member = &config->members[i - 1];

        if (member->id != stays->id && strcmp(member->address, stays->address) == 0)
            (void)con_config_remove(config, member->id);
    }
}

/* The configuration to go to next. */
static enum step wish_step(const struct con_config *now, const struct wish *wish,
                           struct con_config *next)
{
    const struct con_member *known = con_config_member(now, wish->member.id);
    struct con_member member;

    *next = *now;
    if (wish->kind == WISH_GONE)
        return con_config_remove(next, wish->member.id) ? STEP_CHANGE : STEP_DONE;
    if (!known && wish->since > 0 && wish->since < now->index)
        return STEP_REMOVED; /* on purpose, and `now` is committed */
    member = known ? *known : wish->member;
    if (!known)
        member.voter = member.voter_old = false;
    if (!known || strcmp(known->address, wish->member.address) != 0) {
        memcpy(member.address, wish->member.address, sizeof(member.address));
        return con_config_put(next, &member) ? STEP_CHANGE : STEP_FULL;
    }
    if (wish->kind == WISH_LEARNER || known->voter)
        return STEP_DONE;
    member.voter = true;
    same_target_remove(next, &member);
    return con_config_put(next, &member) ? STEP_CHANGE : STEP_FULL;
}

/* Our own address, which a group that began alone does not have. */
static void own_address(const struct con__group *group, struct con_config *next)
{
    for (uint32_t i = 0; i < next->count && *group->self; i++)
        if (next->members[i].id == group->store.member)
            memcpy(next->members[i].address, group->self, sizeof(group->self));
}

/* Names those whose silence is in the way. */
static struct base_status would_stop(const struct con__group *group, const struct con_config *next)
{
    size_t len = 0, voters = 0;
    char names[2048] = "";

    for (uint32_t i = 0; i < next->count; i++) {
        const struct con_member *member = &next->members[i];

        voters += member->voter;
        if (!member->voter || con_raft_heard(group->raft, member->id) || len >= sizeof(names))
            continue;
        len += (size_t)snprintf(names + len, sizeof(names) - len,
                                "%smember %016" PRIx64 " at %s (%s, silent for %" PRId64 " ms)",
                                len ? ", " : "", member->id, member->address,
                                member->witness ? "a witness" : "a voter",
                                heard_ms(group, member->id));
    }
    return base_status_make(BASE_FAILED_PRECONDITION,
                            "the group would stop: of the %zu voters it would have, %zu must "
                            "answer, and one with a state among them, but these do not: %s",
                            voters, voters / 2 + 1, names);
}

/* One step, if it can be made now. Fails when it never can. */
static struct base_status step_try(struct con__group *group, const struct con_config *next)
{
    uint64_t index;

    switch (con_raft_change(group->raft, next, &index)) {
    case CON_NOT_LEADER:
        return con__group_not_leader(group);
    case CON_BAD_CONFIG:
        return base_status_make(BASE_FAILED_PRECONDITION,
                                "the group would be left without a member that can lead, or with "
                                "one that cannot be reached");
    case CON_SILENT:
        return would_stop(group, next);
    default: /* taken; or not now: looked at again */
        con__group_poke(group);
        return BASE_STATUS_OK;
    }
}

/* Waits until `wish` is so, and committed. */
static CH_WAITS struct base_status wish_grant(struct con__group *group, const struct wish *wish,
                                              ch_time deadline)
{
    for (;;) {
        struct con_raft_status status = con_raft_status(group->raft);
        bool settled = !status.config->joint && status.config->index <= status.commit;
        ch_time look = ch_in(group->env, CON_LOOK_MS * CH_MS);
        struct base_status tried = BASE_STATUS_OK;
        struct con_config next;
        enum ch_outcome outcome;

        switch (settled ? wish_step(status.config, wish, &next) : STEP_CHANGE) {
        case STEP_DONE:
            return BASE_STATUS_OK;
        case STEP_FULL:
            return base_status_make(BASE_RESOURCE_EXHAUSTED, "the group has %d members already",
                                    CON_MEMBERS_MAX);
        case STEP_REMOVED:
            return base_status_make(BASE_FAILED_PRECONDITION,
                                    "member %016" PRIx64 " was removed; only with an empty folder, "
                                    "under another id, can it come back",
                                    wish->member.id);
        case STEP_CHANGE:
            break;
        }
        if (base_failed(group->failure) || group->closing || status.role != CON_LEADER)
            return con__group_not_leader(group);
        if (settled) {
            own_address(group, &next);
            tried = step_try(group, &next);
        }
        if (base_failed(tried))
            return tried;
        outcome = ch_cond_wait(&group->changed, look < deadline ? look : deadline);
        if (outcome == CH_CANCELLED || ch_now(group->env) >= deadline)
            return ch_outcome_status(outcome == CH_CANCELLED ? outcome : CH_TIMEOUT,
                                     "change of the group (it may still come to be)");
    }
}

/* Who could be the one that asks, before it lost its disk, but is heard. */
static struct base_status target_check(const struct con__group *group,
                                       const struct con_member *wish)
{
    const struct con_config *config = con__group_config(group);
    size_t len = strnlen(wish->address, sizeof(wish->address));

    if (wish->id == 0 || len == 0 || len == sizeof(wish->address))
        return base_status_make(BASE_INVALID_ARGUMENT, "a member needs an id and a target");
    for (uint32_t i = 0; i < config->count; i++) {
        const struct con_member *member = &config->members[i];
        int64_t silent = heard_ms(group, member->id);

        if (member->id == wish->id && member->witness != wish->witness)
            return base_status_make(BASE_FAILED_PRECONDITION,
                                    "a witness stays one, and others never become one");
        if (member->id == wish->id || strcmp(member->address, wish->address) != 0)
            continue;
        if (member->id == group->store.member || (silent >= 0 && silent * CH_MS < group->election))
            return base_status_make(BASE_UNAVAILABLE,
                                    "member %016" PRIx64 " at %s is alive; there is one at a time",
                                    member->id, wish->address);
    }
    return BASE_STATUS_OK;
}

struct base_status con__group_add(struct con_log *log, const struct con_member *member,
                                  ch_time deadline)
{
    struct con__group *group = con__group_of(log);
    struct wish wish = { member->voter || member->witness ? WISH_VOTER : WISH_LEARNER, *member };
    struct base_status status;

    if (!group->node)
        return base_status_make(BASE_FAILED_PRECONDITION,
                                "a group opened without a node has one member");
    if (!group->lead_term)
        return con__group_not_leader(group);
    status = target_check(group, member);
    return base_failed(status) ? status : wish_grant(group, &wish, deadline);
}

struct base_status con__group_remove(struct con_log *log, uint64_t member, ch_time deadline)
{
    struct con__group *group = con__group_of(log);
    struct wish wish = { WISH_GONE, { .id = member } };

    if (!group->lead_term)
        return con__group_not_leader(group);
    if (!con_config_member(con__group_config(group), member))
        return base_status_make(BASE_NOT_FOUND, "group %s has no member %016" PRIx64, group->name,
                                member);
    return wish_grant(group, &wish, deadline);
}

/* ---- letting in ---- */

struct promotion {
    struct con__group *group;
    struct con_member member;
};

static void promote_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct promotion *promotion = arg;
    struct con__group *group = promotion->group;
    struct wish wish = { WISH_VOTER, promotion->member };
    struct base_status status = wish_grant(group, &wish, ch_in(group->env, PROMOTE_TIME));

    if (base_failed(status) && !group->closing)
        ch_info(group->env, "group %s: member %016" PRIx64 " is no voter yet: %s", group->name,
                promotion->member.id, base_status_text(&status));
    base_status_free(&status);
    group->promoting = 0;
    free(promotion);
}

static void promote(struct con__group *group, const struct con_member *member)
{
    struct promotion *promotion;
    struct base_status status;

    if (group->promoting) /* it asks again */
        return;
    promotion = malloc(sizeof(*promotion));
    if (!promotion)
        abort();
    *promotion = (struct promotion){ group, *member };
    group->promoting = member->id;
    status = ch_gate_spawn(&group->gate, "log promote", promote_fiber, promotion);
    if (base_failed(status)) {
        base_status_free(&status);
        group->promoting = 0;
        free(promotion);
    }
}

/* Anybody can say this, who leads or not: what is committed stays so. */
static uint64_t removed_at(const struct con__group *group, uint64_t id, uint64_t since)
{
    const struct con_config *config = con_raft_config_committed(group->raft);

    return since > 0 && config->index > since && !con_config_member(config, id) ? config->index : 0;
}

struct base_status con__group_let_in(struct con__group *group, const struct con_member *member,
                                     bool stay_learner, uint64_t since, ch_time deadline,
                                     uint64_t *gone_at)
{
    struct wish wish = { WISH_LEARNER, *member, since };
    const struct con_member *known;
    struct base_status status;

    *gone_at = removed_at(group, member->id, since);
    if (*gone_at)
        return BASE_STATUS_OK;
    if (!group->lead_term)
        return con__group_not_leader(group);
    status = target_check(group, member);
    if (!base_failed(status))
        status = wish_grant(group, &wish, deadline);
    if (base_failed(status))
        return status;
    known = con_config_member(con__group_config(group), member->id);
    if (!stay_learner && known && !known->voter && group->lead_term)
        promote(group, member);
    return status;
}

/* ---- handing over ---- */

/* Whoever is heard and has most of the log, at least up to `least`; 0: nobody. */
static uint64_t best_successor(const struct con__group *group, uint64_t least)
{
    const struct con_config *config = con__group_config(group);
    uint64_t best = 0, best_match = 0;

    for (uint32_t i = 0; i < config->count; i++) {
        const struct con_member *member = &config->members[i];
        uint64_t match;
        int64_t heard;

        if (!member->voter || member->witness || member->id == group->store.member ||
            !con__group_progress(group, member->id, &match, &heard) ||
            ch_now(group->env) - heard > group->election || match < least)
            continue;
        if (!best || match > best_match) {
            best = member->id;
            best_match = match;
        }
    }
    return best;
}

bool con__group_transfer_begin(struct con__group *group, uint64_t least)
{
    uint64_t to = group->lead_term ? best_successor(group, least) : 0;

    if (!to || con_raft_transfer(group->raft, to) != CON_TAKEN)
        return false;
    con__group_poke(group);
    return true;
}

struct base_status con__group_transfer(struct con_log *log, uint64_t member, ch_time deadline)
{
    struct con__group *group = con__group_of(log);
    uint64_t to = member ? member : best_successor(group, 0);
    struct con_raft_status status;

    if (!group->lead_term)
        return con__group_not_leader(group);
    if (!to)
        return base_status_make(BASE_FAILED_PRECONDITION, "nobody is there to lead instead");
    if (to == group->store.member)
        return BASE_STATUS_OK;
    switch (con_raft_transfer(group->raft, to)) {
    case CON_TAKEN:
        break;
    case CON_BAD_CONFIG:
        return base_status_make(BASE_FAILED_PRECONDITION,
                                "member %016" PRIx64 " is none that can lead", to);
    default:
        return base_status_make(BASE_UNAVAILABLE, "leadership is being handed over already");
    }
    con__group_poke(group);
    for (;;) {
        status = con_raft_status(group->raft);
        if (base_failed(group->failure) || group->closing ||
            (status.role != CON_LEADER && status.leader))
            return BASE_STATUS_OK;
        ch_time look = ch_in(group->env, CON_LOOK_MS * CH_MS);
        enum ch_outcome outcome;

        if (status.role == CON_LEADER && !status.transfer)
            return base_status_make(BASE_UNAVAILABLE,
                                    "member %016" PRIx64 " did not take leadership over", to);
        outcome = ch_cond_wait(&group->changed, look < deadline ? look : deadline);
        if (outcome == CH_CANCELLED || ch_now(group->env) >= deadline)
            return ch_outcome_status(outcome == CH_CANCELLED ? outcome : CH_TIMEOUT,
                                     "hand leadership over");
    }
}
