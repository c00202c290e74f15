/* bench_rpc.h: the three contenders: each has a server that prints its port and serves until
 * killed, and a client that keeps `outstanding` calls in flight for `seconds` and fills in what
 * it saw. */
#ifndef BENCH_RPC_H
#define BENCH_RPC_H

#include <stddef.h>
#include <stdint.h>

#include "chassis/metrics.h"

struct bench_run {
    int port, outstanding;
    size_t payload;
    double seconds;
    /* results */
    uint64_t ops;
    struct ch_histogram *latency; /* ns */
    double elapsed;
};

/* Called at the begin and the end of what is measured, after a warm-up of a fifth. */
void bench_mark_begin(struct bench_run *run);
void bench_mark_end(struct bench_run *run);
int64_t bench_now_ns(void);
void bench_say_port(int port);

void floor_server(void);
void floor_client(struct bench_run *run);
void bare_server(void);
void bare_client(struct bench_run *run);
void chassis_server(void);
void mixed_server(void); /* chassis, with HTTP on the same port */
void chassis_client(struct bench_run *run);

#endif
