/* raft_output.c: what a driver is given to do: to write, to send, to apply, to answer. Everything
 * handed out is borrowed from the member until the next call. */
#include "raft_int.h"

static void swap_messages(struct con__messages *a, struct con__messages *b)
{
    struct con__messages t = *a;

    *a = *b;
    *b = t;
}

static void output_writes(struct con_raft *raft, struct con_raft_output *out)
{
    struct con__log *log = &raft->log;

    out->save_vote = raft->vote_dirty;
    out->term = raft->term;
    out->vote = raft->vote;
    if (log->written < log->last) {
        /* What is not written yet is in memory, or has been replaced by a snapshot. */
        CON_INVARIANT(10, log->memory_first <= log->written + 1,
                      "what is not durable or not applied is in memory");
        out->entries = con__log_entry(log, log->written + 1);
        out->entry_count = (size_t)(log->last - log->written);
        log->written = log->last;
    }
    out->persisted_term = raft->term;
    out->persisted_index = log->written;
    if (out->save_vote || out->entry_count > 0) {
        raft->vote_dirty = false;
        raft->flight_here = true;
        raft->flight_term = raft->term;
        log->flight = log->written;
    }
    swap_messages(&raft->after_out, &raft->after_queue);
    raft->after_queue.count = 0;
    out->after = raft->after_out.at;
    out->after_count = raft->after_out.count;
    if (raft->chunk_waiting && raft->receiving.index <= raft->commit)
        raft->chunk_waiting = raft->receiving.active = false; /* the entries came first */
    if (raft->chunk_waiting && !raft->flight_here) {
        raft->chunk_waiting = false;
        raft->chunk_busy = true;
        out->chunk = (struct con_raft_chunk){
            .here = true,
            .from = raft->receiving.from,
            .index = raft->receiving.index,
            .term = raft->receiving.term,
            .offset = raft->receiving.next,
            .total = raft->receiving.total,
            .data = base_buf_bytes(&raft->chunk_data),
            .config = &raft->receiving.config,
        };
    }
}

static uint64_t applicable(const struct con_raft *raft)
{
    return raft->chunk_busy                   ? raft->applied
           : raft->commit < raft->log.durable ? raft->commit
                                              : raft->log.durable;
}

static void output_apply(struct con_raft *raft, struct con_raft_output *out)
{
    uint64_t to = applicable(raft);

    if (to <= raft->applied)
        return;
    if (to - raft->applied > CON_APPLY_MAX)
        to = raft->applied + CON_APPLY_MAX;
    CON_INVARIANT(10, raft->log.memory_first <= raft->applied + 1,
                  "what is not durable or not applied is in memory");
    CON_INVARIANT(5, to <= raft->commit && to <= raft->log.durable,
                  "what is applied is committed, and durable here");
    out->apply = con__log_entry(&raft->log, raft->applied + 1);
    out->apply_count = (size_t)(to - raft->applied);
    raft->applied = to;
}

static void output_reads(struct con_raft *raft, struct con_raft_output *out)
{
    size_t kept = 0;

    for (size_t i = 0; i < raft->read_count; i++) {
        struct con__read *read = &raft->reads[i];

        if (read->round != 0 && read->round <= raft->round_done && read->index <= raft->applied)
            con__answer(raft, read->id, read->index);
        else
            raft->reads[kept++] = *read;
    }
    raft->read_count = kept;
    if (raft->answer_count > 0) {
        struct con_raft_read *t = raft->answers_out;
        size_t cap = raft->answers_out_cap;

        raft->answers_out = raft->answers;
        raft->answers_out_cap = raft->answer_cap;
        out->reads = raft->answers_out;
        out->read_count = raft->answer_count;
        raft->answers = t;
        raft->answer_cap = cap;
        raft->answer_count = 0;
    }
}

void con_raft_output(struct con_raft *raft, bool writing, struct con_raft_output *out)
{
    struct con__log *log = &raft->log;
    uint64_t kept = raft->applied < log->written ? raft->applied : log->written;

    memset(out, 0, sizeof(*out));
    CON_INVARIANT(6, raft->applied <= raft->commit && raft->commit <= log->last,
                  "applied, committed, last: in this order");
    /* Nothing handed out earlier is borrowed any more. */
    con__log_trim(log, kept, raft->options.memory_bytes_max);
    raft->now_out.count = raft->after_out.count = 0;
    if (raft->role == CON_LEADER)
        con__lead_output(raft, out);
    if (!writing)
        output_writes(raft, out);
    output_apply(raft, out);
    output_reads(raft, out);
    for (size_t i = 0; i < raft->now_queue.count; i++)
        *con__message_add(&raft->now_out) = raft->now_queue.at[i];
    raft->now_queue.count = 0;
    out->now = raft->now_out.at;
    out->now_count = raft->now_out.count;
    out->role_changed = raft->role_changed;
    raft->role_changed = false;
}

bool con_raft_idle(const struct con_raft *raft, bool writing)
{
    /* Reads are in order of round and index. */
    if (raft->read_count > 0 && raft->reads[0].round != 0 &&
        raft->reads[0].round <= raft->round_done && raft->reads[0].index <= raft->applied)
        return false;
    if (raft->role_changed || raft->now_queue.count > 0 || raft->answer_count > 0 ||
        applicable(raft) > raft->applied)
        return false;
    if (!writing && (raft->vote_dirty || raft->after_queue.count > 0 ||
                     raft->log.written < raft->log.last || raft->chunk_waiting))
        return false;
    return raft->role != CON_LEADER || con__lead_idle(raft);
}
