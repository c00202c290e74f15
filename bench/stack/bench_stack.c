/* bench_stack.c: a native load generator for the query API: `outstanding` fibers in one process,
 * each doing one operation after the other through google.datastore.v1. Prints, a phase a line:
 * operations a second, p50/p99/p99.9 in microseconds, errors.
 *
 *   bench_stack HOST:PORT [--outstanding 64] [--seconds 10] [--entities 20000] [--value-bytes 100]
 *               [--phase insert|upsert|lookup]
 *
 * Upserts are durable single-entity non-transactional commits of an entity with three properties
 * (two indexed); lookups read one of those entities, chosen evenly. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chassis/env.h"
#include "chassis/metrics.h"
#include "chassis/rpc_client.h"
#include "google/datastore/v1/datastore.pb-c.h"
#include "google/datastore/v1/datastore.strata.h"

struct bench {
    const char *target, *project, *phase;
    long outstanding, seconds, entities, value_bytes;
    struct ch_env *env;
    struct ch_client *client;
    struct ch_histogram *latency;
    uint64_t next, done, failed;
    ch_time end;
    char *filler;
    char first_error[256];
};

typedef Google__Datastore__V1__Key Key;
typedef Google__Datastore__V1__Value Value;
typedef Google__Datastore__V1__Entity Entity;

static const struct ch_method *method(int index)
{
    return &google__datastore__v1__datastore__service.methods[index];
}

static Key *make_key(struct base_arena *arena, const char *project, uint64_t number)
{
    Key *key = CH_MESSAGE(arena, Key, google__datastore__v1__key);
    key->partition_id =
        CH_MESSAGE(arena, Google__Datastore__V1__PartitionId, google__datastore__v1__partition_id);
    key->partition_id->project_id = ch_data_str(project);
    key->path = BASE_NEW_ARRAY(arena, Google__Datastore__V1__Key__PathElement *, 1);
    key->path[0] = CH_MESSAGE(arena, Google__Datastore__V1__Key__PathElement,
                              google__datastore__v1__key__path_element);
    key->path[0]->kind = ch_data_str("Bench");
    key->path[0]->id_type_case = GOOGLE__DATASTORE__V1__KEY__PATH_ELEMENT__ID_TYPE_NAME;
    key->path[0]->name =
        ch_data_str(base_arena_printf(arena, "e%08llu", (unsigned long long)number));
    key->n_path = 1;
    return key;
}

static Value *string_value(struct base_arena *arena, const char *text, bool indexed)
{
    Value *value = CH_MESSAGE(arena, Value, google__datastore__v1__value);
    value->value_type_case = GOOGLE__DATASTORE__V1__VALUE__VALUE_TYPE_STRING_VALUE;
    value->string_value = ch_data_str(text);
    value->exclude_from_indexes = !indexed;
    return value;
}

static void add_property(struct base_arena *arena, Entity *entity, const char *name, Value *value)
{
    Google__Datastore__V1__Entity__PropertiesEntry *entry =
        CH_MESSAGE(arena, Google__Datastore__V1__Entity__PropertiesEntry,
                   google__datastore__v1__entity__properties_entry);
    entry->key = ch_data_str(name);
    entry->value = value;
    entity->properties[entity->n_properties++] = entry;
}

static struct base_status upsert(struct bench *bench, struct base_arena *arena,
                                 uint64_t number) CH_WAITS
{
    Entity *entity = CH_MESSAGE(arena, Entity, google__datastore__v1__entity);
    entity->key = make_key(arena, bench->project, number);
    entity->properties = BASE_NEW_ARRAY(arena, Google__Datastore__V1__Entity__PropertiesEntry *, 3);
    Value *count = CH_MESSAGE(arena, Value, google__datastore__v1__value);
    count->value_type_case = GOOGLE__DATASTORE__V1__VALUE__VALUE_TYPE_INTEGER_VALUE;
    count->integer_value = (int64_t)ch_random_below(bench->env, 1000000);
    add_property(arena, entity, "count", count);
    add_property(arena, entity, "group",
                 string_value(arena,
                              base_arena_printf(arena, "g%llu", (unsigned long long)number % 100),
                              true));
    add_property(arena, entity, "filler", string_value(arena, bench->filler, false));
    Google__Datastore__V1__Mutation *mutation =
        CH_MESSAGE(arena, Google__Datastore__V1__Mutation, google__datastore__v1__mutation);
    mutation->operation_case = GOOGLE__DATASTORE__V1__MUTATION__OPERATION_UPSERT;
    mutation->upsert = entity;
    Google__Datastore__V1__CommitRequest *request = CH_MESSAGE(
        arena, Google__Datastore__V1__CommitRequest, google__datastore__v1__commit_request);
    request->project_id = ch_data_str(bench->project);
    request->mode = GOOGLE__DATASTORE__V1__COMMIT_REQUEST__MODE__NON_TRANSACTIONAL;
    request->mutations = &mutation;
    request->n_mutations = 1;
    void *reply;
    return ch_client_call(bench->client, method(GOOGLE__DATASTORE__V1__DATASTORE__COMMIT), request,
                          NULL, arena, &reply);
}

static struct base_status lookup(struct bench *bench, struct base_arena *arena,
                                 uint64_t number) CH_WAITS
{
    Google__Datastore__V1__LookupRequest *request = CH_MESSAGE(
        arena, Google__Datastore__V1__LookupRequest, google__datastore__v1__lookup_request);
    Key *key = make_key(arena, bench->project, number);
    request->project_id = ch_data_str(bench->project);
    request->keys = &key;
    request->n_keys = 1;
    void *reply;
    struct base_status status =
        ch_client_call(bench->client, method(GOOGLE__DATASTORE__V1__DATASTORE__LOOKUP), request,
                       NULL, arena, &reply);
    if (!base_failed(status) && ((Google__Datastore__V1__LookupResponse *)reply)->n_found != 1)
        return base_status_make(BASE_DATA_LOSS, "entity %llu is not found",
                                (unsigned long long)number);
    return status;
}

typedef struct base_status operation(struct bench *bench, struct base_arena *arena,
                                     uint64_t number);

struct worker {
    struct bench *bench;
    operation *run;
    bool chosen; /* at random among the entities, until the end; else each number once */
};

static void work(void *arg)
{
    CH_FIBER_ENTRY();
    struct worker *worker = arg;
    struct bench *bench = worker->bench;
    struct base_arena arena = { 0 };
    for (;;) {
        uint64_t number =
            worker->chosen ? ch_random_below(bench->env, (uint64_t)bench->entities) : bench->next++;
        ch_time begin = ch_now(bench->env);
        if (worker->chosen ? begin >= bench->end : number >= (uint64_t)bench->entities)
            break;
        struct base_status status = worker->run(bench, &arena, number);
        if (base_failed(status)) {
            if (!bench->failed++)
                snprintf(bench->first_error, sizeof(bench->first_error), "%s",
                         base_status_text(&status));
            base_status_free(&status);
        } else {
            bench->done++;
            ch_observe(bench->latency, (uint64_t)(ch_now(bench->env) - begin));
        }
        base_arena_reset(&arena);
    }
    base_arena_free(&arena);
}

static void phase(struct bench *bench, const char *name, operation *run, bool chosen) CH_WAITS
{
    struct worker worker = { bench, run, chosen };
    struct ch_gather workers;
    bench->latency = ch_histogram_new();
    bench->next = bench->done = bench->failed = 0;
    ch_time begin = ch_now(bench->env);
    bench->end = begin + bench->seconds * CH_S;
    ch_gather_init(&workers, name);
    for (long i = 0; i < bench->outstanding; i++)
        ch_gather_add(&workers, work, &worker);
    ch_gather_wait(&workers);
    double seconds = (double)(ch_now(bench->env) - begin) / 1e9;
    printf("%-18s %3ld outstanding %9.0f /s   p50 %7.0f us   p99 %7.0f us   p99.9 %7.0f us   %llu "
           "done, %llu failed\n",
           name, bench->outstanding, (double)bench->done / seconds,
           (double)ch_histogram_quantile(bench->latency, 0.5) / 1e3,
           (double)ch_histogram_quantile(bench->latency, 0.99) / 1e3,
           (double)ch_histogram_quantile(bench->latency, 0.999) / 1e3,
           (unsigned long long)bench->done, (unsigned long long)bench->failed);
    if (bench->failed)
        printf("  first failure: %s\n", bench->first_error);
    fflush(stdout);
    ch_histogram_free(bench->latency);
}

static int bench_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct bench *bench = arg;
    bench->env = env;
    bench->client = ch_client_new(env, bench->target, NULL);
    bench->filler = calloc(1, (size_t)bench->value_bytes + 1);
    memset(bench->filler, 'x', (size_t)bench->value_bytes);
    bool all = !bench->phase;
    if (all || strcmp(bench->phase, "insert") == 0)
        phase(bench, "upsert, new", upsert, false);
    if (all || strcmp(bench->phase, "upsert") == 0)
        phase(bench, "upsert, over old", upsert, true);
    if (all || strcmp(bench->phase, "lookup") == 0)
        phase(bench, "lookup", lookup, true);
    free(bench->filler);
    ch_client_free(bench->client);
    return 0;
}

int main(int argc, char **argv)
{
    struct bench bench = {
        .project = "bench", .outstanding = 64, .seconds = 10, .entities = 20000, .value_bytes = 100
    };
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--outstanding") == 0)
            bench.outstanding = atol(value), i++;
        else if (strcmp(argv[i], "--seconds") == 0)
            bench.seconds = atol(value), i++;
        else if (strcmp(argv[i], "--entities") == 0)
            bench.entities = atol(value), i++;
        else if (strcmp(argv[i], "--value-bytes") == 0)
            bench.value_bytes = atol(value), i++;
        else if (strcmp(argv[i], "--phase") == 0)
            bench.phase = value, i++;
        else
            bench.target = argv[i];
    }
    if (!bench.target || bench.outstanding < 1 || bench.entities < 1) {
        fprintf(stderr, "usage: bench_stack HOST:PORT [--outstanding N] [--seconds N] [--entities "
                        "N] [--value-bytes N]\n");
        return 2;
    }
    return ch_env_run(bench_main, &bench);
}
