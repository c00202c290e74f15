/* log_etcd_lease.c: a member's lease in etcd, and who else has one.
 *
 * The leader key goes with its leader's lease, so its length is how soon another may lead: it is
 * asked for as short as etcd lets it be, and kept far more often than it lasts (KEEP_MS).
 *
 * Invariants
 * 1. A lease is taken to last until `lease_until`: counted from before what etcd answered was sent.
 *    Past that only etcd knows.
 * 2. Nothing here decides what may be written or read: the comparisons do.
 *
 * Happy path: granted, its key put, kept. Failure modes: an endpoint that is dead, paused or cut
 * off: the attempt is given up long before the lease ends, and the next one is asked. etcd between
 * two leaders: nobody's lease ends meanwhile (who becomes etcd's leader gives them all their whole
 * time anew, and an election timeout more), so a leader that reaches most of its endpoints goes on
 * leading for as long as PATIENCE_MS. A lease that has ended: another is asked for at once. */
#include <inttypes.h>
#include <stdio.h>

#include "chassis/log.h"
#include "log_etcd_int.h"

enum {
    KEEP_MS = 400,       /* between two askings, of a lease of two seconds */
    RETRY_MS = 100,      /* after one that was not answered */
    PATIENCE_MS = 4000,  /* a leader's, past its lease, while most of etcd's members live */
    LIVE_MS = 400,       /* they have so long to say so */
    LIVE_AGAIN_MS = 500, /* and are asked again */
    READ_MS = 5000,
};

/* ---- keeping ---- */

static CH_WAITS struct base_status lease_keep(struct con_etcd_log *log)
{
    int64_t lease = log->lease;
    ch_time sent;
    /* Asked for however late: only etcd knows that a lease has ended. */
    struct base_status status =
        con__etcd_lease_keep(log->etcd, lease, ch_in(log->env, log->lease_s * CH_S), &sent);

    if (status.code == BASE_NOT_FOUND) {
        log->lease = 0;
        log->lease_until = 0;
        log->lost = true;
        ch_cond_broadcast(&log->work);
    } else if (!base_failed(status)) {
        log->lease_until = sent + log->lease_s * CH_S;
    }
    return status;
}

static CH_WAITS struct base_status lease_begin(struct con_etcd_log *log)
{
    ch_time deadline = ch_in(log->env, READ_MS * CH_MS);
    struct base_arena arena = { 0 };
    Etcdserverpb__TxnResponse *response;
    struct con_etcd_txn txn;
    int64_t lease = 0, ttl_s = CON_ETCD_LEASE_S;
    struct base_status status = con__etcd_lease_grant(log->etcd, &ttl_s, deadline, &lease);

    if (!base_failed(status)) {
        con__etcd_txn_init(&txn, &arena);
        con__etcd_then_put(&txn,
                           base_arena_printf(&arena, "%s%016" PRIx64, log->keys.candidate, log->id),
                           base_bytes_str(log->self), lease);
        status = con__etcd_commit(log->etcd, &txn, deadline, &response, NULL);
    }
    if (!base_failed(status)) {
        if (ttl_s != log->lease_s && ttl_s != CON_ETCD_LEASE_S)
            ch_warn(log->env,
                    "%s: etcd grants leases of %" PRId64 " s, not of %d (its election timeout): "
                    "a leader that dies is followed so much later",
                    log->keys.leader, ttl_s, CON_ETCD_LEASE_S);
        log->lease_s = ttl_s;
        log->lease = lease;
        /* Granting may have taken long: a candidate begins with a fresh one. */
        status = lease_keep(log);
        ch_cond_broadcast(&log->work);
    }
    base_arena_free(&arena);
    return status;
}

void con__etcd_keeper_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct con_etcd_log *log = arg;
    enum ch_outcome outcome = CH_OK;

    while (!log->closing && outcome != CH_CANCELLED) {
        bool had = log->lease != 0;
        struct base_status status = had ? lease_keep(log) : lease_begin(log);
        bool ended = status.code == BASE_NOT_FOUND;
        ch_time pause = KEEP_MS * CH_MS;

        if (status.code == BASE_UNAVAILABLE || status.code == BASE_DEADLINE_EXCEEDED)
            pause = RETRY_MS * CH_MS;
        else if (base_failed(status)) /* a word of etcd's: it is full, say */
            pause = CON_ETCD_POLL_MS * CH_MS;
        if (base_failed(status) && !ch_cancelled())
            ch_warn(log->env, "%s: %s", log->keys.leader, base_status_text(&status));
        base_status_free(&status);
        if (ended && had)
            continue; /* to a new one */
        outcome = ch_cond_wait(&log->lease_work, ch_in(log->env, pause));
    }
}

/* ---- a leader's doubts ---- */

bool con__etcd_holds(struct con_etcd_log *log)
{
    ch_time now = ch_now(log->env);

    if (now < log->lease_until || now < log->holds_until)
        return true;
    if (log->lost || now >= log->lease_until + PATIENCE_MS * CH_MS ||
        !con__etcd_most_live(log->etcd, now + LIVE_MS * CH_MS))
        return false;
    log->holds_until = ch_in(log->env, LIVE_AGAIN_MS * CH_MS);
    return !log->lost;
}

ch_time con__etcd_doubt_at(const struct con_etcd_log *log)
{
    ch_time now = ch_now(log->env);
    ch_time at = log->lease_until > log->holds_until ? log->lease_until : log->holds_until;

    return at > now ? at : now + LIVE_AGAIN_MS * CH_MS;
}

/* ---- who is there ---- */

static void members_seen(struct con_etcd_log *log, const Etcdserverpb__RangeResponse *candidates)
{
    log->member_count = 0;
    for (size_t i = 0; i < candidates->n_kvs && log->member_count < CON_MEMBERS_MAX; i++) {
        struct con_log_member *member = &log->members[log->member_count++];

        *member = (struct con_log_member){ .heard_ms = -1 };
        member->member.id = con__etcd_id_of(ch_bytes_of(candidates->kvs[i]->key));
        member->member.voter = true;
        snprintf(member->member.address, CON_ADDRESS_MAX, "%.*s",
                 BASE_FMT(ch_bytes_of(candidates->kvs[i]->value)));
    }
}

static CH_WAITS struct base_status members_look(struct con_etcd_log *log)
{
    struct base_arena arena = { 0 };
    const Etcdserverpb__RangeResponse *candidates, *leaders;
    Etcdserverpb__TxnResponse *response = NULL;
    struct con_etcd_txn txn;
    struct base_status status;

    con__etcd_txn_init(&txn, &arena);
    con__etcd_then_range(&txn, log->keys.candidate, con__etcd_below(&arena, log->keys.candidate),
                         CON_MEMBERS_MAX);
    con__etcd_then_range(&txn, log->keys.leader, NULL, 0);
    status = con__etcd_commit(log->etcd, &txn, ch_in(log->env, READ_MS * CH_MS), &response, NULL);
    if (!base_failed(status))
        status = con__etcd_found(response, 0, &candidates);
    if (!base_failed(status))
        status = con__etcd_found(response, 1, &leaders);
    if (!base_failed(status)) {
        members_seen(log, candidates);
        if (!log->term || response->header->revision > (int64_t)log->term)
            con__etcd_leader_seen(log, leaders->n_kvs ? leaders->kvs[0] : NULL);
    }
    base_arena_free(&arena);
    return status;
}

void con__etcd_members_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct con_etcd_log *log = arg;

    while (!log->closing) {
        struct base_status status = members_look(log);

        if (base_failed(status) && !ch_cancelled())
            ch_warn(log->env, "%s: %s", log->keys.leader, base_status_text(&status));
        base_status_free(&status);
        if (ch_sleep_until(log->env, ch_in(log->env, CON_ETCD_POLL_MS * CH_MS)) != CH_TIMEOUT)
            break;
    }
}
