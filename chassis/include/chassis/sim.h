/* chassis/sim.h: a simulated world: many nodes, each a struct ch_env, in one thread, on one virtual
 * clock, from one seed.
 *
 * Time advances only when no fiber is ready, to the next timer or delivery; fibers run in seeded
 * order. (A world that spins at one instant for long has its clock moved on a little at each step,
 * so polling loops reach their deadlines.) The network carries RPC messages between "host:port"
 * addresses in order, with seeded delay; it can be cut, one way too, slowed, reset. A cut or a
 * paused peer holds messages back; after about two seconds the connection breaks, as keepalive
 * would see to. Several nodes may share a host (a node is a process); ports are a host's own. Disks
 * keep what is synced apart from what is not: a crash leaves any part of the un-synced writes (each
 * 512-byte sector as it was at some moment) and any subset of the un-synced changes of names: a
 * new, renamed or removed name is stored by ch_dir_sync of its directory alone. After a failed sync
 * a later one proves nothing (the lost bytes count as clean). A crashed node's fibers find every
 * wait CANCELLED and every file and network call failing with UNAVAILABLE and without effect: they
 * unwind and free their memory, the world sees nothing of it; the node can then be started again on
 * the same disk. A fiber that swallows this aborts the test with a dump. A failing seed is replayed
 * by STRATA_SEED=n. */
#ifndef CHASSIS_SIM_H
#define CHASSIS_SIM_H

#include "chassis/env.h"

struct ch_sim;
struct ch_sim_node;

struct ch_sim *ch_sim_new(uint64_t seed);
void ch_sim_free(struct ch_sim *sim); /* stops every node first */
/* STRATA_SEED from the environment, else `fallback`; prints it once. */
uint64_t ch_sim_seed(uint64_t fallback);

/* A node with its own disk; `address` is its machine's host ("10.0.0.1"). Borrowed name. */
struct ch_sim_node *ch_sim_node(struct ch_sim *sim, const char *name, const char *address);
/* Starts main_fn on the node (as ch_env_run does): one incarnation. The node must not be running.
 */
struct ch_env *ch_sim_start(struct ch_sim_node *node, ch_main_fn *main_fn, void *arg);
bool ch_sim_running(struct ch_sim_node *node);
void ch_sim_stop(
    struct ch_sim_node *node); /* cancels main, as SIGTERM; runs the world until it is gone */
/* The first half of it: several nodes can be told to stop together. From a fiber too. */
void ch_sim_stop_begin(struct ch_sim_node *node);
void ch_sim_crash(
    struct ch_sim_node *node); /* as kill -9 with power loss; runs its fibers out at once */
void ch_sim_kill(
    struct ch_sim_node *node); /* as kill -9: un-synced bytes stay, the rest as a crash */
int ch_sim_exit_value(struct ch_sim_node *node); /* of the last incarnation whose main returned */
struct ch_sim_node *ch_sim_node_of(struct ch_env *env); /* NULL for a real env */
/* Moves the node's wall clock (ch_wall_us), for good. The monotonic clock is one for the whole
 * world. */
void ch_sim_clock_jump(struct ch_sim_node *node, int64_t delta_us);
void ch_sim_pause(struct ch_sim_node *node, bool paused); /* as SIGSTOP / SIGCONT */

/* Runs the world: until `until(arg)` is true (checked after each step; NULL: never), or the virtual
 * time `deadline`, or nothing is left to happen. True when `until` came true. Not from a fiber. */
bool ch_sim_run(struct ch_sim *sim, bool (*until)(void *arg), void *arg, ch_time deadline);
/* Runs fn(arg) on a fiber of a world-owned node ("tester") and the world until it returns; aborts
 * at the deadline, dumping fibers. */
void ch_sim_do(struct ch_sim *sim, ch_fiber_fn *fn, void *arg, ch_time deadline);
struct ch_env *ch_sim_tester_env(struct ch_sim *sim);
ch_time ch_sim_now(struct ch_sim *sim);
uint64_t ch_sim_random(struct ch_sim *sim);
/* A hash of every event so far: equal for equal seeds and programs. STRATA_SIM_TRACE=1 prints the
 * events to stderr. */
uint64_t ch_sim_trace(const struct ch_sim *sim);

/* Counts that a rare path was reached; nothing in a real env. Printed by ch_sim_free when
 * STRATA_PROBES is set. */
void ch_sim_probe(struct ch_env *env, const char *name);
uint64_t ch_sim_probe_count(const struct ch_sim *sim, const char *name);

/* ---- network faults. Hosts are node addresses without a port. ---- */
void ch_sim_net_delay(struct ch_sim *sim, ch_time min,
                      ch_time max); /* of every message; default 50..500 us */
void ch_sim_net_cut(struct ch_sim *sim, const char *from, const char *to,
                    bool cut); /* one way; messages wait (TCP) */
void ch_sim_net_reset(struct ch_sim *sim, const char *a,
                      const char *b); /* open calls between them fail UNAVAILABLE */
void ch_sim_net_slow(struct ch_sim *sim, const char *from, const char *to,
                     ch_time extra); /* one way, added to the delay */
void ch_sim_net_flaky(
    struct ch_sim *sim,
    uint32_t per_million);                /* chance that a message breaks its connection instead */
void ch_sim_net_heal(struct ch_sim *sim); /* ends cuts, slow links and flakiness */

/* ---- disk faults ---- */
void ch_sim_disk_delay(struct ch_sim_node *node, ch_time min,
                       ch_time max); /* of a sync; default 100..300 us */
void ch_sim_disk_limit(struct ch_sim_node *node, uint64_t bytes); /* ENOSPC beyond; 0: none */
void ch_sim_disk_fail_sync(struct ch_sim_node *node,
                           bool fail); /* fdatasync gives EIO; what was unsynced may be lost */
void ch_sim_disk_flip(struct ch_sim_node *node, const char *path, uint64_t offset,
                      uint8_t mask);             /* of the stored bytes */
void ch_sim_disk_lose(struct ch_sim_node *node); /* everything; node must not run */
/* What a reader of the file would get now, appended; false when there is no such file. For tests
 * and checkers. */
bool ch_sim_disk_peek(struct ch_sim_node *node, const char *path, struct base_buf *out);
uint64_t ch_sim_disk_used(struct ch_sim_node *node);

#endif
