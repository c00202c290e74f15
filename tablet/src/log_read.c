/* log_read.c: reading a sealed segment or redo file, through gaps: see log_format.h. */
#include "chassis/fiber.h"
#include "log_format.h"

enum { WINDOW_BYTES = 8 << 20 };

struct log_reader {
    struct blk_reader *file;
    struct base_buf window; /* bytes of the file from `offset` on */
    uint64_t offset, length;
    size_t at;             /* within the window */
    struct base_buf batch; /* pieces so far */
    uint64_t batch_number;
    uint16_t next_piece;
    ch_time deadline;
};

/* Drops what was used and fills up. False: nothing more to read. */
static struct base_status fill(struct log_reader *reader, bool *more) CH_WAITS;
static struct base_status fill(struct log_reader *reader, bool *more)
{
    if (reader->at) {
        memmove(reader->window.data, reader->window.data + reader->at,
                reader->window.len - reader->at);
        reader->window.len -= reader->at;
    }
    reader->offset += reader->at;
    reader->at = 0;
    uint64_t next = reader->offset + reader->window.len;
    size_t want = WINDOW_BYTES - reader->window.len;
    if (reader->length - next < want)
        want = (size_t)(reader->length - next);
    *more = want > 0;
    if (want == 0)
        return BASE_STATUS_OK;
    size_t got = 0;
    uint8_t *into = base_buf_extend(&reader->window, want);
    struct base_status status = blk_read(reader->file, next, into, want, reader->deadline, &got);
    reader->window.len -= want - got;
    if (!base_failed(status) && got < want)
        reader->length = next + got;
    *more = got > 0;
    return status;
}

static struct base_status give_records(struct log_reader *reader, tab_record_fn *record,
                                       void *self) CH_WAITS;
static struct base_status give_records(struct log_reader *reader, tab_record_fn *record, void *self)
{
    struct base_bytes rest = base_buf_bytes(&reader->batch), one;
    struct base_status status = BASE_STATUS_OK;
    while (rest.len && !base_failed(status)) {
        struct tab_record parsed;
        if (!base_take_lenbytes(&rest, &one) || !tab_record_parse(one, &parsed))
            return base_status_make(BASE_DATA_LOSS,
                                    "log record that passes its checksum but does not parse");
        status = record(self, &parsed);
        ch_yield_if_long();
    }
    return status;
}

static struct base_status take_frame(struct log_reader *reader, const struct tab_frame *frame,
                                     tab_record_fn *record, void *self, bool *moved) CH_WAITS;
static struct base_status take_frame(struct log_reader *reader, const struct tab_frame *frame,
                                     tab_record_fn *record, void *self, bool *moved)
{
    if (frame->kind == TAB_FRAME_MOVED) {
        *moved = true;
        return BASE_STATUS_OK;
    }
    if (frame->piece == 0) {
        base_buf_clear(&reader->batch);
        reader->batch_number = frame->batch;
        reader->next_piece = 0;
    }
    if (frame->batch != reader->batch_number || frame->piece != reader->next_piece)
        return BASE_STATUS_OK; /* the rest of a batch that was given up */
    base_buf_put_bytes(&reader->batch, frame->payload);
    reader->next_piece++;
    if (frame->piece + 1 < frame->pieces)
        return BASE_STATUS_OK;
    return give_records(reader, record, self);
}

static struct base_status read_frames(struct log_reader *reader, tab_record_fn *record, void *self,
                                      bool *moved) CH_WAITS;
static struct base_status read_frames(struct log_reader *reader, tab_record_fn *record, void *self,
                                      bool *moved)
{
    bool more = true;
    struct base_status status = fill(reader, &more);
    while (!base_failed(status) && reader->at < reader->window.len) {
        struct tab_frame frame;
        struct base_bytes rest =
            base_bytes(reader->window.data + reader->at, reader->window.len - reader->at);
        switch (tab_frame_parse(rest, reader->offset + reader->at, &frame)) {
        case TAB_FRAME_GOOD:
            status = take_frame(reader, &frame, record, self, moved);
            reader->at += frame.size;
            break;
        case TAB_FRAME_SHORT:
            status = fill(reader, &more);
            if (base_failed(status) || more)
                break;
            reader->at++; /* no more bytes will come: this is no frame */
            break;
        case TAB_FRAME_NONE: {
            const uint8_t *next = memchr(rest.data + 1, TAB_FRAME_FIRST_BYTE, rest.len - 1);
            reader->at += next ? (size_t)(next - rest.data) : rest.len;
            break;
        }
        }
        if (!base_failed(status) && reader->at == reader->window.len)
            status = fill(reader, &more);
    }
    return status;
}

struct base_status tab_log_read(struct ch_env *env, struct blk_client *blk, const char *path,
                                ch_time deadline, tab_record_fn *record, void *self, bool *moved)
{
    struct log_reader reader = { .deadline = deadline, .batch_number = UINT64_MAX };
    *moved = false;
    struct base_status status = blk_open_read(blk, path, deadline, &reader.file);
    if (base_failed(status))
        return base_status_wrap(status, "read log %s", path);
    status = blk_reader_length(reader.file, deadline, &reader.length);
    if (!base_failed(status))
        status = read_frames(&reader, record, self, moved);
    blk_reader_close(reader.file);
    base_buf_free(&reader.window);
    base_buf_free(&reader.batch);
    return base_failed(status) ? base_status_wrap(status, "read log %s", path) : status;
}
