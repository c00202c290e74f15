/* nemesis.c: see nemesis.h. */
#include "nemesis.h"

#define TESTER_HOST "10.255.255.1"
#define NAMES_HOST "10.0.0.2"

static struct ch_env *env_of(struct nemesis *nemesis)
{
    return ch_sim_tester_env(nemesis->world->sim);
}

static uint64_t below(struct nemesis *nemesis, uint64_t bound)
{
    return ch_random_below(env_of(nemesis), bound);
}

static void rest(struct nemesis *nemesis, ch_time min, ch_time max) CH_WAITS;
static void rest(struct nemesis *nemesis, ch_time min, ch_time max)
{
    (void)!ch_sleep_until(
        env_of(nemesis),
        ch_in(env_of(nemesis), min + (ch_time)below(nemesis, (uint64_t)(max - min))));
}

/* Usually one that leads something. */
static struct world_server *victim(struct nemesis *nemesis)
{
    struct world *world = nemesis->world;
    size_t leader = world_leader(world, (unsigned)below(nemesis, 2));
    if (leader == SIZE_MAX || below(nemesis, 4) == 0)
        leader = below(nemesis, world->server_count);
    return &world->servers[leader];
}

static void bad_tablet(struct nemesis *nemesis) CH_WAITS;
static void bad_tablet(struct nemesis *nemesis)
{
    struct tablet_double_faults faults = {
        .delay_min = 50 * CH_US,
        .delay_max = below(nemesis, 2) ? 400 * CH_US : 300 * CH_MS,
        .lose_before = (uint32_t)below(nemesis, 300),
        .lose_after = (uint32_t)below(nemesis, 300),
        .late = below(nemesis, 2) ? 500 : 0,
        .late_max = (ch_time)below(nemesis, 15 * CH_S),
        .cut_reads = (uint32_t)below(nemesis, 100),
    };
    struct tablet_double_faults calm = { .delay_min = 50 * CH_US, .delay_max = 300 * CH_US };
    tablet_double_faults(nemesis->world->tablet, &faults);
    rest(nemesis, CH_S, 6 * CH_S);
    tablet_double_faults(nemesis->world->tablet, &calm);
}

static void cut_net(struct nemesis *nemesis, const char *a, const char *b) CH_WAITS;
static void cut_net(struct nemesis *nemesis, const char *a, const char *b)
{
    struct ch_sim *sim = nemesis->world->sim;
    uint64_t ways = 1 + below(nemesis, 3);
    if (ways & 1)
        ch_sim_net_cut(sim, a, b, true);
    if (ways & 2)
        ch_sim_net_cut(sim, b, a, true);
    rest(nemesis, CH_S, 9 * CH_S);
    ch_sim_net_cut(sim, a, b, false);
    ch_sim_net_cut(sim, b, a, false);
}

static void restart(struct nemesis *nemesis, struct world_server *server, bool gently) CH_WAITS;
static void restart(struct nemesis *nemesis, struct world_server *server, bool gently)
{
    ch_sim_pause(server->node, false);
    if (gently)
        ch_sim_kill(server->node);
    else
        ch_sim_crash(server->node);
    rest(nemesis, 10 * CH_MS, 4 * CH_S);
    if (!ch_sim_running(server->node))
        world_start(nemesis->world, (size_t)(server - nemesis->world->servers));
}

static void act(struct nemesis *nemesis, unsigned kind) CH_WAITS;
static void act(struct nemesis *nemesis, unsigned kind)
{
    struct world_server *server = victim(nemesis);
    switch (kind) {
    case NEMESIS_CRASH:
    case NEMESIS_STOP:
        if (ch_sim_running(server->node))
            restart(nemesis, server, kind == NEMESIS_STOP);
        break;
    case NEMESIS_PAUSE:
        ch_sim_pause(server->node, true);
        if (below(nemesis, 2))
            rest(nemesis, 4 * CH_S, 7 * CH_S); /* a little longer than a lease */
        else
            rest(nemesis, 100 * CH_MS, 12 * CH_S);
        ch_sim_pause(server->node, false);
        break;
    case NEMESIS_STEAL:
        names_double_steal(nemesis->world->names,
                           below(nemesis, 2) ? "/local/locks/txshard/1" : "/local/locks/txshard/0");
        break;
    case NEMESIS_CUT_NAMES:
        cut_net(nemesis, server->host, NAMES_HOST);
        break;
    case NEMESIS_CUT_CLIENTS:
        cut_net(nemesis, server->host, TESTER_HOST);
        break;
    case NEMESIS_CUT_TABLET:
        tablet_double_cut(nemesis->world->tablet, server->node, true);
        rest(nemesis, CH_S, 9 * CH_S);
        tablet_double_cut(nemesis->world->tablet, server->node, false);
        break;
    case NEMESIS_CLOCK:
        ch_sim_clock_jump(server->node, (int64_t)below(nemesis, 7200000000ULL) - 3600000000LL);
        break;
    case NEMESIS_TABLET:
        bad_tablet(nemesis);
        break;
    case NEMESIS_NET:
        ch_sim_net_flaky(nemesis->world->sim, (uint32_t)below(nemesis, 20000));
        rest(nemesis, CH_S, 5 * CH_S);
        ch_sim_net_flaky(nemesis->world->sim, 0);
        break;
    default:
        break;
    }
}

static void run(void *arg)
{
    CH_FIBER_ENTRY();
    struct nemesis *nemesis = arg;
    rest(nemesis, 10 * CH_MS, 5 * CH_S);
    while (nemesis->kinds && ch_now(env_of(nemesis)) < nemesis->until) {
        unsigned kind = 1u << below(nemesis, 10);
        if (!(nemesis->kinds & kind))
            continue;
        nemesis->acts++;
        act(nemesis, kind);
        rest(nemesis, 10 * CH_MS, 4 * CH_S);
    }
}

void nemesis_start(struct nemesis *nemesis, struct world *world, unsigned kinds, ch_time length)
{
    *nemesis = (struct nemesis){ .world = world, .kinds = kinds };
    nemesis->until = ch_in(env_of(nemesis), length);
    ch_gate_init(&nemesis->gate, env_of(nemesis), "nemesis");
    for (int i = 0; i < 2; i++)
        BASE_ASSERT(!base_failed(ch_gate_spawn(&nemesis->gate, "nemesis", run, nemesis)));
}

void nemesis_join(struct nemesis *nemesis)
{
    struct tablet_double_faults calm = { .delay_min = 50 * CH_US, .delay_max = 300 * CH_US };
    ch_gate_close(&nemesis->gate);
    ch_gate_join_always(&nemesis->gate);
    tablet_double_faults(nemesis->world->tablet, &calm);
    ch_sim_net_heal(nemesis->world->sim);
    for (size_t i = 0; i < nemesis->world->server_count; i++) {
        struct world_server *server = &nemesis->world->servers[i];
        tablet_double_cut(nemesis->world->tablet, server->node, false);
        ch_sim_pause(server->node, false);
        if (!ch_sim_running(server->node))
            world_start(nemesis->world, i);
    }
}
