/* reads.c: see reads.h; and the methods BeginTransaction, Rollback. */
#include "reads.h"

#define OPTION(type) GOOGLE__DATASTORE__V1__READ_OPTIONS__CONSISTENCY_TYPE_##type
#define MODE(type) GOOGLE__DATASTORE__V1__TRANSACTION_OPTIONS__MODE_##type

static struct base_status check_read_time(struct qry_request *request, const qry_time *time,
                                          uint64_t *timestamp)
{
    int64_t at = qry_time_us(time);
    if (time->nanos < 0 || time->nanos > 999999999 || at <= 0)
        return base_status_make(BASE_INVALID_ARGUMENT, "read_time is out of range");
    if (time->nanos % 1000 != 0)
        return base_status_make(BASE_INVALID_ARGUMENT, "read_time must be in whole microseconds");
    if (at > ch_wall_us(request->server->env))
        return base_status_make(BASE_INVALID_ARGUMENT, "read_time cannot be in the future");
    *timestamp = (uint64_t)at;
    return BASE_STATUS_OK;
}

struct base_status qry_begin(struct qry_request *request, const qry_transaction_options *options,
                             struct base_bytes *token)
{
    struct qry_server *server = request->server;
    struct base_status status = BASE_STATUS_OK;
    bool read_only = options && options->mode_case == MODE(READ_ONLY);
    uint64_t timestamp = 0;
    if (read_only && options->read_only->read_time)
        status = check_read_time(request, options->read_only->read_time, &timestamp);
    else if (read_only)
        status = txn_read_timestamp(server->txn, request->database, request->deadline, &timestamp);
    if (base_failed(status))
        return status;
    return qry_transaction_begin(&server->transactions, request->database, read_only, timestamp,
                                 request->arena, token);
}

static struct base_status open_transaction(struct qry_request *request, struct base_bytes token,
                                           struct qry_read *read)
{
    struct base_status status =
        qry_transaction_hold(&request->server->transactions, request->database, token, &read->hold);
    read->in_transaction = !base_failed(status);
    read->timestamp = read->hold.timestamp;
    return status;
}

struct base_status qry_read_open(struct qry_request *request, const qry_read_options *options,
                                 struct qry_read *read)
{
    struct base_status status;
    *read = (struct qry_read){ 0 };
    switch (options ? options->consistency_type_case : OPTION(_NOT_SET)) {
    case OPTION(READ_CONSISTENCY): /* eventual reads are strong ones too */
        if (options->read_consistency ==
            GOOGLE__DATASTORE__V1__READ_OPTIONS__READ_CONSISTENCY__READ_CONSISTENCY_UNSPECIFIED)
            return base_status_make(BASE_INVALID_ARGUMENT, "ReadConsistency must be specified.");
        return BASE_STATUS_OK;
    case OPTION(TRANSACTION):
        return open_transaction(request, ch_bytes_of(options->transaction), read);
    case OPTION(NEW_TRANSACTION):
        status = qry_begin(request, options->new_transaction, &read->begun);
        return base_failed(status) ? status : open_transaction(request, read->begun, read);
    case OPTION(READ_TIME):
        return check_read_time(request, options->read_time, &read->timestamp);
    default:
        return BASE_STATUS_OK;
    }
}

void qry_read_close(struct qry_request *request, struct qry_read *read)
{
    if (read->in_transaction)
        qry_transaction_release(&request->server->transactions, &read->hold);
}

/* *at: the timestamp to read at; *first: this read fixes the transaction's. */
static struct base_status begin_read(struct qry_request *request, struct qry_read *read,
                                     bool *first) CH_WAITS;
static struct base_status begin_read(struct qry_request *request, struct qry_read *read,
                                     bool *first)
{
    *first = false;
    if (!read->in_transaction)
        return BASE_STATUS_OK;
    struct base_status status = qry_transaction_fix(&read->hold, request->deadline, first);
    read->timestamp = read->hold.timestamp;
    return status;
}

static void end_read(struct qry_read *read, bool first, bool failed, uint64_t read_at)
{
    if (first)
        qry_transaction_fixed(&read->hold, failed ? 0 : read_at);
    if (!failed)
        read->timestamp = read_at;
}

struct base_status qry_read_some(struct qry_request *request, struct qry_read *read,
                                 const struct txn_key *keys, size_t count, size_t bytes_max,
                                 struct txn_value *values)
{
    struct base_status status = BASE_STATUS_OK;
    uint64_t read_at = 0;
    bool first;
    for (size_t i = 0; read->in_transaction && i < count && !base_failed(status); i++)
        status = qry_transaction_read_key(&read->hold, &keys[i]);
    if (!base_failed(status))
        status = begin_read(request, read, &first);
    if (base_failed(status))
        return status;
    status = txn_get_some(request->server->txn, request->database, read->timestamp, keys, count,
                          bytes_max, request->deadline, request->arena, values, &read_at);
    end_read(read, first, base_failed(status), read_at);
    return status;
}

/* The least key after `key`, in the arena. */
static struct base_bytes after(struct base_arena *arena, struct base_bytes key)
{
    uint8_t *next = base_arena_alloc(arena, key.len + 1);
    memcpy(next, key.data, key.len);
    next[key.len] = 0;
    return base_bytes(next, key.len + 1);
}

static struct base_status record_seen(struct qry_read *read, const struct txn_scan *scan,
                                      struct base_arena *arena, const struct txn_row *rows,
                                      size_t count, bool more)
{
    struct base_bytes start = scan->start, end = scan->end;
    if (more && count > 0 && scan->descending)
        start = rows[count - 1].key;
    else if (more && count > 0)
        end = after(arena, rows[count - 1].key);
    return qry_transaction_read_range(&read->hold, start, end);
}

struct base_status qry_read_scan(struct qry_request *request, struct qry_read *read,
                                 const struct txn_scan *scan, struct base_arena *arena,
                                 struct txn_row **rows, size_t *count, bool *more)
{
    uint64_t read_at = 0;
    bool first;
    struct base_status status = begin_read(request, read, &first);
    if (base_failed(status))
        return status;
    status = txn_scan(request->server->txn, request->database, read->timestamp, scan,
                      request->deadline, arena, rows, count, more, &read_at);
    end_read(read, first, base_failed(status), read_at);
    if (!base_failed(status) && read->in_transaction)
        status = record_seen(read, scan, arena, *rows, *count, *more);
    return status;
}

/* ---- methods ---- */

struct base_status qry_begin_transaction(struct qry_request *request, void *message, void **reply)
{
    Google__Datastore__V1__BeginTransactionRequest *in = message;
    Google__Datastore__V1__BeginTransactionResponse *out =
        CH_MESSAGE(request->arena, Google__Datastore__V1__BeginTransactionResponse,
                   google__datastore__v1__begin_transaction_response);
    struct base_bytes token;
    struct base_status status = qry_begin(request, in->transaction_options, &token);
    if (base_failed(status))
        return status;
    out->transaction = ch_data_of(token);
    *reply = out;
    return status;
}

/* One that is over already is left as it is. */
struct base_status qry_rollback(struct qry_request *request, void *message, void **reply)
{
    Google__Datastore__V1__RollbackRequest *in = message;
    struct qry_hold hold;
    *reply = CH_MESSAGE(request->arena, Google__Datastore__V1__RollbackResponse,
                        google__datastore__v1__rollback_response);
    struct base_status status = qry_transaction_hold(
        &request->server->transactions, request->database, ch_bytes_of(in->transaction), &hold);
    if (base_failed(status)) {
        bool garbage = strstr(base_status_text(&status), "Invalid transaction.") != NULL;
        if (garbage)
            return status;
        base_status_free(&status);
        return BASE_STATUS_OK;
    }
    qry_transaction_over(&hold);
    qry_transaction_release(&request->server->transactions, &hold);
    return BASE_STATUS_OK;
}
