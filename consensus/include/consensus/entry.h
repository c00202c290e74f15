/* consensus/entry.h: the values that a group agrees on: log entries and who its members are.
 * Plain values; no function here may wait. Source: Raft (Ongaro, 2014), ch. 3 and 4. */
#ifndef CONSENSUS_ENTRY_H
#define CONSENSUS_ENTRY_H

#include "base/bytes.h"

enum con_entry_kind {
    CON_ENTRY_COMMAND = 0,
    CON_ENTRY_NO_OP = 1,  /* a leader's first: commits what earlier terms left (section 3.6.2) */
    CON_ENTRY_CONFIG = 2, /* an encoded con_config; takes effect when appended (section 4.1) */
};

struct con_entry {
    uint64_t index; /* from 1, without gaps */
    uint64_t term;  /* of the leader that made it */
    enum con_entry_kind kind;
    struct base_bytes data;
};

enum { CON_MEMBERS_MAX = 9, CON_ADDRESS_MAX = 128, CON_COMMAND_BYTES_MAX = 1 << 20 };

/* A member's id is made at random with its disk and never used again: a member whose disk was lost
 * comes back under another id, so that nobody takes its word for what it has forgotten. */
struct con_member {
    uint64_t id;
    bool voter;     /* in the (new) set of voters; neither flag: a learner, which has no say */
    bool voter_old; /* in the outgoing set of a joint configuration (Raft 2014, section 4.3) */
    bool witness;   /* votes and keeps the log, but has no state: leads only to hand it on */
    char address[CON_ADDRESS_MAX]; /* a chassis client's target: "127.0.0.1:7340", "/local/x/0" */
};

struct con_config {
    uint64_t index; /* of the entry that brought it; 0: the group's first, before any entry */
    bool joint;     /* both sets decide; the leader ends it with the next configuration */
    uint32_t count;
    struct con_member members[CON_MEMBERS_MAX]; /* in order of id */
};

void con_config_encode(const struct con_config *config, struct base_buf *out);
/* INVALID_ARGUMENT: not an encoded configuration (cut short, too many members, ids not growing). */
struct base_status con_config_decode(struct base_bytes data,
                                     struct con_config *config) BASE_MUST_CHECK;
/* NULL when there is none. */
const struct con_member *con_config_member(const struct con_config *config, uint64_t id);
/* Adds or replaces the member of that id; false when there is no room. */
bool con_config_put(struct con_config *config, const struct con_member *member) BASE_MUST_CHECK;
bool con_config_remove(struct con_config *config, uint64_t id);

#endif
