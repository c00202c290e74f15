/* lead.h: one term of leadership of one shard: its state and what its files do with it. Private
 * to the layer.
 *
 * Life: the keeper (keeper.c) holds the shard's lock, makes a lead, recovers it (recover.c),
 * offers it to handlers, and closes it when the lock is lost or the log says that another leads.
 * Handlers hold a reference while they use it and look at `closed` after every wait; the last
 * reference frees it. Files: log.c (positions), commit.c (conflicts, batches), apply.c (data
 * table, checkpoint), read.c, sweep.c (old versions). The protocol's invariants are in
 * README.md. */
#ifndef TXLAYER_LEAD_H
#define TXLAYER_LEAD_H

#include <bsd/sys/queue.h>

#include "ages.h"
#include "chassis/metrics.h"
#include "chassis/naming.h"
#include "chassis/proto.h"
#include "conflict.h"
#include "ids.h"
#include "oracle.h"
#include "rows.h"
#include "strata/txlayer/v1/txlayer.pb-c.h"
#include "tables.h"
#include "txlayer/txlayer.h"

enum {
    TXN__FLIGHT_MAX = 4, /* batches on their way to the log */
    TXN__BATCH_TXNS_MAX = 256,
    TXN__BATCH_BYTES_MAX = 1 << 20,  /* a batch is closed at or above this */
    TXN__QUEUE_BYTES_MAX = 32 << 20, /* commits waiting for a batch */
    TXN__UNAPPLIED_BYTES_MAX = 64 << 20,
    TXN__CONFLICT_KEYS_MAX = 4 << 20,
    TXN__IDS_MAX = 1 << 20,
    TXN__ID_MEMORY_S = 300,
    TXN__ID_RECORDS_MAX = 100000, /* not yet checkpointed; then applying waits */
    TXN__CHECKPOINT_MS = 500,
    TXN__DROP_MAX = 2000,
    TXN__RETRY_MS_MIN = 2,
    TXN__RETRY_MS_MAX = 500,
    TXN__PAGE_BYTES = 1 << 20, /* of a scan's page */
    TXN__PAGE_ROWS = 4000,
    TXN__GET_BYTES_MAX = 48 << 20, /* of all values of one Get message */
    TXN__STALE_US =
        500000,            /* a strong read's timestamp is not further behind the clock than this */
    TXN__SWEEP_ROWS = 500, /* table rows a step */
};

/* What a process is configured with. */
struct txn__config {
    char *tablet, *instance;
    int64_t shards;
    ch_time retention;                    /* of old versions */
    uint64_t cache_bytes, conflict_bytes; /* a shard */
    ch_time sweep_every;
    int64_t log_drop_min; /* positions that are dropped together, at least */
    bool sweep_off;
};

struct txn__batch;
/* A commit on its way: in the memory of the fiber that waits for it. */
struct txn__op {
    TAILQ_ENTRY(txn__op) link;
    enum { TXN__OP_QUEUED = 1, TXN__OP_FLYING, TXN__OP_DONE } state;
    struct txn__batch *batch; /* when flying */
    const Strata__Txlayer__V1__CommitOp *request;
    size_t bytes;
    uint64_t timestamp;
    struct base_status status;
    struct ch_done done;
};
TAILQ_HEAD(txn__op_list, txn__op);

/* What the log holds together: made here, or found by recovery. */
struct txn__batch {
    TAILQ_ENTRY(txn__batch) link;
    struct txn__lead *lead;
    struct base_arena arena;
    struct base_buf body;
    uint64_t epoch, first, last;    /* positions */
    uint64_t limit, ts_min, ts_max; /* ts_max 0: no transactions */
    size_t pieces, pieces_won;
    struct txn__op_list ops;
    struct txn__logged *txns; /* of the body, once decided */
    size_t txn_count, write_count;
    struct txn__version **versions; /* one a write, in order */
    ch_time launched;
};
TAILQ_HEAD(txn__batch_list, txn__batch);

struct txn__lead {
    struct ch_env *env;
    const struct txn__config *config;
    struct txn__tables *tables;
    struct ch_lock *lock; /* borrowed; not looked at when closed */
    uint32_t shard;
    uint64_t epoch;
    size_t refs;
    bool closed;
    struct base_status why; /* closed */
    struct ch_cond changed; /* closed, or a batch was decided */
    struct ch_cond over;    /* closed */
    struct ch_gate gate;

    struct txn__oracle oracle;
    struct txn__ages ages;
    uint64_t limit_wanted; /* by readers */
    struct txn__conflict *conflict;
    struct txn__rows *rows;
    struct txn__ids *ids;
    uint64_t recovery_floor; /* reads below it cannot be validated by this leader */

    uint64_t next_position;
    struct txn__batch_list flights; /* in order of position; decided from the head */
    size_t flight_count;
    struct txn__op_list queue;
    size_t queue_bytes;

    struct txn__batch_list decided; /* to be applied */
    struct ch_cond apply_cond;
    struct txn__checkpoint applied, checkpointed;
    struct base_buf id_records; /* applied since the checkpoint */
    uint64_t dropped;           /* positions up to here are */
    struct txn__id_pages *id_pages;
    struct txn__lead_metrics *metrics;
};

struct txn__lead_metrics {
    struct ch_counter *commits, *aborts, *entries, *log_bytes, *applied_rows, *memory_hits,
        *table_reads, *repeats, *pruned;
    struct ch_histogram *log_ns, *batch_txns;
};
void txn__metrics_init(struct ch_env *env, struct txn__lead_metrics *metrics);

/* ---- lead.c ---- */
struct txn__lead *txn__lead_new(struct ch_env *env, const struct txn__config *config,
                                struct txn__tables *tables, uint32_t shard, struct ch_lock *lock,
                                struct txn__lead_metrics *metrics);
void txn__lead_ref(struct txn__lead *lead);
void txn__lead_unref(struct txn__lead *lead);
/* Ends the term at once: nothing is acknowledged any more; every waiter gets UNAVAILABLE. Its
 * fibers are still to be stopped. */
void txn__lead_close(struct txn__lead *lead, struct base_status why);
/* This side is sure to lead now. */
bool txn__lead_sure(const struct txn__lead *lead);
uint64_t txn__lead_now(struct txn__lead *lead);
/* UNAVAILABLE, with the reason. */
struct base_status txn__lead_gone(const struct txn__lead *lead) BASE_MUST_CHECK;
/* A pause before trying again; doubles *ms, with jitter. */
void txn__backoff(struct ch_env *env, int64_t *ms) CH_WAITS;

struct txn__batch *txn__batch_new(struct txn__lead *lead);
void txn__batch_free(struct txn__batch *batch);

/* ---- log.c ---- */
/* Gives a batch positions and sends it on its way. */
void txn__log_launch(struct txn__lead *lead, struct txn__batch *batch);
/* Makes an entry go out whose limit covers lead->limit_wanted and now, unless one is on its way. */
void txn__log_touch(struct txn__lead *lead);
/* A decided batch becomes visible: memory, ids, apply queue. Its body must decode. */
struct base_status txn__log_adopt(struct txn__lead *lead, struct txn__batch *batch) BASE_MUST_CHECK;
void txn__op_finish(struct txn__op *op, uint64_t timestamp, struct base_status status);

/* ---- commit.c ---- */
struct base_status txn__commit_check(const Strata__Txlayer__V1__CommitOp *request,
                                     struct base_arena *arena, size_t *bytes) BASE_MUST_CHECK;
/* Queues (or answers at once); then, for several: start, and wait for each. */
void txn__commit_submit(struct txn__lead *lead, struct txn__op *op);
void txn__commit_start(struct txn__lead *lead);
void txn__commit_wait(struct txn__lead *lead, struct txn__op *op, ch_time deadline) CH_WAITS;

/* ---- recover.c ---- */
struct base_status txn__recover(struct txn__lead *lead) CH_WAITS BASE_MUST_CHECK;

/* ---- apply.c ---- */
struct base_status txn__apply_start(struct txn__lead *lead) BASE_MUST_CHECK;
struct txn__id_pages *txn__id_pages_new(void);
void txn__id_pages_free(struct txn__id_pages *pages);
void txn__id_pages_add(struct txn__id_pages *pages, uint64_t position, uint64_t timestamp);

/* ---- read.c ---- */
/* Why a read that happened may not be believed. */
struct base_status txn__not_sure(struct txn__lead *lead) BASE_MUST_CHECK;
/* The timestamp of a strong read. */
struct base_status txn__read_now(struct txn__lead *lead, ch_time deadline,
                                 uint64_t *timestamp) CH_WAITS BASE_MUST_CHECK;
/* `timestamp` was asked for: when it returns OK, the state at it is decided for good. */
struct base_status txn__read_at(struct txn__lead *lead, uint64_t timestamp,
                                ch_time deadline) CH_WAITS BASE_MUST_CHECK;
struct base_status txn__read_scan(struct txn__lead *lead,
                                  const Strata__Txlayer__V1__ScanRequest *request, ch_time deadline,
                                  struct base_arena *arena,
                                  Strata__Txlayer__V1__ScanReply *reply) CH_WAITS BASE_MUST_CHECK;
/* ---- get.c ---- */
/* The operations of a Get that are this lead's; values of all are in `arena`. */
struct txn__get {
    const Strata__Txlayer__V1__GetOp *op;
    Strata__Txlayer__V1__GetResult *result;
    struct base_status status;
    uint64_t timestamp;
    size_t read, bytes; /* values so far */
};
void txn__read_get(struct txn__lead *lead, struct txn__get *gets, size_t count, ch_time deadline,
                   struct base_arena *arena) CH_WAITS;

/* ---- sweep.c ---- */
struct base_status txn__sweep_start(struct txn__lead *lead) BASE_MUST_CHECK;

#endif
