/* build.c: see build.h. Why nothing is missed: every commit after the one that stored the
 * definition makes the index's entries itself (the version row is in its read set, commit.c). An
 * entity of before is either met by the walk below, whose commits have it in their read set, or
 * was changed after the definition came and has its entries from that commit. The walk runs over
 * the kind's rows, page by page, each page at a fresh snapshot: an entity created behind it has
 * its entries already. */
#include "build.h"

#include <stdlib.h>

#include "entries.h"
#include "rows.h"
#include "stored.h"

enum { PAGE = 200, PAGE_TRIES = 50, BUILD_S = 24 * 3600 };

struct build {
    struct qry_request request;    /* its own: outlives the caller's */
    struct base_arena arena, page; /* of the whole; of a page */
    char *database;
    struct ch_done done;
    struct base_status status;
    int refs;           /* the caller, the fiber */
    struct build *next; /* of those under way here */
};

/* ---- one page ---- */

struct page {
    struct base_bytes next; /* row to go on from; empty: the kind is through */
    struct txn_row *rows;
    size_t count, prefix_len;
    struct base_bytes name_space;
    uint64_t read_at;
};

static struct base_status add_entries(struct qry_request *request, const struct qry_index *index,
                                      const struct txn_key *key, const struct txn_value *value,
                                      struct txn_write **writes, size_t *count)
{
    struct qry_stored stored;
    struct qry_entries entries, none = { 0 };
    qry_entity *entity;
    struct base_status status = qry_stored_decode(value, &stored);
    if (base_failed(status) || !stored.found)
        return status;
    status = qry_stored_entity(&stored, request->arena, &entity);
    if (!base_failed(status))
        status = qry_entries_of_index(entity, index, request->arena, &entries);
    if (base_failed(status))
        return base_status_wrap(status, "index %llu", (unsigned long long)index->id);
    struct txn_write *more =
        BASE_NEW_ARRAY(request->arena, struct txn_write, *count + entries.count + 1);
    if (*count)
        memcpy(more, *writes, *count * sizeof(*more));
    *writes = more;
    qry_entries_diff(&none, &entries, key->group, more, count);
    return status;
}

static struct base_status write_page(struct qry_request *request, const struct qry_index *index,
                                     struct page *page) CH_WAITS;
static struct base_status write_page(struct qry_request *request, const struct qry_index *index,
                                     struct page *page)
{
    struct base_arena *arena = request->arena;
    struct txn_key *keys = BASE_NEW_ARRAY(arena, struct txn_key, page->count + 1);
    struct txn_value *values = BASE_NEW_ARRAY(arena, struct txn_value, page->count + 1);
    struct txn_write *writes = NULL;
    size_t count = 0;
    uint8_t id[16];
    uint64_t at;
    for (size_t i = 0; i < page->count; i++) {
        struct base_bytes path = base_bytes(page->rows[i].key.data + page->prefix_len,
                                            page->rows[i].key.len - page->prefix_len);
        qry_key *key;
        qry_partition *partition =
            CH_MESSAGE(arena, qry_partition, google__datastore__v1__partition_id);
        partition->namespace_id = ch_data_of(page->name_space);
        if (!qry_take_path(path, partition, arena, &key))
            return base_status_make(BASE_DATA_LOSS, "a kind's row has no path");
        keys[i] = qry_row_of(arena, key);
    }
    struct base_status status =
        txn_get(request->server->txn, request->database, page->read_at, keys, page->count,
                request->deadline, arena, values, &page->read_at);
    for (size_t i = 0; i < page->count && !base_failed(status); i++)
        status = add_entries(request, index, &keys[i], &values[i], &writes, &count);
    if (base_failed(status) || count == 0)
        return status;
    base_put_le64(id, ch_random(request->server->env));
    base_put_le64(id + 8, ch_random(request->server->env));
    struct txn_commit commit = { .read_timestamp = page->read_at,
                                 .read_keys = keys,
                                 .read_key_count = page->count,
                                 .writes = writes,
                                 .write_count = count,
                                 .idempotency_id = base_bytes(id, 16) };
    return txn_commit(request->server->txn, request->database, &commit, request->deadline, &at);
}

/* One page of a kind's rows from `start`; *after: where the next begins, in a buffer that outlives
 * the page; empty at the end. */
static struct base_status build_page(struct build *b, const struct qry_index *index,
                                     struct base_bytes name_space, struct base_bytes start,
                                     struct base_bytes end, size_t prefix_len,
                                     struct base_buf *after) CH_WAITS;
static struct base_status build_page(struct build *b, const struct qry_index *index,
                                     struct base_bytes name_space, struct base_bytes start,
                                     struct base_bytes end, size_t prefix_len,
                                     struct base_buf *after)
{
    struct qry_request request = b->request;
    size_t limit = PAGE;
    for (int tries = 1;; tries++) {
        struct page page = { .prefix_len = prefix_len, .name_space = name_space };
        struct txn_scan scan = { .start = start, .end = end, .keys_only = true, .limit = limit };
        bool more;
        base_arena_reset(&b->page);
        request.arena = &b->page;
        struct base_status status =
            txn_scan(request.server->txn, request.database, 0, &scan, request.deadline,
                     request.arena, &page.rows, &page.count, &more, &page.read_at);
        if (!base_failed(status) && page.count > 0)
            status = write_page(&request, index, &page);
        if (status.code == BASE_ABORTED &&
            tries < PAGE_TRIES) { /* an entity of the page was written meanwhile */
            base_status_free(&status);
            continue;
        }
        bool too_much = status.code == BASE_RESOURCE_EXHAUSTED ||
                        status.code == BASE_INVALID_ARGUMENT; /* to read, to write, at once */
        if (too_much && limit > 1) {
            limit /= 4;
            limit += limit == 0;
            base_status_free(&status);
            continue;
        }
        if (base_failed(status))
            return status;
        struct base_buf next = { 0 };
        if (more && page.count > 0) {
            base_buf_put_bytes(&next, page.rows[page.count - 1].key);
            base_buf_put_u8(&next, 0);
        }
        base_buf_free(after);
        *after = next;
        return status;
    }
}

/* ---- all namespaces ---- */

static struct base_status build_kind(struct build *b, const struct qry_index *index,
                                     struct base_bytes name_space) CH_WAITS;
static struct base_status build_kind(struct build *b, const struct qry_index *index,
                                     struct base_bytes name_space)
{
    struct base_buf prefix = { 0 }, end = { 0 }, at = { 0 };
    struct base_status status;
    qry_put_kind_prefix(&prefix, name_space, index->kind);
    BASE_ASSERT(base_prefix_end(base_buf_bytes(&prefix), &end));
    base_buf_put_bytes(&at, base_buf_bytes(&prefix));
    do
        status = build_page(b, index, name_space, base_buf_bytes(&at), base_buf_bytes(&end),
                            prefix.len, &at);
    while (!base_failed(status) && at.len > 0);
    base_buf_free(&prefix);
    base_buf_free(&end);
    base_buf_free(&at);
    return status;
}

/* The first namespace at or after the row `from`. *found false: none. */
static struct base_status next_name_space(struct build *b, struct base_bytes from,
                                          struct base_buf *name_space, bool *found) CH_WAITS;
static struct base_status next_name_space(struct build *b, struct base_bytes from,
                                          struct base_buf *name_space, bool *found)
{
    static const uint8_t spaces_end[1] = { QRY_ROWS_KIND + 1 };
    struct txn_scan scan = {
        .start = from, .end = base_bytes(spaces_end, 1), .keys_only = true, .limit = 1
    };
    struct txn_row *rows;
    size_t count;
    uint64_t read_at;
    bool more;
    base_arena_reset(&b->page);
    struct base_status status =
        txn_scan(b->request.server->txn, b->database, 0, &scan, b->request.deadline, &b->page,
                 &rows, &count, &more, &read_at);
    *found = !base_failed(status) && count > 0;
    if (!*found)
        return status;
    struct base_bytes key = base_bytes(rows[0].key.data + 1, rows[0].key.len - 1);
    base_buf_clear(name_space);
    if (!base_take_ordered(&key, name_space))
        return base_status_make(BASE_DATA_LOSS, "a kind's row has no namespace");
    return status;
}

static struct base_status build_index(struct build *b, const struct qry_index *index) CH_WAITS;
static struct base_status build_index(struct build *b, const struct qry_index *index)
{
    struct base_buf from = { 0 }, name_space = { 0 }, prefix = { 0 };
    struct base_status status;
    bool found;
    base_buf_put_u8(&from, QRY_ROWS_KIND);
    for (;;) {
        status = next_name_space(b, base_buf_bytes(&from), &name_space, &found);
        if (!base_failed(status) && found)
            status = build_kind(b, index, base_buf_bytes(&name_space));
        if (base_failed(status) || !found)
            break;
        base_buf_clear(&prefix);
        base_buf_clear(&from);
        qry_put_space(&prefix, QRY_ROWS_KIND, base_buf_bytes(&name_space));
        BASE_ASSERT(base_prefix_end(base_buf_bytes(&prefix), &from));
    }
    base_buf_free(&from);
    base_buf_free(&name_space);
    base_buf_free(&prefix);
    return status;
}

/* ---- the whole ---- */

static struct base_status mark_ready(struct build *b, uint64_t id) CH_WAITS;
static struct base_status mark_ready(struct build *b, uint64_t id)
{
    for (int tries = 1;; tries++) {
        struct qry_definitions *definitions;
        struct base_status status = qry_catalog_reload(&b->request, &definitions);
        if (base_failed(status))
            return status;
        for (size_t i = 0; i < definitions->count && !base_failed(status); i++) {
            struct qry_index index = definitions->indexes[i];
            if (index.id != id || index.ready)
                continue;
            index.ready = true;
            status = qry_definitions_store(&b->request, definitions, &index, 1);
        }
        qry_definitions_drop(definitions);
        if (status.code != BASE_ABORTED || tries == PAGE_TRIES)
            return status;
        base_status_free(&status);
    }
}

static struct base_status build_all(struct build *b) CH_WAITS;
static struct base_status build_all(struct build *b)
{
    uint64_t written, read_at;
    struct base_status noted = qry_builds_get(&b->request, &written, &read_at);
    if (base_failed(noted))
        return noted;
    struct qry_definitions *definitions;
    struct base_status status = qry_catalog_reload(&b->request, &definitions);
    if (base_failed(status))
        return status;
    for (size_t i = 0; i < definitions->count && !base_failed(status); i++) {
        if (definitions->indexes[i].ready)
            continue;
        status = build_index(b, &definitions->indexes[i]);
        if (!base_failed(status))
            status = mark_ready(b, definitions->indexes[i].id);
    }
    qry_definitions_drop(definitions);
    if (!base_failed(status)) { /* the cache learns of it */
        status = qry_catalog_reload(&b->request, &definitions);
        if (!base_failed(status))
            qry_definitions_drop(definitions);
    }
    if (!base_failed(status) && written)
        status = qry_builds_remove(&b->request, written);
    return status;
}

static void drop(struct build *b)
{
    if (--b->refs > 0)
        return;
    base_status_free(&b->status);
    base_arena_free(&b->arena);
    base_arena_free(&b->page);
    free(b);
}

static void run(void *arg)
{
    CH_FIBER_ENTRY();
    struct build *b = arg;
    struct build **link = &b->request.server->builds;
    struct ch_lock *lock = NULL;
    b->status = qry_builds_lock(&b->request, &lock);
    if (!base_failed(b->status))
        b->status = build_all(b);
    if (lock)
        ch_lock_free(lock);
    while (*link != b)
        link = &(*link)->next;
    *link = b->next;
    if (base_failed(b->status) && !ch_cancelled())
        ch_warn(b->request.server->env, "index build in %s: %s", b->database,
                base_status_text(&b->status));
    ch_done_set(&b->done);
    drop(b);
}

/* Begins one, with a reference for the caller too. */
static struct base_status begin(struct qry_server *server, const char *database, struct build **out)
{
    struct build *b = calloc(1, sizeof(*b));
    BASE_ASSERT(b);
    b->refs = 2;
    b->database = base_arena_strdup(&b->arena, database);
    b->request = (struct qry_request){ .server = server,
                                       .arena = &b->arena,
                                       .database = b->database,
                                       .deadline = ch_in(server->env, BUILD_S * CH_S) };
    ch_done_init(&b->done);
    struct base_status status = ch_gate_spawn(&server->gate, "build indexes", run, b);
    if (base_failed(status)) {
        b->refs = 1;
        drop(b);
        return status;
    }
    b->next = server->builds;
    server->builds = b;
    *out = b;
    return status;
}

struct base_status qry_build_resume(struct qry_server *server, const char *database)
{
    struct build *b;
    for (b = server->builds; b; b = b->next)
        if (strcmp(b->database, database) == 0)
            return BASE_STATUS_OK;
    struct base_status status = begin(server, database, &b);
    if (!base_failed(status)) {
        ch_info(server->env, "index build in %s is taken up", database);
        drop(b);
    }
    return status;
}

struct base_status qry_build_all(struct qry_request *request)
{
    struct build *b;
    struct base_status status = begin(request->server, request->database, &b);
    if (base_failed(status))
        return status;
    enum ch_outcome outcome = ch_done_wait(&b->done, request->deadline);
    status = outcome == CH_OK ? base_status_copy(&b->status)
                              : ch_outcome_status(outcome, "wait for the index build");
    drop(b);
    return status;
}
