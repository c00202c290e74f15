/* master.c: the tabletmaster's life: see master.h.
 *
 * Every instance serves RPCs; one holds the lock /<cell>/locks/tabletmaster (its value is the
 * address) and leads: it makes passes (master_pass.c) and answers admin requests; the others say
 * UNAVAILABLE. A leader that loses its lock ends its process. A leader that is paused and goes
 * on later can do no harm: every change it makes is a compare-and-set on METADATA, and a dead
 * incarnation of a server stays dead. */
#include "master.h"

#include <stdio.h>
#include <stdlib.h>

#include "chassis/log.h"
#include "strata/tablet/v1/tablet.strata.h"

void tab_master_poke(struct tab_master *master)
{
    master->dirty = true;
    ch_cond_broadcast(&master->wake);
}

struct base_status tab_master_check(const struct tab_master *master)
{
    if (master->leading && master->lock && ch_lock_held(master->lock))
        return BASE_STATUS_OK;
    return base_status_make(BASE_UNAVAILABLE, "this tabletmaster does not lead");
}

struct base_status tab_master_live(struct tab_master *master, ch_time deadline,
                                   struct base_arena *arena, struct tab_live **live, size_t *count)
{
    char prefix[160];
    snprintf(prefix, sizeof(prefix), "/%s/locks/tabletserver", master->cell);
    struct ch_name_entry *entries;
    size_t entry_count;
    struct base_status status =
        ch_name_list(master->naming, prefix, deadline, arena, &entries, &entry_count);
    *count = 0;
    if (base_failed(status))
        return base_status_wrap(status, "tabletservers");
    *live = BASE_NEW_ARRAY(arena, struct tab_live, entry_count);
    for (size_t i = 0; i < entry_count; i++) {
        const char *slash = strrchr(entries[i].path, '/');
        if (strlen(entries[i].path) <= strlen(prefix))
            continue;
        struct tab_live *one = &(*live)[(*count)++];
        one->alive = entries[i].locked && entries[i].value.len > 0;
        one->epoch = entries[i].epoch;
        snprintf(one->name, sizeof(one->name), "%s", slash + 1);
        snprintf(one->server, sizeof(one->server), "%s@%llu", one->name,
                 (unsigned long long)one->epoch);
        snprintf(one->address, sizeof(one->address), "%.*s", BASE_FMT(entries[i].value));
    }
    return BASE_STATUS_OK;
}

struct tab_live *tab_live_find(struct tab_live *live, size_t count, struct base_bytes server)
{
    for (size_t i = 0; i < count; i++)
        if (live[i].alive && base_bytes_eq_str(server, live[i].server))
            return &live[i];
    return NULL;
}

enum tab_incarnation tab_incarnation_of(const struct tab_live *live, size_t count,
                                        struct base_bytes server)
{
    const uint8_t *at = server.len ? memrchr(server.data, '@', server.len) : NULL;
    if (!at)
        return TAB_DEAD; /* nobody */
    struct base_bytes name = base_bytes(server.data, (size_t)(at - server.data));
    uint64_t epoch = 0;
    for (const uint8_t *digit = at + 1; digit < server.data + server.len; digit++)
        epoch = epoch * 10 + (uint64_t)(*digit - '0');
    for (size_t i = 0; i < count; i++)
        if (base_bytes_eq_str(name, live[i].name)) {
            if (epoch > live[i].epoch)
                return TAB_YOUNGER;
            return epoch == live[i].epoch && live[i].alive ? TAB_ALIVE : TAB_DEAD;
        }
    return TAB_YOUNGER;
}

struct tab_live *tab_live_least(struct tab_live *live, size_t count)
{
    struct tab_live *least = NULL;
    for (size_t i = 0; i < count; i++)
        if (live[i].reported && !live[i].retiring && (!least || live[i].assigned < least->assigned))
            least = &live[i];
    return least;
}

struct base_status tab_master_call(struct tab_master *master, const char *address, int method,
                                   const void *request, ch_time deadline, struct base_arena *arena,
                                   void **reply)
{
    struct ch_call_options options = { .deadline = deadline, .no_retry = true };
    return ch_client_call(tab_metac_peer(master->metac, address),
                          &strata__tablet__v1__tabletserver__service.methods[method], request,
                          &options, arena, reply);
}

/* ---- life ---- */

static struct base_status master_start(const struct ch_service_start *start, void **self)
{
    if (!start->naming)
        return base_status_make(BASE_INVALID_ARGUMENT, "tabletmaster needs --names");
    struct tab_master *master = calloc(1, sizeof(*master));
    BASE_ASSERT(master != NULL);
    master->env = start->env;
    master->config = start->config;
    master->naming = start->naming;
    master->rpc = start->server;
    snprintf(master->cell, sizeof(master->cell), "%s",
             start->common->cell && start->common->cell[0] ? start->common->cell : "local");
    struct blk_client_options blk = { .naming = start->naming, .cell = master->cell };
    master->blk = blk_client_new(start->env, &blk);
    master->metac = tab_metac_new(start->env, start->naming, master->cell);
    ch_gate_init(&master->gate, start->env, "tabletmaster");
    ch_cond_init(&master->wake);
    ch_cond_init(&master->passed);
    ch_mutex_init(&master->schema);
    tab_register_table_admin(master);
    tab_register_instance_admin(master);
    tab_register_master(master);
    *self = master;
    return BASE_STATUS_OK;
}

static void watch_servers(void *arg)
{
    CH_FIBER_ENTRY();
    struct tab_master *master = arg;
    uint64_t generation = 0;
    while (ch_name_watch_wait(master->servers, &generation, CH_NEVER) == CH_OK)
        tab_master_poke(master);
}

static void lead(void *arg)
{
    CH_FIBER_ENTRY();
    struct tab_master *master = arg;
    char path[160];
    snprintf(path, sizeof(path), "/%s/locks/tabletmaster", master->cell);
    while (!master->lock && !ch_cancelled()) {
        struct base_status status =
            ch_lock_acquire(master->naming, path, base_bytes_str(master->address),
                            ch_in(master->env, 30 * CH_S), &master->lock);
        if (base_failed(status)) {
            master->lock = NULL;
            if (status.code != BASE_DEADLINE_EXCEEDED)
                ch_sleep_until(master->env, ch_in(master->env, 200 * CH_MS));
        }
        base_status_free(&status);
    }
    if (!master->lock)
        return;
    master->leading = true;
    ch_info(master->env, "tabletmaster at %s leads, epoch %llu", master->address,
            (unsigned long long)ch_lock_epoch(master->lock));
    struct base_status status =
        ch_gate_spawn(&master->gate, "passes", tab_master_pass_fiber, master);
    if (!base_failed(status))
        status = ch_gate_spawn(&master->gate, "servers", watch_servers, master);
    if (!base_failed(status) && ch_lock_wait_lost(master->lock, CH_NEVER) == CH_CLOSED)
        status = base_status_make(BASE_UNAVAILABLE, "tabletmaster lost its lock");
    master->leading = false;
    if (base_failed(status) && !master->stopping && !ch_cancelled())
        ch_service_fail(master->env, status);
    else
        base_status_free(&status);
}

static struct base_status master_serve(void *self)
{
    struct tab_master *master = self;
    const char *address = ch_server_address(master->rpc), *comma = strchr(address, ',');
    snprintf(master->address, sizeof(master->address), "%.*s",
             comma ? (int)(comma - address) : (int)strlen(address), address);
    char prefix[160];
    snprintf(prefix, sizeof(prefix), "/%s/locks/tabletserver", master->cell);
    master->servers = ch_name_watch(master->naming, prefix);
    ch_server_set_serving(master->rpc, true);
    return ch_gate_spawn(&master->gate, "lead", lead, master);
}

static void master_stop(void *self) CH_WAITS;
static void master_stop(void *self)
{
    struct tab_master *master = self;
    master->stopping = true;
    master->leading = false;
    ch_gate_stop(&master->gate);
    if (master->lock)
        ch_lock_free(master->lock);
    if (master->servers)
        ch_name_watch_free(master->servers);
    tab_metac_free(master->metac);
    blk_client_free(master->blk);
    free(master);
}

static const struct ch_config_key keys[] = {
    CH_CONFIG_LIVE(tab_master_config, balance, "balance", CH_CONFIG_BOOL, "true",
                   "move tablets from servers with many to servers with few"),
    CH_CONFIG_LIVE(tab_master_config, balance_interval, "balance-interval", CH_CONFIG_DURATION,
                   "2s", "between two such moves"),
};

const struct ch_service_def tab_tabletmaster_def = {
    .name = "tabletmaster",
    .about = "assigns tablets, keeps tables: google.bigtable.admin.v2",
    .config = { keys, sizeof(keys) / sizeof(keys[0]) },
    .config_size = sizeof(struct tab_master_config),
    .start = master_start,
    .serve = master_serve,
    .stop = master_stop,
};
