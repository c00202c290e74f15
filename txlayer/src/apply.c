/* apply.c: what is decided goes to the data table, in the background; then the checkpoint
 * follows, and the log behind it is dropped. README.md, invariants A1 to A5.
 *
 * Two fibers a term. The applier takes decided batches in order, as many rows a call as fit, and
 * repeats a call until it succeeds: the same cells with the same timestamps. The keeper of
 * checkpoints writes, every TXN__CHECKPOINT_MS, the ids of what was applied and then the
 * checkpoint, forgets what time has made useless, and drops old rows of the log. */
#include <stdlib.h>

#include "base/codec.h"
#include "chassis/log.h"
#include "lead.h"

/* ---- pages of ids that are in the log table, oldest first ---- */
struct id_page {
    TAILQ_ENTRY(id_page) link;
    uint64_t position, timestamp; /* newest commit of the page */
};
TAILQ_HEAD(id_page_list, id_page);
struct txn__id_pages {
    struct id_page_list list;
};

struct txn__id_pages *txn__id_pages_new(void)
{
    struct txn__id_pages *pages = calloc(1, sizeof(*pages));
    BASE_ASSERT(pages);
    TAILQ_INIT(&pages->list);
    return pages;
}

static void id_page_remove(struct txn__id_pages *pages, struct id_page *page)
{
    TAILQ_REMOVE(&pages->list, page, link);
    free(page);
}

void txn__id_pages_free(struct txn__id_pages *pages)
{
    struct id_page *page;
    while ((page = TAILQ_FIRST(&pages->list)))
        id_page_remove(pages, page);
    free(pages);
}

void txn__id_pages_add(struct txn__id_pages *pages, uint64_t position, uint64_t timestamp)
{
    struct id_page *page = calloc(1, sizeof(*page));
    BASE_ASSERT(page);
    *page = (struct id_page){ .position = position, .timestamp = timestamp };
    TAILQ_INSERT_TAIL(&pages->list, page, link);
}

/* ---- applying ---- */

/* One call's worth of rows, and how far it reaches. */
struct chunk {
    struct txn__cell_write *writes;
    struct txn__version **versions;
    size_t count, bytes;
};

/* Where the applier is in the first decided batch. */
struct applier {
    struct txn__lead *lead;
    size_t txn, write, version;
};

/* From the place `at` in a batch on, until the chunk is full; true when the batch is used up. */
static bool fill_from(struct chunk *chunk, const struct txn__batch *batch, struct applier *at)
{
    for (; at->txn < batch->txn_count; at->txn++, at->write = 0) {
        const struct txn__logged *txn = &batch->txns[at->txn];
        for (; at->write < txn->write_count; at->write++) {
            const struct txn__logged_write *write = &txn->writes[at->write];
            if (chunk->count == TXN__MUTATIONS_MAX ||
                (chunk->count && chunk->bytes + write->value.len > TXN__MUTATE_BYTES_MAX))
                return false;
            chunk->writes[chunk->count] =
                (struct txn__cell_write){ txn->database, txn->timestamp, write };
            chunk->versions[chunk->count++] = batch->versions[at->version++];
            chunk->bytes += txn->database.len + write->key.len + write->value.len + 32;
        }
    }
    return true;
}

static void put_until_done(struct txn__lead *lead, const struct chunk *chunk) CH_WAITS;
static void put_until_done(struct txn__lead *lead, const struct chunk *chunk)
{
    int64_t pause_ms = TXN__RETRY_MS_MIN;
    while (txn__lead_sure(lead)) { /* A4 */
        struct base_status status = txn__data_put(lead->tables, chunk->writes, chunk->count,
                                                  ch_in(lead->env, TXN__TABLE_CALL_MS * CH_MS));
        if (!base_failed(status)) {
            ch_count(lead->metrics->applied_rows, chunk->count);
            return;
        }
        if (!lead->closed)
            ch_warn(lead->env, "shard %u: %s", lead->shard, base_status_text(&status));
        base_status_free(&status);
        if (lead->closed || ch_cancelled())
            return;
        txn__backoff(lead->env, &pause_ms);
    }
    txn__lead_close(lead,
                    base_status_make(BASE_UNAVAILABLE,
                                     "shard %u: not sure of the lock while applying", lead->shard));
}

/* The first decided batch is in the table. */
static void batch_applied(struct txn__lead *lead)
{
    struct txn__batch *batch = TAILQ_FIRST(&lead->decided);
    TAILQ_REMOVE(&lead->decided, batch, link);
    lead->applied.position = batch->last;
    lead->applied.epoch = batch->epoch;
    if (batch->txn_count)
        lead->applied.timestamp = batch->ts_max;
    if (batch->limit > lead->applied.limit)
        lead->applied.limit = batch->limit;
    for (size_t i = 0; i < batch->txn_count; i++) {
        if (batch->txns[i].id.len != TXN__ID_BYTES)
            continue;
        base_buf_put_le64(&lead->id_records, batch->txns[i].timestamp);
        base_buf_put_bytes(&lead->id_records, batch->txns[i].id);
    }
    txn__batch_free(batch);
}

/* Collects up to a chunk of rows over any number of batches, writes it, and retires the batches
 * it ends. */
static void apply_chunk(struct applier *applier, struct chunk *chunk) CH_WAITS;
static void apply_chunk(struct applier *applier, struct chunk *chunk)
{
    struct txn__lead *lead = applier->lead;
    size_t ended = 0;
    chunk->count = chunk->bytes = 0;
    for (const struct txn__batch *batch = TAILQ_FIRST(&lead->decided); batch;
         batch = TAILQ_NEXT(batch, link)) {
        if (!fill_from(chunk, batch, applier))
            break;
        ended++;
        applier->txn = applier->write = applier->version = 0;
    }
    if (chunk->count)
        put_until_done(lead, chunk);
    if (lead->closed)
        return;
    for (size_t i = 0; i < chunk->count; i++)
        txn__rows_applied(lead->rows, chunk->versions[i]);
    txn__rows_applied_all(lead->rows);
    while (ended--)
        batch_applied(lead);
}

static void run_applier(void *arg)
{
    CH_FIBER_ENTRY();
    struct applier applier = { .lead = arg };
    struct txn__lead *lead = arg;
    struct chunk chunk = { .writes = calloc(TXN__MUTATIONS_MAX, sizeof(struct txn__cell_write)),
                           .versions = calloc(TXN__MUTATIONS_MAX, sizeof(struct txn__version *)) };
    BASE_ASSERT(chunk.writes && chunk.versions);
    while (!lead->closed && !ch_cancelled()) {
        bool wait = TAILQ_EMPTY(&lead->decided) ||
                    lead->id_records.len > (size_t)TXN__ID_RECORDS_MAX * TXN__ID_RECORD;
        if (wait && ch_cond_wait(&lead->apply_cond, CH_NEVER) == CH_CANCELLED)
            break;
        if (!wait)
            apply_chunk(&applier, &chunk);
    }
    free(chunk.writes);
    free(chunk.versions);
}

/* ---- checkpoints ---- */

static struct base_status put_checkpoint(struct txn__lead *lead) CH_WAITS;
static struct base_status put_checkpoint(struct txn__lead *lead)
{
    struct txn__checkpoint checkpoint = lead->applied;
    size_t used = lead->id_records.len;
    ch_time deadline = ch_in(lead->env, TXN__TABLE_CALL_MS * CH_MS);
    struct base_status status = BASE_STATUS_OK;
    if (used) {
        struct base_buf records = { 0 }; /* the applier appends meanwhile */
        base_buf_put(&records, lead->id_records.data, used);
        status = txn__ids_put(lead->tables, lead->shard, checkpoint.position,
                              base_buf_bytes(&records), deadline);
        base_buf_free(&records);
    }
    if (!base_failed(status))
        status = txn__checkpoint_put(lead->tables, lead->shard, &checkpoint, deadline);
    if (base_failed(status) || lead->closed)
        return status;
    if (used) {
        txn__id_pages_add(lead->id_pages, checkpoint.position, checkpoint.timestamp);
        memmove(lead->id_records.data, lead->id_records.data + used, lead->id_records.len - used);
        lead->id_records.len -= used;
    }
    lead->checkpointed = checkpoint;
    ch_cond_signal(&lead->apply_cond);
    return status;
}

/* Drops log rows behind the checkpoint; barriers stay for ever (L8). */
static struct base_status drop_log(struct txn__lead *lead, uint64_t *positions) CH_WAITS;
static struct base_status drop_log(struct txn__lead *lead, uint64_t *positions)
{
    uint64_t to = lead->checkpointed.position;
    if (to < lead->dropped + (uint64_t)lead->config->log_drop_min)
        return BASE_STATUS_OK;
    size_t count;
    struct base_status status =
        txn__log_droppable(lead->tables, lead->shard, lead->dropped + 1, to, TXN__DROP_MAX,
                           ch_in(lead->env, TXN__TABLE_CALL_MS * CH_MS), positions, &count);
    if (!base_failed(status))
        status = txn__log_drop(lead->tables, lead->shard, positions, count,
                               ch_in(lead->env, TXN__TABLE_CALL_MS * CH_MS));
    if (!base_failed(status))
        lead->dropped = count == TXN__DROP_MAX ? positions[count - 1] : to;
    return status;
}

static struct base_status drop_ids(struct txn__lead *lead, uint64_t upto) CH_WAITS;
static struct base_status drop_ids(struct txn__lead *lead, uint64_t upto)
{
    struct id_page *page = TAILQ_FIRST(&lead->id_pages->list);
    if (!page || page->timestamp > upto)
        return BASE_STATUS_OK;
    struct base_status status = txn__ids_drop(lead->tables, lead->shard, page->position,
                                              ch_in(lead->env, TXN__TABLE_CALL_MS * CH_MS));
    if (!base_failed(status))
        id_page_remove(lead->id_pages, page);
    return status;
}

static void forget_old(struct txn__lead *lead)
{
    ch_time now = ch_now(lead->env);
    txn__ages_note(&lead->ages, now, lead->oracle.last);
    txn__ids_trim(lead->ids, txn__ages_older(&lead->ages, now, TXN__ID_MEMORY_S));
    txn__conflict_trim(lead->conflict, txn__ages_older(&lead->ages, now, TXN_DURATION_S));
}

static void log_failure(struct txn__lead *lead, struct base_status status)
{
    if (base_failed(status) && !lead->closed)
        ch_warn(lead->env, "shard %u: %s", lead->shard, base_status_text(&status));
    base_status_free(&status);
}

static void run_checkpoints(void *arg)
{
    CH_FIBER_ENTRY();
    struct txn__lead *lead = arg;
    uint64_t *positions = calloc(TXN__DROP_MAX, sizeof(*positions));
    BASE_ASSERT(positions);
    while (!lead->closed &&
           ch_sleep_until(lead->env, ch_in(lead->env, TXN__CHECKPOINT_MS * CH_MS)) !=
               CH_CANCELLED) {
        if (lead->closed || !txn__lead_sure(lead))
            continue;
        if (lead->applied.position > lead->checkpointed.position)
            log_failure(lead, put_checkpoint(lead));
        forget_old(lead);
        if (txn__lead_sure(lead))
            log_failure(lead, drop_log(lead, positions));
        if (txn__lead_sure(lead))
            log_failure(lead, drop_ids(lead, txn__ages_older(&lead->ages, ch_now(lead->env),
                                                             TXN__ID_MEMORY_S)));
    }
    free(positions);
}

struct base_status txn__apply_start(struct txn__lead *lead)
{
    struct base_status status = ch_gate_spawn(&lead->gate, "txn applier", run_applier, lead);
    if (!base_failed(status))
        status = ch_gate_spawn(&lead->gate, "txn checkpoints", run_checkpoints, lead);
    return status;
}
