/* master_servers.c: what blockservers tell, what they are told, and the state of the whole store.
 *
 * Invariant: a server is told to give a replica up only when the state, as of a barrier after its
 * report came, does not list that very replica (block, server, generation), and no copy to it is in
 * flight. */
#include <inttypes.h>
#include <stdlib.h>

#include "master_int.h"

enum { ORDERS_MAX = 1000 };

/* ---- orders ---- */

enum blk__order blk__master_judge(const struct blk__master *master, uint64_t server,
                                  const struct blk__report *report, uint64_t *length)
{
    const struct blk__block *block = blk__state_block(&master->state, report->block);
    if (!block) /* an id beyond next_block would be of another history: not touched */
        return report->block < master->state.next_block ? BLK_ORDER_REMOVE : BLK_ORDER_NONE;
    int at = blk__replica_of(block, server);
    if (at < 0 || block->replicas[at].generation != report->generation)
        return blk__master_is_copying(master, report->block, server) ? BLK_ORDER_NONE
                                                                     : BLK_ORDER_REMOVE;
    *length = block->length;
    return block->sealed && !report->sealed && !report->bad && report->short_of != block->length
               ? BLK_ORDER_SEAL
               : BLK_ORDER_NONE;
}

static void give_order(struct blk__master *master, const struct blk__heard *heard, uint64_t block,
                       BLK_PB(HeartbeatReply) * out, struct base_arena *arena)
{
    const struct blk__report *report = blk__soft_report(heard, block);
    uint64_t length = 0;
    enum blk__order order =
        report ? blk__master_judge(master, heard->server, report, &length) : BLK_ORDER_NONE;
    if (order == BLK_ORDER_REMOVE) {
        BLK_PB(ReplicaRemove) *remove = BLK_NEW(arena, ReplicaRemove, replica_remove);
        remove->block = block;
        remove->generation = report->generation;
        out->remove[out->n_remove++] = remove;
    } else if (order == BLK_ORDER_SEAL) {
        BLK_PB(ReplicaSeal) *seal = BLK_NEW(arena, ReplicaSeal, replica_seal);
        seal->block = block;
        seal->length = length;
        out->seal[out->n_seal++] = seal;
    }
}

static void give_orders(struct blk__master *master, struct blk__heard *heard,
                        const BLK_PB(HeartbeatRequest) * request, BLK_PB(HeartbeatReply) * out,
                        struct base_arena *arena)
{
    size_t recheck = heard->recheck_count < ORDERS_MAX ? heard->recheck_count : ORDERS_MAX;
    out->remove = BASE_NEW_ARRAY(arena, BLK_PB(ReplicaRemove) *, recheck + request->n_replicas);
    out->seal = BASE_NEW_ARRAY(arena, BLK_PB(ReplicaSeal) *, recheck + request->n_replicas);
    for (size_t i = 0; i < request->n_replicas; i++)
        give_order(master, heard, request->replicas[i]->block, out, arena);
    for (size_t i = 0; i < recheck; i++)
        give_order(master, heard, heard->recheck[i], out, arena);
    heard->recheck_count -= recheck;
    for (size_t i = 0; i < heard->recheck_count; i++)
        heard->recheck[i] = heard->recheck[i + recheck];
}

/* ---- heartbeats ---- */

static bool known(const struct blk__master *master, const BLK_PB(HeartbeatRequest) * request)
{
    const struct blk__server *s = blk__state_server(&master->state, request->server);
    return s && base_bytes_eq_str(ch_bytes_of(request->address), s->address) &&
           base_bytes_eq_str(ch_bytes_of(request->machine), s->machine) &&
           base_bytes_eq_str(ch_bytes_of(request->zone), s->zone);
}

static struct base_status introduce(struct blk__master *master,
                                    const BLK_PB(HeartbeatRequest) * request, ch_time deadline,
                                    struct base_arena *arena) CH_WAITS BASE_MUST_CHECK;
static struct base_status introduce(struct blk__master *master,
                                    const BLK_PB(HeartbeatRequest) * request, ch_time deadline,
                                    struct base_arena *arena)
{
    BLK_PB(Command) *command = BLK_NEW(arena, Command, command);
    BLK_PB(SetServer) *set = BLK_NEW(arena, SetServer, set_server);
    BLK_PB(Result) * result;
    command->change_case = STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_SET_SERVER;
    command->set_server = set;
    set->server = request->server;
    set->address = request->address;
    set->machine = request->machine;
    set->zone = request->zone;
    ch_info(master->env, "blockserver %016" PRIx64 " is at %.*s (machine %.*s, zone %.*s)",
            request->server, BASE_FMT(ch_bytes_of(request->address)),
            BASE_FMT(ch_bytes_of(request->machine)), BASE_FMT(ch_bytes_of(request->zone)));
    return blk__master_propose(master, command, deadline, arena, &result);
}

struct base_status blk__serve_heartbeat(void *self, struct ch_call *call, const void *message,
                                        void **reply)
{
    struct blk__master *master = self;
    const BLK_PB(HeartbeatRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    ch_time deadline = blk__master_deadline(master, call);
    if (request->server == 0 || request->address.len == 0 || request->address.len > 256 ||
        request->machine.len > 256 || request->zone.len > 256)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "a heartbeat without a server id or with a bad address");
    struct base_status status = BASE_STATUS_OK;
    if (!known(master, request))
        status = introduce(master, request, deadline, arena);
    if (!base_failed(status))
        status = blk__master_barrier(master, deadline);
    if (base_failed(status))
        return status;
    BLK_PB(HeartbeatReply) *out = BLK_NEW(arena, HeartbeatReply, heartbeat_reply);
    struct blk__heard *heard = blk__soft_heartbeat(&master->soft, ch_now(master->env), request);
    out->want_full = !heard->full && !request->full;
    out->next_block = master->state.next_block;
    out->open_from = master->open_from;
    give_orders(master, heard, request, out, arena);
    if (request->n_replicas || request->disk_failed)
        blk__master_sweep_soon(master);
    *reply = out;
    return BASE_STATUS_OK;
}

struct base_status blk__serve_report_bad(void *self, struct ch_call *call, const void *message,
                                         void **reply)
{
    struct blk__master *master = self;
    const BLK_PB(ReportBadRequest) *request = message;
    struct base_status status = blk__master_barrier(master, blk__master_deadline(master, call));
    if (base_failed(status))
        return status;
    ch_info(master->env, "block %" PRIu64 " on server %016" PRIx64 " is said to be bad: %.*s",
            request->block, request->server, BASE_FMT(ch_bytes_of(request->reason)));
    /* Its server found out by the same read, and tells by itself; a hint alone removes nothing. */
    blk__master_sweep_soon(master);
    *reply = BLK_NEW(ch_call_arena(call), ReportBadReply, report_bad_reply);
    return BASE_STATUS_OK;
}

/* ---- status ---- */

static BLK_PB(ServerStatus) *
    server_status(struct blk__master *master, struct base_arena *arena, const struct blk__server *s)
{
    BLK_PB(ServerStatus) *out = BLK_NEW(arena, ServerStatus, server_status);
    const struct blk__heard *heard = blk__soft_find(&master->soft, s->id);
    ch_time now = ch_now(master->env);
    out->server = s->id;
    out->address = ch_data_str(base_arena_strdup(arena, s->address));
    out->machine = ch_data_str(base_arena_strdup(arena, s->machine));
    out->zone = ch_data_str(base_arena_strdup(arena, s->zone));
    out->live = blk__soft_health(&master->soft, s->id, now) == BLK_LIVE;
    out->heard_ms_ago = -1;
    if (heard) {
        out->disk_failed = heard->disk_failed;
        out->bytes_total = heard->bytes_total;
        out->bytes_free = heard->bytes_free;
        out->replicas = HASH_COUNT(heard->reports);
        out->heard_ms_ago = (now - heard->at) / CH_MS;
    }
    return out;
}

struct base_status blk__serve_status(void *self, struct ch_call *call, const void *message,
                                     void **reply)
{
    struct blk__master *master = self;
    struct base_arena *arena = ch_call_arena(call);
    struct base_status status = blk__master_barrier(master, blk__master_deadline(master, call));
    if (base_failed(status))
        return status;
    BLK_PB(GetStatusReply) *out = BLK_NEW(arena, GetStatusReply, get_status_reply);
    out->servers = BASE_NEW_ARRAY(arena, BLK_PB(ServerStatus) *, HASH_COUNT(master->state.servers));
    for (const struct blk__server *s = master->state.servers; s; s = s->hh.next)
        out->servers[out->n_servers++] = server_status(master, arena, s);
    out->files = HASH_COUNT(master->state.files);
    out->trash_files = master->state.unnamed_files;
    for (const struct blk__file *file = master->state.files; file; file = file->hh.next) {
        out->blocks += file->block_count;
        out->blocks_unsealed += file->block_count - file->sealed_count;
        out->bytes += file->length;
        for (size_t i = file->sealed_count; i < file->block_count; i++)
            out->blocks_growing_short += file->blocks[i]->replica_count < file->replicas;
    }
    out->blocks_by_replicas =
        base_arena_memdup(arena, master->by_replicas, sizeof master->by_replicas);
    out->n_blocks_by_replicas = BLK_REPLICAS_MAX + 1;
    size_t least = 0;
    while (least < BLK_REPLICAS_MAX && master->by_replicas[least] == 0)
        least++;
    out->failures_survived = least > 0 && least < BLK_REPLICAS_MAX ? (uint32_t)least - 1 : 0;
    out->replicas_wanted = master->replicas_wanted;
    out->replicas_held = master->replicas_held;
    out->bytes_at_risk = master->bytes_at_risk;
    out->at_risk_ms =
        master->bytes_at_risk ? (ch_now(master->env) - master->at_risk_since) / CH_MS : 0;
    out->copies_running = master->copies_running;
    out->copies_done = master->copies_done;
    *reply = out;
    return BASE_STATUS_OK;
}
