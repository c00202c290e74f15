/* env_int.h (private to chassis): what an env is made of, for its two implementations and for the
 * parts that hang state on it. */
#ifndef CHASSIS_ENV_INT_H
#define CHASSIS_ENV_INT_H

#include "chassis/env.h"
#include "chassis/transport.h"
#include "loop.h"

/* Slots for per-env state of chassis parts: each makes its own on first use and is freed with the
 * env. */
enum ch_ext {
    CH_EXT_METRICS,
    CH_EXT_TRACE,
    CH_EXT_LOG,
    CH_EXT_FAULT,
    CH_EXT_RPC,
    CH_EXT_SERVICE,
    CH_EXT_PROCESS,
    CH_EXT_COUNT
};

struct ch_post;
struct ch_env_ops {
    ch_time (*now)(struct ch_env *env);
    int64_t (*wall_us)(struct ch_env *env);
    uint64_t (*random)(struct ch_env *env);
    const struct ch_transport *transport;
    void (*post)(struct ch_env *env, struct ch_post *post);
    void (*offload)(struct ch_env *env, void (*fn)(void *arg), void *arg) CH_WAITS_SLOT;
    /* Files: as in env.h. */
    struct base_status (*file_open)(struct ch_env *env, const char *path, int flags,
                                    struct ch_file **file) CH_WAITS_SLOT;
    struct base_status (*file_read)(struct ch_file *file, uint64_t offset, void *data, size_t len,
                                    size_t *got) CH_WAITS_SLOT;
    struct base_status (*file_write)(struct ch_file *file, uint64_t offset,
                                     const struct base_bytes *parts, size_t part_count,
                                     bool durable) CH_WAITS_SLOT;
    struct base_status (*file_sync)(struct ch_file *file) CH_WAITS_SLOT;
    struct base_status (*file_allocate)(struct ch_file *file, uint64_t offset,
                                        uint64_t len) CH_WAITS_SLOT;
    struct base_status (*file_truncate)(struct ch_file *file, uint64_t size) CH_WAITS_SLOT;
    struct base_status (*file_cut_front)(struct ch_file *file,
                                         uint64_t bytes) CH_WAITS_SLOT; /* NULL: it cannot */
    struct base_status (*file_size)(struct ch_file *file, uint64_t *size) CH_WAITS_SLOT;
    struct base_status (*file_lock)(struct ch_file *file) CH_WAITS_SLOT;
    void (*file_close)(struct ch_file *file) CH_WAITS_SLOT;
    struct base_status (*dir_make)(struct ch_env *env, const char *path)
        CH_WAITS_SLOT; /* one level or with parents; exists is OK */
    struct base_status (*dir_list)(struct ch_env *env, const char *path, struct base_arena *arena,
                                   char ***names, size_t *count) CH_WAITS_SLOT;
    struct base_status (*dir_sync)(struct ch_env *env, const char *path) CH_WAITS_SLOT;
    struct base_status (*file_rename)(struct ch_env *env, const char *from,
                                      const char *to) CH_WAITS_SLOT;
    struct base_status (*file_remove)(struct ch_env *env, const char *path) CH_WAITS_SLOT;
    struct base_status (*disk_space)(struct ch_env *env, const char *path, uint64_t *total,
                                     uint64_t *available) CH_WAITS_SLOT;
};

struct ch_env {
    const struct ch_env_ops *ops;
    struct ch_loop *loop;
    bool simulated;
    void *ext[CH_EXT_COUNT];
    void (*ext_free[CH_EXT_COUNT])(void *ext);
    struct ch_gate main_gate;           /* the main fiber */
    void (*reload)(struct ch_env *env); /* SIGHUP, on the loop; NULL: it is a SIGTERM */
    int exit_value;
};

/* Implementations embed these as their first member. */
struct ch_file {
    struct ch_env *env;
};

void ch__env_free_ext(struct ch_env *env); /* in reverse order of the slots */

/* From any thread (simulated: from the one there is): runs post->fn(post) on the loop, soon, in
 * order of a thread's posts. The post is lent until it runs. */
struct ch_post {
    struct ch_post *next;
    void (*fn)(struct ch_post *post);
};
void ch_env_post(struct ch_env *env, struct ch_post *post);
/* Runs fn(arg) on a helper thread while the fiber is parked; never cancelled. For calls that block.
 * (Simulated: runs inline.) */
void ch_offload(struct ch_env *env, void (*fn)(void *arg), void *arg) CH_WAITS;
/* ---- real env only ---- */
/* The completion queue (struct grpc_completion_queue *). A tag given to gRPC is a struct ch_tag *:
 * run(tag, ok) on the loop. */
struct ch_tag {
    void (*run)(struct ch_tag *tag, bool ok);
};
struct grpc_completion_queue *ch_env_cq(struct ch_env *env);
/* Keeps the loop turning (as a live fiber does) while gRPC still owes tags. */
void ch_env_hold(struct ch_env *env);
void ch_env_release(struct ch_env *env);

/* SIGTERM, SIGINT and SIGHUP are blocked in every thread of a real env (one thread takes them): a
 * child process must unblock them. */
/* Cancels the main fiber (what SIGTERM does). */
void ch_env_stop_main(struct ch_env *env);

#endif
