/* sample.c: strata sample FILE.tsv: stores the cities of a file as entities, unless they are
 * there, loads a composite index, and shows three queries with their times. The file: a header,
 * then id, name, country, admin, population, latitude, longitude, feature, a tab between. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "datastore.h"

typedef Google__Datastore__V1__Key Key;
typedef Google__Datastore__V1__Key__PathElement PathElement;
typedef Google__Datastore__V1__Value Value;
typedef Google__Datastore__V1__Entity Entity;
typedef Google__Datastore__V1__Entity__PropertiesEntry Property;
typedef Google__Datastore__V1__Mutation Mutation;
typedef Google__Datastore__V1__CommitRequest CommitRequest;

enum { FILE_MAX = 256 << 20, BATCH = 500, WRITERS = 4, COLUMNS = 8, PROPERTIES = 6 };
enum { ID, NAME, COUNTRY, ADMIN, POPULATION, LATITUDE, LONGITUDE, FEATURE };
#define VALUE(type) GOOGLE__DATASTORE__V1__VALUE__VALUE_TYPE_##type

struct sample {
    struct cli *cli;
    struct ch_client *client;
    const char *project;
    struct base_bytes *lines;
    size_t count, next;         /* of lines; the first that no writer took */
    struct base_status failure; /* the first */
};

/* ---- entities ---- */

static PathElement *element(struct base_arena *arena, const char *kind)
{
    PathElement *out = CH_MESSAGE(arena, PathElement, google__datastore__v1__key__path_element);
    out->kind = ch_data_str(kind);
    return out;
}

static Value *add(struct base_arena *arena, Entity *entity, const char *name, int type)
{
    Property *property =
        CH_MESSAGE(arena, Property, google__datastore__v1__entity__properties_entry);
    property->key = ch_data_str(name);
    property->value = CH_MESSAGE(arena, Value, google__datastore__v1__value);
    property->value->value_type_case = type;
    entity->properties[entity->n_properties++] = property;
    return property->value;
}

static Entity *city(struct base_arena *arena, const char *const *columns)
{
    Entity *entity = CH_MESSAGE(arena, Entity, google__datastore__v1__entity);
    entity->key = CH_MESSAGE(arena, Key, google__datastore__v1__key);
    entity->key->path = BASE_NEW_ARRAY(arena, PathElement *, 2);
    entity->key->n_path = 2;
    entity->key->path[0] = element(arena, "Country");
    entity->key->path[0]->id_type_case = GOOGLE__DATASTORE__V1__KEY__PATH_ELEMENT__ID_TYPE_NAME;
    entity->key->path[0]->name = ch_data_str(columns[COUNTRY]);
    entity->key->path[1] = element(arena, "City");
    entity->key->path[1]->id_type_case = GOOGLE__DATASTORE__V1__KEY__PATH_ELEMENT__ID_TYPE_ID;
    entity->key->path[1]->id = strtoll(columns[ID], NULL, 10);
    entity->properties = BASE_NEW_ARRAY(arena, Property *, PROPERTIES);
    add(arena, entity, "name", VALUE(STRING_VALUE))->string_value = ch_data_str(columns[NAME]);
    add(arena, entity, "country", VALUE(STRING_VALUE))->string_value =
        ch_data_str(columns[COUNTRY]);
    add(arena, entity, "admin", VALUE(STRING_VALUE))->string_value = ch_data_str(columns[ADMIN]);
    add(arena, entity, "population", VALUE(INTEGER_VALUE))->integer_value =
        strtoll(columns[POPULATION], NULL, 10);
    Google__Type__LatLng *point = CH_MESSAGE(arena, Google__Type__LatLng, google__type__lat_lng);
    point->latitude = strtod(columns[LATITUDE], NULL);
    point->longitude = strtod(columns[LONGITUDE], NULL);
    add(arena, entity, "location", VALUE(GEO_POINT_VALUE))->geo_point_value = point;
    add(arena, entity, "feature", VALUE(STRING_VALUE))->string_value =
        ch_data_str(columns[FEATURE]);
    return entity;
}

/* False when the line has not all columns. */
static bool split(struct base_arena *arena, struct base_bytes line, const char **columns)
{
    char *text = base_bytes_cstr(arena, line);
    size_t count = 0;
    for (char *rest = text; rest && count < COLUMNS;)
        columns[count++] = strsep(&rest, "\t\r");
    return count == COLUMNS;
}

/* ---- storing ---- */

static struct base_status store_batch(struct sample *s, size_t from, size_t count,
                                      struct base_arena *arena) CH_WAITS;
static struct base_status store_batch(struct sample *s, size_t from, size_t count,
                                      struct base_arena *arena)
{
    CommitRequest *request =
        CH_MESSAGE(arena, CommitRequest, google__datastore__v1__commit_request);
    struct ch_call_options options = { .deadline = ch_in(s->cli->env, 60 * CH_S) };
    void *reply;
    request->project_id = ch_data_str(s->project);
    request->mode = GOOGLE__DATASTORE__V1__COMMIT_REQUEST__MODE__NON_TRANSACTIONAL;
    request->mutations = BASE_NEW_ARRAY(arena, Mutation *, count);
    for (size_t i = 0; i < count; i++) {
        const char *columns[COLUMNS];
        if (!split(arena, s->lines[from + i], columns))
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "line %zu of the file has not %d columns", from + i + 2,
                                    COLUMNS);
        Mutation *mutation = CH_MESSAGE(arena, Mutation, google__datastore__v1__mutation);
        mutation->operation_case = GOOGLE__DATASTORE__V1__MUTATION__OPERATION_UPSERT;
        mutation->upsert = city(arena, columns);
        request->mutations[request->n_mutations++] = mutation;
    }
    return ch_client_call(s->client, CLI_DATASTORE(COMMIT), request, &options, arena, &reply);
}

static void write_batches(void *arg)
{
    CH_FIBER_ENTRY();
    struct sample *s = arg;
    struct base_arena arena = { 0 };
    while (s->next < s->count && !base_failed(s->failure)) {
        size_t from = s->next, count = s->count - from < BATCH ? s->count - from : BATCH;
        s->next += count;
        struct base_status status = store_batch(s, from, count, &arena);
        if (base_failed(status) && !base_failed(s->failure))
            s->failure = status;
        else
            base_status_free(&status);
        base_arena_reset(&arena);
    }
    base_arena_free(&arena);
}

static struct base_status store(struct sample *s) CH_WAITS;
static struct base_status store(struct sample *s)
{
    struct ch_gather writers;
    ch_time begin = ch_now(s->cli->env);
    ch_gather_init(&writers, "sample");
    for (int i = 0; i < WRITERS; i++)
        ch_gather_add(&writers, write_batches, s);
    ch_gather_wait(&writers);
    double seconds = (double)(ch_now(s->cli->env) - begin) / 1e9;
    if (!base_failed(s->failure))
        printf("stored %zu cities in %.1f s (%.0f a second)\n", s->count, seconds,
               (double)s->count / seconds);
    return s->failure;
}

static struct base_status count_cities(struct sample *s, const char *filter,
                                       int64_t *count) CH_WAITS;
static struct base_status count_cities(struct sample *s, const char *filter, int64_t *count)
{
    Google__Datastore__V1__RunAggregationQueryResponse *reply;
    const char *json =
        base_arena_printf(&s->cli->arena,
                          "{\"projectId\":\"%s\",\"aggregationQuery\":{\"aggregations\":[{"
                          "\"count\":{}}],\"nestedQuery\":{\"kind\":[{\"name\":\"City\"}]%s}}}",
                          s->project, filter);
    struct base_status status = cli_datastore_call(
        s->cli, s->client, CLI_DATASTORE(RUN_AGGREGATION_QUERY), json, &s->cli->arena, &reply);
    if (base_failed(status))
        return status;
    if (!reply->batch || reply->batch->n_aggregation_results != 1 ||
        reply->batch->aggregation_results[0]->n_aggregate_properties != 1)
        return base_status_make(BASE_INTERNAL, "a count was answered without a number");
    *count = reply->batch->aggregation_results[0]->aggregate_properties[0]->value->integer_value;
    return status;
}

/* ---- the queries ---- */

static void show_row(struct sample *s, struct cli_table *table, const char *what,
                     const char *answer, ch_time begin)
{
    const char *cells[] = { what, answer,
                            base_arena_printf(&s->cli->arena, "%.1f ms",
                                              (double)(ch_now(s->cli->env) - begin) / 1e6) };
    cli_table_row(table, cells);
}

static const Value *property_of(const Entity *entity, const char *name)
{
    for (size_t i = 0; i < entity->n_properties; i++)
        if (base_bytes_eq_str(ch_bytes_of(entity->properties[i]->key), name))
            return entity->properties[i]->value;
    return NULL;
}

static struct base_status run_query(struct sample *s, const char *query,
                                    Google__Datastore__V1__RunQueryResponse **reply) CH_WAITS;
static struct base_status run_query(struct sample *s, const char *query,
                                    Google__Datastore__V1__RunQueryResponse **reply)
{
    const char *json =
        base_arena_printf(&s->cli->arena, "{\"projectId\":\"%s\",\"query\":%s}", s->project, query);
    return cli_datastore_call(s->cli, s->client, CLI_DATASTORE(RUN_QUERY), json, &s->cli->arena,
                              reply);
}

#define COUNTRY_IS                                                                          \
    "\"filter\":{\"propertyFilter\":{\"property\":{\"name\":\"country\"},\"op\":\"EQUAL\"," \
    "\"value\":{\"stringValue\":\"%s\"}}}"

static struct base_status show_largest(struct sample *s, struct cli_table *table,
                                       const char *country) CH_WAITS;
static struct base_status show_largest(struct sample *s, struct cli_table *table,
                                       const char *country)
{
    Google__Datastore__V1__RunQueryResponse *reply;
    struct base_buf names = { 0 };
    ch_time begin = ch_now(s->cli->env);
    const char *query = base_arena_printf(
        &s->cli->arena,
        "{\"kind\":[{\"name\":\"City\"}]," COUNTRY_IS ",\"order\":[{\"property\":{\"name\":"
        "\"population\"},\"direction\":\"DESCENDING\"}],\"limit\":5}",
        country);
    struct base_status status = run_query(s, query, &reply);
    if (base_failed(status))
        return status;
    for (size_t i = 0; i < reply->batch->n_entity_results; i++) {
        const Value *name = property_of(reply->batch->entity_results[i]->entity, "name");
        const Value *population =
            property_of(reply->batch->entity_results[i]->entity, "population");
        if (name && population)
            base_buf_printf(&names, "%s%s %" PRId64, i ? ", " : "",
                            cli_str(s->cli, name->string_value), population->integer_value);
    }
    base_buf_put_u8(&names, 0);
    show_row(s, table, base_arena_printf(&s->cli->arena, "largest cities of %s", country),
             (const char *)names.data, begin);
    base_buf_free(&names);
    return status;
}

static struct base_status show_count(struct sample *s, struct cli_table *table,
                                     const char *country) CH_WAITS;
static struct base_status show_count(struct sample *s, struct cli_table *table, const char *country)
{
    int64_t count;
    ch_time begin = ch_now(s->cli->env);
    struct base_status status =
        count_cities(s, base_arena_printf(&s->cli->arena, "," COUNTRY_IS, country), &count);
    if (!base_failed(status))
        show_row(s, table, base_arena_printf(&s->cli->arena, "how many there are in %s", country),
                 base_arena_printf(&s->cli->arena, "%" PRId64, count), begin);
    return status;
}

static struct base_status show_below(struct sample *s, struct cli_table *table,
                                     const char *country) CH_WAITS;
static struct base_status show_below(struct sample *s, struct cli_table *table, const char *country)
{
    Google__Datastore__V1__RunQueryResponse *reply;
    ch_time begin = ch_now(s->cli->env);
    const char *query =
        base_arena_printf(&s->cli->arena,
                          "{\"kind\":[{\"name\":\"City\"}],\"projection\":[{\"property\":{\"name\":"
                          "\"__key__\"}}],\"limit\":1000,\"filter\":{\"propertyFilter\":{"
                          "\"property\":{\"name\":\"__key__\"},\"op\":\"HAS_ANCESTOR\",\"value\":{"
                          "\"keyValue\":{\"path\":[{\"kind\":\"Country\",\"name\":\"%s\"}]}}}}}",
                          country);
    struct base_status status = run_query(s, query, &reply);
    if (!base_failed(status))
        show_row(s, table, base_arena_printf(&s->cli->arena, "keys below Country %s", country),
                 base_arena_printf(&s->cli->arena, "%zu", reply->batch->n_entity_results), begin);
    return status;
}

static struct base_status show(struct sample *s) CH_WAITS;
static struct base_status show(struct sample *s)
{
    static const char *const heads[] = { "QUERY", "ANSWER", "TIME" };
    struct cli_table table;
    cli_table_init(&table, &s->cli->arena, 3, heads);
    struct base_status status = show_largest(s, &table, "IN");
    if (!base_failed(status))
        status = show_count(s, &table, "US");
    if (!base_failed(status))
        status = show_below(s, &table, "FR");
    if (!base_failed(status))
        cli_table_print(&table, stdout);
    return status;
}

/* ---- the whole ---- */

static void cut_lines(struct sample *s, struct base_bytes text)
{
    size_t lines = 0;
    for (size_t i = 0; i < text.len; i++)
        lines += text.data[i] == '\n';
    s->lines = BASE_NEW_ARRAY(&s->cli->arena, struct base_bytes, lines + 1);
    bool header = true;
    while (text.len > 0) {
        const uint8_t *end = memchr(text.data, '\n', text.len);
        size_t len = end ? (size_t)(end - text.data) : text.len, used = end ? len + 1 : len;
        if (!header && len > 0)
            s->lines[s->count++] = base_bytes(text.data, len);
        header = false;
        text = base_bytes(text.data + used, text.len - used);
    }
}

static struct base_status run(struct sample *s, const char *path) CH_WAITS;
static struct base_status run(struct sample *s, const char *path)
{
    static const char yaml[] = "indexes:\n- kind: City\n  properties:\n  - name: country\n  - "
                               "name: population\n    direction: desc\n";
    struct base_buf text = { 0 };
    int64_t there = 0;
    struct base_status status = ch_file_read_all(s->cli->env, path, FILE_MAX, &text);
    if (!base_failed(status)) {
        cut_lines(s, base_buf_bytes(&text));
        status = count_cities(s, "", &there);
    }
    if (!base_failed(status) && there >= (int64_t)s->count)
        printf("%" PRId64 " cities are there already\n", there);
    else if (!base_failed(status))
        status = store(s);
    if (!base_failed(status))
        status = cli_index_load(s->cli, s->client, s->project, "", base_bytes_str(yaml), NULL);
    if (!base_failed(status))
        status = show(s);
    base_buf_free(&text);
    return status;
}

int cli_sample(struct cli *cli, int argc, char **argv)
{
    const char *project = cli_take_flag(&argc, argv, "--project");
    struct sample s = { .cli = cli,
                        .project = project ? project : "strata",
                        .failure = BASE_STATUS_OK };
    if (!cli_args_end(argc, argv, 1, 1, "sample FILE.tsv [--project P]"))
        return CLI_USAGE;
    s.client = cli_datastore(cli);
    if (!s.client)
        return CLI_FAILED;
    struct base_status status = run(&s, argv[1]);
    ch_client_free(s.client);
    return base_failed(status) ? cli_fail(cli, status) : CLI_OK;
}
