/* raft_model.h: what a member of a group stands on in tests: a disk that keeps what was made
 * durable (the promises of consensus/store.h as plain memory, no waits, no faults of its own), and
 * messages as owned copies. Used by the tests that drive con_raft by hand and by its simulation. */
#ifndef TESTS_RAFT_MODEL_H
#define TESTS_RAFT_MODEL_H

#include "base/bytes.h"
#include "raft.h"

struct raft_disk {
    uint64_t id; /* the member's */
    uint64_t term, vote;
    struct con_config first; /* the group's first; none: the member joined later */
    uint64_t snapshot_index, snapshot_term;
    struct con_config snapshot_config;
    struct base_buf state;
    uint64_t begin; /* index of entries[0] */
    struct con_entry *entries;
    size_t count, cap;
    struct { /* a snapshot that comes in chunks; not durable */
        uint64_t index, term, total;
        struct base_buf data;
    } incoming;
};

void raft_disk_init(struct raft_disk *disk, uint64_t id, const struct con_config *first);
void raft_disk_free(struct raft_disk *disk);
uint64_t raft_disk_last(const struct raft_disk *disk);
/* 0: not there (any more); the snapshot's index is known by its term. */
uint64_t raft_disk_term_at(const struct raft_disk *disk, uint64_t index);
const struct con_entry *raft_disk_entry(const struct raft_disk *disk, uint64_t index);
/* The configuration that holds after the last entry. */
void raft_disk_config(const struct raft_disk *disk, struct con_config *config);
void raft_disk_write(struct raft_disk *disk, bool save_vote, uint64_t term, uint64_t vote,
                     const struct con_entry *entries, size_t count);
void raft_disk_snapshot(struct raft_disk *disk, uint64_t index, uint64_t term,
                        const struct con_config *config, struct base_bytes state, uint64_t drop);
/* False: not the chunk that is due; begin again. *installed: it was the last. */
bool raft_disk_receive(struct raft_disk *disk, const struct con_raft_chunk *chunk, bool *installed);
/* A member that begins with what the disk holds. */
struct con_raft *raft_disk_start(const struct raft_disk *disk,
                                 const struct con_raft_options *options, int64_t now);

struct con_entry *raft_entries_copy(const struct con_entry *entries, size_t count);
void raft_entries_free(struct con_entry *entries, size_t count);

/* One block of memory; free() ends it. */
struct con_message *raft_message_copy(const struct con_message *message);

/* Every set of members that decides by `a` shares a member with every one that decides by `b`. */
bool raft_quorums_meet(const struct con_config *a, const struct con_config *b);
/* Do these members (bits of config->members) decide? */
bool raft_is_quorum(const struct con_config *config, uint32_t members);

#endif
