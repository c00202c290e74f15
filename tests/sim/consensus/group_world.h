/* group_world.h: groups of real con_log in a simulated world: one node a member, RPC between them,
 * disks that lose and flip, clients on every node, and checks at every step of what they saw.
 *
 * The machine is a list of commands: an append puts one at its end and answers with its place, a
 * read answers with how many there are. A state is a prefix of one list, so the history is
 * linearizable exactly when all members agree on the list and every answer is no older than what
 * was answered before its question (world.frontier). */
#ifndef TESTS_GROUP_WORLD_H
#define TESTS_GROUP_WORLD_H

#include "chassis/rpc_server.h"
#include "chassis/sim.h"
#include "con_store_memory.h"
#include "consensus/log.h"
#include "consensus/node.h"

enum { MEMBERS_MAX = 6, COMMANDS_MAX = 40000, CLIENTS = 3 };

struct item {
    uint64_t index, id;
};
struct list {
    struct item *items;
    size_t count;
};
enum wish { WISH_NOTHING, WISH_TRANSFER, WISH_REMOVE, WISH_VOTER };

struct world;
struct member {
    struct world *world;
    int number;
    char name[16], host[16], target[32];
    struct ch_sim_node *node;
    struct con_memory *memory; /* instead of the disk */

    /* ---- how it is opened ---- */
    bool found, witness, learner, as_alone;

    /* ---- of the present life ---- */
    struct ch_env *env;
    struct con_log *log; /* NULL: not open */
    struct list list;
    uint64_t led, life;
    struct base_status opened;
    enum wish wish;
    uint64_t wish_member;
    struct base_status wished; /* what came of it */
    bool wish_done;
};

struct world {
    struct ch_sim *sim;
    uint64_t seed;
    struct member members[MEMBERS_MAX];
    int count;
    uint64_t snapshot_bytes;
    size_t command_len;
    bool quiet;    /* clients do nothing */
    ch_time pause; /* between a client's operations, at most */
    ch_time election, heartbeat;

    uint64_t chosen[COMMANDS_MAX * 2]; /* command at an index, as first applied anywhere */
    uint64_t next_id, next_life;
    uint8_t fate[COMMANDS_MAX];    /* of a command: enum fate */
    uint8_t applied[COMMANDS_MAX]; /* anywhere */
    uint64_t place[COMMANDS_MAX];  /* acknowledged: in the list, from 1 */
    uint64_t frontier;             /* what has been answered */
    uint64_t acked, reads, unknown, refused;
    uint64_t leaders[4096]; /* life that led a term */
    ch_time acked_at;       /* the last one; */
    ch_time gap_max;        /* the longest time without */
};

/* `count` members, started, the first as founder; `memory` of them keep their log in memory. */
struct world *world_new(uint64_t seed, int count, bool memory);
void world_start(struct world *world); /* all that do not run */
void member_start(struct member *member);
void member_crash(struct member *member); /* power loss */
void member_stop(struct member *member);  /* in order */
/* Its disk is empty; it must not run. */
void member_lose(struct member *member);
/* Flips a bit of what is acknowledged in its log; false: there is none. It must not run. */
bool member_flip(struct member *member);
void world_run(struct world *world, ch_time time);
/* Until `until(world)`, for `time` at most. */
bool world_until(struct world *world, bool (*until)(struct world *world), ch_time time);
struct member *world_leader(struct world *world); /* NULL: none */
/* Every member of `world` is a voter of one settled configuration, alone; they run and agree. */
bool world_whole(struct world *world);
bool world_led(struct world *world);
/* Heals, starts and waits until all have the same; checks that it is what clients were told. */
void world_end(struct world *world);
void world_free(struct world *world);

/* ---- steps of tests: each fails the test when it cannot be done ---- */

/* On disks, started, and whole for a while. */
struct world *world_formed(uint64_t seed, int count);
/* More is acknowledged within `time`. */
void world_goes_on(struct world *world, ch_time time);
struct member *world_follower(struct world *world);
/* 0: it is none. */
uint64_t member_id(struct world *world, const struct member *member);
/* The leader is asked for it; what came of it is the caller's. */
struct base_status world_wish(struct world *world, enum wish what, uint64_t member);

#endif
