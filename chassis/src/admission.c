/* admission.c: see admission.h. Invariants: 1. running <= limit_max always, and <= limit
 * whenever a call was let in. 2. A slot that is freed is handed to the first waiter of the most
 * critical list: it counts as running from then on. */
#include "admission.h"

#include "env_int.h"

void ch_admission_init(struct ch_admission *admission, size_t limit_max)
{
    *admission = (struct ch_admission){ .limit_max = limit_max, .limit = limit_max };
}

static size_t limit_for(const struct ch_admission *admission, enum ch_criticality criticality)
{
    /* Background work leaves the last fifth of the slots to the rest. */
    return criticality == CH_BACKGROUND ? admission->limit - admission->limit / 5
                                        : admission->limit;
}

static size_t queue_max(const struct ch_admission *admission, enum ch_criticality criticality)
{
    size_t whole = admission->limit / CH__QUEUE_SHARE;
    return whole * (size_t)(CH_BACKGROUND + 1 - criticality) / (CH_BACKGROUND + 1);
}

bool ch_admission_full(const struct ch_admission *admission, enum ch_criticality criticality)
{
    return admission->running >= limit_for(admission, criticality) &&
           admission->queued >= queue_max(admission, criticality);
}

static struct base_status shed(struct ch_admission *admission)
{
    admission->shed++;
    return base_status_make(BASE_RESOURCE_EXHAUSTED,
                            "the server is overloaded: %zu calls run, %zu wait", admission->running,
                            admission->queued);
}

struct base_status ch_admission_enter(struct ch_admission *admission, struct ch_env *env,
                                      enum ch_criticality criticality, ch_time deadline)
{
    if (admission->queued == 0 && admission->running < limit_for(admission, criticality)) {
        if (++admission->running > admission->peak_running)
            admission->peak_running = admission->running;
        return BASE_STATUS_OK;
    }
    if (ch_admission_full(admission, criticality))
        return shed(admission);
    ch_time until = ch_in(env, CH__QUEUE_WAIT);
    struct ch_wait_node node = { 0 };
    admission->queued++;
    enum ch_outcome outcome = ch_wait_on(&admission->waiters[criticality], &node,
                                         deadline < until ? deadline : until, false, "admission");
    admission->queued--;
    if (outcome == CH_OK)
        return BASE_STATUS_OK;
    if (outcome == CH_CANCELLED)
        return base_status_make(BASE_CANCELLED, "cancelled while it waited for admission");
    return shed(admission);
}

/* Once every CH__GRADIENT_CALLS calls: limit := limit * (tolerated latency / latency now), and a
 * little more to try. */
static void adapt(struct ch_admission *admission)
{
    ch_time mean = admission->sum / (ch_time)admission->samples;
    admission->samples = 0;
    admission->sum = 0;
    if (admission->best == 0 || mean < admission->best)
        admission->best = mean;
    else
        admission->best +=
            (mean - admission->best) / 128; /* forgets slowly: the work itself may have changed */
    double gradient = 2.0 * (double)admission->best / (double)mean;
    gradient = gradient > 1 ? 1 : gradient < 0.5 ? 0.5 : gradient;
    size_t limit = (size_t)((double)admission->limit * gradient) + admission->limit / 16 + 4;
    if (limit > admission->limit && admission->peak_running * 2 < admission->limit)
        limit = admission->limit; /* not used: no reason to grow */
    admission->peak_running = admission->running;
    size_t least = admission->limit_max < CH__LIMIT_MIN ? admission->limit_max : CH__LIMIT_MIN;
    admission->limit = limit < least                  ? least
                       : limit > admission->limit_max ? admission->limit_max
                                                      : limit;
}

void ch_admission_leave(struct ch_admission *admission, ch_time took)
{
    BASE_ASSERT(admission->running > 0);
    admission->running--;
    if (took >= 0) {
        admission->sum += took;
        if (++admission->samples >= CH__GRADIENT_CALLS)
            adapt(admission);
    }
    for (int i = 0; i <= CH_BACKGROUND && admission->running < admission->limit; i++) {
        while (admission->waiters[i].first &&
               admission->running < limit_for(admission, (enum ch_criticality)i)) {
            admission->running++;
            ch_wait_end(admission->waiters[i].first, CH_OK);
        }
    }
}
