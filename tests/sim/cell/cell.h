/* cell.h: a whole cell in one process, from a seed: three machines, each with a clustermaster and
 * a clusteragent; what the clustermasters place on them (jobs/ of this repository): three
 * blockmasters and blockservers, a tabletmaster, three tabletservers, two txservers, two
 * queryservers; and clients that speak google.datastore.v1. Nothing is a double: below the daemons
 * are the simulated network, disks and clock, and processes (chassis/process.h) that are simulated
 * nodes.
 *
 * Files: cell_world.c (machines, their power and init, jobs), cell_process.c (processes),
 * cell_api.c (the public API as functions), cell_clients.c (who calls what when), cell_bank.c,
 * cell_items.c, cell_lists.c (the loads, each with its model and its checks), cell_faults.c (what
 * goes wrong), test_cell.c. */
#ifndef CELL_H
#define CELL_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chassis/rpc_client.h"
#include "chassis/service.h"
#include "chassis/sim.h"
#include "checker.h"
#include "google/datastore/v1/datastore.pb-c.h"

enum {
    CELL_MACHINES = 3,
    CELL_PROGRAMS_MAX = 64,
    CELL_CLIENTS = 6,
    CELL_QUERYSERVERS = 2,
    CELL_ACCOUNTS = 8,
    CELL_ITEMS = 24,
    CELL_LISTS = 5,
    CELL_REGISTERS = 3,
    CELL_PID_FIRST = 10000000, /* no real process has it */
    CELL_CAUGHT = 42,          /* exit value of a world that lies, when a check has seen it */
};

/* A program on a machine, with its part of the machine's disk: a simulated node. */
struct cell_program {
    char name[64]; /* "tabletserver.1@m2" */
    size_t machine;
    struct ch_sim_node *node;
    struct ch_service_args args; /* of the last start; they live as long as the world */
    const char *port_file;       /* on its own disk; NULL: none */
    const char *environ_text;    /* as /proc/PID/environ */
    size_t environ_len;
    int64_t pid; /* of the last start */
    bool killed; /* the last start, by SIGKILL */
};

struct cell_machine {
    char name[8], host[16];
    bool on;
    struct cell_program *master, *agent;
};

struct cell_client {
    struct ch_sim_node *node;
    char name[16], host[16];
    size_t index;
    uint64_t done;       /* calls that succeeded */
    uint64_t kinds_done; /* a bit for each load that succeeded since it was cleared */
};

struct cell_options {
    /* To prove the checks: commits that begin with an entity of this kind are now and then taken
     * for done and not sent; NULL: all are sent. */
    const char *lost_kind;
    bool disks_lie; /* the same: some syncs do nothing */
};

struct cell {
    struct ch_sim *sim;
    uint64_t seed;
    struct cell_options options;
    struct base_arena arena; /* of the world's whole life */
    struct cell_machine machines[CELL_MACHINES];
    struct cell_program *programs[CELL_PROGRAMS_MAX];
    size_t program_count;
    int64_t pids;
    char masters[128]; /* of the clustermaster, addresses */
    bool founded;
    struct ch_gate gate; /* inits, faults */
    struct cell_client clients[CELL_CLIENTS];
    bool stop; /* clients */
    struct cell_bank *bank;
    struct cell_items *items;
    struct cell_lists *lists;
    struct {
        uint64_t ok, failed, unknown, faults, starts;
    } counts;
};
extern struct cell cell; /* one at a time */

#define MUST(cond, ...)                                 \
    do {                                                \
        if (!(cond))                                    \
            cell_fail(__FILE__, __LINE__, __VA_ARGS__); \
    } while (0)
void cell_fail(const char *file, int line, const char *fmt, ...) BASE_PRINTF(3, 4)
    __attribute__((noreturn));

/* ---- the world ---- */
void cell_begin(uint64_t seed, const struct cell_options *options);
void cell_end(void);
/* In a fiber of the tester: starts the machines, submits the jobs, waits until all is healthy. */
void cell_up(void) CH_WAITS;
void cell_down(void) CH_WAITS; /* ends the fibers that cell_up began */
/* All tasks run and are healthy by then. */
void cell_wait_healthy(ch_time bound) CH_WAITS;
struct ch_env *cell_env(void); /* the tester's */
uint64_t cell_below(uint64_t bound);
void cell_rest(ch_time min, ch_time max) CH_WAITS;

/* Power: everything on the machine ends at once, un-synced bytes are lost; on: init starts. */
void cell_machine_off(size_t machine);
void cell_machine_on(size_t machine);

/* ---- programs ---- */
struct cell_program *cell_program(size_t machine, const char *name);
struct cell_program *cell_program_of(struct ch_env *env);
/* argv is copied; its first says which program: "tabletserver" or "/bin/tabletserver". */
void cell_program_start(struct cell_program *program, const char *const *argv);

/* ---- the public API ---- */
struct ds_api {
    struct ch_env *env;
    struct ch_naming *naming;
    struct ch_client *servers[CELL_QUERYSERVERS];
    size_t server; /* used now */
};
typedef Google__Datastore__V1__Key ds_key;
typedef Google__Datastore__V1__Entity ds_entity;
typedef Google__Datastore__V1__Mutation ds_mutation;
enum ds_outcome { DS_DONE, DS_FAILED, DS_UNKNOWN };
enum ds_mode { DS_READ_WRITE, DS_READ_ONLY };

void ds_open(struct ds_api *api, struct ch_env *env, size_t server);
void ds_close(struct ds_api *api) CH_WAITS;
ds_key *ds_key_new(struct base_arena *arena, const char *kind, const char *name);
ds_entity *ds_entity_new(struct base_arena *arena, const char *kind, const char *name);
void ds_set_int(struct base_arena *arena, ds_entity *entity, const char *name, int64_t value);
void ds_set_text(struct base_arena *arena, ds_entity *entity, const char *name,
                 const char *value); /* not indexed */
/* MUST be there. */
int64_t ds_int(const ds_entity *entity, const char *name);
struct base_bytes ds_text(const ds_entity *entity, const char *name);
struct base_bytes ds_name(const ds_entity *entity); /* of its key */
ds_mutation *ds_upsert(struct base_arena *arena, ds_entity *entity);
ds_mutation *ds_insert(struct base_arena *arena, ds_entity *entity);
ds_mutation *ds_delete(struct base_arena *arena, ds_key *key);

/* Each returns false when it failed (no effect but for a commit's, see ds_commit). A token of
 * length 0: without a transaction. */
bool ds_begin(struct ds_api *api, struct base_arena *arena, enum ds_mode mode,
              struct base_bytes *token) CH_WAITS;
/* found[i]: NULL when there is none. */
bool ds_lookup(struct ds_api *api, struct base_arena *arena, struct base_bytes token, ds_key **keys,
               size_t count, ds_entity **found) CH_WAITS;
/* All entities of a kind; with `property`: of this value. One snapshot: more than a batch needs a
 * transaction. */
bool ds_query(struct ds_api *api, struct base_arena *arena, struct base_bytes token,
              const char *kind, const char *property, int64_t value, ds_entity ***found,
              size_t *count) CH_WAITS;
/* In the transaction, or NON_TRANSACTIONAL. An unknown outcome of a transaction may be asked for
 * again. */
enum ds_outcome ds_commit(struct ds_api *api, struct base_arena *arena, struct base_bytes token,
                          ds_mutation **mutations, size_t count) CH_WAITS;
void ds_rollback(struct ds_api *api, struct base_arena *arena, struct base_bytes token) CH_WAITS;

/* ---- clients and loads ---- */
void cell_clients_start(void);
void cell_clients_stop(void) CH_WAITS;
/* Every client gets through with every load, by then. */
void cell_wait_served(ch_time bound) CH_WAITS;

/* Each: begin makes its entities; step is one thing a client does, true when it succeeded; check
 * is the last word, after the clients have stopped. */
void bank_begin(struct ds_api *api) CH_WAITS;
bool bank_step(struct ds_api *api, struct cell_client *client) CH_WAITS;
void bank_check(struct ds_api *api) CH_WAITS;
void bank_free(void);
void items_begin(struct ds_api *api) CH_WAITS;
bool items_step(struct ds_api *api, struct cell_client *client) CH_WAITS;
void items_check(struct ds_api *api) CH_WAITS;
void items_free(void);
void lists_begin(struct ds_api *api) CH_WAITS;
bool lists_step(struct ds_api *api, struct cell_client *client) CH_WAITS;
void lists_check(struct ds_api *api) CH_WAITS;
void lists_free(void);
bool registers_step(struct ds_api *api, struct cell_client *client) CH_WAITS;
void registers_check(struct ds_api *api) CH_WAITS;

/* ---- faults ---- */
enum fault_kind {
    FAULT_KILL = 1,      /* kill -9 of a task */
    FAULT_KILL_CORE = 2, /* of a clustermaster or clusteragent */
    FAULT_STOP = 4,      /* SIGTERM */
    FAULT_POWER = 8,     /* of a machine */
    FAULT_PAUSE = 16,    /* of a process */
    FAULT_CUT = 32,      /* between machines, or machines and clients; both ways */
    FAULT_CUT_ONE_WAY = 64,
    FAULT_SILENT = 128, /* a machine is cut off from all others */
    FAULT_SLOW_NET = 256,
    FAULT_FLAKY = 512,
    FAULT_CLOCK = 1024,
    FAULT_SLOW_DISK = 2048,
    FAULT_POWER_ALL = 4096, /* of all machines at once */
    FAULT_FULL_DISK = 8192,
};
enum { FAULTS_ALL = 16383, FAULT_KINDS = 14 };
/* In a fiber of the tester; comes back when the time is over and all is healed. */
void cell_faults(unsigned kinds, ch_time length, ch_time pause_max) CH_WAITS;

#endif
