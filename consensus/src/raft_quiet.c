/* raft_quiet.c: groups in which nothing happens (quiescence; not in the dissertation).
 *
 * A thousand idle groups would spend their time assuring each other that they are there. So a
 * leader that has had nothing to do for a few heartbeats, and whose followers hold all that it has,
 * offers in its heartbeats to go quiet; a follower that has written, committed and applied just
 * that agrees, and from then on times nothing. When all members have agreed, so does the leader.
 *
 * What the timers were for, the driver does for all groups of two processes at once: it knows
 * whether the other process is there and whether all that was sent has come, and calls
 * con_raft_wake when it is in doubt, at either end. Safety does not rest on it: whoever is quiet
 * has only stopped its timers. That somebody notices when a leader is gone does rest on it.
 *
 * Whatever else happens wakes a member: a proposal, a read, any message that is not part of going
 * quiet. A leader that wakes says a heartbeat at once, a follower that is woken by the driver
 * answers a heartbeat that it was not asked for: so both are awake, or will be. An offer has a
 * number (epoch) that changes with each waking, so an answer that was long on its way agrees to
 * nothing. */
#include "raft_int.h"

bool con__quiet_may(const struct con_raft *raft)
{
    const struct con__log *log = &raft->log;

    if (!raft->options.quiet || raft->role != CON_LEADER || raft->witness_leads || raft->transfer ||
        raft->read_count > 0 || raft->round_done != raft->round || raft->applied < log->last ||
        log->durable < log->last || raft->flight_here || con__leaving(raft))
        return false;
    for (size_t i = 0; i < raft->peer_count; i++)
        if (raft->peers[i].mode != CON_REPLICATE || raft->peers[i].match < log->last)
            return false;
    return true;
}

void con__quiet_beat(struct con_raft *raft)
{
    if (!con__quiet_may(raft)) {
        if (raft->idle_beats > 0)
            con__wake(raft, raft->now); /* what was agreed to so far is void */
        return;
    }
    if (raft->idle_beats < CON_QUIET_BEATS)
        raft->idle_beats++;
    else if (raft->peer_count == 0)
        raft->quiet = true;
}

uint64_t con__quiet_offer(const struct con_raft *raft)
{
    return raft->idle_beats == CON_QUIET_BEATS ? raft->quiet_epoch : 0;
}

void con__quiet_agreed(struct con_raft *raft, struct con__peer *peer, uint64_t epoch)
{
    peer->quiet = epoch;
    if (epoch == 0 || epoch != con__quiet_offer(raft))
        return;
    for (size_t i = 0; i < raft->peer_count; i++)
        if (raft->peers[i].quiet != epoch)
            return;
    raft->quiet = con__quiet_may(raft);
}

void con__quiet_offered(struct con_raft *raft, const struct con_message *offer,
                        struct con_message *reply)
{
    const struct con__log *log = &raft->log;

    if (!raft->options.quiet || offer->index != log->last || raft->applied < log->last ||
        log->durable < log->last || raft->vote_dirty || raft->flight_here ||
        raft->after_queue.count > 0 || raft->chunk_waiting || raft->chunk_busy)
        return;
    raft->quiet = true;
    reply->quiet = offer->quiet;
}

/* What does not wake: offers of the leader, and the answers that agree. */
static bool is_quiet_talk(const struct con_raft *raft, const struct con_message *message)
{
    if (message->term != raft->term || message->quiet == 0)
        return false;
    return raft->role == CON_LEADER
               ? message->kind == CON_HEARTBEAT_REPLY && message->quiet == raft->quiet_epoch
               : message->kind == CON_HEARTBEAT && message->from == raft->leader;
}

void con__quiet_hear(struct con_raft *raft, const struct con_message *message)
{
    if (raft->quiet && !is_quiet_talk(raft, message))
        con__wake(raft, raft->now);
}

void con__wake(struct con_raft *raft, int64_t heard)
{
    raft->idle_beats = 0;
    raft->quiet_epoch++;
    if (!raft->quiet)
        return;
    raft->quiet = false;
    if (raft->role == CON_LEADER) {
        for (size_t i = 0; i < raft->peer_count; i++)
            if (raft->peers[i].heard < heard)
                raft->peers[i].heard = heard;
        raft->heartbeat_due = true;
        con__heartbeat_next(raft);
        return;
    }
    if (raft->leader_heard < heard)
        raft->leader_heard = heard;
    con__election_reset(raft);
    raft->election_at -= raft->now - raft->leader_heard;
}

void con_raft_wake(struct con_raft *raft, int64_t heard, int64_t now)
{
    bool quiet = raft->quiet;

    if (now > raft->now)
        raft->now = now;
    con__wake(raft, heard < raft->now ? heard : raft->now);
    if (quiet && raft->role == CON_FOLLOWER && raft->leader)
        con__say(raft, CON_HEARTBEAT_REPLY, raft->leader, false);
}
