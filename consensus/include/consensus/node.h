/* consensus/node.h: the groups of one process and their way to the other members: one stream to
 * each peer carries the messages of all groups, and all their heartbeats in one message. */
#ifndef CONSENSUS_NODE_H
#define CONSENSUS_NODE_H

#include "chassis/naming.h"
#include "chassis/rpc_server.h"

struct con_node;

/* Registers strata.consensus.v1.Consensus on `server` (before its start). `naming` may be NULL when
 * no target is a name. Both are borrowed: naming outlives the node, the server is stopped before
 * it is freed (its handlers look at it, and at nothing after). */
struct base_status con_node_new(struct ch_env *env, struct ch_server *server,
                                struct ch_naming *naming,
                                struct con_node **node) CH_WAITS BASE_MUST_CHECK;
/* All its logs are closed before. */
void con_node_free(struct con_node *node) CH_WAITS;

#endif
