/* bench_consensus.h: the parts of bench_consensus. */
#ifndef BENCH_CONSENSUS_H
#define BENCH_CONSENSUS_H

#include <stdint.h>
#include <sys/types.h>

#include "chassis/metrics.h"

enum { BENCH_MEMBERS = 3, BENCH_COMMAND_BYTES = 128 };

/* Shared by all processes of a run, in a file. */
struct bench_shared {
    int pids[BENCH_MEMBERS];
    uint64_t syncs[BENCH_MEMBERS]; /* durable writes so far; told every 100 ms */
    int ports[BENCH_MEMBERS];
    double commits_64;  /* a second, at 64 outstanding */
    int64_t longest_ms; /* a run's longest commit */
    int done;           /* the leader has measured all */
};

struct bench_options {
    char dir[256];
    double seconds;
    int idle_groups;
    int member; /* a member process: its number; -1: the one that starts them */
    int only;   /* this number outstanding; 0: 1, 8, 64, 256 */
    int no_etcd;
};

/* bench_member.c: the whole of a member process. */
int bench_member(const struct bench_options *options, struct bench_shared *shared);
/* bench_etcd.c: writes a second at 64 outstanding; 0: etcd is not installed. */
double bench_etcd(const struct bench_options *options);

/* CPU seconds of a process so far. */
double bench_cpu_s(pid_t pid);
void bench_line(const char *what, int outstanding, double per_s, const struct ch_histogram *h);

#endif
