/* cell_store_double.c: the blockstore double below a tablet cell. */
#include "cell_store.h"

#include <stdio.h>

#include "blk_double.h"

static const struct blk_double_faults calm = { 100 * CH_US, 400 * CH_US, 0, 0 };

void cell_store_new(struct cell *cell)
{
    blk_double_new();
}

void cell_store_free(struct cell *cell)
{
    blk_double_free();
}

void cell_store_trouble(struct cell *cell)
{
    struct blk_double_faults faults = { 100 * CH_US, 20 * CH_MS, 30, 20 };
    if (ch_random_below(ch_sim_tester_env(cell->sim), 3) == 0)
        faults = calm;
    blk_double_faults(&faults);
}

void cell_store_calm(struct cell *cell)
{
    blk_double_faults(&calm);
}

void cell_store_tell(struct cell *cell)
{
    struct blk_double_counts counts = blk_double_counts();
    fprintf(stderr, "  %llu files, %llu appends, %llu broken\n", (unsigned long long)counts.files,
            (unsigned long long)counts.appends, (unsigned long long)counts.broken);
}
