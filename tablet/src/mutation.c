/* mutation.c: see mutation.h. Codes and texts are the public service's. */
#include "mutation.h"

#include "key.h"
#include "rowread.h"

#define INVALID(...) base_status_make(BASE_INVALID_ARGUMENT, __VA_ARGS__)

void tab_edit_free(struct tab_edit *edit)
{
    base_buf_free(&edit->bytes);
    edit->count = 0;
}

void tab_edit_put(struct tab_edit *edit, struct base_bytes key, struct base_bytes value)
{
    base_buf_put_lenbytes(&edit->bytes, key);
    base_buf_put_lenbytes(&edit->bytes, value);
    edit->count++;
}

bool tab_edit_next(struct base_bytes *rest, struct base_bytes *key, struct base_bytes *value)
{
    return rest->len > 0 && base_take_lenbytes(rest, key) && base_take_lenbytes(rest, value);
}

void tab_edit_number(struct tab_edit *edit, uint64_t seq)
{
    struct base_bytes rest = base_buf_bytes(&edit->bytes), key, value;
    while (tab_edit_next(&rest, &key, &value))
        tab_key_set_seq((uint8_t *)key.data, key.len, seq++);
}

struct base_status tab_row_key_check(struct base_bytes row)
{
    if (row.len == 0)
        return INVALID("Row keys must be non-empty");
    if (row.len > TAB_ROW_KEY_MAX)
        return INVALID("Row key is %zu bytes; the limit is %d", row.len, TAB_ROW_KEY_MAX);
    return BASE_STATUS_OK;
}

struct base_status tab_no_family(const struct tab_schema *schema, struct base_bytes row)
{
    struct base_arena arena = { 0 };
    struct base_status status = base_status_make(
        BASE_NOT_FOUND,
        "Error while mutating the row '%s' (%s) : Requested column family not found.",
        base_bytes_show(&arena, row, 200), schema->name);
    base_arena_free(&arena);
    return status;
}

void tab_edit_set_cell(struct tab_edit *edit, struct base_bytes row,
                       const struct tab_family *family, struct base_bytes qualifier,
                       int64_t timestamp_us, struct base_bytes value)
{
    struct base_buf key = { 0 };
    tab_key_put_cell(&key, row, family->name, family->id, qualifier, timestamp_us, 0);
    tab_edit_put(edit, base_buf_bytes(&key), value);
    base_buf_free(&key);
}

static struct base_status check_granularity(int64_t timestamp_us)
{
    if (timestamp_us < 0)
        return INVALID("Invalid timestamp %lld: must not be negative (or -1 for the server's time)",
                       (long long)timestamp_us);
    if (timestamp_us % 1000)
        return INVALID("Timestamp granularity mismatch. Expected a multiple of 1000 (millisecond "
                       "granularity), but got %lld.",
                       (long long)timestamp_us);
    return BASE_STATUS_OK;
}

static struct base_status check_qualifier(ProtobufCBinaryData qualifier)
{
    if (qualifier.len > TAB_QUALIFIER_MAX)
        return INVALID("Column qualifier is %zu bytes; the limit is %d", qualifier.len,
                       TAB_QUALIFIER_MAX);
    return BASE_STATUS_OK;
}

static struct base_status set_cell(const struct tab_schema *schema, struct base_bytes row,
                                   const Google__Bigtable__V2__Mutation__SetCell *set,
                                   int64_t now_us, struct tab_edit *edit)
{
    int64_t timestamp_us = set->timestamp_micros == -1 ? now_us : set->timestamp_micros;
    struct base_status status = check_granularity(timestamp_us);
    if (!base_failed(status))
        status = check_qualifier(set->column_qualifier);
    if (base_failed(status))
        return status;
    if (set->value.len > TAB_CELL_MAX)
        return INVALID("Cell value is %zu bytes; the limit is %d", set->value.len, TAB_CELL_MAX);
    const struct tab_family *family = tab_schema_family(schema, ch_bytes_of(set->family_name));
    if (!family)
        return tab_no_family(schema, row);
    tab_edit_set_cell(edit, row, family, ch_bytes_of(set->column_qualifier), timestamp_us,
                      ch_bytes_of(set->value));
    return BASE_STATUS_OK;
}

static struct base_status delete_column(const struct tab_schema *schema, struct base_bytes row,
                                        const Google__Bigtable__V2__Mutation__DeleteFromColumn *del,
                                        struct tab_edit *edit)
{
    int64_t start = del->time_range ? del->time_range->start_timestamp_micros : 0;
    int64_t end = del->time_range ? del->time_range->end_timestamp_micros : 0;
    struct base_status status = check_granularity(start);
    if (!base_failed(status))
        status = check_granularity(end);
    if (!base_failed(status))
        status = check_qualifier(del->column_qualifier);
    if (base_failed(status))
        return status;
    if (end && start >= end)
        return INVALID(
            "Error in field 'time_range' : start_timestamp must be less than end_timestamp");
    const struct tab_family *family = tab_schema_family(schema, ch_bytes_of(del->family_name));
    if (!family)
        return tab_no_family(schema, row);
    struct base_buf key = { 0 };
    uint8_t value[16];
    tab_key_put_column_delete(&key, row, family->name, family->id,
                              ch_bytes_of(del->column_qualifier), 0);
    tab_time_range_encode(value, start, end);
    tab_edit_put(edit, base_buf_bytes(&key), base_bytes(value, sizeof(value)));
    base_buf_free(&key);
    return BASE_STATUS_OK;
}

static struct base_status delete_family(const struct tab_schema *schema, struct base_bytes row,
                                        ProtobufCBinaryData name, struct tab_edit *edit)
{
    const struct tab_family *family = tab_schema_family(schema, ch_bytes_of(name));
    if (!family)
        return tab_no_family(schema, row);
    struct base_buf key = { 0 };
    tab_key_put_family_delete(&key, row, family->name, family->id, 0);
    tab_edit_put(edit, base_buf_bytes(&key), BASE_BYTES_EMPTY);
    base_buf_free(&key);
    return BASE_STATUS_OK;
}

struct base_status tab_mutation_encode(const struct tab_schema *schema, struct base_bytes row,
                                       const Google__Bigtable__V2__Mutation *mutation,
                                       int64_t now_us, struct tab_edit *edit)
{
    switch (mutation->mutation_case) {
    case GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_SET_CELL:
        return set_cell(schema, row, mutation->set_cell, now_us, edit);
    case GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_DELETE_FROM_COLUMN:
        return delete_column(schema, row, mutation->delete_from_column, edit);
    case GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_DELETE_FROM_FAMILY:
        return delete_family(schema, row, mutation->delete_from_family->family_name, edit);
    case GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_DELETE_FROM_ROW: {
        struct base_buf key = { 0 };
        tab_key_put_row_delete(&key, row, 0);
        tab_edit_put(edit, base_buf_bytes(&key), BASE_BYTES_EMPTY);
        base_buf_free(&key);
        return BASE_STATUS_OK;
    }
    case GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_ADD_TO_CELL:
        return base_status_make(BASE_UNIMPLEMENTED,
                                "AddToCell: aggregate families are not supported");
    case GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_MERGE_TO_CELL:
        return base_status_make(BASE_UNIMPLEMENTED,
                                "MergeToCell: aggregate families are not supported");
    default:
        return INVALID("Mutation: no mutation is set");
    }
}

struct base_status tab_mutations_encode(const struct tab_schema *schema, struct base_bytes row,
                                        Google__Bigtable__V2__Mutation *const *mutations,
                                        size_t count, int64_t now_us, struct tab_edit *edit)
{
    struct base_status status = tab_row_key_check(row);
    if (base_failed(status))
        return status;
    if (count == 0)
        return INVALID("No mutations provided");
    if (count > TAB_MUTATIONS_MAX)
        return INVALID("%zu mutations; the limit is %d", count, TAB_MUTATIONS_MAX);
    for (size_t i = 0; i < count && !base_failed(status); i++)
        status = tab_mutation_encode(schema, row, mutations[i], now_us, edit);
    return status;
}
