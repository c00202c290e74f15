/* naming.c: the client of names and locks (see naming.h): finding the leader, reading and writing.
 *
 * 1. Any member may be asked; one that does not lead refuses with FAILED_PRECONDITION "not the
 *    leader", which proves that it did nothing, and so the call goes on at another. So it does
 *    when a member provably never saw it. A write whose outcome is unknown is not repeated,
 *    unless it is one that may be (see `repeatable`): the caller learns UNAVAILABLE.
 * 2. Every call ends by its deadline. Between rounds in which all members failed there is a pause
 *    with jitter.
 * Sessions, locks and watches: naming_session.c, naming_lock.c, naming_watch.c. */
#include "naming_int.h"

#include <stdlib.h>

struct ch_naming *ch_naming_new(struct ch_env *env, const char *masters)
{
    struct ch_naming *naming = calloc(1, sizeof(*naming));
    const struct ch_client_options options = { .no_retry = true };
    char *state = NULL;
    BASE_ASSERT(naming);
    naming->env = env;
    naming->masters = strdup(masters);
    BASE_ASSERT(naming->masters);
    for (char *address = strtok_r(naming->masters, ", ", &state);
         address && naming->member_count < CH__MEMBERS_MAX;
         address = strtok_r(NULL, ", ", &state)) {
        naming->members[naming->member_count].address = address;
        naming->members[naming->member_count++].client = ch_client_new(env, address, &options);
    }
    ch_gate_init(&naming->gate, env, "naming");
    ch_gate_init(&naming->farewells, env, "naming farewells");
    ch_cond_init(&naming->changed);
    naming->lost = ch_counter(env, "chassis_naming_sessions_lost_total", "",
                              "Sessions that could not be kept alive.");
    naming->calls_failed =
        ch_counter(env, "chassis_naming_attempts_failed_total", "",
                   "Tries of a naming call that a member refused or did not answer.");
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
    for (size_t i = 0; i < naming->member_count; i++)
        ch_client_free(naming->members[i].client);
    free(naming->masters);
    free(naming->owner);
    free(naming);
}

/* ---- calls ---- */

bool ch__naming_refused(const struct base_status *status)
{
    return status->code == BASE_FAILED_PRECONDITION &&
           strstr(base_status_text(status), "not the leader");
}

void ch__naming_next(struct ch_naming *naming, size_t asked, const struct base_status *status)
{
    static const char hint[] = "it is at ";
    const char *at = strstr(base_status_text(status), hint);
    if (naming->leader != asked)
        return; /* another fiber went on already */
    naming->leader = (asked + 1) % naming->member_count;
    /* Hints may be stale and point in a circle: every second round they are not believed. */
    if (naming->refusals++ / naming->member_count % 2)
        return;
    for (size_t i = 0; at && i < naming->member_count; i++) {
        size_t len = strlen(naming->members[i].address);
        char end = strncmp(at + sizeof(hint) - 1, naming->members[i].address, len) == 0
                       ? at[sizeof(hint) - 1 + len]
                       : 'x';
        if (i != asked && !(end >= '0' && end <= '9') && end != 'x')
            naming->leader = i;
    }
}

ch_time ch__naming_backoff(struct ch_naming *naming, unsigned round)
{
    uint64_t ms = (uint64_t)CH__NAMING_BACKOFF_MS << (round < 10 ? round : 10);
    if (ms > CH__NAMING_BACKOFF_MAX_MS)
        ms = CH__NAMING_BACKOFF_MAX_MS;
    return CH_MS + (ch_time)ch_random_below(naming->env, ms * CH_MS);
}

/* One try at the member that is thought to lead. *again: nothing was done, or it may be done
 * again. */
static struct base_status attempt(struct ch_naming *naming, const struct ch_method *method,
                                  const void *request, bool repeatable, uint32_t attempt_ms,
                                  ch_time deadline, struct base_arena *arena, void **reply,
                                  bool *again) CH_WAITS;
static struct base_status attempt(struct ch_naming *naming, const struct ch_method *method,
                                  const void *request, bool repeatable, uint32_t attempt_ms,
                                  ch_time deadline, struct base_arena *arena, void **reply,
                                  bool *again)
{
    size_t member = naming->leader;
    struct ch_call_options options = { .deadline = ch_in(naming->env, attempt_ms * CH_MS),
                                       .no_retry = true };
    if (options.deadline > deadline)
        options.deadline = deadline;
    struct base_status status =
        ch_client_call(naming->members[member].client, method, request, &options, arena, reply);
    *again = false;
    if (!base_failed(status)) {
        naming->refusals = 0;
        return status;
    }
    bool absent = status.code == BASE_UNAVAILABLE || status.code == BASE_DEADLINE_EXCEEDED;
    if (ch__naming_refused(&status) || (absent && (repeatable || !options.outcome_unknown))) {
        ch_count(naming->calls_failed, 1);
        ch__naming_next(naming, member, &status);
        *again = true;
    } else if (absent && options.outcome_unknown) {
        status.code = BASE_UNAVAILABLE;
        status = base_status_wrap(status, "outcome unknown");
    }
    return status;
}

struct base_status ch__naming_call(struct ch_naming *naming, const struct ch_method *method,
                                   const void *request, bool repeatable, uint32_t attempt_ms,
                                   ch_time deadline, struct base_arena *arena, void **reply)
{
    if (naming->member_count == 0)
        return base_status_make(BASE_FAILED_PRECONDITION, "naming: no members are configured");
    deadline = ch_context_deadline(deadline);
    for (unsigned tries = 1;; tries++) {
        bool again;
        struct base_status status = attempt(naming, method, request, repeatable, attempt_ms,
                                            deadline, arena, reply, &again);
        if (!again)
            return base_status_wrap(status, "naming");
        ch_time pause = tries % naming->member_count == 0
                            ? ch__naming_backoff(naming, tries / (unsigned)naming->member_count)
                            : 0;
        if (ch_in(naming->env, pause) >= deadline) {
            status.code = BASE_DEADLINE_EXCEEDED;
            return base_status_wrap(status, "naming: no leader answered in time");
        }
        if (ch_cancelled() ||
            (pause && ch_sleep_until(naming->env, ch_in(naming->env, pause)) == CH_CANCELLED)) {
            status.code = BASE_CANCELLED;
            return base_status_wrap(status, "naming: cancelled");
        }
        base_status_free(&status);
    }
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
    struct base_status status = ch__naming_call(naming, CH__NAMES(LIST), &request, true,
                                                CH__NAMING_ATTEMPT_MS, deadline, arena, &reply);
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
    struct base_status status = ch__naming_call(naming, CH__NAMES(SET), request, repeatable,
                                                CH__NAMING_ATTEMPT_MS, deadline, &arena, &reply);
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
    struct base_status status = ch__naming_call(naming, CH__NAMES(DELETE), &request, false,
                                                CH__NAMING_ATTEMPT_MS, deadline, &arena, &reply);
    base_arena_free(&arena);
    return base_status_wrap(status, "delete %s", path);
}
