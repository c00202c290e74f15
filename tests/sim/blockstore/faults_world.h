/* faults_world.h: a blockstore in trouble: a cluster, writers and readers, faults from a seed, and
 * the model of what must be read whatever happened.
 *
 * The model: byte x of a file written in epoch e is f(file, e, x). So the checker knows what every
 * byte must be from the epochs' starts alone.
 *
 * world_begin -> world_faults -> world_end, which checks what must hold in the end. Files:
 * faults_model.c (the model), faults_clients.c (writers and readers), faults_nemesis.c (what goes
 * wrong), faults_world.c (a world from its beginning to its end). */
#ifndef FAULTS_WORLD_H
#define FAULTS_WORLD_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blk_cluster.h"
#include "blk_int.h"

enum {
    SERVERS = 5,
    FILES = 3,
    WRITERS = 5,
    READERS = 2,
    EPOCHS_MAX = 400,
    FAULT_SECONDS = 12,
    PIPELINED = 4
};

struct epoch {
    uint64_t epoch, start, acked;
};
struct file {
    int id;
    char path[32];
    struct epoch epochs[EPOCHS_MAX];
    size_t epoch_count;
    uint64_t observed; /* the greatest length a reader was told */
    bool sealed;
};
struct client {
    struct ch_sim_node *node;
    char name[32], host[32];
    int file; /* a writer's */
    bool paused;
};
struct fw_world {
    struct ch_sim *sim;
    uint64_t seed;
    struct blk_cluster cluster;
    struct file files[FILES];
    struct client writers[WRITERS], readers[READERS];
    bool stop;
    uint64_t appends, reads, opens, failed_appends;
    size_t victim; /* the server whose disk may be bad */
};
extern struct fw_world w; /* one at a time */

#define MUST(cond, ...)                                                           \
    do {                                                                          \
        if (!(cond)) {                                                            \
            fprintf(stderr, "seed %llu at %.6f s: ", (unsigned long long)w.seed,  \
                    (double)ch_sim_now(w.sim) / 1e9);                             \
            fprintf(stderr, __VA_ARGS__);                                         \
            fprintf(stderr, "\nreplay: STRATA_SEED=%llu sim_blockstore_faults\n", \
                    (unsigned long long)w.seed);                                  \
            abort();                                                              \
        }                                                                         \
    } while (0)

/* ---- the model ---- */
uint64_t acked_of(const struct file *f);
/* Inserts in the order of epochs: opens may return in another. */
void epoch_add(struct file *f, uint64_t epoch, uint64_t start);
void epoch_acked(struct file *f, uint64_t epoch, uint64_t end);
uint8_t byte_of(int file, uint64_t epoch, uint64_t x);
void check_bytes(const struct file *f, uint64_t offset, const uint8_t *data, size_t len,
                 const char *who);

/* ---- clients: the main functions of their nodes; arg: struct client ---- */
int writer_main(struct ch_env *env, void *arg);
int reader_main(struct ch_env *env, void *arg);

/* ---- the nemesis ---- */
uint64_t below(uint64_t n);
void run_for(ch_time ns);
void fault(void);
void restart_dead(void);
void heal_servers(void);
void heal_all(void);

/* ---- a world ---- */
void world_begin(uint64_t seed);
void world_faults(void);
void world_end(void);

#endif
