/* raft_follow.c: being replicated to (Raft 2014: sections 3.5, 3.6.2, chapter 5). */
#include <stdlib.h>

#include "raft_int.h"

static void commit_to(struct con_raft *raft, uint64_t index)
{
    if (index > raft->log.last)
        index = raft->log.last;
    if (index > raft->commit)
        raft->commit = index;
}

/* Acknowledges all up to `index` once it is durable. The last word to the same leader counts. */
static void acknowledge(struct con_raft *raft, uint64_t to, uint64_t index)
{
    struct con__messages *queue = &raft->after_queue;
    struct con_message *reply;

    for (size_t i = 0; i < queue->count; i++) {
        reply = &queue->at[i];
        if (reply->kind == CON_APPEND_REPLY && !reply->reject && reply->to == to &&
            reply->term == raft->term) {
            if (reply->index < index)
                reply->index = index;
            return;
        }
    }
    con__say(raft, CON_APPEND_REPLY, to, true)->index = index;
}

/* Where our log and the leader's may still agree: it goes on from there (section 3.5, "the
 * protocol can be optimized"). */
static void refuse(struct con_raft *raft, const struct con_message *message)
{
    struct con_message *reply = con__say(raft, CON_APPEND_REPLY, message->from, false);

    reply->reject = true;
    reply->index = message->index;
    reply->hint_index = con__log_before_term(&raft->log, message->index, message->log_term);
    reply->hint_term = con__log_term(&raft->log, reply->hint_index);
}

void con__append_receive(struct con_raft *raft, const struct con_message *message)
{
    struct con__log *log = &raft->log;
    uint64_t last = message->index + message->entry_count;
    size_t i = 0;

    if (raft->held < message->held)
        raft->held = message->held; /* of what is committed: it stays so, whoever leads */
    if (raft->chunk_busy)
        return; /* a snapshot is being put in the place of this log */
    if (message->index < raft->commit) {
        /* From before a restart, or late. What is committed is the same everywhere. */
        acknowledge(raft, message->from, raft->commit < log->last ? raft->commit : log->last);
        return;
    }
    if (con__log_term(log, message->index) != message->log_term || message->index > log->last) {
        refuse(raft, message);
        return;
    }
    while (i < message->entry_count &&
           con__log_term(log, message->entries[i].index) == message->entries[i].term)
        i++;
    if (i < message->entry_count && message->entries[i].index <= log->last) {
        CON_INVARIANT(2, raft->role == CON_FOLLOWER, "a leader only appends to its log");
        CON_INVARIANT(3, message->entries[i].index > raft->commit,
                      "what is committed is never removed");
        con__log_truncate(log, message->entries[i].index);
    }
    for (; i < message->entry_count; i++)
        if (!con__log_append(log, &message->entries[i]))
            return; /* not reached: configurations were looked at before */
    commit_to(raft, message->commit < last ? message->commit : last);
    acknowledge(raft, message->from, last);
}

void con__heartbeat_receive(struct con_raft *raft, const struct con_message *message)
{
    struct con_message *reply = con__say(raft, CON_HEARTBEAT_REPLY, message->from, false);

    /* The leader says what it has sent (index): less here means that messages were lost. */
    reply->round = message->round;
    reply->index = message->index;
    reply->reject = raft->log.last < message->index && !raft->chunk_busy;
    reply->hint_index = raft->log.last;
    commit_to(raft, message->commit);
    if (message->quiet)
        con__quiet_offered(raft, message, reply);
}

static void chunk_reply(struct con_raft *raft, uint64_t to, uint64_t index, uint64_t term,
                        uint64_t offset, uint64_t total, bool reject)
{
    /* A snapshot that is here already is here as entries, which may not be durable yet. */
    bool after = offset == total && !reject && raft->log.durable < index;
    struct con_message *reply = con__say(raft, CON_SNAPSHOT_REPLY, to, after);

    reply->index = index;
    reply->log_term = term;
    reply->offset = offset;
    reply->total = total;
    reply->reject = reject;
}

void con__snapshot_receive(struct con_raft *raft, const struct con_message *message)
{
    if (raft->chunk_busy || raft->chunk_waiting)
        return;
    if (message->index <= raft->commit) { /* all of it is here, and more */
        raft->receiving.active = false;
        chunk_reply(raft, message->from, message->index, message->log_term, message->total,
                    message->total, false);
        return;
    }
    if (message->offset == 0) {
        raft->receiving.active = true;
        raft->receiving.index = message->index;
        raft->receiving.term = message->log_term;
        raft->receiving.total = message->total;
        raft->receiving.next = 0;
        raft->receiving.config = *message->config;
    }
    if (!raft->receiving.active || raft->receiving.index != message->index ||
        raft->receiving.term != message->log_term || raft->receiving.total != message->total) {
        chunk_reply(raft, message->from, message->index, message->log_term, 0, message->total,
                    true);
        return;
    }
    if (raft->receiving.next != message->offset) { /* had already, or one was lost */
        chunk_reply(raft, message->from, message->index, message->log_term, raft->receiving.next,
                    message->total, false);
        return;
    }
    raft->receiving.from = message->from;
    base_buf_clear(&raft->chunk_data);
    base_buf_put_bytes(&raft->chunk_data, message->data);
    raft->chunk_waiting = true;
}

/* The snapshot is in the store and in the machine. */
static void installed(struct con_raft *raft)
{
    struct con__log *log = &raft->log;
    uint64_t index = raft->receiving.index, term = raft->receiving.term;

    CON_INVARIANT(9, index > raft->applied, "a snapshot installed is newer than what is applied");
    if (con__log_term(log, index) == term && index <= log->last) {
        if (log->written < index)
            log->written = log->flight = log->durable = index;
        con__log_compact(log, index);
        /* The store kept what follows only if it held the entry itself. */
        if (log->durable < index)
            log->durable = index;
    } else {
        con__log_reset(log, index, term, &raft->receiving.config);
    }
    raft->applied = index;
    if (raft->commit < index)
        raft->commit = index;
    raft->role_changed = true; /* the configuration may be another */
}

void con_raft_chunk_stored(struct con_raft *raft, bool stored)
{
    bool whole;

    if (!raft->chunk_busy)
        return;
    raft->chunk_busy = false;
    if (!stored) {
        raft->receiving.active = false;
        chunk_reply(raft, raft->receiving.from, raft->receiving.index, raft->receiving.term, 0,
                    raft->receiving.total, true);
        return;
    }
    raft->receiving.next += raft->chunk_data.len;
    whole = raft->receiving.next == raft->receiving.total;
    if (whole) {
        installed(raft);
        raft->receiving.active = false;
    }
    chunk_reply(raft, raft->receiving.from, raft->receiving.index, raft->receiving.term,
                raft->receiving.next, raft->receiving.total, false);
}
