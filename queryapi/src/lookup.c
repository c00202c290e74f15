/* lookup.c: Lookup, AllocateIds, ReserveIds. A lookup is one read of as many of its keys as fit a
 * reply, the rest is deferred; entities go out as they are stored. */
#include <stdlib.h>

#include "reads.h"
#include "rows.h"
#include "stored.h"

enum { REPLY_BYTES = 3 << 20 };

struct txn_key qry_row_of(struct base_arena *arena, const qry_key *key)
{
    struct base_buf out = { 0 };
    qry_put_entity_row(&out, key);
    struct txn_key row = { .key = base_bytes_dup(arena, base_buf_bytes(&out)) };
    base_buf_clear(&out);
    qry_put_group(&out, key);
    row.group = base_bytes_dup(arena, base_buf_bytes(&out));
    base_buf_free(&out);
    return row;
}

static struct base_status check_keys(struct qry_request *request, qry_key **keys, size_t count,
                                     enum qry_completeness completeness, size_t limit)
{
    if (count > limit)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "cannot take more than %zu keys in a single call", limit);
    for (size_t i = 0; i < count; i++) {
        struct base_status status =
            qry_check_key(&request->scope, keys[i], completeness, request->arena);
        if (base_failed(status))
            return status;
    }
    return BASE_STATUS_OK;
}

static qry_result *missing_result(struct qry_request *request, qry_key *key, uint64_t read_at)
{
    qry_result *result =
        CH_MESSAGE(request->arena, qry_result, google__datastore__v1__entity_result);
    result->entity = CH_MESSAGE(request->arena, qry_entity, google__datastore__v1__entity);
    result->entity->key = key;
    result->version = (int64_t)read_at;
    return result;
}

/* Found entities up to the batch's size; what does not fit is deferred: the client asks again for
 * it. */
static struct base_status sort_out(struct qry_request *request, const qry_lookup_request *in,
                                   const struct txn_value *values, uint64_t read_at,
                                   qry_lookup_reply *out)
{
    size_t bytes = 0;
    out->found = BASE_NEW_ARRAY(request->arena, qry_result *, in->n_keys + 1);
    out->missing = BASE_NEW_ARRAY(request->arena, qry_result *, in->n_keys + 1);
    out->deferred = BASE_NEW_ARRAY(request->arena, qry_key *, in->n_keys + 1);
    for (size_t i = 0; i < in->n_keys; i++) {
        struct qry_stored stored;
        if (values[i].unread) {
            out->deferred[out->n_deferred++] = in->keys[i];
            continue;
        }
        struct base_status status = qry_stored_decode(&values[i], &stored);
        if (base_failed(status))
            return base_status_wrap(status, "entity %s", qry_key_show(request->arena, in->keys[i]));
        if (!stored.found) {
            out->missing[out->n_missing++] = missing_result(request, in->keys[i], read_at);
            continue;
        }
        bytes += stored.entity.len + 64;
        if (bytes > REPLY_BYTES && out->n_found > 0) {
            out->deferred[out->n_deferred++] = in->keys[i];
            continue;
        }
        status = qry_result_full(&stored, in->property_mask, request->arena,
                                 &out->found[out->n_found++]);
        if (base_failed(status))
            return status;
    }
    return BASE_STATUS_OK;
}

/* The keys as rows, each once: a key named twice is answered once. A small open hash of indexes
 * + 1. */
static void drop_repeated(struct qry_request *request, qry_lookup_request *in, struct txn_key *rows)
{
    size_t kept = 0, slots = 4;
    while (slots < in->n_keys * 2)
        slots *= 2;
    uint32_t *table = BASE_NEW_ARRAY(request->arena, uint32_t, slots);
    for (size_t i = 0; i < in->n_keys; i++) {
        struct txn_key row = qry_row_of(request->arena, in->keys[i]);
        size_t at = base_hash(row.key.data, row.key.len, 0) & (slots - 1);
        while (table[at] && !base_bytes_eq(rows[table[at] - 1].key, row.key))
            at = (at + 1) & (slots - 1);
        if (table[at])
            continue;
        rows[kept] = row;
        in->keys[kept++] = in->keys[i];
        table[at] = (uint32_t)kept;
    }
    in->n_keys = kept;
}

static struct base_status look_up(struct qry_request *request, struct qry_read *read,
                                  qry_lookup_request *in, qry_lookup_reply *out) CH_WAITS;
static struct base_status look_up(struct qry_request *request, struct qry_read *read,
                                  qry_lookup_request *in, qry_lookup_reply *out)
{
    struct txn_key *rows = BASE_NEW_ARRAY(request->arena, struct txn_key, in->n_keys + 1);
    struct txn_value *values = BASE_NEW_ARRAY(request->arena, struct txn_value, in->n_keys + 1);
    drop_repeated(request, in, rows);
    struct base_status status = qry_read_some(request, read, rows, in->n_keys, REPLY_BYTES, values);
    if (!base_failed(status))
        status = sort_out(request, in, values, read->timestamp, out);
    out->transaction = ch_data_of(read->begun);
    out->read_time = qry_time_of(request->arena, read->timestamp);
    return status;
}

struct base_status qry_lookup(struct qry_request *request, void *message, void **reply)
{
    qry_lookup_request *in = message;
    qry_lookup_reply *out =
        CH_MESSAGE(request->arena, qry_lookup_reply, google__datastore__v1__lookup_response);
    struct qry_read read;
    struct base_status status =
        check_keys(request, in->keys, in->n_keys, QRY_COMPLETE, QRY_LOOKUP_KEYS_MAX);
    if (!base_failed(status) && in->n_keys == 0)
        status = base_status_make(BASE_INVALID_ARGUMENT, "a lookup needs at least one key");
    if (!base_failed(status))
        status = qry_read_open(request, in->read_options, &read);
    if (base_failed(status))
        return status;
    status = look_up(request, &read, in, out);
    qry_read_close(request, &read);
    *reply = out;
    return status;
}

/* ---- ids ---- */

/* Random, so that no server needs another's leave: of a billion ids of one parent the next meets
 * one with a chance of 2e-7, and an insert that does is refused or, for an id given by the commit
 * itself, tries another. Ids that a client reserves are for the same reason not written down. */
int64_t qry_new_id(struct ch_env *env)
{
    for (;;) {
        int64_t id = (int64_t)(ch_random(env) >> 12);
        if (id >> 40) /* always long: never mistaken for a hand-given one */
            return id;
    }
}

struct base_status qry_allocate_ids(struct qry_request *request, void *message, void **reply)
{
    Google__Datastore__V1__AllocateIdsRequest *in = message;
    Google__Datastore__V1__AllocateIdsResponse *out =
        CH_MESSAGE(request->arena, Google__Datastore__V1__AllocateIdsResponse,
                   google__datastore__v1__allocate_ids_response);
    struct base_status status =
        check_keys(request, in->keys, in->n_keys, QRY_INCOMPLETE_ONLY, QRY_ALLOCATE_KEYS_MAX);
    if (base_failed(status))
        return status;
    for (size_t i = 0; i < in->n_keys; i++) {
        qry_path_element *last = in->keys[i]->path[in->keys[i]->n_path - 1];
        last->id_type_case = ELEMENT(ID);
        last->id = qry_new_id(request->server->env);
    }
    out->keys = in->keys;
    out->n_keys = in->n_keys;
    *reply = out;
    return status;
}

struct base_status qry_reserve_ids(struct qry_request *request, void *message, void **reply)
{
    Google__Datastore__V1__ReserveIdsRequest *in = message;
    *reply = CH_MESSAGE(request->arena, Google__Datastore__V1__ReserveIdsResponse,
                        google__datastore__v1__reserve_ids_response);
    return check_keys(request, in->keys, in->n_keys, QRY_COMPLETE, QRY_ALLOCATE_KEYS_MAX);
}
