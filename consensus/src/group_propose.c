/* group_propose.c: who waits for a member: proposers, readers, and those who wait for it to lead.
 *
 * Invariants
 * 1. A waiter is in its queue from before its fiber first waits until it is ended, once; its memory
 * is its fiber's stack, so whoever ends it touches it no more.
 * 2. Proposers are in order of index: the algorithm numbers them in the order they come.
 * 3. A proposer whose fiber was cancelled waits on for its deadline, as its command may be applied:
 * the expirer ends it then. */
#include "group_int.h"

#include <inttypes.h>

struct base_status con__group_not_leader(const struct con__group *group)
{
    if (base_failed(group->failure))
        return base_status_make(BASE_FAILED_PRECONDITION, "not the leader; the log has failed: %s",
                                base_status_text(&group->failure));
    return con__not_leader(con__group_leader(&group->base));
}

/* ---- proposers ---- */

struct con__waiter *con__waiter_take(struct con__group *group, uint64_t index, uint64_t term)
{
    struct con__waiter *waiter;

    while ((waiter = TAILQ_FIRST(&group->waiters)) && waiter->index <= index) {
        TAILQ_REMOVE(&group->waiters, waiter, entry);
        group->waiter_count--;
        if (waiter->index == index && waiter->term == term)
            return waiter;
        con__waiter_end(group, waiter,
                        base_status_make(BASE_UNAVAILABLE,
                                         "another leader's entry took its place; outcome unknown"));
    }
    return NULL;
}

void con__waiter_end(struct con__group *group, struct con__waiter *waiter,
                     struct base_status status)
{
    if (waiter->cancelled)
        group->cancelled_count--;
    if (!base_failed(status))
        ch_observe(group->metrics.commit_ns, (uint64_t)(ch_now(group->env) - waiter->begin));
    group->metrics.waiting->value = (int64_t)group->waiter_count;
    waiter->status = status;
    ch_done_set(&waiter->done);
}

static void waiter_fail(struct con__group *group, struct con__waiter *waiter,
                        struct base_status status)
{
    TAILQ_REMOVE(&group->waiters, waiter, entry);
    group->waiter_count--;
    con__waiter_end(group, waiter, status);
}

void con__waiters_fail(struct con__group *group, enum base_code code, const char *why)
{
    struct con__waiter *waiter;

    while ((waiter = TAILQ_FIRST(&group->waiters)))
        waiter_fail(group, waiter,
                    base_failed(group->failure)
                        ? base_status_make(code, "%s: %s", why, base_status_text(&group->failure))
                        : base_status_make(code, "%s", why));
}

/* Ends cancelled proposers at their deadlines; all of them when the process goes. */
static void expirer_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct con__group *group = arg;
    bool goes = false;

    while (group->cancelled_count > 0) {
        ch_time now = ch_now(group->env), next = CH_NEVER;
        struct con__waiter *waiter = TAILQ_FIRST(&group->waiters);

        while (waiter) {
            struct con__waiter *after = TAILQ_NEXT(waiter, entry);

            if (waiter->cancelled && (goes || waiter->deadline <= now))
                waiter_fail(group, waiter,
                            base_status_make(goes ? BASE_UNAVAILABLE : BASE_DEADLINE_EXCEEDED,
                                             "propose: outcome unknown"));
            else if (waiter->cancelled && waiter->deadline < next)
                next = waiter->deadline;
            waiter = after;
        }
        if (group->cancelled_count == 0)
            break;
        /* One that comes later may have an earlier deadline: look now and then. */
        if (next > ch_in(group->env, CON_LOOK_MS * CH_MS))
            next = ch_in(group->env, CON_LOOK_MS * CH_MS);
        goes = ch_sleep_until(group->env, next) == CH_CANCELLED;
    }
    group->expiring = false;
}

static CH_WAITS void waiter_wait(struct con__group *group, struct con__waiter *waiter)
{
    enum ch_outcome outcome = ch_done_wait(&waiter->done, waiter->deadline);

    if (outcome == CH_OK || waiter->done.set)
        return;
    if (outcome == CH_TIMEOUT) {
        waiter_fail(group, waiter,
                    base_status_make(BASE_DEADLINE_EXCEEDED, "propose: outcome unknown"));
        return;
    }
    waiter->cancelled = true;
    group->cancelled_count++;
    if (!group->expiring) {
        struct base_status status =
            ch_gate_spawn(&group->gate, "log expirer", expirer_fiber, group);

        if (base_failed(status)) {
            waiter_fail(group, waiter, base_status_wrap(status, "propose: outcome unknown"));
            return;
        }
        group->expiring = true;
    }
    ch_done_wait_always(&waiter->done);
}

static struct base_status refused(const struct con__group *group, enum con_refusal refusal)
{
    switch (refusal) {
    case CON_FULL:
        return base_status_make(BASE_RESOURCE_EXHAUSTED,
                                "too many bytes of commands wait for the group already");
    case CON_TRANSFERRING: /* a moment, and it will be another */
        return con__not_leader("");
    default:
        return con__group_not_leader(group);
    }
}

struct base_status con__group_propose(struct con_log *log, struct base_bytes command,
                                      ch_time deadline, struct base_buf *reply)
{
    struct con__group *group = con__group_of(log);
    struct con__waiter waiter = { .reply = reply, .deadline = deadline };
    enum con_refusal refusal;

    BASE_ASSERT(!group->closing);
    if (!group->lead_term)
        return con__group_not_leader(group);
    if (group->waiter_count >= CON_WAITERS_MAX)
        return base_status_make(BASE_RESOURCE_EXHAUSTED, "%zu commands wait for the log already",
                                group->waiter_count);
    if (group->full)
        return base_status_make(BASE_RESOURCE_EXHAUSTED, "the log's disk is full");
    refusal = con_raft_propose(group->raft, command, &waiter.index, &waiter.term);
    if (refusal != CON_TAKEN)
        return refused(group, refusal);
    waiter.begin = ch_now(group->env);
    ch_done_init(&waiter.done);
    TAILQ_INSERT_TAIL(&group->waiters, &waiter, entry);
    group->metrics.waiting->value = (int64_t)++group->waiter_count;
    ch_count(group->metrics.proposals, 1);
    con__group_poke(group);
    waiter_wait(group, &waiter);
    return waiter.status;
}

/* ---- readers ---- */

static void reader_end(struct con__group *group, struct con__reader *reader,
                       struct base_status status)
{
    TAILQ_REMOVE(&group->readers, reader, entry);
    group->reader_count--;
    reader->status = status;
    ch_done_set(&reader->done);
}

/* Answers come in the order of the questions, but for refusals. */
void con__reader_answer(struct con__group *group, const struct con_raft_read *read)
{
    struct con__reader *reader;

    TAILQ_FOREACH(reader, &group->readers, entry)
    if (reader->id == read->id)
        break;
    if (!reader) /* it has given up */
        return;
    reader_end(group, reader, read->index > 0 ? BASE_STATUS_OK : con__group_not_leader(group));
}

void con__readers_fail(struct con__group *group)
{
    struct con__reader *reader;

    while ((reader = TAILQ_FIRST(&group->readers)))
        reader_end(group, reader, con__group_not_leader(group));
}

struct base_status con__group_read_barrier(struct con_log *log, ch_time deadline)
{
    struct con__group *group = con__group_of(log);
    struct con__reader reader = { .id = ++group->read_id };
    enum ch_outcome outcome;

    if (base_failed(group->failure) || con_raft_status(group->raft).role != CON_LEADER)
        return con__group_not_leader(group);
    if (group->reader_count >= CON_WAITERS_MAX)
        return base_status_make(BASE_RESOURCE_EXHAUSTED, "%zu reads wait for the log already",
                                group->reader_count);
    ch_count(group->metrics.reads, 1);
    ch_done_init(&reader.done);
    TAILQ_INSERT_TAIL(&group->readers, &reader, entry);
    group->reader_count++;
    con_raft_read(group->raft, reader.id);
    con__group_poke(group);
    outcome = ch_done_wait(&reader.done, deadline);
    if (outcome != CH_OK && !reader.done.set)
        reader_end(group, &reader, ch_outcome_status(outcome, "read barrier"));
    return reader.status;
}

/* ---- whoever waits for leadership ---- */

enum ch_outcome con__group_wait_lead(struct con_log *log, ch_time deadline, uint64_t *term)
{
    struct con__group *group = con__group_of(log);
    enum ch_outcome outcome = CH_OK;

    while (!group->lead_term && outcome == CH_OK) {
        if (base_failed(group->failure) || group->closing)
            return CH_CLOSED;
        outcome = ch_cond_wait(&group->changed, deadline);
    }
    *term = group->lead_term;
    return group->lead_term ? CH_OK : outcome;
}
