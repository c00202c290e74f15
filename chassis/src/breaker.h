/* breaker.h (private to chassis): a circuit breaker for one endpoint. Pure values.
 *
 * Closed: calls pass. Too many failures in a row, or too large a share of a window, open it: no
 * calls for a while (longer each time). Then half open: one probe at a time; its success closes,
 * its failure opens again. */
#ifndef CHASSIS_BREAKER_H
#define CHASSIS_BREAKER_H

#include "chassis/wait.h"

enum {
    CH__BREAKER_IN_A_ROW = 5,
    CH__BREAKER_WINDOW_CALLS = 40, /* the window is halved when it is full */
    CH__BREAKER_RATIO_CALLS = 20,  /* the share counts from so many calls on */
    CH__BREAKER_RATIO_PERCENT = 50,
};
static const ch_time CH__BREAKER_OPEN_FIRST = 1 * CH_S, CH__BREAKER_OPEN_MOST = 30 * CH_S;

struct ch_breaker {
    enum { CH__BREAKER_CLOSED, CH__BREAKER_OPEN, CH__BREAKER_HALF_OPEN } state;
    uint32_t in_a_row, calls, failures, opened; /* opened: times in a row */
    bool probing;
    ch_time until; /* open */
};

/* Whether a call may be sent now: closed, or a probe is due. */
bool ch_breaker_allows(const struct ch_breaker *breaker, ch_time now);
void ch_breaker_begin(struct ch_breaker *breaker, ch_time now);
void ch_breaker_end(struct ch_breaker *breaker, ch_time now, bool failed);

#endif
