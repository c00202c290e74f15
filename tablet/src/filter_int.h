/* filter_int.h: the compiled tree, shared by filter_compile.c (checks, builds) and filter.c
 * (runs). */
#ifndef TAB_FILTER_INT_H
#define TAB_FILTER_INT_H

#include "filter.h"
#include "sstable_bridge.h"

enum tab_node_kind {
    NODE_PASS,
    NODE_BLOCK,
    NODE_SINK,
    NODE_ROW_REGEX,
    NODE_ROW_SAMPLE,
    NODE_FAMILY_REGEX,
    NODE_QUALIFIER_REGEX,
    NODE_VALUE_REGEX,
    NODE_COLUMN_RANGE,
    NODE_VALUE_RANGE,
    NODE_TIME_RANGE,
    NODE_ROW_OFFSET,
    NODE_ROW_LIMIT,
    NODE_COLUMN_LIMIT,
    NODE_STRIP,
    NODE_LABEL,
    NODE_INTERLEAVE,
    NODE_CONDITION,
    NODE_FORK_END,
    NODE_PREDICATE_END,
};

struct tab_bound {
    struct base_bytes value;
    bool set, open;
};

struct tab_held { /* a cell a condition holds back */
    struct tab_held *next;
    struct tab_out_cell cell;
};

/* A chain is a list of nodes by `next`; what leaves the last one goes to the output. A branch of
 * an interleave or condition ends in a FORK_END that goes on after its fork. */
struct tab_node {
    enum tab_node_kind kind;
    struct tab_node *next;
    /* parameters */
    struct tab_bridge_regex *regex;
    bool literal;           /* the regex is plain text: `text` */
    struct base_bytes text; /* literal, label, or family of a column range */
    struct tab_bound low, high;
    int64_t start, end; /* times; end 0: none */
    int64_t count;
    double probability;
    struct tab_node *
        *branches; /* interleave: all; condition: predicate, true, false (NULL: nothing) */
    size_t branch_count;
    struct tab_node *fork; /* of a FORK_END */
    /* state of the row under evaluation */
    int64_t seen;
    struct base_buf column; /* of a column limit: the column being counted */
    bool matched, row_passes;
    struct tab_held *held, **held_end;
    struct tab_node *all_next; /* list of all nodes, to reset and free */
};

struct tab_filter {
    struct tab_node *first; /* NULL: pass everything */
    struct tab_node *all;
    struct base_arena row_arena;
    size_t held_bytes;
    bool failed, has_row_node;
    tab_out_fn *out;
    void *self;
    struct tab_read_hint hint;
};

#endif
