/* names_double.h: a cell's names and locks in memory, served as strata.clustermgr.v1.Names:
 * sessions with leases, locks with growing epochs that can be broken, watches. For tests of one
 * layer in a simulated world (or a real env). Its state outlives its node's crashes. */
#ifndef TESTS_NAMES_DOUBLE_H
#define TESTS_NAMES_DOUBLE_H

#include "chassis/rpc_server.h"

struct names_double;
struct names_double *names_double_new(void);
void names_double_free(struct names_double *names);
/* Serves at `address`, "host:port". */
struct base_status names_double_start(struct names_double *names, struct ch_env *env,
                                      const char *address) CH_WAITS BASE_MUST_CHECK;
void names_double_stop(struct names_double *names) CH_WAITS;
/* Publishes a task's endpoint. */
void names_double_publish(struct names_double *names, const char *path, const char *value,
                          bool healthy);
/* The epoch of a lock, 0 when nobody ever had it; *holder gets the session's owner or NULL. */
uint64_t names_double_lock(struct names_double *names, const char *path, const char **value);
/* Gives the lock to whoever waits for it next, though its holder lives and believes to have it:
 * what a clock that runs wrong could do to leases. */
void names_double_steal(struct names_double *names, const char *path);

#endif
