/* fault_int.h (private to chassis). */
#ifndef CHASSIS_FAULT_INT_H
#define CHASSIS_FAULT_INT_H

#include "base/bytes.h"
#include "chassis/fault.h"

/* "name=action,name=action" (STRATA_FAULTS). INVALID_ARGUMENT names the culprit; the ones before
 * it stay set. */
struct base_status ch__fault_set_all(struct ch_env *env, const char *list) BASE_MUST_CHECK;
/* Appends one line a point: name, action, hits. */
void ch__fault_show(struct ch_env *env, struct base_buf *out);

#endif
