/* log.h: a tabletserver's one commit log (Bigtable 5.3, 6), shared by its tablets.
 *
 * Invariants: 1. Operations are applied, and their waiters told, in the order they were queued,
 * by the log itself, once every batch up to theirs is durable. 2. An operation that was queued
 * is never given up by the log while its server's lock is held: a failed append is repeated,
 * with the same numbers, so "outcome unknown" exists only for a server that died. 3. A batch in
 * segment n+1 is acknowledged only after segment n ends with a "moved" frame: whoever seals the
 * last segment there is, and finds no such frame, has the end of the log. */
#ifndef TAB_LOG_H
#define TAB_LOG_H

#include "blockstore/blockstore.h"
#include "chassis/metrics.h"

/* A write on its way: on the heap, owned by the log from tab_log_queue until `apply` is called
 * (once; then by whoever). */
struct tab_op {
    struct tab_op *next;
    struct base_buf record; /* as tab_record_put writes it, its length before it */
    /* Called in order: durable (OK) or the log has ended (failed, the status is lent). May not
     * wait. */
    void (*apply)(struct tab_op *op, uint64_t segment, const struct base_status *status);
};

struct tab_log;
struct tab_log_options {
    const char *directory; /* "/tablet/log/NAME@EPOCH" */
    uint64_t fence;
    uint64_t segment_bytes;
    size_t pipeline;           /* appends in flight; 0: 3 */
    size_t queue_bytes_max;    /* 0: 64 MiB */
    bool (*alive)(void *self); /* false: the lock is lost, give up */
    void (*ended)(void *self,
                  struct base_status why); /* called once, given; not from inside queue */
    void *self;
};
/* Makes the first segment. */
struct base_status tab_log_open(struct ch_env *env, struct blk_client *blk,
                                const struct tab_log_options *options, ch_time deadline,
                                struct tab_log **log) CH_WAITS BASE_MUST_CHECK;
/* Ends it: queued operations are carried through when the log is alive. With `remove` (all is
 * flushed) segments are deleted. */
void tab_log_close(struct tab_log *log, bool remove) CH_WAITS;
/* Does not wait. RESOURCE_EXHAUSTED (queue full), UNAVAILABLE (ended): the operation stays the
 * caller's. */
struct base_status tab_log_queue(struct tab_log *log, struct tab_op *op) BASE_MUST_CHECK;
uint64_t tab_log_segment(const struct tab_log *log); /* being written */
/* Deletes segments before `segment`, which no memtable needs any more. */
void tab_log_trim(struct tab_log *log, uint64_t segment) CH_WAITS;
size_t tab_log_queued_bytes(const struct tab_log *log);
void tab_log_path(char *out, size_t size, const char *directory, uint64_t segment);

#endif
