/* clustermgr/job.h: job files, for tools that submit them. A job file is YAML, one job a file
 * (see jobs/ and README.md); it becomes a JobSpec (strata.clustermgr.v1). No function here may
 * wait. */
#ifndef CLUSTERMGR_JOB_H
#define CLUSTERMGR_JOB_H

#include "base/arena.h"
#include "base/bytes.h"
#include "strata/clustermgr/v1/cell.pb-c.h"

enum {
    CLU_JOB_NAME_MAX = 40,
    CLU_TASKS_MAX = 2000, /* of one job */
};

/* What the clustermaster accepts: INVALID_ARGUMENT names the field. */
struct base_status clu_job_check(const Strata__Clustermgr__V1__JobSpec *spec) BASE_MUST_CHECK;

/* Reads a job file's text. The job lives in `arena`. INVALID_ARGUMENT "FILE:LINE: key: what is
 * wrong"; it is checked too. */
struct base_status clu_job_parse(struct base_bytes yaml, const char *file, struct base_arena *arena,
                                 Strata__Clustermgr__V1__JobSpec **spec) BASE_MUST_CHECK;

#endif
