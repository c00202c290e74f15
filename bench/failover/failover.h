/* failover.h: what failover.c (load, rounds) and members.c (the members, each asked by itself)
 * share. */
#ifndef BENCH_FAILOVER_H
#define BENCH_FAILOVER_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blockstore/blockstore.h"
#include "chassis/leader.h"
#include "chassis/naming.h"

#define MUST(cond, ...)                     \
    do {                                    \
        if (!(cond)) {                      \
            fprintf(stderr, "VIOLATION: "); \
            fprintf(stderr, __VA_ARGS__);   \
            fprintf(stderr, "\n");          \
            exit(1);                        \
        }                                   \
    } while (0)

enum { MEMBERS = 3, WRITERS = 4, LOCKERS = 2, WAYS_MAX = 4, GAP_MS_MAX = 3000, DATA_BYTES = 1000 };

struct writer {
    struct bench *bench;
    size_t index;
    struct ch_naming *naming;
    struct blk_client *client;
    uint64_t tried, acked, version;
    ch_time began_acked; /* when the last acknowledged write was begun */
};
struct bench {
    struct ch_env *env;
    bool blocks, etcd;
    const char *group; /* for people */
    const char *members, *act;
    char *addresses[MEMBERS];
    char *ways[WAYS_MAX];
    size_t way_count;
    int rounds;
    uint64_t run; /* names of this run's files */
    struct writer writers[WRITERS];
    struct ch_lock *locks[LOCKERS];
    uint64_t epoch_max, acquisitions, reads, unknown;
    struct ch_gate gate;
    bool stop;
};

/* The number that a value begins with. */
uint64_t number_of(struct base_bytes value);
/* Waits until all three are well; the leader's number. */
size_t leader_wait(struct bench *bench) CH_WAITS;
/* Of one member (struct asker): asks it again and again, whether it leads or not, is paused or cut
 * off. What it answers is to be as new as what was acknowledged before it was asked. */
struct asker {
    struct bench *bench;
    size_t index;
};
ch_fiber_fn asker_fiber;

#endif
