/* names_double.c: see names_double.h. */
#include "names_double.h"

#include <stdlib.h>

#include <bsd/sys/queue.h>

#include "strata/clustermgr/v1/names.pb-c.h"
#include "strata/clustermgr/v1/names.strata.h"

#define PB(name) Strata__Clustermgr__V1__##name
#define NEW(arena, Type, prefix) \
    CH_MESSAGE(arena, Strata__Clustermgr__V1__##Type, strata__clustermgr__v1__##prefix)

struct session {
    TAILQ_ENTRY(session) link;
    uint64_t id;
    ch_time until, lease;
};

struct node {
    TAILQ_ENTRY(node) link;
    char *path;
    struct base_buf value;
    uint64_t version, ephemeral, epoch, holder;
    bool unhealthy;
};

struct names_double {
    struct ch_env *env;
    struct ch_server *server;
    struct ch_gate gate;
    struct ch_cond changed;
    TAILQ_HEAD(, session) sessions;
    TAILQ_HEAD(, node) nodes; /* by path */
    uint64_t version, last_session;
    bool stopping;
};

struct names_double *names_double_new(void)
{
    struct names_double *names = calloc(1, sizeof(*names));
    TAILQ_INIT(&names->sessions);
    TAILQ_INIT(&names->nodes);
    ch_cond_init(&names->changed);
    return names;
}

static void node_free(struct names_double *names, struct node *node)
{
    TAILQ_REMOVE(&names->nodes, node, link);
    base_buf_free(&node->value);
    free(node->path);
    free(node);
}

void names_double_free(struct names_double *names)
{
    while (!TAILQ_EMPTY(&names->nodes))
        node_free(names, TAILQ_FIRST(&names->nodes));
    struct session *session;
    while ((session = TAILQ_FIRST(&names->sessions))) {
        TAILQ_REMOVE(&names->sessions, session, link);
        free(session);
    }
    free(names);
}

static struct node *node_at(struct names_double *names, struct base_bytes path, bool make)
{
    struct node *node;
    TAILQ_FOREACH(node, &names->nodes, link)
    {
        int order = base_bytes_cmp(path, base_bytes_str(node->path));
        if (order == 0)
            return node;
        if (order < 0)
            break;
    }
    if (!make)
        return NULL;
    struct node *fresh = calloc(1, sizeof(*fresh));
    fresh->path = strndup((const char *)path.data, path.len);
    if (node)
        TAILQ_INSERT_BEFORE(node, fresh, link);
    else
        TAILQ_INSERT_TAIL(&names->nodes, fresh, link);
    return fresh;
}

static void touch(struct names_double *names, struct node *node)
{
    names->version++;
    if (node)
        node->version = names->version;
    ch_cond_broadcast(&names->changed);
}

static struct session *session_of(struct names_double *names, uint64_t id)
{
    struct session *session;
    TAILQ_FOREACH(session, &names->sessions, link)
    if (session->id == id)
        return session;
    return NULL;
}

static void session_end(struct names_double *names, struct session *session)
{
    struct node *node, *next;
    for (node = TAILQ_FIRST(&names->nodes); node; node = next) {
        next = TAILQ_NEXT(node, link);
        if (node->holder == session->id) {
            node->holder = 0;
            touch(names, node);
        }
        if (node->ephemeral == session->id) {
            node_free(names, node);
            touch(names, NULL);
        }
    }
    TAILQ_REMOVE(&names->sessions, session, link);
    free(session);
}

static void reap(void *arg)
{
    CH_FIBER_ENTRY();
    struct names_double *names = arg;
    while (ch_sleep_until(names->env, ch_in(names->env, 50 * CH_MS)) != CH_CANCELLED) {
        struct session *session, *next;
        for (session = TAILQ_FIRST(&names->sessions); session; session = next) {
            next = TAILQ_NEXT(session, link);
            if (session->until < ch_now(names->env))
                session_end(names, session);
        }
    }
}

static void put_nodes(struct names_double *names, struct base_bytes prefix,
                      struct base_arena *arena, PB(Node) * **out, size_t *count)
{
    struct node *node;
    *count = 0;
    TAILQ_FOREACH(node, &names->nodes, link)
    ++*count;
    *out = BASE_NEW_ARRAY(arena, PB(Node) *, *count);
    *count = 0;
    TAILQ_FOREACH(node, &names->nodes, link)
    {
        struct base_bytes path = base_bytes_str(node->path);
        if (!base_bytes_starts_with(path, prefix) ||
            (path.len > prefix.len && path.data[prefix.len] != '/'))
            continue;
        PB(Node) *entry = NEW(arena, Node, node);
        entry->path = ch_data_str(base_arena_strdup(arena, node->path));
        entry->value = ch_data_of(base_bytes_dup(arena, base_buf_bytes(&node->value)));
        entry->version = node->version;
        entry->session = node->ephemeral;
        entry->lock_epoch = node->epoch;
        entry->lock_session = node->holder;
        entry->unhealthy = node->unhealthy;
        (*out)[(*count)++] = entry;
    }
}

static struct base_status list(void *self, struct ch_call *call, const void *message, void **reply)
{
    struct names_double *names = self;
    const PB(ListRequest) *request = message;
    PB(ListReply) *answer = NEW(ch_call_arena(call), ListReply, list_reply);
    put_nodes(names, ch_bytes_of(request->prefix), ch_call_arena(call), &answer->nodes,
              &answer->n_nodes);
    answer->version = names->version;
    *reply = answer;
    return BASE_STATUS_OK;
}

static struct base_status watch(void *self, struct ch_call *call) CH_WAITS;
static struct base_status watch(void *self, struct ch_call *call)
{
    struct names_double *names = self;
    void *message;
    struct base_status status = ch_call_recv(call, NULL, &message);
    struct base_arena arena;
    base_arena_init(&arena);
    while (!base_failed(status) && !names->stopping) {
        const PB(WatchRequest) *request = message;
        PB(WatchEvent) *event = NEW(&arena, WatchEvent, watch_event);
        uint64_t version = names->version;
        event->full = true;
        event->version = version;
        put_nodes(names, ch_bytes_of(request->prefix), &arena, &event->nodes, &event->n_nodes);
        status = ch_call_send(call, event);
        base_arena_reset(&arena);
        ch_time heartbeat = ch_in(names->env, 3 * CH_S);
        while (!base_failed(status) && !names->stopping && version == names->version) {
            enum ch_outcome outcome = ch_cond_wait(&names->changed, heartbeat);
            if (outcome == CH_TIMEOUT)
                break;
            if (outcome != CH_OK)
                status = ch_outcome_status(outcome, "watch");
        }
    }
    base_arena_free(&arena);
    return status;
}

static struct base_status set(void *self, struct ch_call *call, const void *message, void **reply)
{
    struct names_double *names = self;
    const PB(SetRequest) *request = message;
    struct node *node = node_at(names, ch_bytes_of(request->path), false);
    if (request->expected_version >= 0 &&
        (uint64_t)request->expected_version != (node ? node->version : 0))
        return base_status_make(BASE_FAILED_PRECONDITION, "version is another");
    node = node_at(names, ch_bytes_of(request->path), true);
    base_buf_clear(&node->value);
    base_buf_put_bytes(&node->value, ch_bytes_of(request->value));
    node->ephemeral = request->session;
    touch(names, node);
    PB(SetReply) *answer = NEW(ch_call_arena(call), SetReply, set_reply);
    answer->version = node->version;
    *reply = answer;
    return BASE_STATUS_OK;
}

static struct base_status open_session(void *self, struct ch_call *call, const void *message,
                                       void **reply)
{
    struct names_double *names = self;
    const PB(OpenSessionRequest) *request = message;
    struct session *session = calloc(1, sizeof(*session));
    session->id = ++names->last_session;
    session->lease = request->lease_ms * CH_MS;
    session->until = ch_in(names->env, session->lease);
    TAILQ_INSERT_TAIL(&names->sessions, session, link);
    PB(OpenSessionReply) *answer = NEW(ch_call_arena(call), OpenSessionReply, open_session_reply);
    answer->session = session->id;
    answer->lease_ms = request->lease_ms;
    *reply = answer;
    return BASE_STATUS_OK;
}

static struct base_status keep_alive(void *self, struct ch_call *call, const void *message,
                                     void **reply)
{
    struct names_double *names = self;
    struct session *session = session_of(names, ((const PB(KeepAliveRequest) *)message)->session);
    if (!session)
        return base_status_make(BASE_NOT_FOUND, "the session has ended");
    session->until = ch_in(names->env, session->lease);
    PB(KeepAliveReply) *answer = NEW(ch_call_arena(call), KeepAliveReply, keep_alive_reply);
    answer->lease_ms = (uint32_t)(session->lease / CH_MS);
    *reply = answer;
    return BASE_STATUS_OK;
}

static struct base_status close_session(void *self, struct ch_call *call, const void *message,
                                        void **reply)
{
    struct names_double *names = self;
    struct session *session =
        session_of(names, ((const PB(CloseSessionRequest) *)message)->session);
    if (session)
        session_end(names, session);
    *reply = NEW(ch_call_arena(call), CloseSessionReply, close_session_reply);
    return BASE_STATUS_OK;
}

static struct base_status acquire(void *self, struct ch_call *call, const void *message,
                                  void **reply) CH_WAITS;
static struct base_status acquire(void *self, struct ch_call *call, const void *message,
                                  void **reply)
{
    struct names_double *names = self;
    const PB(AcquireRequest) *request = message;
    for (;;) {
        if (!session_of(names, request->session))
            return base_status_make(BASE_NOT_FOUND, "the session has ended");
        struct node *node = node_at(names, ch_bytes_of(request->path), true);
        if (!node->holder) {
            node->holder = request->session;
            node->epoch++;
            base_buf_clear(&node->value);
            base_buf_put_bytes(&node->value, ch_bytes_of(request->value));
            touch(names, node);
        }
        if (node->holder == request->session) {
            PB(AcquireReply) *answer = NEW(ch_call_arena(call), AcquireReply, acquire_reply);
            answer->epoch = node->epoch;
            *reply = answer;
            return BASE_STATUS_OK;
        }
        enum ch_outcome outcome =
            ch_cond_wait(&names->changed, ch_call_deadline(call) - 10 * CH_MS);
        if (outcome != CH_OK)
            return ch_outcome_status(outcome, "the lock is held");
        if (names->stopping)
            return base_status_make(BASE_UNAVAILABLE, "stopping");
    }
}

static struct base_status release(void *self, struct ch_call *call, const void *message,
                                  void **reply)
{
    struct names_double *names = self;
    const PB(ReleaseRequest) *request = message;
    struct node *node = node_at(names, ch_bytes_of(request->path), false);
    if (node && node->holder == request->session && node->epoch == request->epoch) {
        node->holder = 0;
        touch(names, node);
    }
    *reply = NEW(ch_call_arena(call), ReleaseReply, release_reply);
    return BASE_STATUS_OK;
}

static struct base_status break_lock(void *self, struct ch_call *call, const void *message,
                                     void **reply)
{
    struct names_double *names = self;
    const PB(BreakRequest) *request = message;
    struct node *node = node_at(names, ch_bytes_of(request->path), true);
    if (node->holder)
        return base_status_make(BASE_FAILED_PRECONDITION, "the lock is held");
    node->epoch++;
    touch(names, node);
    PB(BreakReply) *answer = NEW(ch_call_arena(call), BreakReply, break_reply);
    answer->epoch = node->epoch;
    *reply = answer;
    return BASE_STATUS_OK;
}

struct base_status names_double_start(struct names_double *names, struct ch_env *env,
                                      const char *address)
{
    const struct ch_method *methods = strata__clustermgr__v1__names__service.methods;
    struct ch_server_options options = { .address = address };
    names->env = env;
    names->stopping = false;
    ch_gate_init(&names->gate, env, "names double");
    struct base_status status = ch_server_new(env, &options, &names->server);
    if (base_failed(status))
        return status;
    ch_server_add_service(names->server, &strata__clustermgr__v1__names__service);
    ch_server_handle(names->server, &methods[STRATA__CLUSTERMGR__V1__NAMES__LIST], list, names);
    ch_server_handle_stream(names->server, &methods[STRATA__CLUSTERMGR__V1__NAMES__WATCH], watch,
                            names);
    ch_server_handle(names->server, &methods[STRATA__CLUSTERMGR__V1__NAMES__SET], set, names);
    ch_server_handle(names->server, &methods[STRATA__CLUSTERMGR__V1__NAMES__OPEN_SESSION],
                     open_session, names);
    ch_server_handle(names->server, &methods[STRATA__CLUSTERMGR__V1__NAMES__KEEP_ALIVE], keep_alive,
                     names);
    ch_server_handle(names->server, &methods[STRATA__CLUSTERMGR__V1__NAMES__CLOSE_SESSION],
                     close_session, names);
    ch_server_handle(names->server, &methods[STRATA__CLUSTERMGR__V1__NAMES__ACQUIRE], acquire,
                     names);
    ch_server_handle(names->server, &methods[STRATA__CLUSTERMGR__V1__NAMES__RELEASE], release,
                     names);
    ch_server_handle(names->server, &methods[STRATA__CLUSTERMGR__V1__NAMES__BREAK], break_lock,
                     names);
    status = ch_server_start(names->server);
    if (!base_failed(status)) {
        ch_server_set_serving(names->server, true);
        status = ch_gate_spawn(&names->gate, "reaper", reap, names);
    }
    return status;
}

void names_double_stop(struct names_double *names)
{
    names->stopping = true;
    ch_cond_broadcast(&names->changed);
    ch_server_stop(names->server, ch_in(names->env, CH_S));
    ch_gate_stop(&names->gate);
}

void names_double_publish(struct names_double *names, const char *path, const char *value,
                          bool healthy)
{
    struct node *node = node_at(names, base_bytes_str(path), true);
    base_buf_clear(&node->value);
    base_buf_put_str(&node->value, value);
    node->unhealthy = !healthy;
    touch(names, node);
}

uint64_t names_double_lock(struct names_double *names, const char *path, const char **value)
{
    struct node *node = node_at(names, base_bytes_str(path), false);
    *value = NULL;
    if (!node || !node->epoch)
        return 0;
    if (node->holder) {
        base_buf_reserve(&node->value, 1);
        node->value.data[node->value.len] = 0;
        *value = (const char *)node->value.data;
    }
    return node->epoch;
}

void names_double_steal(struct names_double *names, const char *path)
{
    struct node *node = node_at(names, base_bytes_str(path), false);
    if (node && node->holder) {
        node->holder = 0;
        touch(names, node);
    }
}
