/* checker.c: the history, and what can be told of single reads and of the order of each list
 * (anchors F.5, 1 to 4). */
#include "checker_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const names[] = {
#define X(name, text) text,
    CHECK_ANOMALIES(X)
#undef X
};

const char *check_anomaly_name(enum check_anomaly anomaly)
{
    return names[anomaly];
}

struct check_history *check_new(void)
{
    struct check_history *history = calloc(1, sizeof(*history));
    base_arena_init(&history->arena);
    return history;
}

static void forget_writers(struct check_history *history)
{
    struct writer *writer, *next;
    HASH_ITER(hh, history->writers, writer, next)
    {
        HASH_DEL(history->writers, writer);
        free(writer);
    }
    history->writer_count = 0;
}

void check_free(struct check_history *history)
{
    struct key *key, *next;
    forget_writers(history);
    HASH_ITER(hh, history->keys, key, next)
    {
        HASH_DEL(history->keys, key);
        free(key);
    }
    for (size_t i = 0; i < history->count; i++)
        free(history->txns[i].mops);
    free(history->txns);
    free(history->key_list);
    base_arena_free(&history->arena);
    free(history);
}

size_t check_begin(struct check_history *history, int process, int64_t invoked_ns)
{
    if (history->count == history->cap) {
        history->cap = history->cap ? history->cap * 2 : 256;
        history->txns = realloc(history->txns, history->cap * sizeof(*history->txns));
        BASE_ASSERT(history->txns);
    }
    history->txns[history->count] =
        (struct txn){ .process = process, .invoked = invoked_ns, .completed = INT64_MAX };
    return history->count++;
}

static size_t key_index(struct check_history *history, const char *name)
{
    struct key *key;
    HASH_FIND_STR(history->keys, name, key);
    if (key)
        return key->index;
    key = calloc(1, sizeof(*key) + strlen(name) + 1);
    memcpy(key->name, name, strlen(name) + 1);
    key->index = history->key_count;
    HASH_ADD_STR(history->keys, name, key);
    if (history->key_count == history->key_cap) {
        history->key_cap = history->key_cap * 2 + 16;
        history->key_list =
            realloc(history->key_list, history->key_cap * sizeof(*history->key_list));
    }
    history->key_list[history->key_count++] = key;
    return key->index;
}

static struct mop *add_mop(struct check_history *history, size_t index, int kind, const char *key)
{
    struct txn *txn = &history->txns[index];
    if (txn->mop_count == txn->mop_cap) {
        txn->mop_cap = txn->mop_cap * 2 + 4;
        txn->mops = realloc(txn->mops, txn->mop_cap * sizeof(*txn->mops));
        BASE_ASSERT(txn->mops);
    }
    struct mop *mop = &txn->mops[txn->mop_count++];
    *mop = (struct mop){ .kind = kind, .key = key_index(history, key) };
    return mop;
}

void check_append(struct check_history *history, size_t txn, const char *key, int64_t element)
{
    add_mop(history, txn, MOP_APPEND, key)->element = element;
}

void check_read(struct check_history *history, size_t txn, const char *key, const int64_t *elements,
                size_t count)
{
    struct mop *mop = add_mop(history, txn, MOP_READ, key);
    mop->elements = base_arena_memdup(&history->arena, elements, count * sizeof(*elements));
    mop->count = count;
}

void check_end(struct check_history *history, size_t index, enum check_type type,
               int64_t completed_ns, uint64_t timestamp)
{
    struct txn *txn = &history->txns[index];
    txn->type = type;
    txn->ended = true;
    txn->completed = type == CHECK_INFO ? INT64_MAX : completed_ns;
    txn->timestamp = timestamp;
}

struct writer *check__writer(struct check_history *history, size_t key, int64_t element)
{
    struct element_id id;
    struct writer *writer;
    memset(&id, 0, sizeof(id));
    id.key = key;
    id.element = element;
    HASH_FIND(hh, history->writers, &id, sizeof(id), writer);
    return writer;
}

void check__found(struct check_result *result, enum check_anomaly anomaly, const char *fmt, ...)
{
    if (!result->counts[anomaly]++) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(result->first[anomaly], sizeof(result->first[anomaly]), fmt, args);
        va_end(args);
    }
    result->valid = false;
}

static const char *name_of(const struct check_history *history, size_t key)
{
    return history->key_list[key]->name;
}

/* ---- 1: who wrote what ---- */

static void index_writers(struct check_history *history, struct check_result *result)
{
    forget_writers(history);
    for (size_t t = 0; t < history->count; t++)
        for (size_t m = 0; m < history->txns[t].mop_count; m++) {
            const struct mop *mop = &history->txns[t].mops[m];
            if (mop->kind != MOP_APPEND)
                continue;
            if (check__writer(history, mop->key, mop->element)) {
                check__found(result, CHECK_DUPLICATE_WRITE,
                             "element %lld of %s is appended twice; the second time by T%zu",
                             (long long)mop->element, name_of(history, mop->key), t);
                continue;
            }
            struct writer *writer = calloc(1, sizeof(*writer));
            writer->id.key = mop->key;
            writer->id.element = mop->element;
            writer->txn = t;
            writer->final = true;
            for (size_t later = m + 1; later < history->txns[t].mop_count; later++)
                if (history->txns[t].mops[later].kind == MOP_APPEND &&
                    history->txns[t].mops[later].key == mop->key)
                    writer->final = false;
            HASH_ADD(hh, history->writers, id, sizeof(writer->id), writer);
            history->writer_count++;
        }
}

/* ---- 2: single reads ---- */

size_t check__external(const struct txn *txn, size_t m)
{
    const struct mop *read = &txn->mops[m];
    size_t own = 0;
    for (size_t i = 0; i < m; i++)
        own += txn->mops[i].kind == MOP_APPEND && txn->mops[i].key == read->key;
    return own <= read->count ? read->count - own : 0;
}

/* Earlier reads and appends of the same transaction must be reflected. */
static void check_internal(struct check_history *history, size_t t, size_t m,
                           struct check_result *result)
{
    const struct txn *txn = &history->txns[t];
    const struct mop *read = &txn->mops[m];
    size_t external = check__external(txn, m), at = external;
    for (size_t i = 0; i < m; i++) {
        const struct mop *before = &txn->mops[i];
        if (before->key != read->key)
            continue;
        bool good;
        if (before->kind == MOP_APPEND) {
            good = at < read->count && read->elements[at] == before->element;
            at++;
        } else {
            good = check__external(txn, i) == external &&
                   (external == 0 ||
                    memcmp(before->elements, read->elements, external * sizeof(int64_t)) == 0);
        }
        if (!good) {
            check__found(result, CHECK_INTERNAL,
                         "T%zu reads %s and does not see what it read or appended before", t,
                         name_of(history, read->key));
            return;
        }
    }
}

static int order_int64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void check_elements(struct check_history *history, size_t t, const struct mop *read,
                           struct check_result *result)
{
    const char *name = name_of(history, read->key);
    for (size_t i = 0; i < read->count; i++) {
        const struct writer *writer = check__writer(history, read->key, read->elements[i]);
        long long element = (long long)read->elements[i];
        if (!writer) {
            check__found(result, CHECK_GARBAGE,
                         "T%zu reads element %lld of %s, which nobody appended", t, element, name);
            continue;
        }
        const struct txn *by = &history->txns[writer->txn];
        if (by->type == CHECK_FAIL)
            check__found(result, CHECK_G1A,
                         "T%zu reads element %lld of %s, appended by T%zu, which failed", t,
                         element, name, writer->txn);
        if (by->invoked > history->txns[t].completed)
            check__found(
                result, CHECK_FUTURE,
                "T%zu reads element %lld of %s, appended by T%zu, which began after it ended", t,
                element, name, writer->txn);
        if (i + 1 == read->count && !writer->final && writer->txn != t)
            check__found(result, CHECK_G1B,
                         "T%zu reads %s up to element %lld, which T%zu overwrote itself", t, name,
                         element, writer->txn);
    }
    int64_t *sorted = malloc(read->count * sizeof(*sorted) + 1);
    if (read->count)
        memcpy(sorted, read->elements, read->count * sizeof(*sorted));
    qsort(sorted, read->count, sizeof(*sorted), order_int64);
    for (size_t i = 1; i < read->count; i++)
        if (sorted[i] == sorted[i - 1])
            check__found(result, CHECK_DUPLICATE, "T%zu reads element %lld of %s twice", t,
                         (long long)sorted[i], name);
    free(sorted);
}

static void check_reads(struct check_history *history, struct check_result *result)
{
    for (size_t t = 0; t < history->count; t++)
        for (size_t m = 0; m < history->txns[t].mop_count && history->txns[t].type == CHECK_OK; m++)
            if (history->txns[t].mops[m].kind == MOP_READ) {
                check_elements(history, t, &history->txns[t].mops[m], result);
                check_internal(history, t, m, result);
            }
}

/* ---- 3 and 4: the order of each list ---- */

static void find_orders(struct check_history *history)
{
    for (size_t k = 0; k < history->key_count; k++)
        history->key_list[k]->order_count = 0;
    for (size_t t = 0; t < history->count; t++)
        for (size_t m = 0; m < history->txns[t].mop_count && history->txns[t].type == CHECK_OK;
             m++) {
            const struct mop *mop = &history->txns[t].mops[m];
            struct key *key = history->key_list[mop->key];
            if (mop->kind == MOP_READ && mop->count > key->order_count) {
                key->order = mop->elements;
                key->order_count = mop->count;
                key->order_reader = t;
            }
        }
}

static void check_prefixes(struct check_history *history, struct check_result *result)
{
    for (size_t t = 0; t < history->count; t++)
        for (size_t m = 0; m < history->txns[t].mop_count && history->txns[t].type == CHECK_OK;
             m++) {
            const struct mop *mop = &history->txns[t].mops[m];
            const struct key *key = history->key_list[mop->key];
            if (mop->kind == MOP_READ && mop->count &&
                memcmp(mop->elements, key->order, mop->count * sizeof(int64_t)) != 0)
                check__found(result, CHECK_INCOMPATIBLE, "T%zu reads %s in another order than T%zu",
                             t, key->name, key->order_reader);
        }
}

static void mark_seen(struct check_history *history, struct check_result *result)
{
    for (size_t k = 0; k < history->key_count; k++) {
        const struct key *key = history->key_list[k];
        bool failed = false;
        for (size_t i = 0; i < key->order_count; i++) {
            struct writer *writer = check__writer(history, k, key->order[i]);
            if (!writer)
                continue;
            writer->seen = true;
            writer->position = i;
            history->txns[writer->txn].committed |= history->txns[writer->txn].type == CHECK_INFO;
            if (history->txns[writer->txn].type == CHECK_FAIL)
                failed = true;
            else if (failed && history->txns[writer->txn].type == CHECK_OK)
                check__found(result, CHECK_DIRTY,
                             "T%zu appended to %s on top of a transaction that failed", writer->txn,
                             key->name);
        }
    }
}

static void check_lost(struct check_history *history, struct check_result *result)
{
    struct writer *writer, *next;
    HASH_ITER(hh, history->writers, writer, next)
    if (!writer->seen && history->txns[writer->txn].type == CHECK_OK)
        check__found(result, CHECK_LOST,
                     "element %lld of %s, appended by T%zu and acknowledged, is gone",
                     (long long)writer->id.element, name_of(history, writer->id.key), writer->txn);
}

void check_run(struct check_history *history, const struct check_options *options,
               struct check_result *result)
{
    memset(result, 0, sizeof(*result));
    result->valid = true;
    result->txns = history->count;
    for (size_t t = 0; t < history->count; t++)
        history->txns[t].committed = history->txns[t].type == CHECK_OK;
    index_writers(history, result);
    check_reads(history, result);
    find_orders(history);
    check_prefixes(history, result);
    mark_seen(history, result);
    if (options->final_reads)
        check_lost(history, result);
    for (size_t t = 0; t < history->count; t++)
        result->committed += history->txns[t].committed;
    result->elements = history->writer_count;
    check__cycles(history, result);
    if (options->timestamps)
        check__replay(history, result);
}

void check_report(const struct check_result *result, struct base_buf *out)
{
    base_buf_printf(out, "%s: %zu transactions, %zu committed, %zu elements\n",
                    result->valid ? "valid" : "INVALID", result->txns, result->committed,
                    result->elements);
    for (int i = 0; i < CHECK_ANOMALY_COUNT; i++)
        if (result->counts[i])
            base_buf_printf(out, "  %s x %zu: %s\n", names[i], result->counts[i], result->first[i]);
}
