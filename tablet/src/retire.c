/* retire.c: a tabletserver that is asked to stop gives up its tablets while it still answers.
 *
 * Giving a tablet up is two flushes and a write to the record that says who serves it, which lies
 * one level above: a user's tablet's in METADATA, METADATA's in the root tablet, the root's in
 * naming. So:
 * 1. Users' tablets go first, then METADATA's, the root last, over all servers that are stopping
 *    together (a cell that is shut down): a server keeps a level until nobody who stops with it
 *    has anything below.
 * 2. When a server stays, nothing needs to be waited for: the master gives what is given up to
 *    that one, and writes to METADATA are repeated until it serves. Signals to a whole tier do not
 *    come at one instant, so "stays" is believed after TOGETHER_MS only.
 * 3. A retiring server takes no tablets (Load: UNAVAILABLE; Report says it).
 * 4. Every wait is bounded; what is not given up by then is left to the master with the log, as
 *    after a crash. Nothing acknowledged depends on this file. */
#include <stdio.h>
#include <stdlib.h>

#include "chassis/log.h"
#include "server.h"
#include "strata/tablet/v1/tablet.strata.h"

enum { RETIRE_S = 8, PEERS_S = 4, TOGETHER_MS = 150, POLL_MS = 20, REPORT_MS = 500 };

enum level { ROOT, METADATA, USERS, LEVELS }; /* a record of one is in the one before */

struct retire {
    struct tab_server *server;
    ch_time begun, deadline;
};

static enum level level_of(uint64_t table, struct base_bytes start)
{
    if (table != TAB_TABLE_METADATA)
        return USERS;
    return start.len ? METADATA : ROOT;
}

/* False: the node is gone, nothing is to be waited for. */
static bool rest(struct ch_env *env) CH_WAITS;
static bool rest(struct ch_env *env)
{
    return ch_sleep_until(env, ch_in(env, POLL_MS * CH_MS)) == CH_TIMEOUT;
}

/* ---- the others ---- */

enum need { NEEDED, NOT_NEEDED, SOMEBODY_STAYS };

/* Whether one peer needs the level to be served on. */
static enum need peer_need(struct retire *retire, const char *address, enum level level,
                           struct base_arena *arena) CH_WAITS;
static enum need peer_need(struct retire *retire, const char *address, enum level level,
                           struct base_arena *arena)
{
    struct tab_server *server = retire->server;
    Strata__Tablet__V1__ReportRequest request = STRATA__TABLET__V1__REPORT_REQUEST__INIT;
    Strata__Tablet__V1__ReportReply *reply;
    struct ch_call_options options = { .deadline = ch_in(server->env, REPORT_MS * CH_MS),
                                       .no_retry = true };
    struct base_status status =
        ch_client_call(tab_metac_peer(server->store.metac, address),
                       &strata__tablet__v1__tabletserver__service
                            .methods[STRATA__TABLET__V1__TABLETSERVER__REPORT],
                       &request, &options, arena, (void **)&reply);
    if (base_status_drop(status) != BASE_OK)
        return NOT_NEEDED; /* it is gone, or as good as */
    if (!reply->retiring)
        return SOMEBODY_STAYS;
    for (size_t i = 0; i < reply->n_tablets; i++) {
        const Strata__Tablet__V1__TabletReport *one = reply->tablets[i];
        if (!one->serving || level_of(one->table, ch_bytes_of(one->start)) > level)
            return NEEDED; /* one that is being loaded may be of any level */
    }
    return NOT_NEEDED;
}

static enum need peers_need(struct retire *retire, enum level level) CH_WAITS;
static enum need peers_need(struct retire *retire, enum level level)
{
    struct tab_server *server = retire->server;
    struct base_arena arena = { 0 };
    struct ch_name_entry *entries;
    size_t count = 0;
    char prefix[160];
    enum need need = NOT_NEEDED;
    snprintf(prefix, sizeof(prefix), "/%s/locks/tabletserver", server->cell);
    struct base_status status = ch_name_list(
        server->naming, prefix, ch_in(server->env, REPORT_MS * CH_MS), &arena, &entries, &count);
    if (base_status_drop(status) != BASE_OK)
        count = 0;
    for (size_t i = 0; i < count && need != SOMEBODY_STAYS; i++) {
        struct base_bytes address = entries[i].value;
        if (!entries[i].locked || address.len == 0 ||
            base_bytes_eq_str(address, server->store.address))
            continue;
        enum need one = peer_need(retire, base_bytes_cstr(&arena, address), level, &arena);
        if (one != NOT_NEEDED)
            need = one;
    }
    base_arena_free(&arena);
    return need;
}

static void wait_for_peers(struct retire *retire, enum level level) CH_WAITS;
static void wait_for_peers(struct retire *retire, enum level level)
{
    struct ch_env *env = retire->server->env;
    ch_time together = retire->begun + TOGETHER_MS * CH_MS, latest = retire->begun + PEERS_S * CH_S;
    for (;;) {
        enum need need = peers_need(retire, level);
        bool wait = need == NEEDED || (need == SOMEBODY_STAYS && ch_now(env) < together);
        if (!wait || ch_now(env) >= latest || !tab_store_alive(&retire->server->store) ||
            !rest(env))
            return;
    }
}

/* ---- our own ---- */

struct giving {
    struct tab_tablet *tablet;
    ch_time deadline;
};

static void give_up(void *arg)
{
    CH_FIBER_ENTRY();
    struct giving *giving = arg;
    struct ch_env *env = giving->tablet->store->env;
    for (;;) {
        struct base_status status = tab_tablet_unload(giving->tablet, giving->deadline);
        bool again = status.code == BASE_UNAVAILABLE && giving->tablet->state == TAB_SERVING &&
                     ch_now(env) < giving->deadline;
        if (base_failed(status) && !again)
            ch_info(env, "%s: left to the master", base_status_text(&status));
        base_status_free(&status);
        if (!again || !rest(env)) /* split or compacted just now */
            return;
    }
}

static bool has_level(const struct tab_server *server, enum level level)
{
    for (size_t i = 0; i < server->tablet_count; i++)
        if (level_of(server->tablets[i]->table, base_buf_bytes(&server->tablets[i]->start)) ==
            level)
            return true;
    return false;
}

static void give_up_level(struct retire *retire, enum level level) CH_WAITS;
static void give_up_level(struct retire *retire, enum level level)
{
    struct tab_server *server = retire->server;
    struct ch_gather gather;
    struct giving *list = calloc(server->tablet_count + 1, sizeof(*list));
    size_t count = 0;
    BASE_ASSERT(list != NULL);
    for (size_t i = 0; i < server->tablet_count; i++) {
        struct tab_tablet *tablet = server->tablets[i];
        if (level_of(tablet->table, base_buf_bytes(&tablet->start)) == level)
            list[count++] = (struct giving){ tab_tablet_ref(tablet), retire->deadline };
    }
    ch_gather_init(&gather, "give up");
    for (size_t i = 0; i < count; i++)
        ch_gather_add(&gather, give_up, &list[i]);
    ch_gather_wait(&gather);
    for (size_t i = 0; i < count; i++) {
        if (list[i].tablet->state == TAB_GONE)
            tab_server_remove(server, list[i].tablet);
        tab_tablet_unref(list[i].tablet);
    }
    free(list);
}

void tab_server_retire(void *self)
{
    struct tab_server *server = self;
    struct retire retire = { server, ch_now(server->env), ch_in(server->env, RETIRE_S * CH_S) };
    server->retiring = true;
    while (server->loading && ch_now(server->env) < retire.deadline && rest(server->env))
        ;
    for (int level = USERS; level >= ROOT; level--) {
        if (!has_level(server, level) || !tab_store_alive(&server->store))
            continue;
        if (level < USERS)
            wait_for_peers(&retire, level);
        give_up_level(&retire, level);
        if (has_level(server, level))
            break; /* what is above is needed by it */
    }
    ch_info(server->env, "%s retires: %zu tablets left to the master, %lld ms",
            server->store.server, server->tablet_count,
            (long long)((ch_now(server->env) - retire.begun) / CH_MS));
}
