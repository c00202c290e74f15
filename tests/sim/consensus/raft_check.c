/* raft_check.c: what must hold at every step, over all members of a group together.
 *
 * Figure 3.2 of the Raft paper (2014):
 * - election safety: at most one leader a term;
 * - leader append-only: a leader never overwrites or removes entries of its log;
 * - log matching: an entry's index and term say what it is and what is before it: each (index,
 *   term) has one content and one predecessor, by induction one past;
 * - leader completeness: what is committed in a term is in the log of every leader of a later one;
 * - state machine safety: at an index all members apply the same entry.
 * Besides: a vote or an acknowledgement leaves only when it is durable; one vote a term for an id,
 * over restarts; what is committed is durable on a quorum of the configuration in force; nothing
 * committed is overwritten; configurations that follow one another have no two disjoint quorums. */
#include "raft_world.h"

#include <inttypes.h>
#include <stdlib.h>

enum { FACT_LEADER = 1, FACT_VOTE, FACT_ENTRY, FACT_CHUNK, FACT_OP, FACT_CONFIG };

static uint64_t fact_key(int what, uint64_t a, uint64_t b)
{
    return rw_hash(rw_hash(rw_hash((uint64_t)what, a), b), 5);
}

static void at_member(const struct rw_member *member, char *text, size_t size)
{
    snprintf(text, size, "n%d g%d", member->node, member->group->number);
}
#define FAIL(member, fmt, ...)                                                 \
    do {                                                                       \
        char who_[40];                                                         \
        at_member((member), who_, sizeof(who_));                               \
        rw_fail((member)->world, "%s: " fmt, who_ __VA_OPT__(, ) __VA_ARGS__); \
    } while (0)

static bool deep(const struct rw_member *member)
{
    return !member->world->options.outcome_only;
}

static uint64_t entry_hash(const struct con_entry *entry, uint64_t before)
{
    return rw_hash_bytes(rw_hash(rw_hash(before, (uint64_t)entry->kind), 9), entry->data);
}

/* Each (index, term) is one entry with one before it, wherever it is seen. */
static void log_matching(struct rw_member *member, const struct con_entry *entries, size_t count,
                         uint64_t before)
{
    uint64_t there = 0, hash;

    for (size_t i = 0; i < count && !member->world->broken; i++) {
        hash = entry_hash(&entries[i], before);
        if (entries[i].index > 1 && before == 0)
            FAIL(member, "what is before entry %" PRIu64 " is not known", entries[i].index);
        if (!rw_map_put(&member->group->facts,
                        fact_key(FACT_ENTRY, entries[i].index, entries[i].term), hash, &there) &&
            there != hash)
            FAIL(member, "entry %" PRIu64 " of term %" PRIu64 " is not the same everywhere",
                 entries[i].index, entries[i].term);
        before = entries[i].term;
    }
}

/* ---- messages ---- */

static void check_promise(struct rw_member *from, const struct con_message *message)
{
    const struct raft_disk *disk = &from->disk;
    uint64_t other;

    if (message->kind == CON_VOTE_REPLY && !message->reject) {
        if (!(disk->term > message->term ||
              (disk->term == message->term && disk->vote == message->to)))
            FAIL(from, "votes for %" PRIx64 " in term %" PRIu64 " before that is durable",
                 message->to, message->term);
        if (!rw_map_put(&from->group->facts, fact_key(FACT_VOTE, disk->id, message->term),
                        message->to, &other) &&
            other != message->to)
            FAIL(from, "votes twice in term %" PRIu64 ": for %" PRIx64 " and %" PRIx64,
                 message->term, other, message->to);
    }
    if (message->kind == CON_APPEND_REPLY && !message->reject &&
        !(disk->term > message->term || raft_disk_last(disk) >= message->index))
        FAIL(from, "acknowledges %" PRIu64 ", durable is %" PRIu64, message->index,
             raft_disk_last(disk));
}

void rw_check_send(struct rw_member *from, const struct con_message *message)
{
    struct rw_world *world = from->world;
    int to = rw_id_node(message->to);
    uint64_t there;

    if (message->from != from->disk.id)
        FAIL(from, "a message from another");
    if (deep(from))
        check_promise(from, message);
    log_matching(from, message->entries, message->entry_count, message->log_term);
    if (message->kind == CON_PRE_VOTE_REPLY && message->reject)
        rw_probe(world, RW_PROBE_pre_vote_refused);
    if (message->kind == CON_SNAPSHOT &&
        !rw_map_put(&from->group->facts,
                    fact_key(FACT_CHUNK, rw_hash(message->from, message->to),
                             rw_hash(message->index, message->offset)),
                    message->term, &there) &&
        message->offset > 0 && there == message->term)
        rw_probe(world, RW_PROBE_chunk_resent);
    if (message->kind == CON_APPEND && message->entry_count > 0 && to >= 0 && to < RW_NODES_MAX &&
        ++from->unanswered[to] == world->swarm.raft.inflight_messages_max)
        rw_probe(world, RW_PROBE_flow_stalled);
}

void rw_check_deliver(struct rw_member *to, const struct con_message *message)
{
    struct rw_world *world = to->world;
    struct con_raft_status status = con_raft_status(to->raft);
    const struct con_member *from = con_config_member(status.config, message->from);

    if (message->to != to->disk.id)
        return;
    to->voted_by_witness = false;
    if (message->kind == CON_APPEND_REPLY) {
        to->unanswered[rw_id_node(message->from)] = 0;
        if (message->reject && status.role == CON_LEADER && message->term == status.term &&
            message->hint_index + 2 < message->index)
            rw_probe(world, RW_PROBE_hint_repair);
    }
    if (message->kind == CON_VOTE_REPLY && !message->reject && message->term == status.term) {
        if (to->granted_term != status.term)
            to->granted_count = 0;
        to->granted_term = status.term;
        for (uint32_t i = 0; i < to->granted_count; i++)
            if (to->granted_by[i] == message->from) {
                rw_probe(world, RW_PROBE_duplicate_vote);
                return;
            }
        if (to->granted_count < CON_MEMBERS_MAX)
            to->granted_by[to->granted_count++] = message->from;
        to->voted_by_witness = from && from->witness && status.role == CON_CANDIDATE;
    }
}

/* ---- the log ---- */

static void check_config_entry(struct rw_member *member, const struct con_entry *entry)
{
    struct con_raft_status status = con_raft_status(member->raft);
    const struct con_config *before = con_raft_config_at(member->raft, entry->index - 1);
    struct con_config config;

    if (base_status_drop(con_config_decode(entry->data, &config)) != BASE_OK) {
        FAIL(member, "entry %" PRIu64 ": not a configuration", entry->index);
        return;
    }
    if (before->count > 0 && !raft_quorums_meet(before, &config))
        FAIL(member, "configurations of %" PRIu64 " and %" PRIu64 " have disjoint quorums",
             before->index, entry->index);
    if (status.role == CON_LEADER && entry->term == status.term && before->index > status.commit)
        FAIL(member, "a second configuration, %" PRIu64 ", before %" PRIu64 " is committed",
             entry->index, before->index);
}

/* Configurations are looked at when they are handed out; what an entry is counts from when it is
 * durable, or sent: a group of one writes vote and entries at once, and a crash may undo both. */
void rw_check_entries(struct rw_member *member, const struct con_entry *entries, size_t count)
{
    for (size_t i = 0; i < count && deep(member); i++)
        if (entries[i].kind == CON_ENTRY_CONFIG)
            check_config_entry(member, &entries[i]);
}

/* On how many stores of the configuration is it, lost ones included? */
static bool durable_on_quorum(const struct rw_group *group, const struct con_config *config,
                              uint64_t index, uint64_t term)
{
    uint32_t have = 0;

    for (uint32_t i = 0; i < config->count; i++) {
        uint64_t id = config->members[i].id;
        const struct rw_member *member = &group->members[rw_id_node(id)];
        const struct raft_disk *disk = member->disk.id == id ? &member->disk : NULL;

        for (int j = 0; j < group->grave_count && !disk; j++)
            if (group->graves[j].id == id)
                disk = &group->graves[j];
        if (disk && (disk->snapshot_index >= index || raft_disk_term_at(disk, index) == term))
            have |= 1u << i;
    }
    return raft_is_quorum(config, have);
}

void rw_check_write(struct rw_member *member, const struct con_raft_output *out)
{
    struct rw_group *group = member->group;
    struct raft_disk *disk = &member->disk;
    struct con_config config;
    uint64_t index = out->entry_count ? out->entries[0].index : 0, old, other;

    if (index > 0)
        log_matching(member, out->entries, out->entry_count, raft_disk_term_at(disk, index - 1));
    if (out->save_vote && deep(member)) {
        if (out->term < disk->term)
            FAIL(member, "term %" PRIu64 " after %" PRIu64, out->term, disk->term);
        if (out->vote != 0 &&
            !rw_map_put(&group->facts, fact_key(FACT_VOTE, disk->id, out->term), out->vote,
                        &other) &&
            other != out->vote)
            FAIL(member, "votes twice in term %" PRIu64 ": for %" PRIx64 " and %" PRIx64, out->term,
                 other, out->vote);
    }
    if (index == 0 || index > raft_disk_last(disk))
        return;
    old = raft_disk_term_at(disk, index);
    if (old == out->entries[0].term)
        return;
    rw_probe(member->world, RW_PROBE_suffix_overwritten);
    if (!deep(member))
        return;
    /* Who has not come to the term in which it was committed was not counted: it may yet follow an
     * earlier leader that did not have it, as one that was paused for long and reads old mail. */
    if (index <= group->log_count && group->log[index - 1].term == old &&
        disk->term >= group->log[index - 1].commit_term)
        FAIL(member, "committed entry %" PRIu64 " of term %" PRIu64 " is overwritten", index, old);
    raft_disk_config(disk, &config);
    if (durable_on_quorum(group, &config, index, old))
        rw_probe(member->world, RW_PROBE_figure_8_lost);
}

/* ---- what is committed ---- */

static struct rw_committed *committed_add(struct rw_member *member, const struct con_entry *entry)
{
    struct rw_group *group = member->group;
    struct rw_committed *fact;
    uint64_t term;

    if (group->log_count == group->log_cap) {
        group->log_cap = group->log_cap ? 2 * group->log_cap : 256;
        group->log = realloc(group->log, group->log_cap * sizeof(group->log[0]));
    }
    fact = &group->log[group->log_count++];
    memset(fact, 0, sizeof(*fact));
    fact->term = entry->term;
    fact->kind = entry->kind;
    fact->commit_term = con_raft_status(member->raft).term;
    fact->data_hash = entry_hash(entry, 0);
    fact->config_index = entry->kind == CON_ENTRY_CONFIG ? entry->index
                         : entry->index > 1              ? group->log[entry->index - 2].config_index
                                                         : 0;
    rw_machine_apply(&group->model, entry, &fact->cas_failed);
    fact->machine_hash = group->model.hash;
    if (rw_map_get(&group->facts, fact_key(FACT_CONFIG, entry->index, 0), &term) &&
        term != entry->term && deep(member))
        FAIL(member, "configuration %" PRIu64 " of term %" PRIu64 " was sure, and is not committed",
             entry->index, term);
    return fact;
}

/* By one of the configurations from the entry's own to the leader's newest: whichever it was that
 * decided when it counted. */
static bool durable_in_force(const struct rw_member *leader, uint64_t index)
{
    const struct con_config *config = con_raft_status(leader->raft).config;
    uint64_t term = con_raft_term_at(leader->raft, index);

    while (!durable_on_quorum(leader->group, config, index, term)) {
        if (config->index <= index)
            return false;
        config = con_raft_config_at(leader->raft, config->index - 1);
    }
    return true;
}

static void check_commit(struct rw_member *leader, uint64_t commit)
{
    uint64_t *checked = &leader->group->durable_checked;

    for (; *checked < commit && !leader->world->broken; ++*checked)
        if (*checked + 1 >= con_raft_status(leader->raft).first &&
            !durable_in_force(leader, *checked + 1))
            FAIL(leader, "entry %" PRIu64 " is committed, but not durable on a quorum",
                 *checked + 1);
}

static void check_new(struct rw_member *member, const struct con_entry *entry)
{
    int64_t op = rw_entry_op(entry);
    uint64_t there;

    if (deep(member) && entry->index > member->group->durable_checked)
        FAIL(member, "applies %" PRIu64 ", which no leader has committed", entry->index);
    if (op < 0)
        return;
    if (!rw_map_put(&member->group->facts, fact_key(FACT_OP, (uint64_t)op, 0), entry->index,
                    &there))
        FAIL(member, "operation %" PRIi64 " is committed twice, at %" PRIu64 " and %" PRIu64, op,
             there, entry->index);
    if (member->group->ops[op].state == RW_OP_ABSENT)
        FAIL(member,
             "operation %" PRIi64 " is committed at %" PRIu64 ", though refused or replaced", op,
             entry->index);
}

void rw_check_applied(struct rw_member *member, const struct con_entry *entry)
{
    struct rw_group *group = member->group;
    const struct rw_committed *fact;

    if (entry->index > group->log_count + 1) {
        FAIL(member, "applies %" PRIu64 ", committed were %" PRIu64, entry->index,
             group->log_count);
        return;
    }
    if (entry->index == group->log_count + 1) {
        check_new(member, entry);
        committed_add(member, entry);
    }
    fact = &group->log[entry->index - 1];
    if (fact->term != entry->term || fact->data_hash != entry_hash(entry, 0))
        FAIL(member, "applies another entry at %" PRIu64 ": of term %" PRIu64 ", not %" PRIu64,
             entry->index, entry->term, fact->term);
    if (!member->witness && member->machine.hash != fact->machine_hash)
        FAIL(member, "its state after %" PRIu64 " is another", entry->index);
    if (con_raft_status(member->raft).term < fact->commit_term)
        ((struct rw_committed *)fact)->commit_term = con_raft_status(member->raft).term;
}

/* A snapshot on disk is that of what is committed. */
/* Whether every member that runs has it as a voter with a state, whatever configuration it has. */
static bool votes_for_all(const struct rw_group *group, uint64_t id)
{
    for (int i = 0; i < group->world->node_count; i++) {
        const struct con_member *known;

        if (!group->members[i].raft)
            continue;
        known = con_config_member(con_raft_status(group->members[i].raft).config, id);
        if (!known || !known->voter || known->witness)
            return false;
    }
    return true;
}

void rw_check_witness_drops(struct rw_member *member, uint64_t index)
{
    struct rw_group *group = member->group;

    for (int i = 0; i < group->world->node_count && !group->world->swarm.witness_full; i++) {
        const struct rw_member *other = &group->members[i];

        if (other->present && votes_for_all(group, other->disk.id) &&
            raft_disk_last(&other->disk) < index)
            FAIL(member, "a witness drops up to %" PRIu64 ", n%d has only up to %" PRIu64, index,
                 other->node, raft_disk_last(&other->disk));
    }
}

void rw_check_snapshot(struct rw_member *member)
{
    const struct rw_group *group = member->group;
    const struct raft_disk *disk = &member->disk;
    const struct rw_committed *fact;
    struct rw_machine machine = { 0 };

    if (disk->snapshot_index == 0)
        return;
    if (disk->snapshot_index > group->log_count) {
        FAIL(member, "a snapshot of %" PRIu64 ", committed were %" PRIu64, disk->snapshot_index,
             group->log_count);
        return;
    }
    fact = &group->log[disk->snapshot_index - 1];
    if (disk->snapshot_term != fact->term)
        FAIL(member, "a snapshot of %" PRIu64 " says term %" PRIu64 ", not %" PRIu64,
             disk->snapshot_index, disk->snapshot_term, fact->term);
    if (disk->snapshot_config.index != fact->config_index)
        FAIL(member, "a snapshot of %" PRIu64 " has configuration %" PRIu64 ", not %" PRIu64,
             disk->snapshot_index, disk->snapshot_config.index, fact->config_index);
    if (!member->witness && (!rw_machine_load(&machine, base_buf_bytes(&disk->state)) ||
                             machine.hash != fact->machine_hash))
        FAIL(member, "a snapshot of %" PRIu64 " has another state", disk->snapshot_index);
}

/* ---- roles ---- */

static void check_elected(struct rw_member *member, const struct con_raft_status *status)
{
    struct rw_group *group = member->group;
    uint64_t other, index = group->log_count;

    if (!rw_map_put(&group->facts, fact_key(FACT_LEADER, status->term, 0), status->id, &other) &&
        other != status->id)
        FAIL(member, "two leaders in term %" PRIu64 ": %" PRIx64 " and %" PRIx64, status->term,
             other, status->id);
    while (index > 0 && group->log[index - 1].commit_term >= status->term)
        index--;
    if (index >= status->first &&
        con_raft_term_at(member->raft, index) != group->log[index - 1].term)
        FAIL(member,
             "leads term %" PRIu64 ", but has not entry %" PRIu64 " of term %" PRIu64
             ", committed in term %" PRIu64,
             status->term, index, group->log[index - 1].term, group->log[index - 1].commit_term);
    if (member->witness)
        rw_probe(member->world, RW_PROBE_witness_led);
    if (member->voted_by_witness)
        rw_probe(member->world, RW_PROBE_witness_decided);
    for (int i = 0; i < member->world->node_count; i++) {
        struct rw_member *was = &group->members[i];

        if (was->transfer == status->id && was != member && status->term - was->term <= 1)
            rw_probe(member->world, RW_PROBE_transfer_done);
        if (was->paused_as_leader && (uint64_t)was->paused_as_leader < status->term &&
            member->world->nodes[i].paused_till > member->world->now) {
            rw_probe(member->world, RW_PROBE_paused_leader);
            was->paused_as_leader = 0;
        }
    }
    memset(member->unanswered, 0, sizeof(member->unanswered));
    rw_fault_leader(member);
}

/* The situation of figure 8: a majority holds an entry, and it is not committed. */
static void look_figure_8(struct rw_member *member, const struct con_raft_status *status)
{
    uint64_t index = status->commit + 1, term = con_raft_term_at(member->raft, index);
    uint32_t have = 0;

    if (term == 0 || term == status->term)
        return;
    for (uint32_t i = 0; i < status->config->count; i++) {
        uint64_t id = status->config->members[i].id, match = 0;
        int64_t heard;

        if (id == status->id)
            match = status->persisted;
        else if (!con_raft_progress(member->raft, id, &match, &heard))
            match = 0;
        have |= (uint32_t)(match >= index) << i;
    }
    if (raft_is_quorum(status->config, have))
        rw_probe(member->world, RW_PROBE_figure_8);
}

static void check_stepped_down(struct rw_member *member, const struct con_raft_status *status)
{
    const struct con_member *self = con_config_member(status->config, status->id);

    if (status->term != member->term)
        return;
    if ((!self || !self->voter) && status->config->index <= status->commit)
        rw_probe(member->world, RW_PROBE_leader_removed);
    else if (member->by_tick)
        rw_probe(member->world, RW_PROBE_check_quorum);
}

/* What it takes for a committed configuration is one, or will be. */
static void check_sure_config(struct rw_member *member)
{
    struct rw_group *group = member->group;
    uint64_t index = con_raft_config_committed(member->raft)->index, there,
             term = con_raft_term_at(member->raft, index);

    if (index == member->sure_config || index == 0 || term == 0)
        return;
    member->sure_config = index;
    if (!rw_map_put(&group->facts, fact_key(FACT_CONFIG, index, 0), term, &there) && there != term)
        FAIL(member,
             "configuration %" PRIu64 " of term %" PRIu64 " is sure, and that of %" PRIu64 " was",
             index, term, there);
    if (index <= group->log_count &&
        (group->log[index - 1].term != term || group->log[index - 1].kind != CON_ENTRY_CONFIG))
        FAIL(member, "configuration %" PRIu64 " of term %" PRIu64 " is sure, but not committed",
             index, term);
}

void rw_check_removed(struct rw_member *member, uint64_t index)
{
    const struct rw_group *group = member->group;

    for (int i = 0; i < group->world->node_count; i++) {
        const struct con_config *config;

        if (!group->members[i].raft)
            continue;
        config = con_raft_config_committed(group->members[i].raft);
        if (config->index >= index && con_config_member(config, member->disk.id))
            FAIL(member, "is told that it is no member at %" PRIu64 ", and is at %" PRIu64, index,
                 config->index);
    }
}

void rw_check_member(struct rw_member *member)
{
    struct con_raft_status status = con_raft_status(member->raft);
    uint64_t transfer = status.role == CON_LEADER ? status.transfer : 0;

    if (deep(member))
        check_sure_config(member);
    if (status.term < member->term)
        FAIL(member, "term %" PRIu64 " after %" PRIu64, status.term, member->term);
    if (status.applied > status.commit || status.commit > status.last ||
        status.persisted > status.last)
        FAIL(member, "applied %" PRIu64 ", committed %" PRIu64 ", last %" PRIu64, status.applied,
             status.commit, status.last);
    if (status.role == CON_LEADER && (member->role != CON_LEADER || member->term != status.term)) {
        rw_trace(member->world, "n%d g%d LEADS term %" PRIu64, member->node, member->group->number,
                 status.term);
        check_elected(member, &status);
    } else if (status.role == CON_LEADER &&
               (status.last < member->last ||
                (member->last >= status.first &&
                 con_raft_term_at(member->raft, member->last) != member->last_term))) {
        FAIL(member, "a leader's log lost entry %" PRIu64, member->last);
    }
    if (deep(member) &&
        (status.role == CON_LEADER || (member->role == CON_LEADER && member->term == status.term)))
        check_commit(member, status.commit);
    if (status.role == CON_LEADER && deep(member))
        look_figure_8(member, &status);
    if (status.role != CON_LEADER && member->role == CON_LEADER)
        check_stepped_down(member, &status);
    if (member->transfer && status.role == CON_LEADER && member->term == status.term && !transfer)
        rw_probe(member->world, RW_PROBE_transfer_given_up);
    if (status.role == CON_LEADER || status.term > member->term + 1)
        member->transfer = transfer;
    if (status.quiet && ((status.role != CON_LEADER && !status.leader) ||
                         status.applied != status.last || status.persisted != status.last))
        FAIL(member, "is quiet with something to do");
    if (status.quiet && !member->quiet) {
        rw_trace(member->world, "n%d g%d is quiet", member->node, member->group->number);
        if (status.role == CON_LEADER)
            rw_probe(member->world, RW_PROBE_went_quiet);
    }
    member->quiet = status.quiet;
    member->role = status.role;
    member->term = status.term;
    member->last = status.last;
    member->last_term = con_raft_term_at(member->raft, status.last);
    if (status.role == CON_LEADER && status.config->index <= status.commit &&
        !status.config->joint && member->group->founded_by_one && status.config->count >= 3) {
        uint32_t voters = 0;

        for (uint32_t i = 0; i < status.config->count; i++)
            voters += status.config->members[i].voter;
        if (voters >= 3) {
            member->group->founded_by_one = false;
            rw_probe(member->world, RW_PROBE_grew_from_one);
        }
    }
}

void rw_check_crash(struct rw_member *member)
{
    struct con_raft_status status = con_raft_status(member->raft);

    if (status.role == CON_LEADER && status.config->joint)
        rw_probe(member->world, RW_PROBE_joint_leader_crash);
    if (status.role == CON_LEADER && status.quiet)
        rw_probe(member->world, RW_PROBE_quiet_leader_crash);
}

/* A new life: what is remembered of the last one is what the disk says. */
void rw_check_start(struct rw_member *member)
{
    struct con_raft_status status = con_raft_status(member->raft);

    if (deep(member))
        rw_check_snapshot(member);
    if (status.last != raft_disk_last(&member->disk) || status.role != CON_FOLLOWER)
        FAIL(member, "starts with last %" PRIu64 ", its disk has %" PRIu64, status.last,
             raft_disk_last(&member->disk));
    member->role = CON_FOLLOWER;
    member->term = status.term;
    member->last = status.last;
    member->last_term = con_raft_term_at(member->raft, status.last);
    member->transfer = 0;
    member->paused_as_leader = 0;
    member->quiet = false;
    member->sure_config = 0;
    member->granted_term = 0;
    memset(member->unanswered, 0, sizeof(member->unanswered));
}
