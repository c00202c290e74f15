/* scan.c: see scan.h. A stream is one scan of the plan with a page of its rows. With one stream
 * every row that is its entity's first is a result. With several, the target goes up to the
 * largest suffix any of them stands at until all stand at the same: what lies between is never
 * read when it is more than a page. */
#include "scan.h"

#include <stdlib.h>

enum { JOIN_PAGE_MIN = 32, JOIN_PAGE_MAX = 1000, STEPS_A_LOOK = 64 /* at the clock */ };

struct qry_stream {
    struct base_bytes prefix;
    struct base_arena arena; /* of the page */
    struct txn_row *rows;
    size_t count, at, page;
    bool started, more;
};

/* ---- opening ---- */

static void set_start(struct qry_walk *walk, const struct qry_cursor *cursor)
{
    if (!cursor->after)
        return;
    qry_position_to_suffix(walk->plan, cursor->components, cursor->path, &walk->target);
    walk->has_target = walk->after_target = true;
}

/* Results up to and with the cursor's. */
static void set_end(struct qry_walk *walk, const struct qry_cursor *cursor)
{
    struct qry_plan *plan = walk->plan;
    struct base_buf suffix = { 0 };
    if (!cursor->after) { /* before the first: nothing */
        walk->ended = true;
        return;
    }
    qry_position_to_suffix(plan, cursor->components, cursor->path, &suffix);
    if (!plan->reverse)
        base_buf_put_u8(&suffix, 0);
    struct base_bytes end = base_bytes_dup(walk->request->arena, base_buf_bytes(&suffix));
    base_buf_free(&suffix);
    if (plan->reverse && base_bytes_cmp(end, plan->lower) > 0)
        plan->lower = end;
    if (!plan->reverse && (plan->unbounded || base_bytes_cmp(end, plan->upper) < 0)) {
        plan->upper = end;
        plan->unbounded = false;
    }
}

struct base_status qry_walk_open(struct qry_walk *walk, struct qry_request *request,
                                 struct qry_read *read, const struct qry_query *query,
                                 struct qry_plan *plan, size_t page)
{
    struct qry_cursor start = { 0 }, end = { 0 };
    struct base_status status = BASE_STATUS_OK;
    *walk = (struct qry_walk){ request, read, query, plan, .page = page };
    if (query->start_cursor.len > 0)
        status = qry_cursor_decode(query, query->start_cursor, &start);
    if (!base_failed(status) && query->end_cursor.len > 0)
        status = qry_cursor_decode(query, query->end_cursor, &end);
    if (base_failed(status))
        return status;
    set_start(walk, &start);
    if (query->end_cursor.len > 0)
        set_end(walk, &end);
    walk->streams = calloc(plan->scan_count, sizeof(*walk->streams));
    BASE_ASSERT(walk->streams);
    for (size_t i = 0; i < plan->scan_count; i++) {
        walk->streams[i].prefix = plan->scans[i].prefix;
        walk->streams[i].page = plan->scan_count > 1 ? JOIN_PAGE_MIN : page;
    }
    return status;
}

void qry_walk_close(struct qry_walk *walk)
{
    for (size_t i = 0; i < walk->plan->scan_count; i++)
        base_arena_free(&walk->streams[i].arena);
    free(walk->streams);
    base_buf_free(&walk->target);
}

/* ---- streams ---- */

static struct base_bytes suffix_of(const struct qry_stream *stream, const struct txn_row *row)
{
    return base_bytes(row->key.data + stream->prefix.len, row->key.len - stream->prefix.len);
}

static struct base_bytes join(struct base_arena *arena, struct base_bytes prefix,
                              struct base_bytes suffix, bool and_zero)
{
    uint8_t *out = base_arena_alloc(arena, prefix.len + suffix.len + 1);
    memcpy(out, prefix.data, prefix.len);
    if (suffix.len)
        memcpy(out + prefix.len, suffix.data, suffix.len);
    out[prefix.len + suffix.len] = 0;
    return base_bytes(out, prefix.len + suffix.len + and_zero);
}

static struct base_bytes prefix_end(struct base_arena *arena, struct base_bytes prefix)
{
    struct base_buf out = { 0 };
    BASE_ASSERT(base_prefix_end(prefix, &out)); /* it begins with a letter */
    struct base_bytes end = base_bytes_dup(arena, base_buf_bytes(&out));
    base_buf_free(&out);
    return end;
}

/* The range of the stream that is left, from the target on. */
static struct txn_scan range_left(const struct qry_walk *walk, struct qry_stream *stream)
{
    const struct qry_plan *plan = walk->plan;
    struct base_arena *arena = &stream->arena;
    struct base_bytes target = base_buf_bytes(&walk->target);
    struct txn_scan scan = { .descending = plan->reverse,
                             .keys_only = plan->keys_decide,
                             .limit = stream->page };
    scan.start = join(arena, stream->prefix, plan->lower, false);
    scan.end = plan->unbounded ? prefix_end(arena, stream->prefix)
                               : join(arena, stream->prefix, plan->upper, false);
    if (walk->has_target) {
        struct base_bytes edge =
            join(arena, stream->prefix, target, plan->reverse != walk->after_target);
        if (!plan->reverse && base_bytes_cmp(edge, scan.start) > 0)
            scan.start = edge;
        if (plan->reverse && base_bytes_cmp(edge, scan.end) < 0)
            scan.end = edge;
    }
    return scan;
}

static struct base_status fetch(struct qry_walk *walk, struct qry_stream *stream) CH_WAITS;
static struct base_status fetch(struct qry_walk *walk, struct qry_stream *stream)
{
    base_arena_reset(&stream->arena);
    struct txn_scan scan = range_left(walk, stream);
    stream->started = true;
    stream->rows = NULL;
    stream->count = stream->at = 0;
    stream->more = false;
    if (base_bytes_cmp(scan.start, scan.end) >= 0)
        return BASE_STATUS_OK;
    return qry_read_scan(walk->request, walk->read, &scan, &stream->arena, &stream->rows,
                         &stream->count, &stream->more);
}

static bool before_target(const struct qry_walk *walk, struct base_bytes suffix)
{
    if (!walk->has_target)
        return false;
    int order = base_bytes_cmp(suffix, base_buf_bytes(&walk->target));
    if (walk->plan->reverse)
        order = -order;
    return order < 0 || (order == 0 && walk->after_target);
}

/* A join's pages grow while they are used up row by row, and start small after a jump. */
static void choose_page(const struct qry_walk *walk, struct qry_stream *stream)
{
    if (walk->plan->scan_count == 1 || !stream->started || stream->count == 0)
        return;
    bool jump = !base_bytes_eq(suffix_of(stream, &stream->rows[stream->count - 1]),
                               base_buf_bytes(&walk->target));
    stream->page = jump                               ? JOIN_PAGE_MIN
                   : stream->page * 2 < JOIN_PAGE_MAX ? stream->page * 2
                                                      : JOIN_PAGE_MAX;
}

/* Moves to the first row at or after the target. *found false: there is none. */
static struct base_status seek(struct qry_walk *walk, struct qry_stream *stream,
                               bool *found) CH_WAITS;
static struct base_status seek(struct qry_walk *walk, struct qry_stream *stream, bool *found)
{
    for (;;) {
        while (stream->at < stream->count &&
               before_target(walk, suffix_of(stream, &stream->rows[stream->at])))
            stream->at++;
        *found = stream->at < stream->count;
        if (*found || (stream->started && !stream->more))
            return BASE_STATUS_OK;
        choose_page(walk, stream);
        struct base_status status = fetch(walk, stream);
        if (base_failed(status))
            return status;
    }
}

static void set_target(struct qry_walk *walk, struct base_bytes suffix, bool after)
{
    base_buf_clear(&walk->target);
    base_buf_put_bytes(&walk->target, suffix);
    walk->has_target = true;
    walk->after_target = after;
}

/* All streams stand at one suffix, or one of them is at its end. */
static struct base_status agree(struct qry_walk *walk, bool *found) CH_WAITS;
static struct base_status agree(struct qry_walk *walk, bool *found)
{
    size_t agreeing = 0, count = walk->plan->scan_count;
    for (size_t i = 0; agreeing < count; i = (i + 1) % count) {
        struct qry_stream *stream = &walk->streams[i];
        struct base_status status = seek(walk, stream, found);
        if (base_failed(status) || !*found)
            return status;
        struct base_bytes suffix = suffix_of(stream, &stream->rows[stream->at]);
        bool at_target = walk->has_target && !walk->after_target &&
                         base_bytes_eq(suffix, base_buf_bytes(&walk->target));
        agreeing = at_target ? agreeing + 1 : 1;
        if (!at_target)
            set_target(walk, suffix, false);
    }
    return BASE_STATUS_OK;
}

struct base_status qry_walk_next(struct qry_walk *walk, struct base_bytes *suffix, bool *found)
{
    for (;;) {
        *found = false;
        if (walk->ended)
            return BASE_STATUS_OK;
        if (++walk->steps % STEPS_A_LOOK == 0)
            ch_yield_if_long();
        struct base_status status = agree(walk, found);
        walk->ended = base_failed(status) || !*found;
        if (walk->ended)
            return status;
        const struct qry_stream *stream = &walk->streams[0];
        struct base_bytes value = stream->rows[stream->at].value;
        walk->after_target = true;
        if (!qry_row_is_first(walk->query, walk->plan, value))
            continue;
        *suffix = base_buf_bytes(&walk->target);
        return BASE_STATUS_OK;
    }
}

bool qry_walk_at_end(const struct qry_walk *walk)
{
    bool end = walk->ended;
    for (size_t i = 0; i < walk->plan->scan_count; i++) {
        const struct qry_stream *stream = &walk->streams[i];
        /* Where it stands is the last result, until the next call. */
        end = end || (stream->started && !stream->more && stream->at + 1 >= stream->count);
    }
    return end;
}

/* ---- planning ---- */

struct base_status qry_plan_for(struct qry_request *request, const struct qry_read *read,
                                const struct qry_query *query, struct qry_plan *plan)
{
    struct qry_definitions *definitions;
    struct base_status status = qry_catalog_get(request, &definitions);
    if (base_failed(status))
        return status;
    status = qry_plan_make(query, definitions->indexes, definitions->count, read->timestamp,
                           request->arena, plan);
    qry_definitions_drop(definitions);
    if (status.code != BASE_FAILED_PRECONDITION)
        return status;
    base_status_free(&status);
    status = qry_catalog_reload(request, &definitions);
    if (base_failed(status))
        return status;
    status = qry_plan_make(query, definitions->indexes, definitions->count, read->timestamp,
                           request->arena, plan);
    qry_definitions_drop(definitions);
    return status;
}
