/* test_cell.c: a whole cell from a seed: see cell.h. Whatever goes wrong: nothing acknowledged is
 * lost, nothing is done twice, all that is read and written fits one order that respects real time,
 * indexes show what entities do; and when the trouble is over, the cell serves again without help.
 *
 * STRATA_SEED=n replays a seed, STRATA_SEEDS=n runs n seeds a test (STRATA_SEEDS_FROM: the first). */
#include <sys/wait.h>
#include <unistd.h>

#include "cell.h"
#include "seeds.h"
#include "test.h"

enum { SERVED_S = 60, HEALTHY_S = 120, RUN_S = 10000 };

struct plan {
    unsigned kinds;
    ch_time length, pause_max;
};

static void run(void *arg)
{
    CH_FIBER_ENTRY();
    const struct plan *plan = arg;
    struct ds_api api;

    cell_up();
    ds_open(&api, cell_env(), 0);
    bank_begin(&api);
    items_begin(&api);
    lists_begin(&api);
    cell_clients_start();
    cell_wait_served(SERVED_S * CH_S);
    cell_faults(plan->kinds, plan->length, plan->pause_max);
    cell_wait_served(SERVED_S * CH_S);
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
