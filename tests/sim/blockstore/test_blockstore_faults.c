/* The blockstore under everything at once: servers and master crash and lose what was not synced,
 * pause, are cut off, run slow or full, bits flip, writers are paused, crash, and take files from
 * each other. What must hold whatever happens: every acknowledged byte is read back, unchanged, by
 * everyone, for ever; nothing a reader has seen goes away; only the latest writer's bytes are after
 * its opening; and when the faults end, all sealed blocks have their replicas, identical.
 *
 * The model: byte x of a file written in epoch e is f(file, e, x). So the checker knows what every
 * byte must be from the epochs' starts alone. Each seed is a world of its own; a failing one is
 * named with the line that replays it. Every other one has three masters, of which one leads. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "blk_cluster.h"
#include "blk_int.h"
#include "chassis/leader.h"
#include "test.h"

enum {
    SERVERS = 5,
    FILES = 3,
    WRITERS = 5,
    READERS = 2,
    EPOCHS_MAX = 400,
    FAULT_SECONDS = 12,
    PIPELINED = 4
};

struct epoch {
    uint64_t epoch, start, acked;
};
struct file {
    int id;
    char path[32];
    struct epoch epochs[EPOCHS_MAX];
    size_t epoch_count;
    uint64_t observed; /* the greatest length a reader was told */
    bool sealed;
};
struct client {
    struct ch_sim_node *node;
    char name[32], host[32];
    int file; /* a writer's */
    bool paused;
};
static struct {
    struct ch_sim *sim;
    uint64_t seed;
    struct blk_cluster cluster;
    struct file files[FILES];
    struct client writers[WRITERS], readers[READERS];
    bool stop;
    uint64_t appends, reads, opens, failed_appends;
    size_t victim; /* the server whose disk may be bad */
} w;

#define MUST(cond, ...)                                                           \
    do {                                                                          \
        if (!(cond)) {                                                            \
            fprintf(stderr, "seed %llu at %.6f s: ", (unsigned long long)w.seed,  \
                    (double)ch_sim_now(w.sim) / 1e9);                             \
            fprintf(stderr, __VA_ARGS__);                                         \
            fprintf(stderr, "\nreplay: STRATA_SEED=%llu sim_blockstore_faults\n", \
                    (unsigned long long)w.seed);                                  \
            abort();                                                              \
        }                                                                         \
    } while (0)

static uint8_t byte_of(int file, uint64_t epoch, uint64_t x)
{
    uint64_t h = (x / 8 + 1) * 0x9e3779b97f4a7c15ULL ^ epoch * 0xff51afd7ed558ccdULL ^
                 (uint64_t)file * 0xc4ceb9fe1a85ec53ULL;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9ULL;
    return (uint8_t)(h >> (x % 8 * 8));
}

static uint64_t acked_of(const struct file *f)
{
    uint64_t acked = 0;
    for (size_t i = 0; i < f->epoch_count; i++)
        acked = f->epochs[i].acked > acked ? f->epochs[i].acked : acked;
    return acked;
}

/* Inserts in the order of epochs: opens may return in another. */
static void epoch_add(struct file *f, uint64_t epoch, uint64_t start)
{
    size_t at = f->epoch_count;
    MUST(f->epoch_count < EPOCHS_MAX, "too many epochs");
    while (at > 0 && f->epochs[at - 1].epoch > epoch)
        at--;
    MUST(at == 0 || f->epochs[at - 1].epoch < epoch, "%s: epoch %llu twice", f->path,
         (unsigned long long)epoch);
    memmove(&f->epochs[at + 1], &f->epochs[at], (f->epoch_count - at) * sizeof f->epochs[0]);
    f->epochs[at] = (struct epoch){ epoch, start, start };
    f->epoch_count++;
    for (size_t i = 1; i < f->epoch_count; i++)
        MUST(f->epochs[i - 1].start <= f->epochs[i].start &&
                 f->epochs[i - 1].acked <= f->epochs[i].start,
             "%s: epoch %llu began at %llu, but %llu had acknowledged up to %llu", f->path,
             (unsigned long long)f->epochs[i].epoch, (unsigned long long)f->epochs[i].start,
             (unsigned long long)f->epochs[i - 1].epoch,
             (unsigned long long)f->epochs[i - 1].acked);
}

static void epoch_acked(struct file *f, uint64_t epoch, uint64_t end)
{
    for (size_t i = 0; i < f->epoch_count; i++) {
        if (f->epochs[i].epoch != epoch)
            continue;
        if (end > f->epochs[i].acked)
            f->epochs[i].acked = end;
        MUST(i + 1 == f->epoch_count || end <= f->epochs[i + 1].start,
             "%s: an append up to %llu of epoch %llu was acknowledged after epoch %llu had begun "
             "at %llu",
             f->path, (unsigned long long)end, (unsigned long long)epoch,
             (unsigned long long)f->epochs[i + 1].epoch,
             (unsigned long long)f->epochs[i + 1].start);
    }
}

static void check_bytes(const struct file *f, uint64_t offset, const uint8_t *data, size_t len,
                        const char *who)
{
    size_t e = 0;
    for (size_t i = 0; i < len; i++) {
        uint64_t x = offset + i;
        while (e + 1 < f->epoch_count && f->epochs[e + 1].start <= x)
            e++;
        MUST(data[i] == byte_of(f->id, f->epochs[e].epoch, x),
             "%s: %s: byte %llu (epoch %llu from %llu) is wrong", f->path, who,
             (unsigned long long)x, (unsigned long long)f->epochs[e].epoch,
             (unsigned long long)f->epochs[e].start);
    }
}

/* ---- writers ---- */

struct appending {
    struct file *f;
    struct blk_writer *writer;
    uint64_t next; /* where the next append goes */
    bool failed;
    int left;
};

static void append_one(struct appending *a, struct ch_env *env) CH_WAITS;
static void append_one(struct appending *a, struct ch_env *env)
{
    size_t len = 1 + ch_random_below(env, ch_random_below(env, 16) == 0 ? 60000 : 3000);
    uint64_t at = a->next, offset = 0, epoch = blk_writer_epoch(a->writer);
    uint8_t *data = malloc(len);
    for (size_t i = 0; i < len; i++)
        data[i] = byte_of(a->f->id, epoch, at + i);
    struct base_bytes parts[2] = { base_bytes(data, len / 2),
                                   base_bytes(data + len / 2, len - len / 2) };
    a->next += len;
    struct base_status status = blk_append(a->writer, parts, 2, ch_in(env, 4 * CH_S), &offset);
    if (base_failed(status)) {
        a->failed = true;
        w.failed_appends++;
    } else {
        MUST(offset == at, "%s: append at %llu went to %llu", a->f->path, (unsigned long long)at,
             (unsigned long long)offset);
        epoch_acked(a->f, epoch, at + len);
        w.appends++;
    }
    base_status_free(&status);
    free(data);
}

static void append_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct appending *a = arg;
    struct ch_env *env = ch_fiber_env();
    while (!a->failed && !w.stop && !ch_cancelled() && a->left-- > 0) {
        append_one(a, env);
        if (ch_random_below(env, 4) &&
            ch_sleep_until(env, ch_in(env, (ch_time)ch_random_below(env, 120) * CH_MS)) !=
                CH_TIMEOUT)
            return;
    }
}

static void write_session(struct ch_env *env, struct blk_client *client, struct file *f) CH_WAITS;
static void write_session(struct ch_env *env, struct blk_client *client, struct file *f)
{
    struct blk_writer *writer;
    uint64_t length, acked = acked_of(f), observed = f->observed;
    struct base_status status =
        blk_open_append(client, f->path, &(struct blk_append_options){ .create = true },
                        ch_in(env, 4 * CH_S), &writer, &length);
    if (base_failed(status)) {
        base_status_free(&status);
        (void)ch_sleep_until(env, ch_in(env, 100 * CH_MS));
        return;
    }
    w.opens++;
    MUST(length >= acked, "%s: opened at %llu, %llu was acknowledged", f->path,
         (unsigned long long)length, (unsigned long long)acked);
    MUST(length >= observed, "%s: opened at %llu, a reader was told %llu", f->path,
         (unsigned long long)length, (unsigned long long)observed);
    epoch_add(f, blk_writer_epoch(writer), length);
    struct appending a = { f, writer, length, false, 1 + (int)ch_random_below(env, 150) };
    struct ch_gather gather;
    ch_gather_init(&gather, "appends");
    for (uint64_t i = 1 + ch_random_below(env, PIPELINED); i > 0; i--)
        ch_gather_add(&gather, append_fiber, &a);
    ch_gather_wait(&gather);
    blk_writer_close(writer);
    if (ch_random_below(env, 3) == 0)
        (void)ch_sleep_until(env, ch_in(env, (ch_time)ch_random_below(env, 500) * CH_MS));
}

static int writer_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct client *c = arg;
    struct blk_client *client = blk_cluster_client(&w.cluster);
    while (!w.stop && !ch_cancelled())
        write_session(env, client, &w.files[c->file]);
    blk_client_free(client);
    return 0;
}

/* ---- readers ---- */

static void read_once(struct ch_env *env, struct blk_reader *reader, struct file *f,
                      uint8_t *buffer, size_t cap) CH_WAITS;
static void read_once(struct ch_env *env, struct blk_reader *reader, struct file *f,
                      uint8_t *buffer, size_t cap)
{
    uint64_t acked = acked_of(f), length = 0, offset;
    size_t got = 0;
    struct base_status status = BASE_STATUS_OK;
    if (ch_random_below(env, 3) == 0) {
        status = blk_reader_length(reader, ch_in(env, 2 * CH_S), &length);
        if (!base_failed(status)) {
            MUST(length >= acked, "%s: a reader was told %llu, %llu was acknowledged", f->path,
                 (unsigned long long)length, (unsigned long long)acked);
            f->observed = length > f->observed ? length : f->observed;
        }
        base_status_free(&status);
        return;
    }
    bool tail = ch_random_below(env, 2) == 0;
    offset = tail && acked > cap / 2 ? acked - cap / 2 : ch_random_below(env, acked + 1);
    size_t len = 1 + ch_random_below(env, cap);
    status = blk_read(reader, offset, buffer, len, ch_in(env, 2 * CH_S), &got);
    if (!base_failed(status)) {
        uint64_t must = acked > offset ? acked - offset : 0;
        MUST(got >= (must < len ? must : len), "%s: read %zu of %zu at %llu, %llu was acknowledged",
             f->path, got, len, (unsigned long long)offset, (unsigned long long)acked);
        if (got > 0) {
            check_bytes(f, offset, buffer, got, "reader");
            f->observed = offset + got > f->observed ? offset + got : f->observed;
        }
        w.reads++;
    } else {
        MUST(status.code != BASE_DATA_LOSS || true, "%s", base_status_text(&status));
    }
    base_status_free(&status);
}

static int reader_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct blk_client *client = blk_cluster_client(&w.cluster);
    enum { CAP = 150000 };
    uint8_t *buffer = malloc(CAP);
    while (!w.stop && !ch_cancelled()) {
        struct file *f = &w.files[ch_random_below(env, FILES)];
        struct blk_reader *reader;
        struct base_status status = blk_open_read(client, f->path, ch_in(env, CH_S), &reader);
        if (base_failed(status)) {
            base_status_free(&status);
            (void)ch_sleep_until(env, ch_in(env, 50 * CH_MS));
            continue;
        }
        for (uint64_t n = ch_random_below(env, 30); n > 0 && !w.stop && !ch_cancelled(); n--) {
            read_once(env, reader, f, buffer, CAP);
            (void)ch_sleep_until(env, ch_in(env, (ch_time)ch_random_below(env, 40) * CH_MS));
        }
        blk_reader_close(reader);
    }
    free(buffer);
    blk_client_free(client);
    return 0;
}

/* ---- the nemesis ---- */

static uint64_t below(uint64_t n)
{
    return ch_sim_random(w.sim) % n;
}

static void run_for(ch_time ns)
{
    ch_sim_run(w.sim, 0, 0, ch_sim_now(w.sim) + ns);
}

static const char *any_host(void)
{
    size_t masters = w.cluster.master_count, i = below(SERVERS + masters + WRITERS);
    if (i < SERVERS)
        return w.cluster.servers[i].host;
    i -= SERVERS;
    return i < masters ? w.cluster.masters[i].host : w.writers[i - masters].host;
}

static void restart_dead(void)
{
    for (size_t i = 0; i < SERVERS; i++)
        if (!ch_sim_running(w.cluster.servers[i].node))
            blk_cluster_node_start(&w.cluster.servers[i]);
    for (size_t i = 0; i < w.cluster.master_count; i++)
        if (!ch_sim_running(w.cluster.masters[i].node))
            blk_cluster_node_start(&w.cluster.masters[i]);
    for (size_t i = 0; i < WRITERS && !w.stop; i++)
        if (!ch_sim_running(w.writers[i].node))
            ch_sim_start(w.writers[i].node, writer_main, &w.writers[i]);
}

/* Where a file has something: a flipped bit where nothing is tests nothing. */
static bool somewhere(const struct base_buf *bytes, uint64_t *at)
{
    for (int tries = 0; tries < 60 && bytes->len > 0; tries++) {
        *at = below(bytes->len);
        if (bytes->data[*at])
            return true;
    }
    return false;
}

/* One flipped bit in a block file of the victim, or in its journal. */
static void flip(void)
{
    struct ch_sim_node *node = w.cluster.servers[w.victim].node;
    for (int tries = 0; tries < 20; tries++) {
        char path[64];
        struct base_buf bytes = { 0 };
        uint64_t at;
        if (below(4) == 0)
            snprintf(path, sizeof path, "/data/journal/%04u.journal", (unsigned)below(5));
        else
            snprintf(path, sizeof path, "/data/blocks/%016llx.%s",
                     (unsigned long long)(1 + below(80)), below(3) ? "blk" : "open");
        bool there = ch_sim_disk_peek(node, path, &bytes) && somewhere(&bytes, &at);
        if (there)
            ch_sim_disk_flip(node, path, at, (uint8_t)(1u << below(8)));
        base_buf_free(&bytes);
        if (there)
            return;
    }
}

static void fault(void)
{
    struct blk_cluster_node *s = &w.cluster.servers[below(SERVERS)];
    struct blk_cluster_node *m = &w.cluster.masters[below(w.cluster.master_count)];
    struct client *c = &w.writers[below(WRITERS)];
    switch (below(w.cluster.master_count > 1 ? 18 : 16)) {
    case 0:
    case 1:
        if (ch_sim_running(s->node))
            ch_sim_crash(s->node);
        break;
    case 2:
        if (ch_sim_running(s->node))
            ch_sim_kill(s->node);
        break;
    case 3:
        if (ch_sim_running(m->node))
            ch_sim_crash(m->node);
        break;
    case 4:
    case 5:
        ch_sim_net_cut(w.sim, any_host(), any_host(), true);
        break;
    case 6:
        ch_sim_net_reset(w.sim, any_host(), any_host());
        break;
    case 7:
        ch_sim_net_heal(w.sim);
        break;
    case 8:
        if (ch_sim_running(s->node))
            ch_sim_pause(s->node, true);
        break;
    case 9:
        if (ch_sim_running(c->node))
            ch_sim_pause(c->node, c->paused = !c->paused);
        break;
    case 10:
        if (ch_sim_running(c->node))
            ch_sim_crash(c->node);
        break;
    case 11:
        ch_sim_disk_delay(s->node, 10 * CH_MS, (ch_time)(20 + below(400)) * CH_MS);
        break;
    case 12:
        ch_sim_disk_delay(s->node, 100 * CH_US, 300 * CH_US);
        break;
    case 13:
        ch_sim_disk_limit(s->node, below(2) ? 0 : ch_sim_disk_used(s->node) + below(300000));
        break;
    case 14:
        ch_sim_disk_fail_sync(w.cluster.servers[w.victim].node, below(2));
        break;
    case 15:
        flip();
        break;
    case 16: /* longer than an election: it wakes up deposed */
        if (ch_sim_running(m->node))
            ch_sim_pause(m->node, true);
        break;
    case 17: /* cut off from the other masters, but not from those who ask it */
        for (size_t i = 0; i < w.cluster.master_count; i++) {
            ch_sim_net_cut(w.sim, m->host, w.cluster.masters[i].host, true);
            ch_sim_net_cut(w.sim, w.cluster.masters[i].host, m->host, true);
        }
        break;
    }
}

static void heal_servers(void)
{
    for (size_t i = 0; i < SERVERS; i++)
        ch_sim_pause(w.cluster.servers[i].node, false);
    for (size_t i = 0; i < w.cluster.master_count; i++)
        ch_sim_pause(w.cluster.masters[i].node, false);
}

static void heal_all(void)
{
    ch_sim_net_heal(w.sim);
    heal_servers();
    for (size_t i = 0; i < SERVERS; i++) {
        ch_sim_disk_delay(w.cluster.servers[i].node, 100 * CH_US, 300 * CH_US);
        ch_sim_disk_limit(w.cluster.servers[i].node, 0);
        ch_sim_disk_fail_sync(w.cluster.servers[i].node, false);
    }
    for (size_t i = 0; i < WRITERS; i++) {
        ch_sim_pause(w.writers[i].node, false);
        w.writers[i].paused = false;
    }
    /* A server whose sync failed stays out until it is started again. */
    struct blk_cluster_node *victim = &w.cluster.servers[w.victim];
    if (ch_sim_running(victim->node))
        ch_sim_crash(victim->node);
    restart_dead();
}

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

static void world_begin(uint64_t seed)
{
    memset(&w, 0, sizeof w);
    w.seed = seed;
    w.sim = ch_sim_new(seed);
    w.victim = below(SERVERS);
    blk_cluster_start(&w.cluster, w.sim, seed % 2 ? 3 : 1, SERVERS, "96KiB");
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

static void world_faults(void)
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

static void world_end(void)
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

static void world(uint64_t seed)
{
    world_begin(seed);
    world_faults();
    world_end();
}

Test(blockstore_faults, no_acknowledged_byte_is_lost)
{
    const char *one = getenv("STRATA_SEED"), *first = getenv("STRATA_SEEDS_FROM"),
               *count = getenv("STRATA_SEEDS");
    if (one) {
        world(strtoull(one, 0, 10));
        return;
    }
    uint64_t from = first ? strtoull(first, 0, 10) : 1, n = count ? strtoull(count, 0, 10) : 1000;
    struct timespec t0, t;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    uint64_t done = 0, appends = 0;
    for (uint64_t seed = from; seed < from + n; seed++, done++) {
        clock_gettime(CLOCK_MONOTONIC, &t);
        if (!count && t.tv_sec - t0.tv_sec >= 12) /* as many seeds as twelve seconds hold */
            break;
        world(seed);
        appends += w.appends;
    }
    fprintf(stderr, "%llu seeds from %llu, %llu appends acknowledged\n", (unsigned long long)done,
            (unsigned long long)from, (unsigned long long)appends);
    cr_assert(done > 0 && appends > 100);
}
