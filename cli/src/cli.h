/* cli.h: the `strata` command: its subcommands and what they share. Private to cli. A subcommand
 * is a function on the main fiber of a real env; it returns the exit value. The cell it works on
 * is the folder of --dir, $STRATA_DIR, or ./.strata. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdio.h>

#include "base/arena.h"
#include "chassis/env.h"
#include "chassis/leader.h"
#include "strata/clustermgr/v1/agent.strata.h"
#include "strata/clustermgr/v1/cell.strata.h"
#include "strata/clustermgr/v1/names.strata.h"

#define CLI_PB(Type) Strata__Clustermgr__V1__##Type
#define CLI_NEW(arena, Type, lower) \
    CH_MESSAGE(arena, Strata__Clustermgr__V1__##Type, strata__clustermgr__v1__##lower)
#define CLI_TASK(STATE) STRATA__CLUSTERMGR__V1__TASK_STATE__TASK_##STATE

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };
enum { CLI_MACHINES_MAX = 64, CLI_MASTERS_MAX = 9, CLI_FRONTS = 2, CLI_CALL_MS = 5000 };

/* ---- the cell's file (cell_file.c): what `up` decided, in DIR/cell.json ---- */
struct cli_machine {
    char *name, *address, *zone;
};
struct cli_front {
    const char *name;     /* "datastore" */
    const char *variable; /* "DATASTORE_EMULATOR_HOST" */
    int port;
};
struct cli_cell {
    char *cell;
    int master_port; /* of each clustermaster, at its machine's address */
    char *host;      /* of the front doors */
    /* The machines that have a clustermaster. The first founds the group while `founded` is false;
     * it is set for good once the cell has answered. */
    const char *masters[CLI_MASTERS_MAX];
    size_t master_count;
    bool founded;
    char *state; /* "etcd://…": where the clustermasters keep the cell's state; "": with them */
    struct cli_machine machines[CLI_MACHINES_MAX];
    size_t machine_count;
    struct cli_front fronts[CLI_FRONTS];
};

struct cli {
    struct ch_env *env;
    struct base_arena arena;
    char *dir;     /* whole path */
    char *bin_dir; /* where this program is */
    bool verbose;
    struct cli_cell cell;
    bool cell_there; /* cell.json was there */
    struct ch_leader *master;
};

/* NOT_FOUND when there is none. */
struct base_status cli_cell_load(struct cli *cli) CH_WAITS BASE_MUST_CHECK;
struct base_status cli_cell_save(struct cli *cli) CH_WAITS BASE_MUST_CHECK;
/* Loads it, or says that there is none and how to make one; false: return CLI_FAILED. */
bool cli_cell_need(struct cli *cli) CH_WAITS;
/* "127.0.0.1:7340"; of all: with commas between. */
const char *cli_master_address(struct cli *cli, const char *machine);
const char *cli_master_addresses(struct cli *cli);
bool cli_has_master(const struct cli *cli, const char *machine);
const struct cli_machine *cli_machine_find(struct cli *cli, const char *name);
const char *cli_front_address(struct cli *cli, const struct cli_front *front);

/* ---- talking to the cell (rpc.c) ---- */
/* One call to the clustermaster that leads; method: an index of the Cell service. `reply` lives in
 * cli->arena. */
struct base_status cli_cell_call(struct cli *cli, int method, const void *request,
                                 int64_t timeout_ms, void *reply) CH_WAITS BASE_MUST_CHECK;
struct base_status cli_names_call(struct cli *cli, int method, const void *request,
                                  int64_t timeout_ms, void *reply) CH_WAITS BASE_MUST_CHECK;
struct base_status cli_agent_call(struct cli *cli, const char *address, int method,
                                  const void *request, int64_t timeout_ms,
                                  void *reply) CH_WAITS BASE_MUST_CHECK;
/* grpc.health.v1 at an address says SERVING. */
bool cli_serving(struct cli *cli, const char *address) CH_WAITS;
/* copies.c */
struct base_status cli_jobs_get(struct cli *cli, int64_t timeout_ms,
                                CLI_PB(ListJobsReply) * *jobs) CH_WAITS BASE_MUST_CHECK;
/* Waits for a machine that the cell has not got: a job of which no two tasks may be on one machine
 * has more tasks than there are machines. */
bool cli_task_for_later(const struct cli *cli, const CLI_PB(ListJobsReply) * jobs,
                        const CLI_PB(ListTasksReply) * tasks, const CLI_PB(Task) * task);
/* A line on how many servers keep each block, and what has fewer than wanted; NULL: nobody says. */
const char *cli_copies_text(struct cli *cli, const CLI_PB(ListTasksReply) * tasks) CH_WAITS;
/* The agent's address of a machine. */
struct base_status cli_agent_address(struct cli *cli, struct base_bytes machine,
                                     const char **address) CH_WAITS BASE_MUST_CHECK;
/* "job/3" or "job" (task 0). False, with a word to stderr, when it is neither. */
bool cli_task_parse(struct cli *cli, const char *text, const char **job, uint32_t *index);
struct base_status cli_task_find(struct cli *cli, const char *job, uint32_t index,
                                 CLI_PB(Task) * *task) CH_WAITS BASE_MUST_CHECK;
/* Prints "strata: <text>" with a hint where one helps, ends the status, returns CLI_FAILED. */
int cli_fail(struct cli *cli, struct base_status status);
int cli_usage(const char *text);
const char *cli_str(struct cli *cli, ProtobufCBinaryData data);

/* ---- processes of the cell (processes.c), found by their environment ---- */
struct cli_process {
    int pid;
    char role[16]; /* "init", "agent", "master", "task" */
    char machine[64];
    char task[64]; /* "job/0" */
};
/* All of the cell in DIR (of one machine, when named); at most *count. Nothing else is ever
 * signalled. */
struct cli_process *cli_processes(struct cli *cli, const char *machine, size_t *count);
/* Signals those of a role ("": all). Returns how many. */
size_t cli_signal(struct cli *cli, const char *machine, const char *role, int signal);
/* Waits until none of the role is left; false at the deadline. */
bool cli_wait_gone(struct cli *cli, const char *machine, const char *role,
                   int64_t timeout_ms) CH_WAITS;
bool cli_init_alive(struct cli *cli, const char *machine);

/* ---- the groups of masters (masters.c) ---- */
/* NULL: every master is a full member of its group. Else what is waited for. */
const char *cli_masters_missing(struct cli *cli) CH_WAITS;

/* ---- ports (ports.c) ---- */
bool cli_port_free(const char *host, int port);
int cli_port_any(const char *host); /* a free one; 0: none */
/* From the choice of ports till they are bound, one cell of this user at a time. NULL: not to be
 * had, which is no reason not to go on. */
struct ch_file *cli_ports_lock(struct cli *cli) CH_WAITS;

/* ---- starting and stopping machines (machine.c, down.c) ---- */
struct base_status cli_machine_start(struct cli *cli,
                                     const struct cli_machine *machine) CH_WAITS BASE_MUST_CHECK;
/* Stops one machine, or all ("": NULL): gracefully, or at once. False when something is left. */
bool cli_stop(struct cli *cli, const char *machine, bool at_once) CH_WAITS;
/* Stops its init, agent and clustermaster, and starts them as the cell's file now says; tasks
 * stay. */
struct base_status cli_machine_renew(struct cli *cli,
                                     const struct cli_machine *machine) CH_WAITS BASE_MUST_CHECK;
const char *cli_machine_dir(struct cli *cli, const char *machine);
/* DIR/lock: up and down one at a time. */
struct base_status cli_lock(struct cli *cli, struct ch_file **lock) CH_WAITS BASE_MUST_CHECK;

/* ---- subcommands ---- */
typedef int cli_fn(struct cli *cli, int argc, char **argv);
#define CLI_COMMAND(name) int name(struct cli *cli, int argc, char **argv) CH_WAITS
CLI_COMMAND(cli_up);
CLI_COMMAND(cli_down);
CLI_COMMAND(cli_status);
CLI_COMMAND(cli_ps);
CLI_COMMAND(cli_why);
CLI_COMMAND(cli_logs);
CLI_COMMAND(cli_job);
CLI_COMMAND(cli_names);
CLI_COMMAND(cli_locks);
CLI_COMMAND(cli_env);
CLI_COMMAND(cli_kill);
CLI_COMMAND(cli_masters);
CLI_COMMAND(cli_machine);
CLI_COMMAND(cli_machine_init);
CLI_COMMAND(cli_sample);
CLI_COMMAND(cli_index);
/* Without a cell or an env. */
int cli_new_service(int argc, char **argv);

/* ---- flags (args.c): "--name value" or "--name=value", taken out of argv ---- */
/* The value or NULL; *argc and argv lose it. */
const char *cli_take_flag(int *argc, char **argv, const char *name);
/* True when the flag is absent (*number stays) or is min to max (*number is it, the flag is
 * taken out); else false, with a word to stderr. */
bool cli_take_number(int *argc, char **argv, const char *name, int min, int max, int *number);
bool cli_take_switch(int *argc, char **argv, const char *name);
/* False, with a word to stderr, when flags are left or there are not min to max words. */
bool cli_args_end(int argc, char **argv, int min, int max, const char *usage);

/* ---- tables (table.c) ---- */
struct cli_table {
    struct base_arena *arena;
    const char *cells[16];
    size_t columns, rows;
    const char **text; /* rows x columns */
    size_t cap;
};
void cli_table_init(struct cli_table *table, struct base_arena *arena, size_t columns,
                    const char *const *heads);
void cli_table_row(struct cli_table *table, const char *const *cells);
void cli_table_print(const struct cli_table *table, FILE *out);

#endif
