/* con_store_memory.h: a consensus store in memory, as a caller may bring one (consensus/store.h):
 * for tests, and the proof that a group needs nothing of the local disk.
 *
 * A con_memory is the "disk": it outlives the stores opened on it, one at a time. What a write
 * brought is durable at its return and not before; what was there survives close, crash and open.
 * Opening fences the store opened before, so a crashed one can be left to unwind: its calls fail
 * with UNAVAILABLE and without effect. Faults are set by the functions below, at any time. */
#ifndef TESTS_CON_STORE_MEMORY_H
#define TESTS_CON_STORE_MEMORY_H

#include "consensus/store.h"

struct con_memory;

/* Empty, of a member with this id. Freed after every store opened on it was closed. */
struct con_memory *con_memory_new(uint64_t member);
void con_memory_free(struct con_memory *memory);
/* `env` is the clock of the delays; NULL: none, then no call of the store waits. */
void con_memory_open(struct con_memory *memory, struct ch_env *env, struct con_store *store);

/* ---- faults ---- */
/* The process dies: the open store has no effect any more. Of a write under way the first `keep`
 * parts (the vote is one, then each entry) come to be durable, SIZE_MAX: all. Call it before
 * ch_sim_crash. */
void con_memory_crash(struct con_memory *memory, size_t keep);
/* The disk is replaced by an empty one, of another id. No store may be open, or after a crash. */
void con_memory_lose(struct con_memory *memory, uint64_t member);
/* The kept entry is damaged: load gives DATA_LOSS, read too. False: there is no such entry. */
bool con_memory_corrupt(struct con_memory *memory, uint64_t index);
/* The empty store with which a member comes back whose damaged one was set aside. */
void con_memory_set_aside(struct con_memory *memory, uint64_t member);
/* Every call that is to be durable takes between these (uniform). 0, 0: none. */
void con_memory_delay(struct con_memory *memory, ch_time min, ch_time max);
/* The next write fails with `code` (once). RESOURCE_EXHAUSTED: without effect, the store goes on.
 * Another: the first `keep` parts of it are there, and the store only serves close. */
void con_memory_fail_write(struct con_memory *memory, enum base_code code, size_t keep);
/* Writes that would bring the entries' data over so many bytes find the disk full; 0: no limit. */
void con_memory_limit(struct con_memory *memory, uint64_t bytes);

/* ---- what is durable now ---- */
struct con_memory_view {
    uint64_t member, term, vote, first, last; /* first > last: no entries */
    uint64_t snapshot_index, snapshot_term;   /* 0: none */
    uint64_t writes, saves, receives;         /* that returned OK */
};
void con_memory_look(const struct con_memory *memory, struct con_memory_view *view);
/* NULL: not there. Borrowed till the next write. */
const struct con_entry *con_memory_entry(const struct con_memory *memory, uint64_t index);

#endif
