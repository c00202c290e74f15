/* logsort.c: SortLog: a dead server's sealed log, segment by segment, into one redo file for
 * each tablet (Bigtable 6: so each new server reads only what concerns its tablets). Records are
 * gathered in memory and spilled as frames; numbers, not the order in the file, decide at
 * replay. The directory is new with each attempt, so a half-done one harms nobody. */
#include <stdio.h>
#include <stdlib.h>

#include "chassis/log.h"
#include "internal.h"
#include "log_format.h"

enum { SPILL_BYTES = 1 << 20, TOTAL_BYTES = 64 << 20, STEP_TIMEOUT_S = 20 };

struct pile { /* of one tablet */
    uint64_t tablet, records, tail, batches;
    struct base_buf payload;
    struct blk_writer *out;
    char path[320];
};

struct sort {
    struct tab_server *server;
    const char *directory;
    struct pile *piles;
    size_t count, cap, bytes;
};

static struct pile *pile_of(struct sort *sort, uint64_t tablet)
{
    for (size_t i = 0; i < sort->count; i++)
        if (sort->piles[i].tablet == tablet)
            return &sort->piles[i];
    if (sort->count == sort->cap) {
        sort->cap = sort->cap ? sort->cap * 2 : 32;
        sort->piles = realloc(sort->piles, sort->cap * sizeof(*sort->piles));
        BASE_ASSERT(sort->piles != NULL);
    }
    struct pile *pile = &sort->piles[sort->count++];
    *pile = (struct pile){ .tablet = tablet };
    snprintf(pile->path, sizeof(pile->path), "%s/%016llx", sort->directory,
             (unsigned long long)tablet);
    return pile;
}

static struct base_status spill(struct sort *sort, struct pile *pile) CH_WAITS;
static struct base_status spill(struct sort *sort, struct pile *pile)
{
    struct tab_server *server = sort->server;
    ch_time deadline = ch_in(server->env, STEP_TIMEOUT_S * CH_S);
    if (!pile->out) {
        struct blk_append_options options = { .create = true, .exclusive = true };
        uint64_t length;
        struct base_status status =
            blk_open_append(server->blk, pile->path, &options, deadline, &pile->out, &length);
        if (base_failed(status))
            return status;
    }
    struct base_buf frames = { 0 };
    tab_frames_put(&frames, pile->tail, ++pile->batches, TAB_FRAME_RECORDS,
                   base_buf_bytes(&pile->payload));
    struct base_status status = BASE_STATUS_OK;
    for (size_t at = 0; at < frames.len && !base_failed(status);) {
        size_t len = frames.len - at < BLK_APPEND_MAX ? frames.len - at : BLK_APPEND_MAX;
        struct base_bytes part = base_bytes(frames.data + at, len);
        uint64_t offset;
        status = blk_append(pile->out, &part, 1, deadline, &offset);
        at += len;
    }
    pile->tail += frames.len;
    sort->bytes -= pile->payload.len;
    base_buf_free(&pile->payload);
    base_buf_free(&frames);
    return status;
}

static struct base_status on_record(void *self, const struct tab_record *record) CH_WAITS;
static struct base_status on_record(void *self, const struct tab_record *record)
{
    struct sort *sort = self;
    struct pile *pile = pile_of(sort, record->tablet);
    size_t before = pile->payload.len;
    tab_record_put(&pile->payload, record->tablet, record->seq, record->kind, record->body);
    pile->records++;
    sort->bytes += pile->payload.len - before;
    if (pile->payload.len >= SPILL_BYTES)
        return spill(sort, pile);
    struct base_status status = BASE_STATUS_OK;
    for (size_t i = 0; sort->bytes >= TOTAL_BYTES && i < sort->count && !base_failed(status); i++)
        if (sort->piles[i].payload.len)
            status = spill(sort, &sort->piles[i]);
    return status;
}

static struct base_status finish(struct sort *sort, struct base_arena *arena,
                                 Strata__Tablet__V1__SortLogReply *reply) CH_WAITS;
static struct base_status finish(struct sort *sort, struct base_arena *arena,
                                 Strata__Tablet__V1__SortLogReply *reply)
{
    reply->logs = BASE_NEW_ARRAY(arena, Strata__Tablet__V1__SortedLog *, sort->count);
    for (size_t i = 0; i < sort->count; i++) {
        struct pile *pile = &sort->piles[i];
        struct base_status status = pile->payload.len ? spill(sort, pile) : BASE_STATUS_OK;
        if (!base_failed(status))
            status = blk_writer_seal(pile->out, ch_in(sort->server->env, STEP_TIMEOUT_S * CH_S));
        if (base_failed(status))
            return status;
        Strata__Tablet__V1__SortedLog *log =
            CH_MESSAGE(arena, Strata__Tablet__V1__SortedLog, strata__tablet__v1__sorted_log);
        log->tablet = pile->tablet;
        log->path = ch_data_str(base_arena_strdup(arena, pile->path));
        log->records = pile->records;
        reply->logs[reply->n_logs++] = log;
    }
    return BASE_STATUS_OK;
}

struct base_status tab_on_sort_log(void *self, struct ch_call *call, const void *message,
                                   void **reply) CH_WAITS;
struct base_status tab_on_sort_log(void *self, struct ch_call *call, const void *message,
                                   void **reply)
{
    struct tab_server *server = self;
    const Strata__Tablet__V1__SortLogRequest *request = message;
    struct base_arena *arena = ch_call_arena(call);
    Strata__Tablet__V1__SortLogReply *response =
        CH_MESSAGE(arena, Strata__Tablet__V1__SortLogReply, strata__tablet__v1__sort_log_reply);
    struct sort sort = { .server = server,
                         .directory = base_bytes_cstr(arena, ch_bytes_of(request->directory)) };
    struct base_status status = BASE_STATUS_OK;
    for (size_t i = 0; i < request->n_segments && !base_failed(status); i++) {
        bool moved;
        status = tab_log_read(server->env, server->blk,
                              base_bytes_cstr(arena, ch_bytes_of(request->segments[i])),
                              tab_call_deadline(server, call), on_record, &sort, &moved);
    }
    if (!base_failed(status))
        status = finish(&sort, arena, response);
    for (size_t i = 0; i < sort.count; i++) {
        if (sort.piles[i].out)
            blk_writer_close(sort.piles[i].out);
        base_buf_free(&sort.piles[i].payload);
    }
    free(sort.piles);
    *reply = response;
    return base_failed(status) ? base_status_wrap(status, "sort log") : status;
}
