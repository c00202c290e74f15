/* faults_world.c: a world from its beginning to its end, and what must hold then. */
#include "faults_world.h"

#include "chassis/leader.h"

/* ---- the end ---- */

static void seal_and_read(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_env *env = ch_fiber_env();
    for (size_t i = 0; i < FILES; i++) {
        struct file *f = &w.files[i];
        uint64_t length, acked = acked_of(f);
        if (f->epoch_count == 0)
            continue;
        struct blk_client *client = blk_cluster_client(&w.cluster);
        struct base_status status = BASE_STATUS_OK;
        ch_time until = ch_in(env, 40 * CH_S);
        do {
            base_status_free(&status);
            status = blk_seal(client, f->path, 0, ch_in(env, 5 * CH_S), &length);
        } while (base_failed(status) && ch_now(env) < until);
        MUST(!base_failed(status), "%s: cannot be sealed: %s", f->path, base_status_text(&status));
        MUST(length >= acked && length >= f->observed,
             "%s: sealed at %llu; acknowledged %llu, seen %llu", f->path,
             (unsigned long long)length, (unsigned long long)acked,
             (unsigned long long)f->observed);
        uint8_t *bytes = malloc(length + 1);
        for (int round = 0; round < 3; round++) {
            struct blk_reader *reader;
            size_t got = 0;
            status = blk_open_read(client, f->path, ch_in(env, 5 * CH_S), &reader);
            MUST(!base_failed(status), "%s: %s", f->path, base_status_text(&status));
            status = blk_read(reader, 0, bytes, length + 1, ch_in(env, 20 * CH_S), &got);
            MUST(!base_failed(status) && got == length, "%s: read %zu of %llu: %s", f->path, got,
                 (unsigned long long)length, base_status_text(&status));
            check_bytes(f, 0, bytes, got, "last reader");
            blk_reader_close(reader);
        }
        free(bytes);
        blk_client_free(client);
    }
}

struct settled {
    uint64_t wanted, held, unsealed, risk;
    bool ok;
};

static void ask_status(void *arg)
{
    CH_FIBER_ENTRY();
    struct settled *s = arg;
    struct base_arena arena;
    base_arena_init(&arena);
    struct ch_leader *master = ch_leader_new(ch_fiber_env(), w.cluster.targets, 0);
    struct ch_leader_options options = { .deadline = ch_in(ch_fiber_env(), 20 * CH_S) };
    BLK_PB(GetStatusRequest) request;
    void *reply;
    strata__blockstore__v1__get_status_request__init(&request);
    struct base_status status =
        ch_leader_call(master, BLK_MASTER(GET_STATUS), &request, &options, &arena, &reply);
    s->ok = !base_failed(status);
    if (s->ok) {
        const BLK_PB(GetStatusReply) *got = reply;
        s->wanted = got->replicas_wanted;
        s->held = got->replicas_held;
        s->unsealed = got->blocks_unsealed;
        s->risk = got->bytes_at_risk;
    }
    base_status_free(&status);
    ch_leader_free(master);
    base_arena_free(&arena);
}

/* Finished replicas of one block are the same bytes on every server that has one. */
static size_t compare_replicas(void)
{
    size_t compared = 0;
    for (unsigned long long block = 1; block < 600; block++) {
        struct base_buf first = { 0 };
        for (size_t i = 0; i < SERVERS; i++) {
            char path[64];
            struct base_buf bytes = { 0 };
            snprintf(path, sizeof path, "/data/blocks/%016llx.blk", block);
            if (!ch_sim_disk_peek(w.cluster.servers[i].node, path, &bytes))
                continue;
            MUST(bytes.len > 64, "block %llu on server %zu is cut", block, i);
            bytes.len -= 64; /* the trailer holds the replica's generation */
            if (first.len == 0) {
                first = bytes;
                continue;
            }
            MUST(first.len == bytes.len && memcmp(first.data, bytes.data, bytes.len) == 0,
                 "block %llu on server %zu differs from another replica", block, i);
            compared++;
            base_buf_free(&bytes);
        }
        base_buf_free(&first);
    }
    return compared;
}

/* ---- a world ---- */

void world_begin(uint64_t seed)
{
    memset(&w, 0, sizeof w);
    w.seed = seed;
    w.sim = ch_sim_new(seed);
    w.victim = below(SERVERS);
    if (seed % 4 == 0) { /* one copy on server 0, whose disk stays whole, till others join */
        w.victim = w.victim ? w.victim : 1;
        blk_cluster_start_alone(&w.cluster, w.sim, SERVERS, "96KiB");
    } else {
        blk_cluster_start(&w.cluster, w.sim, seed % 2 ? 3 : 1, SERVERS, "96KiB");
    }
    for (int i = 0; i < FILES; i++) {
        w.files[i].id = i;
        snprintf(w.files[i].path, sizeof w.files[i].path, "/f/%d", i);
    }
    run_for(3 * CH_S); /* three masters begin in a second or two */
    for (int i = 0; i < WRITERS; i++) {
        struct client *c = &w.writers[i];
        c->file = i % FILES;
        snprintf(c->name, sizeof c->name, "writer-%d", i);
        snprintf(c->host, sizeof c->host, "10.0.1.%d", i + 1);
        c->node = ch_sim_node(w.sim, c->name, c->host);
        ch_sim_start(c->node, writer_main, c);
    }
    for (int i = 0; i < READERS; i++) {
        struct client *c = &w.readers[i];
        snprintf(c->name, sizeof c->name, "reader-%d", i);
        snprintf(c->host, sizeof c->host, "10.0.2.%d", i + 1);
        c->node = ch_sim_node(w.sim, c->name, c->host);
        ch_sim_start(c->node, reader_main, c);
    }
}

void world_faults(void)
{
    ch_time until = ch_sim_now(w.sim) + FAULT_SECONDS * CH_S;
    while (ch_sim_now(w.sim) < until) {
        run_for((ch_time)(20 + below(400)) * CH_MS);
        fault();
        if (below(3) == 0)
            restart_dead();
        if (below(4) == 0)
            heal_servers();
        if (below(8) == 0)
            ch_sim_net_heal(w.sim);
    }
}

void world_end(void)
{
    w.stop = true;
    heal_all();
    run_for(8 * CH_S);
    ch_sim_do(w.sim, seal_and_read, 0, ch_sim_now(w.sim) + 300 * CH_S);
    struct settled settled = { 0 };
    for (int i = 0; i < 60; i++) {
        run_for(CH_S);
        ch_sim_do(w.sim, ask_status, &settled, ch_sim_now(w.sim) + 60 * CH_S);
        if (settled.ok && settled.held == settled.wanted && settled.risk == 0)
            break;
    }
    MUST(settled.ok && settled.held == settled.wanted && settled.unsealed == 0 && settled.risk == 0,
         "after a minute of peace: %llu of %llu replicas, %llu unsealed blocks, %llu bytes at risk",
         (unsigned long long)settled.held, (unsigned long long)settled.wanted,
         (unsigned long long)settled.unsealed, (unsigned long long)settled.risk);
    run_for(5 * CH_S);
    size_t compared = compare_replicas();
    MUST(compared > 0 || acked_of(&w.files[0]) == 0, "no replica was compared");
    ch_sim_do(w.sim, seal_and_read, 0, ch_sim_now(w.sim) + 300 * CH_S);
    if (getenv("STRATA_VERBOSE"))
        fprintf(stderr,
                "seed %llu: %llu opens, %llu appends (%llu failed), %llu reads, %zu replicas "
                "compared\n",
                (unsigned long long)w.seed, (unsigned long long)w.opens,
                (unsigned long long)w.appends, (unsigned long long)w.failed_appends,
                (unsigned long long)w.reads, compared);
    ch_sim_free(w.sim);
    blk_cluster_free(&w.cluster);
}
