/* chassis/fault.h: fault points: named places where a test, or an operator of a test cell, makes
 * something fail, wait or crash. Off costs one load. Set by code, by
 * STRATA_FAULTS="name=action,…" or by POST /faultz?name=action on the admin port. Actions: off,
 * fail[:N] (the next N hits, default all), delay:MS, crash, probability like fail@0.1. */
#ifndef CHASSIS_FAULT_H
#define CHASSIS_FAULT_H

#include "chassis/wait.h"

struct ch_env;

/* OK, or UNAVAILABLE "fault NAME" when the point is set to fail; may delay; may abort the process
 * (real) or crash the node. */
struct base_status ch_fault(struct ch_env *env, const char *name) CH_WAITS BASE_MUST_CHECK;
/* The same without delay, for places that may not wait. */
bool ch_fault_hit(struct ch_env *env, const char *name);
struct base_status ch_fault_set(struct ch_env *env, const char *name,
                                const char *action) BASE_MUST_CHECK;

#endif
