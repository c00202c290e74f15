/* raft_hand.h: a group of members driven by hand: every message waits in `flight` until the test
 * delivers it, drops it, or lets all settle. Disks are at once durable unless told to hold. Member
 * i (from 1) has id i until its disk is lost. */
#ifndef TESTS_RAFT_HAND_H
#define TESTS_RAFT_HAND_H

#include "raft_model.h"
#include "test.h"

enum { HAND_MAX = 10, HAND_FLIGHT_MAX = 4096, HAND_MS = 1000000, HAND_READS_MAX = 64 };

struct hand_member {
    struct con_raft *raft; /* NULL: down */
    struct raft_disk disk;
    int64_t now;
    struct base_buf state;       /* the machine: all commands, one after the other */
    uint64_t applied;            /* last index */
    bool hold_writes;            /* outputs' writes stay in the air till hand_written */
    bool writing;                /* one is in the air */
    bool hold_chunks;            /* so do chunks, till hand_chunk_stored */
    struct con_raft_chunk chunk; /* in the air; data is owned */
    struct con_config chunk_config;
    struct con_raft_output write; /* entries and after are owned */
    struct con_raft_read reads[HAND_READS_MAX];
    size_t read_count;
    size_t fetches; /* how many were asked for */
};

struct hand {
    struct con_raft_options options;
    struct hand_member members[HAND_MAX];
    struct con_message *flight[HAND_FLIGHT_MAX];
    size_t flight_count;
    bool cut[HAND_MAX][HAND_MAX]; /* from, to: what is sent there is lost */
    bool fail_fetches;
    size_t sent[CON_TIMEOUT_NOW + 1];
};

/* Members 1 to `voters` in the group's first configuration, all followers. options NULL: plain. */
struct hand *hand_new(uint32_t voters, const struct con_raft_options *options);
/* The same with this first configuration. */
struct hand *hand_new_config(const struct con_config *first,
                             const struct con_raft_options *options);
void hand_free(struct hand *hand);
/* A member that knows of no group, with an empty disk. */
void hand_join(struct hand *hand, uint64_t id);

/* Takes the member's outputs until there are none: they go to its disk, machine and `flight`. */
void hand_run(struct hand *hand, uint64_t id);
/* The write in the air is durable. */
void hand_written(struct hand *hand, uint64_t id);
void hand_chunk_stored(struct hand *hand, uint64_t id);
/* Delivers until nothing is in flight; `rounds` at most, then fails the test. */
void hand_settle(struct hand *hand);
void hand_deliver(struct hand *hand, const struct con_message *message);
/* Takes the first in flight of that kind (0: any) from and to (0: any); NULL: none. Given: free. */
struct con_message *hand_take(struct hand *hand, enum con_message_kind kind, uint64_t from,
                              uint64_t to);
void hand_drop_all(struct hand *hand);
void hand_isolate(struct hand *hand, uint64_t id, bool isolated); /* both ways */

void hand_tick(struct hand *hand, uint64_t id, int64_t ms);
/* Time passes for all that are up, in steps of 10 ms, everything settles in between. */
void hand_pass(struct hand *hand, int64_t ms);
/* Time passes, but nobody acts by it: who heard a leader has forgotten it. */
void hand_age(struct hand *hand, int64_t ms);
void hand_elect(struct hand *hand, uint64_t id); /* ages, campaigns, settles, must lead */
void hand_crash(struct hand *hand, uint64_t id);
void hand_restart(struct hand *hand, uint64_t id);
/* Must be taken. Returns the index. */
uint64_t hand_propose(struct hand *hand, uint64_t id, const char *command);
enum con_refusal hand_change(struct hand *hand, uint64_t id, const struct con_config *next);
/* Takes a snapshot of all that is applied and forgets entries up to `drop`. */
void hand_compact(struct hand *hand, uint64_t id, uint64_t drop);

struct con_raft_status hand_status(const struct hand *hand, uint64_t id);
bool hand_leads(const struct hand *hand, uint64_t id);
uint64_t hand_leader(const struct hand *hand); /* of the highest term; 0: none */
/* "1 1 2": the terms of the entries on its disk from `begin` on. Static buffer. */
const char *hand_terms(const struct hand *hand, uint64_t id);
const char *hand_state(const struct hand *hand, uint64_t id);
/* The answer to a read: NULL when there is none yet. */
const struct con_raft_read *hand_read(const struct hand *hand, uint64_t member, uint64_t id);
struct con_member hand_voter(uint64_t id);
struct con_config hand_voters(uint32_t count);

#endif
