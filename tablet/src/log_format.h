/* log_format.h: the bytes of commit logs and redo files.
 *
 * A segment is a run of frames. A batch of records (one group commit) is one frame, or several
 * when it is large:
 * | magic u32 | crc32c of all that follows u32 | offset of the frame in its file u64 | batch u64 |
 * | payload length u32 | piece u16 | pieces u16 | kind u8 | payload |    (little-endian)
 * Kinds: 1 records; 2 "the log goes on in the next segment". The payload of all pieces together:
 * records, each with its varint length before it. A record: tablet u64 | first number u64 | kind
 * u8 | body:
 *   kind 1: entries (mutation.h: tab_edit), numbered from the first number on;
 *   kind 2: a deleted range of rows: start, end (length-prefixed).
 *
 * A frame names its own offset, so after bytes that are no frame (a torn append that was given
 * up, and repeated further on) a reader finds the next one by looking for it, and copies of log
 * bytes inside values are never mistaken for frames. What is there twice is harmless: a record's
 * number says whether it was applied. No function here waits but the reader. */
#ifndef TAB_LOG_FORMAT_H
#define TAB_LOG_FORMAT_H

#include "base/codec.h"
#include "blockstore/blockstore.h"

enum { TAB_FRAME_RECORDS = 1, TAB_FRAME_MOVED = 2 };
enum { TAB_RECORD_ENTRIES = 1, TAB_RECORD_RANGE = 2 };
enum { TAB_FRAME_FIRST_BYTE = 'T' }; /* of the magic */
enum { TAB_FRAME_HEADER = 37, TAB_FRAME_PAYLOAD_MAX = 4 << 20 };

/* Appends the frames of one batch as they are to stand at `offset`. */
void tab_frames_put(struct base_buf *out, uint64_t offset, uint64_t batch, uint8_t kind,
                    struct base_bytes payload);
/* Bytes that the frames of a payload take. */
size_t tab_frames_size(size_t payload_len);

struct tab_record {
    uint64_t tablet, seq;
    uint8_t kind;
    struct base_bytes body;
};
void tab_record_put(struct base_buf *payload, uint64_t tablet, uint64_t seq, uint8_t kind,
                    struct base_bytes body);
bool tab_record_parse(struct base_bytes bytes, struct tab_record *record);

/* One frame at the start of `bytes`, which stand at `offset` of the file. */
enum tab_frame_found {
    TAB_FRAME_GOOD,
    TAB_FRAME_SHORT /* more bytes are needed to tell */,
    TAB_FRAME_NONE
};
struct tab_frame {
    uint64_t batch;
    uint16_t piece, pieces;
    uint8_t kind;
    struct base_bytes payload;
    size_t size;
};
enum tab_frame_found tab_frame_parse(struct base_bytes bytes, uint64_t offset,
                                     struct tab_frame *frame);

/* Reads a sealed segment, calling `record` for each one. *moved: it ends with "the log goes on".
 * `record` may wait. */
typedef struct base_status tab_record_fn(void *self, const struct tab_record *record);
struct base_status tab_log_read(struct ch_env *env, struct blk_client *blk, const char *path,
                                ch_time deadline, tab_record_fn *record, void *self,
                                bool *moved) CH_WAITS BASE_MUST_CHECK;

#endif
