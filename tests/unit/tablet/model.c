/* model.c: see model.h. */
#include "model.h"

#include <stdlib.h>

static const char *const rows[] = { "a", "a\0b", "b", "ba", "c\xff", "d" };
static const size_t row_lens[] = { 1, 3, 1, 2, 2, 1 };
static const char *const families[] = { "f", "ff", "g" };
static const char *const columns[] = { "", "q", "q2" };

struct base_bytes model_row(int row)
{
    return base_bytes(rows[row], row_lens[row]);
}

struct tab_schema *model_schema(const struct tab_gc *gc)
{
    struct tab_schema *schema = calloc(1, sizeof(*schema));
    schema->refs = 1;
    schema->family_count = MODEL_FAMILIES;
    schema->families = BASE_NEW_ARRAY(&schema->arena, struct tab_family, MODEL_FAMILIES);
    for (int i = 0; i < MODEL_FAMILIES; i++)
        schema->families[i] = (struct tab_family){ .name = base_bytes_str(families[i]),
                                                   .id = (uint32_t)i + 1,
                                                   .gc = gc[i] };
    return schema;
}

static void put(struct tab_memtable *memtable, const struct model_action *action)
{
    struct base_buf key = { 0 };
    struct base_bytes row = model_row(action->row),
                      family = base_bytes_str(families[action->family]);
    struct base_bytes column = base_bytes_str(columns[action->column]);
    uint32_t id = (uint32_t)action->family + 1;
    uint8_t value[16];
    size_t value_len = 0;
    switch (action->kind) {
    case MODEL_SET:
        tab_key_put_cell(&key, row, family, id, column, action->time * 1000, action->seq);
        base_put_le64(value, action->seq);
        value_len = 8;
        break;
    case MODEL_DELETE_COLUMN:
        tab_key_put_column_delete(&key, row, family, id, column, action->seq);
        tab_time_range_encode(value, action->time * 1000, action->until * 1000);
        value_len = 16;
        break;
    case MODEL_DELETE_FAMILY:
        tab_key_put_family_delete(&key, row, family, id, action->seq);
        break;
    case MODEL_DELETE_ROW:
        tab_key_put_row_delete(&key, row, action->seq);
        break;
    case MODEL_DELETE_RANGE:
        break;
    }
    tab_memtable_note(memtable, action->seq, 1);
    if (key.len)
        tab_memtable_put(memtable, base_buf_bytes(&key), base_bytes(value, value_len));
    base_buf_free(&key);
}

void model_act(struct model *model, uint64_t random, struct tab_memtable *memtable,
               struct tab_range_delete *ranges, size_t *range_count)
{
    struct model_action *action = &model->actions[model->count];
    unsigned kind = random % 40;
    *action = (struct model_action){ .row = (int)((random >> 8) & 0xfff) % MODEL_ROWS,
                                     .family = (int)((random >> 16) & 0xfff) % MODEL_FAMILIES,
                                     .column = (int)((random >> 24) & 0xfff) % MODEL_COLUMNS,
                                     .time = (int)((random >> 32) & 0xfff) % MODEL_TIMES,
                                     .seq = model->count + 1 };
    action->until = (int)((random >> 40) & 0xfff) % 3
                        ? action->time + 1 + (int)((random >> 44) & 0xfff) % 3
                        : 0;
    action->kind = kind < 30   ? MODEL_SET
                   : kind < 34 ? MODEL_DELETE_COLUMN
                   : kind < 37 ? MODEL_DELETE_FAMILY
                               : MODEL_DELETE_ROW;
    if (kind == 39 && *range_count < 8) {
        action->kind = MODEL_DELETE_RANGE;
        action->until = action->row + 1 + (int)((random >> 44) & 0xfff) % 3;
        ranges[(*range_count)++] = (struct tab_range_delete){
            model_row(action->row),
            action->until < MODEL_ROWS ? model_row(action->until) : BASE_BYTES_EMPTY, action->seq
        };
    }
    put(memtable, action);
    model->count++;
}

static bool deletes(const struct model_action *action, int row, int family, int column, int time)
{
    switch (action->kind) {
    case MODEL_DELETE_RANGE:
        return row >= action->row && row < action->until;
    case MODEL_DELETE_ROW:
        return row == action->row;
    case MODEL_DELETE_FAMILY:
        return row == action->row && family == action->family;
    case MODEL_DELETE_COLUMN:
        return row == action->row && family == action->family && column == action->column &&
               time >= action->time && (action->until == 0 || time < action->until);
    default:
        return false;
    }
}

uint64_t model_visible(const struct model *model, uint64_t snapshot, int row, int family,
                       int column, int time)
{
    for (size_t i = model->count; i-- > 0;) {
        const struct model_action *action = &model->actions[i];
        if (action->seq > snapshot)
            continue;
        if (deletes(action, row, family, column, time))
            return 0;
        if (action->kind == MODEL_SET && action->row == row && action->family == family &&
            action->column == column && action->time == time)
            return action->seq;
    }
    return 0;
}
