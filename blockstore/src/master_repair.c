/* master_repair.c: the sweep over all sealed blocks: new replicas for those that lack some, useless
 * ones off the list, deleted files' blocks freed, servers' leftovers found.
 *
 * Invariants:
 * 1. A replica joins a block's list after its bytes are durable on its server; it leaves only as
 * blk__repair_decide says.
 * 2. Blocks with the fewest good replicas are copied first; at most copies_max at once.
 * 3. What a server holds and the state does not list is only noted here; the order is given by
 * blk__serve_heartbeat, which looks again. */
#include <inttypes.h>
#include <stdlib.h>

#include "master_int.h"

enum {
    COPY_MS = 120000,
    BARRIER_MS = 5000,
    REMOVES_MAX = 200,
    ABSENT_BEATS = 2,
    RECHECK_MAX = 4000
};

void blk__master_sweep_soon(struct blk__master *master)
{
    master->soon = true;
    ch_cond_broadcast(&master->sweep_soon);
}

/* ---- copies in flight ---- */

struct pair {
    uint64_t block, server;
};

bool blk__master_is_copying(const struct blk__master *master, uint64_t block, uint64_t server)
{
    struct pair key = { block, server };
    struct blk__copying *copying;
    HASH_FIND(hh, master->copying, &key, sizeof key, copying);
    return copying != 0;
}

static bool copying_block(const struct blk__master *master, uint64_t block)
{
    for (const struct blk__copying *c = master->copying; c; c = c->hh.next)
        if (c->block == block)
            return true;
    return false;
}

struct copy_job {
    struct blk__master *master;
    struct blk__copying mark;
    struct base_arena arena;
    BLK_PB(CopyRequest) request;
    struct base_bytes target;
    uint64_t term; /* it was begun under */
};

static struct base_status list_replica(struct copy_job *job) CH_WAITS BASE_MUST_CHECK;
static struct base_status list_replica(struct copy_job *job)
{
    BLK_PB(Command) *command = BLK_NEW(&job->arena, Command, command);
    BLK_PB(Result) * result;
    command->change_case = STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_CHANGE_REPLICAS;
    command->change_replicas = BLK_NEW(&job->arena, ChangeReplicas, change_replicas);
    command->change_replicas->block = job->mark.block;
    command->change_replicas->add_server = job->mark.server;
    command->change_replicas->add_generation = job->request.generation;
    if (job->master->term != job->term)
        return blk__master_not_leader(job->master);
    return blk__master_propose(job->master, command, CH_NEVER, &job->arena, &result);
}

static void copy_main(void *arg)
{
    CH_FIBER_ENTRY();
    struct copy_job *job = arg;
    struct blk__master *master = job->master;
    struct ch_call_options options = { .deadline = ch_in(master->env, COPY_MS * CH_MS) };
    void *reply;
    /* A leader that was deposed while it was away begins nothing. */
    struct base_status status = blk__master_barrier(master, ch_in(master->env, BARRIER_MS * CH_MS));
    if (!base_failed(status))
        status = ch_client_call(blk__peer(master->peers, job->target), BLK_SERVER(COPY),
                                &job->request, &options, &job->arena, &reply);
    if (!base_failed(status))
        status = list_replica(job);
    if (base_failed(status)) {
        ch_warn(master->env, "copy block %" PRIu64 " to %.*s: %s", job->mark.block,
                BASE_FMT(job->target), base_status_text(&status));
        base_status_free(&status);
    } else {
        master->copies_done++;
        ch_count(master->copies, 1);
    }
    struct blk__copying *mark = &job->mark;
    HASH_DEL(master->copying, mark);
    master->copies_running--;
    base_arena_free(&job->arena);
    free(job);
    blk__master_sweep_soon(master);
}

/* ---- one block ---- */

static bool absent_long(struct blk__master *master, uint64_t block, uint64_t server)
{
    struct pair key = { block, server };
    struct blk__absence *absence;
    const struct blk__heard *heard = blk__soft_find(&master->soft, server);
    HASH_FIND(hh, master->absences, &key, sizeof key, absence);
    if (!absence) {
        absence = calloc(1, sizeof *absence);
        BASE_ASSERT(absence);
        absence->block = block;
        absence->server = server;
        absence->beats = heard->beats;
        HASH_ADD(hh, master->absences, block, sizeof key, absence);
    }
    absence->sweep = master->sweeps;
    return heard->beats >= absence->beats + ABSENT_BEATS;
}

static size_t view_block(struct blk__master *master, const struct blk__block *block,
                         struct blk__repair_view *views)
{
    ch_time now = ch_now(master->env);
    for (uint32_t i = 0; i < block->replica_count; i++) {
        bool absent;
        views[i].server = block->replicas[i].server;
        views[i].standing =
            blk__soft_standing(&master->soft, views[i].server, block->id, block->length,
                               block->replicas[i].generation, now, &absent);
        if (absent && absent_long(master, block->id, views[i].server))
            views[i].standing = BLK_BROKEN;
    }
    return block->replica_count;
}

/* Starts a copy of a block; false when there is no server for it. */
static bool start_copy(struct blk__master *master, uint64_t id)
{
    struct blk__block *block = blk__state_block(&master->state, id);
    struct blk__repair_view views[BLK_REPLICAS_MAX];
    if (!block || !block->sealed || copying_block(master, id))
        return false;
    size_t n = view_block(master, block, views), candidate_count;
    bool good = false;
    for (size_t i = 0; i < n; i++)
        good = good || views[i].standing == BLK_GOOD;
    struct copy_job *job = calloc(1, sizeof *job);
    BASE_ASSERT(job);
    job->master = master;
    struct blk__candidate *candidates =
        blk__master_candidates(master, block, 0, 0, &job->arena, &candidate_count);
    strata__blockstore__v1__copy_request__init(&job->request);
    job->request.sources = BASE_NEW_ARRAY(&job->arena, ProtobufCBinaryData, n);
    for (size_t i = 0; i < n; i++) {
        const struct blk__server *s = blk__state_server(&master->state, views[i].server);
        enum blk__standing source = good ? BLK_GOOD : BLK_BROKEN;
        if (views[i].standing == source && s)
            job->request.sources[job->request.n_sources++] =
                ch_data_str(base_arena_strdup(&job->arena, s->address));
        for (size_t k = 0; k < candidate_count; k++)
            if (candidates[k].server == views[i].server && views[i].standing != BLK_BROKEN)
                candidates[k].taken = true;
            else if (candidates[k].server == views[i].server && !good)
                candidates[k].avoid = 1; /* it may be needed as it is */
    }
    uint64_t target;
    if (job->request.n_sources == 0 ||
        blk__placement_choose(candidates, candidate_count, 1, 1, ch_random(master->env), &target) ==
            0) {
        base_arena_free(&job->arena);
        free(job);
        return false;
    }
    uint64_t start = 0;
    for (size_t i = 0; i < block->file->block_count && block->file->blocks[i] != block; i++)
        start += block->file->blocks[i]->length;
    job->mark.block = job->request.block = id;
    job->mark.server = target;
    job->term = master->term;
    job->request.epoch = block->epoch;
    job->request.start = start;
    job->request.length = block->length;
    job->request.generation = ++master->generation;
    job->target = base_bytes_str(
        base_arena_strdup(&job->arena, blk__state_server(&master->state, target)->address));
    struct blk__copying *mark = &job->mark;
    HASH_ADD_KEYPTR(hh, master->copying, &mark->block, sizeof(struct pair), mark);
    master->copies_running++;
    struct base_status status = ch_gate_spawn(&master->gate, "copy", copy_main, job);
    if (base_failed(status)) {
        base_status_free(&status);
        HASH_DEL(master->copying, mark);
        master->copies_running--;
        base_arena_free(&job->arena);
        free(job);
        return false;
    }
    return true;
}

static struct base_status remove_replica(struct blk__master *master, uint64_t block,
                                         uint64_t server) CH_WAITS BASE_MUST_CHECK;
static struct base_status remove_replica(struct blk__master *master, uint64_t block,
                                         uint64_t server)
{
    struct base_arena arena;
    base_arena_init(&arena);
    BLK_PB(Command) *command = BLK_NEW(&arena, Command, command);
    BLK_PB(Result) * result;
    command->change_case = STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_CHANGE_REPLICAS;
    command->change_replicas = BLK_NEW(&arena, ChangeReplicas, change_replicas);
    command->change_replicas->block = block;
    command->change_replicas->remove_server = server;
    struct base_status status = blk__master_propose(master, command, CH_NEVER, &arena, &result);
    base_arena_free(&arena);
    return status;
}

/* ---- the sweep ---- */

struct wanted_copy {
    uint64_t block;
    size_t good;
};
struct sweep {
    uint64_t *ids;
    size_t count;
    struct wanted_copy *copies;
    size_t copy_count;
    size_t removes;
    uint64_t replicas_wanted, replicas_held, bytes_at_risk, by_replicas[BLK_REPLICAS_MAX + 1];
};

static int fewest_first(const void *a, const void *b)
{
    const struct wanted_copy *x = a, *y = b;
    return x->good != y->good ? (x->good > y->good) - (x->good < y->good)
                              : (x->block > y->block) - (x->block < y->block);
}

static void sweep_block(struct blk__master *master, struct sweep *sweep, uint64_t id) CH_WAITS;
static void sweep_block(struct blk__master *master, struct sweep *sweep, uint64_t id)
{
    struct blk__repair_view views[BLK_REPLICAS_MAX];
    struct blk__block *block = blk__state_block(&master->state, id);
    if (!block || !block->sealed)
        return;
    size_t wanted = block->file->replicas, n = view_block(master, block, views);
    struct blk__repair_step step = blk__repair_decide(views, n, wanted);
    sweep->replicas_wanted += wanted;
    sweep->replicas_held += step.good;
    sweep->by_replicas[step.good]++;
    if (step.good < wanted)
        sweep->bytes_at_risk += block->length;
    if (step.lost)
        ch_warn(master->env, "block %" PRIu64 " has no good replica on a live server", id);
    if (step.kind == BLK_REPAIR_ADD)
        sweep->copies[sweep->copy_count++] = (struct wanted_copy){ id, step.good };
    if (step.kind == BLK_REPAIR_REMOVE && sweep->removes < REMOVES_MAX &&
        !copying_block(master, id)) {
        sweep->removes++;
        struct base_status status = remove_replica(master, id, step.remove);
        if (base_failed(status) && !ch_cancelled())
            ch_warn(master->env, "block %" PRIu64 ": %s", id, base_status_text(&status));
        base_status_free(&status);
    }
}

/* Reports that do not agree with the state. */
static void sweep_server(struct blk__master *master, uint64_t server)
{
    struct blk__heard *heard = blk__soft_find(&master->soft, server);
    struct blk__report *report, *next;
    uint64_t length;
    if (!heard)
        return;
    heard->recheck_count = 0;
    HASH_ITER(hh, heard->reports, report, next)
    {
        if (heard->recheck_count >= RECHECK_MAX)
            break;
        if (blk__master_judge(master, server, report, &length) == BLK_ORDER_NONE)
            continue;
        if (heard->recheck_count == heard->recheck_cap) {
            heard->recheck_cap = heard->recheck_cap ? 2 * heard->recheck_cap : 64;
            heard->recheck = realloc(heard->recheck, heard->recheck_cap * sizeof *heard->recheck);
            BASE_ASSERT(heard->recheck);
        }
        heard->recheck[heard->recheck_count++] = report->block;
    }
}

static void purge(struct blk__master *master) CH_WAITS;
static void purge(struct blk__master *master)
{
    int64_t before = ch_wall_us(master->env) - master->options.trash_keep / CH_US;
    bool any = false;
    if (master->state.unnamed_files == 0)
        return;
    for (const struct blk__file *file = master->state.files; file && !any; file = file->hh.next)
        any = file->name_count == 0 && file->deleted_us <= before;
    if (!any)
        return;
    struct base_arena arena;
    base_arena_init(&arena);
    BLK_PB(Command) *command = BLK_NEW(&arena, Command, command);
    BLK_PB(Result) * result;
    command->change_case = STRATA__BLOCKSTORE__V1__COMMAND__CHANGE_PURGE;
    command->purge = BLK_NEW(&arena, PurgeFiles, purge_files);
    command->purge->before_us = before;
    base_status_drop(blk__master_propose(master, command, CH_NEVER, &arena,
                                         &result)); /* the next sweep tries again */
    base_arena_free(&arena);
}

static void forget_absences(struct blk__master *master)
{
    struct blk__absence *absence, *next;
    HASH_ITER(hh, master->absences, absence, next)
    {
        if (absence->sweep != master->sweeps) {
            HASH_DEL(master->absences, absence);
            free(absence);
        }
    }
}

static void publish(struct blk__master *master, const struct sweep *sweep)
{
    if (sweep->bytes_at_risk && !master->bytes_at_risk)
        master->at_risk_since = ch_now(master->env);
    master->bytes_at_risk = sweep->bytes_at_risk;
    master->replicas_wanted = sweep->replicas_wanted;
    master->replicas_held = sweep->replicas_held;
    memcpy(master->by_replicas, sweep->by_replicas, sizeof master->by_replicas);
    master->at_risk->value = (int64_t)sweep->bytes_at_risk;
    master->blocks_gauge->value = (int64_t)HASH_COUNT(master->state.blocks);
}

void blk__master_find_open(struct blk__master *master)
{
    uint64_t least = master->state.next_block;
    for (const struct blk__block *block = master->state.blocks; block; block = block->hh.next)
        if (!block->sealed && block->id < least)
            least = block->id;
    if (least > master->open_from)
        master->open_from = least;
}

static void sweep_all(struct blk__master *master) CH_WAITS;
static void sweep_all(struct blk__master *master)
{
    struct sweep sweep = { 0 };
    uint64_t term = master->term;
    size_t total = HASH_COUNT(master->state.blocks), servers = 0;
    master->sweeps++;
    sweep.ids = malloc((total + 1) * sizeof *sweep.ids);
    sweep.copies = malloc((total + 1) * sizeof *sweep.copies);
    BASE_ASSERT(sweep.ids && sweep.copies);
    for (const struct blk__block *block = master->state.blocks; block; block = block->hh.next)
        sweep.ids[sweep.count++] = block->id;
    for (size_t i = 0; i < sweep.count && !ch_cancelled() && master->term == term; i++) {
        ch_yield_if_long();
        sweep_block(master, &sweep, sweep.ids[i]);
    }
    qsort(sweep.copies, sweep.copy_count, sizeof *sweep.copies, fewest_first);
    for (size_t i = 0;
         i < sweep.copy_count && master->copies_running < master->options.copies_max &&
         !ch_cancelled() && master->term == term;
         i++)
        start_copy(master, sweep.copies[i].block);
    uint64_t ids[256];
    for (const struct blk__server *s = master->state.servers; s && servers < 256; s = s->hh.next)
        ids[servers++] = s->id;
    for (size_t i = 0; i < servers && master->term == term; i++) {
        ch_yield_if_long();
        sweep_server(master, ids[i]);
    }
    if (master->term == term) { /* else it says nothing */
        publish(master, &sweep);
        blk__master_find_open(master);
        forget_absences(master);
        purge(master);
    }
    free(sweep.ids);
    free(sweep.copies);
}

void blk__repair_main(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk__master *master = arg;
    while (!ch_cancelled()) {
        ch_time next = ch_in(master->env, master->options.repair_every);
        if (master->term == 0) {
            if (ch_cond_wait(&master->sweep_soon, CH_NEVER) != CH_OK)
                return;
            continue;
        }
        while (!ch_cancelled() && ch_now(master->env) < next) {
            if (ch_cond_wait(&master->sweep_soon, next) == CH_CANCELLED)
                return;
            if (master->soon && next > ch_in(master->env, master->options.repair_every / 10))
                next = ch_in(master->env, master->options.repair_every / 10);
            master->soon = false;
        }
        if (master->term > 0)
            blk__master_copies_follow(master);
        if (master->term > 0)
            sweep_all(master);
    }
}
