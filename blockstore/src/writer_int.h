/* writer_int.h: a file's writer, inside. All offsets are of the file unless said.
 *
 *   blocks, in the order they were given out:  ended …  current  spare
 *   bytes:  window_start <= acked <= appended;  window holds [window_start, appended). */
#ifndef BLK_WRITER_INT_H
#define BLK_WRITER_INT_H

#include <bsd/sys/queue.h>

#include "client_int.h"

enum {
    BLK_WINDOW_BYTES_MAX = 24 << 20, /* appended and not yet let go */
    BLK_PIPELINE =
        4, /* messages a replica has not answered; more appends wait and share the next */
    BLK_STALL_MS_MIN = 50, /* no acknowledgement for so long: on to another block */
    BLK_STALL_MS_MAX = 2000,
    BLK_SLOW_MS = 300, /* a replica that stays behind the others for so long is given up */
    BLK_LAG_BYTES_MAX = 8 << 20, /* the same, in bytes */
    BLK_SUSPECT_MS = 5000,       /* servers that gave trouble are avoided for so long */
    BLK_SPARE_BYTES = 256 << 10, /* a file that has grown so much gets a spare block */
    BLK_LINGER_MS = 1000,        /* an ended block's slower replicas may still catch up */
    BLK_SUSPECTS_MAX = 16,
    BLK_READY_MS =
        250, /* a server that has not answered a new block's stream by then is passed over */
    BLK_UNREPORTED_MAX = 10, /* used blocks whose bytes are not all acknowledged: no more switches
                                for mere slowness */
};

struct blk__wblock;
struct blk__wreplica {
    struct blk__wblock *block;
    uint64_t server;
    struct base_bytes address;
    struct ch_client_stream *stream;
    uint64_t sent, acked;
    uint64_t told; /* of the acknowledged length */
    uint32_t unanswered;
    uint64_t message_ends[BLK_PIPELINE]; /* ring of the ends of unanswered messages */
    uint32_t ring_head;
    bool failed, ready;   /* ready: its server has answered */
    ch_time behind_since; /* it has not reached `behind_mark` since then; 0: it is not behind */
    uint64_t behind_mark;
};

struct blk__wblock {
    struct blk_writer *writer;
    uint64_t id, epoch, start;
    uint64_t acked, sent_max; /* by a quorum; by any */
    uint64_t stop;            /* senders do not go beyond; UINT64_MAX: no limit yet */
    uint64_t end;             /* when ended */
    size_t quorum, count;
    struct blk__wreplica replicas[BLK_REPLICAS_MAX];
    bool current, ended, used, reported;
    bool draining;
    ch_time made_at, drain_since, progress_at, linger_until;
    struct base_arena arena;
    struct ch_gate gate;
    TAILQ_ENTRY(blk__wblock) link;
};
TAILQ_HEAD(blk__wblocks, blk__wblock);

struct blk__waiter {
    uint64_t end;
    ch_time deadline;
    struct ch_done done;
    STAILQ_ENTRY(blk__waiter) link;
};

struct blk_writer {
    struct blk_client *client;
    struct ch_env *env;
    char *path;
    uint64_t file, epoch, block_bytes;
    uint32_t replicas, allocated;
    uint64_t appended, acked, window_start;
    struct base_buf window;
    size_t window_skip; /* bytes at the front of the buffer that are let go */
    STAILQ_HEAD(, blk__waiter) waiters;
    struct ch_mutex entry;              /* appends enter in order */
    struct ch_cond room, data, changed; /* for appenders; for senders; for the manager */
    struct blk__wblocks blocks;
    struct blk__wblock *current, *spare;
    struct base_status broken; /* failed: nothing can be appended any more */
    struct {
        uint64_t server;
        ch_time until;
        bool failed; /* worse than slow */
    } suspects[BLK_SUSPECTS_MAX];
    bool fetching, closing, spare_stale;
    bool fetch_unknown;  /* a block was asked for and not given, as far as is known here */
    ch_time fetch_after; /* not before */
    ch_time fetch_backoff, spare_backoff;
    ch_time ack_ns;  /* smoothed time of an append */
    ch_time stall;   /* patience after stalls without progress; 0: none lately */
    ch_time wake_at; /* when the manager looks again */
    struct ch_gate gate;
};

/* writer_block.c */
struct blk__wblock *blk__wblock_new(struct blk_writer *writer, const BLK_PB(Block) * block);
void blk__wblock_free(struct blk__wblock *block) CH_WAITS; /* stops its fibers */
void blk__wblock_begin(struct blk__wblock *block,
                       uint64_t start); /* it is the current one from now on */
void blk__wreplica_fail(struct blk__wreplica *replica);
size_t blk__wblock_live(const struct blk__wblock *block);
size_t blk__wblock_ready(
    const struct blk__wblock *block); /* live, and their servers have answered */

/* writer_run.c */
void blk__writer_main(void *writer); /* the manager's fiber */
/* Reports ended blocks (those that may be) and, when `want`, gets another one. */
struct base_status blk__writer_extend(struct blk_writer *writer, bool want, bool seal_file,
                                      ch_time deadline,
                                      struct blk__wblock **block) CH_WAITS BASE_MUST_CHECK;
void blk__wblock_end(struct blk__wblock *block, uint64_t end);

/* writer.c */
void blk__writer_acked(struct blk_writer *writer); /* some replica of the current block answered */
void blk__writer_break(struct blk_writer *writer, struct base_status why);
void blk__writer_trim(struct blk_writer *writer);
void blk__writer_suspect(struct blk_writer *writer, uint64_t server, bool failed);

#endif
