/* tablet_write.c: from a checked edit to the log and, once durable, into the memtable: see
 * tablet.h invariants 1 and 2.
 *
 * Happy path: tab_tablet_enter -> (row lock) -> tab_tablet_queue (gives numbers, hands to the
 * log) -> the log calls on_applied in order -> memtable, lock released, tablet left, waiter
 * told. When the log ends, the same without the memtable. */
#include <stdlib.h>

#include "log_format.h"
#include "tablet.h"

enum { SLOW_MS_MAX = 50 };

struct write {
    struct tab_op op;
    struct tab_tablet *tablet;
    struct tab_rowlock *lock;
    bool alone;
    struct tab_wait *wait;
    uint64_t seq;
    uint32_t count;
};

/* ---- waiting ---- */

struct tab_wait *tab_wait_new(void)
{
    struct tab_wait *wait = calloc(1, sizeof(*wait));
    BASE_ASSERT(wait != NULL);
    wait->refs = 1;
    ch_cond_init(&wait->changed);
    return wait;
}

void tab_wait_unref(struct tab_wait *wait)
{
    if (--wait->refs > 0)
        return;
    base_status_free(&wait->status);
    free(wait);
}

struct base_status tab_wait_all(struct tab_wait *wait, ch_time deadline)
{
    while (wait->pending > 0) {
        enum ch_outcome outcome = ch_cond_wait(&wait->changed, deadline);
        if (wait->pending > 0 && outcome != CH_OK)
            return ch_outcome_status(outcome,
                                     "waiting for the commit log (the outcome is unknown)");
    }
    return base_status_copy(&wait->status);
}

/* ---- into the memtable ---- */

static void add_range(struct tab_tablet *tablet, uint64_t seq, struct base_bytes body)
{
    struct tab_range_delete list[TAB_RANGES_MAX];
    struct base_bytes start, end;
    if (!base_take_lenbytes(&body, &start) || !base_take_lenbytes(&body, &end))
        return;
    const struct tab_ranges *old = tablet->view->ranges;
    size_t count = 0;
    for (size_t i = 0; i < old->count && count < TAB_RANGES_MAX - 1; i++) {
        const struct tab_range_delete *range = &old->list[i];
        bool covered = base_bytes_cmp(range->start, start) >= 0 &&
                       (end.len == 0 || (range->end.len && base_bytes_cmp(range->end, end) <= 0));
        /* A covered older one says nothing more. Readers at an older snapshot hold their own
         * view. */
        if (range->seq != seq && !(covered && range->seq < seq))
            list[count++] = *range;
    }
    list[count++] = (struct tab_range_delete){ start, end, seq };
    struct tab_view *view = tab__view_copy(tablet->view);
    tab__ranges_unref(view->ranges);
    view->ranges = tab__ranges_new(list, count);
    tab__view_install(tablet, view);
    if (count > TAB_RANGES_MAX / 4)
        tablet->want_major = true;
}

void tab__replay(struct tab_tablet *tablet, uint64_t seq, uint8_t kind, struct base_bytes body,
                 uint64_t segment)
{
    struct tab_memtable *memtable = tablet->view->memtables[0];
    uint64_t last = seq;
    if (kind == TAB_RECORD_RANGE) {
        add_range(tablet, seq, body);
        memtable = tablet->view->memtables[0];
    } else {
        struct base_bytes key, value;
        while (tab_edit_next(&body, &key, &value)) {
            tab_memtable_put(memtable, key, value);
            last = tab_key_seq(key) > last ? tab_key_seq(key) : last;
        }
    }
    tab_memtable_note(memtable, last, segment);
    if (last > tablet->applied_seq)
        tablet->applied_seq = last;
    if (tablet->next_seq <= last)
        tablet->next_seq = last + 1;
}

static void note_growth(struct tab_tablet *tablet)
{
    struct tab_store *store = tablet->store;
    uint64_t bytes = tab_tablet_memory_bytes(tablet);
    store->memory_bytes += bytes - tablet->counted_bytes;
    tablet->counted_bytes = bytes;
    if (tab_memtable_bytes(tablet->view->memtables[0]) >= store->memtable_bytes)
        tab_tablet_freeze(tablet);
}

static void on_applied(struct tab_op *op, uint64_t segment, const struct base_status *status)
{
    struct write *write = (struct write *)op;
    struct tab_tablet *tablet = write->tablet;
    if (!base_failed(*status)) {
        struct base_bytes record = base_buf_bytes(&op->record), one;
        struct tab_record parsed;
        BASE_ASSERT(base_take_lenbytes(&record, &one) && tab_record_parse(one, &parsed));
        tab__replay(tablet, parsed.seq, parsed.kind, parsed.body, segment);
        tablet->writes++;
        note_growth(tablet);
    } else if (!base_failed(write->wait->status)) {
        write->wait->status = base_status_copy(status);
    }
    if (write->lock)
        tab_rowlock_release(&tablet->store->rowlocks, write->lock, write->alone);
    tab_tablet_leave(tablet);
    if (--write->wait->pending == 0)
        ch_cond_broadcast(&write->wait->changed);
    tab_wait_unref(write->wait);
    base_buf_free(&op->record);
    tab_tablet_unref(tablet);
    free(write);
}

/* ---- entering ---- */

static struct base_status back_pressure(struct tab_tablet *tablet, ch_time deadline) CH_WAITS;
static struct base_status back_pressure(struct tab_tablet *tablet, ch_time deadline)
{
    struct tab_store *store = tablet->store;
    uint64_t soft = store->memory_bytes_max / 2;
    bool full = tablet->view->memtable_count == TAB_MEMTABLES_MAX &&
                tab_memtable_bytes(tablet->view->memtables[0]) >= store->memtable_bytes * 2;
    if (store->memory_bytes >= store->memory_bytes_max || full)
        return base_status_make(
            BASE_RESOURCE_EXHAUSTED,
            "memtables hold %llu bytes and are not flushed fast enough; try later",
            (unsigned long long)store->memory_bytes);
    if (store->memory_bytes <= soft)
        return BASE_STATUS_OK;
    uint64_t over = store->memory_bytes - soft;
    ch_time until =
        ch_in(store->env, (ch_time)(over * SLOW_MS_MAX * CH_MS / (store->memory_bytes_max - soft)));
    ch_count(store->slowed, 1);
    ch_sleep_until(store->env, until < deadline ? until : deadline);
    return BASE_STATUS_OK;
}

struct base_status tab_tablet_enter(struct tab_tablet *tablet, ch_time deadline)
{
    struct base_status status = back_pressure(tablet, deadline);
    if (base_failed(status))
        return status;
    while (tablet->paused && tablet->state == TAB_SERVING) {
        enum ch_outcome outcome = ch_cond_wait(&tablet->changed, deadline);
        if (outcome != CH_OK)
            return ch_outcome_status(outcome, "waiting for a tablet that splits or moves");
    }
    if (tablet->state != TAB_SERVING)
        return base_status_make(BASE_OUT_OF_RANGE, "tablet %llx is not served here any more",
                                (unsigned long long)tablet->id);
    if (!tab_store_alive(tablet->store))
        return base_status_make(BASE_UNAVAILABLE, "this server has lost its lock");
    tablet->inside++;
    return BASE_STATUS_OK;
}

void tab_tablet_leave(struct tab_tablet *tablet)
{
    BASE_ASSERT(tablet->inside > 0);
    if (--tablet->inside == 0 && tablet->paused)
        ch_cond_broadcast(&tablet->changed);
}

struct base_status tab_tablet_pause(struct tab_tablet *tablet, ch_time deadline)
{
    while (tablet->paused)
        if (ch_cond_wait(&tablet->changed, deadline) != CH_OK)
            return base_status_make(BASE_UNAVAILABLE, "tablet %llx is paused already",
                                    (unsigned long long)tablet->id);
    tablet->paused = true;
    while (tablet->inside > 0) {
        enum ch_outcome outcome = ch_cond_wait(&tablet->changed, deadline);
        if (outcome != CH_OK && tablet->inside > 0) {
            tab_tablet_resume(tablet);
            return ch_outcome_status(outcome, "waiting for a tablet's writers");
        }
    }
    return BASE_STATUS_OK;
}

void tab_tablet_resume(struct tab_tablet *tablet)
{
    tablet->paused = false;
    ch_cond_broadcast(&tablet->changed);
}

/* ---- queueing ---- */

static struct base_status queue_record(struct tab_tablet *tablet, struct tab_rowlock *lock,
                                       bool alone, uint8_t kind, struct base_bytes body,
                                       uint32_t count, struct tab_wait *wait)
{
    struct write *write = calloc(1, sizeof(*write));
    BASE_ASSERT(write != NULL);
    *write = (struct write){ .tablet = tab_tablet_ref(tablet),
                             .lock = lock,
                             .alone = alone,
                             .wait = wait,
                             .seq = tablet->next_seq,
                             .count = count };
    write->op.apply = on_applied;
    base_buf_reserve(&write->op.record, body.len + 32);
    tab_record_put(&write->op.record, tablet->id, write->seq, kind, body);
    wait->refs++;
    wait->pending++;
    tablet->next_seq += count;
    struct base_status status = tab_log_queue(tablet->store->log, &write->op);
    if (!base_failed(status))
        return status;
    tablet->next_seq -= count;
    wait->pending--;
    tab_wait_unref(wait);
    if (lock)
        tab_rowlock_release(&tablet->store->rowlocks, lock, alone);
    tab_tablet_leave(tablet);
    base_buf_free(&write->op.record);
    tab_tablet_unref(tablet);
    free(write);
    return status;
}

struct base_status tab_tablet_queue(struct tab_tablet *tablet, struct tab_rowlock *lock, bool alone,
                                    struct tab_edit *edit, struct tab_wait *wait)
{
    tab_edit_number(edit, tablet->next_seq);
    struct base_status status = queue_record(tablet, lock, alone, TAB_RECORD_ENTRIES,
                                             base_buf_bytes(&edit->bytes), edit->count, wait);
    tab_edit_free(edit);
    return status;
}

struct base_status tab_tablet_drop_range(struct tab_tablet *tablet, struct base_bytes start,
                                         struct base_bytes end, ch_time deadline)
{
    /* Nobody may be between reading a row and writing it. */
    struct base_status status = tab_tablet_pause(tablet, deadline);
    if (base_failed(status))
        return status;
    if (tablet->state != TAB_SERVING) {
        tab_tablet_resume(tablet);
        return base_status_make(BASE_OUT_OF_RANGE, "tablet %llx is not served here any more",
                                (unsigned long long)tablet->id);
    }
    if (tablet->view->ranges->count >= TAB_RANGES_MAX - 1) {
        tablet->want_major = true;
        ch_cond_broadcast(&tablet->store->work);
        tab_tablet_resume(tablet);
        return base_status_make(BASE_RESOURCE_EXHAUSTED,
                                "tablet %llx holds %d deleted ranges that are not compacted yet",
                                (unsigned long long)tablet->id, TAB_RANGES_MAX - 1);
    }
    tablet->inside++;
    struct base_buf body = { 0 };
    base_buf_put_lenbytes(&body, start);
    base_buf_put_lenbytes(&body, end);
    struct tab_wait *wait = tab_wait_new();
    status = queue_record(tablet, NULL, false, TAB_RECORD_RANGE, base_buf_bytes(&body), 1, wait);
    base_buf_free(&body);
    if (!base_failed(status))
        status = tab_wait_all(wait, deadline);
    tab_wait_unref(wait);
    tab_tablet_resume(
        tablet); /* only now: who reads a row and then writes it must see what was deleted */
    return status;
}
