/* names.c: strata.clustermgr.v1.Names. Requests are checked here, then proposed; reads look at
 * the state after the log's read barrier. Watches and waiting lockers sleep on the master's
 * `changed` and re-read the state after each wake: nothing is kept across a wait but a version
 * number. */
#include <inttypes.h>

#include "master.h"

/* ---- checks ---- */

static bool path_ok(struct base_bytes path, bool prefix)
{
    if (prefix && (path.len == 0 || base_bytes_eq_str(path, "/")))
        return true;
    if (path.len < 2 || path.len > CLU_PATH_MAX || path.data[0] != '/' ||
        path.data[path.len - 1] == '/')
        return false;
    for (size_t i = 0; i < path.len; i++) {
        if (path.data[i] <= ' ' || path.data[i] >= 0x7f)
            return false;
        if (path.data[i] == '/' && path.data[i - (i > 0)] == '/' && i > 0)
            return false;
    }
    return true;
}

static struct base_status path_check(struct base_arena *arena, struct base_bytes path)
{
    if (path_ok(path, false))
        return BASE_STATUS_OK;
    return base_status_make(BASE_INVALID_ARGUMENT,
                            "path \"%s\": must begin with /, have no empty part, and be at most %d "
                            "printable ASCII characters",
                            base_bytes_show(arena, path, 64), CLU_PATH_MAX);
}

static struct base_status prefix_check(struct base_arena *arena, struct base_bytes prefix)
{
    return path_ok(prefix, true) ? BASE_STATUS_OK
                                 : base_status_wrap(path_check(arena, prefix), "prefix");
}

static struct base_status value_check(struct base_bytes value)
{
    if (value.len <= CLU_VALUE_MAX)
        return BASE_STATUS_OK;
    return base_status_make(BASE_INVALID_ARGUMENT, "value: %zu bytes, at most %d", value.len,
                            CLU_VALUE_MAX);
}

static struct base_status version_check(int64_t version)
{
    if (version >= -1)
        return BASE_STATUS_OK;
    return base_status_make(BASE_INVALID_ARGUMENT,
                            "expected_version: %" PRId64 " is below -1 (any)", version);
}

/* ---- reading ---- */

static CLU_PB(Node) * node_message(const struct clu_node *node, struct base_arena *arena)
{
    CLU_PB(Node) *out = CLU_NEW(arena, Node, node);

    out->path = ch_data_str(base_arena_strdup(arena, node->path));
    out->value = ch_data_of(base_bytes_dup(arena, base_buf_bytes(&node->value)));
    out->version = node->version;
    out->session = node->session;
    out->lock_epoch = node->lock_epoch;
    out->lock_session = node->lock_session;
    out->unhealthy = node->unhealthy;
    return out;
}

/* All nodes at or below, in order of paths. */
static CLU_PB(Node) * *nodes_below(struct clu_master *master, const char *prefix,
                                   struct base_arena *arena, size_t *count)
{
    bool all = strcmp(prefix, "/") == 0;
    struct clu_node *first = clu__node_from(master->state, all ? "" : prefix), *node;
    size_t len = all ? 0 : strlen(prefix);
    CLU_PB(Node) * *nodes;

    *count = 0;
    for (node = first; node && strncmp(node->path, prefix, len) == 0; node = clu__node_next(node))
        *count += clu__path_below(node->path, prefix);
    nodes = BASE_NEW_ARRAY(arena, CLU_PB(Node) *, *count + 1);
    *count = 0;
    for (node = first; node && strncmp(node->path, prefix, len) == 0; node = clu__node_next(node))
        if (clu__path_below(node->path, prefix))
            nodes[(*count)++] = node_message(node, arena);
    return nodes;
}

static CH_WAITS struct base_status list(void *self, struct ch_call *call, const void *message,
                                        void **out)
{
    struct clu_master *master = self;
    const CLU_PB(ListRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    CLU_PB(ListReply) *reply = CLU_NEW(arena, ListReply, list_reply);
    struct base_status status = prefix_check(arena, ch_bytes_of(request->prefix));

    if (!base_failed(status))
        status = clu__barrier(master, call);
    if (base_failed(status))
        return status;
    reply->nodes = nodes_below(master, clu_str(arena, request->prefix), arena, &reply->n_nodes);
    reply->version = master->state->version;
    *out = reply;
    return BASE_STATUS_OK;
}

/* What changed at or below the prefix after version `last`, each path once, in order of version. */
static void changes_collect(const struct clu_state *state, const char *prefix, uint64_t last,
                            struct base_arena *arena, CLU_PB(WatchEvent) * event)
{
    size_t skip = state->change_count;

    while (skip > 0 &&
           state->changes[(state->change_head + skip - 1) % CLU_CHANGES_MAX].version > last)
        skip--;
    event->nodes = BASE_NEW_ARRAY(arena, CLU_PB(Node) *, state->change_count - skip + 1);
    event->deleted = BASE_NEW_ARRAY(arena, ProtobufCBinaryData, state->change_count - skip + 1);
    for (size_t i = skip; i < state->change_count; i++) {
        const struct clu_change *change =
            &state->changes[(state->change_head + i) % CLU_CHANGES_MAX];
        const struct clu_node *node;

        if (!clu__path_below(change->path, prefix))
            continue;
        node = clu__node_find(state, change->path);
        if (!node)
            event->deleted[event->n_deleted++] =
                ch_data_str(base_arena_strdup(arena, change->path));
        else if (node->version == change->version) /* else a later change of it follows */
            event->nodes[event->n_nodes++] = node_message(node, arena);
    }
}

static CH_WAITS struct base_status watch(void *self, struct ch_call *call)
{
    struct clu_master *master = self;
    const struct clu_state *state = master->state;
    struct base_arena *call_arena = ch_call_arena(call), arena;
    CLU_PB(WatchRequest) *request = NULL;
    const char *prefix;
    uint64_t last = 0, term;
    bool full = true;
    ch_time heartbeat;
    struct base_status status = ch_call_recv(call, NULL, (void **)&request);

    if (base_failed(status))
        return status;
    if (!request)
        return base_status_make(BASE_INVALID_ARGUMENT, "Watch takes one request");
    status = prefix_check(call_arena, ch_bytes_of(request->prefix));
    if (!base_failed(status))
        status = clu__barrier(master, call);
    prefix = clu_str(call_arena, request->prefix);
    heartbeat = 0;
    term = master->term;
    base_arena_init(&arena);
    while (!base_failed(status) && !clu__stopping(master) && master->term == term) {
        CLU_PB(WatchEvent) event;

        base_arena_reset(&arena);
        strata__clustermgr__v1__watch_event__init(&event);
        event.version = state->version;
        event.full = full || last < state->changes_since;
        if (event.full)
            event.nodes = nodes_below(master, prefix, &arena, &event.n_nodes);
        else if (state->version > last)
            changes_collect(state, prefix, last, &arena, &event);
        last = state->version;
        if (event.full || event.n_nodes > 0 || event.n_deleted > 0 ||
            ch_now(master->env) >= heartbeat) {
            status = ch_call_send(call, &event);
            heartbeat = ch_in(master->env, CLU_WATCH_HEARTBEAT_MS * CH_MS);
            full = false;
        }
        while (!base_failed(status) && state->version == last && !clu__stopping(master) &&
               master->term == term && ch_now(master->env) < heartbeat) {
            if (clu__changed_wait(master, heartbeat) == CH_CANCELLED)
                status = ch_outcome_status(CH_CANCELLED, "watch");
        }
    }
    base_arena_free(&arena);
    if (!base_failed(status))
        status = master->term == term
                     ? base_status_make(BASE_UNAVAILABLE, "the clustermaster stops")
                     : clu__not_leader(master);
    return status;
}

/* ---- writing ---- */

#define COMMAND(arena, WHAT, field, request)                                \
    ({                                                                      \
        CLU_PB(Command) *command_ = CLU_NEW((arena), Command, command);     \
        command_->what_case = STRATA__CLUSTERMGR__V1__COMMAND__WHAT_##WHAT; \
        command_->field = (void *)(request);                                \
        command_;                                                           \
    })

static CH_WAITS struct base_status set(void *self, struct ch_call *call, const void *message,
                                       void **out)
{
    struct clu_master *master = self;
    const CLU_PB(SetRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    CLU_PB(SetReply) *reply = CLU_NEW(arena, SetReply, set_reply);
    CLU_PB(CommandReply) *done = NULL;
    struct base_status status = path_check(arena, ch_bytes_of(request->path));

    if (!base_failed(status))
        status = value_check(ch_bytes_of(request->value));
    if (!base_failed(status))
        status = version_check(request->expected_version);
    if (!base_failed(status))
        status = clu__propose(master, COMMAND(arena, SET, set, request),
                              clu__propose_deadline(master, call), arena, &done);
    if (base_failed(status))
        return status;
    reply->version = done->number;
    *out = reply;
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status delete_node(void *self, struct ch_call *call,
                                               const void *message, void **out)
{
    struct clu_master *master = self;
    const CLU_PB(DeleteRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    CLU_PB(DeleteReply) *reply = CLU_NEW(arena, DeleteReply, delete_reply);
    CLU_PB(CommandReply) *done = NULL;
    struct base_status status = path_check(arena, ch_bytes_of(request->path));

    if (!base_failed(status))
        status = version_check(request->expected_version);
    if (!base_failed(status))
        status = clu__propose(master, COMMAND(arena, DELETE, delete_, request),
                              clu__propose_deadline(master, call), arena, &done);
    if (base_failed(status))
        return status;
    reply->version = done->number;
    *out = reply;
    return BASE_STATUS_OK;
}

/* ---- sessions ---- */

static CH_WAITS struct base_status open_session(void *self, struct ch_call *call,
                                                const void *message, void **out)
{
    struct clu_master *master = self;
    const CLU_PB(OpenSessionRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    CLU_PB(OpenSessionRequest) *wanted = CLU_NEW(arena, OpenSessionRequest, open_session_request);
    CLU_PB(OpenSessionReply) *reply = CLU_NEW(arena, OpenSessionReply, open_session_reply);
    CLU_PB(CommandReply) *done = NULL;
    struct base_status status;

    if (request->owner.len > CLU_PATH_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "owner: %zu bytes, at most %d",
                                request->owner.len, CLU_PATH_MAX);
    wanted->owner = request->owner;
    wanted->lease_ms = request->lease_ms ? request->lease_ms : CLU_LEASE_MS_DEFAULT;
    if (wanted->lease_ms < CLU_LEASE_MS_MIN)
        wanted->lease_ms = CLU_LEASE_MS_MIN;
    if (wanted->lease_ms > CLU_LEASE_MS_MAX)
        wanted->lease_ms = CLU_LEASE_MS_MAX;
    status = clu__propose(master, COMMAND(arena, OPEN_SESSION, open_session, wanted),
                          clu__propose_deadline(master, call), arena, &done);
    if (base_failed(status))
        return status;
    if (!clu__lease_extend(master, done->number))
        return base_status_make(BASE_UNAVAILABLE, "session %" PRIu64 " ended at once",
                                done->number);
    reply->session = done->number;
    reply->lease_ms = wanted->lease_ms;
    *out = reply;
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status keep_alive(void *self, struct ch_call *call, const void *message,
                                              void **out)
{
    struct clu_master *master = self;
    const CLU_PB(KeepAliveRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    CLU_PB(KeepAliveReply) *reply = CLU_NEW(arena, KeepAliveReply, keep_alive_reply);
    struct base_status status = clu__barrier(master, call);

    if (base_failed(status))
        return status;
    if (!clu__lease_extend(master, request->session))
        return base_status_make(BASE_NOT_FOUND, "session %" PRIu64 " has ended", request->session);
    reply->lease_ms = clu__session_find(master->state, request->session)->lease_ms;
    *out = reply;
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status close_session(void *self, struct ch_call *call,
                                                 const void *message, void **out)
{
    struct clu_master *master = self;
    struct base_arena *arena = ch_call_arena(call);
    CLU_PB(CommandReply) *done = NULL;
    struct base_status status =
        clu__propose(master, COMMAND(arena, CLOSE_SESSION, close_session, message),
                     clu__propose_deadline(master, call), arena, &done);

    *out = CLU_NEW(arena, CloseSessionReply, close_session_reply);
    return status;
}

/* ---- locks ---- */

static CH_WAITS struct base_status acquire(void *self, struct ch_call *call, const void *message,
                                           void **out)
{
    struct clu_master *master = self;
    const CLU_PB(AcquireRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    const char *path = clu_str(arena, request->path);
    CLU_PB(AcquireReply) *reply = CLU_NEW(arena, AcquireReply, acquire_reply);
    CLU_PB(CommandReply) *done = NULL;
    uint64_t term;
    struct base_status status = path_check(arena, ch_bytes_of(request->path));

    if (!base_failed(status))
        status = value_check(ch_bytes_of(request->value));
    if (!base_failed(status))
        status = clu__barrier(master, call);
    term = master->term;
    while (!base_failed(status)) {
        const struct clu_session *session = clu__session_find(master->state, request->session);
        const struct clu_node *node = clu__node_find(master->state, path);
        uint64_t holder = node ? node->lock_session : 0;

        if (!session || session->ending)
            return base_status_make(BASE_NOT_FOUND, "session %" PRIu64 " has ended",
                                    request->session);
        if (holder == 0 || holder == request->session) {
            status = clu__propose(master, COMMAND(arena, ACQUIRE, acquire, request),
                                  clu__propose_deadline(master, call), arena, &done);
            if (status.code != BASE_ABORTED)
                break;
            base_status_free(&status); /* another was faster */
            continue;
        }
        if (clu__changed_wait(master, ch_call_deadline(call)) == CH_CANCELLED)
            status = base_status_make(
                BASE_CANCELLED, "waiting for lock %s, held by session %" PRIu64, path, holder);
        else if (ch_now(master->env) >= ch_call_deadline(call))
            status = base_status_make(BASE_DEADLINE_EXCEEDED, "lock %s is held by session %" PRIu64,
                                      path, holder);
        else if (master->term != term) /* nothing of this state is known to be so any more */
            status = clu__not_leader(master);
        else if (clu__stopping(master))
            status = base_status_make(BASE_UNAVAILABLE, "the clustermaster stops");
    }
    if (base_failed(status))
        return status;
    reply->epoch = done->number;
    *out = reply;
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status release(void *self, struct ch_call *call, const void *message,
                                           void **out)
{
    struct clu_master *master = self;
    const CLU_PB(ReleaseRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    CLU_PB(CommandReply) *done = NULL;
    struct base_status status = path_check(arena, ch_bytes_of(request->path));

    *out = CLU_NEW(arena, ReleaseReply, release_reply);
    if (base_failed(status))
        return status;
    return clu__propose(master, COMMAND(arena, RELEASE, release, request),
                        clu__propose_deadline(master, call), arena, &done);
}

static CH_WAITS struct base_status break_lock(void *self, struct ch_call *call, const void *message,
                                              void **out)
{
    struct clu_master *master = self;
    const CLU_PB(BreakRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    CLU_PB(BreakReply) *reply = CLU_NEW(arena, BreakReply, break_reply);
    CLU_PB(CommandReply) *done = NULL;
    struct base_status status = path_check(arena, ch_bytes_of(request->path));

    if (!base_failed(status))
        status = clu__propose(master, COMMAND(arena, BREAK, break_, request),
                              clu__propose_deadline(master, call), arena, &done);
    if (base_failed(status))
        return status;
    reply->epoch = done->number;
    *out = reply;
    return BASE_STATUS_OK;
}

void clu__names_serve(struct clu_master *master, struct ch_server *server)
{
    static const struct {
        int method;
        ch_unary_fn *fn;
    } methods[] = {
        { STRATA__CLUSTERMGR__V1__NAMES__LIST, list },
        { STRATA__CLUSTERMGR__V1__NAMES__SET, set },
        { STRATA__CLUSTERMGR__V1__NAMES__DELETE, delete_node },
        { STRATA__CLUSTERMGR__V1__NAMES__OPEN_SESSION, open_session },
        { STRATA__CLUSTERMGR__V1__NAMES__KEEP_ALIVE, keep_alive },
        { STRATA__CLUSTERMGR__V1__NAMES__CLOSE_SESSION, close_session },
        { STRATA__CLUSTERMGR__V1__NAMES__ACQUIRE, acquire },
        { STRATA__CLUSTERMGR__V1__NAMES__RELEASE, release },
        { STRATA__CLUSTERMGR__V1__NAMES__BREAK, break_lock },
    };

    ch_server_add_service(server, &strata__clustermgr__v1__names__service);
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        ch_server_handle(server, &strata__clustermgr__v1__names__service.methods[methods[i].method],
                         methods[i].fn, master);
    ch_server_handle_stream(
        server,
        &strata__clustermgr__v1__names__service.methods[STRATA__CLUSTERMGR__V1__NAMES__WATCH],
        watch, master);
}
