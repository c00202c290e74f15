/* segment.h: how a member's log lies on disk: sectors, batches, records, the head of a segment; and
 * how its end is told from its corruption. Pure functions over bytes; store_local*.c do the I/O.
 * See segment.c for the invariants and README.md for the format's tables. */
#ifndef CON_SEGMENT_H
#define CON_SEGMENT_H

#include "consensus/entry.h"

enum {
    CON_SECTOR = 512,                                   /* what a disk writes in one piece */
    CON_SECTOR_HEAD = 16,                               /* crc, number in the batch, sequence */
    CON_SECTOR_DATA = CON_SECTOR - CON_SECTOR_HEAD - 1, /* the last byte is the end mark */
    CON_BATCH_HEAD = 8,                                 /* bytes of the records, their number */
    CON_RECORDS_BYTES_MAX = 3 << 19,                    /* of one batch */
    CON_SEGMENT_BYTES_MIN = 64 << 10,
    CON_SEGMENT_BYTES_MAX = 4 << 20,
};

/* ---- records ---- */
enum con_record_kind {
    CON_RECORD_ENTRY = 1,    /* replaces all entries from its index on */
    CON_RECORD_VOTE = 2,     /* replaces the vote before */
    CON_RECORD_SNAPSHOT = 3, /* all entries before it go: the snapshot of `index` replaced them */
};
struct con_record {
    enum con_record_kind kind;
    struct con_entry entry;     /* ENTRY */
    uint64_t term, vote, index; /* VOTE: term, vote. SNAPSHOT: index, term */
};
enum { CON_RECORD_HEAD_MAX = 2 + 3 * 10 }; /* of an entry's record, before its data */
void con__record_put(struct base_buf *out, const struct con_record *record);
/* False, and `in` as it was: no record begins there. The entry's data is borrowed from `in`. */
bool con__record_take(struct base_bytes *in, struct con_record *record) BASE_MUST_CHECK;

/* ---- batches ---- */
struct con_batch {
    uint64_t sequence; /* of all batches of the log, from 1, without gaps */
    uint32_t record_count;
    struct base_bytes records;
};
/* Bytes on disk (whole sectors) of a batch with so many bytes of records. */
size_t con__batch_bytes(size_t records_len);
/* Appends the batch's sectors. */
void con__batch_put(const struct con_batch *batch, struct base_buf *out);

enum con_scan {
    CON_SCAN_WHOLE,   /* a whole batch, or head */
    CON_SCAN_END,     /* nothing was ever written from here on */
    CON_SCAN_TORN,    /* a last batch that never came to be acknowledged: pieces of it are there */
    CON_SCAN_CORRUPT, /* something that was acknowledged, or may have been, is damaged */
};
/* Looks at `rest` of a segment, where the batch with this sequence would be. WHOLE: *batch is
 * filled, its records lie in `payload` (cleared first), *len is its size on disk. TORN: *len bytes
 * from here must be zeroed. CORRUPT: *len is the offset of what is wrong, *why a text about it. */
enum con_scan con__batch_take(struct base_bytes rest, uint64_t sequence, struct base_buf *payload,
                              struct con_batch *batch, size_t *len, const char **why);

/* ---- segments ---- */
/* A segment's first sector: what one must know to begin reading here, the older ones being gone. */
struct con_segment_head {
    uint64_t number, size, member;
    uint64_t sequence;                    /* of its first batch */
    uint64_t term, vote;                  /* as they were then */
    uint64_t last;                        /* index of the log's last entry then */
    uint64_t cleared_index, cleared_term; /* of the newest SNAPSHOT record before; 0: none */
};
void con__segment_head_put(const struct con_segment_head *head, uint8_t sector[CON_SECTOR]);
bool con__segment_head_take(const uint8_t sector[CON_SECTOR],
                            struct con_segment_head *head) BASE_MUST_CHECK;
/* Looks at a whole segment's first sector: WHOLE, END (it was prepared and not used yet), TORN and
 * CORRUPT as above. `sequence` is the next one of the log, 0: not known (the log's first segment,
 * which is always whole). */
enum con_scan con__segment_scan(struct base_bytes segment, uint64_t sequence,
                                struct con_segment_head *head, size_t *len, const char **why);

#endif
