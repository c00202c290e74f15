/* reads.h: one request's reads: all at one timestamp, and recorded when they are a read-write
 * transaction's. */
#ifndef QUERYAPI_READS_H
#define QUERYAPI_READS_H

#include "server.h"

struct qry_read {
    struct qry_hold hold;
    bool in_transaction;
    uint64_t timestamp; /* 0 until the first read of a strong one */
    struct base_bytes
        begun; /* the token of the transaction that the read options asked for, or empty */
};

/* Checks the options (NULL: strong). Close it in any case when this succeeded. */
struct base_status qry_read_open(struct qry_request *request, const qry_read_options *options,
                                 struct qry_read *read) CH_WAITS BASE_MUST_CHECK;
void qry_read_close(struct qry_request *request, struct qry_read *read);

/* Values of about bytes_max bytes, at least one; the others are `unread`. */
struct base_status qry_read_some(struct qry_request *request, struct qry_read *read,
                                 const struct txn_key *keys, size_t count, size_t bytes_max,
                                 struct txn_value *values) CH_WAITS BASE_MUST_CHECK;
/* Rows live in `arena`. What is recorded is what was seen: up to the last row when there may be
 * more. */
struct base_status qry_read_scan(struct qry_request *request, struct qry_read *read,
                                 const struct txn_scan *scan, struct base_arena *arena,
                                 struct txn_row **rows, size_t *count,
                                 bool *more) CH_WAITS BASE_MUST_CHECK;

/* Begins a transaction by options (NULL: read-write); the token is in the request's arena. */
struct base_status qry_begin(struct qry_request *request, const qry_transaction_options *options,
                             struct base_bytes *token) CH_WAITS BASE_MUST_CHECK;

#endif
