/* replay.c: by commit timestamp (anchors F.5, 7): the committed transactions in the order of
 * their timestamps, on a map; every read must be the map's state just before its transaction.
 * And timestamps agree with real time. Lists that a transaction of unknown timestamp appended to
 * are left out. */
#include "checker_int.h"

#include <stdlib.h>

struct list {
    int64_t *elements;
    size_t count, cap;
    bool unknown;
};

static bool writes(const struct txn *txn)
{
    for (size_t m = 0; m < txn->mop_count; m++)
        if (txn->mops[m].kind == MOP_APPEND)
            return true;
    return false;
}

/* A transaction that only reads sees everything at its timestamp; one that writes, everything
 * below. */
static int order_txns(const void *a, const void *b, void *arg)
{
    const struct check_history *history = arg;
    const struct txn *x = &history->txns[*(const size_t *)a],
                     *y = &history->txns[*(const size_t *)b];
    if (x->timestamp != y->timestamp)
        return x->timestamp < y->timestamp ? -1 : 1;
    return (int)writes(y) - (int)writes(x);
}

static void push(struct list *list, int64_t element)
{
    if (list->count == list->cap) {
        list->cap = list->cap * 2 + 16;
        list->elements = realloc(list->elements, list->cap * sizeof(int64_t));
        BASE_ASSERT(list->elements);
    }
    list->elements[list->count++] = element;
}

static void replay(struct check_history *history, size_t t, struct list *lists,
                   struct check_result *result)
{
    const struct txn *txn = &history->txns[t];
    for (size_t m = 0; m < txn->mop_count; m++) {
        const struct mop *mop = &txn->mops[m];
        struct list *list = &lists[mop->key];
        if (mop->kind == MOP_APPEND) {
            push(list, mop->element);
            continue;
        }
        if (list->unknown || txn->type != CHECK_OK)
            continue;
        if (mop->count != list->count ||
            (list->count && memcmp(mop->elements, list->elements, list->count * sizeof(int64_t))))
            check__found(result, CHECK_TS_REPLAY,
                         "T%zu at %llu reads %zu elements of %s; replayed there are %zu, or others",
                         t, (unsigned long long)txn->timestamp, mop->count,
                         history->key_list[mop->key]->name, list->count);
    }
}

struct moment {
    int64_t at;
    bool is_end;
    size_t txn;
};

static int order_moments(const void *a, const void *b)
{
    const struct moment *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return (int)x->is_end - (int)y->is_end;
}

/* Whoever began after another's acknowledgement has the greater timestamp (for reads: not the
 * smaller). */
static void check_real_time(struct check_history *history, const size_t *txns, size_t count,
                            struct check_result *result)
{
    struct moment *moments = malloc((2 * count + 1) * sizeof(*moments));
    size_t n = 0, top = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        moments[n++] = (struct moment){ history->txns[txns[i]].invoked, false, txns[i] };
        if (history->txns[txns[i]].completed != INT64_MAX)
            moments[n++] = (struct moment){ history->txns[txns[i]].completed, true, txns[i] };
    }
    qsort(moments, n, sizeof(*moments), order_moments);
    for (size_t i = 0; i < n; i++) {
        const struct txn *txn = &history->txns[moments[i].txn];
        if (moments[i].is_end) {
            /* Only writers bound what follows: a read may be at a timestamp that nothing has
             * been committed at yet. */
            if (writes(txn) && (top == SIZE_MAX || txn->timestamp > history->txns[top].timestamp))
                top = moments[i].txn;
        } else if (top != SIZE_MAX &&
                   (writes(txn) ? txn->timestamp <= history->txns[top].timestamp
                                : txn->timestamp < history->txns[top].timestamp)) {
            check__found(result, CHECK_TS_ORDER,
                         "T%zu at %llu began after T%zu at %llu was acknowledged", moments[i].txn,
                         (unsigned long long)txn->timestamp, top,
                         (unsigned long long)history->txns[top].timestamp);
        }
    }
    free(moments);
}

void check__replay(struct check_history *history, struct check_result *result)
{
    size_t *txns = malloc((history->count + 1) * sizeof(*txns)), count = 0;
    struct list *lists = calloc(history->key_count + 1, sizeof(*lists));
    for (size_t t = 0; t < history->count; t++) {
        const struct txn *txn = &history->txns[t];
        if (txn->committed && txn->timestamp)
            txns[count++] = t;
        for (size_t m = 0; m < txn->mop_count && txn->committed && !txn->timestamp; m++)
            if (txn->mops[m].kind == MOP_APPEND)
                lists[txn->mops[m].key].unknown = true;
    }
    qsort_r(txns, count, sizeof(*txns), order_txns, history);
    for (size_t i = 0; i < count; i++) {
        if (i && writes(&history->txns[txns[i]]) && writes(&history->txns[txns[i - 1]]) &&
            history->txns[txns[i]].timestamp == history->txns[txns[i - 1]].timestamp)
            check__found(result, CHECK_TS_ORDER,
                         "T%zu and T%zu were committed at the same timestamp", txns[i - 1],
                         txns[i]);
        replay(history, txns[i], lists, result);
    }
    check_real_time(history, txns, count, result);
    for (size_t k = 0; k < history->key_count; k++)
        free(lists[k].elements);
    free(lists);
    free(txns);
}
