/* bench_rpc: the cost of one unary call, four ways, interleaved: a raw epoll ping-pong over TCP
 * (the floor), bare gRPC C core (no fibers, no deadlines, no metrics, no trace; the same
 * protobuf message), chassis, and chassis on a port that speaks HTTP/1.1 too. Server and client
 * are processes of their own, pinned to
 * different CPUs unless --free. Prints medians over the rounds; CPU is of all threads of both
 * processes.
 *
 *   bench_rpc [--seconds S] [--rounds N] [--payload BYTES] [--free] [--most RATIO]
 *
 * With --most it exits 1 when chassis' CPU per call exceeds RATIO times bare gRPC's at 8 or 64
 * outstanding. */
#include "bench_rpc.h"

#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KINDS = 4, LEVELS = 3, ROUNDS_MAX = 50 };
static const char *const KIND_NAMES[KINDS] = { "tcp", "grpc", "chassis", "one-port" };
static const int LEVEL_CALLS[LEVELS] = { 1, 8, 64 };

struct result {
    double ops, p50, p99, p999, client_us, server_us;
};

static double cpu_begin[2];
static int64_t time_begin;
static int server_pid;

int64_t bench_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static double own_cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* Of all threads of a process, to the nanosecond. */
static double process_cpu_us(int pid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *dir = opendir(path);
    double total = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char file[400];
        unsigned long long ns = 0;
        if (entry->d_name[0] == '.')
            continue; /* "..": the first thread again */
        snprintf(file, sizeof(file), "%s/%s/schedstat", path, entry->d_name);
        FILE *in = fopen(file, "r");
        if (in && fscanf(in, "%llu", &ns) == 1)
            total += (double)ns / 1000;
        if (in)
            fclose(in);
    }
    if (dir)
        closedir(dir);
    return total;
}

void bench_mark_begin(struct bench_run *run)
{
    run->ops = 0;
    run->latency = ch_histogram_new();
    cpu_begin[0] = own_cpu_us();
    cpu_begin[1] = process_cpu_us(server_pid);
    time_begin = bench_now_ns();
}

void bench_mark_end(struct bench_run *run)
{
    run->elapsed = (double)(bench_now_ns() - time_begin) / 1e9;
    double client = own_cpu_us() - cpu_begin[0], server = process_cpu_us(server_pid) - cpu_begin[1];
    printf("%f %f %f %f %f %f\n", (double)run->ops / run->elapsed,
           (double)ch_histogram_quantile(run->latency, 0.5) / 1000,
           (double)ch_histogram_quantile(run->latency, 0.99) / 1000,
           (double)ch_histogram_quantile(run->latency, 0.999) / 1000, client / (double)run->ops,
           server / (double)run->ops);
    fflush(stdout);
    _exit(0);
}

void bench_say_port(int port)
{
    printf("%d\n", port);
    fflush(stdout);
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu % (int)sysconf(_SC_NPROCESSORS_ONLN), &set);
    sched_setaffinity(0, sizeof(set), &set);
}

/* Starts this program again as `role`; its first line of output comes through *out. */
static pid_t start(char *const argv[], int cpu, FILE **out)
{
    int fds[2];
    if (pipe(fds) != 0)
        abort();
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (cpu >= 0)
            pin(cpu);
        dup2(fds[1], 1);
        close(fds[0]);
        close(fds[1]);
        execv("/proc/self/exe", argv);
        _exit(127);
    }
    close(fds[1]);
    *out = fdopen(fds[0], "r");
    return pid;
}

static struct result run_once(int kind, int outstanding, double seconds, size_t payload,
                              bool pinned)
{
    struct result r = { 0 };
    char port[16], calls[16], time[32], bytes[32], pid_text[16];
    FILE *out;
    char *server_argv[] = { "bench_rpc", "server", (char *)KIND_NAMES[kind], NULL };
    pid_t server = start(server_argv, pinned ? 0 : -1, &out);
    int number = 0;
    if (fscanf(out, "%d", &number) != 1)
        exit(1);
    FILE *client_out;
    snprintf(port, sizeof(port), "%d", number);
    snprintf(calls, sizeof(calls), "%d", outstanding);
    snprintf(time, sizeof(time), "%f", seconds);
    snprintf(bytes, sizeof(bytes), "%zu", payload);
    snprintf(pid_text, sizeof(pid_text), "%d", (int)server);
    char *client_argv[] = { "bench_rpc", "client", (char *)KIND_NAMES[kind],
                            port,        calls,    time,
                            bytes,       pid_text, NULL };
    pid_t client = start(client_argv, pinned ? 1 : -1, &client_out);
    if (fscanf(client_out, "%lf %lf %lf %lf %lf %lf", &r.ops, &r.p50, &r.p99, &r.p999, &r.client_us,
               &r.server_us) != 6)
        fprintf(stderr, "%s client failed\n", KIND_NAMES[kind]);
    waitpid(client, NULL, 0);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    fclose(out);
    fclose(client_out);
    return r;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const struct result *results, int count, size_t offset)
{
    double values[ROUNDS_MAX];
    for (int i = 0; i < count; i++)
        values[i] = *(const double *)((const char *)&results[i] + offset);
    qsort(values, (size_t)count, sizeof(values[0]), by_value);
    return values[count / 2];
}
#define MEDIAN(results, field) median(results, rounds, offsetof(struct result, field))

static void role_main(char **argv)
{
    static void (*const servers[KINDS])(void) = { floor_server, bare_server, chassis_server,
                                                  mixed_server };
    static void (*const clients[KINDS])(
        struct bench_run * run) = { floor_client, bare_client, chassis_client, chassis_client };
    int kind = 0;
    while (strcmp(KIND_NAMES[kind], argv[2]) != 0)
        kind++;
    if (strcmp(argv[1], "server") == 0) {
        servers[kind]();
        exit(0);
    }
    struct bench_run run = { .port = atoi(argv[3]),
                             .outstanding = atoi(argv[4]),
                             .seconds = atof(argv[5]),
                             .payload = (size_t)atol(argv[6]) };
    server_pid = atoi(argv[7]);
    clients[kind](&run);
    exit(0);
}

int main(int argc, char **argv)
{
    static struct result results[LEVELS][KINDS][ROUNDS_MAX];
    double seconds = 1, most = 0, worst = 0;
    int rounds = 5;
    size_t payload = 100;
    bool pinned = true;
    if (argc > 2 && (strcmp(argv[1], "server") == 0 || strcmp(argv[1], "client") == 0))
        role_main(argv);
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "0";
        if (strcmp(argv[i], "--free") == 0)
            pinned = false;
        else if (strcmp(argv[i], "--seconds") == 0)
            seconds = atof(value), i++;
        else if (strcmp(argv[i], "--rounds") == 0)
            rounds = atoi(value), i++;
        else if (strcmp(argv[i], "--payload") == 0)
            payload = (size_t)atol(value), i++;
        else if (strcmp(argv[i], "--most") == 0)
            most = atof(value), i++;
    }
    rounds = rounds < 1 ? 1 : rounds > ROUNDS_MAX ? ROUNDS_MAX : rounds;
    for (int round = 0; round < rounds; round++)
        for (int level = 0; level < LEVELS; level++)
            for (int kind = 0; kind < KINDS; kind++)
                results[level][kind][round] =
                    run_once(kind, LEVEL_CALLS[level], seconds, payload, pinned);
    printf("unary call, %zu B payload, server and client processes %s, medians of %d rounds of "
           "%.1f s\n",
           payload, pinned ? "pinned to two CPUs" : "not pinned", rounds, seconds);
    printf("%-9s %11s %9s %9s %9s %9s %12s %12s %9s\n", "", "outstanding", "ops/s", "p50 us",
           "p99 us", "p99.9 us", "client us/op", "server us/op", "vs grpc");
    for (int level = 0; level < LEVELS; level++) {
        struct result *bare = results[level][1];
        double bare_us = MEDIAN(bare, client_us) + MEDIAN(bare, server_us);
        for (int kind = 0; kind < KINDS; kind++) {
            struct result *r = results[level][kind];
            double us = MEDIAN(r, client_us) + MEDIAN(r, server_us);
            printf("%-9s %11d %9.0f %9.1f %9.1f %9.1f %12.2f %12.2f %8.2fx\n", KIND_NAMES[kind],
                   LEVEL_CALLS[level], MEDIAN(r, ops), MEDIAN(r, p50), MEDIAN(r, p99),
                   MEDIAN(r, p999), MEDIAN(r, client_us), MEDIAN(r, server_us), us / bare_us);
            if (kind == 2 && level > 0 && us / bare_us > worst)
                worst = us / bare_us;
        }
    }
    if (most > 0 && worst > most) {
        printf("chassis costs %.2fx bare gRPC: more than %.2fx\n", worst, most);
        return 1;
    }
    return 0;
}
