/* model.h: a naive model of one table's data: a list of everything that was ever done, looked
 * through from the newest. */
#ifndef TESTS_TABLET_MODEL_H
#define TESTS_TABLET_MODEL_H

#include "memtable.h"
#include "rowread.h"

enum { MODEL_MAX = 4000, MODEL_ROWS = 6, MODEL_FAMILIES = 3, MODEL_COLUMNS = 3, MODEL_TIMES = 6 };
enum model_kind {
    MODEL_SET,
    MODEL_DELETE_COLUMN,
    MODEL_DELETE_FAMILY,
    MODEL_DELETE_ROW,
    MODEL_DELETE_RANGE
};

struct model_action {
    enum model_kind kind;
    int row, family, column, time, until; /* until: of a range of times or rows */
    uint64_t seq;
};
struct model {
    struct model_action actions[MODEL_MAX];
    size_t count;
};

/* A random action is added to the model and, as entries, to the memtable; ranges are for the
 * reader. */
void model_act(struct model *model, uint64_t random, struct tab_memtable *memtable,
               struct tab_range_delete *ranges, size_t *range_count);
/* The number of the set that is visible at this cell, looking at actions with numbers up to
 * `snapshot`; 0: none. */
uint64_t model_visible(const struct model *model, uint64_t snapshot, int row, int family,
                       int column, int time);
struct tab_schema *model_schema(const struct tab_gc *gc); /* gc: one for each family */
struct base_bytes model_row(int row);

#endif
