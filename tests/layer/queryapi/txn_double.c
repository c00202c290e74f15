/* txn_double.c: see txn_double.h. Rows in a tree by database, NUL, key; each with its versions,
 * oldest first. A commit acts at one instant: it validates against the last version of every key
 * and of every row of a range, and appends. */
#include "txn_double.h"

#include <bsd/sys/tree.h>
#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>

struct version {
    uint64_t timestamp;
    bool found;
    uint8_t *data;
    size_t len;
};
struct double_row {
    RB_ENTRY(double_row) link;
    struct base_bytes key; /* full, owned */
    struct version *versions;
    size_t count;
};
RB_HEAD(row_tree, double_row);

struct double_commit {
    uint8_t id[16];
    uint64_t timestamp;
    UT_hash_handle hh;
};
struct txn_client {
    struct ch_env *env;
    struct double_store *store, own;
};

static int compare_rows(const struct double_row *a, const struct double_row *b)
{
    return base_bytes_cmp(a->key, b->key);
}
RB_PROTOTYPE(row_tree, double_row, link, compare_rows)
RB_GENERATE(row_tree, double_row, link, compare_rows)

static struct row_tree *tree_of(struct double_store *store)
{
    return (struct row_tree *)&store->rows;
}

void double_init(struct double_store *store)
{
    *store = (struct double_store){ .last = 1000000 };
}

void double_free(struct double_store *store)
{
    struct double_row *row, *next_row;
    struct double_commit *commit, *next;
    for (row = RB_MIN(row_tree, tree_of(store)); row; row = next_row) {
        next_row = RB_NEXT(row_tree, tree_of(store), row);
        RB_REMOVE(row_tree, tree_of(store), row);
        for (size_t i = 0; i < row->count; i++)
            free(row->versions[i].data);
        free(row->versions);
        free((void *)row->key.data);
        free(row);
    }
    HASH_ITER(hh, store->commits, commit, next)
    {
        HASH_DEL(store->commits, commit);
        free(commit);
    }
}

const char *double_flag(struct double_store *store, char out[64])
{
    snprintf(out, 64, "--txlayer=double:%p", (void *)store);
    return out;
}

struct txn_client *txn_client_new(struct ch_env *env, const struct txn_client_options *options)
{
    struct txn_client *client = calloc(1, sizeof(*client));
    void *store;
    client->env = env;
    double_init(&client->own);
    client->store = sscanf(options->target, "double:%p", &store) == 1 ? store : &client->own;
    return client;
}

void txn_client_free(struct txn_client *client)
{
    double_free(&client->own);
    free(client);
}

/* ---- rows ---- */

static struct base_bytes full_key(struct base_buf *out, const char *database, struct base_bytes key)
{
    base_buf_clear(out);
    base_buf_put_str(out, database);
    base_buf_put_u8(out, 0);
    base_buf_put_bytes(out, key);
    return base_buf_bytes(out);
}

static struct double_row *find(struct double_store *store, const char *database,
                               struct base_bytes key)
{
    struct base_buf full = { 0 };
    struct double_row wanted = { .key = full_key(&full, database, key) };
    struct double_row *row = RB_FIND(row_tree, tree_of(store), &wanted);
    base_buf_free(&full);
    return row;
}

static struct double_row *make(struct double_store *store, const char *database,
                               struct base_bytes key)
{
    struct double_row *row = find(store, database, key);
    if (row)
        return row;
    struct base_buf full = { 0 };
    row = calloc(1, sizeof(*row));
    row->key = full_key(&full, database, key);
    RB_INSERT(row_tree, tree_of(store), row);
    return row;
}

static const struct version *version_at(const struct double_row *row, uint64_t timestamp)
{
    for (size_t i = row ? row->count : 0; i > 0; i--)
        if (row->versions[i - 1].timestamp <= timestamp)
            return &row->versions[i - 1];
    return NULL;
}

static uint64_t changed_at(const struct double_row *row)
{
    return row && row->count ? row->versions[row->count - 1].timestamp : 0;
}

static uint64_t now(struct double_store *store)
{
    uint64_t clock = store->clock_us ? (uint64_t)store->clock_us(store->clock_arg) : 0;
    return clock > store->last ? clock : store->last;
}

/* A read at 0 sees everything; one at a time to come holds later commits above it. */
static uint64_t read_at(struct double_store *store, uint64_t timestamp)
{
    uint64_t at = timestamp ? timestamp : now(store);
    store->last = at > store->last ? at : store->last;
    return at;
}

static struct base_status dawdle(struct txn_client *client) CH_WAITS;
static struct base_status dawdle(struct txn_client *client)
{
    if (client->store->delay_us_max == 0)
        return BASE_STATUS_OK;
    ch_time wait = (ch_time)ch_random_below(client->env, client->store->delay_us_max) * CH_US;
    enum ch_outcome outcome = ch_sleep_until(client->env, ch_in(client->env, wait));
    return outcome == CH_TIMEOUT ? BASE_STATUS_OK : ch_outcome_status(outcome, "txlayer double");
}

/* ---- reads ---- */

struct base_status txn_read_timestamp(struct txn_client *client, const char *database,
                                      ch_time deadline, uint64_t *timestamp)
{
    struct base_status status = dawdle(client);
    *timestamp = read_at(client->store, 0);
    return status;
}

struct base_status txn_get_some(struct txn_client *client, const char *database, uint64_t timestamp,
                                const struct txn_key *keys, size_t count, size_t bytes_max,
                                ch_time deadline, struct base_arena *arena,
                                struct txn_value *values, uint64_t *at)
{
    struct double_store *store = client->store;
    struct base_status status = dawdle(client);
    if (base_failed(status))
        return status;
    *at = read_at(store, timestamp);
    store->gets++;
    store->keys += count;
    size_t bytes = 0;
    for (size_t n = 0; n < count; n++) { /* from the last on: in no order, says the interface */
        size_t i = count - 1 - n;
        const struct version *version = version_at(find(store, database, keys[i].key), *at);
        values[i] = (struct txn_value){ 0 };
        if (!version)
            continue;
        values[i].unread = bytes > 0 && bytes + version->len > bytes_max;
        if (values[i].unread)
            continue;
        bytes += version->len;
        values[i] =
            (struct txn_value){ version->found,
                                base_bytes_dup(arena, base_bytes(version->data, version->len)),
                                version->timestamp };
    }
    return dawdle(client);
}

struct base_status txn_get(struct txn_client *client, const char *database, uint64_t timestamp,
                           const struct txn_key *keys, size_t count, ch_time deadline,
                           struct base_arena *arena, struct txn_value *values, uint64_t *at)
{
    return txn_get_some(client, database, timestamp, keys, count, SIZE_MAX, deadline, arena, values,
                        at);
}

enum { PAGE_BYTES = 1 << 20 };

struct base_status txn_scan(struct txn_client *client, const char *database, uint64_t timestamp,
                            const struct txn_scan *scan, ch_time deadline, struct base_arena *arena,
                            struct txn_row **rows, size_t *count, bool *more, uint64_t *at)
{
    struct double_store *store = client->store;
    struct base_status status = dawdle(client);
    if (base_failed(status))
        return status;
    struct base_buf start = { 0 }, end = { 0 };
    struct double_row from = { .key = full_key(&start, database, scan->start) }, *row;
    full_key(&end, database, scan->end);
    if (scan->end.len == 0)
        end.data[end.len - 1] = 1;
    struct double_row to = { .key = base_buf_bytes(&end) };
    size_t cap = 0, skip = strlen(database) + 1, bytes = 0;
    BASE_ASSERT(base_bytes_cmp(from.key, to.key) <= 0);
    *at = read_at(store, timestamp);
    store->scans++;
    *count = 0;
    *more = false;
    *rows = NULL;
    if (scan->descending) { /* from the last before the end */
        row = RB_NFIND(row_tree, tree_of(store), &to);
        row = row ? RB_PREV(row_tree, tree_of(store), row) : RB_MAX(row_tree, tree_of(store));
    } else {
        row = RB_NFIND(row_tree, tree_of(store), &from);
    }
    while (row && compare_rows(row, &to) < 0 && compare_rows(row, &from) >= 0) {
        const struct version *version = version_at(row, *at);
        if (version && version->found) {
            if ((scan->limit && *count == scan->limit) || bytes > PAGE_BYTES) {
                *more = true;
                break;
            }
            if (*count == cap) {
                cap = cap ? cap * 2 : 16;
                struct txn_row *grown = BASE_NEW_ARRAY(arena, struct txn_row, cap);
                if (*count)
                    memcpy(grown, *rows, *count * sizeof(*grown));
                *rows = grown;
            }
            struct base_bytes value =
                scan->keys_only ? BASE_BYTES_EMPTY : base_bytes(version->data, version->len);
            struct base_bytes key = base_bytes(row->key.data + skip, row->key.len - skip);
            (*rows)[(*count)++] =
                (struct txn_row){ base_bytes_dup(arena, key), base_bytes_dup(arena, value),
                                  version->timestamp };
            bytes += key.len + value.len;
        }
        row = scan->descending ? RB_PREV(row_tree, tree_of(store), row)
                               : RB_NEXT(row_tree, tree_of(store), row);
    }
    store->scanned += *count;
    base_buf_free(&start);
    base_buf_free(&end);
    return dawdle(client);
}

size_t double_count(struct double_store *store, const char *database, struct base_bytes prefix)
{
    struct base_buf full = { 0 };
    struct double_row from = { .key = full_key(&full, database, prefix) };
    size_t count = 0;
    for (struct double_row *row = RB_NFIND(row_tree, tree_of(store), &from);
         row && base_bytes_starts_with(row->key, from.key);
         row = RB_NEXT(row_tree, tree_of(store), row))
        count += row->count && row->versions[row->count - 1].found;
    base_buf_free(&full);
    return count;
}

/* ---- commit ---- */

static bool range_changed(struct double_store *store, const char *database,
                          const struct txn_range *range, uint64_t since)
{
    struct base_buf start = { 0 }, end = { 0 };
    struct double_row from = { .key = full_key(&start, database, range->start) };
    struct double_row to = { .key = full_key(&end, database, range->end) };
    bool changed = false;
    for (struct double_row *row = RB_NFIND(row_tree, tree_of(store), &from);
         row && compare_rows(row, &to) < 0 && !changed;
         row = RB_NEXT(row_tree, tree_of(store), row))
        changed = changed_at(row) > since;
    base_buf_free(&start);
    base_buf_free(&end);
    return changed;
}

static struct base_status validate(struct double_store *store, const char *database,
                                   const struct txn_commit *commit)
{
    for (size_t i = 0; i < commit->read_key_count; i++)
        if (changed_at(find(store, database, commit->read_keys[i].key)) > commit->read_timestamp)
            return base_status_make(BASE_ABORTED, "read key %zu has changed", i);
    for (size_t i = 0; i < commit->read_range_count; i++)
        if (range_changed(store, database, &commit->read_ranges[i], commit->read_timestamp))
            return base_status_make(BASE_ABORTED, "read range %zu has changed", i);
    return BASE_STATUS_OK;
}

static void check_limits(const struct txn_commit *commit)
{
    BASE_ASSERT(commit->idempotency_id.len == 16);
    BASE_ASSERT(commit->read_timestamp != 0 ||
                commit->read_key_count + commit->read_range_count == 0);
    for (size_t i = 0; i < commit->write_count; i++) {
        BASE_ASSERT(commit->writes[i].key.group.len > 0);
        BASE_ASSERT(commit->writes[i].key.key.len > 0 &&
                    commit->writes[i].key.key.len <= TXN_KEY_MAX);
        BASE_ASSERT(commit->writes[i].value.len <= TXN_VALUE_MAX);
    }
}

static void write_all(struct double_store *store, const char *database,
                      const struct txn_commit *commit, uint64_t timestamp)
{
    for (size_t i = 0; i < commit->write_count; i++) {
        const struct txn_write *write = &commit->writes[i];
        struct double_row *row = make(store, database, write->key.key);
        BASE_ASSERT(changed_at(row) < timestamp); /* no key twice */
        row->versions = realloc(row->versions, (row->count + 1) * sizeof(*row->versions));
        struct version *version = &row->versions[row->count++];
        *version = (struct version){ timestamp, !write->is_delete, malloc(write->value.len + 1),
                                     write->value.len };
        if (write->value.len)
            memcpy(version->data, write->value.data, write->value.len);
    }
}

struct base_status txn_commit(struct txn_client *client, const char *database,
                              const struct txn_commit *commit, ch_time deadline,
                              uint64_t *timestamp)
{
    struct double_store *store = client->store;
    struct base_status status = dawdle(client);
    struct double_commit *known;
    if (base_failed(status))
        return status;
    check_limits(commit);
    HASH_FIND(hh, store->commits, commit->idempotency_id.data, 16, known);
    if (!known) {
        status = validate(store, database, commit);
        if (base_failed(status)) {
            store->aborted++;
            return status;
        }
        store->last = now(store) + 1;
        write_all(store, database, commit, store->last);
        known = calloc(1, sizeof(*known));
        memcpy(known->id, commit->idempotency_id.data, 16);
        known->timestamp = store->last;
        HASH_ADD(hh, store->commits, id, 16, known);
        store->commits_done++;
    }
    *timestamp = known->timestamp;
    if (store->lose_commits > 0) {
        store->lose_commits--;
        return base_status_make(BASE_UNAVAILABLE, "the answer was lost");
    }
    return dawdle(client);
}
