/* service_blockserver.c: the blockserver daemon: its flags, and a store with its RPC service behind
 * them. */
#include <stdio.h>
#include <stdlib.h>

#include "blockserver.h"
#include "services.h"

struct config {
    char *masters, *machine;
    ch_time heartbeat;
    uint64_t journal_segment_bytes, unwritten_bytes, direct_bytes, space_reserve, copy_bytes,
        scrub_bytes;
    int64_t journal_segments;
};

static const struct ch_config_key keys[] = {
    CH_CONFIG(config, masters, "masters", CH_CONFIG_STRING, "",
              "host:port of the blockmaster; empty: found through --names"),
    CH_CONFIG(config, machine, "machine", CH_CONFIG_STRING, "",
              "replicas of a block lie on different machines; empty: the host"),
    CH_CONFIG(config, heartbeat, "heartbeat", CH_CONFIG_DURATION, "500ms",
              "between reports to the master"),
    CH_CONFIG(config, journal_segment_bytes, "journal-segment-bytes", CH_CONFIG_SIZE, "16MiB",
              "size of one journal segment"),
    { "journal-segments", CH_CONFIG_INT, offsetof(struct config, journal_segments), "8",
      "journal segments, made at the first start", 3, 1000 },
    CH_CONFIG(config, unwritten_bytes, "unwritten-bytes", CH_CONFIG_SIZE, "64MiB",
              "memory for what is journaled and not yet in a block file"),
    CH_CONFIG(
        config, direct_bytes, "direct-append-bytes", CH_CONFIG_SIZE, "256KiB",
        "an append of so many bytes goes to its block file without the journal; 0: none does"),
    CH_CONFIG(config, space_reserve, "space-reserve-bytes", CH_CONFIG_SIZE, "64MiB",
              "left free on the disk"),
    CH_CONFIG(config, copy_bytes, "copy-bytes-per-second", CH_CONFIG_SIZE, "64MiB",
              "of repair, pulled by this server"),
    CH_CONFIG(config, scrub_bytes, "scrub-bytes-per-second", CH_CONFIG_SIZE, "4MiB",
              "read to find rotten bytes; 0: none"),
};

static struct base_status start(const struct ch_service_start *s,
                                void **self) CH_WAITS BASE_MUST_CHECK;
static struct base_status start(const struct ch_service_start *s, void **self)
{
    const struct config *config = s->config;
    char target[300];
    if (!s->common->data_dir[0])
        return base_status_make(BASE_INVALID_ARGUMENT, "--data-dir must be given");
    if (!config->masters[0] && !s->naming)
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "--masters or --names must say where the blockmaster is");
    if (config->journal_segment_bytes < (2 << 20))
        return base_status_make(BASE_INVALID_ARGUMENT,
                                "--journal-segment-bytes must be at least 2MiB");
    if (config->copy_bytes == 0)
        return base_status_make(BASE_INVALID_ARGUMENT, "--copy-bytes-per-second must not be 0");
    snprintf(target, sizeof target, "/%s/blockmaster", s->common->cell);
    struct blk__blockserver_options options = {
        .store = { .dir = s->common->data_dir,
                   .segment_bytes = config->journal_segment_bytes,
                   .segments = (uint32_t)config->journal_segments,
                   .unwritten_bytes_max = config->unwritten_bytes,
                   .direct_bytes = config->direct_bytes,
                   .space_reserve_bytes = config->space_reserve },
        .naming = s->naming,
        .masters = config->masters[0] ? config->masters : target,
        .machine = config->machine,
        .zone = s->common->zone,
        .heartbeat = config->heartbeat,
        .copy_bytes_per_s = config->copy_bytes,
        .scrub_bytes_per_s = config->scrub_bytes,
    };
    return blk__blockserver_open(s->env, &options, s->server, (struct blk__blockserver **)self);
}

static struct base_status serve(void *self) CH_WAITS BASE_MUST_CHECK;
static struct base_status serve(void *self)
{
    return blk__blockserver_serve(self);
}

static void stop(void *self) CH_WAITS;
static void stop(void *self)
{
    blk__blockserver_close(self);
}

const struct ch_service_def blk__blockserver_service = {
    .name = "blockserver",
    .about = "keeps replicas of blocks on one disk",
    .config = { keys, sizeof keys / sizeof keys[0] },
    .config_size = sizeof(struct config),
    .start = start,
    .serve = serve,
    .stop = stop,
};
