/* keeper.c: one fiber a shard: takes its lock when it is free, leads while it holds it, steps
 * down when it does not.
 *
 * Sharing: with n live txservers, the one at place i in the order of their names prefers the
 * shards s with s mod n = i. It asks for those at once and for others a little later; one that
 * leads a shard somebody else prefers hands it over when that has been so for a while. */
#include <stdio.h>

#include "server.h"
#include "shard.h"

enum {
    ACQUIRE_S = 5,          /* one wait for a lock */
    OTHERS_LATER_MS = 1500, /* before asking for a shard that another server prefers */
    LOOK_S = 5,             /* between two looks at who prefers what */
    LOOKS_BEFORE_HANDOVER = 3,
    AFTER_HANDOVER_S = 2, /* so that the other gets it */
};

struct base_bytes txn__keeper_holder(struct txn__server *server, uint32_t shard)
{
    size_t count;
    const struct ch_name_entry *entries = ch_name_watch_entries(server->locks, &count);
    for (size_t i = 0; i < count; i++)
        if (entries[i].locked && strcmp(entries[i].path, server->shards[shard].path) == 0)
            return entries[i].value;
    return BASE_BYTES_EMPTY;
}

/* True when no other live server should rather lead it. */
static bool preferred(struct txn__shard *shard)
{
    struct txn__server *server = shard->server;
    size_t count, live = 0, mine = SIZE_MAX;
    const struct ch_name_entry *entries = ch_name_watch_entries(server->tasks, &count);
    const char *address = ch_server_address(server->rpc);
    for (size_t i = 0; i < count; i++) {
        if (!entries[i].healthy || !entries[i].value.len)
            continue;
        if (base_bytes_eq_str(entries[i].value, address))
            mine = live;
        live++;
    }
    return mine == SIZE_MAX || shard->index % live == mine;
}

static void watch_lock(void *arg)
{
    CH_FIBER_ENTRY();
    struct txn__lead *lead = arg;
    if (ch_lock_wait_lost(lead->lock, CH_NEVER) == CH_CLOSED)
        txn__lead_close(lead, base_status_make(BASE_UNAVAILABLE, "its lock is lost"));
}

/* Leads until the term is over, by its own end or the lock's, or it is handed over (true). */
static bool lead_until_over(struct txn__shard *shard, struct txn__lead *lead) CH_WAITS;
static bool lead_until_over(struct txn__shard *shard, struct txn__lead *lead)
{
    int looks = 0;
    while (!lead->closed) {
        enum ch_outcome outcome = ch_cond_wait(&lead->over, ch_in(lead->env, LOOK_S * CH_S));
        if (outcome == CH_CANCELLED)
            txn__lead_close(lead, base_status_make(BASE_UNAVAILABLE, "the server is stopping"));
        else if (outcome == CH_TIMEOUT)
            looks = preferred(shard) ? 0 : looks + 1;
        if (looks >= LOOKS_BEFORE_HANDOVER && !lead->closed) {
            txn__lead_close(lead, base_status_make(BASE_UNAVAILABLE,
                                                   "handed over to the server that prefers it"));
            return true;
        }
    }
    return false;
}

static bool serve_term(struct txn__shard *shard, struct ch_lock *lock) CH_WAITS;
static bool serve_term(struct txn__shard *shard, struct ch_lock *lock)
{
    struct txn__server *server = shard->server;
    struct txn__lead *lead = txn__lead_new(server->env, server->config, &server->tables,
                                           shard->index, lock, &server->metrics);
    bool handed_over = false;
    struct base_status status = txn__recover(lead);
    if (!base_failed(status))
        status = txn__apply_start(lead);
    if (!base_failed(status))
        status = txn__sweep_start(lead);
    if (!base_failed(status))
        status = ch_gate_spawn(&lead->gate, "txn lock", watch_lock, lead);
    if (base_failed(status)) {
        ch_warn(server->env, "shard %u: %s", shard->index, base_status_text(&status));
        txn__lead_close(lead, status);
    } else {
        shard->lead = lead;
        server->leading->value++;
        handed_over = lead_until_over(shard, lead);
        shard->lead = NULL;
        server->leading->value--;
        ch_info(server->env, "shard %u, epoch %llu: stepped down: %s", shard->index,
                (unsigned long long)lead->epoch, base_status_text(&lead->why));
    }
    ch_gate_stop(&lead->gate);
    txn__lead_unref(lead);
    return handed_over;
}

static void keep_shard(void *arg)
{
    CH_FIBER_ENTRY();
    struct txn__shard *shard = arg;
    struct txn__server *server = shard->server;
    int64_t pause_ms = TXN__RETRY_MS_MIN;
    if (!preferred(shard))
        (void)!ch_sleep_until(server->env, ch_in(server->env, OTHERS_LATER_MS * CH_MS));
    while (!server->stopping && !ch_cancelled()) {
        struct ch_lock *lock;
        struct base_status status = ch_lock_acquire(server->naming, shard->path,
                                                    base_bytes_str(ch_server_address(server->rpc)),
                                                    ch_in(server->env, ACQUIRE_S * CH_S), &lock);
        if (base_failed(status)) {
            bool busy = base_status_drop(status) == BASE_DEADLINE_EXCEEDED;
            if (!busy)
                txn__backoff(server->env, &pause_ms);
            continue;
        }
        ch_time began = ch_now(server->env);
        bool handed_over = serve_term(shard, lock);
        ch_lock_free(lock);
        if (handed_over)
            (void)!ch_sleep_until(server->env, ch_in(server->env, AFTER_HANDOVER_S * CH_S));
        pause_ms = ch_now(server->env) - began > CH_S ? TXN__RETRY_MS_MIN : pause_ms;
        if (!server->stopping && !ch_cancelled())
            txn__backoff(server->env, &pause_ms);
    }
}

struct base_status txn__keepers_start(struct txn__server *server)
{
    struct base_status status = BASE_STATUS_OK;
    for (uint32_t i = 0; i < (uint32_t)server->config->shards && !base_failed(status); i++) {
        server->shards[i] = (struct txn__shard){ .server = server, .index = i };
        snprintf(server->shards[i].path, sizeof(server->shards[i].path), "/%s/locks/txshard/%u",
                 server->cell, i);
    }
    for (uint32_t i = 0; i < (uint32_t)server->config->shards && !base_failed(status); i++)
        status = ch_gate_spawn(&server->gate, "txn shard", keep_shard, &server->shards[i]);
    return status;
}
