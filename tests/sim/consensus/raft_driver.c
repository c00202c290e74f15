/* raft_driver.c: the driver's part (consensus/src/group.c) on the simulated disk: takes outputs,
 * writes one thing at a time, answers fetches, takes snapshots. The places where a world is broken
 * on purpose are here as well. See raft_world.h. */
#include "raft_world.h"

#include <inttypes.h>
#include <stdlib.h>

enum { OUTPUTS_MAX = 100000 }; /* without anything new: goes in circles */

/* ---- the disk ---- */

void rw_io_free(struct rw_io *io)
{
    if (!io)
        return;
    raft_entries_free((struct con_entry *)(uintptr_t)io->out.entries, io->out.entry_count);
    for (size_t i = 0; i < io->out.after_count; i++)
        free(io->after[i]);
    free(io->after);
    base_buf_free(&io->state);
    free((void *)(uintptr_t)io->chunk.data.data);
    free(io);
}

/* What is written becomes durable; nobody is told yet. */
bool rw_io_do(struct rw_member *member, struct rw_io *io)
{
    bool installed = false;

    if (io->durable)
        return true;
    io->durable = true;
    if (io->kind == RW_IO_WRITE) {
        rw_check_write(member, &io->out);
        raft_disk_write(&member->disk, io->out.save_vote, io->out.term, io->out.vote,
                        io->out.entries, io->out.entry_count);
    } else if (io->kind == RW_IO_SNAPSHOT) {
        raft_disk_snapshot(&member->disk, io->index, io->term, &io->config,
                           base_buf_bytes(&io->state), io->drop);
    } else if (!raft_disk_receive(&member->disk, &io->chunk, &installed)) {
        return false;
    }
    if (installed)
        rw_check_snapshot(member);
    return true;
}

void rw_lent_free(struct rw_member *member)
{
    raft_entries_free(member->lent, member->lent_count);
    free(member->lent_data);
    member->lent = NULL;
    member->lent_count = 0;
    member->lent_data = NULL;
}

/* ---- outputs ---- */

void rw_apply(struct rw_member *member, const struct con_entry *entry)
{
    struct rw_world *world = member->world;
    bool cas_failed = false;

    if (entry->index <= member->machine.applied && world->options.sabotage != RW_SOUND)
        return; /* applied too early, on purpose */
    if (entry->index != member->machine.applied + 1)
        rw_fail(world, "n%d g%d applies %" PRIu64 " after %" PRIu64, member->node,
                member->group->number, entry->index, member->machine.applied);
    if (member->witness)
        member->machine.applied = entry->index;
    else
        rw_machine_apply(&member->machine, entry, &cas_failed);
    rw_check_applied(member, entry);
    if (!world->broken)
        rw_clients_applied(member, entry);
}

static void io_begin(struct rw_member *member, struct rw_io *io)
{
    struct rw_world *world = member->world;
    const struct rw_node *node = &world->nodes[member->node];

    BASE_ASSERT(!member->io);
    member->io = io;
    rw_push(world, world->now + rw_between(world, node->disk_min, node->disk_max), RW_EV_IO,
            member->node, member->group->number, member->life, 0, NULL);
}

static void send_after(struct rw_member *member, struct rw_io *io)
{
    for (size_t i = 0; i < io->out.after_count; i++) {
        rw_send(member, io->after[i]);
        free(io->after[i]);
    }
    io->out.after_count = 0;
}

static void write_begin(struct rw_member *member, const struct con_raft_output *out)
{
    struct rw_io *io = calloc(1, sizeof(*io));

    io->kind = RW_IO_WRITE;
    io->out = *out;
    io->out.entries = raft_entries_copy(out->entries, out->entry_count);
    io->after = malloc((out->after_count + 1) * sizeof(io->after[0]));
    for (size_t i = 0; i < out->after_count; i++)
        io->after[i] = raft_message_copy(&out->after[i]);
    member->log_bytes += out->entry_count;
    io_begin(member, io);
    if (member->world->options.sabotage == RW_ACKS_EARLY && member->world->faulting)
        send_after(member, io);
}

static void chunk_take(struct rw_member *member, const struct con_raft_chunk *chunk)
{
    struct rw_world *world = member->world;
    struct rw_io *io = calloc(1, sizeof(*io));
    uint8_t *data = malloc(chunk->data.len + 1);

    if (member->chunk_waits || (member->io && member->io->kind == RW_IO_CHUNK))
        rw_fail(world, "n%d g%d: a second chunk before the first is stored", member->node,
                member->group->number);
    if (chunk->data.len)
        memcpy(data, chunk->data.data, chunk->data.len);
    io->kind = RW_IO_CHUNK;
    io->chunk = *chunk;
    io->chunk.data.data = data;
    io->config = *chunk->config;
    io->chunk.config = &io->config;
    rw_io_free(member->chunk_waits);
    member->chunk_waits = io;
    if (world->faulting && rw_chance(world, world->swarm.crash_receiving))
        rw_push(world, world->now + rw_between(world, 0, 5 * RW_MS), RW_EV_CRASH, member->node, 0,
                0, 0, NULL);
}

static void machine_save(struct rw_member *member, struct base_buf *out)
{
    struct rw_machine machine = member->machine;

    if (member->world->options.sabotage == RW_BAD_SNAPSHOT)
        machine.registers[0]++;
    rw_machine_save(&machine, out);
}

static void snapshot_begin(struct rw_member *member)
{
    struct rw_world *world = member->world;
    struct con_raft_status status = con_raft_status(member->raft);
    uint64_t index = member->machine.applied;
    struct rw_io *io;

    /* A witness has nothing but its log to hand on. */
    if (member->witness && index > status.held && !world->swarm.witness_full)
        index = status.held;
    if (member->log_bytes < world->swarm.snapshot_entries || index <= member->disk.snapshot_index ||
        status.applied != member->machine.applied)
        return;
    io = calloc(1, sizeof(*io));
    io->kind = RW_IO_SNAPSHOT;
    io->index = index;
    io->term = con_raft_term_at(member->raft, io->index);
    io->config = *con_raft_config_at(member->raft, io->index);
    io->drop = io->index > world->swarm.keep_entries ? io->index - world->swarm.keep_entries : 0;
    if (!member->witness)
        machine_save(member, &io->state);
    if (member->witness)
        rw_check_witness_drops(member, index);
    member->log_bytes = 0;
    io_begin(member, io);
}

static void fetches_take(struct rw_member *member, const struct con_raft_output *out)
{
    struct rw_world *world = member->world;

    for (size_t i = 0; i < out->fetch_count; i++) {
        struct con_raft_fetch *fetch = malloc(sizeof(*fetch));

        *fetch = out->fetches[i];
        rw_push(world,
                world->now + rw_between(world, 20 * RW_US, world->nodes[member->node].disk_max),
                RW_EV_FETCH, member->node, member->group->number, member->life, 0, fetch);
    }
}

static void reads_serve(struct rw_member *member)
{
    for (size_t i = 0; i < member->read_count;)
        if (member->reads[i].index <= member->machine.applied) {
            uint64_t id = member->reads[i].id;

            member->reads[i] = member->reads[--member->read_count];
            rw_clients_read(member, id, false);
        } else {
            i++;
        }
}

static void reads_take(struct rw_member *member, const struct con_raft_output *out)
{
    for (size_t i = 0; i < out->read_count; i++)
        if (out->reads[i].index == 0) {
            rw_clients_read(member, out->reads[i].id, true);
        } else {
            BASE_ASSERT(member->read_count < RW_READS_MAX);
            member->reads[member->read_count++] =
                (struct rw_pending_read){ out->reads[i].id, out->reads[i].index };
        }
    reads_serve(member);
}

static void timer_set(struct rw_member *member)
{
    struct rw_world *world = member->world;
    int64_t at = rw_node_world(world, member->node, con_raft_deadline(member->raft));

    if (member->timer > world->now && member->timer <= at)
        return;
    if (at <= world->now)
        at = world->now + 10 * RW_US;
    member->timer = at;
    rw_push(world, at, RW_EV_TIMER, member->node, member->group->number, member->life,
            ++member->timer_turn, NULL);
}

/* Sabotage: applies what has no right to be applied, up to `index`. */
static void apply_wrongly(struct rw_member *member, uint64_t index)
{
    while (member->machine.applied < index && !member->world->broken) {
        const struct con_entry *entry = raft_disk_entry(&member->disk, member->machine.applied + 1);

        if (!entry)
            return;
        rw_apply(member, entry);
    }
}

/* Sabotage: what a majority holds is committed, whatever its term. */
static void commit_by_counting(struct rw_member *member)
{
    struct con_raft_status status = con_raft_status(member->raft);
    uint32_t have;
    uint64_t index = member->machine.applied;

    if (status.role != CON_LEADER || !member->world->faulting)
        return;
    for (;; index++) {
        have = 0;
        for (uint32_t i = 0; i < status.config->count; i++) {
            uint64_t id = status.config->members[i].id, match = 0;
            int64_t heard;

            if (id == member->disk.id)
                match = status.persisted;
            else if (!con_raft_progress(member->raft, id, &match, &heard))
                match = 0;
            have |= (uint32_t)(match > index) << i;
        }
        if (!raft_is_quorum(status.config, have))
            break;
    }
    apply_wrongly(member, index);
}

static void sabotage_after(struct rw_member *member)
{
    struct rw_world *world = member->world;

    if (world->options.sabotage == RW_COUNTS_OLD_TERMS)
        commit_by_counting(member);
    else if (world->options.sabotage == RW_APPLIES_EARLY && world->faulting && rw_chance(world, 5))
        apply_wrongly(member, raft_disk_last(&member->disk));
}

/* force: at least one, even when there is nothing new: what was lent is lent till then. */
static void outputs_take(struct rw_member *member, bool force)
{
    struct rw_world *world = member->world;
    struct con_raft_output out;

    for (int n = 0;
         !world->broken && ((force && n == 0) || !con_raft_idle(member->raft, member->io != NULL));
         n++) {
        if (n == OUTPUTS_MAX) {
            rw_fail(world, "n%d g%d: outputs without end", member->node, member->group->number);
            return;
        }
        con_raft_output(member->raft, member->io != NULL, &out);
        rw_check_entries(member, out.entries, out.entry_count);
        for (size_t i = 0; i < out.now_count; i++)
            rw_send(member, &out.now[i]);
        rw_lent_free(member);
        for (size_t i = 0; i < out.apply_count && !world->broken; i++)
            rw_apply(member, &out.apply[i]);
        reads_take(member, &out);
        fetches_take(member, &out);
        if (out.chunk.here)
            chunk_take(member, &out.chunk);
        if (out.save_vote || out.entry_count || out.after_count) {
            BASE_ASSERT(!member->io);
            write_begin(member, &out);
        }
        if (member->chunk_waits && !member->io) {
            io_begin(member, member->chunk_waits);
            member->chunk_waits = NULL;
        }
        rw_check_member(member);
    }
}

static void pump(struct rw_member *member, bool force)
{
    member->pump_due = false;
    outputs_take(member, force);
    if (member->world->broken)
        return;
    sabotage_after(member);
    if (!member->io && member->chunk_waits) {
        io_begin(member, member->chunk_waits);
        member->chunk_waits = NULL;
    }
    if (!member->io)
        snapshot_begin(member);
    reads_serve(member);
    rw_check_member(member);
    timer_set(member);
}

void rw_member_input(struct rw_member *member)
{
    struct rw_world *world = member->world;

    if (!member->raft || world->broken)
        return;
    rw_check_member(member);
    if (member->pump_due)
        return;
    if (world->faulting && rw_chance(world, world->swarm.lazy)) {
        member->pump_due = true;
        rw_push(world, world->now + rw_between(world, 1, 3 * RW_MS), RW_EV_PUMP, member->node,
                member->group->number, member->life, 0, NULL);
        return;
    }
    pump(member, false);
}

/* ---- inputs ---- */

static void io_done(struct rw_member *member)
{
    struct rw_world *world = member->world;
    struct rw_io *io = member->io;
    bool stored;

    if (!io)
        return;
    stored = rw_io_do(member, io);
    if (world->nodes[member->node].paused_till > world->now) { /* durable, but nobody looks */
        rw_push(world, world->nodes[member->node].paused_till, RW_EV_IO, member->node,
                member->group->number, member->life, 0, NULL);
        return;
    }
    member->io = NULL;
    if (io->kind == RW_IO_WRITE) {
        send_after(member, io);
        if (io->out.save_vote || io->out.entry_count)
            con_raft_persisted(member->raft, io->out.persisted_term, io->out.persisted_index);
    } else if (io->kind == RW_IO_SNAPSHOT) {
        con_raft_compacted(member->raft, io->drop);
    } else {
        if (stored && io->chunk.offset + io->chunk.data.len == io->chunk.total) {
            if (!member->witness &&
                !rw_machine_load(&member->machine, base_buf_bytes(&member->disk.state)))
                rw_fail(world, "n%d g%d: a snapshot received cannot be read", member->node,
                        member->group->number);
            member->machine.applied = member->disk.snapshot_index;
            if (io->chunk.offset > 0)
                rw_probe(world, RW_PROBE_snapshot_installed);
        }
        con_raft_chunk_stored(member->raft, stored);
    }
    rw_io_free(io);
    rw_member_input(member);
}

static void fetched(struct rw_member *member, const struct con_raft_fetch *fetch)
{
    struct rw_world *world = member->world;
    const struct raft_disk *disk = &member->disk;
    const struct con_entry *first = raft_disk_entry(disk, fetch->first);
    size_t piece = (size_t)world->swarm.raft.message_bytes_max, len;

    if (world->faulting && rw_chance(world, world->swarm.fetch_fails)) {
        con_raft_fetch_failed(member->raft, fetch->member);
    } else if (fetch->snapshot) {
        if (disk->snapshot_index == 0 ||
            (fetch->first != 0 && fetch->first != disk->snapshot_index) ||
            fetch->offset > disk->state.len) {
            con_raft_fetch_failed(member->raft, fetch->member);
        } else {
            rw_lent_free(member);
            len = disk->state.len - (size_t)fetch->offset;
            len = len < piece ? len : piece;
            member->lent_data = malloc(sizeof(struct con_config) + len + 1);
            memcpy(member->lent_data, &disk->snapshot_config, sizeof(struct con_config));
            memcpy(member->lent_data + sizeof(struct con_config), disk->state.data + fetch->offset,
                   len);
            con_raft_fetched_chunk(
                member->raft, fetch->member, disk->snapshot_index, disk->snapshot_term,
                (const struct con_config *)(const void *)member->lent_data, fetch->offset,
                disk->state.len, base_bytes(member->lent_data + sizeof(struct con_config), len));
        }
    } else if (first) {
        size_t count = 1, bytes = first->data.len;

        while (fetch->first + count < disk->begin + disk->count &&
               bytes + first[count].data.len <= fetch->bytes_max)
            bytes += first[count++].data.len;
        rw_lent_free(member);
        member->lent = raft_entries_copy(first, count);
        member->lent_count = count;
        rw_probe(world, RW_PROBE_fetched_from_disk);
        con_raft_fetched(member->raft, fetch->member, member->lent, count);
    } else {
        con_raft_fetch_failed(member->raft, fetch->member);
    }
    /* What was lent is to be used by the very next output. */
    if (!world->broken) {
        rw_check_member(member);
        pump(member, true);
    }
}

static void sabotage_vote(struct rw_member *member, const struct con_message *vote)
{
    struct con_message reply = {
        .kind = CON_VOTE_REPLY, .from = member->disk.id, .to = vote->from, .term = vote->term
    };

    if (vote->to == member->disk.id && vote->term >= con_raft_status(member->raft).term)
        rw_send(member, &reply);
}

void rw_member_receive(struct rw_member *member, const struct con_message *message)
{
    struct rw_world *world = member->world;

    if (world->cut[rw_id_node(message->from)][member->node])
        rw_contact_doubt(world, member->node, rw_id_node(message->from));
    if (!member->raft || world->cut[rw_id_node(message->from)][member->node])
        return;
    rw_trace(world,
             "n%d g%d receives kind %d from n%d term %" PRIu64 " index %" PRIu64 " lt %" PRIu64
             " commit %" PRIu64 " entries %zu%s hint %" PRIu64 "/%" PRIu64 " off %" PRIu64,
             member->node, member->group->number, message->kind, rw_id_node(message->from),
             message->term, message->index, message->log_term, message->commit,
             message->entry_count, message->reject ? " REJECT" : "", message->hint_index,
             message->hint_term, message->offset);
    rw_contact_heard(world, member->node, rw_id_node(message->from));
    rw_check_deliver(member, message);
    if (world->options.sabotage == RW_VOTES_TWICE && message->kind == CON_VOTE && world->faulting) {
        sabotage_vote(member, message);
        return;
    }
    con_raft_receive(member->raft, message, rw_node_now(world, member->node));
    rw_member_input(member);
}

void rw_member_event(struct rw_member *member, const struct rw_event *event)
{
    struct rw_world *world = member->world;

    if (!member->raft || (event->kind != RW_EV_JOIN && event->life != member->life)) {
        free(event->ptr);
        return;
    }
    if (event->kind == RW_EV_TIMER) {
        if (event->arg != member->timer_turn)
            return; /* another was set since */
        member->timer = 0;
        member->by_tick = true;
        con_raft_tick(member->raft, rw_node_now(world, member->node));
        rw_member_doubt(member);
        rw_member_input(member);
        member->by_tick = false;
        if (member->timer == 0 && member->raft && !world->broken)
            timer_set(member);
    } else if (event->kind == RW_EV_PUMP) {
        pump(member, false);
    } else if (event->kind == RW_EV_IO) {
        io_done(member);
    } else if (event->kind == RW_EV_FETCH) {
        fetched(member, event->ptr);
        free(event->ptr);
    } else if (event->kind == RW_EV_JOIN) {
        rw_join_arrives(member, (int)event->arg);
    } else if (event->kind == RW_EV_JOIN_TRY) {
        rw_join_try(member);
    }
}
