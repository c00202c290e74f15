/* rows.c: see rows.h. A red-black tree of rows; rows whose versions are all applied are on a
 * list by last use, from whose old end they are evicted. */
#include "rows.h"

#include <stdlib.h>

#include <bsd/sys/queue.h>
#include <bsd/sys/tree.h>

enum {
    VERSIONS_KEPT = 4,    /* applied ones a row keeps for reads a little in the past */
    EVICT_LOOKS_MAX = 64, /* pinned rows passed over before eviction waits for the pins to go */
};

struct row;
struct txn__version {
    struct txn__version *older;
    struct row *row;
    uint64_t timestamp, group; /* group: of apply that put it into the table */
    bool applied, is_delete;
    size_t len;
    uint8_t value[];
};

struct row {
    RB_ENTRY(row) tree;
    TAILQ_ENTRY(row) use;
    struct txn__version *newest;
    size_t version_count, unapplied;
    bool on_list;
    size_t len;
    uint8_t key[];
};
RB_HEAD(row_tree, row);
TAILQ_HEAD(use_list, row);

struct txn__rows {
    struct row_tree tree;
    struct use_list uses; /* last used first */
    struct txn__pin pins; /* ring, oldest after the head */
    size_t bytes, bytes_max, unapplied_bytes, count;
    uint64_t evicted, group; /* group: of the last finished group of applies */
};

static struct base_bytes key_of(const struct row *row)
{
    return base_bytes(row->key, row->len);
}

static int row_cmp(struct row *a, struct row *b)
{
    return base_bytes_cmp(key_of(a), key_of(b));
}

RB_GENERATE_INTERNAL(row_tree, row, tree, row_cmp, __attribute__((unused)) static)

/* The row with the key; or, without one, NULL. *at_or_after and *before may be asked for. */
static struct row *find(const struct txn__rows *rows, struct base_bytes key,
                        struct row **at_or_after, struct row **before)
{
    struct row *at = RB_ROOT(&rows->tree), *up = NULL, *down = NULL, *same = NULL;
    while (at) {
        int order = base_bytes_cmp(key, key_of(at));
        if (order <= 0)
            up = at;
        else
            down = at;
        if (order == 0) {
            same = at;
            if (!before)
                break;
        }
        at = order <= 0 ? RB_LEFT(at, tree) : RB_RIGHT(at, tree);
    }
    if (at_or_after)
        *at_or_after = up;
    if (before)
        *before = down;
    return same;
}

struct txn__rows *txn__rows_new(size_t bytes_max, uint64_t evicted)
{
    struct txn__rows *rows = calloc(1, sizeof(*rows));
    BASE_ASSERT(rows);
    RB_INIT(&rows->tree);
    TAILQ_INIT(&rows->uses);
    rows->pins.before = rows->pins.after = &rows->pins;
    rows->bytes_max = bytes_max;
    rows->evicted = evicted;
    return rows;
}

static size_t version_bytes(const struct txn__version *version)
{
    return sizeof(*version) + version->len;
}

static void row_free(struct txn__rows *rows, struct row *row)
{
    RB_REMOVE(row_tree, &rows->tree, row);
    if (row->on_list)
        TAILQ_REMOVE(&rows->uses, row, use);
    for (struct txn__version *version = row->newest, *older; version; version = older) {
        older = version->older;
        rows->bytes -= version_bytes(version);
        free(version);
    }
    rows->bytes -= sizeof(*row) + row->len;
    rows->count--;
    free(row);
}

void txn__rows_free(struct txn__rows *rows)
{
    if (!rows)
        return;
    struct row *row;
    while ((row = RB_ROOT(&rows->tree)))
        row_free(rows, row);
    free(rows);
}

static struct row *row_new(struct txn__rows *rows, struct base_bytes key)
{
    struct row *row = malloc(sizeof(*row) + key.len);
    BASE_ASSERT(row);
    *row = (struct row){ .len = key.len };
    if (key.len)
        memcpy(row->key, key.data, key.len);
    BASE_ASSERT(!RB_INSERT(row_tree, &rows->tree, row));
    rows->bytes += sizeof(*row) + row->len;
    rows->count++;
    return row;
}

static struct txn__version *version_new(struct txn__rows *rows, struct row *row, uint64_t timestamp,
                                        bool is_delete, struct base_bytes value)
{
    struct txn__version *version = malloc(sizeof(*version) + value.len);
    BASE_ASSERT(version);
    *version = (struct txn__version){ .older = row->newest,
                                      .row = row,
                                      .timestamp = timestamp,
                                      .is_delete = is_delete,
                                      .len = value.len };
    if (value.len)
        memcpy(version->value, value.data, value.len);
    row->newest = version;
    row->version_count++;
    rows->bytes += version_bytes(version);
    return version;
}

/* The greatest group that every running scan began after. */
static uint64_t evictable_group(const struct txn__rows *rows)
{
    return rows->pins.after == &rows->pins ? UINT64_MAX : rows->pins.after->group;
}

/* Drops the oldest versions of a row that is hot, down to VERSIONS_KEPT, while they are applied
 * and unpinned. */
static void row_shorten(struct txn__rows *rows, struct row *row)
{
    uint64_t group = evictable_group(rows);
    struct txn__version *keep = row->newest;
    for (size_t i = 1; i < VERSIONS_KEPT && keep; i++)
        keep = keep->older;
    if (!keep)
        return;
    /* Versions apply in order, so from the first applied and unpinned one on all are. */
    while (keep->older && !(keep->older->applied && keep->older->group <= group))
        keep = keep->older;
    for (struct txn__version *gone = keep->older, *older; gone; gone = older) {
        older = gone->older;
        rows->bytes -= version_bytes(gone);
        row->version_count--;
        free(gone);
    }
    keep->older = NULL;
}

struct txn__version *txn__rows_put(struct txn__rows *rows, struct base_bytes key,
                                   uint64_t timestamp, bool is_delete, struct base_bytes value)
{
    struct row *row = find(rows, key, NULL, NULL);
    if (!row)
        row = row_new(rows, key);
    BASE_ASSERT(!row->newest || row->newest->timestamp < timestamp);
    if (row->on_list) {
        TAILQ_REMOVE(&rows->uses, row, use);
        row->on_list = false;
    }
    struct txn__version *version = version_new(rows, row, timestamp, is_delete, value);
    row->unapplied++;
    rows->unapplied_bytes += version_bytes(version) + key.len;
    if (row->version_count > 2 * VERSIONS_KEPT)
        row_shorten(rows, row);
    return version;
}

void txn__rows_applied(struct txn__rows *rows, struct txn__version *version)
{
    struct row *row = version->row;
    BASE_ASSERT(!version->applied && row->unapplied > 0);
    version->applied = true;
    version->group = rows->group + 1;
    rows->unapplied_bytes -= version_bytes(version) + row->len;
    if (--row->unapplied == 0) {
        TAILQ_INSERT_HEAD(&rows->uses, row, use);
        row->on_list = true;
    }
}

static void evict(struct txn__rows *rows)
{
    uint64_t group = evictable_group(rows);
    size_t looks = 0;
    struct row *row = TAILQ_LAST(&rows->uses, use_list), *before;
    for (; row && rows->bytes > rows->bytes_max && looks < EVICT_LOOKS_MAX; row = before) {
        before = TAILQ_PREV(row, use_list, use);
        if (row->newest->group > group) {
            looks++;
            continue;
        }
        if (row->newest->timestamp > rows->evicted)
            rows->evicted = row->newest->timestamp;
        row_free(rows, row);
    }
}

void txn__rows_applied_all(struct txn__rows *rows)
{
    rows->group++;
    evict(rows);
}

static bool seen_at(const struct row *row, uint64_t timestamp, struct txn__seen *seen)
{
    const struct txn__version *version = row->newest;
    while (version && version->timestamp > timestamp)
        version = version->older;
    if (!version)
        return false;
    *seen = (struct txn__seen){ .found = !version->is_delete,
                                .timestamp = version->timestamp,
                                .value = base_bytes(version->value, version->len) };
    return true;
}

bool txn__rows_get(struct txn__rows *rows, struct base_bytes key, uint64_t timestamp,
                   struct txn__seen *seen)
{
    struct row *row = find(rows, key, NULL, NULL);
    if (!row || !seen_at(row, timestamp, seen))
        return false;
    if (row->on_list) {
        TAILQ_REMOVE(&rows->uses, row, use);
        TAILQ_INSERT_HEAD(&rows->uses, row, use);
    }
    return true;
}

void txn__rows_fill(struct txn__rows *rows, struct base_bytes key, uint64_t timestamp,
                    const struct txn__seen *seen)
{
    if (timestamp < rows->evicted || seen->timestamp > timestamp || find(rows, key, NULL, NULL))
        return;
    struct row *row = row_new(rows, key);
    struct txn__version *version =
        version_new(rows, row, seen->timestamp, !seen->found, seen->value);
    version->applied = true;
    TAILQ_INSERT_HEAD(&rows->uses, row, use);
    row->on_list = true;
    evict(rows);
}

void txn__rows_pin(struct txn__rows *rows, struct txn__pin *pin)
{
    pin->group = rows->group;
    pin->after = &rows->pins;
    pin->before = rows->pins.before;
    pin->before->after = pin;
    rows->pins.before = pin;
}

void txn__rows_unpin(struct txn__rows *rows, struct txn__pin *pin)
{
    pin->before->after = pin->after;
    pin->after->before = pin->before;
    evict(rows);
}

bool txn__rows_next(struct txn__rows *rows, bool descending, struct base_bytes from,
                    struct base_bytes to, uint64_t timestamp, struct base_bytes *key,
                    struct txn__seen *seen)
{
    struct row *at, *before;
    find(rows, from, &at, descending ? &before : NULL);
    if (descending)
        at = before;
    while (at) {
        if (descending ? base_bytes_cmp(key_of(at), to) < 0 : base_bytes_cmp(key_of(at), to) >= 0)
            return false;
        if (seen_at(at, timestamp, seen)) {
            *key = key_of(at);
            return true;
        }
        at = descending ? RB_PREV(row_tree, &rows->tree, at) : RB_NEXT(row_tree, &rows->tree, at);
    }
    return false;
}

size_t txn__rows_bytes(const struct txn__rows *rows)
{
    return rows->bytes;
}

size_t txn__rows_unapplied(const struct txn__rows *rows)
{
    return rows->unapplied_bytes;
}

size_t txn__rows_count(const struct txn__rows *rows)
{
    return rows->count;
}

void txn__rows_check(const struct txn__rows *rows)
{
    size_t bytes = 0, unapplied_bytes = 0, count = 0;
    struct row *row, *last = NULL;
    RB_FOREACH(row, row_tree, (struct row_tree *)&rows->tree)
    {
        size_t versions = 0, unapplied = 0;
        BASE_ASSERT(row->newest && (!last || row_cmp(last, row) < 0));
        for (struct txn__version *version = row->newest; version; version = version->older) {
            BASE_ASSERT(!version->older || version->older->timestamp < version->timestamp);
            bytes += version_bytes(version);
            versions++;
            unapplied += !version->applied;
            unapplied_bytes += version->applied ? 0 : version_bytes(version) + row->len;
        }
        BASE_ASSERT(versions == row->version_count && unapplied == row->unapplied &&
                    row->on_list == (unapplied == 0));
        bytes += sizeof(*row) + row->len;
        count++;
        last = row;
    }
    BASE_ASSERT(bytes == rows->bytes && count == rows->count &&
                unapplied_bytes == rows->unapplied_bytes);
}
