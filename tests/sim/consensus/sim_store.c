/* Stores of a group's member (consensus/store.h), on a simulated disk and in memory: whatever
 * crash, full disk or failed sync comes, a load finds what was acknowledged, and of what was not a
 * beginning; what is damaged is refused and left alone; an id is never with another log than its
 * own. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "chassis/sim.h"
#include "con_store_memory.h"
#include "segment.h"
#include "store_model.h"
#include "seeds.h"
#include "test.h"

#define DIR "data/log"

/* What the outside knows, over all lives of one store. */
static struct world {
    struct ch_sim *sim;
    struct ch_sim_node *node;
    struct con_memory *memory; /* NULL: the local store */
    struct store_model model;
    struct store_pending pending;
    uint64_t member; /* 0: not seen yet */
    uint64_t terms;  /* the highest used */
    uint64_t commit;
    int64_t ops; /* that the writer does in a life; -1: without end */
    bool big;    /* some writes of several batches */
    size_t writes, saves, receives, reads, full;
    uint64_t seed;
    int64_t step;
} world;

static struct life {
    struct ch_env *env;
    struct con_store store;
    struct base_status opened; /* or loaded */
    bool loaded, stop, idle;
} life;

#define WHERE_FMT "seed %" PRIu64 " step %" PRId64
#define WHERE world.seed, world.step

static uint64_t below(uint64_t bound)
{
    return ch_random_below(life.env, bound);
}

/* ---- the writer ---- */

static struct base_status pending_write(void) CH_WAITS;
static struct base_status pending_write(void)
{
    struct store_pending *pending = &world.pending;
    struct con_entry entries[MODEL_PARTS];
    struct base_buf data[MODEL_PARTS] = { 0 };
    struct con_store_write write = { .save_vote = pending->save_vote,
                                     .term = pending->term,
                                     .vote = pending->vote,
                                     .entries = entries,
                                     .entry_count = pending->count };
    struct base_status status;

    for (size_t i = 0; i < pending->count; i++) {
        uint64_t index = pending->first + i;

        store_entry_data(index, pending->terms[i], &data[i]);
        entries[i] = (struct con_entry){ index, pending->terms[i], (enum con_entry_kind)(index % 3),
                                         base_buf_bytes(&data[i]) };
    }
    status = life.store.write(life.store.self, &write);
    for (size_t i = 0; i < pending->count; i++)
        base_buf_free(&data[i]);
    return status;
}

/* Draws the next write: more entries, or others in place of uncommitted ones, or a vote. */
static void write_draw(void)
{
    struct store_model *model = &world.model;
    struct store_pending *pending = &world.pending;
    uint64_t low = world.commit > model->snapshot_index ? world.commit : model->snapshot_index;

    pending->first = model->last + 1;
    pending->count = below(12) == 0 ? MODEL_PARTS / 2 : below(6);
    if (below(8) == 0 && model->last > low)
        pending->first = low + 1 + below(model->last - low);
    if (pending->first <= model->last || below(20) == 0)
        world.terms++;
    if (world.big && below(25) == 0) {
        world.terms += 15 - world.terms % 16;
        pending->count = 2 + below(4);
    } else if (world.terms % 16 == 15) {
        world.terms++;
    }
    pending->save_vote = world.terms > model->term || pending->count == 0;
    pending->term = world.terms;
    pending->vote = 1 + below(5);
    for (size_t i = 0; i < pending->count; i++)
        pending->terms[i] = world.terms;
    if (pending->count > 2 && pending->first > 1 && pending->first == model->last + 1 &&
        below(4) == 0) /* of two leaders */
        for (size_t i = 0; i < pending->count / 2; i++)
            pending->terms[i] =
                model->last >= model->first ? model->terms[model->last] : model->snapshot_term;
}

static bool write_one(void) CH_WAITS;
static bool write_one(void)
{
    struct base_status status;

    write_draw();
    world.pending.writing = true;
    /* Others may have committed what is only on its way to our disk, and we applied it. */
    if (world.pending.count > 0 && below(4) == 0)
        world.commit = world.pending.first + below(world.pending.count);
    while (status = pending_write(), status.code == BASE_RESOURCE_EXHAUSTED && !life.stop) {
        world.full++;
        base_status_free(&status);
        (void)ch_sleep_until(life.env, ch_in(life.env, CH_MS));
    }
    if (base_failed(status)) {
        base_status_free(&status);
        return false;
    }
    store_model_write(&world.model, &world.pending, SIZE_MAX);
    world.pending.writing = false;
    world.writes++;
    if (world.commit < world.model.last && below(3) == 0)
        world.commit += below(world.model.last - world.commit + 1);
    return true;
}

static bool receive_one(void) CH_WAITS;
static bool receive_one(void)
{
    struct store_model *model = &world.model;
    struct base_buf whole = { 0 }, back = { 0 };
    uint64_t low = world.commit > model->snapshot_index ? world.commit : model->snapshot_index;
    struct con_store_chunk chunk = { .index = low + 1 + below(20) };
    struct base_status status = BASE_STATUS_OK;

    chunk.term =
        below(2) == 0 && chunk.index <= model->last ? model->terms[chunk.index] : ++world.terms;
    store_snapshot_config(chunk.index, chunk.term, &chunk.config);
    store_snapshot_state(chunk.index, chunk.term, &whole);
    chunk.total = whole.len;
    world.pending.receive_index = chunk.index;
    world.pending.receive_term = chunk.term;
    do {
        size_t len = below(5) == 0 ? whole.len : below(100000);

        chunk.data = base_bytes(whole.data + chunk.offset,
                                len < whole.len - chunk.offset ? len : whole.len - chunk.offset);
        if (chunk.data.len == 0 && whole.len > 0)
            continue;
        if (below(30) == 0)
            chunk.offset = 0, chunk.data.len = 0; /* the leader begins anew */
        status = life.store.snapshot_receive(life.store.self, &chunk, &back);
        chunk.offset += chunk.data.len;
    } while (!base_failed(status) && (chunk.offset < whole.len || back.len < whole.len));
    if (!base_failed(status)) {
        cr_assert(base_bytes_eq(base_buf_bytes(&whole), base_buf_bytes(&back)));
        store_model_snapshot(model, chunk.index, chunk.term, chunk.index);
        store_model_anchor(model);
        world.pending.receive_index = 0;
        world.commit = chunk.index;
        world.receives++;
    }
    base_buf_free(&whole);
    base_buf_free(&back);
    if (status.code == BASE_RESOURCE_EXHAUSTED)
        world.pending.receive_index = 0; /* given up */
    return base_status_drop(status) == BASE_OK || world.pending.receive_index == 0;
}

static void writer(void *arg)
{
    CH_FIBER_ENTRY();

    for (int64_t i = 0; i != world.ops && !life.stop && world.model.last < MODEL_ENTRIES - 100; i++)
        if (!(below(30) == 0 ? receive_one() : write_one()))
            break;
    life.idle = true;
}

/* ---- beside it ---- */

static uint64_t term_at(uint64_t index)
{
    const struct store_pending *pending = &world.pending;

    if (pending->writing && index >= pending->first && index < pending->first + pending->count)
        return pending->terms[index - pending->first];
    return world.model.terms[index];
}

static void saver(void *arg)
{
    CH_FIBER_ENTRY();
    struct store_pending *pending = &world.pending;

    while (ch_sleep_until(life.env, ch_in(life.env, (ch_time)below(25) * CH_MS)) == CH_TIMEOUT) {
        struct base_buf state = { 0 };
        struct con_config config;
        struct base_status status;
        uint64_t index = world.commit;

        if (index <= world.model.snapshot_index || pending->receive_index > 0)
            continue;
        pending->save_index = index;
        pending->save_term = term_at(index);
        pending->save_drop = index - below(index < 50 ? index + 1 : 50);
        store_snapshot_config(index, pending->save_term, &config);
        store_snapshot_state(index, pending->save_term, &state);
        status = life.store.snapshot_save(life.store.self, index, pending->save_term, &config,
                                          base_buf_bytes(&state), pending->save_drop);
        base_buf_free(&state);
        if (!base_failed(status)) {
            store_model_snapshot(&world.model, index, pending->save_term, pending->save_drop);
            world.saves++;
            pending->save_index = 0;
        } else if (status.code == BASE_RESOURCE_EXHAUSTED) {
            pending->save_index = 0;
        } else {
            base_status_free(&status);
            return;
        }
        base_status_free(&status);
    }
}

static void entries_read(void) CH_WAITS;
static void entries_read(void)
{
    static struct store_model then;
    uint64_t first = world.model.snapshot_index > 20 ? world.model.snapshot_index - 20 : 1;
    struct base_arena arena;
    struct con_entry *entries;
    size_t count, receives = world.receives;
    uint64_t rewritten = world.pending.writing ? world.pending.first : UINT64_MAX;
    struct base_status status;

    then = world.model;
    if (then.last < first)
        return;
    first += below(then.last - first + 1);
    base_arena_init(&arena);
    status = life.store.read(life.store.self, first, below(20000), &arena, &entries, &count);
    if (status.code == BASE_NOT_FOUND) {
        /* Gone by what is under way, or was when it began and is done now. */
        cr_assert(first < then.first || first <= world.model.dropped ||
                      first <= world.pending.save_drop || world.pending.receive_index > 0 ||
                      world.receives > receives || first > world.model.last ||
                      (world.pending.writing && first >= world.pending.first),
                  WHERE_FMT ": entry %" PRIu64 " is not found", WHERE, first);
    } else if (!base_failed(status)) {
        cr_assert(count > 0);
        for (size_t i = 0; i < count; i++) {
            cr_assert(entries[i].index == first + i && store_entry_right(&entries[i]),
                      WHERE_FMT ": entry %" PRIu64 " reads wrong", WHERE, first + i);
            /* Before the snapshot a load cannot tell which of the pending entries are there. */
            cr_assert(rewritten <= first + i || first + i < then.first ||
                          (entries[i].term == then.terms[first + i] && first + i <= then.last),
                      WHERE_FMT ": entry %" PRIu64 " is another", WHERE, first + i);
        }
        world.reads++;
    }
    cr_assert(status.code != BASE_DATA_LOSS, WHERE_FMT ": %s", WHERE, base_status_text(&status));
    base_status_free(&status);
    base_arena_free(&arena);
}

static void snapshot_piece_read(void) CH_WAITS;
static void snapshot_piece_read(void)
{
    struct base_buf whole = { 0 };
    struct con_store_chunk chunk;
    struct base_arena arena;
    uint64_t offset = below(2) ? 0 : below(200000);
    struct base_status status;

    base_arena_init(&arena);
    status = life.store.snapshot_read(life.store.self, 0, offset, below(100000), &arena, &chunk);
    if (!base_failed(status)) {
        store_snapshot_state(chunk.index, chunk.term, &whole);
        cr_assert(chunk.total == whole.len && chunk.offset == offset &&
                  memcmp(whole.data + offset, chunk.data.data, chunk.data.len) == 0);
    }
    cr_assert(status.code != BASE_DATA_LOSS, WHERE_FMT ": %s", WHERE, base_status_text(&status));
    base_status_free(&status);
    base_buf_free(&whole);
    base_arena_free(&arena);
}

static void reader(void *arg)
{
    CH_FIBER_ENTRY();

    while (ch_sleep_until(life.env, ch_in(life.env, (ch_time)below(3) * CH_MS)) == CH_TIMEOUT) {
        entries_read();
        if (world.model.snapshot_index > 0)
            snapshot_piece_read();
    }
}

/* ---- a life ---- */

static struct base_status store_open(struct ch_env *env) CH_WAITS;
static struct base_status store_open(struct ch_env *env)
{
    if (!world.memory)
        return con_store_local_open(env, DIR, &life.store);
    con_memory_open(world.memory, env, &life.store);
    return BASE_STATUS_OK;
}

static void found_check(const struct store_found *found)
{
    cr_assert(world.member == 0 || world.member == life.store.member,
              WHERE_FMT ": the store has another id", WHERE);
    world.member = life.store.member;
    cr_assert(store_model_settle(&world.model, &world.pending, found),
              WHERE_FMT ": found term %" PRIu64 " vote %" PRIu64 " snapshot %" PRIu64
                        " entries %" PRIu64 " to %" PRIu64 " (%s); acknowledged were term %" PRIu64
                        " vote %" PRIu64 " snapshot %" PRIu64 " entries to %" PRIu64,
              WHERE, found->term, found->vote, found->snapshot_index, found->first, found->last,
              found->wrong ? found->wrong : "contents right", world.model.term, world.model.vote,
              world.model.snapshot_index, world.model.last);
    world.pending = (struct store_pending){ 0 };
    if (world.commit > world.model.last)
        world.commit = world.model.last;
    if (world.commit < world.model.snapshot_index)
        world.commit = world.model.snapshot_index;
    if (world.terms < world.model.term)
        world.terms = world.model.term;
}

static int node_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    static struct store_found found;
    struct con_store_visitor visitor = store_found_visitor(&found);
    struct ch_gate gate;

    life.env = env;
    life.opened = store_open(env);
    if (base_failed(life.opened))
        return 1;
    life.opened = life.store.load(life.store.self, &visitor);
    if (base_failed(life.opened)) {
        life.store.close(life.store.self);
        return 1;
    }
    found_check(&found);
    life.loaded = true;
    ch_gate_init(&gate, env, "workload");
    if (world.ops != 0) {
        cr_assert(!base_failed(ch_gate_spawn(&gate, "writer", writer, NULL)));
        cr_assert(!base_failed(ch_gate_spawn(&gate, "saver", saver, NULL)));
        cr_assert(!base_failed(ch_gate_spawn(&gate, "reader", reader, NULL)));
    }
    while (ch_sleep_until(env, CH_NEVER) != CH_CANCELLED)
        ;
    life.stop = true;
    ch_gate_stop(&gate);
    life.store.close(life.store.self);
    return 0;
}

static void life_begin(void)
{
    base_status_free(&life.opened);
    memset(&life, 0, sizeof(life));
    ch_sim_start(world.node, node_main, NULL);
}

static void life_crash(void)
{
    if (world.memory)
        con_memory_crash(world.memory, ch_sim_random(world.sim) % 5);
    ch_sim_crash(world.node);
}

static bool loaded_or_not(void *arg)
{
    return life.loaded || base_failed(life.opened);
}

static bool counted_down(void *arg)
{
    return --*(int64_t *)arg <= 0;
}

static void world_begin(uint64_t seed, bool in_memory, int64_t ops)
{
    world = (struct world){ .sim = ch_sim_new(seed), .seed = seed, .ops = ops, .terms = 1 };
    world.node = ch_sim_node(world.sim, "log", "10.0.0.1");
    store_model_init(&world.model);
    if (in_memory) {
        world.memory = con_memory_new(seed);
        con_memory_delay(world.memory, 100 * CH_US, 300 * CH_US);
    }
}

static void world_end(void)
{
    ch_sim_free(world.sim);
    if (world.memory)
        con_memory_free(world.memory);
    world.memory = NULL;
    base_status_free(&life.opened);
}

/* Opens, and runs the world for a while. */
static void life_run(ch_time while_ns)
{
    life_begin();
    cr_assert(ch_sim_run(world.sim, loaded_or_not, NULL, ch_sim_now(world.sim) + 60 * CH_S),
              WHERE_FMT, WHERE);
    cr_assert(!base_failed(life.opened), WHERE_FMT ": %s", WHERE, base_status_text(&life.opened));
    if (while_ns > 0)
        ch_sim_run(world.sim, NULL, NULL, ch_sim_now(world.sim) + while_ns);
}

Test(sim_store, a_crash_at_every_step)
{
    /* Whenever the power goes (at any event of making the store, writing, rolling over to a new
     * segment, taking or receiving a snapshot, dropping segments), the next load finds what was
     * acknowledged; and so does one after a crash while that was recovering. */
    bool through = false;
    uint64_t seed = ch_sim_seed(21);

    for (int64_t step = 1; !through; step += step < 300 ? 1 : 11) {
        world_begin(seed + (uint64_t)step, false, 120);
        world.step = step;
        for (int again = 0; again < 3; again++) { /* the later ones while recovering */
            int64_t left = again ? 1 + (int64_t)(ch_sim_random(world.sim) % 60) : step;

            life_begin();
            (void)ch_sim_run(world.sim, counted_down, &left, ch_sim_now(world.sim) + 10 * CH_S);
            through = through || (again == 0 && life.idle);
            life_crash();
            cr_assert(!base_failed(life.opened) || life.opened.code == BASE_UNAVAILABLE,
                      WHERE_FMT ": %s", WHERE, base_status_text(&life.opened));
        }
        world.ops = 0;
        life_run(0);
        world_end();
    }
}

/* The disk is full for a while, or its syncs fail. */
static void disk_trouble(void)
{
    bool full = ch_sim_random(world.sim) % 2;

    if (full)
        ch_sim_disk_limit(world.node,
                          ch_sim_disk_used(world.node) + ch_sim_random(world.sim) % 100000);
    else
        ch_sim_disk_fail_sync(world.node, true);
    ch_sim_run(world.sim, NULL, NULL, ch_sim_now(world.sim) + 20 * CH_MS);
    ch_sim_disk_fail_sync(world.node, false);
    ch_sim_disk_limit(world.node, 0);
    if (ch_sim_random(world.sim) % 2)
        ch_sim_run(world.sim, NULL, NULL, ch_sim_now(world.sim) + 20 * CH_MS);
}

/* Lives of one disk, ended in all ways. */
static void many_lives(uint64_t seed, bool in_memory, bool big)
{
    world_begin(seed, in_memory, -1);
    world.big = big;
    for (world.step = 0; world.step < 25 && world.model.last < MODEL_ENTRIES - 200; world.step++) {
        life_run((ch_time)(ch_sim_random(world.sim) % 60) * CH_MS);
        if (!in_memory && ch_sim_random(world.sim) % 5 == 0)
            disk_trouble();
        if (world.step % 4 == 3)
            ch_sim_stop(world.node);
        else if (world.step % 4 == 2 && !in_memory)
            ch_sim_kill(world.node);
        else
            life_crash();
    }
    cr_assert(world.writes > 300 && world.saves > 5 && world.receives > 2 && world.reads > 100,
              WHERE_FMT ": %zu writes, %zu saves, %zu receives, %zu reads", WHERE, world.writes,
              world.saves, world.receives, world.reads);
    world_end();
}

Test(sim_store, many_lives)
{
    /* The same over many crashes, kills and orderly stops of one disk, with enough written that
     * segments grow, roll over and go. */
    uint64_t from = ch_sim_seed(1);

    for (uint64_t seed = from; seed < from + seeds_count(24); seed++)
        many_lives(seed, false, false);
}

Test(sim_store, many_lives_with_large_writes)
{
    /* A write larger than a batch is several, one after the other: a crash leaves a beginning. */
    for (uint64_t seed = 100; seed < 100 + seeds_count(4); seed++)
        many_lives(seed, false, true);
}

Test(sim_store, many_lives_in_memory)
{
    /* The store that a caller brings keeps the same promises: here the one in memory that other
     * tests stand on. */
    for (uint64_t seed = 200; seed < 200 + seeds_count(15); seed++)
        many_lives(seed, true, seed % 2);
}

Test(sim_store, a_full_disk_is_no_damage)
{
    /* A write that finds no room fails with RESOURCE_EXHAUSTED, nothing of it is written, and the
     * store goes on when there is room again. */
    for (uint64_t seed = 1; seed <= seeds_count(12); seed++) {
        world_begin(seed, false, -1);
        ch_sim_disk_limit(world.node, 120000 + seed * 6000);
        life_run(3 * CH_S);
        cr_assert(world.full > 0, WHERE_FMT ": the disk was never full", WHERE);
        if (seed % 2)
            life_crash();
        ch_sim_disk_limit(world.node, 0);
        if (seed % 2)
            life_run(0);
        world.writes = 0;
        ch_sim_run(world.sim, NULL, NULL, ch_sim_now(world.sim) + CH_S);
        cr_assert(world.writes > 50, WHERE_FMT ": only %zu writes", WHERE, world.writes);
        ch_sim_stop(world.node);
        world.ops = 0;
        life_run(0);
        world_end();
    }
}

Test(sim_store, a_failed_sync_ends_the_store)
{
    /* After a failed sync nobody knows what the disk holds: nothing is acknowledged any more till
     * the store is opened again. What that load finds is durable, though the lost bytes read well
     * before: a crash right after it takes nothing away. */
    for (uint64_t seed = 1; seed <= seeds_count(60); seed++) {
        size_t writes;

        world_begin(seed, false, -1);
        life_run((ch_time)(ch_sim_random(world.sim) % 100) * CH_MS);
        ch_sim_disk_fail_sync(world.node, true);
        ch_sim_run(world.sim, NULL, NULL, ch_sim_now(world.sim) + 20 * CH_MS);
        writes = world.writes;
        cr_assert(life.idle, WHERE_FMT ": the writer goes on", WHERE);
        ch_sim_disk_fail_sync(world.node, false);
        ch_sim_run(world.sim, NULL, NULL, ch_sim_now(world.sim) + 20 * CH_MS);
        cr_assert_eq(world.writes, writes, "a broken store stays broken");
        ch_sim_kill(world.node);
        world.ops = 0;
        life_run(0); /* what it finds becomes the model, nothing pending */
        life_crash();
        life_run(0);
        world_end();
    }
}
