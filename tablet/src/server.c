/* server.c: the tabletserver's life, its tablets and schemas: see server.h.
 *
 * Start: register handlers. Serve: take the lock /<cell>/locks/tabletserver/<id> (its value is
 * this server's address), open the commit log under the lock's epoch, start upkeep; the master
 * sees the lock and gives tablets. Lock lost: the process ends (Bigtable 5.2). Retire: give
 * every tablet up (retire.c). Stop: close the log, release the lock. */
#include "server.h"

#include <stdio.h>
#include <stdlib.h>

#include "chassis/log.h"
#include "internal.h"
#include "strata/tablet/v1/tablet.strata.h"
#include "upkeep.h"

enum { LOCK_TIMEOUT_S = 600, SCHEMAS_MAX = 10000 };

/* ---- tablets ---- */

static int order(const struct tab_tablet *tablet, uint64_t table, struct base_bytes start)
{
    if (tablet->table != table)
        return tablet->table < table ? -1 : 1;
    return base_bytes_cmp(base_buf_bytes(&tablet->start), start);
}

/* How many stand at or before (table, row). */
static size_t tablets_upto(const struct tab_server *server, uint64_t table, struct base_bytes row)
{
    size_t low = 0, high = server->tablet_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (order(server->tablets[middle], table, row) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct tab_tablet *tab_server_find(struct tab_server *server, uint64_t table, struct base_bytes row)
{
    size_t at = tablets_upto(server, table, row);
    if (at == 0)
        return NULL;
    struct tab_tablet *tablet = server->tablets[at - 1];
    bool here =
        tablet->table == table && tab_tablet_holds(tablet, row) && tablet->state == TAB_SERVING;
    return here ? tab_tablet_ref(tablet) : NULL;
}

struct tab_tablet *tab_server_find_id(struct tab_server *server, uint64_t id)
{
    for (size_t i = 0; i < server->tablet_count; i++)
        if (server->tablets[i]->id == id && server->tablets[i]->state == TAB_SERVING)
            return tab_tablet_ref(server->tablets[i]);
    return NULL;
}

void tab_server_add(struct tab_server *server, struct tab_tablet *tablet)
{
    if (server->tablet_count == server->tablet_cap) {
        server->tablet_cap = server->tablet_cap ? server->tablet_cap * 2 : 64;
        server->tablets = realloc(server->tablets, server->tablet_cap * sizeof(*server->tablets));
        BASE_ASSERT(server->tablets != NULL);
    }
    size_t at = tablets_upto(server, tablet->table, base_buf_bytes(&tablet->start));
    memmove(&server->tablets[at + 1], &server->tablets[at],
            (server->tablet_count - at) * sizeof(*server->tablets));
    server->tablets[at] = tablet;
    server->tablet_count++;
    server->tablets_served->value = (int64_t)server->tablet_count;
    ch_cond_broadcast(&server->store.work);
}

void tab_server_remove(struct tab_server *server, struct tab_tablet *tablet)
{
    for (size_t i = 0; i < server->tablet_count; i++) {
        if (server->tablets[i] != tablet)
            continue;
        memmove(&server->tablets[i], &server->tablets[i + 1],
                (server->tablet_count - i - 1) * sizeof(*server->tablets));
        server->tablet_count--;
        server->tablets_served->value = (int64_t)server->tablet_count;
        tab_tablet_unref(tablet);
        return;
    }
}

static uint64_t new_tablet_id(struct tab_server *server)
{
    uint64_t id;
    do
        id = ch_random(server->env);
    while (id == 0);
    return id;
}

struct base_status tab_server_split(struct tab_server *server, struct tab_tablet *tablet,
                                    struct base_bytes row, ch_time deadline, uint64_t *left_id,
                                    uint64_t *right_id)
{
    struct tab_loading loading[2];
    struct tab_tablet *left, *right;
    *left_id = new_tablet_id(server);
    *right_id = new_tablet_id(server);
    uint64_t parent = tablet->id;
    tab_loading_begin(server, &loading[0], *left_id);
    tab_loading_begin(server, &loading[1], *right_id);
    struct base_status status =
        tab_tablet_split(tablet, row, *left_id, *right_id, deadline, &left, &right);
    if (!base_failed(status)) {
        tab_server_add(server, left);
        tab_server_add(server, right);
        ch_info(server->env, "split tablet %llx into %llx and %llx", (unsigned long long)parent,
                (unsigned long long)*left_id, (unsigned long long)*right_id);
    }
    if (tablet->state == TAB_GONE)
        tab_server_remove(server, tablet);
    tab_loading_end(server, &loading[1]);
    tab_loading_end(server, &loading[0]);
    return status;
}

/* ---- schemas ---- */

static size_t schema_at(const struct tab_server *server, struct base_bytes name, bool *found)
{
    size_t low = 0, high = server->schema_count;
    *found = false;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int cmp = base_bytes_cmp(base_bytes_str(server->schemas[middle]->name), name);
        if (cmp == 0) {
            *found = true;
            return middle;
        }
        if (cmp < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void forget_schema(struct tab_server *server, size_t at)
{
    tab_schema_unref(server->schemas[at]);
    memmove(&server->schemas[at], &server->schemas[at + 1],
            (server->schema_count - at - 1) * sizeof(*server->schemas));
    server->schema_count--;
}

/* Takes a reference of its own; an older one of the same table does not replace a newer. */
static void keep_schema(struct tab_server *server, struct tab_schema *schema)
{
    bool found;
    size_t at = schema_at(server, base_bytes_str(schema->name), &found);
    if (found) {
        const struct tab_schema *old = server->schemas[at];
        if (old->table > schema->table ||
            (old->table == schema->table && old->version >= schema->version))
            return;
        forget_schema(server, at);
    } else if (server->schema_count == SCHEMAS_MAX) {
        forget_schema(server, ch_random_below(server->env, server->schema_count));
        at = schema_at(server, base_bytes_str(schema->name), &found);
    }
    if (server->schema_count == server->schema_cap) {
        server->schema_cap = server->schema_cap ? server->schema_cap * 2 : 32;
        server->schemas = realloc(server->schemas, server->schema_cap * sizeof(*server->schemas));
        BASE_ASSERT(server->schemas != NULL);
    }
    memmove(&server->schemas[at + 1], &server->schemas[at],
            (server->schema_count - at) * sizeof(*server->schemas));
    server->schemas[at] = tab_schema_ref(schema);
    server->schema_count++;
    for (size_t i = 0; i < server->tablet_count; i++)
        if (server->tablets[i]->table == schema->table)
            tab_tablet_set_schema(server->tablets[i], schema);
}

void tab_server_set_schema(struct tab_server *server, const Strata__Tablet__V1__TableMeta *meta)
{
    if (!meta->deleted) {
        struct tab_schema *schema = tab_schema_new(meta);
        keep_schema(server, schema);
        tab_schema_unref(schema);
        return;
    }
    bool found;
    size_t at = schema_at(server, ch_bytes_of(meta->name), &found);
    if (found && server->schemas[at]->table <= meta->id)
        forget_schema(server, at);
}

static struct base_status fetch_schema(struct tab_server *server, struct base_bytes name,
                                       ch_time deadline, struct tab_schema **schema) CH_WAITS;
static struct base_status fetch_schema(struct tab_server *server, struct base_bytes name,
                                       ch_time deadline, struct tab_schema **schema)
{
    struct base_arena arena = { 0 };
    struct base_buf key = { 0 };
    struct tab_meta_row row;
    ProtobufCMessage *meta;
    tab_meta_schema_key(&key, 't', name);
    struct base_status status =
        tab_metac_get(server->store.metac, base_buf_bytes(&key), deadline, &arena, &row);
    if (status.code == BASE_NOT_FOUND) {
        base_status_free(&status);
        status = base_status_make(BASE_NOT_FOUND, "Table not found: %s",
                                  base_bytes_show(&arena, name, 300));
        bool found;
        size_t at = schema_at(server, name, &found);
        if (found)
            forget_schema(server, at);
    }
    if (!base_failed(status))
        status =
            ch_proto_decode(&strata__tablet__v1__table_meta__descriptor, row.value, &arena, &meta);
    if (!base_failed(status)) {
        struct tab_schema *fetched = tab_schema_new((Strata__Tablet__V1__TableMeta *)meta);
        keep_schema(server, fetched);
        tab_schema_unref(fetched);
        bool found;
        size_t at = schema_at(server, name, &found);
        BASE_ASSERT(found);
        *schema = tab_schema_ref(server->schemas[at]);
    }
    base_buf_free(&key);
    base_arena_free(&arena);
    return status;
}

struct base_status tab_server_schema(struct tab_server *server, struct base_bytes name, bool fresh,
                                     ch_time deadline, struct tab_schema **schema)
{
    bool found = false;
    size_t at = fresh ? 0 : schema_at(server, name, &found);
    if (!found)
        return fetch_schema(server, name, deadline, schema);
    *schema = tab_schema_ref(server->schemas[at]);
    return BASE_STATUS_OK;
}

/* ---- life ---- */

static bool log_alive(void *self)
{
    return tab_store_alive(&((struct tab_server *)self)->store);
}

static void log_ended(void *self, struct base_status why)
{
    struct tab_server *server = self;
    if (server->stopping)
        base_status_free(&why);
    else
        ch_service_fail(server->env, why);
}

static void server_name(struct tab_server *server, const struct ch_service_config *common)
{
    const char *task = common->task && common->task[0] ? common->task : "tabletserver/1";
    const char *slash = strrchr(task, '/');
    snprintf(server->name, sizeof(server->name), "%s", slash ? slash + 1 : task);
    snprintf(server->cell, sizeof(server->cell), "%s",
             common->cell && common->cell[0] ? common->cell : "local");
}

static void init_store(struct tab_server *server)
{
    struct tab_store *store = &server->store;
    const struct tab_server_config *config = server->config;
    store->env = server->env;
    store->blk = server->blk;
    store->metac = tab_metac_new(server->env, server->naming, server->cell);
    store->cache = tab_bridge_cache_new(config->cache_bytes);
    store->memtable_bytes = config->memtable_bytes;
    store->memory_bytes_max = config->memory_bytes_max;
    store->split_bytes = config->split_bytes;
    tab_rowlocks_init(&store->rowlocks);
    ch_gate_init(&store->files, server->env, "SSTables");
    ch_cond_init(&store->work);
    store->rows_read = ch_counter(server->env, "tablet_rows_read", "", "Rows read");
    store->cells_read = ch_counter(server->env, "tablet_cells_read", "", "Cells read");
    store->rows_written =
        ch_counter(server->env, "tablet_rows_written", "", "Row operations that were acknowledged");
    store->flushes = ch_counter(server->env, "tablet_flushes", "", "Memtables written to files");
    store->compactions = ch_counter(server->env, "tablet_compactions", "", "Merges of files");
    store->bytes_compacted =
        ch_counter(server->env, "tablet_bytes_compacted", "", "Bytes of files merged");
    store->slowed =
        ch_counter(server->env, "tablet_writes_slowed", "", "Writes slowed by back-pressure");
    server->tablets_served = ch_gauge(server->env, "tablet_tablets", "", "Tablets served");
}

static struct base_status server_start(const struct ch_service_start *start, void **self)
{
    if (!start->naming)
        return base_status_make(BASE_INVALID_ARGUMENT, "tabletserver needs --names");
    struct tab_server *server = calloc(1, sizeof(*server));
    BASE_ASSERT(server != NULL);
    server->env = start->env;
    server->config = start->config;
    server->naming = start->naming;
    server->rpc = start->server;
    server_name(server, start->common);
    struct blk_client_options blk = { .naming = start->naming, .cell = server->cell };
    server->blk = blk_client_new(start->env, &blk);
    server->metadata_schema = tab_schema_of_metadata();
    init_store(server);
    ch_gate_init(&server->gate, server->env, "tabletserver");
    char path[160];
    snprintf(path, sizeof(path), "/%s/locks/tabletmaster", server->cell);
    server->master_watch = ch_name_watch(server->naming, path);
    tab_register_data(server);
    tab_register_internal(server);
    tab_register_passed(server);
    *self = server;
    return BASE_STATUS_OK;
}

static void watch_lock(void *arg)
{
    CH_FIBER_ENTRY();
    struct tab_server *server = arg;
    if (ch_lock_wait_lost(server->lock, CH_NEVER) == CH_CLOSED && !server->stopping)
        ch_service_fail(server->env,
                        base_status_make(BASE_UNAVAILABLE, "tabletserver %s lost its lock",
                                         server->store.server));
}

static struct base_status take_lock(struct tab_server *server) CH_WAITS;
static struct base_status take_lock(struct tab_server *server)
{
    char path[160];
    const char *address = ch_server_address(server->rpc), *comma = strchr(address, ',');
    snprintf(server->store.address, sizeof(server->store.address), "%.*s",
             comma ? (int)(comma - address) : (int)strlen(address), address);
    snprintf(path, sizeof(path), "/%s/locks/tabletserver/%s", server->cell, server->name);
    struct base_status status =
        ch_lock_acquire(server->naming, path, base_bytes_str(server->store.address),
                        ch_in(server->env, LOCK_TIMEOUT_S * CH_S), &server->lock);
    if (base_failed(status))
        return status;
    server->store.lock = server->lock;
    server->store.fence = ch_lock_epoch(server->lock);
    snprintf(server->store.server, sizeof(server->store.server), "%s@%llu", server->name,
             (unsigned long long)server->store.fence);
    return ch_gate_spawn(&server->gate, "lock", watch_lock, server);
}

static struct base_status server_serve(void *self) CH_WAITS;
static struct base_status server_serve(void *self)
{
    struct tab_server *server = self;
    struct base_status status = take_lock(server);
    if (base_failed(status))
        return status;
    char directory[200];
    snprintf(directory, sizeof(directory), "/tablet/log/%s", server->store.server);
    struct tab_log_options options = { .directory = directory,
                                       .fence = server->store.fence,
                                       .segment_bytes = server->config->log_segment_bytes,
                                       .pipeline = (size_t)server->config->log_pipeline,
                                       .alive = log_alive,
                                       .ended = log_ended,
                                       .self = server };
    for (;;) { /* blockstore may come up after us */
        status = tab_log_open(server->env, server->blk, &options, ch_in(server->env, 5 * CH_S),
                              &server->store.log);
        if (!base_failed(status) || ch_cancelled() || !tab_store_alive(&server->store))
            break;
        ch_warn(server->env, "%s", base_status_text(&status));
        base_status_free(&status);
        ch_sleep_until(server->env, ch_in(server->env, 200 * CH_MS));
    }
    if (!base_failed(status))
        status = tab_upkeep_start(server);
    if (base_failed(status))
        return status;
    server->serving = true;
    ch_server_set_serving(server->rpc, true);
    ch_info(server->env, "tabletserver %s serves at %s", server->store.server,
            server->store.address);
    return BASE_STATUS_OK;
}

static void server_free(struct tab_server *server) CH_WAITS;
static void server_free(struct tab_server *server)
{
    while (server->tablet_count)
        tab_server_remove(server, server->tablets[0]);
    ch_gate_close(&server->store.files);
    ch_gate_join_always(&server->store.files);
    if (server->lock)
        ch_lock_free(server->lock);
    if (server->master_watch)
        ch_name_watch_free(server->master_watch);
    tab_metac_free(server->store.metac);
    tab_bridge_cache_free(server->store.cache);
    blk_client_free(server->blk);
    tab_rowlocks_destroy(&server->store.rowlocks);
    while (server->schema_count)
        forget_schema(server, 0);
    tab_schema_unref(server->metadata_schema);
    free(server->schemas);
    free(server->tablets);
    free(server->passed);
    free(server);
}

static void server_stop(void *self) CH_WAITS;
static void server_stop(void *self)
{
    struct tab_server *server = self;
    /* What retire() could not give up is left to the master, with its log, as after a crash. */
    bool clean = server->serving && tab_store_alive(&server->store) && server->tablet_count == 0 &&
                 !server->loading;
    server->stopping = true;
    ch_cond_broadcast(&server->store.work);
    ch_gate_stop(&server->gate);
    if (server->store.log)
        tab_log_close(server->store.log, clean);
    server_free(server);
}

static const struct ch_config_key keys[] = {
    CH_CONFIG(tab_server_config, memtable_bytes, "memtable-bytes", CH_CONFIG_SIZE, "16MiB",
              "memory of a tablet's newest entries before they are written to a file"),
    CH_CONFIG(tab_server_config, memory_bytes_max, "memory-bytes-max", CH_CONFIG_SIZE, "256MiB",
              "memory of all memtables; writes are slowed from half of it on and refused at it"),
    CH_CONFIG(tab_server_config, log_segment_bytes, "log-segment-bytes", CH_CONFIG_SIZE, "64MiB",
              "size of a commit log file"),
    CH_CONFIG(tab_server_config, log_segments_max, "log-segments-max", CH_CONFIG_INT, "8",
              "commit log files kept before tablets that pin the oldest are flushed"),
    CH_CONFIG(tab_server_config, log_pipeline, "log-pipeline", CH_CONFIG_INT, "3",
              "commit log appends in flight"),
    CH_CONFIG(tab_server_config, cache_bytes, "block-cache-bytes", CH_CONFIG_SIZE, "128MiB",
              "cache of SSTable blocks"),
    CH_CONFIG(tab_server_config, split_bytes, "tablet-split-bytes", CH_CONFIG_SIZE, "256MiB",
              "files of a tablet before it is split by itself; 0: never"),
};

const struct ch_service_def tab_tabletserver_def = {
    .name = "tabletserver",
    .about = "serves tablets: google.bigtable.v2",
    .config = { keys, sizeof(keys) / sizeof(keys[0]) },
    .config_size = sizeof(struct tab_server_config),
    .start = server_start,
    .serve = server_serve,
    .retire = tab_server_retire,
    .stop = server_stop,
};
