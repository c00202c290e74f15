/* server.h: a tabletserver: its tablets, its schemas, its handlers' common ground. One struct a
 * server; nothing global. */
#ifndef TAB_SERVER_H
#define TAB_SERVER_H

#include "chassis/service.h"
#include "tablet.h"

struct tab_server_config {
    uint64_t memtable_bytes, memory_bytes_max, log_segment_bytes, cache_bytes, split_bytes;
    int64_t log_segments_max, log_pipeline;
    char *master; /* address of a tabletmaster, for tests; "" : by naming */
};

struct tab_loading { /* an id that is being loaded or about to appear */
    struct tab_loading *next;
    uint64_t id;
};

/* How an admin method is passed on to the master. */
struct tab_passed {
    struct tab_server *server;
    const struct ch_method *method;
};

struct tab_server {
    struct ch_env *env;
    const struct tab_server_config *config;
    char cell[64], name[64]; /* name: of its lock, "tabletserver-1" */
    struct ch_naming *naming;
    struct ch_server *rpc;
    struct blk_client *blk;
    struct ch_lock *lock;
    struct tab_store store;
    struct tab_tablet **tablets; /* sorted by (table, start) */
    size_t tablet_count, tablet_cap;
    struct tab_loading *loading;
    struct tab_schema **schemas; /* by name, for tables asked for; METADATA's is not among them */
    size_t schema_count, schema_cap;
    struct tab_schema *metadata_schema;
    struct ch_gate gate; /* upkeep */
    struct ch_name_watch *master_watch;
    struct tab_passed *passed;
    size_t passed_count;
    bool serving, retiring, stopping; /* retiring: takes no tablets any more */
    struct ch_gauge *tablets_served;
};

/* ---- tablets ---- */
/* A reference, or NULL. */
struct tab_tablet *tab_server_find(struct tab_server *server, uint64_t table,
                                   struct base_bytes row);
struct tab_tablet *tab_server_find_id(struct tab_server *server, uint64_t id);
/* Takes the caller's reference. */
void tab_server_add(struct tab_server *server, struct tab_tablet *tablet);
void tab_server_remove(struct tab_server *server, struct tab_tablet *tablet);
struct base_status tab_server_split(struct tab_server *server, struct tab_tablet *tablet,
                                    struct base_bytes row, ch_time deadline, uint64_t *left_id,
                                    uint64_t *right_id) CH_WAITS BASE_MUST_CHECK;

/* ---- schemas ---- */
/* A reference. NOT_FOUND: there is no such table. `fresh`: METADATA is asked even when it is
 * known. */
struct base_status tab_server_schema(struct tab_server *server, struct base_bytes name, bool fresh,
                                     ch_time deadline,
                                     struct tab_schema **schema) CH_WAITS BASE_MUST_CHECK;
void tab_server_set_schema(struct tab_server *server, const Strata__Tablet__V1__TableMeta *meta);

/* ---- routing ---- */
enum { TAB_CALL_TIMEOUT_S = 60 };
/* Whether the call was passed on by another tabletserver: then it is answered here or with
 * OUT_OF_RANGE. */
bool tab_call_is_hop(const struct ch_call *call);
ch_time tab_call_deadline(struct tab_server *server, const struct ch_call *call);
/* Does a row operation where the row is: `local` on a tablet here, or by passing the request on. */
typedef struct base_status tab_local_fn(struct tab_server *server, struct tab_tablet *tablet,
                                        struct ch_call *call, const void *request, void **reply);
struct base_status tab_route_row(struct tab_server *server, struct ch_call *call,
                                 const struct ch_method *method, const void *request,
                                 struct base_bytes table_name, struct base_bytes row,
                                 tab_local_fn *local, void **reply) CH_WAITS BASE_MUST_CHECK;
/* Where a row is: a tablet here (a reference), or a location elsewhere (*tablet NULL). */
struct base_status tab_route_find(struct tab_server *server, struct tab_schema *schema,
                                  struct base_bytes row, bool hop, ch_time deadline,
                                  struct base_arena *arena, struct tab_tablet **tablet,
                                  struct tab_location *location) CH_WAITS BASE_MUST_CHECK;
/* After a failure: whether to look again where the row is and repeat. Sleeps a little when so. */
bool tab_route_again(struct tab_server *server, const struct base_status *status, bool unknown,
                     int attempt, ch_time deadline) CH_WAITS;
struct ch_call_options tab_hop_options(ch_time deadline);
struct base_status tab_table_name_check(struct base_bytes name) BASE_MUST_CHECK;

/* ---- the end (retire.c) ---- */
void tab_server_retire(void *self) CH_WAITS;

/* ---- handlers ---- */
void tab_register_data(struct tab_server *server);     /* google.bigtable.v2 */
void tab_register_internal(struct tab_server *server); /* strata.tablet.v1.Tabletserver */
void tab_register_passed(struct tab_server *server);   /* admin: to the master */
ch_unary_fn tab_on_mutate_row, tab_on_check_and_mutate, tab_on_read_modify_write;
ch_stream_fn tab_on_mutate_rows, tab_on_read_rows, tab_on_sample_row_keys;

extern const struct ch_service_def tab_tabletserver_def;

#endif
