/* admission.h (private to chassis): how many calls a server runs at once, who waits, and who is
 * turned away.
 *
 * At most `limit` calls run. Beyond it calls wait in a short queue (more critical ones first,
 * FIFO among equals, at most CH__QUEUE_WAIT) and are shed when it is full or the wait is over.
 * The limit adapts: while the latency of short calls stays near its best it grows, when it
 * stretches it shrinks (gradient, as Netflix's concurrency-limits), between CH__LIMIT_MIN and
 * the configured maximum; so a pile of work that only adds waiting is turned away early. */
#ifndef CHASSIS_ADMISSION_H
#define CHASSIS_ADMISSION_H

#include "chassis/context.h"
#include "chassis/sync.h"

enum {
    CH__LIMIT_MIN = 256,
    CH__QUEUE_SHARE = 2 /* the queue holds limit / this */,
    CH__GRADIENT_CALLS = 256
};
static const ch_time CH__QUEUE_WAIT = 200 * CH_MS;

struct ch_admission {
    size_t limit_max, limit, running, queued;
    struct ch_wait_list waiters[CH_BACKGROUND + 1];
    /* gradient */
    ch_time best, sum; /* best: smoothed least latency */
    size_t samples, peak_running;
    uint64_t shed;
};

void ch_admission_init(struct ch_admission *admission, size_t limit_max);
/* Whether a call that came now would surely be turned away: asked before its message is
 * received. */
bool ch_admission_full(const struct ch_admission *admission, enum ch_criticality criticality);
/* OK: the call runs until ch_admission_leave. RESOURCE_EXHAUSTED: shed. CANCELLED: it went away
 * while queued. */
struct base_status ch_admission_enter(struct ch_admission *admission, struct ch_env *env,
                                      enum ch_criticality criticality,
                                      ch_time deadline) CH_WAITS BASE_MUST_CHECK;
/* `took`: how long it ran, -1 when that says nothing (streams). */
void ch_admission_leave(struct ch_admission *admission, ch_time took);

#endif
