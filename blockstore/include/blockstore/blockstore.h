/* blockstore/blockstore.h: append-only files in replicated blocks (Colossus; Azure streams,
 * SOSP'11; GFS, SOSP'03).
 *
 * One writer, many readers. Opening for append takes a new epoch of the file: whoever had it open
 * before can never change a byte again. An acknowledged append is on stable storage on its quorum
 * and readable at once by anyone. Paths are
 * "/a/b"; each name is 1..255 bytes of [-_.=+:,@%a-zA-Z0-9]. All calls wait; deadlines are
 * absolute. The client finds the blockmaster and the blockservers through naming. Errors name the
 * path. */
#ifndef BLOCKSTORE_BLOCKSTORE_H
#define BLOCKSTORE_BLOCKSTORE_H

#include "base/bytes.h"
#include "chassis/naming.h"

struct blk_client;
struct blk_writer;
struct blk_reader;

struct blk_client_options {
    struct ch_naming *naming; /* borrowed */
    const char *cell;    /* "local": the masters are at /local/blockmaster; servers' addresses come
                            from the master */
    const char *masters; /* not NULL: addresses of the masters, instead of naming and cell */
};
struct blk_client *blk_client_new(struct ch_env *env, const struct blk_client_options *options);
void blk_client_free(struct blk_client *client) CH_WAITS; /* writers and readers first */

enum { BLK_APPEND_MAX = 8 << 20 }; /* bytes of one append */

/* ---- writing ---- */
struct blk_append_options {
    bool create;       /* make the file when there is none */
    bool exclusive;    /* with create: ALREADY_EXISTS when there is one */
    uint64_t fence;    /* caller's own growing token (a lock's epoch): an open with a lower one than
                          the file has seen is    FAILED_PRECONDITION; 0: none */
    uint32_t replicas; /* 0: 3 (fewer when the cell has fewer servers, down to quorum) */
    uint32_t quorum;   /* 0: 2 */
};
/* Seals what an earlier writer left at its acknowledged length (or longer: never shorter), and
 * takes the epoch. *length: the file's length then. NOT_FOUND, FAILED_PRECONDITION (sealed file;
 * fence), UNAVAILABLE (no quorum of servers). */
struct base_status blk_open_append(struct blk_client *client, const char *path,
                                   const struct blk_append_options *options, ch_time deadline,
                                   struct blk_writer **writer,
                                   uint64_t *length) CH_WAITS BASE_MUST_CHECK;
/* Appends all parts as one run of bytes: after a crash all of it is there or, for what was never
 * acknowledged, possibly a prefix. Appends of several fibers go out in the order of the calls,
 * pipelined. Ignores cancellation once handed over. *offset: where it starts. FAILED_PRECONDITION:
 * a later writer has the file; nothing can be appended by this writer any more. UNAVAILABLE /
 * RESOURCE_EXHAUSTED: it could not be made durable in time; outcome unknown, the writer is broken
 * and must be closed and the file opened again. */
struct base_status blk_append(struct blk_writer *writer, const struct base_bytes *parts,
                              size_t part_count, ch_time deadline,
                              uint64_t *offset) CH_WAITS BASE_MUST_CHECK;
uint64_t blk_writer_length(const struct blk_writer *writer); /* acknowledged */
uint64_t blk_writer_epoch(const struct blk_writer *writer);
/* Seals the file for good: it never changes again. */
struct base_status blk_writer_seal(struct blk_writer *writer,
                                   ch_time deadline) CH_WAITS BASE_MUST_CHECK;
/* Without sealing the file. Frees it. No append may be inside. */
void blk_writer_close(struct blk_writer *writer) CH_WAITS;

/* ---- reading ---- */
/* Follows a file that is being written: reads see every append acknowledged before they began. */
struct base_status blk_open_read(struct blk_client *client, const char *path, ch_time deadline,
                                 struct blk_reader **reader) CH_WAITS BASE_MUST_CHECK;
/* Up to `len` bytes at `offset`; *got < len only at the durable end. Every byte's checksum is
 * verified; a bad or slow replica is passed over. DATA_LOSS when no replica has good bytes. */
struct base_status blk_read(struct blk_reader *reader, uint64_t offset, void *data, size_t len,
                            ch_time deadline, size_t *got) CH_WAITS BASE_MUST_CHECK;
/* The durable length now (asks the servers when the file is being written). */
struct base_status blk_reader_length(struct blk_reader *reader, ch_time deadline,
                                     uint64_t *length) CH_WAITS BASE_MUST_CHECK;
void blk_reader_close(struct blk_reader *reader) CH_WAITS;

/* ---- names ---- */
struct blk_stat {
    char *path;
    uint64_t length; /* of a file being written: as last reported, may lag */
    uint64_t epoch;
    bool sealed;
    uint32_t blocks;
    uint32_t replicas_wanted, replicas_least; /* least: over its blocks, on live servers */
    int64_t created_us;
};
struct base_status blk_stat(struct blk_client *client, const char *path, ch_time deadline,
                            struct base_arena *arena,
                            struct blk_stat *stat) CH_WAITS BASE_MUST_CHECK;
/* Files whose path starts with `prefix`, sorted, more than `after` ("" : from the first), at most
 * `limit`. */
struct base_status blk_list(struct blk_client *client, const char *prefix, const char *after,
                            size_t limit, ch_time deadline, struct base_arena *arena,
                            struct blk_stat **stats, size_t *count) CH_WAITS BASE_MUST_CHECK;
/* Fences and seals a file without writing: after it nobody who opened it with a lower fence can
 * append. *length: final. */
struct base_status blk_seal(struct blk_client *client, const char *path, uint64_t fence,
                            ch_time deadline, uint64_t *length) CH_WAITS BASE_MUST_CHECK;
/* Atomic. ALREADY_EXISTS when `to` exists and `replace` is false. */
struct base_status blk_rename(struct blk_client *client, const char *from, const char *to,
                              bool replace, ch_time deadline) CH_WAITS BASE_MUST_CHECK;
/* A second name for the same sealed file; blocks are freed when the last name goes. */
struct base_status blk_link(struct blk_client *client, const char *existing, const char *name,
                            ch_time deadline) CH_WAITS BASE_MUST_CHECK;
/* NOT_FOUND when there is none. Open readers may fail from then on. */
struct base_status blk_delete(struct blk_client *client, const char *path,
                              ch_time deadline) CH_WAITS BASE_MUST_CHECK;

#endif
