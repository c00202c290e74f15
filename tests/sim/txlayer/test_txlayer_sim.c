/* test_txlayer_sim.c: random transactions, random faults, one verdict: every acknowledged commit
 * is there once, and all that was read and written fits one order that respects real time and
 * the timestamps. STRATA_SEED=n replays one. */
#include "nemesis.h"
#include "seeds.h"
#include "test.h"
#include "workload.h"

#include <stdio.h>
#include <stdlib.h>

/* STRATA_SEEDS=n runs n times as many. */
enum { SEEDS = 100 };

struct run {
    struct world *world;
    unsigned kinds;
    struct base_buf report;
    struct workload work;
    struct nemesis nemesis;
};

static void run_world(void *arg)
{
    CH_FIBER_ENTRY();
    struct run *run = arg;
    struct ch_env *env = ch_sim_tester_env(run->world->sim);
    /* A few who think, or many in a hurry, so that several batches are always on their way. */
    bool busy = ch_random_below(env, 4) == 0;
    ch_time length = busy ? 15 * CH_S : 60 * CH_S;
    work_start(&run->work, run->world, (busy ? 10 : 3) + ch_random_below(env, 5), length,
               busy ? 30 * CH_MS : 300 * CH_MS, run->kinds & NEMESIS_STEAL);
    nemesis_start(&run->nemesis, run->world, run->kinds, length - 5 * CH_S);
    nemesis_join(&run->nemesis);
    work_join(&run->work);
    /* The last word is that of leaders who know only what is in the tables. */
    for (size_t i = 0; i < run->world->server_count; i++)
        ch_sim_crash(run->world->servers[i].node);
    for (size_t i = 0; i < run->world->server_count; i++)
        world_start(run->world, i);
    work_judge(&run->work, &run->report);
    work_free(&run->work);
}

static void run_seed(uint64_t seed, unsigned kinds)
{
    /* Small limits reach what takes hours otherwise. */
    const char *const extra[] = { "--shards",
                                  "2",
                                  "--log-drop-min",
                                  seed % 3 ? "5" : "512",
                                  "--cache-bytes",
                                  seed % 4 ? "3KiB" : "64MiB",
                                  NULL };
    struct run run = { .kinds = kinds };
    run.world = world_new(seed, 2 + seed % 2, extra);
    ch_sim_do(run.world->sim, run_world, &run, 2000 * CH_S);
    if (getenv("STRATA_TEST_LOG"))
        fprintf(stderr,
                "seed %llu: %zu ok, %zu aborted, %zu unknown (%zu had happened), %zu reads, %zu "
                "past, %zu faults, %.0f s\n",
                (unsigned long long)seed, run.work.ok, run.work.failed, run.work.unknown,
                run.work.resolved, run.work.reads, run.work.past_reads, run.nemesis.acts,
                (double)ch_sim_now(run.world->sim) / 1e9);
    cr_assert(run.report.len == 0, "STRATA_SEED=%llu: %.*s", (unsigned long long)seed,
              (int)run.report.len, (char *)run.report.data);
    cr_assert(run.work.ok > 20, "STRATA_SEED=%llu: only %zu commits", (unsigned long long)seed,
              run.work.ok);
    base_buf_free(&run.report);
    world_free(run.world);
}

/* A random subset of faults a seed. */
static void run_seeds(uint64_t first, size_t count, unsigned always)
{
    const char *only = getenv("STRATA_SEED"), *times = getenv("STRATA_SEEDS");
    count = times ? count * strtoull(times, NULL, 10) : seeds_count(count);
    for (uint64_t seed = first; seed < first + count; seed++) {
        uint64_t s = only ? strtoull(only, NULL, 10) : seed;
        uint64_t mix = s * 0x9e3779b97f4a7c15ULL;
        run_seed(s, always | ((unsigned)(mix >> 40) & (unsigned)(mix >> 50) & NEMESIS_ALL));
        if (only)
            return;
    }
}

Test(txlayer_sim, in_fair_weather)
{
    /* Without faults nothing may be unknown or lost: the workload itself is sound. */
    run_seed(7, 0);
}

Test(txlayer_sim, leaders_crash_and_pause)
{
    /* A leader that died, or slept through its successor's beginning, acknowledges nothing
     * afterwards. */
    run_seeds(100000, SEEDS / 3, NEMESIS_CRASH | NEMESIS_PAUSE);
}

Test(txlayer_sim, the_tablet_layer_answers_with_unknown_outcomes)
{
    /* Lost requests, lost answers, effects that come late, also from leaders long deposed. */
    run_seeds(200000, SEEDS / 3, NEMESIS_TABLET | NEMESIS_PAUSE);
}

Test(txlayer_sim, everything_at_once)
{
    /* Partitions on every side, clocks that jump, and all of the above. */
    run_seeds(300000, SEEDS / 3, NEMESIS_ALL);
}

Test(txlayer_sim, locks_that_two_hold)
{
    /* Were the lock service to give a lock to a second server while the first still believes in
     * it (a clock that runs wrong), reads may be stale, but no commit is lost or made twice: the
     * log alone decides. */
    run_seeds(400000, SEEDS / 3, NEMESIS_STEAL | NEMESIS_PAUSE | NEMESIS_TABLET);
}
