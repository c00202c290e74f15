/* memtable.h: the newest entries of a tablet, sorted, in memory (Bigtable 5.3): a skip list in
 * an arena. Nodes are never changed or removed once linked, so a cursor stays good while others
 * add entries, across waits too. Reference-counted: each view of the tablet holds one. */
#ifndef TAB_MEMTABLE_H
#define TAB_MEMTABLE_H

#include "iter.h"

struct tab_memtable;
struct tab_memtable *tab_memtable_new(void);
struct tab_memtable *tab_memtable_ref(struct tab_memtable *memtable);
void tab_memtable_unref(struct tab_memtable *memtable);

/* Copies. A key that is there already (a record replayed twice) changes nothing. */
void tab_memtable_put(struct tab_memtable *memtable, struct base_bytes key,
                      struct base_bytes value);
/* Notes a record that holds no entries here but whose number and log segment must be remembered
 * (a range deletion). */
void tab_memtable_note(struct tab_memtable *memtable, uint64_t seq, uint64_t segment);

size_t tab_memtable_bytes(const struct tab_memtable *memtable);
uint64_t tab_memtable_entries(const struct tab_memtable *memtable);
bool tab_memtable_empty(const struct tab_memtable *memtable); /* nothing put, nothing noted */
uint64_t tab_memtable_seq_max(const struct tab_memtable *memtable);
uint64_t tab_memtable_segment(
    const struct tab_memtable *memtable); /* the least noted; UINT64_MAX when empty */

/* Holds a reference. */
struct tab_iter *tab_memtable_iter(struct tab_memtable *memtable);

#endif
