/* context.c: see context.h. A context is shared by the fibers that work for one request; the last
 * one frees it. */
#include "chassis/context.h"

#include <stdlib.h>

#include "loop.h"

struct ch_context *ch_context_new(void)
{
    struct ch_context *context = calloc(1, sizeof(*context));
    BASE_ASSERT(context != NULL);
    context->deadline = CH_NEVER;
    context->criticality = CH_DEFAULT;
    context->refs = 1;
    return context;
}

struct ch_context *ch_context_ref(struct ch_context *context)
{
    context->refs++;
    return context;
}

void ch_context_unref(struct ch_context *context)
{
    if (context && --context->refs == 0)
        free(context);
}

struct ch_context *ch_context_current(void)
{
    struct ch_fiber *fiber = ch_fiber_current();
    return fiber ? fiber->context : NULL;
}

void ch_context_set(struct ch_context *context)
{
    struct ch_fiber *fiber = ch_fiber_current();
    BASE_ASSERT(fiber != NULL);
    ch_context_unref(fiber->context);
    fiber->context = context;
}

ch_time ch_context_deadline(ch_time deadline)
{
    struct ch_context *context = ch_context_current();
    return context && context->deadline < deadline ? context->deadline : deadline;
}
