/* repair.c: what one sealed block needs.
 *
 * Invariants:
 * 1. A replica is only removed while `wanted` good ones remain without it.
 * 2. With no good replica left, a copy is tried from the broken ones: each chunk from any that has
 *    it.
 * 3. Nothing is copied while a replica that may be good has not spoken yet, if with it there are
 *    enough. */
#include "repair.h"

#include "blk_int.h"

struct blk__repair_step blk__repair_decide(const struct blk__repair_view *views, size_t count,
                                           size_t wanted)
{
    struct blk__repair_step step = { BLK_REPAIR_NONE, 0, 0, false };
    size_t waiting = 0, broken = 0;
    for (size_t i = 0; i < count; i++) {
        step.good += views[i].standing == BLK_GOOD;
        waiting += views[i].standing == BLK_WAIT;
        broken += views[i].standing == BLK_BROKEN;
    }
    step.lost = step.good == 0 && waiting == 0;
    if (step.good == 0 && waiting == 0 && broken > 0)
        step.kind = BLK_REPAIR_ADD; /* a whole one may be pieced together from the broken ones */
    if (step.good == 0)
        return step;
    if (step.good + waiting < wanted) {
        step.kind = BLK_REPAIR_ADD;
        return step;
    }
    if (step.good < wanted)
        return step;
    /* Enough: the useless ones go, then surplus ones, the latest first. */
    for (size_t i = 0; i < count && step.kind == BLK_REPAIR_NONE; i++)
        if (views[i].standing == BLK_GONE || views[i].standing == BLK_BROKEN)
            step =
                (struct blk__repair_step){ BLK_REPAIR_REMOVE, views[i].server, step.good, false };
    for (size_t i = count; i-- > 0 && step.kind == BLK_REPAIR_NONE && step.good > wanted;)
        if (views[i].standing == BLK_GOOD)
            step =
                (struct blk__repair_step){ BLK_REPAIR_REMOVE, views[i].server, step.good, false };
    return step;
}

uint32_t blk__copies_wanted(uint32_t now, bool one_machine, bool any_block, int known, int live)
{
    if (now < BLK_REPLICAS_WANTED && live > 1)
        return BLK_REPLICAS_WANTED;
    if (now > 1 && one_machine && !any_block && known == 1)
        return 1;
    return now;
}
