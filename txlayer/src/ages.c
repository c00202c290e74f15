/* ages.c: see ages.h. */
#include "ages.h"

#define SECOND_NS 1000000000LL

void txn__ages_note(struct txn__ages *ages, int64_t mono_ns, uint64_t timestamp)
{
    size_t last = (ages->next + TXN__AGES - 1) % TXN__AGES;
    if (ages->count && mono_ns < ages->samples[last].mono_ns + TXN__AGES_STEP_S * SECOND_NS)
        return;
    ages->samples[ages->next].mono_ns = mono_ns;
    ages->samples[ages->next].timestamp = timestamp;
    ages->next = (ages->next + 1) % TXN__AGES;
    ages->count += ages->count < TXN__AGES;
}

uint64_t txn__ages_older(const struct txn__ages *ages, int64_t mono_ns, int64_t age_s)
{
    uint64_t timestamp = 0;
    for (size_t i = 0; i < ages->count; i++)
        if (ages->samples[i].mono_ns <= mono_ns - age_s * SECOND_NS &&
            ages->samples[i].timestamp > timestamp)
            timestamp = ages->samples[i].timestamp;
    return timestamp;
}
