/* balancer.c: see balancer.h. */
#include "balancer.h"

struct ch_endpoint *ch_balancer_pick(const struct ch_balancer *balancer,
                                     const struct ch_endpoint *avoid, ch_time now,
                                     uint64_t random_a, uint64_t random_b)
{
    if (balancer->count <= 1)
        return balancer->count ? balancer->endpoints[0] : NULL;
    size_t healthy = 0, open = 0;
    for (size_t i = 0; i < balancer->count; i++) {
        healthy += balancer->endpoints[i]->healthy;
        open += !ch_breaker_allows(&balancer->endpoints[i]->breaker, now);
    }
    bool heed_breakers = open * 2 <= balancer->count, heed_health = healthy > 0;
    struct ch_endpoint *fit[CH__ENDPOINTS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < balancer->count; i++) {
        struct ch_endpoint *endpoint = balancer->endpoints[i];
        if (endpoint == avoid || (heed_health && !endpoint->healthy))
            continue;
        if (heed_breakers && !ch_breaker_allows(&endpoint->breaker, now))
            continue;
        fit[count++] = endpoint;
    }
    if (count == 0) /* only the one to avoid, or healthy ones are ejected */
        return balancer->endpoints[random_a % balancer->count];
    if (count == 1)
        return fit[0];
    size_t a = random_a % count, b = random_b % (count - 1);
    b += b >= a;
    return fit[b]->outstanding < fit[a]->outstanding ? fit[b] : fit[a];
}
