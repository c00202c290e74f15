/* internal.c: strata.tablet.v1.Tabletserver: what the master, and other servers, ask of a
 * tabletserver. */
#include <stdlib.h>

#include "chassis/fault.h"
#include "chassis/log.h"
#include "internal.h"
#include "strata/tablet/v1/tablet.strata.h"

enum { META_SCAN_MAX = 1000, META_SCAN_BYTES = 2 << 20 };

/* ---- load, unload, split ---- */

static bool is_loading(const struct tab_server *server, uint64_t id)
{
    for (const struct tab_loading *loading = server->loading; loading; loading = loading->next)
        if (loading->id == id)
            return true;
    return false;
}

void tab_loading_begin(struct tab_server *server, struct tab_loading *loading, uint64_t id)
{
    *loading = (struct tab_loading){ server->loading, id };
    server->loading = loading;
}

void tab_loading_end(struct tab_server *server, struct tab_loading *loading)
{
    struct tab_loading **link = &server->loading;
    while (*link != loading)
        link = &(*link)->next;
    *link = loading->next;
}

/* A split that was decided but not finished: gives the left half its own row, takes it out of
 * this one. */
static struct base_status finish_split(struct tab_server *server, struct tab_meta_row *row,
                                       Strata__Tablet__V1__TabletMeta *meta,
                                       ch_time deadline) CH_WAITS;
static struct base_status finish_split(struct tab_server *server, struct tab_meta_row *row,
                                       Strata__Tablet__V1__TabletMeta *meta, ch_time deadline)
{
    if (!meta->left)
        return BASE_STATUS_OK;
    struct base_status status = tab_meta_put_left(server->store.metac, meta, deadline);
    if (base_failed(status))
        return status;
    struct base_buf value = { 0 };
    meta->left = NULL;
    ch_proto_encode(&meta->base, &value);
    row->value = base_buf_bytes(&value);
    status = tab_metac_write(server->store.metac, row, false, deadline);
    base_buf_free(&value);
    return status;
}

/* The tablet's record, from METADATA or, for the root, from naming; and that it is ours. */
static struct base_status read_record(struct tab_server *server,
                                      const Strata__Tablet__V1__LoadRequest *request,
                                      ch_time deadline, struct base_arena *arena,
                                      Strata__Tablet__V1__TabletMeta **meta, uint8_t *version,
                                      uint64_t *root_version) CH_WAITS;
static struct base_status read_record(struct tab_server *server,
                                      const Strata__Tablet__V1__LoadRequest *request,
                                      ch_time deadline, struct base_arena *arena,
                                      Strata__Tablet__V1__TabletMeta **meta, uint8_t *version,
                                      uint64_t *root_version)
{
    struct base_status status;
    if (request->root) {
        status = tab_metac_root(server->store.metac, deadline, arena, meta, root_version);
    } else {
        struct base_buf key = { 0 };
        struct tab_meta_row row;
        tab_meta_key(&key, request->table, ch_bytes_of(request->end));
        status = tab_metac_get(server->store.metac, base_buf_bytes(&key), deadline, arena, &row);
        if (!base_failed(status))
            status = tab_meta_decode(row.value, arena, meta);
        if (!base_failed(status) &&
            base_bytes_eq_str(ch_bytes_of((*meta)->server), server->store.server))
            status = finish_split(server, &row, *meta, deadline);
        if (!base_failed(status))
            memcpy(version, row.version, TAB_META_VERSION_BYTES);
        base_buf_free(&key);
    }
    if (!base_failed(status) &&
        ((*meta)->id != request->id ||
         !base_bytes_eq_str(ch_bytes_of((*meta)->server), server->store.server)))
        status = base_status_make(BASE_FAILED_PRECONDITION, "tablet %llx is not given to %s",
                                  (unsigned long long)request->id, server->store.server);
    return status;
}

static struct base_status schema_for(struct tab_server *server,
                                     const Strata__Tablet__V1__LoadRequest *request,
                                     ch_time deadline, struct tab_schema **schema) CH_WAITS;
static struct base_status schema_for(struct tab_server *server,
                                     const Strata__Tablet__V1__LoadRequest *request,
                                     ch_time deadline, struct tab_schema **schema)
{
    if (request->table == TAB_TABLE_METADATA) {
        *schema = tab_schema_ref(server->metadata_schema);
        return BASE_STATUS_OK;
    }
    struct base_status status =
        tab_server_schema(server, ch_bytes_of(request->table_name), false, deadline, schema);
    if (!base_failed(status) && (*schema)->table != request->table) {
        tab_schema_unref(*schema);
        status =
            tab_server_schema(server, ch_bytes_of(request->table_name), true, deadline, schema);
    }
    if (!base_failed(status) && (*schema)->table != request->table) {
        tab_schema_unref(*schema);
        *schema = NULL;
        status = base_status_make(BASE_NOT_FOUND, "table %llu is gone",
                                  (unsigned long long)request->table);
    }
    return status;
}

static struct base_status load(struct tab_server *server,
                               const Strata__Tablet__V1__LoadRequest *request,
                               ch_time deadline) CH_WAITS;
static struct base_status load(struct tab_server *server,
                               const Strata__Tablet__V1__LoadRequest *request, ch_time deadline)
{
    struct base_arena arena = { 0 };
    Strata__Tablet__V1__TabletMeta *meta;
    uint8_t version[TAB_META_VERSION_BYTES] = { 0 };
    uint64_t root_version = 0;
    struct tab_schema *schema = NULL;
    struct tab_tablet *tablet = NULL;
    struct base_status status = ch_fault(server->env, "tablet_load");
    if (!base_failed(status))
        status = read_record(server, request, deadline, &arena, &meta, version, &root_version);
    if (!base_failed(status))
        status = schema_for(server, request, deadline, &schema);
    if (!base_failed(status))
        status =
            tab_tablet_load(&server->store, meta, version, root_version, schema, deadline, &tablet);
    if (!base_failed(status)) {
        tab_server_add(server, tablet);
        struct tab_schema *newest = NULL; /* it may have changed while the tablet was loading */
        if (base_status_drop(schema_for(server, request, deadline, &newest)) == BASE_OK) {
            tab_tablet_set_schema(tablet, newest);
            tab_schema_unref(newest);
        }
        ch_info(server->env, "serving tablet %llx of table %llu", (unsigned long long)tablet->id,
                (unsigned long long)tablet->table);
    }
    tab_schema_unref(schema);
    base_arena_free(&arena);
    return status;
}

static struct base_status on_load(void *self, struct ch_call *call, const void *message,
                                  void **reply) CH_WAITS;
static struct base_status on_load(void *self, struct ch_call *call, const void *message,
                                  void **reply)
{
    struct tab_server *server = self;
    const Strata__Tablet__V1__LoadRequest *request = message;
    *reply = CH_MESSAGE(ch_call_arena(call), Strata__Tablet__V1__LoadReply,
                        strata__tablet__v1__load_reply);
    struct tab_tablet *present = tab_server_find_id(server, request->id);
    if (present) {
        tab_tablet_unref(present);
        return BASE_STATUS_OK;
    }
    if (!server->serving || server->retiring || server->stopping)
        return base_status_make(BASE_UNAVAILABLE, "%s is not serving", server->store.server);
    if (is_loading(server, request->id))
        return base_status_make(BASE_UNAVAILABLE, "tablet %llx is being loaded",
                                (unsigned long long)request->id);
    struct tab_loading loading;
    tab_loading_begin(server, &loading, request->id);
    struct base_status status = load(server, request, tab_call_deadline(server, call));
    tab_loading_end(server, &loading);
    if (base_failed(status))
        ch_warn(server->env, "load: %s", base_status_text(&status));
    return status;
}

static struct base_status on_unload(void *self, struct ch_call *call, const void *message,
                                    void **reply) CH_WAITS;
static struct base_status on_unload(void *self, struct ch_call *call, const void *message,
                                    void **reply)
{
    struct tab_server *server = self;
    const Strata__Tablet__V1__UnloadRequest *request = message;
    *reply = CH_MESSAGE(ch_call_arena(call), Strata__Tablet__V1__UnloadReply,
                        strata__tablet__v1__unload_reply);
    struct tab_tablet *tablet = tab_server_find_id(server, request->id);
    if (!tablet)
        return is_loading(server, request->id)
                   ? base_status_make(BASE_UNAVAILABLE, "it is being loaded")
                   : BASE_STATUS_OK;
    struct base_status status = BASE_STATUS_OK;
    if (request->drop)
        tab_tablet_end(tablet, true);
    else
        status = tab_tablet_unload(tablet, tab_call_deadline(server, call));
    if (tablet->state == TAB_GONE)
        tab_server_remove(server, tablet);
    tab_tablet_unref(tablet);
    return status;
}

static struct base_status on_split(void *self, struct ch_call *call, const void *message,
                                   void **reply) CH_WAITS;
static struct base_status on_split(void *self, struct ch_call *call, const void *message,
                                   void **reply)
{
    struct tab_server *server = self;
    const Strata__Tablet__V1__SplitRequest *request = message;
    Strata__Tablet__V1__SplitReply *response = CH_MESSAGE(
        ch_call_arena(call), Strata__Tablet__V1__SplitReply, strata__tablet__v1__split_reply);
    *reply = response;
    struct tab_tablet *tablet = tab_server_find_id(server, request->id);
    if (!tablet)
        return base_status_make(BASE_OUT_OF_RANGE, "tablet %llx is not served here",
                                (unsigned long long)request->id);
    struct base_buf row = { 0 };
    struct base_status status = BASE_STATUS_OK;
    base_buf_put_bytes(&row, ch_bytes_of(request->row));
    if (row.len == 0) {
        status = tab_tablet_flush(tablet, true, tab_call_deadline(server, call));
        if (!base_failed(status) && !tab_tablet_middle(tablet, &row))
            status = base_status_make(BASE_FAILED_PRECONDITION,
                                      "tablet %llx has no two rows to split between",
                                      (unsigned long long)request->id);
    }
    if (!base_failed(status))
        status =
            tab_server_split(server, tablet, base_buf_bytes(&row), tab_call_deadline(server, call),
                             &response->left, &response->right);
    response->row = ch_data_of(base_bytes_dup(ch_call_arena(call), base_buf_bytes(&row)));
    base_buf_free(&row);
    tab_tablet_unref(tablet);
    return status;
}

static struct base_status on_drop_range(void *self, struct ch_call *call, const void *message,
                                        void **reply) CH_WAITS;
static struct base_status on_drop_range(void *self, struct ch_call *call, const void *message,
                                        void **reply)
{
    struct tab_server *server = self;
    const Strata__Tablet__V1__DropRangeRequest *request = message;
    *reply = CH_MESSAGE(ch_call_arena(call), Strata__Tablet__V1__DropRangeReply,
                        strata__tablet__v1__drop_range_reply);
    struct tab_tablet *tablet = tab_server_find_id(server, request->id);
    if (!tablet)
        return base_status_make(BASE_OUT_OF_RANGE, "tablet %llx is not served here",
                                (unsigned long long)request->id);
    struct base_status status =
        tab_tablet_drop_range(tablet, ch_bytes_of(request->start), ch_bytes_of(request->end),
                              tab_call_deadline(server, call));
    tab_tablet_unref(tablet);
    return status;
}

static struct base_status on_set_schema(void *self, struct ch_call *call, const void *message,
                                        void **reply)
{
    struct tab_server *server = self;
    const Strata__Tablet__V1__SetSchemaRequest *request = message;
    *reply = CH_MESSAGE(ch_call_arena(call), Strata__Tablet__V1__SetSchemaReply,
                        strata__tablet__v1__set_schema_reply);
    if (!request->table)
        return base_status_make(BASE_INVALID_ARGUMENT, "SetSchema: no table");
    tab_server_set_schema(server, request->table);
    return BASE_STATUS_OK;
}

static struct base_status on_report(void *self, struct ch_call *call, const void *message,
                                    void **reply)
{
    struct tab_server *server = self;
    struct base_arena *arena = ch_call_arena(call);
    Strata__Tablet__V1__ReportReply *report =
        CH_MESSAGE(arena, Strata__Tablet__V1__ReportReply, strata__tablet__v1__report_reply);
    size_t loading = 0;
    for (const struct tab_loading *l = server->loading; l; l = l->next)
        loading++;
    report->server = ch_data_str(base_arena_strdup(arena, server->store.server));
    report->retiring = server->retiring;
    report->tablets =
        BASE_NEW_ARRAY(arena, Strata__Tablet__V1__TabletReport *, server->tablet_count + loading);
    for (size_t i = 0; i < server->tablet_count; i++) {
        const struct tab_tablet *tablet = server->tablets[i];
        Strata__Tablet__V1__TabletReport *one =
            CH_MESSAGE(arena, Strata__Tablet__V1__TabletReport, strata__tablet__v1__tablet_report);
        one->id = tablet->id;
        one->table = tablet->table;
        one->start = ch_data_of(base_bytes_dup(arena, base_buf_bytes(&tablet->start)));
        one->end = ch_data_of(base_bytes_dup(arena, base_buf_bytes(&tablet->end)));
        one->serving = tablet->state == TAB_SERVING;
        one->file_bytes = tab_tablet_file_bytes(tablet);
        one->memory_bytes = tab_tablet_memory_bytes(tablet);
        one->files = (uint32_t)tablet->view->file_count;
        one->reads = tablet->reads;
        one->writes = tablet->writes;
        report->tablets[report->n_tablets++] = one;
    }
    for (const struct tab_loading *l = server->loading; l; l = l->next) {
        Strata__Tablet__V1__TabletReport *one =
            CH_MESSAGE(arena, Strata__Tablet__V1__TabletReport, strata__tablet__v1__tablet_report);
        one->id = l->id;
        report->tablets[report->n_tablets++] = one;
    }
    *reply = report;
    return BASE_STATUS_OK;
}

/* ---- METADATA ---- */

struct meta_cells {
    struct base_bytes version, value;
    bool found;
};

static void read_meta_cells(struct tab_cursor *cursor, struct base_arena *arena,
                            struct meta_cells *cells) CH_WAITS;
static void read_meta_cells(struct tab_cursor *cursor, struct base_arena *arena,
                            struct meta_cells *cells)
{
    struct tab_cell_view cell;
    *cells = (struct meta_cells){ 0 };
    while (tab_row_reader_next_cell(&cursor->reader, &cell)) {
        if (base_bytes_eq_str(cell.qualifier, "v"))
            cells->version = base_bytes_dup(arena, cell.value);
        else if (base_bytes_eq_str(cell.qualifier, "d"))
            cells->value = base_bytes_dup(arena, cell.value);
        cells->found = true;
    }
}

static struct base_status find_meta(struct tab_server *server, struct base_bytes key,
                                    struct tab_tablet **tablet)
{
    *tablet = tab_server_find(server, TAB_TABLE_METADATA, key);
    return *tablet
               ? BASE_STATUS_OK
               : base_status_make(BASE_OUT_OF_RANGE, "that part of METADATA is not served here");
}

static struct base_status scan_meta(struct tab_tablet *tablet,
                                    const Strata__Tablet__V1__MetaScanRequest *request,
                                    struct base_arena *arena,
                                    Strata__Tablet__V1__MetaScanReply *reply) CH_WAITS;
static struct base_status scan_meta(struct tab_tablet *tablet,
                                    const Strata__Tablet__V1__MetaScanRequest *request,
                                    struct base_arena *arena,
                                    Strata__Tablet__V1__MetaScanReply *reply)
{
    size_t limit =
               request->limit && request->limit < META_SCAN_MAX ? request->limit : META_SCAN_MAX,
           bytes = 0;
    struct tab_cursor cursor;
    struct base_bytes key, end = ch_bytes_of(request->end),
                           tablet_end = base_bytes_dup(arena, base_buf_bytes(&tablet->end));
    bool cut = tablet_end.len && (end.len == 0 || base_bytes_cmp(tablet_end, end) < 0);
    if (cut)
        end = tablet_end;
    reply->rows = BASE_NEW_ARRAY(arena, Strata__Tablet__V1__MetaRow *, limit);
    reply->covered = ch_data_of(cut ? tablet_end : BASE_BYTES_EMPTY);
    tab_cursor_open(&cursor, tablet, NULL, (struct tab_read_hint){ .column_cells = 1 });
    tab_row_reader_seek(&cursor.reader, ch_bytes_of(request->start));
    while (tab_row_reader_next_row(&cursor.reader, &key) &&
           (end.len == 0 || base_bytes_cmp(key, end) < 0)) {
        if (reply->n_rows == limit || bytes > META_SCAN_BYTES) {
            reply->covered = ch_data_of(base_bytes_dup(arena, key));
            break;
        }
        struct meta_cells cells;
        struct base_bytes kept = base_bytes_dup(arena, key);
        read_meta_cells(&cursor, arena, &cells);
        if (!cells.found)
            continue;
        Strata__Tablet__V1__MetaRow *row =
            CH_MESSAGE(arena, Strata__Tablet__V1__MetaRow, strata__tablet__v1__meta_row);
        row->key = ch_data_of(kept);
        row->version = ch_data_of(cells.version);
        row->value = ch_data_of(cells.value);
        reply->rows[reply->n_rows++] = row;
        bytes += cells.value.len + kept.len;
    }
    struct base_status status = tab_row_reader_status(&cursor.reader);
    tab_cursor_close(&cursor);
    if (!base_failed(status) && (tablet->state != TAB_SERVING || !tab_store_alive(tablet->store)))
        status =
            base_status_make(BASE_OUT_OF_RANGE, "that part of METADATA moved while it was read");
    return status;
}

static struct base_status on_meta_scan(void *self, struct ch_call *call, const void *message,
                                       void **reply) CH_WAITS;
static struct base_status on_meta_scan(void *self, struct ch_call *call, const void *message,
                                       void **reply)
{
    struct tab_server *server = self;
    const Strata__Tablet__V1__MetaScanRequest *request = message;
    struct tab_tablet *tablet;
    struct base_status status = find_meta(server, ch_bytes_of(request->start), &tablet);
    if (base_failed(status))
        return status;
    Strata__Tablet__V1__MetaScanReply *response =
        CH_MESSAGE(ch_call_arena(call), Strata__Tablet__V1__MetaScanReply,
                   strata__tablet__v1__meta_scan_reply);
    status = scan_meta(tablet, request, ch_call_arena(call), response);
    tab_tablet_unref(tablet);
    *reply = response;
    return status;
}

static struct base_status check_version(struct tab_tablet *tablet,
                                        const Strata__Tablet__V1__MetaWriteRequest *request,
                                        struct base_arena *arena) CH_WAITS;
static struct base_status check_version(struct tab_tablet *tablet,
                                        const Strata__Tablet__V1__MetaWriteRequest *request,
                                        struct base_arena *arena)
{
    struct tab_cursor cursor;
    struct base_bytes key = ch_bytes_of(request->row->key), found;
    struct meta_cells cells = { 0 };
    tab_cursor_open(&cursor, tablet, &key, (struct tab_read_hint){ .column_cells = 1 });
    tab_row_reader_seek(&cursor.reader, key);
    if (tab_row_reader_next_row(&cursor.reader, &found) && base_bytes_eq(found, key))
        read_meta_cells(&cursor, arena, &cells);
    struct base_status status = tab_row_reader_status(&cursor.reader);
    tab_cursor_close(&cursor);
    if (!base_failed(status) &&
        !base_bytes_eq(cells.version, ch_bytes_of(request->expected_version)))
        status = base_status_make(BASE_FAILED_PRECONDITION,
                                  "METADATA: the row's version is not the expected one");
    return status;
}

static void encode_meta(struct tab_server *server,
                        const Strata__Tablet__V1__MetaWriteRequest *request, struct tab_edit *edit)
{
    struct base_bytes key = ch_bytes_of(request->row->key);
    const struct tab_family *family = &server->metadata_schema->families[0];
    if (request->delete_) {
        struct base_buf entry = { 0 };
        tab_key_put_row_delete(&entry, key, 0);
        tab_edit_put(edit, base_buf_bytes(&entry), BASE_BYTES_EMPTY);
        base_buf_free(&entry);
        return;
    }
    tab_edit_set_cell(edit, key, family, BASE_BYTES_LIT("d"), 0, ch_bytes_of(request->row->value));
    tab_edit_set_cell(edit, key, family, BASE_BYTES_LIT("v"), 0,
                      ch_bytes_of(request->row->version));
}

static struct base_status write_meta(struct tab_server *server, struct tab_tablet *tablet,
                                     struct ch_call *call,
                                     const Strata__Tablet__V1__MetaWriteRequest *request) CH_WAITS;
static struct base_status write_meta(struct tab_server *server, struct tab_tablet *tablet,
                                     struct ch_call *call,
                                     const Strata__Tablet__V1__MetaWriteRequest *request)
{
    ch_time deadline = tab_call_deadline(server, call);
    struct tab_rowlock *lock;
    struct base_status status = tab_tablet_enter(tablet, deadline);
    if (base_failed(status))
        return status;
    enum ch_outcome outcome = tab_rowlock_take(
        &server->store.rowlocks, tablet->id, ch_bytes_of(request->row->key), true, deadline, &lock);
    if (outcome != CH_OK) {
        tab_tablet_leave(tablet);
        return ch_outcome_status(outcome, "waiting for a row of METADATA");
    }
    status = check_version(tablet, request, ch_call_arena(call));
    if (base_failed(status)) {
        tab_rowlock_release(&server->store.rowlocks, lock, true);
        tab_tablet_leave(tablet);
        return status;
    }
    struct tab_edit edit = { 0 };
    encode_meta(server, request, &edit);
    struct tab_wait *wait = tab_wait_new();
    status = tab_tablet_queue(tablet, lock, true, &edit, wait);
    if (!base_failed(status))
        status = tab_wait_all(wait, deadline);
    tab_wait_unref(wait);
    tab_edit_free(&edit);
    return status;
}

static struct base_status on_meta_write(void *self, struct ch_call *call, const void *message,
                                        void **reply) CH_WAITS;
static struct base_status on_meta_write(void *self, struct ch_call *call, const void *message,
                                        void **reply)
{
    struct tab_server *server = self;
    const Strata__Tablet__V1__MetaWriteRequest *request = message;
    *reply = CH_MESSAGE(ch_call_arena(call), Strata__Tablet__V1__MetaWriteReply,
                        strata__tablet__v1__meta_write_reply);
    if (!request->row || request->row->key.len == 0)
        return base_status_make(BASE_INVALID_ARGUMENT, "MetaWrite: no row");
    struct tab_tablet *tablet;
    struct base_status status = find_meta(server, ch_bytes_of(request->row->key), &tablet);
    if (base_failed(status))
        return status;
    status = write_meta(server, tablet, call, request);
    tab_tablet_unref(tablet);
    return status;
}

void tab_register_internal(struct tab_server *server)
{
    const struct ch_service *service = &strata__tablet__v1__tabletserver__service;
    const struct ch_method *methods = service->methods;
    ch_server_add_service(server->rpc, service);
    ch_server_handle(server->rpc, &methods[STRATA__TABLET__V1__TABLETSERVER__LOAD], on_load,
                     server);
    ch_server_handle(server->rpc, &methods[STRATA__TABLET__V1__TABLETSERVER__UNLOAD], on_unload,
                     server);
    ch_server_handle(server->rpc, &methods[STRATA__TABLET__V1__TABLETSERVER__SPLIT], on_split,
                     server);
    ch_server_handle(server->rpc, &methods[STRATA__TABLET__V1__TABLETSERVER__DROP_RANGE],
                     on_drop_range, server);
    ch_server_handle(server->rpc, &methods[STRATA__TABLET__V1__TABLETSERVER__SET_SCHEMA],
                     on_set_schema, server);
    ch_server_handle(server->rpc, &methods[STRATA__TABLET__V1__TABLETSERVER__REPORT], on_report,
                     server);
    ch_server_handle(server->rpc, &methods[STRATA__TABLET__V1__TABLETSERVER__SORT_LOG],
                     tab_on_sort_log, server);
    ch_server_handle(server->rpc, &methods[STRATA__TABLET__V1__TABLETSERVER__META_SCAN],
                     on_meta_scan, server);
    ch_server_handle(server->rpc, &methods[STRATA__TABLET__V1__TABLETSERVER__META_WRITE],
                     on_meta_write, server);
}
