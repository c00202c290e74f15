/* server.c: the txserver daemon: its configuration, start and stop. Stop order: keepers close
 * their terms and release the locks, then the client of the tablet layer goes (the RPC server
 * has drained before). */
#include "server.h"

#include <stdlib.h>

#include "shard.h"

static const struct ch_config_key keys[] = {
    CH_CONFIG(txn__config, tablet, "tablet", CH_CONFIG_STRING, "",
              "the google.bigtable.v2 service to keep everything in: a name or an address; empty: "
              "/<cell>/tabletserver"),
    CH_CONFIG(txn__config, instance, "instance", CH_CONFIG_STRING,
              "projects/strata/instances/strata",
              "the Bigtable instance that holds the tables txlog and txdata"),
    { "shards", CH_CONFIG_INT, offsetof(struct txn__config, shards), "4",
      "shards of the cell; the same for every txserver of it, and for ever", 1, TXN__SHARDS_MAX },
    CH_CONFIG(txn__config, retention, "retention", CH_CONFIG_DURATION, "3600s",
              "how far in the past reads may be"),
    CH_CONFIG(txn__config, cache_bytes, "cache-bytes", CH_CONFIG_SIZE, "64MiB",
              "rows a shard's leader keeps in memory"),
    CH_CONFIG(txn__config, conflict_bytes, "conflict-bytes", CH_CONFIG_SIZE, "128MiB",
              "memory of a shard's leader for what was written lately; when it is full, old read "
              "timestamps are refused"),
    CH_CONFIG(txn__config, sweep_every, "sweep-every", CH_CONFIG_DURATION, "600s",
              "pause between two sweeps that remove versions older than the retention"),
    { "log-drop-min", CH_CONFIG_INT, offsetof(struct txn__config, log_drop_min), "512",
      "applied positions of a shard's log that are dropped together, at least", 1, 1000000 },
    CH_CONFIG(txn__config, sweep_off, "sweep-off", CH_CONFIG_BOOL, "false", "keep all versions"),
};

static struct base_status start(const struct ch_service_start *how, void **self) CH_WAITS;
static struct base_status start(const struct ch_service_start *how, void **self)
{
    const struct txn__config *config = how->config;
    if (!how->naming)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "--names is missing: a txserver needs the cell's locks");
    struct txn__server *server = calloc(1, sizeof(*server));
    BASE_ASSERT(server);
    base_arena_init(&server->arena);
    server->env = how->env;
    server->config = config;
    server->naming = how->naming;
    server->rpc = how->server;
    server->cell = base_arena_strdup(&server->arena, how->common->cell);
    server->task = base_arena_strdup(&server->arena, how->common->task);
    server->shards = BASE_NEW_ARRAY(&server->arena, struct txn__shard, (size_t)config->shards);
    server->leading = ch_gauge(how->env, "txn_shards_led", "", "shards this server leads");
    txn__metrics_init(how->env, &server->metrics);
    ch_gate_init(&server->gate, how->env, "txn keepers");
    server->locks = ch_name_watch(
        how->naming, base_arena_printf(&server->arena, "/%s/locks/txshard", server->cell));
    server->tasks =
        ch_name_watch(how->naming, base_arena_printf(&server->arena, "/%s/txserver", server->cell));
    struct tab_client_options tablet = {
        .naming = how->naming,
        .target = config->tablet[0]
                      ? config->tablet
                      : base_arena_printf(&server->arena, "/%s/tabletserver", server->cell),
    };
    server->tables.env = how->env;
    server->tables.client = tab_client_new(how->env, &tablet);
    server->tables.log_name =
        base_bytes_str(base_arena_printf(&server->arena, "%s/tables/txlog", config->instance));
    server->tables.data_name =
        base_bytes_str(base_arena_printf(&server->arena, "%s/tables/txdata", config->instance));
    txn__handlers_register(server, how->server);
    *self = server;
    return BASE_STATUS_OK;
}

static struct base_status serve(void *self) CH_WAITS;
static struct base_status serve(void *self)
{
    struct txn__server *server = self;
    int64_t pause_ms = TXN__RETRY_MS_MIN;
    for (;;) {
        struct base_status status =
            txn__tables_ensure(&server->tables, server->config->instance,
                               ch_in(server->env, TXN__TABLE_CALL_MS * CH_MS));
        if (!base_failed(status))
            break;
        ch_warn(server->env, "make the tables: %s", base_status_text(&status));
        if (ch_cancelled())
            return base_status_wrap(status, "stopped while making the tables");
        base_status_free(&status);
        txn__backoff(server->env, &pause_ms);
    }
    struct base_status status = txn__keepers_start(server);
    if (!base_failed(status))
        ch_server_set_serving(server->rpc, true);
    return status;
}

static void stop(void *self) CH_WAITS;
static void stop(void *self)
{
    struct txn__server *server = self;
    server->stopping = true;
    ch_gate_stop(&server->gate);
    ch_name_watch_free(server->locks);
    ch_name_watch_free(server->tasks);
    tab_client_free(server->tables.client);
    base_arena_free(&server->arena);
    free(server);
}

const struct ch_service_def txn__service = {
    .name = "txserver",
    .about = "leads shards of the transaction layer",
    .config = { keys, sizeof(keys) / sizeof(keys[0]) },
    .config_size = sizeof(struct txn__config),
    .start = start,
    .serve = serve,
    .stop = stop,
    /* A commit counts keys and values; what frames many small ones takes as much again. */
    .message_bytes_max = 2 * TXN_COMMIT_MAX,
};
