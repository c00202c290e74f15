/* service_blockmaster.c: the blockmaster daemon: its flags, and a master behind them, one of a
 * group (found by name in a cell, by --members without one) or alone. */
#include <stdio.h>
#include <stdlib.h>

#include "consensus/entry.h"
#include "founding.h"
#include "master.h"
#include "services.h"
#include "store.h"

struct config {
    uint64_t block_bytes;
    ch_time dead_after, trash_keep, repair_every;
    int64_t copies_max;
    uint64_t snapshot_bytes;
    char *members;
    bool found, one_machine;
};

struct service {
    struct con_node *node; /* NULL: a master alone, for good */
    struct blk__master *master;
};

enum { TASKS_MAX = CON_MEMBERS_MAX, MASTERS_USUAL_MAX = 5 };

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
    CH_CONFIG(config, members, "members", CH_CONFIG_STRING, "",
              "without --names: the members of the group, host:port,..., this one's --listen among "
              "them; empty: this one alone, for good"),
    CH_CONFIG(
        config, one_machine, "one-machine", CH_CONFIG_BOOL, "false",
        "one copy of each block in a new cell, until a second machine's blockserver is there; "
        "then three, for good"),
    CH_CONFIG(config, found, "found", CH_CONFIG_BOOL, "false",
              "with --members: an empty --data-dir begins the group, unless a member knows of one"),
};

struct group {
    struct base_arena arena;
    const char *self, *peers[TASKS_MAX];
    size_t peer_count;
    bool found;
};

/* By flags: addresses. */
static void group_of_addresses(struct group *group, const struct ch_service_start *s,
                               const struct config *config)
{
    char *at = base_arena_strdup(&group->arena, config->members), *item;
    group->self = s->common->listen;
    group->found = config->found;
    while ((item = strsep(&at, ",")) && group->peer_count < TASKS_MAX)
        if (*item)
            group->peers[group->peer_count++] = item;
}

/* By the cell: the members are the tasks of this task's job, reached by their names. How many there
 * are is the job's to say, and may change: those that are not there just do not answer. */
static struct base_status group_of_tasks(struct group *group,
                                         const struct ch_service_start *s) CH_WAITS BASE_MUST_CHECK;
static struct base_status group_of_tasks(struct group *group, const struct ch_service_start *s)
{
    const char *cell = s->common->cell, *task = s->common->task, *slash = strrchr(task, '/');
    struct blk__founding founding = { .dir = s->common->data_dir, .task = task };
    if (!slash)
        return base_status_make(BASE_INVALID_ARGUMENT, "--task %s: is not JOB/INDEX", task);
    founding.node =
        base_arena_printf(&group->arena, "/%s/groups/%.*s", cell, (int)(slash - task), task);
    group->self = base_arena_printf(&group->arena, "/%s/%s", cell, task);
    for (int i = 0; i < MASTERS_USUAL_MAX; i++) {
        const char *peer =
            base_arena_printf(&group->arena, "/%s/%.*s/%d", cell, (int)(slash - task), task, i);
        if (strcmp(peer, group->self) != 0)
            group->peers[group->peer_count++] = peer;
    }
    return blk__founding_decide(s->env, s->naming, &founding, &group->found);
}

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
                                           .one_machine = config->one_machine,
                                           .snapshot_bytes_min = config->snapshot_bytes };
    struct base_status status = blk__dir_make_durable(s->env, s->common->data_dir);
    if (!base_failed(status))
        status = blk__dir_make_durable(s->env, dir);
    struct service *service = calloc(1, sizeof *service);
    struct group group = { .self = "" };
    BASE_ASSERT(service);
    base_arena_init(&group.arena);
    if (base_failed(status))
        goto out;
    if (config->members[0])
        group_of_addresses(&group, s, config);
    else if (s->naming && s->common->task[0])
        status = group_of_tasks(&group, s);
    if (!base_failed(status) && group.self[0])
        status = con_node_new(s->env, s->server, s->naming, &service->node);
    if (base_failed(status))
        goto out;
    options.node = service->node;
    options.self = group.self;
    options.peers = group.peers;
    options.peer_count = group.peer_count;
    options.found = group.found;
    options.founder_dir = s->naming && !config->members[0] ? s->common->data_dir : NULL;
    status = blk__master_open(s->env, &options, s->server, &service->master);
    if (base_failed(status) && service->node)
        con_node_free(service->node);
out:
    base_arena_free(&group.arena);
    if (base_failed(status))
        free(service);
    else
        *self = service;
    return status;
}

static void retire(void *self) CH_WAITS;
static void retire(void *self)
{
    blk__master_retire(((struct service *)self)->master);
}

static void stop(void *self) CH_WAITS;
static void stop(void *self)
{
    struct service *service = self;
    blk__master_close(service->master);
    if (service->node)
        con_node_free(service->node);
    free(service);
}

const struct ch_service_def blk__blockmaster_service = {
    .name = "blockmaster",
    .about = "knows the files of the blockstore, their blocks and where the replicas are",
    .config = { keys, sizeof keys / sizeof keys[0] },
    .config_size = sizeof(struct config),
    .start = start,
    .retire = retire,
    .stop = stop,
};
