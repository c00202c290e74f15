/* read.c: reads at a timestamp: README.md, invariants R1 to R5.
 *
 * A read happens at one timestamp T for which it is settled that everything at or below is
 * decided and nothing will be committed there any more. Then each key is answered by memory or,
 * where memory does not know, by the data table at T: what is not applied yet is in memory. A
 * strong read takes the greatest such T without waiting and is good if the lock was surely held
 * from before T was taken until the answer is made. */
#include "lead.h"

#include <stdlib.h>

enum {
    SPARE_ROWS = 32,
    SPARE_SHIFT_MAX = 6
}; /* table rows a part asks for beyond what the page lacks */

/* Everything at or below it is decided and stays so; may lie below what is promised to others. */
static uint64_t settled(struct txn__lead *lead)
{
    const struct txn__batch *first = TAILQ_FIRST(&lead->flights);
    uint64_t now = txn__lead_now(lead), top;
    if (first)
        top = first->ts_min - 1;
    else
        top = now > lead->oracle.last ? now : lead->oracle.last;
    return top < lead->oracle.limit ? top : lead->oracle.limit;
}

static struct base_status wait_change(struct txn__lead *lead, ch_time deadline,
                                      const char *what) CH_WAITS;
static struct base_status wait_change(struct txn__lead *lead, ch_time deadline, const char *what)
{
    enum ch_outcome outcome = ch_cond_wait(&lead->changed, deadline);
    return lead->closed ? txn__lead_gone(lead) : ch_outcome_status(outcome, what);
}

static struct base_status not_sure(struct txn__lead *lead)
{
    if (lead->closed)
        return txn__lead_gone(lead);
    return base_status_make(BASE_UNAVAILABLE, "shard %u: this server is not sure to hold its lock",
                            lead->shard);
}

struct base_status txn__read_now(struct txn__lead *lead, ch_time deadline, uint64_t *timestamp)
{
    if (!txn__lead_sure(lead))
        return not_sure(lead);
    for (;;) {
        *timestamp = settled(lead);
        if (*timestamp < lead->oracle.limit || *timestamp + TXN__STALE_US >= txn__lead_now(lead))
            break;
        /* Idle so long that the promised bound is far behind: one entry moves it. */
        txn__log_touch(lead);
        struct base_status status =
            wait_change(lead, deadline, "wait for the shard's timestamp bound");
        if (base_failed(status))
            return status;
    }
    BASE_ASSERT(txn__oracle_promise(&lead->oracle, *timestamp));
    return BASE_STATUS_OK;
}

struct base_status txn__read_at(struct txn__lead *lead, uint64_t timestamp, ch_time deadline)
{
    uint64_t now = txn__lead_now(lead), retention = (uint64_t)lead->config->retention / 1000;
    if (timestamp > lead->oracle.last && timestamp > now + TXN__FUTURE_MAX_US)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "read timestamp %llu is in the future: it is %llu now",
                                (unsigned long long)timestamp, (unsigned long long)now);
    if (timestamp + retention < lead->oracle.last)
        return base_status_make(
            BASE_INVALID_ARGUMENT, "read timestamp %llu is too old: the oldest kept is %llu",
            (unsigned long long)timestamp, (unsigned long long)(lead->oracle.last - retention));
    while (!txn__oracle_promise(&lead->oracle, timestamp)) {
        if (timestamp > lead->limit_wanted)
            lead->limit_wanted = timestamp;
        txn__log_touch(lead);
        struct base_status status =
            wait_change(lead, deadline, "wait for the shard's timestamp bound");
        if (base_failed(status))
            return status;
    }
    for (;;) {
        const struct txn__batch *first = TAILQ_FIRST(&lead->flights);
        if (!first || first->ts_min > timestamp)
            return lead->closed ? txn__lead_gone(lead) : BASE_STATUS_OK;
        struct base_status status =
            wait_change(lead, deadline, "wait for commits below the read's timestamp");
        if (base_failed(status))
            return status;
    }
}

static struct base_status settle(struct txn__lead *lead, uint64_t asked, ch_time deadline,
                                 uint64_t *timestamp) CH_WAITS;
static struct base_status settle(struct txn__lead *lead, uint64_t asked, ch_time deadline,
                                 uint64_t *timestamp)
{
    *timestamp = asked;
    return asked ? txn__read_at(lead, asked, deadline) : txn__read_now(lead, deadline, timestamp);
}

/* ---- scan ---- */

struct scan {
    struct txn__lead *lead;
    const Strata__Txlayer__V1__ScanRequest *request;
    ch_time deadline;
    uint64_t timestamp;
    struct base_bytes low, high; /* what is left of the range, full keys */
    struct txn__page page;
    size_t parts;
    bool complete;
};

/* One part of the range: a page of the table, then memory over the same keys. */
static struct base_status scan_part(struct scan *scan, struct base_arena *scratch) CH_WAITS;
static struct base_status scan_part(struct scan *scan, struct base_arena *scratch)
{
    bool down = scan->request->descending;
    /* The first part as if nothing were deleted; then more and more. */
    size_t spare = scan->parts
                       ? (size_t)SPARE_ROWS
                             << (scan->parts < SPARE_SHIFT_MAX ? scan->parts : SPARE_SHIFT_MAX)
                       : 0;
    struct txn__data_range range = { .from = scan->low,
                                     .to = scan->high,
                                     .descending = down,
                                     .timestamp = scan->timestamp,
                                     .rows_max = scan->page.row_max - scan->page.count + spare,
                                     .bytes_max = scan->page.byte_max - scan->page.bytes };
    struct txn__table_row *rows;
    size_t count;
    scan->parts++;
    struct base_status status = txn__data_scan(scan->lead->tables, &range, scan->deadline, scratch,
                                               &rows, &count, &scan->complete);
    if (base_failed(status))
        return status;
    if (scan->lead->closed)
        return txn__lead_gone(scan->lead);
    struct base_bytes reached =
        scan->complete ? (down ? scan->low : scan->high) : rows[count - 1].key;
    if (!scan->complete && !down) {
        uint8_t *after = base_arena_calloc(scan->page.arena, reached.len + 1, 1);
        memcpy(after, reached.data, reached.len);
        reached = base_bytes(after, reached.len + 1);
    } else if (!scan->complete) {
        reached = base_bytes_dup(scan->page.arena, reached);
    }
    txn__merge(scan->lead->rows, down, down ? scan->high : scan->low, reached, scan->timestamp,
               rows, count, &scan->page);
    *(down ? &scan->high : &scan->low) = reached;
    return status;
}

static void put_rows(const struct txn__page *page, Strata__Txlayer__V1__ScanReply *reply)
{
    Strata__Txlayer__V1__ScannedRow *rows =
        BASE_NEW_ARRAY(page->arena, Strata__Txlayer__V1__ScannedRow, page->count);
    reply->rows = BASE_NEW_ARRAY(page->arena, Strata__Txlayer__V1__ScannedRow *, page->count);
    for (size_t i = 0; i < page->count; i++) {
        strata__txlayer__v1__scanned_row__init(&rows[i]);
        rows[i].key = ch_data_of(page->rows[i].key);
        rows[i].value = ch_data_of(page->rows[i].value);
        rows[i].timestamp = page->rows[i].timestamp;
        reply->rows[i] = &rows[i];
    }
    reply->n_rows = page->count;
}

static struct base_status scan_parts(struct scan *scan) CH_WAITS;
static struct base_status scan_parts(struct scan *scan)
{
    struct base_status status = BASE_STATUS_OK;
    struct base_arena scratch;
    struct txn__pin pin;
    base_arena_init(&scratch);
    txn__rows_pin(scan->lead->rows, &pin);
    while (!base_failed(status) && !scan->complete && !txn__page_full(&scan->page)) {
        status = scan_part(scan, &scratch);
        base_arena_reset(&scratch);
    }
    txn__rows_unpin(scan->lead->rows, &pin);
    base_arena_free(&scratch);
    return status;
}

struct base_status txn__read_scan(struct txn__lead *lead,
                                  const Strata__Txlayer__V1__ScanRequest *request, ch_time deadline,
                                  struct base_arena *arena, Strata__Txlayer__V1__ScanReply *reply)
{
    struct base_bytes database = ch_bytes_of(request->database);
    struct scan scan = {
        .lead = lead,
        .request = request,
        .deadline = deadline,
        .low = txn__full_key_in(arena, database, ch_bytes_of(request->start)),
        .high = txn__full_end_in(arena, database, ch_bytes_of(request->end)),
        .page = { .arena = arena,
                  .prefix = database.len + 1,
                  .keys_only = request->keys_only,
                  .byte_max = TXN__PAGE_BYTES,
                  .row_max = request->limit && request->limit < TXN__PAGE_ROWS ? request->limit
                                                                               : TXN__PAGE_ROWS },
    };
    if (request->start.len > TXN_KEY_MAX + 1 || request->end.len > TXN_KEY_MAX + 1)
        return base_status_make(BASE_INVALID_ARGUMENT, "an end of the range has more than %d bytes",
                                TXN_KEY_MAX);
    struct base_status status = settle(lead, request->timestamp, deadline, &scan.timestamp);
    if (base_failed(status))
        return status;
    if (base_bytes_cmp(scan.low, scan.high) < 0)
        status = scan_parts(&scan);
    if (!base_failed(status) && !txn__lead_sure(lead))
        status = not_sure(lead);
    if (base_failed(status))
        return status;
    reply->read_at = scan.timestamp;
    reply->more = txn__page_full(&scan.page);
    put_rows(&scan.page, reply);
    return status;
}

/* ---- get ---- */

/* A key that memory does not know. */
struct missing {
    uint64_t timestamp;
    struct base_bytes key; /* full */
    struct txn__get *get;
    Strata__Txlayer__V1__Value *value;
};

/* Missing keys of one timestamp: one trip. */
struct trip {
    struct txn__lead *lead;
    struct base_arena arena; /* of its own: trips run side by side */
    struct missing *missing;
    size_t count;
    ch_time deadline;
    struct base_status status;
};

static void put_value(Strata__Txlayer__V1__Value *value, const struct txn__seen *seen,
                      struct base_arena *arena)
{
    value->found = seen->found;
    value->timestamp = seen->timestamp;
    value->value = ch_data_of(seen->found ? base_bytes_dup(arena, seen->value) : BASE_BYTES_EMPTY);
}

static int order_missing(const void *a, const void *b)
{
    const struct missing *x = a, *y = b;
    int order = (x->timestamp > y->timestamp) - (x->timestamp < y->timestamp);
    return order ? order : base_bytes_cmp(x->key, y->key);
}

static void run_trip(void *arg)
{
    CH_FIBER_ENTRY();
    struct trip *trip = arg;
    uint64_t timestamp = trip->missing[0].timestamp;
    struct base_bytes *keys = BASE_NEW_ARRAY(&trip->arena, struct base_bytes, trip->count);
    struct txn__seen *seen = BASE_NEW_ARRAY(&trip->arena, struct txn__seen, trip->count);
    size_t distinct = 0;
    for (size_t i = 0; i < trip->count; i++)
        if (!distinct || !base_bytes_eq(keys[distinct - 1], trip->missing[i].key))
            keys[distinct++] = trip->missing[i].key;
    ch_count(trip->lead->metrics->table_reads, distinct);
    trip->status = txn__data_get(trip->lead->tables, timestamp, keys, distinct, TXN__GET_BYTES_MAX,
                                 trip->deadline, &trip->arena, seen);
    if (base_failed(trip->status) || trip->lead->closed)
        return;
    for (size_t i = 0, k = 0; i < trip->count; i++) {
        while (!base_bytes_eq(keys[k], trip->missing[i].key))
            k++;
        trip->missing[i].value->found = seen[k].found;
        trip->missing[i].value->timestamp = seen[k].timestamp;
        trip->missing[i].value->value =
            ch_data_of(seen[k].value); /* moved to the call's arena below */
    }
    for (size_t k = 0; k < distinct; k++)
        txn__rows_fill(trip->lead->rows, keys[k], timestamp, &seen[k]);
}

static void run_trips(struct txn__lead *lead, struct missing *missing, size_t count,
                      ch_time deadline, struct base_arena *arena) CH_WAITS;
static void run_trips(struct txn__lead *lead, struct missing *missing, size_t count,
                      ch_time deadline, struct base_arena *arena)
{
    struct trip *trips = BASE_NEW_ARRAY(arena, struct trip, count);
    size_t n = 0;
    qsort(missing, count, sizeof(*missing), order_missing);
    for (size_t i = 0; i < count; i++) {
        if (!i || missing[i].timestamp != missing[i - 1].timestamp)
            trips[n++] =
                (struct trip){ .lead = lead, .missing = &missing[i], .deadline = deadline };
        trips[n - 1].count++;
    }
    if (n == 1) {
        run_trip(&trips[0]);
    } else {
        struct ch_gather gather;
        ch_gather_init(&gather, "txn reads");
        for (size_t i = 0; i < n; i++)
            ch_gather_add(&gather, run_trip, &trips[i]);
        ch_gather_wait(&gather);
    }
    for (size_t i = 0; i < n; i++) {
        struct trip *trip = &trips[i];
        for (size_t m = 0; m < trip->count; m++) {
            struct txn__get *get = trip->missing[m].get;
            if (!base_failed(trip->status))
                trip->missing[m].value->value =
                    ch_data_of(base_bytes_dup(arena, ch_bytes_of(trip->missing[m].value->value)));
            else if (!base_failed(get->status))
                get->status = base_status_copy(&trip->status);
        }
        base_status_free(&trip->status);
        base_arena_free(&trip->arena);
    }
}

/* From memory what it knows; the rest is added to `missing`. */
static void get_from_memory(struct txn__lead *lead, struct txn__get *get, struct base_arena *arena,
                            struct missing *missing, size_t *count)
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
            put_value(&values[i], &seen, arena);
            ch_count(lead->metrics->memory_hits, 1);
            continue;
        }
        missing[(*count)++] =
            (struct missing){ .timestamp = get->timestamp,
                              .get = get,
                              .value = &values[i],
                              .key = base_bytes_dup(arena, base_buf_bytes(&key)) };
    }
    base_buf_free(&key);
}

static struct base_status check_get(const Strata__Txlayer__V1__GetOp *op)
{
    for (size_t i = 0; i < op->n_keys; i++)
        if (op->keys[i]->key.len == 0 || op->keys[i]->key.len > TXN_KEY_MAX)
            return base_status_make(BASE_INVALID_ARGUMENT,
                                    "key %zu has %zu bytes: 1 to %d are allowed", i,
                                    op->keys[i]->key.len, TXN_KEY_MAX);
    return BASE_STATUS_OK;
}

/* The sizes of replies are bounded: beyond, operations fail, in order. */
static void limit_bytes(struct txn__get *gets, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        for (size_t v = 0; !base_failed(gets[i].status) && v < gets[i].result->n_values; v++)
            bytes += gets[i].result->values[v]->value.len;
        if (bytes > TXN__GET_BYTES_MAX && !base_failed(gets[i].status))
            gets[i].status = base_status_make(BASE_RESOURCE_EXHAUSTED,
                                              "the values have more than %d bytes: ask for fewer",
                                              TXN__GET_BYTES_MAX);
    }
}

void txn__read_get(struct txn__lead *lead, struct txn__get *gets, size_t count, ch_time deadline,
                   struct base_arena *arena)
{
    uint64_t strong = 0;
    size_t keys = 0, missing_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct txn__get *get = &gets[i];
        keys += get->op->n_keys;
        get->status = check_get(get->op);
        get->timestamp = get->op->timestamp ? get->op->timestamp : strong;
        if (!base_failed(get->status) && !get->timestamp) {
            get->status = txn__read_now(lead, deadline, &strong);
            get->timestamp = strong;
        } else if (!base_failed(get->status) && get->op->timestamp) {
            get->status = txn__read_at(lead, get->timestamp, deadline);
        }
    }
    struct missing *missing = BASE_NEW_ARRAY(arena, struct missing, keys);
    for (size_t i = 0; i < count && !lead->closed; i++)
        if (!base_failed(gets[i].status))
            get_from_memory(lead, &gets[i], arena, missing, &missing_count);
    if (missing_count)
        run_trips(lead, missing, missing_count, deadline, arena);
    bool sure = txn__lead_sure(lead);
    for (size_t i = 0; i < count; i++)
        if (!sure && !base_failed(gets[i].status))
            gets[i].status = not_sure(lead);
    limit_bytes(gets, count);
}
