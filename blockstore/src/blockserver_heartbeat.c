/* blockserver_heartbeat.c: telling the master that this server lives and what it holds, and doing
 * what it answers.
 *
 * Invariants:
 * 1. What changed is told once the master has answered; a heartbeat without an answer makes the
 * next one tell everything.
 * 2. A replica is given up only on the word of the master, and only the very one (block and
 * generation) it named. */
#include <inttypes.h>

#include "blockserver_int.h"

enum { REPORT_MAX = 2000, CALL_MS_MIN = 1000 };

static BLK_PB(ReplicaReport) *
    report_of(struct base_arena *arena, const struct blk__replica_info *info)
{
    BLK_PB(ReplicaReport) *report = BLK_NEW(arena, ReplicaReport, replica_report);
    report->block = info->block;
    report->length = info->length;
    report->generation = info->generation;
    report->sealed = info->sealed;
    report->bad = info->bad;
    report->short_of = info->short_of;
    return report;
}

static BLK_PB(HeartbeatRequest) *
    build(struct blk__blockserver *self, struct base_arena *arena, bool full) CH_WAITS;
static BLK_PB(HeartbeatRequest) *
    build(struct blk__blockserver *self, struct base_arena *arena, bool full)
{
    BLK_PB(HeartbeatRequest) *request = BLK_NEW(arena, HeartbeatRequest, heartbeat_request);
    struct blk__store_space space;
    blk__store_space(self->store, &space);
    const char *address = ch_server_address(self->server), *colon = strrchr(address, ':');
    request->server = self->id;
    request->address = ch_data_str(address);
    request->machine = ch_data_str(self->options.machine);
    if (!self->options.machine[0])
        request->machine =
            ch_data_of(base_bytes(address, colon ? (size_t)(colon - address) : strlen(address)));
    request->zone = ch_data_str(self->options.zone);
    request->bytes_total = space.total;
    request->bytes_free = space.available;
    request->disk_failed = space.failed;
    request->streams = self->streams;
    request->full = full;
    struct blk__replica_info *infos;
    uint64_t *gone;
    size_t count, gone_count;
    bool more;
    blk__store_report(self->store, REPORT_MAX, arena, &infos, &count, &gone, &gone_count, &more);
    request->replicas = BASE_NEW_ARRAY(arena, BLK_PB(ReplicaReport) *, count);
    for (size_t i = 0; i < count; i++)
        request->replicas[request->n_replicas++] = report_of(arena, &infos[i]);
    request->gone = gone;
    request->n_gone = gone_count;
    request->more = more;
    return request;
}

static void obey(struct blk__blockserver *self, const BLK_PB(HeartbeatReply) * reply) CH_WAITS;
static void obey(struct blk__blockserver *self, const BLK_PB(HeartbeatReply) * reply)
{
    blk__store_doubt_limit(self->store, reply->next_block);
    blk__store_open_from(self->store, reply->open_from);
    for (size_t i = 0; i < reply->n_seal && !ch_cancelled(); i++) {
        struct base_status status =
            blk__store_seal(self->store, reply->seal[i]->block, reply->seal[i]->length);
        if (base_failed(status))
            ch_info(self->env, "seal: %s", base_status_text(&status));
        base_status_free(&status);
    }
    for (size_t i = 0; i < reply->n_remove && !ch_cancelled(); i++) {
        struct base_status status =
            blk__store_remove(self->store, reply->remove[i]->block, reply->remove[i]->generation);
        if (base_failed(status))
            ch_warn(self->env, "remove: %s", base_status_text(&status));
        base_status_free(&status);
    }
    if (reply->n_seal || reply->n_remove)
        blk__heartbeat_soon(self);
}

/* One report, in as many calls as it takes. */
static struct base_status beat(struct blk__blockserver *self) CH_WAITS BASE_MUST_CHECK;
static struct base_status beat(struct blk__blockserver *self)
{
    bool full = self->report_all, more = true;
    struct base_status status = BASE_STATUS_OK;
    self->report_all = false;
    if (full)
        blk__store_report_all(self->store);
    while (more && !base_failed(status)) {
        struct base_arena arena;
        base_arena_init(&arena);
        BLK_PB(HeartbeatRequest) *request = build(self, &arena, full);
        ch_time patience = 2 * self->options.heartbeat > CALL_MS_MIN * CH_MS
                               ? 2 * self->options.heartbeat
                               : CALL_MS_MIN * CH_MS;
        struct ch_leader_options options = { .deadline = ch_in(self->env, patience) };
        void *reply;
        more = request->more;
        status =
            ch_leader_call(self->master, BLK_MASTER(HEARTBEAT), request, &options, &arena, &reply);
        if (!base_failed(status)) {
            const BLK_PB(HeartbeatReply) *answer = reply;
            self->report_all = self->report_all || answer->want_full;
            obey(self, answer);
        }
        base_arena_free(&arena);
    }
    if (base_failed(status))
        self->report_all = true;
    return status;
}

void blk__heartbeat_soon(struct blk__blockserver *self)
{
    self->soon = true;
    ch_cond_signal(&self->heartbeat_soon);
}

void blk__heartbeat_main(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk__blockserver *self = arg;
    bool serving = false;
    while (!ch_cancelled()) {
        ch_time next = ch_in(self->env, self->options.heartbeat);
        self->soon = false;
        struct base_status status = beat(self);
        if (base_failed(status) && !ch_cancelled())
            ch_info(self->env, "heartbeat: %s", base_status_text(&status));
        bool good = !blk__store_failed(self->store);
        if (good != serving)
            ch_server_set_serving(self->server, good);
        serving = good;
        bool again = !base_failed(status) && self->report_all;
        base_status_free(&status);
        /* Soon means a twentieth of the beat: many changes at once are still one message. */
        while (!again && !ch_cancelled() && ch_now(self->env) < next) {
            if (self->soon && next > ch_in(self->env, self->options.heartbeat / 20))
                next = ch_in(self->env, self->options.heartbeat / 20);
            if (ch_cond_wait(&self->heartbeat_soon, next) == CH_CANCELLED)
                break;
        }
    }
}
