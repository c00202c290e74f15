/* consensus/log.h: a replicated log under a deterministic state machine.
 *
 * The owner (clustermaster, blockmaster) keeps its state as a machine: apply is the only way it
 * changes, is given the same commands in the same order on every member and after every restart,
 * and reads no clock and no random source: what it needs of those is in the command. A group has
 * one or more members, each in a process of its own, each with its own copy of log and machine;
 * one of them leads. A group of one needs no network. Source: Raft (Ongaro, 2014);
 * docs/consensus.md says what is implemented, by section. */
#ifndef CONSENSUS_LOG_H
#define CONSENSUS_LOG_H

#include "base/bytes.h"
#include "chassis/env.h"
#include "consensus/entry.h"
#include "consensus/store.h"

struct con_log;
struct con_node;

struct con_machine {
    /* Must not wait. `reply` is handed to the proposer, when it is here. */
    void (*apply)(void *self, uint64_t index, struct base_bytes command, struct base_buf *reply);
    /* Appends the whole state. Must not wait. */
    void (*snapshot)(void *self, struct base_buf *out);
    /* Replaces the state. */
    struct base_status (*restore)(void *self, struct base_bytes snapshot);
    /* This member became leader (term > 0), with all that was ever committed applied, or ceased to
     * be (0). Must not wait. May be NULL. */
    void (*lead)(void *self, uint64_t term);
    void *self;
};

struct con_log_options {
    const char *dir; /* its own folder; locked against a second process */
    /* a snapshot is taken when the log since the last is larger than this and than it, give or take
     * a quarter, which is each member's own; 0: 8 MiB */
    uint64_t snapshot_bytes_min;

    /* ---- a group of more than one; all zero: a group of one, which founds itself ---- */
    struct con_node *node; /* the process's; outlives the log */
    const char *group;     /* its name among the groups of these processes: "clustermaster" */
    const char *self; /* how the others reach this member: a chassis client's target, the same for
                          all logs of a node */
    const char *const *peers; /* targets of those who may be members already (self may be among
                                 them); asked to let this member in */
    size_t peer_count;
    /* An empty folder founds the group (one member; others join it), unless a peer says it is there
     * already. Only ever true once in a group's life: see docs/consensus.md, founding. */
    bool found;
    bool witness; /* votes and keeps the log; the machine is never called */
    bool learner; /* joins without a vote and stays so until made a voter (con_log_change) */
    const struct con_store *store; /* instead of the folder: taken over, closed with the log */
    /* "etcd://host:port,host:port": log, snapshots and leadership live in that etcd cluster instead
     * (all others of this part are needed but node, peers and found); NULL: here. */
    const char *state;
    ch_time election, heartbeat; /* 0: 1 s (a follower waits for 1 to 2 of it), 300 ms */
};

/* Restores the last snapshot and loads the log. A group of one leads on return. A member of a
 * larger one returns at once and finds the others by itself; `lead` and con_log_wait_lead tell.
 * DATA_LOSS when the log of a group of one is corrupt before its torn tail; a member of a larger
 * group sets the damaged log aside and joins anew under another id. */
struct base_status con_log_open(struct ch_env *env, const struct con_log_options *options,
                                const struct con_machine *machine,
                                struct con_log **log) CH_WAITS BASE_MUST_CHECK;
/* Returns after the command is durable on a quorum and applied here; `reply` is appended to.
 * Commands proposed meanwhile share one sync. FAILED_PRECONDITION "not the leader; it is at X" (or
 * "; none is known"): nothing was proposed. After hand-over the wait ignores cancellation;
 * UNAVAILABLE or DEADLINE_EXCEEDED then means: outcome unknown. RESOURCE_EXHAUSTED: too many
 * waiting, or disk full: nothing was written. */
struct base_status con_log_propose(struct con_log *log, struct base_bytes command, ch_time deadline,
                                   struct base_buf *reply) CH_WAITS BASE_MUST_CHECK;
/* Returns when this member is sure to lead now and has applied all that was committed before the
 * call: read after it (section 6.4). FAILED_PRECONDITION as above. */
struct base_status con_log_read_barrier(struct con_log *log,
                                        ch_time deadline) CH_WAITS BASE_MUST_CHECK;
/* 0: not the leader, or not yet with everything applied. Grows with each leader, and each
 * restart. */
uint64_t con_log_term(const struct con_log *log);
uint64_t con_log_applied(const struct con_log *log);
/* The target of the member that leads, as last heard; "" when none is known. Valid until the next
 * wait of the caller. */
const char *con_log_leader(const struct con_log *log);
/* Waits until this member leads (CH_OK, *term) or the deadline. */
enum ch_outcome con_log_wait_lead(struct con_log *log, ch_time deadline,
                                  uint64_t *term) CH_WAITS BASE_MUST_CHECK;
/* Why the log failed for good here (a failed write, a state that could not be restored): it must be
 * closed, and opened again, as it will neither lead nor follow any more. NULL: it has not. Borrowed
 * till close. con_log_wait_lead gives CH_CLOSED then. */
const char *con_log_failure(const struct con_log *log);
/* Steps down first when it leads, in favour of a member that has everything. No propose may be
 * inside. */
void con_log_close(struct con_log *log) CH_WAITS;

/* ---- members ---- */
struct con_log_member {
    struct con_member member;
    bool leads;
    uint64_t match;   /* the leader's knowledge: how far it holds the log; else 0 */
    int64_t heard_ms; /* since it was last heard by the leader; -1: never, or not asked there */
};
struct con_log_view {
    uint64_t term, commit, applied, last;
    bool joint;   /* a change is under way */
    bool removed; /* this member is none any more, for certain: it only waits to be closed */
    struct con_log_member members[CON_MEMBERS_MAX];
    size_t count;
};
void con_log_look(struct con_log *log, struct con_log_view *view);
/* On the leader. Each waits until the change is committed, or the deadline (it may then still come
 * to be). add: a learner first, a voter (or witness) when it has caught up; who has the same target
 * already goes in the same step (a member that lost its disk). remove: FAILED_PRECONDITION for the
 * last one that can lead; NOT_FOUND. Either: FAILED_PRECONDITION, naming who is silent, when the
 * leader has not heard so many of the voters there would be that they could commit anything.
 * transfer: waits until another leads. */
struct base_status con_log_add(struct con_log *log, const struct con_member *member,
                               ch_time deadline) CH_WAITS BASE_MUST_CHECK;
struct base_status con_log_remove(struct con_log *log, uint64_t member,
                                  ch_time deadline) CH_WAITS BASE_MUST_CHECK;
/* member 0: whoever has most. */
struct base_status con_log_transfer(struct con_log *log, uint64_t member,
                                    ch_time deadline) CH_WAITS BASE_MUST_CHECK;

#endif
