/* master_table.c: BigtableTableAdmin: tables and families live in METADATA's schema rows
 * (meta.h); this writes them, tells every live tabletserver, and makes and drops tablets. A
 * table's row is the commit point of its creation and of its deletion. */
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

/* ---- reading the tables ---- */

static struct base_status decode_table(struct base_bytes value, struct base_arena *arena,
                                       table_meta **table)
{
    return ch_proto_decode(&strata__tablet__v1__table_meta__descriptor, value, arena,
                           (ProtobufCMessage **)table);
}

struct base_status tab_master_tables(struct tab_master *master, const char *prefix,
                                     ch_time deadline, struct base_arena *arena,
                                     table_meta ***tables, size_t *count)
{
    struct base_buf start = { 0 }, end = { 0 };
    struct tab_meta_row *rows;
    tab_meta_schema_key(&start, 't', base_bytes_str(prefix));
    *count = 0;
    if (!base_prefix_end(base_buf_bytes(&start), &end))
        base_buf_put_be64(&end, TAB_TABLE_SCHEMA + 1);
    size_t row_count = 0;
    struct base_status status =
        tab_metac_scan(master->metac, base_buf_bytes(&start), base_buf_bytes(&end), 0, deadline,
                       arena, &rows, &row_count);
    *tables = BASE_NEW_ARRAY(arena, table_meta *, row_count);
    for (size_t i = 0; i < row_count && !base_failed(status); i++) {
        status = decode_table(rows[i].value, arena, &(*tables)[*count]);
        *count += !base_failed(status);
    }
    base_buf_free(&start);
    base_buf_free(&end);
    return status;
}

struct base_status tab_master_table(struct tab_master *master, struct base_bytes name,
                                    ch_time deadline, struct base_arena *arena, table_meta **table,
                                    struct tab_meta_row *row)
{
    struct base_buf key = { 0 };
    tab_meta_schema_key(&key, 't', name);
    struct base_status status =
        tab_metac_get(master->metac, base_buf_bytes(&key), deadline, arena, row);
    base_buf_free(&key);
    if (status.code == BASE_NOT_FOUND) {
        base_status_free(&status);
        return base_status_make(BASE_NOT_FOUND, "Table not found: %s",
                                base_bytes_show(arena, name, 300));
    }
    return base_failed(status) ? status : decode_table(row->value, arena, table);
}

struct base_status tab_master_tablets(struct tab_master *master, uint64_t table, ch_time deadline,
                                      struct base_arena *arena,
                                      Strata__Tablet__V1__TabletMeta ***tablets,
                                      struct tab_meta_row **rows, size_t *count)
{
    struct base_buf start = { 0 }, end = { 0 };
    tab_meta_table_range(table, &start, &end);
    struct base_status status =
        tab_metac_scan(master->metac, base_buf_bytes(&start), base_buf_bytes(&end), 0, deadline,
                       arena, rows, count);
    base_buf_free(&start);
    base_buf_free(&end);
    if (base_failed(status))
        return status;
    *tablets = BASE_NEW_ARRAY(arena, Strata__Tablet__V1__TabletMeta *, *count);
    for (size_t i = 0; i < *count && !base_failed(status); i++)
        status = tab_meta_decode((*rows)[i].value, arena, &(*tablets)[i]);
    return status;
}

/* ---- writing them ---- */

static struct base_status write_table(struct tab_master *master, const table_meta *table,
                                      struct tab_meta_row *row, bool create,
                                      ch_time deadline) CH_WAITS;
static struct base_status write_table(struct tab_master *master, const table_meta *table,
                                      struct tab_meta_row *row, bool create, ch_time deadline)
{
    struct base_buf value = { 0 };
    ch_proto_encode(&table->base, &value);
    row->value = base_buf_bytes(&value);
    struct base_status status = tab_metac_write(master->metac, row, create, deadline);
    row->value = BASE_BYTES_EMPTY;
    base_buf_free(&value);
    return status;
}

/* Every live tabletserver knows the schema when it returns: who cannot be told must be dead (and
 * will read METADATA). */
static struct base_status tell_servers(struct tab_master *master, table_meta *table,
                                       ch_time deadline) CH_WAITS;
static struct base_status tell_servers(struct tab_master *master, table_meta *table,
                                       ch_time deadline)
{
    struct base_arena arena = { 0 };
    struct base_status status;
    for (;;) {
        struct tab_live *live;
        size_t count;
        bool all = true;
        status = tab_master_live(master, deadline, &arena, &live, &count);
        for (size_t i = 0; i < count && !base_failed(status); i++) {
            Strata__Tablet__V1__SetSchemaRequest request =
                STRATA__TABLET__V1__SET_SCHEMA_REQUEST__INIT;
            void *reply;
            request.table = table;
            if (live[i].alive &&
                base_status_drop(tab_master_call(
                    master, live[i].address, STRATA__TABLET__V1__TABLETSERVER__SET_SCHEMA, &request,
                    ch_in(master->env, 2 * CH_S), &arena, &reply)) != BASE_OK)
                all = false;
        }
        if (base_failed(status) || all)
            break;
        if (ch_in(master->env, 100 * CH_MS) >= deadline ||
            ch_sleep_until(master->env, ch_in(master->env, 100 * CH_MS)) != CH_TIMEOUT) {
            status = base_status_make(BASE_UNAVAILABLE,
                                      "a tabletserver could not be told of the new schema");
            break;
        }
        base_arena_reset(&arena);
    }
    base_arena_free(&arena);
    return status;
}

static struct base_status next_table_number(struct tab_master *master, ch_time deadline,
                                            uint64_t *number) CH_WAITS;
static struct base_status next_table_number(struct tab_master *master, ch_time deadline,
                                            uint64_t *number)
{
    struct base_arena arena = { 0 };
    struct base_buf key = { 0 };
    struct tab_meta_row row = { 0 };
    uint8_t value[8];
    tab_meta_schema_key(&key, 'n', BASE_BYTES_EMPTY);
    struct base_status status =
        tab_metac_get(master->metac, base_buf_bytes(&key), deadline, &arena, &row);
    bool create = status.code == BASE_NOT_FOUND;
    if (create)
        base_status_free(&status);
    if (!base_failed(status)) {
        *number = create || row.value.len != 8 ? TAB_TABLE_FIRST : base_get_be64(row.value.data);
        base_put_be64(value, *number + 1);
        row.key = base_buf_bytes(&key);
        row.value = base_bytes(value, sizeof(value));
        status = tab_metac_write(master->metac, &row, create, deadline);
    }
    base_buf_free(&key);
    base_arena_free(&arena);
    return base_failed(status) ? base_status_wrap(status, "table number") : status;
}

/* ---- tablets of a new table ---- */

struct make_job {
    struct tab_master *master;
    const table_meta *table;
    Strata__Tablet__V1__TabletMeta meta;
    struct tab_live *to;
    const char *name;
    ch_time deadline;
    struct base_status status;
};

static void make_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct make_job *job = arg;
    struct base_buf key = { 0 }, value = { 0 };
    job->meta.server = ch_data_str(job->to->server);
    job->meta.address = ch_data_str(job->to->address);
    tab_meta_key(&key, job->meta.table, ch_bytes_of(job->meta.end));
    ch_proto_encode(&job->meta.base, &value);
    struct tab_meta_row row = { .key = base_buf_bytes(&key), .value = base_buf_bytes(&value) };
    job->status = tab_metac_write(job->master->metac, &row, true, job->deadline);
    if (job->status.code == BASE_FAILED_PRECONDITION) /* an earlier attempt made it */
        base_status_free(&job->status);
    else if (!base_failed(job->status))
        job->status =
            tab_master_load(job->master, &job->meta, job->name, job->to->address, job->deadline);
    base_buf_free(&key);
    base_buf_free(&value);
}

struct base_status tab_master_make_tablets(struct tab_master *master, const table_meta *table,
                                           ch_time deadline)
{
    enum { SIDE_BY_SIDE = 16 };
    struct base_arena arena = { 0 };
    struct tab_live *live;
    size_t live_count;
    struct base_status status = tab_master_live(master, deadline, &arena, &live, &live_count);
    size_t count = table->n_splits + 1, turn = 0;
    struct make_job *jobs = BASE_NEW_ARRAY(&arena, struct make_job, count);
    char *name = base_bytes_cstr(&arena, ch_bytes_of(table->name));
    for (size_t i = 0; i < live_count; i++)
        live[i].reported = live[i].alive;
    if (!base_failed(status) && !tab_live_least(live, live_count))
        status = base_status_make(BASE_UNAVAILABLE, "there is no tabletserver");
    turn = live_count ? ch_random_below(master->env, live_count) : 0;
    for (size_t i = 0; i < count && !base_failed(status); i++) {
        struct make_job *job = &jobs[i];
        while (!live[turn % live_count].alive)
            turn++;
        *job = (struct make_job){ .master = master,
                                  .table = table,
                                  .name = name,
                                  .deadline = deadline,
                                  .to = &live[turn++ % live_count] };
        strata__tablet__v1__tablet_meta__init(&job->meta);
        job->meta.id = ch_random(master->env) | 1;
        job->meta.table = table->id;
        job->meta.start = i > 0 ? table->splits[i - 1] : ch_data_of(BASE_BYTES_EMPTY);
        job->meta.end = i < table->n_splits ? table->splits[i] : ch_data_of(BASE_BYTES_EMPTY);
    }
    for (size_t at = 0; at < count && !base_failed(status); at += SIDE_BY_SIDE) {
        struct ch_gather gather;
        ch_gather_init(&gather, "make tablets");
        for (size_t i = at; i < count && i < at + SIDE_BY_SIDE; i++)
            ch_gather_add(&gather, make_fiber, &jobs[i]);
        ch_gather_wait(&gather);
        for (size_t i = at; i < count && i < at + SIDE_BY_SIDE; i++) {
            if (base_failed(status))
                base_status_free(&jobs[i].status);
            else
                status = jobs[i].status;
        }
    }
    /* The rows are there: the table is complete, whoever serves them. */
    struct tab_meta_row row;
    table_meta *now;
    if (!base_failed(status))
        status = tab_master_table(master, ch_bytes_of(table->name), deadline, &arena, &now, &row);
    if (!base_failed(status) && now->id == table->id && now->creating) {
        now->creating = false;
        now->n_splits = 0;
        status = write_table(master, now, &row, false, deadline);
    }
    base_arena_free(&arena);
    return status;
}

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
    struct base_status status = next_table_number(master, deadline, &table->id);
    if (!base_failed(status)) {
        status = write_table(master, table, &row, true, deadline);
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
    base_status_drop(tell_servers(master, table, deadline));
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
    status = write_table(master, *table, &row, false, deadline);
    return base_failed(status) ? status : tell_servers(master, *table, deadline);
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
