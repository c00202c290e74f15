/* oracle.c: see oracle.h. */
#include "oracle.h"

#include "base/status.h"

static uint64_t max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void txn__oracle_init(struct txn__oracle *oracle, uint64_t limit, int64_t wall_us, int64_t mono_ns)
{
    *oracle = (struct txn__oracle){ .last = limit,
                                    .limit = limit,
                                    .now = wall_us > 0 ? (uint64_t)wall_us : 0,
                                    .mono_ns = mono_ns };
}

uint64_t txn__oracle_now(struct txn__oracle *oracle, int64_t wall_us, int64_t mono_ns)
{
    int64_t passed_us = (mono_ns - oracle->mono_ns) / 1000;
    if (passed_us <= 0)
        return oracle->now;
    int64_t bend_max = passed_us / TXN__SLEW_DIVISOR,
            off = wall_us - (int64_t)oracle->now - passed_us;
    if (off > bend_max)
        off = bend_max;
    if (off < -bend_max)
        off = -bend_max;
    oracle->now += (uint64_t)(passed_us + off);
    oracle->mono_ns += passed_us * 1000;
    return oracle->now;
}

uint64_t txn__oracle_commit(struct txn__oracle *oracle, uint64_t now)
{
    oracle->last = max(oracle->last + 1, now);
    return oracle->last;
}

uint64_t txn__oracle_entry_limit(const struct txn__oracle *oracle, uint64_t now)
{
    return max(oracle->limit, max(oracle->last, now) + TXN__LIMIT_AHEAD_US);
}

void txn__oracle_decided(struct txn__oracle *oracle, uint64_t limit)
{
    oracle->limit = max(oracle->limit, limit);
}

bool txn__oracle_promise(struct txn__oracle *oracle, uint64_t timestamp)
{
    if (timestamp > oracle->limit)
        return false;
    oracle->last = max(oracle->last, timestamp);
    return true;
}
