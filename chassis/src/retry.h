/* retry.h (private to chassis): when a failed call may be sent again, and when. Pure values.
 *
 * A budget keeps retries from multiplying an outage: a failure takes a token, a success gives a
 * tenth back, and below half the maximum nothing is retried (gRFC A6). Waits are full-jitter
 * exponential; a server's push-back overrides them. */
#ifndef CHASSIS_RETRY_H
#define CHASSIS_RETRY_H

#include "chassis/transport.h"

enum { CH__RETRY_TOKENS_MAX = 10, CH__RETRY_ATTEMPTS_MAX = 5, CH__RETRY_TENTHS = 10 };
static const ch_time CH__RETRY_WAIT_FIRST = 20 * CH_MS, CH__RETRY_WAIT_MOST = 1 * CH_S;

struct ch_retry_budget {
    uint32_t tenths; /* of a token */
};
void ch_retry_budget_init(struct ch_retry_budget *budget);
void ch_retry_budget_success(struct ch_retry_budget *budget);
void ch_retry_budget_failure(struct ch_retry_budget *budget);
bool ch_retry_budget_allows(const struct ch_retry_budget *budget);

/* Whether a call that ended so may be tried again at all: it was not acted on, or repeating it
 * is harmless. */
bool ch_retry_safe(const struct ch_tfinish *finish, bool idempotent);
/* Whether the peer may have acted on a call that failed so. */
bool ch_retry_outcome_unknown(const struct ch_tfinish *finish);
/* How long to wait before attempt number `attempt` (the first retry is 1), given a random
 * number. */
ch_time ch_retry_wait(int attempt, ch_time pushback, uint64_t random);

#endif
