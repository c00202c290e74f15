/* data_batch.c: MutateRows: many rows in one call, each atomic by itself, a status for each.
 *
 * All entries are checked first: what is wrong with the request refuses it whole, as the service
 * does. Then rounds: the entries without an outcome are queued for the log where the row is
 * here, and sent in one call for each server elsewhere, side by side; what turns out to have
 * moved stays for the next round. */
#include <stdlib.h>

#include "data.h"
#include "google/bigtable/v2/bigtable.strata.h"

enum { REPLY_ENTRIES = 5000, PEERS_A_ROUND = 64 };

struct entry {
    const Google__Bigtable__V2__MutateRowsRequest__Entry *proto;
    bool decided;
    struct base_status status;
    struct tab_wait *wait; /* queued here */
};

struct peer_batch {
    struct batch *batch;
    char address[TAB_ADDRESS_BYTES];
    size_t *indexes, count;
};

struct batch {
    struct tab_server *server;
    struct ch_call *call;
    const Google__Bigtable__V2__MutateRowsRequest *request;
    struct tab_schema *schema;
    struct entry *entries;
    size_t count;
    ch_time deadline;
    bool hop;
};

static void decide(struct entry *entry, struct base_status status)
{
    BASE_ASSERT(!entry->decided);
    entry->decided = true;
    entry->status = status;
}

/* ---- checking ---- */

static struct base_status check_all(struct batch *batch)
{
    size_t mutations = 0;
    if (batch->count == 0)
        return base_status_make(BASE_INVALID_ARGUMENT, "No entries provided");
    for (size_t i = 0; i < batch->count; i++) {
        const Google__Bigtable__V2__MutateRowsRequest__Entry *entry = batch->request->entries[i];
        struct base_status status = tab_row_key_check(ch_bytes_of(entry->row_key));
        if (!base_failed(status) && entry->n_mutations == 0)
            status = base_status_make(BASE_INVALID_ARGUMENT, "No mutations provided");
        if (base_failed(status))
            return base_status_wrap(status, "entry %zu", i);
        mutations += entry->n_mutations;
        batch->entries[i].proto = entry;
    }
    if (mutations > TAB_MUTATIONS_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "%zu mutations; the limit is %d", mutations,
                                TAB_MUTATIONS_MAX);
    return BASE_STATUS_OK;
}

static struct base_status encode(struct batch *batch, struct tab_schema *schema, size_t index,
                                 struct tab_edit *edit)
{
    const Google__Bigtable__V2__MutateRowsRequest__Entry *entry = batch->entries[index].proto;
    return tab_mutations_encode(schema, ch_bytes_of(entry->row_key), entry->mutations,
                                entry->n_mutations, tab_now_us(batch->server), edit);
}

/* An unknown family is every entry's NOT_FOUND; anything else that is wrong refuses the request. */
static struct base_status check_against_schema(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct tab_edit edit = { 0 };
        struct base_status status = encode(batch, batch->schema, i, &edit);
        tab_edit_free(&edit);
        if (status.code != BASE_NOT_FOUND) {
            if (base_failed(status))
                return base_status_wrap(status, "entry %zu", i);
            continue;
        }
        for (size_t other = 0; other < batch->count; other++)
            decide(&batch->entries[other], base_status_copy(&status));
        base_status_free(&status);
        return BASE_STATUS_OK;
    }
    return BASE_STATUS_OK;
}

/* ---- here ---- */

static void write_here(struct batch *batch, struct tab_tablet *tablet, size_t index) CH_WAITS;
static void write_here(struct batch *batch, struct tab_tablet *tablet, size_t index)
{
    struct entry *entry = &batch->entries[index];
    struct base_bytes row = ch_bytes_of(entry->proto->row_key);
    struct base_status status = tab_tablet_enter(tablet, batch->deadline);
    if (status.code == BASE_OUT_OF_RANGE && !batch->hop) {
        base_status_free(&status); /* the next round looks again */
        return;
    }
    if (base_failed(status)) {
        decide(entry, status);
        return;
    }
    struct tab_edit edit = { 0 };
    struct tab_rowlock *lock;
    status = encode(batch, tablet->schema, index, &edit);
    enum ch_outcome outcome = CH_OK;
    if (!base_failed(status))
        outcome = tab_rowlock_take(&tablet->store->rowlocks, tablet->id, row, false,
                                   batch->deadline, &lock);
    if (base_failed(status) || outcome != CH_OK) {
        tab_tablet_leave(tablet);
        decide(entry,
               base_failed(status) ? status : ch_outcome_status(outcome, "waiting for the row"));
    } else {
        entry->wait = tab_wait_new();
        status = tab_tablet_queue(tablet, lock, false, &edit, entry->wait);
        if (base_failed(status)) {
            tab_wait_unref(entry->wait);
            entry->wait = NULL;
            decide(entry, status);
        }
    }
    tab_edit_free(&edit);
}

static void wait_here(struct batch *batch) CH_WAITS;
static void wait_here(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct entry *entry = &batch->entries[i];
        if (!entry->wait)
            continue;
        decide(entry, tab_wait_all(entry->wait, batch->deadline));
        tab_wait_unref(entry->wait);
        entry->wait = NULL;
        ch_count(batch->server->store.rows_written, !base_failed(entry->status));
    }
}

/* ---- elsewhere ---- */

static void take_reply(struct peer_batch *peer,
                       const Google__Bigtable__V2__MutateRowsResponse *response)
{
    for (size_t i = 0; i < response->n_entries; i++) {
        const Google__Bigtable__V2__MutateRowsResponse__Entry *result = response->entries[i];
        if (result->index < 0 || (size_t)result->index >= peer->count)
            continue;
        struct entry *entry = &peer->batch->entries[peer->indexes[result->index]];
        int code = result->status ? result->status->code : 0;
        if (entry->decided || code == BASE_OUT_OF_RANGE)
            continue;
        decide(entry, code == 0 ? BASE_STATUS_OK
                                : base_status_make((enum base_code)code, "%.*s",
                                                   BASE_FMT(ch_bytes_of(result->status->message))));
    }
}

static void peer_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct peer_batch *peer = arg;
    struct batch *batch = peer->batch;
    struct base_arena arena = { 0 };
    Google__Bigtable__V2__MutateRowsRequest request = *batch->request;
    request.n_entries = peer->count;
    request.entries =
        BASE_NEW_ARRAY(&arena, Google__Bigtable__V2__MutateRowsRequest__Entry *, peer->count);
    for (size_t i = 0; i < peer->count; i++)
        request.entries[i] =
            (Google__Bigtable__V2__MutateRowsRequest__Entry *)batch->entries[peer->indexes[i]]
                .proto;
    struct ch_call_options options = tab_hop_options(batch->deadline);
    struct ch_client_stream *stream = NULL;
    struct base_status status =
        ch_client_open(tab_metac_peer(batch->server->store.metac, peer->address),
                       &google__bigtable__v2__bigtable__service
                            .methods[GOOGLE__BIGTABLE__V2__BIGTABLE__MUTATE_ROWS],
                       &options, &stream);
    if (!base_failed(status)) {
        status = ch_stream_send(stream, &request);
        if (!base_failed(status))
            status = ch_stream_close_send(stream);
        Google__Bigtable__V2__MutateRowsResponse *response = NULL;
        while (!base_failed(status)) {
            status = ch_stream_recv(stream, &arena, (void **)&response);
            if (base_failed(status) || !response)
                break;
            take_reply(peer, response);
        }
        ch_stream_free(stream);
    }
    for (size_t i = 0; i < peer->count; i++) {
        struct entry *entry = &batch->entries[peer->indexes[i]];
        if (!entry->decided)
            tab_metac_forget(batch->server->store.metac, batch->schema->table,
                             ch_bytes_of(entry->proto->row_key));
        /* What may have been done is the client's to repeat; what surely was not stays for the
         * next round. */
        if (!entry->decided && base_failed(status) && (options.outcome_unknown || stream) &&
            status.code != BASE_OUT_OF_RANGE)
            decide(entry, base_status_copy(&status));
    }
    base_status_free(&status);
    base_arena_free(&arena);
}

static struct peer_batch *peer_of(struct batch *batch, struct peer_batch *peers, size_t *count,
                                  const char *address, struct base_arena *arena)
{
    for (size_t i = 0; i < *count; i++)
        if (strcmp(peers[i].address, address) == 0)
            return &peers[i];
    if (*count == PEERS_A_ROUND)
        return NULL;
    struct peer_batch *peer = &peers[(*count)++];
    *peer = (struct peer_batch){ .batch = batch,
                                 .indexes = BASE_NEW_ARRAY(arena, size_t, batch->count) };
    memcpy(peer->address, address, sizeof(peer->address));
    return peer;
}

/* ---- rounds ---- */

static struct base_status one_round(struct batch *batch, struct base_arena *arena) CH_WAITS;
static struct base_status one_round(struct batch *batch, struct base_arena *arena)
{
    struct peer_batch *peers = BASE_NEW_ARRAY(arena, struct peer_batch, PEERS_A_ROUND);
    size_t peer_count = 0;
    struct base_status first = BASE_STATUS_OK;
    for (size_t i = 0; i < batch->count; i++) {
        struct entry *entry = &batch->entries[i];
        if (entry->decided)
            continue;
        struct tab_tablet *tablet;
        struct tab_location location;
        struct base_status status =
            tab_route_find(batch->server, batch->schema, ch_bytes_of(entry->proto->row_key),
                           batch->hop, batch->deadline, arena, &tablet, &location);
        if (!base_failed(status) && tablet) {
            write_here(batch, tablet, i);
            tab_tablet_unref(tablet);
        } else if (!base_failed(status)) {
            struct peer_batch *peer = peer_of(batch, peers, &peer_count, location.address, arena);
            if (peer)
                peer->indexes[peer->count++] = i;
        } else if (batch->hop) {
            decide(entry, status);
        } else if (!base_failed(first)) {
            first = status;
        } else {
            base_status_free(&status);
        }
        ch_yield_if_long();
    }
    struct ch_gather gather;
    ch_gather_init(&gather, "MutateRows");
    for (size_t i = 0; i < peer_count; i++)
        ch_gather_add(&gather, peer_fiber, &peers[i]);
    wait_here(batch);
    ch_gather_wait(&gather);
    return first;
}

static bool all_decided(const struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++)
        if (!batch->entries[i].decided)
            return false;
    return true;
}

static void run_rounds(struct batch *batch) CH_WAITS;
static void run_rounds(struct batch *batch)
{
    for (int attempt = 0; !all_decided(batch); attempt++) {
        struct base_arena arena = { 0 };
        struct base_status status = one_round(batch, &arena);
        base_arena_free(&arena);
        if (all_decided(batch)) {
            base_status_free(&status);
            return;
        }
        if (!base_failed(status) || status.code == BASE_NOT_FOUND) {
            base_status_free(&status);
            status = base_status_make(BASE_OUT_OF_RANGE, "the row's tablet is moving");
        }
        if (!tab_route_again(batch->server, &status, false, attempt, batch->deadline)) {
            if (status.code == BASE_OUT_OF_RANGE)
                status.code = BASE_UNAVAILABLE;
            for (size_t i = 0; i < batch->count; i++)
                if (!batch->entries[i].decided)
                    decide(&batch->entries[i], base_status_copy(&status));
        }
        base_status_free(&status);
    }
}

static struct base_status reply_all(struct batch *batch) CH_WAITS;
static struct base_status reply_all(struct batch *batch)
{
    struct base_arena arena = { 0 };
    struct base_status status = BASE_STATUS_OK;
    for (size_t at = 0; at < batch->count && !base_failed(status);) {
        size_t count = batch->count - at < REPLY_ENTRIES ? batch->count - at : REPLY_ENTRIES;
        Google__Bigtable__V2__MutateRowsResponse response =
            GOOGLE__BIGTABLE__V2__MUTATE_ROWS_RESPONSE__INIT;
        response.entries =
            BASE_NEW_ARRAY(&arena, Google__Bigtable__V2__MutateRowsResponse__Entry *, count);
        response.n_entries = count;
        for (size_t i = 0; i < count; i++, at++) {
            const struct base_status *result = &batch->entries[at].status;
            response.entries[i] =
                CH_MESSAGE(&arena, Google__Bigtable__V2__MutateRowsResponse__Entry,
                           google__bigtable__v2__mutate_rows_response__entry);
            response.entries[i]->index = (int64_t)at;
            response.entries[i]->status =
                CH_MESSAGE(&arena, Google__Rpc__Status, google__rpc__status);
            response.entries[i]->status->code = result->code;
            if (base_failed(*result))
                response.entries[i]->status->message = ch_data_str(base_status_text(result));
        }
        status = ch_call_send(batch->call, &response);
        base_arena_reset(&arena);
    }
    base_arena_free(&arena);
    return status;
}

struct base_status tab_on_mutate_rows(void *self, struct ch_call *call) CH_WAITS;
struct base_status tab_on_mutate_rows(void *self, struct ch_call *call)
{
    struct tab_server *server = self;
    Google__Bigtable__V2__MutateRowsRequest *request;
    struct base_status status = ch_call_recv(call, NULL, (void **)&request);
    if (base_failed(status))
        return status;
    if (!request)
        return base_status_make(BASE_INVALID_ARGUMENT, "MutateRows: no request");
    struct batch batch = { .server = server,
                           .call = call,
                           .request = request,
                           .count = request->n_entries,
                           .deadline = tab_call_deadline(server, call),
                           .hop = tab_call_is_hop(call) };
    batch.entries = BASE_NEW_ARRAY(ch_call_arena(call), struct entry, batch.count);
    status = tab_no_views(ch_bytes_of(request->authorized_view_name));
    if (!base_failed(status))
        status = check_all(&batch);
    if (!base_failed(status))
        status = tab_table_name_check(ch_bytes_of(request->table_name));
    if (!base_failed(status))
        status = tab_server_schema(server, ch_bytes_of(request->table_name), false, batch.deadline,
                                   &batch.schema);
    if (base_failed(status))
        return status;
    status = check_against_schema(&batch);
    if (!base_failed(status)) {
        run_rounds(&batch);
        status = reply_all(&batch);
    }
    for (size_t i = 0; i < batch.count; i++)
        base_status_free(&batch.entries[i].status);
    tab_schema_unref(batch.schema);
    return status;
}
