/* master.h: a tabletmaster: one leads, by a lock; it keeps no state that METADATA, naming and
 * the servers do not tell again. */
#ifndef TAB_MASTER_H
#define TAB_MASTER_H

#include "blockstore/blockstore.h"
#include "chassis/service.h"
#include "metac.h"

struct tab_master_config {
    bool balance;
    int64_t balance_interval; /* ns */
};

struct tab_live { /* a tabletserver's lock, and who holds it */
    bool alive;   /* held; else `epoch` is of its last holder, which is dead */
    char server[TAB_SERVER_BYTES], address[TAB_ADDRESS_BYTES], name[64];
    uint64_t epoch;
    bool reported;     /* its tablets are known in this pass */
    bool retiring;     /* it takes no tablets any more */
    uint64_t *tablets; /* ids it serves or loads */
    size_t tablet_count;
    size_t assigned; /* by METADATA, counted in this pass */
};

struct tab_master {
    struct ch_env *env;
    const struct tab_master_config *config;
    char cell[64], address[TAB_ADDRESS_BYTES];
    struct ch_naming *naming;
    struct ch_server *rpc;
    struct blk_client *blk;
    struct tab_metac *metac;
    struct ch_lock *lock;
    bool leading, stopping, dirty; /* dirty: a pass is wanted */
    struct ch_gate gate;
    struct ch_cond wake, passed;
    uint64_t passes;   /* complete ones */
    uint64_t attempts; /* of sorting logs: makes directories unique */
    struct ch_name_watch *servers;
    struct ch_mutex schema; /* changes of tables, one at a time */
    ch_time next_balance;
};

/* Asks for a pass over everything soon. */
void tab_master_poke(struct tab_master *master);
/* UNAVAILABLE unless this one leads. */
struct base_status tab_master_check(const struct tab_master *master) BASE_MUST_CHECK;
/* All tabletservers' locks now; in `arena`. */
struct base_status tab_master_live(struct tab_master *master, ch_time deadline,
                                   struct base_arena *arena, struct tab_live **live,
                                   size_t *count) CH_WAITS BASE_MUST_CHECK;
/* What a list of locks says of an incarnation. One with a greater epoch than its lock had is
 * younger than the list: nothing is known of it. A dead one is dead for good. */
enum tab_incarnation { TAB_ALIVE, TAB_DEAD, TAB_YOUNGER };
enum tab_incarnation tab_incarnation_of(const struct tab_live *live, size_t count,
                                        struct base_bytes server);
/* The living one of that name; NULL: none. */
struct tab_live *tab_live_find(struct tab_live *live, size_t count, struct base_bytes server);
struct tab_live *tab_live_least(struct tab_live *live, size_t count);
/* One RPC to a tabletserver. */
struct base_status tab_master_call(struct tab_master *master, const char *address, int method,
                                   const void *request, ch_time deadline, struct base_arena *arena,
                                   void **reply) CH_WAITS BASE_MUST_CHECK;

/* ---- passes: master_pass.c ---- */
void tab_master_pass_fiber(void *master);
/* Gives a tablet to a server (compare-and-set) and has it loaded. `meta` changes; `row` is its
 * row (NULL: the root, *version). */
struct base_status tab_master_assign(struct tab_master *master,
                                     Strata__Tablet__V1__TabletMeta *meta, struct tab_meta_row *row,
                                     uint64_t *root_version, const char *table_name,
                                     const struct tab_live *to,
                                     ch_time deadline) CH_WAITS BASE_MUST_CHECK;
struct base_status tab_master_load(struct tab_master *master,
                                   const Strata__Tablet__V1__TabletMeta *meta,
                                   const char *table_name, const char *address,
                                   ch_time deadline) CH_WAITS BASE_MUST_CHECK;
/* Writes the rows of a new table's tablets, if they are not there, given to live servers. */
struct base_status tab_master_make_tablets(struct tab_master *master,
                                           const Strata__Tablet__V1__TableMeta *table,
                                           ch_time deadline) CH_WAITS BASE_MUST_CHECK;

/* ---- dead servers: master_dead.c ---- */
struct tab_redo { /* a sorted log of a dead incarnation, for one tablet */
    struct tab_redo *next;
    uint64_t tablet;
    char *path;
};
struct tab_dead {
    struct tab_dead *next;
    char server[TAB_SERVER_BYTES]; /* "name@epoch" */
    bool sorted; /* its log is sealed and sorted: its tablets may be given to others */
    struct tab_redo *redo;
    char **segments;
    size_t segment_count;
};
/* Finds the logs of incarnations that are not live, seals and sorts them. */
struct base_status tab_master_find_dead(struct tab_master *master, struct tab_live *live,
                                        size_t live_count, ch_time deadline,
                                        struct base_arena *arena,
                                        struct tab_dead **dead) CH_WAITS BASE_MUST_CHECK;
void tab_master_remove_logs(struct tab_master *master, const struct tab_dead *dead,
                            ch_time deadline) CH_WAITS;
/* Deletes files of dead incarnations that METADATA does not name. `named`: sorted paths. */
void tab_master_sweep(struct tab_master *master, struct tab_live *live, size_t live_count,
                      char **named, size_t named_count, ch_time deadline) CH_WAITS;

/* ---- admin ---- */
void tab_register_table_admin(struct tab_master *master);
void tab_register_instance_admin(struct tab_master *master);
void tab_register_master(struct tab_master *master); /* strata.tablet.v1.Tabletmaster */
/* ---- the tables' records: master_schema.c ---- */
/* In name order, of names that start with `prefix`. */
struct base_status tab_master_tables(struct tab_master *master, const char *prefix,
                                     ch_time deadline, struct base_arena *arena,
                                     Strata__Tablet__V1__TableMeta ***tables,
                                     size_t *count) CH_WAITS BASE_MUST_CHECK;
struct base_status tab_master_table(struct tab_master *master, struct base_bytes name,
                                    ch_time deadline, struct base_arena *arena,
                                    Strata__Tablet__V1__TableMeta **table,
                                    struct tab_meta_row *row) CH_WAITS BASE_MUST_CHECK;
struct base_status tab_master_tablets(struct tab_master *master, uint64_t table, ch_time deadline,
                                      struct base_arena *arena,
                                      Strata__Tablet__V1__TabletMeta ***tablets,
                                      struct tab_meta_row **rows,
                                      size_t *count) CH_WAITS BASE_MUST_CHECK;
/* Writes one, if its row's version is still `row`'s (create: if there is none). */
struct base_status tab_master_put_table(struct tab_master *master,
                                        const Strata__Tablet__V1__TableMeta *table,
                                        struct tab_meta_row *row, bool create,
                                        ch_time deadline) CH_WAITS BASE_MUST_CHECK;
/* Every live tabletserver knows the schema when it returns: who cannot be told must be dead (and
 * will read METADATA). */
struct base_status tab_master_tell_servers(struct tab_master *master,
                                           Strata__Tablet__V1__TableMeta *table,
                                           ch_time deadline) CH_WAITS BASE_MUST_CHECK;
/* One that no table had. */
struct base_status tab_master_table_number(struct tab_master *master, ch_time deadline,
                                           uint64_t *number) CH_WAITS BASE_MUST_CHECK;

extern const struct ch_service_def tab_tabletmaster_def;

#endif
