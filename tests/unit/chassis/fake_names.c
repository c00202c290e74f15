/* fake_names.c: see fake_names.h. */
#include "fake_names.h"

#include <stdio.h>

#include "strata/clustermgr/v1/names.pb-c.h"
#include "strata/clustermgr/v1/names.strata.h"

#define PB(name) Strata__Clustermgr__V1__##name
static const ch_time POLL = 5 * CH_MS;
static const ch_time HEARTBEAT = 3 * CH_S;

struct fake_node *fake_node_find(struct fake_names *names, const char *path)
{
    for (size_t i = 0; i < FAKE_NODES_MAX; i++)
        if (strcmp(names->nodes[i].path, path) == 0)
            return &names->nodes[i];
    return NULL;
}

static struct fake_node *node_make(struct fake_names *names, struct base_bytes path)
{
    char text[64];
    snprintf(text, sizeof(text), "%.*s", BASE_FMT(path));
    struct fake_node *node = fake_node_find(names, text);
    if (!node) {
        node = fake_node_find(names, "");
        BASE_ASSERT(node);
        strcpy(node->path, text);
    }
    return node;
}

static struct fake_session *session_find(struct fake_names *names, uint64_t id)
{
    for (size_t i = 0; id && i < FAKE_SESSIONS_MAX; i++)
        if (names->sessions[i].id == id)
            return &names->sessions[i];
    return NULL;
}

static void session_end(struct fake_names *names, uint64_t id)
{
    struct fake_session *session = session_find(names, id);
    if (!session)
        return;
    session->id = 0;
    for (size_t i = 0; i < FAKE_NODES_MAX; i++) {
        struct fake_node *node = &names->nodes[i];
        if (node->holder == id) {
            node->holder = 0;
            node->version = ++names->version;
        }
        if (node->owner == id) {
            node->owner = 0;
            node->version = 0; /* not there */
            names->version++;
        }
    }
}

static void leases_look(struct fake_member *member)
{
    for (size_t i = 0; i < FAKE_SESSIONS_MAX; i++) {
        struct fake_session *session = &member->names->sessions[i];
        if (session->id && session->until <= ch_now(member->env)) {
            member->names->last_ended = session->until;
            session_end(member->names, session->id);
        }
    }
}

/* Every method begins here. */
static struct base_status leading(struct fake_member *member)
{
    struct fake_names *names = member->names;
    if (names->leader != member->index && names->hint)
        return base_status_make(BASE_FAILED_PRECONDITION, "not the leader; it is at %s",
                                names->leader_address);
    if (names->leader != member->index)
        return base_status_make(BASE_FAILED_PRECONDITION, "not the leader");
    leases_look(member);
    return BASE_STATUS_OK;
}

static bool below(const struct fake_node *node, struct base_bytes prefix)
{
    size_t len = prefix.len;
    return node->path[0] && node->version &&
           strncmp(node->path, (const char *)prefix.data, len) == 0 &&
           (node->path[len] == '\0' || node->path[len] == '/');
}

static PB(Node) * *nodes_below(struct fake_names *names, struct base_bytes prefix,
                               struct base_arena *arena, size_t *count)
{
    PB(Node) **nodes = BASE_NEW_ARRAY(arena, PB(Node) *, FAKE_NODES_MAX);
    *count = 0;
    for (size_t i = FAKE_NODES_MAX; i-- > 0;) { /* not in order: the client sorts */
        const struct fake_node *from = &names->nodes[i];
        if (!below(from, prefix))
            continue;
        PB(Node) *node = CH_MESSAGE(arena, PB(Node), strata__clustermgr__v1__node);
        node->path = ch_data_str(base_arena_strdup(arena, from->path));
        node->value = ch_data_str(base_arena_strdup(arena, from->value));
        node->version = from->version;
        node->session = from->owner;
        node->lock_epoch = from->epoch;
        node->lock_session = from->holder;
        nodes[(*count)++] = node;
    }
    return nodes;
}

static CH_WAITS struct base_status list(void *self, struct ch_call *call, const void *message,
                                        void **out)
{
    struct fake_member *member = self;
    const PB(ListRequest) *request = message;
    struct base_status status = leading(member);
    if (base_failed(status))
        return status;
    PB(ListReply) *reply =
        CH_MESSAGE(ch_call_arena(call), PB(ListReply), strata__clustermgr__v1__list_reply);
    reply->nodes = nodes_below(member->names, ch_bytes_of(request->prefix), ch_call_arena(call),
                               &reply->n_nodes);
    reply->version = member->names->version;
    *out = reply;
    return BASE_STATUS_OK;
}

/* The full state each time something changed, but only the first says so: later ones are
 * differences that happen to hold every node, and the names of those that are gone. */
static CH_WAITS struct base_status watch(void *self, struct ch_call *call)
{
    struct fake_member *member = self;
    struct fake_names *names = member->names;
    PB(WatchRequest) *request = NULL;
    struct base_status status = ch_call_recv(call, NULL, (void **)&request);
    uint64_t last = 0;
    bool full = true;
    ch_time heartbeat = 0;
    names->watches++;
    if (!base_failed(status))
        status = leading(member);
    while (!base_failed(status) && !ch_server_stopping(member->server)) {
        leases_look(member);
        if (full || names->version != last || ch_now(member->env) >= heartbeat) {
            PB(WatchEvent) event = STRATA__CLUSTERMGR__V1__WATCH_EVENT__INIT;
            struct base_arena arena = { 0 };
            event.version = last = names->version;
            event.full = full;
            event.nodes = nodes_below(names, ch_bytes_of(request->prefix), &arena, &event.n_nodes);
            event.deleted = BASE_NEW_ARRAY(&arena, ProtobufCBinaryData, FAKE_NODES_MAX);
            for (size_t i = 0; !full && i < FAKE_NODES_MAX; i++)
                if (names->nodes[i].path[0] && names->nodes[i].version == 0)
                    event.deleted[event.n_deleted++] = ch_data_str(names->nodes[i].path);
            status = ch_call_send(call, &event);
            base_arena_free(&arena);
            full = false;
            heartbeat = ch_in(member->env, HEARTBEAT);
        }
        if (!base_failed(status) &&
            ch_sleep_until(member->env, ch_in(member->env, POLL)) == CH_CANCELLED)
            return base_status_make(BASE_CANCELLED, "watch");
        if (!base_failed(status))
            status = leading(member);
    }
    return base_failed(status) ? status : base_status_make(BASE_UNAVAILABLE, "stopping");
}

static CH_WAITS struct base_status set(void *self, struct ch_call *call, const void *message,
                                       void **out)
{
    struct fake_member *member = self;
    const PB(SetRequest) *request = message;
    struct base_status status = leading(member);
    if (base_failed(status))
        return status;
    if (request->session && !session_find(member->names, request->session))
        return base_status_make(BASE_NOT_FOUND, "session has ended");
    struct fake_node *node = node_make(member->names, ch_bytes_of(request->path));
    if (request->expected_version >= 0 && (uint64_t)request->expected_version != node->version)
        return base_status_make(BASE_FAILED_PRECONDITION, "version is %d", (int)node->version);
    snprintf(node->value, sizeof(node->value), "%.*s", BASE_FMT(ch_bytes_of(request->value)));
    node->owner = request->session;
    node->version = ++member->names->version;
    PB(SetReply) *reply =
        CH_MESSAGE(ch_call_arena(call), PB(SetReply), strata__clustermgr__v1__set_reply);
    reply->version = node->version;
    *out = reply;
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status delete_node(void *self, struct ch_call *call,
                                               const void *message, void **out)
{
    struct fake_member *member = self;
    const PB(DeleteRequest) *request = message;
    struct base_status status = leading(member);
    if (base_failed(status))
        return status;
    struct fake_node *node = node_make(member->names, ch_bytes_of(request->path));
    if (node->version == 0)
        return base_status_make(BASE_NOT_FOUND, "no such node");
    node->version = 0;
    member->names->version++;
    *out = CH_MESSAGE(ch_call_arena(call), PB(DeleteReply), strata__clustermgr__v1__delete_reply);
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status open_session(void *self, struct ch_call *call,
                                                const void *message, void **out)
{
    struct fake_member *member = self;
    const PB(OpenSessionRequest) *request = message;
    struct base_status status = leading(member);
    if (base_failed(status))
        return status;
    struct fake_session *session = NULL;
    for (size_t i = 0; i < FAKE_SESSIONS_MAX && !session; i++)
        if (member->names->sessions[i].id == 0)
            session = &member->names->sessions[i];
    BASE_ASSERT(session);
    session->id = ++member->names->next_session;
    session->lease_ms = request->lease_ms;
    session->until = ch_in(member->env, session->lease_ms * CH_MS);
    PB(OpenSessionReply) *reply = CH_MESSAGE(ch_call_arena(call), PB(OpenSessionReply),
                                             strata__clustermgr__v1__open_session_reply);
    reply->session = session->id;
    reply->lease_ms = session->lease_ms;
    *out = reply;
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status keep_alive(void *self, struct ch_call *call, const void *message,
                                              void **out)
{
    struct fake_member *member = self;
    struct base_status status = leading(member);
    if (base_failed(status))
        return status;
    struct fake_session *session =
        session_find(member->names, ((const PB(KeepAliveRequest) *)message)->session);
    if (!session)
        return base_status_make(BASE_NOT_FOUND, "session has ended");
    member->names->keep_alives++;
    session->until = ch_in(member->env, session->lease_ms * CH_MS);
    *out = CH_MESSAGE(ch_call_arena(call), PB(KeepAliveReply),
                      strata__clustermgr__v1__keep_alive_reply);
    ((PB(KeepAliveReply) *)*out)->lease_ms = session->lease_ms;
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status close_session(void *self, struct ch_call *call,
                                                 const void *message, void **out)
{
    struct fake_member *member = self;
    struct base_status status = leading(member);
    if (!base_failed(status))
        session_end(member->names, ((const PB(CloseSessionRequest) *)message)->session);
    *out = CH_MESSAGE(ch_call_arena(call), PB(CloseSessionReply),
                      strata__clustermgr__v1__close_session_reply);
    return status;
}

static CH_WAITS struct base_status acquire(void *self, struct ch_call *call, const void *message,
                                           void **out)
{
    struct fake_member *member = self;
    struct fake_names *names = member->names;
    const PB(AcquireRequest) *request = message;
    struct fake_node *node;
    names->acquires++;
    for (;;) {
        struct base_status status = leading(member);
        if (base_failed(status))
            return status;
        if (!session_find(names, request->session))
            return base_status_make(BASE_NOT_FOUND, "session has ended");
        node = node_make(names, ch_bytes_of(request->path));
        if (node->holder == 0 || node->holder == request->session)
            break;
        if (ch_sleep_until(member->env, ch_in(member->env, POLL)) == CH_CANCELLED)
            return base_status_make(BASE_CANCELLED, "acquire");
    }
    if (node->holder == 0)
        node->epoch = ++names->next_epoch;
    node->holder = request->session;
    snprintf(node->value, sizeof(node->value), "%.*s", BASE_FMT(ch_bytes_of(request->value)));
    node->version = ++names->version;
    PB(AcquireReply) *reply =
        CH_MESSAGE(ch_call_arena(call), PB(AcquireReply), strata__clustermgr__v1__acquire_reply);
    reply->epoch = node->epoch;
    *out = reply;
    return BASE_STATUS_OK;
}

static CH_WAITS struct base_status release(void *self, struct ch_call *call, const void *message,
                                           void **out)
{
    struct fake_member *member = self;
    const PB(ReleaseRequest) *request = message;
    struct base_status status = leading(member);
    struct fake_node *node = node_make(member->names, ch_bytes_of(request->path));
    if (!base_failed(status) && node->holder == request->session && node->epoch == request->epoch) {
        node->holder = 0;
        node->version = ++member->names->version;
    }
    *out = CH_MESSAGE(ch_call_arena(call), PB(ReleaseReply), strata__clustermgr__v1__release_reply);
    return status;
}

static CH_WAITS struct base_status break_lock(void *self, struct ch_call *call, const void *message,
                                              void **out)
{
    struct fake_member *member = self;
    const PB(BreakRequest) *request = message;
    struct base_status status = leading(member);
    if (base_failed(status))
        return status;
    struct fake_node *node = node_make(member->names, ch_bytes_of(request->path));
    if (node->holder)
        return base_status_make(BASE_FAILED_PRECONDITION, "held by session %d", (int)node->holder);
    node->epoch = ++member->names->next_epoch;
    node->version = request->erase ? 0 : ++member->names->version;
    PB(BreakReply) *reply =
        CH_MESSAGE(ch_call_arena(call), PB(BreakReply), strata__clustermgr__v1__break_reply);
    reply->epoch = node->epoch;
    *out = reply;
    return BASE_STATUS_OK;
}

void fake_names_serve(struct fake_member *member)
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
    const struct ch_method *all = strata__clustermgr__v1__names__service.methods;
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        ch_server_handle(member->server, &all[methods[i].method], methods[i].fn, member);
    ch_server_handle_stream(member->server, &all[STRATA__CLUSTERMGR__V1__NAMES__WATCH], watch,
                            member);
}
