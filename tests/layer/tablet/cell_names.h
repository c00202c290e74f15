/* cell_names.h: a cell's names and locks in memory, served as strata.clustermgr.v1.Names:
 * sessions with leases, locks with growing epochs that can be broken, watches. For tests of this
 * layer in a simulated world. Its state outlives its node's crashes. */
#ifndef TESTS_TABLET_CELL_NAMES_H
#define TESTS_TABLET_CELL_NAMES_H

#include "chassis/rpc_server.h"

struct cell_names;
struct cell_names *cell_names_new(void);
void cell_names_free(struct cell_names *names);
/* Serves at `address`, "host:port". */
struct base_status cell_names_start(struct cell_names *names, struct ch_env *env,
                                    const char *address) CH_WAITS BASE_MUST_CHECK;
void cell_names_stop(struct cell_names *names) CH_WAITS;
/* Publishes a task's endpoint. */
void cell_names_publish(struct cell_names *names, const char *path, const char *value,
                        bool healthy);
/* The epoch of a lock, 0 when nobody ever had it; *holder gets the session's owner or NULL. */
uint64_t cell_names_lock(struct cell_names *names, const char *path, const char **value);

#endif
