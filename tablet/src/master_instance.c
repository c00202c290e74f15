/* master_instance.c: as much of BigtableInstanceAdmin as official clients need to begin, and
 * google.longrunning.Operations. Instances and clusters are names with settings, kept in
 * METADATA's schema rows; every instance is served by this cell. What the public service does in
 * a long-running operation is done at once here: the operation comes back done, and can be asked
 * for again. */
#include <stdio.h>

#include "google/bigtable/admin/v2/bigtable_instance_admin.strata.h"
#include "google/longrunning/operations.strata.h"
#include "master.h"
#include "master_admin.h"

enum { INSTANCE_ID_MIN = 1, INSTANCE_ID_MAX = 33, ANY_URL_BYTES = 160 };

ch_time tab_admin_deadline(struct tab_master *master, const struct ch_call *call)
{
    ch_time deadline = ch_call_deadline(call),
            most = ch_in(master->env, TAB_ADMIN_TIMEOUT_S * CH_S);
    return deadline < most ? deadline : most;
}

/* ---- rows of one kind ---- */

static struct base_status put_row(struct tab_master *master, char kind, struct base_bytes name,
                                  const ProtobufCMessage *message, bool create,
                                  ch_time deadline) CH_WAITS;
static struct base_status put_row(struct tab_master *master, char kind, struct base_bytes name,
                                  const ProtobufCMessage *message, bool create, ch_time deadline)
{
    struct base_arena arena = { 0 };
    struct base_buf key = { 0 }, value = { 0 };
    struct tab_meta_row row = { 0 };
    struct base_status status = BASE_STATUS_OK;
    tab_meta_schema_key(&key, kind, name);
    ch_proto_encode(message, &value);
    if (!create)
        status = tab_metac_get(master->metac, base_buf_bytes(&key), deadline, &arena, &row);
    row.key = base_buf_bytes(&key);
    row.value = base_buf_bytes(&value);
    if (!base_failed(status))
        status = tab_metac_write(master->metac, &row, create, deadline);
    base_buf_free(&key);
    base_buf_free(&value);
    base_arena_free(&arena);
    return status;
}

static struct base_status get_row(struct tab_master *master, char kind, const char *what,
                                  struct base_bytes name,
                                  const ProtobufCMessageDescriptor *descriptor, ch_time deadline,
                                  struct base_arena *arena, void **message,
                                  struct tab_meta_row *row) CH_WAITS;
static struct base_status get_row(struct tab_master *master, char kind, const char *what,
                                  struct base_bytes name,
                                  const ProtobufCMessageDescriptor *descriptor, ch_time deadline,
                                  struct base_arena *arena, void **message,
                                  struct tab_meta_row *row)
{
    struct base_buf key = { 0 };
    tab_meta_schema_key(&key, kind, name);
    struct base_status status =
        tab_metac_get(master->metac, base_buf_bytes(&key), deadline, arena, row);
    base_buf_free(&key);
    if (status.code == BASE_NOT_FOUND) {
        base_status_free(&status);
        return base_status_make(BASE_NOT_FOUND, "%s not found: %s", what,
                                base_bytes_show(arena, name, 300));
    }
    return base_failed(status)
               ? status
               : ch_proto_decode(descriptor, row->value, arena, (ProtobufCMessage **)message);
}

/* All whose names start with `prefix`. */
static struct base_status list_rows(struct tab_master *master, char kind, const char *prefix,
                                    const ProtobufCMessageDescriptor *descriptor, ch_time deadline,
                                    struct base_arena *arena, void ***messages,
                                    struct tab_meta_row **rows, size_t *count) CH_WAITS;
static struct base_status list_rows(struct tab_master *master, char kind, const char *prefix,
                                    const ProtobufCMessageDescriptor *descriptor, ch_time deadline,
                                    struct base_arena *arena, void ***messages,
                                    struct tab_meta_row **rows, size_t *count)
{
    struct base_buf start = { 0 }, end = { 0 };
    *count = 0;
    tab_meta_schema_key(&start, kind, base_bytes_str(prefix));
    struct base_status status = BASE_STATUS_OK;
    if (!base_prefix_end(base_buf_bytes(&start), &end))
        status = base_status_make(BASE_INTERNAL, "no end of a prefix");
    if (!base_failed(status))
        status = tab_metac_scan(master->metac, base_buf_bytes(&start), base_buf_bytes(&end), 0,
                                deadline, arena, rows, count);
    *messages = BASE_NEW_ARRAY(arena, void *, *count);
    for (size_t i = 0; i < *count && !base_failed(status); i++)
        status = ch_proto_decode(descriptor, (*rows)[i].value, arena,
                                 (ProtobufCMessage **)&(*messages)[i]);
    base_buf_free(&start);
    base_buf_free(&end);
    return status;
}

/* ---- operations ---- */

static Google__Protobuf__Any *any_of(const char *type, const ProtobufCMessage *message,
                                     struct base_arena *arena)
{
    struct base_buf value = { 0 };
    Google__Protobuf__Any *any = CH_MESSAGE(arena, Google__Protobuf__Any, google__protobuf__any);
    ch_proto_encode(message, &value);
    any->type_url = ch_data_str(base_arena_printf(arena, "type.googleapis.com/%s", type));
    any->value = ch_data_of(base_bytes_dup(arena, base_buf_bytes(&value)));
    base_buf_free(&value);
    return any;
}

/* A done operation on `target`, kept so that it can be asked for. */
static struct base_status done_operation(struct tab_master *master, struct base_bytes target,
                                         Google__Protobuf__Any *metadata,
                                         Google__Protobuf__Any *response, ch_time deadline,
                                         struct base_arena *arena, void **reply) CH_WAITS;
static struct base_status done_operation(struct tab_master *master, struct base_bytes target,
                                         Google__Protobuf__Any *metadata,
                                         Google__Protobuf__Any *response, ch_time deadline,
                                         struct base_arena *arena, void **reply)
{
    Google__Longrunning__Operation *operation =
        CH_MESSAGE(arena, Google__Longrunning__Operation, google__longrunning__operation);
    operation->name =
        ch_data_str(base_arena_printf(arena, "operations/%.*s/operations/%llu", BASE_FMT(target),
                                      (unsigned long long)(ch_random(master->env) >> 1)));
    operation->done = true;
    operation->metadata = metadata;
    operation->result_case = GOOGLE__LONGRUNNING__OPERATION__RESULT_RESPONSE;
    operation->response = response;
    *reply = operation;
    return put_row(master, 'o', ch_bytes_of(operation->name), &operation->base, true, deadline);
}

static struct base_status on_get_operation(void *self, struct ch_call *call, const void *message,
                                           void **reply) CH_WAITS;
static struct base_status on_get_operation(void *self, struct ch_call *call, const void *message,
                                           void **reply)
{
    struct tab_master *master = self;
    const Google__Longrunning__GetOperationRequest *request = message;
    struct tab_meta_row row;
    struct base_status status = tab_master_check(master);
    if (base_failed(status))
        return status;
    return get_row(master, 'o', "Operation", ch_bytes_of(request->name),
                   &google__longrunning__operation__descriptor, tab_admin_deadline(master, call),
                   ch_call_arena(call), reply, &row);
}

static Google__Protobuf__Timestamp *timestamp_now(struct tab_master *master,
                                                  struct base_arena *arena)
{
    int64_t now_us = ch_wall_us(master->env);
    Google__Protobuf__Timestamp *now =
        CH_MESSAGE(arena, Google__Protobuf__Timestamp, google__protobuf__timestamp);
    now->seconds = now_us / 1000000;
    now->nanos = (int32_t)(now_us % 1000000) * 1000;
    return now;
}

/* ---- instances ---- */

static struct base_status put_clusters(
    struct tab_master *master, const Google__Bigtable__Admin__V2__CreateInstanceRequest *request,
    const char *instance, ch_time deadline, struct base_arena *arena) CH_WAITS;
static struct base_status put_clusters(
    struct tab_master *master, const Google__Bigtable__Admin__V2__CreateInstanceRequest *request,
    const char *instance, ch_time deadline, struct base_arena *arena)
{
    struct base_status status = BASE_STATUS_OK;
    for (size_t i = 0; i < request->n_clusters && !base_failed(status); i++) {
        Google__Bigtable__Admin__V2__Cluster *cluster = request->clusters[i]->value;
        struct base_bytes id = ch_bytes_of(request->clusters[i]->key);
        status = tab_check_id("cluster id", id, 30);
        if (base_failed(status))
            break;
        if (!cluster)
            cluster = CH_MESSAGE(arena, Google__Bigtable__Admin__V2__Cluster,
                                 google__bigtable__admin__v2__cluster);
        cluster->name =
            ch_data_str(base_arena_printf(arena, "%s/clusters/%.*s", instance, BASE_FMT(id)));
        cluster->state = GOOGLE__BIGTABLE__ADMIN__V2__CLUSTER__STATE__READY;
        if (cluster->serve_nodes == 0)
            cluster->serve_nodes = 1;
        status = put_row(master, 'c', ch_bytes_of(cluster->name), &cluster->base, true, deadline);
        if (status.code == BASE_FAILED_PRECONDITION) /* left by an attempt that ended half-way */
            base_status_free(&status);
    }
    return status;
}

static struct base_status on_create_instance(void *self, struct ch_call *call, const void *message,
                                             void **reply) CH_WAITS;
static struct base_status on_create_instance(void *self, struct ch_call *call, const void *message,
                                             void **reply)
{
    struct tab_master *master = self;
    struct base_arena *arena = ch_call_arena(call);
    const Google__Bigtable__Admin__V2__CreateInstanceRequest *request = message;
    ch_time deadline = tab_admin_deadline(master, call);
    struct base_status status = tab_master_check(master);
    if (!base_failed(status))
        status = tab_check_id("instance_id", ch_bytes_of(request->instance_id), INSTANCE_ID_MAX);
    if (!base_failed(status) &&
        !base_bytes_starts_with(ch_bytes_of(request->parent), BASE_BYTES_LIT("projects/")))
        status =
            base_status_make(BASE_INVALID_ARGUMENT, "Invalid parent: expected projects/<project>");
    if (base_failed(status))
        return status;
    char *name =
        base_arena_printf(arena, "%.*s/instances/%.*s", BASE_FMT(ch_bytes_of(request->parent)),
                          BASE_FMT(ch_bytes_of(request->instance_id)));
    Google__Bigtable__Admin__V2__Instance *instance = CH_MESSAGE(
        arena, Google__Bigtable__Admin__V2__Instance, google__bigtable__admin__v2__instance);
    if (request->instance)
        *instance = *request->instance;
    instance->name = ch_data_str(name);
    instance->state = GOOGLE__BIGTABLE__ADMIN__V2__INSTANCE__STATE__READY;
    if (instance->type == GOOGLE__BIGTABLE__ADMIN__V2__INSTANCE__TYPE__TYPE_UNSPECIFIED)
        instance->type = GOOGLE__BIGTABLE__ADMIN__V2__INSTANCE__TYPE__PRODUCTION;
    instance->create_time = timestamp_now(master, arena);
    status = put_clusters(master, request, name, deadline, arena);
    if (!base_failed(status)) {
        status = put_row(master, 'i', base_bytes_str(name), &instance->base, true, deadline);
        if (status.code == BASE_FAILED_PRECONDITION) {
            base_status_free(&status);
            status = base_status_make(BASE_ALREADY_EXISTS, "Instance already exists: %s", name);
        }
    }
    if (base_failed(status))
        return status;
    Google__Bigtable__Admin__V2__CreateInstanceMetadata metadata =
        GOOGLE__BIGTABLE__ADMIN__V2__CREATE_INSTANCE_METADATA__INIT;
    metadata.original_request = (Google__Bigtable__Admin__V2__CreateInstanceRequest *)request;
    metadata.request_time = metadata.finish_time = instance->create_time;
    return done_operation(
        master, base_bytes_str(name),
        any_of("google.bigtable.admin.v2.CreateInstanceMetadata", &metadata.base, arena),
        any_of("google.bigtable.admin.v2.Instance", &instance->base, arena), deadline, arena,
        reply);
}

static struct base_status on_get_instance(void *self, struct ch_call *call, const void *message,
                                          void **reply) CH_WAITS;
static struct base_status on_get_instance(void *self, struct ch_call *call, const void *message,
                                          void **reply)
{
    struct tab_master *master = self;
    const Google__Bigtable__Admin__V2__GetInstanceRequest *request = message;
    struct tab_meta_row row;
    struct base_status status = tab_master_check(master);
    if (base_failed(status))
        return status;
    return get_row(master, 'i', "Instance", ch_bytes_of(request->name),
                   &google__bigtable__admin__v2__instance__descriptor,
                   tab_admin_deadline(master, call), ch_call_arena(call), reply, &row);
}

static struct base_status on_list_instances(void *self, struct ch_call *call, const void *message,
                                            void **reply) CH_WAITS;
static struct base_status on_list_instances(void *self, struct ch_call *call, const void *message,
                                            void **reply)
{
    struct tab_master *master = self;
    struct base_arena *arena = ch_call_arena(call);
    const Google__Bigtable__Admin__V2__ListInstancesRequest *request = message;
    void **instances;
    struct tab_meta_row *rows;
    size_t count = 0;
    struct base_status status = tab_master_check(master);
    if (!base_failed(status))
        status = list_rows(
            master, 'i',
            base_arena_printf(arena, "%.*s/instances/", BASE_FMT(ch_bytes_of(request->parent))),
            &google__bigtable__admin__v2__instance__descriptor, tab_admin_deadline(master, call),
            arena, &instances, &rows, &count);
    if (base_failed(status))
        return status;
    Google__Bigtable__Admin__V2__ListInstancesResponse *response =
        CH_MESSAGE(arena, Google__Bigtable__Admin__V2__ListInstancesResponse,
                   google__bigtable__admin__v2__list_instances_response);
    response->instances = (Google__Bigtable__Admin__V2__Instance **)instances;
    response->n_instances = count;
    *reply = response;
    return BASE_STATUS_OK;
}

/* Its tables must be deleted first: nothing disappears that was not named. */
static struct base_status on_delete_instance(void *self, struct ch_call *call, const void *message,
                                             void **reply) CH_WAITS;
static struct base_status on_delete_instance(void *self, struct ch_call *call, const void *message,
                                             void **reply)
{
    struct tab_master *master = self;
    struct base_arena *arena = ch_call_arena(call);
    const Google__Bigtable__Admin__V2__DeleteInstanceRequest *request = message;
    ch_time deadline = tab_admin_deadline(master, call);
    struct tab_meta_row row, *rows;
    void *instance, **clusters;
    Strata__Tablet__V1__TableMeta **tables;
    size_t count = 0;
    struct base_bytes name = ch_bytes_of(request->name);
    struct base_status status = tab_master_check(master);
    if (!base_failed(status))
        status = get_row(master, 'i', "Instance", name,
                         &google__bigtable__admin__v2__instance__descriptor, deadline, arena,
                         &instance, &row);
    if (!base_failed(status))
        status = tab_master_tables(master, base_arena_printf(arena, "%.*s/tables/", BASE_FMT(name)),
                                   deadline, arena, &tables, &count);
    if (!base_failed(status) && count)
        status = base_status_make(BASE_FAILED_PRECONDITION, "Instance %.*s still has %zu tables",
                                  BASE_FMT(name), count);
    if (!base_failed(status))
        status = list_rows(master, 'c', base_arena_printf(arena, "%.*s/clusters/", BASE_FMT(name)),
                           &google__bigtable__admin__v2__cluster__descriptor, deadline, arena,
                           &clusters, &rows, &count);
    for (size_t i = 0; i < count && !base_failed(status); i++)
        status = tab_metac_delete(master->metac, &rows[i], deadline);
    if (!base_failed(status))
        status = tab_metac_delete(master->metac, &row, deadline);
    *reply = CH_MESSAGE(arena, Google__Protobuf__Empty, google__protobuf__empty);
    return status;
}

/* ---- clusters ---- */

static struct base_status on_get_cluster(void *self, struct ch_call *call, const void *message,
                                         void **reply) CH_WAITS;
static struct base_status on_get_cluster(void *self, struct ch_call *call, const void *message,
                                         void **reply)
{
    struct tab_master *master = self;
    const Google__Bigtable__Admin__V2__GetClusterRequest *request = message;
    struct tab_meta_row row;
    struct base_status status = tab_master_check(master);
    if (base_failed(status))
        return status;
    return get_row(master, 'c', "Cluster", ch_bytes_of(request->name),
                   &google__bigtable__admin__v2__cluster__descriptor,
                   tab_admin_deadline(master, call), ch_call_arena(call), reply, &row);
}

static struct base_status on_list_clusters(void *self, struct ch_call *call, const void *message,
                                           void **reply) CH_WAITS;
static struct base_status on_list_clusters(void *self, struct ch_call *call, const void *message,
                                           void **reply)
{
    struct tab_master *master = self;
    struct base_arena *arena = ch_call_arena(call);
    const Google__Bigtable__Admin__V2__ListClustersRequest *request = message;
    struct base_bytes parent = ch_bytes_of(request->parent);
    void **clusters;
    struct tab_meta_row *rows;
    size_t count = 0;
    /* "projects/P/instances/-": of all instances. */
    bool every =
        parent.len > 2 && parent.data[parent.len - 1] == '-' && parent.data[parent.len - 2] == '/';
    struct base_status status = tab_master_check(master);
    if (!base_failed(status))
        status = list_rows(
            master, 'c',
            every ? base_arena_printf(arena, "%.*s", (int)parent.len - 1, (const char *)parent.data)
                  : base_arena_printf(arena, "%.*s/clusters/", BASE_FMT(parent)),
            &google__bigtable__admin__v2__cluster__descriptor, tab_admin_deadline(master, call),
            arena, &clusters, &rows, &count);
    if (base_failed(status))
        return status;
    Google__Bigtable__Admin__V2__ListClustersResponse *response =
        CH_MESSAGE(arena, Google__Bigtable__Admin__V2__ListClustersResponse,
                   google__bigtable__admin__v2__list_clusters_response);
    response->clusters = (Google__Bigtable__Admin__V2__Cluster **)clusters;
    response->n_clusters = count;
    *reply = response;
    return BASE_STATUS_OK;
}

void tab_register_instance_admin(struct tab_master *master)
{
    const struct ch_service *service =
        &google__bigtable__admin__v2__bigtable_instance_admin__service;
    const struct ch_method *methods = service->methods;
#define METHOD(NAME) &methods[GOOGLE__BIGTABLE__ADMIN__V2__BIGTABLE_INSTANCE_ADMIN__##NAME]
    ch_server_add_service(master->rpc, service);
    ch_server_add_service(master->rpc, &google__longrunning__operations__service);
    ch_server_handle(master->rpc, METHOD(CREATE_INSTANCE), on_create_instance, master);
    ch_server_handle(master->rpc, METHOD(GET_INSTANCE), on_get_instance, master);
    ch_server_handle(master->rpc, METHOD(LIST_INSTANCES), on_list_instances, master);
    ch_server_handle(master->rpc, METHOD(DELETE_INSTANCE), on_delete_instance, master);
    ch_server_handle(master->rpc, METHOD(GET_CLUSTER), on_get_cluster, master);
    ch_server_handle(master->rpc, METHOD(LIST_CLUSTERS), on_list_clusters, master);
    ch_server_handle(master->rpc,
                     &google__longrunning__operations__service
                          .methods[GOOGLE__LONGRUNNING__OPERATIONS__GET_OPERATION],
                     on_get_operation, master);
#undef METHOD
}
