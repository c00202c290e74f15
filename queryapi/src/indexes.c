/* indexes.c: the service strata.queryapi.v1.Indexes: Load, List. A definition is stored in one
 * commit with the version row, and is maintained by every commit after that one; build.c then
 * makes the entries of entities that were there before. */
#include "build.h"
#include "server.h"

typedef Strata__Queryapi__V1__LoadRequest load_request;
typedef Strata__Queryapi__V1__LoadReply load_reply;
typedef Strata__Queryapi__V1__ListReply list_reply;

/* Rewrites definitions (each with its id and state) and the version row, if `definitions` is still
 * what is stored. */
struct base_status qry_definitions_store(struct qry_request *request,
                                         const struct qry_definitions *definitions,
                                         const struct qry_index *indexes, size_t count)
{
    struct qry_server *server = request->server;
    struct txn_write *writes = BASE_NEW_ARRAY(request->arena, struct txn_write, count + 1);
    struct txn_key version = qry_version_key();
    uint8_t id[16];
    uint64_t at;
    for (size_t i = 0; i < count; i++) {
        struct base_buf bytes = { 0 };
        ch_proto_encode(&qry_index_to_proto(&indexes[i], request->arena)->base, &bytes);
        writes[i] =
            (struct txn_write){ .key = qry_index_key(indexes[i].id, request->arena),
                                .value = base_bytes_dup(request->arena, base_buf_bytes(&bytes)) };
        base_buf_free(&bytes);
    }
    writes[count] = (struct txn_write){ .key = version, .value = BASE_BYTES_LIT("1") };
    base_put_le64(id, ch_random(server->env));
    base_put_le64(id + 8, ch_random(server->env));
    struct txn_commit commit = { .read_timestamp = definitions->read_at,
                                 .read_keys = &version,
                                 .read_key_count = 1,
                                 .writes = writes,
                                 .write_count = count + 1,
                                 .idempotency_id = base_bytes(id, 16) };
    return txn_commit(server->txn, request->database, &commit, request->deadline, &at);
}

static const struct qry_index *find(const struct qry_definitions *definitions,
                                    const struct qry_index *index)
{
    for (size_t i = 0; i < definitions->count; i++)
        if (qry_index_same(&definitions->indexes[i], index))
            return &definitions->indexes[i];
    return NULL;
}

/* Stores those of the wanted ones that are not there, once, unless another changes the definitions
 * meanwhile (ABORTED). */
static struct base_status add_missing(struct qry_request *request, const struct qry_index *wanted,
                                      size_t count, bool *was_there) CH_WAITS;
static struct base_status add_missing(struct qry_request *request, const struct qry_index *wanted,
                                      size_t count, bool *was_there)
{
    struct qry_definitions *definitions;
    struct base_status status = qry_catalog_reload(request, &definitions);
    if (base_failed(status))
        return status;
    struct qry_index *added = BASE_NEW_ARRAY(request->arena, struct qry_index, count + 1);
    size_t added_count = 0;
    uint64_t next = 1;
    for (size_t i = 0; i < definitions->count; i++)
        next = definitions->indexes[i].id >= next ? definitions->indexes[i].id + 1 : next;
    for (size_t i = 0; i < count; i++) {
        was_there[i] = find(definitions, &wanted[i]) != NULL;
        if (was_there[i])
            continue;
        added[added_count] = wanted[i];
        added[added_count].id = next++;
        added[added_count++].ready = false;
    }
    if (definitions->count + added_count > QRY_INDEXES_MAX)
        status = base_status_make(BASE_INVALID_ARGUMENT,
                                  "a database cannot have more than %d composite indexes",
                                  QRY_INDEXES_MAX);
    else if (added_count > 0)
        status = qry_definitions_store(request, definitions, added, added_count);
    qry_definitions_drop(definitions);
    return status;
}

static struct base_status report(struct qry_request *request, const struct qry_index *wanted,
                                 size_t count, const bool *was_there, load_reply *out) CH_WAITS;
static struct base_status report(struct qry_request *request, const struct qry_index *wanted,
                                 size_t count, const bool *was_there, load_reply *out)
{
    struct qry_definitions *definitions;
    struct base_status status = qry_catalog_reload(request, &definitions);
    if (base_failed(status))
        return status;
    out->added = BASE_NEW_ARRAY(request->arena, qry_index_proto *, count + 1);
    out->present = BASE_NEW_ARRAY(request->arena, qry_index_proto *, count + 1);
    for (size_t i = 0; i < count; i++) {
        const struct qry_index *index = find(definitions, &wanted[i]);
        if (!index)
            continue;
        qry_index_proto *proto = (qry_index_proto *)ch_proto_copy(
            &qry_index_to_proto(index, request->arena)->base, request->arena);
        if (was_there[i])
            out->present[out->n_present++] = proto;
        else
            out->added[out->n_added++] = proto;
    }
    qry_definitions_drop(definitions);
    return status;
}

struct base_status qry_indexes_load(struct qry_request *request, void *message, void **reply)
{
    load_request *in = message;
    load_reply *out = CH_MESSAGE(request->arena, load_reply, strata__queryapi__v1__load_reply);
    struct qry_index *wanted;
    size_t count;
    struct base_status status =
        qry_index_parse_yaml(ch_bytes_of(in->yaml), request->arena, &wanted, &count);
    if (base_failed(status))
        return status;
    bool *was_there = BASE_NEW_ARRAY(request->arena, bool, count + 1);
    status = qry_builds_add(request);
    if (base_failed(status))
        return status;
    for (int tries = 1;; tries++) {
        status = add_missing(request, wanted, count, was_there);
        if (status.code != BASE_ABORTED || tries == QRY_COMMIT_TRIES)
            break;
        base_status_free(&status);
    }
    if (!base_failed(status))
        status = qry_build_all(request);
    if (!base_failed(status))
        status = report(request, wanted, count, was_there, out);
    *reply = out;
    return status;
}

struct base_status qry_indexes_list(struct qry_request *request, void *message, void **reply)
{
    list_reply *out = CH_MESSAGE(request->arena, list_reply, strata__queryapi__v1__list_reply);
    struct qry_definitions *definitions;
    struct base_status status = qry_catalog_reload(request, &definitions);
    if (base_failed(status))
        return status;
    out->indexes = BASE_NEW_ARRAY(request->arena, qry_index_proto *, definitions->count + 1);
    for (size_t i = 0; i < definitions->count; i++)
        out->indexes[out->n_indexes++] = (qry_index_proto *)ch_proto_copy(
            &qry_index_to_proto(&definitions->indexes[i], request->arena)->base, request->arena);
    qry_definitions_drop(definitions);
    *reply = out;
    return status;
}
