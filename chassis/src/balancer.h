/* balancer.h (private to chassis): the endpoints of a client's target and which of them takes
 * the next call.
 *
 * Power of two choices: of two endpoints drawn at random among those that are healthy and not
 * ejected by their breaker, the one with fewer outstanding calls. Breakers may eject at most
 * half of the pool: when more are open they are not heeded; when naming calls none healthy, all
 * count as healthy. So there is always a choice while there is an endpoint. */
#ifndef CHASSIS_BALANCER_H
#define CHASSIS_BALANCER_H

#include "breaker.h"
#include "chassis/transport.h"

enum { CH__ENDPOINTS_MAX = 256 };

/* One address of a client's target. Counted: calls keep it while the list moves on. */
struct ch_endpoint {
    char address[256];
    struct ch_tchannel *channel; /* made on first use */
    struct ch_breaker breaker;
    uint32_t outstanding, refs;
    bool healthy, listed;
};

struct ch_balancer {
    struct ch_endpoint *endpoints[CH__ENDPOINTS_MAX];
    size_t count;
};

/* NULL when there is none. `avoid` (the one that just failed; may be NULL) is taken only when
 * nothing else can be. The two random numbers make the draw. */
struct ch_endpoint *ch_balancer_pick(const struct ch_balancer *balancer,
                                     const struct ch_endpoint *avoid, ch_time now,
                                     uint64_t random_a, uint64_t random_b);

#endif
