/* raft_world.c: time, events, clocks and the network of the simulated world; the run of a seed. See
 * raft_world.h. */
#include "raft_world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

enum { EVENTS_MAX = 8000000 }; /* a seed that needs more goes in circles */
#define END_NS (600 * RW_S)    /* after the faults; some have one entry a message, one at a time */

#define X(name, what) #name,
const char *const rw_probe_names[RW_PROBE_COUNT] = { RW_PROBES(X) };
#undef X
#define X(name, what) what,
const char *const rw_probe_texts[RW_PROBE_COUNT] = { RW_PROBES(X) };
#undef X
const char *const rw_sabotage_names[RW_SABOTAGE_COUNT] = {
    "sound",         "votes-twice", "forgets-vote", "counts-old-terms", "reads-without-round",
    "applies-early", "acks-early",  "forgets-tail", "rejoins-as-self",  "bad-snapshot",
};

/* ---- randomness and hashes ---- */

uint64_t rw_random(struct rw_world *world)
{
    uint64_t z = world->random += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

int64_t rw_between(struct rw_world *world, int64_t low, int64_t high)
{
    return low >= high ? low : low + (int64_t)(rw_random(world) % (uint64_t)(high - low + 1));
}

bool rw_chance(struct rw_world *world, uint32_t permille)
{
    return permille > 0 && rw_random(world) % 1000 < permille;
}

uint64_t rw_hash(uint64_t hash, uint64_t value)
{
    value = (value + UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xc4ceb9fe1a85ec53);
    hash = (hash ^ value ^ (value >> 29)) * UINT64_C(0xff51afd7ed558ccd);
    return hash ^ (hash >> 32);
}

uint64_t rw_hash_bytes(uint64_t hash, struct base_bytes bytes)
{
    hash = rw_hash(hash, bytes.len);
    for (size_t i = 0; i < bytes.len; i++)
        hash = (hash ^ bytes.data[i]) * UINT64_C(0x100000001b3);
    return rw_hash(hash, 1);
}

/* ---- a map ---- */

static size_t map_place(const struct rw_map *map, uint64_t key)
{
    size_t at = (size_t)(key & (map->cap - 1));

    while (map->keys[at] != 0 && map->keys[at] != key)
        at = (at + 1) & (map->cap - 1);
    return at;
}

static void map_grow(struct rw_map *map)
{
    struct rw_map bigger = { .cap = map->cap ? 2 * map->cap : 256, .count = map->count };

    bigger.keys = calloc(bigger.cap, sizeof(uint64_t));
    bigger.values = calloc(bigger.cap, sizeof(uint64_t));
    for (size_t i = 0; i < map->cap; i++)
        if (map->keys[i] != 0) {
            size_t at = map_place(&bigger, map->keys[i]);

            bigger.keys[at] = map->keys[i];
            bigger.values[at] = map->values[i];
        }
    rw_map_free(map);
    *map = bigger;
}

bool rw_map_put(struct rw_map *map, uint64_t key, uint64_t value, uint64_t *there)
{
    size_t at;

    if (2 * (map->count + 1) > map->cap)
        map_grow(map);
    key |= 1;
    at = map_place(map, key);
    if (map->keys[at] != 0) {
        *there = map->values[at];
        return false;
    }
    map->keys[at] = key;
    map->values[at] = value;
    map->count++;
    return true;
}

bool rw_map_get(const struct rw_map *map, uint64_t key, uint64_t *value)
{
    size_t at;

    if (map->cap == 0)
        return false;
    at = map_place(map, key | 1);
    *value = map->values[at];
    return map->keys[at] != 0;
}

void rw_map_free(struct rw_map *map)
{
    free(map->keys);
    free(map->values);
    memset(map, 0, sizeof(*map));
}

/* ---- what happened ---- */

void rw_fail(struct rw_world *world, const char *fmt, ...)
{
    va_list args;
    int at;

    if (world->broken)
        return;
    world->broken = world->result->failed = true;
    at = snprintf(world->result->text, sizeof(world->result->text),
                  "at %.6f s: ", (double)world->now / 1e9);
    va_start(args, fmt);
    vsnprintf(world->result->text + at, sizeof(world->result->text) - (size_t)at, fmt, args);
    va_end(args);
    rw_trace(world, "FAILED %s", world->result->text);
}

void rw_trace(struct rw_world *world, const char *fmt, ...)
{
    va_list args;

    if (!world->options.trace)
        return;
    fprintf(world->options.trace, "%12.6f ", (double)world->now / 1e9);
    va_start(args, fmt);
    vfprintf(world->options.trace, fmt, args);
    va_end(args);
    fputc('\n', world->options.trace);
}

/* ---- events ---- */

static bool earlier(const struct rw_event *a, const struct rw_event *b)
{
    return a->at < b->at || (a->at == b->at && a->seq < b->seq);
}

static void heap_add(struct rw_world *world, struct rw_event event)
{
    size_t at = world->heap_count++;

    if (world->heap_count > world->heap_cap) {
        world->heap_cap = world->heap_cap ? 2 * world->heap_cap : 256;
        world->heap = realloc(world->heap, world->heap_cap * sizeof(world->heap[0]));
    }
    event.seq = world->next_seq++;
    while (at > 0 && earlier(&event, &world->heap[(at - 1) / 2])) {
        world->heap[at] = world->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    world->heap[at] = event;
}

static struct rw_event heap_take(struct rw_world *world)
{
    struct rw_event first = world->heap[0], last = world->heap[--world->heap_count];
    size_t at = 0, child;

    while ((child = 2 * at + 1) < world->heap_count) {
        if (child + 1 < world->heap_count && earlier(&world->heap[child + 1], &world->heap[child]))
            child++;
        if (!earlier(&world->heap[child], &last))
            break;
        world->heap[at] = world->heap[child];
        at = child;
    }
    if (world->heap_count)
        world->heap[at] = last;
    return first;
}

void rw_push(struct rw_world *world, int64_t at, enum rw_event_kind kind, int node, int group,
             uint64_t life, uint64_t arg, void *ptr)
{
    heap_add(world, (struct rw_event){ at > world->now ? at : world->now, 0, kind, node, group,
                                       life, arg, ptr });
}

/* ---- clocks ---- */

int64_t rw_node_now(const struct rw_world *world, int node)
{
    const struct rw_node *n = &world->nodes[node];

    return n->clock_base + (world->now - n->clock_world) * n->clock_rate / 1024;
}

/* The first moment of the world at which the node's clock shows `deadline`. */
int64_t rw_node_world(const struct rw_world *world, int node, int64_t deadline)
{
    const struct rw_node *n = &world->nodes[node];
    int64_t ahead = deadline - rw_node_now(world, node);

    if (ahead <= 0)
        return world->now;
    if (ahead > 1000 * RW_S)
        ahead = 1000 * RW_S;
    return world->now + ahead * 1024 / n->clock_rate + 1;
}

bool rw_awake(const struct rw_world *world, int node)
{
    return world->nodes[node].up && world->nodes[node].paused_till <= world->now;
}

/* ---- the network ---- */

static void send_once(struct rw_world *world, int from, int to, struct con_message *message,
                      int group)
{
    int64_t at = world->now + rw_between(world, world->swarm.delay_min, world->swarm.delay_max);

    if (world->faulting && rw_chance(world, 20)) /* one that takes long */
        at += rw_between(world, 0, 20 * world->swarm.delay_max);
    if (world->swarm.fifo) {
        if (at <= world->arrives_last[from][to])
            at = world->arrives_last[from][to] + 1;
        world->arrives_last[from][to] = at;
    }
    rw_push(world, at, RW_EV_MESSAGE, to, group, 0, 0, message);
}

void rw_send(struct rw_member *from, const struct con_message *message)
{
    struct rw_world *world = from->world;
    int to = rw_id_node(message->to);
    uint32_t loss = world->swarm.loss;

    if (message->kind == CON_SNAPSHOT || message->kind == CON_SNAPSHOT_REPLY)
        loss += world->swarm.chunk_loss;
    rw_check_send(from, message);
    if (to < 0 || to >= world->node_count || world->cut[from->node][to] ||
        (world->faulting && rw_chance(world, loss))) {
        rw_trace(world, "n%d g%d   lost to n%d: kind %d term %" PRIu64 " index %" PRIu64,
                 from->node, from->group->number, to, message->kind, message->term, message->index);
        if (to >= 0 && to < world->node_count)
            rw_contact_doubt(world, from->node, to);
        return;
    }
    send_once(world, from->node, to, raft_message_copy(message), from->group->number);
    if (world->faulting && rw_chance(world, world->swarm.duplicate))
        send_once(world, from->node, to, raft_message_copy(message), from->group->number);
}

/* ---- a run ---- */

static void world_begin(struct rw_world *world)
{
    const struct rw_swarm *swarm = &world->swarm;

    world->groups = calloc((size_t)swarm->group_count, sizeof(world->groups[0]));
    for (int i = 0; i < world->node_count; i++) {
        world->nodes[i].up = true;
        world->nodes[i].clock_rate = 1024;
        world->nodes[i].clock_base = rw_between(world, 1, 1000 * RW_S);
        world->nodes[i].disk_min = 50 * RW_US;
        world->nodes[i].disk_max = rw_between(world, 100 * RW_US, 10 * RW_MS);
        rw_push(world, rw_between(world, 0, swarm->raft.heartbeat_ns), RW_EV_LOOK, i, 0, 0, 0,
                NULL);
    }
    for (int g = 0; g < swarm->group_count; g++) {
        struct rw_group *group = &world->groups[g];
        int voters = swarm->founded_by_one ? 1 : swarm->voters;

        group->world = world;
        group->number = g;
        group->founded_by_one = swarm->founded_by_one;
        for (int i = 0; i < world->node_count; i++) {
            group->members[i].world = world;
            group->members[i].group = group;
            group->members[i].node = i;
        }
        for (int i = 0; i < voters; i++) {
            struct rw_member *member = &group->members[(g + i) % world->node_count];
            struct con_member value;
            bool room;

            member->disk.id = (rw_random(world) << 8 | (uint64_t)(member->node + 1));
            member->witness = i > 0 && i <= swarm->witnesses;
            value = rw_member_value(member);
            value.voter = true;
            room = con_config_put(&group->first, &value);
            BASE_ASSERT(room);
        }
        for (int i = 0; i < voters; i++) {
            struct rw_member *member = &group->members[(g + i) % world->node_count];

            rw_member_found(member, &group->first, member->disk.id);
        }
        if (swarm->founded_by_one)
            for (int i = 1; i < swarm->voters; i++)
                rw_member_join(&group->members[(g + i) % world->node_count], i <= swarm->witnesses,
                               false);
        rw_clients_begin(group);
    }
}

static void world_end(struct rw_world *world)
{
    for (int g = 0; g < world->swarm.group_count; g++) {
        struct rw_group *group = &world->groups[g];

        world->result->commits += group->log_count;
        world->result->operations += group->op_count;
        for (int i = 0; i < world->node_count; i++)
            rw_member_end(&group->members[i]);
        for (int i = 0; i < group->grave_count; i++)
            raft_disk_free(&group->graves[i]);
        rw_map_free(&group->facts);
        free(group->log);
        free(group->ops);
    }
    for (size_t i = 0; i < world->heap_count; i++)
        free(world->heap[i].ptr);
    free(world->heap);
    free(world->groups);
}

/* A paused node's events wait until it goes on; only its disk goes on by itself. */
static bool waits(struct rw_world *world, const struct rw_event *event)
{
    if (event->kind > RW_EV_ALIVE || event->kind == RW_EV_CLIENT || !world->nodes[event->node].up ||
        world->nodes[event->node].paused_till <= world->now)
        return false;
    if (event->kind == RW_EV_IO)
        return false;
    rw_push(world, world->nodes[event->node].paused_till, event->kind, event->node, event->group,
            event->life, event->arg, event->ptr);
    return true;
}

static void step(struct rw_world *world)
{
    struct rw_event event = heap_take(world);
    struct rw_group *group = &world->groups[event.group];
    struct rw_member *member = &group->members[event.node];

    world->now = event.at;
    world->result->events++;
    if (waits(world, &event))
        return;
    world->result->trace_hash = rw_hash(
        rw_hash(rw_hash(world->result->trace_hash, (uint64_t)event.at),
                (uint64_t)event.kind << 32 | (uint64_t)event.node << 16 | (uint64_t)event.group),
        event.life ^ event.arg);
    switch (event.kind) {
    case RW_EV_MESSAGE:
        rw_member_receive(member, event.ptr);
        free(event.ptr);
        break;
    case RW_EV_CLIENT:
        rw_client_event(group, &event);
        break;
    case RW_EV_LOOK:
    case RW_EV_ALIVE:
        rw_contact_event(world, &event);
        break;
    case RW_EV_FAULT:
    case RW_EV_CRASH:
    case RW_EV_RESTART:
        rw_fault_event(world, &event);
        break;
    default:
        rw_member_event(member, &event);
    }
}

static bool members_equal(struct rw_world *world, struct rw_group *group)
{
    struct rw_member *leader = rw_leader(group);
    struct con_raft_status status, its;

    if (!leader)
        return false;
    status = con_raft_status(leader->raft);
    if (!status.ready || status.config->joint || status.commit != status.last ||
        status.config->index > status.commit)
        return false;
    for (uint32_t i = 0; i < status.config->count; i++) {
        const struct rw_member *member = &group->members[rw_id_node(status.config->members[i].id)];

        if (!member->present || member->disk.id != status.config->members[i].id || !member->raft)
            return false;
        its = con_raft_status(member->raft);
        if (its.applied != status.commit || its.term != status.term)
            return false;
    }
    for (int i = 0; i < world->node_count; i++)
        if (group->members[i].present && group->members[i].joining)
            return false;
    return true;
}

/* The faults have ended: first every group completes an operation begun since, then clients stop
 * and all members come to hold the same. */
static bool at_rest(struct rw_world *world)
{
    for (int g = 0; g < world->swarm.group_count; g++)
        if (world->groups[g].healed_op_end == 0)
            return false;
    if (!world->clients_stop) {
        world->clients_stop = true;
        return false;
    }
    for (int g = 0; g < world->swarm.group_count; g++)
        if (!members_equal(world, &world->groups[g]))
            return false;
    return true;
}

static void describe(struct rw_world *world, struct rw_group *group)
{
    for (int i = 0; i < world->node_count; i++) {
        struct rw_member *member = &group->members[i];
        struct con_raft_status status;

        if (!member->raft) {
            rw_trace(world, "n%d g%d down, present %d", i, group->number, member->present);
            continue;
        }
        status = con_raft_status(member->raft);
        rw_trace(world,
                 "n%d g%d id %" PRIx64 " role %d term %" PRIu64 " commit %" PRIu64
                 " applied %" PRIu64 " last %" PRIu64 " leader %" PRIx64
                 " joining %d config %" PRIu64 "%s of %u durable %" PRIu64,
                 i, group->number, status.id, status.role, status.term, status.commit,
                 status.applied, status.last, status.leader, member->joining, status.config->index,
                 status.config->joint ? " joint" : "", status.config->count,
                 raft_disk_last(&member->disk));
        for (uint32_t j = 0; j < status.config->count; j++)
            rw_trace(world, "         %" PRIx64 "%s%s%s", status.config->members[j].id,
                     status.config->members[j].voter ? " voter" : "",
                     status.config->members[j].voter_old ? " old" : "",
                     status.config->members[j].witness ? " witness" : "");
    }
}

void rw_run(const struct rw_options *options, struct rw_result *result)
{
    struct rw_world *world = calloc(1, sizeof(*world));
    int64_t look = 0;

    memset(result, 0, sizeof(*result));
    world->options = *options;
    world->result = result;
    world->random = rw_hash(options->seed, 77);
    rw_swarm_draw(world);
    world->faulting = true;
    world_begin(world);
    rw_push(world, rw_between(world, 0, world->swarm.fault_mean), RW_EV_FAULT, 0, 0, 0, 0, NULL);
    while (!world->broken) {
        if (world->faulting && world->now >= world->swarm.faults_till)
            rw_faults_end(world);
        if (!world->faulting && world->now >= look) {
            look = world->now + 100 * RW_MS;
            for (int g = 0; g < world->swarm.group_count; g++)
                rw_tidy(&world->groups[g]);
            if (at_rest(world))
                break;
            if (world->now > world->swarm.faults_till + END_NS) {
                rw_fail(world, "no rest %d s after the faults ended: %s", (int)(END_NS / RW_S),
                        world->clients_stop ? "members differ" : "no operation is completed");
            }
        }
        if (result->events > EVENTS_MAX)
            rw_fail(world, "more than %d events", EVENTS_MAX);
        step(world);
    }
    for (int g = 0; g < world->swarm.group_count && !world->broken; g++)
        rw_clients_check(&world->groups[g]);
    for (int g = 0; g < world->swarm.group_count && world->broken && options->trace; g++)
        describe(world, &world->groups[g]);
    result->virtual_ns = world->now;
    world_end(world);
    free(world);
}
