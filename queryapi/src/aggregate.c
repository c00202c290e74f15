/* aggregate.c: RunAggregationQuery: counts. Rows of the index are walked, entities are not read. */
#include "scan.h"

#define QUERY_TYPE(name) GOOGLE__DATASTORE__V1__RUN_AGGREGATION_QUERY_REQUEST__QUERY_TYPE_##name
#define OPERATOR(name) GOOGLE__DATASTORE__V1__AGGREGATION_QUERY__AGGREGATION__OPERATOR_##name
enum { AGGREGATIONS_MAX = 5 };

typedef Google__Datastore__V1__AggregationQuery aggregation_query;
typedef Google__Datastore__V1__AggregationQuery__Aggregation aggregation;
typedef Google__Datastore__V1__AggregationResult aggregation_result;
typedef Google__Datastore__V1__AggregationResult__AggregatePropertiesEntry aggregate_property;
typedef Google__Datastore__V1__AggregationResultBatch aggregation_batch;

static struct base_status check_property(const Google__Datastore__V1__PropertyReference *property,
                                         const char *what)
{
    if (!property || property->name.len == 0)
        return base_status_make(BASE_INVALID_ARGUMENT, "%s needs a property", what);
    if (base_bytes_eq_str(ch_bytes_of(property->name), "__key__"))
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "Aggregations are not supported for the property: __key__");
    return base_status_make(BASE_UNIMPLEMENTED, "the aggregation %s is not served yet", what);
}

static struct base_status check_one(const aggregation *one)
{
    switch (one->operator_case) {
    case OPERATOR(COUNT):
        if (one->count->up_to && one->count->up_to->value <= 0)
            return base_status_make(BASE_INVALID_ARGUMENT, "up_to must be greater than zero");
        return BASE_STATUS_OK;
    case OPERATOR(SUM):
        return check_property(one->sum->property, "sum");
    case OPERATOR(AVG):
        return check_property(one->avg->property, "avg");
    default:
        return base_status_make(BASE_INVALID_ARGUMENT, "An aggregation has no operator.");
    }
}

static struct base_status check(const qry_aggregate_request *in)
{
    if (in->query_type_case == QUERY_TYPE(GQL_QUERY))
        return base_status_make(BASE_UNIMPLEMENTED, "GQL is not served yet");
    if (in->query_type_case != QUERY_TYPE(AGGREGATION_QUERY) ||
        !in->aggregation_query->nested_query)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "An aggregation query with a nested query is required.");
    if (in->explain_options)
        return base_status_make(BASE_UNIMPLEMENTED, "explain_options are not served yet");
    const aggregation_query *query = in->aggregation_query;
    if (query->n_aggregations == 0)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "An aggregation query needs at least one aggregation.");
    if (query->n_aggregations > AGGREGATIONS_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "The maximum number of aggregations allowed in an aggregation "
                                "query is %d. Received: %zu",
                                AGGREGATIONS_MAX, query->n_aggregations);
    for (size_t i = 0; i < query->n_aggregations; i++) {
        struct base_status status = check_one(query->aggregations[i]);
        if (base_failed(status))
            return status;
    }
    return BASE_STATUS_OK;
}

/* Nobody wants to know more than this many results. */
static int64_t most_wanted(const aggregation_query *query)
{
    int64_t most = 0;
    for (size_t i = 0; i < query->n_aggregations; i++) {
        const aggregation *one = query->aggregations[i];
        if (!one->count->up_to)
            return INT64_MAX;
        most = one->count->up_to->value > most ? one->count->up_to->value : most;
    }
    return most;
}

/* Counts results after the offset, up to the limit and `most`. */
static struct base_status count_results(struct qry_walk *walk, const struct qry_query *query,
                                        int64_t most, int64_t *count) CH_WAITS;
static struct base_status count_results(struct qry_walk *walk, const struct qry_query *query,
                                        int64_t most, int64_t *count)
{
    struct base_bytes suffix;
    bool found = true;
    int64_t passed = 0;
    if (query->limit >= 0 && query->limit < most)
        most = query->limit;
    *count = 0;
    while (*count < most) {
        struct base_status status = qry_walk_next(walk, &suffix, &found);
        if (base_failed(status) || !found)
            return status;
        if (passed++ >= query->offset)
            ++*count;
    }
    return BASE_STATUS_OK;
}

static struct base_status add_one(aggregation_result *result, const aggregation *one, int64_t count,
                                  size_t *unnamed, struct base_arena *arena)
{
    aggregate_property *entry =
        CH_MESSAGE(arena, aggregate_property,
                   google__datastore__v1__aggregation_result__aggregate_properties_entry);
    entry->key = one->alias.len > 0
                     ? one->alias
                     : ch_data_str(base_arena_printf(arena, "property_%zu", ++*unnamed));
    entry->value = CH_MESSAGE(arena, qry_value, google__datastore__v1__value);
    entry->value->value_type_case = VALUE(INTEGER_VALUE);
    int64_t most = one->count->up_to ? one->count->up_to->value : INT64_MAX;
    entry->value->integer_value = count < most ? count : most;
    for (size_t i = 0; i < result->n_aggregate_properties; i++)
        if (base_bytes_eq(ch_bytes_of(result->aggregate_properties[i]->key),
                          ch_bytes_of(entry->key)))
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "Aggregation alias \"%.*s\" is not unique.",
                                    BASE_FMT(ch_bytes_of(entry->key)));
    result->aggregate_properties[result->n_aggregate_properties++] = entry;
    return BASE_STATUS_OK;
}

static struct base_status make_batch(const aggregation_query *query, int64_t count,
                                     struct base_arena *arena, aggregation_batch *batch)
{
    aggregation_result *result =
        CH_MESSAGE(arena, aggregation_result, google__datastore__v1__aggregation_result);
    size_t unnamed = 0;
    result->aggregate_properties = BASE_NEW_ARRAY(arena, aggregate_property *, AGGREGATIONS_MAX);
    for (size_t i = 0; i < query->n_aggregations; i++) {
        struct base_status status = add_one(result, query->aggregations[i], count, &unnamed, arena);
        if (base_failed(status))
            return status;
    }
    batch->aggregation_results = BASE_NEW(arena, aggregation_result *);
    batch->aggregation_results[batch->n_aggregation_results++] = result;
    batch->more_results =
        GOOGLE__DATASTORE__V1__QUERY_RESULT_BATCH__MORE_RESULTS_TYPE__NO_MORE_RESULTS;
    return BASE_STATUS_OK;
}

static struct base_status count_all(struct qry_request *request, struct qry_read *read,
                                    const struct qry_query *query, int64_t most,
                                    int64_t *count) CH_WAITS;
static struct base_status count_all(struct qry_request *request, struct qry_read *read,
                                    const struct qry_query *query, int64_t most, int64_t *count)
{
    struct qry_plan *plan = BASE_NEW(request->arena, struct qry_plan);
    struct qry_walk walk;
    struct base_status status = qry_plan_for(request, read, query, plan);
    int64_t rows = query->limit >= 0 && query->limit < most ? query->limit : most;
    size_t page = rows > 100000 ? 0 : (size_t)rows + (size_t)query->offset + 1;
    if (!base_failed(status))
        status = qry_walk_open(&walk, request, read, query, plan, page);
    if (base_failed(status))
        return status;
    status = count_results(&walk, query, most, count);
    qry_walk_close(&walk);
    if (!base_failed(status) && read->timestamp == 0)
        status = txn_read_timestamp(request->server->txn, request->database, request->deadline,
                                    &read->timestamp);
    return status;
}

struct base_status qry_run_aggregation_query(struct qry_request *request, void *message,
                                             void **reply)
{
    qry_aggregate_request *in = message;
    qry_aggregate_reply *out = CH_MESSAGE(request->arena, qry_aggregate_reply,
                                          google__datastore__v1__run_aggregation_query_response);
    struct qry_query query;
    struct qry_read read;
    int64_t count = 0;
    struct base_status status = check(in);
    if (!base_failed(status))
        status = qry_query_make(&request->scope, in->partition_id,
                                in->aggregation_query->nested_query, request->arena, &query);
    if (!base_failed(status))
        status = qry_read_open(request, in->read_options, &read);
    if (base_failed(status))
        return status;
    status = count_all(request, &read, &query, most_wanted(in->aggregation_query), &count);
    out->batch = CH_MESSAGE(request->arena, aggregation_batch,
                            google__datastore__v1__aggregation_result_batch);
    if (!base_failed(status))
        status = make_batch(in->aggregation_query, count, request->arena, out->batch);
    out->batch->read_time = qry_time_of(request->arena, read.timestamp);
    out->transaction = ch_data_of(read.begun);
    qry_read_close(request, &read);
    *reply = out;
    return status;
}
