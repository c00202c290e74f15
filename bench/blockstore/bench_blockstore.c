/* bench_blockstore: durable appends (three replicas, acknowledged by two) through real processes on
 * this machine, beside what one process gets from the same disk with write + fdatasync in a
 * preallocated file. The disk is shared by the three servers, so the floor of a 1 MiB append is
 * three times the bytes.
 *
 *   bench_blockstore [--dir DIR] [--seconds S] [--files N]
 *
 * Starts blockmaster and three blockservers (found beside itself) below DIR, and removes what it
 * made. Prints, a line each: operations a second, MB a second, p50/p99/p99.9 of an append in
 * microseconds; and reads. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "blockstore/blockstore.h"
#include "chassis/env.h"
#include "chassis/metrics.h"

enum { SERVERS = 3 };

static struct {
    char dir[256], bin[256];
    int seconds, files;
    pid_t pids[SERVERS + 1];
} o = { .seconds = 3, .files = 1 };

static void die(const char *what, struct base_status *status)
{
    fprintf(stderr, "%s: %s\n", what, status ? base_status_text(status) : "failed");
    for (int i = 0; i <= SERVERS; i++)
        if (o.pids[i] > 0)
            kill(o.pids[i], SIGKILL);
    exit(1);
}

/* ---- the floor ---- */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void floor_run(size_t bytes)
{
    char path[300];
    snprintf(path, sizeof path, "%s/floor", o.dir);
    int fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0644);
    size_t span = 64 << 20;
    char *data = calloc(1, 1 << 20);
    for (size_t at = 0; at < span; at += 1 << 20)
        if (pwrite(fd, data, 1 << 20, (off_t)at) < 0)
            die("floor", 0);
    fsync(fd);
    memset(data, 'x', bytes);
    struct ch_histogram *h = ch_histogram_new();
    double begin = now_s(), end = begin + o.seconds, last = begin;
    uint64_t n = 0;
    for (size_t at = 0; last < end; n++, at = (at + bytes) % (span - bytes)) {
        if (pwrite(fd, data, bytes, (off_t)at) < 0 || fdatasync(fd) < 0)
            die("floor", 0);
        double t = now_s();
        ch_observe(h, (uint64_t)((t - last) * 1e9));
        last = t;
    }
    printf("bare write+fdatasync  %7zu B           %8.0f/s %8.1f MB/s  p50 %6.0f  p99 %7.0f  p99.9 "
           "%7.0f us\n",
           bytes, (double)n / (last - begin), (double)n * (double)bytes / (last - begin) / 1e6,
           (double)ch_histogram_quantile(h, 0.5) / 1e3,
           (double)ch_histogram_quantile(h, 0.99) / 1e3,
           (double)ch_histogram_quantile(h, 0.999) / 1e3);
    fflush(stdout);
    ch_histogram_free(h);
    free(data);
    close(fd);
    unlink(path);
}

/* ---- the cell ---- */

static pid_t spawn(const char *program, char *const *args, const char *log)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", o.bin, program);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = open(log, O_CREAT | O_WRONLY | O_APPEND, 0644);
        dup2(fd, 1);
        dup2(fd, 2);
        execv(path, args);
        _exit(127);
    }
    return pid;
}

static void cell_start(char *masters, size_t size)
{
    char args[8][300], log[300];
    char *argv[9];
    int port = 20000 + getpid() % 20000;
    snprintf(masters, size, "127.0.0.1:%d", port);
    for (int i = 0; i <= SERVERS; i++) {
        int n = 0;
        const char *program = i == 0 ? "blockmaster" : "blockserver";
        snprintf(args[n++], 300, "%s", program);
        snprintf(args[n++], 300, "--listen=127.0.0.%d:%d", i == 0 ? 1 : i + 1, port);
        snprintf(args[n++], 300, "--admin=");
        snprintf(args[n++], 300, "--data-dir=%s/%d", o.dir, i);
        if (i > 0)
            snprintf(args[n++], 300, "--masters=%s", masters);
        for (int k = 0; k < n; k++)
            argv[k] = args[k];
        argv[n] = 0;
        snprintf(log, sizeof log, "%s/%d.log", o.dir, i);
        o.pids[i] = spawn(program, argv, log);
    }
}

static void cell_stop(void)
{
    for (int i = 0; i <= SERVERS; i++)
        kill(o.pids[i], SIGTERM);
    for (int i = 0; i <= SERVERS; i++)
        waitpid(o.pids[i], 0, 0);
}

/* ---- appends ---- */

struct run {
    struct ch_env *env;
    struct blk_writer **writers;
    size_t bytes;
    ch_time end;
    uint64_t done, next;
    struct ch_histogram *latency;
    uint8_t *data;
};

static void append_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct run *r = arg;
    struct blk_writer *writer = r->writers[r->next++ % (uint64_t)o.files];
    struct base_bytes part = base_bytes(r->data, r->bytes);
    while (ch_now(r->env) < r->end) {
        ch_time begin = ch_now(r->env);
        struct base_status status = blk_append(writer, &part, 1, ch_in(r->env, 20 * CH_S), 0);
        if (base_failed(status))
            die("append", &status);
        ch_observe(r->latency, (uint64_t)(ch_now(r->env) - begin));
        r->done++;
    }
}

static void append_run(struct ch_env *env, struct blk_writer **writers, size_t bytes,
                       int outstanding) CH_WAITS;
static void append_run(struct ch_env *env, struct blk_writer **writers, size_t bytes,
                       int outstanding)
{
    struct run r = {
        .env = env, .writers = writers, .bytes = bytes, .latency = ch_histogram_new()
    };
    r.data = malloc(bytes);
    memset(r.data, 'x', bytes);
    ch_time begin = ch_now(env);
    r.end = begin + o.seconds * CH_S;
    struct ch_gather gather;
    ch_gather_init(&gather, "appends");
    for (int i = 0; i < outstanding; i++)
        ch_gather_add(&gather, append_fiber, &r);
    ch_gather_wait(&gather);
    double took = (double)(ch_now(env) - begin) / 1e9;
    printf("append                %7zu B x %3d out %8.0f/s %8.1f MB/s  p50 %6.0f  p99 %7.0f  p99.9 "
           "%7.0f us\n",
           bytes, outstanding, (double)r.done / took, (double)r.done * (double)bytes / took / 1e6,
           (double)ch_histogram_quantile(r.latency, 0.5) / 1e3,
           (double)ch_histogram_quantile(r.latency, 0.99) / 1e3,
           (double)ch_histogram_quantile(r.latency, 0.999) / 1e3);
    fflush(stdout);
    ch_histogram_free(r.latency);
    free(r.data);
}

static void read_run(struct ch_env *env, struct blk_client *client, const char *path,
                     size_t bytes) CH_WAITS;
static void read_run(struct ch_env *env, struct blk_client *client, const char *path, size_t bytes)
{
    struct blk_reader *reader;
    uint64_t length, n = 0;
    struct base_status status = blk_open_read(client, path, ch_in(env, 5 * CH_S), &reader);
    if (!base_failed(status))
        status = blk_reader_length(reader, ch_in(env, 5 * CH_S), &length);
    if (base_failed(status))
        die("open for reading", &status);
    struct ch_histogram *h = ch_histogram_new();
    uint8_t *data = malloc(bytes);
    ch_time begin = ch_now(env), end = begin + o.seconds * CH_S, last = begin;
    for (; last < end; n++) {
        size_t got;
        status = blk_read(reader, ch_random_below(env, length / bytes) * bytes, data, bytes,
                          ch_in(env, 5 * CH_S), &got);
        if (base_failed(status))
            die("read", &status);
        ch_time t = ch_now(env);
        ch_observe(h, (uint64_t)(t - last));
        last = t;
    }
    double took = (double)(last - begin) / 1e9;
    printf("read                  %7zu B x   1 out %8.0f/s %8.1f MB/s  p50 %6.0f  p99 %7.0f  p99.9 "
           "%7.0f us\n",
           bytes, (double)n / took, (double)n * (double)bytes / took / 1e6,
           (double)ch_histogram_quantile(h, 0.5) / 1e3,
           (double)ch_histogram_quantile(h, 0.99) / 1e3,
           (double)ch_histogram_quantile(h, 0.999) / 1e3);
    fflush(stdout);
    ch_histogram_free(h);
    free(data);
    blk_reader_close(reader);
}

static int bench_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct blk_client *client = blk_client_new(env, &(struct blk_client_options){ .masters = arg });
    struct blk_writer *writers[64];
    char path[32];
    for (int i = 0; i < o.files; i++) {
        struct base_status status;
        ch_time until = ch_in(env, 20 * CH_S);
        snprintf(path, sizeof path, "/bench/%d", i);
        while (base_failed(status = blk_open_append(client, path,
                                                    &(struct blk_append_options){ .create = true },
                                                    until, &writers[i], 0)) &&
               ch_now(env) < until) {
            base_status_free(&status);
            (void)ch_sleep_until(env, ch_in(env, 200 * CH_MS));
        }
        if (base_failed(status))
            die("open", &status);
    }
    for (int outstanding = 1; outstanding <= 64; outstanding *= 8)
        append_run(env, writers, 4096, outstanding);
    for (int outstanding = 1; outstanding <= 16; outstanding *= 4)
        append_run(env, writers, 1 << 20, outstanding);
    for (int i = 0; i < o.files; i++)
        blk_writer_close(writers[i]);
    read_run(env, client, "/bench/0", 4096);
    read_run(env, client, "/bench/0", 1 << 20);
    blk_client_free(client);
    return 0;
}

int main(int argc, char **argv)
{
    char masters[64], command[400];
    snprintf(o.bin, sizeof o.bin, "%s", argv[0]);
    char *slash = strrchr(o.bin, '/');
    snprintf(slash ? slash : o.bin, 2, slash ? "" : ".");
    snprintf(o.dir, sizeof o.dir, "/tmp/bench_blockstore.%d", (int)getpid());
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--dir") == 0)
            snprintf(o.dir, sizeof o.dir, "%s/bench_blockstore.%d", argv[i + 1], (int)getpid());
        else if (strcmp(argv[i], "--seconds") == 0)
            o.seconds = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--files") == 0)
            o.files = atoi(argv[i + 1]) < 64 ? atoi(argv[i + 1]) : 64;
    }
    if (mkdir(o.dir, 0755) < 0)
        die(o.dir, 0);
    floor_run(4096);
    floor_run(1 << 20);
    cell_start(masters, sizeof masters);
    int code = ch_env_run(bench_main, masters);
    cell_stop();
    floor_run(4096);
    floor_run(1 << 20);
    snprintf(command, sizeof command, "rm -rf '%s'", o.dir);
    return system(command) || code;
}
