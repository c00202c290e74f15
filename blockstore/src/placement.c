/* placement.c: on which servers a new replica goes.
 *
 * Invariants:
 * 1. No server twice; none that is not usable; none that is `taken`.
 * 2. No two replicas on one machine while a usable server on an unused machine is left (avoided
 * ones not counted unless needed for `least`); the same for zones, after machines.
 * 3. The same input gives the same choice.
 * Greedy, one replica at a time: the set is small, and each step's rule can be said in a sentence.
 */
#include "placement.h"

#include <string.h>

#include "base/status.h"

struct used {
    const char *machine, *zone;
};
enum { USED_MAX = 64 };

static size_t count_machine(const struct used *used, size_t n, const char *machine)
{
    size_t same = 0;
    for (size_t i = 0; i < n; i++)
        same += strcmp(used[i].machine, machine) == 0;
    return same;
}

static size_t count_zone(const struct used *used, size_t n, const char *zone)
{
    size_t same = 0;
    for (size_t i = 0; i < n; i++)
        same += strcmp(used[i].zone, zone) == 0;
    return same;
}

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ULL;
    return x ^ x >> 33;
}

/* Lower is better. In parts of 1/1000 full, plus a little for each stream open, plus a seeded
 * jitter of the same size: a server that is slightly emptier is not given everything. */
static uint64_t cost_of(const struct blk__candidate *c, uint64_t random)
{
    uint64_t full = c->bytes_total >= c->bytes_free && c->bytes_total
                        ? 1000 - c->bytes_free * 1000 / c->bytes_total
                        : 500;
    return full / 50 * 100 + (uint64_t)c->load * 20 + mix(random ^ c->server) % 200;
}

static bool better(const struct blk__candidate *a, const struct blk__candidate *b,
                   const struct used *used, size_t n, uint64_t random)
{
    size_t am = count_machine(used, n, a->machine), bm = count_machine(used, n, b->machine);
    if (am != bm)
        return am < bm;
    size_t az = count_zone(used, n, a->zone), bz = count_zone(used, n, b->zone);
    if (az != bz)
        return az < bz;
    uint64_t ac = cost_of(a, random), bc = cost_of(b, random);
    return ac != bc ? ac < bc : a->server < b->server;
}

size_t blk__placement_choose(const struct blk__candidate *candidates, size_t count, size_t wanted,
                             size_t least, uint64_t random, uint64_t *chosen)
{
    struct used used[USED_MAX];
    size_t n = 0, got = 0;
    for (size_t i = 0; i < count && n < USED_MAX / 2; i++)
        if (candidates[i].taken)
            used[n++] = (struct used){ candidates[i].machine, candidates[i].zone };
    BASE_ASSERT(wanted <= USED_MAX / 2);
    while (got < wanted) {
        const struct blk__candidate *best = 0;
        for (size_t i = 0; i < count; i++) {
            const struct blk__candidate *c = &candidates[i];
            bool again = c->taken || !c->usable || (c->avoid && got >= least);
            for (size_t k = 0; k < got; k++)
                again = again || chosen[k] == c->server;
            if (again)
                continue;
            if (!best || c->avoid < best->avoid ||
                (best->avoid == c->avoid && better(c, best, used, n, random)))
                best = c;
        }
        if (!best)
            break;
        chosen[got++] = best->server;
        used[n++] = (struct used){ best->machine, best->zone };
    }
    return got;
}
