/* chassis/process.h: child processes, for clusteragent. Real env only. */
#ifndef CHASSIS_PROCESS_H
#define CHASSIS_PROCESS_H

#include "chassis/env.h"

struct ch_process;
struct ch_process_spec {
    const char *const *argv;        /* NULL-terminated; argv[0] is the path of the program */
    const char *const *environment; /* added; NULL-terminated or NULL */
    const char *directory;
    const char *log_path; /* stdout and stderr are appended there */
    /* PR_SET_PDEATHSIG(SIGKILL); else it is a session of its own and outlives the agent. */
    bool die_with_parent;
};
struct base_status ch_process_start(struct ch_env *env, const struct ch_process_spec *spec,
                                    struct ch_process **process) CH_WAITS BASE_MUST_CHECK;
/* A process that this one did not start (an agent's earlier life did), told from a reused pid by
 * its start time (field 22 of /proc/PID/stat). NOT_FOUND when it is gone or another. */
struct base_status ch_process_adopt(struct ch_env *env, int64_t pid, uint64_t start_time,
                                    struct ch_process **process) CH_WAITS BASE_MUST_CHECK;
int64_t ch_process_pid(const struct ch_process *process);
uint64_t ch_process_start_time(const struct ch_process *process);
struct base_status ch_process_signal(struct ch_process *process, int signal) BASE_MUST_CHECK;
/* Waits for its end (pidfd). *exit_status as waitpid's, or -1 for an adopted one. */
enum ch_outcome ch_process_wait(struct ch_process *process, ch_time deadline,
                                int *exit_status) CH_WAITS BASE_MUST_CHECK;
/* Does not end the process. */
void ch_process_free(struct ch_process *process);

#endif
