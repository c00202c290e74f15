/* The clustermaster's state (clustermgr/src/state*.c): names, sessions and locks against a small
 * model; jobs, machines and plans step by step; snapshots that restore to the same bytes. */
#include "state.h"

#include <inttypes.h>
#include <stdlib.h>

#include "test.h"

struct world {
    struct clu_state *state;
    struct con_machine machine;
    uint64_t index;
    struct base_arena arena;
};

static void world_init(struct world *world)
{
    *world = (struct world){ .state = clu__state_new() };
    world->machine = clu__state_machine(world->state);
    base_arena_init(&world->arena);
}

static void world_free(struct world *world)
{
    clu__state_free(world->state);
    base_arena_free(&world->arena);
}

/* Applies a command as the log does; its code, and its number in *number. */
static enum base_code apply(struct world *world, CLU_PB(Command) * command, uint64_t *number)
{
    struct base_buf bytes = { 0 }, answer = { 0 };
    ProtobufCMessage *message = NULL;
    struct base_status status;

    ch_proto_encode(&command->base, &bytes);
    world->machine.apply(world->machine.self, ++world->index, base_buf_bytes(&bytes), &answer);
    status = ch_proto_decode(CLU_DESCRIPTOR(command_reply), base_buf_bytes(&answer), &world->arena,
                             &message);
    cr_assert(!base_failed(status));
    base_buf_free(&bytes);
    base_buf_free(&answer);
    if (number)
        *number = ((CLU_PB(CommandReply) *)(void *)message)->number;
    return (enum base_code)((CLU_PB(CommandReply) *)(void *)message)->code;
}

#define COMMAND(world, WHAT, lower, Type, field)                           \
    CLU_PB(Command) *command = CLU_NEW(&(world)->arena, Command, command); \
    CLU_PB(Type) *request = CLU_NEW(&(world)->arena, Type, lower);         \
    command->what_case = STRATA__CLUSTERMGR__V1__COMMAND__WHAT_##WHAT;     \
    command->field = request;

static enum base_code set(struct world *world, const char *path, const char *value,
                          int64_t expected, uint64_t session, uint64_t *version)
{
    COMMAND(world, SET, set_request, SetRequest, set)
    request->path = ch_data_str(path);
    request->value = ch_data_str(value);
    request->expected_version = expected;
    request->session = session;
    return apply(world, command, version);
}

static enum base_code delete_node(struct world *world, const char *path, int64_t expected)
{
    COMMAND(world, DELETE, delete_request, DeleteRequest, delete_)
    request->path = ch_data_str(path);
    request->expected_version = expected;
    return apply(world, command, NULL);
}

static uint64_t session_open(struct world *world)
{
    uint64_t id = 0;
    COMMAND(world, OPEN_SESSION, open_session_request, OpenSessionRequest, open_session)
    request->lease_ms = 1000;
    cr_assert_eq(apply(world, command, &id), BASE_OK);
    return id;
}

static enum base_code session_close(struct world *world, uint64_t session)
{
    COMMAND(world, CLOSE_SESSION, close_session_request, CloseSessionRequest, close_session)
    request->session = session;
    return apply(world, command, NULL);
}

static enum base_code acquire(struct world *world, uint64_t session, const char *path,
                              uint64_t *epoch)
{
    COMMAND(world, ACQUIRE, acquire_request, AcquireRequest, acquire)
    request->session = session;
    request->path = ch_data_str(path);
    request->value = ch_data_str("me");
    return apply(world, command, epoch);
}

static enum base_code release(struct world *world, uint64_t session, const char *path,
                              uint64_t epoch)
{
    COMMAND(world, RELEASE, release_request, ReleaseRequest, release)
    request->session = session;
    request->path = ch_data_str(path);
    request->epoch = epoch;
    return apply(world, command, NULL);
}

static enum base_code break_lock(struct world *world, const char *path, bool erase, uint64_t *epoch)
{
    COMMAND(world, BREAK, break_request, BreakRequest, break_)
    request->path = ch_data_str(path);
    request->erase = erase;
    return apply(world, command, epoch);
}

Test(state, expected_versions)
{
    /* A write that expects another version changes nothing: compare-and-set is what clients build
     * on. */
    struct world world;
    uint64_t version = 0;

    world_init(&world);
    cr_assert_eq(set(&world, "/a", "1", 7, 0, NULL), BASE_FAILED_PRECONDITION);
    cr_assert_eq(set(&world, "/a", "1", 0, 0, &version), BASE_OK);
    cr_assert_eq(set(&world, "/a", "2", 0, 0, NULL), BASE_FAILED_PRECONDITION);
    cr_assert_eq(set(&world, "/a", "2", (int64_t)version, 0, &version), BASE_OK);
    cr_assert_eq(delete_node(&world, "/a", (int64_t)version - 1), BASE_FAILED_PRECONDITION);
    cr_assert_eq(delete_node(&world, "/a", (int64_t)version), BASE_OK);
    cr_assert_eq(delete_node(&world, "/a", -1), BASE_NOT_FOUND);
    cr_assert_eq(set(&world, "/a", "3", -1, 99, NULL), BASE_NOT_FOUND,
                 "an ephemeral node needs a session that lives");
    world_free(&world);
}

Test(state, epochs_never_go_back)
{
    /* Each acquisition has a greater epoch than any before, also after the node was deleted:
     * whoever compares epochs (a blockserver) must never take an old holder for a new one. */
    struct world world;
    uint64_t session, other, epoch = 0, last = 0;

    world_init(&world);
    session = session_open(&world);
    other = session_open(&world);
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(acquire(&world, session, "/lock", &epoch), BASE_OK);
        cr_assert(epoch > last);
        last = epoch;
        cr_assert_eq(acquire(&world, session, "/lock", &epoch), BASE_OK);
        cr_assert_eq(epoch, last, "repeating it while holding gives the same epoch");
        cr_assert_eq(acquire(&world, other, "/lock", NULL), BASE_ABORTED);
        cr_assert_eq(delete_node(&world, "/lock", -1), BASE_FAILED_PRECONDITION,
                     "a held lock cannot be deleted");
        cr_assert_eq(break_lock(&world, "/lock", true, NULL), BASE_FAILED_PRECONDITION,
                     "nor broken");
        cr_assert_eq(release(&world, other, "/lock", last), BASE_OK);
        cr_assert_eq(acquire(&world, other, "/lock", NULL), BASE_ABORTED,
                     "only its holder's release frees it");
        cr_assert_eq(release(&world, session, "/lock", last - 1), BASE_OK);
        cr_assert_eq(acquire(&world, other, "/lock", NULL), BASE_ABORTED,
                     "and only that of the present epoch");
        cr_assert_eq(release(&world, session, "/lock", last), BASE_OK);
        if (i % 2)
            cr_assert_eq(delete_node(&world, "/lock", -1), BASE_OK);
        cr_assert_eq(break_lock(&world, "/lock", i == 2, &epoch), BASE_OK);
        cr_assert(epoch > last);
        last = epoch;
    }
    world_free(&world);
}

Test(state, a_session_s_end)
{
    /* A session's end frees its locks and deletes its ephemeral nodes, and touches nothing else. */
    struct world world;
    uint64_t session, other;

    world_init(&world);
    session = session_open(&world);
    other = session_open(&world);
    cr_assert_eq(acquire(&world, session, "/l1", NULL), BASE_OK);
    cr_assert_eq(acquire(&world, other, "/l2", NULL), BASE_OK);
    cr_assert_eq(set(&world, "/e1", "", -1, session, NULL), BASE_OK);
    cr_assert_eq(set(&world, "/e2", "", -1, other, NULL), BASE_OK);
    cr_assert_eq(session_close(&world, session), BASE_OK);
    cr_assert_eq(session_close(&world, session), BASE_OK, "again is the same");
    cr_assert(clu__node_find(world.state, "/l1") && !clu__node_find(world.state, "/e1") &&
              clu__node_find(world.state, "/e2"));
    cr_assert_eq(clu__node_find(world.state, "/l1")->lock_session, 0);
    cr_assert_eq(clu__node_find(world.state, "/l2")->lock_session, other);
    cr_assert_eq(acquire(&world, session, "/l1", NULL), BASE_NOT_FOUND);
    world_free(&world);
}

/* ---- against a model ---- */

enum { PATHS = 6, SESSIONS = 4 };
struct model_node {
    bool there;
    uint64_t version, owner, holder, epoch;
};

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*state >> 33);
}

static void node_check(const struct world *world, const char *path, const struct model_node *want,
                       uint64_t seed)
{
    const struct clu_node *have = clu__node_find(world->state, path);

    cr_assert((have != NULL) == want->there, "seed %" PRIu64 ": %s", seed, path);
    if (!have)
        return;
    cr_assert_eq(have->session, want->owner, "seed %" PRIu64 ": owner of %s", seed, path);
    cr_assert_eq(have->lock_session, want->holder, "seed %" PRIu64 ": holder of %s", seed, path);
    cr_assert_eq(have->lock_epoch, want->epoch, "seed %" PRIu64 ": epoch of %s", seed, path);
    cr_assert_eq(have->version, want->version, "seed %" PRIu64 ": version of %s", seed, path);
}

/* The state as bytes. */
static struct base_buf image(const struct world *world)
{
    struct base_buf bytes = { 0 };

    world->machine.snapshot(world->machine.self, &bytes);
    return bytes;
}

static void restore_check(struct world *world, uint64_t seed)
{
    struct base_buf before = image(world), after;
    struct base_status status =
        world->machine.restore(world->machine.self, base_buf_bytes(&before));

    cr_assert(!base_failed(status), "%s", base_status_text(&status));
    after = image(world);
    cr_assert(base_bytes_eq(base_buf_bytes(&before), base_buf_bytes(&after)),
              "seed %" PRIu64 ": a restored state differs", seed);
    base_buf_free(&before);
    base_buf_free(&after);
}

Test(state, names_against_a_model)
{
    /* Random names, sessions and locks behave as the few lines of the model say, with snapshots
     * restored in between. */
    static const char *const paths[PATHS] = { "/a", "/a/b", "/a/b/c", "/a-b", "/c", "/d/e" };

    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct world world;
        struct model_node nodes[PATHS] = { 0 };
        uint64_t sessions[SESSIONS] = { 0 }, random = seed, highest_epoch = 0;

        world_init(&world);
        for (int step = 0; step < 300; step++) {
            uint32_t p = next_random(&random) % PATHS, s = next_random(&random) % SESSIONS;
            struct model_node *node = &nodes[p];
            uint64_t session = sessions[s], number = 0;
            enum base_code code, want = BASE_OK;

            switch (next_random(&random) % 8) {
            case 0:
                if (session == 0)
                    sessions[s] = session_open(&world);
                break;
            case 1:
                if (session == 0 || next_random(&random) % 3)
                    break;
                cr_assert_eq(session_close(&world, session), BASE_OK);
                for (int i = 0; i < PATHS; i++) {
                    bool owned = nodes[i].there && nodes[i].owner == session,
                         held = nodes[i].there && nodes[i].holder == session;

                    if (owned || held)
                        nodes[i].version = world.state->version;
                    if (held)
                        nodes[i].holder = 0;
                    if (owned && nodes[i].holder == 0)
                        nodes[i] = (struct model_node){ 0 };
                    else if (owned)
                        nodes[i].owner = 0;
                }
                sessions[s] = 0;
                break;
            case 2:
            case 3: {
                uint64_t owner = next_random(&random) % 2 ? session : 0;

                code = set(&world, paths[p], "x",
                           next_random(&random) % 3 ? -1 : (int64_t)node->version, owner, &number);
                cr_assert_eq(code, BASE_OK);
                node->there = true;
                node->owner = owner;
                node->version = number;
                break;
            }
            case 4:
                want = !node->there   ? BASE_NOT_FOUND
                       : node->holder ? BASE_FAILED_PRECONDITION
                                      : BASE_OK;
                cr_assert_eq(delete_node(&world, paths[p], -1), want);
                if (want == BASE_OK)
                    *node = (struct model_node){ 0 };
                break;
            case 5:
                want = session == 0                              ? BASE_NOT_FOUND
                       : node->holder && node->holder != session ? BASE_ABORTED
                                                                 : BASE_OK;
                cr_assert_eq(acquire(&world, session, paths[p], &number), want,
                             "seed %" PRIu64 " step %d", seed, step);
                if (want != BASE_OK || node->holder == session)
                    break;
                cr_assert(number > highest_epoch, "seed %" PRIu64 ": an epoch went back", seed);
                highest_epoch = node->epoch = node->version = number;
                node->there = true;
                node->holder = session;
                break;
            case 6:
                cr_assert_eq(release(&world, session, paths[p], 0), BASE_OK);
                if (session == 0 || node->holder != session)
                    break;
                node->holder = 0;
                node->version = world.state->version;
                break;
            default:
                want = node->holder ? BASE_FAILED_PRECONDITION : BASE_OK;
                cr_assert_eq(break_lock(&world, paths[p], false, &number), want);
                if (want != BASE_OK)
                    break;
                cr_assert(number > highest_epoch);
                highest_epoch = number;
                if (node->there)
                    node->epoch = node->version = number;
            }
            for (int i = 0; i < PATHS; i++)
                node_check(&world, paths[i], &nodes[i], seed);
            if (step % 50 == 0)
                restore_check(&world, seed);
        }
        world_free(&world);
    }
}

/* ---- jobs ---- */

static enum base_code job_put(struct world *world, const char *name, uint32_t tasks,
                              const char *arg, bool pinned, bool update)
{
    CLU_PB(Command) *command = CLU_NEW(&world->arena, Command, command);
    CLU_PB(SubmitJobRequest) *submit = CLU_NEW(&world->arena, SubmitJobRequest, submit_job_request);
    CLU_PB(UpdateJobRequest) *change = CLU_NEW(&world->arena, UpdateJobRequest, update_job_request);
    CLU_PB(JobSpec) *spec = CLU_NEW(&world->arena, JobSpec, job_spec);

    spec->name = ch_data_str(name);
    spec->command = ch_data_str("program");
    spec->tasks = tasks;
    spec->pinned = pinned;
    spec->args = BASE_NEW(&world->arena, ProtobufCBinaryData);
    spec->args[0] = ch_data_str(arg);
    spec->n_args = 1;
    submit->spec = change->spec = spec;
    command->what_case = update ? STRATA__CLUSTERMGR__V1__COMMAND__WHAT_UPDATE_JOB
                                : STRATA__CLUSTERMGR__V1__COMMAND__WHAT_SUBMIT_JOB;
    if (update)
        command->update_job = change;
    else
        command->submit_job = submit;
    return apply(world, command, NULL);
}

static enum base_code job_kill(struct world *world, const char *name)
{
    COMMAND(world, KILL_JOB, kill_job_request, KillJobRequest, kill_job)
    request->name = ch_data_str(name);
    return apply(world, command, NULL);
}

static void report(struct world *world, const char *machine, const struct clu_task *task,
                   const char *endpoint, bool healthy)
{
    COMMAND(world, REPORT, report_request, ReportRequest, report)
    request->machine = CLU_NEW(&world->arena, Machine, machine);
    request->machine->name = ch_data_str(machine);
    request->machine->capacity = CLU_NEW(&world->arena, Resources, resources);
    if (task) {
        CLU_PB(Task) *record = CLU_NEW(&world->arena, Task, task);

        record->job = ch_data_str(task->job->name);
        record->index = task->index;
        record->incarnation = task->incarnation;
        record->generation = task->generation;
        record->state = CLU_TASK(RUNNING);
        record->endpoint = ch_data_str(endpoint);
        record->healthy = healthy;
        request->tasks = BASE_NEW(&world->arena, CLU_PB(Task) *);
        request->tasks[0] = record;
        request->n_tasks = 1;
    }
    cr_assert_eq(apply(world, command, NULL), BASE_OK);
}

static void decide(struct world *world, const struct clu_task *task, uint64_t incarnation,
                   const char *machine, bool advance)
{
    COMMAND(world, PLAN, plan, Plan, plan)
    CLU_PB(Decision) *decision = CLU_NEW(&world->arena, Decision, decision);

    decision->job = ch_data_str(task->job->name);
    decision->index = task->index;
    decision->incarnation = incarnation;
    decision->kind = advance ? STRATA__CLUSTERMGR__V1__DECISION__KIND__ADVANCE
                             : STRATA__CLUSTERMGR__V1__DECISION__KIND__PLACE;
    decision->machine = ch_data_str(machine);
    decision->reason = ch_data_str("so");
    request->decisions = BASE_NEW(&world->arena, CLU_PB(Decision) *);
    request->decisions[0] = decision;
    request->n_decisions = 1;
    cr_assert_eq(apply(world, command, NULL), BASE_OK);
}

static void machine_down(struct world *world, const char *machine)
{
    COMMAND(world, MACHINE_DOWN, machine_down, MachineDown, machine_down)
    request->name = ch_data_str(machine);
    cr_assert_eq(apply(world, command, NULL), BASE_OK);
}

static void cell_create(struct world *world)
{
    COMMAND(world, CELL_CREATE, cell_create, CellCreate, cell_create)
    request->cell = ch_data_str("c");
    request->cell_id = ch_data_str("1234");
    cr_assert_eq(apply(world, command, NULL), BASE_OK);
}

Test(state, a_task_s_endpoint_follows_its_life)
{
    /* The name of a task's endpoint appears with its first report, is unhealthy when the task or
     * its machine is, goes when the task is placed anew, and does not come back by a late report
     * of the former place. */
    struct world world;
    const struct clu_node *node;
    struct clu_task *task, former;
    struct clu_job *job;

    world_init(&world);
    cell_create(&world);
    report(&world, "m1", NULL, "", false);
    report(&world, "m2", NULL, "", false);
    cr_assert_eq(job_put(&world, "web", 1, "--a", false, false), BASE_OK);
    cr_assert_eq(job_put(&world, "web", 1, "--a", false, false), BASE_OK,
                 "the same again is the same");
    cr_assert_eq(job_put(&world, "web", 1, "--b", false, false), BASE_ALREADY_EXISTS);
    job = clu__job_find(world.state, "web");
    task = job->tasks[0];
    decide(&world, task, task->incarnation, "m1", false);
    cr_assert(task->machine && !clu__node_find(world.state, "/c/web/0"));
    report(&world, "m1", task, "127.0.0.1:1", true);
    node = clu__node_find(world.state, "/c/web/0");
    cr_assert(node && node->task && !node->unhealthy &&
              base_bytes_eq_str(base_buf_bytes(&node->value), "127.0.0.1:1"));
    cr_assert_eq(set(&world, "/c/web/0", "evil", -1, 0, NULL), BASE_PERMISSION_DENIED);
    cr_assert_eq(delete_node(&world, "/c/web/0", -1), BASE_PERMISSION_DENIED);
    machine_down(&world, "m1");
    cr_assert(clu__node_find(world.state, "/c/web/0")->unhealthy);
    former = *task;
    decide(&world, task, task->incarnation - 1, "m2", false);
    cr_assert_str_eq(task->machine->name, "m1", "a decision about an earlier incarnation is void");
    decide(&world, task, task->incarnation, "m2", false);
    cr_assert_str_eq(task->machine->name, "m2");
    cr_assert(!clu__node_find(world.state, "/c/web/0"));
    report(&world, "m1", &former, "127.0.0.1:1", true);
    cr_assert(!clu__node_find(world.state, "/c/web/0"),
              "the former machine tells of a task that is not its own any more");
    report(&world, "m2", task, "127.0.0.2:2", true);
    cr_assert(clu__node_find(world.state, "/c/web/0"));
    restore_check(&world, 0);
    cr_assert_eq(job_kill(&world, "web"), BASE_OK);
    cr_assert(!clu__node_find(world.state, "/c/web/0"));
    cr_assert_eq(job_kill(&world, "web"), BASE_NOT_FOUND);
    world_free(&world);
}

Test(state, updates_and_pins)
{
    /* Scaling restarts nobody; another change advances task by task, and reports of the former
     * generation do not count; a pinned task's machine is remembered beyond its job. */
    struct world world;
    struct clu_job *job;
    struct clu_task *task;
    uint64_t generation;

    world_init(&world);
    cell_create(&world);
    report(&world, "m1", NULL, "", false);
    report(&world, "m2", NULL, "", false);
    cr_assert_eq(job_put(&world, "db", 2, "--a", true, false), BASE_OK);
    job = clu__job_find(world.state, "db");
    generation = job->generation;
    cr_assert_eq(job_put(&world, "db", 3, "--a", true, true), BASE_OK);
    cr_assert(job->generation == generation && job->spec->tasks == 3);
    task = job->tasks[1];
    decide(&world, task, task->incarnation, "m1", false);
    report(&world, "m1", task, "127.0.0.1:1", true);
    cr_assert_eq(job_put(&world, "db", 3, "--b", true, true), BASE_OK);
    cr_assert(job->generation > generation && task->generation == generation && task->healthy);
    decide(&world, task, task->incarnation, "m1", true);
    cr_assert(task->generation == job->generation && !task->healthy,
              "it counts as missing until it tells of the new one");
    cr_assert_eq(job_put(&world, "db", 1, "--b", true, true), BASE_OK);
    cr_assert_eq(job_kill(&world, "db"), BASE_OK);
    cr_assert_eq(job_put(&world, "db", 2, "--b", true, false), BASE_OK);
    task = clu__task_find(world.state, "db", 1);
    restore_check(&world, 0);
    task = clu__task_find(world.state, "db", 1);
    decide(&world, task, task->incarnation, "m2", false);
    cr_assert(task->machine == NULL, "its data is on m1");
    decide(&world, task, task->incarnation, "m1", false);
    cr_assert_str_eq(task->machine->name, "m1");
    world_free(&world);
}

Test(state, a_bad_snapshot_is_refused)
{
    /* A snapshot that does not decode, or whose parts do not fit, is an error, not half a state. */
    struct world world;
    struct base_status status;

    world_init(&world);
    status = world.machine.restore(world.machine.self, BASE_BYTES_LIT("\xff\xff\xff"));
    cr_assert(base_failed(status));
    base_status_free(&status);
    world_free(&world);
}
