/* route.c: any tabletserver takes any request: what it does not own it passes on, one hop, to
 * who does (server.h).
 *
 * Invariants: 1. A request is passed on at most once: a server that gets a passed-on request for
 * a row that is not its own answers OUT_OF_RANGE and has done nothing. 2. After OUT_OF_RANGE, or
 * a failure the peer provably never saw, METADATA is asked again and the request repeated, until
 * its deadline: a move or a fail-over is a delay, not an error. 3. What the peer may have done
 * is repeated only if repeating is harmless (reads): else the caller is told, as UNAVAILABLE. */
#include <stdio.h>

#include "chassis/log.h"
#include "server.h"

enum { BACKOFF_MS_MIN = 5, BACKOFF_MS_MAX = 200 };
#define HOP_KEY "strata-tablet-hop"

bool tab_call_is_hop(const struct ch_call *call)
{
    return ch_call_metadata(call, HOP_KEY).len > 0;
}

ch_time tab_call_deadline(struct tab_server *server, const struct ch_call *call)
{
    ch_time deadline = ch_call_deadline(call), most = ch_in(server->env, TAB_CALL_TIMEOUT_S * CH_S);
    return deadline < most ? deadline : most;
}

struct ch_call_options tab_hop_options(ch_time deadline)
{
    static const struct ch_metadata hop = { HOP_KEY, { (const uint8_t *)"1", 1 } };
    return (struct ch_call_options){
        .deadline = deadline, .no_retry = true, .metadata = &hop, .metadata_count = 1
    };
}

struct base_status tab_table_name_check(struct base_bytes name)
{
    /* projects/P/instances/I/tables/T */
    static const char *const parts[] = { "projects", NULL, "instances", NULL, "tables", NULL };
    const uint8_t *at = name.data, *end = name.data + name.len;
    size_t part = 0;
    for (; part < 6 && at <= end && name.len; part++) {
        const uint8_t *slash = memchr(at, '/', (size_t)(end - at));
        size_t len = (size_t)((slash ? slash : end) - at);
        if (len == 0 || (parts[part] && !base_bytes_eq_str(base_bytes(at, len), parts[part])) ||
            (!slash && part < 5))
            break;
        at += len + 1;
    }
    if (part == 6 && at == end + 1)
        return BASE_STATUS_OK;
    struct base_arena arena = { 0 };
    struct base_status status = base_status_make(
        BASE_INVALID_ARGUMENT,
        "Invalid table name \"%s\": expected projects/<project>/instances/<instance>/"
        "tables/<table>",
        base_bytes_show(&arena, name, 200));
    base_arena_free(&arena);
    return status;
}

struct base_status tab_route_find(struct tab_server *server, struct tab_schema *schema,
                                  struct base_bytes row, bool hop, ch_time deadline,
                                  struct base_arena *arena, struct tab_tablet **tablet,
                                  struct tab_location *location)
{
    *tablet = tab_server_find(server, schema->table, row);
    if (*tablet)
        return BASE_STATUS_OK;
    if (hop)
        return base_status_make(BASE_OUT_OF_RANGE, "the row is not served here");
    struct base_status status =
        tab_metac_locate(server->store.metac, schema->table, row, deadline, arena, location);
    if (base_failed(status))
        return status;
    if (strcmp(location->server, server->store.server) == 0 ||
        strcmp(location->address, server->store.address) == 0) {
        tab_metac_forget(server->store.metac, schema->table, row);
        return base_status_make(BASE_OUT_OF_RANGE, "the row's tablet is being loaded");
    }
    return BASE_STATUS_OK;
}

bool tab_route_again(struct tab_server *server, const struct base_status *status, bool unknown,
                     int attempt, ch_time deadline)
{
    bool moved = status->code == BASE_OUT_OF_RANGE;
    if ((!moved && status->code != BASE_UNAVAILABLE) || (unknown && !moved) || ch_cancelled() ||
        server->stopping)
        return false;
    int64_t ms = (int64_t)BACKOFF_MS_MIN << (attempt < 6 ? attempt : 6);
    ch_time until = ch_in(server->env, (ms < BACKOFF_MS_MAX ? ms : BACKOFF_MS_MAX) * CH_MS);
    if (until >= deadline)
        return false;
    return ch_sleep_until(server->env, until) == CH_TIMEOUT;
}

/* What a client sees instead of our own OUT_OF_RANGE. */
static struct base_status outward(struct base_status status, bool hop)
{
    if (status.code == BASE_OUT_OF_RANGE && !hop)
        status.code = BASE_UNAVAILABLE;
    return status;
}

/* One try. *unknown: the peer may have done it. */
static struct base_status try_once(struct tab_server *server, struct ch_call *call,
                                   const struct ch_method *method, const void *request,
                                   struct base_bytes table_name, struct base_bytes row, bool fresh,
                                   ch_time deadline, tab_local_fn *local, void **reply,
                                   bool *unknown) CH_WAITS;
static struct base_status try_once(struct tab_server *server, struct ch_call *call,
                                   const struct ch_method *method, const void *request,
                                   struct base_bytes table_name, struct base_bytes row, bool fresh,
                                   ch_time deadline, tab_local_fn *local, void **reply,
                                   bool *unknown)
{
    struct tab_schema *schema;
    struct tab_tablet *tablet = NULL;
    struct tab_location location;
    struct base_status status = tab_server_schema(server, table_name, fresh, deadline, &schema);
    if (base_failed(status))
        return status;
    bool hop = tab_call_is_hop(call);
    status =
        tab_route_find(server, schema, row, hop, deadline, ch_call_arena(call), &tablet, &location);
    if (base_failed(status) && status.code == BASE_NOT_FOUND)
        status.code = BASE_OUT_OF_RANGE; /* the table's number may be an old one's: look again */
    if (!base_failed(status) && tablet) {
        status = local(server, tablet, call, request, reply);
        tab_tablet_unref(tablet);
    } else if (!base_failed(status)) {
        struct ch_call_options options = tab_hop_options(deadline);
        status = ch_client_call(tab_metac_peer(server->store.metac, location.address), method,
                                request, &options, ch_call_arena(call), reply);
        *unknown = base_failed(status) && options.outcome_unknown && !method->idempotent;
        if (base_failed(status))
            tab_metac_forget(server->store.metac, schema->table, row);
    }
    tab_schema_unref(schema);
    return status;
}

struct base_status tab_route_row(struct tab_server *server, struct ch_call *call,
                                 const struct ch_method *method, const void *request,
                                 struct base_bytes table_name, struct base_bytes row,
                                 tab_local_fn *local, void **reply)
{
    struct base_status status = tab_table_name_check(table_name);
    if (base_failed(status))
        return status;
    bool hop = tab_call_is_hop(call);
    ch_time deadline = tab_call_deadline(server, call);
    for (int attempt = 0;; attempt++) {
        bool unknown = false;
        status = try_once(server, call, method, request, table_name, row, attempt > 0, deadline,
                          local, reply, &unknown);
        if (!base_failed(status) || hop ||
            !tab_route_again(server, &status, unknown, attempt, deadline))
            return outward(status, hop);
        base_status_free(&status);
    }
}
