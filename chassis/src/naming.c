/* naming.c: the client of names and locks (see naming.h): reading and writing. The members of the
 * clustermaster are asked as leader.h says; a write whose outcome is unknown is not repeated,
 * unless it is one that may be (see `repeatable`): the caller learns UNAVAILABLE. Sessions, locks
 * and watches: naming_session.c, naming_lock.c, naming_watch.c. */
#include "naming_int.h"

#include <stdlib.h>

struct ch_naming *ch_naming_new(struct ch_env *env, const char *masters)
{
    struct ch_naming *naming = calloc(1, sizeof(*naming));
    BASE_ASSERT(naming);
    naming->env = env;
    naming->masters = ch_leader_new(env, masters, NULL);
    ch_gate_init(&naming->gate, env, "naming");
    ch_gate_init(&naming->farewells, env, "naming farewells");
    ch_cond_init(&naming->changed);
    naming->lost = ch_counter(env, "chassis_naming_sessions_lost_total", "",
                              "Sessions that could not be kept alive.");
    naming->calls_failed =
        ch_counter(env, "chassis_naming_calls_failed_total", "",
                   "Calls for which no leader was found in time, or whose outcome is unknown.");
    return naming;
}

void ch_naming_set_owner(struct ch_naming *naming, const char *owner)
{
    free(naming->owner);
    naming->owner = strdup(owner);
    BASE_ASSERT(naming->owner);
}

void ch_naming_free(struct ch_naming *naming)
{
    if (!naming)
        return;
    naming->closed = true;
    ch_cond_broadcast(&naming->changed);
    ch_gate_stop(&naming->gate);
    ch__session_close(naming);
    ch_gate_close(&naming->farewells);
    ch_gate_join_always(&naming->farewells);
    ch__locks_orphan(naming);
    ch__watches_orphan(naming);
    ch_leader_free(naming->masters);
    free(naming->owner);
    free(naming);
}

/* ---- calls ---- */

struct base_status ch__naming_call(struct ch_naming *naming, const struct ch_method *method,
                                   const void *request, bool repeatable, uint32_t attempt_ms,
                                   ch_time deadline, struct base_arena *arena, void **reply,
                                   ch_time *sent)
{
    struct ch_leader_options options = { .deadline = deadline,
                                         .attempt = attempt_ms * CH_MS,
                                         .repeatable = repeatable };
    struct base_status status =
        ch_leader_call(naming->masters, method, request, &options, arena, reply);

    if (status.code == BASE_UNAVAILABLE || status.code == BASE_DEADLINE_EXCEEDED)
        ch_count(naming->calls_failed, 1);
    if (sent)
        *sent = options.sent;
    return base_status_wrap(status, "naming");
}

/* ---- reading ---- */

struct ch_name_entry ch__name_entry(const CH__PB(Node) * node, struct base_arena *arena)
{
    return (struct ch_name_entry){
        .path = base_bytes_cstr(arena, ch_bytes_of(node->path)),
        .value = base_bytes_dup(arena, ch_bytes_of(node->value)),
        .version = node->version,
        .epoch = node->lock_epoch,
        .locked = node->lock_session != 0,
        .healthy = !node->unhealthy,
    };
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct ch_name_entry *)a)->path, ((const struct ch_name_entry *)b)->path);
}

struct base_status ch_name_list(struct ch_naming *naming, const char *prefix, ch_time deadline,
                                struct base_arena *arena, struct ch_name_entry **entries,
                                size_t *count)
{
    CH__PB(ListRequest) request = STRATA__CLUSTERMGR__V1__LIST_REQUEST__INIT;
    void *reply;
    request.prefix = ch_data_str(prefix);
    struct base_status status =
        ch__naming_call(naming, CH__NAMES(LIST), &request, true, 0, deadline, arena, &reply, NULL);
    if (base_failed(status))
        return base_status_wrap(status, "list %s", prefix);
    const CH__PB(ListReply) *list = reply;
    *entries = BASE_NEW_ARRAY(arena, struct ch_name_entry, list->n_nodes + 1);
    *count = list->n_nodes;
    for (size_t i = 0; i < list->n_nodes; i++)
        (*entries)[i] = ch__name_entry(list->nodes[i], arena);
    qsort(*entries, *count, sizeof(**entries), by_path);
    return BASE_STATUS_OK;
}

struct base_status ch_name_get(struct ch_naming *naming, const char *path, ch_time deadline,
                               struct base_arena *arena, struct ch_name_entry *entry)
{
    struct ch_name_entry *entries;
    size_t count;
    struct base_status status = ch_name_list(naming, path, deadline, arena, &entries, &count);
    if (base_failed(status))
        return status;
    if (count == 0 || strcmp(entries[0].path, path) != 0)
        return base_status_make(BASE_NOT_FOUND, "there is no name %s", path);
    *entry = entries[0];
    return BASE_STATUS_OK;
}

/* ---- writing ---- */

static struct base_status set_once(struct ch_naming *naming, CH__PB(SetRequest) * request,
                                   ch_time deadline, uint64_t *version) CH_WAITS;
static struct base_status set_once(struct ch_naming *naming, CH__PB(SetRequest) * request,
                                   ch_time deadline, uint64_t *version)
{
    struct base_arena arena = { 0 };
    void *reply;
    /* Writing "whatever is there" twice has the same end; with an expected version the second try
     * would refuse the first. */
    bool repeatable = request->expected_version == CH_NAME_ANY;
    struct base_status status = ch__naming_call(naming, CH__NAMES(SET), request, repeatable, 0,
                                                deadline, &arena, &reply, NULL);
    if (!base_failed(status) && version)
        *version = ((const CH__PB(SetReply) *)reply)->version;
    base_arena_free(&arena);
    return status;
}

struct base_status ch_name_set(struct ch_naming *naming, const char *path, struct base_bytes value,
                               int64_t expected_version, bool ephemeral, ch_time deadline,
                               uint64_t *version)
{
    CH__PB(SetRequest) request = STRATA__CLUSTERMGR__V1__SET_REQUEST__INIT;
    struct base_status status = BASE_STATUS_OK;
    request.path = ch_data_str(path);
    request.value = ch_data_of(value);
    request.expected_version = expected_version;
    for (int tries = 0; tries < 2; tries++) {
        if (ephemeral)
            status = ch__session_get(naming, deadline, &request.session);
        if (!base_failed(status))
            status = set_once(naming, &request, deadline, version);
        if (!ephemeral || status.code != BASE_NOT_FOUND || tries == 1)
            break;
        base_status_free(
            &status); /* the session has ended without our noticing: once more under a new one */
        ch__session_gone(naming, request.session);
    }
    return base_status_wrap(status, "set %s", path);
}

struct base_status ch_name_delete(struct ch_naming *naming, const char *path,
                                  int64_t expected_version, ch_time deadline)
{
    CH__PB(DeleteRequest) request = STRATA__CLUSTERMGR__V1__DELETE_REQUEST__INIT;
    struct base_arena arena = { 0 };
    void *reply;
    request.path = ch_data_str(path);
    request.expected_version = expected_version;
    struct base_status status = ch__naming_call(naming, CH__NAMES(DELETE), &request, false, 0,
                                                deadline, &arena, &reply, NULL);
    base_arena_free(&arena);
    return base_status_wrap(status, "delete %s", path);
}
