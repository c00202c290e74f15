/* raft_send.c: what a leader says (Raft 2014: sections 3.5, 6.4, 10.2, chapter 5).
 *
 * Messages with entries are made when the driver takes an output, not when something happens: all
 * that was proposed since the last time goes out in one. To each follower they are sent ahead of
 * its answers, up to a number of messages; one whose log does not match is probed first, one that
 * needs what is compacted away gets the snapshot, chunk by chunk. What is no longer in memory the
 * driver fetches. */
#include "raft_int.h"

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
        con__peer_install(peer);
}

/* ---- what is to be said ---- */

/* A silent follower is only knocked at. */
static bool probe_only(const struct con_raft *raft, const struct con__peer *peer)
{
    return peer->mode == CON_PROBE && !con__peer_alive(raft, peer);
}

enum action { NOTHING, ASK, SEND, SEND_FETCHED, FETCH, SEND_CHUNK, FETCH_CHUNK };

/* What can be done for a follower now. */
static enum action peer_action(const struct con_raft *raft, const struct con__peer *peer)
{
    const struct con__log *log = &raft->log;
    bool may_fetch =
        !peer->fetching && raft->now >= peer->fetch_after && con__peer_alive(raft, peer);

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
    message->held = peer->witness ? con__held_by_all(raft) : 0;
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
    message->held = peer->witness ? con__held_by_all(raft) : 0;
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
        con__peer_install(peer);
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
    con__round_advance(raft);
}

static const struct con__peer *transfer_peer(const struct con_raft *raft)
{
    const struct con__peer *peer =
        raft->transfer && !raft->transfer_sent ? con__peer_const(raft, raft->transfer) : NULL;

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
