/* loop_fixture.h: a loop whose clock is a number the test owns; it jumps to the next timer when no
 * fiber is ready. */
#ifndef LOOP_FIXTURE_H
#define LOOP_FIXTURE_H

#include <stdlib.h>
#include <string.h>

#include "env_int.h"

struct fixture {
    struct ch_env env;
    struct ch_loop loop;
    struct ch_env_ops ops;
    ch_time now;
    struct ch_gate gate, inner;
    struct ch_mutex mutex;
    struct ch_cond cond;
    struct ch_sem sem;
    struct ch_chan chan;
    struct ch_done done;
    size_t count, traced;
    char trace[256];
    enum ch_outcome outcomes[64];
};

struct numbered {
    struct fixture *f;
    int n;
};

static inline ch_time fixture_clock(void *self)
{
    return ((struct fixture *)self)->now;
}

static inline ch_time fixture_env_clock(struct ch_env *env)
{
    return ((struct fixture *)env)->now;
}

static inline struct fixture *fixture_new(void)
{
    struct fixture *f = calloc(1, sizeof(*f));
    ch_loop_init(&f->loop, fixture_clock, f);
    f->ops.now = fixture_env_clock;
    f->env.ops = &f->ops;
    f->env.loop = &f->loop;
    ch_gate_init(&f->gate, &f->env, "test");
    ch_gate_init(&f->inner, &f->env, "inner");
    return f;
}

static inline void fixture_spawn(struct fixture *f, ch_fiber_fn *fn, void *arg)
{
    if (base_status_drop(ch_gate_spawn(&f->gate, "test", fn, arg)) != BASE_OK)
        abort();
}

static inline void fixture_trace_number(void *arg)
{
    struct numbered *n = arg;
    n->f->trace[n->f->traced++] = '0' + (char)n->n;
}

static inline void fixture_run(struct fixture *f)
{
    for (;;) {
        if (ch_loop_run_ready(&f->loop) > 0)
            continue;
        ch_time next = ch_loop_next_timer(&f->loop);
        if (next == CH_NEVER)
            return;
        if (next > f->now)
            f->now = next;
        ch_loop_fire(&f->loop, f->now);
    }
}

static inline void fixture_free(struct fixture *f)
{
    ch_loop_destroy(&f->loop);
    free(f);
}

#endif
