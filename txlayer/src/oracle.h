/* oracle.h: the timestamps of one shard: microseconds near the wall clock, strictly growing
 * across leaders, with no trust in any clock (anchors: Percolator's and TiDB's timestamp oracle;
 * Spanner's MinNextTS).
 *
 * Rules. 1. No timestamp is given to a commit that is at or below one given or promised before.
 * 2. A read timestamp T is promised only up to `limit`, a bound that a decided log entry
 * carries; a new leader begins above the greatest limit of the log. So what a dead leader
 * promised is never written under. 3. `limit` moves by log entries alone: each carries the bound
 * of note at its making (txn__oracle_entry_limit), and counts when decided.
 *
 * The clock is the wall's at the start of the leader's term, then the monotonic one, bent slowly
 * towards the wall: a wall clock that jumps moves nothing at once. Pure: the clocks' readings
 * are arguments. */
#ifndef TXLAYER_ORACLE_H
#define TXLAYER_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    TXN__LIMIT_AHEAD_US = 3000000, /* how far beyond now an entry's limit is */
    TXN__SLEW_DIVISOR =
        100, /* of the time that passed, how much the clock may bend towards the wall */
    TXN__FUTURE_MAX_US = 10000000, /* a read timestamp further ahead than this is refused */
};

struct txn__oracle {
    uint64_t last;  /* the greatest given to a commit or promised to a read */
    uint64_t limit; /* decided: reads may be promised up to here */
    uint64_t now;   /* its clock, at `mono_ns` */
    int64_t mono_ns;
};

/* For a leader whose log's greatest limit is `limit`. */
void txn__oracle_init(struct txn__oracle *oracle, uint64_t limit, int64_t wall_us, int64_t mono_ns);
/* Its clock; not below `last`'s microsecond by any promise: near the wall, no more. */
uint64_t txn__oracle_now(struct txn__oracle *oracle, int64_t wall_us, int64_t mono_ns);
/* A new commit's. `now` is of txn__oracle_now. */
uint64_t txn__oracle_commit(struct txn__oracle *oracle, uint64_t now);
/* For the entry made now; not below any timestamp given so far. */
uint64_t txn__oracle_entry_limit(const struct txn__oracle *oracle, uint64_t now);
void txn__oracle_decided(struct txn__oracle *oracle, uint64_t limit);
/* No commit from now on gets a timestamp <= `timestamp`; false (nothing promised) when that is
 * beyond the limit. */
bool txn__oracle_promise(struct txn__oracle *oracle, uint64_t timestamp);

#endif
