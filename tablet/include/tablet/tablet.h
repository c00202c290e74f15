/* tablet/tablet.h: a client of google.bigtable.v2 (any service that speaks it). Thin on purpose:
 * it finds a server, batches, retries what is safe and collects rows; requests are the public
 * protocol's own messages. Each call waits; deadlines are absolute. Source: Bigtable, OSDI'06;
 * facts of the public API in docs. */
#ifndef TABLET_TABLET_H
#define TABLET_TABLET_H

#include "base/bytes.h"
#include "chassis/naming.h"
#include "google/bigtable/v2/bigtable.pb-c.h"
#include "google/bigtable/admin/v2/bigtable_table_admin.pb-c.h"

struct tab_client;
struct tab_client_options {
    struct ch_naming *naming; /* borrowed; NULL when target is an address */
    const char *target;       /* "/local/tabletserver" or "127.0.0.1:8086" */
};
struct tab_client *tab_client_new(struct ch_env *env, const struct tab_client_options *options);
void tab_client_free(struct tab_client *client) CH_WAITS;

/* One cell of a row that was read. Everything lives in the arena given to the read. */
struct tab_cell {
    struct base_bytes family, qualifier, value;
    int64_t timestamp_us;
};
struct tab_row {
    struct base_bytes key;
    struct tab_cell *cells; /* family, qualifier ascending, timestamp descending */
    size_t cell_count;
};
/* Called for each row, in key order; the row lives until it returns. Returning false ends the
 * read. May wait. */
typedef bool tab_row_fn(void *self, const struct tab_row *row);

/* Reads by a request of the public protocol (table_name, rows, filter, limit, reversed). Resumes
 * by itself after the last row seen when a server goes away. */
struct base_status tab_read_rows(struct tab_client *client,
                                 const Google__Bigtable__V2__ReadRowsRequest *request,
                                 ch_time deadline, tab_row_fn *fn,
                                 void *self) CH_WAITS BASE_MUST_CHECK;
/* The same, collecting into `arena`. */
struct base_status tab_read_all(struct tab_client *client,
                                const Google__Bigtable__V2__ReadRowsRequest *request,
                                ch_time deadline, struct base_arena *arena, struct tab_row **rows,
                                size_t *count) CH_WAITS BASE_MUST_CHECK;
struct base_status tab_mutate_row(struct tab_client *client,
                                  const Google__Bigtable__V2__MutateRowRequest *request,
                                  ch_time deadline) CH_WAITS BASE_MUST_CHECK;
/* All entries, retrying those whose mutations carry explicit timestamps (repeating them changes
 * nothing) until the deadline; the status is the first entry's that failed for good. */
struct base_status tab_mutate_rows(struct tab_client *client,
                                   const Google__Bigtable__V2__MutateRowsRequest *request,
                                   ch_time deadline) CH_WAITS BASE_MUST_CHECK;
/* Not retried: UNAVAILABLE / DEADLINE_EXCEEDED mean the outcome is unknown. */
struct base_status tab_check_and_mutate(
    struct tab_client *client, const Google__Bigtable__V2__CheckAndMutateRowRequest *request,
    ch_time deadline, bool *matched) CH_WAITS BASE_MUST_CHECK;
struct base_status tab_read_modify_write(
    struct tab_client *client, const Google__Bigtable__V2__ReadModifyWriteRowRequest *request,
    ch_time deadline, struct base_arena *arena, struct tab_row *row) CH_WAITS BASE_MUST_CHECK;
/* Makes a table with these families (keep-one-version rule when max_versions > 0) when it is not
 * there yet. */
struct tab_family_def {
    const char *name;
    int32_t max_versions; /* 0: all */
};
struct base_status tab_ensure_table(struct tab_client *client, const char *instance,
                                    const char *table, const struct tab_family_def *families,
                                    size_t family_count, ch_time deadline) CH_WAITS BASE_MUST_CHECK;

#endif
