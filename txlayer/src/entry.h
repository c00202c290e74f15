/* entry.h: the bytes of a shard log's entries. Pure.
 *
 * An entry is one row of the log: a head (who wrote it, what for, the timestamp limit) and a
 * body. A batch of transactions is encoded once and, when larger than TXN__PIECE_MAX, cut over
 * consecutive positions; all but the last piece carry the flag `more`. Format (README.md has it
 * as tables):
 *   u8 version = 1, u8 kind, u8 flags, u8 0, le64 epoch, le64 position, le64 limit, body, le32
 *   CRC-32C of all before. */
#ifndef TXLAYER_ENTRY_H
#define TXLAYER_ENTRY_H

#include "base/bytes.h"

enum txn__entry_kind {
    TXN__BARRIER = 1, /* a new leader's first; body empty */
    TXN__BATCH = 2,   /* transactions; an empty one only moves the limit */
};

enum {
    TXN__ENTRY_VERSION = 1,
    TXN__ENTRY_MORE = 1,
    TXN__ENTRY_HEAD = 28,
    TXN__ENTRY_TAIL = 4,
    TXN__PIECE_MAX = 3 << 20, /* body bytes of one entry */
    TXN__ID_BYTES = 16,
};

struct txn__entry {
    enum txn__entry_kind kind;
    bool more;
    uint64_t epoch, position, limit;
    struct base_bytes body;
};
void txn__entry_encode(const struct txn__entry *entry, struct base_buf *out);
/* `body` borrows from `bytes`. DATA_LOSS says what is wrong. */
struct base_status txn__entry_decode(struct base_bytes bytes,
                                     struct txn__entry *entry) BASE_MUST_CHECK;

/* A transaction as the log keeps it: what it wrote, not what it read. */
struct txn__logged_write {
    bool is_delete;
    struct base_bytes group, key, value;
};
struct txn__logged {
    struct base_bytes id, database;
    uint64_t timestamp;
    struct txn__logged_write *writes;
    size_t write_count;
};
/* Appends one transaction to a batch's body. */
void txn__logged_encode(const struct txn__logged *txn, struct base_buf *body);
/* All transactions of a body; arrays in `arena`, bytes borrowed from `body`. */
struct base_status txn__body_decode(struct base_bytes body, struct base_arena *arena,
                                    struct txn__logged **txns, size_t *count) BASE_MUST_CHECK;

/* A checkpoint: everything up to `position` is applied to the data table. */
struct txn__checkpoint {
    uint64_t position, epoch; /* epoch: of the last entry at or below position */
    uint64_t timestamp;       /* of the last commit in it */
    uint64_t limit;           /* greatest in it */
};
void txn__checkpoint_encode(const struct txn__checkpoint *checkpoint, struct base_buf *out);
struct base_status txn__checkpoint_decode(struct base_bytes bytes,
                                          struct txn__checkpoint *checkpoint) BASE_MUST_CHECK;

#endif
