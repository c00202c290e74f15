/* log_int.h (private to chassis). */
#ifndef CHASSIS_LOG_INT_H
#define CHASSIS_LOG_INT_H

#include "chassis/log.h"

/* "debug", "info", "warn", "error"; false for others. */
bool ch__log_level_parse(const char *text, enum ch_log_level *level);
/* The service's name as set, "" before. */
const char *ch__log_service(struct ch_env *env);
/* Waits, at most about a second, until what was logged is written: before the process ends in a
 * hurry. */
void ch__log_flush(struct ch_env *env);
/* For tests: lines go to this descriptor (not closed). */
void ch__log_to(struct ch_env *env, int fd);

#endif
