/* client_int.h: the client library's insides: connections to leaders, and the combining of
 * operations that wait together. */
#ifndef TXLAYER_CLIENT_INT_H
#define TXLAYER_CLIENT_INT_H

#include <bsd/sys/queue.h>

#include "chassis/rpc_client.h"
#include "strata/txlayer/v1/txlayer.pb-c.h"
#include "txlayer/txlayer.h"

enum {
    TXN__WINDOW =
        3, /* messages of a kind under way to a leader before operations wait to share one */
    TXN__COMBINE_OPS_MAX = 256,
    TXN__COMBINE_BYTES_MAX = 2 << 20,
    TXN__GET_PAGE_BYTES = 16 << 20, /* a get asks for so much at once */
    TXN__WAITING_MAX = 20000,       /* operations waiting for a message */
    TXN__DATABASES_MAX = 4096,      /* whose leaders are remembered */
    TXN__ATTEMPT_MS = 4000,
    TXN__CLIENT_RETRY_MS_MIN = 4,
    TXN__CLIENT_RETRY_MS_MAX = 400,
};

struct txn__call {
    TAILQ_ENTRY(txn__call) link;
    enum { TXN__CALL_WAITING = 1, TXN__CALL_LEADS, TXN__CALL_TAKEN, TXN__CALL_DONE } state;
    struct ch_cond changed;
    ch_time deadline;
    size_t bytes;
    const char *tenant;
    ProtobufCMessage *op;
    void *result;              /* of the reply; lives in `arena` */
    struct base_arena *arena;  /* for the result */
    struct base_status status; /* of the trip */
};
TAILQ_HEAD(txn__call_list, txn__call);

/* Operations of one kind to one leader. */
struct txn__combiner {
    struct ch_env *env;
    struct ch_client *client;
    const struct ch_method *method;
    size_t under_way, waiting;
    struct txn__call_list calls;
};
void txn__combiner_init(struct txn__combiner *combiner, struct ch_env *env,
                        struct ch_client *client, const struct ch_method *method);
/* One operation, alone or in company: on OK *result is its own result, in `arena`. A failed
 * status is the trip's; its outcome is unknown then. */
struct base_status txn__combine(struct txn__combiner *combiner, ProtobufCMessage *op, size_t bytes,
                                ch_time deadline, struct base_arena *arena,
                                void **result) CH_WAITS BASE_MUST_CHECK;

struct txn__leader {
    TAILQ_ENTRY(txn__leader) link;
    char *address;
    struct ch_client *client;
    struct txn__combiner gets, commits;
};

/* ---- leaders.c ---- */
struct txn__leaders;
struct txn__leaders *txn__leaders_new(struct ch_env *env, const struct txn_client_options *options);
void txn__leaders_free(struct txn__leaders *leaders) CH_WAITS;
/* The remembered leader of a database, or by asking. Leaders live as long as the client. */
struct base_status txn__leader_find(struct txn__leaders *leaders, const char *database,
                                    ch_time deadline,
                                    struct txn__leader **leader) CH_WAITS BASE_MUST_CHECK;
/* It was not `wrong`; `hint` may be. */
void txn__leader_wrong(struct txn__leaders *leaders, const char *database,
                       const struct txn__leader *wrong, struct base_bytes hint);

#endif
