/* log_etcd.c: a log that lives in an etcd cluster: the interface of log.h, and a member's life.
 *
 * Happy path: con__etcd_open starts the fibers and returns; main reads the log to its end, becomes
 * the leader when there is none, else follows. Failure modes: etcd away: main and keeper go on
 * trying, with a line in the log; a leader steps down when its lease has run out and most of etcd's
 * members are silent (log_etcd_lease.c); proposals are refused meanwhile. Shutdown: the leader key
 * is deleted and the lease revoked, so that another leads at once. See log_etcd_int.h for the
 * invariants, etcd_format.h for what is stored. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "chassis/log.h"
#include "log_etcd_int.h"

enum { RETRY_MS = 300, ABSTAIN_MS = 3000, GOODBYE_MS = 1000 };

static const struct con_log_ops ops;
static ch_fiber_fn main_fiber;

/* ---- open and close ---- */

static struct base_status options_check(const struct con_log_options *options,
                                        const struct con_machine *machine)
{
    if (options->witness)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "a log in etcd has no use for a witness: etcd's members are that");
    if (!options->group || !*options->group || strlen(options->group) > 64)
        return base_status_make(BASE_INVALID_ARGUMENT, "a log in etcd needs a group's name");
    if (!options->self || strlen(options->self) >= CON_ADDRESS_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "a log in etcd needs to know how its member is reached");
    return BASE_STATUS_OK;
}

static struct con_etcd_log *log_new(struct ch_env *env, const struct con_log_options *options,
                                    const struct con_machine *machine)
{
    struct con_etcd_log *log = calloc(1, sizeof(*log));

    BASE_ASSERT(log != NULL);
    log->base.ops = &ops;
    log->env = env;
    log->machine = *machine;
    log->learner = options->learner;
    log->id = ch_random(env) | 1;
    snprintf(log->self, sizeof(log->self), "%s", options->self);
    log->snapshot_bytes_min =
        options->snapshot_bytes_min ? options->snapshot_bytes_min : CON_ETCD_SNAPSHOT_BYTES_MIN;
    TAILQ_INIT(&log->queue);
    TAILQ_INIT(&log->flying);
    LIST_INIT(&log->barriers);
    ch_cond_init(&log->work);
    ch_cond_init(&log->changed);
    ch_cond_init(&log->barrier_work);
    ch_cond_init(&log->lease_work);
    log->lease_s = CON_ETCD_LEASE_S;
    ch_gate_init(&log->gate, env, "etcd log");
    return log;
}

struct base_status con__etcd_open(struct ch_env *env, const struct con_log_options *options,
                                  const struct con_machine *machine, struct con_log **opened)
{
    static const struct {
        const char *name;
        ch_fiber_fn *fn;
    } fibers[] = { { "etcd log", main_fiber },
                   { "etcd keeper", con__etcd_keeper_fiber },
                   { "etcd members", con__etcd_members_fiber },
                   { "etcd barriers", con__etcd_barrier_fiber } };
    struct base_status status = options_check(options, machine);
    struct con_etcd_log *log;

    *opened = NULL;
    if (base_failed(status))
        return status;
    log = log_new(env, options, machine);
    status = con__etcd_new(env, options->state, &log->etcd);
    if (!base_failed(status))
        con__etcd_keys(&log->keys, con__etcd_prefix(log->etcd), options->group);
    for (size_t i = 0; i < sizeof(fibers) / sizeof(fibers[0]) && !base_failed(status); i++)
        status = ch_gate_spawn(&log->gate, fibers[i].name, fibers[i].fn, log);
    if (base_failed(status)) {
        ch_gate_stop(&log->gate);
        con__etcd_free(log->etcd);
        free(log);
        return status;
    }
    *opened = &log->base;
    return status;
}

/* Best effort, a second or two at most: what is not said here the lease's end says. */
static void goodbye_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct con_etcd_log *log = arg;
    struct base_status status = BASE_STATUS_OK;

    if (log->leader_id == log->id)
        status =
            con__etcd_resign(log, log->leader_revision, 0, ch_in(log->env, GOODBYE_MS * CH_MS));
    if (!base_failed(status) && log->lease)
        status = con__etcd_lease_revoke(log->etcd, log->lease, ch_in(log->env, GOODBYE_MS * CH_MS));
    if (base_failed(status))
        ch_info(log->env, "%s: closing: %s", log->keys.leader, base_status_text(&status));
    base_status_free(&status);
}

static CH_WAITS void etcd_close(struct con_log *self)
{
    struct con_etcd_log *log = (struct con_etcd_log *)self;
    struct ch_gate goodbye;

    log->closing = true;
    ch_cond_broadcast(&log->work);
    ch_cond_broadcast(&log->barrier_work);
    ch_cond_broadcast(&log->lease_work);
    ch_gate_stop(&log->gate); /* main has stepped down, and stopped the watch */
    /* On a fiber of its own: who closes may be cancelled. */
    ch_gate_init(&goodbye, log->env, "etcd goodbye");
    base_status_drop(ch_gate_spawn(&goodbye, "etcd goodbye", goodbye_fiber, log));
    ch_gate_close(&goodbye);
    ch_gate_join_always(&goodbye);
    con__etcd_free(log->etcd);
    free(log);
}

/* ---- a member's life ---- */

/* A leader key of ours that we do not lead by (any more) goes; another candidate comes first for a
 * while when it was asked to. */
static CH_WAITS struct base_status stand(struct con_etcd_log *log, uint64_t *term)
{
    *term = 0;
    if (log->leader_id == log->id) {
        log->news = true;
        return con__etcd_resign(log, log->leader_revision, 0, ch_in(log->env, GOODBYE_MS * CH_MS));
    }
    if (log->leader_revision)
        log->abstain_until = 0; /* whoever was to go first has */
    if (log->leader_revision || log->learner || !log->lease ||
        ch_now(log->env) < log->abstain_until)
        return BASE_STATUS_OK;
    if (log->next_id && log->next_id != log->id && !log->abstain_until) {
        log->abstain_until = ch_in(log->env, CON_ETCD_POLL_MS * CH_MS);
        return BASE_STATUS_OK;
    }
    log->abstain_until = 0;
    return con__etcd_campaign(log, term);
}

/* Reads to the end and stands for leader; leads when chosen. */
static CH_WAITS struct base_status round_go(struct con_etcd_log *log)
{
    struct base_status status;
    uint64_t term = 0;

    log->news = false;
    status = con__etcd_catch_up(log);
    if (!base_failed(status))
        status = stand(log, &term);
    if (base_failed(status) || !term)
        return status;
    log->writing_off = true;
    status = con__etcd_catch_up(log); /* invariant 3 */
    if (!base_failed(status) && !log->closing)
        con__etcd_lead(log, term);
    log->writing_off = false;
    log->news = true;
    return status;
}

static void main_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct con_etcd_log *log = arg;
    enum ch_outcome outcome = CH_OK;

    while (!log->closing && outcome != CH_CANCELLED) {
        struct base_status status;
        ch_time wait = CON_ETCD_POLL_MS * CH_MS;

        con__etcd_watch_tend(log);
        status = round_go(log);
        if (base_failed(status)) {
            if (!ch_cancelled())
                ch_warn(log->env, "%s: %s", log->keys.log, base_status_text(&status));
            wait = RETRY_MS * CH_MS;
            outcome = ch_sleep_until(log->env, ch_in(log->env, wait));
        } else if (!log->news && !log->closing) {
            if (log->abstain_until > ch_now(log->env) &&
                log->abstain_until - ch_now(log->env) < wait)
                wait = log->abstain_until - ch_now(log->env);
            outcome = ch_cond_wait(&log->work, ch_in(log->env, wait));
        }
        base_status_free(&status);
    }
    con__etcd_watch_stop(log);
}

/* ---- the interface ---- */

static struct base_status refusal(const struct con_etcd_log *log)
{
    return con__not_leader(log->leader_id == log->id ? "" : log->leader);
}

static CH_WAITS struct base_status etcd_propose(struct con_log *self, struct base_bytes command,
                                                ch_time deadline, struct base_buf *reply)
{
    struct con_etcd_log *log = (struct con_etcd_log *)self;
    struct con_etcd_waiter waiter = { .command = command, .reply = reply };
    enum ch_outcome outcome;

    BASE_ASSERT(!log->closing);
    if (!log->term)
        return refusal(log);
    if (log->queued >= CON_ETCD_QUEUE_MAX ||
        log->queued_bytes + command.len > CON_ETCD_QUEUE_BYTES_MAX)
        return base_status_make(BASE_RESOURCE_EXHAUSTED,
                                "%zu commands (%zu bytes) wait for the log already", log->queued,
                                log->queued_bytes);
    ch_done_init(&waiter.done);
    TAILQ_INSERT_TAIL(&log->queue, &waiter, link);
    log->queued++;
    log->queued_bytes += command.len;
    ch_cond_broadcast(&log->work);
    outcome = ch_done_wait(&waiter.done, deadline);
    if (outcome == CH_CANCELLED) {
        /* Handed over: a write ends, or is given up, within WRITE_MS. */
        ch_done_wait_always(&waiter.done);
    } else if (outcome != CH_OK) {
        TAILQ_REMOVE(waiter.taken ? &log->flying : &log->queue, &waiter, link);
        if (!waiter.taken) {
            log->queued--;
            log->queued_bytes -= command.len;
        }
        return base_status_make(BASE_DEADLINE_EXCEEDED, "propose: %s",
                                waiter.taken ? "outcome unknown: etcd has not answered"
                                             : "it still waited for its turn");
    }
    return waiter.status;
}

static CH_WAITS struct base_status etcd_read_barrier(struct con_log *self, ch_time deadline)
{
    struct con_etcd_log *log = (struct con_etcd_log *)self;
    struct con_etcd_barrier barrier = { 0 };
    enum ch_outcome outcome;

    if (!log->term)
        return refusal(log);
    ch_done_init(&barrier.done);
    LIST_INSERT_HEAD(&log->barriers, &barrier, link);
    ch_cond_signal(&log->barrier_work);
    outcome = ch_done_wait(&barrier.done, deadline);
    if (outcome != CH_OK) {
        LIST_REMOVE(&barrier, link);
        return ch_outcome_status(outcome, "read barrier");
    }
    return barrier.status;
}

static uint64_t etcd_term(const struct con_log *self)
{
    return ((const struct con_etcd_log *)self)->term;
}

static uint64_t etcd_applied(const struct con_log *self)
{
    return ((const struct con_etcd_log *)self)->applied;
}

static const char *etcd_leader(const struct con_log *self)
{
    return ((const struct con_etcd_log *)self)->leader;
}

static CH_WAITS enum ch_outcome etcd_wait_lead(struct con_log *self, ch_time deadline,
                                               uint64_t *term)
{
    struct con_etcd_log *log = (struct con_etcd_log *)self;
    enum ch_outcome outcome = CH_OK;

    while (!log->term && outcome == CH_OK)
        outcome = ch_cond_wait(&log->changed, deadline);
    *term = log->term;
    return outcome;
}

static void etcd_look(struct con_log *self, struct con_log_view *view)
{
    const struct con_etcd_log *log = (const struct con_etcd_log *)self;

    *view = (struct con_log_view){ .term = log->leader_revision,
                                   .commit = log->applied,
                                   .applied = log->applied,
                                   .last = log->applied,
                                   .count = log->member_count };
    for (size_t i = 0; i < log->member_count; i++) {
        view->members[i] = log->members[i];
        view->members[i].leads = log->leader_id && log->members[i].member.id == log->leader_id;
    }
}

/* ---- members ---- */

static CH_WAITS struct base_status etcd_add(struct con_log *self, const struct con_member *member,
                                            ch_time deadline)
{
    return base_status_make(BASE_UNIMPLEMENTED,
                            "members of an etcd-backed log are whoever runs: start one");
}

static CH_WAITS struct base_status etcd_remove(struct con_log *self, uint64_t member,
                                               ch_time deadline)
{
    return base_status_make(BASE_UNIMPLEMENTED,
                            "members of an etcd-backed log are whoever runs: stop it");
}

static struct base_status transfer_check(const struct con_etcd_log *log, uint64_t member)
{
    if (!log->term)
        return refusal(log);
    for (size_t i = 0; i < log->member_count; i++)
        if (log->members[i].member.id != log->id &&
            (!member || log->members[i].member.id == member))
            return BASE_STATUS_OK;
    if (member)
        return base_status_make(BASE_NOT_FOUND, "transfer: no other member %" PRIu64 " runs",
                                member);
    return base_status_make(BASE_FAILED_PRECONDITION, "transfer: no other member runs");
}

static CH_WAITS struct base_status etcd_transfer(struct con_log *self, uint64_t member,
                                                 ch_time deadline)
{
    struct con_etcd_log *log = (struct con_etcd_log *)self;
    struct base_status status = transfer_check(log, member);
    enum ch_outcome outcome = CH_OK;

    if (base_failed(status))
        return status;
    log->abstain_until = ch_in(log->env, ABSTAIN_MS * CH_MS);
    status = con__etcd_resign(log, log->term, member, deadline);
    if (base_failed(status))
        return status;
    log->lost = true;
    ch_cond_broadcast(&log->work);
    while (outcome == CH_OK && (log->leader_id == 0 || log->leader_id == log->id))
        outcome = ch_cond_wait(&log->changed, deadline);
    return ch_outcome_status(outcome, "transfer: wait for another leader");
}

static const struct con_log_ops ops = {
    .propose = etcd_propose,
    .read_barrier = etcd_read_barrier,
    .term = etcd_term,
    .applied = etcd_applied,
    .leader = etcd_leader,
    .wait_lead = etcd_wait_lead,
    .close = etcd_close,
    .look = etcd_look,
    .add = etcd_add,
    .remove = etcd_remove,
    .transfer = etcd_transfer,
};
