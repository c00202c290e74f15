/* model.h: a small random source and keys for tests against models: the same numbers on every
 * run. */
#ifndef TESTS_TXLAYER_MODEL_H
#define TESTS_TXLAYER_MODEL_H

#include "base/bytes.h"

struct dice {
    uint64_t state;
};
static inline uint64_t roll(struct dice *dice, uint64_t bound)
{
    dice->state = dice->state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (dice->state >> 33) % bound;
}

/* Key i of some hundreds; their order is not that of i, some are prefixes of others, one is
 * empty. */
static inline struct base_bytes model_key(size_t i)
{
    static uint8_t keys[512][3];
    keys[i][0] = (uint8_t)(i * 37);
    keys[i][1] = (uint8_t)(i >> 2);
    keys[i][2] = 0;
    return base_bytes(keys[i], i == 0 ? 0 : 1 + i % 3);
}

#endif
