/* catalog.h: the composite indexes of databases: kept as rows (rows.h, 'M'), cached here.
 *
 * A set of definitions is immutable once loaded and is held by reference. Its version is the
 * timestamp of the version row, which every change of definitions rewrites: a commit reads that
 * row with its entities and has it in its read set, so one that made its index entries by an older
 * set cannot happen (life of a commit: commit.c). Queries need no such check: an index once ready
 * stays so, and one that a query misses is looked for again in the rows before the client is told.
 */
#ifndef QUERYAPI_CATALOG_H
#define QUERYAPI_CATALOG_H

#include "index.h"
#include "txlayer/txlayer.h"

struct qry_request;
struct qry_hold;

struct qry_definitions {
    size_t refs;
    uint64_t version; /* 0: the database has no definitions */
    uint64_t read_at;
    struct base_arena arena;
    struct qry_index *indexes;
    size_t count;
};

enum { QRY_CATALOG_MAX = 4096 }; /* databases cached */
struct qry_catalog_entry;
struct qry_catalog {
    struct qry_catalog_entry *all;
    size_t count;
};
void qry_catalog_free(struct qry_catalog *catalog);

/* The cached set, or loads it. Give it back with qry_definitions_drop. */
struct base_status qry_catalog_get(struct qry_request *request,
                                   struct qry_definitions **definitions) CH_WAITS BASE_MUST_CHECK;
/* Loads it anew. */
struct base_status qry_catalog_reload(
    struct qry_request *request, struct qry_definitions **definitions) CH_WAITS BASE_MUST_CHECK;
void qry_definitions_drop(struct qry_definitions *definitions);

/* The version row's key, and the version its value means. */
struct txn_key qry_version_key(void);
uint64_t qry_version_of(const struct txn_value *value);
/* An index row's key, in `arena`. */
struct txn_key qry_index_key(uint64_t id, struct base_arena *arena);

#endif
