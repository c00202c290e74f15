/* master_schema.c: the tables' records in METADATA's schema rows (meta.h): reading and writing
 * them, telling every live tabletserver, making the tablets of a new table. A table's row is the
 * commit point of its creation and of its deletion; a pass completes what was begun
 * (master_pass.c). */
#include <stdlib.h>

#include "chassis/log.h"
#include "master.h"
#include "master_admin.h"
#include "schema.h"
#include "strata/tablet/v1/tablet.strata.h"

typedef Strata__Tablet__V1__TableMeta table_meta;

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

struct base_status tab_master_put_table(struct tab_master *master, const table_meta *table,
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

struct base_status tab_master_tell_servers(struct tab_master *master, table_meta *table,
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

struct base_status tab_master_table_number(struct tab_master *master, ch_time deadline,
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
        status = tab_master_put_table(master, now, &row, false, deadline);
    }
    base_arena_free(&arena);
    return status;
}
