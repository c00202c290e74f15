/* cell_world.c: machines, their power and their init, and the jobs of the cell. */
#include <stdarg.h>
#include <unistd.h>

#include "cell.h"
#include "chassis/leader.h"
#include "clustermgr/job.h"
#include "strata/clustermgr/v1/cell.strata.h"

#define CELL_METHOD(name) \
    (&strata__clustermgr__v1__cell__service.methods[STRATA__CLUSTERMGR__V1__CELL__##name])

enum { CALL_S = 5, INIT_MS = 100, HEALTHY_POLL_MS = 200 };

struct cell cell;

void cell_fail(const char *file, int line, const char *fmt, ...)
{
    va_list args;
    const char *slash = strrchr(file, '/');

    fprintf(stderr, "seed %" PRIu64 " at %.6f s: ", cell.seed,
            cell.sim ? (double)ch_sim_now(cell.sim) / 1e9 : 0.0);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fprintf(stderr, " (%s:%d)\n", slash ? slash + 1 : file, line);
    if (cell.options.lost_kind || cell.options.disks_lie)
        _exit(CELL_CAUGHT);
    fprintf(stderr, "replay: STRATA_SEED=%" PRIu64 " sim_cell\n", cell.seed);
    abort();
}

struct ch_env *cell_env(void)
{
    return ch_sim_tester_env(cell.sim);
}

uint64_t cell_below(uint64_t bound)
{
    return ch_random_below(cell_env(), bound);
}

void cell_rest(ch_time min, ch_time max)
{
    (void)!ch_sleep_until(cell_env(),
                          ch_in(cell_env(), min + (ch_time)cell_below((uint64_t)(max - min) + 1)));
}

/* ---- machines ---- */

/* STRATA_LOG=info STRATA_TEST_LOG=info shows what the daemons log. */
static const char *log_flag(void)
{
    const char *level = getenv("STRATA_TEST_LOG");

    return base_arena_printf(&cell.arena, "--log-level=%s", level ? level : "error");
}

static void master_start(struct cell_machine *machine)
{
    struct base_arena *a = &cell.arena;
    const char *argv[] = {
        "clustermaster",
        base_arena_printf(a, "--listen=%s:7340", machine->host),
        "--admin=",
        "--cell=local",
        base_arena_printf(a, "--members=%s", cell.masters),
        "--data-dir=/master",
        "--snapshot-bytes=16KiB",
        log_flag(),
        cell.founded || machine != &cell.machines[0] ? NULL : "--found=true",
        NULL,
    };

    cell_program_start(machine->master, argv);
}

static void agent_start(struct cell_machine *machine)
{
    struct base_arena *a = &cell.arena;
    const char *argv[] = {
        "clusteragent",
        base_arena_printf(a, "--machine=%s", machine->name),
        base_arena_printf(a, "--listen=%s:7341", machine->host),
        "--admin=",
        "--zone=zone-a",
        "--cell=local",
        base_arena_printf(a, "--names=%s", cell.masters),
        "--data-dir=/agent",
        "--bin-dir=/bin",
        log_flag(),
        NULL,
    };

    cell_program_start(machine->agent, argv);
}

/* A machine's init: its clustermaster and clusteragent run whenever it has power. */
static void init_fiber(void *arg)
{
    CH_FIBER_ENTRY();
    struct cell_machine *machine = arg;

    while (!ch_cancelled()) {
        if (machine->on && !ch_sim_running(machine->master->node))
            master_start(machine);
        if (machine->on && !ch_sim_running(machine->agent->node))
            agent_start(machine);
        cell_rest(INIT_MS * CH_MS, 3 * INIT_MS * CH_MS);
    }
}

void cell_machine_off(size_t machine)
{
    cell.machines[machine].on = false;
    for (size_t i = 0; i < cell.program_count; i++)
        if (cell.programs[i]->machine == machine)
            ch_sim_crash(cell.programs[i]->node);
}

void cell_machine_on(size_t machine)
{
    cell.machines[machine].on = true;
}

/* ---- jobs ---- */

/* Small limits, so that what takes hours happens in seconds; of "a|b" each seed takes one. */
static const struct {
    const char *job;
    uint32_t tasks;
    const char *args[8];
} changes[] = {
    { "blockmaster",
      3,
      { "--block-bytes=64KiB|256KiB", "--dead-after=2s|10s", "--trash-keep=1s",
        "--repair-every=500ms", "--snapshot-bytes=8KiB|64KiB" } },
    { "blockserver",
      3,
      { "--journal-segment-bytes=2MiB", "--journal-segments=3|4", "--space-reserve-bytes=64KiB",
        "--scrub-bytes-per-second=256KiB", "--direct-append-bytes=2KiB|256KiB" } },
    { "tabletmaster", 1, { "--balance-interval=1s|2s" } },
    { "tabletserver",
      3,
      { "--memtable-bytes=8KiB|32KiB|16MiB", "--log-segment-bytes=32KiB|256KiB|64MiB",
        "--log-segments-max=3|8", "--block-cache-bytes=64KiB|8MiB",
        "--tablet-split-bytes=32KiB|128KiB|256MiB" } },
    { "txserver",
      2,
      { "--log-drop-min=5|50|512", "--cache-bytes=3KiB|64KiB|64MiB", "--retention=30s|3600s",
        "--sweep-every=3s|600s" } },
    { "queryserver", CELL_QUERYSERVERS, { NULL } },
};
enum { JOBS = sizeof(changes) / sizeof(changes[0]) };

static struct base_bytes file_read(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = base_arena_alloc(&cell.arena, 1 << 16);

    MUST(file, "%s: not there", path);
    size_t len = fread(text, 1, 1 << 16, file);
    fclose(file);
    return base_bytes(text, len);
}

/* "--key=a|b|c" with one of the values. */
static const char *choose(const char *arg, uint64_t random)
{
    const char *at = strchr(arg, '=') + 1;
    int key = (int)(at - arg);
    size_t count = 1;

    for (const char *c = at; *c; c++)
        count += *c == '|';
    for (random %= count; random > 0; random--)
        at = strchr(at, '|') + 1;
    return base_arena_printf(&cell.arena, "%.*s%.*s", key, arg, (int)strcspn(at, "|"), at);
}

/* The repository's job file, with the changes above. No front door: a simulated machine has one
 * address; clients find the queryservers by name. */
static Strata__Clustermgr__V1__JobSpec *job_load(size_t i)
{
    Strata__Clustermgr__V1__JobSpec *spec;
    const char *path = base_arena_printf(&cell.arena, "%s/%s.yaml", CELL_JOBS_DIR, changes[i].job);
    struct base_status status = clu_job_parse(file_read(path), path, &cell.arena, &spec);

    MUST(!base_failed(status), "%s", base_status_text(&status));
    spec->tasks = changes[i].tasks;
    spec->front = ch_data_of(BASE_BYTES_EMPTY);
    spec->args = BASE_NEW_ARRAY(&cell.arena, ProtobufCBinaryData, 9);
    for (spec->n_args = 0; changes[i].args[spec->n_args]; spec->n_args++)
        spec->args[spec->n_args] =
            ch_data_str(choose(changes[i].args[spec->n_args], cell_below(UINT64_C(1) << 32)));
    if (getenv("STRATA_CELL_FAULTS"))
        for (size_t k = 0; k < spec->n_args; k++)
            fprintf(stderr, "%s %.*s\n", changes[i].job, BASE_FMT(ch_bytes_of(spec->args[k])));
    spec->args[spec->n_args++] = ch_data_str(log_flag());
    return spec;
}

static CH_WAITS void job_submit(struct ch_leader *leader, size_t i)
{
    Strata__Clustermgr__V1__SubmitJobRequest request;
    void *reply;
    struct base_status status;

    strata__clustermgr__v1__submit_job_request__init(&request);
    request.spec = job_load(i);
    for (int tries = 0; tries < 20; tries++) {
        struct ch_leader_options options = { .deadline = ch_in(cell_env(), CALL_S * CH_S) };
        status = ch_leader_call(leader, CELL_METHOD(SUBMIT_JOB), &request, &options, &cell.arena,
                                &reply);
        if (!base_failed(status))
            return;
        base_status_free(&status);
        cell_rest(INIT_MS * CH_MS, 2 * INIT_MS * CH_MS);
    }
    cell_fail(__FILE__, __LINE__, "job %s is not taken", changes[i].job);
}

/* ---- health ---- */

/* What is not well, or "". */
static CH_WAITS void unwell(struct ch_leader *leader, char text[512])
{
    Strata__Clustermgr__V1__ListTasksRequest request;
    Strata__Clustermgr__V1__ListTasksReply *reply = NULL;
    struct ch_leader_options options = { .deadline = ch_in(cell_env(), CALL_S * CH_S) };
    struct base_arena arena;
    struct base_status status;
    size_t wanted = 0, used = 0;

    base_arena_init(&arena);
    strata__clustermgr__v1__list_tasks_request__init(&request);
    status = ch_leader_call(leader, CELL_METHOD(LIST_TASKS), &request, &options, &arena,
                            (void **)&reply);
    text[0] = '\0';
    for (size_t i = 0; i < JOBS; i++)
        wanted += changes[i].tasks;
    if (base_failed(status)) {
        snprintf(text, 512, "%s", base_status_text(&status));
    } else if (reply->n_tasks != wanted) {
        snprintf(text, 512, "%zu of %zu tasks are known", reply->n_tasks, wanted);
    } else {
        for (size_t i = 0; i < reply->n_tasks && used < 400; i++) {
            const Strata__Clustermgr__V1__Task *task = reply->tasks[i];
            if (task->state != STRATA__CLUSTERMGR__V1__TASK_STATE__TASK_RUNNING || !task->healthy)
                used += (size_t)snprintf(text + used, 512 - used,
                                         "%.*s/%u on %.*s: state %d, %s, %u restarts, %.*s; ",
                                         BASE_FMT(ch_bytes_of(task->job)), task->index,
                                         BASE_FMT(ch_bytes_of(task->machine)), (int)task->state,
                                         task->healthy ? "healthy" : "not healthy", task->restarts,
                                         BASE_FMT(ch_bytes_of(task->last_exit)));
        }
    }
    base_status_free(&status);
    base_arena_free(&arena);
}

void cell_wait_healthy(ch_time bound)
{
    struct ch_leader *leader = ch_leader_new(cell_env(), cell.masters, NULL);
    ch_time deadline = ch_in(cell_env(), bound);
    char text[512];

    for (unwell(leader, text); text[0]; unwell(leader, text)) {
        MUST(ch_now(cell_env()) < deadline, "after %.0f s the cell is not healthy: %s",
             (double)bound / 1e9, text);
        cell_rest(HEALTHY_POLL_MS * CH_MS, 2 * HEALTHY_POLL_MS * CH_MS);
    }
    ch_leader_free(leader);
}

/* ---- life ---- */

void cell_begin(uint64_t seed, const struct cell_options *options)
{
    memset(&cell, 0, sizeof(cell));
    base_arena_init(&cell.arena);
    cell.seed = seed;
    cell.options = *options;
    cell.sim = ch_sim_new(seed);
    cell.pids = CELL_PID_FIRST;
    for (size_t i = 0; i < CELL_MACHINES; i++) {
        struct cell_machine *machine = &cell.machines[i];

        snprintf(machine->name, sizeof(machine->name), "m%zu", i + 1);
        snprintf(machine->host, sizeof(machine->host), "10.0.0.%zu", i + 1);
        snprintf(cell.masters + strlen(cell.masters), sizeof(cell.masters) - strlen(cell.masters),
                 "%s%s:7340", i ? "," : "", machine->host);
        machine->master = cell_program(i, "clustermaster");
        machine->agent = cell_program(i, "clusteragent");
        machine->on = true;
    }
}

void cell_end(void)
{
    /* A graceful end of all at once would have each wait for the others. */
    for (size_t i = 0; i < cell.program_count; i++)
        ch_sim_kill(cell.programs[i]->node);
    ch_sim_free(cell.sim);
    base_arena_free(&cell.arena);
    for (size_t i = 0; i < cell.program_count; i++)
        free(cell.programs[i]);
    bank_free();
    items_free();
    lists_free();
}

void cell_up(void)
{
    struct ch_leader *leader;

    ch_gate_init(&cell.gate, cell_env(), "cell");
    for (size_t i = 0; i < CELL_MACHINES; i++)
        MUST(base_status_drop(ch_gate_spawn(&cell.gate, "init", init_fiber, &cell.machines[i])) ==
                 BASE_OK,
             "no init");
    leader = ch_leader_new(cell_env(), cell.masters, NULL);
    for (size_t i = 0; i < JOBS; i++)
        job_submit(leader, i);
    cell.founded = true;
    ch_leader_free(leader);
    cell_wait_healthy(60 * CH_S);
}

void cell_down(void)
{
    ch_gate_stop(&cell.gate);
}
