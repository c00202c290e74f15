/* sim_net_bed.h: two nodes of the simulated network, for tests of it: a server and calls to it. */
#ifndef SIM_NET_BED_H
#define SIM_NET_BED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chassis/sim.h"
#include "env_int.h"
#include "test.h"

#define MUST(call)                                                          \
    do {                                                                    \
        struct base_status status_ = (call);                                \
        cr_assert(!base_failed(status_), "%s", base_status_text(&status_)); \
    } while (0)

enum { BYTES_MAX = 1 << 20 };
#define SERVER_ADDRESS "10.0.0.1:7000"

/* A server straight on the transport: a unary call's reply is its request; "/stream" echoes
 * messages, "/slow" waits 10 s, "/sink" never reads, "/count" says how many messages came. */
struct bed {
    struct ch_sim *sim;
    struct ch_sim_node *server, *client;
    struct ch_env *server_env;
    struct ch_tlistener *listener;
    struct ch_gate gate;
    size_t accepted, cancelled, sent;
    bool drain;
};
int bed_server_main(struct ch_env *env, void *bed);
int bed_client_main(struct ch_env *env, void *bed);
void bed_accepted(void *bed, struct ch_tcall *call); /* for more listeners */
struct bed *bed_new(uint64_t seed);
void bed_free(struct bed *bed);
void run_for(struct bed *bed, ch_time time);

/* A unary call on a fiber of the tester. */
struct call {
    struct bed *bed;
    const char *path, *address;
    struct base_bytes request;
    ch_time timeout;
    bool wait_for_ready, turn_away;
    struct ch_tfinish finish;
    struct base_buf reply;
    ch_time took;
    bool done;
};
void call_on(struct call *call, struct ch_tchannel *channel) CH_WAITS;
void call_fiber(void *arg); /* opens a channel of its own; arg: the call */
bool call_done(void *call);
void call_start(struct call *call, struct bed *bed);
void call_end(struct call *call);
/* Runs the world until the call has ended, judges it, ends it. */
void call_check(struct call *call, enum base_code code, bool never_seen);

#endif
