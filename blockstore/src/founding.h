/* founding.h: which of the blockmaster's tasks begins their group. */
#ifndef BLK_FOUNDING_H
#define BLK_FOUNDING_H

#include "chassis/naming.h"

struct blk__founding {
    const char *dir;  /* the task's data folder */
    const char *node; /* of the cell's names: "/local/groups/blockmaster" */
    const char *task; /* for people: "blockmaster/0" */
};
/* Whether this task's empty log may found the group. Waits for the names when it has never known
 * the answer: until that, or cancellation. */
struct base_status blk__founding_decide(struct ch_env *env, struct ch_naming *naming,
                                        const struct blk__founding *founding,
                                        bool *found) CH_WAITS BASE_MUST_CHECK;
/* The group is there: this task never founds one again. */
struct base_status blk__founding_done(struct ch_env *env, const char *dir) CH_WAITS BASE_MUST_CHECK;

#endif
