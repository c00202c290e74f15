/* workload.h: clients that run random transactions over lists, and remember what they saw. */
#ifndef TESTS_TXLAYER_WORKLOAD_H
#define TESTS_TXLAYER_WORKLOAD_H

#include "checker.h"
#include "world.h"

enum { WORK_KEYS = 6, WORK_DATABASES = 2, WORK_LIST_MAX = 3000 };

/* A commit whose outcome was not learnt: asked again at the end. */
struct work_open;

struct workload {
    struct world *world;
    struct ch_env *env;
    struct ch_naming *naming;
    struct txn_client *clients[2];
    struct check_history *histories[WORK_DATABASES];
    struct work_open *open;
    struct work_past *past; /* reads in the past, compared at the end */
    ch_time until, think;
    bool no_strong_reads; /* locks lie: what is read is judged when it is committed */
    int next_process;
    int64_t next_element;
    uint64_t next_id;
    struct ch_gate gate;
    size_t ok, failed, unknown, reads, past_reads, resolved;
};

/* All of it runs in a fiber of the tester. */
void work_start(struct workload *work, struct world *world, size_t clients, ch_time length,
                ch_time think, bool no_strong_reads) CH_WAITS;
void work_join(struct workload *work) CH_WAITS;
/* Asks again for every open commit, reads everything a last time, and judges: empty when all is
 * well, else the report. */
void work_judge(struct workload *work, struct base_buf *report) CH_WAITS;
void work_free(struct workload *work) CH_WAITS;

#endif
