/* chassis/env.h: the one door to the outside: clock, timers, random, files, network.
 *
 * A real env is a process: gRPC C core's completion queue is its loop, a few helper threads do file
 * system calls and precise timers. A simulated env (sim.h) is one node of many in a process, on a
 * virtual clock. The same object code runs on both: nothing above chassis reads a clock, a random
 * source, a file or a socket in another way. */
#ifndef CHASSIS_ENV_H
#define CHASSIS_ENV_H

#include "base/bytes.h"
#include "chassis/fiber.h"
#include "chassis/sync.h"

struct ch_env;
struct ch_file;

/* Runs `main_fn(env, arg)` on the first fiber of a new real env in this thread and returns its exit
 * value when it has returned and every fiber is gone. SIGTERM and SIGINT cancel the main fiber: it
 * should stop its service and return. A second signal ends the process. */
typedef int ch_main_fn(struct ch_env *env, void *arg);
int ch_env_run(ch_main_fn *main_fn, void *arg);

/* ---- clock, timers, random ---- */
ch_time ch_now(struct ch_env *env); /* monotonic, ns */
int64_t ch_wall_us(
    struct ch_env *env); /* microseconds since 1970; may jump: never trusted for safety */
static inline ch_time ch_in(struct ch_env *env, ch_time ns)
{
    return ch_now(env) + ns;
}
/* CH_TIMEOUT is the normal end. */
enum ch_outcome ch_sleep_until(struct ch_env *env, ch_time deadline) CH_WAITS;
uint64_t ch_random(struct ch_env *env);
uint64_t ch_random_below(struct ch_env *env, uint64_t bound); /* [0, bound) */

/* ---- files. Paths are absolute or relative to the process (simulated: the node's own disk). Every
 * call may wait; an operation once begun is carried through: these waits ignore cancellation (the
 * buffer is lent till return). Errors: code of the errno (base_status_errno) with the path in the
 * text; ENOSPC is RESOURCE_EXHAUSTED. ---- */
enum {
    CH_FILE_READ = 1,
    CH_FILE_WRITE = 2,
    CH_FILE_CREATE = 4,
    CH_FILE_EXCLUSIVE = 8,
    CH_FILE_TRUNCATE = 16
};

struct base_status ch_file_open(struct ch_env *env, const char *path, int flags,
                                struct ch_file **file) CH_WAITS BASE_MUST_CHECK;
/* Reads up to len bytes at `offset`; *got < len only at the end of the file. */
struct base_status ch_file_read(struct ch_file *file, uint64_t offset, void *data, size_t len,
                                size_t *got) CH_WAITS BASE_MUST_CHECK;
/* Writes all parts one after the other at `offset`; with `durable`, returns only after an fdatasync
 * that covers them (in the same trip to the helper thread). A failed durable write leaves the
 * file's synced state unknown: see blockstore invariant 6. */
struct base_status ch_file_write(struct ch_file *file, uint64_t offset,
                                 const struct base_bytes *parts, size_t part_count,
                                 bool durable) CH_WAITS BASE_MUST_CHECK;
struct base_status ch_file_sync(struct ch_file *file) CH_WAITS BASE_MUST_CHECK; /* fdatasync */
/* Makes [offset, offset+len) real zeroed blocks and syncs, so later writes there need no metadata
 * update. */
struct base_status ch_file_allocate(struct ch_file *file, uint64_t offset,
                                    uint64_t len) CH_WAITS BASE_MUST_CHECK;
struct base_status ch_file_truncate(struct ch_file *file, uint64_t size) CH_WAITS BASE_MUST_CHECK;
/* Takes the first `bytes` (a multiple of CH_FILE_CUT_UNIT, less than its size) off the file at
 * once: what follows moves to the front, and what others append meanwhile is not lost.
 * UNIMPLEMENTED where the file system cannot, and in the simulator. */
enum { CH_FILE_CUT_UNIT = 64 << 10 };
struct base_status ch_file_cut_front(struct ch_file *file, uint64_t bytes) CH_WAITS BASE_MUST_CHECK;
struct base_status ch_file_size(struct ch_file *file, uint64_t *size) CH_WAITS BASE_MUST_CHECK;
/* Takes an exclusive lock held until close or death; FAILED_PRECONDITION when another process has
 * it. */
struct base_status ch_file_lock(struct ch_file *file) CH_WAITS BASE_MUST_CHECK;
void ch_file_close(struct ch_file *file) CH_WAITS;

struct base_status ch_dir_make(struct ch_env *env, const char *path) CH_WAITS
    BASE_MUST_CHECK; /* with parents; exists is OK */
/* Names in `path` (without . and ..), sorted, in `arena`. */
struct base_status ch_dir_list(struct ch_env *env, const char *path, struct base_arena *arena,
                               char ***names, size_t *count) CH_WAITS BASE_MUST_CHECK;
struct base_status ch_dir_sync(struct ch_env *env,
                               const char *path) CH_WAITS BASE_MUST_CHECK; /* makes names durable */
struct base_status ch_file_rename(struct ch_env *env, const char *from,
                                  const char *to) CH_WAITS BASE_MUST_CHECK;
struct base_status ch_file_remove(struct ch_env *env, const char *path) CH_WAITS BASE_MUST_CHECK;
struct base_status ch_disk_space(struct ch_env *env, const char *path, uint64_t *total,
                                 uint64_t *available) CH_WAITS BASE_MUST_CHECK;

/* Whole small files. Write: to a temporary name, synced, renamed, directory synced: after a crash
 * old or new, never between. */
struct base_status ch_file_read_all(struct ch_env *env, const char *path, size_t max,
                                    struct base_buf *out) CH_WAITS BASE_MUST_CHECK;
struct base_status ch_file_write_all(struct ch_env *env, const char *path,
                                     struct base_bytes data) CH_WAITS BASE_MUST_CHECK;

#endif
