/* store_model.c: see store_model.h. */
#include "store_model.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/codec.h"

void store_model_init(struct store_model *model)
{
    *model = (struct store_model){ .first = 1 };
}

void store_model_write(struct store_model *model, const struct store_pending *pending, size_t parts)
{
    if (pending->save_vote && parts > 0) {
        model->term = pending->term;
        model->vote = pending->vote;
        parts--;
    }
    for (size_t i = 0; i < pending->count && i < parts; i++) {
        model->last = pending->first + i;
        model->terms[model->last] = pending->terms[i];
        if (model->first > model->last)
            model->first = model->last;
    }
}

void store_model_anchor(struct store_model *model)
{
    uint64_t at = model->snapshot_index;

    if (at == 0 || model->first == at + 1 ||
        (at >= model->first && at <= model->last && model->terms[at] == model->snapshot_term))
        return;
    model->first = at + 1;
    model->last = at;
}

void store_model_snapshot(struct store_model *model, uint64_t index, uint64_t term, uint64_t drop)
{
    if (index <= model->snapshot_index)
        return;
    model->snapshot_index = index;
    model->snapshot_term = term;
    if (drop > model->dropped)
        model->dropped = drop;
}

static bool equal(const struct store_model *model, const struct store_found *found)
{
    uint64_t first = model->snapshot_index + 1;

    if (model->term != found->term || model->vote != found->vote ||
        model->snapshot_index != found->snapshot_index ||
        model->snapshot_term != found->snapshot_term)
        return false;
    if (model->last < first)
        return found->first == 0;
    if (found->first != first || found->last != model->last)
        return false;
    return memcmp(model->terms + first, found->terms + first,
                  (model->last - first + 1) * sizeof(model->terms[0])) == 0;
}

bool store_model_settle(struct store_model *model, const struct store_pending *pending,
                        const struct store_found *found)
{
    static struct store_model candidate;
    size_t parts = pending->writing ? pending->save_vote + pending->count : 0;

    if (found->wrong)
        return false;
    for (size_t k = 0; k <= parts; k++) {
        candidate = *model;
        store_model_write(&candidate, pending, k);
        if (pending->save_index > 0 && found->snapshot_index >= pending->save_index)
            store_model_snapshot(&candidate, pending->save_index, pending->save_term,
                                 pending->save_drop);
        if (pending->receive_index > 0 && found->snapshot_index >= pending->receive_index)
            store_model_snapshot(&candidate, pending->receive_index, pending->receive_term,
                                 pending->receive_index);
        store_model_anchor(&candidate);
        if (equal(&candidate, found)) {
            *model = candidate;
            return true;
        }
    }
    return false;
}

/* ---- contents ---- */

static void fill(uint64_t seed, size_t len, struct base_buf *out)
{
    uint8_t *at = base_buf_extend(out, len);
    uint8_t word[8];

    for (size_t i = 0; i < len; i += 8) {
        base_put_le64(word, seed + i * 0x9e3779b97f4a7c15u);
        memcpy(at + i, word, len - i < 8 ? len - i : 8);
    }
}

void store_entry_data(uint64_t index, uint64_t term, struct base_buf *out)
{
    uint64_t hash = base_hash(&(uint64_t[2]){ index, term }, 16, 1);
    size_t len = hash % 8 == 0 ? 0 : hash % 700;

    if (hash % 61 == 7)
        len = 20000;
    if (term % 16 == 15)
        len = 700000;
    fill(hash, len, out);
}

void store_snapshot_state(uint64_t index, uint64_t term, struct base_buf *out)
{
    uint64_t hash = base_hash(&(uint64_t[2]){ index, term }, 16, 2);
    static const size_t lens[] = { 0, 100, 65528, 65529, 3 * 65528, 150000, 20, 1200000 };

    fill(hash, lens[hash % 8], out);
}

void store_snapshot_config(uint64_t index, uint64_t term, struct con_config *config)
{
    *config = (struct con_config){ .index = index / 2 };
    for (uint64_t i = 0; i < 1 + term % 3; i++) {
        struct con_member member = { .id = 10 + i, .voter = true };

        snprintf(member.address, sizeof(member.address), "10.0.0.%" PRIu64 ":%" PRIu64, i, term);
        BASE_ASSERT(con_config_put(config, &member));
    }
}

bool store_entry_right(const struct con_entry *entry)
{
    struct base_buf data = { 0 };
    bool right;

    store_entry_data(entry->index, entry->term, &data);
    right = base_bytes_eq(entry->data, base_buf_bytes(&data)) &&
            entry->kind == (enum con_entry_kind)(entry->index % 3);
    base_buf_free(&data);
    return right;
}

/* ---- what a load hands out ---- */

static bool config_equal(const struct con_config *a, const struct con_config *b)
{
    struct base_buf one = { 0 }, other = { 0 };
    bool equal;

    con_config_encode(a, &one);
    con_config_encode(b, &other);
    equal = base_bytes_eq(base_buf_bytes(&one), base_buf_bytes(&other));
    base_buf_free(&one);
    base_buf_free(&other);
    return equal;
}

static struct base_status found_snapshot(void *self, uint64_t index, uint64_t term,
                                         const struct con_config *config, struct base_bytes state)
{
    struct store_found *found = self;
    struct con_config wanted;
    struct base_buf whole = { 0 };

    if (found->snapshot_index != 0 || found->term != 0 || found->first != 0)
        found->wrong = "a snapshot that is not the first and only";
    store_snapshot_config(index, term, &wanted);
    store_snapshot_state(index, term, &whole);
    if (!config_equal(&wanted, config) || !base_bytes_eq(state, base_buf_bytes(&whole)))
        found->wrong = "a snapshot of other contents";
    found->snapshot_index = index;
    found->snapshot_term = term;
    base_buf_free(&whole);
    return BASE_STATUS_OK;
}

static struct base_status found_vote(void *self, uint64_t term, uint64_t vote)
{
    struct store_found *found = self;

    found->term = term;
    found->vote = vote;
    return BASE_STATUS_OK;
}

static struct base_status found_entry(void *self, const struct con_entry *entry)
{
    struct store_found *found = self;

    if (entry->index >= MODEL_ENTRIES || !store_entry_right(entry)) {
        found->wrong = "an entry of other contents";
        return BASE_STATUS_OK;
    }
    if (found->first == 0)
        found->first = entry->index;
    else if (entry->index > found->last + 1)
        found->wrong = "a gap between entries";
    found->last = entry->index;
    found->terms[entry->index] = entry->term;
    return BASE_STATUS_OK;
}

struct con_store_visitor store_found_visitor(struct store_found *found)
{
    *found = (struct store_found){ 0 };
    return (struct con_store_visitor){ found_snapshot, found_vote, found_entry, found };
}
