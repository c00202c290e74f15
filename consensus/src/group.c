/* group.c: the loop of one member: what the algorithm says is done here.
 *
 * Invariants
 * 1. Between an output of the algorithm and the last use of what it lent there is no wait: what
 * outlives it (a write's entries, messages that follow it, pieces of snapshots) is copied.
 * 2. One write at a time, in the order of the outputs. While it lasts the pump does all else: what
 * may leave at once leaves, what is committed is applied, readers are answered.
 * 3. Entries are applied in order, each once, and their waiters hear of it right then. A waiter is
 * known by (index, term): another term at its index means that its entry is gone.
 * 4. lead(term) is told when all that was ever committed is applied; lead(0) before anything of
 * another leader is.
 * 5. After a failed write nothing is known of what the disk holds: the log is broken for good,
 * whoever waits gets UNAVAILABLE ("outcome unknown"), the group hears nothing more from here. A
 * full disk is no such failure: the same write is tried again. A leader whose write takes longer
 * than an election timeout, for that or any other reason, hands over to a member that has written
 * the same already; when there is none, all are as slow.
 *
 * Happy path of a proposal: con_raft_propose, poke -> the writer comes round, takes all that was
 * fed: entries leave for the followers and, beside that, to the own disk -> the followers' answers
 * come in while the write lasts; the pump applies what they commit as soon as it is durable here
 * too. Proposals made during a write go together in the next. */
#include "group_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "chassis/log.h"
#include "node_int.h"

static const char *const role_names[] = { "follower", "would stand", "candidate", "leader" };

const struct con_config *con__group_config(const struct con__group *group)
{
    return con_raft_status(group->raft).config;
}

const char *con__group_leader(const struct con_log *log)
{
    const struct con__group *group = con__group_of(log);
    struct con_raft_status status = con_raft_status(group->raft);
    const struct con_member *member =
        status.leader ? con_config_member(status.config, status.leader) : NULL;

    if (base_failed(group->failure))
        return "";
    if (status.leader == status.id)
        return group->lead_term ? group->self : "";
    if (member && *member->address)
        return member->address;
    for (size_t i = 0; i < group->stranger_count && status.leader; i++)
        if (group->strangers[i].id == status.leader && group->strangers[i].way)
            return group->strangers[i].way->target;
    return group->leader_hint;
}

bool con__group_progress(const struct con__group *group, uint64_t member, uint64_t *match,
                         ch_time *heard)
{
    if (!con_raft_progress(group->raft, member, match, heard))
        return false;
    for (size_t i = 0; i < group->way_count && con_raft_status(group->raft).quiet; i++)
        if (group->ways[i].id == member && group->ways[i].way->heard > *heard)
            *heard = group->ways[i].way->heard;
    return true;
}

bool con__group_leads_others(const struct con__group *group)
{
    const struct con_config *config = con__group_config(group);

    if (!group->lead_term)
        return false;
    for (uint32_t i = 0; i < config->count; i++)
        if (config->members[i].voter && !config->members[i].witness &&
            config->members[i].id != group->store.member)
            return true;
    return false;
}

/* ---- sending ---- */

/* The way to a member, by its address in the newest configuration, or whence it wrote. */
static struct con__peer_way *way_to(struct con__group *group, uint64_t id)
{
    const struct con_config *config = con__group_config(group);
    const struct con_member *member;

    if (group->ways_config != config->index) {
        group->way_count = 0;
        group->ways_config = config->index;
    }
    for (size_t i = 0; i < group->way_count; i++)
        if (group->ways[i].id == id)
            return group->ways[i].way;
    member = con_config_member(config, id);
    if (member && *member->address) {
        struct con__peer_way *way = con__node_peer(group->node, member->address);

        if (way && (way->heartbeat == 0 || group->heartbeat < way->heartbeat))
            way->heartbeat = group->heartbeat;
        if (way && group->way_count < CON_MEMBERS_MAX) {
            group->ways[group->way_count].id = id;
            group->ways[group->way_count++].way = way;
        }
        return way;
    }
    for (size_t i = 0; i < group->stranger_count; i++)
        if (group->strangers[i].id == id)
            return group->strangers[i].way;
    return NULL;
}

static void messages_send(struct con__group *group, const struct con_message *messages,
                          size_t count)
{
    for (size_t i = 0; i < count && group->node; i++) {
        struct con__peer_way *way = way_to(group, messages[i].to);

        if (way)
            con__peer_send(way, group->name, &messages[i]);
    }
}

/* Remembers how to answer someone whom our configuration does not have (yet). */
static void stranger_note(struct con__group *group, uint64_t id, const char *from)
{
    size_t at = 0;

    for (size_t i = 0; i < group->way_count; i++)
        if (group->ways[i].id == id)
            return;
    if (!*from || con_config_member(con__group_config(group), id))
        return;
    while (at < group->stranger_count && group->strangers[at].id != id)
        at++;
    if (at == group->stranger_count) {
        if (at == CON_MEMBERS_MAX)
            at = (size_t)(id % CON_MEMBERS_MAX); /* takes another's place */
        else
            group->stranger_count++;
    }
    group->strangers[at].id = id;
    group->strangers[at].way = con__node_peer(group->node, from);
}

/* ---- what an output brings ---- */

/* Invariant 4, its second half. */
static void lead_lost(struct con__group *group)
{
    if (!group->lead_term)
        return;
    group->lead_term = 0;
    if (group->machine.lead && !group->witness)
        group->machine.lead(group->machine.self, 0);
}

static void role_follow(struct con__group *group)
{
    struct con_raft_status status = con_raft_status(group->raft);

    if (group->lead_term && (status.role != CON_LEADER || status.term != group->lead_term))
        lead_lost(group);
    if (status.leader)
        *group->leader_hint = '\0';
    if (status.role == CON_LEADER && (group->role != CON_LEADER || group->term != status.term))
        ch_count(group->metrics.leaders, 1);
    if (group->role != status.role || group->leader != status.leader)
        ch_info(group->env, "group %s: member %016" PRIx64 " is %s in term %" PRIu64 "%s%s",
                group->name, status.id, role_names[status.role], status.term,
                status.leader && status.role != CON_LEADER ? ", the leader is at " : "",
                status.role != CON_LEADER ? con__group_leader(&group->base) : "");
    group->role = status.role;
    group->term = status.term;
    group->leader = status.leader;
    group->metrics.term->value = (int64_t)status.term;
    group->metrics.role->value = status.role;
    ch_cond_broadcast(&group->changed);
    if (group->node)
        ch_cond_broadcast(&group->node->retired);
}

void con__config_applied(struct con__group *group, const struct con_config *config)
{
    if (con_config_member(config, group->store.member)) {
        group->member_since = config->index;
        group->removed = false;
        group->metrics.removed->value = 0;
    } else if (group->member_since) {
        con__group_removed(group, config->index);
    }
    ch_cond_broadcast(&group->changed);
}

static void entry_apply(struct con__group *group, const struct con_entry *entry)
{
    struct con__waiter *waiter = con__waiter_take(group, entry->index, entry->term);
    struct base_buf *reply = waiter && waiter->reply ? waiter->reply : &group->unwanted;
    struct con_config config;

    group->applied = entry->index;
    group->trail_count++;
    group->trail_bytes += entry->data.len;
    if (entry->kind == CON_ENTRY_COMMAND) {
        base_buf_clear(&group->unwanted);
        if (!group->witness)
            group->machine.apply(group->machine.self, entry->index, entry->data, reply);
        ch_count(group->metrics.commits, 1);
    } else if (entry->kind == CON_ENTRY_CONFIG &&
               base_status_drop(con_config_decode(entry->data, &config)) == BASE_OK) {
        config.index = entry->index;
        con__config_applied(group, &config);
    }
    if (waiter)
        con__waiter_end(group, waiter, BASE_STATUS_OK);
}

/* All of it but the writes. Invariant 1. */
static void output_do(struct con__group *group, const struct con_raft_output *out)
{
    struct con_raft_status status;

    ch_no_wait_enter();
    messages_send(group, out->now, out->now_count);
    if (out->role_changed)
        role_follow(group);
    for (size_t i = 0; i < out->apply_count; i++)
        entry_apply(group, &out->apply[i]);
    if (!group->lead_term && !TAILQ_EMPTY(&group->waiters))
        con__waiters_fail(group, BASE_UNAVAILABLE, "leadership was lost; outcome unknown");
    for (size_t i = 0; i < out->read_count; i++)
        con__reader_answer(group, &out->reads[i]);
    for (size_t i = 0; i < out->fetch_count; i++)
        con__fetch(group, &out->fetches[i]);
    if (out->chunk.here)
        con__chunk_take(group, &out->chunk);
    if (!group->lead_term && (out->apply_count > 0 || out->role_changed)) {
        status = con_raft_status(group->raft);
        if (status.ready && !group->witness) { /* a witness leads only to hand on its log */
            group->lead_term = status.term;
            if (group->machine.lead)
                group->machine.lead(group->machine.self, status.term);
            ch_cond_broadcast(&group->changed);
        }
    }
    if (out->apply_count > 0)
        con__snapshot_maybe(group);
    if (group->registered)
        con__node_deadline(group->node, group, con_raft_deadline(group->raft));
    ch_no_wait_leave();
}

/* ---- inputs ---- */

void con__group_poke(struct con__group *group)
{
    ch_cond_signal(group->writing ? &group->fed : &group->work);
}

void con__group_pump_all(struct con__group *group)
{
    struct con_raft_output out;

    if (base_failed(group->failure))
        return;
    con_raft_output(group->raft, true, &out);
    output_do(group, &out);
    if (!con_raft_idle(group->raft, group->writing))
        con__group_poke(group);
}

void con__group_pump(struct con__group *group)
{
    if (base_failed(group->failure))
        return;
    if (!con_raft_idle(group->raft, true))
        con__group_pump_all(group);
    else if (!group->writing && !con_raft_idle(group->raft, false))
        con__group_poke(group);
    else if (group->registered) /* most heartbeats and their answers */
        con__node_deadline(group->node, group, con_raft_deadline(group->raft));
}

void con__group_tick(struct con__group *group, ch_time now)
{
    if (base_failed(group->failure)) {
        con__node_deadline(group->node, group, CH_NEVER);
        return;
    }
    con_raft_tick(group->raft, now);
    if (group->writing && group->lead_term && now - group->writing_since >= group->election) {
        group->writing_since = now; /* and if nobody takes over, once more after as long */
        (void)con__group_transfer_begin(group, group->job.persisted_index);
    }
    con__group_pump(group);
}

void con__group_wake(struct con__group *group, ch_time heard, ch_time now)
{
    if (base_failed(group->failure) || group->closing)
        return;
    con_raft_wake(group->raft, heard, now);
    con__group_pump(group);
}

void con__group_receive(struct con__group *group, const struct con_message *message,
                        const char *from, ch_time now)
{
    if (base_failed(group->failure) || group->closing)
        return;
    stranger_note(group, message->from, from);
    con_raft_receive(group->raft, message, now);
}

/* ---- failure ---- */

void con__group_fail(struct con__group *group, struct base_status why)
{
    if (base_failed(group->failure)) {
        base_status_free(&why);
        return;
    }
    ch_error(group->env, "group %s: the log failed: %s", group->name, base_status_text(&why));
    group->failure = why;
    con__contact_forsake(group);
    group->role = CON_FOLLOWER;
    group->metrics.role->value = CON_FOLLOWER;
    lead_lost(group);
    con__waiters_fail(group, BASE_UNAVAILABLE, "outcome unknown");
    con__readers_fail(group);
    ch_cond_broadcast(&group->changed);
    ch_cond_broadcast(&group->work);
    ch_cond_broadcast(&group->fed);
    if (group->node)
        ch_cond_broadcast(&group->node->retired);
}

/* ---- the writer ---- */

/* Copies what of an output outlives it. */
static void job_fill(struct con__job *job, const struct con_raft_output *out)
{
    struct con_entry *entries;

    base_arena_reset(&job->arena);
    entries = BASE_NEW_ARRAY(&job->arena, struct con_entry, out->entry_count);
    for (size_t i = 0; i < out->entry_count; i++) {
        entries[i] = out->entries[i];
        entries[i].data = base_bytes_dup(&job->arena, out->entries[i].data);
    }
    job->write = (struct con_store_write){
        .save_vote = out->save_vote,
        .term = out->term,
        .vote = out->vote,
        .entries = entries,
        .entry_count = out->entry_count,
    };
    job->persisted_term = out->persisted_term;
    job->persisted_index = out->persisted_index;
    /* Of these kinds none has entries or data of its own. */
    job->after_count = out->after_count;
    job->after = out->after_count ? base_arena_memdup(&job->arena, out->after,
                                                      out->after_count * sizeof(out->after[0]))
                                  : NULL;
}

/* A full disk is tried again until there is space. */
static CH_WAITS struct base_status job_write(struct con__group *group)
{
    struct con__job *job = &group->job;
    ch_time begin = ch_now(group->env);
    struct base_status status = group->store.write(group->store.self, &job->write);

    while (status.code == BASE_RESOURCE_EXHAUSTED && !group->closing) {
        if (!group->full)
            ch_warn(group->env, "group %s: %s", group->name, base_status_text(&status));
        group->full = true;
        if (ch_sleep_until(group->env, ch_in(group->env, CON_FULL_RETRY_MS * CH_MS)) != CH_TIMEOUT)
            break;
        base_status_free(&status);
        status = group->store.write(group->store.self, &job->write);
    }
    if (base_failed(status))
        return status;
    group->full = false;
    ch_count(group->metrics.syncs, 1);
    for (size_t i = 0; i < job->write.entry_count; i++)
        ch_count(group->metrics.bytes, job->write.entries[i].data.len);
    ch_observe(group->metrics.sync_ns, (uint64_t)(ch_now(group->env) - begin));
    return status;
}

static CH_WAITS void job_do(struct con__group *group)
{
    struct con__job *job = &group->job;
    struct base_status status;

    group->writing = true;
    group->writing_since = ch_now(group->env);
    status = job_write(group);
    group->writing = false;
    if (base_failed(status) && group->closing) {
        base_status_free(&status); /* nobody waits; the next open tells what is there */
    } else if (base_failed(status)) {
        con__group_fail(group, base_status_wrap(status, "write"));
    } else {
        con_raft_persisted(group->raft, job->persisted_term, job->persisted_index);
        messages_send(group, job->after, job->after_count);
    }
}

void con__writer_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct con__group *group = arg;
    struct con_raft_output out;

    while (!group->closing) {
        if (base_failed(group->failure) ||
            (!group->incoming.here && con_raft_idle(group->raft, false))) {
            ch_cond_wait_always(&group->work);
            continue;
        }
        if (group->incoming.here) {
            group->writing = true;
            con__chunk_store(group);
            group->writing = false;
            continue;
        }
        con_raft_output(group->raft, false, &out);
        job_fill(&group->job, &out);
        output_do(group, &out);
        if (base_failed(group->failure))
            continue;
        if (group->job.write.save_vote || group->job.write.entry_count > 0)
            job_do(group);
        else
            messages_send(group, group->job.after, group->job.after_count);
    }
}

void con__pump_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct con__group *group = arg;

    while (!group->closing) {
        if (base_failed(group->failure) || !group->writing || con_raft_idle(group->raft, true))
            ch_cond_wait_always(&group->fed);
        else
            con__group_pump(group);
    }
}
