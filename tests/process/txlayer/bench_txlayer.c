/* bench_txlayer.c: what the transaction layer alone can do, over real gRPC on loopback, on the
 * in-memory tablet double. Two processes: `bench_txlayer serve` is names, tablet double and
 * txserver; `bench_txlayer ADDRESS SECONDS FIBERS KIND` drives it. KIND: get, miss (keys memory
 * does not hold), commit, ts (read timestamp), snap (ts and get at it), rmw (read timestamp,
 * get, commit). Prints operations a second and latencies. */
#include <stdio.h>
#include <stdlib.h>

#include "chassis/metrics.h"
#include "names_double.h"
#include "server.h"
#include "tablet_double.h"
#include "txlayer/txlayer.h"

#define NAMES "127.0.0.1:17400"
#define SERVER "127.0.0.1:17401"

static struct base_status publish_start(struct names_double *names, struct ch_env *env) CH_WAITS;
static struct base_status publish_start(struct names_double *names, struct ch_env *env)
{
    struct base_status status = names_double_start(names, env, NAMES);
    names_double_publish(names, "/local/txserver/0", SERVER, true);
    return status;
}

static int serve(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    static char *argv[] = { "txserver", "--listen",   SERVER,        "--names", NAMES,
                            "--task",   "txserver/0", "--log-level", "warn" };
    struct names_double *names = names_double_new();
    struct tablet_double *tablet = tablet_double_new(env);
    struct ch_service_args args = { .def = &txn__service, .argc = 9, .argv = argv };
    BASE_ASSERT(!base_failed(publish_start(names, env)));
    int exit_value = ch_service_main(env, &args);
    names_double_stop(names);
    tablet_double_free(tablet);
    names_double_free(names);
    return exit_value;
}

struct drive {
    struct ch_env *env;
    struct txn_client *client;
    const char *kind;
    ch_time until;
    uint64_t done, failed, aborted;
    struct ch_histogram *ns;
};

static struct base_status commit_one(struct drive *drive, const char *key,
                                     uint64_t read_ts) CH_WAITS;
static struct base_status commit_one(struct drive *drive, const char *key, uint64_t read_ts)
{
    static char value[200];
    uint64_t id[2] = { ch_random(drive->env), ch_random(drive->env) }, ts;
    struct txn_key k = { base_bytes_str("g"), base_bytes_str(key) };
    struct txn_write write = { .key = k, .value = base_bytes(value, sizeof(value)) };
    struct txn_commit commit = { .read_timestamp = read_ts,
                                 .read_keys = &k,
                                 .read_key_count = read_ts != 0,
                                 .writes = &write,
                                 .write_count = 1,
                                 .idempotency_id = base_bytes(id, 16) };
    return txn_commit(drive->client, "bench", &commit, ch_in(drive->env, 10 * CH_S), &ts);
}

static struct base_status one(struct drive *drive, struct base_arena *arena) CH_WAITS;
static struct base_status one(struct drive *drive, struct base_arena *arena)
{
    char key[32];
    uint64_t ts = 0;
    struct txn_value value;
    bool miss = strcmp(drive->kind, "miss") == 0;
    snprintf(
        key, sizeof(key), "key%llu",
        (unsigned long long)(miss ? ch_random(drive->env) : ch_random_below(drive->env, 100000)));
    if (strcmp(drive->kind, "commit") == 0)
        return commit_one(drive, key, 0);
    struct txn_key k = { base_bytes_str("g"), base_bytes_str(key) };
    struct base_status status = BASE_STATUS_OK;
    if (strcmp(drive->kind, "rmw") == 0 || strcmp(drive->kind, "ts") == 0 ||
        strcmp(drive->kind, "snap") == 0)
        status = txn_read_timestamp(drive->client, "bench", ch_in(drive->env, 10 * CH_S), &ts);
    if (strcmp(drive->kind, "ts") == 0)
        return status;
    if (!base_failed(status))
        status = txn_get(drive->client, "bench", ts, &k, 1, ch_in(drive->env, 10 * CH_S), arena,
                         &value, NULL);
    if (!base_failed(status) && strcmp(drive->kind, "rmw") == 0)
        status = commit_one(drive, key, ts);
    return status;
}

static void worker(void *arg)
{
    CH_FIBER_ENTRY();
    struct drive *drive = arg;
    struct base_arena arena;
    base_arena_init(&arena);
    while (ch_now(drive->env) < drive->until) {
        ch_time began = ch_now(drive->env);
        struct base_status status = one(drive, &arena);
        if (base_failed(status) && !drive->failed && status.code != BASE_ABORTED)
            fprintf(stderr, "%s\n", base_status_text(&status));
        drive->failed += base_failed(status) && status.code != BASE_ABORTED;
        drive->aborted += status.code == BASE_ABORTED;
        drive->done += !base_failed(status);
        base_status_free(&status);
        ch_observe(drive->ns, (uint64_t)(ch_now(drive->env) - began));
        base_arena_reset(&arena);
    }
    base_arena_free(&arena);
}

static int drive_main(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    char **argv = arg;
    double seconds = atof(argv[2]);
    struct drive drive = { .env = env, .kind = argv[4], .ns = ch_histogram_new() };
    struct txn_client_options options = { .target = argv[1] };
    struct ch_gather gather;
    drive.client = txn_client_new(env, &options);
    drive.until = ch_in(env, (ch_time)(seconds * 1e9));
    ch_gather_init(&gather, "drive");
    for (int i = 0; i < atoi(argv[3]); i++)
        ch_gather_add(&gather, worker, &drive);
    ch_gather_wait(&gather);
    printf("%-7s %4s fibers: %9.0f /s  p50 %6.2f ms  p99 %6.2f ms  (%llu failed, %llu aborted)\n",
           drive.kind, argv[3], (double)drive.done / seconds,
           (double)ch_histogram_quantile(drive.ns, 0.5) / 1e6,
           (double)ch_histogram_quantile(drive.ns, 0.99) / 1e6, (unsigned long long)drive.failed,
           (unsigned long long)drive.aborted);
    txn_client_free(drive.client);
    ch_histogram_free(drive.ns);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "serve") == 0)
        return ch_env_run(serve, NULL);
    if (argc == 5)
        return ch_env_run(drive_main, argv);
    fprintf(stderr, "usage: bench_txlayer serve | bench_txlayer ADDRESS SECONDS FIBERS "
                    "get|miss|commit|ts|snap|rmw\n");
    return 2;
}
