/* consensus/log.h: a replicated log under a deterministic state machine.
 *
 * The owner (clustermaster, blockmaster) keeps its state as a machine: apply is the only way it
 * changes, is given the same commands in the same order on every member and after every restart,
 * and reads no clock and no random source: what it needs of those is in the command. Today a log
 * has one member: a local journal with group commit, checksums and snapshots (log_local.c); the
 * interface is that of a group, so members are added behind it. Source: Raft (Ongaro, 2014) ch.
 * 3, 5, 6.4. */
#ifndef CONSENSUS_LOG_H
#define CONSENSUS_LOG_H

#include "base/bytes.h"
#include "chassis/env.h"

struct con_log;

struct con_machine {
    /* Must not wait. `reply` is handed to the proposer, when it is here. */
    void (*apply)(void *self, uint64_t index, struct base_bytes command, struct base_buf *reply);
    /* Appends the whole state. Must not wait. */
    void (*snapshot)(void *self, struct base_buf *out);
    /* Replaces the state. */
    struct base_status (*restore)(void *self, struct base_bytes snapshot);
    /* This member became leader (term > 0) or ceased to be (0). Must not wait. May be NULL. */
    void (*lead)(void *self, uint64_t term);
    void *self;
};

struct con_log_options {
    const char *dir; /* its own folder; locked against a second process */
    /* a snapshot is taken when the journal since the last is larger than this and than it; 0: 8
     * MiB */
    uint64_t snapshot_bytes_min;
};

/* Restores the last snapshot, replays the journal, leads. DATA_LOSS when the journal is corrupt
 * before its torn tail. */
struct base_status con_log_open(struct ch_env *env, const struct con_log_options *options,
                                const struct con_machine *machine,
                                struct con_log **log) CH_WAITS BASE_MUST_CHECK;
/* Returns after the command is durable on a quorum and applied here; `reply` is appended to.
 * Commands proposed meanwhile share one sync. FAILED_PRECONDITION "not the leader; it is at X".
 * After hand-over the wait ignores cancellation; UNAVAILABLE then means: outcome unknown.
 * RESOURCE_EXHAUSTED: too many waiting, or disk full: nothing was written. */
struct base_status con_log_propose(struct con_log *log, struct base_bytes command, ch_time deadline,
                                   struct base_buf *reply) CH_WAITS BASE_MUST_CHECK;
/* Returns when this member is sure to lead now and has applied all that was committed before the
 * call: read after it. */
struct base_status con_log_read_barrier(struct con_log *log,
                                        ch_time deadline) CH_WAITS BASE_MUST_CHECK;
uint64_t con_log_term(
    const struct con_log *log); /* 0: not the leader. Grows with each leader, and each restart. */
uint64_t con_log_applied(const struct con_log *log);
void con_log_close(struct con_log *log) CH_WAITS; /* no propose may be inside */

#endif
