/* Locks under crashes, restarts, pauses and cut networks: a real clustermaster and clients on the
 * chassis' naming library, in one simulated world. Whatever happens, no two clients are sure of
 * the same lock at the same moment, and epochs only grow. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "chassis/naming.h"
#include "chassis/service.h"
#include "chassis/sim.h"
#include "master.h"
#include "seeds.h"
#include "test.h"

enum { CLIENTS = 4 };

static struct world {
    struct ch_sim *sim;
    struct ch_sim_node *master, *clients[CLIENTS];
    struct ch_lock *locks[CLIENTS]; /* what each client has in its hands */
    uint64_t epoch_max, acquisitions, seed;
    size_t epoch_owner;
} world;

static char *master_argv[] = { "clustermaster", "--listen=10.0.0.100:7000", "--data-dir=data",
                               "--cell=sim", "--admin=" };
static struct ch_service_args master_args = { &clu_master_def, 5, master_argv };

static int client_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    size_t self = (size_t)(uintptr_t)arg;
    struct ch_naming *naming = ch_naming_new(env, "10.0.0.100:7000");

    while (!ch_cancelled()) {
        struct ch_lock *lock = NULL;
        char value[16];
        struct base_status status;

        snprintf(value, sizeof(value), "client %zu", self);
        status = ch_lock_acquire(naming, "/sim/lock", base_bytes_str(value), ch_in(env, 3 * CH_S),
                                 &lock);
        if (base_failed(status)) {
            base_status_free(&status);
            if (ch_sleep_until(env, ch_in(env, 50 * CH_MS)) != CH_TIMEOUT)
                break;
            continue;
        }
        /* The same again only to the same client: a release that did not arrive, and it still
         * holds. */
        cr_assert(ch_lock_epoch(lock) > world.epoch_max ||
                      (ch_lock_epoch(lock) == world.epoch_max && world.epoch_owner == self),
                  "seed %" PRIu64 ": epoch %" PRIu64 " after %" PRIu64, world.seed,
                  ch_lock_epoch(lock), world.epoch_max);
        world.epoch_max = ch_lock_epoch(lock);
        world.epoch_owner = self;
        world.acquisitions++;
        world.locks[self] = lock;
        (void)!ch_lock_wait_lost(lock, ch_in(env, (ch_time)ch_random_below(env, 3000) * CH_MS));
        world.locks[self] = NULL;
        ch_lock_free(lock);
    }
    ch_naming_free(naming);
    return 0;
}

/* Looked at after every event of the world. */
static bool at_most_one(void *arg)
{
    size_t sure = 0;

    for (size_t i = 0; i < CLIENTS; i++)
        sure += world.locks[i] && ch_lock_valid_until(world.locks[i]) > ch_sim_now(world.sim);
    cr_assert(sure <= 1, "seed %" PRIu64 " at %" PRId64 " ms: %zu clients are sure of the lock",
              world.seed, (int64_t)(ch_sim_now(world.sim) / CH_MS), sure);
    return false;
}

static void run_ms(int64_t ms)
{
    ch_sim_run(world.sim, at_most_one, NULL, ch_sim_now(world.sim) + ms * CH_MS);
}

static void client_start(size_t i)
{
    ch_sim_start(world.clients[i], client_main, (void *)(uintptr_t)i);
}

static void client_crash(size_t i)
{
    world.locks[i] = NULL;
    ch_sim_crash(world.clients[i]);
    world.locks[i] = NULL;
}

static uint64_t below(uint64_t bound)
{
    return ch_sim_random(world.sim) % bound;
}

/* One of the things that go wrong, and its end a while later. */
static void trouble(void)
{
    size_t i = below(CLIENTS);
    char host[32];

    snprintf(host, sizeof(host), "10.0.0.%zu", i + 1);
    switch (below(8)) {
    case 0:
        ch_sim_crash(world.master);
        run_ms((int64_t)below(6000));
        ch_sim_start(world.master, ch_service_main, &master_args);
        break;
    case 1:
        if (ch_sim_running(world.clients[i]))
            client_crash(i);
        run_ms((int64_t)below(2000));
        client_start(i);
        break;
    case 2:
    case 3:
        ch_sim_pause(world.clients[i], true);
        run_ms((int64_t)below(9000));
        ch_sim_pause(world.clients[i], false);
        break;
    case 4:
        ch_sim_pause(world.master, true);
        run_ms((int64_t)below(9000));
        ch_sim_pause(world.master, false);
        break;
    case 5:
        ch_sim_net_cut(world.sim, host, "10.0.0.100", true);
        run_ms((int64_t)below(9000));
        ch_sim_net_heal(world.sim);
        break;
    case 6:
        ch_sim_net_cut(world.sim, "10.0.0.100", host, true);
        run_ms((int64_t)below(9000));
        ch_sim_net_heal(world.sim);
        break;
    default:
        ch_sim_net_reset(world.sim, host, "10.0.0.100");
        break;
    }
}

static void world_run(uint64_t seed, int troubles)
{
    memset(&world, 0, sizeof(world));
    world.seed = seed;
    world.sim = ch_sim_new(seed);
    world.master = ch_sim_node(world.sim, "master", "10.0.0.100");
    ch_sim_start(world.master, ch_service_main, &master_args);
    for (size_t i = 0; i < CLIENTS; i++) {
        static const char *const names[CLIENTS] = { "c1", "c2", "c3", "c4" };
        static const char *const hosts[CLIENTS] = { "10.0.0.1", "10.0.0.2", "10.0.0.3",
                                                    "10.0.0.4" };

        world.clients[i] = ch_sim_node(world.sim, names[i], hosts[i]);
        client_start(i);
    }
    for (int i = 0; i < troubles; i++) {
        run_ms(200 + (int64_t)below(4000));
        trouble();
    }
    ch_sim_net_heal(world.sim);
}

Test(sim_locks, never_two_holders)
{
    /* Random troubles, many seeds: at most one client is sure of the lock at any event; epochs
     * grow; and after the troubles the lock goes round again, so it was not kept safe by nobody
     * having it. */
    uint64_t first = ch_sim_seed(1);

    for (uint64_t seed = first; seed < first + seeds_count(12); seed++) {
        uint64_t before;

        world_run(seed, 25);
        before = world.acquisitions;
        cr_assert(before > 10, "seed %" PRIu64 ": only %" PRIu64 " acquisitions", seed, before);
        run_ms(20000);
        cr_assert(world.acquisitions > before + 3, "seed %" PRIu64 ": the lock is stuck", seed);
        ch_sim_free(world.sim);
    }
}

Test(sim_locks, a_dead_holder_s_lock_is_free_after_its_lease)
{
    /* When a holder dies, the lock goes to another within the lease, its margin and a little:
     * that is what bounds a failover. */
    for (uint64_t seed = 1; seed <= seeds_count(10); seed++) {
        size_t holder = CLIENTS;
        uint64_t before;

        world_run(seed, 0);
        while (holder == CLIENTS) {
            run_ms(10);
            for (size_t i = 0; i < CLIENTS; i++)
                if (world.locks[i])
                    holder = i;
        }
        before = world.acquisitions;
        client_crash(holder);
        run_ms(CH_SESSION_LEASE_MS + CH_SESSION_LEASE_MS / 8 + 200 + 1500);
        cr_assert(world.acquisitions > before, "seed %" PRIu64, seed);
        ch_sim_free(world.sim);
    }
}

Test(sim_locks, a_restarted_master_takes_no_lock_away)
{
    /* A quick restart of the master is no reason to lose a lock: the holder keeps its session
     * over it. */
    for (uint64_t seed = 1; seed <= seeds_count(5); seed++) {
        struct ch_lock *lock;
        size_t holder = CLIENTS;

        world_run(seed, 0);
        for (;;) {
            run_ms(5);
            for (size_t i = 0; i < CLIENTS; i++)
                if (world.locks[i])
                    holder = i;
            if (holder < CLIENTS)
                break;
        }
        lock = world.locks[holder];
        ch_sim_crash(world.master);
        run_ms(100);
        ch_sim_start(world.master, ch_service_main, &master_args);
        /* It holds for up to 3 s by its own will; till then it must not lose it. */
        while (world.locks[holder] == lock && ch_lock_held(lock))
            run_ms(10);
        cr_assert(world.locks[holder] != lock, "seed %" PRIu64 ": lost, not given back", seed);
        ch_sim_free(world.sim);
    }
}
