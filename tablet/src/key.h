/* key.h: the bytes an entry is sorted by, in memtables and SSTables alike. memcmp order is the
 * order of a row's story: what deletes comes before what it may delete, newest first.
 *
 *   row    = ordered(row key)
 *   column = row 02 family 00 id(be32) 02 ordered(qualifier)
 *   entry  = row 01 ~seq                            the row is deleted
 *          | row 02 family 00 id(be32) 01 ~seq      the family is deleted
 *          | column 01 ~seq                         a time range of the column is deleted; value:
 *                                                   start, open end (0: none), int64, little-endian
 *          | column 02 ~ts ~seq                     a cell
 *
 * Invariants: 1. `seq` is the last 8 bytes of every key (so a number can be set into a finished
 * key). 2. A deletion with number s hides exactly the entries it covers with a smaller number.
 * 3. Family names hold no byte 00. Nothing here waits. */
#ifndef TAB_KEY_H
#define TAB_KEY_H

#include "base/codec.h"

enum tab_kind { TAB_ROW_DELETE, TAB_FAMILY_DELETE, TAB_COLUMN_DELETE, TAB_CELL };

struct tab_key {
    enum tab_kind kind;
    struct base_bytes row; /* encoded: ordered(row key) */
    struct base_bytes
        column; /* all up to and with the qualifier: what two cells of one column share */
    struct base_bytes family, qualifier; /* qualifier as encoded, without its end mark */
    uint32_t family_id;
    int64_t timestamp_us;
    uint64_t seq;
};

void tab_key_put_row(struct base_buf *out, struct base_bytes row);
void tab_key_put_row_delete(struct base_buf *out, struct base_bytes row, uint64_t seq);
void tab_key_put_family_delete(struct base_buf *out, struct base_bytes row,
                               struct base_bytes family, uint32_t id, uint64_t seq);
void tab_key_put_column_delete(struct base_buf *out, struct base_bytes row,
                               struct base_bytes family, uint32_t id, struct base_bytes qualifier,
                               uint64_t seq);
void tab_key_put_cell(struct base_buf *out, struct base_bytes row, struct base_bytes family,
                      uint32_t id, struct base_bytes qualifier, int64_t timestamp_us, uint64_t seq);
/* Sets the number of a finished key. */
void tab_key_set_seq(uint8_t *key, size_t len, uint64_t seq);
uint64_t tab_key_seq(struct base_bytes key);

/* What a key says; views into it. False for bytes that are no key (a corrupt file). */
bool tab_key_parse(struct base_bytes key, struct tab_key *parsed) BASE_MUST_CHECK;
/* The encoded row a key begins with; empty when it is none. */
struct base_bytes tab_key_row(struct base_bytes key);
/* The plain bytes of an encoded row (with its end mark) or qualifier (without): the encoded
 * memory itself when it holds no escape, else a copy in `scratch` (cleared first). */
struct base_bytes tab_key_plain(struct base_bytes encoded, bool end_mark, struct base_buf *scratch);

#endif
