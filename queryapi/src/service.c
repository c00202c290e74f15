/* service.c: the queryserver: its start and stop, and the table of its methods, each run the same
 * way by gRPC and by REST. */
#include "server.h"

#include "build.h"
#include "chassis/metrics.h"

#include <stdio.h>
#include <stdlib.h>

#define DATASTORE(name) \
    &google__datastore__v1__datastore__service, GOOGLE__DATASTORE__V1__DATASTORE__##name
#define INDEXES(name) &strata__queryapi__v1__indexes__service, STRATA__QUERYAPI__V1__INDEXES__##name

/* ---- one request ---- */

struct base_status qry_request_open(struct qry_request *request, ProtobufCBinaryData project,
                                    ProtobufCBinaryData database)
{
    request->scope = (struct qry_scope){ ch_bytes_of(project), ch_bytes_of(database) };
    struct base_status status = qry_check_scope(&request->scope);
    if (base_failed(status))
        return status;
    request->database =
        base_arena_printf(request->arena, "%.*s/%.*s", BASE_FMT(request->scope.project),
                          BASE_FMT(request->scope.database));
    return status;
}

static ProtobufCBinaryData field(const void *message, const char *name)
{
    const ProtobufCMessageDescriptor *descriptor = ((const ProtobufCMessage *)message)->descriptor;
    const ProtobufCFieldDescriptor *found =
        protobuf_c_message_descriptor_get_field_by_name(descriptor, name);
    BASE_ASSERT(found);
    return *(const ProtobufCBinaryData *)((const uint8_t *)message + found->offset);
}

struct base_status qry_method_run(struct qry_server *server, const struct qry_method *method,
                                  void *message, struct base_arena *arena, ch_time deadline,
                                  void **reply)
{
    ch_time latest = ch_in(server->env, QRY_DEADLINE_S * CH_S);
    struct qry_request request = { .server = server,
                                   .arena = arena,
                                   .deadline = deadline < latest ? deadline : latest };
    struct base_status status =
        qry_request_open(&request, field(message, "project_id"), field(message, "database_id"));
    if (base_failed(status))
        return status;
    return method->run(&request, message, reply);
}

/* ---- gRPC ---- */

/* What a method's handler is registered with. */
struct qry_route {
    struct qry_server *server;
    const struct qry_method *method;
};
struct qry_routes {
    struct qry_server server;
    struct qry_route routes[];
};

static struct base_status handle(void *self, struct ch_call *call, const void *message,
                                 void **reply) CH_WAITS;
static struct base_status handle(void *self, struct ch_call *call, const void *message,
                                 void **reply)
{
    const struct qry_route *route = self;
    /* The message lies in the call's arena, ours to complete in place. */
    return qry_method_run(route->server, route->method, (void *)message, ch_call_arena(call),
                          ch_call_deadline(call), reply);
}

const struct qry_method qry_methods[] = {
    { DATASTORE(LOOKUP), qry_lookup, "lookup" },
    { DATASTORE(RUN_QUERY), qry_run_query, "runQuery" },
    { DATASTORE(RUN_AGGREGATION_QUERY), qry_run_aggregation_query, "runAggregationQuery" },
    { DATASTORE(BEGIN_TRANSACTION), qry_begin_transaction, "beginTransaction" },
    { DATASTORE(COMMIT), qry_commit, "commit" },
    { DATASTORE(ROLLBACK), qry_rollback, "rollback" },
    { DATASTORE(ALLOCATE_IDS), qry_allocate_ids, "allocateIds" },
    { DATASTORE(RESERVE_IDS), qry_reserve_ids, "reserveIds" },
    { INDEXES(LOAD), qry_indexes_load, NULL },
    { INDEXES(LIST), qry_indexes_list, NULL },
};
const size_t qry_method_count = sizeof(qry_methods) / sizeof(qry_methods[0]);

/* ---- the service ---- */

static void sweep(void *arg)
{
    CH_FIBER_ENTRY();
    struct qry_server *server = arg;
    while (ch_sleep_until(server->env, ch_in(server->env, CH_S)) == CH_TIMEOUT)
        qry_transactions_sweep(&server->transactions);
}

static void init(struct qry_server *server, const struct ch_service_start *start)
{
    const struct qry_config *config = start->config;
    char target[256];
    server->env = start->env;
    server->naming = start->naming;
    snprintf(server->cell, sizeof(server->cell), "%s", start->common->cell);
    snprintf(target, sizeof(target), "/%s/txserver", start->common->cell);
    struct txn_client_options options = { .naming = start->naming,
                                          .target = config->txlayer[0] ? config->txlayer : target };
    server->txn = txn_client_new(start->env, &options);
    qry_transactions_init(&server->transactions, start->env);
    ch_gate_init(&server->gate, start->env, "queryserver");
    server->entity_bytes = 4096;
    server->commits = ch_counter(start->env, "queryserver_commits_total", "", "Commit calls.");
    server->commit_retries = ch_counter(start->env, "queryserver_commit_retries_total", "",
                                        "Commits tried again here after a conflict.");
    server->aborted = ch_counter(start->env, "queryserver_transactions_aborted_total", "",
                                 "Transactions that met a conflict.");
}

static struct base_status start_server(const struct ch_service_start *start, void **self) CH_WAITS;
static struct base_status start_server(const struct ch_service_start *start, void **self)
{
    struct qry_routes *routes =
        calloc(1, sizeof(*routes) + qry_method_count * sizeof(routes->routes[0]));
    BASE_ASSERT(routes);
    struct qry_server *server = &routes->server;
    init(server, start);
    ch_server_add_service(start->server, &google__datastore__v1__datastore__service);
    ch_server_add_service(start->server, &strata__queryapi__v1__indexes__service);
    for (size_t i = 0; i < qry_method_count; i++) {
        routes->routes[i] = (struct qry_route){ server, &qry_methods[i] };
        ch_server_handle(start->server, qry_method_of(&qry_methods[i]), handle, &routes->routes[i]);
    }
    *self = server;
    struct base_status status = ch_gate_spawn(&server->gate, "sweep transactions", sweep, server);
    if (!base_failed(status))
        status = ch_gate_spawn(&server->gate, "resume builds", qry_builds_fiber, server);
    return status;
}

static void stop_server(void *self) CH_WAITS;
static void stop_server(void *self)
{
    struct qry_server *server = self;
    ch_gate_stop(&server->gate);
    qry_transactions_free(&server->transactions);
    qry_catalog_free(&server->catalog);
    txn_client_free(server->txn);
    free(server); /* the first member of its routes */
}

static struct ch_http_handler http_handler(void *self)
{
    return (struct ch_http_handler){ .handle = qry_rest_handle, .self = self };
}

static const struct ch_config_key keys[] = {
    CH_CONFIG(qry_config, txlayer, "txlayer", CH_CONFIG_STRING, "",
              "where the transaction servers are: a name or addresses; empty: /<cell>/txserver"),
};

const struct ch_service_def qry_service = {
    .name = "queryserver",
    .about = "Serves google.datastore.v1 by gRPC and REST on one port, over the txlayer.",
    .config = { keys, sizeof(keys) / sizeof(keys[0]) },
    .config_size = sizeof(struct qry_config),
    .start = start_server,
    .stop = stop_server,
    .http_on_main_port = true,
    .http_handler = http_handler,
};
