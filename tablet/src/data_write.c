/* data_write.c: MutateRow, CheckAndMutateRow, ReadModifyWriteRow of google.bigtable.v2. Each
 * validates all, then enters the tablet, takes the row, (reads,) and hands one edit to the log;
 * the reply goes out when it is durable. MutateRows: data_batch.c. */
#include "data.h"

#include <stdlib.h>

#include "google/bigtable/v2/bigtable.strata.h"

#define METHOD(NAME) \
    (&google__bigtable__v2__bigtable__service.methods[GOOGLE__BIGTABLE__V2__BIGTABLE__##NAME])

int64_t tab_now_us(struct tab_server *server)
{
    return ch_wall_us(server->env) / 1000 * 1000;
}

/* Enters, locks and queues an edit; waits for it. */
static struct base_status write_edit(struct tab_tablet *tablet, struct base_bytes row,
                                     struct tab_edit *edit, ch_time deadline) CH_WAITS;
static struct base_status write_edit(struct tab_tablet *tablet, struct base_bytes row,
                                     struct tab_edit *edit, ch_time deadline)
{
    struct base_status status = tab_tablet_enter(tablet, deadline);
    if (base_failed(status))
        return status;
    struct tab_rowlock *lock;
    enum ch_outcome outcome =
        tab_rowlock_take(&tablet->store->rowlocks, tablet->id, row, false, deadline, &lock);
    if (outcome != CH_OK) {
        tab_tablet_leave(tablet);
        return ch_outcome_status(outcome, "waiting for the row");
    }
    struct tab_wait *wait = tab_wait_new();
    status = tab_tablet_queue(tablet, lock, false, edit, wait);
    if (!base_failed(status))
        status = tab_wait_all(wait, deadline);
    tab_wait_unref(wait);
    return status;
}

/* ---- MutateRow ---- */

static struct base_status mutate_local(struct tab_server *server, struct tab_tablet *tablet,
                                       struct ch_call *call, const void *request,
                                       void **reply) CH_WAITS;
static struct base_status mutate_local(struct tab_server *server, struct tab_tablet *tablet,
                                       struct ch_call *call, const void *request, void **reply)
{
    const Google__Bigtable__V2__MutateRowRequest *mutate = request;
    struct tab_edit edit = { 0 };
    struct base_bytes row = ch_bytes_of(mutate->row_key);
    struct base_status status = tab_mutations_encode(
        tablet->schema, row, mutate->mutations, mutate->n_mutations, tab_now_us(server), &edit);
    if (!base_failed(status))
        status = write_edit(tablet, row, &edit, tab_call_deadline(server, call));
    tab_edit_free(&edit);
    *reply = CH_MESSAGE(ch_call_arena(call), Google__Bigtable__V2__MutateRowResponse,
                        google__bigtable__v2__mutate_row_response);
    ch_count(server->store.rows_written, !base_failed(status));
    return status;
}

struct base_status tab_no_views(struct base_bytes view)
{
    return view.len ? base_status_make(BASE_UNIMPLEMENTED, "views are not supported")
                    : BASE_STATUS_OK;
}

struct base_status tab_on_mutate_row(void *self, struct ch_call *call, const void *request,
                                     void **reply) CH_WAITS;
struct base_status tab_on_mutate_row(void *self, struct ch_call *call, const void *request,
                                     void **reply)
{
    const Google__Bigtable__V2__MutateRowRequest *mutate = request;
    struct base_status status = tab_no_views(ch_bytes_of(mutate->authorized_view_name));
    if (!base_failed(status))
        status = tab_row_key_check(ch_bytes_of(mutate->row_key));
    if (!base_failed(status) && mutate->n_mutations == 0)
        status = base_status_make(BASE_INVALID_ARGUMENT, "No mutations provided");
    if (base_failed(status))
        return status;
    return tab_route_row(self, call, METHOD(MUTATE_ROW), request, ch_bytes_of(mutate->table_name),
                         ch_bytes_of(mutate->row_key), mutate_local, reply);
}

/* ---- reading one row under its lock ---- */

static void note_match(void *self, const struct tab_out_cell *cell)
{
    *(bool *)self = true;
}

/* Whether any cell of the row comes through the filter. */
static struct base_status row_matches(struct tab_tablet *tablet, struct base_bytes row,
                                      struct tab_filter *filter, bool *matched) CH_WAITS;
static struct base_status row_matches(struct tab_tablet *tablet, struct base_bytes row,
                                      struct tab_filter *filter, bool *matched)
{
    struct tab_cursor cursor;
    struct base_bytes found;
    struct base_status status = BASE_STATUS_OK;
    *matched = false;
    tab_cursor_open(&cursor, tablet, &row, tab_filter_hint(filter));
    tab_row_reader_seek(&cursor.reader, row);
    if (tab_row_reader_next_row(&cursor.reader, &found) && base_bytes_eq(found, row) &&
        tab_filter_begin(filter, row, ch_random(tablet->store->env), note_match, matched)) {
        struct tab_cell_view cell;
        bool done = false;
        while (!*matched && !done && !base_failed(status) &&
               tab_row_reader_next_cell(&cursor.reader, &cell))
            status = tab_filter_push(filter, &cell, &done);
        if (!base_failed(status) && !*matched)
            status = tab_filter_end(filter);
    }
    if (!base_failed(status))
        status = tab_row_reader_status(&cursor.reader);
    tab_cursor_close(&cursor);
    return status;
}

/* ---- CheckAndMutateRow ---- */

static struct base_status check_locked(struct tab_server *server, struct tab_tablet *tablet,
                                       struct tab_rowlock *lock,
                                       const Google__Bigtable__V2__CheckAndMutateRowRequest *check,
                                       struct tab_filter *filter, ch_time deadline,
                                       bool *matched) CH_WAITS;
static struct base_status check_locked(struct tab_server *server, struct tab_tablet *tablet,
                                       struct tab_rowlock *lock,
                                       const Google__Bigtable__V2__CheckAndMutateRowRequest *check,
                                       struct tab_filter *filter, ch_time deadline, bool *matched)
{
    struct tab_edit edit = { 0 };
    struct base_bytes row = ch_bytes_of(check->row_key);
    struct base_status status = row_matches(tablet, row, filter, matched);
    size_t count = *matched ? check->n_true_mutations : check->n_false_mutations;
    if (!base_failed(status) && count)
        status = tab_mutations_encode(tablet->schema, row,
                                      *matched ? check->true_mutations : check->false_mutations,
                                      count, tab_now_us(server), &edit);
    if (base_failed(status) || count == 0) {
        tab_rowlock_release(&tablet->store->rowlocks, lock, true);
        tab_tablet_leave(tablet);
        tab_edit_free(&edit);
        return status;
    }
    struct tab_wait *wait = tab_wait_new();
    status = tab_tablet_queue(tablet, lock, true, &edit, wait);
    if (!base_failed(status))
        status = tab_wait_all(wait, deadline);
    tab_wait_unref(wait);
    tab_edit_free(&edit);
    return status;
}

/* Both lists are checked before anything is read. */
static struct base_status check_lists(struct tab_server *server, struct tab_tablet *tablet,
                                      const Google__Bigtable__V2__CheckAndMutateRowRequest *check)
{
    struct tab_edit edit = { 0 };
    struct base_bytes row = ch_bytes_of(check->row_key);
    struct base_status status = BASE_STATUS_OK;
    if (check->n_true_mutations)
        status = tab_mutations_encode(tablet->schema, row, check->true_mutations,
                                      check->n_true_mutations, tab_now_us(server), &edit);
    if (!base_failed(status) && check->n_false_mutations)
        status = tab_mutations_encode(tablet->schema, row, check->false_mutations,
                                      check->n_false_mutations, tab_now_us(server), &edit);
    tab_edit_free(&edit);
    return status;
}

static struct base_status check_local(struct tab_server *server, struct tab_tablet *tablet,
                                      struct ch_call *call, const void *request,
                                      void **reply) CH_WAITS;
static struct base_status check_local(struct tab_server *server, struct tab_tablet *tablet,
                                      struct ch_call *call, const void *request, void **reply)
{
    const Google__Bigtable__V2__CheckAndMutateRowRequest *check = request;
    ch_time deadline = tab_call_deadline(server, call);
    struct base_bytes row = ch_bytes_of(check->row_key);
    struct tab_filter *filter;
    struct base_status status = check_lists(server, tablet, check);
    if (!base_failed(status))
        status = tab_filter_compile(check->predicate_filter, tablet->schema, ch_call_arena(call),
                                    &filter);
    if (base_failed(status))
        return status;
    status = tab_tablet_enter(tablet, deadline);
    bool matched = false;
    if (!base_failed(status)) {
        struct tab_rowlock *lock;
        enum ch_outcome outcome =
            tab_rowlock_take(&tablet->store->rowlocks, tablet->id, row, true, deadline, &lock);
        if (outcome == CH_OK) {
            status = check_locked(server, tablet, lock, check, filter, deadline, &matched);
        } else {
            tab_tablet_leave(tablet);
            status = ch_outcome_status(outcome, "waiting for the row");
        }
    }
    tab_filter_destroy(filter);
    Google__Bigtable__V2__CheckAndMutateRowResponse *response =
        CH_MESSAGE(ch_call_arena(call), Google__Bigtable__V2__CheckAndMutateRowResponse,
                   google__bigtable__v2__check_and_mutate_row_response);
    response->predicate_matched = matched;
    *reply = response;
    ch_count(server->store.rows_written, !base_failed(status));
    return status;
}

struct base_status tab_on_check_and_mutate(void *self, struct ch_call *call, const void *request,
                                           void **reply) CH_WAITS;
struct base_status tab_on_check_and_mutate(void *self, struct ch_call *call, const void *request,
                                           void **reply)
{
    const Google__Bigtable__V2__CheckAndMutateRowRequest *check = request;
    struct base_status status = tab_no_views(ch_bytes_of(check->authorized_view_name));
    if (!base_failed(status))
        status = tab_row_key_check(ch_bytes_of(check->row_key));
    if (!base_failed(status) && check->n_true_mutations + check->n_false_mutations == 0)
        status = base_status_make(BASE_INVALID_ARGUMENT, "No mutations provided");
    if (base_failed(status))
        return status;
    return tab_route_row(self, call, METHOD(CHECK_AND_MUTATE_ROW), request,
                         ch_bytes_of(check->table_name), ch_bytes_of(check->row_key), check_local,
                         reply);
}

/* ---- ReadModifyWriteRow ---- */

struct rmw_cell { /* the newest cell of a column, as read or as a former rule left it */
    const struct tab_family *family;
    struct base_bytes qualifier, value;
    int64_t timestamp_us;
    bool found;
    struct rmw_cell *next;
};

static struct rmw_cell *rmw_find(struct rmw_cell *cells, const struct tab_family *family,
                                 struct base_bytes qualifier)
{
    for (; cells; cells = cells->next)
        if (cells->family->id == family->id && base_bytes_eq(cells->qualifier, qualifier))
            return cells;
    return NULL;
}

static struct base_status rmw_apply(struct rmw_cell *cell,
                                    const Google__Bigtable__V2__ReadModifyWriteRule *rule,
                                    int64_t now_us, struct base_arena *arena)
{
    if (rule->rule_case == GOOGLE__BIGTABLE__V2__READ_MODIFY_WRITE_RULE__RULE_APPEND_VALUE) {
        uint8_t *value = base_arena_alloc(arena, cell->value.len + rule->append_value.len);
        if (cell->value.len)
            memcpy(value, cell->value.data, cell->value.len);
        if (rule->append_value.len)
            memcpy(value + cell->value.len, rule->append_value.data, rule->append_value.len);
        cell->value = base_bytes(value, cell->value.len + rule->append_value.len);
        if (cell->value.len > TAB_CELL_MAX)
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "Cell value is %zu bytes; the limit is %d", cell->value.len,
                                    TAB_CELL_MAX);
    } else if (rule->rule_case ==
               GOOGLE__BIGTABLE__V2__READ_MODIFY_WRITE_RULE__RULE_INCREMENT_AMOUNT) {
        if (cell->found && cell->value.len != 8)
            return base_status_make(BASE_FAILED_PRECONDITION,
                                    "ReadModifyWriteRow: the cell is %zu bytes; only an 8-byte "
                                    "big-endian integer can be incremented",
                                    cell->value.len);
        uint64_t number = cell->found ? base_get_be64(cell->value.data) : 0;
        uint8_t *value = base_arena_alloc(arena, 8);
        base_put_be64(value, number + (uint64_t)rule->increment_amount);
        cell->value = base_bytes(value, 8);
    } else {
        return base_status_make(BASE_INVALID_ARGUMENT, "ReadModifyWriteRule: no rule is set");
    }
    cell->timestamp_us = cell->found && cell->timestamp_us > now_us ? cell->timestamp_us : now_us;
    cell->found = true;
    return BASE_STATUS_OK;
}

/* The newest live cell of each column that a rule names. */
static struct base_status rmw_read(struct tab_tablet *tablet, struct base_bytes row,
                                   struct rmw_cell *cells, struct base_arena *arena) CH_WAITS;
static struct base_status rmw_read(struct tab_tablet *tablet, struct base_bytes row,
                                   struct rmw_cell *cells, struct base_arena *arena)
{
    struct tab_cursor cursor;
    struct base_bytes found;
    tab_cursor_open(&cursor, tablet, &row, (struct tab_read_hint){ .column_cells = 1 });
    tab_row_reader_seek(&cursor.reader, row);
    if (tab_row_reader_next_row(&cursor.reader, &found) && base_bytes_eq(found, row)) {
        struct tab_cell_view view;
        while (tab_row_reader_next_cell(&cursor.reader, &view)) {
            struct rmw_cell *cell = rmw_find(cells, view.family, view.qualifier);
            if (!cell || cell->found)
                continue;
            cell->found = true;
            cell->value = base_bytes_dup(arena, view.value);
            cell->timestamp_us = view.timestamp_us;
        }
    }
    struct base_status status = tab_row_reader_status(&cursor.reader);
    tab_cursor_close(&cursor);
    return status;
}

static struct base_status rmw_columns(struct tab_tablet *tablet, struct tab_schema *schema,
                                      const Google__Bigtable__V2__ReadModifyWriteRowRequest *rmw,
                                      struct base_arena *arena, struct rmw_cell **cells)
{
    struct rmw_cell **end = cells;
    for (size_t i = 0; i < rmw->n_rules; i++) {
        const Google__Bigtable__V2__ReadModifyWriteRule *rule = rmw->rules[i];
        const struct tab_family *family = tab_schema_family(schema, ch_bytes_of(rule->family_name));
        if (!family)
            return tab_no_family(schema, ch_bytes_of(rmw->row_key));
        if (rule->column_qualifier.len > TAB_QUALIFIER_MAX)
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "Column qualifier is %zu bytes; the limit is %d",
                                    rule->column_qualifier.len, TAB_QUALIFIER_MAX);
        if (rmw_find(*cells, family, ch_bytes_of(rule->column_qualifier)))
            continue;
        struct rmw_cell *cell = BASE_NEW(arena, struct rmw_cell);
        cell->family = family;
        cell->qualifier = ch_bytes_of(rule->column_qualifier);
        *end = cell;
        end = &cell->next;
    }
    return BASE_STATUS_OK;
}

static Google__Bigtable__V2__Family *family_of(Google__Bigtable__V2__Row *row,
                                               struct base_bytes name, size_t columns_max,
                                               struct base_arena *arena)
{
    for (size_t i = 0; i < row->n_families; i++)
        if (base_bytes_eq(ch_bytes_of(row->families[i]->name), name))
            return row->families[i];
    Google__Bigtable__V2__Family *family =
        CH_MESSAGE(arena, Google__Bigtable__V2__Family, google__bigtable__v2__family);
    family->name = ch_data_of(name);
    family->columns = BASE_NEW_ARRAY(arena, Google__Bigtable__V2__Column *, columns_max);
    row->families[row->n_families++] = family;
    return family;
}

static void rmw_reply(const struct rmw_cell *cells, struct base_bytes key, size_t count,
                      struct base_arena *arena, void **reply)
{
    Google__Bigtable__V2__ReadModifyWriteRowResponse *response =
        CH_MESSAGE(arena, Google__Bigtable__V2__ReadModifyWriteRowResponse,
                   google__bigtable__v2__read_modify_write_row_response);
    Google__Bigtable__V2__Row *row =
        CH_MESSAGE(arena, Google__Bigtable__V2__Row, google__bigtable__v2__row);
    row->key = ch_data_of(key);
    row->families = BASE_NEW_ARRAY(arena, Google__Bigtable__V2__Family *, count);
    for (; cells; cells = cells->next) {
        struct base_bytes name = base_bytes_dup(arena, cells->family->name);
        Google__Bigtable__V2__Family *family = family_of(row, name, count, arena);
        Google__Bigtable__V2__Column *column =
            CH_MESSAGE(arena, Google__Bigtable__V2__Column, google__bigtable__v2__column);
        Google__Bigtable__V2__Cell *cell =
            CH_MESSAGE(arena, Google__Bigtable__V2__Cell, google__bigtable__v2__cell);
        cell->timestamp_micros = cells->timestamp_us;
        cell->value = ch_data_of(cells->value);
        column->qualifier = ch_data_of(cells->qualifier);
        column->cells = base_arena_memdup(arena, &cell, sizeof(cell));
        column->n_cells = 1;
        family->columns[family->n_columns++] = column;
    }
    response->row = row;
    *reply = response;
}

static struct base_status rmw_locked(struct tab_server *server, struct tab_tablet *tablet,
                                     struct tab_rowlock *lock, struct ch_call *call,
                                     const Google__Bigtable__V2__ReadModifyWriteRowRequest *rmw,
                                     struct tab_schema *schema, struct rmw_cell *cells,
                                     void **reply) CH_WAITS;
static struct base_status rmw_locked(struct tab_server *server, struct tab_tablet *tablet,
                                     struct tab_rowlock *lock, struct ch_call *call,
                                     const Google__Bigtable__V2__ReadModifyWriteRowRequest *rmw,
                                     struct tab_schema *schema, struct rmw_cell *cells,
                                     void **reply)
{
    struct base_arena *arena = ch_call_arena(call);
    struct base_bytes row = ch_bytes_of(rmw->row_key);
    int64_t now_us = tab_now_us(server);
    struct base_status status = rmw_read(tablet, row, cells, arena);
    for (size_t i = 0; i < rmw->n_rules && !base_failed(status); i++) {
        const struct tab_family *family =
            tab_schema_family(schema, ch_bytes_of(rmw->rules[i]->family_name));
        status = rmw_apply(rmw_find(cells, family, ch_bytes_of(rmw->rules[i]->column_qualifier)),
                           rmw->rules[i], now_us, arena);
    }
    if (base_failed(status)) {
        tab_rowlock_release(&tablet->store->rowlocks, lock, true);
        tab_tablet_leave(tablet);
        return status;
    }
    struct tab_edit edit = { 0 };
    for (struct rmw_cell *cell = cells; cell; cell = cell->next)
        tab_edit_set_cell(&edit, row, cell->family, cell->qualifier, cell->timestamp_us,
                          cell->value);
    struct tab_wait *wait = tab_wait_new();
    status = tab_tablet_queue(tablet, lock, true, &edit, wait);
    if (!base_failed(status))
        status = tab_wait_all(wait, tab_call_deadline(server, call));
    tab_wait_unref(wait);
    if (!base_failed(status))
        rmw_reply(cells, row, rmw->n_rules, arena, reply);
    return status;
}

static struct base_status rmw_local(struct tab_server *server, struct tab_tablet *tablet,
                                    struct ch_call *call, const void *request,
                                    void **reply) CH_WAITS;
static struct base_status rmw_local(struct tab_server *server, struct tab_tablet *tablet,
                                    struct ch_call *call, const void *request, void **reply)
{
    const Google__Bigtable__V2__ReadModifyWriteRowRequest *rmw = request;
    ch_time deadline = tab_call_deadline(server, call);
    struct tab_schema *schema = tab_schema_ref(tablet->schema);
    struct rmw_cell *cells = NULL;
    struct base_status status = rmw_columns(tablet, schema, rmw, ch_call_arena(call), &cells);
    if (!base_failed(status))
        status = tab_tablet_enter(tablet, deadline);
    if (!base_failed(status)) {
        struct tab_rowlock *lock;
        enum ch_outcome outcome = tab_rowlock_take(
            &tablet->store->rowlocks, tablet->id, ch_bytes_of(rmw->row_key), true, deadline, &lock);
        if (outcome == CH_OK) {
            status = rmw_locked(server, tablet, lock, call, rmw, schema, cells, reply);
        } else {
            tab_tablet_leave(tablet);
            status = ch_outcome_status(outcome, "waiting for the row");
        }
    }
    tab_schema_unref(schema);
    ch_count(server->store.rows_written, !base_failed(status));
    return status;
}

struct base_status tab_on_read_modify_write(void *self, struct ch_call *call, const void *request,
                                            void **reply) CH_WAITS;
struct base_status tab_on_read_modify_write(void *self, struct ch_call *call, const void *request,
                                            void **reply)
{
    const Google__Bigtable__V2__ReadModifyWriteRowRequest *rmw = request;
    struct base_status status = tab_no_views(ch_bytes_of(rmw->authorized_view_name));
    if (!base_failed(status))
        status = tab_row_key_check(ch_bytes_of(rmw->row_key));
    if (!base_failed(status) && rmw->n_rules == 0)
        status = base_status_make(BASE_INVALID_ARGUMENT, "No rules provided");
    if (!base_failed(status) && rmw->n_rules > TAB_MUTATIONS_MAX)
        status = base_status_make(BASE_INVALID_ARGUMENT, "%zu rules; the limit is %d", rmw->n_rules,
                                  TAB_MUTATIONS_MAX);
    if (base_failed(status))
        return status;
    return tab_route_row(self, call, METHOD(READ_MODIFY_WRITE_ROW), request,
                         ch_bytes_of(rmw->table_name), ch_bytes_of(rmw->row_key), rmw_local, reply);
}
