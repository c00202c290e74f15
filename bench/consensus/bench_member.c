/* bench_member.c: a member process: a server, a node, its groups. Member 0 founds the groups; when
 * all are in it leads them, proposes, and prints what it measured. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/codec.h"
#include "bench_consensus.h"
#include "chassis/log.h"
#include "con_store_memory.h"
#include "consensus/log.h"
#include "consensus/node.h"

static struct {
    struct ch_env *env;
    const struct bench_options *options;
    struct bench_shared *shared;
    struct ch_server *server;
    struct con_node *node;
    struct con_log **logs;
    char targets[BENCH_MEMBERS][32];
    ch_time end;
    struct ch_histogram *latency;
    uint64_t done;
} m;

static void die(const char *what, struct base_status *status)
{
    fprintf(stderr, "member %d: %s: %s\n", m.options->member, what, base_status_text(status));
    exit(1);
}

/* ---- the machine: it counts ---- */

static void apply(void *self, uint64_t index, struct base_bytes command, struct base_buf *reply)
{
    ++*(uint64_t *)self;
}

static void snapshot(void *self, struct base_buf *out)
{
    base_buf_put_le64(out, *(uint64_t *)self);
}

static struct base_status restore(void *self, struct base_bytes from)
{
    return base_take_le64(&from, self) ? BASE_STATUS_OK
                                       : base_status_make(BASE_DATA_LOSS, "cut short");
}

/* ---- groups ---- */

static void group_open(int g) CH_WAITS;
static void group_open(int g)
{
    const char *peers[BENCH_MEMBERS] = { m.targets[0], m.targets[1], m.targets[2] };
    struct con_machine machine = { apply, snapshot, restore, 0, calloc(1, sizeof(uint64_t)) };
    struct con_store store;
    char dir[300], name[32];
    snprintf(name, sizeof name, "bench-%d", g);
    snprintf(dir, sizeof dir, "%s/%d", m.options->dir, m.options->member);
    struct con_log_options options = {
        .dir = dir,
        .node = m.node,
        .group = name,
        .self = m.targets[m.options->member],
        .peers = peers,
        .peer_count = BENCH_MEMBERS,
        .found = m.options->member == 0,
    };
    if (m.options->idle_groups) {
        con_memory_open(con_memory_new(ch_random(m.env)), 0, &store);
        options.store = &store;
    }
    struct base_status status = con_log_open(m.env, &options, &machine, &m.logs[g]);
    if (base_failed(status))
        die("open", &status);
}

static bool all_in(struct con_log *log)
{
    struct con_log_view view;
    size_t voters = 0;
    con_log_look(log, &view);
    for (size_t i = 0; i < view.count; i++)
        voters += view.members[i].member.voter && !view.joint;
    return voters == BENCH_MEMBERS;
}

static void wait_all_in(int groups) CH_WAITS;
static void wait_all_in(int groups)
{
    ch_time until = ch_in(m.env, 60 * CH_S);
    for (int g = 0; g < groups; g++)
        while (!all_in(m.logs[g])) {
            if (ch_now(m.env) > until) {
                fprintf(stderr, "group %d: not all members are in after a minute\n", g);
                exit(1);
            }
            (void)ch_sleep_until(m.env, ch_in(m.env, 20 * CH_MS));
        }
}

static void setup(int groups) CH_WAITS;
static void setup(int groups)
{
    struct ch_server_options options = { .address = m.targets[m.options->member] };
    struct base_status status = ch_server_new(m.env, &options, &m.server);
    if (!base_failed(status))
        status = con_node_new(m.env, m.server, 0, &m.node);
    if (!base_failed(status))
        status = ch_server_start(m.server);
    if (base_failed(status))
        die("serve", &status);
    ch_server_set_serving(m.server, true);
    for (int g = 0; g < groups; g++)
        group_open(g);
}

/* ---- the load ---- */

static void proposer(void *arg)
{
    CH_FIBER_ENTRY();
    uint8_t command[BENCH_COMMAND_BYTES];
    memset(command, 'x', sizeof command);
    while (ch_now(m.env) < m.end) {
        ch_time begin = ch_now(m.env);
        struct base_status status = con_log_propose(m.logs[0], base_bytes(command, sizeof command),
                                                    ch_in(m.env, 20 * CH_S), 0);
        if (base_failed(status))
            die("propose", &status);
        ch_observe(m.latency, (uint64_t)(ch_now(m.env) - begin));
        m.done++;
    }
}

static uint64_t syncs(void)
{
    return ch_counter(m.env, "strata_consensus_syncs_total", "group=\"bench-0\"", "")->value;
}

static void load(int outstanding, double seconds, bool print) CH_WAITS;
static void load(int outstanding, double seconds, bool print)
{
    struct ch_gather gather;
    uint64_t synced = 0, synced_before = 0;
    double cpu = 0, cpu_before = 0;
    m.latency = ch_histogram_new();
    m.done = 0;
    for (int i = 0; i < BENCH_MEMBERS; i++) {
        cpu_before += bench_cpu_s(m.shared->pids[i]);
        synced_before += i ? m.shared->syncs[i] : syncs();
    }
    ch_time begin = ch_now(m.env);
    m.end = begin + (ch_time)(seconds * 1e9);
    ch_gather_init(&gather, "proposers");
    for (int i = 0; i < outstanding; i++)
        ch_gather_add(&gather, proposer, 0);
    ch_gather_wait(&gather);
    double took = (double)(ch_now(m.env) - begin) / 1e9, per_s = (double)m.done / took;
    for (int i = 0; i < BENCH_MEMBERS; i++)
        cpu += bench_cpu_s(m.shared->pids[i]);
    (void)ch_sleep_until(m.env, ch_in(m.env, 150 * CH_MS)); /* the others tell their syncs */
    for (int i = 0; i < BENCH_MEMBERS; i++)
        synced += i ? m.shared->syncs[i] : syncs();
    if (print) {
        bench_line("commit, 3 members", outstanding, per_s, m.latency);
        printf("  %5.3f syncs, %6.1f us CPU\n", (double)(synced - synced_before) / (double)m.done,
               (cpu - cpu_before) * 1e6 / (double)m.done);
        fflush(stdout);
        if (outstanding == 64)
            m.shared->commits_64 = per_s;
    }
    ch_histogram_free(m.latency);
}

static void idle(int groups) CH_WAITS;
static void idle(int groups)
{
    double before[BENCH_MEMBERS];
    (void)ch_sleep_until(m.env, ch_in(m.env, 3 * CH_S)); /* the last joins settle */
    for (int i = 0; i < BENCH_MEMBERS; i++)
        before[i] = bench_cpu_s(m.shared->pids[i]);
    ch_time begin = ch_now(m.env);
    (void)ch_sleep_until(m.env, begin + (ch_time)(m.options->seconds * 1e9));
    double took = (double)(ch_now(m.env) - begin) / 1e9;
    for (int i = 0; i < BENCH_MEMBERS; i++)
        printf("%d idle groups, %s: %.2f%% of a core\n", groups,
               i ? "process of followers" : "process of the leaders",
               (bench_cpu_s(m.shared->pids[i]) - before[i]) / took * 100);
    fflush(stdout);
}

static int run(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    int groups = m.options->idle_groups ? m.options->idle_groups : 1;
    m.env = env;
    ch_log_set(env, "bench", CH_LOG_WARN);
    m.logs = calloc((size_t)groups, sizeof *m.logs);
    for (int i = 0; i < BENCH_MEMBERS; i++)
        snprintf(m.targets[i], sizeof m.targets[i], "127.0.0.1:%d", m.shared->ports[i]);
    setup(groups);
    if (m.options->member > 0) {
        ch_time pause = m.options->idle_groups ? CH_NEVER : 100 * CH_MS;
        do
            m.shared->syncs[m.options->member] = m.options->idle_groups ? 0 : syncs();
        while (ch_sleep_until(env, pause == CH_NEVER ? CH_NEVER : ch_in(env, pause)) == CH_TIMEOUT);
        exit(0); /* nothing of it is kept */
    }
    wait_all_in(groups);
    if (m.options->idle_groups) {
        idle(groups);
        exit(0);
    }
    load(64, 1, false); /* connections, segments */
    for (int outstanding = 1; outstanding <= 256;
         outstanding = outstanding == 64 ? 256 : outstanding * 8)
        if (!m.options->only || m.options->only == outstanding)
            load(outstanding, m.options->seconds, true);
    exit(0);
}

int bench_member(const struct bench_options *options, struct bench_shared *shared)
{
    m.options = options;
    m.shared = shared;
    return ch_env_run(run, 0);
}
