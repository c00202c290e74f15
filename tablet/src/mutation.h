/* mutation.h: google.bigtable.v2.Mutation to entries: everything is checked before anything is
 * written, so a row operation is done wholly or not at all. No function here may wait. */
#ifndef TAB_MUTATION_H
#define TAB_MUTATION_H

#include "google/bigtable/v2/bigtable.pb-c.h"
#include "schema.h"

enum {
    TAB_ROW_KEY_MAX = 4 << 10,
    TAB_QUALIFIER_MAX = 16 << 10,
    TAB_CELL_MAX = 100 << 20,
    TAB_MUTATIONS_MAX = 100000,
};

/* Entries to be written as one: [varint key length, key, varint value length, value]*, keys
 * without numbers yet. */
struct tab_edit {
    struct base_buf bytes;
    uint32_t count;
};
void tab_edit_free(struct tab_edit *edit);
void tab_edit_put(struct tab_edit *edit, struct base_bytes key, struct base_bytes value);
/* Numbers the entries from `seq` on. */
void tab_edit_number(struct tab_edit *edit, uint64_t seq);
/* One entry after another; false at the end (or at bytes that are no entry). */
bool tab_edit_next(struct base_bytes *rest, struct base_bytes *key, struct base_bytes *value);

/* INVALID_ARGUMENT "Row keys must be non-empty" and the like. */
struct base_status tab_row_key_check(struct base_bytes row) BASE_MUST_CHECK;
/* Checks one mutation and appends its entries; `now_us` is the server's time (already whole
 * milliseconds). */
struct base_status tab_mutation_encode(const struct tab_schema *schema, struct base_bytes row,
                                       const Google__Bigtable__V2__Mutation *mutation,
                                       int64_t now_us, struct tab_edit *edit) BASE_MUST_CHECK;
/* Checks and appends all; INVALID_ARGUMENT "No mutations provided" for none. */
struct base_status tab_mutations_encode(const struct tab_schema *schema, struct base_bytes row,
                                        Google__Bigtable__V2__Mutation *const *mutations,
                                        size_t count, int64_t now_us,
                                        struct tab_edit *edit) BASE_MUST_CHECK;
void tab_edit_set_cell(struct tab_edit *edit, struct base_bytes row,
                       const struct tab_family *family, struct base_bytes qualifier,
                       int64_t timestamp_us, struct base_bytes value);
/* NOT_FOUND with the service's text. */
struct base_status tab_no_family(const struct tab_schema *schema,
                                 struct base_bytes row) BASE_MUST_CHECK;

#endif
