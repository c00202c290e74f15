/* chassis/naming.h: the client of clustermgr's names and locks (strata.clustermgr.v1.Names;
 * Chubby, OSDI'06).
 *
 * The cell's name space is a tree of small nodes, "/local/tabletserver/2" -> "127.0.0.3:4711":
 * each node is a small file with a version, may be ephemeral (dies with its session), and may be
 * held as a lock by a session. Tasks' endpoints are published there by the clustermaster with
 * their health. A session is kept alive by this client; when it cannot be for its lease, the
 * session is LOST on this side first (lease measured from before the last keep-alive was sent),
 * and every lock held under it must be taken as gone. A lock's epoch grows with every
 * acquisition: write under it, and let the one you write to refuse older ones. */
#ifndef CHASSIS_NAMING_H
#define CHASSIS_NAMING_H

#include "base/bytes.h"
#include "chassis/env.h"

struct ch_naming;
struct ch_name_watch;

/* `masters`: "host:port[,host:port…]" of the clustermaster's members. */
struct ch_naming *ch_naming_new(struct ch_env *env, const char *masters);
/* Names whose its sessions are, for people and for the clusteragent, which tells the master when a
 * process is surely gone ("tabletserver/2#RUN", service.h --run): its sessions end then, not a
 * lease later. Before the first session; copied. */
void ch_naming_set_owner(struct ch_naming *naming, const char *owner);
void ch_naming_free(
    struct ch_naming *naming) CH_WAITS; /* ends the session too: its locks are released */

struct ch_name_entry {
    char *path;
    struct base_bytes value;
    uint64_t version;     /* of the whole name space when this node last changed */
    uint64_t epoch;       /* of its lock: grows with each acquisition; 0: never locked */
    bool locked, healthy; /* healthy: always true for nodes that are no task endpoints */
};

/* ---- reading ---- */
/* All nodes whose path is `prefix` or lies below it, sorted by path, in `arena`. Linearizable
 * (asks the master). */
struct base_status ch_name_list(struct ch_naming *naming, const char *prefix, ch_time deadline,
                                struct base_arena *arena, struct ch_name_entry **entries,
                                size_t *count) CH_WAITS BASE_MUST_CHECK;
/* NOT_FOUND when there is none. */
struct base_status ch_name_get(struct ch_naming *naming, const char *path, ch_time deadline,
                               struct base_arena *arena,
                               struct ch_name_entry *entry) CH_WAITS BASE_MUST_CHECK;
/* A watch keeps a copy of everything at or below a prefix, from any reachable master,
 * reconnecting by itself; it goes on showing the last state while masters are away. */
struct ch_name_watch *ch_name_watch(struct ch_naming *naming, const char *prefix);
void ch_name_watch_free(struct ch_name_watch *watch) CH_WAITS;
/* Waits until its generation is greater than *generation (0: the first state), and updates
 * *generation. */
enum ch_outcome ch_name_watch_wait(struct ch_name_watch *watch, uint64_t *generation,
                                   ch_time deadline) CH_WAITS BASE_MUST_CHECK;
/* Borrowed until the next wait of the calling fiber. Sorted by path. */
const struct ch_name_entry *ch_name_watch_entries(struct ch_name_watch *watch, size_t *count);

/* ---- writing ---- */
enum { CH_NAME_ANY = -1 }; /* expected version: any, or 0: must not exist */
struct base_status ch_name_set(struct ch_naming *naming, const char *path, struct base_bytes value,
                               int64_t expected_version, bool ephemeral, ch_time deadline,
                               uint64_t *version) CH_WAITS BASE_MUST_CHECK;
struct base_status ch_name_delete(struct ch_naming *naming, const char *path,
                                  int64_t expected_version,
                                  ch_time deadline) CH_WAITS BASE_MUST_CHECK;

/* ---- locks ---- */
struct ch_lock;
/* Waits (till the deadline) for the lock at `path`, creating the node, and sets its value in the
 * same step ("127.0.0.2:7001": who holds it). The session lease is `CH_SESSION_LEASE_MS`. */
enum { CH_SESSION_LEASE_MS = 4000 };
struct base_status ch_lock_acquire(struct ch_naming *naming, const char *path,
                                   struct base_bytes value, ch_time deadline,
                                   struct ch_lock **lock) CH_WAITS BASE_MUST_CHECK;
uint64_t ch_lock_epoch(const struct ch_lock *lock);
/* True while this side is sure to hold it. Does not wait; check it right before acting on it. */
bool ch_lock_held(const struct ch_lock *lock);
/* The end of sure ownership on this env's clock; moves on as the session is kept alive. */
ch_time ch_lock_valid_until(const struct ch_lock *lock);
/* Waits until the lock is lost (CH_CLOSED), or the deadline. */
enum ch_outcome ch_lock_wait_lost(struct ch_lock *lock, ch_time deadline) CH_WAITS BASE_MUST_CHECK;
/* Releases when still held. Frees it. */
void ch_lock_free(struct ch_lock *lock) CH_WAITS;
/* For a master: takes the lock of a member away from whoever's session is dead, growing its
 * epoch, so that whatever the member still writes is refused. FAILED_PRECONDITION while the
 * holder's session lives. Deletes the node when `erase`. */
struct base_status ch_lock_break(struct ch_naming *naming, const char *path, bool erase,
                                 ch_time deadline, uint64_t *epoch) CH_WAITS BASE_MUST_CHECK;

#endif
