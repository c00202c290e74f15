/* log.c: log.h's functions, handed on to what stands behind a log (log_ops.h). */
#include "log_ops.h"

struct base_status con_log_open(struct ch_env *env, const struct con_log_options *options,
                                const struct con_machine *machine, struct con_log **log)
{
    bool etcd = options->state && strncmp(options->state, "etcd://", 7) == 0;

    *log = NULL;
    if (options->state && !etcd)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "open log: state \"%s\" is not etcd://host:port", options->state);
    return base_status_wrap(etcd ? con__etcd_open(env, options, machine, log)
                                 : con__group_open(env, options, machine, log),
                            "open log");
}

struct base_status con_log_propose(struct con_log *log, struct base_bytes command, ch_time deadline,
                                   struct base_buf *reply)
{
    if (command.len > CON_COMMAND_BYTES_MAX)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "a command of %zu bytes is over the log's limit of %d", command.len,
                                CON_COMMAND_BYTES_MAX);
    if (ch_cancelled())
        return base_status_make(BASE_CANCELLED, "propose: cancelled before it was handed over");
    if (deadline <= ch_now(ch_fiber_env()))
        return base_status_make(BASE_DEADLINE_EXCEEDED,
                                "propose: the deadline had passed before it was handed over");
    return log->ops->propose(log, command, deadline, reply);
}

struct base_status con_log_read_barrier(struct con_log *log, ch_time deadline)
{
    return log->ops->read_barrier(log, deadline);
}

uint64_t con_log_term(const struct con_log *log)
{
    return log->ops->term(log);
}

uint64_t con_log_applied(const struct con_log *log)
{
    return log->ops->applied(log);
}

const char *con_log_leader(const struct con_log *log)
{
    return log->ops->leader(log);
}

enum ch_outcome con_log_wait_lead(struct con_log *log, ch_time deadline, uint64_t *term)
{
    return log->ops->wait_lead(log, deadline, term);
}

const char *con_log_failure(const struct con_log *log)
{
    return log->ops->failure ? log->ops->failure(log) : NULL;
}

void con_log_close(struct con_log *log)
{
    log->ops->close(log);
}

/* ---- members ---- */

void con_log_look(struct con_log *log, struct con_log_view *view)
{
    log->ops->look(log, view);
}

static struct base_status no_members(void)
{
    return base_status_make(BASE_UNIMPLEMENTED, "this log's members are not ours to change");
}

struct base_status con_log_add(struct con_log *log, const struct con_member *member,
                               ch_time deadline)
{
    return log->ops->add ? log->ops->add(log, member, deadline) : no_members();
}

struct base_status con_log_remove(struct con_log *log, uint64_t member, ch_time deadline)
{
    return log->ops->remove ? log->ops->remove(log, member, deadline) : no_members();
}

struct base_status con_log_transfer(struct con_log *log, uint64_t member, ch_time deadline)
{
    return log->ops->transfer ? log->ops->transfer(log, member, deadline) : no_members();
}

struct base_status con__not_leader(const char *leader)
{
    if (!*leader)
        return base_status_make(BASE_FAILED_PRECONDITION, "not the leader; none is known");
    return base_status_make(BASE_FAILED_PRECONDITION, "not the leader; it is at %s", leader);
}
