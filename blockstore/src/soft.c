/* soft.c: what the leading master has heard from blockservers. See soft.h. */
#include "soft.h"

#include <stdlib.h>

static void heard_free(struct blk__soft *soft, struct blk__heard *heard)
{
    struct blk__report *report, *next;
    HASH_ITER(hh, heard->reports, report, next)
    {
        HASH_DEL(heard->reports, report);
        free(report);
    }
    HASH_DEL(soft->servers, heard);
    free(heard->recheck);
    free(heard);
}

void blk__soft_free(struct blk__soft *soft)
{
    struct blk__heard *heard, *next;
    HASH_ITER(hh, soft->servers, heard, next)
    heard_free(soft, heard);
}

struct blk__heard *blk__soft_find(const struct blk__soft *soft, uint64_t server)
{
    struct blk__heard *heard;
    HASH_FIND(hh, soft->servers, &server, sizeof server, heard);
    return heard;
}

struct blk__report *blk__soft_report(const struct blk__heard *heard, uint64_t block)
{
    struct blk__report *report;
    HASH_FIND(hh, heard->reports, &block, sizeof block, report);
    return report;
}

static void take_report(struct blk__heard *heard, const BLK_PB(ReplicaReport) * in)
{
    struct blk__report *report = blk__soft_report(heard, in->block);
    if (!report) {
        report = calloc(1, sizeof *report);
        BASE_ASSERT(report);
        report->block = in->block;
        HASH_ADD(hh, heard->reports, block, sizeof report->block, report);
    }
    report->length = in->length;
    report->generation = in->generation;
    report->sealed = in->sealed;
    report->bad = in->bad;
    report->short_of = in->short_of;
    report->round = heard->round;
}

/* The end of a full report: what was not in it is not there. */
static void drop_unreported(struct blk__heard *heard)
{
    struct blk__report *report, *next;
    HASH_ITER(hh, heard->reports, report, next)
    {
        if (report->round != heard->round) {
            HASH_DEL(heard->reports, report);
            free(report);
        }
    }
    heard->full = true;
}

struct blk__heard *blk__soft_heartbeat(struct blk__soft *soft, ch_time now,
                                       const BLK_PB(HeartbeatRequest) * in)
{
    struct blk__heard *heard = blk__soft_find(soft, in->server);
    if (!heard) {
        heard = calloc(1, sizeof *heard);
        BASE_ASSERT(heard);
        heard->server = in->server;
        HASH_ADD(hh, soft->servers, server, sizeof heard->server, heard);
    }
    heard->at = now;
    heard->bytes_free = in->bytes_free;
    heard->bytes_total = in->bytes_total;
    heard->streams = in->streams;
    heard->disk_failed = in->disk_failed;
    for (size_t i = 0; i < in->n_gone; i++) {
        struct blk__report *report = blk__soft_report(heard, in->gone[i]);
        if (report) {
            /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): it is in the table */
            HASH_DEL(heard->reports, report);
            free(report);
        }
    }
    for (size_t i = 0; i < in->n_replicas; i++)
        take_report(heard, in->replicas[i]);
    if (!in->more) {
        if (in->full)
            drop_unreported(heard);
        heard->round++;
        heard->beats++;
    }
    return heard;
}

enum blk__health blk__soft_health(const struct blk__soft *soft, uint64_t server, ch_time now)
{
    const struct blk__heard *heard = blk__soft_find(soft, server);
    if (heard && heard->disk_failed)
        return BLK_DEAD;
    if (heard && now - heard->at < soft->dead_after)
        return BLK_LIVE;
    return heard || now - soft->since >= soft->dead_after ? BLK_DEAD : BLK_UNHEARD;
}

enum blk__standing blk__soft_standing(const struct blk__soft *soft, uint64_t server, uint64_t block,
                                      uint64_t length, uint64_t generation, ch_time now,
                                      bool *absent)
{
    *absent = false;
    enum blk__health health = blk__soft_health(soft, server, now);
    if (health == BLK_DEAD)
        return BLK_GONE;
    const struct blk__heard *heard = blk__soft_find(soft, server);
    if (health == BLK_UNHEARD || !heard->full)
        return BLK_WAIT;
    const struct blk__report *report = blk__soft_report(heard, block);
    *absent = !report;
    if (!report)
        return BLK_WAIT;
    if (report->bad || report->short_of == length || (report->sealed && report->length != length))
        return BLK_BROKEN;
    return report->sealed && report->generation == generation ? BLK_GOOD : BLK_WAIT;
}
