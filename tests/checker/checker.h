/* checker.h: tells whether a history of transactions over append-only lists is strictly
 * serializable (Elle, VLDB'20: cycles of inferred dependencies) and agrees with the commit
 * timestamps it was given (replay, as Jepsen's TigerBeetle analysis).
 *
 * A transaction appends elements to keys and reads whole lists. Elements are unique a key. `ok`
 * happened, `fail` did not, `info` may have. Build a history with check_begin / check_append /
 * check_read / check_end, or load JSON lines; then check_run. Everything is owned by the
 * history. Self-contained: base and jansson alone. */
#ifndef TESTS_CHECKER_H
#define TESTS_CHECKER_H

#include "base/bytes.h"

enum check_type { CHECK_INFO, CHECK_OK, CHECK_FAIL };

/* X(NAME, text) */
#define CHECK_ANOMALIES(X)                \
    X(DUPLICATE_WRITE, "duplicate-write") \
    X(GARBAGE, "garbage-read")            \
    X(DUPLICATE, "duplicate-element")     \
    X(G1A, "G1a-aborted-read")            \
    X(G1B, "G1b-intermediate-read")       \
    X(INTERNAL, "internal")               \
    X(FUTURE, "future-read")              \
    X(INCOMPATIBLE, "incompatible-order") \
    X(DIRTY, "dirty-update")              \
    X(LOST, "lost-write")                 \
    X(G0, "G0")                           \
    X(G1C, "G1c")                         \
    X(GSINGLE, "G-single")                \
    X(G2, "G2")                           \
    X(G0_RT, "G0-realtime")               \
    X(G1C_RT, "G1c-realtime")             \
    X(GSINGLE_RT, "G-single-realtime")    \
    X(G2_RT, "G2-realtime")               \
    X(TS_ORDER, "timestamp-order")        \
    X(TS_REPLAY, "timestamp-replay")

enum check_anomaly {
#define X(name, text) CHECK_##name,
    CHECK_ANOMALIES(X)
#undef X
        CHECK_ANOMALY_COUNT
};
const char *check_anomaly_name(enum check_anomaly anomaly);

struct check_history;
struct check_history *check_new(void);
void check_free(struct check_history *history);

/* One transaction of a process, in the order of its operations. Returns its index. Times in ns. */
size_t check_begin(struct check_history *history, int process, int64_t invoked_ns);
void check_append(struct check_history *history, size_t txn, const char *key, int64_t element);
void check_read(struct check_history *history, size_t txn, const char *key, const int64_t *elements,
                size_t count);
/* timestamp 0: not known. read_timestamp: for transactions that only read: where their snapshot
 * was, 0: like timestamp. */
void check_end(struct check_history *history, size_t txn, enum check_type type,
               int64_t completed_ns, uint64_t timestamp);

/* JSON lines: {"process":0,"type":"invoke"|"ok"|"fail"|"info","t_ns":…,"commit_ts":…,
 * "txn":[["append","x",1],["r","x",[1,2]]]}; an invoke and its completion come as two lines, reads
 * without values in the first. */
struct base_status check_load(struct check_history *history,
                              struct base_bytes jsonl) BASE_MUST_CHECK;
void check_dump(const struct check_history *history, struct base_buf *jsonl);

struct check_result {
    size_t counts[CHECK_ANOMALY_COUNT];
    char first[CHECK_ANOMALY_COUNT][400]; /* a witness of each */
    size_t txns, committed, elements;
    bool valid;
};
struct check_options {
    bool
        final_reads; /* the last transaction reads every key: what was acknowledged must be in it */
    bool timestamps; /* replay by commit timestamp */
};
void check_run(struct check_history *history, const struct check_options *options,
               struct check_result *result);
/* "valid: 120 transactions…" or the anomalies, one a line. */
void check_report(const struct check_result *result, struct base_buf *out);

/* ---- registers with unique values, for locks and single rows (Gibbons and Korach, 1997) ---- */
struct check_register_op {
    bool is_write;
    int64_t value;            /* 0: the initial one, never written */
    int64_t start_ns, end_ns; /* a write of unknown outcome ends at INT64_MAX */
};
/* NULL when linearizable; else what is wrong, in a static buffer. */
const char *check_register(const struct check_register_op *ops, size_t count);

/* A compare-and-set register: a search for an order (Wing and Gong; Lowe's memory of states). At
 * most 64 operations that overlap one another at a time; call it for each part between quiet
 * moments. */
struct check_cas_op {
    enum { CHECK_CAS_READ, CHECK_CAS_WRITE, CHECK_CAS_CAS } kind;
    int64_t from, to; /* read: value in `to`; write: `to`; cas: from -> to */
    bool failed;      /* cas that answered "not equal" */
    int64_t start_ns, end_ns;
};
bool check_cas(const struct check_cas_op *ops, size_t count, int64_t initial);

#endif
