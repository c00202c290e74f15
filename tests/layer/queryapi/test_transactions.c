/* Transactions over the txlayer's double: serializable under random interleavings, one snapshot
 * each, and every end of a transaction answered with the documented code. */
#include <stdio.h>
#include <stdlib.h>

#include "bed.h"

#define KEY(kind, name) "{'path':[{'kind':'" kind "','name':'" name "'}]}"
#define OVER "expired or is no longer valid"

static const char *begin(struct bed *t, const char *options) CH_WAITS;
static const char *begin(struct bed *t, const char *options)
{
    Google__Datastore__V1__BeginTransactionResponse *reply =
        bed_call(t, BEGIN, "{'transactionOptions':%s}", options);
    return bed_base64(t, reply->transaction);
}

static void put(struct bed *t, const char *name, int value) CH_WAITS;
static void put(struct bed *t, const char *name, int value)
{
    bed_call(t, COMMIT,
             "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':{'key':{'path':[{'kind':'A','name'"
             ":'%s'}]},'properties':{'v':{'integerValue':'%d'}}}}]}",
             name, value);
}

/* The value, or -1; through a transaction when `transaction` is not "". */
static int get(struct bed *t, const char *transaction, const char *name) CH_WAITS;
static int get(struct bed *t, const char *transaction, const char *name)
{
    qry_lookup_reply *reply =
        *transaction ? bed_call(t, LOOKUP,
                                "{'readOptions':{'transaction':'%s'},'keys':[{'path':[{'kind':'A','"
                                "name':'%s'}]}]}",
                                transaction, name)
                     : bed_call(t, LOOKUP, "{'keys':[{'path':[{'kind':'A','name':'%s'}]}]}", name);
    return reply->n_found ? (int)reply->found[0]->entity->properties[0]->value->integer_value : -1;
}

static void *commit(struct bed *t, const char *transaction, const char *name, int value,
                    struct base_status *status) CH_WAITS;
static void *commit(struct bed *t, const char *transaction, const char *name, int value,
                    struct base_status *status)
{
    return bed_send(t, COMMIT,
                    bed_request(t, COMMIT,
                                "{'transaction':'%s','mutations':[{'upsert':{'key':{'path':[{'kind'"
                                ":'A','name':'%s'}]},'properties':{'v':{'integerValue':'%d'}}}}]}",
                                transaction, name, value),
                    status);
}

/* An entity read and then changed by another aborts the commit; afterwards the transaction is
 * over, not aborted again; its own reads are one snapshot and never show its own writes. */
BED_TEST(optimistic)
{
    struct base_status status;
    put(t, "x", 1);
    put(t, "y", 1);
    const char *transaction = begin(t, "{}");
    cr_assert_eq(get(t, transaction, "x"), 1);
    put(t, "y", 2);
    cr_assert_eq(get(t, transaction, "y"), 1, "one snapshot");
    cr_assert(commit(t, transaction, "z", 5, &status) == NULL);
    cr_assert(status.code == BASE_ABORTED && strstr(base_status_text(&status), "contention"), "%s",
              base_status_text(&status));
    base_status_free(&status);
    cr_assert_eq(get(t, "", "z"), -1);
    bed_fails(t, COMMIT, BASE_INVALID_ARGUMENT, OVER, "{'transaction':'%s'}", transaction);
    bed_fails(t, LOOKUP, BASE_INVALID_ARGUMENT, OVER,
              "{'readOptions':{'transaction':'%s'},'keys':[" KEY("A", "x") "]}", transaction);
    bed_call(t, ROLLBACK, "{'transaction':'%s'}", transaction);
    transaction = begin(t, "{'readWrite':{}}");
    cr_assert_eq(get(t, transaction, "y"), 2);
    qry_commit_reply *reply = commit(t, transaction, "z", 5, &status);
    cr_assert(reply && reply->commit_time, "%s", base_status_text(&status));
    cr_assert_eq(get(t, "", "z"), 5);
}

/* A commit whose answer was lost is sent again and has the first outcome: the same version,
 * written once. */
BED_TEST(repeated_commit)
{
    struct base_status status;
    put(t, "x", 1);
    const char *transaction = begin(t, "{}");
    cr_assert_eq(get(t, transaction, "x"), 1);
    t->lost_answer = true; /* the client does not retry by itself */
    t->store.lose_commits = 1;
    cr_assert(commit(t, transaction, "x", 2, &status) == NULL);
    cr_assert_eq(status.code, BASE_UNAVAILABLE);
    base_status_free(&status);
    qry_commit_reply *first = commit(t, transaction, "x", 2, &status);
    cr_assert(first != NULL, "%s", base_status_text(&status));
    put(t, "x", 3);
    qry_commit_reply *again = commit(t, transaction, "x", 2, &status);
    cr_assert(again != NULL, "%s", base_status_text(&status));
    cr_assert_eq(first->mutation_results[0]->version, again->mutation_results[0]->version);
    cr_assert_eq(get(t, "", "x"), 3, "the second did nothing");
}

/* Read-only transactions are a snapshot, write nothing, and their empty commit succeeds, even at a
 * server that knows nothing of them; a read-write one's reads are lost with its server. */
BED_TEST(read_only_and_restart)
{
    put(t, "x", 1);
    const char *transaction = begin(t, "{'readOnly':{}}"), *writing = begin(t, "{}");
    cr_assert_eq(get(t, writing, "x"), 1);
    put(t, "x", 2);
    cr_assert_eq(get(t, transaction, "x"), 1);
    bed_restart(t);
    cr_assert_eq(get(t, transaction, "x"), 1);
    bed_fails(t, LOOKUP, BASE_ABORTED, "begin it again",
              "{'readOptions':{'transaction':'%s'},'keys':[" KEY("A", "x") "]}", writing);
    bed_fails(t, COMMIT, BASE_INVALID_ARGUMENT,
              "Cannot modify entities in a read-only transaction.",
              "{'transaction':'%s','mutations':[{'delete':" KEY("A", "x") "}]}", transaction);
    bed_call(t, COMMIT, "{'transaction':'%s'}", begin(t, "{'readOnly':{}}"));
    bed_fails(
        t, LOOKUP, BASE_INVALID_ARGUMENT, "Invalid transaction",
        "{'databaseId':'other','readOptions':{'transaction':'%s'},'keys':[" KEY("A", "x") "]}",
        transaction);
    qry_lookup_reply *reply = bed_call(
        t, LOOKUP, "{'readOptions':{'newTransaction':{'readOnly':{}}},'keys':[" KEY("A", "x") "]}");
    put(t, "x", 3);
    cr_assert_eq(get(t, bed_base64(t, reply->transaction), "x"), 2);
}

/* A transaction ends when it has been idle for a minute, or is 270 seconds old; nothing is kept of
 * it. */
BED_TEST(expiry)
{
    const char *transaction = begin(t, "{}");
    ch_sleep_until(t->env, ch_in(t->env, 61 * CH_S));
    bed_fails(t, COMMIT, BASE_INVALID_ARGUMENT, OVER, "{'transaction':'%s'}", transaction);
    transaction = begin(t, "{}");
    for (int i = 0; i < 5; i++) {
        get(t, transaction, "x");
        ch_sleep_until(t->env, ch_in(t->env, 50 * CH_S));
    }
    get(t, transaction, "x");
    ch_sleep_until(t->env, ch_in(t->env, 30 * CH_S));
    bed_fails(t, COMMIT, BASE_INVALID_ARGUMENT, OVER, "{'transaction':'%s'}", transaction);
    cr_assert_eq(t->server->transactions.count, 0u);
}

/* ---- interleavings ---- */

enum { ACCOUNTS = 5, WORKERS = 8, TRANSFERS = 12, BALANCE = 100 };

struct worker {
    struct bed *t;
    int number, moved, aborted;
};

static bool transfer(struct worker *worker) CH_WAITS;
static bool transfer(struct worker *worker)
{
    struct bed *t = worker->t;
    struct base_status status;
    char from[8], to[8];
    int a = (int)ch_random_below(t->env, ACCOUNTS),
        b = (a + 1 + (int)ch_random_below(t->env, ACCOUNTS - 1)) % ACCOUNTS;
    snprintf(from, sizeof(from), "a%d", a);
    snprintf(to, sizeof(to), "a%d", b);
    const char *transaction = begin(t, "{}");
    int had = get(t, transaction, from), other = get(t, transaction, to);
    void *reply =
        bed_send(t, COMMIT,
                 bed_request(t, COMMIT,
                             "{'transaction':'%s','mutations':[{'update':{'key':{'path':[{'kind':'"
                             "A','name':'%s'}]},'properties':{'v':{'integerValue':'%d'}}}},"
                             "{'update':{'key':{'path':[{'kind':'A','name':'%s'}]},'properties':{'"
                             "v':{'integerValue':'%d'}}}}]}",
                             transaction, from, had - 7, to, other + 7),
                 &status);
    if (reply)
        return true;
    cr_assert_eq(status.code, BASE_ABORTED, "%s", base_status_text(&status));
    base_status_free(&status);
    return false;
}

static void work(void *arg)
{
    CH_FIBER_ENTRY();
    struct worker *worker = arg;
    for (int tries = 0; worker->moved < TRANSFERS; tries++) {
        cr_assert(tries < 2000, "a transfer never got through");
        if (transfer(worker))
            worker->moved++;
        else
            worker->aborted++;
    }
}

static int total(struct bed *t) CH_WAITS;
static int total(struct bed *t)
{
    qry_run_query_reply *reply = bed_call(t, RUN_QUERY, "{'query':{'kind':[{'name':'A'}]}}");
    int sum = 0;
    for (size_t i = 0; i < reply->batch->n_entity_results; i++)
        sum += (int)reply->batch->entity_results[i]->entity->properties[0]->value->integer_value;
    return sum;
}

/* Money moved by many at once is neither made nor lost, because what a commit read must still hold
 * when it writes. */
BED_TEST(bank)
{
    struct worker workers[WORKERS];
    struct ch_gather all;
    int aborted = 0;
    for (int i = 0; i < ACCOUNTS; i++)
        put(t, (char[]){ 'a', (char)('0' + i), 0 }, BALANCE);
    t->store.delay_us_max = 2000;
    ch_gather_init(&all, "transfers");
    for (int i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){ t, i, 0, 0 };
        ch_gather_add(&all, work, &workers[i]);
    }
    for (int i = 0; i < 20; i++) /* a query sees one state, also in between */
        cr_assert_eq(total(t), ACCOUNTS * BALANCE);
    ch_gather_wait(&all);
    for (int i = 0; i < WORKERS; i++)
        aborted += workers[i].aborted;
    cr_assert_gt(aborted, 0, "nothing interleaved: the test says nothing");
    cr_assert_eq(total(t), ACCOUNTS * BALANCE);
}

static void increment(void *arg)
{
    CH_FIBER_ENTRY();
    struct worker *worker = arg;
    for (int i = 0; i < TRANSFERS; i++)
        bed_call(worker->t, COMMIT,
                 "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':{'key':" KEY(
                     "A", "n") "},'propertyMask':{},'propertyTransforms':[{'property':'v','"
                               "increment':{'integerValue':'1'}}]}]}");
}

/* Non-transactional commits of one entity at once: each is retried here until it has happened,
 * exactly once. */
BED_TEST(increments)
{
    struct worker workers[WORKERS];
    struct ch_gather all;
    t->store.delay_us_max = 500;
    ch_gather_init(&all, "increments");
    for (int i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){ t, i, 0, 0 };
        ch_gather_add(&all, increment, &workers[i]);
    }
    ch_gather_wait(&all);
    cr_assert_eq(get(t, "", "n"), WORKERS * TRANSFERS);
    cr_assert_eq(double_count(&t->store, "p/", BASE_BYTES_LIT("P")), 1u, "the index followed");
}

static bool insert_if_few(struct bed *t, int number) CH_WAITS;
static bool insert_if_few(struct bed *t, int number)
{
    struct base_status status;
    const char *transaction = begin(t, "{}");
    qry_aggregate_reply *count =
        bed_call(t, AGGREGATE,
                 "{'readOptions':{'transaction':'%s'},'aggregationQuery':{'aggregations':[{'count':"
                 "{}}],'nestedQuery':{'kind':[{'name':'A'}],'filter':{'propertyFilter':{'property':"
                 "{'name':'v'},'op':'EQUAL','value':{'integerValue':'1'}}}}}}",
                 transaction);
    if (count->batch->aggregation_results[0]->aggregate_properties[0]->value->integer_value >= 3)
        return true;
    char name[16];
    snprintf(name, sizeof(name), "n%d", number);
    if (!commit(t, transaction, name, 1, &status)) {
        cr_assert_eq(status.code, BASE_ABORTED, "%s", base_status_text(&status));
        base_status_free(&status);
        return false;
    }
    return true;
}

static void insert_worker(void *arg)
{
    CH_FIBER_ENTRY();
    struct worker *worker = arg;
    while (!insert_if_few(worker->t, worker->number))
        worker->aborted++;
}

/* No phantoms: of many that each insert only while fewer than three are there, three do, because
 * an empty part of an index that was read is a fact like any other. */
BED_TEST(phantoms)
{
    struct worker workers[WORKERS];
    struct ch_gather all;
    t->store.delay_us_max = 2000;
    ch_gather_init(&all, "inserts");
    for (int i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){ t, i, 0, 0 };
        ch_gather_add(&all, insert_worker, &workers[i]);
    }
    ch_gather_wait(&all);
    cr_assert_eq(double_count(&t->store, "p/", BASE_BYTES_LIT("E")), 3u);
}

static void write_along(void *arg)
{
    CH_FIBER_ENTRY();
    struct worker *worker = arg;
    for (int i = 0; i < 60; i++) {
        char name[16];
        snprintf(name, sizeof(name), "w%d", (int)ch_random_below(worker->t->env, 300));
        put(worker->t, name, i % 5);
    }
}

/* An index loaded while others write is complete when it is ready: writes maintain it from the
 * moment it exists, whatever definitions a server has cached, and the build makes the rest. */
BED_TEST(index_built_under_writes)
{
    struct worker workers[WORKERS];
    struct ch_gather all;
    for (int i = 0; i < 300; i++) {
        char name[16];
        snprintf(name, sizeof(name), "w%d", i);
        put(t, name, 7);
    }
    t->store.delay_us_max = 300;
    ch_gather_init(&all, "writers");
    for (int i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){ t, i, 0, 0 };
        ch_gather_add(&all, write_along, &workers[i]);
    }
    const char *yaml =
        "indexes:\n- kind: A\n  properties:\n  - name: v\n  - name: v\n    direction: desc\n";
    Strata__Queryapi__V1__LoadReply *reply =
        bed_call(t, LOAD_INDEXES, "{'yaml':'%s'}", bed_base64(t, ch_data_str(yaml)));
    cr_assert(reply->n_added == 1 && reply->added[0]->ready);
    ch_gather_wait(&all);
    cr_assert_eq(double_count(&t->store, "p/", BASE_BYTES_LIT("C")), 300u);
    cr_assert_eq(double_count(&t->store, "p/", BASE_BYTES_LIT("P")), 300u);
    reply = bed_call(t, LOAD_INDEXES, "{'yaml':'%s'}", bed_base64(t, ch_data_str(yaml)));
    cr_assert(reply->n_added == 0 && reply->n_present == 1, "loading it again changes nothing");
    Strata__Queryapi__V1__ListReply *list = bed_call(t, LIST_INDEXES, "{}");
    cr_assert_eq(list->n_indexes, 1u);
    bed_fails(t, LOAD_INDEXES, BASE_INVALID_ARGUMENT, "line 3", "{'yaml':'%s'}",
              bed_base64(t, ch_data_str("indexes:\n- kind: A\n  color: red\n")));
}

struct loader {
    struct bed *t;
    const char *yaml;
    struct base_status status;
};

static void load_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct loader *loader = arg;
    struct bed *t = loader->t;
    bed_send(
        t, LOAD_INDEXES,
        bed_request(t, LOAD_INDEXES, "{'yaml':'%s'}", bed_base64(t, ch_data_str(loader->yaml))),
        &loader->status);
}

/* A build outlives its server: killed in the middle, it is taken up by whoever serves next, without
 * being asked, and is complete; and nothing remains to be taken up behind it. */
BED_TEST(index_build_survives_a_restart)
{
    struct loader loader = {
        t,
        "indexes:\n- kind: A\n  properties:\n  - name: v\n  - name: v\n    direction: desc\n",
        { 0 }
    };
    struct ch_gate gate;
    const char *row = "p/";
    for (int i = 0; i < 600; i++) { /* three pages */
        char name[16];
        snprintf(name, sizeof(name), "w%d", i);
        put(t, name, i);
    }
    t->store.delay_us_max = 20000;
    ch_gate_init(&gate, t->env, "loader");
    cr_assert(!base_failed(ch_gate_spawn(&gate, "loader", load_fiber, &loader)));
    while (double_count(&t->store, row, BASE_BYTES_LIT("C")) < 200)
        (void)ch_sleep_until(t->env, ch_in(t->env, CH_MS));
    ch_gate_stop(&gate); /* who asked for it has left, and will not ask again */
    cr_assert_eq(loader.status.code, BASE_CANCELLED);
    bed_restart(t);
    base_status_free(&loader.status);
    cr_assert_lt(double_count(&t->store, row, BASE_BYTES_LIT("C")), 600u);
    cr_assert_eq(double_count(&t->store, "builds", BASE_BYTES_EMPTY), 1u);
    ch_time begun = ch_now(t->env);
    while (double_count(&t->store, "builds", BASE_BYTES_EMPTY) > 0) {
        cr_assert(ch_now(t->env) - begun < 60 * CH_S, "nobody took it up");
        (void)ch_sleep_until(t->env, ch_in(t->env, 10 * CH_MS));
    }
    cr_assert_eq(double_count(&t->store, row, BASE_BYTES_LIT("C")), 600u);
    Strata__Queryapi__V1__ListReply *list = bed_call(t, LIST_INDEXES, "{}");
    cr_assert(list->n_indexes == 1 && list->indexes[0]->ready);
}

/* Large results come in batches well below what clients take in one message, and the batches join
 * without a gap. */
BED_TEST(batches)
{
    struct base_buf big = { 0 };
    memset(base_buf_extend(&big, 200000), 'x', 200000);
    base_buf_put_u8(&big, 0);
    for (int i = 0; i < 20; i++)
        bed_call(
            t, COMMIT,
            "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':{'key':{'path':[{'kind':'B','id':'%"
            "d'}]},'properties':{'s':{'excludeFromIndexes':true,'stringValue':'%s'}}}}]}",
            i + 1, (char *)big.data);
    base_buf_free(&big);
    const char *cursor = "";
    int seen = 0, batches = 0;
    for (bool more = true; more; batches++) {
        qry_run_query_reply *reply =
            bed_call(t, RUN_QUERY, "{'query':{'kind':[{'name':'B'}],'limit':%d%s%s%s}}", 18 - seen,
                     *cursor ? ",'startCursor':'" : "", cursor, *cursor ? "'" : "");
        cr_assert_lt(ch_proto_size(&reply->base), (size_t)2 << 20);
        cr_assert_gt(reply->batch->n_entity_results, 0u);
        for (size_t i = 0; i < reply->batch->n_entity_results; i++)
            cr_assert_eq(reply->batch->entity_results[i]->entity->key->path[0]->id, ++seen);
        cursor = bed_base64(t, reply->batch->end_cursor);
        more = reply->batch->more_results ==
               GOOGLE__DATASTORE__V1__QUERY_RESULT_BATCH__MORE_RESULTS_TYPE__NOT_FINISHED;
    }
    cr_assert_eq(seen, 18);
    cr_assert_gt(batches, 2);
    bed_fails(t, RUN_QUERY, BASE_INVALID_ARGUMENT, "cursor does not match query",
              "{'query':{'kind':[{'name':'C'}],'startCursor':'%s'}}", cursor);
}

/* A lookup of more than a reply holds: what is found comes in part, the other keys are deferred,
 * and asking for those again ends with all of them, each once. */
BED_TEST(large_lookups)
{
    enum { COUNT = 12 };
    struct base_buf big = { 0 }, wanted = { 0 };
    memset(base_buf_extend(&big, 700000), 'x', 700000);
    base_buf_put_u8(&big, 0);
    for (int i = 1; i <= COUNT; i++)
        bed_call(
            t, COMMIT,
            "{'mode':'NON_TRANSACTIONAL','mutations':[{'upsert':{'key':{'path':[{'kind':'L','id':'%"
            "d'}]},'properties':{'s':{'excludeFromIndexes':true,'stringValue':'%s'}}}}]}",
            i, (char *)big.data);
    bool seen[COUNT + 1] = { false };
    for (int i = 1; i <= COUNT; i++)
        base_buf_printf(&wanted, "%s{'path':[{'kind':'L','id':'%d'}]}", i > 1 ? "," : "", i);
    int rounds = 0;
    for (; wanted.len > 0; rounds++) {
        base_buf_put_u8(&wanted, 0);
        qry_lookup_reply *reply = bed_call(t, LOOKUP, "{'keys':[%s]}", (char *)wanted.data);
        cr_assert_lt(ch_proto_size(&reply->base), (size_t)4 << 20);
        cr_assert_gt(reply->n_found, 0u);
        cr_assert_eq(reply->n_missing, 0u);
        for (size_t i = 0; i < reply->n_found; i++) {
            int64_t id = reply->found[i]->entity->key->path[0]->id;
            cr_assert(id >= 1 && id <= COUNT && !seen[id]);
            seen[id] = true;
        }
        base_buf_clear(&wanted);
        for (size_t i = 0; i < reply->n_deferred; i++)
            base_buf_printf(&wanted, "%s{'path':[{'kind':'L','id':'%lld'}]}", i ? "," : "",
                            (long long)reply->deferred[i]->path[0]->id);
    }
    for (int i = 1; i <= COUNT; i++)
        cr_assert(seen[i], "%d was never found", i);
    cr_assert_eq(rounds, 3);
    base_buf_free(&big);
    base_buf_free(&wanted);
}

static const char *rest(struct bed *t, const char *method, const char *path, const char *type,
                        const char *query, struct base_bytes body, int code) CH_WAITS;
static const char *rest(struct bed *t, const char *method, const char *path, const char *type,
                        const char *query, struct base_bytes body, int code)
{
    struct ch_http_request request = { .method = method,
                                       .path = path,
                                       .query = query,
                                       .content_type = type,
                                       .accept = "",
                                       .authorization = "",
                                       .body = body,
                                       .arena = &t->arena };
    struct ch_http_reply reply = { 0 };
    qry_rest_handle(t->server, &request, &reply);
    const char *text = base_bytes_cstr(&t->arena, base_buf_bytes(&reply.body));
    cr_assert_eq(reply.code, code, "%s: %d %s", path, reply.code, text);
    base_buf_free(&reply.body);
    return text;
}

/* REST takes and gives what gRPC does, as JSON or protobuf; errors carry HTTP's code and
 * google.rpc's. */
BED_TEST(rest_surface)
{
    const char *json = "application/json", *text;
    get(t, "", "x"); /* it serves */
#define POST(path, body, code) rest(t, "POST", path, json, "", base_bytes_str(body), code)
    POST("/v1/projects/p:commit",
         "{\"mode\":2,\"mutations\":[{\"upsert\":{\"key\":{\"path\":[{\"kind\":\"T\",\"id\":\"5\"}]"
         "},\"properties\":{\"n\":{\"integerValue\":\"7\"}}}}]}",
         200);
    text =
        POST("/v1/projects/p:lookup", "{\"keys\":[{\"path\":[{\"kind\":\"T\",\"id\":5}]}]}", 200);
    cr_assert(strstr(text, "\"found\"") && strstr(text, "\"integerValue\":\"7\"") &&
                  strstr(text, "\"id\":\"5\"") && strstr(text, "\"projectId\":\"p\""),
              "%s", text);
    text = rest(t, "POST", "/v1/projects/p:runQuery", json, "$alt=json%3Benum-encoding=int",
                base_bytes_str("{\"query\":{\"kind\":[{\"name\":\"T\"}]}}"), 200);
    cr_assert(strstr(text, "\"moreResults\":3"), "%s", text);
    text = POST("/v1/projects/p:lookup", "{\"keys\":[{\"path\":[{\"kind\":\"T\"}]}]}", 400);
    cr_assert(
        strstr(text,
               "{\"error\":{\"code\":400,\"message\":\"Key path element must not be incomplete") &&
            strstr(text, "\"status\":\"INVALID_ARGUMENT\""),
        "%s", text);
    text = POST("/v1/projects/p:lookup", "{\"color\":1}", 400);
    cr_assert(strstr(text, "Payload isn't valid for request."), "%s", text);
    POST("/v1/projects/p:commit",
         "{\"mode\":\"NON_TRANSACTIONAL\",\"mutations\":[{\"insert\":{\"key\":{\"path\":[{\"kind\":"
         "\"T\",\"id\":\"5\"}]}}}]}",
         409);
    POST("/v1/projects/p:unknown", "{}", 404);
    POST("/v2/projects/p:lookup", "{}", 404);
    rest(t, "GET", "/", "", "", BASE_BYTES_EMPTY, 200);
    struct base_buf body = { 0 };
    ch_proto_encode(bed_request(t, ROLLBACK, "{'transaction':'AAAA'}"), &body);
    text = rest(t, "POST", "/v1/projects/p:rollback", "application/x-protobuf", "",
                base_buf_bytes(&body), 400);
    cr_assert(text[0] == 0x08 && text[1] == BASE_INVALID_ARGUMENT &&
                  strstr(text, "Invalid transaction."),
              "a google.rpc.Status");
    base_buf_free(&body);
}
