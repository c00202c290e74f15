/* job_check.c: what a job's specification may say. Asked by the clustermaster of every
 * submission, and by tools before. */
#include <inttypes.h>
#include <string.h>

#include "clustermgr/job.h"
#include "pb.h"

enum { ARGS_MAX = 256, TEXT_MAX = 4096, CONSTRAINTS_MAX = 16, AFTER_MAX = 32, GROUP_MAX = 9 };

static bool name_ok(struct base_bytes name, size_t max)
{
    if (name.len == 0 || name.len > max || name.data[0] < 'a' || name.data[0] > 'z')
        return false;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.data[i];

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
            return false;
    }
    return true;
}

static bool text_ok(struct base_bytes text, size_t max)
{
    return text.len > 0 && text.len <= max && !memchr(text.data, 0, text.len);
}

#define BAD(...) base_status_make(BASE_INVALID_ARGUMENT, __VA_ARGS__)

static struct base_status lists_check(const CLU_PB(JobSpec) * spec)
{
    if (spec->n_args > ARGS_MAX || spec->n_environment > ARGS_MAX)
        return BAD("args, environment: at most %d each", ARGS_MAX);
    for (size_t i = 0; i < spec->n_args; i++)
        if (!text_ok(ch_bytes_of(spec->args[i]), TEXT_MAX))
            return BAD("args[%zu]: must have 1 to %d bytes, none of them NUL", i, TEXT_MAX);
    for (size_t i = 0; i < spec->n_environment; i++) {
        struct base_bytes item = ch_bytes_of(spec->environment[i]);

        if (!text_ok(item, TEXT_MAX) || !memchr(item.data, '=', item.len) || item.data[0] == '=')
            return BAD("environment[%zu]: must be NAME=value", i);
    }
    if (spec->n_constraints > CONSTRAINTS_MAX)
        return BAD("constraints: at most %d", CONSTRAINTS_MAX);
    for (size_t i = 0; i < spec->n_constraints; i++) {
        struct base_bytes attribute = ch_bytes_of(spec->constraints[i]->attribute);

        if (!base_bytes_eq_str(attribute, "machine") && !base_bytes_eq_str(attribute, "zone") &&
            !base_bytes_eq_str(attribute, "rack"))
            return BAD("constraints[%zu].attribute: \"%.*s\" is none of machine, zone, rack", i,
                       BASE_FMT(attribute));
    }
    if (spec->n_after > AFTER_MAX)
        return BAD("after: at most %d", AFTER_MAX);
    for (size_t i = 0; i < spec->n_after; i++)
        if (!name_ok(ch_bytes_of(spec->after[i]), CLU_JOB_NAME_MAX))
            return BAD("after[%zu]: \"%.*s\" is no job's name", i,
                       BASE_FMT(ch_bytes_of(spec->after[i])));
    return BASE_STATUS_OK;
}

struct base_status clu_job_check(const CLU_PB(JobSpec) * spec)
{
    struct base_status status;

    if (!spec)
        return BAD("spec: missing");
    if (!name_ok(ch_bytes_of(spec->name), CLU_JOB_NAME_MAX))
        return BAD("name: \"%.*s\": a letter a-z, then letters a-z, digits and -, at most %d",
                   (int)(spec->name.len > 64 ? 64 : spec->name.len),
                   spec->name.len ? (const char *)spec->name.data : "", CLU_JOB_NAME_MAX);
    if (!text_ok(ch_bytes_of(spec->command), TEXT_MAX))
        return BAD("job %.*s: command: missing or too long", BASE_FMT(ch_bytes_of(spec->name)));
    if (spec->tasks > CLU_TASKS_MAX)
        return BAD("job %.*s: tasks: %" PRIu32 ", at most %d", BASE_FMT(ch_bytes_of(spec->name)),
                   spec->tasks, CLU_TASKS_MAX);
    if (spec->group && spec->tasks > GROUP_MAX)
        return BAD("job %.*s: tasks: %" PRIu32 ", a group has at most %d",
                   BASE_FMT(ch_bytes_of(spec->name)), spec->tasks, GROUP_MAX);
    if (spec->band < 0 || spec->band > STRATA__CLUSTERMGR__V1__BAND__BEST_EFFORT)
        return BAD("job %.*s: band: %d is none", BASE_FMT(ch_bytes_of(spec->name)),
                   (int)spec->band);
    if (spec->front.len > 0 && !name_ok(ch_bytes_of(spec->front), CLU_JOB_NAME_MAX))
        return BAD("job %.*s: front: not a name", BASE_FMT(ch_bytes_of(spec->name)));
    if (spec->resources &&
        (spec->resources->cpu_millis > 1000000000ull ||
         spec->resources->memory_bytes > 1ull << 50 || spec->resources->disk_bytes > 1ull << 60))
        return BAD("job %.*s: resources: more than any machine has",
                   BASE_FMT(ch_bytes_of(spec->name)));
    status = lists_check(spec);
    return base_status_wrap(status, "job %.*s", BASE_FMT(ch_bytes_of(spec->name)));
}
