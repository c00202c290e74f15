/* bench_etcd.c: three members of Debian's etcd on the same disk, one put of the same size an
 * operation, sent to the member that leads. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_consensus.h"
#include "etcd.h"
#include "etcd_cluster.h"

enum { OUTSTANDING = 64 };

static struct {
    struct ch_env *env;
    const struct bench_options *options;
    struct etcd_cluster cluster;
    struct con_etcd *etcd;
    ch_time end;
    struct ch_histogram *latency;
    uint64_t done, next;
    double best;
} e;

static void die(struct base_status *status)
{
    fprintf(stderr, "%s\n", base_status_text(status));
    etcd_cluster_end(&e.cluster);
    exit(1);
}

static void writer(void *arg)
{
    CH_FIBER_ENTRY();
    uint8_t value[BENCH_COMMAND_BYTES];
    char key[32];
    memset(value, 'x', sizeof value);
    snprintf(key, sizeof key, "/bench/%" PRIu64, e.next++);
    while (ch_now(e.env) < e.end) {
        ch_time begin = ch_now(e.env);
        struct base_status status =
            con__etcd_put(e.etcd, key, base_bytes(value, sizeof value), ch_in(e.env, 20 * CH_S));
        if (base_failed(status))
            die(&status);
        ch_observe(e.latency, (uint64_t)(ch_now(e.env) - begin));
        e.done++;
    }
}

static double load(double seconds, bool print) CH_WAITS;
static double load(double seconds, bool print)
{
    struct ch_gather gather;
    double cpu = 0;
    e.latency = ch_histogram_new();
    e.done = 0;
    for (int i = 0; i < ETCD_MEMBERS; i++)
        cpu -= bench_cpu_s(e.cluster.pids[i]);
    ch_time begin = ch_now(e.env);
    e.end = begin + (ch_time)(seconds * 1e9);
    ch_gather_init(&gather, "writers");
    for (int i = 0; i < OUTSTANDING; i++)
        ch_gather_add(&gather, writer, 0);
    ch_gather_wait(&gather);
    double took = (double)(ch_now(e.env) - begin) / 1e9, per_s = (double)e.done / took;
    for (int i = 0; i < ETCD_MEMBERS; i++)
        cpu += bench_cpu_s(e.cluster.pids[i]);
    if (print) {
        bench_line("etcd put, 3 members", OUTSTANDING, per_s, e.latency);
        printf("                %6.1f us CPU\n", cpu * 1e6 / (double)e.done);
        fflush(stdout);
    }
    ch_histogram_free(e.latency);
    return per_s;
}

/* The member that leads answers soonest: it is found by a short load on each. */
static int run(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    int best = 0;
    double most = 0;
    e.env = env;
    for (int i = 0; i <= ETCD_MEMBERS; i++) {
        int member = i < ETCD_MEMBERS ? i : best;
        char state[64];
        snprintf(state, sizeof state, "etcd://127.0.0.1:%d", e.cluster.port + 2 * member);
        struct base_status status = con__etcd_new(env, state, &e.etcd);
        if (!base_failed(status)) /* until they have found each other */
            status = con__etcd_put(e.etcd, "/bench", BASE_BYTES_LIT("x"), ch_in(env, 30 * CH_S));
        if (base_failed(status))
            die(&status);
        double per_s = i < ETCD_MEMBERS ? load(1, false) : load(e.options->seconds, true);
        if (per_s > most) {
            most = per_s;
            best = member;
        }
        if (i == ETCD_MEMBERS)
            e.best = per_s;
        con__etcd_free(e.etcd);
    }
    return 0;
}

double bench_etcd(const struct bench_options *options)
{
    if (!etcd_installed()) {
        printf("etcd-server is not installed: nothing to compare with\n");
        return 0;
    }
    e.options = options;
    etcd_cluster_init(&e.cluster, options->dir);
    for (int i = 0; i < ETCD_MEMBERS; i++)
        etcd_start(&e.cluster, i, 0);
    ch_env_run(run, 0);
    etcd_cluster_end(&e.cluster);
    return e.best;
}
