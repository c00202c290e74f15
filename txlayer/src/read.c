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

struct base_status txn__not_sure(struct txn__lead *lead)
{
    if (lead->closed)
        return txn__lead_gone(lead);
    return base_status_make(BASE_UNAVAILABLE, "shard %u: this server is not sure to hold its lock",
                            lead->shard);
}

struct base_status txn__read_now(struct txn__lead *lead, ch_time deadline, uint64_t *timestamp)
{
    if (!txn__lead_sure(lead))
        return txn__not_sure(lead);
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
        status = txn__not_sure(lead);
    if (base_failed(status))
        return status;
    reply->read_at = scan.timestamp;
    reply->more = txn__page_full(&scan.page);
    put_rows(&scan.page, reply);
    return status;
}
