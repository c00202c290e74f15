/* The file operations on a healthy simulated cell, one by one. What is promised in blockstore.h
 * must hold there first: the tests with faults build on it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blk_cluster.h"
#include "test.h"

static struct ch_sim *sim;
static struct blk_cluster cluster;

static void setup(void)
{
    sim = ch_sim_new(ch_sim_seed(1));
    blk_cluster_start(&cluster, sim, 1, 3, "256KiB");
    ch_sim_run(sim, 0, 0, ch_sim_now(sim) + 2 * CH_S);
    cr_assert(ch_sim_running(cluster.masters[0].node), "the master ended: %d",
              ch_sim_exit_value(cluster.masters[0].node));
    for (size_t i = 0; i < 3; i++)
        cr_assert(ch_sim_running(cluster.servers[i].node), "a server ended: %d",
                  ch_sim_exit_value(cluster.servers[i].node));
}

static void teardown(void)
{
    ch_sim_free(sim);
    blk_cluster_free(&cluster);
}

#define OK(expr)                                                                       \
    do {                                                                               \
        struct base_status status_ = (expr);                                           \
        cr_assert(!base_failed(status_), "%s: %s", #expr, base_status_text(&status_)); \
    } while (0)
#define CODE(expr, want)                                                                     \
    do {                                                                                     \
        struct base_status status_ = (expr);                                                 \
        cr_assert_eq(status_.code, (want), "%s: %s %s", #expr, base_code_name(status_.code), \
                     base_status_text(&status_));                                            \
        base_status_free(&status_);                                                          \
    } while (0)

static ch_time soon(void)
{
    return ch_in(ch_fiber_env(), 5 * CH_S);
}

static struct base_status append(struct blk_writer *writer, const void *data, size_t len,
                                 uint64_t *offset) CH_WAITS;
static struct base_status append(struct blk_writer *writer, const void *data, size_t len,
                                 uint64_t *offset)
{
    struct base_bytes part = base_bytes(data, len);
    return blk_append(writer, &part, 1, soon(), offset);
}

static void append_and_read(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk_client *client = blk_cluster_client(&cluster);
    struct blk_writer *writer;
    struct blk_reader *reader;
    uint64_t length = 7, offset;
    size_t got;
    char bytes[32];
    CODE(blk_open_append(client, "/a/log", &(struct blk_append_options){ 0 }, soon(), &writer,
                         &length),
         BASE_NOT_FOUND);
    OK(blk_open_append(client, "/a/log", &(struct blk_append_options){ .create = true }, soon(),
                       &writer, &length));
    cr_assert_eq(length, 0);
    OK(append(writer, "hello ", 6, &offset));
    cr_assert_eq(offset, 0);
    OK(append(writer, "world", 5, &offset));
    cr_assert_eq(offset, 6);
    OK(blk_open_read(client, "/a/log", soon(), &reader));
    OK(blk_reader_length(reader, soon(), &length));
    cr_assert_eq(length, 11, "length %llu", (unsigned long long)length);
    OK(blk_read(reader, 0, bytes, sizeof bytes, soon(), &got));
    cr_assert(got == 11 && memcmp(bytes, "hello world", 11) == 0);
    OK(append(writer, "!", 1, &offset));
    OK(blk_read(reader, 6, bytes, sizeof bytes, soon(), &got));
    cr_assert(got == 6 && memcmp(bytes, "world!", 6) == 0, "%zu", got);
    OK(blk_writer_seal(writer, soon()));
    CODE(append(writer, "?", 1, &offset), BASE_FAILED_PRECONDITION);
    blk_writer_close(writer);
    CODE(blk_open_append(client, "/a/log", &(struct blk_append_options){ .create = true }, soon(),
                         &writer, &length),
         BASE_FAILED_PRECONDITION);
    OK(blk_read(reader, 0, bytes, sizeof bytes, soon(), &got));
    cr_assert_eq(got, 12);
    blk_reader_close(reader);
    blk_client_free(client);
}

Test(blockstore_basic, append_and_read, .init = setup, .fini = teardown)
{
    ch_sim_do(sim, append_and_read, 0, ch_sim_now(sim) + 60 * CH_S);
}

/* A file goes over many blocks, and large appends over several messages: offsets and bytes are as
 * if it were one. */
static void many_blocks(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk_client *client = blk_cluster_client(&cluster);
    struct blk_writer *writer;
    struct blk_reader *reader;
    enum { BYTES = 3 << 20 };
    uint8_t *data = malloc(BYTES), *back = malloc(BYTES);
    uint64_t length, offset, at = 0;
    size_t got;
    for (size_t i = 0; i < BYTES; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    OK(blk_open_append(client, "/big",
                       &(struct blk_append_options){ .create = true, .exclusive = true }, soon(),
                       &writer, &length));
    for (size_t step = 1; at < BYTES; step = step * 3 + 1) {
        size_t len = step < BYTES - at ? step : BYTES - at;
        OK(append(writer, data + at, len, &offset));
        cr_assert_eq(offset, at);
        at += len;
    }
    cr_assert_eq(blk_writer_length(writer), BYTES);
    OK(blk_open_read(client, "/big", soon(), &reader));
    OK(blk_read(reader, 0, back, BYTES, soon(), &got));
    cr_assert_eq(got, BYTES);
    cr_assert(memcmp(data, back, BYTES) == 0);
    blk_writer_close(writer);
    for (size_t o = 0; o < BYTES; o += 99991) {
        OK(blk_read(reader, o, back, 70000, soon(), &got));
        cr_assert(got == (BYTES - o < 70000 ? BYTES - o : 70000) &&
                  memcmp(data + o, back, got) == 0);
    }
    blk_reader_close(reader);
    CODE(blk_open_append(client, "/big",
                         &(struct blk_append_options){ .create = true, .exclusive = true }, soon(),
                         &writer, &length),
         BASE_ALREADY_EXISTS);
    free(data);
    free(back);
    blk_client_free(client);
}

Test(blockstore_basic, many_blocks, .init = setup, .fini = teardown)
{
    ch_sim_do(sim, many_blocks, 0, ch_sim_now(sim) + 60 * CH_S);
}

/* Opening for append takes the file: the writer before can never append again, and its acknowledged
 * bytes are all there. */
static void fencing(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk_client *client = blk_cluster_client(&cluster);
    struct blk_writer *old, *new;
    uint64_t length, offset;
    OK(blk_open_append(client, "/f", &(struct blk_append_options){ .create = true, .fence = 5 },
                       soon(), &old, &length));
    OK(append(old, "0123456789", 10, &offset));
    CODE(blk_open_append(client, "/f", &(struct blk_append_options){ .fence = 4 }, soon(), &new,
                         &length),
         BASE_FAILED_PRECONDITION);
    OK(blk_open_append(client, "/f", &(struct blk_append_options){ .fence = 6 }, soon(), &new,
                       &length));
    cr_assert_eq(length, 10);
    cr_assert(blk_writer_epoch(new) > blk_writer_epoch(old));
    CODE(append(old, "x", 1, &offset), BASE_FAILED_PRECONDITION);
    OK(append(new, "y", 1, &offset));
    cr_assert_eq(offset, 10);
    CODE(append(old, "x", 1, &offset), BASE_FAILED_PRECONDITION);
    blk_writer_close(old);
    OK(blk_seal(client, "/f", 7, soon(), &length));
    cr_assert_eq(length, 11);
    CODE(append(new, "z", 1, &offset), BASE_FAILED_PRECONDITION);
    blk_writer_close(new);
    OK(blk_seal(client, "/f", 7, soon(), &length));
    cr_assert_eq(length, 11);
    blk_client_free(client);
}

Test(blockstore_basic, fencing, .init = setup, .fini = teardown)
{
    ch_sim_do(sim, fencing, 0, ch_sim_now(sim) + 60 * CH_S);
}

static void make(struct blk_client *client, const char *path, const char *text, bool seal) CH_WAITS;
static void make(struct blk_client *client, const char *path, const char *text, bool seal)
{
    struct blk_writer *writer;
    uint64_t length, offset;
    OK(blk_open_append(client, path, &(struct blk_append_options){ .create = true }, soon(),
                       &writer, &length));
    OK(append(writer, text, strlen(text), &offset));
    if (seal)
        OK(blk_writer_seal(writer, soon()));
    blk_writer_close(writer);
}

static void check_text(struct blk_client *client, const char *path, const char *text) CH_WAITS;
static void check_text(struct blk_client *client, const char *path, const char *text)
{
    struct blk_reader *reader;
    char bytes[64];
    size_t got;
    OK(blk_open_read(client, path, soon(), &reader));
    OK(blk_read(reader, 0, bytes, sizeof bytes, soon(), &got));
    cr_assert(got == strlen(text) && memcmp(bytes, text, got) == 0, "%s: %.*s", path, (int)got,
              bytes);
    blk_reader_close(reader);
}

/* Names: rename replaces only when told, a link keeps the blocks alive, lists are sorted and paged,
 * bad paths are refused. */
static void names(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk_client *client = blk_cluster_client(&cluster);
    struct base_arena arena;
    struct blk_stat stat, *stats;
    size_t count;
    base_arena_init(&arena);
    make(client, "/t/1", "one", true);
    make(client, "/t/2", "two", true);
    make(client, "/t/3", "three", false);
    CODE(blk_rename(client, "/t/1", "/t/2", false, soon()), BASE_ALREADY_EXISTS);
    OK(blk_rename(client, "/t/1", "/t/9", false, soon()));
    CODE(blk_rename(client, "/t/1", "/t/8", false, soon()), BASE_NOT_FOUND);
    check_text(client, "/t/9", "one");
    CODE(blk_link(client, "/t/3", "/s/3", soon()), BASE_FAILED_PRECONDITION);
    OK(blk_link(client, "/t/2", "/s/2", soon()));
    CODE(blk_link(client, "/t/2", "/s/2", soon()), BASE_ALREADY_EXISTS);
    OK(blk_rename(client, "/t/9", "/t/2", true, soon()));
    check_text(client, "/t/2", "one");
    check_text(client, "/s/2", "two");
    OK(blk_list(client, "/t/", "", 10, soon(), &arena, &stats, &count));
    cr_assert_eq(count, 2);
    cr_assert_str_eq(stats[0].path, "/t/2");
    cr_assert_str_eq(stats[1].path, "/t/3");
    OK(blk_list(client, "/t/", "/t/2", 10, soon(), &arena, &stats, &count));
    cr_assert_eq(count, 1);
    OK(blk_list(client, "/", "", 2, soon(), &arena, &stats, &count));
    cr_assert_eq(count, 2);
    cr_assert_str_eq(stats[0].path, "/s/2");
    OK(blk_stat(client, "/t/2", soon(), &arena, &stat));
    cr_assert(stat.sealed && stat.length == 3 && stat.blocks == 1 && stat.replicas_least == 3);
    OK(blk_delete(client, "/t/2", soon()));
    CODE(blk_delete(client, "/t/2", soon()), BASE_NOT_FOUND);
    CODE(blk_stat(client, "/t/2", soon(), &arena, &stat), BASE_NOT_FOUND);
    CODE(blk_stat(client, "t", soon(), &arena, &stat), BASE_INVALID_ARGUMENT);
    CODE(blk_stat(client, "/a//b", soon(), &arena, &stat), BASE_INVALID_ARGUMENT);
    CODE(blk_delete(client, "/a b", soon()), BASE_INVALID_ARGUMENT);
    base_arena_free(&arena);
    blk_client_free(client);
}

Test(blockstore_basic, names, .init = setup, .fini = teardown)
{
    ch_sim_do(sim, names, 0, ch_sim_now(sim) + 60 * CH_S);
}

/* Everything stops and starts again: names and bytes are there; and again after a power loss. */
static void write_before(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk_client *client = blk_cluster_client(&cluster);
    make(client, "/r/sealed", "kept for ever", true);
    make(client, "/r/open", "kept too", false);
    blk_client_free(client);
}

static void read_after(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk_client *client = blk_cluster_client(&cluster);
    check_text(client, "/r/sealed", "kept for ever");
    check_text(client, "/r/open", "kept too");
    blk_client_free(client);
}

Test(blockstore_basic, restart, .init = setup, .fini = teardown)
{
    ch_sim_do(sim, write_before, 0, ch_sim_now(sim) + 60 * CH_S);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < 3; i++)
            round == 0 ? ch_sim_stop(cluster.servers[i].node)
                       : ch_sim_crash(cluster.servers[i].node);
        round == 0 ? ch_sim_stop(cluster.masters[0].node) : ch_sim_crash(cluster.masters[0].node);
        blk_cluster_node_start(&cluster.masters[0]);
        for (size_t i = 0; i < 3; i++)
            blk_cluster_node_start(&cluster.servers[i]);
        ch_sim_run(sim, 0, 0, ch_sim_now(sim) + 2 * CH_S);
        ch_sim_do(sim, read_after, 0, ch_sim_now(sim) + 60 * CH_S);
    }
}

/* ---- a cell of one machine ---- */

static void setup_alone(void)
{
    sim = ch_sim_new(ch_sim_seed(1));
    blk_cluster_start_alone(&cluster, sim, 3, "256KiB");
    ch_sim_run(sim, 0, 0, ch_sim_now(sim) + 2 * CH_S);
}

static void check_copies(const char *path, uint32_t wanted) CH_WAITS;
static void check_copies(const char *path, uint32_t wanted)
{
    struct blk_client *client = blk_cluster_client(&cluster);
    struct base_arena arena;
    struct blk_stat stat;
    base_arena_init(&arena);
    OK(blk_stat(client, path, soon(), &arena, &stat));
    cr_assert(stat.replicas_wanted == wanted && stat.replicas_least == wanted,
              "%s: %u of %u copies, not %u", path, stat.replicas_least, stat.replicas_wanted,
              wanted);
    base_arena_free(&arena);
    blk_client_free(client);
}

static void one_copy(void *arg)
{
    CH_FIBER_ENTRY();
    check_copies("/r/sealed", 1);
    check_copies("/r/open", 1);
}

static void later(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk_client *client = blk_cluster_client(&cluster);
    uint64_t length;
    make(client, "/r/later", "of the grown cell", true);
    OK(blk_seal(client, "/r/open", 0, soon(), &length));
    blk_client_free(client);
}

static void three_copies(void *arg)
{
    CH_FIBER_ENTRY();
    check_copies("/r/sealed", 3);
    check_copies("/r/open", 3);
    check_copies("/r/later", 3);
}

/* All of it on one disk, durable there; with more machines every block gets its three copies, and
 * then the first disk may go. */
Test(blockstore_basic, one_machine_and_then_three, .init = setup_alone, .fini = teardown)
{
    ch_sim_do(sim, write_before, 0, ch_sim_now(sim) + 60 * CH_S);
    for (int round = 0; round < 2; round++) {
        ch_sim_crash(cluster.servers[0].node);
        ch_sim_crash(cluster.masters[0].node);
        blk_cluster_node_start(&cluster.masters[0]);
        blk_cluster_node_start(&cluster.servers[0]);
        ch_sim_run(sim, 0, 0, ch_sim_now(sim) + 2 * CH_S);
        ch_sim_do(sim, read_after, 0, ch_sim_now(sim) + 60 * CH_S);
        ch_sim_do(sim, one_copy, 0, ch_sim_now(sim) + 60 * CH_S);
    }
    blk_cluster_node_start(&cluster.servers[1]);
    blk_cluster_node_start(&cluster.servers[2]);
    ch_sim_run(sim, 0, 0, ch_sim_now(sim) + 2 * CH_S);
    ch_sim_do(sim, later, 0, ch_sim_now(sim) + 60 * CH_S);
    ch_sim_run(sim, 0, 0, ch_sim_now(sim) + 5 * CH_S);
    ch_sim_do(sim, three_copies, 0, ch_sim_now(sim) + 60 * CH_S);
    ch_sim_crash(cluster.servers[0].node);
    ch_sim_disk_lose(cluster.servers[0].node);
    ch_sim_run(sim, 0, 0, ch_sim_now(sim) + 5 * CH_S);
    ch_sim_do(sim, read_after, 0, ch_sim_now(sim) + 60 * CH_S);
}

/* ---- killed, and then the power goes ---- */

static char kept_path[32];

static int append_on(struct ch_env *env, void *arg)
{
    CH_FIBER_ENTRY();
    struct blk_client *client = blk_cluster_client(&cluster);
    struct blk_writer *writer;
    uint64_t at;
    struct base_status status = blk_open_append(
        client, kept_path, &(struct blk_append_options){ .create = true }, soon(), &writer, &at);
    bool opened = !base_failed(status);
    while (!base_failed(status) && !ch_cancelled()) {
        base_status_free(&status);
        status = append(
            writer, "some bytes that are worth keeping, more than a sector of them: ....", 64, &at);
        if (!base_failed(status) && ch_sleep_until(env, ch_in(env, CH_MS)) != CH_TIMEOUT)
            break;
    }
    base_status_free(&status);
    if (opened)
        blk_writer_close(writer);
    blk_client_free(client);
    return 0;
}

static void seal_kept(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk_client *client = blk_cluster_client(&cluster);
    uint64_t length;
    OK(blk_seal(client, kept_path, 0, soon(), &length));
    cr_assert(length > 0);
    blk_client_free(client);
}

/* What a server finds when it starts it builds on, so it makes it durable first. A batch that was
 * written and not yet synced when the process was killed is whole in the next life; were it to go
 * with the power then, the journal would have a hole that looks like damage, and nothing of the
 * server's growing replicas could be believed any more. */
Test(blockstore_basic, what_a_killed_server_left_is_durable, .init = setup_alone, .fini = teardown)
{
    struct blk_cluster_node *server = &cluster.servers[0];
    struct ch_sim_node *writer = ch_sim_node(sim, "writer", "10.0.1.1");
    for (int round = 0; round < 20; round++) {
        snprintf(kept_path, sizeof(kept_path), "/k/%d", round);
        ch_sim_start(writer, append_on, NULL);
        ch_sim_run(sim, 0, 0, ch_sim_now(sim) + 500 * CH_MS);
        ch_sim_disk_delay(server->node, 50 * CH_MS, 60 * CH_MS);
        ch_sim_run(sim, 0, 0, ch_sim_now(sim) + (20 + 11 * round) * CH_MS);
        ch_sim_kill(server->node);
        ch_sim_disk_delay(server->node, 100 * CH_US, 300 * CH_US);
        blk_cluster_node_start(server);
        ch_sim_run(sim, 0, 0, ch_sim_now(sim) + CH_S);
        if (ch_sim_running(writer))
            ch_sim_crash(writer);
        ch_sim_crash(server->node);
        blk_cluster_node_start(server);
        ch_sim_run(sim, 0, 0, ch_sim_now(sim) + 2 * CH_S);
        ch_sim_do(sim, seal_kept, 0, ch_sim_now(sim) + 60 * CH_S);
    }
}
