/* cell_api.c: google.datastore.v1 as functions, by the generated messages and chassis' RPC client.
 * What a failed call may have done is judged here, once: only a commit does anything, and only
 * these codes leave open whether it did: see ds_commit. */
#include "cell.h"
#include "chassis/naming.h"
#include "google/datastore/v1/datastore.strata.h"

#define DS(name) Google__Datastore__V1__##name
#define DS_NEW(arena, Type, prefix) CH_MESSAGE(arena, DS(Type), google__datastore__v1__##prefix)
#define METHOD(name) \
    (&google__datastore__v1__datastore__service.methods[GOOGLE__DATASTORE__V1__DATASTORE__##name])
#define VALUE(type) GOOGLE__DATASTORE__V1__VALUE__VALUE_TYPE_##type
#define PROJECT "p"

enum { CALL_S = 5, PROPERTIES_MAX = 8, ASK_AGAIN = 3 };

void ds_open(struct ds_api *api, struct ch_env *env, size_t server)
{
    char target[40];

    *api = (struct ds_api){ .env = env, .server = server % CELL_QUERYSERVERS };
    api->naming = ch_naming_new(env, cell.masters);
    for (size_t i = 0; i < CELL_QUERYSERVERS; i++) {
        struct ch_client_options options = { .naming = api->naming };

        snprintf(target, sizeof(target), "/local/queryserver/%zu", i);
        api->servers[i] = ch_client_new(env, target, &options);
    }
}

void ds_close(struct ds_api *api)
{
    for (size_t i = 0; i < CELL_QUERYSERVERS; i++)
        ch_client_free(api->servers[i]);
    ch_naming_free(api->naming);
}

/* ---- messages ---- */

ds_key *ds_key_new(struct base_arena *arena, const char *kind, const char *name)
{
    ds_key *key = DS_NEW(arena, Key, key);
    DS(Key__PathElement) *element = DS_NEW(arena, Key__PathElement, key__path_element);

    key->path = BASE_NEW_ARRAY(arena, DS(Key__PathElement) *, 1);
    key->path[0] = element;
    key->n_path = 1;
    element->kind = ch_data_str(kind);
    element->id_type_case = GOOGLE__DATASTORE__V1__KEY__PATH_ELEMENT__ID_TYPE_NAME;
    element->name = ch_data_str(base_arena_strdup(arena, name));
    return key;
}

ds_entity *ds_entity_new(struct base_arena *arena, const char *kind, const char *name)
{
    ds_entity *entity = DS_NEW(arena, Entity, entity);

    entity->key = ds_key_new(arena, kind, name);
    entity->properties = BASE_NEW_ARRAY(arena, DS(Entity__PropertiesEntry) *, PROPERTIES_MAX);
    return entity;
}

static DS(Value) * value_add(struct base_arena *arena, ds_entity *entity, const char *name)
{
    DS(Entity__PropertiesEntry) *entry =
        DS_NEW(arena, Entity__PropertiesEntry, entity__properties_entry);

    BASE_ASSERT(entity->n_properties < PROPERTIES_MAX);
    entry->key = ch_data_str(name);
    entry->value = DS_NEW(arena, Value, value);
    entity->properties[entity->n_properties++] = entry;
    return entry->value;
}

void ds_set_int(struct base_arena *arena, ds_entity *entity, const char *name, int64_t number)
{
    DS(Value) *value = value_add(arena, entity, name);

    value->value_type_case = VALUE(INTEGER_VALUE);
    value->integer_value = number;
}

void ds_set_text(struct base_arena *arena, ds_entity *entity, const char *name, const char *text)
{
    DS(Value) *value = value_add(arena, entity, name);

    value->value_type_case = VALUE(STRING_VALUE);
    value->string_value = ch_data_str(text);
    value->exclude_from_indexes = true;
}

struct base_bytes ds_name(const ds_entity *entity)
{
    MUST(entity->key && entity->key->n_path == 1, "an entity came without its key");
    return ch_bytes_of(entity->key->path[0]->name);
}

static const DS(Value) * value_of(const ds_entity *entity, const char *name)
{
    for (size_t i = 0; i < entity->n_properties; i++)
        if (base_bytes_eq_str(ch_bytes_of(entity->properties[i]->key), name))
            return entity->properties[i]->value;
    cell_fail(__FILE__, __LINE__, "%.*s has no %s", BASE_FMT(ds_name(entity)), name);
}

int64_t ds_int(const ds_entity *entity, const char *name)
{
    return value_of(entity, name)->integer_value;
}

struct base_bytes ds_text(const ds_entity *entity, const char *name)
{
    return ch_bytes_of(value_of(entity, name)->string_value);
}

ds_mutation *ds_upsert(struct base_arena *arena, ds_entity *entity)
{
    ds_mutation *mutation = DS_NEW(arena, Mutation, mutation);

    mutation->operation_case = GOOGLE__DATASTORE__V1__MUTATION__OPERATION_UPSERT;
    mutation->upsert = entity;
    return mutation;
}

ds_mutation *ds_insert(struct base_arena *arena, ds_entity *entity)
{
    ds_mutation *mutation = DS_NEW(arena, Mutation, mutation);

    mutation->operation_case = GOOGLE__DATASTORE__V1__MUTATION__OPERATION_INSERT;
    mutation->insert = entity;
    return mutation;
}

ds_mutation *ds_delete(struct base_arena *arena, ds_key *key)
{
    ds_mutation *mutation = DS_NEW(arena, Mutation, mutation);

    mutation->operation_case = GOOGLE__DATASTORE__V1__MUTATION__OPERATION_DELETE;
    mutation->delete_ = key;
    return mutation;
}

/* ---- calls ---- */

/* Codes that say that something is broken, not just away. */
static void code_check(const struct base_status *status)
{
    MUST(status->code != BASE_DATA_LOSS && status->code != BASE_INTERNAL &&
             status->code != BASE_UNKNOWN && status->code != BASE_UNIMPLEMENTED,
         "a call failed with %s: %s", base_code_name(status->code), base_status_text(status));
}

static CH_WAITS enum base_code call(struct ds_api *api, const struct ch_method *method,
                                    const void *request, struct base_arena *arena, void **reply)
{
    struct ch_call_options options = { .deadline = ch_in(api->env, CALL_S * CH_S) };
    struct base_status status =
        ch_client_call(api->servers[api->server], method, request, &options, arena, reply);

    if (base_failed(status)) {
        code_check(&status);
        if (getenv("STRATA_CELL_TALK"))
            fprintf(stderr, "%.3f %s: %s %s\n", (double)ch_now(api->env) / 1e9,
                    ch_sim_running(ch_sim_node_of(api->env)) ? "client" : "gone",
                    base_code_name(status.code), base_status_text(&status));
    }
    return base_status_drop(status);
}

/* The next transaction may do better elsewhere. */
static bool done(struct ds_api *api, enum base_code code)
{
    if (code == BASE_UNAVAILABLE || code == BASE_DEADLINE_EXCEEDED)
        api->server = (api->server + 1) % CELL_QUERYSERVERS;
    cell.counts.ok += code == BASE_OK;
    cell.counts.failed += code != BASE_OK;
    return code == BASE_OK;
}

bool ds_begin(struct ds_api *api, struct base_arena *arena, enum ds_mode mode,
              struct base_bytes *token)
{
    DS(BeginTransactionRequest) *request =
        DS_NEW(arena, BeginTransactionRequest, begin_transaction_request);
    DS(BeginTransactionResponse) *reply = NULL;

    request->project_id = ch_data_str(PROJECT);
    if (mode == DS_READ_ONLY) {
        request->transaction_options = DS_NEW(arena, TransactionOptions, transaction_options);
        request->transaction_options->mode_case =
            GOOGLE__DATASTORE__V1__TRANSACTION_OPTIONS__MODE_READ_ONLY;
        request->transaction_options->read_only =
            DS_NEW(arena, TransactionOptions__ReadOnly, transaction_options__read_only);
    }
    if (!done(api, call(api, METHOD(BEGIN_TRANSACTION), request, arena, (void **)&reply)))
        return false;
    *token = ch_bytes_of(reply->transaction);
    return true;
}

static DS(ReadOptions) * read_options(struct base_arena *arena, struct base_bytes token)
{
    DS(ReadOptions) *options = DS_NEW(arena, ReadOptions, read_options);

    if (token.len == 0)
        return NULL;
    options->consistency_type_case =
        GOOGLE__DATASTORE__V1__READ_OPTIONS__CONSISTENCY_TYPE_TRANSACTION;
    options->transaction = ch_data_of(token);
    return options;
}

bool ds_lookup(struct ds_api *api, struct base_arena *arena, struct base_bytes token, ds_key **keys,
               size_t count, ds_entity **found)
{
    DS(LookupRequest) *request = DS_NEW(arena, LookupRequest, lookup_request);
    DS(LookupResponse) *reply = NULL;
    size_t named = 0;

    request->project_id = ch_data_str(PROJECT);
    request->read_options = read_options(arena, token);
    request->keys = keys;
    request->n_keys = count;
    if (!done(api, call(api, METHOD(LOOKUP), request, arena, (void **)&reply)))
        return false;
    MUST(reply->n_found + reply->n_missing == count, "%zu keys: %zu found, %zu missing", count,
         reply->n_found, reply->n_missing);
    for (size_t i = 0; i < count; i++) {
        found[i] = NULL;
        for (size_t k = 0; k < reply->n_found; k++)
            if (base_bytes_eq(ds_name(reply->found[k]->entity),
                              ch_bytes_of(keys[i]->path[0]->name)))
                found[i] = reply->found[k]->entity;
        named += found[i] != NULL;
    }
    MUST(named == reply->n_found, "%zu found, %zu of them asked for", reply->n_found, named);
    return true;
}

static DS(Query) *
    query_new(struct base_arena *arena, const char *kind, const char *property, int64_t value)
{
    DS(Query) *query = DS_NEW(arena, Query, query);

    query->kind = BASE_NEW_ARRAY(arena, DS(KindExpression) *, 1);
    query->kind[0] = DS_NEW(arena, KindExpression, kind_expression);
    query->kind[0]->name = ch_data_str(kind);
    query->n_kind = 1;
    if (property) {
        DS(PropertyFilter) *filter = DS_NEW(arena, PropertyFilter, property_filter);

        filter->property = DS_NEW(arena, PropertyReference, property_reference);
        filter->property->name = ch_data_str(property);
        filter->op = GOOGLE__DATASTORE__V1__PROPERTY_FILTER__OPERATOR__EQUAL;
        filter->value = DS_NEW(arena, Value, value);
        filter->value->value_type_case = VALUE(INTEGER_VALUE);
        filter->value->integer_value = value;
        query->filter = DS_NEW(arena, Filter, filter);
        query->filter->filter_type_case =
            GOOGLE__DATASTORE__V1__FILTER__FILTER_TYPE_PROPERTY_FILTER;
        query->filter->property_filter = filter;
    }
    return query;
}

bool ds_query(struct ds_api *api, struct base_arena *arena, struct base_bytes token,
              const char *kind, const char *property, int64_t value, ds_entity ***found,
              size_t *count)
{
    DS(RunQueryRequest) *request = DS_NEW(arena, RunQueryRequest, run_query_request);
    size_t cap = 0;
    bool more = true;

    request->project_id = ch_data_str(PROJECT);
    request->read_options = read_options(arena, token);
    request->query_type_case = GOOGLE__DATASTORE__V1__RUN_QUERY_REQUEST__QUERY_TYPE_QUERY;
    request->query = query_new(arena, kind, property, value);
    *found = NULL;
    *count = 0;
    while (more) {
        DS(RunQueryResponse) *reply = NULL;

        if (!done(api, call(api, METHOD(RUN_QUERY), request, arena, (void **)&reply)))
            return false;
        if (*count + reply->batch->n_entity_results > cap) {
            ds_entity **grown = BASE_NEW_ARRAY(arena, ds_entity *,
                                               cap = (*count + reply->batch->n_entity_results) * 2);
            for (size_t i = 0; i < *count; i++)
                grown[i] = (*found)[i];
            *found = grown;
        }
        for (size_t i = 0; i < reply->batch->n_entity_results; i++)
            (*found)[(*count)++] = reply->batch->entity_results[i]->entity;
        more = reply->batch->more_results ==
               GOOGLE__DATASTORE__V1__QUERY_RESULT_BATCH__MORE_RESULTS_TYPE__NOT_FINISHED;
        MUST(!more || token.len > 0, "more than a batch of %s without a transaction", kind);
        request->query->start_cursor = reply->batch->end_cursor;
    }
    return true;
}

static bool lost(struct ds_api *api, const ds_mutation *first)
{
    const ds_key *key = first->operation_case == GOOGLE__DATASTORE__V1__MUTATION__OPERATION_DELETE
                            ? first->delete_
                            : first->upsert->key;

    return cell.options.lost_kind && cell.clients[0].done > 0 &&
           base_bytes_eq_str(ch_bytes_of(key->path[0]->kind), cell.options.lost_kind) &&
           ch_random_below(api->env, 8) == 0;
}

/* ABORTED and the refusals (ALREADY_EXISTS and so on) of a commit's first try prove that nothing of
 * it was done or will be. After an unknown outcome the same commit may be sent again: OK is then
 * the outcome of the first, anything else says nothing (the server that knew may be gone). */
enum ds_outcome ds_commit(struct ds_api *api, struct base_arena *arena, struct base_bytes token,
                          ds_mutation **mutations, size_t count)
{
    DS(CommitRequest) *request = DS_NEW(arena, CommitRequest, commit_request);
    bool again = token.len > 0 && ch_random_below(api->env, 2), first = true;
    DS(CommitResponse) * reply;

    if (lost(api, mutations[0]))
        return DS_DONE;
    request->project_id = ch_data_str(PROJECT);
    request->mode = GOOGLE__DATASTORE__V1__COMMIT_REQUEST__MODE__NON_TRANSACTIONAL;
    request->mutations = mutations;
    request->n_mutations = count;
    if (token.len > 0) {
        request->mode = GOOGLE__DATASTORE__V1__COMMIT_REQUEST__MODE__TRANSACTIONAL;
        request->transaction_selector_case =
            GOOGLE__DATASTORE__V1__COMMIT_REQUEST__TRANSACTION_SELECTOR_TRANSACTION;
        request->transaction = ch_data_of(token);
    }
    for (int tries = again ? ASK_AGAIN : 1; tries > 0; tries--, first = false) {
        enum base_code code = call(api, METHOD(COMMIT), request, arena, (void **)&reply);

        if (code == BASE_OK) {
            done(api, code);
            return DS_DONE;
        }
        if (first && code != BASE_UNAVAILABLE && code != BASE_DEADLINE_EXCEEDED &&
            code != BASE_CANCELLED) {
            done(api, code);
            return DS_FAILED;
        }
        if (tries > 1 &&
            ch_sleep_until(api->env, ch_in(api->env, (ch_time)ch_random_below(api->env, CH_S))) !=
                CH_TIMEOUT)
            break;
    }
    done(api, BASE_UNAVAILABLE);
    cell.counts.unknown++;
    return DS_UNKNOWN;
}

void ds_rollback(struct ds_api *api, struct base_arena *arena, struct base_bytes token)
{
    DS(RollbackRequest) *request = DS_NEW(arena, RollbackRequest, rollback_request);
    DS(RollbackResponse) *reply = NULL;

    request->project_id = ch_data_str(PROJECT);
    request->transaction = ch_data_of(token);
    (void)call(api, METHOD(ROLLBACK), request, arena, (void **)&reply);
}
