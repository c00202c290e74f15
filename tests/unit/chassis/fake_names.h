/* fake_names.h: an implementation of strata.clustermgr.v1.Names small enough to be seen to be
 * right, for tests of its client: one state in memory, any number of members that serve it, one
 * of which leads. Leases are looked at when a request comes and by waiting lockers; waits poll
 * every few milliseconds. */
#ifndef TESTS_FAKE_NAMES_H
#define TESTS_FAKE_NAMES_H

#include "chassis/rpc_server.h"

enum { FAKE_NODES_MAX = 64, FAKE_SESSIONS_MAX = 32 };

struct fake_node {
    char path[64];
    char value[64];
    uint64_t version, owner, epoch, holder;
};
struct fake_session {
    uint64_t id;
    ch_time until;
    uint32_t lease_ms;
};
struct fake_names {
    struct fake_node nodes[FAKE_NODES_MAX]; /* path "": free; a deleted one keeps its epoch */
    struct fake_session sessions[FAKE_SESSIONS_MAX];
    uint64_t version, next_session, next_epoch;
    int leader; /* index of the member */
    bool hint;  /* refusals tell where the leader is */
    const char *leader_address;
    ch_time last_ended; /* when a session ended by its lease */
    int keep_alives, watches, acquires;
};
struct fake_member {
    struct fake_names *names;
    struct ch_env *env;
    struct ch_server *server;
    int index;
};

/* Registers the service on the member's server. */
void fake_names_serve(struct fake_member *member);
struct fake_node *fake_node_find(struct fake_names *names, const char *path);

#endif
