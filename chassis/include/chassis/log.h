/* chassis/log.h: structured logs: one JSON object a line on stderr (a supervisor keeps them):
 * time, level, service, fiber, trace, message, and key=value fields. Rate-limited per call site
 * (the count of what was dropped is logged). No waits. */
#ifndef CHASSIS_LOG_H
#define CHASSIS_LOG_H

#include "base/status.h"

struct ch_env;
enum ch_log_level { CH_LOG_DEBUG, CH_LOG_INFO, CH_LOG_WARN, CH_LOG_ERROR };

/* The message is a formatted sentence: "sealed block 17 at 4096: replica 127.0.0.3:7001: deadline
 * exceeded". */
void ch_log_at(struct ch_env *env, enum ch_log_level level, const char *file, int line,
               const char *fmt, ...) BASE_PRINTF(5, 6);
#define ch_debug(env, ...) ch_log_at((env), CH_LOG_DEBUG, __FILE__, __LINE__, __VA_ARGS__)
#define ch_info(env, ...) ch_log_at((env), CH_LOG_INFO, __FILE__, __LINE__, __VA_ARGS__)
#define ch_warn(env, ...) ch_log_at((env), CH_LOG_WARN, __FILE__, __LINE__, __VA_ARGS__)
#define ch_error(env, ...) ch_log_at((env), CH_LOG_ERROR, __FILE__, __LINE__, __VA_ARGS__)
void ch_log_set(struct ch_env *env, const char *service, enum ch_log_level least);

#endif
