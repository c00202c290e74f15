/* upkeep.c: see upkeep.h. Two flushers, one merger, one fiber for the log and splits; each looks
 * for the tablet that needs it most, works, and waits for a change (or a second). A failure is
 * logged and tried again later; the tablet serves meanwhile. */
#include "upkeep.h"

#include <stdlib.h>

#include "chassis/log.h"

enum { FLUSHERS = 2, IDLE_MS = 1000, FAILED_MS = 200, FLUSH_TIMEOUT_S = 120 };

static void idle(struct tab_server *server, bool failed) CH_WAITS;
static void idle(struct tab_server *server, bool failed)
{
    ch_time until = ch_in(server->env, (failed ? FAILED_MS : IDLE_MS) * CH_MS);
    if (failed)
        ch_sleep_until(server->env, until);
    else
        base_status_drop(ch_outcome_status(ch_cond_wait(&server->store.work, until), "idle"));
}

static bool going_on(const struct tab_server *server)
{
    return !server->stopping && !ch_cancelled();
}

/* Of those that want it, the one with the most memory. A reference. */
static struct tab_tablet *next_to_flush(struct tab_server *server)
{
    struct tab_tablet *best = NULL;
    for (size_t i = 0; i < server->tablet_count; i++) {
        struct tab_tablet *tablet = server->tablets[i];
        if (tab_tablet_wants_flush(tablet) &&
            (!best || tab_tablet_memory_bytes(tablet) > tab_tablet_memory_bytes(best)))
            best = tablet;
    }
    return best ? tab_tablet_ref(best) : NULL;
}

static void flusher(void *arg)
{
    CH_FIBER_ENTRY();
    struct tab_server *server = arg;
    while (going_on(server)) {
        struct tab_tablet *tablet = next_to_flush(server);
        if (!tablet) {
            idle(server, false);
            continue;
        }
        struct base_status status = tab_tablet_flush(tablet, tablet->want_flush,
                                                     ch_in(server->env, FLUSH_TIMEOUT_S * CH_S));
        bool failed = base_failed(status);
        if (failed)
            ch_warn(server->env, "%s", base_status_text(&status));
        base_status_free(&status);
        if (tablet->state == TAB_GONE)
            tab_server_remove(server, tablet);
        tab_tablet_unref(tablet);
        if (failed)
            idle(server, true);
    }
}

static void merger(void *arg)
{
    CH_FIBER_ENTRY();
    struct tab_server *server = arg;
    size_t turn = 0;
    while (going_on(server)) {
        bool any = false;
        for (size_t i = 0; i < server->tablet_count && going_on(server); i++) {
            struct tab_tablet *tablet =
                tab_tablet_ref(server->tablets[(turn + i) % server->tablet_count]);
            bool did = false;
            struct base_status status = tab_tablet_compact(tablet, false, &did);
            if (base_failed(status)) {
                ch_warn(server->env, "%s", base_status_text(&status));
                base_status_free(&status);
                idle(server, true);
            }
            any |= did;
            if (tablet->state == TAB_GONE)
                tab_server_remove(server, tablet);
            tab_tablet_unref(tablet);
        }
        turn++;
        if (!any)
            idle(server, false);
    }
}

/* Segments that no memtable needs go; tablets that keep too many alive, or the largest when
 * memory is short, are flushed. */
static void trim_log(struct tab_server *server) CH_WAITS;
static void trim_log(struct tab_server *server)
{
    struct tab_store *store = &server->store;
    uint64_t current = tab_log_segment(store->log), least = current,
             most = (uint64_t)server->config->log_segments_max;
    struct tab_tablet *largest = NULL;
    for (size_t i = 0; i < server->tablet_count; i++) {
        struct tab_tablet *tablet = server->tablets[i];
        uint64_t segment = tab_tablet_segment(tablet);
        if (segment < least)
            least = segment;
        if (segment != UINT64_MAX && segment + most <= current)
            tablet->want_flush = true;
        if (!largest || tab_tablet_memory_bytes(tablet) > tab_tablet_memory_bytes(largest))
            largest = tablet;
    }
    if (largest && store->memory_bytes > store->memory_bytes_max / 2)
        largest->want_flush = true;
    ch_cond_broadcast(&store->work);
    tab_log_trim(store->log, least);
}

static void split_large(struct tab_server *server) CH_WAITS;
static void split_large(struct tab_server *server)
{
    uint64_t most = server->store.split_bytes;
    for (size_t i = 0; most && i < server->tablet_count; i++) {
        struct tab_tablet *tablet = server->tablets[i];
        if (tablet->is_root || tablet->table == TAB_TABLE_METADATA ||
            tablet->state != TAB_SERVING || tablet->splitting)
            continue;
        if (tab_tablet_file_bytes(tablet) < most)
            continue;
        struct base_buf row = { 0 };
        uint64_t left, right;
        tab_tablet_ref(tablet);
        struct base_status status = BASE_STATUS_OK;
        if (tab_tablet_middle(tablet, &row) && tablet->state == TAB_SERVING) {
            status = tab_server_split(server, tablet, base_buf_bytes(&row),
                                      ch_in(server->env, FLUSH_TIMEOUT_S * CH_S), &left, &right);
        }
        if (base_failed(status))
            ch_warn(server->env, "%s", base_status_text(&status));
        base_status_free(&status);
        base_buf_free(&row);
        tab_tablet_unref(tablet);
        return; /* the list has changed */
    }
}

static void keeper(void *arg)
{
    CH_FIBER_ENTRY();
    struct tab_server *server = arg;
    while (going_on(server)) {
        trim_log(server);
        split_large(server);
        if (ch_sleep_until(server->env, ch_in(server->env, IDLE_MS * CH_MS)) != CH_TIMEOUT)
            break;
    }
}

struct base_status tab_upkeep_start(struct tab_server *server)
{
    struct base_status status = ch_gate_spawn(&server->gate, "log keeper", keeper, server);
    for (int i = 0; i < FLUSHERS && !base_failed(status); i++)
        status = ch_gate_spawn(&server->gate, "flusher", flusher, server);
    if (!base_failed(status))
        status = ch_gate_spawn(&server->gate, "merger", merger, server);
    return status;
}
