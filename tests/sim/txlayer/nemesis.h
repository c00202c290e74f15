/* nemesis.h: what goes wrong, one fault after another, some at once. */
#ifndef TESTS_TXLAYER_NEMESIS_H
#define TESTS_TXLAYER_NEMESIS_H

#include "world.h"

/* The faults a run may have: a random subset of these a seed ("swarm"). */
enum {
    NEMESIS_CRASH = 1,
    NEMESIS_PAUSE = 2,
    NEMESIS_CUT_NAMES = 4,
    NEMESIS_CUT_TABLET = 8,
    NEMESIS_CUT_CLIENTS = 16,
    NEMESIS_CLOCK = 32,
    NEMESIS_TABLET = 64,
    NEMESIS_NET = 128,
    NEMESIS_STOP = 256,
    NEMESIS_ALL = 511,
    NEMESIS_STEAL = 512, /* of locks: beyond what strong reads stand */
};

struct nemesis {
    struct world *world;
    unsigned kinds;
    ch_time until;
    struct ch_gate gate;
    size_t acts;
};
void nemesis_start(struct nemesis *nemesis, struct world *world, unsigned kinds,
                   ch_time length) CH_WAITS;
/* Waits for its end; everything is well again when it returns. */
void nemesis_join(struct nemesis *nemesis) CH_WAITS;

#endif
