/* lead.c: see lead.h. */
#include "lead.h"

#include <stdlib.h>

#include "chassis/log.h"

void txn__metrics_init(struct ch_env *env, struct txn__lead_metrics *metrics)
{
    metrics->commits = ch_counter(env, "txn_commits_total", "", "transactions committed");
    metrics->aborts = ch_counter(env, "txn_aborts_total", "",
                                 "transactions refused because something they read had changed");
    metrics->repeats =
        ch_counter(env, "txn_repeats_total", "", "commits answered from their idempotency id");
    metrics->entries =
        ch_counter(env, "txn_log_entries_total", "", "rows written to the shard logs");
    metrics->log_bytes =
        ch_counter(env, "txn_log_bytes_total", "", "bytes of entries written to the shard logs");
    metrics->applied_rows =
        ch_counter(env, "txn_applied_rows_total", "", "rows written to the data table");
    metrics->memory_hits = ch_counter(env, "txn_memory_hits_total", "", "keys read from memory");
    metrics->table_reads =
        ch_counter(env, "txn_table_reads_total", "", "keys read from the data table");
    metrics->pruned =
        ch_counter(env, "txn_pruned_rows_total", "", "rows whose old versions were removed");
    metrics->log_ns = ch_histogram(env, "txn_log_ns", "", "from an entry's making to its decision");
    metrics->batch_txns =
        ch_histogram(env, "txn_batch_transactions", "", "transactions that share a batch");
}

struct txn__lead *txn__lead_new(struct ch_env *env, const struct txn__config *config,
                                struct txn__tables *tables, uint32_t shard, struct ch_lock *lock,
                                struct txn__lead_metrics *metrics)
{
    struct txn__lead *lead = calloc(1, sizeof(*lead));
    BASE_ASSERT(lead);
    lead->env = env;
    lead->config = config;
    lead->tables = tables;
    lead->lock = lock;
    lead->shard = shard;
    lead->epoch = ch_lock_epoch(lock);
    lead->refs = 1;
    lead->metrics = metrics;
    ch_cond_init(&lead->changed);
    ch_cond_init(&lead->over);
    ch_cond_init(&lead->apply_cond);
    ch_gate_init(&lead->gate, env, "txn lead");
    TAILQ_INIT(&lead->flights);
    TAILQ_INIT(&lead->decided);
    TAILQ_INIT(&lead->queue);
    lead->ids = txn__ids_new(TXN__IDS_MAX);
    lead->id_pages = txn__id_pages_new();
    return lead;
}

void txn__lead_ref(struct txn__lead *lead)
{
    lead->refs++;
}

static void batches_free(struct txn__batch_list *list)
{
    struct txn__batch *batch;
    while ((batch = TAILQ_FIRST(list))) {
        TAILQ_REMOVE(list, batch, link);
        txn__batch_free(batch);
    }
}

void txn__lead_unref(struct txn__lead *lead)
{
    BASE_ASSERT(lead->refs > 0);
    if (--lead->refs)
        return;
    BASE_ASSERT(lead->closed && lead->gate.inside == 0);
    batches_free(&lead->flights);
    batches_free(&lead->decided);
    txn__conflict_free(lead->conflict);
    txn__rows_free(lead->rows);
    txn__ids_free(lead->ids);
    txn__id_pages_free(lead->id_pages);
    base_buf_free(&lead->id_records);
    base_status_free(&lead->why);
    free(lead);
}

struct base_status txn__lead_gone(const struct txn__lead *lead)
{
    return base_status_make(BASE_UNAVAILABLE, "shard %u is led by this server no more: %s",
                            lead->shard, base_status_text(&lead->why));
}

void txn__lead_close(struct txn__lead *lead, struct base_status why)
{
    if (lead->closed) {
        base_status_free(&why);
        return;
    }
    lead->closed = true;
    lead->why = why;
    struct txn__op *op;
    struct txn__batch *batch;
    while ((op = TAILQ_FIRST(&lead->queue))) {
        TAILQ_REMOVE(&lead->queue, op, link);
        txn__op_finish(op, 0, txn__lead_gone(lead));
    }
    TAILQ_FOREACH(batch, &lead->flights, link)
    while ((op = TAILQ_FIRST(&batch->ops))) {
        TAILQ_REMOVE(&batch->ops, op, link);
        txn__op_finish(op, 0,
                       base_status_wrap(txn__lead_gone(lead), "the commit's outcome is unknown"));
    }
    ch_cond_broadcast(&lead->changed);
    ch_cond_broadcast(&lead->over);
    ch_cond_broadcast(&lead->apply_cond);
}

bool txn__lead_sure(const struct txn__lead *lead)
{
    return !lead->closed && ch_lock_held(lead->lock);
}

uint64_t txn__lead_now(struct txn__lead *lead)
{
    return txn__oracle_now(&lead->oracle, ch_wall_us(lead->env), ch_now(lead->env));
}

void txn__backoff(struct ch_env *env, int64_t *ms)
{
    ch_time pause = *ms * CH_MS / 2 + (ch_time)ch_random_below(env, (uint64_t)(*ms * CH_MS));
    *ms = *ms * 2 < TXN__RETRY_MS_MAX ? *ms * 2 : TXN__RETRY_MS_MAX;
    if (ch_sleep_until(env, ch_in(env, pause)) == CH_CANCELLED)
        ch_yield();
}

struct txn__batch *txn__batch_new(struct txn__lead *lead)
{
    struct txn__batch *batch = calloc(1, sizeof(*batch));
    BASE_ASSERT(batch);
    batch->lead = lead;
    batch->epoch = lead->epoch;
    base_arena_init(&batch->arena);
    TAILQ_INIT(&batch->ops);
    return batch;
}

void txn__batch_free(struct txn__batch *batch)
{
    BASE_ASSERT(TAILQ_EMPTY(&batch->ops));
    base_arena_free(&batch->arena);
    base_buf_free(&batch->body);
    free(batch);
}
