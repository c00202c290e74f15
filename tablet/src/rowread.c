/* rowread.c: see rowread.h. admit() holds the rules, for reads and compactions alike. */
#include "rowread.h"

#include <stdlib.h>

#include "chassis/fiber.h"

void tab_time_range_encode(uint8_t out[16], int64_t start, int64_t end)
{
    base_put_le64(out, (uint64_t)start);
    base_put_le64(out + 8, (uint64_t)end);
}

uint64_t tab_ranges_cover(const struct tab_range_delete *ranges, size_t count, uint64_t snapshot,
                          struct base_bytes row, struct base_bytes *end)
{
    uint64_t seq = 0;
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].seq <= seq || ranges[i].seq > snapshot ||
            base_bytes_cmp(row, ranges[i].start) < 0 ||
            (ranges[i].end.len && base_bytes_cmp(row, ranges[i].end) >= 0))
            continue;
        seq = ranges[i].seq;
        *end = ranges[i].end;
    }
    return seq;
}

void tab_row_reader_init(struct tab_row_reader *reader, struct tab_merge *merge,
                         const struct tab_schema *schema, const struct tab_range_delete *ranges,
                         size_t range_count, uint64_t snapshot, int64_t now_us)
{
    *reader = (struct tab_row_reader){ .merge = merge,
                                       .schema = schema,
                                       .ranges = ranges,
                                       .range_count = range_count,
                                       .snapshot = snapshot,
                                       .now_us = now_us };
}

void tab_row_reader_destroy(struct tab_row_reader *reader)
{
    tab_merge_free(reader->merge);
    base_buf_free(&reader->row);
    base_buf_free(&reader->column);
    base_buf_free(&reader->scratch);
    base_buf_free(&reader->qualifier);
    base_buf_free(&reader->family_prefix);
    free(reader->times);
    *reader = (struct tab_row_reader){ 0 };
}

/* ---- the rules ---- */

static void enter_row(struct tab_row_reader *reader, struct base_bytes row)
{
    base_buf_clear(&reader->row);
    base_buf_put_bytes(&reader->row, row);
    base_buf_clear(&reader->column);
    base_buf_clear(&reader->family_prefix);
    reader->row_deleted = reader->family_deleted = 0;
    reader->time_count = 0;
    reader->any_in_column = false;
    reader->family = NULL;
    reader->family_dropped = true;
    reader->at_cell = false;
}

static void enter_family(struct tab_row_reader *reader, const struct tab_key *key)
{
    base_buf_clear(&reader->family_prefix);
    base_buf_put_bytes(&reader->family_prefix, key->family);
    base_buf_put_le32(&reader->family_prefix, key->family_id);
    reader->family_deleted = 0;
    reader->family = tab_schema_family(reader->schema, key->family);
    reader->family_dropped = !reader->family || reader->family->id != key->family_id;
}

static bool same_family(const struct tab_row_reader *reader, const struct tab_key *key)
{
    const struct base_buf *prefix = &reader->family_prefix;
    return prefix->len == key->family.len + 4 &&
           memcmp(prefix->data, key->family.data, key->family.len) == 0 &&
           base_get_le32(prefix->data + key->family.len) == key->family_id;
}

static void enter_column(struct tab_row_reader *reader, const struct tab_key *key)
{
    base_buf_clear(&reader->column);
    base_buf_put_bytes(&reader->column, key->column);
    reader->time_count = 0;
    reader->version_index = reader->emitted = 0;
    reader->any_in_column = false;
}

static void add_time_range(struct tab_row_reader *reader, uint64_t seq, struct base_bytes value)
{
    if (value.len != 16)
        return;
    if (reader->time_count == reader->time_cap) {
        reader->time_cap = reader->time_cap ? reader->time_cap * 2 : 8;
        reader->times = realloc(reader->times, reader->time_cap * sizeof(*reader->times));
        BASE_ASSERT(reader->times != NULL);
    }
    reader->times[reader->time_count++] =
        (struct tab_time_range){ (int64_t)base_get_le64(value.data),
                                 (int64_t)base_get_le64(value.data + 8), seq };
}

static bool deleted(const struct tab_row_reader *reader, const struct tab_key *key)
{
    if (key->seq < reader->row_deleted || key->seq < reader->family_deleted)
        return true;
    if (key->kind != TAB_CELL)
        return false;
    for (size_t i = 0; i < reader->time_count; i++) {
        const struct tab_time_range *range = &reader->times[i];
        if (key->seq < range->seq && key->timestamp_us >= range->start &&
            (range->end == 0 || key->timestamp_us < range->end))
            return true;
    }
    return false;
}

/* Takes in the next entry of the current row. True: a live cell. `deletion_live`: set when it is
 * a deletion that is not itself covered by a newer one. */
static bool admit(struct tab_row_reader *reader, const struct tab_key *key, struct base_bytes value,
                  bool *deletion_live)
{
    *deletion_live = false;
    if (key->kind == TAB_ROW_DELETE) {
        *deletion_live = key->seq > reader->row_deleted;
        if (*deletion_live)
            reader->row_deleted = key->seq;
        return false;
    }
    if (!same_family(reader, key))
        enter_family(reader, key);
    if (reader->family_dropped)
        return false;
    if (key->kind == TAB_FAMILY_DELETE) {
        *deletion_live = !deleted(reader, key);
        if (key->seq > reader->family_deleted)
            reader->family_deleted = key->seq;
        return false;
    }
    if (!base_bytes_eq(key->column, base_buf_bytes(&reader->column)))
        enter_column(reader, key);
    if (key->kind == TAB_COLUMN_DELETE) {
        *deletion_live = !deleted(reader, key);
        add_time_range(reader, key->seq, value);
        return false;
    }
    if (reader->any_in_column && reader->last_timestamp == key->timestamp_us)
        return false; /* an older value of the same cell */
    reader->any_in_column = true;
    reader->last_timestamp = key->timestamp_us;
    if (deleted(reader, key))
        return false;
    return !tab_gc_drops(&reader->family->gc, reader->version_index++, key->timestamp_us,
                         reader->now_us);
}

bool tab_keep_entry(struct tab_keep *keep, const struct tab_key *key, struct base_bytes value)
{
    struct tab_row_reader *reader = &keep->reader;
    if (!base_bytes_eq(key->row, base_buf_bytes(&reader->row))) {
        enter_row(reader, key->row);
        struct base_bytes end;
        reader->row_deleted =
            tab_ranges_cover(reader->ranges, reader->range_count, reader->snapshot,
                             tab_key_plain(key->row, true, &reader->scratch), &end);
    }
    bool deletion_live;
    if (admit(reader, key, value, &deletion_live))
        return true;
    return deletion_live && !keep->major;
}

/* ---- reading ---- */

void tab_row_reader_seek(struct tab_row_reader *reader, struct base_bytes row)
{
    base_buf_clear(&reader->scratch);
    tab_key_put_row(&reader->scratch, row);
    tab_merge_seek(reader->merge, base_buf_bytes(&reader->scratch));
    reader->in_row = false;
}

/* Leaves the current row: steps a few times, then seeks past it. */
static void leave_row(struct tab_row_reader *reader) CH_WAITS;
static void leave_row(struct tab_row_reader *reader)
{
    enum { STEPS = 8 };
    const struct tab_iter *at;
    reader->in_row = false;
    for (int step = 0; (at = tab_merge_at(reader->merge)); step++) {
        if (!base_bytes_starts_with(at->key, base_buf_bytes(&reader->row)))
            return;
        if (step == STEPS) {
            base_buf_clear(&reader->scratch);
            base_buf_put_bytes(&reader->scratch, base_buf_bytes(&reader->row));
            base_buf_put_u8(&reader->scratch, 0xff);
            tab_merge_seek(reader->merge, base_buf_bytes(&reader->scratch));
            return;
        }
        tab_merge_next(reader->merge);
        reader->walked++;
    }
}

bool tab_row_reader_next_row(struct tab_row_reader *reader, struct base_bytes *row)
{
    if (reader->in_row)
        leave_row(reader);
    for (;;) {
        const struct tab_iter *at = tab_merge_at(reader->merge);
        if (!at)
            return false;
        struct base_bytes encoded = tab_key_row(at->key);
        if (encoded.len == 0)
            return false;
        enter_row(reader, encoded);
        struct base_bytes plain =
                              tab_key_plain(base_buf_bytes(&reader->row), true, &reader->scratch),
                          end;
        reader->row_deleted =
            tab_ranges_cover(reader->ranges, reader->range_count, reader->snapshot, plain, &end);
        reader->in_row = true;
        *row = plain;
        if (reader->row_deleted == 0)
            return true;
        if (end.len == 0)
            return true; /* no end to jump to: walk */
        base_buf_clear(&reader->qualifier);
        tab_key_put_row(&reader->qualifier, end);
        tab_merge_skip(reader->merge, base_buf_bytes(&reader->qualifier), reader->row_deleted);
        at = tab_merge_at(reader->merge);
        if (at && base_bytes_starts_with(at->key, base_buf_bytes(&reader->row)))
            return true;
        reader->in_row = false;
    }
}

bool tab_row_reader_prev_row(struct tab_row_reader *reader, struct base_bytes before, bool from_end,
                             struct base_bytes *row)
{
    base_buf_clear(&reader->scratch);
    tab_key_put_row(&reader->scratch, before);
    if (!tab_merge_before(reader->merge, base_buf_bytes(&reader->scratch), from_end,
                          &reader->qualifier))
        return false;
    struct base_bytes encoded = tab_key_row(base_buf_bytes(&reader->qualifier));
    if (encoded.len == 0)
        return false;
    enter_row(reader, encoded);
    tab_merge_seek(reader->merge, base_buf_bytes(&reader->row));
    struct base_bytes end;
    *row = tab_key_plain(base_buf_bytes(&reader->row), true, &reader->scratch);
    reader->row_deleted =
        tab_ranges_cover(reader->ranges, reader->range_count, reader->snapshot, *row, &end);
    reader->in_row = true;
    return true;
}

/* Jumps over cells that nobody wants: newer than the hint's bound, or beyond its count in their
 * column. */
static bool jump(struct tab_row_reader *reader, const struct tab_key *key) CH_WAITS;
static bool jump(struct tab_row_reader *reader, const struct tab_key *key)
{
    const struct tab_read_hint *hint = &reader->hint;
    if (key->kind != TAB_CELL || (!hint->column_cells && !hint->timestamp_end))
        return false;
    if (!same_family(reader, key))
        enter_family(reader, key);
    bool same = base_bytes_eq(key->column, base_buf_bytes(&reader->column));
    bool enough = same && hint->column_cells && reader->emitted >= hint->column_cells;
    /* Versions jumped over would not be counted by a rule that keeps the newest n. */
    bool counts = !reader->family_dropped && reader->family->gc.kind != TAB_GC_KEEP &&
                  reader->family->gc.kind != TAB_GC_AGE;
    bool too_new = hint->timestamp_end && key->timestamp_us >= hint->timestamp_end && !counts;
    if (!enough && !too_new)
        return false;
    base_buf_clear(&reader->qualifier);
    base_buf_put_bytes(&reader->qualifier, key->column);
    base_buf_put_u8(&reader->qualifier, enough ? 3 : 2); /* 3: after every entry of the column */
    if (!enough)
        base_buf_put_be64(&reader->qualifier,
                          ~((uint64_t)(hint->timestamp_end - 1) ^ (1ULL << 63)));
    tab_merge_seek(reader->merge, base_buf_bytes(&reader->qualifier));
    return true;
}

bool tab_row_reader_next_cell(struct tab_row_reader *reader, struct tab_cell_view *cell)
{
    const struct tab_iter *at;
    if (!reader->in_row)
        return false;
    if (reader->at_cell)
        tab_merge_next(reader->merge);
    reader->at_cell = false;
    for (; (at = tab_merge_at(reader->merge)); reader->walked++) {
        struct tab_key key;
        if (!base_bytes_starts_with(at->key, base_buf_bytes(&reader->row)) ||
            !tab_key_parse(at->key, &key))
            return false;
        if ((reader->walked & 255) == 255)
            ch_yield_if_long();
        if (jump(reader, &key))
            continue;
        bool deletion;
        if (key.seq <= reader->snapshot && admit(reader, &key, at->value, &deletion)) {
            cell->family = reader->family;
            cell->qualifier = tab_key_plain(key.qualifier, false, &reader->qualifier);
            cell->timestamp_us = key.timestamp_us;
            cell->value = at->value;
            reader->emitted++;
            reader->at_cell = true;
            return true;
        }
        tab_merge_next(reader->merge);
    }
    return false;
}

struct base_status tab_row_reader_status(const struct tab_row_reader *reader)
{
    return tab_merge_status(reader->merge);
}
