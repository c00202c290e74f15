/* metac.h: the client of METADATA, for tabletservers and the master: finds tablets (naming ->
 * root -> METADATA -> tablet), remembers where they are, reads and writes METADATA's rows.
 * Writes are compare-and-set on the row's version; an unknown outcome is settled by reading the
 * row again. */
#ifndef TAB_METAC_H
#define TAB_METAC_H

#include "chassis/naming.h"
#include "chassis/rpc_client.h"
#include "meta.h"
#include "strata/tablet/v1/tablet.pb-c.h"

struct tab_metac;
struct tab_metac *tab_metac_new(struct ch_env *env, struct ch_naming *naming, const char *cell);
void tab_metac_free(struct tab_metac *metac) CH_WAITS;

/* A client of one server, kept for the life of metac. */
struct ch_client *tab_metac_peer(struct tab_metac *metac, const char *address);

/* ---- where a row is ---- */
enum { TAB_LOCATIONS_MAX = 100000, TAB_ADDRESS_BYTES = 80, TAB_SERVER_BYTES = 120 };
struct tab_location {
    uint64_t table, tablet;
    char address[TAB_ADDRESS_BYTES], server[TAB_SERVER_BYTES];
    struct base_bytes start, end; /* in the arena given */
};
/* NOT_FOUND: no tablet of such a table holds the row. UNAVAILABLE: nobody serves it now. */
struct base_status tab_metac_locate(struct tab_metac *metac, uint64_t table, struct base_bytes row,
                                    ch_time deadline, struct base_arena *arena,
                                    struct tab_location *location) CH_WAITS BASE_MUST_CHECK;
/* What was remembered about the row was wrong. */
void tab_metac_forget(struct tab_metac *metac, uint64_t table, struct base_bytes row);

/* ---- the root tablet's own record, in naming ---- */
struct base_status tab_metac_root(struct tab_metac *metac, ch_time deadline,
                                  struct base_arena *arena, Strata__Tablet__V1__TabletMeta **root,
                                  uint64_t *version) CH_WAITS BASE_MUST_CHECK;
/* FAILED_PRECONDITION: it changed meanwhile. *version: in: expected (0: none yet); out: the new
 * one. */
struct base_status tab_metac_root_write(struct tab_metac *metac,
                                        const Strata__Tablet__V1__TabletMeta *root,
                                        ch_time deadline,
                                        uint64_t *version) CH_WAITS BASE_MUST_CHECK;

/* ---- METADATA's rows ---- */
struct tab_meta_row {
    struct base_bytes key, value;
    uint8_t version[TAB_META_VERSION_BYTES];
};
struct base_status tab_metac_get(struct tab_metac *metac, struct base_bytes key, ch_time deadline,
                                 struct base_arena *arena,
                                 struct tab_meta_row *row) CH_WAITS BASE_MUST_CHECK;
/* Everything in [start, end), to the end of METADATA when `end` is empty; limit 0: all. */
struct base_status tab_metac_scan(struct tab_metac *metac, struct base_bytes start,
                                  struct base_bytes end, size_t limit, ch_time deadline,
                                  struct base_arena *arena, struct tab_meta_row **rows,
                                  size_t *count) CH_WAITS BASE_MUST_CHECK;
/* row->version: in: the expected one (`create`: there must be no row); out: the new one.
 * FAILED_PRECONDITION: it is not. */
struct base_status tab_metac_write(struct tab_metac *metac, struct tab_meta_row *row, bool create,
                                   ch_time deadline) CH_WAITS BASE_MUST_CHECK;
struct base_status tab_metac_delete(struct tab_metac *metac, const struct tab_meta_row *row,
                                    ch_time deadline) CH_WAITS BASE_MUST_CHECK;

/* Tablets of a row range of a table (or all of METADATA's users' tablets), decoded. */
struct base_status tab_meta_decode(struct base_bytes value, struct base_arena *arena,
                                   Strata__Tablet__V1__TabletMeta **meta) BASE_MUST_CHECK;
/* Writes the row of a record's pending left half, unless it is there already. */
struct base_status tab_meta_put_left(struct tab_metac *metac,
                                     const Strata__Tablet__V1__TabletMeta *meta,
                                     ch_time deadline) CH_WAITS BASE_MUST_CHECK;
void tab_metac_version_new(struct tab_metac *metac, uint8_t version[TAB_META_VERSION_BYTES]);

#endif
