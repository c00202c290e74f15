/* group_int.h: the inside of one member of one group: the pure algorithm (raft.h) driven on fibers,
 * with a store, a machine and a node. group.c: its loop. group_open.c: from a folder to a running
 * member, and back. group_propose.c: who waits for it. group_snapshot.c: what takes long beside
 * it. group_member.c: who belongs to it. group_join.c: how this member came to belong. */
#ifndef CON_GROUP_INT_H
#define CON_GROUP_INT_H

#include <bsd/sys/queue.h>
#include <uthash.h>

#include "chassis/metrics.h"
#include "log_ops.h"
#include "raft.h"

struct con__peer_way;

enum {
    CON_WAITERS_MAX = 8192, /* proposals, and readers, waiting at once */
    CON_SNAPSHOT_BYTES_MIN = 8 << 20,
    CON_TRAIL_ENTRIES = 1000,  /* kept before a snapshot for slow followers … */
    CON_TRAIL_BYTES = 1 << 20, /* … up to about this much, or a quarter of a snapshot's log */
    CON_WITNESS_FACTOR = 8, /* a witness keeps so many times the log that others do, if need be */
    CON_FETCH_BYTES_MAX = 1 << 20,
    CON_ELECTION_MS = 1000,
    CON_HEARTBEAT_MS = 300,
    CON_FULL_RETRY_MS = 50, /* a full disk is tried again after */
    CON_CLOSE_MS = 1000,    /* to hand leadership over at close */
    CON_LOOK_MS = 20,       /* how often a change under way is looked at */
    CON_JOIN_MS = 50,       /* between tries to be let in; doubles up to: */
    CON_JOIN_MS_MAX = 1000,
    CON_FOUND_MS = 500, /* a founder asks so long whether the group is there */
    CON_PEERS_ASKED_MAX = 32,
    CON_GROUP_NAME_MAX = 128,
};

/* A proposer's, on its stack, in order of index. */
struct con__waiter {
    TAILQ_ENTRY(con__waiter) entry;
    uint64_t index, term;
    ch_time begin, deadline;
    bool cancelled; /* its fiber is: the expirer minds the deadline */
    struct base_buf *reply;
    struct base_status status;
    struct ch_done done;
};
/* A read barrier's. */
struct con__reader {
    TAILQ_ENTRY(con__reader) entry;
    uint64_t id;
    struct base_status status;
    struct ch_done done;
};

/* A write under way: copies, as raft's own memory may move while it lasts. */
struct con__job {
    struct base_arena arena;
    struct con_store_write write;
    uint64_t persisted_term, persisted_index;
    struct con_message *after;
    size_t after_count;
};

struct con__group {
    struct con_log base; /* first */
    struct ch_env *env;

    /* ---- what each heartbeat looks at lies together: there may be thousands of groups ---- */
    struct con_raft *raft;
    struct con_node *node; /* NULL: the only member there can be */
    bool registered;       /* in the node's tables, at slot */
    bool writing, closing;
    bool full; /* the disk is */
    ch_time writing_since;
    size_t slot;
    struct base_status failure; /* of the store or the machine: for good */
    uint64_t lead_term;         /* told by lead(); 0: not the leader */
    TAILQ_HEAD(, con__waiter) waiters;
    struct { /* ways to members, by id; of the configuration of ways_config */
        uint64_t id;
        struct con__peer_way *way;
    } ways[CON_MEMBERS_MAX];
    size_t way_count;
    uint64_t ways_config;

    struct con_machine machine;
    struct con_store store;
    char name[CON_GROUP_NAME_MAX], self[CON_ADDRESS_MAX];
    char *peers[CON_PEERS_ASKED_MAX];
    size_t peer_count;
    bool found, witness, learner;
    ch_time election, heartbeat;

    /* ---- in the node's tables ---- */
    UT_hash_handle hh_name, hh_member;
    struct { /* of those who wrote to us and are in no configuration we know */
        uint64_t id;
        struct con__peer_way *way;
    } strangers[CON_MEMBERS_MAX];
    size_t stranger_count;

    /* ---- the loop ---- */
    struct ch_gate gate;
    struct ch_cond work;    /* the writer's: there is something to do and no write under way */
    struct ch_cond fed;     /* the pump's: the same, and a write is under way */
    struct ch_cond changed; /* role, configuration or failure: for everyone else */
    struct con__job job;
    struct { /* a piece of a snapshot, to be stored by the writer */
        bool here;
        struct con_store_chunk chunk;
        struct base_buf data;
    } incoming;

    /* ---- what was told ---- */
    uint64_t applied;
    enum con_role role;
    uint64_t term, leader;
    char leader_hint[CON_ADDRESS_MAX]; /* by who refused us */

    /* ---- who waits ---- */
    TAILQ_HEAD(, con__reader) readers;
    size_t waiter_count, reader_count, cancelled_count;
    uint64_t read_id;
    bool expiring;
    struct base_buf unwanted; /* replies nobody waits for */

    /* ---- snapshots ---- */
    struct ch_mutex snapshot_lock; /* one is saved or received at a time */
    uint64_t snapshot_bytes_min, snapshot_bytes, snapshot_retry_bytes;
    uint64_t snapshot_index;
    bool snapshotting;
    uint64_t trail_count, trail_bytes; /* applied since the last snapshot */

    /* ---- members ---- */
    uint64_t member_since; /* index of a committed configuration with this member; 0: not yet */
    bool removed;          /* a later one is without it */
    size_t inside;         /* calls from other processes */
    uint64_t promoting;    /* the learner that is being made a voter; 0: nobody */

    struct {
        struct ch_counter *proposals, *commits, *reads, *bytes, *syncs, *leaders, *snapshots,
            *chunks;
        struct ch_gauge *term, *role, *waiting, *removed;
        struct ch_histogram *sync_ns, *commit_ns; /* of all groups of the process */
    } metrics;
};

static inline struct con__group *con__group_of(const struct con_log *log)
{
    return (struct con__group *)log;
}

/* ---- group.c ---- */
ch_fiber_fn con__writer_fiber, con__pump_fiber;
/* After inputs were fed: whoever is to see to them does, on its own fiber, with whatever else is
 * fed until then. */
void con__group_poke(struct con__group *group);
/* The same at once, but for the writes: for heartbeats. */
void con__group_pump(struct con__group *group);
/* The same though there be nothing to do: nothing that was lent to raft is borrowed any more. */
void con__group_pump_all(struct con__group *group);
void con__group_tick(struct con__group *group, ch_time now);
/* The same, when another process is in doubt that was heard last at `heard`. */
void con__group_wake(struct con__group *group, ch_time heard, ch_time now);
/* From the node: a message for this member, whose sender can be reached at `from`. */
void con__group_receive(struct con__group *group, const struct con_message *message,
                        const char *from, ch_time now);
/* The log has failed for good. Takes `why`. */
void con__group_fail(struct con__group *group, struct base_status why);
const struct con_config *con__group_config(const struct con__group *group);
/* As con_log_leader. */
const char *con__group_leader(const struct con_log *log);
/* As con_raft_progress; of a quiet group, when the member's process was heard. */
bool con__group_progress(const struct con__group *group, uint64_t member, uint64_t *match,
                         ch_time *heard);
/* Leads with others that could take over. */
bool con__group_leads_others(const struct con__group *group);
void con__config_applied(struct con__group *group, const struct con_config *config);

/* ---- group_open.c ---- */
extern const struct con_log_ops con__group_ops;
/* The first entry of a group: the configuration with this member alone. Durable on return; the
 * algorithm is made anew over it. */
struct base_status con__group_begin(struct con__group *group) CH_WAITS BASE_MUST_CHECK;
uint64_t con__group_lead_term(const struct con_log *log);
uint64_t con__group_applied(const struct con_log *log);
const char *con__group_failure(const struct con_log *log);
void con__group_close(struct con_log *log) CH_WAITS;

/* ---- group_propose.c ---- */
struct base_status con__group_propose(struct con_log *log, struct base_bytes command,
                                      ch_time deadline, struct base_buf *reply) CH_WAITS;
struct base_status con__group_read_barrier(struct con_log *log, ch_time deadline) CH_WAITS;
enum ch_outcome con__group_wait_lead(struct con_log *log, ch_time deadline,
                                     uint64_t *term) CH_WAITS;
/* The waiter of an entry that is about to be applied; taken off the queue. NULL: nobody here. */
struct con__waiter *con__waiter_take(struct con__group *group, uint64_t index, uint64_t term);
void con__waiter_end(struct con__group *group, struct con__waiter *waiter,
                     struct base_status status);
void con__waiters_fail(struct con__group *group, enum base_code code, const char *why);
void con__reader_answer(struct con__group *group, const struct con_raft_read *read);
void con__readers_fail(struct con__group *group);

/* ---- group_snapshot.c ---- */
void con__snapshot_maybe(struct con__group *group);
void con__fetch(struct con__group *group, const struct con_raft_fetch *fetch);
void con__chunk_take(struct con__group *group, const struct con_raft_chunk *chunk);
void con__chunk_store(struct con__group *group) CH_WAITS;

/* ---- group_member.c ---- */
void con__group_look(struct con_log *log, struct con_log_view *view);
struct base_status con__group_add(struct con_log *log, const struct con_member *member,
                                  ch_time deadline) CH_WAITS;
struct base_status con__group_remove(struct con_log *log, uint64_t member,
                                     ch_time deadline) CH_WAITS;
struct base_status con__group_transfer(struct con_log *log, uint64_t member,
                                       ch_time deadline) CH_WAITS;
/* Begins to hand leadership to whoever has most of the log, at least up to `least`; false when
 * there is nobody. */
bool con__group_transfer_begin(struct con__group *group, uint64_t least);
/* For a member that asks: in the log as a learner on return; made a voter afterwards. One that
 * knows of a committed configuration with it, at `since`, and is in a later one no more:
 * *removed_at is that one's index, and nothing is done. */
struct base_status con__group_let_in(struct con__group *group, const struct con_member *member,
                                     bool stay_learner, uint64_t since, ch_time deadline,
                                     uint64_t *removed_at) CH_WAITS BASE_MUST_CHECK;
struct base_status con__group_not_leader(const struct con__group *group) BASE_MUST_CHECK;

/* ---- group_join.c ---- */
ch_fiber_fn con__join_fiber;
/* A committed configuration, at `index`, is without this member, which was one. */
void con__group_removed(struct con__group *group, uint64_t index);

#endif
