/* node_int.h: the inside of a node (node.h): its groups, its ways to other processes.
 * node.c: groups and time. node_rpc.c: what others ask. node_peer.c: what is sent to them.
 * node_contact.c: whether they are there. */
#ifndef CON_NODE_INT_H
#define CON_NODE_INT_H

#include <bsd/sys/queue.h>
#include <uthash.h>

#include "chassis/metrics.h"
#include "consensus/node.h"
#include "message.h"

enum {
    CON_PEERS_MAX = 256,           /* targets a node keeps a way to; more are not reached */
    CON_PEER_BYTES_MAX = 8 << 20,  /* of entries and snapshots waiting to leave for one peer */
    CON_PEER_MESSAGES_MAX = 8192,  /* messages; twice as many of those that carry no data */
    CON_PEER_BEATS_MAX = 65536,    /* rows, of each kind */
    CON_DELIVERY_BYTES = 1 << 20,  /* what one Delivery holds, but for a single larger message */
    CON_PEER_BACKOFF_MS = 50,      /* after a stream broke; doubles up to: */
    CON_PEER_BACKOFF_MS_MAX = 200, /* meanwhile a peer that was started anew hears nothing */
    CON_TICK_MS_MAX = 50,
    CON_TICK_MS_MIN = 2,
};

struct con__group;

/* What waits to leave for one peer: everything in the arena. */
struct con__outbox {
    struct base_arena arena;
    CON_PB(Message) * *messages;
    size_t *sizes; /* about, of each message */
    size_t count, cap, bytes;
    struct con__beat_rows {
        uint64_t *to, *from, *term, *commit, *round, *index, *quiet; /* one block */
        size_t count, cap;
        bool any_quiet;
    } beats[2]; /* heartbeats, replies */
};

struct con__peer_way {
    struct con_node *node;
    char target[CON_ADDRESS_MAX];
    struct ch_client *client;
    struct con__outbox open, leaving; /* being filled; being sent */
    struct ch_cond work;
    bool up;     /* there is a stream */
    bool broken; /* it has ended, or is to end */
    bool unsent; /* `leaving` is to be sent again on a new stream */
    bool knock;  /* something is to be sent, though there be nothing to say */
    /* node_contact.c */
    bool lost;                      /* something sent to or by it may be */
    bool silent;                    /* its groups were told that it is */
    ch_time heard, sent, heartbeat; /* the shortest of the groups that use it */
    const void *incoming;           /* its stream to us; NULL: none is known */
    struct {
        struct ch_counter *messages, *deliveries, *dropped, *streams;
    } metrics;
    UT_hash_handle hh; /* by target */
};

struct con__node_group { /* of con_node.groups: what a tick looks at */
    ch_time deadline;
    uint64_t member;
    struct con__group *group;
};

struct con_node {
    struct ch_env *env;
    struct ch_server *server; /* looked at in handlers only: it goes before the node does */
    struct ch_naming *naming;
    struct con__peer_way *peers;
    struct con__group *by_name, *by_member;
    struct con__node_group *groups;
    size_t group_count, group_cap;
    ch_time tick; /* a third of the shortest heartbeat */
    struct ch_gate gate;
    struct ch_cond retired; /* a group ceased to lead */
    size_t incoming;        /* Deliver streams open to us */
    bool retiring;          /* the server stops: leadership goes to others */
    struct {
        struct ch_counter *received, *refused;
    } metrics;
};

/* ---- for groups (node.c) ---- */
/* ALREADY_EXISTS: a group of that name is open in this process. INVALID_ARGUMENT: with another
 * target than the rest (node_contact.c, invariant 3). */
struct base_status con__node_add(struct con_node *node, struct con__group *group) BASE_MUST_CHECK;
void con__node_remove(struct con_node *node, struct con__group *group);
/* When group->raft has something to do by time. */
void con__node_deadline(struct con_node *node, struct con__group *group, ch_time deadline);
struct con__group *con__node_find(struct con_node *node, const char *name);
struct con__group *con__node_find_member(struct con_node *node, uint64_t member);
/* The same for many in turn: another process names its groups nearly in the order that ours have.
 * *at is 0 at first. */
struct con__group *con__node_find_next(struct con_node *node, uint64_t member, size_t *at);
/* NULL: there is none yet. */
struct con__peer_way *con__node_way(struct con_node *node, const char *target);
/* The way to a target, made when there is none; lives as long as the node. NULL: too many. */
struct con__peer_way *con__node_peer(struct con_node *node, const char *target);

/* ---- node_peer.c ---- */
void con__peer_init(struct con__peer_way *peer, struct con_node *node, const char *target);
/* Queues a copy; what there is no room for is dropped. */
void con__peer_send(struct con__peer_way *peer, const char *group,
                    const struct con_message *message);
void con__peer_free(struct con__peer_way *peer) CH_WAITS;
ch_fiber_fn con__peer_fiber;

/* ---- node_contact.c ---- */
/* A Delivery came from that target, on the stream `incoming`; that stream ended. */
void con__contact_heard(struct con_node *node, const char *from, const void *incoming);
void con__contact_ended(struct con_node *node, const void *incoming);
/* A group that may lead is heard no more from here. */
void con__contact_forsake(struct con__group *group);
void con__contacts_look(struct con_node *node) CH_WAITS; /* at each tick */

/* ---- node_rpc.c ---- */
void con__node_serve(struct con_node *node, struct ch_server *server);

#endif
