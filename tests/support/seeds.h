/* seeds.h: how many seeds a test runs. Under a sanitizer a seed costs three to ten times as much,
 * and what it looks for there (bad memory, undefined behaviour, races) shows in far fewer: one in
 * SEEDS_SANITIZED_SHARE is run; the plain build judges the rest. STRATA_SEEDS and STRATA_SEED,
 * where a test heeds them, mean what they say in every build. */
#ifndef SEEDS_H
#define SEEDS_H

#include <stdbool.h>
#include <stdint.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SEEDS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SEEDS_SANITIZED 1
#endif
#endif
#ifndef SEEDS_SANITIZED
#define SEEDS_SANITIZED 0
#endif

enum { SEEDS_SANITIZED_SHARE = 8 };

/* At least one. */
static inline uint64_t seeds_count(uint64_t plain)
{
    return SEEDS_SANITIZED && plain > 0
               ? (plain + SEEDS_SANITIZED_SHARE - 1) / SEEDS_SANITIZED_SHARE
               : plain;
}

#endif
