/* client.c: see tablet/tablet.h. Works against any service that speaks google.bigtable.v2.
 *
 * Retries (the one layer that does for its calls): reads go on after the last whole row; writes
 * with explicit times are repeated entry by entry, because writing the same cell again changes
 * nothing; what would change something (server times, increments, conditional writes) is sent
 * once, and again only when the peer provably never saw it. */
#include "tablet/tablet.h"

#include <stdlib.h>

#include "client_chunks.h"
#include "chassis/rpc_client.h"
#include "google/bigtable/admin/v2/bigtable_table_admin.strata.h"
#include "google/bigtable/v2/bigtable.strata.h"

enum { BACKOFF_MS_MIN = 10, BACKOFF_MS_MAX = 500 };

#define DATA_METHOD(NAME) \
    (&google__bigtable__v2__bigtable__service.methods[GOOGLE__BIGTABLE__V2__BIGTABLE__##NAME])
#define ADMIN_METHOD(NAME)                                       \
    (&google__bigtable__admin__v2__bigtable_table_admin__service \
          .methods[GOOGLE__BIGTABLE__ADMIN__V2__BIGTABLE_TABLE_ADMIN__##NAME])

struct tab_client {
    struct ch_env *env;
    struct ch_client *rpc;
};

struct tab_client *tab_client_new(struct ch_env *env, const struct tab_client_options *options)
{
    struct tab_client *client = calloc(1, sizeof(*client));
    BASE_ASSERT(client != NULL);
    struct ch_client_options rpc = { .naming = options->naming, .no_retry = true };
    client->env = env;
    client->rpc = ch_client_new(env, options->target, &rpc);
    return client;
}

void tab_client_free(struct tab_client *client)
{
    if (!client)
        return;
    ch_client_free(client->rpc);
    free(client);
}

/* ---- retrying ---- */

static bool transient(enum base_code code)
{
    return code == BASE_UNAVAILABLE || code == BASE_ABORTED || code == BASE_RESOURCE_EXHAUSTED;
}

/* Sleeps before another attempt; false: there is no time for one. Full jitter. */
static bool again(struct tab_client *client, int attempt, ch_time deadline) CH_WAITS;
static bool again(struct tab_client *client, int attempt, ch_time deadline)
{
    int64_t most = (int64_t)BACKOFF_MS_MIN << (attempt < 8 ? attempt : 8);
    if (most > BACKOFF_MS_MAX)
        most = BACKOFF_MS_MAX;
    ch_time until =
        ch_in(client->env, (ch_time)ch_random_below(client->env, (uint64_t)(most * CH_MS)) + CH_MS);
    if (ch_cancelled() || until >= deadline)
        return false;
    return ch_sleep_until(client->env, until) == CH_TIMEOUT;
}

/* A unary call; `repeatable`: may be sent again after an unknown outcome. */
static struct base_status call(struct tab_client *client, const struct ch_method *method,
                               const void *request, bool repeatable, ch_time deadline,
                               struct base_arena *arena, void **reply) CH_WAITS;
static struct base_status call(struct tab_client *client, const struct ch_method *method,
                               const void *request, bool repeatable, ch_time deadline,
                               struct base_arena *arena, void **reply)
{
    for (int attempt = 0;; attempt++) {
        struct ch_call_options options = { .deadline = deadline, .no_retry = true };
        struct base_status status =
            ch_client_call(client->rpc, method, request, &options, arena, reply);
        if (!base_failed(status) || !transient(status.code) ||
            (options.outcome_unknown && !repeatable) || !again(client, attempt, deadline))
            return status;
        base_status_free(&status);
    }
}

/* Whether repeating the mutations changes nothing: every cell is set with a time of its own. */
static bool repeatable(Google__Bigtable__V2__Mutation *const *mutations, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const Google__Bigtable__V2__Mutation *mutation = mutations[i];
        if (mutation->mutation_case == GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_SET_CELL &&
            mutation->set_cell->timestamp_micros == -1)
            return false;
        if (mutation->mutation_case == GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_ADD_TO_CELL ||
            mutation->mutation_case == GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_MERGE_TO_CELL)
            return false;
    }
    return true;
}

/* ---- reading ---- */

struct reading {
    struct tab_client *client;
    const Google__Bigtable__V2__ReadRowsRequest *request;
    struct tab_chunk_reader chunks;
    tab_row_fn *fn;
    void *self;
    bool ended; /* the caller wants no more */
    uint64_t rows;
};

static bool on_row(void *self, const struct tab_row *row)
{
    struct reading *reading = self;
    reading->rows++;
    if (!reading->fn(reading->self, row))
        reading->ended = true;
    return !reading->ended;
}

static struct base_status read_stream(struct reading *reading,
                                      const Google__Bigtable__V2__ReadRowsRequest *request,
                                      ch_time deadline) CH_WAITS;
static struct base_status read_stream(struct reading *reading,
                                      const Google__Bigtable__V2__ReadRowsRequest *request,
                                      ch_time deadline)
{
    /* "bigtable-features": FeatureFlags{reverse_scans, last_scanned_row_responses} in base64:
     * reversed reads need it. */
    static const struct ch_metadata features = { "bigtable-features",
                                                 { (const uint8_t *)"CAEgAQ==", 8 } };
    struct ch_call_options options = {
        .deadline = deadline, .no_retry = true, .metadata = &features, .metadata_count = 1
    };
    struct ch_client_stream *stream;
    struct base_status status =
        ch_client_open(reading->client->rpc, DATA_METHOD(READ_ROWS), &options, &stream);
    if (base_failed(status))
        return status;
    struct base_arena arena = { 0 };
    tab_chunk_reader_restart(&reading->chunks);
    status = ch_stream_send(stream, request);
    if (!base_failed(status))
        status = ch_stream_close_send(stream);
    while (!base_failed(status) && !reading->ended) {
        Google__Bigtable__V2__ReadRowsResponse *message;
        base_arena_reset(&arena);
        status = ch_stream_recv(stream, &arena, (void **)&message);
        if (base_failed(status) || !message)
            break;
        status = tab_chunk_reader_take(&reading->chunks, message, on_row, reading);
    }
    ch_stream_free(stream);
    base_arena_free(&arena);
    return status;
}

struct base_status tab_read_rows(struct tab_client *client,
                                 const Google__Bigtable__V2__ReadRowsRequest *request,
                                 ch_time deadline, tab_row_fn *fn, void *self)
{
    struct reading reading = { .client = client, .request = request, .fn = fn, .self = self };
    tab_chunk_reader_init(&reading.chunks, request->reversed);
    struct base_status status;
    for (int attempt = 0;;) {
        uint64_t rows = reading.rows;
        struct base_arena arena = { 0 };
        Google__Bigtable__V2__ReadRowsRequest rest = *request;
        bool nothing_left = false;
        if (reading.rows > 0)
            nothing_left = !tab_rest_of_request(request, base_buf_bytes(&reading.chunks.last_row),
                                                reading.rows, &arena, &rest);
        status = nothing_left ? BASE_STATUS_OK : read_stream(&reading, &rest, deadline);
        base_arena_free(&arena);
        if (!base_failed(status) || reading.ended || !transient(status.code))
            break;
        attempt = rows == reading.rows ? attempt + 1 : 0;
        if (!again(client, attempt, deadline))
            break;
        base_status_free(&status);
    }
    if (reading.ended)
        base_status_free(&status);
    tab_chunk_reader_destroy(&reading.chunks);
    return status;
}

struct collecting {
    struct base_arena *arena;
    struct tab_row *rows;
    size_t count, cap;
};

static bool collect(void *self, const struct tab_row *row)
{
    struct collecting *all = self;
    if (all->count == all->cap) {
        size_t cap = all->cap ? all->cap * 2 : 8;
        struct tab_row *more = BASE_NEW_ARRAY(all->arena, struct tab_row, cap);
        if (all->count)
            memcpy(more, all->rows, all->count * sizeof(*more));
        all->rows = more;
        all->cap = cap;
    }
    struct tab_row *copy = &all->rows[all->count++];
    copy->key = base_bytes_dup(all->arena, row->key);
    copy->cell_count = row->cell_count;
    copy->cells = BASE_NEW_ARRAY(all->arena, struct tab_cell, row->cell_count);
    for (size_t i = 0; i < row->cell_count; i++) {
        copy->cells[i] =
            (struct tab_cell){ .family = base_bytes_dup(all->arena, row->cells[i].family),
                               .qualifier = base_bytes_dup(all->arena, row->cells[i].qualifier),
                               .value = base_bytes_dup(all->arena, row->cells[i].value),
                               .timestamp_us = row->cells[i].timestamp_us };
    }
    return true;
}

struct base_status tab_read_all(struct tab_client *client,
                                const Google__Bigtable__V2__ReadRowsRequest *request,
                                ch_time deadline, struct base_arena *arena, struct tab_row **rows,
                                size_t *count)
{
    struct collecting all = { .arena = arena };
    struct base_status status = tab_read_rows(client, request, deadline, collect, &all);
    *rows = all.rows;
    *count = all.count;
    return status;
}

/* ---- writing ---- */

struct base_status tab_mutate_row(struct tab_client *client,
                                  const Google__Bigtable__V2__MutateRowRequest *request,
                                  ch_time deadline)
{
    struct base_arena arena = { 0 };
    void *reply;
    struct base_status status =
        call(client, DATA_METHOD(MUTATE_ROW), request,
             repeatable(request->mutations, request->n_mutations), deadline, &arena, &reply);
    base_arena_free(&arena);
    return status;
}

struct mutating {
    size_t *left; /* indexes of entries without an outcome */
    size_t left_count;
    struct base_status first; /* failed for good */
};

static void take_results(struct mutating *mutating,
                         const Google__Bigtable__V2__MutateRowsRequest *request, bool *answered,
                         const Google__Bigtable__V2__MutateRowsResponse *response)
{
    for (size_t i = 0; i < response->n_entries; i++) {
        const Google__Bigtable__V2__MutateRowsResponse__Entry *entry = response->entries[i];
        if (entry->index < 0 || (size_t)entry->index >= mutating->left_count)
            continue;
        size_t index = mutating->left[entry->index];
        int code = entry->status ? entry->status->code : 0;
        bool may_repeat =
            repeatable(request->entries[index]->mutations, request->entries[index]->n_mutations);
        if (code != 0 && transient((enum base_code)code) && may_repeat)
            continue;
        answered[entry->index] = true;
        if (code != 0 && !base_failed(mutating->first))
            mutating->first = base_status_make((enum base_code)code, "entry %zu: %.*s", index,
                                               BASE_FMT(ch_bytes_of(entry->status->message)));
    }
}

static struct base_status mutate_once(struct tab_client *client,
                                      const Google__Bigtable__V2__MutateRowsRequest *request,
                                      struct mutating *mutating, ch_time deadline) CH_WAITS;
static struct base_status mutate_once(struct tab_client *client,
                                      const Google__Bigtable__V2__MutateRowsRequest *request,
                                      struct mutating *mutating, ch_time deadline)
{
    struct base_arena arena = { 0 };
    Google__Bigtable__V2__MutateRowsRequest part = *request;
    part.n_entries = mutating->left_count;
    part.entries = BASE_NEW_ARRAY(&arena, Google__Bigtable__V2__MutateRowsRequest__Entry *,
                                  mutating->left_count);
    for (size_t i = 0; i < mutating->left_count; i++)
        part.entries[i] = request->entries[mutating->left[i]];
    bool *answered = BASE_NEW_ARRAY(&arena, bool, mutating->left_count);
    struct ch_call_options options = { .deadline = deadline, .no_retry = true };
    struct ch_client_stream *stream = NULL;
    struct base_status status =
        ch_client_open(client->rpc, DATA_METHOD(MUTATE_ROWS), &options, &stream);
    bool sent = stream != NULL;
    if (!base_failed(status)) {
        status = ch_stream_send(stream, &part);
        if (!base_failed(status))
            status = ch_stream_close_send(stream);
        Google__Bigtable__V2__MutateRowsResponse *response = NULL;
        while (!base_failed(status)) {
            status = ch_stream_recv(stream, &arena, (void **)&response);
            if (base_failed(status) || !response)
                break;
            take_results(mutating, request, answered, response);
        }
        ch_stream_free(stream);
    }
    size_t left = 0;
    for (size_t i = 0; i < mutating->left_count; i++) {
        const Google__Bigtable__V2__MutateRowsRequest__Entry *entry =
            request->entries[mutating->left[i]];
        if (answered[i])
            continue;
        /* Sent, no answer, and repeating would change something: the caller must know. */
        if (sent && base_failed(status) && !repeatable(entry->mutations, entry->n_mutations)) {
            if (!base_failed(mutating->first))
                mutating->first = base_status_copy(&status);
            continue;
        }
        mutating->left[left++] = mutating->left[i];
    }
    mutating->left_count = left;
    base_arena_free(&arena);
    return status;
}

struct base_status tab_mutate_rows(struct tab_client *client,
                                   const Google__Bigtable__V2__MutateRowsRequest *request,
                                   ch_time deadline)
{
    struct mutating mutating = { .left_count = request->n_entries };
    mutating.left = calloc(request->n_entries + 1, sizeof(*mutating.left));
    BASE_ASSERT(mutating.left != NULL);
    for (size_t i = 0; i < request->n_entries; i++)
        mutating.left[i] = i;
    struct base_status status = BASE_STATUS_OK;
    for (int attempt = 0; mutating.left_count > 0; attempt++) {
        status = mutate_once(client, request, &mutating, deadline);
        if (mutating.left_count == 0 || (base_failed(status) && !transient(status.code)))
            break;
        if (!again(client, attempt, deadline)) {
            if (!base_failed(status))
                status = base_status_make(BASE_UNAVAILABLE,
                                          "%zu of %zu entries were not written in time",
                                          mutating.left_count, request->n_entries);
            break;
        }
        base_status_free(&status);
    }
    if (mutating.left_count == 0)
        base_status_free(&status);
    if (base_failed(mutating.first)) {
        base_status_free(&status);
        status = mutating.first;
    }
    free(mutating.left);
    return status;
}

struct base_status tab_check_and_mutate(
    struct tab_client *client, const Google__Bigtable__V2__CheckAndMutateRowRequest *request,
    ch_time deadline, bool *matched)
{
    struct base_arena arena = { 0 };
    Google__Bigtable__V2__CheckAndMutateRowResponse *reply;
    struct base_status status = call(client, DATA_METHOD(CHECK_AND_MUTATE_ROW), request, false,
                                     deadline, &arena, (void **)&reply);
    if (!base_failed(status))
        *matched = reply->predicate_matched;
    base_arena_free(&arena);
    return status;
}

static void flatten_row(const Google__Bigtable__V2__Row *from, struct base_arena *arena,
                        struct tab_row *row)
{
    size_t count = 0;
    for (size_t f = 0; f < from->n_families; f++)
        for (size_t c = 0; c < from->families[f]->n_columns; c++)
            count += from->families[f]->columns[c]->n_cells;
    row->key = ch_bytes_of(from->key);
    row->cells = BASE_NEW_ARRAY(arena, struct tab_cell, count);
    row->cell_count = 0;
    for (size_t f = 0; f < from->n_families; f++)
        for (size_t c = 0; c < from->families[f]->n_columns; c++) {
            const Google__Bigtable__V2__Column *column = from->families[f]->columns[c];
            for (size_t i = 0; i < column->n_cells; i++)
                row->cells[row->cell_count++] =
                    (struct tab_cell){ .family = ch_bytes_of(from->families[f]->name),
                                       .qualifier = ch_bytes_of(column->qualifier),
                                       .value = ch_bytes_of(column->cells[i]->value),
                                       .timestamp_us = column->cells[i]->timestamp_micros };
        }
}

struct base_status tab_read_modify_write(
    struct tab_client *client, const Google__Bigtable__V2__ReadModifyWriteRowRequest *request,
    ch_time deadline, struct base_arena *arena, struct tab_row *row)
{
    Google__Bigtable__V2__ReadModifyWriteRowResponse *reply;
    struct base_status status = call(client, DATA_METHOD(READ_MODIFY_WRITE_ROW), request, false,
                                     deadline, arena, (void **)&reply);
    *row = (struct tab_row){ 0 };
    if (!base_failed(status) && reply->row)
        flatten_row(reply->row, arena, row);
    return status;
}

/* ---- tables ---- */

struct base_status tab_ensure_table(struct tab_client *client, const char *instance,
                                    const char *table, const struct tab_family_def *families,
                                    size_t family_count, ch_time deadline)
{
    struct base_arena arena = { 0 };
    void *reply;
    Google__Bigtable__Admin__V2__GetTableRequest get =
        GOOGLE__BIGTABLE__ADMIN__V2__GET_TABLE_REQUEST__INIT;
    get.name = ch_data_str(base_arena_printf(&arena, "%s/tables/%s", instance, table));
    struct base_status status =
        call(client, ADMIN_METHOD(GET_TABLE), &get, true, deadline, &arena, &reply);
    if (status.code == BASE_NOT_FOUND) {
        base_status_free(&status);
        Google__Bigtable__Admin__V2__CreateTableRequest create =
            GOOGLE__BIGTABLE__ADMIN__V2__CREATE_TABLE_REQUEST__INIT;
        Google__Bigtable__Admin__V2__Table made = GOOGLE__BIGTABLE__ADMIN__V2__TABLE__INIT;
        create.parent = ch_data_str(instance);
        create.table_id = ch_data_str(table);
        create.table = &made;
        made.n_column_families = family_count;
        made.column_families = BASE_NEW_ARRAY(
            &arena, Google__Bigtable__Admin__V2__Table__ColumnFamiliesEntry *, family_count);
        for (size_t i = 0; i < family_count; i++) {
            Google__Bigtable__Admin__V2__Table__ColumnFamiliesEntry *entry =
                CH_MESSAGE(&arena, Google__Bigtable__Admin__V2__Table__ColumnFamiliesEntry,
                           google__bigtable__admin__v2__table__column_families_entry);
            entry->key = ch_data_str(families[i].name);
            entry->value = CH_MESSAGE(&arena, Google__Bigtable__Admin__V2__ColumnFamily,
                                      google__bigtable__admin__v2__column_family);
            if (families[i].max_versions > 0) {
                Google__Bigtable__Admin__V2__GcRule *rule =
                    CH_MESSAGE(&arena, Google__Bigtable__Admin__V2__GcRule,
                               google__bigtable__admin__v2__gc_rule);
                rule->rule_case = GOOGLE__BIGTABLE__ADMIN__V2__GC_RULE__RULE_MAX_NUM_VERSIONS;
                rule->max_num_versions = families[i].max_versions;
                entry->value->gc_rule = rule;
            }
            made.column_families[i] = entry;
        }
        /* Repeatable here: whoever made it, it is there. */
        status = call(client, ADMIN_METHOD(CREATE_TABLE), &create, true, deadline, &arena, &reply);
        if (status.code == BASE_ALREADY_EXISTS)
            base_status_free(&status);
    }
    base_arena_free(&arena);
    return status;
}
