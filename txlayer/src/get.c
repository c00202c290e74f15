/* get.c: the gets of one message: README.md, invariants R1 to R5 (what read.c says holds).
 *
 * Memory answers what it knows; the rest is one trip to the data table for each timestamp. What a
 * get may cost is bounded: its values have at most its own `bytes_max` bytes, those of a message
 * TXN__GET_BYTES_MAX; what is beyond is `unread`, and asked for again.
 * 1. A get that returns OK has read at least one of its values: who asks again comes to an end.
 * 2. A get without a `bytes_max` (an older client's) is answered whole or RESOURCE_EXHAUSTED. */
#include "lead.h"

#include <stdlib.h>

/* A key that memory does not know. */
struct missing {
    struct txn__get *get;
    struct base_bytes key; /* full */
    Strata__Txlayer__V1__Value *value;
};

/* Missing keys of one timestamp: one trip. */
struct trip {
    struct txn__lead *lead;
    struct base_arena arena; /* of its own: trips run side by side */
    struct missing *missing;
    size_t count, bytes_max;
    ch_time deadline;
    struct base_status status;
};

static size_t budget_of(const struct txn__get *get)
{
    uint64_t max = get->op->bytes_max;
    return max && max < TXN__GET_BYTES_MAX ? (size_t)max : TXN__GET_BYTES_MAX;
}

/* ---- from the table ---- */

static int order_missing(const void *a, const void *b)
{
    const struct missing *x = a, *y = b;
    uint64_t xt = x->get->timestamp, yt = y->get->timestamp;
    int order = (xt > yt) - (xt < yt);
    return order ? order : base_bytes_cmp(x->key, y->key);
}

static void run_trip(void *arg)
{
    CH_FIBER_ENTRY();
    struct trip *trip = arg;
    uint64_t timestamp = trip->missing[0].get->timestamp;
    struct base_bytes *keys = BASE_NEW_ARRAY(&trip->arena, struct base_bytes, trip->count);
    struct txn__seen *seen = BASE_NEW_ARRAY(&trip->arena, struct txn__seen, trip->count);
    size_t distinct = 0, got = 0;
    for (size_t i = 0; i < trip->count; i++)
        if (!distinct || !base_bytes_eq(keys[distinct - 1], trip->missing[i].key))
            keys[distinct++] = trip->missing[i].key;
    ch_count(trip->lead->metrics->table_reads, distinct);
    trip->status = txn__data_get(trip->lead->tables, timestamp, keys, distinct, trip->bytes_max,
                                 trip->deadline, &trip->arena, seen, &got);
    if (base_failed(trip->status) || trip->lead->closed)
        return;
    for (size_t i = 0, k = 0; i < trip->count; i++) {
        struct missing *missing = &trip->missing[i];
        while (!base_bytes_eq(keys[k], missing->key))
            k++;
        missing->value->unread = k >= got;
        if (k >= got)
            continue;
        missing->value->found = seen[k].found;
        missing->value->timestamp = seen[k].timestamp;
        missing->value->value = ch_data_of(seen[k].value); /* moved to the call's arena below */
    }
    for (size_t k = 0; k < got; k++)
        txn__rows_fill(trip->lead->rows, keys[k], timestamp, &seen[k]);
}

/* The trip's values are the gets' own from here on. */
static void trip_end(struct trip *trip, struct base_arena *arena)
{
    for (size_t m = 0; m < trip->count; m++) {
        struct missing *missing = &trip->missing[m];
        struct txn__get *get = missing->get;
        if (base_failed(trip->status) && !base_failed(get->status))
            get->status = base_status_copy(&trip->status);
        if (base_failed(trip->status) || missing->value->unread)
            continue;
        missing->value->value =
            ch_data_of(base_bytes_dup(arena, ch_bytes_of(missing->value->value)));
        get->bytes += missing->value->value.len;
        get->read++;
    }
    base_status_free(&trip->status);
    base_arena_free(&trip->arena);
}

/* What a trip may bring: what its gets may still have, and its share of what the message may. */
static size_t trip_bytes(const struct trip *trip, size_t share)
{
    const struct txn__get *last = NULL;
    size_t bytes = 0;
    for (size_t i = 0; i < trip->count && bytes < share; i++) {
        const struct txn__get *get = trip->missing[i].get;
        if (get != last && budget_of(get) > get->bytes)
            bytes += budget_of(get) - get->bytes; /* twice, maybe: the share bounds it */
        last = get;
    }
    return bytes < share ? bytes : share;
}

static void run_trips(struct txn__lead *lead, struct missing *missing, size_t count,
                      size_t bytes_max, ch_time deadline, struct base_arena *arena) CH_WAITS;
static void run_trips(struct txn__lead *lead, struct missing *missing, size_t count,
                      size_t bytes_max, ch_time deadline, struct base_arena *arena)
{
    struct trip *trips = BASE_NEW_ARRAY(arena, struct trip, count);
    size_t n = 0;
    qsort(missing, count, sizeof(*missing), order_missing);
    for (size_t i = 0; i < count; i++) {
        if (!i || missing[i].get->timestamp != missing[i - 1].get->timestamp)
            trips[n++] =
                (struct trip){ .lead = lead, .missing = &missing[i], .deadline = deadline };
        trips[n - 1].count++;
    }
    for (size_t i = 0; i < n; i++)
        trips[i].bytes_max = trip_bytes(&trips[i], bytes_max / n);
    if (n == 1) {
        run_trip(&trips[0]);
    } else {
        struct ch_gather gather;
        ch_gather_init(&gather, "txn reads");
        for (size_t i = 0; i < n; i++)
            ch_gather_add(&gather, run_trip, &trips[i]);
        ch_gather_wait(&gather);
    }
    for (size_t i = 0; i < n; i++)
        trip_end(&trips[i], arena);
}

/* ---- from memory ---- */

/* Whether a value fits; counts it when so. */
static bool take(struct txn__get *get, size_t len, size_t *left)
{
    bool first = get->read == 0, fits = get->bytes + len <= budget_of(get);
    if (len > *left || (!fits && !first))
        return false;
    get->bytes += len;
    get->read++;
    *left -= len;
    return true;
}

static void put_value(Strata__Txlayer__V1__Value *value, const struct txn__seen *seen,
                      struct base_arena *arena)
{
    value->found = seen->found;
    value->timestamp = seen->timestamp;
    value->value = ch_data_of(seen->found ? base_bytes_dup(arena, seen->value) : BASE_BYTES_EMPTY);
}

/* From memory what it knows; the rest is added to `missing`. */
static void get_from_memory(struct txn__lead *lead, struct txn__get *get, struct base_arena *arena,
                            struct missing *missing, size_t *count, size_t *left)
{
    struct base_bytes database = ch_bytes_of(get->op->database);
    Strata__Txlayer__V1__Value *values =
        BASE_NEW_ARRAY(arena, Strata__Txlayer__V1__Value, get->op->n_keys);
    struct base_buf key = { 0 };
    get->result->values = BASE_NEW_ARRAY(arena, Strata__Txlayer__V1__Value *, get->op->n_keys);
    get->result->n_values = get->op->n_keys;
    get->result->read_at = get->timestamp;
    for (size_t i = 0; i < get->op->n_keys; i++) {
        struct txn__seen seen;
        strata__txlayer__v1__value__init(&values[i]);
        get->result->values[i] = &values[i];
        base_buf_clear(&key);
        txn__full_key(database, ch_bytes_of(get->op->keys[i]->key), &key);
        if (txn__rows_get(lead->rows, base_buf_bytes(&key), get->timestamp, &seen)) {
            values[i].unread = !take(get, seen.found ? seen.value.len : 0, left);
            if (!values[i].unread)
                put_value(&values[i], &seen, arena);
            ch_count(lead->metrics->memory_hits, 1);
            continue;
        }
        values[i].unread = true;
        missing[(*count)++] =
            (struct missing){ get, base_bytes_dup(arena, base_buf_bytes(&key)), &values[i] };
    }
    base_buf_free(&key);
}

/* ---- all ---- */

static struct base_status check_get(const Strata__Txlayer__V1__GetOp *op)
{
    for (size_t i = 0; i < op->n_keys; i++)
        if (op->keys[i]->key.len == 0 || op->keys[i]->key.len > TXN_KEY_MAX)
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "key %zu has %zu bytes: 1 to %d are allowed", i,
                                    op->keys[i]->key.len, TXN_KEY_MAX);
    return BASE_STATUS_OK;
}

static void settle_all(struct txn__lead *lead, struct txn__get *gets, size_t count,
                       ch_time deadline) CH_WAITS;
static void settle_all(struct txn__lead *lead, struct txn__get *gets, size_t count,
                       ch_time deadline)
{
    uint64_t strong = 0;
    for (size_t i = 0; i < count; i++) {
        struct txn__get *get = &gets[i];
        get->status = check_get(get->op);
        get->timestamp = get->op->timestamp ? get->op->timestamp : strong;
        if (!base_failed(get->status) && !get->timestamp) {
            get->status = txn__read_now(lead, deadline, &strong);
            get->timestamp = strong;
        } else if (!base_failed(get->status) && get->op->timestamp) {
            get->status = txn__read_at(lead, get->timestamp, deadline);
        }
    }
}

static bool all_read(const struct txn__get *get)
{
    return get->read == get->op->n_keys;
}

/* What the table is to be asked for: nothing for gets that have had their bytes. */
static size_t wanted(struct missing *missing, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        const struct txn__get *get = missing[i].get;
        if (!get->read || get->bytes < budget_of(get))
            missing[kept++] = missing[i];
    }
    return kept;
}

/* The keys of a get that shared a trip and got nothing of it, alone. */
static void try_alone(struct txn__lead *lead, struct txn__get *get, struct missing *missing,
                      size_t count, ch_time deadline, struct base_arena *arena) CH_WAITS;
static void try_alone(struct txn__lead *lead, struct txn__get *get, struct missing *missing,
                      size_t count, ch_time deadline, struct base_arena *arena)
{
    struct missing *own = BASE_NEW_ARRAY(arena, struct missing, count);
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        if (missing[i].get == get)
            own[n++] = missing[i];
    if (n)
        run_trips(lead, own, n, budget_of(get), deadline, arena);
}

void txn__read_get(struct txn__lead *lead, struct txn__get *gets, size_t count, ch_time deadline,
                   struct base_arena *arena)
{
    size_t keys = 0, missing_count = 0, left = TXN__GET_BYTES_MAX, bytes = 0;
    for (size_t i = 0; i < count; i++)
        keys += gets[i].op->n_keys;
    settle_all(lead, gets, count, deadline);
    struct missing *missing = BASE_NEW_ARRAY(arena, struct missing, keys);
    for (size_t i = 0; i < count && !lead->closed; i++)
        if (!base_failed(gets[i].status))
            get_from_memory(lead, &gets[i], arena, missing, &missing_count, &left);
    missing_count = wanted(missing, missing_count);
    if (missing_count)
        run_trips(lead, missing, missing_count, left, deadline, arena);
    for (size_t i = 0; i < count; i++)
        bytes += gets[i].bytes;
    for (size_t i = 0; i < count && missing_count && bytes < TXN__GET_BYTES_MAX; i++)
        if (!base_failed(gets[i].status) && !gets[i].read && gets[i].op->n_keys) {
            try_alone(lead, &gets[i], missing, missing_count, deadline, arena);
            bytes += gets[i].bytes;
        }
    bool sure = txn__lead_sure(lead);
    for (size_t i = 0; i < count; i++) {
        if (base_failed(gets[i].status))
            continue;
        if (!sure)
            gets[i].status = txn__not_sure(lead);
        else if (!all_read(&gets[i]) && (!gets[i].read || !gets[i].op->bytes_max))
            gets[i].status = base_status_make(BASE_RESOURCE_EXHAUSTED,
                                              "the values have more than %d bytes: ask for fewer",
                                              TXN__GET_BYTES_MAX);
    }
}
