/* raft_clients.c: the machine of a group (registers), its clients, and whether what they saw is
 * linearizable.
 *
 * Entries are in one order, so each operation has a place: a write or compare-and-set its entry, a
 * read the state it was served from. That order must be one that clients may have seen: who
 * begins after another's end has a later place (a read: not an earlier one). Besides, a part of
 * each history is judged by the search for an order that knows nothing of places (check_cas). */
#include "raft_world.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/codec.h"
#include "checker.h"

enum {
    OP_BYTES = 8 * 5,
    SEARCHED = RW_OPS_A_KEY,
    UNKNOWN_MAX = 8,
    OPS_KEPT = 400
}; /* for after the faults */
#define TIMEOUT (2 * RW_S)

/* ---- the machine ---- */

int64_t rw_entry_op(const struct con_entry *entry)
{
    if (entry->kind != CON_ENTRY_COMMAND || entry->data.len < OP_BYTES)
        return -1;
    return (int64_t)base_get_le64(entry->data.data);
}

void rw_machine_apply(struct rw_machine *machine, const struct con_entry *entry, bool *cas_failed)
{
    const uint8_t *data = entry->data.data;

    machine->applied = entry->index;
    machine->hash = rw_hash_bytes(rw_hash(machine->hash, entry->term), entry->data);
    *cas_failed = false;
    if (rw_entry_op(entry) >= 0) {
        uint64_t kind = base_get_le64(data + 8), key = base_get_le64(data + 16) % RW_KEYS;
        int64_t from = (int64_t)base_get_le64(data + 24), to = (int64_t)base_get_le64(data + 32);

        *cas_failed = kind == RW_CAS && machine->registers[key] != from;
        if (!*cas_failed)
            machine->registers[key] = to;
        machine->hash =
            rw_hash(machine->hash, (uint64_t)machine->registers[key] << 1 | *cas_failed);
    }
}

void rw_machine_save(const struct rw_machine *machine, struct base_buf *out)
{
    base_buf_put_le64(out, machine->applied);
    base_buf_put_le64(out, machine->hash);
    for (int i = 0; i < RW_KEYS; i++)
        base_buf_put_le64(out, (uint64_t)machine->registers[i]);
}

bool rw_machine_load(struct rw_machine *machine, struct base_bytes in)
{
    bool good = base_take_le64(&in, &machine->applied) && base_take_le64(&in, &machine->hash);
    uint64_t value = 0;

    for (int i = 0; i < RW_KEYS && good; i++) {
        good = base_take_le64(&in, &value);
        machine->registers[i] = (int64_t)value;
    }
    return good && in.len == 0;
}

/* ---- clients ---- */

static void client_wake(struct rw_group *group, int number, int64_t in)
{
    struct rw_client *client = &group->clients[number];

    rw_push(group->world, group->world->now + in, RW_EV_CLIENT, 0, group->number, ++client->turn,
            (uint64_t)number, NULL);
}

static int64_t think(struct rw_world *world)
{
    return rw_between(world, 0, 2 * world->swarm.think_mean);
}

void rw_clients_begin(struct rw_group *group)
{
    group->ops = calloc(RW_OPS_MAX, sizeof(group->ops[0]));
    for (int i = 0; i < RW_CLIENTS; i++)
        client_wake(group, i, think(group->world) + RW_S / 2);
}

static void op_end(struct rw_group *group, struct rw_op *op, enum rw_op_state state)
{
    op->state = state;
    op->end = state == RW_OP_OK ? group->world->now : INT64_MAX;
    if (state == RW_OP_OK && op->index > group->completed)
        group->completed = op->index;
    if (state == RW_OP_OK && !group->world->faulting &&
        op->start >= group->world->swarm.faults_till)
        group->healed_op_end = op->end;
}

static void client_free(struct rw_group *group, int number)
{
    group->clients[number].busy = false;
    client_wake(group, number, think(group->world));
}

static struct rw_op *op_begin(struct rw_group *group, struct rw_client *client)
{
    struct rw_world *world = group->world;
    uint64_t number = group->op_count++;
    struct rw_op *op = memset(&group->ops[number], 0, sizeof(*op));
    uint64_t batch = number / (3 * RW_OPS_A_KEY), within = rw_random(world) % 3;

    if (number % (3 * RW_OPS_A_KEY) == 0)
        for (int i = 0; i < RW_CLIENTS; i++)
            memset(group->clients[i].known, 0, sizeof(group->clients[i].known));
    op->key = (uint32_t)(3 * batch + within);
    op->start = world->now;
    op->end = INT64_MAX;
    op->floor = group->completed;
    op->to = (int64_t)number + 1;
    op->from = client->known[within];
    op->kind = rw_random(world) % 100 < world->swarm.reads ? RW_READ
               : rw_chance(world, 400)                     ? RW_CAS
                                                           : RW_WRITE;
    client->busy = true;
    client->op = number;
    return op;
}

static enum con_refusal propose(struct rw_member *member, uint64_t number, struct rw_op *op)
{
    struct rw_world *world = member->world;
    uint8_t data[OP_BYTES + 64] = { 0 };
    uint64_t fields[] = { number, op->kind, op->key, (uint64_t)op->from, (uint64_t)op->to };

    for (int i = 0; i < 5; i++)
        base_put_le64(data + 8 * i, fields[i]);
    return con_raft_propose(member->raft,
                            base_bytes(data, OP_BYTES + (size_t)rw_between(world, 0, 64)),
                            &op->index, &op->term);
}

/* Where to go next. */
static int next_node(struct rw_group *group, int node)
{
    const struct rw_member *member = &group->members[node];
    uint64_t leader = member->raft ? con_raft_status(member->raft).leader : 0;
    int any = (int)rw_between(group->world, 0, group->world->node_count - 1);

    /* Whoever believes to lead, and be it the only one who does. */
    if (rw_chance(group->world, 300) && rw_leads(&group->members[any]))
        return any;
    if (leader && rw_id_node(leader) != node && rw_chance(group->world, 700))
        return rw_id_node(leader);
    return any;
}

static void op_send(struct rw_group *group, int number)
{
    struct rw_world *world = group->world;
    struct rw_client *client = &group->clients[number];
    struct rw_member *member = &group->members[client->node];
    struct rw_op *op;
    enum con_refusal refusal;

    if (world->now < group->idle_till) {
        client_wake(group, number, group->idle_till - world->now + think(world));
        return;
    }
    if (rw_chance(world, world->swarm.idle))
        group->idle_till = world->now + rw_between(world, RW_S, 5 * RW_S);
    if (!member->raft || !rw_awake(world, client->node) ||
        group->op_count >= (world->faulting ? RW_OPS_MAX - OPS_KEPT : RW_OPS_MAX)) {
        client->node = next_node(group, client->node);
        client_wake(group, number, think(world) + 50 * RW_MS);
        return;
    }
    op = op_begin(group, client);
    client_wake(group, number, TIMEOUT);
    if (op->kind == RW_READ) {
        op->to = 0;
        op->term = con_raft_status(member->raft).role == CON_LEADER; /* of interest when refused */
        if (world->options.sabotage == RW_READS_WITHOUT_ROUND && op->term && world->faulting)
            rw_clients_read(member, client->op, false);
        else
            con_raft_read(member->raft, client->op);
        rw_member_input(member);
        return;
    }
    refusal = propose(member, client->op, op);
    if (refusal == CON_TAKEN) {
        rw_member_input(member);
        return;
    }
    if (refusal == CON_FULL)
        rw_probe(world, RW_PROBE_proposals_refused);
    group->op_count--; /* as if it had never been */
    client->busy = false;
    client->node = next_node(group, client->node);
    client_wake(group, number, think(world) + 20 * RW_MS);
}

void rw_client_event(struct rw_group *group, const struct rw_event *event)
{
    int number = (int)event->arg;
    struct rw_client *client = &group->clients[number];

    if (event->life != client->turn)
        return;
    if (client->busy) { /* waited long enough; its outcome is unknown */
        op_end(group, &group->ops[client->op], RW_OP_UNKNOWN);
        client->busy = false;
        client->node = next_node(group, client->node);
    }
    if (!group->world->clients_stop)
        op_send(group, number);
}

void rw_clients_applied(struct rw_member *member, const struct con_entry *entry)
{
    struct rw_group *group = member->group;

    for (int i = 0; i < RW_CLIENTS; i++) {
        struct rw_client *client = &group->clients[i];
        struct rw_op *op = &group->ops[client->op];

        if (!client->busy || client->node != member->node || op->kind == RW_READ ||
            op->index != entry->index)
            continue;
        if (op->term != entry->term) { /* another leader's entry has its place */
            op_end(group, op, RW_OP_ABSENT);
            client_free(group, i);
            continue;
        }
        if (rw_entry_op(entry) != (int64_t)client->op)
            rw_fail(group->world,
                    "g%d: entry %" PRIu64 " of term %" PRIu64 " is not what was proposed",
                    group->number, entry->index, entry->term);
        if (entry->index <= op->floor)
            rw_fail(group->world,
                    "g%d: a write got place %" PRIu64 ", but when it began %" PRIu64
                    " was already known to a client",
                    group->number, entry->index, op->floor);
        op->cas_failed = group->log[entry->index - 1].cas_failed;
        op_end(group, op, RW_OP_OK);
        client->known[op->key % 3] = op->cas_failed ? 0 : op->to;
        client_free(group, i);
    }
}

void rw_clients_read(struct rw_member *member, uint64_t id, bool refused)
{
    struct rw_group *group = member->group;
    struct rw_op *op = &group->ops[id];

    for (int i = 0; i < RW_CLIENTS; i++) {
        struct rw_client *client = &group->clients[i];

        if (!client->busy || client->op != id)
            continue;
        if (refused) {
            if (op->term && member->role != CON_LEADER)
                rw_probe(group->world, RW_PROBE_stale_read_refused);
            op_end(group, op, RW_OP_ABSENT);
            client->node = next_node(group, client->node);
            client->busy = false;
            client_wake(group, i, think(group->world) + 20 * RW_MS);
            return;
        }
        op->index = member->machine.applied;
        op->to = member->machine.registers[op->key];
        if (op->index < op->floor)
            rw_fail(group->world,
                    "g%d: n%d served a stale read: from place %" PRIu64
                    ", but when it began %" PRIu64 " was already known to a client",
                    group->number, member->node, op->index, op->floor);
        client->known[op->key % 3] = op->to;
        op_end(group, op, RW_OP_OK);
        client_free(group, i);
    }
}

void rw_clients_crash(struct rw_member *member)
{
    struct rw_group *group = member->group;

    for (int i = 0; i < RW_CLIENTS; i++) {
        struct rw_client *client = &group->clients[i];

        if (!client->busy || client->node != member->node)
            continue;
        op_end(group, &group->ops[client->op], RW_OP_UNKNOWN);
        client_free(group, i);
    }
}

/* One key's history against a search for an order. What is known absent is left out. */
void rw_clients_check(struct rw_group *group)
{
    struct check_cas_op ops[SEARCHED * 3];
    size_t count = 0, unknown = 0;
    uint32_t key = (uint32_t)(rw_random(group->world) % 3);

    for (uint64_t i = 0; i < group->op_count && i < 3 * RW_OPS_A_KEY; i++) {
        const struct rw_op *op = &group->ops[i];

        if (op->key != key || op->state == RW_OP_ABSENT ||
            (op->state != RW_OP_OK && op->kind == RW_READ))
            continue;
        unknown += op->state != RW_OP_OK;
        ops[count++] = (struct check_cas_op){
            .kind = op->kind == RW_READ    ? CHECK_CAS_READ
                    : op->kind == RW_WRITE ? CHECK_CAS_WRITE
                                           : CHECK_CAS_CAS,
            .from = op->from,
            .to = op->to,
            .failed = op->cas_failed,
            .start_ns = op->start,
            .end_ns = op->end,
        };
    }
    if (count <= 64 && unknown <= UNKNOWN_MAX && !check_cas(ops, count, 0))
        rw_fail(group->world, "g%d: the history of register %u is not linearizable", group->number,
                key);
}
