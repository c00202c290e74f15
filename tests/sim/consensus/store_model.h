/* store_model.h: what a consensus store must hold, as a plain value, and the comparison with what
 * it does hold after a crash. Entries and snapshots have their contents from index and term, as in
 * a group two of the same index and term are the same. */
#ifndef STORE_MODEL_H
#define STORE_MODEL_H

#include "consensus/store.h"

enum { MODEL_ENTRIES = 12000, MODEL_PARTS = 64 };

struct store_model {
    uint64_t terms[MODEL_ENTRIES]; /* by index; first … last are there */
    uint64_t first, last;
    uint64_t term, vote;
    uint64_t snapshot_index, snapshot_term;
    uint64_t dropped; /* entries up to here need not be there any more */
};

/* What was begun and not acknowledged: each may be there, or not; of a write a beginning. */
struct store_pending {
    bool writing, save_vote;
    uint64_t term, vote, first, terms[MODEL_PARTS];
    size_t count;
    uint64_t save_index, save_term, save_drop; /* 0: none */
    uint64_t receive_index, receive_term;      /* 0: none */
};

/* What a load handed out. */
struct store_found {
    uint64_t terms[MODEL_ENTRIES];
    uint64_t first, last; /* first 0: no entries */
    uint64_t term, vote;
    uint64_t snapshot_index, snapshot_term;
    const char *wrong; /* contents that nobody wrote */
};

void store_model_init(struct store_model *model);
/* The first `parts` of the write: the vote is one, then each entry. */
void store_model_write(struct store_model *model, const struct store_pending *pending,
                       size_t parts);
/* A newer snapshot is there. */
void store_model_snapshot(struct store_model *model, uint64_t index, uint64_t term, uint64_t drop);
/* Entries that do not lead on from the snapshot go: at a load, and when one was received. */
void store_model_anchor(struct store_model *model);
/* Is `found` the model, with any beginning of what was pending? Then the model becomes that. */
bool store_model_settle(struct store_model *model, const struct store_pending *pending,
                        const struct store_found *found);

/* A visitor that fills a store_found. */
struct con_store_visitor store_found_visitor(struct store_found *found);

/* ---- contents ---- */
/* An entry's data, appended; terms that are 15 modulo 16 have large ones. */
void store_entry_data(uint64_t index, uint64_t term, struct base_buf *out);
void store_snapshot_state(uint64_t index, uint64_t term, struct base_buf *out);
void store_snapshot_config(uint64_t index, uint64_t term, struct con_config *config);
bool store_entry_right(const struct con_entry *entry);

#endif
