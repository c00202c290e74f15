/* chassis/context.h: on whose behalf a fiber works: the deadline, trace, tenant and retry budget
 * that came with the request it serves. A handler's fiber has one from its call; calls it makes
 * and fibers it spawns with _inherit carry it on. */
#ifndef CHASSIS_CONTEXT_H
#define CHASSIS_CONTEXT_H

#include "chassis/wait.h"

enum ch_criticality { CH_CRITICAL = 0, CH_DEFAULT = 1, CH_SHEDDABLE = 2, CH_BACKGROUND = 3 };

struct ch_context {
    ch_time deadline;
    uint64_t trace_hi, trace_lo, span; /* W3C trace id and the current span's id; zeros: none */
    bool sampled;
    bool retries_forbidden; /* a caller above retries already, or its budget is spent */
    enum ch_criticality criticality;
    char tenant[64]; /* "" : the system itself */
    uint32_t refs;   /* fibers sharing it */
};

/* The running fiber's; NULL when it works on nobody's behalf. */
struct ch_context *ch_context_current(void);
/* The sooner of `deadline` and the current context's. */
ch_time ch_context_deadline(ch_time deadline);

#endif
