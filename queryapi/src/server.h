/* server.h: the queryserver's state, and one request's context. Everything hangs off struct
 * qry_server. */
#ifndef QUERYAPI_SERVER_H
#define QUERYAPI_SERVER_H

#include "catalog.h"
#include "check.h"
#include "chassis/service.h"
#include "strata/queryapi/v1/indexes.strata.h"
#include "transactions.h"
#include "txlayer/txlayer.h"

enum {
    QRY_DEADLINE_S = 60,     /* of a request without one */
    QRY_COMMIT_TRIES = 20,   /* of a commit that is retried here (no transaction of the client's) */
    QRY_BATCH_RESULTS = 300, /* of whole entities in one reply */
    QRY_BATCH_KEYS = 4000,   /* of keys only */
    QRY_BATCH_BYTES = 1 << 20, /* of a batch, about: clients refuse messages over 4 MiB */
};

struct qry_config {
    char *txlayer; /* --txlayer: target; "" : /<cell>/txserver */
};

struct qry_server {
    struct ch_env *env;
    struct txn_client *txn;
    struct qry_transactions transactions;
    struct qry_catalog catalog;
    struct ch_gate gate;      /* the sweeper, index builds */
    struct ch_naming *naming; /* NULL: none */
    char cell[64];
    struct build *builds; /* under way here (build.c) */
    size_t entity_bytes;  /* of recent query results, on average: how many to fetch at once */
    struct ch_counter *commits, *commit_retries, *aborted;
};

/* One request at work: lives on its handler's stack. */
struct qry_request {
    struct qry_server *server;
    struct base_arena *arena;
    ch_time deadline;
    struct qry_scope scope;
    const char *database; /* the txlayer's name for it */
};

/* Fills in scope and database, both checked. */
struct base_status qry_request_open(struct qry_request *request, ProtobufCBinaryData project,
                                    ProtobufCBinaryData database) BASE_MUST_CHECK;

/* ---- the methods. Requests are changed in place (completed); replies live in the arena. ---- */
typedef Google__Datastore__V1__LookupRequest qry_lookup_request;
typedef Google__Datastore__V1__LookupResponse qry_lookup_reply;
typedef Google__Datastore__V1__CommitRequest qry_commit_request;
typedef Google__Datastore__V1__CommitResponse qry_commit_reply;
typedef Google__Datastore__V1__RunQueryRequest qry_run_query_request;
typedef Google__Datastore__V1__RunQueryResponse qry_run_query_reply;
typedef Google__Datastore__V1__RunAggregationQueryRequest qry_aggregate_request;
typedef Google__Datastore__V1__RunAggregationQueryResponse qry_aggregate_reply;

/* What every method looks like: `message` is its request, *reply its reply. */
typedef struct base_status qry_method_fn(struct qry_request *request, void *message, void **reply);
struct base_status qry_lookup(struct qry_request *request, void *message, void **reply) CH_WAITS;
struct base_status qry_run_query(struct qry_request *request, void *message, void **reply) CH_WAITS;
struct base_status qry_run_aggregation_query(struct qry_request *request, void *message,
                                             void **reply) CH_WAITS;
struct base_status qry_begin_transaction(struct qry_request *request, void *message,
                                         void **reply) CH_WAITS;
struct base_status qry_commit(struct qry_request *request, void *message, void **reply) CH_WAITS;
struct base_status qry_rollback(struct qry_request *request, void *message, void **reply) CH_WAITS;
struct base_status qry_allocate_ids(struct qry_request *request, void *message,
                                    void **reply) CH_WAITS;
struct base_status qry_reserve_ids(struct qry_request *request, void *message,
                                   void **reply) CH_WAITS;
struct base_status qry_indexes_load(struct qry_request *request, void *message,
                                    void **reply) CH_WAITS;
struct base_status qry_indexes_list(struct qry_request *request, void *message,
                                    void **reply) CH_WAITS;

/* One row a method of both services: who calls it by gRPC, by REST (name in the URL), which fields
 * say project and database. */
struct qry_method {
    const struct ch_service *service;
    size_t index; /* in the service's methods */
    qry_method_fn *run;
    const char *rest; /* NULL: none */
};
static inline const struct ch_method *qry_method_of(const struct qry_method *method)
{
    return &method->service->methods[method->index];
}
extern const struct qry_method qry_methods[];
extern const size_t qry_method_count;
/* Runs a decoded request of a method: opens the request's scope from its project_id and
 * database_id. */
struct base_status qry_method_run(struct qry_server *server, const struct qry_method *method,
                                  void *message, struct base_arena *arena, ch_time deadline,
                                  void **reply) CH_WAITS BASE_MUST_CHECK;
void qry_rest_handle(void *server, const struct ch_http_request *request,
                     struct ch_http_reply *reply) CH_WAITS;

/* The row and group of a complete key, in `arena`. */
struct txn_key qry_row_of(struct base_arena *arena, const qry_key *key);
/* A fresh random id, never 0, of 52 bits. */
int64_t qry_new_id(struct ch_env *env);

extern const struct ch_service_def qry_service;

#endif
