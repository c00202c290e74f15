/* raft_member.c: changing who belongs to the group, and handing leadership over (Raft 2014: chapter
 * 4, sections 3.10 and 4.2).
 *
 * One way for all changes of voters: an entry with both sets (joint: each has to agree to
 * everything), and when that is committed an entry with the new one. Learners come and go with one
 * entry. A configuration is in force from where it stands in the log, committed or not. */
#include <stdlib.h>

#include "raft_int.h"

static bool is_voter(const struct con_config *config, uint64_t id)
{
    const struct con_member *member = con_config_member(config, id);

    return member && member->voter;
}

static void config_append(struct con_raft *raft, struct con_config *config)
{
    struct base_buf data = { 0 };

    CON_INVARIANT(7, con__log_config(&raft->log)->index <= raft->commit,
                  "one change of the group at a time");
    config->index = raft->log.last + 1;
    con_config_encode(config, &data);
    con__lead_append(raft, CON_ENTRY_CONFIG, base_buf_bytes(&data));
    base_buf_free(&data);
    con__peers_follow_config(raft);
    raft->role_changed = true;
}

/* Whether `next` is a group that can work, and each new voter has what it votes on. */
static enum con_refusal check(const struct con_raft *raft, const struct con_config *now,
                              const struct con_config *next)
{
    bool leads = false;

    for (uint32_t i = 0; i < next->count; i++) {
        const struct con_member *member = &next->members[i];
        const struct con_member *known = con_config_member(now, member->id);

        if (member->id == 0 || !*member->address ||
            !memchr(member->address, 0, sizeof(member->address)) ||
            (i > 0 && member[-1].id >= member->id) ||
            (known && known->witness != member->witness) ||
            (known && known->voter && !member->voter))
            return CON_BAD_CONFIG; /* a voter leaves, and may come back under another id */
        leads |= member->voter && !member->witness;
    }
    if (!leads || next->count > CON_MEMBERS_MAX)
        return CON_BAD_CONFIG;
    for (uint32_t i = 0; i < next->count; i++) {
        const struct con_member *member = &next->members[i];

        if (member->voter && !is_voter(now, member->id) && !con__caught_up(raft, member->id))
            return CON_NOT_CAUGHT_UP;
    }
    return CON_TAKEN;
}

static uint64_t ear_heard(const struct con_raft *raft, uint64_t id)
{
    return con__ear_of(raft, id) == CON_EAR_HEARD;
}

static uint64_t ear_not_silent(const struct con_raft *raft, uint64_t id)
{
    return con__ear_of(raft, id) != CON_EAR_SILENT;
}

/* Whether `next` could commit something, were it in force, with those of whom `ear` holds. */
static bool can_commit(const struct con_raft *raft, const struct con_config *next,
                       uint64_t (*ear)(const struct con_raft *raft, uint64_t id))
{
    bool state = false;

    for (uint32_t i = 0; i < next->count; i++)
        state |=
            next->members[i].voter && !next->members[i].witness && ear(raft, next->members[i].id);
    return state && con__quorum(next, ear, raft);
}

static bool voters_differ(const struct con_config *a, const struct con_config *b)
{
    for (uint32_t i = 0; i < a->count; i++)
        if (a->members[i].voter && !is_voter(b, a->members[i].id))
            return true;
    for (uint32_t i = 0; i < b->count; i++)
        if (b->members[i].voter && !is_voter(a, b->members[i].id))
            return true;
    return false;
}

enum con_refusal con_raft_change(struct con_raft *raft, const struct con_config *next,
                                 uint64_t *index)
{
    const struct con_config *now = con__log_config(&raft->log);
    struct con_config made = *next;
    enum con_refusal refusal;

    if (raft->role != CON_LEADER)
        return CON_NOT_LEADER;
    if (raft->transfer || raft->witness_leads || con__leaving(raft))
        return CON_TRANSFERRING;
    if (now->joint || now->index > raft->commit || raft->commit < raft->term_start)
        return CON_CONFIG_PENDING;
    if (next->count > CON_MEMBERS_MAX)
        return CON_BAD_CONFIG;
    refusal = check(raft, now, next);
    if (refusal != CON_TAKEN)
        return refusal;
    made.joint = false;
    for (uint32_t i = 0; i < made.count; i++)
        made.members[i].voter_old = false;
    if (voters_differ(now, next)) {
        /* Nothing can be undone in a group that cannot commit: so it is not let come to that. */
        if (!can_commit(raft, &made, ear_heard))
            return can_commit(raft, &made, ear_not_silent) ? CON_CONFIG_PENDING : CON_SILENT;
        made.joint = true;
    }
    for (uint32_t i = 0; made.joint && i < now->count; i++) {
        const struct con_member *known = con_config_member(&made, now->members[i].id);
        struct con_member member = known ? *known : now->members[i];

        if (!now->members[i].voter)
            continue;
        member.voter = known != NULL && known->voter;
        member.voter_old = true;
        if (!con_config_put(&made, &member))
            return CON_BAD_CONFIG; /* both sets together are too many */
    }
    config_append(raft, &made);
    *index = raft->log.last;
    return CON_TAKEN;
}

static void joint_leave(struct con_raft *raft)
{
    struct con_config next = *con__log_config(&raft->log);
    uint32_t kept = 0;

    next.joint = false;
    for (uint32_t i = 0; i < next.count; i++) {
        struct con_member member = next.members[i];
        bool outgoing = member.voter_old && !member.voter;

        member.voter_old = false;
        if (!outgoing)
            next.members[kept++] = member;
    }
    memset(&next.members[kept], 0, (next.count - kept) * sizeof(next.members[0]));
    next.count = kept;
    config_append(raft, &next);
}

/* Called by the leader whenever more is committed. */
void con__config_committed(struct con_raft *raft)
{
    const struct con_config *config = con__log_config(&raft->log);

    if (config->index > raft->commit || raft->commit < raft->term_start)
        return;
    if (config->joint) {
        joint_leave(raft);
        con__commit_advance(raft); /* a group of one has it already, when it is durable */
    } else {
        con__leave_maybe(raft);
    }
}

bool con__leaving(const struct con_raft *raft)
{
    const struct con_config *config = con__log_config(&raft->log);

    return raft->role == CON_LEADER && !config->joint && config->index <= raft->commit &&
           !is_voter(config, raft->options.id);
}

/* It has seen itself out (4.2.2), or is a witness: it takes no proposals, and goes when a voter
 * with a state has all of its log, which is told to stand at once. A witness alone with the tail
 * would leave nobody to lead. */
void con__leave_maybe(struct con_raft *raft)
{
    const struct con_config *config = con__log_config(&raft->log);

    if (!con__leaving(raft) && !(raft->role == CON_LEADER && raft->witness_leads))
        return;
    for (uint32_t i = 0; i < config->count; i++) {
        const struct con_member *member = &config->members[i];
        uint64_t match;
        int64_t heard;

        if (!member->voter || member->witness ||
            !con_raft_progress(raft, member->id, &match, &heard) || match < raft->log.last)
            continue;
        con__say(raft, CON_TIMEOUT_NOW, member->id, false);
        con__follow(raft, raft->term, 0);
        return;
    }
}

/* The one before the newest is: there is one change at a time (invariant 7). */
const struct con_config *con_raft_config_committed(const struct con_raft *raft)
{
    const struct con_config *newest = con__log_config(&raft->log);

    return newest->index > raft->commit && raft->log.config_count > 1 ? newest - 1 : newest;
}

void con_raft_removed(struct con_raft *raft, uint64_t index)
{
    if (index <= raft->removed_at || con_raft_config_committed(raft)->index >= index)
        return;
    raft->removed_at = index;
    con__wake(raft, raft->now);
    con__follow(raft, raft->term, raft->role == CON_FOLLOWER ? raft->leader : 0);
}

enum con_refusal con_raft_transfer(struct con_raft *raft, uint64_t member)
{
    const struct con_config *config = con__log_config(&raft->log);
    const struct con_member *to = con_config_member(config, member);

    if (raft->role != CON_LEADER)
        return CON_NOT_LEADER;
    if (raft->transfer || raft->witness_leads)
        return CON_TRANSFERRING;
    if (!to || !to->voter || to->witness || member == raft->options.id)
        return CON_BAD_CONFIG;
    con__wake(raft, raft->now);
    raft->transfer = member;
    raft->transfer_until = raft->now + raft->options.election_ns;
    raft->transfer_sent = false;
    return CON_TAKEN;
}
