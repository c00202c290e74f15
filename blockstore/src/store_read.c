/* store_read.c: reading verified bytes of a replica.
 *
 * Invariants:
 * 1. No byte of a file is handed out before its whole chunk matched its checksum.
 * 2. A read sees one consistent state: what it needs of memory (extents, checksums) is copied
 * before it waits for the file; bytes below `written` never change but by a cut, which the read
 * notices. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/codec.h"
#include "store_int.h"

void blk__replica_bad(struct blk__store *store, struct blk__replica *r, uint64_t offset,
                      const char *what)
{
    ch_count(store->bad_chunks, 1);
    if (!r->bad)
        ch_error(store->env,
                 "%s: block %" PRIu64 " at %" PRIu64 ": bytes do not match their checksum (%s)",
                 store->dir, r->block, offset, what);
    r->bad = true;
    blk__replica_report(store, r);
}

/* Loads the checksums of a finished block's file. */
struct base_status blk__replica_sums(struct blk__store *store, struct blk__replica *r)
{
    if (!r->finished || r->sums_loaded)
        return BASE_STATUS_OK;
    struct ch_file *file;
    struct base_status status = blk__replica_file(store, r, false, &file);
    if (base_failed(status))
        return status;
    size_t len = 4 * blk__sums_count(r->length), got = 0;
    uint8_t *bytes = malloc(len + BLK_TRAILER);
    BASE_ASSERT(bytes);
    struct blk__trailer trailer;
    struct blk__sums sums = { 0 };
    status = ch_file_read(file, r->length, bytes, len + BLK_TRAILER, &got);
    blk__replica_file_release(store, r);
    if (!base_failed(status) && !r->sums_loaded) {
        if (got == len + BLK_TRAILER && blk__trailer_take(bytes + len, &trailer) &&
            trailer.length == r->length &&
            blk__footer_sums(&trailer, base_bytes(bytes, len), &sums)) {
            r->sums = sums;
            r->written = r->length;
            r->sums_loaded = true;
        } else {
            blk__replica_bad(store, r, r->length, "its checksums");
            status = base_status_make(
                BASE_DATA_LOSS, "block %" PRIu64 ": its checksums are damaged here", r->block);
        }
    }
    free(bytes);
    return status;
}

struct span { /* one read of a file: whole chunks */
    uint64_t begin, end;
    size_t chunks;
    uint32_t *crcs; /* owned */
};

static void span_init(struct span *span, const struct blk__replica *r, uint64_t offset,
                      uint64_t end)
{
    span->begin = offset / BLK_CHUNK_BYTES * BLK_CHUNK_BYTES;
    span->end = (end + BLK_CHUNK_BYTES - 1) / BLK_CHUNK_BYTES * BLK_CHUNK_BYTES;
    if (span->end > r->written)
        span->end = r->written;
    span->chunks = blk__sums_count(span->end - span->begin);
    span->crcs = malloc(span->chunks * sizeof *span->crcs);
    BASE_ASSERT(span->crcs);
    memcpy(span->crcs, r->sums.crc + span->begin / BLK_CHUNK_BYTES,
           span->chunks * sizeof *span->crcs);
}

/* The first chunk that does not match; span->chunks when all do. */
static size_t span_verify(const struct span *span, const uint8_t *bytes, size_t got)
{
    for (size_t i = 0; i < span->chunks; i++) {
        size_t at = i * BLK_CHUNK_BYTES, want = span->end - span->begin - at;
        if (want > BLK_CHUNK_BYTES)
            want = BLK_CHUNK_BYTES;
        if (at + want > got || base_crc32c(0, bytes + at, want) != span->crcs[i])
            return i;
    }
    return span->chunks;
}

/* The part below `written`, into `out`. *again: a cut came between, read anew. */
static struct base_status read_file(struct blk__store *store, struct blk__replica *r,
                                    uint64_t offset, size_t len, uint8_t *out,
                                    bool *again) CH_WAITS BASE_MUST_CHECK;
static struct base_status read_file(struct blk__store *store, struct blk__replica *r,
                                    uint64_t offset, size_t len, uint8_t *out, bool *again)
{
    struct span span;
    struct ch_file *file;
    uint32_t cuts = r->cuts;
    span_init(&span, r, offset, offset + len);
    uint8_t *bytes = malloc(span.end - span.begin);
    BASE_ASSERT(bytes);
    size_t got = 0;
    struct base_status status = blk__replica_file(store, r, false, &file);
    if (!base_failed(status)) {
        status = ch_file_read(file, span.begin, bytes, span.end - span.begin, &got);
        blk__replica_file_release(store, r);
    }
    if (!base_failed(status)) {
        size_t bad = span_verify(&span, bytes, got);
        *again = bad < span.chunks && cuts != r->cuts;
        if (bad == span.chunks) {
            memcpy(out, bytes + (offset - span.begin), len);
        } else if (!*again) {
            blk__replica_bad(store, r, span.begin + bad * BLK_CHUNK_BYTES, "read");
            status = base_status_make(BASE_DATA_LOSS,
                                      "block %" PRIu64 ": the chunk at %" PRIu64 " is damaged here",
                                      r->block, span.begin + bad * BLK_CHUNK_BYTES);
        }
    } else if (status.code == BASE_INTERNAL) { /* EIO: the medium */
        blk__replica_bad(store, r, span.begin, base_status_text(&status));
        base_status_free(&status);
        status =
            base_status_make(BASE_DATA_LOSS, "block %" PRIu64 " cannot be read here", r->block);
    }
    free(bytes);
    free(span.crcs);
    return status;
}

/* The part that is only in memory yet: [from, end). */
static void copy_extents(const struct blk__replica *r, uint64_t from, uint64_t end, uint8_t *out)
{
    struct blk__extent *extent;
    STAILQ_FOREACH(extent, &r->extents, link)
    {
        uint64_t begin = extent->offset > from ? extent->offset : from;
        uint64_t stop = extent->offset + extent->len < end ? extent->offset + extent->len : end;
        if (begin < stop)
            memcpy(out + (begin - from), extent->data + (begin - extent->offset), stop - begin);
    }
}

struct base_status blk__store_read(struct blk__store *store, uint64_t block, uint64_t offset,
                                   size_t len, uint8_t *to)
{
    struct blk__replica *r = blk__replica_find(store, block);
    if (blk__store_failed(store))
        return base_status_make(BASE_UNAVAILABLE, "the disk of %s has failed", store->dir);
    if (!r || r->tomb)
        return base_status_make(BASE_NOT_FOUND, "block %" PRIu64 " is not here", block);
    r->refs++;
    struct base_status status = blk__replica_sums(store, r);
    if (!base_failed(status) && (offset > r->length || len > r->length - offset))
        status = base_status_make(BASE_OUT_OF_RANGE,
                                  "block %" PRIu64 ": [%" PRIu64 ", +%zu) goes beyond %" PRIu64,
                                  block, offset, len, r->length);
    if (!base_failed(status) && len > 0) {
        bool again = true;
        for (int tries = 0; again && tries < 3 && !base_failed(status); tries++) {
            again = false;
            uint64_t in_file = r->written > offset ? r->written - offset : 0;
            size_t n = in_file < len ? in_file : len;
            if (n < len)
                copy_extents(r, offset + n, offset + len, to + n);
            if (n > 0)
                status = read_file(store, r, offset, n, to, &again);
        }
        if (!base_failed(status) && again)
            status = base_status_make(BASE_UNAVAILABLE, "block %" PRIu64 " is being sealed", block);
        if (!base_failed(status))
            ch_count(store->read_bytes, len);
    }
    blk__replica_unref(r);
    return status;
}
