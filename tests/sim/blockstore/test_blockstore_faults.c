/* The blockstore under everything at once: servers and master crash and lose what was not synced,
 * pause, are cut off, run slow or full, bits flip, writers are paused, crash, and take files from
 * each other. What must hold whatever happens: every acknowledged byte is read back, unchanged, by
 * everyone, for ever; nothing a reader has seen goes away; only the latest writer's bytes are after
 * its opening; and when the faults end, all sealed blocks have their replicas, identical.
 *
 * Each seed is a world of its own (faults_world.h); a failing one is named with the line that
 * replays it. Every other one has three masters, of which one leads; every fourth begins as a cell
 * of one machine, and others join while faults go on. */
#include <time.h>

#include "faults_world.h"
#include "test.h"

static void world(uint64_t seed)
{
    world_begin(seed);
    world_faults();
    world_end();
}

Test(blockstore_faults, no_acknowledged_byte_is_lost)
{
    const char *one = getenv("STRATA_SEED"), *first = getenv("STRATA_SEEDS_FROM"),
               *count = getenv("STRATA_SEEDS");
    if (one) {
        world(strtoull(one, 0, 10));
        return;
    }
    uint64_t from = first ? strtoull(first, 0, 10) : 1, n = count ? strtoull(count, 0, 10) : 1000;
    struct timespec t0, t;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    uint64_t done = 0, appends = 0;
    for (uint64_t seed = from; seed < from + n; seed++, done++) {
        clock_gettime(CLOCK_MONOTONIC, &t);
        if (!count && t.tv_sec - t0.tv_sec >= 12) /* as many seeds as twelve seconds hold */
            break;
        world(seed);
        appends += w.appends;
    }
    fprintf(stderr, "%llu seeds from %llu, %llu appends acknowledged\n", (unsigned long long)done,
            (unsigned long long)from, (unsigned long long)appends);
    cr_assert(done > 0 && appends > 100);
}
