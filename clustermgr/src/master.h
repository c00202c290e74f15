/* master.h: a clustermaster in the running: its state under the log, what only the leader knows,
 * its services. Private to clustermgr. One struct, no globals: several can run in one (simulated)
 * process. */
#ifndef CLU_MASTER_H
#define CLU_MASTER_H

#include "chassis/metrics.h"
#include "chassis/rpc_server.h"
#include "chassis/service.h"
#include "consensus/node.h"
#include "state.h"

enum {
    CLU_LEASE_MS_MIN = 500,
    CLU_LEASE_MS_MAX = 120000,
    CLU_LEASE_MS_DEFAULT = CH_SESSION_LEASE_MS,
    CLU_WATCH_HEARTBEAT_MS = 1000,
    CLU_PROPOSE_MS = 10000,
    CLU_RETIRE_MS = 1000, /* handing leadership over, when asked to stop */
    CLU_FRONTS_MAX = 16,
    CLU_ELECTION_MS = 700, /* missed for so long to twice as long, a leader is replaced */
    CLU_HEARTBEAT_MS = 150,
};

struct clu_master_config {
    char *fronts;               /* "datastore=127.0.0.1:8081,bigtable=127.0.0.1:8086" */
    ch_time machine_dead_after; /* not heard of for so long: its tasks move */
    int64_t moves_per_second;   /* tasks that leave dead machines */
    uint64_t snapshot_bytes;
    char *members; /* "127.0.0.1:7340,127.0.0.2:7340": of the group; "": this one alone, for good */
    bool found;
    char *state; /* "etcd://…"; "": in the data folder */
};

struct clu_front {
    char *name, *address;
};

struct clu_master {
    struct ch_env *env;
    const struct clu_master_config *config;
    char *cell;
    struct clu_state *state;
    struct con_node *node; /* NULL: a group of one for good */
    struct con_log *log;
    uint64_t term;          /* this member leads, everything committed is applied; 0: it does not */
    struct ch_gate gate;    /* the leader's fibers */
    struct ch_cond changed; /* after every command applied, and with every change of `term` */
    struct clu_front fronts[CLU_FRONTS_MAX];
    size_t front_count;
    struct ch_server *server;
    struct {
        struct ch_counter *commands, *sessions_ended, *machines_lost, *placements, *moves;
        struct ch_gauge *sessions, *nodes, *machines_up, *tasks_pending, *version, *leads;
        struct ch_histogram *schedule_ns, *propose_ns;
    } metrics;
};

extern const struct ch_service_def clu_master_def;

/* Proposes a command and waits until it is applied; *reply is in `arena`. A command that failed
 * is a failed status. */
struct base_status clu__propose(struct clu_master *master, CLU_PB(Command) * command,
                                ch_time deadline, struct base_arena *arena,
                                CLU_PB(CommandReply) * *reply) CH_WAITS BASE_MUST_CHECK;
/* Before anything is read to be answered: this member leads, and what it has applied is all there
 * was when the call came. FAILED_PRECONDITION "not the leader; it is at X". */
struct base_status clu__barrier(struct clu_master *master,
                                struct ch_call *call) CH_WAITS BASE_MUST_CHECK;
/* That refusal, for those who wait while they see `term` change. */
struct base_status clu__not_leader(const struct clu_master *master) BASE_MUST_CHECK;
/* Deadline for proposals that nobody's call bounds, and for those of a call. */
ch_time clu__propose_deadline(struct clu_master *master, struct ch_call *call);
/* Waits for the next change, at most till the deadline and a second: then whoever waits looks at
 * clu__stopping. */
enum ch_outcome clu__changed_wait(struct clu_master *master,
                                  ch_time deadline) CH_WAITS BASE_MUST_CHECK;
bool clu__stopping(const struct clu_master *master);
const char *clu__front_of(const struct clu_master *master,
                          const struct clu_task *task); /* "host:port" or "" */

/* names.c, cell.c: register their handlers. */
void clu__names_serve(struct clu_master *master, struct ch_server *server);
void clu__cell_serve(struct clu_master *master, struct ch_server *server);

/* lead.c: that one of the members leads. */
void clu__led(void *self, uint64_t term);
ch_fiber_fn clu__lead_fiber, clu__log_fiber;
void clu__retire(void *self) CH_WAITS;

/* leases.c: the end of sessions and machines that are not heard of. */
ch_fiber_fn clu__leases_fiber;
/* Extends a session's lease from now; false when it has ended or is about to. */
bool clu__lease_extend(struct clu_master *master, uint64_t session);
void clu__machine_heard(struct clu_master *master, struct clu_machine *machine);

/* scheduler.c */
ch_fiber_fn clu__scheduler_fiber;
struct clu_view;
/* The state as a view, in `arena`. `subject`, when not NULL, gets the view's index of that task
 * in *subject_index. */
void clu__view_make(struct clu_master *master, struct base_arena *arena, struct clu_view *view,
                    const struct clu_task *subject, size_t *subject_index);

#endif
