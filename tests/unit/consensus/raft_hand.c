/* raft_hand.c: see raft_hand.h. */
#include "raft_hand.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { SETTLE_ROUNDS_MAX = 20000 };

struct con_member hand_voter(uint64_t id)
{
    struct con_member member = { .id = id, .voter = true };

    snprintf(member.address, sizeof(member.address), "m%" PRIu64, id);
    return member;
}

struct con_config hand_voters(uint32_t count)
{
    struct con_config config = { .count = count };

    for (uint32_t i = 0; i < count; i++)
        config.members[i] = hand_voter(i + 1);
    return config;
}

static struct hand_member *member_of(struct hand *hand, uint64_t id)
{
    cr_assert(id > 0 && id < HAND_MAX, "no member %" PRIu64, id);
    return &hand->members[id];
}

static void start(struct hand *hand, uint64_t id)
{
    struct hand_member *member = member_of(hand, id);

    member->raft = raft_disk_start(&member->disk, &hand->options, member->now);
    member->applied = member->disk.snapshot_index;
    member->state.len = 0;
    base_buf_put_bytes(&member->state, base_buf_bytes(&member->disk.state));
    hand_run(hand, id);
}

struct hand *hand_new_config(const struct con_config *first, const struct con_raft_options *options)
{
    struct hand *hand = calloc(1, sizeof(*hand));

    hand->options = options ? *options : (struct con_raft_options){ 0 };
    hand->options.seed = 77; /* ids differ */
    if (hand->options.election_ns == 0) {
        hand->options.election_ns = 1000 * (int64_t)HAND_MS;
        hand->options.heartbeat_ns = 150 * (int64_t)HAND_MS;
    }
    for (uint32_t i = 0; i < first->count; i++) {
        uint64_t id = first->members[i].id;

        raft_disk_init(&member_of(hand, id)->disk, id, first);
        start(hand, id);
    }
    return hand;
}

struct hand *hand_new(uint32_t voters, const struct con_raft_options *options)
{
    struct con_config first = hand_voters(voters);

    return hand_new_config(&first, options);
}

void hand_join(struct hand *hand, uint64_t id)
{
    raft_disk_init(&member_of(hand, id)->disk, id, NULL);
    start(hand, id);
}

static void write_forget(struct hand_member *member)
{
    if (member->writing) {
        raft_entries_free((struct con_entry *)(uintptr_t)member->write.entries,
                          member->write.entry_count);
        free((void *)(uintptr_t)member->write.after);
    }
    member->writing = false;
}

void hand_free(struct hand *hand)
{
    hand_drop_all(hand);
    for (int i = 0; i < HAND_MAX; i++) {
        struct hand_member *member = &hand->members[i];

        con_raft_free(member->raft);
        for (size_t j = 0; member->writing && j < member->write.after_count; j++)
            free((void *)(uintptr_t)((struct con_message *const *)member->write.after)[j]);
        write_forget(member);
        free((void *)(uintptr_t)member->chunk.data.data);
        raft_disk_free(&member->disk);
        base_buf_free(&member->state);
    }
    free(hand);
}

static void send_message(struct hand *hand, uint64_t from, const struct con_message *message)
{
    cr_assert(message->kind >= CON_PRE_VOTE && message->kind <= CON_TIMEOUT_NOW);
    hand->sent[message->kind]++;
    cr_assert_eq(message->from, from, "a message says it is from another");
    cr_assert_neq(message->to, from, "a message to itself");
    if (message->to >= HAND_MAX || hand->cut[from][message->to])
        return;
    cr_assert(hand->flight_count < HAND_FLIGHT_MAX, "too much in flight");
    hand->flight[hand->flight_count++] = raft_message_copy(message);
}

static void apply(struct hand_member *member, const struct con_entry *entry)
{
    cr_assert_eq(entry->index, member->applied + 1, "applied %" PRIu64 " after %" PRIu64,
                 entry->index, member->applied);
    member->applied = entry->index;
    if (entry->kind == CON_ENTRY_COMMAND)
        base_buf_put_bytes(&member->state, entry->data);
}

/* Answers from the disk, as the driver does. What was lent must live until the next output was
 * read: it lives in `lent`, freed by the caller after that. */
static void answer_fetch(struct hand *hand, struct hand_member *member,
                         const struct con_raft_fetch *fetch)
{
    const struct raft_disk *disk = &member->disk;
    size_t count = 0, bytes = 0;

    member->fetches++;
    if (hand->fail_fetches) {
        con_raft_fetch_failed(member->raft, fetch->member);
    } else if (fetch->snapshot) {
        size_t len = disk->state.len - (size_t)fetch->offset;

        if (disk->snapshot_index == 0 ||
            (fetch->first != 0 && fetch->first != disk->snapshot_index) ||
            fetch->offset > disk->state.len) {
            con_raft_fetch_failed(member->raft, fetch->member);
            return;
        }
        con_raft_fetched_chunk(member->raft, fetch->member, disk->snapshot_index,
                               disk->snapshot_term, &disk->snapshot_config, fetch->offset,
                               disk->state.len,
                               base_bytes(disk->state.data + fetch->offset,
                                          len < fetch->bytes_max ? len : fetch->bytes_max));
    } else {
        const struct con_entry *first = raft_disk_entry(disk, fetch->first);

        while (first && fetch->first + count < disk->begin + disk->count &&
               (count == 0 || bytes + first[count].data.len <= fetch->bytes_max))
            bytes += first[count++].data.len;
        if (count)
            con_raft_fetched(member->raft, fetch->member, first, count);
        else
            con_raft_fetch_failed(member->raft, fetch->member);
    }
}

static void write_keep(struct hand_member *member, const struct con_raft_output *out)
{
    struct con_message **after = malloc((out->after_count + 1) * sizeof(struct con_message *));

    for (size_t i = 0; i < out->after_count; i++)
        after[i] = raft_message_copy(&out->after[i]);
    member->write = *out;
    member->write.entries = raft_entries_copy(out->entries, out->entry_count);
    member->write.after = (const struct con_message *)after;
    member->writing = true;
}

void hand_written(struct hand *hand, uint64_t id)
{
    struct hand_member *member = member_of(hand, id);
    struct con_raft_output write = member->write;
    struct con_message **after = (struct con_message **)(uintptr_t)write.after;

    cr_assert(member->writing);
    raft_disk_write(&member->disk, write.save_vote, write.term, write.vote, write.entries,
                    write.entry_count);
    for (size_t i = 0; i < write.after_count; i++) {
        send_message(hand, id, after[i]);
        free(after[i]);
    }
    write_forget(member);
    con_raft_persisted(member->raft, write.persisted_term, write.persisted_index);
    hand_run(hand, id);
}

void hand_chunk_stored(struct hand *hand, uint64_t id)
{
    struct hand_member *member = member_of(hand, id);
    bool installed = false, stored = raft_disk_receive(&member->disk, &member->chunk, &installed);

    cr_assert(member->chunk.here);
    if (installed && member->disk.snapshot_index > member->applied) {
        member->state.len = 0;
        base_buf_put_bytes(&member->state, base_buf_bytes(&member->disk.state));
        member->applied = member->disk.snapshot_index;
    }
    free((void *)(uintptr_t)member->chunk.data.data);
    memset(&member->chunk, 0, sizeof(member->chunk));
    con_raft_chunk_stored(member->raft, stored);
    hand_run(hand, id);
}

static void take_chunk(struct hand *hand, uint64_t id, const struct con_raft_chunk *chunk)
{
    struct hand_member *member = member_of(hand, id);
    uint8_t *data = malloc(chunk->data.len + 1);

    cr_assert(!member->chunk.here, "a second chunk while one is being stored");
    if (chunk->data.len)
        memcpy(data, chunk->data.data, chunk->data.len);
    member->chunk = *chunk;
    member->chunk.data.data = data;
    member->chunk_config = *chunk->config;
    member->chunk.config = &member->chunk_config;
}

void hand_run(struct hand *hand, uint64_t id)
{
    struct hand_member *member = member_of(hand, id);
    struct con_raft_output out;
    struct con_raft_fetch fetches[HAND_MAX];
    size_t fetch_count;

    for (int rounds = 0; member->raft && !con_raft_idle(member->raft, member->writing); rounds++) {
        cr_assert(rounds < SETTLE_ROUNDS_MAX, "outputs without end");
        con_raft_output(member->raft, member->writing, &out);
        for (size_t i = 0; i < out.now_count; i++)
            send_message(hand, id, &out.now[i]);
        for (size_t i = 0; i < out.apply_count; i++)
            apply(member, &out.apply[i]);
        for (size_t i = 0; i < out.read_count && member->read_count < HAND_READS_MAX; i++)
            member->reads[member->read_count++] = out.reads[i];
        cr_assert(out.fetch_count <= HAND_MAX);
        fetch_count = out.fetch_count;
        for (size_t i = 0; i < fetch_count; i++)
            fetches[i] = out.fetches[i];
        if (out.chunk.here)
            take_chunk(hand, id, &out.chunk);
        if (!member->writing && (out.save_vote || out.entry_count || out.after_count)) {
            write_keep(member, &out);
            if (!member->hold_writes)
                hand_written(hand, id);
        }
        for (size_t i = 0; i < fetch_count; i++)
            answer_fetch(hand, member, &fetches[i]);
        if (member->chunk.here && !member->hold_chunks && !member->writing)
            hand_chunk_stored(hand, id);
    }
    if (member->raft && member->chunk.here && !member->hold_chunks && !member->writing)
        hand_chunk_stored(hand, id);
}

void hand_deliver(struct hand *hand, const struct con_message *message)
{
    struct hand_member *member = member_of(hand, message->to);

    if (member->raft == NULL)
        return;
    con_raft_receive(member->raft, message, member->now);
    hand_run(hand, message->to);
}

struct con_message *hand_take(struct hand *hand, enum con_message_kind kind, uint64_t from,
                              uint64_t to)
{
    for (size_t i = 0; i < hand->flight_count; i++) {
        struct con_message *message = hand->flight[i];

        if ((kind && message->kind != kind) || (from && message->from != from) ||
            (to && message->to != to))
            continue;
        hand->flight_count--;
        memmove(&hand->flight[i], &hand->flight[i + 1],
                (hand->flight_count - i) * sizeof(hand->flight[0]));
        return message;
    }
    return NULL;
}

void hand_settle(struct hand *hand)
{
    struct con_message *message;

    for (int rounds = 0; (message = hand_take(hand, 0, 0, 0)) != NULL; rounds++) {
        cr_assert(rounds < SETTLE_ROUNDS_MAX, "messages without end");
        if (!hand->cut[message->from][message->to])
            hand_deliver(hand, message);
        free(message);
    }
}

void hand_drop_all(struct hand *hand)
{
    while (hand->flight_count > 0)
        free(hand->flight[--hand->flight_count]);
}

void hand_isolate(struct hand *hand, uint64_t id, bool isolated)
{
    for (int i = 0; i < HAND_MAX; i++)
        hand->cut[id][i] = hand->cut[i][id] = isolated;
}

void hand_tick(struct hand *hand, uint64_t id, int64_t ms)
{
    struct hand_member *member = member_of(hand, id);

    member->now += ms * HAND_MS;
    if (member->raft) {
        con_raft_tick(member->raft, member->now);
        hand_run(hand, id);
    }
}

void hand_pass(struct hand *hand, int64_t ms)
{
    for (; ms > 0; ms -= 10) {
        for (uint64_t id = 1; id < HAND_MAX; id++)
            hand_tick(hand, id, 10);
        hand_settle(hand);
    }
}

void hand_age(struct hand *hand, int64_t ms)
{
    for (int i = 0; i < HAND_MAX; i++)
        hand->members[i].now += ms * HAND_MS;
}

void hand_elect(struct hand *hand, uint64_t id)
{
    hand_age(hand, 2000);
    con_raft_campaign(member_of(hand, id)->raft);
    hand_run(hand, id);
    hand_settle(hand);
    cr_assert(hand_leads(hand, id), "member %" PRIu64 " does not lead", id);
}

void hand_crash(struct hand *hand, uint64_t id)
{
    struct hand_member *member = member_of(hand, id);

    for (size_t j = 0; member->writing && j < member->write.after_count; j++)
        free((void *)(uintptr_t)((struct con_message *const *)member->write.after)[j]);
    write_forget(member);
    free((void *)(uintptr_t)member->chunk.data.data);
    memset(&member->chunk, 0, sizeof(member->chunk));
    con_raft_free(member->raft);
    member->raft = NULL;
    member->read_count = 0;
    for (size_t i = hand->flight_count; i-- > 0;) /* its unsent messages go with it */
        if (hand->flight[i]->from == id)
            free(hand_take(hand, 0, id, 0));
}

void hand_restart(struct hand *hand, uint64_t id)
{
    cr_assert_null(member_of(hand, id)->raft);
    start(hand, id);
}

uint64_t hand_propose(struct hand *hand, uint64_t id, const char *command)
{
    uint64_t index = 0, term = 0;
    enum con_refusal refusal =
        con_raft_propose(member_of(hand, id)->raft, base_bytes_str(command), &index, &term);

    cr_assert_eq(refusal, CON_TAKEN, "\"%s\" refused: %d", command, refusal);
    cr_assert(index > 0 && term == hand_status(hand, id).term);
    hand_run(hand, id);
    return index;
}

enum con_refusal hand_change(struct hand *hand, uint64_t id, const struct con_config *next)
{
    uint64_t index = 0;
    enum con_refusal refusal = con_raft_change(member_of(hand, id)->raft, next, &index);

    cr_assert((refusal == CON_TAKEN) == (index > 0));
    hand_run(hand, id);
    return refusal;
}

void hand_compact(struct hand *hand, uint64_t id, uint64_t drop)
{
    struct hand_member *member = member_of(hand, id);
    struct con_config config = *con_raft_config_at(member->raft, member->applied);

    raft_disk_snapshot(&member->disk, member->applied,
                       con_raft_term_at(member->raft, member->applied), &config,
                       base_buf_bytes(&member->state), drop);
    con_raft_compacted(member->raft, drop);
    hand_run(hand, id);
}

struct con_raft_status hand_status(const struct hand *hand, uint64_t id)
{
    cr_assert_not_null(hand->members[id].raft, "member %" PRIu64 " is down", id);
    return con_raft_status(hand->members[id].raft);
}

bool hand_leads(const struct hand *hand, uint64_t id)
{
    return hand_status(hand, id).role == CON_LEADER;
}

uint64_t hand_leader(const struct hand *hand)
{
    uint64_t leader = 0, term = 0;

    for (uint64_t id = 1; id < HAND_MAX; id++)
        if (hand->members[id].raft && hand_leads(hand, id) && hand_status(hand, id).term > term) {
            leader = id;
            term = hand_status(hand, id).term;
        }
    return leader;
}

const char *hand_terms(const struct hand *hand, uint64_t id)
{
    static char text[2000];
    const struct raft_disk *disk = &hand->members[id].disk;
    size_t at = 0;

    text[0] = 0;
    for (size_t i = 0; i < disk->count && at + 24 < sizeof(text); i++)
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%" PRIu64, i ? " " : "",
                               disk->entries[i].term);
    return text;
}

const char *hand_state(const struct hand *hand, uint64_t id)
{
    static char text[HAND_MAX][4000];
    const struct base_buf *state = &hand->members[id].state;

    cr_assert(state->len < sizeof(text[0]));
    if (state->len)
        memcpy(text[id], state->data, state->len);
    text[id][state->len] = 0;
    return text[id];
}

const struct con_raft_read *hand_read(const struct hand *hand, uint64_t member, uint64_t id)
{
    for (size_t i = 0; i < hand->members[member].read_count; i++)
        if (hand->members[member].reads[i].id == id)
            return &hand->members[member].reads[i];
    return NULL;
}
