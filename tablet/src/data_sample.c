/* data_sample.c: SampleRowKeys (the bounds of a table's tablets, with the bytes before them) and
 * PingAndWarm. */
#include "data.h"

#include "google/bigtable/v2/bigtable.strata.h"

static struct base_status send_sample(struct ch_call *call, struct base_bytes row,
                                      int64_t bytes) CH_WAITS;
static struct base_status send_sample(struct ch_call *call, struct base_bytes row, int64_t bytes)
{
    Google__Bigtable__V2__SampleRowKeysResponse response =
        GOOGLE__BIGTABLE__V2__SAMPLE_ROW_KEYS_RESPONSE__INIT;
    response.row_key = ch_data_of(row);
    response.offset_bytes = bytes;
    return ch_call_send(call, &response);
}

static struct base_status sample(struct tab_server *server, struct ch_call *call,
                                 struct tab_schema *schema) CH_WAITS;
static struct base_status sample(struct tab_server *server, struct ch_call *call,
                                 struct tab_schema *schema)
{
    struct base_buf start = { 0 }, end = { 0 };
    struct base_arena *arena = ch_call_arena(call);
    struct tab_meta_row *rows;
    size_t count = 0;
    tab_meta_table_range(schema->table, &start, &end);
    struct base_status status =
        tab_metac_scan(server->store.metac, base_buf_bytes(&start), base_buf_bytes(&end), 0,
                       tab_call_deadline(server, call), arena, &rows, &count);
    int64_t bytes = 0;
    for (size_t i = 0; i < count && !base_failed(status); i++) {
        Strata__Tablet__V1__TabletMeta *meta;
        status = tab_meta_decode(rows[i].value, arena, &meta);
        if (base_failed(status))
            break;
        for (size_t f = 0; f < meta->n_files; f++)
            bytes += (int64_t)meta->files[f]->length;
        status = send_sample(call, ch_bytes_of(meta->end),
                             bytes); /* the last one's end is empty: the table's end */
    }
    base_buf_free(&start);
    base_buf_free(&end);
    return status;
}

struct base_status tab_on_sample_row_keys(void *self, struct ch_call *call) CH_WAITS;
struct base_status tab_on_sample_row_keys(void *self, struct ch_call *call)
{
    struct tab_server *server = self;
    Google__Bigtable__V2__SampleRowKeysRequest *request;
    struct base_status status = ch_call_recv(call, NULL, (void **)&request);
    if (base_failed(status))
        return status;
    if (!request)
        return base_status_make(BASE_INVALID_ARGUMENT, "SampleRowKeys: no request");
    if (request->authorized_view_name.len || request->materialized_view_name.len)
        return tab_no_views(BASE_BYTES_LIT("view"));
    struct tab_schema *schema;
    status = tab_table_name_check(ch_bytes_of(request->table_name));
    if (!base_failed(status))
        status = tab_server_schema(server, ch_bytes_of(request->table_name), true,
                                   tab_call_deadline(server, call), &schema);
    if (base_failed(status))
        return status;
    status = sample(server, call, schema);
    tab_schema_unref(schema);
    return status;
}

static struct base_status on_ping(void *self, struct ch_call *call, const void *request,
                                  void **reply)
{
    const Google__Bigtable__V2__PingAndWarmRequest *ping = request;
    if (ping->name.len == 0)
        return base_status_make(BASE_INVALID_ARGUMENT, "PingAndWarm: name must be set");
    *reply = CH_MESSAGE(ch_call_arena(call), Google__Bigtable__V2__PingAndWarmResponse,
                        google__bigtable__v2__ping_and_warm_response);
    return BASE_STATUS_OK;
}

void tab_register_data(struct tab_server *server)
{
    const struct ch_service *service = &google__bigtable__v2__bigtable__service;
    const struct ch_method *methods = service->methods;
    ch_server_add_service(server->rpc, service);
    ch_server_handle(server->rpc, &methods[GOOGLE__BIGTABLE__V2__BIGTABLE__MUTATE_ROW],
                     tab_on_mutate_row, server);
    ch_server_handle(server->rpc, &methods[GOOGLE__BIGTABLE__V2__BIGTABLE__CHECK_AND_MUTATE_ROW],
                     tab_on_check_and_mutate, server);
    ch_server_handle(server->rpc, &methods[GOOGLE__BIGTABLE__V2__BIGTABLE__READ_MODIFY_WRITE_ROW],
                     tab_on_read_modify_write, server);
    ch_server_handle(server->rpc, &methods[GOOGLE__BIGTABLE__V2__BIGTABLE__PING_AND_WARM], on_ping,
                     server);
    ch_server_handle_stream(server->rpc, &methods[GOOGLE__BIGTABLE__V2__BIGTABLE__MUTATE_ROWS],
                            tab_on_mutate_rows, server);
    ch_server_handle_stream(server->rpc, &methods[GOOGLE__BIGTABLE__V2__BIGTABLE__READ_ROWS],
                            tab_on_read_rows, server);
    ch_server_handle_stream(server->rpc, &methods[GOOGLE__BIGTABLE__V2__BIGTABLE__SAMPLE_ROW_KEYS],
                            tab_on_sample_row_keys, server);
}
