/* client.c: see txlayer/txlayer.h. Every call is: find the leader, one RPC, and on a leader that
 * is none, or a failure that may pass, again until the deadline. Repeating is safe: reads change
 * nothing, commits carry their id. */
#include <stdlib.h>
#include <string.h>

#include "client_int.h"
#include "strata/txlayer/v1/txlayer.strata.h"

typedef Strata__Txlayer__V1__Outcome outcome_t;

struct txn_client {
    struct ch_env *env;
    struct txn__leaders *leaders;
};

struct txn_client *txn_client_new(struct ch_env *env, const struct txn_client_options *options)
{
    struct txn_client *client = calloc(1, sizeof(*client));
    BASE_ASSERT(client);
    client->env = env;
    client->leaders = txn__leaders_new(env, options);
    return client;
}

void txn_client_free(struct txn_client *client)
{
    if (!client)
        return;
    txn__leaders_free(client->leaders);
    free(client);
}

/* One call of the API on its way. */
struct attempt {
    struct txn_client *client;
    const char *database;
    ch_time deadline; /* of the whole */
    ch_time until;    /* of this try */
    int64_t pause_ms;
    int redirects;
    struct txn__leader *leader;
    struct base_status status; /* of the last try */
};

static void attempt_init(struct attempt *attempt, struct txn_client *client, const char *database,
                         ch_time deadline)
{
    *attempt = (struct attempt){ .client = client,
                                 .database = database,
                                 .deadline = ch_context_deadline(deadline),
                                 .pause_ms = TXN__CLIENT_RETRY_MS_MIN };
}

static bool may_pass(enum base_code code)
{
    return code == BASE_UNAVAILABLE || code == BASE_RESOURCE_EXHAUSTED ||
           code == BASE_DEADLINE_EXCEEDED || code == BASE_CANCELLED;
}

static void pause(struct attempt *attempt) CH_WAITS;
static void pause(struct attempt *attempt)
{
    struct ch_env *env = attempt->client->env;
    ch_time wake =
        ch_in(env, (ch_time)ch_random_below(env, (uint64_t)(attempt->pause_ms * CH_MS)) + CH_MS);
    attempt->pause_ms = attempt->pause_ms * 2 < TXN__CLIENT_RETRY_MS_MAX ? attempt->pause_ms * 2
                                                                         : TXN__CLIENT_RETRY_MS_MAX;
    (void)!ch_sleep_until(env, wake < attempt->deadline ? wake : attempt->deadline);
}

/* Finds the leader for the next try. False: over, attempt->status is the result. */
static bool attempt_begin(struct attempt *attempt) CH_WAITS;
static bool attempt_begin(struct attempt *attempt)
{
    struct ch_env *env = attempt->client->env;
    for (;;) {
        ch_time now = ch_now(env);
        if (ch_cancelled() || now >= attempt->deadline) {
            if (!base_failed(attempt->status))
                attempt->status = ch_outcome_status(ch_cancelled() ? CH_CANCELLED : CH_TIMEOUT,
                                                    "reach the shard's leader");
            else if (attempt->status.code != BASE_UNAVAILABLE)
                attempt->status.code = ch_cancelled() ? BASE_CANCELLED : BASE_DEADLINE_EXCEEDED;
            return false;
        }
        attempt->until = now + TXN__ATTEMPT_MS * CH_MS < attempt->deadline
                             ? now + TXN__ATTEMPT_MS * CH_MS
                             : attempt->deadline;
        struct base_status status = txn__leader_find(attempt->client->leaders, attempt->database,
                                                     attempt->until, &attempt->leader);
        if (!base_failed(status))
            return true;
        bool again = may_pass(status.code);
        base_status_free(&attempt->status);
        attempt->status = status;
        if (!again)
            return false;
        pause(attempt);
    }
}

/* Judges a try; `trip` is taken. True: try again. Else attempt->status is the result. */
static bool attempt_again(struct attempt *attempt, struct base_status trip,
                          const outcome_t *outcome) CH_WAITS;
static bool attempt_again(struct attempt *attempt, struct base_status trip,
                          const outcome_t *outcome)
{
    base_status_free(&attempt->status);
    if (!base_failed(trip) && !outcome)
        trip = base_status_make(BASE_INTERNAL, "the txserver's reply has no outcome");
    if (!base_failed(trip) && outcome->code == BASE_OK)
        return false;
    if (!base_failed(trip)) {
        enum base_code code =
            outcome->not_leader ? BASE_UNAVAILABLE : (enum base_code)outcome->code;
        trip = base_status_make(code, "%.*s", BASE_FMT(ch_bytes_of(outcome->text)));
        if (outcome->not_leader) {
            txn__leader_wrong(attempt->client->leaders, attempt->database, attempt->leader,
                              ch_bytes_of(outcome->leader));
            attempt->status = trip;
            /* A hint is followed at once; two servers that point at each other are not. */
            if (!outcome->leader.len || attempt->redirects++ % 2)
                pause(attempt);
            return true;
        }
    } else {
        trip = base_status_wrap(trip, "leader %s", attempt->leader->address);
    }
    attempt->status = trip;
    if (!may_pass(trip.code))
        return false;
    if (trip.code != BASE_RESOURCE_EXHAUSTED)
        txn__leader_wrong(attempt->client->leaders, attempt->database, attempt->leader,
                          BASE_BYTES_EMPTY);
    pause(attempt);
    return true;
}

static struct base_status result_of(const struct attempt *attempt, const char *what)
{
    return base_status_wrap(attempt->status, "%s in database %s", what, attempt->database);
}

static Strata__Txlayer__V1__Key **keys_of(struct base_arena *arena, const struct txn_key *keys,
                                          size_t count, size_t *bytes)
{
    Strata__Txlayer__V1__Key **out = BASE_NEW_ARRAY(arena, Strata__Txlayer__V1__Key *, count);
    Strata__Txlayer__V1__Key *all = BASE_NEW_ARRAY(arena, Strata__Txlayer__V1__Key, count);
    for (size_t i = 0; i < count; i++) {
        strata__txlayer__v1__key__init(&all[i]);
        all[i].group = ch_data_of(keys[i].group);
        all[i].key = ch_data_of(keys[i].key);
        out[i] = &all[i];
        *bytes += keys[i].group.len + keys[i].key.len + 8;
    }
    return out;
}

struct base_status txn_get_some(struct txn_client *client, const char *database, uint64_t timestamp,
                                const struct txn_key *keys, size_t count, size_t bytes_max,
                                ch_time deadline, struct base_arena *arena,
                                struct txn_value *values, uint64_t *read_at)
{
    struct attempt attempt;
    struct base_status trip;
    Strata__Txlayer__V1__GetResult *result = NULL;
    Strata__Txlayer__V1__GetOp *op =
        CH_MESSAGE(arena, Strata__Txlayer__V1__GetOp, strata__txlayer__v1__get_op);
    size_t bytes = 0;
    op->database = ch_data_str(database);
    op->timestamp = timestamp;
    op->keys = keys_of(arena, keys, count, &bytes);
    op->n_keys = count;
    op->bytes_max = bytes_max;
    attempt_init(&attempt, client, database, deadline);
    do {
        void *raw = NULL;
        if (!attempt_begin(&attempt))
            break;
        trip = txn__combine(&attempt.leader->gets, &op->base, bytes, attempt.until, arena, &raw);
        result = base_failed(trip) ? NULL : raw;
    } while (attempt_again(&attempt, trip, result ? result->outcome : NULL));
    if (!base_failed(attempt.status) && result->n_values != count)
        attempt.status =
            base_status_make(BASE_INTERNAL, "%zu keys, %zu values", count, result->n_values);
    if (base_failed(attempt.status))
        return result_of(&attempt, "get");
    for (size_t i = 0; i < count; i++)
        values[i] = (struct txn_value){ .found = result->values[i]->found,
                                        .value = ch_bytes_of(result->values[i]->value),
                                        .timestamp = result->values[i]->timestamp,
                                        .unread = result->values[i]->unread };
    if (read_at)
        *read_at = result->read_at;
    return BASE_STATUS_OK;
}

/* What txn_get has not read yet. */
struct rest {
    struct txn_key *keys;
    struct txn_value *values;
    size_t *places; /* in the caller's arrays */
    size_t count;
};

static struct rest rest_new(struct base_arena *arena, const struct txn_key *keys, size_t count)
{
    struct rest rest = { BASE_NEW_ARRAY(arena, struct txn_key, count),
                         BASE_NEW_ARRAY(arena, struct txn_value, count),
                         BASE_NEW_ARRAY(arena, size_t, count), count };
    for (size_t i = 0; i < count; i++) {
        rest.keys[i] = keys[i];
        rest.places[i] = i;
    }
    return rest;
}

/* Hands out what was read, keeps the rest. Returns the bytes of what was. */
static size_t rest_shrink(struct rest *rest, struct txn_value *values)
{
    size_t kept = 0, bytes = 0;
    for (size_t i = 0; i < rest->count; i++) {
        if (!rest->values[i].unread) {
            values[rest->places[i]] = rest->values[i];
            bytes += rest->values[i].value.len;
            continue;
        }
        rest->keys[kept] = rest->keys[i];
        rest->places[kept++] = rest->places[i];
    }
    rest->count = kept;
    return bytes;
}

struct base_status txn_get(struct txn_client *client, const char *database, uint64_t timestamp,
                           const struct txn_key *keys, size_t count, ch_time deadline,
                           struct base_arena *arena, struct txn_value *values, uint64_t *read_at)
{
    uint64_t at = 0;
    struct base_status status = txn_get_some(client, database, timestamp, keys, count,
                                             TXN__GET_PAGE_BYTES, deadline, arena, values, &at);
    size_t unread = 0, bytes = 0;
    for (size_t i = 0; i < count && !base_failed(status); i++) {
        unread += values[i].unread;
        bytes += values[i].value.len;
    }
    struct rest rest = unread ? rest_new(arena, keys, count) : (struct rest){ 0 };
    if (unread) {
        memcpy(rest.values, values, count * sizeof(*values));
        rest_shrink(&rest, values);
    }
    while (rest.count > 0 && bytes <= TXN_GET_MAX && !base_failed(status)) {
        status = txn_get_some(client, database, at, rest.keys, rest.count, TXN__GET_PAGE_BYTES,
                              deadline, arena, rest.values, NULL);
        if (!base_failed(status))
            bytes += rest_shrink(&rest, values);
    }
    if (!base_failed(status) && bytes > TXN_GET_MAX)
        status = base_status_make(BASE_RESOURCE_EXHAUSTED,
                                  "get in database %s: the values of %zu keys have more than %d "
                                  "bytes: ask for fewer",
                                  database, count, TXN_GET_MAX);
    if (read_at)
        *read_at = at;
    return status;
}

/* A read of nothing: it shares messages with other reads. */
struct base_status txn_read_timestamp(struct txn_client *client, const char *database,
                                      ch_time deadline, uint64_t *timestamp)
{
    struct base_arena arena;
    base_arena_init(&arena);
    *timestamp = 0;
    struct base_status status =
        txn_get(client, database, 0, NULL, 0, deadline, &arena, NULL, timestamp);
    base_arena_free(&arena);
    return status;
}

static void put_rows(const Strata__Txlayer__V1__ScanReply *reply, struct base_arena *arena,
                     struct txn_row **rows, size_t *count)
{
    *count = reply->n_rows;
    *rows = BASE_NEW_ARRAY(arena, struct txn_row, *count);
    for (size_t i = 0; i < *count; i++)
        (*rows)[i] =
            (struct txn_row){ ch_bytes_of(reply->rows[i]->key), ch_bytes_of(reply->rows[i]->value),
                              reply->rows[i]->timestamp };
}

struct base_status txn_scan(struct txn_client *client, const char *database, uint64_t timestamp,
                            const struct txn_scan *scan, ch_time deadline, struct base_arena *arena,
                            struct txn_row **rows, size_t *count, bool *more, uint64_t *read_at)
{
    struct attempt attempt;
    struct base_status trip;
    Strata__Txlayer__V1__ScanReply *reply = NULL;
    Strata__Txlayer__V1__ScanRequest *request =
        CH_MESSAGE(arena, Strata__Txlayer__V1__ScanRequest, strata__txlayer__v1__scan_request);
    request->database = ch_data_str(database);
    request->timestamp = timestamp;
    request->start = ch_data_of(scan->start);
    request->end = ch_data_of(scan->end);
    request->descending = scan->descending;
    request->keys_only = scan->keys_only;
    request->limit = scan->limit < UINT32_MAX ? (uint32_t)scan->limit : UINT32_MAX;
    attempt_init(&attempt, client, database, deadline);
    do {
        void *raw = NULL;
        if (!attempt_begin(&attempt))
            break;
        struct ch_call_options options = { .deadline = attempt.until, .no_retry = true };
        trip = ch_client_call(
            attempt.leader->client,
            &strata__txlayer__v1__tx_layer__service.methods[STRATA__TXLAYER__V1__TX_LAYER__SCAN],
            request, &options, arena, &raw);
        reply = base_failed(trip) ? NULL : raw;
    } while (attempt_again(&attempt, trip, reply ? reply->outcome : NULL));
    if (base_failed(attempt.status))
        return result_of(&attempt, "scan");
    put_rows(reply, arena, rows, count);
    *more = reply->more;
    if (read_at)
        *read_at = reply->read_at;
    return BASE_STATUS_OK;
}

static Strata__Txlayer__V1__CommitOp *commit_op(const char *database,
                                                const struct txn_commit *commit,
                                                struct base_arena *arena, size_t *bytes)
{
    Strata__Txlayer__V1__CommitOp *op =
        CH_MESSAGE(arena, Strata__Txlayer__V1__CommitOp, strata__txlayer__v1__commit_op);
    op->database = ch_data_str(database);
    op->read_timestamp = commit->read_timestamp;
    op->idempotency_id = ch_data_of(commit->idempotency_id);
    op->read_keys = keys_of(arena, commit->read_keys, commit->read_key_count, bytes);
    op->n_read_keys = commit->read_key_count;
    op->n_read_ranges = commit->read_range_count;
    op->read_ranges = BASE_NEW_ARRAY(arena, Strata__Txlayer__V1__Range *, commit->read_range_count);
    for (size_t i = 0; i < commit->read_range_count; i++) {
        op->read_ranges[i] =
            CH_MESSAGE(arena, Strata__Txlayer__V1__Range, strata__txlayer__v1__range);
        op->read_ranges[i]->start = ch_data_of(commit->read_ranges[i].start);
        op->read_ranges[i]->end = ch_data_of(commit->read_ranges[i].end);
        *bytes += commit->read_ranges[i].start.len + commit->read_ranges[i].end.len + 8;
    }
    op->n_writes = commit->write_count;
    op->writes = BASE_NEW_ARRAY(arena, Strata__Txlayer__V1__Write *, commit->write_count);
    for (size_t i = 0; i < commit->write_count; i++) {
        const struct txn_write *write = &commit->writes[i];
        op->writes[i] = CH_MESSAGE(arena, Strata__Txlayer__V1__Write, strata__txlayer__v1__write);
        op->writes[i]->key = *keys_of(arena, &write->key, 1, bytes);
        op->writes[i]->is_delete = write->is_delete;
        op->writes[i]->value = ch_data_of(write->is_delete ? BASE_BYTES_EMPTY : write->value);
        *bytes += write->value.len + 8;
    }
    return op;
}

struct base_status txn_commit(struct txn_client *client, const char *database,
                              const struct txn_commit *commit, ch_time deadline,
                              uint64_t *timestamp)
{
    struct attempt attempt;
    struct base_status trip;
    struct base_arena arena;
    Strata__Txlayer__V1__CommitResult *result = NULL;
    size_t bytes = 0;
    base_arena_init(&arena);
    Strata__Txlayer__V1__CommitOp *op = commit_op(database, commit, &arena, &bytes);
    attempt_init(&attempt, client, database, deadline);
    if (bytes > TXN_COMMIT_MAX) {
        attempt.status =
            base_status_make(BASE_INVALID_ARGUMENT, "the commit has %zu bytes: the limit is %d",
                             bytes, TXN_COMMIT_MAX);
        base_arena_free(&arena);
        return result_of(&attempt, "commit");
    }
    do {
        void *raw = NULL;
        if (!attempt_begin(&attempt))
            break;
        trip =
            txn__combine(&attempt.leader->commits, &op->base, bytes, attempt.until, &arena, &raw);
        result = base_failed(trip) ? NULL : raw;
    } while (attempt_again(&attempt, trip, result ? result->outcome : NULL));
    *timestamp = base_failed(attempt.status) ? 0 : result->timestamp;
    base_arena_free(&arena);
    return result_of(&attempt, "commit");
}
