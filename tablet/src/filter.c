/* filter.c: running a compiled filter: see filter.h. */
#include "filter.h"

#include "filter_int.h"

static void push(struct tab_filter *filter, struct tab_node *node, const struct tab_out_cell *cell);

static bool text_matches(const struct tab_node *node, struct base_bytes text)
{
    if (node->literal)
        return base_bytes_eq(node->text, text);
    return tab_bridge_regex_match(node->regex, text.data, text.len);
}

static bool in_bounds(const struct tab_node *node, struct base_bytes value)
{
    if (node->low.set) {
        int order = base_bytes_cmp(value, node->low.value);
        if (order < 0 || (order == 0 && node->low.open))
            return false;
    }
    if (node->high.set) {
        int order = base_bytes_cmp(value, node->high.value);
        if (order > 0 || (order == 0 && node->high.open))
            return false;
    }
    return true;
}

static bool within_column(struct tab_node *node, const struct tab_out_cell *cell)
{
    struct base_buf *column = &node->column;
    bool same =
        node->seen > 0 && column->len == cell->family.len + 1 + cell->qualifier.len &&
        memcmp(column->data, cell->family.data, cell->family.len) == 0 &&
        column->data[cell->family.len] == 0 &&
        (cell->qualifier.len == 0 || memcmp(column->data + cell->family.len + 1,
                                            cell->qualifier.data, cell->qualifier.len) == 0);
    if (!same) {
        base_buf_clear(column);
        base_buf_put_bytes(column, cell->family);
        base_buf_put_u8(column, 0);
        base_buf_put_bytes(column, cell->qualifier);
        node->seen = 0;
    }
    return ++node->seen <= node->count;
}

static void hold(struct tab_filter *filter, struct tab_node *node, const struct tab_out_cell *cell)
{
    size_t bytes = cell->family.len + cell->qualifier.len + cell->value.len + cell->label.len +
                   sizeof(struct tab_held);
    if (filter->held_bytes + bytes > TAB_CONDITION_BYTES) {
        filter->failed = true;
        return;
    }
    filter->held_bytes += bytes;
    struct base_arena *arena = &filter->row_arena;
    struct tab_held *held = BASE_NEW(arena, struct tab_held);
    held->cell = *cell;
    held->cell.qualifier = base_bytes_dup(arena, cell->qualifier);
    held->cell.value = base_bytes_dup(arena, cell->value);
    *node->held_end = held;
    node->held_end = &held->next;
}

static void release(struct tab_filter *filter, struct tab_node *node, struct tab_node *branch)
{
    for (struct tab_held *held = node->held; held && branch; held = held->next)
        push(filter, branch, &held->cell);
    node->held = NULL;
    node->held_end = &node->held;
}

static void push_condition(struct tab_filter *filter, struct tab_node *node,
                           const struct tab_out_cell *cell)
{
    if (!node->matched) {
        push(filter, node->branches[0], cell);
        if (!node->matched) {
            hold(filter, node, cell);
            return;
        }
        release(filter, node, node->branches[1]);
    }
    if (node->branches[1])
        push(filter, node->branches[1], cell);
}

static bool passes(struct tab_node *node, const struct tab_out_cell *cell)
{
    switch (node->kind) {
    case NODE_PASS:
        return true;
    case NODE_ROW_REGEX:
    case NODE_ROW_SAMPLE:
        return node->row_passes;
    case NODE_FAMILY_REGEX:
        return text_matches(node, cell->family);
    case NODE_QUALIFIER_REGEX:
        return text_matches(node, cell->qualifier);
    case NODE_VALUE_REGEX:
        return text_matches(node, cell->value);
    case NODE_COLUMN_RANGE:
        return base_bytes_eq(cell->family, node->text) && in_bounds(node, cell->qualifier);
    case NODE_VALUE_RANGE:
        return in_bounds(node, cell->value);
    case NODE_TIME_RANGE:
        return cell->timestamp_us >= node->start &&
               (node->end == 0 || cell->timestamp_us < node->end);
    case NODE_ROW_OFFSET:
        return ++node->seen > node->count;
    case NODE_ROW_LIMIT:
        return ++node->seen <= node->count;
    case NODE_COLUMN_LIMIT:
        return within_column(node, cell);
    default:
        return false;
    }
}

/* Sends a cell through `node` and what follows it. */
static void push(struct tab_filter *filter, struct tab_node *node, const struct tab_out_cell *cell)
{
    struct tab_out_cell changed;
    for (; node; node = node->next) {
        switch (node->kind) {
        case NODE_SINK:
            filter->out(filter->self, cell);
            return;
        case NODE_PREDICATE_END:
            node->fork->matched = true;
            return;
        case NODE_FORK_END:
            node = node->fork; /* goes on after it */
            break;
        case NODE_INTERLEAVE:
            for (size_t i = 0; i < node->branch_count; i++)
                push(filter, node->branches[i], cell);
            return;
        case NODE_CONDITION:
            push_condition(filter, node, cell);
            return;
        case NODE_STRIP:
            changed = *cell;
            changed.value = BASE_BYTES_EMPTY;
            cell = &changed;
            break;
        case NODE_LABEL:
            changed = *cell;
            changed.label = node->text;
            cell = &changed;
            break;
        default:
            if (!passes(node, cell))
                return;
        }
    }
    filter->out(filter->self, cell);
}

bool tab_filter_begin(struct tab_filter *filter, struct base_bytes row, uint64_t random,
                      tab_out_fn *out, void *self)
{
    filter->out = out;
    filter->self = self;
    filter->held_bytes = 0;
    filter->failed = false;
    base_arena_reset(&filter->row_arena);
    for (struct tab_node *node = filter->all; node; node = node->all_next) {
        node->seen = 0;
        node->matched = false;
        node->held = NULL;
        node->held_end = &node->held;
        if (node->kind == NODE_ROW_REGEX)
            node->row_passes = text_matches(node, row);
        else if (node->kind == NODE_ROW_SAMPLE)
            node->row_passes = (double)(random >> 11) / 9007199254740992.0 < node->probability;
    }
    for (struct tab_node *node = filter->first; node; node = node->next) {
        bool row_node = node->kind == NODE_ROW_REGEX || node->kind == NODE_ROW_SAMPLE;
        if (node->kind == NODE_BLOCK || (row_node && !node->row_passes))
            return false;
        if (node->kind == NODE_INTERLEAVE || node->kind == NODE_CONDITION)
            break; /* a sink may lie behind it */
    }
    return true;
}

static struct base_status check(const struct tab_filter *filter)
{
    if (!filter->failed)
        return BASE_STATUS_OK;
    return base_status_make(
        BASE_RESOURCE_EXHAUSTED,
        "condition filter: a row holds more than %d MiB before its predicate is decided",
        TAB_CONDITION_BYTES >> 20);
}

struct base_status tab_filter_push(struct tab_filter *filter, const struct tab_cell_view *cell,
                                   bool *done)
{
    struct tab_out_cell out = { .family = cell->family->name,
                                .qualifier = cell->qualifier,
                                .value = cell->value,
                                .timestamp_us = cell->timestamp_us,
                                .value_size = (uint32_t)cell->value.len };
    push(filter, filter->first, &out);
    /* A plain row limit at the top: the rest of the row need not be read. */
    struct tab_node *first = filter->first;
    *done = first && first->kind == NODE_ROW_LIMIT && first->seen >= first->count;
    return check(filter);
}

/* Conditions that never matched go the other way. `all` lists a node before those inside and
 * after it, so what an outer condition lets go is held, or passed, by an inner one in time. */
struct base_status tab_filter_end(struct tab_filter *filter)
{
    for (struct tab_node *node = filter->all; node; node = node->all_next) {
        if (node->kind != NODE_CONDITION || node->matched)
            continue;
        node->matched = true; /* decided: nothing more may be held */
        release(filter, node, node->branches[2]);
    }
    return check(filter);
}
