/* Child processes: started, watched to their end, found again by pid and start time, and none
 * left behind. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "chassis/process.h"
#include "test.h"

static struct ch_process *start(struct ch_env *env, const char *script,
                                const struct ch_process_spec *more) CH_WAITS;
static struct ch_process *start(struct ch_env *env, const char *script,
                                const struct ch_process_spec *more)
{
    const char *const argv[] = { "/bin/sh", "-c", script, NULL };
    struct ch_process_spec spec = more ? *more : (struct ch_process_spec){ 0 };
    struct ch_process *process = NULL;
    spec.argv = argv;
    spec.die_with_parent = true;
    struct base_status status = ch_process_start(env, &spec, &process);
    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    return process;
}

static int wait_for(struct ch_env *env, struct ch_process *process) CH_WAITS;
static int wait_for(struct ch_env *env, struct ch_process *process)
{
    int exit_status = -2;
    cr_assert_eq(ch_process_wait(process, ch_in(env, 20 * CH_S), &exit_status), CH_OK);
    return exit_status;
}

static int ends(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_process *good = start(env, "exit 0", NULL), *bad = start(env, "exit 7", NULL),
                      *slow = start(env, "exec sleep 100", NULL);
    int bad_status = wait_for(env, bad);
    cr_assert(WIFEXITED(bad_status) && WEXITSTATUS(bad_status) == 7);
    cr_assert_eq(wait_for(env, good), 0);
    int status = 0;
    cr_assert_eq(ch_process_wait(slow, ch_in(env, 10 * CH_MS), &status), CH_TIMEOUT);
    cr_assert(!base_failed(
        ch_process_signal(slow, SIGTERM))); /* the child must not inherit our blocked SIGTERM */
    status = wait_for(env, slow);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    cr_assert_eq(base_status_drop(ch_process_signal(slow, SIGTERM)), BASE_NOT_FOUND);
    ch_process_free(good);
    ch_process_free(bad);
    ch_process_free(slow);
    return 0;
}

Test(process, an_end_is_told_with_its_status, .timeout = 60)
{
    ch_env_run(ends, NULL);
}

static int surroundings(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    char directory[] = "/tmp/test_process_XXXXXX", log[64], wanted[256];
    cr_assert_not_null(mkdtemp(directory));
    snprintf(log, sizeof(log), "%s/log", directory);
    setenv("REPLACED", "old", 1);
    const char *const environment[] = { "ADDED=yes", "REPLACED=new", NULL };
    const struct ch_process_spec spec = { .environment = environment,
                                          .directory = directory,
                                          .log_path = log };
    int leak = dup(STDERR_FILENO); /* a descriptor without close-on-exec */
    struct base_buf text = { 0 };
    for (int i = 0; i < 2; i++) {
        struct ch_process *process = start(
            env, "pwd; echo $ADDED $REPLACED >&2; ls /proc/self/fd | tr '\\n' ' '; echo", &spec);
        cr_assert_eq(wait_for(env, process), 0);
        ch_process_free(process);
    }
    close(leak);
    cr_assert(!base_failed(ch_file_read_all(env, log, 4096, &text)));
    base_buf_put_u8(&text, 0);
    /* 3 is what ls itself opens; the second run was appended. */
    snprintf(wanted, sizeof(wanted), "%s\nyes new\n0 1 2 3 \n%s\nyes new\n0 1 2 3 \n", directory,
             directory);
    cr_assert_str_eq((char *)text.data, wanted);
    base_buf_free(&text);
    (void)base_status_drop(ch_file_remove(env, log));
    rmdir(directory);
    return 0;
}

Test(process, directory_environment_log_and_descriptors_are_as_asked, .timeout = 60)
{
    ch_env_run(surroundings, NULL);
}

static int failures(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    static const char *const nothing[] = { "/no/such/program", NULL }, *const shell[] = { "/bin/sh",
                                                                                          NULL };
    struct ch_process *process = NULL;
    struct ch_process_spec spec = { .argv = nothing };
    struct base_status status = ch_process_start(env, &spec, &process);
    cr_assert_eq(status.code, BASE_NOT_FOUND);
    cr_assert_not_null(strstr(base_status_text(&status), "/no/such/program"), "%s",
                       base_status_text(&status));
    base_status_free(&status);
    spec = (struct ch_process_spec){ .argv = shell, .log_path = "/no/such/dir/log" };
    status = ch_process_start(env, &spec, &process);
    cr_assert_not_null(strstr(base_status_text(&status), "/no/such/dir/log"), "%s",
                       base_status_text(&status));
    base_status_free(&status);
    spec = (struct ch_process_spec){ .argv = shell, .directory = "/no/dir" };
    status = ch_process_start(env, &spec, &process);
    cr_assert_not_null(strstr(base_status_text(&status), "/no/dir"), "%s",
                       base_status_text(&status));
    base_status_free(&status);
    cr_assert_null(process);
    cr_assert_eq(waitpid(-1, NULL, WNOHANG), -1, "a child that could not be started is left");
    return 0;
}

Test(process, what_cannot_be_started_is_named_and_leaves_nothing, .timeout = 60)
{
    ch_env_run(failures, NULL);
}

static int adopting(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_process *own = start(env, "exec sleep 100", NULL), *adopted = NULL;
    int64_t pid = ch_process_pid(own);
    uint64_t start_time = ch_process_start_time(own);
    int status = 0;
    cr_assert_eq(base_status_drop(ch_process_adopt(env, pid, start_time + 1, &adopted)),
                 BASE_NOT_FOUND);
    cr_assert_eq(base_status_drop(ch_process_adopt(env, pid, start_time, &adopted)), BASE_OK);
    cr_assert_eq(ch_process_wait(adopted, ch_in(env, 10 * CH_MS), &status), CH_TIMEOUT);
    cr_assert(!base_failed(ch_process_signal(adopted, SIGKILL)));
    cr_assert_eq(ch_process_wait(adopted, ch_in(env, 20 * CH_S), &status), CH_OK);
    cr_assert_eq(status, -1);
    status = wait_for(env, own);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    ch_process_free(own);
    ch_process_free(adopted);
    cr_assert_eq(base_status_drop(ch_process_adopt(env, pid, start_time, &adopted)),
                 BASE_NOT_FOUND);
    cr_assert_eq(base_status_drop(ch_process_adopt(env, 0, 0, &adopted)), BASE_NOT_FOUND);
    return 0;
}

Test(process, one_started_by_another_is_found_by_pid_and_start_time, .timeout = 60)
{
    ch_env_run(adopting, NULL);
}

static int freeing(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_process *process = start(env, "exit 0", NULL),
                      *long_one = start(env, "exec sleep 100", NULL);
    *(int64_t *)arg = ch_process_pid(long_one);
    ch_process_free(process); /* before its end, most likely: the watcher must still reap it */
    ch_process_free(long_one);
    siginfo_t info = { 0 };
    for (ch_time deadline = ch_in(env, 10 * CH_S); ch_now(env) < deadline;) {
        info.si_pid = 0;
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0)
            break; /* no zombie */
        (void)ch_sleep_until(env, ch_in(env, CH_MS));
    }
    cr_assert_eq(info.si_pid, 0, "a zombie is left");
    return 0;
}

Test(process, a_freed_child_goes_on_and_is_reaped_at_its_end, .timeout = 60)
{
    int64_t pid = 0;
    ch_env_run(freeing, &pid);
    cr_assert_eq(kill((pid_t)pid, 0), 0, "freeing ended the process");
    kill((pid_t)pid, SIGKILL);
    waitpid((pid_t)pid, NULL, 0);
}
