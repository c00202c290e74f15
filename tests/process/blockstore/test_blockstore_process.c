/* A group of three blockmasters and three blockservers as real processes. Killed with SIGKILL in
 * the middle of a stream of appends, one after the other and all at once, they must come back with
 * every acknowledged byte, and the writer must not stop for long: the simulation shows this for
 * many more faults; this shows that it holds with real files, sockets and processes. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "blockstore/blockstore.h"
#include "chassis/env.h"
#include "chassis/rpc_client.h"
#include "strata/consensus/v1/consensus.strata.h"
#include "test.h"

enum { MASTERS = 3, SERVERS = 3, PROCESSES = MASTERS + SERVERS, BLOCK_BYTES = 4 << 20 };

static struct {
    char dir[128], bin[512], masters[100], listen[MASTERS][32];
    pid_t pids[PROCESSES]; /* the masters first */
} cell;

#define OK(expr)                                                                       \
    do {                                                                               \
        struct base_status status_ = (expr);                                           \
        cr_assert(!base_failed(status_), "%s: %s", #expr, base_status_text(&status_)); \
    } while (0)

/* A port that nobody has now on 127.0.0.`host`: members are told each other's addresses. */
static int port_any(int host)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + (in_addr_t)host);
    cr_assert(fd >= 0 && bind(fd, (struct sockaddr *)&address, len) == 0 &&
              getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    close(fd);
    return ntohs(address.sin_port);
}

static void choose_addresses(void)
{
    for (int i = 0; i < MASTERS; i++) {
        snprintf(cell.listen[i], sizeof cell.listen[i], "127.0.0.%d:%d", i + 1, port_any(i + 1));
        snprintf(cell.masters + strlen(cell.masters), sizeof cell.masters - strlen(cell.masters),
                 "%s%s", i ? "," : "", cell.listen[i]);
    }
}

static void run_program(int i, const char *program, char **argv)
{
    char path[600], log[200];
    snprintf(path, sizeof path, "%s/%s", cell.bin, program);
    snprintf(log, sizeof log, "%s/%d.log", cell.dir, i);
    cell.pids[i] = fork();
    if (cell.pids[i] != 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int fd = open(log, O_CREAT | O_WRONLY | O_APPEND, 0644);
    dup2(fd, 1);
    dup2(fd, 2);
    execv(path, argv);
    _exit(127);
}

static void spawn(int i)
{
    char listen[100], data[200], masters[120], port_file[200], admin[] = "--admin=";
    snprintf(data, sizeof data, "--data-dir=%s/%d", cell.dir, i);
    snprintf(port_file, sizeof port_file, "--port-file=%s/%d.port", cell.dir, i);
    if (i < MASTERS) {
        char dead[] = "--dead-after=2s", block[] = "--block-bytes=4MiB", found[] = "--found=true";
        snprintf(listen, sizeof listen, "--listen=%s", cell.listen[i]);
        snprintf(masters, sizeof masters, "--members=%s", cell.masters);
        run_program(i, "blockmaster",
                    (char *[]){ "blockmaster", listen, data, masters, port_file, admin, dead, block,
                                i == 0 ? found : 0, 0 });
        return;
    }
    char beat[] = "--heartbeat=100ms";
    snprintf(listen, sizeof listen, "--listen=127.0.0.%d:0", i + 1);
    snprintf(masters, sizeof masters, "--masters=%s", cell.masters);
    run_program(i, "blockserver",
                (char *[]){ "blockserver", listen, data, masters, port_file, admin, beat, 0 });
}

static void kill_hard(int i)
{
    kill(cell.pids[i], SIGKILL);
    waitpid(cell.pids[i], 0, 0);
    cell.pids[i] = 0;
}

/* Waits until the process serves: its port file is there. */
static void wait_served(struct ch_env *env, int i) CH_WAITS;
static void wait_served(struct ch_env *env, int i)
{
    char path[200];
    ch_time until = ch_in(env, 60 * CH_S);
    snprintf(path, sizeof path, "%s/%d.port", cell.dir, i);
    struct base_buf text = { 0 };
    while (true) {
        struct base_status status = ch_file_read_all(env, path, 200, &text);
        bool there = !base_failed(status) && memchr(text.data, '\n', text.len);
        base_status_free(&status);
        if (there)
            break;
        cr_assert(ch_now(env) < until, "process %d does not serve", i);
        base_buf_clear(&text);
        (void)ch_sleep_until(env, ch_in(env, 10 * CH_MS));
    }
    base_buf_free(&text);
}

static void start_again(struct ch_env *env, int first, int count) CH_WAITS;
static void start_again(struct ch_env *env, int first, int count)
{
    char path[200];
    for (int i = first; i < first + count; i++) {
        snprintf(path, sizeof path, "%s/%d.port", cell.dir, i);
        unlink(path);
        spawn(i);
    }
    for (int i = first; i < first + count; i++)
        wait_served(env, i);
}

/* How many voters the group has, as a master knows; 0: it does not answer. */
static size_t count_voters(struct ch_env *env, const char *master) CH_WAITS;
static size_t count_voters(struct ch_env *env, const char *master)
{
    Strata__Consensus__V1__GetGroupRequest request = STRATA__CONSENSUS__V1__GET_GROUP_REQUEST__INIT;
    struct ch_call_options options = { .deadline = ch_in(env, CH_S) };
    struct ch_client *client = ch_client_new(env, master, NULL);
    struct base_arena arena = { 0 };
    void *reply = NULL;
    size_t voters = 0;
    request.group = ch_data_str("blockmaster");
    struct base_status status =
        ch_client_call(client,
                       &strata__consensus__v1__consensus__service
                            .methods[STRATA__CONSENSUS__V1__CONSENSUS__GET_GROUP],
                       &request, &options, &arena, &reply);
    if (base_status_drop(status) == BASE_OK) {
        const Strata__Consensus__V1__GetGroupReply *got = reply;
        for (size_t i = 0; i < got->n_members; i++)
            voters += got->members[i]->member && got->members[i]->member->voter;
    }
    base_arena_free(&arena);
    ch_client_free(client);
    return voters;
}

/* A new group grows one member at a time; before all vote it bears no death. */
static void wait_voters(struct ch_env *env) CH_WAITS;
static void wait_voters(struct ch_env *env)
{
    ch_time until = ch_in(env, 60 * CH_S);
    for (int i = 0; i < MASTERS; i++) {
        while (count_voters(env, cell.listen[i]) < MASTERS) {
            cr_assert(ch_now(env) < until, "master %d knows of too few voters", i);
            (void)ch_sleep_until(env, ch_in(env, 50 * CH_MS));
        }
    }
}

static struct blk_writer *open_writer(struct ch_env *env, struct blk_client *client,
                                      const char *path, uint64_t *length) CH_WAITS;
static struct blk_writer *open_writer(struct ch_env *env, struct blk_client *client,
                                      const char *path, uint64_t *length)
{
    struct blk_writer *writer;
    struct base_status status;
    ch_time until = ch_in(env, 60 * CH_S);
    while (base_failed(status = blk_open_append(client, path,
                                                &(struct blk_append_options){ .create = true },
                                                ch_in(env, 5 * CH_S), &writer, length))) {
        cr_assert(ch_now(env) < until, "open: %s",
                  base_status_text(&status)); /* servers have to be heard of first */
        base_status_free(&status);
        (void)ch_sleep_until(env, ch_in(env, 50 * CH_MS));
    }
    return writer;
}

static uint8_t byte_at(uint64_t x)
{
    return (uint8_t)((x * 0x9e3779b97f4a7c15ULL) >> 40);
}

static void append_one(struct ch_env *env, struct blk_writer *writer, uint64_t *at,
                       size_t max) CH_WAITS;
static void append_one(struct ch_env *env, struct blk_writer *writer, uint64_t *at, size_t max)
{
    static uint8_t data[20000];
    size_t len = 1 + ch_random_below(env, max < sizeof data ? max : sizeof data);
    for (size_t i = 0; i < len; i++)
        data[i] = byte_at(*at + i);
    struct base_bytes part = base_bytes(data, len);
    uint64_t offset;
    OK(blk_append(writer, &part, 1, ch_in(env, 20 * CH_S), &offset));
    cr_assert_eq(offset, *at);
    *at += len;
}

/* Appends until `until`; returns the longest time one append took. */
static ch_time append_until(struct ch_env *env, struct blk_writer *writer, uint64_t *at,
                            ch_time until) CH_WAITS;
static ch_time append_until(struct ch_env *env, struct blk_writer *writer, uint64_t *at,
                            ch_time until)
{
    ch_time worst = 0;
    while (ch_now(env) < until) {
        ch_time begin = ch_now(env);
        append_one(env, writer, at, 20000);
        if (ch_now(env) - begin > worst)
            worst = ch_now(env) - begin;
    }
    return worst;
}

static void check_file(struct ch_env *env, struct blk_client *client, const char *path,
                       uint64_t length) CH_WAITS;
static void check_file(struct ch_env *env, struct blk_client *client, const char *path,
                       uint64_t length)
{
    struct blk_reader *reader;
    uint64_t end;
    size_t got;
    uint8_t *data = malloc(length + 1);
    OK(blk_open_read(client, path, ch_in(env, 10 * CH_S), &reader));
    OK(blk_reader_length(reader, ch_in(env, 10 * CH_S), &end));
    cr_assert_eq(end, length);
    OK(blk_read(reader, 0, data, length + 1, ch_in(env, 30 * CH_S), &got));
    cr_assert_eq(got, length);
    for (uint64_t i = 0; i < length; i++)
        cr_assert(data[i] == byte_at(i), "byte %llu", (unsigned long long)i);
    blk_reader_close(reader);
    free(data);
}

/* One process dies while appends go on, and comes back. Blocks end on the way: a writer needs a
 * server in the dead one's place, and a leading master for it. */
static void survive_one(struct ch_env *env, struct blk_writer *writer, int i,
                        uint64_t *at) CH_WAITS;
static void survive_one(struct ch_env *env, struct blk_writer *writer, int i, uint64_t *at)
{
    kill_hard(i);
    uint64_t from = *at;
    ch_time worst = append_until(env, writer, at, ch_in(env, 700 * CH_MS));
    while (*at - from < BLOCK_BYTES)
        append_one(env, writer, at, 20000);
    /* A master's successor is elected within two seconds; a loaded machine gets some more. */
    cr_assert(worst < 10 * CH_S, "process %d killed: an append took %lld ms", i,
              (long long)(worst / CH_MS));
    fprintf(stderr, "%s %d killed: the slowest append took %.1f ms\n",
            i < MASTERS ? "master" : "server", i < MASTERS ? i : i - MASTERS, (double)worst / 1e6);
    start_again(env, i, 1);
    append_until(env, writer, at, ch_in(env, 700 * CH_MS));
}

static int survive(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    choose_addresses();
    start_again(env, 0, PROCESSES);
    wait_voters(env);
    struct blk_client *client =
        blk_client_new(env, &(struct blk_client_options){ .masters = cell.masters });
    uint64_t at = 0, length;
    struct blk_writer *writer = open_writer(env, client, "/survivor", &length);
    append_until(env, writer, &at, ch_in(env, 500 * CH_MS));
    for (int i = 0; i < PROCESSES; i++)
        survive_one(env, writer, i, &at);
    for (int i = 0; i < MASTERS; i++)
        kill_hard(i); /* appends need no master while the block, or its spare, has room */
    for (int i = 0; i < 5; i++)
        append_one(env, writer, &at, 1000);
    start_again(env, 0, MASTERS);
    append_until(env, writer, &at, ch_in(env, 500 * CH_MS));
    check_file(env, client, "/survivor", at);

    /* All at once, in the middle of it. */
    for (int i = 0; i < PROCESSES; i++)
        kill_hard(i);
    blk_writer_close(writer);
    start_again(env, 0, PROCESSES);
    writer = open_writer(env, client, "/survivor", &length);
    cr_assert(length == at, "%llu bytes, %llu acknowledged", (unsigned long long)length,
              (unsigned long long)at);
    append_until(env, writer, &at, ch_in(env, 200 * CH_MS));
    OK(blk_writer_seal(writer, ch_in(env, 10 * CH_S)));
    blk_writer_close(writer);
    check_file(env, client, "/survivor", at);
    fprintf(stderr, "%llu bytes\n", (unsigned long long)at);
    blk_client_free(client);
    return 0;
}

static void setup(void)
{
    ssize_t n = readlink("/proc/self/exe", cell.bin, sizeof cell.bin - 1);
    cr_assert(n > 0);
    *strrchr(cell.bin, '/') = 0;
    snprintf(cell.dir, sizeof cell.dir, "/tmp/process_blockstore.XXXXXX");
    cr_assert(mkdtemp(cell.dir) != 0);
}

static void teardown(void)
{
    char command[200];
    for (int i = 0; i < PROCESSES; i++)
        if (cell.pids[i] > 0)
            kill_hard(i);
    snprintf(command, sizeof command, "rm -rf '%s'", cell.dir);
    cr_assert_eq(system(command), 0);
}

Test(blockstore_process, survives_kill_nine, .init = setup, .fini = teardown)
{
    cr_assert_eq(ch_env_run(survive, 0), 0);
}
