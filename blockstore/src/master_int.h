/* master_int.h: what the parts of the BlockMaster service share. */
#ifndef BLK_MASTER_INT_H
#define BLK_MASTER_INT_H

#include "blk_int.h"
#include "chassis/log.h"
#include "chassis/metrics.h"
#include "consensus/log.h"
#include "master.h"
#include "peers.h"
#include "placement.h"
#include "repair.h"
#include "soft.h"
#include "state.h"

struct blk__copying { /* a copy in flight: its target is not told to remove what it just made */
    uint64_t block, server;
    UT_hash_handle hh;
};
struct blk__absence { /* a replica its server does not report */
    uint64_t block, server;
    uint64_t beats; /* of the server, when first seen */
    uint64_t sweep; /* last seen in */
    UT_hash_handle hh;
};

struct blk__master {
    struct ch_env *env;
    struct blk__master_options options;
    char *dir;
    struct blk__state state;
    struct blk__soft soft;
    struct con_log *log;
    uint64_t term; /* this member leads, everything committed is applied; 0: it does not */
    struct ch_gauge *leads;
    struct blk__peers *peers;
    struct ch_gate gate;
    struct ch_cond sweep_soon; /* also when it begins to lead, or ceases to */
    bool soon;
    struct blk__copying *copying;
    size_t copies_running;
    uint64_t copies_done, generation;
    struct blk__absence *absences;
    uint64_t sweeps;
    uint64_t open_from; /* the least id of an unsealed block, as of some moment: it only grows */
    /* Of the last sweep. */
    uint64_t replicas_wanted, replicas_held, bytes_at_risk, by_replicas[BLK_REPLICAS_MAX + 1];
    ch_time at_risk_since;
    struct ch_counter *commands, *copies;
    struct ch_gauge *at_risk, *blocks_gauge;
};

/* Through the log. A failed Result comes back as its status. `change` is filled but for now_us. */
struct base_status blk__master_propose(struct blk__master *master, BLK_PB(Command) * command,
                                       ch_time deadline, struct base_arena *arena,
                                       BLK_PB(Result) * *result) CH_WAITS BASE_MUST_CHECK;
/* May this member answer from its state: FAILED_PRECONDITION "not the leader; it is at X". */
struct base_status blk__master_barrier(struct blk__master *master,
                                       ch_time deadline) CH_WAITS BASE_MUST_CHECK;
ch_time blk__master_deadline(struct blk__master *master, struct ch_call *call);
BLK_PB(Block) * blk__master_block(struct blk__master *master, struct base_arena *arena,
                                  const struct blk__file *file, size_t i);
/* Candidates for a new replica of `block` (NULL: of a new block). */
struct blk__candidate *blk__master_candidates(struct blk__master *master,
                                              const struct blk__block *block, const uint64_t *avoid,
                                              size_t avoid_count, struct base_arena *arena,
                                              size_t *count);
struct base_status blk__master_not_leader(const struct blk__master *master) BASE_MUST_CHECK;
void blk__master_sweep_soon(struct blk__master *master);

/* master_lead.c */
void blk__master_lead(void *self, uint64_t term);
ch_fiber_fn blk__founded_main, blk__log_main;
/* master_open.c */
struct base_status blk__serve_open_append(void *self, struct ch_call *call, const void *request,
                                          void **reply) CH_WAITS BASE_MUST_CHECK;
struct base_status blk__serve_extend(void *self, struct ch_call *call, const void *request,
                                     void **reply) CH_WAITS BASE_MUST_CHECK;
struct base_status blk__serve_seal(void *self, struct ch_call *call, const void *request,
                                   void **reply) CH_WAITS BASE_MUST_CHECK;
/* master_recover.c: fences and ends every unsealed block of a file under `epoch`. */
struct base_status blk__master_recover(struct blk__master *master, uint64_t file, uint64_t epoch,
                                       bool seal_file, ch_time deadline,
                                       uint64_t *length) CH_WAITS BASE_MUST_CHECK;
/* master_servers.c */
struct base_status blk__serve_heartbeat(void *self, struct ch_call *call, const void *request,
                                        void **reply) CH_WAITS BASE_MUST_CHECK;
struct base_status blk__serve_report_bad(void *self, struct ch_call *call, const void *request,
                                         void **reply) CH_WAITS BASE_MUST_CHECK;
struct base_status blk__serve_status(void *self, struct ch_call *call, const void *request,
                                     void **reply) CH_WAITS BASE_MUST_CHECK;
/* What a reported replica must do, by the state: nothing, seal, or go. */
enum blk__order { BLK_ORDER_NONE, BLK_ORDER_SEAL, BLK_ORDER_REMOVE };
enum blk__order blk__master_judge(const struct blk__master *master, uint64_t server,
                                  const struct blk__report *report, uint64_t *length);
/* master_copies.c: brings the wanted number of copies in line with the cell's machines */
void blk__master_copies_follow(struct blk__master *master) CH_WAITS;
/* master_repair.c: the fiber */
void blk__repair_main(void *self);
void blk__master_find_open(struct blk__master *master);
bool blk__master_is_copying(const struct blk__master *master, uint64_t block, uint64_t server);

#endif
