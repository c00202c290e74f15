/* cell_store.h: what a simulated tablet cell stands on: the blockstore double (cell_store_double.c)
 * or real, simulated blockstore daemons (tests/sim/tablet/cell_store_real.c). */
#ifndef TESTS_TABLET_CELL_STORE_H
#define TESTS_TABLET_CELL_STORE_H

#include "cell.h"

void cell_store_new(struct cell *cell); /* names and sim are there, nothing else */
void cell_store_free(struct cell *cell);
/* Begins or goes on with trouble of its own kind / ends it all. From a fiber of the tester. */
void cell_store_trouble(struct cell *cell) CH_WAITS;
void cell_store_calm(struct cell *cell);
/* One line about what it did, for the log of a seed. */
void cell_store_tell(struct cell *cell);

#endif
