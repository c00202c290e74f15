/* raft.h: one member of one group as a pure step function (Raft: Ongaro, 2014).
 *
 * In: time, messages, proposals, news of what the store has made durable. Out (con_raft_output):
 * what to make durable, what to send, what to apply. No I/O, no clock, no randomness but the seed,
 * no waits; memory is the log's tail (limits below) and little else. The driver (group.c) gives it
 * a store, a network and a machine; tests give it simulated ones.
 *
 * The loop of a driver:
 *     feed inputs (tick, receive, propose, read, …)
 *     con_raft_output(raft, &out)       everything in it is borrowed till the next call
 *     send out.now; apply out.apply; answer out.reads, out.fetches
 *     start one durable write of out.vote and out.entries; more inputs may be fed meanwhile
 *     when it is done: send what was copied of out.after, con_raft_persisted(…)
 * Writes happen in the order of outputs, one at a time; a driver that is busy writing just does not
 * take another output's writes (con_raft_output's `writing`).
 *
 * The invariants are numbered in docs/consensus.md; CON_INVARIANT checks them by the same words. */
#ifndef CON_RAFT_H
#define CON_RAFT_H

#include "consensus/entry.h"

struct con_raft;

struct con_raft_options {
    uint64_t id;
    uint64_t seed;                /* of the random part of election timeouts */
    int64_t election_ns;          /* a follower waits for [1, 2) times this */
    int64_t heartbeat_ns;         /* less than election_ns / 3 */
    size_t message_bytes_max;     /* data of the entries in one message; 0: 256 KiB */
    size_t inflight_messages_max; /* to one follower, not yet answered; 0: 32 */
    size_t uncommitted_bytes_max; /* of proposals, then they are refused; 0: 32 MiB */
    size_t memory_bytes_max;      /* of applied entries kept for slow followers; 0: 4 MiB */
    bool quiet;                   /* may stop its timers when idle: see con_raft_wake */
};

enum con_role { CON_FOLLOWER, CON_PRE_CANDIDATE, CON_CANDIDATE, CON_LEADER };

enum con_message_kind {
    CON_PRE_VOTE = 1, /* would you vote for me? (section 9.6) */
    CON_PRE_VOTE_REPLY,
    CON_VOTE,
    CON_VOTE_REPLY,
    CON_APPEND,
    CON_APPEND_REPLY,
    CON_HEARTBEAT, /* empty; many groups' travel together */
    CON_HEARTBEAT_REPLY,
    CON_SNAPSHOT, /* one chunk */
    CON_SNAPSHOT_REPLY,
    CON_TIMEOUT_NOW, /* leadership is handed to you (section 3.10) */
};

struct con_message {
    enum con_message_kind kind;
    uint64_t from, to;
    uint64_t term; /* the sender's; of a pre-vote: the one it would stand in */
    /* APPEND: of the entry before the first. (PRE_)VOTE: of the candidate's last entry.
     * APPEND_REPLY: index is the last that matches; rejected: the one asked about.
     * HEARTBEAT: commit is what the receiver may commit, at most what it is known to hold.
     * SNAPSHOT, SNAPSHOT_REPLY: of the snapshot. */
    uint64_t index, log_term;
    uint64_t commit;
    bool reject;
    uint64_t hint_index, hint_term; /* rejected APPEND_REPLY: where to go on (section 5.3 end) */
    uint64_t round;                 /* HEARTBEAT and its reply: of read-index (section 6.4) */
    bool transfer;                  /* VOTE: by TIMEOUT_NOW, the present leader knows */
    uint64_t quiet;                 /* HEARTBEAT: offers to go quiet; its reply: agrees; 0: no */
    uint64_t held; /* APPEND to a witness: what is committed is with all voters up to here */
    const struct con_entry *entries;
    size_t entry_count;
    /* SNAPSHOT: a chunk. Its reply: offset is the next one wanted; == total: installed. */
    uint64_t offset, total;
    struct base_bytes data;
    const struct con_config *config;
};

struct con_raft_read {
    uint64_t id;    /* as given to con_raft_read */
    uint64_t index; /* to be applied before the read; 0: refused, this member does not lead */
};

/* Something a follower needs that is no longer in memory: the driver reads it from the store and
 * answers with con_raft_fetched, con_raft_fetched_chunk or con_raft_fetch_failed. */
struct con_raft_fetch {
    uint64_t member;
    bool snapshot;
    uint64_t first;  /* entries: the first wanted. Snapshot: its index, 0: the newest */
    uint64_t offset; /* snapshot */
    size_t bytes_max;
};

/* A chunk of a snapshot that came from the leader: store it, then con_raft_chunk_stored. */
struct con_raft_chunk {
    bool here;
    uint64_t from, index, term, offset, total;
    struct base_bytes data;
    const struct con_config *config;
};

struct con_raft_output {
    bool save_vote;
    uint64_t term, vote;
    const struct con_entry *entries; /* to be durable; replace all from their first index on */
    size_t entry_count;
    uint64_t persisted_term, persisted_index; /* what to hand to con_raft_persisted afterwards */
    const struct con_message *now;            /* may leave at once */
    size_t now_count;
    const struct con_message *after; /* only when this output's writes are durable */
    size_t after_count;
    const struct con_entry *apply; /* committed, in order, each once; all kinds */
    size_t apply_count;
    const struct con_raft_read *reads;
    size_t read_count;
    const struct con_raft_fetch *fetches;
    size_t fetch_count;
    struct con_raft_chunk chunk;
    bool role_changed; /* role, term or known leader: see con_raft_status */
};

/* What a store held. Entries follow by con_raft_load, before the first input. */
struct con_raft_start {
    uint64_t term, vote;
    uint64_t snapshot_index, snapshot_term; /* 0: none */
    /* Of the snapshot, or the group's first. count 0: a member that is in no group (yet): it only
     * listens. */
    struct con_config config;
};

struct con_raft *con_raft_new(const struct con_raft_options *options,
                              const struct con_raft_start *start, int64_t now);
void con_raft_free(struct con_raft *raft);
/* A vote that the store holds, later than what `start` said. */
void con_raft_load_vote(struct con_raft *raft, uint64_t term, uint64_t vote);
/* An entry that the store holds; copied. One at or before the last replaces all from there on. */
struct base_status con_raft_load(struct con_raft *raft,
                                 const struct con_entry *entry) BASE_MUST_CHECK;

/* ---- inputs. `now` is monotonic nanoseconds and never goes back (an input with an older time
 * counts as now). ---- */
void con_raft_tick(struct con_raft *raft, int64_t now);
int64_t con_raft_deadline(const struct con_raft *raft); /* nothing happens by time before this */
/* A quiet member (status.quiet) times nothing: the driver vouches for the process of the other
 * (a follower: of the leader; a leader: of any of the group) that it is there and that nothing sent
 * to or by it was lost. As soon as it does not, it calls this, at both ends, quiet or not; `heard`
 * is when that process was heard last. */
void con_raft_wake(struct con_raft *raft, int64_t heard, int64_t now);
/* Copies what it keeps. A message that is not for this member, or from nobody it can place, is
 * dropped. */
void con_raft_receive(struct con_raft *raft, const struct con_message *message, int64_t now);
/* The writes of the output that named these are durable. */
void con_raft_persisted(struct con_raft *raft, uint64_t term, uint64_t index);

enum con_refusal {
    CON_TAKEN = 0,
    CON_NOT_LEADER,
    CON_TRANSFERRING,   /* leadership is being handed over */
    CON_FULL,           /* uncommitted_bytes_max */
    CON_CONFIG_PENDING, /* one change at a time (section 4.1), and a leader's first entry first */
    CON_NOT_CAUGHT_UP,  /* a member is to be a learner, with nearly all of the log, first */
    CON_SILENT,         /* of the voters there would be too few are heard: the group would stop */
    CON_BAD_CONFIG,     /* no voter that can lead, or a member it does not know how to reach */
};
/* Appends to the leader's log; copied. *index, *term: how to know it again when applied. */
enum con_refusal con_raft_propose(struct con_raft *raft, struct base_bytes command, uint64_t *index,
                                  uint64_t *term) BASE_MUST_CHECK;
/* Moves the group to the members of `next` (its index, joint and voter_old are not looked at).
 * Goes through a joint configuration by itself whenever the voters change. Done when the
 * configuration (con_raft_status) is `next` and committed. */
enum con_refusal con_raft_change(struct con_raft *raft, const struct con_config *next,
                                 uint64_t *index) BASE_MUST_CHECK;
/* Hands leadership over; given up by itself after an election timeout. */
enum con_refusal con_raft_transfer(struct con_raft *raft, uint64_t member) BASE_MUST_CHECK;
/* Asks for a read index: answered in some later output, refused when leadership is lost. */
void con_raft_read(struct con_raft *raft, uint64_t id);
/* Another member said that a committed configuration, at `index`, is without this one: it stands no
 * more under an older one. */
void con_raft_removed(struct con_raft *raft, uint64_t index);
/* Starts an election now, without a pre-vote (a group's founder; tests). */
void con_raft_campaign(struct con_raft *raft);

/* The answers to fetches. Entries and data are borrowed till the next output was taken and read. */
void con_raft_fetched(struct con_raft *raft, uint64_t member, const struct con_entry *entries,
                      size_t count);
void con_raft_fetched_chunk(struct con_raft *raft, uint64_t member, uint64_t index, uint64_t term,
                            const struct con_config *config, uint64_t offset, uint64_t total,
                            struct base_bytes data);
void con_raft_fetch_failed(struct con_raft *raft, uint64_t member);
/* The chunk handed out was stored (and, the last one, installed: the machine has that state), or
 * not (begin again). */
void con_raft_chunk_stored(struct con_raft *raft, bool stored);
/* The store has a durable snapshot of at least `index` and has dropped entries up to it. */
void con_raft_compacted(struct con_raft *raft, uint64_t index);

/* ---- outputs ---- */
/* Hands out all there is. `writing`: a write of an earlier output is under way: no new writes and
 * no `after` are handed out, they wait for the next time. The same output never comes twice. */
void con_raft_output(struct con_raft *raft, bool writing, struct con_raft_output *output);
/* The driver was told all (output with `writing` as given would be empty). */
bool con_raft_idle(const struct con_raft *raft, bool writing);

struct con_raft_status {
    enum con_role role;
    uint64_t id, term, leader; /* leader 0: not known */
    uint64_t commit, applied, first, last, persisted;
    bool ready;                      /* leads and has applied an entry of its own term */
    const struct con_config *config; /* the newest in the log; borrowed till the next call */
    uint64_t transfer;               /* to whom leadership is being handed; 0: nobody */
    uint64_t held; /* of a witness: what is committed is with all that have a state, up to here */
    bool quiet;    /* nothing happens, and nothing is timed */
};
struct con_raft_status con_raft_status(const struct con_raft *raft);
/* The configuration in force after `index` (>= the last compaction). */
const struct con_config *con_raft_config_at(const struct con_raft *raft, uint64_t index);
/* The newest configuration here that is sure to be committed. */
const struct con_config *con_raft_config_committed(const struct con_raft *raft);
/* 0 when `index` is compacted away or beyond the last. */
uint64_t con_raft_term_at(const struct con_raft *raft, uint64_t index);
/* How far a member is known to hold the log, and when it was last heard; false: not followed. */
bool con_raft_progress(const struct con_raft *raft, uint64_t member, uint64_t *match,
                       int64_t *heard);

/* Whether a leader has heard a member lately: within an election timeout. Itself always. */
bool con_raft_heard(const struct con_raft *raft, uint64_t member);

/* An assert that stays in every build and names its invariant of docs/consensus.md. */
_Noreturn void con__invariant_broken(int number, const char *text, const char *file, int line);
#define CON_INVARIANT(number, condition, text)                           \
    do {                                                                 \
        if (!(condition))                                                \
            con__invariant_broken((number), (text), __FILE__, __LINE__); \
    } while (0)

#endif
