/* blockserver_scrub.c: reads every sealed block now and then, slowly, so that bytes which rot are
 * found while other replicas are good. A chunk that does not match marks the replica bad
 * (store_read.c); the master hears of it and has it replaced. */
#include <stdlib.h>

#include "blockserver_int.h"

enum { ROUND_MS_MIN = 1000 };

static void scrub_block(struct blk__blockserver *self, uint64_t block, uint8_t *bytes) CH_WAITS;
static void scrub_block(struct blk__blockserver *self, uint64_t block, uint8_t *bytes)
{
    struct blk__replica_info info;
    uint64_t at = 0;
    while (!ch_cancelled() && blk__store_info(self->store, block, &info) && info.sealed &&
           !info.bad && at < info.length) {
        size_t len = info.length - at < BLK_MESSAGE_BYTES ? info.length - at : BLK_MESSAGE_BYTES;
        base_status_drop(blk__store_read(self->store, block, at, len, bytes));
        at += len;
        ch_time pause = (ch_time)((double)len / (double)self->options.scrub_bytes_per_s * 1e9);
        if (ch_sleep_until(self->env, ch_in(self->env, pause)) == CH_CANCELLED)
            return;
    }
    if (blk__store_info(self->store, block, &info) && info.bad)
        blk__heartbeat_soon(self);
}

void blk__scrub_main(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk__blockserver *self = arg;
    uint8_t *bytes = malloc(BLK_MESSAGE_BYTES);
    BASE_ASSERT(bytes);
    while (ch_sleep_until(self->env, ch_in(self->env, ROUND_MS_MIN * CH_MS)) != CH_CANCELLED) {
        struct base_arena arena;
        uint64_t *ids;
        size_t count;
        base_arena_init(&arena);
        blk__store_ids(self->store, &arena, &ids, &count);
        for (size_t i = 0; i < count && !ch_cancelled(); i++)
            scrub_block(self, ids[i], bytes);
        base_arena_free(&arena);
    }
    free(bytes);
}
