/* checker_int.h: the history's memory, shared by the checker's files. */
#ifndef TESTS_CHECKER_INT_H
#define TESTS_CHECKER_INT_H

#include "checker.h"

#include <uthash.h>

enum { MOP_APPEND, MOP_READ };
struct mop {
    int kind;
    size_t key;
    int64_t element;
    int64_t *elements;
    size_t count;
};
struct txn {
    int process;
    enum check_type type;
    bool ended;
    int64_t invoked, completed; /* INT64_MAX: never */
    uint64_t timestamp;
    struct mop *mops;
    size_t mop_count, mop_cap;
    bool committed; /* ok, or info that was seen */
};

struct key {
    UT_hash_handle hh;
    size_t index;
    const int64_t *order; /* longest read */
    size_t order_count, order_reader;
    char name[];
};
struct element_id {
    size_t key;
    int64_t element;
};
struct writer {
    UT_hash_handle hh;
    struct element_id id;
    size_t txn;
    bool final; /* the transaction's last append to the key */
    bool seen;  /* in some version order */
    size_t position;
};

struct check_history {
    struct base_arena arena;
    struct txn *txns;
    size_t count, cap;
    struct key *keys, **key_list;
    size_t key_count, key_cap;
    struct writer *writers;
    size_t writer_count;
};

struct writer *check__writer(struct check_history *history, size_t key, int64_t element);
void check__found(struct check_result *result, enum check_anomaly anomaly, const char *fmt, ...)
    BASE_PRINTF(3, 4);
/* The elements a transaction saw of others when it read: the list without its own appends at the
 * end. */
size_t check__external(const struct txn *txn, size_t mop);
/* graph.c, replay.c */
void check__cycles(struct check_history *history, struct check_result *result);
void check__replay(struct check_history *history, struct check_result *result);

#endif
