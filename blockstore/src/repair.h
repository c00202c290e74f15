/* repair.h: what one sealed block needs. Pure. */
#ifndef BLK_REPAIR_H
#define BLK_REPAIR_H

#include <stddef.h>
#include <stdint.h>

#include "soft.h"

struct blk__repair_view {
    uint64_t server;
    enum blk__standing standing;
};
enum blk__repair_kind { BLK_REPAIR_NONE, BLK_REPAIR_ADD, BLK_REPAIR_REMOVE };
struct blk__repair_step {
    enum blk__repair_kind kind;
    uint64_t remove; /* which */
    size_t good;
    bool lost; /* no good replica and none that may turn out to be */
};
/* Adds before it removes: a replica leaves the list only when `wanted` good ones stay. */
struct blk__repair_step blk__repair_decide(const struct blk__repair_view *views, size_t count,
                                           size_t wanted);
/* How many copies a cell shall keep that keeps `now`; `known`, `live`: machines of servers that
 * ever were, and of live ones (2: or more). Fewer only before there is any block. */
uint32_t blk__copies_wanted(uint32_t now, bool one_machine, bool any_block, int known, int live);

#endif
