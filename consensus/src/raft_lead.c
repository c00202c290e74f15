/* raft_lead.c: replicating (Raft 2014: sections 3.5, 3.6, 6.4, 10.2).
 *
 * Messages with entries are made when the driver takes an output, not when something happens: all
 * that was proposed since the last time goes out in one. To each follower they are sent ahead of
 * its answers, up to a number of messages; one whose log does not match is probed first, one that
 * needs what is compacted away gets the snapshot, chunk by chunk. Messages may get lost: a
 * heartbeat says what was sent, its reply what has come. */
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

static void peer_install(struct con__peer *peer)
{
    peer->mode = CON_INSTALL;
    peer->inflight_count = 0;
    peer->fetched_count = 0;
    peer->snapshot_index = peer->snapshot_term = 0;
    peer->snapshot_offset = peer->snapshot_total = 0;
    peer->chunk_here = peer->chunk_sent = false;
}

struct con__peer *con__peer_of(struct con_raft *raft, uint64_t id)
{
    for (size_t i = 0; i < raft->peer_count; i++)
        if (raft->peers[i].id == id)
            return &raft->peers[i];
    return NULL;
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

static const struct con__peer *peer_const(const struct con_raft *raft, uint64_t id)
{
    return con__peer_of((struct con_raft *)raft, id);
}

static uint64_t match_of(const struct con_raft *raft, uint64_t id)
{
    const struct con__peer *peer = peer_const(raft, id);

    return id == raft->options.id ? raft->log.durable : peer ? peer->match : 0;
}

static uint64_t heard_of(const struct con_raft *raft, uint64_t id)
{
    const struct con__peer *peer = peer_const(raft, id);

    return (uint64_t)(id == raft->options.id ? raft->now : peer ? peer->heard : 0);
}

static uint64_t round_of(const struct con_raft *raft, uint64_t id)
{
    const struct con__peer *peer = peer_const(raft, id);

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
static uint64_t held_by_all(const struct con_raft *raft)
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

static void round_advance(struct con_raft *raft)
{
    uint64_t done = con__quorum(con__log_config(&raft->log), round_of, raft);

    if (done > raft->round_done)
        raft->round_done = done;
}

/* ---- time ---- */

static bool alive(const struct con_raft *raft, const struct con__peer *peer)
{
    return raft->now - peer->heard < raft->options.election_ns;
}

/* Whom a leader has asked for less than an election timeout, or whom it could not hear as it was
 * held up itself, it does not take for silent. */
enum con__ear con__ear_of(const struct con_raft *raft, uint64_t id)
{
    const struct con__peer *peer = peer_const(raft, id);

    if (id == raft->options.id)
        return CON_EAR_HEARD;
    if (!peer)
        return CON_EAR_SILENT;
    if (raft->quiet) /* the driver vouches for all of them */
        return CON_EAR_HEARD;
    if (!alive(raft, peer))
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
    const struct con__peer *peer = peer_const(raft, id);
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
        round_advance(raft);
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
        peer_install(peer);
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

/* ---- what the driver fetched ---- */

void con_raft_fetched(struct con_raft *raft, uint64_t member, const struct con_entry *entries,
                      size_t count)
{
    struct con__peer *peer = con__peer_of(raft, member);

    if (raft->role != CON_LEADER || !peer || !peer->fetching)
        return;
    peer->fetching = false;
    if (count == 0)
        peer->fetch_after = raft->now + raft->options.heartbeat_ns;
    if (peer->mode == CON_INSTALL || count == 0 || entries[0].index != peer->next)
        return;
    for (size_t i = 0; i < count; i++)
        if (entries[i].term != con__log_term(&raft->log, entries[i].index))
            return; /* read before this leadership, and replaced since */
    peer->fetched = entries;
    peer->fetched_count = count;
}

void con_raft_fetched_chunk(struct con_raft *raft, uint64_t member, uint64_t index, uint64_t term,
                            const struct con_config *config, uint64_t offset, uint64_t total,
                            struct base_bytes data)
{
    struct con__peer *peer = con__peer_of(raft, member);

    if (raft->role != CON_LEADER || !peer || !peer->fetching)
        return;
    peer->fetching = false;
    if (peer->mode != CON_INSTALL || offset != peer->snapshot_offset ||
        (peer->snapshot_index != 0 && peer->snapshot_index != index))
        return;
    peer->snapshot_index = index;
    peer->snapshot_term = term;
    peer->snapshot_config = config;
    peer->snapshot_total = peer->witness ? 0 : total;
    peer->chunk = peer->witness ? BASE_BYTES_EMPTY : data;
    peer->chunk_here = true;
}

void con_raft_fetch_failed(struct con_raft *raft, uint64_t member)
{
    struct con__peer *peer = con__peer_of(raft, member);

    if (raft->role != CON_LEADER || !peer || !peer->fetching)
        return;
    peer->fetching = false;
    peer->fetch_after = raft->now + raft->options.heartbeat_ns;
    if (peer->mode == CON_INSTALL)
        peer_install(peer);
}

/* ---- what is to be said ---- */

/* A silent follower is only knocked at. */
static bool probe_only(const struct con_raft *raft, const struct con__peer *peer)
{
    return peer->mode == CON_PROBE && !alive(raft, peer);
}

enum action { NOTHING, ASK, SEND, SEND_FETCHED, FETCH, SEND_CHUNK, FETCH_CHUNK };

/* What can be done for a follower now. */
static enum action peer_action(const struct con_raft *raft, const struct con__peer *peer)
{
    const struct con__log *log = &raft->log;
    bool may_fetch = !peer->fetching && raft->now >= peer->fetch_after && alive(raft, peer);

    if (raft->witness_leads && (peer->mode == CON_INSTALL || peer->next <= log->offset))
        return NOTHING; /* it has no state to give */
    if (peer->mode == CON_INSTALL || peer->next <= log->offset) {
        if (peer->mode == CON_INSTALL && peer->chunk_here)
            return SEND_CHUNK;
        return (peer->mode == CON_INSTALL && peer->chunk_sent) || !may_fetch ? NOTHING
                                                                             : FETCH_CHUNK;
    }
    if (peer->mode == CON_PROBE && peer->probe_sent)
        return NOTHING;
    if (peer->mode == CON_REPLICATE && peer->ask)
        return ASK;
    if (peer->mode == CON_REPLICATE &&
        (peer->next > log->last || peer->inflight_count >= raft->options.inflight_messages_max))
        return NOTHING;
    if (peer->next >= log->memory_first || probe_only(raft, peer))
        return SEND;
    if (peer->fetched_count > 0)
        return SEND_FETCHED;
    return may_fetch ? FETCH : NOTHING;
}

static struct con_message *say_out(struct con_raft *raft, enum con_message_kind kind, uint64_t to)
{
    struct con_message *message = con__message_add(&raft->now_out);

    message->kind = kind;
    message->from = raft->options.id;
    message->to = to;
    message->term = raft->term;
    return message;
}

static void send_entries(struct con_raft *raft, struct con__peer *peer,
                         const struct con_entry *entries, size_t count)
{
    struct con_message *message = say_out(raft, CON_APPEND, peer->id);
    size_t bytes = 0;

    message->index = peer->next - 1;
    message->log_term = con__log_term(&raft->log, message->index);
    message->commit = raft->commit;
    message->held = peer->witness ? held_by_all(raft) : 0;
    message->entries = entries;
    while (message->entry_count < count) {
        bytes += entries[message->entry_count].data.len + 32;
        if (message->entry_count > 0 && bytes > raft->options.message_bytes_max)
            break;
        message->entry_count++;
    }
    peer->fetched_count = 0;
    if (peer->mode == CON_PROBE) {
        peer->probe_sent = true;
        return;
    }
    peer->next += message->entry_count;
    peer->inflight[(peer->inflight_first + peer->inflight_count++) % CON_INFLIGHT_MAX] =
        peer->next - 1;
}

/* An empty append: its answer says again how far the follower is, durably. */
static void send_question(struct con_raft *raft, struct con__peer *peer)
{
    struct con_message *message = say_out(raft, CON_APPEND, peer->id);

    message->index = peer->next - 1;
    message->log_term = con__log_term(&raft->log, message->index);
    message->commit = raft->commit;
    message->held = peer->witness ? held_by_all(raft) : 0;
    peer->ask = false;
}

static void send_chunk(struct con_raft *raft, struct con__peer *peer)
{
    struct con_message *message = say_out(raft, CON_SNAPSHOT, peer->id);

    message->index = peer->snapshot_index;
    message->log_term = peer->snapshot_term;
    message->config = peer->snapshot_config;
    message->offset = peer->snapshot_offset;
    message->total = peer->snapshot_total;
    message->data = peer->chunk;
    peer->chunk_here = false;
    peer->chunk_sent = true;
    peer->chunk_sent_at = raft->now;
}

static void fetch(struct con_raft *raft, struct con__peer *peer, bool snapshot,
                  struct con_raft_output *out)
{
    if (snapshot && peer->mode != CON_INSTALL)
        peer_install(peer);
    peer->fetching = true;
    raft->fetches[out->fetch_count++] = (struct con_raft_fetch){
        .member = peer->id,
        .snapshot = snapshot,
        .first = snapshot ? peer->snapshot_index : peer->next,
        .offset = peer->snapshot_offset,
        .bytes_max = snapshot ? CON_CHUNK_BYTES : raft->options.message_bytes_max,
    };
    out->fetches = raft->fetches;
}

static void peer_output(struct con_raft *raft, struct con__peer *peer, struct con_raft_output *out)
{
    const struct con__log *log = &raft->log;

    for (;;) {
        switch (peer_action(raft, peer)) {
        case NOTHING:
            return;
        case ASK:
            send_question(raft, peer);
            break;
        case SEND:
            if (peer->next > log->last || probe_only(raft, peer))
                send_entries(raft, peer, NULL, 0);
            else
                send_entries(raft, peer, con__log_entry(log, peer->next),
                             (size_t)(log->last + 1 - peer->next));
            break;
        case SEND_FETCHED:
            send_entries(raft, peer, peer->fetched, peer->fetched_count);
            break;
        case SEND_CHUNK:
            send_chunk(raft, peer);
            return;
        case FETCH:
            fetch(raft, peer, false, out);
            return;
        case FETCH_CHUNK:
            fetch(raft, peer, true, out);
            return;
        }
    }
}

static void heartbeat(struct con_raft *raft, const struct con__peer *peer)
{
    struct con_message *message = say_out(raft, CON_HEARTBEAT, peer->id);

    message->commit = raft->commit < peer->match ? raft->commit : peer->match;
    message->index = peer->mode == CON_REPLICATE ? peer->next - 1 : 0;
    message->round = raft->round;
    message->quiet = con__quiet_offer(raft);
}

/* Reads that came since share a round, which begins when the one before is done. */
static bool round_due(const struct con_raft *raft)
{
    return raft->read_count > 0 && raft->reads[raft->read_count - 1].round == 0 &&
           raft->round_done == raft->round;
}

static void round_begin(struct con_raft *raft)
{
    raft->round++;
    for (size_t i = raft->read_count; i > 0 && raft->reads[i - 1].round == 0; i--)
        raft->reads[i - 1].round = raft->round;
    round_advance(raft);
}

static const struct con__peer *transfer_peer(const struct con_raft *raft)
{
    const struct con__peer *peer =
        raft->transfer && !raft->transfer_sent ? peer_const(raft, raft->transfer) : NULL;

    return peer && peer->match == raft->log.last ? peer : NULL;
}

void con__lead_output(struct con_raft *raft, struct con_raft_output *out)
{
    bool round = round_due(raft);

    if (round)
        round_begin(raft);
    for (size_t i = 0; i < raft->peer_count; i++) {
        peer_output(raft, &raft->peers[i], out);
        /* What the driver brought and had no use now is gone after this. */
        raft->peers[i].fetched_count = 0;
        raft->peers[i].chunk_here = false;
    }
    for (size_t i = 0; i < raft->peer_count && (raft->heartbeat_due || round); i++)
        heartbeat(raft, &raft->peers[i]);
    raft->heartbeat_due = false;
    if (transfer_peer(raft)) {
        say_out(raft, CON_TIMEOUT_NOW, raft->transfer);
        raft->transfer_sent = true;
    }
}

bool con__lead_idle(const struct con_raft *raft)
{
    if (raft->heartbeat_due || round_due(raft) || transfer_peer(raft))
        return false;
    for (size_t i = 0; i < raft->peer_count; i++)
        if (peer_action(raft, &raft->peers[i]) != NOTHING)
            return false;
    return true;
}
