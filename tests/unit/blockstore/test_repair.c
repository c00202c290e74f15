/* What a block needs is decided from what its servers said. It must never cost the last good
 * replicas, must not copy what is about to be found whole, and must end: applied again and again it
 * reaches `wanted` good replicas and nothing else. */
#include <stdlib.h>

#include "repair.h"
#include "soft.h"
#include "test.h"

static struct blk__repair_step decide(const char *standings, size_t wanted)
{
    struct blk__repair_view views[8];
    size_t n = strlen(standings);
    for (size_t i = 0; i < n; i++) {
        views[i].server = i + 1;
        views[i].standing = standings[i] == 'g'   ? BLK_GOOD
                            : standings[i] == 'w' ? BLK_WAIT
                            : standings[i] == 'b' ? BLK_BROKEN
                                                  : BLK_GONE;
    }
    return blk__repair_decide(views, n, wanted);
}

Test(repair, by_hand)
{
    cr_assert_eq(decide("ggg", 3).kind, BLK_REPAIR_NONE);
    cr_assert_eq(decide("gg", 3).kind, BLK_REPAIR_ADD);
    cr_assert_eq(decide("ggx", 3).kind, BLK_REPAIR_ADD, "a dead server's replica");
    cr_assert_eq(decide("ggb", 3).kind, BLK_REPAIR_ADD);
    cr_assert_eq(decide("ggw", 3).kind, BLK_REPAIR_NONE, "it may be whole: wait");
    cr_assert_eq(decide("gww", 3).kind, BLK_REPAIR_NONE);
    cr_assert_eq(decide("gwx", 3).kind, BLK_REPAIR_ADD);
    cr_assert_eq(decide("xxx", 3).kind, BLK_REPAIR_NONE, "nothing to copy from");
    cr_assert(decide("xxb", 3).lost && !decide("xxw", 3).lost);
    cr_assert_eq(decide("xbb", 3).kind, BLK_REPAIR_ADD, "pieced together from the broken ones");
    cr_assert_eq(decide("xbw", 3).kind, BLK_REPAIR_NONE);
    struct blk__repair_step step = decide("gxgg", 3);
    cr_assert(step.kind == BLK_REPAIR_REMOVE && step.remove == 2,
              "the useless one goes, not a good one");
    step = decide("ggggb", 3);
    cr_assert(step.kind == BLK_REPAIR_REMOVE && step.remove == 5);
    step = decide("gggg", 3);
    cr_assert(step.kind == BLK_REPAIR_REMOVE && step.remove == 4);
    cr_assert_eq(decide("gggw", 3).kind, BLK_REPAIR_NONE);
}

Test(repair, never_below_wanted_and_it_ends)
{
    for (int code = 0; code < 4 * 4 * 4 * 4 * 4; code++) {
        char standings[16] = "";
        size_t n = 0, good = 0;
        for (int i = 0, c = code; i < 5; i++, c /= 4)
            standings[n++] = "gwbx"[c % 4];
        standings[n] = 0;
        for (int steps = 0;; steps++) {
            struct blk__repair_step step = decide(standings, 3);
            good = 0;
            for (size_t i = 0; i < n; i++)
                good += standings[i] == 'g';
            cr_assert_eq(step.good, good);
            if (step.kind == BLK_REPAIR_NONE)
                break;
            cr_assert(steps < 20, "does not end");
            if (step.kind == BLK_REPAIR_ADD) {
                cr_assert(good < 3);
                standings[n++] = 'g';
            } else {
                size_t at = step.remove - 1;
                cr_assert(good - (standings[at] == 'g') >= 3, "%s: %zu", standings, at);
                memmove(standings + at, standings + at + 1, n - at);
                n--;
            }
            standings[n] = 0;
        }
    }
}

static BLK_PB(ReplicaReport) *
    report(struct base_arena *arena, uint64_t block, uint64_t length, bool sealed)
{
    BLK_PB(ReplicaReport) *r = BLK_NEW(arena, ReplicaReport, replica_report);
    r->block = block;
    r->length = length;
    r->sealed = sealed;
    return r;
}

/* A replica counts as good only on the word of a server that lives; silence of a new master is no
 * proof of death. */
Test(repair, copies_by_the_machines_there_are)
{
    /* One copy is for a cell that was begun with one machine, while there is no other; servers that
     * are away never make it fewer. */
    cr_assert_eq(blk__copies_wanted(3, false, false, 1, 1), 3u, "the others will come");
    cr_assert_eq(blk__copies_wanted(3, true, false, 0, 0), 3u, "nobody was heard of yet");
    cr_assert_eq(blk__copies_wanted(3, true, false, 1, 1), 1u);
    cr_assert_eq(blk__copies_wanted(3, true, false, 2, 1), 3u, "one is away");
    cr_assert_eq(blk__copies_wanted(3, true, true, 1, 1), 3u, "blocks have three");
    cr_assert_eq(blk__copies_wanted(1, true, true, 1, 1), 1u);
    cr_assert_eq(blk__copies_wanted(1, true, true, 2, 1), 1u, "a block could not be begun");
    cr_assert_eq(blk__copies_wanted(1, true, true, 2, 2), 3u);
    cr_assert_eq(blk__copies_wanted(1, true, false, 2, 2), 3u);
}

Test(soft, standing)
{
    struct blk__soft soft = { .dead_after = 10, .since = 100 };
    struct base_arena arena;
    bool absent;
    base_arena_init(&arena);
    cr_assert_eq(blk__soft_health(&soft, 7, 105), BLK_UNHEARD);
    cr_assert_eq(blk__soft_standing(&soft, 7, 1, 50, 0, 105, &absent), BLK_WAIT);
    cr_assert_eq(blk__soft_standing(&soft, 7, 1, 50, 0, 110, &absent), BLK_GONE);
    BLK_PB(HeartbeatRequest) *beat = BLK_NEW(&arena, HeartbeatRequest, heartbeat_request);
    BLK_PB(ReplicaReport) *
        reports[2] = { report(&arena, 1, 50, true), report(&arena, 2, 20, false) };
    beat->server = 7;
    beat->replicas = reports;
    beat->n_replicas = 2;
    blk__soft_heartbeat(&soft, 111, beat);
    cr_assert_eq(blk__soft_standing(&soft, 7, 1, 50, 0, 112, &absent), BLK_WAIT,
                 "not everything was told yet");
    beat->full = true;
    blk__soft_heartbeat(&soft, 112, beat);
    cr_assert_eq(blk__soft_standing(&soft, 7, 1, 50, 0, 113, &absent), BLK_GOOD);
    cr_assert_eq(blk__soft_standing(&soft, 7, 1, 50, 3, 113, &absent), BLK_WAIT,
                 "another generation");
    cr_assert_eq(blk__soft_standing(&soft, 7, 1, 51, 0, 113, &absent), BLK_BROKEN,
                 "sealed at another length");
    cr_assert_eq(blk__soft_standing(&soft, 7, 2, 50, 0, 113, &absent), BLK_WAIT,
                 "it will be told to seal");
    cr_assert(blk__soft_standing(&soft, 7, 3, 50, 0, 113, &absent) == BLK_WAIT && absent);
    cr_assert_eq(blk__soft_standing(&soft, 7, 1, 50, 0, 122, &absent), BLK_GONE);
    reports[1]->short_of = 50;
    reports[0]->bad = true;
    beat->full = false;
    blk__soft_heartbeat(&soft, 123, beat);
    cr_assert_eq(blk__soft_standing(&soft, 7, 2, 50, 0, 124, &absent), BLK_BROKEN, "short");
    cr_assert_eq(blk__soft_standing(&soft, 7, 1, 50, 0, 124, &absent), BLK_BROKEN, "bad");
    beat->full = true;
    beat->n_replicas = 1;
    blk__soft_heartbeat(&soft, 125, beat);
    cr_assert(!blk__soft_report(blk__soft_find(&soft, 7), 2),
              "what a full report does not name is not there");
    beat->disk_failed = true;
    blk__soft_heartbeat(&soft, 126, beat);
    cr_assert_eq(blk__soft_health(&soft, 7, 126), BLK_DEAD, "it speaks, but its disk is gone");
    blk__soft_free(&soft);
    base_arena_free(&arena);
}
