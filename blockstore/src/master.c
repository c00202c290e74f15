/* master.c: the RPC service BlockMaster: names, and the glue between calls, log and state.
 *
 * Invariants:
 * 1. The state changes only by commands of the log; a reply to a change is sent after the command
 * is durable and applied.
 * 2. An answer from the state is given only after a read barrier that began after the call came.
 * 3. Nothing is kept across a wait but ids: the state is looked up again.
 * Its parts: master_lead.c (which member of the group it is that answers), master_open.c (opening,
 * extending), master_recover.c (fencing and sealing), master_servers.c (heartbeats, status),
 * master_repair.c (replacing replicas, garbage). */
#include "master.h"

#include <stdlib.h>

#include "master_int.h"

enum { CALL_MS = 10000, RETIRE_MS = 1000, ELECTION_MS = 700, HEARTBEAT_MS = 150 };

/* ---- the log ---- */

static void machine_apply(void *self, uint64_t index, struct base_bytes command,
                          struct base_buf *reply)
{
    struct blk__master *master = self;
    blk__state_apply(&master->state, command, reply);
}

static void machine_snapshot(void *self, struct base_buf *out)
{
    blk__state_save(&((struct blk__master *)self)->state, out);
}

static struct base_status machine_restore(void *self, struct base_bytes snapshot)
{
    return blk__state_load(&((struct blk__master *)self)->state, snapshot);
}

struct base_status blk__master_propose(struct blk__master *master, BLK_PB(Command) * command,
                                       ch_time deadline, struct base_arena *arena,
                                       BLK_PB(Result) * *result)
{
    struct base_buf bytes = { 0 }, reply = { 0 };
    command->now_us = ch_wall_us(master->env);
    ch_proto_encode(&command->base, &bytes);
    ch_count(master->commands, 1);
    struct base_status status =
        con_log_propose(master->log, base_buf_bytes(&bytes), deadline, &reply);
    ProtobufCMessage *message;
    if (!base_failed(status))
        status = ch_proto_decode(&strata__blockstore__v1__result__descriptor,
                                 base_buf_bytes(&reply), arena, &message);
    if (!base_failed(status)) {
        *result = (BLK_PB(Result) *)message;
        if ((*result)->code)
            status = base_status_make((enum base_code)(*result)->code, "%.*s",
                                      BASE_FMT(ch_bytes_of((*result)->text)));
    }
    base_buf_free(&bytes);
    base_buf_free(&reply);
    return status;
}

ch_time blk__master_deadline(struct blk__master *master, struct ch_call *call)
{
    ch_time most = ch_in(master->env, CALL_MS * CH_MS), deadline = ch_call_deadline(call);
    return deadline < most ? deadline : most;
}

/* ---- blocks as others see them ---- */

static void put_replica(struct blk__master *master, BLK_PB(Block) * out, struct base_arena *arena,
                        uint64_t server)
{
    BLK_PB(Replica) *replica = BLK_NEW(arena, Replica, replica);
    const struct blk__server *s = blk__state_server(&master->state, server);
    replica->server = server;
    if (s)
        replica->address = ch_data_str(base_arena_strdup(arena, s->address));
    out->replicas[out->n_replicas++] = replica;
}

/* Live servers first. */
BLK_PB(Block) * blk__master_block(struct blk__master *master, struct base_arena *arena,
                                  const struct blk__file *file, size_t i)
{
    const struct blk__block *block = file->blocks[i];
    BLK_PB(Block) *out = BLK_NEW(arena, Block, block);
    out->id = block->id;
    out->epoch = block->epoch;
    out->length = block->length;
    out->sealed = block->sealed;
    out->quorum =
        file->quorum < block->replica_count || block->sealed ? file->quorum : block->replica_count;
    out->replicas = BASE_NEW_ARRAY(arena, BLK_PB(Replica) *, block->replica_count);
    for (int dead = 0; dead < 2; dead++)
        for (uint32_t k = 0; k < block->replica_count; k++)
            if ((blk__soft_health(&master->soft, block->replicas[k].server, ch_now(master->env)) ==
                 BLK_DEAD) == dead)
                put_replica(master, out, arena, block->replicas[k].server);
    return out;
}

static struct base_status serve_layout(void *self, struct ch_call *call, const void *message,
                                       void **reply) CH_WAITS BASE_MUST_CHECK;
static struct base_status serve_layout(void *self, struct ch_call *call, const void *message,
                                       void **reply)
{
    struct blk__master *master = self;
    const BLK_PB(GetLayoutRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    struct base_status status = blk__master_barrier(master, blk__master_deadline(master, call));
    if (base_failed(status))
        return status;
    const struct blk__file *file =
        request->file ? blk__state_file(&master->state, request->file)
                      : blk__state_path(&master->state, ch_bytes_of(request->path));
    if (!file)
        return base_status_make(BASE_NOT_FOUND, "no file \"%.*s\"",
                                BASE_FMT(ch_bytes_of(request->path)));
    BLK_PB(GetLayoutReply) *out = BLK_NEW(arena, GetLayoutReply, get_layout_reply);
    out->file = file->id;
    out->epoch = file->epoch;
    out->sealed = file->sealed;
    out->blocks = BASE_NEW_ARRAY(arena, BLK_PB(Block) *, file->block_count);
    uint64_t start = 0;
    for (size_t i = 0; i < file->block_count; i++) {
        BLK_PB(Block) *block = blk__master_block(master, arena, file, i);
        if (i <= file->sealed_count)
            block->start = start;
        start += block->length;
        out->blocks[out->n_blocks++] = block;
    }
    *reply = out;
    return BASE_STATUS_OK;
}

/* ---- names ---- */

static BLK_PB(FileStat) * stat_of(struct blk__master *master, struct base_arena *arena,
                                  const struct blk__file *file, struct base_bytes path)
{
    BLK_PB(FileStat) *stat = BLK_NEW(arena, FileStat, file_stat);
    stat->path = ch_data_of(base_bytes_dup(arena, path));
    stat->file = file->id;
    stat->length = file->length;
    stat->epoch = file->epoch;
    stat->fence = file->fence;
    stat->sealed = file->sealed;
    stat->blocks = (uint32_t)file->block_count;
    stat->replicas_wanted = file->replicas;
    stat->replicas_least = file->block_count ? BLK_REPLICAS_MAX : 0;
    stat->created_us = file->created_us;
    stat->links = (uint32_t)file->name_count;
    for (size_t i = 0; i < file->block_count; i++) {
        uint32_t live = 0;
        for (uint32_t k = 0; k < file->blocks[i]->replica_count; k++)
            live += blk__soft_health(&master->soft, file->blocks[i]->replicas[k].server,
                                     ch_now(master->env)) == BLK_LIVE;
        if (live < stat->replicas_least)
            stat->replicas_least = live;
    }
    return stat;
}

static struct base_status serve_stat(void *self, struct ch_call *call, const void *message,
                                     void **reply) CH_WAITS BASE_MUST_CHECK;
static struct base_status serve_stat(void *self, struct ch_call *call, const void *message,
                                     void **reply)
{
    struct blk__master *master = self;
    struct base_bytes path = ch_bytes_of(((const BLK_PB(StatRequest) *)message)->path);
    struct base_status status = blk__path_check(path);
    if (!base_failed(status))
        status = blk__master_barrier(master, blk__master_deadline(master, call));
    if (base_failed(status))
        return status;
    const struct blk__file *file = blk__state_path(&master->state, path);
    if (!file)
        return base_status_make(BASE_NOT_FOUND, "no file \"%.*s\"", BASE_FMT(path));
    BLK_PB(StatReply) *out = BLK_NEW(ch_call_arena(call), StatReply, stat_reply);
    out->stat = stat_of(master, ch_call_arena(call), file, path);
    *reply = out;
    return BASE_STATUS_OK;
}

static struct base_status serve_list(void *self, struct ch_call *call, const void *message,
                                     void **reply) CH_WAITS BASE_MUST_CHECK;
static struct base_status serve_list(void *self, struct ch_call *call, const void *message,
                                     void **reply)
{
    struct blk__master *master = self;
    const BLK_PB(ListRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    struct base_bytes prefix = ch_bytes_of(request->prefix), after = ch_bytes_of(request->after);
    if (prefix.len > BLK_PATH_MAX || after.len > BLK_PATH_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "prefix or after is longer than %d bytes",
                                BLK_PATH_MAX);
    struct base_status status = blk__master_barrier(master, blk__master_deadline(master, call));
    if (base_failed(status))
        return status;
    size_t limit = request->limit && request->limit < BLK_LIST_MAX ? request->limit : BLK_LIST_MAX;
    BLK_PB(ListReply) *out = BLK_NEW(arena, ListReply, list_reply);
    out->stats = BASE_NEW_ARRAY(arena, BLK_PB(FileStat) *, limit);
    bool from_after = base_bytes_cmp(after, prefix) >= 0 && after.len > 0;
    struct blk__name *name =
        blk__state_name_from(&master->state, from_after ? after : prefix, !from_after);
    for (; name && out->n_stats < limit; name = blk__state_name_next(name)) {
        struct base_bytes path = base_bytes(name->path, name->len);
        if (!base_bytes_starts_with(path, prefix))
            break;
        out->stats[out->n_stats++] = stat_of(master, arena, name->file, path);
    }
    *reply = out;
    return BASE_STATUS_OK;
}

static struct base_status serve_rename(void *self, struct ch_call *call, const void *message,
                                       void **reply) CH_WAITS BASE_MUST_CHECK;
static struct base_status serve_rename(void *self, struct ch_call *call, const void *message,
                                       void **reply)
{
    struct blk__master *master = self;
    const BLK_PB(RenameRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    struct base_status status = blk__path_check(ch_bytes_of(request->from));
    if (!base_failed(status))
        status = blk__path_check(ch_bytes_of(request->to));
    if (base_failed(status))
        return status;
    BLK_PB(Command) *command = BLK_NEW(arena, Command, command);
    BLK_PB(Result) * result;
    command->change_case = STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_RENAME;
    command->rename = BLK_NEW(arena, RenameFile, rename_file);
    command->rename->from = request->from;
    command->rename->to = request->to;
    command->rename->replace = request->replace;
    *reply = BLK_NEW(arena, RenameReply, rename_reply);
    return blk__master_propose(master, command, blk__master_deadline(master, call), arena, &result);
}

static struct base_status serve_link(void *self, struct ch_call *call, const void *message,
                                     void **reply) CH_WAITS BASE_MUST_CHECK;
static struct base_status serve_link(void *self, struct ch_call *call, const void *message,
                                     void **reply)
{
    struct blk__master *master = self;
    const BLK_PB(LinkRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    struct base_status status = blk__path_check(ch_bytes_of(request->existing));
    if (!base_failed(status))
        status = blk__path_check(ch_bytes_of(request->name));
    if (base_failed(status))
        return status;
    BLK_PB(Command) *command = BLK_NEW(arena, Command, command);
    BLK_PB(Result) * result;
    command->change_case = STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_LINK;
    command->link = BLK_NEW(arena, LinkFile, link_file);
    command->link->existing = request->existing;
    command->link->name = request->name;
    *reply = BLK_NEW(arena, LinkReply, link_reply);
    return blk__master_propose(master, command, blk__master_deadline(master, call), arena, &result);
}

static struct base_status serve_delete(void *self, struct ch_call *call, const void *message,
                                       void **reply) CH_WAITS BASE_MUST_CHECK;
static struct base_status serve_delete(void *self, struct ch_call *call, const void *message,
                                       void **reply)
{
    struct blk__master *master = self;
    const BLK_PB(DeleteRequest) *request = message;
    struct base_arena *arena = ch_call_arena(call);
    struct base_status status = blk__path_check(ch_bytes_of(request->path));
    if (base_failed(status))
        return status;
    BLK_PB(Command) *command = BLK_NEW(arena, Command, command);
    BLK_PB(Result) * result;
    command->change_case = STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_DELETE;
    command->delete_ = BLK_NEW(arena, DeleteFile, delete_file);
    command->delete_->path = request->path;
    *reply = BLK_NEW(arena, DeleteReply, delete_reply);
    return blk__master_propose(master, command, blk__master_deadline(master, call), arena, &result);
}

/* ---- opening and closing ---- */

static void register_handlers(struct blk__master *master, struct ch_server *server)
{
    ch_server_add_service(server, &strata__blockstore__v1__block_master__service);
    ch_server_handle(server, BLK_MASTER(OPEN_APPEND), blk__serve_open_append, master);
    ch_server_handle(server, BLK_MASTER(EXTEND), blk__serve_extend, master);
    ch_server_handle(server, BLK_MASTER(GET_LAYOUT), serve_layout, master);
    ch_server_handle(server, BLK_MASTER(SEAL), blk__serve_seal, master);
    ch_server_handle(server, BLK_MASTER(STAT), serve_stat, master);
    ch_server_handle(server, BLK_MASTER(LIST), serve_list, master);
    ch_server_handle(server, BLK_MASTER(RENAME), serve_rename, master);
    ch_server_handle(server, BLK_MASTER(LINK), serve_link, master);
    ch_server_handle(server, BLK_MASTER(DELETE), serve_delete, master);
    ch_server_handle(server, BLK_MASTER(REPORT_BAD), blk__serve_report_bad, master);
    ch_server_handle(server, BLK_MASTER(HEARTBEAT), blk__serve_heartbeat, master);
    ch_server_handle(server, BLK_MASTER(GET_STATUS), blk__serve_status, master);
}

static void master_free(struct blk__master *master)
{
    struct blk__absence *absence, *next;
    HASH_ITER(hh, master->absences, absence, next)
    {
        HASH_DEL(master->absences, absence);
        free(absence);
    }
    blk__soft_free(&master->soft);
    blk__state_free(&master->state);
    free(master->dir);
    free(master);
}

struct base_status blk__master_open(struct ch_env *env, const struct blk__master_options *options,
                                    struct ch_server *server, struct blk__master **out)
{
    struct blk__master *master = calloc(1, sizeof *master);
    BASE_ASSERT(master);
    master->env = env;
    master->options = *options;
    master->dir = strdup(options->dir);
    blk__state_init(&master->state);
    ch_cond_init(&master->sweep_soon);
    master->commands = ch_counter(env, "blockmaster_commands", "", "changes proposed to the log");
    master->copies = ch_counter(env, "blockmaster_copies", "", "replicas made by repair");
    master->at_risk = ch_gauge(env, "blockmaster_bytes_at_risk", "",
                               "bytes of sealed blocks with fewer good replicas than wanted");
    master->blocks_gauge = ch_gauge(env, "blockmaster_blocks", "", "blocks of all files");
    master->leads = ch_gauge(env, "blockmaster_leads", "", "1: this member leads");
    master->soft.dead_after = options->dead_after;
    struct con_log_options log_options = { .dir = master->dir,
                                           .snapshot_bytes_min = options->snapshot_bytes_min,
                                           .node = options->node,
                                           .group = "blockmaster",
                                           .self = options->self,
                                           .peers = options->peers,
                                           .peer_count = options->peer_count,
                                           .found = options->found,
                                           .election = ELECTION_MS * CH_MS,
                                           .heartbeat = HEARTBEAT_MS * CH_MS };
    struct con_machine machine = { machine_apply, machine_snapshot, machine_restore,
                                   blk__master_lead, master };
    struct base_status status = con_log_open(env, &log_options, &machine, &master->log);
    if (base_failed(status)) {
        master_free(master);
        return status;
    }
    master->peers = blk__peers_new(env);
    ch_gate_init(&master->gate, env, "blockmaster");
    register_handlers(master, server);
    status = ch_gate_spawn(&master->gate, "repair", blk__repair_main, master);
    if (!base_failed(status))
        status = ch_gate_spawn(&master->gate, "log", blk__log_main, master);
    if (!base_failed(status) && options->found && options->founder_dir)
        status = ch_gate_spawn(&master->gate, "founded", blk__founded_main, master);
    if (base_failed(status)) {
        blk__master_close(master);
        return status;
    }
    *out = master;
    return BASE_STATUS_OK;
}

void blk__master_retire(struct blk__master *master)
{
    /* Failing is well: alone, or all stop at once. */
    if (master->options.node && master->term)
        base_status_drop(con_log_transfer(master->log, 0, ch_in(master->env, RETIRE_MS * CH_MS)));
}

void blk__master_close(struct blk__master *master)
{
    ch_gate_stop(&master->gate);
    blk__peers_free(master->peers);
    con_log_close(master->log);
    master_free(master);
}
