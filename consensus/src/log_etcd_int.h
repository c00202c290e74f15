/* log_etcd_int.h: one member of a log that lives in etcd; what log_etcd.c (the interface),
 * log_etcd_follow.c (reading), log_etcd_lead.c (leading, writing), log_etcd_lease.c (its lease, the
 * others') and log_etcd_snapshot.c share.
 *
 * Invariants
 * 1. Every write of log, manifest and pieces is a transaction that first compares the
 *    create_revision of the leader key with the writer's term: what a former leader still sends is
 *    refused, however late it arrives. The store's revision only grows, so the term does.
 * 2. log/N is written once: its transaction compares that it is not there. A writer that did not
 *    hear the outcome sends the same transaction again until it hears one, or steps down.
 * 3. Nobody leads before it has read the log to its end after its leader key was made.
 * 4. A command is applied here after etcd has acknowledged its batch, in order, once; whoever
 *    applies looks at `applied` first, after its last wait.
 * 5. Safety needs no clock. The lease only decides how soon another may lead, and when a leader
 *    that hears nothing gives up.
 * 6. What keeps the lease waits for nothing else.
 *
 * Fibers: main (follows; campaigns; leads: takes the queue, writes, applies), watch (applies what
 * others write; rings main), keeper (the lease), members (looks who is there), barriers,
 * snapshot. */
#ifndef CON_LOG_ETCD_INT_H
#define CON_LOG_ETCD_INT_H

#include <bsd/sys/queue.h>

#include "etcd.h"
#include "etcd_format.h"
#include "log_ops.h"

enum {
    CON_ETCD_LEASE_S = 2,      /* etcd's least at its default election timeout */
    CON_ETCD_POLL_MS = 1000,   /* of the log and of who leads, beside the watch */
    CON_ETCD_QUEUE_MAX = 4096, /* commands waiting */
    CON_ETCD_QUEUE_BYTES_MAX = 32 << 20,
    CON_ETCD_BATCH_BYTES_MAX = 1 << 20, /* of commands in one value; etcd refuses 1.5 MiB */
    CON_ETCD_SNAPSHOT_BYTES_MIN = 8 << 20,
};

struct con_etcd_waiter { /* a proposal; on its proposer's stack */
    TAILQ_ENTRY(con_etcd_waiter) link;
    struct base_bytes command;
    struct base_buf *reply;
    struct base_status status;
    struct ch_done done;
    bool taken;  /* in `flying`, else in `queue` */
    uint32_t at; /* in its batch */
};
TAILQ_HEAD(con_etcd_waiters, con_etcd_waiter);

struct con_etcd_barrier { /* likewise */
    LIST_ENTRY(con_etcd_barrier) link;
    struct base_status status;
    struct ch_done done;
};
LIST_HEAD(con_etcd_barriers, con_etcd_barrier);

struct con_etcd_log {
    struct con_log base;
    struct ch_env *env;
    struct con_machine machine;
    struct con_etcd *etcd;
    struct con_etcd_keys keys;
    char self[CON_ADDRESS_MAX];
    uint64_t id; /* of this run of this member */
    bool learner;

    uint64_t applied;
    size_t page_batches;            /* asked for at once, reading to the end */
    uint64_t bytes, snapshot_bytes; /* of batches since the newest snapshot; of that */
    uint64_t snapshot_bytes_min, snapshot_retry_bytes;
    bool snapshotting;

    uint64_t term;          /* 0: does not lead */
    bool writing_off;       /* the watch leaves the log alone: main is about to lead, or does */
    bool lost;              /* of a leader: it must step down */
    int64_t lease, lease_s; /* 0: none; how long it lasts */
    ch_time lease_until;    /* it surely lasts till then */
    ch_time holds_until;    /* a leader need not ask till then whether etcd's members live */
    ch_time abstain_until;  /* no candidacy before: leadership was handed over */

    /* Who is there, as last seen. */
    uint64_t leader_id, leader_revision, next_id;
    char leader[CON_ADDRESS_MAX];
    struct con_log_member members[CON_MEMBERS_MAX];
    size_t member_count;

    struct con_etcd_waiters queue, flying;
    size_t queued, queued_bytes;
    struct con_etcd_barriers barriers;
    struct ch_cond work;    /* of main: a command, news, the end */
    struct ch_cond changed; /* term or leader */
    struct ch_cond barrier_work;
    struct ch_cond lease_work; /* the lease is to be looked at now */
    struct ch_gate gate, watch_gate;
    bool closing, news, watching;
    uint64_t watch_moves; /* con__etcd_moves when the watch began */
};

/* ---- follow ---- */
/* Reads and applies until the end of the log as it was when this was called or later; learns who
 * leads. */
struct base_status con__etcd_catch_up(struct con_etcd_log *log) CH_WAITS BASE_MUST_CHECK;
/* Keeps one watch going, by the endpoint that is talked to at present. */
void con__etcd_watch_tend(struct con_etcd_log *log) CH_WAITS;
void con__etcd_watch_stop(struct con_etcd_log *log) CH_WAITS;
/* Takes note of the leader key (NULL: there is none). */
void con__etcd_leader_seen(struct con_etcd_log *log, const Mvccpb__KeyValue *kv);
/* The id at the end of a key, or of a value. */
uint64_t con__etcd_id_of(struct base_bytes text);

/* ---- lease ---- */
ch_fiber_fn con__etcd_keeper_fiber, con__etcd_members_fiber;
/* Whether a leader should go on as one: its lease lasts, or may (it asks whether etcd's members
 * live). It proves nothing. */
bool con__etcd_holds(struct con_etcd_log *log) CH_WAITS BASE_MUST_CHECK;
/* When that is to be asked next; a leader waits for nothing of etcd any longer. */
ch_time con__etcd_doubt_at(const struct con_etcd_log *log);

/* ---- lead ---- */
/* Becomes the leader if there is none; *term 0: another is. */
struct base_status con__etcd_campaign(struct con_etcd_log *log,
                                      uint64_t *term) CH_WAITS BASE_MUST_CHECK;
/* Leads until it is lost or closed. */
void con__etcd_lead(struct con_etcd_log *log, uint64_t term) CH_WAITS;
/* Deletes the leader key of `revision`; names who should be next (0: anybody). */
struct base_status con__etcd_resign(struct con_etcd_log *log, uint64_t revision, uint64_t next,
                                    ch_time deadline) CH_WAITS BASE_MUST_CHECK;
ch_fiber_fn con__etcd_barrier_fiber;

/* ---- snapshot ---- */
/* Begins one when it is due. */
void con__etcd_snapshot_maybe(struct con_etcd_log *log);
/* Reads the snapshot of `manifest` and makes it the machine's state, unless that is newer by then.
 * ABORTED: a newer one has replaced it meanwhile. */
struct base_status con__etcd_snapshot_load(
    struct con_etcd_log *log, const struct con_etcd_manifest *manifest) CH_WAITS BASE_MUST_CHECK;

#endif
