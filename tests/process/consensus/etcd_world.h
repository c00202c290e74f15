/* etcd_world.h: what the tests of logs in etcd share: a cluster of their own for each test, and
 * logs of the testing process on it. */
#ifndef TESTS_ETCD_WORLD_H
#define TESTS_ETCD_WORLD_H

#include "etcd.h"
#include "etcd_cluster.h"
#include "list_machine.h"
#include "test.h"

enum { PROCESSES = 2 };

struct etcd_world {
    struct etcd_cluster etcd;
    char dir[128], bin[512];
    pid_t pids[PROCESSES], proxy;
    char state[64]; /* of process 0 when it is to have another than all */
};
extern struct etcd_world t;

#define OK(expr)                                                                       \
    do {                                                                               \
        struct base_status status_ = (expr);                                           \
        cr_assert(!base_failed(status_), "%s: %s", #expr, base_status_text(&status_)); \
    } while (0)

/* Fails with this code and this in its text. */
#define FAILS(expr, code_, part)                                                                 \
    do {                                                                                         \
        struct base_status status_ = (expr);                                                     \
        cr_assert(status_.code == (code_) && strstr(base_status_text(&status_), (part)),         \
                  "%s: %s %s", #expr, base_code_name(status_.code), base_status_text(&status_)); \
        base_status_free(&status_);                                                              \
    } while (0)

/* Waits for a condition that others bring about. */
#define UNTIL(env, seconds, cond)                                                     \
    do {                                                                              \
        ch_time until_ = ch_in((env), (seconds)*CH_S);                                \
        while (!(cond)) {                                                             \
            cr_assert(ch_now(env) < until_, "not within %d s: %s", (seconds), #cond); \
            (void)ch_sleep_until((env), ch_in((env), 5 * CH_MS));                     \
        }                                                                             \
    } while (0)

/* A log of this process. */
struct member {
    struct ch_env *env;
    struct con_log *log;
    struct list_machine list;
};
void member_open(struct ch_env *env, struct member *member, const char *self, bool learner,
                 uint64_t snapshot_bytes) CH_WAITS;
void member_close(struct member *member) CH_WAITS;
/* Waits until it leads; returns the term. */
uint64_t member_lead(struct member *member) CH_WAITS;

/* For Test(…, .init, .fini). small: an etcd that is full after 16 MiB; patient: one whose members
 * miss their leader for 3 s before they elect another. */
void etcd_setup(void);
void etcd_setup_small(void);
void etcd_setup_patient(void);
void etcd_teardown(void);
/* Runs fn on the first fiber of an env; the test fails where etcd is not installed. */
void etcd_run(ch_main_fn *fn);

#endif
