/* tablet_double_store.h: the tables, rows and cells that the tablet double keeps; no waits. Cells
 * of a row: family and qualifier ascending, timestamp descending. */
#ifndef TESTS_TABLET_DOUBLE_STORE_H
#define TESTS_TABLET_DOUBLE_STORE_H

#include <bsd/sys/queue.h>
#include <bsd/sys/tree.h>

#include "google/bigtable/v2/data.pb-c.h"
#include "tablet/tablet.h"

struct store_cell {
    struct store_cell *next; /* family, qualifier ascending, timestamp descending */
    int64_t timestamp;
    size_t family_len, qualifier_len, value_len;
    uint8_t bytes[];
};

struct store_row {
    RB_ENTRY(store_row) tree;
    struct store_cell *cells;
    size_t len;
    uint8_t key[];
};
RB_HEAD(store_row_tree, store_row);

struct store_table {
    TAILQ_ENTRY(store_table) link;
    char *name;
    struct store_row_tree rows;
    size_t count;
};
TAILQ_HEAD(store_tables, store_table);

void store_free(struct store_tables *tables);
/* By the last part of its name; made when missing, or NULL. */
struct store_table *store_table(struct store_tables *tables, struct base_bytes name, bool make);
/* The first row at or after, or the last one before; NULL: none. */
struct store_row *store_seek(const struct store_table *table, struct base_bytes key, bool before);
struct store_row *store_row(struct store_table *table, struct base_bytes key, bool make);
void store_mutate(struct store_table *table, struct base_bytes key,
                  Google__Bigtable__V2__Mutation **mutations, size_t count);
/* The row as the filter shows it, copied; false: nothing of it. */
bool store_show(const struct store_row *row, const Google__Bigtable__V2__RowFilter *filter,
                struct base_arena *arena, struct tab_row *out);

#endif
