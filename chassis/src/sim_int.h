/* sim_int.h (private): the inside of a simulated world: sim.c (nodes, time, death), sim_events.c,
 * sim_disk.c and sim_names.c and sim_content.c (disks), sim_net.c (connections), transport_sim.c
 * (calls).
 *
 * Invariants:
 *  1. Everything random comes from the generators below, seeded from the world's seed, and nothing
 * depends on an address of memory: the same seed and program give the same trace hash.
 *  2. An incarnation that is dead has no effect on the world: its calls fail before they touch a
 * disk or a connection.
 *  3. A wait of a file operation is on its incarnation's `io` list, so that death can end it
 * although it ignores cancellation.
 *  4. An incarnation is freed when its main function has returned (or it is dead) and none of its
 * fibers is live. */
#ifndef CHASSIS_SIM_INT_H
#define CHASSIS_SIM_INT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chassis/sim.h"
#include "env_int.h"

/* ---- randomness: splitmix64 ---- */
struct ch__rng {
    uint64_t state;
};
static inline uint64_t ch__rng_next(struct ch__rng *rng)
{
    uint64_t z = rng->state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}
static inline uint64_t ch__rng_below(struct ch__rng *rng, uint64_t bound)
{
    return (uint64_t)(((unsigned __int128)ch__rng_next(rng) * bound) >> 64);
}
static inline ch_time ch__rng_between(struct ch__rng *rng, ch_time min, ch_time max)
{
    return min + (ch_time)ch__rng_below(rng, (uint64_t)(max - min) + 1);
}

/* ---- what a file holds: pages, a missing one is zeros (sim_content.c) ---- */
struct ch__content {
    uint8_t **pages;
    size_t page_count;
    uint64_t size;
};
void ch__content_free(struct ch__content *content);
/* Grows with zeros or cuts. */
void ch__content_resize(struct ch__content *content, uint64_t size);
/* `data` NULL writes zeros. Grows the content where needed. */
void ch__content_write(struct ch__content *content, uint64_t offset, const void *data,
                       uint64_t len);
size_t ch__content_read(const struct ch__content *content, uint64_t offset, void *data, size_t len);
void ch__content_copy(struct ch__content *to, const struct ch__content *from);

/* ---- a file or directory of a disk, with what a power loss may take away (sim_content.c) ---- */
struct ch__inode {
    struct ch__disk *disk;
    uint32_t refs; /* names (of now, stored, or in a pending change) and open files */
    uint32_t live; /* names of now and open files: while there is one, its bytes are in use */
    bool dir;
    struct ch__content now, stored;
    struct ch__change *changes,
        **changes_end;   /* made to `now`, not yet to `stored`, oldest first */
    uint64_t change_seq; /* of the newest change ever made */
    struct ch__sim_file *lock;
};
struct ch__inode *ch__inode_new(struct ch__disk *disk, bool dir);
struct ch__inode *ch__inode_ref(struct ch__inode *inode);
void ch__inode_unref(struct ch__inode *inode);
void ch__inode_live(struct ch__inode *inode, bool more);
void ch__inode_write(struct ch__inode *inode, uint64_t offset, const void *data,
                     uint64_t len); /* data NULL: zeros */
void ch__inode_truncate(struct ch__inode *inode, uint64_t size);
/* Changes up to `seq` become stored. */
void ch__inode_sync(struct ch__inode *inode, uint64_t seq);
/* Changes up to `seq` are forgotten, after a random part of them has become stored: of each
 * 512-byte sector, what some number of its oldest changes made of it. `now` stays (a failed
 * fdatasync) unless `crash`. */
void ch__inode_lose(struct ch__inode *inode, uint64_t seq, struct ch__rng *rng, bool crash);

/* ---- names of a disk (sim_names.c) ---- */
struct ch__names {
    struct ch__name {
        char *path;
        struct ch__inode *inode;
    } * all; /* sorted by path */
    size_t count, cap;
    bool live; /* a name here keeps its inode live */
};
struct ch__name *ch__names_find(const struct ch__names *names, const char *path);
void ch__names_set(struct ch__names *names, const char *path,
                   struct ch__inode *inode); /* NULL: none */
void ch__names_clear(struct ch__names *names);

struct ch__disk {
    struct ch_sim_node *node;
    struct ch__names now, stored;
    struct ch__name_change *changes,
        **changes_end;    /* made to `now`, not yet to `stored`, oldest first */
    uint64_t change_seq;  /* of the newest change of a name */
    uint64_t used, limit; /* bytes of live inodes' `now`; limit 0: none */
    ch_time sync_min, sync_max;
    bool sync_fails;
};
/* "/a/b" of a path with doubled slashes, dots, or no leading slash. On the heap. */
char *ch__path_clean(const char *path);
/* "/a" of "/a/b". On the heap. */
char *ch__path_parent(const char *path);
/* from NULL: the name `to` now is `inode`; to NULL: the name `from` is gone; both: renamed. */
void ch__disk_name(struct ch__disk *disk, const char *from, const char *to,
                   struct ch__inode *inode);
/* Makes the changes up to `seq` of names in `dir` stored, and the names of `dir` and its parents
 * themselves. */
void ch__disk_sync_names(struct ch__disk *disk, const char *dir, uint64_t seq);
/* Power loss: a random part of the unsynced changes of names and contents is stored, the rest gone.
 */
void ch__disk_crash(struct ch__disk *disk, struct ch__rng *rng);
void ch__disk_init(struct ch__disk *disk, struct ch_sim_node *node);
void ch__disk_free(struct ch__disk *disk);

/* ---- the world ---- */
struct ch__net {
    struct ch__conn *conns;
    struct ch_tlistener *listeners;
    struct ch__net_rule *rules; /* cuts and slow links */
    ch_time delay_min, delay_max;
    uint32_t flaky_per_million;
    uint64_t conn_count, port_count;
};

struct ch__sim_inc { /* one incarnation of a node */
    struct ch_env env;
    struct ch_sim_node *node;
    struct ch__sim_inc *next; /* of dying or ending */
    ch_main_fn *main_fn;
    void *main_arg;
    bool dead, returned;
    struct ch_wait_list io; /* fibers inside file operations */
    struct ch__rng rng;
    struct ch__sim_file *files;
    struct ch_tchannel *channels;
};

struct ch_sim_node {
    struct ch_sim *sim;
    struct ch_sim_node *next;
    const char *name;
    char *host;
    uint32_t id;
    struct ch__sim_inc *inc; /* NULL: not running */
    bool paused;
    struct ch_fiber **held; /* ready, but the node is paused */
    size_t held_len, held_cap;
    int64_t wall_offset_us;
    int exit_value;
    struct ch__disk disk;
};

struct ch_sim {
    struct ch_loop loop;
    ch_time now;
    uint64_t seed, trace, steps, instant_steps;
    bool print_trace;
    struct ch__rng schedule, net_rng, disk_rng, user;
    struct ch_sim_node *nodes; /* newest first */
    struct ch_sim_node *tester;
    uint32_t node_count;
    struct ch__sim_inc *dying, *ending;
    size_t batch_left; /* fibers of the ready ring that belong to the current round */
    struct ch_post *posts, **posts_end;
    struct ch__net net;
    struct ch__probe *probes;
};

static inline struct ch__sim_inc *ch__inc_of(struct ch_env *env)
{
    return (struct ch__sim_inc *)env;
}
static inline struct ch_sim *ch__sim_of(struct ch_env *env)
{
    return ch__inc_of(env)->node->sim;
}

/* Adds an event to the world's trace: what, on which node (or NULL), a number. */
void ch__sim_event(struct ch_sim *sim, const char *what, const struct ch_sim_node *node,
                   uint64_t number);
void ch__sim_probes_free(struct ch_sim *sim);
/* Makes the world's loop the thread's, unless one of its fibers runs. */
void ch__sim_enter(struct ch_sim *sim);
struct base_status ch__sim_dead(struct ch_env *env, const char *what) BASE_MUST_CHECK;

/* sim_disk.c: the file functions of an env. */
#define CH__SIM_FILE_OPS                                                                          \
    .file_open = ch__sim_file_open, .file_read = ch__sim_file_read,                               \
    .file_write = ch__sim_file_write, .file_sync = ch__sim_file_sync,                             \
    .file_allocate = ch__sim_file_allocate, .file_truncate = ch__sim_file_truncate,               \
    .file_size = ch__sim_file_size, .file_lock = ch__sim_file_lock,                               \
    .file_close = ch__sim_file_close, .dir_make = ch__sim_dir_make, .dir_list = ch__sim_dir_list, \
    .dir_sync = ch__sim_dir_sync, .file_rename = ch__sim_file_rename,                             \
    .file_remove = ch__sim_file_remove, .disk_space = ch__sim_disk_space
struct base_status ch__sim_file_open(struct ch_env *env, const char *path, int flags,
                                     struct ch_file **file) CH_WAITS;
struct base_status ch__sim_file_read(struct ch_file *file, uint64_t offset, void *data, size_t len,
                                     size_t *got) CH_WAITS;
struct base_status ch__sim_file_write(struct ch_file *file, uint64_t offset,
                                      const struct base_bytes *parts, size_t part_count,
                                      bool durable) CH_WAITS;
struct base_status ch__sim_file_sync(struct ch_file *file) CH_WAITS;
struct base_status ch__sim_file_allocate(struct ch_file *file, uint64_t offset,
                                         uint64_t len) CH_WAITS;
struct base_status ch__sim_file_truncate(struct ch_file *file, uint64_t size) CH_WAITS;
struct base_status ch__sim_file_size(struct ch_file *file, uint64_t *size) CH_WAITS;
struct base_status ch__sim_file_lock(struct ch_file *file) CH_WAITS;
void ch__sim_file_close(struct ch_file *file) CH_WAITS;
struct base_status ch__sim_dir_make(struct ch_env *env, const char *path) CH_WAITS;
struct base_status ch__sim_dir_list(struct ch_env *env, const char *path, struct base_arena *arena,
                                    char ***names, size_t *count) CH_WAITS;
struct base_status ch__sim_dir_sync(struct ch_env *env, const char *path) CH_WAITS;
struct base_status ch__sim_file_rename(struct ch_env *env, const char *from,
                                       const char *to) CH_WAITS;
struct base_status ch__sim_file_remove(struct ch_env *env, const char *path) CH_WAITS;
struct base_status ch__sim_disk_space(struct ch_env *env, const char *path, uint64_t *total,
                                      uint64_t *available) CH_WAITS;
/* The process has ended: its locks are free. */
void ch__disk_inc_gone(struct ch__sim_inc *inc);

/* sim_net.c, transport_sim.c */
extern const struct ch_transport ch__sim_transport;
void ch__net_inc_died(struct ch__sim_inc *inc); /* its calls fail, its peers will notice */
void ch__net_inc_gone(
    struct ch__sim_inc *inc);             /* the process has ended: nothing may listen any more */
void ch__net_changed(struct ch_sim *sim); /* a cut, a pause or their end */
void ch__net_init(struct ch_sim *sim);
void ch__net_free(struct ch_sim *sim);

#endif
