/* txlayer/txlayer.h: serializable transactions over ordered tables of (key, value) rows
 * (Megastore, CIDR'11; optimistic ranges as FoundationDB, SIGMOD'21).
 *
 * A database is a set of ordered rows, each belonging to an entity group named by the writer
 * (any bytes; queryapi uses the root of an entity's key). Reads are at a timestamp: a consistent
 * snapshot of everything. A commit carries what was read (keys and ranges, at the read
 * timestamp) and what is written; it happens only if nothing read has changed since: ABORTED
 * otherwise. Strict serializability is the default. Every commit carries an idempotency id: the
 * same id again returns the first outcome. Timestamps are microseconds of the cell's oracle,
 * strictly growing, unrelated to any wall clock for safety (but near it). All calls wait;
 * deadlines are absolute; errors name the database and the key. */
#ifndef TXLAYER_TXLAYER_H
#define TXLAYER_TXLAYER_H

#include "base/bytes.h"
#include "chassis/naming.h"

struct txn_client;
struct txn_client_options {
    struct ch_naming *naming;
    const char *target; /* "/local/txserver" */
};
struct txn_client *txn_client_new(struct ch_env *env, const struct txn_client_options *options);
void txn_client_free(struct txn_client *client) CH_WAITS;

enum {
    TXN_KEY_MAX = 8 << 10,     /* bytes of a row key */
    TXN_VALUE_MAX = 2 << 20,   /* bytes of a value */
    TXN_COMMIT_MAX = 12 << 20, /* bytes of a commit */
    TXN_GET_MAX = 64 << 20,    /* bytes of all values of a txn_get */
    TXN_DURATION_S = 270,      /* the oldest read timestamp a commit may validate against */
};

/* The timestamp of a strong read: everything acknowledged before this call is at or below it. */
struct base_status txn_read_timestamp(struct txn_client *client, const char *database,
                                      ch_time deadline,
                                      uint64_t *timestamp) CH_WAITS BASE_MUST_CHECK;

/* A row key with the group it belongs to (the group decides the shard; reads of a known group go
 * to that shard's leader). */
struct txn_key {
    struct base_bytes group, key;
};
struct txn_value {
    bool found;
    struct base_bytes value; /* in the read's arena */
    uint64_t timestamp; /* of the commit that wrote it; of the delete, when known, if not found */
    bool unread;        /* by txn_get_some: not looked at */
};
/* values[i] for keys[i], at `timestamp` (0: a strong read now; *read_at is set to what was
 * used). One trip for all keys unless they are large; RESOURCE_EXHAUSTED, at once, when they have
 * more than TXN_GET_MAX bytes. */
struct base_status txn_get(struct txn_client *client, const char *database, uint64_t timestamp,
                           const struct txn_key *keys, size_t count, ch_time deadline,
                           struct base_arena *arena, struct txn_value *values,
                           uint64_t *read_at) CH_WAITS BASE_MUST_CHECK;

/* The same in one trip always: values of about `bytes_max` bytes together, at least one; the others
 * are `unread`, in no order. */
struct base_status txn_get_some(struct txn_client *client, const char *database, uint64_t timestamp,
                                const struct txn_key *keys, size_t count, size_t bytes_max,
                                ch_time deadline, struct base_arena *arena,
                                struct txn_value *values,
                                uint64_t *read_at) CH_WAITS BASE_MUST_CHECK;

/* Rows with start <= key < end (empty end: no end), ascending or descending, at a timestamp (0:
 * strong now). A page ends at `limit` rows or about 1 MiB; *more says that rows may remain: go
 * on from the last key. Ranges cross groups. */
struct txn_row {
    struct base_bytes key, value;
    uint64_t timestamp;
};
struct txn_scan {
    struct base_bytes start, end;
    bool descending;
    bool keys_only;
    size_t limit; /* 0: as much as fits a page */
};
struct base_status txn_scan(struct txn_client *client, const char *database, uint64_t timestamp,
                            const struct txn_scan *scan, ch_time deadline, struct base_arena *arena,
                            struct txn_row **rows, size_t *count, bool *more,
                            uint64_t *read_at) CH_WAITS BASE_MUST_CHECK;

/* ---- commit ---- */
struct txn_write {
    struct txn_key key;
    bool is_delete;
    struct base_bytes value;
};
struct txn_range {
    struct base_bytes start, end;
};
struct txn_commit {
    uint64_t read_timestamp;         /* what the read set was read at; 0 when nothing was read */
    const struct txn_key *read_keys; /* found or not found: both are facts that must still hold */
    size_t read_key_count;
    const struct txn_range *read_ranges;
    size_t read_range_count;
    const struct txn_write *writes; /* no key twice */
    size_t write_count;
    struct base_bytes idempotency_id; /* 16 bytes, random, the same in every retry of this commit */
};
/* *timestamp: of the commit. ABORTED: something read has changed; nothing was written; the text
 * names the key or range. Retries by itself (the id makes it safe) until the deadline;
 * DEADLINE_EXCEEDED and UNAVAILABLE then mean: outcome unknown. INVALID_ARGUMENT over a limit,
 * or a read timestamp too old. */
struct base_status txn_commit(struct txn_client *client, const char *database,
                              const struct txn_commit *commit, ch_time deadline,
                              uint64_t *timestamp) CH_WAITS BASE_MUST_CHECK;

#endif
