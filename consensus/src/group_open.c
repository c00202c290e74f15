/* group_open.c: from a folder to a running member, and back.
 *
 * Founding: a group's first entry is the configuration with the founder alone, in term 1, with the
 * founder's vote for itself in that term; it is written before anything is said. So a restart finds
 * the configuration in the log like any later one, and all who join get it from there. A group of
 * one founds itself when its folder is empty; of larger groups one member is told to (con_log_
 * options.found), and asks the others first (group_join.c).
 *
 * Damage: the log of a member with others is set aside and the member begins anew, under another
 * id: it has forgotten what it voted for, so its old name must never vote again. Alone there is
 * nobody to get it back from: DATA_LOSS, and nothing is touched. */
#include "group_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "chassis/log.h"
#include "node_int.h"

const struct con_log_ops con__group_ops = {
    .propose = con__group_propose,
    .read_barrier = con__group_read_barrier,
    .wait_lead = con__group_wait_lead,
    .leader = con__group_leader,
    .close = con__group_close,
    .look = con__group_look,
    .add = con__group_add,
    .remove = con__group_remove,
    .transfer = con__group_transfer,
    .term = con__group_lead_term,
    .applied = con__group_applied,
    .failure = con__group_failure,
};

uint64_t con__group_lead_term(const struct con_log *log)
{
    return con__group_of(log)->lead_term;
}

uint64_t con__group_applied(const struct con_log *log)
{
    return con__group_of(log)->applied;
}

const char *con__group_failure(const struct con_log *log)
{
    const struct con__group *group = con__group_of(log);

    return base_failed(group->failure) ? base_status_text(&group->failure) : NULL;
}

/* ---- loading ---- */

static void raft_make(struct con__group *group, const struct con_raft_start *start)
{
    struct con_raft_options options = {
        .id = group->store.member,
        .seed = ch_random(group->env),
        .election_ns = group->election,
        .heartbeat_ns = group->heartbeat,
        .quiet = group->node != NULL,
    };

    con_raft_free(group->raft);
    group->raft = con_raft_new(&options, start, ch_now(group->env));
}

static void raft_need(struct con__group *group)
{
    struct con_raft_start nothing = { .term = 0 };

    if (!group->raft)
        raft_make(group, &nothing);
}

static struct base_status load_snapshot(void *self, uint64_t index, uint64_t term,
                                        const struct con_config *config, struct base_bytes state)
{
    struct con__group *group = self;
    struct con_raft_start start = { .snapshot_index = index,
                                    .snapshot_term = term,
                                    .config = *config };

    raft_make(group, &start);
    group->applied = group->snapshot_index = index;
    group->snapshot_bytes = state.len;
    con__config_applied(group, config);
    if (group->witness)
        return BASE_STATUS_OK;
    return base_status_wrap(group->machine.restore(group->machine.self, state),
                            "restore the snapshot of index %" PRIu64, index);
}

static struct base_status load_vote(void *self, uint64_t term, uint64_t vote)
{
    struct con__group *group = self;

    raft_need(group);
    con_raft_load_vote(group->raft, term, vote);
    return BASE_STATUS_OK;
}

static struct base_status load_entry(void *self, const struct con_entry *entry)
{
    struct con__group *group = self;

    raft_need(group);
    return con_raft_load(group->raft, entry);
}

static CH_WAITS struct base_status store_load(struct con__group *group,
                                              const struct con_log_options *options)
{
    struct con_store_visitor visitor = { load_snapshot, load_vote, load_entry, group };
    struct base_status status = BASE_STATUS_OK;

    if (options->store)
        group->store = *options->store;
    else
        status = con_store_local_open(group->env, options->dir, &group->store);
    if (base_failed(status))
        return status;
    status = group->store.load(group->store.self, &visitor);
    if (base_failed(status)) {
        group->store.close(group->store.self);
        con_raft_free(group->raft);
        group->raft = NULL;
        return status;
    }
    raft_need(group);
    return status;
}

/* Damage, with others to get it all back from. */
static CH_WAITS struct base_status store_load_anew(struct con__group *group,
                                                   const struct con_log_options *options)
{
    struct base_status status = store_load(group, options);

    if (status.code != BASE_DATA_LOSS || !group->node || options->store)
        return status;
    ch_error(group->env, "group %s: the log is set aside, this member begins anew: %s", group->name,
             base_status_text(&status));
    base_status_free(&status);
    status = con_store_local_set_aside(group->env, options->dir);
    if (base_failed(status))
        return base_status_wrap(status, "set the damaged log aside");
    group->applied = group->snapshot_index = group->snapshot_bytes = group->member_since = 0;
    group->removed = false;
    return store_load(group, options);
}

struct base_status con__group_begin(struct con__group *group)
{
    struct con_config config = { .index = 1, .count = 1 };
    struct con_raft_status before = con_raft_status(group->raft);
    struct con_raft_start start = { .term = 1, .vote = group->store.member };
    struct con_entry entry = { .index = 1, .term = 1, .kind = CON_ENTRY_CONFIG };
    struct con_store_write write = {
        .save_vote = true, .term = 1, .vote = start.vote, .entries = &entry, .entry_count = 1
    };
    struct base_buf data = { 0 };
    struct base_status status;

    if (before.last > 0 || before.term > 1 || before.config->count > 0)
        return base_status_make(BASE_INTERNAL, "found a group over a log that is not empty");
    config.members[0] = (struct con_member){ .id = group->store.member, .voter = true };
    snprintf(config.members[0].address, sizeof(config.members[0].address), "%s", group->self);
    con_config_encode(&config, &data);
    entry.data = base_buf_bytes(&data);
    group->writing = true;
    status = group->store.write(group->store.self, &write);
    group->writing = false;
    if (!base_failed(status)) {
        raft_make(group, &start);
        status = con_raft_load(group->raft, &entry);
        ch_info(group->env, "group %s: founded by member %016" PRIx64, group->name,
                group->store.member);
    }
    base_buf_free(&data);
    return base_status_wrap(status, "found the group");
}

/* ---- opening ---- */

static struct base_status options_check(const struct con_log_options *options)
{
    ch_time election = options->election ? options->election : CON_ELECTION_MS * CH_MS;
    ch_time heartbeat = options->heartbeat ? options->heartbeat : CON_HEARTBEAT_MS * CH_MS;

    if (heartbeat * 3 >= election)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "a heartbeat is to be less than a third of an election timeout");
    if (options->group && strlen(options->group) >= CON_GROUP_NAME_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "group \"%s\": too long a name",
                                options->group);
    if (!options->node)
        return BASE_STATUS_OK;
    if (!options->group || !*options->group || !options->self || !*options->self ||
        strlen(options->self) >= CON_ADDRESS_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "a member of a group needs the group's name and its own target");
    if (options->peer_count > CON_PEERS_ASKED_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT, "more than %d peers", CON_PEERS_ASKED_MAX);
    if (options->witness && options->learner)
        return base_status_make(BASE_INVALID_ARGUMENT, "a witness votes: it cannot stay a learner");
    return BASE_STATUS_OK;
}

static void metrics_init(struct con__group *group)
{
    struct ch_env *env = group->env;
    char l[CON_GROUP_NAME_MAX * 2 + 32] = "";

    ch_label(l, sizeof(l), "group", group->name);
    group->metrics.proposals =
        ch_counter(env, "strata_consensus_proposals_total", l, "Commands proposed here.");
    group->metrics.commits =
        ch_counter(env, "strata_consensus_commits_total", l, "Commands committed and applied.");
    group->metrics.reads =
        ch_counter(env, "strata_consensus_reads_total", l, "Linearizable reads asked for.");
    group->metrics.bytes =
        ch_counter(env, "strata_consensus_bytes_total", l, "Bytes of entries made durable here.");
    group->metrics.syncs =
        ch_counter(env, "strata_consensus_syncs_total", l, "Durable writes of the log.");
    group->metrics.leaders = ch_counter(env, "strata_consensus_leaderships_total", l,
                                        "Times that this member became leader.");
    group->metrics.snapshots =
        ch_counter(env, "strata_consensus_snapshots_total", l, "Snapshots saved here.");
    group->metrics.chunks = ch_counter(env, "strata_consensus_snapshot_chunks_sent_total", l,
                                       "Pieces of snapshots sent to followers.");
    group->metrics.term = ch_gauge(env, "strata_consensus_term", l, "Term of this member.");
    group->metrics.role =
        ch_gauge(env, "strata_consensus_role", l,
                 "0 follower, 1 asks whether it may stand, 2 candidate, 3 leader: of this member.");
    group->metrics.removed =
        ch_gauge(env, "strata_consensus_removed", l,
                 "1: this member was removed from its group, and only waits to be closed.");
    group->metrics.waiting =
        ch_gauge(env, "strata_consensus_waiting", l, "Commands proposed and not yet applied.");
    group->metrics.sync_ns = ch_histogram(env, "strata_consensus_sync_ns", "",
                                          "Time of a durable write of a log, all groups.");
    group->metrics.commit_ns = ch_histogram(env, "strata_consensus_commit_ns", "",
                                            "Time of a command, until applied, all groups.");
}

static struct con__group *group_new(struct ch_env *env, const struct con_log_options *options,
                                    const struct con_machine *machine)
{
    struct con__group *group = calloc(1, sizeof(*group));

    if (!group)
        abort();
    group->base.ops = &con__group_ops;
    group->env = env;
    group->machine = *machine;
    group->node = options->node;
    group->found = options->found;
    group->witness = options->witness;
    group->learner = options->learner;
    group->election = options->election ? options->election : CON_ELECTION_MS * CH_MS;
    group->heartbeat = options->heartbeat ? options->heartbeat : CON_HEARTBEAT_MS * CH_MS;
    group->snapshot_bytes_min =
        options->snapshot_bytes_min ? options->snapshot_bytes_min : CON_SNAPSHOT_BYTES_MIN;
    snprintf(group->name, sizeof(group->name), "%s", options->group ? options->group : "local");
    snprintf(group->self, sizeof(group->self), "%s", options->self ? options->self : "");
    for (size_t i = 0; options->node && i < options->peer_count; i++)
        group->peers[group->peer_count++] = strdup(options->peers[i]);
    TAILQ_INIT(&group->waiters);
    TAILQ_INIT(&group->readers);
    ch_cond_init(&group->work);
    ch_cond_init(&group->fed);
    ch_cond_init(&group->changed);
    ch_mutex_init(&group->snapshot_lock);
    ch_gate_init(&group->gate, env, "log");
    base_arena_init(&group->job.arena);
    metrics_init(group);
    return group;
}

static void group_free(struct con__group *group)
{
    con_raft_free(group->raft);
    for (size_t i = 0; i < group->peer_count; i++)
        free(group->peers[i]);
    base_arena_free(&group->job.arena);
    base_buf_free(&group->incoming.data);
    base_buf_free(&group->unwanted);
    base_status_free(&group->failure);
    free(group);
}

/* A group of one founds itself; a log of several members is not to be led by one that takes itself
 * for the only one. */
static CH_WAITS struct base_status alone_begin(struct con__group *group)
{
    struct con_raft_status status = con_raft_status(group->raft);
    struct base_status begun = BASE_STATUS_OK;

    if (status.last == 0 && status.config->count == 0)
        begun = con__group_begin(group);
    if (base_failed(begun))
        return begun;
    status = con_raft_status(group->raft);
    if (status.config->count != 1 || status.config->members[0].id != group->store.member)
        return base_status_make(BASE_FAILED_PRECONDITION,
                                "the log is of a group of %u members: it needs the others",
                                status.config->count);
    return begun;
}

static bool sole_voter(const struct con__group *group)
{
    const struct con_config *config = con__group_config(group);
    const struct con_member *self = con_config_member(config, group->store.member);
    uint32_t voters = 0;

    for (uint32_t i = 0; i < config->count; i++)
        voters += config->members[i].voter || config->members[i].voter_old;
    return voters == 1 && self && self->voter && !self->witness;
}

static CH_WAITS struct base_status group_start(struct con__group *group)
{
    struct base_status status = ch_gate_spawn(&group->gate, "log writer", con__writer_fiber, group);

    if (!base_failed(status))
        status = ch_gate_spawn(&group->gate, "log pump", con__pump_fiber, group);
    if (!base_failed(status) && group->node)
        status = con__node_add(group->node, group);
    group->registered = !base_failed(status) && group->node;
    if (!base_failed(status) && group->node)
        status = ch_gate_spawn(&group->gate, "log join", con__join_fiber, group);
    if (base_failed(status))
        return status;
    if (sole_voter(group)) {
        con_raft_campaign(group->raft);
        con__group_poke(group);
    }
    while (!group->node && !group->lead_term) {
        if (base_failed(group->failure))
            return base_status_copy(&group->failure);
        if (ch_cond_wait(&group->changed, CH_NEVER) == CH_CANCELLED)
            return base_status_make(BASE_CANCELLED, "cancelled while it was opened");
    }
    return status;
}

/* Ends the fibers and the store. */
static CH_WAITS void group_stop(struct con__group *group)
{
    group->closing = true;
    con__contact_forsake(group);
    if (group->registered)
        con__node_remove(group->node, group);
    group->registered = false;
    ch_cond_broadcast(&group->work);
    ch_cond_broadcast(&group->fed);
    ch_cond_broadcast(&group->changed);
    while (group->inside > 0)
        ch_cond_wait_always(&group->changed);
    ch_gate_stop(&group->gate);
    BASE_ASSERT(TAILQ_EMPTY(&group->waiters));
    con__readers_fail(group);
    group->store.close(group->store.self);
    group_free(group);
}

struct base_status con__group_open(struct ch_env *env, const struct con_log_options *options,
                                   const struct con_machine *machine, struct con_log **log)
{
    struct base_status status = options_check(options);
    struct con__group *group;

    if (base_failed(status))
        return status;
    group = group_new(env, options, machine);
    status = store_load_anew(group, options);
    if (base_failed(status)) {
        group_free(group);
        return status;
    }
    if (!group->node)
        status = alone_begin(group);
    if (!base_failed(status))
        status = group_start(group);
    if (base_failed(status)) {
        group_stop(group);
        return status;
    }
    *log = &group->base;
    return status;
}

/* ---- closing ---- */

/* Hands leadership over, for a second at most. On a fiber that the caller's cancellation does not
 * touch. */
static void hand_over_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct con__group *group = arg;
    ch_time until = ch_in(group->env, CON_CLOSE_MS * CH_MS);

    while (con__group_leads_others(group) && ch_now(group->env) < until) {
        ch_time look = ch_in(group->env, CON_LOOK_MS * CH_MS);

        if (con_raft_status(group->raft).transfer == 0 && !con__group_transfer_begin(group, 0))
            return;
        if (ch_cond_wait(&group->changed, look < until ? look : until) == CH_CANCELLED)
            return;
        if (group->node->incoming == 0)
            return; /* nobody can tell us of a new leader: the server is gone */
    }
}

void con__group_close(struct con_log *log)
{
    struct con__group *group = con__group_of(log);
    struct ch_gate gate;

    if (group->node && con__group_leads_others(group)) {
        ch_gate_init(&gate, group->env, "log hand-over");
        base_status_drop(ch_gate_spawn(&gate, "log hand-over", hand_over_fiber, group));
        ch_gate_close(&gate);
        ch_gate_join_always(&gate);
    }
    group_stop(group);
}
