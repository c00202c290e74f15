/* Rows become chunks and rows again: whatever their size, in messages that stay far below gRPC's
 * limit; and a reader refuses what breaks the protocol. */
#include <stdlib.h>

#include "chassis/sim.h"
#include "chunk.h"
#include "client_chunks.h"
#include "test.h"

enum { ROWS = 40 };

struct tally {
    int rows;
    size_t bytes;
    bool good;
};

static size_t value_size(int row, int cell)
{
    return row % 9 == 8 ? (size_t)(3 << 20) + (size_t)cell : (size_t)(row * 700 + cell * 31);
}

static bool on_row(void *self, const struct tab_row *row)
{
    struct tally *tally = self;
    int number = tally->rows++;
    int cells = 1 + number % 5;
    tally->good &= row->cell_count == (size_t)cells && row->key.data[0] == 'a' + number;
    for (int i = 0; i < cells && tally->good; i++) {
        struct base_bytes value = row->cells[i].value;
        tally->good = value.len == value_size(number, i) &&
                      row->cells[i].timestamp_us == 1000 * (5 - i) &&
                      base_bytes_eq_str(row->cells[i].family, i < 2 ? "f" : "g") &&
                      base_bytes_eq_str(row->cells[i].qualifier, i % 2 ? "" : "q");
        for (size_t b = 0; b < value.len && tally->good; b += 997)
            tally->good = value.data[b] == (uint8_t)(number + i);
        tally->bytes += value.len;
    }
    return true;
}

static void take(struct tab_chunker *chunker, bool all, struct tab_chunk_reader *reader,
                 struct tally *tally) CH_WAITS;
static void take(struct tab_chunker *chunker, bool all, struct tab_chunk_reader *reader,
                 struct tally *tally)
{
    const Google__Bigtable__V2__ReadRowsResponse *message;
    while ((message = tab_chunker_take(chunker, all))) {
        cr_assert(ch_proto_size(&message->base) < 3500000, "a message of %zu bytes",
                  ch_proto_size(&message->base));
        struct base_status status = tab_chunk_reader_take(reader, message, on_row, tally);
        cr_assert(!base_failed(status), "%s", base_status_text(&status));
    }
}

static void round_trip(void *arg)
{
    CH_FIBER_ENTRY();
    struct tab_chunker chunker;
    struct tab_chunk_reader reader;
    struct tally tally = { .good = true };
    tab_chunker_init(&chunker);
    tab_chunk_reader_init(&reader, false);
    uint8_t *value = malloc(4 << 20);
    for (int row = 0; row < ROWS; row++) {
        uint8_t key = (uint8_t)('a' + row);
        tab_chunker_begin_row(&chunker, base_bytes(&key, 1));
        for (int i = 0; i < 1 + row % 5; i++) {
            memset(value, row + i, value_size(row, i));
            struct tab_out_cell cell = { .family = base_bytes_str(i < 2 ? "f" : "g"),
                                         .qualifier = base_bytes_str(i % 2 ? "" : "q"),
                                         .value = base_bytes(value, value_size(row, i)),
                                         .timestamp_us = 1000 * (5 - i) };
            tab_chunker_cell(&chunker, &cell);
            take(&chunker, false, &reader, &tally);
        }
        cr_assert(tab_chunker_end_row(&chunker));
        take(&chunker, false, &reader, &tally);
    }
    take(&chunker, true, &reader, &tally);
    cr_assert_eq(tally.rows, ROWS, "%d rows came back", tally.rows);
    cr_assert(tally.good, "a row came back changed");
    free(value);
    tab_chunker_destroy(&chunker);
    tab_chunk_reader_destroy(&reader);
}

static void in_fiber(ch_fiber_fn *fn)
{
    struct ch_sim *sim = ch_sim_new(1);
    ch_sim_do(sim, fn, NULL, CH_NEVER);
    ch_sim_free(sim);
}

/* Small rows share messages, large values are split over several; what is read is what was
 * written. */
Test(chunk, rows_come_back_whole)
{
    in_fiber(round_trip);
}

static void dropped_row(void *arg)
{
    CH_FIBER_ENTRY();
    struct tab_chunker chunker;
    struct tab_out_cell cell = { .family = BASE_BYTES_LIT("f"),
                                 .qualifier = BASE_BYTES_LIT("q"),
                                 .value = BASE_BYTES_LIT("v") };
    tab_chunker_init(&chunker);
    tab_chunker_begin_row(&chunker, BASE_BYTES_LIT("a"));
    tab_chunker_cell(&chunker, &cell);
    tab_chunker_end_row(&chunker);
    tab_chunker_begin_row(&chunker, BASE_BYTES_LIT("b"));
    tab_chunker_cell(&chunker, &cell);
    tab_chunker_drop_row(&chunker);
    const Google__Bigtable__V2__ReadRowsResponse *message = tab_chunker_take(&chunker, true);
    cr_assert(message && message->n_chunks == 1 && message->chunks[0]->commit_row,
              "the committed row alone is sent");
    cr_assert(tab_chunker_take(&chunker, true) == NULL);
    tab_chunker_destroy(&chunker);
}

/* A row whose reading failed half-way leaves nothing of itself behind, and takes nothing of the
 * row before with it. */
Test(chunk, a_dropped_row_leaves_nothing)
{
    in_fiber(dropped_row);
}

struct bad {
    const char *name;
    bool no_key, no_family, reset_with_data, commit_inside, key_again, wrong_size;
};

static void one_bad(const struct bad *bad) CH_WAITS;
static void one_bad(const struct bad *bad)
{
    Google__Bigtable__V2__ReadRowsResponse__CellChunk chunks[3],
        *list[3] = { &chunks[0], &chunks[1], &chunks[2] };
    Google__Protobuf__StringValue family = GOOGLE__PROTOBUF__STRING_VALUE__INIT;
    Google__Protobuf__BytesValue qualifier = GOOGLE__PROTOBUF__BYTES_VALUE__INIT;
    Google__Bigtable__V2__ReadRowsResponse message = GOOGLE__BIGTABLE__V2__READ_ROWS_RESPONSE__INIT;
    struct tab_chunk_reader reader;
    struct tally tally = { .good = true };
    for (int i = 0; i < 3; i++) {
        google__bigtable__v2__read_rows_response__cell_chunk__init(&chunks[i]);
        chunks[i].row_key = ch_data_str(i == 2 && !bad->key_again ? "b" : "a");
        chunks[i].family_name = &family;
        chunks[i].qualifier = &qualifier;
        chunks[i].value = ch_data_str("v");
        chunks[i].row_status_case =
            GOOGLE__BIGTABLE__V2__READ_ROWS_RESPONSE__CELL_CHUNK__ROW_STATUS_COMMIT_ROW;
        chunks[i].commit_row = true;
    }
    chunks[0].commit_row = false;
    chunks[0].row_status_case =
        GOOGLE__BIGTABLE__V2__READ_ROWS_RESPONSE__CELL_CHUNK__ROW_STATUS__NOT_SET;
    if (bad->no_key)
        chunks[0].row_key.len = 0;
    if (bad->no_family)
        chunks[2].family_name = NULL;
    if (bad->reset_with_data)
        chunks[1].row_status_case =
            GOOGLE__BIGTABLE__V2__READ_ROWS_RESPONSE__CELL_CHUNK__ROW_STATUS_RESET_ROW;
    if (bad->commit_inside)
        chunks[1].value_size = 10;
    if (bad->wrong_size) {
        chunks[0].value_size = 10;
        chunks[1].row_key.len = 0;
    }
    message.n_chunks = 3;
    message.chunks = list;
    tab_chunk_reader_init(&reader, false);
    struct base_status status =
        tab_chunk_reader_take(&reader, &message, (tab_row_fn *)on_row, &tally);
    cr_assert_eq(status.code, BASE_INTERNAL, "%s was taken", bad->name);
    base_status_free(&status);
    tab_chunk_reader_destroy(&reader);
}

static void bad_streams(void *arg)
{
    CH_FIBER_ENTRY();
    static const struct bad all[] = {
        { .name = "a row without a key", .no_key = true },
        { .name = "a row without a family", .no_family = true },
        { .name = "a reset with data", .reset_with_data = true },
        { .name = "a commit inside a value", .commit_inside = true },
        { .name = "a key twice", .key_again = true },
        { .name = "a value of another size", .wrong_size = true },
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        one_bad(&all[i]);
}

/* Better no rows than wrong ones. */
Test(chunk, broken_streams_are_refused)
{
    in_fiber(bad_streams);
}
