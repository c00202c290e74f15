/* catalog.c: see catalog.h. */
#include <stdlib.h>
#include <uthash.h>

#include "rows.h"
#include "server.h"

struct qry_catalog_entry {
    char *database;
    struct qry_definitions *definitions;
    UT_hash_handle hh;
};

static const char version_row[] = "MV", rows_end[] = "MY", group[] = "M";
static const uint8_t index_rows[] = { 'M', 'X' };

struct txn_key qry_version_key(void)
{
    return (struct txn_key){ base_bytes_str(group), base_bytes_str(version_row) };
}

uint64_t qry_version_of(const struct txn_value *value)
{
    return value->found ? value->timestamp : 0;
}

struct txn_key qry_index_key(uint64_t id, struct base_arena *arena)
{
    uint8_t *key = base_arena_alloc(arena, 10);
    memcpy(key, index_rows, 2);
    base_put_be64(key + 2, id);
    return (struct txn_key){ base_bytes_str(group), base_bytes(key, 10) };
}

void qry_definitions_drop(struct qry_definitions *definitions)
{
    if (!definitions || --definitions->refs > 0)
        return;
    base_arena_free(&definitions->arena);
    free(definitions);
}

static void forget(struct qry_catalog *catalog, struct qry_catalog_entry *entry)
{
    HASH_DEL(catalog->all, entry);
    catalog->count--;
    qry_definitions_drop(entry->definitions);
    free(entry->database);
    free(entry);
}

void qry_catalog_free(struct qry_catalog *catalog)
{
    struct qry_catalog_entry *entry, *next;
    HASH_ITER(hh, catalog->all, entry, next)
    {
        forget(catalog, entry);
    }
}

static struct base_status take_row(struct qry_definitions *definitions, const struct txn_row *row)
{
    ProtobufCMessage *message;
    if (base_bytes_eq_str(row->key, version_row)) {
        definitions->version = row->timestamp;
        return BASE_STATUS_OK;
    }
    struct qry_index *index = &definitions->indexes[definitions->count];
    struct base_status status = ch_proto_decode(&strata__queryapi__v1__index__descriptor,
                                                base_bytes_dup(&definitions->arena, row->value),
                                                &definitions->arena, &message);
    if (!base_failed(status) && definitions->count == QRY_INDEXES_MAX)
        status =
            base_status_make(BASE_DATA_LOSS, "more than %d indexes are stored", QRY_INDEXES_MAX);
    if (!base_failed(status))
        status = qry_index_of_proto((qry_index_proto *)message, &definitions->arena, index);
    if (base_failed(status))
        return base_status_wrap(status, "a stored index definition");
    index->ready_at = index->ready ? row->timestamp : 0;
    definitions->count++;
    return status;
}

static struct base_status load(struct qry_request *request,
                               struct qry_definitions *definitions) CH_WAITS;
static struct base_status load(struct qry_request *request, struct qry_definitions *definitions)
{
    struct txn_scan scan = { .start = base_bytes_str(version_row),
                             .end = base_bytes_str(rows_end) };
    bool more = true;
    definitions->indexes =
        BASE_NEW_ARRAY(&definitions->arena, struct qry_index, QRY_INDEXES_MAX + 1);
    while (more) {
        struct txn_row *rows;
        size_t count;
        struct base_status status = txn_scan(
            request->server->txn, request->database, definitions->read_at, &scan, request->deadline,
            request->arena, &rows, &count, &more, &definitions->read_at);
        for (size_t i = 0; !base_failed(status) && i < count; i++)
            status = take_row(definitions, &rows[i]);
        if (base_failed(status))
            return status;
        if (count == 0)
            break;
        uint8_t *after = base_arena_calloc(request->arena, 1, rows[count - 1].key.len + 1);
        memcpy(after, rows[count - 1].key.data, rows[count - 1].key.len);
        scan.start = base_bytes(after, rows[count - 1].key.len + 1);
    }
    return BASE_STATUS_OK;
}

/* Keeps the newer of what is cached and what was loaded. */
static struct qry_definitions *keep(struct qry_catalog *catalog, const char *database,
                                    struct qry_definitions *loaded)
{
    struct qry_catalog_entry *entry;
    HASH_FIND_STR(catalog->all, database, entry);
    if (entry && entry->definitions->read_at > loaded->read_at) {
        qry_definitions_drop(loaded);
        return entry->definitions;
    }
    if (entry) {
        qry_definitions_drop(entry->definitions);
        entry->definitions = loaded;
        return loaded;
    }
    if (catalog->count >= QRY_CATALOG_MAX)
        forget(catalog, catalog->all); /* the oldest */
    entry = calloc(1, sizeof(*entry));
    BASE_ASSERT(entry);
    entry->database = strdup(database);
    entry->definitions = loaded;
    HASH_ADD_KEYPTR(hh, catalog->all, entry->database, strlen(entry->database), entry);
    catalog->count++;
    return loaded;
}

struct base_status qry_catalog_reload(struct qry_request *request,
                                      struct qry_definitions **definitions)
{
    struct qry_definitions *loaded = calloc(1, sizeof(*loaded));
    BASE_ASSERT(loaded);
    loaded->refs = 1;
    struct base_status status = load(request, loaded);
    if (base_failed(status)) {
        qry_definitions_drop(loaded);
        return base_status_wrap(status, "index definitions of %s", request->database);
    }
    *definitions = keep(&request->server->catalog, request->database, loaded);
    (*definitions)->refs++;
    return status;
}

struct base_status qry_catalog_get(struct qry_request *request,
                                   struct qry_definitions **definitions)
{
    struct qry_catalog_entry *entry;
    HASH_FIND_STR(request->server->catalog.all, request->database, entry);
    if (!entry)
        return qry_catalog_reload(request, definitions);
    *definitions = entry->definitions;
    (*definitions)->refs++;
    return BASE_STATUS_OK;
}
