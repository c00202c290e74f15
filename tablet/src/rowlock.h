/* rowlock.h: who may work on a row. Blind writes share a row; what reads before it writes has it
 * alone. First come, first served. A holder of one lock never waits for another while it has not
 * handed its write to the log, so there is no deadlock (shared locks of a batch are released by
 * the log, not by the fiber that waits for the next row). */
#ifndef TAB_ROWLOCK_H
#define TAB_ROWLOCK_H

#include "base/bytes.h"
#include "chassis/sync.h"

struct tab_rowlock; /* one row that somebody holds or waits for */
struct tab_rowlocks {
    struct tab_rowlock **buckets;
    size_t bucket_count, count;
};
void tab_rowlocks_init(struct tab_rowlocks *locks);
void tab_rowlocks_destroy(struct tab_rowlocks *locks); /* none may be held */
enum ch_outcome tab_rowlock_take(struct tab_rowlocks *locks, uint64_t tablet, struct base_bytes row,
                                 bool alone, ch_time deadline,
                                 struct tab_rowlock **lock) CH_WAITS BASE_MUST_CHECK;
void tab_rowlock_release(struct tab_rowlocks *locks, struct tab_rowlock *lock, bool alone);

#endif
