/* bench_consensus: a replicated log of three member processes on this machine, each with its own
 * folder of one disk, talking over loopback; beside it, in the same run, a bare write+fdatasync
 * loop, and three members of Debian's etcd on the same disk.
 *
 *   bench_consensus [--dir DIR] [--seconds S] [--only OUTSTANDING] [--no-etcd]
 *   bench_consensus --idle-groups N [--seconds S]     CPU of three processes with N idle groups
 *
 * Prints, a line each: 128-byte commits a second, p50/p99/p99.9 of a commit, durable writes and
 * CPU of all three processes a commit. */
#include "bench_consensus.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

double bench_cpu_s(pid_t pid)
{
    struct timespec t = { 0 };
    clockid_t clock;
    if (clock_getcpuclockid(pid, &clock) == 0)
        clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void bench_line(const char *what, int outstanding, double per_s, const struct ch_histogram *h)
{
    printf("%-22s %4d outstanding %9.0f/s  p50 %6.0f  p99 %7.0f  p99.9 %7.0f us", what, outstanding,
           per_s, (double)ch_histogram_quantile(h, 0.5) / 1e3,
           (double)ch_histogram_quantile(h, 0.99) / 1e3,
           (double)ch_histogram_quantile(h, 0.999) / 1e3);
}

/* One sector at a time in a preallocated file: what one log on this disk could do without group
 * commit and without fellows. */
static void floor_run(const struct bench_options *options)
{
    char path[300], data[512];
    size_t span = 4 << 20;
    struct ch_histogram *h = ch_histogram_new();
    uint64_t n = 0;
    char *zeros = calloc(1, span);
    snprintf(path, sizeof path, "%s/floor", options->dir);
    int fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0644);
    if (fd < 0 || pwrite(fd, zeros, span, 0) < 0 || fsync(fd) < 0) {
        perror(path);
        exit(1);
    }
    memset(data, 'x', sizeof data);
    double begin = now_s(), last = begin;
    for (size_t at = 0; last < begin + options->seconds / 2; at = (at + sizeof data) % span, n++) {
        if (pwrite(fd, data, sizeof data, (off_t)at) < 0 || fdatasync(fd) < 0) {
            perror(path);
            exit(1);
        }
        double t = now_s();
        ch_observe(h, (uint64_t)((t - last) * 1e9));
        last = t;
    }
    bench_line("bare write+fdatasync", 1, (double)n / (last - begin), h);
    printf("\n");
    fflush(stdout);
    ch_histogram_free(h);
    free(zeros);
    close(fd);
    unlink(path);
}

/* ---- processes ---- */

static struct bench_shared *shared_map(const struct bench_options *options)
{
    char path[300];
    snprintf(path, sizeof path, "%s/shared", options->dir);
    int fd = open(path, O_CREAT | O_RDWR, 0644);
    if (fd < 0 || ftruncate(fd, sizeof(struct bench_shared)) < 0) {
        perror(path);
        exit(1);
    }
    struct bench_shared *shared =
        mmap(0, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return shared;
}

static pid_t member_start(const struct bench_options *options, int member)
{
    char number[8], seconds[32], groups[16], only[16];
    snprintf(number, sizeof number, "%d", member);
    snprintf(seconds, sizeof seconds, "%f", options->seconds);
    snprintf(groups, sizeof groups, "%d", options->idle_groups);
    snprintf(only, sizeof only, "%d", options->only);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl("/proc/self/exe", "bench_consensus", "--dir", options->dir, "--seconds", seconds,
              "--idle-groups", groups, "--only", only, "--member", number, (char *)0);
        _exit(127);
    }
    return pid;
}

static int members_run(const struct bench_options *options, struct bench_shared *shared)
{
    int status = 0, code;
    /* Below the range the kernel hands out for outgoing connections. */
    for (int i = 0; i < BENCH_MEMBERS; i++)
        shared->ports[i] = 21000 + (int)(getpid() % 3000) * 3 + i;
    for (int i = 0; i < BENCH_MEMBERS; i++)
        shared->pids[i] = member_start(options, i);
    waitpid(shared->pids[0], &status, 0);
    code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    for (int i = 1; i < BENCH_MEMBERS; i++) {
        kill(shared->pids[i], SIGTERM);
        waitpid(shared->pids[i], &status, 0);
    }
    return code;
}

static int start(struct bench_options *options)
{
    char command[400];
    double etcd;
    int code;
    if (mkdir(options->dir, 0755) < 0) {
        perror(options->dir);
        return 1;
    }
    struct bench_shared *shared = shared_map(options);
    if (!options->idle_groups)
        floor_run(options);
    code = members_run(options, shared);
    if (code == 0 && !options->idle_groups && !options->no_etcd) {
        etcd = bench_etcd(options);
        if (etcd > 0 && shared->commits_64 > 0)
            printf("at 64 outstanding: %.1f times etcd's writes a second\n",
                   shared->commits_64 / etcd);
    }
    snprintf(command, sizeof command, "rm -rf '%s'", options->dir);
    return system(command) || code;
}

int main(int argc, char **argv)
{
    struct bench_options options = { .seconds = 5, .member = -1 };
    snprintf(options.dir, sizeof options.dir, "/tmp/bench_consensus.%d", (int)getpid());
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--no-etcd") == 0) {
            options.no_etcd = 1;
            continue;
        }
        if (strcmp(argv[i], "--member") == 0) {
            options.member = atoi(value);
        } else if (strcmp(argv[i], "--dir") == 0) {
            snprintf(options.dir, sizeof options.dir, "%s", value);
        } else if (strcmp(argv[i], "--seconds") == 0) {
            options.seconds = atof(value);
        } else if (strcmp(argv[i], "--idle-groups") == 0) {
            options.idle_groups = atoi(value);
        } else if (strcmp(argv[i], "--only") == 0) {
            options.only = atoi(value);
        } else {
            fprintf(stderr, "bench_consensus: %s? See the head of bench_consensus.c\n", argv[i]);
            return 2;
        }
        i++;
    }
    if (options.member >= 0)
        return bench_member(&options, shared_map(&options));
    return start(&options);
}
