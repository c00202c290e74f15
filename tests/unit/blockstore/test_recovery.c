/* Where a file ends whose writer is gone, and what a reader may show meanwhile: both are decided
 * from the lengths of a few replicas, by pure functions, and both must hold for every way a writer
 * and its servers can have stopped. So a model writer is run through all of them, at random, and
 * the decisions are compared with what it had acknowledged. */
#include "durable.h"
#include "recovery.h"
#include "test.h"

static uint64_t rng;
static uint64_t below(uint64_t n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng % n;
}

Test(recovery, by_hand)
{
    struct blk__tail_block one[1] = { { true, 100, 50, 0 } };
    cr_assert(blk__recovery_plan(one, 1));
    cr_assert_eq(one[0].length, 50);
    /* The second block was begun at 130 and has not got as far as the first: the first alone, all
     * of it. */
    struct blk__tail_block two[2] = { { true, 100, 50, 0 }, { true, 130, 10, 0 } };
    cr_assert(blk__recovery_plan(two, 2));
    cr_assert(two[0].length == 50 && two[1].length == 0);
    /* It has: the first is cut where the second begins. */
    two[1].most = 30;
    cr_assert(blk__recovery_plan(two, 2));
    cr_assert(two[0].length == 30 && two[1].length == 30);
    /* An unused spare, and a block that was given up without an acknowledged byte. */
    struct blk__tail_block four[4] = {
        { true, 0, 10, 0 }, { true, 8, 1, 0 }, { true, 8, 9, 0 }, { false, 0, 0, 0 }
    };
    cr_assert(blk__recovery_plan(four, 4));
    cr_assert(four[0].length == 8 && four[1].length == 0 && four[2].length == 9 &&
              four[3].length == 0);
    struct blk__tail_block gap[2] = { { true, 0, 10, 0 }, { true, 12, 5, 0 } };
    cr_assert(!blk__recovery_plan(gap, 2), "blocks that do not join must not be sealed");
    cr_assert(blk__recovery_plan(0, 0));
}

Test(durable, by_hand)
{
    uint64_t all[3] = { 100, 120, 110 }, two[2] = { 100, 80 }, same[2] = { 90, 90 },
             one[1] = { 50 };
    struct blk__durable d = blk__durable_length(all, 3, 3, 2, 0);
    cr_assert(d.low == 110 && d.high == 110, "all answered: exactly known");
    d = blk__durable_length(two, 2, 3, 2, 0);
    cr_assert(d.low == 80 && d.high == 100, "the third may have 100 too");
    d = blk__durable_length(two, 2, 3, 2, 100);
    cr_assert(d.low == 100 && d.high == 100, "the writer said so");
    d = blk__durable_length(same, 2, 3, 2, 0);
    cr_assert(d.low == 90 && d.high == 90);
    d = blk__durable_length(one, 1, 3, 2, 0);
    cr_assert(d.low == 0 && d.high == UINT64_MAX, "one of three says nothing");
    d = blk__durable_length(one, 1, 2, 2, 0);
    cr_assert(d.low == 0 && d.high == 50, "of two that both must have it, one bounds it");
}

/* ---- a writer at random ---- */

enum { BLOCKS = 5, REPLICAS = 3, QUORUM = 2 };
struct model {
    uint64_t start[BLOCKS], length[BLOCKS][REPLICAS];
    int count;
    uint64_t appended, acked;
};

static uint64_t quorum_length(const struct model *m, int b)
{
    uint64_t most = 0;
    for (int i = 0; i < REPLICAS; i++)
        for (int k = 0; k < i; k++) {
            uint64_t both = m->length[b][i] < m->length[b][k] ? m->length[b][i] : m->length[b][k];
            most = both > most ? both : most;
        }
    return most;
}

/* The rules of writer.c: a block begins at what is acknowledged; each replica gets the file's bytes
 * in order. */
static void model_run(struct model *m, int steps)
{
    *m = (struct model){ .count = 1 };
    while (steps-- > 0) {
        int b = m->count - 1;
        uint64_t acked = m->start[b] + quorum_length(m, b);
        if (acked > m->acked && below(3)) /* the answers may come late, or never */
            m->acked = acked;
        switch (below(8)) {
        case 0:
            if (m->count < BLOCKS) {
                m->start[m->count++] = m->acked;
                break;
            } /* fall through */
        case 1:
        case 2:
            m->appended += 1 + below(20);
            break;
        default: {
            uint64_t r = below(REPLICAS), left = m->appended - m->start[b] - m->length[b][r];
            if (left)
                m->length[b][r] += 1 + below(left);
        }
        }
    }
}

static void check_recovery(const struct model *m, uint64_t shown)
{
    struct blk__tail_block blocks[BLOCKS];
    for (int b = 0; b < m->count; b++) {
        uint64_t missing = below(REPLICAS + 1); /* which one does not answer; REPLICAS: all do */
        blocks[b] = (struct blk__tail_block){ .has_start = b == 0 };
        for (uint64_t r = 0; r < REPLICAS; r++) {
            if (r == missing || m->length[b][r] == 0)
                continue;
            blocks[b].has_start = true;
            blocks[b].start = m->start[b];
            blocks[b].most = m->length[b][r] > blocks[b].most ? m->length[b][r] : blocks[b].most;
        }
    }
    cr_assert(blk__recovery_plan(blocks, (size_t)m->count));
    uint64_t end = 0;
    for (int b = 0; b < m->count; b++) {
        cr_assert(blocks[b].length == 0 || blocks[b].start == end, "a hole before block %d", b);
        cr_assert(blocks[b].length <= blocks[b].most);
        end += blocks[b].length;
    }
    cr_assert(end >= m->acked && end <= m->appended, "ends at %d, acknowledged %d", (int)end,
              (int)m->acked);
    cr_assert(end >= shown, "ends at %d, a reader was shown %d", (int)end, (int)shown);
}

/* What a reader that hears all but maybe one replica of each block may show. */
static uint64_t check_reader(const struct model *m)
{
    uint64_t low = 0, high = 0;
    for (int b = 0; b < m->count; b++) {
        uint64_t missing = below(REPLICAS + 1), lengths[REPLICAS];
        size_t n = 0;
        bool started = b == 0;
        for (uint64_t r = 0; r < REPLICAS; r++)
            if (r != missing) {
                lengths[n++] = m->length[b][r];
                started = started || m->length[b][r] > 0;
            }
        struct blk__durable d = blk__durable_length(lengths, n, REPLICAS, QUORUM, 0);
        if (d.high == 0 && !started)
            continue;
        if (started) {
            low = m->start[b] > low ? m->start[b] : low;
            low = m->start[b] + d.low > low ? m->start[b] + d.low : low;
        }
        high = d.high == UINT64_MAX          ? UINT64_MAX
               : m->start[b] + d.high > high ? m->start[b] + d.high
                                             : high;
    }
    cr_assert(high >= m->acked, "an acknowledged byte at %d is ruled out from %d", (int)m->acked,
              (int)high);
    return low;
}

Test(recovery, every_acknowledged_byte_and_every_shown_one)
{
    rng = 88172645463325252ULL;
    uint64_t used = 0;
    for (int round = 0; round < 20000; round++) {
        struct model m;
        model_run(&m, 5 + (int)below(60));
        uint64_t shown = check_reader(&m);
        check_recovery(&m, shown);
        used += m.acked > 0 && m.count > 1;
    }
    cr_assert(used > 5000, "the model has to get somewhere: %d", (int)used);
}
