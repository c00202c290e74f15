/* test_cell.c: a whole cell from a seed: see cell.h. Whatever goes wrong: nothing acknowledged is
 * lost, nothing is done twice, all that is read and written fits one order that respects real time,
 * indexes show what entities do; and when the trouble is over, the cell serves again without help.
 *
 * STRATA_SEED=n replays a seed, STRATA_SEEDS=n runs n seeds a test (STRATA_SEEDS_FROM: the first).
 */
#include <sys/wait.h>
#include <unistd.h>

#include "cell.h"
#include "seeds.h"
#include "test.h"

enum { SERVED_S = 30, HEALTHY_S = 60, RUN_S = 10000 };

struct plan {
    unsigned kinds;
    ch_time length, pause_max;
};

static void run(void *arg)
{
    CH_FIBER_ENTRY();
    const struct plan *plan = arg;
    struct ds_api api;
    ch_time healed;

    cell_up();
    ds_open(&api, cell_env(), 0);
    bank_begin(&api);
    items_begin(&api);
    lists_begin(&api);
    cell_clients_start();
    cell_wait_served(SERVED_S * CH_S);
    cell_faults(plan->kinds, plan->length, plan->pause_max);
    healed = ch_now(cell_env());
    cell_wait_served(SERVED_S * CH_S);
    if (getenv("STRATA_VERBOSE"))
        fprintf(stderr, "seed %" PRIu64 ": every client through every load after %.1f s\n",
                cell.seed, (double)(ch_now(cell_env()) - healed) / 1e9);
    cell_wait_healthy(HEALTHY_S * CH_S);
    cell_clients_stop();
    bank_check(&api);
    items_check(&api);
    lists_check(&api);
    registers_check(&api);
    ds_close(&api);
    cell_down();
}

/* Returns the hash of all that happened. */
static uint64_t run_seed(uint64_t seed, struct plan plan, const struct cell_options *options)
{
    uint64_t trace;

    cell_begin(seed, options);
    ch_sim_do(cell.sim, run, &plan, RUN_S * CH_S);
    trace = ch_sim_trace(cell.sim);
    if (getenv("STRATA_VERBOSE"))
        fprintf(stderr,
                "seed %" PRIu64 ": kinds %x, %" PRIu64 " calls ok, %" PRIu64 " failed, %" PRIu64
                " commits unknown, %" PRIu64 " faults, %" PRIu64 " starts, %.0f s\n",
                seed, plan.kinds, cell.counts.ok, cell.counts.failed, cell.counts.unknown,
                cell.counts.faults, cell.counts.starts, (double)ch_sim_now(cell.sim) / 1e9);
    cell_end();
    return trace;
}

static const struct cell_options honest = { 0 };

Test(sim_cell, in_fair_weather, .timeout = 300)
{
    /* Without faults everything succeeds and every check holds: the loads themselves are sound. */
    run_seed(ch_sim_seed(1), (struct plan){ 0, 5 * CH_S, CH_S }, &honest);
}

/* ---- faults ---- */

static uint64_t seeds(uint64_t plain)
{
    const char *only = getenv("STRATA_SEED"), *count = getenv("STRATA_SEEDS");

    return only ? 1 : count ? strtoull(count, NULL, 10) : seeds_count(plain);
}

static uint64_t first_seed(uint64_t plain)
{
    const char *only = getenv("STRATA_SEED"), *from = getenv("STRATA_SEEDS_FROM");

    return only ? strtoull(only, NULL, 10) : from ? strtoull(from, NULL, 10) : plain;
}

Test(sim_cell, one_kind_of_fault, .timeout = 3000)
{
    /* Each kind of fault alone, so that a failing one says what the cell cannot bear. */
    uint64_t first = first_seed(1), count = seeds(FAULT_KINDS);

    for (uint64_t seed = first; seed < first + count; seed++)
        run_seed(seed, (struct plan){ 1u << seed % FAULT_KINDS, 20 * CH_S, 8 * CH_S }, &honest);
}

/* A few kinds a seed, so that a rare combination is not drowned by the rest; seconds or a
 * moment. */
static struct plan plan_of(uint64_t seed)
{
    uint64_t mix = seed * UINT64_C(0x9e3779b97f4a7c15);
    unsigned kinds = (unsigned)(mix >> 20) & (unsigned)(mix >> 40) & FAULTS_ALL;

    if (mix >> 62 == 0)
        kinds |= (unsigned)(mix >> 33) & FAULTS_ALL;
    return (struct plan){ kinds ? kinds : FAULT_KILL, (20 + (ch_time)(mix >> 55 & 15)) * CH_S,
                          (mix >> 60 & 1 ? 12 : 3) * CH_S };
}

Test(sim_cell, a_swarm_of_faults, .timeout = 30000)
{
    /* Many kinds at once, of each seed its own. */
    uint64_t first = first_seed(1000), count = seeds(10);

    for (uint64_t seed = first; seed < first + count; seed++)
        run_seed(seed, plan_of(seed), &honest);
}

Test(sim_cell, a_seed_is_one_run, .timeout = 300)
{
    /* A failure can be looked at again: two runs of a seed are the same event by event, and two
     * seeds are not. */
    uint64_t seed = first_seed(2000);
    struct plan plan = { FAULTS_ALL, 15 * CH_S, 3 * CH_S };
    uint64_t once = run_seed(seed, plan, &honest), starts = cell.counts.starts,
             again = run_seed(seed, plan, &honest);

    cr_assert_eq(once, again, "STRATA_SEED=%" PRIu64 " ran in two ways", seed);
    cr_assert_eq(starts, cell.counts.starts);
    cr_assert_neq(once, run_seed(seed + 1, plan, &honest), "two seeds, one run");
}

/* ---- that the checks can fail ---- */

/* How many of `count` worlds that lie are caught by a check. Each is a process of its own. */
static size_t caught(uint64_t first, size_t count, struct plan plan, struct cell_options options)
{
    size_t found = 0;

    for (uint64_t seed = first; seed < first + count; seed++) {
        pid_t pid = fork();
        int status = 0;

        cr_assert(pid >= 0);
        if (pid == 0) {
            run_seed(seed, plan, &options);
            _exit(0);
        }
        cr_assert_eq(waitpid(pid, &status, 0), pid);
        cr_assert(WIFEXITED(status) &&
                      (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == CELL_CAUGHT),
                  "seed %" PRIu64 " ended with status %x", seed, status);
        found += WEXITSTATUS(status) == CELL_CAUGHT;
    }
    return found;
}

Test(sim_cell, an_acknowledged_write_that_is_not_there_is_found, .timeout = 300)
{
    /* A client that takes for done what it did not send stands for a cell that loses it: each load
     * finds its own. */
    static const char *const kinds[] = { "Account", "Item", "List", "Register" };

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        cr_assert_eq(caught(1 + i, 1, (struct plan){ 0, 8 * CH_S, CH_S },
                            (struct cell_options){ .lost_kind = kinds[i] }),
                     1u, "lost writes of %s", kinds[i]);
}

Test(sim_cell, a_disk_that_lies_about_sync_is_found, .timeout = 300)
{
    /* Blockservers acknowledge what a power loss of all machines then takes away. */
    cr_assert_eq(caught(1, 2, (struct plan){ FAULT_POWER_ALL, 10 * CH_S, CH_S },
                        (struct cell_options){ .disks_lie = true }),
                 2u);
}
