/* process.c: child processes (see process.h).
 *
 * A start forks on the loop's own thread: PR_SET_PDEATHSIG follows the thread that forked, and
 * that one lives as long as the process. The child does nothing but system calls between fork and
 * exec; what fails there comes back through a pipe that the exec closes, read on a helper thread.
 * One thread an env watches all pidfds with epoll and posts each end to the loop; no SIGCHLD is
 * involved, and no signal goes to a pid that was used again: they go through the pidfd.
 * 1. A process is waited for by whoever holds its struct; freeing it neither ends nor stops the
 *    process. A child that is freed before its end is reaped by the watcher all the same.
 * 2. exit_status is written once, before `ended` is set on the loop.
 * 3. The child has no signal blocked or ignored, and no descriptor but 0 (/dev/null), 1 and 2. */
#include "chassis/process.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "env_int.h"

struct ch_process {
    struct ch_post post; /* first: the watcher's message that it has ended */
    struct ch_env *env;
    struct watcher *watcher;        /* NULL: the env is going away */
    struct ch_process *next, *prev; /* of the watcher */
    int pidfd;
    int64_t pid;
    uint64_t start_time;
    bool child;  /* ours to reap */
    bool posted; /* the watcher's thread has posted its end */
    bool freed;  /* by its user, before its end */
    int exit_status;
    struct ch_done ended;
};

/* ---- the watcher ---- */

struct watcher {
    struct ch_env *env;
    int epoll, wake;
    pthread_t thread;
    struct ch_process *processes; /* those whose end the loop has not seen */
};

static void process_destroy(struct ch_process *process)
{
    close(process->pidfd);
    free(process);
}

static void watcher_drop(struct ch_process *process)
{
    BASE_ASSERT(process->watcher);
    if (process->prev)
        process->prev->next = process->next;
    else
        process->watcher->processes = process->next;
    if (process->next)
        process->next->prev = process->prev;
    process->watcher = NULL;
}

/* On the loop. */
static void process_ended(struct ch_post *post)
{
    struct ch_process *process = (struct ch_process *)post;
    if (process->watcher)
        watcher_drop(process);
    if (process->freed)
        process_destroy(process);
    else
        ch_done_set(&process->ended);
}

static int reap(const struct ch_process *process)
{
    siginfo_t info = { 0 };
    if (!process->child || waitid(P_PIDFD, (id_t)process->pidfd, &info, WEXITED | WNOHANG) != 0 ||
        info.si_pid == 0)
        return -1;
    if (info.si_code == CLD_EXITED)
        return (info.si_status & 0xff) << 8;
    return (info.si_status & 0x7f) | (info.si_code == CLD_DUMPED ? 0x80 : 0);
}

static void *watcher_main(void *arg)
{
    struct watcher *watcher = arg;
    pthread_setname_np(pthread_self(), "processes");
    for (;;) {
        struct epoll_event event;
        int n = epoll_wait(watcher->epoll, &event, 1, -1);
        if (n < 0 && errno != EINTR)
            break;
        if (n != 1)
            continue;
        struct ch_process *process = event.data.ptr;
        if (!process)
            break; /* woken to stop */
        epoll_ctl(watcher->epoll, EPOLL_CTL_DEL, process->pidfd, NULL);
        process->exit_status = reap(process);
        process->post.fn = process_ended;
        process->posted = true;
        ch_env_post(watcher->env, &process->post);
    }
    return NULL;
}

/* The env goes away: no fiber is left. What was posted still gets to process_ended. */
static void watcher_free(void *ext)
{
    struct watcher *watcher = ext;
    uint64_t one = 1;
    ssize_t n = write(watcher->wake, &one, sizeof(one));
    BASE_ASSERT(n == sizeof(one));
    pthread_join(watcher->thread, NULL);
    while (watcher->processes) {
        struct ch_process *process = watcher->processes;
        watcher_drop(process);
        if (process->freed && !process->posted)
            process_destroy(process);
    }
    close(watcher->epoll);
    close(watcher->wake);
    free(watcher);
}

static struct base_status watcher_of(struct ch_env *env, struct watcher **out)
{
    *out = env->ext[CH_EXT_PROCESS];
    if (*out)
        return BASE_STATUS_OK;
    struct watcher *watcher = calloc(1, sizeof(*watcher));
    BASE_ASSERT(watcher);
    watcher->env = env;
    watcher->epoll = epoll_create1(EPOLL_CLOEXEC);
    watcher->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = { .events = EPOLLIN };
    int rc = 0;
    if (watcher->epoll < 0 || watcher->wake < 0 ||
        epoll_ctl(watcher->epoll, EPOLL_CTL_ADD, watcher->wake, &event) != 0)
        rc = errno;
    else
        rc = pthread_create(&watcher->thread, NULL, watcher_main, watcher);
    if (rc != 0) {
        if (watcher->epoll >= 0)
            close(watcher->epoll);
        if (watcher->wake >= 0)
            close(watcher->wake);
        free(watcher);
        return base_status_errno(rc, "process watcher");
    }
    env->ext[CH_EXT_PROCESS] = watcher;
    env->ext_free[CH_EXT_PROCESS] = watcher_free;
    *out = watcher;
    return BASE_STATUS_OK;
}

/* ---- what the kernel knows of a process ---- */

/* Field 3 (state) and field 22 (start time) of /proc/PID/stat; the name before them may hold
 * anything, so count from its ')'. */
static bool stat_read(int64_t pid, char *state, uint64_t *start_time)
{
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%lld/stat", (long long)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t len = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (len <= 0)
        return false;
    text[len] = '\0';
    char *at = strrchr(text, ')');
    if (!at || at[1] != ' ')
        return false;
    *state = at[2];
    unsigned long long value;
    if (sscanf(at + 4,
               "%*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
               &value) != 1)
        return false;
    *start_time = value;
    return true;
}

/* Takes a process up: pidfd, start time, watching. */
static struct base_status process_take(struct ch_env *env, int64_t pid, bool child,
                                       struct ch_process **out)
{
    struct watcher *watcher;
    struct base_status status = watcher_of(env, &watcher);
    if (base_failed(status))
        return status;
    int pidfd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
    if (pidfd < 0)
        return errno == ESRCH || errno == EINVAL
                   ? base_status_make(BASE_NOT_FOUND, "there is no process %lld", (long long)pid)
                   : base_status_errno(errno, "pidfd");
    struct ch_process *process = calloc(1, sizeof(*process));
    char state;
    BASE_ASSERT(process);
    *process = (struct ch_process){ .env = env,
                                    .watcher = watcher,
                                    .pidfd = pidfd,
                                    .pid = pid,
                                    .child = child,
                                    .exit_status = -1 };
    ch_done_init(&process->ended);
    if (!stat_read(pid, &state, &process->start_time) ||
        (!child && (state == 'Z' || state == 'X'))) {
        process_destroy(process);
        return base_status_make(BASE_NOT_FOUND, "process %lld has ended", (long long)pid);
    }
    *out = process;
    return BASE_STATUS_OK;
}

static struct base_status process_watch(struct ch_process *process)
{
    struct watcher *watcher = process->watcher;
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = process };
    process->next = watcher->processes;
    if (watcher->processes)
        watcher->processes->prev = process;
    watcher->processes = process;
    if (epoll_ctl(watcher->epoll, EPOLL_CTL_ADD, process->pidfd, &event) == 0)
        return BASE_STATUS_OK;
    struct base_status status = base_status_errno(errno, "watch a process");
    watcher_drop(process);
    process_destroy(process);
    return status;
}

/* ---- starting ---- */

struct child_error {
    int err;
    char step[24];
};

static void child_fail(int report, const char *step)
{
    struct child_error error = { .err = errno };
    strncpy(error.step, step, sizeof(error.step) - 1);
    ssize_t n = write(report, &error, sizeof(error));
    (void)n;
    _exit(127);
}

static void child_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* In the child: system calls only, no memory is allocated. Does not return. */
static void child_main(const struct ch_process_spec *spec, char **environment, pid_t parent,
                       int report)
{
    if (spec->die_with_parent && (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent))
        _exit(127);
    if (!spec->die_with_parent && setsid() < 0)
        child_fail(report, "setsid");
    int null = open("/dev/null", O_RDONLY);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0)
        child_fail(report, "/dev/null");
    if (spec->log_path) {
        int log = open(spec->log_path, O_WRONLY | O_CREAT | O_APPEND, 0644);
        if (log < 0 || dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)
            child_fail(report, "log file");
    }
    if (spec->directory && chdir(spec->directory) != 0)
        child_fail(report, "directory");
    if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0)
        child_fail(report, "close_range");
    child_signals();
    execve(spec->argv[0], (char *const *)spec->argv, environment);
    child_fail(report, "program");
}

/* This process' environment with the added ones, which replace those of the same name. */
static char **environment_make(const char *const *added)
{
    size_t count = 0, more = 0;
    while (environ[count])
        count++;
    while (added && added[more])
        more++;
    char **all = calloc(count + more + 1, sizeof(*all));
    BASE_ASSERT(all);
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        bool replaced = false;
        size_t name = strcspn(environ[i], "=") + 1;
        for (size_t j = 0; j < more; j++)
            replaced |= strncmp(environ[i], added[j], name) == 0;
        if (!replaced)
            all[n++] = environ[i];
    }
    for (size_t j = 0; j < more; j++)
        all[n++] = (char *)added[j];
    return all;
}

struct report_job {
    int fd;
    struct child_error error;
    bool failed;
};

/* On a helper thread: until the exec closes the pipe. */
static void report_read(void *arg)
{
    struct report_job *job = arg;
    ssize_t n;
    do
        n = read(job->fd, &job->error, sizeof(job->error));
    while (n < 0 && errno == EINTR);
    job->failed = n == sizeof(job->error);
}

static struct base_status child_error_status(const struct ch_process_spec *spec,
                                             const struct child_error *error)
{
    const char *what = strcmp(error->step, "log file") == 0    ? spec->log_path
                       : strcmp(error->step, "directory") == 0 ? spec->directory
                                                               : spec->argv[0];
    return base_status_wrap(base_status_errno(error->err, what), "start %s: %s", spec->argv[0],
                            error->step);
}

struct base_status ch_process_start(struct ch_env *env, const struct ch_process_spec *spec,
                                    struct ch_process **out)
{
    int report[2];
    *out = NULL;
    if (env->simulated)
        return base_status_make(BASE_UNIMPLEMENTED, "there are no processes in a simulated env");
    if (pipe2(report, O_CLOEXEC) != 0)
        return base_status_errno(errno, "pipe");
    char **environment = environment_make(spec->environment);
    pid_t parent = getpid(), pid = fork();
    int fork_error = errno;
    if (pid == 0)
        child_main(spec, environment, parent, report[1]);
    close(report[1]);
    free(environment);
    if (pid < 0) {
        close(report[0]);
        return base_status_errno(fork_error, "fork");
    }
    struct ch_process *process = NULL;
    struct base_status status = process_take(env, pid, true, &process);
    struct report_job job = { .fd = report[0] };
    ch_offload(env, report_read, &job);
    close(report[0]);
    if (!base_failed(status) && job.failed) {
        status = child_error_status(spec, &job.error);
        process_destroy(process);
    }
    if (!base_failed(status))
        status = process_watch(process);
    if (base_failed(status)) {
        kill(pid, SIGKILL); /* not yet reaped, so it is still this one */
        waitpid(pid, NULL, 0);
        return status;
    }
    *out = process;
    return BASE_STATUS_OK;
}

struct base_status ch_process_adopt(struct ch_env *env, int64_t pid, uint64_t start_time,
                                    struct ch_process **out)
{
    struct ch_process *process = NULL;
    *out = NULL;
    if (env->simulated)
        return base_status_make(BASE_UNIMPLEMENTED, "there are no processes in a simulated env");
    if (pid <= 0 || pid > INT32_MAX)
        return base_status_make(BASE_NOT_FOUND, "there is no process %lld", (long long)pid);
    struct base_status status = process_take(env, pid, false, &process);
    if (base_failed(status))
        return status;
    if (process->start_time != start_time) {
        process_destroy(process);
        return base_status_make(BASE_NOT_FOUND, "process %lld is another one now", (long long)pid);
    }
    status = process_watch(process);
    if (!base_failed(status))
        *out = process;
    return status;
}

/* ---- a process ---- */

int64_t ch_process_pid(const struct ch_process *process)
{
    return process->pid;
}

uint64_t ch_process_start_time(const struct ch_process *process)
{
    return process->start_time;
}

struct base_status ch_process_signal(struct ch_process *process, int number)
{
    if (syscall(SYS_pidfd_send_signal, process->pidfd, number, NULL, 0) == 0)
        return BASE_STATUS_OK;
    if (errno == ESRCH)
        return base_status_make(BASE_NOT_FOUND, "process %lld has ended", (long long)process->pid);
    return base_status_errno(errno, "signal");
}

enum ch_outcome ch_process_wait(struct ch_process *process, ch_time deadline, int *exit_status)
{
    enum ch_outcome outcome = ch_done_wait(&process->ended, deadline);
    if (outcome == CH_OK && exit_status)
        *exit_status = process->exit_status;
    return outcome;
}

void ch_process_free(struct ch_process *process)
{
    if (!process)
        return;
    if (process->ended.set)
        process_destroy(process);
    else
        process->freed = true; /* the watcher's post frees it */
}
