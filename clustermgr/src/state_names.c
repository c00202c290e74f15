/* state_names.c: the commands of names, sessions and locks, as names.proto says them (Chubby,
 * sections 2.3 to 2.8).
 *
 * Paths and sizes were checked by who proposes (names.c); what depends on the state is checked
 * here. Locking is a change of the node: its version grows, watchers see it. A node keeps its
 * lock's last epoch while it exists; epochs are versions, so one taken after a delete is greater
 * too. */
#include "state.h"

#include <inttypes.h>
#include <stdlib.h>

static void set(struct clu_state *state, const CLU_PB(SetRequest) * request,
                struct clu__result *result)
{
    const char *path = clu_str(result->arena, request->path);
    struct clu_node *node = clu__node_find(state, path);
    int64_t version = node ? (int64_t)node->version : 0;

    if (request->session != 0 && !clu__session_find(state, request->session)) {
        clu__fail(result, BASE_NOT_FOUND, "session %" PRIu64 " has ended", request->session);
    } else if (request->expected_version >= 0 && request->expected_version != version) {
        clu__fail(result, BASE_FAILED_PRECONDITION, "%s is at version %" PRId64 ", not %" PRId64,
                  path, version, request->expected_version);
    } else if (node && node->task) {
        clu__fail(result, BASE_PERMISSION_DENIED,
                  "%s is a task's endpoint: the clustermaster writes it", path);
    } else if (!node && state->node_count >= CLU_NODES_MAX) {
        clu__fail(result, BASE_RESOURCE_EXHAUSTED, "the name space is full (%d nodes)",
                  CLU_NODES_MAX);
    } else {
        if (!node)
            node = clu__node_make(state, path);
        base_buf_clear(&node->value);
        base_buf_put_bytes(&node->value, ch_bytes_of(request->value));
        node->session = request->session;
        result->number = node->version = clu__change(state);
        clu__path_changed(state, path);
    }
}

static void delete_node(struct clu_state *state, const CLU_PB(DeleteRequest) * request,
                        struct clu__result *result)
{
    const char *path = clu_str(result->arena, request->path);
    struct clu_node *node = clu__node_find(state, path);

    if (!node) {
        clu__fail(result, BASE_NOT_FOUND, "%s does not exist", path);
    } else if (request->expected_version >= 0 &&
               (uint64_t)request->expected_version != node->version) {
        clu__fail(result, BASE_FAILED_PRECONDITION, "%s is at version %" PRIu64 ", not %" PRId64,
                  path, node->version, request->expected_version);
    } else if (node->task) {
        clu__fail(result, BASE_PERMISSION_DENIED,
                  "%s is a task's endpoint: the clustermaster writes it", path);
    } else if (node->lock_session != 0) {
        clu__fail(result, BASE_FAILED_PRECONDITION, "%s is locked by session %" PRIu64, path,
                  node->lock_session);
    } else {
        clu__node_remove(state, node);
        result->number = clu__change(state);
        clu__path_changed(state, path);
    }
}

static void open_session(struct clu_state *state, const CLU_PB(OpenSessionRequest) * request,
                         struct clu__result *result)
{
    if (state->session_count >= CLU_SESSIONS_MAX) {
        clu__fail(result, BASE_RESOURCE_EXHAUSTED, "there are %d sessions already",
                  CLU_SESSIONS_MAX);
        return;
    }
    result->number = clu__change(state);
    clu__session_make(state, result->number, request->lease_ms, ch_bytes_of(request->owner));
}

void clu__session_end(struct clu_state *state, struct clu_session *session)
{
    struct clu_node *node, *next;

    clu__change(state);
    RB_FOREACH_SAFE(node, clu_nodes, &state->nodes, next)
    {
        bool ephemeral = node->session == session->id, locked = node->lock_session == session->id;

        if (!ephemeral && !locked)
            continue;
        clu__path_changed(state, node->path);
        node->version = state->version;
        if (locked)
            node->lock_session = 0;
        if (ephemeral && node->lock_session == 0)
            clu__node_remove(state, node);
        else if (ephemeral)
            node->session = 0; /* another session holds its lock: it stays, as an ordinary node */
    }
    RB_REMOVE(clu_sessions, &state->sessions, session);
    state->session_count--;
    free(session->owner);
    free(session);
}

bool clu__session_of_run(const struct clu_session *session, struct base_bytes run)
{
    const char *hash = strrchr(session->owner, '#');

    return run.len > 0 && hash && base_bytes_eq_str(run, hash + 1);
}

static void close_session(struct clu_state *state, const CLU_PB(CloseSessionRequest) * request,
                          struct clu__result *result)
{
    struct clu_session *session = clu__session_find(state, request->session);

    if (session) /* else it ended before: the same outcome */
        clu__session_end(state, session);
}

static void acquire(struct clu_state *state, const CLU_PB(AcquireRequest) * request,
                    struct clu__result *result)
{
    const char *path = clu_str(result->arena, request->path);
    struct clu_node *node = clu__node_find(state, path);

    if (!clu__session_find(state, request->session)) {
        clu__fail(result, BASE_NOT_FOUND, "session %" PRIu64 " has ended", request->session);
    } else if (node && node->lock_session == request->session) {
        result->number = node->lock_epoch;
    } else if (node && node->lock_session != 0) {
        /* Who proposed it waits and tries again. */
        clu__fail(result, BASE_ABORTED, "%s is locked by session %" PRIu64, path,
                  node->lock_session);
    } else if (node && node->task) {
        clu__fail(result, BASE_PERMISSION_DENIED, "%s is a task's endpoint: it cannot be locked",
                  path);
    } else if (!node && state->node_count >= CLU_NODES_MAX) {
        clu__fail(result, BASE_RESOURCE_EXHAUSTED, "the name space is full (%d nodes)",
                  CLU_NODES_MAX);
    } else {
        if (!node)
            node = clu__node_make(state, path);
        node->lock_session = request->session;
        node->lock_epoch = node->version = result->number = clu__change(state);
        base_buf_clear(&node->value);
        base_buf_put_bytes(&node->value, ch_bytes_of(request->value));
        clu__path_changed(state, path);
    }
}

/* Epoch 0: whatever epoch the session holds it under. What is not held so is left alone, and that
 * is what was asked for. */
static void release(struct clu_state *state, const CLU_PB(ReleaseRequest) * request,
                    struct clu__result *result)
{
    const char *path = clu_str(result->arena, request->path);
    struct clu_node *node = clu__node_find(state, path);

    if (!node || node->lock_session == 0 || node->lock_session != request->session ||
        (request->epoch != 0 && request->epoch != node->lock_epoch))
        return;
    node->lock_session = 0;
    node->version = clu__change(state);
    clu__path_changed(state, path);
}

/* A node that is not there (erased before, by a call whose answer was lost) gets no new one, but
 * the epoch given out is greater than any it ever had, and any it will have is greater still. */
static void break_lock(struct clu_state *state, const CLU_PB(BreakRequest) * request,
                       struct clu__result *result)
{
    const char *path = clu_str(result->arena, request->path);
    struct clu_node *node = clu__node_find(state, path);

    if (node && node->lock_session != 0) {
        clu__fail(result, BASE_FAILED_PRECONDITION,
                  "%s is held by session %" PRIu64 ", which lives", path, node->lock_session);
        return;
    }
    if (node && node->task) {
        clu__fail(result, BASE_PERMISSION_DENIED, "%s is a task's endpoint, not a lock", path);
        return;
    }
    result->number = clu__change(state);
    if (!node)
        return;
    node->lock_epoch = node->version = result->number;
    clu__path_changed(state, path);
    if (request->erase)
        clu__node_remove(state, node);
}

bool clu__apply_names(struct clu_state *state, const CLU_PB(Command) * command,
                      struct clu__result *result)
{
    switch (command->what_case) {
    case STRATA__CLUSTERMGR__V1__COMMAND__WHAT_SET:
        set(state, command->set, result);
        return true;
    case STRATA__CLUSTERMGR__V1__COMMAND__WHAT_DELETE:
        delete_node(state, command->delete_, result);
        return true;
    case STRATA__CLUSTERMGR__V1__COMMAND__WHAT_OPEN_SESSION:
        open_session(state, command->open_session, result);
        return true;
    case STRATA__CLUSTERMGR__V1__COMMAND__WHAT_CLOSE_SESSION:
        close_session(state, command->close_session, result);
        return true;
    case STRATA__CLUSTERMGR__V1__COMMAND__WHAT_ACQUIRE:
        acquire(state, command->acquire, result);
        return true;
    case STRATA__CLUSTERMGR__V1__COMMAND__WHAT_RELEASE:
        release(state, command->release, result);
        return true;
    case STRATA__CLUSTERMGR__V1__COMMAND__WHAT_BREAK:
        break_lock(state, command->break_, result);
        return true;
    default:
        return false;
    }
}
