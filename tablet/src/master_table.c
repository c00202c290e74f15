/* master_table.c: BigtableTableAdmin: its requests. Tables and families live in METADATA's schema
 * rows, which master_schema.c reads and writes. */
#include <stdio.h>
#include <stdlib.h>

#include "chassis/log.h"
#include "google/bigtable/admin/v2/bigtable_table_admin.strata.h"
#include "master.h"
#include "master_admin.h"
#include "schema.h"
#include "strata/tablet/v1/tablet.strata.h"

typedef Strata__Tablet__V1__TableMeta table_meta;

#define DELETE_ALL \
    GOOGLE__BIGTABLE__ADMIN__V2__DROP_ROW_RANGE_REQUEST__TARGET_DELETE_ALL_DATA_FROM_TABLE

/* ---- CreateTable ---- */

static int by_bytes(const void *a, const void *b)
{
    return base_bytes_cmp(ch_bytes_of(*(const ProtobufCBinaryData *)a),
                          ch_bytes_of(*(const ProtobufCBinaryData *)b));
}

static struct base_status plan_table(const Google__Bigtable__Admin__V2__CreateTableRequest *request,
                                     struct base_arena *arena, table_meta *table)
{
    struct base_status status =
        tab_check_id("table_id", ch_bytes_of(request->table_id), TAB_TABLE_ID_MAX);
    if (!base_failed(status))
        status = tab_check_parent(ch_bytes_of(request->parent));
    if (base_failed(status))
        return status;
    strata__tablet__v1__table_meta__init(table);
    table->name = ch_data_str(base_arena_printf(arena, "%.*s/tables/%.*s",
                                                BASE_FMT(ch_bytes_of(request->parent)),
                                                BASE_FMT(ch_bytes_of(request->table_id))));
    table->version = 1;
    table->creating = true;
    table->next_family = 1;
    const Google__Bigtable__Admin__V2__Table *wanted = request->table;
    table->deletion_protection = wanted && wanted->deletion_protection;
    size_t families = wanted ? wanted->n_column_families : 0;
    table->families = BASE_NEW_ARRAY(arena, Strata__Tablet__V1__FamilyMeta *, families);
    for (size_t i = 0; i < families; i++) {
        status = tab_add_family(table, ch_bytes_of(wanted->column_families[i]->key),
                                wanted->column_families[i]->value, arena);
        if (base_failed(status))
            return status;
    }
    table->splits = BASE_NEW_ARRAY(arena, ProtobufCBinaryData, request->n_initial_splits);
    for (size_t i = 0; i < request->n_initial_splits; i++) {
        ProtobufCBinaryData key = request->initial_splits[i]->key;
        if (key.len > 0 && key.len <= TAB_SPLIT_KEY_MAX)
            table->splits[table->n_splits++] = key;
        else if (key.len)
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "initial_splits: a key of %zu bytes; the limit is %d", key.len,
                                    TAB_SPLIT_KEY_MAX);
    }
    if (table->n_splits)
        qsort(table->splits, table->n_splits, sizeof(*table->splits), by_bytes);
    size_t kept = 0;
    for (size_t i = 0; i < table->n_splits; i++)
        if (kept == 0 ||
            !base_bytes_eq(ch_bytes_of(table->splits[kept - 1]), ch_bytes_of(table->splits[i])))
            table->splits[kept++] = table->splits[i];
    table->n_splits = kept;
    return BASE_STATUS_OK;
}

static struct base_status create_table(struct tab_master *master, table_meta *table,
                                       ch_time deadline) CH_WAITS;
static struct base_status create_table(struct tab_master *master, table_meta *table,
                                       ch_time deadline)
{
    struct base_buf key = { 0 };
    tab_meta_schema_key(&key, 't', ch_bytes_of(table->name));
    struct tab_meta_row row = { .key = base_buf_bytes(&key) };
    struct base_status status = tab_master_table_number(master, deadline, &table->id);
    if (!base_failed(status)) {
        status = tab_master_put_table(master, table, &row, true, deadline);
        if (status.code == BASE_FAILED_PRECONDITION) {
            base_status_free(&status);
            status = base_status_make(BASE_ALREADY_EXISTS, "Table already exists: %.*s",
                                      BASE_FMT(ch_bytes_of(table->name)));
        }
    }
    base_buf_free(&key);
    if (!base_failed(status))
        status = tab_master_make_tablets(master, table, deadline);
    return status;
}

static struct base_status on_create_table(void *self, struct ch_call *call, const void *message,
                                          void **reply) CH_WAITS;
static struct base_status on_create_table(void *self, struct ch_call *call, const void *message,
                                          void **reply)
{
    struct tab_master *master = self;
    const Google__Bigtable__Admin__V2__CreateTableRequest *request = message;
    table_meta table;
    struct base_status status = tab_master_check(master);
    if (!base_failed(status))
        status = plan_table(request, ch_call_arena(call), &table);
    if (base_failed(status))
        return status;
    ch_time deadline = tab_admin_deadline(master, call);
    enum ch_outcome outcome = ch_mutex_lock(&master->schema, deadline);
    if (outcome != CH_OK)
        return ch_outcome_status(outcome, "waiting for another change of tables");
    status = create_table(master, &table, deadline);
    ch_mutex_unlock(&master->schema);
    if (base_failed(status))
        tab_master_poke(master); /* what was begun is completed */
    else
        *reply = tab_table_reply(&table, GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__SCHEMA_VIEW,
                                 ch_call_arena(call));
    return status;
}

/* ---- reading RPCs ---- */

static struct base_status on_get_table(void *self, struct ch_call *call, const void *message,
                                       void **reply) CH_WAITS;
static struct base_status on_get_table(void *self, struct ch_call *call, const void *message,
                                       void **reply)
{
    struct tab_master *master = self;
    const Google__Bigtable__Admin__V2__GetTableRequest *request = message;
    table_meta *table;
    struct tab_meta_row row;
    struct base_status status = tab_master_check(master);
    if (!base_failed(status))
        status =
            tab_master_table(master, ch_bytes_of(request->name), tab_admin_deadline(master, call),
                             ch_call_arena(call), &table, &row);
    if (!base_failed(status))
        *reply = tab_table_reply(
            table,
            request->view ? request->view : GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__SCHEMA_VIEW,
            ch_call_arena(call));
    return status;
}

static struct base_status on_list_tables(void *self, struct ch_call *call, const void *message,
                                         void **reply) CH_WAITS;
static struct base_status on_list_tables(void *self, struct ch_call *call, const void *message,
                                         void **reply)
{
    struct tab_master *master = self;
    struct base_arena *arena = ch_call_arena(call);
    const Google__Bigtable__Admin__V2__ListTablesRequest *request = message;
    if (request->page_size < 0)
        return base_status_make(BASE_INVALID_ARGUMENT, "page_size must not be negative");
    struct base_status status = tab_master_check(master);
    if (!base_failed(status))
        status = tab_check_parent(ch_bytes_of(request->parent));
    table_meta **tables;
    size_t count = 0;
    if (!base_failed(status))
        status = tab_master_tables(
            master,
            base_arena_printf(arena, "%.*s/tables/", BASE_FMT(ch_bytes_of(request->parent))),
            tab_admin_deadline(master, call), arena, &tables, &count);
    if (base_failed(status))
        return status;
    Google__Bigtable__Admin__V2__ListTablesResponse *response =
        CH_MESSAGE(arena, Google__Bigtable__Admin__V2__ListTablesResponse,
                   google__bigtable__admin__v2__list_tables_response);
    response->tables = BASE_NEW_ARRAY(arena, Google__Bigtable__Admin__V2__Table *, count);
    for (size_t i = 0; i < count; i++) {
        if (base_bytes_cmp(ch_bytes_of(tables[i]->name), ch_bytes_of(request->page_token)) <= 0)
            continue;
        if (request->page_size && response->n_tables == (size_t)request->page_size) {
            response->next_page_token = response->tables[response->n_tables - 1]->name;
            break;
        }
        response->tables[response->n_tables++] = tab_table_reply(
            tables[i],
            request->view ? request->view : GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__NAME_ONLY,
            arena);
    }
    *reply = response;
    return BASE_STATUS_OK;
}

/* ---- DeleteTable ---- */

/* Servers let go of the tablets and their rows go: what fails here the next pass does. */
static void drop_tablets(struct tab_master *master, uint64_t table, ch_time deadline,
                         struct base_arena *arena) CH_WAITS;
static void drop_tablets(struct tab_master *master, uint64_t table, ch_time deadline,
                         struct base_arena *arena)
{
    Strata__Tablet__V1__TabletMeta **tablets;
    struct tab_meta_row *rows;
    size_t count = 0;
    struct base_status status =
        tab_master_tablets(master, table, deadline, arena, &tablets, &rows, &count);
    for (size_t i = 0; i < count && !base_failed(status); i++) {
        Strata__Tablet__V1__UnloadRequest request = STRATA__TABLET__V1__UNLOAD_REQUEST__INIT;
        void *reply;
        request.id = tablets[i]->id;
        request.drop = true;
        if (tablets[i]->address.len)
            status =
                tab_master_call(master, base_bytes_cstr(arena, ch_bytes_of(tablets[i]->address)),
                                STRATA__TABLET__V1__TABLETSERVER__UNLOAD, &request,
                                ch_in(master->env, 2 * CH_S), arena, &reply);
        if (!base_failed(status))
            status = tab_metac_delete(master->metac, &rows[i], deadline);
    }
    base_status_free(&status);
}

static struct base_status delete_table(struct tab_master *master, struct base_bytes name,
                                       ch_time deadline, struct base_arena *arena) CH_WAITS;
static struct base_status delete_table(struct tab_master *master, struct base_bytes name,
                                       ch_time deadline, struct base_arena *arena)
{
    table_meta *table;
    struct tab_meta_row row;
    struct base_status status = tab_master_table(master, name, deadline, arena, &table, &row);
    if (!base_failed(status) && table->deletion_protection)
        status = base_status_make(
            BASE_FAILED_PRECONDITION,
            "The table %.*s is protected against deletion (deletion_protection)", BASE_FMT(name));
    if (!base_failed(status))
        status = tab_metac_delete(master->metac, &row, deadline);
    if (base_failed(status))
        return status;
    table->deleted = true;
    base_status_drop(tab_master_tell_servers(master, table, deadline));
    drop_tablets(master, table->id, deadline, arena);
    tab_master_poke(master);
    return BASE_STATUS_OK;
}

static struct base_status on_delete_table(void *self, struct ch_call *call, const void *message,
                                          void **reply) CH_WAITS;
static struct base_status on_delete_table(void *self, struct ch_call *call, const void *message,
                                          void **reply)
{
    struct tab_master *master = self;
    const Google__Bigtable__Admin__V2__DeleteTableRequest *request = message;
    ch_time deadline = tab_admin_deadline(master, call);
    struct base_status status = tab_master_check(master);
    if (base_failed(status))
        return status;
    enum ch_outcome outcome = ch_mutex_lock(&master->schema, deadline);
    if (outcome != CH_OK)
        return ch_outcome_status(outcome, "waiting for another change of tables");
    status = delete_table(master, ch_bytes_of(request->name), deadline, ch_call_arena(call));
    ch_mutex_unlock(&master->schema);
    *reply = CH_MESSAGE(ch_call_arena(call), Google__Protobuf__Empty, google__protobuf__empty);
    return status;
}

/* ---- ModifyColumnFamilies, UpdateTable ---- */

static struct base_status modify(
    struct tab_master *master,
    const Google__Bigtable__Admin__V2__ModifyColumnFamiliesRequest *request, ch_time deadline,
    struct base_arena *arena, table_meta **table) CH_WAITS;
static struct base_status modify(
    struct tab_master *master,
    const Google__Bigtable__Admin__V2__ModifyColumnFamiliesRequest *request, ch_time deadline,
    struct base_arena *arena, table_meta **table)
{
    struct tab_meta_row row;
    struct base_status status =
        tab_master_table(master, ch_bytes_of(request->name), deadline, arena, table, &row);
    if (!base_failed(status) && request->n_modifications == 0)
        status = base_status_make(BASE_INVALID_ARGUMENT, "No modifications provided");
    for (size_t i = 0; i < request->n_modifications && !base_failed(status); i++)
        status = tab_modify_family(*table, request->modifications[i], arena);
    if (base_failed(status))
        return status;
    (*table)->version++;
    status = tab_master_put_table(master, *table, &row, false, deadline);
    return base_failed(status) ? status : tab_master_tell_servers(master, *table, deadline);
}

static struct base_status on_modify_families(void *self, struct ch_call *call, const void *message,
                                             void **reply) CH_WAITS;
static struct base_status on_modify_families(void *self, struct ch_call *call, const void *message,
                                             void **reply)
{
    struct tab_master *master = self;
    const Google__Bigtable__Admin__V2__ModifyColumnFamiliesRequest *request = message;
    ch_time deadline = tab_admin_deadline(master, call);
    table_meta *table;
    struct base_status status = tab_master_check(master);
    if (base_failed(status))
        return status;
    enum ch_outcome outcome = ch_mutex_lock(&master->schema, deadline);
    if (outcome != CH_OK)
        return ch_outcome_status(outcome, "waiting for another change of tables");
    status = modify(master, request, deadline, ch_call_arena(call), &table);
    ch_mutex_unlock(&master->schema);
    if (!base_failed(status))
        *reply = tab_table_reply(table, GOOGLE__BIGTABLE__ADMIN__V2__TABLE__VIEW__SCHEMA_VIEW,
                                 ch_call_arena(call));
    return status;
}

/* ---- DropRowRange ---- */

static struct base_status drop_in_tablet(struct tab_master *master, uint64_t table,
                                         struct base_bytes row, struct base_bytes start,
                                         struct base_bytes end, ch_time deadline,
                                         struct base_arena *arena,
                                         struct base_bytes *next) CH_WAITS;
static struct base_status drop_in_tablet(struct tab_master *master, uint64_t table,
                                         struct base_bytes row, struct base_bytes start,
                                         struct base_bytes end, ch_time deadline,
                                         struct base_arena *arena, struct base_bytes *next)
{
    for (;;) {
        struct tab_location location;
        struct base_status status =
            tab_metac_locate(master->metac, table, row, deadline, arena, &location);
        if (!base_failed(status)) {
            Strata__Tablet__V1__DropRangeRequest request =
                STRATA__TABLET__V1__DROP_RANGE_REQUEST__INIT;
            void *reply;
            request.table = table;
            request.id = location.tablet;
            request.start = ch_data_of(start);
            request.end = ch_data_of(end);
            *next = location.end;
            status = tab_master_call(master, location.address,
                                     STRATA__TABLET__V1__TABLETSERVER__DROP_RANGE, &request,
                                     deadline, arena, &reply);
        }
        if (!base_failed(status))
            return status;
        tab_metac_forget(master->metac, table, row);
        if ((status.code != BASE_UNAVAILABLE && status.code != BASE_OUT_OF_RANGE) ||
            ch_in(master->env, 50 * CH_MS) >= deadline || ch_cancelled())
            return status;
        base_status_free(&status);
        ch_sleep_until(master->env, ch_in(master->env, 50 * CH_MS));
    }
}

static struct base_status on_drop_row_range(void *self, struct ch_call *call, const void *message,
                                            void **reply) CH_WAITS;
static struct base_status on_drop_row_range(void *self, struct ch_call *call, const void *message,
                                            void **reply)
{
    struct tab_master *master = self;
    const Google__Bigtable__Admin__V2__DropRowRangeRequest *request = message;
    struct base_arena *arena = ch_call_arena(call);
    ch_time deadline = tab_admin_deadline(master, call);
    struct base_bytes prefix = BASE_BYTES_EMPTY;
    *reply = CH_MESSAGE(arena, Google__Protobuf__Empty, google__protobuf__empty);
    if (request->target_case ==
        GOOGLE__BIGTABLE__ADMIN__V2__DROP_ROW_RANGE_REQUEST__TARGET_ROW_KEY_PREFIX)
        prefix = ch_bytes_of(request->row_key_prefix);
    bool all = request->target_case == DELETE_ALL && request->delete_all_data_from_table;
    if (!all && prefix.len == 0)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "DropRowRange: row_key_prefix must be non-empty, or "
                                "delete_all_data_from_table must be true");
    table_meta *table;
    struct tab_meta_row row;
    struct base_status status = tab_master_check(master);
    if (!base_failed(status))
        status =
            tab_master_table(master, ch_bytes_of(request->name), deadline, arena, &table, &row);
    if (base_failed(status))
        return status;
    struct base_buf end = { 0 };
    bool bounded = prefix.len && base_prefix_end(prefix, &end);
    struct base_bytes stop = bounded ? base_buf_bytes(&end) : BASE_BYTES_EMPTY, at = prefix,
                      next = BASE_BYTES_EMPTY;
    do {
        status = drop_in_tablet(master, table->id, at, prefix, stop, deadline, arena, &next);
        at = next;
    } while (!base_failed(status) && at.len && (stop.len == 0 || base_bytes_cmp(at, stop) < 0));
    base_buf_free(&end);
    return status;
}

/* ---- consistency tokens: there is one copy, so everything is consistent at once ---- */

static struct base_status on_generate_token(void *self, struct ch_call *call, const void *message,
                                            void **reply) CH_WAITS;
static struct base_status on_generate_token(void *self, struct ch_call *call, const void *message,
                                            void **reply)
{
    struct tab_master *master = self;
    const Google__Bigtable__Admin__V2__GenerateConsistencyTokenRequest *request = message;
    struct base_arena *arena = ch_call_arena(call);
    table_meta *table;
    struct tab_meta_row row;
    struct base_status status = tab_master_check(master);
    if (!base_failed(status))
        status = tab_master_table(master, ch_bytes_of(request->name),
                                  tab_admin_deadline(master, call), arena, &table, &row);
    if (base_failed(status))
        return status;
    Google__Bigtable__Admin__V2__GenerateConsistencyTokenResponse *response =
        CH_MESSAGE(arena, Google__Bigtable__Admin__V2__GenerateConsistencyTokenResponse,
                   google__bigtable__admin__v2__generate_consistency_token_response);
    response->consistency_token = ch_data_str(
        base_arena_printf(arena, "TokenFor-%.*s", BASE_FMT(ch_bytes_of(request->name))));
    *reply = response;
    return BASE_STATUS_OK;
}

static struct base_status on_check_consistency(void *self, struct ch_call *call,
                                               const void *message, void **reply) CH_WAITS;
static struct base_status on_check_consistency(void *self, struct ch_call *call,
                                               const void *message, void **reply)
{
    struct tab_master *master = self;
    const Google__Bigtable__Admin__V2__CheckConsistencyRequest *request = message;
    struct base_arena *arena = ch_call_arena(call);
    table_meta *table;
    struct tab_meta_row row;
    struct base_status status = tab_master_check(master);
    if (!base_failed(status))
        status = tab_master_table(master, ch_bytes_of(request->name),
                                  tab_admin_deadline(master, call), arena, &table, &row);
    if (base_failed(status))
        return status;
    const char *expected =
        base_arena_printf(arena, "TokenFor-%.*s", BASE_FMT(ch_bytes_of(request->name)));
    if (!base_bytes_eq_str(ch_bytes_of(request->consistency_token), expected))
        return base_status_make(BASE_INVALID_ARGUMENT, "Invalid consistency token");
    Google__Bigtable__Admin__V2__CheckConsistencyResponse *response =
        CH_MESSAGE(arena, Google__Bigtable__Admin__V2__CheckConsistencyResponse,
                   google__bigtable__admin__v2__check_consistency_response);
    response->consistent = true;
    *reply = response;
    return BASE_STATUS_OK;
}

void tab_register_table_admin(struct tab_master *master)
{
    const struct ch_service *service = &google__bigtable__admin__v2__bigtable_table_admin__service;
    const struct ch_method *methods = service->methods;
#define METHOD(NAME) &methods[GOOGLE__BIGTABLE__ADMIN__V2__BIGTABLE_TABLE_ADMIN__##NAME]
    ch_server_add_service(master->rpc, service);
    ch_server_handle(master->rpc, METHOD(CREATE_TABLE), on_create_table, master);
    ch_server_handle(master->rpc, METHOD(GET_TABLE), on_get_table, master);
    ch_server_handle(master->rpc, METHOD(LIST_TABLES), on_list_tables, master);
    ch_server_handle(master->rpc, METHOD(DELETE_TABLE), on_delete_table, master);
    ch_server_handle(master->rpc, METHOD(MODIFY_COLUMN_FAMILIES), on_modify_families, master);
    ch_server_handle(master->rpc, METHOD(DROP_ROW_RANGE), on_drop_row_range, master);
    ch_server_handle(master->rpc, METHOD(GENERATE_CONSISTENCY_TOKEN), on_generate_token, master);
    ch_server_handle(master->rpc, METHOD(CHECK_CONSISTENCY), on_check_consistency, master);
#undef METHOD
}
