/* cell.h: a simulated cell for tests of this layer: names, one or two tabletmasters,
 * tabletservers, the blockstore double. The tester's fibers are the clients. Server i is
 * "tabletserver/<i>" at 10.0.1.<10+i>:7000, master i at 10.0.2.<10+i>:7000. */
#ifndef TESTS_TABLET_CELL_H
#define TESTS_TABLET_CELL_H

#include "base/codec.h"
#include "chassis/sim.h"
#include "names_double.h"
#include "tablet/tablet.h"

enum { CELL_NODES_MAX = 8 };
#define CELL_INSTANCE "projects/p/instances/i"
#define CELL_TABLE CELL_INSTANCE "/tables/t"

struct cell_node {
    struct cell *cell;
    struct ch_sim_node *node;
    const struct ch_service_def *def;
    char name[24], host[24], address[32], task[32];
    char *argv[32];
    int argc;
};

struct cell {
    struct ch_sim *sim;
    struct ch_sim_node *names_node;
    struct names_double *names;
    struct cell_node servers[CELL_NODES_MAX], masters[2];
    size_t server_count, master_count;
    const char *extra[8];
};

/* `extra`: more flags of the tabletservers, NULL-terminated, may be NULL. */
struct cell *cell_new(uint64_t seed, size_t servers, size_t masters, const char *const *extra);
void cell_free(struct cell *cell);
void cell_start(struct cell_node *node); /* when it does not run */
struct ch_naming *cell_naming(struct cell *cell);
struct tab_client *cell_client(struct cell *cell, struct ch_naming *naming);
/* A client of one server only. */
struct tab_client *cell_client_of(struct cell *cell, size_t server);
ch_time cell_in(struct cell *cell, ch_time ns);

/* ---- requests in few words, on the tester's fibers; strings are C strings ---- */
struct base_status cell_make_table(struct tab_client *client, struct ch_env *env,
                                   int max_versions) CH_WAITS BASE_MUST_CHECK;
struct base_status cell_set(struct tab_client *client, const char *row, const char *qualifier,
                            int64_t timestamp_us, struct base_bytes value,
                            ch_time deadline) CH_WAITS BASE_MUST_CHECK;
struct base_status cell_increment(struct tab_client *client, const char *row, const char *qualifier,
                                  int64_t amount, ch_time deadline,
                                  int64_t *result) CH_WAITS BASE_MUST_CHECK;
/* "Set value if the row has no cell in family f." */
struct base_status cell_set_if_empty(struct tab_client *client, const char *row,
                                     struct base_bytes value, ch_time deadline,
                                     bool *was_empty) CH_WAITS BASE_MUST_CHECK;
struct base_status cell_read_row(struct tab_client *client, const char *row, ch_time deadline,
                                 struct base_arena *arena, struct tab_row **found) CH_WAITS
    BASE_MUST_CHECK; /* NULL: no such row */
struct base_status cell_read_all(struct tab_client *client, bool reversed, ch_time deadline,
                                 struct base_arena *arena, struct tab_row **rows,
                                 size_t *count) CH_WAITS BASE_MUST_CHECK;
/* Admin calls go to any server, as clients do. */
struct base_status cell_call(struct cell *cell, size_t server, const struct ch_method *method,
                             const void *request, ch_time deadline, struct base_arena *arena,
                             void **reply) CH_WAITS BASE_MUST_CHECK;

#endif
