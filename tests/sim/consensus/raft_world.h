/* raft_world.h: groups of con_raft in a world made from a seed: nodes with clocks, disks and a
 * network that fail, clients, and checks after every step. No fibers, no files, no real time: one
 * heap of events on virtual time, so the same seed is the same run, event for event.
 *
 * A node is a machine: it crashes, pauses and is cut off as one. It has at most one member of each
 * group. The part of the driver (consensus/src/group.c) is played by raft_driver.c. Times are
 * nanoseconds of the world; each node's clock has a rate and jumps of its own. */
#ifndef TESTS_RAFT_WORLD_H
#define TESTS_RAFT_WORLD_H

#include <setjmp.h>
#include <stdio.h>

#include "raft_model.h"

enum {
    RW_NODES_MAX = 8,
    RW_GROUPS_MAX = 100,
    RW_CLIENTS = 4,
    RW_KEYS = 48,      /* registers in a group's machine */
    RW_OPS_A_KEY = 36, /* then clients move on to the next: short histories search fast */
    RW_OPS_MAX = RW_KEYS * RW_OPS_A_KEY,
    RW_GRAVES_MAX = 24, /* disks lost in one group */
    RW_READS_MAX = 256,
};
#define RW_US INT64_C(1000)
#define RW_MS INT64_C(1000000)
#define RW_S INT64_C(1000000000)

/* Rare paths: a full run must show each. X(name, what) */
#define RW_PROBES(X)                                                                    \
    X(figure_8, "an entry of an earlier term on a majority, not committed")             \
    X(figure_8_lost, "such an entry was overwritten")                                   \
    X(suffix_overwritten, "an uncommitted suffix was overwritten on disk")              \
    X(hint_repair, "a follower's log was repaired by its hint, several entries back")   \
    X(chunk_resent, "a chunk of a snapshot was lost and sent again")                    \
    X(snapshot_installed, "a snapshot of several chunks was installed")                 \
    X(crash_receiving, "a crash while a snapshot was coming in")                        \
    X(joint_leader_crash, "the leader crashed in a joint configuration")                \
    X(leader_removed, "a leader removed itself")                                        \
    X(stale_read_refused, "a leader deposed meanwhile refused a read")                  \
    X(check_quorum, "a leader without a quorum stepped down by itself")                 \
    X(pre_vote_refused, "a pre-vote was refused")                                       \
    X(transfer_done, "a transfer of leadership was completed")                          \
    X(transfer_given_up, "a transfer of leadership was given up")                       \
    X(lost_disk_rejoined, "a member whose disk was lost votes again, under another id") \
    X(damaged_rejoined, "so did one whose log was damaged")                             \
    X(witness_decided, "the vote of a witness decided an election")                     \
    X(witness_led, "a witness led, to hand on what it alone had")                       \
    X(duplicate_vote, "a vote arrived twice")                                           \
    X(flow_stalled, "a follower had as many messages unanswered as allowed")            \
    X(fetched_from_disk, "a slow follower was served from the disk")                    \
    X(proposals_refused, "too much was uncommitted: a proposal was refused")            \
    X(not_caught_up, "a learner was refused a vote: not caught up")                     \
    X(clock_jumped, "a clock jumped ahead by seconds")                                  \
    X(write_lost, "a crash lost a write that was in the air")                           \
    X(write_kept, "a crash kept a write that nobody had heard of")                      \
    X(paused_leader, "a leader was paused and another elected meanwhile")               \
    X(grew_from_one, "a group founded by one member grew to three voters")              \
    X(removed_told, "a member heard from another that it had been removed")             \
    X(went_quiet, "a group went quiet")                                                 \
    X(quiet_woken, "a quiet member was woken: another process was in doubt")            \
    X(quiet_leader_crash, "the leader of a quiet group crashed")

enum rw_probe {
#define X(name, what) RW_PROBE_##name,
    RW_PROBES(X)
#undef X
        RW_PROBE_COUNT
};
extern const char *const rw_probe_names[RW_PROBE_COUNT], *const rw_probe_texts[RW_PROBE_COUNT];

/* Worlds broken on purpose: what the checks must catch. */
enum rw_sabotage {
    RW_SOUND,
    RW_VOTES_TWICE,
    RW_FORGETS_VOTE,
    RW_COUNTS_OLD_TERMS,
    RW_READS_WITHOUT_ROUND,
    RW_APPLIES_EARLY,
    RW_ACKS_EARLY,
    RW_FORGETS_TAIL,    /* a restart without the last durable entries */
    RW_REJOINS_AS_SELF, /* a lost disk comes back under the old id */
    RW_BAD_SNAPSHOT,    /* of a state that is not the log's */
    RW_SABOTAGE_COUNT
};
extern const char *const rw_sabotage_names[RW_SABOTAGE_COUNT];

struct rw_options {
    uint64_t seed;
    enum rw_sabotage sabotage;
    /* Only what a user could notice is checked: applied entries, reads, histories, leaders. */
    bool outcome_only;
    FILE *trace; /* NULL: none */
};
struct rw_result {
    bool failed;
    char text[600];
    uint64_t trace_hash, events, commits, operations;
    int64_t virtual_ns;
    uint32_t probes[RW_PROBE_COUNT];
};
/* One seed from its beginning to its end. A broken CON_INVARIANT aborts. */
void rw_run(const struct rw_options *options, struct rw_result *result);

/* ---- inside ---- */

struct rw_map { /* of hashed keys; a key once put keeps its value unless set anew */
    uint64_t *keys, *values;
    size_t count, cap;
};

struct rw_machine {
    uint64_t applied, hash;
    int64_t registers[RW_KEYS];
};

enum rw_op_kind { RW_READ, RW_WRITE, RW_CAS };
enum rw_op_state { RW_OP_PENDING, RW_OP_OK, RW_OP_ABSENT, RW_OP_UNKNOWN };
struct rw_op {
    enum rw_op_kind kind;
    enum rw_op_state state;
    bool cas_failed;
    uint32_t key;
    int64_t from, to; /* a read's answer in `to` */
    int64_t start, end;
    uint64_t floor; /* no earlier place in the log is right: something completed there before */
    uint64_t index, term;
};
struct rw_client {
    bool busy;
    int node;         /* where it believes the leader */
    uint64_t op;      /* its number */
    uint64_t turn;    /* events of earlier turns are stale */
    int64_t known[3]; /* the last value seen of the keys in use */
};

struct rw_committed {
    uint64_t term, data_hash, commit_term, machine_hash, config_index;
    enum con_entry_kind kind;
    bool cas_failed;
};

struct rw_pending_read {
    uint64_t id, index;
};

enum rw_io_kind { RW_IO_WRITE, RW_IO_SNAPSHOT, RW_IO_CHUNK };
struct rw_io { /* one write to the disk, in the air */
    enum rw_io_kind kind;
    bool durable;
    struct con_raft_output out; /* WRITE: entries owned; after: below */
    struct con_message **after;
    uint64_t index, term, drop; /* SNAPSHOT */
    struct con_config config;
    struct base_buf state;
    struct con_raft_chunk chunk; /* CHUNK: data owned */
};

struct rw_member {
    struct rw_world *world;
    struct rw_group *group;
    int node;
    bool present; /* there is a disk */
    bool witness, joining, stays_learner;
    enum { RW_NEW, RW_LOST, RW_DAMAGED } why; /* is it joining */
    uint64_t life;                            /* events of earlier lives are stale */
    struct con_raft *raft;                    /* NULL: down */
    struct raft_disk disk;
    struct rw_machine machine;
    struct rw_io *io;
    struct rw_io *chunk_waits; /* for the disk */
    struct con_entry *lent;    /* answers to fetches, till the next output was read */
    size_t lent_count;
    uint8_t *lent_data;
    struct rw_pending_read reads[RW_READS_MAX];
    size_t read_count;
    int64_t timer; /* 0: none */
    uint64_t timer_turn;
    bool pump_due, in_pump;
    uint64_t log_bytes; /* since the last snapshot */
    uint64_t join_turn;
    /* what the checks saw last */
    enum con_role role;
    uint64_t term, last, last_term, transfer;
    uint64_t granted_term, granted_by[CON_MEMBERS_MAX];
    uint32_t granted_count;
    uint32_t unanswered[RW_NODES_MAX];
    bool by_tick, voted_by_witness;
    int64_t paused_as_leader; /* its term; 0: not */
    uint64_t sure_config;     /* index of the newest configuration it took for committed */
    bool quiet;
};

struct rw_group {
    struct rw_world *world;
    int number;
    struct rw_member members[RW_NODES_MAX]; /* by node */
    struct raft_disk graves[RW_GRAVES_MAX];
    int grave_count;
    struct con_config first;
    struct rw_map facts;
    struct rw_committed *log; /* from index 1 */
    uint64_t log_count, log_cap;
    uint64_t durable_checked;
    struct rw_machine model;
    struct rw_client clients[RW_CLIENTS];
    struct rw_op *ops;
    uint64_t op_count;
    int64_t idle_till;
    uint64_t completed; /* the last place in the log that a client knows of */
    uint64_t leader_term;
    int64_t healed_op_end; /* an operation begun after the faults ended, completed; 0: none yet */
    bool founded_by_one;
};

struct rw_node {
    bool up;
    int64_t paused_till;
    int64_t clock_base, clock_world, clock_rate; /* rate: of 1024 */
    int64_t disk_min, disk_max;
};

struct rw_contact {
    int64_t heard;
    int64_t doubt; /* something was lost, which will be known then; 0: nothing was */
};

enum rw_event_kind {
    RW_EV_MESSAGE,
    RW_EV_TIMER,
    RW_EV_PUMP,
    RW_EV_IO,
    RW_EV_FETCH,
    RW_EV_CLIENT,
    RW_EV_JOIN_TRY,
    RW_EV_JOIN,
    RW_EV_LOOK,  /* at the other processes; every heartbeat */
    RW_EV_ALIVE, /* another process says so */
    RW_EV_FAULT,
    RW_EV_CRASH,
    RW_EV_RESTART,
};
struct rw_event {
    int64_t at;
    uint64_t seq;
    enum rw_event_kind kind;
    int node, group;
    uint64_t life, arg;
    void *ptr; /* given */
};

/* What this seed's world is like. */
struct rw_swarm {
    int group_count, voters, spares, witnesses;
    bool founded_by_one;
    uint32_t faults; /* bits of enum rw_fault */
    int64_t fault_mean, faults_till;
    int64_t delay_min, delay_max;
    bool fifo;
    uint32_t loss, duplicate; /* permille */
    uint32_t chunk_loss;
    int64_t think_mean;
    uint32_t idle;  /* permille of thoughts after which all clients of a group do nothing */
    uint32_t reads; /* percent */
    uint64_t snapshot_entries, keep_entries;
    uint32_t lazy;            /* permille: outputs taken later than inputs come */
    uint32_t crash_receiving; /* permille of chunks */
    uint32_t short_lived_cut; /* permille of the others that are not reached */
    uint32_t short_lived; /* permille of leaders: reach only some members, then crash: figure 8 */
    uint32_t kept_write;  /* permille of crashes that keep the write in the air */
    uint32_t fetch_fails; /* permille */
    bool witness_full;    /* witnesses have no room and drop what others may lack */
    struct con_raft_options raft;
};

struct rw_world {
    struct rw_options options;
    struct rw_result *result;
    struct rw_swarm swarm;
    uint64_t random, next_seq;
    int64_t now;
    struct rw_event *heap;
    size_t heap_count, heap_cap;
    int node_count;
    struct rw_node nodes[RW_NODES_MAX];
    bool cut[RW_NODES_MAX][RW_NODES_MAX];
    int64_t arrives_last[RW_NODES_MAX][RW_NODES_MAX];      /* fifo */
    struct rw_contact contact[RW_NODES_MAX][RW_NODES_MAX]; /* of a node with another */
    struct rw_group *groups;
    bool faulting, clients_stop;
    bool broken; /* a check failed: nothing goes on */
};

/* raft_world.c */
uint64_t rw_random(struct rw_world *world);
int64_t rw_between(struct rw_world *world, int64_t low, int64_t high); /* both included */
bool rw_chance(struct rw_world *world, uint32_t permille);
uint64_t rw_hash(uint64_t hash, uint64_t value);
uint64_t rw_hash_bytes(uint64_t hash, struct base_bytes bytes);
void rw_push(struct rw_world *world, int64_t at, enum rw_event_kind kind, int node, int group,
             uint64_t life, uint64_t arg, void *ptr);
/* Sets it when it is not there; else returns false and *there. */
bool rw_map_put(struct rw_map *map, uint64_t key, uint64_t value, uint64_t *there);
void rw_map_free(struct rw_map *map);
bool rw_map_get(const struct rw_map *map, uint64_t key, uint64_t *value);
void rw_fail(struct rw_world *world, const char *fmt, ...) BASE_PRINTF(2, 3);
void rw_trace(struct rw_world *world, const char *fmt, ...) BASE_PRINTF(2, 3);
void rw_send(struct rw_member *from, const struct con_message *message);
int64_t rw_node_now(const struct rw_world *world, int node);
int64_t rw_node_world(const struct rw_world *world, int node, int64_t deadline);
static inline void rw_probe(struct rw_world *world, enum rw_probe probe)
{
    world->result->probes[probe]++;
}
static inline int rw_id_node(uint64_t id)
{
    return (int)(id & 0xff) - 1;
}
bool rw_awake(const struct rw_world *world, int node);

/* raft_member.c */
struct con_member rw_member_value(const struct rw_member *member);
bool rw_leads(const struct rw_member *member);
struct rw_member *rw_leader(struct rw_group *group); /* of the highest term; NULL: none is up */
void rw_member_found(struct rw_member *member, const struct con_config *first, uint64_t id);
void rw_member_join(struct rw_member *member, bool witness, bool stays_learner);
void rw_member_start(struct rw_member *member);
void rw_member_crash(struct rw_member *member);
void rw_member_end(struct rw_member *member);
void rw_member_bury(struct rw_member *member);
void rw_join_try(struct rw_member *member);
void rw_join_arrives(struct rw_member *at, int from);
void rw_member_doubt(struct rw_member *member); /* without a leader: may it have been removed? */

/* raft_driver.c */
void rw_member_input(struct rw_member *member); /* after an input: takes outputs, now or soon */
void rw_member_event(struct rw_member *member, const struct rw_event *event);
void rw_member_receive(struct rw_member *member, const struct con_message *message);
void rw_apply(struct rw_member *member, const struct con_entry *entry);
void rw_io_free(struct rw_io *io);
/* What is written becomes durable; nobody is told yet. */
bool rw_io_do(struct rw_member *member, struct rw_io *io);
void rw_lent_free(struct rw_member *member);

/* raft_contact.c */
/* A message between the two was lost. */
void rw_contact_doubt(struct rw_world *world, int a, int b);
void rw_contact_heard(struct rw_world *world, int node, int other);
void rw_contact_event(struct rw_world *world, const struct rw_event *event);
void rw_contact_crash(struct rw_world *world, int node);

/* raft_check.c: each fails the world when something is not as it must be */
void rw_check_send(struct rw_member *from, const struct con_message *message);
void rw_check_deliver(struct rw_member *to, const struct con_message *message);
void rw_check_entries(struct rw_member *member, const struct con_entry *entries, size_t count);
void rw_check_write(struct rw_member *member, const struct con_raft_output *out); /* before it */
void rw_check_applied(struct rw_member *member, const struct con_entry *entry);
void rw_check_snapshot(struct rw_member *member);
void rw_check_removed(struct rw_member *member, uint64_t index);       /* it is told so */
void rw_check_witness_drops(struct rw_member *member, uint64_t index); /* before it */
void rw_check_member(struct rw_member *member);
void rw_check_crash(struct rw_member *member);
void rw_check_start(struct rw_member *member);

/* raft_clients.c */
void rw_machine_apply(struct rw_machine *machine, const struct con_entry *entry, bool *cas_failed);
void rw_machine_save(const struct rw_machine *machine, struct base_buf *out);
bool rw_machine_load(struct rw_machine *machine, struct base_bytes in);
void rw_clients_begin(struct rw_group *group);
void rw_client_event(struct rw_group *group, const struct rw_event *event);
void rw_clients_applied(struct rw_member *member, const struct con_entry *entry);
void rw_clients_read(struct rw_member *member, uint64_t id, bool refused);
void rw_clients_crash(struct rw_member *member);
/* The operation this entry carries; -1: none. */
int64_t rw_entry_op(const struct con_entry *entry);
void rw_clients_check(struct rw_group *group);

/* raft_faults.c */
void rw_swarm_draw(struct rw_world *world);
void rw_fault_leader(struct rw_member *member); /* it was just elected */
void rw_fault_event(struct rw_world *world, const struct rw_event *event);
void rw_faults_end(struct rw_world *world);
/* Asks for it, as a driver or a person would. */
bool rw_change(struct rw_member *leader, const struct con_config *next);
/* What a person would do after the faults: members that are gone for good are taken out. */
void rw_tidy(struct rw_group *group);

#endif
