/* etcd.c: see etcd.h.
 *
 * Invariants
 * 1. An attempt that fails with UNAVAILABLE or DEADLINE_EXCEEDED, and no other, moves on to the
 *    next endpoint: the rest are answers.
 * 2. Everybody talks to the same endpoint, so one that is dead is found out once.
 * 3. After a whole round without an answer there is a pause of ROUND_MS.
 *
 * Failure modes: a member cut off from its fellows answers UNAVAILABLE, or not at all; a cluster
 * between two leaders likewise: every call asks to be told at once ("hasleader") rather than to be
 * left waiting. A full one says RESOURCE_EXHAUSTED, even of the very write that filled it and was
 * done: who must know looks. */
#include "etcd.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "etcd/api/etcdserverpb/rpc.strata.h"

enum { ROUND_MS = 100, KEEP_ATTEMPT_MS = 500, PREFIX_MAX = 128, ENDPOINT_MAX = 128 };

/* A member that has lost sight of its cluster's leader is to say so, and to end what is open. */
static const struct ch_metadata has_leader[] = { { "hasleader", { (const uint8_t *)"true", 4 } } };

struct con_etcd {
    struct ch_env *env;
    struct ch_client *clients[CON_ETCD_ENDPOINTS_MAX];
    size_t count, current;
    uint64_t moves;
    char prefix[PREFIX_MAX + 16];
};

/* ---- endpoints ---- */

static struct base_status endpoint_add(struct con_etcd *etcd, const char *state,
                                       struct base_bytes text)
{
    char address[ENDPOINT_MAX];

    if (etcd->count == CON_ETCD_ENDPOINTS_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "state \"%s\": more than %d endpoints",
                                state, CON_ETCD_ENDPOINTS_MAX);
    if (text.len == 0 || text.len >= sizeof(address) || !memchr(text.data, ':', text.len))
        return base_status_make(BASE_INVALID_ARGUMENT, "state \"%s\": \"%.*s\" is not host:port",
                                state, BASE_FMT(text));
    snprintf(address, sizeof(address), "%.*s", BASE_FMT(text));
    etcd->clients[etcd->count++] =
        ch_client_new(etcd->env, address, &(struct ch_client_options){ .no_retry = true });
    return BASE_STATUS_OK;
}

/* Reads the text whole before any client is made of it. */
static struct base_status state_check(const char *state, struct base_bytes *endpoints,
                                      struct base_bytes *prefix)
{
    static const char scheme[] = "etcd://";
    const char *at = state + sizeof(scheme) - 1, *slash;

    if (strncmp(state, scheme, sizeof(scheme) - 1) != 0)
        return base_status_make(BASE_INVALID_ARGUMENT, "state \"%s\" does not begin with %s", state,
                                scheme);
    slash = strchr(at, '/');
    *endpoints = base_bytes(at, slash ? (size_t)(slash - at) : strlen(at));
    *prefix = base_bytes_str(slash ? slash + 1 : "");
    while (prefix->len && prefix->data[prefix->len - 1] == '/')
        prefix->len--;
    if (prefix->len > PREFIX_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "state \"%s\": a prefix of more than %d bytes", state, PREFIX_MAX);
    return BASE_STATUS_OK;
}

struct base_status con__etcd_new(struct ch_env *env, const char *state, struct con_etcd **out)
{
    struct base_bytes endpoints = { 0 }, prefix = { 0 };
    struct con_etcd *etcd;
    struct base_status status = state_check(state, &endpoints, &prefix);

    *out = NULL;
    if (base_failed(status))
        return status;
    etcd = calloc(1, sizeof(*etcd));
    BASE_ASSERT(etcd != NULL);
    etcd->env = env;
    snprintf(etcd->prefix, sizeof(etcd->prefix), prefix.len ? "/strata/%.*s" : "/strata",
             BASE_FMT(prefix));
    *out = etcd;
    while (!base_failed(status)) {
        const uint8_t *comma = memchr(endpoints.data, ',', endpoints.len);
        size_t len = comma ? (size_t)(comma - endpoints.data) : endpoints.len;

        status = endpoint_add(etcd, state, base_bytes(endpoints.data, len));
        if (!comma)
            break;
        endpoints = base_bytes(comma + 1, endpoints.len - len - 1);
    }
    return status; /* failed: the caller frees what there is */
}

void con__etcd_free(struct con_etcd *etcd)
{
    if (!etcd)
        return;
    for (size_t i = 0; i < etcd->count; i++)
        ch_client_free(etcd->clients[i]);
    free(etcd);
}

const char *con__etcd_prefix(const struct con_etcd *etcd)
{
    return etcd->prefix;
}

uint64_t con__etcd_moves(const struct con_etcd *etcd)
{
    return etcd->moves;
}

/* Goes on to the next endpoint, unless another fiber already has. */
static void endpoint_failed(struct con_etcd *etcd, size_t which)
{
    if (etcd->current != which || etcd->count == 1)
        return;
    etcd->current = (which + 1) % etcd->count;
    etcd->moves++;
}

/* ---- calls ---- */

static ch_time attempt_deadline(struct con_etcd *etcd, int64_t attempt_ms, ch_time deadline)
{
    ch_time attempt = ch_in(etcd->env, attempt_ms * CH_MS);

    return attempt < deadline ? attempt : deadline;
}

/* A member between two leaders says so without having done anything. The second text comes as
 * UNKNOWN, which would be taken for an answer. */
static bool leaderless(struct base_status *status)
{
    const char *text = base_status_text(status);

    if ((status->code == BASE_UNAVAILABLE && strstr(text, "etcdserver: no leader")) ||
        (status->code == BASE_UNKNOWN && strstr(text, "raft proposal dropped"))) {
        status->code = BASE_UNAVAILABLE;
        return true;
    }
    return false;
}

/* Whether to try again, elsewhere. */
static CH_WAITS bool go_on(struct con_etcd *etcd, enum base_code code, size_t which, size_t tries,
                           ch_time deadline)
{
    if (code != BASE_UNAVAILABLE && code != BASE_DEADLINE_EXCEEDED)
        return false;
    endpoint_failed(etcd, which);
    if (ch_cancelled() || ch_now(etcd->env) >= deadline)
        return false;
    if (tries % etcd->count != 0)
        return true;
    return ch_in(etcd->env, ROUND_MS * CH_MS) < deadline &&
           ch_sleep_until(etcd->env, ch_in(etcd->env, ROUND_MS * CH_MS)) == CH_TIMEOUT;
}

static CH_WAITS struct base_status call(struct con_etcd *etcd, const struct ch_method *method,
                                        const void *request, ch_time deadline,
                                        struct base_arena *arena, void **reply, bool *unsure)
{
    struct base_status status;
    bool any_unsure = false;

    for (size_t tries = 1;; tries++) {
        size_t which = etcd->current;
        struct ch_call_options options = {
            .deadline = attempt_deadline(etcd, CON_ETCD_ATTEMPT_MS, deadline),
            .no_retry = true,
            .metadata = has_leader,
            .metadata_count = 1,
        };

        status = ch_client_call(etcd->clients[which], method, request, &options, arena, reply);
        if (!base_failed(status))
            break;
        /* Of a full database: done or not, it is over and can be looked up. */
        if (!leaderless(&status) && options.outcome_unknown &&
            status.code != BASE_RESOURCE_EXHAUSTED)
            any_unsure = true;
        if (!go_on(etcd, status.code, which, tries, deadline))
            break;
        base_status_free(&status);
    }
    if (unsure)
        *unsure = base_failed(status) && any_unsure;
    return base_status_wrap(status, "etcd");
}

static const struct ch_method *kv_method(int index)
{
    return &etcdserverpb__kv__service.methods[index];
}

static const struct ch_method *lease_method(int index)
{
    return &etcdserverpb__lease__service.methods[index];
}

/* ---- transactions ---- */

static ProtobufCBinaryData key_end(const char *end)
{
    return end ? ch_data_str(end) : (ProtobufCBinaryData){ 0 };
}

void con__etcd_txn_init(struct con_etcd_txn *txn, struct base_arena *arena)
{
    txn->arena = arena;
    etcdserverpb__txn_request__init(&txn->request);
    txn->request.compare = txn->compare;
    txn->request.success = txn->success;
    txn->request.failure = txn->failure;
}

void con__etcd_if_created(struct con_etcd_txn *txn, const char *key, uint64_t revision)
{
    Etcdserverpb__Compare *compare =
        CH_MESSAGE(txn->arena, Etcdserverpb__Compare, etcdserverpb__compare);

    BASE_ASSERT(txn->request.n_compare < CON_ETCD_OPS_MAX);
    compare->result = ETCDSERVERPB__COMPARE__COMPARE_RESULT__EQUAL;
    compare->target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__CREATE;
    compare->key = ch_data_str(key);
    compare->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION;
    compare->create_revision = (int64_t)revision;
    txn->compare[txn->request.n_compare++] = compare;
}

static Etcdserverpb__RequestOp *op_new(struct con_etcd_txn *txn)
{
    return CH_MESSAGE(txn->arena, Etcdserverpb__RequestOp, etcdserverpb__request_op);
}

static Etcdserverpb__RequestOp *op_then(struct con_etcd_txn *txn)
{
    BASE_ASSERT(txn->request.n_success < CON_ETCD_OPS_MAX);
    return txn->success[txn->request.n_success++] = op_new(txn);
}

static void op_range(struct con_etcd_txn *txn, Etcdserverpb__RequestOp *op, const char *key,
                     const char *end, int64_t limit)
{
    Etcdserverpb__RangeRequest *range =
        CH_MESSAGE(txn->arena, Etcdserverpb__RangeRequest, etcdserverpb__range_request);

    range->key = ch_data_str(key);
    range->range_end = key_end(end);
    range->limit = limit;
    op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE;
    op->request_range = range;
}

void con__etcd_then_range(struct con_etcd_txn *txn, const char *key, const char *end, int64_t limit)
{
    op_range(txn, op_then(txn), key, end, limit);
}

void con__etcd_else_range(struct con_etcd_txn *txn, const char *key, const char *end)
{
    BASE_ASSERT(txn->request.n_failure < CON_ETCD_OPS_MAX);
    op_range(txn, txn->failure[txn->request.n_failure++] = op_new(txn), key, end, 0);
}

void con__etcd_then_put(struct con_etcd_txn *txn, const char *key, struct base_bytes value,
                        int64_t lease)
{
    Etcdserverpb__RequestOp *op = op_then(txn);
    Etcdserverpb__PutRequest *put =
        CH_MESSAGE(txn->arena, Etcdserverpb__PutRequest, etcdserverpb__put_request);

    put->key = ch_data_str(key);
    put->value = ch_data_of(value);
    put->lease = lease;
    op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    op->request_put = put;
}

void con__etcd_then_delete(struct con_etcd_txn *txn, const char *key, const char *end)
{
    Etcdserverpb__RequestOp *op = op_then(txn);
    Etcdserverpb__DeleteRangeRequest *range = CH_MESSAGE(
        txn->arena, Etcdserverpb__DeleteRangeRequest, etcdserverpb__delete_range_request);

    range->key = ch_data_str(key);
    range->range_end = key_end(end);
    op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
    op->request_delete_range = range;
}

struct base_status con__etcd_commit(struct con_etcd *etcd, const struct con_etcd_txn *txn,
                                    ch_time deadline, Etcdserverpb__TxnResponse **response,
                                    bool *unsure)
{
    void *reply = NULL;
    struct base_status status = call(etcd, kv_method(ETCDSERVERPB__KV__TXN), &txn->request,
                                     deadline, txn->arena, &reply, unsure);

    *response = reply;
    if (!base_failed(status) && !(*response)->header)
        return base_status_make(BASE_INTERNAL, "etcd: the answer to a transaction has no header");
    return status;
}

struct base_status con__etcd_found(const Etcdserverpb__TxnResponse *response, size_t at,
                                   const Etcdserverpb__RangeResponse **range)
{
    const Etcdserverpb__ResponseOp *op = at < response->n_responses ? response->responses[at] : 0;

    *range = NULL;
    if (!op || op->response_case != ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_RANGE)
        return base_status_make(BASE_INTERNAL, "etcd: answer %zu of a transaction is no range's",
                                at);
    *range = op->response_range;
    return BASE_STATUS_OK;
}

/* ---- single keys ---- */

struct base_status con__etcd_get(struct con_etcd *etcd, const char *key, ch_time deadline,
                                 struct base_arena *arena, const Mvccpb__KeyValue **kv)
{
    Etcdserverpb__RangeRequest request;
    void *reply = NULL;
    struct base_status status;

    etcdserverpb__range_request__init(&request);
    request.key = ch_data_str(key);
    *kv = NULL;
    status =
        call(etcd, kv_method(ETCDSERVERPB__KV__RANGE), &request, deadline, arena, &reply, NULL);
    if (!base_failed(status)) {
        const Etcdserverpb__RangeResponse *range = reply;

        *kv = range->n_kvs ? range->kvs[0] : NULL;
    }
    return status;
}

struct base_status con__etcd_put(struct con_etcd *etcd, const char *key, struct base_bytes value,
                                 ch_time deadline)
{
    Etcdserverpb__PutRequest request;
    struct base_arena arena = { 0 };
    void *reply = NULL;
    struct base_status status;

    etcdserverpb__put_request__init(&request);
    request.key = ch_data_str(key);
    request.value = ch_data_of(value);
    status = call(etcd, kv_method(ETCDSERVERPB__KV__PUT), &request, deadline, &arena, &reply, NULL);
    base_arena_free(&arena);
    return status;
}

/* ---- leases ---- */

struct base_status con__etcd_lease_grant(struct con_etcd *etcd, int64_t *ttl_s, ch_time deadline,
                                         int64_t *lease)
{
    Etcdserverpb__LeaseGrantRequest request;
    struct base_arena arena = { 0 };
    void *reply = NULL;
    struct base_status status;

    etcdserverpb__lease_grant_request__init(&request);
    request.ttl = *ttl_s;
    *lease = 0;
    status = call(etcd, lease_method(ETCDSERVERPB__LEASE__LEASE_GRANT), &request, deadline, &arena,
                  &reply, NULL);
    if (!base_failed(status)) {
        const Etcdserverpb__LeaseGrantResponse *granted = reply;

        *lease = granted->id;
        *ttl_s = granted->ttl;
    }
    base_arena_free(&arena);
    return status;
}

/* One question and its answer on a stream of their own. */
static CH_WAITS struct base_status keep_once(struct con_etcd *etcd, size_t which, int64_t lease,
                                             ch_time deadline, int64_t *ttl)
{
    struct ch_call_options options = { .deadline =
                                           attempt_deadline(etcd, KEEP_ATTEMPT_MS, deadline),
                                       .metadata = has_leader,
                                       .metadata_count = 1 };
    struct ch_client_stream *stream = NULL;
    struct base_arena arena = { 0 };
    Etcdserverpb__LeaseKeepAliveRequest request;
    void *message = NULL;
    struct base_status status =
        ch_client_open(etcd->clients[which], lease_method(ETCDSERVERPB__LEASE__LEASE_KEEP_ALIVE),
                       &options, &stream);

    if (base_failed(status))
        return status;
    etcdserverpb__lease_keep_alive_request__init(&request);
    request.id = lease;
    status = ch_stream_send(stream, &request);
    if (!base_failed(status))
        status = ch_stream_recv(stream, &arena, &message);
    if (!base_failed(status) && !message)
        status = base_status_make(BASE_UNAVAILABLE, "LeaseKeepAlive: ended without an answer");
    if (!base_failed(status))
        *ttl = ((const Etcdserverpb__LeaseKeepAliveResponse *)message)->ttl;
    ch_stream_free(stream);
    base_arena_free(&arena);
    return status;
}

struct base_status con__etcd_lease_keep(struct con_etcd *etcd, int64_t lease, ch_time deadline,
                                        ch_time *sent)
{
    struct base_status status;
    int64_t ttl = 0;

    for (size_t tries = 1;; tries++) {
        size_t which = etcd->current;

        *sent = ch_now(etcd->env);
        status = keep_once(etcd, which, lease, deadline, &ttl);
        if (!base_failed(status) || !go_on(etcd, status.code, which, tries, deadline))
            break;
        base_status_free(&status);
    }
    if (!base_failed(status) && ttl <= 0)
        return base_status_make(BASE_NOT_FOUND, "etcd: lease %" PRIx64 " has ended",
                                (uint64_t)lease);
    return base_status_wrap(status, "etcd");
}

struct base_status con__etcd_lease_revoke(struct con_etcd *etcd, int64_t lease, ch_time deadline)
{
    Etcdserverpb__LeaseRevokeRequest request;
    struct base_arena arena = { 0 };
    void *reply = NULL;
    struct base_status status;

    etcdserverpb__lease_revoke_request__init(&request);
    request.id = lease;
    status = call(etcd, lease_method(ETCDSERVERPB__LEASE__LEASE_REVOKE), &request, deadline, &arena,
                  &reply, NULL);
    base_arena_free(&arena);
    return status;
}

/* ---- watches ---- */

struct base_status con__etcd_watch(struct con_etcd *etcd, const char *key, const char *end,
                                   struct ch_client_stream **stream)
{
    struct ch_call_options options = { .deadline = CH_NEVER,
                                       .metadata = has_leader,
                                       .metadata_count = 1 };
    Etcdserverpb__WatchRequest request;
    Etcdserverpb__WatchCreateRequest create;
    struct base_status status = ch_client_open(
        etcd->clients[etcd->current],
        &etcdserverpb__watch__service.methods[ETCDSERVERPB__WATCH__WATCH], &options, stream);

    if (base_failed(status))
        return base_status_wrap(status, "etcd");
    etcdserverpb__watch_create_request__init(&create);
    create.key = ch_data_str(key);
    create.range_end = ch_data_str(end);
    etcdserverpb__watch_request__init(&request);
    request.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    request.create_request = &create;
    status = ch_stream_send(*stream, &request);
    if (base_failed(status)) {
        ch_stream_free(*stream);
        *stream = NULL;
    }
    return base_status_wrap(status, "etcd");
}

/* ---- whether they live ---- */

struct question {
    struct con_etcd *etcd;
    size_t which;
    ch_time deadline;
    bool answered;
};

/* Answered by a member of itself, whether it has a leader or not. */
static void question_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct question *question = arg;
    struct ch_call_options options = { .deadline = question->deadline, .no_retry = true };
    Etcdserverpb__StatusRequest request;
    struct base_arena arena = { 0 };
    void *reply = NULL;

    etcdserverpb__status_request__init(&request);
    question->answered =
        base_status_drop(ch_client_call(
            question->etcd->clients[question->which],
            &etcdserverpb__maintenance__service.methods[ETCDSERVERPB__MAINTENANCE__STATUS],
            &request, &options, &arena, &reply)) == BASE_OK;
    base_arena_free(&arena);
}

bool con__etcd_most_live(struct con_etcd *etcd, ch_time deadline)
{
    struct question questions[CON_ETCD_ENDPOINTS_MAX];
    struct ch_gather gather;
    size_t live = 0;

    ch_gather_init(&gather, "etcd most live");
    for (size_t i = 0; i < etcd->count; i++) {
        questions[i] = (struct question){ .etcd = etcd, .which = i, .deadline = deadline };
        ch_gather_add(&gather, question_fiber, &questions[i]);
    }
    ch_gather_wait(&gather);
    for (size_t i = 0; i < etcd->count; i++)
        live += questions[i].answered;
    return 2 * live > etcd->count;
}
