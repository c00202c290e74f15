/* group_world.c: see group_world.h. */
#include "group_world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/codec.h"
#include "chassis/log.h"
#include "test.h"

enum fate { NOT_ANSWERED, ACKED, NEVER };
enum { COMMAND_HEAD = 24 };

#define CHECK(world, cond, ...) world_check((world), (cond), #cond, " " __VA_ARGS__)

BASE_PRINTF(4, 5)
static void world_check(struct world *world, bool good, const char *what, const char *fmt, ...)
{
    char text[512];
    va_list args;

    if (good)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    fprintf(stderr, "seed %" PRIu64 " at %.6f s: %s: %s\n", world->seed,
            (double)ch_sim_now(world->sim) / 1e9, what, text);
    abort();
}

/* ---- the machine ---- */

static void item_put(struct member *member, uint64_t index, uint64_t id)
{
    struct world *world = member->world;
    struct list *list = &member->list;

    CHECK(world,
          index < sizeof(world->chosen) / sizeof(world->chosen[0]) && list->count < COMMANDS_MAX);
    if (!world->chosen[index])
        world->chosen[index] = id;
    world->applied[id < COMMANDS_MAX ? id : 0] = 1;
    CHECK(world, world->chosen[index] == id,
          "%s applies %" PRIu64 " at index %" PRIu64 ", another member %" PRIu64, member->name, id,
          index, world->chosen[index]);
    CHECK(world, id > 0 && id <= world->next_id && world->fate[id] != NEVER,
          "%s applies %" PRIu64 ", which was refused", member->name, id);
    CHECK(world, list->count == 0 || list->items[list->count - 1].index < index,
          "%s applies index %" PRIu64 " again", member->name, index);
    list->items[list->count++] = (struct item){ index, id };
}

static void apply(void *self, uint64_t index, struct base_bytes command, struct base_buf *reply)
{
    struct member *member = self;

    CHECK(member->world, command.len >= COMMAND_HEAD && !member->witness);
    /* Who leads applies its own commands, of its own term, alone. */
    CHECK(member->world,
          !member->led || (base_get_le64(command.data + 8) == member->life &&
                           base_get_le64(command.data + 16) == member->led),
          "%s leads and applies another's command", member->name);
    item_put(member, index, base_get_le64(command.data));
    base_buf_put_le64(reply, member->list.count);
}

static void snapshot(void *self, struct base_buf *out)
{
    struct member *member = self;

    for (size_t i = 0; i < member->list.count; i++) {
        base_buf_put_le64(out, member->list.items[i].index);
        base_buf_put_le64(out, member->list.items[i].id);
    }
}

static struct base_status restore(void *self, struct base_bytes from)
{
    struct member *member = self;
    size_t before = member->list.count;
    uint64_t index, id;

    CHECK(member->world, !member->led);
    member->list.count = 0;
    while (base_take_le64(&from, &index) && base_take_le64(&from, &id))
        item_put(member, index, id);
    CHECK(member->world, from.len == 0 && member->list.count >= before);
    return BASE_STATUS_OK;
}

static void lead(void *self, uint64_t term)
{
    struct member *member = self;
    struct world *world = member->world;

    member->led = term;
    if (!term)
        return;
    CHECK(world, term < sizeof(world->leaders) / sizeof(world->leaders[0]));
    CHECK(world, !world->leaders[term] || world->leaders[term] == member->life,
          "two leaders of term %" PRIu64, term);
    world->leaders[term] = member->life;
    CHECK(world, member->list.count >= world->frontier,
          "%s leads with %zu commands, %" PRIu64 " were answered", member->name, member->list.count,
          world->frontier);
}

/* ---- clients ---- */

static void answered(struct world *world, uint64_t place)
{
    ch_time now = ch_sim_now(world->sim);

    if (world->acked_at && now - world->acked_at > world->gap_max)
        world->gap_max = now - world->acked_at;
    world->acked_at = now;
    if (place > world->frontier)
        world->frontier = place;
}

static CH_WAITS void append(struct member *member)
{
    struct world *world = member->world;
    uint64_t before = world->frontier, id = world->next_id + 1, place = 0;
    uint8_t *command = calloc(1, world->command_len);
    struct base_buf reply = { 0 };
    struct base_status status;

    CHECK(world, id < COMMANDS_MAX);
    world->next_id = id;
    base_put_le64(command, id);
    base_put_le64(command + 8, member->life);
    base_put_le64(command + 16, con_log_term(member->log));
    status = con_log_propose(member->log, base_bytes(command, world->command_len),
                             ch_in(member->env, 400 * CH_MS), &reply);
    if (!base_failed(status)) {
        CHECK(world, reply.len == 8);
        place = base_get_le64(reply.data);
        CHECK(world, place > before,
              "command %" PRIu64 " is number %" PRIu64 ", %" PRIu64 " was answered before", id,
              place, before);
        world->fate[id] = ACKED;
        world->place[id] = place;
        world->acked++;
        answered(world, place);
    } else if (status.code == BASE_UNAVAILABLE || status.code == BASE_DEADLINE_EXCEEDED) {
        world->unknown++;
    } else {
        CHECK(world, !world->applied[id], "command %" PRIu64 " was refused and applied", id);
        world->fate[id] = NEVER;
        world->refused++;
    }
    base_status_free(&status);
    base_buf_free(&reply);
    free(command);
}

static CH_WAITS void read_count(struct member *member)
{
    struct world *world = member->world;
    uint64_t before = world->frontier;
    struct base_status status = con_log_read_barrier(member->log, ch_in(member->env, 400 * CH_MS));

    if (!base_failed(status)) {
        CHECK(world, member->list.count >= before,
              "%s reads %zu commands, %" PRIu64 " were answered before", member->name,
              member->list.count, before);
        world->reads++;
        answered(world, member->list.count);
    }
    base_status_free(&status);
}

static void client_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct member *member = arg;
    struct world *world = member->world;
    ch_time pause = 0;

    while (ch_sleep_until(member->env, ch_in(member->env, pause)) != CH_CANCELLED) {
        pause = 1 + (ch_time)ch_random_below(member->env, (uint64_t)world->pause);
        if (world->quiet || (!con_log_term(member->log) && ch_random_below(member->env, 8)))
            continue;
        if (ch_random_below(member->env, 3))
            append(member);
        else
            read_count(member);
    }
}

/* A member that is a learner is to vote. */
static CH_WAITS struct base_status voter_make(struct member *member, ch_time deadline)
{
    struct con_log_view view;
    struct con_member voter = { .id = 0 };

    con_log_look(member->log, &view);
    for (size_t i = 0; i < view.count; i++)
        if (view.members[i].member.id == member->wish_member)
            voter = view.members[i].member;
    voter.voter = true;
    return con_log_add(member->log, &voter, deadline);
}

static CH_WAITS void wish_grant(struct member *member)
{
    ch_time deadline = ch_in(member->env, 3 * CH_S);

    base_status_free(&member->wished);
    if (member->wish == WISH_TRANSFER)
        member->wished = con_log_transfer(member->log, member->wish_member, deadline);
    else if (member->wish == WISH_VOTER)
        member->wished = voter_make(member, deadline);
    else
        member->wished = con_log_remove(member->log, member->wish_member, deadline);
    member->wish = WISH_NOTHING;
    member->wish_done = true;
}

/* ---- a life ---- */

static CH_WAITS struct base_status member_open(struct member *member, struct con_node *node)
{
    struct world *world = member->world;
    const char *peers[MEMBERS_MAX];
    struct con_machine machine = { apply, snapshot, restore, lead, member };
    struct con_log_options options = {
        .dir = "data/log",
        .snapshot_bytes_min = world->snapshot_bytes,
        .node = member->as_alone ? NULL : node,
        .group = "group",
        .self = member->target,
        .peers = peers,
        .peer_count = (size_t)world->count,
        .found = member->found,
        .witness = member->witness,
        .learner = member->learner,
        .election = world->election,
        .heartbeat = world->heartbeat,
    };
    struct con_store store;
    struct base_status status;

    for (int i = 0; i < world->count; i++)
        peers[i] = world->members[i].target;
    if (!member->memory)
        return con_log_open(member->env, &options, &machine, &member->log);
    con_memory_open(member->memory, member->env, &store);
    options.store = &store;
    status = con_log_open(member->env, &options, &machine, &member->log);
    if (status.code != BASE_DATA_LOSS)
        return status;
    base_status_free(&status); /* a caller's store is the caller's to set aside */
    con_memory_set_aside(member->memory, ch_sim_random(world->sim) | 1);
    con_memory_open(member->memory, member->env, &store);
    return con_log_open(member->env, &options, &machine, &member->log);
}

struct ending {
    struct member *member;
    struct ch_server *server;
    struct con_node *node;
};

static void end_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct ending *ending = arg;
    struct con_log *log = ending->member->log;

    ch_server_stop(ending->server, ch_in(ending->member->env, 2 * CH_S));
    ending->member->log = NULL;
    if (log)
        con_log_close(log);
    if (ending->node)
        con_node_free(ending->node);
}

static int member_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct member *member = arg;
    struct ch_server_options options = { .address = member->target };
    struct ending ending = { .member = member };
    struct ch_gate gate, clients;
    struct base_status status;

    ch_log_set(env, member->name, CH_LOG_INFO); /* STRATA_LOG=debug shows them */
    member->env = env;
    status = ch_server_new(env, &options, &ending.server);
    if (!base_failed(status))
        status = con_node_new(env, ending.server, NULL, &ending.node);
    if (!base_failed(status))
        status = member_open(member, ending.node);
    if (!base_failed(status))
        status = ch_server_start(ending.server);
    ch_gate_init(&clients, env, "clients");
    for (int i = 0; i < CLIENTS && !base_failed(status); i++)
        status = ch_gate_spawn(&clients, "client", client_fiber, member);
    member->opened = status;
    while (!base_failed(status) && !con_log_failure(member->log) &&
           ch_sleep_until(env, ch_in(env, 20 * CH_MS)) != CH_CANCELLED)
        if (member->wish)
            wish_grant(member);
    ch_gate_stop(&clients);
    ch_gate_init(&gate, env, "end");
    if (base_status_drop(ch_gate_spawn(&gate, "end", end_fiber, &ending)) == BASE_OK)
        ch_gate_join_always(&gate);
    return 0;
}

void member_start(struct member *member)
{
    base_status_free(&member->opened);
    member->list.count = 0;
    member->led = 0;
    member->log = NULL;
    member->wish = WISH_NOTHING;
    member->life = ++member->world->next_life;
    ch_sim_start(member->node, member_main, member);
}

void member_crash(struct member *member)
{
    if (member->memory)
        con_memory_crash(member->memory, ch_sim_random(member->world->sim) % 3);
    member->led = 0;
    ch_sim_crash(member->node);
    member->log = NULL;
}

void member_stop(struct member *member)
{
    ch_sim_stop(member->node);
    member->log = NULL;
}

void member_lose(struct member *member)
{
    if (member->memory)
        con_memory_lose(member->memory, ch_sim_random(member->world->sim) | 1);
    else
        ch_sim_disk_lose(member->node);
}

bool member_flip(struct member *member)
{
    struct ch_sim *sim = member->world->sim;
    struct base_buf image = { 0 };
    size_t used;
    char path[64];

    if (member->memory) {
        struct con_memory_view view;

        con_memory_look(member->memory, &view);
        return view.last >= view.first && view.last > 0 &&
               con_memory_corrupt(member->memory,
                                  view.first + ch_sim_random(sim) % (view.last - view.first + 1));
    }
    /* A segment that is full of what was acknowledged: any of its bits but those of its end. */
    for (int i = 1; i < 400; i++) {
        snprintf(path, sizeof(path), "data/log/segment-%020d", i);
        base_buf_clear(&image);
        if (!ch_sim_disk_peek(member->node, path, &image))
            continue;
        for (used = image.len; used > 0 && image.data[used - 1] == 0;)
            used--;
        if (used > 8192) {
            ch_sim_disk_flip(member->node, path, ch_sim_random(sim) % (used - 4096),
                             (uint8_t)(1u << ch_sim_random(sim) % 8));
            base_buf_free(&image);
            return true;
        }
    }
    base_buf_free(&image);
    return false;
}

/* ---- the world ---- */

struct world *world_new(uint64_t seed, int count, bool memory)
{
    struct world *world = calloc(1, sizeof(*world));

    if (!world)
        abort();
    world->sim = ch_sim_new(seed);
    world->seed = seed;
    world->count = count;
    world->snapshot_bytes = 16 << 10;
    world->command_len = 100;
    world->pause = 20 * CH_MS;
    world->election = 300 * CH_MS;
    world->heartbeat = 50 * CH_MS;
    for (int i = 0; i < count; i++) {
        struct member *member = &world->members[i];

        member->world = world;
        member->number = i;
        snprintf(member->name, sizeof(member->name), "m%d", i);
        snprintf(member->host, sizeof(member->host), "10.0.0.%d", i + 1);
        snprintf(member->target, sizeof(member->target), "10.0.0.%d:7000", i + 1);
        member->node = ch_sim_node(world->sim, member->name, member->host);
        member->list.items = calloc(COMMANDS_MAX, sizeof(struct item));
        member->found = i == 0;
        if (memory)
            member->memory = con_memory_new(ch_sim_random(world->sim) | 1);
        if (memory)
            con_memory_delay(member->memory, 50 * CH_US, 800 * CH_US);
    }
    return world;
}

void world_start(struct world *world)
{
    for (int i = 0; i < world->count; i++)
        if (!ch_sim_running(world->members[i].node))
            member_start(&world->members[i]);
}

void world_run(struct world *world, ch_time time)
{
    ch_sim_run(world->sim, NULL, NULL, ch_sim_now(world->sim) + time);
    for (int i = 0; i < world->count; i++)
        world->members[i].found &= world->frontier == 0; /* its owner remembers */
}

bool world_until(struct world *world, bool (*until)(struct world *world), ch_time time)
{
    ch_time end = ch_sim_now(world->sim) + time;

    while (!until(world) && ch_sim_now(world->sim) < end)
        world_run(world, 10 * CH_MS);
    return until(world);
}

struct member *world_leader(struct world *world)
{
    struct member *leader = NULL;

    for (int i = 0; i < world->count; i++) {
        struct member *member = &world->members[i];

        if (member->led && member->log && (!leader || member->led > leader->led))
            leader = member;
    }
    return leader;
}

bool world_led(struct world *world)
{
    return world_leader(world) != NULL;
}

bool world_whole(struct world *world)
{
    struct member *leader = world_leader(world);
    struct con_log_view view;

    if (!leader)
        return false;
    con_log_look(leader->log, &view);
    if (view.joint || view.count != (size_t)world->count)
        return false;
    for (size_t i = 0; i < view.count; i++)
        if (view.members[i].heard_ms < 0 || view.members[i].heard_ms > 200 ||
            view.members[i].match + 20 < view.commit)
            return false;
    for (int i = 0; i < world->count; i++) {
        bool here = false;

        for (size_t j = 0; j < view.count; j++)
            here |= strcmp(view.members[j].member.address, world->members[i].target) == 0 &&
                    (view.members[j].member.voter || world->members[i].learner);
        if (!here || !ch_sim_running(world->members[i].node))
            return false;
    }
    return true;
}

static bool agree(struct world *world)
{
    struct member *leader = world_leader(world);

    for (int i = 0; i < world->count; i++)
        if (!leader ||
            (!world->members[i].witness &&
             (!world->members[i].log || world->members[i].list.count != leader->list.count)))
            return false;
    return world_whole(world);
}

void world_end(struct world *world)
{
    struct list *list;

    ch_sim_net_heal(world->sim);
    for (int i = 0; i < world->count; i++) {
        ch_sim_pause(world->members[i].node, false);
        ch_sim_disk_limit(world->members[i].node, 0);
        ch_sim_disk_fail_sync(world->members[i].node, false);
        if (world->members[i].memory)
            con_memory_limit(world->members[i].memory, 0);
    }
    for (int i = 0; i < 20 && !world_whole(world); i++) {
        world_start(world);
        (void)world_until(world, world_whole, CH_S);
    }
    CHECK(world, world_whole(world), "the group does not come back");
    world->quiet = true;
    for (int i = 0; i < 10 && !world_until(world, agree, CH_S); i++)
        world_start(world);
    CHECK(world, agree(world), "the members do not come to agree");
    list = &world_leader(world)->list;
    for (uint64_t id = 1; id <= world->next_id; id++)
        if (world->fate[id] == ACKED)
            CHECK(world,
                  world->place[id] <= list->count && list->items[world->place[id] - 1].id == id,
                  "acknowledged command %" PRIu64 " is not in its place %" PRIu64, id,
                  world->place[id]);
}

void world_free(struct world *world)
{
    ch_sim_free(world->sim);
    for (int i = 0; i < world->count; i++) {
        free(world->members[i].list.items);
        base_status_free(&world->members[i].opened);
        base_status_free(&world->members[i].wished);
        if (world->members[i].memory)
            con_memory_free(world->members[i].memory);
    }
    free(world);
}

/* ---- steps of tests ---- */

struct world *world_formed(uint64_t seed, int count)
{
    struct world *world = world_new(ch_sim_seed(seed), count, false);

    world_start(world);
    cr_assert(world_until(world, world_whole, 10 * CH_S), "the group does not form");
    world_run(world, 200 * CH_MS);
    return world;
}

void world_goes_on(struct world *world, ch_time time)
{
    ch_time end = ch_sim_now(world->sim) + time;
    uint64_t before = world->acked;

    while (world->acked < before + 10 && ch_sim_now(world->sim) < end)
        world_run(world, 10 * CH_MS);
    cr_assert(world->acked >= before + 10, "only %" PRIu64 " more commands in %" PRId64 " ms",
              world->acked - before, (int64_t)(time / CH_MS));
}

struct member *world_follower(struct world *world)
{
    struct member *leader = world_leader(world);

    return &world->members[leader->number == 1 ? 2 : 1];
}

uint64_t member_id(struct world *world, const struct member *member)
{
    struct con_log_view view;

    con_log_look(world_leader(world)->log, &view);
    for (size_t i = 0; i < view.count; i++)
        if (strcmp(view.members[i].member.address, member->target) == 0)
            return view.members[i].member.id;
    return 0;
}

struct base_status world_wish(struct world *world, enum wish what, uint64_t member)
{
    struct member *leader = world_leader(world);

    leader->wish_member = member;
    leader->wish_done = false;
    leader->wish = what;
    for (int i = 0; i < 500 && !leader->wish_done; i++)
        world_run(world, 10 * CH_MS);
    cr_assert(leader->wish_done);
    return base_status_copy(&leader->wished);
}
