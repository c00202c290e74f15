/* etcd.h: an etcd cluster as its clients see it: several endpoints, of which one is talked to until
 * it fails.
 *
 * A call is tried on one endpoint after the other, each for CON_ETCD_ATTEMPT_MS at most, until one
 * answers or the deadline passes: so it may be carried out more than once, and whoever makes one
 * asks only for what may be (compare first). Requests are built in the caller's arena. */
#ifndef CON_ETCD_H
#define CON_ETCD_H

#include "chassis/env.h"
#include "chassis/rpc_client.h"
#include "etcd/api/etcdserverpb/rpc.pb-c.h"

enum { CON_ETCD_ENDPOINTS_MAX = 9, CON_ETCD_ATTEMPT_MS = 1500, CON_ETCD_OPS_MAX = 4 };

struct con_etcd;

/* "etcd://host:port[,host:port…][/prefix]". INVALID_ARGUMENT names what is wrong with it. */
struct base_status con__etcd_new(struct ch_env *env, const char *state,
                                 struct con_etcd **etcd) BASE_MUST_CHECK;
void con__etcd_free(struct con_etcd *etcd) CH_WAITS;
/* "/strata", or "/strata/" and the prefix of the state. */
const char *con__etcd_prefix(const struct con_etcd *etcd);
/* Grows whenever another endpoint is gone on to. */
uint64_t con__etcd_moves(const struct con_etcd *etcd);

/* ---- a transaction ---- */
struct con_etcd_txn {
    struct base_arena *arena;
    Etcdserverpb__TxnRequest request;
    Etcdserverpb__Compare *compare[CON_ETCD_OPS_MAX];
    Etcdserverpb__RequestOp *success[CON_ETCD_OPS_MAX], *failure[CON_ETCD_OPS_MAX];
};
void con__etcd_txn_init(struct con_etcd_txn *txn, struct base_arena *arena);
/* Only when the key was made at this revision; 0: is not there. */
void con__etcd_if_created(struct con_etcd_txn *txn, const char *key, uint64_t revision);
/* Then. `end` NULL: the key alone; limit 0: all. Borrowed till the call. */
void con__etcd_then_range(struct con_etcd_txn *txn, const char *key, const char *end,
                          int64_t limit);
void con__etcd_then_put(struct con_etcd_txn *txn, const char *key, struct base_bytes value,
                        int64_t lease);
void con__etcd_then_delete(struct con_etcd_txn *txn, const char *key, const char *end);
/* Else. */
void con__etcd_else_range(struct con_etcd_txn *txn, const char *key, const char *end);
/* `unsure` (may be NULL): it failed, and may have been carried out, or may yet be.
 * RESOURCE_EXHAUSTED and not unsure: it may have been, but is over. */
struct base_status con__etcd_commit(struct con_etcd *etcd, const struct con_etcd_txn *txn,
                                    ch_time deadline, Etcdserverpb__TxnResponse **response,
                                    bool *unsure) CH_WAITS BASE_MUST_CHECK;
/* The keys that the at'th operation of a response found. INTERNAL when it is no range's. */
struct base_status con__etcd_found(const Etcdserverpb__TxnResponse *response, size_t at,
                                   const Etcdserverpb__RangeResponse **range) BASE_MUST_CHECK;

/* ---- single keys, leases, watches ---- */
/* Linearizable. *kv NULL: there is none. */
struct base_status con__etcd_get(struct con_etcd *etcd, const char *key, ch_time deadline,
                                 struct base_arena *arena,
                                 const Mvccpb__KeyValue **kv) CH_WAITS BASE_MUST_CHECK;
struct base_status con__etcd_put(struct con_etcd *etcd, const char *key, struct base_bytes value,
                                 ch_time deadline) CH_WAITS BASE_MUST_CHECK;
/* *ttl_s: wanted; then what was granted, which is no less than one and a half of etcd's election
 * timeouts. */
struct base_status con__etcd_lease_grant(struct con_etcd *etcd, int64_t *ttl_s, ch_time deadline,
                                         int64_t *lease) CH_WAITS BASE_MUST_CHECK;
/* NOT_FOUND: the lease has ended. *sent: when the attempt that succeeded was begun. */
struct base_status con__etcd_lease_keep(struct con_etcd *etcd, int64_t lease, ch_time deadline,
                                        ch_time *sent) CH_WAITS BASE_MUST_CHECK;
struct base_status con__etcd_lease_revoke(struct con_etcd *etcd, int64_t lease,
                                          ch_time deadline) CH_WAITS BASE_MUST_CHECK;
/* Everything that happens to [key, end) from now on, by the endpoint talked to at present. */
struct base_status con__etcd_watch(struct con_etcd *etcd, const char *key, const char *end,
                                   struct ch_client_stream **stream) CH_WAITS BASE_MUST_CHECK;
/* Whether more than half of the endpoints say that they live, be they without a leader. */
bool con__etcd_most_live(struct con_etcd *etcd, ch_time deadline) CH_WAITS BASE_MUST_CHECK;

#endif
