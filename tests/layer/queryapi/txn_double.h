/* txn_double.h: the txlayer in memory, for tests of the layer above: serializable, every past
 * state readable. A client's target "double:ADDRESS" is a store that the test made; several
 * servers may share it. */
#ifndef TXN_DOUBLE_H
#define TXN_DOUBLE_H

#include "txlayer/txlayer.h"

struct double_row;
struct double_store {
    struct {
        struct double_row *rbh_root;
    } rows;                         /* by database and key */
    struct double_commit *commits;  /* outcomes by id */
    uint64_t last;                  /* timestamp given out */
    int64_t (*clock_us)(void *arg); /* NULL: only counts up */
    void *clock_arg;
    uint64_t delay_us_max; /* every call waits a random time before and after it acts */
    int lose_commits;      /* so many commits act, and answer UNAVAILABLE */
    /* What was asked: */
    uint64_t gets, keys, scans, scanned, commits_done, aborted;
};

void double_init(struct double_store *store);
void double_free(struct double_store *store);
/* "--txlayer=double:0x…" */
const char *double_flag(struct double_store *store, char out[64]);
/* Live rows whose key begins so, now. */
size_t double_count(struct double_store *store, const char *database, struct base_bytes prefix);

#endif
