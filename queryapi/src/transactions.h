/* transactions.h: open transactions: what each has read, kept here until it commits.
 *
 * A transaction's id, the token, says which server instance made it, its kind, when it began, and
 * its read timestamp when that was fixed at the beginning (read-only ones: these can go on at any
 * server). What a read-write transaction has read is in the memory of the server that began it,
 * within limits. Invariants:
 * 1. One read timestamp a transaction: fixed at begin, or by its first read while others wait.
 * 2. Everything a read-write transaction reads is recorded before the reader sees it.
 * 3. A transaction is over after its first commit with a known outcome, or rollback: then its
 * token is INVALID_ARGUMENT. The
 *    reply of a successful commit is kept for QRY_REPLY_KEPT_S: the same commit sent again is
 *    answered with it.
 * 4. A token of another instance whose reads are lost with it is ABORTED: the client begins anew.
 */
#ifndef QUERYAPI_TRANSACTIONS_H
#define QUERYAPI_TRANSACTIONS_H

#include "chassis/env.h"
#include "base/codec.h"
#include "ds.h"
#include "txlayer/txlayer.h"

enum {
    QRY_TRANSACTIONS_MAX = 20000,        /* open at a server */
    QRY_TRANSACTION_READS_MAX = 100000,  /* keys and ranges a transaction */
    QRY_TRANSACTION_BYTES_MAX = 8 << 20, /* of these */
    QRY_TRANSACTION_LIFE_S = 270,
    QRY_TRANSACTION_IDLE_S = 60,
    QRY_REPLY_KEPT_S = 60,
    QRY_REPLY_BYTES_MAX = 64 << 10, /* larger replies are not kept */
    QRY_TOKEN_LEN = 58,
};

struct qry_reads { /* growing arrays in the transaction's arena */
    struct base_arena arena;
    struct txn_key *keys;
    size_t key_count, key_cap;
    struct txn_range *ranges;
    size_t range_count, range_cap;
    size_t bytes;
};

struct qry_transaction;
struct qry_transactions {
    struct ch_env *env;
    uint64_t instance;
    struct qry_transaction *all; /* hash by id */
    size_t count;
};

/* A request's hold on a transaction. */
struct qry_hold {
    struct qry_transaction *state; /* NULL: a read-only one begun elsewhere */
    bool read_only;
    uint64_t timestamp; /* 0: not fixed yet */
    uint8_t id[16];
};

void qry_transactions_init(struct qry_transactions *all, struct ch_env *env);
void qry_transactions_free(struct qry_transactions *all); /* no hold may be out */

/* Makes one; its token is in `arena`. timestamp 0: fixed by the first read. RESOURCE_EXHAUSTED at
 * the limit. */
struct base_status qry_transaction_begin(struct qry_transactions *all, const char *database,
                                         bool read_only, uint64_t timestamp,
                                         struct base_arena *arena,
                                         struct base_bytes *token) BASE_MUST_CHECK;
/* INVALID_ARGUMENT: no token, or over; ABORTED: lost. The hold is given back with
 * qry_transaction_release. */
struct base_status qry_transaction_hold(struct qry_transactions *all, const char *database,
                                        struct base_bytes token,
                                        struct qry_hold *hold) BASE_MUST_CHECK;
void qry_transaction_release(struct qry_transactions *all, struct qry_hold *hold);

/* Fixing the timestamp by a first read: true when the caller is to read at 0 and then call _fixed
 * (0: it failed; another may try); false when it is fixed, and in hold->timestamp. */
struct base_status qry_transaction_fix(struct qry_hold *hold, ch_time deadline,
                                       bool *first) CH_WAITS BASE_MUST_CHECK;
void qry_transaction_fixed(struct qry_hold *hold, uint64_t timestamp);

/* Records (copies). INVALID_ARGUMENT over a limit. Nothing for read-only ones. */
struct base_status qry_transaction_read_key(struct qry_hold *hold,
                                            const struct txn_key *key) BASE_MUST_CHECK;
struct base_status qry_transaction_read_range(struct qry_hold *hold, struct base_bytes start,
                                              struct base_bytes end) BASE_MUST_CHECK;
/* Borrowed while held; NULL for read-only ones. */
const struct qry_reads *qry_transaction_reads(const struct qry_hold *hold);

/* Committing: one at a time (INVALID_ARGUMENT while another is at it). After success *kept is the
 * reply of an earlier commit (in `arena`), or empty: then do it, and end with _done (with the
 * reply's bytes), _over (known failure) or _unknown. */
struct base_status qry_transaction_commit_begin(struct qry_hold *hold, struct base_arena *arena,
                                                struct base_bytes *kept) BASE_MUST_CHECK;
void qry_transaction_commit_done(struct qry_hold *hold, struct base_bytes reply);
void qry_transaction_commit_unknown(struct qry_hold *hold);
void qry_transaction_over(struct qry_hold *hold);

/* Drops what has expired. Called every second. */
void qry_transactions_sweep(struct qry_transactions *all);

#endif
