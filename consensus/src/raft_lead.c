/* raft_lead.c: leading (Raft 2014: sections 3.5, 3.6, 6.2, 6.4): what is known of each follower,
 * what a quorum has reached, and what follows from that. Messages may get lost: a heartbeat says
 * what was sent, its reply what has come. What a leader says is in raft_send.c. */
#include <stdlib.h>

#include "raft_int.h"

static void peer_probe(struct con__peer *peer, uint64_t next)
{
    peer->mode = CON_PROBE;
    peer->next = next > peer->match ? next : peer->match + 1;
    peer->probe_sent = false;
    peer->inflight_count = 0;
    peer->fetched_count = 0;
}

static void peer_replicate(struct con__peer *peer)
{
    peer->mode = CON_REPLICATE;
    peer->ask = false;
    peer->next = peer->match + 1;
    peer->inflight_count = 0;
    peer->fetched_count = 0;
}

void con__peer_install(struct con__peer *peer)
{
    peer->mode = CON_INSTALL;
    peer->inflight_count = 0;
    peer->fetched_count = 0;
    peer->snapshot_index = peer->snapshot_term = 0;
    peer->snapshot_offset = peer->snapshot_total = 0;
    peer->chunk_here = peer->chunk_sent = false;
}

void con__peers_follow_config(struct con_raft *raft)
{
    const struct con_config *config = con__log_config(&raft->log);
    struct con__peer *peers = calloc(config->count + 1, sizeof(*peers));
    size_t count = 0;

    if (!peers)
        abort();
    for (uint32_t i = 0; i < config->count; i++) {
        const struct con_member *member = &config->members[i];
        const struct con__peer *known = con__peer_of(raft, member->id);
        struct con__peer *peer = &peers[count];

        if (member->id == raft->options.id)
            continue;
        count++;
        if (known) {
            *peer = *known;
        } else {
            peer->id = member->id;
            peer->heard = raft->now;
            peer->lap_to = raft->log.last;
            peer->lap_begun = raft->now;
            peer->lap_took = CON_TIME_MAX;
            peer_probe(peer, raft->log.last + 1);
        }
        peer->witness = member->witness;
    }
    free(raft->peers);
    raft->peers = peers;
    raft->peer_count = count;
}

void con__lead_append(struct con_raft *raft, enum con_entry_kind kind, struct base_bytes data)
{
    struct con_entry entry = { raft->log.last + 1, raft->term, kind, data };
    bool good = con__log_append(&raft->log, &entry);

    con__wake(raft, raft->now);
    BASE_ASSERT(good); /* a configuration is one that was encoded here */
    raft->uncommitted_bytes += data.len;
}

/* All leaders of a process speak at the same moments, so that what they say travels together. */
void con__heartbeat_next(struct con_raft *raft)
{
    int64_t every = raft->options.heartbeat_ns;

    raft->heartbeat_at = raft->now - raft->now % every + every;
}

void con__lead(struct con_raft *raft)
{
    const struct con_member *self = con__self(raft);

    CON_INVARIANT(8, self != NULL, "who leads is a member");
    CON_INVARIANT(1, raft->vote == raft->options.id, "a member votes once in a term");
    raft->role = CON_LEADER;
    raft->leader = raft->options.id;
    raft->role_changed = true;
    raft->peer_count = 0;
    raft->uncommitted_bytes = 0;
    for (uint64_t i = raft->commit + 1; i <= raft->log.last; i++)
        raft->uncommitted_bytes += con__log_entry(&raft->log, i)->data.len;
    con__peers_follow_config(raft);
    raft->term_start = raft->log.last + 1;
    raft->witness_leads = self->witness;
    raft->witness_until = raft->now + 2 * raft->options.election_ns;
    if (!raft->witness_leads)
        con__lead_append(raft, CON_ENTRY_NO_OP, BASE_BYTES_EMPTY);
    con__heartbeat_next(raft);
    raft->heartbeat_due = true;
    raft->round_done = raft->round;
    raft->transfer = 0;
}

void con__lead_end(struct con_raft *raft)
{
    for (size_t i = 0; i < raft->read_count; i++)
        con__answer(raft, raft->reads[i].id, 0);
    raft->read_count = 0;
    raft->peer_count = 0;
    raft->transfer = 0;
    raft->heartbeat_due = false;
    raft->witness_leads = false;
}

/* ---- what a quorum has reached ---- */

static uint64_t match_of(const struct con_raft *raft, uint64_t id)
{
    const struct con__peer *peer = con__peer_const(raft, id);

    return id == raft->options.id ? raft->log.durable : peer ? peer->match : 0;
}

static uint64_t heard_of(const struct con_raft *raft, uint64_t id)
{
    const struct con__peer *peer = con__peer_const(raft, id);

    return (uint64_t)(id == raft->options.id ? raft->now : peer ? peer->heard : 0);
}

static uint64_t round_of(const struct con_raft *raft, uint64_t id)
{
    const struct con__peer *peer = con__peer_const(raft, id);

    return id == raft->options.id ? raft->round : peer ? peer->round : 0;
}

/* How far the log is with a voter that has a state and stays. Without witnesses that is no less
 * than what a majority has. With them, a majority of witnesses must not commit what then, when the
 * leader is gone (it may be seeing itself out), nobody could apply. */
static uint64_t kept_with_state(const struct con_raft *raft, const struct con_config *config)
{
    uint64_t most = 0;

    for (uint32_t i = 0; i < config->count; i++) {
        const struct con_member *member = &config->members[i];
        uint64_t match = member->voter && !member->witness ? match_of(raft, member->id) : 0;

        if (match > most)
            most = match;
    }
    return most;
}

/* How far the log is, committed, with every voter that has a state: a witness need not keep it for
 * anybody then. */
uint64_t con__held_by_all(const struct con_raft *raft)
{
    const struct con_config *config = con__log_config(&raft->log);
    uint64_t least = raft->commit;

    for (uint32_t i = 0; i < config->count; i++) {
        const struct con_member *member = &config->members[i];

        if ((member->voter || member->voter_old) && !member->witness &&
            match_of(raft, member->id) < least)
            least = match_of(raft, member->id);
    }
    return least;
}

void con__commit_advance(struct con_raft *raft)
{
    const struct con_config *config = con__log_config(&raft->log);
    uint64_t index = con__quorum(config, match_of, raft), kept;

    if (index <= raft->commit)
        return;
    kept = kept_with_state(raft, config);
    if (index > kept)
        index = kept;
    if (index <= raft->commit)
        return;
    /* An earlier term's entry is on a quorum, and may yet be replaced: figure 8. It is committed
     * with the first one of this term (3.6.2). */
    if (con__log_term(&raft->log, index) != raft->term)
        return;
    for (uint64_t i = raft->commit + 1; i <= index; i++)
        raft->uncommitted_bytes -= con__log_entry(&raft->log, i)->data.len;
    CON_INVARIANT(4, index >= raft->term_start,
                  "a leader commits by counting only what is of its own term");
    raft->commit = index;
    con__config_committed(raft);
}

void con__round_advance(struct con_raft *raft)
{
    uint64_t done = con__quorum(con__log_config(&raft->log), round_of, raft);

    if (done > raft->round_done)
        raft->round_done = done;
}

/* ---- time ---- */

bool con__peer_alive(const struct con_raft *raft, const struct con__peer *peer)
{
    return raft->now - peer->heard < raft->options.election_ns;
}

/* Whom a leader has asked for less than an election timeout, or whom it could not hear as it was
 * held up itself, it does not take for silent. */
enum con__ear con__ear_of(const struct con_raft *raft, uint64_t id)
{
    const struct con__peer *peer = con__peer_const(raft, id);

    if (id == raft->options.id)
        return CON_EAR_HEARD;
    if (!peer)
        return CON_EAR_SILENT;
    if (raft->quiet) /* the driver vouches for all of them */
        return CON_EAR_HEARD;
    if (!con__peer_alive(raft, peer))
        return raft->now < raft->grace_until ? CON_EAR_UNKNOWN : CON_EAR_SILENT;
    return peer->spoke ? CON_EAR_HEARD : CON_EAR_UNKNOWN;
}

bool con_raft_heard(const struct con_raft *raft, uint64_t member)
{
    return raft->role == CON_LEADER && con__ear_of(raft, member) == CON_EAR_HEARD;
}

/* Whether little time would pass, were it made a voter now and needed at once: a voter that lacks
 * the end of the log holds up the commit of its own configuration and of all that comes after. How
 * many entries or bytes it lacks does not tell, under load it always lacks some: how long it took
 * lately to come as far as the leader was does. Less than a third of an election timeout: that is
 * not yet taken for a leader that is gone. */
bool con__caught_up(const struct con_raft *raft, uint64_t id)
{
    const struct con__peer *peer = con__peer_const(raft, id);
    int64_t most = raft->options.election_ns / 3;

    if (!peer || con__ear_of(raft, id) != CON_EAR_HEARD || peer->match < raft->log.offset)
        return false;
    return peer->match == raft->log.last ||
           (peer->lap_took < most && raft->now - peer->lap_begun < most);
}

static void lap_end(const struct con_raft *raft, struct con__peer *peer)
{
    if (peer->match < peer->lap_to)
        return;
    peer->lap_took = raft->now - peer->lap_begun;
    peer->lap_begun = raft->now;
    peer->lap_to = raft->log.last;
}

void con__lead_tick(struct con_raft *raft)
{
    if (raft->now >= raft->grace_until &&
        (uint64_t)raft->now - con__quorum(con__log_config(&raft->log), heard_of, raft) >
            (uint64_t)raft->options.election_ns) {
        con__follow(raft, raft->term, 0); /* check-quorum (6.2): others may have a leader */
        return;
    }
    if (raft->witness_leads && raft->now >= raft->witness_until) {
        con__follow(raft, raft->term, 0); /* nobody took it on: others may do without it */
        return;
    }
    if (raft->transfer && raft->now >= raft->transfer_until)
        raft->transfer = 0;
    if (raft->now < raft->heartbeat_at)
        return;
    con__heartbeat_next(raft);
    raft->heartbeat_due = true;
    con__quiet_beat(raft);
    for (size_t i = 0; i < raft->peer_count; i++) {
        struct con__peer *peer = &raft->peers[i];

        peer->probe_sent = false;
        if (peer->chunk_sent && raft->now - peer->chunk_sent_at > raft->options.election_ns)
            peer->chunk_sent = false; /* lost: once more */
    }
}

/* ---- answers ---- */

static void append_reply(struct con_raft *raft, struct con__peer *peer,
                         const struct con_message *reply)
{
    struct con__log *log = &raft->log;

    if (reply->reject) {
        uint64_t next;

        if (reply->index <= peer->match || reply->index >= peer->next || peer->mode == CON_INSTALL)
            return; /* of a message long answered */
        next = con__log_before_term(log, reply->hint_index, reply->hint_term) + 1;
        peer_probe(peer, next < reply->index ? next : reply->index);
        return;
    }
    if (reply->index > log->last)
        return;
    if (reply->index > peer->match) {
        peer->match = reply->index;
        if (peer->next <= peer->match)
            peer->next = peer->match + 1;
        lap_end(raft, peer);
    }
    while (peer->inflight_count > 0 && peer->inflight[peer->inflight_first] <= reply->index) {
        peer->inflight_first = (peer->inflight_first + 1) % CON_INFLIGHT_MAX;
        peer->inflight_count--;
    }
    if ((peer->mode == CON_PROBE && reply->index + 1 >= peer->next) ||
        (peer->mode == CON_INSTALL && peer->match >= log->offset))
        peer_replicate(peer);
    con__commit_advance(raft);
}

static void heartbeat_reply(struct con_raft *raft, struct con__peer *peer,
                            const struct con_message *reply)
{
    if (reply->round > peer->round && reply->round <= raft->round) {
        peer->round = reply->round;
        con__round_advance(raft);
    }
    con__quiet_agreed(raft, peer, reply->quiet);
    if (peer->mode != CON_REPLICATE || reply->index >= peer->next)
        return;
    if (reply->reject && reply->hint_index < reply->index)
        peer_probe(peer, reply->hint_index + 1);
    else if (!reply->reject && peer->match < reply->index)
        peer->ask = true; /* it came there: the acknowledgement is late, or was lost */
}

static void snapshot_reply(struct con_raft *raft, struct con__peer *peer,
                           const struct con_message *reply)
{
    if (peer->mode != CON_INSTALL || peer->snapshot_index == 0 ||
        reply->index != peer->snapshot_index || reply->log_term != peer->snapshot_term ||
        reply->offset > reply->total)
        return;
    if (reply->reject) {
        con__peer_install(peer);
    } else if (reply->offset == reply->total) {
        if (peer->match < reply->index)
            peer->match = reply->index;
        peer_probe(peer, peer->match + 1);
        con__commit_advance(raft);
    } else if (reply->offset != peer->snapshot_offset || peer->chunk_sent) {
        peer->snapshot_offset = reply->offset;
        peer->chunk_here = peer->chunk_sent = false;
    }
}

void con__reply_receive(struct con_raft *raft, const struct con_message *message)
{
    struct con__peer *peer = con__peer_of(raft, message->from);

    if (!peer)
        return;
    peer->heard = raft->now;
    peer->spoke = true;
    if (message->kind == CON_APPEND_REPLY)
        append_reply(raft, peer, message);
    else if (message->kind == CON_HEARTBEAT_REPLY)
        heartbeat_reply(raft, peer, message);
    else
        snapshot_reply(raft, peer, message);
    if (raft->role == CON_LEADER)
        con__leave_maybe(raft);
}
