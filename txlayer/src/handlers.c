/* handlers.c: strata.txlayer.v1.TxLayer. Each operation has an outcome of its own; an RPC fails
 * as a whole only when it makes no sense. */
#include "server.h"
#include "shard.h"
#include "strata/txlayer/v1/txlayer.strata.h"

enum { OPS_MAX = 1024, KEYS_MAX = 10000, DEADLINE_DEFAULT_S = 60 };

#define MESSAGE(arena, Type, prefix) \
    CH_MESSAGE(arena, Strata__Txlayer__V1__##Type, strata__txlayer__v1__##prefix)

/* Takes the status. */
static Strata__Txlayer__V1__Outcome *outcome_of(struct base_arena *arena, struct base_status status)
{
    Strata__Txlayer__V1__Outcome *outcome = MESSAGE(arena, Outcome, outcome);
    outcome->code = (int32_t)status.code;
    if (base_failed(status))
        outcome->text = ch_data_str(base_arena_strdup(arena, base_status_text(&status)));
    base_status_free(&status);
    return outcome;
}

static Strata__Txlayer__V1__Outcome *not_leader(struct base_arena *arena,
                                                struct txn__server *server, uint32_t shard)
{
    Strata__Txlayer__V1__Outcome *outcome = MESSAGE(arena, Outcome, outcome);
    struct base_bytes holder = txn__keeper_holder(server, shard);
    const char *where =
        holder.len ? base_arena_printf(arena, "it is at %.*s", BASE_FMT(holder)) : "nobody is";
    outcome->code = BASE_FAILED_PRECONDITION;
    outcome->text = ch_data_str(
        base_arena_printf(arena, "this server does not lead shard %u; %s", shard, where));
    outcome->not_leader = true;
    /* The lock's holder may be this server, still recovering: then nobody is the better answer. */
    if (holder.len && !base_bytes_eq_str(holder, ch_server_address(server->rpc)))
        outcome->leader = ch_data_of(base_bytes_dup(arena, holder));
    return outcome;
}

/* The lead of a database's shard, referenced; or NULL and the outcome to answer with. */
static struct txn__lead *lead_of(struct txn__server *server, ProtobufCBinaryData name,
                                 struct base_arena *arena, Strata__Txlayer__V1__Outcome **outcome)
{
    struct base_bytes database = ch_bytes_of(name);
    struct base_status status = txn__database_check(database);
    if (base_failed(status)) {
        *outcome = outcome_of(arena, status);
        return NULL;
    }
    uint32_t shard = txn__shard_of(database, (uint32_t)server->config->shards);
    struct txn__lead *lead = server->shards[shard].lead;
    if (!lead || lead->closed) {
        *outcome = not_leader(arena, server, shard);
        return NULL;
    }
    txn__lead_ref(lead);
    return lead;
}

static ch_time deadline_of(struct txn__server *server, struct ch_call *call)
{
    ch_time deadline = ch_call_deadline(call), most = ch_in(server->env, DEADLINE_DEFAULT_S * CH_S);
    return deadline < most ? deadline : most;
}

static struct base_status named(struct base_status status, ProtobufCBinaryData database)
{
    return base_status_wrap(status, "database %.*s", BASE_FMT(ch_bytes_of(database)));
}

static struct base_status locate(void *self, struct ch_call *call, const void *message,
                                 void **reply) CH_WAITS;
static struct base_status locate(void *self, struct ch_call *call, const void *message,
                                 void **reply)
{
    struct txn__server *server = self;
    const Strata__Txlayer__V1__LocateRequest *request = message;
    struct base_bytes database = ch_bytes_of(request->database), holder;
    struct base_status status = txn__database_check(database);
    if (base_failed(status))
        return status;
    uint32_t shard = txn__shard_of(database, (uint32_t)server->config->shards);
    struct txn__lead *lead = server->shards[shard].lead;
    holder = lead && !lead->closed ? base_bytes_str(ch_server_address(server->rpc))
                                   : txn__keeper_holder(server, shard);
    if (!holder.len)
        return base_status_make(BASE_UNAVAILABLE, "shard %u is led by nobody now", shard);
    Strata__Txlayer__V1__LocateReply *answer =
        MESSAGE(ch_call_arena(call), LocateReply, locate_reply);
    answer->shard = shard;
    answer->leader = ch_data_of(base_bytes_dup(ch_call_arena(call), holder));
    *reply = answer;
    return status;
}

static struct base_status read_timestamp(void *self, struct ch_call *call, const void *message,
                                         void **reply) CH_WAITS;
static struct base_status read_timestamp(void *self, struct ch_call *call, const void *message,
                                         void **reply)
{
    struct txn__server *server = self;
    const Strata__Txlayer__V1__ReadTimestampRequest *request = message;
    struct base_arena *arena = ch_call_arena(call);
    Strata__Txlayer__V1__ReadTimestampReply *answer =
        MESSAGE(arena, ReadTimestampReply, read_timestamp_reply);
    struct txn__lead *lead = lead_of(server, request->database, arena, &answer->outcome);
    if (lead) {
        struct base_status status =
            txn__read_now(lead, deadline_of(server, call), &answer->timestamp);
        if (!base_failed(status) && !txn__lead_sure(lead))
            status = base_status_make(BASE_UNAVAILABLE, "this server is not sure to lead");
        answer->outcome = outcome_of(arena, named(status, request->database));
        txn__lead_unref(lead);
    }
    *reply = answer;
    return BASE_STATUS_OK;
}

static struct base_status scan(void *self, struct ch_call *call, const void *message,
                               void **reply) CH_WAITS;
static struct base_status scan(void *self, struct ch_call *call, const void *message, void **reply)
{
    struct txn__server *server = self;
    const Strata__Txlayer__V1__ScanRequest *request = message;
    struct base_arena *arena = ch_call_arena(call);
    Strata__Txlayer__V1__ScanReply *answer = MESSAGE(arena, ScanReply, scan_reply);
    struct txn__lead *lead = lead_of(server, request->database, arena, &answer->outcome);
    if (lead) {
        struct base_status status =
            txn__read_scan(lead, request, deadline_of(server, call), arena, answer);
        answer->outcome = outcome_of(arena, named(status, request->database));
        txn__lead_unref(lead);
    }
    *reply = answer;
    return BASE_STATUS_OK;
}

/* ---- get: operations of one lead are read together ---- */

struct get_call {
    struct txn__get *gets;
    struct txn__lead **leads;
    size_t count;
};

static void run_gets(struct get_call *all, ch_time deadline, struct base_arena *arena) CH_WAITS;
static void run_gets(struct get_call *all, ch_time deadline, struct base_arena *arena)
{
    struct txn__get *group = BASE_NEW_ARRAY(arena, struct txn__get, all->count);
    for (size_t i = 0; i < all->count; i++) {
        struct txn__lead *lead = all->leads[i];
        size_t n = 0;
        for (size_t j = i; lead && j < all->count; j++)
            if (all->leads[j] == lead)
                group[n++] = all->gets[j];
        if (!lead)
            continue;
        txn__read_get(lead, group, n, deadline, arena);
        n = 0;
        for (size_t j = i; j < all->count; j++)
            if (all->leads[j] == lead) {
                all->gets[j].status = group[n++].status;
                all->leads[j] = NULL;
                txn__lead_unref(lead);
            }
    }
}

static struct base_status get(void *self, struct ch_call *call, const void *message,
                              void **reply) CH_WAITS;
static struct base_status get(void *self, struct ch_call *call, const void *message, void **reply)
{
    struct txn__server *server = self;
    const Strata__Txlayer__V1__GetRequest *request = message;
    struct base_arena *arena = ch_call_arena(call);
    size_t keys = 0, count = request->n_ops;
    for (size_t i = 0; i < count; i++)
        keys += request->ops[i]->n_keys;
    if (count > OPS_MAX || keys > KEYS_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "%zu operations with %zu keys: the limits are %d and %d", count,
                                keys, OPS_MAX, KEYS_MAX);
    Strata__Txlayer__V1__GetReply *answer = MESSAGE(arena, GetReply, get_reply);
    struct get_call all = { .count = count,
                            .gets = BASE_NEW_ARRAY(arena, struct txn__get, count),
                            .leads = BASE_NEW_ARRAY(arena, struct txn__lead *, count) };
    answer->results = BASE_NEW_ARRAY(arena, Strata__Txlayer__V1__GetResult *, count);
    answer->n_results = count;
    for (size_t i = 0; i < count; i++) {
        answer->results[i] = MESSAGE(arena, GetResult, get_result);
        all.gets[i] = (struct txn__get){ .op = request->ops[i], .result = answer->results[i] };
        all.leads[i] =
            lead_of(server, request->ops[i]->database, arena, &answer->results[i]->outcome);
    }
    run_gets(&all, deadline_of(server, call), arena);
    for (size_t i = 0; i < count; i++) {
        Strata__Txlayer__V1__GetResult *result = answer->results[i];
        if (result->outcome)
            continue;
        if (base_failed(all.gets[i].status))
            result->n_values = 0;
        result->outcome = outcome_of(arena, named(all.gets[i].status, request->ops[i]->database));
    }
    *reply = answer;
    return BASE_STATUS_OK;
}

/* ---- commit ---- */

/* Nothing is written: what was read at one timestamp is a transaction at that timestamp. */
static struct base_status commit_nothing(struct txn__lead *lead,
                                         const Strata__Txlayer__V1__CommitOp *op, ch_time deadline,
                                         uint64_t *timestamp) CH_WAITS;
static struct base_status commit_nothing(struct txn__lead *lead,
                                         const Strata__Txlayer__V1__CommitOp *op, ch_time deadline,
                                         uint64_t *timestamp)
{
    *timestamp = op->read_timestamp;
    return op->read_timestamp ? BASE_STATUS_OK : txn__read_now(lead, deadline, timestamp);
}

static void finish_commit(struct txn__lead *lead, struct txn__op *op, ch_time deadline,
                          struct base_arena *arena,
                          Strata__Txlayer__V1__CommitResult *result) CH_WAITS;
static void finish_commit(struct txn__lead *lead, struct txn__op *op, ch_time deadline,
                          struct base_arena *arena, Strata__Txlayer__V1__CommitResult *result)
{
    struct base_status status = op->status;
    if (op->state) {
        txn__commit_wait(lead, op, deadline);
        status = op->status;
        result->timestamp = op->timestamp;
    } else if (!base_failed(status)) {
        status = commit_nothing(lead, op->request, deadline, &result->timestamp);
    }
    if (base_failed(status))
        result->timestamp = 0;
    result->outcome = outcome_of(arena, named(status, op->request->database));
    txn__lead_unref(lead);
}

static struct base_status commit(void *self, struct ch_call *call, const void *message,
                                 void **reply) CH_WAITS;
static struct base_status commit(void *self, struct ch_call *call, const void *message,
                                 void **reply)
{
    struct txn__server *server = self;
    const Strata__Txlayer__V1__CommitRequest *request = message;
    struct base_arena *arena = ch_call_arena(call);
    size_t count = request->n_ops;
    if (count > OPS_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "%zu operations: the limit is %d", count,
                                OPS_MAX);
    ch_time deadline = deadline_of(server, call);
    Strata__Txlayer__V1__CommitReply *answer = MESSAGE(arena, CommitReply, commit_reply);
    struct txn__op *ops = BASE_NEW_ARRAY(arena, struct txn__op, count);
    struct txn__lead **leads = BASE_NEW_ARRAY(arena, struct txn__lead *, count);
    answer->results = BASE_NEW_ARRAY(arena, Strata__Txlayer__V1__CommitResult *, count);
    answer->n_results = count;
    for (size_t i = 0; i < count; i++) {
        answer->results[i] = MESSAGE(arena, CommitResult, commit_result);
        ops[i].request = request->ops[i];
        leads[i] = lead_of(server, request->ops[i]->database, arena, &answer->results[i]->outcome);
        if (!leads[i])
            continue;
        ops[i].status = txn__commit_check(request->ops[i], arena, &ops[i].bytes);
        if (!base_failed(ops[i].status) && request->ops[i]->n_writes)
            txn__commit_submit(leads[i], &ops[i]);
    }
    for (size_t i = 0; i < count; i++)
        if (leads[i])
            txn__commit_start(leads[i]);
    for (size_t i = 0; i < count; i++)
        if (leads[i])
            finish_commit(leads[i], &ops[i], deadline, arena, answer->results[i]);
    *reply = answer;
    return BASE_STATUS_OK;
}

void txn__handlers_register(struct txn__server *server, struct ch_server *rpc)
{
    const struct ch_service *service = &strata__txlayer__v1__tx_layer__service;
    const struct ch_method *methods = service->methods;
    ch_server_add_service(rpc, service);
    ch_server_handle(rpc, &methods[STRATA__TXLAYER__V1__TX_LAYER__LOCATE], locate, server);
    ch_server_handle(rpc, &methods[STRATA__TXLAYER__V1__TX_LAYER__READ_TIMESTAMP], read_timestamp,
                     server);
    ch_server_handle(rpc, &methods[STRATA__TXLAYER__V1__TX_LAYER__GET], get, server);
    ch_server_handle(rpc, &methods[STRATA__TXLAYER__V1__TX_LAYER__SCAN], scan, server);
    ch_server_handle(rpc, &methods[STRATA__TXLAYER__V1__TX_LAYER__COMMIT], commit, server);
}
