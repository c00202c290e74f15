/* sstable_write.c: see sstable.h. The builder produces bytes; full pieces go to blockstore as
 * they come, so memory is bounded by a piece whatever the file's size. A fault at any step
 * leaves a file nobody refers to: deleted here, or found by the master's sweep. */
#include <stdlib.h>

#include "bloom.h"
#include "key.h"
#include "sstable.h"
#include "sstable_int.h"

enum { PIECE_BYTES = 1 << 20 };

struct tab_sstable_writer {
    struct ch_env *env;
    struct blk_client *blk;
    struct blk_writer *out;
    char *path;
    struct tab_bridge_builder *builder;
    struct base_buf rows;     /* of uint64_t: hashes */
    struct base_buf last_row; /* encoded */
    struct base_buf first_row_plain, scratch;
    uint64_t entries, deletions, seq_min, seq_max, length;
    bool finished;
};

struct base_status tab_sstable_create(struct ch_env *env, struct blk_client *blk, const char *path,
                                      uint64_t fence, ch_time deadline,
                                      struct tab_sstable_writer **writer)
{
    struct blk_append_options options = { .create = true, .exclusive = true, .fence = fence };
    struct blk_writer *out;
    uint64_t length;
    struct base_status status = blk_open_append(blk, path, &options, deadline, &out, &length);
    if (base_failed(status))
        return base_status_wrap(status, "new SSTable %s", path);
    struct tab_sstable_writer *made = calloc(1, sizeof(*made));
    BASE_ASSERT(made != NULL);
    made->env = env;
    made->blk = blk;
    made->out = out;
    made->path = strdup(path);
    made->builder = tab_bridge_builder_new(TAB_SSTABLE_BLOCK);
    made->seq_min = UINT64_MAX;
    *writer = made;
    return BASE_STATUS_OK;
}

static struct base_status write_piece(struct tab_sstable_writer *writer, ch_time deadline) CH_WAITS;
static struct base_status write_piece(struct tab_sstable_writer *writer, ch_time deadline)
{
    const void *data;
    size_t len;
    tab_bridge_builder_take(writer->builder, &data, &len);
    for (size_t at = 0; at < len;) {
        size_t part_len = len - at < BLK_APPEND_MAX ? len - at : BLK_APPEND_MAX;
        struct base_bytes part = base_bytes((const uint8_t *)data + at, part_len);
        uint64_t offset;
        struct base_status status = blk_append(writer->out, &part, 1, deadline, &offset);
        if (base_failed(status))
            return base_status_wrap(status, "SSTable %s", writer->path);
        at += part_len;
        writer->length += part_len;
    }
    return BASE_STATUS_OK;
}

static void note_row(struct tab_sstable_writer *writer, struct base_bytes row)
{
    if (base_bytes_eq(row, base_buf_bytes(&writer->last_row)))
        return;
    if (writer->entries == 0)
        base_buf_put_bytes(&writer->first_row_plain, tab_key_plain(row, true, &writer->scratch));
    base_buf_clear(&writer->last_row);
    base_buf_put_bytes(&writer->last_row, row);
    uint64_t hash = tab_bloom_hash(row);
    base_buf_put(&writer->rows, &hash, sizeof(hash));
}

struct base_status tab_sstable_add(struct tab_sstable_writer *writer, struct base_bytes key,
                                   struct base_bytes value, bool is_deletion, ch_time deadline)
{
    note_row(writer, tab_key_row(key));
    uint64_t seq = tab_key_seq(key);
    if (seq < writer->seq_min)
        writer->seq_min = seq;
    if (seq > writer->seq_max)
        writer->seq_max = seq;
    writer->entries++;
    writer->deletions += is_deletion;
    tab_bridge_builder_add(writer->builder, key.data, key.len, value.data, value.len);
    if (tab_bridge_builder_pending(writer->builder) < PIECE_BYTES)
        return BASE_STATUS_OK;
    return write_piece(writer, deadline);
}

uint64_t tab_sstable_written(const struct tab_sstable_writer *writer)
{
    return writer->entries;
}

static struct base_status write_trailer(struct tab_sstable_writer *writer, uint64_t table_length,
                                        ch_time deadline) CH_WAITS;
static struct base_status write_trailer(struct tab_sstable_writer *writer, uint64_t table_length,
                                        ch_time deadline)
{
    struct base_buf tail = { 0 };
    tab_bloom_build((const uint64_t *)(const void *)writer->rows.data,
                    writer->rows.len / sizeof(uint64_t), &tail);
    uint64_t filter_length = tail.len;
    base_buf_put_le64(&tail, table_length);
    base_buf_put_le64(&tail, filter_length);
    base_buf_put_le32(&tail, base_crc32c(0, tail.data, tail.len));
    base_buf_put_le32(&tail, TAB_SSTABLE_MAGIC);
    struct base_status status = BASE_STATUS_OK;
    for (size_t at = 0; at < tail.len && !base_failed(status);) {
        size_t part_len = tail.len - at < BLK_APPEND_MAX ? tail.len - at : BLK_APPEND_MAX;
        struct base_bytes part = base_bytes(tail.data + at, part_len);
        uint64_t offset;
        status = blk_append(writer->out, &part, 1, deadline, &offset);
        at += part_len;
    }
    writer->length += tail.len;
    base_buf_free(&tail);
    return status;
}

struct base_status tab_sstable_finish(struct tab_sstable_writer *writer, ch_time deadline,
                                      struct base_arena *arena,
                                      Strata__Tablet__V1__SstableMeta *meta)
{
    uint64_t table_length;
    if (!tab_bridge_builder_finish(writer->builder, &table_length))
        return base_status_make(BASE_INTERNAL, "SSTable %s: cannot be finished", writer->path);
    struct base_status status = write_piece(writer, deadline);
    if (!base_failed(status))
        status = write_trailer(writer, table_length, deadline);
    if (!base_failed(status))
        status = blk_writer_seal(writer->out, deadline);
    if (base_failed(status))
        return base_status_wrap(status, "finish %s", writer->path);
    writer->finished = true;
    strata__tablet__v1__sstable_meta__init(meta);
    meta->path = ch_data_str(base_arena_strdup(arena, writer->path));
    meta->length = writer->length;
    meta->first_row = ch_data_of(base_bytes_dup(arena, base_buf_bytes(&writer->first_row_plain)));
    meta->last_row = ch_data_of(base_bytes_dup(
        arena, writer->entries
                   ? tab_key_plain(base_buf_bytes(&writer->last_row), true, &writer->scratch)
                   : BASE_BYTES_EMPTY));
    meta->seq_min = writer->entries ? writer->seq_min : 0;
    meta->seq_max = writer->seq_max;
    meta->entries = writer->entries;
    meta->deletions = writer->deletions;
    return BASE_STATUS_OK;
}

void tab_sstable_writer_free(struct tab_sstable_writer *writer)
{
    if (!writer)
        return;
    blk_writer_close(writer->out);
    if (!writer->finished)
        base_status_drop(blk_delete(writer->blk, writer->path, ch_in(writer->env, 5 * CH_S)));
    tab_bridge_builder_free(writer->builder);
    base_buf_free(&writer->rows);
    base_buf_free(&writer->last_row);
    base_buf_free(&writer->first_row_plain);
    base_buf_free(&writer->scratch);
    free(writer->path);
    free(writer);
}
