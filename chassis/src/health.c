/* health.c: grpc.health.v1. The server as a whole and each service it was told of share one
 * state: the server is one task. */
#include "grpc/health/v1/health.pb-c.h"
#include "grpc/health/v1/health.strata.h"
#include "rpc_server_int.h"

typedef Grpc__Health__V1__HealthCheckRequest Request;
typedef Grpc__Health__V1__HealthCheckResponse Response;
typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus State;

static bool knows(const struct ch_server *server, struct base_bytes name)
{
    if (name.len == 0)
        return true;
    for (size_t i = 0; i < server->service_count; i++)
        if (base_bytes_eq_str(name, server->services[i]->name))
            return true;
    return false;
}

static State state_of(const struct ch_server *server)
{
    return server->serving ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
                           : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
}

static struct base_status check(void *self, struct ch_call *call, const void *message,
                                void **reply) CH_WAITS;
static struct base_status check(void *self, struct ch_call *call, const void *message, void **reply)
{
    struct ch_server *server = self;
    struct base_bytes name = ch_bytes_of(((const Request *)message)->service);
    if (!knows(server, name))
        return base_status_make(BASE_NOT_FOUND, "unknown service %s",
                                base_bytes_show(ch_call_arena(call), name, 200));
    Response *response =
        CH_MESSAGE(ch_call_arena(call), Response, grpc__health__v1__health_check_response);
    response->status = state_of(server);
    *reply = response;
    return BASE_STATUS_OK;
}

static struct base_status list(void *self, struct ch_call *call, const void *message,
                               void **reply) CH_WAITS;
static struct base_status list(void *self, struct ch_call *call, const void *message, void **reply)
{
    struct ch_server *server = self;
    struct base_arena *arena = ch_call_arena(call);
    Grpc__Health__V1__HealthListResponse *response = CH_MESSAGE(
        arena, Grpc__Health__V1__HealthListResponse, grpc__health__v1__health_list_response);
    typedef Grpc__Health__V1__HealthListResponse__StatusesEntry Entry;
    response->n_statuses = server->service_count + 1;
    response->statuses = BASE_NEW_ARRAY(arena, Entry *, response->n_statuses);
    for (size_t i = 0; i < response->n_statuses; i++) {
        Entry *entry =
            CH_MESSAGE(arena, Entry, grpc__health__v1__health_list_response__statuses_entry);
        entry->key = ch_data_str(i ? server->services[i - 1]->name : "");
        entry->value = CH_MESSAGE(arena, Response, grpc__health__v1__health_check_response);
        entry->value->status = state_of(server);
        response->statuses[i] = entry;
    }
    *reply = response;
    return BASE_STATUS_OK;
}

static struct base_status watch(void *self, struct ch_call *call) CH_WAITS;
static struct base_status watch(void *self, struct ch_call *call)
{
    struct ch_server *server = self;
    void *message = NULL;
    struct base_status status = ch_call_recv(call, NULL, &message);
    if (base_failed(status))
        return status;
    bool known = knows(server, ch_bytes_of(((Request *)message)->service));
    while (!base_failed(status)) {
        Response response;
        grpc__health__v1__health_check_response__init(&response);
        uint64_t seen = server->health_generation;
        response.status =
            known ? state_of(server)
                  : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
        status = ch_call_send(call, &response);
        while (!base_failed(status) && seen == server->health_generation) {
            if (server->stopping)
                return base_status_make(BASE_UNAVAILABLE, "the server stops");
            status = ch_outcome_status(
                ch_cond_wait(&server->health_changed, ch_call_deadline(call)), "health watch");
        }
    }
    return status;
}

void ch__health_register(struct ch_server *server)
{
    const struct ch_service *service = &grpc__health__v1__health__service;
    const struct ch_method *methods = service->methods;
    ch_server_add_service(server, service);
    ch__server_handle_internal(server, &methods[GRPC__HEALTH__V1__HEALTH__CHECK], check, NULL,
                               server);
    ch__server_handle_internal(server, &methods[GRPC__HEALTH__V1__HEALTH__LIST], list, NULL,
                               server);
    ch__server_handle_internal(server, &methods[GRPC__HEALTH__V1__HEALTH__WATCH], NULL, watch,
                               server);
}
