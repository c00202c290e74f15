/* soft.h: what the leading master has heard from blockservers: memory only, built anew from
 * heartbeats by each leader. Pure: the time comes in. */
#ifndef BLK_SOFT_H
#define BLK_SOFT_H

#include <uthash.h>

#include "blk_int.h"
#include "chassis/wait.h"

struct blk__report {
    uint64_t block, length, generation, short_of;
    bool sealed, bad;
    uint64_t round; /* the beat it was last in */
    UT_hash_handle hh;
};
struct blk__heard {
    uint64_t server;
    ch_time at;     /* last heartbeat */
    uint64_t beats; /* heartbeats whole */
    uint64_t bytes_free, bytes_total;
    uint32_t streams;
    bool disk_failed;
    bool full; /* a full report has come: what is not in `reports` is not there */
    uint64_t round;
    struct blk__report *reports;
    /* Blocks whose reports do not agree with the state: looked at with the next answers. Filled by
     * the sweep. */
    uint64_t *recheck;
    size_t recheck_count, recheck_cap;
    UT_hash_handle hh;
};
struct blk__soft {
    struct blk__heard *servers;
    ch_time dead_after, since; /* since: this master leads */
};

void blk__soft_free(struct blk__soft *soft);
struct blk__heard *blk__soft_find(const struct blk__soft *soft, uint64_t server);
struct blk__heard *blk__soft_heartbeat(struct blk__soft *soft, ch_time now,
                                       const BLK_PB(HeartbeatRequest) * request);
struct blk__report *blk__soft_report(const struct blk__heard *heard, uint64_t block);

enum blk__health {
    BLK_LIVE,    /* heard lately, its disk works */
    BLK_DEAD,    /* not heard for dead_after, or its disk failed */
    BLK_UNHEARD, /* not heard, but this master has not led for long enough to call it dead */
};
enum blk__health blk__soft_health(const struct blk__soft *soft, uint64_t server, ch_time now);

/* How a replica of a block sealed at `length` stands. */
enum blk__standing {
    BLK_GOOD,   /* there, whole as far as is known */
    BLK_WAIT,   /* will be known soon */
    BLK_BROKEN, /* its server lives; it is missing, short or damaged */
    BLK_GONE,   /* its server is dead */
};
/* *absent: its server reports everything and not this one: it counts as WAIT until the caller has
 * seen that for two beats. */
enum blk__standing blk__soft_standing(const struct blk__soft *soft, uint64_t server, uint64_t block,
                                      uint64_t length, uint64_t generation, ch_time now,
                                      bool *absent);

#endif
