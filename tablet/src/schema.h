/* schema.h: a table's families as a tabletserver holds them, and their garbage rules.
 * Reference-counted and immutable: a change of schema is a new one. No function here may wait. */
#ifndef TAB_SCHEMA_H
#define TAB_SCHEMA_H

#include "chassis/proto.h"
#include "strata/tablet/v1/tablet.pb-c.h"

struct tab_gc {
    enum {
        TAB_GC_KEEP,
        TAB_GC_VERSIONS,
        TAB_GC_AGE,
        TAB_GC_ANY,
        TAB_GC_ALL
    } kind; /* ANY: union, ALL: intersection */
    int32_t versions;
    int64_t age_us;
    struct tab_gc *rules;
    size_t rule_count;
};
/* Whether a cell is garbage: the index-th newest of its column (0: the newest). */
bool tab_gc_drops(const struct tab_gc *gc, uint64_t index, int64_t timestamp_us, int64_t now_us);

enum tab_aggregate {
    TAB_AGGREGATE_NONE,
    TAB_AGGREGATE_SUM,
    TAB_AGGREGATE_MIN,
    TAB_AGGREGATE_MAX,
    TAB_AGGREGATE_OTHER
};

struct tab_family {
    struct base_bytes name;
    uint32_t id;
    struct tab_gc gc;
    enum tab_aggregate aggregate;
};
struct tab_schema {
    uint32_t refs;
    uint64_t table, version;
    char *name;
    struct tab_family *families; /* sorted by name */
    size_t family_count;
    struct base_arena arena;
};
struct tab_schema *tab_schema_new(const Strata__Tablet__V1__TableMeta *meta);
struct tab_schema *tab_schema_ref(struct tab_schema *schema);
void tab_schema_unref(struct tab_schema *schema);
/* NULL when there is none. */
const struct tab_family *tab_schema_family(const struct tab_schema *schema, struct base_bytes name);
/* The schema of METADATA itself: family "m", one version. */
struct tab_schema *tab_schema_of_metadata(void);

#endif
