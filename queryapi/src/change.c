/* change.c: see change.h. */
#include "change.h"

#include <uthash.h>

#include "mask.h"
#include "server.h"
#include "transform.h"

#define STRATEGY(name) GOOGLE__DATASTORE__V1__MUTATION__CONFLICT_RESOLUTION_STRATEGY__##name
#define DETECTION(name) GOOGLE__DATASTORE__V1__MUTATION__CONFLICT_DETECTION_STRATEGY_##name
#define BAD(...) base_status_make(BASE_INVALID_ARGUMENT, __VA_ARGS__)

static qry_key *key_of(const qry_mutation *mutation)
{
    switch (mutation->operation_case) {
    case MUTATION(INSERT):
        return mutation->insert->key;
    case MUTATION(UPDATE):
        return mutation->update->key;
    case MUTATION(UPSERT):
        return mutation->upsert->key;
    default:
        return mutation->delete_;
    }
}

static qry_entity *entity_of(const qry_mutation *mutation)
{
    return mutation->operation_case == MUTATION(INSERT)   ? mutation->insert
           : mutation->operation_case == MUTATION(UPDATE) ? mutation->update
                                                          : mutation->upsert;
}

/* ---- laying out ---- */

static struct base_status check_options(const struct qry_scope *scope, qry_mutation *mutation,
                                        struct base_arena *arena)
{
    bool delete = mutation->operation_case == MUTATION(DELETE);
    if (mutation->conflict_resolution_strategy != STRATEGY(STRATEGY_UNSPECIFIED) &&
        mutation->conflict_detection_strategy_case == DETECTION(_NOT_SET))
        return BAD("A conflict_resolution_strategy needs a base_version or an update_time.");
    if (mutation->conflict_detection_strategy_case == DETECTION(BASE_VERSION) &&
        mutation->base_version < 0)
        return BAD("base_version must not be negative.");
    if (delete &&(mutation->property_mask || mutation->n_property_transforms))
        return BAD("A delete cannot have a property_mask or property_transforms.");
    for (size_t i = 0; mutation->property_mask && i < mutation->property_mask->n_paths; i++) {
        struct qry_path path;
        struct base_status status =
            qry_path_parse(ch_bytes_of(mutation->property_mask->paths[i]), arena, &path);
        if (base_failed(status))
            return status;
    }
    return qry_transforms_check(scope, mutation->property_transforms,
                                mutation->n_property_transforms, arena);
}

static struct base_status check_mutation(const struct qry_scope *scope, qry_mutation *mutation,
                                         struct base_arena *arena)
{
    struct base_status status;
    switch (mutation->operation_case) {
    case MUTATION(INSERT):
    case MUTATION(UPSERT):
    case MUTATION(UPDATE):
        status = qry_check_entity(scope, entity_of(mutation), arena);
        if (!base_failed(status) && mutation->operation_case == MUTATION(UPDATE))
            status = qry_check_key(scope, key_of(mutation), QRY_COMPLETE, arena);
        break;
    case MUTATION(DELETE):
        status = qry_check_key(scope, mutation->delete_, QRY_COMPLETE, arena);
        break;
    default:
        return BAD("A mutation has no operation.");
    }
    return base_failed(status) ? status : check_options(scope, mutation, arena);
}

static const char *op_name(int op)
{
    return op == MUTATION(INSERT)   ? "insert"
           : op == MUTATION(UPDATE) ? "update"
           : op == MUTATION(UPSERT) ? "upsert"
                                    : "delete";
}

/* After a delete no update; after anything that leaves an entity no insert. */
static struct base_status check_order(int before, int after, bool transactional)
{
    if (!transactional)
        return BAD("A non-transactional commit may not contain multiple mutations affecting the "
                   "same entity.");
    bool bad = before == MUTATION(DELETE) ? after == MUTATION(UPDATE) : after == MUTATION(INSERT);
    if (bad)
        return BAD("Cannot %s then %s an entity in the same request.", op_name(before),
                   op_name(after));
    return BASE_STATUS_OK;
}

struct slot {
    size_t change;
    UT_hash_handle hh;
};

static struct base_status lay_out_one(struct qry_changes *changes, size_t i, qry_mutation *mutation,
                                      bool transactional, struct ch_env *env,
                                      struct base_arena *arena, struct slot **slots)
{
    qry_key *key = key_of(mutation);
    bool allocated = qry_key_is_incomplete(key);
    if (allocated) {
        key->path[key->n_path - 1]->id_type_case = ELEMENT(ID);
        key->path[key->n_path - 1]->id = qry_new_id(env);
    }
    struct txn_key row = qry_row_of(arena, key);
    struct slot *slot;
    HASH_FIND(hh, *slots, row.key.data, row.key.len, slot);
    if (!slot) {
        slot = BASE_NEW(arena, struct slot);
        slot->change = changes->count++;
        changes->items[slot->change] = (struct qry_change){
            .row = row, .key = key, .allocated = allocated, .last_op = mutation->operation_case
        };
        HASH_ADD_KEYPTR(hh, *slots, row.key.data, row.key.len, slot);
        changes->of_mutation[i] = slot->change;
        return BASE_STATUS_OK;
    }
    struct qry_change *change = &changes->items[slot->change];
    struct base_status status =
        check_order(change->last_op, mutation->operation_case, transactional);
    change->last_op = mutation->operation_case;
    changes->of_mutation[i] = slot->change;
    return status;
}

struct base_status qry_changes_lay_out(const struct qry_scope *scope, qry_mutation **mutations,
                                       size_t count, bool transactional, struct ch_env *env,
                                       struct base_arena *arena, struct qry_changes *changes)
{
    struct base_status status = BASE_STATUS_OK;
    struct slot *slots = NULL;
    if (count > QRY_COMMIT_MUTATIONS_MAX)
        return BAD("A commit has more than %d mutations.", QRY_COMMIT_MUTATIONS_MAX);
    *changes = (struct qry_changes){
        .items = BASE_NEW_ARRAY(arena, struct qry_change, count + 1),
        .of_mutation = BASE_NEW_ARRAY(arena, size_t, count + 1),
        .conflicts = BASE_NEW_ARRAY(arena, bool, count + 1),
        .transformed = BASE_NEW_ARRAY(arena, qry_value **, count + 1),
    };
    for (size_t i = 0; i < count && !base_failed(status); i++)
        status = check_mutation(scope, mutations[i], arena);
    for (size_t i = 0; i < count && !base_failed(status); i++)
        status = lay_out_one(changes, i, mutations[i], transactional, env, arena, &slots);
    HASH_CLEAR(hh, slots);
    return status;
}

/* ---- applying ---- */

static bool is_conflict(const qry_mutation *mutation, const struct qry_stored *old)
{
    int64_t wanted;
    if (mutation->conflict_detection_strategy_case == DETECTION(BASE_VERSION))
        wanted = mutation->base_version;
    else if (mutation->conflict_detection_strategy_case == DETECTION(UPDATE_TIME))
        wanted = qry_time_us(mutation->update_time);
    else
        return false;
    /* A missing entity's version is that of the snapshot that missed it: anything at or after its
     * deletion. */
    return old->found ? (int64_t)old->version != wanted : (int64_t)old->version > wanted;
}

static struct base_status check_existence(const qry_mutation *mutation,
                                          const struct qry_change *change, struct base_arena *arena)
{
    if (mutation->operation_case == MUTATION(INSERT) && change->entity)
        return base_status_make(BASE_ALREADY_EXISTS, "entity already exists: %s",
                                qry_key_show(arena, change->key));
    if (mutation->operation_case == MUTATION(UPDATE) && !change->entity)
        return base_status_make(BASE_NOT_FOUND, "no entity to update: %s",
                                qry_key_show(arena, change->key));
    return BASE_STATUS_OK;
}

/* Masks and transforms: makes what is to be stored, a copy where it differs from the request's
 * entity. */
static struct base_status make_entity(const struct qry_scope *scope, const qry_mutation *mutation,
                                      const qry_entity *before, uint64_t now_us,
                                      struct base_arena *arena, qry_value ***transformed,
                                      qry_entity **out)
{
    struct base_status status = BASE_STATUS_OK;
    *out = entity_of(mutation);
    if (mutation->property_mask)
        status = qry_mask_merge(mutation->property_mask, before, *out, arena, out);
    if (!base_failed(status) && mutation->n_property_transforms > 0) {
        *out = (qry_entity *)ch_proto_copy(&(*out)->base, arena);
        *transformed = BASE_NEW_ARRAY(arena, qry_value *, mutation->n_property_transforms);
        status =
            qry_transforms_apply(mutation->property_transforms, mutation->n_property_transforms,
                                 now_us, *out, arena, *transformed);
    }
    if (!base_failed(status) && *out != entity_of(mutation))
        status = qry_check_entity(scope, *out, arena);
    return status;
}

static struct base_status apply_one(const struct qry_scope *scope, struct qry_changes *changes,
                                    size_t i, const qry_mutation *mutation, uint64_t now_us,
                                    struct base_arena *arena)
{
    struct qry_change *change = &changes->items[changes->of_mutation[i]];
    changes->conflicts[i] = is_conflict(mutation, &change->old);
    if (changes->conflicts[i] && mutation->conflict_resolution_strategy == STRATEGY(FAIL))
        return base_status_make(
            BASE_FAILED_PRECONDITION,
            "the stored version (%llu) does not match the required base version (%lld) of entity "
            "%s",
            (unsigned long long)change->old.version,
            (long long)(mutation->conflict_detection_strategy_case == DETECTION(BASE_VERSION)
                            ? mutation->base_version
                            : qry_time_us(mutation->update_time)),
            qry_key_show(arena, change->key));
    if (changes->conflicts[i])
        return BASE_STATUS_OK; /* the server's value stays */
    struct base_status status = check_existence(mutation, change, arena);
    if (base_failed(status))
        return status;
    change->written = true;
    if (mutation->operation_case == MUTATION(DELETE)) {
        change->entity = NULL;
        change->created = 0;
        return status;
    }
    return make_entity(scope, mutation, change->entity, now_us, arena, &changes->transformed[i],
                       &change->entity);
}

struct base_status qry_changes_apply(const struct qry_scope *scope, struct qry_changes *changes,
                                     qry_mutation **mutations, size_t count, uint64_t now_us,
                                     struct base_arena *arena)
{
    struct base_status status = BASE_STATUS_OK;
    for (size_t i = 0; i < changes->count; i++) {
        struct qry_change *change = &changes->items[i];
        change->entity = change->old_entity;
        change->created = change->old.found ? change->old.created : 0;
        change->written = change->changed = false;
    }
    for (size_t i = 0; i < count && !base_failed(status); i++)
        status = apply_one(scope, changes, i, mutations[i], now_us, arena);
    return status;
}
