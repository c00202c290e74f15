/* run_query.c: RunQuery. A batch is made in two steps: positions are walked (skipping the offset),
 * then their entities fetched, a few hundred in one read, and sent as they are stored. A batch
 * that is cut by size or count is NOT_FINISHED: its end cursor, what it skipped and what it
 * returned tell the client how to go on. */
#include "scan.h"
#include "stored.h"
#include "rows.h"

#define QUERY_TYPE(name) GOOGLE__DATASTORE__V1__RUN_QUERY_REQUEST__QUERY_TYPE_##name
#define MORE(name) GOOGLE__DATASTORE__V1__QUERY_RESULT_BATCH__MORE_RESULTS_TYPE__##name
#define RESULT(name) GOOGLE__DATASTORE__V1__ENTITY_RESULT__RESULT_TYPE__##name

enum {
    SKIP_MAX = 50000 /* results a batch */,
    FETCH_MAX = 300,
    POSITION_BYTES_MAX = QRY_BATCH_BYTES
};

struct running {
    struct qry_request *request;
    struct qry_read read;
    struct qry_query query;
    struct qry_plan plan;
    struct qry_walk walk;
    const qry_mask *mask;
    qry_batch *batch;
    struct qry_cursor *positions;
    size_t count, wanted, bytes;
    bool cut; /* the batch ends before the query does */
    struct base_buf components, path;
};

/* ---- walking ---- */

static struct base_status position_of(struct running *r, struct base_bytes suffix,
                                      struct qry_cursor *out)
{
    base_buf_clear(&r->components);
    base_buf_clear(&r->path);
    if (!qry_suffix_to_position(&r->plan, suffix, &r->components, &r->path))
        return base_status_make(BASE_DATA_LOSS, "an index row is damaged");
    *out = (struct qry_cursor){ true,
                                base_bytes_dup(r->request->arena, base_buf_bytes(&r->components)),
                                base_bytes_dup(r->request->arena, base_buf_bytes(&r->path)) };
    return BASE_STATUS_OK;
}

static struct base_status skip_offset(struct running *r) CH_WAITS;
static struct base_status skip_offset(struct running *r)
{
    struct qry_cursor last = { 0 };
    struct base_buf suffix = { 0 };
    struct base_status status = BASE_STATUS_OK;
    bool found = true;
    while (r->batch->skipped_results < r->query.offset && r->batch->skipped_results < SKIP_MAX &&
           found) {
        struct base_bytes at;
        status = qry_walk_next(&r->walk, &at, &found);
        if (base_failed(status))
            break;
        if (!found)
            break;
        base_buf_clear(&suffix);
        base_buf_put_bytes(&suffix, at);
        r->batch->skipped_results++;
    }
    if (!base_failed(status) && r->batch->skipped_results > 0) {
        status = position_of(r, base_buf_bytes(&suffix), &last);
        if (!base_failed(status))
            r->batch->skipped_cursor =
                ch_data_of(qry_cursor_encode(&r->query, &last, r->request->arena));
    }
    base_buf_free(&suffix);
    r->cut = r->batch->skipped_results == SKIP_MAX && r->query.offset > SKIP_MAX;
    return status;
}

static struct base_status collect(struct running *r) CH_WAITS;
static struct base_status collect(struct running *r)
{
    size_t limit = r->query.limit < 0 ? SIZE_MAX : (size_t)r->query.limit;
    size_t most = r->query.keys_only ? QRY_BATCH_KEYS : QRY_BATCH_RESULTS, bytes = 0;
    r->wanted = limit < most ? limit : most;
    r->positions = BASE_NEW_ARRAY(r->request->arena, struct qry_cursor, r->wanted + 1);
    while (r->count < r->wanted && bytes < POSITION_BYTES_MAX) {
        struct base_bytes suffix;
        bool found;
        struct base_status status = qry_walk_next(&r->walk, &suffix, &found);
        if (base_failed(status) || !found)
            return status;
        status = position_of(r, suffix, &r->positions[r->count]);
        if (base_failed(status))
            return status;
        r->count++;
        bytes += suffix.len * 3 + 64;
    }
    r->cut = r->count < limit && !qry_walk_at_end(&r->walk);
    return BASE_STATUS_OK;
}

/* ---- results ---- */

static void add_result(struct running *r, qry_result *result, const struct qry_cursor *position)
{
    result->cursor = ch_data_of(qry_cursor_encode(&r->query, position, r->request->arena));
    r->batch->entity_results[r->batch->n_entity_results++] = result;
}

static struct base_status add_keys(struct running *r)
{
    for (size_t i = 0; i < r->count; i++) {
        qry_result *result =
            CH_MESSAGE(r->request->arena, qry_result, google__datastore__v1__entity_result);
        result->entity = CH_MESSAGE(r->request->arena, qry_entity, google__datastore__v1__entity);
        if (!qry_take_path(r->positions[i].path, r->query.partition, r->request->arena,
                           &result->entity->key))
            return base_status_make(BASE_DATA_LOSS, "an index row has no path");
        add_result(r, result, &r->positions[i]);
    }
    return BASE_STATUS_OK;
}

static struct txn_key entity_row(struct running *r, struct base_bytes path)
{
    struct base_buf out = { 0 };
    qry_put_space(&out, QRY_ROWS_ENTITY, r->query.name_space);
    base_buf_put_bytes(&out, path);
    struct txn_key row = { .key = base_bytes_dup(r->request->arena, base_buf_bytes(&out)) };
    base_buf_clear(&out);
    qry_put_group_of_path(&out, r->query.name_space, path);
    row.group = base_bytes_dup(r->request->arena, base_buf_bytes(&out));
    base_buf_free(&out);
    return row;
}

static struct base_status add_fetched(struct running *r, const struct txn_value *values,
                                      size_t from, size_t count)
{
    for (size_t i = 0; i < count && !r->cut; i++) {
        struct qry_stored stored;
        qry_result *result;
        struct base_status status = qry_stored_decode(&values[i], &stored);
        if (!base_failed(status) && !stored.found)
            status =
                base_status_make(BASE_DATA_LOSS, "an index row names an entity that is not there");
        if (!base_failed(status) && r->bytes > 0 &&
            r->bytes + stored.entity.len > QRY_BATCH_BYTES) {
            r->cut = true;
            return status;
        }
        if (!base_failed(status))
            status = qry_result_full(&stored, r->mask, r->request->arena, &result);
        if (base_failed(status))
            return status;
        r->bytes += stored.entity.len + 100;
        add_result(r, result, &r->positions[from + i]);
    }
    return BASE_STATUS_OK;
}

/* How many to fetch at once: about a batch's bytes, by what entities weighed lately. */
static size_t fetch_size(const struct qry_server *server)
{
    size_t count = QRY_BATCH_BYTES / (server->entity_bytes + 100);
    return count < 1 ? 1 : count > FETCH_MAX ? FETCH_MAX : count;
}

static void weigh(struct qry_server *server, const struct txn_value *values, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += values[i].value.len;
    size_t mean = count ? bytes / count : 0;
    server->entity_bytes =
        mean > server->entity_bytes ? mean : (server->entity_bytes * 7 + mean) / 8;
}

static struct base_status add_entities(struct running *r) CH_WAITS;
static struct base_status add_entities(struct running *r)
{
    struct base_arena *arena = r->request->arena;
    bool cut = r->cut;
    r->cut = false;
    for (size_t from = 0; from < r->count && !r->cut;) {
        size_t count = fetch_size(r->request->server);
        count = count < r->count - from ? count : r->count - from;
        struct txn_key *keys = BASE_NEW_ARRAY(arena, struct txn_key, count);
        struct txn_value *values = BASE_NEW_ARRAY(arena, struct txn_value, count);
        for (size_t i = 0; i < count; i++)
            keys[i] = entity_row(r, r->positions[from + i].path);
        struct base_status status =
            qry_read_some(r->request, &r->read, keys, count, 2 * QRY_BATCH_BYTES, values);
        size_t got = 0;
        while (!base_failed(status) && got < count && !values[got].unread)
            got++;
        if (!base_failed(status) && got == 0) /* others of them were: at least one is, of one */
            status = qry_read_some(r->request, &r->read, keys, got = 1, 1, values);
        if (!base_failed(status))
            status = add_fetched(r, values, from, got);
        if (base_failed(status))
            return status;
        weigh(r->request->server, values, got);
        from += got;
    }
    r->cut = r->cut || cut;
    return BASE_STATUS_OK;
}

/* ---- the batch ---- */

static void end_batch(struct running *r)
{
    qry_batch *batch = r->batch;
    struct qry_cursor begin = { 0 };
    if (batch->n_entity_results > 0)
        batch->end_cursor = batch->entity_results[batch->n_entity_results - 1]->cursor;
    else if (batch->skipped_results > 0)
        batch->end_cursor = batch->skipped_cursor;
    else
        batch->end_cursor =
            r->query.start_cursor.len > 0
                ? ch_data_of(r->query.start_cursor)
                : ch_data_of(qry_cursor_encode(&r->query, &begin, r->request->arena));
    bool at_end = qry_walk_at_end(&r->walk);
    if (r->cut)
        batch->more_results = MORE(NOT_FINISHED);
    else if (!at_end)
        batch->more_results = MORE(MORE_RESULTS_AFTER_LIMIT);
    else
        batch->more_results =
            r->query.end_cursor.len > 0 ? MORE(MORE_RESULTS_AFTER_CURSOR) : MORE(NO_MORE_RESULTS);
    batch->snapshot_version = (int64_t)r->read.timestamp;
    batch->read_time = qry_time_of(r->request->arena, r->read.timestamp);
}

static struct base_status fill_batch(struct running *r) CH_WAITS;
static struct base_status fill_batch(struct running *r)
{
    struct base_status status = skip_offset(r);
    if (!base_failed(status) && !r->cut)
        status = collect(r);
    if (base_failed(status))
        return status;
    r->batch->entity_results = BASE_NEW_ARRAY(r->request->arena, qry_result *, r->count + 1);
    r->batch->entity_result_type = r->query.keys_only ? RESULT(KEY_ONLY) : RESULT(FULL);
    status = r->query.keys_only ? add_keys(r) : add_entities(r);
    if (!base_failed(status) && r->read.timestamp == 0) /* nothing had to be read */
        status = txn_read_timestamp(r->request->server->txn, r->request->database,
                                    r->request->deadline, &r->read.timestamp);
    if (!base_failed(status))
        end_batch(r);
    return status;
}

static struct base_status run(struct running *r) CH_WAITS;
static struct base_status run(struct running *r)
{
    struct base_status status = qry_plan_for(r->request, &r->read, &r->query, &r->plan);
    size_t most = r->query.keys_only ? QRY_BATCH_KEYS : QRY_BATCH_RESULTS;
    size_t page =
        r->query.limit >= 0 && (size_t)r->query.limit < most ? (size_t)r->query.limit : most;
    page += r->query.offset < SKIP_MAX ? (size_t)r->query.offset : SKIP_MAX;
    if (!base_failed(status))
        status =
            qry_walk_open(&r->walk, r->request, &r->read, &r->query, &r->plan, page ? page : 1);
    if (base_failed(status))
        return status;
    status = fill_batch(r);
    qry_walk_close(&r->walk);
    base_buf_free(&r->components);
    base_buf_free(&r->path);
    return status;
}

static struct base_status check_request(const qry_run_query_request *in)
{
    if (in->query_type_case == QUERY_TYPE(GQL_QUERY))
        return base_status_make(BASE_UNIMPLEMENTED, "GQL is not served yet");
    if (in->query_type_case != QUERY_TYPE(QUERY))
        return base_status_make(BASE_INVALID_ARGUMENT, "A query is required.");
    if (in->explain_options)
        return base_status_make(BASE_UNIMPLEMENTED, "explain_options are not served yet");
    return BASE_STATUS_OK;
}

struct base_status qry_run_query(struct qry_request *request, void *message, void **reply)
{
    qry_run_query_request *in = message;
    qry_run_query_reply *out =
        CH_MESSAGE(request->arena, qry_run_query_reply, google__datastore__v1__run_query_response);
    struct running *r = BASE_NEW(request->arena, struct running);
    r->request = request;
    r->mask = in->property_mask;
    r->batch = out->batch =
        CH_MESSAGE(request->arena, qry_batch, google__datastore__v1__query_result_batch);
    struct base_status status = check_request(in);
    if (!base_failed(status))
        status =
            qry_query_make(&request->scope, in->partition_id, in->query, request->arena, &r->query);
    if (!base_failed(status))
        status = qry_read_open(request, in->read_options, &r->read);
    if (base_failed(status))
        return status;
    status = run(r);
    out->transaction = ch_data_of(r->read.begun);
    qry_read_close(request, &r->read);
    *reply = out;
    return status;
}
