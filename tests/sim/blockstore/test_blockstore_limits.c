/* What a small limit, or a moment, must not do to a healthy cell: stop it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blk_cluster.h"
#include "chassis/service.h"
#include "test.h"

enum { BLOCK = 64 << 10 };

static struct ch_sim *sim;
static struct blk_cluster cluster;

static void setup(void)
{
    sim = ch_sim_new(ch_sim_seed(1));
    blk_cluster_start(&cluster, sim, 1, 3, "64KiB");
    ch_sim_run(sim, 0, 0, ch_sim_now(sim) + 2 * CH_S);
}

static void teardown(void)
{
    ch_sim_free(sim);
    blk_cluster_free(&cluster);
}

static ch_time soon(void)
{
    return ch_in(ch_fiber_env(), 5 * CH_S);
}

#define OK(expr)                                                                       \
    do {                                                                               \
        struct base_status status_ = (expr);                                           \
        cr_assert(!base_failed(status_), "%s: %s", #expr, base_status_text(&status_)); \
    } while (0)

static struct blk_writer *writer_of(struct blk_client *client, const char *path) CH_WAITS;
static struct blk_writer *writer_of(struct blk_client *client, const char *path)
{
    struct blk_writer *writer;
    uint64_t length;
    OK(blk_open_append(client, path, &(struct blk_append_options){ .create = true }, soon(),
                       &writer, &length));
    return writer;
}

static void append(struct blk_writer *writer, size_t len) CH_WAITS;
static void append(struct blk_writer *writer, size_t len)
{
    uint64_t offset;
    uint8_t *data = calloc(1, len);
    struct base_bytes part = base_bytes(data, len);
    OK(blk_append(writer, &part, 1, soon(), &offset));
    free(data);
}

/* A file is sealed right after appends of every size around a block's end: just then its writer has
 * asked for the next block, which is the file's as soon as it is given. */
static void seal_at_any_moment(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk_client *client = blk_cluster_client(&cluster);
    for (size_t i = 0; i < 120; i++) {
        char path[32];
        snprintf(path, sizeof(path), "/s/%zu", i);
        struct blk_writer *writer = writer_of(client, path);
        for (size_t parts = 1 + i % 3, k = 0; k < parts; k++)
            append(writer, BLOCK / 2 + i * (BLOCK / 40));
        (void)!ch_sleep_until(ch_fiber_env(),
                              ch_in(ch_fiber_env(), (ch_time)(i % 7) * 100 * CH_US));
        OK(blk_writer_seal(writer, soon()));
        blk_writer_close(writer);
    }
    blk_client_free(client);
}

Test(blockstore_limits, a_file_is_sealed_while_its_next_block_comes, .init = setup,
     .fini = teardown)
{
    ch_sim_do(sim, seal_at_any_moment, 0, ch_sim_now(sim) + 300 * CH_S);
}

/* The fewest journal segments there may be: they are filled many times over, so each must be let go
 * in time. */
static void fill_journals(void *arg)
{
    CH_FIBER_ENTRY();
    struct blk_client *client = blk_cluster_client(&cluster);
    struct blk_writer *writer = writer_of(client, "/j/1");
    for (size_t bytes = 0; bytes < (size_t)16 << 20; bytes += 8 << 10)
        append(writer, 8 << 10);
    OK(blk_writer_seal(writer, soon()));
    blk_writer_close(writer);
    blk_client_free(client);
}

/* Several at once that write files and delete them: removals wait in the journals too. */
static void fill_and_delete(void *arg)
{
    CH_FIBER_ENTRY();
    size_t number = (size_t)arg;
    struct blk_client *client = blk_cluster_client(&cluster);
    for (size_t i = 0; i < 40; i++) {
        char path[32];
        snprintf(path, sizeof(path), "/d/%zu-%zu", number, i);
        struct blk_writer *writer = writer_of(client, path);
        for (size_t bytes = 0; bytes < (size_t)256 << 10; bytes += 24 << 10)
            append(writer, 24 << 10);
        OK(blk_writer_seal(writer, soon()));
        blk_writer_close(writer);
        OK(blk_delete(client, path, soon()));
    }
    blk_client_free(client);
}

static void fill_and_delete_together(void *arg)
{
    CH_FIBER_ENTRY();
    struct ch_gate gate;
    ch_gate_init(&gate, ch_fiber_env(), "fill and delete");
    for (size_t i = 0; i < 6; i++)
        OK(ch_gate_spawn(&gate, "fill and delete", fill_and_delete, (void *)i));
    ch_gate_close(&gate);
    ch_gate_join_always(&gate);
}

static void three_segments(void)
{
    setup();
    for (size_t i = 0; i < cluster.server_count; i++) {
        struct blk_cluster_node *server = &cluster.servers[i];
        char *flag = NULL;
        for (int k = 0; k < server->args->argc; k++)
            if (strncmp(server->argv[k], "--journal-segments=", 19) == 0)
                flag = server->argv[k];
        cr_assert_not_null(flag);
        flag[19] = '3';
        ch_sim_crash(server->node);
        ch_sim_disk_lose(server->node);
        blk_cluster_node_start(server);
    }
    ch_sim_run(sim, 0, 0, ch_sim_now(sim) + 2 * CH_S);
}

Test(blockstore_limits, a_journal_of_three_segments_goes_round, .init = three_segments,
     .fini = teardown)
{
    ch_sim_do(sim, fill_journals, 0, ch_sim_now(sim) + 300 * CH_S);
}

Test(blockstore_limits, a_removal_that_waits_keeps_no_segment, .init = three_segments,
     .fini = teardown)
{
    ch_sim_do(sim, fill_and_delete_together, 0, ch_sim_now(sim) + 600 * CH_S);
}
