/* filter_compile.c: checks a RowFilter as the service does and builds the tree that filter.c
 * runs. Recursion is bounded by TAB_FILTER_DEPTH_MAX. */
#include <math.h>

#include "filter_int.h"

typedef Google__Bigtable__V2__RowFilter proto_filter;

struct builder {
    struct base_arena *arena;
    struct tab_filter *filter;
    struct tab_node **all_end;
    const struct tab_schema *schema;
};

/* Where a chain being built ends. */
struct chain {
    struct tab_node *first, **end;
    bool labelled, in_condition;
    int depth;
};

static struct base_status build(struct builder *builder, const proto_filter *filter,
                                struct chain *chain) BASE_MUST_CHECK;

#define INVALID(...) base_status_make(BASE_INVALID_ARGUMENT, __VA_ARGS__)

static struct tab_node *add_node(struct builder *builder, struct chain *chain,
                                 enum tab_node_kind kind)
{
    struct tab_node *node = BASE_NEW(builder->arena, struct tab_node);
    node->kind = kind;
    *chain->end = node;
    chain->end = &node->next;
    *builder->all_end = node;
    builder->all_end = &node->all_next;
    return node;
}

static bool is_literal(struct base_bytes pattern)
{
    for (size_t i = 0; i < pattern.len; i++)
        if (pattern.data[i] == 0 || strchr("\\^$.|?*+()[]{}", pattern.data[i]))
            return false;
    return true;
}

static struct base_status build_regex(struct builder *builder, struct chain *chain,
                                      enum tab_node_kind kind, ProtobufCBinaryData pattern,
                                      const char *what)
{
    struct tab_node *node = add_node(builder, chain, kind);
    if (is_literal(ch_bytes_of(pattern))) {
        node->literal = true;
        node->text = ch_bytes_of(pattern);
        return BASE_STATUS_OK;
    }
    char error[160] = "";
    node->regex = tab_bridge_regex_new(pattern.data, pattern.len, error, sizeof(error));
    if (node->regex)
        return BASE_STATUS_OK;
    node->literal = true; /* nothing to free */
    return INVALID("Error in field '%s' : invalid regular expression: %s", what, error);
}

static struct base_status check_bounds(const struct tab_node *node, const char *what)
{
    if (!node->low.set || !node->high.set)
        return BASE_STATUS_OK;
    int order = base_bytes_cmp(node->low.value, node->high.value);
    if (order > 0 || (order == 0 && (node->low.open || node->high.open)))
        return INVALID("Error in field '%s' : start must be less than end", what);
    return BASE_STATUS_OK;
}

static struct base_status build_column_range(struct builder *builder, struct chain *chain,
                                             const Google__Bigtable__V2__ColumnRange *range)
{
    struct tab_node *node = add_node(builder, chain, NODE_COLUMN_RANGE);
    node->text = ch_bytes_of(range->family_name);
    if (node->text.len == 0)
        return INVALID("Error in field 'column_range_filter' : family_name must be non-empty");
    if (builder->schema && !tab_schema_family(builder->schema, node->text))
        return base_status_make(BASE_NOT_FOUND, "Requested column family not found : %.*s",
                                BASE_FMT(node->text));
    switch (range->start_qualifier_case) {
    case GOOGLE__BIGTABLE__V2__COLUMN_RANGE__START_QUALIFIER_START_QUALIFIER_CLOSED:
        node->low = (struct tab_bound){ ch_bytes_of(range->start_qualifier_closed), true, false };
        break;
    case GOOGLE__BIGTABLE__V2__COLUMN_RANGE__START_QUALIFIER_START_QUALIFIER_OPEN:
        node->low = (struct tab_bound){ ch_bytes_of(range->start_qualifier_open), true, true };
        break;
    default:
        break;
    }
    switch (range->end_qualifier_case) {
    case GOOGLE__BIGTABLE__V2__COLUMN_RANGE__END_QUALIFIER_END_QUALIFIER_CLOSED:
        node->high = (struct tab_bound){ ch_bytes_of(range->end_qualifier_closed), true, false };
        break;
    case GOOGLE__BIGTABLE__V2__COLUMN_RANGE__END_QUALIFIER_END_QUALIFIER_OPEN:
        node->high = (struct tab_bound){ ch_bytes_of(range->end_qualifier_open), true, true };
        break;
    default:
        break;
    }
    return check_bounds(node, "column_range_filter");
}

static struct base_status build_value_range(struct builder *builder, struct chain *chain,
                                            const Google__Bigtable__V2__ValueRange *range)
{
    struct tab_node *node = add_node(builder, chain, NODE_VALUE_RANGE);
    switch (range->start_value_case) {
    case GOOGLE__BIGTABLE__V2__VALUE_RANGE__START_VALUE_START_VALUE_CLOSED:
        node->low = (struct tab_bound){ ch_bytes_of(range->start_value_closed), true, false };
        break;
    case GOOGLE__BIGTABLE__V2__VALUE_RANGE__START_VALUE_START_VALUE_OPEN:
        node->low = (struct tab_bound){ ch_bytes_of(range->start_value_open), true, true };
        break;
    default:
        break;
    }
    switch (range->end_value_case) {
    case GOOGLE__BIGTABLE__V2__VALUE_RANGE__END_VALUE_END_VALUE_CLOSED:
        node->high = (struct tab_bound){ ch_bytes_of(range->end_value_closed), true, false };
        break;
    case GOOGLE__BIGTABLE__V2__VALUE_RANGE__END_VALUE_END_VALUE_OPEN:
        node->high = (struct tab_bound){ ch_bytes_of(range->end_value_open), true, true };
        break;
    default:
        break;
    }
    return check_bounds(node, "value_range_filter");
}

static struct base_status build_time_range(struct builder *builder, struct chain *chain,
                                           const Google__Bigtable__V2__TimestampRange *range)
{
    struct tab_node *node = add_node(builder, chain, NODE_TIME_RANGE);
    node->start = range->start_timestamp_micros;
    node->end = range->end_timestamp_micros;
    if (node->start < 0 || node->end < 0)
        return INVALID("Error in field 'timestamp_range_filter' : timestamps must not be negative");
    if (node->start % 1000 || node->end % 1000)
        return INVALID("Timestamp granularity mismatch. Expected a multiple of 1000 (millisecond "
                       "granularity), but got %lld.",
                       (long long)(node->start % 1000 ? node->start : node->end));
    if (node->end && node->start >= node->end)
        return INVALID("Error in field 'timestamp_range_filter' : start_timestamp must be less "
                       "than end_timestamp");
    return BASE_STATUS_OK;
}

static struct base_status build_count(struct builder *builder, struct chain *chain,
                                      enum tab_node_kind kind, int32_t count, int32_t least,
                                      const char *what)
{
    struct tab_node *node = add_node(builder, chain, kind);
    node->count = count;
    if (count < least)
        return INVALID("Error in field '%s' : must be %s, got %d", what,
                       least ? "positive" : "non-negative", count);
    return BASE_STATUS_OK;
}

static struct base_status build_flag(struct builder *builder, struct chain *chain,
                                     enum tab_node_kind kind, bool value, const char *what)
{
    add_node(builder, chain, kind);
    return value ? BASE_STATUS_OK : INVALID("Error in field '%s' : must be true if set", what);
}

static struct base_status build_label(struct builder *builder, struct chain *chain,
                                      struct base_bytes label)
{
    bool good = label.len > 0 && label.len <= TAB_LABEL_MAX;
    for (size_t i = 0; good && i < label.len; i++)
        good = (label.data[i] >= 'a' && label.data[i] <= 'z') ||
               (label.data[i] >= '0' && label.data[i] <= '9') || label.data[i] == '-';
    if (!good)
        return INVALID(
            "Error in field 'apply_label_transformer' : must match [a-z0-9\\-]{1,%d}, got \"%.*s\"",
            TAB_LABEL_MAX, BASE_FMT(label));
    if (chain->labelled)
        return INVALID("Error in field 'apply_label_transformer' : at most one label may be "
                       "applied in a chain");
    chain->labelled = true;
    add_node(builder, chain, NODE_LABEL)->text = label;
    return BASE_STATUS_OK;
}

/* A branch of `fork`: a chain that goes on after the fork, or only says that its condition
 * matched. */
static struct base_status build_branch(struct builder *builder, const struct chain *outer,
                                       struct tab_node *fork, const proto_filter *filter,
                                       bool predicate, bool in_condition, struct tab_node **branch)
{
    struct chain chain = { .labelled = outer->labelled && !predicate,
                           .in_condition = outer->in_condition || in_condition,
                           .depth = outer->depth + 1 };
    chain.end = &chain.first;
    struct base_status status = build(builder, filter, &chain);
    struct tab_node *end =
        add_node(builder, &chain, predicate ? NODE_PREDICATE_END : NODE_FORK_END);
    end->fork = fork;
    *branch = chain.first;
    return status;
}

static struct base_status build_interleave(
    struct builder *builder, struct chain *chain,
    const Google__Bigtable__V2__RowFilter__Interleave *interleave)
{
    struct tab_node *node = add_node(builder, chain, NODE_INTERLEAVE);
    if (interleave->n_filters < 2)
        return INVALID("Error in field 'interleave' : must contain at least 2 filters, got %zu",
                       interleave->n_filters);
    node->branches = BASE_NEW_ARRAY(builder->arena, struct tab_node *, interleave->n_filters);
    for (size_t i = 0; i < interleave->n_filters; i++) {
        struct base_status status = build_branch(builder, chain, node, interleave->filters[i],
                                                 false, false, &node->branches[i]);
        if (base_failed(status))
            return status;
        node->branch_count++;
    }
    return BASE_STATUS_OK;
}

static struct base_status build_condition(
    struct builder *builder, struct chain *chain,
    const Google__Bigtable__V2__RowFilter__Condition *condition)
{
    struct tab_node *node = add_node(builder, chain, NODE_CONDITION);
    node->held_end = &node->held;
    node->branches = BASE_NEW_ARRAY(builder->arena, struct tab_node *, 3);
    if (!condition->predicate_filter)
        return INVALID("Error in field 'condition' : predicate_filter must be set");
    if (!condition->true_filter && !condition->false_filter)
        return INVALID("Error in field 'condition' : true_filter or false_filter must be set");
    struct base_status status = build_branch(builder, chain, node, condition->predicate_filter,
                                             true, true, &node->branches[0]);
    if (!base_failed(status) && condition->true_filter)
        status = build_branch(builder, chain, node, condition->true_filter, false, true,
                              &node->branches[1]);
    if (!base_failed(status) && condition->false_filter)
        status = build_branch(builder, chain, node, condition->false_filter, false, true,
                              &node->branches[2]);
    return status;
}

static struct base_status build_chain(struct builder *builder, struct chain *chain,
                                      const Google__Bigtable__V2__RowFilter__Chain *list)
{
    if (list->n_filters < 2)
        return INVALID("Error in field 'chain' : must contain at least 2 filters, got %zu",
                       list->n_filters);
    chain->depth++;
    struct base_status status = BASE_STATUS_OK;
    for (size_t i = 0; i < list->n_filters && !base_failed(status); i++)
        status = build(builder, list->filters[i], chain);
    chain->depth--;
    return status;
}

static struct base_status build_sample(struct builder *builder, struct chain *chain,
                                       double probability)
{
    add_node(builder, chain, NODE_ROW_SAMPLE)->probability = probability;
    if (!(probability > 0 && probability < 1))
        return INVALID(
            "Error in field 'row_sample_filter' : must be in the range (0.0, 1.0), got %g",
            probability);
    return BASE_STATUS_OK;
}

static struct base_status build_sink(struct builder *builder, struct chain *chain, bool value)
{
    if (chain->in_condition)
        return INVALID("Error in field 'sink' : may not appear inside a condition");
    return build_flag(builder, chain, NODE_SINK, value, "sink");
}

#define CASE(name) case GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER_##name

static struct base_status build(struct builder *builder, const proto_filter *filter,
                                struct chain *chain)
{
    if (chain->depth > TAB_FILTER_DEPTH_MAX)
        return INVALID("RowFilter is nested deeper than %d", TAB_FILTER_DEPTH_MAX);
    switch (filter->filter_case) {
        CASE(CHAIN) : return build_chain(builder, chain, filter->chain);
        CASE(INTERLEAVE) : return build_interleave(builder, chain, filter->interleave);
        CASE(CONDITION) : return build_condition(builder, chain, filter->condition);
        CASE(SINK) : return build_sink(builder, chain, filter->sink);
        CASE(PASS_ALL_FILTER)
            : return build_flag(builder, chain, NODE_PASS, filter->pass_all_filter,
                                "pass_all_filter");
        CASE(BLOCK_ALL_FILTER)
            : return build_flag(builder, chain, NODE_BLOCK, filter->block_all_filter,
                                "block_all_filter");
        CASE(ROW_KEY_REGEX_FILTER)
            : return build_regex(builder, chain, NODE_ROW_REGEX, filter->row_key_regex_filter,
                                 "row_key_regex_filter");
        CASE(ROW_SAMPLE_FILTER) : return build_sample(builder, chain, filter->row_sample_filter);
        CASE(FAMILY_NAME_REGEX_FILTER)
            : return build_regex(builder, chain, NODE_FAMILY_REGEX,
                                 filter->family_name_regex_filter, "family_name_regex_filter");
        CASE(COLUMN_QUALIFIER_REGEX_FILTER)
            : return build_regex(builder, chain, NODE_QUALIFIER_REGEX,
                                 filter->column_qualifier_regex_filter,
                                 "column_qualifier_regex_filter");
        CASE(COLUMN_RANGE_FILTER)
            : return build_column_range(builder, chain, filter->column_range_filter);
        CASE(TIMESTAMP_RANGE_FILTER)
            : return build_time_range(builder, chain, filter->timestamp_range_filter);
        CASE(VALUE_REGEX_FILTER)
            : return build_regex(builder, chain, NODE_VALUE_REGEX, filter->value_regex_filter,
                                 "value_regex_filter");
        CASE(VALUE_RANGE_FILTER)
            : return build_value_range(builder, chain, filter->value_range_filter);
        CASE(CELLS_PER_ROW_OFFSET_FILTER)
            : return build_count(builder, chain, NODE_ROW_OFFSET,
                                 filter->cells_per_row_offset_filter, 0,
                                 "cells_per_row_offset_filter");
        CASE(CELLS_PER_ROW_LIMIT_FILTER)
            : return build_count(builder, chain, NODE_ROW_LIMIT, filter->cells_per_row_limit_filter,
                                 1, "cells_per_row_limit_filter");
        CASE(CELLS_PER_COLUMN_LIMIT_FILTER)
            : return build_count(builder, chain, NODE_COLUMN_LIMIT,
                                 filter->cells_per_column_limit_filter, 1,
                                 "cells_per_column_limit_filter");
        CASE(STRIP_VALUE_TRANSFORMER)
            : return build_flag(builder, chain, NODE_STRIP, filter->strip_value_transformer,
                                "strip_value_transformer");
        CASE(APPLY_LABEL_TRANSFORMER)
            : return build_label(builder, chain, ch_bytes_of(filter->apply_label_transformer));
    default:
        return base_status_make(BASE_UNIMPLEMENTED, "RowFilter: %s",
                                filter->base.n_unknown_fields
                                    ? "a filter kind unknown to this server"
                                    : "no filter is set");
    }
}

/* Only what passes every cell of a column alike, or cuts by time, may stand before what is
 * hinted: then the cells that are skipped would have been dropped anyway (a time range's start
 * drops a tail of the column, never its head). */
static struct tab_read_hint make_hint(const struct tab_filter *filter)
{
    struct tab_read_hint hint = { 0 };
    for (const struct tab_node *node = filter->first; node; node = node->next) {
        switch (node->kind) {
        case NODE_PASS:
        case NODE_ROW_REGEX:
        case NODE_FAMILY_REGEX:
        case NODE_QUALIFIER_REGEX:
        case NODE_COLUMN_RANGE:
        case NODE_STRIP:
        case NODE_LABEL:
            continue;
        case NODE_TIME_RANGE:
            if (node->end && (!hint.timestamp_end || node->end < hint.timestamp_end))
                hint.timestamp_end = node->end;
            continue;
        case NODE_COLUMN_LIMIT:
            hint.column_cells = (uint32_t)node->count;
            return hint;
        default:
            return hint;
        }
    }
    return hint;
}

struct base_status tab_filter_compile(const Google__Bigtable__V2__RowFilter *proto,
                                      const struct tab_schema *schema, struct base_arena *arena,
                                      struct tab_filter **compiled)
{
    struct tab_filter *filter = BASE_NEW(arena, struct tab_filter);
    *compiled = filter;
    if (!proto)
        return BASE_STATUS_OK;
    if (ch_proto_size(&proto->base) > TAB_FILTER_BYTES_MAX)
        return INVALID("Error in field 'filter' : serialized RowFilter is larger than %d bytes",
                       TAB_FILTER_BYTES_MAX);
    struct builder builder = { arena, filter, &filter->all, schema };
    struct chain chain = { .depth = 1 };
    chain.end = &chain.first;
    struct base_status status = build(&builder, proto, &chain);
    filter->first = chain.first;
    if (base_failed(status)) {
        tab_filter_destroy(filter);
        return status;
    }
    filter->hint = make_hint(filter);
    return BASE_STATUS_OK;
}

void tab_filter_destroy(struct tab_filter *filter)
{
    for (struct tab_node *node = filter->all; node; node = node->all_next) {
        if (node->regex)
            tab_bridge_regex_free(node->regex);
        base_buf_free(&node->column);
    }
    base_arena_free(&filter->row_arena);
    *filter = (struct tab_filter){ 0 };
}

struct tab_read_hint tab_filter_hint(const struct tab_filter *filter)
{
    return filter->hint;
}
