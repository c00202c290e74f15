/* log_etcd.c: a log that lives in an etcd cluster: to be written. */
#include "log_ops.h"

struct base_status con__etcd_open(struct ch_env *env, const struct con_log_options *options,
                                  const struct con_machine *machine, struct con_log **log)
{
    return base_status_make(BASE_UNIMPLEMENTED, "%s: not yet", options->state);
}
