/* raft.c: a member's life: made from what its store held, fed with time and messages, asked for
 * what to do. Roles are in raft_elect.c (standing and voting), raft_lead.c and raft_send.c
 * (replicating), raft_follow.c (being replicated to), raft_member.c (changing the group);
 * raft_quiet.c stops its timers; raft_log.c is the log.
 *
 * The order of things that safety rests on:
 * - what is said in a term is said after term and vote are durable, or by someone whom only a
 *   durable vote can have made leader;
 * - an entry is acknowledged after it is durable (replies go into after_queue, in the order of the
 *   writes);
 * - an entry is applied after it is committed and durable here, and never while a snapshot is being
 *   installed. */
#include <stdio.h>
#include <stdlib.h>

#include "raft_int.h"

enum {
    MESSAGE_BYTES = 256 << 10,
    INFLIGHT = 32,
    UNCOMMITTED_BYTES = 32 << 20,
    MEMORY_BYTES = 4 << 20,
};

void con__invariant_broken(int number, const char *text, const char *file, int line)
{
    fprintf(stderr, "%s:%d: consensus invariant %d is broken: %s\n", file, line, number, text);
    abort();
}

static uint64_t random_next(struct con_raft *raft) /* splitmix64 */
{
    uint64_t z = raft->random += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

struct con_raft *con_raft_new(const struct con_raft_options *options,
                              const struct con_raft_start *start, int64_t now)
{
    struct con_raft *raft = calloc(1, sizeof(*raft));
    struct con_raft_options *o;

    if (!raft)
        abort();
    raft->options = *options;
    o = &raft->options;
    BASE_ASSERT(o->id != 0 && o->heartbeat_ns > 0 && o->heartbeat_ns * 3 < o->election_ns);
    if (o->message_bytes_max == 0)
        o->message_bytes_max = MESSAGE_BYTES;
    if (o->inflight_messages_max == 0)
        o->inflight_messages_max = INFLIGHT;
    if (o->inflight_messages_max > CON_INFLIGHT_MAX)
        o->inflight_messages_max = CON_INFLIGHT_MAX;
    if (o->uncommitted_bytes_max == 0)
        o->uncommitted_bytes_max = UNCOMMITTED_BYTES;
    if (o->memory_bytes_max == 0)
        o->memory_bytes_max = MEMORY_BYTES;
    raft->random = o->seed ^ o->id;
    raft->now = raft->ticked = now;
    raft->quiet_epoch = 1;
    raft->term = raft->durable_term = start->term;
    raft->vote = start->vote;
    raft->commit = raft->applied = start->snapshot_index;
    con__log_init(&raft->log, start->snapshot_index, start->snapshot_term, &start->config);
    con_raft_load_vote(raft, start->snapshot_term, 0);
    con__election_reset(raft);
    return raft;
}

static void messages_free(struct con__messages *queue)
{
    free(queue->at);
}

void con_raft_free(struct con_raft *raft)
{
    if (!raft)
        return;
    con__log_free(&raft->log);
    free(raft->peers);
    free(raft->reads);
    messages_free(&raft->now_queue);
    messages_free(&raft->after_queue);
    messages_free(&raft->now_out);
    messages_free(&raft->after_out);
    free(raft->answers);
    free(raft->answers_out);
    base_buf_free(&raft->chunk_data);
    free(raft);
}

void con_raft_load_vote(struct con_raft *raft, uint64_t term, uint64_t vote)
{
    if (term < raft->term || (term == raft->term && vote == 0))
        return;
    raft->term = raft->durable_term = term;
    raft->vote = vote;
}

struct base_status con_raft_load(struct con_raft *raft, const struct con_entry *entry)
{
    struct con__log *log = &raft->log;

    if (entry->index <= log->offset) {
        /* Covered by the snapshot; what was written before it at later indexes it replaced. */
        if (log->last > log->offset)
            con__log_truncate(log, log->offset + 1);
        return BASE_STATUS_OK;
    }
    if (entry->index > log->last + 1)
        return base_status_make(BASE_DATA_LOSS, "the log goes from entry %llu to entry %llu",
                                (unsigned long long)log->last, (unsigned long long)entry->index);
    if (entry->index <= log->last)
        con__log_truncate(log, entry->index);
    if (entry->term < con__log_last_term(log) || entry->term > CON_NUMBER_MAX)
        return base_status_make(BASE_DATA_LOSS, "entry %llu has term %llu, the one before it %llu",
                                (unsigned long long)entry->index, (unsigned long long)entry->term,
                                (unsigned long long)con__log_last_term(log));
    if (!con__log_append(log, entry))
        return base_status_make(BASE_DATA_LOSS, "entry %llu: not a configuration",
                                (unsigned long long)entry->index);
    log->written = log->flight = log->durable = log->last;
    con_raft_load_vote(raft, entry->term, 0);
    return BASE_STATUS_OK;
}

/* ---- small things that all parts use ---- */

struct con_message *con__message_add(struct con__messages *queue)
{
    if (queue->count == queue->cap) {
        queue->cap = queue->cap ? queue->cap * 2 : 8;
        queue->at = realloc(queue->at, queue->cap * sizeof(*queue->at));
        if (!queue->at)
            abort();
    }
    memset(&queue->at[queue->count], 0, sizeof(*queue->at));
    return &queue->at[queue->count++];
}

struct con_message *con__say(struct con_raft *raft, enum con_message_kind kind, uint64_t to,
                             bool after_write)
{
    struct con_message *message =
        con__message_add(after_write ? &raft->after_queue : &raft->now_queue);

    message->kind = kind;
    message->from = raft->options.id;
    message->to = to;
    message->term = raft->term;
    return message;
}

void con__answer(struct con_raft *raft, uint64_t id, uint64_t index)
{
    if (raft->answer_count == raft->answer_cap) {
        raft->answer_cap = raft->answer_cap ? raft->answer_cap * 2 : 16;
        raft->answers = realloc(raft->answers, raft->answer_cap * sizeof(*raft->answers));
        if (!raft->answers)
            abort();
    }
    raft->answers[raft->answer_count++] = (struct con_raft_read){ id, index };
}

void con__election_reset(struct con_raft *raft)
{
    const struct con_member *self = con__self(raft);

    raft->election_at = raft->now + raft->options.election_ns +
                        (int64_t)(random_next(raft) % (uint64_t)raft->options.election_ns);
    if (self && self->witness) /* the others first */
        raft->election_at += 2 * raft->options.election_ns;
}

/* What was to be said in an older term is said no more; it could only be refused. */
static void queue_drop_old(struct con__messages *queue, uint64_t term)
{
    size_t kept = 0;

    for (size_t i = 0; i < queue->count; i++)
        if (queue->at[i].term >= term)
            queue->at[kept++] = queue->at[i];
    queue->count = kept;
}

void con__follow(struct con_raft *raft, uint64_t term, uint64_t leader)
{
    if (raft->role == CON_LEADER)
        con__lead_end(raft);
    if (raft->role != CON_FOLLOWER || raft->term != term || raft->leader != leader)
        raft->role_changed = true;
    raft->role = CON_FOLLOWER;
    raft->leader = leader;
    if (term > raft->term) {
        raft->term = term;
        raft->vote = 0;
        raft->vote_dirty = true;
        queue_drop_old(&raft->after_queue, term);
    }
    con__election_reset(raft);
}

/* Highest first; there are few. */
static void value_insert(uint64_t *values, size_t count, uint64_t value)
{
    size_t at = count;

    for (; at > 0 && values[at - 1] < value; at--)
        values[at] = values[at - 1];
    values[at] = value;
}

static uint64_t majority_of(const struct con_config *config, bool old,
                            uint64_t (*value)(const struct con_raft *raft, uint64_t id),
                            const struct con_raft *raft)
{
    uint64_t values[CON_MEMBERS_MAX];
    size_t count = 0;

    for (uint32_t i = 0; i < config->count; i++)
        if (old ? config->members[i].voter_old : config->members[i].voter)
            value_insert(values, count++, value(raft, config->members[i].id));
    return count > 0 ? values[count / 2] : 0;
}

uint64_t con__quorum(const struct con_config *config,
                     uint64_t (*value)(const struct con_raft *raft, uint64_t id),
                     const struct con_raft *raft)
{
    uint64_t both = majority_of(config, false, value, raft);

    if (config->joint) {
        uint64_t old = majority_of(config, true, value, raft);

        if (old < both)
            both = old;
    }
    return both;
}

/* ---- inputs ---- */

static void time_set(struct con_raft *raft, int64_t now)
{
    if (now > raft->now)
        raft->now = now;
}

void con_raft_tick(struct con_raft *raft, int64_t now)
{
    time_set(raft, now);
    if (raft->now - raft->ticked > raft->options.election_ns / 2) {
        /* This process was held up. What came meanwhile is heard before anyone is taken for
         * silent. */
        raft->grace_until = raft->now + raft->options.heartbeat_ns;
    }
    raft->ticked = raft->now;
    if (raft->quiet)
        return;
    if (raft->role == CON_LEADER) {
        con__lead_tick(raft);
        return;
    }
    if (raft->now < raft->election_at || raft->now < raft->grace_until) {
        if (raft->role != CON_FOLLOWER && raft->now >= raft->ask_at)
            con__ask_again(raft);
        return;
    }
    if (raft->role == CON_CANDIDATE && raft->durable_term < raft->term)
        con__election_reset(raft); /* nobody was asked yet: a slow disk */
    else if (con__may_stand(raft))
        con__campaign_pre(raft);
    else {
        if (raft->leader) {
            raft->leader = 0;
            raft->role_changed = true;
        }
        con__election_reset(raft);
    }
}

int64_t con_raft_deadline(const struct con_raft *raft)
{
    int64_t at;

    if (raft->quiet)
        return CON_TIME_MAX;
    if (raft->role == CON_LEADER)
        return raft->heartbeat_at;
    at = raft->election_at > raft->grace_until ? raft->election_at : raft->grace_until;
    return raft->role != CON_FOLLOWER && raft->ask_at < at ? raft->ask_at : at;
}

static bool is_reply(enum con_message_kind kind)
{
    return kind == CON_PRE_VOTE_REPLY || kind == CON_VOTE_REPLY || kind == CON_APPEND_REPLY ||
           kind == CON_HEARTBEAT_REPLY || kind == CON_SNAPSHOT_REPLY;
}

static bool is_of_leader(enum con_message_kind kind)
{
    return kind == CON_APPEND || kind == CON_HEARTBEAT || kind == CON_SNAPSHOT ||
           kind == CON_TIMEOUT_NOW;
}

/* Whether every field is one that a member could have sent. */
static bool sound(const struct con_raft *raft, const struct con_message *m)
{
    uint64_t term = m->log_term;

    if (m->to != raft->options.id || m->from == 0 || m->from == m->to || m->term == 0 ||
        m->term > CON_NUMBER_MAX || m->index > CON_NUMBER_MAX || m->commit > CON_NUMBER_MAX ||
        m->hint_index > CON_NUMBER_MAX || m->round > CON_NUMBER_MAX || m->offset > CON_NUMBER_MAX ||
        m->total > CON_NUMBER_MAX || m->log_term > CON_NUMBER_MAX || m->quiet > CON_NUMBER_MAX ||
        m->held > CON_NUMBER_MAX)
        return false;
    for (size_t i = 0; i < m->entry_count; i++) {
        const struct con_entry *entry = &m->entries[i];

        if (m->kind != CON_APPEND || entry->index != m->index + 1 + i || entry->term < term ||
            entry->term > m->term || entry->term == 0)
            return false;
        if (entry->kind == CON_ENTRY_CONFIG) {
            struct con_config config;

            if (base_status_drop(con_config_decode(entry->data, &config)) != BASE_OK)
                return false;
        }
        term = entry->term;
    }
    if (m->kind == CON_APPEND && m->log_term > m->term)
        return false;
    if (m->kind == CON_SNAPSHOT &&
        (!m->config || m->index == 0 || m->log_term == 0 || m->log_term > m->term ||
         m->offset > m->total || m->data.len > m->total - m->offset ||
         (m->data.len == 0 && m->total > 0)))
        return false;
    return m->kind >= CON_PRE_VOTE && m->kind <= CON_TIMEOUT_NOW;
}

/* A leader that is heard is not voted away: neither term nor vote changes (sections 4.2.3, 9.6).
 * One that asks for the term after its own leads no more: it stood for that before it led. */
static bool leader_is_heard(const struct con_raft *raft, const struct con_message *message)
{
    if (raft->role != CON_LEADER && message->from == raft->leader && message->term > raft->term)
        return false;
    return raft->role == CON_LEADER ||
           (raft->leader != 0 && raft->now - raft->leader_heard < raft->options.election_ns);
}

/* The sender's term is over. It is told, so that it follows. */
static void stale_receive(struct con_raft *raft, const struct con_message *message)
{
    if (message->kind == CON_PRE_VOTE)
        con__say(raft, CON_PRE_VOTE_REPLY, message->from, false)->reject = true;
    else if (is_of_leader(message->kind) && message->kind != CON_TIMEOUT_NOW)
        con__say(raft, CON_APPEND_REPLY, message->from, false)->reject = true;
}

void con_raft_receive(struct con_raft *raft, const struct con_message *message, int64_t now)
{
    time_set(raft, now);
    if (!sound(raft, message))
        return;
    con__quiet_hear(raft, message);
    if (message->kind == CON_PRE_VOTE || message->kind == CON_VOTE) {
        if (message->term < raft->term)
            stale_receive(raft, message);
        else if (message->transfer || !leader_is_heard(raft, message))
            con__vote_receive(raft, message);
        return;
    }
    if (message->kind == CON_PRE_VOTE_REPLY) { /* a grant names the term asked for */
        con__vote_reply_receive(raft, message);
        return;
    }
    if (message->term < raft->term) {
        stale_receive(raft, message);
        return;
    }
    if (message->term > raft->term)
        con__follow(raft, message->term, is_of_leader(message->kind) ? message->from : 0);
    if (is_reply(message->kind)) {
        if (message->kind == CON_VOTE_REPLY)
            con__vote_reply_receive(raft, message);
        else if (raft->role == CON_LEADER)
            con__reply_receive(raft, message);
        return;
    }
    if (raft->role == CON_LEADER || (raft->leader && raft->leader != message->from))
        return; /* one leader a term: this is nobody's message */
    if (raft->role != CON_FOLLOWER || raft->leader == 0)
        con__follow(raft, message->term, message->from);
    raft->leader_heard = raft->now;
    con__election_reset(raft);
    if (message->kind == CON_APPEND)
        con__append_receive(raft, message);
    else if (message->kind == CON_HEARTBEAT)
        con__heartbeat_receive(raft, message);
    else if (message->kind == CON_SNAPSHOT)
        con__snapshot_receive(raft, message);
    else if (con__may_stand(raft))
        con__campaign(raft, true);
}

void con_raft_persisted(struct con_raft *raft, uint64_t term, uint64_t index)
{
    (void)term;
    (void)index;
    if (!raft->flight_here)
        return;
    raft->flight_here = false;
    raft->durable_term = raft->flight_term;
    if (raft->log.flight > raft->log.durable)
        raft->log.durable = raft->log.flight;
    if (raft->role == CON_LEADER)
        con__commit_advance(raft);
    else if (raft->role == CON_CANDIDATE && raft->durable_term == raft->term) {
        con__election_reset(raft); /* only now the others are asked */
        con__won_maybe(raft);
    }
}

enum con_refusal con_raft_propose(struct con_raft *raft, struct base_bytes command, uint64_t *index,
                                  uint64_t *term)
{
    struct con_entry entry = { raft->log.last + 1, raft->term, CON_ENTRY_COMMAND, command };

    if (raft->role != CON_LEADER)
        return CON_NOT_LEADER;
    if (raft->transfer || raft->witness_leads || con__leaving(raft))
        return CON_TRANSFERRING;
    if (raft->uncommitted_bytes > 0 &&
        raft->uncommitted_bytes + command.len > raft->options.uncommitted_bytes_max)
        return CON_FULL;
    con__lead_append(raft, entry.kind, command);
    *index = entry.index;
    *term = entry.term;
    return CON_TAKEN;
}

void con_raft_read(struct con_raft *raft, uint64_t id)
{
    if (raft->role != CON_LEADER || raft->witness_leads || raft->read_count == CON_READS_MAX) {
        con__answer(raft, id, 0);
        return;
    }
    con__wake(raft, raft->now);
    if (raft->read_count == raft->read_cap) {
        raft->read_cap = raft->read_cap ? raft->read_cap * 2 : 16;
        raft->reads = realloc(raft->reads, raft->read_cap * sizeof(*raft->reads));
        if (!raft->reads)
            abort();
    }
    /* What was committed by earlier leaders is known when this one's first entry is (6.4). */
    raft->reads[raft->read_count++] =
        (struct con__read){ id, raft->commit > raft->term_start ? raft->commit : raft->term_start,
                            0 };
}

void con_raft_campaign(struct con_raft *raft)
{
    if (raft->role == CON_LEADER || !con__may_stand(raft))
        return;
    con__wake(raft, raft->now);
    con__campaign(raft, false);
}

void con_raft_compacted(struct con_raft *raft, uint64_t index)
{
    if (index > raft->applied)
        index = raft->applied;
    if (index > raft->log.offset)
        con__log_compact(&raft->log, index);
}

/* ---- how it stands ---- */

struct con_raft_status con_raft_status(const struct con_raft *raft)
{
    return (struct con_raft_status){
        .role = raft->role,
        .id = raft->options.id,
        .term = raft->term,
        .leader = raft->role == CON_LEADER ? raft->options.id : raft->leader,
        .commit = raft->commit,
        .applied = raft->applied,
        .first = raft->log.offset + 1,
        .last = raft->log.last,
        .persisted = raft->log.durable,
        .ready = raft->role == CON_LEADER && raft->applied >= raft->term_start,
        .config = con__log_config(&raft->log),
        .transfer = raft->role == CON_LEADER ? raft->transfer : 0,
        .held = raft->held,
        .quiet = raft->quiet,
    };
}

const struct con_config *con_raft_config_at(const struct con_raft *raft, uint64_t index)
{
    size_t i = raft->log.config_count - 1;

    while (i > 0 && raft->log.configs[i].index > index)
        i--;
    return &raft->log.configs[i];
}

uint64_t con_raft_term_at(const struct con_raft *raft, uint64_t index)
{
    return con__log_term(&raft->log, index);
}

bool con_raft_progress(const struct con_raft *raft, uint64_t member, uint64_t *match,
                       int64_t *heard)
{
    if (raft->role != CON_LEADER)
        return false;
    for (size_t i = 0; i < raft->peer_count; i++) {
        if (raft->peers[i].id != member)
            continue;
        *match = raft->peers[i].match;
        *heard = raft->peers[i].heard;
        return true;
    }
    return false;
}
