/* raft_int.h: the inside of a member, shared by raft_*.c. raft.h is what the rest sees. */
#ifndef CON_RAFT_INT_H
#define CON_RAFT_INT_H

#include "raft.h"

enum {
    CON_INFLIGHT_MAX = 64,
    CON_APPLY_MAX = 1024,        /* entries in one output */
    CON_CHUNK_BYTES = 256 << 10, /* of a snapshot */
    CON_READS_MAX = 65536,       /* waiting; more are refused */
    CON_QUIET_BEATS = 3,         /* with nothing to do: then a leader offers to go quiet */
};
#define CON_NUMBER_MAX (UINT64_C(1) << 62) /* terms and indexes beyond are nobody's */
#define CON_TIME_MAX INT64_MAX

/* ---- the log's tail in memory (raft_log.c) ---- */

struct con__run { /* entries from `first` on, to the next run, have this term */
    uint64_t first, term;
};
struct con__log {
    uint64_t offset, offset_term; /* entries up to here are compacted away */
    uint64_t last;
    struct con__run *runs; /* of the entries in (offset, last] */
    size_t run_count, run_cap;
    struct con_entry *slots; /* entries [memory_first, last] are slots[head …] */
    size_t head, cap;
    uint64_t memory_first;
    size_t memory_bytes;
    struct con_config *configs; /* [0]: in force at offset; the others came with entries */
    size_t config_count, config_cap;
    uint64_t written; /* handed out for writing */
    uint64_t flight;  /* the last index of the write under way */
    uint64_t durable;
};

void con__log_init(struct con__log *log, uint64_t index, uint64_t term,
                   const struct con_config *config);
void con__log_free(struct con__log *log);
uint64_t con__log_term(const struct con__log *log, uint64_t index); /* 0: not known */
uint64_t con__log_last_term(const struct con__log *log);
/* The largest index <= `index` whose entry's term is <= `term`; at least offset. */
uint64_t con__log_before_term(const struct con__log *log, uint64_t index, uint64_t term);
/* entry->index must be last + 1; copied. False: a configuration that cannot be read. */
bool con__log_append(struct con__log *log, const struct con_entry *entry) BASE_MUST_CHECK;
void con__log_truncate(struct con__log *log, uint64_t from);
void con__log_compact(struct con__log *log, uint64_t index);
/* Forgets everything: the log begins after `index`. */
void con__log_reset(struct con__log *log, uint64_t index, uint64_t term,
                    const struct con_config *config);
/* Drops entries up to `most` from memory while more than `bytes` are held. */
void con__log_trim(struct con__log *log, uint64_t most, size_t bytes);
/* In memory: memory_first <= index <= last. */
static inline struct con_entry *con__log_entry(const struct con__log *log, uint64_t index)
{
    return &log->slots[log->head + (index - log->memory_first)];
}
static inline const struct con_config *con__log_config(const struct con__log *log)
{
    return &log->configs[log->config_count - 1];
}

/* ---- a leader's view of another member (raft_lead.c) ---- */

enum con__mode {
    CON_PROBE,     /* where its log matches is not known: one message at a time */
    CON_REPLICATE, /* known: messages are sent ahead of the answers */
    CON_INSTALL,   /* it needs a snapshot */
};
struct con__peer {
    /* What an idle leader looks at lies together: there may be thousands of them. */
    uint64_t id;
    bool witness;
    bool probe_sent; /* and not answered */
    bool spoke;      /* to this leader: before that, `heard` is when it was first asked */
    bool ask;        /* how far it is: its word on that may have been lost */
    enum con__mode mode;
    uint64_t match, next;
    int64_t heard;  /* its last message of this term */
    uint64_t round; /* of reads, acknowledged */
    uint64_t quiet; /* the offer it has agreed to */
    size_t inflight_first, inflight_count;
    /* what the driver was asked for, and what it brought */
    bool fetching;
    int64_t fetch_after; /* not before: the last one failed */
    const struct con_entry *fetched;
    size_t fetched_count;
    /* the snapshot being sent */
    uint64_t snapshot_index, snapshot_term, snapshot_offset, snapshot_total;
    const struct con_config *snapshot_config; /* of the chunk at hand; borrowed from the driver */
    struct base_bytes chunk;
    bool chunk_here, chunk_sent; /* sent: and not answered */
    int64_t chunk_sent_at;
    /* its lap: to come as far as the leader was at the lap's begin; a round of section 4.2.1 */
    uint64_t lap_to;
    int64_t lap_begun, lap_took;         /* took: the last one done */
    uint64_t inflight[CON_INFLIGHT_MAX]; /* last index of each message not yet answered, a ring */
};

struct con__read {
    uint64_t id, index;
    uint64_t round; /* 0: not yet asked */
};

struct con__messages {
    struct con_message *at;
    size_t count, cap;
};

struct con_raft {
    struct con_raft_options options;
    uint64_t random;
    int64_t now, ticked, grace_until;
    bool quiet;         /* raft_quiet.c */
    uint8_t idle_beats; /* heartbeats with nothing to do, up to CON_QUIET_BEATS */
    uint64_t quiet_epoch;

    uint64_t term, vote; /* to be durable before anything that follows from them is said */
    bool vote_dirty;
    uint64_t durable_term, flight_term;
    bool flight_here;

    enum con_role role;
    uint64_t leader;
    int64_t election_at;  /* when to stand, if nothing is heard */
    int64_t stands_since; /* asking for pre-votes */
    int64_t ask_at;       /* while it stands: when to ask those again who have not answered */
    int64_t leader_heard;
    bool by_transfer; /* the election under way was asked for by the leader */

    struct con__log log;
    uint64_t commit, applied;
    uint64_t held;       /* a witness's: as leaders said */
    uint64_t removed_at; /* a committed configuration without this member; 0: none that it knows */

    /* leader */
    struct con__peer *peers; /* the other members of the newest configuration */
    size_t peer_count;
    uint64_t term_start; /* index of this leadership's no-op */
    bool witness_leads;  /* without a state: only to hand on the log it keeps */
    int64_t witness_until;
    int64_t heartbeat_at;
    bool heartbeat_due;
    size_t uncommitted_bytes;
    uint64_t round, round_done; /* of reads: the last one asked; confirmed by a quorum */
    struct con__read *reads;
    size_t read_count, read_cap;
    uint64_t transfer;
    int64_t transfer_until;
    bool transfer_sent;

    struct base_buf chunk_data;
    bool chunk_waiting, chunk_busy; /* to be handed out; handed out */

    struct con__messages now_queue, after_queue; /* made by inputs */
    struct con__messages now_out, after_out;     /* handed out */
    struct con_raft_read *answers, *answers_out;
    size_t answer_count, answer_cap, answers_out_cap;
    bool role_changed;

    /* ---- what is seldom looked at comes last ---- */
    struct {
        uint64_t id;
        bool granted;
    } votes[CON_MEMBERS_MAX];
    size_t vote_count;
    struct con_raft_fetch fetches[CON_MEMBERS_MAX];
    /* the snapshot being received */
    struct {
        uint64_t from, index, term, next, total;
        struct con_config config;
        bool active;
    } receiving;
};

/* raft.c */
struct con_message *con__message_add(struct con__messages *queue);
struct con_message *con__say(struct con_raft *raft, enum con_message_kind kind, uint64_t to,
                             bool after_write);
void con__follow(struct con_raft *raft, uint64_t term, uint64_t leader);
void con__election_reset(struct con_raft *raft);
void con__answer(struct con_raft *raft, uint64_t id, uint64_t index);
/* The largest value that a majority of the voters (of both sets, in a joint configuration) has
 * reached; 0 when there are no voters. */
uint64_t con__quorum(const struct con_config *config,
                     uint64_t (*value)(const struct con_raft *raft, uint64_t id),
                     const struct con_raft *raft);

/* raft_elect.c */
void con__campaign_pre(struct con_raft *raft);
void con__campaign(struct con_raft *raft, bool transfer);
void con__ask_again(struct con_raft *raft); /* by time, while it stands */
void con__won_maybe(struct con_raft *raft); /* leads when a quorum has granted */
void con__vote_receive(struct con_raft *raft, const struct con_message *message);
void con__vote_reply_receive(struct con_raft *raft, const struct con_message *message);
bool con__may_stand(const struct con_raft *raft);
/* Itself as a member; NULL: it is none. */
const struct con_member *con__self(const struct con_raft *raft);

/* raft_quiet.c */
bool con__quiet_may(const struct con_raft *raft);
void con__quiet_beat(struct con_raft *raft);            /* a leader's heartbeat is due */
uint64_t con__quiet_offer(const struct con_raft *raft); /* for a heartbeat; 0: none */
/* An answer to a heartbeat came; epoch 0: it does not agree. */
void con__quiet_agreed(struct con_raft *raft, struct con__peer *peer, uint64_t epoch);
/* An offer came. */
void con__quiet_offered(struct con_raft *raft, const struct con_message *offer,
                        struct con_message *reply);
void con__quiet_hear(struct con_raft *raft, const struct con_message *message); /* may wake */
/* Its timers run again, as if the other members had been heard at `heard`. */
void con__wake(struct con_raft *raft, int64_t heard);

/* raft_send.c */
void con__lead_output(struct con_raft *raft, struct con_raft_output *output);
bool con__lead_idle(const struct con_raft *raft);

/* raft_lead.c */
static inline const struct con__peer *con__peer_const(const struct con_raft *raft, uint64_t id)
{
    for (size_t i = 0; i < raft->peer_count; i++)
        if (raft->peers[i].id == id)
            return &raft->peers[i];
    return NULL;
}
bool con__peer_alive(const struct con_raft *raft, const struct con__peer *peer);
void con__peer_install(struct con__peer *peer); /* it needs a snapshot */
uint64_t con__held_by_all(const struct con_raft *raft);
void con__round_advance(struct con_raft *raft);
void con__heartbeat_next(struct con_raft *raft);
void con__lead(struct con_raft *raft);
void con__lead_end(struct con_raft *raft);
void con__peers_follow_config(struct con_raft *raft);
static inline struct con__peer *con__peer_of(struct con_raft *raft, uint64_t id)
{
    return (struct con__peer *)con__peer_const(raft, id);
}
enum con__ear { CON_EAR_SILENT, CON_EAR_UNKNOWN, CON_EAR_HEARD };
enum con__ear con__ear_of(const struct con_raft *raft, uint64_t id);
bool con__caught_up(const struct con_raft *raft, uint64_t id);
void con__lead_tick(struct con_raft *raft);
void con__commit_advance(struct con_raft *raft);
void con__reply_receive(struct con_raft *raft, const struct con_message *message);
void con__lead_append(struct con_raft *raft, enum con_entry_kind kind, struct base_bytes data);

/* raft_follow.c */
void con__append_receive(struct con_raft *raft, const struct con_message *message);
void con__heartbeat_receive(struct con_raft *raft, const struct con_message *message);
void con__snapshot_receive(struct con_raft *raft, const struct con_message *message);

/* raft_member.c */
void con__config_committed(struct con_raft *raft);
/* A leader that is no voter of the committed configuration any more. */
bool con__leaving(const struct con_raft *raft);
void con__leave_maybe(struct con_raft *raft);

#endif
