/* placement.h: on which servers a new replica goes. Pure. */
#ifndef BLK_PLACEMENT_H
#define BLK_PLACEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct blk__candidate {
    uint64_t server;
    const char *machine, *zone;
    uint64_t bytes_free, bytes_total;
    uint32_t load;  /* appends open */
    bool usable;    /* lives, disk works, has room */
    uint32_t avoid; /* not 0: only when there is no other way to `least`; the greater, the later */
    bool taken;     /* holds a replica already: its machine and zone count, it is not chosen */
};

/* Chooses up to `wanted` servers into `chosen`; stops short of it rather than use an avoided one
 * once `least` are chosen. Returns how many; fewer than `least` when the cell has not got them.
 * First different machines, then different zones, then the emptier and less loaded; `random` breaks
 * ties so that load spreads. */
size_t blk__placement_choose(const struct blk__candidate *candidates, size_t count, size_t wanted,
                             size_t least, uint64_t random, uint64_t *chosen);

#endif
