/* service_blockmaster.c: the blockmaster daemon: its flags, and a master behind them. */
#include <stdio.h>
#include <stdlib.h>

#include "master.h"
#include "services.h"
#include "store.h"

struct config {
    uint64_t block_bytes;
    ch_time dead_after, trash_keep, repair_every;
    int64_t copies_max;
    uint64_t snapshot_bytes;
};

static const struct ch_config_key keys[] = {
    CH_CONFIG(config, block_bytes, "block-bytes", CH_CONFIG_SIZE, "64MiB",
              "a writer goes on in the next block after so many bytes"),
    CH_CONFIG(config, dead_after, "dead-after", CH_CONFIG_DURATION, "10s",
              "a blockserver not heard of for so long is dead"),
    CH_CONFIG(config, trash_keep, "trash-keep", CH_CONFIG_DURATION, "60s",
              "blocks of a deleted file are kept so long"),
    CH_CONFIG(config, repair_every, "repair-every", CH_CONFIG_DURATION, "1s",
              "between sweeps for what needs repair"),
    { "copies-max", CH_CONFIG_INT, offsetof(struct config, copies_max), "4",
      "replicas being made at once", 1, 1000 },
    CH_CONFIG(config, snapshot_bytes, "snapshot-bytes", CH_CONFIG_SIZE, "8MiB",
              "log bytes after which the state is saved whole"),
};

static struct base_status start(const struct ch_service_start *s,
                                void **self) CH_WAITS BASE_MUST_CHECK;
static struct base_status start(const struct ch_service_start *s, void **self)
{
    const struct config *config = s->config;
    char dir[512];
    if (!s->common->data_dir[0])
        return base_status_make(BASE_INVALID_ARGUMENT, "--data-dir must be given");
    if (config->block_bytes < 64 * 1024)
        return base_status_make(BASE_INVALID_ARGUMENT, "--block-bytes must be at least 64KiB");
    snprintf(dir, sizeof dir, "%s/log", s->common->data_dir);
    struct blk__master_options options = { .dir = dir,
                                           .block_bytes = config->block_bytes,
                                           .dead_after = config->dead_after,
                                           .trash_keep = config->trash_keep,
                                           .repair_every = config->repair_every,
                                           .copies_max = (uint32_t)config->copies_max,
                                           .snapshot_bytes_min = config->snapshot_bytes };
    struct base_status status = blk__dir_make_durable(s->env, s->common->data_dir);
    if (!base_failed(status))
        status = blk__dir_make_durable(s->env, dir);
    if (base_failed(status))
        return status;
    return blk__master_open(s->env, &options, s->server, (struct blk__master **)self);
}

static void stop(void *self) CH_WAITS;
static void stop(void *self)
{
    blk__master_close(self);
}

const struct ch_service_def blk__blockmaster_service = {
    .name = "blockmaster",
    .about = "knows the files of the blockstore, their blocks and where the replicas are",
    .config = { keys, sizeof keys / sizeof keys[0] },
    .config_size = sizeof(struct config),
    .start = start,
    .stop = stop,
};
