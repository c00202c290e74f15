/* raft_elect.c: standing for leader and voting (Raft 2014: sections 3.4, 3.6.1, 9.6).
 *
 * A member whose election timer ends first asks whether it would be voted for (pre-vote): nothing
 * changes by that, so a member that is cut off does not come back with a term that unseats a good
 * leader. Then it stands: term grows, it votes for itself, both are made durable, and only then are
 * the others asked. */
#include "raft_int.h"

const struct con_member *con__self(const struct con_raft *raft)
{
    const struct con__log *log = &raft->log;
    const struct con_config *newest = con__log_config(log);
    const struct con_member *self = con_config_member(newest, raft->options.id);

    /* Seen out, but perhaps not committed: it may be the only one with a state that holds the tail
     * of the log (section 4.2.2, end). */
    if (!self && newest->index > raft->commit && log->config_count > 1)
        self = con_config_member(newest - 1, raft->options.id);
    return self;
}

bool con__may_stand(const struct con_raft *raft)
{
    const struct con_member *self = con__self(raft);

    return self && (self->voter || self->voter_old) && !raft->chunk_waiting && !raft->chunk_busy &&
           con_raft_config_committed(raft)->index >= raft->removed_at;
}

static void votes_begin(struct con_raft *raft)
{
    raft->vote_count = 1;
    raft->votes[0].id = raft->options.id;
    raft->votes[0].granted = true;
}

static uint64_t granted_by(const struct con_raft *raft, uint64_t id)
{
    /* Its own vote counts when it is durable: a group of one would lead by it at once, crash, and
     * give its vote in that term to another. */
    if (id == raft->options.id && raft->role == CON_CANDIDATE && raft->durable_term < raft->term)
        return 0;
    for (size_t i = 0; i < raft->vote_count; i++)
        if (raft->votes[i].id == id)
            return raft->votes[i].granted;
    return 0;
}

static uint64_t not_refused_by(const struct con_raft *raft, uint64_t id)
{
    for (size_t i = 0; i < raft->vote_count; i++)
        if (raft->votes[i].id == id)
            return raft->votes[i].granted;
    return 1;
}

static bool answered(const struct con_raft *raft, uint64_t id)
{
    for (size_t i = 0; i < raft->vote_count; i++)
        if (raft->votes[i].id == id)
            return true;
    return false;
}

/* All who have not answered. A vote is asked for when our own is durable. */
static void ask_all(struct con_raft *raft, enum con_message_kind kind, uint64_t term)
{
    const struct con_config *config = con__log_config(&raft->log);

    raft->ask_at = raft->now + raft->options.heartbeat_ns;
    for (uint32_t i = 0; i < config->count; i++) {
        const struct con_member *member = &config->members[i];
        struct con_message *message;

        if (answered(raft, member->id) || !(member->voter || member->voter_old))
            continue;
        message =
            con__say(raft, kind, member->id, kind == CON_VOTE && raft->durable_term < raft->term);
        message->term = term;
        message->index = raft->log.last;
        message->log_term = con__log_last_term(&raft->log);
        message->transfer = raft->by_transfer;
    }
}

void con__won_maybe(struct con_raft *raft)
{
    const struct con_config *config = con__log_config(&raft->log);

    if (con__quorum(config, granted_by, raft)) {
        if (raft->role == CON_PRE_CANDIDATE)
            con__campaign(raft, false);
        else
            con__lead(raft);
    } else if (!con__quorum(config, not_refused_by, raft)) {
        con__follow(raft, raft->term, 0); /* this one is lost; the timer brings another */
    }
}

/* A question that was lost costs a heartbeat, and not an election timeout (3.3: "servers retry").
 * What waits for our own vote to be durable has not been asked yet. */
void con__ask_again(struct con_raft *raft)
{
    if (raft->role == CON_PRE_CANDIDATE)
        ask_all(raft, CON_PRE_VOTE, raft->term + 1);
    else if (raft->durable_term == raft->term)
        ask_all(raft, CON_VOTE, raft->term);
    else
        raft->ask_at = raft->now + raft->options.heartbeat_ns;
}

void con__campaign_pre(struct con_raft *raft)
{
    raft->role = CON_PRE_CANDIDATE;
    raft->stands_since = raft->now;
    raft->role_changed = true;
    raft->leader = 0;
    raft->by_transfer = false;
    con__election_reset(raft);
    votes_begin(raft);
    ask_all(raft, CON_PRE_VOTE, raft->term + 1);
    con__won_maybe(raft);
}

void con__campaign(struct con_raft *raft, bool transfer)
{
    raft->role = CON_CANDIDATE;
    raft->role_changed = true;
    raft->leader = 0;
    raft->by_transfer = transfer;
    raft->term++;
    raft->vote = raft->options.id;
    raft->vote_dirty = true;
    raft->after_queue.count = 0; /* of older terms, all of them */
    con__election_reset(raft);
    votes_begin(raft);
    ask_all(raft, CON_VOTE, raft->term);
    con__won_maybe(raft);
}

/* The log of who asks must hold all that may be committed: at least as up to date as ours (3.6.1).
 */
static bool up_to_date(const struct con_raft *raft, const struct con_message *message)
{
    uint64_t term = con__log_last_term(&raft->log);

    return message->log_term > term ||
           (message->log_term == term && message->index >= raft->log.last);
}

/* Both stand, with equal logs: would each vote for the other, both stood in the same term and
 * neither won. So the one with the greater id goes on, for a heartbeat: if it has not won by then,
 * it may not reach those who would vote for the other. */
static bool goes_first(const struct con_raft *raft, const struct con_message *message)
{
    const struct con_member *self = con__self(raft);

    return raft->role == CON_PRE_CANDIDATE &&
           raft->now - raft->stands_since < raft->options.heartbeat_ns &&
           message->term == raft->term + 1 && message->log_term == con__log_last_term(&raft->log) &&
           message->index == raft->log.last && message->from < raft->options.id && self &&
           !self->witness;
}

/* The term is at least ours. */
void con__vote_receive(struct con_raft *raft, const struct con_message *message)
{
    struct con_message *reply;
    bool grant;

    if (message->kind == CON_PRE_VOTE) {
        grant = up_to_date(raft, message) && !goes_first(raft, message) &&
                (message->term > raft->term || raft->vote == message->from ||
                 (raft->vote == 0 && raft->leader == 0));
        reply = con__say(raft, CON_PRE_VOTE_REPLY, message->from, false);
        if (grant)
            reply->term = message->term;
        reply->reject = !grant;
        return;
    }
    if (message->term > raft->term)
        con__follow(raft, message->term, 0);
    grant = up_to_date(raft, message) &&
            (raft->vote == message->from || (raft->vote == 0 && raft->leader == 0));
    if (grant && raft->vote == 0) {
        con__follow(raft, raft->term, 0);
        CON_INVARIANT(1, raft->vote == 0, "a member votes once in a term");
        raft->vote = message->from;
        raft->vote_dirty = true;
    }
    con__say(raft, CON_VOTE_REPLY, message->from, true)->reject = !grant;
}

void con__vote_reply_receive(struct con_raft *raft, const struct con_message *message)
{
    const struct con_config *config = con__log_config(&raft->log);
    bool pre = message->kind == CON_PRE_VOTE_REPLY;

    if (message->reject && message->term > raft->term) {
        con__follow(raft, message->term, 0);
        return;
    }
    if (raft->role != (pre ? CON_PRE_CANDIDATE : CON_CANDIDATE))
        return;
    if (!message->reject && message->term != raft->term + (pre ? 1 : 0))
        return; /* of an earlier attempt */
    if (!con_config_member(config, message->from))
        return;
    for (size_t i = 0; i < raft->vote_count; i++)
        if (raft->votes[i].id == message->from)
            return;
    if (raft->vote_count == CON_MEMBERS_MAX)
        return;
    raft->votes[raft->vote_count].id = message->from;
    raft->votes[raft->vote_count++].granted = !message->reject;
    con__won_maybe(raft);
}
