/* commit.c: Commit. The life of a commit here:
 *
 *   check and lay out all mutations -> one read: the old entities and the version row of the index
 *   definitions -> apply the mutations (change.h) -> index rows of old and new, their difference
 *   (entries.h) -> one commit to the txlayer, whose read set is all that was read.
 *
 * Invariants
 * 1. Nothing is written before everything is checked; all of it is written or nothing.
 * 2. The version row is in the read set: no commit makes index entries by definitions that are not
 *    in force when it happens.
 * 3. Without a transaction of the client's, ABORTED is this server's to retry, with fresh reads and
 *    a new id.
 * 4. With one, the id is the transaction's: the same commit sent again, after an unknown outcome,
 *    has the first one's outcome.
 * 5. An entity that a commit would store as it is already is not rewritten, keeps its version. */
#include "change.h"
#include "chassis/metrics.h"
#include "entries.h"
#include "reads.h"

#define SELECTOR(name) GOOGLE__DATASTORE__V1__COMMIT_REQUEST__TRANSACTION_SELECTOR_##name
#define COMMIT_MODE(name) GOOGLE__DATASTORE__V1__COMMIT_REQUEST__MODE__##name

struct committing {
    struct qry_request *request;
    qry_commit_request *in;
    struct qry_changes changes;
    bool transactional;    /* the mode */
    struct qry_hold *hold; /* the client's transaction, or NULL */
    struct qry_definitions *definitions;
    uint64_t read_at, committed_at;
    size_t index_updates;
    struct txn_key *keys; /* of the changes, then the version row */
    struct txn_value *values;
    struct txn_write *writes;
    size_t write_count, write_cap;
};

/* ---- the tries' steps ---- */

/* Decodes what was read. *again: a fresh id met an entity, or the definitions have changed: read
 * again. */
static struct base_status take_old(struct committing *c, bool *again) CH_WAITS;
static struct base_status take_old(struct committing *c, bool *again)
{
    struct qry_request *request = c->request;
    *again = false;
    if (qry_version_of(&c->values[c->changes.count]) != c->definitions->version) {
        *again = true;
        qry_definitions_drop(c->definitions);
        c->definitions = NULL;
        return qry_catalog_reload(request, &c->definitions);
    }
    for (size_t i = 0; i < c->changes.count; i++) {
        struct qry_change *change = &c->changes.items[i];
        struct base_status status = qry_stored_decode(&c->values[i], &change->old);
        change->old_entity = NULL;
        if (!base_failed(status) && change->old.found && change->allocated) {
            change->key->path[change->key->n_path - 1]->id = qry_new_id(request->server->env);
            change->row = qry_row_of(request->arena, change->key);
            *again = true;
        } else if (!base_failed(status) && change->old.found) {
            status = qry_stored_entity(&change->old, request->arena, &change->old_entity);
        }
        if (base_failed(status))
            return base_status_wrap(status, "entity %s", qry_key_show(request->arena, change->key));
    }
    return BASE_STATUS_OK;
}

static struct base_status read_old(struct committing *c) CH_WAITS;
static struct base_status read_old(struct committing *c)
{
    struct qry_request *request = c->request;
    uint64_t timestamp = c->hold ? c->hold->timestamp : 0;
    for (int tries = 0; tries < QRY_COMMIT_TRIES; tries++) {
        bool again;
        for (size_t i = 0; i < c->changes.count; i++)
            c->keys[i] = c->changes.items[i].row;
        c->keys[c->changes.count] = qry_version_key();
        struct base_status status = txn_get(request->server->txn, request->database, timestamp,
                                            c->keys, c->changes.count + 1, request->deadline,
                                            request->arena, c->values, &c->read_at);
        if (!base_failed(status))
            status = take_old(c, &again);
        if (base_failed(status) || !again)
            return status;
        /* A transaction that began before the definitions changed sees the old version row for
         * ever. */
        if (c->hold && c->hold->timestamp &&
            c->values[c->changes.count].timestamp < c->definitions->version)
            break;
    }
    return base_status_make(BASE_ABORTED, "the index definitions of %s keep changing",
                            request->database);
}

static void reserve_writes(struct committing *c, size_t more)
{
    if (c->write_count + more <= c->write_cap)
        return;
    c->write_cap = (c->write_count + more) * 2;
    struct txn_write *writes = base_arena_alloc(c->request->arena, c->write_cap * sizeof(*writes));
    if (c->write_count)
        memcpy(writes, c->writes, c->write_count * sizeof(*writes));
    c->writes = writes;
}

static struct base_status add_writes(struct committing *c, struct qry_change *change)
{
    struct base_arena *arena = c->request->arena;
    struct qry_entries old = { 0 }, new = { 0 };
    struct base_status status = BASE_STATUS_OK;
    struct txn_write row = { .key = change->row, .is_delete = !change->entity };
    if (!change->written || (!change->entity && !change->old.found))
        return status;
    if (change->entity) {
        row.value = qry_stored_encode(change->created, change->entity, arena);
        struct txn_value as = { .found = true, .value = row.value };
        struct qry_stored stored;
        status = qry_stored_decode(&as, &stored);
        if (base_failed(status))
            return status;
        if (change->old.found && change->created &&
            base_bytes_eq(stored.entity, change->old.entity))
            return status; /* as it is already */
        status = qry_entries_of(change->entity, c->definitions->indexes, c->definitions->count,
                                arena, &new);
    }
    if (!base_failed(status) && change->old_entity)
        status = qry_entries_of(change->old_entity, c->definitions->indexes, c->definitions->count,
                                arena, &old);
    if (base_failed(status))
        return status;
    reserve_writes(c, old.count + new.count + 1);
    size_t before = c->write_count + 1;
    c->writes[c->write_count++] = row;
    qry_entries_diff(&old, &new, change->row.group, c->writes, &c->write_count);
    c->index_updates += c->write_count - before;
    change->changed = true;
    return status;
}

static struct base_status send(struct committing *c) CH_WAITS;
static struct base_status send(struct committing *c)
{
    struct qry_request *request = c->request;
    const struct qry_reads *reads = c->hold ? qry_transaction_reads(c->hold) : NULL;
    uint8_t id[16];
    struct txn_commit commit = { .read_timestamp = c->read_at,
                                 .read_keys = c->keys,
                                 .read_key_count = c->changes.count + 1,
                                 .writes = c->writes,
                                 .write_count = c->write_count,
                                 .idempotency_id = base_bytes(id, 16) };
    if (reads && reads->key_count > 0) {
        struct txn_key *keys = BASE_NEW_ARRAY(request->arena, struct txn_key,
                                              reads->key_count + commit.read_key_count);
        memcpy(keys, reads->keys, reads->key_count * sizeof(*keys));
        memcpy(keys + reads->key_count, c->keys, commit.read_key_count * sizeof(*keys));
        commit.read_keys = keys;
        commit.read_key_count += reads->key_count;
    }
    if (reads) {
        commit.read_ranges = reads->ranges;
        commit.read_range_count = reads->range_count;
    }
    if (c->hold) {
        memcpy(id, c->hold->id, 16);
    } else {
        base_put_le64(id, ch_random(request->server->env));
        base_put_le64(id + 8, ch_random(request->server->env));
    }
    return txn_commit(request->server->txn, request->database, &commit, request->deadline,
                      &c->committed_at);
}

/* Reads, applies, writes: once. Nothing to write: what was read is one snapshot, so there is
 * nothing to validate either. */
static struct base_status attempt(struct committing *c) CH_WAITS;
static struct base_status attempt(struct committing *c)
{
    struct qry_request *request = c->request;
    struct base_status status = BASE_STATUS_OK;
    if (!c->definitions)
        status = qry_catalog_get(request, &c->definitions);
    if (!base_failed(status))
        status = read_old(c);
    if (!base_failed(status))
        status =
            qry_changes_apply(&request->scope, &c->changes, c->in->mutations, c->in->n_mutations,
                              (uint64_t)ch_wall_us(request->server->env), request->arena);
    c->write_count = c->index_updates = 0;
    for (size_t i = 0; i < c->changes.count && !base_failed(status); i++)
        status = add_writes(c, &c->changes.items[i]);
    c->committed_at = c->read_at;
    if (base_failed(status) || c->write_count == 0)
        return status;
    return send(c);
}

static struct base_status attempt_all(struct committing *c) CH_WAITS;
static struct base_status attempt_all(struct committing *c)
{
    struct ch_env *env = c->request->server->env;
    for (int tries = 1;; tries++) {
        struct base_status status = attempt(c);
        if (status.code != BASE_ABORTED || c->hold || tries == QRY_COMMIT_TRIES)
            return status;
        ch_count(c->request->server->commit_retries, 1);
        base_status_free(&status);
        ch_time pause =
            (ch_time)ch_random_below(env, (uint64_t)(tries < 8 ? 1 << tries : 256)) * CH_MS / 2;
        if (ch_sleep_until(env, ch_in(env, pause)) == CH_CANCELLED)
            return base_status_make(BASE_CANCELLED, "commit: the call was cancelled");
    }
}

/* ---- the reply ---- */

static qry_mutation_result *result_of(struct committing *c, size_t i)
{
    struct base_arena *arena = c->request->arena;
    qry_mutation_result *result =
        CH_MESSAGE(arena, qry_mutation_result, google__datastore__v1__mutation_result);
    const struct qry_change *change = &c->changes.items[c->changes.of_mutation[i]];
    const qry_mutation *mutation = c->in->mutations[i];
    uint64_t version = change->changed     ? c->committed_at
                       : change->old.found ? change->old.version
                                           : c->read_at;
    result->version = (int64_t)version;
    result->conflict_detected = c->changes.conflicts[i];
    if (change->allocated)
        result->key = change->key;
    if (change->entity) {
        result->update_time = qry_time_of(arena, version);
        result->create_time = qry_time_of(arena, change->created ? change->created : version);
    }
    if (c->changes.transformed[i]) {
        result->transform_results = c->changes.transformed[i];
        result->n_transform_results = mutation->n_property_transforms;
    }
    return result;
}

static qry_commit_reply *make_reply(struct committing *c)
{
    struct base_arena *arena = c->request->arena;
    qry_commit_reply *out =
        CH_MESSAGE(arena, qry_commit_reply, google__datastore__v1__commit_response);
    out->mutation_results = BASE_NEW_ARRAY(arena, qry_mutation_result *, c->in->n_mutations + 1);
    for (size_t i = 0; i < c->in->n_mutations; i++)
        out->mutation_results[out->n_mutation_results++] = result_of(c, i);
    out->index_updates = (int32_t)c->index_updates;
    if (c->transactional && c->committed_at)
        out->commit_time = qry_time_of(arena, c->committed_at);
    return out;
}

/* ---- transactions ---- */

static struct base_status commit_alone(struct committing *c) CH_WAITS;
static struct base_status commit_alone(struct committing *c)
{
    struct base_status status = BASE_STATUS_OK;
    if (c->in->n_mutations > 0)
        status = attempt_all(c);
    else if (c->transactional)
        status = txn_read_timestamp(c->request->server->txn, c->request->database,
                                    c->request->deadline, &c->committed_at);
    return status;
}

static bool is_unknown(enum base_code code)
{
    return code == BASE_DEADLINE_EXCEEDED || code == BASE_UNAVAILABLE || code == BASE_CANCELLED ||
           code == BASE_UNKNOWN || code == BASE_INTERNAL;
}

static struct base_status commit_held(struct committing *c) CH_WAITS;
static struct base_status commit_held(struct committing *c)
{
    if (c->hold->read_only && c->in->n_mutations > 0)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "Cannot modify entities in a read-only transaction.");
    if (c->in->n_mutations == 0) { /* what it has read is one snapshot */
        c->committed_at = c->hold->timestamp;
        return BASE_STATUS_OK;
    }
    struct base_status status = attempt(c);
    if (status.code != BASE_ABORTED)
        return status;
    ch_count(c->request->server->aborted, 1);
    return base_status_wrap(
        status, "Aborted due to cross-transaction contention: try the transaction again");
}

static struct base_status decode_kept(struct qry_request *request, struct base_bytes kept,
                                      void **reply)
{
    ProtobufCMessage *message;
    struct base_status status = ch_proto_decode(&google__datastore__v1__commit_response__descriptor,
                                                kept, request->arena, &message);
    *reply = message;
    return status;
}

static struct base_status commit_transaction(struct committing *c, void **reply) CH_WAITS;
static struct base_status commit_transaction(struct committing *c, void **reply)
{
    struct base_bytes kept;
    struct base_status status = qry_transaction_commit_begin(c->hold, c->request->arena, &kept);
    if (base_failed(status))
        return status;
    if (kept.len > 0)
        return decode_kept(c->request, kept, reply);
    status = commit_held(c);
    if (is_unknown(status.code)) {
        qry_transaction_commit_unknown(c->hold);
        return status;
    }
    if (base_failed(status)) {
        qry_transaction_over(c->hold);
        return status;
    }
    struct base_buf bytes = { 0 };
    *reply = make_reply(c);
    ch_proto_encode(*reply, &bytes);
    qry_transaction_commit_done(c->hold, base_buf_bytes(&bytes));
    base_buf_free(&bytes);
    return status;
}

/* ---- the method ---- */

static struct base_status check_request(const qry_commit_request *in)
{
    bool selected = in->transaction_selector_case != SELECTOR(_NOT_SET);
    if (in->mode == COMMIT_MODE(NON_TRANSACTIONAL) && selected)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "A non-transactional commit cannot name a transaction.");
    if (in->mode != COMMIT_MODE(NON_TRANSACTIONAL) && !selected)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "A transactional commit needs a transaction.");
    if (in->transaction_selector_case == SELECTOR(SINGLE_USE_TRANSACTION) && in->n_mutations > 0 &&
        in->single_use_transaction->mode_case ==
            GOOGLE__DATASTORE__V1__TRANSACTION_OPTIONS__MODE_READ_ONLY)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "Cannot modify entities in a read-only transaction.");
    return BASE_STATUS_OK;
}

static struct base_status prepare(struct committing *c)
{
    struct base_arena *arena = c->request->arena;
    struct base_status status = check_request(c->in);
    c->transactional = c->in->mode != COMMIT_MODE(NON_TRANSACTIONAL);
    if (!base_failed(status))
        status = qry_changes_lay_out(&c->request->scope, c->in->mutations, c->in->n_mutations,
                                     c->transactional, c->request->server->env, arena, &c->changes);
    if (base_failed(status))
        return status;
    c->keys = BASE_NEW_ARRAY(arena, struct txn_key, c->changes.count + 1);
    c->values = BASE_NEW_ARRAY(arena, struct txn_value, c->changes.count + 1);
    return status;
}

static struct base_status commit(struct committing *c, void **reply) CH_WAITS;
static struct base_status commit(struct committing *c, void **reply)
{
    struct qry_hold hold;
    struct base_status status = prepare(c);
    if (c->in->transaction_selector_case != SELECTOR(TRANSACTION) ||
        c->in->mode == COMMIT_MODE(NON_TRANSACTIONAL)) {
        if (!base_failed(status))
            status = commit_alone(c);
        if (!base_failed(status))
            *reply = make_reply(c);
        return status;
    }
    struct base_status bad =
        qry_transaction_hold(&c->request->server->transactions, c->request->database,
                             ch_bytes_of(c->in->transaction), &hold);
    if (base_failed(bad)) {
        base_status_free(&status);
        return bad;
    }
    c->hold = &hold;
    if (base_failed(status))
        qry_transaction_over(&hold); /* a refused commit ends its transaction too */
    else
        status = commit_transaction(c, reply);
    qry_transaction_release(&c->request->server->transactions, &hold);
    c->hold = NULL;
    return status;
}

struct base_status qry_commit(struct qry_request *request, void *message, void **reply)
{
    struct committing c = { .request = request, .in = message };
    struct base_status status = commit(&c, reply);
    qry_definitions_drop(c.definitions);
    ch_count(request->server->commits, 1);
    return status;
}
