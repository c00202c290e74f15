/* log_ops.h: what stands behind log.h: a group of members (group.c), or an etcd cluster
 * (log_etcd.c). A log is a struct that begins with struct con_log; log.c checks arguments that are
 * the same for both and hands the call on. Contracts as in log.h. */
#ifndef CON_LOG_OPS_H
#define CON_LOG_OPS_H

#include "consensus/log.h"

struct con_log_ops {
    /* The command is within CON_COMMAND_BYTES_MAX, the caller not cancelled, the deadline not
     * passed. */
    struct base_status (*propose)(struct con_log *log, struct base_bytes command, ch_time deadline,
                                  struct base_buf *reply) CH_WAITS_SLOT;
    struct base_status (*read_barrier)(struct con_log *log, ch_time deadline) CH_WAITS_SLOT;
    uint64_t (*term)(const struct con_log *log);
    uint64_t (*applied)(const struct con_log *log);
    const char *(*leader)(const struct con_log *log);
    enum ch_outcome (*wait_lead)(struct con_log *log, ch_time deadline,
                                 uint64_t *term) CH_WAITS_SLOT;
    void (*close)(struct con_log *log) CH_WAITS_SLOT;
    void (*look)(struct con_log *log, struct con_log_view *view);
    const char *(*failure)(const struct con_log *log); /* NULL: it never fails for good */
    /* NULL, all three: UNIMPLEMENTED (who the members are is not this log's to say). */
    struct base_status (*add)(struct con_log *log, const struct con_member *member,
                              ch_time deadline) CH_WAITS_SLOT;
    struct base_status (*remove)(struct con_log *log, uint64_t member,
                                 ch_time deadline) CH_WAITS_SLOT;
    struct base_status (*transfer)(struct con_log *log, uint64_t member,
                                   ch_time deadline) CH_WAITS_SLOT;
};

struct con_log {
    const struct con_log_ops *ops;
};

/* The two openers; con_log_open picks by options->state. */
struct base_status con__group_open(struct ch_env *env, const struct con_log_options *options,
                                   const struct con_machine *machine,
                                   struct con_log **log) CH_WAITS BASE_MUST_CHECK;
struct base_status con__etcd_open(struct ch_env *env, const struct con_log_options *options,
                                  const struct con_machine *machine,
                                  struct con_log **log) CH_WAITS BASE_MUST_CHECK;

/* "not the leader; it is at X", FAILED_PRECONDITION; leader "" : "not the leader; none is known".
 * Clients look for the words and the address after them. */
struct base_status con__not_leader(const char *leader) BASE_MUST_CHECK;

#endif
