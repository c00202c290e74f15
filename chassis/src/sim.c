/* sim.c: simulated worlds: nodes and their incarnations, virtual time, death.
 *
 * One loop serves all nodes; this file turns it in place of ch_loop_run_ready, one fiber a step, so
 * that a paused node's fibers can be held back and a dead one's run out. A round is the fibers
 * ready when it begins, in seeded order; between rounds due timers fire; when nothing is ready the
 * clock goes to the next timer. Death: an incarnation is marked dead, its sides of connections and
 * its disk are torn away, its fibers are cancelled and then run alone, with time standing still,
 * until none is left. From a fiber (a node may crash itself at a fault point) that running-out
 * follows as soon as the fiber waits or ends, before any other runs. Failure modes: a world that
 * spins at one instant without end gets a clock that moves 1 us a step after SPIN_STEPS; a dead or
 * stopping node whose fibers do not end aborts the process with a dump of the fibers. */
#include "sim_int.h"

#include "fiber_int.h"

enum { SPIN_STEPS = 20000, UNWIND_STEPS_MAX = 2000000 };
#define STOP_TIME_MAX (300 * CH_S)       /* a stop that takes longer hangs */
#define WALL_EPOCH_US 1767225600000000LL /* 2026-01-01 */

static bool step(struct ch_sim *sim, ch_time limit);
static void run_out(struct ch_sim *sim);

/* ---- the env of a node ---- */

static ch_time clock_of(void *self)
{
    return ((struct ch_sim *)self)->now;
}

static ch_time sim_now(struct ch_env *env)
{
    return ch__sim_of(env)->now;
}

static int64_t sim_wall_us(struct ch_env *env)
{
    return WALL_EPOCH_US + ch__sim_of(env)->now / 1000 + ch__inc_of(env)->node->wall_offset_us;
}

static uint64_t sim_random(struct ch_env *env)
{
    return ch__rng_next(&ch__inc_of(env)->rng);
}

static void sim_post(struct ch_env *env, struct ch_post *post)
{
    struct ch_sim *sim = ch__sim_of(env);
    post->next = NULL;
    *sim->posts_end = post;
    sim->posts_end = &post->next;
}

static void sim_offload(struct ch_env *env, void (*fn)(void *arg), void *arg)
{
    fn(arg);
}

static const struct ch_env_ops sim_ops = {
    .now = sim_now,
    .wall_us = sim_wall_us,
    .random = sim_random,
    .transport = &ch__sim_transport,
    .post = sim_post,
    .offload = sim_offload,
    CH__SIM_FILE_OPS,
};

struct base_status ch__sim_dead(struct ch_env *env, const char *what)
{
    return base_status_make(BASE_UNAVAILABLE, "%s: node %s is dead", what,
                            ch__inc_of(env)->node->name);
}

void ch__sim_enter(struct ch_sim *sim)
{
    if (!sim->loop.current)
        ch_loop_enter(&sim->loop);
}

static void give_up(struct ch_sim *sim, const char *why, const struct ch_sim_node *node)
{
    fprintf(stderr, "sim (STRATA_SEED=%llu) at %.6f s: %s %s\n", (unsigned long long)sim->seed,
            (double)sim->now / 1e9, why, node ? node->name : "");
    ch_fiber_dump();
    abort();
}

/* ---- a world ---- */

struct ch_sim *ch_sim_new(uint64_t seed)
{
    struct ch_sim *sim = calloc(1, sizeof(*sim));
    BASE_ASSERT(sim != NULL);
    struct ch__rng seeds = { seed };
    sim->seed = seed;
    sim->now = CH_S;
    sim->schedule.state = ch__rng_next(&seeds);
    sim->net_rng.state = ch__rng_next(&seeds);
    sim->disk_rng.state = ch__rng_next(&seeds);
    sim->user.state = ch__rng_next(&seeds);
    sim->posts_end = &sim->posts;
    sim->print_trace = getenv("STRATA_SIM_TRACE") != NULL;
    ch_loop_init(&sim->loop, clock_of, sim);
    ch__net_init(sim);
    sim->tester = ch_sim_node(sim, "tester", "10.255.255.1");
    return sim;
}

uint64_t ch_sim_seed(uint64_t fallback)
{
    const char *text = getenv("STRATA_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : fallback;
    fprintf(stderr, "STRATA_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

ch_time ch_sim_now(struct ch_sim *sim)
{
    return sim->now;
}

uint64_t ch_sim_random(struct ch_sim *sim)
{
    return ch__rng_next(&sim->user);
}

static void free_nodes(struct ch_sim *sim)
{
    while (sim->nodes) {
        struct ch_sim_node *node = sim->nodes;
        sim->nodes = node->next;
        ch__disk_free(&node->disk);
        free(node->held);
        free(node->host);
        free(node);
    }
}

void ch_sim_free(struct ch_sim *sim)
{
    ch_loop_enter(&sim->loop);
    ch_sim_net_heal(sim);
    for (struct ch_sim_node *node = sim->nodes; node; node = node->next) {
        ch_sim_pause(node, false);
        node->disk.sync_fails = false;
    }
    for (struct ch_sim_node *node = sim->nodes; node; node = node->next) /* newest first */
        ch_sim_stop(node);
    run_out(sim);
    if (sim->loop.live > 0)
        give_up(sim, "fibers outlive the world", NULL);
    ch__net_free(sim);
    free_nodes(sim);
    ch__sim_probes_free(sim);
    ch_loop_destroy(&sim->loop);
    free(sim);
}

/* ---- nodes and incarnations ---- */

struct ch_sim_node *ch_sim_node(struct ch_sim *sim, const char *name, const char *address)
{
    struct ch_sim_node *node = calloc(1, sizeof(*node));
    BASE_ASSERT(node != NULL);
    *node = (struct ch_sim_node){
        .sim = sim, .next = sim->nodes, .name = name, .host = strdup(address)
    };
    BASE_ASSERT(node->host != NULL && !strchr(address, ':'));
    node->id = ++sim->node_count;
    node->wall_offset_us = (int64_t)ch__rng_below(&sim->schedule, 100000) - 50000;
    ch__disk_init(&node->disk, node);
    sim->nodes = node;
    return node;
}

struct ch_sim_node *ch_sim_node_of(struct ch_env *env)
{
    return env->simulated ? ch__inc_of(env)->node : NULL;
}

bool ch_sim_running(struct ch_sim_node *node)
{
    return node->inc != NULL;
}

int ch_sim_exit_value(struct ch_sim_node *node)
{
    return node->exit_value;
}

void ch_sim_clock_jump(struct ch_sim_node *node, int64_t delta_us)
{
    node->wall_offset_us += delta_us;
}

static struct ch__sim_inc *inc_new(struct ch_sim_node *node)
{
    struct ch_sim *sim = node->sim;
    struct ch__sim_inc *inc = calloc(1, sizeof(*inc));
    BASE_ASSERT(inc != NULL && !node->inc);
    inc->env = (struct ch_env){ .ops = &sim_ops, .loop = &sim->loop, .simulated = true };
    inc->node = node;
    inc->rng.state = ch__rng_next(&sim->schedule);
    ch_gate_init(&inc->env.main_gate, &inc->env, node->name);
    node->inc = inc;
    return inc;
}

static void main_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch__sim_inc *inc = arg;
    inc->env.exit_value = inc->main_fn(&inc->env, inc->main_arg);
    inc->returned = true;
    if (inc->dead)
        return;
    inc->next = inc->node->sim->ending;
    inc->node->sim->ending = inc;
}

struct ch_env *ch_sim_start(struct ch_sim_node *node, ch_main_fn *main_fn, void *arg)
{
    ch__sim_enter(node->sim);
    struct ch__sim_inc *inc = inc_new(node);
    inc->main_fn = main_fn;
    inc->main_arg = arg;
    ch__sim_event(node->sim, "start", node, 0);
    BASE_ASSERT(base_status_drop(ch_fiber_start(&inc->env.main_gate, node->name, main_fiber, inc,
                                                NULL)) == BASE_OK);
    return &inc->env;
}

static bool has_fibers(const struct ch__sim_inc *inc)
{
    for (struct ch_fiber *fiber = inc->node->sim->loop.all; fiber; fiber = fiber->all_next)
        if (fiber->env == &inc->env)
            return true;
    return false;
}

static void inc_free(struct ch__sim_inc *inc)
{
    struct ch_sim_node *node = inc->node;
    if (node->inc == inc)
        node->inc = NULL;
    ch__disk_inc_gone(inc);
    ch__env_free_ext(&inc->env);
    ch__net_inc_gone(inc);
    free(inc);
}

/* Ends the incarnations whose main has returned and whose last fiber has gone. */
static void reap(struct ch_sim *sim)
{
    for (struct ch__sim_inc **at = &sim->ending; *at;) {
        struct ch__sim_inc *inc = *at;
        if (!inc->dead && has_fibers(inc)) {
            at = &inc->next;
            continue;
        }
        *at = inc->next;
        if (inc->dead)
            continue; /* died after its main had returned: run_out frees it */
        ch__sim_event(sim, "end", inc->node, (uint64_t)inc->env.exit_value);
        inc->node->exit_value = inc->env.exit_value;
        inc_free(inc);
    }
}

static bool is_gone(void *node)
{
    return !ch_sim_running(node);
}

void ch_sim_stop_begin(struct ch_sim_node *node)
{
    struct ch_sim *sim = node->sim;
    if (!node->inc)
        return;
    ch_sim_pause(node, false);
    if (!node->inc->main_fn) { /* the tester: it has no main fiber */
        node->inc->returned = true;
        node->inc->next = sim->ending;
        sim->ending = node->inc;
    }
    ch_env_stop_main(&node->inc->env);
}

void ch_sim_stop(struct ch_sim_node *node)
{
    struct ch_sim *sim = node->sim;
    if (!node->inc)
        return;
    ch_sim_stop_begin(node);
    if (!ch_sim_run(sim, is_gone, node, sim->now + STOP_TIME_MAX))
        give_up(sim, "does not stop:", node);
}

/* ---- death ---- */

static struct ch_fiber *take_ready(struct ch_sim *sim, size_t index)
{
    struct ch_loop *loop = &sim->loop;
    size_t mask = loop->ready_cap - 1, head = loop->ready_head & mask,
           at = (loop->ready_head + index) & mask;
    struct ch_fiber *fiber = loop->ready[at];
    loop->ready[at] = loop->ready[head];
    loop->ready[head] = fiber;
    loop->ready_head = (loop->ready_head + 1) & mask;
    loop->ready_len--;
    return fiber;
}

static void cancel_fibers(struct ch__sim_inc *inc)
{
    for (struct ch_fiber *fiber = inc->node->sim->loop.all; fiber; fiber = fiber->all_next)
        if (fiber->env == &inc->env)
            ch_fiber_cancel(fiber);
    while (inc->io.first)
        ch_wait_end(inc->io.first, CH_CANCELLED);
}

/* The next ready fiber of a dead incarnation. */
static struct ch_fiber *take_ready_of(struct ch__sim_inc *inc)
{
    struct ch_loop *loop = &inc->node->sim->loop;
    for (size_t i = 0; i < loop->ready_len; i++)
        if (loop->ready[(loop->ready_head + i) & (loop->ready_cap - 1)]->env == &inc->env)
            return take_ready(inc->node->sim, i);
    return NULL;
}

/* Ends the earliest wait of a dead incarnation that ignores cancellation but has a deadline, as if
 * it had passed. */
static bool hurry_timer(struct ch__sim_inc *inc)
{
    struct ch_wait_node *earliest = NULL;
    for (struct ch_fiber *fiber = inc->node->sim->loop.all; fiber; fiber = fiber->all_next) {
        struct ch_wait_node *node = fiber->env == &inc->env ? fiber->waiting : NULL;
        if (node && node->timer.pos &&
            (!earliest || node->timer.deadline < earliest->timer.deadline))
            earliest = node;
    }
    if (earliest)
        ch_wait_end(earliest, CH_TIMEOUT);
    return earliest != NULL;
}

static void run_posts(struct ch_sim *sim)
{
    struct ch_post *post = sim->posts;
    sim->posts = NULL;
    sim->posts_end = &sim->posts;
    while (post) {
        struct ch_post *next = post->next;
        post->fn(post);
        post = next;
    }
}

static void unwind(struct ch_sim *sim, struct ch__sim_inc *inc)
{
    for (size_t steps = 0; has_fibers(inc); steps++) {
        cancel_fibers(inc);
        run_posts(sim);
        struct ch_fiber *fiber = take_ready_of(inc);
        if (fiber)
            ch_fiber_enter(&sim->loop, fiber);
        else if (!hurry_timer(inc))
            give_up(sim, "the fibers of a dead node do not end:", inc->node);
        if (steps > UNWIND_STEPS_MAX)
            give_up(sim, "the fibers of a dead node run for ever:", inc->node);
    }
}

/* Runs the fibers of dead incarnations out. */
static void run_out(struct ch_sim *sim)
{
    while (sim->dying) {
        struct ch__sim_inc *inc = sim->dying;
        sim->dying = inc->next;
        unwind(sim, inc);
        inc_free(inc);
    }
    if (sim->batch_left > sim->loop.ready_len)
        sim->batch_left = sim->loop.ready_len;
}

static void release_held(struct ch_sim_node *node)
{
    for (size_t i = 0; i < node->held_len; i++)
        ch_loop_make_ready(&node->sim->loop, node->held[i]);
    node->held_len = 0;
}

static void forget_ending(struct ch_sim *sim, struct ch__sim_inc *inc)
{
    for (struct ch__sim_inc **at = &sim->ending; *at; at = &(*at)->next)
        if (*at == inc) {
            *at = inc->next;
            return;
        }
}

static void die(struct ch_sim_node *node, bool power_loss)
{
    struct ch_sim *sim = node->sim;
    struct ch__sim_inc *inc = node->inc;
    ch__sim_enter(sim);
    node->paused = false;
    if (inc) {
        ch__sim_event(sim, power_loss ? "crash" : "kill", node, 0);
        forget_ending(sim, inc);
        inc->dead = true;
        node->inc = NULL;
        ch__net_inc_died(inc);
        ch__disk_inc_gone(inc);
        release_held(node);
        cancel_fibers(inc);
        inc->next = sim->dying;
        sim->dying = inc;
    }
    if (power_loss)
        ch__disk_crash(&node->disk, &sim->disk_rng);
    if (!sim->loop.current)
        run_out(sim);
}

void ch_sim_crash(struct ch_sim_node *node)
{
    die(node, true);
}

void ch_sim_kill(struct ch_sim_node *node)
{
    die(node, false);
}

void ch_sim_pause(struct ch_sim_node *node, bool paused)
{
    if (node->paused == paused || (paused && !node->inc))
        return;
    ch__sim_event(node->sim, paused ? "pause" : "resume", node, 0);
    node->paused = paused;
    if (!paused)
        release_held(node);
    ch__net_changed(node->sim);
}

/* ---- time ---- */

static void hold(struct ch_sim_node *node, struct ch_fiber *fiber)
{
    if (node->held_len == node->held_cap) {
        node->held_cap = node->held_cap ? node->held_cap * 2 : 16;
        node->held = realloc(node->held, node->held_cap * sizeof(node->held[0]));
        BASE_ASSERT(node->held != NULL);
    }
    node->held[node->held_len++] = fiber;
}

static void run_one(struct ch_sim *sim)
{
    struct ch_fiber *fiber =
        take_ready(sim, (size_t)ch__rng_below(&sim->schedule, sim->batch_left));
    struct ch_sim_node *node = ch__inc_of(fiber->env)->node;
    sim->batch_left--;
    if (node->paused) {
        hold(node, fiber);
        return;
    }
    ch__sim_event(sim, fiber->name, node, 0);
    /* Time stands still while a fiber runs, so ch_yield_if_long would never yield: at random, it
     * always does. */
    sim->loop.slice_start = sim->now - (ch__rng_below(&sim->schedule, 4) == 0 ? CH_MS : 0);
    ch_fiber_enter(&sim->loop, fiber);
}

static bool begin_round(struct ch_sim *sim, ch_time limit)
{
    run_posts(sim);
    ch_loop_fire(&sim->loop, sim->now);
    if (sim->loop.ready_len == 0 && !sim->posts) {
        ch_time next = ch_loop_next_timer(&sim->loop);
        if (next == CH_NEVER || next > limit)
            return false;
        sim->now = next;
        sim->instant_steps = 0;
        ch_loop_fire(&sim->loop, sim->now);
    }
    sim->batch_left = sim->loop.ready_len;
    return true;
}

/* False when nothing is left to happen until `limit`. */
static bool step(struct ch_sim *sim, ch_time limit)
{
    run_out(sim);
    reap(sim);
    if (sim->batch_left == 0 && !begin_round(sim, limit))
        return false;
    sim->steps++;
    if (++sim->instant_steps > SPIN_STEPS)
        sim->now += CH_US;
    if (sim->batch_left > 0)
        run_one(sim);
    run_out(sim);
    reap(sim);
    return sim->now <= limit;
}

bool ch_sim_run(struct ch_sim *sim, bool (*until)(void *arg), void *arg, ch_time deadline)
{
    ch_loop_enter(&sim->loop);
    do
        if (until && until(arg))
            return true;
    while (step(sim, deadline));
    if (deadline != CH_NEVER && sim->now < deadline)
        sim->now = deadline;
    return until && until(arg);
}

/* ---- the tester ---- */

struct ch_env *ch_sim_tester_env(struct ch_sim *sim)
{
    if (!sim->tester->inc)
        inc_new(sim->tester);
    return &sim->tester->inc->env;
}

struct task {
    ch_fiber_fn *fn;
    void *arg;
    bool done;
};

static void task_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct task *task = arg;
    task->fn(task->arg);
    task->done = true;
}

static bool task_done(void *task)
{
    return ((struct task *)task)->done;
}

void ch_sim_do(struct ch_sim *sim, ch_fiber_fn *fn, void *arg, ch_time deadline)
{
    struct task task = { .fn = fn, .arg = arg };
    struct ch_env *env = ch_sim_tester_env(sim);
    ch_loop_enter(&sim->loop);
    BASE_ASSERT(base_status_drop(
                    ch_fiber_start(&env->main_gate, "tester", task_fiber, &task, NULL)) == BASE_OK);
    if (!ch_sim_run(sim, task_done, &task, deadline))
        give_up(sim, "the tester's task is not done by its deadline", NULL);
}
