/* ages.h: which timestamps are older than a time, by the monotonic clock of one term alone: a
 * wall clock that jumps must not make what was promised to be remembered (ids, conflicts) look
 * old. What was there before the term counts from its beginning. Pure. */
#ifndef TXLAYER_AGES_H
#define TXLAYER_AGES_H

#include <stddef.h>
#include <stdint.h>

enum { TXN__AGES = 80, TXN__AGES_STEP_S = 5 }; /* reaches 400 s back */

struct txn__ages {
    struct {
        int64_t mono_ns;
        uint64_t timestamp;
    } samples[TXN__AGES];
    size_t count, next;
};

/* Every timestamp given so far is at or below `timestamp`. Call often; one sample a step is
 * kept. */
void txn__ages_note(struct txn__ages *ages, int64_t mono_ns, uint64_t timestamp);
/* All timestamps up to the returned one are at least `age_s` old; 0: none is known to be. */
uint64_t txn__ages_older(const struct txn__ages *ages, int64_t mono_ns, int64_t age_s);

#endif
